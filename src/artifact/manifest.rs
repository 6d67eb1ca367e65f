//! The manifest: what an image is, for tools on the device (`/usr/share/hardtack/manifest.json`) and off it
//! (`NAME.manifest.json`, which adds what is only known once the image is written).

use crate::digest::Sha256;
use serde::{Deserialize, Serialize};

/// The version of the manifest's form. A reader refuses a larger one.
pub const FORMAT: u32 = 1;

/// Where it is on the device, without the leading slash.
pub const PATH: &str = "usr/share/hardtack/manifest.json";

/// What an image is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The hardtack that made it.
    pub hardtack: String,
    /// Name of the profile.
    pub profile: String,
    /// The profile's own line about itself.
    pub description: String,
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
    /// Units.
    pub units: Units,
    /// Accounts the profile adds.
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
    /// The profile's name for it.
    pub name: String,
    /// `445` or `49152-65535`.
    pub port: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// `lan` or `any`.
    pub scope: String,
}

/// Which units start by themselves and which cannot start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Units {
    /// Enabled, sorted.
    pub enable: Vec<String>,
    /// Masked, sorted.
    pub mask: Vec<String>,
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
    pub architecture: String,
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
