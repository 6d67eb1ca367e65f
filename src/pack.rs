//! A pack: the contents of many files in one file on disk, written by several threads and read by offset.
//!
//! Unpacking a system as half a million small files costs seconds in the host's filesystem, and an ordinary user could
//! not give them their owners. A pack holds only bytes; names, owners and modes stay in the tree, whose
//! [`Content`](crate::content::Content)s point here.

use crate::content::Content;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A pack being written. Where a file's bytes land depends on which thread was first: nothing that reaches an image
/// may depend on offsets in a pack.
pub struct PackWriter {
    file: Arc<File>,
    end: AtomicU64,
}

impl PackWriter {
    /// Makes a new pack, readable by its owner only: it may hold what is secret in the tree (`/etc/shadow`).
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { file: Arc::new(file), end: AtomicU64::new(0) })
    }

    /// Takes `len` bytes at the end for the caller to fill with [`PackWriter::write_at`]; gives their offset.
    pub fn reserve(&self, len: u64) -> u64 {
        self.end.fetch_add(len, Ordering::Relaxed)
    }

    /// Writes into what was reserved.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Adds a whole file held in memory.
    pub fn append(&self, bytes: &[u8]) -> io::Result<Content> {
        let offset = self.reserve(bytes.len() as u64);
        self.write_at(bytes, offset)?;
        Ok(self.content(offset, bytes.len() as u64))
    }

    /// The contents at an offset that was reserved and filled.
    pub fn content(&self, offset: u64, len: u64) -> Content {
        Content::of(self.file.clone(), offset, len)
    }

    /// Length so far, in bytes.
    pub fn len(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The file itself; contents given out keep it open.
    pub fn file(&self) -> Arc<File> {
        self.file.clone()
    }
}
