//! The parsers of the shipped plugins as doors: whole collectors over whatever stands in a log, a file or an answer.
//!
//! Each is one plain function. What it looks at: nothing panics, what comes out is bounded by what went in, and where a
//! store cuts a log between two reads changes nothing.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use tillwatch_sdk::testing::{FileHost, collect_all};
use tillwatch_sdk::{Batch, Collector, Descriptor, Error, HttpResponse, Kind, TcpResponse, Values};

use crate::doors::Door;

const NOW_MS: u64 = 1_772_451_000_000;
/// What a call may say of itself whatever it read: errors, ages, whether its source is up.
const SAMPLES_OF_ITSELF: usize = 256;
const SERIES_MAX: usize = 1_000;
const LABEL_BYTES_MAX: usize = 64;
/// Questions of one call to a peer that pages its answer.
const ANSWERS: usize = 20;
const ABOUT_SOURCES: &str = "source.";

/// All parsers by name, each with its corpus in `fuzz/corpus`.
pub const PARSERS: [(&str, Door); 19] = [
    ("poslog", poslog),
    ("poslog_phases", poslog_phases),
    ("sales_files", sales_files),
    ("sales_json", sales_json),
    ("sales_csv", sales_csv),
    ("sales_odoo", sales_odoo),
    ("log_combined", log_combined),
    ("log_nginx", log_nginx),
    ("log_apache", log_apache),
    ("log_iis", log_iis),
    ("log_json", log_json),
    ("queue_events", queue_events),
    ("rabbitmq", rabbitmq),
    ("activemq", activemq),
    ("ibmmq", ibmmq),
    ("redis", redis),
    ("nats", nats),
    ("prometheus", prometheus),
    ("queue_json", queue_json),
];

/// Transactions of a POSLog document; what stands before a cut counts as it does in the whole.
///
/// # Panics
/// When a bound is passed, or a cut adds something.
pub fn poslog(bytes: &[u8]) -> bool {
    cut_document::<sales::Sales>(&sales::descriptor(), r#"{"currency":"USD"}"#, bytes)
}

/// Their durations.
///
/// # Panics
/// When a bound is passed, or a cut adds something.
pub fn poslog_phases(bytes: &[u8]) -> bool {
    cut_document::<pos_latency::PosLatency>(&pos_latency::descriptor(), "{}", bytes)
}

/// CSV, JSON and the files of a DSFinV-K as documents.
///
/// # Panics
/// When a bound is passed.
pub fn sales_files(bytes: &[u8]) -> bool {
    let read = document::<sales::Sales>(r#"{"field_tender":""}"#, bytes);
    check(&sales::descriptor(), &read, bytes.len()).has_values
}

/// # Panics
/// When a bound is passed, or a cut changes something.
pub fn sales_json(bytes: &[u8]) -> bool {
    let settings = r#"{"time_zone":"+01:00","amount_unit":"minor","field_total":"amount.gross",
        "field_currency":"amount.currency","field_type":"kind","field_transaction":"number","field_lane":"lane"}"#;
    log::<sales::Sales>(&sales::descriptor(), settings, "lines", bytes)
}

/// # Panics
/// When a bound is passed, or a cut changes something.
pub fn sales_csv(bytes: &[u8]) -> bool {
    let settings = r#"{"field_items":"","field_lane":"till"}"#;
    log::<sales::Sales>(&sales::descriptor(), settings, "lines", bytes)
}

/// Orders, then payments: one answer a line.
///
/// # Panics
/// When a bound is passed.
pub fn sales_odoo(bytes: &[u8]) -> bool {
    let settings = r#"{"currency":"USD"}"#;
    let read = run::<sales::Sales>(settings, |collector, host| {
        bytes
            .split(|byte| *byte == b'\n')
            .for_each(|said| answer(host, "odoo", said));
        collect_all(collector, host)
    });
    check(&sales::descriptor(), &read, bytes.len()).has_values
}

/// # Panics
/// When a bound is passed, or a cut changes something.
pub fn log_combined(bytes: &[u8]) -> bool {
    access_log(r#"{"format":"combined"}"#, bytes)
}

/// # Panics
/// When a bound is passed, or a cut changes something.
pub fn log_nginx(bytes: &[u8]) -> bool {
    let settings = r#"{"format":"nginx","log_format":"$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \"$http_referer\" \"$http_user_agent\" \"$http_x_forwarded_for\" rt=$request_time urt=\"$upstream_response_time\" $upstream_addr"}"#;
    access_log(settings, bytes)
}

/// # Panics
/// When a bound is passed, or a cut changes something.
pub fn log_apache(bytes: &[u8]) -> bool {
    let settings = r#"{"format":"apache","log_format":"%v:%p %h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\" %D %X"}"#;
    access_log(settings, bytes)
}

/// # Panics
/// When a bound is passed, or a cut changes something.
pub fn log_iis(bytes: &[u8]) -> bool {
    access_log(r#"{"format":"iis"}"#, bytes)
}

/// # Panics
/// When a bound is passed, or a cut changes something.
pub fn log_json(bytes: &[u8]) -> bool {
    let settings = r#"{"format":"json","field_time":"ts","field_route":"uri","field_status":"status","field_latency":"request_time"}"#;
    access_log(settings, bytes)
}

/// # Panics
/// When a bound is passed, or a cut changes something.
pub fn queue_events(bytes: &[u8]) -> bool {
    let settings = r#"{"queues":["mainframe","loyalty"],"field_oldest_age":"oldest"}"#;
    log::<queue_depth::QueueDepth>(&queue_depth::descriptor(), settings, "events", bytes)
}

/// # Panics
/// When a bound is passed.
pub fn rabbitmq(bytes: &[u8]) -> bool {
    broker(
        r#"{"system":"rabbitmq","queues":["mainframe.outbound","pos.*"]}"#,
        bytes,
    )
}

/// # Panics
/// When a bound is passed.
pub fn activemq(bytes: &[u8]) -> bool {
    broker(r#"{"system":"activemq","queues":["MAINFRAME.*","LOYALTY"]}"#, bytes)
}

/// # Panics
/// When a bound is passed.
pub fn ibmmq(bytes: &[u8]) -> bool {
    broker(r#"{"system":"ibmmq","queues":["MAINFRAME.*"]}"#, bytes)
}

/// Its exchanges, apart by a zero.
///
/// # Panics
/// When a bound is passed.
pub fn redis(bytes: &[u8]) -> bool {
    let settings = r#"{"system":"redis","queues":["mainframe=spool:mainframe","tlog","none"]}"#;
    let read = run::<queue_depth::QueueDepth>(settings, |collector, host| {
        for said in bytes.split(|byte| *byte == 0) {
            let response = TcpResponse {
                bytes: said.to_vec(),
                connect_us: 1,
                elapsed_us: 1,
            };
            host.answer_tcp("redis", Ok(response));
        }
        collect_all(collector, host)
    });
    check(&queue_depth::descriptor(), &read, bytes.len()).has_values
}

/// # Panics
/// When a bound is passed.
pub fn nats(bytes: &[u8]) -> bool {
    broker(r#"{"system":"nats","queues":["WORK","NEW","DONE"]}"#, bytes)
}

/// # Panics
/// When a bound is passed.
pub fn prometheus(bytes: &[u8]) -> bool {
    let settings = r#"{"system":"prometheus","queues":["mainframe","labels"],"field_depth":"pos_spool_waiting","field_oldest_age":"pos_spool_oldest_seconds","field_in":"pos_spool_total"}"#;
    broker(settings, bytes)
}

/// # Panics
/// When a bound is passed.
pub fn queue_json(bytes: &[u8]) -> bool {
    let settings = r#"{"system":"json","items":"/data/queues","queues":["mainframe","labels"],"field_queue":"/id/name","field_depth":"/stats/0/waiting","field_oldest_age":"/oldest_ms","age_unit":"ms","field_consumers":"workers"}"#;
    broker(settings, bytes)
}

fn access_log(settings: &str, bytes: &[u8]) -> bool {
    log::<pos_latency::PosLatency>(&pos_latency::descriptor(), settings, "access_log", bytes)
}

/// Each question gets the same answer.
fn broker(settings: &str, bytes: &[u8]) -> bool {
    let read = run::<queue_depth::QueueDepth>(settings, |collector, host| {
        (0..ANSWERS).for_each(|_question| answer(host, "broker", bytes));
        collect_all(collector, host)
    });
    check(&queue_depth::descriptor(), &read, bytes.len()).has_values
}

/// Read whole, and as a store that was asked while it wrote.
fn log<C: Collector<Settings: DeserializeOwned>>(
    descriptor: &Descriptor,
    settings: &str,
    source: &str,
    bytes: &[u8],
) -> bool {
    let read = |parts: [&[u8]; 2]| {
        run::<C>(settings, |collector, host| {
            let mut batches = Vec::new();
            for part in parts {
                host.append_lines(source, part);
                batches.extend(collect_all(collector, host)?);
            }
            Ok(batches)
        })
    };
    let (begin, end) = bytes.split_at(cut_of(bytes));
    let (whole, cut) = (
        check(descriptor, &read([bytes, b""]), bytes.len()),
        check(descriptor, &read([begin, end]), bytes.len()),
    );
    assert_eq!(whole.sums, cut.sums, "cut at {} of {}", begin.len(), bytes.len());
    whole.has_values
}

/// A document, and what is left of it when it is cut.
fn cut_document<C: Collector<Settings: DeserializeOwned>>(
    descriptor: &Descriptor,
    settings: &str,
    bytes: &[u8],
) -> bool {
    let whole = check(descriptor, &document::<C>(settings, bytes), bytes.len());
    let (begin, _end) = bytes.split_at(cut_of(bytes));
    let cut = check(descriptor, &document::<C>(settings, begin), begin.len());
    for (key, (count, _sum)) in &cut.sums {
        let of_whole = whole.sums.get(key).map_or(0, |(count, _sum)| *count);
        let is_of_itself = descriptor.metrics[key.0].name.starts_with(ABOUT_SOURCES);
        assert!(
            is_of_itself || *count <= of_whole,
            "{key:?}: a cut at {} adds to it",
            begin.len()
        );
    }
    whole.has_values
}

fn document<C: Collector<Settings: DeserializeOwned>>(settings: &str, bytes: &[u8]) -> Vec<Batch> {
    run::<C>(settings, |collector, host| {
        host.add_file("transactions", "1", 0, bytes);
        collect_all(collector, host)
    })
}

/// An endpoint's next answer.
fn answer(host: &mut FileHost, name: &str, answer: &[u8]) {
    let response = HttpResponse {
        status: 200,
        headers: Vec::new(),
        body: answer.to_vec(),
        elapsed_us: 1,
    };
    host.answer_http(name, Ok(response));
}

/// An error of its own ends it with nothing.
fn run<C: Collector<Settings: DeserializeOwned>>(
    settings: &str,
    read: impl FnOnce(&mut C, &mut FileHost) -> Result<Vec<Batch>, Error>,
) -> Vec<Batch> {
    let mut host = FileHost::new(NOW_MS);
    let settings = serde_json::from_str(settings).expect("settings that stand here");
    let mut collector = C::new(settings, &mut host).expect("settings that it takes");
    read(&mut collector, &mut host).unwrap_or_default()
}

struct Read {
    has_values: bool,
    /// Count and sum by metric, labels and time; none of levels, which each call reports anew.
    sums: BTreeMap<(usize, Vec<String>, u64), (usize, i128)>,
}

fn check(descriptor: &Descriptor, batches: &[Batch], bytes: usize) -> Read {
    let mut read = Read {
        has_values: false,
        sums: BTreeMap::new(),
    };
    let samples: usize = batches.iter().map(Batch::samples).sum();
    assert!(
        samples <= bytes + SAMPLES_OF_ITSELF * batches.len(),
        "{samples} samples of {bytes} bytes"
    );
    for series in batches.iter().flat_map(Batch::series) {
        let metric = usize::from(series.metric.index());
        let declared = &descriptor.metrics[metric];
        assert_eq!(series.labels.len(), declared.label_keys.len(), "{}", declared.name);
        assert!(
            series.labels.iter().all(|label| label.len() <= LABEL_BYTES_MAX),
            "{:?}",
            series.labels
        );
        read.has_values |= !declared.name.starts_with(ABOUT_SOURCES);
        if declared.kind == Kind::Gauge {
            continue;
        }
        // Of each call, when it was.
        let is_of_itself = declared.name.starts_with(ABOUT_SOURCES);
        for (index, time_ms) in series.times_ms.iter().enumerate() {
            let key = (metric, series.labels.clone(), *time_ms);
            let (count, sum) = read.sums.entry(key).or_default();
            *count += usize::from(!is_of_itself);
            *sum += match &series.values {
                Values::Integers(values) => i128::from(values[index]),
                Values::Reals(values) => {
                    assert!(values[index].is_finite(), "{}", declared.name);
                    i128::from(values[index].to_bits())
                }
            };
        }
    }
    let series: usize = batches
        .iter()
        .map(|batch| batch.series().len())
        .max()
        .unwrap_or_default();
    assert!(series <= SERIES_MAX, "{series} series");
    read
}

/// Anywhere, and for the same bytes always there.
fn cut_of(bytes: &[u8]) -> usize {
    let mixed = bytes.iter().fold(bytes.len(), |mixed, byte| {
        mixed.wrapping_mul(31).wrapping_add(usize::from(*byte))
    });
    mixed % (bytes.len() + 1)
}
