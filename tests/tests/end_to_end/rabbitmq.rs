//! A real RabbitMQ: a backlog, a consumer that does not acknowledge, an account without a permission, a restart.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tillwatch_tests::process::{Process, free_port, wait_for_port, wait_until};

use super::queues::{PATIENCE, Watch, sum};

const BOOT_PATIENCE: Duration = Duration::from_secs(240);
/// `guest:guest`.
const GUEST: &str = "Z3Vlc3Q6Z3Vlc3Q=";

struct Ports {
    amqp: u16,
    management: u16,
    stomp: u16,
    distribution: u16,
    names: u16,
}

/// The broker and the server of its node's name.
struct Rabbit {
    _names: Process,
    broker: Process,
}

impl Rabbit {
    /// Debian's wrapper would change to the package's own user and folder.
    fn start(place: &Path, ports: &Ports) -> Result<Self> {
        let home = place.join("home");
        std::fs::create_dir_all(&home)?;
        std::fs::write(place.join("enabled_plugins"), "[rabbitmq_management,rabbitmq_stomp].")?;
        std::fs::write(
            place.join("rabbitmq.conf"),
            format!(
                "listeners.tcp.1 = 127.0.0.1:{}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {}\n\
                 stomp.listeners.tcp.1 = 127.0.0.1:{}\nlog.console = true\nlog.file = false\n\
                 collect_statistics_interval = 500\n",
                ports.amqp, ports.management, ports.stomp
            ),
        )?;
        let mut names = Command::new("epmd");
        names.args(["-address", "127.0.0.1", "-port", &ports.names.to_string()]);
        let names = Process::start("epmd", &mut names, &place.join("epmd.log"))?;
        wait_for_port(ports.names, PATIENCE)?;
        let mut command = Command::new("/usr/lib/rabbitmq/bin/rabbitmq-server");
        command
            .env("HOME", home)
            .env("RABBITMQ_NODENAME", format!("t{}@localhost", ports.amqp))
            .env("RABBITMQ_MNESIA_BASE", place.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", place.join("log"))
            .env("RABBITMQ_PID_FILE", place.join("pid"))
            .env("RABBITMQ_CONFIG_FILE", place.join("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", place.join("enabled_plugins"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_DIST_PORT", ports.distribution.to_string())
            .env("ERL_EPMD_PORT", ports.names.to_string())
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1}",
            )
            // Without a shell around it that would live on.
            .env("RUNNING_UNDER_SYSTEMD", "true");
        let broker = Process::start("rabbitmq-server", &mut command, &place.join("rabbitmq.log"))?;
        let mut rabbit = Self { _names: names, broker };
        wait_until("the management API answers", BOOT_PATIENCE, || {
            rabbit.broker.check()?;
            Ok(manage(ports.management, "GET", "overview", "").is_ok())
        })?;
        wait_for_port(ports.stomp, PATIENCE)?;
        Ok(rabbit)
    }
}

/// One request to the management API as the administrator.
fn manage(port: u16, method: &str, path: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "{method} /api/{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Basic {GUEST}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 2"), "{method} {path}: {answer}");
    Ok(answer)
}

/// Sends frames of STOMP and gives what comes back, up to so many messages.
/// Source: stomp.github.io "STOMP Protocol Specification, Version 1.2".
fn stomp(port: u16, frames: &str, messages: usize) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let login = "CONNECT\naccept-version:1.2\nhost:/\nlogin:guest\npasscode:guest\n\n\0";
    stream.write_all(format!("{login}{frames}").as_bytes())?;
    let mut said = String::new();
    let mut piece = [0; 4096];
    while said.matches("MESSAGE\n").count() < messages || !said.contains("RECEIPT\n") {
        let count = stream.read(&mut piece)?;
        said += &String::from_utf8_lossy(&piece[..count]);
        ensure!(count > 0 && !said.contains("ERROR\n"), "{said}");
    }
    Ok(stream)
}

fn publish(port: u16, queue: &str, count: usize) -> Result<()> {
    let one = |headers: &str| format!("SEND\ndestination:/queue/{queue}\n{headers}\nx\0");
    // The receipt of the last says that all are there.
    stomp(port, &(one("").repeat(count - 1) + &one("receipt:r\n")), 0)?;
    Ok(())
}

fn grant(ports: &Ports, secret: &Path) -> String {
    format!(
        "[plugin.sources.broker]\nurl = \"http://127.0.0.1:{}/api/\"\nbasic_user = \"tillwatch\"\nsecret_file = {secret:?}",
        ports.management
    )
}

#[test]
fn queues_of_a_real_rabbitmq_are_as_deep_as_they_are_and_never_0_without_a_permission() -> Result<()> {
    let place = tempfile::tempdir()?;
    let [amqp, management, stomp_port, distribution, names] = [(); 5].map(|()| free_port());
    let ports = Ports {
        amqp: amqp?,
        management: management?,
        stomp: stomp_port?,
        distribution: distribution?,
        names: names?,
    };
    let rabbit = Rabbit::start(place.path(), &ports)?;
    publish(ports.stomp, "mainframe", 10)?;
    publish(ports.stomp, "john.smith", 2)?;
    let user = "users/tillwatch";
    manage(
        ports.management,
        "PUT",
        user,
        r#"{"password":"word","tags":"monitoring"}"#,
    )?;
    let secret = place.path().join("secret");
    std::fs::write(&secret, "word")?;
    let settings = "system = \"rabbitmq\"\nqueues = [\"mainframe\"]";
    let mut watch = Watch::start(place.path(), "rabbitmq", &grant(&ports, &secret), settings)?;

    watch.wait_for("source.up", "", 0.0)?;
    ensure!(
        watch.warnings()?.contains("without a permission"),
        "{}",
        watch.warnings()?
    );
    ensure!(watch.values()?.iter().all(|(metric, ..)| metric == "source.up"));

    let nothing = r#"{"configure":"^$","write":"^$","read":"^$"}"#;
    manage(ports.management, "PUT", "permissions/%2F/tillwatch", nothing)?;
    watch.wait_for("queue.depth", "mainframe", 10.0)?;
    watch.wait_for("queue.consumers", "mainframe", 0.0)?;
    watch.wait_for("queue.depth", "_other", 2.0)?;
    watch.wait_for("source.up", "", 1.0)?;

    let take =
        "SUBSCRIBE\nid:0\ndestination:/queue/mainframe\nack:client-individual\nprefetch-count:7\nreceipt:r\n\n\0";
    let consumer = stomp(ports.stomp, take, 7)?;
    watch.wait_for("queue.unacked", "mainframe", 7.0)?;
    watch.wait_for("queue.consumers", "mainframe", 1.0)?;
    watch.wait_for("queue.depth", "mainframe", 10.0)?;
    publish(ports.stomp, "mainframe", 3)?;
    watch.wait_for("queue.depth", "mainframe", 13.0)?;
    drop(consumer);
    watch.wait_for("queue.unacked", "mainframe", 0.0)?;
    let came = sum(&watch.values()?, "queue.in", "mainframe");

    drop(rabbit);
    watch.wait_for("source.up", "", 0.0)?;
    let _rabbit = Rabbit::start(place.path(), &ports).context("after the restart")?;
    // Messages that are not persistent die with the broker.
    watch.wait_for("queue.depth", "mainframe", 0.0)?;
    publish(ports.stomp, "mainframe", 2)?;
    watch.wait_for("queue.depth", "mainframe", 2.0)?;
    watch.wait_for_sum("queue.in", "mainframe", came + 2.0)
}
