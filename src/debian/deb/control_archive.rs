//! The control archive: the stanza, and the files dpkg keeps in its database.

use super::DebFault;
use crate::debian::control::Stanza;
use crate::debian::{relation, version};
use crate::format::tar::{Archive, MemberKind};
use std::collections::BTreeMap;
use std::io::Read;

/// The longest name of a control file (`MAXCONTROLFILENAME` of dpkg).
const MAX_NAME: usize = 50;

/// What a package's control archive says.
#[derive(Clone, Debug)]
pub struct Control {
    /// `Package`.
    pub name: String,
    /// `Version`.
    pub version: String,
    /// `Architecture`: of the package, or `all`.
    pub architecture: String,
    /// Whether `Multi-Arch` is `same`: several architectures of it can be installed, and its files in the database
    /// are named after both.
    pub multi_arch_same: bool,
    /// `Essential: yes`.
    pub essential: bool,
    /// `Installed-Size` in KiB, an estimate.
    pub installed_size: Option<u64>,
    /// The configuration files, in the order of the package.
    pub conffiles: Vec<Conffile>,
    /// What it is interested in, and what it activates.
    pub triggers: Vec<Trigger>,
    /// The fields of its stanza, in their order, values as [`Field::value`](crate::debian::control::Field::value).
    pub fields: Vec<(String, Vec<u8>)>,
    /// Every other file, by name (`md5sums`, `postinst` …). dpkg keeps all of them.
    pub files: BTreeMap<String, ControlFile>,
}

/// A file of the control archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    /// Permissions.
    pub mode: u16,
    /// Seconds since the epoch.
    pub mtime: i64,
    /// Contents.
    pub bytes: Vec<u8>,
}

/// A line of `conffiles` (deb-conffiles(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conffile {
    /// Absolute path as written.
    pub path: String,
    /// Not shipped any more: an upgrade removes it.
    pub remove_on_upgrade: bool,
}

/// A line of `triggers` (deb-triggers(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// A word, or an absolute path.
    pub name: String,
    /// Which way.
    pub interest: Interest,
    /// Whether the package that sets it off has to wait until it was processed.
    pub awaits: bool,
}

/// Whether a package waits for a trigger or sets it off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// `interest`.
    Interested,
    /// `activate`.
    Activates,
}

impl Control {
    pub(super) fn read(mut archive: Archive<impl Read>) -> Result<Self, DebFault> {
        let mut files = BTreeMap::new();
        while let Some(member) = archive.next_member()? {
            let path = member.path.strip_prefix(b"./").unwrap_or(&member.path);
            if member.kind == MemberKind::Directory && matches!(path, b"" | b".") {
                continue;
            }
            let name = path.escape_ascii().to_string();
            let bad = |problem: &str| broken(&name, problem);
            if member.kind != MemberKind::File {
                return Err(bad("not a regular file"));
            }
            if path.is_empty() || path.len() > MAX_NAME || path.contains(&b'/') {
                return Err(bad("its name is empty, too long or a path"));
            }
            let mut bytes = Vec::new();
            archive.read_to_end(&mut bytes).map_err(DebFault::Read)?;
            let file = ControlFile { mode: member.meta.mode, mtime: member.meta.mtime.seconds, bytes };
            if files.insert(name.clone(), file).is_some() {
                return Err(bad("it comes twice"));
            }
        }
        let stanza = files.remove("control").ok_or_else(|| broken("control", "it is missing"))?.bytes;
        // dpkg writes the list itself, and passes over names with a dot: its database could not tell them apart.
        files.retain(|name, _| name != "list" && !name.contains('.'));
        Self::from_parts(&stanza, files)
    }

    fn from_parts(stanza: &[u8], files: BTreeMap<String, ControlFile>) -> Result<Self, DebFault> {
        let stanza = Stanza::only(stanza)?;
        let field = |name: &str| stanza.require(name).map(str::to_owned);
        let (name, version, architecture) = (field("Package")?, field("Version")?, field("Architecture")?);
        let invalid =
            |field: &str, value: &str| broken("control", &format!("{field} is `{}`", value.escape_debug()));
        if !relation::is_package_name(&name) {
            return Err(invalid("Package", &name));
        }
        if version::fault(&version).is_some() {
            return Err(invalid("Version", &version));
        }
        if !relation::is_architecture(&architecture) {
            return Err(invalid("Architecture", &architecture));
        }
        let says = |name: &str, wanted: &str| Ok::<_, DebFault>(stanza.text(name)? == Some(wanted));
        Ok(Self {
            multi_arch_same: says("Multi-Arch", "same")?,
            essential: says("Essential", "yes")?,
            installed_size: stanza.text("Installed-Size")?.and_then(|text| text.parse().ok()),
            conffiles: conffiles(text(&files, "conffiles")?)?,
            triggers: triggers(text(&files, "triggers")?)?,
            name,
            version,
            architecture,
            fields: stanza
                .fields()
                .iter()
                .map(|field| (field.name.to_owned(), field.value.to_vec()))
                .collect(),
            files,
        })
    }

    /// A field of the stanza as text, empty when it is absent or not UTF-8. Names are compared without regard to case.
    pub fn field(&self, name: &str) -> &str {
        let field = self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        field.and_then(|(_, value)| std::str::from_utf8(value).ok()).unwrap_or_default().trim_ascii()
    }

    /// How its files in dpkg's database are named: `name`, or `name:arch` when several architectures of it can be
    /// installed side by side.
    pub fn database_name(&self) -> String {
        if self.multi_arch_same { format!("{}:{}", self.name, self.architecture) } else { self.name.clone() }
    }
}

fn text<'a>(files: &'a BTreeMap<String, ControlFile>, name: &str) -> Result<&'a str, DebFault> {
    let Some(file) = files.get(name) else { return Ok("") };
    std::str::from_utf8(&file.bytes).map_err(|_| broken(name, "it is not UTF-8"))
}

fn conffiles(text: &str) -> Result<Vec<Conffile>, DebFault> {
    let bad = |line: &str| broken("conffiles", &format!("`{}` is not an absolute path", line.escape_debug()));
    let mut conffiles = Vec::new();
    for line in text.lines().map(str::trim_ascii_end).filter(|line| !line.is_empty()) {
        let (path, remove_on_upgrade) = match line.strip_prefix("remove-on-upgrade ") {
            Some(path) => (path, true),
            None => (line, false),
        };
        if !path.starts_with('/') || path.contains('\0') {
            return Err(bad(line));
        }
        conffiles.push(Conffile { path: path.to_owned(), remove_on_upgrade });
    }
    Ok(conffiles)
}

fn triggers(text: &str) -> Result<Vec<Trigger>, DebFault> {
    let bad = |line: &str| broken("triggers", &format!("unknown directive `{}`", line.escape_debug()));
    let mut triggers = Vec::new();
    for line in text.lines().map(str::trim_ascii).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (directive, name) = line.split_once([' ', '\t']).ok_or_else(|| bad(line))?;
        let (interest, awaits) = match directive {
            "interest" | "interest-await" => (Interest::Interested, true),
            "interest-noawait" => (Interest::Interested, false),
            "activate" | "activate-await" => (Interest::Activates, true),
            "activate-noawait" => (Interest::Activates, false),
            _ => return Err(bad(line)),
        };
        let name = name.trim_ascii();
        // A word becomes a file in the database, beside three that dpkg has there for itself.
        let is_word = relation::is_package_name(name) && !matches!(name, "File" | "Unincorp" | "Lock");
        let mut parts = name.split('/').skip(1);
        let is_path = name.starts_with('/') && parts.all(|part| !matches!(part, "" | "." | ".."));
        if !name.bytes().all(|byte| byte.is_ascii_graphic()) || !(is_word || is_path) {
            return Err(bad(line));
        }
        triggers.push(Trigger { name: name.to_owned(), interest, awaits });
    }
    Ok(triggers)
}

fn broken(name: &str, problem: &str) -> DebFault {
    DebFault::ControlFile { name: name.to_owned(), problem: problem.to_owned() }
}
