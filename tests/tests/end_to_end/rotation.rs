//! Logs that a real logrotate rotates while they are written: each line counts once, whoever is restarted meanwhile.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tillwatch_agent::source::NamePattern;
use tillwatch_agent::source::logs::{Logs, LogsSettings};
use tillwatch_agent::source::tail::{Tail, TailSettings};
use tillwatch_tests::process::{Process, free_port, wait_for_port, wait_until};

use crate::world::World;

const PATIENCE: Duration = Duration::from_secs(90);

/// A program where Debian keeps its servers.
fn installed(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file());
    match found {
        Some(found) => Ok(found),
        None => bail!("{name} is not installed\nhint: sudo apt-get install -y {name}"),
    }
}

/// One rotation of `logs`, now.
fn rotate(place: &Path, logs: &str, how: &str) -> Result<()> {
    let settings = place.join("logrotate.conf");
    std::fs::write(&settings, format!("{logs} {{\n  rotate 1000\n  missingok\n{how}\n}}\n"))?;
    let output = Command::new(installed("logrotate")?)
        .arg("--force")
        .arg("--state")
        .arg(place.join("logrotate.state"))
        .arg(&settings)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success() && said.is_empty(), "{said}");
    Ok(())
}

/// Writes numbered lines, and opens its log anew when it is told to, as nginx does.
struct Writer {
    place: PathBuf,
    is_over: AtomicBool,
    /// Held while it writes: between the copy and the truncation of `copytruncate` lines are lost, whoever reads.
    pause: Mutex<()>,
}

impl Writer {
    fn write(&self) -> Result<usize> {
        let open = || {
            File::options()
                .create(true)
                .append(true)
                .open(self.place.join("access.log"))
        };
        let (mut log, mut count) = (open()?, 0);
        while !self.is_over.load(Relaxed) {
            for _ in 0..20 {
                let _writing = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
                writeln!(log, "{count} a line as long as those of a real log, with an ü")?;
                count += 1;
            }
            if std::fs::remove_file(self.place.join("reopen")).is_ok() {
                log = open()?;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(count)
    }
}

/// One log alone, or the only one of a pattern that takes its rotated parts as well.
enum Reader {
    One(Box<Tail>),
    Many(Box<Logs>),
}

impl Reader {
    /// As after a restart of the agent.
    fn open(place: &Path, is_pattern: bool, progress: &[u8]) -> Result<Self> {
        let progress = Some(progress).filter(|progress| !progress.is_empty());
        // Well beyond the time in which the writer opens its log anew.
        let rotation_settle_ms = 300;
        Ok(if is_pattern {
            let settings = LogsSettings::new(place.to_owned(), NamePattern::new("access.log*"));
            let settings = LogsSettings {
                rotation_settle_ms,
                ..settings
            };
            Self::Many(Box::new(Logs::open(settings, progress)?))
        } else {
            let settings = TailSettings::new(place.join("access.log"));
            let settings = TailSettings {
                rotation_settle_ms,
                ..settings
            };
            Self::One(Box::new(Tail::open(settings, progress)?))
        })
    }

    /// What was read, and the progress that belongs to it; none while the log is not there.
    fn read(&mut self, bytes_max: usize) -> Option<(Vec<u8>, Vec<u8>)> {
        match self {
            Self::One(tail) => {
                let lines = tail.read(bytes_max).ok()?;
                let progress = tail.progress();
                tail.commit();
                Some((lines.bytes, progress))
            }
            Self::Many(logs) => {
                let lines = logs.read(bytes_max).ok()?;
                let progress = logs.progress();
                logs.commit();
                Some((lines.bytes, progress))
            }
        }
    }
}

fn read_while_rotated(how: &str, is_pattern: bool) -> Result<()> {
    let place = tempfile::tempdir()?;
    let logs = place.path().join("logs");
    std::fs::create_dir(&logs)?;
    let writer = Writer {
        place: logs.clone(),
        is_over: AtomicBool::new(false),
        pause: Mutex::new(()),
    };
    File::create(logs.join("access.log"))?;
    let mut random = fastrand::Rng::with_seed(7);
    let (mut reader, mut progress, mut found) = (Reader::open(&logs, is_pattern, &[])?, Vec::new(), String::new());
    let mut read = |reader: &mut Reader, progress: &mut Vec<u8>| -> Result<()> {
        if random.u8(..3) == 0 {
            *reader = Reader::open(&logs, is_pattern, progress)?;
        }
        if let Some((bytes, next)) = reader.read(random.usize(1..20_000)) {
            found += std::str::from_utf8(&bytes)?;
            *progress = next;
        }
        Ok(())
    };
    read(&mut reader, &mut progress)?;
    let count = std::thread::scope(|scope| -> Result<usize> {
        let written = scope.spawn(|| writer.write());
        let rotated = (0..4).try_for_each(|_| {
            let until = Instant::now() + Duration::from_millis(250);
            while Instant::now() < until {
                read(&mut reader, &mut progress)?;
            }
            let paused = how
                .contains("copytruncate")
                .then(|| writer.pause.lock().unwrap_or_else(PoisonError::into_inner));
            let rotated = rotate(place.path(), &logs.join("access.log").display().to_string(), how);
            drop(paused);
            rotated
        });
        writer.is_over.store(true, Relaxed);
        let count = written.join().unwrap_or_else(|_panicked| bail!("the writer ended"))?;
        rotated.map(|()| count)
    })?;
    // What has rotated counts as finished once its time of grace is over.
    let until = Instant::now() + Duration::from_millis(700);
    while Instant::now() < until {
        read(&mut reader, &mut progress)?;
    }
    let numbers: Vec<usize> = found
        .lines()
        .map(|line| line.split(' ').next().unwrap_or_default().parse())
        .collect::<Result<_, _>>()?;
    let wrong = numbers.iter().enumerate().find(|(at, number)| at != *number);
    ensure!(
        wrong.is_none() && numbers.len() == count,
        "{how}: {wrong:?}, {} of {count}",
        numbers.len()
    );
    let is_compressed = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.path().extension().is_some_and(|extension| extension == "gz"))
    };
    let compressed = std::fs::read_dir(&logs)?.filter_map(|entry| Some(is_compressed(entry)).filter(|is| *is));
    ensure!(compressed.count() >= 3, "logrotate compressed them");
    Ok(())
}

#[test]
fn each_line_is_read_once_and_in_order_while_a_real_logrotate_rotates() -> Result<()> {
    let reopen = "  sharedscripts\n  postrotate\n    touch $(dirname $1)/reopen; while [ -e $(dirname $1)/reopen ]; do sleep 0.01; done\n  endscript";
    for is_pattern in [false, true] {
        for how in [
            format!("  compress\n  create\n{reopen}"),
            format!("  compress\n  delaycompress\n  nocreate\n{reopen}"),
            "  compress\n  copytruncate".to_owned(),
            "  compress\n  delaycompress\n  copytruncate".to_owned(),
        ] {
            read_while_rotated(&how, is_pattern)?;
        }
    }
    Ok(())
}

/// A real nginx with two access logs whose lines are sales of the plugin `sales`.
struct Nginx {
    process: Process,
    ports: [u16; 2],
}

impl Nginx {
    fn start(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let ports = [free_port()?, free_port()?];
        let at = folder.display();
        let server = |(name, port): (&str, u16)| {
            format!(
                "  server {{ listen 127.0.0.1:{port}; access_log {at}/{name}.access.log sale; \
                 location / {{ return 200 \"ok\"; }} }}\n"
            )
        };
        let servers: String = ["till", "web"].into_iter().zip(ports).map(server).collect();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|name| format!("  {name}_temp_path {at}/{name};\n"))
            .collect();
        let user = if rustix::process::geteuid().is_root() {
            "user root;\n"
        } else {
            ""
        };
        let settings = format!(
            "{user}daemon off;\nworker_processes 2;\npid {at}/nginx.pid;\nerror_log {at}/error.log;\n\
             events {{ worker_connections 64; }}\nhttp {{\n{temporary}  \
             log_format sale escape=json '{{\"time\":\"$time_iso8601\",\"total\":1.25,\"items\":1,\"tender\":\"cash\",\"id\":\"$msec-$connection-$connection_requests\"}}';\n\
             {servers}}}\n"
        );
        std::fs::write(folder.join("nginx.conf"), settings)?;
        let mut command = Command::new(installed("nginx")?);
        command
            .arg("-e")
            .arg(folder.join("error.log"))
            .arg("-c")
            .arg(folder.join("nginx.conf"));
        let process = Process::start("nginx", &mut command, &folder.join("nginx.out"))?;
        for port in ports {
            wait_for_port(port, Duration::from_secs(10))
                .with_context(|| std::fs::read_to_string(folder.join("nginx.out")).unwrap_or_default())?;
        }
        Ok(Self { process, ports })
    }
}

/// Requests of one client until it is over; how many were answered.
fn ask(port: u16, is_over: &AtomicBool, answered: &AtomicI64) -> Result<()> {
    while !is_over.load(Relaxed) {
        let mut connection = TcpStream::connect(("127.0.0.1", port))?;
        for _ in 0..20 {
            connection.write_all(b"GET / HTTP/1.1\r\nHost: till\r\n\r\n")?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"ok") {
                let mut byte = [0; 256];
                let count = connection.read(&mut byte)?;
                ensure!(count > 0, "nginx closed the connection");
                answer.extend_from_slice(&byte[..count]);
            }
            answered.fetch_add(1, Relaxed);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[test]
fn every_request_of_a_live_nginx_counts_once_while_its_logs_are_rotated_and_the_agent_is_killed() -> Result<()> {
    let mut world = World::start()?;
    let settings = world.agent.settings().to_owned();
    let place = settings.parent().context("a folder")?;
    let logs = place.join("nginx");
    let mut nginx = Nginx::start(&logs)?;
    let before = std::fs::read_to_string(&settings)?;
    let (rest, _source) = before.split_once("file = ").context("a source")?;
    let pattern = logs.join("*.access.log").display().to_string();
    std::fs::write(&settings, format!("{rest}file = \"{pattern}*\"\n"))?;
    world.agent.restart()?;
    let pid = logs.join("nginx.pid").display().to_string();
    let reopen = format!("  sharedscripts\n  postrotate\n    kill -USR1 $(cat {pid}); sleep 0.3\n  endscript");
    let (is_over, answered) = (AtomicBool::new(false), AtomicI64::new(0));
    std::thread::scope(|scope| -> Result<()> {
        let clients: Vec<_> = nginx
            .ports
            .iter()
            .map(|port| scope.spawn(|| ask(*port, &is_over, &answered)))
            .collect();
        // Earlier parts of a log that was never read are left alone.
        wait_until("the agent reads", PATIENCE, || {
            Ok(world.central.received()?.transactions > 0)
        })?;
        let rotated = (0..6).try_for_each(|round| {
            std::thread::sleep(Duration::from_millis(1_200));
            let how = if round % 2 == 0 {
                "compress\n  create"
            } else {
                "compress\n  delaycompress\n  nocreate"
            };
            rotate(place, &pattern, &format!("  {how}\n{reopen}"))?;
            if round == 3 {
                world.agent.restart()?;
            }
            world.check()
        });
        is_over.store(true, Relaxed);
        for client in clients {
            client.join().unwrap_or_else(|_panicked| bail!("a client ended"))?;
        }
        rotated
    })?;
    nginx.process.check()?;
    let sold = answered.load(Relaxed);
    let arrived = wait_until("central has every request", PATIENCE, || {
        let received = world.central.received()?;
        ensure!(
            received.transactions <= sold,
            "{received:?} of {sold}: something counts twice"
        );
        Ok(received.transactions == sold)
    });
    arrived.with_context(|| format!("{:?} of {sold}\n{}", world.central.received(), world.agent.log_end()))?;
    ensure!(sold > 500, "{sold}");
    nginx.process.stop(Duration::from_secs(10))
}
