//! dpkg's database (`/var/lib/dpkg`) in a tree: which packages are there, in which state, with which files.
//!
//! Read of any tree, for the manifest and `inspect`; written as dpkg 1.22 leaves it after `dpkg --unpack`, so that the
//! real dpkg goes on from there. Packages that are only unpacked get no pending triggers: dpkg counts an interest
//! only once the interested package is configured (`trig_record_activation`).

mod read;
mod write;

use crate::debian::control::ControlError;
use crate::debian::deb::{Control, Interest};
use crate::tree::TreeError;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Where the database is, from the root of a tree.
pub const DIRECTORY: &str = "var/lib/dpkg";

/// dpkg's database.
#[derive(Clone, Debug, Default)]
pub struct Database {
    /// The packages it knows, by name and architecture.
    pub packages: BTreeMap<(String, String), Package>,
    /// What `dpkg-divert` was told.
    pub diversions: Vec<Diversion>,
    /// What `dpkg-statoverride` was told.
    pub overrides: Vec<Override>,
    /// Interests in paths, in the order of the file.
    file_triggers: Vec<FileTrigger>,
    /// Interests in words: the lines of each file.
    word_triggers: BTreeMap<String, Vec<String>>,
    /// Triggers set off for packages that are configured already, and who waits for each. dpkg takes them in
    /// at its next run.
    activated: BTreeMap<String, BTreeSet<String>>,
}

/// A package in the database.
#[derive(Clone, Debug)]
pub struct Package {
    /// `Package`.
    pub name: String,
    /// `Version`; may be empty for packages that are not installed.
    pub version: String,
    /// `Architecture`.
    pub architecture: String,
    /// Whether `Multi-Arch` is `same`.
    pub multi_arch_same: bool,
    /// `Status`.
    pub status: Status,
    /// Its stanza, `Status` included.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Its files, absolute, as `info/*.list` has them (`/.` is the root). Empty when it has none installed.
    pub files: Vec<Vec<u8>>,
    /// Its files changed since the database was read.
    changed: bool,
    /// Control files that are new.
    info: BTreeMap<String, crate::debian::deb::ControlFile>,
}

/// The three words of `Status` (dpkg(1), "Information about packages").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What is wanted: `install`, `hold`, `deinstall`, `purge`, `unknown`.
    pub want: String,
    /// `ok` or `reinstreq`.
    pub flag: String,
    /// `installed`, `unpacked`, `config-files` …
    pub state: String,
}

/// A file that packages other than one find at another place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diversion {
    /// Absolute path.
    pub from: Vec<u8>,
    /// Where the others' file goes.
    pub to: Vec<u8>,
    /// Whose own file stays at `from`; `:` for a diversion by the administrator.
    pub package: String,
}

/// Owner and permissions the administrator gave a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// User: a name, or `#` and a number.
    pub user: String,
    /// Group: a name, or `#` and a number.
    pub group: String,
    /// Permissions.
    pub mode: u16,
    /// Absolute path.
    pub path: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FileTrigger {
    path: String,
    package: String,
    awaits: bool,
}

/// Why the database could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// A file of it could not be found or put.
    #[error("cannot use dpkg's database")]
    Tree(#[from] TreeError),
    /// A file of it could not be read.
    #[error("cannot read `{path}` of dpkg's database")]
    Read {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The status file.
    #[error("cannot read dpkg's status file")]
    Status(#[from] ControlError),
    /// Another file is malformed.
    #[error("`{path}` of dpkg's database, line {line}: {problem}")]
    Syntax {
        /// Which.
        path: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
}

impl Package {
    /// How its files in the database are named.
    pub fn database_name(&self) -> String {
        if self.multi_arch_same { format!("{}:{}", self.name, self.architecture) } else { self.name.clone() }
    }

    /// A field of its stanza as text, empty when it is absent or not UTF-8.
    pub fn field(&self, name: &str) -> &str {
        let field = self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        field.and_then(|(_, value)| std::str::from_utf8(value).ok()).unwrap_or_default().trim_ascii()
    }

    /// Takes a path from its list of files: another package owns it from now on.
    pub fn forget(&mut self, path: &[u8]) {
        self.files.retain(|file| file != path);
        self.changed = true;
    }
}

impl Status {
    /// Whether its files are there.
    pub fn has_files(&self) -> bool {
        !matches!(self.state.as_str(), "not-installed" | "config-files")
    }

    /// Whether triggers are kept for it (dpkg: from `triggers-awaited` on).
    fn takes_triggers(&self) -> bool {
        matches!(self.state.as_str(), "triggers-awaited" | "triggers-pending" | "installed")
    }
}

impl Database {
    /// Packages with their files in place, whatever their state.
    pub fn present(&self) -> impl Iterator<Item = &Package> {
        self.packages.values().filter(|package| package.status.has_files())
    }

    /// Records a package as unpacked, with these files, in dpkg's order. `md5sums` is for a package that has none of
    /// its own. What it activates is kept for packages that are configured already.
    pub fn add_unpacked(&mut self, control: &Control, files: Vec<Vec<u8>>, md5sums: Option<Vec<u8>>) {
        let owner = control.database_name();
        for trigger in &control.triggers {
            match trigger.interest {
                Interest::Activates => self.activate_word(&trigger.name, &owner, trigger.awaits),
                Interest::Interested if trigger.name.starts_with('/') => {
                    self.file_triggers.push(FileTrigger {
                        path: trigger.name.clone(),
                        package: owner.clone(),
                        awaits: trigger.awaits,
                    })
                }
                Interest::Interested => {
                    let line = if trigger.awaits { owner.clone() } else { format!("{owner}/noawait") };
                    self.word_triggers.entry(trigger.name.clone()).or_default().push(line);
                }
            }
        }
        let mut info = control.files.clone();
        if let Some(bytes) = md5sums {
            info.insert(
                "md5sums".to_owned(),
                crate::debian::deb::ControlFile { mode: 0o644, mtime: 0, bytes },
            );
        }
        let status = Status { want: "install".into(), flag: "ok".into(), state: "unpacked".into() };
        let package = Package {
            name: control.name.clone(),
            version: control.version.clone(),
            architecture: control.architecture.clone(),
            multi_arch_same: control.multi_arch_same,
            fields: write::stanza(control, &status),
            status,
            files,
            changed: true,
            info,
        };
        self.packages.insert((package.name.clone(), package.architecture.clone()), package);
    }

    /// Notes that `owner` put something at `path` (absolute), for packages that are configured and interested in it.
    pub fn activate_file(&mut self, path: &str, owner: &str) {
        let interested = self.file_triggers.iter().filter(|trigger| trigger.path == path);
        let waiting: Vec<&str> = interested
            .filter(|trigger| self.takes_triggers(&trigger.package))
            .map(|trigger| if trigger.awaits { owner } else { "-" })
            .collect();
        if !waiting.is_empty() {
            let waiting: Vec<String> = waiting.into_iter().map(str::to_owned).collect();
            self.activated.entry(path.to_owned()).or_default().extend(waiting);
        }
    }

    /// Whether any configured package is interested in paths: without one, [`Database::activate_file`] does nothing.
    pub fn watches_files(&self) -> bool {
        self.file_triggers.iter().any(|trigger| self.takes_triggers(&trigger.package))
    }

    fn activate_word(&mut self, name: &str, owner: &str, awaits: bool) {
        let mut waiting: BTreeSet<String> = BTreeSet::new();
        for line in self.word_triggers.get(name).map(Vec::as_slice).unwrap_or_default() {
            let (package, noawait) =
                line.split_once('/').map_or((line.as_str(), false), |(package, _)| (package, true));
            if self.takes_triggers(package) {
                waiting.insert(if awaits && !noawait { owner } else { "-" }.to_owned());
            }
        }
        if !waiting.is_empty() {
            self.activated.entry(name.to_owned()).or_default().extend(waiting);
        }
    }

    /// `name` or `name:arch`.
    fn takes_triggers(&self, package: &str) -> bool {
        let (name, architecture) = package.split_once(':').unwrap_or((package, ""));
        let mut found = self.packages.range((name.to_owned(), architecture.to_owned())..);
        found.next().is_some_and(|((known, of), package)| {
            known == name
                && (architecture.is_empty() || of == architecture)
                && package.status.takes_triggers()
        })
    }
}

#[cfg(test)]
mod tests;
