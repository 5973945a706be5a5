//! The one door for lines of an access log: bytes in, a request or what is wrong with the line out.

use std::borrow::Cow;

use memchr::memchr;
use tillwatch_sdk::parse::{Wrong, text};

use crate::combined::Combined;
use crate::directives;
use crate::json::Json;
use crate::layout::Layout;
use crate::times::Times;
use crate::w3c::W3c;
use crate::{Format, Settings};

/// What a line says of one answered request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// When it was answered.
    pub(crate) time_ms: u64,
    /// The path or URL as requested; empty when the line has none.
    pub(crate) target: Cow<'a, [u8]>,
    pub(crate) status: Option<u16>,
    pub(crate) latency_us: Option<i64>,
    /// The client was gone before the answer was.
    pub(crate) is_aborted: bool,
    /// The status or duration is, and was left out: a broken clock, or a connection that stayed for days.
    pub(crate) is_out_of_range: bool,
}

impl Request<'_> {
    pub(crate) fn into_owned(self) -> Request<'static> {
        Request {
            target: Cow::Owned(self.target.into_owned()),
            ..self
        }
    }
}

/// Reads lines of one format.
#[derive(Debug)]
pub(crate) struct Reader {
    form: Form,
    times: Times,
}

#[derive(Debug)]
enum Form {
    Combined(Combined),
    Layout(Layout),
    W3c(W3c),
    Json(Json),
}

impl Reader {
    /// The error says what to change in the settings.
    pub(crate) fn new(settings: &Settings) -> Result<Self, String> {
        let form = match settings.format {
            Format::Combined => Form::Combined(Combined::without_latency()?),
            Format::Timed => Form::Combined(Combined::timed(settings)?),
            Format::Nginx => Form::Layout(directives::nginx(settings)?),
            Format::Apache => Form::Layout(directives::apache(settings)?),
            Format::Iis => Form::W3c(W3c::new(settings)?),
            Format::Json => Form::Json(Json::new(settings)),
        };
        Ok(Self {
            form,
            times: Times::new(settings.time_zone),
        })
    }

    /// Reads one line without its end; none when it is no request, but says something of the lines that follow.
    pub(crate) fn read<'a>(&mut self, line: &'a [u8]) -> Result<Option<Request<'a>>, Wrong> {
        let line = whole(line);
        let read = match &mut self.form {
            Form::Combined(combined) => combined.read(line, &mut self.times).map(Some),
            Form::Layout(layout) => layout.read(line, &mut self.times).map(|(request, _)| Some(request)),
            Form::W3c(w3c) => w3c.read(line, &mut self.times),
            Form::Json(json) => json.read(line, &mut self.times),
        };
        // Bytes of some other program are told from lines of another format.
        read.map_err(|wrong| text(line).err().unwrap_or(wrong))
    }

    /// What must be known of earlier lines to read the next one.
    pub(crate) fn w3c(&self) -> Option<&W3c> {
        match &self.form {
            Form::W3c(w3c) => Some(w3c),
            Form::Combined(_) | Form::Layout(_) | Form::Json(_) => None,
        }
    }

    pub(crate) fn w3c_mut(&mut self) -> Option<&mut W3c> {
        match &mut self.form {
            Form::W3c(w3c) => Some(w3c),
            Form::Combined(_) | Form::Layout(_) | Form::Json(_) => None,
        }
    }
}

/// Without what a crash of the server or a rotation leaves before a line: zeros, or a file's byte order mark.
fn whole(line: &[u8]) -> &[u8] {
    match line.first() {
        Some(0) => {
            let zeros = line.iter().take_while(|byte| **byte == 0).count();
            line.get(zeros..).unwrap_or_default()
        }
        Some(0xef) => line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line),
        _ => line,
    }
}

/// The path of `POST /pay HTTP/1.1`, which may hold blanks; empty for what is no request, such as `-` or a TLS hello.
pub(crate) fn target(request: &[u8]) -> &[u8] {
    let Some(blank) = memchr(b' ', request) else {
        return b"";
    };
    let target = request.get(blank.saturating_add(1)..).unwrap_or_default();
    match target {
        [target @ .., b' ', b'H', b'T', b'T', b'P', b'/', _, b'.', _] => target,
        [target @ .., b' ', b'H', b'T', b'T', b'P', b'/', _] => target,
        _ => target,
    }
}

/// As servers write it: `-`, 0 and nginx's `009` of HTTP/0.9 are none.
pub(crate) fn status_or_none(value: &[u8]) -> Result<Option<u16>, Wrong> {
    match value {
        b"-" | b"0" | b"000" | b"009" => Ok(None),
        [a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
            let digit = |byte: &u8, weight: u16| u16::from(byte & 0x0f).saturating_mul(weight);
            Ok(Some(
                digit(a, 100).saturating_add(digit(b, 10)).saturating_add(digit(c, 1)),
            ))
        }
        // nginx hands on what an upstream says.
        [b'0'..=b'9', b'0'..=b'9', b'0'..=b'9'] => Err(Wrong::Number),
        _ => Err(Wrong::Syntax),
    }
}

/// A value that is out of range is none: it costs itself, not the request.
pub(crate) fn unless_out_of_range<T>(
    read: Result<Option<T>, Wrong>,
    is_out_of_range: &mut bool,
) -> Result<Option<T>, Wrong> {
    if matches!(read, Err(Wrong::Number)) {
        *is_out_of_range = true;
        return Ok(None);
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_or_an_editor_leaves_before_a_line_is_passed_over() {
        let mut reader = Reader::new(&Settings {
            format: Format::Combined,
            ..Settings::default()
        })
        .unwrap();
        let line = b"- - - [23/Nov/2026:06:38:47 +0000] \"GET /pay HTTP/1.1\" 200 1";
        for before in [&b""[..], b"\0\0\0", b"\xef\xbb\xbf"] {
            let line = [before, line].concat();
            let target = reader.read(&line).unwrap().unwrap().target.into_owned();
            assert_eq!(target, b"/pay", "{before:?}");
        }
        assert_eq!(reader.read(b"\0\0"), Err(Wrong::Syntax));
    }

    #[test]
    fn a_mark_before_what_is_told_by_its_first_byte_is_passed_over() {
        let mut reader = Reader::new(&Settings {
            format: Format::Iis,
            ..Settings::default()
        })
        .unwrap();
        assert_eq!(reader.read(b"\xef\xbb\xbf#Fields: date time"), Ok(None));
        assert_eq!(reader.read(b"\0\0#Version: 1.0"), Ok(None));
    }

    #[test]
    fn bytes_of_another_program_are_told_from_lines_of_another_format() {
        let mut reader = Reader::new(&Settings::default()).unwrap();
        assert_eq!(reader.read(b"\xff\xfe"), Err(Wrong::Encoding));
        assert_eq!(reader.read(b"hello"), Err(Wrong::Syntax));
        let line = b"- [23/Nov/2026:06:38:47 +0000] \"GET /\xff HTTP/1.1\" 200 1 \"\xff\" rt=1";
        assert!(reader.read(line).is_ok(), "a browser may send any bytes");
    }
}
