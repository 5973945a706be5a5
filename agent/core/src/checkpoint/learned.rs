//! What the detectors have learned, as a snapshot: floats as they are, so that it comes back to the bit.

use std::collections::BTreeMap;

use super::convert::{alarm_from, alarm_proto};
use super::{AlarmProto, VERSION, decode, encode, malformed};
use crate::detect::Detector;
use crate::detect::alarm::Alarm;
use crate::detect::baseline::Baseline;
use crate::detect::calibrate::Calibration;
use crate::detect::transform::Shape;
use crate::settings::RestoreError;

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
    /// Level, variance of all, windows seen; fast, slow, relief, run of zeros, longest run.
    #[prost(float, repeated, tag = "8")]
    numbers: Vec<f32>,
    /// Last slot of the day, of the week, something in it, known, closed; windows with a value, windows missing, windows stale.
    #[prost(uint32, repeated, tag = "9")]
    counts: Vec<u32>,
    /// Of each calibration: its bins, the total, the highest, and the two that wait.
    #[prost(float, repeated, tag = "10")]
    calibrations: Vec<f32>,
    #[prost(bytes = "vec", tag = "11")]
    empty_visits: Vec<u8>,
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
        version: VERSION,
        window_ms,
        detector: Some(detector_proto(0, detector)),
        alarm: Some(alarm_proto(0, alarm)),
    })
}

pub(crate) fn judge_from(bytes: &[u8], window_ms: u32) -> Result<(Detector, Alarm), RestoreError> {
    let judge: JudgeProto = decode(bytes, |judge: &JudgeProto| judge.version)?;
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
        version: VERSION,
        window_ms,
        detectors,
    })
}

pub(crate) fn detectors_from(bytes: &[u8], window_ms: u32) -> Result<BTreeMap<u32, Detector>, RestoreError> {
    let snapshot: SnapshotProto = decode(bytes, |snapshot: &SnapshotProto| snapshot.version)?;
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
        fast,
        slow,
        relief,
        zero_run,
        zero_run_high,
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
            fast,
            slow,
            relief,
            zero_run,
            zero_run_high,
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
            })
            .collect(),
        empty_visits: baseline.empty_visits.to_vec(),
    }
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
    let [
        level,
        variance_all,
        seen_windows,
        fast,
        slow,
        relief,
        zero_run,
        zero_run_high,
    ] = proto.numbers[..]
    else {
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
        empty_visits: array(&proto.empty_visits)?,
    };
    let size = proto.calibrations.len() / 3;
    let mut calibrations = proto.calibrations.chunks_exact(size.max(1)).map(calibration_from);
    let calibrations = [calibrations.next()??, calibrations.next()??, calibrations.next()??];
    Some((
        proto.series,
        Detector {
            shape,
            baseline,
            calibrations,
            fast,
            slow,
            relief,
            zero_run,
            zero_run_high,
            seen,
            missing,
            stale,
        },
    ))
}

fn calibration_from(numbers: &[f32]) -> Option<Calibration> {
    let [mass @ .., total, high, newer, older] = numbers else {
        return None;
    };
    Some(Calibration {
        mass: array(mass)?,
        total: *total,
        high: *high,
        waiting: [*newer, *older],
    })
}

fn array<T: Copy, const N: usize>(values: &[T]) -> Option<[T; N]> {
    values.try_into().ok()
}
