//! What spans machines: a chain of stores with a known truth, and the real programs, brokers and certificates around it.
//!
//! The demo, the end-to-end tests and the benchmarks are made of these.

#![allow(clippy::print_stderr, reason = "what runs a test or the demo talks to the terminal")]

pub mod story;
pub mod cards;
pub mod doors;
pub mod parsers;
pub mod payloads;
pub mod pki;
pub mod process;
pub mod mosquitto;
pub mod agent;
pub mod central;
pub mod client;
pub mod real_store;
pub mod proxy;
pub mod tunnel;
pub mod usage;
pub mod fleet;
pub mod simulation;
pub mod judge;
pub mod torture;
