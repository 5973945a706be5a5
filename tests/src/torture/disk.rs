//! A small disk that can be filled: a tmpfs of its own.
//!
//! In: a folder. Out: the same folder on a file system of the given size. Without the right to mount there is none, and
//! the caller must say so.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags};

const FILLER: &str = "filler";

/// Mounted until it is dropped.
pub struct SmallDisk {
    pub folder: PathBuf,
}

impl SmallDisk {
    /// `None` when this process may not mount.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn mount(folder: &Path, mib: u32) -> Result<Option<Self>> {
        std::fs::create_dir_all(folder)?;
        let size = std::ffi::CString::new(format!("size={mib}m"))?;
        let mounted = rustix::mount::mount("tmpfs", folder, "tmpfs", MountFlags::NOSUID, size.as_c_str());
        Ok(mounted.is_ok().then(|| Self {
            folder: folder.to_owned(),
        }))
    }

    /// Takes all room that is left.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn fill(&self) -> Result<()> {
        let mut filler = File::create(self.folder.join(FILLER)).context("filling a disk")?;
        for piece in [1 << 20, 4 << 10] {
            while filler.write_all(&vec![0; piece]).is_ok() {}
        }
        Ok(())
    }

    /// Gives it back.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn free(&self) -> Result<()> {
        std::fs::remove_file(self.folder.join(FILLER)).context("freeing a disk")
    }

    /// Copies what is on it to where it stays.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn save(&self, to: &Path) -> Result<()> {
        let status = std::process::Command::new("cp")
            .arg("-a")
            .arg(&self.folder)
            .arg(to)
            .status()?;
        anyhow::ensure!(
            status.success(),
            "copying {} to {}",
            self.folder.display(),
            to.display()
        );
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = rustix::mount::unmount(&self.folder, UnmountFlags::DETACH) {
            eprintln!("{} is still mounted: {error}", self.folder.display());
        }
    }
}
