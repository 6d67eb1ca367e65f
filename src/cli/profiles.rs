//! `hardtack profiles`.

use super::render::Style;
use super::{Context, Failure};
use crate::profile::{Port, Profile, shipped};
use serde_json::json;

/// Arguments of `hardtack profiles`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hardtack profiles
  hardtack profiles --json")]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<(), Failure> {
    let profiles: Result<Vec<Profile>, _> =
        shipped::PROFILES.iter().map(|profile| Profile::load(profile.name)).collect();
    let profiles = profiles?;
    if args.json {
        let list: Vec<_> = profiles
            .iter()
            .map(|profile| {
                json!({
                    "name": profile.name,
                    "description": profile.description,
                    "chain": profile.layers.iter().map(|layer| layer.name.as_str()).collect::<Vec<_>>(),
                    "ports": profile.ports.iter().map(Port::to_string).collect::<Vec<_>>(),
                })
            })
            .collect();
        return context.render.json(&list);
    }
    let rows: Vec<Vec<String>> = profiles
        .iter()
        .map(|profile| vec![profile.name.clone(), open(profile), profile.description.clone()])
        .collect();
    context.render.table(0, &[Some(Style::Name), Some(Style::Dim), None], &rows)
}

fn open(profile: &Profile) -> String {
    let ports: Vec<String> = profile
        .ports
        .iter()
        .map(|port| format!("{}/{} {}", port.range(), port.protocol.word(), port.scope.word()))
        .collect();
    match ports.is_empty() {
        true => "opens nothing".into(),
        false => format!("opens {}", ports.join(", ")),
    }
}
