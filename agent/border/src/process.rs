//! The process of all plugins: started, handed its code and sockets, ended, and blamed on whoever ended it.
//!
//! Whoever notices first that it is gone starts it again; a generation number says which life of it a call belongs to.
//! When it ended by itself, all whose calls were open are suspects, and a suspect's next call has the process to itself:
//! who ends it then is convicted, who does not is cleared. A call that was open without guilt is repeated at once.

use std::collections::BTreeMap;
use std::io;
use std::mem::Discriminant;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::exchange::Connection;
use crate::frames::{FrameError, Frames, is_timeout};
use crate::handover::send_descriptors;
use crate::processor::Processor;
use crate::turn::{Turn, Turns, WAIT_MAX};
use crate::wire::{Call, Ready, Refusal, Start, StartPlugin, TO_AGENT_BYTES_MAX, build};
use crate::{CallError, Code, Limits, Load, StartError};

/// A quiet machine takes a few milliseconds.
const START_TIME_MAX: Duration = Duration::from_secs(30);
/// After a start that failed nobody tries for so long: it may have cost each of them the whole time of a start.
const START_PAUSE: Duration = Duration::from_secs(5);

/// What the allocator keeps of freed memory.
const FREED_BYTES_MAX: &str = "131072";

pub(crate) type CallKind = Discriminant<Call>;
/// For each plugin whether its code was taken.
pub(crate) type Loaded = Vec<Result<(), Refusal>>;

/// What the process is made of, each time.
pub(crate) struct Spec {
    pub(crate) program: PathBuf,
    pub(crate) plugins: Vec<Load>,
}

/// The process and who may call it; shared by all plugins.
pub(crate) struct Shared {
    spec: Spec,
    state: Mutex<State>,
    /// Calls hold it together, a suspect's call alone.
    turns: Turns,
}

#[derive(Default)]
struct State {
    /// Counts the starts.
    generation: u64,
    process: Option<Process>,
    /// In this generation.
    loaded: Loaded,
    /// When the process could not be started last, and why.
    failed: Option<(Instant, String)>,
    /// Why the last generation ended.
    ended: Option<String>,
    /// Why this generation was needed, until somebody tells it.
    restarted: Option<String>,
    /// Of this generation, until each plugin takes its own.
    connections: Vec<Option<Connection>>,
    /// Whose calls are open in this generation.
    calling: BTreeMap<usize, CallKind>,
    /// And in which call, as only that clears them.
    suspects: BTreeMap<usize, CallKind>,
}

/// The turns of one call: a plugin whose host is waited for runs nothing, so the others need not wait for it, and if the
/// process ends meanwhile it was another.
pub(crate) struct CallTurn<'a> {
    shared: &'a Shared,
    plugin: usize,
    /// The generation of its call.
    entered: Option<(CallKind, u64)>,
    turn: Option<Turn<'a>>,
}

impl<'a> CallTurn<'a> {
    /// Waits for the first.
    pub(crate) fn new(shared: &'a Shared, plugin: usize) -> Result<Self, CallError> {
        let turn = Some(shared.turn(plugin)?);
        Ok(Self {
            shared,
            plugin,
            entered: None,
            turn,
        })
    }

    /// Opens the call: see [`Shared::enter`].
    pub(crate) fn enter(&mut self, kind: CallKind) -> Result<(u64, Option<Connection>), CallError> {
        let (generation, connection) = self.shared.enter(self.plugin, kind)?;
        self.entered = Some((kind, generation));
        Ok((generation, connection))
    }

    /// Waits without a turn, and then for another, which comes: the others' calls have their deadlines.
    pub(crate) fn outside(&mut self, wait: &mut dyn FnMut()) {
        self.shared.withdraw(self.plugin);
        self.turn = None;
        wait();
        while self.turn.is_none() {
            self.turn = self.shared.turn(self.plugin).ok();
        }
        if let Some((kind, generation)) = self.entered {
            self.shared.go_on(self.plugin, kind, generation);
        }
    }
}

/// What follows for a plugin whose call was open when the process ended by itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It ran alone, and not for the first time.
    Guilty,
    /// It may have been, or somebody else was.
    Repeat,
}

impl Shared {
    /// Starts the process; for each plugin whether its code was taken.
    pub(crate) fn start(spec: Spec) -> Result<(Self, Loaded), StartError> {
        let shared = Self {
            spec,
            state: Mutex::default(),
            turns: Turns::default(),
        };
        let mut state = shared.lock();
        shared.start_process(&mut state)?;
        let loaded = state.loaded.clone();
        drop(state);
        Ok((shared, loaded))
    }

    pub(crate) fn code_path(&self, index: usize) -> Option<&Path> {
        self.spec.plugins.get(index).map(|load| load.code.path())
    }

    pub(crate) fn limits(&self, plugin: usize) -> &Limits {
        &self.spec.plugins[plugin].limits
    }

    /// Waits until this plugin may call.
    pub(crate) fn turn(&self, plugin: usize) -> Result<Turn<'_>, CallError> {
        let is_suspect = self.lock().suspects.contains_key(&plugin);
        let turn = if is_suspect {
            self.turns.alone(WAIT_MAX)
        } else {
            self.turns.together(WAIT_MAX)
        };
        turn.ok_or_else(|| CallError::Unavailable {
            reason: format!("another plugin's call takes longer than {} s", WAIT_MAX.as_secs()),
        })
    }

    /// Opens a call: the generation, and the plugin's connection to it when it has none yet.
    fn enter(&self, plugin: usize, kind: CallKind) -> Result<(u64, Option<Connection>), CallError> {
        let unavailable = |reason| CallError::Unavailable { reason };
        let mut state = self.lock();
        if !state.process.as_mut().is_some_and(Process::is_alive) {
            self.died(&mut state);
            self.restart(&mut state).map_err(unavailable)?;
        }
        if let Some(Err(refusal)) = state.loaded.get(plugin) {
            // The process took it before: it is another program now, or out of memory.
            return Err(unavailable(refusal.to_string()));
        }
        state.calling.insert(plugin, kind);
        let connection = state.connections.get_mut(plugin).and_then(Option::take);
        Ok((state.generation, connection))
    }

    /// The call was answered.
    pub(crate) fn leave(&self, plugin: usize, kind: CallKind) {
        let mut state = self.lock();
        state.calling.remove(&plugin);
        if state.suspects.get(&plugin) == Some(&kind) {
            state.suspects.remove(&plugin);
        }
    }

    /// The plugin runs again, unless its process is another by now.
    fn go_on(&self, plugin: usize, kind: CallKind, generation: u64) {
        let mut state = self.lock();
        if state.generation == generation && state.process.is_some() {
            state.calling.insert(plugin, kind);
        }
    }

    /// The call is not made at all, or waits for its host.
    pub(crate) fn withdraw(&self, plugin: usize) {
        self.lock().calling.remove(&plugin);
    }

    /// Ends the process because this plugin's call does not end. Other open calls notice, and are repeated.
    pub(crate) fn end(&self, plugin: usize, generation: u64, reason: &str) {
        let mut state = self.lock();
        state.suspects.remove(&plugin);
        if state.generation == generation {
            state.end(format!("{} {reason}", self.name(plugin)));
        }
    }

    /// The process ended, or talks nonsense, during this plugin's call.
    pub(crate) fn broke(&self, plugin: usize, generation: u64) -> Verdict {
        let mut state = self.lock();
        if state.generation != generation || state.process.is_none() {
            // Whoever noticed before has said what follows.
            return Verdict::Repeat;
        }
        let is_guilty = state.calling.len() == 1 && state.suspects.contains_key(&plugin);
        self.died(&mut state);
        if is_guilty { Verdict::Guilty } else { Verdict::Repeat }
    }

    pub(crate) fn process_id(&self) -> Option<u32> {
        self.lock().process.as_ref().map(|process| process.child.id())
    }

    pub(crate) fn restarts(&self) -> u64 {
        self.lock().generation.saturating_sub(1)
    }

    /// Why the process had to be started again, told once.
    pub(crate) fn take_restart(&self) -> Option<String> {
        self.lock().restarted.take()
    }

    fn restart(&self, state: &mut State) -> Result<(), String> {
        if let Some((when, reason)) = &state.failed
            && when.elapsed() < START_PAUSE
        {
            return Err(reason.clone());
        }
        match self.start_process(state) {
            Ok(()) => {
                state.failed = None;
                state.restarted = state.ended.take();
                Ok(())
            }
            Err(error) => {
                let reason = error.to_string();
                state.failed = Some((Instant::now(), reason.clone()));
                Err(reason)
            }
        }
    }

    /// It ended by itself: whose calls were open may have done it.
    fn died(&self, state: &mut State) {
        if state.process.is_none() {
            return;
        }
        let calling = std::mem::take(&mut state.calling);
        let names: Vec<&str> = calling.keys().map(|plugin| self.name(*plugin)).collect();
        let cause = match names.as_slice() {
            [] => "it was ended from outside".to_owned(),
            names => format!("it ended in a call of {}", names.join(", ")),
        };
        state.suspects.extend(calling);
        state.end(cause);
    }

    fn name(&self, plugin: usize) -> &str {
        &self.spec.plugins[plugin].name
    }

    fn start_process(&self, state: &mut State) -> Result<(), StartError> {
        let (process, sockets, loaded) = Process::start(&self.spec)?;
        state.generation += 1;
        state.process = Some(process);
        state.loaded = loaded;
        let connect = |socket| {
            let processor = Processor::receive(&socket);
            Some(Connection::new(socket, processor))
        };
        state.connections = sockets.into_iter().map(connect).collect();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end(&mut self, cause: String) {
        self.ended = Some(cause);
        self.process = None;
        self.connections.clear();
        self.calling.clear();
    }
}

/// A running child; it is killed when this is dropped, and ends by itself when the agent does.
struct Process {
    child: Child,
    /// While it is open the process lives.
    control: Frames<UnixStream>,
}

impl Process {
    fn start(spec: &Spec) -> Result<(Self, Vec<UnixStream>, Loaded), StartError> {
        let program = &spec.program;
        let spawn = |error| StartError::Spawn {
            program: program.clone(),
            error,
        };
        let (control, theirs) = UnixStream::pair().map_err(spawn)?;
        control.set_read_timeout(Some(START_TIME_MAX)).map_err(spawn)?;
        control.set_write_timeout(Some(START_TIME_MAX)).map_err(spawn)?;
        let mut process = Self {
            child: spawn_child(program, theirs).map_err(spawn)?,
            control: Frames::new(control, TO_AGENT_BYTES_MAX),
        };
        make_expendable(process.child.id());
        let given = hand_over(&mut process.control, &spec.plugins);
        let answered = given.and_then(|sockets| Ok((process.control.receive()?, sockets)));
        let (ready, sockets) = answered.map_err(|error| StartError::NotReady {
            program: program.clone(),
            reason: process.not_ready(error),
        })?;
        match ready {
            Ready::Sealed(loaded) if loaded.0.len() == sockets.len() => Ok((process, sockets, loaded.0)),
            Ready::Sealed(_) => Err(StartError::NotReady {
                program: program.clone(),
                reason: "it took other plugins than it was given".to_owned(),
            }),
            Ready::Failed(reason) => Err(StartError::Machine { reason }),
        }
    }

    fn not_ready(&mut self, error: FrameError) -> String {
        match error {
            FrameError::Stream(error) if is_timeout(&error) => {
                format!("it took longer than {} s", START_TIME_MAX.as_secs())
            }
            // Its end of the socket is closed: it has ended, or is about to.
            FrameError::Stream(error) => match self.child.wait() {
                Ok(status) => format!("it ended, {status}\nhint: start it by hand, and it says why"),
                Err(_unknown) => error.to_string(),
            },
            error => error.to_string(),
        }
    }

    fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn_child(program: &Path, control: UnixStream) -> io::Result<Child> {
    Command::new(program)
        .env_clear()
        // A heap of its own for each thread would cost more than the plugins.
        .env("MALLOC_ARENA_MAX", "1")
        // And what a large batch took goes back to the system.
        .env("MALLOC_MMAP_THRESHOLD_", FREED_BYTES_MAX)
        .env("MALLOC_TRIM_THRESHOLD_", FREED_BYTES_MAX)
        .current_dir("/")
        .stdin(OwnedFd::from(control))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// When memory ends, the system ends this child before the agent or anything of the store. The child may not have set it
/// back by itself; without `/proc` nothing is set.
pub fn make_expendable(child: u32) {
    const FIRST: &str = "1000";
    drop(std::fs::write(format!("/proc/{child}/oom_score_adj"), FIRST));
}

/// Gives the process its code and its end of each plugin's socket; ours come back.
fn hand_over(control: &mut Frames<UnixStream>, plugins: &[Load]) -> Result<Vec<UnixStream>, FrameError> {
    let mut codes: Vec<&Arc<Code>> = Vec::new();
    let mut start = Vec::new();
    for Load { code, limits, .. } in plugins {
        let known = codes.iter().position(|known| Arc::ptr_eq(known, code));
        let index = known.unwrap_or_else(|| {
            codes.push(code);
            codes.len() - 1
        });
        start.push(StartPlugin {
            code: index,
            limits: *limits,
        });
    }
    let pairs: Vec<(UnixStream, UnixStream)> = plugins
        .iter()
        .map(|_plugin| UnixStream::pair())
        .collect::<io::Result<_>>()?;
    let theirs = pairs.iter().map(|(_ours, theirs)| theirs.as_fd());
    let descriptors: Vec<_> = codes.iter().map(|code| code.as_fd()).chain(theirs).collect();
    send_descriptors(&control.stream, &descriptors)?;
    control.send(&Start {
        build: build(),
        codes: codes.len(),
        is_metered: codes.iter().any(|code| code.is_metered()),
        plugins: start,
    })?;
    Ok(pairs.into_iter().map(|(ours, _theirs)| ours).collect())
}
