//! `IMAGE:/etc/fstab` and `IMAGE:1:/config.txt`: how a file inside an image is named.

use crate::tree::{PathError, TreePath};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A file or directory inside an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The image.
    pub image: PathBuf,
    /// Which of its filesystems.
    pub part: Part,
    /// The path in there, if one was given.
    pub path: Option<TreePath>,
}

/// Where a path starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// At the root filesystem, with the others where it mounts them.
    System,
    /// At the top of one partition, by its number.
    Partition(u32),
}

impl Address {
    /// Reads `IMAGE`, `IMAGE:PATH`, `IMAGE:N` or `IMAGE:N:PATH`. The image's own name may hold colons: the first colon
    /// that something called so stands before (`exists`) ends it, else the first one does.
    pub fn parse(text: &OsStr, exists: impl Fn(&Path) -> bool) -> Result<Self, PathError> {
        let bytes = text.as_bytes();
        let whole = Self { image: PathBuf::from(text), part: Part::System, path: None };
        if exists(&whole.image) {
            return Ok(whole);
        }
        let colons = || bytes.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at);
        let image = |at: usize| Path::new(OsStr::from_bytes(&bytes[..at]));
        let Some(at) = colons().find(|at| exists(image(*at))).or_else(|| colons().next()) else {
            return Ok(whole);
        };
        let (image, rest) = (image(at).to_owned(), &bytes[at + 1..]);
        let (number, path) = match rest.iter().position(|byte| *byte == b':') {
            Some(colon) => (&rest[..colon], Some(&rest[colon + 1..])),
            None => (rest, None),
        };
        let number = Some(number).filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let number = number.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let (part, path) = match number {
            Some(number) => (Part::Partition(number), path),
            None => (Part::System, Some(rest)),
        };
        let path = path.filter(|path| !path.is_empty()).map(TreePath::new).transpose()?;
        Ok(Self { image, part, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, there: &str) -> (String, Part, Option<String>) {
        let found = Address::parse(OsStr::new(text), |path| path == Path::new(there)).unwrap();
        (found.image.display().to_string(), found.part, found.path.map(|path| path.to_string()))
    }

    #[test]
    fn images_partitions_and_paths_are_told_apart() {
        let path = |text: &str| Some(text.to_owned());
        for (text, part, expected) in [
            ("a.img", Part::System, None),
            ("a.img:", Part::System, None),
            ("a.img:/etc//fstab", Part::System, path("/etc/fstab")),
            ("a.img:etc/fstab", Part::System, path("/etc/fstab")),
            ("a.img:/1", Part::System, path("/1")),
            ("a.img:2", Part::Partition(2), None),
            ("a.img:1:/config.txt", Part::Partition(1), path("/config.txt")),
            ("a.img:1:", Part::Partition(1), None),
            ("a.img:/a:b", Part::System, path("/a:b")),
            ("a.img:99999999999", Part::System, path("/99999999999")),
        ] {
            assert_eq!(parse(text, "a.img"), ("a.img".into(), part, expected), "{text}");
        }
    }

    #[test]
    fn the_name_of_an_image_may_hold_colons() {
        assert_eq!(parse("12:30.img", "12:30.img"), ("12:30.img".into(), Part::System, None));
        let found = parse("12:30.img:1:/x", "12:30.img");
        assert_eq!(found, ("12:30.img".into(), Part::Partition(1), Some("/x".into())));
        // Nothing is there: the message names what stands before the first colon.
        assert_eq!(parse("no.img:/x", "a.img").0, "no.img");
    }

    #[test]
    fn a_path_that_climbs_is_refused() {
        assert!(Address::parse(OsStr::new("a.img:/../x"), |_| false).is_err());
    }
}
