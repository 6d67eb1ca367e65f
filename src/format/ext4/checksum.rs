//! The checksums of `metadata_csum`: crc32c, chained the way the kernel chains it
//! (Documentation/filesystems/ext4/checksums.rst).

/// Continues a crc32c (Castagnoli, reflected) over `bytes` without the inversions at start and end that the usual
/// definition has: the kernel seeds with all ones and never inverts.
pub fn update(crc: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!crc, bytes)
}

/// What a checksum starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u32);

impl Seed {
    /// The seed of a filesystem: the checksum of its UUID.
    pub fn of_filesystem(uuid: &[u8; 16]) -> Self {
        Self(update(!0, uuid))
    }

    /// The seed of everything that belongs to one inode: itself, its extent blocks, its directory blocks.
    pub fn of_inode(self, inode: u32, generation: u32) -> Self {
        Self(update(update(self.0, &inode.to_le_bytes()), &generation.to_le_bytes()))
    }

    /// The checksum of one run of bytes.
    pub fn over(self, bytes: &[u8]) -> u32 {
        update(self.0, bytes)
    }

    /// The checksum of several runs of bytes, one after the other.
    pub fn over_all(self, runs: &[&[u8]]) -> u32 {
        runs.iter().fold(self.0, |crc, bytes| update(crc, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_crc32c_is_its_inverse_here() {
        assert_eq!(!update(!0, b"123456789"), 0xe306_9283);
    }

    /// From an image of mke2fs 1.47.0 with this UUID: `inode_dump` of its inode 3, all zeros but the checksum.
    #[test]
    fn an_inode_of_mke2fs_has_this_checksum() {
        let uuid = [1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
        let seed = Seed::of_filesystem(&uuid).of_inode(3, 0);
        assert_eq!(seed.over(&[0; 256]) & 0xffff, 0xfd54);
        assert_eq!(seed.over_all(&[&[0; 100], &[0; 156]]), seed.over(&[0; 256]));
    }
}
