//! What the steps changed: read from overlayfs' upper directory in the child, sent, and checked in the parent.
//!
//! The upper directory is an exact difference (overlayfs.rst): a file in it stands in place of the lower one, a character
//! device 0:0 says "gone", a directory with `overlay.opaque` hides the lower one's entries, any other directory adds to it.
//! What was copied up and is still the same is not reported.

use super::child::{During, Fault};
use super::lay::bytes_path;
use super::wire::{PATH_LIMIT, Put, Take, XATTR_LIMIT, bad, tag};
use super::world::{LOWER, UPPER};
use crate::content::{Content, Piece};
use crate::meta::{Meta, Timestamp, Xattrs};
use crate::pack::PackWriter;
use crate::tree::diff::Change;
use crate::tree::{Kind, TreePath};
use rustix::fs::{FileType, SeekFrom, Stat};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const BUFFER: usize = 256 << 10;
/// Most changes a run may make: a whole system has about 100,000 names.
const MAX_CHANGES: usize = 4 << 20;
/// Most bytes a run may add.
const MAX_BYTES: u64 = 64 << 30;
/// Most pieces of one sparse file.
const MAX_PIECES: usize = 1 << 20;

/// Sends every change. `props` are paths that were only there for the run.
pub(super) fn send_changes(out: &mut impl Write, props: &[Vec<u8>]) -> Result<(), Fault> {
    let props = props.iter().map(Vec::as_slice).collect();
    let mut collector = Collector { out, props, first_names: BTreeMap::new(), buffer: vec![0; BUFFER] };
    collector.directory(&[], true)?;
    collector.out.put_u8(tag::END).during("sending the changes")
}

struct Collector<'a, W> {
    out: &'a mut W,
    props: BTreeSet<&'a [u8]>,
    /// The first name of each file that has several, by inode number.
    first_names: BTreeMap<u64, Vec<u8>>,
    buffer: Vec<u8>,
}

impl<W: Write> Collector<'_, W> {
    /// One directory of the upper; `merged` when the lower has one there that shows through.
    fn directory(&mut self, path: &[u8], merged: bool) -> Result<(), Fault> {
        let directory = below(UPPER, path);
        let mut names = Vec::new();
        let list = std::fs::read_dir(&directory);
        for entry in list.during_with(|| format!("reading {}", directory.display()))? {
            let entry = entry.during_with(|| format!("reading {}", directory.display()))?;
            names.push(entry.file_name().into_vec());
        }
        names.sort();
        if path.is_empty() {
            self.merged_directory(path, &stat(&below(LOWER, path))?, &stat(&directory)?)?;
        }
        for name in names {
            let mut child = path.to_vec();
            if !child.is_empty() {
                child.push(b'/');
            }
            child.extend_from_slice(&name);
            self.entry(&child, merged).during_path(&child)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &[u8], merged: bool) -> Result<(), Fault> {
        let here = below(UPPER, path);
        let now = stat(&here)?;
        let old_path = below(LOWER, path);
        let was = if merged { try_stat(&old_path)? } else { None };
        let is_prop = self.props.contains(path);
        let kind = FileType::from_raw_mode(now.st_mode);
        let was_kind = was.as_ref().map(|was| FileType::from_raw_mode(was.st_mode));
        if kind == FileType::CharacterDevice && now.st_rdev == 0 {
            if was.is_some() && !is_prop {
                self.remove(path)?;
            }
            return Ok(());
        }
        if kind == FileType::Directory {
            let shows_through = was_kind == Some(FileType::Directory) && !is_opaque(&here)?;
            match &was {
                Some(was) if shows_through => {
                    if !is_prop {
                        self.merged_directory(path, was, &now)?;
                    }
                }
                _ => {
                    if was.is_some() && !is_prop {
                        self.remove(path)?;
                    }
                    self.head(tag::DIRECTORY, path)?;
                    self.meta(&here, &now)?;
                }
            }
            return self.directory(path, shows_through);
        }
        if is_prop {
            return Ok(());
        }
        if now.st_nlink > 1 {
            if let Some(first) = self.first_names.get(&now.st_ino).cloned() {
                if was_kind == Some(FileType::Directory) {
                    self.remove(path)?;
                }
                self.head(tag::HARD_LINK, path)?;
                return self.out.put_bytes(&first).during("sending the changes");
            }
            self.first_names.insert(now.st_ino, path.to_vec());
        }
        if let Some(was) = &was
            && was_kind == Some(kind)
            && self.same_content(kind, &old_path, was, &here, &now)?
            // A file that got a second name is one node: it has to be told whole, for the other name to be told as a link.
            && now.st_nlink == 1
        {
            return self.changed_meta(path, &old_path, was, &here, &now);
        }
        if was_kind == Some(FileType::Directory) {
            self.remove(path)?;
        }
        self.whole(kind, path, &here, &now)
    }

    fn whole(&mut self, kind: FileType, path: &[u8], here: &Path, now: &Stat) -> Result<(), Fault> {
        let tag = match kind {
            FileType::RegularFile => tag::FILE,
            FileType::Symlink => tag::SYMLINK,
            FileType::Fifo => tag::FIFO,
            FileType::Socket => tag::SOCKET,
            other => {
                let problem = format!("a {other:?}, which nothing in a user namespace may make");
                return Err(io::Error::other(problem)).during("reading the changes");
            }
        };
        self.head(tag, path)?;
        self.meta(here, now)?;
        match kind {
            FileType::RegularFile => self.content(here, now.st_size as u64),
            FileType::Symlink => {
                let target = read_link(here)?;
                self.out.put_bytes(&target).during("sending the changes")
            }
            _ => Ok(()),
        }
    }

    fn merged_directory(&mut self, path: &[u8], was: &Stat, now: &Stat) -> Result<(), Fault> {
        self.changed_meta(path, &below(LOWER, path), was, &below(UPPER, path), now)
    }

    fn changed_meta(
        &mut self,
        path: &[u8],
        old_path: &Path,
        was: &Stat,
        here: &Path,
        now: &Stat,
    ) -> Result<(), Fault> {
        let meta = meta_of(here, now)?;
        if meta == meta_of(old_path, was)? {
            return Ok(());
        }
        self.head(tag::META, path)?;
        self.out.put_meta(&meta).during("sending the changes")
    }

    fn same_content(
        &mut self,
        kind: FileType,
        old_path: &Path,
        was: &Stat,
        here: &Path,
        now: &Stat,
    ) -> Result<bool, Fault> {
        match kind {
            FileType::RegularFile if was.st_size != now.st_size => Ok(false),
            FileType::RegularFile => {
                let mut compare = || -> io::Result<bool> {
                    let (old, new) = (File::open(old_path)?, File::open(here)?);
                    let (left, right) = self.buffer.split_at_mut(BUFFER / 2);
                    let (size, mut at) = (now.st_size as u64, 0);
                    while at < size {
                        let n = (left.len() as u64).min(size - at) as usize;
                        FileExt::read_exact_at(&old, &mut left[..n], at)?;
                        FileExt::read_exact_at(&new, &mut right[..n], at)?;
                        if left[..n] != right[..n] {
                            return Ok(false);
                        }
                        at += n as u64;
                    }
                    Ok(true)
                };
                compare().during("comparing a file with what it was")
            }
            FileType::Symlink => Ok(read_link(old_path)? == read_link(here)?),
            _ => Ok(true),
        }
    }

    fn head(&mut self, tag: u8, path: &[u8]) -> Result<(), Fault> {
        self.out.put_u8(tag).and_then(|()| self.out.put_bytes(path)).during("sending the changes")
    }

    fn remove(&mut self, path: &[u8]) -> Result<(), Fault> {
        self.head(tag::REMOVE, path)
    }

    fn meta(&mut self, here: &Path, now: &Stat) -> Result<(), Fault> {
        let meta = meta_of(here, now)?;
        self.out.put_meta(&meta).during("sending the changes")
    }

    /// A file's bytes: length, then runs of data (offset, length, bytes), then a run of length zero.
    fn content(&mut self, here: &Path, size: u64) -> Result<(), Fault> {
        let mut send = || -> io::Result<()> {
            let file = File::open(here)?;
            self.out.put_u64(size)?;
            let mut at = 0;
            while at < size {
                let start = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
                    Ok(start) => start,
                    Err(rustix::io::Errno::NXIO) => break,
                    Err(error) => return Err(error.into()),
                };
                let end = rustix::fs::seek(&file, SeekFrom::Hole(start))?.min(size);
                self.out.put_u64(start)?;
                self.out.put_u64(end - start)?;
                at = start;
                while at < end {
                    let n = (self.buffer.len() as u64).min(end - at) as usize;
                    FileExt::read_exact_at(&file, &mut self.buffer[..n], at)?;
                    self.out.write_all(&self.buffer[..n])?;
                    at += n as u64;
                }
            }
            self.out.put_u64(size)?;
            self.out.put_u64(0)
        };
        send().during("sending a changed file")
    }
}

trait DuringPath<T> {
    fn during_path(self, path: &[u8]) -> Result<T, Fault>;
}

impl<T> DuringPath<T> for Result<T, Fault> {
    /// Names the innermost path once.
    fn during_path(self, path: &[u8]) -> Result<T, Fault> {
        self.map_err(|fault| {
            if fault.what.contains("/") {
                return fault;
            }
            Fault { what: format!("{}: /{}", fault.what, path.escape_ascii()), source: fault.source }
        })
    }
}

fn below(root: &str, path: &[u8]) -> PathBuf {
    Path::new(root).join(bytes_path(path))
}

fn stat(path: &Path) -> Result<Stat, Fault> {
    rustix::fs::lstat(path).during("reading the changes")
}

fn try_stat(path: &Path) -> Result<Option<Stat>, Fault> {
    match rustix::fs::lstat(path) {
        Ok(stat) => Ok(Some(stat)),
        // Below something that is no directory in the lower tree, too.
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error).during("reading the tree as it was"),
    }
}

fn read_link(path: &Path) -> Result<Vec<u8>, Fault> {
    Ok(std::fs::read_link(path).during("reading a link")?.as_os_str().as_bytes().to_vec())
}

fn is_opaque(path: &Path) -> Result<bool, Fault> {
    let mut value = [0; 1];
    match rustix::fs::lgetxattr(path, "user.overlay.opaque", &mut value[..]) {
        Ok(_) => Ok(value == *b"y"),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error).during("reading an overlay mark"),
    }
}

fn meta_of(path: &Path, stat: &Stat) -> Result<Meta, Fault> {
    let mtime =
        Timestamp { seconds: stat.st_mtime, nanoseconds: (stat.st_mtime_nsec % 1_000_000_000) as u32 };
    let xattrs = xattrs_of(path).during("reading extended attributes")?;
    // Only twelve bits are kept; a link's are always 0777 and say nothing.
    let mode = (stat.st_mode & 0o7777) as u16;
    Ok(Meta { mode, uid: stat.st_uid, gid: stat.st_gid, mtime, xattrs })
}

fn xattrs_of(path: &Path) -> io::Result<Xattrs> {
    let mut list = vec![0; XATTR_LIMIT as usize];
    let n = match rustix::fs::llistxattr(path, &mut list[..]) {
        Ok(n) => n,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Xattrs::new()),
        Err(error) => return Err(error.into()),
    };
    let mut xattrs = Xattrs::new();
    for name in list[..n].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"user.overlay.") || name.starts_with(b"trusted.") {
            continue;
        }
        let mut value = vec![0; XATTR_LIMIT as usize];
        let n = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        value.truncate(n);
        let value = if name == b"security.capability" { version_2(value) } else { value };
        xattrs.insert(name.to_vec(), value);
    }
    Ok(xattrs)
}

/// A namespace's root writes capabilities in version 3, which carry the id of that root outside (linux/capability.h:
/// `vfs_ns_cap_data`, 24 bytes). The same in version 2 has no id, and means the same on the device.
fn version_2(mut value: Vec<u8>) -> Vec<u8> {
    if value.len() == 24 && value[3] == 3 {
        value.truncate(20);
        value[3] = 2;
    }
    value
}

/// Receives changes one by one. In the parent; everything is checked.
pub(super) struct Receiver<'a> {
    pack: &'a PackWriter,
    room: u64,
    changes: Vec<Change>,
}

impl<'a> Receiver<'a> {
    /// Contents go into `pack`.
    pub(super) fn new(pack: &'a PackWriter) -> Self {
        Self { pack, room: MAX_BYTES, changes: Vec::new() }
    }

    /// Reads the change that begins with `kind`.
    pub(super) fn receive(&mut self, kind: u8, input: &mut impl Read) -> io::Result<()> {
        if self.changes.len() >= MAX_CHANGES {
            return Err(bad(format!("more than {MAX_CHANGES} changes")));
        }
        let path = take_path(input)?;
        self.changes.push(match kind {
            tag::REMOVE => Change::Remove { path },
            tag::META => Change::Meta { path, meta: input.take_meta()? },
            tag::HARD_LINK => Change::Link { path, target: take_path(input)? },
            _ => {
                let meta = input.take_meta()?;
                let kind = match kind {
                    tag::DIRECTORY => Kind::Directory(BTreeMap::new()),
                    tag::FILE => Kind::File(receive_content(input, self.pack, &mut self.room)?),
                    tag::SYMLINK => Kind::Symlink(take_target(input)?),
                    tag::FIFO => Kind::Fifo,
                    tag::SOCKET => Kind::Socket,
                    other => return Err(bad(format!("unknown kind of change {other}"))),
                };
                Change::Put { path, meta, kind }
            }
        });
        Ok(())
    }

    /// All of them, in order.
    pub(super) fn finish(self) -> Vec<Change> {
        self.changes
    }
}

fn take_path(input: &mut impl Read) -> io::Result<TreePath> {
    TreePath::new(input.take_bytes(PATH_LIMIT)?).map_err(|error| bad(error.to_string()))
}

fn take_target(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let target = input.take_bytes(PATH_LIMIT)?;
    if target.is_empty() || target.contains(&0) {
        return Err(bad("a symbolic link without a proper target"));
    }
    Ok(target)
}

fn receive_content(input: &mut impl Read, pack: &PackWriter, room: &mut u64) -> io::Result<Content> {
    let size = input.take_u64()?;
    if size > i64::MAX as u64 {
        return Err(bad(format!("a file of {size} bytes")));
    }
    let source: Arc<dyn crate::content::ReadAt> = pack.file();
    let mut buffer = vec![0; BUFFER.min(size.max(1) as usize)];
    let mut pieces = Vec::new();
    loop {
        let (at, len) = (input.take_u64()?, input.take_u64()?);
        if len == 0 {
            break;
        }
        *room =
            room.checked_sub(len).ok_or_else(|| bad(format!("more than {MAX_BYTES} bytes of changes")))?;
        if pieces.len() >= MAX_PIECES || at.checked_add(len).is_none_or(|end| end > size) {
            return Err(bad("a file whose pieces do not fit it"));
        }
        let offset = pack.reserve(len);
        let mut done = 0;
        while done < len {
            let n = (buffer.len() as u64).min(len - done) as usize;
            input.read_exact(&mut buffer[..n])?;
            pack.write_at(&buffer[..n], offset + done)?;
            done += n as u64;
        }
        pieces.push(Piece { at, len, source: source.clone(), offset });
    }
    Content::sparse(size, pieces).ok_or_else(|| bad("a file whose pieces are out of order"))
}
