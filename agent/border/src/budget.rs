//! What a plugin may still ask for in one call.
//!
//! Both sides keep one: the sandbox's spares the way and counts, the agent's holds whatever the sandbox became.

use std::time::Duration;

use crate::{Counters, Fault, Limits, PeerFault, cut};

/// What is left of one call's bounds.
#[derive(Clone, Debug)]
pub struct Budget {
    limits: Limits,
    asks: usize,
    log_lines: usize,
    bytes_read: usize,
    peer_asks: usize,
    peer_time: Duration,
    is_exhausted: bool,
}

impl Budget {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            asks: 0,
            log_lines: 0,
            bytes_read: 0,
            peer_asks: 0,
            peer_time: Duration::ZERO,
            is_exhausted: false,
        }
    }

    /// What of a log line is kept, if any.
    pub fn log<'a>(&mut self, text: &'a str, counters: &mut Counters) -> Option<&'a str> {
        self.log_lines += 1;
        if self.log_lines > self.limits.log_lines_max {
            counters.log_lines_dropped += 1;
            return None;
        }
        let kept = cut(text, self.limits.log_bytes_max);
        counters.log_lines_cut += u64::from(kept.len() < text.len());
        Some(kept)
    }

    /// The host has worked enough for this call: no source gives anything more.
    pub fn exhaust(&mut self) {
        self.is_exhausted = true;
    }

    /// A source is asked.
    ///
    /// # Errors
    /// When sources were asked too often in this call.
    pub fn ask(&mut self, counters: &mut Counters) -> Result<(), Fault> {
        self.asks += 1;
        refuse(self.is_exhausted, &mut counters.host_refused)?;
        refuse(self.asks > self.limits.asks_max, &mut counters.asks_refused)
    }

    /// A source is asked for bytes: how many it may still give.
    ///
    /// # Errors
    /// When none are left, or sources were asked too often in this call.
    pub fn read(&mut self, counters: &mut Counters) -> Result<u32, Fault> {
        self.ask(counters)?;
        let left = self.limits.read_bytes_max.saturating_sub(self.bytes_read);
        refuse(left == 0, &mut counters.reads_refused)?;
        Ok(u32::try_from(left).unwrap_or(u32::MAX))
    }

    /// A source gave so many bytes.
    pub fn on_read(&mut self, bytes: usize) {
        self.bytes_read = self.bytes_read.saturating_add(bytes);
    }

    /// A peer is asked: how long it may be waited for.
    ///
    /// # Errors
    /// When peers were asked too often, waited for too long, or gave too much in this call.
    pub fn peer(&mut self, counters: &mut Counters) -> Result<Duration, PeerFault> {
        self.peer_asks += 1;
        let left = Duration::from_millis(self.limits.peer_ms_max).saturating_sub(self.peer_time);
        let is_read = self.bytes_read >= self.limits.read_bytes_max;
        if self.peer_asks > self.limits.peer_asks_max || left.is_zero() || is_read || self.is_exhausted {
            counters.peers_refused += 1;
            return Err(PeerFault::Exhausted);
        }
        Ok(left)
    }

    /// A peer was waited for.
    pub fn on_waited(&mut self, time: Duration) {
        self.peer_time += time;
    }

    /// How long peers were waited for.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.peer_time
    }

    /// # Errors
    /// When a state is too large; the text is for the plugin.
    pub fn state(&self, bytes: usize, counters: &mut Counters) -> Result<(), String> {
        let limit = self.limits.state_bytes_max;
        if bytes > limit {
            counters.states_refused += 1;
            return Err(format!("state of {bytes} bytes, at most {limit}"));
        }
        Ok(())
    }
}

fn refuse(is_beyond: bool, refused: &mut u64) -> Result<(), Fault> {
    if is_beyond {
        *refused += 1;
        return Err(Fault::Exhausted);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_asked_so_often_and_for_so_many_bytes() {
        let limits = Limits {
            asks_max: 3,
            read_bytes_max: 10,
            ..Limits::default()
        };
        let mut counters = Counters::default();
        let mut often = Budget::new(limits);
        let asked: Vec<_> = (0..4).map(|_| often.read(&mut counters)).collect();
        assert_eq!(asked, [Ok(10), Ok(10), Ok(10), Err(Fault::Exhausted)]);
        let mut much = Budget::new(limits);
        much.on_read(8);
        assert_eq!(much.read(&mut counters), Ok(2));
        much.on_read(2);
        assert_eq!(much.read(&mut counters), Err(Fault::Exhausted));
        let mut slow = Budget::new(limits);
        slow.exhaust();
        assert_eq!(slow.read(&mut counters), Err(Fault::Exhausted));
        let Counters {
            reads_refused,
            asks_refused,
            host_refused,
            ..
        } = counters;
        assert_eq!((reads_refused, asks_refused, host_refused), (1, 1, 1));
    }

    #[test]
    fn a_peer_is_asked_so_often_and_waited_for_so_long() {
        let limits = Limits {
            peer_asks_max: 2,
            peer_ms_max: 100,
            read_bytes_max: 10,
            ..Limits::default()
        };
        let mut counters = Counters::default();
        let mut often = Budget::new(limits);
        let asked: Vec<_> = (0..3).map(|_| often.peer(&mut counters).is_ok()).collect();
        assert_eq!(asked, [true, true, false]);
        let mut long = Budget::new(limits);
        long.on_waited(Duration::from_millis(70));
        assert_eq!(long.peer(&mut counters), Ok(Duration::from_millis(30)));
        long.on_waited(Duration::from_millis(40));
        assert_eq!(long.peer(&mut counters), Err(PeerFault::Exhausted));
        let mut much = Budget::new(limits);
        much.on_read(10);
        assert_eq!(much.peer(&mut counters), Err(PeerFault::Exhausted));
        assert_eq!(counters.peers_refused, 3);
    }
}
