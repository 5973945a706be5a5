//! The life of the plugins' process: takes code and sockets from the agent, seals itself, serves until the agent hangs up.
//!
//! All code is mapped and all threads are there before the seal, and no plugin is called before it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Barrier};

use tillwatch_border::frames::Frames;
use tillwatch_border::handover::receive_descriptors;
use tillwatch_border::wire::{Bounded, Ready, Refusal, Start, StartPlugin, TO_SANDBOX_BYTES_MAX};

/// The plugin's own stack is bounded at a quarter of this.
const STACK_BYTES: usize = 1 << 20;

/// Serves one plugin over its socket until the agent hangs up.
pub type Worker = Box<dyn FnOnce(OwnedFd) + Send>;
type Loaded = Vec<Result<(), Refusal>>;

/// Runs to the agent's end. `load` makes the workers, in the order of the plugins; `seal` closes the process.
///
/// # Errors
/// When standard input is no socket: nobody has started this as the agent does.
pub fn run(
    load: impl FnOnce(Vec<OwnedFd>, &[StartPlugin]) -> Result<Vec<Result<Worker, Refusal>>, String>,
    seal: impl FnOnce() -> Result<(), String>,
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
    load: impl FnOnce(Vec<OwnedFd>, &[StartPlugin]) -> Result<Vec<Result<Worker, Refusal>>, String>,
    seal: impl FnOnce() -> Result<(), String>,
) -> Result<(Loaded, Arc<Barrier>), String> {
    let mut codes = receive_descriptors(&control.stream).map_err(|error| error.to_string())?;
    let start: Start = control.receive().map_err(|error| error.to_string())?;
    if codes.len() != start.codes + start.plugins.len() {
        return Err("not as many descriptors came as were announced".to_owned());
    }
    let sockets = codes.split_off(start.codes);
    let workers = load(codes, &start.plugins)?;
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
    seal()?;
    Ok((loaded, barrier))
}

fn start_thread(worker: Worker, socket: OwnedFd, barrier: &Arc<Barrier>) -> io::Result<()> {
    let barrier = Arc::clone(barrier);
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    thread.spawn(move || {
        barrier.wait();
        barrier.wait();
        worker(socket);
    })?;
    Ok(())
}
