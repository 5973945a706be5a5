//! `tillwatch findings`: what the agent of this store has found, with or without a center.
//!
//! In: the file that the agent writes. Out: each episode with its evidence and what it cost, for people or as JSON lines.

use std::process::ExitCode;

use anyhow::Result;
use jiff::tz::TimeZone;
use tillwatch_core::local::{Episode, Sold, Told};

use crate::backtest::length;
use crate::config::Config;
use crate::evidence::{Evidence, local, short};
use crate::keeper::{LOCAL_FILE, read_local};
use crate::output;

/// Prints all of them, the newest last.
///
/// # Errors
/// When nobody reads what is printed.
pub fn list(config: &Config, is_json: bool) -> Result<ExitCode> {
    let file = config.state_dir.join(LOCAL_FILE);
    let told = read_local(&file).unwrap_or_default();
    for episode in told.episodes() {
        if is_json {
            output::line(&serde_json::to_string(episode)?)?;
            continue;
        }
        for line in lines(episode, &config.time_zone) {
            output::line(&line)?;
        }
    }
    if told.episodes().next().is_none() && !is_json {
        output::line("nothing was found so far")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn lines(episode: &Episode, zone: &TimeZone) -> Vec<String> {
    let start = local(episode.start_ms, zone).strftime("%Y-%m-%d %H:%M");
    let head = match episode.end_ms {
        Some(end_ms) => format!("{start}, for {}", length(end_ms.saturating_sub(episode.start_ms))),
        None => format!("{start}, still open"),
    };
    let told = episode.told.iter().map(|told| format!("  {}", told_line(told, zone)));
    let left_out = (episode.left_out > 0).then(|| format!("  and {} more metrics", episode.left_out));
    let sold = episode.sold.values().map(|sold| format!("  {}", sold_line(sold)));
    std::iter::once(head).chain(told).chain(left_out).chain(sold).collect()
}

fn told_line(told: &Told, zone: &TimeZone) -> String {
    let evidence = Evidence {
        what: &named(&told.metric, &told.labels),
        unit: &told.unit,
        actual: told.actual,
        expected: told.expected,
        band: Some((told.lower, told.upper)),
        time_ms: told.peak_ms,
    };
    let also = match told.also {
        0 => String::new(),
        1 => ", and 1 series more".to_owned(),
        count => format!(", and {count} series more"),
    };
    evidence.sentence(zone) + &also
}

/// `sales.count: 212, 291 fewer than the 503 expected (90 % between 465 and 541)`
fn sold_line(sold: &Sold) -> String {
    let Sold {
        expected,
        actual,
        reach,
        ..
    } = *sold;
    let unit = if sold.unit.starts_with('{') {
        String::new()
    } else {
        format!(" {}", sold.unit)
    };
    let word = if actual < expected { "fewer" } else { "more" };
    format!(
        "{}: {}{unit}, {} {word} than the {} expected (90 % between {} and {})",
        named(&sold.metric, &sold.labels),
        short(actual),
        short((expected - actual).abs()),
        short(expected),
        short((expected - reach).max(0.0)),
        short(expected + reach),
    )
}

fn named(metric: &str, labels: &[(String, String)]) -> String {
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if labels.is_empty() {
        metric.to_owned()
    } else {
        format!("{metric}{{{}}}", labels.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_episode_says_what_was_found_and_what_it_cost() {
        let told = Told {
            metric: "pos.latency".to_owned(),
            unit: "s".to_owned(),
            labels: vec![("route".to_owned(), "/checkout".to_owned())],
            peak_ms: 1_772_447_400_000,
            expected: 1.3,
            actual: 7.1,
            lower: 1.1,
            upper: 1.6,
            also: 2,
            ..Told::default()
        };
        let sold = Sold {
            metric: "sales.count".to_owned(),
            unit: "{transaction}".to_owned(),
            expected: 50.0,
            actual: 12.0,
            reach: 6.5,
            ..Sold::default()
        };
        let episode = Episode {
            start_ms: 1_772_447_100_000,
            end_ms: Some(1_772_449_800_000),
            told: vec![told],
            sold: [(1, sold)].into(),
            ..Episode::default()
        };
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        assert_eq!(
            lines(&episode, &zone),
            [
                "2026-03-02 11:25, for 45 min",
                "  pos.latency{route=/checkout} 7.1 s, expected 1.3 s (90 % between 1.1 and 1.6) for Monday 11:30, \
                 and 2 series more",
                "  sales.count: 12, 38 fewer than the 50 expected (90 % between 43.5 and 56.5)",
            ]
        );
    }
}
