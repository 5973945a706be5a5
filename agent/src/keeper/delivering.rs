//! The keeper towards the broker: what goes out next, and what comes back.
//!
//! In: what delivery wants to send, reports of the uplink. Out: payloads, releases of the spool, counts.
//! It never waits and never deletes by itself: only what delivery accepts as an acknowledgement releases records.

use tillwatch_core::delivery::{AckProblem, Refusal, Send as ToSend};
use tillwatch_feed::message::Ack;
use tracing::{error, info, warn};

use super::wire::WireError;
use super::{Keeper, Observation, describe, written_ms};
use crate::uplink::{FromUplink, Publish, ToUplink};

/// A refusal is in the state after so long.
const REFUSED_STATE_MS: u64 = 5_000;

impl Keeper {
    /// The next payload that delivery wants to send. What cannot be sent is counted and told, and the next one tried.
    pub(super) fn next_to_send(&mut self) -> Option<ToUplink> {
        let now = self.real_now_ms();
        if std::mem::take(&mut self.is_state_due) && self.status.borrow().connected {
            return Some(ToUplink::StateChanged);
        }
        self.meter();
        while let Some(what) = self.delivery.poll(now) {
            match self.payload(&what) {
                Ok(payload) => {
                    if let ToSend::Records { lane, .. } = what {
                        self.metering.on_sent(lane, payload.bytes.len());
                    }
                    let token = self.next_token;
                    self.next_token += 1;
                    self.delivery.on_handed_over(now, &what, payload.bytes.len() as u64);
                    self.show(&Observation::Sent {
                        bytes: payload.bytes.len(),
                        what: &what,
                    });
                    self.on_uplink.insert(token, what);
                    self.status.send_modify(|status| {
                        status.counters.published += 1;
                        status.counters.published_bytes += payload.bytes.len() as u64;
                    });
                    return Some(ToUplink::Publish(Publish {
                        token,
                        leaf: payload.leaf,
                        payload: payload.bytes,
                    }));
                }
                Err(error) => self.on_unsendable(now, &what, &error),
            }
        }
        None
    }

    /// What the connection has taken decides what may be sent, and how coarse the feed is from now on.
    fn meter(&mut self) {
        let before = self.metering.spent().resolution;
        let lane = self.metering.last_lane(written_ms());
        self.delivery.set_last_lane(lane);
        let resolution = self.metering.spent().resolution;
        if resolution != before {
            self.core.set_resolution(self.clock.now_ms(), resolution);
            self.is_state_due = true;
        }
    }

    /// As with a payload that is too large for the broker: less at once, then not on this connection, then given up.
    fn on_unsendable(&mut self, now: u64, what: &ToSend, error: &WireError) {
        let fault = describe(error);
        match error {
            WireError::Lost { gap } => {
                error!(?gap, "records of the spool cannot be read back");
                self.delivery.on_gap(*gap);
                let lost = gap.seq_last - gap.seq_first + 1;
                self.status
                    .send_modify(|status| status.counters.records_unreadable += lost);
            }
            WireError::NotRead(_) => {
                if let Some(times) = self.said.count("spool not read", now) {
                    warn!(
                        error = fault,
                        times, "the spool cannot be read, what waits there is tried again"
                    );
                }
                self.on_refused(now, what, Refusal::Denied);
            }
            WireError::TooLarge { .. } => self.on_refused(now, what, Refusal::TooLarge),
            WireError::NoBirth { .. } => {
                if let Some(times) = self.said.count("dictionary", now) {
                    warn!(error = fault, times, "a dictionary cannot be read back");
                }
                self.on_refused(now, what, Refusal::TooLarge);
                self.status.send_modify(|status| status.counters.births_unreadable += 1);
            }
            _ => {
                error!(error = fault, ?what, "records of the spool are not understood");
                self.on_refused(now, what, Refusal::TooLarge);
                self.status
                    .send_modify(|status| status.counters.records_unreadable += 1);
            }
        }
    }

    fn on_refused(&mut self, now: u64, what: &ToSend, refusal: Refusal) {
        if let Some(gap) = self.delivery.on_refused(now, what, refusal) {
            error!(?gap, "a record was refused on two connections, and is given up");
            self.spool.refuse(gap);
            self.delivery.on_gap(gap);
            self.status.send_modify(|status| status.counters.records_given_up += 1);
        }
    }

    pub(super) fn on_report(&mut self, report: FromUplink) {
        let now = self.real_now_ms();
        match report {
            FromUplink::Connected => {
                self.on_uplink.clear();
                self.delivery.on_connected(now);
                self.set_connected(true);
            }
            FromUplink::Disconnected => {
                self.on_uplink.clear();
                self.delivery.on_disconnected();
                self.metering.on_disconnected();
                self.set_connected(false);
            }
            FromUplink::Published { token } => {
                let what = self.on_uplink.remove(&token);
                if let Some(through) = what.and_then(|what| self.delivery.on_published(now, &what)) {
                    self.spool.release(through);
                }
            }
            FromUplink::Refused { token, refusal } => {
                if let Some(what) = self.on_uplink.remove(&token) {
                    self.on_refused(now, &what, refusal);
                    self.status.send_modify(|status| status.counters.refused += 1);
                    // The center is told before long.
                    self.next_state_ms = self.next_state_ms.min(now.saturating_add(REFUSED_STATE_MS));
                }
            }
            FromUplink::Acked(ack) => self.on_ack(now, &ack),
            FromUplink::Ignored { messages } => {
                self.status.send_modify(|status| status.counters.ignored += messages);
            }
            FromUplink::Configured(config) => info!(?config, "settings from the center"),
        }
    }

    fn set_connected(&mut self, connected: bool) {
        self.status.send_modify(|status| status.connected = connected);
        self.show(&Observation::Connected(connected));
    }

    fn on_ack(&mut self, now: u64, ack: &Ack) {
        let outcome = self.delivery.on_ack(now, ack);
        if self.delivery.settings().archives.contains(&ack.archive) {
            self.spool.keep_births_for(&ack.archive, &ack.births_wanted);
        }
        if let Some(through) = outcome.release {
            self.spool.release(through);
        }
        let now_ms = self.clock.now_ms();
        self.status.send_modify(|status| status.acked_ms = now_ms);
        for problem in &outcome.problems {
            self.on_problem(now, problem);
        }
        self.show(&Observation::Acked(ack));
    }

    fn on_problem(&mut self, now: u64, problem: &AckProblem) {
        let mut kind = "";
        self.status.send_modify(|status| {
            let counter;
            (kind, counter) = match problem {
                AckProblem::UnknownArchive { .. } => ("unknown archive", &mut status.counters.acks_unknown),
                AckProblem::SpoolRewound { .. } => ("spool rewound", &mut status.counters.spool_rewound),
                AckProblem::Restarted { .. } => ("archive restarted", &mut status.counters.archive_restarts),
            };
            *counter += 1;
        });
        if let Some(times) = self.said.count(kind, now) {
            warn!(kind, ?problem, times, "an acknowledgement is not as expected");
        }
    }
}
