//! `cargo xtask`: the same commands for a laptop and for CI.
//!
//! Each command finds what it needs, installs it where it can, and otherwise names the exact command to type.
//! Nothing here is part of the product.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command of the repository talks to the terminal"
)]

mod command;
mod tools;
mod plugins;
mod test;
mod tidy;
mod docs;
mod examples;
mod dist;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The commands of this repository")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch a slow minor service become a priced incident (add --headless --json for one JSON object)
    #[command(disable_help_flag = true)]
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run everything that CI runs
    Test,
    /// Build the agent, what compiles and runs plugins, and the shipped plugins, into target/
    Plugins,
    /// Run one benchmark: access, delivery, footprint, intake, links, parsers, reconnect, sandbox, scoring, spool, till
    #[command(disable_help_flag = true)]
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Kill, cut off and starve real agents, brokers and centrals, and check what each wrote
    #[command(disable_help_flag = true)]
    Torture {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Write the .deb to target/dist/
    Dist {
        /// Databases that the agent can ask, instead of all: sqlite, postgres, mysql, or none
        #[arg(long, value_name = "NAMES", value_delimiter = ',')]
        databases: Option<Vec<String>>,
    },
    /// Rewrite the tables of the plugins' READMEs from plugin.toml
    Docs,
    /// Check the directions between the crates and the other rules of the house
    Tidy,
}

fn main() -> Result<()> {
    let root = root();
    std::env::set_current_dir(&root)?;
    match Arguments::parse().command {
        Command::Demo { arguments } => {
            tools::time_zones()?;
            command::build_programs(&root, command::Profile::Dev)?;
            plugins::build(&root)?;
            command::run_program(&root, command::Profile::Dev, "tillwatch-demo", &arguments)
        }
        Command::Test => test::run(&root),
        Command::Plugins => {
            eprintln!("building tillwatch, and what runs plugins");
            command::build_agent(&root, command::Profile::Dev)?;
            eprintln!("building what compiles plugins");
            command::build_compiler(&root, command::Profile::Dev)?;
            let programs = command::target(&root).join(command::Profile::Dev.folder());
            eprintln!("the three programs are there: export PATH={}:$PATH", programs.display());
            eprintln!("building the shipped plugins");
            for plugin in plugins::build(&root)? {
                println!("{}", plugin.display());
            }
            Ok(())
        }
        Command::Bench { arguments } => run_released(&root, "tillwatch-bench", &arguments),
        Command::Torture { arguments } => run_released(&root, "tillwatch-torture", &arguments),
        Command::Dist { databases } => {
            println!("{}", dist::deb(&root, databases.as_deref())?.display());
            Ok(())
        }
        Command::Docs => docs::write(&root),
        Command::Tidy => tidy::run(&root),
    }
}

/// Builds everything as it is shipped, and runs one of the programs around it.
fn run_released(root: &Path, name: &str, arguments: &[String]) -> Result<()> {
    tools::program("mosquitto", "mosquitto")?;
    command::build_programs(root, command::Profile::Release)?;
    plugins::build(root)?;
    command::run_program(root, command::Profile::Release, name, arguments)
}

/// The checkout, wherever the command was typed.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .map_or_else(|| here.to_path_buf(), Path::to_path_buf)
}
