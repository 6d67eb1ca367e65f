//! The shipped overlays, judged by the programs that will read their files: nft, sshd, visudo, apt, systemd,
//! sysctl, modprobe, and shellcheck for what runs.

#![expect(clippy::disallowed_methods, reason = "the judges are programs")]

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const HARDENED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/overlays/hardened");

fn file(path: &str) -> PathBuf {
    Path::new(HARDENED).join("files").join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs a judge. One that is not installed is a failure, never a skip.
fn judge(package: &str, command: &mut Command) -> Output {
    let program = command.get_program().to_string_lossy().into_owned();
    command.env("LC_ALL", "C").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("this test needs {program}: install the package {package}")
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

/// Runs a judge, wants it content, and returns what it said on standard output.
fn approved(package: &str, command: &mut Command) -> String {
    let output = judge(package, command);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out.into_owned()
}

/// Every regular file of every shipped overlay: the overlay's directory, and the path in the image.
fn shipped_files() -> Vec<(PathBuf, String)> {
    let overlays = Path::new(env!("CARGO_MANIFEST_DIR")).join("overlays");
    let mut found = Vec::new();
    for overlay in fs::read_dir(overlays).unwrap() {
        let overlay = overlay.unwrap().path();
        let files = overlay.join("files");
        let mut directories = vec![files.clone()];
        while let Some(directory) = directories.pop() {
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            for entry in entries {
                let entry = entry.unwrap();
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    directories.push(entry.path());
                } else if kind.is_file() {
                    let inside = entry.path().strip_prefix(&files).unwrap().to_str().unwrap().to_owned();
                    found.push((overlay.clone(), format!("/{inside}")));
                }
            }
        }
    }
    assert!(found.len() > 30, "only {} files found", found.len());
    found.sort();
    found
}

fn manifest(overlay: &Path) -> toml::Table {
    fs::read_to_string(overlay.join("overlay.toml")).unwrap().parse().unwrap()
}

#[test]
fn every_file_says_why_it_is_there() {
    for (overlay, path) in shipped_files() {
        let content = fs::read_to_string(overlay.join("files").join(&path[1..])).unwrap();
        let own_words = content.lines().take(2).any(|line| line.contains("Reason: "));
        let manifest = manifest(&overlay);
        let said = manifest
            .get("files")
            .and_then(|files| files.get(&path)?.get("reason")?.as_str())
            .is_some_and(|reason| reason.len() > 10);
        assert!(own_words || said, "{}: {path} gives no reason", overlay.display());
    }
}

#[test]
fn the_manifest_names_only_files_that_are_there() {
    for overlay in [Path::new(HARDENED)] {
        for path in manifest(overlay)["files"].as_table().unwrap().keys() {
            assert!(overlay.join("files").join(&path[1..]).is_file(), "{path}");
        }
    }
}

#[test]
fn the_firewall_is_valid_and_can_be_loaded_again_with_the_ports_of_a_profile() {
    let room = tempfile::tempdir().unwrap();
    let ports = room.path().join("10-profile.nft");
    fs::write(&ports, "add element inet hardtack tcp_any { 443, 9000-9005 }\n").unwrap();
    let include = format!("{}/*.nft", room.path().display());
    let rules = text("etc/nftables.conf");
    assert!(rules.contains("include \"/etc/nftables.d/*.nft\""));
    let rules = rules.replace("/etc/nftables.d/*.nft", &include);
    let path = room.path().join("rules");
    fs::write(&path, rules).unwrap();
    // Really loaded, into the network of a namespace, and again, as a reload does: nothing may be there twice.
    let script = "set -e; nft -f \"$0\"; nft list ruleset >\"$0.1\"; nft -f \"$0\"; nft list ruleset >\"$0.2\"; \
                  cmp \"$0.1\" \"$0.2\"; cat \"$0.1\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "sh", "-c", script]).arg(&path);
    let loaded = approved("nftables", &mut command);
    assert!(loaded.contains("443, 9000-9005"), "{loaded}");
}

#[test]
fn the_firewall_drops_what_it_does_not_know() {
    let rules = text("etc/nftables.conf");
    for hook in ["input", "forward"] {
        assert!(rules.contains(&format!("type filter hook {hook} priority filter; policy drop;")), "{hook}");
    }
    assert!(!rules.contains("flush ruleset"), "that would take a container engine's rules along");
}

/// What sshd makes of the overlay's file in Debian's place for it.
fn effective_ssh() -> BTreeMap<String, String> {
    let room = tempfile::tempdir().unwrap();
    let key = room.path().join("key");
    approved(
        "openssh-client",
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key),
    );
    let drop_in = file("etc/ssh/sshd_config.d/10-hardtack.conf");
    let main = room.path().join("sshd_config");
    // As Debian's own file: the drop-ins first, then its settings, of which these would weaken ours.
    fs::write(
        &main,
        format!("Include {}\nPasswordAuthentication yes\nX11Forwarding yes\nUsePAM yes\n", drop_in.display()),
    )
    .unwrap();
    // sshd wants /run/sshd, which is there only while a server runs: it gets a /run of its own.
    let sshd = |mode: &str| {
        let script = "mount -t tmpfs run /run && mkdir /run/sshd && exec /usr/sbin/sshd \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sshd"]);
        command.arg("-f").arg(&main).arg("-h").arg(&key).arg(mode);
        command
    };
    approved("openssh-server", &mut sshd("-t"));
    approved("openssh-server", &mut sshd("-T"))
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn sshd_takes_keys_only_and_opens_no_tunnels() {
    let effective = effective_ssh();
    for (name, value) in [
        ("permitrootlogin", "no"),
        ("passwordauthentication", "no"),
        ("kbdinteractiveauthentication", "no"),
        ("permitemptypasswords", "no"),
        ("authenticationmethods", "publickey"),
        ("allowgroups", "ssh-users"),
        ("x11forwarding", "no"),
        ("disableforwarding", "yes"),
        ("permittunnel", "no"),
        ("permituserenvironment", "no"),
        ("permituserrc", "no"),
        ("hostbasedauthentication", "no"),
        ("gssapiauthentication", "no"),
        ("maxauthtries", "3"),
        ("loglevel", "VERBOSE"),
    ] {
        assert_eq!(effective.get(name).map(String::as_str), Some(value), "{name}");
    }
}

#[test]
fn sudo_accepts_its_rules_and_gives_nothing_away() {
    approved("sudo", Command::new("visudo").arg("--check").arg("--file").arg(file("etc/sudoers.d/hardtack")));
    let rules = text("etc/sudoers.d/hardtack");
    assert!(!rules.contains("NOPASSWD") && rules.contains("use_pty"));
}

/// Lines of `apt-config dump` with the overlay's files in place of the host's.
fn apt_config() -> Vec<String> {
    let room = tempfile::tempdir().unwrap();
    let config = room.path().join("apt.conf");
    let parts = room.path().join("parts");
    fs::create_dir(&parts).unwrap();
    // As the package's own file, which the overlay has to get out of the way.
    fs::write(
        parts.join("50unattended-upgrades"),
        "Unattended-Upgrade::Origins-Pattern { \"origin=Debian,label=Weaker\"; };\n\
         Unattended-Upgrade::Allowed-Origins { \"Weaker:too\"; };\n",
    )
    .unwrap();
    for entry in fs::read_dir(file("etc/apt/apt.conf.d")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), parts.join(entry.file_name())).unwrap();
    }
    fs::write(&config, format!("Dir::Etc::main \"/dev/null\";\nDir::Etc::parts \"{}\";\n", parts.display()))
        .unwrap();
    let output = approved("apt", Command::new("apt-config").arg("dump").env("APT_CONFIG", &config));
    output.lines().map(str::to_owned).collect()
}

#[test]
fn apt_upgrades_by_itself_from_debians_own_suites_and_nothing_else() {
    let config = apt_config();
    let origins: Vec<_> = config
        .iter()
        .filter_map(|line| line.strip_prefix("Unattended-Upgrade::Origins-Pattern:: \""))
        .map(|line| line.trim_end_matches("\";"))
        .collect();
    assert_eq!(
        origins,
        [
            "origin=Debian,codename=${distro_codename},label=Debian",
            "origin=Debian,codename=${distro_codename}-updates,label=Debian",
            "origin=Debian,codename=${distro_codename}-security,label=Debian-Security",
            "origin=Debian Backports,codename=${distro_codename}-backports,label=Debian Backports",
        ]
    );
    assert!(!config.iter().any(|line| line.contains("Weaker")), "{config:#?}");
    for wanted in [
        "APT::Periodic::Update-Package-Lists \"1\";",
        "APT::Periodic::Unattended-Upgrade \"1\";",
        "Unattended-Upgrade::Automatic-Reboot \"true\";",
        "Unattended-Upgrade::Remove-Unused-Kernel-Packages \"true\";",
        "APT::NeverAutoRemove::KernelCount \"2\";",
        "Dpkg::Options:: \"--force-confold\";",
    ] {
        let wanted = wanted.to_lowercase();
        assert!(config.iter().any(|line| line.to_lowercase() == wanted), "{wanted}\n{config:#?}");
    }
}

#[test]
fn the_first_boots_unit_is_valid_and_shut_in() {
    let room = tempfile::tempdir().unwrap();
    copy_tree(&file(""), room.path());
    let unit = "hardtack-firstboot.service";
    let root = format!("--root={}", room.path().display());
    let output = judge("systemd", Command::new("systemd-analyze").args(["verify", &root, unit]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");

    let path = room.path().join("usr/lib/systemd/system").join(unit);
    let table =
        approved("systemd", Command::new("systemd-analyze").args(["security", "--offline=true"]).arg(&path));
    let exposure: f64 = table
        .split("Overall exposure level for hardtack-firstboot.service: ")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or_else(|| panic!("no exposure level in\n{table}"));
    assert!(exposure <= 3.0, "exposure {exposure}");
}

#[test]
fn a_first_boots_preset_starts_only_what_the_profile_names() {
    let room = tempfile::tempdir().unwrap();
    copy_tree(&file(""), room.path());
    let units = room.path().join("usr/lib/systemd/system");
    for unit in ["wanted.service", "ssh.service", "docker.socket"] {
        fs::write(
            units.join(unit),
            "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
        )
        .unwrap();
    }
    let presets = room.path().join("etc/systemd/system-preset");
    fs::write(
        presets.join("00-hardtack.preset"),
        "enable wanted.service\nenable hardtack-firstboot.service\n",
    )
    .unwrap();
    // What Debian's own preset says comes later and is too late.
    let vendor = room.path().join("usr/lib/systemd/system-preset");
    fs::create_dir_all(&vendor).unwrap();
    fs::write(vendor.join("90-systemd.preset"), "enable ssh.service\n").unwrap();

    let root = format!("--root={}", room.path().display());
    approved("systemd", Command::new("systemctl").args([&root, "preset-all", "--preset-mode=enable-only"]));
    let mut started = Vec::new();
    for target in ["multi-user.target.wants", "sysinit.target.wants"] {
        let wants = room.path().join("etc/systemd/system").join(target);
        for entry in fs::read_dir(wants).unwrap() {
            started.push(entry.unwrap().file_name().into_string().unwrap());
        }
    }
    started.sort();
    assert_eq!(started, ["hardtack-firstboot.service", "wanted.service"]);
}

#[test]
fn kernel_settings_are_read_without_complaint_and_none_is_said_twice() {
    let path = file("etc/sysctl.d/99-hardtack.conf");
    // The host's kernel may lack a setting, so only what cannot be read is a finding.
    let output = judge("procps", Command::new("sysctl").args(["--dry-run", "--load"]).arg(&path));
    let said = String::from_utf8_lossy(&output.stderr);
    let unread: Vec<_> = said.lines().filter(|line| !line.contains("No such file or directory")).collect();
    assert!(unread.is_empty(), "{unread:?}");

    let mut seen = BTreeMap::new();
    for line in text("etc/sysctl.d/99-hardtack.conf")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (name, value) = line.split_once(" = ").unwrap_or_else(|| panic!("not `name = value`: {line}"));
        let name = name.trim_start_matches('-');
        assert_eq!(seen.insert(name.to_owned(), value.to_owned()), None, "{name} is said twice");
    }
    assert!(!seen.contains_key("vm.mmap_rnd_bits"), "its range differs from board to board");
    assert!(!seen.keys().any(|name| name.ends_with(".accept_ra")), "NetworkManager's business");
}

#[test]
fn modules_the_device_needs_are_not_forbidden() {
    let listed = approved(
        "kmod",
        Command::new("modprobe").arg("--config").arg(file("etc/modprobe.d")).arg("--showconfig"),
    );
    let forbidden: Vec<_> = listed
        .lines()
        .filter_map(|line| line.strip_prefix("install ").or_else(|| line.strip_prefix("blacklist ")))
        .filter_map(|line| line.split_whitespace().next())
        .map(|module| module.replace('-', "_"))
        .collect();
    assert!(forbidden.len() > 20 && forbidden.contains(&"sctp".to_owned()), "{listed}");
    for needed in
        ["vfat", "overlay", "squashfs", "usb_storage", "ext4", "nls_ascii", "ipv6", "bridge", "veth"]
    {
        assert!(!forbidden.contains(&needed.to_owned()), "{needed}");
    }
}

#[test]
fn programs_and_shell_files_are_clean() {
    let mut scripts = Vec::new();
    for (overlay, path) in shipped_files() {
        let host = overlay.join("files").join(&path[1..]);
        let first = fs::read(&host).unwrap();
        if first.starts_with(b"#!/bin/sh") {
            assert!(
                fs::metadata(&host).unwrap().permissions().mode() & 0o100 != 0,
                "{path} is not executable"
            );
            scripts.push(host);
        } else if path.starts_with("/etc/profile.d/") {
            scripts.push(host);
        }
    }
    assert!(scripts.len() >= 2);
    for script in scripts {
        approved("shellcheck", Command::new("shellcheck").args(["--shell=sh"]).arg(&script));
    }
}

#[test]
fn the_defaults_of_raspi_firmware_probe_nothing() {
    let room = tempfile::tempdir().unwrap();
    let fstab = room.path().join("fstab");
    fs::write(
        &fstab,
        "# PARTUUID=00000000-09 / a comment\nPARTUUID=1a2b3c4d-02 / ext4 noatime 0 1\n\
         PARTUUID=1a2b3c4d-01 /boot/firmware vfat defaults 0 2\n",
    )
    .unwrap();
    let defaults = text("etc/default/raspi-firmware").replace("/etc/fstab", fstab.to_str().unwrap());
    let script = format!("set -e\n{defaults}\necho \"$ROOTPART|$CONSOLES|$CMA\"\n");
    let said = approved("dash", Command::new("dash").args(["-c", &script]));
    assert_eq!(said, "PARTUUID=1a2b3c4d-02|tty0|0\n");

    // It ends up on the kernel's command line as it is: one line, no comment, nothing that turns a guard off.
    let extra = text("etc/default/raspi-extra-cmdline");
    assert_eq!(extra.lines().count(), 1);
    for word in extra.split_whitespace() {
        assert!(!word.starts_with('#') && !word.starts_with("init="), "{word}");
        assert!(!["single", "nokaslr", "mitigations=off", "apparmor=0"].contains(&word), "{word}");
    }
    assert!(extra.contains("apparmor") && extra.contains("panic="));
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}
