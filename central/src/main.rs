//! The program `tillwatch-central`.

use clap::Parser;
use std::io::Write;
use std::process::ExitCode;
use tillwatch_central::cli::{self, Cli};
use tillwatch_log::Sparing;
use tracing::level_filters::LevelFilter;

/// `error`, `warn`, `info` (default), `debug` or `trace`.
const LOG_LEVEL: &str = "TILLWATCH_LOG";

fn main() -> ExitCode {
    let level = std::env::var(LOG_LEVEL)
        .ok()
        .and_then(|level| level.parse().ok())
        .unwrap_or(LevelFilter::INFO);
    tracing_subscriber::fmt()
        .with_max_level(level)
        .event_format(Sparing::new(tracing_subscriber::fmt::format()))
        .with_writer(std::io::stderr)
        .init();
    match cli::run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be done when even this cannot be written.
            drop(writeln!(std::io::stderr(), "{error:#}"));
            ExitCode::FAILURE
        }
    }
}
