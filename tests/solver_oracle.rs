//! The solver, judged by apt: the same indexes, an empty system, the same list of packages, the same set in the end.

#![expect(clippy::print_stdout, reason = "what was compared, shown with --nocapture")]

#[path = "solver_oracle/apt.rs"]
mod apt;

use apt::APT;
use hardtack::debian::index::Priority;
use hardtack::debian::solve::{Solution, SolveError, Universe, Wants, solve};
use hardtack::debian::version::Version;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::LazyLock;

static UNIVERSE: LazyLock<Universe> = LazyLock::new(|| APT.universe());

fn wants(text: &str) -> Wants {
    Wants { packages: text.split_whitespace().map(|one| one.parse().unwrap()).collect(), ..Wants::default() }
}

fn names(solution: &Solution) -> BTreeSet<String> {
    solution.packages.iter().map(|&(id, _)| UNIVERSE.package(id).to_string()).collect()
}

/// Compares one list of packages; says what differs.
fn compare(text: &str, options: &[&str], wants: &Wants) -> Result<usize, String> {
    let wanted: Vec<&str> = text.split_whitespace().collect();
    let theirs = APT.choose(options, &wanted);
    match (solve(&UNIVERSE, wants), theirs) {
        (Ok(ours), Ok(theirs)) => {
            let found = names(&ours);
            let more: Vec<_> = found.difference(&theirs).cloned().collect();
            let less: Vec<_> = theirs.difference(&found).cloned().collect();
            if more.is_empty() && less.is_empty() && !ours.searched {
                return Ok(found.len());
            }
            Err(format!(
                "`{text}` ({} packages, searched: {}): only ours {more:?}, only apt's {less:?}",
                theirs.len(),
                ours.searched
            ))
        }
        (Err(_), Err(_)) => Ok(0),
        (Ok(ours), Err(theirs)) => Err(format!(
            "`{text}`: apt refuses, ours has {} (searched: {}): {theirs}",
            ours.packages.len(),
            ours.searched
        )),
        (Err(ours), Ok(theirs)) => {
            Err(format!("`{text}`: apt has {} packages, ours refuses: {ours}", theirs.len()))
        }
    }
}

/// Compares many lists on two threads.
fn compare_all(lists: &[&str], options: &[&str], recommends: bool) {
    let failures = std::sync::Mutex::new(Vec::new());
    LazyLock::force(&UNIVERSE);
    std::thread::scope(|scope| {
        for part in lists.chunks(lists.len().div_ceil(2)) {
            let failures = &failures;
            scope.spawn(move || {
                for text in part {
                    let wants = Wants { recommends, ..wants(text) };
                    match compare(text, options, &wants) {
                        Ok(count) => println!("{count:5} {text}"),
                        Err(message) => failures.lock().unwrap().push(message),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {} differ:\n{}", failures.len(), lists.len(), failures.join("\n"));
}

const NO_RECOMMENDS: &[&str] = &["--no-install-recommends"];

/// The base of every appliance (research: section 1bis).
const SOCLE: &str = "systemd-sysv openssh-server sudo nftables fail2ban python3-systemd unattended-upgrades needrestart apparmor \
    apparmor-profiles libpam-pwquality libpam-modules systemd-zram-generator network-manager ca-certificates curl qrencode \
    avahi-daemon libnss-mdns debsecan smartmontools restic systemd-timesyncd msmtp-mta";

#[test]
fn single_packages_get_apts_closure() {
    compare_all(
        &[
            "bash",
            "apt",
            "dpkg",
            "systemd",
            "init",
            "perl",
            "python3",
            "openssh-server",
            "nginx",
            "apache2",
            "samba",
            "default-mta",
            "exim4",
            "postfix",
            "mariadb-server",
            "postgresql",
            "redis-server",
            "php",
            "cloud-init",
            "network-manager",
            "linux-image-arm64",
            "raspi-firmware",
            "initramfs-tools",
            "dracut",
            "task-ssh-server",
            "task-web-server",
            "build-essential",
            "vim",
            "emacs-nox",
            "git",
            "docker.io",
            "podman",
            "lxc",
            "qemu-system-arm",
            "libvirt-daemon-system",
            "xorg",
            "firefox-esr",
            "chromium",
            "libreoffice",
            "texlive",
            "default-jre",
            "nodejs",
            "golang",
            "rustc",
            "r-base",
            "octave",
            "gnuplot",
            "ansible",
            "prometheus",
            "snapd",
            "flatpak",
            "dbus-user-session",
            "mpd",
            "kodi",
            "octoprint",
            "homer-api",
            "freeradius",
            "asterisk",
        ],
        NO_RECOMMENDS,
        false,
    );
}

#[test]
fn profiles_get_apts_closure() {
    let profiles = [
        "",
        "nginx ssl-cert mariadb-server redis-server php8.4-fpm php8.4-cli php8.4-mysql php8.4-gd php8.4-curl php8.4-zip php8.4-xml \
         php8.4-intl php8.4-mbstring php8.4-bcmath php8.4-gmp php8.4-bz2 php8.4-ldap php-imagick php-apcu php-redis certbot \
         python3-certbot-nginx bzip2",
        "freedombox freedombox-doc-en",
        "podman podman-compose crun passt slirp4netns uidmap netavark aardvark-dns catatonit cockpit-ws cockpit-system cockpit-podman caddy",
        "docker.io docker-cli docker-compose docker-buildx caddy",
        "slapd ldap-utils ldap-account-manager lemonldap-ng nginx",
        "unbound dnsmasq dns-root-data",
        "samba wsdd2 syncthing",
        "wireguard-tools",
        "restic-rest-server borgbackup caddy",
        "mosquitto podman passt uidmap",
        "aide aide-common auditd ssh-audit debsums lynis",
    ];
    let mut lists: Vec<String> = profiles.iter().map(|profile| format!("{SOCLE} {profile}")).collect();
    lists.push(
        format!(
            "{SOCLE} chrony samba-ad-dc samba-ad-provision winbind libnss-winbind libpam-winbind krb5-user bind9-dnsutils \
             smbclient ldb-tools ldap-account-manager apache2"
        )
        .replace("systemd-timesyncd ", ""),
    );
    compare_all(&lists.iter().map(String::as_str).collect::<Vec<_>>(), NO_RECOMMENDS, false);
}

#[test]
fn the_base_system_by_priority_gets_apts_closure() {
    // apt finds the packages by its own patterns.
    let named = "linux-image-arm64 raspi-firmware systemd-sysv nftables unattended-upgrades openssh-server network-manager sudo \
                 ca-certificates";
    for (pattern, priorities, named) in [
        ("?priority(required)", vec![Priority::Required], ""),
        ("?priority(required) ?priority(important)", vec![Priority::Required, Priority::Important], ""),
        ("?priority(required) ?priority(important)", vec![Priority::Required, Priority::Important], named),
        (
            "?priority(required) ?priority(important) ?priority(standard)",
            vec![Priority::Required, Priority::Important, Priority::Standard],
            named,
        ),
    ] {
        let text = format!("{pattern} {named}");
        let wants = Wants { priorities, essential: true, ..wants(named) };
        let count = compare(&text, NO_RECOMMENDS, &wants).unwrap();
        println!("{count:5} {text}");
        assert!(count > 70, "{text}: {count}");
    }
}

#[test]
fn desktops_where_a_later_choice_satisfies_an_or_get_apts_closure() {
    compare_all(
        &[
            "gnome-core",
            "kde-full",
            "task-gnome-desktop",
            "task-kde-desktop",
            "task-xfce-desktop",
            "task-mate-desktop",
            "lxqt",
            "gnome task-kde-desktop",
        ],
        NO_RECOMMENDS,
        false,
    );
}

#[test]
fn recommended_packages_are_apts_too() {
    let socle = format!("{SOCLE} postgresql");
    compare_all(
        &[
            &socle,
            "nginx",
            "samba",
            "network-manager",
            "docker.io",
            "gnome-core",
            "task-xfce-desktop",
            "texlive-latex-extra",
            "python3-numpy mariadb-server",
        ],
        &["--install-recommends"],
        true,
    );
}

#[test]
fn versions_and_suites_asked_for_are_apts_too() {
    let version = |name: &str, suite: &str| {
        let from = |id: &_| UNIVERSE.origins(*id).any(|origin| origin.is(suite));
        UNIVERSE.versions(name).iter().copied().find(from).map(|id| UNIVERSE.package(id).to_string())
    };
    let kernel = version("linux-image-arm64", "trixie-backports").unwrap();
    let old_kernel = version("linux-image-arm64", "trixie").unwrap();
    let lists = [
        "linux-image-arm64/trixie-backports raspi-firmware".to_owned(),
        "linux-image-arm64/trixie-backports linux-headers-arm64/trixie-backports".to_owned(),
        "linux-image-arm64/stable-backports".to_owned(),
        kernel,
        old_kernel,
        "bash/trixie".to_owned(),
        "bash:arm64".to_owned(),
        "linux-image-arm64/trixie openssh-server/trixie".to_owned(),
    ];
    compare_all(&lists.each_ref().map(String::as_str), NO_RECOMMENDS, false);
}

#[test]
fn what_apt_refuses_is_refused_with_the_reason() {
    for (text, said) in [
        ("nosuchpackage", "there is no package `nosuchpackage`"),
        ("opnessh-server", "did you mean `openssh-server`?"),
        ("lbssl3t64", "did you mean `libssl3t64`?"),
        ("mail-transport-agent", "`mail-transport-agent` is a virtual package"),
        ("awk", "gawk="),
        ("bash:amd64", "this is a system for `arm64` only"),
        ("bash=1.0", "there is 5."),
        ("bash/sid", "the package is not in that suite; there is 5."),
        ("bash/nonsense", "the package is not in that suite"),
        ("exim4 postfix", "conflicts with mail-transport-agent, which"),
        ("chrony systemd-timesyncd", "conflicts with time-daemon, which"),
        ("postfix msmtp-mta", "conflicts with mail-transport-agent"),
        ("chrony openntpd", "conflicts with"),
        ("systemd-sysv sysvinit-core", "conflicts with"),
        ("resolvconf openresolv", "conflicts with"),
    ] {
        let wanted: Vec<&str> = text.split(' ').collect();
        assert!(APT.choose(NO_RECOMMENDS, &wanted).is_err(), "apt takes {text}");
        let wants =
            Wants { packages: wanted.iter().map(|one| one.parse().unwrap()).collect(), ..Wants::default() };
        let error = solve(&UNIVERSE, &wants).map(|solution| names(&solution)).expect_err(text).to_string();
        println!("{error}\n");
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn random_lists_get_apts_closure() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let all: Vec<_> = UNIVERSE.ids().collect();
    let count = option_env!("HARDTACK_RANDOM_LISTS").and_then(|text| text.parse().ok()).unwrap_or(24);
    let lists: Vec<String> = (0..count)
        .map(|_| {
            let length = 1 + random.below(8);
            let list: Vec<String> = (0..length)
                .map(|_| UNIVERSE.package(all[random.below(all.len())]).name.to_string())
                .collect();
            list.join(" ")
        })
        .collect();
    compare_all(&lists.iter().map(String::as_str).collect::<Vec<_>>(), NO_RECOMMENDS, false);
}

#[test]
fn a_layer_on_top_of_a_parent_gets_what_apt_adds_to_it() {
    let base =
        Wants { priorities: vec![Priority::Required, Priority::Important], essential: true, ..wants(SOCLE) };
    let parent = solve(&UNIVERSE, &base).unwrap();
    let fixed: Vec<_> = parent.packages.iter().map(|&(id, _)| id).collect();
    let before = names(&parent);
    let status = APT.file("status.parent", &APT.installed(&before));
    let status = format!("Dir::State::status={}", status.display());
    for text in [
        "samba wsdd2 syncthing",
        "unbound dnsmasq dns-root-data",
        "nginx mariadb-server php",
        "podman caddy",
        "gnome-core",
        "chrony",
        "postfix",
        "bash",
    ] {
        let options = ["--no-install-recommends", "-o", &status];
        let (added, removed) = APT.simulate(&options, &text.split(' ').collect::<Vec<_>>()).unwrap();
        match solve(&UNIVERSE, &Wants { fixed: fixed.clone(), ..wants(text) }) {
            Ok(solution) => {
                assert!(removed.is_empty(), "{text}: apt removes {removed:?}");
                let all = names(&solution);
                assert!(all.is_superset(&before), "{text}");
                let ours: BTreeSet<_> = all.difference(&before).cloned().collect();
                assert_eq!(ours, added, "{text}");
            }
            Err(SolveError::Parent { changes }) => {
                let ours: BTreeSet<_> =
                    changes.iter().map(|change| UNIVERSE.package(change.package).to_string()).collect();
                println!("{text}: {}", changes[0]);
                assert_eq!(ours, removed, "{text}");
            }
            Err(error) => panic!("{text}: {error}"),
        }
    }
}

#[test]
fn stopping_before_the_order_does_not_change_the_set() {
    let wanted: Vec<&str> = SOCLE.split_whitespace().collect();
    assert_eq!(APT.simulate(NO_RECOMMENDS, &wanted).unwrap().0, APT.choose(NO_RECOMMENDS, &wanted).unwrap());
}

#[test]
fn versions_are_ordered_as_dpkg_orders_them() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let all: Vec<_> = UNIVERSE.ids().collect();
    let real = |random: &mut Random| UNIVERSE.package(all[random.below(all.len())]).version.to_string();
    for round in 0..400 {
        let left = real(&mut random);
        // A neighbour differs in one character, another version in everything.
        let mut right = if round % 4 == 0 { real(&mut random) } else { left.clone() };
        if round % 4 != 0 {
            let at = random.below(right.len());
            let with = ["~", "+", ".", "0", "00", "a", "Z", "-", ":", "1", ""][random.below(11)];
            right.replace_range(at..at + usize::from(round % 3 == 0), with);
        }
        let valid = apt::tool("dpkg").args(["--validate-version", &right]).output().unwrap().status.success();
        let ours: Result<Version, _> = right.parse();
        assert_eq!(ours.is_ok(), valid, "{right}");
        let Ok(right) = ours else { continue };
        let left: Version = left.parse().unwrap();
        let operator = match left.cmp(&right) {
            Ordering::Less => "lt",
            Ordering::Equal => "eq",
            Ordering::Greater => "gt",
        };
        let arguments = ["--compare-versions", left.as_str(), operator, right.as_str()];
        assert!(apt::tool("dpkg").args(arguments).status().unwrap().success(), "{left} {operator} {right}");
    }
}

/// A fixed sequence (xorshift), so that a failure can be seen again on the same indexes.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}
