//! The feed of Tillwatch: what travels over MQTT between a store's agent and the center.
//!
//! The path of a datum through this crate: [`summary`] and [`histogram`] hold what was measured, [`score`] what the edge
//! thinks of it, [`message`] puts both into births, blocks, gaps and findings, [`codec`] turns those into payloads and
//! back, [`topic`] says where they go, and [`ranges`] is how both sides keep the numbers of what has arrived.
//!
//! `FORMAT.md` is the contract in words, `feed.proto` in protobuf, `testdata/v1` in bytes.
//! Nothing here opens a file or a socket, or asks for the time.
#![warn(missing_docs, clippy::missing_errors_doc)]

pub mod summary;
pub mod histogram;
pub mod score;
pub mod message;
mod schema;
#[rustfmt::skip]
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::restriction,
    clippy::pedantic,
    reason = "generated from feed.proto; an integration test keeps it in step"
)]
mod proto;
pub mod codec;
pub mod topic;
pub mod ranges;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
