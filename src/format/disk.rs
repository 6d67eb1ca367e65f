//! Any disk image, ours or not: what its partition table says, and which filesystem each partition holds.

use super::{fat, gpt, mbr};
use crate::content::ReadAt;
use crate::units::{Bytes, SECTOR};
use std::fmt;
use std::io;
use std::sync::Arc;

/// A disk, as far as its table and the first blocks of its partitions tell.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Its size.
    pub size: Bytes,
    /// What kind of table it has.
    pub table: Table,
    /// Its partitions by number. Without a table, the filesystem that fills the disk is number 0.
    pub partitions: Vec<Partition>,
}

/// A partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Table {
    /// None, but perhaps a filesystem on the whole disk.
    None,
    /// An MBR.
    Mbr {
        /// The disk signature.
        signature: u32,
    },
    /// A GPT.
    Gpt {
        /// GUID of the disk.
        guid: gpt::Guid,
        /// Whether the MBR shows partitions too, beside the protective record.
        hybrid: bool,
        /// Which copy of the table is damaged, if one is.
        damaged: Option<&'static str>,
    },
}

/// One partition.
#[derive(Clone, Debug)]
pub struct Partition {
    /// Its number, as in `/dev/mmcblk0p2`.
    pub number: u32,
    /// Where it starts.
    pub start: Bytes,
    /// How long it is.
    pub len: Bytes,
    /// Its type, by the table.
    pub kind: PartitionKind,
    /// Its `PARTUUID`; empty without a table.
    pub partuuid: String,
    /// Its name in a GPT.
    pub name: Option<String>,
    /// What it holds, if that was recognised.
    pub filesystem: Option<Filesystem>,
}

/// A partition's type as its table writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionKind {
    /// The whole disk.
    Whole,
    /// A type byte of an MBR.
    Mbr(u8),
    /// A type GUID.
    Gpt(gpt::Guid),
}

impl fmt::Display for PartitionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PartitionKind::Whole => f.write_str("whole disk"),
            PartitionKind::Mbr(kind) => write!(f, "{kind:02x}"),
            PartitionKind::Gpt(guid) => write!(f, "{guid}"),
        }
    }
}

/// What was recognised by its magic bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// Which.
    pub kind: FilesystemKind,
    /// Its label, if it has one.
    pub label: String,
    /// Its UUID as Linux writes it, if it has one: `1234-ABCD` for FAT.
    pub uuid: String,
}

/// A filesystem, or what stands in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum FilesystemKind {
    Fat12,
    Fat16,
    Fat32,
    Ext2,
    Ext3,
    Ext4,
    F2fs,
    Btrfs,
    Xfs,
    Squashfs,
    Erofs,
    Luks,
    Swap,
}

impl FilesystemKind {
    /// Whether [`fat::read`] reads it.
    pub fn is_fat(self) -> bool {
        matches!(self, Self::Fat12 | Self::Fat16 | Self::Fat32)
    }

    /// Whether it is ext4 or one of those before it.
    pub fn is_ext(self) -> bool {
        matches!(self, Self::Ext2 | Self::Ext3 | Self::Ext4)
    }
}

impl fmt::Display for FilesystemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fat12 => "FAT12",
            Self::Fat16 => "FAT16",
            Self::Fat32 => "FAT32",
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::F2fs => "f2fs",
            Self::Btrfs => "btrfs",
            Self::Xfs => "xfs",
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
            Self::Luks => "LUKS",
            Self::Swap => "swap",
        })
    }
}

/// Why a disk cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The MBR.
    #[error("the disk's MBR cannot be used")]
    Mbr(#[from] mbr::MbrError),
    /// The GPT.
    #[error("the disk's GPT cannot be used")]
    Gpt(#[from] gpt::GptError),
    /// A protective MBR says that there is a GPT, but there is none.
    #[error("the MBR is a GPT's, but neither end of the disk holds one: the image is damaged or cut off")]
    NoGpt,
    /// A partition could not be looked into.
    #[error("reading partition {number} at byte {offset}")]
    Io {
        /// Which.
        number: u32,
        /// Where it starts.
        offset: u64,
        /// The failure.
        #[source]
        source: io::Error,
    },
    /// Not even a sector.
    #[error("{0} is too short for a disk image: there is not one sector")]
    Short(Bytes),
}

/// Opens the disk that `source` holds from its first byte on; `len` is its size, of which a last part of a sector is
/// left alone.
pub fn open(source: &Arc<dyn ReadAt>, len: Bytes) -> Result<Disk, DiskError> {
    let sectors = len.0 / SECTOR;
    if sectors == 0 {
        return Err(DiskError::Short(len));
    }
    let (table, mut partitions) = table(source, sectors)?;
    for partition in &mut partitions {
        let (number, offset) = (partition.number, partition.start.0);
        let found = probe(source, offset, partition.len.0);
        partition.filesystem = found.map_err(|source| DiskError::Io { number, offset, source })?;
    }
    if table == Table::None {
        // A disk that is blank is not a partition.
        partitions.retain(|partition| partition.filesystem.is_some());
    }
    Ok(Disk { size: len, table, partitions })
}

fn table(source: &Arc<dyn ReadAt>, sectors: u64) -> Result<(Table, Vec<Partition>), DiskError> {
    let bytes = |sectors: &std::ops::Range<u64>| {
        (Bytes(sectors.start * SECTOR), Bytes((sectors.end - sectors.start) * SECTOR))
    };
    // A FAT boot sector has an MBR's magic bytes too; where its code stands, an MBR has its records.
    let whole = || {
        let kind = PartitionKind::Whole;
        let len = Bytes(sectors * SECTOR);
        let partuuid = String::new();
        vec![Partition { number: 0, start: Bytes(0), len, kind, partuuid, name: None, filesystem: None }]
    };
    let mut first = [0; SECTOR as usize];
    source.read_exact_at(&mut first, 0).map_err(|source| mbr::MbrError::Io { sector: 0, source })?;
    if fat::probe(&first, sectors * SECTOR).is_some() {
        return Ok((Table::None, whole()));
    }
    let Some(mbr) = mbr::read(source, sectors)? else { return Ok((Table::None, whole())) };
    let protective = mbr.partitions.iter().any(|partition| partition.kind == mbr::PROTECTIVE);
    if !protective {
        let partition = |partition: &mbr::Partition| {
            let (start, len) = bytes(&partition.sectors);
            let partuuid = mbr::partuuid(mbr.signature, partition.number);
            let (number, kind) = (partition.number, PartitionKind::Mbr(partition.kind));
            Partition { number, start, len, kind, partuuid, name: None, filesystem: None }
        };
        return Ok((Table::Mbr { signature: mbr.signature }, mbr.partitions.iter().map(partition).collect()));
    }
    let gpt = gpt::read(source, sectors)?.ok_or(DiskError::NoGpt)?;
    let partition = |partition: gpt::Partition| {
        let (start, len) = bytes(&partition.sectors);
        let (kind, partuuid) = (PartitionKind::Gpt(partition.kind), partition.guid.to_string());
        let name = Some(partition.name);
        Partition { number: partition.number, start, len, kind, partuuid, name, filesystem: None }
    };
    let hybrid = mbr.partitions.iter().any(|partition| partition.kind != mbr::PROTECTIVE);
    let table = Table::Gpt { guid: gpt.disk, hybrid, damaged: gpt.damaged };
    Ok((table, gpt.partitions.into_iter().map(partition).collect()))
}

/// Where magic bytes are, what they are, and where label and UUID are, from the start of the partition.
struct Magic {
    at: usize,
    bytes: &'static [u8],
    kind: FilesystemKind,
    /// Offset and length.
    label: Option<(usize, usize)>,
    uuid: Option<usize>,
}

/// From the kernel's headers of each filesystem (`fs/*/super.h`, `include/uapi/linux/*_fs.h`), and for LUKS, swap and
/// xfs from libblkid's table of the same facts.
const MAGICS: [Magic; 9] = [
    magic(0x438, b"\x53\xef", FilesystemKind::Ext4, Some((0x478, 16)), Some(0x468)),
    magic(0x400, b"\x10\x20\xf5\xf2", FilesystemKind::F2fs, None, Some(0x46c)),
    magic(0x400, b"\xe2\xe1\xf5\xe0", FilesystemKind::Erofs, Some((0x440, 16)), Some(0x430)),
    magic(0x10040, b"_BHRfS_M", FilesystemKind::Btrfs, Some((0x1012b, 256)), Some(0x10020)),
    magic(0, b"XFSB", FilesystemKind::Xfs, Some((108, 12)), Some(32)),
    magic(0, b"hsqs", FilesystemKind::Squashfs, None, None),
    magic(0, b"LUKS\xba\xbe", FilesystemKind::Luks, None, None),
    magic(4086, b"SWAPSPACE2", FilesystemKind::Swap, Some((1052, 16)), Some(1036)),
    magic(65_526, b"SWAPSPACE2", FilesystemKind::Swap, Some((1052, 16)), Some(1036)),
];

const fn magic(
    at: usize,
    bytes: &'static [u8],
    kind: FilesystemKind,
    label: Option<(usize, usize)>,
    uuid: Option<usize>,
) -> Magic {
    Magic { at, bytes, kind, label, uuid }
}

/// How much of a partition its magic bytes, label and UUID lie in.
const PROBED: u64 = 0x10400;

/// What the `len` bytes from `offset` hold. `None` when nothing is recognised.
pub fn probe(source: &dyn ReadAt, offset: u64, len: u64) -> io::Result<Option<Filesystem>> {
    let mut raw = vec![0; len.min(PROBED) as usize];
    source.read_exact_at(&mut raw, offset)?;
    let hit =
        MAGICS.iter().find(|magic| raw.get(magic.at..).is_some_and(|rest| rest.starts_with(magic.bytes)));
    if let Some(magic) = hit {
        let text = |(at, len): (usize, usize)| {
            let field = raw.get(at..at + len).unwrap_or_default();
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            String::from_utf8_lossy(&field[..end]).into_owned()
        };
        let guid = |at: usize| {
            raw.get(at..at + 16).and_then(|raw| Some(gpt::Guid(raw.try_into().ok()?).to_string()))
        };
        let kind = if magic.kind == FilesystemKind::Ext4 { ext_kind(&raw) } else { magic.kind };
        let label = magic.label.map(text).unwrap_or_default();
        return Ok(Some(Filesystem { kind, label, uuid: magic.uuid.and_then(guid).unwrap_or_default() }));
    }
    let boot = raw.first_chunk().and_then(|boot| fat::probe(boot, len));
    Ok(boot.map(|(kind, label, serial)| Filesystem {
        kind: match kind {
            fat::FatKind::Fat12 => FilesystemKind::Fat12,
            fat::FatKind::Fat16 => FilesystemKind::Fat16,
            fat::FatKind::Fat32 => FilesystemKind::Fat32,
        },
        label: String::from_utf8_lossy(&label).into_owned(),
        uuid: format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff),
    }))
}

/// ext4 has extents or another feature ext3 knows nothing of; ext3 has a journal. `raw` holds the superblock.
fn ext_kind(raw: &[u8]) -> FilesystemKind {
    let long =
        |at: usize| raw.get(at..at + 4).map_or(0, |raw| u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]));
    let (compatible, incompatible, read_only) = (long(0x45c), long(0x460), long(0x464));
    // What ext3 has: filetype, recover, journal_dev, meta_bg; sparse_super, large_file, btree_dir.
    if incompatible & !0x1e != 0 || read_only & !0x7 != 0 {
        FilesystemKind::Ext4
    } else if compatible & 0x4 != 0 {
        FilesystemKind::Ext3
    } else {
        FilesystemKind::Ext2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_bytes(bytes: Vec<u8>) -> Result<Disk, DiskError> {
        let len = Bytes(bytes.len() as u64);
        open(&(Arc::new(bytes) as Arc<dyn ReadAt>), len)
    }

    #[test]
    fn a_blank_disk_has_nothing_and_a_short_one_is_refused() {
        let disk = open_bytes(vec![0; 1 << 20]).unwrap();
        assert!(disk.table == Table::None && disk.partitions.is_empty());
        assert!(matches!(open_bytes(vec![0; 511]), Err(DiskError::Short(_))));
    }

    #[test]
    fn a_gpt_that_was_cut_off_is_an_error() {
        let one = mbr::Partition { number: 1, kind: mbr::PROTECTIVE, bootable: false, sectors: 1..2000 };
        let mut bytes = mbr::write(0, &[one], 2000).unwrap().to_vec();
        bytes.resize(1000 * 512, 0);
        assert!(matches!(open_bytes(bytes), Err(DiskError::NoGpt)));
    }

    #[test]
    fn filesystems_are_known_by_their_magic() {
        for magic in MAGICS {
            let mut raw = vec![0; 1 << 17];
            raw[magic.at..magic.at + magic.bytes.len()].copy_from_slice(magic.bytes);
            if let Some((at, _)) = magic.label {
                raw[at..at + 6].copy_from_slice(b"rootfs");
            }
            let found = probe(&raw, 0, raw.len() as u64).unwrap().unwrap();
            let kind = if magic.kind == FilesystemKind::Ext4 { FilesystemKind::Ext2 } else { magic.kind };
            assert_eq!((found.kind, found.label.is_empty()), (kind, magic.label.is_none()));
        }
        assert_eq!(probe(&vec![0; 100], 0, 100).unwrap(), None);
    }

    #[test]
    fn damaged_disks_never_panic() {
        let one = |number, sectors| mbr::Partition { number, kind: 0x0f, bootable: false, sectors };
        let mut whole = mbr::write(1, &[one(1, 1..50), one(2, 50..90)], 100).unwrap().to_vec();
        whole.resize(100 * 512, 0);
        let partition = whole[446..462].to_vec();
        whole[512 + 446..512 + 462].copy_from_slice(&partition);
        whole[512 + 510..1024].copy_from_slice(&[0x55, 0xaa]);
        for at in (440..512).chain(512 + 446..512 + 480) {
            for value in [0, 1, 5, 0x0f, 0x7f, 0xee, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let _ = open_bytes(bytes);
            }
        }
    }
}
