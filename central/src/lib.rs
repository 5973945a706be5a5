//! Central: receives the feeds of the stores, keeps them, and says which slow till costs what.
//!
//! The modules stand in the order in which a datum passes through them.

pub mod cursor;
pub mod decode;
pub mod rollup;
pub mod model;
pub mod incident;
pub mod impact;
