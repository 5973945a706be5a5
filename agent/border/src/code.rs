//! A compiled plugin on its way into the process: read from the cache once, checked, and kept where nothing can change it.
//!
//! The code lies in memory that is sealed against writing and has no name; each start of the process maps that very
//! memory, so a restart reads no file, and plugins of the same code share it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::LoadError;
use crate::artifact;
use crate::wire::Refusal;

/// Compiled code, checked and sealed.
#[derive(Debug)]
pub struct Code {
    path: PathBuf,
    memory: OwnedFd,
    is_metered: bool,
}

impl Code {
    /// Where it was taken from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes what `tillwatch-compile` wrote into a file that nobody but this user (or root) may write.
    ///
    /// # Errors
    /// When the file is not an intact artifact for this engine, or others could have written it.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let path = path.to_owned();
        let result = written_by_us(&path).and_then(|is_ours| Ok((is_ours, fs::read(&path)?)));
        let (is_ours, artifact) = match result {
            Ok(read) => read,
            Err(source) => return Err(LoadError::Read { path, source }),
        };
        if !is_ours {
            return Err(LoadError::Untrusted { path });
        }
        let (code, is_metered) = match artifact::without_header(&artifact) {
            Ok(found) => found,
            Err(error) => return Err(LoadError::header(path, error)),
        };
        match sealed_memory(code) {
            Ok(memory) => Ok(Self {
                path,
                memory,
                is_metered,
            }),
            Err(source) => Err(LoadError::Memory { path, source }),
        }
    }

    /// It counts what it executes.
    pub(crate) fn is_metered(&self) -> bool {
        self.is_metered
    }

    pub(crate) fn refused(&self, refusal: Refusal) -> LoadError {
        let path = self.path.clone();
        match refusal {
            Refusal::Engine(reason) => LoadError::Engine { path, reason },
            Refusal::Contract(reason) => LoadError::Contract { path, reason },
        }
    }
}

impl AsFd for Code {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

fn sealed_memory(code: &[u8]) -> io::Result<OwnedFd> {
    let memory = memfd_create("plugin", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut rest = code;
    while !rest.is_empty() {
        let written = rustix::io::write(&memory, rest)?;
        rest = &rest[written..];
    }
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&memory, seals)?;
    Ok(memory)
}

/// Whether nobody but this process' user and root can have written the file: neither the file itself,
/// nor by exchanging it in its folder.
fn written_by_us(path: &Path) -> io::Result<bool> {
    let folder = path.canonicalize()?.parent().map(Path::to_owned).unwrap_or_default();
    let ours = rustix::process::geteuid().as_raw();
    Ok(owner_writes_alone(&fs::metadata(path)?, ours) && owner_writes_alone(&fs::metadata(folder)?, ours))
}

fn owner_writes_alone(metadata: &fs::Metadata, ours: u32) -> bool {
    let (owner, mode) = (metadata.uid(), metadata.mode());
    (owner == ours || owner == 0) && mode & 0o022 == 0
}
