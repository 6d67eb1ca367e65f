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
    let line =
        passwd.lines().find(|line| line.starts_with(&format!("{user}:"))).expect("user in /etc/passwd");
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
    for name in [
        "sh", "ls", "cat", "ln", "rm", "mv", "cp", "chmod", "chown", "mkdir", "touch", "mkfifo", "sleep",
        "dd", "ip", "wget", "hostname", "id", "rmdir", "true", "mknod", "find", "stat", "env", "chroot",
        "truncate", "ps",
    ] {
        put(
            &mut tree,
            &format!("bin/{name}"),
            Meta::root(0o777, at(1001)),
            Kind::Symlink(b"busybox".to_vec()),
        );
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

    fn run_steps(
        &self,
        tree: &Tree,
        steps: &[Step],
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<Outcome, SandboxError> {
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
        let left: Vec<_> =
            std::fs::read_dir(self.scratch()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

fn shell(script: &str) -> Step {
    Step::new("script", &["sh", "-euc", script], EPOCH)
}

/// Changes as text, without times of what was touched just now.
fn text(changes: &[Change]) -> Vec<String> {
    let time = |meta: &Meta| {
        if meta.mtime.seconds > 1_000_000_000 { "now".into() } else { meta.mtime.seconds.to_string() }
    };
    let meta_text = |meta: &Meta| {
        let xattrs: Vec<_> =
            meta.xattrs.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        format!("{:o} {}:{} {} {xattrs:?}", meta.mode, meta.uid, meta.gid, time(meta))
    };
    let lines = changes.iter().map(|change| match change {
        Change::Put { path, meta, kind } => {
            let what = match kind {
                Kind::File(content) => {
                    let bytes = content.read_to_vec(1 << 30).unwrap();
                    let shown = if bytes.len() > 100 {
                        format!("{} bytes", bytes.len())
                    } else {
                        bytes.escape_ascii().to_string()
                    };
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
        assert_eq!(
            changes_of("cat /etc/odd >/dev/null; : >>/etc/two; echo x >/tmp/x; echo y >/run/y"),
            [""; 0]
        );
    });
}

#[test]
fn every_kind_of_change_comes_back_exactly() {
    as_both("every_kind_of_change_comes_back_exactly", || {
        let script = "
            chmod 4750 /etc/two                     # metadata only
            chown 33:44 /etc/d/four
            echo more >>/etc/three                  # contents
            rm /etc/d/five                          # whiteout
            rmdir /etc/empty; echo file >/etc/empty # directory becomes file
            mv /etc/odd /etc/moved                  # rename of a file, with its attributes
            mkdir -m 2755 /etc/new; chown 0:12 /etc/new; mkfifo -m 600 /etc/new/pipe
            ln -s /no/where /etc/new/link
            echo same >/etc/new/a; ln /etc/new/a /etc/new/b
            touch -d @1500 /etc/d                   # time only
        ";
        let wanted = [
            "meta /etc 755 0:0 now []",
            "meta /etc/d 755 0:0 1500 []",
            "remove /etc/d/five",
            "meta /etc/d/four 644 33:44 1002 []",
            "remove /etc/empty",
            "put /etc/empty 644 0:0 now [] file file\\n",
            "put /etc/moved 4755 7:50000 1003 [\"security.capability\", \"user.note\"] file odd\\n",
            "put /etc/new 2755 0:12 now [] directory",
            // Below a set-group-id directory the group is inherited.
            "put /etc/new/a 644 0:12 now [] file same\\n",
            "link /etc/new/b /etc/new/a",
            "put /etc/new/link 777 0:12 now [] -> /no/where",
            "put /etc/new/pipe 600 0:12 now [] named pipe",
            "remove /etc/odd",
            "put /etc/three 644 0:0 now [] file etc/three\\nmore\\n",
            "meta /etc/two 4750 0:0 1002 []",
        ];
        assert_eq!(changes_of(script), wanted);
    });
}

#[test]
fn a_directory_that_was_replaced_hides_what_the_old_one_held() {
    as_both("a_directory_that_was_replaced_hides_what_the_old_one_held", || {
        let wanted = [
            "meta /etc 755 0:0 now []",
            "remove /etc/d",
            "put /etc/d 755 0:0 now [] directory",
            "put /etc/d/new 644 0:0 now [] file x\\n",
        ];
        assert_eq!(changes_of("rm -r /etc/d; mkdir /etc/d; echo x >/etc/d/new"), wanted);
        // A rename of a directory is told as what it is for a tree: gone here, new there.
        let wanted = [
            "meta /etc 755 0:0 now []",
            "remove /etc/d",
            "put /etc/e 755 0:0 1000 [] directory",
            "put /etc/e/five 644 0:0 1002 [] file etc/d/five\\n",
            "put /etc/e/four 644 0:0 1002 [] file etc/d/four\\n",
        ];
        assert_eq!(changes_of("mv /etc/d /etc/e; touch -d @1000 /etc/e"), wanted);
    });
}

#[test]
fn capabilities_have_the_same_bytes_whoever_ran_it() {
    as_both("capabilities_have_the_same_bytes_whoever_ran_it", || {
        let bench = Bench::new(Place::Disk);
        let tree = tiny();
        let before = tree.get(&path("etc/odd")).unwrap().meta.clone();
        let outcome = bench.run(&tree, "cp -a /etc/two /etc/copy; mv /etc/odd /etc/moved").unwrap();
        let moved = outcome.changes.iter().find_map(|change| match change {
            Change::Put { path, meta, .. } if path.as_bytes() == b"etc/moved" => Some(meta),
            _ => None,
        });
        assert_eq!(moved.unwrap(), &before, "version 2, without the id of a namespace");
    });
}

#[test]
fn a_large_sparse_file_stays_sparse() {
    as_both("a_large_sparse_file_stays_sparse", || {
        let bench = Bench::new(Place::Auto);
        let outcome = bench.run(&tiny(), "truncate -s 3000000000 /etc/big; echo end >>/etc/big").unwrap();
        let big = outcome.changes.iter().find_map(|change| match change {
            Change::Put { kind: Kind::File(content), .. } => Some(content),
            _ => None,
        });
        let big = big.unwrap();
        assert_eq!(big.len(), 3_000_000_004);
        let mut end = [0; 4];
        big.read_exact_at(&mut end, 3_000_000_000).unwrap();
        assert_eq!(&end, b"end\n");
        assert!(bench.pack.len() < 1 << 20, "{}", bench.pack.len());
    });
}

#[test]
fn what_a_step_sees_is_the_tree_and_nothing_of_the_host() {
    as_both("what_a_step_sees_is_the_tree_and_nothing_of_the_host", || {
        let bench = Bench::new(Place::Auto);
        let script = r#"
            echo "id $(id -u):$(id -g) $(id -G)"
            echo "name $(hostname)"
            echo "top $(ls -A / | tr '\n' ' ')"
            echo "dev $(ls /dev | tr '\n' ' ')"
            echo "sys $(ls -A /sys)"
            echo "net $(ip -o link | cut -d' ' -f2 | tr '\n' ' ')"
            echo "lo $(ip -o addr show lo | cut -d' ' -f6,7 | tr '\n' ' ')"
            echo "given $(cat /.hardtack/in/note)"
            ip route get 192.0.2.1 2>&1 | cat
            echo x >/.hardtack/x || echo "tools are read-only"
            echo "processes $(ls -d /proc/[0-9]* | wc -l)"
            echo "umask $(umask) cwd $(pwd) clock $SOURCE_DATE_EPOCH"
            # The classic way out of a chroot.
            mkdir -p /etc/jail
            chroot /etc/jail true 2>/dev/null || echo "no programs in jail"
            ls /proc/1/root/ | tr '\n' ' '; echo
            cat /proc/1/root/etc/passwd /proc/1/cwd/etc/passwd 2>/dev/null || echo "no passwd of the host"
            ls /proc/1/root/scratch/../../../../../../etc 2>/dev/null || echo "no way up"
            exec 3</dev/null; ls -l /proc/self/fd | grep -c socket || echo "no sockets"
        "#;
        let mut tree = tiny();
        for name in ["tr", "cut", "wc", "grep"] {
            let link = Kind::Symlink(b"busybox".to_vec());
            tree.put(&path(&format!("bin/{name}")), Meta::root(0o777, at(1)), link).unwrap();
        }
        let mut step = Step::new("look", &["/bin/busybox", "sh", "-c", script], EPOCH);
        step.input = b"unused".to_vec();
        let outcome = bench.run_steps(&tree, &[step], &mut |_| ()).unwrap();
        let log = outcome.log;
        for line in [
            "id 0:0 0",
            "name localhost",
            "top .hardtack bin dev etc proc run sys tmp ",
            "sys ",
            "net lo: ",
            "given given",
            "tools are read-only",
            "umask 0022 cwd / clock 1700000000",
            "no programs in jail",
            "no passwd of the host",
            "no way up",
            "no sockets",
        ] {
            assert!(log.lines().any(|found| found == line.trim_end()), "missing `{line}` in:\n{log}");
        }
        assert!(log.contains("Network is unreachable"), "{log}");
        let dev = log.lines().find(|line| line.starts_with("dev ")).unwrap();
        let devices = "full null ptmx pts random shm stderr stdin stdout";
        assert!(dev.contains(&format!("{devices} tty urandom zero")) || dev.contains(devices), "{dev}");
        assert!(log.contains("lo 127.0.0.1/8") || log.contains("127.0.0.1/8"), "{log}");
    });
}

#[test]
fn a_failing_step_says_which_and_shows_its_last_lines() {
    as_both("a_failing_step_says_which_and_shows_its_last_lines", || {
        let bench = Bench::new(Place::Auto);
        let script = "i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); done
            echo 'dpkg: error processing package sorry (--configure):' >&2
            echo ' installed sorry package post-installation script subprocess returned error exit status 7' >&2
            exit 1";
        let mut lines = 0;
        let result = bench.run_steps(
            &tiny(),
            &[shell("true"), Step { label: "configuring".into(), ..shell(script) }, shell("echo never")],
            &mut |event| lines += i32::from(matches!(event, Event::Line(_))),
        );
        let error = result.unwrap_err();
        assert_eq!(
            error.to_string(),
            "configuring: the post-installation script of package sorry failed (exit status 1)"
        );
        let SandboxError::Step { last, .. } = error else { panic!("{error:?}") };
        assert_eq!(lines, 102);
        assert_eq!(last.len(), 40);
        assert_eq!(last[37], "line 99");
        bench.nothing_left();

        let error = bench.run(&tiny(), "kill -9 $$").unwrap_err();
        assert_eq!(error.to_string(), "script failed (signal 9)");
        let error =
            bench.run_steps(&tiny(), &[Step::new("x", &["/no/such"], EPOCH)], &mut |_| ()).unwrap_err();
        assert!(error.to_string().contains("/no/such"), "{error}");
        bench.nothing_left();
    });
}

#[test]
fn what_a_step_leaves_running_ends_with_it() {
    as_both("what_a_step_leaves_running_ends_with_it", || {
        let bench = Bench::new(Place::Auto);
        let started = Instant::now();
        // Names of all processes but process 1, twice: while the daemons run, and in the next step.
        let names = "sleep 1; cat /proc/[0-9]*/comm | while read name; do echo SEEN $name; done";
        let daemon = format!(
            "(sleep 300; echo late >>/etc/two) & (while true; do echo x >>/etc/three; sleep 1; done) & {names}"
        );
        let steps = [shell(&daemon), shell("echo NEXT"), shell(names)];
        let outcome = bench.run_steps(&tiny(), &steps, &mut |_| ()).unwrap();
        assert!(started.elapsed() < Duration::from_secs(60));
        let (during, after) = outcome.log.split_once("NEXT").unwrap();
        assert!(during.contains("SEEN sleep"), "{during}");
        assert!(!after.contains("SEEN sleep"), "{after}");
    });
}

#[test]
fn giving_up_ends_everything_and_leaves_nothing() {
    as_both("giving_up_ends_everything_and_leaves_nothing", || {
        for place in [Place::Memory, Place::Disk] {
            let bench = Bench::new(place);
            // A name nobody else on this machine has.
            let nap = format!("{}", 7_000_000 + std::process::id());
            let script = format!("echo going; sleep {nap} & exec sleep {nap}");
            let started = Instant::now();
            let result = bench.run_steps(&tiny(), &[shell(&script)], &mut |event| {
                if matches!(event, Event::Line("going")) {
                    while running(&nap) < 2 {
                        assert!(started.elapsed() < Duration::from_secs(20), "both begin");
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    bench.cancel.store(true, Ordering::Relaxed);
                }
            });
            assert!(matches!(result, Err(SandboxError::Cancelled)), "{result:?}");
            assert!(started.elapsed() < Duration::from_secs(30));
            bench.nothing_left();
            assert_eq!(running(&nap), 0);
            let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
            assert!(!mounts.contains(bench.directory.path().to_str().unwrap()));
        }
    });
}

/// How many processes have this argument.
fn running(argument: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| line.split(|byte| *byte == 0).any(|part| part == argument.as_bytes())).count()
}

#[test]
fn what_a_crashed_run_left_is_deleted_by_the_next() {
    as_both("what_a_crashed_run_left_is_deleted_by_the_next", || {
        let bench = Bench::new(Place::Disk);
        // As after a crash: files of ids that are not the user's, made by a run whose scratch directory is taken away.
        let left = bench.scratch().join("sandbox-1-0");
        let run = || bench.run(&tiny(), "true");
        run().unwrap();
        std::fs::create_dir(&left).unwrap();
        std::fs::create_dir(left.join("lower")).unwrap();
        std::fs::write(left.join("lower/file"), "x").unwrap();
        if rustix::process::geteuid().is_root() {
            for path in [left.clone(), left.join("lower"), left.join("lower/file")] {
                std::os::unix::fs::chown(path, Some((1 << 31) + 5), Some(1 << 31)).unwrap();
            }
        }
        run().unwrap();
        bench.nothing_left();
    });
}

#[test]
fn what_is_missing_on_the_host_is_named_with_what_to_do() {
    as_both("what_is_missing_on_the_host_is_named_with_what_to_do", || {
        if rustix::process::geteuid().is_root() {
            return; // Root needs none of it.
        }
        let mut bench = Bench::new(Place::Auto);
        bench.host.newuidmap = "/no/such/newuidmap".into();
        let error = bench.run(&tiny(), "true").unwrap_err();
        assert!(error.to_string().starts_with("/no/such/newuidmap is missing"), "{error}");
        assert_eq!(error.hint().as_deref(), Some("`sudo apt install uidmap`"));

        let mut bench = Bench::new(Place::Auto);
        bench.host.subgid = bench.directory.path().join("subgid");
        let error = bench.run(&tiny(), "true").unwrap_err();
        assert!(error.to_string().contains("has 0 ids in"), "{error}");
        assert!(error.hint().unwrap().contains("usermod --add-subuids"), "{error}");

        let mut bench = Bench::new(Place::Auto);
        bench.host.newuidmap = "/bin/false".into();
        let error = bench.run(&tiny(), "true").unwrap_err();
        assert!(error.to_string().starts_with("/bin/false failed"), "{error}");
        bench.nothing_left();
    });
}

#[test]
fn a_tree_that_cannot_be_laid_out_says_where() {
    as_both("a_tree_that_cannot_be_laid_out_says_where", || {
        let bench = Bench::new(Place::Auto);
        let mut tree = tiny();
        tree.meta_mut(&path("etc/two")).unwrap().uid = u32::MAX - 1;
        let error = bench.run(&tree, "true").unwrap_err();
        assert!(
            error.to_string().contains("/etc/two") && error.to_string().contains("4294967294"),
            "{error}"
        );
        bench.nothing_left();
    });
}
