//! `hardtack show`: what a profile means, and which line says so.

use super::render::Style;
use super::{Context, Failure};
use crate::profile::{Addressing, ImageSize, Origin, OverlayKind, Place, Profile, Sourced};
use serde_json::{Value, json};
use std::fmt::Display;

/// Arguments of `hardtack show`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hardtack show files
  hardtack show ./office.toml --json")]
pub struct Args {
    /// A shipped profile's name, or the path of a `.toml`
    #[arg(value_name = "PROFILE")]
    profile: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<(), Failure> {
    let profile = Profile::load(&args.profile)?;
    if args.json {
        return context.render.json(&describe(&profile));
    }
    let render = &mut context.render;
    let chain: Vec<&str> = profile.layers.iter().map(|layer| layer.name.as_str()).collect();
    render.heading(&format!("{} ({})", profile.name, chain.join(" → ")))?;
    if !profile.description.is_empty() {
        render.line(&profile.description)?;
    }
    for (title, rows) in sections(&profile) {
        if !rows.is_empty() {
            render.line("")?;
            render.heading(title)?;
            render.table(2, &[Some(Style::Name), None, Some(Style::Dim)], &rows)?;
        }
    }
    Ok(())
}

type Rows = Vec<Vec<String>>;

fn row(name: impl Display, value: impl Display, from: impl Display) -> Vec<String> {
    vec![name.to_string(), value.to_string(), from.to_string()]
}

fn setting<T: Display>(name: &str, value: &Sourced<T>) -> Vec<String> {
    row(name, &**value, value.origin())
}

/// The tables of the text, in the order of docs/profile.md: name, value, origin.
fn sections(profile: &Profile) -> Vec<(&'static str, Rows)> {
    let base = &profile.base;
    let mut rows = vec![setting("suite", &base.suite)];
    rows.extend(base.components.iter().map(|one| setting("component", one)));
    rows.extend(base.mirror.iter().map(|one| setting("mirror", one)));
    rows.push(row("priority", base.priority.word(), base.priority.origin()));
    for (name, switch) in
        [("security", &base.security), ("updates", &base.updates), ("backports", &base.backports)]
    {
        rows.push(setting(name, switch));
    }
    rows.extend(profile.boards.iter().map(|board| row("board", board.word(), board.origin())));
    let mut sections = vec![("base", rows)];
    let source = |one: &crate::profile::AptSource| {
        let packages: Vec<&str> = one.packages.iter().map(|package| package.as_str()).collect();
        row(&one.name, format!("{} {} for {}", one.url, one.suite, packages.join(" ")), one.name.origin())
    };
    sections.push(("sources", profile.sources.iter().map(source).collect()));
    sections.push(("packages", profile.packages.iter().map(|one| row(&**one, "", one.origin())).collect()));
    let overlay = |one: &Sourced<crate::profile::Overlay>| row(&one.name, &one.description, one.origin());
    sections.push(("overlays", profile.overlays.iter().map(overlay).collect()));
    sections.push(("files", files(profile)));
    let units = &profile.units;
    let lists = [("enable", &units.enable), ("disable", &units.disable), ("mask", &units.mask)];
    let rows =
        lists.iter().flat_map(|(word, list)| list.iter().map(move |unit| row(unit, word, unit.origin())));
    sections.push(("units", rows.collect()));
    let port = |port: &crate::profile::Port| {
        row(&port.name, format!("{port}{}", dash(&port.description)), port.name.origin())
    };
    sections.push(("ports", profile.ports.iter().map(port).collect()));
    sections.push(("accounts", accounts(profile)));
    let system = &profile.system;
    sections.push((
        "system",
        vec![
            setting("hostname", &system.hostname),
            setting("timezone", &system.timezone),
            setting("locale", &system.locale),
            setting("keyboard", &system.keyboard),
            setting("reboot", &profile.updates.reboot),
            setting("window", &profile.updates.window),
        ],
    ));
    sections.push(("network", network(profile)));
    sections.push(("disk and boot", disk(profile)));
    let script = |one: &crate::profile::Script| {
        row(&one.name, format!("{} lines", one.text.lines().count()), one.name.origin())
    };
    sections.push(("scripts", profile.scripts.iter().map(script).collect()));
    sections
}

fn dash(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" – {text}") }
}

/// Where a file of an overlay comes from: the manifest's line, else the overlay.
fn overlay_origin(name: &str, origin: &Origin) -> String {
    match origin.place() {
        Some(place) => place.to_string(),
        None => format!("overlay {name}"),
    }
}

fn files(profile: &Profile) -> Rows {
    let mut rows = Rows::new();
    for overlay in &profile.overlays {
        for entry in overlay.entries() {
            let value = match &entry.kind {
                OverlayKind::File(_, owner) => owner.to_string(),
                OverlayKind::Symlink(target) => {
                    format!("→ {}", String::from_utf8_lossy(target).escape_debug())
                }
                OverlayKind::Directory(owner) => format!("directory {owner}"),
                OverlayKind::DirectoryIfAbsent => continue,
            };
            let value = format!("{value}{}", dash(entry.reason.as_deref().unwrap_or_default()));
            rows.push(row(&entry.path, value, overlay_origin(&overlay.name, &entry.origin)));
        }
    }
    rows.extend(profile.files.iter().map(|file| row(&*file.path, &file.ownership, file.path.origin())));
    rows
}

fn accounts(profile: &Profile) -> Rows {
    let mut rows = Rows::new();
    for account in &profile.accounts {
        let groups: Vec<&str> = account.groups.iter().map(|group| group.as_str()).collect();
        let mut value = format!("{} {}", account.home, account.shell);
        if !groups.is_empty() {
            value = format!("{value}, in {}", groups.join(" "));
        }
        for (on, word) in [(*account.system, ", system"), (*account.locked, ", locked")] {
            value.push_str(if on { word } else { "" });
        }
        rows.push(row(&account.name, value, account.name.origin()));
    }
    for group in &profile.groups {
        rows.push(row(
            &group.name,
            if *group.system { "system group" } else { "group" },
            group.name.origin(),
        ));
    }
    if let Some(ssh) = &profile.ssh {
        for key in &ssh.authorized_keys {
            rows.push(row(format!("key of {}", ssh.user), shorten(key), key.origin()));
        }
    }
    rows
}

/// The middle of a public key tells nobody anything.
fn shorten(key: &str) -> String {
    let word = |word: &str| match word.char_indices().rev().nth(11).map(|(at, _)| word.split_at(at)) {
        Some((start, end)) if start.len() > 30 => format!("…{end}"),
        _ => word.to_owned(),
    };
    key.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

fn network(profile: &Profile) -> Rows {
    let mut rows = Rows::new();
    for interface in &profile.network {
        let name = interface.name.as_str();
        match &interface.addressing {
            Addressing::Dhcp => rows.push(row(name, "dhcp", interface.name.origin())),
            Addressing::Static { addresses, gateway } => {
                rows.extend(addresses.iter().map(|address| setting(name, address)));
                rows.extend(gateway.iter().map(|one| row(name, format!("gateway {}", **one), one.origin())));
            }
        }
        rows.extend(interface.dns.iter().map(|one| row(name, format!("dns {}", **one), one.origin())));
        if let Some(wifi) = &interface.wifi {
            let key = if wifi.psk.is_some() { "key given, not shown" } else { "key not given" };
            let value = format!("wireless `{}` in {}, {key}", wifi.ssid.escape_debug(), wifi.country);
            rows.push(row(name, value, wifi.ssid.origin()));
        }
    }
    rows
}

fn size(size: &ImageSize) -> String {
    match size {
        ImageSize::Auto { margin } => format!("what it holds and {margin}"),
        ImageSize::Fixed(bytes) => bytes.to_string(),
    }
}

fn disk(profile: &Profile) -> Rows {
    let (disk, boot) = (&profile.disk, &profile.boot);
    let mut rows = vec![
        row("table", disk.table.word(), disk.table.origin()),
        row("size", size(&disk.size), disk.size.origin()),
        setting("boot", &disk.boot),
        setting("align", &disk.align),
        setting("label", &disk.label),
    ];
    rows.extend(boot.cmdline.iter().map(|word| setting("cmdline", word)));
    rows.extend(boot.cmdline_remove.iter().map(|word| setting("cmdline without", word)));
    for (section, lines) in &boot.config {
        rows.extend(lines.iter().map(|line| row(format!("config.txt [{section}]"), &**line, line.origin())));
    }
    rows
}

/// The same as JSON, with numbers as numbers. `from` is `null` for what is hardtack's default.
fn describe(profile: &Profile) -> Value {
    let named = |name: &Sourced<String>| json!({ "name": **name, "from": from(name.origin()) });
    let list =
        |list: &[Sourced<String>]| list.iter().map(|one| value(one, one.as_str().into())).collect::<Vec<_>>();
    let base = &profile.base;
    json!({
        "name": profile.name,
        "description": profile.description,
        "chain": profile.layers.iter().map(|one| json!({ "name": *one.name, "file": one.source.label() })).collect::<Vec<_>>(),
        "personal": profile.is_personal(),
        "base": {
            "suite": value(&base.suite, base.suite.as_str().into()),
            "components": list(&base.components),
            "mirror": base.mirror.as_ref().map(|one| value(one, one.as_str().into())),
            "priority": value(&base.priority, base.priority.word().into()),
            "security": value(&base.security, (*base.security).into()),
            "updates": value(&base.updates, (*base.updates).into()),
            "backports": value(&base.backports, (*base.backports).into()),
        },
        "sources": profile.sources.iter().map(|one| json!({
            "name": *one.name, "url": *one.url, "suite": *one.suite, "components": list(&one.components),
            "packages": list(&one.packages), "from": from(one.name.origin()),
        })).collect::<Vec<_>>(),
        "boards": profile.boards.iter().map(|one| value(one, one.word().into())).collect::<Vec<_>>(),
        "packages": profile.packages.iter().map(|one| value(one, one.to_string().into())).collect::<Vec<_>>(),
        "overlays": profile.overlays.iter().map(|one| json!({
            "name": one.name, "description": one.description, "from": from(one.origin()),
        })).collect::<Vec<_>>(),
        "files": files_json(profile),
        "units": {
            "enable": list(&profile.units.enable),
            "disable": list(&profile.units.disable),
            "mask": list(&profile.units.mask),
        },
        "ports": profile.ports.iter().map(|one| json!({
            "name": *one.name, "first": one.first, "last": one.last, "protocol": one.protocol.word(),
            "scope": one.scope.word(), "description": one.description, "from": from(one.name.origin()),
        })).collect::<Vec<_>>(),
        "groups": profile.groups.iter().map(|one| {
            json!({ "name": *one.name, "system": *one.system, "from": from(one.name.origin()) })
        }).collect::<Vec<_>>(),
        "accounts": profile.accounts.iter().map(|one| json!({
            "name": *one.name, "groups": list(&one.groups), "shell": *one.shell, "home": *one.home,
            "system": *one.system, "locked": *one.locked, "from": from(one.name.origin()),
        })).collect::<Vec<_>>(),
        "system": {
            "hostname": value(&profile.system.hostname, profile.system.hostname.pattern().into()),
            "timezone": value(&profile.system.timezone, profile.system.timezone.as_str().into()),
            "locale": value(&profile.system.locale, profile.system.locale.as_str().into()),
            "keyboard": value(&profile.system.keyboard, profile.system.keyboard.to_string().into()),
        },
        "updates": {
            "reboot": value(&profile.updates.reboot, (*profile.updates.reboot).into()),
            "window": value(&profile.updates.window, profile.updates.window.to_string().into()),
        },
        "network": network_json(profile),
        "disk": {
            "table": value(&profile.disk.table, profile.disk.table.word().into()),
            "size": value(&profile.disk.size, match *profile.disk.size {
                ImageSize::Auto { margin } => json!({ "margin": margin.0 }),
                ImageSize::Fixed(bytes) => json!({ "bytes": bytes.0 }),
            }),
            "boot": value(&profile.disk.boot, profile.disk.boot.0.into()),
            "align": value(&profile.disk.align, profile.disk.align.0.into()),
            "label": value(&profile.disk.label, profile.disk.label.as_str().into()),
        },
        "boot": {
            "cmdline": list(&profile.boot.cmdline),
            "cmdline_remove": list(&profile.boot.cmdline_remove),
            "config": profile.boot.config.iter().map(|(section, lines)| {
                (section.clone(), Value::from(list(lines)))
            }).collect::<serde_json::Map<_, _>>(),
        },
        "ssh": profile.ssh.as_ref().map(|one| json!({
            "user": *one.user, "authorized_keys": list(&one.authorized_keys), "scope": one.scope.word(),
            "from": from(one.origin()),
        })),
        "scripts": profile.scripts.iter().map(|one| named(&one.name)).collect::<Vec<_>>(),
    })
}

fn place(place: &Place) -> Value {
    json!({ "file": place.source().label(), "line": place.line() })
}

fn from(origin: &Origin) -> Value {
    origin.place().map_or(Value::Null, place)
}

fn value<T>(sourced: &Sourced<T>, value: Value) -> Value {
    json!({ "value": value, "from": from(sourced.origin()) })
}

fn files_json(profile: &Profile) -> Vec<Value> {
    let mut files = Vec::new();
    for overlay in &profile.overlays {
        for entry in overlay.entries() {
            let (kind, mode, owner) = match &entry.kind {
                OverlayKind::File(content, owner) => {
                    (json!({ "file": content.len() }), Some(owner.mode), Some(owner))
                }
                OverlayKind::Symlink(target) => {
                    (json!({ "link": String::from_utf8_lossy(target) }), None, None)
                }
                OverlayKind::Directory(owner) => (json!("directory"), Some(owner.mode), Some(owner)),
                OverlayKind::DirectoryIfAbsent => continue,
            };
            files.push(json!({
                "path": entry.path.to_string(),
                "kind": kind,
                "mode": mode.map(|mode| format!("{mode:04o}")),
                "owner": owner.map(|one| one.owner.to_string()),
                "group": owner.map(|one| one.group.to_string()),
                "reason": entry.reason,
                "overlay": overlay.name,
                "from": from(&entry.origin),
            }));
        }
    }
    files.extend(profile.files.iter().map(|file| {
        json!({
            "path": file.path.to_string(),
            "kind": { "file": file.content.len() },
            "mode": format!("{:04o}", file.ownership.mode),
            "owner": file.ownership.owner.to_string(),
            "group": file.ownership.group.to_string(),
            "reason": null,
            "overlay": null,
            "from": from(file.path.origin()),
        })
    }));
    files
}

fn network_json(profile: &Profile) -> Vec<Value> {
    profile
        .network
        .iter()
        .map(|one| {
            let (method, addresses, gateway) = match &one.addressing {
                Addressing::Dhcp => ("dhcp", Vec::new(), None),
                Addressing::Static { addresses, gateway } => (
                    "static",
                    addresses.iter().map(ToString::to_string).collect(),
                    gateway.as_ref().map(ToString::to_string),
                ),
            };
            json!({
                "name": *one.name,
                "method": method,
                "address": addresses,
                "gateway": gateway,
                "dns": one.dns.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "wifi": one.wifi.as_ref().map(|wifi| json!({
                    "ssid": *wifi.ssid, "country": *wifi.country, "psk": if wifi.psk.is_some() { "given" } else { "not given" },
                })),
                "from": from(one.name.origin()),
            })
        })
        .collect()
}
