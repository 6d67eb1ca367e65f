//! The profiles and overlays that come with hardtack, inside the binary.

/// A profile that comes with hardtack.
#[derive(Debug)]
pub struct ShippedProfile {
    /// What `hardtack build` calls it.
    pub name: &'static str,
    /// Its TOML.
    pub text: &'static str,
}

/// An overlay that comes with hardtack.
#[derive(Debug)]
pub struct ShippedOverlay {
    /// What profiles call it.
    pub name: &'static str,
    /// Its `overlay.toml`.
    pub manifest: &'static str,
    /// What is in its `files/`: absolute paths in the image, directories before what they hold.
    pub files: &'static [(&'static str, ShippedFile)],
}

/// Something in the `files/` of a shipped overlay.
#[derive(Debug)]
pub enum ShippedFile {
    /// A directory.
    Directory,
    /// A link's target.
    Symlink(&'static str),
    /// A regular file.
    File {
        /// What it holds.
        bytes: &'static [u8],
        /// Whether its owner may execute it.
        executable: bool,
    },
}

// Written by build.rs from `profiles/` and `overlays/`.
include!(concat!(env!("OUT_DIR"), "/shipped.rs"));

/// A shipped profile by its name.
pub fn profile(name: &str) -> Option<&'static ShippedProfile> {
    PROFILES.iter().find(|profile| profile.name == name)
}

/// A shipped overlay by its name.
pub fn overlay(name: &str) -> Option<&'static ShippedOverlay> {
    OVERLAYS.iter().find(|overlay| overlay.name == name)
}
