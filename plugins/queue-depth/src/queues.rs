//! From a queue's name to a name that the operator allowed: bounded, in lower case, and nothing else leaves the store.

use std::borrow::Cow;

/// All queues that the operator did not name.
pub(crate) const OTHER: &str = "_other";
/// Entries of the setting `queues`, and names that one reading may tell apart.
pub(crate) const QUEUES_MAX: usize = 40;
const NAME_BYTES_MAX: usize = 64;

/// The queue names of one instance.
pub(crate) struct Queues {
    default_name: String,
    rules: Vec<Rule>,
}

/// An entry of `queues`: `NAME`, `PATTERN*` or `SHOWN=PATTERN*`.
struct Rule {
    pattern: String,
    /// Instead of the queue's own name; only a pattern has none.
    shown: Option<String>,
}

impl Queues {
    /// Checks the names; the error says what to change.
    pub(crate) fn new(default_name: String, entries: &[String]) -> Result<Self, String> {
        if entries.len() > QUEUES_MAX {
            return Err(format!("queues: {} names, at most {QUEUES_MAX}", entries.len()));
        }
        check_name("queue", &default_name)?;
        let rules = entries.iter().map(|entry| rule(entry)).collect::<Result<_, _>>()?;
        Ok(Self {
            default_name: default_name.to_ascii_lowercase(),
            rules,
        })
    }

    /// The name of the drop folder and of readings without one.
    pub(crate) fn default_name(&self) -> &str {
        &self.default_name
    }

    /// The name to report for what a reading has.
    pub(crate) fn name_of(&self, queue: Option<&str>) -> Cow<'_, str> {
        let Some(queue) = queue else {
            return Cow::Borrowed(&self.default_name);
        };
        let Some(rule) = self.rules.iter().find(|rule| matches(&rule.pattern, queue)) else {
            return Cow::Borrowed(OTHER);
        };
        match &rule.shown {
            Some(shown) => Cow::Borrowed(shown),
            None if fits(queue) => Cow::Owned(queue.to_ascii_lowercase()),
            None => Cow::Borrowed(OTHER),
        }
    }

    /// The queues that were named without a pattern, as the broker and as a report names them.
    pub(crate) fn exact(&self) -> impl Iterator<Item = (&str, &str)> {
        let exact = self.rules.iter().filter(|rule| !rule.pattern.contains('*'));
        exact.map(|rule| {
            let shown = rule.shown.as_deref().unwrap_or(&rule.pattern);
            (rule.pattern.as_str(), shown)
        })
    }

    /// Whether all of them are.
    pub(crate) fn are_exact(&self) -> bool {
        self.exact().count() == self.rules.len()
    }
}

fn rule(entry: &str) -> Result<Rule, String> {
    let (shown, pattern) = match entry.split_once('=') {
        Some((shown, pattern)) => (Some(shown), pattern),
        None => (None, entry),
    };
    if let Some(shown) = shown {
        check_name("queues", shown)?;
    } else if !pattern.contains('*') {
        check_name("queues", pattern)?;
    }
    if pattern.is_empty() {
        return Err(format!("queues: {entry:?} has no pattern"));
    }
    let shown = shown.or((!pattern.contains('*')).then_some(pattern));
    Ok(Rule {
        pattern: pattern.to_owned(),
        shown: shown.map(str::to_ascii_lowercase),
    })
}

/// Whether a text is of a pattern in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some((_skipped, after)) = rest.split_once(part) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}

/// As `plugin.toml` declares the label, but for capitals.
fn fits(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits)
}

fn check_name(setting: &str, name: &str) -> Result<(), String> {
    if fits(name) {
        return Ok(());
    }
    let hint = if setting == "queues" {
        "; write \"shown=NAME\""
    } else {
        ""
    };
    Err(format!(
        "{setting}: {name:?} is not of [A-Za-z0-9._/-]{{1,{NAME_BYTES_MAX}}}{hint}"
    ))
}

/// The name in a form that identifies a queue of one broker, for what is kept between readings. FNV-1a.
/// Source: RFC 9923, section 2.
pub(crate) fn key(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(entries: &[&str]) -> Queues {
        let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        Queues::new("labels".to_owned(), &entries).unwrap()
    }

    #[test]
    fn only_named_queues_are_told_apart() {
        let queues = queues(&["mainframe"]);
        assert_eq!(queues.name_of(Some("mainframe")), "mainframe");
        assert_eq!(queues.name_of(Some("john.smith")), OTHER);
        assert_eq!(queues.name_of(None), "labels");
    }

    #[test]
    fn a_pattern_keeps_the_queue_s_own_name_or_gives_it_another() {
        let queues = queues(&["MAINFRAME.*", "loyalty=*points*", "tlog=pos tlog"]);
        assert_eq!(queues.name_of(Some("MAINFRAME.OUT")), "mainframe.out");
        assert_eq!(queues.name_of(Some("MAINFRAME.ö")), OTHER);
        assert_eq!(queues.name_of(Some("all points (old)")), "loyalty");
        assert_eq!(queues.name_of(Some("pos tlog")), "tlog");
        assert_eq!(queues.exact().collect::<Vec<_>>(), [("pos tlog", "tlog")]);
        assert!(!queues.are_exact());
    }

    #[test]
    fn a_star_stands_for_anything_and_nothing_else_does() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "a", true),
            ("*a", "ba", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("a.c", "abc", false),
            ("**", "x", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn names_that_make_no_sense_are_refused() {
        let error = |name: &str, entries: &[&str]| {
            let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
            Queues::new(name.to_owned(), &entries).err()
        };
        assert_eq!(
            error("Main Frame", &[]).unwrap(),
            "queue: \"Main Frame\" is not of [A-Za-z0-9._/-]{1,64}"
        );
        assert!(error("a", &[""]).unwrap().starts_with("queues: \"\""));
        assert!(error("a", &["b="]).unwrap().ends_with("has no pattern"));
        assert!(error("a", &["pos tlog"]).unwrap().ends_with("write \"shown=NAME\""));
        assert_eq!(error("a", &["b"; 41]).unwrap(), "queues: 41 names, at most 40");
    }
}
