//! From an image to a sparse file: one read, one write, and the digest of the whole image at the same time.
//!
//! The file appears under its name when it is whole and on disk, or not at all.

use super::{Image, ImageError};
use crate::content::Content;
use crate::digest::{Hasher, Sha256};
use crate::format::sink::Sink;
use crate::units::Bytes;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{JoinHandle, spawn};

/// Bytes written and hashed at once.
const CHUNK: usize = 1 << 20;
/// Chunks on their way to the thread that hashes. With the one being filled and the one being hashed, this bounds
/// memory to ten chunks.
const IN_FLIGHT: usize = 8;
/// Unit of block maps, and of what a sparse file leaves out.
const BLOCK: u64 = 4096;

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Length of the file.
    pub size: Bytes,
    /// What it takes on the disk it is on.
    pub allocated: Bytes,
    /// Digest of all its bytes, holes as zeros.
    pub sha256: Sha256,
    /// Ranges of bytes that mean something, in whole blocks of 4 KiB, sorted and apart: the rest need not reach a card.
    pub map: Vec<Range<u64>>,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Not enough room.
    #[error("writing {}: {needed} are needed, {free} are free", .path.display())]
    DiskFull {
        /// The image.
        path: PathBuf,
        /// What it would take.
        needed: Bytes,
        /// What there is.
        free: Bytes,
    },
    /// The caller asked to stop.
    #[error("writing {} was cancelled", .path.display())]
    Cancelled {
        /// The image.
        path: PathBuf,
    },
    /// The image could not be written, or the contents of a file in it not read.
    #[error("writing {}", .path.display())]
    Image {
        /// The image.
        path: PathBuf,
        /// The failure.
        #[source]
        source: ImageError,
    },
    /// The file could not be made, kept or renamed.
    #[error("{attempt} {}", .path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// The failure.
        #[source]
        source: io::Error,
    },
}

/// How the caller watches and stops the writing.
pub struct Watch<'a> {
    /// Called after every chunk with the bytes written and the most there will be.
    pub progress: &'a mut dyn FnMut(Bytes, Bytes),
    /// Looked at before every chunk.
    pub cancel: &'a AtomicBool,
}

/// Writes an image to `path`, replacing what is there. A second file of a name of its own is written beside it and
/// renamed at the end; on an error, or when cancelled, it is removed and `path` stays as it was.
pub fn to_file(image: &Image<'_>, path: &Path, watch: Watch<'_>) -> Result<Written, WriteError> {
    let failed = |attempt, source| WriteError::Io { attempt, path: path.to_owned(), source };
    let map = blocks(&image.used(), image.layout().size());
    let needed = Bytes(map.iter().map(|range| range.end - range.start).sum());
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let free = free(directory).map_err(|source| failed("looking at the free space for", source))?;
    if free < needed {
        return Err(WriteError::DiskFull { path: path.to_owned(), needed, free });
    }
    let (file, partial) = Partial::create(path).map_err(|source| failed("creating a file beside", source))?;
    let size = image.layout().size();
    file.set_len(size.0).map_err(|source| failed("making room for", source))?;
    let cancel = watch.cancel;
    let mut sink = FileSink::new(file, needed, watch);
    let outcome = image.write(&mut sink);
    let outcome =
        outcome.and_then(|()| sink.flush().map_err(|source| ImageError::Write("last bytes", source)));
    if let Err(source) = outcome {
        let path = path.to_owned();
        return Err(match &source {
            _ if cancel.load(Ordering::Relaxed) => WriteError::Cancelled { path },
            _ if is_full(&source) => {
                let free = self::free(directory).unwrap_or(Bytes(0));
                WriteError::DiskFull { path, needed, free }
            }
            _ => WriteError::Image { path, source },
        });
    }
    let (file, sha256) = sink.finish(size).map_err(|source| failed("hashing", source))?;
    file.sync_all().map_err(|source| failed("bringing to disk", source))?;
    let allocated = file.metadata().map_err(|source| failed("looking at", source))?.blocks() * 512;
    if cancel.load(Ordering::Relaxed) {
        return Err(WriteError::Cancelled { path: path.to_owned() });
    }
    partial.keep(path).map_err(|source| failed("renaming to", source))?;
    // The name too must survive a power cut.
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|source| failed("bringing the directory to disk for", source))?;
    Ok(Written { size, allocated: Bytes(allocated), sha256, map })
}

/// Whole blocks that cover `used`, merged.
fn blocks(used: &[Range<u64>], size: Bytes) -> Vec<Range<u64>> {
    let mut map: Vec<Range<u64>> = Vec::new();
    for range in used {
        let (start, end) = (range.start / BLOCK * BLOCK, range.end.next_multiple_of(BLOCK).min(size.0));
        match map.last_mut() {
            Some(last) if start <= last.end => last.end = last.end.max(end),
            _ => map.push(start..end),
        }
    }
    map
}

fn free(directory: &Path) -> io::Result<Bytes> {
    let stat = rustix::fs::statvfs(directory)?;
    Ok(Bytes(stat.f_bavail.saturating_mul(stat.f_frsize)))
}

/// Whether a failure came from a full disk, wherever in its causes that is said.
fn is_full(error: &ImageError) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// A file that removes itself unless it is kept.
struct Partial {
    path: Option<PathBuf>,
}

impl Partial {
    /// Makes a new file in the directory of `path`, whose name starts with a dot and tells what it is.
    fn create(path: &Path) -> io::Result<(File, Self)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let process = std::process::id();
        for attempt in 0..1000 {
            let mut partial = std::ffi::OsString::from(".");
            partial.push(name);
            partial.push(format!(".{process}-{attempt}.partial"));
            let partial = path.with_file_name(partial);
            match File::options().read(true).write(true).create_new(true).open(&partial) {
                Ok(file) => return Ok((file, Self { path: Some(partial) })),
                // Another image of the same name, by another thread, or left by a process that was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn keep(mut self, path: &Path) -> io::Result<()> {
        if let Some(partial) = &self.path {
            fs::rename(partial, path)?;
        }
        self.path = None;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Nothing can be done about a failure here, and the failure that led here is the one to report.
            let _ = fs::remove_file(path);
        }
    }
}

/// Gathers bytes into chunks, writes each and passes it on to be hashed.
struct FileSink<'a> {
    file: File,
    chunk: Vec<u8>,
    /// Offset of the chunk's first byte.
    start: u64,
    hashing: Hashing,
    watch: Watch<'a>,
    written: u64,
    expected: Bytes,
}

impl<'a> FileSink<'a> {
    fn new(file: File, expected: Bytes, watch: Watch<'a>) -> Self {
        Self {
            file,
            chunk: Vec::with_capacity(CHUNK),
            start: 0,
            hashing: Hashing::start(),
            watch,
            written: 0,
            expected,
        }
    }

    /// Makes `offset` the place where the chunk goes on, and gives how much fits.
    fn reach(&mut self, offset: u64) -> io::Result<usize> {
        let end = self.start + self.chunk.len() as u64;
        if offset < end {
            let text = format!("offset {offset} written after {end}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let same_block = offset <= end.next_multiple_of(BLOCK) && !self.chunk.is_empty();
        let gap = (offset - end) as usize;
        if same_block && self.chunk.len() + gap < CHUNK {
            // The block is there anyway, and a few zeros up to its end cost less than a write for every file.
            self.chunk.resize(self.chunk.len() + gap, 0);
        } else if gap > 0 || self.chunk.len() == CHUNK {
            self.flush()?;
            self.start = offset;
        }
        Ok(CHUNK - self.chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.watch.cancel.load(Ordering::Relaxed) {
            return Err(io::Error::other("cancelled"));
        }
        let end = self.start + self.chunk.len() as u64;
        if !self.chunk.is_empty() {
            self.file.write_all_at(&self.chunk, self.start)?;
            self.written += self.chunk.len() as u64;
            let next = self.hashing.buffer();
            let chunk = std::mem::replace(&mut self.chunk, next);
            self.hashing.send(self.start, chunk)?;
            (self.watch.progress)(Bytes(self.written), Bytes(self.expected.0.max(self.written)));
        }
        self.start = end;
        Ok(())
    }

    /// The file, and the digest of it up to `size`.
    fn finish(self, size: Bytes) -> io::Result<(File, Sha256)> {
        Ok((self.file, self.hashing.finish(size)?))
    }
}

impl Sink for FileSink<'_> {
    fn bytes(&mut self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = self.reach(offset)?;
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            self.chunk.extend_from_slice(now);
            offset += now.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// Reads straight into the chunk.
    fn copy(&mut self, offset: u64, content: &Content, at: u64, len: u64) -> io::Result<()> {
        let end = at.checked_add(len).filter(|end| *end <= content.len());
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let pieces = content.pieces();
        let first = pieces.partition_point(|piece| piece.at + piece.len <= at);
        for piece in pieces[first..].iter().take_while(|piece| piece.at < end) {
            let mut from = piece.at.max(at);
            let stop = (piece.at + piece.len).min(end);
            while from < stop {
                let room = self.reach(offset + (from - at))?;
                let now = (stop - from).min(room as u64);
                let filled = self.chunk.len();
                self.chunk.resize(filled + now as usize, 0);
                piece.source.read_exact_at(&mut self.chunk[filled..], piece.offset + (from - piece.at))?;
                from += now;
            }
        }
        Ok(())
    }
}

/// The thread that hashes, and the chunks that come back from it.
struct Hashing {
    chunks: SyncSender<(u64, Vec<u8>)>,
    used: Receiver<Vec<u8>>,
    thread: JoinHandle<(Hasher, u64)>,
}

impl Hashing {
    fn start() -> Self {
        let (chunks, inbox) = sync_channel(IN_FLIGHT);
        let (outbox, used) = channel();
        Self { chunks, used, thread: spawn(move || hash(&inbox, &outbox)) }
    }

    /// An empty chunk: one that was hashed, or a new one.
    fn buffer(&self) -> Vec<u8> {
        self.used.try_recv().unwrap_or_else(|_| Vec::with_capacity(CHUNK))
    }

    fn send(&self, offset: u64, chunk: Vec<u8>) -> io::Result<()> {
        self.chunks.send((offset, chunk)).map_err(|_| io::Error::other("the thread that hashes ended early"))
    }

    fn finish(self, size: Bytes) -> io::Result<Sha256> {
        drop(self.chunks);
        let (mut hasher, at) =
            self.thread.join().map_err(|_| io::Error::other("the thread that hashes failed"))?;
        zeros(&mut hasher, size.0.saturating_sub(at));
        Ok(hasher.finish().0)
    }
}

/// Hashes chunks as they come, and zeros for what lies between them. Gives how far it came.
fn hash(inbox: &Receiver<(u64, Vec<u8>)>, outbox: &Sender<Vec<u8>>) -> (Hasher, u64) {
    let mut hasher = Hasher::new();
    let mut at = 0;
    for (offset, mut chunk) in inbox {
        zeros(&mut hasher, offset - at);
        hasher.update(&chunk);
        at = offset + chunk.len() as u64;
        chunk.clear();
        // The writer is gone when it failed; then nobody needs the chunk.
        let _ = outbox.send(chunk);
    }
    (hasher, at)
}

fn zeros(hasher: &mut Hasher, mut count: u64) {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    while count > 0 {
        let now = count.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..now as usize]);
        count -= now;
    }
}
