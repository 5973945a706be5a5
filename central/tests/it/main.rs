//! Central from its outside: cursor, archive, what happens to a message, and the embedded broker.

mod archive;
mod cursor;
mod receive;
mod store;
