//! The life of the plugins' process: takes code and sockets from the agent, seals itself, serves until the agent hangs up.
//!
//! All code is mapped and all threads are there before the seal, and no plugin is called before it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Barrier};

use rustix::net::RecvFlags;
use tillwatch_border::frames::Frames;
use tillwatch_border::hand_over_processor;
use tillwatch_border::handover::receive_descriptors;
use tillwatch_border::wire::{Bounded, Ready, Refusal, Start, StartPlugin, TO_SANDBOX_BYTES_MAX, build};

/// The plugin's own stack is bounded at a quarter of this.
const STACK_BYTES: usize = 1 << 20;
/// For a plugin beside its memory: its thread, what it says on its way out.
const PLUGIN_BYTES_MAX: u64 = 16 << 20;
/// The engine, and a document of the largest size that can be granted on its way in.
const PROCESS_BYTES_MAX: u64 = 64 << 20;

/// Serves one plugin over its socket until the agent hangs up.
pub type Worker = Box<dyn FnOnce(OwnedFd) + Send>;
type Loaded = Vec<Result<(), Refusal>>;

/// Runs to the agent's end. `load` makes the workers, in the order of the plugins; `seal` closes the process,
/// which gets so many bytes of memory.
///
/// # Errors
/// When standard input is no socket: nobody has started this as the agent does.
pub fn run(
    load: impl FnOnce(Vec<OwnedFd>, &Start) -> Result<Vec<Result<Worker, Refusal>>, String>,
    seal: impl FnOnce(u64) -> Result<(), String>,
) -> io::Result<()> {
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    stream.peer_addr()?;
    // Sealed, it is read and written, and nothing else.
    let mut control = Frames::new(File::from(OwnedFd::from(stream)), TO_SANDBOX_BYTES_MAX);
    let (ready, sealed) = match start(&mut control, load, seal) {
        Ok((loaded, sealed)) => (Ready::Sealed(Bounded(loaded)), Some(sealed)),
        Err(reason) => (Ready::Failed(reason), None),
    };
    let is_told = control.send(&ready).is_ok();
    if let Some(sealed) = sealed.filter(|_sealed| is_told) {
        sealed.wait();
        // The agent says nothing more, and this ends with it.
        drop(control.receive::<()>());
    }
    Ok(())
}

fn start(
    control: &mut Frames<File>,
    load: impl FnOnce(Vec<OwnedFd>, &Start) -> Result<Vec<Result<Worker, Refusal>>, String>,
    seal: impl FnOnce(u64) -> Result<(), String>,
) -> Result<(Loaded, Arc<Barrier>), String> {
    let mut codes = receive_descriptors(&control.stream, RecvFlags::empty()).map_err(|error| error.to_string())?;
    let start: Start = control.receive().map_err(|error| error.to_string())?;
    check_build(&start.build)?;
    if codes.len() != start.codes + start.plugins.len() {
        return Err("not as many descriptors came as were announced".to_owned());
    }
    let sockets = codes.split_off(start.codes);
    let workers = load(codes, &start)?;
    let threads = workers.iter().filter(|worker| worker.is_ok()).count();
    // They and this thread meet when all are there, and again when the process is sealed.
    let barrier = Arc::new(Barrier::new(threads + 1));
    let mut loaded = Vec::new();
    for (worker, socket) in workers.into_iter().zip(sockets) {
        loaded.push(match worker {
            Ok(worker) => Ok(start_thread(worker, socket, &barrier).map_err(|error| error.to_string())?),
            Err(refusal) => Err(refusal),
        });
    }
    barrier.wait();
    seal(data_bytes_max(&start.plugins))?;
    Ok((loaded, barrier))
}

/// Code that was compiled for one engine is never mapped by another.
fn check_build(agents: &str) -> Result<(), String> {
    let ours = build();
    if agents == ours {
        return Ok(());
    }
    Err(format!(
        "the agent is {agents}, its sandbox {ours}\nhint: restart the agent"
    ))
}

fn data_bytes_max(plugins: &[StartPlugin]) -> u64 {
    let of = |plugin: &StartPlugin| u64::try_from(plugin.limits.memory_bytes_max).unwrap_or(u64::MAX);
    plugins.iter().fold(PROCESS_BYTES_MAX, |sum, plugin| {
        sum.saturating_add(of(plugin)).saturating_add(PLUGIN_BYTES_MAX)
    })
}

fn start_thread(worker: Worker, socket: OwnedFd, barrier: &Arc<Barrier>) -> io::Result<()> {
    let barrier = Arc::clone(barrier);
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    thread.spawn(move || {
        // When the agent is gone already, the next thing to come is the end.
        drop(hand_over_processor(&socket));
        barrier.wait();
        barrier.wait();
        worker(socket);
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillwatch_border::handover::send_descriptors;

    /// What the process says to an agent of this build.
    fn answer(build: String) -> Result<usize, String> {
        let (agent, ours) = UnixStream::pair().unwrap();
        send_descriptors(&agent, &[agent.as_fd()]).unwrap();
        let start_message = Start {
            build,
            codes: 1,
            is_metered: false,
            plugins: Vec::new(),
        };
        Frames::new(agent, 0).send(&start_message).unwrap();
        let mut control = Frames::new(File::from(OwnedFd::from(ours)), TO_SANDBOX_BYTES_MAX);
        let load = |_codes: Vec<OwnedFd>, _start: &Start| Ok(Vec::new());
        start(&mut control, load, |_bytes| Ok(())).map(|(loaded, _barrier)| loaded.len())
    }

    /// An upgrade exchanged the program, and an agent that still ran handed it code of another engine.
    #[test]
    fn an_agent_of_another_build_is_told_to_restart() {
        assert_eq!(answer(build()), Ok(0));
        let refused = answer(build().replace("wasmtime 4", "wasmtime 3")).unwrap_err();
        assert!(refused.ends_with("hint: restart the agent"), "{refused}");
    }
}
