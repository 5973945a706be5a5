//! Configured plugins: what they ask for, what they are granted, how they are compiled, called and kept in bounds.

pub mod manifest;
pub mod grant;
pub mod range;
mod peer_grant;
#[cfg(test)]
pub(crate) mod probing_tests;
pub mod program;
pub mod compile;
pub mod load;
pub mod host;
pub mod caution;
pub mod restraint;
mod history;
pub mod collector;
pub mod refusal;
pub mod new;
pub mod build;
pub mod docs;
mod toolchain;
pub mod outside;
pub(crate) mod open_label;
pub mod golden;
mod contract;
pub mod list;
pub mod inspect;
pub mod run;
pub mod bench;
pub mod record;

use tillwatch_core::sample::Kind;

/// As in plugin.toml.
fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
        Kind::Sum => "sum",
        Kind::Distribution => "distribution",
    }
}
