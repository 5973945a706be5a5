//! `tillwatch spool ls`, `check` and `export`: what waits for central, also beside a running agent.
//!
//! In: the spool's folder. Out: lines for a person, JSON lines, or payloads as files. Nothing in the folder changes.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use tillwatch_feed::codec::{decode_body, encode};
use tillwatch_feed::message::{Body, ClockReading, Message};

use crate::clock::Clock;
use crate::config::Config;
use crate::output;
use crate::preview::json;
use crate::run::SPOOL_DIR;
use crate::spool::{Damage, HeldGap, HeldRun, Look, Note, Record, RecordKind};

/// Lists what is held: a line for each run of records of one kind, and for each gap.
///
/// # Errors
/// When the spool cannot be read.
pub fn list(config: &Config) -> Result<()> {
    let (look, held) = open(config)?;
    let now_ms = Clock::wall().now_ms();
    for run in &held {
        output::line(&run_line(run, now_ms))?;
    }
    for gap in look.gaps() {
        let HeldGap {
            generation,
            seq_first,
            seq_last,
            reason,
        } = gap;
        output::line(&format!(
            "{generation:016x}  {seq_first:>8} .. {seq_last:<8}  gap ({reason:?})"
        ))?;
    }
    let records: u64 = held.iter().map(|run| run.seq_last - run.seq_first + 1).sum();
    let oldest_ms = held.iter().map(|run| run.first_ms).min().unwrap_or(now_ms);
    let (age, bytes) = (age(now_ms, oldest_ms), look.bytes());
    output::line(&format!(
        "{records} records, {bytes} bytes on disk, the oldest {age} old"
    ))?;
    Ok(())
}

fn run_line(run: &HeldRun, now_ms: u64) -> String {
    let kind = format!("{:?}", run.kind).to_lowercase();
    format!(
        "{:016x}  {:>8} .. {:<8}  {kind:<7}  {:>6} old  {} bytes",
        run.generation,
        run.seq_first,
        run.seq_last,
        age(now_ms, run.first_ms),
        run.bytes
    )
}

/// In the largest unit of which there are two: 90 s, 5 min, 30 h, 12 d. A clock that was set gives 0 s.
fn age(now_ms: u64, then_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let unit = units.into_iter().find(|(length, _)| seconds >= 2 * length);
    let (length, name) = unit.unwrap_or((1, "s"));
    format!("{} {name}", seconds / length)
}

/// Reads everything and says what is not as it was written; fails when something is `bad`.
///
/// # Errors
/// When the spool cannot be read.
pub fn check(config: &Config) -> Result<ExitCode> {
    let (look, held) = open(config)?;
    let mut is_bad = false;
    for damage in look.damage(&held)? {
        let (bad, text) = explain(&damage);
        is_bad |= bad;
        output::line(&format!("{}  {text}", if bad { "bad " } else { "note" }))?;
    }
    let unreadable = unreadable(&look)?;
    for (record, error) in &unreadable {
        let (generation, seq) = (record.id.generation, record.id.seq);
        output::line(&format!(
            "bad   record {seq} of {generation:016x} is not understood: {error}"
        ))?;
    }
    for gap in look.gaps() {
        let HeldGap {
            generation,
            seq_first,
            seq_last,
            reason,
        } = gap;
        output::line(&format!(
            "note  records {seq_first} to {seq_last} of {generation:016x} are lost ({reason:?}), and central is told"
        ))?;
    }
    is_bad |= !unreadable.is_empty();
    let records: u64 = held.iter().map(|run| run.seq_last - run.seq_first + 1).sum();
    let verdict = if is_bad {
        "the spool is damaged"
    } else {
        "the spool is good"
    };
    output::line(&format!("{verdict}: {records} records, {} bytes", look.bytes()))?;
    Ok(if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn unreadable(look: &Look) -> Result<Vec<(Record, String)>> {
    let mut unreadable = Vec::new();
    look.each_record(&mut |record, _| {
        if let Err(error) = decode_body(&record.payload) {
            unreadable.push((record, error.to_string()));
        }
        Ok(())
    })?;
    Ok(unreadable)
}

/// Whether it costs something, and what it is.
fn explain(damage: &Damage) -> (bool, String) {
    match damage {
        Damage::AtStart(Note::TornTail { bytes }) => (
            false,
            format!("an unfinished write of {bytes} bytes at the end: nothing was lost"),
        ),
        Damage::AtStart(Note::DamagedSegment { name }) => (
            true,
            format!("{name} is damaged: what is lost of it is listed as a gap"),
        ),
        Damage::AtStart(Note::UnreadableSegment { name }) => (true, format!("nothing of {name} can be understood")),
        Damage::AtStart(Note::LostCursor) => (true, "the cursor is lost: everything held is sent again".to_owned()),
        Damage::AtStart(Note::LostCheckpoint) => {
            (true, "the newest checkpoint is lost: lines may count twice".to_owned())
        }
        Damage::NoBirth { schema } => (
            true,
            format!("the dictionary {schema:016x} is missing or damaged: central cannot read the blocks that need it"),
        ),
        Damage::CursorSlot => (
            false,
            "one of the cursor's two slots is damaged: the other one is used".to_owned(),
        ),
        Damage::PutAside { name } => (
            false,
            format!("{name} was damaged, and is kept for a person to look at"),
        ),
        Damage::GapsForgotten { count } => (
            true,
            format!("{count} gaps found no room: central shows them as missing"),
        ),
    }
}

/// Prints every record as JSON lines, as `run --dry-run` does; with a folder, writes each as a payload of the feed into a
/// file of its own instead.
///
/// # Errors
/// When the spool cannot be read or the folder not be written to.
pub fn export(config: &Config, folder: Option<&Path>) -> Result<()> {
    let (look, held) = open(config)?;
    match folder {
        Some(folder) => export_files(&look, folder),
        None => export_lines(&look, &held),
    }
}

fn export_lines(look: &Look, held: &[HeldRun]) -> Result<()> {
    let mut writer = json::Writer::default();
    for run in held {
        if let Some(birth) = look.birth(run.schema)? {
            // Remembered and not printed: it is a record of its own.
            writer.lines(&body(&birth.payload)?);
        }
    }
    look.each_record(&mut |record, _| {
        let body = decode_body(&record.payload).map_err(io::Error::other)?;
        writer.lines(&body).iter().try_for_each(|line| output::line(line))
    })
    .context("printing the spool")
}

/// As the uplink would send each alone, now; the dictionaries too, whether or not they still wait.
fn export_files(look: &Look, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let mut files = 0_u64;
    look.each_record(&mut |record, time_ms| {
        files += 1;
        write(look, folder, &record, time_ms)
    })
    .with_context(|| format!("writing into {}", folder.display()))?;
    output::line(&format!("{files} payloads in {}", folder.display()))?;
    Ok(())
}

fn write(look: &Look, folder: &Path, record: &Record, time_ms: u64) -> io::Result<()> {
    let (generation, seq) = (record.id.generation, record.id.seq);
    let message = Message {
        generation,
        seq_first: seq,
        seq_last: seq,
        oldest_seq_held: look.oldest(generation).unwrap_or(seq),
        clock: ClockReading {
            wall_ms: time_ms,
            monotonic_ms: 0,
            boot_id: 0,
        },
        body: decode_body(&record.payload).map_err(io::Error::other)?,
    };
    let leaf = match record.kind {
        RecordKind::Birth => "birth",
        RecordKind::Block => "sum",
        RecordKind::Finding => "evt",
    };
    std::fs::write(
        folder.join(format!("{generation:016x}-{seq:08}.{leaf}")),
        encode(&message),
    )
}

fn open(config: &Config) -> Result<(Look, Vec<HeldRun>)> {
    let look = Look::open(&config.state_dir.join(SPOOL_DIR))?;
    let held = look.held().context("reading the spool")?;
    Ok((look, held))
}

fn body(payload: &[u8]) -> Result<Body> {
    decode_body(payload).context("reading a record")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_the_largest_unit_of_which_there_are_two() {
        let told = |seconds: u64| age(seconds * 1000, 0);
        assert_eq!(
            [told(0), told(90), told(300), told(108_000), told(1_036_800)],
            ["0 s", "90 s", "5 min", "30 h", "12 d"]
        );
        assert_eq!(age(0, 5_000), "0 s");
    }
}
