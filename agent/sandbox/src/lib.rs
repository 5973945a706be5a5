//! Runs collector plugins in WebAssembly, in a process that seals itself before the first of them is called.
//!
//! What comes in is native code that `tillwatch-compile` made from a plugin's component and the agent has checked, and a
//! [`Host`](tillwatch_border::Host) that answers the plugin's calls; what goes out are a descriptor and batches within
//! their limits. It never lets a plugin grow larger or say more than its limits; time is the agent's business.
//!
//! ```text
//! main ─► process ─► seal
//!            └─► serve, a thread for each plugin ─► Instance
//!
//! sdk/wit/collector.wit
//!        │ bindgen
//!   contract ──► imports ──► Host (in the process: questions to the agent)
//!        │           ▲
//!   Sandbox ─► Plugin ─► Instance ─► convert ─► tillwatch_core::sample
//!        └ engine
//! ```

mod convert;
mod engine;
mod imports;
mod instance;
mod peers;
mod plugin;
pub mod process;
pub mod seal;
pub mod serve;

pub use instance::Instance;
pub use plugin::{Plugin, Sandbox};

/// Of what the engine says, which may quote names that a plugin chose.
const REASON_BYTES_MAX: usize = 1024;

/// What wasmtime makes of the contract; it stops at `imports`, `instance`, `convert` and `peers`.
/// A collector is a prober that imports less: the exports of both worlds are the same.
mod contract {
    wasmtime::component::bindgen!({ path: "../../sdk/wit", world: "prober" });
}
