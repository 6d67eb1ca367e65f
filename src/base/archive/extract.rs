//! One package's files: contents into the pack, names and metadata into a list.

use super::UnpackError;
use crate::content::Content;
use crate::debian::deb::{Control, Data, Deb, DebFault, MAX_DATA_MEMBERS};
use crate::format::codec::TooLong;
use crate::format::tar::{Member, MemberKind};
use crate::meta::Meta;
use crate::pack::PackWriter;
use crate::tree::TreePath;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a data archive may always unpack to, in bytes, whatever its control data says.
const ALWAYS_ALLOWED: u64 = 1 << 30;

/// Files up to this size are gathered and written together.
const GATHER: usize = 4 << 20;

/// A package's files, symbolic links last: dpkg makes them when everything else is in place.
pub(super) type Files = Vec<File>;

/// One file of a package.
pub(super) struct File {
    pub(super) path: TreePath,
    pub(super) kind: FileKind,
    pub(super) meta: Meta,
    pub(super) user: Vec<u8>,
    pub(super) group: Vec<u8>,
}

pub(super) enum FileKind {
    Directory,
    File(Content),
    Symlink(Vec<u8>),
    Fifo,
    /// Another name of an earlier file of the same package.
    HardLink(TreePath),
}

pub(super) fn extract(
    deb: &Deb,
    control: &Control,
    pack: &PackWriter,
    tick: &(dyn Fn(u64) + Sync),
    cancel: &AtomicBool,
) -> Result<Files, UnpackError> {
    // Installed-Size counts every file in whole KiB; a tar archive adds at most two for names and padding.
    let claimed = control.installed_size.unwrap_or(0).saturating_mul(3 << 10);
    let limit = claimed.max(ALWAYS_ALLOWED);
    let mut job = Job {
        limit,
        deb,
        control,
        pack,
        gathered: Vec::new(),
        waiting: Vec::new(),
        files: Vec::new(),
        seen: BTreeMap::new(),
    };
    let mut data = deb.data(limit)?;
    let mut links = Vec::new();
    while let Some(member) = data.next_member().map_err(|error| job.deb.error("data.tar", error))? {
        if cancel.load(Ordering::Relaxed) {
            return Err(UnpackError::Cancelled);
        }
        if job.seen.len() == MAX_DATA_MEMBERS {
            return Err(deb.error("data.tar", DebFault::TooMany).into());
        }
        let size = member.size;
        if let Some(link) = job.add(member, &mut data)? {
            links.push(link);
        }
        tick(size);
    }
    job.write_gathered()?;
    job.files.append(&mut links);
    Ok(job.files)
}

struct Job<'a> {
    limit: u64,
    deb: &'a Deb,
    control: &'a Control,
    pack: &'a PackWriter,
    gathered: Vec<u8>,
    /// Files whose contents are gathered: place in `files`, offset and length in `gathered`.
    waiting: Vec<(usize, usize, usize)>,
    files: Files,
    /// Every path so far, and whether it may be the target of a hard link (a regular file) or come again (a directory).
    seen: BTreeMap<TreePath, Seen>,
}

#[derive(Clone, Copy, PartialEq)]
enum Seen {
    Directory,
    File,
    Other,
}

impl Job<'_> {
    /// Adds a file; a symbolic link is given back instead.
    fn add(&mut self, member: Member, data: &mut Data<'_>) -> Result<Option<File>, UnpackError> {
        let path = self.path(&member.path, &member.path)?;
        let (kind, seen) = match &member.kind {
            MemberKind::Directory => (FileKind::Directory, Seen::Directory),
            MemberKind::File => (FileKind::File(Content::default()), Seen::File),
            MemberKind::Fifo => (FileKind::Fifo, Seen::Other),
            MemberKind::Symlink(target)
                if target.is_empty() || target.len() > 4095 || target.contains(&0) =>
            {
                return Err(self
                    .refuse(&member.path, "a symbolic link whose target is empty, too long or holds a NUL"));
            }
            MemberKind::Symlink(target) => (FileKind::Symlink(target.clone()), Seen::Other),
            MemberKind::HardLink(target) => {
                let target = self.path(target, &member.path)?;
                if self.seen.get(&target) != Some(&Seen::File) {
                    let problem =
                        format!("a hard link to `{target}`, which is no earlier file of this package");
                    return Err(self.refuse(&member.path, problem));
                }
                (FileKind::HardLink(target), Seen::File)
            }
            MemberKind::CharDevice(_) | MemberKind::BlockDevice(_) => {
                return Err(
                    self.refuse(&member.path, "a device; packages must not ship any (Debian policy 10.6)")
                );
            }
        };
        if member.path.contains(&b'\n') {
            return Err(self.refuse(&member.path, "a newline in its name, which dpkg's database cannot hold"));
        }
        if path.is_root() && seen != Seen::Directory {
            return Err(self.refuse(&member.path, "the root can only be a directory"));
        }
        match self.seen.insert(path.clone(), seen) {
            None => {}
            Some(Seen::Directory) if seen == Seen::Directory => {}
            Some(_) => return Err(self.refuse(&member.path, "it comes twice")),
        }
        let file = File { path, kind, meta: member.meta, user: member.user, group: member.group };
        if matches!(file.kind, FileKind::Symlink(_)) {
            return Ok(Some(file));
        }
        let is_file = matches!(file.kind, FileKind::File(_));
        self.files.push(file);
        if is_file && member.size > 0 {
            self.contents(member.size, data)?;
        }
        Ok(None)
    }

    fn contents(&mut self, size: u64, data: &mut Data<'_>) -> Result<(), UnpackError> {
        let place = self.files.len() - 1;
        if size > (GATHER / 4) as u64 {
            self.files[place].kind = FileKind::File(self.stream(size, data)?);
            return Ok(());
        }
        let len = size as usize;
        if self.gathered.len() + len > GATHER {
            self.write_gathered()?;
        }
        let offset = self.gathered.len();
        self.gathered.resize(offset + len, 0);
        data.read_exact(&mut self.gathered[offset..]).map_err(|error| self.broken(error))?;
        self.waiting.push((place, offset, len));
        Ok(())
    }

    /// Writes a large file as it comes.
    fn stream(&mut self, size: u64, data: &mut Data<'_>) -> Result<Content, UnpackError> {
        // The size is the archive's own claim. What the decoder would never give must not be taken from the pack either.
        if size > self.limit {
            let error = std::io::Error::new(std::io::ErrorKind::InvalidData, TooLong(self.limit));
            return Err(self.broken(error));
        }
        let start = self.pack.reserve(size);
        let mut buffer = vec![0; size.min(1 << 18) as usize];
        let mut at = 0;
        while at < size {
            let part = (size - at).min(buffer.len() as u64) as usize;
            data.read_exact(&mut buffer[..part]).map_err(|error| self.broken(error))?;
            self.pack.write_at(&buffer[..part], start + at).map_err(|error| self.unstored(error))?;
            at += part as u64;
        }
        Ok(self.pack.content(start, size))
    }

    fn write_gathered(&mut self) -> Result<(), UnpackError> {
        let start = self.pack.reserve(self.gathered.len() as u64);
        self.pack.write_at(&self.gathered, start).map_err(|error| self.unstored(error))?;
        for (place, offset, len) in self.waiting.drain(..) {
            self.files[place].kind = FileKind::File(self.pack.content(start + offset as u64, len as u64));
        }
        self.gathered.clear();
        Ok(())
    }

    fn path(&self, bytes: &[u8], member: &[u8]) -> Result<TreePath, UnpackError> {
        TreePath::new(bytes).map_err(|error| self.refuse(member, error.to_string()))
    }

    fn refuse(&self, path: &[u8], problem: impl Into<String>) -> UnpackError {
        UnpackError::File {
            package: self.control.name.clone(),
            path: path.escape_ascii().to_string(),
            problem: problem.into(),
        }
    }

    fn broken(&self, error: std::io::Error) -> UnpackError {
        self.deb.error("data.tar", DebFault::Read(error)).into()
    }

    fn unstored(&self, source: std::io::Error) -> UnpackError {
        UnpackError::Store { package: self.control.name.clone(), source }
    }
}
