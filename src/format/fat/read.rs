//! Reading a volume into entries whose contents stay where they are.
//!
//! The bytes may come from anyone. Nothing here panics, loops for ever or allocates by an unchecked number: the
//! boot sector is checked as a whole first, every cluster belongs to one chain only (which ends cycles, shared
//! chains and directories that hold themselves), and the tables are read through a window of fixed size.
//! What is not defended against: a volume may name as many files as its directories have room for.
//!
//! The crate `fatfs` is not used here: it hides cluster numbers, which contents by reference need, it follows cyclic
//! chains, and it trusts the boot sector's arithmetic. It judges this reader in the tests.

use super::FatKind;
use super::geometry::{Geometry, MAX_FAT12, MAX_FAT16, MAX_FAT32, SLOT};
use super::name::{self, UNITS_PER_SLOT};
use super::time;
use super::write::ATTR_LONG;
use crate::content::{Content, Piece, ReadAt};
use crate::format::entry::{Entry, EntryKind};
use crate::meta::Meta;
use crate::units::{Bytes, SECTOR};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// How much of a table is in memory at once.
const WINDOW: u64 = 1 << 16;
/// Longest directory, in bytes: 65,536 slots.
const MAX_DIRECTORY: u64 = 2 << 20;
/// Longest path that is followed, as in Linux (`PATH_MAX`).
const MAX_PATH: usize = 4095;

/// A volume that was read.
#[derive(Debug)]
pub struct Volume {
    /// FAT12, FAT16 or FAT32.
    pub kind: FatKind,
    /// The label, from the root directory, else from the boot sector; without padding, in whatever code page.
    pub label: Vec<u8>,
    /// Volume serial number.
    pub serial: u32,
    /// Size of a cluster.
    pub cluster: Bytes,
    /// Size of the volume, by its boot sector.
    pub size: Bytes,
    /// Bytes in clusters that are free by the table; FSInfo is not believed.
    pub free: Bytes,
    /// Everything in it, the root first, each directory in the order of its slots. Mode 0755 and owner root, as Linux
    /// shows it by default; 0555 for what is marked read-only.
    pub entries: Vec<Entry>,
}

/// Why a volume cannot be read. Offsets are bytes from the start of the volume.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The source failed.
    #[error("reading {what} at byte {offset} of the FAT volume")]
    Io {
        /// What was being read.
        what: &'static str,
        /// Where.
        offset: u64,
        /// The failure.
        #[source]
        source: io::Error,
    },
    /// There is no FAT volume here.
    #[error("not a FAT volume: {problem} ({found})")]
    NotFat {
        /// Which check failed.
        problem: &'static str,
        /// The value found.
        found: u64,
    },
    /// The volume is damaged.
    #[error("damaged FAT volume: /{path}: {problem} ({found})")]
    Corrupt {
        /// The file or directory.
        path: String,
        /// What is wrong.
        problem: &'static str,
        /// The cluster, name, length or other value found.
        found: String,
    },
}

/// Reads the volume that takes up to `len` bytes from `offset` in `source`.
pub fn read(source: Arc<dyn ReadAt>, offset: u64, len: u64) -> Result<Volume, ReadError> {
    let mut raw = [0; SECTOR as usize];
    let what = "the boot sector";
    if len < SECTOR || offset.checked_add(len).is_none() {
        return Err(ReadError::NotFat { problem: "too short for a boot sector", found: len });
    }
    source.read_exact_at(&mut raw, offset).map_err(|source| ReadError::Io { what, offset: 0, source })?;
    let boot = parse_boot(&raw, len)?;
    let table = Table { source: source.clone(), base: offset, geometry: &boot.geometry, active: boot.active };
    let mut walk =
        Walk { table, window: Window::default(), claimed: BTreeMap::new(), label: None, entries: Vec::new() };
    walk.volume()?;
    let free = walk.free_clusters()?;
    let Walk { label, entries, .. } = walk;
    let trim = |raw: [u8; 11]| {
        let end = raw.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
        raw[..end].to_vec()
    };
    let label = label.or(boot.label).map(trim).unwrap_or_default();
    Ok(Volume {
        kind: boot.geometry.kind,
        label,
        serial: boot.serial,
        cluster: Bytes(boot.geometry.cluster()),
        size: Bytes(u64::from(boot.geometry.sectors) * u64::from(boot.geometry.sector)),
        free: Bytes(free * boot.geometry.cluster()),
        entries,
    })
}

/// Label and serial number of what looks like a FAT volume, from its boot sector alone; `None` for anything else.
pub(crate) fn probe(boot_sector: &[u8; SECTOR as usize], len: u64) -> Option<(FatKind, Vec<u8>, u32)> {
    let boot = parse_boot(boot_sector, len).ok()?;
    let label = boot.label.map(|label| label.trim_ascii_end().to_vec()).unwrap_or_default();
    Some((boot.geometry.kind, label, boot.serial))
}

struct Boot {
    geometry: Geometry,
    /// The table in use: 0 unless FAT32 says that tables are not mirrored.
    active: u32,
    serial: u32,
    label: Option<[u8; 11]>,
}

/// Takes a boot sector apart and checks that everything it describes lies inside `len` bytes.
fn parse_boot(raw: &[u8; SECTOR as usize], len: u64) -> Result<Boot, ReadError> {
    let byte = |at: usize| u32::from(raw[at]);
    let word = |at: usize| u32::from(u16::from_le_bytes([raw[at], raw[at + 1]]));
    let long = |at: usize| word(at) | word(at + 2) << 16;
    let refuse = |problem, found: u32| Err(ReadError::NotFat { problem, found: found.into() });
    if word(510) != 0xaa55 {
        return refuse("no boot sector signature", word(510));
    }
    if !matches!((byte(0), byte(2)), (0xeb, 0x90) | (0xe9, _)) {
        return refuse("the boot sector does not start with a jump", byte(0));
    }
    let (sector, cluster_sectors, reserved, tables) = (word(11), byte(13), word(14), byte(16));
    if !sector.is_power_of_two() || !(512..=4096).contains(&sector) {
        return refuse("bytes in a sector", sector);
    }
    if !cluster_sectors.is_power_of_two() {
        return refuse("sectors in a cluster", cluster_sectors);
    }
    if reserved == 0 {
        return refuse("reserved sectors", reserved);
    }
    if !(1..=4).contains(&tables) {
        return refuse("number of tables", tables);
    }
    if byte(21) != 0xf0 && byte(21) < 0xf8 {
        return refuse("media byte", byte(21));
    }
    let fat32 = word(22) == 0;
    let table_sectors = if fat32 { long(36) } else { word(22) };
    let root_slots = if fat32 { 0 } else { word(17) };
    let sectors = if word(19) != 0 { word(19) } else { long(32) };
    if fat32 && word(42) != 0 {
        return refuse("unknown version of FAT32", word(42));
    }
    let volume = u64::from(sectors) * u64::from(sector);
    if volume > len {
        return Err(ReadError::NotFat {
            problem: "it says it is longer than the room it has",
            found: volume,
        });
    }
    let root_sectors = (root_slots * SLOT).div_ceil(sector);
    let overhead =
        u64::from(reserved) + u64::from(tables) * u64::from(table_sectors) + u64::from(root_sectors);
    let data = u64::from(sectors).checked_sub(overhead);
    // Not more than the number of sectors, which has 32 bits.
    let Some(clusters) = data.map(|data| (data / u64::from(cluster_sectors)) as u32) else {
        return refuse("the tables take more than the volume has", table_sectors);
    };
    let kind = match clusters {
        _ if fat32 => FatKind::Fat32,
        0..=MAX_FAT12 => FatKind::Fat12,
        _ => FatKind::Fat16,
    };
    let (limit, bits) = match kind {
        FatKind::Fat12 => (MAX_FAT12, 12),
        FatKind::Fat16 => (MAX_FAT16, 16),
        FatKind::Fat32 => (MAX_FAT32, 32),
    };
    if clusters > limit || clusters == 0 {
        return refuse("number of clusters", clusters);
    }
    if u64::from(table_sectors) * u64::from(sector) * 8 / bits < u64::from(clusters) + 2 {
        return refuse("sectors in a table, too few for the clusters", table_sectors);
    }
    let flags = if fat32 { word(40) } else { 0 };
    let active = if flags & 0x80 != 0 { flags & 0x0f } else { 0 };
    if active >= tables {
        return refuse("number of the active table", active);
    }
    let root_cluster = if fat32 { long(44) } else { 0 };
    let extended = if fat32 { 64 } else { 36 };
    let mut label = [0; 11];
    label.copy_from_slice(&raw[extended + 7..extended + 18]);
    let signed = raw[extended + 2] == 0x29;
    let geometry = Geometry {
        kind,
        sector,
        sectors,
        cluster_sectors,
        reserved,
        tables,
        table_sectors,
        root_slots,
        root_cluster,
        clusters,
    };
    Ok(Boot {
        geometry,
        active,
        serial: if signed { long(extended + 3) } else { 0 },
        label: (signed && &label != b"NO NAME    ").then_some(label),
    })
}

/// Where things are read from.
struct Table<'a> {
    source: Arc<dyn ReadAt>,
    base: u64,
    geometry: &'a Geometry,
    active: u32,
}

/// The part of the table that is in memory.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Table<'_> {
    fn read(&self, buffer: &mut [u8], offset: u64, what: &'static str) -> Result<(), ReadError> {
        let place = self.base + offset;
        self.source.read_exact_at(buffer, place).map_err(|source| ReadError::Io { what, offset, source })
    }

    /// The entry of a cluster, which must be below the number of entries.
    fn entry(&self, window: &mut Window, cluster: u32) -> Result<u32, ReadError> {
        let cluster64 = u64::from(cluster);
        Ok(match self.geometry.kind {
            FatKind::Fat12 => {
                let at = cluster64 + cluster64 / 2;
                let pair = u16::from_le_bytes([self.byte(window, at)?, self.byte(window, at + 1)?]);
                u32::from(if cluster.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 })
            }
            FatKind::Fat16 => {
                let at = cluster64 * 2;
                u16::from_le_bytes([self.byte(window, at)?, self.byte(window, at + 1)?]).into()
            }
            FatKind::Fat32 => {
                let at = cluster64 * 4;
                let mut raw = [0; 4];
                for (index, slot) in raw.iter_mut().enumerate() {
                    *slot = self.byte(window, at + index as u64)?;
                }
                u32::from_le_bytes(raw) & 0x0fff_ffff
            }
        })
    }

    fn byte(&self, window: &mut Window, at: u64) -> Result<u8, ReadError> {
        let inside = at.checked_sub(window.start).and_then(|index| window.bytes.get(index as usize));
        if let Some(byte) = inside {
            return Ok(*byte);
        }
        window.start = at / WINDOW * WINDOW;
        let len = WINDOW.min(self.geometry.table_len().saturating_sub(window.start));
        window.bytes.resize(len as usize, 0);
        self.read(&mut window.bytes, self.geometry.table(self.active) + window.start, "the table")?;
        // The boot sector was checked: every cluster has its entry inside the table.
        Ok(window.bytes.get((at - window.start) as usize).copied().unwrap_or(0))
    }
}

struct Walk<'a> {
    table: Table<'a>,
    window: Window,
    /// Runs of clusters that belong to something already: start to end.
    claimed: BTreeMap<u32, u32>,
    label: Option<[u8; 11]>,
    entries: Vec<Entry>,
}

/// A directory still to be read.
struct Pending {
    path: Vec<u8>,
    cluster: u32,
}

impl Walk<'_> {
    fn volume(&mut self) -> Result<(), ReadError> {
        let geometry = self.table.geometry;
        let meta = Meta::root(0o755, time::decode(0, 0));
        self.entries.push(Entry { path: Vec::new(), meta, kind: EntryKind::Directory, layer: 0 });
        let root = if geometry.kind == FatKind::Fat32 {
            self.directory_bytes(&[], geometry.root_cluster)?
        } else {
            // At most 65,535 slots, inside the volume by the check of the boot sector.
            let mut bytes = vec![0; (geometry.root_slots * SLOT) as usize];
            self.table.read(&mut bytes, geometry.root(), "the root directory")?;
            bytes
        };
        let mut pending = self.directory(&[], &root)?;
        while let Some(next) = pending.pop() {
            let bytes = self.directory_bytes(&next.path, next.cluster)?;
            pending.extend(self.directory(&next.path, &bytes)?);
        }
        Ok(())
    }

    /// The clusters of a chain as runs: at most `most` of them, and no more than there are. Claims them.
    fn chain(&mut self, path: &[u8], first: u32, most: u64) -> Result<Vec<Range<u32>>, ReadError> {
        let mut runs: Vec<Range<u32>> = Vec::new();
        let (mut cluster, mut count) = (first, 0);
        let end_mark = match self.table.geometry.kind {
            FatKind::Fat12 => 0xff8,
            FatKind::Fat16 => 0xfff8,
            FatKind::Fat32 => 0x0fff_fff8,
        };
        while cluster < end_mark && count < most {
            if !(2..self.table.geometry.clusters + 2).contains(&cluster) {
                return Err(corrupt(path, "its chain leads out of the volume, to cluster", cluster));
            }
            let before = self.claimed.range(..=cluster).next_back();
            let shared = before.is_some_and(|(_, end)| cluster < *end);
            if shared || runs.last().is_some_and(|run| run.contains(&cluster)) {
                return Err(corrupt(path, "its chain meets another one or itself, at cluster", cluster));
            }
            match runs.last_mut() {
                Some(run) if run.end == cluster => run.end += 1,
                _ => {
                    if let Some(done) = runs.last() {
                        self.claimed.insert(done.start, done.end);
                    }
                    runs.push(cluster..cluster + 1);
                }
            }
            count += 1;
            cluster = self.table.entry(&mut self.window, cluster)?;
        }
        if let Some(done) = runs.last() {
            self.claimed.insert(done.start, done.end);
        }
        Ok(runs)
    }

    fn directory_bytes(&mut self, path: &[u8], cluster: u32) -> Result<Vec<u8>, ReadError> {
        let size = self.table.geometry.cluster();
        let mut bytes = Vec::new();
        for run in self.chain(path, cluster, MAX_DIRECTORY.div_ceil(size))? {
            for cluster in run {
                let start = bytes.len();
                bytes.resize(start + size as usize, 0);
                let offset = self.table.geometry.cluster_offset(cluster);
                self.table.read(&mut bytes[start..], offset, "a directory")?;
            }
        }
        if bytes.is_empty() {
            return Err(corrupt(path, "a directory without a cluster", cluster));
        }
        bytes.truncate(MAX_DIRECTORY as usize);
        Ok(bytes)
    }

    /// Adds what a directory holds to the entries. Gives its directories, last first.
    fn directory(&mut self, path: &[u8], bytes: &[u8]) -> Result<Vec<Pending>, ReadError> {
        let mut below = Vec::new();
        let mut names: BTreeMap<String, ()> = BTreeMap::new();
        let mut long = LongName::default();
        for slot in bytes.chunks_exact(SLOT as usize) {
            match slot[0] {
                0 => break,
                0xe5 => {
                    long = LongName::default();
                    continue;
                }
                _ => {}
            }
            let attributes = slot[11];
            if attributes & 0x3f == ATTR_LONG {
                long.push(slot);
                continue;
            }
            let mut short = [0; 11];
            short.copy_from_slice(&slot[..11]);
            let long_name = std::mem::take(&mut long).finish(&short);
            if attributes & 0x08 != 0 {
                if path.is_empty() && self.label.is_none() {
                    self.label = Some(short);
                }
                continue;
            }
            if !path.is_empty() && (&short == b".          " || &short == b"..         ") {
                continue;
            }
            let name = long_name.or_else(|| name::decode_short(&short, slot[12]));
            let name =
                name.ok_or_else(|| corrupt(path, "a file in it has no name, slot", format!("{short:x?}")))?;
            let valid =
                !matches!(name.as_str(), "." | "..") && !name.contains(['/', '\0']) && name.len() <= 255 * 3;
            if !valid {
                return Err(corrupt(path, "a file in it has a name that cannot be", format!("{name:?}")));
            }
            if names.insert(name.clone(), ()).is_some() {
                return Err(corrupt(path, "two files in it have one name", format!("{name:?}")));
            }
            let mut child = path.to_vec();
            if !child.is_empty() {
                child.push(b'/');
            }
            child.extend(name.as_bytes());
            if child.len() > MAX_PATH {
                return Err(corrupt(path, "a path in it is too long, bytes", child.len()));
            }
            if let Some(directory) = self.entry(child, slot)? {
                below.push(directory);
            }
        }
        below.reverse();
        Ok(below)
    }

    /// Adds one file or directory; the latter is given back, to be read.
    fn entry(&mut self, path: Vec<u8>, slot: &[u8]) -> Result<Option<Pending>, ReadError> {
        let word = |at: usize| u16::from_le_bytes([slot[at], slot[at + 1]]);
        let long = |low: usize, high: usize| u32::from(word(low)) | u32::from(word(high)) << 16;
        let high = if self.table.geometry.kind == FatKind::Fat32 { u32::from(word(20)) << 16 } else { 0 };
        let cluster = u32::from(word(26)) | high;
        let mode = if slot[11] & 0x01 != 0 { 0o555 } else { 0o755 };
        let meta = Meta::root(mode, time::decode(word(24), word(22)));
        if slot[11] & 0x10 != 0 {
            self.entries.push(Entry { path: path.clone(), meta, kind: EntryKind::Directory, layer: 0 });
            return Ok(Some(Pending { path, cluster }));
        }
        let content = self.content(&path, cluster, long(28, 30).into())?;
        self.entries.push(Entry { path, meta, kind: EntryKind::File(content), layer: 0 });
        Ok(None)
    }

    fn content(&mut self, path: &[u8], cluster: u32, len: u64) -> Result<Content, ReadError> {
        if len == 0 {
            return Ok(Content::default());
        }
        let size = self.table.geometry.cluster();
        let mut pieces = Vec::new();
        let mut at = 0;
        // More clusters than the file needs are allowed (they were allocated ahead) and not looked at.
        for run in self.chain(path, cluster, len.div_ceil(size))? {
            let run_len = (u64::from(run.end - run.start) * size).min(len - at);
            let offset = self.table.base + self.table.geometry.cluster_offset(run.start);
            pieces.push(Piece { at, len: run_len, source: self.table.source.clone(), offset });
            at += run_len;
        }
        if at < len {
            return Err(corrupt(
                path,
                "its chain ends before the file does, bytes there of bytes said",
                format!("{at} of {len}"),
            ));
        }
        Content::sparse(len, pieces).ok_or_else(|| corrupt(path, "its pieces overlap, length", len))
    }

    fn free_clusters(&mut self) -> Result<u64, ReadError> {
        let mut free = 0;
        for cluster in 2..self.table.geometry.clusters + 2 {
            free += u64::from(self.table.entry(&mut self.window, cluster)? == 0);
        }
        Ok(free)
    }
}

fn corrupt(path: &[u8], problem: &'static str, found: impl ToString) -> ReadError {
    let path = String::from_utf8_lossy(path).escape_debug().to_string();
    ReadError::Corrupt { path, problem, found: found.to_string() }
}

/// A long name as its slots come: the last part first, each with the checksum of the short name.
#[derive(Default)]
struct LongName {
    units: Vec<u16>,
    /// Number of the part that must come next; 0 when the name is whole.
    next: u8,
    checksum: u8,
    valid: bool,
}

impl LongName {
    fn push(&mut self, slot: &[u8]) {
        let number = slot[0] & 0x1f;
        if slot[0] & 0x40 != 0 && (1..=20).contains(&number) {
            let units = vec![0xffff; usize::from(number) * UNITS_PER_SLOT];
            *self = Self { units, next: number, checksum: slot[13], valid: true };
        }
        self.valid &= number == self.next && number > 0 && slot[13] == self.checksum;
        if !self.valid {
            return;
        }
        self.next -= 1;
        let start = usize::from(self.next) * UNITS_PER_SLOT;
        for (unit, at) in self.units[start..].iter_mut().zip([1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30])
        {
            *unit = u16::from_le_bytes([slot[at], slot[at + 1]]);
        }
    }

    /// The name, if its slots were whole and belong to this short name. Otherwise the short name counts, as in Linux.
    fn finish(self, short: &[u8; 11]) -> Option<String> {
        if !self.valid || self.next != 0 || self.checksum != name::checksum(short) {
            return None;
        }
        let end = self.units.iter().position(|unit| *unit == 0).unwrap_or(self.units.len());
        String::from_utf16(&self.units[..end]).ok().filter(|name| !name.is_empty())
    }
}
