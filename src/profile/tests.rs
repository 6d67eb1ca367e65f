//! Profiles as a whole: composition, what follows from a setting, the documentation, hostile input.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0ikGfHx8B1VnVEiEoX8ZxMhWnnqSlVhGTvZbKzTs8Z";

/// A directory with some profiles in it.
struct Files(TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self, name: &str) -> Result<Profile, Diagnostics> {
        Profile::load(self.path(name).to_str().unwrap())
    }
}

/// A profile whose text this is.
fn load(text: &str) -> Result<Profile, Diagnostics> {
    Files::new(&[("x.toml", text)]).load("x.toml")
}

fn wants(profile: &Profile) -> Vec<String> {
    profile.packages.iter().map(|package| package.to_string()).collect()
}

#[test]
fn the_smallest_profile_is_one_line() {
    let profile = load("boards = [\"pi4\"]").unwrap();
    assert_eq!(profile.name, "x");
    assert_eq!(profile.system.hostname.pattern(), "x-%m");
    assert!(profile.packages.is_empty() && profile.ports.is_empty() && profile.accounts.is_empty());
    assert_eq!(profile.updates.window.to_string(), "02:30-04:30");
    assert_eq!(*profile.disk.size, ImageSize::Auto { margin: crate::units::Bytes::mib(128) });
    assert!(!profile.is_personal());
}

#[test]
fn tables_merge_lists_add_scalars_replace() {
    let files = Files::new(&[
        (
            "base.toml",
            "boards = ['pi4']\npackages = ['curl', 'less']\n[system]\nhostname = 'a'\ntimezone = 'Europe/Rome'\n\
             [ports]\nweb = { port = 80, protocol = 'tcp', scope = 'lan', description = 'web' }\n\
             old = { port = 81, protocol = 'tcp', scope = 'lan' }\n",
        ),
        (
            "x.toml",
            "extends = './base.toml'\npackages = ['-less', 'curl', 'nano']\n[system]\nhostname = 'b'\n\
             [ports]\nweb = { scope = 'any' }\nold = false\n",
        ),
    ]);
    let profile = files.load("x.toml").unwrap();
    assert_eq!(wants(&profile), ["curl", "nano", "tzdata"]);
    assert_eq!(profile.system.hostname.fixed(), Some("b"));
    assert_eq!(profile.system.timezone.as_str(), "Europe/Rome");
    let ports: Vec<String> =
        profile.ports.iter().map(|port| format!("{port} {}", port.description)).collect();
    assert_eq!(ports, ["80/tcp from everywhere web"]);
}

#[test]
fn every_value_knows_the_line_that_last_set_it() {
    let files = Files::new(&[
        ("base.toml", "boards = ['pi4']\npackages = ['curl', 'less']\n\n[system]\nhostname = 'a'\n"),
        ("x.toml", "extends = './base.toml'\npackages = ['curl',\n  'nano']\n[system]\nhostname = 'b'\n"),
    ]);
    let profile = files.load("x.toml").unwrap();
    let line = |origin: &Origin| {
        let place = origin.place().unwrap();
        format!(
            "{}:{}",
            Path::new(place.source().label()).file_name().unwrap().to_string_lossy(),
            place.line()
        )
    };
    let lines: Vec<String> = profile.packages.iter().map(|one| line(one.origin())).collect();
    assert_eq!(lines, ["base.toml:2", "base.toml:2", "x.toml:3"]);
    assert_eq!(line(profile.system.hostname.origin()), "x.toml:5");
    assert!(profile.system.locale.origin().place().is_none());
}

#[test]
fn package_layers_follow_the_chain() {
    let files = Files::new(&[
        ("a.toml", "boards = ['pi4']\npackages = ['less', 'curl']\n"),
        ("b.toml", "extends = './a.toml'\npackages = ['samba']\n"),
        ("c.toml", "extends = './b.toml'\npackages = ['-curl', 'nano']\n"),
        ("d.toml", "extends = './c.toml'\npackages = ['wsdd2']\n"),
    ]);
    let show = |name: &str| {
        let layers = files.load(name).unwrap().package_layers();
        layers
            .iter()
            .map(|one| {
                format!(
                    "{}: {}{}",
                    one.profile,
                    one.wants.join(" "),
                    if one.apart.is_some() { " apart" } else { "" }
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(show("b.toml"), ["a: curl less", "b: samba"]);
    assert_eq!(show("c.toml"), ["c: less nano samba apart"]);
    assert_eq!(show("d.toml"), ["c: less nano samba apart", "d: wsdd2"]);
}

#[test]
fn another_version_of_a_parents_package_replaces_it() {
    let files = Files::new(&[
        ("a.toml", "boards = ['pi4']\npackages = ['curl=1.0']\n"),
        ("b.toml", "extends = './a.toml'\npackages = ['curl/trixie-security']\n"),
    ]);
    let profile = files.load("b.toml").unwrap();
    assert_eq!(wants(&profile), ["curl/trixie-security"]);
    let layers = profile.package_layers();
    assert_eq!(layers.len(), 1);
    assert_eq!(layers[0].apart.as_deref(), Some("takes `curl=1.0` of its parents away or replaces it"));
}

#[test]
fn a_pi_5_takes_its_kernel_from_backports() {
    let profile = load("extends = 'minimal'\nboards = ['pi5']\n[base]\nbackports = true\n").unwrap();
    assert!(wants(&profile).contains(&"linux-image-arm64/trixie-backports".to_owned()));
    assert!(!wants(&profile).contains(&"linux-image-arm64".to_owned()));
    assert!(profile.package_layers()[0].apart.is_some(), "the parent's kernel was replaced");
    let own = load(
        "extends = 'minimal'\nboards = ['pi5']\npackages = ['linux-image-arm64/trixie']\n[base]\nbackports = true\n",
    );
    assert!(wants(&own.unwrap()).contains(&"linux-image-arm64/trixie".to_owned()), "who says which, gets it");
}

#[test]
fn boards_can_be_chosen_for_one_build() {
    let profile = Profile::load_for("minimal", &[Board::Pi4]).unwrap();
    assert_eq!(profile.boards.iter().map(|board| **board).collect::<Vec<_>>(), [Board::Pi4]);
    let found = Profile::load_for("minimal", &[Board::Pi5]).unwrap_err().to_string();
    assert!(found.contains("a Pi 5 needs the kernel of trixie-backports"), "{found}");
}

#[test]
fn somebody_has_to_say_what_it_runs_on() {
    let found = load("extends = 'minimal'\nboards = ['-pi3', '-pi4', '-zero2w']\n").unwrap_err().to_string();
    assert!(found.contains("`boards` is missing"), "{found}");
}

#[test]
fn ssh_brings_a_server_a_port_and_an_account() {
    let profile = load(&format!("extends = 'minimal'\n[ssh]\nauthorized_keys = ['{KEY}']\n")).unwrap();
    assert!(wants(&profile).contains(&"openssh-server".to_owned()));
    assert_eq!(
        profile.ports.iter().map(Port::to_string).collect::<Vec<_>>(),
        ["22/tcp from the local network"]
    );
    let account = &profile.accounts[0];
    assert_eq!(account.name.as_str(), "admin");
    let groups: Vec<&str> = account.groups.iter().map(|group| group.as_str()).collect();
    assert_eq!(groups, ["sudo", "ssh-users"]);
    assert!(profile.groups.iter().any(|group| group.name.as_str() == "ssh-users"));
    assert!(profile.units.enable.iter().any(|unit| unit.as_str() == "ssh.service"));
    let own = load(&format!(
        "extends = 'minimal'\n[accounts.anna]\ngroups = ['video']\n[ssh]\nuser = 'anna'\nauthorized_keys = ['{KEY}']\n"
    ));
    let own = own.unwrap();
    assert_eq!(own.accounts.len(), 1);
    let groups: Vec<&str> = own.accounts[0].groups.iter().map(|group| group.as_str()).collect();
    assert_eq!(groups, ["video", "ssh-users"], "an account that is described gets no more than it must have");
}

#[test]
fn without_ssh_there_is_no_server_and_nothing_is_open() {
    let profile = Profile::load("minimal").unwrap();
    assert!(profile.ports.is_empty() && profile.accounts.is_empty() && profile.ssh.is_none());
    assert!(!wants(&profile).iter().any(|name| name.contains("ssh") || name.contains("firmware-brcm")));
}

#[test]
fn a_child_can_take_ssh_away_again() {
    let parent = format!("extends = 'minimal'\n[ssh]\nauthorized_keys = ['{KEY}']\n");
    let files = Files::new(&[("a.toml", parent.as_str()), ("b.toml", "extends = './a.toml'\nssh = false\n")]);
    assert!(files.load("a.toml").unwrap().ssh.is_some());
    let profile = files.load("b.toml").unwrap();
    assert!(profile.ssh.is_none() && profile.ports.is_empty());
}

#[test]
fn wifi_brings_its_firmware_and_a_key_makes_an_image_personal() {
    let text = "extends = 'minimal'\n[network.wlan0]\nssid = 'x'\ncountry = 'FR'\n";
    let profile = load(text).unwrap();
    for name in ["firmware-brcm80211", "wireless-regdb", "wpasupplicant"] {
        assert!(wants(&profile).contains(&name.to_owned()), "{name}");
    }
    assert!(!profile.is_personal());
    let psk = "ab".repeat(32);
    let profile = load(&format!("{text}psk = '{psk}'\n")).unwrap();
    assert!(profile.is_personal());
    assert!(!format!("{profile:?}").contains(&psk), "a key in a debug print");
}

#[test]
fn a_profiles_word_about_a_unit_stands_over_an_overlays() {
    let files = Files::new(&[
        ("one/overlay.toml", "description = 'one'\n[units]\nenable = ['a.service', 'b.service']\n"),
        ("two/overlay.toml", "description = 'two'\n[units]\nmask = ['a.service', 'b.service']\n"),
        ("x.toml", "boards = ['pi4']\noverlays = ['./one', './two']\n[units]\nenable = ['b.service']\n"),
    ]);
    let units = files.load("x.toml").unwrap().units;
    let words = |list: &[Sourced<String>]| list.iter().map(|unit| unit.to_string()).collect::<Vec<_>>();
    assert_eq!(words(&units.enable), ["b.service"]);
    assert_eq!(words(&units.mask), ["a.service"], "the later overlay wins over the earlier one");
}

#[test]
fn a_chain_is_bounded() {
    let names: Vec<String> = (0..10).map(|n| format!("p{n}.toml")).collect();
    let texts: Vec<String> = (0..10)
        .map(|n| match n {
            0 => "boards = ['pi4']\n".to_owned(),
            n => format!("extends = './p{}.toml'\n", n - 1),
        })
        .collect();
    let list: Vec<(&str, &str)> = names.iter().zip(&texts).map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let files = Files::new(&list);
    assert!(files.load("p7.toml").is_ok(), "eight profiles");
    assert!(
        files.load("p8.toml").unwrap_err().to_string().contains("a chain of more than 8"),
        "nine profiles"
    );
}

#[test]
fn shipped_profiles_are_right_and_name_no_file() {
    let names: Vec<&str> = shipped::PROFILES.iter().map(|profile| profile.name).collect();
    assert_eq!(names, ["dns", "files", "minimal"], "in one order on every machine");
    for name in names {
        let profile = Profile::load(name).unwrap_or_else(|found| panic!("{name}:\n{found}"));
        assert_eq!(profile.name, name);
        assert!(!profile.description.is_empty());
        assert!(profile.layers.iter().any(|layer| layer.name.as_str() == "minimal"));
    }
}

#[test]
fn shipped_overlays_say_why_each_file_is_there() {
    for overlay in shipped::OVERLAYS {
        let overlay = Overlay::shipped(overlay.name).unwrap_or_else(|found| panic!("{found}"));
        for entry in overlay.entries() {
            if !matches!(entry.kind, OverlayKind::DirectoryIfAbsent) {
                assert!(entry.reason.is_some(), "{}: {} gives no reason", overlay.name, entry.path);
            }
        }
    }
}

/// The blocks marked as TOML in a document.
fn examples(document: &str) -> Vec<String> {
    let mut examples = Vec::new();
    let mut rest = document;
    while let Some((_, start)) = rest.split_once("\n```toml\n") {
        let (example, after) = start.split_once("\n```").unwrap();
        examples.push(example.to_owned());
        rest = after;
    }
    examples
}

#[test]
fn every_example_in_the_documentation_works() {
    let examples = examples(include_str!("../../docs/profile.md"));
    assert!(examples.len() > 10, "{}", examples.len());
    for example in examples {
        let files = Files::new(&[
            ("x.toml", &example),
            ("overlays/office/overlay.toml", "description = 'office'\n"),
            ("report.sh", "#!/bin/sh\n"),
            ("setup.sh", "#!/bin/sh\n"),
        ]);
        if let Err(found) = files.load("x.toml") {
            panic!("{example}\n\n{found}");
        }
    }
}

#[test]
fn the_overlay_example_in_the_documentation_works() {
    let example = &examples(include_str!("../../docs/overlay.md"))[0];
    let files = Files::new(&[
        ("x/overlay.toml", example),
        ("x/files/etc/nftables.conf", ""),
        ("x/files/etc/unbound/hardtack.key", ""),
    ]);
    let overlay = Overlay::from_directory(&files.path("x")).unwrap_or_else(|found| panic!("{found}"));
    let kinds: Vec<String> =
        overlay.entries().iter().map(|one| format!("{} {:?}", one.path, one.kind)).collect();
    assert_eq!(
        kinds,
        [
            "/etc DirectoryIfAbsent",
            "/etc/localtime Symlink(/usr/share/zoneinfo/Etc/UTC)",
            "/etc/nftables.conf File(0 bytes, root:root 0640)",
            "/etc/systemd/system/ctrl-alt-del.target Symlink(/dev/null)",
            "/etc/unbound DirectoryIfAbsent",
            "/etc/unbound/hardtack.key File(0 bytes, root:unbound 0440)",
            "/srv/files Directory(root:users 2770)",
        ]
    );
}

/// Every key that reading a profile asks for, as `ports.*.scope`.
fn known_keys() -> BTreeSet<String> {
    let named = ["sources", "ports", "accounts", "groups", "network", "files", "scripts"];
    let text: String = named.iter().map(|table| format!("[{table}.x]\n")).collect();
    let files = Files::new(&[("x.toml", &text)]);
    let report = Report::default();
    let composed = compose::compose(files.path("x.toml").to_str().unwrap(), &report).unwrap();
    assert!(Profile::read(composed, &[], &report).is_some());
    report.keys()
}

#[test]
fn every_key_is_documented() {
    let document = include_str!("../../docs/profile.md");
    let keys = known_keys();
    assert!(keys.len() > 60, "{keys:?}");
    for key in keys {
        let table = document.contains(&format!("`[{key}]`")) || document.contains(&format!("`[{}.", key));
        assert!(table || document.contains(&format!("`{key}`")), "docs/profile.md does not mention `{key}`");
    }
}

/// Reading anything as a profile gives a profile or findings with text, and never a panic.
fn read_anything(text: &str) {
    let source = Source::new("x.toml", text, Home::Shipped);
    let report = Report::default();
    let fields = node::parse(&source, &report);
    let layer = Layer {
        name: Sourced::default_value("x".into()),
        description: String::new(),
        source: source.clone(),
    };
    let composed = Composed { layers: vec![layer], fields, removals: Vec::new(), place: source.place(0..0) };
    let profile = Profile::read(composed, &[], &report);
    if let Err(found) = report.judge(profile) {
        assert!(!found.render(true).is_empty());
    }
}

/// Lines that are nearly right reach further into the reader than noise does.
fn line() -> impl Strategy<Value = String> {
    let keys: Vec<String> = known_keys().into_iter().collect();
    let word = prop::sample::select(keys).prop_map(|key| key.replace('*', "x"));
    let value = prop_oneof![
        Just("true".to_owned()),
        Just("false".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        "[a-z0-9./:=-]{0,12}".prop_map(|text| format!("{text:?}")),
        "\\PC{0,8}".prop_map(|text| format!("{text:?}")),
        "[a-z/.-]{1,6}".prop_map(|text| format!("[{text:?}, \"-x\", 5]")),
        Just("{ port = 1, mode = '7', scope = 'é' }".to_owned()),
    ];
    (word, value).prop_map(|(key, value)| format!("{key} = {value}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn noise_is_never_a_panic(text in "(?s).{0,200}") {
        read_anything(&text);
    }

    #[test]
    fn near_misses_are_never_a_panic(lines in prop::collection::vec(line(), 0..12)) {
        read_anything(&lines.join("\n"));
    }

    #[test]
    fn cut_documents_are_never_a_panic(cut in 0..include_str!("../../profiles/files.toml").len()) {
        read_anything(&String::from_utf8_lossy(&include_bytes!("../../profiles/files.toml")[..cut]));
    }
}

#[test]
fn deep_nesting_is_refused_and_not_a_crash() {
    read_anything(&format!("x = {}{}", "[".repeat(100_000), "]".repeat(100_000)));
    read_anything(&format!("{} = 1", vec!["a"; 50_000].join(".")));
}
