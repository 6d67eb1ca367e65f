//! Reads tar archives as a stream of members: ustar, the GNU form that Debian packages are in, and PAX (POSIX.1-2008).
//!
//! Every number is checked, every name bounded, and nothing is skipped in silence: what this reader does not know
//! (sparse files, volumes) is an error. Names come as they were written; whoever puts them into a tree makes sure
//! that they stay in it ([`TreePath`](crate::tree::TreePath) does).

mod field;
mod pax;

use crate::format::entry::Device;
use crate::meta::{Meta, Timestamp, Xattrs};
use field::{BLOCK, Header};
use std::io::{self, Read};

/// The longest GNU long name or PAX header accepted, in bytes. Extended attributes go up to 64 KiB each.
const MAX_EXTENSION: u64 = 1 << 20;

/// One member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The name as written, without slashes at its end. Not checked for `..` or a leading slash.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: MemberKind,
    /// Permissions, numeric owner, time, extended attributes (`SCHILY.xattr.*`).
    pub meta: Meta,
    /// Length of its data in bytes; not zero for files only.
    pub size: u64,
    /// Owner's name, may be empty.
    pub user: Vec<u8>,
    /// Group's name, may be empty.
    pub group: Vec<u8>,
    /// Offset of its header in the archive, for messages.
    pub at: u64,
}

/// What a [`Member`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// A regular file, whose data comes next.
    File,
    /// Another name of an earlier member.
    HardLink(Vec<u8>),
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// Why an archive could not be read. Offsets are in the uncompressed archive.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// What is below could not be read or unpacked.
    #[error("cannot read the tar archive at byte {at}")]
    Read {
        /// Where.
        at: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The stream ends too early.
    #[error("the tar archive ends at byte {at}, in the middle of {what}")]
    Truncated {
        /// Where.
        at: u64,
        /// What was being read.
        what: &'static str,
    },
    /// A header whose checksum is wrong.
    #[error("the tar header at byte {at} has the checksum {expected}, but its bytes sum up to {found}")]
    Checksum {
        /// Where.
        at: u64,
        /// What it says.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// A field that does not hold what it should.
    #[error("the tar header at byte {at} has `{found}` where {field} should be")]
    Field {
        /// Where the header is.
        at: u64,
        /// Which field.
        field: &'static str,
        /// What is there.
        found: String,
    },
    /// A kind of member that packages do not hold.
    #[error("the tar member `{path}` at byte {at} is of the unsupported type `{kind}`")]
    Kind {
        /// Where.
        at: u64,
        /// Its name.
        path: String,
        /// The type byte.
        kind: String,
    },
    /// A name or PAX header that is too long, comes twice or stands alone.
    #[error("the tar header at byte {at}: {problem}")]
    Extension {
        /// Where.
        at: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// Something other than zeros after the end of the archive.
    #[error("the tar archive has data after its end marker, at byte {at}")]
    Trailing {
        /// Where.
        at: u64,
    },
}

/// An archive being read. As a [`Read`]er it gives the data of the current member.
pub struct Archive<R> {
    reader: R,
    /// Bytes taken from the reader.
    at: u64,
    /// Data of the current member still to come, and the padding after it.
    left: u64,
    padding: u64,
    global: pax::Records,
    ended: bool,
}

/// What earlier headers say about the member to come.
#[derive(Default)]
struct Announced {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Option<pax::Records>,
}

impl<R: Read> Archive<R> {
    /// Reads from the start of an uncompressed archive.
    pub fn new(reader: R) -> Self {
        Self { reader, at: 0, left: 0, padding: 0, global: pax::Records::default(), ended: false }
    }

    /// The next member, after skipping what is left of this one's data; `None` after the last, once everything up to
    /// the end of the stream was read (which is what makes a decoder check its sum) and was zeros.
    ///
    /// After an error the archive must not be read on.
    pub fn next_member(&mut self) -> Result<Option<Member>, TarError> {
        let mut announced = Announced::default();
        loop {
            if self.ended {
                return Ok(None);
            }
            self.skip(self.left, "a file")?;
            self.skip(self.padding, "the padding after a file")?;
            (self.left, self.padding) = (0, 0);
            let at = self.at;
            let mut block = [0; BLOCK];
            self.fill(&mut block, "a header")?;
            if block == [0; BLOCK] {
                if announced.name.is_some() || announced.link.is_some() || announced.pax.is_some() {
                    return Err(TarError::Extension {
                        at,
                        problem: "a long name or PAX header that no member follows",
                    });
                }
                self.finish()?;
                return Ok(None);
            }
            let header = Header::new(&block, at)?;
            match header.kind() {
                b'L' => announce(&mut announced.name, self.long_name(&header)?, at)?,
                b'K' => announce(&mut announced.link, self.long_name(&header)?, at)?,
                b'x' => announce(&mut announced.pax, self.pax(&header)?, at)?,
                b'g' => {
                    let records = self.pax(&header)?;
                    if !self.global.absorb(records) {
                        return Err(TarError::Extension {
                            at,
                            problem: "global PAX headers with too many records",
                        });
                    }
                }
                _ => return self.member(&header, announced).map(Some),
            }
        }
    }

    fn member(&mut self, header: &Header<'_>, announced: Announced) -> Result<Member, TarError> {
        let at = header.at();
        let local = announced.pax.unwrap_or_default();
        let pax = pax::Pair { local: &local, global: &self.global, at };
        let mut path = announced.name.or_else(|| pax.bytes(b"path")).unwrap_or_else(|| header.path());
        let link = announced.link.or_else(|| pax.bytes(b"linkpath")).unwrap_or_else(|| header.link());
        let as_directory = path.ends_with(b"/");
        while path.ends_with(b"/") {
            path.pop();
        }
        if path.is_empty() && !as_directory {
            return Err(TarError::Field { at, field: "a name", found: String::new() });
        }
        if pax.any(b"GNU.sparse.") {
            return Err(unsupported(at, &path, b'S'));
        }
        let kind = match header.kind() {
            // Archives older than POSIX mark a directory with a slash only; dpkg reads it so too.
            0 | b'0' | b'7' if as_directory => MemberKind::Directory,
            0 | b'0' | b'7' => MemberKind::File,
            b'1' => MemberKind::HardLink(link),
            b'2' => MemberKind::Symlink(link),
            b'3' => MemberKind::CharDevice(header.device()?),
            b'4' => MemberKind::BlockDevice(header.device()?),
            b'5' => MemberKind::Directory,
            b'6' => MemberKind::Fifo,
            other => return Err(unsupported(at, &path, other)),
        };
        let size = pax.number(b"size")?.map_or_else(|| header.size(), Ok)?;
        if size != 0 && kind != MemberKind::File {
            // Some writers put data after hard links, some put a size without data: readers cannot tell.
            return Err(TarError::Field {
                at,
                field: "the size 0 (this is no file)",
                found: size.to_string(),
            });
        }
        let mtime = match pax.time(b"mtime")? {
            Some(time) => time,
            None => Timestamp::seconds(header.mtime()?),
        };
        let id = |key: &[u8], plain: Result<u32, TarError>| match pax.number(key)? {
            Some(id) => u32::try_from(id).map_err(|_| TarError::Field {
                at,
                field: "a PAX user or group id",
                found: id.to_string(),
            }),
            None => plain,
        };
        let meta = Meta {
            mode: header.mode()?,
            uid: id(b"uid", header.uid())?,
            gid: id(b"gid", header.gid())?,
            mtime,
            xattrs: pax.xattrs(),
        };
        let user = pax.bytes(b"uname").unwrap_or_else(|| header.user());
        let group = pax.bytes(b"gname").unwrap_or_else(|| header.group());
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        Ok(Member { path, kind, meta, size, user, group, at })
    }

    fn long_name(&mut self, header: &Header<'_>) -> Result<Vec<u8>, TarError> {
        let mut name = self.extension(header)?;
        // The name ends at its first NUL; GNU tar writes one.
        name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
        Ok(name)
    }

    fn pax(&mut self, header: &Header<'_>) -> Result<pax::Records, TarError> {
        let bytes = self.extension(header)?;
        pax::Records::parse(&bytes).map_err(|problem| TarError::Extension { at: header.at(), problem })
    }

    fn extension(&mut self, header: &Header<'_>) -> Result<Vec<u8>, TarError> {
        let size = header.size()?;
        if size > MAX_EXTENSION {
            return Err(TarError::Extension {
                at: header.at(),
                problem: "a long name or PAX header of more than 1 MiB",
            });
        }
        let mut bytes = vec![0; size as usize];
        self.fill(&mut bytes, "a long name or PAX header")?;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        Ok(bytes)
    }

    fn fill(&mut self, mut buffer: &mut [u8], what: &'static str) -> Result<(), TarError> {
        while !buffer.is_empty() {
            let n = self.take(buffer)?;
            if n == 0 {
                return Err(TarError::Truncated { at: self.at, what });
            }
            buffer = &mut buffer[n..];
        }
        Ok(())
    }

    fn skip(&mut self, mut n: u64, what: &'static str) -> Result<(), TarError> {
        let mut buffer = [0; 16 << 10];
        while n > 0 {
            let part = n.min(buffer.len() as u64) as usize;
            self.fill(&mut buffer[..part], what)?;
            n -= part as u64;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), TarError> {
        self.ended = true;
        let mut buffer = [0; 16 << 10];
        loop {
            let n = self.take(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            if let Some(place) = buffer[..n].iter().position(|byte| *byte != 0) {
                return Err(TarError::Trailing { at: self.at - n as u64 + place as u64 });
            }
        }
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        loop {
            match self.reader.read(buffer) {
                Ok(n) => {
                    self.at += n as u64;
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(TarError::Read { at: self.at, source }),
            }
        }
    }
}

/// The data of the current member. Ends with it; the archive ending earlier is an `UnexpectedEof`.
impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = (buffer.len() as u64).min(self.left) as usize;
        if n == 0 {
            return Ok(0);
        }
        let n = self.reader.read(&mut buffer[..n])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

fn announce<T>(slot: &mut Option<T>, value: T, at: u64) -> Result<(), TarError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(TarError::Extension { at, problem: "the second header of its type for one member" }),
    }
}

fn unsupported(at: u64, path: &[u8], kind: u8) -> TarError {
    TarError::Kind { at, path: path.escape_ascii().to_string(), kind: kind.escape_ascii().to_string() }
}

/// The prefix of PAX records that hold extended attributes, as GNU tar and bsdtar write them.
const XATTR: &[u8] = b"SCHILY.xattr.";

impl pax::Pair<'_> {
    fn xattrs(&self) -> Xattrs {
        let records = self.global.0.iter().chain(&self.local.0);
        records
            .filter_map(|(key, value)| Some((key.strip_prefix(XATTR)?.to_vec(), value.clone())))
            .filter(|(name, _)| !name.is_empty())
            .collect()
    }
}

#[cfg(test)]
pub(crate) mod tests;
