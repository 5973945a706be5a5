//! The program itself: what did not arrive whole never becomes an artifact.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use sha2::{Digest, Sha256};

fn compile(wasm: &[u8], artifact: &Path, hash: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tillwatch-compile"))
        .args([Path::new("-"), artifact, Path::new(hash)])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program was built for this test");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(wasm).expect("the program reads all of it");
    drop(input);
    child.wait_with_output().expect("it ends")
}

/// A component that is cut behind one of its sections is a component, too.
#[test]
fn a_plugin_that_arrived_in_part_never_gets_the_name_of_the_whole() {
    let part = wat::parse_str("(component)").unwrap();
    let whole = wat::parse_str("(component (core module))").unwrap();
    assert!(whole.starts_with(&part));
    let hash: String = Sha256::digest(&whole)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let artifact = folder.path().join("plugin.cwasm");
    let refused = compile(&part, &artifact, &hash);
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("did not arrive"),
        "{refused:?}"
    );
    assert!(!artifact.exists());
    assert!(compile(&whole, &artifact, &hash).status.success());
    assert!(artifact.exists());
}
