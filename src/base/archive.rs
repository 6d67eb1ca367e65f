//! Unpacks Debian packages into a tree, in parallel and natively: what `dpkg --unpack` does, without running it.
//!
//! Every package is decompressed on its own, its contents into a pack. Then the lists of files are merged one package
//! after the other, in an order that depends on the packages alone, by dpkg's rules; so the result does not depend on
//! which thread was first. Last, dpkg's database is written as it stands after unpacking: every package `install ok
//! unpacked`, configuration files as `.dpkg-new`, ready for `dpkg --configure`.
//!
//! # What does not happen here
//!
//! `preinst` scripts do not run; the sandbox runs them after unpacking instead of before. For a new installation that
//! makes a difference only where such a script touches what packages ship. Of the 38 in trixie's minimal set (and 6
//! more with Samba, unbound and dnsmasq) most act on upgrades alone (`dpkg-maintscript-helper` does, too). The others:
//!
//! | package | what its preinst does at a first installation |
//! |---|---|
//! | `base-passwd` | makes `/etc/passwd` and `/etc/group`, which no package ships |
//! | `base-files`, `libc6`, `libext2fs2t64`, `libreadline8t64`, `libtirpc3t64` | divert paths that no package ships since `/usr` was merged (below `/lib`, or `/lib64` and its like) |
//! | `linux-image-*` | makes `/lib/modules/VERSION/.fresh-install`, runs `/etc/kernel/preinst.d` |
//! | `ifupdown`, `python3.13-minimal` | make `/etc/network`, `/var/lib/python/python3.13_installed` |
//! | `libnewt0.52`, `python3` | clear away what old versions left: nothing |
//! | `libpam-modules` | starts debconf, asks nothing |
//!
//! Packages whose script would make a difference are [held](Held) and left to the real dpkg: none of these.

mod extract;
mod hold;
mod merge;
mod order;

use crate::content::ReadAt;
use crate::debian::deb::{Control, Deb, DebError};
use crate::debian::dpkg::{self, DatabaseError};
use crate::meta::Timestamp;
use crate::pack::PackWriter;
use crate::tree::{Tree, TreeError};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;

pub use hold::Held;

/// A package file, and what the archive's index said it is.
#[derive(Clone)]
pub struct DebToUnpack {
    /// Name of the file, for messages.
    pub label: String,
    /// `Package`.
    pub name: String,
    /// `Version`.
    pub version: String,
    /// `Architecture`.
    pub architecture: String,
    /// The file.
    pub source: Arc<dyn ReadAt>,
    /// Its length in bytes.
    pub len: u64,
}

/// How to unpack.
pub struct Options<'a> {
    /// Time of everything that has none of its own, such as dpkg's database.
    pub epoch: Timestamp,
    /// Threads.
    pub jobs: NonZeroUsize,
    /// Told how many bytes of all packages' files were read so far. Called from several threads.
    pub progress: &'a (dyn Fn(u64) + Sync),
    /// Set from outside to stop early, with [`UnpackError::Cancelled`].
    pub cancel: &'a AtomicBool,
}

/// What unpacking gave.
pub struct Unpacked {
    /// The base with all packages that are not held in it, and dpkg's database.
    pub tree: Tree,
    /// The packages in the order in which they were merged, as their own control data names them. The sandbox runs
    /// `preinst` scripts in this order.
    pub packages: Vec<Control>,
    /// Packages that were left out, for the real dpkg to unpack: by their place in the list given, with the reason.
    pub held: Vec<Held>,
}

/// Why packages could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// A package file is damaged or hostile.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// A package is not what the index promised.
    #[error("the package file `{label}` says it is {found}; the archive's index said {expected}")]
    Identity {
        /// The file.
        label: String,
        /// `name version architecture` of the index.
        expected: String,
        /// `name version architecture` of the package.
        found: String,
    },
    /// A file in a package that has no place in a tree.
    #[error("package `{package}`: file `{path}`: {problem}")]
    File {
        /// Name of the package.
        package: String,
        /// The path, as the package spells it.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of a package that cannot be put where it belongs.
    #[error("cannot put the files of package `{package}` into the tree")]
    Tree {
        /// Name of the package.
        package: String,
        /// Why.
        #[source]
        source: TreeError,
    },
    /// Two packages own one path, and neither replaces the other.
    #[error(
        "packages `{first}` and `{second}` both have `{path}`, and neither says that it replaces the other"
    )]
    Conflict {
        /// The path, from the root.
        path: String,
        /// The package unpacked first.
        first: String,
        /// The other.
        second: String,
    },
    /// A path is the target of another package's diversion.
    #[error(
        "package `{package}` has `{path}`, which is where a diversion (dpkg-divert) put another package's file"
    )]
    Diverted {
        /// The path, from the root.
        path: String,
        /// The package.
        package: String,
    },
    /// The contents could not be stored.
    #[error("cannot store the contents of package `{package}`")]
    Store {
        /// Name of the package.
        package: String,
        /// Why: the disk is full, most likely.
        #[source]
        source: std::io::Error,
    },
    /// dpkg's database in the base cannot be read, or the new one not be written.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Stopped through [`Options::cancel`].
    #[error("unpacking was cancelled")]
    Cancelled,
}

/// Unpacks packages on top of `base` (an empty tree, or one with a dpkg database of its own): contents into `pack`,
/// everything else into the tree.
pub fn unpack(
    base: Tree,
    debs: &[DebToUnpack],
    pack: &PackWriter,
    options: &Options<'_>,
) -> Result<Unpacked, UnpackError> {
    let database = dpkg::Database::read(&base)?;
    let mut packages = Vec::with_capacity(debs.len());
    let opened = open_all(debs, options)?;
    let held = hold::find(&opened, &database);
    let keep: Vec<usize> =
        (0..debs.len()).filter(|index| !held.iter().any(|held| held.index == *index)).collect();
    let mut extracted = extract_all(&opened, &keep, pack, options)?;
    let mut merge = merge::Merge::new(base, database)?;
    let controls: Vec<&Control> = opened.iter().map(|package| &package.control).collect();
    for index in order::order(&controls) {
        if let Some(members) = extracted[index].take() {
            merge.add(&opened[index].control, members)?;
            packages.push(opened[index].control.clone());
        }
    }
    let tree = merge.finish(options.epoch)?;
    Ok(Unpacked { tree, packages, held })
}

/// A package file with its control data.
struct Opened {
    deb: Deb,
    control: Control,
    len: u64,
}

fn open_all(debs: &[DebToUnpack], options: &Options<'_>) -> Result<Vec<Opened>, UnpackError> {
    let results = in_parallel(debs.len(), options, |index| {
        let wanted = &debs[index];
        let deb = Deb::open(&wanted.label, wanted.source.clone(), wanted.len)?;
        let control = deb.control()?;
        let expected = format!("{} {} {}", wanted.name, wanted.version, wanted.architecture);
        let found = format!("{} {} {}", control.name, control.version, control.architecture);
        if expected != found {
            return Err(UnpackError::Identity { label: wanted.label.clone(), expected, found });
        }
        Ok(Opened { deb, control, len: wanted.len })
    })?;
    Ok(results.into_iter().flatten().collect())
}

fn extract_all(
    opened: &[Opened],
    keep: &[usize],
    pack: &PackWriter,
    options: &Options<'_>,
) -> Result<Vec<Option<extract::Files>>, UnpackError> {
    // The heaviest first: the last thread to finish then has little left to do.
    let mut heaviest = keep.to_vec();
    heaviest.sort_by_key(|index| (std::cmp::Reverse(opened[*index].len), *index));
    let done = AtomicU64::new(0);
    let tick = |bytes: u64| (options.progress)(done.fetch_add(bytes, Ordering::Relaxed) + bytes);
    let results = in_parallel(heaviest.len(), options, |place| {
        let package = &opened[heaviest[place]];
        extract::extract(&package.deb, &package.control, pack, &tick, options.cancel)
    })?;
    let mut files: Vec<Option<extract::Files>> = opened.iter().map(|_| None).collect();
    for (index, result) in heaviest.into_iter().zip(results) {
        files[index] = result;
    }
    Ok(files)
}

/// Runs `work` for 0 to `count` on several threads. Of several errors the one with the lowest number is given, so that
/// messages do not depend on the threads either; after an error no new work is begun.
fn in_parallel<T: Send>(
    count: usize,
    options: &Options<'_>,
    work: impl Fn(usize) -> Result<T, UnpackError> + Sync,
) -> Result<Vec<Option<T>>, UnpackError> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    let mut results: Vec<Option<T>> = (0..count).map(|_| None).collect();
    let mut error: Option<(usize, UnpackError)> = None;
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.get().min(count) {
            let sender = sender.clone();
            let (next, failed, work) = (&next, &failed, &work);
            scope.spawn(move || {
                while !failed.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    let result = if options.cancel.load(Ordering::Relaxed) {
                        Err(UnpackError::Cancelled)
                    } else {
                        work(index)
                    };
                    failed.fetch_or(result.is_err(), Ordering::Relaxed);
                    if sender.send((index, result)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (index, result) in receiver {
            match result {
                Ok(value) => results[index] = Some(value),
                Err(new) if error.as_ref().is_none_or(|(first, _)| index < *first) => {
                    error = Some((index, new))
                }
                Err(_) => {}
            }
        }
    });
    error.map_or(Ok(results), |(_, error)| Err(error))
}

#[cfg(test)]
mod tests;
