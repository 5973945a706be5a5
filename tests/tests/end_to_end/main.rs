//! Real programs, a real broker, TLS, real plugins: what only shows when everything runs together.
//!
//! Needs mosquitto, minisign, nginx, Apache, logrotate, the brokers and databases of Debian, Tryton, and what `cargo xtask test` builds before it:
//! programs, plugins and the plugin compiler.

#![allow(clippy::print_stdout, reason = "a seed that cannot be seen cannot be replayed")]

mod world;
mod kills;
mod uplink;
mod torture;
mod reload;
mod rotation;
mod rights;
mod consumers;
mod commands;
mod backtest;
mod bundles;
mod authors;
mod releases;
mod tutorial;
mod cardholder;
mod doors;
mod hostile;
mod fixtures;
mod queues;
mod rabbitmq;
mod redis;
mod nats;
mod tryton;
mod databases;
mod web;
