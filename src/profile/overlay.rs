//! Overlays: a directory of files and a manifest, read into one list of things to put into the image.
//!
//! What is read is a person's own directory, but it may come out of somebody's archive: links in it are taken as
//! links and never followed, and whatever is not a file, a link or a directory is refused.

use super::compose::{read_text, reason};
use super::diagnostics::{Diagnostic, Diagnostics, Report, did_you_mean};
use super::node::{self, Value};
use super::ownership::{Ownership, check_target, read_image_path};
use super::section::Section;
use super::shipped::{self, ShippedFile, ShippedOverlay};
use super::source::{Home, Origin, Source, Sourced};
use super::units::Units;
use crate::content::Content;
use crate::digest::{Hasher, Sha256};
use crate::tree::TreePath;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// Files up to this many bytes are read at once; of longer ones the open file is kept.
const INLINE: u64 = 256 << 10;

/// How deep directories nest at most, so that a hostile directory cannot exhaust the stack.
const MAX_DEPTH: usize = 100;

/// An overlay, read.
#[derive(Clone, Debug)]
pub struct Overlay {
    /// Its name: of a shipped one what profiles call it, else the name of its directory.
    pub name: String,
    /// One line about it.
    pub description: String,
    /// Which units it starts and which it does not.
    pub units: Units,
    entries: Vec<OverlayEntry>,
}

/// One thing an overlay puts into the image.
#[derive(Clone, Debug)]
pub struct OverlayEntry {
    /// Where.
    pub path: TreePath,
    /// What.
    pub kind: OverlayKind,
    /// Why it is there, if its author said so.
    pub reason: Option<String>,
    /// The manifest's line; `Default` where only the file speaks for itself.
    pub origin: Origin,
}

/// What an [`OverlayEntry`] puts.
#[derive(Clone)]
pub enum OverlayKind {
    /// A regular file.
    File(Content, Ownership),
    /// A symbolic link and its target, owned by root.
    Symlink(Vec<u8>),
    /// A directory that the manifest names: made, or given this mode and owner if it is there already.
    Directory(Ownership),
    /// A directory of `files/`: made with mode 0755 where there is none; one that is there stays as it is.
    DirectoryIfAbsent,
}

impl std::fmt::Debug for OverlayKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(content, owner) => write!(f, "File({} bytes, {owner})", content.len()),
            Self::Symlink(target) => write!(f, "Symlink({})", target.escape_ascii()),
            Self::Directory(owner) => write!(f, "Directory({owner})"),
            Self::DirectoryIfAbsent => f.write_str("DirectoryIfAbsent"),
        }
    }
}

impl Overlay {
    /// What it puts into the image: by path in byte order, so directories come before what they hold.
    pub fn entries(&self) -> &[OverlayEntry] {
        &self.entries
    }

    /// The digest of everything the overlay does to an image, for the lock and for layer keys. Reads every file.
    pub fn digest(&self) -> io::Result<Sha256> {
        let mut hasher = Hasher::new();
        hasher.field(b"overlay 1").field(self.name.as_bytes());
        for (word, list) in
            [("enable", &self.units.enable), ("disable", &self.units.disable), ("mask", &self.units.mask)]
        {
            for unit in list {
                hasher.field(word.as_bytes()).field(unit.as_bytes());
            }
        }
        for entry in &self.entries {
            hasher.field(entry.path.as_bytes());
            match &entry.kind {
                OverlayKind::File(content, owner) => {
                    let (digest, length) = Sha256::of_reader(content.reader())?;
                    hasher.field(b"file").field(owner.to_string().as_bytes()).field(&digest.0);
                    hasher.field(&length.to_le_bytes());
                }
                OverlayKind::Symlink(target) => {
                    hasher.field(b"link").field(target);
                }
                OverlayKind::Directory(owner) => {
                    hasher.field(b"directory").field(owner.to_string().as_bytes());
                }
                OverlayKind::DirectoryIfAbsent => {
                    hasher.field(b"directory if absent");
                }
            }
        }
        Ok(hasher.finish().0)
    }

    /// Reads a shipped overlay.
    pub fn shipped(name: &str) -> Result<Self, Diagnostics> {
        match shipped::overlay(name) {
            Some(overlay) => Self::read_shipped(overlay),
            None => Err(Diagnostic::new(format!("no overlay is called `{}`", name.escape_debug())).into()),
        }
    }

    fn read_shipped(overlay: &ShippedOverlay) -> Result<Self, Diagnostics> {
        let label = format!("shipped:overlays/{}/overlay.toml", overlay.name);
        let mut found = Vec::new();
        for (path, file) in overlay.files {
            let path = TreePath::new(path).map_err(|error| Diagnostic::new(error.to_string()))?;
            found.push((
                path,
                match file {
                    ShippedFile::Directory => Found::Directory,
                    ShippedFile::Symlink(target) => Found::Symlink(target.as_bytes().to_vec()),
                    ShippedFile::File { bytes, executable } => {
                        Found::File { content: Content::inline(*bytes), executable: *executable }
                    }
                },
            ));
        }
        let source = Source::new(label, overlay.manifest, Home::Shipped);
        Self::assemble(overlay.name.to_owned(), &source, found)
    }

    /// Reads an overlay from a directory of the host.
    pub fn from_directory(directory: &Path) -> Result<Self, Diagnostics> {
        let name = directory.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_else(|| directory.display().to_string());
        let manifest = directory.join("overlay.toml");
        let text = read_text(&manifest).map_err(|problem| {
            let one = Diagnostic::new(format!("cannot read {}: {problem}", manifest.display()));
            one.hint("an overlay is a directory with an `overlay.toml` and a `files` directory")
        })?;
        let mut found = Vec::new();
        let files = directory.join("files");
        match fs::symlink_metadata(&files) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(cannot("look at", &files, &error).into()),
            Ok(meta) if !meta.is_dir() => {
                return Err(Diagnostic::new(format!("{} must be a directory", files.display())).into());
            }
            Ok(_) => walk(&files, &TreePath::root(), 0, &mut found)?,
        }
        let home = Home::Directory(directory.to_owned());
        Self::assemble(name, &Source::new(manifest.display().to_string(), text, home), found)
    }

    /// Puts the manifest and what was found in `files/` together.
    fn assemble(
        name: String,
        source: &Arc<Source>,
        found: Vec<(TreePath, Found)>,
    ) -> Result<Self, Diagnostics> {
        let report = Report::default();
        let mut entries: BTreeMap<TreePath, OverlayEntry> = BTreeMap::new();
        for (path, found) in found {
            let kind = match found {
                Found::Directory => OverlayKind::DirectoryIfAbsent,
                Found::Symlink(target) => OverlayKind::Symlink(target),
                Found::File { content, executable } => {
                    OverlayKind::File(content, Ownership::root(if executable { 0o755 } else { 0o644 }))
                }
            };
            let reason = match &kind {
                OverlayKind::File(content, _) => own_reason(content),
                _ => None,
            };
            let entry = OverlayEntry { path: path.clone(), kind, reason, origin: Origin::Default };
            entries.insert(path, entry);
        }
        let fields = node::parse(source, &report);
        let mut manifest = Section::document(fields, source.place(0..0), &report);
        let description = manifest.line("description");
        if description.is_none() && report.is_clean() {
            manifest.missing("description", "say in one line what the overlay is for");
        }
        read_files(&mut manifest, &mut entries, &report);
        read_directories(&mut manifest, &mut entries, &report);
        read_symlinks(&mut manifest, &mut entries, &report);
        let units = Units::read(&mut manifest.table("units").1);
        manifest.refuse(
            &["ports"],
            "an overlay opens no port",
            "only a profile does, in its `[ports]`, so that one file shows everything that is open",
        );
        manifest.refuse(
            &["packages"],
            "an overlay names no package",
            "the profile that uses it does, in `packages`",
        );
        drop(manifest);
        let entries = entries.into_values().collect();
        let description = description.map(Sourced::into_value);
        report.judge(description.map(|description| Self { name, description, units, entries }))
    }
}

/// What lies in `files/`.
enum Found {
    Directory,
    Symlink(Vec<u8>),
    File { content: Content, executable: bool },
}

type Entries = BTreeMap<TreePath, OverlayEntry>;

fn read_files(manifest: &mut Section<'_>, entries: &mut Entries, report: &Report) {
    for (name, mut section) in manifest.named("files") {
        let reason = section.line("reason").map(Sourced::into_value);
        let default = Ownership::root(0o644);
        let Some(path) = image_path(&name, report) else {
            Ownership::read(&mut section, default);
            continue;
        };
        let known: Vec<String> = entries.keys().map(TreePath::to_string).collect();
        match entries.get_mut(&path) {
            Some(entry) => {
                if let OverlayKind::File(_, owner) = &mut entry.kind {
                    *owner = Ownership::read(&mut section, owner.clone());
                } else {
                    Ownership::read(&mut section, default);
                    let one = Diagnostic::new(format!("`files{path}` is not a regular file"));
                    report.add(
                        one.mark_origin(name.origin(), "").hint("directories belong into `[directories]`"),
                    );
                }
                entry.reason = reason.or_else(|| entry.reason.take());
                entry.origin = name.origin().clone();
            }
            None => {
                Ownership::read(&mut section, default);
                let one = Diagnostic::new(format!("there is no `files{path}` in the overlay"));
                let hint = did_you_mean(&path.to_string(), known.iter().map(String::as_str));
                report.add(one.mark_origin(name.origin(), "").maybe_hint(hint));
            }
        }
    }
}

fn read_directories(manifest: &mut Section<'_>, entries: &mut Entries, report: &Report) {
    for (name, mut section) in manifest.named("directories") {
        let reason = section.line("reason").map(Sourced::into_value);
        let owner = Ownership::read(&mut section, Ownership::root(0o755));
        let Some(path) = image_path(&name, report) else { continue };
        let kind = OverlayKind::Directory(owner);
        let entry = OverlayEntry { path: path.clone(), kind, reason, origin: name.origin().clone() };
        insert(entries, entry, report);
    }
}

fn read_symlinks(manifest: &mut Section<'_>, entries: &mut Entries, report: &Report) {
    let (_, mut links) = manifest.table("symlinks");
    for field in links.take_all() {
        let name = Sourced::new(field.key.clone(), field.key_place.clone());
        let (target, reason) = match field.node.value {
            Value::Text(target) => (Some(Sourced::new(target, field.node.place)), None),
            Value::Table(fields) => {
                let mut section = links.named_below(&field.key, field.key_place, fields);
                let target = section.line("target");
                if target.is_none() {
                    section.missing("target", "say where the link leads: `target = \"/dev/null\"`");
                }
                (target, section.line("reason").map(Sourced::into_value))
            }
            other => {
                let one = Diagnostic::new("a link is a text or a table with a `target`");
                report.add(one.mark(&field.node.place, format!("this is {}", other.word())));
                continue;
            }
        };
        let Some(path) = image_path(&name, report) else { continue };
        let Some(target) = target else { continue };
        if let Err(problem) = check_target(target.as_bytes()) {
            report.add(Diagnostic::new("a link that leads nowhere").mark_origin(target.origin(), problem));
            continue;
        }
        let kind = OverlayKind::Symlink(target.into_value().into_bytes());
        insert(
            entries,
            OverlayEntry { path: path.clone(), kind, reason, origin: name.origin().clone() },
            report,
        );
    }
}

fn image_path(name: &Sourced<String>, report: &Report) -> Option<TreePath> {
    match read_image_path(name) {
        Ok(path) => Some(path),
        Err(problem) => {
            let title = format!("bad path `{}`", name.escape_debug());
            report.add(Diagnostic::of_value(title, name.origin(), &problem));
            None
        }
    }
}

/// Adds what the manifest alone says; two things cannot be at one path.
fn insert(entries: &mut Entries, entry: OverlayEntry, report: &Report) {
    if let Some(other) = entries.get(&entry.path) {
        let same =
            matches!((&other.kind, &entry.kind), (OverlayKind::DirectoryIfAbsent, OverlayKind::Directory(_)));
        if !same {
            let one = Diagnostic::new(format!("`{}` is there twice", entry.path));
            let one = one.mark_origin(&entry.origin, "");
            let hint = match &other.origin {
                Origin::Default => format!("it is in `files{}` too; keep one of them", entry.path),
                Origin::Written(place) => format!("it is at {place} too; keep one of them"),
            };
            report.add(one.hint(hint));
            return;
        }
    }
    entries.insert(entry.path.clone(), entry);
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Diagnostic {
    Diagnostic::new(format!("cannot {what} {}: {}", path.display(), reason(error)))
}

/// What a text file says itself, in a comment near its top: the first sentence after `Reason:`.
fn own_reason(content: &Content) -> Option<String> {
    let mut head = vec![0; usize::try_from(content.len().min(1024)).ok()?];
    content.read_exact_at(&mut head, 0).ok()?;
    let head = String::from_utf8_lossy(&head);
    let (before, reason) = head.split_once("Reason: ")?;
    if before.contains('\0') || before.lines().count() > 5 {
        return None;
    }
    let mut text = String::new();
    for line in reason.lines() {
        let words = line.trim_start_matches(['#', '/', ';', ' ', '\t']).trim_end();
        // The comment ends where a line begins otherwise than the first one did.
        let comment = text.is_empty() || line.starts_with(['#', ';']) || line.starts_with("//");
        if words.is_empty() || !comment {
            break;
        }
        text.push_str(if text.is_empty() { "" } else { " " });
        text.push_str(words);
    }
    let end = text.find(". ").unwrap_or(text.trim_end_matches('.').len());
    let text: String = text[..end].chars().filter(|c| !c.is_control()).take(200).collect();
    (!text.is_empty()).then_some(text)
}

/// Lists a directory without following a link.
fn walk(
    directory: &Path,
    under: &TreePath,
    depth: usize,
    found: &mut Vec<(TreePath, Found)>,
) -> Result<(), Diagnostic> {
    if depth > MAX_DEPTH {
        return Err(Diagnostic::new(format!("{} lies more than {MAX_DEPTH} deep", directory.display())));
    }
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| cannot("list", directory, &error))? {
        paths.push(entry.map_err(|error| cannot("list", directory, &error))?.path());
    }
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().as_bytes();
        let inside =
            under.join(name).map_err(|error| Diagnostic::new(format!("{}: {error}", path.display())))?;
        let kind = fs::symlink_metadata(&path).map_err(|error| cannot("look at", &path, &error))?.file_type();
        if kind.is_dir() {
            found.push((inside.clone(), Found::Directory));
            walk(&path, &inside, depth + 1, found)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(|error| cannot("read the link", &path, &error))?;
            found.push((inside, Found::Symlink(target.into_os_string().into_vec())));
        } else if kind.is_file() {
            let (content, executable) = open(&path).map_err(|error| cannot("read", &path, &error))?;
            found.push((inside, Found::File { content, executable }));
        } else {
            let title = format!("{} is neither a file nor a directory nor a link", path.display());
            return Err(
                Diagnostic::new(title).hint("device nodes, pipes and sockets are made on the device itself")
            );
        }
    }
    Ok(())
}

/// Opens a regular file, even if it was exchanged for something else a moment ago.
pub(super) fn open(path: &Path) -> io::Result<(Content, bool)> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let mut file: File = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is no longer a regular file"));
    }
    let executable = meta.permissions().mode() & 0o100 != 0;
    if meta.len() > INLINE {
        return Ok((Content::of(Arc::new(file), 0, meta.len()), executable));
    }
    let mut bytes = Vec::new();
    file.by_ref().take(INLINE + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 == meta.len() {
        true => Ok((Content::inline(bytes), executable)),
        false => Err(io::Error::other("it changed while it was read")),
    }
}
