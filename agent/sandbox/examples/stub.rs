//! Native code in the plugins' place: it speaks to the agent as the sandbox does, and then does its worst.
//!
//! The settings name what it does. It seals itself as the sandbox does, unless its own name ends in `unsealed`.
#![expect(unsafe_code, reason = "an attacker would not ask")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::ptr::null_mut;

use tillwatch_border::frames::Frames;
use tillwatch_border::wire::{Answer, Ask, Call, Done, Output, Refusal, Reply, Request, Start, TO_SANDBOX_BYTES_MAX};
use tillwatch_border::{Counters, Fault, Level, PeerFailure, PeerFault, Question, TcpRequest};
use tillwatch_core::sample::{Batch, Series, Values};
use tillwatch_sandbox::process::{Worker, run};
use tillwatch_sandbox::seal;

fn main() -> ExitCode {
    seal::close_inherited();
    let is_unsealed = std::env::current_exe().is_ok_and(|exe| exe.to_string_lossy().ends_with("unsealed"));
    let seal = |bytes| {
        if is_unsealed {
            return Ok(());
        }
        seal::seal(bytes).map_err(|error| error.to_string())
    };
    let parent = std::os::unix::process::parent_id();
    let is_again = is_started_again();
    let load = |_codes, start: &Start| {
        let worker = |(index, _plugin)| {
            if is_again && index == 0 {
                return Err(Refusal::Engine("not again".to_owned()));
            }
            let worker: Worker = Box::new(move |socket| serve(socket, parent));
            Ok(worker)
        };
        Ok(start.plugins.iter().enumerate().map(worker).collect())
    };
    match run(load, seal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_no_agent) => ExitCode::FAILURE,
    }
}

type Agent = Frames<File>;

/// Under a name that ends in `once` it does not take the first plugin when it is started again.
fn is_started_again() -> bool {
    let exe = std::env::current_exe().unwrap_or_default();
    let started = exe.with_extension("started");
    exe.to_string_lossy().ends_with("once") && File::create_new(started).is_err()
}

fn serve(socket: OwnedFd, parent: u32) {
    let mut agent = Frames::new(File::from(socket), TO_SANDBOX_BYTES_MAX);
    let mut settings = String::new();
    while let Ok(request) = agent.receive::<Request>() {
        let output = match request.call {
            Call::Configure(new) => {
                settings = new;
                Output::Configured
            }
            Call::Describe => std::process::abort(),
            Call::Collect => Output::Batch(collect(&mut agent, &settings, parent).into()),
        };
        let done = Done {
            result: Ok(output),
            state: None,
            counters: Counters::default(),
        };
        if agent.send(&Reply::Done(Box::new(done))).is_err() {
            return;
        }
    }
}

/// `behavior argument`
fn collect(agent: &mut Agent, settings: &str, parent: u32) -> Batch {
    let (behavior, argument) = settings.split_once(' ').unwrap_or((settings, ""));
    match behavior {
        "report" => one_series("fine", 1.0),
        "abort" => std::process::abort(),
        "silent" => loop {
            std::hint::spin_loop();
        },
        "garbage" => write(agent, &[5, 0, 0, 0, 9, 9, 9, 9, 9]),
        "huge" => write(agent, &[0xff; 8]),
        "flood" => loop {
            if agent.send(&Reply::Log(Level::Info, "x".repeat(100))).is_err() {
                return Batch::default();
            }
        },
        "asks" => ask_on(agent),
        "peer" => ask_peer(agent),
        "peers" => ask_peers_on(agent),
        "long-label" => one_series(&"x".repeat(10_000), 1.0),
        "many-series" => Batch {
            series: vec![series("x", 1.0); 5_000],
            ..Batch::default()
        },
        "exec" => {
            // It comes back only when it failed.
            let error = Command::new("/bin/true").exec();
            one_series(&error.kind().to_string(), 0.0)
        }
        "escape" => escape(argument, parent),
        "fill" => one_series("bytes", fill()),
        other => one_series(other, -1.0),
    }
}

fn write(agent: &mut Agent, bytes: &[u8]) -> Batch {
    drop(agent.stream.write_all(bytes));
    Batch::default()
}

/// Asks until the agent has enough of it, and says how often it was answered.
fn ask_on(agent: &mut Agent) -> Batch {
    let mut answered = 0.0;
    loop {
        let ask = Ask::ReadLines {
            source: "input".to_owned(),
            bytes_max: 1,
        };
        let answer = agent.send(&Reply::Ask(ask)).and_then(|()| agent.receive::<Answer>());
        match answer {
            Ok(Answer::ReadLines(Err(Fault::Exhausted))) | Err(_) => return one_series("answered", answered),
            Ok(_) => answered += 1.0,
        }
    }
}

/// One question to a peer: 1 when it was answered.
fn ask_peer(agent: &mut Agent) -> Batch {
    let is_answered = matches!(peer_says(agent), Some(Ok(())));
    one_series("answered", f64::from(u8::from(is_answered)))
}

/// Asks a peer until the agent has enough of it.
fn ask_peers_on(agent: &mut Agent) -> Batch {
    let mut answered = 0.0;
    while let Some(answer) = peer_says(agent) {
        match answer {
            Ok(()) => answered += 1.0,
            Err(failure) if failure.fault == PeerFault::Exhausted => break,
            Err(_other) => {}
        }
    }
    one_series("answered", answered)
}

/// None when the agent is gone.
fn peer_says(agent: &mut Agent) -> Option<Result<(), PeerFailure>> {
    let question = Question::Tcp(TcpRequest {
        bytes: Vec::new(),
        until: Vec::new(),
        bytes_max: 0,
    });
    let name = "peer".to_owned();
    agent.send(&Reply::Ask(Ask::Peer { name, question })).ok()?;
    match agent.receive::<Answer>().ok()? {
        Answer::Peer(reply) => Some(reply.map(drop)),
        _ => None,
    }
}

/// One series for each attempt: 1 when it went through.
fn escape(port: &str, parent: u32) -> Batch {
    let attempts: [(&str, bool); 14] = [
        ("open", File::open("/etc/passwd").is_ok()),
        ("create", File::create("/tmp/tillwatch-escaped").is_ok()),
        ("spawn", Command::new("/bin/true").status().is_ok()),
        ("connect", TcpStream::connect(format!("127.0.0.1:{port}")).is_ok()),
        ("socket pair", UnixStream::pair().is_ok()),
        ("duplicate", std::io::stdin().as_fd().try_clone_to_owned().is_ok()),
        ("fork", fork(|| true).is_some()),
        // In a child, when there can be one: the tracer of a child is its parent, and the agent is none.
        ("ptrace", fork(trace).unwrap_or_else(trace)),
        ("signal the agent", signal(parent)),
        ("name a thread", name_thread()),
        ("memory file", memory_file()),
        ("map code", map(libc::PROT_READ | libc::PROT_EXEC).is_some()),
        ("make data code", make_data_code()),
        ("read the agent's memory", read_memory(parent)),
    ];
    Batch {
        series: attempts
            .iter()
            .map(|(name, went)| series(name, f64::from(u8::from(*went))))
            .collect(),
        ..Batch::default()
    }
}

/// What `run` says in a child, if there is one.
fn fork(run: fn() -> bool) -> Option<bool> {
    // SAFETY: the child makes one call and ends.
    let child = unsafe { libc::fork() };
    match child {
        // SAFETY: it ends without running anything else of ours.
        0 => unsafe { libc::_exit(i32::from(!run())) },
        _ if child < 0 => None,
        _ => {
            let mut status = -1;
            // SAFETY: a child and a number of ours.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            Some(status == 0)
        }
    }
}

fn trace() -> bool {
    // SAFETY: the call has no arguments; what it returns is only compared.
    unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) == 0 }
}

fn signal(process: u32) -> bool {
    // SAFETY: signal 0 only asks whether one could be sent.
    unsafe { libc::kill(process.cast_signed(), 0) == 0 }
}

fn name_thread() -> bool {
    // SAFETY: the name is a constant.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"x".as_ptr()) == 0 }
}

fn memory_file() -> bool {
    // SAFETY: the name is a constant.
    unsafe { libc::memfd_create(c"x".as_ptr(), 0) >= 0 }
}

fn map(protection: i32) -> Option<*mut libc::c_void> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a mapping of its own, at an address that the kernel chooses.
    let address = unsafe { libc::mmap(null_mut(), 4096, protection, flags, -1, 0) };
    (address != libc::MAP_FAILED).then_some(address)
}

/// So many bytes of memory it gets, up to 4 GiB.
fn fill() -> f64 {
    const STEP: usize = 4 << 20;
    let mut bytes = 0.0;
    for _step in 0..1_024 {
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a mapping of its own, at an address that the kernel chooses.
        let address = unsafe { libc::mmap(null_mut(), STEP, protection, flags | libc::MAP_NORESERVE, -1, 0) };
        if address == libc::MAP_FAILED {
            break;
        }
        bytes += f64::from(4 << 20);
    }
    bytes
}

fn make_data_code() -> bool {
    map(libc::PROT_READ | libc::PROT_WRITE).is_some_and(|address| {
        // SAFETY: the page is ours, and nobody jumps there.
        unsafe { libc::mprotect(address, 4096, libc::PROT_READ | libc::PROT_EXEC) == 0 }
    })
}

fn read_memory(process: u32) -> bool {
    let mut byte = [0];
    File::open(format!("/proc/{process}/maps")).is_ok_and(|mut maps| maps.read(&mut byte).is_ok())
}

fn one_series(label: &str, value: f64) -> Batch {
    Batch {
        series: vec![series(label, value)],
        ..Batch::default()
    }
}

fn series(label: &str, value: f64) -> Series {
    Series {
        metric: 0,
        labels: vec![label.to_owned()],
        values: Values::Reals(vec![value]),
        times_ms: vec![1],
    }
}
