//! From the wire's blocks to what central reckons with.
//!
//! In: a block, the birth that names its series, and which records of it are fresh.
//! Out: one [`Observation`] per row of a fresh record.
//! It never touches the archive, never asks for a birth (it says which one it lacks) and never rescales a number.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use tillwatch_feed::message::{Birth, Block, Body, Interval, Kind, Message, Row, Series};
use tillwatch_feed::ranges::RangeSet;
use tillwatch_feed::score::Score;
use tillwatch_feed::summary::Summary;
use tillwatch_feed::topic::SiteId;

/// What a birth says about one series; shared by all observations of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SeriesInfo {
    pub metric: String,
    /// UCUM.
    pub unit: String,
    pub kind: Kind,
    /// What the metric is for: `latency`, `queue`, `sales.count`, `sales.amount`, ... an open list.
    pub role: String,
    /// Whole numbers of the metric are multiples of 10^-decimals of its unit.
    pub decimals: u8,
    /// ISO 4217, when the metric is money.
    pub currency: Option<String>,
    /// Name of the plugin that declared the metric.
    pub plugin: String,
    /// In the order in which the metric declares its keys.
    pub labels: Vec<(String, String)>,
}

/// One series of one site in one interval. Observations of the same interval add up.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    pub site: SiteId,
    pub series: Arc<SeriesInfo>,
    /// UTC milliseconds at the site's clock.
    pub start_ms: u64,
    pub length_ms: u32,
    pub summary: Summary,
    pub score: Option<Score>,
}

/// Dictionaries kept of one site; the one used longest ago goes first and is read from the archive when it is needed again.
pub const DICTIONARIES_PER_SITE_MAX: usize = 8;

/// Why a block could not be read although its message could.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("block names series {series} that its birth does not know")]
    Series { series: u32 },
    #[error("block has {found} records, its message says {expected}")]
    Records { expected: u64, found: usize },
    #[error("block has {found} intervals, its records say {expected}")]
    Intervals { expected: u64, found: usize },
    #[error("birth names metric or plugin {index} that it does not have")]
    Birth { index: u32 },
    #[error("series {series} has {values} label values for {keys} keys")]
    Labels { series: u32, values: usize, keys: usize },
}

/// The series of one birth by their id.
#[derive(Debug)]
pub struct Dictionary {
    series: HashMap<u32, Arc<SeriesInfo>>,
}

/// The births that blocks may need, by site and schema.
#[derive(Debug, Default)]
pub struct Dictionaries {
    sites: HashMap<SiteId, VecDeque<(u64, Arc<Dictionary>)>>,
    /// Equal series of all sites are one allocation.
    interned: HashSet<Arc<SeriesInfo>>,
}

impl Dictionaries {
    /// The dictionary of a schema, which is then the one used last.
    pub fn get(&mut self, site: &SiteId, schema: u64) -> Option<Arc<Dictionary>> {
        let known = self.sites.get_mut(site)?;
        let at = known.iter().position(|(found, _)| *found == schema)?;
        let entry = known.remove(at)?;
        let dictionary = Arc::clone(&entry.1);
        known.push_back(entry);
        Some(dictionary)
    }

    /// Takes up a birth; the first one of a schema holds.
    ///
    /// # Errors
    /// When the birth contradicts itself; it is not taken up then.
    pub fn learn(&mut self, site: &SiteId, birth: &Birth) -> Result<Arc<Dictionary>, Unreadable> {
        if let Some(known) = self.get(site, birth.schema) {
            return Ok(known);
        }
        let dictionary = Arc::new(self.dictionary(birth)?);
        let known = self.sites.entry(site.clone()).or_default();
        known.push_back((birth.schema, Arc::clone(&dictionary)));
        if known.len() > DICTIONARIES_PER_SITE_MAX {
            known.pop_front();
            self.interned.retain(|info| Arc::strong_count(info) > 1);
        }
        Ok(dictionary)
    }

    /// The archive does not hold this birth any more: what needs it must ask for it, now as after a restart.
    pub fn forget(&mut self, site: &SiteId, schema: u64) {
        if let Some(known) = self.sites.get_mut(site) {
            known.retain(|(found, _)| *found != schema);
        }
    }

    fn dictionary(&mut self, birth: &Birth) -> Result<Dictionary, Unreadable> {
        let mut series = HashMap::with_capacity(birth.series.len());
        for entry in &birth.series {
            series.insert(entry.id, self.intern(series_info(birth, entry)?));
        }
        Ok(Dictionary { series })
    }

    fn intern(&mut self, info: SeriesInfo) -> Arc<SeriesInfo> {
        if let Some(known) = self.interned.get(&info) {
            return Arc::clone(known);
        }
        let info = Arc::new(info);
        self.interned.insert(Arc::clone(&info));
        info
    }
}

fn series_info(birth: &Birth, series: &Series) -> Result<SeriesInfo, Unreadable> {
    let metric = item(&birth.metrics, series.metric)?;
    let plugin = item(&birth.plugins, metric.plugin)?;
    let (keys, values) = (&metric.label_keys, &series.label_values);
    if keys.len() != values.len() {
        return Err(Unreadable::Labels {
            series: series.id,
            values: values.len(),
            keys: keys.len(),
        });
    }
    Ok(SeriesInfo {
        metric: metric.name.clone(),
        unit: metric.unit.clone(),
        kind: metric.kind,
        role: metric.role.clone(),
        decimals: metric.decimals,
        currency: metric.currency.clone(),
        plugin: plugin.name.clone(),
        labels: keys.iter().cloned().zip(values.iter().cloned()).collect(),
    })
}

fn item<T>(items: &[T], index: u32) -> Result<&T, Unreadable> {
    let found = usize::try_from(index).ok().and_then(|at| items.get(at));
    found.ok_or(Unreadable::Birth { index })
}

/// The observations of the fresh records of a block whose first record is `seq_first` and last is `seq_last`.
///
/// # Errors
/// When the block contradicts itself, its message or its birth. All of it is checked, fresh or not.
pub fn observations(
    site: &SiteId,
    dictionary: &Dictionary,
    block: &Block,
    (seq_first, seq_last): (u64, u64),
    fresh: &RangeSet,
) -> Result<Vec<Observation>, Unreadable> {
    let expected = (seq_last - seq_first).saturating_add(1);
    if u64::try_from(block.records.len()).ok() != Some(expected) {
        return Err(Unreadable::Records {
            expected,
            found: block.records.len(),
        });
    }
    let counted: u64 = block.records.iter().map(|count| u64::from(*count)).sum();
    if u64::try_from(block.intervals.len()).ok() != Some(counted) {
        return Err(Unreadable::Intervals {
            expected: counted,
            found: block.intervals.len(),
        });
    }
    let mut found = Vec::with_capacity(block.row_count());
    let mut intervals = block.intervals.iter();
    for (seq, count) in (seq_first..).zip(&block.records) {
        let is_fresh = fresh.contains(seq);
        for interval in intervals.by_ref().take(usize::try_from(*count).unwrap_or(usize::MAX)) {
            for row in &interval.rows {
                let series = dictionary.series.get(&row.series);
                let series = series.ok_or(Unreadable::Series { series: row.series })?;
                if is_fresh {
                    found.push(observation(site, series, interval, row));
                }
            }
        }
    }
    Ok(found)
}

fn observation(site: &SiteId, series: &Arc<SeriesInfo>, interval: &Interval, row: &Row) -> Observation {
    Observation {
        site: site.clone(),
        series: Arc::clone(series),
        start_ms: interval.start_ms,
        length_ms: interval.length_ms,
        summary: row.summary.clone(),
        score: row.score,
    }
}

/// Event time that a message covers: that of its intervals or its finding, else the agent's clock.
pub fn covers(message: &Message) -> (u64, u64) {
    let clock_ms = message.clock.wall_ms;
    match &message.body {
        Body::Block(block) => {
            let start = block.intervals.iter().map(|interval| interval.start_ms).min();
            let end = block
                .intervals
                .iter()
                .map(|i| i.start_ms.saturating_add(u64::from(i.length_ms)))
                .max();
            (start.unwrap_or(clock_ms), end.unwrap_or(clock_ms))
        }
        Body::Finding(finding) => (
            finding.start_ms,
            finding.end_ms.unwrap_or(finding.peak_ms).max(finding.start_ms),
        ),
        Body::Birth(_) | Body::Gap(_) => (clock_ms, clock_ms),
    }
}
