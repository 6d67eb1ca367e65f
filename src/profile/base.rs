//! Where the image starts: the Debian archive, which suites of it, and other apt sources beside it.

use super::compose::{below, read_text, reason};
use super::diagnostics::{Diagnostic, Report};
use super::section::{Section, or};
use super::source::{Home, Sourced};
use crate::digest::Sha256;

/// `[base]`.
#[derive(Clone, Debug)]
pub struct Base {
    /// The codename: `trixie`.
    pub suite: Sourced<String>,
    /// Components of the archive, at least one.
    pub components: Vec<Sourced<String>>,
    /// The mirror to take, and to leave on the device; without one, the mirror of the host is taken.
    pub mirror: Option<Sourced<String>>,
    /// Which packages come without being asked for.
    pub priority: Sourced<Priority>,
    /// Whether `SUITE-security` is a source, at build time and on the device.
    pub security: Sourced<bool>,
    /// Whether `SUITE-updates` is.
    pub updates: Sourced<bool>,
    /// Whether `SUITE-backports` is. Its packages are only taken where a profile asks for them.
    pub backports: Sourced<bool>,
}

impl Base {
    /// The name of the backports suite.
    pub fn backports_suite(&self) -> String {
        format!("{}-backports", *self.suite)
    }

    /// Reads `[base]`.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let mut components = section.list("components", read_component);
        if components.is_empty() {
            // raspi-firmware and the Wi-Fi firmware live in non-free-firmware; without it no Pi boots.
            components =
                ["main", "non-free-firmware"].map(|one| Sourced::default_value(one.to_owned())).into();
        }
        Self {
            suite: section.parsed("suite", read_suite).unwrap_or(Sourced::default_value("trixie".into())),
            components,
            mirror: section.parsed("mirror", read_url),
            priority: section
                .choice("priority", &Priority::WORDS)
                .unwrap_or(Sourced::default_value(Priority::Required)),
            security: section.flag("security").unwrap_or(Sourced::default_value(true)),
            updates: section.flag("updates").unwrap_or(Sourced::default_value(true)),
            backports: section.flag("backports").unwrap_or(Sourced::default_value(false)),
        }
    }
}

/// Packages of this priority (Debian policy 2.5) and above are installed without being named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Only what is marked `Essential: yes`, and apt.
    Essential,
    /// Essential, and priority `required`.
    Required,
    /// That, and priority `important`.
    Important,
    /// That, and priority `standard`.
    Standard,
}

impl Priority {
    const WORDS: [(&'static str, Self); 4] = [
        ("essential", Self::Essential),
        ("required", Self::Required),
        ("important", Self::Important),
        ("standard", Self::Standard),
    ];

    /// The word in the profile.
    pub fn word(self) -> &'static str {
        match self {
            Self::Essential => "essential",
            Self::Required => "required",
            Self::Important => "important",
            Self::Standard => "standard",
        }
    }
}

/// An apt source beside Debian's own: `[sources.NAME]`.
#[derive(Clone, Debug)]
pub struct AptSource {
    /// Becomes the names of its files on the device.
    pub name: Sourced<String>,
    /// `http://` or `https://`, without credentials.
    pub url: Sourced<String>,
    /// Suite or codename.
    pub suite: Sourced<String>,
    /// At least one.
    pub components: Vec<Sourced<String>>,
    /// The OpenPGP certificate that signs it; its digest is as the profile says.
    pub key: Sourced<Vec<u8>>,
    /// The only packages that may come from it, at least one; everything else in it is pinned away.
    pub packages: Vec<Sourced<String>>,
}

/// Reads `[sources]`.
pub(super) fn read_sources(document: &mut Section<'_>) -> Vec<AptSource> {
    document
        .named("sources")
        .into_iter()
        .filter_map(|(name, mut section)| read_source(name, &mut section))
        .collect()
}

fn read_source(name: Sourced<String>, section: &mut Section<'_>) -> Option<AptSource> {
    let report = section.report();
    if let Err(problem) = check_file_name(&name) {
        report.add(Diagnostic::new("bad name of an apt source").mark_origin(name.origin(), problem));
    }
    let url = section.parsed("url", read_url);
    let suite = section.parsed("suite", read_suite);
    let components = section.list("components", read_component);
    let packages = section.list("packages", |text| check_package_name(text).map(|()| text.to_owned()));
    let key = section.text("key");
    let digest =
        section.parsed("key_sha256", |text| text.parse::<Sha256>().map_err(|error| error.to_string()));
    for (key, given, hint) in [
        ("url", url.is_some(), "say where it is: `url = \"https://mirror.example/debian\"`"),
        ("suite", suite.is_some(), "say which suite, as `InRelease` calls it: `suite = \"trixie\"`"),
        ("components", !components.is_empty(), "say which components: `components = [\"main\"]`"),
        ("packages", !packages.is_empty(), "name every package that may come from it; no other will"),
        ("key", key.is_some(), "give the key that signs it: a file beside the profile and its `key_sha256`"),
    ] {
        // A bad value has been reported already, and the keys are known to the section then.
        if !given && !section.was_written(key) {
            section.missing(key, hint);
        }
    }
    let key = read_key(&key?, digest, report)?;
    Some(AptSource { name, url: url?, suite: suite?, components, key, packages })
}

/// An armoured key in the profile itself, or a file beside it whose digest the profile gives.
fn read_key(
    key: &Sourced<String>,
    digest: Option<Sourced<Sha256>>,
    report: &Report,
) -> Option<Sourced<Vec<u8>>> {
    let bad = |label: String, hint: &str| {
        report.add(Diagnostic::new("bad signing key").mark_origin(key.origin(), label).hint(hint));
        None
    };
    if key.contains("PRIVATE KEY") {
        return bad(
            "this is a private key".into(),
            "give the public key; and consider the private one burnt",
        );
    }
    let bytes = if key.trim_start().starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----") {
        key.as_bytes().to_vec()
    } else {
        let Some(digest) = &digest else {
            return bad(
                "a file needs its `key_sha256`".into(),
                "compare the key's fingerprint with its owner's, then add what `sha256sum` says about the file",
            );
        };
        let path = match beside(key) {
            Ok(path) => path,
            Err(problem) => return bad(problem, "put the key itself here, armoured"),
        };
        match super::overlay::open(&path).and_then(|(content, _)| content.read_to_vec(1 << 20)) {
            Err(error) => {
                return bad(
                    format!("cannot read it: {}", reason(&error)),
                    "the path is relative to this file",
                );
            }
            Ok(bytes) if Sha256::of(&bytes) != **digest => {
                let found = format!("the file's digest is {}", Sha256::of(&bytes));
                let one = Diagnostic::new("the signing key is not the one the profile means");
                report.add(one.mark_origin(digest.origin(), found).mark_origin(key.origin(), "of this file"));
                return None;
            }
            Ok(bytes) => bytes,
        }
    };
    if let Some(digest) = digest
        && Sha256::of(&bytes) != *digest
    {
        return bad(
            "its digest is not `key_sha256`".into(),
            "the key is here already: leave `key_sha256` out",
        );
    }
    Some(key.with(bytes))
}

/// The path that a relative path in a profile means.
pub(super) fn beside(text: &Sourced<String>) -> Result<std::path::PathBuf, String> {
    match text.origin().place().map(|place| place.source().home()) {
        Some(Home::Directory(home)) => Ok(below(home, text)),
        _ => Err("a shipped profile has no files beside it".into()),
    }
}

/// Reads a text file that a profile names.
pub(super) fn text_beside(text: &Sourced<String>) -> Result<String, String> {
    let path = beside(text)?;
    read_text(&path).map_err(|problem| format!("cannot read {}: {problem}", path.display()))
}

fn read_suite(text: &str) -> Result<String, String> {
    let fine = |c: u8| c.is_ascii_alphanumeric() || b"-._/".contains(&c);
    let parts = text.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if parts && text.bytes().all(fine) && text.len() <= 100 {
        Ok(text.to_owned())
    } else {
        Err("must be the name of a suite, such as `trixie`".into())
    }
}

fn read_component(text: &str) -> Result<String, String> {
    read_suite(text).map_err(|_| "must be the name of a component, such as `main`".into())
}

/// An address without credentials: a profile is committed to git.
pub(super) fn read_url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let Some(rest) = rest else {
        return Err(format!("must begin with {}", or(&["`https://`".into(), "`http://`".into()])));
    };
    let host = rest.split('/').next().unwrap_or_default();
    if host.contains('@') {
        return Err("must not hold a name or password: profiles are no place for secrets".into());
    }
    if host.is_empty()
        || text.chars().any(|c| c.is_control() || c.is_whitespace() || "\"<>\\^`{|}".contains(c))
    {
        return Err("must be an address without spaces or quotes".into());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// A name that becomes part of file names on the device.
pub(super) fn check_file_name(text: &str) -> Result<(), String> {
    let fine = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if !text.is_empty() && text.len() <= 63 && text.bytes().all(fine) {
        Ok(())
    } else {
        Err("must be letters, digits, `-` and `_`, at most 63".into())
    }
}

/// Debian policy 5.6.7.
pub(super) fn check_package_name(text: &str) -> Result<(), String> {
    let fine = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"+-.".contains(&c);
    let first = text.bytes().next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if text.len() < 2 || text.len() > 200 || !first || !text.bytes().all(fine) {
        return Err("must be a package's name: lower-case letters, digits, `+`, `-` and `.`".into());
    }
    Ok(())
}
