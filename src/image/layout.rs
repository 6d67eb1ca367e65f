//! Where the parts of an image lie. Computes and never writes.
//!
//! The layout is the one Raspberry Pi users know: partition 1 is the FAT `bootfs` (type 0x0C), partition 2 the ext4
//! `rootfs` (type 0x83) up to the end, both aligned to the erase blocks of cards, and found by the `PARTUUID`s that an
//! MBR's disk signature gives.

use super::Identity;
use crate::format::{gpt, mbr};
use crate::units::{Bytes, SECTOR};

/// What is wanted of a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Kind of partition table.
    pub table: TableKind,
    /// Partitions start and end at multiples of this: a power of two from 1 to 64 MiB; 4 or 8 MiB suit cards.
    pub align: Bytes,
    /// Size of the boot partition; a multiple of the alignment.
    pub boot: Bytes,
    /// What must stay free in it, for the kernels of later updates.
    pub boot_free: Bytes,
    /// Size of everything.
    pub size: ImageSize,
    /// Label of the root filesystem, at most 16 bytes.
    pub label: String,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            table: TableKind::Mbr,
            align: Bytes::mib(8),
            boot: Bytes::mib(512),
            boot_free: Bytes(0),
            size: ImageSize::Auto { margin: Bytes::mib(256) },
            label: super::ROOT_LABEL.into(),
        }
    }
}

/// Kind of partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// MBR: every Pi boots from it.
    Mbr,
    /// GPT with a protective MBR: the Pi 4 and later.
    Gpt,
    /// GPT with an MBR that shows the boot partition too: boot ROMs before the Pi 4's know no GPT.
    HybridGpt,
}

/// How large an image is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageSize {
    /// What the contents need and so much free room in the root filesystem, rounded up to the alignment. The root
    /// grows to its card at first boot.
    Auto {
        /// Free room.
        margin: Bytes,
    },
    /// Exactly this, the partition table included; a multiple of the alignment.
    Fixed(Bytes),
}

/// What the contents need at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needed {
    /// Boot partition, with what must stay free.
    pub boot: Bytes,
    /// Root filesystem.
    pub root: Bytes,
}

/// A part of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it starts.
    pub start: Bytes,
    /// How long it is.
    pub len: Bytes,
}

impl Extent {
    fn sectors(&self) -> std::ops::Range<u64> {
        self.start.0 / SECTOR..(self.start.0 + self.len.0) / SECTOR
    }
}

/// Why a disk cannot be laid out.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Not an alignment.
    #[error("an alignment of {} bytes: must be a power of two from 1 MiB to 64 MiB", .0.0)]
    Align(Bytes),
    /// A size that is not a multiple of the alignment, or zero.
    #[error("{what} of {} bytes: must be a multiple of the alignment, {align}", .size.0)]
    Unaligned {
        /// Which size.
        what: &'static str,
        /// It.
        size: Bytes,
        /// The alignment.
        align: Bytes,
    },
    /// The boot partition's files do not fit.
    #[error(
        "a boot partition of {size} is too small: its files, and what must stay free for later kernels, need {needed}"
    )]
    Boot {
        /// Its size.
        size: Bytes,
        /// What it would take.
        needed: Bytes,
    },
    /// The image's files do not fit.
    #[error("an image of {size} is too small for what is in it: it needs at least {needed}")]
    TooSmall {
        /// What was asked for.
        size: Bytes,
        /// What it would take.
        needed: Bytes,
    },
    /// Sizes that no disk has.
    #[error("an image larger than 64 bits count")]
    Overflow,
    /// What an MBR cannot say.
    #[error("the partition table cannot be written")]
    Mbr(#[from] mbr::MbrError),
    /// What a GPT cannot say.
    #[error("the partition table cannot be written")]
    Gpt(#[from] gpt::GptError),
}

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    table: TableKind,
    boot: Extent,
    root: Extent,
    size: Bytes,
    partuuids: [String; 2],
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Layout {
    /// Lays out the partitions and makes their table.
    pub fn new(spec: &Spec, needed: Needed, identity: &Identity) -> Result<Self, LayoutError> {
        let align = spec.align;
        if !align.0.is_power_of_two() || align < Bytes::mib(1) || align > Bytes::mib(64) {
            return Err(LayoutError::Align(align));
        }
        let aligned = |what, size: Bytes| {
            let fits = size.0 != 0 && size.0.is_multiple_of(align.0);
            if fits { Ok(size) } else { Err(LayoutError::Unaligned { what, size, align }) }
        };
        let boot = Extent { start: align, len: aligned("a boot partition", spec.boot)? };
        if boot.len < needed.boot {
            return Err(LayoutError::Boot { size: boot.len, needed: needed.boot });
        }
        let add = |a: Bytes, b: Bytes| a.0.checked_add(b.0).map(Bytes).ok_or(LayoutError::Overflow);
        let round = |size: Bytes| size.align_up(align).ok_or(LayoutError::Overflow);
        let start = add(boot.start, boot.len)?;
        // The second copy of a GPT is behind the root; keeping to the alignment costs one unit more.
        let tail = if spec.table == TableKind::Mbr { Bytes(0) } else { align };
        let least = add(add(start, round(needed.root)?)?, tail)?;
        let size = match spec.size {
            ImageSize::Auto { margin } => add(add(start, round(add(needed.root, margin)?)?)?, tail)?,
            ImageSize::Fixed(size) if size < least => {
                return Err(LayoutError::TooSmall { size, needed: least });
            }
            ImageSize::Fixed(size) => aligned("an image", size)?,
        };
        let root = Extent { start, len: Bytes(size.0 - tail.0 - start.0) };
        let disk = size.0 / SECTOR;
        let (head, tail, partuuids) = match spec.table {
            TableKind::Mbr => mbr_table(identity, boot, root, disk)?,
            kind => gpt_table(identity, boot, root, disk, kind == TableKind::HybridGpt)?,
        };
        Ok(Self { table: spec.table, boot, root, size, partuuids, head, tail })
    }

    /// Kind of partition table.
    pub fn table(&self) -> TableKind {
        self.table
    }

    /// The boot partition.
    pub fn boot(&self) -> Extent {
        self.boot
    }

    /// The root partition.
    pub fn root(&self) -> Extent {
        self.root
    }

    /// Size of the whole image.
    pub fn size(&self) -> Bytes {
        self.size
    }

    /// `PARTUUID` of the boot partition, for `fstab`.
    pub fn boot_partuuid(&self) -> &str {
        &self.partuuids[0]
    }

    /// `PARTUUID` of the root partition, for `cmdline.txt` and `fstab`.
    pub fn root_partuuid(&self) -> &str {
        &self.partuuids[1]
    }

    /// The bytes of the partition table at the start of the image and at its end.
    pub fn table_bytes(&self) -> (&[u8], &[u8]) {
        (&self.head, &self.tail)
    }
}

impl Identity {
    /// The `PARTUUID`s of boot and root partition, known before the layout is: the trees that are laid out name them.
    pub fn partuuids(&self, table: TableKind) -> [String; 2] {
        match table {
            TableKind::Mbr => [1, 2].map(|number| mbr::partuuid(self.disk_id, number)),
            _ => [self.guids[1].to_string(), self.guids[2].to_string()],
        }
    }
}

type Tables = (Vec<u8>, Vec<u8>, [String; 2]);

fn mbr_table(identity: &Identity, boot: Extent, root: Extent, disk: u64) -> Result<Tables, LayoutError> {
    let partition = |number, kind, extent: Extent| mbr::Partition {
        number,
        kind,
        bootable: false,
        sectors: extent.sectors(),
    };
    let partitions = [partition(1, mbr::FAT32_LBA, boot), partition(2, mbr::LINUX, root)];
    let head = mbr::write(identity.disk_id, &partitions, disk)?;
    Ok((head.to_vec(), Vec::new(), identity.partuuids(TableKind::Mbr)))
}

fn gpt_table(
    identity: &Identity,
    boot: Extent,
    root: Extent,
    disk: u64,
    hybrid: bool,
) -> Result<Tables, LayoutError> {
    let [guid, boot_guid, root_guid] = identity.guids;
    let partition = |number, kind, guid, extent: Extent, name: &str| gpt::Partition {
        number,
        kind,
        guid,
        sectors: extent.sectors(),
        name: name.into(),
    };
    let partitions = [
        // Not "EFI system": no Pi firmware asks for it, and systemd would mount it a second time.
        partition(1, gpt::BASIC_DATA, boot_guid, boot, super::BOOT_LABEL),
        partition(2, gpt::LINUX, root_guid, root, super::ROOT_LABEL),
    ];
    let (head, tail) = gpt::write(guid, &partitions, disk, hybrid)?;
    Ok((head, tail, identity.partuuids(TableKind::Gpt)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Sha256;

    fn identity() -> Identity {
        Identity { disk_id: 0x1234_5678, ..Identity::from_digest(&Sha256::of(b"test")) }
    }

    const NEEDED: Needed = Needed { boot: Bytes::mib(100), root: Bytes(1_000_000_000) };

    #[test]
    fn raspberry_pi_os_has_the_same_places() {
        let layout = Layout::new(&Spec::default(), NEEDED, &identity()).unwrap();
        assert_eq!(layout.boot().sectors(), 16_384..1_064_960);
        assert_eq!(layout.root().start, Bytes(1_064_960 * 512));
        assert_eq!(layout.root().len, Bytes(1_000_000_000 + (256 << 20)).align_up(Bytes::mib(8)).unwrap());
        assert_eq!(layout.size().0, layout.root().start.0 + layout.root().len.0);
        assert_eq!((layout.boot_partuuid(), layout.root_partuuid()), ("12345678-01", "12345678-02"));
        let four = Spec { align: Bytes::mib(4), ..Spec::default() };
        let layout = Layout::new(&four, NEEDED, &identity()).unwrap();
        assert_eq!(layout.boot().sectors(), 8_192..1_056_768);
    }

    #[test]
    fn a_fixed_size_is_kept_or_refused_with_what_is_needed() {
        let fixed = |size, table| {
            let spec = Spec { size: ImageSize::Fixed(size), table, ..Spec::default() };
            Layout::new(&spec, NEEDED, &identity())
        };
        let needed = Bytes((8 << 20) + (512 << 20) + (1_000_000_000u64).next_multiple_of(8 << 20));
        assert_eq!(fixed(needed, TableKind::Mbr).unwrap().size(), needed);
        assert_eq!(fixed(Bytes::gib(4), TableKind::Mbr).unwrap().size(), Bytes::gib(4));
        match fixed(Bytes(needed.0 - (8 << 20)), TableKind::Mbr) {
            Err(LayoutError::TooSmall { needed: said, .. }) => assert_eq!(said, needed),
            other => panic!("{other:?}"),
        }
        assert!(matches!(fixed(needed, TableKind::Gpt), Err(LayoutError::TooSmall { .. })));
        assert!(fixed(Bytes(needed.0 + (8 << 20)), TableKind::Gpt).is_ok());
        assert!(matches!(fixed(Bytes(needed.0 + 512), TableKind::Mbr), Err(LayoutError::Unaligned { .. })));
        assert!(matches!(fixed(Bytes(3 << 40), TableKind::Mbr), Err(LayoutError::Mbr(_))));
        assert!(fixed(Bytes(3 << 40), TableKind::Gpt).is_ok());
    }

    #[test]
    fn specs_that_make_no_sense_are_refused() {
        let refused = |change: &dyn Fn(&mut Spec)| {
            let mut spec = Spec::default();
            change(&mut spec);
            Layout::new(&spec, NEEDED, &identity()).unwrap_err()
        };
        assert!(matches!(refused(&|spec| spec.align = Bytes(5 << 20)), LayoutError::Align(_)));
        assert!(matches!(refused(&|spec| spec.align = Bytes(512)), LayoutError::Align(_)));
        assert!(matches!(refused(&|spec| spec.boot = Bytes(100 << 20)), LayoutError::Unaligned { .. }));
        assert!(matches!(refused(&|spec| spec.boot = Bytes(0)), LayoutError::Unaligned { .. }));
        assert!(matches!(refused(&|spec| spec.boot = Bytes(96 << 20)), LayoutError::Boot { .. }));
        let margin = Bytes(u64::MAX - 5);
        assert!(matches!(refused(&|spec| spec.size = ImageSize::Auto { margin }), LayoutError::Overflow));
    }
}
