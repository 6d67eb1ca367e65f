//! Which blocks everything gets: one walk forward through the filesystem, layer by layer.

use super::catalog::{Catalog, mapped_blocks};
use super::extent::{Extent, MAX_LEN, tree_blocks};
use super::geometry::{Geometry, Run, merge};
use super::inode::MAX_FAST_TARGET;
use crate::format::entry::EntryKind;

/// Blocks of one inode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// What holds its data.
    pub extents: Vec<Extent>,
    /// The nodes of its extent tree, leaves first.
    pub tree: Vec<u64>,
    /// The block of its attributes.
    pub attributes: Option<u64>,
}

impl Place {
    /// All blocks, as `i_blocks` counts them.
    pub fn blocks(&self) -> u64 {
        let data: u64 = self.extents.iter().map(|extent| u64::from(extent.len)).sum();
        data + self.tree.len() as u64 + u64::from(self.attributes.is_some())
    }
}

/// Where everything lies.
#[derive(Clone, Debug)]
pub struct Allocation {
    /// The journal.
    pub journal: Place,
    /// The block in which the resize inode lists the blocks kept for descriptors.
    pub resize_map: u64,
    /// For each node of the catalog.
    pub places: Vec<Place>,
    /// All blocks in use, sorted, apart.
    pub used: Vec<Run>,
}

impl Allocation {
    /// Gives blocks out. Fails with the number of blocks that are missing.
    ///
    /// First come the parts that every filesystem has: the resize inode's map and the journal. Then each layer, lowest
    /// first; within a layer the blocks by which directories of lower layers grow, then every inode in its order:
    /// data, nodes of its extent tree, attributes. As this only goes forward, what is given to a layer depends on
    /// the geometry and on that layer and those below, and on nothing above it.
    pub fn new(catalog: &Catalog<'_>, geometry: &Geometry) -> Result<Self, u64> {
        // Asked first, so that the work below is bounded by the size of the filesystem.
        match geometry.missing(catalog.blocks().saturating_add(1)) {
            0 => {}
            missing => return Err(missing),
        }

        let mut space = Space::new(geometry);
        let resize_map = space.one();
        let mut journal = Place::default();
        space.extend(&mut journal, 0, geometry.journal_blocks);
        space.grow_tree(&mut journal);

        let mut places = vec![Place::default(); catalog.nodes.len()];
        let mut growth = later_stages(catalog).into_iter().peekable();
        let mut node = 0;
        while node < catalog.nodes.len() || growth.peek().is_some() {
            let own = catalog.nodes.get(node).map(|node| node.layer);
            let grown = growth.peek().map(|(layer, ..)| *layer);
            let layer = own.into_iter().chain(grown).min();
            while let Some((_, directory, blocks)) = growth.next_if(|(stage, ..)| Some(*stage) == layer) {
                let place = &mut places[directory];
                let have = place.extents.last().map_or(0, Extent::logical_end);
                space.extend(place, have, u64::from(blocks).saturating_sub(have));
                space.grow_tree(place);
            }
            while let Some(next) = catalog.nodes.get(node).filter(|node| Some(node.layer) == layer) {
                let place = &mut places[node];
                match (next.directory, next.entry) {
                    (Some(directory), _) => {
                        let stages = &catalog.directories[directory as usize].layout.stages;
                        let blocks = stages.first().map_or(0, |(_, blocks)| *blocks);
                        space.extend(place, 0, u64::from(blocks));
                    }
                    (None, Some(entry)) => match &catalog.entries[entry as usize].kind {
                        EntryKind::File(content) => {
                            for (logical, len) in mapped_blocks(content) {
                                space.extend(place, logical, len);
                            }
                        }
                        EntryKind::Symlink(target) if target.len() > MAX_FAST_TARGET => {
                            space.extend(place, 0, 1);
                        }
                        _ => {}
                    },
                    (None, None) => {}
                }
                space.grow_tree(place);
                if next.attribute_block {
                    place.attributes = Some(space.one());
                }
                node += 1;
            }
        }
        match space.missing {
            0 => Ok(Self { journal, resize_map, places, used: space.used() }),
            missing => Err(missing),
        }
    }
}

/// Layer, node and number of blocks for each time a directory outgrows what it has.
fn later_stages(catalog: &Catalog<'_>) -> Vec<(u16, usize, u32)> {
    let mut stages = Vec::new();
    for directory in &catalog.directories {
        let later = directory.layout.stages.iter().skip(1);
        stages.extend(later.map(|(layer, blocks)| (*layer, directory.node as usize, *blocks)));
    }
    stages.sort_unstable();
    stages
}

/// The free blocks, given out from the first to the last.
struct Space<'g> {
    metadata: &'g [Run],
    passed: usize,
    cursor: u64,
    end: u64,
    missing: u64,
}

impl<'g> Space<'g> {
    fn new(geometry: &'g Geometry) -> Self {
        Self { metadata: &geometry.metadata, passed: 0, cursor: 0, end: geometry.blocks, missing: 0 }
    }

    /// At most `want` blocks in a row; `None` at the end, and then all of them are counted as missing.
    fn take(&mut self, want: u64) -> Option<Run> {
        while let Some(run) = self.metadata.get(self.passed).filter(|run| run.start <= self.cursor) {
            self.cursor = self.cursor.max(run.end());
            self.passed += 1;
        }
        let limit = self.metadata.get(self.passed).map_or(self.end, |run| run.start);
        let len = want.min(limit.saturating_sub(self.cursor));
        if len == 0 {
            self.missing = self.missing.saturating_add(want);
            return None;
        }
        let run = Run { start: self.cursor, len };
        self.cursor += len;
        Some(run)
    }

    fn one(&mut self) -> u64 {
        self.take(1).map_or(0, |run| run.start)
    }

    /// Gives a file `len` more blocks from its block `logical` on.
    fn extend(&mut self, place: &mut Place, mut logical: u64, mut len: u64) {
        while len > 0 {
            let Some(mut run) = self.take(len) else { return };
            len -= run.len;
            while run.len > 0 {
                let mut piece = run.len.min(u64::from(MAX_LEN));
                match place.extents.last_mut() {
                    Some(last)
                        if last.logical_end() == logical
                            && last.physical_end() == run.start
                            && last.len < MAX_LEN =>
                    {
                        piece = piece.min(u64::from(MAX_LEN - last.len));
                        last.len += piece as u32;
                    }
                    // The catalog lets no file have more than 2³² blocks.
                    _ => place.extents.push(Extent {
                        logical: logical as u32,
                        physical: run.start,
                        len: piece as u32,
                    }),
                }
                logical += piece;
                run = Run { start: run.start + piece, len: run.len - piece };
            }
        }
    }

    fn grow_tree(&mut self, place: &mut Place) {
        while place.tree.len() < tree_blocks(place.extents.len()) {
            let node = self.one();
            place.tree.push(node);
        }
    }

    /// Everything behind the cursor, and the metadata ahead of it.
    fn used(&self) -> Vec<Run> {
        let behind = Run { start: 0, len: self.cursor };
        let ahead = self.metadata.iter().filter(|run| run.end() > self.cursor).copied();
        merge(std::iter::once(behind).chain(ahead))
    }
}
