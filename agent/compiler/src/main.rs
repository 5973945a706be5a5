//! `tillwatch-compile [--memory BYTES] [--metered] IN.wasm OUT.cwasm [SHA256]`: a plugin's component comes in, native code for this
//! machine goes out.
//! `tillwatch-compile --names IN.wasm`: what it imports and exports, and the contract that it was built for, as lines
//! of a word and a value.
//!
//! `-` for `IN.wasm` is the standard input: the agent hands over the very bytes that it hashed, and their SHA-256, so
//! that what arrived in part is never taken for the whole.
//! A hostile plugin can make a compiler slow or large, so this runs as a short-lived process that limits itself
//! before it looks at its input. It never runs what it compiles, opens no socket and starts nothing.

mod admit;
#[path = "../../border/src/artifact.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "the agent reads the header that is written here"
)]
mod artifact;
mod contract;
#[path = "../../sandbox/src/engine.rs"]
mod engine;
mod limits;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail, ensure};
use wasmtime::Engine;

use artifact::{WASM_BYTES_MAX, sha256};

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
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let (memory_bytes_max, arguments) = match arguments.as_slice() {
        [option, bytes, rest @ ..] if option.as_os_str() == "--memory" => (number(bytes)?, rest),
        all => (limits::ADDRESS_SPACE_BYTES_MAX, all),
    };
    limits::limit_this_process(memory_bytes_max)?;
    let (is_metered, arguments) = match arguments {
        [option, rest @ ..] if option.as_os_str() == "--metered" => (true, rest),
        all => (false, all),
    };
    match arguments {
        [option, input] if option.as_os_str() == "--names" => print_names(input),
        [input, output] => compile_file(input, output, None, is_metered),
        [input, output, expected] => compile_file(input, output, Some(&expected.to_string_lossy()), is_metered),
        _ => bail!(
            "usage: tillwatch-compile [--memory BYTES] [--metered] IN.wasm OUT.cwasm [SHA256], or --names IN.wasm"
        ),
    }
}

fn number(argument: &Path) -> Result<u64> {
    let text = argument.to_string_lossy();
    text.parse().with_context(|| format!("{text} is no number of bytes"))
}

/// What does not hash to `expected` did not arrive whole.
fn compile_file(input: &Path, output: &Path, expected: Option<&str>, is_metered: bool) -> Result<()> {
    let name = shown(input);
    let wasm = read(input).with_context(|| format!("reading {name}"))?;
    let is_whole = expected.is_none_or(|expected| expected == sha256(&wasm));
    ensure!(is_whole, "{name} did not arrive as it was sent");
    admit::check(&wasm).with_context(|| format!("{name} is refused"))?;
    let code = compile(&wasm, is_metered).with_context(|| format!("compiling {name}"))?;
    write(output, &artifact::with_header(&code, is_metered)).with_context(|| format!("writing {}", output.display()))
}

fn print_names(input: &Path) -> Result<()> {
    let name = shown(input);
    let wasm = read(input).with_context(|| format!("reading {name}"))?;
    let names = admit::names(&wasm).with_context(|| name.clone())?;
    let mut lines = vec![format!("agent {}", contract::VERSION)];
    if let Some(version) = names.imports.iter().find_map(|import| contract::version_of(import)) {
        lines.push(format!("contract {version}"));
        lines.extend(contract::supported_until(version).map(|until| format!("supported {until}")));
    }
    lines.extend(
        names
            .imports
            .iter()
            .map(|name| format!("import {}", name.escape_debug())),
    );
    lines.extend(
        names
            .exports
            .iter()
            .map(|name| format!("export {}", name.escape_debug())),
    );
    lines.push(String::new());
    Ok(std::io::stdout().write_all(lines.join("\n").as_bytes())?)
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

fn compile(wasm: &[u8], is_metered: bool) -> Result<Vec<u8>> {
    let engine = Engine::new(&engine::config(artifact::WASM_STACK_BYTES_MAX, is_metered))
        .map_err(|error| anyhow!("{error:#}"))?;
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
