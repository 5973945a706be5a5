//! Turns `plugin.toml` into Rust at build time.

use proc_macro::TokenStream;

/// See `tillwatch_sdk::plugin`.
#[proc_macro]
pub fn plugin(_input: TokenStream) -> TokenStream {
    TokenStream::new()
}
