//! A filesystem in memory. Contents are references ([`Content`]), so a tree of a whole system takes a few tens of
//! megabytes and is cheap to clone. It knows no disk format and opens no file.
//!
//! Children are kept by name in byte order, so every walk is in one order whatever put the tree together.
//! Hard links are one node with several names.

pub mod diff;
pub mod dump;
pub mod path;

use crate::content::Content;
use crate::format::entry::{Device, Entry, EntryKind};
use crate::meta::{Meta, Timestamp};
pub use path::{PathError, TreePath};
use std::collections::BTreeMap;

/// A node's place in its tree. Only meaningful for the tree that gave it, or a clone of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

/// One inode.
#[derive(Clone, Debug)]
pub struct Node {
    /// Permissions, owner, time, extended attributes.
    pub meta: Meta,
    /// What it is, and what it holds.
    pub kind: Kind,
    /// The layer that last wrote it, see [`Entry::layer`].
    pub layer: u16,
}

/// What a [`Node`] is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A directory: names in byte order.
    Directory(BTreeMap<Vec<u8>, NodeId>),
    /// A regular file.
    File(Content),
    /// A symbolic link's target.
    Symlink(Vec<u8>),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// A Unix socket's name.
    Socket,
}

impl Kind {
    /// The word used in messages.
    pub fn word(&self) -> &'static str {
        match self {
            Kind::Directory(_) => "directory",
            Kind::File(_) => "file",
            Kind::Symlink(_) => "symbolic link",
            Kind::CharDevice(_) => "character device",
            Kind::BlockDevice(_) => "block device",
            Kind::Fifo => "named pipe",
            Kind::Socket => "socket",
        }
    }

    /// Whether this is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self, Kind::Directory(_))
    }
}

/// Why a tree could not be read or changed at a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// Nothing has that name.
    #[error("{0}: no such file or directory")]
    Missing(TreePath),
    /// A component on the way is not a directory.
    #[error("{path}: {at} is a {found}, not a directory")]
    NotADirectory {
        /// What was asked for.
        path: TreePath,
        /// The component in the way.
        at: TreePath,
        /// What that is.
        found: &'static str,
    },
    /// A directory stands where something else was to be put, or the other way round.
    #[error("{path}: a {found} is there already; it cannot become a {wanted}")]
    InTheWay {
        /// The place.
        path: TreePath,
        /// What is there.
        found: &'static str,
        /// What was to be put.
        wanted: &'static str,
    },
    /// More symbolic links than a Linux kernel follows (40, path_resolution(7)).
    #[error("{0}: too many symbolic links, or a cycle of them")]
    TooManyLinks(TreePath),
    /// A directory was given a second name.
    #[error("{0}: a directory cannot have a second name")]
    LinkToDirectory(TreePath),
    /// A bad path, in a link target or an entry.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A list of entries breaks the rules of [`Entry`].
    #[error("{path}: {problem}")]
    Entries {
        /// Which entry.
        path: TreePath,
        /// Which rule.
        problem: &'static str,
    },
    /// More nodes than 32 bits count.
    #[error("the tree has too many files")]
    Full,
}

/// A filesystem in memory.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    layer: u16,
}

const ROOT: NodeId = NodeId(0);
const MAX_LINKS: u32 = 40;

impl Tree {
    /// An empty tree: a root directory, mode 0755, owned by root.
    pub fn new(mtime: Timestamp) -> Self {
        let root = Node { meta: Meta::root(0o755, mtime), kind: Kind::Directory(BTreeMap::new()), layer: 0 };
        Self { nodes: vec![root], layer: 0 }
    }

    /// From now on, whatever is put or changed belongs to this layer.
    pub fn set_layer(&mut self, layer: u16) {
        self.layer = layer;
    }

    /// The layer that changes belong to.
    pub fn layer(&self) -> u16 {
        self.layer
    }

    /// The root directory.
    pub fn root(&self) -> NodeId {
        ROOT
    }

    /// A node by its id.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// The node with exactly this path; no link is followed.
    pub fn get(&self, path: &TreePath) -> Option<&Node> {
        self.id(path).map(|id| self.node(id))
    }

    /// The id of the node with exactly this path; no link is followed.
    pub fn id(&self, path: &TreePath) -> Option<NodeId> {
        path.components().try_fold(ROOT, |at, name| match &self.node(at).kind {
            Kind::Directory(children) => children.get(name).copied(),
            _ => None,
        })
    }

    /// The path that `path` names after following every symbolic link in it, the last one too. Links are followed
    /// inside the tree: an absolute target starts at its root, and `..` stops there. The last component need not
    /// exist.
    pub fn resolve(&self, path: &TreePath) -> Result<TreePath, TreeError> {
        self.follow(path, true)
    }

    /// Like [`Tree::resolve`], but the last component itself is not followed: where a new file would be put.
    pub fn resolve_parent(&self, path: &TreePath) -> Result<TreePath, TreeError> {
        self.follow(path, false)
    }

    fn follow(&self, path: &TreePath, last: bool) -> Result<TreePath, TreeError> {
        let mut todo: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
        let mut done: Vec<Vec<u8>> = Vec::new();
        let mut ids = vec![ROOT];
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                done.pop();
                ids.truncate(done.len() + 1);
                continue;
            }
            let here = ids.last().copied().unwrap_or(ROOT);
            let child = match &self.node(here).kind {
                Kind::Directory(children) => children.get(&name).copied(),
                // Below something that does not exist or is not a directory the rest is taken as it stands:
                // the caller finds out what is missing when it looks.
                _ => None,
            };
            match child.map(|id| (id, &self.node(id).kind)) {
                Some((_, Kind::Symlink(target))) if last || !todo.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(TreeError::TooManyLinks(path.clone()));
                    }
                    if target.starts_with(b"/") {
                        done.clear();
                        ids.truncate(1);
                    }
                    let parts =
                        target.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
                    todo.extend(parts.rev().map(<[u8]>::to_vec));
                }
                Some((id, _)) => {
                    done.push(name);
                    ids.push(id);
                }
                None => {
                    done.push(name);
                    done.extend(todo.drain(..).rev());
                }
            }
        }
        Ok(TreePath::new(done.join(&b'/'))?)
    }

    /// The node that `path` leads to, following every link.
    pub fn look_up(&self, path: &TreePath) -> Result<&Node, TreeError> {
        let real = self.resolve(path)?;
        self.get(&real).ok_or_else(|| TreeError::Missing(path.clone()))
    }

    /// The contents of the file that `path` leads to, following every link.
    pub fn file(&self, path: &TreePath) -> Result<&Content, TreeError> {
        match &self.look_up(path)?.kind {
            Kind::File(content) => Ok(content),
            other => Err(TreeError::InTheWay { path: path.clone(), found: other.word(), wanted: "file" }),
        }
    }

    /// Puts something at `path`. Symbolic links among its parent directories are followed, as dpkg does (so
    /// `lib/modules` lands in `usr/lib/modules` where `lib -> usr/lib`); missing parents are made (mode 0755, root).
    ///
    /// A directory put over a directory, or over a link to one, keeps what it holds; in the first case it takes the
    /// new metadata. Other things replace each other; a directory never silently becomes something else or the
    /// reverse. Gives the real path.
    pub fn put(&mut self, path: &TreePath, meta: Meta, kind: Kind) -> Result<TreePath, TreeError> {
        if path.is_root() {
            return match kind {
                Kind::Directory(_) => {
                    self.touch(ROOT).meta = meta;
                    Ok(path.clone())
                }
                other => {
                    Err(TreeError::InTheWay { path: path.clone(), found: "directory", wanted: other.word() })
                }
            };
        }
        let real = self.resolve_parent(path)?;
        let (parent, name) = self.make_parent(&real, meta.mtime)?;
        let existing = self.child(parent, &name);
        match (existing.map(|id| &self.node(id).kind), &kind) {
            (Some(Kind::Directory(_)), Kind::Directory(_)) => {
                if let Some(id) = existing {
                    self.touch(id).meta = meta;
                }
            }
            (Some(Kind::Symlink(_)), Kind::Directory(_)) => {
                let target = self.resolve(&real)?;
                if !self.get(&target).is_some_and(|node| node.kind.is_directory()) {
                    return Err(TreeError::InTheWay {
                        path: real,
                        found: "symbolic link that leads to no directory",
                        wanted: "directory",
                    });
                }
                return Ok(target);
            }
            (Some(found), wanted) if found.is_directory() || wanted.is_directory() => {
                return Err(TreeError::InTheWay { path: real, found: found.word(), wanted: wanted.word() });
            }
            _ => {
                let id = self.add(Node { meta, kind, layer: self.layer })?;
                self.attach(parent, name, id);
            }
        }
        Ok(real)
    }

    /// Puts a regular file owned by root.
    pub fn put_file(
        &mut self,
        path: &TreePath,
        mode: u16,
        mtime: Timestamp,
        bytes: impl Into<Vec<u8>>,
    ) -> Result<TreePath, TreeError> {
        self.put(path, Meta::root(mode, mtime), Kind::File(Content::inline(bytes)))
    }

    /// Gives the node at `target` (exactly, not a directory) a second name.
    pub fn link(&mut self, path: &TreePath, target: &TreePath) -> Result<TreePath, TreeError> {
        let target_path = self.resolve_parent(target)?;
        let id = self.id(&target_path).ok_or_else(|| TreeError::Missing(target.clone()))?;
        if self.node(id).kind.is_directory() {
            return Err(TreeError::LinkToDirectory(target.clone()));
        }
        let real = self.resolve_parent(path)?;
        let mtime = self.node(id).meta.mtime;
        let (parent, name) = self.make_parent(&real, mtime)?;
        if let Some(existing) = self.child(parent, &name)
            && self.node(existing).kind.is_directory()
        {
            return Err(TreeError::InTheWay { path: real, found: "directory", wanted: "hard link" });
        }
        self.touch(id);
        self.attach(parent, name, id);
        Ok(real)
    }

    /// Takes the name at exactly `path` away, with everything below it. Gives whether it was there.
    pub fn remove(&mut self, path: &TreePath) -> bool {
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else { return false };
        let Some(parent) = self.id(&parent) else { return false };
        let layer = self.layer;
        let node = &mut self.nodes[parent.0 as usize];
        let Kind::Directory(children) = &mut node.kind else { return false };
        let removed = children.remove(name).is_some();
        if removed {
            node.layer = layer;
        }
        removed
    }

    /// Moves everything below the directory at exactly `path` into a tree of its own, for another filesystem; the empty
    /// directory stays as the place to mount that. Names of one file become separate files.
    pub fn split_off(&mut self, path: &TreePath) -> Result<Tree, TreeError> {
        let id = self.id(path).ok_or_else(|| TreeError::Missing(path.clone()))?;
        let node = self.node(id);
        let Kind::Directory(children) = &node.kind else {
            let found = node.kind.word();
            return Err(TreeError::InTheWay { path: path.clone(), found, wanted: "directory" });
        };
        let names: Vec<Vec<u8>> = children.keys().cloned().collect();
        let mut split = Tree::new(node.meta.mtime);
        split.nodes[0].meta = node.meta.clone();
        let below = self.walk().filter(|(at, _)| at != path && at.starts_with(path));
        for (at, id) in below {
            let node = self.node(id);
            split.set_layer(node.layer);
            let kind = match &node.kind {
                Kind::Directory(_) => Kind::Directory(BTreeMap::new()),
                other => other.clone(),
            };
            split.put(&TreePath::new(&at.as_bytes()[path.as_bytes().len()..])?, node.meta.clone(), kind)?;
        }
        for name in names {
            self.remove(&path.join(&name)?);
        }
        Ok(split)
    }

    /// The metadata of the node at exactly `path`, to be changed.
    pub fn meta_mut(&mut self, path: &TreePath) -> Result<&mut Meta, TreeError> {
        let id = self.id(path).ok_or_else(|| TreeError::Missing(path.clone()))?;
        Ok(&mut self.touch(id).meta)
    }

    /// Every name below and including the root, directories before what they hold, in byte order of names. A node
    /// with several names comes several times.
    pub fn walk(&self) -> Walk<'_> {
        Walk { tree: self, stack: vec![(TreePath::root(), ROOT)] }
    }

    /// The tree as a list of entries for a writer. The first name of a node in walk order is the entry, later ones
    /// are hard links to it.
    pub fn entries(&self) -> Vec<Entry> {
        let mut first: BTreeMap<NodeId, usize> = BTreeMap::new();
        let mut entries: Vec<Entry> = Vec::new();
        for (path, id) in self.walk() {
            let node = self.node(id);
            let kind = match first.get(&id) {
                Some(index) => EntryKind::HardLink(*index),
                None => match &node.kind {
                    Kind::Directory(_) => EntryKind::Directory,
                    Kind::File(content) => EntryKind::File(content.clone()),
                    Kind::Symlink(target) => EntryKind::Symlink(target.clone()),
                    Kind::CharDevice(device) => EntryKind::CharDevice(*device),
                    Kind::BlockDevice(device) => EntryKind::BlockDevice(*device),
                    Kind::Fifo => EntryKind::Fifo,
                    Kind::Socket => EntryKind::Socket,
                },
            };
            first.entry(id).or_insert(entries.len());
            entries.push(Entry {
                path: path.as_bytes().to_vec(),
                meta: node.meta.clone(),
                kind,
                layer: node.layer,
            });
        }
        entries
    }

    /// A tree from what a reader yields. No link is followed: a path below anything but a directory is an error.
    pub fn from_entries(entries: impl IntoIterator<Item = Entry>) -> Result<Self, TreeError> {
        let mut tree = Self::new(Timestamp::default());
        let mut ids = Vec::new();
        for entry in entries {
            let path = TreePath::new(&entry.path)?;
            let broken = |problem| TreeError::Entries { path: path.clone(), problem };
            let node = |kind| Node { meta: entry.meta.clone(), kind, layer: entry.layer };
            let id = if let EntryKind::HardLink(index) = entry.kind {
                let id: NodeId = *ids.get(index).ok_or_else(|| broken("hard link to a later entry"))?;
                if tree.node(id).kind.is_directory() {
                    return Err(TreeError::LinkToDirectory(path));
                }
                id
            } else {
                let kind = match entry.kind {
                    EntryKind::Directory => Kind::Directory(BTreeMap::new()),
                    EntryKind::File(content) => Kind::File(content),
                    EntryKind::Symlink(target) => Kind::Symlink(target),
                    EntryKind::CharDevice(device) => Kind::CharDevice(device),
                    EntryKind::BlockDevice(device) => Kind::BlockDevice(device),
                    EntryKind::Fifo => Kind::Fifo,
                    EntryKind::Socket | EntryKind::HardLink(_) => Kind::Socket,
                };
                if path.is_root() {
                    if !ids.is_empty() || !kind.is_directory() {
                        return Err(broken("the root must come first, once, and be a directory"));
                    }
                    tree.nodes[0] = node(kind);
                    ids.push(ROOT);
                    continue;
                }
                tree.add(node(kind))?
            };
            let parent = path.parent().and_then(|parent| tree.id(&parent));
            let parent = parent.filter(|id| tree.node(*id).kind.is_directory());
            let parent = parent.ok_or_else(|| broken("its directory does not come before it"))?;
            let name = path.name().unwrap_or_default().to_vec();
            if tree.child(parent, &name).is_some() {
                return Err(broken("the path comes twice"));
            }
            if let Kind::Directory(children) = &mut tree.nodes[parent.0 as usize].kind {
                children.insert(name, id);
            }
            ids.push(id);
        }
        Ok(tree)
    }

    fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        match &self.node(parent).kind {
            Kind::Directory(children) => children.get(name).copied(),
            _ => None,
        }
    }

    fn add(&mut self, node: Node) -> Result<NodeId, TreeError> {
        let id = u32::try_from(self.nodes.len()).map_err(|_| TreeError::Full)?;
        self.nodes.push(node);
        Ok(NodeId(id))
    }

    fn attach(&mut self, parent: NodeId, name: Vec<u8>, id: NodeId) {
        let directory = self.touch(parent);
        if let Kind::Directory(children) = &mut directory.kind {
            children.insert(name, id);
        }
    }

    fn touch(&mut self, id: NodeId) -> &mut Node {
        let layer = self.layer;
        let node = &mut self.nodes[id.0 as usize];
        node.layer = layer;
        node
    }

    fn make_parent(&mut self, path: &TreePath, mtime: Timestamp) -> Result<(NodeId, Vec<u8>), TreeError> {
        let name = path.name().unwrap_or_default().to_vec();
        let mut at = ROOT;
        let mut here = TreePath::root();
        for part in path.parent().unwrap_or_default().components() {
            here = here.join(part)?;
            at = match self.child(at, part) {
                Some(id) if self.node(id).kind.is_directory() => id,
                Some(id) => {
                    let found = self.node(id).kind.word();
                    return Err(TreeError::NotADirectory { path: path.clone(), at: here, found });
                }
                None => {
                    let kind = Kind::Directory(BTreeMap::new());
                    let id = self.add(Node { meta: Meta::root(0o755, mtime), kind, layer: self.layer })?;
                    self.attach(at, part.to_vec(), id);
                    id
                }
            };
        }
        Ok((at, name))
    }
}

/// See [`Tree::walk`].
pub struct Walk<'a> {
    tree: &'a Tree,
    stack: Vec<(TreePath, NodeId)>,
}

impl Iterator for Walk<'_> {
    type Item = (TreePath, NodeId);

    fn next(&mut self) -> Option<Self::Item> {
        let (path, id) = self.stack.pop()?;
        if let Kind::Directory(children) = &self.tree.node(id).kind {
            // Names come from `TreePath`s, so joining them again cannot fail unless the whole path grew too long;
            // such a path could not be looked up either, and `put` refuses to make it.
            let below = children.iter().rev().filter_map(|(name, id)| Some((path.join(name).ok()?, *id)));
            self.stack.extend(below);
        }
        Some((path, id))
    }
}

#[cfg(test)]
mod tests;
