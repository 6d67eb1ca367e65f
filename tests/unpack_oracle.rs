//! Unpacking, judged by the real dpkg: the same package files, unpacked by both, must give the same tree and the same
//! database.
#![expect(clippy::disallowed_methods, reason = "the judge is another program")]

use hardtack::base::archive::{self, DebToUnpack, Options, Unpacked};
use hardtack::content::Content;
use hardtack::debian::deb::Deb;
use hardtack::meta::{Meta, Timestamp};
use hardtack::pack::PackWriter;
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
    !rustix_is_root()
}

fn rustix_is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|stat| stat.uid() == 0)
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
        unpack(Tree::new(EPOCH), &debs, &pack, jobs);
        let bytes = std::fs::metadata(&pack).unwrap().len();
        println!(
            "{jobs} jobs: {:.1?}, {:.0} MB/s unpacked",
            start.elapsed(),
            bytes as f64 / 1e6 / start.elapsed().as_secs_f64()
        );
    }
    compare(&debs, scratch.path());
}
