//! Why a build failed: what was attempted, with the cause of the room it happened in.

use crate::{base, debian, image, plan, sandbox, store, transform, tree};
use std::io;
use std::path::PathBuf;

/// Why there is no lock or no image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The network, or the store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// No mirror is known.
    #[error(transparent)]
    Sources(#[from] store::sources::SourcesError),
    /// A URL that is none.
    #[error("`{url}` is not the URL of an archive")]
    Url {
        /// What was given.
        url: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No address for the security suite.
    #[error("no address for the suite `{suite}`: it cannot be derived from the mirror `{mirror}`")]
    NoSecurity {
        /// The suite.
        suite: String,
        /// The mirror.
        mirror: String,
    },
    /// A key that signs a repository.
    #[error("the key of repository `{repository}` cannot be used")]
    Key {
        /// Which repository.
        repository: String,
        /// Why.
        #[source]
        source: store::signature::SignatureError,
    },
    /// A Release file.
    #[error("the Release file of repository `{repository}`")]
    Release {
        /// Which repository.
        repository: String,
        /// What is wrong with it.
        #[source]
        source: Box<debian::index::ReleaseError>,
    },
    /// A Packages file.
    #[error("the package index {path} of repository `{repository}`")]
    Packages {
        /// Which repository.
        repository: String,
        /// Which index.
        path: String,
        /// What is wrong with it.
        #[source]
        source: Box<debian::index::PackagesError>,
    },
    /// Choosing packages.
    #[error(transparent)]
    Resolve(#[from] plan::resolve::ResolveError),
    /// Unpacking packages.
    #[error(transparent)]
    Unpack(#[from] base::archive::UnpackError),
    /// The machine cannot emulate the device.
    #[error(
        "this machine's architecture, {host}, is neither the device's ({device}) nor one that the lock has an emulator for"
    )]
    NoEmulator {
        /// This machine.
        host: String,
        /// The device.
        device: String,
    },
    /// The emulator's package has no emulator in it.
    #[error("package `{package}` has no file {path}")]
    EmulatorFile {
        /// The package.
        package: String,
        /// What was looked for.
        path: &'static str,
    },
    /// Running maintainer scripts.
    #[error(transparent)]
    Sandbox(#[from] sandbox::SandboxError),
    /// A layer could not be kept.
    #[error(transparent)]
    Layer(#[from] store::layer::LayerError),
    /// An overlay or a file of the profile.
    #[error(transparent)]
    Overlay(#[from] transform::overlay::OverlayError),
    /// Accounts.
    #[error(transparent)]
    Accounts(#[from] transform::accounts::AccountError),
    /// Units.
    #[error(transparent)]
    Services(#[from] transform::services::ServiceError),
    /// Something in the tree is not where it should be.
    #[error(transparent)]
    Tree(#[from] tree::TreeError),
    /// dpkg's database in the tree.
    #[error(transparent)]
    Database(#[from] debian::dpkg::DatabaseError),
    /// The image as a value.
    #[error(transparent)]
    Image(#[from] image::ImageError),
    /// The image as a file.
    #[error(transparent)]
    Write(#[from] image::write::WriteError),
    /// A file beside the image.
    #[error("writing {}", path.display())]
    Output {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file in the cache.
    #[error("{attempt} {}", path.display())]
    Cache {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Ctrl-C.
    #[error("interrupted")]
    Cancelled,
}

impl From<tree::PathError> for Error {
    fn from(error: tree::PathError) -> Self {
        Self::Tree(error.into())
    }
}

impl Error {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Sources(error) => Some(error.hint()),
            Self::NoSecurity { .. } => {
                Some("set `security = false` in [base], or use a mirror whose path ends in `/debian`".into())
            }
            Self::Sandbox(error) => error.hint(),
            Self::NoEmulator { .. } => {
                Some("make the lock again on this machine: `hardtack lock --update`".into())
            }
            Self::Release { source, .. }
                if matches!(**source, debian::index::ReleaseError::Expired { .. }) =>
            {
                Some("the mirror has stopped following Debian: try another with --mirror".into())
            }
            _ => None,
        }
    }

    /// Whether somebody asked for it to stop.
    pub fn is_cancelled(&self) -> bool {
        matches!(
            self,
            Self::Cancelled
                | Self::Store(store::Error::Cancelled)
                | Self::Unpack(base::archive::UnpackError::Cancelled)
                | Self::Sandbox(sandbox::SandboxError::Cancelled)
                | Self::Write(image::write::WriteError::Cancelled { .. })
        )
    }

    /// Whether the user's input has to change, rather than the machine or hardtack.
    pub fn is_input(&self) -> bool {
        matches!(
            self,
            Self::Url { .. }
                | Self::Sources(_)
                | Self::NoSecurity { .. }
                | Self::Resolve(_)
                | Self::Overlay(_)
                | Self::Accounts(_)
                | Self::Services(_)
                | Self::Image(_)
                | Self::Cancelled
        )
    }
}
