//! A private apt: its own sources, lists, cache and an empty dpkg database, fed from the mirror the host's apt uses.

use hardtack::debian::control::Stanzas;
use hardtack::debian::index::{Release, parse_packages};
use hardtack::debian::solve::{Index, Universe};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

/// The architecture that is asked for everywhere.
pub const ARCHITECTURE: &str = "arm64";

/// A day, after which the lists are fetched anew.
const FRESH: std::time::Duration = std::time::Duration::from_secs(86_400);

/// The private apt, made or refreshed once a run.
pub static APT: LazyLock<Apt> = LazyLock::new(Apt::prepare);

pub struct Apt {
    root: PathBuf,
    config: PathBuf,
}

impl Apt {
    fn prepare() -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("private-apt");
        let apt = Self { config: root.join("apt.conf"), root };
        for folder in [
            "state/lists/partial",
            "cache/archives/partial",
            "etc/apt.conf.d",
            "etc/preferences.d",
            "etc/sources.list.d",
            "etc/trusted.gpg.d",
        ] {
            fs::create_dir_all(apt.root.join(folder)).unwrap();
        }
        fs::write(apt.root.join("status"), "").unwrap();
        let sources = sources();
        let sources_file = apt.root.join("etc/sources.list.d/all.sources");
        let same_sources = fs::read_to_string(&sources_file).is_ok_and(|text| text == sources);
        fs::write(&sources_file, sources).unwrap();
        fs::write(&apt.config, apt.configuration()).unwrap();
        let stamp = apt.root.join("updated");
        let fresh = fs::metadata(&stamp)
            .and_then(|data| data.modified())
            .is_ok_and(|time| time.elapsed().is_ok_and(|age| age < FRESH));
        if !fresh || !same_sources {
            let output = apt.run("apt-get", &["update", "-q", "-o", "APT::Update::Error-Mode=any"]);
            assert!(
                output.status.success(),
                "apt-get update failed: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            fs::write(stamp, "").unwrap();
            // Builds the binary cache before several simulations want it at once.
            apt.run("apt-cache", &["gencaches"]);
        }
        apt
    }

    fn configuration(&self) -> String {
        let root = self.root.display();
        let mut text = format!(
            "Dir::State \"{root}/state\";\nDir::State::status \"{root}/status\";\nDir::Cache \"{root}/cache\";\n\
             Dir::Etc \"{root}/etc\";\nDir::Log \"{root}\";\nAPT::Architecture \"{ARCHITECTURE}\";\n\
             APT::Architectures {{ \"{ARCHITECTURE}\"; }};\nAcquire::Languages \"none\";\nAcquire::GzipIndexes \"false\";\n\
             APT::Sandbox::User \"root\";\nAPT::Install-Recommends \"false\";\n"
        );
        // How the host reaches its mirror, and what it thinks of clocks.
        let host = tool("apt-config").arg("dump").output().unwrap();
        for line in String::from_utf8_lossy(&host.stdout).lines() {
            let kept =
                ["Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries", "Acquire::Force"];
            if kept.iter().any(|prefix| line.starts_with(prefix)) {
                writeln!(text, "{line}").unwrap();
            }
        }
        text
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        tool(program).env("APT_CONFIG", &self.config).env("LC_ALL", "C").args(arguments).output().unwrap()
    }

    /// What `apt-get install` would install, as `name=version`, or what it says instead.
    ///
    /// With `--print-uris` apt stops before it orders the installation, which is what takes time with `-s`; the set is
    /// the same, and one test makes sure of that.
    pub fn choose(&self, options: &[&str], wanted: &[&str]) -> Result<BTreeSet<String>, String> {
        let out = self.install(&["--print-uris"], options, wanted)?;
        let fetch = |line: &str| {
            let file = line.strip_prefix('\'')?.split(' ').nth(1)?;
            let (name, version) = file.split_once('_')?;
            Some(format!("{name}={}", version.split('_').next()?.replace("%3a", ":")))
        };
        Ok(out.lines().filter_map(fetch).collect())
    }

    /// What `apt-get -s install` would install and remove, as `name=version`, or what it says instead.
    pub fn simulate(
        &self,
        options: &[&str],
        wanted: &[&str],
    ) -> Result<(BTreeSet<String>, BTreeSet<String>), String> {
        let out = self.install(&["-s"], options, wanted)?;
        let line = |verb: &str, line: &str| {
            let (name, rest) = line.strip_prefix(verb)?.split_once(' ')?;
            // An upgrade has the old version in square brackets first.
            let version = rest.split(' ').find(|word| word.starts_with(['(', '[']))?;
            let version = rest.split(" (").nth(1).or(rest.strip_prefix('(')).unwrap_or(version);
            let version = version.split([' ', ']']).next()?.trim_start_matches(['(', '[']);
            Some(format!("{}={version}", name.split(':').next()?))
        };
        let all = |verb: &str| out.lines().filter_map(|text| line(verb, text)).collect();
        Ok((all("Inst "), all("Remv ")))
    }

    fn install(&self, mode: &[&str], options: &[&str], wanted: &[&str]) -> Result<String, String> {
        let arguments =
            [mode, &["-q", "-y", "install", "-o", "Dir::Log::Planner=/dev/null"], options, wanted].concat();
        let output = self.run("apt-get", &arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(out.into_owned()) } else { Err(format!("{out}{err}")) }
    }

    /// A place for files that an option names.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.root.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// The raw stanzas of the given `name=version` as a dpkg database in which they are installed.
    pub fn installed(&self, packages: &BTreeSet<String>) -> String {
        let mut text = String::new();
        for (path, _) in self.lists() {
            let bytes = fs::read(path).unwrap();
            for stanza in Stanzas::new(&bytes) {
                let stanza = stanza.unwrap();
                let (name, version) =
                    (stanza.require("Package").unwrap(), stanza.require("Version").unwrap());
                if packages.contains(&format!("{name}={version}")) {
                    for field in stanza.fields() {
                        if !["Filename", "Size", "SHA256", "MD5sum"].contains(&field.name) {
                            writeln!(text, "{}: {}", field.name, std::str::from_utf8(field.value).unwrap())
                                .unwrap();
                        }
                    }
                    text.push_str("Status: install ok installed\n\n");
                }
            }
        }
        text
    }

    /// The `Packages` files in the order of apt's sources, with the suite as the sources name it.
    fn lists(&self) -> Vec<(String, String)> {
        let format = "$(FILENAME)|$(RELEASE)";
        let output = self.run("apt-get", &["indextargets", "--format", format, "Created-By: Packages"]);
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .filter_map(|line| line.split_once('|'))
            .map(|(path, suite)| (path.to_owned(), suite.to_owned()))
            .collect()
    }

    /// The same indexes through our own eyes, in the order of apt's sources.
    pub fn indexes(&self) -> Vec<Index> {
        self.lists()
            .iter()
            .map(|(path, suite)| {
                let marker = format!("_dists_{suite}_");
                let stem = &path[..path.find(&marker).unwrap() + marker.len()];
                let signed = fs::read(format!("{stem}InRelease")).unwrap();
                let release = Release::parse(&unsigned(&signed)).unwrap();
                let bytes = fs::read(path).unwrap();
                assert!(Stanzas::new(&bytes).next().is_none_or(|first| first.is_ok()));
                let priority = release.default_priority();
                let packages = parse_packages(&bytes).unwrap();
                Index { suite: release.suite, codename: release.codename, priority, packages }
            })
            .collect()
    }

    pub fn universe(&self) -> Universe {
        Universe::new(ARCHITECTURE, self.indexes()).unwrap()
    }
}

/// trixie with everything that belongs to it, from where the host's apt gets its own packages.
fn sources() -> String {
    let format = "$(REPO_URI)|$(RELEASE)|$(SIGNED_BY)";
    let output =
        tool("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut main = None;
    let mut security = None;
    for line in text.lines() {
        let [uri, suite, key] = line.splitn(3, '|').collect::<Vec<_>>()[..] else { continue };
        if !key.contains("debian-archive") && !uri.contains("debian") {
            continue;
        }
        let slot = if suite.ends_with("-security") { &mut security } else { &mut main };
        slot.get_or_insert((uri.to_owned(), key.to_owned()));
    }
    let (uri, key) = main.expect("the host's apt has no Debian source; install one");
    let stanza = |uri: &str, suites: &str, key: &str| {
        let key = if !key.starts_with('/') { "/usr/share/keyrings/debian-archive-keyring.gpg" } else { key };
        format!(
            "Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main non-free-firmware\nSigned-By: {key}\n\n"
        )
    };
    let mut text = stanza(&uri, "trixie trixie-updates trixie-backports", &key);
    if let Some((uri, key)) = security {
        text.push_str(&stanza(&uri, "trixie-security", &key));
    }
    text
}

/// Takes the signature off an `InRelease` file. apt has verified it.
fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(bytes).unwrap();
    let begin = text.find("\n\n").unwrap() + 2;
    let end = text.find("-----BEGIN PGP SIGNATURE").unwrap();
    text[begin..end]
        .lines()
        .map(|line| format!("{}\n", line.strip_prefix("- ").unwrap_or(line)))
        .collect::<String>()
        .into_bytes()
}

#[expect(clippy::disallowed_methods, reason = "the judge is a program")]
pub fn tool(name: &str) -> Command {
    let found = Command::new("which").arg(name).output().is_ok_and(|output| output.status.success());
    assert!(found, "{name} is missing: install apt and dpkg");
    Command::new(name)
}
