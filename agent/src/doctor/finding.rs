//! One thing that was looked at: of what it is a part, how it is, and what to do.

use std::fmt;

use serde_json::json;

use crate::config::written::Problem;

/// What was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Settings,
    Machine,
    Broker,
    Plugin(String),
    /// Plugin and source.
    Source(String, String),
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings => write!(formatter, "settings"),
            Self::Machine => write!(formatter, "this machine"),
            Self::Broker => write!(formatter, "broker"),
            Self::Plugin(plugin) => write!(formatter, "plugin `{plugin}`"),
            Self::Source(plugin, source) => write!(formatter, "plugin `{plugin}`, source `{source}`"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Good,
    /// It may be meant.
    Note,
    Bad,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Note => "note",
            Self::Bad => "bad",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) part: Part,
    pub(super) state: State,
    pub(super) what: String,
    /// What to do; never empty for what is bad.
    pub(super) hint: String,
}

impl Finding {
    pub(super) fn good(part: Part, what: impl Into<String>) -> Self {
        Self::new(part, State::Good, what, "")
    }

    pub(super) fn note(part: Part, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(part, State::Note, what, hint)
    }

    pub(super) fn bad(part: Part, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(part, State::Bad, what, hint)
    }

    fn new(part: Part, state: State, what: impl Into<String>, hint: impl Into<String>) -> Self {
        let (what, hint) = (what.into(), hint.into());
        Self {
            part,
            state,
            what,
            hint,
        }
    }

    pub(super) fn is_bad(&self) -> bool {
        self.state == State::Bad
    }

    /// For a person, or as a JSON line.
    pub(super) fn text(&self, json: bool) -> String {
        let Self {
            part,
            state,
            what,
            hint,
        } = self;
        if json {
            return self.json().to_string();
        }
        let mut text = format!("{:<5} {part}: {what}", state.name());
        if !hint.is_empty() {
            text.push_str(&format!("\n  hint: {hint}"));
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        let (kind, plugin, source) = match &self.part {
            Part::Settings => ("settings", None, None),
            Part::Machine => ("machine", None, None),
            Part::Broker => ("broker", None, None),
            Part::Plugin(plugin) => ("plugin", Some(plugin), None),
            Part::Source(plugin, source) => ("source", Some(plugin), Some(source)),
        };
        let mut line = json!({"state": self.state.name(), "part": kind, "what": self.what});
        let hint = (!self.hint.is_empty()).then_some(&self.hint);
        for (key, value) in [("plugin", plugin), ("source", source), ("hint", hint)] {
            if let Some(value) = value {
                line[key] = json!(value);
            }
        }
        line
    }
}

/// With the place in the file.
pub(super) fn of_problem(part: Part, problem: &Problem) -> Finding {
    let bare = Problem {
        hint: None,
        ..problem.clone()
    };
    let hint = problem.hint.clone().unwrap_or_else(|| "mend it there".to_owned());
    Finding::bad(part, bare.to_string(), hint)
}

/// `3 s`, `12 min`, `5 h`, `9 days`.
pub(super) fn span(ms: u64) -> String {
    match ms / 1_000 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// `12 B`, `4 KiB`, `1024 MiB`.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_with_its_hint_below_or_an_object() {
        let part = Part::Source("sales".to_owned(), "lines".to_owned());
        let finding = Finding::bad(part, "it is not there", "mend it");
        assert_eq!(
            finding.text(false),
            "bad   plugin `sales`, source `lines`: it is not there\n  hint: mend it"
        );
        let line: serde_json::Value = serde_json::from_str(&finding.text(true)).unwrap();
        let expected = json!({"state": "bad", "part": "source", "plugin": "sales", "source": "lines",
            "what": "it is not there", "hint": "mend it"});
        assert_eq!(line, expected);
    }
}
