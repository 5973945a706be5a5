//! From a plugin's `.wasm` to loadable code: compiled by the child `tillwatch-compile`, kept in a cache.
//!
//! In: the component's bytes. Out: code for the plugins' process. The agent itself holds no compiler and no engine.
//! The child gets the bytes that were hashed: a file that is exchanged meanwhile changes nothing.
//! The cache is `state_dir/cache/<sha256 of the wasm>.cwasm`; what is not taken (another engine, damaged)
//! is compiled again, and what no plugin needs any more is removed. Only our own child writes there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tillwatch_border::artifact::{WASM_BYTES_MAX, sha256};
use tillwatch_border::{Code, make_expendable};
use tracing::info;

use super::program;
use crate::source::is_older_than;
use crate::whole::read_bounded;

/// A backstop: the child limits its own processor time; a slow old machine under load takes half a minute.
const COMPILE_TIME_MAX: Duration = Duration::from_secs(300);
const COMPILE_POLL: Duration = Duration::from_millis(20);
/// Of what the compiler says when it refuses.
const MESSAGE_BYTES_MAX: u64 = 4 << 10;
/// Of what it says of a component: 200 names, and each of them may be long.
const NAMES_BYTES_MAX: u64 = 256 << 10;
/// What the compiler has not renamed after so long it never will.
const HALF_WRITTEN_MS_MAX: u64 = 3_600_000;
const HINT: &str = "\nhint: the agent starts with all of its plugins or not at all; build this one smaller, raise `compiler_memory_max` where it has a language's runtime inside, or take it out of agent.toml";

/// Loads plugins, compiling what is not in the cache.
pub struct Loader {
    cache: PathBuf,
    compiler_bytes_max: u64,
    /// What it compiles counts what it executes.
    is_metered: bool,
    used: BTreeMap<PathBuf, Arc<Code>>,
    /// What the engine did not take from the cache.
    anew: BTreeSet<PathBuf>,
}

impl Loader {
    /// Makes the cache folder, for our user only.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(state_dir: &Path, compiler_bytes_max: u64) -> Result<Self> {
        let cache = state_dir.join("cache");
        make_private_folder(&cache).with_context(|| format!("making {}", cache.display()))?;
        Ok(Self {
            cache,
            compiler_bytes_max,
            is_metered: false,
            used: BTreeMap::new(),
            anew: BTreeSet::new(),
        })
    }

    /// One whose code counts what it executes: for measurements, in a cache of its own.
    #[must_use]
    pub fn metered(self) -> Self {
        Self {
            is_metered: true,
            ..self
        }
    }

    /// Loads a component; of a bundle only the bytes that were `verified`, named by their sha256. What was compiled from
    /// these is taken without another look at the file.
    /// The same component is the same code.
    ///
    /// # Errors
    /// When the file cannot be read or was exchanged, the compiler refuses it, or what came out is not what it should be.
    pub fn load(&mut self, wasm: &Path, verified: Option<&str>) -> Result<Arc<Code>> {
        if let Some(code) = verified.and_then(|hash| self.compiled(hash)) {
            return Ok(code);
        }
        let (bytes, hash) = find(wasm, verified)?;
        match self.compiled(&hash) {
            Some(code) => Ok(code),
            None => self.compile(wasm, bytes, &hash),
        }
    }

    /// What was compiled from the component with this hash, if it is there and fit.
    fn compiled(&mut self, hash: &str) -> Option<Arc<Code>> {
        let place = self.place(hash);
        if let Some(code) = self.used.get(&place) {
            return Some(Arc::clone(code));
        }
        let code = Code::open(&place).ok()?;
        Some(self.keep(place, code))
    }

    /// As `load`, but compiled in any case, once: the engine did not take what was in the cache.
    ///
    /// # Errors
    /// See `load`.
    pub fn load_anew(&mut self, wasm: &Path, verified: Option<&str>) -> Result<Arc<Code>> {
        let (bytes, hash) = find(wasm, verified)?;
        let compiled = self.place(&hash);
        match self.used.get(&compiled) {
            Some(code) if self.anew.contains(&compiled) => Ok(Arc::clone(code)),
            _ => {
                let code = self.compile(wasm, bytes, &hash)?;
                self.anew.insert(compiled);
                Ok(code)
            }
        }
    }

    fn place(&self, hash: &str) -> PathBuf {
        self.cache.join(format!("{hash}.cwasm"))
    }

    fn compile(&mut self, wasm: &Path, bytes: Vec<u8>, hash: &str) -> Result<Arc<Code>> {
        let compiled = self.place(hash);
        let begun = Instant::now();
        compile(bytes, hash, &compiled, self).with_context(|| format!("compiling {}", wasm.display()))?;
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

    /// Removes what was not used since this loader was made, but not what another process is writing.
    ///
    /// # Errors
    /// When the cache cannot be listed or a file cannot be removed.
    pub fn remove_unused(&self) -> Result<()> {
        for entry in std::fs::read_dir(&self.cache)? {
            let entry = entry?;
            let path = entry.path();
            let is_in_work = entry.file_name().as_encoded_bytes().starts_with(b".");
            let is_left = !is_in_work || is_older_than(&entry.metadata()?, HALF_WRITTEN_MS_MAX);
            if is_left && !self.used.contains_key(&path) {
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
    let mut command = Command::new(program::find(program::COMPILER)?);
    command.arg("--names").arg(wasm);
    Ok(read_names(&run(command, Vec::new())?))
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
fn compile(wasm: Vec<u8>, hash: &str, compiled: &Path, loader: &Loader) -> Result<()> {
    let mut command = Command::new(program::find(program::COMPILER)?);
    command.args(["--memory", &loader.compiler_bytes_max.to_string()]);
    command.args(loader.is_metered.then_some("--metered"));
    command.args([Path::new("-"), compiled, Path::new(hash)]);
    run(command, wasm).map(drop)
}

/// Runs the child, which limits its own time and memory; here it is only waited for, and ended when it hangs.
/// What it prints comes back.
fn run(mut command: Command, wasm: Vec<u8>) -> Result<String> {
    let mut child = command
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    make_expendable(child.id());
    let writer = child.stdin.take().map(|input| feed(input, wasm));
    let printed = child.stdout.take().map(|output| drain(output, NAMES_BYTES_MAX));
    let errors = child.stderr.take().map(|errors| drain(errors, MESSAGE_BYTES_MAX));
    let status = wait(&mut child)?;
    // All end with the child, which is gone.
    writer.map(JoinHandle::join);
    let said = |reader: Option<JoinHandle<String>>| reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
    let (printed, message) = (said(printed), said(errors));
    if status.success() {
        return Ok(printed);
    }
    let message = message.trim();
    // It says something of its own when memory ends, and then the system stops it.
    if status.code().is_none() || message.is_empty() {
        let message = if message.is_empty() {
            String::new()
        } else {
            format!("{message}: ")
        };
        bail!("{message}the compiler was stopped by its limits of time and memory{HINT}");
    }
    bail!("{message}")
}

/// On a thread of its own: the child may stop reading, or be stopped.
fn feed(mut input: ChildStdin, wasm: Vec<u8>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        // A child that refuses before it has read everything says why by itself.
        input.write_all(&wasm).unwrap_or_default();
    })
}

/// Reads to the end, as a full pipe would keep the child from ending, and keeps the beginning.
fn drain(mut output: impl Read + Send + 'static, bytes_max: u64) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        let begun = output.by_ref().take(bytes_max).read_to_end(&mut kept);
        // What cannot be read is no message.
        begun
            .and_then(|_bytes| std::io::copy(&mut output, &mut std::io::sink()))
            .unwrap_or_default();
        String::from_utf8_lossy(&kept).into_owned()
    })
}

fn wait(child: &mut Child) -> Result<ExitStatus> {
    let deadline = Instant::now() + COMPILE_TIME_MAX;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
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
    use tillwatch_border::artifact;

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

    /// Rust says that memory is out, and nobody knew that it was a limit, and what to do.
    #[test]
    fn a_compiler_that_speaks_before_it_is_ended_leaves_a_hint_too() {
        let error = run(shell("echo memory allocation failed >&2; kill -6 $$"), Vec::new()).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("memory allocation failed: the compiler was stopped by its limits"));
        assert!(error.contains("hint: "), "{error}");
    }

    #[test]
    fn what_the_compiler_prints_comes_back_within_bounds() {
        assert_eq!(run(shell("echo agent 0.1.0"), Vec::new()).unwrap(), "agent 0.1.0\n");
        let much = run(shell("head -c 1000000 /dev/zero"), Vec::new()).unwrap();
        assert_eq!(much.len() as u64, NAMES_BYTES_MAX);
    }

    /// A loader and the folder of two components whose code is in its cache.
    fn cached() -> (tempfile::TempDir, Loader) {
        let folder = tempfile::tempdir().unwrap();
        let loader = Loader::new(folder.path(), 256 << 20).unwrap();
        for (name, wasm) in [("a", b"one"), ("b", b"one"), ("c", b"two")] {
            std::fs::write(folder.path().join(name), wasm).unwrap();
            std::fs::write(loader.place(&sha256(wasm)), artifact::with_header(wasm, false)).unwrap();
        }
        (folder, loader)
    }

    #[test]
    fn the_cache_is_keyed_by_content() {
        let (folder, mut loader) = cached();
        let mut load = |name| loader.load(&folder.path().join(name), None);
        let (a, b, c) = (load("a").unwrap(), load("b").unwrap(), load("c").unwrap());
        assert!(Arc::ptr_eq(&a, &b) && !Arc::ptr_eq(&a, &c));
        std::fs::write(folder.path().join("a"), "three").unwrap();
        assert!(load("a").is_err(), "nobody has compiled it");
    }

    #[test]
    fn what_was_verified_runs_whatever_its_file_became() {
        let (folder, mut loader) = cached();
        let file = folder.path().join("a");
        let (one, other) = (sha256(b"one"), sha256(b"other"));
        let before = loader.load(&file, Some(&one)).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(Arc::ptr_eq(&before, &loader.load(&file, Some(&one)).unwrap()));
        std::fs::write(&file, "third").unwrap();
        let error = loader.load(&file, Some(&other)).unwrap_err().to_string();
        assert!(error.ends_with("was exchanged after it was verified"), "{error}");
    }

    /// `tillwatch check` removed the file that the agent beside it was writing.
    #[test]
    fn what_is_unused_goes_and_what_is_being_written_stays() {
        let (folder, mut loader) = cached();
        loader.load(&folder.path().join("a"), None).unwrap();
        let half = |name: &str| {
            let path = loader.cache.join(name);
            std::fs::File::create_new(&path).map(|file| (path, file)).unwrap()
        };
        let ((new, _file), (old, file)) = (half(".x.cwasm.7"), half(".x.cwasm.8"));
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        loader.remove_unused().unwrap();
        let is_there = [
            &loader.place(&sha256(b"one")),
            &loader.place(&sha256(b"two")),
            &new,
            &old,
        ]
        .map(|path| path.exists());
        assert_eq!(is_there, [true, false, true, false]);
    }
}
