//! Names of users and groups, as the tree's own `/etc/passwd` and `/etc/group` have them.

use crate::tree::{Tree, TreePath};
use std::collections::BTreeMap;

/// The longest of the two files that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// Ids by name. dpkg goes by the names in a package and falls back to its numbers where the system has no such name;
/// in an empty tree there are only numbers, and packages may ship only ids that are fixed (Debian policy 9.2).
#[derive(Default)]
pub(super) struct Accounts {
    users: BTreeMap<Vec<u8>, u32>,
    groups: BTreeMap<Vec<u8>, u32>,
}

impl Accounts {
    pub(super) fn read(tree: &Tree) -> Self {
        Self { users: ids(tree, "etc/passwd"), groups: ids(tree, "etc/group") }
    }

    /// The id of a user, by name or written `#id`.
    pub(super) fn user(&self, name: &[u8]) -> Option<u32> {
        find(&self.users, name)
    }

    /// The id of a group, by name or written `#id`.
    pub(super) fn group(&self, name: &[u8]) -> Option<u32> {
        find(&self.groups, name)
    }
}

fn find(ids: &BTreeMap<Vec<u8>, u32>, name: &[u8]) -> Option<u32> {
    match name.strip_prefix(b"#") {
        Some(number) => std::str::from_utf8(number).ok()?.parse().ok(),
        None => ids.get(name).copied(),
    }
}

/// A missing or unreadable file is an empty one, as for dpkg.
fn ids(tree: &Tree, path: &str) -> BTreeMap<Vec<u8>, u32> {
    let bytes = TreePath::new(path).ok().and_then(|path| tree.file(&path).ok()?.read_to_vec(MAX_FILE).ok());
    let bytes = bytes.unwrap_or_default();
    let entries = bytes.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        Some((name.to_vec(), std::str::from_utf8(id).ok()?.parse().ok()?))
    });
    // Of a name given twice the first counts, as for getpwnam(3).
    let mut ids = BTreeMap::new();
    entries.for_each(|(name, id)| {
        ids.entry(name).or_insert(id);
    });
    ids
}
