//! Many objects at once: what is missing is downloaded in parallel, checked, and only then put in its place.

use super::error::{Asked, Error};
use super::http::Client;
use super::partial::{Claim, Partial};
use super::sink::{Memory, Sink as _};
use super::{Object, Progress, Stop, Store, Url};
use crate::digest::Sha256;
use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Connections at once when nothing else is said.
pub const JOBS: usize = 8;

/// More connections than this help nobody, and mirrors count them.
const MAX_JOBS: usize = 64;

/// An object that is needed, and where it may be had.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Addresses, the best first; the next is asked when one does not have it or has something else.
    pub urls: Vec<Url>,
    /// The digest of its bytes.
    pub sha256: Sha256,
    /// Its length in bytes.
    pub size: u64,
    /// What people call it: a file name.
    pub label: String,
}

impl Store {
    /// Brings every object into the store, over `jobs` connections (at least one), and returns them in the order they
    /// were wanted. What is here already is not asked for. The first failure stops the others; what they have stays
    /// in `partial/` and is taken up by the next run. `cancel` does the same at any time.
    pub fn fetch(
        &self,
        wanted: &[Wanted],
        jobs: usize,
        progress: &dyn Progress,
        cancel: &AtomicBool,
    ) -> Result<Vec<Object>, Error> {
        let missing = self.missing(wanted);
        if !missing.is_empty() {
            let Some(client) = &self.client else {
                let missing = missing.iter().map(|wanted| wanted.label.clone()).collect();
                return Err(Error::Offline { missing });
            };
            self.download(client, &missing, jobs, progress, cancel)?;
        }
        let object = |wanted: &Wanted| {
            let here = self.object_of_size(&wanted.sha256, wanted.size);
            here.ok_or_else(|| {
                let gone = std::io::ErrorKind::NotFound.into();
                Error::io("find", &self.object_path(&wanted.sha256))(gone)
            })
        };
        wanted.iter().map(object).collect()
    }

    /// A file of unknown digest, in memory: for release files, which a signature vouches for. Every address is asked
    /// in turn while the one before answers that it does not have it.
    pub(super) fn fetch_unverified(
        &self,
        url: &Url,
        label: &str,
        limit: u64,
        progress: &dyn Progress,
        cancel: &AtomicBool,
    ) -> Result<Vec<u8>, Error> {
        let Some(client) = &self.client else {
            return Err(Error::Offline { missing: vec![label.to_owned()] });
        };
        let mut memory = Memory { bytes: Vec::new(), limit };
        let stop = Stop { user: cancel, sibling: &AtomicBool::new(false) };
        client.get(url, label, &mut memory, progress, stop)?;
        Ok(memory.bytes)
    }

    /// What is not here, each digest once, the largest first so that no long download is left for the end.
    fn missing<'a>(&self, wanted: &'a [Wanted]) -> Vec<&'a Wanted> {
        let mut missing = BTreeMap::new();
        for want in wanted {
            if self.object_of_size(&want.sha256, want.size).is_none() {
                missing.entry(want.sha256).or_insert(want);
            }
        }
        let mut missing: Vec<&Wanted> = missing.into_values().collect();
        missing.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.label.cmp(&b.label)));
        missing
    }

    fn download(
        &self,
        client: &Client,
        missing: &[&Wanted],
        jobs: usize,
        progress: &dyn Progress,
        cancel: &AtomicBool,
    ) -> Result<(), Error> {
        let left = |want: &&Wanted| want.size.saturating_sub(self.left_behind(&want.sha256));
        let needed = missing.iter().map(left).fold(0, u64::saturating_add);
        if let Some(free) = self.free().filter(|free| *free < needed) {
            return Err(Error::DiskFull { directory: self.root.clone(), needed, free });
        }
        progress.planned(missing.len(), needed);

        let next = AtomicUsize::new(0);
        let sibling = AtomicBool::new(false);
        let failures = Mutex::new(BTreeMap::new());
        thread::scope(|scope| {
            for _ in 0..jobs.clamp(1, MAX_JOBS).min(missing.len()) {
                scope.spawn(|| {
                    while let Some(want) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let stop = Stop { user: cancel, sibling: &sibling };
                        match self.fetch_one(client, want, progress, stop) {
                            Ok(_) => progress.finished(&want.label),
                            Err(error) => {
                                // A sibling that only stopped because of the flag has nothing to say.
                                let first = !sibling.swap(true, Ordering::Relaxed);
                                if first || !matches!(error, Error::Cancelled) {
                                    let mut failures =
                                        failures.lock().unwrap_or_else(|poison| poison.into_inner());
                                    failures.insert(want.label.clone(), error);
                                }
                                return;
                            }
                        }
                    }
                });
            }
        });
        let failures = failures.into_inner().unwrap_or_else(|poison| poison.into_inner());
        // By name, not by time: the same failure gives the same message. Being cancelled is said last.
        let mut failures: Vec<Error> = failures.into_values().collect();
        failures.sort_by_key(|error| matches!(error, Error::Cancelled));
        failures.into_iter().next().map_or(Ok(()), Err)
    }

    fn fetch_one(
        &self,
        client: &Client,
        want: &Wanted,
        progress: &dyn Progress,
        stop: Stop,
    ) -> Result<Object, Error> {
        stop.check()?;
        if let Some(object) = self.object(&want.sha256).filter(|object| object.size != want.size) {
            // Cut short by a power failure. If someone else mended it meanwhile, that one is gone too and made again.
            fs::remove_file(object.path()).map_err(Error::io("remove the damaged", object.path()))?;
        }
        let mut partial = match self.claim(&want.sha256, want.size, stop)? {
            Claim::Done(object) => return Ok(object),
            Claim::Ours(partial) => partial,
        };
        let mut failure = None;
        for url in &want.urls {
            match try_address(client, url, want, &mut partial, progress, stop) {
                Ok(object) => return Ok(object),
                Err(error) if error.is_about_one_address() => {
                    // What another address said is more telling than that the last one has no such file.
                    if failure.is_none() || !matches!(error, Error::NotFound { .. }) {
                        failure = Some(error);
                    }
                }
                Err(error) => {
                    partial.leave();
                    return Err(error);
                }
            }
        }
        let gone = std::io::ErrorKind::NotFound.into();
        let error = failure.unwrap_or_else(|| Error::io("find an address for", want.label.as_ref())(gone));
        // Keep the beginning of a good file, never a wrong one.
        if matches!(error, Error::Unreachable { .. }) {
            partial.leave()
        } else {
            partial.discard()
        }
        Err(error)
    }
}

fn try_address(
    client: &Client,
    url: &Url,
    want: &Wanted,
    partial: &mut Partial,
    progress: &dyn Progress,
    stop: Stop,
) -> Result<Object, Error> {
    let mut again = true;
    loop {
        client.get(url, &want.label, partial, progress, stop)?;
        let patched = partial.is_patched();
        let found = match partial.finish()? {
            Ok(object) => return Ok(object),
            Err(found) => found,
        };
        let html = partial.is_html();
        progress.lost(partial.have());
        partial.restart()?;
        // Put together from several answers, maybe of different files: once more from the start, but only once, or a
        // server that always breaks off and always lies would keep us for ever.
        if !(patched && again) {
            let asked = Asked::new(&want.label, url);
            return Err(Error::Digest { asked, expected: want.sha256, found, html });
        }
        again = false;
    }
}
