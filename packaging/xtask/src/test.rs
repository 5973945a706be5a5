//! `cargo xtask test`: everything that CI runs, cheap first, each step with its time.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::{Profile, build_compiler, cargo, run_program, target};
use crate::{dist, examples, plugins, tidy, tools};

/// Runs every step and stops at the first that fails.
pub(crate) fn run_all(root: &Path) -> Result<Vec<(&'static str, Duration)>> {
    let mut times = Vec::new();
    for (name, step) in STEPS {
        println!("── {name}");
        let begun = Instant::now();
        step(root).with_context(|| format!("step '{name}'"))?;
        println!("── {name}: {:.1} s", begun.elapsed().as_secs_f64());
        times.push((name, begun.elapsed()));
    }
    Ok(times)
}

/// As `run_all`, and prints the times as a table.
pub(crate) fn run(root: &Path) -> Result<()> {
    let times = run_all(root)?;
    for (name, time) in &times {
        println!("{:>8.1} s  {name}", time.as_secs_f64());
    }
    let total: Duration = times.iter().map(|(_, time)| *time).sum();
    println!("{:>8.1} s  all", total.as_secs_f64());
    Ok(())
}

type Step = fn(&Path) -> Result<()>;

const STEPS: [(&str, Step); 9] = [
    ("format", format),
    ("spelling and TOML", spelling),
    ("tidy", tidy::run),
    ("clippy", clippy),
    ("fuzz targets", fuzz),
    ("programs", programs),
    ("plugins", |root| plugins::build(root).map(drop)),
    ("package", package),
    ("tests, demo and examples", tests_demo_and_examples),
];

fn format(root: &Path) -> Result<()> {
    crate::command::run(&mut cargo(root, &["fmt", "--all", "--check"]))?;
    for alone in ["agent/compiler", "sdk/feed/generate", "tests/fuzz"] {
        crate::command::run(&mut cargo(&root.join(alone), &["fmt", "--check"]))?;
    }
    Ok(())
}

fn spelling(root: &Path) -> Result<()> {
    crate::command::run(Command::new(tools::wheel("typos")?).current_dir(root))?;
    let mut taplo = Command::new(tools::wheel("taplo")?);
    crate::command::run(
        taplo
            .current_dir(root)
            .args(["fmt", "--check", "--diff"])
            .env("RUST_LOG", "warn"),
    )
}

fn clippy(root: &Path) -> Result<()> {
    crate::command::run(&mut cargo(
        root,
        &[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    ))?;
    let bare = ["clippy", "--quiet", "-p", "tillwatch-agent", "--no-default-features"];
    crate::command::run(cargo(root, &bare).args(["--", "-D", "warnings"]))
}

/// Whether they compile; to run them takes a nightly compiler. libFuzzer itself is linked by nobody here, so it is not built.
fn fuzz(root: &Path) -> Result<()> {
    let mut check = cargo(
        &root.join("tests/fuzz"),
        &["check", "--quiet", "--locked", "--target-dir"],
    );
    check.arg(target(root).join("fuzz"));
    crate::command::run(check.env("CUSTOM_LIBFUZZER_PATH", "/nowhere/libfuzzer.a"))
}

/// The programs together with the tests: built apart, they would use crates with other features, and build them twice.
fn programs(root: &Path) -> Result<()> {
    crate::command::run(&mut cargo(root, &["build", "--quiet", "--workspace", "--all-targets"]))?;
    build_compiler(root, Profile::Dev)
}

/// The demo waits for its story's clock most of the time and many tests for a server, so the examples' compiler takes
/// what they leave.
fn tests_demo_and_examples(root: &Path) -> Result<()> {
    std::thread::scope(|scope| {
        let beside: [(&str, Step); 2] = [("the demo", demo), ("the examples", examples::test)];
        let beside = beside.map(|(name, step)| (name, scope.spawn(move || timed(name, step, root))));
        let tested = timed("the tests", tests, root);
        for (name, thread) in beside {
            thread
                .join()
                .unwrap_or_else(|_panic| bail!("{name}: its thread ended"))?;
        }
        tested
    })
}

fn timed(name: &str, step: Step, root: &Path) -> Result<()> {
    let begun = Instant::now();
    let done = step(root).with_context(|| name.to_owned());
    println!("── {name}: {:.1} s", begun.elapsed().as_secs_f64());
    done
}

fn tests(root: &Path) -> Result<()> {
    tools::time_zones()?;
    tools::program("mosquitto", "mosquitto")?;
    tools::program("minisign", "minisign")?;
    tools::program("nginx", "nginx")?;
    tools::program("apache2", "apache2-bin")?;
    tools::program("logrotate", "logrotate")?;
    tools::postgres()?;
    tools::program("mariadbd", "mariadb-server")?;
    // A till beside the agent, for SQLite.
    tools::program("python3", "python3")?;
    tools::brokers()?;
    let mut test = cargo(root, &["test", "--workspace"]);
    test.env("TILLWATCH_PROGRAMS", target(root).join(Profile::Dev.folder()));
    test.env("TILLWATCH_CONSUMER_PYTHON", tools::consumer(root)?);
    crate::command::run(test.env("TILLWATCH_TRYTON_PYTHON", tools::point_of_sale()?))?;
    let mut compiler = cargo(
        &root.join("agent/compiler"),
        &["test", "--quiet", "--locked", "--target-dir"],
    );
    crate::command::run(compiler.arg(target(root).join("compiler")))
}

fn package(root: &Path) -> Result<()> {
    let deb = dist::pack(root, Profile::Dev)?;
    dist::try_out(root, &deb)
}

/// The story to its end and the same day without the fault, faster than the demo's own pace.
fn demo(root: &Path) -> Result<()> {
    let arguments = ["--headless", "--speed", "60"].map(str::to_owned);
    run_program(root, Profile::Dev, "tillwatch-demo", &arguments)
}
