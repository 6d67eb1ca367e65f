//! Extended attributes: in the inode's tail, and in one block of their own.

use super::inode::Inode;
use super::{Filesystem, ReadError, corrupt, le16, le32};
use crate::meta::Xattrs;

/// The attribute that holds what does not fit an inode with inline data. Not one a user set.
pub(super) const INLINE_DATA: &[u8] = b"system.data";

const MAGIC: u32 = 0xea02_0000;

/// Every attribute of an inode, in the form `getxattr` gives.
pub(super) fn all(filesystem: &Filesystem, inode: &Inode) -> Result<Xattrs, ReadError> {
    let mut xattrs = Xattrs::new();
    let tail = inode.tail();
    if le32(tail, 0) == MAGIC {
        entries(inode, &tail[4..], &tail[4..], &mut xattrs)?;
    }
    let number = inode.xattr_block();
    if number != 0 {
        let block = filesystem.block(number, || format!("attributes of {}", inode.place()))?;
        if le32(&block, 0) != MAGIC || le32(&block, 8) != 1 {
            return Err(corrupt(inode.place(), format!("block {number} does not hold attributes")));
        }
        if filesystem.superblock.checksums() {
            check(filesystem, inode, &block, number)?;
        }
        entries(inode, &block[32..], &block, &mut xattrs)?;
    }
    Ok(xattrs)
}

fn check(filesystem: &Filesystem, inode: &Inode, block: &[u8], number: u64) -> Result<(), ReadError> {
    let mut blanked = block.to_vec();
    blanked[16..20].fill(0);
    let seed = super::superblock::raw_crc(filesystem.superblock.checksum_seed, &number.to_le_bytes());
    let (stored, computed) = (le32(block, 16), super::superblock::raw_crc(seed, &blanked));
    if stored != computed {
        let problem =
            format!("checksum of attribute block {number} is {stored:#010x}, computed {computed:#010x}");
        return Err(corrupt(inode.place(), problem));
    }
    Ok(())
}

/// Entries start at `list`; the offsets of values count from the start of `area`.
fn entries(inode: &Inode, mut list: &[u8], area: &[u8], xattrs: &mut Xattrs) -> Result<(), ReadError> {
    while list.len() >= 4 && le32(list, 0) != 0 {
        let bad = |problem: &str| corrupt(format!("attributes of {}", inode.place()), problem);
        if list.len() < 16 {
            return Err(bad("an entry runs out of its area"));
        }
        let (name_len, index) = (usize::from(list[0]), list[1]);
        let (offset, inode_number, size) =
            (usize::from(le16(list, 2)), le32(list, 4), le32(list, 8) as usize);
        let name = list.get(16..16 + name_len).ok_or_else(|| bad("a name runs out of its area"))?;
        if inode_number != 0 {
            return Err(ReadError::Unsupported(format!(
                "an attribute value in an inode of its own ({})",
                inode.place()
            )));
        }
        let end = offset.checked_add(size);
        let value =
            end.and_then(|end| area.get(offset..end)).ok_or_else(|| bad("a value runs out of its area"))?;
        let prefix: &[u8] = match index {
            0 => b"",
            1 => b"user.",
            2 => b"system.posix_acl_access",
            3 => b"system.posix_acl_default",
            4 => b"trusted.",
            6 => b"security.",
            7 => b"system.",
            other => {
                return Err(ReadError::Unsupported(format!("attribute class {other} ({})", inode.place())));
            }
        };
        let value = match index {
            2 | 3 => acl_from_disk(value).ok_or_else(|| bad("an access control list that is none"))?,
            _ => value.to_vec(),
        };
        xattrs.insert([prefix, name].concat(), value);
        list = list
            .get((16 + name_len).next_multiple_of(4)..)
            .ok_or_else(|| bad("an entry runs out of its area"))?;
    }
    Ok(())
}

/// From the form on disk (version 1, without an id where none is needed; fs/ext4/acl.h) to the one programs see
/// (version 2, linux/posix_acl_xattr.h).
fn acl_from_disk(value: &[u8]) -> Option<Vec<u8>> {
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x08;
    if le32(value, 0) != 1 {
        return None;
    }
    let mut list = value.get(4..)?;
    let mut acl = 2u32.to_le_bytes().to_vec();
    while !list.is_empty() {
        let tag = le16(list, 0);
        let size = if matches!(tag, USER | GROUP) { 8 } else { 4 };
        let entry = list.get(..size)?;
        acl.extend_from_slice(&entry[..4]);
        acl.extend_from_slice(if size == 8 { &entry[4..] } else { &[0xff; 4] });
        list = &list[size..];
    }
    Some(acl)
}
