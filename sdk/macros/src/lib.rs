//! Turns `plugin.toml` into Rust at build time.
//!
//! What comes in is the file beside the crate's `Cargo.toml`; what goes out are the constants and the descriptor,
//! or a compile error that names the line. Nothing is read at run time.

#![warn(missing_docs, clippy::missing_errors_doc)]

mod generate;
mod manifest;
#[cfg(test)]
mod reference;

use std::path::PathBuf;

use proc_macro::TokenStream;

use manifest::Manifest;

/// Reads the crate's `plugin.toml` and generates `pub mod metric` and `pub fn descriptor()`.
#[proc_macro]
pub fn plugin(input: TokenStream) -> TokenStream {
    let code = if input.is_empty() {
        expand().unwrap_or_else(|message| generate::compile_error(&message))
    } else {
        generate::compile_error("plugin!() takes nothing: everything stands in plugin.toml")
    };
    code.parse().expect("what we generate is Rust")
}

fn expand() -> Result<String, String> {
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set: build with cargo")?;
    let path = PathBuf::from(folder).join("plugin.toml");
    let text = std::fs::read_to_string(&path).map_err(|error| {
        format!(
            "{}: {error}\nhint: every plugin has a plugin.toml beside its Cargo.toml",
            path.display()
        )
    })?;
    let manifest = Manifest::parse(&text).map_err(|problem| problem.display(&text))?;
    Ok(generate::code(&manifest, &path.display().to_string()))
}
