//! Extended attributes: in the inode as far as they fit, the rest in one block
//! (Documentation/filesystems/ext4/attributes.rst).

use super::checksum::Seed;
use super::raw::{BLOCK_LEN, EXTRA_ISIZE, INODE_LEN, put16, put32};
use crate::meta::Xattrs;

/// Room in an inode after its fields.
pub const IN_INODE: usize = INODE_LEN - 128 - EXTRA_ISIZE as usize;

const MAGIC: u32 = 0xea02_0000;
/// In the inode only the magic number stands before the first record.
const INODE_HEADER: usize = 4;
const BLOCK_HEADER: usize = 32;
const RECORD: usize = 16;
/// Four zero bytes end the records.
const TERMINATOR: usize = 4;

/// `e_name_index` and the prefix it stands for (`fs/ext4/xattr.h`). The two ACL names are whole names.
const PREFIXES: [(u8, &[u8]); 6] = [
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (1, b"user."),
    (4, b"trusted."),
    (6, b"security."),
    (7, b"system."),
];

/// A file's attributes as they are stored.
pub struct Encoded {
    /// What stands after the inode's fields; zeros if nothing.
    pub inode: [u8; IN_INODE],
    /// The attribute block without its checksum, if one is needed.
    pub block: Option<Box<[u8; BLOCK_LEN]>>,
}

/// An attribute that cannot be stored, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// Full name.
    pub name: Vec<u8>,
    /// The rule it breaks.
    pub problem: &'static str,
}

struct Attribute {
    index: u8,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Attribute {
    fn size(&self) -> usize {
        RECORD + self.name.len().next_multiple_of(4) + self.value.len().next_multiple_of(4)
    }
}

/// Puts attributes into the inode and, where that is full, a block. Capabilities and other `security.` attributes
/// come into the inode first, because they are read with every `execve`.
pub fn encode(xattrs: &Xattrs) -> Result<Encoded, Refused> {
    let mut attributes = xattrs
        .iter()
        .map(|(name, value)| {
            attribute(name, value).map_err(|problem| Refused { name: name.clone(), problem })
        })
        .collect::<Result<Vec<Attribute>, Refused>>()?;
    attributes.sort_by_key(|attribute| attribute.index != 6);

    let mut in_inode = Vec::new();
    let mut in_block = Vec::new();
    let (mut inode_room, mut block_room) =
        (IN_INODE - INODE_HEADER - TERMINATOR, BLOCK_LEN - BLOCK_HEADER - TERMINATOR);
    for attribute in attributes {
        let size = attribute.size();
        if size <= inode_room {
            inode_room -= size;
            in_inode.push(attribute);
        } else if size <= block_room {
            block_room -= size;
            in_block.push(attribute);
        } else {
            let mut name = Vec::new();
            let prefix = PREFIXES.iter().find(|(index, _)| *index == attribute.index);
            name.extend_from_slice(prefix.map_or(b"", |(_, prefix)| prefix));
            name.extend_from_slice(&attribute.name);
            let problem = "no room: all attributes of a file must fit its inode and one block of 4,096 bytes";
            return Err(Refused { name, problem });
        }
    }

    let mut inode = [0; IN_INODE];
    if !in_inode.is_empty() {
        put32(&mut inode, 0, MAGIC);
        put_attributes(&mut inode[INODE_HEADER..], 0, &mut in_inode);
    }
    let mut block = None;
    if !in_block.is_empty() {
        let mut raw = Box::new([0; BLOCK_LEN]);
        put32(&mut raw[..], 0, MAGIC);
        put32(&mut raw[..], 4, 1); // h_refcount
        put32(&mut raw[..], 8, 1); // h_blocks
        let hash = put_attributes(&mut raw[..], BLOCK_HEADER, &mut in_block);
        put32(&mut raw[..], 12, hash);
        block = Some(raw);
    }
    Ok(Encoded { inode, block })
}

/// Sets the checksum of an attribute block, which depends on where it lies.
pub fn seal(block: &mut [u8; BLOCK_LEN], at: u64, seed: Seed) {
    put32(block, 16, 0);
    let checksum = seed.over_all(&[&at.to_le_bytes(), &block[..]]);
    put32(block, 16, checksum);
}

fn attribute(name: &[u8], value: &[u8]) -> Result<Attribute, &'static str> {
    let found = PREFIXES.iter().find_map(|(index, prefix)| Some((*index, name.strip_prefix(*prefix)?)));
    let (index, rest) = found.ok_or("ext4 has no such namespace (user, trusted, security, system)")?;
    let is_acl = matches!(index, 2 | 3);
    if is_acl != rest.is_empty() {
        return Err(if is_acl { "not the name of an ACL" } else { "nothing after the namespace" });
    }
    if rest.len() > 255 || rest.contains(&0) {
        return Err("a name longer than 255 bytes or with a NUL byte");
    }
    let value =
        if is_acl { acl_on_disk(value).ok_or("not a POSIX ACL of version 2")? } else { value.to_vec() };
    Ok(Attribute { index, name: rest.to_vec(), value })
}

/// From the form of `getxattr` (`linux/posix_acl_xattr.h`: version 2, every record has an id) to the form on disk
/// (`fs/ext4/acl.h`: version 1, only named users and groups have one).
fn acl_on_disk(value: &[u8]) -> Option<Vec<u8>> {
    let records = value.strip_prefix(&2u32.to_le_bytes())?.chunks(8);
    let mut raw = 1u32.to_le_bytes().to_vec();
    for record in records {
        let record: &[u8; 8] = record.try_into().ok()?;
        match u16::from_le_bytes([record[0], record[1]]) {
            // ACL_USER_OBJ, ACL_GROUP_OBJ, ACL_MASK, ACL_OTHER
            0x01 | 0x04 | 0x10 | 0x20 => raw.extend_from_slice(&record[..4]),
            // ACL_USER, ACL_GROUP
            0x02 | 0x08 => raw.extend_from_slice(record),
            _ => return None,
        }
    }
    Some(raw)
}

/// Writes records from `first` on and their values from the end of `raw` down, sorted as the kernel looks for them;
/// gives the hash of all of them. Offsets of values count from the start of `raw`.
fn put_attributes(raw: &mut [u8], first: usize, attributes: &mut [Attribute]) -> u32 {
    attributes
        .sort_by(|a, b| (a.index, a.name.len(), &a.name[..]).cmp(&(b.index, b.name.len(), &b.name[..])));
    let mut at = first;
    let mut values = raw.len();
    let mut all = 0u32;
    let mut shareable = true;
    for attribute in attributes.iter() {
        let Attribute { index, name, value } = attribute;
        let mut offset = 0;
        if !value.is_empty() {
            values -= value.len().next_multiple_of(4);
            raw[values..values + value.len()].copy_from_slice(value);
            offset = values;
        }
        let hash = hash(name, value);
        raw[at] = name.len() as u8;
        raw[at + 1] = *index;
        put16(raw, at + 2, offset as u16);
        put32(raw, at + 8, value.len() as u32);
        put32(raw, at + 12, hash);
        raw[at + RECORD..at + RECORD + name.len()].copy_from_slice(name);
        at += RECORD + name.len().next_multiple_of(4);
        all = all.rotate_left(16) ^ hash;
        shareable &= hash != 0;
    }
    // A zero keeps the kernel from sharing the block with other inodes, as its own rule has it.
    if shareable { all } else { 0 }
}

/// `e_hash`: the name's bytes, then the value's words (`ext4_xattr_hash_entry`).
fn hash(name: &[u8], value: &[u8]) -> u32 {
    let named = name.iter().fold(0u32, |hash, byte| hash.rotate_left(5) ^ u32::from(*byte));
    value.chunks(4).fold(named, |hash, chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        hash.rotate_left(16) ^ u32::from_le_bytes(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &[u8]) -> Result<Encoded, Refused> {
        encode(&Xattrs::from([(name.as_bytes().to_vec(), value.to_vec())]))
    }

    #[test]
    fn an_acl_loses_the_ids_that_mean_nothing() {
        let record = |tag: u16, permissions: u16, id: u32| {
            [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let records = [
            record(1, 6, u32::MAX),
            record(2, 7, 1000),
            record(4, 4, u32::MAX),
            record(0x10, 7, u32::MAX),
            record(0x20, 4, u32::MAX),
        ];
        let value = [&2u32.to_le_bytes()[..], &records.concat()].concat();
        let disk =
            [&1u32.to_le_bytes()[..], &[1, 0, 6, 0], &[2, 0, 7, 0, 0xe8, 3, 0, 0], &[4, 0, 4, 0]].concat();
        let disk = [&disk[..], &[0x10, 0, 7, 0], &[0x20, 0, 4, 0]].concat();
        assert_eq!(acl_on_disk(&value), Some(disk));
        assert_eq!(acl_on_disk(&value[..value.len() - 1]), None);
        assert_eq!(acl_on_disk(&1u32.to_le_bytes()), None);
        assert!(one("system.posix_acl_access", b"\x02\0\0\0\x03\0\0\0\0\0\0\0").is_err());
    }

    #[test]
    fn the_inode_holds_what_fits_to_the_byte() {
        let room = IN_INODE - INODE_HEADER - TERMINATOR - RECORD - 4;
        assert!(one("user.abcd", &vec![1; room]).unwrap().block.is_none());
        assert!(one("user.abcd", &vec![1; room + 1]).unwrap().block.is_some());
        let room = BLOCK_LEN - BLOCK_HEADER - TERMINATOR - RECORD - 4;
        assert!(one("user.abcd", &vec![1; room]).is_ok());
        let refused = one("user.abcd", &vec![1; room + 1]).err().unwrap();
        assert_eq!(refused.name, b"user.abcd");
    }

    #[test]
    fn names_without_a_namespace_are_refused() {
        for name in ["user.", "nothing", "system.posix_acl_accessory", "security.", ""] {
            assert!(one(name, b"").is_err(), "{name}");
        }
        assert!(one("system.data", b"x").is_ok());
    }
}
