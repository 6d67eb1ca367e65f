//! Twins: the programs of the target, in the same version, built for this computer.
//!
//! Under QEMU almost all time goes into starting `sh`, `sed`, `grep`, `perl`. Debian builds every version for every
//! architecture, so the host's build of the same package can *run* in place of the target's. The dispatcher (`dispatch.s`)
//! does that at `execve` and leaves the files alone.
//!
//! A twin must behave as the target's program does. So: only programs the target has, at the same path; only from packages it
//! has, in the same version (the caller's part: another build of it, `+b1`, is the same version); none that answers "what
//! machine am I"; and only when every library it needs is there, too.
//!
//! The host's libraries must not be seen in the target's root either: a hook of initramfs-tools takes `libkmod` from every
//! `/usr/lib/*`. So they stay below `/.hardtack`, and the paths built into twins are [replaced](REPLACED) by others of the same
//! length.

use super::SandboxError;
use super::dispatch::TOOLS;
use super::elf::Elf;
use crate::content::{Content, Piece, ReadAt};
use crate::meta::Meta;
use crate::tree::{Kind, Tree, TreeError, TreePath};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

/// e_machine of this computer's programs (elf.h: EM_X86_64, EM_AARCH64).
pub(super) const HOST_MACHINE: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
/// EM_AARCH64.
const TARGET_MACHINE: u16 = 183;
/// Debian's name for this computer's library directories.
const TRIPLET: &str = if cfg!(target_arch = "x86_64") { "x86_64-linux-gnu" } else { "aarch64-linux-gnu" };
/// Where the loader is in a merged /usr, in the ABI of x86-64.
const LOADER: &str = "usr/lib64";

/// Paths in twins, what stands in their place, and where that leads in `/.hardtack`. Each pair has one length.
const REPLACED: [(&str, &str, &str); 3] = [
    ("/usr/lib/x86_64-linux-gnu", "/.hardtack/native-usr-lib", "twins/usr/lib/x86_64-linux-gnu"),
    ("/lib/x86_64-linux-gnu", "/.hardtack/native-lib", "twins/usr/lib/x86_64-linux-gnu"),
    ("/lib64/ld-linux-x86-64.so.2", "/.hardtack/ld-linux-64.so.2", "twins/usr/lib64/ld-linux-x86-64.so.2"),
];

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
    ("dpkg", "its own architecture is built in, and decides how packages are named"),
    ("apt", "its own architecture is built in"),
    ("qemu-", "an emulator"),
    ("gcc", "compiles for its own machine"),
    ("ld.", "links for its own machine"),
];

/// The exceptions: they read and write paths, owners and archives, and name no package by its architecture.
const AFTER_ALL: [&str; 3] = ["dpkg-divert", "dpkg-statoverride", "dpkg-deb"];

/// Half of all emulated processes are `dpkg --compare-versions`, which maintainer scripts ask all the time and which depends on
/// nothing but its arguments. Everything else goes to the target's own dpkg.
const DPKG: &str = r#"#!/.hardtack/twins/usr/bin/dash
case "$1" in
--compare-versions) exec /.hardtack/twins/native-dpkg "$@" ;;
esac
exec /.hardtack/qemu -0 dpkg /usr/bin/dpkg "$@"
"#;

/// Native programs for a target, and what they need.
#[derive(Clone, Debug)]
pub struct Twins {
    /// What `/.hardtack/twins` holds: programs at the target's paths, and the host's libraries.
    tree: Tree,
    /// What has to be seen in the target's root while twins run: Python's extension modules.
    links: Vec<(TreePath, Vec<u8>)>,
    programs: usize,
}

impl Twins {
    /// Chooses twins for `target` among packages of the host's architecture, unpacked into `host`. Reads all of those.
    ///
    /// # Errors
    /// A path too long to be put where twins go, or a file that cannot be read.
    pub fn choose(target: &Tree, host: &Tree) -> Result<Self, SandboxError> {
        let broken = |error| SandboxError::io("choosing native programs", io::Error::other(error));
        let plain = |path: &str| TreePath::new(path).map_err(|error| broken(error.into()));
        let mut twins = Self { tree: Tree::new(Default::default()), links: Vec::new(), programs: 0 };
        let (libraries_at, loader_at) = (plain(&format!("usr/lib/{TRIPLET}"))?, plain(LOADER)?);
        let usr = plain("usr")?;
        let libraries = Libraries::find(host, &libraries_at);
        let replacements = Replacements::new();
        for (path, id) in host.walk() {
            let node = host.node(id);
            // The links `lib64 -> usr/lib64` and the like are not files of /usr.
            if path.components().count() < 2 {
                continue;
            }
            let place = merged_usr(&path).map_err(broken)?;
            let is_library =
                place.starts_with(&usr) && path_has(&place, TRIPLET) || place.starts_with(&loader_at);
            let kind =
                match &node.kind {
                    Kind::Symlink(target) if is_library => Kind::Symlink(target.clone()),
                    Kind::File(content) => {
                        let is_program = !is_library && is_twin(target, &place, content, &libraries);
                        if !is_library && !is_program {
                            continue;
                        }
                        twins.programs += usize::from(is_program);
                        let content = replacements.make(content);
                        Kind::File(content.map_err(|source| {
                            SandboxError::io(format!("reading the twin of {place}"), source)
                        })?)
                    }
                    _ => continue,
                };
            twins.tree.put(&place, node.meta.clone(), kind).map_err(broken)?;
            if is_library && !place.starts_with(&libraries_at) && !place.starts_with(&loader_at) {
                // Beside the target's own files (Python's extension modules): seen there by name.
                twins.link(target, &place);
            }
        }
        twins.compare_versions(target, host, &libraries, &replacements)?;
        Ok(twins)
    }

    /// Adds [`DPKG`].
    fn compare_versions(
        &mut self,
        target: &Tree,
        host: &Tree,
        libraries: &Libraries,
        replacements: &Replacements,
    ) -> Result<(), SandboxError> {
        let broken = |error: TreeError| SandboxError::io("choosing native programs", io::Error::other(error));
        let plain = |path: &str| TreePath::new(path).map_err(|error| broken(error.into()));
        let (dpkg, dash) = (plain("usr/bin/dpkg")?, plain("usr/bin/dash")?);
        let is_program = |content| {
            Elf::read(content).is_some_and(|elf| elf.machine == HOST_MACHINE && libraries.satisfy(&elf))
        };
        let (Ok(native), true) = (host.file(&dpkg), target.get(&dpkg).is_some()) else { return Ok(()) };
        if self.tree.get(&dash).is_some() && is_program(native) {
            let native = replacements.make(native);
            let native = native.map_err(|source| SandboxError::io("reading this machine's dpkg", source))?;
            let program = || Meta::root(0o755, Default::default());
            self.tree.put(&plain("native-dpkg")?, program(), Kind::File(native)).map_err(broken)?;
            self.tree.put(&dpkg, program(), Kind::File(Content::inline(DPKG))).map_err(broken)?;
        }
        Ok(())
    }

    /// How many programs have a twin.
    pub fn programs(&self) -> usize {
        self.programs
    }

    fn link(&mut self, target: &Tree, place: &TreePath) {
        let parent = place.parent().and_then(|parent| target.get(&parent));
        if target.get(place).is_none() && parent.is_some_and(|parent| parent.kind.is_directory()) {
            let to = [b"/", TOOLS.as_bytes(), b"/twins/", place.as_bytes()].concat();
            self.links.push((place.clone(), to));
        }
    }

    pub(super) fn links(&self) -> &[(TreePath, Vec<u8>)] {
        &self.links
    }

    /// Puts all of it into the tree of a run's tools.
    pub(super) fn put_into(&self, tools: &mut Tree) -> Result<(), TreeError> {
        for (path, id) in self.tree.walk() {
            let node = self.tree.node(id);
            let place = TreePath::new([b"twins", path.as_bytes()].join(&b'/'))?;
            let kind = match &node.kind {
                Kind::Directory(_) => Kind::Directory(BTreeMap::new()),
                kind => kind.clone(),
            };
            tools.put(&place, node.meta.clone(), kind)?;
        }
        for (_, new, leads_to) in REPLACED {
            let place = TreePath::new(new.trim_start_matches('/').trim_start_matches(TOOLS))?;
            tools.put(&place, Meta::root(0o777, Default::default()), Kind::Symlink(leads_to.into()))?;
        }
        Ok(())
    }
}

/// Replaces [paths](REPLACED) in files, without copying what is around them.
struct Replacements {
    /// Old path, and a source that holds the new one.
    pairs: Vec<(&'static [u8], Arc<dyn ReadAt>)>,
}

impl Replacements {
    fn new() -> Self {
        let pairs = REPLACED.iter().map(|(old, new, _)| {
            let source: Arc<dyn ReadAt> = Arc::new(new.as_bytes().to_vec());
            (old.as_bytes(), source)
        });
        Self { pairs: pairs.collect() }
    }

    fn make(&self, content: &Content) -> io::Result<Content> {
        const STEP: usize = 256 << 10;
        let longest = self.pairs.iter().map(|(old, _)| old.len()).max().unwrap_or(0);
        let mut found = Vec::new();
        let mut buffer = vec![0; STEP + longest];
        let (mut at, mut done) = (0, 0);
        while at < content.len() {
            let n = (buffer.len() as u64).min(content.len() - at) as usize;
            content.read_exact_at(&mut buffer[..n], at)?;
            let mut from = 0;
            while let Some(slash) = buffer[from..n.min(STEP)].iter().position(|byte| *byte == b'/') {
                from += slash;
                let here = &buffer[from..n];
                // A path that ended in the last step's overlap must not be found again inside itself.
                let pair =
                    self.pairs.iter().find(|(old, _)| at + from as u64 >= done && here.starts_with(old));
                match pair {
                    Some((old, source)) => {
                        found.push((at + from as u64, old.len() as u64, source.clone()));
                        from += old.len();
                        done = at + from as u64;
                    }
                    None => from += 1,
                }
                if from >= n.min(STEP) {
                    break;
                }
            }
            at += STEP as u64;
        }
        if found.is_empty() {
            return Ok(content.clone());
        }
        let mut pieces = Vec::new();
        let mut end = 0;
        for (at, len, source) in found {
            copy_pieces(content, end, at, &mut pieces);
            pieces.push(Piece { at, len, source, offset: 0 });
            end = at + len;
        }
        copy_pieces(content, end, content.len(), &mut pieces);
        Content::sparse(content.len(), pieces).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// The part of a file's pieces from `from` to `to`.
fn copy_pieces(content: &Content, from: u64, to: u64, pieces: &mut Vec<Piece>) {
    for piece in content.pieces() {
        let (start, end) = (piece.at.max(from), (piece.at + piece.len).min(to));
        if start < end {
            let offset = piece.offset + (start - piece.at);
            pieces.push(Piece { at: start, len: end - start, source: piece.source.clone(), offset });
        }
    }
}

/// Whether this program of the host may run in place of the target's.
fn is_twin(target: &Tree, place: &TreePath, content: &Content, libraries: &Libraries) -> bool {
    Elf::read(content).is_some_and(|elf| {
        elf.machine == HOST_MACHINE
            && elf.interpreter.is_some()
            && may_stand_in(target, place)
            && libraries.satisfy(&elf)
    })
}

/// Whether the target has a program of its own machine at this very path, one that a twin may stand in for.
fn may_stand_in(target: &Tree, place: &TreePath) -> bool {
    let name = String::from_utf8_lossy(place.name().unwrap_or_default()).into_owned();
    let never = NEVER.iter().any(|(never, _)| *never == name)
        || NEVER_STARTS.iter().any(|(start, _)| name.starts_with(start))
            && !AFTER_ALL.contains(&name.as_str());
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
        for (index, (kind, offset, size)) in [
            (1u32, 0u64, 0x1000 + strings.len() as u64),
            (3, 0x1001, 13),
            (2, 0x200, dynamic.len() as u64 * 8),
        ]
        .into_iter()
        .enumerate()
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
        let (arm, host) =
            (|| program(TARGET_MACHINE, &["libc.so.6"]), |needs: &[&str]| program(HOST_MACHINE, needs));
        let target = tree(&[
            ("usr/bin/sed", arm()),
            ("usr/bin/perl", arm()),
            ("usr/bin/uname", arm()),
            ("usr/bin/dpkg-query", arm()),
            ("usr/bin/dpkg-divert", arm()),
            ("usr/bin/script", Content::inline("#!/bin/sh\n")),
            ("usr/lib/python3.13/os.py", Content::inline("")),
        ]);
        let mut native = tree(&[
            ("bin/sed", host(&["libc.so.6"])),
            ("usr/bin/perl", host(&["libc.so.6", "libmissing.so.1"])),
            ("usr/bin/uname", host(&["libc.so.6"])),
            ("usr/bin/dpkg-query", host(&["libc.so.6"])),
            ("usr/bin/dpkg-divert", host(&["libc.so.6"])),
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
                "/usr/bin/dpkg-divert",
                "/usr/bin/sed",
                "/usr/lib/python3.13/x.cpython-313-x86_64-linux-gnu.so",
                "/usr/lib/x86_64-linux-gnu/libc.so.6",
                "/usr/lib64/ld-linux-x86-64.so.2"
            ]
        );
        assert_eq!(twins.programs(), 2);
        let links: Vec<String> = twins.links().iter().map(|(path, _)| path.to_string()).collect();
        let module = "/usr/lib/python3.13/x.cpython-313-x86_64-linux-gnu.so";
        assert_eq!(links, [module]);
    }

    #[test]
    fn paths_are_replaced_wherever_they_are_and_lengths_stay() {
        for (old, new, _) in REPLACED {
            assert_eq!(old.len(), new.len(), "{old}");
        }
        // Across the border of two steps, one after the other, and cut off at the end.
        for before in [0, 1, (256 << 10) - 30, (256 << 10) - 10, (256 << 10) - 1, 256 << 10, (256 << 10) + 5]
        {
            let mut bytes = vec![b'/'; before];
            bytes.extend(b"/usr/lib/x86_64-linux-gnu/perl/lib/x86_64-linux-gnu/lib64/ld-linux-x86-64.so.2\0/usr/lib/x86_64");
            let made = Replacements::new().make(&Content::inline(bytes.clone())).unwrap();
            let text = String::from_utf8(bytes).unwrap();
            let wanted = REPLACED.iter().fold(text, |text, (old, new, _)| text.replace(old, new));
            assert_eq!(made.read_to_vec(1 << 20).unwrap(), wanted.as_bytes(), "{before}");
            assert_eq!(made.pieces().len(), if before == 0 { 5 } else { 6 });
        }
        let plain = Content::inline("/usr/lib/aarch64-linux-gnu");
        assert_eq!(Replacements::new().make(&plain).unwrap().pieces().len(), 1);
    }
}
