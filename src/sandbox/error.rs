//! Why a run gave no result.

use super::host;
use std::io;
use std::path::PathBuf;

/// Why maintainer scripts could not be run, or what they did wrong.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// No user namespace, or one without its rights.
    #[error("the kernel refused the sandbox: {what}")]
    Refused {
        /// What was attempted.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// `newuidmap` or `newgidmap` is missing.
    #[error("{} is missing: without root, the ids of the image's users cannot be used", tool.display())]
    NoIdTool {
        /// Which.
        tool: PathBuf,
    },
    /// Not enough subordinate ids.
    #[error("user {user} has {found} ids in {}; a Debian system needs 65535", file.display())]
    NoIds {
        /// subuid(5), subgid(5), or a container's own map.
        file: PathBuf,
        /// Whose.
        user: String,
        /// How many there are.
        found: u64,
    },
    /// `newuidmap` or `newgidmap` refused.
    #[error("{} failed: {said}", tool.display())]
    IdToolFailed {
        /// Which.
        tool: PathBuf,
        /// What it wrote.
        said: String,
    },
    /// Too old for a binfmt_misc of one's own, and the host has none that would do.
    #[error(
        "programs for arm64 cannot be run here: Linux {found} has no private binfmt_misc, which came with 6.7"
    )]
    NoEmulation {
        /// The running kernel's version.
        found: String,
    },
    /// Something failed on the way that has nothing to do with the target.
    #[error("{what}")]
    Io {
        /// What was attempted.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The child ended without a word.
    #[error("the sandbox ended unexpectedly ({status}){}", if said.is_empty() { String::new() } else { format!(": {said}") })]
    Died {
        /// How it ended.
        status: String,
        /// What it wrote to standard error.
        said: String,
    },
    /// A step failed.
    #[error("{}", failed_step(label, package, script, status))]
    Step {
        /// The step's label.
        label: String,
        /// The package at fault, when dpkg names one.
        package: Option<String>,
        /// Its script, in dpkg's words (`post-installation`).
        script: Option<String>,
        /// `exit status 1`, `signal 9`.
        status: String,
        /// The last lines it wrote.
        last: Vec<String>,
    },
    /// A program of the host's architecture would have been left in the result.
    #[error("{path}: the scripts left a program of this computer's architecture in the image")]
    HostProgram {
        /// Where.
        path: crate::tree::TreePath,
    },
    /// A file names a path that exists during a run only.
    #[error("{path}: the scripts wrote a path of the sandbox into the image")]
    Trace {
        /// Where.
        path: crate::tree::TreePath,
    },
    /// The run was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl SandboxError {
    pub(super) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// The next step for the user, when there is one to name.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { what, source } => {
                if let Some(refusal) = host::refusal() {
                    return Some(refusal.to_owned());
                }
                let full = source.raw_os_error() == Some(rustix::io::Errno::NOSPC.raw_os_error());
                full.then(|| format!("a limit is reached ({what}): see /proc/sys/user/max_*_namespaces"))
            }
            Self::NoIdTool { .. } => Some("`sudo apt install uidmap`".into()),
            Self::NoIds { user, .. } if user != "root" => Some(format!(
                "`sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}` \
                 (choose a range nobody else has in /etc/subuid)"
            )),
            Self::NoEmulation { .. } => Some(
                "use a kernel of 6.7 or newer, or `sudo apt install qemu-user-static` to register the emulator for \
                 the whole host"
                    .into(),
            ),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("free space in the scratch directory".into())
            }
            _ => None,
        }
    }
}

fn failed_step(label: &str, package: &Option<String>, script: &Option<String>, status: &str) -> String {
    match (package, script) {
        (Some(package), Some(script)) => {
            format!("{label}: the {script} script of package {package} failed ({status})")
        }
        (Some(package), None) => format!("{label}: package {package} failed ({status})"),
        _ => format!("{label} failed ({status})"),
    }
}

/// Finds the package and the script at fault in what dpkg wrote (lib/dpkg and src/main/errors.c: `error processing package
/// NAME (--configure):`, then `installed NAME package post-installation script subprocess returned error exit status N`).
pub(super) fn culprit(lines: &[String]) -> (Option<String>, Option<String>) {
    let mut package = None;
    let mut script = None;
    for line in lines {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("dpkg: error processing package ") {
            package = package.or_else(|| rest.split_whitespace().next().map(str::to_owned));
        } else if let Some(rest) = line.strip_prefix("dpkg: error processing archive ") {
            let name = rest.split_whitespace().next().and_then(|path| path.rsplit('/').next());
            package = package.or_else(|| name.map(str::to_owned));
        } else if let Some((before, _)) = line.split_once(" script subprocess ") {
            script = script.or_else(|| before.split_whitespace().next_back().map(str::to_owned));
        }
    }
    (package, script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_culprit_is_read_from_dpkgs_own_words() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let configure = "dpkg: error processing package adduser (--configure):\n \
            installed adduser package post-installation script subprocess returned error exit status 1\n\
            Errors were encountered while processing:\n adduser\n";
        assert_eq!(culprit(&lines(configure)), (Some("adduser".into()), Some("post-installation".into())));
        let unpack = "dpkg: error processing archive /.hardtack/in/x_1_all.deb (--unpack):\n \
            new x package pre-installation script subprocess returned error exit status 3\n";
        assert_eq!(culprit(&lines(unpack)), (Some("x_1_all.deb".into()), Some("pre-installation".into())));
        assert_eq!(culprit(&lines("sed: no such file")), (None, None));
    }
}
