//! `tillwatch-compile IN.wasm OUT.cwasm`: a plugin's component comes in, native code for this machine goes out.
//!
//! `-` for `IN.wasm` is the standard input: the agent hands over the very bytes that it hashed.
//! A hostile plugin can make a compiler slow or large, so this runs as a short-lived process that limits itself
//! before it looks at its input. It never runs what it compiles, opens no socket and starts nothing.

mod admit;
#[path = "../../sandbox/src/engine.rs"]
#[expect(dead_code, reason = "the sandbox reads the header that is written here")]
mod engine;
mod limits;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail, ensure};
use wasmtime::Engine;

/// A larger plugin is refused unread.
const WASM_BYTES_MAX: u64 = 16 * 1024 * 1024;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let [input, output] = arguments()?;
    limits::limit_this_process()?;
    let name = shown(&input);
    let wasm = read(&input).with_context(|| format!("reading {name}"))?;
    admit::check(&wasm).with_context(|| format!("{name} is refused"))?;
    let code = compile(&wasm).with_context(|| format!("compiling {name}"))?;
    write(&output, &engine::with_header(&code)).with_context(|| format!("writing {}", output.display()))
}

fn arguments() -> Result<[PathBuf; 2]> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    match <[PathBuf; 2]>::try_from(paths) {
        Ok(paths) => Ok(paths),
        Err(_) => bail!("usage: tillwatch-compile IN.wasm OUT.cwasm"),
    }
}

fn is_standard_input(path: &Path) -> bool {
    path == Path::new("-")
}

fn shown(path: &Path) -> String {
    if is_standard_input(path) {
        "the plugin".to_owned()
    } else {
        path.display().to_string()
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if is_standard_input(path) {
        read_bounded(std::io::stdin())
    } else {
        read_bounded(File::open(path)?)
    }
}

fn read_bounded(input: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(WASM_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() as u64 <= WASM_BYTES_MAX,
        "it has more than {WASM_BYTES_MAX} bytes"
    );
    Ok(bytes)
}

fn compile(wasm: &[u8]) -> Result<Vec<u8>> {
    let engine = Engine::new(&engine::config()).map_err(|error| anyhow!("{error:#}"))?;
    engine.precompile_component(wasm).map_err(|error| anyhow!("{error:#}"))
}

/// Writes beside the target and renames, so that nobody ever reads half an artifact.
fn write(path: &Path, artifact: &[u8]) -> Result<()> {
    let name = path.file_name().context("it has no file name")?.to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let result = write_new(&temporary, artifact).and_then(|()| Ok(fs::rename(&temporary, path)?));
    if result.is_err() && temporary.exists() {
        fs::remove_file(&temporary).context("removing the half-written file")?;
    }
    result
}

fn write_new(path: &Path, artifact: &[u8]) -> Result<()> {
    let mut file: File = owner_only().open(path)?;
    file.write_all(artifact)?;
    Ok(file.sync_all()?)
}

/// The sandbox takes no artifact that others may write.
fn owner_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
