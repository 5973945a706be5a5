//! `tillwatch-sandbox`: the process of all plugins of an agent, which starts and ends it.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;

use tillwatch_border::wire::{Refusal, Start, StartPlugin};
use tillwatch_sandbox::process::{Worker, run};
use tillwatch_sandbox::{Plugin, Sandbox, seal, serve};

fn main() -> ExitCode {
    seal::close_inherited();
    match run(load, |bytes| seal::seal(bytes).map_err(|error| error.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_no_agent) => {
            // Whoever started it by hand looks for a reason why the agent's plugins do not run, and this is none.
            drop(writeln!(
                std::io::stderr(),
                "tillwatch-sandbox can run here; only tillwatch starts it"
            ));
            ExitCode::FAILURE
        }
    }
}

/// Plugins of the same code share it.
fn load(codes: Vec<OwnedFd>, start: &Start) -> Result<Vec<Result<Worker, Refusal>>, String> {
    let sandbox = Sandbox::new(start.is_metered).map_err(|error| error.to_string())?;
    let codes: Vec<Result<Arc<Plugin>, Refusal>> =
        codes.into_iter().map(|code| sandbox.load(code).map(Arc::new)).collect();
    Ok(start.plugins.iter().map(|plugin| worker(&codes, plugin)).collect())
}

fn worker(codes: &[Result<Arc<Plugin>, Refusal>], plugin: &StartPlugin) -> Result<Worker, Refusal> {
    let limits = plugin.limits;
    match codes.get(plugin.code) {
        Some(Ok(code)) => {
            let code = Arc::clone(code);
            Ok(Box::new(move |socket| serve::serve(&code, limits, socket)))
        }
        Some(Err(refusal)) => Err(refusal.clone()),
        None => Err(Refusal::Engine("its code was not handed over".to_owned())),
    }
}
