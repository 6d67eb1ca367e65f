//! From what is asked for to exact packages: candidates by pin priority, and the wants of a [`Wants`].

use super::explain::{self, SolveError, WantError};
use super::universe::{NameId, PackageId, Universe};
use super::{Wants, Why};
use crate::debian::relation;
use std::fmt;
use std::str::FromStr;

/// A package asked for, as apt writes it: `name`, `name:arch`, `name=version` or `name/suite`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The package; a virtual one is good when only one package provides it.
    pub name: String,
    /// The architecture, where it is said.
    pub architecture: Option<String>,
    /// Exactly this version; a `*` at its end stands for anything.
    pub version: Option<String>,
    /// From this suite, by suite or codename, whatever its priority.
    pub suite: Option<String>,
}

/// The text is not a package to ask for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a package to ask for; expected `name`, `name=version` or `name/suite`")]
pub struct NotAWant(String);

impl FromStr for Want {
    type Err = NotAWant;

    fn from_str(text: &str) -> Result<Self, NotAWant> {
        let end = text.find(['=', '/']).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let (name, architecture) = match name.split_once(':') {
            None => (name, None),
            Some((name, architecture)) => (name, Some(architecture.to_owned())),
        };
        let good = relation::is_package_name(name)
            && architecture.as_deref().is_none_or(relation::is_architecture)
            && rest.len() != 1
            && !rest.bytes().any(|byte| byte.is_ascii_whitespace());
        if !good {
            return Err(NotAWant(text.chars().take(120).collect()));
        }
        Ok(Self {
            name: name.to_owned(),
            architecture,
            version: rest.strip_prefix('=').map(str::to_owned),
            suite: rest.strip_prefix('/').map(str::to_owned),
        })
    }
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (mark, part) in [(':', &self.architecture), ('=', &self.version), ('/', &self.suite)] {
            if let Some(part) = part {
                write!(f, "{mark}{part}")?;
            }
        }
        Ok(())
    }
}

/// A priority for some packages (apt_preferences(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The package; a `*` at its end stands for anything.
    pub package: String,
    /// Which of its versions.
    pub to: PinTo,
    /// The priority: above 500 it wins over the other suites, below 0 it is never installed.
    pub priority: i32,
}

/// What a [`Pin`] is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinTo {
    /// Versions from this suite, by suite or codename.
    Suite(String),
    /// This version; a `*` at its end stands for anything.
    Version(String),
}

fn matches(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => text.starts_with(beginning),
        None => pattern == text,
    }
}

/// The candidate of every name: the version with the highest priority, and of those the highest one.
pub(super) fn candidates(universe: &Universe, wants: &Wants) -> Vec<Option<PackageId>> {
    let candidate = |name: &super::universe::Name| {
        let mut best = None;
        for &id in &name.versions {
            let priority = priority(universe, &wants.pins, id);
            // Zero says "not considered", and what is below it must never be installed.
            if priority > best.map_or(0, |(best, _)| best) {
                best = Some((priority, id));
            }
        }
        best.map(|(_, id)| id)
    };
    universe.names().iter().map(candidate).collect()
}

/// The pin priority of a version.
pub(super) fn priority(universe: &Universe, pins: &[Pin], id: PackageId) -> i32 {
    let package = universe.package(id);
    let pin = pins.iter().find(|pin| {
        matches(&pin.package, &package.name)
            && match &pin.to {
                PinTo::Suite(suite) => universe.origins(id).any(|origin| origin.is(suite)),
                PinTo::Version(version) => matches(version, package.version.as_str()),
            }
    });
    match pin {
        Some(pin) => pin.priority,
        None => universe.origins(id).map(|origin| origin.priority).max().unwrap_or(0),
    }
}

/// What is asked for, as exact packages with the reason, each once.
pub(super) fn roots(
    universe: &Universe,
    wants: &Wants,
    candidates: &[Option<PackageId>],
) -> Result<Vec<(PackageId, Why)>, SolveError> {
    let removed = removed(universe, wants);
    for &name in &removed {
        let known = universe.name(name);
        if known.versions.iter().any(|&id| universe.package(id).essential) {
            return Err(SolveError::Essential { name: known.text.to_string() });
        }
    }
    let mut named: Vec<(PackageId, Why)> = Vec::new();
    let mut errors = Vec::new();
    for want in &wants.packages {
        match select(universe, wants, candidates, want) {
            Ok(id) => named.push((id, Why::Wanted)),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(SolveError::Wants { errors });
    }
    // The base comes first, as when a system is made first and filled then.
    let mut roots: Vec<(PackageId, Why)> = Vec::new();
    for &id in candidates.iter().flatten() {
        let package = universe.package(id);
        let why = if wants.essential && package.essential {
            Why::Essential
        } else if wants.priorities.contains(&package.priority) {
            Why::Priority(package.priority)
        } else {
            continue;
        };
        if !removed.contains(&universe.name_of(id)) {
            roots.push((fixed(universe, wants, universe.name_of(id)).unwrap_or(id), why));
        }
    }
    roots.append(&mut named);
    // A name asked for twice is asked for once; with two versions, the last one counts, as with apt.
    let mut seen = std::collections::BTreeMap::new();
    for &(id, why) in &roots {
        let entry = seen.entry(universe.name_of(id)).or_insert((id, why));
        if why == Why::Wanted {
            *entry = (id, why);
        }
    }
    let mut unique = Vec::with_capacity(seen.len());
    for (id, _) in roots {
        if let Some(entry) = seen.remove(&universe.name_of(id)) {
            unique.push(entry);
        }
    }
    Ok(unique)
}

/// The packages that were asked for from a suite.
pub(super) fn switched<'w>(
    universe: &Universe,
    wants: &'w Wants,
    candidates: &[Option<PackageId>],
) -> Vec<(PackageId, &'w str)> {
    let select =
        |want: &'w Want| Some((select(universe, wants, candidates, want).ok()?, want.suite.as_deref()?));
    wants.packages.iter().filter_map(select).collect()
}

/// The names that must not be there.
pub(super) fn removed(universe: &Universe, wants: &Wants) -> Vec<NameId> {
    wants.remove.iter().filter_map(|name| universe.number(name)).collect()
}

fn fixed(universe: &Universe, wants: &Wants, name: NameId) -> Option<PackageId> {
    wants.fixed.iter().copied().find(|&id| universe.name_of(id) == name)
}

/// The exact package a want means.
fn select(
    universe: &Universe,
    wants: &Wants,
    candidates: &[Option<PackageId>],
    want: &Want,
) -> Result<PackageId, WantError> {
    if let Some(architecture) = &want.architecture
        && architecture != universe.architecture()
        && !["all", "any", "native"].contains(&architecture.as_str())
    {
        return Err(WantError::Architecture {
            want: want.to_string(),
            architecture: universe.architecture().to_owned(),
        });
    }
    let Some(name) = universe.number(&want.name) else {
        return Err(explain::unknown(universe, &want.name));
    };
    let versions = &universe.name(name).versions;
    if versions.is_empty() {
        return single_provider(universe, candidates, name, want);
    }
    let known = || explain::known_versions(universe, name);
    match (&want.version, &want.suite) {
        (Some(version), _) => versions
            .iter()
            .copied()
            .find(|&id| matches(version, universe.package(id).version.as_str()))
            .ok_or_else(|| WantError::Version { want: want.to_string(), known: known() }),
        (None, Some(suite)) => versions
            .iter()
            .copied()
            .find(|&id| universe.origins(id).any(|origin| origin.is(suite)))
            .ok_or_else(|| WantError::Suite { want: want.to_string(), known: known() }),
        (None, None) => fixed(universe, wants, name)
            .or(candidates[name.0 as usize])
            .ok_or_else(|| WantError::NoCandidate { name: want.name.clone(), known: known() }),
    }
}

/// The only candidate that provides a virtual package.
fn single_provider(
    universe: &Universe,
    candidates: &[Option<PackageId>],
    name: NameId,
    want: &Want,
) -> Result<PackageId, WantError> {
    let mut providers: Vec<PackageId> = universe
        .name(name)
        .providers
        .iter()
        .filter(|provider| match (&want.version, &provider.version) {
            (None, _) => true,
            (Some(wanted), provided) => provided.as_deref().is_some_and(|provided| matches(wanted, provided)),
        })
        .map(|provider| provider.owner)
        .filter(|&id| match &want.suite {
            None => candidates[universe.name_of(id).0 as usize] == Some(id),
            Some(suite) => universe.origins(id).any(|origin| origin.is(suite)),
        })
        .collect();
    providers.sort_by_key(|&id| universe.name_of(id));
    providers.dedup_by_key(|id| universe.name_of(*id));
    match providers[..] {
        [only] => Ok(only),
        [] if universe.name(name).providers.is_empty() => Err(explain::unknown(universe, &want.name)),
        _ => {
            let mut providers: Vec<_> =
                providers.iter().map(|&id| universe.package(id).to_string()).collect();
            providers.sort();
            Err(WantError::Virtual { name: want.name.clone(), providers })
        }
    }
}
