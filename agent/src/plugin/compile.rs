//! From a plugin's `.wasm` to loadable code: compiled by the child `tillwatch-compile`, kept in a cache.
//!
//! In: the component's bytes. Out: code for the plugins' process. The agent itself holds no compiler and no engine.
//! The child gets the bytes that were hashed: a file that is exchanged meanwhile changes nothing.
//! The cache is `state_dir/cache/<sha256 of the wasm>.cwasm`; what is not taken (another engine, damaged)
//! is compiled again, and what no plugin needs any more is removed. Only our own child writes there.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tillwatch_border::Code;
use tracing::info;

use super::program;
use crate::bundle::{WASM_BYTES_MAX, read_bounded, sha256};

/// A backstop: the child limits its own processor time; a slow old machine under load takes half a minute.
const COMPILE_TIME_MAX: Duration = Duration::from_secs(300);
const COMPILE_POLL: Duration = Duration::from_millis(20);
/// Of what the compiler says when it refuses.
const MESSAGE_BYTES_MAX: u64 = 4 << 10;
const HINT: &str = "\nhint: the agent starts with all of its plugins or not at all; build this one smaller, or take it out of agent.toml";

/// Loads plugins, compiling what is not in the cache.
pub struct Loader {
    cache: PathBuf,
    used: BTreeMap<PathBuf, Arc<Code>>,
}

impl Loader {
    /// Makes the cache folder, for our user only.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(state_dir: &Path) -> Result<Self> {
        let cache = state_dir.join("cache");
        make_private_folder(&cache).with_context(|| format!("making {}", cache.display()))?;
        Ok(Self {
            cache,
            used: BTreeMap::new(),
        })
    }

    /// Loads a component; of a bundle only the bytes that were `verified`, named by their sha256.
    /// The same component is the same code.
    ///
    /// # Errors
    /// When the file cannot be read or was exchanged, the compiler refuses it, or what came out is not what it should be.
    pub fn load(&mut self, wasm: &Path, verified: Option<&str>) -> Result<Arc<Code>> {
        let (bytes, hash) = find(wasm, verified)?;
        let compiled = self.place(&hash);
        if let Some(code) = self.used.get(&compiled) {
            return Ok(Arc::clone(code));
        }
        match Code::open(&compiled) {
            Ok(code) => Ok(self.keep(compiled, code)),
            Err(_missing_or_unfit) => self.compile(wasm, bytes, &hash),
        }
    }

    /// As `load`, but compiled in any case: the engine did not take what was in the cache.
    ///
    /// # Errors
    /// See `load`.
    pub fn load_anew(&mut self, wasm: &Path, verified: Option<&str>) -> Result<Arc<Code>> {
        let (bytes, hash) = find(wasm, verified)?;
        self.compile(wasm, bytes, &hash)
    }

    fn place(&self, hash: &str) -> PathBuf {
        self.cache.join(format!("{hash}.cwasm"))
    }

    fn compile(&mut self, wasm: &Path, bytes: Vec<u8>, hash: &str) -> Result<Arc<Code>> {
        let compiled = self.place(hash);
        let begun = Instant::now();
        compile(bytes, hash, &compiled).with_context(|| format!("compiling {}", wasm.display()))?;
        info!(wasm = %wasm.display(), ms = begun.elapsed().as_millis(), "plugin compiled");
        let code = Code::open(&compiled);
        let code = code.with_context(|| format!("loading what was compiled from {}", wasm.display()))?;
        Ok(self.keep(compiled, code))
    }

    fn keep(&mut self, compiled: PathBuf, code: Code) -> Arc<Code> {
        let code = Arc::new(code);
        self.used.insert(compiled, Arc::clone(&code));
        code
    }

    /// Removes what was not used since this loader was made.
    ///
    /// # Errors
    /// When the cache cannot be listed or a file cannot be removed.
    pub fn remove_unused(&self) -> Result<()> {
        for entry in std::fs::read_dir(&self.cache)? {
            let path = entry?.path();
            if !self.used.contains_key(&path) {
                std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// What a component imports, exports and was built for; read by the child, since the file may come from anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Names {
    /// Of this agent.
    pub agent: String,
    /// None when it imports nothing of the contract.
    pub contract: Option<String>,
    /// The last month; none when this agent does not know the contract.
    pub supported_until: Option<String>,
    pub imports: Vec<String>,
    pub exports: Vec<String>,
}

/// # Errors
/// When the file cannot be read or is no component.
pub fn names(wasm: &Path) -> Result<Names> {
    let compiler = program::find(program::COMPILER)?;
    let output = Command::new(&compiler)
        .arg("--names")
        .arg(wasm)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {}", compiler.display()))?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", message.trim());
    Ok(read_names(&String::from_utf8_lossy(&output.stdout)))
}

fn read_names(text: &str) -> Names {
    let mut names = Names::default();
    for (word, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        let value = value.to_owned();
        match word {
            "agent" => names.agent = value,
            "contract" => names.contract = Some(value),
            "supported" => names.supported_until = Some(value),
            "import" => names.imports.push(value),
            "export" => names.exports.push(value),
            _ => {}
        }
    }
    names
}

/// The component and its hash.
fn find(wasm: &Path, verified: Option<&str>) -> Result<(Vec<u8>, String)> {
    let bytes = read_bounded(wasm, WASM_BYTES_MAX).with_context(|| format!("reading {}", wasm.display()))?;
    let hash = sha256(&bytes);
    let is_verified = verified.is_none_or(|verified| verified == hash);
    ensure!(is_verified, "{} was exchanged after it was verified", wasm.display());
    Ok((bytes, hash))
}

fn make_private_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// The child compares the hash, so that what it got of the bytes is all of them.
fn compile(wasm: Vec<u8>, hash: &str, compiled: &Path) -> Result<()> {
    let mut command = Command::new(program::find(program::COMPILER)?);
    command.args([Path::new("-"), compiled, Path::new(hash)]);
    run(command, wasm)
}

/// Runs the child, which limits its own time and memory; here it is only waited for, and ended when it hangs.
fn run(mut command: Command, wasm: Vec<u8>) -> Result<()> {
    let mut child = command
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    let writer = child.stdin.take().map(|input| feed(input, wasm));
    let reader = child.stderr.take().map(drain);
    let is_ok = wait(&mut child)?;
    // Both end with the child, which is gone.
    writer.map(JoinHandle::join);
    let message = reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
    if is_ok {
        return Ok(());
    }
    match message.trim() {
        "" => bail!("the compiler was stopped by its limits of time and memory{HINT}"),
        message => bail!("{message}"),
    }
}

/// On a thread of its own: the child may stop reading, or be stopped.
fn feed(mut input: ChildStdin, wasm: Vec<u8>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        // A child that refuses before it has read everything says why by itself.
        input.write_all(&wasm).unwrap_or_default();
    })
}

/// Reads to the end, as a full pipe would keep the child from ending, and keeps the beginning.
fn drain(mut errors: ChildStderr) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        let begun = errors.by_ref().take(MESSAGE_BYTES_MAX).read_to_end(&mut kept);
        // What cannot be read is no message.
        begun
            .and_then(|_bytes| std::io::copy(&mut errors, &mut std::io::sink()))
            .unwrap_or_default();
        String::from_utf8_lossy(&kept).into_owned()
    })
}

fn wait(child: &mut Child) -> Result<bool> {
    let deadline = Instant::now() + COMPILE_TIME_MAX;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("the compiler took longer than {} s", COMPILE_TIME_MAX.as_secs());
        }
        std::thread::sleep(COMPILE_POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    #[cfg(unix)]
    fn the_compiler_gets_the_bytes_that_were_hashed() {
        // More than a pipe holds.
        let wasm: Vec<u8> = (0..1 << 20).map(|at: u32| at.to_le_bytes()[1]).collect();
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        run(shell(&format!("exec /bin/cat > {}", out.display())), wasm.clone()).unwrap();
        assert!(std::fs::read(out).unwrap() == wasm);
    }

    #[test]
    #[cfg(unix)]
    fn a_compiler_that_refuses_unread_says_why() {
        let error = run(shell("echo it is too large >&2; exit 1"), vec![0; 1 << 20]).unwrap_err();
        assert_eq!(error.to_string(), "it is too large");
    }

    /// A plugin with a name of 90 KB filled the pipe, and the start hung for five minutes.
    #[test]
    #[cfg(unix)]
    fn a_compiler_that_says_more_than_a_pipe_holds_is_not_kept_waiting() {
        let words = "x".repeat(100);
        let script = format!("i=0; while [ $i -lt 2000 ]; do echo {words} >&2; i=$((i+1)); done; exit 1");
        let message = run(shell(&script), Vec::new()).unwrap_err().to_string();
        assert!(message.starts_with(&words) && message.len() as u64 <= MESSAGE_BYTES_MAX);
    }

    #[test]
    #[cfg(unix)]
    fn a_compiler_that_is_ended_in_silence_leaves_a_hint() {
        let error = run(shell("kill -9 $$"), Vec::new()).unwrap_err().to_string();
        assert!(error.contains("limits") && error.contains("hint: "), "{error}");
    }

    #[test]
    fn the_cache_is_keyed_by_content() {
        assert_eq!(
            sha256(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
