//! What happens on the disk: full, damaged, pruned.

use crate::server::{Answer, Server};
use crate::{Bench, bytes, told, wanted};
use hardtack::digest::Sha256;
use hardtack::store::{Error, Prune, Pruned, Store, default_path};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// A tmpfs of a few megabytes, unmounted when dropped. Needs root, as the machine that runs the checks has.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(bench: &Bench, size: &str) -> Self {
        let path = bench.directory.path().to_owned();
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        rustix::mount::mount("none", &path, "tmpfs", rustix::mount::MountFlags::empty(), options.as_c_str())
            .expect("this test mounts a small tmpfs: run it as root");
        Self(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_disk_that_is_too_small_is_noticed_before_anything_is_asked_for() {
    let bench = Bench::new();
    let disk = SmallDisk::mount(&bench, "1m");
    let server = Server::start(|_| Answer::ok("x"));
    let error = bench.fetch(&[wanted(&[server.url("x")], &bytes(40, 3 << 20))]).unwrap_err();
    let Error::DiskFull { directory, needed, free } = &error else { panic!("{error:?}") };
    assert_eq!((directory, *needed), (&disk.0, 3 << 20));
    assert!(*free > 0 && *free < 1 << 20, "{free}");
    let text = told(&error);
    assert!(text.contains("3.0 MiB more wanted") && text.contains(disk.0.to_str().unwrap()), "{text}");
    assert!(text.contains("XDG_CACHE_HOME"), "{text}");
    assert!(server.requests().is_empty());
}

#[test]
fn a_disk_that_fills_up_meanwhile_stops_the_download_which_is_taken_up_later() {
    let bench = Bench::new();
    let disk = SmallDisk::mount(&bench, "4m");
    let filler = disk.0.join("filler");
    let body = bytes(41, 3 << 20);
    let (served, fill) = (body.clone(), filler.clone());
    let server = Server::start(move |request| {
        if request.nth == 0 {
            fs::write(&fill, vec![1; 2 << 20]).unwrap();
        }
        Answer::file(request, &served, Some("\"v\""))
    });
    let list = [wanted(&[server.url("x")], &body)];
    let error = bench.fetch(&list).unwrap_err();
    let Error::DiskFull { needed, free, .. } = &error else { panic!("{error:?}") };
    assert!(*needed > 0 && *needed < 3 << 20 && *free < 1 << 17, "{needed} {free}");
    assert!(bench.files("objects").is_empty());
    fs::remove_file(filler).unwrap();
    bench.fetch(&list).unwrap()[0].verify().unwrap();
    assert!(server.requests()[1].from().is_some_and(|from| from > 1 << 20), "{:?}", server.requests()[1]);
}

#[test]
fn what_is_put_must_be_what_was_promised() {
    let bench = Bench::new();
    let store = bench.offline();
    let body = bytes(42, 10_000);
    let digest = Sha256::of(&body);
    let object = store.put(&body[..], "x", &digest, 10_000).unwrap();
    assert_eq!((object.size(), object.digest()), (10_000, &digest));
    assert_eq!(fs::metadata(object.path()).unwrap().permissions().mode() & 0o777, 0o444);
    assert_eq!(store.object(&digest), Some(object));
    for (bytes, limit) in [(&body[1..], 10_000), (&body[..], 9_999)] {
        let other = Sha256::of(b"other");
        let promised = if limit == 9_999 { &digest } else { &other };
        let error = store.put(bytes, "x", promised, limit).unwrap_err();
        assert!(matches!(error, Error::NotAsPromised { .. }), "{error:?}");
    }
    assert!(bench.files("tmp").is_empty());
    assert_eq!(bench.files("objects").len(), 1);
    // The cache is nobody else's business: it may hold /etc/shadow of an image.
    let mode = fs::metadata(bench.directory.path().join("layers")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(bench.directory.path().join("CACHEDIR.TAG").exists());
}

#[test]
fn a_damaged_object_is_noticed_and_a_cut_one_is_fetched_again() {
    let body = bytes(43, 10_000);
    let served = body.clone();
    let server = Server::start(move |request| Answer::file(request, &served, None));
    let bench = Bench::new();
    let list = [wanted(&[server.url("x")], &body)];
    let object = bench.fetch(&list).unwrap().remove(0);
    fs::set_permissions(object.path(), fs::Permissions::from_mode(0o644)).unwrap();

    let mut flipped = body.clone();
    flipped[5000] ^= 1;
    fs::write(object.path(), &flipped).unwrap();
    object.open().unwrap();
    let error = object.verify().unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");

    fs::write(object.path(), &body[..4096]).unwrap();
    assert!(matches!(object.open(), Err(Error::Damaged { .. })));
    assert_eq!(bench.offline().object_of_size(object.digest(), 10_000), None);
    bench.fetch(&list).unwrap()[0].verify().unwrap();
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_partial_file_with_foreign_bytes_is_replaced() {
    let body = bytes(44, 10_000);
    for left in [vec![0; 4000], vec![0; 10_000], vec![0; 20_000]] {
        let served = body.clone();
        let server = Server::start(move |request| Answer::file(request, &served, None));
        let bench = Bench::new();
        let list = [wanted(&[server.url("x")], &body)];
        drop(bench.offline());
        fs::write(bench.directory.path().join("partial").join(list[0].sha256.to_string()), &left).unwrap();
        bench.fetch(&list).unwrap()[0].verify().unwrap();
    }
}

#[test]
fn pruning_keeps_what_it_is_told_to_and_waits_for_nobody() {
    let bench = Bench::new();
    let store = bench.offline();
    let (a, b) = (bytes(45, 10_000), bytes(46, 20_000));
    let keep = *store.put(&a[..], "a", &Sha256::of(&a), 10_000).unwrap().digest();
    store.put(&b[..], "b", &Sha256::of(&b), 20_000).unwrap();
    fs::write(bench.directory.path().join("partial/x"), [0; 5000]).unwrap();
    fs::write(bench.directory.path().join("layers/y"), [0; 5000]).unwrap();
    let before = store.size().unwrap();
    assert!(before.objects >= 30_000 && before.partial >= 5000 && before.layers >= 5000, "{before:?}");

    let other = Store::open(bench.directory.path()).unwrap();
    let error = store.prune(Prune::Everything).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error:?}");
    drop(other);

    let pruned = store.prune(Prune::Except(&BTreeSet::from([keep]))).unwrap();
    assert_eq!(pruned.files, 2);
    assert!(store.object(&keep).is_some());
    assert_eq!(store.size().unwrap().total() + pruned.bytes, before.total());
    assert!(bench.directory.path().join("layers/y").exists());
    // Still shared afterwards: another may come in.
    drop(Store::open(bench.directory.path()).unwrap());
    assert_eq!(store.prune(Prune::Everything).unwrap().files, 2);
    assert_eq!(store.prune(Prune::Everything).unwrap(), Pruned::default());
    assert_eq!(store.size().unwrap().total(), 0);
}

#[test]
fn the_cache_is_where_xdg_says() {
    let path =
        |xdg: Option<&str>, home: Option<&str>| default_path(xdg.map(OsStr::new), home.map(OsStr::new));
    assert_eq!(path(Some("/c"), Some("/h")), Some("/c/hardtack".into()));
    assert_eq!(path(Some("relative"), Some("/h")), Some("/h/.cache/hardtack".into()));
    assert_eq!(path(None, Some("/h")), Some("/h/.cache/hardtack".into()));
    assert_eq!(path(Some(""), None), None);
}
