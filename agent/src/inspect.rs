//! `tillwatch spool ls` and `tillwatch spool export`: what waits for central, while no agent runs.

use anyhow::{Context, Result};
use tillwatch_feed::codec::decode_body;
use tillwatch_feed::message::{Body, RecordId};

use crate::clock::Clock;
use crate::config::Config;
use crate::output;
use crate::preview::json;
use crate::run::spool_folder;
use crate::spool::{Recovery, Run, Spool, SpoolSettings};

/// Records that are read at once.
const READ_MAX: u64 = 256;

/// Lists the runs of records.
///
/// # Errors
/// When a running agent has the spool, or it cannot be read.
pub fn list(config: &Config) -> Result<()> {
    let (spool, recovery) = open(config)?;
    for run in &recovery.runs {
        let kind = format!("{:?}", run.kind).to_lowercase();
        output::line(&format!(
            "{:016x}  {:>8} .. {:<8}  {kind}",
            run.generation, run.seq_first, run.seq_last
        ))?;
    }
    for gap in &recovery.gaps {
        let reason = gap.reason;
        output::line(&format!(
            "{:016x}  {:>8} .. {:<8}  gap ({reason:?})",
            gap.generation, gap.seq_first, gap.seq_last
        ))?;
    }
    output::line(&format!("{} records, {} bytes", spool.records(), spool.bytes()))?;
    Ok(())
}

/// Prints every record as JSON lines, as `run --dry-run` does.
///
/// # Errors
/// When a running agent has the spool, or it cannot be read.
pub fn export(config: &Config) -> Result<()> {
    let (mut spool, recovery) = open(config)?;
    let mut writer = json::Writer::default();
    for run in &recovery.runs {
        export_run(&mut spool, run, &mut writer)?;
    }
    Ok(())
}

fn open(config: &Config) -> Result<(Spool, Recovery)> {
    // Looking must not drop anything, however full or old.
    let settings = SpoolSettings {
        bytes_max: u64::MAX,
        age_max_ms: u64::MAX,
        ..SpoolSettings::default()
    };
    Ok(Spool::open(
        &spool_folder(config)?,
        &settings,
        0,
        Clock::wall().now_ms(),
    )?)
}

fn export_run(spool: &mut Spool, run: &Run, writer: &mut json::Writer) -> Result<()> {
    if let Some(birth) = spool.birth(run.schema)? {
        // Remembered and not printed: it is a record of its own.
        writer.lines(&body(&birth.payload)?);
    }
    let mut seq = run.seq_first;
    while seq <= run.seq_last {
        let count = READ_MAX.min(run.seq_last - seq + 1);
        let records = spool.read(
            RecordId {
                generation: run.generation,
                seq,
            },
            u32::try_from(count)?,
        )?;
        for record in &records {
            for line in writer.lines(&body(&record.payload)?) {
                output::line(&line)?;
            }
        }
        seq += (records.len() as u64).max(1);
    }
    Ok(())
}

fn body(payload: &[u8]) -> Result<Body> {
    decode_body(payload).context("reading a record")
}
