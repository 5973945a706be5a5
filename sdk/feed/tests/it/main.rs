//! The feed's contract held against its files: generated code, golden payloads, FORMAT.md, and properties.

mod generated;

/// Shall files be written instead of compared?
fn update() -> bool {
    std::env::var_os("UPDATE").is_some()
}
