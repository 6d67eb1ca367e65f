//! The lock: what a build will use, exactly.
//!
//! Goals, in this order:
//! 1. *complete*: every byte that reaches the image comes from something named here by digest and size, from the profile,
//!    or from hardtack itself;
//! 2. *readable*: a person can review it; one line a package;
//! 3. *small diffs*: sorted, no counters, no line that changes because another did;
//! 4. *byte-reproducible*: the same values give the same text, and reading and writing again changes nothing;
//! 5. *checkable without network*: it records what was asked for, so [`Lock::satisfies`] can compare it with a profile;
//! 6. *versioned*: a lock from a newer hardtack is refused in words.

use crate::digest::{Hasher, Sha256};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// The version of the lock format that this hardtack writes. Version 1 is the first.
pub const VERSION: u32 = 1;

/// Everything a build uses. See the module's goals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The profile it was made for.
    pub profile: String,
    /// The build's clock, in seconds since 1970: the newest date among the repositories' Release files, or
    /// `SOURCE_DATE_EPOCH` when the lock was made.
    pub epoch: i64,
    /// Debian's name of the device's architecture, `arm64`.
    pub architecture: String,
    /// Where packages come from, in the order the profile names them.
    pub repositories: Vec<Repository>,
    /// Package sets in the order they are configured: the base profile's first.
    pub layers: Vec<Layer>,
    /// What runs on the build machine, per machine architecture: the emulator. It never reaches the image.
    pub tools: Vec<Package>,
}

/// One suite of one archive, as its signed Release file described it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Repository {
    /// What packages refer to it by.
    pub name: String,
    /// Base URL, without a trailing slash.
    pub url: String,
    /// Suite as it stands in the device's apt sources.
    pub suite: String,
    /// Components that were read.
    pub components: Vec<String>,
    /// `Origin` field, for the updates' pattern on the device.
    pub origin: String,
    /// `Label` field.
    pub label: String,
    /// `Codename` field.
    pub codename: String,
    /// `Date` field, in seconds since 1970.
    pub date: i64,
    /// Digest of the Release text that the signature covers.
    pub release: Sha256,
    /// Fingerprint of the certificate that signed it, in hexadecimal.
    pub signed_by: String,
}

/// The packages one profile of the `extends` chain adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The profile that asks for them.
    pub profile: String,
    /// What it asks for, as written in the profile (`name`, `name/suite`, `name=version`) or derived from it, sorted.
    pub wants: Vec<String>,
    /// Why this profile could not stand on its parent's layer and was configured from nothing; empty when it could.
    pub apart: String,
    /// What that takes, sorted by name and architecture.
    pub packages: Vec<Package>,
}

/// One binary package.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Package {
    /// Name of the package.
    pub name: String,
    /// Version, as Debian policy 5.6.12 writes it.
    pub version: String,
    /// Architecture of the package, `all` included.
    pub arch: String,
    /// Name of the [`Repository`] it comes from.
    pub from: String,
    /// Path below the repository's URL.
    pub file: String,
    /// Size in bytes.
    pub size: u64,
    /// Digest.
    pub sha256: Sha256,
    /// The same package and version for the machine that builds, when the archive has it: it lends its programs to the
    /// maintainer scripts and never reaches the image.
    #[serde(default)]
    pub twin: Option<Twin>,
}

/// A package's counterpart for another architecture.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Twin {
    /// Its architecture.
    pub arch: String,
    /// Name of the [`Repository`] it comes from, which may be another one: point releases and security updates reach
    /// architectures at different times.
    pub from: String,
    /// Path below the repository's URL.
    pub file: String,
    /// Size in bytes.
    pub size: u64,
    /// Digest.
    pub sha256: Sha256,
}

/// Why a text is not a lock this hardtack can use.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Not TOML, or with keys or values that are not a lock's.
    #[error("this is not a hardtack lock")]
    Syntax(#[source] Box<toml::de::Error>),
    /// Made by another version.
    #[error("lock version {found}; this hardtack reads version {VERSION}")]
    Version {
        /// The version it says.
        found: u32,
    },
    /// A rule between values is broken.
    #[error("{0}")]
    Broken(String),
}

#[derive(Deserialize)]
struct VersionWire {
    version: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LockWire {
    #[allow(dead_code, reason = "read by VersionWire first; named here because unknown keys are refused")]
    version: u32,
    profile: String,
    epoch: i64,
    architecture: String,
    #[serde(default)]
    repository: Vec<Repository>,
    #[serde(default)]
    layer: Vec<LayerWire>,
    #[serde(default)]
    tools: Vec<Package>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerWire {
    profile: String,
    wants: Vec<String>,
    #[serde(default)]
    apart: String,
    packages: Vec<Package>,
}

impl Lock {
    /// Reads a lock.
    pub fn parse(text: &str) -> Result<Self, LockError> {
        let syntax = |error| LockError::Syntax(Box::new(error));
        let VersionWire { version } = toml::from_str(text).map_err(syntax)?;
        if version != VERSION {
            return Err(LockError::Version { found: version });
        }
        let wire: LockWire = toml::from_str(text).map_err(syntax)?;
        let layers = wire.layer.into_iter().map(|layer| Layer {
            profile: layer.profile,
            wants: layer.wants,
            apart: layer.apart,
            packages: layer.packages,
        });
        let lock = Self {
            profile: wire.profile,
            epoch: wire.epoch,
            architecture: wire.architecture,
            repositories: wire.repository,
            layers: layers.collect(),
            tools: wire.tools,
        };
        lock.check()?;
        Ok(lock)
    }

    /// Writes the lock in its one canonical form.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "# Made by `hardtack lock`: what this profile is built from, exactly. Commit it beside the profile;\n\
             # `hardtack lock --update` renews it, `hardtack lock --check` compares it with the profile.\n\
             version = {VERSION}\nprofile = {}\nepoch = {}\narchitecture = {}\n",
            quote(&self.profile),
            self.epoch,
            quote(&self.architecture),
        );
        put(&mut text, format_args!("tools = [\n"));
        self.tools.iter().for_each(|package| package_line(&mut text, package));
        text.push_str("]\n");
        for repository in &self.repositories {
            let list: Vec<String> = repository.components.iter().map(|name| quote(name)).collect();
            put(
                &mut text,
                format_args!(
                    "\n[[repository]]\nname = {}\nurl = {}\nsuite = {}\ncomponents = [{}]\norigin = {}\nlabel = {}\n\
                     codename = {}\ndate = {}\nrelease = \"{}\"\nsigned-by = {}\n",
                    quote(&repository.name),
                    quote(&repository.url),
                    quote(&repository.suite),
                    list.join(", "),
                    quote(&repository.origin),
                    quote(&repository.label),
                    quote(&repository.codename),
                    repository.date,
                    repository.release,
                    quote(&repository.signed_by),
                ),
            );
        }
        for layer in &self.layers {
            put(&mut text, format_args!("\n[[layer]]\nprofile = {}\nwants = [\n", quote(&layer.profile)));
            layer.wants.iter().for_each(|want| put(&mut text, format_args!("  {},\n", quote(want))));
            text.push_str("]\n");
            if !layer.apart.is_empty() {
                put(&mut text, format_args!("apart = {}\n", quote(&layer.apart)));
            }
            text.push_str("packages = [\n");
            layer.packages.iter().for_each(|package| package_line(&mut text, package));
            text.push_str("]\n");
        }
        text
    }

    /// The digest of the canonical text: names the build, and seeds every id in it.
    pub fn digest(&self) -> Sha256 {
        Sha256::of(self.to_text().as_bytes())
    }

    /// Every package of the image, in layer order.
    pub fn packages(&self) -> impl Iterator<Item = &Package> {
        self.layers.iter().flat_map(|layer| &layer.packages)
    }

    /// The digest that names the result of configuring layers `0..=last`: their packages, the clock, and `rules`,
    /// which is whatever in hardtack decides how they are configured. Twins and the emulator are not part of it: they
    /// must not change a byte.
    pub fn layer_key(&self, last: usize, rules: &Sha256) -> Sha256 {
        let mut hasher = Hasher::new();
        hasher.field(b"hardtack layer 1").field(&rules.0).field(&self.epoch.to_le_bytes());
        hasher.field(self.architecture.as_bytes());
        for layer in self.layers.iter().take(last + 1) {
            hasher.field(layer.profile.as_bytes()).field(&(layer.packages.len() as u64).to_le_bytes());
            for package in &layer.packages {
                hasher.field(package.name.as_bytes()).field(&package.sha256.0);
            }
        }
        hasher.finish().0
    }

    /// Where a package is fetched from. `None` for a repository the lock does not name, which [`Lock::parse`] refuses.
    pub fn repository(&self, name: &str) -> Option<&Repository> {
        self.repositories.iter().find(|repository| repository.name == name)
    }

    /// Whether this lock still answers what is asked for; otherwise each difference in words.
    pub fn satisfies(&self, request: &Request) -> Vec<String> {
        let mut differences = Vec::new();
        if self.profile != request.profile {
            differences
                .push(format!("it was made for profile `{}`, not `{}`", self.profile, request.profile));
        }
        if self.architecture != request.architecture {
            differences.push(format!("architecture is {}, not {}", self.architecture, request.architecture));
        }
        let have: BTreeSet<_> =
            self.repositories.iter().map(|r| (&*r.name, &*r.suite, r.components.join(" "))).collect();
        let want: BTreeSet<_> =
            request.repositories.iter().map(|r| (&*r.name, &*r.suite, r.components.join(" "))).collect();
        for (name, suite, components) in want.difference(&have) {
            differences.push(format!("repository `{name}` ({suite}: {components}) is not locked"));
        }
        for (name, suite, components) in have.difference(&want) {
            differences
                .push(format!("repository `{name}` ({suite}: {components}) is locked, but not asked for"));
        }
        for asked in &request.repositories {
            let locked = self.repositories.iter().find(|repository| repository.name == asked.name);
            if let (Some(url), Some(locked)) = (&asked.url, locked)
                && *url != locked.url
            {
                differences
                    .push(format!("repository `{}` is locked at {}, not {url}", asked.name, locked.url));
            }
        }
        // A layer that could not stand on its parents asks for what they ask for too.
        let merged = request.layers.len().saturating_sub(self.layers.len());
        let own = |layer: &Layer| layer.profile.clone();
        let have: Vec<String> = self.layers.iter().map(own).collect();
        let want: Vec<String> =
            request.layers.iter().skip(merged).map(|layer| layer.profile.clone()).collect();
        let all_apart = self.layers.first().is_some_and(|layer| !layer.apart.is_empty());
        if have != want || (merged > 0 && !all_apart) {
            let chain =
                request.layers.iter().map(|layer| layer.profile.as_str()).collect::<Vec<_>>().join(" → ");
            differences.push(format!("the chain of profiles was {}, now it is {chain}", have.join(" → ")));
            return differences;
        }
        for (index, layer) in self.layers.iter().enumerate() {
            let asked = if index == 0 {
                &request.layers[..=merged]
            } else {
                &request.layers[merged + index..=merged + index]
            };
            let have: BTreeSet<_> = layer.wants.iter().collect();
            let want: BTreeSet<_> = asked.iter().flat_map(|asked| &asked.wants).collect();
            let said =
                |word: &str, text: &str| format!("profile `{}`: package `{text}` {word}", layer.profile);
            differences.extend(want.difference(&have).map(|text| said("is not locked", text)));
            differences
                .extend(have.difference(&want).map(|text| said("is locked, but no longer asked for", text)));
        }
        differences
    }

    fn check(&self) -> Result<(), LockError> {
        let broken = |text: String| Err(LockError::Broken(text));
        if self.layers.is_empty() {
            return broken("the lock has no layer".into());
        }
        let mut seen = BTreeSet::new();
        for package in self.packages() {
            if !seen.insert((&package.name, &package.arch)) {
                return broken(format!("package `{}:{}` is locked twice", package.name, package.arch));
            }
        }
        for package in self.packages().chain(&self.tools) {
            let homes = [Some(&package.from), package.twin.as_ref().map(|twin| &twin.from)];
            if let Some(home) = homes.into_iter().flatten().find(|home| self.repository(home).is_none()) {
                return broken(format!(
                    "package `{}` comes from repository `{home}`, which the lock does not name",
                    package.name
                ));
            }
            let files = [Some(&package.file), package.twin.as_ref().map(|twin| &twin.file)];
            for file in files.into_iter().flatten() {
                if file.starts_with('/') || file.split('/').any(|part| part.is_empty() || part == "..") {
                    return broken(format!(
                        "package `{}` has a file name that leaves its archive: `{file}`",
                        package.name
                    ));
                }
            }
        }
        Ok(())
    }
}

/// What a profile asks of a lock: all that can be said without the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Name of the profile.
    pub profile: String,
    /// Debian architecture of the device.
    pub architecture: String,
    /// Which suites of which archives.
    pub repositories: Vec<RequestedRepository>,
    /// The chain of profiles, base first.
    pub layers: Vec<RequestedLayer>,
}

/// What one profile of the chain asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedLayer {
    /// The profile.
    pub profile: String,
    /// Packages, sorted.
    pub wants: Vec<String>,
    /// Why it does not stand on its parents; empty when it does.
    pub apart: String,
}

/// A suite that a profile wants packages from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedRepository {
    /// Name, unique within the profile.
    pub name: String,
    /// Base URL, when the profile or the command line names one; the host's mirror otherwise.
    pub url: Option<String>,
    /// Suite.
    pub suite: String,
    /// Components.
    pub components: Vec<String>,
}

fn package_line(text: &mut String, package: &Package) {
    put(
        text,
        format_args!(
            "  {{ name = {}, version = {}, arch = {}, from = {}, file = {}, size = {}, sha256 = \"{}\"",
            quote(&package.name),
            quote(&package.version),
            quote(&package.arch),
            quote(&package.from),
            quote(&package.file),
            package.size,
            package.sha256,
        ),
    );
    if let Some(twin) = &package.twin {
        put(
            text,
            format_args!(
                ", twin = {{ arch = {}, from = {}, file = {}, size = {}, sha256 = \"{}\" }}",
                quote(&twin.arch),
                quote(&twin.from),
                quote(&twin.file),
                twin.size,
                twin.sha256,
            ),
        );
    }
    text.push_str(" },\n");
}

/// A TOML basic string (toml.io, "String").
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if c.is_control() => put(&mut quoted, format_args!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(arguments);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn package(name: &str) -> Package {
        Package {
            name: name.into(),
            version: "1:2.3-4+deb13u1".into(),
            arch: "arm64".into(),
            from: "debian".into(),
            file: format!("pool/main/x/{name}.deb"),
            size: 77,
            sha256: Sha256::of(name.as_bytes()),
            twin: None,
        }
    }

    fn lock() -> Lock {
        let mut dash = package("dash");
        let sha256 = Sha256::of(b"twin");
        dash.twin = Some(Twin {
            arch: "amd64".into(),
            from: "debian".into(),
            file: "pool/d/dash_amd64.deb".into(),
            size: 5,
            sha256,
        });
        Lock {
            profile: "files".into(),
            epoch: 1_700_000_000,
            architecture: "arm64".into(),
            repositories: vec![Repository {
                name: "debian".into(),
                url: "http://mirror.example/debian".into(),
                suite: "trixie".into(),
                components: vec!["main".into(), "non-free-firmware".into()],
                origin: "Debian".into(),
                label: "Debian".into(),
                codename: "trixie".into(),
                date: 1_700_000_000,
                release: Sha256::of(b"release"),
                signed_by: "ABCD".into(),
            }],
            layers: vec![
                Layer {
                    profile: "minimal".into(),
                    wants: vec!["dash".into()],
                    apart: String::new(),
                    packages: vec![dash],
                },
                Layer {
                    profile: "files".into(),
                    wants: vec!["samba".into()],
                    apart: "it removes `x`".into(),
                    packages: vec![package("samba")],
                },
            ],
            tools: vec![package("qemu-user")],
        }
    }

    fn asks(profile: &str, want: &str) -> RequestedLayer {
        RequestedLayer { profile: profile.into(), wants: vec![want.into()], apart: String::new() }
    }

    fn request() -> Request {
        Request {
            profile: "files".into(),
            architecture: "arm64".into(),
            repositories: vec![RequestedRepository {
                name: "debian".into(),
                url: None,
                suite: "trixie".into(),
                components: vec!["main".into(), "non-free-firmware".into()],
            }],
            layers: vec![asks("minimal", "dash"), asks("files", "samba")],
        }
    }

    #[test]
    fn reading_and_writing_again_changes_nothing() {
        let text = lock().to_text();
        let again = Lock::parse(&text).unwrap();
        assert_eq!(again, lock());
        assert_eq!(again.to_text(), text);
        assert_eq!(text.lines().filter(|line| line.contains("name = \"samba\"")).count(), 1);
    }

    proptest! {
        #[test]
        fn any_text_survives_quoting(profile in any::<String>(), want in any::<String>()) {
            let mut lock = lock();
            lock.profile = profile;
            lock.layers[0].wants = vec![want];
            prop_assert_eq!(Lock::parse(&lock.to_text()).unwrap(), lock);
        }
    }

    #[test]
    fn locks_that_cannot_be_right_are_refused() {
        let text = lock().to_text();
        for (from, to, says) in [
            ("version = 1\n", "version = 2\n", "reads version 1"),
            ("epoch = ", "time = ", "not a hardtack lock"),
            (
                "from = \"debian\", file = \"pool/main/x/samba",
                "from = \"moon\", file = \"pool/main/x/samba",
                "`moon`",
            ),
            ("pool/main/x/samba.deb", "../../etc/passwd", "leaves its archive"),
            ("pool/d/dash_amd64.deb", "/etc/passwd", "leaves its archive"),
            ("name = \"samba\"", "name = \"dash\"", "locked twice"),
        ] {
            assert!(text.contains(from), "{from}");
            let error = Lock::parse(&text.replacen(from, to, 1)).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn a_lock_is_compared_with_its_profile_without_network() {
        assert_eq!(lock().satisfies(&request()), Vec::<String>::new());
        let mut other = request();
        other.layers[1].wants = vec!["wsdd2".into()];
        other.repositories[0].suite = "forky".into();
        let said = lock().satisfies(&other).join("\n");
        for text in ["`wsdd2` is not locked", "`samba` is locked, but no longer", "forky", "trixie"] {
            assert!(said.contains(text), "{said}");
        }
        other = request();
        other.layers.remove(0);
        assert!(lock().satisfies(&other)[0].contains("minimal → files"));
        let mut merged = lock();
        merged.layers.remove(0);
        merged.layers[0].wants = vec!["dash".into(), "samba".into()];
        assert_eq!(merged.satisfies(&request()), Vec::<String>::new());
        merged.layers[0].apart.clear();
        assert!(merged.satisfies(&request())[0].contains("chain of profiles"));
    }

    #[test]
    fn a_layer_is_named_by_what_goes_into_it_and_not_by_twins() {
        let rules = Sha256::of(b"rules");
        let key = |lock: &Lock| lock.layer_key(0, &rules);
        let mut other = lock();
        other.layers[0].packages[0].twin = None;
        other.layers[1].packages.clear();
        assert_eq!(key(&lock()), key(&other));
        assert_ne!(lock().layer_key(1, &rules), other.layer_key(1, &rules));
        other.layers[0].packages[0].sha256 = Sha256::of(b"else");
        assert_ne!(key(&lock()), key(&other));
        assert_ne!(key(&lock()), lock().layer_key(0, &Sha256::of(b"other rules")));
    }
}
