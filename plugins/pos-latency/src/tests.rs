//! Golden cases, and the doors for lines and documents held against broken and torn input.

use std::collections::BTreeMap;
use std::hint::black_box;

use tillwatch_sdk::Values;
use tillwatch_sdk::testing::{FileHost, golden, mutated, shown_settings};

use super::*;

const NOW_MS: u64 = 1_795_500_000_000;
const NGINX: &str = include_str!("../testcases/nginx_log_format/settings.toml");
const APACHE: &str = include_str!("../testcases/apache_log_format/settings.toml");
const LOGS: [(&str, &[u8]); 6] = [
    (
        "format = \"combined\"",
        include_bytes!("../testcases/nginx_combined/access_log.log"),
    ),
    (
        "format = \"timed\"",
        include_bytes!("../testcases/nginx_timed/access_log.log"),
    ),
    (NGINX, include_bytes!("../testcases/nginx_log_format/access_log.log")),
    (APACHE, include_bytes!("../testcases/apache_log_format/access_log.log")),
    (
        "format = \"iis\"",
        include_bytes!("../testcases/iis_fields_change/access_log.log"),
    ),
    (
        "format = \"json\"\nfield_time = \"ts\"\nfield_route = \"uri\"\nfield_status = \"status\"",
        include_bytes!("../testcases/json_lines/access_log.jsonl"),
    ),
];

fn settings(text: &str) -> Settings {
    toml::from_str(text).unwrap()
}

#[test]
fn the_settings_shown_are_the_settings_taken() {
    let default = Settings::default();
    assert_eq!(shown_settings::<Settings>("."), [default.clone(), default]);
}

#[test]
fn golden_cases_come_out_as_written() {
    golden::<PosLatency>(&descriptor(), "testcases");
}

#[test]
fn mutated_lines_never_panic() {
    let corpus: Vec<&[u8]> = LOGS
        .iter()
        .flat_map(|(_, log)| log.split(|byte| *byte == b'\n').take(10))
        .collect();
    for (text, _) in LOGS {
        let settings = settings(text);
        let mut reader = Reader::new(&settings).unwrap();
        let routes = Routes::new(Vec::new(), "_other".to_owned()).unwrap();
        let mut read_well = 0;
        for line in mutated(&corpus, 0x0bad_1065, 20_000) {
            let Ok(request) = reader.read(&line) else { continue };
            read_well += 1;
            black_box(routes.of(&request.unwrap_or_default().target));
        }
        assert!(
            read_well > 100,
            "{text}: only {read_well} mutated lines could still be read"
        );
    }
}

#[test]
fn mutated_formats_and_documents_never_panic() {
    let corpus = [
        NGINX.as_bytes(),
        APACHE.as_bytes(),
        b"%{%d/%b/%Y %T}t.%{msec_frac}t %>s %D",
        b"${msec}$status",
    ];
    let mut taken = 0;
    for format in mutated(&corpus, 0x00f0_7a75, 20_000) {
        let log_format = String::from_utf8_lossy(&format).into_owned();
        for format in [Format::Nginx, Format::Apache, Format::Iis] {
            let settings = Settings {
                format,
                log_format: log_format.clone(),
                ..Settings::default()
            };
            taken += usize::from(black_box(Reader::new(&settings)).is_ok());
        }
    }
    assert!(taken > 100, "{taken}");
    let document = include_bytes!("../testcases/poslog_phases/transactions/1.xml");
    for document in mutated(&[document], 0x0b05_1095, 5_000) {
        black_box(Poslog::new(&String::from_utf8_lossy(&document), Offset::default()).count());
    }
}

/// All but the age, which is a reading of the moment: metric, labels, values and times.
type Seen = BTreeMap<(u16, Vec<String>), Vec<(i64, u64)>>;

fn collect_into(seen: &mut Seen, collector: &mut PosLatency, host: &mut FileHost) {
    loop {
        let batch = collector.collect(host).unwrap();
        host.commit();
        for series in batch
            .series()
            .iter()
            .filter(|series| series.metric != metric::HTTP_SERVER_LAST_REQUEST_AGE)
        {
            let Values::Integers(values) = &series.values else {
                panic!("all are integers")
            };
            let samples = values.iter().copied().zip(series.times_ms.iter().copied());
            seen.entry((series.metric.index(), series.labels.clone()))
                .or_default()
                .extend(samples);
        }
        if !batch.more {
            return;
        }
    }
}

/// What comes out when the log is written in these parts, with a restart after each.
fn seen(settings: &Settings, parts: &[&[u8]]) -> Seen {
    let (mut host, mut seen) = (FileHost::new(NOW_MS), Seen::new());
    for part in parts {
        host.append_lines(ACCESS_LOG, part);
        let mut collector = PosLatency::new(settings.clone(), &mut host).unwrap();
        collect_into(&mut seen, &mut collector, &mut host);
    }
    merge_errors(&mut seen);
    seen
}

/// A kind of error is counted once a call.
fn merge_errors(seen: &mut Seen) {
    let errors = seen
        .iter_mut()
        .filter(|((index, _), _)| *index == metric::SOURCE_PARSE_ERRORS.index());
    for (_, samples) in errors {
        *samples = vec![(samples.iter().map(|(value, _)| value).sum(), 0)];
    }
}

#[test]
fn a_log_cut_anywhere_with_a_restart_there_comes_out_the_same() {
    for (text, log) in LOGS {
        let settings = settings(text);
        // A case's log may be long; its first kilobytes hold all that there is to tell.
        let (log, _) = log.split_at(log.len().min(3_000));
        let (log, _) = log.split_at(log.iter().rposition(|byte| *byte == b'\n').unwrap() + 1);
        let whole = seen(&settings, &[log]);
        assert!(!whole.is_empty(), "{text}");
        for cut in 0..log.len() {
            let (head, tail) = log.split_at(cut);
            assert_eq!(seen(&settings, &[head, tail]), whole, "{text} cut at {cut}");
        }
    }
}

#[test]
fn state_that_nobody_can_read_is_as_none() {
    for state in [
        &b"\xff\xff"[..],
        b"pos-latency 1\nlast x y\nfields \nday 1 x\nlast 99 nowhere\n",
        b"{\"a\":1}",
        b"",
    ] {
        let mut host = FileHost::new(NOW_MS);
        host.set_state(state).unwrap();
        host.append_lines(ACCESS_LOG, LOGS[4].1);
        let mut collector = PosLatency::new(settings(LOGS[4].0), &mut host).unwrap();
        let mut found = Seen::new();
        collect_into(&mut found, &mut collector, &mut host);
        merge_errors(&mut found);
        assert_eq!(found, seen(&settings(LOGS[4].0), &[LOGS[4].1]));
    }
}

#[test]
fn the_age_of_the_last_request_goes_on_after_a_restart() {
    let mut host = FileHost::new(NOW_MS);
    host.append_lines(ACCESS_LOG, LOGS[1].1);
    let mut collector = PosLatency::new(settings(LOGS[1].0), &mut host).unwrap();
    collect_into(&mut Seen::new(), &mut collector, &mut host);
    host.set_now(NOW_MS + 60_000);
    let mut collector = PosLatency::new(settings(LOGS[1].0), &mut host).unwrap();
    let batch = collector.collect(&mut host).unwrap();
    let [age] = batch.series() else { panic!("{batch:?}") };
    let last_ms = 1_795_416_007_000;
    let expected_ms = i64::try_from(NOW_MS + 60_000 - last_ms).unwrap();
    assert_eq!(
        (age.metric, &age.values),
        (
            metric::HTTP_SERVER_LAST_REQUEST_AGE,
            &Values::Integers(vec![expected_ms])
        )
    );
}

#[test]
fn a_long_line_takes_no_quadratic_time() {
    let mut reader = Reader::new(&Settings::default()).unwrap();
    let line = "[".repeat(1_000_000);
    assert_eq!(reader.read(line.as_bytes()), Err(Wrong::Syntax));
    let head = "[23/Nov/2026:06:38:47 +0000] \"GET / HTTP/1.1\" 200 1 ";
    let quotes = format!("{head}{}", "\"\" ".repeat(300_000));
    assert_eq!(reader.read(quotes.as_bytes()), Err(Wrong::Missing));
    let escapes = format!("[23/Nov/2026:06:38:47 +0000] \"{}", "\\\" ".repeat(300_000));
    assert_eq!(reader.read(escapes.as_bytes()), Err(Wrong::Syntax));
    let backslashes = format!("[23/Nov/2026:06:38:47 +0000] \"{}", "\\".repeat(1_000_000));
    assert_eq!(reader.read(backslashes.as_bytes()), Err(Wrong::Syntax));
}
