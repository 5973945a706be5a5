//! The format strings of nginx (`log_format`) and Apache (`LogFormat`), compiled to layouts.
//!
//! Both a bare string and the whole directive of the server's configuration are taken, so that an operator can paste it.

use crate::Settings;
use crate::latency::LatencyUnit;
use crate::layout::{Layout, Role, Step};

const FORMAT_BYTES_MAX: usize = 4096;
/// nginx's durations, the whole request's first.
const NGINX_DURATIONS: [&str; 4] = [
    "request_time",
    "upstream_response_time",
    "upstream_header_time",
    "upstream_connect_time",
];
/// What was asked, as the client sent it before as the server rewrote it.
const NGINX_TARGETS: [&str; 4] = ["request_uri", "request", "uri", "document_uri"];
const APACHE_TARGETS: [&str; 3] = ["%r", "%{REQUEST_URI}e", "%U"];

/// A piece of a format string.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Value { name: String, role: Role },
}

/// The layout of the setting `log_format`, as nginx writes it.
pub(crate) fn nginx(settings: &Settings) -> Result<Layout, String> {
    let format = match directive(&settings.log_format, "log_format")? {
        format if format.is_empty() => return Err(empty("$remote_addr - $remote_user [$time_local] ...")),
        format => format,
    };
    nginx_layout(&format, &settings.field_latency, settings.latency_unit)
}

/// The layout of a bare format string.
pub(crate) fn nginx_layout(format: &str, field_latency: &str, unit: LatencyUnit) -> Result<Layout, String> {
    let mut pieces = Vec::new();
    let mut rest = format;
    while let Some(dollar) = rest.find('$') {
        let (text, value) = rest.split_at(dollar);
        push_text(&mut pieces, text);
        let value = value.strip_prefix('$').unwrap_or_default();
        let (name, after) = match value.strip_prefix('{') {
            Some(braced) => braced.split_once('}').ok_or("log_format: a ${ has no }")?,
            None => {
                let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
                let end = value.bytes().take_while(|byte| is_name(*byte)).count();
                value.split_at(end)
            }
        };
        if name.is_empty() {
            return Err("log_format: a $ has no name behind it".to_owned());
        }
        let role = nginx_role(name);
        pieces.push(Piece::Value {
            name: name.to_owned(),
            role,
        });
        rest = after;
    }
    push_text(&mut pieces, rest);
    let wanted = field_latency.trim_start_matches('$');
    choose_latency(&mut pieces, wanted, &NGINX_DURATIONS, |_| unit.or(LatencyUnit::S))?;
    choose_target(&mut pieces, &NGINX_TARGETS);
    layout(&pieces)
}

fn nginx_role(name: &str) -> Role {
    match name {
        "time_local" | "time_iso8601" | "msec" => Role::Time,
        "status" => Role::Status,
        "request" => Role::Request,
        "uri" | "request_uri" | "document_uri" => Role::Target,
        "http_x_forwarded_for" | "proxy_add_x_forwarded_for" => Role::List,
        _ if name.starts_with("upstream_") => Role::List,
        _ => Role::Skip,
    }
}

/// The layout of the setting `log_format`, as Apache writes it.
pub(crate) fn apache(settings: &Settings) -> Result<Layout, String> {
    let format = match directive(&settings.log_format, "LogFormat")? {
        format if format.is_empty() => return Err(empty("%h %l %u %t \\\"%r\\\" %>s %O %D")),
        format => format,
    };
    let mut pieces = apache_pieces(&format)?;
    let durations = pieces.iter().filter_map(|piece| match piece {
        Piece::Value { name, .. } => Some((apache_unit(name)?, name.clone())),
        Piece::Text(_) => None,
    });
    let mut durations: Vec<(LatencyUnit, String)> = durations.collect();
    // The finest first.
    durations.sort_by_key(|(unit, _)| match unit {
        LatencyUnit::Us => 0,
        LatencyUnit::Ms => 1,
        _ => 2,
    });
    let names: Vec<&str> = durations.iter().map(|(_, name)| name.as_str()).collect();
    choose_latency(&mut pieces, &settings.field_latency, &names, |name| {
        settings.latency_unit.or(apache_unit(name).unwrap_or(LatencyUnit::S))
    })?;
    choose_target(&mut pieces, &APACHE_TARGETS);
    layout(&pieces)
}

fn apache_pieces(format: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = format;
    while let Some(percent) = rest.find('%') {
        let (text, value) = rest.split_at(percent);
        push_text(&mut pieces, &text.replace("\\t", "\t"));
        if let Some(after) = value.strip_prefix("%%") {
            push_text(&mut pieces, "%");
            rest = after;
            continue;
        }
        let bytes = directive_bytes(value).ok_or("log_format: a % has no directive behind it")?;
        let (directive, after) = value.split_at_checked(bytes).unwrap_or((value, ""));
        rest = after;
        // `%>s`, `%<s`, `%!200,304{Referer}i`: the modifiers do not say what it is.
        let modifiers = |character: char| matches!(character, '<' | '>' | '!' | ',') || character.is_ascii_digit();
        let plain = format!("%{}", directive.trim_start_matches('%').trim_start_matches(modifiers));
        let (open, close) = if is_common_time(&plain) { ("[", "]") } else { ("", "") };
        push_text(&mut pieces, open);
        let role = apache_role(&plain);
        pieces.push(Piece::Value { name: plain, role });
        push_text(&mut pieces, close);
    }
    push_text(&mut pieces, &rest.replace("\\t", "\t"));
    Ok(pieces)
}

/// Whether Apache writes it as the common log format does, with brackets around.
fn is_common_time(directive: &str) -> bool {
    matches!(directive, "%t" | "%{begin}t" | "%{begin:}t" | "%{end}t" | "%{end:}t")
}

/// Whether a time is that of the answer, not of the request's first byte.
fn is_end(name: &str) -> bool {
    !name.starts_with('%') || name.starts_with("%{end")
}

/// How long a directive is: `%>s`, `%{Referer}i`, `%^FB`, `%{VARIABLE}^ti`.
fn directive_bytes(value: &str) -> Option<usize> {
    let mut characters = value.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '{' => characters.find(|(_, character)| *character == '}').map(drop)?,
            '^' => return at.checked_add(3).filter(|end| value.is_char_boundary(*end)),
            _ if character.is_ascii_alphabetic() => return at.checked_add(1),
            '<' | '>' | '!' | ',' | '0'..='9' => {}
            _ => return None,
        }
    }
    None
}

fn apache_role(directive: &str) -> Role {
    match directive {
        "%t" => Role::Time,
        "%s" => Role::Status,
        "%r" => Role::Request,
        "%U" | "%{REQUEST_URI}e" => Role::Target,
        "%X" => Role::Connection,
        _ if directive.starts_with("%{") && directive.ends_with("}t") => Role::Time,
        _ if directive.eq_ignore_ascii_case("%{X-Forwarded-For}i") => Role::List,
        _ => Role::Skip,
    }
}

fn apache_unit(directive: &str) -> Option<LatencyUnit> {
    match directive {
        "%D" | "%{us}T" => Some(LatencyUnit::Us),
        "%{ms}T" => Some(LatencyUnit::Ms),
        "%T" | "%{s}T" => Some(LatencyUnit::S),
        _ => None,
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        _ if text.is_empty() => {}
        Some(Piece::Text(last)) => last.extend_from_slice(text.as_bytes()),
        _ => pieces.push(Piece::Text(text.as_bytes().to_vec())),
    }
}

/// Makes the operator's duration the latency, or else the first of these that the format has.
fn choose_latency(
    pieces: &mut [Piece],
    wanted: &str,
    preferred: &[&str],
    unit: impl Fn(&str) -> LatencyUnit,
) -> Result<(), String> {
    let has = |wanted: &str| {
        let is_it = |piece: &Piece| matches!(piece, Piece::Value { name, .. } if name == wanted);
        pieces.iter().any(is_it)
    };
    let chosen = match wanted {
        "" => preferred.iter().copied().find(|name| has(name)),
        wanted if has(wanted) => Some(wanted),
        wanted => return Err(format!("field_latency: log_format has no {wanted}")),
    };
    for piece in pieces {
        if let Piece::Value { name, role } = piece
            && Some(name.as_str()) == chosen
        {
            *role = Role::Latency(unit(name));
        }
    }
    Ok(())
}

/// Leaves one target: the first of these that the format has.
fn choose_target(pieces: &mut [Piece], preferred: &[&str]) {
    let rank = |piece: &Piece| match piece {
        Piece::Value { name, .. } => preferred.iter().position(|preferred| preferred == name),
        Piece::Text(_) => None,
    };
    let chosen = pieces.iter().filter_map(rank).min();
    for piece in pieces {
        let is_other = rank(piece).is_some() && rank(piece) != chosen;
        if let (true, Piece::Value { role, .. }) = (is_other, piece) {
            *role = Role::Skip;
        }
    }
}

/// Steps out of pieces: times that stand side by side are one, and so is a value with what is not wanted behind it.
fn layout(pieces: &[Piece]) -> Result<Layout, String> {
    let (mut steps, mut names, mut before) = (Vec::<Step>::new(), Vec::<&str>::new(), Vec::new());
    for piece in pieces {
        let (name, role) = match piece {
            Piece::Text(text) => {
                before.extend_from_slice(text);
                continue;
            }
            Piece::Value { name, role } => (name.as_str(), *role),
        };
        let last_name = names.last().copied().unwrap_or_default();
        match steps.last_mut() {
            // `%{sec}t.%{msec_frac}t` is one time.
            Some(last)
                if last.role == Role::Time
                    && role == Role::Time
                    && name.starts_with("%{")
                    && is_end(name) == is_end(last_name)
                    && before.len() <= 1 =>
            {
                before.clear();
            }
            Some(last) if before.is_empty() && last.role != Role::Status => match (last.role, role) {
                (Role::Target | Role::List | Role::Skip, Role::Skip) | (Role::Target | Role::List, Role::List) => {}
                (Role::Skip, Role::Target | Role::List) => last.role = role,
                _ => return Err(format!("log_format: nothing tells {name} from what stands before it")),
            },
            _ => {
                names.push(name);
                let before = std::mem::take(&mut before);
                steps.push(Step { before, role });
            }
        }
    }
    let time = choose_time(&mut steps, &names).ok_or("log_format: holds no time of the request")?;
    Ok(Layout {
        steps,
        end: before,
        is_begin: !is_end(time),
    })
}

/// Leaves one time, whose name comes back: one of the answer, else the finest, else the first.
fn choose_time<'a>(steps: &mut [Step], names: &[&'a str]) -> Option<&'a str> {
    let is_fraction = |name: &str| name.ends_with("_frac}t");
    let times = steps.iter_mut().zip(names).filter(|(step, _)| step.role == Role::Time);
    let mut times: Vec<(&mut Step, &str)> = times.map(|(step, name)| (step, *name)).collect();
    times.sort_by_key(|(_, name)| (is_fraction(name), !is_end(name), *name != "msec"));
    let mut times = times.into_iter();
    let (_, chosen) = times.next().filter(|(_, name)| !is_fraction(name))?;
    for (step, name) in times {
        // Only what holds a blank must be told by its shape.
        let is_checked = name == "time_local" || name.contains(' ');
        step.role = if is_checked { Role::OtherTime } else { Role::Skip };
    }
    Some(chosen)
}

fn empty(example: &str) -> String {
    format!("log_format: is empty; paste the one of the server, such as {example:?}")
}

/// The bare format string of a pasted directive: what is in quotes, without the escapes of the configuration.
fn directive(pasted: &str, keyword: &str) -> Result<String, String> {
    if pasted.len() > FORMAT_BYTES_MAX {
        return Err(format!(
            "log_format: {} bytes, at most {FORMAT_BYTES_MAX}",
            pasted.len()
        ));
    }
    let pasted = pasted.trim();
    let is_directive = pasted.split_whitespace().next() == Some(keyword);
    if !is_directive {
        // A string in quotes of its own is taken out of them.
        return Ok(match pasted.bytes().next() {
            Some(b'\'') if pasted.trim_end_matches(';').ends_with('\'') => quoted(pasted),
            Some(b'"') if pasted.contains("\\\"") => quoted(pasted),
            _ => pasted.replace("\\\"", "\""),
        });
    }
    let format = quoted(pasted);
    if format.is_empty() {
        return Err(format!("log_format: {keyword} without a format in quotes"));
    }
    Ok(format)
}

/// All quoted strings of a configuration's line, as one.
fn quoted(text: &str) -> String {
    let (mut out, mut quote) = (String::new(), None);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match quote {
            None if matches!(character, '\'' | '"') => quote = Some(character),
            None => {}
            Some(end) if character == end => quote = None,
            Some(_) if character == '\\' => match characters.next() {
                Some(escaped @ ('\'' | '"' | '\\')) => out.push(escaped),
                Some(other) => out.extend(['\\', other]),
                None => {}
            },
            Some(_) => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::Request;
    use crate::times::Times;
    use tillwatch_sdk::parse::{Offset, Wrong};

    fn settings(log_format: &str, field_latency: &str) -> Settings {
        Settings {
            log_format: log_format.to_owned(),
            field_latency: field_latency.to_owned(),
            ..Settings::default()
        }
    }

    fn read<'a>(layout: &Layout, line: &'a str) -> Result<Request<'a>, Wrong> {
        let mut times = Times::new(Offset::parse("+01:00").unwrap());
        layout.read(line.as_bytes(), &mut times).map(|(request, _)| request)
    }

    /// Time, target, status and duration as short text.
    fn told(layout: &Layout, line: &str) -> String {
        match read(layout, line) {
            Ok(request) => format!(
                "{} {} {:?} {:?}",
                request.time_ms,
                String::from_utf8_lossy(&request.target),
                request.status,
                request.latency_us
            ),
            Err(wrong) => wrong.name().to_owned(),
        }
    }

    #[test]
    fn nginx_formats_are_read_as_written() {
        let main = r#"$remote_addr - $remote_user [$time_local] "$request" $status "$http_user_agent" $request_time"#;
        let layout = nginx(&settings(main, "")).unwrap();
        for (line, expected) in [
            (
                r#"2001:db8::1 - - [23/Nov/2026:06:38:47 +0000] "GET /pay?x HTTP/2.0" 200 "a \x22quoted\x22 one" 0.213"#,
                "1795415927000 /pay?x Some(200) Some(213000)",
            ),
            (
                r#"- - [a] "b" 200 [23/Nov/2026:06:38:47 +0000] "" 400 "-" 0.000"#,
                "1795415927000  Some(400) Some(0)",
            ),
            (
                r#"- - - [23/Nov/2026:06:38:47 +0000] "\x16\x03\x01\x00\xEE" 400 "-" -"#,
                "1795415927000  Some(400) None",
            ),
            // A raw quote in a request, as old servers write it, is passed over where no status follows it.
            (
                r#"- - - [23/Nov/2026:06:38:47 +0000] "GET /a" b HTTP/1.1" 499 "-" 60.001"#,
                r#"1795415927000 /a" b Some(499) Some(60001000)"#,
            ),
            (
                r#"- - - [23/Nov/2026:06:38:47 +0000] "GET /" 009 "-" 0.1"#,
                "1795415927000 / None Some(100000)",
            ),
            (r#"- - - [23/Now/2026:06:38:47 +0000] "GET /" 200 "-" 0.1"#, "time"),
            (r#"- - - [23/Nov/2026:06:38:47 +0000] "GET /" 200 "-""#, "syntax"),
            (r#"- - - [23/Nov/2026:06:38:47 +0000] "GET /" 20x "-" 1"#, "syntax"),
            ("", "syntax"),
        ] {
            assert_eq!(told(&layout, line), expected, "{line}");
        }
    }

    #[test]
    fn an_nginx_directive_is_taken_whole() {
        let pasted = "log_format timed escape=default '$remote_addr [$time_iso8601] \"$request_method $uri\" '\n    \
                      '$status rt=${request_time}s urt=\"$upstream_response_time\"';";
        let line = r#"10.0.0.7 [2026-11-23T07:38:47+01:00] "POST /pay" 200 rt=0.700s urt="0.100, 0.2 : 0.300""#;
        let layout = nginx(&settings(pasted, "")).unwrap();
        assert_eq!(told(&layout, line), "1795415927000 /pay Some(200) Some(700000)");
        let layout = nginx(&settings(pasted, "upstream_response_time")).unwrap();
        assert_eq!(told(&layout, line), "1795415927000 /pay Some(200) Some(600000)");
        let layout = nginx(&settings("$msec $request_time $status $request_uri", "$request_time")).unwrap();
        assert_eq!(
            told(&layout, "1795415927.250 1.5 201 /a?b"),
            "1795415927250 /a?b Some(201) Some(1500000)"
        );
    }

    /// One request through two upstreams, of which the first timed out: those that matter most.
    #[test]
    fn lists_of_upstreams_move_no_other_value() {
        for (format, line, expected) in [
            (
                r#"[$time_local] "$request" $status "$http_referer" $upstream_response_time $request_time"#,
                r#"[23/Nov/2026:06:38:47 +0000] "GET /pay HTTP/1.1" 200 "-" 60.001, 0.100 60.101"#,
                "/pay Some(200) Some(60101000)",
            ),
            (
                "$msec $upstream_addr $upstream_response_time $request_time $remote_addr",
                "1795415927.000 10.0.0.1:80, 10.0.0.2:80 60.001, 0.100 60.101 10.0.0.7",
                " None Some(60101000)",
            ),
            (
                "$time_iso8601 $upstream_status $status $request_time $request_uri",
                "2026-11-23T06:38:47+00:00 502, 200 : - 200 0.301 /pay",
                "/pay Some(200) Some(301000)",
            ),
            (
                "$msec $http_x_forwarded_for $request_time",
                "1795415927.000 10.1.1.1, 10.2.2.2 0.2",
                " None Some(200000)",
            ),
            (
                "$msec,$upstream_addr,$request_time,$status",
                "1795415927.000,10.0.0.1:80, 10.0.0.2:80,0.2,200",
                " Some(200) Some(200000)",
            ),
            (
                "$msec $http_user_agent $request_time $status",
                "1795415927.000 Mozilla/5.0 (till-02) a 0.2 200",
                " Some(200) Some(200000)",
            ),
        ] {
            let layout = nginx(&settings(format, "")).unwrap();
            assert_eq!(told(&layout, line), format!("1795415927000 {expected}"), "{format}");
        }
        let layout = nginx(&settings(
            "$msec $upstream_response_time $bytes_sent",
            "upstream_response_time",
        ));
        let line = "1795415927.000 0.100, 0.200 51200";
        assert_eq!(told(&layout.unwrap(), line), "1795415927000  None Some(300000)");
        let forwarded = apache(&settings("%{X-Forwarded-For}i %U %t %s %D", "")).unwrap();
        let line = "10.1.1.1, 10.2.2.2 /pay [23/Nov/2026:06:38:47 +0000] 200 0";
        assert_eq!(told(&forwarded, line), "1795415927000 /pay Some(200) Some(0)");
    }

    #[test]
    fn a_time_may_hold_the_text_that_follows_it() {
        for (format, line, expected) in [
            (
                "$time_local $remote_addr \"$request\" $status $request_time",
                "23/Nov/2026:07:38:47 +0100 10.0.0.7 \"GET /pay HTTP/1.1\" 200 0.1",
                "/pay Some(200) Some(100000)",
            ),
            (
                "$time_local $remote_addr $request_uri $status",
                "23/Nov/2026:07:38:47 +0100 10.0.0.7 /pay 200",
                "/pay Some(200) None",
            ),
            (
                "$time_local $request_time $request_uri $status",
                "23/Nov/2026:07:38:47 +0100 0.213 /pay 200",
                "/pay Some(200) Some(213000)",
            ),
            (
                "$time_local $status $request_uri",
                "23/Nov/2026:07:38:47 +0100 200 /pay",
                "/pay Some(200) None",
            ),
            (
                "$time_iso8601,$request_time,$status",
                "2026-11-23T07:38:47+01:00,0.5,200",
                " Some(200) Some(500000)",
            ),
        ] {
            let layout = nginx(&settings(format, "")).unwrap();
            assert_eq!(told(&layout, line), format!("1795415927000 {expected}"), "{format}");
        }
        let openstack = r#"%{%Y-%m-%d %T}t.%{msec_frac}t %{pid}P INFO apache %h %l %u "%r" %>s %b %{ms}T"#;
        let line = r#"2026-11-23 07:38:47.250 77 INFO apache ::1 - - "GET /pay HTTP/1.1" 200 5 1"#;
        let layout = apache(&settings(openstack, "")).unwrap();
        assert_eq!(told(&layout, line), "1795415927251 /pay Some(200) Some(1000)");
        let columns = apache(&settings("%{%Y-%m-%d %T}t,%D,%s", "")).unwrap();
        let line = "2026-11-23 07:38:47,2309,200";
        assert_eq!(told(&columns, line), "1795415927002  Some(200) Some(2309)");
    }

    #[test]
    fn what_the_client_asked_for_goes_before_what_the_server_made_of_it() {
        for (format, line) in [
            (
                "$msec \"$request\" $uri",
                "1795415927.000 \"GET /pay HTTP/1.1\" /50x.html",
            ),
            ("$msec $uri $request_uri", "1795415927.000 /50x.html /pay"),
            (
                "$msec \"$request_method $scheme://$host$request_uri $server_protocol\"",
                "1795415927.000 \"POST https://pos.local/pay HTTP/1.1\"",
            ),
            ("$msec $host$request_uri", "1795415927.000 pos.local:443/pay"),
        ] {
            let layout = nginx(&settings(format, "")).unwrap();
            assert_eq!(told(&layout, line), "1795415927000 /pay None None", "{format}");
        }
        let layout = apache(&settings("%t \"%r\" %U", "")).unwrap();
        let line = "[23/Nov/2026:06:38:47 +0000] \"GET /pay HTTP/1.1\" /index.php";
        assert_eq!(told(&layout, line), "1795415927000 /pay None None");
    }

    #[test]
    fn of_several_times_that_of_the_answer_counts_then_the_finest() {
        for (format, line) in [
            (
                "[$time_local] $status $msec $request_time",
                "[23/Nov/2026:06:38:47 +0000] 200 1795415927.250 1",
            ),
            (
                "$msec $time_local $status $request_time",
                "1795415927.250 23/Nov/2026:06:38:47 +0000 200 1",
            ),
        ] {
            let layout = nginx(&settings(format, "")).unwrap();
            assert_eq!(
                told(&layout, line),
                "1795415927250  Some(200) Some(1000000)",
                "{format}"
            );
        }
        for (format, line, end_ms) in [
            (
                "%t %s %{end:msec}t %{ms}T",
                "[23/Nov/2026:06:38:46 +0000] 200 1795415927250 1000",
                250,
            ),
            (
                "%t %s %{msec_frac}t %{ms}T",
                "[23/Nov/2026:06:38:46 +0000] 200 250 1000",
                0,
            ),
            ("%{end}t %s %T", "[23/Nov/2026:06:38:47 +0000] 200 1", 0),
            ("%{begin:}t %s %T", "[23/Nov/2026:06:38:46 +0000] 200 1", 0),
            (
                "%{%Y-%m-%d %T}t %s %{end:}t %T",
                "2026-11-23 07:38:46 200 [23/Nov/2026:06:38:47 +0000] 1",
                0,
            ),
        ] {
            let layout = apache(&settings(format, "")).unwrap();
            let expected = format!("{}  Some(200) Some(1000000)", 1_795_415_927_000_u64 + end_ms);
            assert_eq!(told(&layout, line), expected, "{format}");
        }
        assert!(apache(&settings("%{msec_frac}t %s", "")).is_err());
    }

    #[test]
    fn apache_formats_are_read_as_written() {
        let line = r#"10.0.0.7 - - [23/Nov/2026:06:38:47 +0000] "GET /pay HTTP/1.1" 200 12 "-" "a \"b\" c" 213456"#;
        let pasted = r#"LogFormat "%h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\" %D" timed"#;
        let layout = apache(&settings(pasted, "")).unwrap();
        assert_eq!(told(&layout, line), "1795415927213 /pay Some(200) Some(213456)");
        let bare = r#"%h %l %u %t "%r" %s %b "%{Referer}i" "%!200,304{User-agent}i" %{ms}T"#;
        let layout = apache(&settings(bare, "")).unwrap();
        assert_eq!(told(&layout, line), "1795416140456 /pay Some(200) Some(213456000)");
        let seconds = apache(&settings(r#"%t %T/%D "%m %U%q %H" %>s %X"#, "%T")).unwrap();
        let line = r#"[23/Nov/2026:06:38:47 +0000] 2/2213456 "GET /pay?x HTTP/1.1" 200 X"#;
        assert_eq!(told(&seconds, line), "1795415929000 /pay?x Some(200) Some(2000000)");
        assert!(read(&seconds, line).unwrap().is_aborted);
        let finest = apache(&settings(r#"%t %T/%D "%m %U%q %H" %>s %X"#, "")).unwrap();
        assert_eq!(told(&finest, line), "1795415929213 /pay?x Some(200) Some(2213456)");
    }

    #[test]
    fn apache_times_may_be_written_in_pieces() {
        for (format, time) in [
            (
                "[%{%d/%b/%Y %T}t.%{msec_frac}t %{%z}t]",
                "[23/Nov/2026 06:38:47.250 +0000]",
            ),
            ("%{sec}t.%{msec_frac}t", "1795415927.250"),
            ("%{msec}t", "1795415927250"),
            ("%{usec}t", "1795415927250000"),
            (
                "%{end:%Y-%m-%dT%H:%M:%S}t.%{end:usec_frac}t",
                "2026-11-23T07:38:47.250999",
            ),
        ] {
            let layout = apache(&settings(&format!("%a {format} \"%r\" %>s %{{us}}T"), "")).unwrap();
            let line = format!("::1 {time} \"GET / HTTP/1.1\" 200 1000");
            let end_ms = if format.contains("end:") { 250 } else { 251 };
            assert_eq!(
                told(&layout, &line),
                format!("1795415927{end_ms} / Some(200) Some(1000)"),
                "{format}"
            );
        }
    }

    #[test]
    fn formats_that_cannot_be_read_are_refused() {
        for (format, told) in [
            ("", "is empty"),
            ("$request $status", "holds no time"),
            ("$msec$request_time $status", "nothing tells request_time"),
            ("$msec $ $status", "no name"),
            ("${msec $status", "no }"),
            ("log_format main;", "without a format"),
        ] {
            let error = nginx(&settings(format, "")).unwrap_err();
            assert!(error.contains(told), "{format}: {error}");
        }
        assert!(
            nginx(&settings("$msec", "request_time"))
                .unwrap_err()
                .contains("no request_time")
        );
        for format in ["%h %", "%{x", "%t %>", "%t %{^", "%é"] {
            assert!(apache(&settings(format, "")).is_err(), "{format}");
        }
        assert!(nginx(&settings(&"x".repeat(4097), "")).is_err());
    }
}
