//! Where downloaded bytes go: a file that can be resumed, or memory.

use super::error::{Error, Length};
use reqwest::Url;

/// Where the bytes of a file go.
pub(super) trait Sink {
    /// Bytes taken so far; a transfer continues there.
    fn have(&self) -> u64;
    /// What is known of the file's length; nothing beyond it is taken.
    fn length(&self) -> Length;
    /// Takes the next bytes.
    fn take(&mut self, bytes: &[u8]) -> Result<(), Error>;
    /// Throws everything away.
    fn restart(&mut self) -> Result<(), Error>;
    /// What comes next is from another answer than what is there.
    fn continued(&mut self);
    /// The `ETag` or `Last-Modified` that came with what there is, if it came from this address.
    fn validator(&self, url: &Url) -> Option<&str>;
    /// Keeps the validator for a later try.
    fn remember(&mut self, url: &Url, validator: Option<&str>);
}

/// A small file in memory, of unknown length: never resumed, always asked for afresh.
pub(super) struct Memory {
    pub(super) bytes: Vec<u8>,
    pub(super) limit: u64,
}

impl Sink for Memory {
    fn have(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn length(&self) -> Length {
        Length::AtMost(self.limit)
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn restart(&mut self) -> Result<(), Error> {
        self.bytes.clear();
        Ok(())
    }

    fn continued(&mut self) {}

    fn validator(&self, _: &Url) -> Option<&str> {
        None
    }

    fn remember(&mut self, _: &Url, _: Option<&str>) {}
}

/// Whether bytes are the start of a web page. No Debian index or package starts with `<`.
pub(super) fn looks_like_html(start: &[u8]) -> bool {
    let start = String::from_utf8_lossy(&start[..start.len().min(512)]).to_ascii_lowercase();
    let start = start.trim_start_matches('\u{feff}').trim_start();
    ["<!doctype html", "<html", "<head", "<!--"].iter().any(|tag| start.starts_with(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn web_pages_are_known_by_their_start() {
        assert!(looks_like_html(b"\n <!DOCTYPE HTML PUBLIC"));
        assert!(looks_like_html("\u{feff}<html>".as_bytes()));
        assert!(!looks_like_html(b"!<arch>\ndebian-binary"));
        assert!(!looks_like_html(b"\xfd7zXZ\0"));
        assert!(!looks_like_html(b""));
    }
}
