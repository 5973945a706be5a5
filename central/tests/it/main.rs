//! Central from its outside: cursor, archive, what happens to a message, and the embedded broker.

mod archive;
#[cfg(feature = "embedded-broker")]
mod broker;
mod chain;
mod cursor;
mod impact;
mod receive;
mod replay;
mod store;
