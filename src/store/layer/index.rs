//! The index of a layer: a list of entries as bytes.
//!
//! Numbers are LEB128 (seven bits a byte, lowest first). An entry is: its kind; the place of its directory in the list and
//! its name (not for the root); for a hard link the place of the entry it names, for all others layer, mode, owner,
//! time and attributes, then what the kind has. Where a file's bytes are is not written: they follow each other.

use crate::content::{Content, Piece};
use crate::format::entry::{Device, Entry, EntryKind};
use crate::meta::{Meta, Timestamp, Xattrs};
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

/// The contents of an entry, in order.
pub(super) fn pieces(entry: &Entry) -> &[Piece] {
    match &entry.kind {
        EntryKind::File(content) => content.pieces(),
        _ => &[],
    }
}

pub(super) fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() * 40);
    // Directories by path, to find a parent's place.
    let mut places: BTreeMap<&[u8], usize> = BTreeMap::new();
    number(&mut out, entries.len() as u64);
    for (place, entry) in entries.iter().enumerate() {
        out.push(tag(&entry.kind));
        if place > 0 {
            let cut = entry.path.iter().rposition(|byte| *byte == b'/');
            let (parent, name) =
                cut.map_or((&b""[..], &entry.path[..]), |cut| (&entry.path[..cut], &entry.path[cut + 1..]));
            number(&mut out, places.get(parent).copied().unwrap_or_default() as u64);
            text(&mut out, name);
        }
        if let EntryKind::HardLink(target) = entry.kind {
            number(&mut out, target as u64);
            continue;
        }
        let meta = &entry.meta;
        for value in [u64::from(entry.layer), u64::from(meta.mode), u64::from(meta.uid), u64::from(meta.gid)]
        {
            number(&mut out, value);
        }
        // Zigzag: small numbers of both signs stay short.
        number(&mut out, (meta.mtime.seconds << 1 ^ meta.mtime.seconds >> 63) as u64);
        number(&mut out, u64::from(meta.mtime.nanoseconds));
        number(&mut out, meta.xattrs.len() as u64);
        for (name, value) in &meta.xattrs {
            text(&mut out, name);
            text(&mut out, value);
        }
        match &entry.kind {
            EntryKind::Directory => {
                places.insert(&entry.path, place);
            }
            EntryKind::File(content) => {
                number(&mut out, content.len());
                number(&mut out, content.pieces().len() as u64);
                for piece in content.pieces() {
                    number(&mut out, piece.at);
                    number(&mut out, piece.len);
                }
            }
            EntryKind::Symlink(target) => text(&mut out, target),
            EntryKind::CharDevice(device) | EntryKind::BlockDevice(device) => {
                number(&mut out, u64::from(device.major));
                number(&mut out, u64::from(device.minor));
            }
            EntryKind::Fifo | EntryKind::Socket | EntryKind::HardLink(_) => {}
        }
    }
    out
}

/// Reads an index whose contents are the first `length` bytes of `file`.
pub(super) fn decode(bytes: &[u8], file: &Arc<File>, length: u64) -> Result<Vec<Entry>, &'static str> {
    let mut input = Input { bytes, at: 0, end: 0, file };
    let count = input.number()?;
    // The shortest entry takes four bytes.
    if count > bytes.len() as u64 / 4 + 1 {
        return Err("its index claims more files than it has room for");
    }
    let mut entries: Vec<Entry> = Vec::with_capacity(count as usize);
    for place in 0..count {
        let kind = input.byte()?;
        let path = if place == 0 { Vec::new() } else { input.path(&entries)? };
        let entry = input.entry(kind, path)?;
        entries.push(entry);
    }
    if input.at != bytes.len() || input.end != length {
        return Err("its index does not end where it should");
    }
    Ok(entries)
}

fn tag(kind: &EntryKind) -> u8 {
    match kind {
        EntryKind::Directory => b'd',
        EntryKind::File(_) => b'f',
        EntryKind::Symlink(_) => b'l',
        EntryKind::CharDevice(_) => b'c',
        EntryKind::BlockDevice(_) => b'b',
        EntryKind::Fifo => b'p',
        EntryKind::Socket => b's',
        EntryKind::HardLink(_) => b'h',
    }
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

const SHORT: &str = "its index ends too early";

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the contents read so far end.
    end: u64,
    file: &'a Arc<File>,
}

impl Input<'_> {
    fn byte(&mut self) -> Result<u8, &'static str> {
        let byte = *self.bytes.get(self.at).ok_or(SHORT)?;
        self.at += 1;
        Ok(byte)
    }

    fn number(&mut self) -> Result<u64, &'static str> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("its index has a number that is too big")
    }

    fn small<T: TryFrom<u64>>(&mut self) -> Result<T, &'static str> {
        T::try_from(self.number()?).map_err(|_| "its index has a number that is too big")
    }

    fn text(&mut self) -> Result<Vec<u8>, &'static str> {
        let len: usize = self.small()?;
        let end = self.at.checked_add(len).ok_or(SHORT)?;
        let bytes = self.bytes.get(self.at..end).ok_or(SHORT)?;
        self.at = end;
        Ok(bytes.to_vec())
    }

    fn path(&mut self, entries: &[Entry]) -> Result<Vec<u8>, &'static str> {
        let parent: usize = self.small()?;
        let parent = entries.get(parent).ok_or("its index has a file before its directory")?;
        let name = self.text()?;
        if matches!(name.as_slice(), b"" | b"." | b"..") || name.contains(&b'/') {
            return Err("its index has a name that is none");
        }
        let mut path = Vec::with_capacity(parent.path.len() + 1 + name.len());
        path.extend_from_slice(&parent.path);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend(name);
        if path.len() > 4095 {
            return Err("its index has a path that is too long");
        }
        Ok(path)
    }

    fn entry(&mut self, kind: u8, path: Vec<u8>) -> Result<Entry, &'static str> {
        if kind == b'h' {
            let kind = EntryKind::HardLink(self.small()?);
            return Ok(Entry { path, meta: Meta::default(), kind, layer: 0 });
        }
        let layer = self.small()?;
        let mode: u16 = self.small()?;
        if mode > 0o7777 {
            return Err("its index has permissions that are none");
        }
        let (uid, gid) = (self.small()?, self.small()?);
        let seconds = self.number()?;
        let seconds = (seconds >> 1) as i64 ^ -((seconds & 1) as i64);
        let nanoseconds = self.small()?;
        if nanoseconds >= 1_000_000_000 {
            return Err("its index has a time that is none");
        }
        let mut xattrs = Xattrs::new();
        for _ in 0..self.number()? {
            let (name, value) = (self.text()?, self.text()?);
            xattrs.insert(name, value);
        }
        let meta = Meta { mode, uid, gid, mtime: Timestamp { seconds, nanoseconds }, xattrs };
        let kind = match kind {
            b'd' => EntryKind::Directory,
            b'f' => EntryKind::File(self.content()?),
            b'l' => EntryKind::Symlink(self.text()?),
            b'c' => EntryKind::CharDevice(self.device()?),
            b'b' => EntryKind::BlockDevice(self.device()?),
            b'p' => EntryKind::Fifo,
            b's' => EntryKind::Socket,
            _ => return Err("its index has a kind of file that is none"),
        };
        Ok(Entry { path, meta, kind, layer })
    }

    fn device(&mut self) -> Result<Device, &'static str> {
        Ok(Device { major: self.small()?, minor: self.small()? })
    }

    fn content(&mut self) -> Result<Content, &'static str> {
        const WRONG: &str = "its index has contents outside the file";
        let len = self.number()?;
        let count = self.number()?;
        let mut pieces = Vec::new();
        for _ in 0..count {
            let (at, len) = (self.number()?, self.number()?);
            pieces.push(Piece { at, len, source: self.file.clone(), offset: self.end });
            self.end = self.end.checked_add(len).ok_or(WRONG)?;
        }
        Content::sparse(len, pieces).ok_or(WRONG)
    }
}
