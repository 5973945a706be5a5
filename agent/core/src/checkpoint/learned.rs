//! What the detectors have learned, as a snapshot: floats as they are, so that it comes back to the bit.

use std::collections::BTreeMap;

use super::convert::{alarm_from, alarm_proto};
use super::{AlarmProto, decode, encode, malformed};
use crate::detect::Detector;
use crate::detect::after_hours::AfterHours;
use crate::detect::alarm::Alarm;
use crate::detect::baseline::{Baseline, EmptyVisits};
use crate::detect::calibrate::Calibration;
use crate::detect::novelty::{Novelty, RANKS, Ranks};
use crate::detect::runs::{Run, Runs};
use crate::detect::transform::Shape;
use crate::settings::RestoreError;

/// The version of what was learned, apart from that of the checkpoint: a store whose detectors changed learns anew, and
/// loses nothing else.
const LEARNED_VERSION: u32 = 3;

const OTHER_WINDOWS: &str = "it was learned from windows of another length";

#[derive(Clone, PartialEq, prost::Message)]
struct SnapshotProto {
    #[prost(uint32, tag = "1")]
    version: u32,
    /// What was learned of windows of another length is of no use.
    #[prost(uint32, tag = "2")]
    window_ms: u32,
    #[prost(message, repeated, tag = "3")]
    detectors: Vec<DetectorProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DetectorProto {
    #[prost(uint32, tag = "1")]
    series: u32,
    #[prost(uint32, tag = "2")]
    shape: u32,
    #[prost(float, repeated, tag = "3")]
    day: Vec<f32>,
    #[prost(float, repeated, tag = "4")]
    variance: Vec<f32>,
    #[prost(float, repeated, tag = "5")]
    day_seen: Vec<f32>,
    #[prost(float, repeated, tag = "6")]
    week: Vec<f32>,
    #[prost(uint32, repeated, tag = "7")]
    week_seen: Vec<u32>,
    /// Level, variance of all, windows seen, relief; the sustained statistics.
    #[prost(float, repeated, tag = "8")]
    numbers: Vec<f32>,
    /// Last slot of the day, of the week, something in it, known, closed; windows with a value, windows missing, windows stale.
    #[prost(uint32, repeated, tag = "9")]
    counts: Vec<u32>,
    /// Of each calibration: its bins, the total, the highest, the two that wait, and the bar.
    #[prost(float, repeated, tag = "10")]
    calibrations: Vec<f32>,
    #[prost(bytes = "vec", tag = "11")]
    empty_visits: Vec<u8>,
    /// Of each run: now, its peak, the highest.
    #[prost(float, repeated, tag = "12")]
    runs: Vec<f32>,
    #[prost(float, tag = "13")]
    after_hours: f32,
    /// Of the novelty: what was seen, a bit each.
    #[prost(bytes = "vec", tag = "14")]
    novelty_seen: Vec<u8>,
    /// Its range, mean, last, variance, sustained, hold.
    #[prost(float, repeated, tag = "15")]
    novelty_numbers: Vec<f32>,
    /// Its values, whether the range was declared, the two levels before, the four counts of news; of each of its ranks
    /// the total and the bins.
    #[prost(uint32, repeated, tag = "16")]
    novelty_counts: Vec<u32>,
}

/// One series on its own, with its alarm.
#[derive(Clone, PartialEq, prost::Message)]
struct JudgeProto {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint32, tag = "2")]
    window_ms: u32,
    #[prost(message, optional, tag = "3")]
    detector: Option<DetectorProto>,
    #[prost(message, optional, tag = "4")]
    alarm: Option<AlarmProto>,
}

pub(crate) fn judge_to(detector: &Detector, alarm: &Alarm, window_ms: u32) -> Vec<u8> {
    encode(&JudgeProto {
        version: LEARNED_VERSION,
        window_ms,
        detector: Some(detector_proto(0, detector)),
        alarm: Some(alarm_proto(0, alarm)),
    })
}

pub(crate) fn judge_from(bytes: &[u8], window_ms: u32) -> Result<(Detector, Alarm), RestoreError> {
    let judge: JudgeProto = decode(bytes, LEARNED_VERSION, |judge: &JudgeProto| judge.version)?;
    if judge.window_ms != window_ms {
        return Err(malformed(OTHER_WINDOWS));
    }
    let detector = judge.detector.as_ref().and_then(detector_from);
    let (Some((_, detector)), Some(alarm)) = (detector, judge.alarm) else {
        return Err(malformed("wrong size"));
    };
    Ok((detector, alarm_from(alarm).1))
}

pub(crate) fn detectors_of<'a>(window_ms: u32, detectors: impl Iterator<Item = (u32, &'a Detector)>) -> Vec<u8> {
    let detectors = detectors
        .map(|(series, detector)| detector_proto(series, detector))
        .collect();
    encode(&SnapshotProto {
        version: LEARNED_VERSION,
        window_ms,
        detectors,
    })
}

pub(crate) fn detectors_from(bytes: &[u8], window_ms: u32) -> Result<BTreeMap<u32, Detector>, RestoreError> {
    let snapshot: SnapshotProto = decode(bytes, LEARNED_VERSION, |snapshot: &SnapshotProto| snapshot.version)?;
    if snapshot.window_ms != window_ms {
        return Err(malformed(OTHER_WINDOWS));
    }
    snapshot
        .detectors
        .iter()
        .map(|detector| detector_from(detector).ok_or_else(|| malformed("wrong size")))
        .collect()
}

pub(crate) fn detector_proto(series: u32, detector: &Detector) -> DetectorProto {
    let baseline = &detector.baseline;
    let Detector {
        sustained: [fast, slow, long],
        relief,
        seen,
        missing,
        stale,
        ..
    } = *detector;
    DetectorProto {
        series,
        shape: match detector.shape {
            Shape::Count => 1,
            Shape::Depth => 2,
            Shape::Level => 3,
            Shape::Latency => 4,
        },
        day: baseline.day.to_vec(),
        variance: baseline.variance.to_vec(),
        day_seen: baseline.day_seen.to_vec(),
        week: baseline.week.to_vec(),
        week_seen: baseline.week_seen.iter().map(|seen| u32::from(*seen)).collect(),
        numbers: vec![
            baseline.level,
            baseline.variance_all,
            baseline.seen,
            relief,
            fast,
            slow,
            long,
        ],
        counts: vec![
            u32::from(baseline.last_day),
            u32::from(baseline.last_week),
            u32::from(baseline.busy),
            u32::from(baseline.known),
            u32::from(baseline.closed),
            seen,
            missing,
            stale,
        ],
        calibrations: detector
            .calibrations
            .iter()
            .flat_map(|past| {
                past.mass
                    .iter()
                    .copied()
                    .chain([past.total, past.high])
                    .chain(past.waiting)
                    .chain([past.bar])
            })
            .collect(),
        empty_visits: baseline.empty.0.to_vec(),
        runs: detector
            .runs
            .0
            .iter()
            .flat_map(|run| [run.now, run.peak, run.high])
            .collect(),
        after_hours: detector.after_hours.0,
        novelty_seen: detector.novelty.seen.to_vec(),
        novelty_numbers: novelty_numbers(&detector.novelty).to_vec(),
        novelty_counts: novelty_counts(&detector.novelty).collect(),
    }
}

fn novelty_numbers(novelty: &Novelty) -> [f32; 7] {
    let Novelty {
        low,
        high,
        mean,
        last,
        variance,
        sustained,
        hold,
        ..
    } = *novelty;
    [low, high, mean, last, variance, sustained, hold]
}

fn novelty_counts(novelty: &Novelty) -> impl Iterator<Item = u32> {
    let ranks = novelty.ranks.iter();
    let ranks =
        ranks.flat_map(|ranks| std::iter::once(ranks.total).chain(ranks.mass.iter().map(|mass| u32::from(*mass))));
    [novelty.n, u32::from(novelty.declared)]
        .into_iter()
        .chain(novelty.before.map(u32::from))
        .chain(novelty.news.map(u32::from))
        .chain(ranks)
}

fn novelty_from(proto: &DetectorProto) -> Option<Novelty> {
    let [low, high, mean, last, variance, sustained, hold] = proto.novelty_numbers[..] else {
        return None;
    };
    let [n, declared, first, second, news @ ..] = &proto.novelty_counts[..] else {
        return None;
    };
    let (news, ranks) = news.split_at_checked(4)?;
    let ranks: Option<Vec<Ranks>> = ranks.chunks(RANKS + 1).map(ranks_from).collect();
    Some(Novelty {
        seen: array(&proto.novelty_seen)?,
        news: array(&shorts(news)?)?,
        n: *n,
        low,
        high,
        declared: *declared != 0,
        before: [u8::try_from(*first).ok()?, u8::try_from(*second).ok()?],
        mean,
        last,
        variance,
        sustained,
        hold,
        ranks: ranks?.try_into().ok()?,
    })
}

fn ranks_from(numbers: &[u32]) -> Option<Ranks> {
    let (total, mass) = numbers.split_first()?;
    Some(Ranks {
        mass: array(&shorts(mass)?)?,
        total: *total,
    })
}

fn shorts(numbers: &[u32]) -> Option<Vec<u16>> {
    numbers.iter().map(|number| u16::try_from(*number).ok()).collect()
}

pub(crate) fn detector_from(proto: &DetectorProto) -> Option<(u32, Detector)> {
    let shape = match proto.shape {
        1 => Shape::Count,
        2 => Shape::Depth,
        3 => Shape::Level,
        4 => Shape::Latency,
        _ => return None,
    };
    let week_seen: Vec<u16> = proto
        .week_seen
        .iter()
        .map(|seen| u16::try_from(*seen).unwrap_or(u16::MAX))
        .collect();
    let [level, variance_all, seen_windows, relief, fast, slow, long] = proto.numbers[..] else {
        return None;
    };
    let [last_day, last_week, busy, known, closed, seen, missing, stale] = proto.counts[..] else {
        return None;
    };
    let baseline = Baseline {
        day: array(&proto.day)?,
        variance: array(&proto.variance)?,
        day_seen: array(&proto.day_seen)?,
        week: array(&proto.week)?,
        week_seen: array(&week_seen)?,
        level,
        variance_all,
        seen: seen_windows,
        last_day: u8::try_from(last_day).ok()?,
        last_week: u16::try_from(last_week).ok()?,
        busy: busy != 0,
        known: known != 0,
        closed: closed != 0,
        empty: EmptyVisits(array(&proto.empty_visits)?),
    };
    let size = proto.calibrations.len() / 4;
    let calibrations = proto.calibrations.chunks_exact(size.max(1)).map(calibration_from);
    let calibrations: Option<Vec<Calibration>> = calibrations.collect();
    let calibrations = calibrations?.try_into().ok()?;
    Some((
        proto.series,
        Detector {
            shape,
            baseline,
            calibrations,
            sustained: [fast, slow, long],
            relief,
            runs: runs_from(&proto.runs)?,
            after_hours: AfterHours(proto.after_hours),
            novelty: novelty_from(proto)?,
            seen,
            missing,
            stale,
        },
    ))
}

fn runs_from(numbers: &[f32]) -> Option<Runs> {
    let runs = numbers.chunks_exact(3).map(|run| Run {
        now: run[0],
        peak: run[1],
        high: run[2],
    });
    runs.collect::<Vec<Run>>().try_into().ok().map(Runs)
}

fn calibration_from(numbers: &[f32]) -> Option<Calibration> {
    let [mass @ .., total, high, newer, older, bar] = numbers else {
        return None;
    };
    Some(Calibration {
        mass: array(mass)?,
        total: *total,
        high: *high,
        waiting: [*newer, *older],
        bar: *bar,
    })
}

fn array<T: Copy, const N: usize>(values: &[T]) -> Option<[T; N]> {
    values.try_into().ok()
}
