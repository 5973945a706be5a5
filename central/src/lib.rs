//! Central: receives the feeds of the stores, keeps them, and says which slow till costs what.
//!
//! The modules stand in the order in which a datum passes through them.

#[cfg(feature = "embedded-broker")]
pub mod broker;
pub mod intake;
pub mod cursor;
pub mod decode;
pub mod currency;
pub mod rollup;
pub mod watermark;
pub mod archive;
pub mod health;
pub mod books;
pub mod receive;
pub mod model;
pub mod topology;
pub mod expect;
pub mod correlate;
pub mod cost;
pub mod incident;
pub mod impact;
pub mod simulate;
pub mod engine;
pub mod recording;
pub mod replay;
pub mod view;
pub mod api;
pub mod dashboard;
pub mod http;
pub mod document;
pub mod config;
pub mod tls;
pub mod json;
pub mod cli;
pub mod run;
