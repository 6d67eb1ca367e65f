//! From what is asked for and what the archives have to a lock. Pure: the indexes are given.

use super::lock::{Layer, Lock, Package, Repository, Request, RequestedLayer, Twin};
use crate::debian::index::{self, Priority};
use crate::debian::solve::{
    BadRelation, Index, NotAWant, PackageId, SolveError, Universe, Want, Wants, solve,
};
use std::collections::BTreeMap;

/// One repository with what its indexes say.
pub struct Source {
    /// What the lock says about it.
    pub repository: Repository,
    /// `Suite` of its Release file.
    pub suite: String,
    /// Pin priority of everything in it.
    pub priority: i32,
    /// Its packages for the device.
    pub packages: Vec<index::Package>,
    /// Its packages for the machine that builds; empty where that is the device's architecture.
    pub host: Vec<index::Package>,
}

/// The machine that builds, when its architecture is not the device's.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// Debian's name of its architecture.
    pub architecture: &'a str,
    /// The package with the emulator.
    pub emulator: &'a str,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// A package is asked for in a way that is none.
    #[error("profile `{profile}`")]
    Want {
        /// Which profile.
        profile: String,
        /// What is wrong.
        #[source]
        source: NotAWant,
    },
    /// An index has a relation that Debian policy does not.
    #[error("reading the package indexes")]
    Relation(#[from] BadRelation),
    /// There is no set of packages that fulfils every relation.
    #[error("profile `{profile}`")]
    Solve {
        /// Which profile of the chain.
        profile: String,
        /// Why.
        #[source]
        source: SolveError,
    },
    /// The archive has no emulator for the build machine.
    #[error(
        "no package `{emulator}` for {architecture} in the archive: it runs the device's programs on this machine"
    )]
    NoEmulator {
        /// The package.
        emulator: String,
        /// The build machine's architecture.
        architecture: String,
    },
}

/// Chooses every package and writes down where it is. `epoch` goes before the newest date of the repositories.
pub fn resolve(
    request: &Request,
    mut sources: Vec<Source>,
    host: Option<Host<'_>>,
    epoch: Option<i64>,
) -> Result<Lock, ResolveError> {
    let tools = host.map(|host| emulator(&sources, host)).transpose()?.into_iter().collect();
    let mut twins: BTreeMap<(Box<str>, String), Twin> = BTreeMap::new();
    if let Some(host) = host {
        for (from, package) in sources.iter_mut().flat_map(|source| {
            let from = source.repository.name.clone();
            source.host.drain(..).map(move |package| (from.clone(), package))
        }) {
            if *package.architecture == *host.architecture {
                let twin = Twin {
                    arch: host.architecture.to_owned(),
                    from,
                    file: package.filename.to_string(),
                    size: package.size.0,
                    sha256: package.sha256,
                };
                twins.insert((package.name, package.version.to_string()), twin);
            }
        }
    }
    let indexes = sources.iter_mut().map(|source| Index {
        suite: source.suite.clone(),
        codename: source.repository.codename.clone(),
        priority: source.priority,
        packages: std::mem::take(&mut source.packages),
    });
    let universe = Universe::new(&request.architecture, indexes.collect())?;
    let repositories: Vec<Repository> = sources.into_iter().map(|source| source.repository).collect();
    let locked = |id: PackageId| {
        let package = universe.package(id);
        let home = universe.index_positions(id).next().unwrap_or(0);
        Package {
            name: package.name.to_string(),
            version: package.version.to_string(),
            arch: package.architecture.to_string(),
            from: repositories[home].name.clone(),
            file: package.filename.to_string(),
            size: package.size.0,
            sha256: package.sha256,
            twin: match &*package.architecture {
                "all" => None,
                _ => twins.get(&(package.name.clone(), package.version.to_string())).cloned(),
            },
        }
    };

    let mut layers: Vec<Layer> = Vec::new();
    let mut chosen: Vec<PackageId> = Vec::new();
    let mut requested = Vec::new();
    for RequestedLayer { profile, wants: asked, apart } in &request.layers {
        requested.extend(asked.iter().cloned());
        let on_parent = wants(profile, asked, chosen.clone())?;
        let (solution, apart) = match solve(&universe, &on_parent) {
            Ok(solution) => (solution, apart.clone()),
            // On its own it may still work: then the whole chain up to here is configured as one layer.
            Err(SolveError::Parent { changes }) => {
                let all = wants(profile, &requested, Vec::new())?;
                let solution = solve(&universe, &all).map_err(|source| failed(profile, source))?;
                let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
                layers.clear();
                chosen.clear();
                (solution, changes.join("; "))
            }
            Err(source) => return Err(failed(profile, source)),
        };
        let new: Vec<PackageId> =
            solution.packages.iter().map(|(id, _)| *id).filter(|id| !chosen.contains(id)).collect();
        let wants = if chosen.is_empty() { requested.clone() } else { asked.clone() };
        let packages = new.iter().map(|id| locked(*id)).collect();
        layers.push(Layer { profile: profile.clone(), wants, apart, packages });
        chosen.extend(new);
    }
    let newest = repositories.iter().map(|repository| repository.date).max().unwrap_or(0);
    Ok(Lock {
        profile: request.profile.clone(),
        epoch: epoch.unwrap_or(newest),
        architecture: request.architecture.clone(),
        repositories,
        layers,
        tools,
    })
}

fn failed(profile: &str, source: SolveError) -> ResolveError {
    ResolveError::Solve { profile: profile.to_owned(), source }
}

fn wants(profile: &str, asked: &[String], fixed: Vec<PackageId>) -> Result<Wants, ResolveError> {
    let mut wants = Wants { fixed, ..Wants::default() };
    for text in asked {
        match text.as_str() {
            "?essential" => wants.essential = true,
            "?priority(required)" => wants.priorities.push(Priority::Required),
            "?priority(important)" => wants.priorities.push(Priority::Important),
            "?priority(standard)" => wants.priorities.push(Priority::Standard),
            text => {
                let want = text.parse::<Want>();
                let named = |source| ResolveError::Want { profile: profile.to_owned(), source };
                wants.packages.push(want.map_err(named)?);
            }
        }
    }
    Ok(wants)
}

/// The newest version of the emulator. It is linked statically (Debian builds it so since 2024), so it comes alone.
fn emulator(sources: &[Source], host: Host<'_>) -> Result<Package, ResolveError> {
    let candidates = sources.iter().flat_map(|source| {
        let fits = |package: &&index::Package| {
            *package.name == *host.emulator && *package.architecture == *host.architecture
        };
        // What backports has was not asked for.
        let considered = source.priority >= 500;
        source.host.iter().filter(fits).filter(move |_| considered).map(move |package| (package, source))
    });
    let (package, source) =
        candidates.max_by(|a, b| a.0.version.cmp(&b.0.version)).ok_or_else(|| ResolveError::NoEmulator {
            emulator: host.emulator.to_owned(),
            architecture: host.architecture.to_owned(),
        })?;
    Ok(Package {
        name: package.name.to_string(),
        version: package.version.to_string(),
        arch: package.architecture.to_string(),
        from: source.repository.name.clone(),
        file: package.filename.to_string(),
        size: package.size.0,
        sha256: package.sha256,
        twin: None,
    })
}
