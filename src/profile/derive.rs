//! What follows from what a profile says: packages that a setting needs, the account behind `[ssh]`, the units of
//! overlays. Each value that is added has the line it follows from as its origin.

use super::Profile;
use super::accounts::{Account, Group};
use super::packages::{Choice, Package};
use super::ports::{Port, Protocol};
use super::source::{Origin, Sourced};
use super::{Board, Units};

/// The kernel whose version a Pi 5 decides.
const KERNEL: &str = "linux-image-arm64";

/// The group whose members may log in over SSH; `sshd_config.d` of the hardened overlay names it.
const SSH_GROUP: &str = "ssh-users";

/// Draws every conclusion.
pub(super) fn derive(profile: &mut Profile) {
    wifi(profile);
    ssh(profile);
    locale(profile);
    kernel(profile);
    units(profile);
}

fn want(profile: &mut Profile, names: &[&str], origin: &Origin) {
    for name in names {
        if !profile.packages.iter().any(|package| package.name == *name) {
            let package = Package { name: (*name).to_owned(), choice: Choice::Any };
            profile.packages.push(Sourced::new(package, origin.clone()));
        }
    }
}

fn wifi(profile: &mut Profile) {
    let ssid = profile.network.iter().find_map(|interface| interface.wifi.as_ref());
    if let Some(origin) = ssid.map(|wifi| wifi.ssid.origin().clone()) {
        want(profile, &["firmware-brcm80211", "wireless-regdb", "wpasupplicant"], &origin);
    }
}

fn ssh(profile: &mut Profile) {
    let Some(ssh) = profile.ssh.clone() else { return };
    let origin = ssh.origin().clone();
    // fail2ban reads sshd's messages from the journal, which takes python3-systemd.
    want(profile, &["openssh-server", "fail2ban", "python3-systemd"], &origin);
    profile.units.enable.extend(
        ["ssh.service", "fail2ban.service"]
            .into_iter()
            .filter(|unit| !profile.units.enable.iter().any(|other| other.as_str() == *unit))
            .map(|unit| Sourced::new(unit.to_owned(), origin.clone()))
            .collect::<Vec<_>>(),
    );
    profile.ports.push(Port {
        name: Sourced::new("ssh".into(), origin.clone()),
        first: 22,
        last: 22,
        protocol: Protocol::Tcp,
        scope: *ssh.scope,
        description: "SSH, by key only".into(),
    });
    if !profile.groups.iter().any(|group| group.name.as_str() == SSH_GROUP) {
        let name = Sourced::new(SSH_GROUP.to_owned(), origin.clone());
        profile.groups.push(Group { name, system: Sourced::new(true, origin.clone()) });
    }
    let add = |account: &mut Account, group: &str| {
        if !account.groups.iter().any(|other| other.as_str() == group) {
            account.groups.push(Sourced::new(group.to_owned(), origin.clone()));
        }
    };
    match profile.accounts.iter_mut().find(|account| account.name == ssh.user) {
        Some(account) => add(account, SSH_GROUP),
        None => {
            let mut account = Account::person(Sourced::new(ssh.user.to_string(), origin.clone()));
            add(&mut account, "sudo");
            add(&mut account, SSH_GROUP);
            profile.accounts.push(account);
        }
    }
}

fn locale(profile: &mut Profile) {
    let system = profile.system.clone();
    if system.locale.as_str() != "C.UTF-8" {
        want(profile, &["locales"], system.locale.origin());
    }
    if system.timezone.as_str() != "Etc/UTC" {
        want(profile, &["tzdata"], system.timezone.origin());
    }
    if system.keyboard.to_string() != "us" {
        want(profile, &["console-setup", "keyboard-configuration"], system.keyboard.origin());
    }
}

/// The kernel of trixie (6.12) drives neither the network nor the USB ports of a Pi 5, which hang off its RP1 chip.
fn kernel(profile: &mut Profile) {
    let Some(board) = profile.boards.iter().find(|board| ***board == Board::Pi5) else { return };
    if !*profile.base.backports {
        return;
    }
    let origin = board.origin().clone();
    let suite = profile.base.backports_suite();
    let at =
        profile.packages.iter().position(|package| package.name == KERNEL && package.choice == Choice::Any);
    let Some(at) = at else { return };
    let old = profile.packages[at].clone();
    if profile.layer_of(old.origin()) == profile.layer_of(&origin) {
        profile.packages[at] = old.with(Package { name: old.name.clone(), choice: Choice::Suite(suite) });
    } else {
        profile.replaced.push(Sourced::new(old.to_string(), origin.clone()));
        profile.packages[at] =
            Sourced::new(Package { name: old.name.clone(), choice: Choice::Suite(suite) }, origin);
    }
}

/// The profile's own word about a unit stands; then the last overlay's, and so on down.
fn units(profile: &mut Profile) {
    let under: Vec<Units> = profile.overlays.iter().rev().map(|overlay| overlay.units.clone()).collect();
    for units in &under {
        profile.units.over(units);
    }
}
