//! Stopping, offline, and two at once.

use crate::server::{Answer, Server};
use crate::{Bench, bytes, told, wanted};
use hardtack::store::{Error, Store};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const LEN: usize = 400_000;

#[test]
fn stopping_in_the_middle_leaves_only_what_the_next_run_takes_up() {
    let body = bytes(30, LEN);
    let served = body.clone();
    let server = Server::start(move |request| {
        let answer = Answer::file(request, &served, Some("\"v\""));
        if request.nth == 0 { answer.stall(250_000) } else { answer }
    });
    let bench = Bench::new();
    let list = [wanted(&[server.url("x")], &body)];
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while bench.progress.bytes.load(Ordering::Relaxed) < 250_000 {
                assert!(start.elapsed() < Duration::from_secs(10));
                std::thread::sleep(Duration::from_millis(5));
            }
            bench.cancel.store(true, Ordering::Relaxed);
        });
        assert!(matches!(bench.fetch(&list), Err(Error::Cancelled)));
    });
    assert!(bench.files("objects").is_empty() && bench.files("tmp").is_empty());
    let digest = list[0].sha256.to_string();
    assert_eq!(bench.files("partial"), [digest.clone(), format!("{digest}.from")]);

    bench.cancel.store(false, Ordering::Relaxed);
    bench.fetch(&list).unwrap()[0].verify().unwrap();
    let again = &server.requests()[1];
    assert_eq!((again.from(), again.header("if-range")), (Some(250_000), Some("\"v\"")));
    assert!(bench.files("partial").is_empty());
}

#[test]
fn stopping_does_not_wait_for_a_server_that_says_nothing() {
    let server = Server::start(|_| Answer::ok("abc").stall(0));
    let bench = Bench::new();
    bench.cancel.store(true, Ordering::Relaxed);
    assert!(matches!(bench.fetch(&[wanted(&[server.url("x")], b"abc")]), Err(Error::Cancelled)));
    assert!(bench.files("partial").is_empty(), "an empty file is not worth keeping");
}

#[test]
fn offline_nothing_is_asked_and_everything_missing_is_named() {
    let body = bytes(31, 100);
    let served = body.clone();
    let server = Server::start(move |request| Answer::file(request, &served, None));
    let bench = Bench::new();
    bench.fetch(&[wanted(&[server.url("here.deb")], &body)]).unwrap();
    let list = [
        wanted(&[server.url("one.deb")], b"1"),
        wanted(&[server.url("here.deb")], &body),
        wanted(&[server.url("two.deb")], b"2"),
    ];
    let error = bench.offline().fetch(&list, 4, &(), &bench.cancel).unwrap_err();
    let Error::Offline { missing } = &error else { panic!("{error:?}") };
    let mut missing = missing.clone();
    missing.sort();
    assert_eq!(missing, ["one.deb", "two.deb"]);
    assert!(told(&error).contains("without --offline"), "{}", told(&error));
    assert_eq!(server.requests().len(), 1);
    assert_eq!(bench.offline().fetch(&list[1..2], 4, &(), &bench.cancel).unwrap().len(), 1);
}

/// A server that counts whole downloads and takes its time, so that two who want the same do meet.
fn slow(body: &[u8]) -> Server {
    let served = body.to_vec();
    Server::start(move |request| {
        std::thread::sleep(Duration::from_millis(300));
        Answer::file(request, &served, None)
    })
}

#[test]
fn two_stores_that_want_the_same_download_it_once() {
    let body = bytes(32, LEN);
    let server = slow(&body);
    let list = [wanted(&[server.url("x")], &body)];
    let bench = Bench::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| bench.store().fetch(&list, 4, &(), &bench.cancel).unwrap()[0].verify().unwrap());
        }
    });
    assert_eq!(server.requests().len(), 1);
    assert!(bench.files("partial").is_empty());
}

#[test]
fn two_processes_that_want_the_same_download_it_once() {
    let body = bytes(33, LEN);
    let server = slow(&body);
    let bench = Bench::new();
    #[expect(clippy::disallowed_methods, reason = "the second hardtack is this test program itself")]
    let other = || {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sharing::the_other_process", "--nocapture"])
            .env("HARDTACK_TEST_STORE", bench.directory.path())
            .env("HARDTACK_TEST_URL", server.url("x").as_str())
            .spawn()
            .unwrap()
    };
    let mut others = [other(), other()];
    bench.fetch(&[wanted(&[server.url("x")], &body)]).unwrap();
    assert!(others.iter_mut().all(|process| process.wait().unwrap().success()));
    assert_eq!(server.requests().len(), 1);
}

/// Does nothing by itself; [`two_processes_that_want_the_same_download_it_once`] runs it again with an environment.
#[test]
fn the_other_process() {
    #[expect(clippy::disallowed_methods, reason = "how a test reaches its other process")]
    let (store, url) = (std::env::var_os("HARDTACK_TEST_STORE"), std::env::var("HARDTACK_TEST_URL"));
    let (Some(store), Ok(url)) = (store, url) else { return };
    let bench = Bench::new();
    let client = hardtack::store::Client::new(Default::default(), Default::default()).unwrap();
    let store = Store::open(std::path::Path::new(&store)).unwrap().online(client);
    let list = [wanted(&[url.parse().unwrap()], &bytes(33, LEN))];
    store.fetch(&list, 1, &(), &bench.cancel).unwrap()[0].verify().unwrap();
}

#[test]
fn who_waits_can_be_stopped_and_takes_over_when_the_first_gives_up() {
    let body = bytes(34, LEN);
    let served = body.clone();
    let server = Server::start(move |request| {
        let answer = Answer::file(request, &served, Some("\"v\""));
        if request.nth == 0 { answer.stall(200_000) } else { answer }
    });
    let list = [wanted(&[server.url("x")], &body)];
    let bench = Bench::new();
    let first = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopped = scope.spawn(|| bench.store().fetch(&list, 1, &bench.progress, &first));
        while bench.progress.bytes.load(Ordering::Relaxed) < 200_000 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let second = scope.spawn(|| bench.store().fetch(&list, 1, &(), &bench.cancel));
        std::thread::sleep(Duration::from_millis(100));
        first.store(true, Ordering::Relaxed);
        assert!(matches!(stopped.join().unwrap(), Err(Error::Cancelled)));
        second.join().unwrap().unwrap()[0].verify().unwrap();
    });
    assert_eq!(server.requests()[1].from(), Some(200_000));
}

#[test]
fn who_waits_starts_afresh_when_the_first_gives_up_with_nothing() {
    let body = bytes(35, LEN);
    let served = body.clone();
    let server = Server::start(move |request| {
        let answer = Answer::file(request, &served, None);
        if request.nth == 0 { answer.stall(0) } else { answer }
    });
    let list = [wanted(&[server.url("x")], &body)];
    let bench = Bench::new();
    let first = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopped = scope.spawn(|| bench.store().fetch(&list, 1, &(), &first));
        let start = Instant::now();
        while server.requests().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(5));
        }
        let second = scope.spawn(|| bench.store().fetch(&list, 1, &(), &bench.cancel));
        std::thread::sleep(Duration::from_millis(100));
        first.store(true, Ordering::Relaxed);
        assert!(matches!(stopped.join().unwrap(), Err(Error::Cancelled)));
        second.join().unwrap().unwrap()[0].verify().unwrap();
    });
}
