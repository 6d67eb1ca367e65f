//! Where the device gets its packages: apt's sources, their keys and pins, and which of them update by themselves.

use super::system::TextFile;
use crate::plan::lock::Repository;
use crate::profile::{AptSource, Updates};

/// Where Debian's own keys are on a device: package `debian-archive-keyring`.
const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.pgp";

/// The deb822 sources (sources.list(5)) for every locked repository, each with the key that signs it; for those beside
/// Debian the key itself, a pin that lets in only the named packages, and their origin among those that update.
pub fn apt_files(repositories: &[Repository], extra: &[AptSource], updates: &Updates) -> Vec<TextFile> {
    let mut debian = String::from("# Reason: the archive this image was built from.\n");
    let mut files = Vec::new();
    let mut patterns = String::new();
    let own = |repository: &&Repository| extra.iter().all(|source| source.name.as_str() != repository.name);
    // Suites of one archive share a stanza, as Debian's installer writes them.
    let mut archives: Vec<(&Repository, Vec<&str>)> = Vec::new();
    for repository in repositories.iter().filter(own) {
        let same = |one: &Repository| one.url == repository.url && one.components == repository.components;
        match archives.iter_mut().find(|(one, _)| same(one)) {
            Some((_, suites)) => suites.push(&repository.suite),
            None => archives.push((repository, vec![&repository.suite])),
        }
    }
    for (repository, suites) in archives {
        debian.push_str(&stanza(repository, &suites.join(" "), DEBIAN_KEYRING));
        debian.push('\n');
    }
    files.push(TextFile::new("etc/apt/sources.list.d/debian.sources", debian.trim_end().to_owned() + "\n"));
    for source in extra {
        let name = source.name.as_str();
        let Some(repository) = repositories.iter().find(|repository| repository.name == name) else {
            continue;
        };
        let key = format!("/etc/apt/keyrings/{name}.asc");
        let why = format!(
            "# Reason: the profile names it, for the packages in preferences.d/50-hardtack-{name}.\n"
        );
        let text = why + &stanza(repository, &repository.suite, &key);
        files.push(TextFile::new(format!("etc/apt/sources.list.d/{name}.sources"), text));
        files.push(TextFile::new(&key[1..], String::from_utf8_lossy(&source.key)));
        files.push(TextFile::new(
            format!("etc/apt/preferences.d/50-hardtack-{name}"),
            pins(source, repository),
        ));
        patterns.push_str(&format!("  \"origin={},label={}\";\n", repository.origin, repository.label));
    }
    let mut settings = String::new();
    if !patterns.is_empty() {
        settings.push_str(&format!("Unattended-Upgrade::Origins-Pattern {{\n{patterns}}};\n"));
    }
    if !*updates.reboot {
        settings.push_str("Unattended-Upgrade::Automatic-Reboot \"false\";\n");
    }
    if !settings.is_empty() {
        let why = "// Reason: updates from the sources this profile adds, and whether the device may restart for one.\n";
        files.push(TextFile::new("etc/apt/apt.conf.d/53hardtack-origins", why.to_owned() + &settings));
    }
    files
}

fn stanza(repository: &Repository, suites: &str, key: &str) -> String {
    format!(
        "Types: deb\nURIs: {}\nSuites: {suites}\nComponents: {}\nSigned-By: {key}\n",
        repository.url,
        repository.components.join(" ")
    )
}

/// apt_preferences(5): everything from the source's host is refused, the named packages are let in as usual.
fn pins(source: &AptSource, repository: &Repository) -> String {
    let names: Vec<&str> = source.packages.iter().map(|name| name.as_str()).collect();
    let release = format!("release o={},l={}", repository.origin, repository.label);
    format!(
        "# Reason: this source may bring the packages the profile names and nothing else.\n\
         Package: *\nPin: {release}\nPin-Priority: -1\n\nPackage: {}\nPin: {release}\nPin-Priority: 500\n",
        names.join(" ")
    )
}
