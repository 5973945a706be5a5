//! From a plugin's `.wasm` to loadable code: compiled by the child `tillwatch-compile`, kept in a cache.
//!
//! In: the component's bytes. Out: a loaded plugin. The agent itself holds no compiler.
//! The cache is `state_dir/cache/<sha256 of the wasm>.cwasm`; what the sandbox does not take (another engine, damaged)
//! is compiled again, and what no plugin needs any more is removed. Only our own child writes there.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tillwatch_sandbox::{Plugin, Sandbox};
use tracing::info;

/// The compiler's file name.
const COMPILER: &str = "tillwatch-compile";
/// A backstop: the child limits its own processor time; a slow old machine under load takes half a minute.
const COMPILE_TIME_MAX: Duration = Duration::from_secs(300);
const COMPILE_POLL: Duration = Duration::from_millis(20);
/// Of what the compiler says when it refuses.
const MESSAGE_BYTES_MAX: u64 = 4 << 10;
/// A larger plugin is refused unread.
const WASM_BYTES_MAX: u64 = 16 << 20;

/// Loads plugins, compiling what is not in the cache.
pub struct Loader {
    sandbox: Sandbox,
    cache: PathBuf,
    used: BTreeSet<PathBuf>,
}

impl Loader {
    /// Makes the cache folder, for our user only.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(sandbox: Sandbox, state_dir: &Path) -> Result<Self> {
        let cache = state_dir.join("cache");
        make_private_folder(&cache).with_context(|| format!("making {}", cache.display()))?;
        Ok(Self {
            sandbox,
            cache,
            used: BTreeSet::new(),
        })
    }

    /// # Errors
    /// When the file cannot be read, the compiler refuses it, or the sandbox does not take what came out.
    pub fn load(&mut self, wasm: &Path) -> Result<Plugin> {
        let bytes = read_bounded(wasm).with_context(|| format!("reading {}", wasm.display()))?;
        let compiled = self.cache.join(format!("{}.cwasm", sha256_hex(&bytes)));
        self.used.insert(compiled.clone());
        if let Ok(plugin) = self.sandbox.load(&compiled) {
            return Ok(plugin);
        }
        let begun = Instant::now();
        compile(wasm, &compiled).with_context(|| format!("compiling {}", wasm.display()))?;
        info!(wasm = %wasm.display(), ms = begun.elapsed().as_millis(), "plugin compiled");
        self.sandbox
            .load(&compiled)
            .with_context(|| format!("loading what was compiled from {}", wasm.display()))
    }

    /// Removes what was not used since this loader was made.
    ///
    /// # Errors
    /// When the cache cannot be listed or a file cannot be removed.
    pub fn remove_unused(&self) -> Result<()> {
        for entry in std::fs::read_dir(&self.cache)? {
            let path = entry?.path();
            if !self.used.contains(&path) {
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
    let compiler = find_compiler()?;
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

fn make_private_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    let mut bytes = Vec::new();
    file.take(WASM_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() as u64 <= WASM_BYTES_MAX,
        "it is larger than {WASM_BYTES_MAX} bytes"
    );
    Ok(bytes)
}

fn sha256_hex(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs the child, which limits its own time and memory; here it is only waited for, and ended when it hangs.
fn compile(wasm: &Path, compiled: &Path) -> Result<()> {
    let compiler = find_compiler()?;
    let mut child = Command::new(&compiler)
        .args([wasm, compiled])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", compiler.display()))?;
    let is_ok = wait(&mut child)?;
    if is_ok {
        return Ok(());
    }
    let mut message = String::new();
    if let Some(errors) = child.stderr.take() {
        errors.take(MESSAGE_BYTES_MAX).read_to_string(&mut message)?;
    }
    let message = message.trim();
    bail!(
        "{}",
        if message.is_empty() {
            "the compiler was stopped by its limits"
        } else {
            message
        }
    )
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

/// Beside our own program, else on the PATH.
fn find_compiler() -> Result<PathBuf> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join(COMPILER)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(COMPILER));
    let found = beside.into_iter().chain(on_path).find(|candidate| candidate.is_file());
    found.with_context(|| {
        format!("{COMPILER} is neither beside this program nor on the PATH\nhint: install the whole package")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_keyed_by_content() {
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
