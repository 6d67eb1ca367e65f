//! A binary package file (deb(5)): an `ar` archive of `debian-binary`, `control.tar` and `data.tar`.
//!
//! The control archive is small and read whole; the data archive is a stream. A package may be hostile even when its
//! digest is right (a third party's archive), so everything is bounded and checked.

mod control_archive;

use crate::content::{Content, ReadAt, Reader};
use crate::debian::control::ControlError;
use crate::format::codec::{Codec, Decoder};
use crate::format::{ar, tar};
use std::io;
use std::sync::Arc;

pub use control_archive::{Conffile, Control, ControlFile, Interest, Trigger};

/// What a control archive may unpack to, in bytes. The largest in Debian (md5sums of a hundred thousand files) takes
/// about a tenth of it.
const MAX_CONTROL: u64 = 64 << 20;

/// Members a data archive may have. The largest package of Debian has about 120,000.
pub const MAX_DATA_MEMBERS: usize = 1_000_000;

/// The stream of a package's files.
pub type Data<'a> = tar::Archive<Decoder<Reader<'a>>>;

/// An opened package file.
pub struct Deb {
    label: String,
    control: Part,
    data: Part,
}

struct Part {
    codec: Codec,
    content: Content,
}

/// A package file that cannot be read: which, and which part of it. The source says why.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {part} of the package file `{package}`")]
pub struct DebError {
    /// The name given to [`Deb::open`].
    pub package: String,
    /// The part.
    pub part: &'static str,
    /// What is wrong with it.
    #[source]
    pub fault: DebFault,
}

/// What is wrong with a package file.
#[derive(Debug, thiserror::Error)]
pub enum DebFault {
    /// The outer archive.
    #[error(transparent)]
    Ar(#[from] ar::ArError),
    /// One of the inner archives.
    #[error(transparent)]
    Tar(#[from] tar::TarError),
    /// Reading failed before the inner archive began.
    #[error("reading failed")]
    Read(#[source] io::Error),
    /// The control stanza.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A member that is missing or at the wrong place.
    #[error("expected the member `{expected}`, found {found}")]
    Member {
        /// Name, or its beginning.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A format version of another generation.
    #[error("expected format version 2.x, found `{0}`")]
    Version(String),
    /// A compression that Debian does not use (any more).
    #[error("the member `{0}` is compressed in a way that is not supported; known are gz, xz, zst and none")]
    Compression(String),
    /// A file of the control archive that dpkg would refuse or misread.
    #[error("control file `{name}`: {problem}")]
    ControlFile {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// More files than any package has.
    #[error("more than {MAX_DATA_MEMBERS} files")]
    TooMany,
}

impl Deb {
    /// Opens a package file of `len` bytes. `label` names it in messages (its file name, say).
    pub fn open(label: impl Into<String>, source: Arc<dyn ReadAt>, len: u64) -> Result<Self, DebError> {
        let label = label.into();
        match open(&source, len) {
            Ok((control, data)) => Ok(Self { label, control, data }),
            Err(fault) => Err(DebError { package: label, part: "the outer archive", fault }),
        }
    }

    /// The name given to [`Deb::open`].
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Reads the control archive.
    pub fn control(&self) -> Result<Control, DebError> {
        let read = || {
            let reader = self.control.content.reader();
            let decoder = Decoder::new(self.control.codec, reader, MAX_CONTROL).map_err(DebFault::Read)?;
            Control::read(tar::Archive::new(decoder))
        };
        read().map_err(|fault| self.error("control.tar", fault))
    }

    /// The files, as a stream that gives at most `limit` bytes (of tar archive).
    pub fn data(&self, limit: u64) -> Result<Data<'_>, DebError> {
        let decoder = Decoder::new(self.data.codec, self.data.content.reader(), limit);
        Ok(tar::Archive::new(decoder.map_err(|error| self.error("data.tar", DebFault::Read(error)))?))
    }

    /// An error of this package's `part`.
    pub fn error(&self, part: &'static str, fault: impl Into<DebFault>) -> DebError {
        DebError { package: self.label.clone(), part, fault: fault.into() }
    }
}

fn open(source: &Arc<dyn ReadAt>, len: u64) -> Result<(Part, Part), DebFault> {
    let members = ar::members(source, len)?;
    let mut members = members.iter();
    let first = members.next().filter(|member| member.name == b"debian-binary");
    let first = first.ok_or_else(|| missing("debian-binary", None))?;
    let mut version = vec![0; first.len.min(64) as usize];
    source.read_exact_at(&mut version, first.offset).map_err(DebFault::Read)?;
    if !version.starts_with(b"2.") || !version.contains(&b'\n') {
        return Err(DebFault::Version(version.escape_ascii().to_string()));
    }
    let mut part = |expected: &'static str| {
        // Members whose name begins with an underscore are for others (deb(5)); what follows data.tar is, too.
        let member = members.find(|member| !member.name.starts_with(b"_"));
        let extension = member.and_then(|member| member.name.strip_prefix(expected.as_bytes()));
        let (Some(member), Some(extension)) = (member, extension) else {
            return Err(missing(expected, member));
        };
        let extension = match extension {
            b"" => Some(&b""[..]),
            dotted => dotted.strip_prefix(b"."),
        };
        let codec = extension.and_then(Codec::of_extension);
        let codec = codec.ok_or_else(|| DebFault::Compression(member.name.escape_ascii().to_string()))?;
        Ok(Part { codec, content: Content::of(source.clone(), member.offset, member.len) })
    };
    Ok((part("control.tar")?, part("data.tar")?))
}

fn missing(expected: &'static str, found: Option<&ar::Member>) -> DebFault {
    let found = found.map_or("none".to_owned(), |member| format!("`{}`", member.name.escape_ascii()));
    DebFault::Member { expected, found }
}

#[cfg(test)]
pub(crate) mod tests;
