use super::*;
use crate::content::{Content, Piece, ReadAt};
use crate::format::entry::{Entry, EntryKind};
use crate::meta::Meta;
use std::io::{Cursor, Read as _};
use std::sync::Arc;

/// 2026-11-23T10:51:56Z, a time FAT can hold exactly.
const TIME: Timestamp = Timestamp::seconds(1_795_431_116);

fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry { path: path.into(), meta: Meta::root(0o755, TIME), kind, layer: 0 }
}

fn root() -> Entry {
    entry("", EntryKind::Directory)
}

fn directory(path: &str) -> Entry {
    entry(path, EntryKind::Directory)
}

fn file(path: &str, bytes: impl Into<Vec<u8>>) -> Entry {
    entry(path, EntryKind::File(Content::inline(bytes)))
}

fn parameters(size: Bytes) -> Parameters {
    Parameters {
        size,
        label: "bootfs".into(),
        serial: 0x1234_5678,
        time: TIME,
        kind: None,
        cluster: None,
        hidden_sectors: 16384,
        free: Bytes(0),
    }
}

fn image(entries: &[Entry], parameters: &Parameters) -> Vec<u8> {
    let mut bytes = Vec::new();
    plan(entries, parameters).unwrap().write(entries, &mut bytes).unwrap();
    bytes.resize(parameters.size.0 as usize, 0);
    bytes
}

fn read_image(bytes: Vec<u8>) -> Result<Volume, ReadError> {
    let len = bytes.len() as u64;
    read(Arc::new(bytes), 0, len)
}

/// Path, time, and bytes of every file; directories have none.
fn listing(entries: &[Entry]) -> Vec<(String, i64, Option<Vec<u8>>)> {
    let bytes = |entry: &Entry| match &entry.kind {
        EntryKind::File(content) => Some(content.read_to_vec(1 << 24).unwrap()),
        _ => None,
    };
    let line = |entry: &Entry| {
        let path = String::from_utf8(entry.path.clone()).unwrap();
        (path, entry.meta.mtime.seconds, bytes(entry))
    };
    let mut lines: Vec<_> = entries.iter().skip(1).map(line).collect();
    lines.sort();
    lines
}

/// The same, as the crate `fatfs` reads it.
fn fatfs_listing(bytes: &[u8]) -> Vec<(String, i64, Option<Vec<u8>>)> {
    let volume = fatfs::FileSystem::new(Cursor::new(bytes.to_vec()), fatfs::FsOptions::new()).unwrap();
    let mut lines = Vec::new();
    let mut todo = vec![(String::new(), volume.root_dir())];
    while let Some((path, here)) = todo.pop() {
        for found in here.iter() {
            let found = found.unwrap();
            let name = found.file_name();
            if name == "." || name == ".." {
                continue;
            }
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            let at = found.modified();
            let date = (at.date.year - 1980) << 9 | at.date.month << 5 | at.date.day;
            let time = at.time.hour << 11 | at.time.min << 5 | (at.time.sec / 2);
            let seconds = time::decode(date, time).seconds;
            if found.is_dir() {
                lines.push((path.clone(), seconds, None));
                todo.push((path, found.to_dir()));
            } else {
                let mut bytes = Vec::new();
                found.to_file().read_to_end(&mut bytes).unwrap();
                lines.push((path, seconds, Some(bytes)));
            }
        }
    }
    lines.sort();
    lines
}

fn some_tree() -> Vec<Entry> {
    let mut entries = vec![root(), file("cmdline.txt", "root=PARTUUID=12345678-02\n"), file("Empty", "")];
    entries.push(directory("overlays"));
    for n in 0..200 {
        entries.push(file(&format!("overlays/rpi-overlay-number-{n}.dtbo"), vec![n as u8; n * 37]));
    }
    entries.push(directory("overlays/πυ"));
    entries.push(file("overlays/πυ/Ünï cödé.txt", "x"));
    entries.push(entry("vmlinuz", EntryKind::HardLink(1)));
    entries
}

#[test]
fn what_is_written_is_read_back_and_fatfs_reads_the_same() {
    for (size, kind) in [(Bytes::mib(16), FatKind::Fat16), (Bytes::mib(129), FatKind::Fat32)] {
        let mut entries = some_tree();
        let bytes = image(&entries, &parameters(size));
        let volume = read_image(bytes.clone()).unwrap();
        if let Some(EntryKind::HardLink(_)) = entries.last().map(|entry| &entry.kind) {
            entries.pop();
            entries.push(file("vmlinuz", "root=PARTUUID=12345678-02\n"));
        }
        assert_eq!((volume.kind, volume.serial, volume.size), (kind, 0x1234_5678, size));
        assert_eq!(volume.label, b"bootfs");
        assert_eq!(listing(&volume.entries), listing(&entries));
        assert_eq!(fatfs_listing(&bytes), listing(&entries));
        let planned = plan(&entries, &parameters(size)).unwrap();
        assert_eq!(volume.free, planned.free());
        assert_eq!(volume.cluster, planned.cluster());
    }
}

#[test]
fn contents_stay_where_they_are() {
    let entries = vec![root(), file("kernel8.img", vec![7; 100_000])];
    let bytes = Arc::new(image(&entries, &parameters(Bytes::mib(16))));
    let volume = read(bytes, 0, 16 << 20).unwrap();
    let EntryKind::File(content) = &volume.entries[1].kind else { panic!("not a file") };
    assert_eq!(content.pieces().len(), 1);
}

#[test]
fn holes_stay_holes() {
    struct Ends(Vec<(u64, u64)>);
    impl crate::format::sink::Sink for Ends {
        fn bytes(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
            assert!(self.0.last().is_none_or(|(_, end)| *end <= offset), "went back to {offset}");
            self.0.push((offset, offset + bytes.len() as u64));
            Ok(())
        }
    }
    let source: Arc<dyn ReadAt> = Arc::new(vec![7; 8]);
    let content = Content::sparse(10 << 20, vec![Piece { at: 9 << 20, len: 8, source, offset: 0 }]).unwrap();
    let entries = vec![root(), entry("sparse", EntryKind::File(content))];
    let mut ends = Ends(Vec::new());
    plan(&entries, &parameters(Bytes::mib(16))).unwrap().write(&entries, &mut ends).unwrap();
    assert!(ends.0.iter().map(|(start, end)| end - start).sum::<u64>() < 64 << 10);
}

#[test]
fn layers_below_a_change_stay_where_they_are() {
    let base = |extra: bool| {
        let mut entries = some_tree();
        if extra {
            entries.push(Entry { layer: 1, ..file("zz-added-above.txt", vec![9; 5000]) });
            entries.insert(1, Entry { layer: 1, ..file("aa-added-above.txt", vec![9; 5000]) });
            for entry in &mut entries {
                if let EntryKind::HardLink(index) = &mut entry.kind {
                    *index += 1;
                }
            }
        }
        // The root holds the new names, so it belongs to their layer.
        entries[0].layer = extra.into();
        read_image(image(&entries, &parameters(Bytes::mib(256)))).unwrap()
    };
    let places = |volume: &Volume| -> Vec<(Vec<u8>, Vec<u64>)> {
        let place = |entry: &Entry| match &entry.kind {
            EntryKind::File(content) => {
                Some((entry.path.clone(), content.pieces().iter().map(|piece| piece.offset).collect()))
            }
            _ => None,
        };
        volume.entries.iter().filter_map(place).filter(|(path, _)| !path.ends_with(b"above.txt")).collect()
    };
    assert_eq!(places(&base(false)), places(&base(true)));
}

#[test]
fn a_directory_of_any_length_is_read_back() {
    // 16 slots in a sector: both sides of one cluster, of the 512 slots of a FAT16 root, and far beyond.
    for names in [12, 13, 14, 509, 510, 511, 512, 513, 3000] {
        for size in [Bytes::mib(16), Bytes::mib(129)] {
            let mut entries = vec![root(), directory("d")];
            entries.extend((0..names).map(|n| file(&format!("F{n}"), "")));
            entries.extend((0..names).map(|n| file(&format!("d/F{n}"), "")));
            let bytes = image(&entries, &parameters(size));
            assert_eq!(listing(&read_image(bytes.clone()).unwrap().entries), listing(&entries), "{names}");
            assert_eq!(fatfs_listing(&bytes), listing(&entries), "{names}");
        }
    }
}

#[test]
fn the_number_of_clusters_must_suit_the_kind() {
    let shape = |kind, clusters: u64, cluster: u64| {
        // One reserved cluster, or 32 sectors; tables and root directory as the writer lays them out.
        let (width, fixed) = if kind == FatKind::Fat32 { (4, 32 * 512) } else { (2, cluster + (16 << 10)) };
        let table = ((clusters + 2) * width).div_ceil(512) * 512;
        let size = Bytes(fixed + 2 * table.next_multiple_of(cluster) + clusters * cluster);
        let wanted = Parameters { kind: Some(kind), cluster: Some(Bytes(cluster)), ..parameters(size) };
        plan(&[root()], &wanted).map(|plan| (plan.kind(), plan.free()))
    };
    for (kind, clusters, fits) in [
        (FatKind::Fat16, 4_084, false),
        (FatKind::Fat16, 4_085, true),
        (FatKind::Fat16, 65_524, true),
        (FatKind::Fat16, 65_525, false),
        (FatKind::Fat32, 65_524, false),
        (FatKind::Fat32, 65_525, true),
    ] {
        let result = shape(kind, clusters, 512);
        match (fits, result) {
            (true, Ok((found, free))) => {
                let root = u64::from(kind == FatKind::Fat32);
                assert_eq!((found, free), (kind, Bytes((clusters - root) * 512)));
            }
            (false, Err(FatError::Clusters { found, .. })) => assert_eq!(u64::from(found), clusters),
            (_, other) => panic!("{kind} {clusters}: {other:?}"),
        }
    }
}

#[test]
fn the_kind_follows_the_size_as_on_raspberry_pi_os() {
    for (size, kind, cluster) in [
        (134_742_016 - 512, FatKind::Fat16, 4096),
        (134_742_016, FatKind::Fat32, 512),
        (260 << 20, FatKind::Fat32, 512),
        (261 << 20, FatKind::Fat32, 4096),
        (512 << 20, FatKind::Fat32, 4096),
        (8 << 20, FatKind::Fat16, 1024),
        (128 << 20, FatKind::Fat16, 2048),
    ] {
        let plan = plan(&[root()], &parameters(Bytes(size))).unwrap();
        assert_eq!((plan.kind(), plan.cluster()), (kind, Bytes(cluster)), "{size}");
    }
}

#[test]
fn what_cannot_be_on_fat_is_refused_by_name() {
    let refused = |entries: Vec<Entry>| plan(&entries, &parameters(Bytes::mib(16))).unwrap_err().to_string();
    let huge = Content::sparse(1 << 32, Vec::new()).unwrap();
    for (entries, message) in [
        (vec![root(), entry("a", EntryKind::Symlink("b".into()))], "/a: a symbolic link cannot be on FAT"),
        (vec![root(), file("a:b", "")], "/a:b: FAT forbids ':' in names"),
        (vec![root(), file("Ab", ""), file("aB", "")], "/aB and /Ab are one name on FAT"),
        (vec![root(), entry("a", EntryKind::File(huge))], "/a: 4.0 GiB do not fit"),
        (vec![root(), file("a", ""), file("a", "")], "/a: the path comes twice"),
        (vec![root(), file("a", ""), file("a/b", "")], "/a/b: its directory does not come before it"),
        (vec![root(), file("b/a", "")], "/b/a: its directory does not come before it"),
        (vec![file("a", "")], "/a: the root must come first"),
        (vec![], "/: there is no root directory"),
        (vec![root(), entry("a", EntryKind::HardLink(0))], "/a: a hard link to nothing"),
        (vec![root(), entry("a", EntryKind::HardLink(1))], "/a: a hard link to nothing"),
        (vec![root(), file("a", vec![1; 17 << 20])], "the files need 17.0 MiB"),
    ] {
        let found = refused(entries);
        assert!(found.contains(message), "{found}");
    }
    for label in ["twelve chars", "a/b", " a", "é"] {
        let wanted = Parameters { label: label.into(), ..parameters(Bytes::mib(16)) };
        assert!(matches!(plan(&[root()], &wanted), Err(FatError::Label { .. })), "{label}");
    }
    let odd = parameters(Bytes((16 << 20) + 1));
    assert!(matches!(plan(&[root()], &odd), Err(FatError::Size { .. })));
}

#[test]
fn a_directory_of_too_many_names_is_refused() {
    let mut entries = vec![root(), directory("d")];
    entries.extend((0..65_534).map(|n| file(&format!("d/F{n}"), "")));
    assert!(plan(&entries, &parameters(Bytes::mib(256))).is_ok());
    entries.push(file("d/X", ""));
    assert!(matches!(plan(&entries, &parameters(Bytes::mib(256))), Err(FatError::DirectorySize { .. })));
}

#[test]
fn the_least_size_is_enough_and_less_is_not() {
    let mut files = vec![root()];
    for n in 0..40u32 {
        files.push(file(&format!("some file {n}"), vec![1; (n * n * 97) as usize]));
        let step = Bytes(512);
        for (kind, cluster, free) in
            [(None, None, 0), (None, None, 5 << 20), (Some(FatKind::Fat32), Some(Bytes(2048)), 1 << 20)]
        {
            let wanted = Parameters { kind, cluster, free: Bytes(free), ..parameters(Bytes(0)) };
            let size = minimum_size(&files, &wanted, step).unwrap();
            let with = |size| plan(&files, &Parameters { size, ..wanted.clone() });
            assert!(with(size).unwrap().free() >= Bytes(free));
            // Up to a cluster is lost at the end; where clusters get larger the tables get smaller, and the search
            // may step over a few sectors.
            let less = cluster.map_or(64 << 10, |cluster| cluster.0);
            assert!(with(Bytes(size.0 - less)).is_err(), "{n} {size:?}");
        }
    }
    let size = minimum_size(&files, &parameters(Bytes(0)), Bytes::mib(4)).unwrap();
    assert_eq!(size, Bytes::mib(4));
}

/// A volume with some bytes changed, and perhaps cut.
struct Damaged {
    whole: Arc<Vec<u8>>,
    changes: Vec<(usize, u8)>,
    len: usize,
}

impl ReadAt for Damaged {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.whole[..self.len].read_exact_at(buffer, offset)?;
        for (at, byte) in &self.changes {
            if let Some(slot) = at.checked_sub(offset as usize).and_then(|at| buffer.get_mut(at)) {
                *slot = *byte;
            }
        }
        Ok(())
    }
}

/// Every reader of hostile bytes must end in a value or an error, whatever the bytes.
#[test]
fn damaged_volumes_are_errors_and_never_panics() {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let (mut read_fine, mut refused) = (0, 0);
    for size in [Bytes::mib(4), Bytes::mib(40)] {
        let kind = Some(if size == Bytes::mib(4) { FatKind::Fat16 } else { FatKind::Fat32 });
        let whole = image(&some_tree(), &Parameters { kind, ..parameters(size) });
        let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
        let whole = Arc::new(whole);
        for round in 0..1500 {
            let mut damaged = Damaged { whole: whole.clone(), changes: Vec::new(), len: whole.len() };
            for _ in 0..=next() % 8 {
                // The boot sector, the tables and directories, or anywhere.
                let range = [90, 20_000, used][(next() % 3) as usize];
                let at = (next() % range as u64) as usize;
                let byte = [0, 1, 2, 0xff, 0x80, next() as u8][(next() % 6) as usize];
                damaged.changes.push((at, byte));
            }
            if round % 10 == 0 {
                damaged.len = (next() % whole.len() as u64) as usize;
            }
            match read(Arc::new(damaged), 0, size.0) {
                Ok(volume) => {
                    read_fine += 1;
                    let len = |entry: &Entry| match &entry.kind {
                        EntryKind::File(content) => content.len(),
                        _ => 0,
                    };
                    assert!(volume.entries.iter().map(len).sum::<u64>() <= size.0);
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(read_fine > 100 && refused > 100, "{read_fine} read, {refused} refused");
}

#[test]
fn cycles_and_shared_clusters_are_errors_with_their_place() {
    let entries = vec![root(), file("a", vec![1; 5000]), file("b", vec![2; 5000]), directory("d")];
    let wanted = Parameters { cluster: Some(Bytes(512)), ..parameters(Bytes::mib(4)) };
    let whole = image(&entries, &wanted);
    let table = 512;
    let damaged = |cluster: usize, value: u16| {
        let mut bytes = whole.clone();
        bytes[table + cluster * 2..][..2].copy_from_slice(&value.to_le_bytes());
        read_image(bytes).unwrap_err().to_string()
    };
    // a has clusters 2 to 11, b 12 to 21, d 22.
    assert!(damaged(5, 2).contains("/a: its chain meets another one or itself, at cluster (2)"));
    assert!(damaged(15, 4).contains("/b: its chain meets another one or itself, at cluster (4)"));
    assert!(damaged(15, 1).contains("/b: its chain leads out of the volume, to cluster (1)"));
    assert!(damaged(15, 0xfff0).contains("/b: its chain leads out of the volume"));
    assert!(damaged(15, 0xffff).contains("/b: its chain ends before the file does"));
    assert!(damaged(22, 2).contains("/d: its chain meets another one or itself"));
}
