//! Clocks that jump, and agents that start again with what the plugin kept.

use anyhow::Result;

use super::Case;
use super::play::{End, Manner, play};
use crate::plugin::golden::host::CaseHost;
use crate::plugin::outside::Outside;
use tillwatch_border::CallError;

const HOUR_MS: u64 = 3_600_000;
/// So small that each read gives one line, and a jump or a restart comes between two of them.
const ONE_LINE_BYTES: usize = 1;
/// The most that a plugin may keep.
const STATE_BYTES_MAX: usize = 64 << 10;

/// The clock goes an hour forward, an hour back, and to 1970, between two calls.
pub(super) fn clock_jumps(plugin: &Outside, case: &Case) -> Result<Vec<String>> {
    let now_ms = case.host(plugin)?.now();
    let jumps = [
        ("an hour forward", now_ms + HOUR_MS),
        ("an hour back", now_ms.saturating_sub(HOUR_MS)),
        ("to 1970", 0),
    ];
    let mut breaches = Vec::new();
    for (what, jump_to_ms) in jumps {
        let host = one_by_one(plugin, case)?;
        let manner = Manner {
            jump_to_ms: Some(jump_to_ms),
            calls_after: 1,
            ..Manner::default()
        };
        match play(plugin, &case.settings, &host, &manner) {
            Err(error) => breaches.push(format!("when the clock goes {what}: {error}")),
            Ok(end) if end.collected.has_negative && !case.plain.has_negative => {
                breaches.push(format!("when the clock goes {what} it reports negative values"));
            }
            Ok(end) => breaches.extend(own_error(&end).map(|error| format!("when the clock goes {what}: {error}"))),
        }
    }
    Ok(breaches)
}

fn one_by_one(plugin: &Outside, case: &Case) -> Result<CaseHost> {
    let host = case.host(plugin)?;
    host.set_piece_bytes(ONE_LINE_BYTES);
    Ok(host)
}

/// A new instance goes on with the state of the last one; bytes that no instance wrote do no harm.
pub(super) fn restart(plugin: &Outside, case: &Case) -> Result<Vec<String>> {
    let (whole, parts) = (one_by_one(plugin, case)?, one_by_one(plugin, case)?);
    let Ok(undisturbed) = play(plugin, &case.settings, &whole, &Manner::default()) else {
        // The check of slow sources tells.
        return Ok(Vec::new());
    };
    let manner = Manner {
        has_restarts: true,
        ..Manner::default()
    };
    let mut breaches = match play(plugin, &case.settings, &parts, &manner) {
        Err(error) => vec![format!("with a restart after each call: {error}")],
        Ok(end) => match own_error(&end) {
            Some(error) => vec![format!("with a restart after each call: {error}")],
            None => end.collected.differences(&undisturbed.collected),
        },
    };
    let state = parts.state();
    breaches.extend(nothing_new(plugin, case, &state)?);
    for garbage in garbage(&state) {
        let host = case.host(plugin)?;
        host.set_state(&garbage);
        let played = play(plugin, &case.settings, &host, &Manner::default());
        breaches.extend(garbage_breach(played));
    }
    Ok(breaches)
}

/// What ends a plugin's collecting here did not end it on the same input undisturbed.
fn own_error(end: &End) -> Option<String> {
    let error = end.collected.error.as_ref()?;
    Some(format!("it ends with its own error: {}", error.message))
}

/// A restarted plugin without new input must not count again what it counted.
fn nothing_new(plugin: &Outside, case: &Case, state: &[u8]) -> Result<Option<String>> {
    let host = CaseHost::empty(&plugin.manifest.sources, case.host(plugin)?.now());
    host.set_state(state);
    Ok(match play(plugin, &case.settings, &host, &Manner::default()) {
        Err(error) => Some(format!("after a restart without new input: {error}")),
        Ok(end) if end.collected.error.is_some() => {
            own_error(&end).map(|error| format!("after a restart without new input: {error}"))
        }
        Ok(end) if end.collected.has_counted() => {
            Some("after a restart without new input it counts values again".to_owned())
        }
        Ok(_end) => None,
    })
}

/// Such as an older version's, whose number stands in its first byte or digit, or another plugin's.
fn garbage(state: &[u8]) -> Vec<Vec<u8>> {
    let flipped = state.iter().map(|byte| !byte).collect();
    let cut = state[..state.len() / 2].to_vec();
    let older = |at: Option<usize>| {
        let mut older = state.to_vec();
        if let Some(at) = at {
            older[at] = older[at].wrapping_sub(1);
        }
        older
    };
    let number = |byte: &u8| (b'1'..=b'9').contains(byte);
    vec![
        vec![0xff; 64],
        vec![0; STATE_BYTES_MAX],
        b"{\"a\":1}".to_vec(),
        flipped,
        cut,
        older((!state.is_empty()).then_some(0)),
        older(state.iter().position(number)),
    ]
}

fn garbage_breach(played: Result<End, CallError>) -> Option<String> {
    match played {
        Err(error) => Some(format!("with a state that it cannot read: {error}")),
        Ok(End {
            collected, is_refused, ..
        }) if is_refused => {
            let error = collected.error.map(|error| error.message).unwrap_or_default();
            Some(format!(
                "with a state that it cannot read it refuses its settings: {error}"
            ))
        }
        Ok(end) => own_error(&end).map(|error| format!("with a state that it cannot read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::contract::play::Played;
    use tillwatch_border::{ErrorKind, PluginError};

    /// It passed, and told a store's operator of a permanent fault at the first restart.
    #[test]
    fn a_plugins_own_error_is_a_breach_where_the_same_input_had_none() {
        let error = |kind| PluginError {
            kind,
            message: "the state is of another version".to_owned(),
        };
        let end = |error| End {
            collected: Played {
                error,
                ..Played::default()
            },
            is_refused: false,
        };
        assert_eq!(garbage_breach(Ok(end(None))), None);
        for kind in [ErrorKind::Transient, ErrorKind::Permanent] {
            let told = garbage_breach(Ok(end(Some(error(kind))))).unwrap();
            assert!(told.contains("ends with its own error: the state is"), "{told}");
        }
    }
}
