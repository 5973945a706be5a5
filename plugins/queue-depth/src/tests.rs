//! Golden cases, and the door for lines held against broken input.

use tillwatch_sdk::testing::{FileHost, golden, mutated, shown_settings};

use super::*;

#[test]
fn the_settings_shown_are_the_settings_taken() {
    let default = Settings::default();
    assert_eq!(shown_settings::<Settings>("."), [default.clone(), default]);
}

#[test]
fn golden_cases_come_out_as_written() {
    golden::<QueueDepth>(&descriptor(), "testcases");
}

#[test]
fn a_file_from_the_future_has_no_age() {
    let mut host = FileHost::new(1_795_415_927_000);
    host.add_file(FOLDER, "a.xml", 1_795_415_999_000, b"12345");
    let mut collector = QueueDepth::new(Settings::default(), &mut host).unwrap();
    let batch = collector.collect(&mut host).unwrap();
    let ages = batch
        .series()
        .iter()
        .find(|series| series.metric == metric::QUEUE_OLDEST_AGE)
        .unwrap();
    assert_eq!(ages.values, tillwatch_sdk::Values::Integers(vec![0]));
}

#[test]
fn mutated_lines_never_panic() {
    let log = include_bytes!("../testcases/event_lines/events.jsonl");
    let corpus: Vec<&[u8]> = log
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .collect();
    let settings = Settings {
        field_oldest_age: "oldest_age".to_owned(),
        ..Settings::default()
    };
    let (events, queues) = (
        Events::new(&settings),
        Queues::new("a".to_owned(), vec!["b".to_owned()]).unwrap(),
    );
    let mut read_well = 0;
    for line in mutated(&corpus, 0x90e0e, 20_000) {
        let Ok(reading) = events.read(&line) else { continue };
        read_well += 1;
        assert!(["a", "b", queues::OTHER].contains(&queues.name_of(reading.queue.as_deref())));
    }
    assert!(read_well > 500, "only {read_well} mutated lines could still be read");
}
