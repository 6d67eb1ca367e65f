//! The MBR partition table: one sector with four entries, and a chain of more for logical partitions.
//!
//! Source: the IBM PC's table as util-linux' `sfdisk` writes and reads it. Sectors have 512 bytes.

use crate::content::ReadAt;
use crate::units::SECTOR;
use std::io;
use std::ops::Range;

/// FAT32 with LBA addressing: what a Pi's boot ROM and firmware look for, whatever kind of FAT it really is.
pub const FAT32_LBA: u8 = 0x0c;
/// Any Linux filesystem.
pub const LINUX: u8 = 0x83;
/// The record that covers a GPT so that old tools see no free disk.
pub const PROTECTIVE: u8 = 0xee;

/// Where the disk signature is, the four records, and the two magic bytes.
const SIGNATURE: usize = 440;
const RECORDS: usize = 446;
const MAGIC: [u8; 2] = [0x55, 0xaa];
/// Most logical partitions that are followed; Linux stops at 256 minors.
const MAX_LOGICAL: u32 = 256;
/// The geometry `sfdisk` assumes for addresses by cylinder, head and sector.
const HEADS: u64 = 255;
const PER_TRACK: u64 = 63;

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// 1 to 4 for primary, from 5 for logical ones.
    pub number: u32,
    /// Type byte.
    pub kind: u8,
    /// The active flag, which nothing on a Pi looks at.
    pub bootable: bool,
    /// First sector and the one after the last, from the start of the disk.
    pub sectors: Range<u64>,
}

/// A whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mbr {
    /// Disk signature; partition UUIDs are made of it, see [`partuuid`].
    pub signature: u32,
    /// The partitions in order of number; the container of logical partitions is one of them.
    pub partitions: Vec<Partition>,
}

/// Why a table cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum MbrError {
    /// The disk could not be read.
    #[error("reading the partition table at sector {sector}")]
    Io {
        /// Which sector.
        sector: u64,
        /// The failure.
        #[source]
        source: io::Error,
    },
    /// More than four, twice the same, or number 0.
    #[error("partition number {0}: a new table has numbers 1 to 4, each once")]
    Number(u32),
    /// A partition is empty, starts in the table or ends after the disk.
    #[error("partition {number} has sectors {first} to {end} (not included), but the disk has 1 to {disk}")]
    OutOfDisk {
        /// Which.
        number: u32,
        /// First sector.
        first: u64,
        /// One after the last.
        end: u64,
        /// Sectors of the disk.
        disk: u64,
    },
    /// A partition starts or ends past what 32 bits address.
    #[error("partition {number} reaches past 2 TiB; an MBR cannot say so, a GPT can")]
    TooFar {
        /// Which.
        number: u32,
    },
    /// Two partitions share a sector.
    #[error("partitions {0} and {1} overlap")]
    Overlap(u32, u32),
    /// The chain of logical partitions comes back to itself or is too long.
    #[error("the chain of logical partitions is broken at sector {0}: {1}")]
    Chain(u64, &'static str),
}

/// The `PARTUUID` that Linux, `fstab` and `cmdline.txt` know a partition by: `12345678-02`.
pub fn partuuid(signature: u32, number: u32) -> String {
    format!("{signature:08x}-{number:02x}")
}

/// The first sector of a disk of `disk` sectors with these primary partitions.
pub fn write(signature: u32, partitions: &[Partition], disk: u64) -> Result<[u8; SECTOR as usize], MbrError> {
    let mut raw = [0; SECTOR as usize];
    let mut used = [false; 4];
    for partition in partitions {
        let slot = partition.number.checked_sub(1).map(|index| index as usize).filter(|index| *index < 4);
        let slot = slot.filter(|slot| !std::mem::replace(&mut used[*slot], true));
        let slot = slot.ok_or(MbrError::Number(partition.number))?;
        let at = RECORDS + slot * 16;
        raw[at..at + 16].copy_from_slice(&record(partition)?);
    }
    check(partitions, disk)?;
    raw[SIGNATURE..SIGNATURE + 4].copy_from_slice(&signature.to_le_bytes());
    raw[510..].copy_from_slice(&MAGIC);
    Ok(raw)
}

fn record(partition: &Partition) -> Result<[u8; 16], MbrError> {
    let number = partition.number;
    let Range { start, end } = partition.sectors;
    let narrow = |value: u64| u32::try_from(value).map_err(|_| MbrError::TooFar { number });
    let mut raw = [0; 16];
    raw[0] = if partition.bootable { 0x80 } else { 0 };
    raw[1..4].copy_from_slice(&chs(start));
    raw[4] = partition.kind;
    raw[5..8].copy_from_slice(&chs(end.saturating_sub(1)));
    raw[8..12].copy_from_slice(&narrow(start)?.to_le_bytes());
    raw[12..].copy_from_slice(&narrow(end.saturating_sub(start))?.to_le_bytes());
    Ok(raw)
}

/// Head, sector with the upper bits of the cylinder, cylinder. Past cylinder 1023 there is one fixed value.
fn chs(sector: u64) -> [u8; 3] {
    let (cylinder, rest) = (sector / (HEADS * PER_TRACK), sector % (HEADS * PER_TRACK));
    if cylinder > 1023 {
        return [0xfe, 0xff, 0xff];
    }
    // Each is below its limit: 254, 63, and 8 bits of 1023.
    [(rest / PER_TRACK) as u8, (rest % PER_TRACK + 1) as u8 | (cylinder >> 8 << 6) as u8, cylinder as u8]
}

/// That partitions lie on the disk and apart, the container of logical ones aside.
fn check(partitions: &[Partition], disk: u64) -> Result<(), MbrError> {
    for partition in partitions {
        let Range { start: first, end } = partition.sectors;
        if first == 0 || first >= end || end > disk {
            return Err(MbrError::OutOfDisk { number: partition.number, first, end, disk });
        }
    }
    let mut order: Vec<&Partition> = partitions.iter().filter(|one| !is_extended(one.kind)).collect();
    order.sort_by_key(|partition| partition.sectors.start);
    match order.windows(2).find(|pair| pair[0].sectors.end > pair[1].sectors.start) {
        Some(pair) => Err(MbrError::Overlap(pair[0].number, pair[1].number)),
        None => Ok(()),
    }
}

/// Reads the table of a disk of `disk` sectors; `None` when its first sector holds none (a blank disk, or a
/// filesystem without a table: flags that are neither 0 nor 0x80, or no partition at all).
pub fn read(source: &dyn ReadAt, disk: u64) -> Result<Option<Mbr>, MbrError> {
    let raw = sector(source, 0)?;
    let flags_fit = (0..4).all(|index| matches!(raw[RECORDS + index * 16], 0 | 0x80));
    let mut partitions = records(&raw);
    if raw[510..] != MAGIC || !flags_fit || partitions.is_empty() {
        return Ok(None);
    }
    if partitions.iter().any(|partition| partition.kind == PROTECTIVE) {
        // A GPT's first sector; its records are for old tools, overlap and run past the disk, and nobody reads them.
        return Ok(Some(Mbr { signature: signature(&raw), partitions }));
    }
    check(&partitions, disk)?;
    if let Some(container) = partitions.iter().find(|partition| is_extended(partition.kind)).cloned() {
        partitions.extend(logical(source, &container.sectors)?);
        check(&partitions, disk)?;
    }
    Ok(Some(Mbr { signature: signature(&raw), partitions }))
}

/// Follows the chain: each link has a partition, placed from the link, and the next link, placed from the container.
fn logical(source: &dyn ReadAt, container: &Range<u64>) -> Result<Vec<Partition>, MbrError> {
    let mut found: Vec<Partition> = Vec::new();
    let mut link = container.start;
    for number in 5..5 + MAX_LOGICAL {
        let raw = sector(source, link)?;
        if raw[510..] != MAGIC {
            return Err(MbrError::Chain(link, "no partition table there"));
        }
        let records = records(&raw);
        let outside = |range: &Range<u64>| range.start < container.start || range.end > container.end;
        let next = records.iter().find(|record| is_extended(record.kind));
        if let Some(record) = records.iter().find(|record| !is_extended(record.kind)) {
            let sectors = link + record.sectors.start..link + record.sectors.end;
            if outside(&sectors) {
                return Err(MbrError::Chain(link, "a logical partition lies outside its container"));
            }
            found.push(Partition { number, sectors, ..record.clone() });
        }
        let Some(next) = next else { return Ok(found) };
        let place = container.start + next.sectors.start;
        // `sfdisk` writes links in ascending order; only going up also ends every cycle.
        if place <= link || place >= container.end {
            return Err(MbrError::Chain(link, "the next link lies before this one or outside the container"));
        }
        link = place;
    }
    Err(MbrError::Chain(link, "more than 256 logical partitions"))
}

fn records(raw: &[u8; SECTOR as usize]) -> Vec<Partition> {
    let long = |at: usize| u64::from(u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]));
    let record = |index: u32| {
        let at = RECORDS + index as usize * 16;
        let (kind, start, len) = (raw[at + 4], long(at + 8), long(at + 12));
        (kind != 0 && len != 0).then(|| Partition {
            number: index + 1,
            kind,
            bootable: raw[at] & 0x80 != 0,
            sectors: start..start + len,
        })
    };
    (0..4).filter_map(record).collect()
}

fn signature(raw: &[u8; SECTOR as usize]) -> u32 {
    u32::from_le_bytes([raw[SIGNATURE], raw[SIGNATURE + 1], raw[SIGNATURE + 2], raw[SIGNATURE + 3]])
}

fn is_extended(kind: u8) -> bool {
    matches!(kind, 0x05 | 0x0f | 0x85)
}

fn sector(source: &dyn ReadAt, sector: u64) -> Result<[u8; SECTOR as usize], MbrError> {
    let mut raw = [0; SECTOR as usize];
    source.read_exact_at(&mut raw, sector * SECTOR).map_err(|source| MbrError::Io { sector, source })?;
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: u32, kind: u8, sectors: Range<u64>) -> Partition {
        Partition { number, kind, bootable: false, sectors }
    }

    fn raspberry_pi_os() -> Vec<Partition> {
        vec![partition(1, FAT32_LBA, 16384..1_064_960), partition(2, LINUX, 1_064_960..6_291_456)]
    }

    #[test]
    fn a_table_comes_back() {
        let raw = write(0x1234_5678, &raspberry_pi_os(), 6_291_456).unwrap();
        let mbr = read(&raw[..].to_vec(), 6_291_456).unwrap().unwrap();
        assert_eq!(mbr, Mbr { signature: 0x1234_5678, partitions: raspberry_pi_os() });
        assert_eq!(partuuid(0x1234_5678, 2), "12345678-02");
        assert_eq!(partuuid(0xab, 1), "000000ab-01");
    }

    #[test]
    fn partitions_that_cannot_be_are_refused() {
        let refused = |partitions: &[Partition], disk| write(1, partitions, disk).unwrap_err().to_string();
        let one = |number, sectors| vec![partition(number, LINUX, sectors)];
        assert!(
            refused(&raspberry_pi_os(), 6_291_455).contains("partition 2 has sectors 1064960 to 6291456")
        );
        assert!(refused(&one(5, 1..2), 9).contains("partition number 5"));
        assert!(refused(&one(0, 1..2), 9).contains("partition number 0"));
        assert!(refused(&one(1, 0..2), 9).contains("partition 1 has sectors 0 to 2"));
        assert!(refused(&one(1, 2..2), 9).contains("partition 1 has sectors 2 to 2"));
        assert!(refused(&one(1, 1 << 32..(1 << 32) + 1), 1 << 33).contains("past 2 TiB"));
        let both = [partition(1, LINUX, 5..9), partition(2, LINUX, 1..6)];
        assert!(refused(&both, 9).contains("partitions 2 and 1 overlap"));
        assert!(refused(&[both[0].clone(), both[0].clone()], 9).contains("partition number 1"));
    }

    #[test]
    fn what_is_no_table_is_none() {
        assert_eq!(read(&vec![0; 512], 100).unwrap(), None);
        let mut raw = write(1, &[partition(1, LINUX, 1..2)], 9).unwrap().to_vec();
        raw[RECORDS] = 0x33;
        assert_eq!(read(&raw, 9).unwrap(), None);
        assert!(matches!(read(&vec![0; 100], 9), Err(MbrError::Io { sector: 0, .. })));
    }

    /// A disk of 100 sectors with a container from 10 to 90, and links at the given places with their next.
    fn chained(links: &[(usize, Option<u32>)]) -> Result<Option<Mbr>, MbrError> {
        let mut disk = vec![0; 100 * 512];
        let table = write(1, &[partition(1, 0x0f, 10..90)], 100).unwrap();
        disk[..512].copy_from_slice(&table);
        for (place, next) in links {
            let mut raw = [0; 512];
            raw[RECORDS..RECORDS + 16].copy_from_slice(&record(&partition(1, LINUX, 1..3)).unwrap());
            if let Some(next) = next {
                let next = u64::from(*next);
                let link = record(&partition(2, 5, next..next + 5)).unwrap();
                raw[RECORDS + 16..RECORDS + 32].copy_from_slice(&link);
            }
            raw[510..].copy_from_slice(&MAGIC);
            disk[place * 512..][..512].copy_from_slice(&raw);
        }
        read(&disk, 100)
    }

    #[test]
    fn logical_partitions_are_followed_and_broken_chains_are_errors() {
        let mbr = chained(&[(10, Some(20)), (30, Some(40)), (50, None)]).unwrap().unwrap();
        let places: Vec<_> = mbr.partitions.iter().map(|one| (one.number, one.sectors.clone())).collect();
        assert_eq!(places, [(1, 10..90), (5, 11..13), (6, 31..33), (7, 51..53)]);
        for broken in [
            chained(&[(10, Some(20)), (30, Some(20))]),
            chained(&[(10, Some(0))]),
            chained(&[(10, Some(20))]),
            chained(&[(10, Some(85))]),
            chained(&[(10, Some(78)), (88, None)]),
        ] {
            assert!(matches!(broken, Err(MbrError::Chain(..))), "{broken:?}");
        }
    }
}
