//! `tillwatch init`: a commented agent.toml for this host, with the blocks of the installed plugins ready to uncomment.
//!
//! It never overwrites a file, and what it writes passes `check` once the certificates are there.

use std::fmt::Write;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::config::found::installed;
use crate::config::{PLUGIN_DIR, STATE_DIR};
use crate::output;

/// What differs from the defaults.
#[derive(Debug, Args)]
pub struct Init {
    /// The file to write.
    #[arg(long, default_value = "/etc/tillwatch/agent.toml", value_name = "FILE")]
    config: PathBuf,
    /// The site's name: a-z, 0-9 and -; by default this host's name.
    #[arg(long)]
    site: Option<String>,
    /// The broker, such as mqtts://central.example.com:8883.
    #[arg(long, default_value = "mqtts://central.example.com:8883", value_name = "URL")]
    broker: String,
    /// Where plugins are installed.
    #[arg(long, default_value = PLUGIN_DIR, value_name = "FOLDER")]
    plugin_dir: PathBuf,
}

/// Writes the file.
///
/// # Errors
/// When it exists already or cannot be written.
pub fn run(init: &Init) -> Result<()> {
    let site = init
        .site
        .clone()
        .unwrap_or_else(|| site_name(&sysinfo::System::host_name().unwrap_or_default()));
    let zone = jiff::tz::TimeZone::system();
    // Relative paths in the file begin at its own folder, those typed here at the current one.
    let plugin_dir = std::path::absolute(&init.plugin_dir)?;
    let text = text(&site, zone.iana_name().unwrap_or("UTC"), &init.broker, &plugin_dir);
    write_new(&init.config, &text)?;
    let path = init.config.display();
    output::line(&format!(
        "wrote {path}\nnext: put the certificates in place, uncomment the plugins, then `tillwatch check --config {path}`"
    ))?;
    Ok(())
}

fn write_new(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let file = std::fs::File::options().write(true).create_new(true).open(path);
    let mut file =
        file.with_context(|| format!("writing {} (an existing file is never overwritten)", path.display()))?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("writing {}", path.display()))
}

/// A host's name as a site's.
fn site_name(host: &str) -> String {
    let letters = host
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(64)
        .collect::<String>();
    let name = letters.trim_matches('-');
    if name.is_empty() {
        "store-0001".to_owned()
    } else {
        name.to_owned()
    }
}

fn text(site: &str, zone: &str, broker: &str, plugin_dir: &Path) -> String {
    let mut text = format!(
        r#"# Tillwatch agent of one site. `tillwatch check` says everything that is wrong here, and what to do.
# Paths that are not absolute begin at this file's folder.

site = "{site}"                      # a-z, 0-9 and -; also the certificate's common name
time_zone = "{zone}"                 # of the site: its days and weeks
state_dir = "{STATE_DIR}"            # spool and compiled plugins
plugin_dir = "{plugins}"
# window = "10s"                     # scored at the edge
# summary = "60s"                    # sent to central; a multiple of window

[broker]
url = "{broker}"                     # mqtt:// without TLS is for this machine only
ca = "/etc/tillwatch/ca.pem"
certificate = "/etc/tillwatch/certificate.pem"
key = "/etc/tillwatch/key.pem"
# shard = "a"                        # routing label, given by central
# archives = ["main"]                # nothing is deleted here before all of them have it
# delivery = "archives"              # "broker" deletes what the broker took, and can lose it

# [spool]                            # what waits for central
# bytes_max = "64MiB"
# age_max = "14d"

# [calendar]                         # what the store's days are; see docs/OPERATIONS.md
# open = ["mon-fri 07:00-21:00", "sat 08:00-22:00"]
# closed = ["2026-12-25"]
# like_sunday = ["2026-10-03"]
# special_hours = ["2026-12-24 07:00-14:00"]
# promotions = ["2026-11-27..2026-11-30"]

# [trust]                            # only plugins run that these keys signed; see docs/SECURITY.md
# root = "/etc/tillwatch/root.pub"
# keys = "/etc/tillwatch/keys.toml"

# [system]                           # the host's own CPU, memory, disks and network
# enabled = true
# interval = "10s"
"#,
        plugins = plugin_dir.display()
    );
    for name in installed(plugin_dir) {
        text.push_str(&plugin_block(plugin_dir, &name));
    }
    text
}

/// The plugin's own sample, commented out.
fn plugin_block(plugin_dir: &Path, name: &str) -> String {
    let sample = std::fs::read_to_string(plugin_dir.join(name).join("sample.toml"))
        .unwrap_or_else(|_no_sample| format!("[[plugin]]\nname = \"{name}\"\nuse = \"{name}\"\n"));
    let mut block = String::from("\n");
    for line in sample.lines() {
        let comment = if line.is_empty() {
            writeln!(block, "#")
        } else {
            writeln!(block, "# {line}")
        };
        comment.expect("writing to a string cannot fail");
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::tests::write_identity;

    #[test]
    fn what_is_written_is_complete_but_for_the_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let plugin = folder.path().join("sales");
        std::fs::create_dir(&plugin).unwrap();
        std::fs::write(plugin.join("plugin.toml"), "").unwrap();
        std::fs::write(plugin.join("sample.toml"), "[[plugin]]\n\nname = \"sales\"\n").unwrap();
        let text = text(
            "store-1",
            "Europe/Berlin",
            "mqtts://central.example.com:8883",
            folder.path(),
        );
        assert!(text.ends_with("\n# [[plugin]]\n#\n# name = \"sales\"\n"), "{text}");
        let load = |text: &str| {
            let path = folder.path().join("agent.toml");
            std::fs::write(&path, text).unwrap();
            Config::load(&path)
        };
        let problems = load(&text).unwrap_err();
        let files: Vec<&str> = problems.0.iter().map(|problem| problem.what.as_str()).collect();
        assert_eq!(files.len(), 3, "{problems}");
        assert!(files.iter().all(|what| what.contains("cannot be read")), "{problems}");
        write_identity(folder.path());
        let text = text.replace("/etc/tillwatch/", "");
        load(&text).unwrap();
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/agent.toml");
        write_new(&path, "one").unwrap();
        write_new(&path, "two").unwrap_err();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
    }

    #[test]
    fn any_host_name_becomes_a_site_name() {
        for (host, site) in [
            ("POS-17.shop", "pos-17-shop"),
            ("", "store-0001"),
            ("-x_", "x"),
            ("ß", "store-0001"),
        ] {
            assert_eq!(site_name(host), site, "{host}");
        }
    }
}
