//! Release files and indexes from a repository made for the test.

use crate::server::{Answer, Server};
use crate::signature::{TEXT, clear_signed, detached, key, keyring, now};
use crate::{Bench, bytes, told};
use hardtack::digest::Sha256;
use hardtack::store::Error;
use hardtack::store::repository::{IndexRequest, Repository, url_of};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// Serves these files; what is not among them is 404.
fn serve(files: &Files) -> Server {
    let files = files.clone();
    Server::start(move |request| match files.lock().unwrap().get(&request.target) {
        Some(body) => Answer::file(request, body, None),
        None => Answer::new(404, ""),
    })
}

fn files(list: &[(&str, &[u8])]) -> Files {
    Arc::new(Mutex::new(
        list.iter().map(|(path, body)| (format!("/debian/dists/{path}"), body.to_vec())).collect(),
    ))
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

type Listed = BTreeMap<String, (Sha256, u64)>;

fn listed(list: &[(&str, &[u8])]) -> Listed {
    list.iter().map(|(path, body)| ((*path).to_owned(), (Sha256::of(body), body.len() as u64))).collect()
}

fn index(bench: &Bench, server: &Server, listed: &Listed, by_hash: bool) -> Result<Vec<u8>, Error> {
    index_from(bench, &bench.store(), &server.url("debian"), listed, by_hash)
}

fn index_from(
    bench: &Bench,
    store: &hardtack::store::Store,
    base: &hardtack::store::Url,
    listed: &Listed,
    by_hash: bool,
) -> Result<Vec<u8>, Error> {
    let repository = Repository { store, now: now(), progress: &(), cancel: &bench.cancel };
    let lookup = |path: &str| listed.get(path).copied();
    repository.fetch_index(&IndexRequest {
        base,
        suite: "trixie",
        path: "main/Packages",
        listed: &lookup,
        by_hash,
    })
}

#[test]
fn a_signed_release_is_kept_for_offline_use_and_an_unsigned_one_is_not() {
    let (cert, stranger) = (key(10, 100), key(10, 100));
    let ring = keyring(&[&cert]);
    let files = files(&[("trixie/InRelease", &clear_signed(&stranger, TEXT.as_bytes()))]);
    let server = serve(&files);
    let base = server.url("debian/");
    let bench = Bench::new();
    let release = |store: &hardtack::store::Store| {
        let repository = Repository { store, now: now(), progress: &(), cancel: &bench.cancel };
        repository.fetch_release(&base, "trixie", &ring)
    };
    let error = release(&bench.store()).unwrap_err();
    assert!(
        told(&error).contains("cannot trust `trixie InRelease`") && told(&error).contains("not trusted"),
        "{error:?}"
    );
    assert!(matches!(release(&bench.offline()), Err(Error::Offline { .. })));

    let signed = clear_signed(&cert, TEXT.as_bytes());
    files.lock().unwrap().insert("/debian/dists/trixie/InRelease".into(), signed.clone());
    let online = release(&bench.store()).unwrap();
    assert_eq!(online.signer, cert.fingerprint().to_hex());
    assert!(online.payload.starts_with(b"Origin: Test\nSuite: stable\n- dashed\n"));
    assert_eq!(std::fs::read(online.object.path()).unwrap(), signed);
    let requests = server.requests();
    assert_eq!(requests.last().unwrap().header("cache-control"), Some("max-age=0"));
    assert_eq!(release(&bench.offline()).unwrap(), online);
    assert_eq!(server.requests().len(), requests.len());
    // Pruning to nothing else keeps what release files point at.
    bench.offline().prune(hardtack::store::Prune::Except(&Default::default())).unwrap();
    assert_eq!(release(&bench.offline()).unwrap(), online);
    // A file in the store that is not as it was verified does not pass a second time.
    let path = online.object.path();
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, String::from_utf8(signed).unwrap().replace("stable", "Stable")).unwrap();
    assert!(matches!(release(&bench.offline()), Err(Error::Signature { .. })));
}

#[test]
fn without_inrelease_the_signature_beside_release_counts() {
    let cert = key(10, 100);
    let files = files(&[
        ("trixie/Release", TEXT.as_bytes()),
        ("trixie/Release.gpg", &detached(&cert, TEXT.as_bytes())),
        ("sid/Release", TEXT.as_bytes()),
        ("sid/Release.gpg", &detached(&cert, b"something else")),
    ]);
    let server = serve(&files);
    let (base, ring, bench) = (server.url("debian"), keyring(&[&cert]), Bench::new());
    for store in [bench.store(), bench.offline()] {
        let repository = Repository { store: &store, now: now(), progress: &(), cancel: &bench.cancel };
        assert_eq!(repository.fetch_release(&base, "trixie", &ring).unwrap().payload, TEXT.as_bytes());
        assert!(repository.fetch_release(&base, "sid", &ring).is_err());
    }
    let store = bench.store();
    let repository = Repository { store: &store, now: now(), progress: &(), cancel: &bench.cancel };
    assert!(matches!(repository.fetch_release(&base, "gone", &ring), Err(Error::NotFound { .. })));
}

#[test]
fn a_release_file_without_end_is_refused() {
    let server = Server::start(|_| Answer { endless: true, ..Answer::ok(vec![b'x'; 1 << 16]).length(None) });
    let bench = Bench::new();
    let store = bench.store();
    let repository = Repository { store: &store, now: now(), progress: &(), cancel: &bench.cancel };
    let error = repository.fetch_release(&server.url(""), "trixie", &keyring(&[&key(1, 2)])).unwrap_err();
    assert!(matches!(error, Error::Size { .. }), "{error:?}");
}

#[test]
fn an_index_is_asked_for_by_its_digest_first_and_best_packed() {
    let text = bytes(50, 100_000);
    let (x, g) = (xz(&text), gz(&text));
    let table = listed(&[("main/Packages", &text), ("main/Packages.xz", &x), ("main/Packages.gz", &g)]);
    let by_hash = format!("trixie/main/by-hash/SHA256/{}", Sha256::of(&x));
    let plain: (&str, &[u8]) = ("trixie/main/Packages.xz", &x);
    for (list, by, asked) in [
        (vec![(by_hash.as_str(), &x[..])], true, vec!["by-hash"]),
        (vec![plain], true, vec!["by-hash", "Packages.xz"]),
        (vec![plain], false, vec!["Packages.xz"]),
        (vec![("trixie/main/Packages.gz", &g[..])], false, vec!["Packages.xz", "Packages.gz"]),
    ] {
        let server = serve(&files(&list));
        let bench = Bench::new();
        assert_eq!(index(&bench, &server, &table, by).unwrap(), text);
        let targets = server.targets();
        assert_eq!(targets.len(), asked.len(), "{targets:?}");
        assert!(targets.iter().zip(asked).all(|(target, part)| target.contains(part)), "{targets:?}");
        // And then it is here.
        let offline = index_from(&bench, &bench.offline(), &server.url("debian"), &table, by);
        assert_eq!(offline.unwrap(), text);
    }
}

#[test]
fn an_index_that_is_not_what_the_release_says_is_refused() {
    let text = bytes(51, 100_000);
    let (good, other) = (xz(&text), xz(&bytes(52, 100_000)));
    let bench = Bench::new();
    // The packed file is another one.
    let server = serve(&files(&[("trixie/main/Packages.xz", &other)]));
    let table = listed(&[("main/Packages.xz", &good)]);
    let error = index(&bench, &server, &table, false).unwrap_err();
    assert!(matches!(error, Error::Digest { .. } | Error::Size { .. }), "{error:?}");
    // The packed file is right, and what is in it is not.
    let server = serve(&files(&[("trixie/main/Packages.xz", &good)]));
    for inside in [bytes(52, 100_000), bytes(52, 99_999), bytes(52, 100_001)] {
        let table = listed(&[("main/Packages.xz", &good), ("main/Packages", &inside)]);
        assert!(matches!(index(&bench, &server, &table, false), Err(Error::Unpack { .. })));
    }
    // It is not packed at all, or cut and listed so.
    for broken in [&b"not xz"[..], &good[..good.len() / 2]] {
        let server = serve(&files(&[("trixie/main/Packages.xz", broken)]));
        let table = listed(&[("main/Packages.xz", broken)]);
        assert!(matches!(index(&bench, &server, &table, false), Err(Error::Unpack { source: Some(_), .. })));
    }
    let error = index(&bench, &server, &Listed::new(), true).unwrap_err();
    assert!(matches!(error, Error::Unlisted { .. }), "{error:?}");
    let error = index_from(&bench, &Bench::new().offline(), &server.url("debian"), &table, true).unwrap_err();
    assert!(told(&error).contains("`trixie main/Packages.xz`"), "{}", told(&error));
}

#[test]
fn a_bomb_is_stopped_at_the_size_that_is_listed() {
    let zeros = vec![0; 64 << 20];
    let bomb = xz(&zeros);
    let server = serve(&files(&[("trixie/main/Packages.xz", &bomb)]));
    let mut table = listed(&[("main/Packages.xz", &bomb)]);
    table.insert("main/Packages".into(), (Sha256::of(b"x"), 1000));
    let error = index(&Bench::new(), &server, &table, false).unwrap_err();
    assert!(told(&error).contains("expected 1000 bytes, found more"), "{}", told(&error));
}

#[test]
fn several_indexes_come_at_once_and_in_order() {
    let texts: Vec<_> = (0..5).map(|n| bytes(60 + n, 1000)).collect();
    let names: Vec<_> = (0..5).map(|n| format!("c{n}/Packages")).collect();
    let packed: Vec<_> = texts.iter().map(|text| gz(text)).collect();
    let table: Listed = names
        .iter()
        .zip(&packed)
        .map(|(n, p)| (format!("{n}.gz"), (Sha256::of(p), p.len() as u64)))
        .collect();
    let all: BTreeMap<_, _> =
        names.iter().zip(&packed).map(|(n, p)| (format!("/debian/flat/{n}.gz"), p.clone())).collect();
    let server = serve(&Arc::new(Mutex::new(all)));
    let (base, bench) = (server.url("debian"), Bench::new());
    let store = bench.store();
    let repository = Repository { store: &store, now: now(), progress: &(), cancel: &bench.cancel };
    let lookup = |path: &str| table.get(path).copied();
    let request = |path| IndexRequest { base: &base, suite: "flat/", path, listed: &lookup, by_hash: false };
    let requests: Vec<_> = names.iter().map(|name| request(name.as_str())).collect();
    assert_eq!(repository.fetch_indexes(&requests).unwrap(), texts);
}

#[test]
fn flat_repositories_have_their_release_file_at_their_path() {
    let cert = key(10, 100);
    let signed = clear_signed(&cert, TEXT.as_bytes());
    let all = ["/top/InRelease", "/top/flat/arm64/InRelease"].map(|path| (path.to_owned(), signed.clone()));
    let server = serve(&Arc::new(Mutex::new(BTreeMap::from(all))));
    let bench = Bench::new();
    let store = bench.store();
    let repository = Repository { store: &store, now: now(), progress: &(), cancel: &bench.cancel };
    for suite in ["./", "/", "flat/arm64/", "./flat/arm64/"] {
        repository.fetch_release(&server.url("top"), suite, &keyring(&[&cert])).unwrap();
    }
    assert!(matches!(
        repository.fetch_release(&server.url("top"), "../x/", &keyring(&[&cert])),
        Err(Error::BadPath(_))
    ));
}

#[test]
fn addresses_are_joined_without_leaving_the_archive() {
    let base = "http://mirror.example/debian/".parse().unwrap();
    let joined = |path: &str| url_of(&base, path).map(|url| url.to_string());
    let package = "pool/main/g/g++/libstdc++6_14.2.0-19~x_arm64.deb";
    assert_eq!(joined(package).unwrap(), format!("http://mirror.example/debian/{package}"));
    // A percent sign in a name is one in the name.
    assert_eq!(
        joined("a_1%3a2 b?c#d.deb").unwrap(),
        "http://mirror.example/debian/a_1%253a2%20b%3Fc%23d.deb"
    );
    for path in ["", "/etc/passwd", "a//b", "a/../b", "..", "./a", "a/", "a\nb"] {
        assert!(matches!(joined(path), Err(Error::BadPath(_))), "{path:?}");
    }
}
