use super::*;

/// A root directory with these files.
fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn found(files: &[(&str, &str)]) -> HostSources {
    discover(root(files).path()).unwrap()
}

const DEB822: &str = "Types: deb\nURIs: http://mirror.example/debian/\nSuites: trixie trixie-updates\n\
    Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";

#[test]
fn the_usual_deb822_file_names_the_archive_and_security_is_beside_it() {
    let sources = found(&[("etc/apt/sources.list.d/debian.sources", DEB822)]);
    assert_eq!(sources.archive.as_str(), "http://mirror.example/debian");
    assert_eq!(sources.security.unwrap().as_str(), "http://mirror.example/debian-security");
    assert!(sources.found_in.ends_with("etc/apt/sources.list.d/debian.sources"));
}

#[test]
fn the_hosts_own_security_entry_wins_over_the_derived_one() {
    let text =
        "deb http://m.example/debian bookworm main\ndeb http://s.example/deb-sec bookworm-security main\n";
    let sources = found(&[("etc/apt/sources.list", text)]);
    assert_eq!(sources.security.unwrap().as_str(), "http://s.example/deb-sec");
    let old = "deb http://m.example/debian buster main\ndeb http://s.example/ buster/updates main\n";
    assert_eq!(found(&[("etc/apt/sources.list", old)]).security.unwrap().as_str(), "http://s.example/");
}

#[test]
fn a_third_party_with_debians_suite_names_is_not_the_archive() {
    // Raspberry Pi OS: both entries say `bookworm main`, neither says who signs.
    let vendor = "deb http://vendor.example/debian/ bookworm main\n";
    let debian =
        "deb http://m.example/debian bookworm main\ndeb http://m.example/debian bookworm-updates main\n";
    let sources = found(&[("etc/apt/sources.list", vendor), ("etc/apt/sources.list.d/z.list", debian)]);
    assert_eq!(sources.archive.as_str(), "http://m.example/debian");
    // With a keyring of its own it is refused outright.
    let signed =
        "deb [signed-by=/usr/share/keyrings/vendor.gpg] http://vendor.example/debian/ bookworm main\n";
    let error = discover(root(&[("etc/apt/sources.list", signed)]).path()).unwrap_err();
    assert!(error.to_string().contains("/usr/share/keyrings/vendor.gpg"), "{error}");
    // And so it is when the Release file apt has from it says so.
    let lists = "var/lib/apt/lists/vendor.example_debian_dists_bookworm_InRelease";
    let release = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nOrigin: Raspberry Pi Foundation\n";
    let error = discover(root(&[("etc/apt/sources.list", vendor), (lists, release)]).path()).unwrap_err();
    assert!(error.to_string().contains("Raspberry Pi Foundation"), "{error}");
}

#[test]
fn hosts_without_debian_get_an_error_with_the_way_out() {
    let ubuntu =
        "Types: deb\nURIs: http://m.example/ubuntu\nSuites: noble noble-security\nComponents: main\n";
    for files in [vec![], vec![("etc/apt/sources.list.d/ubuntu.sources", ubuntu)]] {
        let error = discover(root(&files).path()).unwrap_err();
        assert!(error.hint().contains("--mirror URL"), "{error}");
    }
}

#[test]
fn entries_that_cannot_be_fetched_are_passed_over_with_a_reason() {
    let text = "deb cdrom:[Debian 13]/ trixie main\ndeb tor+http://m.example/debian trixie main\n\
        deb file:///srv/debian trixie main\n";
    let sources = found(&[("etc/apt/sources.list", text)]);
    assert_eq!(sources.archive.as_str(), "file:///srv/debian");
    let reasons: Vec<&str> = sources.skipped.iter().map(|s| s.reason.as_str()).collect();
    assert_eq!(reasons, ["hardtack cannot fetch by `cdrom:`", "hardtack cannot fetch by `tor+http:`"]);
}

#[test]
fn a_mirror_list_of_a_cloud_image_is_followed() {
    let text = "Types: deb\nURIs: mirror+file:///etc/apt/mirrors/debian.list\nSuites: trixie\nComponents: main\n\n\
        Types: deb\nURIs: mirror+file:///etc/apt/mirrors/gone.list\nSuites: trixie-security\nComponents: main\n";
    let list = "# nearest first\nhttps://near.example/debian\tpriority:1\nhttps://far.example/debian\n";
    let sources =
        found(&[("etc/apt/sources.list.d/debian.sources", text), ("etc/apt/mirrors/debian.list", list)]);
    assert_eq!(sources.archive.as_str(), "https://near.example/debian");
    assert_eq!(sources.security.unwrap().as_str(), "https://near.example/debian-security");
    assert_eq!(sources.skipped.len(), 1, "{:?}", sources.skipped);
}

#[test]
fn only_the_files_apt_reads_are_read() {
    let files = [
        ("etc/apt/sources.list.d/a.list.disabled", "deb http://a.example/debian trixie main\n"),
        ("etc/apt/sources.list.d/b.list~", "deb http://b.example/debian trixie main\n"),
        ("etc/apt/sources.list.d/c.list", "deb http://c.example/debian trixie main\n"),
        ("etc/apt/apt.conf.d/50proxy", "Acquire::http::Proxy \"http://one.example\";"),
        ("etc/apt/apt.conf.d/60proxy.bak", "Acquire::http::Proxy \"http://two.example\";"),
        ("etc/apt/apt.conf.d/70proxy.conf", "Acquire::http::Proxy::c.example \"DIRECT\";"),
        ("etc/apt/apt.conf", "Acquire::https::Proxy \"http://three.example\";"),
    ];
    let sources = found(&files);
    assert_eq!(sources.archive.as_str(), "http://c.example/debian");
    let proxy = |url: &str| sources.proxies.for_url(&Url::parse(url).unwrap()).map(shown);
    assert_eq!(proxy("http://m.example").as_deref(), Some("http://one.example/"));
    assert_eq!(proxy("http://c.example"), None);
    assert_eq!(proxy("https://m.example").as_deref(), Some("http://three.example/"));
}

#[test]
fn security_is_beside_the_archive_also_in_a_snapshot() {
    let beside = |url: &str| security_beside(&Url::parse(url).unwrap()).map(|url| url.to_string());
    let snapshot = "http://m.example/archive/debian/20260101T000000Z";
    assert_eq!(beside(snapshot).unwrap(), "http://m.example/archive/debian-security/20260101T000000Z");
    assert_eq!(beside("https://m.example/pub/debian/").unwrap(), "https://m.example/pub/debian-security/");
    assert_eq!(beside("http://m.example/pub/linux"), None);
    assert_eq!(beside("file:///srv/debian").unwrap(), "file:///srv/debian-security");
}

#[test]
fn passwords_in_addresses_are_not_shown() {
    let text = "deb http://user:secret@m.example/x nosuite main\n";
    let error = discover(root(&[("etc/apt/sources.list", text)]).path()).unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
}

/// What apt itself says, run on a root directory.
#[expect(clippy::disallowed_methods, reason = "the judge is another program")]
fn apt(root: &Path, program: &str, arguments: &[&str]) -> String {
    let config = root.join("config-of-the-test");
    fs::write(&config, format!("Dir \"{}\";", root.display())).unwrap();
    for directory in
        ["var/lib/apt/lists/partial", "var/lib/dpkg", "etc/apt/apt.conf.d", "etc/apt/preferences.d"]
    {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    let run = std::process::Command::new(program).args(arguments).env("APT_CONFIG", &config).output();
    let run = run.expect("install apt");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

#[test]
fn apt_sees_the_same_entries() {
    let deb822 = "# head\n\nTypes: deb deb-src\n# inside\nURIs: http://a.example/debian http://b.example/debian/\n\
        Suites: trixie\n trixie-updates\nComponents: main contrib\nsigned-by: /k.gpg\n\n\
        Types: deb\nURIs: http://c.example/debian\nSuites: sid\nComponents: main\nEnabled: no\n\n \n\
        Types:deb\nUris:http://d.example/debian\nSuites:sid\nComponents:main\nEnabled: yes\n\n\
        Types: deb-src\nURIs: http://e.example/debian\nSuites: sid\nComponents: main\n\n\
        Types: deb\nURIs: http://f.example/debian\nSuites: ./\n";
    let list = "deb http://g.example/debian bookworm main # x\n#deb http://h.example/debian sid main\n\
        deb-src http://i.example/debian sid main\n  deb [arch=amd64]  http://j.example/debian\tsid main\n\
        deb [ signed-by=/k.gpg  lang=none ] http://k.example/debian/ sid main contrib\n\
        deb http://l.example/flat packages/\n\n";
    let files = [
        ("etc/apt/sources.list", list),
        ("etc/apt/sources.list.d/x.sources", deb822),
        ("etc/apt/sources.list.d/y.list.off", "deb http://m.example/debian sid main\n"),
        ("etc/apt/sources.list.d/.z.list", "deb http://n.example/debian sid main\n"),
        ("etc/apt/sources.list.d/0.list", "deb http://o.example/debian sid main\n"),
    ];
    let root = root(&files);
    let format = "$(REPO_URI)|$(RELEASE)";
    let arguments = ["indextargets", "--no-release-info", "--format", format, "Created-By: Packages"];
    let mut theirs: Vec<String> =
        apt(root.path(), "apt-get", &arguments).lines().map(str::to_owned).collect();
    theirs.sort();
    theirs.dedup();
    let ours = entries(root.path(), &mut Vec::new());
    let mut ours: Vec<String> =
        ours.iter().map(|entry| format!("{}/|{}", entry.uri.trim_end_matches('/'), entry.suite)).collect();
    ours.sort();
    ours.dedup();
    assert_eq!(ours, theirs);
    assert_eq!(ours.len(), 11);
}

#[test]
fn apt_reads_the_same_proxies() {
    let files = [
        (
            "etc/apt/apt.conf.d/10a",
            "Acquire { http { Proxy \"http://a.example:1/\"; }; }; // end\nAPT::Foo { \"x\"; \"y\"; };",
        ),
        (
            "etc/apt/apt.conf.d/20b.conf",
            "#clear Acquire::http::Proxy;\nacquire::HTTP::proxy::h.example \"DIRECT\";",
        ),
        (
            "etc/apt/apt.conf.d/30c",
            "Acquire::https\n{\n  # why\n  Proxy \"http://b.example\"; /* not this: } */\n}\n",
        ),
        ("etc/apt/apt.conf.d/40d.orig", "Acquire::http::Proxy \"http://c.example\";"),
        (
            "etc/apt/apt.conf",
            "Acquire::http::Proxy \"http://d.example:3142\"; Acquire::ftp::Proxy \"http://e.example\";",
        ),
    ];
    // All of them, and then without the last, where the order tells.
    for files in [&files[..], &files[..4], &files[..1]] {
        let root = root(files);
        let conf = apt_conf(root.path());
        for name in ["Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::http::Proxy::h.example"] {
            let theirs = apt(root.path(), "apt-config", &["shell", "x", name]);
            let theirs = theirs.trim().strip_prefix("x='").map_or("", |value| value.trim_end_matches('\''));
            assert_eq!(conf.value(&name.to_ascii_lowercase()).unwrap_or_default(), theirs, "{name}");
        }
    }
}
