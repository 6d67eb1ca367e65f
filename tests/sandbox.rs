//! The sandbox, run for real: on tiny trees whose differences are known exactly, as root and as an ordinary user.
//!
//! Needs `busybox-static` of the host's architecture. Started by root, every test runs a second time as the ordinary user
//! `HARDTACK_TEST_USER` (else the first user in /etc/subuid), who needs the `uidmap` package.
#![cfg(target_os = "linux")]

use hardtack::content::Content;
use hardtack::meta::{Meta, Timestamp};
use hardtack::pack::PackWriter;
use hardtack::sandbox::{self, Event, Host, Job, Outcome, Place, SandboxError, Step};
use hardtack::tree::diff::Change;
use hardtack::tree::{Kind, Tree, TreePath};
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const EPOCH: i64 = 1_700_000_000;

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanoseconds: 5 }
}

/// Runs a test as it is, and again as an ordinary user when this is root.
#[expect(clippy::disallowed_methods, reason = "a test starts itself again as another user")]
fn as_both(name: &str, test: fn()) {
    test();
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let subuid = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
    let user = std::env::var("HARDTACK_TEST_USER").ok();
    let user = user.or_else(|| Some(subuid.lines().next()?.split(':').next()?.to_owned()));
    let user = user.expect("no user with subordinate ids; `useradd -m hardtack-test`");
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with(&format!("{user}:"))).expect("user in /etc/passwd");
    let ids: Vec<u32> = line.split(':').skip(2).take(2).map(|id| id.parse().unwrap()).collect();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env("TMPDIR", "/tmp")
        .uid(ids[0])
        .gid(ids[1])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "as {user}:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

/// A tree with a shell, and a few files to change.
fn tiny() -> Tree {
    let busybox = std::fs::read("/bin/busybox").expect("install busybox-static");
    let mut tree = Tree::new(at(1000));
    let put = |tree: &mut Tree, name: &str, meta: Meta, kind| tree.put(&path(name), meta, kind).unwrap();
    for name in ["bin", "etc", "etc/d", "etc/empty", "proc", "dev", "sys", "run", "tmp", ".hardtack"] {
        put(&mut tree, name, Meta::root(0o755, at(1000)), Kind::Directory(BTreeMap::new()));
    }
    put(&mut tree, "bin/busybox", Meta::root(0o755, at(1001)), Kind::File(Content::inline(busybox)));
    for name in ["sh", "ls", "cat", "ln", "rm", "mv", "cp", "chmod", "chown", "mkdir", "touch", "mkfifo", "sleep", "dd",
        "ip", "wget", "hostname", "id", "rmdir", "true", "mknod", "find", "stat", "env", "chroot", "truncate", "ps"]
    {
        put(&mut tree, &format!("bin/{name}"), Meta::root(0o777, at(1001)), Kind::Symlink(b"busybox".to_vec()));
    }
    for name in ["etc/one", "etc/two", "etc/three", "etc/d/four", "etc/d/five"] {
        tree.put_file(&path(name), 0o644, at(1002), format!("{name}\n")).unwrap();
    }
    tree.link(&path("etc/one-too"), &path("etc/one")).unwrap();
    let mut odd = Meta { mode: 0o4755, uid: 7, gid: 50_000, mtime: at(1003), ..Meta::default() };
    odd.xattrs.insert(b"user.note".to_vec(), b"kept".to_vec());
    // CAP_NET_RAW, effective and permitted, version 2 (linux/capability.h).
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    odd.xattrs.insert(b"security.capability".to_vec(), capability.to_vec());
    put(&mut tree, "etc/odd", odd, Kind::File(Content::inline("odd\n")));
    tree
}

struct Bench {
    directory: tempfile::TempDir,
    pack: PackWriter,
    cancel: AtomicBool,
    host: Host,
    place: Place,
}

impl Bench {
    fn new(place: Place) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pack = PackWriter::create(&directory.path().join("pack")).unwrap();
        let host = Host { program: env!("CARGO_BIN_EXE_hardtack").into(), ..Host::default() };
        Self { directory, pack, cancel: AtomicBool::new(false), host, place }
    }

    fn scratch(&self) -> std::path::PathBuf {
        self.directory.path().join("scratch")
    }

    fn run_steps(&self, tree: &Tree, steps: &[Step], on: &mut dyn FnMut(Event<'_>)) -> Result<Outcome, SandboxError> {
        let job = Job {
            tree,
            emulator: None,
            twins: None,
            inputs: &[("note".to_owned(), Content::inline("given\n"))],
            props: &[],
            steps,
            scratch: &self.scratch(),
            place: self.place,
            pack: &self.pack,
            cancel: &self.cancel,
            host: self.host.clone(),
        };
        sandbox::run(&job, on)
    }

    fn run(&self, tree: &Tree, script: &str) -> Result<Outcome, SandboxError> {
        self.run_steps(tree, &[shell(script)], &mut |_| ())
    }

    fn nothing_left(&self) {
        let left: Vec<_> = std::fs::read_dir(self.scratch()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

fn shell(script: &str) -> Step {
    Step::new("script", &["sh", "-euc", script], EPOCH)
}

/// Changes as text, without times of what was touched just now.
fn text(changes: &[Change]) -> Vec<String> {
    let time = |meta: &Meta| if meta.mtime.seconds > 1_000_000_000 { "now".into() } else { meta.mtime.seconds.to_string() };
    let meta_text = |meta: &Meta| {
        let xattrs: Vec<_> = meta.xattrs.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        format!("{:o} {}:{} {} {xattrs:?}", meta.mode, meta.uid, meta.gid, time(meta))
    };
    let lines = changes.iter().map(|change| match change {
        Change::Put { path, meta, kind } => {
            let what = match kind {
                Kind::File(content) => {
                    let bytes = content.read_to_vec(1 << 30).unwrap();
                    let shown = if bytes.len() > 100 { format!("{} bytes", bytes.len()) } else { bytes.escape_ascii().to_string() };
                    format!("file {shown}")
                }
                Kind::Symlink(target) => format!("-> {}", target.escape_ascii()),
                other => other.word().to_owned(),
            };
            format!("put {path} {} {what}", meta_text(meta))
        }
        Change::Link { path, target } => format!("link {path} {target}"),
        Change::Remove { path } => format!("remove {path}"),
        Change::Meta { path, meta } => format!("meta {path} {}", meta_text(meta)),
    });
    lines.collect()
}

fn changes_of(script: &str) -> Vec<String> {
    let results = [Place::Memory, Place::Disk].map(|place| {
        let bench = Bench::new(place);
        let tree = tiny();
        let outcome = bench.run(&tree, script).unwrap();
        bench.nothing_left();
        let mut applied = tree.clone();
        applied.apply(outcome.changes.iter().cloned()).unwrap();
        text(&outcome.changes)
    });
    assert_eq!(results[0], results[1], "in memory and on disk");
    results[0].clone()
}

#[test]
fn nothing_changed_is_no_difference() {
    as_both("nothing_changed_is_no_difference", || {
        assert_eq!(changes_of("cat /etc/odd >/dev/null; : >>/etc/two; echo x >/tmp/x; echo y >/run/y"), [""; 0]);
    });
}
