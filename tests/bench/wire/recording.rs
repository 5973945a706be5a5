//! Two weeks of a store: 16 routes, 3 queues, sales.
//!
//! In: the recorded levels in `tests/bench/recorded`. Out: the records that the agent's core made of them, by day.
//! Access log, queue readings and sales are written as a store would write them, read by the shipped collectors and
//! summed up by the core. What is not recorded, when in its minute a request came, is drawn with a fixed seed.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use serde::de::DeserializeOwned;
use tillwatch_agent::plugin::manifest::Manifest;
use tillwatch_core::sample;
use tillwatch_core::{Core, Limits, RecordKind, Settings, SourceKey};
use tillwatch_feed::codec::decode_body;
use tillwatch_feed::message::{Birth, Block, Body};
use tillwatch_sdk::testing::{FileHost, collect_all};
use tillwatch_sdk::{Batch, Collector, Values};

/// Monday, 2026-06-01 00:00 UTC.
const START_MS: u64 = 1_780_272_000_000;
const DAY_MS: u64 = 86_400_000;
pub(super) const READ_MS: u64 = 10_000;
const LEVEL_MS: u64 = 300_000;
/// The agent's own close delay and a bit.
const CLOSED_MS: u64 = 13_000;
/// Requests of all routes in a minute, for each 1,000 taxi trips in half an hour: 300 at the evening's peak.
const REQUESTS_PER_MINUTE: f64 = 10.0;
const REQUESTS_PER_CHECKOUT: f64 = 15.0;
/// The detectors know a slot of the week after a week and judge a day later; then the dictionary learns from two days and two others are measured.
const WARM_DAYS: u64 = 9;
const DAYS: u64 = 13;
/// Friday, 10:00 UTC, the first of the measured days: from here on a real agent goes on with what was learned.
pub(super) const LIVE_MS: u64 = START_MS + (WARM_DAYS + 2) * DAY_MS + 10 * 3_600_000;

/// Share of the requests, and the middle of the response time in milliseconds.
const ROUTES: [(&str, f64, f64); 16] = [
    ("/item/scan", 30.0, 38.0),
    ("/price", 18.0, 12.0),
    ("/basket/total", 12.0, 55.0),
    ("/loyalty", 7.0, 180.0),
    ("/payment/authorize", 5.0, 950.0),
    ("/payment/capture", 5.0, 310.0),
    ("/receipt", 5.0, 90.0),
    ("/order/create", 4.0, 430.0),
    ("/coupon", 3.0, 75.0),
    ("/customer", 2.5, 140.0),
    ("/stock", 2.5, 66.0),
    ("/label", 2.0, 25.0),
    ("/login", 1.0, 220.0),
    ("/report", 1.0, 1800.0),
    ("/session", 1.0, 49.0),
    ("/gift-card", 1.0, 510.0),
];
/// The ages of the routes' last requests, one a route, are left out: the store has 30 series.
const LEFT_OUT: &str = "http.server.last_request.age";
pub(super) const QUEUES: [&str; 3] = ["mainframe", "loyalty", "labels"];

/// What the core made, ready to be spooled: one block for each minute.
pub(super) struct Recording {
    pub(super) births: Vec<Birth>,
    /// To learn from.
    pub(super) training: Vec<Block>,
    /// To measure.
    pub(super) measured: Vec<Block>,
    /// At `LIVE_MS`.
    pub(super) learned: Learned,
}

/// What a core goes on from.
#[derive(Default)]
pub(super) struct Learned {
    pub(super) birth: Birth,
    pub(super) checkpoint: Vec<u8>,
    pub(super) detectors: Vec<u8>,
}

/// Reads the levels and lives through the time.
pub(super) fn make(seed: u64) -> Result<Recording> {
    let mut store = Store::new(seed)?;
    let mut recording = Recording {
        births: Vec::new(),
        training: Vec::new(),
        measured: Vec::new(),
        learned: Learned::default(),
    };
    for now_ms in (START_MS..START_MS + DAYS * DAY_MS).step_by(usize::try_from(READ_MS)?) {
        if (now_ms - START_MS).is_multiple_of(DAY_MS) {
            store.open_new_logs(now_ms)?;
        }
        if now_ms == LIVE_MS {
            recording.learned = Learned {
                birth: recording.births.last().cloned().unwrap_or_default(),
                checkpoint: store.core.checkpoint(),
                detectors: store.core.detectors(),
            };
        }
        store.live(now_ms)?;
        for record in store.core.take_records() {
            match (record.kind, decode_body(&record.payload)?) {
                (RecordKind::Block, Body::Block(block)) => recording.keep(block),
                (_, Body::Birth(birth)) => recording.births.push(birth),
                _ => {}
            }
        }
    }
    recording.check()?;
    Ok(recording)
}

impl Recording {
    fn keep(&mut self, block: Block) {
        let start_ms = block.intervals.first().map_or(0, |interval| interval.start_ms);
        let day = start_ms.saturating_sub(START_MS) / DAY_MS;
        if day >= WARM_DAYS + 2 {
            self.measured.push(block);
        } else if day >= WARM_DAYS {
            self.training.push(block);
        }
    }

    fn check(&self) -> Result<()> {
        let minutes = usize::try_from(2 * DAY_MS / 60_000)?;
        ensure!(
            self.training.len() == minutes && self.measured.len().abs_diff(minutes) <= 2,
            "{} and {} minutes were recorded",
            self.training.len(),
            self.measured.len()
        );
        let (rows, histograms) = self.measured.iter().fold((0, 0), |(rows, histograms), block| {
            let all = || block.intervals.iter().flat_map(|interval| &interval.rows);
            let with = all().filter(|row| row.summary.histogram.is_some()).count();
            (rows + all().count(), histograms + with)
        });
        let (rows_max, histograms_max) = (30 * self.measured.len(), ROUTES.len() * self.measured.len());
        ensure!(
            rows <= rows_max && rows * 10 > rows_max * 9 && histograms <= histograms_max,
            "{rows} rows and {histograms} histograms in {} minutes",
            self.measured.len()
        );
        Ok(())
    }
}

/// The shipped collectors on one store's files.
struct Collectors {
    latency: Source<pos_latency::PosLatency>,
    queue: Source<queue_depth::QueueDepth>,
    sales: Source<sales::Sales>,
}

struct Source<C> {
    key: SourceKey,
    left_out: Option<u16>,
    settings: String,
    collector: C,
    host: FileHost,
}

struct Store {
    core: Core,
    collectors: Collectors,
    scribe: Scribe,
}

/// Writes what happens in a store.
pub(super) struct Scribe {
    levels: Vec<Levels>,
    /// Response times around their middle, as shares of it.
    spread: Vec<f64>,
    rng: Rng,
}

/// Lines of ten seconds.
pub(super) struct Written {
    pub(super) requests: String,
    pub(super) sales: String,
    pub(super) readings: String,
}

/// The store at one time.
struct Levels {
    requests_per_minute: f64,
    /// Of the response times, around 1.
    slowness: f64,
    depths: [f64; 3],
}

impl Store {
    fn new(seed: u64) -> Result<Self> {
        let mut core = Core::new(Settings {
            window_ms: 10_000,
            summary_ms: 60_000,
            time_zone: jiff::tz::TimeZone::UTC,
            calendar: Default::default(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            limits: Limits::default(),
        });
        core.begin_generation(None);
        let exact: Vec<_> = routes()
            .map(|route| serde_json::json!({ "exact": route, "route": route }))
            .collect();
        let collectors = Collectors {
            latency: Source::new(
                &mut core,
                "pos-latency",
                serde_json::json!({ "routes": exact }).to_string(),
            )?,
            queue: Source::new(
                &mut core,
                "queue-depth",
                format!(r#"{{"queues":{QUEUES:?},"field_oldest_age":"oldest"}}"#),
            )?,
            sales: Source::new(&mut core, "sales", "{}".to_owned())?,
        };
        Ok(Self {
            core,
            collectors,
            scribe: Scribe::new(seed)?,
        })
    }

    /// Logs are rotated at midnight.
    fn open_new_logs(&mut self, now_ms: u64) -> Result<()> {
        self.collectors.latency.reopen(now_ms)?;
        self.collectors.queue.reopen(now_ms)?;
        self.collectors.sales.reopen(now_ms)
    }

    /// What happens in the time until the next read, and that read.
    fn live(&mut self, from_ms: u64) -> Result<()> {
        let Written {
            requests,
            sales,
            readings,
        } = self.scribe.write(from_ms)?;
        let now_ms = from_ms + READ_MS;
        let core = &mut self.core;
        self.collectors.latency.read(core, now_ms, "access_log", &requests)?;
        self.collectors.sales.read(core, now_ms, "lines", &sales)?;
        self.collectors.queue.read(core, now_ms, "events", &readings)?;
        core.on_tick(now_ms + CLOSED_MS - READ_MS);
        Ok(())
    }
}

/// As the plugins' settings name them.
pub(super) fn routes() -> impl Iterator<Item = &'static str> {
    ROUTES.iter().map(|(route, ..)| *route)
}

impl Scribe {
    pub(super) fn new(seed: u64) -> Result<Self> {
        Ok(Self {
            levels: levels()?,
            spread: spread()?,
            rng: Rng::with_seed(seed),
        })
    }

    /// What happens in the ten seconds from then on.
    pub(super) fn write(&mut self, from_ms: u64) -> Result<Written> {
        let at = usize::try_from((from_ms - START_MS) / LEVEL_MS)?;
        let level = self.levels.get(at).context("a level for each time")?;
        let (rng, share) = (&mut self.rng, READ_MS as f64 / 60_000.0);
        let (mut requests, mut sales, mut readings) = (String::new(), String::new(), String::new());
        for _ in 0..poisson(rng, level.requests_per_minute * share) {
            request(rng, &mut requests, from_ms, level, &self.spread)?;
        }
        for _ in 0..poisson(rng, level.requests_per_minute * share / REQUESTS_PER_CHECKOUT) {
            sale(rng, &mut sales, from_ms)?;
        }
        for (queue, depth) in QUEUES.iter().zip(level.depths) {
            let depth = poisson(rng, depth);
            let oldest = f64::from(depth) * (0.4 + rng.f64());
            writeln!(
                readings,
                r#"{{"time":"{}","queue":"{queue}","depth":{depth},"oldest":{oldest:.3}}}"#,
                time(from_ms + READ_MS - 1, "%Y-%m-%dT%H:%M:%SZ")?
            )?;
        }
        Ok(Written {
            requests,
            sales,
            readings,
        })
    }
}

fn request(rng: &mut Rng, log: &mut String, from_ms: u64, level: &Levels, spread: &[f64]) -> Result<()> {
    let mut left = rng.f64() * ROUTES.iter().map(|(_, share, _)| share).sum::<f64>();
    let (route, _, middle_ms) = ROUTES
        .iter()
        .find(|(_, share, _)| {
            left -= share;
            left < 0.0
        })
        .unwrap_or(&ROUTES[0]);
    let recorded = spread.get(rng.usize(..spread.len())).copied().unwrap_or(1.0);
    let seconds = (middle_ms * level.slowness * recorded * (1.0 + 0.1 * normal(rng)) / 1000.0).max(0.001);
    let at = time(from_ms + rng.u64(..READ_MS), "%d/%b/%Y:%H:%M:%S +0000")?;
    let fails = *route == "/payment/authorize" || *route == "/loyalty";
    let status = if fails && rng.u32(..400) == 0 { 502 } else { 200 };
    writeln!(
        log,
        r#"10.0.0.7 - - [{at}] "POST {route} HTTP/1.1" {status} 1401 "-" "till" rt={seconds:.3} urt={seconds:.3}"#
    )?;
    Ok(())
}

fn sale(rng: &mut Rng, log: &mut String, from_ms: u64) -> Result<()> {
    let items = 1 + poisson(rng, 6.0);
    let total: f64 = (0..items).map(|_| (0.9 * normal(rng) + 0.9).exp()).sum();
    let tender = if rng.u32(..5) < 3 { "card" } else { "cash" };
    let at = time(from_ms + rng.u64(..READ_MS), "%Y-%m-%dT%H:%M:%SZ")?;
    writeln!(
        log,
        r#"{{"time":"{at}","total":{total:.2},"items":{items},"tender":"{tender}"}}"#
    )?;
    Ok(())
}

impl<C: Collector<Settings: DeserializeOwned>> Source<C> {
    fn new(core: &mut Core, plugin: &str, settings: String) -> Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins").join(plugin);
        let manifest = Manifest::load(&folder).map_err(|problems| anyhow::anyhow!("{problems}"))?;
        let left_out = manifest.metrics.iter().position(|metric| metric.name == LEFT_OUT);
        let left_out = left_out.and_then(|at| u16::try_from(at).ok());
        let key = core.declare(plugin, &manifest.version, manifest.metrics, manifest.labels)?;
        let mut host = FileHost::new(START_MS);
        Ok(Self {
            key,
            left_out,
            collector: C::new(serde_json::from_str(&settings)?, &mut host)
                .map_err(|error| anyhow::anyhow!("{error}"))?,
            settings,
            host,
        })
    }

    fn reopen(&mut self, now_ms: u64) -> Result<()> {
        self.host = FileHost::new(now_ms);
        let settings = serde_json::from_str(&self.settings)?;
        self.collector = C::new(settings, &mut self.host).map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(())
    }

    fn read(&mut self, core: &mut Core, now_ms: u64, source: &str, lines: &str) -> Result<()> {
        self.host.set_now(now_ms);
        self.host.append_lines(source, lines.as_bytes());
        let read = collect_all(&mut self.collector, &mut self.host).map_err(|error| anyhow::anyhow!("{error}"))?;
        for batch in read {
            let mut batch = to_core(batch);
            batch.series.retain(|series| Some(series.metric) != self.left_out);
            let accepted = core.on_batch(now_ms, self.key, batch, Vec::new());
            ensure!(accepted.refused.total() == 0, "{accepted:?}");
        }
        Ok(())
    }
}

/// As it comes over the border.
fn to_core(batch: Batch) -> sample::Batch {
    let more = batch.more;
    let series = batch.into_series().into_iter().map(|series| sample::Series {
        metric: series.metric.index(),
        labels: series.labels,
        values: match series.values {
            Values::Reals(values) => sample::Values::Reals(values),
            Values::Integers(values) => sample::Values::Integers(values),
        },
        times_ms: series.times_ms,
    });
    sample::Batch {
        series: series.collect(),
        more,
        is_partial: false,
    }
}

fn recorded(file: &str) -> Result<Vec<Vec<f64>>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/recorded").join(file);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let rows = text
        .lines()
        .skip(1)
        .map(|line| line.split(',').map(str::parse).collect());
    rows.collect::<Result<_, _>>()
        .with_context(|| format!("reading {}", path.display()))
}

fn levels() -> Result<Vec<Levels>> {
    let rows = recorded("levels.csv")?;
    let middle = median(rows.iter().filter_map(|row| row.get(1)).copied().collect());
    let level = |row: &Vec<f64>| match row.as_slice() {
        &[trips, latency_ms, a, b, c] => Ok(Levels {
            requests_per_minute: trips / 1000.0 * REQUESTS_PER_MINUTE,
            slowness: latency_ms / middle,
            depths: [a, b, c],
        }),
        other => anyhow::bail!("a row of {} levels", other.len()),
    };
    rows.iter().map(level).collect()
}

fn spread() -> Result<Vec<f64>> {
    let seconds: Vec<f64> = recorded("requests.csv")?.concat();
    let middle = median(seconds.clone());
    Ok(seconds.into_iter().map(|seconds| seconds / middle).collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(1.0)
}

fn time(at_ms: u64, format: &str) -> Result<String> {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(at_ms)?)?;
    Ok(at.strftime(format).to_string())
}

/// Source: Knuth, The Art of Computer Programming, volume 2, section 3.4.1, in parts that a double can hold.
fn poisson(rng: &mut Rng, mean: f64) -> u32 {
    const PART: f64 = 100.0;
    if mean > PART {
        return poisson(rng, PART) + poisson(rng, mean - PART);
    }
    let limit = (-mean).exp();
    let (mut count, mut product) = (0, rng.f64());
    while product > limit {
        count += 1;
        product *= rng.f64();
    }
    count
}

/// A standard normal value, nearly: the sum of twelve uniform ones.
fn normal(rng: &mut Rng) -> f64 {
    (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0
}
