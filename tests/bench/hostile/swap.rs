//! Somebody in the granted folders who exchanges files for links and pipes while a plugin reads them.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, ensure};

/// Until it is dropped.
pub(super) struct Swapper {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Swapper {
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let documents = folder.join("documents");
        symlink(folder.join("secret"), documents.join("link.xml"))?;
        symlink("/dev/zero", documents.join("zero.xml"))?;
        let made = std::process::Command::new("mkfifo")
            .arg(documents.join("pipe.xml"))
            .status()?;
        ensure!(made.success(), "mkfifo ended with {made}");
        let is_over = Arc::new(AtomicBool::new(false));
        let (flag, secret) = (Arc::clone(&is_over), folder.join("secret"));
        let thread = std::thread::spawn(move || swap(&documents, &secret, &flag));
        Ok(Self {
            is_over,
            thread: Some(thread),
        })
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Ok(()))) | None => {}
            Some(other) => eprintln!("the files could not be exchanged: {other:?}"),
        }
    }
}

/// A file is a harmless one when it is listed, and perhaps a link to the secret when it is opened.
fn swap(folder: &Path, secret: &Path, is_over: &AtomicBool) -> io::Result<()> {
    let place: PathBuf = folder.join("a.xml");
    let beside = folder.join(".beside");
    while !is_over.load(Ordering::Relaxed) {
        fs::write(&beside, "<harmless/>")?;
        fs::rename(&beside, &place)?;
        std::thread::sleep(Duration::from_micros(200));
        symlink(secret, &beside)?;
        fs::rename(&beside, &place)?;
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}
