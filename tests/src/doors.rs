//! Where bytes of others come in: one plain function for each, which any bytes must leave in good order.
//!
//! The tests run them over the corpora in `fuzz/corpus` with fixed mutations, `fuzz/` runs them under libFuzzer.

use std::io::{Cursor, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use tillwatch_agent::bundle;
use tillwatch_agent::config::Draft;
use tillwatch_agent::plugin::manifest::Manifest;
use tillwatch_border::frames::Frames;
use tillwatch_border::wire::{Output, Reply, TO_AGENT_BYTES_MAX};
use tillwatch_border::{
    Document, Fault, Host, Level, Limits, Lines, Listing, PeerFailure, PeerFault, Question, Reply as PeerReply,
    check_batch, check_descriptor, collect_on,
};
use tillwatch_core::sample::{Batch, Descriptor, Kind, Metric};
use tillwatch_core::{Core, LabelPolicy, Settings};

const NOW_MS: u64 = 1_772_451_000_000;
/// Messages of one plugin's call.
const MESSAGES_MAX: usize = 64;

/// A door with its corpus in `fuzz/corpus`. It says whether the bytes were taken for what they should be.
pub type Door = fn(&[u8]) -> bool;

/// All doors by name.
pub const DOORS: [(&str, Door); 4] = [
    ("manifest", manifest),
    ("bundle", plugin_bundle),
    ("output", output),
    ("settings", settings),
];

/// A `plugin.toml`.
///
/// # Panics
/// When what is taken has no name, or what is refused has no reason.
pub fn manifest(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    match Manifest::parse(Path::new("plugin.toml"), &text) {
        Ok(manifest) => {
            assert!(!manifest.name.is_empty() && !manifest.version.is_empty(), "{text}");
            true
        }
        Err(problems) => {
            assert!(!problems.0.is_empty(), "refused without a reason: {text}");
            false
        }
    }
}

/// An `agent.toml`. Its plugins and certificates are not there.
///
/// # Panics
/// When a problem has no text or no place in the file.
pub fn settings(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let problems = Draft::parse(Path::new("/nowhere/agent.toml"), &text).problems;
    let lines = text.split('\n').count() + 1;
    for problem in &problems.0 {
        assert!(
            !problem.what.is_empty() && problem.line <= lines,
            "{problem:?} of {text}"
        );
    }
    problems.0.is_empty()
}

/// A signed file, before its signature is looked at.
///
/// # Panics
/// When a component is longer than the file that it is in.
pub fn plugin_bundle(bytes: &[u8]) -> bool {
    let Ok(read) = bundle::parse(bytes) else {
        return false;
    };
    assert!(read.component_bytes <= bytes.len());
    true
}

/// What the plugins' process sends: frames, messages, answers to what it asks, batches, and what the registry makes of
/// these.
///
/// # Panics
/// When a value is neither counted nor refused, a bound is passed, or the host is asked too often.
pub fn output(bytes: &[u8]) -> bool {
    let mut host = Nothing::default();
    let is_batch = hear(bytes, &mut host).is_some_and(take_batch);
    assert!(host.asked <= LIMITS.asks_max + LIMITS.peer_asks_max, "{}", host.asked);
    assert!(host.state_bytes <= LIMITS.state_bytes_max, "{}", host.state_bytes);
    is_batch || first_descriptor(bytes).is_some_and(take_descriptor)
}

/// As much as a socket takes at once.
const HEARD_BYTES_MAX: usize = 64 << 10;
/// Nobody reads what is answered: whoever asks a lot is not waited for.
const LIMITS: Limits = Limits {
    call_ms_max: 100,
    ..Limits::DEFAULT
};

/// Through the agent's own end of a socket.
fn hear(bytes: &[u8], host: &mut Nothing) -> Option<Batch> {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
    let heard = &bytes[..bytes.len().min(HEARD_BYTES_MAX)];
    theirs.write_all(heard).expect("a socket takes so much");
    theirs.shutdown(Shutdown::Write).expect("it is open");
    collect_on(ours, host, &LIMITS).ok()
}

fn first_descriptor(bytes: &[u8]) -> Option<Descriptor> {
    let mut frames = Frames::new(Input(Cursor::new(bytes)), TO_AGENT_BYTES_MAX);
    for _message in 0..MESSAGES_MAX {
        if let Reply::Done(done) = frames.receive::<Reply>().ok()?
            && let Ok(Output::Descriptor(descriptor)) = done.result
        {
            return Some(descriptor.into());
        }
    }
    None
}

/// A host that has little, and counts how often it is asked.
#[derive(Default)]
struct Nothing {
    asked: usize,
    state_bytes: usize,
}

impl Host for Nothing {
    fn log(&mut self, _level: Level, message: &str) {
        assert!(message.len() <= LIMITS.log_bytes_max);
    }

    fn now_ms(&mut self) -> u64 {
        NOW_MS
    }

    fn state_get(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn state_set(&mut self, value: Vec<u8>) -> Result<(), String> {
        self.state_bytes = value.len();
        Ok(())
    }

    fn read_lines(&mut self, _source: &str, bytes_max: u32) -> Result<Lines, Fault> {
        self.asked += 1;
        let bytes = vec![b'\n'; usize::try_from(bytes_max.min(64)).unwrap_or(0)];
        Ok(Lines {
            bytes,
            ..Lines::default()
        })
    }

    fn next_document(&mut self, _source: &str) -> Result<Option<Document>, Fault> {
        self.asked += 1;
        Ok(None)
    }

    fn list_folder(&mut self, _source: &str) -> Result<Listing, Fault> {
        self.asked += 1;
        Ok(Listing::default())
    }

    fn ask_peer(&mut self, _name: &str, question: Question, _within: Duration) -> Result<PeerReply, PeerFailure> {
        self.asked += 1;
        assert!(question.is_bounded(), "{question:?}");
        Err(PeerFault::Unreachable.at_once())
    }
}

fn take_batch(batch: Batch) -> bool {
    if check_batch(&batch, &Limits::default()).is_err() {
        return false;
    }
    let mut core = core();
    let labels = LabelPolicy {
        pattern: Some("[a-z]+".to_owned()),
        ..LabelPolicy::default()
    };
    let labels = [("case".to_owned(), labels)].into();
    let key = core
        .declare("door", "0.1.0", vec![metric()], labels)
        .expect("the metric is a good one");
    let samples: usize = batch.series.iter().map(|series| series.times_ms.len()).sum();
    let accepted = core.on_batch(NOW_MS, key, batch, Vec::new());
    assert!(accepted.samples <= samples as u64, "{accepted:?} of {samples} samples");
    assert!(
        samples == 0 || accepted.samples + accepted.refused.total() > 0,
        "{samples} samples are lost in silence"
    );
    core.on_tick(NOW_MS + 3_600_000);
    drop(core.take_records());
    accepted.samples > 0
}

fn take_descriptor(descriptor: Descriptor) -> bool {
    if check_descriptor(&descriptor, &Limits::default()).is_err() {
        return false;
    }
    core()
        .declare("door", &descriptor.version, descriptor.metrics, [].into())
        .is_ok()
}

fn core() -> Core {
    Core::new(Settings {
        window_ms: 10_000,
        summary_ms: 60_000,
        time_zone: jiff::tz::TimeZone::UTC,
        calendar: Default::default(),
        agent_version: "0.1.0".to_owned(),
        limits: tillwatch_core::Limits::default(),
    })
}

fn metric() -> Metric {
    Metric {
        name: "door.value".to_owned(),
        unit: "1".to_owned(),
        kind: Kind::Gauge,
        help: String::new(),
        label_keys: vec!["case".to_owned()],
        role: String::new(),
        decimals: 3,
        currency: None,
    }
}

/// A stream that is only read.
struct Input<'a>(Cursor<&'a [u8]>);

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Input<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
