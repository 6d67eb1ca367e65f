//! The inode, 256 bytes (Documentation/filesystems/ext4/inodes.rst).

use super::checksum::Seed;
use super::raw::{BLOCK, EXTRA_ISIZE, INODE_LEN, put_split, put16, put32};
use super::xattr::IN_INODE;
use crate::format::entry::Device;
use crate::meta::Timestamp;

/// What `i_block` holds.
pub const MAP_LEN: usize = super::extent::ROOT_LEN;
/// A target shorter than `i_block` is stored there.
pub const MAX_FAST_TARGET: usize = MAP_LEN - 1;

/// An inode's fields.
#[derive(Clone, Debug)]
pub struct Inode {
    /// Kind and permissions.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// For all four times.
    pub time: Timestamp,
    /// Names.
    pub links: u16,
    /// Blocks of the filesystem it takes, those of its map and its attributes included.
    pub blocks: u64,
    /// `EXT4_*_FL`.
    pub flags: u32,
    /// `i_block`: root of the extent tree, short target, or device number.
    pub map: [u8; MAP_LEN],
    /// Block of attributes, or zero.
    pub attribute_block: u64,
    /// Attributes in the inode.
    pub attributes: [u8; IN_INODE],
}

impl Inode {
    /// A reserved regular file of root's: the journal, the reserve for descriptors.
    pub fn reserved(size: u64, time: Timestamp, blocks: u64, map: [u8; MAP_LEN], flags: u32) -> Self {
        Self {
            mode: super::raw::mode::FILE | 0o600,
            uid: 0,
            gid: 0,
            size,
            time,
            links: 1,
            blocks,
            flags,
            map,
            attribute_block: 0,
            attributes: [0; IN_INODE],
        }
    }

    /// The inode `number` on disk.
    pub fn encode(&self, number: u32, seed: Seed) -> [u8; INODE_LEN] {
        let mut raw = [0; INODE_LEN];
        let b = &mut raw;
        put16(b, 0x00, self.mode);
        put16(b, 0x02, self.uid as u16);
        put16(b, 0x78, (self.uid >> 16) as u16);
        put16(b, 0x18, self.gid as u16);
        put16(b, 0x7a, (self.gid >> 16) as u16);
        put_split(b, 0x04, 0x6c, self.size);
        // i_atime, i_ctime, i_mtime and i_crtime, each with its extra half.
        for (low, extra) in [(0x08, 0x8c), (0x0c, 0x84), (0x10, 0x88), (0x90, 0x94)] {
            put32(b, low, self.time.seconds as u32);
            put32(b, extra, time_extra(self.time));
        }
        put16(b, 0x1a, self.links);
        // i_blocks counts 512-byte units, 48 bits: more than 2³² blocks of 4 KiB give.
        let units = self.blocks * (BLOCK / 512);
        put32(b, 0x1c, units as u32);
        put16(b, 0x74, (units >> 32) as u16);
        put32(b, 0x20, self.flags);
        b[0x28..0x28 + MAP_LEN].copy_from_slice(&self.map);
        put32(b, 0x68, self.attribute_block as u32);
        put16(b, 0x76, (self.attribute_block >> 32) as u16);
        put16(b, 0x80, EXTRA_ISIZE);
        b[INODE_LEN - IN_INODE..].copy_from_slice(&self.attributes);
        let checksum = seed.of_inode(number, 0).over(b);
        put16(b, 0x7c, checksum as u16);
        put16(b, 0x82, (checksum >> 16) as u16);
        raw
    }
}

/// A reserved inode without a use: zeros, and the low half of the checksum, as mke2fs leaves it.
pub fn unused(number: u32, seed: Seed) -> [u8; INODE_LEN] {
    let mut raw = [0; INODE_LEN];
    let checksum = seed.of_inode(number, 0).over(&raw);
    put16(&mut raw, 0x7c, checksum as u16);
    raw
}

/// Whether an inode can hold this time: 1901-12-13 to 2310-04-04, and whole nanoseconds. On disk there is room until
/// 2446, but e2fsck takes times from 2310 on for times before 1970 that an old kernel stored wrongly, and mends them.
pub fn holds(time: Timestamp) -> bool {
    (i64::from(i32::MIN)..END_OF_TIME).contains(&time.seconds) && time.nanoseconds < 1_000_000_000
}

/// 2310-04-04T00:00:00Z and some: two bits of epoch, all set, and a negative low half.
const END_OF_TIME: i64 = 0x2_8000_0000;

/// Nanoseconds, and the two bits of seconds above the 32 of the sign-extended field.
fn time_extra(time: Timestamp) -> u32 {
    let low = i64::from(time.seconds as i32);
    let epoch = ((time.seconds - low) >> 32) as u32 & 3;
    time.nanoseconds << 2 | epoch
}

/// `i_block` of a device node: the old 8:8 form where it is enough, else the new one in the second word. `None`
/// beyond 12 bits of major and 20 bits of minor number.
pub fn device_map(device: Device) -> Option<[u8; MAP_LEN]> {
    let Device { major, minor } = device;
    let mut map = [0; MAP_LEN];
    if major < 256 && minor < 256 {
        put32(&mut map, 0, major << 8 | minor);
    } else if major < 1 << 12 && minor < 1 << 20 {
        put32(&mut map, 4, minor & 0xff | major << 8 | (minor & !0xff) << 12);
    } else {
        return None;
    }
    Some(map)
}

/// `i_block` of a symbolic link of at most [`MAX_FAST_TARGET`] bytes.
pub fn target_map(target: &[u8]) -> [u8; MAP_LEN] {
    let mut map = [0; MAP_LEN];
    map[..target.len()].copy_from_slice(target);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table in Documentation/filesystems/ext4/inodes.rst, "Inode Timestamps".
    #[test]
    fn times_have_34_bits() {
        for (seconds, low, epoch) in [
            (-0x8000_0000, 0x8000_0000u32, 0),
            (-1, u32::MAX, 0),
            (0, 0, 0),
            (0x7fff_ffff, 0x7fff_ffff, 0),
            (0x8000_0000, 0x8000_0000, 1),
            (0x1_7fff_ffff, 0x7fff_ffff, 1),
            (0x1_8000_0000, 0x8000_0000, 2),
            (0x2_7fff_ffff, 0x7fff_ffff, 2),
        ] {
            let time = Timestamp { seconds, nanoseconds: 7 };
            assert!(holds(time), "{seconds}");
            assert_eq!((time.seconds as u32, time_extra(time)), (low, 7 << 2 | epoch), "{seconds}");
        }
        for seconds in [-0x8000_0001, 0x2_8000_0000] {
            assert!(!holds(Timestamp::seconds(seconds)));
        }
        assert!(!holds(Timestamp { seconds: 0, nanoseconds: 1_000_000_000 }));
    }

    #[test]
    fn device_numbers_take_the_old_form_up_to_255() {
        let words = |major, minor| {
            device_map(Device { major, minor })
                .map(|map| (u32::from_le_bytes(map[..4].try_into().unwrap()), map[4..8].to_vec()))
        };
        assert_eq!(words(255, 255), Some((0xffff, vec![0; 4])));
        assert_eq!(words(1, 256), Some((0, vec![0, 1, 0x10, 0])));
        assert_eq!(words(256, 1), Some((0, vec![1, 0, 1, 0])));
        assert_eq!(words(4095, 0xf_ffff), Some((0, vec![0xff, 0xff, 0xff, 0xff])));
        assert_eq!(words(4096, 0), None);
        assert_eq!(words(0, 1 << 20), None);
    }
}
