//! What a plugin makes of its recording, in one line for the person who recorded it.
//!
//! In: the lines of `expected.jsonl`. Out: how many values of which metric, and whether the redaction took a word that the
//! plugin needs: such a case passes for ever and tries nothing.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

/// What plugins count their lines by that they do not understand.
const NOT_UNDERSTOOD: &str = "source.parse_errors";

/// Of one recording.
#[derive(Debug, Default)]
pub(super) struct Made {
    values: BTreeMap<String, u64>,
    not_understood: u64,
}

impl Made {
    pub(super) fn of(expected: &str) -> Self {
        let mut made = Self::default();
        for line in expected.lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_default();
            match line["metric"].as_str() {
                Some(NOT_UNDERSTOOD) => made.not_understood += line["value"].as_u64().unwrap_or(1),
                Some(metric) => *made.values.entry(metric.to_owned()).or_default() += 1,
                None => {}
            }
        }
        made
    }
}

impl fmt::Display for Made {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.values.iter();
        let told: Vec<String> = values.map(|(metric, count)| format!("{count} of {metric}")).collect();
        let told = if told.is_empty() {
            "no values".to_owned()
        } else {
            told.join(", ")
        };
        writeln!(
            formatter,
            "the plugin makes of it: {told}, {} not understood",
            self.not_understood
        )?;
        if self.not_understood > self.values.values().sum() {
            writeln!(
                formatter,
                "hint: a word that the plugin needs was replaced, perhaps: write it in backticks into the `help` of its source, \
                 or as a setting's default, and record again"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Such a case was useless, and the command said that it had succeeded.
    #[test]
    fn a_recording_that_its_plugin_does_not_understand_says_so() {
        let value = r#"{"metric":"eft.host.duration","labels":{},"value":8233,"time_ms":1}"#;
        let wrong = |count: u64| {
            format!("{{\"metric\":\"source.parse_errors\",\"labels\":{{}},\"value\":{count},\"time_ms\":1}}")
        };
        let said = r#"{"log":"warn","message":"skipped input: kind=syntax count=134"}"#;
        let told = |lines: &[&str]| Made::of(&lines.join("\n")).to_string();
        let poor = told(&[said, value, &wrong(66), &wrong(68)]);
        assert!(
            poor.starts_with("the plugin makes of it: 1 of eft.host.duration, 134 not understood\nhint: a word"),
            "{poor}"
        );
        let good = told(&[value, value, &wrong(1)]);
        assert_eq!(
            good,
            "the plugin makes of it: 2 of eft.host.duration, 1 not understood\n"
        );
        assert_eq!(told(&[]), "the plugin makes of it: no values, 0 not understood\n");
    }
}
