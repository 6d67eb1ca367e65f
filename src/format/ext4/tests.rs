use super::catalog::Catalog;
use super::*;
use crate::content::{Content, ReadAt};
use crate::digest::Sha256;
use crate::format::entry::{Device, EntryKind};
use crate::meta::{Meta, Xattrs};
use std::io;
use std::sync::Arc;

fn parameters(size: Bytes) -> Parameters {
    Parameters {
        size,
        uuid: [7; 16],
        hash_seed: [9; 16],
        label: [0; 16],
        time: Timestamp::seconds(1_700_000_000),
        inodes: InodeCount::Auto,
        reserved_percent: 5,
        journal: Journal::Auto,
    }
}

fn entry(path: impl Into<String>, kind: EntryKind, layer: u16) -> Entry {
    let meta = Meta::root(0o755, Timestamp::seconds(1_600_000_000));
    Entry { path: path.into().into_bytes(), meta, kind, layer }
}

fn directory(path: impl Into<String>) -> Entry {
    entry(path, EntryKind::Directory, 0)
}

/// Bytes that nobody reads: a plan does not look at contents.
struct Unread;

impl ReadAt for Unread {
    fn read_exact_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Err(io::Error::other("read"))
    }
}

fn unread(path: impl Into<String>, len: u64, layer: u16) -> Entry {
    entry(path, EntryKind::File(Content::of(Arc::new(Unread), 0, len)), layer)
}

fn refusal(entries: &[Entry]) -> String {
    match plan(entries, &parameters(Bytes::mib(64))) {
        Ok(_) => panic!("planned"),
        Err(error) => error.to_string(),
    }
}

/// Layer 0: directories of no, some and many names, files among them, a long link, attributes in a block.
fn base() -> Vec<Entry> {
    let mut entries = vec![directory(""), directory("etc"), directory("bin"), directory("many")];
    for number in 0..200 {
        entries.push(unread(format!("bin/program-with-a-name-{number}"), number * 1000, 0));
    }
    for number in 0..2000 {
        entries.push(unread(format!("many/file-with-a-name-{number}"), number % 7 * 3000, 0));
    }
    entries.push(entry("etc/link", EntryKind::Symlink(vec![b'x'; 100]), 0));
    let mut marked = unread("etc/marked", 5, 0);
    marked.meta.xattrs.insert(b"user.large".to_vec(), vec![1; 1000]);
    entries.push(marked);
    entries.push(unread("etc/last", 10_000, 0));
    entries
}

#[test]
fn a_layer_lies_where_it_lies_whatever_is_above_it() {
    let base = base();
    let mut small = base.clone();
    small.extend((0..3).map(|number| unread(format!("etc/added-{number}"), 9000, 1)));
    let mut large = base.clone();
    large.push(entry("lost+found", EntryKind::Directory, 2));
    large.push(entry("opt", EntryKind::Directory, 1));
    for number in 0..2000 {
        large.push(unread(format!("etc/added-{number}-with-a-name-that-fills-blocks"), 9000, 2));
        large.push(unread(format!("bin/added-{number}-with-a-name-that-fills-blocks"), 50, 1));
        large.push(unread(format!("many/added-{number}-with-a-name-that-fills-blocks"), 500, 1 + number % 2));
    }
    let parameters = parameters(Bytes::mib(900));
    let [alone, small, large] = [&base, &small, &large].map(|entries| plan(entries, &parameters).unwrap());
    assert_eq!(alone.geometry.tables, large.geometry.tables);
    let mut grown = 0;
    for (at, entry) in base.iter().enumerate() {
        let path = entry.path.escape_ascii().to_string();
        for above in [&small, &large] {
            assert_eq!(alone.inode(at), above.inode(at), "{path}");
            let (own, other) = (alone.extents(at), above.extents(at));
            if !matches!(entry.kind, EntryKind::Directory) {
                assert_eq!(own, other, "{path}");
                let node = alone.catalog.node_of[at] as usize;
                assert_eq!(alone.allocation.places[node], above.allocation.places[node], "{path}");
                continue;
            }
            let first =
                other.first().copied().map(|first| Extent { len: first.len.min(own[0].len), ..first });
            assert_eq!(own.first().copied(), first, "{path}");
            grown += usize::from(own != other);
        }
    }
    assert_eq!(grown, 3, "/etc, /bin and /many grow under the large layers");

    // And the upper layers agree with each other as far as they are the same.
    let mut larger = large.catalog.entries.to_vec();
    larger.extend((0..500).map(|number| unread(format!("bin/top-{number}-with-a-long-long-name"), 5000, 3)));
    let larger = plan(&larger, &parameters).unwrap();
    for at in 0..large.catalog.entries.len() {
        assert_eq!(large.inode(at), larger.inode(at));
        if large.catalog.entries[at].path != b"bin" {
            assert_eq!(large.extents(at), larger.extents(at));
        }
    }
}

#[test]
fn the_minimum_is_enough_and_one_block_less_is_not() {
    let mut sizes: Vec<u64> = (0..60).map(|step| step * 2_345_678).collect();
    // Around the edge of the first group, where a second has to carry its own tables.
    sizes.extend((0..80).map(|step| (119 << 20) + step * 16_384));
    for size in sizes {
        let mut entries = vec![directory(""), unread("file", size, 0)];
        entries.extend((0..size % 97).map(|number| directory(format!("{number}"))));
        for (inodes, journal) in
            [(InodeCount::Auto, Journal::Auto), (InodeCount::PerBytes(65_536), Journal::None)]
        {
            let mut parameters = Parameters { inodes, journal, ..parameters(Bytes(0)) };
            let minimum = minimum_size(&entries, &parameters).unwrap();
            parameters.size = minimum;
            let plan = plan(&entries, &parameters).unwrap();
            assert_eq!(plan.size(), minimum, "{size}");
            parameters.size = Bytes(minimum.0 - 1);
            let Err(error) = super::plan(&entries, &parameters) else {
                panic!("{size}: a block less will do")
            };
            match error {
                Error::TooSmall { needed, .. } => assert_eq!(needed, minimum, "{size}"),
                Error::TooFewInodes { .. } => assert_ne!(inodes, InodeCount::Auto),
                error => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_filesystem_that_is_too_small_is_told_what_it_needs() {
    let entries = [directory(""), unread("file", 50 << 20, 0)];
    let error = plan(&entries, &parameters(Bytes::mib(20))).err().unwrap().to_string();
    assert!(
        error
            .starts_with("an ext4 filesystem of 20.0 MiB is too small for its contents: it needs at least 54.9 MiB (57589760 bytes)"),
        "{error}"
    );
    let few = Parameters { inodes: InodeCount::PerBytes(1 << 24), ..parameters(Bytes::mib(100)) };
    let entries: Vec<Entry> =
        std::iter::once(directory("")).chain((0..20).map(|n| directory(n.to_string()))).collect();
    let error = plan(&entries, &few).err().unwrap().to_string();
    assert_eq!(error, "31 inodes are needed, the parameters give 16");
    let error = plan(&entries, &parameters(Bytes::gib(17 << 10))).err().unwrap().to_string();
    assert_eq!(error, "an ext4 filesystem of 17.0 TiB is larger than the 16.0 TiB that can be written");
    for (parameters, name) in [
        (Parameters { reserved_percent: 51, ..few.clone() }, "reserved_percent"),
        (Parameters { journal: Journal::Blocks(1023), ..few.clone() }, "journal"),
        (Parameters { inodes: InodeCount::PerBytes(255), ..few.clone() }, "inodes"),
        (Parameters { time: Timestamp::seconds(-1), ..few.clone() }, "time"),
    ] {
        let error = plan(&entries, &parameters).err().unwrap();
        assert!(matches!(error, Error::Parameter { name: found, .. } if found == name), "{error}");
    }
}

#[test]
fn lists_that_are_no_filesystem_are_refused() {
    let with = |more: Vec<Entry>| [vec![directory(""), directory("a")], more].concat();
    let device = |major, minor| EntryKind::CharDevice(Device { major, minor });
    let late = Timestamp { seconds: 0x2_8000_0000, nanoseconds: 0 };
    let mut timeless = directory("t");
    timeless.meta.mtime = late;
    let mut marked = directory("m");
    marked.meta.xattrs = Xattrs::from([(b"odd.name".to_vec(), Vec::new())]);
    for (entries, message) in [
        (vec![], "/: the list does not start with the root directory"),
        (vec![directory("a")], "/: the list does not start with the root directory"),
        (vec![entry("", EntryKind::Fifo, 0)], "/: the list does not start with the root directory"),
        (with(vec![directory("")]), "/: the root directory comes twice"),
        (with(vec![directory("b/c")]), "/b/c: its directory does not come before it"),
        (
            with(vec![entry("f", EntryKind::Fifo, 0), directory("f/c")]),
            "/f/c: its directory does not come before it",
        ),
        (with(vec![directory("a/..")]), "/a/..: a name that cannot be stored"),
        (with(vec![directory("a/.")]), "/a/.: a name that cannot be stored"),
        (with(vec![directory("a/")]), "/a/: a name that cannot be stored"),
        (with(vec![directory("/b")]), "//b: a name that cannot be stored"),
        (with(vec![directory("a/b\0c")]), "/a/b\\x00c: a name that cannot be stored"),
        (with(vec![directory("a")]), "/a: this path comes twice"),
        (
            with(vec![entry("a/x", EntryKind::Fifo, 0), entry("a/x", EntryKind::Socket, 0)]),
            "/a/x: this path comes twice",
        ),
        (
            with(vec![entry("l", EntryKind::HardLink(1), 0)]),
            "/l: a hard link to what is not an earlier entry",
        ),
        (
            with(vec![entry("l", EntryKind::HardLink(2), 0)]),
            "/l: a hard link to what is not an earlier entry",
        ),
        (
            with(vec![entry("l", EntryKind::HardLink(9), 0)]),
            "/l: a hard link to what is not an earlier entry",
        ),
        (with(vec![entry("s", EntryKind::Symlink(vec![]), 0)]), "/s: a symbolic link whose target is empty"),
        (
            with(vec![entry("s", EntryKind::Symlink(vec![b'x'; 4096]), 0)]),
            "/s: a symbolic link whose target is",
        ),
        (with(vec![entry("s", EntryKind::Symlink(vec![0]), 0)]), "/s: a symbolic link whose target is"),
        (with(vec![entry("c", device(4096, 0), 0)]), "/c: device number 4096:0 does not fit"),
        (
            with(vec![entry("lost+found", EntryKind::Fifo, 0)]),
            "/lost+found: e2fsck wants a directory of this name",
        ),
        (with(vec![timeless]), "/t: a time that ext4 cannot store safely"),
        (with(vec![marked]), "/m: extended attribute odd.name: ext4 has no such namespace"),
        (with(vec![unread("f", u64::MAX - 5, 0)]), "/f: a file of 18446744073709551610 bytes is longer than"),
        (with(vec![directory(&*"n".repeat(256))]), "n: a name of 256 bytes is longer than the 255"),
    ] {
        let found = refusal(&entries);
        assert!(found.contains(message), "{found} is not {message}");
    }
    let longest = with(vec![directory(&*"n".repeat(255))]);
    assert!(plan(&longest, &parameters(Bytes::mib(64))).is_ok());
}

#[test]
fn a_file_has_65_000_names_and_not_one_more() {
    let mut entries = vec![directory(""), unread("file", 1, 0)];
    entries.extend((1..65_000).map(|number| entry(number.to_string(), EntryKind::HardLink(1), 0)));
    let catalog = Catalog::new(&entries, &NameHash::new(&[0; 16])).unwrap();
    assert_eq!(catalog.nodes[2].links, 65_000);
    entries.push(entry("one more", EntryKind::HardLink(1), 0));
    assert_eq!(refusal(&entries), "/one more: 65001 names, more than the 65,000 that ext4 allows a file");
}

#[test]
fn a_directory_has_an_index_as_soon_as_a_block_is_full() {
    // Dots take 24 bytes, the checksum 12; a name of four bytes takes 12, one of eight 16: 338 × 12 + 4 are left.
    let mut entries = vec![directory("")];
    entries.extend((0..338).map(|number| directory(format!("{number:04}"))));
    let blocks = |entries: &[Entry]| {
        let catalog = Catalog::new(entries, &NameHash::new(&[0; 16])).unwrap();
        (catalog.directories[0].layout.blocks, catalog.directories[0].layout.indexed())
    };
    // lost+found is a directory here too, and takes 20.
    entries.truncate(337);
    assert_eq!(24 + 336 * 12 + 20, 4076);
    assert_eq!(blocks(&entries), (1, false));
    entries.pop();
    entries.push(directory("eight888"));
    assert_eq!(blocks(&entries), (1, false));
    entries.pop();
    entries.push(directory("eight888-"));
    assert_eq!(blocks(&entries), (1, false), "4,084 bytes");
    entries.push(directory("x"));
    assert_eq!(blocks(&entries), (3, true));
}

/// The same list gives the same bytes, today and tomorrow. If this changes on purpose, so does every image anyone
/// builds again: say so in the changelog, and put the new digest here.
#[test]
fn the_bytes_do_not_change() {
    let mut entries = base();
    for (at, entry) in entries.iter_mut().enumerate() {
        if let EntryKind::File(content) = &entry.kind {
            entry.kind = EntryKind::File(Content::inline(vec![at as u8; content.len() as usize]));
        }
    }
    let image = || {
        let plan = plan(&entries, &parameters(Bytes::mib(48))).unwrap();
        let mut image = Vec::new();
        plan.write(&mut image).unwrap();
        Sha256::of(&image).to_string()
    };
    assert_eq!(image(), image());
    assert_eq!(image(), "5ab6845fca6bf4e16623d1128614aaec241ced1566be9ba503cd54a33564d381");
}

#[test]
fn contents_that_cannot_be_read_are_named() {
    let entries = [directory(""), unread("secret\n", 5000, 0)];
    let plan = plan(&entries, &parameters(Bytes::mib(16))).unwrap();
    let error = plan.write(&mut Vec::new()).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("writing the ext4 filesystem: /secret\\n at offset "), "{text}");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "read");
}

#[test]
fn no_size_makes_the_arithmetic_overflow() {
    let long = |len| [directory(""), unread("file", len, 0)];
    let some = long(1 << 20);
    let group = BLOCKS_PER_GROUP * BLOCK;
    let sizes = [0, 1, 4095, 4096, group - 1, group, group + 1, 33 * group, 16 << 40, u64::MAX];
    for size in sizes.into_iter().chain((0..200).map(|step| step * 40_960)) {
        for inodes in [InodeCount::Auto, InodeCount::PerBytes(256), InodeCount::PerBytes(u64::MAX)] {
            for journal in [Journal::None, Journal::Auto, Journal::Blocks(u32::MAX)] {
                let parameters = Parameters { inodes, journal, ..parameters(Bytes(size)) };
                // A size that has to be refused says what would do, so both answers are fine.
                if let Ok(plan) = plan(&some, &parameters) {
                    assert!(plan.size().0 <= size && plan.used().all(|run| run.end <= plan.size().0));
                }
            }
        }
    }
    let minimum = minimum_size(&long(15 << 40), &parameters(Bytes(0))).unwrap();
    assert!((15 << 40..(15 << 40) + (300 << 30)).contains(&minimum.0), "{minimum}");
    let most = (1 << 44) - 4096;
    assert!(matches!(minimum_size(&long(most), &parameters(Bytes(0))), Err(Error::TooLarge { .. })));
}
