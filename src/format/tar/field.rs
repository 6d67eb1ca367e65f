//! The 512-byte header block: its fields, and the two ways numbers are written in them.

use super::TarError;
use crate::format::entry::Device;

/// Size of a header, and what file data is padded to.
pub(super) const BLOCK: usize = 512;

/// A header whose checksum is right.
pub(super) struct Header<'a> {
    block: &'a [u8; BLOCK],
    at: u64,
}

impl<'a> Header<'a> {
    pub(super) fn new(block: &'a [u8; BLOCK], at: u64) -> Result<Self, TarError> {
        let header = Self { block, at };
        let expected = header.number(148, 8, "the checksum")?;
        // The sum is taken with the checksum field itself read as blanks.
        let outside = block[..148].iter().chain(&block[156..]);
        let found = outside.map(|byte| u64::from(*byte)).sum::<u64>() + 8 * u64::from(b' ');
        if expected != found {
            return Err(TarError::Checksum { at, expected, found });
        }
        Ok(header)
    }

    pub(super) fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn kind(&self) -> u8 {
        self.block[156]
    }

    /// The name, with the prefix that ustar (and only ustar) may put before it.
    pub(super) fn path(&self) -> Vec<u8> {
        let prefix = self.text(345, 155);
        if self.block[257..263] != *b"ustar\0" || prefix.is_empty() {
            return self.text(0, 100).to_vec();
        }
        [prefix, self.text(0, 100)].join(&b'/')
    }

    pub(super) fn link(&self) -> Vec<u8> {
        self.text(157, 100).to_vec()
    }

    pub(super) fn user(&self) -> Vec<u8> {
        self.name(265)
    }

    pub(super) fn group(&self) -> Vec<u8> {
        self.name(297)
    }

    pub(super) fn mode(&self) -> Result<u16, TarError> {
        // Old writers put the file type above the twelve bits of permissions.
        Ok((self.number(100, 8, "the mode")? & 0o7777) as u16)
    }

    pub(super) fn uid(&self) -> Result<u32, TarError> {
        self.id(108, "the user id")
    }

    pub(super) fn gid(&self) -> Result<u32, TarError> {
        self.id(116, "the group id")
    }

    pub(super) fn size(&self) -> Result<u64, TarError> {
        self.number(124, 12, "the size")
    }

    pub(super) fn mtime(&self) -> Result<i64, TarError> {
        let field = &self.block[136..148];
        signed(field).ok_or_else(|| self.bad(field, "the modification time"))
    }

    pub(super) fn device(&self) -> Result<Device, TarError> {
        Ok(Device {
            major: self.id(329, "the major device number")?,
            minor: self.id(337, "the minor device number")?,
        })
    }

    fn name(&self, from: usize) -> Vec<u8> {
        // Archives from before POSIX have no such fields.
        if &self.block[257..262] == b"ustar" { self.text(from, 32).to_vec() } else { Vec::new() }
    }

    fn text(&self, from: usize, len: usize) -> &[u8] {
        let field = &self.block[from..from + len];
        &field[..field.iter().position(|byte| *byte == 0).unwrap_or(len)]
    }

    fn id(&self, from: usize, field: &'static str) -> Result<u32, TarError> {
        let value = self.number(from, 8, field)?;
        u32::try_from(value).map_err(|_| self.bad(&self.block[from..from + 8], field))
    }

    fn number(&self, from: usize, len: usize, field: &'static str) -> Result<u64, TarError> {
        let bytes = &self.block[from..from + len];
        let value = signed(bytes).and_then(|value| u64::try_from(value).ok());
        value.ok_or_else(|| self.bad(bytes, field))
    }

    fn bad(&self, bytes: &[u8], field: &'static str) -> TarError {
        TarError::Field { at: self.at, field, found: bytes.escape_ascii().to_string() }
    }
}

/// A number in octal digits, with blanks before and blanks or NULs after; or, when the first bit is set, in base 256,
/// big-endian, two's complement. `None` when it is neither or does not fit.
fn signed(field: &[u8]) -> Option<i64> {
    match field.first()? {
        0x80 | 0xff => {
            let first = if field[0] == 0x80 { 0 } else { -1 };
            field[1..]
                .iter()
                .try_fold(first, |value: i64, byte| value.checked_mul(256)?.checked_add(i64::from(*byte)))
        }
        _ => {
            let field = field.trim_ascii_start();
            let end = field.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(field.len());
            let (digits, rest) = field.split_at(end);
            if !rest.iter().all(|byte| matches!(byte, 0 | b' ')) {
                return None;
            }
            // An empty field is zero: many writers leave device numbers so.
            digits.iter().try_fold(0, |value: i64, byte| match byte {
                b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(byte - b'0')),
                _ => None,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::signed;

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"77777777", Some(0o77_777_777)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"0000648\0", None),
            (b"644\0x\0\0\0", None),
            (b"-0000001", None),
            (b"\x80\0\0\0\0\0\x01\x02", Some(0x102)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x02\0\0\0\0\0\0\0", Some(2 << 56)),
            (b"\x80\0\0\x01\0\0\0\0\0\0\0\0", None),
            (b"\x81\0\0\0\0\0\0\0", None),
        ] {
            assert_eq!(signed(field), value, "{}", field.escape_ascii());
        }
    }
}
