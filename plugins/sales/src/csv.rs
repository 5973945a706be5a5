//! The one door for separated values: text in, records and their fields out, as RFC 4180 says and as tills write them.
//!
//! Separators `;`, `,`, tab and `|`, found by the header when none is set; quoted fields with separators, doubled quotes and
//! line breaks; a quote inside a bare field is only a sign; `sep=;` of spreadsheets; any line end.

use std::borrow::Cow;

use tillwatch_sdk::parse::Wrong;

/// A longer record is a quote that never closes: its first line is wrong, and reading goes on behind it.
const RECORD_BYTES_MAX: usize = 64 * 1024;
/// A field beyond these is not looked at.
pub(crate) const COLUMNS_MAX: usize = 512;
const SEPARATORS: [u8; 4] = *b";\t|,";

/// What separates the fields; none: the header tells.
///
/// # Errors
/// What to change in the settings.
pub(crate) fn separator(setting: &str) -> Result<Option<u8>, String> {
    match setting.as_bytes() {
        b"auto" => Ok(None),
        b"tab" => Ok(Some(b'\t')),
        [byte] if SEPARATORS.contains(byte) => Ok(Some(*byte)),
        _ => Err(format!(
            "separator: {setting:?} is none of auto, \";\", \",\", \"|\" and tab"
        )),
    }
}

/// Where the wanted fields stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Columns<const N: usize> {
    pub(crate) separator: u8,
    /// Column and wanted field, by column.
    places: Vec<(usize, usize)>,
}

impl<const N: usize> Columns<N> {
    /// By the names of a header; none when it has not all that are `needed`.
    pub(crate) fn of_header(header: &str, set: Option<u8>, names: &[&str; N], needed: &[usize]) -> Option<Self> {
        let candidates = SEPARATORS.into_iter().filter(|byte| set.is_none_or(|set| set == *byte));
        let read = |separator: u8| {
            let header: Vec<Cow<'_, str>> = fields(header, separator).take(COLUMNS_MAX).collect();
            // Case counts only where it tells two columns apart.
            let place = |name: &str| {
                let is_name = |field: &Cow<'_, str>| !name.is_empty() && field.trim_ascii() == name;
                let is_alike = |field: &Cow<'_, str>| !name.is_empty() && field.trim_ascii().eq_ignore_ascii_case(name);
                header
                    .iter()
                    .position(is_name)
                    .or_else(|| header.iter().position(is_alike))
            };
            Self::new(separator, names.map(place))
        };
        let has = |columns: &Self, needed: usize| columns.places.iter().any(|(_column, field)| *field == needed);
        let has_all = |columns: &Self| needed.iter().all(|field| has(columns, *field));
        candidates.map(read).find(has_all)
    }

    /// By numbers from 1, for files without a header; `first` is a record. None when a name is no number.
    pub(crate) fn of_numbers(first: &str, set: Option<u8>, names: &[&str; N]) -> Option<Self> {
        let place = |name: &str| {
            name.parse::<usize>()
                .ok()?
                .checked_sub(1)
                .filter(|place| *place < COLUMNS_MAX)
        };
        if names.iter().any(|name| !name.is_empty() && place(name).is_none()) {
            return None;
        }
        let places = names.map(place);
        let last = places.iter().flatten().max()?;
        let reaches = |separator: &u8| fields(first, *separator).nth(*last).is_some();
        let separator = set.or_else(|| SEPARATORS.into_iter().find(reaches))?;
        Some(Self::new(separator, places))
    }

    fn new(separator: u8, columns: [Option<usize>; N]) -> Self {
        let places = columns.into_iter().zip(0..);
        let mut places: Vec<_> = places.filter_map(|(column, field)| Some((column?, field))).collect();
        places.sort_unstable();
        Self { separator, places }
    }

    /// The wanted fields of a record; an empty one is none.
    pub(crate) fn read<'a>(&self, record: &'a str) -> [Option<Cow<'a, str>>; N] {
        let mut wanted = std::array::from_fn(|_| None);
        let mut fields = (0..COLUMNS_MAX).zip(fields(record, self.separator));
        let mut at: Option<(usize, Cow<'a, str>)> = None;
        for (column, field) in &self.places {
            at = at
                .filter(|(at, _text)| at == column)
                .or_else(|| fields.find(|(at, _text)| at == column));
            // Behind the last field there is none.
            let Some((_at, text)) = &at else { break };
            if let Some(slot) = wanted.get_mut(*field) {
                *slot = Some(text.clone()).filter(|text| !text.trim_ascii().is_empty());
            }
        }
        wanted
    }
}

/// The records of a text, without their line ends and without empty ones.
#[derive(Clone)]
pub(crate) struct Records<'a> {
    rest: &'a str,
    /// As soon as it is known: a quote opens at the start of a field only.
    pub(crate) separator: Option<u8>,
}

impl<'a> Records<'a> {
    /// `sep=` in the first line goes before what is set.
    pub(crate) fn new(text: &'a str, set: Option<u8>) -> Self {
        let first = text.lines().next().unwrap_or_default();
        match first.as_bytes() {
            [b's', b'e', b'p', b'=', byte] if SEPARATORS.contains(byte) => {
                let rest = text.get(first.len()..).unwrap_or_default();
                let separator = Some(*byte);
                Self { rest, separator }
            }
            _ => Self {
                rest: text,
                separator: set,
            },
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<&'a str, Wrong>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rest = self.rest.trim_start_matches(['\r', '\n']);
        if self.rest.is_empty() {
            return None;
        }
        let (end, record) = match end(self.rest.as_bytes(), self.separator) {
            Some(end) => (end, Ok(self.rest.get(..end)?)),
            None => (
                self.rest.find(['\r', '\n']).unwrap_or(self.rest.len()),
                Err(Wrong::Syntax),
            ),
        };
        self.rest = self.rest.get(end..)?;
        Some(record)
    }
}

/// Where the first record ends; none when a quote stays open.
fn end(text: &[u8], separator: Option<u8>) -> Option<usize> {
    let is_separator = |byte: u8| separator.map_or(SEPARATORS.contains(&byte), |separator| separator == byte);
    let mut is_quoted = false;
    let mut is_start = true;
    for (place, byte) in text.iter().copied().enumerate().take(RECORD_BYTES_MAX) {
        match byte {
            // A doubled quote closes and opens again.
            b'"' if is_quoted => (is_quoted, is_start) = (false, true),
            b'"' if is_start => is_quoted = true,
            b'\r' | b'\n' if !is_quoted => return Some(place),
            b' ' => {}
            _ => is_start = is_separator(byte),
        }
    }
    (!is_quoted && text.len() <= RECORD_BYTES_MAX).then_some(text.len())
}

/// The fields of a record; there is always one.
pub(crate) fn fields(record: &str, separator: u8) -> impl Iterator<Item = Cow<'_, str>> {
    let mut rest = Some(record);
    std::iter::from_fn(move || {
        let text = rest?;
        let (field, after) = match text.trim_start_matches(' ').strip_prefix('"') {
            Some(quoted) => quoted_field(quoted, separator),
            None => bare(text, separator),
        };
        rest = after;
        Some(field)
    })
}

fn bare(text: &str, separator: u8) -> (Cow<'_, str>, Option<&str>) {
    match text.split_once(char::from(separator)) {
        Some((field, rest)) => (Cow::Borrowed(field), Some(rest)),
        None => (Cow::Borrowed(text), None),
    }
}

/// What follows the closing quote up to the separator is dropped.
fn quoted_field(text: &str, separator: u8) -> (Cow<'_, str>, Option<&str>) {
    let mut from = 0_usize;
    loop {
        let Some(quote) = text
            .get(from..)
            .and_then(|text| text.find('"'))
            .map(|place| from.saturating_add(place))
        else {
            return (Cow::Borrowed(text), None);
        };
        let after = text.get(quote.saturating_add(1)..).unwrap_or_default();
        if after.starts_with('"') {
            from = quote.saturating_add(2);
            continue;
        }
        let field = text.get(..quote).unwrap_or_default();
        let field = if field.contains('"') {
            Cow::Owned(field.replace("\"\"", "\""))
        } else {
            Cow::Borrowed(field)
        };
        return (field, bare(after, separator).1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(text: &str) -> Vec<Result<Vec<String>, Wrong>> {
        let records = Records::new(text, Some(b';'));
        let separator = records.separator.unwrap();
        let split = |record: &str| fields(record, separator).map(Cow::into_owned).collect();
        records.map(|record| record.map(split)).collect()
    }

    #[test]
    fn records_are_read_as_rfc_4180_says_and_as_tills_write_them() {
        let row = |fields: &[&str]| Ok(fields.iter().map(|field| (*field).to_owned()).collect());
        assert_eq!(records("a;b\r\n1;2\r\n"), [row(&["a", "b"]), row(&["1", "2"])]);
        assert_eq!(records("a\rb\n\n\nc"), [row(&["a"]), row(&["b"]), row(&["c"])]);
        assert_eq!(records("\"a;\r\nb\";\"\"\"q\"\"\";"), [row(&["a;\r\nb", "\"q\"", ""])]);
        assert_eq!(records("27\" TV;5\n1;2"), [row(&["27\" TV", "5"]), row(&["1", "2"])]);
        assert_eq!(records("sep=,\n1,2"), [row(&["1", "2"])]);
        assert_eq!(records(";\"open\nnext;1"), [Err(Wrong::Syntax), row(&["next", "1"])]);
        assert_eq!(records("\"a\"x;b"), [row(&["a", "b"])]);
        assert_eq!(records(""), []);
    }

    #[test]
    fn the_header_tells_the_separator() {
        let names = ["time", "total", ""];
        for (header, separator) in [
            ("time;total", b';'),
            ("x,total,time", b','),
            ("\"time\"\t\"total\"", b'\t'),
            ("time | total", b'|'),
        ] {
            let columns = Columns::of_header(header, None, &names, &[0, 1]).unwrap();
            assert_eq!(columns.separator, separator, "{header}");
        }
        assert_eq!(Columns::of_header("time;sum", None, &names, &[0, 1]), None);
        let columns = Columns::of_numbers("2,5;7", None, &["2", "1", ""]).unwrap();
        assert_eq!(columns.read("2,5;7"), [Some("7".into()), Some("2,5".into()), None]);
        assert_eq!(Columns::of_numbers("2,5;7", None, &["2", "total", ""]), None);
    }
}
