//! A plugin of one patch version of the contract in a host of another, as the linker sees both.

#[path = "../../src/engine.rs"]
mod engine;

use std::path::Path;

use tillwatch_border::artifact::{WASM_STACK_BYTES_MAX, without_header};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, Val};
use wasmtime::{Engine, Result, Store};

use crate::build::compile;

/// `sales` as it was released with 0.1.0, compiled today.
fn released(engine: &Engine) -> Component {
    let wasm = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/releases/0.1.0/plugins/sales/sales.wasm");
    let artifact = std::fs::read(compile(&wasm, "released")).expect("it was just written");
    let (code, _is_metered) = without_header(&artifact).expect("the header is ours");
    #[expect(unsafe_code, reason = "the bytes are what the compiler has just written")]
    // SAFETY: `deserialize` trusts that they are what `precompile_component` returned.
    let component = unsafe { Component::deserialize(engine, code) };
    component.expect("the engine is the compiler's")
}

/// All that the component imports, as a host of `version` has it; what is added came with that version.
fn host(engine: &Engine, component: &Component, version: &str, added: &[&str]) -> Result<Linker<()>> {
    let mut linker = Linker::new(engine);
    for (import, item) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(interface) = item.ty else {
            continue;
        };
        let mut offered = linker.instance(&import.replace("@0.1.0", version))?;
        let functions = interface
            .exports(engine)
            .filter(|(_name, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)));
        let names = functions.map(|(name, _item)| name).chain(added.iter().copied());
        for name in names {
            offered.func_new(name, |_store, _type, _arguments, _results| {
                Err(wasmtime::Error::msg("not asked here"))
            })?;
        }
    }
    Ok(linker)
}

#[test]
fn a_plugin_of_an_older_patch_version_runs_in_a_host_with_more_functions() {
    let engine = Engine::new(&engine::config(WASM_STACK_BYTES_MAX, false)).unwrap();
    let component = released(&engine);
    for (version, added, is_good) in [
        ("@0.1.0", &[][..], true),
        ("@0.1.1", &["added", "another"][..], true),
        ("@0.1.17", &["added"][..], true),
        // Without the older world beside it, a new minor version takes nobody.
        ("@0.2.0", &["added"][..], false),
    ] {
        let linker = host(&engine, &component, version, added).unwrap();
        let mut store = Store::new(&engine, ());
        let instance = linker.instantiate(&mut store, &component);
        assert_eq!(instance.is_ok(), is_good, "{version}: {:?}", instance.err());
        let Ok(instance) = instance else { continue };
        let describe = instance.get_func(&mut store, "describe").unwrap();
        let mut described = [Val::Bool(false)];
        describe.call(&mut store, &[], &mut described).unwrap();
        let told = format!("{described:?}");
        assert!(told.contains("sales.transactions"), "{version}: {told}");
    }
}
