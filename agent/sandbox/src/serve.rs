//! One plugin's thread: takes requests from the agent, runs them, and asks the agent what the plugin asks.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tillwatch_border::frames::{FrameError, Frames};
use tillwatch_border::wire::{Answer, Ask, Call, Done, Failure, Output, Reply, Request, State, TO_SANDBOX_BYTES_MAX};
use tillwatch_border::{
    CallError, Counters, Document, Fault, Host, Level, Limits, Lines, Listing, PeerFailure, PeerFault, Question,
    Reply as PeerReply, cut,
};

use crate::{Instance, Plugin, REASON_BYTES_MAX};

/// A socket as a file: it is read and written, and nothing else.
type Agent = Arc<Mutex<Frames<File>>>;

/// Runs what the agent requests until it hangs up.
pub fn serve(plugin: &Plugin, limits: Limits, socket: OwnedFd) {
    let agent: Agent = Arc::new(Mutex::new(Frames::new(File::from(socket), TO_SANDBOX_BYTES_MAX)));
    let mut instance = None;
    loop {
        let request = lock(&agent).receive::<Request>();
        let Ok(request) = request else {
            return;
        };
        let done = run(plugin, limits, &agent, &mut instance, request);
        if lock(&agent).send(&Reply::Done(Box::new(done))).is_err() {
            return;
        }
    }
}

fn run(plugin: &Plugin, limits: Limits, agent: &Agent, instance: &mut Option<Instance>, request: Request) -> Done {
    let Request {
        is_fresh,
        call,
        now_ms,
        state,
    } = request;
    if is_fresh {
        // Its memory is given back before the next is taken.
        *instance = None;
        let remote = Remote {
            agent: Arc::clone(agent),
            now_ms,
            state: Vec::new(),
            is_state_set: false,
        };
        match plugin.instantiate(limits, Box::new(remote)) {
            Ok(new) => *instance = Some(new),
            Err(error) => return done(Err(error), None, Counters::default()),
        }
    }
    let Some(instance) = instance else {
        return done(Err(CallError::Spent), None, Counters::default());
    };
    if let Some(remote) = instance.host_as::<Remote>() {
        remote.now_ms = now_ms;
        remote.state = state;
        remote.is_state_set = false;
    }
    let result = match call {
        Call::Describe => instance
            .describe()
            .map(|descriptor| Output::Descriptor(descriptor.into())),
        Call::Configure(settings) => instance.configure(&settings).map(|()| Output::Configured),
        Call::Collect => instance.collect().map(|batch| Output::Batch(batch.into())),
    };
    let state = instance.host_as::<Remote>().and_then(Remote::take_state);
    let counters = instance.take_counters();
    done(result, state, counters)
}

fn done(result: Result<Output, CallError>, state: Option<State>, counters: Counters) -> Done {
    Done {
        result: result.map_err(failure),
        state,
        counters,
    }
}

fn failure(error: CallError) -> Failure {
    match error {
        CallError::Trap { reason } | CallError::Unavailable { reason } => {
            Failure::Trap(cut(&reason, REASON_BYTES_MAX).to_owned())
        }
        CallError::Stack => Failure::Stack,
        CallError::Memory { wanted, .. } => Failure::Memory { wanted },
        CallError::OutputBytes { .. } => Failure::OutputBytes,
        CallError::Oversized { bound, found, limit } => Failure::Oversized { bound, found, limit },
        CallError::Malformed { .. } => Failure::Malformed,
        CallError::Plugin(error) => error.into(),
        CallError::Spent | CallError::Deadline { .. } | CallError::Crash | CallError::Gone => Failure::Spent,
    }
}

fn lock(agent: &Agent) -> MutexGuard<'_, Frames<File>> {
    agent.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The agent, as its plugin's host. Time and state came with the request.
struct Remote {
    agent: Agent,
    now_ms: u64,
    state: Vec<u8>,
    is_state_set: bool,
}

impl Remote {
    fn take_state(&mut self) -> Option<State> {
        self.is_state_set.then(|| State(std::mem::take(&mut self.state)))
    }

    /// When the agent is gone, nobody waits for what the plugin makes of it.
    fn ask(&self, ask: Ask) -> Result<Answer, FrameError> {
        let mut agent = lock(&self.agent);
        agent.send(&Reply::Ask(ask))?;
        agent.receive()
    }
}

impl Host for Remote {
    fn log(&mut self, level: Level, message: &str) {
        // When the agent is gone, the next thing to come is the end.
        drop(lock(&self.agent).send(&Reply::Log(level, message.to_owned())));
    }

    fn now_ms(&mut self) -> u64 {
        self.now_ms
    }

    fn state_get(&mut self) -> Vec<u8> {
        self.state.clone()
    }

    fn state_set(&mut self, value: Vec<u8>) -> Result<(), String> {
        self.state = value;
        self.is_state_set = true;
        Ok(())
    }

    fn read_lines(&mut self, source: &str, bytes_max: u32) -> Result<Lines, Fault> {
        let source = source.to_owned();
        match self.ask(Ask::ReadLines { source, bytes_max }) {
            Ok(Answer::ReadLines(lines)) => lines,
            Ok(_) | Err(_) => Err(Fault::Unavailable),
        }
    }

    fn next_document(&mut self, source: &str) -> Result<Option<Document>, Fault> {
        let source = source.to_owned();
        match self.ask(Ask::NextDocument { source }) {
            Ok(Answer::NextDocument(document)) => document,
            Ok(_) | Err(_) => Err(Fault::Unavailable),
        }
    }

    fn list_folder(&mut self, source: &str) -> Result<Listing, Fault> {
        let source = source.to_owned();
        match self.ask(Ask::ListFolder { source }) {
            Ok(Answer::ListFolder(listing)) => listing,
            Ok(_) | Err(_) => Err(Fault::Unavailable),
        }
    }

    /// The agent looks at the time.
    fn ask_peer(&mut self, name: &str, question: Question, _within: Duration) -> Result<PeerReply, PeerFailure> {
        let name = name.to_owned();
        match self.ask(Ask::Peer { name, question }) {
            Ok(Answer::Peer(reply)) => reply,
            Ok(_) | Err(_) => Err(PeerFault::Unreachable.at_once()),
        }
    }
}
