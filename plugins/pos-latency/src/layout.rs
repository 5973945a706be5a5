//! Lines of a known layout: fixed text with values in between.
//!
//! A layout comes from the format string of nginx or Apache, see `directives`. It is compiled once; each line is then read
//! from left to right in one pass without an allocation.
//!
//! Times and statuses are told by their own shape. Every other value ends where the next fixed text stands, and, when a
//! time or a status follows, only where that one can be read: a user's name or a request may hold anything.

use memchr::memchr;
use tillwatch_sdk::parse::Wrong;

use crate::latency::{LatencyUnit, sum_us};
use crate::line::{Request, status_or_none, target};
use crate::times::{TIME_BYTES_MAX, Times};

/// What a value of a line is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Skip,
    /// When the request was answered, or came in.
    Time,
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
        matches!(self, Self::Time | Self::Status)
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
}

impl Layout {
    /// Reads a line; what follows the last value is the rest.
    pub(crate) fn read<'a>(&self, line: &'a [u8], times: &mut Times) -> Result<(Request<'a>, &'a [u8]), Wrong> {
        let mut values = Values::default();
        let mut rest = line;
        // The value whose end is not known yet.
        let mut open: Option<Role> = None;
        let mut is_quoted = false;
        for (place, step) in self.steps.iter().enumerate() {
            let after = self.end_of(place);
            let mut first_wrong = None;
            let mut from = 0;
            loop {
                let found = match open {
                    Some(_) => find(rest, from, &step.before, is_quoted),
                    None => rest.starts_with(&step.before).then_some(0),
                };
                // A wrong value tells more than the absence of another one.
                let at = found
                    .filter(|at| *at == 0 || open.is_some())
                    .ok_or(first_wrong.unwrap_or(Wrong::Syntax))?;
                let value = rest.get(at.saturating_add(step.before.len())..).unwrap_or_default();
                match values.take_checked(step.role, value, after, times) {
                    Ok(taken) => {
                        if let Some(role) = open {
                            values.take(role, rest.get(..at).unwrap_or_default())?;
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
            open = (!step.role.is_checked()).then_some(step.role);
            is_quoted = step.before.last() == Some(&b'"') && after.first() == Some(&b'"');
        }
        if let Some(role) = open {
            let end = match self.end.is_empty() {
                true => rest.len(),
                false => find(rest, 0, &self.end, is_quoted).ok_or(Wrong::Syntax)?,
            };
            let (value, after) = rest.split_at_checked(end).unwrap_or_default();
            values.take(role, value)?;
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
                let window = rest.get(..TIME_BYTES_MAX).unwrap_or(rest);
                let end = match after.is_empty() {
                    true => window.len(),
                    false => find(
                        rest.get(..TIME_BYTES_MAX.saturating_add(after.len())).unwrap_or(rest),
                        0,
                        after,
                        false,
                    )
                    .ok_or(Wrong::Syntax)?,
                };
                self.time_ms = Some(times.read(rest.get(..end).unwrap_or_default())?);
                Ok(end)
            }
            Role::Status => {
                let end = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let end = if end == 0 && rest.first() == Some(&b'-') {
                    1
                } else {
                    end
                };
                let (value, behind) = rest.split_at_checked(end).ok_or(Wrong::Syntax)?;
                let status = status_or_none(value)?;
                // Common lines may be cut behind the status.
                if !behind.is_empty() && !behind.starts_with(after) {
                    return Err(Wrong::Syntax);
                }
                self.status = status;
                Ok(end)
            }
            _ => Ok(0),
        }
    }

    fn take(&mut self, role: Role, value: &'a [u8]) -> Result<(), Wrong> {
        match role {
            Role::Request => self.target = target(value),
            Role::Target => self.target = value,
            Role::Latency(unit) => self.latency_us = sum_us(value, unit)?,
            Role::Connection => self.is_aborted = value == b"X",
            Role::Skip | Role::Time | Role::Status => {}
        }
        Ok(())
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
        })
    }
}

/// Where a fixed text stands; within quotes not at a quote that a backslash escapes.
fn find(rest: &[u8], from: usize, text: &[u8], is_quoted: bool) -> Option<usize> {
    let Some((first, others)) = text.split_first() else {
        return Some(from);
    };
    let mut from = from;
    loop {
        let at = memchr(*first, rest.get(from..)?)?.checked_add(from)?;
        let next = at.checked_add(1)?;
        if rest.get(next..)?.starts_with(others) && !(is_quoted && is_escaped(rest, at)) {
            return Some(at);
        }
        from = next;
    }
}

/// Whether an odd number of backslashes stands before a place.
fn is_escaped(text: &[u8], at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\').count();
    backslashes % 2 == 1
}
