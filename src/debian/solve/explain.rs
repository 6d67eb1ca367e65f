//! Why there is no solution, in words a Debian user understands.

use super::universe::{Dep, Kind, NameId, PackageId, Universe};
use super::{Want, Wants};
use std::collections::BTreeSet;
use std::fmt;

/// Lines of reasons that are shown; the first ones are the nearest to what was asked for.
const SHOWN: usize = 24;

/// No set of packages fulfils what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the message shows")]
pub enum SolveError {
    /// Something asked for cannot be had, whatever else is chosen.
    #[error("cannot choose packages:{}", Lines(errors))]
    Wants { errors: Vec<WantError> },
    /// A package marked essential was to be removed.
    #[error("cannot leave out `{name}`: it is essential, every Debian system has it")]
    Essential { name: String },
    /// What was asked for contradicts itself.
    #[error("the packages asked for cannot be installed together:{}", Lines(reasons))]
    Unsolvable { reasons: Vec<String> },
    /// It would work if the parent layer were not kept as it is.
    #[error("the packages asked for do not fit on top of the parent's:{}", Lines(changes))]
    Parent { changes: Vec<ParentChange> },
}

/// Something asked for that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the message shows")]
pub enum WantError {
    /// Nobody has heard of it.
    #[error("there is no package `{name}`{}", did_you_mean(suggestions))]
    Unknown { name: String, suggestions: Vec<String> },
    /// Several packages provide it, or none that may be installed.
    #[error("`{name}` is a virtual package; ask for one that provides it: {}", or_none(providers))]
    Virtual { name: String, providers: Vec<String> },
    /// It is known, but pins forbid every version.
    #[error("`{name}` has no version that its priority allows to install; there is {}", or_none(known))]
    NoCandidate { name: String, known: Vec<String> },
    /// The version asked for does not exist.
    #[error("`{want}`: there is no such version; there is {}", or_none(known))]
    Version { want: String, known: Vec<String> },
    /// The suite asked for does not have it.
    #[error("`{want}`: the package is not in that suite; there is {}", or_none(known))]
    Suite { want: String, known: Vec<String> },
    /// It was asked for in another architecture.
    #[error("`{want}`: this is a system for `{architecture}` only")]
    Architecture { want: String, architecture: String },
}

/// A package of the parent layer that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentChange {
    /// The parent's package.
    pub package: PackageId,
    /// What would be there in its place; `None` when it would have to go.
    pub replaced_by: Option<PackageId>,
    /// The message.
    text: String,
}

impl fmt::Display for ParentChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Several messages below each other; a single one stays on the line.
struct Lines<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Lines<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0 {
            return write!(f, " {only}");
        }
        for line in self.0.iter().take(SHOWN) {
            write!(f, "\n  - {line}")?;
        }
        match self.0.len().checked_sub(SHOWN) {
            Some(more @ 1..) => write!(f, "\n  - and {more} more"),
            _ => Ok(()),
        }
    }
}

fn or_none(list: &[String]) -> String {
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}

fn did_you_mean(suggestions: &[String]) -> String {
    match suggestions {
        [] => String::new(),
        [one] => format!("; did you mean `{one}`?"),
        several => format!("; did you mean one of `{}`?", several.join("`, `")),
    }
}

/// The versions of a name with the suites that have them: `1.0 (trixie)`.
pub(super) fn known_versions(universe: &Universe, name: NameId) -> Vec<String> {
    universe.name(name).versions.iter().map(|&id| with_suites(universe, id)).collect()
}

fn with_suites(universe: &Universe, id: PackageId) -> String {
    let suites: BTreeSet<&str> = universe.origins(id).map(|origin| origin.codename.as_str()).collect();
    let suites: Vec<&str> = suites.into_iter().collect();
    format!("{} ({})", universe.package(id).version, suites.join(", "))
}

/// Names that somebody may have meant, the likeliest first.
pub(super) fn unknown(universe: &Universe, name: &str) -> WantError {
    let most = (name.chars().count() / 4).clamp(1, 3);
    let mut near: Vec<(usize, &str)> = universe
        .names()
        .iter()
        .filter(|known| !known.versions.is_empty())
        .filter_map(|known| {
            let longer = known.text.len() > name.len() && name.len() >= 4 && known.text.starts_with(name);
            let distance = distance(name, &known.text, most).or(longer.then_some(most + 1))?;
            Some((distance, &*known.text))
        })
        .collect();
    near.sort();
    WantError::Unknown {
        name: name.to_owned(),
        suggestions: near.iter().take(3).map(|&(_, name)| name.to_owned()).collect(),
    }
}

/// How many characters to insert, delete, replace or swap to get from one name to the other, when at most `most`.
fn distance(one: &str, two: &str, most: usize) -> Option<usize> {
    let (one, two) = (one.as_bytes(), two.as_bytes());
    if one.len().abs_diff(two.len()) > most {
        return None;
    }
    // Three rows of the table: the one before the last is needed for swapped neighbours.
    let mut rows = [vec![0; two.len() + 1], (0..=two.len()).collect::<Vec<usize>>(), vec![0; two.len() + 1]];
    for (i, a) in one.iter().enumerate() {
        rows[2][0] = i + 1;
        for (j, b) in two.iter().enumerate() {
            let mut best = (rows[1][j] + usize::from(a != b)).min(rows[1][j + 1] + 1).min(rows[2][j] + 1);
            if i > 0 && j > 0 && *a == two[j - 1] && one[i - 1] == *b {
                best = best.min(rows[0][j - 1] + 1);
            }
            rows[2][j + 1] = best;
        }
        rows.rotate_left(1);
    }
    Some(rows[1][two.len()]).filter(|&distance| distance <= most)
}

pub(super) fn asked_for(universe: &Universe, wants: &Wants, id: PackageId) -> String {
    let package = universe.package(id);
    if wants.fixed.contains(&id) {
        format!("{package} is part of the parent")
    } else if wants.packages.iter().any(|want: &Want| *want.name == *package.name) {
        format!("{package} was asked for")
    } else {
        format!("{package} was asked for because of its priority")
    }
}

pub(super) fn unwanted(universe: &Universe, id: PackageId) -> String {
    format!("`{}` was to be left out", universe.package(id).name)
}

pub(super) fn only_one(universe: &Universe, one: PackageId, two: PackageId) -> String {
    format!(
        "only one version of `{}` can be installed, not {} and {}",
        universe.package(one).name,
        universe.package(one).version,
        universe.package(two).version
    )
}

/// `a=1 depends on b (>= 2)`, and when nothing fulfils it: what there is.
pub(super) fn needs(
    universe: &Universe,
    owner: PackageId,
    group: &[Dep],
    missing: bool,
    allowed: impl Fn(PackageId) -> bool,
) -> String {
    let verb = if group[0].kind == Kind::PreDepends { "pre-depends on" } else { "depends on" };
    let alternatives: Vec<_> = group.iter().map(|dep| relation(universe, owner, dep)).collect();
    let mut text = format!("{} {verb} {}", universe.package(owner), alternatives.join(" | "));
    if !missing {
        return text;
    }
    let mut notes = Vec::new();
    for dep in group {
        let fitting: Vec<PackageId> = universe.targets(owner, dep).filter(|&id| !allowed(id)).collect();
        let known = universe.name(dep.target);
        notes.push(if let Some(&id) = fitting.first() {
            let package = universe.package(id);
            let suite = universe.origins(id).next().map_or("", |origin| &origin.codename);
            format!(
                "only {} {} would do, which is not the candidate: ask for `{}/{suite}`",
                package.name,
                with_suites(universe, id),
                package.name
            )
        } else if !known.versions.is_empty() {
            format!("there is {} {}", known.text, known_versions(universe, dep.target).join(", "))
        } else if !known.providers.is_empty() {
            let owners: BTreeSet<String> =
                known.providers.iter().map(|provider| universe.package(provider.owner).to_string()).collect();
            format!(
                "{} is provided by {} without that version",
                known.text,
                owners.into_iter().collect::<Vec<_>>().join(", ")
            )
        } else {
            format!("there is no package {}", known.text)
        });
    }
    text.push_str("; but ");
    text.push_str(&notes.join("; "));
    text
}

/// `a=1 conflicts with b (<< 2), and b=1 is needed`.
pub(super) fn conflicts(universe: &Universe, owner: PackageId, dep: &Dep, hit: PackageId) -> String {
    let verb = if dep.kind == Kind::Breaks { "breaks" } else { "conflicts with" };
    let hit = universe.package(hit);
    let relation = relation(universe, owner, dep);
    if *hit.name == *universe.name(dep.target).text {
        format!("{} {verb} {relation}, and that is {hit}", universe.package(owner))
    } else {
        format!("{} {verb} {relation}, which {hit} provides", universe.package(owner))
    }
}

/// A relation as it was written.
fn relation(universe: &Universe, owner: PackageId, dep: &Dep) -> String {
    let name = &universe.name(dep.target).text;
    match universe.condition(owner, dep) {
        None => name.to_string(),
        Some((operator, version)) => format!("{name} ({operator} {version})"),
    }
}

/// Why a package of the parent is not in a set that was found without it.
pub(super) fn parent_change(universe: &Universe, id: PackageId, chosen: &[PackageId]) -> ParentChange {
    let name = universe.name_of(id);
    let replaced_by = chosen.iter().copied().find(|&other| universe.name_of(other) == name);
    let mut text = match replaced_by {
        None => format!("{} would have to be removed", universe.package(id)),
        Some(other) => format!(
            "{} would have to be replaced by {}",
            universe.package(id),
            universe.package(other).version
        ),
    };
    let reason = chosen.iter().find_map(|&owner| {
        universe.groups(owner).find_map(|group| {
            let hits = |dep: &Dep| universe.targets(owner, dep).any(|target| target == id);
            let first = &group[0];
            if first.kind.is_negative() {
                return hits(first).then(|| conflicts(universe, owner, first, id));
            }
            // A relation to the very name that this version does not fulfil and the other one does.
            let other = replaced_by?;
            let meant = first.kind.is_critical()
                && !group.iter().any(hits)
                && group.iter().any(|dep| universe.targets(owner, dep).any(|target| target == other));
            meant.then(|| needs(universe, owner, group, false, |_| true))
        })
    });
    if let Some(reason) = reason {
        text = format!("{text}: {reason}");
    }
    ParentChange { package: id, replaced_by, text }
}
