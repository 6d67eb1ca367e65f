//! `hardtack man`.

use super::{Cli, Context, Failure};
use crate::profile::did_you_mean;
use clap::CommandFactory;

/// Arguments of `hardtack man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hardtack man > hardtack.1
  hardtack man show | man -l -")]
pub struct Args {
    /// The command to describe; without one, hardtack itself
    command: Option<String>,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<(), Failure> {
    let mut root = Cli::command();
    // Fills in what commands inherit, such as the global options.
    root.build();
    let command = match &args.command {
        None => root,
        Some(name) => match root.find_subcommand(name) {
            Some(command) => command.clone(),
            None => {
                let names: Vec<&str> = root.get_subcommands().map(clap::Command::get_name).collect();
                let failure = Failure::input(format!("there is no command `{}`", name.escape_debug()));
                let hint = did_you_mean(name, names.iter().copied());
                return Err(failure.hint(hint.unwrap_or_else(|| format!("there are {}", names.join(", ")))));
            }
        },
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).map_err(Failure::ours)?;
    context.render.bytes(&page)
}
