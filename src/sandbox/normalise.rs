//! Takes out of a configured tree what depends on when, where and in which order it was made.
//!
//! Each rule has its reason. A rule must be right for a device, too: what is deleted here comes back there by itself, or is
//! missed by nobody.

use super::SandboxError;
use super::dispatch::TOOLS;
use crate::meta::{Meta, Timestamp};
use crate::tree::{Kind, Tree, TreeError, TreePath};

/// Files that go, by their path.
const FILES: &[(&str, &str)] = &[
    ("var/cache/ldconfig/aux-cache", "inode numbers and times of libraries; ldconfig makes it again"),
    ("var/lib/systemd/random-seed", "must never be shared; drawn at first boot"),
    ("var/lib/systemd/credential.secret", "must never be shared; drawn when first needed"),
    ("var/lib/dbus/machine-id", "dbus reads /etc/machine-id"),
    ("etc/.pwd.lock", "lock of lckpwdf(3)"),
    ("var/lib/dpkg/status-old", "backup of dpkg"),
    ("var/lib/dpkg/available-old", "backup of dpkg"),
    ("var/lib/dpkg/diversions-old", "backup of dpkg-divert"),
    ("var/lib/dpkg/statoverride-old", "backup of dpkg-statoverride"),
    ("var/cache/debconf/config.dat-old", "backup of debconf"),
    ("var/cache/debconf/templates.dat-old", "backup of debconf"),
    ("var/cache/debconf/passwords.dat-old", "backup of debconf"),
    ("etc/passwd-", "backup of passwd(5)"),
    ("etc/group-", "backup of group(5)"),
    ("etc/shadow-", "backup of shadow(5)"),
    ("etc/gshadow-", "backup of gshadow(5)"),
    ("etc/subuid-", "backup of subuid(5)"),
    ("etc/subgid-", "backup of subgid(5)"),
    ("root/.bash_history", "what a script typed"),
    ("root/.wget-hsts", "what a script fetched"),
];

/// Directories that keep their subdirectories and lose their files.
const DIRECTORIES: &[(&str, &str)] = &[
    ("var/log", "when each package was configured (dpkg.log, alternatives.log)"),
    ("var/cache/man", "gdbm databases, in hash order; man-db.timer makes them again"),
    ("var/cache/fontconfig", "times of font directories; fc-cache makes it again"),
    ("var/cache/apt", "times of package lists"),
    ("var/tmp", "nothing in it outlives a run"),
];

/// Names that go from a directory.
const NAMES: &[(&str, &str, &str, &str)] = &[
    ("etc/ssh", "ssh_host_", "", "keys must never be shared; the device makes its own"),
    ("var/lib/ucf", "", ".old", "backup of ucf"),
    ("boot", "", ".dpkg-bak", "backup of update-initramfs"),
];

/// Makes the tree what it would be whenever and wherever it was made: the rules above, and no time after `epoch`.
pub fn normalise(tree: &mut Tree, epoch: Timestamp) -> Result<(), TreeError> {
    for (file, _) in FILES {
        tree.remove(&TreePath::new(file)?);
    }
    for (directory, _) in DIRECTORIES {
        empty(tree, &TreePath::new(directory)?);
    }
    for (directory, start, end, _) in NAMES {
        let directory = TreePath::new(directory)?;
        for name in names(tree, &directory) {
            if name.starts_with(start.as_bytes()) && name.ends_with(end.as_bytes()) {
                tree.remove(&directory.join(&name)?);
            }
        }
    }
    let machine_id = TreePath::new("etc/machine-id")?;
    if tree.get(&machine_id).is_some() {
        // Every device draws its own (machine-id(5)); an empty file lets systemd write it where the root is read-only first.
        tree.remove(&machine_id);
        tree.put(&machine_id, Meta::root(0o444, epoch), Kind::File(Default::default()))?;
    }
    clamp(tree, epoch)
}

fn names(tree: &Tree, directory: &TreePath) -> Vec<Vec<u8>> {
    match tree.get(directory).map(|node| &node.kind) {
        Some(Kind::Directory(children)) => children.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

fn empty(tree: &mut Tree, directory: &TreePath) {
    let inside = tree.walk().filter(|(path, id)| {
        path.starts_with(directory) && path != directory && !tree.node(*id).kind.is_directory()
    });
    let inside: Vec<TreePath> = inside.map(|(path, _)| path).collect();
    for path in inside {
        tree.remove(&path);
    }
}

/// Times after the epoch are times of this run.
fn clamp(tree: &mut Tree, epoch: Timestamp) -> Result<(), TreeError> {
    let late: Vec<TreePath> =
        tree.walk().filter(|(_, id)| tree.node(*id).meta.mtime > epoch).map(|(path, _)| path).collect();
    for path in late {
        tree.meta_mut(&path)?.mtime = epoch;
    }
    Ok(())
}

/// Nothing of the run may be named in the result: a path below `/.hardtack` would lead nowhere on the device.
pub(super) fn check(tree: &Tree) -> Result<(), SandboxError> {
    let trace = format!("/{TOOLS}/");
    let trace = trace.as_bytes();
    for (path, id) in tree.walk() {
        let found = match &tree.node(id).kind {
            Kind::Symlink(target) => contains(target, trace),
            // What scripts write is configuration; programs and archives come from packages.
            Kind::File(content) if content.len() < 1 << 20 && is_configuration(&path) => {
                content.read_to_vec(1 << 20).is_ok_and(|bytes| contains(&bytes, trace))
            }
            _ => false,
        };
        if found {
            return Err(SandboxError::Trace { path });
        }
    }
    Ok(())
}

fn is_configuration(path: &TreePath) -> bool {
    [&b"etc/"[..], b"var/", b"boot/"].iter().any(|top| path.as_bytes().starts_with(top))
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    #[test]
    fn what_depends_on_the_run_goes_and_the_rest_stays() {
        let mut tree = Tree::new(Timestamp::seconds(5));
        let gone = [
            "etc/passwd-",
            "etc/ssh/ssh_host_ed25519_key",
            "etc/ssh/ssh_host_ed25519_key.pub",
            "var/log/dpkg.log",
            "var/log/apt/term.log",
            "boot/initrd.img-6.12.dpkg-bak",
        ];
        let kept = ["etc/passwd", "etc/ssh/sshd_config", "var/lib/dpkg/status", "boot/initrd.img-6.12"];
        for name in gone.into_iter().chain(kept) {
            tree.put_file(&path(name), 0o644, Timestamp { seconds: 9, nanoseconds: 9 }, name).unwrap();
        }
        tree.put_file(&path("etc/machine-id"), 0o444, Timestamp::seconds(3), "0123\n").unwrap();
        normalise(&mut tree, Timestamp::seconds(7)).unwrap();
        for name in gone {
            assert!(tree.get(&path(name)).is_none(), "{name}");
        }
        for name in kept {
            assert_eq!(tree.get(&path(name)).unwrap().meta.mtime, Timestamp::seconds(7), "{name}");
        }
        assert!(tree.get(&path("var/log/apt")).unwrap().kind.is_directory());
        assert!(tree.file(&path("etc/machine-id")).unwrap().is_empty());
        assert_eq!(tree.get(&path("")).unwrap().meta.mtime, Timestamp::seconds(5), "older times stay");
        let once = crate::tree::dump::dump(&tree).unwrap();
        normalise(&mut tree, Timestamp::seconds(7)).unwrap();
        assert_eq!(crate::tree::dump::dump(&tree).unwrap(), once, "twice is once");
    }

    #[test]
    fn a_trace_of_the_run_is_found() {
        let mut tree = Tree::new(Timestamp::default());
        tree.put_file(&path("etc/one"), 0o644, Timestamp::default(), "perl=/usr/bin/perl\n").unwrap();
        assert!(check(&tree).is_ok());
        tree.put_file(&path("etc/two"), 0o644, Timestamp::default(), "perl=/.hardtack/twins/usr/bin/perl\n")
            .unwrap();
        assert!(matches!(check(&tree), Err(SandboxError::Trace { path }) if path.as_bytes() == b"etc/two"));
    }
}
