//! Canonical text of a tree: one line a name, so that two trees can be compared with `diff`, reviewed, and hashed.
//!
//! Columns: path, kind, mode (octal), uid, gid, seconds.nanoseconds, then what the kind has: size and SHA-256 of a
//! file, target of a link, device number, first name of a hard link; last the extended attributes in hexadecimal.
//! Spaces and bytes outside printable ASCII are written `\xHH`.

use super::{Kind, Tree, TreePath};
use crate::digest::Sha256;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

/// Writes the whole tree as text. Reads every file.
pub fn dump(tree: &Tree) -> io::Result<String> {
    let mut text = String::new();
    let mut first: BTreeMap<super::NodeId, TreePath> = BTreeMap::new();
    for (path, id) in tree.walk() {
        let node = tree.node(id);
        let meta = &node.meta;
        line(&mut text, format_args!("/{}", escape(path.as_bytes())));
        if let Some(earlier) = first.get(&id) {
            line(&mut text, format_args!(" hardlink /{}\n", escape(earlier.as_bytes())));
            continue;
        }
        let word = node.kind.word().replace(' ', "-");
        let time = meta.mtime;
        line(
            &mut text,
            format_args!(
                " {word} {:04o} {} {} {}.{:09}",
                meta.mode, meta.uid, meta.gid, time.seconds, time.nanoseconds
            ),
        );
        match &node.kind {
            Kind::File(content) => {
                let (digest, _) = Sha256::of_reader(content.reader())?;
                line(&mut text, format_args!(" {} {digest}", content.len()));
            }
            Kind::Symlink(target) => line(&mut text, format_args!(" {}", escape(target))),
            Kind::CharDevice(device) | Kind::BlockDevice(device) => {
                line(&mut text, format_args!(" {}:{}", device.major, device.minor));
            }
            Kind::Directory(_) | Kind::Fifo | Kind::Socket => {}
        }
        for (name, value) in &meta.xattrs {
            line(&mut text, format_args!(" {}=", escape(name)));
            value.iter().for_each(|byte| line(&mut text, format_args!("{byte:02x}")));
        }
        text.push('\n');
        if !node.kind.is_directory() {
            first.insert(id, path);
        }
    }
    Ok(text)
}

/// Names with every byte a reader could stumble over written as `\xHH`.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\\' | 0..=b' ' | 0x7f.. => line(&mut text, format_args!("\\x{byte:02x}")),
            byte => text.push(*byte as char),
        }
    }
    text
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(arguments);
}
