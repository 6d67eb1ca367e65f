//! Twins: the programs of the target, in the same version, built for this computer.
//!
//! Under QEMU almost all time goes into starting `sh`, `sed`, `grep`, `perl`. Debian builds every version for every
//! architecture, so the host's build of the same package can *run* in place of the target's. The dispatcher (`dispatch.s`)
//! does that at `execve` and leaves the files alone.
//!
//! A twin must behave as the target's program does. So: only programs the target has, at the same path; only from packages it
//! has, in the same version (the caller's part: another build of it, `+b1`, is the same version); none that answers "what
//! machine am I"; and only when every library it needs is there, too.

use super::elf::Elf;
use crate::tree::{Kind, Tree, TreeError, TreePath};
use std::collections::{BTreeMap, BTreeSet};

/// e_machine of this computer's programs (elf.h: EM_X86_64, EM_AARCH64).
pub(super) const HOST_MACHINE: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
/// EM_AARCH64.
const TARGET_MACHINE: u16 = 183;
/// Debian's name for this computer's library directories.
const TRIPLET: &str = if cfg!(target_arch = "x86_64") { "x86_64-linux-gnu" } else { "aarch64-linux-gnu" };
/// The loader's directory, in the ABI of x86-64, and where it is in a merged /usr. Scripts of base-files and systemd insist on
/// that very link, and that it leads to a directory in /usr.
const LOADER: (&str, &str) = ("lib64", "usr/lib64");

/// Programs that answer for the machine they were built for, or work on files of it.
const NEVER: &[(&str, &str)] = &[
    ("arch", "prints the machine"),
    ("uname", "prints the machine"),
    ("getconf", "prints what the C library was built with"),
    ("ldconfig", "looks for libraries of its own machine"),
    ("ldd", "loads with its own loader"),
    ("iconvconfig", "writes a cache beside its own libraries"),
    ("catchsegv", "loads a library of its own machine"),
    ("localedef", "may choose names by its own C library"),
    ("systemd-detect-virt", "asks the processor"),
    ("lscpu", "asks the processor"),
    ("setarch", "changes the machine"),
];
/// Beginnings of such names.
const NEVER_STARTS: &[(&str, &str)] = &[
    ("dpkg", "its own architecture is built in"),
    ("apt", "its own architecture is built in"),
    ("qemu-", "an emulator"),
    ("gcc", "compiles for its own machine"),
    ("ld.", "links for its own machine"),
];

/// Native programs for a target, and what they need.
#[derive(Clone, Debug)]
pub struct Twins {
    /// What `/.hardtack/twins` holds: programs at the target's paths, and the host's libraries.
    tree: Tree,
    /// What has to be seen in the target's root while twins run: the loader and library directories.
    links: Vec<(TreePath, Vec<u8>)>,
    programs: usize,
}

impl Twins {
    /// Chooses twins for `target` among packages of the host's architecture, unpacked into `host`. Gives none when the
    /// target has the host's library directory itself.
    ///
    /// # Errors
    /// A path too long to be put where twins go.
    pub fn choose(target: &Tree, host: &Tree) -> Result<Self, TreeError> {
        let mut twins = Self { tree: Tree::new(Default::default()), links: Vec::new(), programs: 0 };
        let libraries_at = TreePath::new(format!("usr/lib/{TRIPLET}"))?;
        let loader = TreePath::new(LOADER.1)?;
        if [&libraries_at, &loader, &TreePath::new(LOADER.0)?].iter().any(|path| target.get(path).is_some()) {
            return Ok(twins);
        }
        let libraries = Libraries::find(host, &libraries_at);
        for (path, id) in host.walk() {
            let node = host.node(id);
            // The links `lib64 -> usr/lib64` and the like are not files of /usr.
            if path.components().count() < 2 {
                continue;
            }
            let place = merged_usr(&path)?;
            let is_library = path_has(&place, TRIPLET) || place.starts_with(&loader);
            match &node.kind {
                Kind::File(_) | Kind::Symlink(_) if is_library => {
                    twins.tree.put(&place, node.meta.clone(), node.kind.clone())?;
                    // The loader, and what lies beside the target's own files (Python's extension modules): each by name.
                    if !place.starts_with(&libraries_at) {
                        twins.link(target, &place)?;
                    }
                }
                Kind::File(content) => {
                    let Some(elf) = Elf::read(content).filter(|elf| elf.machine == HOST_MACHINE) else { continue };
                    if elf.interpreter.is_some() && may_stand_in(target, &place) && libraries.satisfy(&elf) {
                        twins.tree.put(&place, node.meta.clone(), node.kind.clone())?;
                        twins.programs += 1;
                    }
                }
                _ => {}
            }
        }
        let below = |place: &str| format!("/{}/twins/{place}", super::dispatch::TOOLS).into_bytes();
        twins.links.push((libraries_at, below(&format!("usr/lib/{TRIPLET}"))));
        twins.links.push((TreePath::new(LOADER.0)?, LOADER.1.into()));
        Ok(twins)
    }

    /// How many programs have a twin.
    pub fn programs(&self) -> usize {
        self.programs
    }

    fn link(&mut self, target: &Tree, place: &TreePath) -> Result<(), TreeError> {
        let parent = place.parent().unwrap_or_default();
        let is_loader = parent.as_bytes() == LOADER.1.as_bytes();
        let parent = target.get(&parent).is_some_and(|parent| parent.kind.is_directory());
        if target.get(place).is_none() && (parent || is_loader) {
            let to = [b"/", super::dispatch::TOOLS.as_bytes(), b"/twins/", place.as_bytes()].concat();
            self.links.push((place.clone(), to));
        }
        Ok(())
    }

    pub(super) fn links(&self) -> &[(TreePath, Vec<u8>)] {
        &self.links
    }

    /// Puts all of it into the tree of a run's tools.
    pub(super) fn put_into(&self, tools: &mut Tree, below: &TreePath) -> Result<(), TreeError> {
        for (path, id) in self.tree.walk() {
            let node = self.tree.node(id);
            let place = TreePath::new([below.as_bytes(), path.as_bytes()].join(&b'/'))?;
            let kind = match &node.kind {
                Kind::Directory(_) => Kind::Directory(BTreeMap::new()),
                kind => kind.clone(),
            };
            tools.put(&place, node.meta.clone(), kind)?;
        }
        Ok(())
    }
}

/// Whether the target has a program of its own machine at this very path, one that a twin may stand in for.
fn may_stand_in(target: &Tree, place: &TreePath) -> bool {
    let name = String::from_utf8_lossy(place.name().unwrap_or_default()).into_owned();
    let never = NEVER.iter().any(|(never, _)| *never == name)
        || NEVER_STARTS.iter().any(|(start, _)| name.starts_with(start));
    match target.get(place).map(|node| &node.kind) {
        Some(Kind::File(content)) if !never => {
            Elf::read(content).is_some_and(|elf| elf.machine == TARGET_MACHINE && elf.interpreter.is_some())
        }
        _ => false,
    }
}

/// The host's shared libraries by name, with what each needs in turn.
struct Libraries {
    needs: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
}

impl Libraries {
    fn find(host: &Tree, directory: &TreePath) -> Self {
        let mut needs = BTreeMap::new();
        for (path, id) in host.walk() {
            let Ok(place) = merged_usr(&path) else { continue };
            // Directly in the directory, where the loader looks; subdirectories are for those that name them.
            if place.parent().as_ref() != Some(directory) && !place.starts_with(directory) {
                continue;
            }
            let content = match &host.node(id).kind {
                Kind::File(content) => content,
                Kind::Symlink(_) => match host.file(&path) {
                    Ok(content) => content,
                    Err(_) => continue,
                },
                _ => continue,
            };
            if let (Some(elf), Some(name)) = (Elf::read(content), place.name()) {
                needs.insert(name.to_vec(), elf.needed);
            }
        }
        Self { needs }
    }

    /// Whether everything a program loads at its start is there.
    fn satisfy(&self, elf: &Elf) -> bool {
        let mut seen = BTreeSet::new();
        let mut todo: Vec<&Vec<u8>> = elf.needed.iter().collect();
        // A library in a directory of the target's own would be of the wrong machine.
        let foreign = |path: &Vec<u8>| path.starts_with(b"/") && !contains(path, TRIPLET.as_bytes());
        if elf.run_path.iter().any(foreign) {
            return false;
        }
        while let Some(name) = todo.pop() {
            if seen.insert(name) {
                match self.needs.get(name) {
                    Some(needs) => todo.extend(needs),
                    None => return false,
                }
            }
        }
        true
    }
}

fn path_has(path: &TreePath, part: &str) -> bool {
    contains(path.as_bytes(), part.as_bytes())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Packages may still ship `lib/…` where the system has `lib -> usr/lib`.
fn merged_usr(path: &TreePath) -> Result<TreePath, TreeError> {
    let first = path.components().next().unwrap_or_default();
    if [&b"bin"[..], b"sbin", b"lib", b"lib64"].contains(&first) {
        return Ok(TreePath::new([b"usr/", path.as_bytes()].concat())?);
    }
    Ok(path.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::meta::Timestamp;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    /// A program of a machine: 64-bit headers, an interpreter, and the libraries it needs.
    fn program(machine: u16, needed: &[&str]) -> Content {
        let mut strings = b"\0/lib64/ld.so\0".to_vec();
        let mut dynamic: Vec<u64> = vec![5, 0x1000];
        for name in needed {
            dynamic.extend([1, strings.len() as u64]);
            strings.extend(name.bytes().chain([0]));
        }
        dynamic.extend([0, 0]);
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(0x1000 + strings.len(), 0);
        let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
        put(16, &3u16.to_le_bytes());
        put(18, &machine.to_le_bytes());
        put(32, &64u64.to_le_bytes());
        put(54, &56u16.to_le_bytes());
        put(56, &3u16.to_le_bytes());
        for (index, (kind, offset, size)) in
            [(1u32, 0u64, 0x1000 + strings.len() as u64), (3, 0x1001, 13), (2, 0x200, dynamic.len() as u64 * 8)].into_iter().enumerate()
        {
            let at = 64 + index * 56;
            put(at, &kind.to_le_bytes());
            put(at + 8, &offset.to_le_bytes());
            put(at + 16, &offset.to_le_bytes());
            put(at + 32, &size.to_le_bytes());
        }
        dynamic.iter().enumerate().for_each(|(index, word)| put(0x200 + index * 8, &word.to_le_bytes()));
        put(0x1000, &strings);
        Content::inline(elf)
    }

    fn tree(files: &[(&str, Content)]) -> Tree {
        let mut tree = Tree::new(Timestamp::default());
        for (name, content) in files {
            tree.put(&path(name), Default::default(), Kind::File(content.clone())).unwrap();
        }
        tree
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn only_programs_the_target_has_with_all_their_libraries_get_a_twin() {
        let (arm, host) = (|| program(TARGET_MACHINE, &["libc.so.6"]), |needs: &[&str]| program(HOST_MACHINE, needs));
        let target = tree(&[
            ("usr/bin/sed", arm()),
            ("usr/bin/perl", arm()),
            ("usr/bin/uname", arm()),
            ("usr/bin/dpkg-deb", arm()),
            ("usr/bin/script", Content::inline("#!/bin/sh\n")),
            ("usr/lib/python3.13/os.py", Content::inline("")),
        ]);
        let mut native = tree(&[
            ("bin/sed", host(&["libc.so.6"])),
            ("usr/bin/perl", host(&["libc.so.6", "libmissing.so.1"])),
            ("usr/bin/uname", host(&["libc.so.6"])),
            ("usr/bin/dpkg-deb", host(&["libc.so.6"])),
            ("usr/bin/script", host(&["libc.so.6"])),
            ("usr/bin/other", host(&["libc.so.6"])),
            ("usr/lib/x86_64-linux-gnu/libc.so.6", host(&[])),
            ("usr/lib64/ld-linux-x86-64.so.2", host(&[])),
            ("usr/lib/python3.13/x.cpython-313-x86_64-linux-gnu.so", host(&[])),
        ]);
        // As base-files has it.
        native.put(&path("lib64"), Default::default(), Kind::Symlink(b"usr/lib64".to_vec())).unwrap();
        let twins = Twins::choose(&target, &native).unwrap();
        let names: Vec<String> = twins
            .tree
            .walk()
            .filter(|(_, id)| !twins.tree.node(*id).kind.is_directory())
            .map(|(path, _)| path.to_string())
            .collect();
        assert_eq!(
            names,
            [
                "/usr/bin/sed",
                "/usr/lib/python3.13/x.cpython-313-x86_64-linux-gnu.so",
                "/usr/lib/x86_64-linux-gnu/libc.so.6",
                "/usr/lib64/ld-linux-x86-64.so.2"
            ]
        );
        assert_eq!(twins.programs(), 1);
        let links: Vec<String> = twins.links().iter().map(|(path, _)| path.to_string()).collect();
        let module = "/usr/lib/python3.13/x.cpython-313-x86_64-linux-gnu.so";
        assert_eq!(links, [module, "/usr/lib64/ld-linux-x86-64.so.2", "/usr/lib/x86_64-linux-gnu", "/lib64"]);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_target_with_the_hosts_own_libraries_gets_no_twins() {
        let target = tree(&[
            ("usr/bin/sed", program(TARGET_MACHINE, &[])),
            ("usr/lib/x86_64-linux-gnu/libc.so.6", program(HOST_MACHINE, &[])),
        ]);
        let twins = Twins::choose(&target, &tree(&[("usr/bin/sed", program(HOST_MACHINE, &[]))])).unwrap();
        assert_eq!((twins.programs(), twins.links().len()), (0, 0));
    }
}
