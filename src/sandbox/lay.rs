//! Laying a tree out as files: the parent says what, the child does it.

use super::child::{During, Fault};
use super::wire::{self, PATH_LIMIT, Put, Take, bad, tag};
use crate::content::{Content, ReadAt};
use crate::format::entry::EntryKind;
use crate::meta::{Meta, Timestamp};
use crate::tree::Tree;
use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Most files that contents may come from by descriptor (`SCM_MAX_FD` is 253); others travel as bytes.
pub(super) const MAX_SOURCES: usize = 250;
/// Stands for "the bytes follow".
const INLINE: u32 = u32::MAX;
const BUFFER: usize = 256 << 10;

/// The files that the contents of some trees come from, by descriptor.
#[derive(Default)]
pub(super) struct Sources<'a> {
    index: BTreeMap<i32, u32>,
    files: Vec<BorrowedFd<'a>>,
}

impl<'a> Sources<'a> {
    /// Notes every file behind a tree's contents, up to [`MAX_SOURCES`].
    pub(super) fn collect(&mut self, tree: &'a Tree) {
        use std::os::fd::AsFd;
        for (_, id) in tree.walk() {
            let crate::tree::Kind::File(content) = &tree.node(id).kind else { continue };
            for file in content.pieces().iter().filter_map(|piece| piece.source.as_file()) {
                if self.files.len() < MAX_SOURCES && !self.index.contains_key(&file.as_raw_fd()) {
                    self.index.insert(file.as_raw_fd(), self.files.len() as u32);
                    self.files.push(file.as_fd());
                }
            }
        }
    }

    /// The descriptors, to be handed to the child.
    pub(super) fn descriptors(&self) -> &[BorrowedFd<'a>] {
        &self.files
    }

    fn of(&self, source: &dyn ReadAt) -> u32 {
        let file = source.as_file().and_then(|file| self.index.get(&file.as_raw_fd()));
        file.copied().unwrap_or(INLINE)
    }
}

/// Sends a tree. Device nodes are left out: a user namespace may not make them, so they stay as they are.
pub(super) fn send(out: &mut impl Write, tree: &Tree, sources: &Sources<'_>) -> io::Result<()> {
    let entries = tree.entries();
    for entry in &entries {
        match &entry.kind {
            EntryKind::Directory => head(out, &entry.path, tag::DIRECTORY)?,
            EntryKind::File(_) => head(out, &entry.path, tag::FILE)?,
            EntryKind::Symlink(_) => head(out, &entry.path, tag::SYMLINK)?,
            EntryKind::Fifo => head(out, &entry.path, tag::FIFO)?,
            EntryKind::Socket => head(out, &entry.path, tag::SOCKET)?,
            EntryKind::HardLink(first) => {
                if matches!(entries[*first].kind, EntryKind::CharDevice(_) | EntryKind::BlockDevice(_)) {
                    continue;
                }
                head(out, &entry.path, tag::HARD_LINK)?;
                out.put_bytes(&entries[*first].path)?;
                continue;
            }
            EntryKind::CharDevice(_) | EntryKind::BlockDevice(_) => continue,
        }
        out.put_meta(&entry.meta)?;
        match &entry.kind {
            EntryKind::Symlink(target) => out.put_bytes(target)?,
            EntryKind::File(content) => send_content(out, content, sources)?,
            _ => {}
        }
    }
    out.put_u8(tag::END)
}

fn head(out: &mut impl Write, path: &[u8], kind: u8) -> io::Result<()> {
    out.put_u8(kind)?;
    out.put_bytes(path)
}

fn send_content(out: &mut impl Write, content: &Content, sources: &Sources<'_>) -> io::Result<()> {
    out.put_u64(content.len())?;
    out.put_u32(content.pieces().len() as u32)?;
    for piece in content.pieces() {
        let source = sources.of(&*piece.source);
        out.put_u64(piece.at)?;
        out.put_u64(piece.len)?;
        out.put_u32(source)?;
        out.put_u64(piece.offset)?;
        if source == INLINE {
            let mut buffer = vec![0; BUFFER.min(piece.len as usize)];
            let mut done = 0;
            while done < piece.len {
                let n = (buffer.len() as u64).min(piece.len - done) as usize;
                piece.source.read_exact_at(&mut buffer[..n], piece.offset + done)?;
                out.write_all(&buffer[..n])?;
                done += n as u64;
            }
        }
    }
    Ok(())
}

/// Receives a tree and makes its files below `root`, which exists and is empty. In the child.
pub(super) fn lay_out(input: &mut impl Read, root: &Path, sources: &[OwnedFd]) -> Result<(), Fault> {
    let sources = sources.iter().map(|fd| fd.try_clone().map(File::from)).collect::<io::Result<Vec<_>>>();
    let sources = sources.during("handling the descriptors of packs")?;
    let mut buffer = vec![0; BUFFER];
    let mut directories: Vec<(PathBuf, Timestamp)> = Vec::new();
    loop {
        let kind = input.take_u8().during("receiving the tree")?;
        if kind == tag::END {
            break;
        }
        let path = receive_path(input, root)?;
        let shown = path.display().to_string();
        if kind == tag::HARD_LINK {
            let first = receive_path(input, root)?;
            std::fs::hard_link(first, &path).during_with(|| format!("making the hard link {shown}"))?;
            continue;
        }
        let meta = input.take_meta().during("receiving the tree")?;
        let made = match kind {
            tag::DIRECTORY if path == root => Ok(()),
            tag::DIRECTORY => std::fs::DirBuilder::new().mode(0o700).create(&path),
            tag::FILE => lay_file(input, &path, &sources, &mut buffer),
            tag::SYMLINK => input
                .take_bytes(PATH_LIMIT)
                .and_then(|target| std::os::unix::fs::symlink(bytes_path(&target), &path)),
            tag::FIFO | tag::SOCKET => {
                let file_type =
                    if kind == tag::FIFO { rustix::fs::FileType::Fifo } else { rustix::fs::FileType::Socket };
                rustix::fs::mknodat(CWD, &path, file_type, Mode::from_raw_mode(0o600), 0)
                    .map_err(io::Error::from)
            }
            other => Err(bad(format!("unknown kind {other}"))),
        };
        made.during_with(|| format!("laying out {shown}"))?;
        set_meta(&path, &meta, kind).during_with(|| {
            format!("setting owner {}:{}, mode {:o} and attributes of {shown}", meta.uid, meta.gid, meta.mode)
        })?;
        if kind == tag::DIRECTORY {
            directories.push((path, meta.mtime));
        }
    }
    // Last, and from the inside out: making what they hold changed their times.
    for (path, mtime) in directories.iter().rev() {
        set_time(path, *mtime).during_with(|| format!("setting the time of {}", path.display()))?;
    }
    Ok(())
}

fn receive_path(input: &mut impl Read, root: &Path) -> Result<PathBuf, Fault> {
    let path = input.take_bytes(PATH_LIMIT).during("receiving the tree")?;
    Ok(if path.is_empty() { root.to_owned() } else { root.join(bytes_path(&path)) })
}

fn lay_file(input: &mut impl Read, path: &Path, sources: &[File], buffer: &mut [u8]) -> io::Result<()> {
    let len = input.take_u64()?;
    let pieces = input.take_u32()?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut end = 0;
    for _ in 0..pieces {
        let at = input.take_u64()?;
        let piece_len = input.take_u64()?;
        let source = input.take_u32()?;
        let offset = input.take_u64()?;
        let source = match source {
            INLINE => None,
            index => Some(sources.get(index as usize).ok_or_else(|| bad("no such source"))?),
        };
        let mut done = 0;
        while done < piece_len {
            let n = (buffer.len() as u64).min(piece_len - done) as usize;
            match source {
                None => input.read_exact(&mut buffer[..n])?,
                Some(source) => FileExt::read_exact_at(source, &mut buffer[..n], offset + done)?,
            }
            file.write_all_at(&buffer[..n], at + done)?;
            done += n as u64;
        }
        end = at + piece_len;
    }
    if end < len {
        file.set_len(len)?;
    }
    Ok(())
}

/// Owner first: changing it takes set-id bits and `security.capability` away.
fn set_meta(path: &Path, meta: &Meta, kind: u8) -> io::Result<()> {
    let owner = (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)));
    rustix::fs::chownat(CWD, path, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
    if kind != tag::SYMLINK {
        rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(meta.mode.into()), AtFlags::empty())?;
    }
    for (name, value) in &meta.xattrs {
        rustix::fs::lsetxattr(path, name.as_slice(), value, XattrFlags::empty()).map_err(|error| {
            let name = String::from_utf8_lossy(name);
            io::Error::new(io::Error::from(error).kind(), format!("extended attribute {name}: {error}"))
        })?;
    }
    if kind != tag::DIRECTORY {
        set_time(path, meta.mtime)?;
    }
    Ok(())
}

fn set_time(path: &Path, mtime: Timestamp) -> io::Result<()> {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

pub(super) fn bytes_path(bytes: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

const _: () = assert!(wire::PATH_LIMIT >= 4096);
