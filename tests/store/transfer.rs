use crate::server::{Answer, Server};
use crate::{Bench, bytes, told, wanted};
use hardtack::store::{Error, Length, Proxies, Trouble, Url};
use std::io::Read;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const LEN: usize = 300_000;

#[test]
fn many_files_arrive_in_the_order_they_were_wanted_and_are_not_asked_for_twice() {
    let bodies: Vec<_> = (0..20).map(|seed| bytes(seed, 1000 * seed as usize)).collect();
    let served = bodies.clone();
    let server = Server::start(move |request| {
        Answer::file(request, &served[request.target[1..].parse::<usize>().unwrap()], None)
    });
    let bench = Bench::new();
    let mut list: Vec<_> =
        bodies.iter().enumerate().map(|(n, b)| wanted(&[server.url(&n.to_string())], b)).collect();
    // The same object under two names is one download.
    list.push(list[7].clone());
    let objects = bench.fetch(&list).unwrap();
    for (object, body) in objects.iter().zip(&bodies) {
        let mut found = Vec::new();
        object.open().unwrap().read_to_end(&mut found).unwrap();
        assert_eq!(&found, body);
    }
    assert_eq!(objects[20], objects[7]);
    assert_eq!(server.requests().len(), 20);
    let agent = format!("hardtack/{}", env!("CARGO_PKG_VERSION"));
    assert!(server.requests().iter().all(|request| request.header("user-agent") == Some(&agent)));
    assert_eq!(
        bench.progress.bytes.load(Ordering::Relaxed),
        bodies.iter().map(|b| b.len() as i64).sum::<i64>()
    );
    bench.fetch(&list).unwrap();
    assert_eq!(server.requests().len(), 20);
    assert!(bench.files("partial").is_empty() && bench.files("tmp").is_empty());
}

#[test]
fn a_connection_that_breaks_is_taken_up_where_it_broke() {
    let body = bytes(1, LEN);
    let served = body.clone();
    let server = Server::start(move |request| Answer::file(request, &served, Some("\"v1\"")).cut(100_000));
    let bench = Bench::new();
    bench.fetch(&[wanted(&[server.url("x")], &body)]).unwrap();
    let asked: Vec<_> = server.requests().iter().map(|r| r.from()).collect();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert_eq!(asked[0], None);
    assert!(asked[1..].iter().all(|from| from.is_some_and(|from| from > 50_000)), "{asked:?}");
    assert_eq!(server.requests()[1].header("if-range"), Some("\"v1\""));
    assert_eq!(bench.progress.bytes.load(Ordering::Relaxed), LEN as i64);
}

#[test]
fn a_server_that_ignores_ranges_makes_us_start_over() {
    let body = bytes(2, LEN);
    let served = body.clone();
    let server = Server::start(move |request| {
        let answer = Answer::ok(served.clone());
        if request.nth == 0 { answer.cut(200_000) } else { answer }
    });
    let bench = Bench::new();
    bench.fetch(&[wanted(&[server.url("x")], &body)]).unwrap();
    assert!(server.requests()[1].from().is_some());
    assert_eq!(server.requests().len(), 2);
    assert_eq!(bench.progress.bytes.load(Ordering::Relaxed), LEN as i64);
}

#[test]
fn a_file_that_changes_between_tries_is_not_patched_together() {
    let (old, new) = (bytes(3, LEN), bytes(4, LEN));
    for etags in [Some(["\"old\"", "\"new\""]), None] {
        let (old, served) = (old.clone(), new.clone());
        let server = Server::start(move |request| match request.nth {
            0 => Answer::file(request, &old, etags.map(|e| e[0])).cut(200_000),
            _ => Answer::file(request, &served, etags.map(|e| e[1])),
        });
        Bench::new().fetch(&[wanted(&[server.url("x")], &new)]).unwrap();
        // With a validator the server tells at once; without, the digest does, and one whole download mends it.
        assert_eq!(server.requests().len(), if etags.is_some() { 2 } else { 3 });
    }
}

#[test]
fn a_server_that_always_breaks_off_and_always_lies_does_not_keep_us() {
    let wrong = bytes(5, LEN);
    let server = Server::start(move |request| Answer::file(request, &wrong, Some("\"v\"")).cut(200_000));
    let error = Bench::new().fetch(&[wanted(&[server.url("x")], &bytes(6, LEN))]).unwrap_err();
    assert!(matches!(error, Error::Digest { .. }), "{error:?}");
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn a_part_that_was_not_asked_for_is_not_taken() {
    let body = bytes(5, LEN);
    for range in ["bytes 0-299999/300000", "bytes 100000-299999/400000", "nonsense", ""] {
        let served = body.clone();
        let server = Server::start(move |request| match request.from() {
            None if request.nth == 0 => Answer::ok(served.clone()).cut(100_000),
            None => Answer::ok(served.clone()),
            Some(from) => Answer::new(206, &served[from..]).header("Content-Range", range),
        });
        Bench::new().fetch(&[wanted(&[server.url("x")], &body)]).unwrap();
        let asked: Vec<_> = server.requests().iter().map(|r| r.from().is_some()).collect();
        assert_eq!(asked, [false, true, false], "{range}");
    }
}

#[test]
fn nothing_left_at_the_server_means_starting_over() {
    let body = bytes(6, LEN);
    let served = body.clone();
    let server = Server::start(move |request| match request.nth {
        0 => Answer::ok(served.clone()).cut(100_000),
        1 => Answer::new(416, ""),
        _ => Answer::file(request, &served, None),
    });
    Bench::new().fetch(&[wanted(&[server.url("x")], &body)]).unwrap();
    assert_eq!(server.requests()[2].from(), None);
}

#[test]
fn a_file_that_is_gone_points_to_a_new_lock_after_every_address_was_asked() {
    let server = Server::start(|_| Answer::new(404, "<html>no</html>"));
    let body = bytes(7, 10);
    let bench = Bench::new();
    let error = bench.fetch(&[wanted(&[server.url("by-hash/a"), server.url("b")], &body)]).unwrap_err();
    assert!(matches!(error, Error::NotFound { status: 404, .. }), "{error:?}");
    assert!(told(&error).contains("hardtack lock --update"), "{}", told(&error));
    assert_eq!(server.targets(), ["/by-hash/a", "/b"]);
    assert!(bench.files("partial").is_empty());
    assert!(bench.slept.lock().unwrap().is_empty(), "404 is not tried again");
}

#[test]
fn the_next_address_is_asked_when_one_lacks_the_file_or_lies() {
    let body = bytes(8, 5000);
    for first in [Answer::new(404, ""), Answer::ok(bytes(9, 5000)), Answer::ok("short"), Answer::new(403, "")]
    {
        let served = body.clone();
        let server = Server::start(move |request| match request.target.as_str() {
            "/a" => first.clone(),
            _ => Answer::file(request, &served, None),
        });
        Bench::new().fetch(&[wanted(&[server.url("a"), server.url("b")], &body)]).unwrap();
    }
}

#[test]
fn a_busy_server_is_asked_again_after_as_long_as_it_says() {
    let body = bytes(10, 5000);
    let served = body.clone();
    let server = Server::start(move |request| match request.nth {
        0 => Answer::new(503, "busy").header("Retry-After", 3),
        1 => Answer::new(500, "oops"),
        _ => Answer::file(request, &served, None),
    });
    let bench = Bench::new();
    bench.fetch(&[wanted(&[server.url("x")], &body)]).unwrap();
    let slept: Duration = bench.slept.lock().unwrap().iter().sum();
    assert_eq!(slept, Duration::from_secs(3 + 1));
    assert_eq!(
        bench.progress.retries.lock().unwrap().join(),
        "the server answered 503; the server answered 500"
    );
}

#[test]
fn giving_up_comes_after_six_tries_and_doubling_pauses() {
    let server = Server::start(|_| Answer::new(503, "busy"));
    let bench = Bench::new();
    let error = bench.fetch(&[wanted(&[server.url("x")], b"abc")]).unwrap_err();
    assert!(matches!(error, Error::Unreachable { tries: 6, source: Trouble::Status(503), .. }), "{error:?}");
    assert_eq!(server.requests().len(), 6);
    let slept: Duration = bench.slept.lock().unwrap().iter().sum();
    assert_eq!(slept, Duration::from_millis(500 + 1000 + 2000 + 4000 + 8000));
}

#[test]
fn a_connection_that_always_gains_a_little_is_not_given_up_too_soon_but_in_the_end() {
    let body = bytes(11, 20_000);
    let served = body.clone();
    let server = Server::start(move |request| Answer::file(request, &served, Some("\"v\"")).cut(2000));
    let bench = Bench::new();
    bench.fetch(&[wanted(&[server.url("x")], &body)]).unwrap();
    assert_eq!(server.requests().len(), 10);
    let longer = bytes(12, 20_000);
    let served = longer.clone();
    let server = Server::start(move |request| Answer::file(request, &served, Some("\"v\"")).cut(100));
    let error = bench.fetch(&[wanted(&[server.url("x")], &longer)]).unwrap_err();
    assert!(matches!(error, Error::Unreachable { tries: 120, .. }), "{error:?}");
}

#[test]
fn redirects_are_followed_but_not_in_circles() {
    let body = bytes(13, 5000);
    let served = body.clone();
    let server = Server::start(move |request| match request.target.as_str() {
        "/loop" => Answer::new(302, "").header("Location", "/loop"),
        "/away" => Answer::new(301, "").header("Location", "/here"),
        _ => Answer::file(request, &served, None),
    });
    let bench = Bench::new();
    bench.fetch(&[wanted(&[server.url("away")], &body)]).unwrap();
    let error = bench.fetch(&[wanted(&[server.url("loop")], b"abc")]).unwrap_err();
    assert!(matches!(error, Error::Redirects { .. }), "{error:?}");
    assert!(server.requests().len() <= 2 + 12, "{}", server.requests().len());
}

#[test]
fn an_endless_answer_is_cut_off_at_the_expected_size() {
    let server = Server::start(|_| Answer { endless: true, ..Answer::ok(vec![b'x'; 1 << 16]).length(None) });
    let bench = Bench::new();
    let body = bytes(14, 1 << 20);
    let error = bench.fetch(&[wanted(&[server.url("x")], &body)]).unwrap_err();
    let Error::Size { expected, found, html: false, .. } = &error else { panic!("{error:?}") };
    assert_eq!((*expected, *found), (Length::Exactly(1 << 20), Length::AtLeast((1 << 20) + 1)));
    assert!(bench.progress.bytes.load(Ordering::Relaxed) <= 1 << 20);
    assert!(bench.files("partial").is_empty() && bench.files("objects").is_empty());
}

#[test]
fn a_web_page_in_place_of_a_file_is_called_by_its_name() {
    let page = b"<!DOCTYPE html><html>Welcome to the hotel</html>".to_vec();
    // Of any length, and of just the right one.
    for len in [5000, page.len()] {
        let served = page.clone();
        let server = Server::start(move |_| Answer::ok(served.clone()).header("Content-Type", "text/html"));
        let bench = Bench::new();
        let error = bench.fetch(&[wanted(&[server.url("x")], &bytes(15, len))]).unwrap_err();
        assert!(
            matches!(error, Error::Size { html: true, .. } | Error::Digest { html: true, .. }),
            "{error:?}"
        );
        assert!(
            told(&error).contains("the server sent an HTML page: a captive portal or proxy?"),
            "{}",
            told(&error)
        );
        assert!(bench.files("partial").is_empty() && bench.files("objects").is_empty());
    }
}

#[test]
fn wrong_bytes_and_wrong_lengths_never_become_objects() {
    let body = bytes(16, 5000);
    let wrong = bytes(17, 5000);
    let cases = [
        (Answer::ok(wrong.clone()), "wrong SHA-256"),
        (Answer::ok(&body[..4999]), "expected 5000 bytes, found 4999 bytes"),
        (Answer::ok([&body[..], b"x"].concat()), "expected 5000 bytes, found 5001 bytes"),
        (Answer::ok([&body[..], b"x"].concat()).length(None), "found at least 5001 bytes"),
        (Answer::ok(""), "found 0 bytes"),
    ];
    for (answer, message) in cases {
        let server = Server::start(move |_| answer.clone());
        let bench = Bench::new();
        let error = bench.fetch(&[wanted(&[server.url("x")], &body)]).unwrap_err();
        assert!(told(&error).contains(message), "{}", told(&error));
        assert!(bench.files("objects").is_empty() && bench.files("partial").is_empty());
    }
}

#[test]
fn a_file_that_always_ends_early_in_good_order_has_the_wrong_size() {
    let body = bytes(18, 5000);
    let served = body[..3000].to_vec();
    let server = Server::start(move |request| match request.from() {
        Some(_) => Answer::new(206, "").header("Content-Range", "bytes 3000-4999/5000").length(None),
        None => Answer::ok(served.clone()).length(None),
    });
    let error = Bench::new().fetch(&[wanted(&[server.url("x")], &body)]).unwrap_err();
    assert!(matches!(error, Error::Size { found: Length::Exactly(3000), .. }), "{error:?}");
}

#[test]
fn a_silent_server_is_left_after_the_stall_time() {
    let body = bytes(19, LEN);
    let served = body.clone();
    let server = Server::start(move |request| match request.nth {
        // Silent before the first byte, and in the middle.
        0 => Answer { headers: vec![], ..Answer::ok(served.clone()).stall(0) },
        1 => Answer::file(request, &served, Some("\"v\"")).stall(150_000),
        _ => Answer::file(request, &served, Some("\"v\"")),
    });
    let start = Instant::now();
    let bench = Bench::new();
    bench.fetch(&[wanted(&[server.url("x")], &body)]).unwrap();
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert_eq!(bench.progress.retries.lock().unwrap().len(), 2);
    assert!(server.requests()[2].from().is_some());
}

#[test]
fn nobody_at_home_is_said_with_the_cause() {
    let server = Server::start(|_| Answer::ok(""));
    let url = server.url("x");
    drop(server);
    std::thread::sleep(Duration::from_millis(50));
    let error = Bench::new().fetch(&[wanted(&[url], b"abc")]).unwrap_err();
    assert!(told(&error).contains("after 6 tries: no connection"), "{}", told(&error));
}

#[test]
fn a_server_that_does_not_speak_tls_is_an_error_like_any_other() {
    let server = Server::start(|_| Answer::ok("abc"));
    let mut url = server.url("x");
    url.set_scheme("https").unwrap();
    let error = Bench::new().fetch(&[wanted(&[url], b"abc")]).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. } | Error::NoCertificates { .. }), "{error:?}");
}

#[test]
fn requests_go_through_the_proxy_with_its_password_which_no_message_shows() {
    let body = bytes(20, 5000);
    let served = body.clone();
    let proxy = Server::start(move |request| Answer::file(request, &served, None));
    let mut address = proxy.url("");
    address.set_username("user").unwrap();
    address.set_password(Some("secret")).unwrap();
    let mut bench = Bench::new();
    bench.proxies = Proxies::through(address);
    let url: Url = "http://me:hidden@mirror.example/debian/x".parse().unwrap();
    bench.fetch(&[wanted(std::slice::from_ref(&url), &body)]).unwrap();
    assert_eq!(proxy.targets(), ["http://mirror.example/debian/x"]);
    // user:secret and me:hidden in base64.
    assert_eq!(proxy.requests()[0].header("proxy-authorization"), Some("Basic dXNlcjpzZWNyZXQ="));
    assert_eq!(proxy.requests()[0].header("authorization"), Some("Basic bWU6aGlkZGVu"));
    let error = bench.fetch(&[wanted(&[url], b"abc")]).unwrap_err();
    assert!(!told(&error).contains("secret") && !told(&error).contains("hidden"), "{}", told(&error));
}

#[test]
fn files_of_this_machine_are_copied_by_the_same_rules() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a b.deb");
    let body = bytes(21, LEN);
    std::fs::write(&path, &body).unwrap();
    let url = Url::from_file_path(&path).unwrap();
    let bench = Bench::new();
    let object = bench.fetch(&[wanted(std::slice::from_ref(&url), &body)]).unwrap().remove(0);
    object.verify().unwrap();
    assert!(matches!(
        bench.fetch(&[wanted(std::slice::from_ref(&url), &body[1..])]),
        Err(Error::Size { .. })
    ));
    assert!(matches!(
        bench.fetch(&[wanted(std::slice::from_ref(&url), &bytes(22, LEN))]),
        Err(Error::Digest { .. })
    ));
    assert!(matches!(bench.fetch(&[wanted(&[url], &bytes(22, LEN + 1))]), Err(Error::Size { .. })));
    let gone = Url::from_file_path(directory.path().join("gone")).unwrap();
    assert!(matches!(bench.fetch(&[wanted(&[gone], b"abc")]), Err(Error::NotFound { .. })));
    let other: Url = "ftp://mirror.example/x".parse().unwrap();
    assert!(matches!(bench.fetch(&[wanted(&[other], b"abc")]), Err(Error::Scheme { .. })));
}

#[test]
fn one_failure_stops_the_others_and_is_the_one_that_is_told() {
    let body = bytes(23, 1 << 20);
    let served = body.clone();
    let server = Server::start(move |request| match request.target.as_str() {
        "/gone" => Answer::new(404, ""),
        _ => Answer::file(request, &served, None).stall(500_000),
    });
    let bench = Bench::new();
    let start = Instant::now();
    let error = bench
        .fetch(&[wanted(&[server.url("slow")], &body), wanted(&[server.url("gone")], b"x")])
        .unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(2));
}

trait Join {
    fn join(&self) -> String;
}

impl Join for std::sync::MutexGuard<'_, Vec<String>> {
    fn join(&self) -> String {
        self.as_slice().join("; ")
    }
}
