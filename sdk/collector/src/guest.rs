//! The plugin's side of `collector.wit`, in a `.wasm` only: WIT types come in and go out, ours stay inside.

use std::cell::RefCell;
use std::thread::LocalKey;

use crate::host::NOT_GRANTED;
use crate::{
    Collector, Column, ColumnValues, Cursor, Document, Entry, Error, ErrorKind, Fault, Host, HttpRequest, HttpResponse,
    Kind, Level, Lines, Listing, Method, PeerFailure, PeerFault, Table, TcpRequest, TcpResponse, Values,
};

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
        // What a plugin does not call is not in its component: with `Imports` as its host it is a collector.
        world: "prober",
        pub_export_macro: true,
    });
}

use bindings::tillwatch::collector::{clock, http, log, peer, source, sql, state, tcp, types};

/// Where the one collector of a `.wasm` lives between calls.
pub type Slot<C> = RefCell<Option<C>>;

/// Makes a [`Collector`] the plugin that this crate's `.wasm` contains.
///
/// [`plugin!`](crate::plugin) must stand at the root of the same crate.
#[macro_export]
macro_rules! export {
    ($collector:ty) => {
        $crate::export_with!($collector, $crate::guest::Imports);
    };
}

/// As [`export!`](crate::export), for a plugin that may ask over the network.
#[macro_export]
macro_rules! export_prober {
    ($collector:ty) => {
        $crate::export_with!($collector, $crate::guest::ProberImports);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! export_with {
    ($collector:ty, $imports:path) => {
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
                    $crate::guest::configure(&SLOT, &settings, &mut $imports)
                }

                fn collect() -> Result<$crate::guest::bindings::Batch, $crate::guest::bindings::Error> {
                    $crate::guest::collect(&SLOT, &mut $imports)
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
pub fn configure<C: Collector>(
    slot: &'static LocalKey<Slot<C>>,
    settings: &str,
    host: &mut dyn Host,
) -> Result<(), types::Error> {
    std::panic::set_hook(Box::new(|info| log::write(log::Level::Error, &info.to_string())));
    // Serde would take a list for a structure whose fields all have defaults.
    if !settings.trim_start().starts_with('{') {
        return Err(error_out(Error::config("the settings are no object")));
    }
    let settings = serde_json::from_str(settings).map_err(|error| error_out(Error::config(error.to_string())))?;
    let collector = C::new(settings, host).map_err(error_out)?;
    slot.set(Some(collector));
    Ok(())
}

/// One call of the collector.
///
/// # Errors
/// The collector's own, or when it was not configured.
pub fn collect<C: Collector>(
    slot: &'static LocalKey<Slot<C>>,
    host: &mut dyn Host,
) -> Result<types::Batch, types::Error> {
    slot.with_borrow_mut(|collector| match collector {
        Some(collector) => collector.collect(host).map(batch_out).map_err(error_out),
        None => Err(error_out(Error::permanent("collect was called before configure"))),
    })
}

/// The host's functions, of the world `collector`.
pub struct Imports;

/// Those of the world `prober`.
pub struct ProberImports;

impl Host for ProberImports {
    fn now_ms(&mut self) -> u64 {
        Imports.now_ms()
    }

    fn log(&mut self, level: Level, message: &str) {
        Imports.log(level, message);
    }

    fn state(&mut self) -> Vec<u8> {
        Imports.state()
    }

    fn set_state(&mut self, value: &[u8]) -> Result<(), Error> {
        Imports.set_state(value)
    }

    fn read_lines(&mut self, source: &str, bytes_max: u32) -> Result<Lines, Fault> {
        Imports.read_lines(source, bytes_max)
    }

    fn next_document(&mut self, source: &str) -> Result<Option<Document>, Fault> {
        Imports.next_document(source)
    }

    fn list_folder(&mut self, source: &str) -> Result<Listing, Fault> {
        Imports.list_folder(source)
    }

    fn http(&mut self, endpoint: &str, request: HttpRequest) -> Result<HttpResponse, PeerFailure> {
        let method = match request.method {
            Method::Get => http::Method::Get,
            Method::Post => http::Method::Post,
        };
        let request = http::Request {
            method,
            path: request.path,
            headers: request.headers,
            body: request.body,
        };
        let response = http::send(endpoint, &request).map_err(failure_in)?;
        Ok(HttpResponse {
            status: response.status,
            headers: response.headers,
            body: response.body,
            elapsed_us: response.elapsed_us,
        })
    }

    fn tcp(&mut self, peer: &str, request: TcpRequest) -> Result<TcpResponse, PeerFailure> {
        let request = tcp::Request {
            bytes: request.bytes,
            until: request.until,
            max_bytes: request.bytes_max,
        };
        let response = tcp::exchange(peer, &request).map_err(failure_in)?;
        Ok(TcpResponse {
            bytes: response.bytes,
            connect_us: response.connect_us,
            elapsed_us: response.elapsed_us,
        })
    }

    fn sql(&mut self, query: &str, after: Option<Cursor>) -> Result<Table, PeerFailure> {
        let after = after.map(|cursor| match cursor {
            Cursor::Integer(integer) => sql::Cursor::Integer(integer),
            Cursor::Text(text) => sql::Cursor::Text(text),
        });
        let table = sql::run(query, after.as_ref()).map_err(failure_in)?;
        Ok(Table {
            columns: table.columns.into_iter().map(column_in).collect(),
            more: table.more,
            elapsed_us: table.elapsed_us,
        })
    }
}

fn column_in(column: sql::Column) -> Column {
    Column {
        name: column.name,
        values: match column.values {
            sql::Values::Integers(values) => ColumnValues::Integers(values),
            sql::Values::Reals(values) => ColumnValues::Reals(values),
            sql::Values::Texts(values) => ColumnValues::Texts(values),
        },
    }
}

fn failure_in(failure: peer::Failure) -> PeerFailure {
    let fault = match failure.fault {
        peer::Fault::Unknown => return NOT_GRANTED,
        peer::Fault::Denied => PeerFault::Denied,
        peer::Fault::Unreachable => PeerFault::Unreachable,
        peer::Fault::Untrusted => PeerFault::Untrusted,
        peer::Fault::Timeout => PeerFault::Timeout,
        peer::Fault::TooLarge => PeerFault::TooLarge,
        peer::Fault::Malformed => PeerFault::Malformed,
        peer::Fault::Exhausted => PeerFault::Exhausted,
        peer::Fault::TooSoon => PeerFault::TooSoon,
    };
    PeerFailure {
        fault,
        elapsed_us: failure.elapsed_us,
    }
}

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
