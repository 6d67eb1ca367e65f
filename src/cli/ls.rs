//! `hardtack ls`: the names in a directory inside an image.

use super::image_path::{self, shown, shown_path};
use super::render::Style;
use super::{Context, Failure};
use crate::format::fat::time::civil;
use crate::meta::Timestamp;
use crate::tree::{Kind, Node, Tree, TreePath};
use serde_json::{Value, json};
use std::ffi::OsString;

/// Arguments of `hardtack ls`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "IMAGE:PATH starts at the root filesystem, with the boot partition where /etc/fstab mounts it;
IMAGE:N:PATH starts at the top of partition N. Without PATH, the top is listed.

Examples:
  hardtack ls out/minimal.img:/etc -l
  hardtack ls out/minimal.img:1:/overlays
  hardtack ls out/minimal.img -R --json"
)]
pub struct Args {
    /// A directory or a file inside an image
    #[arg(value_name = "IMAGE[:N][:PATH]")]
    address: OsString,
    /// Show permissions, owner, size and time too
    #[arg(short)]
    long: bool,
    /// List everything below too, by its whole path
    #[arg(short = 'R')]
    recursive: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<(), Failure> {
    let address = image_path::parse(&args.address)?;
    let tree = image_path::opened(&address.image)?.files(address.part).map_err(image_path::failure)?;
    let path = address.path.unwrap_or_default();
    let listed = list(&tree, &path, args.recursive)?;
    let render = &mut context.render;
    if args.json {
        let entries: Vec<Value> = listed.iter().map(|one| one.describe()).collect();
        return render.json(&json!({ "path": text(path.as_bytes(), true), "entries": entries }));
    }
    let name = |one: &Listed| if args.recursive { shown_path(&one.path) } else { shown(one.name()) };
    if !args.long {
        return listed.iter().try_for_each(|one| render.line(name(one)));
    }
    let row = |one: &Listed| {
        let meta = &one.node.meta;
        let target = match &one.node.kind {
            Kind::Symlink(target) => format!(" -> {}", shown(target)),
            _ => String::new(),
        };
        vec![
            permissions(one.node),
            format!("{}:{}", meta.uid, meta.gid),
            size(&one.node.kind),
            time(meta.mtime),
            format!("{}{target}", name(one)),
        ]
    };
    let rows: Vec<Vec<String>> = listed.iter().map(row).collect();
    // Sizes stand at the right of their column.
    let width = rows.iter().map(|row| row[2].len()).max().unwrap_or(0);
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|mut row| {
            row[2] = format!("{:>width$}", row[2]);
            row
        })
        .collect();
    render.table(0, &[None, Some(Style::Dim), None, Some(Style::Dim), None], &rows)
}

struct Listed<'a> {
    path: TreePath,
    node: &'a Node,
}

/// A directory's names, or the name itself when it is no directory. A link to a directory is followed, any other is
/// what is listed.
fn list<'a>(tree: &'a Tree, path: &TreePath, recursive: bool) -> Result<Vec<Listed<'a>>, Failure> {
    let look = || {
        let place = tree.resolve_parent(path)?;
        let node = tree.get(&place).ok_or_else(|| crate::tree::TreeError::Missing(path.clone()))?;
        if !matches!(node.kind, Kind::Symlink(_)) {
            return Ok((place, node));
        }
        match tree.resolve(path).ok().and_then(|target| Some((tree.get(&target)?, target))) {
            Some((target, real)) if target.kind.is_directory() => Ok((real, target)),
            _ => Ok((place, node)),
        }
    };
    let (place, node) = look().map_err(|error: crate::tree::TreeError| Failure::input(error))?;
    let Kind::Directory(children) = &node.kind else { return Ok(vec![Listed { path: place, node }]) };
    if recursive {
        let below = tree.walk().filter(|(path, _)| path != &place && path.starts_with(&place));
        return Ok(below.map(|(path, id)| Listed { path, node: tree.node(id) }).collect());
    }
    let child = |(name, id): (&Vec<u8>, &crate::tree::NodeId)| {
        Some(Listed { path: place.join(name).ok()?, node: tree.node(*id) })
    };
    Ok(children.iter().filter_map(child).collect())
}

impl Listed<'_> {
    fn name(&self) -> &[u8] {
        self.path.name().unwrap_or(b"/")
    }

    fn describe(&self) -> Value {
        let meta = &self.node.meta;
        let mut value = json!({
            "path": text(self.path.as_bytes(), true),
            "kind": self.node.kind.word(),
            "mode": format!("{:04o}", meta.mode),
            "uid": meta.uid,
            "gid": meta.gid,
            "mtime": meta.mtime.seconds,
        });
        match &self.node.kind {
            Kind::File(content) => value["size"] = content.len().into(),
            Kind::Symlink(target) => value["target"] = text(target, false).into(),
            Kind::CharDevice(device) | Kind::BlockDevice(device) => {
                value["device"] = json!([device.major, device.minor]);
            }
            Kind::Directory(_) | Kind::Fifo | Kind::Socket => {}
        }
        // JSON has no way to write a name that is not UTF-8.
        if std::str::from_utf8(self.path.as_bytes()).is_err() {
            let bytes = self.path.as_bytes().iter().map(|byte| format!("{byte:02x}"));
            value["path_hex"] = bytes.collect::<String>().into();
        }
        value
    }
}

fn text(bytes: &[u8], absolute: bool) -> String {
    format!("{}{}", if absolute { "/" } else { "" }, String::from_utf8_lossy(bytes))
}

fn size(kind: &Kind) -> String {
    match kind {
        Kind::File(content) => content.len().to_string(),
        Kind::Symlink(target) => target.len().to_string(),
        Kind::CharDevice(device) | Kind::BlockDevice(device) => format!("{},{}", device.major, device.minor),
        Kind::Directory(_) | Kind::Fifo | Kind::Socket => "-".to_owned(),
    }
}

/// As `ls -l` writes them.
fn permissions(node: &Node) -> String {
    let kind = match &node.kind {
        Kind::Directory(_) => 'd',
        Kind::File(_) => '-',
        Kind::Symlink(_) => 'l',
        Kind::CharDevice(_) => 'c',
        Kind::BlockDevice(_) => 'b',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
    };
    let mode = node.meta.mode;
    let mut text = String::from(kind);
    for (shift, special, with, without) in
        [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => with,
            (false, true) => without,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Minutes, in UTC: an image has no time zone.
fn time(time: Timestamp) -> String {
    // From the year 0 to 9999; a filesystem that says otherwise is damaged.
    let seconds = time.seconds.clamp(-62_135_596_800, 253_402_300_799);
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", of_day / 3600, of_day / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::Meta;

    #[test]
    fn times_are_utc_before_and_after_1970() {
        assert_eq!(time(Timestamp::seconds(0)), "1970-01-01 00:00");
        assert_eq!(time(Timestamp::seconds(-1)), "1969-12-31 23:59");
        assert_eq!(time(Timestamp::seconds(1_709_210_096)), "2024-02-29 12:34");
        assert_eq!(time(Timestamp::seconds(i64::MIN)), "0001-01-01 00:00");
        assert_eq!(time(Timestamp::seconds(i64::MAX)), "9999-12-31 23:59");
    }

    #[test]
    fn permissions_are_written_as_ls_does() {
        let node = |kind, mode| Node { meta: Meta::root(mode, Timestamp::default()), kind, layer: 0 };
        let directory = || Kind::Directory(Default::default());
        assert_eq!(permissions(&node(directory(), 0o1777)), "drwxrwxrwt");
        assert_eq!(permissions(&node(Kind::File(Default::default()), 0o4755)), "-rwsr-xr-x");
        assert_eq!(permissions(&node(Kind::File(Default::default()), 0o2640)), "-rw-r-S---");
        assert_eq!(permissions(&node(Kind::Fifo, 0o600)), "prw-------");
    }
}
