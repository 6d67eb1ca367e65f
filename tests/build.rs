//! `hardtack build` from outside, with the real archive: the bytes it leaves, who may run it, and what it says when it
//! cannot.
//!
//! Needs the host's own Debian mirror, and root: a second build runs as an ordinary user that the test makes.

#![expect(clippy::disallowed_methods, reason = "the judges are programs, and so is what they judge")]

use hardtack::content::ReadAt;
use hardtack::format::ext4::read::Filesystem;
use hardtack::tree::Tree;
use hardtack::tree::dump::dump;
use hardtack::units::Bytes;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

const HARDTACK: &str = env!("CARGO_BIN_EXE_hardtack");

/// A directory of this test's own, empty.
fn fresh(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("build").join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn run(command: &mut Command, package: &str) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; install {package}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn digest(image: &Path) -> String {
    let line = run(Command::new("sha256sum").arg("--").arg(image), "coreutils");
    line.split_whitespace().next().unwrap().to_owned()
}

/// Partitions as sfdisk sees them: start and length in bytes.
fn partitions(image: &Path) -> Vec<(u64, u64)> {
    let text = run(Command::new("sfdisk").arg("--json").arg(image), "fdisk");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let list = json["partitiontable"]["partitions"].as_array().unwrap();
    let bytes = |value: &serde_json::Value| value.as_u64().unwrap() * 512;
    list.iter().map(|one| (bytes(&one["start"]), bytes(&one["size"]))).collect()
}

fn extract(image: &Path, number: usize, to: &Path) {
    let (start, size) = partitions(image)[number];
    let mut dd = Command::new("dd");
    dd.arg(format!("if={}", image.display())).arg(format!("of={}", to.display()));
    dd.args(["bs=1M", "iflag=skip_bytes,count_bytes", "conv=sparse", "status=none"]);
    run(dd.arg(format!("skip={start}")).arg(format!("count={size}")), "coreutils");
}

fn root(image: &Path) -> String {
    let (start, size) = partitions(image)[1];
    let source: Arc<dyn ReadAt> = Arc::new(File::open(image).unwrap());
    let entries = Filesystem::open(source, start, size).unwrap().entries().unwrap();
    dump(&Tree::from_entries(entries).unwrap()).unwrap()
}

/// What the two images' roots differ in first, for whoever has to find out why.
fn first_difference(one: &Path, two: &Path) -> String {
    let (one, two) = (root(one), root(two));
    let mut lines = one.lines().zip(two.lines()).filter(|(a, b)| a != b);
    let first: Vec<String> = lines.by_ref().take(5).map(|(a, b)| format!("  {a}\n  {b}")).collect();
    if first.is_empty() { "no file of the root differs".into() } else { first.join("\n") }
}

/// An ordinary user with a subuid range, as Debian's `adduser` makes one.
fn user() -> (u32, u32) {
    let name = "hardtack-test";
    if !fs::read_to_string("/etc/passwd").unwrap().lines().any(|line| line.starts_with("hardtack-test:")) {
        run(Command::new("useradd").args(["--create-home", "--shell", "/bin/sh", name]), "passwd");
    }
    if !fs::read_to_string("/etc/subuid")
        .unwrap_or_default()
        .lines()
        .any(|line| line.starts_with("hardtack-test:"))
    {
        let ranges = ["--add-subuids", "300000-365535", "--add-subgids", "300000-365535", name];
        run(Command::new("usermod").args(ranges), "passwd");
    }
    let home = fs::metadata("/home/hardtack-test").unwrap();
    (home.uid(), home.gid())
}

#[test]
fn the_same_lock_gives_the_same_bytes_to_root_and_to_an_ordinary_user() {
    let first = fresh("root");
    let built = Command::new(HARDTACK)
        .args(["build", "minimal", "-o", "out"])
        .current_dir(&first)
        .env("XDG_CACHE_HOME", first.join("cache"))
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", text(&built));
    let image = first.join("out/minimal.img");
    let said = text(&built);
    let sum = digest(&image);
    assert!(said.contains(&sum), "the summary does not have the digest {sum}:\n{said}");
    let line = fs::read_to_string(first.join("out/minimal.img.sha256")).unwrap();
    assert_eq!(line, format!("{sum}  minimal.img\n"));
    judged(&image, &first);

    // Another directory, user, HOME, TZ, umask, locale and number of threads; an empty cache; the same lock.
    let second = fresh("user");
    let (uid, gid) = user();
    let program = second.join("hardtack");
    fs::copy(HARDTACK, &program).unwrap();
    fs::create_dir_all(second.join("images")).unwrap();
    fs::copy(first.join("out/minimal.lock"), second.join("images/minimal.lock")).unwrap();
    for path in [second.as_path(), &program, &second.join("images"), &second.join("images/minimal.lock")] {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
    }
    // Every directory above must let the user through.
    for above in second.ancestors().skip(1) {
        let mut permissions = above.metadata().unwrap().permissions();
        permissions.set_mode(permissions.mode() | 0o111);
        fs::set_permissions(above, permissions).unwrap();
    }
    let script = "umask 077; exec taskset 1 ./hardtack build minimal --locked -o images";
    let built = Command::new("setpriv")
        .arg(format!("--reuid={uid}"))
        .arg(format!("--regid={gid}"))
        .args(["--clear-groups", "sh", "-c", script])
        .current_dir(&second)
        .env_clear()
        .envs([
            ("HOME", second.to_str().unwrap()),
            ("PATH", "/usr/bin:/bin"),
            ("TZ", "Asia/Tokyo"),
            ("LC_ALL", "tr_TR.UTF-8"),
        ])
        .output()
        .unwrap_or_else(|error| panic!("{error}; install util-linux"));
    assert!(built.status.success(), "{}", text(&built));
    let other = second.join("images/minimal.img");
    assert_eq!(digest(&other), sum, "the images differ:\n{}", first_difference(&image, &other));

    // A warm cache, no network, and an overlay's file changed in between: only that file differs.
    fs::write(
        first.join("motd.toml"),
        "extends = \"minimal\"\n[files.\"/etc/motd\"]\ncontent = \"changed\\n\"\n",
    )
    .unwrap();
    let again = Command::new(HARDTACK)
        .args(["build", "minimal", "--offline", "--locked", "-o", "out"])
        .current_dir(&first)
        .env("XDG_CACHE_HOME", first.join("cache"))
        .output()
        .unwrap();
    assert!(again.status.success(), "{}", text(&again));
    assert_eq!(digest(&image), sum, "a warm cache changed the image");
}

/// Other people's tools on a finished image.
fn judged(image: &Path, scratch: &Path) {
    run(Command::new("sfdisk").arg("--verify").arg(image), "fdisk");
    let (boot, root) = (scratch.join("boot.fat"), scratch.join("root.ext4"));
    extract(image, 0, &boot);
    extract(image, 1, &root);
    let said = run(Command::new("fsck.vfat").args(["-n"]).arg(&boot), "dosfstools");
    assert_eq!(said.lines().count(), 2, "fsck.vfat has something to say:\n{said}");
    run(Command::new("e2fsck").arg("-fn").arg(&root), "e2fsprogs");

    let mount = scratch.join("mount");
    fs::create_dir_all(&mount).unwrap();
    run(Command::new("mount").args(["-o", "loop,ro"]).arg(&root).arg(&mount), "mount");
    let checks = std::panic::catch_unwind(|| {
        let dpkg = |argument: &str| {
            run(Command::new("dpkg").arg(format!("--root={}", mount.display())).arg(argument), "dpkg")
        };
        // This machine's dpkg calls the device's architecture foreign; nothing else may bother it.
        let audit = dpkg("--audit");
        let foreign = "The following packages have an unknown foreign architecture";
        let findings: Vec<&str> =
            audit.split("\n\n").filter(|part| !part.is_empty() && !part.starts_with(foreign)).collect();
        assert_eq!(findings, Vec::<&str>::new(), "dpkg --audit");
        let verify: String = dpkg("--verify").lines().filter(|line| !line.contains(" c /etc/")).collect();
        assert_eq!(verify, "", "dpkg --verify");
        let read = |path: &str| fs::read_to_string(mount.join(path)).unwrap();
        assert_eq!(read("etc/machine-id"), "uninitialized\n");
        for line in read("etc/shadow").lines() {
            let password = line.split(':').nth(1).unwrap();
            assert!(matches!(password, "*" | "!" | "!*"), "{line}");
        }
        let usage = run(Command::new("du").args(["-s", "--apparent-size", "-B1"]).arg(&mount), "coreutils");
        usage.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    });
    run(Command::new("umount").arg(&mount), "mount");
    let root_bytes = checks.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    // The number of the issue: at most 1.15 × the apparent size of the contents and 64 MiB.
    let boot_bytes = 128 << 20;
    let limit = (root_bytes + boot_bytes) * 115 / 100 + (64 << 20);
    let allocated = image.metadata().unwrap().blocks() * 512;
    assert!(allocated <= limit, "{} allocated, at most {} expected", Bytes(allocated), Bytes(limit));
}

/// Builds a profile that cannot be built, and gives what was said. Nothing may be left.
fn refused(name: &str, profile: &str, arguments: &[&str]) -> String {
    let directory = fresh(name);
    fs::write(directory.join("x.toml"), profile).unwrap();
    let output = Command::new(HARDTACK)
        .args(["build", "./x.toml", "-o", "out"])
        .args(arguments)
        .current_dir(&directory)
        .env("XDG_CACHE_HOME", directory.join("cache"))
        .output()
        .unwrap();
    assert!(!output.status.success(), "{}", text(&output));
    let left: Vec<_> = fs::read_dir(directory.join("out")).into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    text(&output)
}

#[test]
fn a_misspelt_package_is_an_error_with_a_suggestion() {
    let said = refused("misspelt", "extends = \"minimal\"\npackages = [\"sambaa\"]\n", &[]);
    assert!(said.contains("there is no package `sambaa`") && said.contains("`samba`"), "{said}");
}

#[test]
fn offline_without_a_cache_says_what_is_missing() {
    let said = refused("offline", "extends = \"minimal\"\n", &["--offline"]);
    assert!(said.contains("InRelease"), "{said}");
}

#[test]
fn locked_without_a_lock_is_refused() {
    let said = refused("locked", "extends = \"minimal\"\n", &["--locked"]);
    assert!(said.contains("--locked") && said.contains("hint:"), "{said}");
}

#[test]
fn a_mirror_that_is_not_there_is_named() {
    let said = refused("mirror", "extends = \"minimal\"\n", &["--mirror", "http://127.0.0.1:9/debian"]);
    assert!(said.contains("127.0.0.1:9"), "{said}");
}
