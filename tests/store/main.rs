//! The store against servers, disks and signers that misbehave. Network only on the loopback, but for one test that asks
//! the mirror this machine's apt uses.

mod disk;
mod mirror;
mod repository;
mod server;
mod sharing;
mod signature;
mod transfer;

use hardtack::digest::Sha256;
use hardtack::store::{Client, Error, Object, Patience, Progress, Proxies, Store, Trouble, Url, Wanted};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A store of its own, patience that does not wait, and notes of what happened.
struct Bench {
    directory: tempfile::TempDir,
    slept: Arc<Mutex<Vec<Duration>>>,
    cancel: AtomicBool,
    progress: Counting,
    proxies: Proxies,
}

/// Adds up what a fetch reports.
#[derive(Default)]
struct Counting {
    bytes: AtomicI64,
    retries: Mutex<Vec<String>>,
    finished: Mutex<Vec<String>>,
}

impl Progress for Counting {
    fn advanced(&self, bytes: u64) {
        self.bytes.fetch_add(bytes as i64, Ordering::Relaxed);
    }

    fn lost(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes as i64, Ordering::Relaxed);
    }

    fn finished(&self, label: &str) {
        self.finished.lock().unwrap().push(label.into());
    }

    fn retrying(&self, _: &str, _: u32, _: Duration, why: &Trouble) {
        self.retries.lock().unwrap().push(why.to_string());
    }
}

impl Bench {
    fn new() -> Self {
        Self::in_directory(tempfile::tempdir().unwrap())
    }

    fn in_directory(directory: tempfile::TempDir) -> Self {
        Self {
            directory,
            slept: Arc::default(),
            cancel: AtomicBool::new(false),
            progress: Counting::default(),
            proxies: Proxies::direct(),
        }
    }

    fn offline(&self) -> Store {
        Store::open(self.directory.path()).unwrap()
    }

    fn store(&self) -> Store {
        let slept = self.slept.clone();
        let patience = Patience {
            stall: Duration::from_millis(400),
            sleep: Arc::new(move |pause| slept.lock().unwrap().push(pause)),
            ..Patience::default()
        };
        self.offline().online(Client::new(self.proxies.clone(), patience).unwrap())
    }

    fn fetch(&self, wanted: &[Wanted]) -> Result<Vec<Object>, Error> {
        self.store().fetch(wanted, 4, &self.progress, &self.cancel)
    }

    /// Names of the files in a part of the store.
    fn files(&self, part: &str) -> Vec<String> {
        let mut names = Vec::new();
        let mut open = vec![self.directory.path().join(part)];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        names.sort();
        names
    }
}

/// `len` bytes that differ from place to place and from `seed` to `seed`.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn wanted(urls: &[Url], body: &[u8]) -> Wanted {
    let label = urls[0].path().rsplit('/').next().unwrap().to_owned();
    Wanted { urls: urls.to_vec(), sha256: Sha256::of(body), size: body.len() as u64, label }
}

/// The message with its causes, and the hint, as the command line shows them.
fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text + &error.hint().map(|hint| format!(" hint: {hint}")).unwrap_or_default()
}
