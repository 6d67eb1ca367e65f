//! The last step: what identifies one device, what a build leaves behind, and every clock reading go.
//!
//! A published image holds no secret and nothing that all of its cards would share but should not
//! (machine-id(5), systemd's "Building Images Safely"); and two builds from one lock must not differ by when they ran.

use crate::meta::Timestamp;
use crate::tree::{Kind, Tree, TreeError, TreePath};

/// Paths that are removed, and why. `*` stands for any run of bytes within one name.
const REMOVED: [(&str, &str); 41] = [
    ("etc/ssh/ssh_host_*", "host keys are made on the device"),
    ("etc/ssl/private/ssl-cert-snakeoil.key", "every card would share this key"),
    ("etc/ssl/certs/ssl-cert-snakeoil.pem", "the certificate of that key"),
    ("etc/unbound/unbound_control.key", "made on the device by unbound-control-setup"),
    ("etc/unbound/unbound_server.key", "made on the device by unbound-control-setup"),
    ("etc/unbound/unbound_control.pem", "the certificate of a key that is not there"),
    ("etc/unbound/unbound_server.pem", "the certificate of a key that is not there"),
    ("etc/bind/rndc.key", "made on the device"),
    ("etc/hostid", "identifies one device"),
    ("var/lib/dbus/machine-id", "systemd makes it a link to the device's own"),
    ("var/lib/NetworkManager/secret_key", "makes IPv6 addresses that cannot be followed; one per device"),
    ("var/lib/NetworkManager/seen-bssids", "where a device has been"),
    ("var/lib/NetworkManager/timestamps", "a clock reading"),
    ("var/lib/systemd/random-seed", "every card would start from the same randomness"),
    ("var/lib/systemd/credential.secret", "the key of this device's credentials"),
    ("var/lib/systemd/timesync/clock", "a clock reading; the image's own is /usr/lib/clock-epoch"),
    ("var/lib/systemd/timers/*", "clock readings"),
    ("var/lib/docker/engine-id", "identifies one device"),
    ("var/lib/samba/private/*", "machine secrets are made on the device"),
    ("var/lib/samba/*.tdb", "made when Samba starts"),
    ("var/lib/apt/lists/*", "indexes of the day of the build; apt fetches today's"),
    ("var/lib/apt/periodic/*", "clock readings"),
    ("var/lib/dpkg/*-old", "dpkg's own backups"),
    ("var/lib/dpkg/lock*", "nobody holds them"),
    ("var/lib/dpkg/triggers/Lock", "nobody holds it"),
    ("var/lib/ucf/cache/*", "copies of what ucf compared"),
    ("var/lib/ucf/hashfile.*", "ucf's own backups"),
    ("var/cache/apt/*.bin", "apt makes them again"),
    ("var/cache/apt/archives/*.deb", "packages that are installed"),
    ("var/cache/apt/archives/lock", "nobody holds it"),
    ("var/cache/debconf/*-old", "debconf's own backups"),
    ("var/cache/ldconfig/aux-cache", "inode numbers and times of the build machine"),
    ("var/cache/man/*", "made by man-db's timer"),
    ("etc/passwd-", "a backup that may show what was removed"),
    ("etc/group-", "a backup"),
    ("etc/shadow-", "a backup"),
    ("etc/gshadow-", "a backup"),
    ("etc/subuid-", "a backup"),
    ("etc/subgid-", "a backup"),
    ("etc/.pwd.lock", "nobody holds it"),
    ("root/.*_history", "what somebody typed"),
];

/// Directories that are emptied: what is in them belongs to a running system.
const EMPTIED: [&str; 6] = ["tmp", "var/tmp", "run", "dev", "proc", "sys"];

/// Seals a finished tree.
pub fn seal(tree: &mut Tree, now: Timestamp) -> Result<(), TreeError> {
    // Directories stay: packages own them, and dpkg --verify would miss them.
    let files = tree.walk().filter(|(_, id)| !tree.node(*id).kind.is_directory()).map(|(path, _)| path);
    let gone: Vec<TreePath> = files.filter(is_removed).collect();
    for path in gone {
        tree.remove(&path);
    }
    for directory in EMPTIED {
        let path = TreePath::new(directory)?;
        if let Some(Kind::Directory(children)) = tree.get(&path).map(|node| &node.kind) {
            let names: Vec<Vec<u8>> = children.keys().cloned().collect();
            for name in names {
                tree.remove(&path.join(&name)?);
            }
        }
    }
    empty_logs(tree)?;
    // Not empty but `uninitialized`: systemd takes the first boot for one (ConditionFirstBoot=) and the preset applies.
    tree.put_file(&TreePath::new("etc/machine-id")?, 0o444, now, "uninitialized\n")?;
    clamp(tree, now)
}

/// Log files go; the directories, which packages made with their owners, stay.
fn empty_logs(tree: &mut Tree) -> Result<(), TreeError> {
    let logs = TreePath::new("var/log")?;
    let files: Vec<TreePath> = tree
        .walk()
        .filter(|(path, id)| path.starts_with(&logs) && !tree.node(*id).kind.is_directory())
        .map(|(path, _)| path)
        .collect();
    for path in files {
        tree.remove(&path);
    }
    Ok(())
}

/// Nothing is newer than the build's clock: what the sandbox wrote carries the time it ran.
fn clamp(tree: &mut Tree, now: Timestamp) -> Result<(), TreeError> {
    let newer: Vec<TreePath> =
        tree.walk().filter(|(_, id)| tree.node(*id).meta.mtime > now).map(|(path, _)| path).collect();
    let layer = tree.layer();
    for path in newer {
        // A time alone does not move a file into another layer.
        if let Some(node) = tree.get(&path) {
            tree.set_layer(node.layer);
        }
        tree.meta_mut(&path)?.mtime = now;
    }
    tree.set_layer(layer);
    Ok(())
}

fn is_removed(path: &TreePath) -> bool {
    let parts: Vec<&[u8]> = path.components().collect();
    REMOVED.iter().any(|(pattern, _)| {
        let pattern: Vec<&str> = pattern.split('/').collect();
        pattern.len() == parts.len()
            && pattern.iter().zip(&parts).all(|(pattern, part)| matches(pattern.as_bytes(), part))
    })
}

/// Whether a name matches a pattern in which `*` is any run of bytes, the empty one too.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|skip| matches(rest, &name[skip..])),
        Some((byte, rest)) => {
            name.split_first().is_some_and(|(first, name)| first == byte && matches(rest, name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_leftovers_and_clock_readings_go() {
        let mut tree = Tree::new(Timestamp::seconds(5));
        let now = Timestamp::seconds(100);
        let later = Timestamp { seconds: 100, nanoseconds: 1 };
        for at in [
            "etc/ssh/ssh_host_ed25519_key",
            "etc/ssh/sshd_config",
            "var/lib/dpkg/status-old",
            "var/lib/dpkg/status",
            "var/lib/dbus/machine-id",
            "var/log/apt/history.log",
            "var/lib/apt/lists/mirror.example_dists_trixie_InRelease",
            "tmp/x/y",
            "root/.bash_history",
            "root/.bashrc",
        ] {
            tree.put_file(&TreePath::new(at).unwrap(), 0o600, later, "x").unwrap();
        }
        let partial = TreePath::new("var/lib/apt/lists/partial").unwrap();
        tree.put(&partial, crate::meta::Meta::root(0o700, later), Kind::Directory(Default::default()))
            .unwrap();
        seal(&mut tree, now).unwrap();
        assert!(tree.get(&partial).is_some());
        let left: Vec<String> = tree
            .walk()
            .filter(|(_, id)| matches!(tree.node(*id).kind, Kind::File(_)))
            .map(|(path, _)| path.to_string())
            .collect();
        assert_eq!(
            left,
            ["/etc/machine-id", "/etc/ssh/sshd_config", "/root/.bashrc", "/var/lib/dpkg/status"]
        );
        assert!(tree.get(&TreePath::new("var/log/apt").unwrap()).is_some());
        assert!(tree.walk().all(|(_, id)| tree.node(id).meta.mtime <= now));
        let id = tree.file(&TreePath::new("etc/machine-id").unwrap()).unwrap();
        assert_eq!(id.read_to_vec(99).unwrap(), b"uninitialized\n");
    }

    #[test]
    fn stars_stay_within_a_name() {
        assert!(matches(b"*-old", b"status-old") && matches(b"a*c*", b"abcd") && matches(b"*", b""));
        assert!(!matches(b"*-old", b"status-older") && !matches(b"", b"x"));
    }
}
