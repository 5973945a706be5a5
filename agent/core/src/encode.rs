//! From the core's own state to the feed's messages: births, blocks, findings. The only place here that knows both.

use tillwatch_feed::codec::encode_body;
use tillwatch_feed::message::{Birth, Block, Body, Finding, Interval, Kind, Metric, Plugin, RecordId, Series};

use crate::detect::alarm::OpenFinding;
use crate::record::{NewRecord, RecordKind};
use crate::registry::Registry;
use crate::sample;
use crate::value::to_whole;
use crate::window::buckets_of;

/// Intervals in one record at most; more come only after a long silence.
pub(crate) const RECORD_INTERVALS_MAX: usize = 60;

/// Rows in one record at most.
pub(crate) const RECORD_ROWS_MAX: usize = 2_000;

/// Histogram buckets in one record at most; with the rows this stays far below what a payload may hold.
pub(crate) const RECORD_BUCKETS_MAX: usize = 50_000;

/// The dictionary as it is now.
pub(crate) fn birth(registry: &Registry, agent_version: &str, window_ms: u32, previous: Option<RecordId>) -> Birth {
    let plugins: Vec<Plugin> = registry
        .sources
        .iter()
        .map(|source| Plugin {
            name: source.name.clone(),
            version: source.version.clone(),
        })
        .collect();
    let ids: Vec<u32> = registry.metrics.keys().copied().collect();
    let metrics: Vec<Metric> = registry
        .metrics
        .values()
        .map(|entry| metric(&entry.metric, entry.source))
        .collect();
    let index_of = |metric: u32| ids.binary_search(&metric).ok().and_then(|at| u32::try_from(at).ok());
    let series: Vec<Series> = registry
        .series
        .iter()
        .filter_map(|(id, entry)| {
            let metric = index_of(entry.metric)?;
            Some(Series {
                id: *id,
                metric,
                label_values: entry.labels.clone(),
            })
        })
        .collect();
    let schema = Birth::schema_hash(window_ms, &plugins, &metrics, &series);
    Birth {
        schema,
        agent_version: agent_version.to_owned(),
        previous,
        metrics,
        series,
        plugins,
        window_ms,
    }
}

fn metric(metric: &sample::Metric, plugin: u32) -> Metric {
    Metric {
        name: metric.name.clone(),
        unit: metric.unit.clone(),
        kind: kind(metric.kind),
        role: metric.role.clone(),
        decimals: metric.decimals,
        currency: metric.currency.clone(),
        plugin,
        label_keys: metric.label_keys.clone(),
    }
}

fn kind(kind: sample::Kind) -> Kind {
    match kind {
        sample::Kind::Gauge => Kind::Gauge,
        sample::Kind::Counter => Kind::Counter,
        sample::Kind::Sum => Kind::Sum,
        sample::Kind::Distribution => Kind::Distribution,
    }
}

pub(crate) fn birth_record(birth: Birth) -> NewRecord {
    NewRecord {
        kind: RecordKind::Birth,
        schema: birth.schema,
        payload: encode_body(&Body::Birth(birth)),
    }
}

/// The intervals as records within the bounds; rows that do not fit go on in another interval of the same start.
pub(crate) fn block_records(schema: u64, intervals: Vec<Interval>) -> Vec<NewRecord> {
    let mut records = Vec::new();
    let mut block: Vec<Interval> = Vec::new();
    let (mut rows, mut buckets) = (0, 0);
    for interval in intervals {
        let (start_ms, length_ms) = (interval.start_ms, interval.length_ms);
        for row in interval.rows {
            let more = buckets_of(&row.summary);
            let new = block
                .last()
                .is_none_or(|last| last.start_ms != start_ms || last.length_ms != length_ms);
            let full = rows >= RECORD_ROWS_MAX || (rows > 0 && buckets + more > RECORD_BUCKETS_MAX);
            if full || (new && block.len() >= RECORD_INTERVALS_MAX) {
                records.push(block_record(schema, std::mem::take(&mut block)));
                (rows, buckets) = (0, 0);
            }
            match block.last_mut() {
                Some(last) if last.start_ms == start_ms && last.length_ms == length_ms => last.rows.push(row),
                _ => block.push(Interval {
                    start_ms,
                    length_ms,
                    rows: vec![row],
                }),
            }
            rows += 1;
            buckets += more;
        }
    }
    if !block.is_empty() {
        records.push(block_record(schema, block));
    }
    records
}

fn block_record(schema: u64, intervals: Vec<Interval>) -> NewRecord {
    let records = vec![u32::try_from(intervals.len()).unwrap_or(u32::MAX)];
    let payload = encode_body(&Body::Block(Block {
        schema,
        records,
        intervals,
    }));
    NewRecord {
        kind: RecordKind::Block,
        schema,
        payload,
    }
}

/// A finding of a series, complete in itself; `None` when the series is gone.
pub(crate) fn finding_record(
    registry: &Registry,
    series: u32,
    finding: &OpenFinding,
    closed: bool,
) -> Option<NewRecord> {
    let declared = registry.metric_of(series)?;
    let metric = &declared.metric;
    let plugin = registry
        .sources
        .get(usize::try_from(declared.source).ok()?)?
        .name
        .clone();
    let labels = labels(registry, series);
    let end_ms = closed.then(|| finding.last_ms + u64::from(finding.peak.window_ms));
    let finding = Finding {
        id: finding_id(&metric.name, &labels, finding.start_ms),
        revision: finding.revision,
        metric: metric.name.clone(),
        unit: metric.unit.clone(),
        role: metric.role.clone(),
        decimals: metric.decimals,
        currency: metric.currency.clone(),
        plugin,
        labels,
        start_ms: finding.start_ms,
        peak_ms: finding.peak.start_ms,
        end_ms,
        window_ms: finding.peak.window_ms,
        log10_p: crate::detect::single(libm::log10(f64::from(finding.peak.p))),
        effect: finding.peak.effect,
        expected: to_whole(finding.peak.expected.round()).unwrap_or(0),
        actual: to_whole(finding.peak.actual.round()).unwrap_or(0),
    };
    Some(NewRecord {
        kind: RecordKind::Finding,
        schema: 0,
        payload: encode_body(&Body::Finding(finding)),
    })
}

/// Keys with their values; none when the series is gone.
pub(crate) fn labels(registry: &Registry, series: u32) -> Vec<(String, String)> {
    let (Some(entry), Some(declared)) = (registry.series.get(&series), registry.metric_of(series)) else {
        return Vec::new();
    };
    let keys = declared.metric.label_keys.iter().cloned();
    keys.zip(entry.labels.iter().cloned()).collect()
}

/// The same for the same series and start, on any machine. Source: FNV-1a, 64 bits.
fn finding_id(metric: &str, labels: &[(String, String)], start_ms: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let texts = labels.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]);
    for text in [metric].into_iter().chain(texts) {
        for byte in text.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    for byte in start_ms.to_le_bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillwatch_feed::codec::decode_body;
    use tillwatch_feed::message::Row;
    use tillwatch_feed::summary::Summary;

    fn interval(start_ms: u64, rows: u32) -> Interval {
        let row = |series| Row {
            series,
            summary: Summary {
                count: 1,
                sum: 5,
                min: 5,
                max: 5,
                histogram: None,
            },
            score: None,
        };
        Interval {
            start_ms,
            length_ms: 60_000,
            rows: (1..=rows).map(row).collect(),
        }
    }

    fn blocks(intervals: Vec<Interval>) -> Vec<Block> {
        let records = block_records(7, intervals).into_iter();
        let decoded = records.map(|record| decode_body(&record.payload).unwrap());
        decoded
            .map(|body| match body {
                Body::Block(block) => block,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn intervals_are_split_into_records_and_no_row_is_lost() {
        let intervals: Vec<Interval> = (0..130).map(|n| interval(n * 60_000, 1)).collect();
        let sizes: Vec<u32> = blocks(intervals).iter().map(|block| block.records[0]).collect();
        assert_eq!(sizes, [60, 60, 10]);
        let large = blocks(vec![interval(0, 4_500), interval(60_000, 10)]);
        let rows: Vec<usize> = large.iter().map(Block::row_count).collect();
        assert_eq!(rows, [2_000, 2_000, 510]);
        assert_eq!(large[2].intervals.len(), 2);
        assert_eq!(block_records(7, Vec::new()), []);
    }

    #[test]
    fn a_finding_has_the_same_id_wherever_it_is_computed() {
        let labels = vec![("route".to_owned(), "/checkout".to_owned())];
        assert_eq!(finding_id("m", &labels, 60_000), finding_id("m", &labels, 60_000));
        assert_ne!(finding_id("m", &labels, 60_000), finding_id("m", &labels, 70_000));
        assert_ne!(finding_id("m", &labels, 60_000), finding_id("m", &[], 60_000));
    }
}
