//! How far the sales of each region are off, against the other regions and against itself a while ago.
//!
//! In: minutes of all sites. Out: per region the drop in standard deviations: a term of the likelihood, and the sign that
//! business fell without a technical cause. A rough and quick look at every minute; the price is `cost`'s work.

use crate::expect::{MINUTE_MS, QUARTER_MS, SiteSales, Tally, minute_baselines};
use crate::topology::{Extent, Topology};

/// The minutes that are looked at, and those before that they are compared with.
const RECENT_MINUTES: u64 = 30;
const EARLIER_MINUTES: u64 = 120;
/// Transactions that pull a ratio towards 1.
const PULL: f64 = 50.0;
/// How much of a deviation usually goes on.
const OWN_SHARE: f64 = 0.7;
/// What regions differ from day to day, beyond counting noise.
const REGION_NOISE: f64 = 0.05;
/// What sales can add to or take from a likelihood.
const TERM_MAX: f64 = 4.0;
const TERM_MIN: f64 = -1.0;

/// The drop of one region.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Drop {
    /// Part of the expected sales that is missing; negative when there are more.
    pub share: f64,
    /// In standard deviations.
    pub sigmas: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Region {
    recent: Tally,
    earlier: Tally,
}

/// One drop per region, for the minutes before `now_ms`; `spared` regions are no measure for others.
pub fn drops(topology: &Topology, sales: &[SiteSales], spared: &[bool], now_ms: u64) -> Vec<Drop> {
    let mut regions = vec![Region::default(); topology.regions_len()];
    for (site, sales) in sales.iter().enumerate() {
        add_site(&mut regions[topology.region_of(site)], sales, now_ms);
    }
    let mut all = Region::default();
    for (region, _) in regions.iter().zip(spared).filter(|(_, spared)| !**spared) {
        all.recent += region.recent;
        all.earlier += region.earlier;
    }
    let own = |spared: bool, region: &Region| if spared { Region::default() } else { *region };
    regions
        .iter()
        .zip(spared)
        .map(|(region, spared)| drop_of(region, &all, &own(*spared, region)))
        .collect()
}

/// What sales say for a cause over an extent; only regions are judged.
pub fn term(drops: &[Drop], extent: Extent) -> f64 {
    match extent {
        Extent::Region(region) => {
            let sigmas = drops.get(region).map_or(0.0, |drop| drop.sigmas);
            (0.5 * sigmas * sigmas.abs()).clamp(TERM_MIN, TERM_MAX)
        }
        Extent::Site(_) | Extent::Chain => 0.0,
    }
}

fn add_site(region: &mut Region, sales: &SiteSales, now_ms: u64) {
    if !sales.sells() {
        return;
    }
    let now = now_ms / MINUTE_MS;
    let first = now.saturating_sub(RECENT_MINUTES + EARLIER_MINUTES);
    let mut baselines = [None; 15];
    for minute in first..now {
        if minute == first || minute % 15 == 0 {
            let start_ms = minute * MINUTE_MS;
            baselines = minute_baselines(sales, start_ms - start_ms % QUARTER_MS, now_ms);
        }
        let baseline = baselines[usize::try_from(minute % 15).unwrap_or(0)];
        let (Some(actual), Some(baseline)) = (sales.minute(minute), baseline) else {
            continue;
        };
        let sum = if minute + RECENT_MINUTES >= now {
            &mut region.recent
        } else {
            &mut region.earlier
        };
        *sum += Tally {
            actual: f64::from(actual),
            baseline,
        };
    }
}

/// `own` is what the region has added to `all`.
fn drop_of(region: &Region, all: &Region, own: &Region) -> Drop {
    let others = |all: Tally, own: Tally| Tally {
        actual: all.actual - own.actual,
        baseline: all.baseline - own.baseline,
    };
    let (recent, earlier) = (others(all.recent, own.recent), others(all.earlier, own.earlier));
    let ratio = |tally: Tally, by: f64| (tally.actual + PULL) / (tally.baseline * by + PULL);
    let own = ratio(region.earlier, ratio(earlier, 1.0)).powf(OWN_SHARE);
    let expected = region.recent.baseline * ratio(recent, 1.0) * own;
    if expected < 1.0 {
        return Drop::default();
    }
    let relative = REGION_NOISE.powi(2) + 1.0 / (recent.actual + PULL) + 0.5 / (region.earlier.actual + PULL);
    let sigma = (expected + expected * expected * relative).sqrt();
    let missing = expected - region.recent.actual;
    Drop {
        share: missing / expected,
        sigmas: missing / sigma,
    }
}
