//! Writes `sdk/feed/src/proto.rs` from `feed.proto`: `cargo run --manifest-path sdk/feed/generate/Cargo.toml`.
//!
//! The first line of what it writes holds the SHA-256 of `feed.proto` and of the code after that line; the tests of the
//! feed compare both, so that neither file is changed alone.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

fn main() -> Result<()> {
    let feed = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let proto = feed.join("feed.proto");
    let code = generate(&feed, &proto)?;
    let text = fs::read(&proto).with_context(|| format!("reading {}", proto.display()))?;
    let committed = feed.join("src/proto.rs");
    let first = format!("// @generated from {} as {}", hash(&text), hash(code.as_bytes()));
    fs::write(&committed, format!("{first}\n{code}")).with_context(|| format!("writing {}", committed.display()))
}

fn generate(feed: &Path, proto: &Path) -> Result<String> {
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    fs::create_dir_all(&out)?;
    let files = protox::compile([proto], [feed]).context("compiling feed.proto")?;
    prost_build::Config::new()
        .out_dir(&out)
        .compile_fds(files)
        .context("generating code")?;
    fs::read_to_string(out.join("tillwatch.feed.v1.rs")).context("reading what was generated")
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
