//! The one door for lines of an access log: bytes in, a request or what is wrong with the line out.

use std::borrow::Cow;

use tillwatch_sdk::parse::{Decimal, Wrong};

use crate::combined::Combined;
use crate::json::Json;
use crate::{Format, LatencyUnit, Settings};

/// A request that took longer than a day is a broken line.
const LATENCY_US_MAX: i64 = 86_400_000_000;

/// What a line says of one answered request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// When it was answered.
    pub(crate) time_ms: u64,
    /// The path or URL as requested; empty when the line has none.
    pub(crate) target: Cow<'a, str>,
    pub(crate) status: Option<u16>,
    pub(crate) latency_us: Option<i64>,
}

/// Reads lines of one format.
pub(crate) enum Reader {
    Combined(Combined),
    Json(Json),
}

impl Reader {
    pub(crate) fn new(settings: &Settings) -> Self {
        match settings.format {
            Format::Combined => Self::Combined(Combined::without_latency()),
            Format::Timed => Self::Combined(Combined::timed(settings)),
            Format::Json => Self::Json(Json::new(settings)),
        }
    }

    /// Reads one line without its end.
    pub(crate) fn read<'a>(&self, line: &'a [u8]) -> Result<Request<'a>, Wrong> {
        match self {
            Self::Combined(combined) => combined.read(line),
            Self::Json(json) => json.read(line),
        }
    }
}

/// Microseconds of a duration in the log's unit.
pub(crate) fn latency_us(latency: Decimal, unit: LatencyUnit) -> Result<i64, Wrong> {
    let us = match unit {
        LatencyUnit::S => latency.units(6)?,
        LatencyUnit::Ms => latency.units(3)?,
    };
    if (0..=LATENCY_US_MAX).contains(&us) {
        Ok(us)
    } else {
        Err(Wrong::Number)
    }
}

/// An HTTP status, 100 to 599.
pub(crate) fn status(number: i64) -> Result<u16, Wrong> {
    u16::try_from(number)
        .ok()
        .filter(|status| (100..600).contains(status))
        .ok_or(Wrong::Number)
}
