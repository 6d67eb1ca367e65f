//! Directories: linear blocks of entries. A hashed directory keeps its index in blocks that look like one empty entry to
//! whoever reads it linearly, so both are read the same way.

use super::inode::Inode;
use super::superblock::raw_crc;
use super::{Filesystem, ReadError, corrupt, le16, le32, map};

/// Names and inode numbers, `.` and `..` left out.
pub(super) fn list(filesystem: &Filesystem, inode: &Inode) -> Result<Vec<(Vec<u8>, u32)>, ReadError> {
    let mut names = Vec::new();
    if inode.has_inline_data() {
        let data = map::inline(filesystem, inode)?;
        // The parent's number takes four bytes, entries fill the rest of the inode, then those of the attribute.
        let (first, rest) = data.split_at(data.len().min(60));
        entries(inode, first.get(4..).unwrap_or_default(), &mut names)?;
        entries(inode, rest, &mut names)?;
        return Ok(names);
    }
    let block_size = filesystem.superblock.block_size;
    let size = inode.size();
    if size == 0 || !size.is_multiple_of(block_size) {
        return Err(corrupt(inode.place(), format!("a directory of {size} bytes")));
    }
    let mut at = 0;
    for run in map::runs(filesystem, inode)? {
        for index in 0..run.len {
            if run.logical + index != at || at * block_size >= size {
                break;
            }
            let block = filesystem.block(run.physical + index, || inode.place())?;
            check(filesystem, inode, &block, at)?;
            entries(inode, &block, &mut names)?;
            at += 1;
        }
    }
    if at * block_size != size {
        return Err(corrupt(
            inode.place(),
            format!("a directory of {size} bytes with {at} blocks and holes"),
        ));
    }
    Ok(names)
}

fn entries(inode: &Inode, mut block: &[u8], names: &mut Vec<(Vec<u8>, u32)>) -> Result<(), ReadError> {
    let whole = block.len();
    while !block.is_empty() {
        let (number, name_len) = (le32(block, 0), usize::from(*block.get(6).unwrap_or(&0)));
        let len = match usize::from(le16(block, 4)) {
            // A length of a whole 64 KiB block does not fit 16 bits (fs/ext4/ext4.h, ext4_rec_len_from_disk).
            0 | 65_535 if whole == 65_536 => 65_536,
            len => len,
        };
        let name = block.get(8..8 + name_len);
        let (Some(name), true) = (name, len >= 8 + name_len && len.is_multiple_of(4) && len <= block.len())
        else {
            let problem =
                format!("a name of {name_len} bytes in an entry of {len}, {} are left", block.len());
            return Err(corrupt(inode.place(), problem));
        };
        if number != 0 && name != b"." && name != b".." {
            if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
                return Err(corrupt(inode.place(), format!("the name `{}`", name.escape_ascii())));
            }
            names.push((name.to_vec(), number));
        }
        block = &block[len..];
    }
    Ok(())
}

/// Verifies a block's checksum: of a leaf in its last entry (12 bytes of type 0xde), of an index block behind its limit.
fn check(filesystem: &Filesystem, inode: &Inode, block: &[u8], at: u64) -> Result<(), ReadError> {
    if !filesystem.superblock.checksums() {
        return Ok(());
    }
    let seed = inode.checksum_seed(filesystem);
    let bad = |stored: u32, computed: u32| {
        let problem =
            format!("checksum of directory block {at} is {stored:#010x}, computed {computed:#010x}");
        Err(corrupt(inode.place(), problem))
    };
    let tail = block.len() - 12;
    if le32(block, tail) == 0
        && le16(block, tail + 4) == 12
        && block[tail + 6] == 0
        && block[tail + 7] == 0xde
    {
        let (stored, computed) = (le32(block, tail + 8), raw_crc(seed, &block[..tail]));
        return if stored == computed { Ok(()) } else { bad(stored, computed) };
    }
    // The root of an index follows the entries `.` and `..` and an 8-byte header; other index blocks one empty entry.
    let count_at = if le16(block, 4) == 12 { 32 } else { 8 };
    let (limit, count) = (usize::from(le16(block, count_at)), usize::from(le16(block, count_at + 2)));
    let (covered, end) = (count_at + count * 8, count_at + limit * 8);
    if count == 0 || count > limit || end + 8 > block.len() {
        return Err(corrupt(
            inode.place(),
            format!("directory block {at} has neither a checksum nor an index"),
        ));
    }
    let stored = le32(block, end + 4);
    let mut computed = raw_crc(seed, &block[..covered]);
    computed = raw_crc(computed, &block[end..end + 4]);
    computed = raw_crc(computed, &[0; 4]);
    if stored == computed { Ok(()) } else { bad(stored, computed) }
}
