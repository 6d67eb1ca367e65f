//! An empty journal: its superblock, and zeros (Documentation/filesystems/ext4/journal.rst). Big-endian, alone in ext4.
//!
//! Like mke2fs, no feature is set in it: the kernel turns on checksums (version 3) and 64-bit block numbers itself
//! when it first mounts a filesystem with `metadata_csum` and `64bit`.

/// Fewest blocks the kernel takes for a journal (`JBD2_MIN_JOURNAL_BLOCKS`).
pub const MIN_BLOCKS: u32 = 1024;
const LEN: usize = 1024;

/// The journal superblock, version 2, of a journal of `blocks` blocks with nothing to replay.
pub fn superblock(blocks: u64, block_size: u64, uuid: &[u8; 16]) -> [u8; LEN] {
    let mut raw = [0; LEN];
    let mut put = |at: usize, value: u32| raw[at..at + 4].copy_from_slice(&value.to_be_bytes());
    put(0x00, 0xc03b_3998); // h_magic
    put(0x04, 4); // h_blocktype: superblock, version 2
    put(0x0c, block_size as u32);
    put(0x10, blocks as u32);
    put(0x14, 1); // s_first: the first block of log
    put(0x18, 1); // s_sequence
    put(0x40, 1); // s_nr_users
    raw[0x30..0x40].copy_from_slice(uuid);
    raw
}
