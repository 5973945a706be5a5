//! Whatever happens to process and disk, each value counts once.

use std::sync::{Arc, Mutex};

use tillwatch_core::sample::{Kind, Series, Values};
use tillwatch_core::{Limits, RecordKind, Settings};
use tillwatch_feed::codec::decode_body;
use tillwatch_feed::message::Body;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::spool::READ_TRIES_MAX;
use crate::spool::simulated::{Faults, SimulatedDisk};
use crate::uplink::FromUplink;

const START_MS: u64 = 1_790_000_000_000;
const SOURCE: &str = "tills";

fn settings() -> KeeperSettings {
    let core = Settings {
        window_ms: 10_000,
        summary_ms: 60_000,
        time_zone: jiff::tz::TimeZone::UTC,
        calendar: Default::default(),
        agent_version: "test".to_owned(),
        limits: Limits::default(),
    };
    KeeperSettings {
        core,
        spool: SpoolSettings::default(),
        delivery: DeliverySettings::new(Vec::new(), 1),
        uplink: None,
        bytes_per_day: None,
        traffic_file: None,
        detectors_file: None,
        wait_at_records: None,
        wait_at_bytes: None,
    }
}

fn sales() -> Metric {
    Metric {
        name: "sales.transactions".to_owned(),
        unit: "{transaction}".to_owned(),
        kind: Kind::Sum,
        help: "Sales.".to_owned(),
        label_keys: Vec::new(),
        role: "sales.count".to_owned(),
        decimals: 0,
        currency: None,
    }
}

/// A store that sells one thing a second, read from a list that never forgets: progress is how far it was read.
struct Store {
    disk: Arc<SimulatedDisk>,
    /// The sums of all blocks that were kept.
    kept: Arc<Mutex<i64>>,
    running: Option<Running>,
}

struct Running {
    sender: mpsc::Sender<FromSource>,
    task: JoinHandle<Status>,
    source: SourceKey,
    status: watch::Receiver<Status>,
    /// Seconds that were read.
    read: u64,
}

impl Store {
    fn new(seed: u64) -> Self {
        let disk = Arc::new(SimulatedDisk::new(seed, Faults::default()));
        Self {
            disk,
            kept: Arc::default(),
            running: None,
        }
    }

    fn start(&mut self) {
        let clock = Clock::told(START_MS);
        let mut keeper = Keeper::on_disk(settings(), self.disk.clone(), clock).unwrap();
        let read = keeper
            .progress(SOURCE)
            .map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
        let source = keeper.declare(SOURCE, "1", vec![sales()], BTreeMap::new()).unwrap();
        let kept = Arc::clone(&self.kept);
        keeper.observe(Box::new(move |seen| {
            if let Observation::Kept { ids, records } = seen {
                let births = records.iter().filter(|record| record.kind == RecordKind::Birth).count();
                assert!(births <= 1, "{births} births in a frame");
                if ids.first().is_some_and(|id| id.seq == 1) {
                    assert_eq!(records[0].kind, RecordKind::Birth, "the first of a generation");
                }
                *kept.lock().unwrap() += records.iter().map(sum_of).sum::<i64>();
            }
        }));
        let (sender, from_sources) = mpsc::channel(4);
        let status = keeper.status();
        let task = tokio::spawn(keeper.run(from_sources));
        self.running = Some(Running {
            sender,
            task,
            source,
            status,
            read,
        });
    }

    /// Reads the next second's sale.
    async fn sell(&mut self) {
        let Some(running) = &self.running else { return };
        self.sell_at(START_MS + (running.read + 1) * 1000).await;
    }

    async fn sell_at(&mut self, time_ms: u64) {
        let Some(running) = &mut self.running else { return };
        running.read += 1;
        let series = Series {
            metric: 0,
            labels: Vec::new(),
            values: Values::Integers(vec![1]),
            times_ms: vec![time_ms],
        };
        let batch = Batch {
            series: vec![series],
            ..Batch::default()
        };
        let progress = running.read.to_le_bytes().to_vec();
        let source = running.source;
        running.sender.send(FromSource::Tick { now_ms: time_ms }).await.unwrap();
        running
            .sender
            .send(FromSource::Batch {
                source,
                batch,
                progress,
                room: None,
            })
            .await
            .unwrap();
    }

    /// Takes everything that was sent, or not, and ends without a word.
    async fn kill(&mut self) {
        let Running { task, .. } = self.running.take().unwrap();
        task.abort();
        assert!(task.await.is_err());
    }

    async fn stop(&mut self) -> Status {
        let Running { task, sender, .. } = self.running.take().unwrap();
        drop(sender);
        task.await.unwrap()
    }
}

fn sum_of(record: &NewRecord) -> i64 {
    match decode_body(&record.payload).unwrap() {
        Body::Block(block) => {
            assert_eq!(record.kind, RecordKind::Block);
            block
                .intervals
                .iter()
                .flat_map(|interval| &interval.rows)
                .map(|row| row.summary.sum)
                .sum()
        }
        _ => 0,
    }
}

/// Sells until second `end`, then closes the last interval.
async fn sell_until(store: &mut Store, end: u64) {
    while store.running.as_ref().unwrap().read < end {
        store.sell().await;
    }
    let sender = store.running.as_ref().unwrap().sender.clone();
    sender
        .send(FromSource::Tick {
            now_ms: START_MS + (end + 600) * 1000,
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_keeper_that_is_killed_again_and_again_counts_each_value_once() {
    for seed in 0..20 {
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut store = Store::new(seed);
        for _ in 0..10 {
            store.start();
            for _ in 0..random.u32(0..200) {
                store.sell().await;
            }
            if random.bool() {
                store.kill().await
            } else {
                drop(store.stop().await)
            }
        }
        store.start();
        sell_until(&mut store, 1500).await;
        store.stop().await;
        assert_eq!(*store.kept.lock().unwrap(), 1500);
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_makes_the_sources_wait_and_loses_nothing() {
    let mut reopened = 0;
    for seed in 0..20 {
        println!("seed {seed}");
        let mut store = Store::new(seed);
        store.start();
        store.disk.set_faults(Faults {
            full: 100,
            sync_fails: 100,
            ..Faults::default()
        });
        sell_until(&mut store, 1500).await;
        // The paused time goes on by itself to the next attempt to write.
        let mut status = store.running.as_ref().unwrap().status.clone();
        let all_kept = status
            .wait_for(|status| status.kept_ms >= START_MS + 2_100_000)
            .await
            .unwrap()
            .clone();
        store.disk.set_faults(Faults::default());
        reopened += all_kept.counters.spool_reopened;
        store.stop().await;
        assert_eq!(*store.kept.lock().unwrap(), 1500);
    }
    assert!(reopened > 20, "the disk failed only {reopened} times");
}

/// What the disk did not sync, and did not take back either, was found at the reopening and written a second time.
#[tokio::test(start_paused = true)]
async fn a_write_that_failed_and_is_there_all_the_same_counts_once() {
    let mut reopened = 0;
    for seed in 0..20 {
        println!("seed {seed}");
        let mut store = Store::new(seed);
        store.start();
        store.disk.set_faults(Faults {
            sync_fails: 150,
            change_fails: 500,
            ..Faults::default()
        });
        sell_until(&mut store, 1500).await;
        let mut status = store.running.as_ref().unwrap().status.clone();
        let is_kept = |status: &Status| status.kept_ms >= START_MS + 2_100_000;
        reopened += status.wait_for(is_kept).await.unwrap().counters.spool_reopened;
        store.disk.set_faults(Faults::default());
        store.stop().await;
        let opened = open_spool(store.disk.clone(), &SpoolSettings::default()).unwrap();
        let (mut spool, runs) = (opened.spool, opened.recovery.runs);
        let ids = runs.iter().flat_map(|run| {
            (run.seq_first..=run.seq_last).map(|seq| RecordId {
                seq,
                generation: run.generation,
            })
        });
        let held: i64 = ids
            .map(|id| {
                let record = spool.read(id, 1).unwrap().remove(0);
                let (kind, schema, payload) = (record.kind, record.schema, record.payload);
                sum_of(&NewRecord { kind, schema, payload })
            })
            .sum();
        assert_eq!((held, *store.kept.lock().unwrap()), (1500, 1500));
    }
    assert!(reopened > 20, "the disk failed only {reopened} times");
}

#[tokio::test]
async fn weeks_of_history_that_wait_for_the_center_do_not_age_while_they_are_read() {
    // Backfill tells the time of the events, weeks ago; the spool's age is that of the writing.
    let mut store = Store::new(1);
    store.start();
    let sender = store.running.as_ref().unwrap().sender.clone();
    for half_hour in 1..=35 * 48 {
        let now_ms = START_MS + half_hour * 1_800_000;
        sender.send(FromSource::Tick { now_ms }).await.unwrap();
        store.sell_at(now_ms).await;
    }
    drop(sender);
    let status = store.stop().await;
    assert!(status.records_held > 1_000, "{status:?}");
    let now_ms = Clock::wall().now_ms();
    let (spool, _) = Spool::open_on(store.disk.clone(), &settings().spool, 9, now_ms).unwrap();
    assert_eq!(
        (spool.records(), status.spool.records_dropped_age),
        (status.records_held, 0)
    );
}

#[test]
fn half_an_agent_never_starts() {
    // With a spool in memory each restart would read the sources from their start, and everything would count twice.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("not a folder");
    std::fs::write(&file, b"").unwrap();
    let error = Keeper::open(settings(), &file, Clock::told(START_MS)).err().unwrap();
    assert!(error.to_string().contains("not a folder"), "{error}");
}

#[test]
fn a_checkpoint_of_another_version_is_no_reason_to_count_twice() {
    let disk = Arc::new(SimulatedDisk::new(1, Faults::default()));
    let (mut spool, _) = Spool::open_on(disk.clone(), &SpoolSettings::default(), 1, 0).unwrap();
    spool.append(&[], b"of a version to come", 0).unwrap();
    drop(spool);
    assert!(Keeper::on_disk(settings(), disk, Clock::told(START_MS)).is_err());
}

/// Archives of other chains acknowledged to a store's topic, and filled its log.
#[tokio::test]
async fn problems_of_acknowledgements_are_all_counted_and_said_once_a_minute() {
    let mut keeper = Keeper::in_memory(settings(), Clock::told(START_MS));
    for number in 0..5 {
        keeper.on_report(FromUplink::Acked(Ack {
            archive: format!("foreign-{number}").parse().unwrap(),
            start: 1,
            generations: Vec::new(),
            births_wanted: Vec::new(),
        }));
    }
    keeper.on_report(FromUplink::Ignored { messages: 2 });
    let counters = keeper.status().borrow().counters;
    assert_eq!((counters.acks_unknown, counters.ignored), (5, 2));
    let minute = keeper.real_now_ms() + 60_000;
    assert_eq!(keeper.said.count("unknown archive", minute), Some(5));
}

/// One bad sector kept all that was newer waiting until it was two weeks old.
#[tokio::test(start_paused = true)]
async fn what_is_behind_a_bad_sector_waits_for_a_few_tries_alone() {
    let disk = Arc::new(SimulatedDisk::new(1, Faults::default()));
    let settings = KeeperSettings {
        delivery: DeliverySettings::new(vec!["main".parse().unwrap()], 1),
        ..settings()
    };
    let (mut spool, _) = Spool::open_on(disk.clone(), &settings.spool, 1, 0).unwrap();
    let checkpoint = Core::new(settings.core.clone()).checkpoint();
    let record = NewRecord {
        kind: RecordKind::Finding,
        schema: 0,
        payload: vec![0; 600],
    };
    for _ in 0..2 {
        spool
            .append(std::slice::from_ref(&record), &checkpoint, written_ms())
            .unwrap();
    }
    drop(spool);
    let mut keeper = Keeper::on_disk(settings, disk.clone(), Clock::told(START_MS)).unwrap();
    disk.break_sector("00000000000000000001.seg", 200);
    keeper.on_report(FromUplink::Connected);
    keeper.on_report(FromUplink::Acked(Ack {
        archive: "main".parse().unwrap(),
        start: 1,
        generations: Vec::new(),
        births_wanted: Vec::new(),
    }));
    for _ in 0..2 * READ_TRIES_MAX {
        tokio::time::advance(std::time::Duration::from_secs(61)).await;
        keeper.next_to_send();
    }
    let spool = keeper.spool.counters();
    assert_eq!((spool.not_read, spool.records_corrupt), (u64::from(READ_TRIES_MAX), 1));
    // The gap went out, and the second record was looked at, too; what it says is not understood.
    let counters = keeper.status().borrow().counters;
    assert!(
        counters.published > 0 && counters.records_unreadable > 1,
        "{counters:?}"
    );
}

/// The center acknowledged what it could not read, and the answer to its question was deleted first.
#[tokio::test]
async fn a_birth_that_an_acknowledgement_asks_for_stays_until_none_asks_for_it() {
    let disk = Arc::new(SimulatedDisk::new(1, Faults::default()));
    let spool_settings = SpoolSettings {
        segment_bytes: 100,
        ..SpoolSettings::default()
    };
    let (mut spool, _) = Spool::open_on(disk.clone(), &spool_settings, 7, 0).unwrap();
    let (schema, old) = (5, RecordKind::Block);
    for schema in [schema, 6] {
        spool.put_birth(schema, spool.next_id(), b"birth").unwrap();
    }
    for schema in [schema, 6, 6] {
        let payload = vec![0; 200];
        spool
            .append(
                &[NewRecord {
                    kind: old,
                    schema,
                    payload,
                }],
                b"",
                0,
            )
            .unwrap();
    }
    let mut keeper = Keeper::in_memory(settings(), Clock::told(START_MS));
    keeper.spool = spool;
    let main: tillwatch_feed::topic::ArchiveId = "main".parse().unwrap();
    keeper.delivery = Delivery::new(DeliverySettings::new(vec![main.clone()], 1));
    for (seq, schema) in (1..).zip([schema, 6, 6]) {
        keeper.delivery.on_held(tillwatch_core::Run {
            generation: 7,
            seq_first: seq,
            seq_last: seq,
            kind: old,
            schema,
        });
    }
    keeper.on_report(FromUplink::Connected);
    let ack = |births_wanted: Vec<u64>| Ack {
        archive: main.clone(),
        start: 1,
        generations: vec![tillwatch_feed::message::GenerationAck {
            generation: 7,
            through_seq: 2,
            ranges: Vec::new(),
        }],
        births_wanted,
    };
    keeper.on_report(FromUplink::Acked(ack(vec![schema])));
    assert!(keeper.spool.birth(schema).unwrap().is_some());
    keeper.on_report(FromUplink::Acked(ack(Vec::new())));
    assert_eq!(keeper.spool.birth(schema).unwrap(), None);
}

#[test]
fn what_the_store_is_told_is_written_read_again_and_a_damaged_file_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(LOCAL_FILE);
    assert_eq!(read_local(&file), None);
    let told = KeeperSettings {
        detectors_file: Some(dir.path().join("detectors")),
        ..settings()
    };
    let mut keeper = Keeper::in_memory(told.clone(), Clock::told(START_MS));
    keeper.write_local();
    assert_eq!(read_local(&file), None, "nothing was found");
    let mut episodes = serde_json::to_value(keeper.core.local()).unwrap();
    episodes["episodes"] = serde_json::json!([{
        "start_ms": START_MS - 60_000, "end_ms": null, "left_out": 0, "sold": {},
        "told": [{"metric": "m", "unit": "s", "labels": [], "start_ms": START_MS - 60_000, "peak_ms": START_MS,
                  "end_ms": null, "expected": 1.0, "actual": 2.0, "lower": 0.5, "upper": 1.5, "effect": 4.0,
                  "severity": 2.0, "also": 0, "series": 1, "revision": 1}],
    }]);
    snapshot::write(&file, &serde_json::to_vec(&episodes).unwrap()).unwrap();
    let mut keeper = Keeper::in_memory(told, Clock::told(START_MS));
    keeper.report_status();
    let episode = read_local(&file).unwrap().episodes().next().cloned().unwrap();
    assert_eq!(episode.end_ms, Some(START_MS), "this core knows of no open finding");
    std::fs::write(&file, b"damaged").unwrap();
    assert_eq!(read_local(&file), None);
}
