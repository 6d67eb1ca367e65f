//! `hardtack completions`.

use super::{Cli, Context, Failure};
use clap::CommandFactory;
use clap_complete::Shell;

/// Arguments of `hardtack completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hardtack completions bash > ~/.local/share/bash-completion/completions/hardtack
  hardtack completions fish > ~/.config/fish/completions/hardtack.fish")]
pub struct Args {
    /// The shell that shall complete
    shell: Shell,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "hardtack", &mut script);
    context.render.bytes(&script)
}
