//! A download under way: locked, resumable, hashed as it grows.

use super::error::{Error, Length};
use super::sink::{Sink, looks_like_html};
use super::{Object, Stop, Store};
use crate::digest::{Hasher, Sha256};
use reqwest::Url;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// How often one who waits for another's download looks again.
const LOOK: Duration = Duration::from_millis(50);

/// Who asked for an object first gets to download it.
pub(super) enum Claim<'a> {
    /// Ours to complete.
    Ours(Partial<'a>),
    /// Another thread or process completed it meanwhile.
    Done(Object),
}

/// The file of a download under way, locked until it is dropped.
pub(super) struct Partial<'a> {
    store: &'a Store,
    digest: Sha256,
    size: u64,
    file: File,
    path: PathBuf,
    hasher: Hasher,
    have: u64,
    /// Some of it came before this run, or through several answers: a wrong digest may be our own patchwork.
    patched: bool,
    validator: Option<(String, String)>,
}

impl Store {
    /// Takes the download of an object, waiting for whoever has it.
    pub(super) fn claim(&self, digest: &Sha256, size: u64, stop: Stop) -> Result<Claim<'_>, Error> {
        let path = self.partial_path(digest);
        loop {
            let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let file = opened.map_err(|error| self.write_error(&path, error, size))?;
            loop {
                match file.try_lock() {
                    Ok(()) => break,
                    Err(TryLockError::WouldBlock) => {
                        stop.check()?;
                        thread::sleep(LOOK);
                    }
                    Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
                }
            }
            if let Some(object) = self.object_of_size(digest, size) {
                // Under our lock, so nobody else can be working on the file by this name, if it is still this file.
                if is_still_at(&file, &path) {
                    discard(&path);
                }
                return Ok(Claim::Done(object));
            }
            // The one we waited for may have finished (renamed) or given up (removed): then start afresh.
            if is_still_at(&file, &path) {
                return Partial::resume(self, *digest, size, file, path).map(Claim::Ours);
            }
        }
    }

    /// Bytes of an object that an earlier run left behind.
    pub(super) fn left_behind(&self, digest: &Sha256) -> u64 {
        fs::metadata(self.partial_path(digest)).map_or(0, |metadata| metadata.len())
    }

    fn partial_path(&self, digest: &Sha256) -> PathBuf {
        self.root.join("partial").join(digest.to_string())
    }
}

fn is_still_at(file: &File, path: &PathBuf) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Removes a partial file and its validator. A leftover costs room, not correctness.
fn discard(path: &PathBuf) {
    let _ = fs::remove_file(path.with_extension("from"));
    let _ = fs::remove_file(path);
}

impl<'a> Partial<'a> {
    fn resume(
        store: &'a Store,
        digest: Sha256,
        size: u64,
        mut file: File,
        path: PathBuf,
    ) -> Result<Self, Error> {
        let left = file.metadata().map_err(Error::io("look at", &path))?.len();
        if left > size {
            file.set_len(0).map_err(Error::io("empty", &path))?;
        }
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 1 << 16];
        let mut have = 0;
        loop {
            match file.read(&mut buffer).map_err(Error::io("read", &path))? {
                0 => break,
                n => {
                    hasher.update(&buffer[..n]);
                    have += n as u64;
                }
            }
        }
        let from = fs::read_to_string(path.with_extension("from")).ok().filter(|_| have > 0);
        let validator = from.and_then(|text| {
            let (url, validator) = text.trim_end().split_once('\n')?;
            Some((url.to_owned(), validator.to_owned()))
        });
        Ok(Self { store, digest, size, file, path, hasher, have, patched: have > 0, validator })
    }

    /// Compares the digest and, when it is right, moves the file to its place. `Err(found)` inside tells the wrong one.
    pub(super) fn finish(&mut self) -> Result<Result<Object, Sha256>, Error> {
        let (found, _) = self.hasher.clone().finish();
        if found != self.digest || self.have != self.size {
            return Ok(Err(found));
        }
        // Before the rename: after it the name may belong to someone else. When it stays behind it costs a few bytes.
        let _ = fs::remove_file(self.path.with_extension("from"));
        self.store.keep(&self.path, &self.digest, self.size).map(Ok)
    }

    /// Whether what is here was put together from several answers.
    pub(super) fn is_patched(&self) -> bool {
        self.patched
    }

    /// Whether what is here looks like a web page.
    pub(super) fn is_html(&self) -> bool {
        let mut start = [0; 512];
        self.file.read_at(&mut start, 0).is_ok_and(|n| looks_like_html(&start[..n]))
    }

    /// Removes the file: what is in it is of no use.
    pub(super) fn discard(self) {
        discard(&self.path);
    }

    /// Leaves what was downloaded for another run, unless there is nothing.
    pub(super) fn leave(self) {
        if self.have == 0 {
            discard(&self.path);
        }
    }
}

impl Sink for Partial<'_> {
    fn have(&self) -> u64 {
        self.have
    }

    fn length(&self) -> Length {
        Length::Exactly(self.size)
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let needed = self.size - self.have;
        self.file.write_all(bytes).map_err(|error| {
            // A write that failed half-way leaves bytes behind that are not in the hash.
            let _ = self.file.set_len(self.have);
            self.store.write_error(&self.path, error, needed)
        })?;
        self.hasher.update(bytes);
        self.have += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), Error> {
        self.file.set_len(0).map_err(Error::io("empty", &self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(Error::io("rewind", &self.path))?;
        (self.hasher, self.have, self.patched) = (Hasher::new(), 0, false);
        self.validator = None;
        Ok(())
    }

    fn continued(&mut self) {
        self.patched = true;
    }

    fn validator(&self, url: &Url) -> Option<&str> {
        let (from, validator) = self.validator.as_ref()?;
        (from == url.as_str()).then_some(validator)
    }

    fn remember(&mut self, url: &Url, validator: Option<&str>) {
        self.validator = validator.map(|validator| (url.to_string(), validator.to_owned()));
        let path = self.path.with_extension("from");
        // Only a saving: without it a resumed file is judged by its digest alone.
        let _ = match &self.validator {
            Some((url, validator)) => fs::write(path, format!("{url}\n{validator}\n")),
            None => fs::remove_file(path),
        };
    }
}
