//! `src/proto.rs` is what protox and prost-build make of `feed.proto`; `UPDATE=1` writes it anew.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

#[test]
fn the_generated_code_is_in_step_with_the_proto() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("feed-proto");
    fs::create_dir_all(&out)?;
    let files = protox::compile([root.join("feed.proto")], [root]).context("compiling feed.proto")?;
    prost_build::Config::new()
        .out_dir(&out)
        .compile_fds(files)
        .context("generating code")?;
    let fresh = fs::read_to_string(out.join("tillwatch.feed.v1.rs"))?;
    let committed = root.join("src/proto.rs");
    if super::update() {
        fs::write(&committed, fresh)?;
        return Ok(());
    }
    ensure!(
        fs::read_to_string(&committed)? == fresh,
        "src/proto.rs is not what feed.proto says; hint: UPDATE=1"
    );
    Ok(())
}
