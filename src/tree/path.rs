//! Paths inside a tree: bytes, never the host's `Path`.

use std::fmt;

/// A path inside a tree, from its root: components of any bytes but `/` and NUL, joined by `/`, without a leading
/// or trailing slash. It holds no empty component, no `.` and no `..`, so it cannot name anything outside.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Vec<u8>);

/// Why some bytes are not a path inside a tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A `..` component.
    #[error("path `{0}` leaves its directory with `..`")]
    Parent(String),
    /// A NUL byte.
    #[error("path `{0}` holds a NUL byte")]
    Nul(String),
    /// A component longer than a Linux filesystem stores (`NAME_MAX`).
    #[error("path `{0}` has a component of {1} bytes; the longest allowed is 255")]
    Long(String, usize),
    /// Longer than `PATH_MAX`.
    #[error("path of {0} bytes; the longest allowed is 4095")]
    TooLong(usize),
}

impl TreePath {
    /// The root.
    pub fn root() -> Self {
        Self::default()
    }

    /// Reads `/etc/fstab`, `./etc/fstab` and `etc//fstab` alike, as tar members and manifests spell them.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, PathError> {
        let bytes = bytes.as_ref();
        let show = || bytes.escape_ascii().to_string();
        if bytes.len() > 4095 {
            return Err(PathError::TooLong(bytes.len()));
        }
        let mut path = Vec::with_capacity(bytes.len());
        for part in bytes.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(PathError::Parent(show())),
                part if part.contains(&0) => return Err(PathError::Nul(show())),
                part if part.len() > 255 => return Err(PathError::Long(show(), part.len())),
                part => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(part);
                }
            }
        }
        Ok(Self(path))
    }

    /// The bytes, without a leading slash; empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components, outermost first.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
    }

    /// The directory it is in; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Some(Self(self.0[..cut].to_vec()))
    }

    /// The last component; `None` for the root.
    pub fn name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// This path and one more component, which must be a single valid name.
    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        let mut bytes = self.0.clone();
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        Self::new(bytes)
    }

    /// Whether this is `other` or below it.
    pub fn starts_with(&self, other: &TreePath) -> bool {
        other.is_root()
            || self
                .0
                .strip_prefix(other.0.as_slice())
                .is_some_and(|rest| rest.first().is_none_or(|b| *b == b'/'))
    }
}

/// Written from the root, with what is not printable ASCII escaped.
impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0).escape_debug())
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_path_are_one_path() {
        for text in ["/etc/fstab", "./etc/fstab", "etc//fstab", "etc/./fstab/"] {
            assert_eq!(TreePath::new(text).unwrap().as_bytes(), b"etc/fstab", "{text}");
        }
        assert!(TreePath::new("./").unwrap().is_root());
    }

    #[test]
    fn paths_that_could_leave_the_tree_are_refused() {
        assert!(matches!(TreePath::new("etc/../../x"), Err(PathError::Parent(_))));
        assert!(matches!(TreePath::new(b"a\0b"), Err(PathError::Nul(_))));
        assert!(matches!(TreePath::new("x".repeat(256)), Err(PathError::Long(_, 256))));
        assert!(TreePath::new("x".repeat(255)).is_ok());
        assert!(matches!(TreePath::new("x/".repeat(2048)), Err(PathError::TooLong(4096))));
    }

    #[test]
    fn parents_and_prefixes() {
        let path = TreePath::new("usr/lib/os-release").unwrap();
        assert_eq!(path.parent().unwrap().as_bytes(), b"usr/lib");
        assert_eq!(TreePath::new("usr").unwrap().parent().unwrap(), TreePath::root());
        assert_eq!(TreePath::root().parent(), None);
        assert!(path.starts_with(&TreePath::new("usr").unwrap()));
        assert!(!path.starts_with(&TreePath::new("usr/li").unwrap()));
    }
}
