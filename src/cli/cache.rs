//! `hardtack cache`: what is kept between builds.

use super::workspace::failure;
use super::{Context, Failure};
use crate::store::{Prune, Store};
use crate::units::Bytes;
use serde_json::json;

/// Arguments of `hardtack cache`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hardtack cache dir
  hardtack cache size
  hardtack cache prune")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Print where it is
    #[command(after_help = "Example:\n  du -sh \"$(hardtack cache dir)\"")]
    Dir,
    /// Print how much it holds
    #[command(after_help = "Example:\n  hardtack cache size --json")]
    Size {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Empty it; the next build fetches and configures everything again
    #[command(after_help = "Example:\n  hardtack cache prune")]
    Prune,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<(), Failure> {
    let directory = context.environment.cache.clone().ok_or_else(|| {
        Failure::input("no place for the cache: neither XDG_CACHE_HOME nor HOME is set")
            .hint("set XDG_CACHE_HOME")
    })?;
    if let Action::Dir = args.action {
        return context.render.line(directory.display().to_string());
    }
    let store = Store::open(&directory).map_err(|error| failure(error.into()))?;
    match args.action {
        Action::Dir => Ok(()),
        Action::Size { json } => {
            let sizes = store.size().map_err(|error| failure(error.into()))?;
            if json {
                return context.render.json(&json!({
                    "objects": sizes.objects,
                    "partial": sizes.partial,
                    "layers": sizes.layers,
                    "temporary": sizes.temporary,
                    "total": sizes.total(),
                }));
            }
            let row = |name: &str, bytes: u64| vec![name.to_owned(), Bytes(bytes).to_string()];
            let rows = [
                row("packages and indexes", sizes.objects),
                row("unfinished downloads", sizes.partial),
                row("configured layers", sizes.layers),
                row("temporary", sizes.temporary),
                row("all", sizes.total()),
            ];
            context.render.table(0, &[None, None], &rows)
        }
        Action::Prune => {
            let pruned = store.prune(Prune::Everything).map_err(|error| failure(error.into()))?;
            context.render.line(format!("{} files, {} freed", pruned.files, Bytes(pruned.bytes)))
        }
    }
}
