//! The GUID partition table (UEFI specification, chapter 5), by the crate `gpt`.
//!
//! The crate draws random GUIDs, writes in place and panics on tables it does not expect. So writing goes to a disk
//! in memory with every GUID given, and before reading, what the crate would trip over is checked.

use super::mbr;
use crate::content::ReadAt;
use crate::units::SECTOR;
use gpt::GptConfig;
use gpt::mbr::{PartRecord, ProtectiveMBR};
use gpt::partition_types;
use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::sync::Arc;

/// Sectors at the start of the disk: protective MBR, header, 128 entries of 128 bytes.
pub const HEAD: u64 = 34;
/// Sectors at the end: the entries again, and the second header.
pub const TAIL: u64 = 33;
/// Most entries that are read. Everyone writes 128.
const MAX_ENTRIES: u32 = 4096;

/// Type GUID of a FAT partition that firmware boots from (EFI system partition).
pub const EFI_SYSTEM: Guid = Guid(*b"\xC1\x2A\x73\x28\xF8\x1F\x11\xD2\xBA\x4B\x00\xA0\xC9\x3E\xC9\x3B");
/// Type GUID of any FAT or NTFS partition (Microsoft basic data).
pub const BASIC_DATA: Guid = Guid(*b"\xEB\xD0\xA0\xA2\xB9\xE5\x44\x33\x87\xC0\x68\xB6\xB7\x26\x99\xC7");
/// Type GUID of any Linux filesystem.
pub const LINUX: Guid = Guid(*b"\x0F\xC6\x3D\xAF\x84\x83\x47\x72\x8E\x79\x3D\x69\xD8\x47\x7D\xE4");

/// A GUID, in the order in which it is written as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Guid(pub [u8; 16]);

impl std::fmt::Display for Guid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Guid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// From 1.
    pub number: u32,
    /// What kind of thing it holds.
    pub kind: Guid,
    /// Its own GUID: Linux' `PARTUUID`.
    pub guid: Guid,
    /// First sector and the one after the last.
    pub sectors: Range<u64>,
    /// Its name, at most 36 UTF-16 units.
    pub name: String,
}

/// A whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpt {
    /// GUID of the disk.
    pub disk: Guid,
    /// The partitions by number.
    pub partitions: Vec<Partition>,
    /// Which of the two copies is damaged or missing. An image written to a larger card has its second copy in the
    /// middle of it, so that is no reason to refuse.
    pub damaged: Option<&'static str>,
}

/// Why a table cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum GptError {
    /// The crate, or the disk below it, refused.
    #[error("{attempt} the GUID partition table")]
    Gpt {
        /// Reading or writing.
        attempt: &'static str,
        /// What it said.
        #[source]
        source: gpt::GptError,
    },
    /// A header asks for more entries than anyone has, or entries of another size.
    #[error(
        "GUID partition table at sector {sector}: {entries} entries of {size} bytes, supported are up to {MAX_ENTRIES} of 128"
    )]
    Unsupported {
        /// Where the header is.
        sector: u64,
        /// How many entries it says.
        entries: u32,
        /// How large it says they are.
        size: u32,
    },
    /// Partitions overlap, or lie in the table or outside the disk.
    #[error(
        "GUID partition table: partition {number} has sectors {first} to {end} (not included): {problem}"
    )]
    Place {
        /// Which.
        number: u32,
        /// First sector.
        first: u64,
        /// One after the last.
        end: u64,
        /// What is wrong with that.
        problem: &'static str,
    },
    /// Numbers do not go from 1 without a gap, or a name is too long.
    #[error("GUID partition table: partition {0} is out of order or its name is longer than 36 UTF-16 units")]
    Order(u32),
    /// The disk could not be read.
    #[error("reading the GUID partition table at sector {sector}")]
    Io {
        /// Which sector.
        sector: u64,
        /// The failure.
        #[source]
        source: io::Error,
    },
}

/// The bytes of a table: [`HEAD`] sectors for the start of the disk and [`TAIL`] for its end.
///
/// `disk` is its size in sectors. With `hybrid`, the MBR shows partition 1 as FAT32 too, next to a protective record
/// that ends before it: boot ROMs up to the Pi 3's know no GPT.
pub fn write(
    guid: Guid,
    partitions: &[Partition],
    disk: u64,
    hybrid: bool,
) -> Result<(Vec<u8>, Vec<u8>), GptError> {
    let attempt = |source: gpt::GptError| GptError::Gpt { attempt: "writing", source };
    let mut entries = BTreeMap::new();
    for (partition, expected) in partitions.iter().zip(1..) {
        let number = partition.number;
        if number != expected || partition.name.encode_utf16().count() > 36 {
            return Err(GptError::Order(number));
        }
        let entry = gpt::partition::Partition {
            part_type_guid: partition_types::Type {
                guid: parse(partition.kind),
                os: partition_types::OperatingSystem::None,
            },
            part_guid: parse(partition.guid),
            first_lba: partition.sectors.start,
            last_lba: partition.sectors.end.saturating_sub(1),
            flags: 0,
            name: partition.name.clone(),
        };
        entries.insert(number, entry);
    }
    check(partitions, HEAD..disk.saturating_sub(TAIL))?;
    let memory = Disk::new(disk * SECTOR);
    let config = GptConfig::new().writable(true);
    let mut table = config.create_from_device(memory, Some(parse(guid))).map_err(attempt)?;
    table.update_partitions(entries).map_err(attempt)?;
    let memory = table.write().map_err(attempt)?;
    let mut head = memory.range(0..HEAD);
    head[..SECTOR as usize].copy_from_slice(&first_sector(partitions, disk, hybrid));
    Ok((head, memory.range(disk - TAIL..disk)))
}

fn first_sector(partitions: &[Partition], disk: u64, hybrid: bool) -> [u8; SECTOR as usize] {
    let whole = u32::try_from(disk - 1).unwrap_or(u32::MAX);
    let first = partitions.first().filter(|_| hybrid);
    let record = first.and_then(|partition| {
        let sectors = partition.sectors.clone();
        let number = 2;
        let plain = mbr::Partition { number, kind: mbr::FAT32_LBA, bootable: false, sectors };
        // Only a partition past 2 TiB cannot be shown; the boot partition is never there.
        let raw = mbr::write(0, &[plain], disk).ok()?;
        Some((partition.sectors.start, PartRecord::from_bytes(&raw[462..478]).ok()?))
    });
    let mut sector = ProtectiveMBR::with_lb_size(whole);
    if let Some((start, record)) = record {
        // It fits 32 bits, or the record would not have been made.
        sector.set_partition(0, PartRecord::new_protective(Some((start - 1) as u32)));
        sector.set_partition(1, record);
    }
    sector.to_bytes()
}

/// Reads the table of a disk of `disk` sectors; `None` when neither end of it holds one.
pub fn read(source: &Arc<dyn ReadAt>, disk: u64) -> Result<Option<Gpt>, GptError> {
    if disk < HEAD + TAIL {
        return Ok(None);
    }
    let mut found = false;
    for sector in [1, disk - 1] {
        let mut raw = [0; 92];
        let place = sector * SECTOR;
        source.read_exact_at(&mut raw, place).map_err(|source| GptError::Io { sector, source })?;
        if !raw.starts_with(b"EFI PART") {
            continue;
        }
        found = true;
        let long = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let (entries, size) = (long(80), long(84));
        if size != 128 || entries > MAX_ENTRIES {
            return Err(GptError::Unsupported { sector, entries, size });
        }
    }
    if !found {
        return Ok(None);
    }
    let device = Reader { source: source.clone(), len: disk * SECTOR, at: 0 };
    let table = GptConfig::new().open_from_device(device);
    let table = table.map_err(|source| GptError::Gpt { attempt: "reading", source })?;
    let used = table.partitions().iter().filter(|(_, partition)| partition.is_used());
    let partition = |(number, partition): (&u32, &gpt::partition::Partition)| Partition {
        number: *number,
        kind: Guid(*partition.part_type_guid.guid.as_bytes()),
        guid: Guid(*partition.part_guid.as_bytes()),
        sectors: partition.first_lba..partition.last_lba.saturating_add(1),
        name: partition.name.clone(),
    };
    let partitions: Vec<Partition> = used.map(partition).collect();
    check(&partitions, 2..disk)?;
    let damaged = match (table.primary_header(), table.backup_header()) {
        (Err(_), _) => Some("the copy at the start"),
        (_, Err(_)) => Some("the copy at the end"),
        _ => None,
    };
    Ok(Some(Gpt { disk: Guid(*table.guid().as_bytes()), partitions, damaged }))
}

fn check(partitions: &[Partition], room: Range<u64>) -> Result<(), GptError> {
    let place = |partition: &Partition, problem| {
        let Range { start: first, end } = partition.sectors;
        Err(GptError::Place { number: partition.number, first, end, problem })
    };
    let mut order: Vec<&Partition> = partitions.iter().collect();
    order.sort_by_key(|partition| partition.sectors.start);
    let mut end = room.start;
    for partition in order {
        if partition.sectors.is_empty() {
            return place(partition, "it is empty");
        }
        if partition.sectors.start < room.start || partition.sectors.end > room.end {
            return place(partition, "outside the room for partitions");
        }
        if partition.sectors.start < end {
            return place(partition, "it overlaps another");
        }
        end = partition.sectors.end;
    }
    Ok(())
}

/// The crate's own GUID type has no name here, but reads text.
fn parse<T: std::str::FromStr + Default>(guid: Guid) -> T {
    // What `Display` writes is always a GUID.
    guid.to_string().parse().unwrap_or_default()
}

/// A disk in memory that holds only the sectors written to.
#[derive(Debug)]
struct Disk {
    sectors: BTreeMap<u64, [u8; SECTOR as usize]>,
    len: u64,
    at: u64,
}

impl Disk {
    fn new(len: u64) -> Self {
        Self { sectors: BTreeMap::new(), len, at: 0 }
    }

    fn range(&self, range: Range<u64>) -> Vec<u8> {
        range.flat_map(|at| self.sectors.get(&at).copied().unwrap_or([0; SECTOR as usize])).collect()
    }

    /// The sector at the position, the place in it, and how much of `wanted` fits.
    fn part(&self, wanted: usize) -> (u64, usize, usize) {
        let within = (self.at % SECTOR) as usize;
        let left = self.len.saturating_sub(self.at).min(SECTOR - within as u64) as usize;
        (self.at / SECTOR, within, wanted.min(left))
    }
}

impl Read for Disk {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (sector, within, len) = self.part(buffer.len());
        match self.sectors.get(&sector) {
            Some(bytes) => buffer[..len].copy_from_slice(&bytes[within..within + len]),
            None => buffer[..len].fill(0),
        }
        self.at += len as u64;
        Ok(len)
    }
}

impl Write for Disk {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let (sector, within, len) = self.part(buffer.len());
        if len > 0 {
            let bytes = self.sectors.entry(sector).or_insert([0; SECTOR as usize]);
            bytes[within..within + len].copy_from_slice(&buffer[..len]);
        }
        self.at += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Disk {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        seek(&mut self.at, self.len, to)
    }
}

/// A disk that is only read, as the crate wants to see it.
struct Reader {
    source: Arc<dyn ReadAt>,
    len: u64,
    at: u64,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reader({} bytes)", self.len)
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = (buffer.len() as u64).min(self.len.saturating_sub(self.at)) as usize;
        self.source.read_exact_at(&mut buffer[..len], self.at)?;
        self.at += len as u64;
        Ok(len)
    }
}

impl Write for Reader {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        seek(&mut self.at, self.len, to)
    }
}

fn seek(at: &mut u64, len: u64, to: SeekFrom) -> io::Result<u64> {
    let place = match to {
        SeekFrom::Start(place) => Some(place),
        SeekFrom::End(by) => len.checked_add_signed(by),
        SeekFrom::Current(by) => at.checked_add_signed(by),
    };
    *at = place.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(*at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: u64 = 2_000;

    fn partitions() -> Vec<Partition> {
        let one = |number: u8, kind, sectors, name: &str| Partition {
            number: number.into(),
            kind,
            guid: Guid([number; 16]),
            sectors,
            name: name.into(),
        };
        vec![one(1, EFI_SYSTEM, 40..1000, "bootfs"), one(2, LINUX, 1000..1960, "rootfs")]
    }

    fn disk(hybrid: bool) -> Vec<u8> {
        let (mut bytes, tail) = write(Guid([7; 16]), &partitions(), DISK, hybrid).unwrap();
        bytes.resize(((DISK - TAIL) * SECTOR) as usize, 0);
        bytes.extend(tail);
        bytes
    }

    fn read_disk(bytes: Vec<u8>) -> Result<Option<Gpt>, GptError> {
        let sectors = bytes.len() as u64 / SECTOR;
        read(&(Arc::new(bytes) as Arc<dyn ReadAt>), sectors)
    }

    #[test]
    fn a_table_comes_back_and_two_are_the_same() {
        let gpt = read_disk(disk(false)).unwrap().unwrap();
        assert_eq!(gpt, Gpt { disk: Guid([7; 16]), partitions: partitions(), damaged: None });
        assert_eq!(disk(false), disk(false));
        assert_eq!(LINUX.to_string(), "0fc63daf-8483-4772-8e79-3d69d8477de4");
        assert_eq!(EFI_SYSTEM.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
    }

    #[test]
    fn one_damaged_copy_is_named_and_two_are_an_error() {
        let mut bytes = disk(false);
        bytes[512 + 60] ^= 1;
        assert_eq!(read_disk(bytes.clone()).unwrap().unwrap().damaged, Some("the copy at the start"));
        let header = bytes.len() - 512;
        bytes[header + 60] ^= 1;
        assert!(matches!(read_disk(bytes), Err(GptError::Gpt { .. })));
        let mut larger = disk(false);
        larger.resize(larger.len() * 2, 0);
        assert_eq!(read_disk(larger).unwrap().unwrap().damaged, Some("the copy at the end"));
        assert_eq!(read_disk(vec![0; 100 * 512]).unwrap(), None);
        assert_eq!(read_disk(vec![0; 512]).unwrap(), None);
    }

    #[test]
    fn headers_that_would_make_the_crate_panic_are_refused() {
        for (at, value) in [(84, 256u32), (84, 0), (80, u32::MAX), (80, 5000)] {
            let mut bytes = disk(false);
            bytes[512 + at..512 + at + 4].copy_from_slice(&value.to_le_bytes());
            assert!(matches!(read_disk(bytes), Err(GptError::Unsupported { sector: 1, .. })), "{at} {value}");
        }
    }

    #[test]
    fn damaged_tables_never_panic() {
        let whole = disk(false);
        for at in (512..1024).chain([1024 + 32, 1024 + 40, 1024 + 47]) {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let _ = read_disk(bytes);
            }
        }
    }

    #[test]
    fn partitions_that_cannot_be_are_refused() {
        let refused = |change: &dyn Fn(&mut Vec<Partition>)| {
            let mut partitions = partitions();
            change(&mut partitions);
            write(Guid([7; 16]), &partitions, DISK, false).unwrap_err().to_string()
        };
        assert!(refused(&|all| all[1].sectors = 999..1500).contains("partition 2 has sectors 999 to 1500"));
        assert!(refused(&|all| all[1].sectors = 1500..DISK - 32).contains("outside the room"));
        assert!(refused(&|all| all[0].sectors = 33..40).contains("outside the room"));
        assert!(refused(&|all| all[0].sectors = 40..40).contains("it is empty"));
        assert!(refused(&|all| all[0].number = 3).contains("partition 3 is out of order"));
        assert!(refused(&|all| all[0].name = "x".repeat(37)).contains("partition 1 is out of order"));
    }
}
