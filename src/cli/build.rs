//! `hardtack build`: from a profile to an image.

use super::render::Style;
use super::workspace::{Named, Network, Workspace, write_lock};
use super::{Context, Failure};
use crate::pipeline::Release;
use crate::profile::Board;
use crate::units::Bytes;
use clap::builder::PossibleValuesParser;
use std::path::PathBuf;

/// Arguments of `hardtack build`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hardtack build minimal
  hardtack build files dns -o images
  hardtack build ./office.toml --locked --offline")]
pub struct Args {
    /// Shipped profiles' names, or paths of `.toml` files
    #[arg(value_name = "PROFILE", required = true)]
    profiles: Vec<String>,
    /// Where images go
    #[arg(short, long, value_name = "DIR", default_value = "out")]
    output: PathBuf,
    #[command(flatten)]
    network: Network,
    /// Refuse to make or change a lock, and say what differs
    #[arg(long)]
    locked: bool,
    /// Build for this board instead of the profile's own; may be given several times
    #[arg(long = "board", value_name = "BOARD", value_parser = PossibleValuesParser::new(Board::WORDS.map(|(word, _)| word)))]
    boards: Vec<String>,
    /// Emulate every program, even where this machine has the same one itself; slow, and the result is the same
    #[arg(long)]
    no_twins: bool,
    /// Print what was built as JSON: the manifest of each image
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<(), Failure> {
    let boards: Vec<Board> = Board::WORDS
        .iter()
        .filter(|(word, _)| args.boards.iter().any(|board| board == word))
        .map(|(_, board)| *board)
        .collect();
    // Everything that can be wrong with what was typed is said before the first byte is fetched.
    let named = args
        .profiles
        .iter()
        .map(|reference| Named::load(reference, &boards, &args.network, &args.output))
        .collect::<Result<Vec<_>, _>>()?;
    std::fs::create_dir_all(&args.output).map_err(|error| {
        Failure::input(format!("cannot make the directory `{}`: {error}", args.output.display()))
    })?;
    let workspace = Workspace::open(context, &args.network, !args.no_twins)?;
    let mut manifests = Vec::new();
    for named in &named {
        let lock = match named.read_lock()? {
            Some(lock) => {
                let differences = lock.satisfies(&named.request);
                if !differences.is_empty() {
                    let list = differences.join("\n  - ");
                    let message = format!(
                        "the lock `{}` is not for this profile any more:\n  - {list}",
                        named.lock_path.display()
                    );
                    return Err(Failure::input(message)
                        .hint(format!("renew it: `hardtack lock {} --update`", named.profile.name)));
                }
                lock
            }
            None if args.locked => {
                let message = format!(
                    "there is no lock `{}`, and --locked forbids to make one",
                    named.lock_path.display()
                );
                return Err(Failure::input(message).hint("make it with `hardtack lock`, and commit it"));
            }
            None => {
                let lock = workspace.lock(named)?;
                write_lock(&named.lock_path, &lock)?;
                lock
            }
        };
        let release = workspace.build(named, &lock, &args.output)?;
        if args.json {
            manifests.push(release.manifest);
        } else {
            summary(&release, named, context)?;
        }
    }
    if args.json { context.render.json(&manifests) } else { Ok(()) }
}

/// What one wants to know at the end: where, how large, which, what is open, how long, and what next.
fn summary(release: &Release, named: &Named, context: &mut Context) -> Result<(), Failure> {
    let manifest = &release.manifest;
    let render = &mut context.render;
    let path = release.image.display();
    let ports: Vec<String> = manifest
        .ports
        .iter()
        .map(|port| format!("{}/{} ({}, {})", port.port, port.protocol, port.name, port.scope))
        .collect();
    let times: Vec<String> = release
        .times
        .iter()
        .map(|(stage, time)| format!("{} {:.1} s", stage.word(), time.as_secs_f32()))
        .collect();
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    if let Some(image) = &manifest.image {
        row("size", format!("{} ({} on disk)", Bytes(image.size), Bytes(image.allocated)));
        row("sha256", image.sha256.to_string());
    }
    row("lock", named.lock_path.display().to_string());
    row("packages", manifest.packages.len().to_string());
    row("open ports", if ports.is_empty() { "none".into() } else { ports.join(", ") });
    row("time", times.join(", "));
    row(
        "next",
        format!(
            "look into it: `hardtack show {}`; flash it: `sudo dd if={path} of=/dev/sdX bs=4M conv=fsync`",
            manifest.profile
        ),
    );
    render.heading(&path.to_string())?;
    render.table(2, &[Some(Style::Name), None], &rows)
}
