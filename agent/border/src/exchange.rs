//! One call over a plugin's socket: the request, its questions and logs, its end, all within the deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use tillwatch_core::sample::{Batch, Descriptor};

use crate::frames::{FrameError, Frames};
use crate::wire::{Answer, Ask, Call, Done, Failure, Output, Reply, Request, TO_AGENT_BYTES_MAX};
use crate::{Budget, CallError, Counters, Host, Limits, PluginError, check_batch, check_descriptor, cut};

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
    /// The process ended, or says what makes no sense.
    Broken,
}

/// The agent's end of a plugin's socket.
#[derive(Debug)]
pub(crate) struct Connection(Frames<Timed>);

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> Self {
        let timed = Timed {
            stream,
            begun: Instant::now(),
            allowed: Duration::ZERO,
            in_host: Duration::ZERO,
        };
        Self(Frames::new(timed, TO_AGENT_BYTES_MAX))
    }

    /// Makes the call and answers what it asks; the counters are of this call.
    pub(crate) fn call(
        &mut self,
        call: Call,
        is_fresh: bool,
        host: &mut dyn Host,
        limits: &Limits,
        counters: &mut Counters,
    ) -> Result<Result<Brought, CallError>, Lost> {
        let request = Request {
            is_fresh,
            call,
            now_ms: host.now_ms(),
            state: host.state_get(),
        };
        self.0.stream.begin(Duration::from_millis(limits.call_ms_max));
        let done = self.converse(&request, host, limits);
        let busy = self.0.stream.busy();
        let result = done.map(|done| taken(done, host, limits, counters));
        counters.calls = 1;
        counters.busy_us = u64::try_from(busy.as_micros()).unwrap_or(u64::MAX);
        result.map_err(|error| lost(&error))
    }

    fn converse(&mut self, request: &Request, host: &mut dyn Host, limits: &Limits) -> Result<Done, FrameError> {
        let mut budget = Budget::new(*limits);
        self.0.send(request)?;
        loop {
            match self.0.receive()? {
                Reply::Done(done) => return Ok(*done),
                Reply::Log(level, text) => {
                    // The sandbox has counted what is too much; whatever it became, no more than that comes through.
                    if let Some(text) = budget.log(&text, &mut Counters::default()) {
                        host.log(level, text);
                    }
                }
                Reply::Ask(ask) => {
                    let asked = Instant::now();
                    let answer = answer(ask, host, &mut budget);
                    self.0.stream.in_host += asked.elapsed();
                    self.0.send(&answer)?;
                }
            }
        }
    }
}

fn answer(ask: Ask, host: &mut dyn Host, budget: &mut Budget) -> Answer {
    let counted = &mut Counters::default();
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
        Ask::ListFolder { source } => Answer::ListFolder(budget.ask(counted).and_then(|()| host.list_folder(&source))),
    }
}

/// Nothing of it was checked by anybody whom the agent trusts.
fn taken(done: Done, host: &mut dyn Host, limits: &Limits, counters: &mut Counters) -> Result<Brought, CallError> {
    *counters = done.counters;
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

fn lost(error: &FrameError) -> Lost {
    match error {
        FrameError::Stream(error) if is_timeout(error) => Lost::Deadline,
        FrameError::Stream(_) | FrameError::TooLarge { .. } | FrameError::Decode(_) => Lost::Broken,
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A stream with a deadline for the other side: all time counts but that of our own host.
#[derive(Debug)]
struct Timed {
    stream: UnixStream,
    begun: Instant,
    allowed: Duration,
    in_host: Duration,
}

impl Timed {
    fn begin(&mut self, allowed: Duration) {
        self.begun = Instant::now();
        self.allowed = allowed;
        self.in_host = Duration::ZERO;
    }

    fn busy(&self) -> Duration {
        self.begun.elapsed().saturating_sub(self.in_host)
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.allowed.saturating_sub(self.busy());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(left)
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
