//! The Prometheus text format 0.0.4 and OpenMetrics 1.0, one sample at a time.
//!
//! In: a line. Out: its metric, labels and value, borrowed from the line. Comments, timestamps and exemplars are
//! checked and left out; a wrong line costs that line. Sources: prometheus.io "Exposition formats"; OpenMetrics 1.0.

use std::borrow::Cow;

use tillwatch_sdk::parse::Wrong;

/// Labels of one sample; more are refused.
const LABELS_MAX: usize = 64;

/// A line that is a sample.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample<'a> {
    pub(crate) metric: Cow<'a, str>,
    pub(crate) labels: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// May be NaN or infinite.
    pub(crate) value: f64,
}

impl Sample<'_> {
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        let (_name, value) = self.labels.iter().find(|(known, _value)| known == name)?;
        Some(value)
    }
}

/// Reads one line without its end; nothing of an empty line or a comment.
pub(crate) fn sample(line: &str) -> Result<Option<Sample<'_>>, Wrong> {
    let line = line.trim_matches(BLANKS);
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let mut rest = Rest(line);
    let mut labels = Vec::new();
    let name = rest.metric_name();
    rest.skip_blanks();
    // A name in quotes stands within the braces.
    let mut quoted = None;
    if rest.take('{') {
        quoted = rest.labels(&mut labels)?;
    }
    let metric = match (name, quoted) {
        (Some(name), None) => Cow::Borrowed(name),
        (None, Some(quoted)) => quoted,
        _ => return Err(Wrong::Syntax),
    };
    rest.skip_blanks();
    let value = rest.number()?;
    rest.end()?;
    Ok(Some(Sample { metric, labels, value }))
}

const BLANKS: [char; 2] = [' ', '\t'];

/// What of a line has not been read.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn take(&mut self, expected: char) -> bool {
        let rest = self.0.strip_prefix(expected);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn skip_blanks(&mut self) {
        self.0 = self.0.trim_start_matches(BLANKS);
    }

    fn metric_name(&mut self) -> Option<&'a str> {
        self.name(|byte| byte == b':')
    }

    fn name(&mut self, is_also: impl Fn(u8) -> bool) -> Option<&'a str> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || is_also(byte);
        let length = self.0.bytes().take_while(|byte| is_name(*byte)).count();
        let (name, rest) = self.0.split_at_checked(length)?;
        let first = name.bytes().next()?;
        self.0 = rest;
        (!first.is_ascii_digit()).then_some(name)
    }

    /// After the opening brace, to the closing one; gives a name that stood there.
    fn labels(&mut self, labels: &mut Vec<(Cow<'a, str>, Cow<'a, str>)>) -> Result<Option<Cow<'a, str>>, Wrong> {
        let mut metric = None;
        loop {
            self.skip_blanks();
            if self.take('}') {
                return Ok(metric);
            }
            let (name, is_quoted) = match self.quoted()? {
                Some(quoted) => (quoted, true),
                None => (Cow::Borrowed(self.name(|_byte| false).ok_or(Wrong::Syntax)?), false),
            };
            self.skip_blanks();
            if self.take('=') {
                self.skip_blanks();
                labels.push((name, self.quoted()?.ok_or(Wrong::Syntax)?));
            } else if is_quoted && metric.is_none() && labels.is_empty() {
                metric = Some(name);
            } else {
                return Err(Wrong::Syntax);
            }
            if labels.len() > LABELS_MAX {
                return Err(Wrong::Limit);
            }
            self.skip_blanks();
            if !self.take(',') && !self.0.starts_with('}') {
                return Err(Wrong::Syntax);
            }
        }
    }

    /// Text in quotes, in which a backslash stands before a quote, another one, or `n`.
    fn quoted(&mut self) -> Result<Option<Cow<'a, str>>, Wrong> {
        let Some(text) = self.0.strip_prefix('"') else {
            return Ok(None);
        };
        let mut is_escaped = false;
        let end = text.bytes().position(|byte| {
            let is_end = byte == b'"' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            is_end
        });
        let (text, rest) = text.split_at_checked(end.ok_or(Wrong::Syntax)?).ok_or(Wrong::Syntax)?;
        self.0 = rest.strip_prefix('"').unwrap_or(rest);
        Ok(Some(unescape(text)))
    }

    fn number(&mut self) -> Result<f64, Wrong> {
        let word = self.word();
        let is_number = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !word.bytes().all(is_number) {
            return Err(Wrong::Number);
        }
        word.parse().or(Err(Wrong::Number))
    }

    fn word(&mut self) -> &'a str {
        let (word, rest) = self.0.split_once(BLANKS).unwrap_or((self.0, ""));
        self.0 = rest;
        word
    }

    /// A time and an exemplar may follow.
    fn end(&mut self) -> Result<(), Wrong> {
        self.skip_blanks();
        if !self.0.is_empty() && !self.0.starts_with('#') {
            self.number()?;
            self.skip_blanks();
        }
        if self.0.is_empty() || self.0.starts_with("# {") {
            Ok(())
        } else {
            Err(Wrong::Syntax)
        }
    }
}

/// An unknown escape stays as it is written, as Prometheus itself does.
fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            plain.push(letter);
            continue;
        }
        match letters.next() {
            Some('n') => plain.push('\n'),
            Some(escaped @ ('\\' | '"')) => plain.push(escaped),
            Some(other) => plain.extend(['\\', other]),
            None => plain.push('\\'),
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(line: &str) -> (String, Vec<(String, String)>, f64) {
        let sample = sample(line).unwrap().unwrap();
        let labels = sample
            .labels
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()));
        (sample.metric.to_string(), labels.collect(), sample.value)
    }

    fn one(name: &str, value: &str) -> Vec<(String, String)> {
        vec![(name.to_owned(), value.to_owned())]
    }

    /// Lines of prometheus.io "Exposition formats" and of OpenMetrics 1.0.
    #[test]
    fn samples_are_read_as_the_formats_say() {
        assert_eq!(
            read(r#"http_requests_total{method="post",code="200"} 1027 1395066363000"#),
            (
                "http_requests_total".to_owned(),
                [one("method", "post"), one("code", "200")].concat(),
                1027.0
            )
        );
        assert_eq!(
            read(r#"msdos_file_access_time_seconds{path="C:\\DIR\\FILE.TXT",error="Cannot find file:\n\"FILE.TXT\""} 1.458255915e9"#).1,
            [
                one("path", "C:\\DIR\\FILE.TXT"),
                one("error", "Cannot find file:\n\"FILE.TXT\"")
            ]
            .concat()
        );
        assert_eq!(
            read("metric_without_timestamp_and_labels 12.47").2.to_bits(),
            12.47_f64.to_bits()
        );
        assert_eq!(
            read(r#"something_weird{problem="division by zero"} +Inf -3982045"#)
                .2
                .to_bits(),
            f64::INFINITY.to_bits()
        );
        assert!(read(r#"rpc{quantile="0.5"} NaN"#).2.is_nan());
        assert_eq!(
            read(r#"foo_bucket{le="0.1"} 8 # {} 0.054"#).2.to_bits(),
            8_f64.to_bits()
        );
        assert_eq!(
            read(r##"foo_bucket{le="1"} 11 1520879607.789 # {trace_id="KOO5S4vxi0o"} 0.67 1520879607.1"##).1,
            one("le", "1")
        );
        assert_eq!(read(r#"{"queue.depth",queue="a"} 3"#).0, "queue.depth");
        assert_eq!(read("a:b \t{ x = \"1\" , }\t 5 ").1, one("x", "1"));
    }

    #[test]
    fn comments_and_empty_lines_are_no_samples() {
        for line in ["", "  ", "# HELP a b", "# TYPE a gauge", "#", "# EOF", "# a comment"] {
            assert_eq!(sample(line), Ok(None), "{line}");
        }
    }

    #[test]
    fn wrong_lines_are_refused() {
        for (line, wrong) in [
            ("a", Wrong::Number),
            ("a one", Wrong::Number),
            ("1a 1", Wrong::Syntax),
            ("a{b} 1", Wrong::Syntax),
            ("a{b=1} 1", Wrong::Syntax),
            ("a{b=\"1} 1", Wrong::Syntax),
            ("a{b=\"1\" c=\"2\"} 1", Wrong::Syntax),
            ("a{b=\"1\"", Wrong::Syntax),
            ("a 1 2 3", Wrong::Syntax),
            ("a 1 now", Wrong::Number),
            ("{\"a\",\"b\"} 1", Wrong::Syntax),
            ("a{\"b\"} 1", Wrong::Syntax),
            ("{b=\"1\"} 1", Wrong::Syntax),
        ] {
            assert_eq!(sample(line), Err(wrong), "{line}");
        }
        let many = format!("a{{{}}} 1", "b=\"1\",".repeat(65));
        assert_eq!(sample(&many), Err(Wrong::Limit));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(name in "[a-z_:][a-z0-9_:]{0,8}", label in "[a-z_]{1,4}", value in "\\PC{0,16}|\n", number in any::<f64>()) {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let line = format!("{name}{{{label}=\"{escaped}\"}} {number}");
            let read = sample(&line).unwrap().unwrap();
            prop_assert_eq!(&read.metric, &name);
            prop_assert_eq!(read.label(&label), Some(value.as_str()));
            prop_assert!(read.value.to_bits() == number.to_bits() || number.is_nan());
        }

        #[test]
        fn arbitrary_text_never_panics(line in "[a{}\"\\\\=, #1é\t]{0,40}|\\PC{0,40}") {
            if let Ok(Some(read)) = sample(&line) {
                let is_named = !read.metric.is_empty() || line.starts_with("{");
                prop_assert!(is_named);
                prop_assert!(read.labels.len() <= LABELS_MAX);
            }
        }
    }
}
