//! The `ar` archive, in the common form that `deb(5)` uses: a magic line, then members with 60-byte text headers, each
//! at an even offset. Only the table of members is read; their bytes stay where they are.

use crate::content::ReadAt;
use std::io;

const MAGIC: &[u8; 8] = b"!<arch>\n";
const HEADER: u64 = 60;

/// Members read at most. A Debian package has three; the bound keeps a hostile archive from costing memory.
pub const MAX_MEMBERS: usize = 64;

/// One member: its name without padding or trailing slash, and where its bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The name, at most 16 bytes.
    pub name: Vec<u8>,
    /// Offset of the first byte in the archive.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// Why something is not a readable `ar` archive.
#[derive(Debug, thiserror::Error)]
pub enum ArError {
    /// The first bytes are something else.
    #[error("not an ar archive: expected it to begin with `!<arch>`, found `{0}`")]
    Magic(String),
    /// The archive ends inside a header or a member.
    #[error("the ar archive is cut short: {what} at byte {at} needs {needed} bytes, {left} are left")]
    Truncated {
        /// What was being read.
        what: String,
        /// Its offset in the archive.
        at: u64,
        /// Bytes it needs.
        needed: u64,
        /// Bytes the archive still has there.
        left: u64,
    },
    /// A header does not end as headers do.
    #[error("the ar archive has no member header at byte {0} (its last two bytes are wrong)")]
    Header(u64),
    /// A size that is not a decimal number.
    #[error("the ar member header at byte {at} has the size `{found}`, which is no decimal number")]
    Size {
        /// Offset of the header.
        at: u64,
        /// The field.
        found: String,
    },
    /// More members than any real archive of this kind.
    #[error("the ar archive has more than {MAX_MEMBERS} members")]
    TooMany,
    /// The source could not be read.
    #[error("cannot read the ar archive at byte {at}")]
    Read {
        /// Where.
        at: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The members of an archive of `len` bytes, in order. Every one of them lies inside the archive.
pub fn members(source: &dyn ReadAt, len: u64) -> Result<Vec<Member>, ArError> {
    let mut magic = vec![0; len.min(MAGIC.len() as u64) as usize];
    read(source, &mut magic, 0)?;
    if magic != MAGIC {
        return Err(ArError::Magic(magic.escape_ascii().to_string()));
    }
    let mut members = Vec::new();
    let mut at = MAGIC.len() as u64;
    while at < len {
        if members.len() == MAX_MEMBERS {
            return Err(ArError::TooMany);
        }
        fits("member header", at, HEADER, len)?;
        let mut header = [0; HEADER as usize];
        read(source, &mut header, at)?;
        if header[58..] != *b"`\n" {
            return Err(ArError::Header(at));
        }
        let field = header[48..58].trim_ascii_end();
        let size =
            size(field).ok_or_else(|| ArError::Size { at, found: field.escape_ascii().to_string() })?;
        let name = header[..16].trim_ascii_end();
        let name = name.strip_suffix(b"/").unwrap_or(name).to_vec();
        let offset = at + HEADER;
        fits(&format!("member `{}`", name.escape_ascii()), offset, size, len)?;
        // Members start at even offsets; the padding byte after the last one may be missing.
        at = offset + size + size % 2;
        members.push(Member { name, offset, len: size });
    }
    Ok(members)
}

fn size(field: &[u8]) -> Option<u64> {
    // Ten digits always fit 64 bits.
    let digits = !field.is_empty() && field.iter().all(u8::is_ascii_digit);
    digits.then(|| field.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0')))
}

fn fits(what: &str, at: u64, needed: u64, len: u64) -> Result<(), ArError> {
    let left = len.saturating_sub(at);
    if needed <= left {
        return Ok(());
    }
    Err(ArError::Truncated { what: what.to_owned(), at, needed, left })
}

fn read(source: &dyn ReadAt, buffer: &mut [u8], at: u64) -> Result<(), ArError> {
    source.read_exact_at(buffer, at).map_err(|source| ArError::Read { at, source })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An archive with these members, as `ar` writes it.
    pub(crate) fn build(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (name, data) in members {
            let header = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100644, data.len());
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(data);
            if data.len() % 2 == 1 {
                bytes.push(b'\n');
            }
        }
        bytes
    }

    fn list(bytes: &[u8]) -> Result<Vec<Member>, ArError> {
        members(&bytes.to_vec(), bytes.len() as u64)
    }

    #[test]
    fn members_are_found_with_and_without_the_slash_of_gnu() {
        let bytes = build(&[("debian-binary", b"2.0\n"), ("odd/", b"abc"), ("last", b"x")]);
        for bytes in [&bytes[..], &bytes[..bytes.len() - 1]] {
            let found = list(bytes).unwrap();
            assert_eq!(found[0], Member { name: b"debian-binary".into(), offset: 68, len: 4 });
            assert_eq!(found[1], Member { name: b"odd".into(), offset: 132, len: 3 });
            assert_eq!(found[2], Member { name: b"last".into(), offset: 196, len: 1 });
        }
    }

    #[test]
    fn what_is_cut_or_not_an_archive_is_refused_with_its_place() {
        let bytes = build(&[("a", b"0123456789")]);
        for cut in 0..bytes.len() {
            match list(&bytes[..cut]) {
                Err(ArError::Magic(_)) => assert!(cut < 8),
                Err(ArError::Truncated { at, .. }) => assert!(at == 8 && cut < 68 || at == 68 && cut >= 68),
                // The magic line alone is an archive without members.
                Ok(members) => assert!(cut == 8 && members.is_empty()),
                other => panic!("{cut}: {other:?}"),
            }
        }
        let mut broken = bytes.clone();
        broken[66] = b'?';
        assert!(matches!(list(&broken), Err(ArError::Header(8))));
        for size in [&b"-1        "[..], b"          ", b"1 2       ", b"0x10      "] {
            let mut broken = bytes.clone();
            broken[56..66].copy_from_slice(size);
            assert!(matches!(list(&broken), Err(ArError::Size { at: 8, .. })));
        }
        let many: Vec<(&str, &[u8])> = vec![("x", b""); MAX_MEMBERS + 1];
        assert!(matches!(list(&build(&many)), Err(ArError::TooMany)));
    }
}
