//! The store: verified bytes by digest on this machine, and the only door to the network.
//!
//! ```text
//! objects/sha256/ab/ab12…   what was verified, read-only
//! partial/ab12…             a download under way or broken off, locked by who works on it; `.from` has its validator
//! refs/…                    which object an address without a digest (InRelease) last gave
//! layers/                   configured layers, another module's
//! tmp/                      files on their way in
//! lock                      shared by everyone who has the store open, exclusive while something is removed
//! ```
//!
//! Nothing is visible under `objects/` before its size and digest have been checked; it gets there by one rename.
//! **Objects are not fsync'd.** The store is a cache: everything in it can be fetched again, several hundred fsyncs
//! would cost more than some builds, and what a power cut leaves of a file that was not flushed is one that is too
//! short, which every look-up that knows the size treats as missing. [`Object::verify`] finds the rest.
//!
//! Two hardtacks may share a store: who downloads an object holds a lock on its partial file, the other waits and
//! then finds the object.

mod apt_conf;
mod error;
mod fetch;
mod http;
pub mod layer;
mod partial;
mod prune;
mod proxy;
mod refs;
pub mod repository;
pub mod signature;
mod sink;
mod source_entries;
pub mod sources;

pub use error::{Asked, Error, Length, Trouble};
pub use fetch::{JOBS, Wanted};
pub use http::{Client, Patience};
pub use proxy::Proxies;
pub use prune::{Prune, Pruned, Sizes};
pub use reqwest::Url;

use crate::digest::{Hasher, Sha256};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Tells backup programs that everything here can be made again (bford.info/cachedir).
const CACHEDIR_TAG: &[u8] =
    b"Signature: 8a477f597d28d172789f06886806bc55\n# This is the cache of hardtack.\n";

/// A content-addressed directory, and the way to fill it.
pub struct Store {
    root: PathBuf,
    /// `None`: offline, nothing opens a socket.
    client: Option<Client>,
    /// Holds the shared lock while the store is open.
    lock: File,
    next_temporary: AtomicU64,
}

impl Store {
    /// Opens the store at `root` (made when absent, for its owner only), without network.
    pub fn open(root: &Path) -> Result<Self, Error> {
        for part in ["", "objects/sha256", "partial", "refs", "layers", "tmp"] {
            let path = root.join(part);
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(Error::io("make the directory", &path))?;
        }
        let tag = root.join("CACHEDIR.TAG");
        if !tag.exists() {
            fs::write(&tag, CACHEDIR_TAG).map_err(Error::io("write", &tag))?;
        }
        let path = root.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(Error::io("open", &path))?;
        // Waits only while another hardtack removes things, which takes a moment.
        lock.lock_shared().map_err(Error::io("lock", &path))?;
        Ok(Self { root: root.to_owned(), client: None, lock, next_temporary: AtomicU64::new(0) })
    }

    /// Lets this store reach the network.
    pub fn online(mut self, client: Client) -> Self {
        self.client = Some(client);
        self
    }

    /// Whether nothing may open a socket.
    pub fn is_offline(&self) -> bool {
        self.client.is_none()
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where configured layers are kept.
    pub fn layers_dir(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// Where files on their way into the store may lie: on the same filesystem, so that a rename suffices.
    pub fn tmp_dir(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// An object, if it is here. Its size and digest were right when it was stored.
    pub fn object(&self, digest: &Sha256) -> Option<Object> {
        let path = self.object_path(digest);
        let metadata = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
        Some(Object { path, digest: *digest, size: metadata.len() })
    }

    /// An object, if it is here with this size in bytes; one of another size was cut by a power failure or touched.
    pub fn object_of_size(&self, digest: &Sha256, size: u64) -> Option<Object> {
        self.object(digest).filter(|object| object.size == size)
    }

    /// Stores what a reader gives, if it has the digest promised. Reads at most `limit` bytes.
    pub fn put(
        &self,
        reader: impl Read,
        label: &str,
        expected: &Sha256,
        limit: u64,
    ) -> Result<Object, Error> {
        let path = self.temporary_path();
        let stored =
            self.write_temporary(&path, reader.take(limit.saturating_add(1))).and_then(|(found, size)| {
                if found != *expected || size > limit {
                    return Err(Error::NotAsPromised {
                        label: label.to_owned(),
                        expected: *expected,
                        found,
                        size,
                    });
                }
                self.keep(&path, expected, size)
            });
        if stored.is_err() {
            // The fault that is reported matters more than a leftover, which `prune` takes.
            let _ = fs::remove_file(&path);
        }
        stored
    }

    fn write_temporary(&self, path: &Path, mut reader: impl Read) -> Result<(Sha256, u64), Error> {
        let mut file = File::create_new(path).map_err(Error::io("make", path))?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io("read what belongs into", path)(error)),
            };
            hasher.update(&buffer[..n]);
            file.write_all(&buffer[..n]).map_err(|error| self.write_error(path, error, n as u64))?;
        }
    }

    /// Moves a verified file to its place.
    fn keep(&self, from: &Path, digest: &Sha256, size: u64) -> Result<Object, Error> {
        let path = self.object_path(digest);
        if let Some(parent) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
            made.map_err(|error| self.write_error(parent, error, 0))?;
        }
        // Read-only: an editor should think twice.
        fs::set_permissions(from, Permissions::from_mode(0o444))
            .map_err(Error::io("make read-only", from))?;
        fs::rename(from, &path).map_err(|error| self.write_error(&path, error, 0))?;
        Ok(Object { path, digest: *digest, size })
    }

    fn object_path(&self, digest: &Sha256) -> PathBuf {
        let name = digest.to_string();
        self.root.join("objects/sha256").join(&name[..2]).join(name)
    }

    fn temporary_path(&self) -> PathBuf {
        let n = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        self.root.join("tmp").join(format!("{}-{n}", std::process::id()))
    }

    /// An error while writing: a full disk is told apart, with how much more there was to write.
    fn write_error(&self, path: &Path, error: io::Error, needed: u64) -> Error {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::DiskFull { directory: self.root.clone(), needed, free: self.free().unwrap_or(0) }
            }
            _ => Error::io("write", path)(error),
        }
    }

    /// Bytes an ordinary user may still write to the store's filesystem.
    fn free(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.root).ok()?;
        stat.f_bavail.checked_mul(stat.f_frsize)
    }
}

/// Where the cache belongs (XDG Base Directory Specification): `$XDG_CACHE_HOME/hardtack`, else
/// `$HOME/.cache/hardtack`. Relative paths are invalid there and passed over. The caller reads the environment.
pub fn default_path(xdg_cache_home: Option<&OsStr>, home: Option<&OsStr>) -> Option<PathBuf> {
    let absolute = |text: Option<&OsStr>| text.map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute(xdg_cache_home).or_else(|| Some(absolute(home)?.join(".cache")))?;
    Some(cache.join("hardtack"))
}

/// A file in the store whose bytes were verified when it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    path: PathBuf,
    digest: Sha256,
    size: u64,
}

impl Object {
    /// Opens it for reading; [`Error::Damaged`] when its size has changed.
    pub fn open(&self) -> Result<File, Error> {
        let file = File::open(&self.path).map_err(Error::io("open", &self.path))?;
        let size = file.metadata().map_err(Error::io("look at", &self.path))?.len();
        if size != self.size {
            return Err(self.damaged(format!("{} bytes", self.size), format!("{size} bytes")));
        }
        Ok(file)
    }

    /// Reads every byte again and compares size and digest.
    pub fn verify(&self) -> Result<(), Error> {
        let file = self.open()?;
        let (found, _) = Sha256::of_reader(file).map_err(Error::io("read", &self.path))?;
        if found != self.digest {
            return Err(self.damaged(format!("SHA-256 {}", self.digest), found.to_string()));
        }
        Ok(())
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is called by.
    pub fn digest(&self) -> &Sha256 {
        &self.digest
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn damaged(&self, expected: String, found: String) -> Error {
        Error::Damaged { path: self.path.clone(), expected, found }
    }
}

/// Is told what a fetch does, from several threads at once. Every method may be left out.
pub trait Progress: Sync {
    /// What is not in the store yet: so many objects, so many bytes (less what earlier runs left).
    fn planned(&self, _objects: usize, _bytes: u64) {}
    /// Bytes arrived.
    fn advanced(&self, _bytes: u64) {}
    /// Bytes that had arrived, now or in an earlier run, turned out to be of no use.
    fn lost(&self, _bytes: u64) {}
    /// An object is complete and verified.
    fn finished(&self, _label: &str) {}
    /// A try failed; there will be another after `pause`.
    fn retrying(&self, _label: &str, _tries: u32, _pause: std::time::Duration, _why: &Trouble) {}
}

/// Silence.
impl Progress for () {}

/// Reasons to stop: the user's, and a sibling's failure.
#[derive(Clone, Copy)]
struct Stop<'a> {
    user: &'a AtomicBool,
    sibling: &'a AtomicBool,
}

impl Stop<'_> {
    fn check(self) -> Result<(), Error> {
        let stopped = self.user.load(Ordering::Relaxed) || self.sibling.load(Ordering::Relaxed);
        if stopped { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// A URL without the name and password it may hold.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Fails only for URLs that cannot hold them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}
