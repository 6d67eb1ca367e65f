//! Differences between trees: what the sandbox brings back, and what a test shows when two trees should be equal.

use super::{Kind, NodeId, Tree, TreeError, TreePath};
use crate::content::Content;
use crate::meta::Meta;
use std::collections::BTreeMap;
use std::io;

/// One step from one tree to another. Paths are exact: no symbolic link is followed.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new node at `path`, or another one in the place of what is there. A directory put over a directory keeps what
    /// it holds and takes the metadata.
    Put {
        /// Where.
        path: TreePath,
        /// Its metadata.
        meta: Meta,
        /// What it is; a directory comes without its children, which follow as changes of their own.
        kind: Kind,
    },
    /// A second name of the node that `target` names by then.
    Link {
        /// The new name.
        path: TreePath,
        /// The other name.
        target: TreePath,
    },
    /// The name is gone, with everything below it.
    Remove {
        /// Which.
        path: TreePath,
    },
    /// Other metadata, same contents. Concerns every name of the node.
    Meta {
        /// Which.
        path: TreePath,
        /// The whole new metadata.
        meta: Meta,
    },
}

impl Change {
    /// The path it is about.
    pub fn path(&self) -> &TreePath {
        match self {
            Change::Put { path, .. } | Change::Link { path, .. } => path,
            Change::Remove { path } | Change::Meta { path, .. } => path,
        }
    }
}

impl Tree {
    /// Makes the changes, in their order. Removing what is not there is no error; anything else that does not fit is, and
    /// then the changes before it are made.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Result<(), TreeError> {
        for change in changes {
            match change {
                Change::Put { path, meta, kind } => {
                    // `put` follows a link when a directory is put over it; here the path is meant exactly.
                    let found = self.get(&path).map(|node| &node.kind);
                    if let Some(Kind::Symlink(_)) = found
                        && kind.is_directory()
                    {
                        return Err(TreeError::InTheWay {
                            path,
                            found: "symbolic link",
                            wanted: "directory",
                        });
                    }
                    self.in_real_directory(&path)?;
                    self.put(&path, meta, kind)?;
                }
                Change::Link { path, target } => {
                    self.in_real_directory(&path)?;
                    self.in_real_directory(&target)?;
                    self.link(&path, &target)?;
                }
                Change::Remove { path } => {
                    self.remove(&path);
                }
                Change::Meta { path, meta } => *self.meta_mut(&path)? = meta,
            }
        }
        Ok(())
    }

    /// No component above the last may be a link (or anything else that is not a directory).
    fn in_real_directory(&self, path: &TreePath) -> Result<(), TreeError> {
        let mut at = TreePath::root();
        for part in path.parent().unwrap_or_default().components() {
            at = at.join(part)?;
            match self.get(&at).map(|node| &node.kind) {
                None => return Ok(()),
                Some(Kind::Directory(_)) => {}
                Some(other) => {
                    return Err(TreeError::NotADirectory { path: path.clone(), at, found: other.word() });
                }
            }
        }
        Ok(())
    }
}

/// The changes that make `old` equal to `new`: same names, metadata, contents and hard links. Layers are not compared.
/// Contents are read and compared where lengths are the same; an error is one of reading.
pub fn diff(old: &Tree, new: &Tree) -> io::Result<Vec<Change>> {
    let mut changes = Vec::new();
    let names = |tree: &Tree| {
        let mut names: BTreeMap<NodeId, Vec<TreePath>> = BTreeMap::new();
        tree.walk().for_each(|(path, id)| names.entry(id).or_default().push(path));
        names
    };
    let (old_names, new_names) = (names(old), names(new));
    let mut removed: Option<TreePath> = None;
    for (path, id) in old.walk() {
        if removed.as_ref().is_some_and(|above| path.starts_with(above)) {
            continue;
        }
        let now = new.get(&path);
        if now.is_none_or(|now| now.kind.is_directory() != old.node(id).kind.is_directory()) {
            changes.push(Change::Remove { path: path.clone() });
            removed = Some(path);
        }
    }
    for (path, id) in new.walk() {
        let node = new.node(id);
        let group = &new_names[&id];
        let was =
            old.id(&path).filter(|old_id| old.node(*old_id).kind.is_directory() == node.kind.is_directory());
        // Equal when it has the same names as before: a name more or less is told by putting the whole group again.
        let same_group = was.is_some_and(|was| old_names[&was] == *group);
        if !node.kind.is_directory() && group[0] != path {
            if !same_group
                || !was.is_some_and(|was| same_kind(&old.node(was).kind, &node.kind).unwrap_or(false))
            {
                changes.push(Change::Link { path, target: group[0].clone() });
            }
            continue;
        }
        match was.map(|was| old.node(was)) {
            Some(was) if (same_group || node.kind.is_directory()) && same_kind(&was.kind, &node.kind)? => {
                if was.meta != node.meta {
                    changes.push(Change::Meta { path, meta: node.meta.clone() });
                }
            }
            _ => {
                let kind = match &node.kind {
                    Kind::Directory(_) => Kind::Directory(BTreeMap::new()),
                    kind => kind.clone(),
                };
                changes.push(Change::Put { path, meta: node.meta.clone(), kind });
            }
        }
    }
    Ok(changes)
}

fn same_kind(old: &Kind, new: &Kind) -> io::Result<bool> {
    Ok(match (old, new) {
        (Kind::File(old), Kind::File(new)) => same_content(old, new)?,
        (Kind::Symlink(old), Kind::Symlink(new)) => old == new,
        (Kind::CharDevice(old), Kind::CharDevice(new)) | (Kind::BlockDevice(old), Kind::BlockDevice(new)) => {
            old == new
        }
        (Kind::Directory(_), Kind::Directory(_))
        | (Kind::Fifo, Kind::Fifo)
        | (Kind::Socket, Kind::Socket) => true,
        _ => false,
    })
}

/// Whether two files hold the same bytes.
pub fn same_content(old: &Content, new: &Content) -> io::Result<bool> {
    if old.len() != new.len() {
        return Ok(false);
    }
    const STEP: u64 = 64 << 10;
    let (mut left, mut right) = (vec![0; STEP as usize], vec![0; STEP as usize]);
    let mut at = 0;
    while at < old.len() {
        let n = STEP.min(old.len() - at) as usize;
        old.read_exact_at(&mut left[..n], at)?;
        new.read_exact_at(&mut right[..n], at)?;
        if left[..n] != right[..n] {
            return Ok(false);
        }
        at += n as u64;
    }
    Ok(true)
}
