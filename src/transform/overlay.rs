//! Overlays merged into the tree: files with the mode and owner their manifest gives them.

use crate::meta::{Meta, Timestamp};
use crate::profile::{Overlay, OverlayKind, Ownership, Principal};
use crate::tree::{Kind, Tree, TreeError, TreePath};
use std::collections::BTreeMap;

/// Why an overlay could not be merged.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// The tree has something else there.
    #[error("overlay `{overlay}`")]
    Tree {
        /// Which overlay.
        overlay: String,
        /// What is wrong.
        #[source]
        source: TreeError,
    },
    /// A name that the image's accounts do not have.
    #[error("{path}: {what} `{name}` is not in the image's /etc/{file}")]
    Principal {
        /// What was to be owned.
        path: TreePath,
        /// `owner` or `group`.
        what: &'static str,
        /// The name.
        name: String,
        /// Where it was looked up.
        file: &'static str,
    },
    /// The image's own accounts could not be read.
    #[error("/etc/{file} of the image could not be read")]
    Accounts {
        /// Which file.
        file: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The numbers behind the names in the image's `/etc/passwd` and `/etc/group`.
pub struct Names {
    users: BTreeMap<String, u32>,
    groups: BTreeMap<String, u32>,
}

impl Names {
    /// Reads them; a file that is not there has no names.
    pub fn read(tree: &Tree) -> Result<Self, OverlayError> {
        Ok(Self { users: ids(tree, "passwd")?, groups: ids(tree, "group")? })
    }

    /// Metadata for something with this mode and these owners.
    pub fn meta(&self, path: &TreePath, ownership: &Ownership, now: Timestamp) -> Result<Meta, OverlayError> {
        let find = |principal: &Principal, what, file, names: &BTreeMap<String, u32>| match principal {
            Principal::Id(id) => Ok(*id),
            Principal::Name(name) => names.get(name).copied().ok_or_else(|| OverlayError::Principal {
                path: path.clone(),
                what,
                name: name.clone(),
                file,
            }),
        };
        let uid = find(&ownership.owner, "owner", "passwd", &self.users)?;
        let gid = find(&ownership.group, "group", "group", &self.groups)?;
        Ok(Meta { uid, gid, ..Meta::root(ownership.mode, now) })
    }
}

fn ids(tree: &Tree, file: &'static str) -> Result<BTreeMap<String, u32>, OverlayError> {
    let path = TreePath::new(format!("etc/{file}")).unwrap_or_default();
    let Ok(content) = tree.file(&path) else { return Ok(BTreeMap::new()) };
    let bytes = content.read_to_vec(1 << 20).map_err(|source| OverlayError::Accounts { file, source })?;
    let text = String::from_utf8_lossy(&bytes);
    let line = |line: &str| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
    };
    Ok(text.lines().filter_map(line).collect())
}

/// Merges an overlay. Its files replace what is there; a directory of the image never becomes a file or the reverse.
pub fn merge(tree: &mut Tree, overlay: &Overlay, names: &Names, now: Timestamp) -> Result<(), OverlayError> {
    for entry in overlay.entries() {
        put(tree, &entry.path, &entry.kind, names, now).map_err(|error| match error {
            OverlayError::Tree { source, .. } => OverlayError::Tree { overlay: overlay.name.clone(), source },
            other => other,
        })?;
    }
    Ok(())
}

/// Puts one thing as an overlay or a profile asks for it.
pub fn put(
    tree: &mut Tree,
    path: &TreePath,
    kind: &OverlayKind,
    names: &Names,
    now: Timestamp,
) -> Result<(), OverlayError> {
    let failed = |source| OverlayError::Tree { overlay: String::new(), source };
    let directory = || Kind::Directory(BTreeMap::new());
    let (meta, kind) = match kind {
        OverlayKind::File(content, ownership) => {
            (names.meta(path, ownership, now)?, Kind::File(content.clone()))
        }
        OverlayKind::Symlink(target) => (Meta::root(0o777, now), Kind::Symlink(target.clone())),
        OverlayKind::Directory(ownership) => {
            let meta = names.meta(path, ownership, now)?;
            let real = tree.put(path, meta.clone(), directory()).map_err(failed)?;
            // Through a link to a directory, `put` leaves that directory's own metadata alone; a manifest means it.
            *tree.meta_mut(&real).map_err(failed)? = meta;
            return Ok(());
        }
        OverlayKind::DirectoryIfAbsent => {
            let real = tree.resolve(path).map_err(failed)?;
            if tree.get(&real).is_some_and(|node| node.kind.is_directory()) {
                return Ok(());
            }
            (Meta::root(0o755, now), directory())
        }
    };
    tree.put(path, meta, kind).map_err(failed)?;
    Ok(())
}
