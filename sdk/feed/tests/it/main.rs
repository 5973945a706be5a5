//! The feed's contract held against its files: generated code, golden payloads, FORMAT.md, and properties.
#![expect(clippy::disallowed_methods, reason = "the crate opens no file, its tests do")]
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]
#![expect(clippy::cast_precision_loss, reason = "test values are small")]

mod generated;
mod arbitrary;
mod properties;
mod cases;
mod json;
mod golden;
mod format;
mod foreign;
mod size;

/// Shall files be written instead of compared?
fn update() -> bool {
    std::env::var_os("UPDATE").is_some()
}
