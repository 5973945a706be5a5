//! Lines of a known layout: fixed text with values in between.
//!
//! A layout comes from the format string of nginx or Apache, see `directives`. It is compiled once; each line is then read
//! from left to right in one pass without an allocation.
//!
//! Times, statuses and durations are told by their own shape. Every other value ends where the next fixed text stands, and,
//! when one of these follows, only where that one can be read: a user's name or a request may hold anything.

use memchr::{memchr, memrchr};
use tillwatch_sdk::parse::Wrong;

use crate::latency::{LatencyUnit, list_us};
use crate::line::{Request, status_or_none, target, unless_out_of_range};
use crate::times::{TIME_BYTES_MAX, Times};

/// What a value of a line is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Skip,
    /// `10.0.0.1:80, 10.0.0.2:80 : 10.0.0.3:80`, also of no use to us.
    List,
    /// When the request was answered, or came in.
    Time,
    /// A time beside the one that counts.
    OtherTime,
    Status,
    /// `GET /pay HTTP/1.1`.
    Request,
    /// `/pay`.
    Target,
    Latency(LatencyUnit),
    /// Apache's `%X`.
    Connection,
}

impl Role {
    /// Whether its value is told by its shape.
    fn is_checked(self) -> bool {
        matches!(self, Self::Time | Self::OtherTime | Self::Status | Self::Latency(_))
    }
}

/// A value and the fixed text before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) before: Vec<u8>,
    pub(crate) role: Role,
}

/// A compiled format.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) steps: Vec<Step>,
    /// The fixed text at the end of a line.
    pub(crate) end: Vec<u8>,
    /// The time is that of the request's first byte, so that the duration is still to be added.
    pub(crate) is_begin: bool,
}

/// The values of a line so far.
#[derive(Default)]
struct Values<'a> {
    time_ms: Option<u64>,
    target: &'a [u8],
    status: Option<u16>,
    latency_us: Option<i64>,
    is_aborted: bool,
    is_out_of_range: bool,
}

/// A value whose end is not known yet.
#[derive(Clone, Copy)]
struct Open {
    role: Role,
    is_quoted: bool,
}

impl Layout {
    /// Reads a line; what follows the last value is the rest.
    pub(crate) fn read<'a>(&self, line: &'a [u8], times: &mut Times) -> Result<(Request<'a>, &'a [u8]), Wrong> {
        let mut values = Values::default();
        let mut rest = line;
        let mut open: Option<Open> = None;
        for (place, step) in self.steps.iter().enumerate() {
            let after = self.end_of(place);
            let mut first_wrong = None;
            let mut from = 0;
            loop {
                let found = match open {
                    Some(open) => open.end(rest, from, &step.before),
                    None => rest.starts_with(&step.before).then_some(0),
                };
                // A wrong value tells more than the absence of another one.
                let at = found
                    .filter(|at| *at == 0 || open.is_some())
                    .ok_or(first_wrong.unwrap_or(Wrong::Syntax))?;
                let value = rest.get(at.saturating_add(step.before.len())..).unwrap_or_default();
                match values.take_checked(step.role, value, after, times) {
                    Ok(taken) => {
                        if let Some(open) = open {
                            values.take(open.role, rest.get(..at).unwrap_or_default());
                        }
                        rest = value.get(taken..).unwrap_or_default();
                        break;
                    }
                    Err(wrong) if open.is_some() => {
                        first_wrong.get_or_insert(wrong);
                        from = at.saturating_add(1);
                    }
                    Err(wrong) => return Err(wrong),
                }
            }
            open = (!step.role.is_checked()).then_some(Open {
                role: step.role,
                is_quoted: step.before.last() == Some(&b'"') && after.first() == Some(&b'"'),
            });
        }
        if let Some(open) = open {
            let end = match self.end.is_empty() {
                true => rest.len(),
                false => open.end(rest, 0, &self.end).ok_or(Wrong::Syntax)?,
            };
            let (value, after) = rest.split_at_checked(end).unwrap_or_default();
            values.take(open.role, value);
            rest = after;
        }
        Ok((values.request(self.is_begin)?, rest))
    }

    /// The fixed text behind a step's value.
    fn end_of(&self, place: usize) -> &[u8] {
        let next = place.checked_add(1).and_then(|next| self.steps.get(next));
        next.map_or(&self.end, |next| &next.before)
    }
}

impl<'a> Values<'a> {
    /// Reads a value that is told by its shape; returns how many bytes it has.
    fn take_checked(&mut self, role: Role, rest: &[u8], after: &[u8], times: &mut Times) -> Result<usize, Wrong> {
        match role {
            Role::Time => {
                let (time_ms, bytes) = time(rest, after, times)?;
                self.time_ms = Some(time_ms);
                Ok(bytes)
            }
            Role::OtherTime => time(rest, after, times).map(|(_, bytes)| bytes),
            Role::Latency(unit) => {
                let (us, bytes) = list_us(rest, unit, |behind| is_followed(behind, after))?;
                self.latency_us = unless_out_of_range(us, &mut self.is_out_of_range)?;
                Ok(bytes)
            }
            Role::Status => {
                let end = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let end = if end == 0 && rest.first() == Some(&b'-') {
                    1
                } else {
                    end
                };
                let (value, behind) = rest.split_at_checked(end).ok_or(Wrong::Syntax)?;
                // Common lines may be cut behind the status.
                if !behind.is_empty() && !behind.starts_with(after) {
                    return Err(Wrong::Syntax);
                }
                self.status = unless_out_of_range(status_or_none(value), &mut self.is_out_of_range)?;
                Ok(end)
            }
            _ => Ok(0),
        }
    }

    fn take(&mut self, role: Role, value: &'a [u8]) {
        match role {
            Role::Request => self.target = target(value),
            Role::Target => self.target = behind_host(value),
            Role::Connection => self.is_aborted = value == b"X",
            Role::Skip | Role::List | Role::Time | Role::OtherTime | Role::Status | Role::Latency(_) => {}
        }
    }

    fn request(self, is_begin: bool) -> Result<Request<'a>, Wrong> {
        let begun_ms = self.time_ms.ok_or(Wrong::Missing)?;
        let took_ms = match self.latency_us {
            Some(us) if is_begin => u64::try_from(us / 1000).unwrap_or_default(),
            _ => 0,
        };
        Ok(Request {
            time_ms: begun_ms.saturating_add(took_ms),
            target: self.target.into(),
            status: self.status,
            latency_us: self.latency_us,
            is_aborted: self.is_aborted,
            is_out_of_range: self.is_out_of_range,
        })
    }
}

impl Open {
    /// Where the value ends, as a fixed text follows: within quotes not at one that a backslash escapes.
    fn end(self, rest: &[u8], from: usize, text: &[u8]) -> Option<usize> {
        let Some((first, others)) = text.split_first() else {
            return Some(from);
        };
        let mut from = from;
        loop {
            let at = memchr(*first, rest.get(from..)?)?.checked_add(from)?;
            let next = at.checked_add(1)?;
            if rest.get(next..)?.starts_with(others) && !self.holds(rest, at, text) {
                return Some(at);
            }
            from = next;
        }
    }

    /// Whether a text that was found is part of the value.
    fn holds(self, rest: &[u8], at: usize, text: &[u8]) -> bool {
        (self.is_quoted && is_escaped(rest, at)) || (self.role == Role::List && is_in_list(rest, at, text))
    }
}

/// Whether a text at a place is what parts a list of nginx: `, ` between upstreams, ` : ` between groups of them.
fn is_in_list(rest: &[u8], at: usize, text: &[u8]) -> bool {
    let (before, behind) = rest.split_at_checked(at).unwrap_or_default();
    match text {
        [b' ', b':', ..] => false,
        [b' ', ..] => before.ends_with(b",") || before.ends_with(b" :") || behind.starts_with(b" : "),
        [b','] => behind.starts_with(b", "),
        _ => false,
    }
}

/// The longest time that has this text behind it, and how many bytes it has: a time may itself hold the text.
fn time(rest: &[u8], after: &[u8], times: &mut Times) -> Result<(u64, usize), Wrong> {
    let Some((first, others)) = after.split_first() else {
        return Ok((times.read(rest)?, rest.len()));
    };
    // A comma ends a column rather than a second.
    let search = if *first == b',' { memchr } else { memrchr };
    let mut window = rest.get(..=TIME_BYTES_MAX).unwrap_or(rest);
    let mut wrong = Wrong::Syntax;
    while let Some(end) = search(*first, window) {
        let (value, behind) = rest.split_at_checked(end).unwrap_or_default();
        if behind.get(1..).is_some_and(|behind| behind.starts_with(others)) {
            match times.read(value) {
                Ok(time_ms) => return Ok((time_ms, end)),
                Err(is_none) => wrong = is_none,
            }
        }
        if *first == b',' {
            break;
        }
        window = value;
    }
    Err(wrong)
}

/// Whether a value ends where this is behind it; the last value of a format ends with the line.
fn is_followed(behind: &[u8], after: &[u8]) -> bool {
    match after {
        [] => behind.is_empty(),
        after => behind.starts_with(after),
    }
}

/// The path of `$host$request_uri`; what has a scheme stays whole.
fn behind_host(target: &[u8]) -> &[u8] {
    let slash = memchr(b'/', target).unwrap_or_default();
    match target.split_at_checked(slash) {
        Some((host, path)) if !host.ends_with(b":") => path,
        _ => target,
    }
}

/// Whether an odd number of backslashes stands before a place.
fn is_escaped(text: &[u8], at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\').count();
    backslashes % 2 == 1
}
