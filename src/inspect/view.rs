//! The filesystems of an image as its system sees them: the root, and the others where `/etc/fstab` mounts them.

use super::{InspectError, Inspected, Part, Volume};
use crate::tree::{Kind, Tree, TreePath};

/// The longest `/etc/fstab` that is read, in bytes.
const MAX_FSTAB: u64 = 1 << 20;

impl Inspected {
    /// A partition by its number.
    pub fn volume(&self, number: u32) -> Result<&Volume, InspectError> {
        let found = self.volumes.iter().find(|volume| volume.partition.number == number);
        found.ok_or_else(|| {
            let known: Vec<String> =
                self.volumes.iter().map(|volume| volume.partition.number.to_string()).collect();
            let known = match known.len() {
                0 => "none".to_owned(),
                1 => format!("only {}", known[0]),
                _ => known.join(", "),
            };
            InspectError::NoPartition { number, known }
        })
    }

    /// The partition with the root filesystem: the first that holds `os-release`, else the first with `/etc`, else the
    /// first ext filesystem, else the only filesystem there is.
    pub fn root(&self) -> Result<&Volume, InspectError> {
        let readable = || self.volumes.iter().filter_map(|one| Some((one, one.contents.as_ref().ok()?)));
        let has = |tree: &Tree, path: &str| TreePath::new(path).is_ok_and(|path| tree.look_up(&path).is_ok());
        let is_ext =
            |volume: &Volume| volume.partition.filesystem.as_ref().is_some_and(|one| one.kind.is_ext());
        let release = |tree: &Tree| super::system::OS_RELEASE.iter().any(|path| has(tree, path));
        let best = readable()
            .find(|(_, tree)| release(tree))
            .or_else(|| readable().find(|(_, tree)| has(tree, "etc")));
        if let Some((volume, _)) = best {
            return Ok(volume);
        }
        // Not the next best, when the one that is probably meant is damaged.
        for volume in &self.volumes {
            match &volume.contents {
                Ok(_) if is_ext(volume) => return Ok(volume),
                Ok(_) if self.volumes.len() == 1 => return Ok(volume),
                _ => {}
            }
        }
        let damaged = |one: &&Volume| is_ext(one) && one.contents.is_err();
        if let Some(volume) = self.volumes.iter().find(damaged) {
            contents(volume)?;
        }
        let outcome = |volume: &Volume| {
            let number = volume.partition.number;
            match &volume.contents {
                Ok(_) => format!("partition {number} holds no system"),
                Err(reason) => format!("partition {number}: {reason}"),
            }
        };
        let outcomes: Vec<String> = self.volumes.iter().map(outcome).collect();
        Err(InspectError::NoRoot(if outcomes.is_empty() {
            "the partition table is empty".to_owned()
        } else {
            outcomes.join("; ")
        }))
    }

    /// The files from where a path of an [`super::Address`] starts.
    pub fn files(&self, part: Part) -> Result<Tree, InspectError> {
        match part {
            Part::System => self.mounted(),
            Part::Partition(number) => contents(self.volume(number)?).cloned(),
        }
    }

    /// The root filesystem with the others in their places. A boot partition that `/etc/fstab` does not name is at
    /// `/boot/firmware`, else at `/boot`.
    fn mounted(&self) -> Result<Tree, InspectError> {
        let root = self.root()?;
        let mut tree = contents(root)?.clone();
        let lines = fstab(&tree);
        let mut mounts: Vec<(TreePath, &Tree)> = Vec::new();
        for volume in &self.volumes {
            let Ok(files) = &volume.contents else { continue };
            if volume.partition.number == root.partition.number {
                continue;
            }
            let named = lines.iter().find(|(device, _)| names(device, volume));
            let place = match named {
                Some((_, place)) => directory(&tree, place),
                None if is_boot(volume) => {
                    directory(&tree, "boot/firmware").or_else(|| directory(&tree, "boot"))
                }
                None => None,
            };
            mounts.extend(place.filter(|place| !place.is_root()).map(|place| (place, files)));
        }
        // What is mounted on `/boot` must be there before what is mounted on `/boot/efi`.
        mounts.sort_by(|a, b| a.0.cmp(&b.0));
        for (place, files) in mounts {
            mount(&mut tree, &place, files)?;
        }
        Ok(tree)
    }
}

fn contents(volume: &Volume) -> Result<&Tree, InspectError> {
    let number = volume.partition.number;
    volume.contents.as_ref().map_err(|source| InspectError::Volume { number, source: source.clone() })
}

/// A FAT that firmware starts from: it has `config.txt`, or it is the first partition.
fn is_boot(volume: &Volume) -> bool {
    let fat = volume.partition.filesystem.as_ref().is_some_and(|one| one.kind.is_fat());
    let config = volume
        .contents
        .as_ref()
        .is_ok_and(|tree| TreePath::new("config.txt").is_ok_and(|path| tree.get(&path).is_some()));
    fat && (config || volume.partition.number == 1)
}

/// The real path of a directory, following links.
fn directory(tree: &Tree, path: &str) -> Option<TreePath> {
    let real = tree.resolve(&TreePath::new(path).ok()?).ok()?;
    tree.get(&real)?.kind.is_directory().then_some(real)
}

/// Devices and mount points, as they are written. A table that cannot be read mounts nothing.
fn fstab(tree: &Tree) -> Vec<(String, String)> {
    let content = TreePath::new("etc/fstab").ok().and_then(|path| tree.file(&path).ok().cloned());
    let bytes = content.and_then(|content| content.read_to_vec(MAX_FSTAB).ok()).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (device, place) = (words.next()?, words.next()?);
        (!device.starts_with('#') && place.starts_with('/')).then(|| (device.to_owned(), place.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

/// Whether the first field of a line of `fstab` (fstab(5)) names this partition.
fn names(device: &str, volume: &Volume) -> bool {
    let partition = &volume.partition;
    let (uuid, label) = partition.filesystem.as_ref().map_or(("", ""), |one| (&one.uuid, &one.label));
    let by_path = device.strip_prefix("/dev/disk/by-").and_then(|rest| rest.split_once('/'));
    let (key, value) = match device.split_once('=').or(by_path) {
        Some((key, value)) => (key.to_ascii_lowercase(), value.trim_matches('"')),
        None => {
            let disk = ["/dev/mmcblk0p", "/dev/nvme0n1p", "/dev/sda", "/dev/vda"];
            let number = disk.iter().find_map(|disk| device.strip_prefix(disk));
            return number.and_then(|number| number.parse().ok()) == Some(partition.number);
        }
    };
    let same = |known: &str| !known.is_empty() && known.eq_ignore_ascii_case(value);
    match key.as_str() {
        "partuuid" => same(&partition.partuuid),
        "uuid" => same(uuid),
        "label" => !label.is_empty() && label == value,
        "partlabel" => partition.name.as_deref().is_some_and(|name| !name.is_empty() && name == value),
        _ => false,
    }
}

/// Hides what a directory holds behind another filesystem, as mount(2) does.
fn mount(tree: &mut Tree, place: &TreePath, files: &Tree) -> Result<(), InspectError> {
    // A mount before this one may have hidden the place.
    let Some(Kind::Directory(children)) = tree.get(place).map(|node| node.kind.clone()) else {
        return Ok(());
    };
    for name in children.keys() {
        tree.remove(&place.join(name)?);
    }
    for (path, id) in files.walk() {
        let node = files.node(id);
        let kind = match &node.kind {
            Kind::Directory(_) => Kind::Directory(Default::default()),
            other => other.clone(),
        };
        // A path that is too long below its mount point could not be asked for.
        let Ok(at) = TreePath::new([place.as_bytes(), b"/", path.as_bytes()].concat()) else { continue };
        tree.put(&at, node.meta.clone(), kind)?;
    }
    Ok(())
}
