//! The store's disk: in memory, with an image of it to go back to, and a next write that fails when told so.
//!
//! What torn and lost writes do is tested beside the spool; here a write is whole, or it did not happen.

use std::io;
use std::sync::Mutex;

use tillwatch_agent::spool::{Disk, MemoryDisk, WriteFault};

/// What goes wrong with the next write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextWrite {
    Full,
    SyncFails,
    /// And what was written cannot be taken back: it is found at the next opening.
    SyncFailsForGood,
}

#[derive(Debug, Default)]
pub(super) struct FaultyDisk {
    files: MemoryDisk,
    next: Mutex<Option<NextWrite>>,
    is_stuck: Mutex<bool>,
}

impl FaultyDisk {
    pub(super) fn fail_next(&self, fault: NextWrite) {
        *self.next.lock().expect("no test panics with it") = Some(fault);
    }

    /// An earlier fault did not meet a write.
    pub(super) fn heal(&self) {
        *self.next.lock().expect("no test panics with it") = None;
        *self.is_stuck.lock().expect("no test panics with it") = false;
    }

    /// The same files on another disk.
    pub(super) fn image(&self) -> io::Result<FaultyDisk> {
        let image = FaultyDisk::default();
        for (name, size) in self.files.list()? {
            let length = usize::try_from(size).map_err(io::Error::other)?;
            let bytes = self.files.read(&name, 0, length)?;
            image
                .files
                .write(&name, 0, &bytes)
                .map_err(|fault| io::Error::other(fault.to_string()))?;
        }
        Ok(image)
    }

    fn changeable(&self) -> io::Result<()> {
        if *self.is_stuck.lock().expect("no test panics with it") {
            return Err(io::Error::other("input/output error"));
        }
        Ok(())
    }
}

impl Disk for FaultyDisk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        self.files.list()
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.files.read(name, offset, length)
    }

    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), WriteFault> {
        let is_log = name.ends_with(".seg");
        let fault = if is_log {
            self.next.lock().expect("no test panics with it").take()
        } else {
            None
        };
        let failed = || WriteFault::Sync(io::Error::other("input/output error"));
        match fault {
            None => self.files.write(name, offset, bytes),
            Some(NextWrite::Full) => Err(WriteFault::Write(io::ErrorKind::StorageFull.into())),
            Some(NextWrite::SyncFails) => self.files.write(name, offset, bytes).and(Err(failed())),
            Some(NextWrite::SyncFailsForGood) => {
                *self.is_stuck.lock().expect("no test panics with it") = true;
                self.files.write(name, offset, bytes).and(Err(failed()))
            }
        }
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        self.changeable()?;
        self.files.truncate(name, length)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.changeable()?;
        self.files.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.changeable()?;
        self.files.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.files.sync_names()
    }
}
