//! A clean store: thirty series of four kinds over weeks, in windows of ten seconds, without any incident.
//!
//! In: a seed, and whether what is usual but not the same each week happens: a public holiday, a week of promotion, a
//! nightly job, an update of the system, a series that starts late, missing windows. Out: a value or none per series.
//! Its clock is that of Berlin, and twelve weeks hold the change to daylight saving and two holidays.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use tillwatch_core::detect::{Shape, Slot};

use super::random::Random;
use super::{DAY, WINDOW_MS};

/// Monday, 26 January 2026, at midnight in Berlin.
pub(crate) const START_MS: u64 = 1_769_382_000_000;

/// Windows in a half-hour.
const HALF_HOUR: u64 = 180;

/// Of the year that is simulated: Good Friday and Easter Monday.
const HOLIDAYS: [(i8, i8); 2] = [(4, 3), (4, 6)];

/// What a series measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Count,
    Gauge,
    Latency,
    Queue,
}

pub(crate) const KINDS: [Kind; 4] = [Kind::Count, Kind::Gauge, Kind::Latency, Kind::Queue];

/// How a series behaves. Rates and means are those at a load of 1, which is an ordinary hour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Spec {
    /// Events of customers, so many a window; their rate wanders by this share.
    Events { rate: f64, wander: f64 },
    /// Their amounts in cents.
    Amount { rate: f64 },
    /// Events that have nothing to do with customers.
    Machine { rate: f64 },
    /// 95th percentile of the durations of so many calls a window, in microseconds; none without a call. A prober calls
    /// by night, too.
    Latency { us: f64, calls: f64, prober: bool },
    /// Mean of six readings of a queue.
    Queue { mean: f64, wander: f64 },
    /// A level in hundredths: its base, what load adds, how it wanders and its noise.
    Level {
        base: f64,
        load: f64,
        wander: f64,
        noise: f64,
    },
    /// A share in hundredths of a percent.
    Share { part: f64, of: f64 },
}

impl Spec {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Spec::Events { .. } | Spec::Amount { .. } | Spec::Machine { .. } => Kind::Count,
            Spec::Latency { .. } => Kind::Latency,
            Spec::Queue { .. } => Kind::Queue,
            Spec::Level { .. } | Spec::Share { .. } => Kind::Gauge,
        }
    }

    pub(crate) fn shape(self) -> Shape {
        match self.kind() {
            Kind::Count => Shape::Count,
            Kind::Gauge => Shape::Level,
            Kind::Latency => Shape::Latency,
            Kind::Queue => Shape::Depth,
        }
    }
}

const fn events(rate: f64, wander: f64) -> Spec {
    Spec::Events { rate, wander }
}

const fn latency(us: f64, calls: f64) -> Spec {
    Spec::Latency {
        us,
        calls,
        prober: false,
    }
}

const fn prober(us: f64) -> Spec {
    Spec::Latency {
        us,
        calls: 1.0,
        prober: true,
    }
}

const fn level(base: f64, load: f64, wander: f64, noise: f64) -> Spec {
    Spec::Level {
        base,
        load,
        wander,
        noise,
    }
}

const fn queue(mean: f64, wander: f64) -> Spec {
    Spec::Queue { mean, wander }
}

/// The series of a store; each store differs from it by a factor per series.
pub(crate) const SPECS: [Spec; 30] = [
    events(3.0, 0.1),
    events(0.8, 0.1),
    events(0.3, 0.2),
    events(0.05, 0.2),
    events(12.0, 0.1),
    events(0.01, 0.5),
    Spec::Amount { rate: 3.0 },
    Spec::Amount { rate: 0.5 },
    Spec::Machine { rate: 1.0 },
    Spec::Machine { rate: 0.02 },
    latency(80_000.0, 3.0),
    latency(400_000.0, 1.0),
    latency(5_000.0, 12.0),
    latency(1_200_000.0, 0.2),
    latency(20_000.0, 0.5),
    prober(30_000.0),
    prober(2_000.0),
    prober(150_000.0),
    queue(4.0, 0.3),
    queue(0.5, 0.5),
    queue(20.0, 0.2),
    queue(1.5, 0.3),
    level(1_500.0, 2_000.0, 100.0, 150.0),
    level(5_000.0, 500.0, 20.0, 10.0),
    level(2_200.0, 100.0, 5.0, 5.0),
    level(100.0, 100.0, 10.0, 20.0),
    level(7_000.0, 0.0, 1.0, 1.0),
    Spec::Share { part: 0.02, of: 3.0 },
    Spec::Share { part: 0.3, of: 12.0 },
    Spec::Share { part: 0.9, of: 1.0 },
];

/// One series: what it remembers.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) spec: Spec,
    random: Random,
    factor: f64,
    /// Wanders within minutes, and within a day.
    quick: f64,
    slow: f64,
    /// Windows from here to there have no value.
    gap: (u64, u64),
}

/// What one window is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scene {
    pub(crate) window: u64,
    pub(crate) start_ms: u64,
    pub(crate) slot: Slot,
    /// Of customers; 0 while closed.
    load: f64,
    /// A nightly job runs.
    job: bool,
    /// The system is slower since an update.
    updated: bool,
}

impl Scene {
    pub(crate) fn is_open(&self) -> bool {
        self.load > 0.0
    }
}

/// The clock and the customers of a store.
#[derive(Clone, Debug)]
pub(crate) struct Calendar {
    zone: TimeZone,
    random: Random,
    /// Holidays, promotion, job and update happen.
    eventful: bool,
    window: u64,
    slot: Slot,
    /// Local time at the begin of the half-hour, in hours.
    hour: f64,
    date: Date,
    /// Of this day.
    busy: f64,
    job_hour: f64,
    promoted_week: u64,
    update_day: u64,
}

impl Calendar {
    pub(crate) fn new(seed: u64, eventful: bool) -> Calendar {
        let mut random = Random::new(seed);
        let promoted_week = 3 + (random.uniform() * 8.0) as u64;
        let update_day = 10 + (random.uniform() * 60.0) as u64;
        Calendar {
            zone: TimeZone::get("Europe/Berlin").expect("the machine knows Berlin"),
            random,
            eventful,
            window: 0,
            slot: Slot { day: 0, week: 0 },
            hour: 0.0,
            date: Date::default(),
            busy: 1.0,
            job_hour: 2.0,
            promoted_week,
            update_day,
        }
    }

    pub(crate) fn next(&mut self) -> Scene {
        let start_ms = START_MS + self.window * u64::from(WINDOW_MS);
        if self.window.is_multiple_of(HALF_HOUR) {
            self.enter(start_ms);
        }
        let hour = self.hour + (self.window % HALF_HOUR) as f64 / 360.0;
        let scene = Scene {
            window: self.window,
            start_ms,
            slot: self.slot,
            load: self.load(hour),
            job: self.eventful && (self.job_hour..self.job_hour + 0.4).contains(&hour),
            updated: self.eventful && self.window / DAY >= self.update_day,
        };
        self.window += 1;
        scene
    }

    fn enter(&mut self, start_ms: u64) {
        self.slot = Slot::at(start_ms, &self.zone);
        let time = jiff::Timestamp::from_millisecond(i64::try_from(start_ms).unwrap_or(0)).unwrap_or_default();
        self.hour = self.slot.day as f64 / 2.0;
        let date = self.zone.to_datetime(time).date();
        if date != self.date {
            self.date = date;
            self.busy = libm::exp(0.08 * self.random.normal());
            self.job_hour = 2.0 + 0.3 * self.random.uniform();
        }
    }

    /// Closed from 21 to 7 and on Sundays, peaks at noon and at 17; Saturdays are busy, and more so before a holiday.
    fn load(&self, hour: f64) -> f64 {
        let weekday = self.slot.week / 48;
        let holiday = self.eventful && HOLIDAYS.contains(&(self.date.month(), self.date.day()));
        if !(7.0..21.0).contains(&hour) || weekday == 6 || holiday {
            return 0.0;
        }
        let bump = |at: f64| libm::exp(-(hour - at) * (hour - at) / 4.0);
        let promoted = self.eventful && self.window / (7 * DAY) == self.promoted_week;
        let day = if weekday == 5 { 1.3 } else { 1.0 };
        (0.5 + 0.6 * bump(12.0) + 0.7 * bump(17.0)) * day * self.busy * if promoted { 1.4 } else { 1.0 }
    }
}

impl Series {
    pub(crate) fn new(spec: Spec, seed: u64) -> Series {
        let mut random = Random::new(seed ^ 0x005E_41E5);
        let factor = libm::exp(0.3 * random.normal());
        Series {
            spec,
            random,
            factor,
            quick: 0.0,
            slow: 0.0,
            gap: (0, 0),
        }
    }

    /// As the specification says, without a factor of its own.
    pub(crate) fn exact(spec: Spec, seed: u64) -> Series {
        Series {
            factor: 1.0,
            ..Series::new(spec, seed)
        }
    }

    /// Has no values before this window.
    pub(crate) fn from(mut self, window: u64) -> Series {
        self.gap = (0, window);
        self
    }

    /// Now and then a window is missing, and about every three weeks some hours are.
    pub(crate) fn missing(&mut self, scene: &Scene) -> bool {
        if scene.window >= self.gap.1 && self.random.uniform() < 1.0 / (21.0 * DAY as f64) {
            let long = 1 + (self.random.uniform() * 2_000.0) as u64;
            self.gap = (scene.window, scene.window + long);
        }
        (self.gap.0..self.gap.1).contains(&scene.window) || self.random.uniform() < 5e-4
    }

    /// The window's value in whole units; `incident` multiplies what the series measures.
    pub(crate) fn value(&mut self, scene: &Scene, incident: f64) -> Option<f64> {
        self.quick = 0.9 * self.quick + 0.436 * self.random.normal();
        self.slow = 0.9995 * self.slow + 0.0316 * self.random.normal();
        let by = self.factor * incident;
        let load = scene.load;
        let strain = if scene.job { 1.5 } else { 1.0 } * if scene.updated { 1.1 } else { 1.0 };
        match self.spec {
            Spec::Events { rate, wander } => {
                let rate = rate * by * load * libm::exp(wander * self.slow);
                Some(self.random.poisson(rate))
            }
            Spec::Amount { rate } => {
                let baskets = self.random.poisson(rate * by * load) as u64;
                Some(
                    (0..baskets)
                        .map(|_| (2_000.0 * libm::exp(0.7 * self.random.normal())).round())
                        .sum(),
                )
            }
            Spec::Machine { rate } => Some(self.random.poisson(rate * by)),
            Spec::Latency { us, calls, prober } => {
                let calls = if prober {
                    calls
                } else {
                    self.random.poisson(calls * load)
                };
                let usual = us * by * strain * libm::exp(0.2 * load + 0.1 * self.slow + 0.1 * self.quick);
                self.percentile(calls, usual)
            }
            Spec::Queue { mean, wander } => {
                let mean = mean * by * strain * (0.3 + load) * libm::exp(wander * self.quick);
                Some(((0..6).map(|_| self.random.poisson(mean)).sum::<f64>() / 6.0 * 1e3).round() / 1e3)
            }
            Spec::Level {
                base,
                load: per_load,
                wander,
                noise,
            } => {
                let level = (base + per_load * load) * strain * by + wander * (self.quick + 3.0 * self.slow);
                Some((level + noise * self.random.normal()).round().clamp(0.0, 10_000.0))
            }
            Spec::Share { part, of } => {
                let of = self.random.poisson(of * (0.2 + load));
                let hits = (0..of as u64).filter(|_| self.random.uniform() < part * by).count();
                (of > 0.0).then(|| (hits as f64 / of * 10_000.0).round())
            }
        }
    }

    /// The 95th percentile of at most a dozen calls; one in five hundred is slow for reasons of its own.
    fn percentile(&mut self, calls: f64, usual: f64) -> Option<f64> {
        let calls = calls.min(12.0) as usize;
        let mut slowest = None;
        for _ in 0..calls {
            let own = libm::exp(0.4 * self.random.normal());
            let stuck = self.random.uniform();
            let tail = if stuck < 0.002 {
                3.0 / (stuck * 500.0).sqrt()
            } else {
                1.0
            };
            let call = (usual * own * tail).round();
            slowest = Some(slowest.map_or(call, |slowest: f64| slowest.max(call)));
        }
        slowest
    }
}

/// The series of a store; one of them is only declared in the fifth week.
pub(crate) fn series(seed: u64) -> Vec<Series> {
    let make = |(at, spec): (usize, &Spec)| {
        let series = Series::new(*spec, seed * 1_000 + at as u64);
        if at as u64 == seed % 30 {
            series.from(35 * DAY)
        } else {
            series
        }
    };
    SPECS.iter().enumerate().map(make).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenes(seed: u64, eventful: bool, days: u64) -> Vec<Scene> {
        let mut calendar = Calendar::new(seed, eventful);
        (0..days * DAY).map(|_| calendar.next()).collect()
    }

    #[test]
    fn a_store_opens_by_its_local_clock_on_both_sides_of_the_change() {
        let scenes = scenes(3, true, 70);
        let opened = |day: u64| {
            let begin = usize::try_from(day * DAY).unwrap();
            scenes[begin..].iter().position(|scene| scene.load > 0.0).unwrap() as u64 % DAY
        };
        assert_eq!(opened(0), 7 * 360);
        assert_eq!(opened(63), 6 * 360, "an hour less by the clock of the world");
        assert_eq!(scenes[usize::try_from(66 * DAY + 12 * 360).unwrap()].slot.week / 48, 3);
        assert!(
            scenes[usize::try_from(67 * DAY).unwrap()..usize::try_from(67 * DAY + 8_000).unwrap()]
                .iter()
                .all(|scene| scene.load == 0.0),
            "Good Friday"
        );
    }

    #[test]
    fn the_same_seed_is_the_same_store() {
        let values = |seed: u64| -> Vec<Option<f64>> {
            let mut all = series(seed);
            let scenes = scenes(seed, true, 1);
            let one = |scene: &Scene| {
                all.iter_mut()
                    .map(|series| series.value(scene, 1.0))
                    .collect::<Vec<_>>()
            };
            scenes.iter().step_by(97).flat_map(one).collect()
        };
        assert_eq!(values(5), values(5));
        assert_ne!(values(5), values(6));
        assert!(
            values(5)
                .iter()
                .flatten()
                .all(|value| value.is_finite() && *value >= 0.0)
        );
    }

    #[test]
    fn every_kind_is_in_a_store() {
        for kind in KINDS {
            assert!(SPECS.iter().filter(|spec| spec.kind() == kind).count() >= 4, "{kind:?}");
        }
    }
}
