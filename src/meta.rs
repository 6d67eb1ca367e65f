//! What every inode has besides its contents: permissions, owner, time, extended attributes.

use std::collections::BTreeMap;

/// A point in time: seconds since 1970-01-01T00:00:00Z, which may be negative, and nanoseconds below 10⁹.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since the epoch.
    pub seconds: i64,
    /// Nanoseconds after that second, below 1,000,000,000.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// A whole second.
    pub const fn seconds(seconds: i64) -> Self {
        Self { seconds, nanoseconds: 0 }
    }
}

/// Extended attributes by full name (`security.capability`, `user.mime_type`).
///
/// Values are what `getxattr` gives: POSIX ACLs in version 2 (`linux/posix_acl_xattr.h`), capabilities in
/// version 2 (`linux/capability.h`). A format with another form on disk, as ext4 has for ACLs, converts.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Permissions, owner, modification time and extended attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The twelve low bits of `st_mode`: set-id, sticky, and read, write, execute for three classes.
    pub mode: u16,
    /// Owning user.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Last modification. Access and change times are not carried: images are written with all three the same.
    pub mtime: Timestamp,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

impl Meta {
    /// Owned by root, with these permissions and this time.
    pub fn root(mode: u16, mtime: Timestamp) -> Self {
        Self { mode: mode & 0o7777, uid: 0, gid: 0, mtime, xattrs: Xattrs::new() }
    }
}
