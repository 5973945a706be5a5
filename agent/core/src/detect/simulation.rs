//! The judge on simulated stores, from printed seeds: is a p-value what it says, is an incident found, how often is
//! there a finding without one?

use jiff::tz::TimeZone;

use super::*;

const WINDOW_MS: u32 = 10_000;
const DAY: usize = 8_640;
/// A Monday at midnight UTC.
const START_MS: u64 = 1_767_571_200_000;

struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let bits = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 12;
        (bits as f64 + 0.5) / (1_u64 << 52) as f64
    }

    fn normal(&mut self) -> f64 {
        libm::sqrt(-2.0 * libm::log(self.uniform())) * libm::cos(std::f64::consts::TAU * self.uniform())
    }

    fn poisson(&mut self, mean: f64) -> f64 {
        let (mut product, mut n) = (self.uniform(), 0.0);
        let limit = libm::exp(-mean);
        while product > limit {
            product *= self.uniform();
            n += 1.0;
        }
        n
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Sales in a window: about 3 by day, more on Saturdays, none by night.
    Sales,
    /// The same in cents.
    Amount,
    /// 95th percentile of durations, in microseconds.
    Latency,
    /// Mean depth of a queue, about 4.
    Queue,
    /// Share of a processor in use, in hundredths of a percent.
    Processor,
}

const KINDS: [Kind; 5] = [Kind::Sales, Kind::Amount, Kind::Latency, Kind::Queue, Kind::Processor];

impl Kind {
    fn shape(self) -> Shape {
        match self {
            Kind::Sales | Kind::Amount => Shape::Count,
            Kind::Latency => Shape::Latency,
            Kind::Queue => Shape::Depth,
            Kind::Processor => Shape::Level,
        }
    }
}

/// A simulated series; `factor` is what an incident does to it.
struct Series {
    kind: Kind,
    random: Random,
    day_factor: f64,
    slow: f64,
}

impl Series {
    fn value(&mut self, window: usize, factor: f64) -> f64 {
        if window.is_multiple_of(DAY) {
            self.day_factor = libm::exp(0.08 * self.random.normal());
        }
        let load = load(window) * self.day_factor;
        let r = &mut self.random;
        match self.kind {
            Kind::Sales => r.poisson(3.0 * load * factor),
            Kind::Amount => {
                let baskets = r.poisson(3.0 * load * factor);
                let mut cents = 0.0;
                let mut left = baskets;
                while left > 0.5 {
                    cents += (2_000.0 * libm::exp(0.7 * r.normal())).round();
                    left -= 1.0;
                }
                cents
            }
            Kind::Latency => {
                self.slow = 0.7 * self.slow + 0.1 * r.normal();
                (80_000.0 * factor * libm::exp(0.3 * load + self.slow + 0.2 * r.normal())).round()
            }
            Kind::Queue => {
                self.slow = 0.8 * self.slow + 0.3 * r.normal();
                let mean = 4.0 * (0.3 + load) * libm::exp(self.slow) * factor;
                (0..6).map(|_| r.poisson(mean)).sum::<f64>() / 6.0
            }
            Kind::Processor => {
                self.slow = 0.9 * self.slow + 100.0 * r.normal();
                (1_500.0 + 2_000.0 * load * factor + self.slow + 150.0 * r.normal()).clamp(0.0, 10_000.0)
            }
        }
    }
}

/// A store's day: closed from 21 to 7, peaks at noon and at 17; Saturdays are busy, Sundays closed.
fn load(window: usize) -> f64 {
    let (hour, weekday) = ((window % DAY) as f64 / 360.0, window / DAY % 7);
    if !(7.0..21.0).contains(&hour) || weekday == 6 {
        return 0.0;
    }
    let bump = |at: f64| libm::exp(-(hour - at) * (hour - at) / 4.0);
    (0.5 + 0.6 * bump(12.0) + 0.7 * bump(17.0)) * if weekday == 5 { 1.3 } else { 1.0 }
}

struct Run {
    detector: Detector,
    alarm: Alarm,
    series: Series,
    pace: Pace,
    window: usize,
    /// Windows that opened one.
    findings: Vec<usize>,
}

impl Run {
    fn new(kind: Kind, seed: u64) -> Run {
        Run {
            detector: Detector::new(kind.shape(), None),
            alarm: Alarm::default(),
            series: Series {
                kind,
                random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
                day_factor: 1.0,
                slow: 0.0,
            },
            pace: Pace::new(WINDOW_MS),
            window: 0,
            findings: Vec::new(),
        }
    }

    fn step(&mut self, factor: f64) -> Verdict {
        let start_ms = START_MS + self.window as u64 * u64::from(WINDOW_MS);
        let value = self.series.value(self.window, factor);
        let slot = Slot::at(start_ms, &TimeZone::UTC);
        let verdict = self.detector.step(&self.pace, slot, start_ms, value, &mut self.alarm);
        if let Some((finding, false)) = self.alarm.take_news()
            && finding.revision == 1
        {
            self.findings.push(self.window);
        }
        self.window += 1;
        verdict
    }

    fn clean(&mut self, windows: usize) -> Vec<Verdict> {
        (0..windows).map(|_| self.step(1.0)).collect()
    }
}

#[test]
fn on_clean_data_p_values_are_what_they_say_and_findings_are_rare() {
    let (mut findings, mut days) = (0, 0);
    for kind in KINDS {
        let (mut at_05, mut at_01, mut n) = (0.0, 0.0, 0.0);
        let mut of_kind = 0;
        for seed in 1..=3 {
            let mut run = Run::new(kind, seed);
            run.clean(14 * DAY);
            let judged = run.clean(7 * DAY);
            assert!(
                judged.iter().all(|verdict| verdict.state == ScoreState::Ok),
                "{kind:?} is still warming"
            );
            let below = |limit: f64| {
                judged
                    .iter()
                    .filter(|verdict| f64::from(verdict.log10_p) <= libm::log10(limit))
                    .count()
            };
            at_05 += below(0.05) as f64;
            at_01 += below(0.01) as f64;
            n += judged.len() as f64;
            of_kind += run.findings.len();
            days += 13;
        }
        println!(
            "{kind:?} seeds 1..=3: p<=.05 {:.4}, p<=.01 {:.4}, {of_kind} findings since the ninth day",
            at_05 / n,
            at_01 / n
        );
        assert!((0.025..=0.1).contains(&(at_05 / n)), "{kind:?} at .05");
        assert!((0.005..=0.02).contains(&(at_01 / n)), "{kind:?} at .01");
        findings += of_kind;
    }
    let per_store_day = 30.0 * f64::from(u32::try_from(findings).unwrap()) / f64::from(days);
    println!("{findings} findings in {days} series-days: {per_store_day:.2} per day of a store with 30 series");
    assert!(per_store_day <= 2.0);
}

/// Windows from the start of a 45-minute incident on the third Thursday at 11:30 to the finding.
fn delay(kind: Kind, seed: u64, factor: f64) -> Option<usize> {
    let mut run = Run::new(kind, seed);
    run.clean(17 * DAY + 11 * 360 + 180);
    run.findings.clear();
    let start = run.window;
    for _ in 0..270 {
        run.step(factor);
    }
    run.findings.first().map(|at| at - start + 1)
}

#[test]
fn a_slow_service_a_full_queue_and_missing_sales_are_found() {
    let cases = [
        (Kind::Latency, 3.0, 5),
        (Kind::Queue, 5.0, 18),
        (Kind::Sales, 0.0, 30),
        (Kind::Sales, 0.5, 180),
        (Kind::Amount, 0.0, 30),
        (Kind::Processor, 2.5, 20),
    ];
    for (kind, factor, windows_max) in cases {
        let delays: Vec<Option<usize>> = (11..=15).map(|seed| delay(kind, seed, factor)).collect();
        println!("{kind:?} times {factor}, seeds 11..=15: found after {delays:?} windows");
        let found = delays
            .iter()
            .filter(|delay| delay.is_some_and(|windows| windows <= windows_max))
            .count();
        assert!(found >= 4, "{kind:?} times {factor}: {delays:?}");
    }
}

/// Windows from the end of such an incident until its alarm is off.
fn release(kind: Kind, seed: u64, factor: f64) -> usize {
    let mut run = Run::new(kind, seed);
    run.clean(17 * DAY + 11 * 360 + 180);
    for _ in 0..270 {
        run.step(factor);
    }
    (0..).take_while(|_| run.step(1.0).alarm).count()
}

#[test]
fn an_alarm_ends_soon_after_what_raised_it() {
    const QUIET: usize = 12;
    for (kind, factor) in [(Kind::Latency, 3.0), (Kind::Queue, 5.0), (Kind::Processor, 2.5)] {
        let released: Vec<usize> = (11..=15).map(|seed| release(kind, seed, factor)).collect();
        println!("{kind:?} times {factor}, seeds 11..=15: off after {released:?} windows");
        assert!(
            released.iter().all(|windows| *windows <= 2 * QUIET),
            "{kind:?}: {released:?}"
        );
    }
}

#[test]
fn a_rest_of_the_past_and_a_restart_change_no_bit() {
    for kind in [Kind::Latency, Kind::Processor] {
        let mut run = Run::new(kind, 5);
        run.clean(4 * DAY);
        let proto = super::super::checkpoint::detector_proto(1, &run.detector);
        let mut copy = super::super::checkpoint::detector_from(&proto).unwrap().1;
        for window in 0..500_u32 {
            let slot = Slot { day: 3, week: 3 };
            let value = f64::from(window % 7) * 10_000.0;
            let mut alarm = run.alarm;
            let before = run.detector.step(&run.pace, slot, 0, value, &mut run.alarm);
            assert_eq!(copy.step(&run.pace, slot, 0, value, &mut alarm), before);
        }
        assert_eq!(copy, run.detector);
    }
}

#[test]
fn the_first_scores_do_not_depend_on_what_comes_later() {
    for kind in [Kind::Queue, Kind::Processor] {
        let mut whole = Run::new(kind, 9);
        let all: Vec<Verdict> = whole.clean(9 * DAY);
        let mut prefix = Run::new(kind, 9);
        assert_eq!(prefix.clean(8 * DAY), all[..8 * DAY]);
    }
}

/// FNV-1a of all that was said, bit by bit.
fn digest(digest: u64, verdict: &Verdict) -> u64 {
    let singles = [verdict.log10_p, verdict.effect, verdict.severity, verdict.anomaly_score];
    let singles = singles.map(|number| u64::from(number.to_bits()));
    let doubles = [verdict.expected, verdict.actual].map(f64::to_bits);
    let words = singles.into_iter().chain(doubles).chain([u64::from(verdict.alarm)]);
    words.fold(digest, |digest, word| (digest ^ word).wrapping_mul(0x0100_0000_01b3))
}

/// Of ten days of each kind and three hours in which all is twice as much. Computed on x86-64; any machine that says
/// something else computes other bits.
const DIGESTS: [(Kind, u64); 5] = [
    (Kind::Sales, 0x1d77_bcf9_0f98_7c30),
    (Kind::Amount, 0x5b7a_35a0_af97_770b),
    (Kind::Latency, 0xed61_0468_7fda_b7da),
    (Kind::Queue, 0x64dc_15fc_1bef_3ecd),
    (Kind::Processor, 0xbe1d_4c69_9471_5fac),
];

#[test]
fn every_machine_says_the_same_bits() {
    let digests = DIGESTS.map(|(kind, _)| {
        let mut run = Run::new(kind, 21);
        let days = run.clean(10 * DAY + 11 * 360);
        let incident: Vec<Verdict> = (0..1_080).map(|_| run.step(2.0)).collect();
        (kind, days.iter().chain(&incident).fold(0xcbf2_9ce4_8422_2325, digest))
    });
    assert_eq!(digests, DIGESTS, "{digests:#x?}");
}

#[test]
fn a_series_fits_into_four_kilobytes() {
    let bytes = std::mem::size_of::<Detector>();
    println!("{bytes} bytes a series");
    assert!(bytes <= 4_096);
}

#[test]
fn wild_values_leave_the_judge_sound() {
    for kind in [Kind::Amount, Kind::Processor] {
        let mut run = Run::new(kind, 3);
        run.clean(DAY);
        for value in [f64::MAX, -1e18, 9.2e18, 0.0, -1.0] {
            let slot = Slot { day: 3, week: 3 };
            let verdict = run.detector.step(&run.pace, slot, 0, value, &mut run.alarm);
            assert!(verdict.log10_p.is_finite() && verdict.effect.is_finite() && verdict.expected.is_finite());
            assert!((0.0..=1.0).contains(&verdict.anomaly_score));
        }
        assert!(run.clean(DAY).iter().all(|verdict| verdict.effect.is_finite()));
    }
}
