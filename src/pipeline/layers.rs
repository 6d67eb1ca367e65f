//! Package layers: fetched, unpacked and configured one on top of the other, each kept in the store.

use super::{Error, Setup, Times};
use crate::base::archive::{self, DebToUnpack, Unpacked};
use crate::content::Content;
use crate::debian::deb::Deb;
use crate::digest::{Hasher, Sha256};
use crate::format::tar::MemberKind;
use crate::meta::Timestamp;
use crate::pack::PackWriter;
use crate::plan::Lock;
use crate::plan::lock::{Layer, Package};
use crate::progress::Stage;
use crate::sandbox::configure::{self, Configure, Preinst};
use crate::sandbox::twins::Twins;
use crate::sandbox::{Event, Place};
use crate::store::repository::url_of;
use crate::store::{self, Object, Url, Wanted, layer};
use crate::tree::{Tree, TreePath};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Raised when unpacking or layering changes so that the same packages give another tree.
const RULES: &str = "hardtack layers 1";

/// Package files of a lock, in the store, by digest.
pub(super) struct Fetched {
    objects: BTreeMap<Sha256, Object>,
}

/// A directory for what lives only as long as a build, with the packs that trees point into.
pub(super) struct Scratch {
    directory: PathBuf,
    packs: u32,
    native: Option<Native>,
}

impl Scratch {
    fn new(setup: &Setup<'_>) -> Result<Self, Error> {
        let directory = setup.store.tmp_dir().join(format!("build-{}", std::process::id()));
        std::fs::create_dir_all(&directory).map_err(|source| Error::Cache {
            attempt: "making",
            path: directory.clone(),
            source,
        })?;
        Ok(Self { directory, packs: 0, native: None })
    }

    /// Where the sandbox may work.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.join("sandbox")
    }

    /// A new pack. Its name goes at once: it lasts as long as something points into it, and no crash leaves it behind.
    pub(super) fn pack(&mut self) -> Result<PackWriter, Error> {
        self.packs += 1;
        let path = self.directory.join(format!("pack-{}", self.packs));
        let failed = |attempt, source| Error::Cache { attempt, path: path.clone(), source };
        let pack = PackWriter::create(&path).map_err(|source| failed("creating", source))?;
        std::fs::remove_file(&path).map_err(|source| failed("removing the name of", source))?;
        Ok(pack)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The sandbox deletes its own directory; what cannot be deleted is found and taken by `cache prune`.
        let _ = std::fs::remove_dir(self.directory.join("sandbox"));
        let _ = std::fs::remove_dir(&self.directory);
    }
}

/// The key of a layer's result: see [`Lock::layer_key`].
fn key(lock: &Lock, index: usize) -> Sha256 {
    let mut hasher = Hasher::new();
    hasher.field(RULES.as_bytes()).field(configure::fingerprint().as_bytes());
    lock.layer_key(index, &hasher.finish().0)
}

/// The key of the last layer's result.
pub(super) fn last_key(lock: &Lock) -> Sha256 {
    key(lock, lock.layers.len().saturating_sub(1))
}

/// Brings every package that will be needed into the store: none for layers that are there already, unless a later
/// one has to run something.
pub(super) fn fetch(lock: &Lock, setup: &Setup<'_>) -> Result<Fetched, Error> {
    let emulated = setup.host_architecture != lock.architecture;
    let mut wanted: BTreeMap<Sha256, Wanted> = BTreeMap::new();
    let mut want = |from: &str, file: &str, size: u64, sha256: Sha256| -> Result<(), Error> {
        let Some(repository) = lock.repository(from) else { return Ok(()) };
        let base = Url::parse(&repository.url)
            .map_err(|source| Error::Url { url: repository.url.clone(), source: Box::new(source) })?;
        let label = file.rsplit('/').next().unwrap_or(file).to_owned();
        wanted.insert(sha256, Wanted { urls: vec![url_of(&base, file)?], sha256, size, label });
        Ok(())
    };
    let missing = (0..lock.layers.len())
        .find(|index| !layer::path(&setup.store.layers_dir(), &key(lock, *index)).exists());
    for package in
        lock.layers.iter().skip(missing.unwrap_or(lock.layers.len())).flat_map(|layer| &layer.packages)
    {
        want(&package.from, &package.file, package.size, package.sha256)?;
    }
    if emulated {
        for package in &lock.tools {
            want(&package.from, &package.file, package.size, package.sha256)?;
        }
        if setup.twins {
            for twin in lock.packages().filter_map(|package| package.twin.as_ref()) {
                if twin.arch == setup.host_architecture {
                    want(&twin.from, &twin.file, twin.size, twin.sha256)?;
                }
            }
        }
    }
    let wanted: Vec<Wanted> = wanted.into_values().collect();
    let watch = Watch { setup, planned: AtomicU64::new(0), done: AtomicU64::new(0) };
    setup.progress.begin(Stage::Download, "", 0);
    let objects = setup.store.fetch(&wanted, store::JOBS, &watch, setup.cancel);
    setup.progress.end();
    Ok(Fetched { objects: wanted.iter().map(|wanted| wanted.sha256).zip(objects?).collect() })
}

/// Passes what the store tells on to whoever watches the build.
struct Watch<'a, 'b> {
    setup: &'a Setup<'b>,
    planned: AtomicU64,
    done: AtomicU64,
}

impl store::Progress for Watch<'_, '_> {
    fn planned(&self, objects: usize, bytes: u64) {
        self.planned.fetch_add(bytes, Ordering::Relaxed);
        self.setup.progress.begin(Stage::Download, &format!("{objects} packages"), bytes);
    }

    fn advanced(&self, bytes: u64) {
        self.setup.progress.reach(self.done.fetch_add(bytes, Ordering::Relaxed) + bytes);
    }

    fn lost(&self, bytes: u64) {
        let less = |done: u64| Some(done.saturating_sub(bytes));
        // The closure never declines, so there is always an old value.
        let _ = self.done.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    fn finished(&self, label: &str) {
        self.setup.progress.detail(label);
    }

    fn retrying(&self, label: &str, _: u32, pause: std::time::Duration, why: &store::Trouble) {
        self.setup.progress.note(&format!("{label}: {why}; trying again in {} s", pause.as_secs_f32()));
    }
}

impl Fetched {
    fn deb(
        &self,
        name: &str,
        version: &str,
        arch: &str,
        file: &str,
        sha256: &Sha256,
    ) -> Result<DebToUnpack, Error> {
        let label = file.rsplit('/').next().unwrap_or(file).to_owned();
        let Some(object) = self.objects.get(sha256) else {
            return Err(store::Error::Offline { missing: vec![label] }.into());
        };
        Ok(DebToUnpack {
            label,
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: arch.to_owned(),
            source: Arc::new(object.open()?),
            len: object.size(),
        })
    }

    fn package(&self, package: &Package) -> Result<DebToUnpack, Error> {
        self.deb(&package.name, &package.version, &package.arch, &package.file, &package.sha256)
    }
}

/// What runs the device's programs on this machine.
pub(super) struct Runner {
    /// For every program.
    pub(super) emulator: Option<Content>,
    /// For those that this machine has itself.
    pub(super) twins: Option<Twins>,
}

/// The emulator and the packages of this machine's architecture, unpacked once for all runs of a build.
struct Native {
    emulator: Content,
    twins: Option<Tree>,
}

/// The tree with every layer configured. Layers that the store has are read from there.
pub(super) fn configured(
    lock: &Lock,
    fetched: &Fetched,
    setup: &Setup<'_>,
    times: &mut Times,
) -> Result<(Tree, Scratch), Error> {
    let mut scratch = Scratch::new(setup)?;
    let directory = setup.store.layers_dir();
    let mut tree = Tree::new(Timestamp::seconds(lock.epoch));
    let mut first = 0;
    for index in (0..lock.layers.len()).rev() {
        match layer::load(&directory, &key(lock, index)) {
            Ok(Some(found)) => {
                setup.progress.note(&format!("layer `{}`: from the cache", lock.layers[index].profile));
                (tree, first) = (found, index + 1);
                break;
            }
            Ok(None) => {}
            Err(error) => setup.progress.note(&format!("{error}; making it again")),
        }
    }
    for (index, one) in lock.layers.iter().enumerate().skip(first) {
        tree.set_layer(index as u16);
        let configured = configure_layer(tree, one, lock, fetched, setup, &mut scratch, times)?;
        tree = layer::save(&directory, &key(lock, index), &configured)?;
    }
    // Whatever comes on top is of a layer of its own.
    tree.set_layer(lock.layers.len() as u16);
    Ok((tree, scratch))
}

fn configure_layer(
    base: Tree,
    one: &Layer,
    lock: &Lock,
    fetched: &Fetched,
    setup: &Setup<'_>,
    scratch: &mut Scratch,
    times: &mut Times,
) -> Result<Tree, Error> {
    let debs = one.packages.iter().map(|package| fetched.package(package)).collect::<Result<Vec<_>, _>>()?;
    let total: u64 = debs.iter().map(|deb| deb.len).sum();
    let pack = scratch.pack()?;
    let unpacked: Unpacked = times.run(Stage::Unpack, || {
        setup.progress.begin(Stage::Unpack, &one.profile, total);
        let options = archive::Options {
            epoch: Timestamp::seconds(lock.epoch),
            jobs: setup.jobs,
            progress: &|done| setup.progress.reach(done),
            cancel: setup.cancel,
        };
        let unpacked = archive::unpack(base, &debs, &pack, &options);
        setup.progress.end();
        unpacked
    })?;
    let runner = times.run(Stage::Unpack, || runner(&unpacked.tree, lock, fetched, setup, scratch))?;
    let preinsts: Vec<Preinst> = unpacked
        .packages
        .iter()
        .map(|control| Preinst {
            database_name: control.database_name(),
            package: control.name.clone(),
            architecture: control.architecture.clone(),
        })
        .collect();
    let held: Vec<(String, Content)> = unpacked
        .held
        .iter()
        .map(|held| {
            let deb = &debs[held.index];
            (deb.label.clone(), Content::of(deb.source.clone(), 0, deb.len))
        })
        .collect();
    let pack = scratch.pack()?;
    times.run(Stage::Configure, || {
        setup.progress.begin(Stage::Configure, &one.profile, one.packages.len() as u64);
        let work = Configure {
            tree: unpacked.tree,
            preinsts: &preinsts,
            held: &held,
            scripts: &[],
            initramfs: false,
            epoch: lock.epoch,
            emulator: runner.emulator.as_ref(),
            twins: runner.twins.as_ref(),
            scratch: &scratch.path(),
            place: Place::Auto,
            pack: &pack,
            cancel: setup.cancel,
            host: setup.host.clone(),
        };
        let mut set_up = 0;
        let configured = configure::configure(work, &mut |event| {
            if let Event::Line(line) = event
                && let Some(package) = line.strip_prefix("Setting up ")
            {
                set_up += 1;
                setup.progress.reach(set_up);
                setup.progress.detail(package.trim_end_matches(" ..."));
            }
        });
        setup.progress.end();
        Ok(configured?.tree)
    })
}

/// Where Debian's package has the emulator for a device's programs.
const EMULATOR: &str = "usr/bin/qemu-aarch64";

/// What runs programs of `tree`: nothing but the machine itself where that is of the device's architecture.
pub(super) fn runner(
    tree: &Tree,
    lock: &Lock,
    fetched: &Fetched,
    setup: &Setup<'_>,
    scratch: &mut Scratch,
) -> Result<Runner, Error> {
    if setup.host_architecture == lock.architecture {
        return Ok(Runner { emulator: None, twins: None });
    }
    if scratch.native.is_none() {
        scratch.native = Some(native(lock, fetched, setup, scratch)?);
    }
    let native = scratch.native.as_ref();
    let twins =
        native.and_then(|native| native.twins.as_ref()).map(|host| Twins::choose(tree, host)).transpose()?;
    Ok(Runner { emulator: native.map(|native| native.emulator.clone()), twins })
}

fn native(lock: &Lock, fetched: &Fetched, setup: &Setup<'_>, scratch: &mut Scratch) -> Result<Native, Error> {
    let tool = lock.tools.iter().find(|tool| tool.arch == setup.host_architecture).ok_or_else(|| {
        Error::NoEmulator { host: setup.host_architecture.to_owned(), device: lock.architecture.clone() }
    })?;
    let emulator = emulator(fetched.package(tool)?)?;
    if !setup.twins {
        return Ok(Native { emulator, twins: None });
    }
    let mut debs = Vec::new();
    for (package, twin) in lock.packages().filter_map(|package| Some((package, package.twin.as_ref()?))) {
        if twin.arch == setup.host_architecture {
            debs.push(fetched.deb(&package.name, &package.version, &twin.arch, &twin.file, &twin.sha256)?);
        }
    }
    let pack = scratch.pack()?;
    setup.progress.begin(Stage::Unpack, "this machine's own programs", debs.iter().map(|deb| deb.len).sum());
    let options = archive::Options {
        epoch: Timestamp::seconds(lock.epoch),
        jobs: setup.jobs,
        progress: &|done| setup.progress.reach(done),
        cancel: setup.cancel,
    };
    let host = archive::unpack(Tree::new(Timestamp::seconds(lock.epoch)), &debs, &pack, &options);
    setup.progress.end();
    Ok(Native { emulator, twins: Some(host?.tree) })
}

/// The emulator out of its package, in memory: it has a few megabytes, and the package two hundred.
fn emulator(package: DebToUnpack) -> Result<Content, Error> {
    const LIMIT: u64 = 256 << 20;
    let missing = || Error::EmulatorFile { package: package.name.clone(), path: EMULATOR };
    let damaged = |error| Error::Unpack(archive::UnpackError::Deb(error));
    let deb = Deb::open(&package.label, package.source.clone(), package.len).map_err(damaged)?;
    let mut data = deb.data(1 << 30).map_err(damaged)?;
    let wanted = TreePath::new(EMULATOR)?;
    while let Some(member) = data.next_member().map_err(|error| damaged(deb.error("data.tar", error)))? {
        let here = TreePath::new(&member.path).is_ok_and(|path| path == wanted);
        if here && matches!(member.kind, MemberKind::File) && member.size <= LIMIT {
            let mut bytes = Vec::with_capacity(member.size as usize);
            data.read_to_end(&mut bytes).map_err(|_| missing())?;
            return Ok(Content::inline(bytes));
        }
    }
    Err(missing())
}
