//! Where bytes of others come in: one plain function for each, which any bytes must leave in good order.
//!
//! The tests run them over the corpora in `fuzz/corpus` with fixed mutations, `fuzz/` runs them under libFuzzer.

use std::io::{Cursor, Read, Write};
use std::path::Path;

use tillwatch_agent::bundle;
use tillwatch_agent::config::Draft;
use tillwatch_agent::plugin::manifest::Manifest;
use tillwatch_border::frames::Frames;
use tillwatch_border::wire::{Output, Reply, TO_AGENT_BYTES_MAX};
use tillwatch_border::{Limits, check_batch, check_descriptor};
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

/// What the plugins' process sends: frames, messages, batches, and what the registry makes of these.
///
/// # Panics
/// When a value is neither counted nor refused, or a bound is passed.
pub fn output(bytes: &[u8]) -> bool {
    let mut frames = Frames::new(Input(Cursor::new(bytes)), TO_AGENT_BYTES_MAX);
    let mut is_taken = false;
    for _message in 0..MESSAGES_MAX {
        let Ok(reply) = frames.receive::<Reply>() else {
            break;
        };
        if let Reply::Done(done) = reply {
            is_taken |= match done.result {
                Ok(Output::Batch(batch)) => Batch::try_from(batch).is_ok_and(take_batch),
                Ok(Output::Descriptor(descriptor)) => take_descriptor(descriptor.into()),
                _ => false,
            };
        }
    }
    is_taken
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
