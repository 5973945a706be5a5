//! The way to the broker in all its weathers: proxies, certificates, versions of TLS, brokers that are absent or refuse,
//! another shard, a day's bytes, a wrong clock.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tillwatch_feed::codec::{decode_state, encode_config};
use tillwatch_feed::message::Config;
use tillwatch_tests::pki::{BROKER_NAME, Identity};
use tillwatch_tests::process::wait_until;
use tillwatch_tests::tunnel::{Login, Tunnel};
use tokio::time::timeout;

use crate::world::{SITE, World};
use tillwatch_tests::client::Client;

const PATIENCE: Duration = Duration::from_secs(90);
const CONNECTED: &str = "connected to the broker";
const LOGIN: Login = Login {
    user: "till",
    password: "open sesame",
    basic: "dGlsbDpvcGVuIHNlc2FtZQ==",
};

fn sell(world: &mut World) -> Result<()> {
    world.sell(&mut fastrand::Rng::with_seed(1), 7)
}

/// The files of somebody whom this world's authority knows.
fn identity(world: &World, name: &str) -> Identity {
    Identity::of(&world.place().join("pki"), name)
}

/// The broker has a name that nobody but the proxy resolves; a wrong password is replaced while the agent runs.
#[test]
fn sales_come_through_proxies_that_resolve_the_name_and_ask_for_a_login() -> Result<()> {
    let mut world = World::start()?;
    let port = world.central.broker_port;
    let secret = world.place().join("proxy-secret");
    let mut before = format!("url = \"mqtts://127.0.0.1:{port}\"\n");
    for scheme in ["http", "socks5"] {
        std::fs::write(&secret, "wrong password\n")?;
        let tunnel = Tunnel::start(BROKER_NAME, port, Some(LOGIN))?;
        let after = format!(
            "url = \"mqtts://{BROKER_NAME}:{port}\"\nproxy = \"{scheme}://localhost:{}\"\nproxy_user = \"till\"\n\
             proxy_secret_file = \"{}\"\n",
            tunnel.port,
            secret.display()
        );
        let refused = world.agent.log()?.matches("the proxy refuses the login").count();
        world.agent.change(&before, &after)?;
        sell(&mut world)?;
        world.agent.wait_for("the proxy refuses the login", refused + 1)?;
        std::fs::write(&secret, format!("{}\n", LOGIN.password))?;
        world.wait_for_everything(PATIENCE)?;
        ensure!(tunnel.opened() > 0, "{scheme} was not used");
        before = after;
    }
    let log = world.agent.log()?;
    ensure!(!log.contains(LOGIN.password) && !log.contains(LOGIN.basic), "{log}");
    Ok(())
}

#[test]
fn new_certificates_are_taken_without_a_restart_and_broken_ones_leave_the_old_in_use() -> Result<()> {
    let mut world = World::start()?;
    world.agent.wait_for(CONNECTED, 1)?;
    let key = identity(&world, SITE).key;
    std::fs::write(&key, "-----BEGIN")?;
    world.agent.hang_up()?;
    world
        .agent
        .wait_for("the new certificate files cannot be used, the old ones stay in use", 1)?;
    sell(&mut world)?;
    world.wait_for_everything(PATIENCE).context("with the old ones")?;
    let old_authority = identity(&world, SITE).ca;
    let old = std::fs::read(&old_authority)?;
    // Another authority for everybody: only who has read the files again gets through.
    world.new_certificates()?;
    ensure!(std::fs::read(&old_authority)? != old);
    world.restart_broker()?;
    world.central.restart()?;
    sell(&mut world)?;
    world
        .wait_for_everything(PATIENCE)
        .context("with those of another authority")?;
    let connections = world.agent.log()?.matches(CONNECTED).count();
    let renewed = world.agent.log()?.matches("new certificate files are used").count();
    std::fs::write(&old_authority, [std::fs::read(&old_authority)?, old].concat())?;
    world.agent.hang_up()?;
    world.agent.wait_for("new certificate files are used", renewed + 1)?;
    world.agent.wait_for(CONNECTED, connections + 1)?;
    sell(&mut world)?;
    world.wait_for_everything(PATIENCE).context("after SIGHUP")
}

/// Does the broker speak this version, such as `-tls1_2`?
fn speaks(port: u16, version: &str) -> Result<bool> {
    let mut client = Command::new("openssl");
    client.args(["s_client", version, "-connect", &format!("127.0.0.1:{port}")]);
    let output = client.stdin(Stdio::null()).output().context("starting openssl")?;
    // Without a certificate the broker hangs up, but only once it has agreed on a version.
    Ok(String::from_utf8_lossy(&output.stdout).contains("Server certificate"))
}

#[test]
fn the_agent_starts_without_its_broker_and_speaks_tls_1_2_and_1_3() -> Result<()> {
    let mut world = World::start()?;
    let port = world.central.broker_port;
    for (version, spoken, other) in [("TLSv1.2", "-tls1_2", "-tls1_3"), ("TLSv1.3", "-tls1_3", "-tls1_2")] {
        world.agent.kill()?;
        world.kill_broker()?;
        let missed = world.agent.log()?.matches("not connected to the broker").count();
        world.agent.restart()?;
        world.agent.wait_for("not connected to the broker", missed + 1)?;
        sell(&mut world)?;
        world.mosquitto()?.restart_with_tls(version)?;
        ensure!(
            speaks(port, spoken)? && !speaks(port, other)?,
            "mosquitto speaks not {version} alone"
        );
        world.wait_for_everything(PATIENCE).context(version)?;
    }
    Ok(())
}

/// By its settings alone the agent would come back some time within an hour.
#[tokio::test]
async fn what_the_center_announces_decides_the_next_return() -> Result<()> {
    let mut world = World::start()?;
    world.central.kill()?;
    let archive = Client::connect(world.central.broker_port, "main", &identity(&world, "main")).await?;
    let config = encode_config(&Config { spread_window_s: 1 });
    archive.retain(&format!("tw1/a/{SITE}/cfg"), config).await?;
    world
        .agent
        .change("reconnect_within = \"500ms\"", "reconnect_within = \"1h\"")?;
    world.agent.wait_for("settings from the center", 1)?;
    let connections = world.agent.log()?.matches(CONNECTED).count();
    drop(archive);
    let begun = Instant::now();
    world.restart_broker()?;
    world.agent.wait_for(CONNECTED, connections + 1)?;
    ensure!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    Ok(())
}

/// Everything that the broker retains on these topics; none of it is new.
async fn retained(world: &World, filter: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let mut archive = Client::connect(world.central.broker_port, "main", &identity(world, "main")).await?;
    archive.subscribe(filter).await?;
    let mut retained = Vec::new();
    while let Ok(Some(message)) = timeout(Duration::from_millis(500), archive.arrived.recv()).await {
        retained.push(message);
    }
    Ok(retained)
}

/// One store on both brokers: what it leaves behind under the old name is cleared, and no record counts twice.
async fn moves_to_another_shard(mut world: World, can_look: bool) -> Result<()> {
    sell(&mut world)?;
    world.wait_for_everything(PATIENCE)?;
    // What central has not acknowledged moves with the store.
    sell(&mut world)?;
    world
        .agent
        .change("reconnect_within", "shard = \"b\"\nreconnect_within")?;
    sell(&mut world)?;
    world.agent.wait_for("the state under a former shard is cleared", 1)?;
    world.wait_for_everything(PATIENCE)?;
    wait_until("no record is missing", PATIENCE, || Ok(world.missing_records()? == 0))?;
    if can_look {
        world.central.kill()?;
        let retained = retained(&world, "tw1/+/+/state").await?;
        let topics: Vec<&str> = retained.iter().map(|(topic, _payload)| topic.as_str()).collect();
        ensure!(topics == [format!("tw1/b/{SITE}/state")], "{topics:?}");
        ensure!(decode_state(&retained[0].1)?.online);
        world.central.restart()?;
    }
    let cleared = world.agent.log()?;
    world.agent.stop()?;
    world.agent.restart()?;
    sell(&mut world)?;
    world.wait_for_everything(PATIENCE)?;
    let again = world.agent.log()?.replace(&cleared, "");
    ensure!(!again.contains("former shard"), "cleared twice: {again}");
    Ok(())
}

#[tokio::test]
async fn a_store_that_moves_to_another_shard_leaves_nothing_behind_and_loses_nothing() -> Result<()> {
    moves_to_another_shard(World::start()?, true).await
}

#[tokio::test]
async fn a_store_moves_to_another_shard_of_the_embedded_broker() -> Result<()> {
    moves_to_another_shard(World::start_embedded()?, false).await
}

#[test]
fn what_a_broker_denies_waits_is_said_and_goes_once_it_may() -> Result<()> {
    let mut world = World::start()?;
    world.agent.wait_for(CONNECTED, 1)?;
    let right = "pattern write tw1/+/%u/sum\n";
    world
        .mosquitto()?
        .restart_with_rights(|rights| rights.replace(right, ""))?;
    let before = world.central.received()?;
    sell(&mut world)?;
    world.agent.wait_for("the broker refuses a payload", 1)?;
    wait_until("central hears of it", PATIENCE, || {
        let health = world.central.get("/api/v1/health")?;
        Ok(health["sites"][0]["refused"].as_u64() > Some(0))
    })?;
    let health = world.central.get("/api/v1/health")?;
    let problems = health["problems"].to_string();
    ensure!(problems.contains("with payloads that the broker refuses"), "{problems}");
    ensure!(world.central.received()? == before, "it got through");
    world
        .mosquitto()?
        .restart_with_rights(|rights| format!("{right}{rights}"))?;
    world.wait_for_everything(PATIENCE)?;
    wait_until("no record is missing", PATIENCE, || Ok(world.missing_records()? == 0))
}

/// The day's bytes were spent before: sums wait on disk, the center knows why, and tomorrow they come.
#[test]
fn what_is_beyond_the_bytes_of_the_day_waits_and_then_counts_once() -> Result<()> {
    const DAY_MS: u128 = 86_400_000;
    let mut world = World::start()?;
    world.agent.wait_for(CONNECTED, 1)?;
    world.agent.stop()?;
    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_millis();
    ensure!(now_ms % DAY_MS < DAY_MS - 300_000, "the day ends before the test does");
    std::fs::write(
        world.place().join("state/traffic"),
        format!("{} 300000 1\n", now_ms / DAY_MS),
    )?;
    world
        .agent
        .change("reconnect_within", "bytes_per_day = \"256KiB\"\nreconnect_within")?;
    sell(&mut world)?;
    world
        .agent
        .wait_for("the day's bytes are spent, all but findings waits", 1)?;
    let before = world.central.received()?;
    // Long enough for an interval of five seconds to end, and to be sent if it were.
    wait_until("the agent holds it", PATIENCE, || {
        let site = world.central.get("/api/v1/health")?["sites"][0].clone();
        let is_told = site["bytes_per_day"] == 262_144 && site["bytes_today"].as_u64() > Some(262_144);
        Ok(is_told && site["intervals"] == 5)
    })?;
    std::thread::sleep(Duration::from_secs(8));
    ensure!(world.central.received()? == before, "it got through");
    world.agent.change("bytes_per_day = \"256KiB\"\n", "")?;
    world.wait_for_everything(PATIENCE)?;
    wait_until("no record is missing", PATIENCE, || Ok(world.missing_records()? == 0))
}

#[test]
fn a_store_whose_clock_is_two_hours_slow_is_shown_and_nothing_of_it_is_rejected() -> Result<()> {
    const SKEW_MS: i64 = -2 * 3_600_000;
    let mut world = World::start()?;
    world.agent.wait_for(CONNECTED, 1)?;
    world.skew_ms = SKEW_MS;
    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_millis();
    let start = tillwatch_tests::story::timestamp(u64::try_from(now_ms)?.saturating_add_signed(SKEW_MS));
    world
        .agent
        .restart_with(&["--clock".to_owned(), format!("{start}@1")])?;
    sell(&mut world)?;
    world.wait_for_everything(PATIENCE)?;
    wait_until("central shows it", PATIENCE, || {
        let offset = world.central.get("/api/v1/health")?["sites"][0]["clock_offset_ms"].as_i64();
        Ok(offset.is_some_and(|offset| (offset - SKEW_MS).abs() < 60_000))
    })?;
    wait_until("no record is missing", PATIENCE, || Ok(world.missing_records()? == 0))
}
