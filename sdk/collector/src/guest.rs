//! The plugin's side of `collector.wit`, in a `.wasm` only: WIT types come in and go out, ours stay inside.

use std::cell::RefCell;
use std::thread::LocalKey;

use crate::{Collector, Document, Entry, Error, ErrorKind, Fault, Host, Kind, Level, Lines, Listing, Values};

#[allow(
    missing_docs,
    unreachable_pub,
    reason = "generated from collector.wit, which documents it"
)]
#[allow(
    unsafe_code,
    reason = "generated: the calling convention of components passes pointers"
)]
#[allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "generated"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "wit",
        world: "collector",
        pub_export_macro: true,
    });
}

use bindings::tillwatch::collector::{clock, log, source, state, types};

/// Where the one collector of a `.wasm` lives between calls.
pub type Slot<C> = RefCell<Option<C>>;

/// Makes a [`Collector`] the plugin that this crate's `.wasm` contains.
///
/// [`plugin!`](crate::plugin) must stand at the root of the same crate.
#[macro_export]
macro_rules! export {
    ($collector:ty) => {
        const _: () = {
            ::std::thread_local! {
                static SLOT: $crate::guest::Slot<$collector> = const { ::std::cell::RefCell::new(None) };
            }

            struct Plugin;

            impl $crate::guest::bindings::Guest for Plugin {
                fn describe() -> $crate::guest::bindings::Descriptor {
                    $crate::guest::describe(&SLOT, crate::descriptor())
                }

                fn configure(settings: String) -> Result<(), $crate::guest::bindings::Error> {
                    $crate::guest::configure(&SLOT, &settings)
                }

                fn collect() -> Result<$crate::guest::bindings::Batch, $crate::guest::bindings::Error> {
                    $crate::guest::collect(&SLOT)
                }
            }

    $crate::guest::bindings::export!(Plugin with_types_in $crate::guest::bindings);
        };
    };
}

/// The descriptor, changed by the configured collector.
pub fn describe<C: Collector>(
    slot: &'static LocalKey<Slot<C>>,
    mut descriptor: crate::Descriptor,
) -> types::Descriptor {
    slot.with_borrow(|collector| {
        if let Some(collector) = collector {
            collector.describe(&mut descriptor);
        }
    });
    descriptor_out(descriptor)
}

/// Makes the collector from its settings.
///
/// # Errors
/// When the settings are not the collector's, or it refuses them.
pub fn configure<C: Collector>(slot: &'static LocalKey<Slot<C>>, settings: &str) -> Result<(), types::Error> {
    std::panic::set_hook(Box::new(|info| log::write(log::Level::Error, &info.to_string())));
    let settings = serde_json::from_str(settings).map_err(|error| error_out(Error::config(error.to_string())))?;
    let collector = C::new(settings, &mut Imports).map_err(error_out)?;
    slot.set(Some(collector));
    Ok(())
}

/// One call of the collector.
///
/// # Errors
/// The collector's own, or when it was not configured.
pub fn collect<C: Collector>(slot: &'static LocalKey<Slot<C>>) -> Result<types::Batch, types::Error> {
    slot.with_borrow_mut(|collector| match collector {
        Some(collector) => collector.collect(&mut Imports).map(batch_out).map_err(error_out),
        None => Err(error_out(Error::permanent("collect was called before configure"))),
    })
}

/// The host's functions.
struct Imports;

impl Host for Imports {
    fn now_ms(&mut self) -> u64 {
        clock::now_ms()
    }

    fn log(&mut self, level: Level, message: &str) {
        let level = match level {
            Level::Debug => log::Level::Debug,
            Level::Info => log::Level::Info,
            Level::Warn => log::Level::Warn,
            Level::Error => log::Level::Error,
        };
        log::write(level, message);
    }

    fn state(&mut self) -> Vec<u8> {
        state::get()
    }

    fn set_state(&mut self, value: &[u8]) -> Result<(), Error> {
        state::set(value).map_err(Error::permanent)
    }

    fn read_lines(&mut self, source: &str, bytes_max: u32) -> Result<Lines, Fault> {
        let lines = source::read_lines(source, bytes_max).map_err(fault_in)?;
        Ok(Lines {
            bytes: lines.bytes,
            more: lines.more,
            skipped_bytes: lines.skipped_bytes,
        })
    }

    fn next_document(&mut self, source: &str) -> Result<Option<Document>, Fault> {
        let document = source::next_document(source).map_err(fault_in)?;
        Ok(document.map(|document| Document {
            name: document.name,
            modified_ms: document.modified_ms,
            bytes: document.bytes,
        }))
    }

    fn list_folder(&mut self, source: &str) -> Result<Listing, Fault> {
        let listing = source::list_folder(source).map_err(fault_in)?;
        let entry_in = |entry: source::Entry| Entry {
            name: entry.name,
            size: entry.size,
            modified_ms: entry.modified_ms,
        };
        Ok(Listing {
            count: listing.count,
            bytes: listing.bytes,
            oldest_modified_ms: listing.oldest_modified_ms,
            entries: listing.entries.into_iter().map(entry_in).collect(),
        })
    }
}

fn fault_in(fault: source::Fault) -> Fault {
    match fault {
        source::Fault::Unknown => Fault::Unknown,
        source::Fault::Unavailable => Fault::Unavailable,
        source::Fault::Exhausted => Fault::Exhausted,
    }
}

fn error_out(error: Error) -> types::Error {
    let kind = match error.kind {
        ErrorKind::Config => types::ErrorKind::Config,
        ErrorKind::Transient => types::ErrorKind::Transient,
        ErrorKind::Permanent => types::ErrorKind::Permanent,
    };
    types::Error {
        kind,
        message: error.message,
    }
}

fn batch_out(batch: crate::Batch) -> types::Batch {
    let more = batch.more;
    let series_out = |series: crate::Series| types::Series {
        metric: series.metric.index(),
        labels: series.labels,
        values: match series.values {
            Values::Reals(reals) => types::Values::Reals(reals),
            Values::Integers(integers) => types::Values::Integers(integers),
        },
        times_ms: series.times_ms,
    };
    types::Batch {
        series: batch.into_series().into_iter().map(series_out).collect(),
        more,
    }
}

fn descriptor_out(descriptor: crate::Descriptor) -> types::Descriptor {
    types::Descriptor {
        name: descriptor.name,
        version: descriptor.version,
        metrics: descriptor.metrics.into_iter().map(metric_out).collect(),
        min_interval_ms: descriptor.min_interval_ms,
        attrs: descriptor.attrs,
    }
}

fn metric_out(metric: crate::Metric) -> types::Metric {
    types::Metric {
        name: metric.name,
        unit: metric.unit,
        kind: match metric.kind {
            Kind::Gauge => types::Kind::Gauge,
            Kind::Counter => types::Kind::Counter,
            Kind::Sum => types::Kind::Sum,
            Kind::Distribution => types::Kind::Distribution,
        },
        help: metric.help,
        label_keys: metric.label_keys,
        role: metric.role,
        decimals: metric.decimals,
        currency: metric.currency,
    }
}
