//! How parent and child talk: plain values, little-endian, one after the other on a Unix socket.
//!
//! The parent's side is trusted by the child. The child's is not trusted by the parent: maintainer scripts are root in
//! the child's namespace and could steer it, so every length has a limit before anything is allocated.

use crate::meta::{Meta, Timestamp, Xattrs};
use std::io::{self, Read, Write};

/// Longest path, name or link target.
pub(super) const PATH_LIMIT: u32 = 4096;
/// Longest value of an extended attribute (`XATTR_SIZE_MAX`, linux/limits.h).
pub(super) const XATTR_LIMIT: u32 = 65536;
/// Longest piece of log, argument list or message.
pub(super) const TEXT_LIMIT: u32 = 1 << 20;
const XATTRS: u32 = 256;

/// Writes values.
pub(super) trait Put: Write {
    fn put_u8(&mut self, value: u8) -> io::Result<()> {
        self.write_all(&[value])
    }

    fn put_u32(&mut self, value: u32) -> io::Result<()> {
        self.write_all(&value.to_le_bytes())
    }

    fn put_u64(&mut self, value: u64) -> io::Result<()> {
        self.write_all(&value.to_le_bytes())
    }

    fn put_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let len = u32::try_from(bytes.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.put_u32(len)?;
        self.write_all(bytes)
    }

    fn put_meta(&mut self, meta: &Meta) -> io::Result<()> {
        self.put_u32(meta.mode.into())?;
        self.put_u32(meta.uid)?;
        self.put_u32(meta.gid)?;
        self.put_u64(meta.mtime.seconds as u64)?;
        self.put_u32(meta.mtime.nanoseconds)?;
        self.put_u32(meta.xattrs.len() as u32)?;
        for (name, value) in &meta.xattrs {
            self.put_bytes(name)?;
            self.put_bytes(value)?;
        }
        Ok(())
    }
}

impl<W: Write + ?Sized> Put for W {}

/// Reads values, refusing what is longer than its limit.
pub(super) trait Take: Read {
    fn take_u8(&mut self) -> io::Result<u8> {
        let mut bytes = [0; 1];
        self.read_exact(&mut bytes)?;
        Ok(bytes[0])
    }

    fn take_u32(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn take_u64(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A number that must not be above `limit`.
    fn take_count(&mut self, limit: u32) -> io::Result<u32> {
        let count = self.take_u32()?;
        if count > limit {
            return Err(bad(format!("{count} where at most {limit} is allowed")));
        }
        Ok(count)
    }

    fn take_bytes(&mut self, limit: u32) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.take_count(limit)? as usize];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn take_meta(&mut self) -> io::Result<Meta> {
        let mode = self.take_count(0o7777)? as u16;
        let uid = self.take_u32()?;
        let gid = self.take_u32()?;
        let seconds = self.take_u64()? as i64;
        let nanoseconds = self.take_count(999_999_999)?;
        let mut xattrs = Xattrs::new();
        for _ in 0..self.take_count(XATTRS)? {
            let name = self.take_bytes(255)?;
            xattrs.insert(name, self.take_bytes(XATTR_LIMIT)?);
        }
        Ok(Meta { mode, uid, gid, mtime: Timestamp { seconds, nanoseconds }, xattrs })
    }
}

impl<R: Read + ?Sized> Take for R {}

/// What arrived breaks the rules of this file.
pub(super) fn bad(problem: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.into())
}

/// What kind of thing follows; one byte.
pub(super) mod tag {
    // In both directions.
    pub const DIRECTORY: u8 = b'd';
    pub const FILE: u8 = b'f';
    pub const SYMLINK: u8 = b'l';
    pub const FIFO: u8 = b'p';
    pub const SOCKET: u8 = b's';
    pub const HARD_LINK: u8 = b'h';
    pub const END: u8 = b'.';
    // From the child.
    pub const UNSHARED: u8 = b'U';
    pub const LAID_OUT: u8 = b'T';
    pub const OUTPUT: u8 = b'O';
    pub const STEP: u8 = b'S';
    pub const REMOVE: u8 = b'r';
    pub const META: u8 = b'm';
    pub const FAULT: u8 = b'E';
    pub const DONE: u8 = b'D';
    // From the parent.
    pub const MAPPED: u8 = b'M';
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_taken() {
        let mut meta = Meta::root(0o4755, Timestamp { seconds: -5, nanoseconds: 999_999_999 });
        meta.xattrs.insert(b"user.x".to_vec(), vec![0, 255]);
        let mut bytes = Vec::new();
        bytes.put_meta(&meta).unwrap();
        bytes.put_bytes(b"etc/fstab").unwrap();
        let mut rest = bytes.as_slice();
        assert_eq!(rest.take_meta().unwrap(), meta);
        assert_eq!(rest.take_bytes(PATH_LIMIT).unwrap(), b"etc/fstab");
        assert!(rest.is_empty());
    }

    #[test]
    fn lengths_past_their_limit_are_refused_before_memory_is_taken() {
        let huge = u32::MAX.to_le_bytes();
        assert_eq!((&huge[..]).take_bytes(PATH_LIMIT).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut bytes = Vec::new();
        bytes.put_meta(&Meta { mode: 0o10000, ..Meta::default() }).unwrap();
        assert!(bytes.as_slice().take_meta().is_err());
        assert_eq!((&[1u8, 0][..]).take_u32().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
