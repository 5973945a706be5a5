//! Golden cases, and the door for lines held against broken input.

use tillwatch_sdk::testing::{FileHost, golden, mutated, shown_settings};
use tillwatch_sdk::{HttpResponse, MetricId, TcpResponse, Values};

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
        Queues::new("a".to_owned(), &["b".to_owned()]).unwrap(),
    );
    let mut read_well = 0;
    for line in mutated(&corpus, 0x90e0e, 20_000) {
        let Ok(reading) = events.read(&line) else { continue };
        read_well += 1;
        assert!(["a", "b", queues::OTHER].contains(&&*queues.name_of(reading.queue.as_deref())));
    }
    assert!(read_well > 500, "only {read_well} mutated lines could still be read");
}

const NOW_MS: u64 = 1_795_415_927_000;

fn settings(json: &str) -> Settings {
    serde_json::from_str(json).unwrap()
}

fn good(body: &str) -> HttpResponse {
    HttpResponse {
        status: 200,
        headers: Vec::new(),
        body: body.as_bytes().to_vec(),
        elapsed_us: 900,
    }
}

/// One call of an instance that was just made, as after a restart.
fn collect(settings: &Settings, host: &mut FileHost) -> Batch {
    let batch = QueueDepth::new(settings.clone(), host).unwrap().collect(host).unwrap();
    host.commit();
    batch
}

fn values(batch: &Batch, metric: MetricId) -> Vec<(String, i64)> {
    let series = batch.series().iter().filter(|series| series.metric == metric);
    let values = series.map(|series| match &series.values {
        Values::Integers(values) => (series.labels.last().cloned().unwrap_or_default(), values[0]),
        Values::Reals(_) => unreachable!("no metric is real"),
    });
    values.collect()
}

#[test]
fn what_moved_is_counted_across_restarts_of_the_plugin_and_of_the_broker() {
    let settings = settings(r#"{"system":"rabbitmq","queues":["a","b"]}"#);
    let mut host = FileHost::new(NOW_MS);
    let mut seen = Vec::new();
    for stats in [
        r#""message_stats":{"publish":100,"ack":90}"#,
        r#""message_stats":{"publish":103,"ack":95,"deliver_no_ack":1}"#,
        r#""messages_ready":1"#,
        r#""message_stats":{"publish":2}"#,
    ] {
        let body = format!(r#"[{{"name":"a","vhost":"/","messages":1,{stats}}},{{"name":"b","vhost":"/"}}]"#);
        host.answer_http("broker", Ok(good(&body)));
        let batch = collect(&settings, &mut host);
        seen.push((values(&batch, metric::QUEUE_IN), values(&batch, metric::QUEUE_OUT)));
        assert_eq!(values(&batch, metric::SOURCE_UP), [("rabbitmq".to_owned(), 1)]);
    }
    let a = |value: i64| vec![("a".to_owned(), value)];
    assert_eq!(seen, [(vec![], vec![]), (a(3), a(6)), (vec![], vec![]), (a(2), vec![])]);
}

#[test]
fn a_reading_that_fails_leaves_what_is_kept_alone() {
    let settings = settings(r#"{"system":"activemq","queues":["a"]}"#);
    let mut host = FileHost::new(NOW_MS);
    let answer = |came: i64| {
        let queue = format!(r#"{{"Name":"a","QueueSize":1,"EnqueueCount":{came}}}"#);
        good(&format!(r#"[{{"status":200,"value":{{"x":{queue}}}}}]"#))
    };
    host.answer_http("broker", Ok(answer(10)));
    collect(&settings, &mut host);
    host.answer_http("broker", Ok(good("[{\"status\":403}]")));
    let batch = collect(&settings, &mut host);
    assert_eq!(values(&batch, metric::SOURCE_UP), [("activemq".to_owned(), 0)]);
    assert!(values(&batch, metric::QUEUE_DEPTH).is_empty());
    host.answer_http("broker", Ok(answer(14)));
    let batch = collect(&settings, &mut host);
    assert_eq!(values(&batch, metric::QUEUE_IN), [("a".to_owned(), 4)]);
}

#[test]
fn rabbitmq_is_asked_page_by_page_or_for_totals() {
    let page = |page: i64| good(&format!(r#"{{"items":[{{"name":"a"}}],"page":{page},"page_count":2}}"#));
    let asked = |json: &str| {
        let mut host = FileHost::new(NOW_MS);
        host.answer_http("broker", Ok(page(1)));
        host.answer_http("broker", Ok(page(2)));
        collect(&settings(json), &mut host);
        let asked = host.take_http_requests().into_iter();
        asked.map(|(_peer, request)| request.path).collect::<Vec<_>>()
    };
    let pages = asked(r#"{"system":"rabbitmq"}"#);
    assert!(pages[0].starts_with("/api/queues?page=1&page_size=500&columns=name,vhost,messages,"));
    assert!(pages.len() == 2 && pages[1].contains("?page=2&"), "{pages:?}");
    let totals = asked(r#"{"system":"rabbitmq","totals_only":true}"#);
    let expected = "/api/queues?page=1&page_size=500&disable_stats=true&enable_queue_totals=true";
    assert_eq!(totals[0], expected);
    let own_page = asked(r#"{"system":"rabbitmq","path":""}"#);
    assert_eq!(own_page, [""], "the same page came again and again");
}

#[test]
fn a_redis_that_cannot_answer_is_down() {
    let settings = settings(r#"{"system":"redis","queues":["tlog"]}"#);
    for error in [
        "LOADING Redis is loading",
        "MOVED 3999 10.0.0.2:6379",
        "MASTERDOWN Link",
    ] {
        let mut host = FileHost::new(NOW_MS);
        let bytes = format!("-{error}\r\n").repeat(4) + "+OK\r\n";
        let answer = TcpResponse {
            bytes: bytes.into_bytes(),
            connect_us: 1,
            elapsed_us: 1,
        };
        host.answer_tcp("redis", Ok(answer));
        let batch = collect(&settings, &mut host);
        assert_eq!(values(&batch, metric::SOURCE_UP), [("redis".to_owned(), 0)], "{error}");
    }
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    for (json, expected) in [
        (r#"{"system":"json","field_depth":"/a~b"}"#, "is no JSON pointer"),
        (r#"{"system":"prometheus","match":["site"]}"#, "match: a condition is"),
        (r#"{"system":"redis","queues":["tlog*"]}"#, "each without *"),
        (r#"{"system":"redis"}"#, "name the keys of Redis"),
    ] {
        let error = QueueDepth::new(settings(json), &mut FileHost::new(NOW_MS))
            .err()
            .unwrap();
        assert!(error.message.contains(expected), "{json}: {}", error.message);
    }
    let mut host = FileHost::new(NOW_MS);
    let mut collector = QueueDepth::new(settings(r#"{"system":"sql"}"#), &mut host).unwrap();
    let error = collector.collect(&mut host).unwrap_err();
    assert_eq!(error.message, "the source outbox is not granted");
}

#[test]
fn the_same_trouble_is_told_once_a_minute() {
    let settings = settings(r#"{"system":"nats"}"#);
    let mut host = FileHost::new(NOW_MS);
    let mut collector = QueueDepth::new(settings, &mut host).unwrap();
    let mut told = Vec::new();
    for (after_s, status) in [(0, 500), (30, 500), (40, 404), (110, 404)] {
        host.set_now(NOW_MS + after_s * 1_000);
        host.answer_http("broker", Ok(HttpResponse { status, ..good("") }));
        collector.collect(&mut host).unwrap();
        told.extend(host.take_logs().into_iter().map(|(_level, text)| text));
    }
    let refused = |status: u16| format!("no depth of nats: it refuses with status {status}");
    assert_eq!(told, [refused(500), refused(404), refused(404)]);
}

/// Answers of all cases, broken: no panic, a bounded batch, and labels that the agent takes.
#[test]
fn broken_answers_of_all_systems_never_panic() {
    const SYSTEMS: [&str; 8] = [
        "rabbitmq",
        "activemq",
        "ibmmq",
        "ibmmq-v1",
        "nats",
        "prometheus",
        "json",
        "redis",
    ];
    let cases = std::fs::read_dir("testcases").unwrap();
    let corpus: Vec<Vec<u8>> = cases.flat_map(|case| answers(&case.unwrap().path())).collect();
    let corpus: Vec<&[u8]> = corpus.iter().map(Vec::as_slice).collect();
    let mut samples = 0;
    for (place, bytes) in mutated(&corpus, 0x6_1137, 4_000).enumerate() {
        let system = SYSTEMS[place % SYSTEMS.len()];
        let settings = settings(&format!(
            r#"{{"system":"{system}","queues":[{}],"field_depth":"/queue/size","field_in":"pos_spool_total"}}"#,
            if system == "redis" { "\"tlog\"" } else { "\"*\"" }
        ));
        let mut host = FileHost::new(NOW_MS);
        let mut answer = good("");
        answer.body.clone_from(&bytes);
        host.answer_http("broker", Ok(answer));
        let (connect_us, elapsed_us) = (1, 2);
        host.answer_tcp(
            "redis",
            Ok(TcpResponse {
                bytes,
                connect_us,
                elapsed_us,
            }),
        );
        let Ok(batch) = QueueDepth::new(settings, &mut host).unwrap().collect(&mut host) else {
            continue;
        };
        samples += batch.samples();
        assert!(batch.series().len() <= 7 * (queues::QUEUES_MAX + 2));
        let labels = batch.series().iter().flat_map(|series| &series.labels);
        assert!(labels.into_iter().all(|label| label.len() <= 64 && label.is_ascii()));
    }
    assert!(samples > 4_000, "only {samples} samples of mutated answers");
}

/// The bodies of a case.
fn answers(case: &std::path::Path) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(case.join("peers.toml")).unwrap_or_default();
    let bodies = text
        .split("body = '''\n")
        .skip(1)
        .filter_map(|rest| rest.split("'''").next());
    let replies = text
        .split("bytes = \"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    let replies = replies.map(|reply| reply.replace("\\r\\n", "\r\n"));
    bodies
        .map(str::to_owned)
        .chain(replies)
        .map(String::into_bytes)
        .collect()
}
