//! The tables, and how numbers and ranges look in them.
//!
//! SQLite has no unsigned 64-bit integer: generations and schemas, being random, are stored with the same bits as `i64`;
//! sequence numbers and times are stored by value, cut to `i64::MAX`, which no honest one reaches.

use super::ArchiveError;
use crate::decode::SeriesInfo;
use serde::{Deserialize, Serialize};
use tillwatch_feed::message::Kind;
use tillwatch_feed::ranges::RangeSet;

/// Version of the tables, kept in `user_version`.
pub(super) const LAYOUT: i64 = 4;

pub(super) const TABLES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE sites (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, state BLOB);
CREATE TABLE payloads (
  id INTEGER PRIMARY KEY,              -- order of arrival
  site INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  seq_first INTEGER NOT NULL,
  seq_last INTEGER NOT NULL,
  fresh TEXT NOT NULL,                 -- '1-5,9-9'
  start_ms INTEGER NOT NULL,
  end_ms INTEGER NOT NULL,
  ages_ms INTEGER NOT NULL,            -- end_ms, unless that is too far ahead
  arrived_ms INTEGER NOT NULL,         -- by the wall clock; 0 when it is unknown
  schema INTEGER,                      -- that it names
  is_waiting INTEGER NOT NULL,         -- 1: that schema's birth has not come
  bytes BLOB NOT NULL
);
CREATE INDEX payloads_by_age ON payloads (ages_ms);
CREATE INDEX payloads_by_end ON payloads (end_ms);
CREATE INDEX payloads_by_site ON payloads (site, end_ms);
CREATE INDEX payloads_by_schema ON payloads (site, schema) WHERE schema IS NOT NULL;
CREATE INDEX payloads_waiting ON payloads (site, schema) WHERE is_waiting;
CREATE TABLE births (
  id INTEGER PRIMARY KEY,
  site INTEGER NOT NULL,
  schema INTEGER NOT NULL,
  came_ms INTEGER NOT NULL,            -- event time when it came last
  bytes BLOB NOT NULL,
  UNIQUE (site, schema)
);
CREATE INDEX births_by_age ON births (came_ms);
CREATE TABLE undecoded (
  id INTEGER PRIMARY KEY,
  site INTEGER NOT NULL,
  leaf TEXT NOT NULL,
  reason TEXT NOT NULL,
  bytes BLOB NOT NULL
);
CREATE INDEX undecoded_by_site ON undecoded (site, id);
CREATE TABLE lost (
  id INTEGER PRIMARY KEY,
  site INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  seq_first INTEGER NOT NULL,
  seq_last INTEGER NOT NULL,
  ages_ms INTEGER NOT NULL,
  reason TEXT NOT NULL
);
CREATE INDEX lost_by_age ON lost (ages_ms);
CREATE TABLE tallies (
  site INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  day INTEGER NOT NULL,
  seq_first INTEGER NOT NULL,          -- smallest and largest number among them
  seq_last INTEGER NOT NULL,
  received INTEGER NOT NULL,
  accounted INTEGER NOT NULL,
  PRIMARY KEY (site, generation, day)
) WITHOUT ROWID;
CREATE INDEX tallies_by_day ON tallies (day);
CREATE TABLE cursors (
  site INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  shard TEXT NOT NULL,
  settled TEXT NOT NULL,
  received INTEGER NOT NULL,
  accounted INTEGER NOT NULL,
  heard INTEGER NOT NULL,
  PRIMARY KEY (site, generation)
) WITHOUT ROWID;
CREATE TABLE series (id INTEGER PRIMARY KEY, info TEXT NOT NULL UNIQUE);
CREATE TABLE rollups (
  site INTEGER NOT NULL,
  series INTEGER NOT NULL,
  slot INTEGER NOT NULL,               -- quarter hours since 1970
  covered_ms INTEGER NOT NULL,
  count INTEGER NOT NULL,
  sum INTEGER NOT NULL,
  PRIMARY KEY (site, series, slot)
) WITHOUT ROWID;
CREATE INDEX rollups_by_slot ON rollups (slot);
CREATE TABLE incidents (id TEXT PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID;
";

/// Statements that must hold for every connection.
/// `synchronous=FULL` syncs the log at each commit: what is acknowledged survives a power cut.
pub(super) const PRAGMAS: &str = "
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA busy_timeout = 10000;
PRAGMA wal_autocheckpoint = 4000;
PRAGMA journal_size_limit = 67108864;
PRAGMA cache_size = -16000;
";

/// Same bits, other sign.
pub(super) fn bits(number: u64) -> i64 {
    number.cast_signed()
}

/// Inverse of [`bits`].
pub(super) fn from_bits(number: i64) -> u64 {
    number.cast_unsigned()
}

/// By value, cut to what SQLite can hold.
pub(super) fn value(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Inverse of [`value`]; a negative number cannot have been written by it.
pub(super) fn from_value(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn ranges_text(ranges: impl Iterator<Item = (u64, u64)>) -> String {
    let parts: Vec<_> = ranges.map(|(first, last)| format!("{first}-{last}")).collect();
    parts.join(",")
}

pub(super) fn ranges_of(text: &str, table: &'static str, row: i64) -> Result<RangeSet, ArchiveError> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?))
    };
    text.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            range(part).ok_or_else(|| ArchiveError::Row {
                table,
                row,
                what: format!("range {part:?}"),
            })
        })
        .collect()
}

/// A series as JSON; the order of the fields is part of the layout, since the text is compared.
#[derive(Serialize, Deserialize)]
struct SeriesText {
    metric: String,
    unit: String,
    kind: KindText,
    role: String,
    decimals: u8,
    currency: Option<String>,
    plugin: String,
    labels: Vec<(String, String)>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindText {
    Gauge,
    Counter,
    Sum,
    Distribution,
}

pub(super) fn series_text(info: &SeriesInfo) -> String {
    let kind = match info.kind {
        Kind::Gauge => KindText::Gauge,
        Kind::Counter => KindText::Counter,
        Kind::Sum => KindText::Sum,
        Kind::Distribution => KindText::Distribution,
    };
    let SeriesInfo {
        metric,
        unit,
        role,
        decimals,
        currency,
        plugin,
        labels,
        ..
    } = info.clone();
    let text = SeriesText {
        metric,
        unit,
        kind,
        role,
        decimals,
        currency,
        plugin,
        labels,
    };
    serde_json::to_string(&text).expect("a struct of strings and numbers is always valid JSON")
}

pub(super) fn series_of(text: &str, row: i64) -> Result<SeriesInfo, ArchiveError> {
    let parsed = serde_json::from_str(text);
    let text: SeriesText = parsed.map_err(|error| ArchiveError::Row {
        table: "series",
        row,
        what: error.to_string(),
    })?;
    let kind = match text.kind {
        KindText::Gauge => Kind::Gauge,
        KindText::Counter => Kind::Counter,
        KindText::Sum => Kind::Sum,
        KindText::Distribution => Kind::Distribution,
    };
    let SeriesText {
        metric,
        unit,
        role,
        decimals,
        currency,
        plugin,
        labels,
        ..
    } = text;
    Ok(SeriesInfo {
        metric,
        unit,
        kind,
        role,
        decimals,
        currency,
        plugin,
        labels,
    })
}

pub(super) fn failed(source: rusqlite::Error) -> ArchiveError {
    match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => ArchiveError::Full { source },
        _ => ArchiveError::Sql(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_survive_their_text() {
        for ranges in [vec![], vec![(1, 1)], vec![(1, 5), (7, u64::MAX)]] {
            let set: RangeSet = ranges.iter().copied().collect();
            assert_eq!(ranges_of(&ranges_text(set.iter()), "cursors", 0).unwrap(), set);
        }
        assert!(ranges_of("1-x", "cursors", 0).is_err());
    }

    #[test]
    fn random_numbers_keep_all_their_bits() {
        for number in [0, 1, u64::MAX, 1 << 63, 0xdead_beef_0000_0001] {
            assert_eq!(from_bits(bits(number)), number);
        }
        assert_eq!(from_value(value(u64::MAX)), i64::MAX.cast_unsigned());
    }
}
