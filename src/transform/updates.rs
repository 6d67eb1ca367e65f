//! Where the device gets its packages: apt's sources, their keys and pins, and which of them update by themselves.

use super::system::TextFile;
use crate::plan::lock::Repository;
use crate::profile::{AptSource, Updates};

/// Where Debian's own keys are on a device: package `debian-archive-keyring`.
const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.pgp";

/// The deb822 sources (sources.list(5)) for every locked repository, each with the key that signs it; for those beside
/// Debian the key itself, a pin that lets in only the named packages, and their origin among those that update.
pub fn apt_files(repositories: &[Repository], extra: &[AptSource], updates: &Updates) -> Vec<TextFile> {
    let mut debian = String::from(
        "# Reason: the suites the image was built from; hardtack writes this file from its lock.\n",
    );
    let mut files = Vec::new();
    let mut origins = Vec::new();
    for repository in repositories {
        let source = extra.iter().find(|source| source.name.as_str() == repository.name);
        let key = match source {
            None => DEBIAN_KEYRING.to_owned(),
            Some(source) => format!("/etc/apt/keyrings/{}.asc", source.name.as_str()),
        };
        let stanza = format!(
            "\nTypes: deb\nURIs: {}\nSuites: {}\nComponents: {}\nSigned-By: {key}\n",
            repository.url,
            repository.suite,
            repository.components.join(" ")
        );
        let Some(source) = source else {
            debian.push_str(&stanza);
            continue;
        };
        let name = source.name.as_str();
        files.push(TextFile::new(
            format!("etc/apt/sources.list.d/{name}.sources"),
            format!(
                "# Reason: the profile names it, for the packages in /etc/apt/preferences.d/{name}.\n{stanza}"
            ),
        ));
        files.push(TextFile::new(
            format!("etc/apt/keyrings/{name}.asc"),
            String::from_utf8_lossy(&source.key),
        ));
        files.push(TextFile::new(format!("etc/apt/preferences.d/{name}"), pins(source, repository)));
        origins.push(format!("  \"origin={},label={}\";\n", repository.origin, repository.label));
    }
    files.insert(0, TextFile::new("etc/apt/sources.list.d/debian.sources", debian));
    if !origins.is_empty() {
        let text = format!(
            "// Reason: what the profile's own sources bring updates itself too.\nUnattended-Upgrade::Origins-Pattern {{\n{}}};\n",
            origins.concat()
        );
        files.push(TextFile::new("etc/apt/apt.conf.d/53hardtack-origins", text));
    }
    if !*updates.reboot {
        let text = "// Reason: the profile says that the device does not restart by itself.\n\
                    Unattended-Upgrade::Automatic-Reboot \"false\";\n";
        files.push(TextFile::new("etc/apt/apt.conf.d/54hardtack-reboot", text));
    }
    files
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
