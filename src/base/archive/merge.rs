//! Puts packages into one tree by dpkg's rules (`tarobject` in src/main/archives.c of dpkg 1.22):
//!
//! - a directory that is there already, or a link to one, stays as it is; so does a directory where a link is to go;
//! - links among a path's parents are followed, inside the tree;
//! - a configuration file becomes `.dpkg-new` beside what its name leads to;
//! - of a file in two packages, the one that `Replaces` the other wins, whatever the order, and the other forgets it;
//!   without `Replaces` it is an error. Here paths are compared after following links, so that `/lib/x` and `/usr/lib/x`
//!   are one; dpkg compares names, and would overwrite in silence;
//!   A package that loses every file stays known, without files; dpkg would let it disappear;
//! - diversions and overridden owners of the base hold; owners' names are looked up in its `/etc/passwd`.

mod owners;

use super::UnpackError;
use super::extract::{File, FileKind, Files};
use crate::content::Content;
use crate::debian::deb::Control;
use crate::debian::dpkg::Database;
use crate::debian::relation;
use crate::meta::{Meta, Timestamp};
use crate::tree::{Kind, Tree, TreeError, TreePath};
use md5::Digest as _;
use owners::Accounts;
use std::collections::{BTreeMap, BTreeSet};

/// A tree that packages are added to.
pub(super) struct Merge {
    tree: Tree,
    database: Database,
    accounts: Accounts,
    /// Who has what is not a directory, by real path.
    owned: BTreeMap<TreePath, Owned>,
    packages: Vec<Owner>,
}

/// What is known of a package once its files are in the tree.
struct Owner {
    name: String,
    version: String,
    architecture: String,
    multi_arch_same: bool,
    replaces: String,
}

struct Owned {
    /// Place in `packages`.
    by: usize,
    /// The name it has in that package's list.
    listed: Vec<u8>,
}

/// Where a file goes.
enum Place {
    /// Put it at this real path.
    At(TreePath),
    /// There already, and shared: nothing to do but to list it.
    There,
    /// Another package's stays.
    Theirs,
}

impl Merge {
    pub(super) fn new(tree: Tree, database: Database) -> Result<Self, UnpackError> {
        let accounts = Accounts::read(&tree);
        let mut merge = Self {
            tree,
            accounts,
            owned: BTreeMap::new(),
            packages: Vec::new(),
            database: Database::default(),
        };
        for package in database.present() {
            let by = merge.packages.len();
            merge.packages.push(Owner {
                name: package.name.clone(),
                version: package.version.clone(),
                architecture: package.architecture.clone(),
                multi_arch_same: package.multi_arch_same,
                replaces: package.field("Replaces").to_owned(),
            });
            for listed in &package.files {
                let path = divert(&database, listed, &package.name);
                // A list is the device's own record, and may name what is not there any more.
                let Ok(path) = TreePath::new(path) else { continue };
                let Ok(real) = merge.tree.resolve_parent(&path) else { continue };
                if !merge.tree.get(&real).is_some_and(|node| node.kind.is_directory()) {
                    merge.owned.insert(real, Owned { by, listed: listed.clone() });
                }
            }
        }
        merge.database = database;
        Ok(merge)
    }

    pub(super) fn add(&mut self, control: &Control, files: Files) -> Result<(), UnpackError> {
        let by = self.packages.len();
        self.packages.push(Owner {
            name: control.name.clone(),
            version: control.version.clone(),
            architecture: control.architecture.clone(),
            multi_arch_same: control.multi_arch_same,
            replaces: control.field("Replaces").to_owned(),
        });
        let wants_sums = !control.files.contains_key("md5sums");
        let watched = self.database.watches_files();
        let conffiles = control.conffiles.iter().filter(|conffile| !conffile.remove_on_upgrade);
        let mut package = Adding {
            control,
            by,
            conffiles: conffiles.map(|conffile| conffile.path.as_bytes()).collect(),
            list: Vec::new(),
            sums: Vec::new(),
            placed: BTreeMap::new(),
        };
        for file in files {
            let mut listed = b"/".to_vec();
            listed.extend_from_slice(if file.path.is_root() { b"." } else { file.path.as_bytes() });
            if watched && let Ok(path) = std::str::from_utf8(&divert(&self.database, &listed, &control.name))
            {
                self.database.activate_file(path, &control.database_name());
            }
            if wants_sums && let FileKind::File(content) = &file.kind {
                package.sum(&file.path, content)?;
            }
            if self.add_file(&mut package, file, &listed)? {
                package.list.push(listed);
            }
        }
        let sums = wants_sums.then_some(package.sums);
        self.database.add_unpacked(control, package.list, sums);
        Ok(())
    }

    pub(super) fn finish(mut self, epoch: Timestamp) -> Result<Tree, UnpackError> {
        self.database.write(&mut self.tree, epoch)?;
        Ok(self.tree)
    }

    /// Gives whether the file belongs to the package now.
    fn add_file(&mut self, package: &mut Adding<'_>, file: File, listed: &[u8]) -> Result<bool, UnpackError> {
        let name = &package.control.name;
        let failed = |source| UnpackError::Tree { package: name.clone(), source };
        if self.database.diversions.iter().any(|diversion| diversion.to == listed) {
            let path = listed.escape_ascii().to_string();
            return Err(UnpackError::Diverted { path, package: name.clone() });
        }
        let path =
            TreePath::new(divert(&self.database, listed, name)).map_err(|error| failed(error.into()))?;
        let is_conffile = package.conffiles.contains(listed) && !matches!(file.kind, FileKind::Directory);
        let place = self.place(package, &path, &file.kind, listed).map_err(|error| error.of(name))?;
        let real = match place {
            Place::There => return Ok(true),
            Place::Theirs => return Ok(false),
            Place::At(real) => real,
        };
        let target = if is_conffile { self.beside(&real).map_err(failed)? } else { real.clone() };
        let meta = self.meta(&file, listed);
        let kind = match file.kind {
            FileKind::Directory => Kind::Directory(BTreeMap::new()),
            FileKind::File(content) => Kind::File(content),
            FileKind::Symlink(to) => Kind::Symlink(to),
            FileKind::Fifo => Kind::Fifo,
            FileKind::HardLink(earlier) => {
                let earlier = match package.placed.get(&earlier) {
                    Some(placed) => placed.clone(),
                    None => self.tree.resolve_parent(&earlier).map_err(failed)?,
                };
                let linked = self.tree.link(&target, &earlier).map_err(failed)?;
                self.own(package, &file.path, linked, real, listed);
                return Ok(true);
            }
        };
        let is_directory = kind.is_directory();
        let put = self.tree.put(&target, meta, kind).map_err(failed)?;
        if !is_directory {
            self.own(package, &file.path, put, real, listed);
        }
        Ok(true)
    }

    fn own(
        &mut self,
        package: &mut Adding<'_>,
        path: &TreePath,
        placed: TreePath,
        real: TreePath,
        listed: &[u8],
    ) {
        package.placed.insert(path.clone(), placed);
        self.owned.insert(real, Owned { by: package.by, listed: listed.to_vec() });
    }

    fn place(
        &mut self,
        package: &Adding<'_>,
        path: &TreePath,
        kind: &FileKind,
        listed: &[u8],
    ) -> Result<Place, Fault> {
        let real = self.tree.resolve_parent(path)?;
        let there = self.tree.get(&real).map(|node| &node.kind);
        match kind {
            FileKind::Directory => {
                let leads_to = self.tree.resolve(&real)?;
                if self.is_directory(&leads_to) {
                    return Ok(Place::There);
                }
            }
            FileKind::Symlink(target) => match there {
                Some(Kind::Directory(_)) => return Ok(Place::There),
                Some(Kind::Symlink(_)) if self.leads_to_same_directory(&real, target) => {
                    return Ok(Place::There);
                }
                _ => {}
            },
            _ => {}
        }
        let Some(owned) = self.owned.get(&real).filter(|owned| owned.by != package.by) else {
            return Ok(Place::At(real));
        };
        let (other, this) = (&self.packages[owned.by], &self.packages[package.by]);
        if other.name == this.name && other.multi_arch_same && this.multi_arch_same {
            if self.is_same(&real, kind)? {
                return Ok(Place::There);
            }
        } else if replaces(this, other) {
            let key = (other.name.clone(), other.architecture.clone());
            let theirs = owned.listed.clone();
            if let Some(loser) = self.database.packages.get_mut(&key) {
                loser.forget(&theirs);
            }
            return Ok(Place::At(real));
        } else if replaces(other, this) {
            return Ok(Place::Theirs);
        }
        Err(Fault::Conflict { path: listed.escape_ascii().to_string(), first: other.name.clone() })
    }

    /// Whether the file of another architecture's instance is the same. Its metadata is that instance's.
    fn is_same(&self, real: &TreePath, kind: &FileKind) -> Result<bool, Fault> {
        // A configuration file of the first instance waits beside its place.
        let node = self.tree.get(real).or_else(|| self.tree.get(&self.beside(real).ok()?));
        Ok(match (node.map(|node| &node.kind), kind) {
            (Some(Kind::File(there)), FileKind::File(new)) => same_bytes(there, new).map_err(Fault::Io)?,
            // Of a second name only the name is known here; its first name was compared.
            (Some(Kind::File(_)), FileKind::HardLink(_)) => true,
            (Some(Kind::Symlink(there)), FileKind::Symlink(new)) => there == new,
            (Some(Kind::Fifo), FileKind::Fifo) => true,
            _ => false,
        })
    }

    fn is_directory(&self, path: &TreePath) -> bool {
        self.tree.get(path).is_some_and(|node| node.kind.is_directory())
    }

    /// Whether the link at `link` leads to the directory that a link to `target` in its place would lead to.
    fn leads_to_same_directory(&self, link: &TreePath, target: &[u8]) -> bool {
        let Ok(there) = self.tree.resolve(link) else { return false };
        let Some(parent) = link.parent() else { return false };
        let base = if target.starts_with(b"/") { TreePath::root() } else { parent };
        let new = resolve_from(&self.tree, &base, target);
        self.is_directory(&there) && new.as_ref() == Some(&there)
    }

    /// `X.dpkg-new` beside what the path of a configuration file leads to.
    fn beside(&self, real: &TreePath) -> Result<TreePath, TreeError> {
        let mut bytes = self.tree.resolve(real)?.as_bytes().to_vec();
        bytes.extend_from_slice(b".dpkg-new");
        Ok(TreePath::new(bytes)?)
    }

    fn meta(&self, file: &File, listed: &[u8]) -> Meta {
        let mut meta = file.meta.clone();
        meta.uid = self.accounts.user(&file.user).unwrap_or(meta.uid);
        meta.gid = self.accounts.group(&file.group).unwrap_or(meta.gid);
        if let Some(found) = self.database.overrides.iter().find(|found| found.path == listed) {
            meta.uid = self.accounts.user(found.user.as_bytes()).unwrap_or(meta.uid);
            meta.gid = self.accounts.group(found.group.as_bytes()).unwrap_or(meta.gid);
            meta.mode = found.mode;
        }
        if matches!(file.kind, FileKind::Symlink(_)) {
            meta.mode = 0o777;
        }
        meta
    }
}

/// A package while it is added.
struct Adding<'a> {
    control: &'a Control,
    by: usize,
    conffiles: BTreeSet<&'a [u8]>,
    list: Vec<Vec<u8>>,
    sums: Vec<u8>,
    /// Where its files went, by the path in the package: the targets of its hard links.
    placed: BTreeMap<TreePath, TreePath>,
}

impl Adding<'_> {
    /// A line of `md5sums`, which dpkg makes for packages that come without.
    fn sum(&mut self, path: &TreePath, content: &Content) -> Result<(), UnpackError> {
        let failed = |source| UnpackError::Store { package: self.control.name.clone(), source };
        let mut hasher = md5::Md5::new();
        let mut buffer = vec![0; 1 << 16];
        let mut at = 0;
        while at < content.len() {
            let part = (content.len() - at).min(buffer.len() as u64) as usize;
            content.read_exact_at(&mut buffer[..part], at).map_err(failed)?;
            hasher.update(&buffer[..part]);
            at += part as u64;
        }
        hasher
            .finalize()
            .iter()
            .for_each(|byte| self.sums.extend_from_slice(format!("{byte:02x}").as_bytes()));
        self.sums.extend_from_slice(b"  ");
        self.sums.extend_from_slice(path.as_bytes());
        self.sums.push(b'\n');
        Ok(())
    }
}

enum Fault {
    Tree(TreeError),
    Io(std::io::Error),
    Conflict { path: String, first: String },
}

impl From<TreeError> for Fault {
    fn from(error: TreeError) -> Self {
        Fault::Tree(error)
    }
}

impl Fault {
    fn of(self, package: &str) -> UnpackError {
        let package = package.to_owned();
        match self {
            Fault::Tree(source) => UnpackError::Tree { package, source },
            Fault::Io(source) => UnpackError::Store { package, source },
            Fault::Conflict { path, first } => UnpackError::Conflict { path, first, second: package },
        }
    }
}

/// Where a path of a package goes: another package's diversion sends it elsewhere.
fn divert(database: &Database, path: &[u8], package: &str) -> Vec<u8> {
    let found =
        database.diversions.iter().find(|diversion| diversion.from == path && diversion.package != package);
    found.map_or(path, |diversion| diversion.to.as_slice()).to_vec()
}

/// Whether `new` says that it replaces `old`. Only real names count, not what `old` provides.
fn replaces(new: &Owner, old: &Owner) -> bool {
    relation::list(&new.replaces)
        .flatten()
        .any(|relation| relation.name == old.name && relation.admits(&old.version))
}

fn resolve_from(tree: &Tree, base: &TreePath, target: &[u8]) -> Option<TreePath> {
    let mut at = base.clone();
    for part in target.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
        at = match part {
            b".." => at.parent().unwrap_or_default(),
            name => tree.resolve(&at.join(name).ok()?).ok()?,
        };
    }
    Some(at)
}

fn same_bytes(one: &Content, two: &Content) -> std::io::Result<bool> {
    if one.len() != two.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut at = 0;
    while at < one.len() {
        let part = (one.len() - at).min(left.len() as u64) as usize;
        one.read_exact_at(&mut left[..part], at)?;
        two.read_exact_at(&mut right[..part], at)?;
        if left[..part] != right[..part] {
            return Ok(false);
        }
        at += part as u64;
    }
    Ok(true)
}
