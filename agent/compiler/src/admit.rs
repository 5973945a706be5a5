//! Whether a file is a plugin at all, before any of it is compiled.
//!
//! Only a flat component that imports nothing but interfaces of `tillwatch:collector` passes.

use anyhow::{Context, Result, bail, ensure};
use wasmparser::{ComponentTypeRef, Parser, Payload, TypeBounds};

/// The contract of this agent: `sdk/wit/collector.wit`. Any patch version links.
const PACKAGE: &str = "tillwatch:collector";
const VERSION: &str = "0.1";
const INTERFACES: [&str; 5] = ["types", "log", "clock", "state", "source"];
/// What a component made by `wasm-component-ld` has is 3.
const CORE_MODULES_MAX: usize = 8;

/// Of a name in a message.
const NAME_CHARS_MAX: usize = 100;

/// Refuses what the sandbox could not or should not run.
pub(crate) fn check(wasm: &[u8]) -> Result<()> {
    if Parser::is_core_wasm(wasm) {
        bail!(
            "it is a core module, not a component\nhint: build it with `cargo xtask plugins` or `tillwatch plugin build`"
        );
    }
    ensure!(Parser::is_component(wasm), "it is not WebAssembly");
    let mut core_modules = 0;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.context("it is not a valid component")? {
            Payload::ComponentSection { .. } => bail!("it contains another component"),
            Payload::ModuleSection { .. } => core_modules += 1,
            Payload::ComponentImportSection(imports) => {
                for import in imports {
                    let import = import?;
                    // A world's own names for imported types bring nothing in.
                    if !matches!(import.ty, ComponentTypeRef::Type(TypeBounds::Eq(_))) {
                        check_import(import.name.name)?;
                    }
                }
            }
            _ => {}
        }
    }
    ensure!(
        core_modules <= CORE_MODULES_MAX,
        "it has {core_modules} core modules, at most {CORE_MODULES_MAX}"
    );
    Ok(())
}

/// `tillwatch:collector/log@0.1.0` passes.
fn check_import(name: &str) -> Result<()> {
    let known = name
        .strip_prefix(PACKAGE)
        .and_then(|rest| rest.strip_prefix('/'))
        .and_then(|rest| rest.split_once('@'));
    let name = shortened(name);
    let (interface, version) = known.with_context(|| {
        format!("it wants {name}, but a plugin gets only {PACKAGE}\nhint: files, network, clock and environment of the standard library are out of reach")
    })?;
    let same_minor = version
        .strip_prefix(VERSION)
        .is_some_and(|patch| patch.starts_with('.'));
    ensure!(same_minor, "it wants {name}, this agent has {PACKAGE} {VERSION}");
    ensure!(
        INTERFACES.contains(&interface),
        "it wants {name}, this agent's {PACKAGE} {VERSION} has only {}",
        INTERFACES.join(", ")
    );
    Ok(())
}

/// A plugin may give its imports names of any length.
fn shortened(name: &str) -> String {
    match name.char_indices().nth(NAME_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a component in text.
    fn refusal(text: &str) -> String {
        let wasm = wat::parse_str(text).expect(text);
        check(&wasm).expect_err(text).to_string()
    }

    #[test]
    fn only_flat_components_with_known_imports_pass() {
        check(&wat::parse_str("(component)").unwrap()).unwrap();
        let known = r#"(component (import "tillwatch:collector/log@0.1.7" (instance)))"#;
        check(&wat::parse_str(known).unwrap()).unwrap();
        for (text, expected) in [
            ("(module)", "it is a core module"),
            ("(component (component))", "it contains another component"),
            (
                r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#,
                "it wants wasi:cli/environment@0.2.0, but",
            ),
            (
                r#"(component (import "file" (type (sub resource))))"#,
                "it wants file, but",
            ),
            (r#"(component (import "exit" (func)))"#, "it wants exit, but"),
            (
                r#"(component (import "tillwatch:collector/log@0.2.0" (instance)))"#,
                "it wants tillwatch:collector/log@0.2.0, this",
            ),
            (
                r#"(component (import "tillwatch:collector/http@0.1.0" (instance)))"#,
                "it wants tillwatch:collector/http@0.1.0, this",
            ),
        ] {
            assert!(refusal(text).starts_with(expected), "{}", refusal(text));
        }
    }

    #[test]
    fn a_long_name_is_not_quoted_whole() {
        let text = format!(r#"(component (import "{}" (func)))"#, "x".repeat(90_000));
        assert!(refusal(&text).starts_with("it wants xxx"));
        assert!(refusal(&text).len() < 400);
    }

    #[test]
    fn bytes_that_are_no_component_are_refused() {
        assert!(
            check(b"hello")
                .unwrap_err()
                .to_string()
                .starts_with("it is not WebAssembly")
        );
        let mut torn = wat::parse_str("(component (core module (func)))").unwrap();
        torn.truncate(torn.len() - 1);
        assert!(check(&torn).is_err());
    }

    #[test]
    fn too_many_core_modules_are_refused() {
        let text = format!("(component {})", "(core module)".repeat(CORE_MODULES_MAX + 1));
        assert!(refusal(&text).starts_with("it has 9 core modules"));
    }
}
