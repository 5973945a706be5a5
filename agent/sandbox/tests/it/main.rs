//! The sandbox as the agent has it: real plugins, compiled by `tillwatch-compile`, well-behaved and hostile, and native
//! code in their place.

mod artifacts;
mod behavior;
mod build;
mod host;
mod process;
mod releases;
mod sealed;
