//! Modes, owners and paths in the image, as overlays and `[files]` write them.

use super::section::Section;
use crate::tree::TreePath;
use std::fmt;

/// A user or a group: a name that the finished image must know, or a number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Principal {
    /// Looked up in the image's `/etc/passwd` or `/etc/group`.
    Name(String),
    /// A uid or gid.
    Id(u32),
}

impl Principal {
    /// The user or group 0.
    pub const ROOT: Self = Self::Id(0);
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Id(0) => f.write_str("root"),
            Self::Id(id) => id.fmt(f),
        }
    }
}

/// Permissions and owner of something in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// The twelve low bits of `st_mode`.
    pub mode: u16,
    /// Owning user.
    pub owner: Principal,
    /// Owning group.
    pub group: Principal,
}

impl Ownership {
    /// Owned by root.
    pub fn root(mode: u16) -> Self {
        Self { mode, owner: Principal::ROOT, group: Principal::ROOT }
    }

    /// Reads `mode`, `owner` and `group` of a table; what is not there is as `default` has it.
    pub(super) fn read(section: &mut Section<'_>, default: Self) -> Self {
        let mode = section.parsed("mode", read_mode);
        let owner = section.parsed("owner", read_principal);
        let group = section.parsed("group", read_principal);
        Self {
            mode: mode.map_or(default.mode, |mode| *mode),
            owner: owner.map_or(default.owner, |owner| owner.into_value()),
            group: group.map_or(default.group, |group| group.into_value()),
        }
    }
}

/// `root:adm 0640`.
impl fmt::Display for Ownership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} {:04o}", self.owner, self.group, self.mode)
    }
}

fn read_mode(text: &str) -> Result<u16, String> {
    let octal = !text.is_empty() && text.len() <= 4 && text.bytes().all(|c| (b'0'..=b'7').contains(&c));
    match u16::from_str_radix(text, 8) {
        Ok(mode) if octal => Ok(mode),
        _ => Err("must be at most four octal digits, such as `0644`".into()),
    }
}

fn read_principal(text: &str) -> Result<Principal, String> {
    if text == "root" {
        return Ok(Principal::ROOT);
    }
    if let Ok(id) = text.parse::<u32>() {
        // -1 means "leave it" to chown(2), so it is nobody's number.
        return if id == u32::MAX { Err("no account has this number".into()) } else { Ok(Principal::Id(id)) };
    }
    check_account_name(text).map(|()| Principal::Name(text.to_owned()))
}

/// The names that Debian's `adduser` takes, and the `_` that system accounts begin with.
pub(super) fn check_account_name(text: &str) -> Result<(), String> {
    let mut letters = text.bytes();
    let first = letters.next().is_some_and(|c| c.is_ascii_lowercase() || c == b'_');
    let fine = letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'_');
    if first && fine && text.len() <= 32 {
        Ok(())
    } else {
        Err("must be lower-case letters, digits, `-` and `_`, at most 32, not a digit first".into())
    }
}

/// An absolute path in the image that is not its root.
pub(super) fn read_image_path(text: &str) -> Result<TreePath, String> {
    if !text.starts_with('/') {
        return Err(format!(
            "must be an absolute path in the image\ndid you mean `/{}`?",
            text.trim_start_matches("./")
        ));
    }
    if text.chars().any(char::is_control) {
        return Err("a path here is one line without control characters".into());
    }
    match TreePath::new(text) {
        Ok(path) if path.is_root() => Err("must name something below `/`".into()),
        Ok(path) => Ok(path),
        Err(error) => Err(error.to_string()),
    }
}

/// What a symbolic link leads to: anything a filesystem can hold.
pub(super) fn check_target(target: &[u8]) -> Result<(), String> {
    match target {
        [] => Err("a link must lead somewhere".into()),
        _ if target.len() > 4095 => Err("a link's target has at most 4095 bytes".into()),
        _ if target.contains(&0) => Err("a link's target cannot hold a NUL byte".into()),
        _ => Ok(()),
    }
}
