//! The golden payloads in `testdata/v1`: bytes, and what they say as JSON.
//!
//! They are written when missing or with `UPDATE=1`. Once a version is released its files only grow in number.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use tillwatch_feed::codec;

use crate::cases::{self, Payload};
use crate::json;

fn dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/v1")
}

/// Names and bytes of all golden payloads.
pub(crate) fn corpus() -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    write_missing()?;
    let mut corpus = Vec::new();
    for entry in fs::read_dir(dir())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "bin") {
            let name = path
                .file_stem()
                .and_then(|name| name.to_str())
                .context("a name")?
                .to_owned();
            corpus.push((name, fs::read(&path)?));
        }
    }
    corpus.sort();
    Ok(corpus)
}

fn write_missing() -> anyhow::Result<()> {
    fs::create_dir_all(dir())?;
    for (name, payload) in cases::all() {
        let (bytes, twin) = (dir().join(format!("{name}.bin")), dir().join(format!("{name}.json")));
        if crate::update() || !bytes.exists() {
            write_whole(&bytes, &payload.encode())?;
        }
        if crate::update() || !twin.exists() {
            write_whole(&twin, format!("{:#}\n", json::of(&payload)).as_bytes())?;
        }
    }
    Ok(())
}

/// By a file beside it, so that a test that runs at the same time reads all or nothing.
fn write_whole(path: &std::path::Path, bytes: &[u8]) -> anyhow::Result<()> {
    let beside = path.with_extension(format!("{:?}", std::thread::current().id()));
    fs::write(&beside, bytes)?;
    fs::rename(&beside, path).with_context(|| format!("writing {}", path.display()))
}

#[test]
fn golden_payloads_say_what_they_said() -> anyhow::Result<()> {
    let corpus = corpus()?;
    ensure!(
        corpus.len() >= cases::all().len(),
        "there are {} golden payloads",
        corpus.len()
    );
    for (name, bytes) in corpus {
        let payload = Payload::decode(&name, &bytes).with_context(|| format!("decoding {name}"))?;
        let twin: serde_json::Value = serde_json::from_slice(&fs::read(dir().join(format!("{name}.json")))?)?;
        ensure!(json::of(&payload) == twin, "{name} says {:#}", json::of(&payload));
        // Compressed bytes may change with the compressor; what is in them may not.
        ensure!(
            codec::protobuf(&payload.encode())? == codec::protobuf(&bytes)?,
            "{name} is written in another way"
        );
    }
    Ok(())
}

#[test]
fn today_s_cases_are_written_as_the_golden_ones() -> anyhow::Result<()> {
    let corpus = corpus()?;
    for (name, payload) in cases::all() {
        let (_, bytes) = corpus.iter().find(|(golden, _)| golden == name).context(name)?;
        ensure!(
            Payload::decode(name, bytes)? == payload,
            "{name} says something else today"
        );
        ensure!(
            codec::protobuf(&payload.encode())? == codec::protobuf(bytes)?,
            "{name} is written in another way"
        );
    }
    Ok(())
}
