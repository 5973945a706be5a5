//! What native code in the plugins' place can still do: nothing.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::LazyLock;

use tillwatch_border::CallError;
use tillwatch_core::sample::Values;

use crate::behavior::PATIENT;
use crate::build::{Caller, copy_stub, folder, sandbox, settings, start_hostile, stub};
use crate::host::TestHost;

/// The same program under a name by which it leaves out the seal.
fn unsealed() -> PathBuf {
    static COPIED: LazyLock<PathBuf> = LazyLock::new(|| {
        let path = folder().join(format!("stub-{}-unsealed", std::process::id()));
        copy_stub(&path);
        path
    });
    COPIED.clone()
}

fn native(program: PathBuf, behavior: &str) -> Caller {
    let [plugin] = start_hostile(program, [PATIENT]);
    let mut caller = Caller::new(plugin, behavior, TestHost::default());
    caller.configure().expect("the tests' own");
    caller
}

/// Each attempt with whether it went through.
fn escape(program: PathBuf) -> Vec<(String, bool)> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the tests' own");
    let port = listener.local_addr().expect("the tests' own").port();
    let batch = native(program, &format!("escape {port}"))
        .collect()
        .expect("the tests' own");
    let attempt = |series: &tillwatch_core::sample::Series| {
        let went = matches!(&series.values, Values::Reals(went) if went[0] > 0.5);
        (series.labels[0].clone(), went)
    };
    batch.series.iter().map(attempt).collect()
}

#[test]
fn sealed_native_code_cannot_open_start_connect_trace_or_map_code() {
    for (attempt, went) in escape(stub()) {
        assert!(!went, "{attempt}");
    }
    // Each attempt is a real one: without the seal it succeeds.
    let attempts = escape(unsealed());
    assert_eq!(attempts.len(), 14);
    for (attempt, went) in attempts {
        assert!(went, "{attempt} fails without the seal, too");
    }
}

#[test]
fn sealed_native_code_cannot_become_another_program() {
    let batch = native(stub(), "exec").collect().unwrap();
    assert_eq!(batch.series[0].labels, ["permission denied"]);
    assert_eq!(native(unsealed(), "exec").collect(), Err(CallError::Gone));
}

#[test]
fn sealed_native_code_gets_the_memory_of_its_plugins_and_little_more() {
    let filled = |program| match &native(program, "fill").collect().unwrap().series[0].values {
        Values::Reals(bytes) => bytes[0],
        Values::Integers(_) => panic!("it says a real"),
    };
    let plugin = f64::from(32 << 20);
    let sealed = filled(stub());
    assert!(sealed > plugin && sealed < 4.0 * plugin, "{sealed}");
    assert!(filled(unsealed()) > 100.0 * plugin);
}

#[test]
fn the_real_process_is_sealed_in_all_its_threads_and_holds_its_sockets_only() {
    let [plugin, _neighbor] = start_hostile(sandbox(), [PATIENT; 2]);
    let mut caller = Caller::new(plugin, &settings("report"), TestHost::with_input(b"line\n"));
    caller.configure().unwrap();
    caller.collect().unwrap();
    let folder = format!("/proc/{}", caller.plugin.process_id().unwrap());
    let mut threads = 0;
    for thread in fs::read_dir(format!("{folder}/task")).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        assert!(
            status.contains("Seccomp:\t2\n") && status.contains("NoNewPrivs:\t1\n"),
            "{status}"
        );
        threads += 1;
    }
    assert_eq!(threads, 3);
    let limits = fs::read_to_string(format!("{folder}/limits")).unwrap();
    let open_files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(open_files.split_whitespace().nth(3), Some("0"));
    let mut open: Vec<String> = fs::read_dir(format!("{folder}/fd"))
        .unwrap()
        .map(|entry| {
            fs::read_link(entry.unwrap().path())
                .unwrap()
                .to_string_lossy()
                .into_owned()
        })
        .map(|target| target.split(':').next().unwrap_or_default().to_owned())
        .collect();
    open.sort();
    open.dedup();
    // The memory is what instances begin with.
    assert_eq!(open, ["/dev/null", "/memfd", "socket"]);
}
