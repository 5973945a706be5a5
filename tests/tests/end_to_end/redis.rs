//! A real Redis: lists, a stream whose group is behind, accounts that may only count, one of them with a password.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use tillwatch_tests::process::{Process, free_port, wait_for_port};

use super::queues::{PATIENCE, Watch};

/// Commands as a person types them, each with its reply.
fn ask(port: u16, lines: &[&str]) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("{}\r\nQUIT\r\n", lines.join("\r\n")).as_bytes())?;
    let mut replies = String::new();
    stream.read_to_string(&mut replies)?;
    ensure!(!replies.contains("-ERR"), "{lines:?}: {replies}");
    Ok(replies)
}

#[test]
fn lists_and_streams_of_a_real_redis_are_as_deep_as_they_are() -> Result<()> {
    let place = tempfile::tempdir()?;
    let port = free_port()?;
    let mut command = Command::new("redis-server");
    command.current_dir(place.path());
    command.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()]);
    let _redis = Process::start("redis-server", &mut command, &place.path().join("redis.log"))?;
    wait_for_port(port, PATIENCE)?;

    let keys = "~spool:* ~tlog ~secret";
    let may = "+type +llen +xlen +xinfo|groups +xpending +quit";
    ask(
        port,
        &[
            "RPUSH spool:mainframe a b c",
            "XADD tlog * tx 1",
            "XADD tlog * tx 2",
            "XADD tlog * tx 3",
            "XADD tlog * tx 4",
            "XGROUP CREATE tlog uploader 0",
            "XREADGROUP GROUP uploader c1 COUNT 3 STREAMS tlog >",
            &format!("ACL SETUSER tillwatch on nopass {keys} -@all {may}"),
            &format!("ACL SETUSER keyed on >sesame {keys} -@all {may}"),
            "ACL SETUSER default -@all +quit +auth",
        ],
    )?;
    let source = format!("[plugin.sources.redis]\npeer = \"127.0.0.1:{port}\"");
    let settings = "system = \"redis\"\nqueues = [\"mainframe=spool:mainframe\", \"tlog\", \"empty=spool:none\"]";

    let mut refused = Watch::start(place.path(), "refused", &source, settings)?;
    refused.wait_for("source.up", "", 0.0)?;
    ensure!(
        refused.warnings()?.contains("redis wants a login"),
        "{}",
        refused.warnings()?
    );
    ensure!(refused.values()?.iter().all(|(metric, ..)| metric == "source.up"));

    // With a password, which the agent says and the plugin does not know.
    let secret = place.path().join("secret");
    std::fs::write(&secret, "sesame\n")?;
    let login = |user: &str| {
        format!(
            "{source}\nlogin = \"AUTH {user} {{secret}}\\r\\n\"\nlogin_answer = \"+OK\\r\\n\"\nsecret_file = {secret:?}"
        )
    };
    let mut keyed = Watch::start(place.path(), "keyed", &login("keyed"), settings)?;
    keyed.wait_for("queue.depth", "mainframe", 3.0)?;
    keyed.wait_for("source.up", "", 1.0)?;
    let mut wrong = Watch::start(place.path(), "wrong", &login("nobody"), settings)?;
    wrong.wait_for("source.up", "", 0.0)?;
    ensure!(wrong.warnings()?.contains("login_answer"), "{}", wrong.warnings()?);

    let settings = format!("{settings}\nredis_user = \"tillwatch\"");
    let mut watch = Watch::start(place.path(), "redis", &source, &settings)?;
    watch.wait_for("queue.depth", "mainframe", 3.0)?;
    watch.wait_for("queue.depth", "empty", 0.0)?;
    watch.wait_for("queue.depth", "tlog", 4.0)?;
    watch.wait_for("queue.unacked", "tlog", 3.0)?;
    watch.wait_for("queue.consumers", "tlog", 1.0)?;
    watch.wait_for("source.up", "", 1.0)?;
    let ages: Vec<f64> = watch
        .values()?
        .into_iter()
        .filter(|(metric, ..)| metric == "queue.oldest_age")
        .map(|(.., age)| age)
        .collect();
    ensure!(
        !ages.is_empty() && ages.iter().all(|age_ms| (0.0..600_000.0).contains(age_ms)),
        "{ages:?}"
    );
    Ok(())
}
