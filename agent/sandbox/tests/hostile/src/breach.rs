//! Plugins that count lines and break one promise of the contract each: what `tillwatch plugin test` must find.

use std::cell::Cell;

use tillwatch_sdk::{Batch, Descriptor, Error, Host, Level, Lines, PeerFailure, PeerFault, TcpRequest};

use super::{Behavior, metric};

const READ_BYTES_MAX: u32 = 256 * 1024;
/// More than a case has.
const LARGE_BYTES: usize = 64 * 1024;
/// Takes longer than a store's deadline on any machine.
const WORK: u64 = 1_000_000_000;
/// Of the state.
const VERSION: u8 = 2;

/// What an instance remembers, which a good one would keep as its state.
#[derive(Default)]
pub(super) struct Memory {
    described: Cell<u32>,
    now_ms: u64,
    calls: u64,
}

impl Memory {
    pub(super) fn drift(&self, descriptor: &mut Descriptor) {
        self.described.set(self.described.get() + 1);
        descriptor
            .attrs
            .push(("described".to_owned(), self.described.get().to_string()));
    }
}

pub(super) fn collect(behavior: Behavior, memory: &mut Memory, host: &mut dyn Host) -> Result<Batch, Error> {
    let lines = match behavior {
        Behavior::Greedy => read_all(host)?,
        Behavior::Zero => host.read_lines("input", READ_BYTES_MAX).unwrap_or_default(),
        Behavior::Brittle => host.read_lines("input", READ_BYTES_MAX).expect("the log is there"),
        _ => host.read_lines("input", READ_BYTES_MAX)?,
    };
    let count = i64::try_from(lines.iter().count()).unwrap_or(i64::MAX);
    let mut batch = Batch::default();
    batch.more = lines.more && behavior != Behavior::ReadOnce;
    let now_ms = host.now_ms();
    if count > 0 || behavior == Behavior::Zero {
        batch.push_integer(metric::HOSTILE_LINES, &[], count, now_ms);
    }
    match behavior {
        Behavior::Invent => batch.push_integer(metric::HOSTILE_VALUE, &["invented"], 1, now_ms),
        Behavior::Label => batch.push_integer(metric::HOSTILE_VALUE, &["4111111111111111"], 1, now_ms),
        Behavior::Greedy => lines
            .iter()
            .for_each(|_line| batch.push_integer(metric::HOSTILE_VALUE, &["line"], 1, now_ms)),
        Behavior::Proud => assert!(now_ms >= memory.now_ms, "time only goes forward"),
        Behavior::Twice => count_kept(memory, host, &mut batch, count)?,
        Behavior::Trustful => keep_calls(host)?,
        Behavior::Reliant => assert!(!is_down(connect(host)), "the peer always answers"),
        Behavior::Offended if is_down(connect(host)) => return Err(Error::permanent("the peer is away")),
        Behavior::Versioned => keep_version(host)?,
        Behavior::Echo => strange(&lines).for_each(|line| host.log(Level::Info, &format!("what is {line}?"))),
        Behavior::EchoLast => assert!(strange(&lines).next().is_none(), "{:?}", strange(&lines).next()),
        Behavior::Slow if memory.calls == 0 && lines.bytes.len() > LARGE_BYTES => work(),
        _ => {}
    }
    memory.now_ms = now_ms;
    memory.calls += 1;
    Ok(batch)
}

fn strange(lines: &Lines) -> impl Iterator<Item = String> {
    let known = ["one", "two", "three"].map(str::as_bytes);
    let strange = lines.iter().filter(move |line| !known.contains(line));
    strange.map(|line| String::from_utf8_lossy(line).into_owned())
}

fn connect(host: &mut dyn Host) -> Option<PeerFault> {
    let nothing = TcpRequest {
        bytes: Vec::new(),
        until: None,
        bytes_max: 0,
    };
    let failure: Option<PeerFailure> = host.tcp("peer", nothing).err();
    failure.map(|failure| failure.fault)
}

fn is_down(fault: Option<PeerFault>) -> bool {
    fault.is_some_and(PeerFault::is_peers)
}

fn read_all(host: &mut dyn Host) -> Result<Lines, Error> {
    let mut all = host.read_lines("input", READ_BYTES_MAX)?;
    while all.more {
        let lines = host.read_lines("input", READ_BYTES_MAX)?;
        all.bytes.extend(lines.bytes);
        all.more = lines.more;
    }
    Ok(all)
}

fn count_kept(memory: &Memory, host: &mut dyn Host, batch: &mut Batch, count: i64) -> Result<(), Error> {
    let kept = i64::from(host.state().first().copied().unwrap_or(0));
    if memory.calls == 0 && kept > 0 {
        batch.push_integer(metric::HOSTILE_LINES, &[], kept, host.now_ms());
    }
    host.set_state(&[u8::try_from(kept + count).unwrap_or(u8::MAX)])
}

fn keep_calls(host: &mut dyn Host) -> Result<(), Error> {
    let state = host.state();
    let text = std::str::from_utf8(&state).expect("what was kept is text");
    let calls: u64 = if text.is_empty() {
        0
    } else {
        text.parse().expect("a number")
    };
    host.set_state((calls + 1).to_string().as_bytes())
}

/// Begins anew with what it cannot read, but for the one version that it should know.
fn keep_version(host: &mut dyn Host) -> Result<(), Error> {
    let state = host.state();
    assert!(
        state.first() != Some(&(VERSION - 1)),
        "the state is of the version before"
    );
    host.set_state(&[VERSION, 0])
}

fn work() {
    // Each step waits for the one before, however well it is compiled.
    let mut sum = 1_u64;
    for step in 0..WORK {
        sum = std::hint::black_box(sum.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step));
    }
}
