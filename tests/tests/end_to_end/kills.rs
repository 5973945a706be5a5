//! Nothing is lost and nothing counts twice, whoever is killed whenever.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use tillwatch_tests::process::wait_until;

use crate::world::World;

/// Of random kills; the story is as long as they take.
const KILLS: u32 = 18;
const KILLS_EMBEDDED: u32 = 6;
const PAUSE_MS_MAX: u64 = 1_500;
/// Retries of the agent double, and an unacknowledged record is sent again after a minute.
const PATIENCE: Duration = Duration::from_secs(150);

/// `TILLWATCH_SEED` replays a run, as far as processes can be replayed.
fn seed() -> Result<u64> {
    match std::env::var("TILLWATCH_SEED") {
        Ok(text) => text.parse().context("reading TILLWATCH_SEED"),
        Err(_) => Ok(u64::try_from(
            SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis(),
        )?),
    }
}

/// Sells while time passes.
fn sell_for(world: &mut World, random: &mut fastrand::Rng, duration: Duration) -> Result<()> {
    let until = Instant::now() + duration;
    while Instant::now() < until {
        let count = random.u32(1..20);
        world.sell(random, count)?;
        std::thread::sleep(Duration::from_millis(random.u64(20..120)));
    }
    Ok(())
}

/// Kills one of the three, now and then two at once, and starts it again after a while.
fn kill(world: &mut World, random: &mut fastrand::Rng, number: u32) -> Result<()> {
    let (first, second) = (number % 3, random.u32(0..6));
    let pause = Duration::from_millis(random.u64(0..PAUSE_MS_MAX));
    let is_killed = |which| which == first || which == second;
    println!(
        "kill {number}: agent {}, broker {}, central {}, for {pause:?}",
        is_killed(0),
        is_killed(1),
        is_killed(2)
    );
    if is_killed(0) {
        world.agent.kill()?;
    }
    if is_killed(1) {
        world.kill_broker()?;
    }
    if is_killed(2) {
        world.central.kill()?;
    }
    sell_for(world, random, pause)?;
    if is_killed(1) {
        world.restart_broker()?;
    }
    if is_killed(2) {
        world.central.restart()?;
    }
    if is_killed(0) {
        world.agent.restart()?;
    }
    Ok(())
}

#[test]
fn every_sale_is_received_once_through_kills_of_agent_broker_and_central() -> Result<()> {
    through_kills(World::start()?, KILLS)
}

/// The broker dies with central.
#[test]
fn every_sale_is_received_once_through_kills_with_the_embedded_broker() -> Result<()> {
    through_kills(World::start_embedded()?, KILLS_EMBEDDED)
}

fn through_kills(mut world: World, kills: u32) -> Result<()> {
    let seed = seed()?;
    println!("TILLWATCH_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    sell_for(&mut world, &mut random, Duration::from_secs(2))?;
    world.wait_for_everything(PATIENCE).context("before the first kill")?;
    for number in 0..kills {
        sell_for(&mut world, &mut random, Duration::from_millis(200))?;
        let wait = Duration::from_millis(random.u64(0..PAUSE_MS_MAX));
        sell_for(&mut world, &mut random, wait)?;
        kill(&mut world, &mut random, number)?;
    }
    world.wait_for_everything(PATIENCE)?;
    // An orderly stop gives away what is still open, and leaves nothing unaccounted.
    world.agent.stop()?;
    world.agent.restart()?;
    world.wait_for_everything(PATIENCE).context("after an orderly stop")?;
    wait_until("no record is missing", PATIENCE, || Ok(world.missing_records()? == 0))?;
    let books = world.central.get("/api/v1/records")?;
    let lines = books["lines"].as_array().context("lines")?;
    for line in lines {
        let of = |key: &str| line[key].as_u64().context("a number");
        ensure!(of("produced")? == of("received")? + of("accounted")?, "{line}");
    }
    ensure!(
        !lines.is_empty() && books["contradictions"] == serde_json::json!([]),
        "{books}"
    );
    println!("{:?} received once", world.sold);
    Ok(())
}
