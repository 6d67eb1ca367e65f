//! Where a file's bytes are: extent trees, the older block maps, and data kept in the inode.

use super::inode::Inode;
use super::superblock::raw_crc;
use super::{Filesystem, ReadError, corrupt, le16, le32, xattr};
use crate::content::{Content, Piece};

const EXTENT_MAGIC: u16 = 0xf30a;

/// Blocks `logical..logical + len` of a file are at `physical` of the filesystem.
pub(super) struct Run {
    pub(super) logical: u64,
    pub(super) len: u64,
    pub(super) physical: u64,
}

/// The contents of a regular file, pointing into the image.
pub(super) fn content(filesystem: &Filesystem, inode: &Inode) -> Result<Content, ReadError> {
    if inode.has_inline_data() {
        return Ok(Content::inline(inline(filesystem, inode)?));
    }
    let (size, block_size) = (inode.size(), filesystem.superblock.block_size);
    if size > i64::MAX as u64 {
        return Err(corrupt(inode.place(), format!("a file of {size} bytes")));
    }
    let mut pieces: Vec<Piece> = Vec::new();
    for run in runs(filesystem, inode)? {
        // Checked against the filesystem's 48-bit block count, so neither product wraps.
        let (at, offset) = (run.logical * block_size, filesystem.start + run.physical * block_size);
        if at >= size {
            // Blocks allocated past the end (fallocate with KEEP_SIZE) are not part of the file.
            break;
        }
        let len = (run.len * block_size).min(size - at);
        match pieces.last_mut() {
            Some(last) if last.at + last.len == at && last.offset + last.len == offset => last.len += len,
            _ => pieces.push(Piece { at, len, source: filesystem.source.clone(), offset }),
        }
    }
    Content::sparse(size, pieces).ok_or_else(|| corrupt(inode.place(), "its blocks overlap"))
}

/// A symbolic link's target.
pub(super) fn symlink(filesystem: &Filesystem, inode: &Inode) -> Result<Vec<u8>, ReadError> {
    let size = inode.size();
    if size == 0 || size > 4095 {
        return Err(corrupt(inode.place(), format!("a symbolic link of {size} bytes")));
    }
    let target = if inode.has_inline_data() {
        inline(filesystem, inode)?
    } else if size < 60 && !inode.has_extents() {
        inode.block()[..size as usize].to_vec()
    } else {
        let content = content(filesystem, inode)?;
        content.read_to_vec(4095).map_err(|source| ReadError::Io { offset: 0, len: size as usize, source })?
    };
    if target.contains(&0) {
        return Err(corrupt(inode.place(), "a symbolic link with a NUL byte"));
    }
    Ok(target)
}

/// Data kept in the inode: 60 bytes where the map would be, the rest in the attribute `system.data`.
pub(super) fn inline(filesystem: &Filesystem, inode: &Inode) -> Result<Vec<u8>, ReadError> {
    if !filesystem.superblock.inline_data() {
        return Err(corrupt(inode.place(), "inline data without the feature"));
    }
    let mut data = inode.block().to_vec();
    let rest = xattr::all(filesystem, inode)?.remove(xattr::INLINE_DATA);
    data.extend(rest.unwrap_or_default());
    let size = usize::try_from(inode.size()).ok().filter(|size| *size <= data.len());
    let size = size.ok_or_else(|| {
        corrupt(inode.place(), format!("{} bytes of inline data, {} are there", inode.size(), data.len()))
    })?;
    data.truncate(size);
    Ok(data)
}

/// Every run of a file, by place in the file, holes and unwritten extents left out.
pub(super) fn runs(filesystem: &Filesystem, inode: &Inode) -> Result<Vec<Run>, ReadError> {
    let mut runs = Vec::new();
    if inode.has_extents() {
        let mut walk = Extents { filesystem, inode, next: 0, runs: &mut runs };
        walk.node(inode.block(), None)?;
    } else {
        let mut walk = BlockMap {
            filesystem,
            inode,
            end: inode.size().div_ceil(filesystem.superblock.block_size),
            at: 0,
        };
        walk.all(&mut runs)?;
    }
    Ok(runs)
}

struct Extents<'a> {
    filesystem: &'a Filesystem,
    inode: &'a Inode,
    /// First logical block not covered yet. Only going forward is what ends the walk on a tree that bites its tail.
    next: u64,
    runs: &'a mut Vec<Run>,
}

impl Extents<'_> {
    fn node(&mut self, node: &[u8], depth: Option<u16>) -> Result<(), ReadError> {
        let place = || format!("extents of {}", self.inode.place());
        let bad = |problem: String| Err(corrupt(place(), problem));
        let (magic, entries, room, found) = (le16(node, 0), le16(node, 2), le16(node, 4), le16(node, 6));
        if magic != EXTENT_MAGIC {
            return bad(format!("magic number is {magic:#06x}, expected {EXTENT_MAGIC:#06x}"));
        }
        if entries > room || usize::from(room) * 12 + 12 > node.len() {
            return bad(format!("{entries} entries where {room} fit"));
        }
        // Five levels address every block of the largest file (kernel: EXT4_MAX_EXTENT_DEPTH).
        if found > 5 || depth.is_some_and(|depth| depth != found) {
            return bad(format!("depth {found}"));
        }
        if entries == 0 && depth.is_some() {
            return bad("an empty block below the root".into());
        }
        for entry in node[12..].chunks_exact(12).take(usize::from(entries)) {
            let logical = u64::from(le32(entry, 0));
            if logical < self.next {
                return bad(format!("block {logical} comes after block {}", self.next));
            }
            if found == 0 {
                let raw = u64::from(le16(entry, 4));
                let (len, written) = if raw > 32_768 { (raw - 32_768, false) } else { (raw, true) };
                let physical = u64::from(le32(entry, 8)) | u64::from(le16(entry, 6)) << 32;
                if len == 0 || logical + len > 1 << 32 {
                    return bad(format!("an extent of {len} blocks at {logical}"));
                }
                self.filesystem.check_blocks(physical, len, place)?;
                self.next = logical + len;
                if written {
                    self.runs.push(Run { logical, len, physical });
                }
            } else {
                let child = u64::from(le32(entry, 4)) | u64::from(le16(entry, 8)) << 32;
                let block = self.filesystem.block(child, place)?;
                self.check(&block, child)?;
                self.next = logical;
                self.node(&block, Some(found - 1))?;
            }
        }
        Ok(())
    }

    fn check(&self, block: &[u8], number: u64) -> Result<(), ReadError> {
        if !self.filesystem.superblock.checksums() {
            return Ok(());
        }
        let end = 12 + usize::from(le16(block, 4)) * 12;
        let Some(covered) = block.get(..end).filter(|_| end + 4 <= block.len()) else {
            return Err(corrupt(
                self.inode.place(),
                format!("extent block {number} has no room for its checksum"),
            ));
        };
        let (stored, computed) =
            (le32(block, end), raw_crc(self.inode.checksum_seed(self.filesystem), covered));
        if stored != computed {
            let problem =
                format!("checksum of extent block {number} is {stored:#010x}, computed {computed:#010x}");
            return Err(corrupt(self.inode.place(), problem));
        }
        Ok(())
    }
}

/// The map of ext2 and ext3: twelve blocks, then one, two and three levels of blocks of numbers.
struct BlockMap<'a> {
    filesystem: &'a Filesystem,
    inode: &'a Inode,
    end: u64,
    at: u64,
}

impl BlockMap<'_> {
    fn all(&mut self, runs: &mut Vec<Run>) -> Result<(), ReadError> {
        let block = self.inode.block().to_vec();
        for index in 0..15 {
            self.numbered(le32(&block, index * 4), index.saturating_sub(11) as u32, runs)?;
        }
        if self.at < self.end {
            return Err(corrupt(
                self.inode.place(),
                format!("{} blocks are more than a block map holds", self.end),
            ));
        }
        Ok(())
    }

    fn numbered(&mut self, number: u32, level: u32, runs: &mut Vec<Run>) -> Result<(), ReadError> {
        if self.at >= self.end {
            return Ok(());
        }
        let place = || format!("block map of {}", self.inode.place());
        let per_block = self.filesystem.superblock.block_size / 4;
        if number == 0 {
            self.at = self.at.saturating_add(per_block.saturating_pow(level));
            return Ok(());
        }
        if level > 0 {
            let block = self.filesystem.block(u64::from(number), place)?;
            for entry in block.chunks_exact(4) {
                self.numbered(le32(entry, 0), level - 1, runs)?;
            }
            return Ok(());
        }
        let physical = u64::from(number);
        self.filesystem.check_blocks(physical, 1, place)?;
        match runs.last_mut() {
            Some(last) if last.logical + last.len == self.at && last.physical + last.len == physical => {
                last.len += 1
            }
            _ => {
                if runs.len() >= super::MAX_PIECES {
                    return Err(ReadError::Unsupported(format!(
                        "a file in more than {} pieces",
                        super::MAX_PIECES
                    )));
                }
                runs.push(Run { logical: self.at, len: 1, physical });
            }
        }
        self.at += 1;
        Ok(())
    }
}
