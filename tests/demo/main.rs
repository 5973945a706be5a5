//! `tillwatch-demo`: the founding story, live.
//!
//! Sixty stores sell over one broker, the one inside central: three of them are real agents with real plugins on real
//! files, the others are the store's mind in one process.
//! Five weeks of history go through the same path first; then the story is told at a multiple of its speed.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a demo talks to the terminal")]

mod stage;
mod verdict;
mod watch;

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use tillwatch_tests::story::Chain;
use tokio::signal::unix::{SignalKind, signal};

use stage::Stage;
use verdict::{Calm, Coverage, Stores, Story, Told, Truth, Verdict};
use watch::Watch;

#[derive(Parser)]
#[command(
    name = "cargo xtask demo",
    about = "A slow minor service becomes a priced incident, ranked first"
)]
struct Arguments {
    /// To the story's end and out, beside it the same day without the fault; exit 0 when the story was told
    #[arg(long)]
    headless: bool,
    /// One JSON object on standard output for each seed; with --seeds another one with `coverage` (needs --headless)
    #[arg(long, requires = "headless")]
    json: bool,
    /// Which chain of stores
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// So many seeds from --seed on, and how often the interval held the truth (needs --headless)
    #[arg(long, default_value_t = 1, requires = "headless")]
    seeds: u64,
    /// Story time per real time; 25 when watched, 40 when headless
    #[arg(long)]
    speed: Option<f64>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(Box::pin(async {
        tokio::select! {
            played = Box::pin(play(&arguments)) => played,
            stopped = stopped() => {
                stopped?;
                ensure!(!arguments.headless, "stopped before the story's end");
                Ok(())
            }
        }
    }))
}

/// Ctrl-C, or SIGTERM: all that was started ends with both.
async fn stopped() -> Result<()> {
    let mut terminated = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("waiting for Ctrl-C"),
        _terminated = terminated.recv() => Ok(()),
    }
}

async fn play(arguments: &Arguments) -> Result<()> {
    if !arguments.headless {
        return watch_live(arguments).await;
    }
    let (mut told, mut held) = (0, 0);
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        let verdict = Box::pin(headless(arguments, seed)).await?;
        told += u64::from(verdict.passed);
        held += u64::from(verdict.story.interval_held_the_truth);
        report(&verdict, arguments.json)?;
    }
    if arguments.seeds > 1 {
        eprintln!("the 90 % interval held the truth {held} of {} times", arguments.seeds);
        if arguments.json {
            let (seeds, held) = (arguments.seeds, held);
            let coverage = Coverage {
                seeds,
                interval_held_the_truth: held,
                story_told: told,
            };
            println!("{}", serde_json::json!({ "coverage": coverage }));
        }
    }
    ensure!(
        told == arguments.seeds,
        "the story was told {told} of {} times",
        arguments.seeds
    );
    Ok(())
}

/// The story for people: at the end everything stays up until Ctrl-C.
async fn watch_live(arguments: &Arguments) -> Result<()> {
    let chain = Arc::new(Chain::new(arguments.seed));
    let mut watch = Watch::new(false);
    let mut stage = Stage::build(chain.clone())?;
    introduce(&mut watch, &stage);
    stage.tell_history(&mut watch).await?;
    watch.say(&format!("watch it at {}", stage.page()));
    stage.live(&mut watch, arguments.speed.unwrap_or(25.0)).await?;
    let truth = Truth::of(&chain)?;
    watch.say(&format!(
        "in truth the fault cost {} {}",
        truth.cost_minor / 100,
        truth.currency
    ));
    watch.say(&format!("the page stays at {} until Ctrl-C", stage.page()));
    std::future::pending().await
}

/// The story to its end, and beside it the same day without the fault, from the same history.
async fn headless(arguments: &Arguments, seed: u64) -> Result<Verdict> {
    let chain = Arc::new(Chain::new(seed));
    let speed = arguments.speed.unwrap_or(40.0);
    let mut watch = Watch::new(arguments.json);
    let mut stage = Stage::build(chain.clone())?;
    introduce(&mut watch, &stage);
    stage.tell_history(&mut watch).await?;
    let mut calm_stage = stage.fork(Arc::new(chain.without_fault()))?;
    let calm = tokio::spawn(async move {
        calm_stage.live(&mut Watch::new(true), speed).await?;
        anyhow::Ok(calm_stage)
    });
    stage.live(&mut watch, speed).await?;
    let incidents = stage.incidents()?;
    let calm_stage = calm.await.context("the day without the fault broke")??;
    let without_fault = Calm {
        incidents: calm_stage.incidents()?.len(),
        costed_incidents: calm_stage.ever_costed.len(),
    };
    let stores = Stores {
        real_agents: calm_stage.real_stores(),
        simulated: calm_stage.simulated_stores(),
    };
    judge(&chain, incidents, without_fault, stores)
}

fn judge(chain: &Chain, incidents: Vec<Told>, without_fault: Calm, stores: Stores) -> Result<Verdict> {
    let truth = Truth::of(chain)?;
    let story = Story::of(&truth, &incidents);
    let passed = story.is_told() && without_fault.costed_incidents == 0;
    Ok(Verdict {
        passed,
        seed: chain.seed,
        stores,
        truth,
        story,
        incidents,
        without_fault,
    })
}

fn introduce(watch: &mut Watch, stage: &Stage) {
    watch.say(&format!(
        "seed {}: real agents with plugins on real files: {}",
        stage.chain.seed,
        stage.real_stores().join(", ")
    ));
    watch.say(&format!(
        "simulated: the store's mind in this process, over the same wire: {} stores",
        stage.simulated_stores()
    ));
}

fn report(verdict: &Verdict, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(verdict)?);
        return Ok(());
    }
    let error = verdict.story.cost_error.map_or_else(
        || "no price".to_owned(),
        |error| format!("cost error {:.0} %", error * 100.0),
    );
    println!(
        "seed {}: {}; {error}; interval {} the truth; {} costed incidents without the fault",
        verdict.seed,
        if verdict.passed {
            "the story was told"
        } else {
            "the story was NOT told"
        },
        if verdict.story.interval_held_the_truth {
            "held"
        } else {
            "missed"
        },
        verdict.without_fault.costed_incidents
    );
    Ok(())
}
