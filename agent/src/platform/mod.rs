//! What only one operating system has: the identity of a file, reads at an offset, guarded opening,
//! how long a connection may go unheard.

#[cfg(unix)]
mod linux;
#[cfg(unix)]
pub use linux::{
    FileId, changed_ms, end_when_unheard, file_id, for_owner_only, is_own, notify_service_manager, open_document,
    open_log, read_at, thread_time,
};
