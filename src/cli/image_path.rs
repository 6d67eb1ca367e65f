//! What `inspect`, `ls` and `cat` share: naming a file in an image, showing names that somebody else chose.

use super::Failure;
use crate::inspect::{Address, InspectError, Inspected, open};
use crate::tree::{PathError, TreePath};
use std::ffi::OsStr;
use std::path::Path;

/// Reads `IMAGE[:N][:PATH]`.
pub fn parse(text: &OsStr) -> Result<Address, Failure> {
    Address::parse(text, Path::exists).map_err(|error: PathError| Failure::input(error))
}

/// Opens an image.
pub fn opened(path: &Path) -> Result<Inspected, Failure> {
    open(path).map_err(failure)
}

/// Whose turn it is when an image cannot be looked at: the user's, who named it.
pub fn failure(error: InspectError) -> Failure {
    let hint = match &error {
        InspectError::Compressed { codec, .. } => match *codec {
            "xz" => Some("unpack it: xz --decompress --keep IMAGE.xz"),
            "gzip" => Some("unpack it: gzip --decompress --keep IMAGE.gz"),
            "zstd" => Some("unpack it: zstd --decompress IMAGE.zst"),
            _ => None,
        },
        InspectError::Truncated { .. } => Some("copy or download it again, and compare its digest"),
        InspectError::NoRoot(_) | InspectError::Volume { .. } => {
            Some("IMAGE:N:/ is the top of partition N; `hardtack inspect IMAGE` lists them")
        }
        _ => None,
    };
    match hint {
        Some(hint) => Failure::input(error).hint(hint),
        None => Failure::input(error),
    }
}

/// A name as it can be shown: what a terminal would obey, what cannot be seen, and backslashes are escaped.
pub fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '"' | '\'' => text.push(char),
                char => text.extend(char.escape_debug()),
            }
        }
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

/// A path as it can be shown, from the root.
pub fn shown_path(path: &TreePath) -> String {
    format!("/{}", shown(path.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn names_cannot_talk_to_the_terminal() {
        assert_eq!(shown(b"plain name's \xc3\xa9"), "plain name's é");
        assert_eq!(shown(b"\x1b[2J\n\\\xff\xe2\x80\xae"), "\\u{1b}[2J\\n\\\\\\xff\\u{202e}");
    }
}
