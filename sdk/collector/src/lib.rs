//! Write, test and ship Tillwatch collector plugins.
//!
//! A plugin is a crate with a `plugin.toml` beside its `Cargo.toml`, one type that implements [`Collector`],
//! and two macros: [`plugin!`] turns `plugin.toml` into constants, `export!` makes the type the plugin of the `.wasm`.
//! What comes in are lines, documents and folder listings of the sources that an operator granted;
//! what goes out is a [`Batch`] of samples.
//! A plugin never opens a file, a socket or a clock: everything comes through [`Host`], so `cargo test` runs natively.
//!
//! ```
//! use tillwatch_sdk::{Batch, Collector, Error, Host, MetricId};
//!
//! // In a plugin crate, `tillwatch_sdk::plugin!();` makes these constants from plugin.toml.
//! const DEPTH: MetricId = MetricId::new(0);
//!
//! struct Spooler;
//!
//! impl Collector for Spooler {
//!     type Settings = ();
//!
//!     fn new(_settings: (), _host: &mut dyn Host) -> Result<Self, Error> {
//!         Ok(Self)
//!     }
//!
//!     fn collect(&mut self, host: &mut dyn Host) -> Result<Batch, Error> {
//!         let listing = host.list_folder("spool")?;
//!         let mut batch = Batch::default();
//!         batch.push_real(DEPTH, &["spool"], listing.count as f64, host.now_ms());
//!         Ok(batch)
//!     }
//! }
//! ```

#![warn(missing_docs, clippy::missing_errors_doc)]

mod batch;
mod describe;
mod error;
mod host;

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod guest;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
pub mod parse;

use serde::de::DeserializeOwned;

pub use batch::{Batch, MetricId, Series, Values};
pub use describe::{Descriptor, Kind, Metric};
pub use error::{Error, ErrorKind};
pub use host::{Document, Entry, Fault, Host, Level, Lines, Listing};

/// Reads the crate's `plugin.toml` and generates from it, at the crate's root:
/// `pub mod metric` with one [`MetricId`] a metric (`queue.depth` becomes `metric::QUEUE_DEPTH`)
/// and `pub fn descriptor() -> Descriptor`.
pub use tillwatch_sdk_macros::plugin;

/// The code of a plugin: reads what the host grants, names what it means.
pub trait Collector: Sized {
    /// The plugin's settings; use `#[serde(deny_unknown_fields)]` so that a typing error is reported.
    type Settings: DeserializeOwned;

    /// Called once, with the operator's settings over the defaults of the type.
    ///
    /// # Errors
    /// [`Error::config`] when the settings make no sense; the host reports it and waits for new ones.
    fn new(settings: Self::Settings, host: &mut dyn Host) -> Result<Self, Error>;

    /// Called once per interval, and again at once while the returned batch says `more`.
    /// What was read counts as used when this returns `Ok`; after an error the same input comes again.
    ///
    /// # Errors
    /// [`Error::transient`] when it may work at the next interval, [`Error::permanent`] when it never will.
    fn collect(&mut self, host: &mut dyn Host) -> Result<Batch, Error>;

    /// Changes what `plugin.toml` declares by the settings, such as a currency; usually nothing.
    /// The metrics' number and order must stay.
    fn describe(&self, _descriptor: &mut Descriptor) {}
}

/// Makes a [`Collector`] the plugin that this crate's `.wasm` contains; natively it only checks the type.
///
/// [`plugin!`] must stand at the root of the same crate.
#[cfg(not(target_arch = "wasm32"))]
#[allow(
    clippy::crate_in_macro_def,
    reason = "the plugin's own `descriptor`, which `plugin!` made"
)]
#[macro_export]
macro_rules! export {
    ($collector:ty) => {
        const _: () = {
            const fn is_collector<C: $crate::Collector>() {}
            is_collector::<$collector>();
            let _descriptor: fn() -> $crate::Descriptor = crate::descriptor;
        };
    };
}
