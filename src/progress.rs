//! How a build tells what it is doing. The pipeline prints nothing; whoever calls it listens.

/// A stage of a build that takes long enough to be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Reading package indexes and choosing packages.
    Resolve,
    /// Fetching packages; counted in bytes.
    Download,
    /// Unpacking packages into a tree; counted in bytes of package files.
    Unpack,
    /// Running maintainer scripts; counted in packages.
    Configure,
    /// Making the boot files: initramfs, firmware, kernel.
    Boot,
    /// Writing the image; counted in bytes.
    Write,
}

impl Stage {
    /// The word shown.
    pub fn word(self) -> &'static str {
        match self {
            Stage::Resolve => "resolve",
            Stage::Download => "download",
            Stage::Unpack => "unpack",
            Stage::Configure => "configure",
            Stage::Boot => "boot",
            Stage::Write => "write",
        }
    }

    /// Whether it is counted in bytes; in things otherwise.
    pub fn in_bytes(self) -> bool {
        matches!(self, Stage::Download | Stage::Unpack | Stage::Write)
    }
}

/// Somebody who watches a build. Called from several threads.
pub trait Progress: Send + Sync {
    /// A stage begins; `total` in its unit, zero when not known. Stages do not overlap, but one may come again.
    fn begin(&self, stage: Stage, what: &str, total: u64);

    /// So much of the current stage is done, from its beginning.
    fn reach(&self, done: u64);

    /// What is being worked on within the stage: a package, a file.
    fn detail(&self, text: &str);

    /// The stage is over.
    fn end(&self);

    /// Something worth a line of its own.
    fn note(&self, text: &str);
}

/// Nobody watches.
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: Stage, _: &str, _: u64) {}
    fn reach(&self, _: u64) {}
    fn detail(&self, _: &str) {}
    fn end(&self) {}
    fn note(&self, _: &str) {}
}
