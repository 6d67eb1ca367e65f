//! Everything a profile adds to its packages, as one ordered list of files, and the steps that bring it into a tree.

use super::Error;
use crate::artifact::manifest::{self, Manifest};
use crate::content::Content;
use crate::debian::dpkg;
use crate::debian::solve::Want;
use crate::digest::{Hasher, Sha256};
use crate::meta::Timestamp;
use crate::plan::{Identity, Lock};
use crate::profile::{OverlayKind, Ownership, Principal, Profile};
use crate::transform::accounts::{self, NewAccount, NewGroup};
use crate::transform::overlay::{self, Names};
use crate::transform::system::TextFile;
use crate::transform::{firewall, network, seal, services, system, updates};
use crate::tree::{Tree, TreePath};
use std::collections::BTreeSet;

/// A profile with everything that follows from it and its lock.
pub(super) struct Appliance<'a> {
    profile: &'a Profile,
    lock: &'a Lock,
    /// In the order in which they are put: overlays, what hardtack generates, the profile's own files. Later ones win.
    files: Vec<(TreePath, OverlayKind)>,
    enabled: Vec<String>,
    masked: Vec<String>,
}

impl<'a> Appliance<'a> {
    pub(super) fn new(
        profile: &'a Profile,
        lock: &'a Lock,
        identity: &Identity,
        partuuids: &[String; 2],
    ) -> Result<Self, Error> {
        let mut files: Vec<(TreePath, OverlayKind)> = Vec::new();
        for overlay in &profile.overlays {
            files.extend(overlay.entries().iter().map(|entry| (entry.path.clone(), entry.kind.clone())));
        }
        let list = |units: &[crate::profile::Sourced<String>]| -> Vec<String> {
            units.iter().map(|unit| unit.to_string()).collect::<BTreeSet<_>>().into_iter().collect()
        };
        let (enabled, masked) = (list(&profile.units.enable), list(&profile.units.mask));

        let (names, zone) = system::names(&profile.system);
        let mut texts = vec![system::fstab(&partuuids[0], &partuuids[1])];
        texts.extend(names);
        texts.push(system::device_settings(&profile.system, &profile.updates));
        texts.push(TextFile::new(firewall::PATH, firewall::port_sets(&profile.ports)));
        texts.push(TextFile::new("etc/systemd/system-preset/00-hardtack.preset", services::preset(&enabled)));
        texts.extend(network::keyfiles(&profile.network, identity).into_iter().map(|file| TextFile {
            path: format!("etc/NetworkManager/system-connections/{}", file.name),
            mode: 0o600,
            text: file.text,
        }));
        texts.extend(updates::apt_files(&lock.repositories, &profile.sources, &profile.updates));
        boot_settings(profile, &mut files, &mut texts)?;
        for TextFile { path, mode, text } in texts {
            files.push((TreePath::new(path)?, OverlayKind::File(Content::inline(text), ownership(mode))));
        }
        files.push((TreePath::new("etc/localtime")?, OverlayKind::Symlink(zone.into_bytes())));
        for file in &profile.files {
            let kind = OverlayKind::File(file.content.clone(), file.ownership.clone());
            files.push(((*file.path).clone(), kind));
        }
        Ok(Self { profile, lock, files, enabled, masked })
    }

    /// The profile's scripts, by name and text, in order.
    pub(super) fn scripts(&self) -> Vec<(String, String)> {
        self.profile.scripts.iter().map(|script| (script.name.to_string(), script.text.clone())).collect()
    }

    /// Takes the chosen files into a digest.
    pub(super) fn hash(&self, chosen: &dyn Fn(&TreePath) -> bool, hasher: &mut Hasher) -> Result<(), Error> {
        for (path, kind) in self.files.iter().filter(|(path, _)| chosen(path)) {
            hasher.field(path.as_bytes());
            match kind {
                OverlayKind::File(content, ownership) => {
                    let (digest, _) = Sha256::of_reader(content.reader()).map_err(|source| Error::Cache {
                        attempt: "reading the overlay's file",
                        path: path.to_string().into(),
                        source,
                    })?;
                    hasher.field(b"file").field(&digest.0).field(ownership.to_string().as_bytes());
                }
                OverlayKind::Symlink(target) => {
                    hasher.field(b"link").field(target);
                }
                OverlayKind::Directory(ownership) => {
                    hasher.field(b"directory").field(ownership.to_string().as_bytes());
                }
                OverlayKind::DirectoryIfAbsent => {
                    hasher.field(b"directory if absent");
                }
            }
        }
        Ok(())
    }

    /// Puts the chosen files into a tree.
    pub(super) fn put(&self, tree: &mut Tree, chosen: &dyn Fn(&TreePath) -> bool) -> Result<(), Error> {
        let names = Names::read(tree)?;
        let now = Timestamp::seconds(self.lock.epoch);
        for (path, kind) in self.files.iter().filter(|(path, _)| chosen(path)) {
            overlay::put(tree, path, kind, &names, now)?;
        }
        Ok(())
    }

    /// Everything that happens after the last program has run: accounts, files, units, the manifest, the seal.
    pub(super) fn assemble(&self, mut tree: Tree, now: Timestamp) -> Result<(Tree, Manifest), Error> {
        let profile = self.profile;
        let groups: Vec<NewGroup> = profile
            .groups
            .iter()
            .map(|group| NewGroup { name: group.name.to_string(), gid: None, system: *group.system })
            .collect();
        let accounts: Vec<NewAccount> = profile
            .accounts
            .iter()
            .map(|account| NewAccount {
                name: account.name.to_string(),
                uid: None,
                system: *account.system,
                comment: String::new(),
                home: account.home.to_string(),
                shell: account.shell.to_string(),
                locked: *account.locked,
                groups: account.groups.iter().map(|group| group.to_string()).collect(),
                authorized_keys: match &profile.ssh {
                    Some(ssh) if ssh.user == account.name => {
                        ssh.authorized_keys.iter().map(|key| key.to_string()).collect()
                    }
                    _ => Vec::new(),
                },
            })
            .collect();
        accounts::add(&mut tree, &groups, &accounts, now)?;
        self.put(&mut tree, &|_| true)?;
        let enabled = services::settle(&mut tree, &self.enabled, &self.masked, now)?;
        mark_dependencies(&mut tree, self.lock, now)?;
        let manifest = self.manifest(enabled)?;
        tree.put_file(&TreePath::new(manifest::PATH)?, 0o644, now, manifest.to_text())?;
        seal::seal(&mut tree, now)?;
        Ok((tree, manifest))
    }

    fn manifest(&self, enabled: Vec<String>) -> Result<Manifest, Error> {
        let (profile, lock) = (self.profile, self.lock);
        let mut packages: Vec<manifest::Package> = lock
            .packages()
            .map(|package| manifest::Package {
                name: package.name.clone(),
                version: package.version.clone(),
                architecture: package.arch.clone(),
            })
            .collect();
        packages.sort();
        let mut ports: Vec<manifest::Port> = profile
            .ports
            .iter()
            .map(|port| manifest::Port {
                name: port.name.to_string(),
                port: port.range(),
                protocol: port.protocol.word().into(),
                scope: port.scope.word().into(),
            })
            .collect();
        ports.sort();
        let overlays = profile.overlays.iter().map(|overlay| {
            let sha256 = overlay.digest().map_err(|source| Error::Cache {
                attempt: "reading the overlay",
                path: overlay.name.clone().into(),
                source,
            })?;
            Ok(manifest::Overlay { name: overlay.name.clone(), sha256 })
        });
        Ok(Manifest {
            format: manifest::FORMAT,
            hardtack: env!("CARGO_PKG_VERSION").into(),
            profile: profile.name.clone(),
            description: profile.description.clone(),
            lock: lock.digest(),
            epoch: lock.epoch,
            suite: profile.base.suite.to_string(),
            architecture: lock.architecture.clone(),
            boards: profile.boards.iter().map(|board| board.word().to_owned()).collect(),
            ports,
            units: manifest::Units { enable: enabled, mask: self.masked.clone() },
            accounts: profile.accounts.iter().map(|account| account.name.to_string()).collect(),
            overlays: overlays.collect::<Result<_, Error>>()?,
            packages,
            image: None,
        })
    }
}

fn ownership(mode: u16) -> Ownership {
    Ownership { mode, owner: Principal::ROOT, group: Principal::ROOT }
}

/// `[boot]` and the country of a wireless network: into the files that Debian's hooks read (`raspi-firmware`), never into
/// the two on the boot partition, which the next kernel writes anew.
fn boot_settings(
    profile: &Profile,
    files: &mut [(TreePath, OverlayKind)],
    texts: &mut Vec<TextFile>,
) -> Result<(), Error> {
    let country = profile
        .network
        .iter()
        .find_map(|interface| interface.wifi.as_ref())
        .map(|wifi| wifi.country.to_string());
    let mut words: Vec<String> = profile.boot.cmdline.iter().map(|word| word.to_string()).collect();
    words.extend(country.map(|country| format!("cfg80211.ieee80211_regdom={country}")));
    let cmdline = TreePath::new("etc/default/raspi-extra-cmdline")?;
    let mut line: Vec<String> = current(files, &cmdline)?.split_whitespace().map(str::to_owned).collect();
    line.retain(|word| profile.boot.cmdline_remove.iter().all(|gone| gone.as_str() != word));
    line.extend(words);
    texts.push(TextFile::new("etc/default/raspi-extra-cmdline", line.join(" ") + "\n"));
    if !profile.boot.config.is_empty() {
        let path = TreePath::new("etc/default/raspi-firmware-custom")?;
        let mut text = current(files, &path)?;
        for (section, lines) in &profile.boot.config {
            text.push_str(&format!("[{section}]\n"));
            lines.iter().for_each(|line| text.push_str(&format!("{}\n", line.as_str())));
        }
        text.push_str("[all]\n");
        texts.push(TextFile::new("etc/default/raspi-firmware-custom", text));
    }
    Ok(())
}

/// What the overlays say in a file so far; empty when none has it.
fn current(files: &[(TreePath, OverlayKind)], path: &TreePath) -> Result<String, Error> {
    let last = files.iter().rev().find_map(|(at, kind)| match kind {
        OverlayKind::File(content, _) if at == path => Some(content),
        _ => None,
    });
    let Some(content) = last else { return Ok(String::new()) };
    let bytes = content.read_to_vec(1 << 20).map_err(|source| Error::Cache {
        attempt: "reading the overlay's file",
        path: path.to_string().into(),
        source,
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `/var/lib/apt/extended_states`: which packages came as dependencies. Without it the kernels of every update would count
/// as asked for, and none would ever be removed.
fn mark_dependencies(tree: &mut Tree, lock: &Lock, now: Timestamp) -> Result<(), Error> {
    let database = dpkg::Database::read(tree)?;
    let wanted: BTreeSet<String> = lock
        .layers
        .iter()
        .flat_map(|layer| &layer.wants)
        .filter_map(|want| want.parse::<Want>().ok())
        .map(|want| want.name)
        .collect();
    let mut text = String::new();
    for package in database.present() {
        let kept = matches!(package.field("Priority"), "required" | "important")
            || package.field("Essential") == "yes";
        if !kept && !wanted.contains(&package.name) {
            // apt writes its own architecture for packages of `all`.
            let line = format!(
                "Package: {}\nArchitecture: {}\nAuto-Installed: 1\n\n",
                package.name, lock.architecture
            );
            text.push_str(&line);
        }
    }
    tree.put_file(&TreePath::new("var/lib/apt/extended_states")?, 0o644, now, text)?;
    Ok(())
}
