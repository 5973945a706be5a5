//! Which files the sandbox takes, and which the compiler makes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tillwatch_border::{Code, Limits, Load, LoadError, artifact, start};

use crate::build::{compile, compiler, folder, run_compiler, sandbox, target};
use crate::host::TestHost;

/// A changed copy of the hostile plugin's artifact.
fn changed(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let artifact = compile(&target().join("guests/hostile.wasm"), name);
    let mut bytes = fs::read(&artifact).expect("it was just written");
    change(&mut bytes);
    fs::write(&artifact, bytes).expect("the folder is ours");
    artifact
}

fn load_error(path: &Path) -> LoadError {
    Code::open(path).expect_err("it should not load")
}

#[test]
fn a_missing_file_is_told() {
    assert!(matches!(
        load_error(&folder().join("missing.cwasm")),
        LoadError::Read { .. }
    ));
}

#[test]
fn a_component_is_not_an_artifact() {
    let path = changed("component", |bytes| {
        bytes.splice(..8, *b"\0asm\x0d\0\x01\0").for_each(drop)
    });
    assert!(matches!(load_error(&path), LoadError::NotAnArtifact { .. }));
}

#[test]
fn a_torn_artifact_is_damaged() {
    let torn = changed("torn", |bytes| bytes.truncate(bytes.len() / 2));
    assert!(matches!(load_error(&torn), LoadError::Damaged { .. }));
    let flipped = changed("flipped", |bytes| {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    });
    assert!(matches!(load_error(&flipped), LoadError::Damaged { .. }));
}

#[test]
fn code_for_another_engine_is_told() {
    let path = changed("other", |bytes| bytes[12..20].copy_from_slice(b"wasmtima"));
    let error = load_error(&path);
    assert!(
        matches!(&error, LoadError::OtherEngine { found, .. } if found.starts_with("wasmtima 48.")),
        "{error:?}"
    );
}

#[test]
fn an_artifact_that_others_may_write_is_not_run() {
    let path = changed("writable", |_| {});
    Code::open(&path).unwrap();
    for mode in [0o620, 0o602] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(matches!(load_error(&path), LoadError::Untrusted { .. }), "{mode:o}");
    }
}

#[test]
fn an_artifact_in_a_folder_that_others_may_write_is_not_run() {
    let folder = tempfile::tempdir_in(folder()).unwrap();
    let path = folder.path().join("plugin.cwasm");
    fs::copy(changed("moved", |_| {}), &path).unwrap();
    Code::open(&path).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(load_error(&path), LoadError::Untrusted { .. }));
}

#[test]
fn the_compiler_refuses_what_is_no_plugin_and_leaves_nothing() {
    let folder = tempfile::tempdir_in(folder()).unwrap();
    let (wasm, artifact) = (folder.path().join("module.wasm"), folder.path().join("module.cwasm"));
    fs::write(&wasm, b"\0asm\x01\0\0\0").unwrap();
    let output = run_compiler(&wasm, &artifact);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains("it is a core module"),
        "{text}"
    );
    fs::File::create(&wasm).unwrap().set_len(33 << 20).unwrap();
    let output = run_compiler(&wasm, &artifact);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains("more than 33554432"),
        "{text}"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn what_comes_on_the_standard_input_is_compiled() {
    let wasm = target().join("guests/hostile.wasm");
    let artifact = folder().join(format!("piped-{}.cwasm", std::process::id()));
    let input = fs::File::open(&wasm).unwrap();
    let output = compiler(Path::new("-"), &artifact).stdin(input).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read(&artifact).unwrap(), fs::read(compile(&wasm, "named")).unwrap());
    Code::open(&artifact).unwrap();
}

#[test]
fn the_compiler_limits_itself_before_it_has_its_input() {
    let mut command = compiler(Path::new("-"), &folder().join("never.cwasm"));
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let input = child.stdin.take().unwrap();
    let limits_file = format!("/proc/{}/limits", child.id());
    let has_all = || {
        let text = fs::read_to_string(&limits_file).unwrap();
        let is_limited = |(name, most): (&str, &str)| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().take(2).all(|limit| limit == most)
        };
        [
            ("Max cpu time", "30"),
            ("Max address space", "268435456"),
            ("Max file size", "134217728"),
            ("Max core file size", "0"),
            ("Max processes", "0"),
        ]
        .into_iter()
        .all(is_limited)
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while !has_all() {
        assert!(Instant::now() < deadline, "the limits are others");
        std::thread::yield_now();
    }
    drop(input);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.starts_with("the plugin is refused"), "{text}");
}

#[test]
fn code_that_the_engine_does_not_take_is_refused_and_its_neighbor_runs() {
    let folder = tempfile::tempdir_in(folder()).unwrap();
    let path = folder.path().join("other.cwasm");
    fs::write(&path, artifact::with_header(b"code for another processor", false)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let load = |code: Code| Load {
        code: Arc::new(code),
        limits: Limits::default(),
        name: "hostile".to_owned(),
    };
    let good = compile(&target().join("guests/hostile.wasm"), "neighbor");
    let loads = vec![load(Code::open(&path).unwrap()), load(Code::open(&good).unwrap())];
    let mut plugins = start(sandbox(), loads).unwrap();
    assert_eq!(
        plugins
            .remove(1)
            .unwrap()
            .describe(&mut TestHost::default())
            .unwrap()
            .name,
        "hostile"
    );
    let refused = plugins.remove(0).err();
    assert!(matches!(refused, Some(LoadError::Engine { .. })), "{refused:?}");
}

#[test]
fn the_shipped_plugins_describe_themselves_the_same_twice() {
    let mut names = Vec::new();
    for entry in fs::read_dir(target().join("plugins")).expect("hint: cargo xtask plugins") {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let wasm = target().join("plugins").join(&name).join(format!("{name}.wasm"));
        let load = Load {
            name: "hostile".to_owned(),
            code: Arc::new(Code::open(&compile(&wasm, &name)).unwrap()),
            limits: Limits {
                call_ms_max: 60_000,
                ..Limits::default()
            },
        };
        let mut plugin = start(sandbox(), vec![load]).unwrap().remove(0).unwrap();
        let descriptor = plugin.describe(&mut TestHost::default()).unwrap();
        assert_eq!(descriptor.name, name);
        assert!(!descriptor.metrics.is_empty());
        assert_eq!(plugin.describe(&mut TestHost::default()).unwrap(), descriptor);
        names.push(name);
    }
    names.sort();
    assert_eq!(names, ["pos-latency", "probe", "queue-depth", "sales"]);
}

#[test]
fn compiler_and_sandbox_have_the_same_engine() {
    let locked = |path: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let lock = fs::read_to_string(&path).unwrap();
        let package = lock
            .split("[[package]]")
            .find(|package| package.contains("name = \"wasmtime\"\n"));
        package
            .unwrap()
            .lines()
            .find(|line| line.starts_with("version"))
            .unwrap()
            .to_owned()
    };
    let version = locked("../../Cargo.lock");
    assert_eq!(version, locked("../compiler/Cargo.lock"));
    assert_eq!(version, format!("version = \"{}\"", artifact::WASMTIME_VERSION));
}
