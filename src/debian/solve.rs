//! Which packages a system gets: what is wanted, with everything that needs, chosen as apt chooses.
//!
//! For any set of wants the answer is that of `apt-get -s install` on the same indexes and an empty system. apt does not
//! search, it walks ([`apt`]), so we walk the same way. Only where that walk gets stuck do we ask a SAT solver ([`sat`]):
//! it finds a solution if there is one, and when there is none it knows why.

mod apt;
mod explain;
mod sat;
mod universe;
mod want;

pub use explain::{ParentChange, SolveError, WantError};
pub use universe::{BadRelation, Index, Kind, Origin, PackageId, Universe};
pub use want::{NotAWant, Pin, PinTo, Want};

use super::index::Priority;
use std::collections::BTreeMap;
use universe::NameId;

/// What a system should have.
#[derive(Debug, Clone, Default)]
pub struct Wants {
    /// What is asked for by name.
    pub packages: Vec<Want>,
    /// Everything of these priorities too.
    pub priorities: Vec<Priority>,
    /// Everything marked `Essential` too.
    pub essential: bool,
    /// What the parent layer chose. These stay, at these versions.
    pub fixed: Vec<PackageId>,
    /// Names that must not be there.
    pub remove: Vec<String>,
    /// Install recommended packages as well, where possible.
    pub recommends: bool,
    /// Priorities of single packages; the first that applies to a version counts (apt_preferences(5)).
    pub pins: Vec<Pin>,
}

/// Why a package was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It was asked for by name.
    Wanted,
    /// It is essential.
    Essential,
    /// It has one of the priorities that were asked for.
    Priority(Priority),
    /// The parent layer has it.
    Fixed,
    /// A chosen package has a relation that it fulfils.
    Needed {
        /// The package with the relation; the first one, in breadth, from what was asked for.
        by: PackageId,
        /// Which relation.
        kind: Kind,
    },
}

/// An exact set of packages in which every relation is fulfilled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Solution {
    /// The packages and why they are there, sorted by name.
    pub packages: Vec<(PackageId, Why)>,
    /// apt's walk got stuck, and the set was found by searching. apt itself would have refused the wants.
    pub searched: bool,
}

/// Chooses the packages of a system.
pub fn solve(universe: &Universe, wants: &Wants) -> Result<Solution, SolveError> {
    let candidates = want::candidates(universe, wants);
    let roots = want::roots(universe, wants, &candidates)?;
    let wanted: Vec<PackageId> = roots.iter().map(|&(id, _)| id).collect();
    let switched = want::switched(universe, wants, &candidates);

    let outcome = on_a_deep_stack(|| {
        let mut marking = apt::Marking::new(universe, &candidates, wants.recommends);
        for &id in &wants.fixed {
            marking.set_current(id);
        }
        for name in want::removed(universe, wants) {
            marking.hold(name);
        }
        marking.install(&wanted, &switched)
    });
    if outcome.broken.is_empty() && outcome.lost.is_empty() {
        return Ok(Solution { packages: reasons(universe, wants, &roots, &outcome.chosen), searched: false });
    }
    let chosen = sat::search(universe, wants, &candidates, &wanted)?;
    Ok(Solution { packages: reasons(universe, wants, &roots, &chosen), searched: true })
}

/// The walk goes as deep as chains of dependencies are long.
fn on_a_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    const STACK: usize = 64 << 20;
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(STACK);
        match builder.spawn_scoped(scope, work).map(|thread| thread.join()) {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            // The address space of 64 MiB is only reserved, never filled; without it nothing else would work either.
            Err(error) => panic!("cannot start a thread with a stack of 64 MiB: {error}"),
        }
    })
}

/// Says for each chosen package why it is there: what was asked for first, then, in breadth, what that needs.
fn reasons(
    universe: &Universe,
    wants: &Wants,
    roots: &[(PackageId, Why)],
    chosen: &[PackageId],
) -> Vec<(PackageId, Why)> {
    let by_name: BTreeMap<NameId, PackageId> = chosen.iter().map(|&id| (universe.name_of(id), id)).collect();
    let mut why: BTreeMap<PackageId, Why> = BTreeMap::new();
    let mut queue = std::collections::VecDeque::new();
    for (id, reason) in roots.iter().copied().chain(wants.fixed.iter().map(|&id| (id, Why::Fixed))) {
        if by_name.get(&universe.name_of(id)) == Some(&id) && !why.contains_key(&id) {
            why.insert(id, reason);
            queue.push_back(id);
        }
    }
    while let Some(by) = queue.pop_front() {
        for dep in universe.deps(by) {
            if !dep.kind.is_followed(wants.recommends) {
                continue;
            }
            for id in universe.targets(by, dep) {
                if by_name.get(&universe.name_of(id)) == Some(&id) && !why.contains_key(&id) {
                    why.insert(id, Why::Needed { by, kind: dep.kind });
                    queue.push_back(id);
                }
            }
        }
    }
    // What the walk keeps for a weaker reason (a suggestion of something chosen) has the weakest one.
    let mut packages: Vec<_> =
        chosen.iter().map(|&id| (id, why.get(&id).copied().unwrap_or(Why::Wanted))).collect();
    packages.sort_by(|a, b| universe.package(a.0).name.cmp(&universe.package(b.0).name));
    packages
}

#[cfg(test)]
mod tests;
