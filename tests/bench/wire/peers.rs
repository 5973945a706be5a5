//! The same minutes in other formats: JSON, OpenTelemetry's protobuf, Sparkplug B.
//!
//! In: blocks of one or more intervals and their birth. Out: the bytes of one message, not compressed yet.
//! Fair to them: JSON says all that ours says, with short keys; the other two have no place for scores and leave them out.
//! OpenTelemetry sends names and labels in each request, as its protocol demands; Sparkplug has aliases for them, which
//! its birth explains, as ours does.
//! Sources: opentelemetry-proto 1.x, `metrics.proto`; Eclipse Sparkplug 3.0, `sparkplug_b.proto`. Only the fields in use.

use prost::Message as _;
use serde_json::{Value, json};
use tillwatch_feed::histogram::{Buckets, Histogram};
use tillwatch_feed::message::{Birth, Block, Interval, Kind, Metric, Row, Series};
use tillwatch_feed::score::Score;

/// One message of one block.
pub(super) fn json(block: &Block, _birth: &Birth) -> Vec<u8> {
    let interval = |interval: &Interval| {
        let rows: Vec<Value> = interval.rows.iter().map(json_row).collect();
        json!({"t": interval.start_ms, "len": interval.length_ms, "rows": rows})
    };
    let intervals: Vec<Value> = block.intervals.iter().map(interval).collect();
    json!({"schema": block.schema, "intervals": intervals})
        .to_string()
        .into_bytes()
}

fn json_row(row: &Row) -> Value {
    let summary = &row.summary;
    let mut said = json!({"id": row.series, "n": summary.count});
    if summary.count > 0 {
        said["sum"] = summary.sum.into();
        said["min"] = summary.min.into();
        said["max"] = summary.max.into();
    }
    if let Some(histogram) = summary.histogram.as_ref().filter(|histogram| !histogram.is_empty()) {
        let positive = histogram.positive();
        said["at"] = positive.offset().into();
        said["h"] = positive.counts().into();
    }
    if let Some(score) = row.score {
        said["score"] = json_score(score);
    }
    said
}

/// State, tenths of p and effect, what is missing, the alarm.
fn json_score(score: Score) -> Value {
    let tenths = |real: f32| (f64::from(real) * 10.0).round();
    json!([
        score.state as u8,
        tenths(score.log10_p),
        tenths(score.effect),
        score.missing,
        u8::from(score.alarm)
    ])
}

/// An `ExportMetricsServiceRequest`.
pub(super) fn otlp(block: &Block, birth: &Birth) -> Vec<u8> {
    let metrics = birth.metrics.iter().enumerate().map(|(at, metric)| {
        let rows = rows_of(block, birth, at);
        otlp::metric(metric, rows)
    });
    otlp::Request::of(metrics.flatten().collect()).encode_to_vec()
}

/// The rows of a metric, with their series.
fn rows_of<'a>(block: &'a Block, birth: &'a Birth, metric: usize) -> Vec<(&'a Interval, &'a Row, &'a Series)> {
    let series_of = |row: &Row| {
        let series = birth.series.iter().find(|series| series.id == row.series);
        series.filter(|series| usize::try_from(series.metric) == Ok(metric))
    };
    let intervals = block.intervals.iter();
    intervals
        .flat_map(|interval| interval.rows.iter().map(move |row| (interval, row)))
        .filter(|(_, row)| row.summary.count > 0)
        .filter_map(|(interval, row)| series_of(row).map(|series| (interval, row, series)))
        .collect()
}

/// An NDATA payload; its aliases are the series' ids with the kind of figure behind them.
pub(super) fn sparkplug(block: &Block, _birth: &Birth) -> Vec<u8> {
    let interval_metrics = |interval: &Interval| {
        let rows = interval.rows.iter().filter(|row| row.summary.count > 0);
        rows.flat_map(|row| sparkplug::metrics(interval.start_ms, row))
            .collect::<Vec<_>>()
    };
    let metrics: Vec<sparkplug::Metric> = block.intervals.iter().flat_map(interval_metrics).collect();
    let last = block.intervals.last();
    sparkplug::Payload {
        timestamp: last.map_or(0, |interval| interval.start_ms + u64::from(interval.length_ms)),
        metrics,
        seq: 1,
    }
    .encode_to_vec()
}

#[expect(clippy::cast_precision_loss, reason = "a measure")]
fn real(whole: i64, metric: &Metric) -> f64 {
    whole as f64 / 10_f64.powi(i32::from(metric.decimals))
}

mod otlp {
    use super::*;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Request {
        #[prost(message, repeated, tag = "1")]
        resource_metrics: Vec<ResourceMetrics>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct ResourceMetrics {
        #[prost(message, optional, tag = "1")]
        resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        scope_metrics: Vec<ScopeMetrics>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Resource {
        #[prost(message, repeated, tag = "1")]
        attributes: Vec<KeyValue>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct ScopeMetrics {
        #[prost(message, repeated, tag = "2")]
        metrics: Vec<OtlpMetric>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct OtlpMetric {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "3")]
        unit: String,
        #[prost(message, optional, tag = "9")]
        histogram: Option<PlainHistogram>,
        #[prost(message, optional, tag = "10")]
        exponential_histogram: Option<ExponentialHistogram>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct PlainHistogram {
        #[prost(message, repeated, tag = "1")]
        data_points: Vec<PlainPoint>,
        #[prost(int32, tag = "2")]
        aggregation_temporality: i32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct PlainPoint {
        #[prost(message, repeated, tag = "9")]
        attributes: Vec<KeyValue>,
        #[prost(fixed64, tag = "2")]
        start_time_unix_nano: u64,
        #[prost(fixed64, tag = "3")]
        time_unix_nano: u64,
        #[prost(fixed64, tag = "4")]
        count: u64,
        #[prost(double, optional, tag = "5")]
        sum: Option<f64>,
        #[prost(double, optional, tag = "11")]
        min: Option<f64>,
        #[prost(double, optional, tag = "12")]
        max: Option<f64>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct ExponentialHistogram {
        #[prost(message, repeated, tag = "1")]
        data_points: Vec<ExponentialPoint>,
        #[prost(int32, tag = "2")]
        aggregation_temporality: i32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct ExponentialPoint {
        #[prost(message, repeated, tag = "1")]
        attributes: Vec<KeyValue>,
        #[prost(fixed64, tag = "2")]
        start_time_unix_nano: u64,
        #[prost(fixed64, tag = "3")]
        time_unix_nano: u64,
        #[prost(fixed64, tag = "4")]
        count: u64,
        #[prost(double, optional, tag = "5")]
        sum: Option<f64>,
        #[prost(sint32, tag = "6")]
        scale: i32,
        #[prost(fixed64, tag = "7")]
        zero_count: u64,
        #[prost(message, optional, tag = "8")]
        positive: Option<OtlpBuckets>,
        #[prost(message, optional, tag = "9")]
        negative: Option<OtlpBuckets>,
        #[prost(double, optional, tag = "12")]
        min: Option<f64>,
        #[prost(double, optional, tag = "13")]
        max: Option<f64>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct OtlpBuckets {
        #[prost(sint32, tag = "1")]
        offset: i32,
        #[prost(uint64, repeated, tag = "2")]
        bucket_counts: Vec<u64>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct KeyValue {
        #[prost(string, tag = "1")]
        key: String,
        #[prost(message, optional, tag = "2")]
        value: Option<AnyValue>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct AnyValue {
        #[prost(string, tag = "1")]
        string_value: String,
    }

    const DELTA: i32 = 1;

    impl Request {
        pub(super) fn of(metrics: Vec<OtlpMetric>) -> Self {
            let site = key_value("service.instance.id", "store-0412");
            Self {
                resource_metrics: vec![ResourceMetrics {
                    resource: Some(Resource { attributes: vec![site] }),
                    scope_metrics: vec![ScopeMetrics { metrics }],
                }],
            }
        }
    }

    /// Nothing when no row has a value.
    pub(super) fn metric(metric: &Metric, rows: Vec<(&Interval, &Row, &Series)>) -> Option<OtlpMetric> {
        if rows.is_empty() {
            return None;
        }
        let is_distribution = metric.kind == Kind::Distribution;
        let (exponential, plain): (Vec<_>, Vec<_>) = rows.into_iter().partition(|_| is_distribution);
        Some(OtlpMetric {
            name: metric.name.clone(),
            unit: metric.unit.clone(),
            histogram: (!is_distribution).then(|| PlainHistogram {
                data_points: plain.into_iter().map(|row| plain_point(metric, row)).collect(),
                aggregation_temporality: DELTA,
            }),
            exponential_histogram: is_distribution.then(|| ExponentialHistogram {
                data_points: exponential
                    .into_iter()
                    .map(|row| exponential_point(metric, row))
                    .collect(),
                aggregation_temporality: DELTA,
            }),
        })
    }

    fn plain_point(metric: &Metric, (interval, row, series): (&Interval, &Row, &Series)) -> PlainPoint {
        let (start, end) = times(interval);
        PlainPoint {
            attributes: attributes(metric, series),
            start_time_unix_nano: start,
            time_unix_nano: end,
            count: row.summary.count,
            sum: Some(real(row.summary.sum, metric)),
            min: Some(real(row.summary.min, metric)),
            max: Some(real(row.summary.max, metric)),
        }
    }

    fn exponential_point(metric: &Metric, (interval, row, series): (&Interval, &Row, &Series)) -> ExponentialPoint {
        let (start, end) = times(interval);
        let histogram = row.summary.histogram.clone().unwrap_or_else(Histogram::new);
        ExponentialPoint {
            attributes: attributes(metric, series),
            start_time_unix_nano: start,
            time_unix_nano: end,
            count: row.summary.count,
            sum: Some(real(row.summary.sum, metric)),
            scale: histogram.scale(),
            zero_count: histogram.zero_count(),
            positive: buckets(histogram.positive()),
            negative: buckets(histogram.negative()),
            min: Some(real(row.summary.min, metric)),
            max: Some(real(row.summary.max, metric)),
        }
    }

    fn buckets(buckets: &Buckets) -> Option<OtlpBuckets> {
        (!buckets.counts().is_empty()).then(|| OtlpBuckets {
            offset: buckets.offset(),
            bucket_counts: buckets.counts().to_vec(),
        })
    }

    fn times(interval: &Interval) -> (u64, u64) {
        let end_ms = interval.start_ms + u64::from(interval.length_ms);
        (interval.start_ms * 1_000_000, end_ms * 1_000_000)
    }

    fn attributes(metric: &Metric, series: &Series) -> Vec<KeyValue> {
        let labels = metric.label_keys.iter().zip(&series.label_values);
        labels.map(|(key, value)| key_value(key, value)).collect()
    }

    fn key_value(key: &str, value: &str) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue {
                string_value: value.to_owned(),
            }),
        }
    }
}

mod sparkplug {
    use super::*;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Payload {
        #[prost(uint64, tag = "1")]
        pub(super) timestamp: u64,
        #[prost(message, repeated, tag = "2")]
        pub(super) metrics: Vec<Metric>,
        #[prost(uint64, tag = "3")]
        pub(super) seq: u64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Metric {
        #[prost(uint64, tag = "2")]
        alias: u64,
        #[prost(uint64, tag = "3")]
        timestamp: u64,
        #[prost(uint32, tag = "4")]
        datatype: u32,
        #[prost(uint64, optional, tag = "11")]
        long_value: Option<u64>,
        #[prost(bytes = "vec", optional, tag = "16")]
        bytes_value: Option<Vec<u8>>,
    }

    const INT64: u32 = 4;
    const BYTES: u32 = 17;

    /// Count, sum, minimum, maximum, and the buckets as varints.
    pub(super) fn metrics(timestamp: u64, row: &Row) -> Vec<Metric> {
        let alias = |figure: u64| u64::from(row.series) * 8 + figure;
        let summary = &row.summary;
        let whole = |figure, value: i64| Metric {
            alias: alias(figure),
            timestamp,
            datatype: INT64,
            long_value: Some(value.cast_unsigned()),
            bytes_value: None,
        };
        let mut metrics = vec![
            whole(0, summary.count.cast_signed()),
            whole(1, summary.sum),
            whole(2, summary.min),
            whole(3, summary.max),
        ];
        if let Some(histogram) = &summary.histogram {
            metrics.push(Metric {
                alias: alias(4),
                timestamp,
                datatype: BYTES,
                long_value: None,
                bytes_value: Some(buckets(histogram)),
            });
        }
        metrics
    }

    fn buckets(histogram: &Histogram) -> Vec<u8> {
        let mut bytes = Vec::new();
        let positive = histogram.positive();
        prost::encoding::encode_varint(zigzag(positive.offset()), &mut bytes);
        for count in positive.counts() {
            prost::encoding::encode_varint(*count, &mut bytes);
        }
        bytes
    }

    fn zigzag(value: i32) -> u64 {
        u64::from(((value << 1) ^ (value >> 31)).cast_unsigned())
    }
}
