//! Central from its outside: cursor, archive, what happens to a message, and the embedded broker.

mod archive;
mod chain;
mod cursor;
mod impact;
mod receive;
mod store;
