//! Linux and other Unix: inode identity, `pread`, `O_NOFOLLOW`, and the service manager's socket.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::time::{ClockId, clock_gettime};

/// What stays the same when a file is renamed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileId {
    pub device: u64,
    pub inode: u64,
}

/// The identity of the file that `metadata` describes.
#[must_use]
pub fn file_id(metadata: &Metadata) -> FileId {
    FileId {
        device: metadata.dev(),
        inode: metadata.ino(),
    }
}

/// When content, name or rights of the file last changed, in UTC milliseconds: unlike its modification time nobody can
/// set it, and a copy or a renamed file has a new one.
#[must_use]
pub fn changed_ms(metadata: &Metadata) -> u64 {
    let milliseconds = metadata.ctime().saturating_mul(1000) + metadata.ctime_nsec() / 1_000_000;
    u64::try_from(milliseconds).unwrap_or(0)
}

/// Whether the file or folder that `metadata` describes belongs to the user that this program runs as.
#[must_use]
pub fn is_own(metadata: &Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw()
}

/// The processor time that this thread has taken.
#[must_use]
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanoseconds)
}

/// Opens a log that the operator granted; a symbolic link is followed, as its target is part of the grant.
///
/// # Errors
/// When it cannot be opened or is no regular file; a named pipe is refused without waiting for a writer.
pub fn open_log(path: &Path) -> io::Result<File> {
    open(path, OFlags::NONBLOCK)
}

/// Opens a file of a granted folder; a symbolic link is refused, as whoever may write there could point it anywhere.
///
/// # Errors
/// When it cannot be opened, is a link, or is no regular file.
pub fn open_document(path: &Path) -> io::Result<File> {
    open(path, OFlags::NONBLOCK | OFlags::NOFOLLOW)
}

/// A file that is made with these options is for its owner only.
pub fn for_owner_only(options: &mut OpenOptions) {
    options.mode(0o600);
}

fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
}

/// Fills `buffer` from `offset` as far as the file reaches; the number of bytes read.
///
/// # Errors
/// When the read fails.
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// What was sent and is not confirmed after so long ends the connection; elsewhere than on Linux TCP's own patience holds.
///
/// Source: RFC 5482, tcp(7) `TCP_USER_TIMEOUT`.
///
/// # Errors
/// When the system refuses.
pub fn end_when_unheard(connection: impl AsFd, after: Duration) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::net::sockopt::set_tcp_user_timeout(connection, u32::try_from(after.as_millis()).unwrap_or(u32::MAX))?;
    #[cfg(not(target_os = "linux"))]
    drop((connection, after));
    Ok(())
}

/// Tells systemd about us when it started us (`NOTIFY_SOCKET`); silent otherwise.
///
/// Source: sd_notify(3), "Notes" on the protocol.
///
/// # Errors
/// When the socket named by the environment cannot be written.
pub fn notify_service_manager(state: &str) -> io::Result<()> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let socket = UnixDatagram::unbound()?;
    let address = service_manager_address(name.as_encoded_bytes())?;
    socket.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(target_os = "linux")]
fn service_manager_address(name: &[u8]) -> io::Result<std::os::unix::net::SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    match name.strip_prefix(b"@") {
        Some(abstract_name) => std::os::unix::net::SocketAddr::from_abstract_name(abstract_name),
        None => path_address(name),
    }
}

#[cfg(not(target_os = "linux"))]
fn service_manager_address(name: &[u8]) -> io::Result<std::os::unix::net::SocketAddr> {
    path_address(name)
}

fn path_address(name: &[u8]) -> io::Result<std::os::unix::net::SocketAddr> {
    use std::os::unix::ffi::OsStrExt;
    std::os::unix::net::SocketAddr::from_pathname(Path::new(std::ffi::OsStr::from_bytes(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_pipe_is_refused_and_nobody_waits() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let status = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(status.success());
        assert!(open_log(&pipe).is_err());
    }

    #[test]
    fn a_document_that_is_a_link_is_refused_and_a_log_that_is_a_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        std::fs::write(&target, "x").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(open_document(&link).is_err());
        assert!(open_log(&link).is_ok());
    }
}
