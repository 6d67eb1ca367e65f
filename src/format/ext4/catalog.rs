//! The list of entries, checked and turned into inodes: which number each gets, how many names it has, what every
//! directory holds. Nothing here depends on the size of the filesystem.

use super::directory::{self, Child, Layout, Refused};
use super::error::{Error, Name, Problem};
use super::hash::NameHash;
use super::inode;
use super::raw::{BLOCK, FIRST_INODE, MAX_LINKS, ROOT_INODE};
use super::xattr;
use crate::content::Content;
use crate::format::entry::{Entry, EntryKind};
use std::collections::BTreeMap;

/// Everything that will be in the filesystem.
pub struct Catalog<'a> {
    /// What it was made from.
    pub entries: &'a [Entry],
    /// The root, `lost+found`, then the others by layer and, within one, in the order of the list.
    pub nodes: Vec<Node>,
    /// The directories, parents first.
    pub directories: Vec<Directory<'a>>,
    /// For each entry its place in `nodes`; for a hard link that of what it names.
    pub node_of: Vec<u32>,
}

/// One inode.
#[derive(Clone, Debug)]
pub struct Node {
    /// The entry that describes it; none for a `lost+found` that was not in the list.
    pub entry: Option<u32>,
    /// Its layer.
    pub layer: u16,
    /// Names, and for a directory its own `.` and the `..` of those in it.
    pub links: u32,
    /// Place in `directories`, for a directory.
    pub directory: Option<u32>,
    /// Whether it needs a block for its attributes.
    pub attribute_block: bool,
}

/// One directory.
pub struct Directory<'a> {
    /// Place in `nodes`.
    pub node: u32,
    /// The directory above, by its place in the list of directories; the root's is the root.
    pub parent: u32,
    /// What it holds, in the order of its blocks.
    pub children: Vec<Child<'a>>,
    /// Its blocks.
    pub layout: Layout,
}

/// Places in [`Catalog::nodes`].
pub const ROOT: usize = 0;
/// See [`ROOT`].
pub const LOST_AND_FOUND: usize = 1;
const LOST_AND_FOUND_NAME: &[u8] = b"lost+found";
/// mke2fs gives `lost+found` 16 KiB from the start, so that e2fsck need not look for blocks in a filesystem that
/// it cannot trust.
const LOST_AND_FOUND_BLOCKS: u32 = 4;
const MAX_NAME: usize = 255;
const MAX_TARGET: usize = 4095;

/// The inode number of a node.
pub fn inode_number(node: usize) -> u32 {
    match node {
        ROOT => ROOT_INODE,
        // Fewer nodes than 2³²: they are all in memory.
        _ => FIRST_INODE + (node - LOST_AND_FOUND) as u32,
    }
}

/// The runs of whole blocks that a file's pieces touch: first block, number of blocks. All else is a hole.
pub fn mapped_blocks(content: &Content) -> impl Iterator<Item = (u64, u64)> + '_ {
    let mut pieces = content.pieces().iter().map(|piece| {
        // `Content` promises that a piece ends within 64 bits.
        (piece.at / BLOCK, (piece.at + piece.len).div_ceil(BLOCK))
    });
    let mut next = pieces.next();
    std::iter::from_fn(move || {
        let (start, mut end) = next.take()?;
        for (from, to) in pieces.by_ref() {
            if from > end {
                next = Some((from, to));
                break;
            }
            end = end.max(to);
        }
        Some((start, end - start))
    })
}

impl<'a> Catalog<'a> {
    /// Checks the list and numbers the inodes.
    pub fn new(entries: &'a [Entry], hash: &NameHash) -> Result<Self, Error> {
        let mut catalog =
            Self { entries, nodes: Vec::new(), directories: Vec::new(), node_of: vec![0; entries.len()] };
        let parents = catalog.find_parents()?;
        catalog.number()?;
        catalog.fill_directories(&parents)?;
        catalog.count_links()?;
        for directory in 0..catalog.directories.len() {
            catalog.lay_out(directory, hash)?;
        }
        Ok(catalog)
    }

    /// Inodes in use, the reserved ones included.
    pub fn inodes(&self) -> u64 {
        self.nodes.len() as u64 + u64::from(FIRST_INODE) - 2
    }

    /// Blocks that files, directories, links and attributes take, without the nodes of extent trees.
    pub fn blocks(&self) -> u64 {
        let node_blocks = |node: &Node| {
            let data = match (node.directory, node.entry) {
                (Some(directory), _) => u64::from(self.directories[directory as usize].layout.blocks),
                (None, Some(entry)) => match &self.entries[entry as usize].kind {
                    EntryKind::File(content) => mapped_blocks(content).map(|(_, len)| len).sum(),
                    EntryKind::Symlink(target) => u64::from(target.len() > inode::MAX_FAST_TARGET),
                    _ => 0,
                },
                (None, None) => 0,
            };
            data + u64::from(node.attribute_block)
        };
        self.nodes.iter().map(node_blocks).fold(0, u64::saturating_add)
    }

    /// The path of a node, for messages.
    pub fn path(&self, node: usize) -> Name {
        let entry = self.nodes.get(node).and_then(|node| node.entry);
        entry
            .map_or_else(|| Name::from("/lost+found"), |entry| Name::path(&self.entries[entry as usize].path))
    }

    /// For each entry, which directory holds it (counted in the order they come in the list).
    fn find_parents(&mut self) -> Result<Vec<u32>, Error> {
        let root = self.entries.first().filter(|root| root.path.is_empty());
        if !root.is_some_and(|root| matches!(root.kind, EntryKind::Directory)) {
            return Err(refuse(b"", Problem::NoRoot));
        }
        let mut directories: BTreeMap<&[u8], u32> = BTreeMap::new();
        let mut parents = Vec::with_capacity(self.entries.len());
        for (at, entry) in self.entries.iter().enumerate() {
            check(self.entries, at)?;
            let parent = if at == 0 {
                0
            } else {
                let (directory, _) = split(&entry.path);
                *directories.get(directory).ok_or_else(|| refuse(&entry.path, Problem::NoParent))?
            };
            parents.push(parent);
            if matches!(entry.kind, EntryKind::Directory) {
                let known = directories.len() as u32;
                if directories.insert(&entry.path, known).is_some() {
                    return Err(refuse(&entry.path, Problem::Twice));
                }
                // The node is filled in when it has a number.
                self.directories.push(Directory {
                    node: at as u32,
                    parent,
                    children: Vec::new(),
                    layout: Layout::default(),
                });
            }
        }
        Ok(parents)
    }

    /// Gives every entry its place in `nodes`.
    fn number(&mut self) -> Result<(), Error> {
        let lost_and_found = self.entries.iter().position(|entry| entry.path == LOST_AND_FOUND_NAME);
        let mut order: Vec<usize> = (1..self.entries.len())
            .filter(|at| !matches!(self.entries[*at].kind, EntryKind::HardLink(_)))
            .filter(|at| Some(*at) != lost_and_found)
            .collect();
        order.sort_by_key(|at| self.entries[*at].layer);
        // Root and lost+found are in every filesystem, so they belong to the lowest layer.
        let lowest = self.entries.iter().map(|entry| entry.layer).min().unwrap_or(0);
        let first = [(Some(0), lowest), (lost_and_found, lowest)];
        let others = order.into_iter().map(|at| (Some(at), self.entries[at].layer));
        for (node, (entry, layer)) in first.into_iter().chain(others).enumerate() {
            let mut attribute_block = false;
            if let Some(at) = entry {
                self.node_of[at] = node as u32;
                attribute_block = needs_attribute_block(&self.entries[at])?;
            }
            let entry = entry.map(|at| at as u32);
            self.nodes.push(Node { entry, layer, links: 0, directory: None, attribute_block });
        }
        for at in 0..self.entries.len() {
            if let EntryKind::HardLink(target) = self.entries[at].kind {
                self.node_of[at] = self.node_of[target];
            }
        }
        if lost_and_found.is_none() {
            let node = LOST_AND_FOUND as u32;
            self.directories.push(Directory {
                node,
                parent: 0,
                children: Vec::new(),
                layout: Layout::default(),
            });
            let last = self.directories.len() - 1;
            self.nodes[LOST_AND_FOUND].directory = Some(last as u32);
        }
        let listed = self.directories.len() - usize::from(lost_and_found.is_none());
        for (at, directory) in self.directories.iter_mut().enumerate().take(listed) {
            directory.node = self.node_of[directory.node as usize];
            self.nodes[directory.node as usize].directory = Some(at as u32);
        }
        Ok(())
    }

    fn fill_directories(&mut self, parents: &[u32]) -> Result<(), Error> {
        for (at, entry) in self.entries.iter().enumerate().skip(1) {
            let node = self.node_of[at] as usize;
            let kind = match entry.kind {
                EntryKind::HardLink(target) => &self.entries[target].kind,
                ref kind => kind,
            };
            let child = Child {
                name: split(&entry.path).1,
                inode: inode_number(node),
                file_type: file_type(kind),
                layer: entry.layer,
                hash: 0,
            };
            self.directories[parents[at] as usize].children.push(child);
        }
        if self.nodes[LOST_AND_FOUND].entry.is_none() {
            let child = Child {
                name: LOST_AND_FOUND_NAME,
                inode: inode_number(LOST_AND_FOUND),
                file_type: directory::DIRECTORY,
                layer: 0,
                hash: 0,
            };
            self.directories[ROOT].children.push(child);
        }
        Ok(())
    }

    fn count_links(&mut self) -> Result<(), Error> {
        for at in 1..self.entries.len() {
            let node = self.node_of[at] as usize;
            if self.nodes[node].directory.is_none() {
                self.nodes[node].links += 1;
                if self.nodes[node].links > MAX_LINKS {
                    let names = self.node_of.iter().filter(|other| **other as usize == node).count();
                    return Err(refuse(&self.entries[at].path, Problem::Links(names as u32)));
                }
            }
        }
        for directory in &self.directories {
            self.nodes[directory.node as usize].links += 2;
        }
        for directory in &self.directories {
            if directory.node as usize != ROOT {
                let above = self.directories[directory.parent as usize].node;
                self.nodes[above as usize].links += 1;
            }
        }
        Ok(())
    }

    fn lay_out(&mut self, at: usize, hash: &NameHash) -> Result<(), Error> {
        let directory = &mut self.directories[at];
        let spare = if directory.node as usize == LOST_AND_FOUND { LOST_AND_FOUND_BLOCKS } else { 1 };
        let layer = self.nodes[directory.node as usize].layer;
        match Layout::plan(&mut directory.children, layer, hash, spare) {
            Ok(layout) => {
                directory.layout = layout;
                Ok(())
            }
            Err(Refused::Large) => {
                let node = directory.node as usize;
                Err(Error::Entry { path: self.path(node), problem: Problem::LargeDirectory })
            }
            Err(Refused::Twice(child)) => {
                let name = directory.children[child].name;
                let node = &self.nodes[directory.node as usize];
                let above =
                    node.entry.map_or(LOST_AND_FOUND_NAME, |entry| &self.entries[entry as usize].path);
                let separator: &[u8] = if above.is_empty() { b"" } else { b"/" };
                Err(refuse(&[above, separator, name].concat(), Problem::Twice))
            }
        }
    }
}

/// The directory and the name in it.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn refuse(path: &[u8], problem: Problem) -> Error {
    Error::Entry { path: Name::path(path), problem }
}

/// The rules for one entry that need no other entry, but for a hard link the one it names.
fn check(entries: &[Entry], at: usize) -> Result<(), Error> {
    let entry = &entries[at];
    let bad = |problem| Err(refuse(&entry.path, problem));
    let (_, name) = split(&entry.path);
    if at > 0 {
        match name {
            _ if entry.path.is_empty() => return bad(Problem::SecondRoot),
            _ if entry.path.starts_with(b"/") => return bad(Problem::BadName),
            b"" | b"." | b".." => return bad(Problem::BadName),
            _ if name.contains(&0) => return bad(Problem::BadName),
            _ if name.len() > MAX_NAME => return bad(Problem::LongName(name.len())),
            _ => {}
        }
    }
    let is_directory = matches!(entry.kind, EntryKind::Directory);
    if entry.path == LOST_AND_FOUND_NAME && !is_directory {
        return bad(Problem::LostAndFound);
    }
    if !matches!(entry.kind, EntryKind::HardLink(_)) && !inode::holds(entry.meta.mtime) {
        return bad(Problem::Time);
    }
    match &entry.kind {
        EntryKind::HardLink(target) => {
            let earlier = entries.get(*target).filter(|_| *target < at).map(|entry| &entry.kind);
            if matches!(earlier, None | Some(EntryKind::Directory | EntryKind::HardLink(_))) {
                return bad(Problem::BadLink);
            }
        }
        EntryKind::Symlink(target)
            if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) =>
        {
            return bad(Problem::BadTarget);
        }
        EntryKind::CharDevice(device) | EntryKind::BlockDevice(device)
            if inode::device_map(*device).is_none() =>
        {
            return bad(Problem::BadDevice(device.major, device.minor));
        }
        // The last block an extent can name is 2³² - 2, so that the block after it still has a number.
        EntryKind::File(content) if content.len().div_ceil(BLOCK) > u64::from(u32::MAX) => {
            return bad(Problem::LongFile(content.len()));
        }
        _ => {}
    }
    Ok(())
}

fn needs_attribute_block(entry: &Entry) -> Result<bool, Error> {
    if entry.meta.xattrs.is_empty() {
        return Ok(false);
    }
    match xattr::encode(&entry.meta.xattrs) {
        Ok(encoded) => Ok(encoded.block.is_some()),
        Err(xattr::Refused { name, problem }) => {
            Err(Error::Attribute { path: Name::path(&entry.path), name: Name(name), problem })
        }
    }
}

fn file_type(kind: &EntryKind) -> u8 {
    match kind {
        EntryKind::File(_) => 1,
        EntryKind::Directory => directory::DIRECTORY,
        EntryKind::CharDevice(_) => 3,
        EntryKind::BlockDevice(_) => 4,
        EntryKind::Fifo => 5,
        EntryKind::Socket => 6,
        EntryKind::Symlink(_) => 7,
        // Callers look at what a link names; that is never a link.
        EntryKind::HardLink(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Piece, ReadAt};
    use std::sync::Arc;

    #[test]
    fn pieces_that_share_a_block_are_one_run() {
        let source: Arc<dyn ReadAt> = Arc::new(Vec::new());
        let piece = |at, len| Piece { at, len, source: source.clone(), offset: 0 };
        let pieces = vec![piece(0, 1), piece(10, 10), piece(4095, 2), piece(12288, 4096), piece(16384, 1)];
        let content = Content::sparse(1 << 20, pieces).unwrap();
        assert_eq!(mapped_blocks(&content).collect::<Vec<_>>(), [(0, 2), (3, 2)]);
        assert_eq!(mapped_blocks(&Content::default()).count(), 0);
    }
}
