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
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Settings {}
//!
//! struct Spooler;
//!
//! impl Collector for Spooler {
//!     type Settings = Settings;
//!
//!     fn new(_settings: Settings, _host: &mut dyn Host) -> Result<Self, Error> {
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
mod peer;

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
pub use peer::{
    Column, ColumnValues, Cursor, HttpRequest, HttpResponse, Method, PeerFailure, PeerFault, Table, TcpRequest,
    TcpResponse,
};

/// Reads the crate's `plugin.toml` and generates from it, at the crate's root:
/// `pub mod metric` with one [`MetricId`] a metric (`queue.depth` becomes `metric::QUEUE_DEPTH`)
/// and `pub fn descriptor() -> Descriptor`.
///
/// ```compile_fail
/// // Without a plugin.toml beside Cargo.toml it says so, and the crate does not build.
/// tillwatch_sdk::plugin!();
/// fn main() {}
/// ```
pub use tillwatch_sdk_macros::plugin;

/// The code of a plugin: reads what the host grants, names what it means.
///
/// ```
/// use serde::Deserialize;
/// use tillwatch_sdk::testing::{FileHost, collect_all};
/// use tillwatch_sdk::{Batch, Collector, Error, Host, MetricId};
///
/// const LINES: MetricId = MetricId::new(0);
///
/// #[derive(Deserialize)]
/// #[serde(default, deny_unknown_fields)]
/// struct Settings {
///     step_bytes: u32,
/// }
///
/// impl Default for Settings {
///     fn default() -> Self {
///         Self { step_bytes: 65_536 }
///     }
/// }
///
/// struct Counter(Settings);
///
/// impl Collector for Counter {
///     type Settings = Settings;
///
///     fn new(settings: Settings, _host: &mut dyn Host) -> Result<Self, Error> {
///         if settings.step_bytes == 0 {
///             return Err(Error::config("step_bytes must be positive"));
///         }
///         Ok(Self(settings))
///     }
///
///     fn collect(&mut self, host: &mut dyn Host) -> Result<Batch, Error> {
///         let lines = host.read_lines("log", self.0.step_bytes)?;
///         let mut batch = Batch::default();
///         batch.more = lines.more;
///         for _line in lines.iter() {
///             batch.push_integer(LINES, &[], 1, host.now_ms());
///         }
///         Ok(batch)
///     }
/// }
///
/// let mut host = FileHost::new(1_000);
/// host.append_lines("log", b"one\ntwo\n");
/// let mut counter = Counter::new(Settings::default(), &mut host)?;
/// let batches = collect_all(&mut counter, &mut host)?;
/// assert_eq!(batches.iter().map(Batch::samples).sum::<usize>(), 2);
/// # Ok::<(), Error>(())
/// ```
pub trait Collector: Sized {
    /// The plugin's settings; use `#[serde(deny_unknown_fields)]` so that a typing error is reported.
    type Settings: DeserializeOwned;

    /// Called once, with the operator's settings over the defaults of `plugin.toml`.
    ///
    /// ```
    /// use tillwatch_sdk::testing::FileHost;
    /// use tillwatch_sdk::{Batch, Collector, Error, Host};
    ///
    /// #[derive(serde::Deserialize)]
    /// #[serde(deny_unknown_fields)]
    /// struct Settings {
    ///     longest_ms: u64,
    /// }
    ///
    /// struct Own(Settings);
    ///
    /// impl Collector for Own {
    ///     type Settings = Settings;
    ///
    ///     fn new(settings: Settings, _host: &mut dyn Host) -> Result<Self, Error> {
    ///         if settings.longest_ms == 0 {
    ///             return Err(Error::config("longest_ms must be positive"));
    ///         }
    ///         Ok(Self(settings))
    ///     }
    ///
    ///     fn collect(&mut self, _host: &mut dyn Host) -> Result<Batch, Error> {
    ///         # assert!(self.0.longest_ms > 0);
    ///         Ok(Batch::default())
    ///     }
    /// }
    ///
    /// assert!(Own::new(Settings { longest_ms: 0 }, &mut FileHost::new(0)).is_err());
    /// ```
    ///
    /// # Errors
    /// [`Error::config`] when the settings make no sense; the host reports it and waits for new ones.
    fn new(settings: Self::Settings, host: &mut dyn Host) -> Result<Self, Error>;

    /// Called once per interval, and again at once while the returned batch says `more`.
    /// What was read counts as used when this returns `Ok`; after an error the same input comes again.
    ///
    /// ```
    /// use tillwatch_sdk::testing::FileHost;
    /// use tillwatch_sdk::{Batch, Collector, Error, Host, MetricId};
    ///
    /// const LINES: MetricId = MetricId::new(0);
    ///
    /// struct Lines;
    ///
    /// impl Collector for Lines {
    ///     type Settings = serde_json::Value;
    ///
    ///     fn new(_settings: serde_json::Value, _host: &mut dyn Host) -> Result<Self, Error> {
    ///         Ok(Self)
    ///     }
    ///
    ///     fn collect(&mut self, host: &mut dyn Host) -> Result<Batch, Error> {
    ///         let lines = host.read_lines("log", 64 * 1024)?;
    ///         let count = i64::try_from(lines.iter().count()).unwrap_or(i64::MAX);
    ///         let mut batch = Batch::default();
    ///         batch.more = lines.more;
    ///         batch.push_integer(LINES, &[], count, host.now_ms());
    ///         Ok(batch)
    ///     }
    /// }
    ///
    /// let mut host = FileHost::new(0);
    /// assert!(Lines.collect(&mut host).is_err(), "there is no log");
    /// host.append_lines("log", b"one\n");
    /// assert_eq!(Lines.collect(&mut host)?.samples(), 1);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::transient`] when it may work at the next interval, [`Error::permanent`] when it never will.
    fn collect(&mut self, host: &mut dyn Host) -> Result<Batch, Error>;

    /// Changes what `plugin.toml` declares by the settings, such as a currency; usually nothing.
    /// The metrics' number and order must stay.
    ///
    /// ```
    /// use tillwatch_sdk::{Batch, Collector, Descriptor, Error, Host};
    ///
    /// struct Sales {
    ///     currency: String,
    /// }
    ///
    /// impl Collector for Sales {
    ///     type Settings = String;
    ///
    ///     fn new(currency: String, _host: &mut dyn Host) -> Result<Self, Error> {
    ///         Ok(Self { currency })
    ///     }
    ///
    ///     fn collect(&mut self, _host: &mut dyn Host) -> Result<Batch, Error> {
    ///         Ok(Batch::default())
    ///     }
    ///
    ///     fn describe(&self, descriptor: &mut Descriptor) {
    ///         for metric in &mut descriptor.metrics {
    ///             metric.currency = Some(self.currency.clone());
    ///         }
    ///     }
    /// }
    /// ```
    fn describe(&self, _descriptor: &mut Descriptor) {}
}

/// Makes a [`Collector`] the plugin that this crate's `.wasm` contains; natively it only checks the type.
///
/// [`plugin!`] must stand at the root of the same crate.
///
/// ```
/// use tillwatch_sdk::{Batch, Collector, Error, Host};
///
/// # fn descriptor() -> tillwatch_sdk::Descriptor {
/// #     let (name, version) = ("idle".to_owned(), "0.1.0".to_owned());
/// #     tillwatch_sdk::Descriptor { name, version, metrics: Vec::new(), min_interval_ms: 0, attrs: Vec::new() }
/// # }
/// // Here stands `tillwatch_sdk::plugin!();` in a plugin crate.
/// #[derive(serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Settings {}
///
/// struct Idle;
///
/// impl Collector for Idle {
///     type Settings = Settings;
///
///     fn new(_settings: Settings, _host: &mut dyn Host) -> Result<Self, Error> {
///         Ok(Self)
///     }
///
///     fn collect(&mut self, _host: &mut dyn Host) -> Result<Batch, Error> {
///         Ok(Batch::default())
///     }
/// }
///
/// tillwatch_sdk::export!(Idle);
/// # fn main() {}
/// ```
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

/// As [`export!`](crate::export), for a plugin whose `plugin.toml` says `world = "prober"`: it may also ask over the
/// network, by [`Host::http`], [`Host::tcp`] and [`Host::sql`].
///
/// ```
/// use tillwatch_sdk::{Batch, Collector, Error, Host, HttpRequest, MetricId};
///
/// # fn descriptor() -> tillwatch_sdk::Descriptor {
/// #     let (name, version) = ("health".to_owned(), "0.1.0".to_owned());
/// #     tillwatch_sdk::Descriptor { name, version, metrics: Vec::new(), min_interval_ms: 0, attrs: Vec::new() }
/// # }
/// // In a plugin crate, `tillwatch_sdk::plugin!();` makes these constants from plugin.toml.
/// const SUCCESS: MetricId = MetricId::new(0);
///
/// #[derive(serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Settings {}
///
/// struct Health;
///
/// impl Collector for Health {
///     type Settings = Settings;
///
///     fn new(_settings: Settings, _host: &mut dyn Host) -> Result<Self, Error> {
///         Ok(Self)
///     }
///
///     fn collect(&mut self, host: &mut dyn Host) -> Result<Batch, Error> {
///         let mut batch = Batch::default();
///         let is_up = match host.http("checkout", HttpRequest::get()) {
///             Ok(response) => response.is_success(),
///             Err(failure) if failure.fault.is_peers() => false,
///             Err(_nothing_was_tried) => return Ok(batch),
///         };
///         batch.push_integer(SUCCESS, &[], i64::from(is_up), host.now_ms());
///         Ok(batch)
///     }
/// }
///
/// tillwatch_sdk::export_prober!(Health);
/// # fn main() {}
/// ```
#[cfg(not(target_arch = "wasm32"))]
#[macro_export]
macro_rules! export_prober {
    ($collector:ty) => {
        $crate::export!($collector);
    };
}
