//! Making a lock: what the archives have today, verified, and what follows from it for a profile.

use super::{Error, Setup};
use crate::debian::index::{Release, parse_packages};
use crate::digest::Sha256;
use crate::plan::Lock;
use crate::plan::lock::{Repository as Locked, Request, RequestedRepository};
use crate::plan::request::SECURITY;
use crate::plan::resolve::{self, Host, Source};
use crate::profile::Profile;
use crate::progress::Stage;
use crate::store::repository::{IndexRequest, Repository};
use crate::store::signature::{self, Keyring};
use crate::store::{self, Url, sources};
use std::time::UNIX_EPOCH;

/// Where Debian is, as far as this machine or the command line say so.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// The archive.
    pub archive: Url,
    /// The security archive, where it is known apart.
    pub security: Option<Url>,
}

/// The package with the emulator, on machines of another architecture than the device.
const EMULATOR: &str = "qemu-user";

/// Makes the lock of a profile from what its archives have. `mirror` is for Debian's repositories that no one gave a URL;
/// `epoch` goes before the archives' own date.
pub fn lock(
    profile: &Profile,
    request: &Request,
    mirror: &dyn Fn() -> Result<Mirror, sources::SourcesError>,
    epoch: Option<i64>,
    setup: &Setup<'_>,
) -> Result<Lock, Error> {
    let progress = setup.progress;
    progress.begin(Stage::Resolve, &request.profile, 0);
    let debian =
        signature::debian_keys().map_err(|source| Error::Key { repository: "debian".into(), source })?;
    let host = (setup.host_architecture != request.architecture)
        .then_some(Host { architecture: setup.host_architecture, emulator: EMULATOR });
    let mut sources = Vec::new();
    for asked in &request.repositories {
        setup.check()?;
        progress.detail(&asked.suite);
        let url = address(asked, request, mirror)?;
        let extra = profile.sources.iter().find(|source| source.name.as_str() == asked.name);
        let keys = match extra {
            None => debian.clone(),
            Some(source) => signature::parse_certs(&source.key)
                .map_err(|source| Error::Key { repository: asked.name.clone(), source })?,
        };
        let mut source = read(asked, &url, &keys, host, request, setup)?;
        if let Some(extra) = extra {
            // What apt on the device may take from here, and nothing else (`transform::updates` writes the pin).
            source
                .packages
                .retain(|package| extra.packages.iter().any(|name| name.as_str() == &*package.name));
            source.host.clear();
        }
        sources.push(source);
    }
    progress.detail("choosing packages");
    let lock = resolve::resolve(request, sources, host, epoch)?;
    progress.end();
    Ok(lock)
}

fn address(
    asked: &RequestedRepository,
    request: &Request,
    mirror: &dyn Fn() -> Result<Mirror, sources::SourcesError>,
) -> Result<Url, Error> {
    if let Some(url) = &asked.url {
        return parse(url);
    }
    // The security suite lives beside the archive: beside the one that was named, else where this machine has it.
    let named = request.repositories.iter().find(|one| one.name == "debian").and_then(|one| one.url.as_ref());
    if asked.name != SECURITY {
        return Ok(mirror()?.archive);
    }
    let archive = match named {
        Some(url) => parse(url)?,
        None => {
            let mirror = mirror()?;
            match mirror.security {
                Some(security) => return Ok(security),
                None => mirror.archive,
            }
        }
    };
    sources::security_beside(&archive)
        .ok_or_else(|| Error::NoSecurity { suite: asked.suite.clone(), mirror: archive.to_string() })
}

fn parse(url: &str) -> Result<Url, Error> {
    Url::parse(url).map_err(|source| Error::Url { url: url.to_owned(), source: Box::new(source) })
}

fn read(
    asked: &RequestedRepository,
    url: &Url,
    keys: &Keyring,
    host: Option<Host<'_>>,
    request: &Request,
    setup: &Setup<'_>,
) -> Result<Source, Error> {
    let repository = Repository { store: setup.store, now: setup.now, progress: &(), cancel: setup.cancel };
    let mut tries = 0;
    loop {
        let result = read_once(asked, url, keys, host, request, setup, &repository);
        match result {
            // The mirror moved on between the Release file and an index: once is chance.
            Err(Error::Store(store::Error::Digest { .. } | store::Error::Size { .. })) if tries == 0 => {
                tries += 1
            }
            other => return other,
        }
    }
}

fn read_once(
    asked: &RequestedRepository,
    url: &Url,
    keys: &Keyring,
    host: Option<Host<'_>>,
    request: &Request,
    setup: &Setup<'_>,
    repository: &Repository<'_>,
) -> Result<Source, Error> {
    let verified = repository.fetch_release(url, &asked.suite, keys)?;
    let wrong = |source| Error::Release { repository: asked.name.clone(), source: Box::new(source) };
    let release = Release::parse(&verified.payload).map_err(wrong)?;
    // Before 1970 no key is valid, so the signature would not have been.
    let now = setup.now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    if !setup.store.is_offline() {
        release.check(&asked.suite, now).map_err(wrong)?;
    }
    let architectures = [Some(request.architecture.as_str()), host.map(|host| host.architecture)];
    let listed = |path: &str| release.files.get(path).map(|entry| (entry.sha256, entry.size));
    let mut paths = Vec::new();
    for architecture in architectures.into_iter().flatten() {
        for component in &asked.components {
            paths.push((architecture, format!("{component}/binary-{architecture}/Packages")));
        }
    }
    let requests: Vec<IndexRequest<'_>> = paths
        .iter()
        .map(|(_, path)| IndexRequest {
            base: url,
            suite: &asked.suite,
            path,
            listed: &listed,
            by_hash: release.acquire_by_hash,
        })
        .collect();
    let texts = repository.fetch_indexes(&requests)?;
    let (mut packages, mut of_host) = (Vec::new(), Vec::new());
    for ((architecture, path), text) in paths.iter().zip(texts) {
        let list = parse_packages(&text).map_err(|source| Error::Packages {
            repository: asked.name.clone(),
            path: path.clone(),
            source: Box::new(source),
        })?;
        if *architecture == request.architecture { packages.extend(list) } else { of_host.extend(list) }
    }
    Ok(Source {
        repository: Locked {
            name: asked.name.clone(),
            url: url.as_str().trim_end_matches('/').to_owned(),
            suite: asked.suite.clone(),
            components: asked.components.clone(),
            origin: release.origin.clone(),
            label: release.label.clone(),
            codename: release.codename.clone(),
            date: release.date,
            release: Sha256::of(&verified.payload),
            signed_by: verified.signer,
        },
        suite: release.suite.clone(),
        priority: release.default_priority(),
        packages,
        host: of_host,
    })
}
