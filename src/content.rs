//! What a file holds, by reference: pieces of a source, and holes between them.
//!
//! A tree of half a million files must fit in memory and cost nothing to copy, so a file's bytes stay where
//! they are (a pack in the store, a vendor's raw image) until they are written. Formats, the tree and the
//! image writer share this one type.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes that can be read at any offset, from any thread.
pub trait ReadAt: Send + Sync {
    /// Fills `buffer` from `offset` (bytes); running past the end is an `UnexpectedEof` error.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// The file behind these bytes, at the same offsets, when there is one: lets a writer copy in the kernel.
    fn as_file(&self) -> Option<&File> {
        None
    }
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }

    fn as_file(&self) -> Option<&File> {
        Some(self)
    }
}

impl ReadAt for Vec<u8> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.as_slice().read_exact_at(buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|start| Some(start..start.checked_add(buffer.len())?));
        match range.and_then(|range| self.get(range)) {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Arc<T> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buffer, offset)
    }

    fn as_file(&self) -> Option<&File> {
        (**self).as_file()
    }
}

/// A run of a file's bytes: `len` bytes at `at` in the file come from `offset` in `source`.
#[derive(Clone)]
pub struct Piece {
    /// Offset in the file, in bytes.
    pub at: u64,
    /// Length in bytes, never zero.
    pub len: u64,
    /// Where the bytes are.
    pub source: Arc<dyn ReadAt>,
    /// Offset in the source, in bytes.
    pub offset: u64,
}

/// The bytes of a regular file. What no piece covers is a hole and reads as zeros.
#[derive(Clone, Default)]
pub struct Content {
    len: u64,
    pieces: Arc<[Piece]>,
}

impl Content {
    /// A file held in memory.
    pub fn inline(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let len = bytes.len() as u64;
        Self::of(Arc::new(bytes), 0, len)
    }

    /// `len` bytes at `offset` of `source`.
    pub fn of(source: Arc<dyn ReadAt>, offset: u64, len: u64) -> Self {
        if len == 0 {
            return Self::default();
        }
        Self { len, pieces: Arc::new([Piece { at: 0, len, source, offset }]) }
    }

    /// A file of `len` bytes made of `pieces`, with holes between them. `None` unless the pieces are sorted,
    /// apart, not empty and inside the file.
    pub fn sparse(len: u64, pieces: Vec<Piece>) -> Option<Self> {
        let mut end = 0;
        for piece in &pieces {
            if piece.at < end || piece.len == 0 {
                return None;
            }
            end = piece.at.checked_add(piece.len)?;
            piece.offset.checked_add(piece.len)?;
        }
        (end <= len).then(|| Self { len, pieces: pieces.into() })
    }

    /// Length in bytes, holes included.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the file has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces, in order of their place in the file.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Fills `buffer` with the file's bytes from `offset`; `UnexpectedEof` past the end.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.len);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.fill(0);
        let first = self.pieces.partition_point(|piece| piece.at + piece.len <= offset);
        for piece in self.pieces[first..].iter().take_while(|piece| piece.at < end) {
            let from = piece.at.max(offset);
            let to = (piece.at + piece.len).min(end);
            let slot = &mut buffer[(from - offset) as usize..(to - offset) as usize];
            piece.source.read_exact_at(slot, piece.offset + (from - piece.at))?;
        }
        Ok(())
    }

    /// A reader over the whole file.
    pub fn reader(&self) -> Reader<'_> {
        Reader { content: self, at: 0 }
    }

    /// The whole file in memory, or `InvalidData` when it is longer than `limit` bytes.
    pub fn read_to_vec(&self, limit: u64) -> io::Result<Vec<u8>> {
        if self.len > limit {
            let text = format!("file of {} bytes is longer than the {limit} allowed here", self.len);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let mut bytes = vec![0; self.len as usize];
        self.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// Shows the shape, not the bytes: contents may be secret, and are long.
impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Content({} bytes, {} pieces)", self.len, self.pieces.len())
    }
}

/// Reads a [`Content`] from start to end.
pub struct Reader<'a> {
    content: &'a Content,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.content.len - self.at;
        let n = (buffer.len() as u64).min(left) as usize;
        self.content.read_exact_at(&mut buffer[..n], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sparse() -> Content {
        let source: Arc<dyn ReadAt> = Arc::new(b"0123456789".to_vec());
        let piece = |at, len, offset| Piece { at, len, source: source.clone(), offset };
        Content::sparse(12, vec![piece(2, 3, 4), piece(7, 2, 0)]).unwrap()
    }

    #[test]
    fn holes_read_as_zeros() {
        assert_eq!(sparse().read_to_vec(100).unwrap(), b"\0\x00456\0\x0001\0\0\0");
        let mut part = [9; 4];
        sparse().read_exact_at(&mut part, 4).unwrap();
        assert_eq!(&part, b"6\0\x000");
        let mut all = Vec::new();
        sparse().reader().read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 12);
    }

    #[test]
    fn reading_past_the_end_is_an_error() {
        assert!(sparse().read_exact_at(&mut [0; 4], 9).is_err());
        assert!(sparse().read_exact_at(&mut [0; 1], u64::MAX).is_err());
        assert!(sparse().read_to_vec(11).is_err());
    }

    #[test]
    fn pieces_that_overlap_or_run_out_are_refused() {
        let source: Arc<dyn ReadAt> = Arc::new(vec![0; 8]);
        let piece = |at, len| Piece { at, len, source: source.clone(), offset: 0 };
        for pieces in
            [vec![piece(0, 4), piece(3, 1)], vec![piece(0, 9)], vec![piece(4, 0)], vec![piece(u64::MAX, 2)]]
        {
            assert!(Content::sparse(8, pieces).is_none());
        }
    }
}
