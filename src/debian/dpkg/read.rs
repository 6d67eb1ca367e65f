//! Reads the database of a tree. A tree without one has no packages.

use super::{DIRECTORY, Database, DatabaseError, Diversion, FileTrigger, Override, Package, Status};
use crate::debian::control::Stanzas;
use crate::tree::{Kind, Tree, TreePath};
use std::collections::BTreeMap;

/// The longest file of the database that is read, in bytes. A status file of 3,000 packages takes a twentieth.
const MAX_FILE: u64 = 128 << 20;

impl Database {
    /// Reads the database of a tree, without control files other than the lists of files.
    pub fn read(tree: &Tree) -> Result<Self, DatabaseError> {
        let mut database = Self::default();
        let status = file(tree, "status")?.unwrap_or_default();
        for stanza in Stanzas::new(&status) {
            let stanza = stanza?;
            let text = |name: &str| Ok::<_, DatabaseError>(stanza.text(name)?.unwrap_or_default().to_owned());
            let words = text("Status")?;
            let words: Vec<&str> = words.split_ascii_whitespace().collect();
            let [want, flag, state] = words[..] else {
                let problem =
                    format!("expected a `Status` of three words, found `{}`", words.join(" ").escape_debug());
                return Err(DatabaseError::Syntax { path: "status".into(), line: stanza.line(), problem });
            };
            let status = Status { want: want.into(), flag: flag.into(), state: state.into() };
            let mut package = Package {
                name: stanza.require("Package")?.to_owned(),
                version: text("Version")?,
                architecture: text("Architecture")?,
                multi_arch_same: text("Multi-Arch")? == "same",
                fields: stanza
                    .fields()
                    .iter()
                    .map(|field| (field.name.to_owned(), field.value.to_vec()))
                    .collect(),
                status,
                files: Vec::new(),
                changed: false,
                info: BTreeMap::new(),
            };
            if package.status.has_files() {
                package.files = list(tree, &package)?;
            }
            database.packages.insert((package.name.clone(), package.architecture.clone()), package);
        }
        database.diversions = diversions(&file(tree, "diversions")?.unwrap_or_default())?;
        database.overrides = overrides(&file(tree, "statoverride")?.unwrap_or_default())?;
        database.file_triggers = file_triggers(&file(tree, "triggers/File")?.unwrap_or_default())?;
        database.read_word_triggers(tree)?;
        for line in lines(&file(tree, "triggers/Unincorp")?.unwrap_or_default()) {
            let mut words = line.1.split_ascii_whitespace();
            if let Some(trigger) = words.next() {
                database.activated.entry(trigger.to_owned()).or_default().extend(words.map(str::to_owned));
            }
        }
        Ok(database)
    }

    fn read_word_triggers(&mut self, tree: &Tree) -> Result<(), DatabaseError> {
        let directory = tree.get(&path("triggers")?).map(|node| &node.kind);
        let Some(Kind::Directory(children)) = directory else { return Ok(()) };
        for (name, id) in children {
            let Ok(name) = std::str::from_utf8(name) else { continue };
            if matches!(name, "File" | "Unincorp" | "Lock") || !matches!(tree.node(*id).kind, Kind::File(_)) {
                continue;
            }
            let bytes = file(tree, &format!("triggers/{name}"))?.unwrap_or_default();
            let lines = lines(&bytes).into_iter().map(|(_, line)| line.to_owned()).collect();
            self.word_triggers.insert(name.to_owned(), lines);
        }
        Ok(())
    }
}

fn list(tree: &Tree, package: &Package) -> Result<Vec<Vec<u8>>, DatabaseError> {
    // Before format 1 of the database every list was named by the package alone.
    for name in [package.database_name(), package.name.clone()] {
        if let Some(bytes) = file(tree, &format!("info/{name}.list"))? {
            let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            return Ok(lines.map(<[u8]>::to_vec).collect());
        }
    }
    Ok(Vec::new())
}

fn file(tree: &Tree, name: &str) -> Result<Option<Vec<u8>>, DatabaseError> {
    let Some(node) = tree.get(&path(name)?) else { return Ok(None) };
    match &node.kind {
        Kind::File(content) => {
            let bytes = content.read_to_vec(MAX_FILE);
            bytes.map(Some).map_err(|source| DatabaseError::Read { path: name.to_owned(), source })
        }
        _ => Ok(None),
    }
}

fn path(name: &str) -> Result<TreePath, DatabaseError> {
    Ok(TreePath::new(format!("{DIRECTORY}/{name}")).map_err(crate::tree::TreeError::from)?)
}

fn lines(bytes: &[u8]) -> Vec<(usize, &str)> {
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    lines
        .filter_map(|(at, line)| Some((at + 1, std::str::from_utf8(line).ok()?)))
        .filter(|line| !line.1.is_empty())
        .collect()
}

fn diversions(bytes: &[u8]) -> Result<Vec<Diversion>, DatabaseError> {
    let mut lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate();
    let mut diversions = Vec::new();
    while let Some((at, from)) = lines.next() {
        let (Some((_, to)), Some((_, package))) = (lines.next(), lines.next()) else {
            let problem = "expected three lines for each diversion".to_owned();
            return Err(DatabaseError::Syntax { path: "diversions".into(), line: at + 1, problem });
        };
        let package = String::from_utf8_lossy(package).into_owned();
        diversions.push(Diversion { from: from.to_vec(), to: to.to_vec(), package });
    }
    Ok(diversions)
}

fn overrides(bytes: &[u8]) -> Result<Vec<Override>, DatabaseError> {
    let mut overrides = Vec::new();
    for (line, text) in lines(bytes) {
        let mut words = text.splitn(4, ' ');
        let (user, group, mode, path) = (words.next(), words.next(), words.next(), words.next());
        let mode = mode.and_then(|mode| u16::from_str_radix(mode, 8).ok()).filter(|mode| *mode <= 0o7777);
        let (Some(user), Some(group), Some(mode), Some(path)) = (user, group, mode, path) else {
            let problem = format!("expected `user group mode path`, found `{}`", text.escape_debug());
            return Err(DatabaseError::Syntax { path: "statoverride".into(), line, problem });
        };
        overrides.push(Override {
            user: user.into(),
            group: group.into(),
            mode,
            path: path.as_bytes().to_vec(),
        });
    }
    Ok(overrides)
}

fn file_triggers(bytes: &[u8]) -> Result<Vec<FileTrigger>, DatabaseError> {
    let mut triggers = Vec::new();
    for (line, text) in lines(bytes) {
        let Some((path, package)) = text.rsplit_once(' ').filter(|(path, _)| path.starts_with('/')) else {
            let problem = format!("expected `/path package`, found `{}`", text.escape_debug());
            return Err(DatabaseError::Syntax { path: "triggers/File".into(), line, problem });
        };
        let (package, awaits) = match package.split_once('/') {
            Some((package, option)) => (package, option != "noawait"),
            None => (package, true),
        };
        triggers.push(FileTrigger { path: path.to_owned(), package: package.to_owned(), awaits });
    }
    Ok(triggers)
}
