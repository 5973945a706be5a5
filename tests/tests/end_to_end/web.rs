//! A real nginx and a real Apache that write several formats at once: each log says what was asked.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tillwatch_tests::process::{Process, free_port, wait_for_port};

use super::queues::{PATIENCE, Watch, sum};

const TIMED: &str = r#"log_format timed '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" rt=$request_time';"#;
const OWN: &str = r#"log_format own '$msec|$request_method|$uri|$status|$request_time|"$http_user_agent"';"#;
const JSON: &str = r#"log_format lines escape=json '{"at":"$time_iso8601","path":"$request_uri","status":$status,"rt":$request_time,"agent":"$http_user_agent"}';"#;
const APACHE: &str = r#"LogFormat "%v:%p %h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\" %D %X" store"#;
const ROUTES: &str =
    "routes = [{ prefix = \"/api/loyalty/\", route = \"/loyalty\" }, { exact = \"/pay\", route = \"/pay\" }]";

/// A log, how the plugin is told of it, and whether its lines hold durations.
type Log = (&'static str, String, bool);

/// How often each route is asked: `/api/loyalty/…` (200), `/pay` (503), others (404).
const ASKED: [(&str, &str, u32); 3] = [
    ("/api/loyalty/points?card=1", "/loyalty", 23),
    ("/pay", "/pay", 7),
    ("/etc/x y", "_other", 5),
];

fn nginx(place: &Path, port: u16) -> Result<Process> {
    let at = place.display();
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {at}/{name};"));
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let logs =
        ["combined", "timed", "own", "lines"].map(|format| format!("access_log {at}/nginx-{format}.log {format};"));
    let settings = format!(
        "{user} daemon off; pid {at}/nginx.pid; error_log {at}/error.log; events {{}}\nhttp {{ {}\n{TIMED}\n{OWN}\n{JSON}\n\
         server {{ listen 127.0.0.1:{port}; {} location /api/loyalty/ {{ return 200 ok; }} location = /pay {{ return 503; }} \
         location / {{ return 404; }} }} }}\n",
        temporary.join(" "),
        logs.join(" "),
    );
    std::fs::write(place.join("nginx.conf"), settings)?;
    let mut command = Command::new("/usr/sbin/nginx");
    command
        .arg("-e")
        .arg(place.join("error.log"))
        .arg("-c")
        .arg(place.join("nginx.conf"));
    Process::start("nginx", &mut command, &place.join("nginx.out"))
}

fn apache(place: &Path, port: u16) -> Result<Process> {
    let at = place.display();
    let modules: String = ["mpm_event", "authz_core", "alias"]
        .iter()
        .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
        .collect();
    let loyalty = place.join("htdocs/api/loyalty");
    std::fs::create_dir_all(&loyalty)?;
    std::fs::write(loyalty.join("points"), "ok")?;
    let user = if rustix::process::geteuid().is_root() {
        "User nobody\nGroup nogroup\n"
    } else {
        ""
    };
    let settings = format!(
        "ServerRoot {at}\nServerName till\nListen 127.0.0.1:{port}\nPidFile {at}/apache.pid\nDefaultRuntimeDir {at}\n{user}{modules}\
         DocumentRoot {at}/htdocs\n<Directory {at}/htdocs>\nRequire all granted\n</Directory>\nRedirect 503 /pay\nErrorLog {at}/apache-error.log\n\
         {APACHE}\nLogFormat \"%h %l %u %t \\\"%r\\\" %>s %b\" common\n\
         CustomLog {at}/apache-store.log store\nCustomLog {at}/apache-common.log common\n"
    );
    std::fs::write(place.join("apache.conf"), settings)?;
    let mut command = Command::new("/usr/sbin/apache2");
    command.args(["-D", "FOREGROUND", "-f"]).arg(place.join("apache.conf"));
    Process::start("apache2", &mut command, &place.join("apache.out"))
}

fn ask(port: u16, path: &str) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let path = path.replace(' ', "%20");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: till\r\nuser-agent: till \"7\"\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 "), "{path}: {answer}");
    Ok(())
}

#[test]
fn every_request_to_a_real_nginx_and_apache_counts_in_each_of_their_formats() -> Result<()> {
    let place = tempfile::tempdir()?;
    // Apache gives up its rights, and serves from here.
    std::fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let ports = [free_port()?, free_port()?];
    let mut servers = [nginx(place.path(), ports[0])?, apache(place.path(), ports[1])?];
    for (port, server) in ports.iter().zip(&mut servers) {
        wait_for_port(*port, Duration::from_secs(20)).with_context(|| server.log_end())?;
    }
    let pasted = |format: &str, text: &str| format!("format = {format:?}\nlog_format = '''{text}'''");
    let logs: [Log; 6] = [
        ("nginx-combined", "format = \"combined\"".to_owned(), false),
        ("nginx-timed", "format = \"timed\"".to_owned(), true),
        ("nginx-own", pasted("nginx", OWN), true),
        (
            "nginx-lines",
            "format = \"json\"\nfield_time = \"at\"\nfield_route = \"path\"\nfield_status = \"status\"\nfield_latency = \"rt\"".to_owned(),
            true,
        ),
        ("apache-store", pasted("apache", APACHE), true),
        ("apache-common", "format = \"combined\"".to_owned(), false),
    ];
    let mut watches = Vec::new();
    for (name, settings, _is_timed) in &logs {
        let source = format!(
            "[plugin.sources.access_log]\nfile = {:?}",
            place.path().join(format!("{name}.log"))
        );
        watches.push(Watch::start_plugin(
            "pos-latency",
            place.path(),
            name,
            &source,
            &format!("{settings}\n{ROUTES}"),
        )?);
    }
    for port in ports {
        for (path, _route, count) in ASKED {
            (0..count).try_for_each(|_| ask(port, path))?;
        }
    }
    for ((name, _settings, is_timed), watch) in logs.iter().zip(&mut watches) {
        let metric = if *is_timed {
            "http.server.request.duration"
        } else {
            "http.server.requests"
        };
        for (_path, route, expected) in ASKED {
            let counted = |values: &[(String, String, f64)]| match is_timed {
                true => values
                    .iter()
                    .filter(|(of, at, _value)| of == metric && at == route)
                    .count() as f64,
                false => sum(values, metric, route),
            };
            let waited = watch.wait(&format!("{metric} of {route} in {name} is {expected}"), |values| {
                (counted(values) - f64::from(expected)).abs() < 1e-9
            });
            waited.with_context(|| {
                format!(
                    "{:?}",
                    std::fs::read_to_string(place.path().join(format!("{name}.log")))
                )
            })?;
        }
        let values = watch.values()?;
        let errors = ["/loyalty", "/pay", "_other"].map(|route| sum(&values, "http.server.errors", route));
        ensure!(
            errors
                .iter()
                .zip([0.0, 7.0, 0.0])
                .all(|(is, should)| (is - should).abs() < 1e-9),
            "{name}: {errors:?}"
        );
        let wrong = sum(&values, "source.parse_errors", "");
        ensure!(wrong.abs() < 1e-9, "{name}: {wrong} lines, {}", watch.warnings()?);
    }
    Ok(())
}
