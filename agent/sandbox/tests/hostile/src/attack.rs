//! What a plugin might do to the host and its neighbors; `tests/bench/hostile` says what becomes of it.

use std::hint::black_box;

use serde::Deserialize;
use tillwatch_sdk::{Batch, Descriptor, Error, Host, HttpRequest, Kind, Level, Metric, MetricId, TcpRequest};

use super::{endless, labeled, memory, metric, panic_now, recursion};

/// One attack; its first word says where it strikes.
#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Attack {
    ConfigureLoop,
    ConfigureMemory,
    ConfigureRecursion,
    ConfigurePanic,
    /// 16 MiB of error text.
    ConfigureText,
    DescribeLoop,
    DescribeMemory,
    DescribeRecursion,
    DescribePanic,
    DescribeManyMetrics,
    DescribeManyLabels,
    DescribeManyAttrs,
    DescribeLongText,
    /// 16 MiB of help.
    DescribeHuge,
    DescribeOtherPlugin,
    DescribeOtherName,
    DescribeOtherUnit,
    DescribeOtherKind,
    DescribeOtherRole,
    DescribeMoreMetrics,
    DescribeFewerMetrics,
    /// 1 GiB at once.
    CollectMemoryAtOnce,
    /// As much as it may have, and no more.
    CollectMemoryToTheBrim,
    /// A loop that asks the host something at each turn.
    CollectLoopOfCalls,
    CollectUnreachable,
    CollectOutOfBounds,
    /// A panic with 4 MiB of text.
    CollectLongPanic,
    CollectHugeError,
    CollectLongError,
    CollectManySamples,
    CollectManyLabels,
    CollectLongLabel,
    /// A metric that no plugin.toml declares.
    CollectForgedMetric,
    CollectCardLabel,
    CollectCardNumber,
    CollectControlLabel,
    CollectNotANumber,
    CollectInfinity,
    CollectLargestNumbers,
    CollectFuture,
    CollectPast,
    /// New labels at each call.
    CollectChurn,
    /// Three hours of many series, each value as far from the next as can be: rows that fill all their buckets.
    CollectLongHistory,
    /// Each good call makes up for the one that never ends.
    LoopEverySecondCall,
    /// Always says that there is more.
    CollectMore,
    CollectLogFlood,
    CollectLogHuge,
    CollectStateFlood,
    CollectStateJustTooLarge,
    CollectClockFlood,
    CollectListFlood,
    CollectDocumentFlood,
    SourceUnknown,
    SourceEmpty,
    SourceAbsolute,
    SourceParent,
    SourceBehindName,
    SourceNul,
    SourceUrl,
    SourceProc,
    SourceHuge,
    /// The same with the names of peers, by the three ways to ask one.
    PeerHugeHttp,
    PeerHugeTcp,
    PeerHugeSql,
    /// Asks one peer again and again.
    PeerFlood,
    SourceWrongKind,
    /// Reads documents and lists the folder.
    Steal,
}

/// What each test hides where no plugin may read.
const SECRET: &str = "the secret of the host";
const FLOOD: u32 = 200_000;

impl Attack {
    pub(super) fn configure(self) -> Result<(), Error> {
        match self {
            Self::ConfigureLoop => endless(),
            Self::ConfigureMemory => memory(),
            Self::ConfigureRecursion => Err(Error::config(recursion(1).to_string())),
            Self::ConfigurePanic => panic_now(),
            Self::ConfigureText => Err(Error::config("x".repeat(16 << 20))),
            _ => Ok(()),
        }
    }

    pub(super) fn describe(self, descriptor: &mut Descriptor) {
        let first = &mut descriptor.metrics[0];
        match self {
            Self::DescribeLoop => endless(),
            Self::DescribeMemory => memory(),
            Self::DescribeRecursion => first.help = recursion(1).to_string(),
            Self::DescribePanic => panic_now(),
            Self::DescribeManyMetrics => descriptor.metrics = (0..300).map(made_up).collect(),
            Self::DescribeManyLabels => first.label_keys = vec!["case".to_owned(); 100],
            Self::DescribeManyAttrs => descriptor.attrs = vec![("a".to_owned(), "b".to_owned()); 10_000],
            Self::DescribeLongText => first.help = "x".repeat(2_000),
            Self::DescribeHuge => first.help = "x".repeat(16 << 20),
            Self::DescribeOtherPlugin => "sales".clone_into(&mut descriptor.name),
            Self::DescribeOtherName => "sales.amount".clone_into(&mut first.name),
            Self::DescribeOtherUnit => "s".clone_into(&mut first.unit),
            Self::DescribeOtherKind => first.kind = Kind::Counter,
            Self::DescribeOtherRole => "sales.amount".clone_into(&mut first.role),
            Self::DescribeMoreMetrics => descriptor.metrics.push(made_up(1)),
            Self::DescribeFewerMetrics => descriptor.metrics.truncate(1),
            _ => {}
        }
    }

    pub(super) fn collect(self, calls: u32, host: &mut dyn Host) -> Result<Batch, Error> {
        match self {
            Self::CollectMemoryAtOnce => Ok(labeled(&black_box(vec![1_u8; 1 << 30]).len().to_string())),
            Self::CollectMemoryToTheBrim => Ok(labeled(&black_box(vec![1_u8; 28 << 20]).len().to_string())),
            Self::CollectLoopOfCalls => loop {
                black_box(host.state());
            },
            Self::CollectUnreachable => unreachable(),
            Self::CollectOutOfBounds => Ok(labeled(&[0_u8; 4][black_box(1 << 30)].to_string())),
            Self::CollectLongPanic => panic_at_length(),
            Self::CollectHugeError => Err(Error::transient("x".repeat(12 << 20))),
            Self::CollectLongError => Err(Error::transient("x".repeat(100_000))),
            Self::CollectMore => Ok(more()),
            Self::CollectChurn => Ok(churn(calls, host.now_ms())),
            Self::CollectLongHistory => Ok(long_history(host.now_ms())),
            // After each loop it begins anew.
            Self::LoopEverySecondCall if calls > 1 => endless(),
            Self::SourceWrongKind => wrong_kind(host),
            Self::PeerHugeHttp | Self::PeerHugeTcp | Self::PeerHugeSql => self.ask(&"x".repeat(8 << 20), host),
            Self::PeerFlood => loop {
                let refused = self.ask("peer", host);
                if refused
                    .as_ref()
                    .is_err_and(|error| error.message.contains("more was asked"))
                {
                    return refused;
                }
            },
            Self::Steal => steal(host),
            _ => match self.source() {
                Some(source) => read(&source, host),
                None => match self.batch(host.now_ms()) {
                    Some(batch) => Ok(batch),
                    None => self.flood(host),
                },
            },
        }
    }

    fn ask(self, peer: &str, host: &mut dyn Host) -> Result<Batch, Error> {
        let connect = TcpRequest {
            bytes: Vec::new(),
            until: None,
            bytes_max: 0,
        };
        match self {
            Self::PeerHugeHttp => host.http(peer, HttpRequest::get()).map(drop)?,
            Self::PeerHugeSql => host.sql(peer, None).map(drop)?,
            _ => host.tcp(peer, connect).map(drop)?,
        }
        Ok(labeled("answered"))
    }

    /// Whose name is not the name of a source.
    fn source(self) -> Option<String> {
        let name = match self {
            Self::SourceUnknown => "other",
            Self::SourceEmpty => "",
            Self::SourceAbsolute => "/etc/passwd",
            Self::SourceParent => "../../../../../../etc/passwd",
            Self::SourceBehindName => "input/../../secret",
            Self::SourceNul => "input\0",
            Self::SourceUrl => "http://169.254.169.254/latest/meta-data",
            Self::SourceProc => "/proc/self/environ",
            Self::SourceHuge => return Some("x".repeat(6 << 20)),
            _ => return None,
        };
        Some(name.to_owned())
    }

    /// What must not count, or not come over the border at all.
    fn batch(self, now_ms: u64) -> Option<Batch> {
        let mut batch = Batch::default();
        match self {
            Self::CollectManySamples => {
                (0..200_000).for_each(|at| batch.push_integer(metric::HOSTILE_VALUE, &["a"], at, now_ms));
            }
            Self::CollectManyLabels => batch.push_integer(metric::HOSTILE_VALUE, &["a"; 17], 1, now_ms),
            Self::CollectLongLabel => batch.push_integer(metric::HOSTILE_VALUE, &[&"x".repeat(300)], 1, now_ms),
            Self::CollectForgedMetric => batch.push_integer(MetricId::new(999), &["a"], 1, now_ms),
            Self::CollectCardLabel => batch.push_integer(metric::HOSTILE_VALUE, &["4111111111111111"], 1, now_ms),
            Self::CollectCardNumber => {
                batch.push_integer(metric::HOSTILE_VALUE, &["a"], 4_111_111_111_111_111, now_ms);
            }
            Self::CollectControlLabel => batch.push_integer(metric::HOSTILE_VALUE, &["a\n\u{1b}[2J<b>"], 1, now_ms),
            Self::CollectNotANumber => batch.push_real(metric::HOSTILE_VALUE, &["a"], f64::NAN, now_ms),
            Self::CollectInfinity => batch.push_real(metric::HOSTILE_VALUE, &["a"], f64::INFINITY, now_ms),
            Self::CollectLargestNumbers => batch.push_real(metric::HOSTILE_VALUE, &["a"], f64::MAX, now_ms),
            Self::CollectFuture => batch.push_integer(metric::HOSTILE_VALUE, &["a"], 1, u64::MAX),
            Self::CollectPast => batch.push_integer(metric::HOSTILE_VALUE, &["a"], 1, 0),
            _ => return None,
        }
        Some(batch)
    }

    /// Asks the host for one thing again and again.
    fn flood(self, host: &mut dyn Host) -> Result<Batch, Error> {
        match self {
            Self::CollectLogFlood => (0..FLOOD).for_each(|_turn| host.log(Level::Error, "x")),
            Self::CollectLogHuge => host.log(Level::Error, &"x".repeat(12 << 20)),
            Self::CollectStateJustTooLarge => host.set_state(&vec![1; (64 << 10) + 1])?,
            Self::CollectStateFlood => loop {
                host.set_state(&vec![1; 64 << 10])?;
            },
            Self::CollectClockFlood => (0..FLOOD).for_each(|_turn| {
                black_box(host.now_ms());
            }),
            Self::CollectListFlood => loop {
                host.list_folder("folder")?;
            },
            Self::CollectDocumentFlood => loop {
                host.next_document("documents")?;
            },
            _ => {}
        }
        Ok(Batch::default())
    }
}

fn made_up(index: u32) -> Metric {
    Metric {
        name: format!("made.up_{index}"),
        unit: "1".to_owned(),
        kind: Kind::Gauge,
        help: String::new(),
        label_keys: Vec::new(),
        role: String::new(),
        decimals: 0,
        currency: None,
    }
}

fn unreachable() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    endless()
}

#[expect(clippy::panic, reason = "it misbehaves on purpose")]
fn panic_at_length() -> ! {
    let none: Option<u8> = black_box(None);
    none.unwrap_or_else(|| panic!("{}", "é".repeat(2 << 20)));
    endless()
}

fn more() -> Batch {
    let mut batch = Batch::default();
    batch.more = true;
    batch
}

fn churn(calls: u32, now_ms: u64) -> Batch {
    let mut batch = Batch::default();
    for index in 0..1_000 {
        batch.push_integer(metric::HOSTILE_VALUE, &[&format!("{calls}-{index}")], 1, now_ms);
    }
    batch
}

fn long_history(now_ms: u64) -> Batch {
    let mut batch = Batch::default();
    for minute in 1..=99_000_u32 {
        let value = 1e12 + f64::from(minute) * 7_919.000_123;
        batch.push_real(metric::HOSTILE_TIME, &["1"], value, now_ms - u64::from(minute) * 60_000);
    }
    batch
}

/// Reading what was not granted is what the host must refuse; what came instead goes out.
fn read(source: &str, host: &mut dyn Host) -> Result<Batch, Error> {
    let lines = host.read_lines(source, u32::MAX).map(|lines| lines.bytes.len());
    let document = host
        .next_document(source)
        .map(|document| usize::from(document.is_some()));
    let listing = host.list_folder(source).map(|listing| listing.entries.len());
    match (lines, document, listing) {
        (Err(fault), Err(_), Err(_)) => Err(fault.into()),
        got => Ok(labeled(&format!("{got:?}"))),
    }
}

fn wrong_kind(host: &mut dyn Host) -> Result<Batch, Error> {
    let refused = [
        host.read_lines("folder", u32::MAX).is_err(),
        host.read_lines("documents", u32::MAX).is_err(),
        host.next_document("input").is_err(),
        host.next_document("folder").is_err(),
        host.list_folder("input").is_err(),
        host.list_folder("documents").is_err(),
    ];
    if refused.contains(&false) {
        return Ok(labeled("another kind"));
    }
    Err(Error::transient("every source is of one kind only"))
}

fn steal(host: &mut dyn Host) -> Result<Batch, Error> {
    let mut is_stolen = false;
    for _document in 0..100 {
        let Ok(Some(document)) = host.next_document("documents") else {
            break;
        };
        is_stolen |= holds_the_secret(&document.bytes);
    }
    if let Ok(listing) = host.list_folder("folder") {
        is_stolen |= listing.entries.iter().any(|entry| entry.name.contains("secret"));
    }
    told(is_stolen)
}

fn told(is_stolen: bool) -> Result<Batch, Error> {
    Ok(if is_stolen { labeled("stolen") } else { Batch::default() })
}

fn holds_the_secret(bytes: &[u8]) -> bool {
    bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes())
}
