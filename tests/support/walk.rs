//! What the kernel shows of a directory, in the words of `hardtack::tree::dump`: the judge of every reader and writer.

use hardtack::content::Content;
use hardtack::format::entry::Device;
use hardtack::meta::{Meta, Timestamp, Xattrs};
use hardtack::tree::{Kind, Tree, TreePath};
use rustix::fs::{lgetxattr, llistxattr, major, minor};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Reads everything below `root` into a tree, by the kernel's own calls.
pub fn walk(root: &Path) -> Tree {
    let mut tree = Tree::new(Timestamp::default());
    let mut links: BTreeMap<(u64, u64), TreePath> = BTreeMap::new();
    visit(root, &TreePath::root(), &mut tree, &mut links);
    tree
}

fn visit(host: &Path, path: &TreePath, tree: &mut Tree, links: &mut BTreeMap<(u64, u64), TreePath>) {
    let stat = host.symlink_metadata().unwrap();
    let kind = stat.file_type();
    if !kind.is_dir() && stat.nlink() > 1 {
        if let Some(first) = links.get(&(stat.dev(), stat.ino())) {
            tree.link(path, first).unwrap();
            return;
        }
        links.insert((stat.dev(), stat.ino()), path.clone());
    }
    let device = Device { major: major(stat.rdev()), minor: minor(stat.rdev()) };
    let node = if kind.is_dir() {
        Kind::Directory(BTreeMap::new())
    } else if kind.is_symlink() {
        Kind::Symlink(std::fs::read_link(host).unwrap().as_os_str().as_bytes().to_vec())
    } else if kind.is_char_device() {
        Kind::CharDevice(device)
    } else if kind.is_block_device() {
        Kind::BlockDevice(device)
    } else if kind.is_fifo() {
        Kind::Fifo
    } else if kind.is_socket() {
        Kind::Socket
    } else {
        Kind::File(Content::inline(std::fs::read(host).unwrap()))
    };
    let meta = Meta {
        mode: (stat.mode() & 0o7777) as u16,
        uid: stat.uid(),
        gid: stat.gid(),
        mtime: Timestamp { seconds: stat.mtime(), nanoseconds: stat.mtime_nsec() as u32 },
        xattrs: xattrs(host),
    };
    let directory = kind.is_dir();
    tree.put(path, meta, node).unwrap();
    if directory {
        let mut children: Vec<_> =
            std::fs::read_dir(host).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        children.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        for name in children {
            visit(&host.join(&name), &path.join(name.as_bytes()).unwrap(), tree, links);
        }
    }
}

fn xattrs(host: &Path) -> Xattrs {
    let mut names = vec![0u8; 1 << 16];
    let len = llistxattr(host, names.as_mut_slice()).unwrap();
    let names = &names[..len];
    let mut xattrs = Xattrs::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0u8; 1 << 16];
        let len = lgetxattr(host, std::ffi::OsStr::from_bytes(name), value.as_mut_slice()).unwrap();
        xattrs.insert(name.to_vec(), value[..len].to_vec());
    }
    xattrs
}
