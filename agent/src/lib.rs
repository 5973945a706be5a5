//! The agent of one site, in the order of a datum's way: settings, sources, plugins, keeper, spool, uplink.
//!
//! `run` makes every task and channel; everything else is told what it needs.

pub mod config;
pub mod clock;
pub mod platform;
pub mod source;
pub mod plugin;
pub mod health;
pub mod schedule;
pub mod spool;
pub mod tls;
pub mod uplink;
