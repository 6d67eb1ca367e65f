//! Which systemd units start: links in `/etc/systemd/system`, as `systemctl enable`, `disable` and `mask` make them.
//!
//! The image's state is the preset's state. Debian's packages enable nearly every unit they ship, and on a first boot
//! (machine-id `uninitialized`) systemd enables whatever no preset names (systemd.preset(5)); so the profile's list is
//! made the whole truth twice: as links, here, and as a preset that ends in `disable *`.

use crate::meta::{Meta, Timestamp};
use crate::tree::{Kind, Tree, TreeError, TreePath};
use std::collections::{BTreeMap, BTreeSet};

/// Why units could not be settled.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// No unit file of that name.
    #[error("unit `{0}` is not in the image: no unit file in /etc/systemd/system or /usr/lib/systemd/system")]
    Missing(String),
    /// Not a name a unit can have.
    #[error("`{0}` is not the full name of a unit (`name.service`, `name.timer`, …)")]
    Name(String),
    /// Enabling it would do nothing.
    #[error("unit `{0}` cannot be enabled: its file has no [Install] section that says what wants it")]
    NoInstall(String),
    /// A unit file could not be read.
    #[error("unit file {path} could not be read")]
    Read {
        /// Which.
        path: TreePath,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The tree could not be changed.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Makes exactly `enable` (with what their `Also=` names) enabled and `mask` masked; every other unit's links go. Gives
/// every unit that is enabled afterwards, sorted.
pub fn settle(
    tree: &mut Tree,
    enable: &[String],
    mask: &[String],
    now: Timestamp,
) -> Result<Vec<String>, ServiceError> {
    let units = Units::read(tree)?;
    // All links first, so that a unit that is not there leaves the tree as it was.
    let mut links = BTreeMap::new();
    let mut todo: Vec<String> = enable.to_vec();
    let mut done = BTreeSet::new();
    while let Some(unit) = todo.pop() {
        if done.insert(unit.clone()) {
            units.links(tree, &unit, enable.contains(&unit), &mut links, &mut todo)?;
        }
    }
    for unit in mask {
        check_name(unit)?;
    }
    for path in old_links(tree, ETC).into_iter().chain(old_links(tree, ETC_USER)) {
        tree.remove(&path);
    }
    let link = |target: String| (Meta::root(0o777, now), Kind::Symlink(target.into_bytes()));
    for (name, target) in links {
        let (meta, kind) = link(target);
        tree.put(&below_etc(&name)?, meta, kind)?;
    }
    for unit in mask {
        let path = below_etc(unit)?;
        if matches!(tree.get(&path), Some(node) if !node.kind.is_directory()) {
            tree.remove(&path);
        }
        let (meta, kind) = link("/dev/null".into());
        tree.put(&path, meta, kind)?;
    }
    Ok(done.into_iter().collect())
}

/// The preset that says the same to systemd: an `enable` line for each unit, then `disable *`. Instances of templates
/// are written the way systemd.preset(5) has them, `enable getty@.service tty1`.
pub fn preset(enable: &[String]) -> String {
    let mut text = String::from("# Only what the profile names starts by itself, on the first boot too.\n");
    let sorted: BTreeSet<_> = enable.iter().collect();
    for unit in sorted {
        match instance(unit) {
            Some((template, instance)) => text.push_str(&format!("enable {template} {instance}\n")),
            None => text.push_str(&format!("enable {unit}\n")),
        }
    }
    text.push_str("disable *\n");
    text
}

const ETC: &str = "etc/systemd/system";
/// Units of people's sessions: none starts by itself (`user-preset/` of the hardened overlay says the same).
const ETC_USER: &str = "etc/systemd/user";
const SUFFIXES: [&str; 10] =
    ["service", "socket", "timer", "target", "path", "mount", "automount", "swap", "slice", "scope"];

struct Units {
    /// Unit files by name, those in `/etc` hiding those in `/usr/lib`.
    files: BTreeMap<String, TreePath>,
}

impl Units {
    fn read(tree: &Tree) -> Result<Self, ServiceError> {
        let mut files = BTreeMap::new();
        for directory in ["usr/lib/systemd/system", "usr/local/lib/systemd/system", ETC] {
            let path = TreePath::new(directory).map_err(TreeError::from)?;
            let Some(Kind::Directory(children)) = tree.get(&path).map(|node| &node.kind) else { continue };
            for (name, id) in children {
                let Ok(name) = String::from_utf8(name.clone()) else { continue };
                // A link in /usr/lib is an alias that a package ships, in /etc one that enabling made.
                let is_file = matches!(tree.node(*id).kind, Kind::File(_));
                if check_name(&name).is_ok() && (is_file || directory != ETC) {
                    let path = path.join(name.as_bytes()).map_err(TreeError::from)?;
                    files.insert(name, path);
                }
            }
        }
        Ok(Self { files })
    }

    /// The links that enabling `unit` makes, by path below `/etc/systemd/system`; units it brings along go to `todo`.
    fn links(
        &self,
        tree: &Tree,
        unit: &str,
        named: bool,
        links: &mut BTreeMap<String, String>,
        todo: &mut Vec<String>,
    ) -> Result<(), ServiceError> {
        check_name(unit)?;
        let template = instance(unit).map(|(template, _)| template);
        let file = self.files.get(unit).or_else(|| self.files.get(template.as_ref()?));
        let file = file.ok_or_else(|| ServiceError::Missing(unit.to_owned()))?;
        let content = tree.file(file)?;
        let bytes = content
            .read_to_vec(1 << 20)
            .map_err(|source| ServiceError::Read { path: file.clone(), source })?;
        let install = Install::parse(&String::from_utf8_lossy(&bytes));
        let unit = match (&install.default_instance, unit.split_once("@.")) {
            // A template that is enabled without an instance takes its default one.
            (Some(default), Some((name, suffix))) => format!("{name}@{default}.{suffix}"),
            _ => unit.to_owned(),
        };
        let target = format!("/{}", String::from_utf8_lossy(file.as_bytes()));
        let expand = |text: &str| expand(text, &unit);
        let mut any = !install.also.is_empty();
        for (kind, list) in
            [("wants", &install.wanted), ("requires", &install.required), ("upholds", &install.upheld)]
        {
            for by in list.iter().map(|by| expand(by)) {
                check_name(&by)?;
                links.insert(format!("{by}.{kind}/{unit}"), target.clone());
                any = true;
            }
        }
        for alias in install.alias.iter().map(|alias| expand(alias)).filter(|alias| *alias != unit) {
            check_name(&alias)?;
            links.insert(alias, target.clone());
            any = true;
        }
        todo.extend(install.also.iter().map(|also| expand(also)));
        if named && !any {
            return Err(ServiceError::NoInstall(unit));
        }
        Ok(())
    }
}

/// The `[Install]` section (systemd.unit(5)).
#[derive(Default)]
struct Install {
    alias: Vec<String>,
    wanted: Vec<String>,
    required: Vec<String>,
    upheld: Vec<String>,
    also: Vec<String>,
    default_instance: Option<String>,
}

impl Install {
    fn parse(text: &str) -> Self {
        let mut install = Self::default();
        let mut inside = false;
        // A backslash at the end of a line goes on in the next (systemd.syntax(7)).
        let text = text.replace("\\\n", " ");
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            if line.starts_with('[') {
                inside = line == "[Install]";
                continue;
            }
            let Some((key, value)) = line.split_once('=').filter(|_| inside) else { continue };
            let list = match key.trim() {
                "Alias" => &mut install.alias,
                "WantedBy" => &mut install.wanted,
                "RequiredBy" => &mut install.required,
                "UpheldBy" => &mut install.upheld,
                "Also" => &mut install.also,
                "DefaultInstance" => {
                    install.default_instance =
                        Some(value.trim().to_owned()).filter(|value| !value.is_empty());
                    continue;
                }
                _ => continue,
            };
            if value.trim().is_empty() {
                list.clear();
            }
            list.extend(value.split_whitespace().map(str::to_owned));
        }
        install
    }
}

/// Every link below a directory of units that enabling or masking may have made.
fn old_links(tree: &Tree, directory: &str) -> Vec<TreePath> {
    let etc = TreePath::new(directory).unwrap_or_default();
    let inside = |path: &TreePath| {
        let below: Vec<&[u8]> = path.components().skip(3).collect();
        match below.as_slice() {
            [_] => true,
            [directory, _] => {
                [".wants", ".requires", ".upholds"].iter().any(|end| directory.ends_with(end.as_bytes()))
            }
            _ => false,
        }
    };
    tree.walk()
        .filter(|(path, id)| {
            path.starts_with(&etc) && inside(path) && matches!(tree.node(*id).kind, Kind::Symlink(_))
        })
        .map(|(path, _)| path)
        .collect()
}

fn below_etc(name: &str) -> Result<TreePath, TreeError> {
    Ok(TreePath::new(format!("{ETC}/{name}"))?)
}

/// `getty@tty1.service` is `getty@.service` and `tty1`.
fn instance(unit: &str) -> Option<(String, &str)> {
    let (name, rest) = unit.split_once('@')?;
    let (instance, suffix) = rest.rsplit_once('.')?;
    (!instance.is_empty()).then(|| (format!("{name}@.{suffix}"), instance))
}

/// The specifiers that make sense in `[Install]`: `%i` the instance, `%p` what is before the `@`, `%n` the unit, `%N` the
/// unit without its suffix, `%%`.
fn expand(text: &str, unit: &str) -> String {
    let stem = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem);
    let prefix = stem.split_once('@').map_or(stem, |(prefix, _)| prefix);
    let of_instance = instance(unit).map_or("", |(_, instance)| instance);
    let mut out = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match if c == '%' { rest.next() } else { None } {
            Some('i') => out.push_str(of_instance),
            Some('p') => out.push_str(prefix),
            Some('n') => out.push_str(unit),
            Some('N') => out.push_str(stem),
            Some('%') => out.push('%'),
            Some(other) => out.extend(['%', other]),
            None => out.push(c),
        }
    }
    out
}

fn check_name(unit: &str) -> Result<(), ServiceError> {
    let good = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let suffix = unit.rsplit_once('.').map(|(_, suffix)| suffix);
    if unit.len() < 256 && unit.chars().all(good) && suffix.is_some_and(|suffix| SUFFIXES.contains(&suffix)) {
        return Ok(());
    }
    Err(ServiceError::Name(unit.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::seconds(1);

    fn tree() -> Tree {
        let mut tree = Tree::new(NOW);
        let mut unit = |name: &str, text: &str| {
            let path = TreePath::new(format!("usr/lib/systemd/system/{name}")).unwrap();
            tree.put_file(&path, 0o644, NOW, text).unwrap();
        };
        unit(
            "ssh.service",
            "[Service]\nWantedBy=no\n[Install]\nWantedBy=multi-user.target\nAlias=sshd.service\n",
        );
        unit("nft.service", "[Install]\n# c\nWantedBy=sysinit.target \\\n  other.target\nAlso=nft.timer\n");
        unit("nft.timer", "[Install]\nWantedBy=timers.target\n");
        unit("getty@.service", "[Install]\nWantedBy=getty.target\nDefaultInstance=tty1\n");
        unit("static.service", "[Service]\n");
        for (at, target) in [
            ("multi-user.target.wants/ssh.service", "/usr/lib/systemd/system/ssh.service"),
            ("sshd.service", "/usr/lib/systemd/system/ssh.service"),
            ("masked.service", "/dev/null"),
        ] {
            let meta = Meta::root(0o777, NOW);
            tree.put(&below_etc(at).unwrap(), meta, Kind::Symlink(target.into())).unwrap();
        }
        tree.put_file(&below_etc("own.service").unwrap(), 0o644, NOW, "[Install]\nRequiredBy=a.target\n")
            .unwrap();
        tree
    }

    fn links(tree: &Tree) -> Vec<String> {
        let etc = TreePath::new(ETC).unwrap();
        tree.walk()
            .filter(|(path, _)| path.starts_with(&etc))
            .filter_map(|(path, id)| match &tree.node(id).kind {
                Kind::Symlink(target) => Some(format!(
                    "{} -> {}",
                    &path.to_string()["/etc/systemd/system/".len()..],
                    String::from_utf8_lossy(target)
                )),
                _ => None,
            })
            .collect()
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_what_is_named_stays_enabled() {
        let mut tree = tree();
        let enabled = names(&["nft.service", "getty@.service", "own.service"]);
        let all = settle(&mut tree, &enabled, &names(&["ssh.service"]), NOW).unwrap();
        assert_eq!(
            links(&tree),
            [
                "a.target.requires/own.service -> /etc/systemd/system/own.service",
                "getty.target.wants/getty@tty1.service -> /usr/lib/systemd/system/getty@.service",
                "other.target.wants/nft.service -> /usr/lib/systemd/system/nft.service",
                "ssh.service -> /dev/null",
                "sysinit.target.wants/nft.service -> /usr/lib/systemd/system/nft.service",
                "timers.target.wants/nft.timer -> /usr/lib/systemd/system/nft.timer",
            ]
        );
        assert!(all.contains(&"nft.timer".to_owned()));
    }

    #[test]
    fn what_cannot_be_enabled_is_said_and_changes_nothing() {
        let mut tree = tree();
        let before = links(&tree);
        for (unit, says) in [
            ("gone.service", "is not in the image"),
            ("static.service", "no [Install]"),
            ("ssh", "full name"),
            ("../x.service", "full name"),
        ] {
            let error = settle(&mut tree, &names(&[unit]), &[], NOW).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            assert_eq!(links(&tree), before);
        }
    }

    #[test]
    fn the_preset_ends_in_disable() {
        let text = preset(&names(&["nft.service", "getty@tty1.service"]));
        assert!(text.ends_with("enable getty@.service tty1\nenable nft.service\ndisable *\n"), "{text}");
    }
}
