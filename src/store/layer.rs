//! Layers: finished trees kept on disk, by the digest of everything that made them.
//!
//! A layer is one file: the contents of the tree's files one after the other in the order of a walk (so that reading
//! a layer back reads the disk from front to back), then the index of names and metadata, then a footer. One file, so
//! that one `rename` makes it visible; whoever has the old one open keeps it.
//!
//! The index is checked by its digest whenever a layer is loaded, the contents by [`verify`] only: that takes as long
//! as reading them. What is read is treated as hostile all the same, and a damaged layer is as good as none. As in the
//! rest of the store nothing is fsync'd: a file that a power cut left unfinished is too short, and so no layer.

mod index;

use crate::content::Piece;
use crate::digest::{Hasher, Sha256};
use crate::tree::Tree;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// First bytes of the footer. The last digit is the format's version: another version is an absent layer.
const MAGIC: &[u8; 16] = b"hardtack layer 1";

/// Magic, length of the contents, length of the index (both little-endian), digest of both.
const FOOTER: usize = 16 + 8 + 8 + 32 + 32;

/// The longest index that is read, in bytes: about twenty million files.
const MAX_INDEX: u64 = 1 << 30;

/// Why a layer could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// It could not be written.
    #[error("cannot write the layer `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could not be read.
    #[error("cannot read the layer `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is damaged.
    #[error("the layer `{}` is damaged: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// Where a layer is.
pub fn path(directory: &Path, key: &Sha256) -> PathBuf {
    directory.join(format!("{key}.layer"))
}

/// Writes a tree as the layer `key`, replacing one that is there. Gives the same tree with its contents in the layer:
/// whatever they came from is not needed any more.
pub fn save(directory: &Path, key: &Sha256, tree: &Tree) -> Result<Tree, LayerError> {
    let path = path(directory, key);
    let failed = |source| LayerError::Write { path: path.clone(), source };
    let mut new = Temporary::create(directory).map_err(failed)?;
    new.write(tree).map_err(failed)?;
    let saved = read(&path, &new.file)?;
    fs::rename(&new.path, &path).map_err(failed)?;
    new.kept = true;
    Ok(saved)
}

/// Reads the layer `key`; `None` when there is none. An error says that there is one, but unusable: go on as if there
/// were none, and tell the user.
pub fn load(directory: &Path, key: &Sha256) -> Result<Option<Tree>, LayerError> {
    let path = path(directory, key);
    match File::open(&path) {
        Ok(file) => read(&path, &Arc::new(file)).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LayerError::Read { path, source }),
    }
}

/// Checks a layer as [`load`] does, then reads all of its contents and compares their digest. Gives their length in
/// bytes; `None` when there is no such layer.
pub fn verify(directory: &Path, key: &Sha256) -> Result<Option<u64>, LayerError> {
    let path = path(directory, key);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LayerError::Read { path, source }),
    };
    let file = Arc::new(file);
    read(&path, &file)?;
    let footer = Footer::read(&path, &file)?;
    let contents = Sha256::of_reader((&*file).take(footer.contents));
    let (found, length) = contents.map_err(|source| LayerError::Read { path: path.clone(), source })?;
    if (found, length) != (footer.contents_digest, footer.contents) {
        let problem = format!("its contents have the digest {found}, expected {}", footer.contents_digest);
        return Err(LayerError::Damaged { path, problem });
    }
    Ok(Some(length))
}

struct Footer {
    contents: u64,
    index: u64,
    contents_digest: Sha256,
    index_digest: Sha256,
}

impl Footer {
    fn write(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.contents.to_le_bytes());
        bytes.extend(self.index.to_le_bytes());
        bytes.extend(self.contents_digest.0);
        bytes.extend(self.index_digest.0);
        bytes
    }

    fn read(path: &Path, file: &File) -> Result<Self, LayerError> {
        let failed = |source| LayerError::Read { path: path.to_owned(), source };
        let damaged = |problem: String| LayerError::Damaged { path: path.to_owned(), problem };
        let len = file.metadata().map_err(failed)?.len();
        let body =
            len.checked_sub(FOOTER as u64).ok_or_else(|| damaged(format!("{len} bytes are too few")))?;
        let mut bytes = [0; FOOTER];
        file.read_exact_at(&mut bytes, body).map_err(failed)?;
        let (magic, rest) = bytes.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(damaged("it does not end with a layer's footer (of this version)".to_owned()));
        }
        let number = |at: usize| rest[at..at + 8].iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte));
        let digest = |at: usize| {
            let mut digest = [0; 32];
            digest.copy_from_slice(&rest[at..at + 32]);
            Sha256(digest)
        };
        let footer = Self {
            contents: number(0),
            index: number(8),
            contents_digest: digest(16),
            index_digest: digest(48),
        };
        if footer.index > MAX_INDEX || footer.contents.checked_add(footer.index) != Some(body) {
            let (contents, index) = (footer.contents, footer.index);
            return Err(damaged(format!("{contents} bytes of contents and {index} of index are not {body}")));
        }
        Ok(footer)
    }
}

fn read(path: &Path, file: &Arc<File>) -> Result<Tree, LayerError> {
    let footer = Footer::read(path, file)?;
    let mut bytes = vec![0; footer.index as usize];
    let read = file.read_exact_at(&mut bytes, footer.contents);
    read.map_err(|source| LayerError::Read { path: path.to_owned(), source })?;
    let damaged = |problem: String| LayerError::Damaged { path: path.to_owned(), problem };
    let found = Sha256::of(&bytes);
    if found != footer.index_digest {
        return Err(damaged(format!("its index has the digest {found}, expected {}", footer.index_digest)));
    }
    let entries =
        index::decode(&bytes, file, footer.contents).map_err(|problem| damaged(problem.to_owned()))?;
    Tree::from_entries(entries).map_err(|error| damaged(error.to_string()))
}

/// A file under a name that nobody looks for, removed again unless it is kept.
struct Temporary {
    path: PathBuf,
    file: Arc<File>,
    kept: bool,
}

impl Temporary {
    fn create(directory: &Path) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let process = std::process::id();
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = directory.join(format!(".layer-{process}-{count}"));
            // Readable by its owner only: a layer may hold what is secret in a tree (`/etc/shadow`).
            match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => return Ok(Self { path, file: Arc::new(file), kept: false }),
                // Left behind by an earlier process of this number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn write(&mut self, tree: &Tree) -> io::Result<()> {
        let entries = tree.entries();
        let mut out = Hashed { out: BufWriter::with_capacity(1 << 20, &*self.file), hasher: Hasher::new() };
        let mut buffer = vec![0; 1 << 20];
        for piece in entries.iter().flat_map(index::pieces) {
            copy(piece, &mut buffer, &mut out)?;
        }
        let (contents_digest, contents) = out.hasher.finish();
        let bytes = index::encode(&entries);
        let index_digest = Sha256::of(&bytes);
        let footer = Footer { contents, index: bytes.len() as u64, contents_digest, index_digest };
        let mut out = out.out;
        out.write_all(&bytes)?;
        out.write_all(&footer.write())?;
        out.flush()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing can be done about a failure here, and nothing depends on it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

struct Hashed<W> {
    out: W,
    hasher: Hasher,
}

fn copy(piece: &Piece, buffer: &mut [u8], out: &mut Hashed<impl Write>) -> io::Result<()> {
    let mut at = 0;
    while at < piece.len {
        let part = (piece.len - at).min(buffer.len() as u64) as usize;
        piece.source.read_exact_at(&mut buffer[..part], piece.offset + at)?;
        out.hasher.update(&buffer[..part]);
        out.out.write_all(&buffer[..part])?;
        at += part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
