use super::*;
use crate::debian::index::{Package, parse_packages};
use crate::digest::Sha256;

/// Packages out of lines such as `a 1 | Depends: b (>= 2) | Conflicts: c`.
fn packages(text: &str) -> Vec<Package> {
    let mut stanzas = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut fields = line.split(" ; ");
        let (name, version) = fields.next().unwrap().split_once(' ').unwrap();
        let digest = Sha256::of(line.as_bytes());
        stanzas.push_str(&format!(
            "Package: {name}\nVersion: {version}\nArchitecture: arm64\nFilename: pool/{name}.deb\nSize: 1\nSHA256: {digest}\n"
        ));
        fields.for_each(|field| stanzas.push_str(&format!("{field}\n")));
        stanzas.push('\n');
    }
    parse_packages(stanzas.as_bytes()).unwrap()
}

fn universe(trixie: &str, backports: &str) -> Universe {
    let index = |codename: &str, priority, text| Index {
        suite: codename.replace("trixie", "stable"),
        codename: codename.to_owned(),
        priority,
        packages: packages(text),
    };
    let indexes = vec![index("trixie", 500, trixie), index("trixie-backports", 100, backports)];
    Universe::new("arm64", indexes).unwrap()
}

fn wants(text: &str) -> Wants {
    Wants {
        packages: text.split(' ').filter(|one| !one.is_empty()).map(|one| one.parse().unwrap()).collect(),
        ..Wants::default()
    }
}

fn names(universe: &Universe, solution: &Solution) -> String {
    let names: Vec<_> = solution.packages.iter().map(|&(id, _)| universe.package(id).to_string()).collect();
    names.join(" ")
}

/// The set for a list of wants, or the message.
fn answer(universe: &Universe, wants: &Wants) -> String {
    match solve(universe, wants) {
        Ok(solution) => names(universe, &solution),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_candidate_is_the_highest_version_of_the_highest_priority() {
    let universe = universe("a 1\na 2", "a 3\nb 1");
    assert_eq!(answer(&universe, &wants("a")), "a=2");
    assert_eq!(answer(&universe, &wants("b")), "b=1");
    assert_eq!(answer(&universe, &wants("a/trixie-backports")), "a=3");
    assert_eq!(answer(&universe, &wants("a/stable-backports")), "a=3");
    assert_eq!(answer(&universe, &wants("a=1")), "a=1");
    assert_eq!(answer(&universe, &wants("a=3*")), "a=3");
    let pin = |to, priority| Pin { package: "a*".to_owned(), to, priority };
    let pinned = |pin| answer(&universe, &Wants { pins: vec![pin], ..wants("a") });
    assert_eq!(pinned(pin(PinTo::Suite("trixie-backports".to_owned()), 990)), "a=3");
    assert_eq!(pinned(pin(PinTo::Version("1".to_owned()), 990)), "a=1");
    assert_eq!(pinned(pin(PinTo::Suite("trixie".to_owned()), -1)), "a=3");
    assert_eq!(
        pinned(pin(PinTo::Version("*".to_owned()), -1)),
        "cannot choose packages: `a` has no version that its priority allows to install; there is 3 (trixie-backports), \
         2 (trixie), 1 (trixie)"
    );
}

#[test]
fn every_package_says_why_it_is_there() {
    let universe = universe(
        "base 1 ; Essential: yes\nimp 1 ; Priority: important ; Depends: lib\nlib 1\na 1 ; Pre-Depends: b ; Recommends: r\n\
         b 1\nr 1\nother 1",
        "",
    );
    let wants = Wants { essential: true, priorities: vec![Priority::Important], ..wants("a") };
    let solution = solve(&universe, &wants).unwrap();
    let id = |name: &str| universe.versions(name)[0];
    assert_eq!(
        solution.packages,
        [
            (id("a"), Why::Wanted),
            (id("b"), Why::Needed { by: id("a"), kind: Kind::PreDepends }),
            (id("base"), Why::Essential),
            (id("imp"), Why::Priority(Priority::Important)),
            (id("lib"), Why::Needed { by: id("imp"), kind: Kind::Depends }),
        ]
    );
    assert!(!solution.searched);
    let more = Wants { recommends: true, ..wants };
    assert_eq!(names(&universe, &solve(&universe, &more).unwrap()), "a=1 b=1 base=1 imp=1 lib=1 r=1");
}

#[test]
fn a_recommendation_that_cannot_be_had_is_left_out() {
    let universe = universe("a 1 ; Recommends: r, s, nobody\nr 1 ; Depends: missing\ns 1", "");
    assert_eq!(answer(&universe, &Wants { recommends: true, ..wants("a") }), "a=1 s=1");
}

#[test]
fn alternatives_and_providers_are_taken_in_apts_order() {
    let universe = universe(
        "a 1 ; Depends: x | y\nb 1 ; Depends: y | x\nc 1 ; Depends: virt\nd 1 ; Depends: virt (>= 2)\nx 1\ny 1\n\
         p 1 ; Provides: virt ; Priority: optional\nq 1 ; Provides: virt (= 2) ; Priority: optional\n\
         r 1 ; Provides: virt (= 1) ; Priority: important\ne 1 ; Depends: virt2 | q\nz 1 ; Provides: virt2 (<< 3)",
        "",
    );
    assert_eq!(answer(&universe, &wants("a")), "a=1 x=1");
    // What was chosen for `b` is good for `a` too: the walk does not take the first alternative then.
    assert_eq!(answer(&universe, &wants("b a")), "a=1 b=1 y=1");
    assert_eq!(answer(&universe, &wants("a b")), "a=1 b=1 x=1");
    assert_eq!(answer(&universe, &wants("c")), "c=1 r=1");
    assert_eq!(answer(&universe, &wants("d")), "d=1 q=1");
    assert_eq!(answer(&universe, &wants("p c")), "c=1 p=1");
    // Only `=` provides a version.
    assert_eq!(answer(&universe, &wants("e")), "e=1 q=1");
}

#[test]
fn any_is_only_for_those_who_allow_it() {
    let universe = universe(
        "a 1 ; Depends: python:any (>= 3)\nb 1 ; Depends: tool:any\nc 1 ; Depends: tool:native, tool:arm64\nd 1 ; Depends: tool:amd64\n\
         python 3 ; Multi-Arch: allowed\ntool 1 ; Multi-Arch: foreign",
        "",
    );
    assert_eq!(answer(&universe, &wants("a")), "a=1 python=3");
    assert_eq!(answer(&universe, &wants("c")), "c=1 tool=1");
    assert!(answer(&universe, &wants("b")).contains("there is no package tool:any"));
    assert!(answer(&universe, &wants("d")).contains("there is no package tool:amd64"));
}

#[test]
fn a_virtual_package_is_good_when_only_one_provides_it() {
    let universe = universe("p 1 ; Provides: one, two\nq 1 ; Provides: two", "");
    assert_eq!(answer(&universe, &wants("one")), "p=1");
    assert_eq!(
        answer(&universe, &wants("two")),
        "cannot choose packages: `two` is a virtual package; ask for one that provides it: p=1, q=1"
    );
}

#[test]
fn conflicts_are_respected_and_never_with_oneself() {
    let universe = universe(
        "a 1 ; Conflicts: mta ; Provides: mta\nb 1 ; Conflicts: mta ; Provides: mta\nc 1 ; Depends: b | d\nd 1\n\
         e 1 ; Breaks: f (<< 2)\nf 1\nf2 2 ; Provides: f (= 2)",
        "",
    );
    assert_eq!(answer(&universe, &wants("a c")), "a=1 c=1 d=1");
    let message = answer(&universe, &wants("a b"));
    assert!(
        message.contains("- a=1 conflicts with mta, which b=1 provides")
            || message.contains("- b=1 conflicts with mta, which a=1 provides"),
        "{message}"
    );
    assert!(answer(&universe, &wants("e f")).contains("e=1 breaks f (<< 2), and that is f=1"));
    assert_eq!(answer(&universe, &wants("e f2")), "e=1 f2=2");
}

#[test]
fn where_the_walk_gets_stuck_a_search_goes_on() {
    // The walk takes `x` for `a` and never comes back; only `y` can live with `b`.
    let universe = universe(
        "a 1 ; Depends: x | y\nx 1\ny 1\nb 1 ; Depends: c\nc 1 ; Depends: d\nd 1 ; Conflicts: x",
        "",
    );
    let solution = solve(&universe, &wants("a b")).unwrap();
    assert!(solution.searched);
    assert_eq!(names(&universe, &solution), "a=1 b=1 c=1 d=1 y=1");
}

#[test]
fn the_message_says_who_needs_what_and_what_there_is() {
    let universe = universe(
        "a 1 ; Depends: b\nb 1 ; Depends: c (>= 2) | gone, d\nc 1\nd 1\ne 1 ; Depends: d (>= 2)\nv 1 ; Depends: virt (>= 3)\n\
         w 1 ; Provides: virt (= 2)",
        "d 2",
    );
    assert_eq!(
        answer(&universe, &wants("a")),
        "the packages asked for cannot be installed together:\n  - a=1 was asked for\n  - a=1 depends on b\n  \
         - b=1 depends on c (>= 2) | gone; but there is c 1 (trixie); there is no package gone"
    );
    assert!(answer(&universe, &wants("e")).contains(
        "- e=1 depends on d (>= 2); but only d 2 (trixie-backports) would do, which is not the candidate: ask for \
         `d/trixie-backports`"
    ));
    assert_eq!(answer(&universe, &wants("e d/trixie-backports")), "d=2 e=1");
    assert!(answer(&universe, &wants("v")).contains("virt is provided by w=1 without that version"));
}

#[test]
fn what_was_misspelt_is_suggested() {
    let universe = universe("openssh-server 1\nopenssh-client 1\nsamba 1\nlibssl3t64 1\nvim 1", "");
    for (name, said) in [
        ("opnessh-server", "; did you mean `openssh-server`?"),
        ("openssh", "; did you mean one of `openssh-client`, `openssh-server`?"),
        ("sambaa", "; did you mean `samba`?"),
        ("libssl3", "; did you mean `libssl3t64`?"),
        ("vmi", "; did you mean `vim`?"),
        ("emacs", ""),
    ] {
        assert_eq!(
            answer(&universe, &wants(name)),
            format!("cannot choose packages: there is no package `{name}`{said}")
        );
    }
    let both = answer(&universe, &wants("emacs nano"));
    assert_eq!(
        both,
        "cannot choose packages:\n  - there is no package `emacs`\n  - there is no package `nano`"
    );
}

#[test]
fn what_is_to_be_left_out_is_left_out_but_never_the_essential() {
    let universe = universe("a 1 ; Depends: x | y\nx 1\ny 1\nb 1 ; Depends: x\nbase 1 ; Essential: yes", "");
    let without = |text: &str, remove: &str| {
        answer(&universe, &Wants { remove: vec![remove.to_owned()], ..wants(text) })
    };
    assert_eq!(without("a", "x"), "a=1 y=1");
    assert_eq!(without("a", "unknown"), "a=1 x=1");
    assert!(without("b", "x").contains("`x` was to be left out"), "{}", without("b", "x"));
    assert_eq!(without("a", "base"), "cannot leave out `base`: it is essential, every Debian system has it");
}

#[test]
fn a_layer_keeps_the_choice_of_its_parent() {
    let universe = universe(
        "a 1 ; Depends: x | y\nx 1\ny 1\nlib 1\nlib 2\nuser 1 ; Depends: lib\nnewer 1 ; Depends: lib (>= 2)\nhater 1 ; Conflicts: x\n\
         stuck 1 ; Depends: missing",
        "",
    );
    let layer = |text: &str, parent: &[&str]| {
        let fixed =
            parent.iter().map(|one| universe.exact(&one[..one.len() - 2], &one[one.len() - 1..]).unwrap());
        solve(&universe, &Wants { fixed: fixed.collect(), ..wants(text) })
    };
    let good = |text: &str, parent: &[&str]| names(&universe, &layer(text, parent).unwrap());
    assert_eq!(good("a", &["y=1"]), "a=1 y=1");
    assert_eq!(good("user", &["lib=1"]), "lib=1 user=1");
    assert_eq!(good("lib", &["lib=1"]), "lib=1");
    for (text, parent, gone, by) in [
        ("newer", "lib=1", "lib=1 would have to be replaced by 2: newer=1 depends on lib (>= 2)", Some("2")),
        ("hater", "x=1", "x=1 would have to be removed: hater=1 conflicts with x, and that is x=1", None),
        ("lib=2", "lib=1", "lib=1 would have to be replaced by 2", Some("2")),
    ] {
        let result = layer(text, &[parent, "y=1"]);
        let Err(SolveError::Parent { changes }) = result else { panic!("{text}: {result:?}") };
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].to_string(), gone);
        assert_eq!(changes[0].replaced_by.map(|id| universe.package(id).version.as_str()), by);
    }
    assert!(matches!(layer("stuck", &["y=1"]), Err(SolveError::Unsolvable { .. })));
}

#[test]
fn a_version_from_a_suite_brings_what_it_needs_from_there() {
    let universe =
        universe("kernel 1\nbase 1\nextra 1 ; Depends: base", "kernel 2 ; Depends: base (>= 2)\nbase 2");
    let solution = solve(&universe, &wants("extra kernel/trixie-backports")).unwrap();
    assert_eq!(names(&universe, &solution), "base=2 extra=1 kernel=2");
    assert!(!solution.searched);
    assert!(answer(&universe, &wants("kernel=2")).contains("ask for `base/trixie-backports`"));
}

#[test]
fn the_same_package_in_two_suites_is_one_package() {
    let universe = universe("a 1\nb 1", "a 1\nb 1 ; Section: other");
    assert_eq!(universe.versions("a").len(), 1);
    assert_eq!(universe.index_positions(universe.versions("a")[0]).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(universe.versions("b").len(), 2);
}

#[test]
fn a_very_long_chain_does_not_overflow_the_stack() {
    let mut text: String = (0..4_000).map(|n| format!("p{n} 1 ; Depends: p{}\n", n + 1)).collect();
    text.push_str("p4000 1\n");
    let universe = universe(&text, "");
    let solution = solve(&universe, &wants("p0")).unwrap();
    assert_eq!(solution.packages.len(), 4_001);
    assert!(solution.searched);
}

#[test]
fn a_relation_that_is_no_relation_names_its_package() {
    let index = Index {
        suite: String::new(),
        codename: String::new(),
        priority: 500,
        packages: packages("a 1 ; Depends: b (= )"),
    };
    let error = Universe::new("arm64", vec![index]).unwrap_err();
    assert_eq!(error.to_string(), "cannot read `Depends` of the package a=1");
}
