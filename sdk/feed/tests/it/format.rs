//! The example in FORMAT.md is the golden one.

use std::path::Path;

use anyhow::{Context, ensure};
use tillwatch_feed::codec;

use crate::golden;

/// The bytes of the block between "```hex" and "```", without comments.
fn example(format: &str) -> anyhow::Result<Vec<u8>> {
    let (_, rest) = format.split_once("```hex\n").context("FORMAT.md has no example")?;
    let (lines, _) = rest.split_once("```").context("the example has no end")?;
    let digits: String = lines.lines().flat_map(|line| line.split('#').next()).collect();
    let digits: Vec<u8> = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let pairs = digits
        .chunks(2)
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?));
    pairs.collect()
}

#[test]
fn the_worked_example_of_the_format_is_the_golden_payload() -> anyhow::Result<()> {
    let format = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("FORMAT.md"))?;
    let example = example(&format)?;
    let corpus = golden::corpus()?;
    let (_, golden) = corpus
        .iter()
        .find(|(name, _)| name == "sum_worked_example")
        .context("the golden payload")?;
    ensure!(
        codec::protobuf(&example)? == codec::protobuf(golden)?,
        "other bytes than the golden payload"
    );
    ensure!(
        codec::decode(&example)? == codec::decode(golden)?,
        "another message than the golden payload"
    );
    Ok(())
}
