//! The state machine of one site: batches and ticks in, records and checkpoints out.
//!
//! In: declarations, batches with the progress of their source, the time. Out: records to be spooled, in order, and a
//! checkpoint that belongs to exactly these. It never asks for the time and never waits: `next_wake` says when to tick.

use std::collections::{BTreeMap, BTreeSet};

use tillwatch_feed::message::{Interval, RecordId};
use tillwatch_feed::score::ScoreState;
use tillwatch_feed::summary::Summary;

use crate::budget::Resolution;
use crate::checkpoint;
use crate::detect::alarm::{Alarm, OpenFinding};
use crate::detect::calendar::Occasion;
use crate::detect::slot::{Pace, Slot};
use crate::detect::transform::Shape;
use crate::detect::{Detector, Verdict};
use crate::encode;
use crate::guard::Guard;
use crate::local::{Local, Sale, Told};
use crate::record::NewRecord;
use crate::registry::{Bounds, DeclareError, LabelPolicy, Registry, SourceKey};
use crate::room::{Full, Room};
use crate::sample::{self, Kind};
pub use crate::settings::{Accepted, Counters, Limits, RestoreError, Settings};
use crate::summary::Intervals;
use crate::tally::{Reason, Tally};
use crate::value::{Value, scale_of, to_real, value_at};
use crate::window::{BUCKET_BYTES, ROW_BYTES, Windows, buckets_of, cost};

/// A pause that was not judged counts as so many windows of which nothing is known.
const PAUSE_WINDOWS: u64 = 30;

/// A clock that was so far ahead of now is taken for wrong.
pub const CLOCK_BACK_MS: u64 = 600_000;

/// Intervals that are flushed together when too many are open.
pub const FLUSHED_EARLY: usize = 60;

/// After so many refused series of a batch no further new one of it is looked at.
const SERIES_REFUSED_MAX: usize = 64;

/// Roles of what customers do, which the opening hours bound.
const SALES_ROLES: &str = "sales.";
/// What a finding costs the store.
const SOLD_ROLES: [&str; 2] = ["sales.count", "sales.amount"];

/// No interval of the feed is longer.
const INTERVAL_MS_MAX: u32 = 3_600_000;

/// How many intervals of the settings are one: before a time, and from then on.
#[derive(Clone, Copy, Debug)]
struct Grain {
    before: u32,
    since_ms: u64,
    now: u32,
}

/// What the batch at hand has caused.
#[derive(Debug, Default)]
struct Caused {
    record_bytes: usize,
    /// Flushing did not help: what is open are windows.
    is_stuck: bool,
}

/// A series with its judge.
#[derive(Debug)]
struct Judged {
    detector: Box<Detector>,
    alarm: Alarm,
    kind: Kind,
    scale: f64,
    source: u32,
    /// There is none of it when the store is closed.
    keeps_hours: bool,
}

/// The store's mind.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    resolution: Resolution,
    grain: Grain,
    pace: Pace,
    registry: Registry,
    windows: Windows,
    intervals: Intervals,
    judged: BTreeMap<u32, Judged>,
    /// All windows that start before this are closed.
    judged_through_ms: Option<u64>,
    next_flush_ms: u64,
    records: Vec<NewRecord>,
    previous: Option<RecordId>,
    /// Schema of the last birth of this generation, and the registry's revision that it describes.
    schema: Option<(u64, u64)>,
    counters: Counters,
    /// Bytes of what is open.
    open: Room,
    caused: Caused,
    local: Local,
}

impl Core {
    /// A site that has seen nothing yet.
    pub fn new(settings: Settings) -> Core {
        let registry = Registry::new(bounds(&settings.limits));
        let open = Room::new(settings.limits.open_bytes_max, settings.limits.source_open_bytes_max);
        Core {
            resolution: Resolution::Full,
            grain: Grain {
                before: 1,
                since_ms: 0,
                now: 1,
            },
            pace: Pace::new(settings.window_ms),
            settings: Settings {
                window_ms: settings.window_ms.max(1),
                summary_ms: settings.summary_ms.max(1),
                ..settings
            },
            registry,
            windows: Windows::default(),
            intervals: Intervals::default(),
            judged: BTreeMap::new(),
            judged_through_ms: None,
            next_flush_ms: 0,
            records: Vec::new(),
            previous: None,
            schema: None,
            counters: Counters::default(),
            open,
            caused: Caused::default(),
            local: Local::default(),
        }
    }

    /// Goes on where `checkpoint` left off. A snapshot of detectors that cannot be used is left out and counted.
    ///
    /// # Errors
    /// When the checkpoint cannot be read.
    pub fn restore(settings: Settings, checkpoint: &[u8], detectors: Option<&[u8]>) -> Result<Core, RestoreError> {
        let mut core = Core::new(settings);
        let parts = checkpoint::parts_from(checkpoint, bounds(&core.settings.limits))?;
        core.registry = parts.registry;
        core.intervals = parts.intervals;
        core.windows = parts.windows;
        core.next_flush_ms = parts.next_flush_ms;
        core.judged_through_ms = parts.judged_through_ms;
        let mut learned = core.read_detectors(detectors);
        let series: Vec<u32> = core.registry.series.keys().copied().collect();
        for id in series {
            let alarm = parts.alarms.get(&id).copied().unwrap_or_default();
            core.judge_series(id, learned.remove(&id), alarm);
        }
        core.measure();
        if parts.window_ms != core.settings.window_ms {
            core.add_up_before(u64::MAX);
            core.judged_through_ms = None;
        }
        Ok(core)
    }

    /// From now on records are written under a new generation. Its first record is a birth that names `previous`: at
    /// once when any series is known, as blocks that were taken and not kept may follow.
    pub fn begin_generation(&mut self, previous: Option<RecordId>) {
        self.previous = previous;
        self.schema = None;
        if !self.registry.series.is_empty() {
            self.say_birth();
        }
    }

    /// A source says what it measures. Declaring it again replaces what it declared before.
    ///
    /// # Errors
    /// When a metric or a label policy is not acceptable; nothing is changed then.
    pub fn declare(
        &mut self,
        source: &str,
        version: &str,
        metrics: Vec<sample::Metric>,
        labels: BTreeMap<String, LabelPolicy>,
    ) -> Result<SourceKey, DeclareError> {
        self.registry.declare(source, version, metrics, labels)
    }

    /// Where the source was when its last counted batch came.
    pub fn progress(&self, source: &str) -> Option<&[u8]> {
        self.registry.source(source)?.progress.as_deref()
    }

    /// Counts the values of a batch, together with how far the source has come. A source that was read and had nothing
    /// gives an empty batch: that is how nothing sold is told from nothing known. A partial batch leaves that open.
    pub fn on_batch(&mut self, now_ms: u64, source: SourceKey, batch: sample::Batch, progress: Vec<u8>) -> Accepted {
        self.start_at(now_ms);
        self.caused = Caused::default();
        let mut accepted = Accepted::default();
        // All names first: then one dictionary says them, whatever is flushed in between.
        let ids = self.resolve_all(source, &batch.series, &mut accepted);
        for (series, id) in batch.series.iter().zip(ids) {
            if let Some(id) = id {
                self.on_series(now_ms, source, id, series, &mut accepted);
            }
        }
        if let Some(source) = self.registry.source_mut(source) {
            source.progress = Some(progress);
            source.read_from_ms.get_or_insert(now_ms);
            source.is_partial = batch.is_partial;
            source.refused.add_all(&accepted.refused);
            if !batch.more && !batch.is_partial {
                source.read_through_ms = source.read_through_ms.max(now_ms);
            }
        }
        self.counters.samples += accepted.samples;
        self.counters.refused.add_all(&accepted.refused);
        accepted
    }

    /// For a replay: every source that has said anything was read up to `now_ms`, so what was not seen was not there,
    /// unless the source could not be read.
    pub fn on_read(&mut self, now_ms: u64) {
        for source in self
            .registry
            .sources
            .iter_mut()
            .filter(|source| source.progress.is_some() && !source.is_partial)
        {
            source.read_through_ms = source.read_through_ms.max(now_ms);
        }
    }

    /// Closes windows and intervals whose time has come.
    pub fn on_tick(&mut self, now_ms: u64) {
        self.start_at(now_ms);
        self.close_windows(now_ms);
        if now_ms >= self.next_flush_ms {
            self.flush(now_ms);
        }
    }

    /// What is measured from the coarsest interval of `now_ms` on is summed up as coarsely as this; what was before is
    /// sent as it was begun.
    pub fn set_resolution(&mut self, now_ms: u64, resolution: Resolution) {
        if resolution == self.resolution {
            return;
        }
        let coarsest_ms = u64::from(self.settings.summary_ms) * u64::from(Resolution::Fifteenth.intervals());
        self.grain = Grain {
            before: self.grain.now,
            since_ms: now_ms - now_ms % coarsest_ms,
            now: resolution.intervals(),
        };
        self.resolution = resolution;
    }

    /// When `on_tick` has something to do next.
    pub fn next_wake(&self) -> u64 {
        let Some(judged_through_ms) = self.judged_through_ms else {
            return 0;
        };
        let window = judged_through_ms + u64::from(self.settings.window_ms) + self.close_delay_ms();
        window.min(self.next_flush_ms)
    }

    /// What is to be spooled, in this order, together with the `checkpoint()` that is taken right after.
    pub fn take_records(&mut self) -> Vec<NewRecord> {
        std::mem::take(&mut self.records)
    }

    /// Registry, open windows and intervals, open findings, progress of the sources; not the detectors.
    /// It belongs behind the records that were taken before.
    pub fn checkpoint(&self) -> Vec<u8> {
        let alarms = self.judged.iter().map(|(id, judged)| (*id, &judged.alarm));
        let times = (self.judged_through_ms, self.next_flush_ms, self.settings.window_ms);
        checkpoint::checkpoint_of(&self.registry, &self.windows, &self.intervals, alarms, times)
    }

    /// What the detectors have learned; worth a file of its own, once an hour.
    pub fn detectors(&self) -> Vec<u8> {
        let detectors = self.judged.iter().map(|(id, judged)| (*id, &*judged.detector));
        checkpoint::detectors_of(self.settings.window_ms, detectors)
    }

    /// Flushes all intervals, whether closed or not: a checkpoint with them is too large to be kept.
    pub fn flush_open(&mut self) {
        self.flush_early(|_series| true);
    }

    /// What the store itself is told; worth a file of its own whenever its revision has grown.
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// What was told before a restart; findings that are not open any more have ended by `now_ms`.
    pub fn restore_local(&mut self, local: Local, now_ms: u64) {
        self.local = local;
        let judged = &self.judged;
        let is_open = |id: u32| judged.get(&id).is_some_and(|judged| judged.alarm.is_open());
        self.local.end_unknown(is_open, now_ms);
    }

    /// What was dropped of each source since the start.
    pub fn refused(&self) -> impl Iterator<Item = (&str, &Tally)> {
        self.registry
            .sources
            .iter()
            .map(|source| (source.name.as_str(), &source.refused))
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Series that are known now.
    pub fn series_count(&self) -> usize {
        self.registry.series.len()
    }

    /// Length of the interval that holds this window.
    fn interval_ms(&self, start_ms: u64) -> u32 {
        let Grain { before, since_ms, now } = self.grain;
        let intervals = if start_ms < since_ms { before } else { now };
        let summary_ms = self.settings.summary_ms;
        summary_ms.saturating_mul(intervals.min((INTERVAL_MS_MAX / summary_ms).max(1)))
    }

    fn close_delay_ms(&self) -> u64 {
        match self.settings.limits.close_delay_ms {
            0 => u64::from(self.settings.window_ms) * 6 / 5,
            delay => delay,
        }
    }

    /// The first time that is heard decides where judging starts; so does a clock that was far ahead.
    fn start_at(&mut self, now_ms: u64) {
        let window_ms = u64::from(self.settings.window_ms);
        let closed_ms = now_ms.saturating_sub(self.close_delay_ms());
        let ahead = self
            .judged_through_ms
            .is_some_and(|through| through > now_ms.saturating_add(CLOCK_BACK_MS));
        if ahead {
            self.counters.clock_back += 1;
        }
        if ahead || self.judged_through_ms.is_none() {
            self.judged_through_ms = Some(closed_ms - closed_ms % window_ms);
            self.next_flush_ms = self.flush_after(now_ms);
        }
    }

    fn flush_after(&self, now_ms: u64) -> u64 {
        let summary_ms = u64::from(self.settings.summary_ms);
        let closed_ms = now_ms.saturating_sub(self.close_delay_ms());
        closed_ms - closed_ms % summary_ms + summary_ms + self.close_delay_ms()
    }

    /// The id of each series; none of those that are refused.
    fn resolve_all(
        &mut self,
        source: SourceKey,
        series: &[sample::Series],
        accepted: &mut Accepted,
    ) -> Vec<Option<u32>> {
        let mut refused = 0;
        let mut last = Reason::Undeclared;
        let mut resolve = |series: &sample::Series| {
            let metric = self.registry.metric_at(source, series.metric).ok_or(Reason::Undeclared);
            let id = metric.and_then(|metric| match self.registry.known(metric, &series.labels) {
                Some(id) => Ok(id),
                // Looking at what is refused costs the agent time that nobody pays for.
                None if refused >= SERIES_REFUSED_MAX => Err(last),
                None => self.registry.resolve(source, metric, &series.labels),
            });
            id.map_err(|reason| {
                (refused, last) = (refused + 1, reason);
                let values = u64::try_from(series.times_ms.len()).unwrap_or(u64::MAX);
                accepted.refused.add(reason, values);
            })
            .ok()
        };
        let ids: Vec<Option<u32>> = series.iter().map(&mut resolve).collect();
        for id in ids.iter().flatten() {
            if !self.judged.contains_key(id) {
                self.judge_series(*id, None, Alarm::default());
            }
        }
        ids
    }

    fn on_series(&mut self, now_ms: u64, source: SourceKey, id: u32, series: &sample::Series, accepted: &mut Accepted) {
        let Some(metric) = self.registry.metric_of(id).map(|entry| entry.metric.clone()) else {
            return;
        };
        for at in in_order(&series.times_ms, metric.kind) {
            let time_ms = series.times_ms[at];
            let taken = value_at(&series.values, at, &metric, Guard)
                .and_then(|value| self.check_time(now_ms, time_ms).map(|()| value))
                .and_then(|value| self.on_value(now_ms, (source, id), metric.kind, time_ms, value));
            match taken {
                Ok(()) => accepted.samples += 1,
                Err(reason) => accepted.refused.add(reason, 1),
            }
            self.bound_open();
        }
    }

    fn check_time(&self, now_ms: u64, time_ms: u64) -> Result<(), Reason> {
        if time_ms.saturating_add(self.settings.limits.lateness_max_ms) < now_ms {
            return Err(Reason::TooOld);
        }
        if time_ms > now_ms.saturating_add(self.settings.limits.ahead_max_ms) {
            return Err(Reason::TooNew);
        }
        Ok(())
    }

    fn on_value(
        &mut self,
        now_ms: u64,
        (source, id): (SourceKey, u32),
        kind: Kind,
        time_ms: u64,
        value: Value,
    ) -> Result<(), Reason> {
        let Some(entry) = self.registry.series.get_mut(&id) else {
            return Err(Reason::Undeclared);
        };
        entry.last_ms = entry.last_ms.max(now_ms);
        if kind != Kind::Counter {
            return self.add((source, id), kind, time_ms, value);
        }
        let before = entry.reading;
        if before.is_some_and(|(before_ms, _)| time_ms <= before_ms) {
            return Err(Reason::CounterOrder);
        }
        entry.reading = Some((time_ms, value.whole));
        // The first reading of a counter only says where it stands.
        let Some((_, before)) = before else { return Ok(()) };
        let whole = value
            .whole
            .checked_sub(before)
            .filter(|increment| *increment >= 0)
            .ok_or(Reason::CounterReset)?;
        let real = to_real(whole);
        self.add((source, id), kind, time_ms, Value { whole, real })
    }

    /// Into the value's window while that is open, else into its interval, where it counts but is not judged.
    fn add(&mut self, (source, id): (SourceKey, u32), kind: Kind, time_ms: u64, value: Value) -> Result<(), Reason> {
        let start_ms = time_ms - time_ms % u64::from(self.settings.window_ms);
        let is_late = self.judged_through_ms.is_none_or(|through| start_ms < through);
        self.make_room(source, is_late)?;
        let histogram = kind == Kind::Distribution;
        let interval_ms = self.interval_ms(start_ms);
        let summary = if is_late {
            self.counters.late += 1;
            &mut self.intervals.row(start_ms, interval_ms, id, histogram).summary
        } else {
            self.windows.cell(start_ms, id, histogram)
        };
        let before = cost(summary);
        self.counters.sums_cut += u64::from(summary.record(value.whole, value.real));
        let after = cost(summary);
        self.recount(source.0, before, after);
        Ok(())
    }

    /// Whether one more value of the source has room, perhaps after its intervals, or those of all, are flushed early.
    fn make_room(&mut self, source: SourceKey, is_late: bool) -> Result<(), Reason> {
        let is_spent = self.caused.record_bytes >= self.settings.limits.batch_record_bytes_max;
        if is_spent && is_late {
            return Err(Reason::OpenFull);
        }
        let sources = self.registry.sources.len();
        let Err(full) = self.open.check(source.0, sources, ROW_BYTES) else {
            return Ok(());
        };
        if !is_spent && !self.caused.is_stuck {
            let own = self.series_of(source);
            self.flush_early(|series| full == Full::Shared || own.contains(&series));
            // When windows take most of the room, the next values would flush a row each.
            let much = self.settings.limits.source_open_bytes_max / 8;
            self.caused.is_stuck = self.open.check(source.0, sources, much).is_err();
        }
        self.open
            .check(source.0, sources, ROW_BYTES)
            .map_err(|_full| Reason::OpenFull)
    }

    fn series_of(&self, source: SourceKey) -> BTreeSet<u32> {
        let own = self.judged.iter().filter(|(_, judged)| judged.source == source.0);
        own.map(|(id, _)| *id).collect()
    }

    fn flush_early(&mut self, is_wanted: impl Fn(u32) -> bool) {
        let intervals = self.intervals.drain_rows(is_wanted);
        self.counters.intervals_flushed_early += u64::try_from(intervals.len()).unwrap_or(0);
        self.say_intervals(intervals);
    }

    fn source_of(&self, series: u32) -> u32 {
        self.judged.get(&series).map_or(0, |judged| judged.source)
    }

    /// What is open, after a restart.
    fn measure(&mut self) {
        let cells = self.windows.open.values().flatten().map(|(id, cell)| (*id, cost(cell)));
        let rows = self
            .intervals
            .open
            .values()
            .flatten()
            .map(|(id, row)| (*id, row.cost()));
        for (series, bytes) in cells.chain(rows).collect::<Vec<_>>() {
            self.open.take(self.source_of(series), bytes);
        }
    }

    fn judge_series(&mut self, id: u32, learned: Option<Detector>, alarm: Alarm) {
        let Some(entry) = self.registry.metric_of(id) else {
            return;
        };
        let shape = Shape::of(entry.metric.kind, &entry.metric.role);
        let detector = learned
            .filter(|learned| learned.shape == shape)
            .unwrap_or_else(|| Detector::new(shape, None));
        let (kind, scale, source) = (entry.metric.kind, scale_of(entry.metric.decimals), entry.source);
        let keeps_hours = entry.metric.role.starts_with(SALES_ROLES);
        self.judged.insert(
            id,
            Judged {
                detector: Box::new(detector),
                alarm,
                kind,
                scale,
                source,
                keeps_hours,
            },
        );
    }

    fn read_detectors(&mut self, snapshot: Option<&[u8]>) -> BTreeMap<u32, Detector> {
        let Some(snapshot) = snapshot else {
            return BTreeMap::new();
        };
        checkpoint::detectors_from(snapshot, self.settings.window_ms).unwrap_or_else(|_refused| {
            self.counters.detectors_refused += 1;
            BTreeMap::new()
        })
    }

    fn close_windows(&mut self, now_ms: u64) {
        let Some(mut start_ms) = self.judged_through_ms else {
            return;
        };
        let window_ms = u64::from(self.settings.window_ms);
        let closed_ms = now_ms.saturating_sub(self.close_delay_ms());
        if closed_ms.saturating_sub(start_ms) / window_ms > self.settings.limits.judged_late_max {
            start_ms = closed_ms - closed_ms % window_ms;
            self.add_up_before(start_ms);
            self.miss_windows();
        }
        while start_ms + window_ms <= closed_ms {
            self.close_window(start_ms);
            start_ms += window_ms;
        }
        self.judged_through_ms = Some(start_ms);
    }

    /// Adds windows to their intervals without judging them.
    fn add_up_before(&mut self, before_ms: u64) {
        let open_max = self.settings.limits.windows_open_max;
        while let Some((start_ms, cells)) = self.windows.take_oldest(before_ms, open_max) {
            self.counters.windows_not_judged += 1;
            for (id, summary) in cells {
                self.merge(start_ms, id, &summary);
            }
        }
    }

    /// Nobody looked for a while: what the series did then is not known.
    fn miss_windows(&mut self) {
        for _ in 0..PAUSE_WINDOWS {
            for judged in self.judged.values_mut() {
                judged.detector.skip(&mut judged.alarm);
            }
        }
        self.tell_findings();
    }

    fn close_window(&mut self, start_ms: u64) {
        let cells = self.windows.take(start_ms);
        let end_ms = start_ms + u64::from(self.settings.window_ms);
        let (slot, occasion) = self.settings.calendar.at(start_ms, &self.settings.time_zone);
        let mut verdicts: Vec<(u32, Kind, Verdict)> = Vec::with_capacity(self.judged.len());
        for (id, judged) in &mut self.judged {
            let source = usize::try_from(judged.source)
                .ok()
                .and_then(|at| self.registry.sources.get(at));
            let read = source.is_some_and(|source| source.has_read(start_ms, end_ms));
            match judged.value(cells.get(id), read) {
                Some(value) => {
                    let occasion = if judged.keeps_hours {
                        occasion
                    } else {
                        occasion.without_hours()
                    };
                    let place = (slot, occasion);
                    let verdict = judged
                        .detector
                        .step_on(&self.pace, place, start_ms, value, &mut judged.alarm);
                    verdicts.push((*id, judged.kind, verdict));
                }
                None => judged.detector.skip(&mut judged.alarm),
            }
        }
        for (id, summary) in &cells {
            self.merge(start_ms, *id, summary);
        }
        self.sell(start_ms, (slot, occasion), &verdicts);
        for (id, kind, verdict) in verdicts {
            let source = self.source_of(id);
            let interval_ms = self.interval_ms(start_ms);
            let row = self
                .intervals
                .row(start_ms, interval_ms, id, kind == Kind::Distribution);
            let before = row.cost();
            let level = matches!(kind, Kind::Gauge | Kind::Distribution);
            row.score.get_or_insert_default().add(&verdict, level);
            let after = row.cost();
            self.recount(source, before, after);
        }
        self.tell_findings();
    }

    /// What was sold, beside what was expected, for the store itself.
    fn sell(&mut self, start_ms: u64, (slot, occasion): (Slot, Occasion), verdicts: &[(u32, Kind, Verdict)]) {
        let sale = |(id, _kind, verdict): &(u32, Kind, Verdict)| {
            let judged = self.judged.get(id)?;
            let entry = &self.registry.metric_of(*id)?.metric;
            let is_sold = verdict.state == ScoreState::Ok && SOLD_ROLES.contains(&entry.role.as_str());
            let level = judged.detector.baseline.level;
            let usual_level = self.local.usual_level(*id).unwrap_or(level);
            is_sold.then(|| Sale {
                series: *id,
                level,
                metric: &entry.name,
                unit: entry.currency.as_ref().unwrap_or(&entry.unit),
                labels: encode::labels(&self.registry, *id),
                expected: judged.detector.expected_at(usual_level, slot, verdict) / judged.scale,
                actual: verdict.actual / judged.scale,
            })
        };
        let sales: Vec<Sale<'_>> = verdicts.iter().filter_map(sale).collect();
        let is_usual = occasion == Occasion::Usual;
        self.local.sell(start_ms, self.settings.window_ms, is_usual, &sales);
    }

    /// The finding as the store itself is told of it.
    fn hear(&mut self, id: u32, finding: &OpenFinding, closed: bool) {
        let (Some(judged), Some(entry)) = (self.judged.get(&id), self.registry.metric_of(id)) else {
            return;
        };
        let (slot, _occasion) = self
            .settings
            .calendar
            .at(finding.peak.start_ms, &self.settings.time_zone);
        let (lower, upper) = judged.detector.band_of(&self.pace, slot, finding.peak.expected);
        let metric = &entry.metric;
        let end_ms = finding.last_ms + u64::from(finding.peak.window_ms);
        self.local.hear(Told {
            metric: metric.name.clone(),
            unit: metric.currency.as_ref().unwrap_or(&metric.unit).clone(),
            labels: encode::labels(&self.registry, id),
            start_ms: finding.start_ms,
            peak_ms: finding.peak.start_ms,
            end_ms: closed.then_some(end_ms),
            expected: finding.peak.expected / judged.scale,
            actual: finding.peak.actual / judged.scale,
            lower: lower / judged.scale,
            upper: upper / judged.scale,
            effect: finding.peak.effect,
            severity: finding.peak.severity,
            also: 0,
            series: id,
            revision: finding.revision,
        });
    }

    /// A cell of a window that is gone.
    fn merge(&mut self, start_ms: u64, id: u32, summary: &Summary) {
        let source = self.source_of(id);
        self.open.give_back(source, cost(summary));
        let interval_ms = self.interval_ms(start_ms);
        let row = self
            .intervals
            .row(start_ms, interval_ms, id, summary.histogram.is_some());
        let before = row.cost();
        self.counters.sums_cut += u64::from(row.summary.merge(summary));
        let after = row.cost();
        self.recount(source, before, after);
    }

    /// A value may also make a histogram coarser, and so smaller.
    fn recount(&mut self, source: u32, before: usize, after: usize) {
        self.open.take(source, after.saturating_sub(before));
        self.open.give_back(source, before.saturating_sub(after));
    }

    fn tell_findings(&mut self) {
        let news: Vec<_> = self
            .judged
            .iter_mut()
            .filter_map(|(id, judged)| judged.alarm.take_news().map(|(finding, closed)| (*id, finding, closed)))
            .collect();
        for (id, finding, closed) in news {
            self.say_birth();
            self.hear(id, &finding, closed);
            self.counters.findings += u64::from(finding.revision == 1);
            self.records
                .extend(encode::finding_record(&self.registry, id, &finding, closed));
        }
    }

    /// Keeps the memory bounded whatever a source reports.
    fn bound_open(&mut self) {
        if self.windows.open.len() > self.settings.limits.windows_open_max {
            self.add_up_before(0);
        }
        let intervals_max = self.settings.limits.open_intervals_max;
        if self.intervals.open.len() > intervals_max {
            let beyond = self.intervals.open.len() - intervals_max;
            let intervals = self.intervals.drain_oldest(beyond + FLUSHED_EARLY);
            self.counters.intervals_flushed_early += u64::try_from(intervals.len()).unwrap_or(0);
            self.say_intervals(intervals);
        }
    }

    fn flush(&mut self, now_ms: u64) {
        let intervals = self
            .intervals
            .drain_closed(now_ms.saturating_sub(self.close_delay_ms()));
        self.say_intervals(intervals);
        let (windows, intervals) = (&self.windows, &self.intervals);
        for id in self
            .registry
            .forget(now_ms, |id| windows.uses(id) || intervals.uses(id))
        {
            self.judged.remove(&id);
        }
        self.next_flush_ms = self.flush_after(now_ms);
    }

    fn say_intervals(&mut self, intervals: Vec<Interval>) {
        if intervals.is_empty() {
            return;
        }
        for row in intervals.iter().flat_map(|interval| &interval.rows) {
            let bytes = ROW_BYTES + BUCKET_BYTES * buckets_of(&row.summary);
            self.open.give_back(self.source_of(row.series), bytes);
        }
        let intervals = self.essential(intervals);
        if intervals.is_empty() {
            return;
        }
        let schema = self.say_birth();
        let records = encode::block_records(schema, intervals);
        self.caused.record_bytes += records.iter().map(|record| record.payload.len()).sum::<usize>();
        self.records.extend(records);
    }

    /// All of them, or what of them the center's model is built on.
    fn essential(&mut self, mut intervals: Vec<Interval>) -> Vec<Interval> {
        if self.resolution != Resolution::Essential {
            return intervals;
        }
        let registry = &self.registry;
        let has_role = |series| {
            registry
                .metric_of(series)
                .is_some_and(|entry| !entry.metric.role.is_empty())
        };
        let rows = |intervals: &[Interval]| intervals.iter().map(|interval| interval.rows.len() as u64).sum::<u64>();
        let before = rows(&intervals);
        for interval in &mut intervals {
            interval.rows.retain(|row| has_role(row.series));
        }
        intervals.retain(|interval| !interval.rows.is_empty());
        self.counters.rows_left_out += before - rows(&intervals);
        intervals
    }

    /// A birth first in a generation, and whenever the dictionary changed.
    fn say_birth(&mut self) -> u64 {
        if let Some((schema, revision)) = self.schema
            && revision == self.registry.revision
        {
            return schema;
        }
        let previous = if self.schema.is_none() { self.previous } else { None };
        let birth = encode::birth(
            &self.registry,
            &self.settings.agent_version,
            self.settings.window_ms,
            previous,
        );
        let schema = birth.schema;
        if self.schema.is_none_or(|(said, _)| said != schema) {
            self.records.push(encode::birth_record(birth));
        }
        self.schema = Some((schema, self.registry.revision));
        schema
    }
}

impl Judged {
    /// What of a window is judged, in whole numbers: of durations the 95th percentile, of readings the mean, of
    /// increments the total. A source that was read and had no increments had none.
    fn value(&self, cell: Option<&Summary>, read: bool) -> Option<f64> {
        let cell = cell.filter(|cell| cell.count > 0);
        match self.kind {
            Kind::Distribution => cell?
                .histogram
                .as_ref()?
                .quantile(0.95)
                .map(|seconds| seconds * self.scale),
            Kind::Gauge => cell?.mean(),
            Kind::Counter => cell.map(|cell| to_real(cell.sum)),
            Kind::Sum => cell.map(|cell| to_real(cell.sum)).or(read.then_some(0.0)),
        }
    }
}

fn bounds(limits: &Limits) -> Bounds {
    let Limits {
        sources_max,
        metrics_max,
        series_max,
        source_series_max,
        ..
    } = *limits;
    Bounds {
        sources_max,
        metrics_max,
        series_max,
        source_series_max,
    }
}

/// Readings of a counter only make sense in the order of their times.
fn in_order(times_ms: &[u64], kind: Kind) -> Vec<usize> {
    let mut order: Vec<usize> = (0..times_ms.len()).collect();
    if kind == Kind::Counter {
        order.sort_by_key(|at| times_ms[*at]);
    }
    order
}
