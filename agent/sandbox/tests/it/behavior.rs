//! What a plugin may do, and what becomes of one that does more.

use std::time::{Duration, Instant};

use tillwatch_border::{Bound, CallError, Counters, ErrorKind, Level, Limits, PluginError};
use tillwatch_core::sample::Values;

use crate::build::{Caller, hostile, sandbox, settings, start_hostile};
use crate::host::{NOW_MS, TestHost};

/// Loaded machines are slow; no test of a limit but that of the deadline should meet the deadline.
pub(crate) const PATIENT: Limits = Limits {
    call_ms_max: 60_000,
    ..default_limits()
};

/// `Default` is no constant.
const fn default_limits() -> Limits {
    Limits {
        memory_bytes_max: 32 << 20,
        call_ms_max: 250,
        host_ms_max: 5_000,
        read_bytes_max: 4 << 20,
        asks_max: 4_096,
        output_bytes_max: 8 << 20,
        series_max: 1_000,
        samples_max: 100_000,
        labels_max: 16,
        label_bytes_max: 256,
        metrics_max: 256,
        text_bytes_max: 1024,
        log_lines_max: 32,
        log_bytes_max: 1024,
        state_bytes_max: 64 << 10,
    }
}

/// Runs a behavior once and sees that a neighbor in the same process is none the worse.
fn misbehave(behavior: &str, limits: Limits) -> (CallError, Caller) {
    let [plugin, neighbor] = start_hostile(sandbox(), [limits, PATIENT]);
    let mut neighbor = Caller::new(neighbor, &settings("report"), TestHost::with_input(b"fine\n"));
    neighbor.configure().expect("a neighbor starts");
    let mut caller = Caller::new(plugin, &settings(behavior), TestHost::with_input(b"line\n"));
    caller.configure().expect(behavior);
    let error = caller.collect().expect_err(behavior);
    let goes_on = ["fail", "huge-state", "many-series", "reads"].contains(&behavior);
    assert_eq!(caller.plugin.is_spent(), !goes_on, "{error:?}");
    if caller.plugin.is_spent() {
        assert_eq!(caller.collect(), Err(CallError::Spent));
    }
    let collected = match neighbor.collect() {
        Err(CallError::Gone) => neighbor.collect_anew(),
        result => result,
    };
    assert_eq!(collected.expect("a neighbor runs on").series.len(), 2);
    (error, caller)
}

#[test]
fn a_plugin_reports_what_it_read() {
    let mut instance = hostile("report", PATIENT, TestHost::with_input(b"till-1\ntill-2\n"));
    let first = instance.collect().unwrap();
    assert_eq!(first.series.len(), 4);
    assert_eq!(first.series[0].labels, ["till-1"]);
    assert_eq!(first.series[0].values, Values::Integers(vec![1]));
    assert_eq!(first.series[1].values, Values::Reals(vec![0.5]));
    assert_eq!(first.series[0].times_ms, [NOW_MS]);
    assert_eq!(instance.collect().unwrap().series[0].values, Values::Integers(vec![2]));
    assert_eq!(instance.host.state, [2]);
    let counters = instance.plugin.counters();
    assert!(counters.memory_bytes > 0 && counters.busy_us > 0, "{counters:?}");
}

#[test]
fn a_description_follows_the_settings() {
    let [mut unconfigured] = start_hostile(sandbox(), [PATIENT]);
    let before = unconfigured.describe(&mut TestHost::default()).unwrap();
    assert_eq!(
        (before.name.as_str(), before.metrics[0].currency.as_deref()),
        ("hostile", None)
    );
    let mut configured = hostile("report", PATIENT, TestHost::default());
    let after = configured.plugin.describe(&mut TestHost::default()).unwrap();
    assert_eq!(after.metrics[0].currency.as_deref(), Some("EUR"));
    assert_eq!(configured.plugin.describe(&mut TestHost::default()).unwrap(), after);
}

#[test]
fn an_endless_loop_is_stopped_near_its_deadline() {
    let limits = Limits {
        call_ms_max: 100,
        ..PATIENT
    };
    let mut instance = hostile("loop", limits, TestHost::default());
    let begin = Instant::now();
    assert_eq!(instance.collect(), Err(CallError::Deadline { call_ms_max: 100 }));
    let took = begin.elapsed();
    // A quiet machine takes 101 ms; without a deadline it would take for ever.
    assert!(
        took >= Duration::from_millis(100) && took < Duration::from_secs(10),
        "{took:?}"
    );
    let (error, _) = misbehave("loop", limits);
    assert_eq!(error, CallError::Deadline { call_ms_max: 100 });
}

#[test]
fn a_memory_bomb_is_refused() {
    let limits = Limits {
        memory_bytes_max: 8 << 20,
        ..PATIENT
    };
    let (error, instance) = misbehave("memory", limits);
    assert!(
        matches!(error, CallError::Memory { memory_bytes_max, .. } if memory_bytes_max == 8 << 20),
        "{error:?}"
    );
    let Counters { memory_bytes, .. } = instance.plugin.counters();
    assert!(memory_bytes <= 8 << 20, "{memory_bytes}");
}

#[test]
fn a_plugin_that_does_not_fit_at_all_is_not_instantiated() {
    let limits = Limits {
        memory_bytes_max: 64 << 10,
        ..PATIENT
    };
    let [mut plugin] = start_hostile(sandbox(), [limits]);
    let result = plugin.describe(&mut TestHost::default());
    assert!(matches!(result, Err(CallError::Memory { .. })), "{result:?}");
}

#[test]
fn a_deep_recursion_is_a_trap() {
    let (error, _instance) = misbehave("recursion", PATIENT);
    // Rust's own stack lies in linear memory, and whichever ends first is met.
    assert!(matches!(error, CallError::Stack | CallError::Trap { .. }), "{error:?}");
}

#[test]
fn the_text_of_a_panic_is_logged() {
    let (error, instance) = misbehave("panic", PATIENT);
    assert!(matches!(error, CallError::Trap { .. }), "{error:?}");
    let logs = &instance.host.logs;
    let (level, text) = logs.last().expect("the panic's text");
    assert_eq!(*level, Level::Error);
    assert!(
        text.contains("the drawer is stuck") && text.contains("hostile/src/lib.rs:"),
        "{text}"
    );
}

#[test]
fn too_many_bytes_at_once_are_not_copied() {
    let (error, _instance) = misbehave(
        "huge-label",
        Limits {
            memory_bytes_max: 64 << 20,
            ..PATIENT
        },
    );
    assert_eq!(
        error,
        CallError::OutputBytes {
            output_bytes_max: 8 << 20
        }
    );
}

#[test]
fn too_many_series_are_refused_with_the_bounds_name() {
    let (error, _instance) = misbehave("many-series", PATIENT);
    assert_eq!(
        error,
        CallError::Oversized {
            bound: Bound::Series,
            found: 5_000,
            limit: 1_000
        }
    );
}

#[test]
fn a_flood_of_log_lines_is_cut_and_counted() {
    let mut instance = hostile("logs", PATIENT, TestHost::default());
    instance.collect().unwrap();
    let counters = instance.plugin.counters();
    assert_eq!((counters.log_lines_dropped, counters.log_lines_cut), (1_000 - 32, 32));
    assert_eq!(instance.plugin.take_counters(), counters);
    let Counters { memory_bytes, .. } = counters;
    let anew = Counters {
        memory_bytes,
        ..Counters::default()
    };
    assert_eq!(instance.plugin.counters(), anew);
    let logs = &instance.host.logs;
    assert_eq!(logs.len(), 32);
    assert!(logs.iter().all(|(_, text)| text.len() == 1024));
    instance.collect().unwrap();
    assert_eq!(instance.host.logs.len(), 64);
}

#[test]
fn a_state_beyond_its_bound_is_refused_and_the_plugin_told() {
    let (error, instance) = misbehave("huge-state", PATIENT);
    let CallError::Plugin(PluginError { kind, message }) = error else {
        panic!("{error:?}")
    };
    assert_eq!(
        (kind, message.as_str()),
        (ErrorKind::Permanent, "state of 1048576 bytes, at most 65536")
    );
    assert_eq!(instance.plugin.counters().states_refused, 1);
    assert_eq!(instance.host.state, b"");
}

#[test]
fn a_plugin_that_never_stops_reading_is_stopped() {
    let (error, instance) = misbehave(
        "reads",
        Limits {
            read_bytes_max: 1_000,
            ..PATIENT
        },
    );
    let CallError::Plugin(PluginError { kind, .. }) = error else {
        panic!("{error:?}")
    };
    assert_eq!(kind, ErrorKind::Transient);
    assert_eq!(instance.plugin.counters().reads_refused, 1);
}

#[test]
fn what_a_plugin_says_of_its_failure_arrives() {
    let (error, mut instance) = misbehave("fail", PATIENT);
    let expected = PluginError {
        kind: ErrorKind::Transient,
        message: "the till is away".to_owned(),
    };
    assert_eq!(error, CallError::Plugin(expected.clone()));
    assert_eq!(
        instance.collect(),
        Err(CallError::Plugin(expected)),
        "the instance is not spent"
    );
}

#[test]
fn refused_settings_are_told_within_bounds() {
    let configure = |settings: &str| {
        let [mut plugin] = start_hostile(sandbox(), [PATIENT]);
        match plugin.configure(settings, &mut TestHost::default()) {
            Err(CallError::Plugin(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    let refused = configure(&settings("refuse"));
    assert_eq!((refused.kind, refused.message.len()), (ErrorKind::Config, 1024));
    let unknown = configure("{\"manner\": \"report\"}");
    assert_eq!(unknown.kind, ErrorKind::Config);
    assert!(
        unknown.message.starts_with("missing field `behavior`"),
        "{}",
        unknown.message
    );
}

#[test]
fn a_collect_without_settings_is_an_error() {
    let [mut plugin] = start_hostile(sandbox(), [PATIENT]);
    let result = plugin.collect(&mut TestHost::default());
    assert!(matches!(result, Err(CallError::Plugin(_))), "{result:?}");
}

#[test]
fn the_limits_of_the_tests_are_the_defaults() {
    assert_eq!(default_limits(), Limits::default());
}
