//! The kernel as judge: an image is mounted, and what is found there is compared with what was asked for.

use super::support::{Image, judge, text};
use hardtack::digest::Sha256;
use hardtack::format::entry::{Device, Entry, EntryKind};
use hardtack::format::ext4::Plan;
use hardtack::meta::Xattrs;
use rustix::fs as rfs;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A mounted image; unmounted when dropped.
pub struct Mount {
    pub path: PathBuf,
}

impl Mount {
    pub fn new(image: &Image, options: &str) -> Self {
        let path = image.directory.path().join("mounted");
        fs::create_dir_all(&path).unwrap();
        let place = image.path.to_str().unwrap();
        let output = judge("mount", &["-t", "ext4", "-o", options, place], &path);
        assert!(output.status.success(), "mount (needs root and a loop device): {}", text(&output));
        Self { path }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let output = judge("umount", &[], &self.path);
        if !std::thread::panicking() {
            assert!(output.status.success(), "umount: {}", text(&output));
        }
    }
}

/// Everything that is not as it should be.
pub fn differences(root: &Path, entries: &[Entry], plan: &Plan<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut names: Vec<u32> = Vec::new();
    let mut subdirectories = std::collections::BTreeMap::<&[u8], u64>::new();
    for (at, entry) in entries.iter().enumerate() {
        names.push(plan.inode(at).unwrap());
        if at > 0 && matches!(entry.kind, EntryKind::Directory) {
            let above = entry.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            *subdirectories.entry(&entry.path[..above]).or_default() += 1;
        }
    }
    names.sort_unstable();
    for (at, entry) in entries.iter().enumerate() {
        let path = root.join(OsStr::from_bytes(&entry.path));
        let mut note = |what: &str, found: &dyn std::fmt::Debug, wanted: &dyn std::fmt::Debug| {
            let (found, wanted) = (format!("{found:?}"), format!("{wanted:?}"));
            if found != wanted {
                wrong.push(format!("{}: {what} is {found}, not {wanted}", entry.path.escape_ascii()));
            }
        };
        let found = match fs::symlink_metadata(&path) {
            Ok(found) => found,
            Err(error) => {
                note("lookup", &error.to_string(), &"found");
                continue;
            }
        };
        let first = if let EntryKind::HardLink(target) = entry.kind { &entries[target] } else { entry };
        let meta = &first.meta;
        let mut rdev = 0;
        let (format, size) = match &first.kind {
            EntryKind::Directory => (0o040000, found.size()),
            EntryKind::File(content) => (0o100000, content.len()),
            EntryKind::Symlink(target) => (0o120000, target.len() as u64),
            EntryKind::CharDevice(Device { major, minor }) => {
                rdev = rfs::makedev(*major, *minor);
                (0o020000, 0)
            }
            EntryKind::BlockDevice(Device { major, minor }) => {
                rdev = rfs::makedev(*major, *minor);
                (0o060000, 0)
            }
            EntryKind::Fifo => (0o010000, 0),
            EntryKind::Socket => (0o140000, 0),
            EntryKind::HardLink(_) => unreachable!(),
        };
        note("inode", &found.ino(), &u64::from(plan.inode(at).unwrap()));
        note("mode", &found.mode(), &(format | u32::from(meta.mode)));
        note("owner", &(found.uid(), found.gid()), &(meta.uid, meta.gid));
        note("size", &found.size(), &size);
        note("device", &found.rdev(), &rdev);
        let time = (meta.mtime.seconds, i64::from(meta.mtime.nanoseconds));
        note("mtime", &(found.mtime(), found.mtime_nsec()), &time);
        note("ctime", &(found.ctime(), found.ctime_nsec()), &time);
        let created = found.created().ok().map(|created| {
            let epoch = std::time::SystemTime::UNIX_EPOCH;
            match created.duration_since(epoch) {
                Ok(after) => (after.as_secs() as i64, i64::from(after.subsec_nanos())),
                Err(before) => {
                    let before = before.duration().as_nanos() as i128;
                    let nanos = (-before).rem_euclid(1_000_000_000);
                    (((-before - nanos) / 1_000_000_000) as i64, nanos as i64)
                }
            }
        });
        note("crtime", &created, &Some(time));
        let links = if matches!(first.kind, EntryKind::Directory) {
            let own = u64::from(at == 0 && !entries.iter().any(|entry| entry.path == b"lost+found"));
            let links = 2 + own + subdirectories.get(&entry.path[..]).copied().unwrap_or(0);
            if links > 65_000 { 1 } else { links }
        } else {
            let inode = plan.inode(at).unwrap();
            (names.partition_point(|name| *name <= inode) - names.partition_point(|name| *name < inode))
                as u64
        };
        note("links", &found.nlink(), &links);
        match &first.kind {
            EntryKind::File(content) => {
                let disk = File::open(&path).unwrap();
                if content.len() < 1 << 30 {
                    let digest = Sha256::of_reader(disk).unwrap();
                    note("sha256", &digest, &Sha256::of_reader(content.reader()).unwrap());
                } else {
                    // Too many zeros to hash: the pieces, the end, and nothing else that is not a hole.
                    let pieces = content.pieces().iter().map(|piece| (piece.at, piece.len));
                    for (at, len) in pieces.chain([(content.len() - 100, 100)]) {
                        let (mut found, mut wanted) = (vec![1; len as usize], vec![2; len as usize]);
                        disk.read_exact_at(&mut found, at).unwrap();
                        content.read_exact_at(&mut wanted, at).unwrap();
                        note("data", &found, &wanted);
                    }
                    let first = rfs::seek(&disk, rfs::SeekFrom::Data(0)).ok();
                    let wanted = content.pieces().first().map(|piece| piece.at / 4096 * 4096);
                    note("first data", &first, &wanted);
                }
            }
            EntryKind::Symlink(target) => {
                note("target", &fs::read_link(&path).unwrap().into_os_string().into_vec(), target);
            }
            _ => {}
        }
        note("attributes", &attributes(&path), &meta.xattrs);
    }
    let mut wanted: BTreeSet<Vec<u8>> = entries.iter().skip(1).map(|entry| entry.path.clone()).collect();
    wanted.insert(b"lost+found".to_vec());
    let mut listed = BTreeSet::new();
    list(root, root, &mut listed);
    for path in wanted.symmetric_difference(&listed).take(5) {
        let listed = listed.contains(path);
        wrong.push(format!("{}: {}", path.escape_ascii(), if listed { "too many" } else { "not listed" }));
    }
    wrong
}

fn list(root: &Path, directory: &Path, listed: &mut BTreeSet<Vec<u8>>) {
    for found in fs::read_dir(directory).unwrap() {
        let found = found.unwrap();
        let path = found.path();
        listed.insert(path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec());
        if found.file_type().unwrap().is_dir() {
            list(root, &path, listed);
        }
    }
}

fn attributes(path: &Path) -> Xattrs {
    let mut names = [0; 4096];
    let len = rfs::llistxattr(path, &mut names).unwrap();
    let names = names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = [0; 8192];
            let len = rfs::lgetxattr(path, OsStr::from_bytes(name), &mut value).unwrap();
            (name.to_vec(), value[..len].to_vec())
        })
        .collect()
}
