//! The solver, judged by apt: the same indexes, an empty system, the same list of packages, the same set in the end.

#[path = "solver_oracle/apt.rs"]
mod apt;

use apt::APT;
use hardtack::debian::index::Priority;
use hardtack::debian::solve::{Solution, SolveError, Universe, Wants, solve};
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
    let theirs = APT.simulate(options, &wanted);
    match (solve(&UNIVERSE, wants), theirs) {
        (Ok(ours), Ok(theirs)) => {
            let found = names(&ours);
            let more: Vec<_> = found.difference(&theirs).cloned().collect();
            let less: Vec<_> = theirs.difference(&found).cloned().collect();
            if more.is_empty() && less.is_empty() {
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
