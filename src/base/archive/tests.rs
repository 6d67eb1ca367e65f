use super::*;
use crate::debian::deb::tests::package;
use crate::tree::dump::dump;
use crate::tree::{Kind, TreePath};
use proptest::prelude::*;
use tar::EntryType as T;

const EPOCH: Timestamp = Timestamp::seconds(1_800_000_000);

type Members<'a> = &'a [(&'a str, T, &'a str, &'a [u8])];

const DIRECTORY: T = T::Directory;
const FILE: T = T::Regular;
const LINK: T = T::Symlink;

/// A package with these extra fields (`Replaces: x\n`), control files and members.
fn deb_with(name: &str, fields: &str, files: &[(&str, &str)], members: Members<'_>) -> DebToUnpack {
    let architecture = if fields.contains("Architecture") { "" } else { "Architecture: arm64\n" };
    let stanza = format!("Package: {name}\nVersion: 1.0\n{architecture}{fields}");
    let mut control = vec![("./control", stanza.as_str())];
    control.extend(files);
    let bytes = package(&control, members);
    let architecture = fields.lines().find_map(|line| line.strip_prefix("Architecture: ")).unwrap_or("arm64");
    DebToUnpack {
        label: format!("{name}.deb"),
        name: name.into(),
        version: "1.0".into(),
        architecture: architecture.into(),
        len: bytes.len() as u64,
        source: Arc::new(bytes),
    }
}

fn deb(name: &str, members: Members<'_>) -> DebToUnpack {
    deb_with(name, "", &[("./md5sums", "")], members)
}

fn on(base: Tree, debs: &[DebToUnpack], jobs: usize) -> Result<Unpacked, UnpackError> {
    let directory = tempfile::tempdir().unwrap();
    let pack = PackWriter::create(&directory.path().join("pack")).unwrap();
    let jobs = NonZeroUsize::new(jobs).unwrap();
    unpack(
        base,
        debs,
        &pack,
        &Options { epoch: EPOCH, jobs, progress: &|_| {}, cancel: &AtomicBool::new(false) },
    )
}

fn tree(debs: &[DebToUnpack]) -> Result<Tree, UnpackError> {
    Ok(on(Tree::new(EPOCH), debs, 2)?.tree)
}

fn at(path: &str) -> TreePath {
    TreePath::new(path).unwrap()
}

fn text(tree: &Tree, path: &str) -> String {
    let content = tree.file(&at(path)).unwrap_or_else(|error| panic!("{error}\n{}", dump(tree).unwrap()));
    String::from_utf8(content.read_to_vec(1 << 20).unwrap()).unwrap()
}

/// A tree with these files.
fn base(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::new(EPOCH);
    for (path, bytes) in files {
        tree.put_file(&at(path), 0o644, EPOCH, *bytes).unwrap();
    }
    tree
}

#[test]
fn hostile_files_are_refused_by_name() {
    for (members, problem) in [
        (&[("../../etc/passwd", FILE, "", &b"x"[..])][..], "leaves its directory"),
        (&[("usr/../../x", FILE, "", b"x")], "leaves its directory"),
        (&[("./a\nb", FILE, "", b"x")], "a newline"),
        (&[("./dev/sda", T::Block, "", b"")], "a device"),
        (&[("./dev/mem", T::Char, "", b"")], "a device"),
        (&[("./a", T::Link, "/etc/shadow", b"")], "no earlier file of this package"),
        (&[("./a", T::Link, "../../etc/shadow", b"")], "leaves its directory"),
        (&[("./a", T::Link, "./b", b""), ("./b", FILE, "", b"later")], "no earlier file"),
        (&[("./d/", DIRECTORY, "", b""), ("./a", T::Link, "./d", b"")], "no earlier file"),
        (&[("./l", LINK, "/etc/shadow", b""), ("./a", T::Link, "./l", b"")], "no earlier file"),
        (&[("./a", FILE, "", b"x"), ("a", FILE, "", b"y")], "comes twice"),
        (&[("./a", FILE, "", b"x"), ("./a/", DIRECTORY, "", b"")], "comes twice"),
        (&[("./", FILE, "", b""), (".", LINK, "usr", b"")], "the root can only be a directory"),
        (&[("./l", LINK, "", b"")], "target is empty"),
    ] {
        let error = tree(&[deb("evil", members)]).unwrap_err();
        assert!(matches!(&error, UnpackError::File { package, .. } if package == "evil"), "{error:?}");
        assert!(error.to_string().contains(problem), "{error}");
    }
}

#[test]
fn absolute_names_and_links_stay_in_the_tree() {
    let tree = tree(&[
        deb(
            "a",
            &[("/etc/", DIRECTORY, "", b""), ("/etc/absolute", FILE, "", b"x"), ("./srv", LINK, "/etc", b"")],
        ),
        deb("b", &[("./srv/through", FILE, "", b"y"), ("./up", LINK, "../../../../etc", b"")]),
        deb("c", &[("./up/high", FILE, "", b"z")]),
    ])
    .unwrap();
    assert_eq!(text(&tree, "etc/absolute"), "x");
    assert_eq!(text(&tree, "etc/through"), "y");
    assert_eq!(text(&tree, "etc/high"), "z");
}

#[test]
fn a_link_and_files_behind_it_in_one_package_do_not_overwrite_others() {
    let victim = deb("a", &[("./etc/", DIRECTORY, "", b""), ("./etc/shadow", FILE, "", b"secret")]);
    // Its links come last, as with dpkg, so the file makes a directory, and that stays.
    let evil = deb("evil", &[("./x", LINK, "etc", b""), ("./x/shadow", FILE, "", b"mine")]);
    let result = tree(&[victim.clone(), evil]).unwrap();
    assert_eq!(text(&result, "etc/shadow"), "secret");
    assert_eq!(text(&result, "x/shadow"), "mine");
    let two = [
        deb("evil", &[("./x", LINK, "etc", b"")]),
        deb("evil2", &[("./x/shadow", FILE, "", b"mine")]),
        victim,
    ];
    let error = tree(&two).unwrap_err();
    assert!(
        matches!(&error, UnpackError::Conflict { first, second, .. } if first == "a" && second == "evil2"),
        "{error}"
    );
}

#[test]
fn a_file_that_claims_more_than_the_archive_may_hold_is_stopped() {
    let mut header = ::tar::Header::new_gnu();
    header.set_path("./big").unwrap();
    header.set_size((1 << 62) - 1);
    header.set_cksum();
    let bytes = crate::format::ar::tests::build(&[
        ("debian-binary", b"2.0\n"),
        (
            "control.tar",
            &crate::format::tar::tests::build(&[(
                "./control",
                FILE,
                "",
                b"Package: evil\nVersion: 1.0\nArchitecture: all\n",
            )]),
        ),
        ("data.tar", header.as_bytes()),
    ]);
    let evil = DebToUnpack {
        architecture: "all".into(),
        len: bytes.len() as u64,
        source: Arc::new(bytes),
        ..deb("evil", &[])
    };
    let error = tree(&[evil]).unwrap_err();
    assert!(format!("{error:?}").contains("TooLong(1073741824)"), "{error:?}");
}

#[test]
fn a_package_that_is_not_what_the_index_said_is_refused() {
    let wrong = DebToUnpack { version: "2.0".into(), ..deb("thing", &[]) };
    let error = tree(&[wrong]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the package file `thing.deb` says it is thing 1.0 arm64; the archive's index said thing 2.0 arm64"
    );
}

#[test]
fn two_packages_with_one_file_need_replaces() {
    let one = deb("one", &[("./usr/x", FILE, "", b"1"), ("./usr/y", FILE, "", b"1")]);
    let error = tree(&[one.clone(), deb("two", &[("./usr/x", FILE, "", b"2")])]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "packages `one` and `two` both have `/usr/x`, and neither says that it replaces the other"
    );
    // The winner is the same whichever is merged first: `a` before `one`, `two` after it.
    for name in ["a", "two"] {
        let fields = "Replaces: one (<< 1.1)\n";
        let tree = tree(&[one.clone(), deb_with(name, fields, &[], &[("./usr/x", FILE, "", b"2")])]).unwrap();
        assert_eq!(text(&tree, "usr/x"), "2");
        assert_eq!(text(&tree, "var/lib/dpkg/info/one.list"), "/usr/y\n", "{name}");
        assert_eq!(text(&tree, &format!("var/lib/dpkg/info/{name}.list")), "/usr/x\n");
    }
    let older = deb_with("two", "Replaces: one (<< 1.0)\n", &[], &[("./usr/x", FILE, "", b"2")]);
    assert!(matches!(tree(&[one, older]), Err(UnpackError::Conflict { .. })));
}

#[test]
fn one_file_under_two_spellings_is_one_file() {
    let files: Members<'_> = &[("./usr/lib/", DIRECTORY, "", b""), ("./lib", LINK, "usr/lib", b"")];
    let merged = deb("base-files", files);
    let old = deb("old", &[("./lib/", DIRECTORY, "", b""), ("./lib/x", FILE, "", b"old")]);
    let result = tree(&[old.clone(), merged.clone()]).unwrap();
    assert_eq!(text(&result, "usr/lib/x"), "old");
    assert!(matches!(result.get(&at("lib")).unwrap().kind, Kind::Symlink(_)));
    let new = deb("new", &[("./usr/lib/x", FILE, "", b"new")]);
    assert!(matches!(tree(&[old, merged, new]), Err(UnpackError::Conflict { .. })));
}

#[test]
fn directories_are_shared_and_belong_to_who_came_first() {
    let private = deb("b", &[("./srv/", DIRECTORY, "", b""), ("./srv/x", FILE, "", b"x")]);
    let first = tree(&[deb("a", &[("./srv/", DIRECTORY, "", b"")]), private]).unwrap();
    let lines = dump(&first).unwrap();
    assert!(lines.contains("/srv directory 0755 0 42 1700000000.000000000\n"), "{lines}");
    assert_eq!(text(&first, "var/lib/dpkg/info/a.list"), "/srv\n");
    assert_eq!(text(&first, "var/lib/dpkg/info/b.list"), "/srv\n/srv/x\n");
    // A directory stays where a link is to go, and a link to a directory where a directory is to go.
    let both = tree(&[deb("a", &[("./srv/", DIRECTORY, "", b"")]), deb("b", &[("./srv", LINK, "etc", b"")])])
        .unwrap();
    assert!(both.get(&at("srv")).unwrap().kind.is_directory());
    let file = deb("b", &[("./srv", FILE, "", b"")]);
    assert!(matches!(
        tree(&[deb("a", &[("./srv/", DIRECTORY, "", b"")]), file]),
        Err(UnpackError::Tree { .. })
    ));
}

#[test]
fn configuration_files_wait_beside_their_place() {
    let members: Members<'_> = &[
        ("./etc/thing/", DIRECTORY, "", b""),
        ("./etc/thing/conf", FILE, "", b"new"),
        ("./etc/thing/second", T::Link, "./etc/thing/conf", b""),
        ("./etc/other", FILE, "", b"plain"),
    ];
    let conffiles = [("./conffiles", "/etc/thing/conf\nremove-on-upgrade /etc/gone\n")];
    let thing = deb_with("thing", "", &conffiles, members);
    let result = on(base(&[("etc/real/conf", "admin's")]), std::slice::from_ref(&thing), 1).unwrap().tree;
    assert_eq!(text(&result, "etc/thing/conf.dpkg-new"), "new");
    assert!(result.get(&at("etc/thing/conf")).is_none());
    assert_eq!(result.id(&at("etc/thing/second")), result.id(&at("etc/thing/conf.dpkg-new")));
    assert_eq!(text(&result, "etc/other"), "plain");
    let status = text(&result, "var/lib/dpkg/status");
    let field = "Conffiles:\n /etc/thing/conf newconffile\n /etc/gone newconffile remove-on-upgrade\n";
    assert!(status.contains(field), "{status}");
    assert!(text(&result, "var/lib/dpkg/info/thing.list").contains("/etc/thing/conf\n"));
    // The administrator made it a link: the new version waits where the link leads.
    let mut linked = base(&[("etc/real/conf", "admin's")]);
    let meta = crate::meta::Meta::root(0o777, EPOCH);
    linked.put(&at("etc/thing/conf"), meta, Kind::Symlink(b"../real/conf".to_vec())).unwrap();
    let result = on(linked, &[thing], 1).unwrap().tree;
    assert_eq!(text(&result, "etc/real/conf"), "admin's");
    assert_eq!(text(&result, "etc/real/conf.dpkg-new"), "new");
}

#[test]
fn the_result_depends_on_the_packages_only() {
    let mut debs: Vec<DebToUnpack> = (0..12)
        .map(|n| {
            let (name, file) = (format!("p{n}"), format!("./usr/share/p{n}/file"));
            let data = vec![n as u8; 1000 * n];
            let fields = format!("Depends: p{}\nInstalled-Size: {n}\n", (n + 5) % 12);
            deb_with(&name, &fields, &[], &[("./usr/", DIRECTORY, "", b""), (&file, FILE, "", &data)])
        })
        .collect();
    let first = on(Tree::new(EPOCH), &debs, 1).unwrap();
    debs.reverse();
    let second = on(Tree::new(EPOCH), &debs, 4).unwrap();
    assert_eq!(dump(&first.tree).unwrap(), dump(&second.tree).unwrap());
    let names = |unpacked: &Unpacked| {
        unpacked.packages.iter().map(|package| package.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&first), names(&second));
}

#[test]
fn packages_come_after_what_they_need_and_base_files_first() {
    let debs = [
        deb_with("a", "Depends: b | nothing, c\n", &[], &[]),
        deb_with("b", "Pre-Depends: virtual\n", &[], &[]),
        deb_with("c", "Depends: a\n", &[], &[]),
        deb_with("d", "Provides: virtual (= 1)\n", &[], &[]),
        deb_with("e", "Essential: yes\nPre-Depends: a\n", &[], &[]),
        deb_with("base-files", "Essential: yes\nPre-Depends: e\n", &[], &[]),
    ];
    let names: Vec<String> =
        on(Tree::new(EPOCH), &debs, 2).unwrap().packages.into_iter().map(|package| package.name).collect();
    assert_eq!(names, ["base-files", "d", "b", "c", "a", "e"]);
}

#[test]
fn owners_go_by_name_where_the_tree_knows_them() {
    let files: Members<'_> = &[("./usr/bin/x", FILE, "", b"x"), ("./usr/bin/y", FILE, "", b"x")];
    let plain = tree(&[deb("thing", files)]).unwrap();
    assert_eq!(plain.get(&at("usr/bin/x")).unwrap().meta.gid, 42);
    let base = base(&[
        ("etc/group", "root:x:0:\nshadow:x:77:\nshadow:x:78:\n"),
        ("etc/passwd", "root:x:0:0::/:/\nown:x:5:5::/:/\n"),
        ("var/lib/dpkg/statoverride", "own #9 4750 /usr/bin/y\n"),
    ]);
    let named = on(base, &[deb("thing", files)], 1).unwrap().tree;
    let meta =
        |path: &str| named.get(&at(path)).map(|node| (node.meta.uid, node.meta.gid, node.meta.mode)).unwrap();
    assert_eq!(meta("usr/bin/x"), (0, 77, 0o644));
    assert_eq!(meta("usr/bin/y"), (5, 9, 0o4750));
}

#[test]
fn diversions_of_the_base_hold() {
    let diversions = [("var/lib/dpkg/diversions", "/usr/bin/x\n/usr/bin/x.real\nwrapper\n")];
    let files: Members<'_> = &[("./usr/bin/x", FILE, "", b"x")];
    let result =
        on(base(&diversions), &[deb("thing", files), deb("wrapper", &[("./usr/bin/x", FILE, "", b"w")])], 1);
    let result = result.unwrap().tree;
    assert_eq!(text(&result, "usr/bin/x.real"), "x");
    assert_eq!(text(&result, "usr/bin/x"), "w");
    assert_eq!(text(&result, "var/lib/dpkg/info/thing.list"), "/usr/bin/x\n");
    let evil = deb("evil", &[("./usr/bin/x.real", FILE, "", b"x")]);
    assert!(matches!(on(base(&diversions), &[evil], 1), Err(UnpackError::Diverted { .. })));
}

#[test]
fn two_architectures_of_one_package_share_equal_files() {
    let instance = |architecture: &str, contents: &[u8]| {
        let fields = format!("Architecture: {architecture}\nMulti-Arch: same\n");
        let own = format!("./usr/lib/{architecture}");
        let members: Members<'_> = &[
            ("./usr/share/doc", FILE, "", contents),
            (&own, FILE, "", b"x"),
            ("./usr/share/link", LINK, "doc", b""),
        ];
        deb_with("libthing", &fields, &[], members)
    };
    let both = tree(&[instance("arm64", b"same"), instance("armhf", b"same")]).unwrap();
    for architecture in ["arm64", "armhf"] {
        let list = text(&both, &format!("var/lib/dpkg/info/libthing:{architecture}.list"));
        assert_eq!(list, format!("/usr/share/doc\n/usr/lib/{architecture}\n/usr/share/link\n"));
    }
    let error = tree(&[instance("arm64", b"same"), instance("armhf", b"else")]).unwrap_err();
    assert!(matches!(error, UnpackError::Conflict { .. }), "{error}");
}

#[test]
fn sums_are_made_for_packages_without() {
    let result =
        tree(&[deb_with("thing", "", &[], &[("./usr/x", FILE, "", b"abc"), ("./usr/empty", FILE, "", b"")])])
            .unwrap();
    let sums = "900150983cd24fb0d6963f7d28e17f72  usr/x\nd41d8cd98f00b204e9800998ecf8427e  usr/empty\n";
    assert_eq!(text(&result, "var/lib/dpkg/info/thing.md5sums"), sums);
    let own = deb_with("thing", "", &[("./md5sums", "its own\n")], &[("./usr/x", FILE, "", b"abc")]);
    assert_eq!(text(&tree(&[own]).unwrap(), "var/lib/dpkg/info/thing.md5sums"), "its own\n");
}

const INSTALLED: &str = "Package: man\nStatus: install ok installed\nArchitecture: arm64\nVersion: 1\nReplaces: thing\n\n\
     Package: lazy\nStatus: install ok unpacked\nArchitecture: arm64\nVersion: 1\n\n";

fn installed() -> Tree {
    base(&[
        ("var/lib/dpkg/status", INSTALLED),
        ("var/lib/dpkg/info/man.list", "/usr\n/usr/bin/man\n"),
        (
            "var/lib/dpkg/triggers/File",
            "/usr/share/man man/noawait\n/usr/share/man lazy\n/usr/share/info man\n",
        ),
        ("var/lib/dpkg/triggers/ldconfig", "man\nlazy\n"),
        ("usr/bin/man", "old"),
    ])
}

#[test]
fn configured_packages_learn_what_they_are_interested_in() {
    let members: Members<'_> = &[
        ("./usr/share/man/", DIRECTORY, "", b""),
        ("./usr/share/info/", DIRECTORY, "", b""),
        ("./usr/bin/man", FILE, "", b"new"),
    ];
    let triggers = "interest-noawait /usr/share/thing\ninterest word\nactivate ldconfig\nactivate nobody\n";
    let thing = deb_with("thing", "", &[("./triggers", triggers)], members);
    let result = on(installed(), &[thing], 1).unwrap().tree;
    let trigger = |name: &str| text(&result, &format!("var/lib/dpkg/triggers/{name}"));
    assert_eq!(trigger("Unincorp"), "/usr/share/info thing\n/usr/share/man -\nldconfig thing\n");
    let interests = "/usr/share/man man/noawait\n/usr/share/man lazy\n/usr/share/info man\n/usr/share/thing thing/noawait\n";
    assert_eq!(trigger("File"), interests);
    assert_eq!(trigger("word"), "thing\n");
    // `man` replaces `thing`, so its file stays.
    assert_eq!(text(&result, "usr/bin/man"), "old");
    assert_eq!(text(&result, "var/lib/dpkg/info/thing.list"), "/usr/share/man\n/usr/share/info\n");
    let status = text(&result, "var/lib/dpkg/status");
    assert!(status.starts_with("Package: lazy\nStatus: install ok unpacked\n"), "{status}");
    assert!(
        status.ends_with(
            "\n\nPackage: thing\nStatus: install ok unpacked\nArchitecture: arm64\nVersion: 1.0\n\n"
        ),
        "{status}"
    );
}

#[test]
fn what_is_there_already_is_left_to_dpkg() {
    let debs = [deb("man", &[("./usr/bin/man", FILE, "", b"new")]), deb("thing", &[])];
    let result = on(installed(), &debs, 1).unwrap();
    assert_eq!(result.packages.len(), 1);
    assert_eq!((result.held[0].index, result.held[0].name.as_str()), (0, "man"));
    assert!(
        result.held[0].reason.starts_with("man 1 is there already, installed"),
        "{}",
        result.held[0].reason
    );
    assert_eq!(text(&result.tree, "usr/bin/man"), "old");
}

#[test]
fn packages_whose_preinst_changes_what_is_shipped_are_held() {
    let shipped =
        [("./md5sums", "0  usr/bin/thing\n0  usr/lib/libthing.so\n"), ("./conffiles", "/etc/thing.conf\n")];
    let held = |script: &str| {
        let files = [shipped[0], shipped[1], ("./preinst", script)];
        let found =
            on(Tree::new(EPOCH), &[deb_with("thing", "", &files, &[]), deb("other", &[])], 1).unwrap().held;
        found.into_iter().map(|held| held.reason).collect::<Vec<_>>()
    };
    for script in [
        "rm -f /etc/thing*",
        "rm -rf \"$DPKG_ROOT/usr/bin\"",
        "mv /lib/libthing.so /lib/old",
        "dpkg-divert --add --rename --divert /usr/bin/thing.old \\\n /usr/bin/thing",
        "dpkg-divert --package other --add /usr/bin/thing",
        "dpkg-divert --add \"/usr/bin/$tool\"",
    ] {
        assert_eq!(held(script).len(), 1, "{script}");
    }
    for script in [
        "rm -f /etc/other*",
        "rm -f /etc/thing.con /usr/bin/thin",
        "touch /etc/thing.conf",
        "dpkg-divert --add --no-rename --divert /lib/libthing.so.usr-is-merged /lib/libthing.so",
        "[ \"$(dpkg-divert --truename /usr/bin/thing)\" = x ]",
        "dpkg-divert --package absent --add /usr/bin/thing",
        "dpkg-maintscript-helper rm_conffile /etc/thing.conf 1 -- \"$@\"",
        "if [ \"$1\" = upgrade ]; then\n rm /usr/bin/thing\nfi",
        "# rm /usr/bin/thing",
    ] {
        assert_eq!(held(script), [""; 0], "{script}");
    }
}

#[test]
fn cancelling_stops_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let pack = PackWriter::create(&directory.path().join("pack")).unwrap();
    let cancel = AtomicBool::new(false);
    let progress = |_| cancel.store(true, Ordering::Relaxed);
    let options = Options { epoch: EPOCH, jobs: NonZeroUsize::MIN, progress: &progress, cancel: &cancel };
    let debs = [deb("a", &[("./a", FILE, "", b"a"), ("./b", FILE, "", b"b")])];
    assert!(matches!(unpack(Tree::new(EPOCH), &debs, &pack, &options), Err(UnpackError::Cancelled)));
}

#[test]
fn of_several_broken_packages_the_first_is_named_whatever_the_threads_do() {
    let mut debs: Vec<DebToUnpack> = (0..8).map(|n| deb(&format!("p{n}"), &[])).collect();
    debs[2].version = "wrong".into();
    for jobs in [1, 4] {
        let error = on(Tree::new(EPOCH), &debs, jobs).err().unwrap();
        assert!(error.to_string().starts_with("the package file `p2.deb`"), "{error}");
    }
}

proptest! {
    /// Wild archives inside right packages: whatever comes out, nothing panics, and what is accepted is a tree whose
    /// entries obey the rules.
    #[test]
    fn wild_archives_never_panic(
        members in prop::collection::vec((
            "[./]{0,2}[ab]{1,2}(/[ab.]{1,2}){0,3}/?",
            prop::sample::select(vec![FILE, DIRECTORY, LINK, T::Link, T::Fifo]),
            "(/|\\.\\./|\\./)?[ab](/[ab.]{1,2}){0,2}",
        ), 0..12),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2),
    ) {
        let data: Vec<(&str, T, &str, &[u8])> = members.iter().map(|(path, kind, link)| {
            let link = if kind.is_symlink() || kind.is_hard_link() { link.as_str() } else { "" };
            (path.as_str(), *kind, link, if kind.is_file() { &b"data"[..] } else { b"" })
        }).collect();
        let mut tar = crate::format::tar::tests::build(&data);
        for (index, value) in flips {
            let at = index.index(tar.len());
            tar[at] = value;
        }
        let control = crate::format::tar::tests::build(&[("./control", FILE, "", b"Package: wild\nVersion: 1.0\nArchitecture: all\n")]);
        let bytes = crate::format::ar::tests::build(&[("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar", &tar)]);
        let wild = DebToUnpack { architecture: "all".into(), len: bytes.len() as u64, source: Arc::new(bytes), ..deb("wild", &[]) };
        if let Ok(tree) = tree(&[deb("a", &[("./a/", DIRECTORY, "", b""), ("./b", LINK, "a", b"")]), wild]) {
            prop_assert!(Tree::from_entries(tree.entries()).is_ok());
        }
    }
}
