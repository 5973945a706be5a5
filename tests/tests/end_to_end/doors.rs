//! Every door that bytes of others come in by, over its kept corpus with fixed mutations.

use std::path::Path;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tillwatch_sdk::testing::mutated;
use tillwatch_tests::doors::{DOORS, Door};
use tillwatch_tests::parsers::PARSERS;
use tillwatch_tests::payloads::PAYLOADS;

const SEED: u64 = 20_261_123;
const MUTATIONS_PER_FILE: usize = 3_000;
/// Of the corpus of one parser.
const MUTATIONS_PER_PARSER: usize = 400;
/// So many seconds for each parser, with new seeds, in place of the fixed mutations.
const SECONDS: &str = "TILLWATCH_FUZZ_SECONDS";

#[test]
fn no_mutation_of_a_corpus_breaks_a_door() -> Result<()> {
    replay(&DOORS)
}

#[test]
fn no_mutation_of_a_payload_breaks_who_reads_it() -> Result<()> {
    replay(&PAYLOADS)
}

fn replay(doors: &[(&str, Door)]) -> Result<()> {
    println!("seed {SEED}");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, door) in doors {
        let mut files = Vec::new();
        for file in std::fs::read_dir(corpus.join(name)).with_context(|| format!("the corpus of {name}"))? {
            files.push(file?.path());
        }
        files.sort();
        ensure!(files.len() >= 3, "the corpus of {name} has {} files", files.len());
        let mut taken = 0;
        for file in &files {
            let bytes = std::fs::read(file)?;
            let file_name = file.file_name().context("a file")?.to_string_lossy();
            let is_taken = door(&bytes);
            // What is good and what is not stands in the name, but for what a fuzzer found.
            ensure!(
                file_name.starts_with("found-") || is_taken != file_name.starts_with("bad-"),
                "{} is taken otherwise",
                file.display()
            );
            taken += mutate(*door, &bytes);
        }
        ensure!(
            taken > MUTATIONS_PER_FILE / 100,
            "mutations reach nothing behind the door of {name}"
        );
    }
    Ok(())
}

/// How many mutations of the bytes are taken.
fn mutate(door: Door, bytes: &[u8]) -> usize {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut taken = 0;
    for _mutation in 0..MUTATIONS_PER_FILE {
        let mut mutated = bytes.to_vec();
        for _change in 0..random.usize(1..4) {
            let at = random.usize(..mutated.len());
            match random.u8(..4) {
                0 => mutated[at] = random.u8(..),
                1 => mutated[at] ^= 1 << random.u8(..8),
                2 => mutated.insert(at, random.u8(..)),
                _ if mutated.len() > 1 => drop(mutated.remove(at)),
                _ => {}
            }
        }
        taken += usize::from(door(&mutated));
    }
    taken
}

#[test]
fn no_mutation_of_a_stores_input_breaks_a_parser() -> Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let seconds: Option<u64> = std::env::var(SECONDS).ok().map(|text| text.parse()).transpose()?;
    for (name, door) in PARSERS {
        let mut files = Vec::new();
        for file in std::fs::read_dir(corpus.join(name)).with_context(|| format!("the corpus of {name}"))? {
            files.push(std::fs::read(file?.path())?);
        }
        files.sort();
        let corpus: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
        // Each of them: some are kept for what they once found, and are nothing that a store has.
        let well: Vec<&[u8]> = corpus.iter().copied().filter(|file| door(file)).collect();
        ensure!(!well.is_empty(), "{name} takes nothing of its corpus");
        let begun = Instant::now();
        let (mut seed, mut runs, mut taken) = (SEED, 0, 0);
        loop {
            println!("{name}: seed {seed}");
            mutated(&corpus, seed, MUTATIONS_PER_PARSER / 2).for_each(|bytes| {
                door(&bytes);
            });
            let near = mutated(&well, seed, MUTATIONS_PER_PARSER / 2);
            taken += near.filter(|bytes| door(bytes)).count();
            runs += MUTATIONS_PER_PARSER / 2;
            if seconds.is_none_or(|seconds| begun.elapsed() >= Duration::from_secs(seconds)) {
                break;
            }
            seed += 2;
        }
        ensure!(taken > runs / 100, "{name} takes {taken} of {runs} mutations");
    }
    Ok(())
}
