//! From a profile to what its lock must answer: which suites, which packages, layer by layer.

use super::lock::{Request, RequestedLayer, RequestedRepository};
use crate::profile::{Priority, Profile};

/// Debian's name of the architecture of every board hardtack knows.
pub const ARCHITECTURE: &str = "arm64";

/// What a profile asks for. `mirror` is the command line's; it goes before the profile's own.
pub fn request(profile: &Profile, mirror: Option<&str>) -> Request {
    let base = &profile.base;
    let suite = base.suite.as_str();
    let components: Vec<String> = base.components.iter().map(|one| one.to_string()).collect();
    let url = mirror
        .or(base.mirror.as_ref().map(|url| url.as_str()))
        .map(|url| url.trim_end_matches('/').to_owned());
    let debian = |name: &str, suite: String| RequestedRepository {
        name: name.to_owned(),
        url: url.clone(),
        suite,
        components: components.clone(),
    };
    let mut repositories = vec![debian("debian", suite.to_owned())];
    if *base.updates {
        repositories.push(debian("debian-updates", format!("{suite}-updates")));
    }
    if *base.security {
        // Its address is not the archive's: it is derived where addresses are, see `pipeline::indexes`.
        repositories.push(RequestedRepository { url: None, ..debian(SECURITY, format!("{suite}-security")) });
    }
    if *base.backports {
        repositories.push(debian("debian-backports", base.backports_suite()));
    }
    repositories.extend(profile.sources.iter().map(|source| RequestedRepository {
        name: source.name.to_string(),
        url: Some(source.url.trim_end_matches('/').to_owned()),
        suite: source.suite.to_string(),
        components: source.components.iter().map(|one| one.to_string()).collect(),
    }));
    let mut layers: Vec<RequestedLayer> = profile
        .package_layers()
        .into_iter()
        .map(|layer| RequestedLayer {
            profile: layer.profile,
            wants: layer.wants,
            apart: layer.apart.unwrap_or_default(),
        })
        .collect();
    if let Some(RequestedLayer { wants, .. }) = layers.first_mut() {
        // Written as apt-patterns(7) has them.
        wants.push("?essential".into());
        wants.extend(priorities(*base.priority).iter().map(|word| format!("?priority({word})")));
        wants.sort();
    }
    Request { profile: profile.name.clone(), architecture: ARCHITECTURE.to_owned(), repositories, layers }
}

/// The name of the repository with Debian's security updates.
pub const SECURITY: &str = "debian-security";

fn priorities(priority: Priority) -> &'static [&'static str] {
    match priority {
        Priority::Essential => &[],
        Priority::Required => &["required"],
        Priority::Important => &["required", "important"],
        Priority::Standard => &["required", "important", "standard"],
    }
}
