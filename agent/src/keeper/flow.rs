//! The keeper's loop: one event at a time, each handled to its end.
//!
//! In: the channels. Out: the same. Nothing here waits for the uplink while the uplink could wait for it: payloads are
//! handed over only when there is room.

use std::time::Duration;

use tillwatch_core::tally::{REASONS, Tally};
use tillwatch_core::{NewRecord, RecordKind, Run};
use tillwatch_feed::message::{RecordId, State};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::wire::monotonic_ms;
use super::{FromSource, Keeper, Observation, Status, describe, open_spool, report_notes, snapshot, written_ms};
use crate::collectors::Declaration;
use crate::spool::{FRAME_BYTES_MAX, SpoolError};
use crate::uplink::{self, FromUplink, ToUplink};

/// Between attempts to write to a disk that refuses.
const RETRY_WRITE_MS: u64 = 5_000;
/// The retained state is sent again so often.
const STATE_INTERVAL_MS: u64 = 300_000;
/// What waits for the bytes of the day is looked at again so often.
const HOLDING_INTERVAL_MS: u64 = 60_000;
/// An orderly stop waits no longer for the uplink's goodbye.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const TO_UPLINK_MAX: usize = 8;
const FROM_UPLINK_MAX: usize = 64;

/// Both ends towards the uplink; without an uplink they never move.
struct Wires {
    to_uplink: mpsc::Sender<ToUplink>,
    reports: mpsc::Receiver<FromUplink>,
    other_end: OtherEnd,
}

enum OtherEnd {
    Uplink(tokio::task::JoinHandle<()>),
    /// Kept, so that the channels stay open.
    Nobody {
        _requests: mpsc::Receiver<ToUplink>,
        _sender: mpsc::Sender<FromUplink>,
    },
}

/// What the loop woke up for.
enum Event {
    Source(Option<FromSource>),
    Report(Option<FromUplink>),
    Room,
    Tick,
    Time,
}

impl Keeper {
    /// Runs until all senders of `from_sources` are gone, then keeps what has closed, and the detectors' memory, says
    /// goodbye to the broker, and returns how it stands.
    pub async fn run(mut self, mut from_sources: mpsc::Receiver<FromSource>) -> Status {
        let mut wires = self.wires();
        let mut staged: Option<ToUplink> = None;
        loop {
            if staged.is_none() {
                staged = self.next_to_send();
            }
            let real_wait = self.real_wait(staged.is_some());
            let is_ending = from_sources.is_closed();
            if is_ending && self.retry_write_ms.is_some() {
                // What is left in the channel was never counted: its sources tell it again after the restart.
                break;
            }
            let takes_input = self.takes_input(is_ending);
            let event = tokio::select! {
                report = wires.reports.recv() => Event::Report(report),
                permit = wires.to_uplink.reserve(), if staged.is_some() => {
                    if let (Ok(permit), Some(staged)) = (permit, staged.take()) {
                        permit.send(staged);
                    }
                    Event::Room
                }
                message = from_sources.recv(), if takes_input => Event::Source(message),
                () = self.clock.sleep_until(self.core.next_wake()), if takes_input => Event::Tick,
                () = tokio::time::sleep(real_wait) => Event::Time,
            };
            match event {
                Event::Source(Some(message)) => self.on_source(message),
                Event::Source(None) => break,
                Event::Report(Some(report)) => {
                    if matches!(report, FromUplink::Connected | FromUplink::Disconnected) {
                        staged = None;
                    }
                    self.on_report(report);
                }
                // The uplink ends before its keeper only when it broke: what is kept goes out after a restart.
                Event::Report(None) => {
                    error!("the uplink ended, a new one starts");
                    staged = None;
                    self.on_report(FromUplink::Disconnected);
                    wires = self.wires();
                }
                Event::Room => {}
                Event::Tick => self.tick(),
                Event::Time => self.on_time(),
            }
            self.report_status();
        }
        self.stop(wires).await
    }

    fn wires(&self) -> Wires {
        let (to_uplink, requests) = mpsc::channel(TO_UPLINK_MAX);
        let (sender, reports) = mpsc::channel(FROM_UPLINK_MAX);
        let Some(settings) = self.settings.uplink.clone() else {
            return Wires {
                to_uplink,
                reports,
                other_end: OtherEnd::Nobody {
                    _requests: requests,
                    _sender: sender,
                },
            };
        };
        let uplink = uplink::start(settings, self.state.subscribe(), requests, sender);
        Wires {
            to_uplink,
            reports,
            other_end: OtherEnd::Uplink(uplink),
        }
    }

    async fn stop(mut self, wires: Wires) -> Status {
        self.core.on_tick(self.clock.now_ms());
        self.unsaved.extend(self.core.take_records());
        // Also without records: the checkpoint has the open windows.
        self.keep_unsaved();
        self.write_snapshot();
        self.refresh_state();
        let Wires {
            to_uplink,
            mut reports,
            other_end,
        } = wires;
        drop(to_uplink);
        if let OtherEnd::Uplink(uplink) = other_end {
            // Acknowledgements that still come are not heeded: the next start hears them again.
            let ended = async { while reports.recv().await.is_some() {} };
            if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
                uplink.abort();
            }
        }
        self.metering.last_lane(written_ms());
        self.save_metering(true);
        self.report_status();
        self.status.borrow().clone()
    }

    /// While the disk refuses, nothing new may count: its source would go on and it could be lost.
    fn takes_input(&self, is_ending: bool) -> bool {
        self.retry_write_ms.is_none() && (is_ending || !self.holds_much())
    }

    fn holds_much(&self) -> bool {
        let is_reached = |limit: Option<u64>, held: u64| limit.is_some_and(|most| held >= most);
        is_reached(self.settings.wait_at_records, self.spool.records())
            || is_reached(self.settings.wait_at_bytes, self.spool.bytes())
    }

    pub(super) fn real_now_ms(&self) -> u64 {
        monotonic_ms(self.started)
    }

    /// While something waits for the uplink, what delivery wants next is asked when that is gone.
    fn real_wait(&self, is_staged: bool) -> Duration {
        let now = self.real_now_ms();
        let delivery = if is_staged {
            u64::MAX
        } else {
            self.delivery.next_wake(now)
        };
        let wake = delivery
            .min(self.retry_write_ms.unwrap_or(u64::MAX))
            .min(self.next_state_ms);
        let at_most = if self.metering.is_holding() {
            HOLDING_INTERVAL_MS
        } else {
            STATE_INTERVAL_MS
        };
        Duration::from_millis(wake.saturating_sub(now).min(at_most))
    }

    fn on_source(&mut self, message: FromSource) {
        match message {
            FromSource::Batch {
                source,
                batch,
                progress,
                room,
            } => {
                drop(room);
                let seen = self.observer.is_some().then(|| batch.clone());
                let accepted = self.core.on_batch(self.clock.now_ms(), source, batch, progress);
                if let Some(batch) = &seen {
                    self.show(&Observation::Accepted {
                        source,
                        batch,
                        accepted,
                    });
                }
                self.take_records();
            }
            FromSource::Declare {
                source,
                declaration:
                    Declaration {
                        version,
                        metrics,
                        labels,
                    },
                answer,
            } => {
                let declared = self.declare(&source, &version, metrics, labels);
                // Whoever asked may have stopped waiting.
                answer.try_send(declared).unwrap_or_default();
            }
            FromSource::Tick { now_ms } => {
                self.clock.tell(now_ms);
                self.core.on_read(now_ms);
                self.tick();
            }
            FromSource::Clock(clock) => {
                self.clock = clock;
                self.tick();
            }
            FromSource::Flush(done) => {
                self.tick();
                // Whoever asked may have stopped waiting.
                done.send(self.retry_write_ms.is_none()).unwrap_or_default();
            }
        }
    }

    fn on_time(&mut self) {
        let now = self.real_now_ms();
        if self.retry_write_ms.is_some_and(|at| at <= now) {
            self.keep_unsaved();
        }
        if self.next_state_ms <= now {
            self.next_state_ms = now.saturating_add(STATE_INTERVAL_MS);
            self.refresh_state();
            self.save_metering(false);
        }
    }

    fn save_metering(&mut self, is_stopping: bool) {
        if let Err(error) = self.metering.save(is_stopping) {
            warn!(%error, "the bytes of the day are not remembered");
        }
    }

    fn tick(&mut self) {
        let now_ms = self.clock.now_ms();
        self.core.on_tick(now_ms);
        self.take_records();
        if now_ms >= self.next_snapshot_ms {
            self.next_snapshot_ms = now_ms.saturating_add(snapshot::INTERVAL_MS);
            self.write_snapshot();
        }
    }

    fn take_records(&mut self) {
        self.unsaved.extend(self.core.take_records());
        if !self.unsaved.is_empty() {
            self.keep_unsaved();
        }
    }

    /// Everything unsaved and the checkpoint, in one frame.
    fn keep_unsaved(&mut self) {
        if self.spool.has_failed() && !self.reopen() {
            return;
        }
        let checkpoint = self.checkpoint();
        let records = std::mem::take(&mut self.unsaved);
        let appended = self
            .put_births(&records)
            .and_then(|()| self.append(&records, &checkpoint));
        for gap in self.spool.take_dropped() {
            if let Some(times) = self.said.count("spool beyond its bounds", self.real_now_ms()) {
                warn!(
                    ?gap,
                    times, "the spool is full or too old, the oldest records are dropped"
                );
            }
            self.delivery.on_gap(gap);
        }
        match appended {
            Ok(ids) => self.on_kept(&ids, &records[..ids.len()]),
            Err(error) => {
                self.unsaved = records;
                self.on_write_failed(&error);
            }
        }
    }

    /// The core's bounds keep it within a frame, unless sources have come far in more than was reckoned with: what is
    /// open then goes out early.
    fn checkpoint(&mut self) -> Vec<u8> {
        let checkpoint = self.core.checkpoint();
        if checkpoint.len() <= FRAME_BYTES_MAX {
            return checkpoint;
        }
        self.core.flush_open();
        self.unsaved.extend(self.core.take_records());
        self.core.checkpoint()
    }

    /// What is too large for a frame is lost, and told; its values count as sent, so that the sources go on.
    fn append(&mut self, records: &[NewRecord], checkpoint: &[u8]) -> Result<Vec<RecordId>, SpoolError> {
        match self.spool.append(records, checkpoint, written_ms()) {
            Err(SpoolError::TooLarge { bytes }) if !records.is_empty() => {
                let lost = records.len() as u64;
                let gap = self.spool.append_without(lost, checkpoint, written_ms())?;
                error!(bytes, ?gap, "records are too large for the spool and lost");
                self.delivery.on_gap(gap);
                self.status
                    .send_modify(|status| status.counters.records_too_large += lost);
                Ok(Vec::new())
            }
            appended => appended,
        }
    }

    /// Beside the log and before it, so that no block is ever held without its dictionary.
    fn put_births(&mut self, records: &[NewRecord]) -> Result<(), SpoolError> {
        let first = self.spool.next_id();
        for (index, record) in (0u64..)
            .zip(records)
            .filter(|(_, record)| record.kind == RecordKind::Birth)
        {
            let id = RecordId {
                generation: first.generation,
                seq: first.seq + index,
            };
            self.spool.put_birth(record.schema, id, &record.payload)?;
        }
        Ok(())
    }

    fn on_kept(&mut self, ids: &[RecordId], records: &[NewRecord]) {
        for (id, record) in ids.iter().zip(records) {
            let RecordId { generation, seq } = *id;
            let run = Run {
                generation,
                seq_first: seq,
                seq_last: seq,
                kind: record.kind,
                schema: record.schema,
            };
            self.delivery.on_held(run);
        }
        if self.retry_write_ms.take().is_some() {
            info!("the spool is written to again");
            self.status.send_modify(|status| status.storage_fault = None);
        }
        let now_ms = self.clock.now_ms();
        self.status.send_modify(|status| {
            status.records_kept += ids.len() as u64;
            status.kept_ms = now_ms;
        });
        self.show(&Observation::Kept { ids, records });
    }

    fn on_write_failed(&mut self, error: &SpoolError) {
        let fault = describe(error);
        if self.retry_write_ms.is_none() {
            error!(error = fault, "the spool is not written to, sources wait");
        }
        self.retry_write_ms = Some(self.real_now_ms().saturating_add(RETRY_WRITE_MS));
        self.status.send_modify(|status| status.storage_fault = Some(fault));
    }

    /// After a failed sync nobody knows what is on disk: what is there is read again, and goes on under a new name.
    fn reopen(&mut self) -> bool {
        let in_doubt = self.spool.next_id();
        let opened = match open_spool(self.spool.disk(), &self.settings.spool) {
            Ok(opened) => opened,
            Err(error) => {
                self.on_write_failed(&SpoolError::NotWritten(error));
                return false;
            }
        };
        report_notes(&opened.recovery.notes);
        for gap in opened.recovery.gaps {
            self.delivery.on_gap(gap);
        }
        self.keep_what_survived(in_doubt, opened.recovery.runs.last());
        self.spool = opened.spool;
        self.generation = opened.generation;
        self.core.begin_generation(opened.recovery.previous);
        self.put_birth_first();
        self.status.send_modify(|status| {
            status.generation = opened.generation;
            status.counters.spool_reopened += 1;
        });
        self.refresh_state();
        true
    }

    /// A frame whose sync failed may be there all the same, when it could not be taken back. Its records are kept then:
    /// written once more under the new generation, each value would count twice.
    fn keep_what_survived(&mut self, in_doubt: RecordId, newest: Option<&Run>) {
        let is_it = |run: &&Run| run.generation == in_doubt.generation && run.seq_last >= in_doubt.seq;
        let Some(newest) = newest.filter(is_it) else { return };
        let ids: Vec<RecordId> = (in_doubt.seq..=newest.seq_last)
            .map(|seq| RecordId { seq, ..in_doubt })
            .collect();
        let records: Vec<NewRecord> = self.unsaved.drain(..ids.len().min(self.unsaved.len())).collect();
        self.on_kept(&ids, &records);
    }

    /// The new generation begins with its birth; what could not be kept before follows, less a birth that says the same.
    fn put_birth_first(&mut self) {
        let mut records = self.core.take_records();
        let said: Vec<u64> = records.iter().map(|birth| birth.schema).collect();
        self.unsaved
            .retain(|record| record.kind != RecordKind::Birth || !said.contains(&record.schema));
        records.append(&mut self.unsaved);
        self.unsaved = records;
    }

    /// What the retained state says; the uplink fills in whether we are there.
    fn refresh_state(&mut self) {
        let state = State {
            online: true,
            generation: self.generation,
            birth_number: 0,
            agent_version: self.settings.core.agent_version.clone(),
            clock: self.clock_reading(),
            spool_records: self.spool.records(),
            spool_bytes: self.spool.bytes(),
            refused: self.status.borrow().counters.refused,
            parked: self.delivery.parked(),
            bytes_today: self.metering.spent().bytes,
            bytes_per_day: self.metering.bytes_per_day().unwrap_or(0),
            intervals: self.metering.spent().resolution.intervals(),
        };
        self.state.send_replace(state);
        self.is_state_due = true;
    }

    pub(super) fn report_status(&mut self) {
        let (held, bytes, counters) = (self.spool.records(), self.spool.bytes(), self.spool.counters());
        let (in_flight, parked) = (self.delivery.in_flight(), self.delivery.parked());
        let (spent, bytes_per_day) = (self.metering.spent(), self.metering.bytes_per_day());
        let traffic_bytes = self.metering.traffic_bytes();
        let core = *self.core.counters();
        let is_waiting = self.holds_much();
        self.write_local();
        self.status.send_if_modified(|status| {
            let before = (status.records_held, status.spool_bytes, status.in_flight, status.parked);
            status.is_waiting = is_waiting;
            status.records_held = held;
            status.spool_bytes = bytes;
            status.spool = counters;
            status.core = core;
            for (source, refused) in self.core.refused() {
                let known = status.refused.get(source).copied().unwrap_or_default();
                if known != *refused {
                    tell_refused(source, &known, refused);
                    status.refused.insert(source.to_owned(), *refused);
                }
            }
            status.in_flight = in_flight;
            status.parked = parked;
            (status.spent, status.bytes_per_day) = (spent, bytes_per_day);
            status.traffic_bytes = traffic_bytes;
            before != (held, bytes, in_flight, parked)
        });
    }

    /// What the store itself is told, whenever there is news.
    pub(super) fn write_local(&mut self) {
        let revision = self.core.local().revision();
        let Some(file) = self
            .settings
            .local_file()
            .filter(|_file| revision != self.local_written)
        else {
            return;
        };
        self.local_written = revision;
        let content = serde_json::to_vec(self.core.local()).map_err(std::io::Error::other);
        if let Err(error) = content.and_then(|content| snapshot::write(&file, &content)) {
            warn!(file = %file.display(), %error, "what the store is told is not written");
            self.status.send_modify(|status| status.counters.snapshots_failed += 1);
        }
    }

    fn write_snapshot(&mut self) {
        let Some(file) = &self.settings.detectors_file else {
            return;
        };
        if let Err(error) = snapshot::write(file, &self.core.detectors()) {
            warn!(file = %file.display(), %error, "the detectors' memory is not written");
            self.status.send_modify(|status| status.counters.snapshots_failed += 1);
        }
    }

    pub(super) fn show(&mut self, observation: &Observation<'_>) {
        if let Some(observer) = &mut self.observer {
            observer(observation);
        }
    }
}

/// Once for each source and reason; how many there are is counted in `tillwatch.agent.refused`.
fn tell_refused(source: &str, known: &Tally, refused: &Tally) {
    for (reason, name) in REASONS {
        if reason.is_of_plugin() && known.of(reason) == 0 && refused.of(reason) > 0 {
            warn!(
                plugin = source,
                kind = name,
                "values of a plugin are refused, and those after them are counted"
            );
        }
    }
}
