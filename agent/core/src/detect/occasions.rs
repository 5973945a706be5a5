//! The judge on a simulated store whose calendar it is told, beside one that is told nothing; from printed seeds.

use std::collections::BTreeMap;

use jiff::civil::{Date, date};
use jiff::tz::TimeZone;

use super::calendar::{Calendar, Hours, SpecialDay};
use super::{Finding, Judge, Shape, Verdict, to_f32};

const WINDOW_MS: u64 = 300_000;
const DAY: u64 = 288;
/// Monday, 2 March 2026, midnight in Berlin; the clock goes forward on the 29th.
const START_MS: u64 = 1_772_406_000_000;

/// A store that is open from 8 to 20 on weekdays and Saturdays.
struct Store {
    zone: TimeZone,
    told: Calendar,
    judge: Judge,
    random: u64,
    findings: Vec<(Date, Finding)>,
}

impl Store {
    fn new(told: Calendar, seed: u64) -> Store {
        println!("seed {seed}");
        Store {
            zone: TimeZone::get("Europe/Berlin").unwrap(),
            told,
            judge: Judge::new(Shape::Count, u32::try_from(WINDOW_MS).unwrap()),
            random: seed,
            findings: Vec::new(),
        }
    }

    fn uniform(&mut self) -> f32 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        to_f32(u32::try_from(self.random >> 40).unwrap()) / 16_777_216.0
    }

    fn poisson(&mut self, mean: f32) -> f64 {
        let (mut left, mut count) = (mean, 0.0);
        loop {
            left += self.uniform().max(1e-9).ln();
            if left < 0.0 {
                return count;
            }
            count += 1.0;
        }
    }

    /// Days of windows; `factor` of the local date and minute.
    fn run(&mut self, days: std::ops::Range<u64>, factor: impl Fn(Date, i32) -> f32) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for window in days.start * DAY..days.end * DAY {
            let start_ms = START_MS + window * WINDOW_MS;
            let time = jiff::Timestamp::from_millisecond(i64::try_from(start_ms).unwrap()).unwrap();
            let local = self.zone.to_datetime(time);
            let minute = i32::from(local.hour()) * 60 + i32::from(local.minute());
            let open = (480..1_200).contains(&minute) && local.weekday().to_monday_zero_offset() != 6;
            let usual = if open { 1.0 } else { 0.0 };
            let factor = factor(local.date(), minute);
            let mean = if factor < 0.0 { -factor } else { 30.0 * usual * factor };
            let actual = self.poisson(mean);
            let place = self.told.at(start_ms, &self.zone);
            verdicts.extend(self.judge.step_on(place, start_ms, Some(actual)));
            let finding = self.judge.take_finding().filter(|finding| finding.revision == 1);
            self.findings.extend(finding.map(|finding| (local.date(), finding)));
        }
        verdicts
    }
}

fn week() -> Calendar {
    let hours = vec![Hours {
        from_min: 480,
        to_min: 1_200,
    }];
    Calendar {
        week: Some(std::array::from_fn(
            |day| if day == 6 { Vec::new() } else { hours.clone() },
        )),
        ..Calendar::default()
    }
}

fn closed_on(day: Date) -> impl Fn(Date, i32) -> f32 {
    move |date, _minute| if date == day { 0.0 } else { 1.0 }
}

#[test]
fn a_holiday_that_is_told_is_no_finding_and_the_week_after_expects_what_was_usual() {
    let holiday = date(2026, 3, 24);
    let told = Calendar {
        days: BTreeMap::from([(holiday, SpecialDay::Closed)]),
        ..week()
    };
    let mut store = Store::new(told, 1);
    store.run(0..35, closed_on(holiday));
    assert!(store.findings.is_empty(), "{:?}", store.findings);
    let mut untold = Store::new(Calendar::default(), 1);
    untold.run(0..35, closed_on(holiday));
    assert!(
        untold.findings.iter().any(|(day, _)| *day == holiday),
        "{:?}",
        untold.findings
    );
}

#[test]
fn a_promotion_that_is_told_is_no_finding_teaches_nothing_and_does_not_hide_a_stop() {
    let (first, last) = (date(2026, 3, 26), date(2026, 3, 27));
    let told = Calendar {
        promotions: vec![(first, last)],
        ..week()
    };
    let busy = move |date: Date, minute: i32| match date {
        _ if date == last && (960..1_000).contains(&minute) => 0.0,
        _ if (first..=last).contains(&date) => 2.0,
        _ => 1.0,
    };
    let mut store = Store::new(told, 2);
    store.run(0..25, busy);
    let friday = |store: &Store| store.judge.detector.baseline.week[4 * 48 + 15..4 * 48 + 41].to_vec();
    let before = friday(&store);
    store.run(25..26, busy);
    assert_eq!(friday(&store), before);
    store.run(26..33, busy);
    let of: Vec<(Date, bool)> = store
        .findings
        .iter()
        .map(|(day, finding)| (*day, finding.effect < 0.0))
        .collect();
    assert_eq!(of, [(last, true)], "{:?}", store.findings);
    let mut untold = Store::new(week(), 2);
    untold.run(0..25, busy);
    assert!(
        untold.findings.iter().any(|(day, _)| *day == first),
        "{:?}",
        untold.findings
    );
}

#[test]
fn some_sales_at_night_are_found_at_once_and_what_is_closed_expects_none_from_the_first_day() {
    let night = |date_at: Date, minute: i32| {
        let is_night = date_at == date(2026, 3, 25) && (120..180).contains(&minute);
        if is_night { -1.0 } else { 1.0 }
    };
    let mut store = Store::new(week(), 3);
    let first_day = store.run(0..1, night);
    assert!(
        first_day[..80].iter().all(|verdict| verdict.expected < 1e-6),
        "before 6:40 nothing is expected"
    );
    store.run(1..28, night);
    assert_eq!(store.findings.len(), 1, "{:?}", store.findings);
    let (day, finding) = store.findings[0];
    assert!(
        day == date(2026, 3, 25) && finding.actual >= 1.0 && finding.expected < 1e-6,
        "{finding:?}"
    );
}
