//! The real thing: the mirror this machine's apt is configured for, with the keys that ship with hardtack, beside gpgv.

use crate::Bench;
use crate::signature::{gpgv, now};
use hardtack::store::repository::{IndexRequest, Repository};
use hardtack::store::signature::debian_keys;
use hardtack::store::{Client, Patience, Proxies, sources};
use std::path::Path;

#[test]
fn trixie_comes_from_this_machines_mirror_and_gpgv_agrees() {
    let host = sources::discover(Path::new("/")).unwrap();
    #[expect(clippy::disallowed_methods, reason = "as the command line does")]
    let environment: Vec<_> = std::env::vars().collect();
    let environment = Proxies::from_environment(environment.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    let client = Client::new(host.proxies.clone().or(environment), Patience::default()).unwrap();
    let bench = Bench::new();
    let store = bench.offline().online(client);
    let repository =
        Repository { store: &store, now: now(), progress: &bench.progress, cancel: &bench.cancel };
    let keys = debian_keys().unwrap();
    let ring = Path::new("/usr/share/keyrings/debian-archive-keyring.gpg");
    let security = host.security.clone().unwrap();
    for (base, suite) in
        [(&host.archive, "trixie"), (&host.archive, "trixie-updates"), (&security, "trixie-security")]
    {
        let release = repository.fetch_release(base, suite, &keys).unwrap();
        let judge = gpgv(ring, &[release.object.path()]);
        assert!(judge.good, "{}", judge.status);
        assert!(judge.status.contains(&release.signer), "{}", judge.status);
        // gpgv ends the text with the line break that belongs to the armour.
        assert_eq!(release.payload.trim_ascii_end(), judge.payload.trim_ascii_end());

        let text = String::from_utf8(release.payload).unwrap();
        let sha256 = text.split("\nSHA256:\n").nth(1).unwrap();
        let listed = |path: &str| {
            let line = sha256.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let found = line.take_while(|words| words.len() == 3).find(|words| words[2] == path)?;
            Some((found[0].parse().unwrap(), found[1].parse().unwrap()))
        };
        let path = if suite == "trixie" {
            "non-free-firmware/binary-arm64/Packages"
        } else {
            "main/binary-arm64/Packages"
        };
        let by_hash = text.contains("\nAcquire-By-Hash: yes\n");
        let index =
            repository.fetch_index(&IndexRequest { base, suite, path, listed: &listed, by_hash }).unwrap();
        assert!(index.is_empty() || index.starts_with(b"Package: "), "{suite}");
    }
}
