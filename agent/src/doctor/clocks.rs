//! Whether the times that come out are plausible: of events against this machine's clock, and of that against the world.

use std::process::Command;

use super::finding::{Finding, Part, span};
use crate::source::machine_now_ms;

/// Clocks that differ by less are fine.
pub(super) const AHEAD_MS: u64 = 120_000;
/// Zones differ by whole quarters of an hour, and at least by two of them.
const ZONE_STEP_MS: u64 = 900_000;
const ZONE_MIN_MS: u64 = 2 * ZONE_STEP_MS;
const ZONE_MAX_MS: u64 = 14 * 3_600_000;
/// What is written a moment after it happened.
const ZONE_SLACK_MS: u64 = 60_000;
/// Stores close for the night, and rarely for longer than a day.
const SILENT_MS: u64 = 36 * 3_600_000;
/// 2026-01-01: this program was not there before.
const FIRST_MS: u64 = 1_767_225_600_000;

/// This machine's clock, and whether the system says that it follows a time server.
pub(super) fn machine() -> Vec<Finding> {
    let now_ms = machine_now_ms();
    if now_ms < FIRST_MS {
        let hint = "set it, and have it follow a time server: timedatectl set-ntp true";
        return vec![Finding::bad(Part::Machine, "its clock is before 2026", hint)];
    }
    vec![synchronized(follows_a_time_server())]
}

fn synchronized(answer: Option<bool>) -> Finding {
    match answer {
        Some(true) => Finding::good(Part::Machine, "its clock follows a time server"),
        Some(false) => Finding::note(
            Part::Machine,
            "its clock follows no time server, or does not yet",
            "timedatectl set-ntp true, or start chrony: windows of many sites are compared by time",
        ),
        None => Finding::note(
            Part::Machine,
            "nobody says whether its clock follows a time server",
            "compare `date -u` with another machine",
        ),
    }
}

/// As the kernel says it, asked through systemd.
fn follows_a_time_server() -> Option<bool> {
    let mut asked = Command::new("timedatectl");
    asked.args(["show", "--property=NTPSynchronized", "--value"]);
    let said = asked.output().ok().filter(|said| said.status.success())?;
    match said.stdout.trim_ascii() {
        b"yes" => Some(true),
        b"no" => Some(false),
        _ => None,
    }
}

/// The newest event of a plugin against now, and against the time at which its newest file was written.
pub(super) fn events(part: Part, newest_ms: u64, now_ms: u64, written_ms: Option<u64>) -> Finding {
    let ahead_ms = newest_ms.saturating_sub(now_ms);
    if ahead_ms > AHEAD_MS {
        let what = format!("its newest event is {} ahead of this machine", span(ahead_ms));
        let hint = match is_zone(ahead_ms) {
            true => "the times are of another zone: correct `time_zone` of the plugin, or the zone of the field",
            false => "set the clock of what writes the times, or of this machine",
        };
        return Finding::bad(part, what, hint);
    }
    let before_ms = written_ms.map_or(0, |written_ms| written_ms.saturating_sub(newest_ms));
    if is_zone(before_ms) {
        let what = format!("its newest event is {} before its file was written", span(before_ms));
        let hint = "if nothing was late, the times are of another zone: correct `time_zone` of the plugin";
        return Finding::note(part, what, hint);
    }
    let age_ms = now_ms.saturating_sub(newest_ms);
    let what = format!("its newest event is {} old", span(age_ms));
    if age_ms > SILENT_MS {
        let hint = "if more has happened since, it is written elsewhere, or the clock of what writes it is behind";
        return Finding::note(part, what, hint);
    }
    Finding::good(part, what)
}

/// Whether two clocks that show the same moment would differ so for their zones.
fn is_zone(difference_ms: u64) -> bool {
    let off_ms = (difference_ms + ZONE_SLACK_MS) % ZONE_STEP_MS;
    (ZONE_MIN_MS - ZONE_SLACK_MS..ZONE_MAX_MS + ZONE_SLACK_MS).contains(&difference_ms) && off_ms <= 2 * ZONE_SLACK_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::State;

    const NOW_MS: u64 = 1_772_451_000_000;
    const HOUR_MS: u64 = 3_600_000;

    fn events_at(newest_ms: u64, written_ms: Option<u64>) -> Finding {
        events(Part::Plugin("p".to_owned()), newest_ms, NOW_MS, written_ms)
    }

    #[test]
    fn events_of_another_zone_are_told_from_a_wrong_clock_and_from_a_quiet_night() {
        for (newest_ms, written_ms, state, hint) in [
            (NOW_MS - 3_000, Some(NOW_MS), State::Good, ""),
            (NOW_MS + 60_000, Some(NOW_MS), State::Good, ""),
            (NOW_MS + HOUR_MS - 20_000, Some(NOW_MS), State::Bad, "another zone"),
            (NOW_MS + 20 * 60_000, Some(NOW_MS), State::Bad, "set the clock"),
            (NOW_MS - HOUR_MS - 1_000, Some(NOW_MS), State::Note, "another zone"),
            (NOW_MS - HOUR_MS - 1_000, Some(NOW_MS - HOUR_MS), State::Good, ""),
            (NOW_MS - HOUR_MS, None, State::Good, ""),
            (NOW_MS - 48 * HOUR_MS, None, State::Note, "elsewhere"),
        ] {
            let found = events_at(newest_ms, written_ms);
            assert!(
                found.state == state && found.hint.contains(hint),
                "{newest_ms}: {found:?}"
            );
        }
    }

    #[test]
    fn a_clock_that_follows_nobody_is_told() {
        assert_eq!(synchronized(Some(true)).state, State::Good);
        for answer in [Some(false), None] {
            let told = synchronized(answer);
            assert!(told.state == State::Note && !told.hint.is_empty(), "{told:?}");
        }
    }
}
