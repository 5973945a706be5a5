//! The border between the agent and its plugins, which run in a sealed process of their own.
//!
//! The agent's side comes in as compiled plugins and a [`Host`] that answers them; what goes out are a descriptor and
//! batches in the agent's own types, within their [`Limits`]. Nothing that the other process says is trusted: lengths,
//! counts and times are held against their bounds here, whatever it did on its side.
//!
//! ```text
//!  agent, a thread for each plugin                         tillwatch-sandbox, sealed, a thread for each plugin
//!  ┌──────────────────────────────┐   a socket for each   ┌───────────────────────────────┐
//!  │ Plugin ─► exchange ─► check  │ ◄───── frames ──────► │ serve ─► wasmtime ─► plugin   │
//!  │   ▲          │ Host          │        wire           │                               │
//!  │   │          ▼               │                       │                               │
//!  │ process: start, kill, blame  │ ◄── one for start ──► │ main: ends when the agent does│
//!  └──────────────────────────────┘                       └───────────────────────────────┘
//! ```

mod host;
mod peer;
mod limits;
mod error;
mod check;
mod budget;
mod bytes;
pub mod wire;
pub mod frames;
pub mod handover;
pub mod artifact;
mod code;
mod processor;
mod turn;
mod process;
mod exchange;
mod plugin;

pub use budget::Budget;
pub use check::{check_batch, check_descriptor, cut};
pub use code::Code;
pub use error::{Bound, CallError, ErrorKind, LoadError, PluginError, StartError};
#[doc(hidden)]
pub use exchange::collect_on;
pub use host::{Document, Entry, Fault, Host, Level, Lines, Listing};
pub use limits::{Counters, Limits};
pub use peer::{
    Column, ColumnValues, Cursor, HEADERS_MAX, HttpRequest, HttpResponse, Method, PeerFailure, PeerFault,
    QUESTION_BYTES_MAX, Question, Reply, Table, TcpRequest, TcpResponse,
};
pub use plugin::{Load, Plugin, start};
pub use process::make_expendable;
pub use processor::hand_over_processor;
