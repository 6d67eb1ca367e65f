//! From a profile to an image: the one place where the rooms meet.
//!
//! ```text
//! profile ─► locked() ─► layers() ─► finished() ─► assembled() ─► image
//!            archives    packages    boot files    overlays        bytes
//! ```
//!
//! It prints nothing, and everything it needs from the outside (clock, directories, threads) is in [`Setup`].

mod appliance;
mod error;
mod finish;
mod indexes;
mod layers;

pub use error::Error;
pub use indexes::{Mirror, lock};

use crate::artifact::manifest::{self, Manifest};
use crate::image::{self, Contents};
use crate::meta::Timestamp;
use crate::plan::{Identity, Lock};
use crate::profile::{ImageSize, Profile, Table};
use crate::progress::{Progress, Stage};
use crate::sandbox::Host;
use crate::store::Store;
use crate::tree::TreePath;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// What a build takes from the outside.
pub struct Setup<'a> {
    /// Downloads and layers.
    pub store: &'a Store,
    /// The clock that signatures are judged by. No byte of an image depends on it.
    pub now: SystemTime,
    /// Debian's name of this machine's architecture.
    pub host_architecture: &'a str,
    /// What the sandbox needs of this machine.
    pub host: Host,
    /// Threads.
    pub jobs: NonZeroUsize,
    /// Whether this machine's own programs may stand in for the device's.
    pub twins: bool,
    /// Who watches.
    pub progress: &'a dyn Progress,
    /// Set by another thread to give up.
    pub cancel: &'a AtomicBool,
}

/// What a build leaves behind.
#[derive(Clone, Debug)]
pub struct Release {
    /// The image.
    pub image: PathBuf,
    /// What it is, the image's size and digest included.
    pub manifest: Manifest,
    /// How long each stage took, in the order in which they ran.
    pub times: Vec<(Stage, Duration)>,
}

/// Builds the image of a profile from its lock and leaves it in `directory`, with its checksum and its manifest.
pub fn build(profile: &Profile, lock: &Lock, setup: &Setup<'_>, directory: &Path) -> Result<Release, Error> {
    let mut times = Times::default();
    let identity = Identity::of(&lock.digest(), &profile.name);
    let now = Timestamp::seconds(lock.epoch);
    let spec = spec(profile);
    let ids = image_identity(&identity);
    // The ids of the partitions are in files, and files decide how large partitions are; so the ids come first.
    let partuuids = ids.partuuids(spec.table);

    let fetched = times.run(Stage::Download, || layers::fetch(lock, setup))?;
    let (tree, mut scratch) = layers::configured(lock, &fetched, setup, &mut times)?;
    let appliance = appliance::Appliance::new(profile, lock, &identity, &partuuids)?;
    let tree =
        times.run(Stage::Boot, || finish::finished(tree, &appliance, lock, &fetched, setup, &mut scratch))?;
    let (mut root, mut manifest) = appliance.assemble(tree, now)?;
    let boot = root.split_off(&TreePath::new("boot/firmware")?)?;
    let contents = Contents::new(&boot, &root);
    drop((boot, root));

    let image = image::plan(&contents, &spec, &ids, now)?;
    setup.check()?;
    let name = format!("{}.img", profile.name);
    let path = directory.join(&name);
    let written = times.run(Stage::Write, || {
        setup.progress.begin(
            Stage::Write,
            &name,
            image.used().iter().map(|range| range.end - range.start).sum(),
        );
        let mut progress = |done: crate::units::Bytes, _| setup.progress.reach(done.0);
        let watch = image::write::Watch { progress: &mut progress, cancel: setup.cancel };
        let written = image::write::to_file(&image, &path, watch);
        setup.progress.end();
        written
    })?;
    let layout = image.layout();
    let partition =
        |label: &str, filesystem: &str, extent: image::layout::Extent, partuuid: &str| manifest::Partition {
            label: label.into(),
            filesystem: filesystem.into(),
            start: extent.start.0,
            size: extent.len.0,
            partuuid: partuuid.into(),
        };
    manifest.image = Some(manifest::Image {
        file: name.clone(),
        size: written.size.0,
        allocated: written.allocated.0,
        sha256: written.sha256,
        partitions: vec![
            partition(image::BOOT_LABEL, "vfat", layout.boot(), layout.boot_partuuid()),
            partition(image::ROOT_LABEL, "ext4", layout.root(), layout.root_partuuid()),
        ],
    });
    write_text(&directory.join(format!("{name}.sha256")), &format!("{}  {name}\n", written.sha256))?;
    write_text(&directory.join(format!("{}.manifest.json", profile.name)), &manifest.to_text())?;
    Ok(Release { image: path, manifest, times: times.list })
}

/// Writes a small file whole or not at all.
pub fn write_text(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |source| Error::Output { path: path.to_owned(), source };
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}.part", std::process::id()));
    let partial = PathBuf::from(partial);
    let written = std::fs::write(&partial, text).and_then(|()| std::fs::rename(&partial, path));
    written.map_err(|source| {
        // What could not be renamed is of no use to anybody; that it cannot be removed either changes nothing.
        let _ = std::fs::remove_file(&partial);
        failed(source)
    })
}

impl Setup<'_> {
    fn check(&self) -> Result<(), Error> {
        if self.cancel.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// How long stages took.
#[derive(Default)]
struct Times {
    list: Vec<(Stage, Duration)>,
}

impl Times {
    fn run<T>(&mut self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        let took = start.elapsed();
        match self.list.iter_mut().find(|(other, _)| *other == stage) {
            Some((_, time)) => *time += took,
            None => self.list.push((stage, took)),
        }
        result
    }
}

fn spec(profile: &Profile) -> image::layout::Spec {
    let disk = &profile.disk;
    image::layout::Spec {
        table: match *disk.table {
            Table::Mbr => image::layout::TableKind::Mbr,
            Table::Gpt => image::layout::TableKind::Gpt,
        },
        align: *disk.align,
        boot: *disk.boot,
        boot_free: crate::units::Bytes(0),
        size: match *disk.size {
            ImageSize::Auto { margin } => image::layout::ImageSize::Auto { margin },
            ImageSize::Fixed(size) => image::layout::ImageSize::Fixed(size),
        },
        label: disk.label.to_string(),
    }
}

fn image_identity(identity: &Identity) -> image::Identity {
    let guid = |purpose| crate::format::gpt::Guid(identity.uuid(purpose));
    image::Identity {
        disk_id: identity.disk_id(),
        fat_serial: identity.fat_serial(),
        root_uuid: identity.uuid("root filesystem"),
        hash_seed: identity.uuid("hash seed"),
        guids: [guid("disk"), guid("boot partition"), guid("root partition")],
    }
}
