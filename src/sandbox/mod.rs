//! The sandbox: runs maintainer scripts of Debian packages on a tree, and gives back the exact difference.
//!
//! Linux only, without root or with it. A run has namespaces of its own (user, mount, pid, network, ipc, uts, cgroup): no
//! network but loopback, no file of the host, no process but its own. The tree is laid out in a scratch place, an overlay file
//! system goes on top, and what is in the overlay's upper directory at the end is the result. Programs of the target's
//! architecture run under QEMU in user mode, or as their native [twins].
//!
//! `main` must call [`child_main`] first: the sandbox runs this same program again as its child.

mod child;
mod collect;
pub mod configure;
mod dispatch;
mod elf;
mod error;
mod host;
mod lay;
pub mod normalise;
mod run;
pub mod twins;
mod wire;
mod world;

pub use child::child_main;
pub use error::SandboxError;
pub use host::Host;
pub use run::run;

use crate::content::Content;
use crate::meta::Meta;
use crate::pack::PackWriter;
use crate::tree::diff::Change;
use crate::tree::{Kind, Tree, TreePath};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// One program to run in the tree, as root of it.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// What it is called in messages.
    pub label: String,
    /// Program (found by the `PATH` of the environment) and arguments.
    pub argv: Vec<Vec<u8>>,
    /// What it reads from standard input.
    pub input: Vec<u8>,
    /// Its environment, complete; see [`environment`].
    pub environment: Vec<(String, String)>,
}

impl Step {
    /// A step with the usual environment and nothing on standard input.
    pub fn new(label: impl Into<String>, argv: &[&str], epoch: i64) -> Self {
        Self {
            label: label.into(),
            argv: argv.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
            input: Vec::new(),
            environment: environment(epoch),
        }
    }
}

/// Something that is in the tree for the run only: it hides what is there, and never comes back.
#[derive(Clone, Debug)]
pub struct Prop {
    /// Where.
    pub path: TreePath,
    /// Its metadata.
    pub meta: Meta,
    /// What it is.
    pub kind: Kind,
}

/// Where the tree is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// In memory when it fits easily, else on disk.
    #[default]
    Auto,
    /// In memory (tmpfs).
    Memory,
    /// In the scratch directory.
    Disk,
}

/// What to run, on what.
pub struct Job<'a> {
    /// The tree. Device nodes in it are not laid out (a user namespace may not make any) and stay as they are.
    pub tree: &'a Tree,
    /// `qemu-aarch64`, statically linked, of the host's architecture; `None` when the host runs the target's programs itself.
    pub emulator: Option<&'a Content>,
    /// Native programs to run in place of the tree's, see [`twins`]. Without an emulator they are not used.
    pub twins: Option<&'a twins::Twins>,
    /// Files for the run, seen by steps as `/.hardtack/in/NAME`; packages to be unpacked by dpkg itself.
    pub inputs: &'a [(String, Content)],
    /// What is in the tree for the run only.
    pub props: &'a [Prop],
    /// The programs, in order. The first that fails ends the run.
    pub steps: &'a [Step],
    /// A directory on the host's disk, for this run and others; made when missing. What earlier runs left there is deleted.
    pub scratch: &'a Path,
    /// Where to lay out.
    pub place: Place,
    /// Where the contents of new files go.
    pub pack: &'a PackWriter,
    /// Set by another thread to give up.
    pub cancel: &'a AtomicBool,
    /// Where things are on the host.
    pub host: Host,
}

/// What a run tells while it goes on.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The tree is laid out and mounted.
    Ready,
    /// A step begins.
    Step {
        /// Its place in the list.
        index: usize,
        /// Its label.
        label: &'a str,
    },
    /// A line of a step's output, without its end, at most 4,096 bytes, invalid UTF-8 replaced.
    Line(&'a str),
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// From the tree to the result, for [`Tree::apply`].
    pub changes: Vec<Change>,
    /// How long laying out took, each step (by label), and collecting.
    pub times: Vec<(String, Duration)>,
    /// Everything the steps wrote, at most the last 4 MiB.
    pub log: String,
}

/// The environment of every step: nothing of the user's, and the same everywhere.
pub fn environment(epoch: i64) -> Vec<(String, String)> {
    [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("USER", "root"),
        ("LOGNAME", "root"),
        ("SHELL", "/bin/sh"),
        ("TERM", "dumb"),
        ("TZ", "UTC"),
        // Always there in Debian's libc, whatever locales are generated.
        ("LC_ALL", "C.UTF-8"),
        ("LANG", "C.UTF-8"),
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
        // There is no systemd to talk to (docs/ENVIRONMENT.md of systemd).
        ("SYSTEMD_OFFLINE", "1"),
        // An initramfs is made once, at the end, not by each package that wants one.
        ("INITRD", "No"),
        // Byte code is compiled by py3compile alone: what an import would write depends on which program ran first.
        ("PYTHONDONTWRITEBYTECODE", "1"),
        // Perl's hashes, and Python's, in one order.
        ("PERL_HASH_SEED", "0"),
        ("PYTHONHASHSEED", "0"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .chain([("SOURCE_DATE_EPOCH".to_owned(), epoch.to_string())])
    .collect()
}
