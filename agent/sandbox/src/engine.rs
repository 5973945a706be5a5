//! The engine's settings; `agent/compiler` includes this very file, so that both sides cannot differ.
//!
//! Nothing in compiled code looks for a deadline: the agent ends the whole process at it.

use wasmtime::Config;

/// The settings of every engine. Linear memories keep wasmtime's 4 GiB reservation with guard pages:
/// virtual memory only, and it makes bounds checks free. Metered code counts what it executes, and no store runs it.
pub(crate) fn config(wasm_stack_bytes_max: usize, is_metered: bool) -> Config {
    let mut config = Config::new();
    config
        .max_wasm_stack(wasm_stack_bytes_max)
        .consume_fuel(is_metered)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_relaxed_simd(false)
        .wasm_tail_call(false)
        .wasm_component_model(true)
        .wasm_backtrace_max_frames(None);
    config
}
