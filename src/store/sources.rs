//! Where this host gets Debian from: its apt configuration, read from any root directory.
//!
//! No mirror is named in hardtack. The one the user's own machine trusts and reaches, with its proxy, is the right
//! default; `--mirror` is the way out where there is none.

use super::apt_conf::AptConf;
use super::proxy::Proxies;
use super::shown;
use super::source_entries::{Entry, deb822, one_line};
use reqwest::Url;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Names Debian gives its suites and codenames, from the oldest that is still on its mirrors to what is announced.
const SUITES: [&str; 12] = [
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
    "sid",
    "buster",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
];

/// Configuration files are read up to this size; real ones have a few kilobytes.
const MAX_FILE: u64 = 1 << 20;

/// What the host's apt configuration says about Debian.
#[derive(Clone, Debug)]
pub struct HostSources {
    /// The Debian archive, without `dists/…`.
    pub archive: Url,
    /// The Debian security archive: the host's own entry, else derived with [`security_beside`].
    pub security: Option<Url>,
    /// apt's proxies; combine with the environment's by [`Proxies::or`].
    pub proxies: Proxies,
    /// The file that names the archive, for messages.
    pub found_in: PathBuf,
    /// Entries that were passed over, with the reason, in the order of the files.
    pub skipped: Vec<Skipped>,
}

/// An entry or a file that was passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file it is in.
    pub file: PathBuf,
    /// Its address and suite, or nothing when it is the whole file.
    pub entry: String,
    /// Why.
    pub reason: String,
}

/// The host does not say where Debian is.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    /// apt is not configured here, or not for Debian.
    #[error(
        "no entry for the Debian archive in the apt configuration under `{}`{}",
        root.display(),
        if skipped.is_empty() { String::new() } else { format!(" ({} others passed over: {})", skipped.len(), brief(skipped)) }
    )]
    NoArchive {
        /// The root directory that was searched.
        root: PathBuf,
        /// What was there instead.
        skipped: Vec<Skipped>,
    },
}

impl SourcesError {
    /// The next step.
    pub fn hint(&self) -> String {
        "pass --mirror URL with the address of a Debian mirror".into()
    }
}

/// Finds the Debian archive in the apt configuration of the system at `root` (`/`, or a directory in tests).
///
/// An entry is Debian's when it names one of Debian's suites and nothing speaks against it: a `Signed-By` that is
/// not a Debian archive keyring does, and so does the `Release` file apt fetched from it when its `Origin` is
/// another. Of several, one that is known to be Debian's by either sign goes first, then one that has an
/// `-updates` suite beside it (third parties that reuse Debian's suite names have none), then the order of the files.
pub fn discover(root: &Path) -> Result<HostSources, SourcesError> {
    let mut skipped = Vec::new();
    let mut archives = Vec::new();
    let mut securities = Vec::new();
    let entries = entries(root, &mut skipped);
    for entry in &entries {
        match judge(root, entry, &entries) {
            Verdict::Archive(rank, url) => archives.push((rank, url, &entry.file)),
            Verdict::Security(rank, url) => securities.push((rank, url)),
            Verdict::Not(reason) => skipped.push(Skipped {
                file: entry.file.clone(),
                entry: format!("{} {}", entry.shown_uri(), entry.suite),
                reason,
            }),
        }
    }
    // The first of the best rank: the order of the files decides between equals.
    archives.sort_by_key(|(rank, ..)| *rank);
    securities.sort_by_key(|(rank, _)| *rank);
    let Some((_, archive, found_in)) = archives.into_iter().next() else {
        return Err(SourcesError::NoArchive { root: root.to_owned(), skipped });
    };
    let security = securities.into_iter().next().map(|(_, url)| url).or_else(|| security_beside(&archive));
    let proxies = Proxies::from_apt(&apt_conf(root));
    Ok(HostSources { archive, security, proxies, found_in: found_in.clone(), skipped })
}

/// apt's proxies alone, for when `--mirror` or the profile names the archive.
pub fn apt_proxies(root: &Path) -> Proxies {
    Proxies::from_apt(&apt_conf(root))
}

/// Where a mirror of the archive keeps the security archive by custom: `…/debian-security` beside `…/debian`,
/// also inside a snapshot's path. `None` when the path has no part named `debian`.
pub fn security_beside(archive: &Url) -> Option<Url> {
    let parts: Vec<&str> = archive.path_segments()?.collect();
    let at = parts.iter().rposition(|part| *part == "debian")?;
    let renamed: Vec<&str> =
        parts.iter().enumerate().map(|(i, part)| if i == at { "debian-security" } else { part }).collect();
    let mut url = archive.clone();
    url.set_path(&renamed.join("/"));
    Some(url)
}

enum Verdict {
    Archive(u8, Url),
    Security(u8, Url),
    Not(String),
}

fn judge(root: &Path, entry: &Entry, all: &[Entry]) -> Verdict {
    let suite = entry.suite.trim_end_matches('/');
    let security = suite.strip_suffix("-security").or_else(|| suite.strip_suffix("/updates"));
    let plain = security.unwrap_or(suite);
    if !SUITES.contains(&plain) {
        let side = ["-updates", "-backports", "-backports-sloppy", "-proposed-updates"];
        let reason =
            match side.iter().any(|s| suite.strip_suffix(s).is_some_and(|name| SUITES.contains(&name))) {
                true => "an addition to a suite, not the suite itself".into(),
                false => format!("`{suite}` is not a suite of Debian"),
            };
        return Verdict::Not(reason);
    }
    let (scheme, _) = entry.uri.split_once(':').unwrap_or((&entry.uri, ""));
    if !matches!(scheme, "http" | "https" | "file") {
        return Verdict::Not(format!("hardtack cannot fetch by `{scheme}:`"));
    }
    let mut url = match Url::parse(&entry.uri) {
        Ok(url) => url,
        Err(error) => return Verdict::Not(format!("not a URL: {error}")),
    };
    let trimmed = url.path().trim_end_matches('/').to_owned();
    url.set_path(&trimmed);

    let signed_by = entry.signed_by.as_deref();
    let keyring_files: Vec<&str> =
        signed_by.unwrap_or_default().split([' ', ',', '\n']).filter(|word| word.starts_with('/')).collect();
    let debian_keyring = keyring_files
        .iter()
        .any(|path| path.rsplit('/').next().is_some_and(|name| name.starts_with("debian-archive-")));
    if !keyring_files.is_empty() && !debian_keyring {
        return Verdict::Not(format!(
            "signed by {}, which is not a Debian archive keyring",
            keyring_files.join(" ")
        ));
    }
    let origin = fetched_origin(root, &url, suite);
    if let Some(origin) = origin.as_deref().filter(|origin| *origin != "Debian") {
        return Verdict::Not(format!("its Release file says `Origin: {origin}`"));
    }
    let with_updates = format!("{plain}-updates");
    let rank = if debian_keyring || origin.is_some() {
        0
    } else if all.iter().any(|other| other.uri == entry.uri && other.suite == with_updates) {
        1
    } else {
        2
    };
    if security.is_some() { Verdict::Security(rank, url) } else { Verdict::Archive(rank, url) }
}

/// The `Origin` of the Release file apt last fetched from this entry, when it still has it. apt names its copies
/// after the address: `mirror.example_debian_dists_trixie_InRelease`.
fn fetched_origin(root: &Path, url: &Url, suite: &str) -> Option<String> {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let address = format!("{}{port}{}/dists/{suite}", url.host_str().unwrap_or_default(), url.path());
    let name = address.replace('/', "_");
    let lists = root.join("var/lib/apt/lists");
    let text =
        ["InRelease", "Release"].iter().find_map(|kind| read(&lists.join(format!("{name}_{kind}"))).ok())?;
    text.lines().take(40).find_map(|line| line.strip_prefix("Origin:")).map(|origin| origin.trim().to_owned())
}

/// The entries of `sources.list` and `sources.list.d`, in apt's order.
fn entries(root: &Path, skipped: &mut Vec<Skipped>) -> Vec<Entry> {
    let apt = root.join("etc/apt");
    let mut entries = Vec::new();
    let mut files = vec![apt.join("sources.list")];
    files.extend(parts(&apt.join("sources.list.d"), &["list", "sources"]));
    for file in files {
        match read(&file) {
            Ok(text) if file.extension().is_some_and(|ext| ext == "sources") => {
                entries.extend(deb822(&file, &text))
            }
            Ok(text) => entries.extend(one_line(&file, &text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                skipped.push(Skipped {
                    file,
                    entry: String::new(),
                    reason: format!("cannot be read: {error}"),
                });
            }
        }
    }
    entries.into_iter().flat_map(|entry| resolve_mirror_list(root, entry)).collect()
}

/// `mirror+file:` names a file with one address a line, best first (apt-transport-mirror(1)); Debian's cloud images
/// use it. Everything else stays as it is.
fn resolve_mirror_list(root: &Path, entry: Entry) -> Vec<Entry> {
    let Some(path) = entry.uri.strip_prefix("mirror+file:") else { return vec![entry] };
    let Ok(text) = read(&root.join(path.trim_start_matches('/'))) else { return vec![entry] };
    let uris = text.lines().filter_map(|line| line.split('\t').next()).map(str::trim);
    let uris = uris.filter(|line| !line.is_empty() && !line.starts_with('#'));
    uris.map(|uri| Entry { uri: uri.to_owned(), ..entry.clone() }).collect()
}

fn apt_conf(root: &Path) -> AptConf {
    let apt = root.join("etc/apt");
    let mut files = parts(&apt.join("apt.conf.d"), &["conf", ""]);
    files.push(apt.join("apt.conf"));
    let mut conf = AptConf::default();
    for text in files.iter().filter_map(|file| read(file).ok()) {
        conf.read(&text);
    }
    conf
}

/// The files of a `.d` directory that apt would read, in its order: by name, names of letters, digits, `-`, `_`
/// and `.` only, with one of these extensions (sources.list(5), apt.conf(5)).
fn parts(directory: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let Ok(listing) = fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<PathBuf> = listing.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        !name.starts_with('.') && name.chars().all(plain) && extensions.contains(&extension) && file.is_file()
    });
    files.sort();
    files
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn brief(skipped: &[Skipped]) -> String {
    let lines: Vec<String> =
        skipped.iter().take(3).map(|s| format!("{} {}", s.entry, s.reason).trim().to_owned()).collect();
    lines.join("; ")
}

impl Entry {
    fn shown_uri(&self) -> String {
        Url::parse(&self.uri).map_or_else(|_| self.uri.clone(), |url| shown(&url))
    }
}

#[cfg(test)]
mod tests;
