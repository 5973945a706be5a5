//! Runs collector plugins in WebAssembly under limits.
//!
//! What comes in is native code that `tillwatch-compile` made from a plugin's component, and a [`Host`] that answers
//! the plugin's calls; what goes out are a descriptor and batches in the agent's own types, already within bounds.
//! It holds no key, opens no socket, and no file but the artifact; it never lets a plugin take longer, grow larger or
//! say more than its [`Limits`].
//!
//! ```text
//! sdk/wit/collector.wit
//!        │ bindgen
//!   contract ──► imports ──► Host (the agent's files, clock, state)
//!        │           ▲
//!   Sandbox ─► Plugin ─► Instance ─► convert ─► tillwatch_core::sample
//!        └ ticker, engine
//! ```

mod convert;
#[allow(dead_code, reason = "the compiler writes the header that is read here")]
mod engine;
mod error;
mod host;
mod imports;
mod instance;
mod limits;
mod plugin;
mod ticker;

pub use error::{CallError, ErrorKind, LoadError, PluginError};
pub use host::{Document, Entry, Fault, Host, Level, Lines, Listing};
pub use instance::Instance;
pub use limits::{Counters, Limits};
pub use plugin::{Plugin, Sandbox, StartError};

/// What wasmtime makes of the contract; it stops at `imports`, `instance` and `convert`.
mod contract {
    wasmtime::component::bindgen!({ path: "../../sdk/wit", world: "collector" });
}
