//! `src/proto.rs` is what `generate/` makes of `feed.proto`: its first line holds the SHA-256 of both.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};

#[test]
fn the_generated_code_is_in_step_with_the_proto() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let proto = fs::read(root.join("feed.proto"))?;
    let generated = fs::read_to_string(root.join("src/proto.rs"))?;
    let (first, code) = generated.split_once('\n').context("src/proto.rs is empty")?;
    ensure!(
        first == format!("// @generated from {} as {}", hash(&proto), hash(code.as_bytes())),
        "src/proto.rs is not what feed.proto says; hint: cargo run --manifest-path sdk/feed/generate/Cargo.toml"
    );
    Ok(())
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
