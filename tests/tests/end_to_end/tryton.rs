//! A real point of sale: Tryton's rings up, parks, takes back and is paid while an agent asks its database.
//!
//! `tryton.py` sells, and at the end says what it sold by Tryton's own totals, which come from the lines of its sales;
//! the agent's query adds up the payments.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tillwatch_tests::process::{Process, wait_until};

use super::world::World;

/// Tryton makes its tables first.
const PATIENCE: Duration = Duration::from_secs(240);
const SALES: i64 = 30;

/// As a till's own program has it: amounts are texts in blobs.
const QUERY: &str = "SELECT s.id AS id, max(s.write_date) AS time, \
    CAST(round(sum(CAST(CAST(p.amount AS TEXT) AS REAL)) * 100) AS INTEGER) AS total, \
    CASE WHEN max(m.cash) THEN 'cash' ELSE 'card' END AS tender, 'till-' || s.point AS till \
    FROM sale_point_sale s JOIN sale_point_payment p ON p.sale = s.id JOIN sale_point_payment_method m ON m.id = p.method \
    WHERE s.id > ?1 AND s.state IN ('done', 'posted') GROUP BY s.id ORDER BY s.id";

fn sell(folder: &Path) -> Result<Process> {
    let python = std::env::var_os("TILLWATCH_TRYTON_PYTHON")
        .map(PathBuf::from)
        .context("no Tryton\nhint: cargo xtask test installs it; its interpreter is TILLWATCH_TRYTON_PYTHON")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/tryton.py");
    let mut command = Command::new(python);
    command.arg(script).arg(folder).arg(SALES.to_string());
    // Its warnings are of no interest, and its time is that of the agent's queries.
    command.env("PYTHONWARNINGS", "ignore").env("TZ", "UTC");
    Process::start("tryton", &mut command, &folder.join("tryton.log"))
}

/// What the seller says, if it said that already.
fn said(seller: &Process, key: &str) -> Result<Option<Value>> {
    let log = std::fs::read_to_string(&seller.log)?;
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(lines.into_iter().find(|line| line.get(key).is_some()))
}

#[test]
fn what_a_real_point_of_sale_sold_arrives_to_the_cent_by_a_query_of_its_database() -> Result<()> {
    let mut world = World::start()?;
    let settings = world.agent.settings().to_owned();
    let shop = settings.parent().context("a folder")?.join("shop");
    std::fs::create_dir(&shop)?;
    let mut seller = sell(&shop)?;
    wait_until("the point of sale is open", PATIENCE, || {
        seller.check()?;
        Ok(said(&seller, "ready")?.is_some())
    })?;
    let before = std::fs::read_to_string(&settings)?;
    let (rest, _source) = before.split_once("[plugin.sources.lines]").context("a source")?;
    let database = shop.join("pos.sqlite").display().to_string();
    std::fs::write(
        &settings,
        format!(
            "{rest}[plugin.sources.query]\ndatabase = \"sqlite:{database}\"\nquery = \"{QUERY}\"\n\
             columns = [\"id integer\", \"time text\", \"total integer\", \"tender text\", \"till text\"]\n\
             cursor = \"id\"\ncursor_start = \"0\"\ninterval_min = \"1s\"\n\
             [plugin.settings]\nfield_items = \"\"\nfield_lane = \"till\"\namount_unit = \"minor\"\ncursor_overlap = 200\n"
        ),
    )?;
    world.agent.restart()?;
    wait_until("the first sales arrive", PATIENCE, || {
        world.check()?;
        Ok(world.central.received()?.transactions > 0)
    })
    .with_context(|| world.agent.log_end())?;
    world.agent.restart()?;
    seller.wait()?;
    let sold = said(&seller, "minor")?.context("its totals")?;
    let (count, minor) = (sold["sales"].as_i64(), sold["minor"].as_i64());
    ensure!(count > Some(SALES / 2) && sold["returns"].as_i64() > Some(0), "{sold}");
    let arrived = wait_until("central has every sale", Duration::from_secs(60), || {
        world.check()?;
        let received = world.central.received()?;
        ensure!(Some(received.transactions) <= count, "{received:?} of {sold}");
        Ok((Some(received.transactions), Some(received.amount_minor)) == (count, minor))
    });
    arrived.with_context(|| format!("{:?} of {sold}\n{}", world.central.received(), world.agent.log_end()))
}
