//! The few file operations that the spool needs, behind one trait, so that torn writes and failed syncs can be tested.
//!
//! In: flat file names, offsets and bytes. Out: bytes and errors.
//! `FileDisk` is a folder held by one process; `MemoryDisk` keeps a simulated store's spool.
//! Nothing here knows what the bytes mean, and nothing retries.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::SpoolError;

/// Why bytes did not become durable.
#[derive(Debug, thiserror::Error)]
pub enum WriteFault {
    /// Nothing may be assumed about the bytes, but everything before them is as it was.
    #[error("writing failed")]
    Write(#[source] io::Error),
    /// The operating system may have dropped the bytes and forgotten about it: no later sync repairs that.
    #[error("syncing failed")]
    Sync(#[source] io::Error),
}

impl WriteFault {
    pub(super) fn into_io(self) -> io::Error {
        let (Self::Write(error) | Self::Sync(error)) = self;
        error
    }

    /// Whether there was no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let (Self::Write(error) | Self::Sync(error)) = self;
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// Whether the file is missing or too short, which no later try mends.
pub(super) fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
}

/// The system's refusal to read a file, with its name.
pub(super) fn not_read(name: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("reading {name}: {error}"))
}

/// A flat folder of small files.
pub trait Disk: Send + Sync {
    /// All files with their sizes, in the order of their names.
    ///
    /// # Errors
    /// When the folder cannot be read.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// Exactly `length` bytes from `offset`.
    ///
    /// # Errors
    /// When the file is missing, shorter, or cannot be read.
    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;

    /// Writes at `offset`, creating the file when it is missing, and syncs it.
    ///
    /// # Errors
    /// See `WriteFault`.
    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), WriteFault>;

    /// Cuts the file to `length` bytes and syncs it.
    ///
    /// # Errors
    /// When the file is missing or cannot be changed.
    fn truncate(&self, name: &str, length: u64) -> io::Result<()>;

    /// Renames, replacing what has the new name.
    ///
    /// # Errors
    /// When the file is missing or the folder cannot be changed.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// When the file is missing or the folder cannot be changed.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes created, renamed and removed names durable.
    ///
    /// # Errors
    /// When the folder cannot be synced.
    fn sync_names(&self) -> io::Result<()>;
}

const LOCK_FILE: &str = "lock";

/// A folder, locked for as long as this value lives.
#[derive(Debug)]
pub struct FileDisk {
    dir: PathBuf,
    /// Held open: the lock goes with it, also when the process is killed. None for one who only looks.
    _lock: Option<File>,
}

impl FileDisk {
    /// Creates the folder when it is missing, readable by its owner only, and locks it.
    ///
    /// # Errors
    /// `Locked` when another process has it, `Unusable` for everything else.
    pub fn open(dir: &Path) -> Result<Self, SpoolError> {
        let unusable = |source| SpoolError::Unusable {
            dir: dir.to_owned(),
            source,
        };
        create_private_dir(dir).map_err(unusable)?;
        let lock = File::create(dir.join(LOCK_FILE)).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                dir: dir.to_owned(),
                _lock: Some(lock),
            }),
            Err(TryLockError::WouldBlock) => Err(SpoolError::Locked { dir: dir.to_owned() }),
            Err(TryLockError::Error(error)) => Err(unusable(error)),
        }
    }

    /// The same folder without its lock, for one who only reads: an agent may be writing to it.
    pub(super) fn to_look_at(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            _lock: None,
        }
    }
}

#[cfg(unix)]
fn create_private_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(not(unix))]
fn create_private_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)
}

impl Disk for FileDisk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let data = entry.metadata()?;
            if let (true, Ok(name)) = (data.is_file(), entry.file_name().into_string())
                && name != LOCK_FILE
            {
                files.push((name, data.len()));
            }
        }
        files.sort();
        Ok(files)
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.dir.join(name))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = vec![0; length];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), WriteFault> {
        let write = || -> io::Result<File> {
            let path = self.dir.join(name);
            let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            file.write_all(bytes)?;
            Ok(file)
        };
        write()
            .map_err(WriteFault::Write)?
            .sync_data()
            .map_err(WriteFault::Sync)
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.dir.join(name))?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    #[cfg(unix)]
    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    /// Other systems make names durable with the file.
    #[cfg(not(unix))]
    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Files in memory: gone with the process.
#[derive(Debug, Default)]
pub struct MemoryDisk {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl MemoryDisk {
    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T) -> T {
        // A panic elsewhere cannot leave the map half changed: each operation below is one step.
        work(&mut self.files.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

fn to_index(value: u64) -> io::Result<usize> {
    usize::try_from(value).map_err(io::Error::other)
}

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.with(|files| {
            files
                .iter()
                .map(|(name, bytes)| (name.clone(), bytes.len() as u64))
                .collect()
        }))
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let from = to_index(offset)?;
        self.with(|files| {
            let bytes = files.get(name).ok_or_else(missing)?;
            let part = bytes.get(from..from.saturating_add(length));
            part.map(<[u8]>::to_vec)
                .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
        })
    }

    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), WriteFault> {
        let from = to_index(offset).map_err(WriteFault::Write)?;
        self.with(|files| {
            let file = files.entry(name.to_owned()).or_default();
            let end = from + bytes.len();
            if file.len() < end {
                file.resize(end, 0);
            }
            file[from..end].copy_from_slice(bytes);
        });
        Ok(())
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        let length = to_index(length)?;
        self.with(|files| {
            files
                .get_mut(name)
                .map(|file| file.truncate(length))
                .ok_or_else(missing)
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with(|files| {
            let bytes = files.remove(from).ok_or_else(missing)?;
            files.insert(to.to_owned(), bytes);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(|files| files.remove(name).map(|_| ()).ok_or_else(missing))
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }
}
