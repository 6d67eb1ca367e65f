//! `hardtack lock`: writes down, renews or checks what a profile is built from.

use super::workspace::{Named, Network, Workspace, write_lock};
use super::{Context, Failure};
use crate::plan::Lock;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Arguments of `hardtack lock`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hardtack lock ./office.toml             make office.lock, unless it is there
  hardtack lock ./office.toml --update    take what the archive has today
  hardtack lock ./office.toml --check     compare it with the profile, without network")]
pub struct Args {
    /// A shipped profile's name, or the path of a `.toml`
    #[arg(value_name = "PROFILE")]
    profile: String,
    /// Where the lock of a shipped profile goes; one's own has it beside the profile
    #[arg(short, long, value_name = "DIR", default_value = "out")]
    output: PathBuf,
    /// Make it anew from what the archives have now
    #[arg(long, conflicts_with = "check")]
    update: bool,
    /// Only compare it with the profile; exit code 1 when it does not fit
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    network: Network,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<(), Failure> {
    let named = Named::load(&args.profile, &[], &args.network, &args.output)?;
    let shown = named.lock_path.display().to_string();
    let old = named.read_lock();
    if args.check {
        let Some(lock) = old? else {
            return Err(
                Failure::input(format!("there is no lock `{shown}`")).hint("make it with `hardtack lock`")
            );
        };
        let differences = lock.satisfies(&named.request);
        if differences.is_empty() {
            return context
                .render
                .line(format!("{shown}: fits the profile, {} packages", lock.packages().count()));
        }
        for difference in &differences {
            context.render.line(format!("{shown}: {difference}"))?;
        }
        return Err(Failure::finding());
    }
    // A lock that cannot be read may be made anew, not silently kept.
    let old = if args.update { old.ok().flatten() } else { old? };
    if let Some(lock) = &old
        && !args.update
        && lock.satisfies(&named.request).is_empty()
    {
        return context.render.line(format!("{shown}: is there and fits; `--update` renews it"));
    }
    if let Some(directory) = named.lock_path.parent().filter(|path| !path.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory).map_err(|error| {
            Failure::input(format!("cannot make the directory `{}`: {error}", directory.display()))
        })?;
    }
    let workspace = Workspace::open(context, &args.network, true)?;
    let lock = workspace.lock(&named)?;
    write_lock(&named.lock_path, &lock)?;
    for change in changes(old.as_ref(), &lock) {
        context.render.line(change)?;
    }
    let size: u64 = lock.packages().map(|package| package.size).sum();
    let size = crate::units::Bytes(size);
    context.render.line(format!("{shown}: {} packages, {size}", lock.packages().count()))
}

/// What a renewed lock changes, a line each.
fn changes(old: Option<&Lock>, new: &Lock) -> Vec<String> {
    let Some(old) = old else { return Vec::new() };
    let versions = |lock: &Lock| -> BTreeMap<String, String> {
        lock.packages().map(|package| (package.name.clone(), package.version.clone())).collect()
    };
    let (before, after) = (versions(old), versions(new));
    let mut lines = Vec::new();
    for (name, version) in &after {
        match before.get(name) {
            None => lines.push(format!("+ {name} {version}")),
            Some(old) if old != version => lines.push(format!("  {name} {old} → {version}")),
            Some(_) => {}
        }
    }
    lines.extend(
        before
            .iter()
            .filter(|(name, _)| !after.contains_key(*name))
            .map(|(name, old)| format!("- {name} {old}")),
    );
    lines
}
