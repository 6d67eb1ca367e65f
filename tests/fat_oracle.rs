//! FAT volumes judged by `fsck.vfat`, mtools and `mkfs.vfat`.
#![expect(clippy::disallowed_methods, reason = "reference tools are the judges")]

use hardtack::content::Content;
use hardtack::format::entry::{Entry, EntryKind};
use hardtack::format::fat::{self, FatKind, Parameters};
use hardtack::meta::{Meta, Timestamp};
use hardtack::units::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const TIME: Timestamp = Timestamp::seconds(1_795_431_116);

/// Runs a judge; gives whether it was content, and what it said on both streams.
fn judge(program: &str, package: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C.UTF-8").env("TZ", "UTC").output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; install {package}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `fsck.vfat -n` says its version and one line of numbers, and not a word more.
fn fsck(image: &Path) -> Result<(), String> {
    let (content, said) = judge("fsck.vfat", "dosfstools", &["-n", text(image)]);
    let (verbose_content, verbose) = judge("fsck.vfat", "dosfstools", &["-n", "-v", text(image)]);
    let lines: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    if content && verbose_content && lines.len() == 2 && lines[1].contains(" clusters") {
        Ok(())
    } else {
        Err(verbose)
    }
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

fn entry(path: &str, kind: EntryKind, layer: u16) -> Entry {
    Entry { path: path.into(), meta: Meta::root(0o755, TIME), kind, layer }
}

/// A list of entries from files by path; directories are made for them.
fn entries(files: &BTreeMap<String, Vec<u8>>) -> Vec<Entry> {
    let mut all: BTreeMap<String, Option<&Vec<u8>>> = BTreeMap::new();
    all.insert(String::new(), None);
    for (path, bytes) in files {
        for (slash, _) in path.match_indices('/') {
            all.insert(path[..slash].to_owned(), None);
        }
        all.insert(path.clone(), Some(bytes));
    }
    let kind = |bytes: Option<&Vec<u8>>| match bytes {
        Some(bytes) => EntryKind::File(Content::inline(bytes.clone())),
        None => EntryKind::Directory,
    };
    all.iter()
        .enumerate()
        .map(|(index, (path, bytes))| entry(path, kind(*bytes), (index % 3) as u16))
        .collect()
}

fn write(directory: &Path, entries: &[Entry], parameters: &Parameters) -> PathBuf {
    let mut bytes = Vec::new();
    fat::plan(entries, parameters).unwrap().write(entries, &mut bytes).unwrap();
    let path = directory.join("image");
    std::fs::write(&path, bytes).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(parameters.size.0).unwrap();
    path
}

/// Everything `mcopy` takes out of an image.
fn mcopy(directory: &Path, image: &Path) -> BTreeMap<String, Vec<u8>> {
    let out = directory.join("out");
    if out.exists() {
        std::fs::remove_dir_all(&out).unwrap();
    }
    let (content, said) = judge("mcopy", "mtools", &["-s", "-n", "-m", "-i", text(image), "::", text(&out)]);
    assert!(content, "{said}");
    let mut files = BTreeMap::new();
    let mut todo = vec![out.clone()];
    while let Some(here) = todo.pop() {
        for found in std::fs::read_dir(here).unwrap() {
            let path = found.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                let name = text(path.strip_prefix(&out).unwrap()).to_owned();
                let modified = path.metadata().unwrap().modified().unwrap();
                let seconds = modified.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
                assert_eq!(seconds as i64, TIME.seconds, "{name}");
                files.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    files
}

/// That two sets of files are the same, or which is not.
fn same(found: &BTreeMap<String, Vec<u8>>, wanted: &BTreeMap<String, Vec<u8>>) -> Result<(), String> {
    let differs = |name: &&String| found.get(*name) != wanted.get(*name);
    match found.keys().chain(wanted.keys()).find(differs) {
        Some(name) => Err(format!(
            "{name:?}: {:?} bytes found, {:?} wanted",
            found.get(name).map(Vec::len),
            wanted.get(name).map(Vec::len)
        )),
        None => Ok(()),
    }
}

fn files(list: &[(&str, usize)]) -> BTreeMap<String, Vec<u8>> {
    list.iter().map(|(path, len)| ((*path).to_owned(), vec![b'x'; *len])).collect()
}

#[test]
fn a_boot_partition_is_what_fsck_and_mtools_expect() {
    let directory = tempfile::tempdir().unwrap();
    let mut wanted = files(&[
        ("config.txt", 3000),
        ("cmdline.txt", 120),
        ("README", 0),
        ("Mixed Case name.TXT", 511),
        (".hidden", 512),
        ("bcm2711-rpi-4-b.dtb", 513),
        ("kernel8.img", 9_000_000),
        ("initramfs8", 12_345_678),
        ("ünï/cödé 日.txt", 4096),
        ("a/b/c/d/e/f", 4097),
    ]);
    for n in 0..300 {
        wanted.insert(format!("overlays/some-overlay-{n}.dtbo"), vec![n as u8; n * 11]);
    }
    for (size, kind, cluster) in [
        (Bytes::mib(64), None, None),
        (Bytes(134_742_016 - 512), None, None),
        (Bytes(134_742_016), None, None),
        (Bytes::mib(512), None, None),
        (Bytes::mib(512), Some(FatKind::Fat32), Some(Bytes(512))),
        (Bytes::mib(512), Some(FatKind::Fat16), Some(Bytes::kib(32))),
        (Bytes(300_000_256), None, None),
    ] {
        let wanted_parameters = Parameters { kind, cluster, ..parameters(size) };
        let image = write(directory.path(), &entries(&wanted), &wanted_parameters);
        fsck(&image).unwrap();
        same(&mcopy(directory.path(), &image), &wanted).unwrap();
        let (content, listing) = judge("mdir", "mtools", &["-i", text(&image), "::"]);
        assert!(content && listing.contains("is bootfs") && listing.contains("1234-5678"), "{listing}");
        assert!(listing.contains("config   txt      3000 2026-11-23  10:51"), "{listing}");
        assert!(
            listing.contains("MIXEDC~1 TXT       511 2026-11-23  10:51  Mixed Case name.TXT"),
            "{listing}"
        );
        let (content, said) = judge("mtype", "mtools", &["-i", text(&image), "::MIXEDC~1.TXT"]);
        assert!(content && said == "x".repeat(511));
    }
}

#[test]
fn both_sides_of_every_threshold_are_clean() {
    let directory = tempfile::tempdir().unwrap();
    let small = files(&[("a", 1), ("sub/b", 512), ("sub/c", 513)]);
    // 4,085 and 65,524 clusters of FAT16, 65,525 of FAT32, all of 512 bytes.
    for (kind, clusters) in [(FatKind::Fat16, 4_085u64), (FatKind::Fat16, 65_524), (FatKind::Fat32, 65_525)] {
        let (width, fixed) = if kind == FatKind::Fat32 { (4, 32) } else { (2, 1 + 32) };
        let table = ((clusters + 2) * width).div_ceil(512);
        let size = Bytes((fixed + 2 * table + clusters) * 512);
        let wanted = Parameters { kind: Some(kind), cluster: Some(Bytes(512)), ..parameters(size) };
        let image = write(directory.path(), &entries(&small), &wanted);
        fsck(&image).unwrap();
        let (_, said) = judge("fsck.vfat", "dosfstools", &["-n", text(&image)]);
        assert!(said.contains(&format!("/{clusters} clusters")), "{said}");
        same(&mcopy(directory.path(), &image), &small).unwrap();
    }
    // A FAT16 root of 512 slots (one is the label), one more, and many more; a directory that fills its cluster.
    for names in [511, 512, 2000] {
        let many = (0..names).map(|n| (format!("F{n}"), Vec::new()));
        let many: BTreeMap<_, _> = many.chain((0..62).map(|n| (format!("d/F{n}"), vec![1]))).collect();
        for size in [Bytes::mib(16), Bytes::mib(40)] {
            let kind = Some(if size == Bytes::mib(16) { FatKind::Fat16 } else { FatKind::Fat32 });
            let image = write(directory.path(), &entries(&many), &Parameters { kind, ..parameters(size) });
            fsck(&image).unwrap();
            same(&mcopy(directory.path(), &image), &many).unwrap();
        }
    }
}

#[test]
fn the_shape_is_the_one_mkfs_vfat_takes() {
    let directory = tempfile::tempdir().unwrap();
    let theirs = directory.path().join("theirs");
    for (size, kind) in [
        (16, "16"),
        (32, "16"),
        (64, "16"),
        (128, "16"),
        (34, "32"),
        (64, "32"),
        (256, "32"),
        (260, "32"),
        (261, "32"),
        (512, "32"),
        (1024, "32"),
    ] {
        let file = std::fs::File::create(&theirs).unwrap();
        file.set_len(size << 20).unwrap();
        let arguments = ["-F", kind, "-n", "bootfs", "-i", "12345678", "-h", "16384", text(&theirs)];
        let (content, said) = judge("mkfs.vfat", "dosfstools", &arguments);
        assert!(content, "{said}");
        let fat = if kind == "16" { FatKind::Fat16 } else { FatKind::Fat32 };
        let wanted = Parameters { kind: Some(fat), ..parameters(Bytes::mib(size)) };
        let ours = write(directory.path(), &entries(&BTreeMap::new()), &wanted);
        let first = |path: &Path| {
            let mut sector = vec![0; 512];
            std::io::Read::read_exact(&mut std::fs::File::open(path).unwrap(), &mut sector).unwrap();
            sector
        };
        let (ours, theirs) = (first(&ours), first(&theirs));
        // mkfs.vfat rounds the number of sectors down to whole tracks of a disk that has none; we use all of them.
        let total = if ours[19..21] == [0, 0] { 32..36 } else { 19..21 };
        let extended = if kind == "16" { 36 } else { 64 };
        for at in (11..extended + 26).filter(|at| !total.contains(at)) {
            assert_eq!(ours[at], theirs[at], "{size} MiB FAT{kind}, byte {at}");
        }
    }
}

#[test]
fn the_judge_sees_damage() {
    let directory = tempfile::tempdir().unwrap();
    let image = write(directory.path(), &entries(&files(&[("d/file", 5000)])), &parameters(Bytes::mib(16)));
    fsck(&image).unwrap();
    let mut bytes = std::fs::read(&image).unwrap();
    // Cluster 3 in the first table: its chain goes elsewhere than in the second.
    let table = usize::from(u16::from_le_bytes([bytes[14], bytes[15]])) * 512;
    bytes[table + 6] ^= 1;
    std::fs::write(&image, bytes).unwrap();
    assert!(fsck(&image).is_err());
}

#[test]
fn volumes_of_mkfs_and_mcopy_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let wanted =
        files(&[("config.txt", 100), ("Long name here.dtbo", 70_000), ("sub/Ünï.txt", 3), ("sub/e", 0)]);
    let source = directory.path().join("source");
    for (path, bytes) in &wanted {
        let path = source.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    for (kind, size) in [("12", 2 << 20), ("16", 16 << 20), ("32", 64 << 20)] {
        let image = directory.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(size).unwrap();
        let (content, said) = judge("mkfs.vfat", "dosfstools", &["-F", kind, "-n", "BOOT", text(&image)]);
        assert!(content, "{said}");
        for name in ["config.txt", "Long name here.dtbo", "sub"] {
            let from = source.join(name);
            let (content, said) = judge("mcopy", "mtools", &["-s", "-i", text(&image), text(&from), "::"]);
            assert!(content, "{said}");
        }
        let volume = fat::read(std::sync::Arc::new(std::fs::File::open(&image).unwrap()), 0, size).unwrap();
        assert_eq!((volume.kind.to_string(), &volume.label[..]), (format!("FAT{kind}"), &b"BOOT"[..]));
        let mut found = BTreeMap::new();
        for entry in &volume.entries {
            if let EntryKind::File(content) = &entry.kind {
                let path = String::from_utf8(entry.path.clone()).unwrap();
                found.insert(path, content.read_to_vec(1 << 20).unwrap());
            }
        }
        same(&found, &wanted).unwrap();
    }
}

fn a_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Z0-9]{1,8}(\\.[A-Z]{1,3})?",
        "[a-z0-9_-]{1,8}(\\.[a-z]{1,3})?",
        "[A-Za-z0-9 ._+,;=äöüλж-]{0,40}[a-z0-9]",
        "[a-z]{200,240}",
    ]
    .prop_map(|name| name.trim_start_matches(' ').to_owned())
    .prop_filter("a name", |name| !name.is_empty())
}

fn a_tree() -> impl Strategy<Value = BTreeMap<String, Vec<u8>>> {
    let path = prop::collection::vec(a_name(), 1..4).prop_map(|parts| parts.join("/"));
    let bytes = (0usize..20_000, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]);
    prop::collection::btree_map(path, bytes, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_is_clean_and_comes_back(tree in a_tree(), size in 5u64..60, cluster in 0u32..6, wide: bool) {
        // Names that are one on FAT, or a file where another path has a directory, are not trees of FAT.
        let tree = apart(tree);
        let kind = if wide { FatKind::Fat32 } else { FatKind::Fat16 };
        let mut wanted = Parameters { kind: Some(kind), cluster: Some(Bytes(512 << cluster)), ..parameters(Bytes(0)) };
        let list = entries(&tree);
        wanted.size = fat::minimum_size(&list, &wanted, Bytes::kib(size)).unwrap();
        prop_assume!(wanted.size <= Bytes::mib(300));
        let directory = tempfile::tempdir().unwrap();
        let image = write(directory.path(), &list, &wanted);
        fsck(&image).map_err(TestCaseError::fail)?;
        same(&mcopy(directory.path(), &image), &tree).map_err(TestCaseError::fail)?;
    }
}

fn apart(tree: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let mut seen: BTreeMap<String, (String, bool)> = BTreeMap::new();
    let mut kept = BTreeMap::new();
    for (path, bytes) in tree {
        let ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).chain([path.len()]).collect();
        let clash = ends.iter().any(|end| {
            let part = &path[..*end];
            let this = (part.to_owned(), *end == path.len());
            seen.get(&part.to_lowercase()).is_some_and(|other| *other != this || this.1)
        });
        if !clash {
            for end in ends {
                seen.insert(path[..end].to_lowercase(), (path[..end].to_owned(), end == path.len()));
            }
            kept.insert(path, bytes);
        }
    }
    kept
}
