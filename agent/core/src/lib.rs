//! The store's mind: from what collectors report to what is sent, told the time, without I/O.
//!
//! The path of a datum through this crate: a [`sample`] passes the [`guard`] and the [`registry`], falls into its
//! `window`, the windows of a minute become a `summary` interval, `detect` judges each window, `encode` turns
//! intervals and findings into records, [`local`] what the store itself is told, and [`delivery`] says which record goes over the wire next and which may be
//! forgotten, and [`budget`] how much of it today. [`core`] is the state machine around all of it, `checkpoint` its memory across a kill.
//!
//! Nothing here opens a file or a socket or asks for the time: `now_ms` is always an argument.

pub mod record;
pub mod sample;
pub mod guard;
pub mod tally;
pub mod value;
pub mod settings;
mod room;
pub mod registry;
mod window;
mod summary;
pub mod detect;
mod encode;
pub mod local;
mod checkpoint;
pub mod core;
pub mod delivery;
pub mod budget;

pub use crate::core::Core;
pub use crate::record::{HeldGap, NewRecord, RecordKind, Run};
pub use crate::registry::{DeclareError, LabelPolicy, SourceKey};
pub use crate::settings::{Accepted, Counters, Limits, RestoreError, Settings};
