//! `hardtack inspect`: what is in an image.

use super::image_path::{self, shown, shown_path};
use super::render::Style;
use super::{Context, Failure};
use crate::format::disk::{PartitionKind, Table};
use crate::format::{gpt, mbr};
use crate::inspect::{Inspected, System, Volume};
use crate::units::SECTOR;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Arguments of `hardtack inspect`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Reads raw images and block devices, from hardtack or not, without root and without mounting them.
Exit code 1 when a filesystem that could be read is damaged.

Examples:
  hardtack inspect out/minimal.img
  hardtack inspect raspios.img --json"
)]
pub struct Args {
    /// An image, unpacked, or a card's block device
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<(), Failure> {
    let image = image_path::opened(&args.image)?;
    // An image without a system, such as a data disk, is described all the same.
    let system = image.system();
    if args.json {
        context.render.json(&describe(&image, system.as_ref().ok()))?;
    } else {
        print(&image, context)?;
        match &system {
            Ok(system) => print_system(system, context)?,
            Err(error) => {
                context.render.line("")?;
                context.render.line(format!("No system: {}", words(error)))?;
            }
        }
    }
    let damaged = |volume: &Volume| volume.contents.as_ref().is_err_and(|reason| reason.is_damage());
    if image.volumes.iter().any(damaged) { Err(Failure::finding()) } else { Ok(()) }
}

/// An error and its causes, safe to show: some of its words may be the image's.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

fn row(name: &str, value: impl Into<String>) -> Vec<String> {
    vec![name.to_owned(), value.into()]
}

const ROWS: [Option<Style>; 2] = [Some(Style::Dim), None];

fn print(image: &Inspected, context: &mut Context) -> Result<(), Failure> {
    let render = &mut context.render;
    render.heading(&image.path.display().to_string())?;
    let mut rows = vec![row("size", format!("{} ({} bytes)", image.disk.size, image.disk.size.0))];
    rows.push(row(
        "table",
        match &image.disk.table {
            Table::None => "none: one filesystem fills the disk".to_owned(),
            Table::Mbr { signature } => format!("MBR {signature:08x}"),
            Table::Gpt { guid, hybrid, damaged } => {
                let hybrid = if *hybrid { ", hybrid" } else { "" };
                let damaged = damaged.map(|which| format!(", {which} damaged")).unwrap_or_default();
                format!("GPT {guid}{hybrid}{damaged}")
            }
        },
    ));
    render.table(2, &ROWS, &rows)?;
    for volume in &image.volumes {
        let partition = &volume.partition;
        render.line("")?;
        render.heading(&match &partition.kind {
            PartitionKind::Whole => "Whole disk".to_owned(),
            _ => format!("Partition {}", partition.number),
        })?;
        let mut rows = Vec::new();
        if partition.kind != PartitionKind::Whole {
            let name = type_name(partition.kind).map(|name| format!(" ({name})")).unwrap_or_default();
            rows.push(row("type", format!("{}{name}", partition.kind)));
            let (first, count) = (partition.start.0 / SECTOR, partition.len.0 / SECTOR);
            rows.push(row(
                "place",
                format!("{} at {}, sectors {first}+{count}", partition.len, partition.start),
            ));
            rows.push(row("PARTUUID", &*partition.partuuid));
        }
        if let Some(name) = partition.name.as_ref().filter(|name| !name.is_empty()) {
            rows.push(row("name", shown(name.as_bytes())));
        }
        if let Some(found) = &partition.filesystem {
            let label =
                if found.label.is_empty() { "no label".into() } else { shown(found.label.as_bytes()) };
            let uuid = if found.uuid.is_empty() { String::new() } else { format!(", UUID {}", found.uuid) };
            rows.push(row("filesystem", format!("{}, {label}{uuid}", found.kind)));
        }
        if let Some(usage) = volume.usage {
            rows.push(row("free", format!("{} of {}", usage.free, usage.size)));
        }
        if let Err(reason) = &volume.contents {
            let title = if reason.is_damage() { "NOT READ" } else { "not read" };
            rows.push(row(title, words(&**reason)));
        }
        render.table(2, &ROWS, &rows)?;
    }
    Ok(())
}

fn print_system(system: &System, context: &mut Context) -> Result<(), Failure> {
    let render = &mut context.render;
    let safe = |text: &str| shown(text.as_bytes());
    render.line("")?;
    render.heading("System")?;
    let mut rows = vec![row("root", format!("partition {}", system.root))];
    rows.extend(system.release.as_ref().map(|release| row("release", safe(&release.pretty_name))));
    rows.extend(system.hostname.as_ref().map(|name| row("hostname", safe(name))));
    if let Some(packages) = system.packages.filter(|count| *count > 0) {
        let architecture = system.architecture.as_ref().map(|one| format!(", {}", safe(one)));
        rows.push(row("packages", format!("{packages}{}", architecture.unwrap_or_default())));
    }
    for kernel in &system.kernels {
        let version = kernel.version.as_ref().map(|version| format!("{}, ", safe(version)));
        rows.push(row("kernel", format!("{}{}", version.unwrap_or_default(), shown_path(&kernel.path))));
    }
    if !system.modules.is_empty() {
        rows.push(row("modules", system.modules.iter().map(|one| safe(one)).collect::<Vec<_>>().join(", ")));
    }
    render.table(2, &ROWS, &rows)?;
    if let Some(manifest) = &system.manifest {
        render.line("")?;
        render.heading(&format!("hardtack {}", safe(&manifest.hardtack)))?;
        let mut rows = vec![row("profile", safe(&manifest.profile))];
        if !manifest.description.is_empty() {
            rows.push(row("", safe(&manifest.description)));
        }
        rows.push(row("boards", manifest.boards.iter().map(|one| safe(one)).collect::<Vec<_>>().join(", ")));
        rows.push(row("lock", manifest.lock.to_string()));
        let port = |port: &crate::artifact::manifest::Port| {
            format!(
                "{}/{} {} ({})",
                safe(&port.port),
                safe(&port.protocol),
                safe(&port.scope),
                safe(&port.name)
            )
        };
        let ports: Vec<String> = manifest.ports.iter().map(port).collect();
        rows.push(row("ports", if ports.is_empty() { "opens nothing".to_owned() } else { ports.join(", ") }));
        render.table(2, &ROWS, &rows)?;
    }
    if !system.notes.is_empty() {
        render.line("")?;
    }
    system.notes.iter().try_for_each(|note| render.line(format!("note: {}", safe(note))))
}

/// What people call the types that Pi images have.
fn type_name(kind: PartitionKind) -> Option<&'static str> {
    Some(match kind {
        PartitionKind::Mbr(0x05 | 0x0f | 0x85) => "extended",
        PartitionKind::Mbr(0x01 | 0x04 | 0x06 | 0x0e) => "FAT16",
        PartitionKind::Mbr(0x0b | 0x0c) => "FAT32",
        PartitionKind::Mbr(0x07) => "NTFS or exFAT",
        PartitionKind::Mbr(0x82) => "Linux swap",
        PartitionKind::Mbr(0x83) => "Linux",
        PartitionKind::Mbr(0x8e) => "Linux LVM",
        PartitionKind::Mbr(0xef) => "EFI system",
        PartitionKind::Mbr(mbr::PROTECTIVE) => "GPT",
        PartitionKind::Gpt(gpt::EFI_SYSTEM) => "EFI system",
        PartitionKind::Gpt(gpt::BASIC_DATA) => "basic data",
        PartitionKind::Gpt(gpt::LINUX) => "Linux",
        _ => return None,
    })
}

/// The same as JSON: sizes and places in bytes, strings as they are in the image.
fn describe(image: &Inspected, system: Option<&System>) -> Value {
    let (kind, id) = match &image.disk.table {
        Table::None => ("none", Value::Null),
        Table::Mbr { signature } => ("mbr", format!("{signature:08x}").into()),
        Table::Gpt { guid, .. } => ("gpt", guid.to_string().into()),
    };
    let (hybrid, damaged) = match &image.disk.table {
        Table::Gpt { hybrid, damaged, .. } => (*hybrid, *damaged),
        _ => (false, None),
    };
    json!({
        "image": image.path.display().to_string(),
        "size": image.disk.size.0,
        "table": { "kind": kind, "id": id, "hybrid": hybrid, "damaged": damaged },
        "partitions": image.volumes.iter().map(describe_volume).collect::<Vec<_>>(),
        "system": system.map(describe_system),
    })
}

fn describe_volume(volume: &Volume) -> Value {
    let partition = &volume.partition;
    let (size, free) = (volume.usage.map(|usage| usage.size.0), volume.usage.map(|usage| usage.free.0));
    let error = volume.contents.as_ref().err();
    json!({
        "number": partition.number,
        "type": partition.kind.to_string(),
        "type_name": type_name(partition.kind),
        "start": partition.start.0,
        "size": partition.len.0,
        "partuuid": Some(&partition.partuuid).filter(|one| !one.is_empty()),
        "name": partition.name,
        "filesystem": partition.filesystem.as_ref().map(|found| json!({
            "kind": found.kind.to_string(),
            "label": found.label,
            "uuid": found.uuid,
            "size": size,
            "free": free,
        })),
        "readable": error.is_none(),
        "damaged": error.is_some_and(|reason| reason.is_damage()),
        "error": error.map(|reason| words(&**reason)),
    })
}

fn describe_system(system: &System) -> Value {
    json!({
        "root": system.root,
        "release": system.release.as_ref().map(|release| json!({
            "pretty_name": release.pretty_name,
            "id": release.id,
            "version_id": release.version_id,
            "codename": release.codename,
        })),
        "hostname": system.hostname,
        "architecture": system.architecture,
        "packages": system.packages,
        "kernels": system.kernels.iter().map(|kernel| json!({
            "path": format!("/{}", String::from_utf8_lossy(kernel.path.as_bytes())),
            "version": kernel.version,
        })).collect::<Vec<_>>(),
        "modules": system.modules,
        "manifest": system.manifest,
        "notes": system.notes,
    })
}
