//! One inode: type, owner, times, and where its blocks and attributes are.

use super::superblock::raw_crc;
use super::{Filesystem, ReadError, corrupt, decode_device, le16, le32, xattr};
use crate::format::entry::Device;
use crate::meta::{Meta, Timestamp};

pub(super) const FIFO: u16 = 0o010000;
pub(super) const CHARACTER: u16 = 0o020000;
pub(super) const DIRECTORY: u16 = 0o040000;
pub(super) const BLOCK: u16 = 0o060000;
pub(super) const REGULAR: u16 = 0o100000;
pub(super) const SYMLINK: u16 = 0o120000;
pub(super) const SOCKET: u16 = 0o140000;

const FLAG_ENCRYPTED: u32 = 0x800;
const FLAG_EXTENTS: u32 = 0x8_0000;
const FLAG_VERITY: u32 = 0x10_0000;
const FLAG_INLINE_DATA: u32 = 0x1000_0000;
const FLAG_COMPRESSED: u32 = 0x4;

pub(super) struct Inode {
    pub(super) number: u32,
    raw: Vec<u8>,
}

impl Inode {
    pub(super) fn read(filesystem: &Filesystem, number: u32) -> Result<Self, ReadError> {
        let mut raw = vec![0; filesystem.superblock.inode_size];
        filesystem.read(filesystem.inode_offset(number)?, &mut raw)?;
        let inode = Self { number, raw };
        if filesystem.superblock.checksums() {
            inode.check(filesystem)?;
        }
        if inode.raw.len() > 128 && 128 + inode.extra_size() > inode.raw.len() {
            return Err(corrupt(inode.place(), format!("extra size {}", inode.extra_size())));
        }
        if le16(&inode.raw, 26) == 0 || le16(&inode.raw, 0) == 0 {
            return Err(corrupt(inode.place(), "a name leads to it, but it is not in use"));
        }
        for (flag, name) in
            [(FLAG_ENCRYPTED, "encrypted"), (FLAG_COMPRESSED, "compressed"), (FLAG_VERITY, "fs-verity")]
        {
            // A flag of compression without the feature is a leftover that the kernel ignores too.
            if inode.flags() & flag != 0 && flag != FLAG_COMPRESSED {
                return Err(ReadError::Unsupported(format!("{name} file ({})", inode.place())));
            }
        }
        Ok(inode)
    }

    fn check(&self, filesystem: &Filesystem) -> Result<(), ReadError> {
        let mut blanked = self.raw.clone();
        blanked[124..126].fill(0);
        let wide = self.raw.len() > 128 && self.extra_size() >= 4;
        if wide {
            blanked[130..132].fill(0);
        }
        let computed = raw_crc(self.checksum_seed(filesystem), &blanked);
        let stored =
            u32::from(le16(&self.raw, 124)) | if wide { u32::from(le16(&self.raw, 130)) << 16 } else { 0 };
        let computed = if wide { computed } else { computed & 0xffff };
        if stored != computed {
            return Err(corrupt(
                self.place(),
                format!("checksum is {stored:#010x}, computed {computed:#010x}"),
            ));
        }
        Ok(())
    }

    /// Where this inode's own checksums (extent blocks, directory blocks) start from.
    pub(super) fn checksum_seed(&self, filesystem: &Filesystem) -> u32 {
        let seed = raw_crc(filesystem.superblock.checksum_seed, &self.number.to_le_bytes());
        raw_crc(seed, &self.raw[100..104])
    }

    pub(super) fn place(&self) -> String {
        format!("inode {}", self.number)
    }

    pub(super) fn file_type(&self) -> u16 {
        le16(&self.raw, 0) & 0o170000
    }

    pub(super) fn size(&self) -> u64 {
        u64::from(le32(&self.raw, 4)) | u64::from(le32(&self.raw, 108)) << 32
    }

    /// The 60 bytes that hold a block map, an extent root, a short link or inline data.
    pub(super) fn block(&self) -> &[u8] {
        &self.raw[40..100]
    }

    pub(super) fn has_extents(&self) -> bool {
        self.flags() & FLAG_EXTENTS != 0
    }

    pub(super) fn has_inline_data(&self) -> bool {
        self.flags() & FLAG_INLINE_DATA != 0
    }

    pub(super) fn device(&self) -> Device {
        decode_device(le32(self.block(), 0), le32(self.block(), 4))
    }

    pub(super) fn meta(&self, filesystem: &Filesystem) -> Result<Meta, ReadError> {
        let wide = |low: usize, high: usize| {
            u32::from(le16(&self.raw, low)) | u32::from(le16(&self.raw, high)) << 16
        };
        let xattrs = xattr::all(filesystem, self)?;
        let xattrs = xattrs.into_iter().filter(|(name, _)| name != xattr::INLINE_DATA).collect();
        Ok(Meta {
            mode: le16(&self.raw, 0) & 0o7777,
            uid: wide(2, 120),
            gid: wide(24, 122),
            mtime: self.mtime(),
            xattrs,
        })
    }

    pub(super) fn xattr_block(&self) -> u64 {
        u64::from(le32(&self.raw, 104)) | u64::from(le16(&self.raw, 118)) << 32
    }

    /// What follows the fixed fields: attributes kept in the inode.
    pub(super) fn tail(&self) -> &[u8] {
        if self.raw.len() > 128 { self.raw.get(128 + self.extra_size()..).unwrap_or_default() } else { &[] }
    }

    fn mtime(&self) -> Timestamp {
        let seconds = i64::from(le32(&self.raw, 16).cast_signed());
        if self.raw.len() <= 128 || self.extra_size() < 12 {
            return Timestamp::seconds(seconds);
        }
        // Two bits more for the seconds, thirty for the nanoseconds (fs/ext4/ext4.h, "Extended timestamps").
        let extra = le32(&self.raw, 136);
        Timestamp {
            seconds: seconds + (i64::from(extra & 3) << 32),
            nanoseconds: (extra >> 2).min(999_999_999),
        }
    }

    fn flags(&self) -> u32 {
        le32(&self.raw, 32)
    }

    fn extra_size(&self) -> usize {
        usize::from(le16(&self.raw, 128))
    }
}
