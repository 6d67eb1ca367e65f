//! Where things lie in a FAT volume, and the boot sector that says so. Computes and never writes.
//!
//! Sources: Microsoft's *FAT: General Overview of On-Disk Format* 1.03; the choices it leaves open (cluster size by
//! volume size, alignment of the tables to clusters, sectors per track and heads) are those of `mkfs.vfat` 4.2, and
//! the tests hold them against it.

use super::{FatError, FatKind, Parameters};
use crate::units::{Bytes, SECTOR};

/// Most clusters a FAT12 volume has; one more and every driver takes it for FAT16.
pub(super) const MAX_FAT12: u32 = 4_084;
/// Most clusters a FAT16 volume has.
pub(super) const MAX_FAT16: u32 = 65_524;
/// Most clusters a FAT32 volume has: 28 bits, less the reserved values.
pub(super) const MAX_FAT32: u32 = 0x0fff_fff5;
/// Below this size Raspberry Pi OS's images have FAT16, from it on FAT32 (pi-gen `export-image/prerun.sh`).
const FAT32_FROM: u64 = 134_742_016;
/// Root directory slots of a FAT16 volume, unless it needs more.
const ROOT_SLOTS: u32 = 512;
/// A directory entry, in bytes.
pub(super) const SLOT: u32 = 32;
/// Sector of the FSInfo structure, and of the copy of the boot sector, on FAT32.
pub(super) const FS_INFO: u32 = 1;
pub(super) const BACKUP: u32 = 6;

/// The shape of a volume. Clusters are numbered from 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub kind: FatKind,
    /// Bytes in a sector.
    pub sector: u32,
    /// Sectors in the whole volume.
    pub sectors: u32,
    /// Sectors in a cluster.
    pub cluster_sectors: u32,
    /// Sectors before the first table.
    pub reserved: u32,
    /// How many tables there are.
    pub tables: u32,
    /// Sectors in one table.
    pub table_sectors: u32,
    /// Slots of the fixed root directory; 0 on FAT32.
    pub root_slots: u32,
    /// First cluster of the root directory; 0 on FAT12 and FAT16.
    pub root_cluster: u32,
    /// Data clusters.
    pub clusters: u32,
}

impl Geometry {
    /// The shape of a new volume with room for `root_slots` entries in its root directory.
    pub fn new(parameters: &Parameters, root_slots: u32) -> Result<Self, FatError> {
        let size = parameters.size;
        let sectors = u32::try_from(size.0 / SECTOR).ok().filter(|_| size.0.is_multiple_of(SECTOR));
        let sectors = sectors.ok_or(FatError::Size { size })?;
        let auto = if size.0 < FAT32_FROM { FatKind::Fat16 } else { FatKind::Fat32 };
        let kind = parameters.kind.unwrap_or(auto);
        if let Some(cluster) = parameters.cluster {
            let valid = cluster.0.is_power_of_two() && (SECTOR..=64 << 10).contains(&cluster.0);
            if !valid {
                return Err(FatError::ClusterSize { cluster });
            }
            return Self::with_cluster(kind, sectors, (cluster.0 / SECTOR) as u32, root_slots).check(size);
        }
        let shape = |cluster_sectors| Self::with_cluster(kind, sectors, cluster_sectors, root_slots);
        match kind {
            // The smallest clusters whose number still fits, but 2 KiB where there is a choice.
            FatKind::Fat16 | FatKind::Fat12 => {
                let sizes = [4, 8, 16, 32, 64, 2, 1].into_iter().map(shape);
                let fits = |shape: &Self| (MAX_FAT12 + 1..=MAX_FAT16).contains(&shape.clusters);
                let nearest = if shape(1).clusters <= MAX_FAT12 { 1 } else { 64 };
                sizes.clone().find(fits).unwrap_or_else(|| shape(nearest)).check(size)
            }
            FatKind::Fat32 => {
                let by_size = [(260 << 20, 1), (8 << 30, 8), (16 << 30, 16), (32 << 30, 32)];
                let cluster = by_size.into_iter().find(|(up_to, _)| size.0 <= *up_to).map_or(64, |(_, n)| n);
                shape(cluster).check(size)
            }
        }
    }

    fn with_cluster(kind: FatKind, sectors: u32, cluster_sectors: u32, root_slots: u32) -> Self {
        let align = |n: u32| n.next_multiple_of(cluster_sectors);
        let (reserved, root_slots, root_cluster, width) = match kind {
            FatKind::Fat32 => (align(32), 0, 2, 4),
            // Slots fill whole clusters, so that the data after them stays aligned.
            _ => {
                let per_cluster = cluster_sectors * SECTOR as u32 / SLOT;
                (align(1), root_slots.max(ROOT_SLOTS).next_multiple_of(per_cluster), 0, 2)
            }
        };
        let root_sectors = root_slots * SLOT / SECTOR as u32;
        let left = u64::from(sectors.saturating_sub(reserved + root_sectors));
        // Two tables of `t` sectors leave (left − 2t) / cluster_sectors clusters, each with an entry, after two
        // reserved entries: t × per_sector ≥ (left − 2t) / cluster_sectors + 2, solved for the least t.
        let (per_sector, per_cluster) = (SECTOR / width, u64::from(cluster_sectors));
        let table = (left + 2 * per_cluster).div_ceil(per_cluster * per_sector + 2);
        let table_sectors = table.next_multiple_of(per_cluster);
        let clusters = left.saturating_sub(2 * table_sectors) / per_cluster;
        Self {
            kind,
            sector: SECTOR as u32,
            sectors,
            cluster_sectors,
            reserved,
            tables: 2,
            // Both come from a 32-bit number of sectors, so they fit.
            table_sectors: table_sectors as u32,
            root_slots,
            root_cluster,
            clusters: clusters as u32,
        }
    }

    fn check(self, size: Bytes) -> Result<Self, FatError> {
        let range = match self.kind {
            FatKind::Fat12 => 1..=MAX_FAT12,
            FatKind::Fat16 => MAX_FAT12 + 1..=MAX_FAT16,
            FatKind::Fat32 => MAX_FAT16 + 1..=MAX_FAT32,
        };
        if self.kind == FatKind::Fat12 || !range.contains(&self.clusters) {
            let (least, most) = (*range.start(), *range.end());
            let cluster = Bytes(self.cluster());
            return Err(FatError::Clusters {
                kind: self.kind,
                size,
                cluster,
                found: self.clusters,
                least,
                most,
            });
        }
        Ok(self)
    }

    /// Bytes in a cluster.
    pub fn cluster(&self) -> u64 {
        u64::from(self.cluster_sectors) * u64::from(self.sector)
    }

    /// Offset of a table's first byte.
    pub fn table(&self, index: u32) -> u64 {
        (u64::from(self.reserved) + u64::from(index) * u64::from(self.table_sectors)) * u64::from(self.sector)
    }

    /// Bytes in one table.
    pub fn table_len(&self) -> u64 {
        u64::from(self.table_sectors) * u64::from(self.sector)
    }

    /// Offset of the fixed root directory (FAT12 and FAT16), which ends where the clusters begin.
    pub fn root(&self) -> u64 {
        self.table(self.tables)
    }

    /// Offset of a cluster's first byte. `cluster` is at least 2.
    pub fn cluster_offset(&self, cluster: u32) -> u64 {
        let root_sectors = (self.root_slots * SLOT).div_ceil(self.sector);
        self.root()
            + u64::from(root_sectors) * u64::from(self.sector)
            + u64::from(cluster.saturating_sub(2)) * self.cluster()
    }

    /// The boot sector.
    pub fn boot_sector(&self, parameters: &Parameters, label: &[u8; 11]) -> [u8; SECTOR as usize] {
        let mut raw = [0; SECTOR as usize];
        let fat32 = self.kind == FatKind::Fat32;
        let mut put = |at: usize, bytes: &[u8]| raw[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &[0xeb, if fat32 { 0x58 } else { 0x3c }, 0x90]);
        put(3, b"hardtack"); // OEM name
        put(11, &(self.sector as u16).to_le_bytes());
        put(13, &[self.cluster_sectors as u8]);
        put(14, &(self.reserved as u16).to_le_bytes());
        put(16, &[self.tables as u8]);
        put(17, &(self.root_slots as u16).to_le_bytes());
        match u16::try_from(self.sectors) {
            Ok(sectors) if !fat32 => put(19, &sectors.to_le_bytes()),
            _ => put(32, &self.sectors.to_le_bytes()),
        }
        put(21, &[MEDIA]);
        let (per_track, heads) = self.tracks();
        put(24, &per_track.to_le_bytes());
        put(26, &heads.to_le_bytes());
        put(28, &parameters.hidden_sectors.to_le_bytes());
        let extended = if fat32 {
            put(36, &self.table_sectors.to_le_bytes());
            put(44, &self.root_cluster.to_le_bytes());
            put(48, &(FS_INFO as u16).to_le_bytes());
            put(50, &(BACKUP as u16).to_le_bytes());
            64
        } else {
            put(22, &(self.table_sectors as u16).to_le_bytes());
            36
        };
        put(extended, &[0x80, 0, 0x29]); // first hard disk; clean; the next three fields are there
        put(extended + 3, &parameters.serial.to_le_bytes());
        put(extended + 7, label);
        put(extended + 18, if fat32 { b"FAT32   " } else { b"FAT16   " });
        // int 18h (no boot here), then halt for ever: what a PC does that is told to boot from the card.
        put(extended + 26, &[0xcd, 0x18, 0xf4, 0xeb, 0xfd]);
        put(510, &[0x55, 0xaa]);
        raw
    }

    /// The FSInfo sector of FAT32: what is free, and where the last allocation was.
    pub fn fs_info(&self, free: u32, last: u32) -> [u8; SECTOR as usize] {
        let mut raw = [0; SECTOR as usize];
        raw[..4].copy_from_slice(b"RRaA");
        raw[484..488].copy_from_slice(b"rrAa");
        raw[488..492].copy_from_slice(&free.to_le_bytes());
        raw[492..496].copy_from_slice(&last.to_le_bytes());
        raw[510..].copy_from_slice(&[0x55, 0xaa]);
        raw
    }

    /// Sectors per track and heads that a BIOS would assume, by size. Nothing that runs on a Pi looks at them.
    fn tracks(&self) -> (u16, u16) {
        let by_size = [
            (16 << 11, 32, 2),
            (32 << 11, 32, 4),
            (128 << 11, 32, 8),
            (256 << 11, 32, 16),
            (504 << 11, 63, 16),
            (1008 << 11, 63, 32),
            (2016 << 11, 63, 64),
            (4032 << 11, 63, 128),
        ];
        let row = by_size.into_iter().find(|(up_to, _, _)| self.sectors <= *up_to);
        row.map_or((63, 255), |(_, per_track, heads)| (per_track, heads))
    }
}

/// The media byte of a fixed disk; it comes again in the first entry of each table.
pub(super) const MEDIA: u8 = 0xf8;
