//! Golden cases, and the door for lines held against broken input.

use std::hint::black_box;

use tillwatch_sdk::testing::{golden, mutated, shown_settings};

use super::*;

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
    let corpus: Vec<&[u8]> = [
        &include_bytes!("../testcases/nginx_timed/access_log.log")[..],
        &include_bytes!("../testcases/nginx_combined/access_log.log")[..],
        &include_bytes!("../testcases/json_lines/access_log.jsonl")[..],
    ]
    .into_iter()
    .flat_map(|log| log.split(|byte| *byte == b'\n').take(10))
    .collect();
    for format in [Format::Combined, Format::Timed, Format::Json] {
        let settings = Settings {
            format,
            field_time: "ts".to_owned(),
            field_route: "uri".to_owned(),
            field_status: "status".to_owned(),
            ..Settings::default()
        };
        let (reader, routes) = (
            Reader::new(&settings),
            Routes::new(Vec::new(), "_other".to_owned()).unwrap(),
        );
        let mut read_well = 0;
        for line in mutated(&corpus, 0x0bad_1065, 20_000) {
            let Ok(request) = reader.read(&line) else { continue };
            read_well += 1;
            black_box(routes.of(&request.target));
        }
        assert!(
            read_well > 100,
            "{format:?}: only {read_well} mutated lines could still be read"
        );
    }
}

#[test]
fn a_long_line_of_brackets_takes_no_quadratic_time() {
    let line = "[".repeat(1_000_000);
    assert_eq!(
        Reader::new(&Settings::default()).read(line.as_bytes()),
        Err(Wrong::Time)
    );
    let quotes = format!(
        "[23/Nov/2026:06:38:47 +0000] \"GET / HTTP/1.1\" 200 1 {}",
        "\"\" ".repeat(300_000)
    );
    assert_eq!(
        Reader::new(&Settings::default()).read(quotes.as_bytes()),
        Err(Wrong::Missing)
    );
}
