//! Whether a plugin gives its input back in what it says: in log lines, in an error, in the text of a panic.
//!
//! In: a case, with a mark in place of one word of its input after another. Out: what was said with that mark, or with a
//! long number of the input. Labels and values are the registry's and the guard's matter.

use anyhow::Result;

use super::Case;
use super::play::{Manner, play};
use crate::plugin::golden::host::CaseHost;
use crate::plugin::outside::Outside;

/// No plugin says this of itself.
const MARK: &str = "zqmarkzq";
/// So many digits in a row name a transaction or a person.
const DIGITS_MIN: usize = 8;
/// Of what was said.
const SHOWN_CHARS_MAX: usize = 120;
/// Words of an answer that the mark stands for in turn.
const ANSWER_TURNS: usize = 8;

/// What it says holds nothing of what it read, whatever word of it is wrong.
pub(super) fn echo(plugin: &Outside, case: &Case) -> Result<Vec<String>> {
    let turns = if case.host(plugin)?.has_answers() {
        ANSWER_TURNS
    } else {
        1
    };
    let mut breaches = Vec::new();
    for turn in 0..turns {
        let host = case.host(plugin)?;
        let input = host.input();
        if turn == 0 {
            host.mark(MARK);
        }
        host.mark_answers(MARK, turn, turns);
        for breach in played(plugin, case, &host, &input) {
            if !breaches.contains(&breach) {
                breaches.push(breach);
            }
        }
    }
    Ok(breaches)
}

fn played(plugin: &Outside, case: &Case, host: &CaseHost, input: &[u8]) -> Vec<String> {
    let end = play(plugin, &case.settings, host, &Manner::default());
    let mut said: Vec<String> = host.take_logs().into_iter().map(|(_level, message)| message).collect();
    let trap = match end {
        Ok(end) => {
            said.extend(end.collected.error.map(|error| error.message));
            None
        }
        Err(error) => Some(format!("a word that makes no sense ends it: {error}")),
    };
    let told = said.iter().filter_map(|message| breach(message, input));
    told.chain(trap).collect()
}

fn breach(message: &str, input: &[u8]) -> Option<String> {
    let shown: String = message.chars().take(SHOWN_CHARS_MAX).collect();
    if message.to_ascii_lowercase().contains(MARK) {
        return Some(format!("it says a word of what it read, here {MARK}: {shown:?}"));
    }
    let mut numbers = message.split(|letter: char| !letter.is_ascii_digit());
    let is_read =
        |digits: &&str| digits.len() >= DIGITS_MIN && memchr::memmem::find(input, digits.as_bytes()).is_some();
    let digits = numbers.find(is_read)?.len();
    Some(format!("it says a number of {digits} digits that it read: {shown:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_or_a_long_number_of_the_input_is_found_in_what_was_said() {
        let input = b"23.11.26 08:00:40;SCO1;rrn=632782147853;APPROVED";
        for (message, is_echo) in [
            ("1 line was not understood: ZQMARKZQ;SCO1", true),
            ("timeout of 632782147853", true),
            ("timeout of 632782147854", false),
            ("skipped input: kind=missing count=26", false),
        ] {
            assert_eq!(breach(message, input).is_some(), is_echo, "{message}");
        }
    }
}
