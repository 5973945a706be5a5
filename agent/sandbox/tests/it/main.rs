//! The sandbox with real plugins: compiled by `tillwatch-compile`, well-behaved and hostile.

mod artifacts;
mod behavior;
mod build;
mod host;
