//! What happens to the chains of `bench impact`: everything but the kind of case is drawn from the seed.

use fastrand::Rng;
use tillwatch_central::simulate::scenario::{ChainShape, Event, Mechanism, Must, Scenario};

/// A chain's day.
pub(crate) struct Case {
    pub(crate) about: String,
    pub(crate) scenario: Scenario,
}

/// Where a shift is told from: one chain in three lets customers queue.
fn mechanism(seed: u64) -> Mechanism {
    if seed.is_multiple_of(3) {
        Mechanism::Queuing
    } else {
        Mechanism::Statistical
    }
}

fn scenario(seed: u64, regions: Vec<usize>, from_minute: u32, minutes: u32, events: Vec<Event>) -> Scenario {
    Scenario {
        about: String::new(),
        from_minute,
        minutes,
        mechanism: mechanism(seed),
        weekday: u32::try_from(seed % 7).unwrap_or(0),
        oddness: 1.0,
        chain: ChainShape {
            regions,
            per_minute: 1.6,
            time_zone: "UTC".to_owned(),
            first_day: 0,
            depots: Vec::new(),
            skewed: Vec::new(),
        },
        events,
        must: Must::default(),
    }
}

fn fault(regions: Vec<usize>, from_minute: u32, minutes: u32, loss: f64, slow: &[&str]) -> Event {
    Event {
        regions,
        stores: Vec::new(),
        from_minute,
        minutes,
        flaps: None,
        slow: slow.iter().map(|service| (*service).to_owned()).collect(),
        factor: 6.0,
        leak: None,
        loss,
        dark: false,
        lift: None,
        cause: None,
    }
}

const LINK: [&str; 3] = ["checkout", "loyalty", "mainframe-link"];

/// One incident of 30 stores beside 30 others, at any hour and weekday; the story goes on until ten minutes after its end.
pub(crate) fn one(seed: u64, loss: f64, oddness: f64) -> Case {
    let mut random = Rng::with_seed(seed);
    let from = random.u32(600..1_080);
    let minutes = random.u32(30..75);
    let mut events = vec![fault(vec![0], from, minutes, loss, &LINK)];
    if oddness > 1.0 {
        let mut holiday = fault(Vec::new(), 0, 1_440, 0.0, &[]);
        holiday.lift = Some(0.5 + random.f64());
        events.push(holiday);
    }
    let mut scenario = scenario(seed, vec![30, 6, 6, 6, 6, 6], from - 60, minutes + 70, events);
    scenario.oddness = oddness;
    let day = if oddness > 1.0 {
        "a holiday that nobody knew of"
    } else {
        "an ordinary day"
    };
    let about = format!(
        "30 of 60 stores lose {:.0} % for 30 to 75 minutes on {day}",
        100.0 * loss
    );
    Case { about, scenario }
}

/// Eight incidents at once in regions of different size, and four regions without.
pub(crate) fn eight(seed: u64) -> Case {
    let mut random = Rng::with_seed(seed);
    let regions: Vec<usize> = (0..12).map(|_| random.usize(6..36)).collect();
    let from = random.u32(600..1_080);
    let mut events: Vec<Event> = Vec::new();
    for region in 0..8 {
        let late = random.u32(0..10);
        let mut event = fault(vec![region], from + late, 50 - late, 0.1 + 0.5 * random.f64(), &LINK);
        event.factor = 3.0 + 9.0 * random.f64();
        events.push(event);
    }
    let scenario = scenario(seed, regions, from - 60, 112, events);
    let about = "8 of 12 regions of 6 to 35 stores have faults that lose 10 to 60 %; looked at after 40 to 50 minutes"
        .to_owned();
    Case { about, scenario }
}

/// Two incidents of two regions that overlap for half of their time.
pub(crate) fn overlap(seed: u64) -> Case {
    let mut random = Rng::with_seed(seed);
    let from = random.u32(600..1_080);
    let mut loss = || 0.3 + 0.3 * random.f64();
    let events = vec![
        fault(vec![0], from, 45, loss(), &LINK),
        fault(vec![1], from + 20, 45, loss(), &LINK),
    ];
    let scenario = scenario(seed, vec![20, 20, 6, 6, 6, 6], from - 60, 135, events);
    let about =
        "2 of 6 regions, 20 stores each, lose 30 to 60 % for 45 minutes, the second 20 minutes later; looked at after both".to_owned();
    Case { about, scenario }
}

/// The payment provider of all stores.
pub(crate) fn chain(seed: u64) -> Case {
    let mut random = Rng::with_seed(seed);
    let from = random.u32(600..1_080);
    let events = vec![fault(Vec::new(), from, 45, 0.35, &["checkout", "payment"])];
    let scenario = scenario(seed, vec![10; 6], from - 60, 115, events);
    let about = "the payment provider of all 60 stores fails for 45 minutes and 35 % leave".to_owned();
    Case { about, scenario }
}

/// Ten hours in which nothing happens.
pub(crate) fn noise(seed: u64) -> Case {
    let scenario = scenario(seed, vec![30; 10], 9 * 60, 600, Vec::new());
    let about = "300 stores over ten open hours without any fault".to_owned();
    Case { about, scenario }
}
