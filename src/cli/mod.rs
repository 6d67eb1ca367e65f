//! The command line: what was typed becomes a request, one library call answers it, [`render`] shows the answer.
//!
//! stdout is data, stderr is talk. Exit codes: 0 done; 1 the user's input, or a finding; 2 ours. A reader that goes away
//! (`hardtack show files | head`) is no failure.
//!
//! A new command is a file with `Args` and `run`, a line in [`Command`] and a line in `dispatch`.

mod build;
mod cache;
mod completions;
mod environment;
mod failure;
mod lock;
mod man;
mod profiles;
mod progress;
pub mod render;
mod show;
mod workspace;

pub use environment::{Environment, Proxies};
pub use failure::{Blame, Failure};

use clap::{Parser, Subcommand, ValueEnum};
use render::Render;
use std::process::ExitCode;

/// Builds hardened, reproducible appliance images for the Raspberry Pi from the Debian archive.
///
/// No root, no loop devices, no Docker: an image is computed from a profile, and the same inputs give the same bytes.
#[derive(Debug, Parser)]
#[command(
    name = "hardtack",
    version,
    max_term_width = 100,
    after_help = "Examples:
  hardtack build minimal        out/minimal.img, ready to be flashed
  hardtack profiles             what comes with hardtack
  hardtack show files           what a profile means, line by line"
)]
pub struct Cli {
    /// Options that every command has.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command has.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// When to use colours; `NO_COLOR` in the environment means never, unless this says otherwise
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: When,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal.
    Auto,
    /// Into files and pipes too.
    Always,
    /// Not at all.
    Never,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build the image of one or more profiles
    Build(build::Args),
    /// Write down, renew or check exactly what a profile is built from
    Lock(lock::Args),
    /// List the profiles that come with hardtack
    Profiles(profiles::Args),
    /// Show everything a profile means, and the line each value comes from
    Show(show::Args),
    /// Look after what is kept between builds
    Cache(cache::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Print a manual page
    Man(man::Args),
}

fn dispatch(command: Command, context: &mut Context) -> Result<(), Failure> {
    match command {
        Command::Build(args) => build::run(&args, context),
        Command::Lock(args) => lock::run(&args, context),
        Command::Cache(args) => cache::run(&args, context),
        Command::Profiles(args) => profiles::run(&args, context),
        Command::Show(args) => show::run(&args, context),
        Command::Completions(args) => completions::run(&args, context),
        Command::Man(args) => man::run(&args, context),
    }
}

/// What a command gets besides its arguments.
pub struct Context {
    /// What the program takes from its environment.
    pub environment: Environment,
    /// Where answers go.
    pub render: Render,
}

/// The whole program: reads the arguments and the environment of the process, and gives its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return Render::usage(&error),
    };
    let environment = match Environment::of_process() {
        Ok(environment) => environment,
        Err(failure) => return Render::new(&cli.global, false).failure(&failure),
    };
    let render = Render::new(&cli.global, environment.no_color);
    let mut context = Context { environment, render };
    match dispatch(cli.command, &mut context).and_then(|()| context.render.finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => context.render.failure(&failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in Cli::command().get_subcommands_mut() {
            let name = command.get_name().to_owned();
            let help = command.render_long_help().to_string();
            assert!(help.contains(&format!("  hardtack {name}")), "`{name} --help` has no example:\n{help}");
        }
    }
}
