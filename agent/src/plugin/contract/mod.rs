//! Whether a plugin keeps the contract, whatever its input: after the cases of `tillwatch plugin test`.
//!
//! In: a plugin and its test cases. Out: a line for each check, and what to do when it fails.
//! A case whose collecting ends without an error gives settings and input; what must come out is what came out of it.

mod echo;
mod play;
mod promises;
mod sources;
mod times;

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::golden::host::CaseHost;
use super::golden::{file_name, read_settings};
use super::open_label;
use super::outside::Outside;
use crate::output;
use play::{Manner, Played};

/// Breaches of one check that are shown.
const BREACHES_MAX: usize = 10;

/// One thing that every plugin must do.
struct Check {
    name: &'static str,
    /// What to do when it fails.
    remedy: &'static str,
    breaches: fn(&Outside, &Case) -> Result<Vec<String>>,
}

const CHECKS: &[Check] = &[
    Check {
        name: "description",
        remedy: "describe must give what plugin.toml says, the same at each call; settings may change a currency and its decimals only",
        breaches: promises::description,
    },
    Check {
        name: "bad settings",
        remedy: "refuse them with Error::config in Collector::new: #[serde(deny_unknown_fields)] and typed fields do it",
        breaches: promises::bad_settings,
    },
    Check {
        name: "registry and guard",
        remedy: "report only what plugin.toml declares: labels that match their pattern, whole numbers as money",
        breaches: promises::admission,
    },
    Check {
        name: "labels",
        remedy: open_label::REMEDY,
        breaches: labels,
    },
    Check {
        name: "echo",
        remedy: "log kinds and counts, as parse::Problems does: what foreign programs wrote may name a customer",
        breaches: echo::echo,
    },
    Check {
        name: "no data",
        remedy: "report nothing when there is nothing to read; for a missing source the agent itself reports source.up",
        breaches: sources::no_data,
    },
    Check {
        name: "peers that are down",
        remedy: "go on without an answer: report that the peer is down, or return the failure as it is, which is transient",
        breaches: sources::peers_down,
    },
    Check {
        name: "slow source",
        remedy: "set batch.more = lines.more, and count only in the batch and the state",
        breaches: sources::slow_source,
    },
    Check {
        name: "huge input",
        remedy: "read a bounded amount in each call, such as 256 KiB, and set batch.more while there is more",
        breaches: sources::huge_input,
    },
    Check {
        name: "clock jumps",
        remedy: "the clock may go forward and back: subtract times with saturating_sub, and take events' own times",
        breaches: times::clock_jumps,
    },
    Check {
        name: "restart with old state",
        remedy: "keep what must survive with host.set_state, and begin anew with a warning when it cannot be read",
        breaches: times::restart,
    },
];

/// A warning and no breach for what may be right.
fn labels(plugin: &Outside, case: &Case) -> Result<Vec<String>> {
    let cautions = open_label::cautions(&plugin.manifest);
    for caution in cautions.iter().filter(|_caution| case.is_first) {
        output::line(&format!("warning contract: labels: {caution}"))?;
    }
    Ok(open_label::faults(&plugin.manifest))
}

/// A test case that collects without an error.
struct Case {
    name: String,
    folder: PathBuf,
    settings: String,
    /// What does not depend on the case is tried with this one only.
    is_first: bool,
    /// What comes out of it, undisturbed.
    plain: Played,
}

impl Case {
    fn host(&self, plugin: &Outside) -> Result<CaseHost> {
        CaseHost::read(&self.folder, &plugin.manifest.sources)
    }
}

/// Prints how each check came out; false when one failed.
///
/// # Errors
/// When a case cannot be read.
pub(super) fn check(plugin: &Outside, folders: &[PathBuf]) -> Result<bool> {
    let cases = good_cases(plugin, folders)?;
    if cases.is_empty() {
        output::line(
            "FAILED  contract: no case collects without an error\n  to do: add one, whose input the checks can use",
        )?;
        return Ok(false);
    }
    let mut kept = 0;
    for check in CHECKS {
        let breaches = breaches(check, plugin, &cases)?;
        if breaches.is_empty() {
            kept += 1;
            output::line(&format!("ok      contract: {}", check.name))?;
        } else {
            let told = breaches.join("\n  ");
            output::line(&format!(
                "FAILED  contract: {}\n  {told}\n  to do: {}",
                check.name, check.remedy
            ))?;
        }
    }
    output::line(&format!("{kept} of {} checks of the contract passed", CHECKS.len()))?;
    Ok(kept == CHECKS.len())
}

/// Those that the plugin does not end with an error; what traps in a case has failed there already.
fn good_cases(plugin: &Outside, folders: &[PathBuf]) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for folder in folders {
        // What cannot be read has failed there already, too.
        let Ok(host) = CaseHost::read(folder, &plugin.manifest.sources) else {
            continue;
        };
        let settings = read_settings(folder, &plugin.manifest)?;
        let played = play::play(plugin, &settings, &host, &Manner::default());
        if let Ok(plain) = played.map(|played| played.collected)
            && plain.error.is_none()
        {
            cases.push(Case {
                name: file_name(folder),
                is_first: cases.is_empty(),
                folder: folder.clone(),
                settings,
                plain,
            });
        }
    }
    Ok(cases)
}

fn breaches(check: &Check, plugin: &Outside, cases: &[Case]) -> Result<Vec<String>> {
    let mut told = Vec::new();
    for case in cases {
        let found = (check.breaches)(plugin, case).with_context(|| format!("case {}", case.name))?;
        told.extend(found.into_iter().map(|breach| format!("case {}: {breach}", case.name)));
    }
    told.truncate(BREACHES_MAX);
    Ok(told)
}
