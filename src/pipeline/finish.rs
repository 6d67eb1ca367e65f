//! Finishing in the sandbox: what has to run when it is known what the profile changes about booting and logging in.
//!
//! It sees the configured packages and, of everything the profile adds, only the files that the programs which run here
//! read ([`reads`]); so its result is the same whatever else changes, and is kept in the store like a layer. A profile with
//! scripts of its own is the exception: they may read anything, so they see everything.

use super::appliance::Appliance;
use super::layers::{self, Fetched, Scratch};
use super::{Error, Setup};
use crate::content::Content;
use crate::digest::{Hasher, Sha256};
use crate::plan::Lock;
use crate::progress::Stage;
use crate::sandbox::configure::{self, Configure, Script};
use crate::sandbox::{Event, Place};
use crate::store::layer;
use crate::tree::{Tree, TreePath};

/// Raised when this step changes so that the same inputs give another tree.
const RULES: &str = "hardtack finish 1";

/// What runs after the packages: logins without `nullok`, the profile's locale, and, asked for here and made once at the
/// end, the initramfs with Debian's own hooks, which write the boot partition.
const PROGRAM: &str = "#!/bin/sh
set -eu
if [ -e /usr/share/pam-configs/hardtack-unix ]; then
    pam-auth-update --package --disable unix --enable hardtack-unix
fi
if [ -s /etc/locale.gen ] && [ -x /usr/sbin/locale-gen ]; then
    locale-gen
fi
if [ -x /usr/sbin/update-initramfs ]; then
    update-initramfs -c -k all
fi
";

/// Whether a file is read by a program that runs here: by `update-initramfs` and its hooks, by the kernel's and the
/// firmware's hooks, by `pam-auth-update`, `locale-gen`.
pub(super) fn reads(path: &TreePath) -> bool {
    const BELOW: [&str; 12] = [
        "etc/fstab",
        "etc/default",
        "etc/initramfs-tools",
        "etc/kernel",
        "etc/locale.gen",
        "etc/localtime",
        "etc/modprobe.d",
        "etc/modules",
        "etc/modules-load.d",
        "etc/udev",
        "usr/share/initramfs-tools",
        "usr/share/pam-configs",
    ];
    BELOW.iter().any(|below| TreePath::new(below).is_ok_and(|below| path.starts_with(&below)))
}

/// Runs it, or takes its result from the store.
pub(super) fn finished(
    tree: Tree,
    appliance: &Appliance<'_>,
    lock: &Lock,
    fetched: &Fetched,
    setup: &Setup<'_>,
    scratch: &mut Scratch,
) -> Result<Tree, Error> {
    let scripts = appliance.scripts();
    let everything = !scripts.is_empty();
    let mut tree = tree;
    let chosen = |path: &TreePath| everything || reads(path);
    let mut hasher = Hasher::new();
    hasher.field(RULES.as_bytes()).field(PROGRAM.as_bytes());
    hasher.field(&layers::last_key(lock).0);
    appliance.hash(&chosen, &mut hasher)?;
    for (name, text) in &scripts {
        hasher.field(name.as_bytes()).field(text.as_bytes());
    }
    let key: Sha256 = hasher.finish().0;
    let directory = setup.store.layers_dir();
    match layer::load(&directory, &key) {
        Ok(Some(mut found)) => {
            found.set_layer(tree.layer() + 1);
            return Ok(found);
        }
        Ok(None) => {}
        Err(error) => setup.progress.note(&format!("{error}; making it again")),
    }
    appliance.put(&mut tree, &chosen)?;
    let runner = layers::runner(&tree, lock, fetched, setup, scratch)?;
    let pack = scratch.pack()?;
    let mut programs: Vec<Script> = scripts
        .iter()
        .map(|(name, text)| Script { name: name.clone(), content: Content::inline(text.as_bytes()) })
        .collect();
    programs.push(Script { name: "hardtack-finish".into(), content: Content::inline(PROGRAM) });
    let layer_of_tree = tree.layer();
    setup.progress.begin(Stage::Boot, "initramfs and boot files", 0);
    let work = Configure {
        tree,
        preinsts: &[],
        held: &[],
        scripts: &programs,
        initramfs: true,
        epoch: lock.epoch,
        emulator: runner.emulator.as_ref(),
        twins: runner.twins.as_ref(),
        scratch: &scratch.path(),
        place: Place::Auto,
        pack: &pack,
        cancel: setup.cancel,
        host: setup.host.clone(),
    };
    let configured = configure::configure(work, &mut |event| {
        if let Event::Step { label, .. } = event {
            setup.progress.detail(label);
        }
    });
    setup.progress.end();
    let mut tree = layer::save(&directory, &key, &configured?.tree)?;
    tree.set_layer(layer_of_tree + 1);
    Ok(tree)
}
