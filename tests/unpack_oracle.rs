//! Unpacking, judged by the real dpkg: the same package files, unpacked by both, must give the same tree and the same
//! database.
#![expect(clippy::disallowed_methods, reason = "the judge is another program")]
#![expect(clippy::print_stdout, reason = "figures, when asked for by hand")]

use hardtack::base::archive::{self, DebToUnpack, Options, Unpacked};
use hardtack::content::Content;
use hardtack::debian::deb::Deb;
use hardtack::format::codec::{Codec, Decoder};
use hardtack::format::tar::{Archive, Member, MemberKind};
use hardtack::meta::{Meta, Timestamp};
use hardtack::pack::PackWriter;
use hardtack::store::layer;
use hardtack::tree::{Kind, Tree, TreePath, dump};
use std::collections::BTreeMap;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const EPOCH: Timestamp = Timestamp::seconds(1_700_000_000);

fn unpack(base: Tree, debs: &[PathBuf], pack: &Path, jobs: usize) -> Unpacked {
    let debs: Vec<DebToUnpack> = debs.iter().map(|path| deb(path)).collect();
    let pack = PackWriter::create(pack).unwrap();
    let jobs = NonZeroUsize::new(jobs).unwrap();
    let options = Options { epoch: EPOCH, jobs, progress: &|_| {}, cancel: &AtomicBool::new(false) };
    archive::unpack(base, &debs, &pack, &options).unwrap()
}

fn deb(path: &Path) -> DebToUnpack {
    let file = File::open(path).unwrap();
    let len = file.metadata().unwrap().len();
    let source = Arc::new(file);
    let label = path.file_name().unwrap().to_string_lossy().into_owned();
    let control = Deb::open(&label, source.clone(), len).unwrap().control().unwrap();
    let (name, version, architecture) = (control.name, control.version, control.architecture);
    DebToUnpack { label, name, version, architecture, source, len }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").output();
    let output =
        output.unwrap_or_else(|error| panic!("cannot run {program} ({error}): install the package dpkg"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}\n{text}");
}

/// What dpkg itself makes of the packages, unpacked in this order.
fn dpkg(root: &Path, debs: &[PathBuf]) {
    std::fs::create_dir_all(root.join("var/lib/dpkg")).unwrap();
    std::fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    let root = format!("--root={}", root.display());
    let mut arguments = vec![
        root.as_str(),
        "--force-architecture,not-root,depends,bad-path,unsafe-io",
        "--log=/dev/null",
        "--unpack",
    ];
    arguments.extend(debs.iter().map(|deb| deb.to_str().unwrap()));
    run("dpkg", &arguments);
}

/// A directory of the host as a tree.
fn read_host(root: &Path) -> Tree {
    let mut tree = Tree::new(EPOCH);
    let mut inodes: BTreeMap<u64, TreePath> = BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(directory) = todo.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let at = TreePath::new(path.strip_prefix(root).unwrap().as_os_str().as_bytes()).unwrap();
            let stat = path.symlink_metadata().unwrap();
            if stat.nlink() > 1 && !stat.is_dir() {
                if let Some(first) = inodes.get(&stat.ino()) {
                    tree.link(&at, first).unwrap();
                    continue;
                }
                inodes.insert(stat.ino(), at.clone());
            }
            let kind = if stat.is_dir() {
                todo.push(path.clone());
                Kind::Directory(BTreeMap::new())
            } else if stat.is_symlink() {
                Kind::Symlink(std::fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec())
            } else if stat.file_type().is_fifo() {
                Kind::Fifo
            } else {
                Kind::File(Content::inline(std::fs::read(&path).unwrap()))
            };
            let mtime = Timestamp { seconds: stat.mtime(), nanoseconds: stat.mtime_nsec() as u32 };
            let (uid, gid) = if owns_nothing() { (0, 0) } else { (stat.uid(), stat.gid()) };
            let meta = Meta { uid, gid, ..Meta::root((stat.mode() & 0o7777) as u16, mtime) };
            tree.put(&at, meta, kind).unwrap();
        }
    }
    tree
}

/// An ordinary user's dpkg cannot give files away.
fn owns_nothing() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() != 0
}

/// The lines of a dump by path, without what is allowed to differ:
/// - the time of a directory, which dpkg leaves at the moment it last put something into it;
/// - the root itself, which dpkg was given;
/// - the times of dpkg's database, and its backups (`*-old`), locks and logs.
fn comparable(tree: &Tree) -> BTreeMap<String, String> {
    let text = dump::dump(tree).unwrap();
    let mut lines = BTreeMap::new();
    for line in text.lines() {
        let mut words: Vec<&str> = line.split(' ').collect();
        let path = words[0].to_owned();
        let name = path.rsplit('/').next().unwrap();
        let is_own = path.starts_with("/var/lib/dpkg/");
        if path == "/"
            || is_own && (name.ends_with("-old") || matches!(name, "lock" | "lock-frontend" | "Lock"))
        {
            continue;
        }
        if (words[1] == "directory" || is_own) && words.len() > 5 {
            words[5] = "-";
        }
        lines.insert(path.clone(), words[1..].join(" "));
    }
    lines
}

fn differences(ours: &Tree, theirs: &Tree) -> Vec<String> {
    let (ours, theirs) = (comparable(ours), comparable(theirs));
    let mut found = Vec::new();
    for path in ours.keys().chain(theirs.keys().filter(|path| !ours.contains_key(*path))) {
        if ours.get(path) != theirs.get(path) {
            found.push(format!("{path}\n  ours   {:?}\n  dpkg's {:?}", ours.get(path), theirs.get(path)));
        }
    }
    found
}

/// A text file of dpkg's database; for messages.
fn text(tree: &Tree, path: &str) -> String {
    let path = TreePath::new(format!("var/lib/dpkg/{path}")).unwrap();
    tree.file(&path)
        .map(|content| String::from_utf8_lossy(&content.read_to_vec(1 << 30).unwrap()).into_owned())
        .unwrap_or_default()
}

fn compare(debs: &[PathBuf], scratch: &Path) {
    let ours = unpack(Tree::new(EPOCH), debs, &scratch.join("pack"), 2);
    assert_eq!(ours.held, [], "nothing of this is held");
    let by_name: BTreeMap<String, &PathBuf> = debs
        .iter()
        .map(|path| {
            let deb = deb(path);
            (format!("{} {}", deb.name, deb.architecture), path)
        })
        .collect();
    let order: Vec<PathBuf> = ours
        .packages
        .iter()
        .map(|package| by_name[&format!("{} {}", package.name, package.architecture)].clone())
        .collect();
    let root = scratch.join("root");
    dpkg(&root, &order);
    let theirs = read_host(&root);
    for file in ["status", "triggers/File", "triggers/Unincorp", "available", "diversions"] {
        for (ours, theirs) in text(&ours.tree, file).lines().zip(text(&theirs, file).lines()) {
            assert_eq!(ours, theirs, "{file}");
        }
    }
    let found = differences(&ours.tree, &theirs);
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}

/// A package built by dpkg-deb out of a directory that `fill` fills; the control file is made here.
fn build(scratch: &Path, name: &str, compression: &str, fields: &str, fill: impl FnOnce(&Path)) -> PathBuf {
    let root = scratch.join(format!("build-{name}"));
    std::fs::create_dir_all(root.join("DEBIAN")).unwrap();
    let control = format!(
        "Package: {name}\nVersion: 1:2.0-3\nMaintainer: Nobody <nobody@mirror.example>\nSection: misc\nPriority: optional\nInstalled-Size: 77\n{fields}Description: for a test\n Of several lines.\n .\n The last.\n"
    );
    std::fs::write(root.join("DEBIAN/control"), control).unwrap();
    fill(&root);
    let deb = scratch.join(format!("{name}.deb"));
    let compression = format!("-Z{compression}");
    run(
        "dpkg-deb",
        &[
            "--root-owner-group",
            "--nocheck",
            &compression,
            "-b",
            root.to_str().unwrap(),
            deb.to_str().unwrap(),
        ],
    );
    deb
}

fn write(root: &Path, path: &str, mode: u32, bytes: impl AsRef<[u8]>) {
    use std::os::unix::fs::PermissionsExt;
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn link(root: &Path, path: &str, target: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(target, path).unwrap();
}

/// Every rule at once: links among parents, shared directories, configuration files, hard links, set-id bits, long
/// names, `Replaces` in both orders, triggers, two architectures of one package, packages without sums.
fn packages(scratch: &Path) -> Vec<PathBuf> {
    let long = format!("usr/share/{}/{}", "d".repeat(90), "n".repeat(200));
    vec![
        build(scratch, "base-files", "xz", "Architecture: arm64\nEssential: yes\nMulti-Arch: no\n", |root| {
            for directory in ["usr/bin", "usr/lib", "etc", "var/lib"] {
                std::fs::create_dir_all(root.join(directory)).unwrap();
            }
            link(root, "lib", "usr/lib");
            link(root, "bin", "usr/bin");
            link(root, "usr/share/dangling", "nowhere/at/all");
            write(
                root,
                "DEBIAN/triggers",
                0o644,
                "# a comment\ninterest-noawait /usr/share/thing\ninterest word-trigger\n",
            );
        }),
        build(
            scratch,
            "thing",
            "zstd",
            "Architecture: arm64\nDepends: base-files(>=1),\n libthing  (>> 0) | other:any\nReplaces: old\nEssential: no\nX-Own: kept\n",
            |root| {
                write(root, "lib/thing/a", 0o644, vec![7; 3_000_000]);
                write(root, "usr/bin/setuid", 0o4755, "x");
                write(root, "usr/bin/moved", 0o755, "new owner");
                write(root, &long, 0o600, "long");
                link(root, "usr/share/long-target", &"t/".repeat(120));
                write(root, "etc/thing/a.conf", 0o640, "conf");
                write(root, "etc/thing/b with space", 0o644, "conf");
                std::fs::hard_link(root.join("lib/thing/a"), root.join("lib/thing/b")).unwrap();
                run("mkfifo", &[root.join("usr/lib-pipe").to_str().unwrap()]);
                write(root, "DEBIAN/conffiles", 0o644, "/etc/thing/a.conf\n/etc/thing/b with space\n");
                write(root, "DEBIAN/postinst", 0o755, "#!/bin/sh\nexit 0\n");
                write(root, "DEBIAN/md5sums", 0o644, "d41d8cd98f00b204e9800998ecf8427e  usr/bin/setuid\n");
                write(root, "DEBIAN/triggers", 0o644, "activate word-trigger\nactivate-noawait ldconfig\n");
                write(root, "usr/share/thing/x", 0o644, "");
            },
        ),
        build(scratch, "old", "gzip", "Architecture: all\n", |root| {
            write(root, "usr/bin/moved", 0o755, "old owner");
            write(root, "usr/share/old", 0o644, "stays");
        }),
        build(scratch, "a-loser", "none", "Architecture: all\n", |root| {
            write(root, "usr/share/taken", 0o644, "lost");
            // Of a package without a file of its own dpkg forgets the name, too ("disappears"); hardtack keeps it.
            write(root, "usr/share/kept", 0o644, "kept");
        }),
        build(scratch, "b-winner", "none", "Architecture: all\nReplaces: a-loser (<< 1:3)\n", |root| {
            write(root, "usr/share/taken", 0o644, "won");
        }),
        build(
            scratch,
            "libthing",
            "xz",
            "Architecture: arm64\nMulti-Arch: same\nSource: thing (1.9)\n",
            |root| {
                write(root, "usr/share/doc/libthing/copyright", 0o644, "the same");
                write(root, "usr/lib/aarch64/libthing.so", 0o644, "so");
                write(root, "DEBIAN/shlibs", 0o644, "libthing 0 libthing\n");
            },
        ),
        build(scratch, "empty", "xz", "Architecture: all\nPriority-Of-Mine: x\n", |_| {}),
    ]
}

#[test]
fn dpkg_would_have_made_the_same_tree_and_the_same_database() {
    let scratch = tempfile::tempdir().unwrap();
    compare(&packages(scratch.path()), scratch.path());
}

#[test]
fn dpkg_goes_on_from_what_was_unpacked() {
    let scratch = tempfile::tempdir().unwrap();
    let debs = packages(scratch.path());
    // Only what is of this machine's own kind to dpkg: the scripts are not run, the states are.
    let ours = unpack(Tree::new(EPOCH), &debs[2..5], &scratch.path().join("pack"), 2).tree;
    let root = scratch.path().join("root");
    write_host(&ours, &root);
    let root = format!("--root={}", root.display());
    run("dpkg", &[&root, "--force-not-root", "--log=/dev/null", "--configure", "-a"]);
    for check in ["--audit", "--verify"] {
        let output = Command::new("dpkg").args([&root, check]).output().unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(text, "", "dpkg {check}");
    }
}

/// A tree as files of the host.
fn write_host(tree: &Tree, root: &Path) {
    use std::os::unix::fs::PermissionsExt;
    for (path, id) in tree.walk() {
        let at = root.join(std::ffi::OsStr::from_bytes(path.as_bytes()));
        let node = tree.node(id);
        match &node.kind {
            Kind::Directory(_) => std::fs::create_dir_all(&at).unwrap(),
            Kind::File(content) => {
                std::fs::write(&at, content.read_to_vec(1 << 30).unwrap()).unwrap();
                std::fs::set_permissions(&at, std::fs::Permissions::from_mode(node.meta.mode.into()))
                    .unwrap();
            }
            Kind::Symlink(target) => {
                std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), &at).unwrap()
            }
            other => panic!("{path}: a {}", other.word()),
        }
    }
}

/// One directory, archived by GNU tar in each of its formats and packed by the real compressors.
#[test]
fn what_tar_and_the_compressors_write_is_read() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    // ustar has room for 155 + 100 bytes, with a slash at the right place; v7 for 100.
    let deep = format!("{}/{}", "d".repeat(60), "n".repeat(90));
    let longer = format!("{}/{}", "d".repeat(150), "n".repeat(200));
    write(&root, "plain", 0o4751, "contents");
    write(&root, "empty", 0o600, "");
    write(&root, &deep, 0o644, vec![1; 100_000]);
    write(&root, &longer, 0o644, "long");
    link(&root, "link", &"t/".repeat(200));
    std::fs::hard_link(root.join("plain"), root.join("second")).unwrap();
    run("touch", &["-h", "-d", "@1234567890.123456789", root.join("plain").to_str().unwrap()]);
    run("touch", &["-h", "-d", "@-5.25", root.join("empty").to_str().unwrap()]);
    let compressors: [(&str, Codec); 6] = [
        ("cat", Codec::Plain),
        ("gzip -9n", Codec::Gzip),
        ("xz -0", Codec::Xz),
        ("xz -9e -T2 --block-size=20000 -C sha256", Codec::Xz),
        ("zstd -19 --long=27 --check", Codec::Zstd),
        ("zstd -1", Codec::Zstd),
    ];
    for (format, count) in [("v7", 2), ("ustar", 4), ("gnu", 6), ("pax", 6)] {
        // What a format has no room for stays out of it.
        let members = ["plain", "second", "empty", "d".repeat(60).as_str(), "link", "d".repeat(150).as_str()]
            .map(String::from);
        let members = &members[..count];
        for (compressor, codec) in &compressors {
            let archive = scratch.path().join("archive");
            let options = if format == "pax" { "--pax-option=SCHILY.xattr.user.x:=value" } else { "" };
            let times = if format == "pax" || format == "gnu" { "" } else { "--mtime=@1234567890" };
            let command = format!(
                "tar --format={format} --sort=name --owner=someone:7 --group=3000000 {options} {times} -C {} -cf - {} | {compressor} > {}",
                root.display(),
                members.join(" "),
                archive.display()
            );
            let command =
                if matches!(format, "v7" | "ustar") { command.replace("3000000", "9") } else { command };
            run("sh", &["-c", &command]);
            let found = read_archive(&archive, *codec);
            let (plain, data) = &found["plain"];
            assert_eq!((plain.meta.mode, plain.meta.uid), (0o4751, 7), "{command}");
            assert_eq!(
                plain.meta.gid,
                if matches!(format, "v7" | "ustar") { 9 } else { 3_000_000 },
                "{command}"
            );
            assert_eq!(data, b"contents", "{command}");
            assert_eq!(plain.meta.mtime.seconds, 1_234_567_890, "{command}");
            assert_eq!(found["second"].0.kind, MemberKind::HardLink(b"plain".to_vec()), "{command}");
            if format == "pax" {
                assert_eq!(plain.meta.mtime.nanoseconds, 123_456_789);
                assert_eq!(found["empty"].0.meta.mtime, Timestamp { seconds: -6, nanoseconds: 750_000_000 });
                assert_eq!(plain.meta.xattrs[&b"user.x"[..]], b"value");
            }
            if members.len() > 3 {
                assert_eq!(found[deep.as_str()].1, vec![1; 100_000], "{command}");
            }
            if members.len() > 4 {
                assert_eq!(found["empty"].0.meta.mtime.seconds, -6, "{command}");
                assert_eq!(
                    found["link"].0.kind,
                    MemberKind::Symlink("t/".repeat(200).into_bytes()),
                    "{command}"
                );
                assert_eq!(found[longer.as_str()].1, b"long", "{command}");
            }
        }
    }
}

fn read_archive(path: &Path, codec: Codec) -> BTreeMap<String, (Member, Vec<u8>)> {
    use std::io::Read;
    let mut magic = [0; 6];
    File::open(path).unwrap().read_exact(&mut magic).unwrap();
    assert_eq!(Codec::of_magic(&magic), codec);
    let mut archive = Archive::new(Decoder::new(codec, File::open(path).unwrap(), 1 << 30).unwrap());
    let mut members = BTreeMap::new();
    while let Some(member) = archive.next_member().unwrap() {
        let mut data = Vec::new();
        archive.read_to_end(&mut data).unwrap();
        members.insert(String::from_utf8(member.path.clone()).unwrap(), (member, data));
    }
    members
}

/// By hand: `HARDTACK_DEBS=directory cargo test --test unpack_oracle -- --ignored`, with package files whose `preinst`
/// was taken out (dpkg would run it on this machine).
#[test]
#[ignore = "needs a directory of package files in HARDTACK_DEBS"]
fn a_directory_of_packages() {
    let directory = std::env::var("HARDTACK_DEBS").expect("HARDTACK_DEBS names a directory of package files");
    let mut debs: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    debs.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    debs.sort();
    let scratch = tempfile::tempdir().unwrap();
    for jobs in [1, 2] {
        let start = std::time::Instant::now();
        let pack = scratch.path().join(format!("pack{jobs}"));
        let tree = unpack(Tree::new(EPOCH), &debs, &pack, jobs).tree;
        let bytes = std::fs::metadata(&pack).unwrap().len();
        let rate = bytes as f64 / 1e6 / start.elapsed().as_secs_f64();
        println!("{jobs} jobs: {:.1?}, {rate:.0} MB/s unpacked", start.elapsed());
        let key = hardtack::digest::Sha256::of(b"");
        let start = std::time::Instant::now();
        layer::save(scratch.path(), &key, &tree).unwrap();
        let saved = start.elapsed();
        let start = std::time::Instant::now();
        let loaded = layer::load(scratch.path(), &key).unwrap().unwrap();
        println!(
            "layer of {} names: saved {saved:.1?}, loaded {:.3?}",
            loaded.walk().count(),
            start.elapsed()
        );
    }
    compare(&debs, scratch.path());
}
