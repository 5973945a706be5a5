//! The agent of one site, in the order of a datum's way: settings, sources, plugins, keeper, spool, uplink.
//!
//! `run` makes every task and channel; everything else is told what it needs.

pub mod cli;
pub mod init;
pub mod config;
pub mod check;
pub mod doctor;
pub mod backtest;
pub mod run;
pub mod clock;
pub mod stop;
pub mod schedule;
pub mod rate;
pub mod runner;
pub mod reload;
pub mod collectors;
pub mod platform;
pub mod source;
pub mod plugin;
pub mod bundle;
pub mod health;
pub mod keeper;
pub mod spool;
pub mod tls;
pub mod uplink;
pub mod backfill;
pub mod preview;
pub mod inspect;
pub mod findings;
mod evidence;
mod whole;
mod output;
