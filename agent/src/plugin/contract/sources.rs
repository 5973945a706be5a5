//! Sources as stores have them: empty, missing, slow, huge.

use std::time::Duration;

use anyhow::Result;
use tillwatch_border::{ErrorKind, Fault, Limits, PeerFault};

use super::Case;
use super::play::{Manner, play};
use crate::output;
use crate::plugin::golden::host::CaseHost;
use crate::plugin::outside::Outside;

/// So small that each read gives one line.
const ONE_LINE_BYTES: usize = 1;
/// More than one call may read, and than its samples fit into.
const HUGE_BYTES: usize = 8 << 20;
/// A store gives as much as is asked for.
const PIECE_BYTES: usize = 16 << 20;

/// Nothing comes out when nothing is there: no trap, and nothing but zeros of an empty source.
pub(super) fn no_data(plugin: &Outside, case: &Case) -> Result<Vec<String>> {
    let now_ms = case.host(plugin)?.now();
    let empty = || CaseHost::empty(&plugin.manifest.sources, now_ms);
    let faulty = |fault| {
        let host = empty();
        host.set_fault(fault);
        host
    };
    let hosts = [
        ("empty", empty()),
        ("missing", faulty(Fault::Unavailable)),
        ("not granted", faulty(Fault::Unknown)),
    ];
    let mut breaches = Vec::new();
    for (what, host) in hosts {
        match play(plugin, &case.settings, &host, &Manner::default()) {
            Err(error) => breaches.push(format!("with {what} sources: {error}")),
            Ok(end) if end.collected.has_nonzero => {
                breaches.push(format!("with {what} sources it reports values"));
            }
            Ok(end) if what != "empty" && !end.collected.is_empty() => {
                breaches.push(format!("with {what} sources it reports zeros, which nobody measured"));
            }
            Ok(_nothing) => {}
        }
    }
    Ok(breaches)
}

/// A peer that cannot be reached, hangs or says too much ends neither a call nor the plugin.
pub(super) fn peers_down(plugin: &Outside, case: &Case) -> Result<Vec<String>> {
    let mut breaches = Vec::new();
    if !plugin.manifest.sources.iter().any(|source| source.kind.is_peer()) {
        return Ok(breaches);
    }
    for fault in PeerFault::ALL.into_iter().filter(|fault| fault.is_peers()) {
        let host = case.host(plugin)?;
        host.set_peer_fault(fault);
        let what = format!("when its peers are {}", fault.name());
        match play(plugin, &case.settings, &host, &Manner::default()) {
            Err(error) => breaches.push(format!("{what}: {error}")),
            Ok(end) => {
                let error = end.collected.error.filter(|error| error.kind != ErrorKind::Transient);
                breaches.extend(error.map(|error| format!("{what} it is done for good: {}", error.message)));
            }
        }
    }
    Ok(breaches)
}

/// The same comes out when each line comes by itself.
pub(super) fn slow_source(plugin: &Outside, case: &Case) -> Result<Vec<String>> {
    let host = case.host(plugin)?;
    host.set_piece_bytes(ONE_LINE_BYTES);
    Ok(match play(plugin, &case.settings, &host, &Manner::default()) {
        Err(error) => vec![format!("when lines come one by one: {error}")],
        Ok(end) => match end.collected.error {
            Some(error) => vec![format!("when lines come one by one: {error}")],
            None => end.collected.differences(&case.plain),
        },
    })
}

/// A warning and no breach: on a loaded machine each plugin is slow.
fn warn_of_slow_calls(what: &str, longest: Duration) -> Result<()> {
    let allowed_ms = u128::from(Limits::default().call_ms_max);
    let took_ms = longest.as_millis();
    if took_ms > allowed_ms {
        output::line(&format!(
            "warning contract: huge input: {what} a call took {took_ms} ms; a store ends it after {allowed_ms} ms\n  to do: read less in each call, or tell operators to set `deadline`"
        ))?;
    }
    Ok(())
}

/// A large input is read in parts, each within the limits of one call.
pub(super) fn huge_input(plugin: &Outside, case: &Case) -> Result<Vec<String>> {
    let host = case.host(plugin)?;
    host.set_piece_bytes(PIECE_BYTES);
    host.repeat(HUGE_BYTES);
    let played = play(plugin, &case.settings, &host, &Manner::default());
    let what = format!("with {} MiB of input", HUGE_BYTES >> 20);
    if let Ok(end) = &played {
        warn_of_slow_calls(&format!("case {}: {what}", case.name), end.collected.longest)?;
    }
    Ok(match played {
        Err(error) => vec![format!("{what}: {error}")],
        Ok(end) => match end.collected.error {
            Some(error) => vec![format!("{what}: {error}")],
            None => match host.unread() {
                (0, 0) => Vec::new(),
                (lines, 0) => vec![format!("{what}: {lines} lines were left unread")],
                (0, documents) => vec![format!("{what}: {documents} documents were left unread")],
                (lines, documents) => {
                    vec![format!(
                        "{what}: {lines} lines and {documents} documents were left unread"
                    )]
                }
            },
        },
    })
}
