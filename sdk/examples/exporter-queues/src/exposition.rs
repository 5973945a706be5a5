//! Prometheus' text format, as exporters write it.
//! Source: "Exposition formats", prometheus.io, text format 0.0.4.

/// One line.
#[derive(Debug, PartialEq)]
pub(crate) struct Sample<'a> {
    pub(crate) name: &'a str,
    pub(crate) labels: Vec<(&'a str, String)>,
    pub(crate) value: f64,
}

/// All samples, and how many lines are none.
pub(crate) fn parse(text: &str) -> (Vec<Sample<'_>>, i64) {
    let (mut samples, mut wrong) = (Vec::new(), 0);
    let lines = text.lines().map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match sample(line) {
            Some(sample) => samples.push(sample),
            None => wrong += 1,
        }
    }
    (samples, wrong)
}

/// `name{label="value",...} value [time]`
fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(|letter: char| letter == '{' || letter.is_whitespace())?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let mut words = rest.split_whitespace();
    let value = words.next()?.parse().ok()?;
    let is_timed = words.next().is_none_or(|time| time.parse::<i64>().is_ok());
    let is_whole = !name.is_empty() && is_timed && words.next().is_none();
    is_whole.then_some(Sample { name, labels, value })
}

/// What stands between the braces, and what follows them.
fn labels(mut rest: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once('=')?;
        let (value, after) = quoted(after.trim_start().strip_prefix('"')?)?;
        labels.push((name.trim(), value));
        rest = after;
    }
}

/// A value up to its closing quote, without its escapes.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match letters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            _ => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_times_and_odd_spaces_are_read_and_torn_lines_are_counted() {
        let text = "# HELP a A.\n\na 1\nb{x=\"1,}\\\"\\\\\\n\", y = \"2\",} +Inf 1772451000000\n\
                    c{x=\"1\"\nd{x=1} 2\ne one\nf 1 noon\n{x=\"1\"} 2\n";
        let (samples, wrong) = parse(text);
        let labels = vec![("x", "1,}\"\\\n".to_owned()), ("y", "2".to_owned())];
        let sample = |name, labels, value| Sample { name, labels, value };
        assert_eq!(
            samples,
            [sample("a", Vec::new(), 1.0), sample("b", labels, f64::INFINITY)]
        );
        assert_eq!(wrong, 5);
    }
}
