//! How far a backlog runs ahead of the broker: on a slow link only as far as keeps short what live records wait behind it.
//!
//! In: what was handed to the connection with its bytes, and when the broker had it. Out: whether more of the backlog may
//! go, and how many records make one message.
//! The window grows by what arrives while the link's queue is short, and shrinks with that queue's length.
//! Source: RFC 6817 (LEDBAT), which keeps the delay that it adds to a link below a target.

use super::Send;

/// What a backlog may add to the delay of a live record.
pub const QUEUE_MS_MAX: u64 = 1_000;
/// Bytes of a backlog on a new connection until something is known of it.
const WINDOW_BYTES_FIRST: u64 = 16 << 10;
const WINDOW_BYTES_MIN: u64 = 4 << 10;
const WINDOW_BYTES_MAX: u64 = 4 << 20;

/// Handed to the connection, and not yet at the broker.
#[derive(Clone, Copy, Debug)]
struct OnWire {
    generation: u64,
    seq_first: u64,
    bytes: u64,
    handed_ms: u64,
}

/// One connection's.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    window_bytes: u64,
    on_wire: Vec<OnWire>,
    /// The shortest time to the broker and back.
    base_ms: u64,
    /// What was handed over before has nothing new to say.
    shrunk_ms: u64,
    /// Mean of a record on the wire; 0 while it is not known.
    record_bytes: u64,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            window_bytes: WINDOW_BYTES_FIRST,
            on_wire: Vec::new(),
            base_ms: u64::MAX,
            shrunk_ms: 0,
            record_bytes: 0,
        }
    }
}

impl Pace {
    pub(super) fn on_handed_over(&mut self, now_ms: u64, send: &Send, bytes: u64) {
        let Some((generation, seq_first, records)) = numbers(send) else {
            return;
        };
        let mean = bytes / records;
        self.record_bytes = if self.record_bytes == 0 {
            mean
        } else {
            (3 * self.record_bytes + mean) / 4
        };
        self.on_wire.push(OnWire {
            generation,
            seq_first,
            bytes,
            handed_ms: now_ms,
        });
    }

    /// The broker has it.
    pub(super) fn on_published(&mut self, now_ms: u64, send: &Send) {
        let Some(sent) = self.take(send) else { return };
        let delay_ms = now_ms.saturating_sub(sent.handed_ms);
        self.base_ms = self.base_ms.min(delay_ms);
        let queue_ms = delay_ms - self.base_ms;
        if queue_ms <= QUEUE_MS_MAX / 2 {
            self.window_bytes = (self.window_bytes + sent.bytes).min(WINDOW_BYTES_MAX);
        } else if queue_ms > QUEUE_MS_MAX && sent.handed_ms >= self.shrunk_ms {
            self.window_bytes = (self.window_bytes * QUEUE_MS_MAX / queue_ms).max(WINDOW_BYTES_MIN);
            self.shrunk_ms = now_ms;
        }
    }

    /// It is no longer on its way.
    pub(super) fn forget(&mut self, send: &Send) {
        self.take(send);
    }

    /// May more of the backlog go?
    pub(super) fn has_room(&self) -> bool {
        let on_wire: u64 = self.on_wire.iter().map(|sent| sent.bytes).sum();
        on_wire < self.window_bytes
    }

    /// Records in one message of the backlog, so that it fills half of the window at most.
    pub(super) fn records_max(&self) -> u64 {
        match self.record_bytes {
            0 => u64::MAX,
            bytes => (self.window_bytes / 2 / bytes).max(1),
        }
    }

    fn take(&mut self, send: &Send) -> Option<OnWire> {
        let (generation, seq_first, _) = numbers(send)?;
        let is_it = |sent: &OnWire| (sent.generation, sent.seq_first) == (generation, seq_first);
        let at = self.on_wire.iter().position(is_it)?;
        Some(self.on_wire.swap_remove(at))
    }
}

fn numbers(send: &Send) -> Option<(u64, u64, u64)> {
    match *send {
        Send::Records {
            generation,
            seq_first,
            seq_last,
            ..
        } => Some((generation, seq_first, (seq_last - seq_first + 1).max(1))),
        Send::Births { .. } | Send::Gap { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Lane;
    use crate::record::RecordKind;

    fn send(seq_first: u64, records: u64) -> Send {
        Send::Records {
            lane: Lane::Backlog,
            kind: RecordKind::Block,
            schema: 1,
            generation: 1,
            seq_first,
            seq_last: seq_first + records - 1,
        }
    }

    /// A link of this rate and round trip that is always kept full; what the last record of each message waited for.
    fn waits_ms(bytes_per_second: u64, round_trip_ms: u64, record_bytes: u64) -> Vec<u64> {
        let mut pace = Pace::default();
        let (mut now_ms, mut free_ms, mut seq) = (0, 0, 1);
        let mut under_way: Vec<(u64, Send)> = Vec::new();
        let mut waits = Vec::new();
        // The newest record goes first.
        let mut next = 1;
        for _ in 0..400 {
            while pace.has_room() {
                let send = send(seq, next);
                seq += next;
                let bytes = next * record_bytes;
                pace.on_handed_over(now_ms, &send, bytes);
                free_ms = free_ms.max(now_ms) + bytes * 1_000 / bytes_per_second;
                waits.push(free_ms - now_ms);
                under_way.push((free_ms + round_trip_ms, send));
                next = pace.records_max().min(60);
            }
            let (arrived_ms, send) = under_way.remove(0);
            now_ms = arrived_ms;
            pace.on_published(now_ms, &send);
        }
        waits
    }

    #[test]
    fn a_backlog_on_a_slow_link_makes_nothing_wait_long_and_keeps_it_busy() {
        let waits = waits_ms(8_000, 600, 500);
        assert!(waits.iter().all(|wait| *wait <= 3_500), "{waits:?}");
        let settled = &waits[waits.len() / 2..];
        assert!(settled.iter().all(|wait| (100..=2_000).contains(wait)), "{settled:?}");
    }

    #[test]
    fn a_fast_link_is_filled_within_a_few_round_trips() {
        let mut pace = Pace::default();
        for round in 1..=8 {
            let mut sent = Vec::new();
            while pace.has_room() {
                let send = send(1 + sent.len() as u64 * 60, 60);
                pace.on_handed_over(round * 10, &send, 30_000);
                sent.push(send);
            }
            sent.iter().for_each(|send| pace.on_published(round * 10 + 10, send));
        }
        assert!(pace.window_bytes >= 2 << 20, "{pace:?}");
        assert!(pace.records_max() >= 60, "{pace:?}");
    }

    #[test]
    fn what_was_refused_takes_no_room() {
        let mut pace = Pace::default();
        pace.on_handed_over(0, &send(1, 60), WINDOW_BYTES_FIRST);
        assert!(!pace.has_room());
        pace.forget(&send(1, 60));
        assert!(pace.has_room());
    }
}
