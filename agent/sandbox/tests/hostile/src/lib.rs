//! A plugin that misbehaves on demand: the behavior comes in as a setting, harm should not go out.

mod attack;
mod breach;

use std::collections::BTreeMap;
use std::hint::black_box;

use serde::Deserialize;
use serde::de::IgnoredAny;
use tillwatch_sdk::{Batch, Collector, Descriptor, Error, Host, Level};

use attack::Attack;

tillwatch_sdk::plugin!();

#[derive(Deserialize)]
struct Settings {
    behavior: Act,
    /// Of those that need more than a behavior.
    size: Option<i64>,
    till: Option<String>,
    /// What it does not know.
    #[serde(flatten)]
    others: BTreeMap<String, IgnoredAny>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Act {
    Behavior(Behavior),
    Attack(Attack),
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Behavior {
    /// One value per line of the input; the state counts the calls.
    Report,
    /// Nothing at all.
    Idle,
    /// The settings are refused.
    Refuse,
    Loop,
    Memory,
    Recursion,
    Panic,
    /// 16 MiB in one label.
    HugeLabel,
    /// 5,000 series.
    ManySeries,
    /// 1,000 log lines of 4 KiB.
    Logs,
    /// 1 MiB of state.
    HugeState,
    /// Reads until the host refuses.
    Reads,
    /// Puts each line of the input wherever something may go out: labels, numbers, log lines.
    Leak,
    /// Says that it failed, with the first line of the input.
    LeakError,
    /// Says that it failed.
    Fail,
    /// Counts the lines, and keeps the whole contract.
    Count,
    /// Takes settings that it does not know.
    Lenient,
    /// Describes itself otherwise at each call.
    Drift,
    /// Reports a label that plugin.toml does not allow.
    Label,
    /// Reports what nobody measured.
    Invent,
    /// Never says that there is more.
    ReadOnce,
    /// Reads all that there is in one call.
    Greedy,
    /// Panics when the clock goes back.
    Proud,
    /// Counts what it kept once more when it starts.
    Twice,
    /// Panics when it did not write its state itself.
    Trustful,
    /// Panics when a peer does not answer.
    Reliant,
    /// Is done for good when a peer does not answer.
    Offended,
    /// Panics when a version before wrote its state.
    Versioned,
    /// Does without a setting that plugin.toml requires.
    Lax,
    /// Panics at a size that is beyond any sense.
    Narrow,
    /// Reports a zero for a source that it could not read.
    Zero,
    /// Panics when its source is missing.
    Brittle,
    /// Takes longer for a large piece than a store allows.
    Slow,
    /// Logs each line that it does not know, whole.
    Echo,
    /// Panics with a line that it does not know.
    EchoLast,
}

struct Hostile {
    act: Act,
    calls: u32,
    memory: breach::Memory,
}

impl Collector for Hostile {
    type Settings = Settings;

    fn new(settings: Settings, _host: &mut dyn Host) -> Result<Self, Error> {
        match settings.behavior {
            Act::Behavior(Behavior::Narrow) => {
                let size = settings.size.unwrap_or(1);
                black_box(u32::try_from(size).expect("a size"));
            }
            Act::Behavior(Behavior::Refuse) => return Err(Error::config("x".repeat(5_000))),
            Act::Behavior(Behavior::Lenient) => {}
            // A good plugin would refuse its absence.
            Act::Behavior(Behavior::Lax) => drop(settings.till),
            Act::Behavior(_) if !settings.others.is_empty() => {
                return Err(Error::config("a setting that is unknown"));
            }
            Act::Behavior(_) => {}
            Act::Attack(attack) => attack.configure()?,
        }
        Ok(Self {
            act: settings.behavior,
            calls: 0,
            memory: breach::Memory::default(),
        })
    }

    fn collect(&mut self, host: &mut dyn Host) -> Result<Batch, Error> {
        self.calls += 1;
        let behavior = match self.act {
            Act::Behavior(behavior) => behavior,
            Act::Attack(attack) => return attack.collect(self.calls, host),
        };
        match behavior {
            Behavior::Report => report(host),
            Behavior::Idle | Behavior::Refuse => Ok(Batch::default()),
            Behavior::Loop => endless(),
            Behavior::Memory => memory(),
            Behavior::Recursion => Ok(labeled(&recursion(1).to_string())),
            Behavior::Panic => panic_now(),
            Behavior::HugeLabel => Ok(labeled(&"x".repeat(16 << 20))),
            Behavior::ManySeries => Ok(many_series()),
            Behavior::Logs => Ok(logs(host)),
            Behavior::HugeState => host.set_state(&vec![1; 1 << 20]).map(|()| Batch::default()),
            Behavior::Reads => reads(host),
            Behavior::Leak => leak(host),
            Behavior::LeakError => leak_error(host),
            Behavior::Fail => Err(Error::transient("the till is away")),
            behavior => breach::collect(behavior, &mut self.memory, host),
        }
    }

    fn describe(&self, descriptor: &mut Descriptor) {
        match self.act {
            Act::Behavior(Behavior::Report) => descriptor.metrics[0].currency = Some("EUR".to_owned()),
            Act::Behavior(Behavior::Drift) => self.memory.drift(descriptor),
            Act::Behavior(_) => {}
            Act::Attack(attack) => attack.describe(descriptor),
        }
    }
}

fn report(host: &mut dyn Host) -> Result<Batch, Error> {
    let calls = host.state().first().copied().unwrap_or(0) + 1;
    host.set_state(&[calls])?;
    let lines = host.read_lines("input", 1024)?;
    let mut batch = Batch::default();
    for line in lines.iter() {
        let text = String::from_utf8_lossy(line);
        batch.push_integer(metric::HOSTILE_VALUE, &[&text], i64::from(calls), host.now_ms());
        batch.push_real(metric::HOSTILE_VALUE, &[&text], 0.5, host.now_ms());
    }
    batch.more = lines.more;
    Ok(batch)
}

fn endless() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

fn memory() -> ! {
    let mut kept = Vec::new();
    loop {
        kept.push(black_box(vec![1_u8; 1 << 20]));
    }
}

fn recursion(depth: u64) -> u64 {
    if depth == u64::MAX {
        return depth;
    }
    let frame = black_box([depth; 64]);
    frame[7] + recursion(black_box(depth + 1))
}

fn panic_now() -> ! {
    let none: Option<u8> = black_box(None);
    none.expect("the drawer is stuck");
    endless()
}

fn labeled(label: &str) -> Batch {
    let mut batch = Batch::default();
    batch.push_real(metric::HOSTILE_VALUE, &[label], 1.0, 1);
    batch
}

fn many_series() -> Batch {
    let mut batch = Batch::default();
    for index in 0..5_000 {
        batch.push_real(metric::HOSTILE_VALUE, &[&index.to_string()], 1.0, 1);
    }
    batch
}

fn logs(host: &mut dyn Host) -> Batch {
    for _ in 0..1_000 {
        host.log(Level::Info, &"é".repeat(2_000));
    }
    Batch::default()
}

fn reads(host: &mut dyn Host) -> Result<Batch, Error> {
    loop {
        host.read_lines("input", u32::MAX)?;
    }
}

fn leak(host: &mut dyn Host) -> Result<Batch, Error> {
    let lines = host.read_lines("input", 16 << 10)?;
    // Of the past, so that reading it later is as good.
    let now_ms = host.now_ms().saturating_sub(600_000);
    let mut batch = Batch::default();
    for line in lines.iter() {
        let text = String::from_utf8_lossy(line);
        host.log(Level::Info, &text);
        batch.push_integer(metric::HOSTILE_VALUE, &[&text], 1_000, now_ms);
        if let Ok(number) = text.parse() {
            batch.push_integer(metric::HOSTILE_VALUE, &["whole"], number, now_ms);
        }
        if let Ok(number) = text.parse() {
            batch.push_real(metric::HOSTILE_VALUE, &["real"], number, now_ms);
        }
    }
    host.set_state(&lines.bytes)?;
    batch.more = lines.more;
    Ok(batch)
}

fn leak_error(host: &mut dyn Host) -> Result<Batch, Error> {
    let lines = host.read_lines("input", 1 << 10)?;
    let first = lines.iter().next().map(String::from_utf8_lossy);
    first.map_or(Ok(Batch::default()), |line| {
        Err(Error::transient(format!("cannot read <{line}>")))
    })
}

tillwatch_sdk::export_prober!(Hostile);
