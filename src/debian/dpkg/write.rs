//! Writes the database into a tree, as dpkg does: fields in its order, one entry a line, packages by name.

use super::{DIRECTORY, Database, DatabaseError, Package, Status};
use crate::debian::control;
use crate::debian::deb::Control;
use crate::debian::relation;
use crate::meta::{Meta, Timestamp};
use crate::tree::{Kind, Tree, TreeError, TreePath};
use std::collections::BTreeMap;

/// dpkg's own order of fields (`fieldinfos` in lib/dpkg/parse.c); all others follow as they came.
const ORDER: [&str; 27] = [
    "Package",
    "Essential",
    "Protected",
    "Status",
    "Priority",
    "Section",
    "Installed-Size",
    "Origin",
    "Maintainer",
    "Bugs",
    "Architecture",
    "Multi-Arch",
    "Source",
    "Version",
    "Config-Version",
    "Replaces",
    "Provides",
    "Depends",
    "Pre-Depends",
    "Recommends",
    "Suggests",
    "Breaks",
    "Conflicts",
    "Enhances",
    "Conffiles",
    "Description",
    "Triggers-Pending",
];

const RELATIONS: std::ops::Range<usize> = 15..24;

/// The stanza of a package for the status file.
pub(super) fn stanza(control: &Control, status: &Status) -> Vec<(String, Vec<u8>)> {
    let mut fields: Vec<(String, Vec<u8>)> = Vec::with_capacity(control.fields.len() + 2);
    for (place, name) in ORDER.iter().enumerate() {
        let value = match *name {
            "Status" => format!("{} {} {}", status.want, status.flag, status.state).into_bytes(),
            "Conffiles" => conffiles(control),
            _ => {
                let found = control.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.clone()).unwrap_or_default()
            }
        };
        let is_default =
            matches!((*name, value.as_slice()), ("Essential" | "Protected" | "Multi-Arch", b"no"));
        if value.is_empty() || is_default {
            continue;
        }
        let value = if RELATIONS.contains(&place) { relations(value) } else { value };
        fields.push(((*name).to_owned(), value));
    }
    let others =
        control.fields.iter().filter(|(name, _)| !ORDER.iter().any(|known| known.eq_ignore_ascii_case(name)));
    fields.extend(others.cloned());
    fields
}

/// `newconffile` stands for the digest until the package is configured.
fn conffiles(control: &Control) -> Vec<u8> {
    let mut text = String::new();
    for conffile in &control.conffiles {
        text.push_str("\n ");
        text.push_str(&conffile.path);
        text.push_str(" newconffile");
        if conffile.remove_on_upgrade {
            text.push_str(" remove-on-upgrade");
        }
    }
    text.into_bytes()
}

/// Relations on one line with dpkg's spacing; what cannot be read stays as it is.
fn relations(value: Vec<u8>) -> Vec<u8> {
    let text = std::str::from_utf8(&value).ok();
    let groups = text.and_then(|text| relation::groups(text).collect::<Result<Vec<_>, _>>().ok());
    let Some(groups) = groups else { return value };
    let group = |group: &relation::Alternatives<'_>| {
        group.iter().map(|relation| relation.to_string()).collect::<Vec<_>>().join(" | ")
    };
    groups.iter().map(group).collect::<Vec<_>>().join(", ").into_bytes()
}

impl Database {
    /// Writes what changed into the tree. Everything gets the time `epoch`.
    pub fn write(&self, tree: &mut Tree, epoch: Timestamp) -> Result<(), DatabaseError> {
        let mut to = Target { tree, epoch };
        for directory in ["", "info", "updates", "triggers"] {
            to.directory(directory)?;
        }
        let mut status = Vec::new();
        for package in self.packages.values() {
            let fields = package.fields.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
            control::write_stanza(&mut status, fields)?;
            if package.changed {
                info(&mut to, package)?;
            }
        }
        to.file("status", 0o644, status)?;
        to.file("info/format", 0o644, "1\n")?;
        to.file("triggers/Unincorp", 0o644, self.unincorporated())?;
        if !self.file_triggers.is_empty() {
            let line = |trigger: &super::FileTrigger| {
                format!(
                    "{} {}{}\n",
                    trigger.path,
                    trigger.package,
                    if trigger.awaits { "" } else { "/noawait" }
                )
            };
            to.file("triggers/File", 0o644, self.file_triggers.iter().map(line).collect::<String>())?;
        }
        for (name, lines) in &self.word_triggers {
            to.file(&format!("triggers/{name}"), 0o644, lines.join("\n") + "\n")?;
        }
        Ok(())
    }

    fn unincorporated(&self) -> String {
        let mut text = String::new();
        for (trigger, waiting) in &self.activated {
            text.push_str(trigger);
            for package in waiting {
                text.push(' ');
                text.push_str(package);
            }
            text.push('\n');
        }
        text
    }
}

fn info(to: &mut Target<'_>, package: &Package) -> Result<(), DatabaseError> {
    let name = package.database_name();
    let mut list = Vec::new();
    for file in &package.files {
        list.extend_from_slice(file);
        list.push(b'\n');
    }
    to.file(&format!("info/{name}.list"), 0o644, list)?;
    for (kind, file) in &package.info {
        to.file(&format!("info/{name}.{kind}"), file.mode & 0o777, file.bytes.clone())?;
    }
    Ok(())
}

struct Target<'a> {
    tree: &'a mut Tree,
    epoch: Timestamp,
}

impl Target<'_> {
    fn directory(&mut self, name: &str) -> Result<(), DatabaseError> {
        let path = path(name)?;
        if self.tree.get(&path).is_none() {
            self.tree.put(&path, Meta::root(0o755, self.epoch), Kind::Directory(BTreeMap::new()))?;
        }
        Ok(())
    }

    fn file(&mut self, name: &str, mode: u16, bytes: impl Into<Vec<u8>>) -> Result<(), DatabaseError> {
        self.tree.put_file(&path(name)?, mode, self.epoch, bytes)?;
        Ok(())
    }
}

fn path(name: &str) -> Result<TreePath, DatabaseError> {
    Ok(TreePath::new(format!("{DIRECTORY}/{name}")).map_err(TreeError::from)?)
}
