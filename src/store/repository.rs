//! A Debian repository seen through the store: the signed release file of a suite, then the indexes it vouches for.
//!
//! What a release file *says* is `debian::index`'s business; here are only addresses, digests and signatures. Offline,
//! the release file that was last verified is taken from the store and verified again.

use super::error::{Asked, Error};
use super::fetch::Wanted;
use super::signature::{Keyring, MAX_RELEASE, MAX_SIGNATURE, SignatureError, Verified};
use super::{Object, Progress, Store, Url, shown};
use crate::digest::Sha256;
use std::io::{BufReader, Read};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::SystemTime;

/// No index is longer than this when unpacked: `Packages` of Debian's main has 60 MB, `Contents` 500.
const MAX_INDEX: u64 = 1 << 30;

/// Memory the xz decoder may take, in KiB: four times the largest dictionary of a preset.
const XZ_MEMORY: u32 = 256 << 10;

/// The compressions an index may come in, the best first, with the ending of the file name.
const CODECS: [(&str, Codec); 3] = [(".xz", Codec::Xz), (".gz", Codec::Gzip), ("", Codec::Plain)];

/// The door to one or more repositories.
#[derive(Clone, Copy)]
pub struct Repository<'a> {
    /// Where everything ends up.
    pub store: &'a Store,
    /// The clock that keys are judged by; handed in, as every clock.
    pub now: SystemTime,
    /// Is told what happens.
    pub progress: &'a dyn Progress,
    /// Stops everything when set.
    pub cancel: &'a AtomicBool,
}

/// The release file of a suite, with the signature taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedRelease {
    /// What was signed: to be read by `debian::index::Release::parse`.
    pub payload: Vec<u8>,
    /// Fingerprint of the certificate that signed.
    pub signer: String,
    /// When.
    pub signed_at: SystemTime,
    /// The store's object with the file as it came, signature included (for `InRelease`; else the `Release` file).
    pub object: Object,
}

/// An index and where it is.
pub struct IndexRequest<'a> {
    /// The archive, without `dists/…`.
    pub base: &'a Url,
    /// The suite as it was asked for.
    pub suite: &'a str,
    /// Path below the suite's directory without a compression's ending: `main/binary-arm64/Packages`.
    pub path: &'a str,
    /// What the release file lists for a path: digest and size in bytes.
    pub listed: &'a (dyn Fn(&str) -> Option<(Sha256, u64)> + Sync),
    /// Whether the release file says `Acquire-By-Hash: yes`.
    pub by_hash: bool,
}

impl Repository<'_> {
    /// Gets the release file of a suite and verifies it: `InRelease`, or `Release` with `Release.gpg` where there is none.
    pub fn fetch_release(&self, base: &Url, suite: &str, keys: &Keyring) -> Result<VerifiedRelease, Error> {
        let url = |name: &str| url_of(base, &in_suite(suite, name));
        let (signed, plain, beside) = (url("InRelease")?, url("Release")?, url("Release.gpg")?);
        if self.store.is_offline() {
            return match self.recall(&signed) {
                Ok(file) => self.clear_signed(suite, &signed, &file, keys),
                Err(missing) => {
                    let (Ok(file), Ok(signature)) = (self.recall(&plain), self.recall(&beside)) else {
                        return Err(missing);
                    };
                    self.detached(suite, &plain, &file, &signature, keys)
                }
            };
        }
        match self.get(&signed, &format!("{suite} InRelease"), MAX_RELEASE) {
            Ok(file) => self.clear_signed(suite, &signed, &file, keys),
            Err(Error::NotFound { .. }) => {
                let file = self.get(&plain, &format!("{suite} Release"), MAX_RELEASE)?;
                let signature = self.get(&beside, &format!("{suite} Release.gpg"), MAX_SIGNATURE)?;
                let release = self.detached(suite, &plain, &file, &signature, keys)?;
                self.store.remember(beside.as_str(), "Release.gpg", &signature)?;
                self.store.forget(signed.as_str());
                Ok(release)
            }
            Err(error) => Err(error),
        }
    }

    /// Gets an index and unpacks it. The packed file is checked against the release file before it is unpacked, and
    /// what comes out is too where the release file lists that as well.
    pub fn fetch_index(&self, request: &IndexRequest) -> Result<Vec<u8>, Error> {
        let packed: Vec<(Codec, Wanted)> = CODECS
            .iter()
            .filter_map(|(ending, codec)| {
                let path = format!("{}{ending}", request.path);
                let (sha256, size) = (request.listed)(&path)?;
                Some(request.wanted(&path, sha256, size).map(|wanted| (*codec, wanted)))
            })
            .collect::<Result<_, _>>()?;
        let mut failure = Error::Unlisted {
            asked: Asked::new(request.path, request.base),
            suite: request.suite.to_owned(),
        };
        // Debian lists all three and keeps two: the next is worth a try only when one is not there.
        for (codec, wanted) in &packed {
            match self.store.fetch(std::slice::from_ref(wanted), 1, self.progress, self.cancel) {
                Ok(objects) => {
                    let object = objects.into_iter().next().ok_or(failure)?;
                    return unpack(*codec, &object, &wanted.label, (request.listed)(request.path));
                }
                Err(error @ (Error::NotFound { .. } | Error::Offline { .. })) => {
                    if matches!(failure, Error::Unlisted { .. }) {
                        failure = error;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }

    /// Gets several indexes at once, in the order asked for.
    pub fn fetch_indexes(&self, requests: &[IndexRequest]) -> Result<Vec<Vec<u8>>, Error> {
        thread::scope(|scope| {
            let running: Vec<_> =
                requests.iter().map(|request| scope.spawn(move || self.fetch_index(request))).collect();
            let results: Vec<_> = running
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect();
            results.into_iter().collect()
        })
    }

    fn clear_signed(
        &self,
        suite: &str,
        url: &Url,
        file: &[u8],
        keys: &Keyring,
    ) -> Result<VerifiedRelease, Error> {
        let verified = keys.verify_clear_signed(file, self.now);
        self.accept(suite, url, file, verified)
    }

    fn detached(
        &self,
        suite: &str,
        url: &Url,
        file: &[u8],
        signature: &[u8],
        keys: &Keyring,
    ) -> Result<VerifiedRelease, Error> {
        let verified = keys.verify_detached(file, signature, self.now);
        self.accept(suite, url, file, verified)
    }

    /// Only what was verified is remembered for offline use.
    fn accept(
        &self,
        suite: &str,
        url: &Url,
        file: &[u8],
        verified: Result<Verified, SignatureError>,
    ) -> Result<VerifiedRelease, Error> {
        let label = format!("{suite} {}", url.path().rsplit('/').next().unwrap_or_default());
        let Verified { payload, signer, signed_at, .. } =
            verified.map_err(|source| Error::Signature { asked: Asked::new(&label, url), source })?;
        let object = self.store.remember(url.as_str(), &label, file)?;
        Ok(VerifiedRelease { payload, signer, signed_at, object })
    }

    fn get(&self, url: &Url, label: &str, limit: u64) -> Result<Vec<u8>, Error> {
        self.store.fetch_unverified(url, label, limit, self.progress, self.cancel)
    }

    fn recall(&self, url: &Url) -> Result<Vec<u8>, Error> {
        let missing = || Error::Offline { missing: vec![shown(url)] };
        let object = self.store.remembered(url.as_str()).ok_or_else(missing)?;
        let mut bytes = Vec::new();
        object.open()?.take(MAX_RELEASE).read_to_end(&mut bytes).map_err(Error::io("read", object.path()))?;
        Ok(bytes)
    }
}

impl IndexRequest<'_> {
    /// By digest first: that address never changes its content, while the plain one may be replaced at any moment.
    fn wanted(&self, path: &str, sha256: Sha256, size: u64) -> Result<Wanted, Error> {
        let mut urls = Vec::new();
        if self.by_hash {
            let folder = path.rsplit_once('/').map(|(folder, _)| format!("{folder}/")).unwrap_or_default();
            urls.push(url_of(self.base, &in_suite(self.suite, &format!("{folder}by-hash/SHA256/{sha256}")))?);
        }
        urls.push(url_of(self.base, &in_suite(self.suite, path))?);
        Ok(Wanted { urls, sha256, size, label: format!("{} {path}", self.suite) })
    }
}

/// The address of a file in an archive: `base` and a path below it (`Filename` of a package, say), each part encoded
/// as a URL wants it. [`Error::BadPath`] when the path is absolute, has empty parts or steps upwards.
pub fn url_of(base: &Url, path: &str) -> Result<Url, Error> {
    let bad = || Error::BadPath(path.chars().take(200).collect());
    let mut url = base.clone();
    let mut parts = url.path_segments_mut().map_err(|()| bad())?;
    parts.pop_if_empty();
    for part in path.split('/') {
        if matches!(part, "" | "." | "..") || part.chars().any(char::is_control) {
            return Err(bad());
        }
        parts.push(part);
    }
    drop(parts);
    Ok(url)
}

/// A suite lies below `dists/`; one that ends in `/` is the path of a flat repository itself, `./` at its top
/// (sources.list(5)).
fn in_suite(suite: &str, name: &str) -> String {
    match suite.strip_suffix('/') {
        Some("" | ".") => name.to_owned(),
        Some(path) => format!("{}/{name}", path.trim_start_matches("./")),
        None => format!("dists/{suite}/{name}"),
    }
}

#[derive(Clone, Copy, Debug)]
enum Codec {
    Xz,
    Gzip,
    Plain,
}

/// Unpacks an index, never beyond the size listed for it, or [`MAX_INDEX`].
fn unpack(
    codec: Codec,
    object: &Object,
    label: &str,
    listed: Option<(Sha256, u64)>,
) -> Result<Vec<u8>, Error> {
    let file = BufReader::with_capacity(1 << 16, object.open()?);
    let wrong = |what: String| Error::Unpack { label: label.to_owned(), what, source: None };
    let limit = listed.map_or(MAX_INDEX, |(_, size)| size.min(MAX_INDEX));
    let reader: Box<dyn Read> = match codec {
        // Debian's archive packs each index as one stream; the format allows several in a row.
        Codec::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(file, true, XZ_MEMORY)),
        Codec::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        Codec::Plain => Box::new(file),
    };
    let mut bytes = Vec::new();
    let read = reader.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|error| Error::Unpack {
        label: label.to_owned(),
        what: "broken data".into(),
        source: Some(error),
    })?;
    let size = bytes.len() as u64;
    if size > limit {
        return Err(wrong(format!("expected {limit} bytes, found more")));
    }
    if let Some((expected, expected_size)) = listed {
        let found = Sha256::of(&bytes);
        if (found, size) != (expected, expected_size) {
            return Err(wrong(format!(
                "expected SHA-256 {expected} of {expected_size} bytes, found {found} of {size}"
            )));
        }
    }
    Ok(bytes)
}
