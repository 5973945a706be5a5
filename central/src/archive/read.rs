//! Reading: what a restart, a late birth and the commands need.

use super::schema::{failed, from_bits, from_value, ranges_of, series_of};
use super::write::site_row;
use super::{
    Archive, ArchiveError, Batch, BirthKey, IncidentRow, Lost, Payload, PurgeTimes, Purged, Retention, SiteState,
    Sqlite, Stored, Tally, Undecoded,
};
use crate::cursor::Mark;
use crate::rollup::{Rollup, SLOT_MS};
use rusqlite::{Params, Row, params};
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;
use tillwatch_feed::topic::SiteId;

const PAYLOAD_COLUMNS: &str =
    "payloads.id, sites.name, generation, seq_first, seq_last, fresh, start_ms, end_ms, ages_ms, schema, is_waiting, bytes, arrived_ms
     FROM payloads JOIN sites ON sites.id = payloads.site";

impl Archive for Sqlite {
    fn commit(&mut self, batch: &Batch) -> Result<Vec<BirthKey>, ArchiveError> {
        self.write(batch)
    }

    fn purge(&mut self, times: PurgeTimes, retention: Retention, rows_max: u32) -> Result<Purged, ArchiveError> {
        self.remove_old(times, retention, rows_max)
    }

    fn marks(&self, per_site_max: u32) -> Result<Vec<Mark>, ArchiveError> {
        let sql = "SELECT name, generation, shard, settled, received, accounted, heard FROM
               (SELECT *, row_number() OVER (PARTITION BY site ORDER BY heard DESC) AS place FROM cursors)
             JOIN sites ON sites.id = site WHERE place <= ?";
        self.list(sql, params![per_site_max], mark_of)
    }

    fn mark(&self, site: &SiteId, generation: u64) -> Result<Option<Mark>, ArchiveError> {
        let sql = "SELECT name, generation, shard, settled, received, accounted, heard
             FROM cursors JOIN sites ON sites.id = site WHERE name = ? AND generation = ?";
        let found = self.list(sql, params![site.as_str(), super::schema::bits(generation)], mark_of)?;
        Ok(found.into_iter().next())
    }

    fn birth(&self, site: &SiteId, schema: u64) -> Result<Option<Vec<u8>>, ArchiveError> {
        let sql = "SELECT bytes FROM births JOIN sites ON sites.id = site WHERE name = ? AND schema = ?";
        let found = self.list(sql, params![site.as_str(), super::schema::bits(schema)], |row| {
            Ok(row.get(0)?)
        })?;
        Ok(found.into_iter().next())
    }

    fn births_missing(&self) -> Result<Vec<BirthKey>, ArchiveError> {
        let sql = "SELECT DISTINCT name, schema FROM payloads JOIN sites ON sites.id = site WHERE is_waiting";
        self.list(sql, [], |row| Ok((name(row, 0)?, from_bits(row.get(1)?))))
    }

    fn waiting(&self, site: &SiteId, schema: u64, max: u32) -> Result<Vec<Stored>, ArchiveError> {
        let Some(site) = site_row(&self.connection, site).map_err(failed)? else {
            return Ok(Vec::new());
        };
        let sql = format!(
            "SELECT {PAYLOAD_COLUMNS} WHERE payloads.site = ? AND schema = ? AND is_waiting ORDER BY payloads.id LIMIT ?"
        );
        self.list(&sql, params![site, super::schema::bits(schema), max], stored_of)
    }

    fn rollups(
        &self,
        roles: [&str; 2],
        within_ms: Range<u64>,
        each: &mut dyn FnMut(Rollup),
    ) -> Result<(), ArchiveError> {
        let series = self.list("SELECT id, info FROM series", [], |row| {
            let (id, info): (i64, String) = (row.get(0)?, row.get(1)?);
            Ok((id, Arc::new(series_of(&info, id)?)))
        })?;
        let slot = |ms: u64| super::schema::value(ms.div_ceil(SLOT_MS));
        for (id, info) in series.iter().filter(|(_, info)| roles.contains(&info.role.as_str())) {
            // Site by site, so that the key leads to the slots: the table holds more than a year.
            let sql = "SELECT name, slot, covered_ms, count, sum FROM sites CROSS JOIN rollups ON site = sites.id
                 WHERE series = ? AND slot >= ? AND slot < ? ORDER BY sites.id, slot";
            let values = params![id, slot(within_ms.start), slot(within_ms.end)];
            self.each(sql, values, |row| {
                each(Rollup {
                    site: name(row, 0)?,
                    series: Arc::clone(info),
                    slot_ms: from_value(row.get(1)?).saturating_mul(SLOT_MS),
                    covered_ms: from_value(row.get(2)?),
                    count: from_value(row.get(3)?),
                    sum: row.get(4)?,
                });
                Ok(())
            })?;
        }
        Ok(())
    }

    fn payloads_since(&self, from_ms: u64, each: &mut dyn FnMut(Stored)) -> Result<(), ArchiveError> {
        let sql = format!("SELECT {PAYLOAD_COLUMNS} WHERE end_ms >= ? AND NOT is_waiting ORDER BY payloads.id");
        self.each(&sql, params![super::schema::value(from_ms)], |row| {
            each(stored_of(row)?);
            Ok(())
        })
    }

    fn latest(&self) -> Result<Vec<(SiteId, u64)>, ArchiveError> {
        let sql = "SELECT name, (SELECT max(end_ms) FROM payloads WHERE payloads.site = sites.id) AS latest FROM sites
             WHERE latest IS NOT NULL ORDER BY name";
        self.list(sql, [], |row| Ok((name(row, 0)?, from_value(row.get(1)?))))
    }

    fn watermark_ms(&self) -> Result<Option<u64>, ArchiveError> {
        let found = self.list("SELECT value FROM meta WHERE key = 'watermark_ms'", [], |row| {
            Ok(from_value(row.get(0)?))
        })?;
        Ok(found.into_iter().next())
    }

    fn incidents(&self) -> Result<Vec<IncidentRow>, ArchiveError> {
        self.list("SELECT id, json FROM incidents ORDER BY id", [], |row| {
            Ok(IncidentRow {
                id: row.get(0)?,
                json: row.get(1)?,
            })
        })
    }

    fn states(&self) -> Result<Vec<SiteState>, ArchiveError> {
        let sql = "SELECT name, state FROM sites WHERE state IS NOT NULL ORDER BY name";
        self.list(sql, [], |row| {
            Ok(SiteState {
                site: name(row, 0)?,
                bytes: row.get(1)?,
            })
        })
    }

    fn tallies(&self, from_day: u32) -> Result<Vec<Tally>, ArchiveError> {
        let sql = "SELECT name, generation, day, seq_first, seq_last, received, accounted
             FROM tallies JOIN sites ON sites.id = site WHERE day >= ? ORDER BY name, day";
        self.list(sql, params![from_day], |row| {
            Ok(Tally {
                site: name(row, 0)?,
                generation: from_bits(row.get(1)?),
                day: row.get(2)?,
                seq_first: from_value(row.get(3)?),
                seq_last: from_value(row.get(4)?),
                received: from_value(row.get(5)?),
                accounted: from_value(row.get(6)?),
            })
        })
    }

    fn lost(&self) -> Result<Vec<Lost>, ArchiveError> {
        let sql = "SELECT name, generation, seq_first, seq_last, ages_ms, reason FROM lost
             JOIN sites ON sites.id = site ORDER BY lost.id";
        self.list(sql, [], |row| {
            Ok(Lost {
                site: name(row, 0)?,
                generation: from_bits(row.get(1)?),
                seq_first: from_value(row.get(2)?),
                seq_last: from_value(row.get(3)?),
                ages_ms: from_value(row.get(4)?),
                reason: row.get(5)?,
            })
        })
    }

    fn undecoded(&self) -> Result<Vec<Undecoded>, ArchiveError> {
        let sql = "SELECT name, leaf, reason, bytes FROM undecoded JOIN sites ON sites.id = site ORDER BY undecoded.id";
        self.list(sql, [], |row| {
            Ok(Undecoded {
                site: name(row, 0)?,
                leaf: row.get(1)?,
                reason: row.get(2)?,
                bytes: row.get(3)?,
            })
        })
    }
}

/// Why a row was not read: SQLite's own error, or one of ours about what it holds.
enum Unreadable {
    Sql(rusqlite::Error),
    Content(ArchiveError),
}

impl Unreadable {
    fn into_error(self) -> ArchiveError {
        match self {
            Self::Sql(source) => failed(source),
            Self::Content(error) => error,
        }
    }
}

impl From<rusqlite::Error> for Unreadable {
    fn from(source: rusqlite::Error) -> Self {
        Self::Sql(source)
    }
}

impl From<ArchiveError> for Unreadable {
    fn from(error: ArchiveError) -> Self {
        Self::Content(error)
    }
}

impl Sqlite {
    fn list<T>(
        &self,
        sql: &str,
        values: impl Params,
        of: impl Fn(&Row<'_>) -> Result<T, Unreadable>,
    ) -> Result<Vec<T>, ArchiveError> {
        let mut found = Vec::new();
        self.each(sql, values, |row| {
            found.push(of(row)?);
            Ok(())
        })?;
        Ok(found)
    }

    fn each(
        &self,
        sql: &str,
        values: impl Params,
        mut take: impl FnMut(&Row<'_>) -> Result<(), Unreadable>,
    ) -> Result<(), ArchiveError> {
        let mut query = self.connection.prepare_cached(sql).map_err(failed)?;
        let mut rows = query.query(values).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            take(row).map_err(Unreadable::into_error)?;
        }
        Ok(())
    }
}

fn name<T: FromStr<Err: std::fmt::Display>>(row: &Row<'_>, column: usize) -> Result<T, Unreadable> {
    let text: String = row.get(column)?;
    let parsed = text.parse();
    parsed.map_err(|error: T::Err| {
        ArchiveError::Row {
            table: "sites",
            row: 0,
            what: error.to_string(),
        }
        .into()
    })
}

fn mark_of(row: &Row<'_>) -> Result<Mark, Unreadable> {
    let settled: String = row.get(3)?;
    Ok(Mark {
        site: name(row, 0)?,
        generation: from_bits(row.get(1)?),
        shard: name(row, 2)?,
        settled: ranges_of(&settled, "cursors", 0)?,
        received: from_value(row.get(4)?),
        accounted: from_value(row.get(5)?),
        heard: from_value(row.get(6)?),
    })
}

fn stored_of(row: &Row<'_>) -> Result<Stored, Unreadable> {
    let id = row.get(0)?;
    let fresh: String = row.get(5)?;
    let payload = Payload {
        site: name(row, 1)?,
        generation: from_bits(row.get(2)?),
        seq_first: from_value(row.get(3)?),
        seq_last: from_value(row.get(4)?),
        fresh: ranges_of(&fresh, "payloads", id)?.iter().collect(),
        start_ms: from_value(row.get(6)?),
        end_ms: from_value(row.get(7)?),
        ages_ms: from_value(row.get(8)?),
        schema: row.get::<_, Option<i64>>(9)?.map(from_bits),
        is_waiting: row.get(10)?,
        bytes: row.get(11)?,
        arrived_ms: from_value(row.get(12)?),
    };
    Ok(Stored { id, payload })
}
