//! The image: two trees become a partition table, a FAT boot partition and an ext4 root, first as a value, then as
//! bytes.
//!
//! ```text
//! boot tree ─┐                    ┌─► layout (where)
//!            ├─► Contents ─► plan ┤                 ├─► Image::write ─► any sink
//! root tree ─┘                    └─► FAT, ext4     ┘        └─► write::to_file: a sparse file, its digest, its map
//! ```
//!
//! Everything is decided before the first byte is written, so an image that does not fit is refused at once.

pub mod layout;
pub mod write;

use crate::digest::{Hasher, Sha256};
use crate::format::entry::Entry;
use crate::format::gpt::Guid;
use crate::format::sink::Sink;
use crate::format::{ext4, fat};
use crate::meta::Timestamp;
use crate::tree::Tree;
use crate::units::Bytes;
use layout::{Layout, LayoutError, Needed, Spec};
use std::io;
use std::ops::Range;

/// Label of the boot partition, as on Raspberry Pi OS.
pub const BOOT_LABEL: &str = "bootfs";
/// Label of the root filesystem, as on Raspberry Pi OS.
pub const ROOT_LABEL: &str = "rootfs";

/// Every number that tells this image from another. All come from the lock, so the same lock gives the same image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// MBR disk signature, which the `PARTUUID`s of an MBR are made of. Not zero.
    pub disk_id: u32,
    /// Serial number of the boot partition's FAT.
    pub fat_serial: u32,
    /// UUID of the root filesystem.
    pub root_uuid: [u8; 16],
    /// Seed of the root filesystem's directory hashes.
    pub hash_seed: [u8; 16],
    /// GUIDs of a GPT: the disk, the boot partition, the root partition.
    pub guids: [Guid; 3],
}

impl Identity {
    /// Draws every number from one digest, each apart from the others. UUIDs are of version 8 (RFC 9562: made by a
    /// rule of one's own).
    pub fn from_digest(digest: &Sha256) -> Self {
        let draw = |name: &str| {
            let mut hasher = Hasher::new();
            hasher.field(b"hardtack identity 1").field(name.as_bytes()).field(&digest.0);
            hasher.finish().0.0
        };
        let number = |name| {
            let [a, b, c, d, ..] = draw(name);
            // Zero means "no signature" to Linux and to partition tools.
            u32::from_le_bytes([a, b, c, d]).max(1)
        };
        let uuid = |name| {
            let mut raw = [0; 16];
            raw.copy_from_slice(&draw(name)[..16]);
            raw[6] = raw[6] & 0x0f | 0x80;
            raw[8] = raw[8] & 0x3f | 0x80;
            raw
        };
        Self {
            disk_id: number("disk"),
            fat_serial: number("fat"),
            root_uuid: uuid("root filesystem"),
            hash_seed: uuid("hash seed"),
            guids: ["gpt disk", "gpt boot", "gpt root"].map(|name| Guid(uuid(name))),
        }
    }
}

/// What goes into an image, as lists a format writer takes.
pub struct Contents {
    boot: Vec<Entry>,
    root: Vec<Entry>,
}

impl Contents {
    /// From the tree of the boot partition and that of the root filesystem.
    pub fn new(boot: &Tree, root: &Tree) -> Self {
        Self { boot: boot.entries(), root: root.entries() }
    }
}

/// Why an image cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The boot partition.
    #[error("the boot partition cannot be made")]
    Boot(#[from] fat::FatError),
    /// The root filesystem.
    #[error("the root filesystem cannot be made")]
    Root(#[from] ext4::Error),
    /// The partitions.
    #[error("the disk cannot be laid out")]
    Layout(#[from] LayoutError),
    /// A file's contents could not be read, or the image could not be written.
    #[error("writing the {0}")]
    Write(&'static str, #[source] io::Error),
}

/// An image with every decision taken.
pub struct Image<'a> {
    contents: &'a Contents,
    layout: Layout,
    boot: fat::Plan,
    root: ext4::Plan<'a>,
}

/// Lays out an image. `time` is the time of the filesystems themselves, the lock's epoch.
pub fn plan<'a>(
    contents: &'a Contents,
    spec: &Spec,
    identity: &Identity,
    time: Timestamp,
) -> Result<Image<'a>, ImageError> {
    let mut boot = fat::Parameters {
        size: spec.boot,
        label: BOOT_LABEL.into(),
        serial: identity.fat_serial,
        time,
        kind: None,
        cluster: None,
        // A start past 2 TiB is not possible: the boot partition comes first.
        hidden_sectors: spec.align.sectors() as u32,
        free: spec.boot_free,
    };
    let mut label = [0; 16];
    // A profile's label was checked to fit; anything longer is cut, as mke2fs does.
    label.iter_mut().zip(spec.label.bytes()).for_each(|(to, from)| *to = from);
    let mut root = ext4::Parameters {
        size: Bytes(0),
        uuid: identity.root_uuid,
        hash_seed: identity.hash_seed,
        label,
        time,
        inodes: ext4::InodeCount::Auto,
        // mke2fs sets aside 5 %, which is 3 GB of a 64 GB card. 1 % is enough for root to clean up.
        reserved_percent: 1,
        journal: ext4::Journal::Auto,
    };
    let needed = Needed {
        boot: fat::minimum_size(&contents.boot, &boot, Bytes::mib(1))?,
        root: ext4::minimum_size(&contents.root, &root)?,
    };
    let layout = Layout::new(spec, needed, identity)?;
    boot.size = layout.boot().len;
    root.size = layout.root().len;
    let boot = fat::plan(&contents.boot, &boot)?;
    let root = ext4::plan(&contents.root, &root)?;
    Ok(Image { contents, layout, boot, root })
}

impl Image<'_> {
    /// Where things are.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Room left in the boot partition.
    pub fn boot_free(&self) -> Bytes {
        self.boot.free()
    }

    /// Room left in the root filesystem.
    pub fn root_free(&self) -> Bytes {
        self.root.free()
    }

    /// The ranges of bytes that mean something, sorted and apart: what a block map lists and what must reach a card.
    /// The rest may hold anything.
    pub fn used(&self) -> Vec<Range<u64>> {
        let (head, tail) = self.layout.table_bytes();
        let shift = |range: Range<u64>, by: Bytes| range.start + by.0..range.end + by.0;
        let mut used = vec![0..head.len() as u64, shift(self.boot.used(), self.layout.boot().start)];
        used.extend(self.root.used().map(|range| shift(range, self.layout.root().start)));
        if !tail.is_empty() {
            used.push(self.layout.size().0 - tail.len() as u64..self.layout.size().0);
        }
        used
    }

    /// Writes the image in one pass from its first byte to its last.
    pub fn write(&self, sink: &mut impl Sink) -> Result<(), ImageError> {
        let (head, tail) = self.layout.table_bytes();
        let table = |source| ImageError::Write("partition table", source);
        sink.bytes(0, head).map_err(table)?;
        let base = self.layout.boot().start.0;
        let boot = self.boot.write(&self.contents.boot, &mut Shifted { sink, base });
        boot.map_err(|source| ImageError::Write("boot partition", source))?;
        let base = self.layout.root().start.0;
        self.root.write(&mut Shifted { sink, base })?;
        if !tail.is_empty() {
            let offset = self.layout.size().0 - tail.len() as u64;
            sink.bytes(offset, tail).map_err(table)?;
        }
        Ok(())
    }
}

/// Lets a filesystem's writer count from its own start.
struct Shifted<'a, S> {
    sink: &'a mut S,
    base: u64,
}

impl<S: Sink> Sink for Shifted<'_, S> {
    fn bytes(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.sink.bytes(self.base + offset, bytes)
    }

    fn copy(&mut self, offset: u64, content: &crate::content::Content, at: u64, len: u64) -> io::Result<()> {
        self.sink.copy(self.base + offset, content, at, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_an_identity_is_its_own() {
        let one = Identity::from_digest(&Sha256::of(b"one"));
        assert_eq!(one, Identity::from_digest(&Sha256::of(b"one")));
        let other = Identity::from_digest(&Sha256::of(b"other"));
        assert!(one.disk_id != other.disk_id && one.root_uuid != other.root_uuid);
        let mut uuids = vec![one.root_uuid, one.hash_seed];
        uuids.extend(one.guids.map(|guid| guid.0));
        uuids.sort_unstable();
        uuids.dedup();
        assert_eq!(uuids.len(), 5);
        assert_ne!(one.disk_id, one.fat_serial);
        assert_eq!(Guid(one.root_uuid).to_string().as_bytes()[14], b'8');
    }
}
