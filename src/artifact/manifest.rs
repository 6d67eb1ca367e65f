//! The manifest: what an image is, for tools on the device (`/usr/share/hardtack/manifest.json`) and off it
//! (`NAME.manifest.json`, which adds what is only known once the image is written).

use crate::digest::Sha256;
use serde::{Deserialize, Serialize};

/// The version of the manifest's form. A reader refuses a larger one.
pub const VERSION: u32 = 1;

/// What an image is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// Name of the profile.
    pub profile: String,
    /// The profile's own line about itself.
    pub description: String,
    /// The hardtack that made it.
    pub hardtack: String,
    /// Digest of the lock's text.
    pub lock: Sha256,
    /// The build's clock, in seconds since 1970.
    pub epoch: i64,
    /// Debian codename.
    pub suite: String,
    /// Debian architecture.
    pub architecture: String,
    /// Boards it is meant for, as the profile names them.
    pub boards: Vec<String>,
    /// Every open port; nothing else answers.
    pub ports: Vec<Port>,
    /// Units that start by themselves, sorted.
    pub enabled: Vec<String>,
    /// Units that cannot start, sorted.
    pub masked: Vec<String>,
    /// Accounts and groups the profile adds.
    pub accounts: Vec<String>,
    /// Overlays, in the order they were merged.
    pub overlays: Vec<Overlay>,
    /// Every package, sorted by name.
    pub packages: Vec<Package>,
    /// The image itself; not in the copy inside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
}

/// An open port or range of ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// First port.
    pub first: u16,
    /// Last port, the same for a single one.
    pub last: u16,
    /// `lan` or `any`.
    pub scope: String,
    /// The profile's name for it.
    pub name: String,
}

/// An overlay that was merged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// Its name.
    pub name: String,
    /// Digest of everything it does.
    pub sha256: Sha256,
}

/// An installed package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Architecture, `all` included.
    pub arch: String,
}

/// The written image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// File name, beside the manifest.
    pub file: String,
    /// Length in bytes.
    pub size: u64,
    /// Bytes that are not holes.
    pub allocated: u64,
    /// Digest of the whole image.
    pub sha256: Sha256,
    /// Partitions, in order.
    pub partitions: Vec<Partition>,
}

/// A partition of the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Filesystem label.
    pub label: String,
    /// `vfat` or `ext4`.
    pub filesystem: String,
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
    /// How Linux finds it.
    pub partuuid: String,
}

impl Manifest {
    /// The text of the file: JSON, indented, with a newline at the end.
    pub fn to_text(&self) -> String {
        // Strings, numbers and lists of them: there is nothing that JSON could not hold.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}
