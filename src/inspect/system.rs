//! What a root filesystem says about itself: release, packages, kernels, and hardtack's manifest if it made it.

use super::{InspectError, Inspected, Part};
use crate::artifact::manifest::{self, Manifest};
use crate::debian::dpkg::{self, Database};
use crate::meta::{Meta, Timestamp};
use crate::tree::{Kind, Tree, TreeError, TreePath};
use std::collections::BTreeSet;
use std::error::Error;

/// Where os-release(5) is, in the order it is looked for, without the leading slash.
pub(super) const OS_RELEASE: [&str; 2] = ["etc/os-release", "usr/lib/os-release"];

/// Longest release or host name file that is read, in bytes.
const MAX_TEXT: u64 = 64 << 10;
/// Longest manifest that is read, in bytes: two hundred times that of the largest profile.
const MAX_MANIFEST: u64 = 16 << 20;

/// The system in an image.
#[derive(Debug, Default)]
pub struct System {
    /// Number of the partition with its root filesystem.
    pub root: u32,
    /// Which release of which distribution.
    pub release: Option<OsRelease>,
    /// `/etc/hostname`.
    pub hostname: Option<String>,
    /// Debian architecture: that of its dpkg.
    pub architecture: Option<String>,
    /// How many packages have their files in place; `None` when there is no dpkg, or it cannot be read.
    pub packages: Option<usize>,
    /// Kernels that firmware or a boot loader can start.
    pub kernels: Vec<Kernel>,
    /// Versions that `/lib/modules` has modules for.
    pub modules: Vec<String>,
    /// The manifest, when hardtack built it.
    pub manifest: Option<Manifest>,
    /// What was there and could not be read, in words.
    pub notes: Vec<String>,
}

/// What os-release(5) says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OsRelease {
    /// `PRETTY_NAME`, or what the standard says when it is not there.
    pub pretty_name: String,
    /// `ID`.
    pub id: String,
    /// `VERSION_ID`; empty for testing and unstable.
    pub version_id: String,
    /// `VERSION_CODENAME`.
    pub codename: String,
}

/// A kernel's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its path in the system.
    pub path: TreePath,
    /// Its version, if the name says it: `kernel8.img` does not.
    pub version: Option<String>,
}

impl Inspected {
    /// Reads what the root filesystem says about its system. What is missing is `None`; what is damaged is in
    /// [`System::notes`].
    pub fn system(&self) -> Result<System, InspectError> {
        let root = self.root()?.partition.number;
        let tree = self.files(Part::System)?;
        let mut system = System { root, ..System::default() };
        // The second place is looked at only when the first gives nothing.
        let release = OS_RELEASE.iter().find_map(|path| system.text(&tree, path));
        system.release = release.map(|text| OsRelease::parse(&text));
        let hostname = system.text(&tree, "etc/hostname");
        system.hostname = hostname.map(|text| text.trim().to_owned()).filter(|name| !name.is_empty());
        system.read_packages(&tree);
        system.kernels = kernels(&tree);
        system.modules = names(&tree, "lib/modules").into_iter().collect();
        system.manifest = system.read_manifest(&tree);
        Ok(system)
    }
}

impl System {
    /// The bytes of a file; `None` when it is not there, and with a note when it cannot be read.
    fn bytes(&mut self, tree: &Tree, path: &str, limit: u64) -> Option<Vec<u8>> {
        let read = match TreePath::new(path).map_err(TreeError::from).and_then(|path| tree.file(&path)) {
            Err(TreeError::Missing(_)) => return None,
            Err(error) => Err(error.to_string()),
            Ok(content) => content.read_to_vec(limit).map_err(|error| format!("/{path}: {error}")),
        };
        read.map_err(|note| self.notes.push(note)).ok()
    }

    fn text(&mut self, tree: &Tree, path: &str) -> Option<String> {
        self.bytes(tree, path, MAX_TEXT).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn read_packages(&mut self, tree: &Tree) {
        let status = match status_alone(tree) {
            Ok(Some(status)) => status,
            Ok(None) => return,
            Err(error) => return self.notes.push(error.to_string()),
        };
        match Database::read(&status) {
            Ok(database) => {
                self.packages = Some(database.present().count());
                let dpkg = database.present().find(|package| package.name == "dpkg");
                self.architecture = dpkg.map(|package| package.architecture.clone());
            }
            Err(error) => {
                let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                self.notes.push(format!("{error}{cause}"));
            }
        }
    }

    fn read_manifest(&mut self, tree: &Tree) -> Option<Manifest> {
        let bytes = self.bytes(tree, manifest::PATH, MAX_MANIFEST)?;
        let known = serde_json::from_slice::<serde_json::Value>(&bytes).ok();
        let format = known.as_ref().and_then(|value| value.get("format")?.as_u64());
        if let Some(newer) = format.filter(|format| *format > u64::from(manifest::FORMAT)) {
            let known = manifest::FORMAT;
            self.notes.push(format!(
                "the manifest has format {newer}, this hardtack knows up to {known}: a newer one built the image"
            ));
            return None;
        }
        match serde_json::from_slice(&bytes) {
            Ok(manifest) => Some(manifest),
            Err(error) => {
                self.notes.push(format!("/{} is no manifest: {error}", manifest::PATH));
                None
            }
        }
    }
}

impl OsRelease {
    /// Reads the text of the file: assignments as a shell understands them, the last of a name counts.
    pub fn parse(text: &str) -> Self {
        let mut release = Self { pretty_name: "Linux".into(), id: "linux".into(), ..Self::default() };
        for line in text.lines() {
            let Some((name, value)) = line.trim().split_once('=') else { continue };
            let field = match name {
                "PRETTY_NAME" => &mut release.pretty_name,
                "ID" => &mut release.id,
                "VERSION_ID" => &mut release.version_id,
                "VERSION_CODENAME" => &mut release.codename,
                _ => continue,
            };
            *field = unquote(value);
        }
        release
    }
}

/// Takes quotes and backslashes away, as a shell does: in single quotes a backslash is one.
fn unquote(value: &str) -> String {
    if let Some(inner) = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        return inner.to_owned();
    }
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        text.extend(if char == '\\' { chars.next() } else { Some(char) });
    }
    text
}

/// A tree with nothing but dpkg's status file, if there is one: counting packages takes no list of files, and a hostile
/// image can name a large one for every package.
fn status_alone(tree: &Tree) -> Result<Option<Tree>, TreeError> {
    let path = TreePath::new(format!("{}/status", dpkg::DIRECTORY))?;
    let content = match tree.file(&path) {
        Ok(content) => content.clone(),
        Err(TreeError::Missing(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut alone = Tree::new(Timestamp::default());
    alone.put(&path, Meta::root(0o644, Timestamp::default()), Kind::File(content))?;
    Ok(Some(alone))
}

/// Kernels by the names that Debian (`vmlinuz-VERSION`) and Raspberry Pi OS (`kernel*.img`) give them.
fn kernels(tree: &Tree) -> Vec<Kernel> {
    let mut found = Vec::new();
    for directory in ["boot", "boot/firmware", ""] {
        for name in names(tree, directory) {
            let version = name.strip_prefix("vmlinuz-").filter(|version| !version.is_empty());
            if version.is_none() && !(name.starts_with("kernel") && name.ends_with(".img")) {
                continue;
            }
            let path = TreePath::new(directory).and_then(|directory| directory.join(name.as_bytes()));
            let Ok(path) = path else { continue };
            let is_file = tree.get(&path).is_some_and(|node| matches!(node.kind, Kind::File(_)));
            if is_file {
                found.push(Kernel { path, version: version.map(str::to_owned) });
            }
        }
    }
    found
}

/// The names in a directory, which may be a link to one; none when there is no such directory.
fn names(tree: &Tree, directory: &str) -> BTreeSet<String> {
    let node = TreePath::new(directory).ok().and_then(|path| tree.look_up(&path).ok());
    match node.map(|node| &node.kind) {
        Some(Kind::Directory(children)) => {
            children.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
        }
        _ => BTreeSet::new(),
    }
}
