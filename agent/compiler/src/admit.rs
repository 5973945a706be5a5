//! Whether a file is a plugin at all, before any of it is compiled.
//!
//! Only a component passes that imports nothing but interfaces of `tillwatch:collector`, and holds no other component
//! that could run code: those of languages with a runtime of their own hold some that only rename types.

use anyhow::{Context, Result, bail, ensure};
use wasmparser::{ComponentTypeRef, Parser, Payload, TypeBounds};

use crate::contract;

/// What a component made by `wasm-component-ld` has is 3; Python's interpreter with its libraries and stubs is 38.
const CORE_MODULES_MAX: usize = 64;
/// Components inside the component; one for each interface that it exports would be enough.
const SHIMS_MAX: usize = 8;
/// A plugin has a dozen.
const NAMES_MAX: usize = 200;
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
    let (mut place, mut core_modules, mut shims) = (Place::default(), 0, 0);
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.context("it is not a valid component")?;
        match &payload {
            payload if place.is_in_shim() => check_shim(payload)?,
            Payload::ComponentSection { .. } => shims += 1,
            Payload::ModuleSection { .. } => core_modules += 1,
            Payload::ComponentImportSection(imports) => {
                for import in imports.clone() {
                    let import = import?;
                    if !is_own_type(import.ty) {
                        contract::check_import(&shortened(import.name.name))?;
                    }
                }
            }
            _ => {}
        }
        place.pass(&payload);
    }
    ensure!(
        core_modules <= CORE_MODULES_MAX,
        "it has {core_modules} core modules, at most {CORE_MODULES_MAX}"
    );
    ensure!(
        shims <= SHIMS_MAX,
        "it contains {shims} components, at most {SHIMS_MAX}"
    );
    Ok(())
}

/// A component inside another gives types other names and passes functions on; with no code and no instances of its own
/// it costs nothing however often it is instantiated.
fn check_shim(payload: &Payload<'_>) -> Result<()> {
    let is_names = matches!(
        payload,
        Payload::Version { .. }
            | Payload::ComponentTypeSection(_)
            | Payload::ComponentImportSection(_)
            | Payload::ComponentExportSection(_)
            | Payload::CustomSection(_)
            | Payload::End(_)
    );
    ensure!(is_names, "it contains another component with code");
    Ok(())
}

/// Where in the nested sections of a file a parser is.
#[derive(Default)]
struct Place {
    /// One for each open section of a module or component; true for a component.
    open: Vec<bool>,
}

impl Place {
    fn pass(&mut self, payload: &Payload<'_>) {
        match payload {
            Payload::ComponentSection { .. } => self.open.push(true),
            Payload::ModuleSection { .. } => self.open.push(false),
            // The outermost component's own end comes last and finds nothing open.
            Payload::End(_) => drop(self.open.pop()),
            _ => {}
        }
    }

    fn is_outermost(&self) -> bool {
        self.open.is_empty()
    }

    fn is_in_shim(&self) -> bool {
        self.open.last() == Some(&true)
    }
}

/// What a component asks for and offers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub imports: Vec<String>,
    pub exports: Vec<String>,
}

/// The names of a component's imports and exports, whether or not this agent has them.
pub(crate) fn names(wasm: &[u8]) -> Result<Names> {
    ensure!(Parser::is_component(wasm), "it is not a component");
    let (mut names, mut place) = (Names::default(), Place::default());
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.context("it is not a valid component")?;
        match &payload {
            Payload::ComponentImportSection(imports) if place.is_outermost() => {
                for import in imports.clone() {
                    let import = import?;
                    if !is_own_type(import.ty) {
                        names.imports.push(import.name.name.to_owned());
                    }
                }
            }
            Payload::ComponentExportSection(exports) if place.is_outermost() => {
                for export in exports.clone() {
                    names.exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
        place.pass(&payload);
        let count = names.imports.len() + names.exports.len();
        ensure!(count <= NAMES_MAX, "it has more than {NAMES_MAX} imports and exports");
    }
    Ok(names)
}

/// A world's own names for imported types bring nothing in.
fn is_own_type(ty: ComponentTypeRef) -> bool {
    matches!(ty, ComponentTypeRef::Type(TypeBounds::Eq(_)))
}

/// A plugin may give its imports names of any length, and of characters that move a terminal's cursor.
fn shortened(name: &str) -> String {
    match name.char_indices().nth(NAME_CHARS_MAX) {
        Some((end, _)) => format!("{}...", name[..end].escape_debug()),
        None => name.escape_debug().to_string(),
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
    fn only_components_with_known_imports_and_without_code_in_others_pass() {
        check(&wat::parse_str("(component)").unwrap()).unwrap();
        let shim = r#"(component (component (import "a" (func $f)) (export "b" (func $f))))"#;
        check(&wat::parse_str(shim).unwrap()).unwrap();
        let known = r#"(component (import "tillwatch:collector/log@0.1.7" (instance)))"#;
        check(&wat::parse_str(known).unwrap()).unwrap();
        for (text, expected) in [
            ("(module)", "it is a core module"),
            (
                "(component (component (core module)))",
                "it contains another component with code",
            ),
            (
                "(component (component (component)))",
                "it contains another component with code",
            ),
            (
                r#"(component (component (import "a" (func $f)) (instance (export "b" (func $f)))))"#,
                "it contains another component with code",
            ),
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
                "plugin wants 0.2.0, this agent has 0.1.0",
            ),
            (
                r#"(component (import "tillwatch:collector/printer@0.1.0" (instance)))"#,
                "it wants tillwatch:collector/printer@0.1.0, but",
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
    fn a_name_says_nothing_to_a_terminal() {
        assert_eq!(shortened("wasi:x\u{1b}[2J\n"), "wasi:x\\u{1b}[2J\\n");
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
        assert!(refusal(&text).starts_with("it has 65 core modules"));
    }

    #[test]
    fn names_are_told_also_of_what_no_agent_has() {
        let text = r#"(component
            (import "tillwatch:collector/log@0.2.0" (instance))
            (import "exit" (func))
            (component (import "inner" (func)))
            (core module (func))
            (export "again" (func 0)))"#;
        let names = names(&wat::parse_str(text).unwrap()).unwrap();
        assert_eq!(names.imports, ["tillwatch:collector/log@0.2.0", "exit"]);
        assert_eq!(names.exports, ["again"]);
    }
}
