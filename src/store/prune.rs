//! How much the store holds, and making room.

use super::Store;
use super::error::Error;
use crate::digest::Sha256;
use std::collections::BTreeSet;
use std::fs::{self, TryLockError};
use std::io;
use std::path::Path;

/// Bytes the store takes on disk, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Verified objects.
    pub objects: u64,
    /// Broken-off downloads.
    pub partial: u64,
    /// Configured layers.
    pub layers: u64,
    /// Files on their way in, or left there by a crash.
    pub temporary: u64,
}

impl Sizes {
    /// All of it.
    pub fn total(&self) -> u64 {
        [self.partial, self.layers, self.temporary].iter().fold(self.objects, |sum, n| sum.saturating_add(*n))
    }
}

/// What to remove.
#[derive(Clone, Copy, Debug)]
pub enum Prune<'a> {
    /// Everything, layers and remembered release files too.
    Everything,
    /// Objects that are not among these, broken-off downloads and temporary files. Layers and release files stay.
    Except(&'a BTreeSet<Sha256>),
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Files.
    pub files: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

impl Store {
    /// Measures the store by walking it.
    pub fn size(&self) -> Result<Sizes, Error> {
        let of = |name: &str| {
            let mut sum = Pruned::default();
            walk(&self.root.join(name), &mut |_| Act::Count, &mut sum)?;
            Ok::<u64, Error>(sum.bytes)
        };
        Ok(Sizes {
            objects: of("objects")?,
            partial: of("partial")?,
            layers: of("layers")?,
            temporary: of("tmp")?,
        })
    }

    /// Removes what is not needed. [`Error::InUse`] when another hardtack has the store open: it may be about to
    /// read what would go.
    pub fn prune(&self, what: Prune) -> Result<Pruned, Error> {
        match self.lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { directory: self.root.clone() }),
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &self.root)(error)),
        }
        let pruned = self.prune_locked(what);
        self.lock.lock_shared().map_err(Error::io("lock", &self.root))?;
        pruned
    }

    fn prune_locked(&self, what: Prune) -> Result<Pruned, Error> {
        let mut pruned = Pruned::default();
        let everything = &mut |_: &Path| Act::Remove;
        for name in ["partial", "tmp"] {
            walk(&self.root.join(name), everything, &mut pruned)?;
        }
        match what {
            Prune::Everything => {
                for name in ["objects", "layers", "refs"] {
                    walk(&self.root.join(name), everything, &mut pruned)?;
                }
            }
            Prune::Except(keep) => {
                let mut keep = keep.clone();
                keep.extend(self.referenced()?);
                let unwanted = &mut |path: &Path| {
                    let digest = path.file_name().and_then(|name| name.to_str()?.parse().ok());
                    let kept = digest.is_some_and(|digest: Sha256| keep.contains(&digest));
                    if kept { Act::Leave } else { Act::Remove }
                };
                walk(&self.root.join("objects"), unwanted, &mut pruned)?;
            }
        }
        Ok(pruned)
    }
}

enum Act {
    Count,
    Leave,
    Remove,
}

/// Visits every file below a directory, without following links, and counts those that are not left alone.
/// Directories stay. The depth is that of the store, which only hardtack writes.
fn walk(directory: &Path, decide: &mut dyn FnMut(&Path) -> Act, sum: &mut Pruned) -> Result<(), Error> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        listed => listed.map_err(Error::io("list", directory))?,
    };
    for entry in entries {
        let path = entry.map_err(Error::io("list", directory))?.path();
        let metadata = match fs::symlink_metadata(&path) {
            // Someone else's temporary file has come to its place.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found.map_err(Error::io("look at", &path))?,
        };
        if metadata.is_dir() {
            walk(&path, decide, sum)?;
            continue;
        }
        let act = decide(&path);
        if matches!(act, Act::Leave) {
            continue;
        }
        if matches!(act, Act::Remove) {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        sum.files += 1;
        // Blocks, not length: packs and images are sparse.
        sum.bytes =
            sum.bytes.saturating_add(std::os::unix::fs::MetadataExt::blocks(&metadata).saturating_mul(512));
    }
    Ok(())
}
