//! What a group of sites did not sell, and what that is worth, with an interval that placebos vouch for.
//!
//! In: the sales of the group and of unaffected sites. Out: expected against actual transactions and money, or why there
//! is no price. Expected = own past x today's ratio of unaffected sites x what the group did differently just before.
//! The interval comes from the same reckoning on past windows of the same group, when nothing was wrong.
//! It never looks at latencies or queues, and never counts a silent site as one that sold nothing.

pub mod placebo;

use crate::expect::columns::Columns;
use crate::expect::{self, MINUTE_MS, QUARTER_MS, SiteSales, Tally};
use crate::incident::{CONFIDENCE, Cost, PriceState};
use placebo::Errors;

/// A loss is told from noise only when it is this many times the usual error of the reckoning: the interval alone, looked
/// at every minute for many incidents, would cry wolf.
pub const DISTINCT_MIN: f64 = 3.5;
/// Once told from noise, it stays so above this.
pub const DISTINCT_KEEP: f64 = 2.5;
/// Unaffected sites must make this part of the group's usual sales to be of use.
pub const UNAFFECTED_SHARE_MIN: f64 = 0.3;
/// A group of which less than this part reports is dark.
pub const REPORTING_SHARE_MIN: f64 = 0.2;
/// From this reporting part on, the silent rest is taken to have lost alike.
pub const EXTRAPOLATE_SHARE_MIN: f64 = 0.5;
/// By how much the interval widens when there are no unaffected sites.
pub const NO_UNAFFECTED_WIDENING: f64 = 1.5;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub sales: &'a [SiteSales],
    /// The affected sites.
    pub group: &'a [usize],
    /// The same, by quarter.
    pub group_columns: &'a Columns,
    /// Sites that no open incident touches, outside the group's regions.
    pub unaffected: &'a [usize],
    /// The same by quarter, one entry per region.
    pub unaffected_columns: &'a [&'a Columns],
    /// Whole minutes, UTC.
    pub start_ms: u64,
    pub end_ms: u64,
    /// Earlier windows (from, to) in which something was wrong with the group; no placebo is taken there.
    pub spoiled: &'a [(u64, u64)],
    /// It was told from noise before.
    pub was_distinct: bool,
    pub currency: &'a str,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub state: PriceState,
    /// Present exactly when the state is costed.
    pub cost: Option<Cost>,
    /// Present with `cost`.
    pub lost_transactions: Option<i64>,
    pub estimate: Option<Estimate>,
    pub unaffected_sites_used: u32,
    pub dark_sites: u32,
    pub notes: Vec<String>,
}

/// Lost transactions with their interval, and the parts that a chart needs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    pub expected: f64,
    pub actual: f64,
    pub lost: f64,
    pub lost_lower: f64,
    pub lost_upper: f64,
    /// Loss in units of the usual error.
    pub distinctness: f64,
    /// Today's ratio of unaffected sites.
    pub unaffected_ratio: f64,
    /// What the group did differently just before, as a factor.
    pub own_ratio: f64,
    /// Usual relative error over the window.
    pub error: f64,
    pub basket_minor: f64,
}

/// Prices a window.
pub fn price(question: &Question<'_>) -> Answer {
    let sums = Sums::of(question);
    if let Some(state) = sums.no_price(question) {
        return Answer::without(state, &sums);
    }
    let control = Columns::sum(question.unaffected_columns.iter().copied(), None);
    let without_unaffected = sums.unaffected.baseline < UNAFFECTED_SHARE_MIN * sums.group.baseline;
    let control = (!without_unaffected).then_some(&control);
    let Some(mut errors) = Errors::of(question, control) else {
        return Answer::without(PriceState::Learning, &sums);
    };
    let mut estimate = estimate(question, &sums, &errors, control);
    if estimate.distinctness >= DISTINCT_KEEP {
        // Today can only make a loss less sure, so that it is asked last.
        errors.scale_to_today(question);
        estimate = self::estimate(question, &sums, &errors, control);
    }
    answer(question, &sums, estimate, without_unaffected)
}

/// Minute sums over the window.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    group: Tally,
    unaffected: Tally,
    unaffected_sites: u32,
    dark_sites: u32,
    /// Part of the group's usual sales that reported.
    reporting_share: f64,
    learning_sites: usize,
    selling_sites: usize,
}

impl Sums {
    fn of(question: &Question<'_>) -> Sums {
        let mut sums = Sums::default();
        let mut all = 0.0;
        for &site in question.group.iter().filter(|&&site| question.sales[site].sells()) {
            sums.selling_sites += 1;
            let (tally, usual, known) = site_sums(question, site);
            sums.learning_sites += usize::from(usual.is_none());
            sums.dark_sites += u32::from(2 * known < question.minutes());
            all += usual.unwrap_or(0.0);
            sums.group += tally;
        }
        sums.reporting_share = if all > 0.0 { sums.group.baseline / all } else { 1.0 };
        for &site in question.unaffected {
            let (tally, _, _) = site_sums(question, site);
            sums.unaffected += tally;
            sums.unaffected_sites += u32::from(tally.baseline > 0.0);
        }
        sums
    }

    fn no_price(&self, question: &Question<'_>) -> Option<PriceState> {
        if self.selling_sites == 0 {
            let silent = question
                .group
                .iter()
                .all(|&site| question.sales[site].heard_ms() < question.start_ms);
            return Some(if silent {
                PriceState::Learning
            } else {
                PriceState::NoSales
            });
        }
        if 2 * self.learning_sites > self.selling_sites {
            return Some(PriceState::Learning);
        }
        (self.reporting_share < REPORTING_SHARE_MIN).then_some(PriceState::Dark)
    }
}

impl Question<'_> {
    fn minutes(&self) -> u64 {
        (self.end_ms - self.start_ms) / MINUTE_MS
    }
}

/// Known minutes of one site, its usual sales over all minutes, and how many minutes are known.
fn site_sums(question: &Question<'_>, site: usize) -> (Tally, Option<f64>, u64) {
    let sales = &question.sales[site];
    let (mut tally, mut usual, mut known) = (Tally::default(), None, 0);
    let mut line = BaselineLine::default();
    for minute in question.start_ms / MINUTE_MS..question.end_ms / MINUTE_MS {
        let Some(baseline) = line.at(sales, minute, question.start_ms) else {
            continue;
        };
        *usual.get_or_insert(0.0) += baseline;
        if let Some(actual) = sales.minute(minute) {
            known += 1;
            tally += Tally {
                actual: f64::from(actual),
                baseline,
            };
        }
    }
    (tally, usual, known)
}

/// The baselines of single minutes; those of a quarter are looked up once.
#[derive(Default)]
pub struct BaselineLine {
    quarter: Option<u64>,
    minutes: [Option<f64>; 15],
}

impl BaselineLine {
    pub fn at(&mut self, sales: &SiteSales, minute: u64, before_ms: u64) -> Option<f64> {
        let quarter = minute / 15;
        if self.quarter != Some(quarter) {
            self.quarter = Some(quarter);
            self.minutes = expect::minute_baselines(sales, quarter * QUARTER_MS, before_ms);
        }
        self.minutes[usize::try_from(minute % 15).unwrap_or(0)]
    }
}

fn estimate(question: &Question<'_>, sums: &Sums, errors: &Errors, control: Option<&Columns>) -> Estimate {
    let quarter = question.start_ms / QUARTER_MS;
    let recent = control.map_or(1.0, |control| placebo::ratio(control.tally(quarter - 8, 8), 1.0));
    let unaffected_ratio = control.map_or(1.0, |_| placebo::ratio(sums.unaffected, recent));
    let own_ratio = errors.correction(placebo::before(question.group_columns, control, quarter));
    let scale = if sums.reporting_share >= EXTRAPOLATE_SHARE_MIN {
        1.0 / sums.reporting_share
    } else {
        1.0
    };
    let expected = sums.group.baseline * unaffected_ratio * own_ratio * scale;
    let actual = sums.group.actual * scale;
    let wide = if control.is_none() { NO_UNAFFECTED_WIDENING } else { 1.0 };
    let (lower, upper) = errors.interval(wide);
    let error = errors.usual() * wide;
    Estimate {
        expected,
        actual,
        lost: expected - actual,
        lost_lower: expected * lower.exp() - actual,
        lost_upper: expected * upper.exp() - actual,
        distinctness: (expected - actual) / (expected * error).max(1e-9),
        unaffected_ratio,
        own_ratio,
        error,
        basket_minor: errors.basket_minor,
    }
    .with_basket_noise(errors.basket_error)
}

impl Estimate {
    /// Baskets differ: the mean of few lost ones is less sure than that of all of the window.
    fn with_basket_noise(mut self, window_error: f64) -> Estimate {
        if self.lost <= 0.0 {
            return self;
        }
        let basket = 1.645 * self.lost * window_error * (self.expected / self.lost).sqrt();
        self.lost_lower = self.lost - (self.lost - self.lost_lower).hypot(basket);
        self.lost_upper = self.lost + (self.lost_upper - self.lost).hypot(basket);
        self
    }
}

fn answer(question: &Question<'_>, sums: &Sums, estimate: Estimate, without_unaffected: bool) -> Answer {
    let bar = if question.was_distinct {
        DISTINCT_KEEP
    } else {
        DISTINCT_MIN
    };
    let distinct = estimate.lost_lower > 0.0 && estimate.distinctness >= bar && estimate.basket_minor > 0.0;
    let state = match (distinct, without_unaffected) {
        (false, _) => PriceState::NotDistinguishable,
        (true, false) => PriceState::Costed,
        (true, true) => PriceState::CostedWithoutUnaffectedSites,
    };
    let mut answer = Answer::without(state, sums);
    if sums.dark_sites > 0 && sums.reporting_share >= EXTRAPOLATE_SHARE_MIN {
        answer
            .notes
            .push("the silent sites are taken to have lost like the others".to_owned());
    }
    if without_unaffected {
        answer.unaffected_sites_used = 0;
        answer
            .notes
            .push("no unaffected stores: expected sales come from the past alone".to_owned());
    }
    answer.cost = distinct.then(|| money(&estimate, question.currency));
    answer.lost_transactions = distinct.then(|| minor(estimate.lost));
    answer.estimate = Some(estimate);
    answer
}

fn money(estimate: &Estimate, currency: &str) -> Cost {
    Cost {
        estimate_minor: minor(estimate.lost * estimate.basket_minor),
        lower_minor: minor(estimate.lost_lower * estimate.basket_minor),
        upper_minor: minor(estimate.lost_upper * estimate.basket_minor),
        currency: currency.to_owned(),
        confidence: CONFIDENCE,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "saturates; no chain sells for 2^63 minor units an incident"
)]
fn minor(amount: f64) -> i64 {
    amount.round() as i64
}

impl Answer {
    fn without(state: PriceState, sums: &Sums) -> Answer {
        let mut notes = Vec::new();
        if sums.dark_sites > 0 {
            notes.push(format!(
                "{} affected sites are silent: their exposure is unknown",
                sums.dark_sites
            ));
        }
        notes.extend(match state {
            PriceState::Learning => Some("learning: too little history of sales for a price".to_owned()),
            PriceState::NoSales => Some("the affected sites report no sales".to_owned()),
            PriceState::NotDistinguishable => {
                Some("not distinguishable: what was lost is within the usual noise".to_owned())
            }
            _ => None,
        });
        let unaffected_sites_used = sums.unaffected_sites;
        Answer {
            state,
            cost: None,
            lost_transactions: None,
            estimate: None,
            unaffected_sites_used,
            dark_sites: sums.dark_sites,
            notes,
        }
    }
}
