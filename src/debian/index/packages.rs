//! `Packages`: what packages an archive has, as compact values.

use super::is_relative_path;
use crate::debian::control::{ControlError, Stanza, Stanzas};
use crate::debian::relation::{self, NotARelation, Relation};
use crate::debian::version::{NotAVersion, Version};
use crate::digest::Sha256;
use crate::units::Bytes;
use std::fmt;
use std::str::FromStr;

/// One package of an index. Relation fields stay text until somebody asks; see [`relation`](crate::debian::relation).
#[derive(Debug, Clone)]
pub struct Package {
    /// Name.
    pub name: Box<str>,
    /// Version.
    pub version: Version,
    /// Architecture: `arm64`, `all` …
    pub architecture: Box<str>,
    /// Path below the root of the mirror; relative, without `..`.
    pub filename: Box<str>,
    /// Length of the `.deb`.
    pub size: Bytes,
    /// Digest of the `.deb`.
    pub sha256: Sha256,
    /// Estimate of what it takes on disk; zero when not given.
    pub installed_size: Bytes,
    /// dpkg refuses to remove it, and everything may rely on it (policy 3.8).
    pub essential: bool,
    /// `Protected: yes` or `Important: yes`: apt does not remove it lightly.
    pub protected: bool,
    /// How much a system needs it (policy 2.5).
    pub priority: Priority,
    /// How it stands to other architectures of itself.
    pub multi_arch: MultiArch,
    /// `admin`, `non-free-firmware/kernel` …; empty when not given, as all texts below.
    pub section: Box<str>,
    /// `Depends`
    pub depends: Box<str>,
    /// `Pre-Depends`
    pub pre_depends: Box<str>,
    /// `Recommends`
    pub recommends: Box<str>,
    /// `Suggests`; kept because apt's choices among equals depend on the order in which names are first seen.
    pub suggests: Box<str>,
    /// `Enhances`; as `suggests`.
    pub enhances: Box<str>,
    /// `Provides`
    pub provides: Box<str>,
    /// `Conflicts`
    pub conflicts: Box<str>,
    /// `Breaks`
    pub breaks: Box<str>,
    /// `Replaces`
    pub replaces: Box<str>,
    /// The version of the source, where it is not the package's own.
    source: Option<Box<(Box<str>, Option<Version>)>>,
}

/// Policy 2.5. The order is that of importance, the most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Without it the system is broken.
    Required,
    /// What one expects of any Unix system.
    Important,
    /// What a small text system has.
    Standard,
    /// Nearly everything.
    Optional,
    /// Deprecated; treated as optional.
    Extra,
}

/// `Multi-Arch` (policy does not have it yet; see deb-control(5)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum MultiArch {
    /// Only one architecture of it at a time, and it serves only its own.
    #[default]
    No,
    /// Serves other architectures too.
    Foreign,
    /// Several architectures of it can be installed together.
    Same,
    /// Serves other architectures where they say `:any`.
    Allowed,
}

/// What is wrong with a `Packages` index, and at which stanza.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the message shows")]
pub enum PackagesError {
    /// It is not made of stanzas.
    #[error("cannot read the Packages index")]
    Control(#[from] ControlError),
    /// A field does not hold what it should, or is missing (`found` is empty then).
    #[error(
        "package `{package}` (line {line} of the Packages index) has `{field}: {found}`; expected {expected}"
    )]
    Value { package: String, line: usize, field: &'static str, found: String, expected: &'static str },
    /// The version is not one.
    #[error("package `{package}` (line {line} of the Packages index) has no valid version")]
    Version { package: String, line: usize, source: NotAVersion },
}

/// Reads a whole `Packages` index.
pub fn parse_packages(bytes: &[u8]) -> Result<Vec<Package>, PackagesError> {
    Stanzas::new(bytes).map(|stanza| Package::from_stanza(&stanza?)).collect()
}

impl Package {
    /// Reads one stanza of a `Packages` index.
    pub fn from_stanza(stanza: &Stanza) -> Result<Self, PackagesError> {
        let fields = Fields(stanza);
        let name = fields.checked("Package", "the name of a package", relation::is_package_name)?;
        let path = "a path below the root of the archive, without `..`";
        let source = match fields.text("Source")? {
            "" => None,
            source => Some(Box::new(match source.split_once('(') {
                None => (source.into(), None),
                Some((name, rest)) => {
                    (name.trim_ascii_end().into(), Some(fields.version(rest.trim_end_matches(')'))?))
                }
            })),
        };
        Ok(Self {
            name: name.into(),
            version: fields.version(fields.text("Version")?)?,
            architecture: fields
                .checked("Architecture", "an architecture", relation::is_architecture)?
                .into(),
            filename: fields.checked("Filename", path, is_relative_path)?.into(),
            size: Bytes(fields.parsed("Size", "a number of bytes")?),
            sha256: fields.parsed("SHA256", "64 hexadecimal digits")?,
            installed_size: match fields.text("Installed-Size")? {
                "" => Bytes(0),
                // The field counts kibibytes (policy 5.6.20). It is an estimate: a silly one may saturate.
                _ => Bytes(
                    fields.parsed::<u64>("Installed-Size", "a number of kibibytes")?.saturating_mul(1024),
                ),
            },
            essential: fields.flag("Essential")?,
            protected: fields.flag("Protected")? || fields.flag("Important")?,
            priority: match fields.text("Priority")? {
                "required" => Priority::Required,
                "important" => Priority::Important,
                "standard" => Priority::Standard,
                "extra" => Priority::Extra,
                // An archive may leave it out or use its own words (`unknown`): nothing is installed because of it.
                _ => Priority::Optional,
            },
            multi_arch: match fields.text("Multi-Arch")? {
                "" | "no" => MultiArch::No,
                "foreign" => MultiArch::Foreign,
                "same" => MultiArch::Same,
                "allowed" => MultiArch::Allowed,
                found => return Err(fields.wrong("Multi-Arch", found, "no, foreign, same or allowed")),
            },
            section: fields.text("Section")?.into(),
            depends: fields.text("Depends")?.into(),
            pre_depends: fields.text("Pre-Depends")?.into(),
            recommends: fields.text("Recommends")?.into(),
            suggests: fields.text("Suggests")?.into(),
            enhances: fields.text("Enhances")?.into(),
            provides: fields.text("Provides")?.into(),
            conflicts: fields.text("Conflicts")?.into(),
            breaks: fields.text("Breaks")?.into(),
            replaces: fields.text("Replaces")?.into(),
            source,
        })
    }

    /// The source package it was built from.
    pub fn source_name(&self) -> &str {
        self.source.as_ref().map_or(&self.name, |source| &source.0)
    }

    /// The version of that source; it differs where a package was rebuilt (`+b1`) or has its own numbers.
    pub fn source_version(&self) -> &Version {
        self.source.as_ref().and_then(|source| source.1.as_ref()).unwrap_or(&self.version)
    }

    /// The names (and versions) it provides.
    pub fn provided(&self) -> impl Iterator<Item = Result<Relation<'_>, NotARelation>> {
        relation::list(&self.provides)
    }
}

/// `name=version`, as apt writes an exact choice.
impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.version)
    }
}

/// A stanza whose complaints name the package.
struct Fields<'s, 'a>(&'s Stanza<'a>);

impl<'a> Fields<'_, 'a> {
    /// The value of a field; empty when it is absent.
    fn text(&self, field: &str) -> Result<&'a str, ControlError> {
        Ok(self.0.text(field)?.unwrap_or_default())
    }

    fn checked(
        &self,
        field: &'static str,
        expected: &'static str,
        good: impl Fn(&str) -> bool,
    ) -> Result<&'a str, PackagesError> {
        let found = self.text(field)?;
        if good(found) { Ok(found) } else { Err(self.wrong(field, found, expected)) }
    }

    fn parsed<T: FromStr>(&self, field: &'static str, expected: &'static str) -> Result<T, PackagesError> {
        let found = self.text(field)?;
        found.parse().map_err(|_| self.wrong(field, found, expected))
    }

    fn flag(&self, field: &'static str) -> Result<bool, PackagesError> {
        match self.text(field)? {
            "" | "no" => Ok(false),
            "yes" => Ok(true),
            found => Err(self.wrong(field, found, "yes or no")),
        }
    }

    fn version(&self, text: &str) -> Result<Version, PackagesError> {
        let (package, line) = (self.name(), self.0.line());
        text.parse().map_err(|source| PackagesError::Version { package, line, source })
    }

    fn wrong(&self, field: &'static str, found: &str, expected: &'static str) -> PackagesError {
        let found = found.chars().take(120).collect();
        PackagesError::Value { package: self.name(), line: self.0.line(), field, found, expected }
    }

    fn name(&self) -> String {
        self.text("Package").unwrap_or_default().chars().take(80).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stanza() -> String {
        format!(
            "Package: samba\nSource: samba-source (2:4.22)\nVersion: 2:4.22+b1\nArchitecture: arm64\n\
             Multi-Arch: foreign\nEssential: yes\nImportant: yes\nPriority: required\nSection: net\n\
             Installed-Size: 7\nDepends: libc6 (>= 2.41), a | b\nProvides: smb (= 4), cifs\nDescription: x\n y\n\
             Filename: pool/main/s/samba.deb\nSize: 12\nSHA256: {}\n",
            Sha256::of(b"")
        )
    }

    #[test]
    fn a_stanza_becomes_a_package() {
        let text = format!("{}\n{}", stanza(), stanza().replace("Source: samba-source (2:4.22)\n", ""));
        let packages = parse_packages(text.as_bytes()).unwrap();
        let package = &packages[0];
        assert_eq!(package.to_string(), "samba=2:4.22+b1");
        assert_eq!((package.source_name(), package.source_version().as_str()), ("samba-source", "2:4.22"));
        assert_eq!((package.size, package.installed_size), (Bytes(12), Bytes::kib(7)));
        assert!(package.essential && package.protected);
        assert_eq!((package.priority, package.multi_arch), (Priority::Required, MultiArch::Foreign));
        assert_eq!(package.provided().map(|one| one.unwrap().name).collect::<Vec<_>>(), ["smb", "cifs"]);
        assert_eq!(
            (packages[1].source_name(), packages[1].source_version().as_str()),
            ("samba", "2:4.22+b1")
        );
    }

    #[test]
    fn a_stanza_that_could_do_harm_is_an_error_that_names_it() {
        for (from, to) in [
            ("pool/main/s/samba.deb", "pool/../../etc/passwd"),
            ("pool/main/s/samba.deb", "/etc/passwd"),
            ("pool/main/s/samba.deb", "http://elsewhere.example/x"),
            ("Filename: pool/main/s/samba.deb\n", ""),
            ("SHA256: e3", "SHA256: "),
            ("SHA256", "SHA1"),
            ("Size: 12", "Size: -1"),
            ("Size: 12", "Size: 99999999999999999999"),
            ("Essential: yes", "Essential: perhaps"),
            ("Version: 2:4.22+b1", "Version: 2:"),
            ("Version: 2:4.22+b1\n", ""),
            ("(2:4.22)", "(:)"),
            ("Architecture: arm64", "Architecture: ../x"),
            ("foreign", "strange"),
        ] {
            let text = stanza().replacen(from, to, 1);
            let error = parse_packages(text.as_bytes()).expect_err(to).to_string();
            assert!(error.contains("package `samba` (line 1"), "{error}");
        }
        assert!(parse_packages(stanza().replace("samba\n", "../samba\n").as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn damaged_indexes_are_read_without_a_panic(at in 0usize..420, byte in any::<u8>(), cut in 0usize..420) {
            let mut bytes = stanza().into_bytes();
            let length = bytes.len();
            bytes[at % length] = byte;
            let _ = parse_packages(&bytes);
            bytes.truncate(cut);
            let _ = parse_packages(&bytes);
        }
    }
}
