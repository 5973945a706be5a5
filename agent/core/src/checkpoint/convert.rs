//! The parts of the state machine as protobuf and back.

use std::collections::BTreeMap;

use tillwatch_feed::histogram::{Buckets, Histogram};
use tillwatch_feed::score::{Score, ScoreState};
use tillwatch_feed::summary::Summary;

use super::{
    AlarmProto, CheckpointProto, HistogramProto, MetricProto, OpenProto, RowProto, ScoreProto, SeriesProto,
    SourceProto, StretchProto, VERSION, malformed,
};
use crate::detect::alarm::{Alarm, Evidence, OpenFinding};
use crate::registry::{Bounds, MetricEntry, Registry, SeriesEntry, Source};
use crate::sample::{Kind, Metric};
use crate::settings::RestoreError;
use crate::summary::{Intervals, OpenRow, WorstScore};
use crate::window::Windows;

/// What a checkpoint holds.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) registry: Registry,
    pub(crate) windows: Windows,
    pub(crate) intervals: Intervals,
    pub(crate) alarms: BTreeMap<u32, Alarm>,
    pub(crate) judged_through_ms: Option<u64>,
    pub(crate) next_flush_ms: u64,
    pub(crate) window_ms: u32,
}

pub(crate) fn checkpoint_of<'a>(
    registry: &Registry,
    windows: &Windows,
    intervals: &Intervals,
    alarms: impl Iterator<Item = (u32, &'a Alarm)>,
    (judged_through_ms, next_flush_ms, window_ms): (Option<u64>, u64, u32),
) -> Vec<u8> {
    let windows = windows.open.iter().map(|(start_ms, cells)| StretchProto {
        interval: false,
        start_ms: *start_ms,
        length_ms: window_ms,
        rows: cells
            .iter()
            .map(|(series, summary)| row_proto(*series, summary, None))
            .collect(),
    });
    let intervals = intervals.open.iter().map(|((start_ms, length_ms), rows)| StretchProto {
        interval: true,
        start_ms: *start_ms,
        length_ms: *length_ms,
        rows: rows
            .iter()
            .map(|(series, row)| row_proto(*series, &row.summary, row.score.as_ref()))
            .collect(),
    });
    let checkpoint = CheckpointProto {
        version: VERSION,
        judged_through_ms,
        next_flush_ms,
        next_metric: registry.next_metric,
        next_series: registry.next_series,
        sources: registry.sources.iter().map(source_proto).collect(),
        metrics: registry
            .metrics
            .iter()
            .map(|(id, entry)| metric_proto(*id, entry))
            .collect(),
        series: registry
            .series
            .iter()
            .map(|(id, entry)| series_proto(*id, entry))
            .collect(),
        stretches: windows.chain(intervals).collect(),
        alarms: alarms
            .filter(|(_, alarm)| **alarm != Alarm::default())
            .map(|(id, alarm)| alarm_proto(id, alarm))
            .collect(),
        window_ms,
    };
    checkpoint.write()
}

pub(crate) fn parts_from(bytes: &[u8], bounds: Bounds) -> Result<Parts, RestoreError> {
    let checkpoint = CheckpointProto::read(bytes)?;
    let mut registry = Registry::new(bounds);
    registry.next_metric = checkpoint.next_metric;
    registry.next_series = checkpoint.next_series;
    registry.sources = checkpoint.sources.into_iter().map(source_from).collect();
    for metric in checkpoint.metrics {
        let (id, entry) = metric_from(metric)?;
        registry.metrics.insert(id, entry);
    }
    for series in checkpoint.series {
        let SeriesProto {
            id,
            metric,
            labels,
            last_ms,
            reading_ms,
            reading,
        } = series;
        let reading = reading_ms.map(|time_ms| (time_ms, reading));
        registry.put_series(
            id,
            SeriesEntry {
                metric,
                labels,
                last_ms,
                reading,
            },
        );
    }
    let mut windows = Windows::default();
    let mut intervals = Intervals::default();
    for stretch in checkpoint.stretches {
        for row in stretch.rows {
            let series = row.series;
            let (summary, score) = row_from(row)?;
            if stretch.interval {
                let rows = intervals.open.entry((stretch.start_ms, stretch.length_ms)).or_default();
                rows.insert(series, OpenRow { summary, score });
            } else {
                windows
                    .open
                    .entry(stretch.start_ms)
                    .or_default()
                    .insert(series, summary);
            }
        }
    }
    Ok(Parts {
        registry,
        windows,
        intervals,
        alarms: checkpoint.alarms.into_iter().map(alarm_from).collect(),
        judged_through_ms: checkpoint.judged_through_ms,
        next_flush_ms: checkpoint.next_flush_ms,
        window_ms: checkpoint.window_ms,
    })
}

fn source_proto(source: &Source) -> SourceProto {
    SourceProto {
        name: source.name.clone(),
        version: source.version.clone(),
        progress: source.progress.clone(),
        read_through_ms: source.read_through_ms,
        read_from_ms: source.read_from_ms,
    }
}

fn source_from(source: SourceProto) -> Source {
    let SourceProto {
        name,
        version,
        progress,
        read_through_ms,
        read_from_ms,
    } = source;
    Source {
        name,
        version,
        progress,
        read_through_ms,
        read_from_ms,
        ..Source::default()
    }
}

fn metric_proto(id: u32, entry: &MetricEntry) -> MetricProto {
    let metric = entry.metric.clone();
    MetricProto {
        id,
        source: entry.source,
        name: metric.name,
        unit: metric.unit,
        kind: match metric.kind {
            Kind::Gauge => 1,
            Kind::Counter => 2,
            Kind::Sum => 3,
            Kind::Distribution => 4,
        },
        help: metric.help,
        label_keys: metric.label_keys,
        role: metric.role,
        decimals: u32::from(metric.decimals),
        currency: metric.currency,
    }
}

fn metric_from(metric: MetricProto) -> Result<(u32, MetricEntry), RestoreError> {
    let kind = match metric.kind {
        1 => Kind::Gauge,
        2 => Kind::Counter,
        3 => Kind::Sum,
        4 => Kind::Distribution,
        _ => return Err(malformed("unknown kind of metric")),
    };
    let decimals = u8::try_from(metric.decimals)
        .ok()
        .filter(|decimals| *decimals <= crate::value::DECIMALS_MAX);
    let MetricProto {
        id,
        source,
        name,
        unit,
        help,
        label_keys,
        role,
        currency,
        ..
    } = metric;
    let decimals = decimals.ok_or_else(|| malformed("too many decimals"))?;
    Ok((
        id,
        MetricEntry {
            source,
            metric: Metric {
                name,
                unit,
                kind,
                help,
                label_keys,
                role,
                decimals,
                currency,
            },
        },
    ))
}

fn series_proto(id: u32, entry: &SeriesEntry) -> SeriesProto {
    SeriesProto {
        id,
        metric: entry.metric,
        labels: entry.labels.clone(),
        last_ms: entry.last_ms,
        reading_ms: entry.reading.map(|reading| reading.0),
        reading: entry.reading.map_or(0, |reading| reading.1),
    }
}

fn row_proto(series: u32, summary: &Summary, score: Option<&WorstScore>) -> RowProto {
    RowProto {
        series,
        count: summary.count,
        sum: summary.sum,
        min: summary.min,
        max: summary.max,
        histogram: summary.histogram.as_ref().map(|histogram| HistogramProto {
            scale: histogram.scale(),
            zero_count: histogram.zero_count(),
            positive_offset: histogram.positive().offset(),
            positive: histogram.positive().counts().to_vec(),
            negative_offset: histogram.negative().offset(),
            negative: histogram.negative().counts().to_vec(),
        }),
        score: score.map(|worst| ScoreProto {
            state: match worst.score.state {
                ScoreState::Warming => 1,
                ScoreState::Ok => 2,
                ScoreState::Stale => 3,
            },
            alarm: worst.score.alarm,
            log10_p: worst.score.log10_p,
            effect: worst.score.effect,
            missing: worst.missing,
            windows: worst.windows,
            level: worst.level,
        }),
    }
}

fn row_from(row: RowProto) -> Result<(Summary, Option<WorstScore>), RestoreError> {
    let histogram = row.histogram.map(|histogram| {
        Histogram::from_parts(
            histogram.scale,
            histogram.zero_count,
            Buckets::new(histogram.positive_offset, histogram.positive),
            Buckets::new(histogram.negative_offset, histogram.negative),
        )
    });
    let histogram = histogram.transpose().map_err(|error| malformed(&error.to_string()))?;
    let summary = Summary {
        count: row.count,
        sum: row.sum,
        min: row.min,
        max: row.max,
        histogram,
    };
    let score = row.score.map(|score| WorstScore {
        score: Score {
            state: match score.state {
                2 => ScoreState::Ok,
                3 => ScoreState::Stale,
                _ => ScoreState::Warming,
            },
            alarm: score.alarm,
            log10_p: score.log10_p,
            effect: score.effect,
            missing: 0,
        },
        missing: score.missing,
        windows: score.windows,
        level: score.level,
    });
    Ok((summary, score))
}

pub(super) fn alarm_proto(series: u32, alarm: &Alarm) -> AlarmProto {
    AlarmProto {
        series,
        habituation: alarm.habituation,
        hot: u32::from(alarm.hot),
        cool: u32::from(alarm.cool),
        hot_from_ms: alarm.hot_from_ms,
        open: alarm.open.map(|open| OpenProto {
            revision: open.revision,
            start_ms: open.start_ms,
            last_ms: open.last_ms,
            told: open.told,
            peak_ms: open.peak.start_ms,
            window_ms: open.peak.window_ms,
            severity: open.peak.severity,
            p: open.peak.p,
            effect: open.peak.effect,
            expected: open.peak.expected,
            actual: open.peak.actual,
        }),
    }
}

pub(super) fn alarm_from(alarm: AlarmProto) -> (u32, Alarm) {
    let small = |number: u32| u8::try_from(number).unwrap_or(u8::MAX);
    let open = alarm.open.map(|open| OpenFinding {
        revision: open.revision,
        start_ms: open.start_ms,
        last_ms: open.last_ms,
        told: open.told,
        peak: Evidence {
            start_ms: open.peak_ms,
            window_ms: open.window_ms,
            severity: open.severity,
            p: open.p,
            effect: open.effect,
            expected: open.expected,
            actual: open.actual,
        },
    });
    let AlarmProto {
        series,
        habituation,
        hot,
        cool,
        hot_from_ms,
        ..
    } = alarm;
    (
        series,
        Alarm {
            habituation,
            hot: small(hot),
            cool: small(cool),
            hot_from_ms,
            open,
            news: None,
        },
    )
}
