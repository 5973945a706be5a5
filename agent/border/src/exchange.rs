//! One call over a plugin's socket: the request, its questions and logs, its end, all within the deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};
use tillwatch_core::sample::{Batch, Descriptor};

use crate::frames::{FrameError, Frames, is_timeout};
use crate::processor::Processor;
use crate::wire::{Answer, Ask, Call, Done, Failure, Output, Reply, Request, TO_AGENT_BYTES_MAX};
use crate::{
    Budget, CallError, Counters, Host, Limits, PeerFailure, PeerFault, PluginError, Question, check_batch,
    check_descriptor, cut,
};

/// What a call brought, checked.
#[derive(Debug)]
pub(crate) enum Brought {
    Descriptor(Descriptor),
    Configured,
    Batch(Batch),
}

/// Why there is no answer, not even a bad one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    Deadline,
    /// It did not answer, and has not used its time.
    Starved,
    /// The process ended, or says what makes no sense.
    Broken,
}

/// A call waits so much longer than it may run for a processor that others use.
pub(crate) const STARVED_MAX: Duration = Duration::from_secs(10);
/// The kernel's count of a thread that runs is so old at most; nobody looks more often.
const TICK: Duration = Duration::from_millis(4);

/// Does what it is given without the call's turn, so that others may run meanwhile.
pub(crate) type Outside<'a> = dyn FnMut(&mut dyn FnMut()) + 'a;

/// The agent's end of a plugin's socket.
#[derive(Debug)]
pub(crate) struct Connection(Frames<Timed>);

impl Connection {
    pub(crate) fn new(stream: UnixStream, processor: Processor) -> Self {
        let timed = Timed {
            stream,
            used_before: processor.used().unwrap_or_default(),
            processor,
            starved_max: STARVED_MAX,
            begun: Instant::now(),
            allowed: Duration::ZERO,
            in_host: Duration::ZERO,
            is_over: false,
        };
        Self(Frames::new(timed, TO_AGENT_BYTES_MAX))
    }

    /// Makes the call and answers what it asks, its turn given back meanwhile: a disk, a journal or a peer may stand still.
    /// The counters are of this call.
    pub(crate) fn call(
        &mut self,
        call: Call,
        is_fresh: bool,
        host: &mut dyn Host,
        limits: &Limits,
        outside: &mut Outside<'_>,
        counters: &mut Counters,
    ) -> Result<Result<Brought, CallError>, Lost> {
        let request = Request {
            is_fresh,
            call,
            now_ms: host.now_ms(),
            state: host.state_get(),
        };
        self.0.stream.begin(Duration::from_millis(limits.call_ms_max));
        let done = self.converse(&request, host, limits, outside, counters);
        let busy = self.0.stream.end();
        let is_starved = self.0.stream.is_starved(busy);
        let result = done.map(|done| taken(done, host, limits, counters));
        counters.busy_us = u64::try_from(busy.as_micros()).unwrap_or(u64::MAX);
        result.map_err(|error| lost(&error, is_starved))
    }

    /// Counts what the sandbox let through and is too much.
    fn converse(
        &mut self,
        request: &Request,
        host: &mut dyn Host,
        limits: &Limits,
        outside: &mut Outside<'_>,
        counters: &mut Counters,
    ) -> Result<Done, FrameError> {
        let host_max = Duration::from_millis(limits.host_ms_max);
        let mut host_time = Duration::ZERO;
        let mut budget = Budget::new(asking(&request.call, limits));
        self.0.send(request)?;
        loop {
            match self.0.receive()? {
                Reply::Done(done) => return Ok(*done),
                Reply::Log(level, text) => {
                    if let Some(text) = budget.log(&text, counters) {
                        self.0.stream.in_host(|| outside(&mut || host.log(level, text)));
                    }
                }
                Reply::Ask(ask) => {
                    if host_time > host_max {
                        budget.exhaust();
                    }
                    let mut ask = Some(ask);
                    let mut answered = None;
                    let mut work = || {
                        let (begun, waited) = (Instant::now(), budget.waited());
                        answered = ask.take().map(|ask| answer(ask, host, &mut budget, counters));
                        let waited = budget.waited().saturating_sub(waited);
                        host_time += begun.elapsed().saturating_sub(waited);
                    };
                    self.0.stream.in_host(|| outside(&mut work));
                    self.0
                        .send(&answered.ok_or(ErrorKind::Interrupted).map_err(io::Error::from)?)?;
                }
            }
        }
    }
}

/// Whoever starts the agent waits for all others, and what is read then has no batch that it would go with.
fn asking(call: &Call, limits: &Limits) -> Limits {
    match call {
        Call::Collect => *limits,
        Call::Describe | Call::Configure(_) => Limits {
            asks_max: 0,
            peer_asks_max: 0,
            ..*limits
        },
    }
}

fn answer(ask: Ask, host: &mut dyn Host, budget: &mut Budget, counted: &mut Counters) -> Answer {
    match ask {
        Ask::ReadLines { source, bytes_max } => {
            let lines = budget
                .read(counted)
                .and_then(|left| host.read_lines(&source, bytes_max.min(left)));
            if let Ok(lines) = &lines {
                budget.on_read(lines.bytes.len());
            }
            Answer::ReadLines(lines)
        }
        Ask::NextDocument { source } => {
            let document = budget.read(counted).and_then(|_left| host.next_document(&source));
            if let Ok(Some(document)) = &document {
                budget.on_read(document.bytes.len());
            }
            Answer::NextDocument(document)
        }
        Ask::Peer { name, question } => Answer::Peer(ask_peer(&name, question, host, budget, counted)),
        Ask::ListFolder { source } => Answer::ListFolder(budget.ask(counted).and_then(|()| host.list_folder(&source))),
    }
}

fn ask_peer(
    name: &str,
    question: Question,
    host: &mut dyn Host,
    budget: &mut Budget,
    counted: &mut Counters,
) -> Result<crate::Reply, PeerFailure> {
    if !question.is_bounded() {
        counted.peers_refused += 1;
        return Err(PeerFault::Denied.at_once());
    }
    let within = budget.peer(counted).map_err(PeerFault::at_once)?;
    let asked = Instant::now();
    let reply = host.ask_peer(name, question, within);
    budget.on_waited(asked.elapsed());
    if let Ok(reply) = &reply {
        budget.on_read(reply.bytes());
    }
    reply
}

/// Nothing of it was checked by anybody whom the agent trusts.
fn taken(done: Done, host: &mut dyn Host, limits: &Limits, counters: &mut Counters) -> Result<Brought, CallError> {
    counters.add(&done.counters);
    if let Some(state) = done.state {
        let checked = Budget::new(*limits).state(state.0.len(), counters);
        checked
            .and_then(|()| host.state_set(state.0))
            .map_err(|_too_large| CallError::Malformed {
                reason: "a state that is too large",
            })?;
    }
    let brought = match done.result.map_err(|failure| call_error(failure, limits))? {
        Output::Configured => Brought::Configured,
        Output::Descriptor(descriptor) => {
            let descriptor = Descriptor::from(descriptor);
            check_descriptor(&descriptor, limits)?;
            Brought::Descriptor(descriptor)
        }
        Output::Batch(batch) => {
            let batch = Batch::try_from(batch).map_err(|_mismatch| CallError::Malformed {
                reason: "a batch whose columns do not fit",
            })?;
            check_batch(&batch, limits)?;
            Brought::Batch(batch)
        }
    };
    Ok(brought)
}

fn call_error(failure: Failure, limits: &Limits) -> CallError {
    let text = |text: &str| cut(text, limits.text_bytes_max).to_owned();
    match failure {
        Failure::Trap(reason) => CallError::Trap { reason: text(&reason) },
        Failure::Stack => CallError::Stack,
        Failure::Memory { wanted } => CallError::Memory {
            wanted,
            memory_bytes_max: limits.memory_bytes_max,
        },
        Failure::OutputBytes => CallError::OutputBytes {
            output_bytes_max: limits.output_bytes_max,
        },
        Failure::Oversized { bound, found, limit } => CallError::Oversized { bound, found, limit },
        Failure::Malformed => CallError::Malformed {
            reason: "a series has not as many times as values",
        },
        Failure::Plugin { kind, message } => CallError::Plugin(PluginError {
            kind,
            message: text(&message),
        }),
        Failure::Spent => CallError::Spent,
    }
}

/// One `collect` on this socket, whoever is at its other end: what the agent makes of what is said there, for tests.
///
/// # Errors
/// In words, also when nothing comes in time.
#[doc(hidden)]
pub fn collect_on(stream: UnixStream, host: &mut dyn Host, limits: &Limits) -> Result<Batch, String> {
    let mut connection = Connection::new(stream, Processor::default());
    let mut counters = Counters::default();
    let called = connection.call(Call::Collect, true, host, limits, &mut |wait| wait(), &mut counters);
    match called {
        Ok(Ok(Brought::Batch(batch))) => Ok(batch),
        other => Err(format!("{other:?}")),
    }
}

fn lost(error: &FrameError, is_starved: bool) -> Lost {
    match error {
        FrameError::Stream(error) if is_timeout(error) && is_starved => Lost::Starved,
        FrameError::Stream(error) if is_timeout(error) => Lost::Deadline,
        FrameError::Stream(_) | FrameError::TooLarge { .. } | FrameError::Decode(_) => Lost::Broken,
    }
}

/// A stream with a deadline for the other side, by the processor time that it uses: it runs, or waits for us.
#[derive(Debug)]
struct Timed {
    stream: UnixStream,
    processor: Processor,
    /// When the last call ended.
    used_before: Duration,
    /// [`STARVED_MAX`]
    starved_max: Duration,
    begun: Instant,
    allowed: Duration,
    in_host: Duration,
    /// Nothing is waited for any more.
    is_over: bool,
}

impl Timed {
    fn begin(&mut self, allowed: Duration) {
        self.begun = Instant::now();
        self.allowed = allowed;
        self.in_host = Duration::ZERO;
        self.is_over = false;
    }

    /// What the call used. What its thread does until the next one, such as giving memory back, counts there.
    fn end(&mut self) -> Duration {
        let used = self.used();
        self.used_before += used;
        used
    }

    /// Time that is not the other side's.
    fn in_host<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = work();
        self.in_host += begun.elapsed();
        result
    }

    /// Time that passed but for our own host's.
    fn waited(&self) -> Duration {
        self.begun.elapsed().saturating_sub(self.in_host)
    }

    fn used(&self) -> Duration {
        let used = self.processor.used();
        used.map_or_else(|| self.waited(), |used| used.saturating_sub(self.used_before))
    }

    /// Whether a call that is over had no processor to end on.
    fn is_starved(&self, used: Duration) -> bool {
        used < self.allowed
    }

    fn left(&self) -> io::Result<Duration> {
        let waited = self.waited();
        // Nobody uses more time than passes.
        let left = self.allowed.checked_sub(waited).unwrap_or_else(|| {
            let unused = self.allowed.saturating_sub(self.used());
            unused.min((self.allowed + self.starved_max).saturating_sub(waited))
        });
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(left.max(TICK))
    }

    /// Until it succeeds, fails, or the deadline is over.
    fn in_time(&self, mut attempt: impl FnMut(Duration) -> io::Result<usize>) -> io::Result<usize> {
        loop {
            match attempt(self.left()?) {
                Err(error) if is_timeout(&error) => {}
                done => return done,
            }
        }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut stream = &self.stream;
        let read = self.in_time(|left| {
            stream.set_read_timeout(Some(left))?;
            stream.read(buffer)
        });
        match read {
            Err(error) if is_timeout(&error) && !self.is_over => {
                // What has come in time is taken, also by an agent that was itself kept from running.
                self.is_over = true;
                let (read, _whole) = recv(&self.stream, buffer, RecvFlags::DONTWAIT)?;
                Ok(read)
            }
            read => read,
        }
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stream = &self.stream;
        self.in_time(|left| {
            stream.set_write_timeout(Some(left))?;
            stream.write(bytes)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Document, Fault, Level, Lines, Listing};

    const CALL_MS: u64 = 300;

    /// A host that takes its time for everything.
    #[derive(Default)]
    struct Slow {
        pause: Duration,
        reads: u32,
    }

    impl Slow {
        fn work(&self) {
            let begun = Instant::now();
            while begun.elapsed() < self.pause {
                std::thread::yield_now();
            }
        }
    }

    impl Host for Slow {
        fn log(&mut self, _level: Level, _message: &str) {
            self.work();
        }

        fn now_ms(&mut self) -> u64 {
            0
        }

        fn state_get(&mut self) -> Vec<u8> {
            Vec::new()
        }

        fn state_set(&mut self, _value: Vec<u8>) -> Result<(), String> {
            Ok(())
        }

        fn read_lines(&mut self, _source: &str, _bytes_max: u32) -> Result<Lines, Fault> {
            self.work();
            self.reads += 1;
            Ok(Lines::default())
        }

        fn next_document(&mut self, _source: &str) -> Result<Option<Document>, Fault> {
            Err(Fault::Unknown)
        }

        fn list_folder(&mut self, _source: &str) -> Result<Listing, Fault> {
            Err(Fault::Unknown)
        }
    }

    fn done() -> Reply {
        Reply::Done(Box::new(Done {
            result: Ok(Output::Configured),
            state: None,
            counters: Counters {
                log_lines_cut: 2,
                ..Counters::default()
            },
        }))
    }

    fn read() -> Reply {
        Reply::Ask(Ask::ReadLines {
            source: "input".to_owned(),
            bytes_max: 1,
        })
    }

    /// A call to a sandbox that says these things, whatever it is told, and then hangs up.
    fn call(replies: &[Reply], host: &mut Slow, limits: &Limits) -> (Result<(), Lost>, Counters) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut sandbox = Frames::new(theirs, 0);
        for reply in replies {
            sandbox.send(reply).unwrap();
        }
        sandbox.stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut counters = Counters::default();
        let result = Connection::new(ours, Processor::default()).call(
            Call::Collect,
            true,
            host,
            limits,
            &mut |wait| wait(),
            &mut counters,
        );
        (result.map(|brought| drop(brought.unwrap())), counters)
    }

    fn limits() -> Limits {
        Limits {
            call_ms_max: CALL_MS,
            ..Limits::default()
        }
    }

    /// What came of a call to a thread of its own that sleeps, computes and answers, and what the call used.
    fn call_thread(sleep: Duration, compute: Duration, starved_max: Duration) -> (Result<(), Lost>, u64) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let sandbox = std::thread::spawn(move || {
            crate::hand_over_processor(&theirs).unwrap();
            let mut sandbox = Frames::new(theirs, TO_AGENT_BYTES_MAX);
            gone.recv().unwrap();
            drop(sandbox.receive::<Request>().unwrap());
            std::thread::sleep(sleep);
            let processor = rustix::time::ClockId::ThreadCPUTime;
            let used = || Duration::try_from(rustix::time::clock_gettime(processor)).unwrap();
            let before = used();
            while used() - before < compute {}
            // The agent may have hung up.
            drop(sandbox.send(&done()));
            drop(sandbox.receive::<Request>());
        });
        ours.set_nonblocking(false).unwrap();
        let mut first = [0];
        while recv(&ours, &mut first, RecvFlags::PEEK).unwrap().0 == 0 {}
        let processor = Processor::receive(&ours);
        let mut connection = Connection::new(ours, processor);
        connection.0.stream.starved_max = starved_max;
        go.send(()).unwrap();
        let (mut host, mut counters) = (Slow::default(), Counters::default());
        let called = connection.call(
            Call::Collect,
            true,
            &mut host,
            &limits(),
            &mut |wait| wait(),
            &mut counters,
        );
        drop(connection);
        sandbox.join().unwrap();
        (called.map(|brought| drop(brought.unwrap())), counters.busy_us)
    }

    /// On a machine whose processors others used, plugins were stopped that had hardly run.
    #[test]
    fn a_plugin_has_its_time_on_a_processor_however_long_it_waits_for_one() {
        let (call, long) = (Duration::from_millis(CALL_MS), Duration::from_secs(60));
        let (result, busy_us) = call_thread(call * 2, call / 4, long);
        assert_eq!(result, Ok(()));
        assert!(busy_us < CALL_MS * 1_000, "{busy_us}");
        let (result, busy_us) = call_thread(Duration::ZERO, call * 2, long);
        assert_eq!(result, Err(Lost::Deadline));
        assert!(busy_us >= CALL_MS * 1_000, "{busy_us}");
    }

    #[test]
    fn who_gets_no_processor_at_all_is_not_waited_for_for_ever_and_not_blamed() {
        let starved_max = Duration::from_millis(20);
        let (result, busy_us) = call_thread(
            Duration::from_millis(CALL_MS) + 4 * starved_max,
            Duration::ZERO,
            starved_max,
        );
        assert_eq!(result, Err(Lost::Starved));
        assert!(busy_us < CALL_MS * 1_000, "{busy_us}");
    }

    /// A journal that stood still convicted the plugin that had logged a line.
    #[test]
    fn time_in_the_host_is_not_the_plugins() {
        let mut host = Slow {
            pause: Duration::from_millis(CALL_MS + 1),
            ..Slow::default()
        };
        let log = Reply::Log(Level::Info, "x".to_owned());
        let (result, counters) = call(&[log, read(), done()], &mut host, &limits());
        assert_eq!(result, Ok(()));
        assert!(counters.busy_us < CALL_MS * 1_000, "{counters:?}");
    }

    /// Thousands of listings of a large folder kept all other plugins waiting.
    #[test]
    fn time_in_the_host_is_bounded_and_counted() {
        let limits = Limits {
            host_ms_max: 10,
            ..limits()
        };
        let mut host = Slow {
            pause: Duration::from_millis(limits.host_ms_max + 1),
            ..Slow::default()
        };
        let (result, counters) = call(&[read(), read(), read(), read(), done()], &mut host, &limits);
        assert_eq!(result, Ok(()));
        assert_eq!((host.reads, counters.host_refused), (1, 3));
    }

    #[test]
    fn what_the_agent_refused_is_counted_with_and_without_an_end() {
        let limits = Limits {
            asks_max: 1,
            ..limits()
        };
        let mut host = Slow::default();
        let (result, counters) = call(&[read(), read(), done()], &mut host, &limits);
        assert_eq!((result, counters.asks_refused, counters.log_lines_cut), (Ok(()), 1, 2));
        let (result, counters) = call(&[read(), read()], &mut host, &limits);
        assert_eq!((result, counters.asks_refused), (Err(Lost::Broken), 1));
    }

    /// What a plugin read while it was configured went with no batch: it was never counted.
    #[test]
    fn nothing_is_read_outside_of_collect() {
        let configure = Call::Configure(String::new());
        for (call, refused) in [(Call::Describe, 1), (configure, 1), (Call::Collect, 0)] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let mut sandbox = Frames::new(theirs, 0);
            sandbox.send(&read()).unwrap();
            sandbox.send(&done()).unwrap();
            let (mut host, mut counters) = (Slow::default(), Counters::default());
            let mut connection = Connection::new(ours, Processor::default());
            let called = connection.call(call, true, &mut host, &limits(), &mut |wait| wait(), &mut counters);
            assert!(called.is_ok_and(|brought| brought.is_ok()));
            assert_eq!(
                (counters.asks_refused, host.reads),
                (refused, 1 - u32::try_from(refused).unwrap())
            );
        }
    }

    /// An agent that was kept from running for a moment ended a plugin that had answered.
    #[test]
    fn what_has_come_is_taken_once_more_after_the_deadline() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut sandbox = Frames::new(theirs, 0);
        sandbox.send(&done()).unwrap();
        let mut connection = Connection::new(ours, Processor::default());
        connection.0.stream.begin(Duration::ZERO);
        assert!(matches!(connection.0.receive(), Ok(Reply::Done(_))));
        sandbox.send(&done()).unwrap();
        let late = connection.0.receive::<Reply>().unwrap_err();
        assert_eq!(
            lost(&late, false),
            Lost::Deadline,
            "who says more and more has no more time"
        );
    }

    #[test]
    fn a_silent_sandbox_is_beyond_its_deadline() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(ours, Processor::default());
        connection.0.stream.begin(Duration::from_millis(1));
        assert_eq!(
            lost(&connection.0.receive::<Reply>().unwrap_err(), false),
            Lost::Deadline
        );
    }
}
