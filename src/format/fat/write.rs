//! Deciding where everything in a new volume lies, and writing it.

use super::geometry::{BACKUP, FS_INFO, Geometry, MEDIA, SLOT};
use super::name::{self, Name, UNITS_PER_SLOT};
use super::time::{self, FatTime};
use super::{FatError, FatKind, Parameters};
use crate::content::Content;
use crate::format::entry::{Entry, EntryKind};
use crate::format::sink::Sink;
use crate::units::{Bytes, SECTOR};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

/// Most slots in a directory (2 MiB, the limit of Microsoft's text and of `fsck.vfat`).
const MAX_SLOTS: usize = 65_536;
/// Most slots in a FAT16 root directory: its count has 16 bits, and fills whole clusters.
const MAX_ROOT_SLOTS: usize = 61_440;

const ATTR_LABEL: u8 = 0x08;
const ATTR_DIRECTORY: u8 = 0x10;
const ATTR_ARCHIVE: u8 = 0x20;
/// Read-only, hidden, system and label together mark a slot of a long name.
pub(super) const ATTR_LONG: u8 = 0x0f;

/// Everything about a volume but its bytes.
#[derive(Debug)]
pub struct Plan {
    geometry: Geometry,
    parameters: Parameters,
    label: Option<[u8; 11]>,
    nodes: Vec<Node>,
    clusters: Clusters,
}

/// Which clusters belong to which node.
#[derive(Debug)]
struct Clusters {
    /// Runs of clusters in the order of the node's data, parallel to the nodes. Only the FAT32 root has two.
    chains: Vec<Vec<Range<u32>>>,
    /// How many are used; those are the first ones.
    used: u32,
}

/// Decides where everything lies in a volume of `parameters.size`.
pub fn plan(entries: &[Entry], parameters: &Parameters) -> Result<Plan, FatError> {
    let label = label(&parameters.label)?;
    let nodes = collect(entries, label.is_some())?;
    let (geometry, clusters) = lay_out(&nodes, parameters)?;
    Ok(Plan { geometry, parameters: parameters.clone(), label, nodes, clusters })
}

/// The least multiple of `step` that [`plan`] finds large enough, or a little more where the size of clusters
/// changes between two sizes. `parameters.size` is not looked at.
pub fn minimum_size(entries: &[Entry], parameters: &Parameters, step: Bytes) -> Result<Bytes, FatError> {
    let label = label(&parameters.label)?;
    let nodes = collect(entries, label.is_some())?;
    let step = Bytes(step.0.max(SECTOR));
    let mut size = step;
    loop {
        size = size.align_up(step).ok_or(FatError::Size { size })?;
        let missing = match lay_out(&nodes, &Parameters { size, ..parameters.clone() }) {
            Ok(_) => return Ok(size),
            Err(FatError::Full { needed, free, room, .. }) => {
                needed.0.saturating_add(free.0).saturating_sub(room.0)
            }
            Err(FatError::Clusters { cluster, found, least, .. }) if found < least => {
                u64::from(least - found) * cluster.0
            }
            Err(error) => return Err(error),
        };
        // A byte of volume brings at most a byte of room, so this never steps over the least size.
        size.0 = size.0.saturating_add(missing.max(1));
    }
}

impl Plan {
    /// Size of the volume.
    pub fn size(&self) -> Bytes {
        self.parameters.size
    }

    /// What kind of FAT it will be.
    pub fn kind(&self) -> FatKind {
        self.geometry.kind
    }

    /// Size of a cluster.
    pub fn cluster(&self) -> Bytes {
        Bytes(self.geometry.cluster())
    }

    /// Room for data that no file takes.
    pub fn free(&self) -> Bytes {
        Bytes(u64::from(self.geometry.clusters - self.clusters.used) * self.geometry.cluster())
    }

    /// The range of bytes in use, for a block map: all before it counts, zeros too; what follows may hold anything.
    pub fn used(&self) -> Range<u64> {
        0..self.geometry.cluster_offset(self.clusters.used + 2)
    }

    /// Writes the volume. `entries` must be the list that was planned; fails where reading a file or writing fails.
    pub fn write(&self, entries: &[Entry], sink: &mut impl Sink) -> io::Result<()> {
        let sector = u64::from(self.geometry.sector);
        let label = self.label.as_ref().unwrap_or(b"NO NAME    ");
        let boot = self.geometry.boot_sector(&self.parameters, label);
        sink.bytes(0, &boot)?;
        if self.geometry.kind == FatKind::Fat32 {
            let used = self.clusters.used;
            let info = self.geometry.fs_info(self.geometry.clusters - used, used + 1);
            sink.bytes(u64::from(FS_INFO) * sector, &info)?;
            sink.bytes(u64::from(BACKUP) * sector, &boot)?;
            sink.bytes(u64::from(BACKUP + FS_INFO) * sector, &info)?;
        }
        let table = self.table();
        for index in 0..self.geometry.tables {
            sink.bytes(self.geometry.table(index), &table)?;
        }
        if self.geometry.kind != FatKind::Fat32 {
            sink.bytes(self.geometry.root(), &self.directory(entries, ROOT))?;
        }
        let runs = self.clusters.chains.iter().enumerate();
        let mut runs: Vec<(u32, usize)> =
            runs.flat_map(|(node, chain)| chain.iter().map(move |run| (run.start, node))).collect();
        runs.sort_unstable();
        for (start, node) in runs {
            self.write_run(entries, node, start, sink)?;
        }
        Ok(())
    }

    fn write_run(&self, entries: &[Entry], node: usize, start: u32, sink: &mut impl Sink) -> io::Result<()> {
        let cluster = self.geometry.cluster();
        let chain = &self.clusters.chains[node];
        let before: u64 = chain.iter().take_while(|run| run.start != start).map(clusters).sum();
        let length: u64 = chain.iter().filter(|run| run.start == start).map(clusters).sum();
        let (from, to) = (before * cluster, self.nodes[node].len.min((before + length) * cluster));
        let offset = self.geometry.cluster_offset(start);
        match content(entries, self.nodes[node].entry) {
            Some(content) => sink.copy(offset, content, from, to - from),
            None => sink.bytes(offset, &self.directory(entries, node)[from as usize..to as usize]),
        }
    }

    /// One table, as far as it is not zero: each cluster's entry is the number of the next, or the end mark.
    fn table(&self) -> Vec<u8> {
        let wide = self.geometry.kind == FatKind::Fat32;
        let end: u32 = if wide { 0x0fff_ffff } else { 0xffff };
        let mut values = vec![end; self.clusters.used as usize + 2];
        values[0] = end & 0xffff_ff00 | u32::from(MEDIA);
        for chain in &self.clusters.chains {
            let mut next = chain.iter().flat_map(Clone::clone).skip(1);
            for cluster in chain.iter().flat_map(Clone::clone) {
                values[cluster as usize] = next.next().unwrap_or(end);
            }
        }
        if wide {
            values.iter().flat_map(|value| value.to_le_bytes()).collect()
        } else {
            values.iter().flat_map(|value| (*value as u16).to_le_bytes()).collect()
        }
    }

    /// The bytes of a directory, without what follows its last slot.
    fn directory(&self, entries: &[Entry], node: usize) -> Vec<u8> {
        let first = |node: usize| self.clusters.chains[node].first().map_or(0, |run| run.start);
        let stamp = |node: usize| time::encode(entries[self.nodes[node].entry].meta.mtime);
        let mut bytes = Vec::with_capacity(self.nodes[node].len as usize);
        if node == ROOT {
            if let Some(label) = &self.label {
                let stamp = time::encode(self.parameters.time);
                bytes.extend(slot(label, ATTR_LABEL, 0, stamp, 0, 0));
            }
        } else {
            let parent = self.nodes[node].parent;
            // The root is called cluster 0 here, whatever its real number.
            let up = if parent == ROOT { 0 } else { first(parent) };
            bytes.extend(slot(b".          ", ATTR_DIRECTORY, 0, stamp(node), first(node), 0));
            bytes.extend(slot(b"..         ", ATTR_DIRECTORY, 0, stamp(node), up, 0));
        }
        for child in &self.nodes[node].children {
            let Node { name, len, .. } = &self.nodes[*child];
            bytes.extend(long_slots(name).into_iter().flatten());
            let directory = content(entries, self.nodes[*child].entry).is_none();
            // Directories have no size on FAT; files were checked to be below 4 GiB.
            let (attributes, size) =
                if directory { (ATTR_DIRECTORY, 0) } else { (ATTR_ARCHIVE, *len as u32) };
            bytes.extend(slot(&name.short, attributes, name.case, stamp(*child), first(*child), size));
        }
        bytes
    }
}

/// One 32-byte slot of a directory.
fn slot(name: &[u8; 11], attributes: u8, case: u8, stamp: FatTime, cluster: u32, size: u32) -> [u8; 32] {
    let mut raw = [0; SLOT as usize];
    raw[..11].copy_from_slice(name);
    raw[11] = attributes;
    raw[12] = case;
    raw[13] = stamp.hundredths;
    raw[14..16].copy_from_slice(&stamp.time.to_le_bytes()); // created
    raw[16..18].copy_from_slice(&stamp.date.to_le_bytes());
    raw[18..20].copy_from_slice(&stamp.date.to_le_bytes()); // last read
    raw[20..22].copy_from_slice(&((cluster >> 16) as u16).to_le_bytes());
    raw[22..24].copy_from_slice(&stamp.time.to_le_bytes()); // last written
    raw[24..26].copy_from_slice(&stamp.date.to_le_bytes());
    raw[26..28].copy_from_slice(&(cluster as u16).to_le_bytes());
    raw[28..].copy_from_slice(&size.to_le_bytes());
    raw
}

/// The slots of a long name, last part first, as they stand before the short entry.
fn long_slots(name: &Name) -> Vec<[u8; 32]> {
    let sum = name::checksum(&name.short);
    let parts: Vec<&[u16]> = name.long.chunks(UNITS_PER_SLOT).collect();
    let last = parts.len();
    let slot = |(index, part): (usize, &&[u16])| {
        // After the name one zero, then ones, unless the name fills the slot.
        let mut units = [0xffff; UNITS_PER_SLOT];
        units[..part.len()].copy_from_slice(part);
        if let Some(end) = units.get_mut(part.len()) {
            *end = 0;
        }
        let mut raw = [0; SLOT as usize];
        // At most 255 units, so at most 20 slots.
        raw[0] = (index + 1) as u8 | if index + 1 == last { 0x40 } else { 0 };
        raw[11] = ATTR_LONG;
        raw[13] = sum;
        for (unit, at) in units.iter().zip([1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30]) {
            raw[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        raw
    };
    parts.iter().enumerate().map(slot).rev().collect()
}

fn clusters(run: &Range<u32>) -> u64 {
    u64::from(run.end - run.start)
}

/// The root's place among the nodes.
const ROOT: usize = 0;

/// A file or directory of the new volume.
#[derive(Debug)]
struct Node {
    /// Its place in the list of entries.
    entry: usize,
    /// The directory it is in; the root is in itself.
    parent: usize,
    name: Name,
    /// Bytes of data; for a directory its slots.
    len: u64,
    layer: u16,
    children: Vec<usize>,
}

/// The data of an entry, by way of a hard link too; `None` for what has none.
fn content(entries: &[Entry], mut index: usize) -> Option<&Content> {
    loop {
        match &entries.get(index)?.kind {
            EntryKind::File(content) => return Some(content),
            // Links lead to earlier entries only, so this ends.
            EntryKind::HardLink(earlier) if *earlier < index => index = *earlier,
            _ => return None,
        }
    }
}

/// Checks every entry and gives it its name. Nodes are parallel to entries.
fn collect(entries: &[Entry], labelled: bool) -> Result<Vec<Node>, FatError> {
    let mut places: BTreeMap<&[u8], usize> = BTreeMap::new();
    let mut nodes: Vec<Node> = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let path = || show(&entry.path);
        let broken = |problem| FatError::Entries { path: path(), problem };
        let parent = if index == ROOT {
            if !entry.path.is_empty() || !matches!(entry.kind, EntryKind::Directory) {
                return Err(broken("the root must come first and be a directory"));
            }
            ROOT
        } else {
            let (parent, name) = split(&entry.path);
            name::check(name).map_err(|problem| FatError::Name { path: path(), problem })?;
            let parent =
                places.get(parent).filter(|parent| matches!(entries[**parent].kind, EntryKind::Directory));
            *parent.ok_or_else(|| broken("its directory does not come before it"))?
        };
        let len = match (&entry.kind, content(entries, index)) {
            (EntryKind::Directory, _) => 0,
            (_, Some(content)) if content.len() > u32::MAX.into() => {
                return Err(FatError::FileSize { path: path(), size: Bytes(content.len()) });
            }
            (_, Some(content)) => content.len(),
            (EntryKind::HardLink(_), None) => return Err(broken("a hard link to nothing FAT can hold")),
            (kind, None) => return Err(FatError::Kind { path: path(), found: word(kind) }),
        };
        if places.insert(&entry.path, index).is_some() {
            return Err(broken("the path comes twice"));
        }
        let name = Name { short: [b' '; 11], case: 0, long: Vec::new() };
        nodes.push(Node { entry: index, parent, name, len, layer: entry.layer, children: Vec::new() });
        if index != ROOT {
            nodes[parent].children.push(index);
        }
    }
    if nodes.is_empty() {
        return Err(FatError::Entries { path: String::new(), problem: "there is no root directory" });
    }
    for index in 0..nodes.len() {
        if matches!(entries[index].kind, EntryKind::Directory) {
            name_children(entries, &mut nodes, index, labelled)?;
        }
    }
    Ok(nodes)
}

/// Names what is in one directory, and so finds the directory's size.
fn name_children(
    entries: &[Entry],
    nodes: &mut [Node],
    directory: usize,
    labelled: bool,
) -> Result<(), FatError> {
    let children = nodes[directory].children.clone();
    let mut texts = Vec::with_capacity(children.len());
    let mut folded: BTreeMap<String, usize> = BTreeMap::new();
    for child in &children {
        let path = &entries[*child].path;
        let text =
            name::check(split(path).1).map_err(|problem| FatError::Name { path: show(path), problem })?;
        if let Some(other) = folded.insert(name::fold(text), *child) {
            return Err(FatError::Collision { path: show(path), other: show(&entries[other].path) });
        }
        texts.push(text);
    }
    let mut slots = if directory == ROOT { usize::from(labelled) } else { 2 };
    for (child, name) in children.iter().zip(name::assign(&texts)) {
        slots += name.slots();
        nodes[*child].name = name;
    }
    if slots > MAX_SLOTS {
        let path = show(&entries[directory].path);
        return Err(FatError::DirectorySize { path, slots, limit: MAX_SLOTS });
    }
    nodes[directory].len = slots as u64 * u64::from(SLOT);
    Ok(())
}

/// Gives out the clusters.
fn lay_out(nodes: &[Node], parameters: &Parameters) -> Result<(Geometry, Clusters), FatError> {
    // At most MAX_SLOTS.
    let root_slots = (nodes[ROOT].len / u64::from(SLOT)) as u32;
    let geometry = Geometry::new(parameters, root_slots)?;
    let fat32 = geometry.kind == FatKind::Fat32;
    if !fat32 && root_slots as usize > MAX_ROOT_SLOTS {
        let slots = root_slots as usize;
        return Err(FatError::DirectorySize { path: String::new(), slots, limit: MAX_ROOT_SLOTS });
    }
    let mut order: Vec<usize> = (0..nodes.len()).filter(|node| *node != ROOT || fat32).collect();
    order.sort_by_key(|node| nodes[*node].layer);
    let mut chains = vec![Vec::new(); nodes.len()];
    let mut next: u64 = 2;
    if fat32 {
        chains[ROOT].push(2..3);
        next = 3;
    }
    for node in order {
        // A directory below the root is never empty: it has its dot entries.
        let count = nodes[node].len.div_ceil(geometry.cluster()).saturating_sub(u64::from(node == ROOT));
        if count > 0 {
            let end = next.saturating_add(count);
            // Past the end of the volume the numbers are only counted, for the message.
            if let (Ok(start), Ok(end)) = (u32::try_from(next), u32::try_from(end)) {
                chains[node].push(start..end);
            }
            next = end;
        }
    }
    let used = next - 2;
    let bytes = |clusters: u64| Bytes(clusters.saturating_mul(geometry.cluster()));
    let (needed, room) = (bytes(used), bytes(geometry.clusters.into()));
    if needed.0.saturating_add(parameters.free.0) > room.0 {
        return Err(FatError::Full { size: parameters.size, needed, free: parameters.free, room });
    }
    // It fits the volume, so it fits 28 bits.
    Ok((geometry, Clusters { chains, used: used as u32 }))
}

/// A label as the volume holds it; `None` for no label.
fn label(text: &str) -> Result<Option<[u8; 11]>, FatError> {
    let refuse = |problem| Err(FatError::Label { label: text.to_owned(), problem });
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > 11 {
        return refuse("it is longer than 11 characters");
    }
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~') && !b"\"*+,./:;<=>?[\\]|".contains(&byte)) {
        return refuse("only printable ASCII without \"*+,./:;<=>?[\\]| is allowed");
    }
    if text.starts_with(' ') || text.ends_with(' ') {
        return refuse("it starts or ends with a space");
    }
    let mut raw = [b' '; 11];
    raw[..text.len()].copy_from_slice(text.as_bytes());
    Ok(Some(raw))
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string()
}

fn word(kind: &EntryKind) -> &'static str {
    match kind {
        EntryKind::Directory => "directory",
        EntryKind::File(_) => "file",
        EntryKind::Symlink(_) => "symbolic link",
        EntryKind::CharDevice(_) => "character device",
        EntryKind::BlockDevice(_) => "block device",
        EntryKind::Fifo => "named pipe",
        EntryKind::Socket => "socket",
        EntryKind::HardLink(_) => "hard link",
    }
}
