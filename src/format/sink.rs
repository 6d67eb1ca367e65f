//! Where a format writer puts its bytes: a stream that only goes forward.

use crate::content::Content;
use std::io;

/// How much of a file is in memory at once while it is copied.
const CHUNK: u64 = 1 << 20;

/// Takes a filesystem's bytes in strictly ascending, non-overlapping offsets (bytes from the start of that
/// filesystem). What is skipped is zero: a writer never sends zeros only to fill a gap, so a gap is a hole.
///
/// Going forward only is what lets one pass write a file, hash it and count its blocks, with no seek back and no
/// second read. A sink may refuse an offset that goes back (`InvalidInput`): that is a fault of the writer.
pub trait Sink {
    /// Puts `bytes` at `offset`.
    fn bytes(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Puts `len` bytes of `content`, from `at` in it, at `offset`. Holes in the content are skipped.
    /// `UnexpectedEof` when `content` ends before `at + len`.
    fn copy(&mut self, offset: u64, content: &Content, at: u64, len: u64) -> io::Result<()> {
        let end = at.checked_add(len).filter(|end| *end <= content.len());
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut buffer = Vec::new();
        let pieces = content.pieces();
        let first = pieces.partition_point(|piece| piece.at + piece.len <= at);
        for piece in pieces[first..].iter().take_while(|piece| piece.at < end) {
            let mut from = piece.at.max(at);
            let stop = (piece.at + piece.len).min(end);
            while from < stop {
                buffer.resize((stop - from).min(CHUNK) as usize, 0);
                piece.source.read_exact_at(&mut buffer, piece.offset + (from - piece.at))?;
                self.bytes(offset + (from - at), &buffer)?;
                from += buffer.len() as u64;
            }
        }
        Ok(())
    }
}

impl<S: Sink + ?Sized> Sink for &mut S {
    fn bytes(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        (**self).bytes(offset, bytes)
    }

    fn copy(&mut self, offset: u64, content: &Content, at: u64, len: u64) -> io::Result<()> {
        (**self).copy(offset, content, at, len)
    }
}

/// An image in memory, for small filesystems and tests: grows as it is written, gaps are zeros.
impl Sink for Vec<u8> {
    fn bytes(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::OutOfMemory)?;
        if start < self.len() {
            let text = format!("offset {offset} written after {}", self.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        self.resize(start, 0);
        self.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Piece, ReadAt};
    use std::sync::Arc;

    #[test]
    fn holes_are_skipped_and_long_pieces_are_cut() {
        struct Calls(Vec<(u64, usize)>);
        impl Sink for Calls {
            fn bytes(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
                self.0.push((offset, bytes.len()));
                Ok(())
            }
        }
        let source: Arc<dyn ReadAt> = Arc::new(vec![7; 3 << 20]);
        let piece = |at, len| Piece { at, len, source: source.clone(), offset: 0 };
        let content = Content::sparse(5 << 20, vec![piece(10, 5), piece(4096, CHUNK + 1)]).unwrap();
        let mut calls = Calls(Vec::new());
        calls.copy(100, &content, 12, 4 << 20).unwrap();
        assert_eq!(calls.0, [(100, 3), (4184, CHUNK as usize), (4184 + CHUNK, 1)]);
        assert!(calls.copy(0, &content, 1, 5 << 20).is_err());
    }

    #[test]
    fn a_writer_that_goes_back_is_caught() {
        let mut image = Vec::new();
        image.bytes(4, b"x").unwrap();
        assert_eq!(image, b"\0\0\0\0x");
        assert!(image.bytes(4, b"y").is_err());
    }
}
