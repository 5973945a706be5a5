//! Writing: one connection, one transaction for a batch.

use super::schema::{LAYOUT, PRAGMAS, TABLES, bits, failed, from_bits, ranges_text, series_text, value};
use super::{
    ArchiveError, BIRTHS_PER_SITE_MAX, Batch, BirthKey, BirthRow, GENERATIONS_PER_SITE_MAX, Payload, PurgeTimes,
    Purged, Retention, SUMS_AHEAD_MS_MAX, SeriesCache, UNDECODED_PER_SITE_MAX, Undecoded,
};
use crate::cursor::Mark;
use crate::rollup::{Rollup, SLOT_MS};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};
use std::collections::HashMap;
use std::path::Path;
use tillwatch_feed::topic::{ArchiveId, SiteId};

/// Prepared statements kept; more than there are kinds of statements here.
const STATEMENTS_MAX: usize = 64;

/// The archive in one SQLite file, in write-ahead mode.
#[derive(Debug)]
pub struct Sqlite {
    pub(super) connection: Connection,
    ids: Ids,
}

/// Row numbers of sites and series, so that they are looked up once.
#[derive(Debug, Default)]
struct Ids {
    sites: HashMap<SiteId, i64>,
    series: SeriesCache,
}

impl Sqlite {
    pub(super) fn open(path: &Path, id: &ArchiveId) -> Result<Self, ArchiveError> {
        let opened = Connection::open(path);
        let archive = Self::prepared(opened, path)?;
        archive.connection.execute_batch(PRAGMAS).map_err(failed)?;
        archive.make_tables(path)?;
        archive.check_identity(path, id)?;
        Ok(archive)
    }

    pub(super) fn open_to_read(path: &Path) -> Result<Self, ArchiveError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let archive = Self::prepared(Connection::open_with_flags(path, flags), path)?;
        let found = archive.layout().map_err(failed)?;
        archive
            .connection
            .execute_batch("PRAGMA busy_timeout = 10000; PRAGMA query_only = 1;")
            .map_err(failed)?;
        if found == LAYOUT {
            return Ok(archive);
        }
        Err(ArchiveError::Layout {
            path: path.display().to_string(),
            found,
            known: LAYOUT,
        })
    }

    /// Pages of the file, for tests that let the disk fill up.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn pages(&self) -> Result<u32, ArchiveError> {
        self.connection
            .query_row("PRAGMA page_count", [], |row| row.get(0))
            .map_err(failed)
    }

    /// The file must not grow beyond this many pages.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn limit_pages(&self, pages: u32) -> Result<(), ArchiveError> {
        self.connection
            .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
            .map_err(failed)
    }

    fn prepared(opened: rusqlite::Result<Connection>, path: &Path) -> Result<Self, ArchiveError> {
        let failed = |source| ArchiveError::Open {
            path: path.display().to_string(),
            source,
        };
        let connection = opened.map_err(failed)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        Ok(Self {
            connection,
            ids: Ids::default(),
        })
    }

    fn layout(&self) -> rusqlite::Result<i64> {
        self.connection.query_row("PRAGMA user_version", [], |row| row.get(0))
    }

    fn make_tables(&self, path: &Path) -> Result<(), ArchiveError> {
        match self.layout().map_err(failed)? {
            LAYOUT => Ok(()),
            0 => {
                let script = format!("BEGIN; {TABLES} PRAGMA user_version = {LAYOUT}; COMMIT;");
                self.connection.execute_batch(&script).map_err(failed)
            }
            found => Err(ArchiveError::Layout {
                path: path.display().to_string(),
                found,
                known: LAYOUT,
            }),
        }
    }

    fn check_identity(&self, path: &Path, id: &ArchiveId) -> Result<(), ArchiveError> {
        self.connection
            .execute(
                "INSERT OR IGNORE INTO meta (key, value) VALUES ('archive', ?)",
                [id.as_str()],
            )
            .map_err(failed)?;
        let found: String = self
            .connection
            .query_row("SELECT value FROM meta WHERE key = 'archive'", [], |row| row.get(0))
            .map_err(failed)?;
        if found == id.as_str() {
            return Ok(());
        }
        Err(ArchiveError::Identity {
            path: path.display().to_string(),
            found,
            wanted: id.to_string(),
        })
    }

    pub(super) fn write(&mut self, batch: &Batch) -> Result<Vec<BirthKey>, ArchiveError> {
        let written = write_batch(&mut self.connection, &mut self.ids, batch);
        if written.is_err() {
            // Ids given inside a transaction that was rolled back do not exist.
            self.ids = Ids::default();
        }
        written.map_err(failed)
    }

    pub(super) fn remove_old(
        &mut self,
        times: PurgeTimes,
        retention: Retention,
        rows_max: u32,
    ) -> Result<Purged, ArchiveError> {
        let payloads_before = value(times.most_ms.saturating_sub(retention.payloads_ms));
        let sums_before = times.most_ms.saturating_sub(retention.rollups_ms);
        let sums_after = times.latest_ms.saturating_add(SUMS_AHEAD_MS_MAX);
        let run = |sql: &str, values: &[i64]| {
            let mut purge = self.connection.prepare_cached(sql)?;
            purge.execute(rusqlite::params_from_iter(values.iter().chain([&i64::from(rows_max)])))
        };
        let payloads = run(
            "DELETE FROM payloads WHERE id IN (SELECT id FROM payloads WHERE ages_ms < ? LIMIT ?)",
            &[payloads_before],
        );
        let lost = run(
            "DELETE FROM lost WHERE id IN (SELECT id FROM lost WHERE ages_ms < ? LIMIT ?)",
            &[payloads_before],
        );
        let rollups = run(
            "DELETE FROM rollups WHERE (site, series, slot) IN
               (SELECT site, series, slot FROM rollups WHERE slot < ? OR slot > ? LIMIT ?)",
            &[value(sums_before / SLOT_MS), value(sums_after / SLOT_MS)],
        );
        let tallies = run(
            "DELETE FROM tallies WHERE (site, generation, day) IN
               (SELECT site, generation, day FROM tallies WHERE day < ? OR day > ? LIMIT ?)",
            &[value(sums_before / DAY_MS), value(sums_after / DAY_MS)],
        );
        let incidents = run(
            "DELETE FROM incidents WHERE id IN
               (SELECT id FROM incidents WHERE coalesce(json ->> 'end_ms', json ->> 'updated_ms') < ? LIMIT ?)",
            &[value(sums_before)],
        );
        let births = self.remove_births(payloads_before, rows_max).map_err(failed)?;
        let removed = [payloads, lost, rollups, tallies, incidents];
        let rows = removed
            .into_iter()
            .try_fold(births.len(), |sum, rows| Ok(sum + rows.map_err(failed)?))?;
        Ok(Purged { rows, births })
    }

    /// Old births that no payload names any more; a store that names one again is asked for it.
    fn remove_births(&self, before: i64, rows_max: u32) -> rusqlite::Result<Vec<BirthKey>> {
        let mut purge = self.connection.prepare_cached(
            "DELETE FROM births WHERE id IN (SELECT id FROM births AS old WHERE came_ms < ? AND NOT EXISTS
               (SELECT 1 FROM payloads WHERE payloads.site = old.site AND payloads.schema = old.schema) LIMIT ?)
             RETURNING (SELECT name FROM sites WHERE sites.id = births.site), schema",
        )?;
        let gone = purge.query_map(params![before, rows_max], |row| {
            Ok((row.get::<_, String>(0)?, row.get(1)?))
        })?;
        let mut births = Vec::new();
        for row in gone {
            let (site, schema) = row?;
            births.extend(site.parse().ok().map(|site| (site, from_bits(schema)))); // only site ids are written
        }
        Ok(births)
    }
}

pub(super) const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

fn write_batch(connection: &mut Connection, ids: &mut Ids, batch: &Batch) -> rusqlite::Result<Vec<BirthKey>> {
    let transaction = connection.transaction()?;
    let writer = &mut Writer {
        transaction: &transaction,
        ids,
    };
    batch.payloads.iter().try_for_each(|payload| writer.payload(payload))?;
    batch.read_late.iter().try_for_each(|id| writer.read_late(*id))?;
    let mut displaced = Vec::new();
    for birth in &batch.births {
        displaced.extend(writer.birth(birth)?);
    }
    batch
        .undecoded
        .iter()
        .try_for_each(|undecoded| writer.undecoded(undecoded))?;
    for lost in &batch.lost {
        let site = writer.site(&lost.site)?;
        writer.run(
            "INSERT INTO lost (site, generation, seq_first, seq_last, ages_ms, reason) VALUES (?, ?, ?, ?, ?, ?)",
            params![
                site,
                bits(lost.generation),
                value(lost.seq_first),
                value(lost.seq_last),
                value(lost.ages_ms),
                lost.reason
            ],
        )?;
    }
    for tally in &batch.tallies {
        let site = writer.site(&tally.site)?;
        writer.run(
            "INSERT INTO tallies (site, generation, day, seq_first, seq_last, received, accounted)
             VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE
             SET received = received + excluded.received, accounted = accounted + excluded.accounted,
               seq_first = min(seq_first, excluded.seq_first), seq_last = max(seq_last, excluded.seq_last)",
            params![
                site,
                bits(tally.generation),
                tally.day,
                value(tally.seq_first),
                value(tally.seq_last),
                value(tally.received),
                value(tally.accounted)
            ],
        )?;
    }
    batch.marks.iter().try_for_each(|mark| writer.mark(mark))?;
    batch.rollups.iter().try_for_each(|rollup| writer.rollup(rollup))?;
    for state in &batch.states {
        let site = writer.site(&state.site)?;
        writer.run("UPDATE sites SET state = ? WHERE id = ?", params![state.bytes, site])?;
    }
    for id in &batch.incidents.absorbed {
        writer.run("DELETE FROM incidents WHERE id = ?", params![id])?;
    }
    for incident in &batch.incidents.told {
        writer.run(
            "INSERT INTO incidents (id, json) VALUES (?, ?) ON CONFLICT DO UPDATE SET json = excluded.json",
            params![incident.id, incident.json],
        )?;
    }
    if let Some(watermark_ms) = batch.watermark_ms {
        writer.run(
            "INSERT OR REPLACE INTO meta (key, value) VALUES ('watermark_ms', ?)",
            params![value(watermark_ms)],
        )?;
    }
    transaction.commit()?;
    Ok(displaced)
}

struct Writer<'a> {
    transaction: &'a Transaction<'a>,
    ids: &'a mut Ids,
}

impl Writer<'_> {
    fn run(&self, sql: &str, values: impl rusqlite::Params) -> rusqlite::Result<usize> {
        self.transaction.prepare_cached(sql)?.execute(values)
    }

    fn site(&mut self, site: &SiteId) -> rusqlite::Result<i64> {
        if let Some(id) = self.ids.sites.get(site) {
            return Ok(*id);
        }
        self.run("INSERT OR IGNORE INTO sites (name) VALUES (?)", [site.as_str()])?;
        let mut query = self.transaction.prepare_cached("SELECT id FROM sites WHERE name = ?")?;
        let id = query.query_row([site.as_str()], |row| row.get(0))?;
        self.ids.sites.insert(site.clone(), id);
        Ok(id)
    }

    fn series(&mut self, rollup: &Rollup) -> rusqlite::Result<i64> {
        if let Some(id) = self.ids.series.get(&rollup.series) {
            return Ok(*id);
        }
        let text = series_text(&rollup.series);
        self.run("INSERT OR IGNORE INTO series (info) VALUES (?)", [&text])?;
        let mut query = self
            .transaction
            .prepare_cached("SELECT id FROM series WHERE info = ?")?;
        let id = query.query_row([&text], |row| row.get(0))?;
        self.ids.series.insert(rollup.series.clone(), id);
        Ok(id)
    }

    fn payload(&mut self, payload: &Payload) -> rusqlite::Result<()> {
        let site = self.site(&payload.site)?;
        self.run(
            "INSERT INTO payloads (site, generation, seq_first, seq_last, fresh, start_ms, end_ms, ages_ms, arrived_ms, schema, is_waiting, bytes)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                site,
                bits(payload.generation),
                value(payload.seq_first),
                value(payload.seq_last),
                ranges_text(payload.fresh.iter().copied()),
                value(payload.start_ms),
                value(payload.end_ms),
                value(payload.ages_ms),
                value(payload.arrived_ms),
                payload.schema.map(bits),
                payload.is_waiting,
                payload.bytes
            ],
        )?;
        Ok(())
    }

    fn read_late(&mut self, id: i64) -> rusqlite::Result<()> {
        self.run("UPDATE payloads SET is_waiting = 0 WHERE id = ?", [id])?;
        Ok(())
    }

    /// The first birth of a schema holds. Which other births of the site went for it.
    fn birth(&mut self, birth: &BirthRow) -> rusqlite::Result<Vec<BirthKey>> {
        let (site, schema) = (self.site(&birth.site)?, bits(birth.schema));
        self.run(
            "INSERT INTO births (site, schema, came_ms, bytes) VALUES (?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET came_ms = max(came_ms, excluded.came_ms)",
            params![site, schema, value(birth.came_ms), birth.bytes],
        )?;
        let mut displace = self.transaction.prepare_cached(
            "DELETE FROM births WHERE id IN (SELECT id FROM births AS old WHERE site = ?1 ORDER BY
               schema = ?2 DESC,
               EXISTS (SELECT 1 FROM payloads WHERE payloads.site = ?1 AND payloads.schema = old.schema) DESC,
               came_ms DESC, id DESC LIMIT -1 OFFSET ?3)
             RETURNING schema",
        )?;
        let gone = displace.query_map(params![site, schema, BIRTHS_PER_SITE_MAX], |row| row.get(0))?;
        gone.map(|schema| Ok((birth.site.clone(), from_bits(schema?))))
            .collect()
    }

    fn undecoded(&mut self, undecoded: &Undecoded) -> rusqlite::Result<()> {
        let Undecoded {
            site,
            leaf,
            reason,
            bytes,
        } = undecoded;
        let site = self.site(site)?;
        self.run(
            // Its records are not acknowledged, so that it may come again for days.
            "INSERT INTO undecoded (site, leaf, reason, bytes) SELECT ?1, ?2, ?3, ?4
             WHERE NOT EXISTS (SELECT 1 FROM undecoded WHERE site = ?1 AND leaf = ?2 AND bytes = ?4)",
            params![site, leaf, reason, bytes],
        )?;
        self.run(
            "DELETE FROM undecoded WHERE site = ?1 AND id <=
               (SELECT id FROM undecoded WHERE site = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            params![site, UNDECODED_PER_SITE_MAX],
        )?;
        Ok(())
    }

    fn mark(&mut self, mark: &Mark) -> rusqlite::Result<()> {
        let site = self.site(&mark.site)?;
        let is_new = self.run(
            "UPDATE cursors SET shard = ?3, settled = ?4, received = ?5, accounted = ?6, heard = ?7
             WHERE site = ?1 AND generation = ?2",
            rusqlite::params_from_iter(mark_params(site, mark)),
        )? == 0;
        if !is_new {
            return Ok(());
        }
        self.run(
            "INSERT INTO cursors (site, generation, shard, settled, received, accounted, heard)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            rusqlite::params_from_iter(mark_params(site, mark)),
        )?;
        self.run(
            "DELETE FROM cursors WHERE site = ?1 AND heard <=
               (SELECT heard FROM cursors WHERE site = ?1 ORDER BY heard DESC LIMIT 1 OFFSET ?2)",
            params![site, GENERATIONS_PER_SITE_MAX],
        )?;
        Ok(())
    }

    /// Adds; a sum that leaves 64 bits would turn into a real number, so that it is cut instead.
    fn rollup(&mut self, rollup: &Rollup) -> rusqlite::Result<()> {
        let site = self.site(&rollup.site)?;
        let series = self.series(rollup)?;
        self.run(
            "INSERT INTO rollups (site, series, slot, covered_ms, count, sum) VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET
               covered_ms = min(covered_ms + excluded.covered_ms, 1 << 62),
               count = min(count + excluded.count, 1 << 62),
               sum = CASE WHEN typeof(sum + excluded.sum) = 'integer' THEN sum + excluded.sum
                          WHEN excluded.sum < 0 THEN -9223372036854775807 ELSE 9223372036854775807 END",
            params![
                site,
                series,
                value(rollup.slot_ms / SLOT_MS),
                value(rollup.covered_ms).min(1 << 62),
                value(rollup.count).min(1 << 62),
                rollup.sum
            ],
        )?;
        Ok(())
    }
}

fn mark_params(site: i64, mark: &Mark) -> [Box<dyn rusqlite::ToSql>; 7] {
    [
        Box::new(site),
        Box::new(bits(mark.generation)),
        Box::new(mark.shard.to_string()),
        Box::new(ranges_text(mark.settled.iter())),
        Box::new(value(mark.received)),
        Box::new(value(mark.accounted)),
        Box::new(value(mark.heard)),
    ]
}

pub(super) fn site_row(connection: &Connection, site: &SiteId) -> rusqlite::Result<Option<i64>> {
    let mut query = connection.prepare_cached("SELECT id FROM sites WHERE name = ?")?;
    query.query_row([site.as_str()], |row| row.get(0)).optional()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_layout_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archive.sqlite");
        let id: ArchiveId = "main".parse().unwrap();
        let archive = Sqlite::open(&path, &id).unwrap();
        archive.connection.execute_batch("PRAGMA user_version = 1").unwrap();
        drop(archive);
        for refused in [Sqlite::open(&path, &id), Sqlite::open_to_read(&path)] {
            let text = refused.unwrap_err().to_string();
            assert!(text.contains("has layout 1, this program reads 4"), "{text}");
            assert!(text.contains("hint: "), "{text}");
        }
    }
}
