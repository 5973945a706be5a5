//! What becomes of the other plugins when the process of all ends, and who is blamed for it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use tillwatch_border::{Bound, CallError, Limits, Plugin};

use crate::behavior::PATIENT;
use crate::build::{Caller, copy_stub, sandbox, settings, start_hostile, stub};
use crate::host::TestHost;

const QUICK: Limits = Limits {
    call_ms_max: 200,
    ..PATIENT
};

fn kill(process: u32) {
    let process = rustix::process::Pid::from_raw(process.cast_signed()).expect("the tests' own");
    rustix::process::kill_process(process, rustix::process::Signal::KILL).expect("the tests' own");
}

/// And waits until it is dead.
fn kill_wholly(process: u32) {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    kill(process);
    let process = rustix::process::Pid::from_raw(process.cast_signed()).expect("the tests' own");
    waitid(WaitId::Pid(process), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).expect("the tests' own");
}

fn reporter(plugin: Plugin) -> Caller {
    let mut caller = Caller::new(plugin, &settings("report"), TestHost::with_input(b"line\n"));
    caller.configure().expect("the tests' own");
    caller
}

/// Native code in the plugins' place: what it does, then how its neighbor fares.
fn native(behaviors: [&str; 2], limits: Limits) -> [Caller; 2] {
    let mut behaviors = behaviors.iter();
    start_hostile(stub(), [limits, PATIENT]).map(|plugin| {
        let mut caller = Caller::new(
            plugin,
            behaviors.next().expect("the tests' own"),
            TestHost::with_input(b"line\n"),
        );
        caller.configure().expect("the tests' own");
        caller
    })
}

#[test]
fn a_process_that_is_killed_between_calls_is_back_with_the_next() {
    let [mut first, mut second] = start_hostile(sandbox(), [PATIENT; 2]).map(reporter);
    kill(first.plugin.process_id().unwrap());
    let begun = Instant::now();
    first.collect_anew().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(second.collect(), Err(CallError::Gone), "its instance died, too");
    second.collect_anew().unwrap();
    assert_eq!(second.plugin.restarts(), 1);
}

#[test]
fn a_process_that_is_killed_in_the_middle_of_calls_costs_none_of_them() {
    const KILLS: u64 = 10;
    let mut plugins: Vec<Plugin> = start_hostile(sandbox(), [PATIENT; 4]).into();
    let watch = plugins.pop().unwrap();
    let calls = [const { AtomicUsize::new(0) }; 3];
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let call = |(plugin, calls): (Plugin, _)| {
            let (calls, done): (&AtomicUsize, _) = (calls, &done);
            scope.spawn(move || {
                let mut caller = Caller::new(plugin, &settings("report"), TestHost::with_input(b"line\n"));
                while !done.load(Ordering::Relaxed) {
                    caller.collect_anew().unwrap();
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let threads: Vec<_> = plugins.into_iter().zip(&calls).map(call).collect();
        // A second kill in the same call is what a plugin that crashes looks like.
        let go_on = || {
            let before = calls.each_ref().map(|calls| calls.load(Ordering::Relaxed));
            let is_behind = |(calls, before): (&AtomicUsize, &usize)| calls.load(Ordering::Relaxed) < before + 2;
            while calls.iter().zip(&before).any(is_behind) && !threads.iter().any(|thread| thread.is_finished()) {
                std::thread::yield_now();
            }
        };
        for _kill in 0..KILLS {
            go_on();
            watch.process_id().into_iter().for_each(kill);
        }
        go_on();
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(watch.restarts(), KILLS);
}

#[test]
fn a_plugin_beyond_its_deadline_is_stopped_though_it_runs_native_code() {
    let [mut silent, mut neighbor] = native(["silent", "report"], QUICK);
    let begun = Instant::now();
    assert_eq!(silent.collect(), Err(CallError::Deadline { call_ms_max: 200 }));
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_millis(200) && took < Duration::from_secs(10),
        "{took:?}"
    );
    assert_eq!(neighbor.collect_anew().unwrap().series[0].labels, ["fine"]);
}

#[test]
fn a_plugin_that_ends_the_process_is_convicted_and_its_neighbor_is_not() {
    let [mut guilty, mut neighbor] = native(["abort", "report"], PATIENT);
    std::thread::scope(|scope| {
        let convicted = scope.spawn(|| {
            for _ in 0..5 {
                assert_eq!(guilty.collect_anew(), Err(CallError::Crash));
            }
        });
        while !convicted.is_finished() {
            neighbor.collect_anew().unwrap();
        }
    });
    neighbor.collect_anew().unwrap();
    // The first time it could have been the neighbor, and from then on it is called alone.
    assert_eq!((guilty.repeated, guilty.plugin.restarts()), (1, 6));
}

#[test]
fn what_makes_no_sense_ends_the_process_and_is_blamed_on_who_said_it() {
    for behavior in ["garbage", "huge", "many-series"] {
        let [mut guilty, mut neighbor] = native([behavior, "report"], PATIENT);
        assert_eq!(guilty.collect_anew(), Err(CallError::Crash), "{behavior}");
        neighbor.collect_anew().unwrap();
    }
}

#[test]
fn the_agent_holds_answers_against_their_bounds_itself() {
    let [mut caller, _neighbor] = native(["long-label", "report"], PATIENT);
    let expected = CallError::Oversized {
        bound: Bound::LabelBytes,
        found: 10_000,
        limit: 256,
    };
    assert_eq!(caller.collect(), Err(expected));
    let [mut caller, _neighbor] = native(["flood", "report"], QUICK);
    assert_eq!(caller.collect(), Err(CallError::Deadline { call_ms_max: 200 }));
    assert_eq!(caller.host.logs.len(), 32);
    let few = Limits {
        asks_max: 100,
        ..PATIENT
    };
    let [mut caller, _neighbor] = native(["asks", "report"], few);
    caller.collect().unwrap();
    assert_eq!(caller.host.reads, 100);
}

/// A suspect is called alone, and would wait for whoever waits for a peer.
#[test]
fn a_plugin_whose_peer_is_waited_for_holds_up_nobody() {
    holds_up_nobody("peer", PATIENT);
}

/// A file on a server that was gone kept all other plugins waiting for 15 s, again and again.
#[test]
fn a_plugin_whose_disk_stands_still_holds_up_nobody() {
    let once = Limits { asks_max: 1, ..PATIENT };
    holds_up_nobody("asks", once);
}

fn holds_up_nobody(behavior: &str, limits: Limits) {
    let [mut waiting, mut guilty] = native([behavior, "abort"], limits);
    let (ask, asked) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let in_vain = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&in_vain);
    waiting.host.peer = Some(Arc::new(move || {
        ask.send(()).unwrap_or_default();
        let released = released
            .lock()
            .expect("the tests' own")
            .recv_timeout(Duration::from_secs(20));
        in_vain.fetch_or(released == Err(mpsc::RecvTimeoutError::Timeout), Ordering::Relaxed);
    }));
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| waiting.collect_anew().expect("the tests' own"));
        asked.recv().expect("the tests' own");
        assert_eq!(guilty.collect_anew(), Err(CallError::Crash));
        drop(release);
        assert_eq!(waiter.join().expect("the tests' own").series[0].labels, ["answered"]);
    });
    assert_eq!(
        waiting.repeated, 1,
        "its process ended once, and while it waits it is no suspect"
    );
    assert!(!seen.load(Ordering::Relaxed), "the others waited for its peer");
}

#[test]
fn peers_are_asked_so_often_in_one_call_whatever_the_process_became() {
    let [mut caller, _neighbor] = native(["peers", "report"], PATIENT);
    caller.host.peer = Some(Arc::new(|| {}));
    caller.collect().unwrap();
    assert_eq!(caller.host.reads, 16);
}

/// Waiting is not the plugin's time, and has a bound of its own.
#[test]
fn waiting_for_peers_is_bounded_apart_from_the_call() {
    let limits = Limits {
        call_ms_max: 300,
        peer_ms_max: 600,
        ..PATIENT
    };
    let [mut caller, _neighbor] = native(["peers", "report"], limits);
    caller.host.peer = Some(Arc::new(|| std::thread::sleep(Duration::from_millis(250))));
    caller.collect().unwrap();
    assert_eq!(caller.host.reads, 3);
}

#[test]
fn a_program_that_is_missing_or_another_is_told() {
    let start = |program: &str| {
        let load = tillwatch_border::Load {
            code: crate::build::HOSTILE.clone(),
            limits: PATIENT,
            name: "hostile".to_owned(),
        };
        tillwatch_border::start(PathBuf::from(program), vec![load])
            .err()
            .unwrap()
            .to_string()
    };
    assert!(start("/missing/tillwatch-sandbox").starts_with("starting /missing/tillwatch-sandbox: No such file"));
    let ended = start("/bin/true");
    let expected = "/bin/true did not become ready: it ended, exit status: 0\nhint: start it by hand";
    assert!(ended.starts_with(expected), "{ended}");
}

/// The refused plugin's socket was closed, and with each of its calls it ended the process of all, and was convicted.
#[test]
fn a_plugin_that_is_refused_at_a_restart_costs_its_neighbor_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("stub-once");
    copy_stub(&program);
    let [mut refused, mut neighbor] = start_hostile(program, [PATIENT; 2])
        .map(|plugin| Caller::new(plugin, "report", TestHost::with_input(b"line\n")));
    refused.collect_anew().unwrap();
    kill_wholly(refused.plugin.process_id().unwrap());
    neighbor.collect_anew().unwrap();
    let process = neighbor.plugin.process_id();
    for _ in 0..3 {
        let error = refused.collect_anew().unwrap_err();
        let CallError::Unavailable { reason } = error else {
            panic!("{error:?}")
        };
        assert_eq!(reason, "its code is not taken any more: not again");
        neighbor.collect_anew().unwrap();
    }
    assert_eq!((neighbor.plugin.process_id(), neighbor.plugin.restarts()), (process, 1));
}

#[test]
fn each_restart_names_its_cause_once() {
    let [mut silent, mut neighbor] = native(["silent", "report"], QUICK);
    kill_wholly(neighbor.plugin.process_id().unwrap());
    neighbor.collect_anew().unwrap();
    assert_eq!(
        neighbor.plugin.take_restart().as_deref(),
        Some("it was ended from outside")
    );
    assert_eq!(neighbor.plugin.take_restart(), None);
    silent.configure().unwrap();
    silent.collect().unwrap_err();
    neighbor.collect_anew().unwrap();
    let told = neighbor.plugin.take_restart();
    assert_eq!(told.as_deref(), Some("hostile took more than 200 ms of a processor"));
    let [mut guilty, mut neighbor] = native(["abort", "report"], PATIENT);
    guilty.collect().unwrap_err();
    neighbor.collect_anew().unwrap();
    let told = neighbor.plugin.take_restart();
    assert_eq!(told.as_deref(), Some("it ended in a call of hostile"));
}

/// Each of 32 plugins waited for half a minute of its own.
#[test]
fn after_a_start_that_failed_the_next_call_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("stub");
    copy_stub(&program);
    let [first, second] = start_hostile(program.clone(), [PATIENT; 2]);
    std::fs::remove_file(&program).unwrap();
    kill_wholly(first.process_id().unwrap());
    let call = |plugin| Caller::new(plugin, "report", TestHost::default()).collect_anew();
    let missing = call(first).unwrap_err();
    copy_stub(&program);
    // It could start now.
    assert_eq!(call(second).unwrap_err(), missing);
}

#[test]
fn the_process_ends_with_its_last_plugin() {
    let [first, second] = start_hostile(sandbox(), [PATIENT; 2]);
    let process = first.process_id().unwrap();
    let is_there = || std::path::Path::new(&format!("/proc/{process}")).exists();
    drop(first);
    assert!(is_there());
    drop(second);
    assert!(!is_there());
}

/// With the last of the store's memory the system ends what the store needs least.
#[test]
fn when_memory_ends_the_plugins_process_goes_first() {
    let [mut caller, _neighbor] = native(["report", "report"], PATIENT);
    caller.collect().unwrap();
    let process = caller.plugin.process_id().unwrap();
    let adjusted = std::fs::read_to_string(format!("/proc/{process}/oom_score_adj")).unwrap();
    assert_eq!(adjusted.trim(), "1000");
}
