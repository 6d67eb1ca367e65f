//! The same choice as a satisfiability problem, for when apt's walk gets stuck.
//!
//! One solvable a package; a relation is "one of these", a conflict is "none of these". Only candidates may be chosen, and
//! versions from a suite that somebody asked for by name: what apt's pins forbid is not a solution.

use super::explain::{self, ParentChange, SolveError};
use super::universe::{Dep, Kind, NameId, PackageId, Universe};
use super::{Wants, want};
use resolvo::{
    Candidates, Condition, ConditionId, ConditionalRequirement, Dependencies, DependencyProvider, Interner,
    KnownDependencies, Problem, Requirement, SolvableId, Solver, SolverCache, StringId,
    UnsolvableOrCancelled, VersionSetId, VersionSetUnionId,
};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;

/// Rounds in which recommended packages are added to what is wanted.
const MAX_ROUNDS: usize = 16;

/// Searches for a set that has everything `wanted`, and all that is fixed at its version.
pub(super) fn search(
    universe: &Universe,
    wants: &Wants,
    candidates: &[Option<PackageId>],
    wanted: &[PackageId],
) -> Result<Vec<PackageId>, SolveError> {
    let question = Question { universe, wants, candidates, wanted };
    let reasons = match question.ask(Parent::Kept) {
        Ok(chosen) => return Ok(chosen),
        Err(reasons) => reasons,
    };
    if wants.fixed.is_empty() {
        return Err(SolveError::Unsolvable { reasons });
    }
    // Is it only the parent's choice that stands in the way?
    let mut chosen = match question.ask(Parent::Replaceable) {
        Ok(chosen) => chosen,
        Err(_) => question.ask(Parent::Removable).map_err(|reasons| SolveError::Unsolvable { reasons })?,
    };
    question.add_what_fits_of_the_parent(&mut chosen);
    let lost = wants.fixed.iter().filter(|id| !chosen.contains(id));
    let changes: Vec<ParentChange> = lost.map(|&id| explain::parent_change(universe, id, &chosen)).collect();
    if changes.is_empty() {
        return Err(SolveError::Unsolvable { reasons });
    }
    Err(SolveError::Parent { changes })
}

/// What may happen to the packages of the parent layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parent {
    /// They stay as they are.
    Kept,
    /// They stay, at any version.
    Replaceable,
    /// They may go.
    Removable,
}

#[derive(Clone, Copy)]
struct Question<'a> {
    universe: &'a Universe,
    wants: &'a Wants,
    candidates: &'a [Option<PackageId>],
    wanted: &'a [PackageId],
}

impl<'a> Question<'a> {
    /// Asks the solver; when there is no answer, the reasons in words.
    fn ask(&self, parent: Parent) -> Result<Vec<PackageId>, Vec<String>> {
        let mut soft: BTreeSet<PackageId> = BTreeSet::new();
        let mut chosen = self.ask_once(parent, &soft)?;
        if self.wants.recommends {
            for _ in 0..MAX_ROUNDS {
                let before = soft.len();
                soft.extend(self.recommended(&chosen));
                if soft.len() == before {
                    break;
                }
                chosen = self.ask_once(parent, &soft)?;
            }
        }
        Ok(chosen)
    }

    fn ask_once(&self, parent: Parent, soft: &BTreeSet<PackageId>) -> Result<Vec<PackageId>, Vec<String>> {
        let provider = Provider::new(*self, parent);
        let mut requirements: Vec<ConditionalRequirement> =
            self.wanted.iter().map(|&id| provider.exactly(id).into()).collect();
        if parent != Parent::Removable {
            let stays =
                |&id: &PackageId| ConditionalRequirement::from(provider.some_of(self.universe.name_of(id)));
            requirements.extend(self.wants.fixed.iter().map(stays));
        }
        let nothing = |name| provider.set(Set { name, members: Vec::new(), said: None });
        let constraints = want::removed(self.universe, self.wants).into_iter().map(nothing).collect();
        let soft: Vec<SolvableId> = soft.iter().map(|&id| solvable(id)).collect();
        let problem =
            Problem::new().requirements(requirements).constraints(constraints).soft_requirements(soft);
        let mut solver = Solver::new(provider);
        match solver.solve(problem) {
            Ok(solution) => {
                let mut chosen: Vec<_> = solution.into_iter().map(package).collect();
                chosen.sort();
                Ok(self.reachable(&chosen))
            }
            Err(UnsolvableOrCancelled::Unsolvable(conflict)) => {
                let graph = conflict.graph(&solver);
                Err(explain_graph(solver.provider(), &graph))
            }
            // Nothing cancels the search: `should_cancel_with_value` is not ours.
            Err(UnsolvableOrCancelled::Cancelled(_)) => Err(vec!["the search was cancelled".to_owned()]),
        }
    }

    /// What the chosen packages need, beginning with what was asked for: a search may leave more behind.
    fn reachable(&self, chosen: &[PackageId]) -> Vec<PackageId> {
        let chosen: BTreeSet<PackageId> = chosen.iter().copied().collect();
        let mut queue: Vec<PackageId> = self.wanted.iter().chain(&self.wants.fixed).copied().collect();
        queue.retain(|id| chosen.contains(id));
        let mut reached: BTreeSet<PackageId> = queue.iter().copied().collect();
        while let Some(by) = queue.pop() {
            for dep in self.universe.deps(by) {
                if !dep.kind.is_followed(self.wants.recommends) {
                    continue;
                }
                for id in self.universe.targets(by, dep) {
                    if chosen.contains(&id) && reached.insert(id) {
                        queue.push(id);
                    }
                }
            }
        }
        reached.into_iter().collect()
    }

    /// Adds the parent's packages that can stay: nothing hits them, and what they need is there.
    fn add_what_fits_of_the_parent(&self, chosen: &mut Vec<PackageId>) {
        let universe = self.universe;
        let names: BTreeSet<NameId> = chosen.iter().map(|&id| universe.name_of(id)).collect();
        chosen.extend(self.wants.fixed.iter().copied().filter(|&id| !names.contains(&universe.name_of(id))));
        loop {
            let there: BTreeSet<PackageId> = chosen.iter().copied().collect();
            let mut hit: BTreeSet<PackageId> = BTreeSet::new();
            for &owner in chosen.iter() {
                let parents = !names.contains(&universe.name_of(owner));
                for group in universe.groups(owner).filter(|group| group[0].kind.is_critical()) {
                    let mut targets = group.iter().flat_map(|dep| universe.targets(owner, dep));
                    if group[0].kind.is_negative() {
                        let others: Vec<_> = targets.filter(|id| there.contains(id)).collect();
                        if parents && !others.is_empty() {
                            hit.insert(owner);
                        }
                        hit.extend(others);
                    } else if parents && !targets.any(|id| there.contains(&id)) {
                        hit.insert(owner);
                    }
                }
            }
            let before = chosen.len();
            chosen.retain(|id| names.contains(&universe.name_of(*id)) || !hit.contains(id));
            if chosen.len() == before {
                return;
            }
        }
    }

    /// The first candidate of each recommendation that the set does not fulfil.
    fn recommended(&self, chosen: &[PackageId]) -> Vec<PackageId> {
        let mut found = Vec::new();
        for &owner in chosen {
            for group in self.universe.groups(owner).filter(|group| group[0].kind == Kind::Recommends) {
                let targets: Vec<_> =
                    group.iter().flat_map(|dep| self.universe.targets(owner, dep)).collect();
                if targets.iter().any(|id| chosen.binary_search(id).is_ok()) {
                    continue;
                }
                let candidate =
                    |id: &PackageId| self.candidates[self.universe.name_of(*id).0 as usize] == Some(*id);
                found.extend(targets.into_iter().find(candidate));
            }
        }
        found
    }

    /// What may be chosen of a name, the best first.
    fn allowed(&self, name: NameId, parent: Parent) -> Vec<PackageId> {
        let fixed = self.wants.fixed.iter().copied().find(|&id| self.universe.name_of(id) == name);
        if let (Some(id), Parent::Kept) = (fixed, parent) {
            return vec![id];
        }
        if let Some(&id) = self.wanted.iter().find(|&&id| self.universe.name_of(id) == name) {
            return vec![id];
        }
        let mut allowed: Vec<PackageId> = fixed.into_iter().collect();
        allowed.extend(self.candidates[name.0 as usize]);
        let suites = self.wants.packages.iter().filter_map(|want| want.suite.as_deref());
        for suite in suites {
            let from_there = |id: &PackageId| self.universe.origins(*id).any(|origin| origin.is(suite));
            allowed.extend(self.universe.name(name).versions.iter().copied().filter(from_there));
        }
        let mut seen = BTreeSet::new();
        allowed.retain(|&id| seen.insert(id));
        allowed
    }
}

fn solvable(id: PackageId) -> SolvableId {
    SolvableId::from_raw(id.0)
}

fn package(id: SolvableId) -> PackageId {
    PackageId(id.into_raw())
}

/// Some packages of one name.
struct Set<'a> {
    name: NameId,
    /// Sorted.
    members: Vec<PackageId>,
    /// The relation this set comes from; `None` for what was asked for.
    said: Option<(PackageId, &'a [Dep])>,
}

/// What the solver asks.
struct Provider<'a> {
    question: Question<'a>,
    parent: Parent,
    sets: RefCell<Vec<Set<'a>>>,
    unions: RefCell<Vec<Vec<VersionSetId>>>,
}

impl<'a> Provider<'a> {
    fn new(question: Question<'a>, parent: Parent) -> Self {
        Self { question, parent, sets: RefCell::default(), unions: RefCell::default() }
    }

    fn set(&self, mut set: Set<'a>) -> VersionSetId {
        set.members.sort();
        let mut sets = self.sets.borrow_mut();
        sets.push(set);
        VersionSetId(sets.len() as u32 - 1)
    }

    fn exactly(&self, id: PackageId) -> VersionSetId {
        self.set(Set { name: self.question.universe.name_of(id), members: vec![id], said: None })
    }

    /// Any version of a name that may be chosen.
    fn some_of(&self, name: NameId) -> VersionSetId {
        let members = self.question.allowed(name, self.parent);
        self.set(Set { name, members, said: None })
    }

    /// "One of these": a set for each name that can fulfil the group, in the order of the alternatives.
    fn requirement(&self, owner: PackageId, group: &'a [Dep]) -> Requirement {
        let universe = self.question.universe;
        let mut by_name: Vec<(NameId, Vec<PackageId>)> = Vec::new();
        for dep in group {
            for id in universe.targets(owner, dep) {
                let name = universe.name_of(id);
                match by_name.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, members)) => members.push(id),
                    None => by_name.push((name, vec![id])),
                }
            }
        }
        let said = Some((owner, group));
        let mut sets: Vec<_> =
            by_name.into_iter().map(|(name, members)| self.set(Set { name, members, said })).collect();
        match sets.len() {
            0 => self.set(Set { name: group[0].target, members: Vec::new(), said }).into(),
            1 => sets.remove(0).into(),
            _ => {
                let mut unions = self.unions.borrow_mut();
                unions.push(sets);
                VersionSetUnionId(unions.len() as u32 - 1).into()
            }
        }
    }

    /// "None of these": for each name that is hit, the set of those that are not.
    fn constraints(&self, owner: PackageId, dep: &'a Dep) -> Vec<VersionSetId> {
        let universe = self.question.universe;
        let hit: BTreeSet<PackageId> = universe.targets(owner, dep).collect();
        let names: BTreeSet<NameId> = hit.iter().map(|&id| universe.name_of(id)).collect();
        let said = Some((owner, std::slice::from_ref(dep)));
        let rest = |name: NameId| {
            universe.name(name).versions.iter().copied().filter(|id| !hit.contains(id)).collect()
        };
        names.into_iter().map(|name| self.set(Set { name, members: rest(name), said })).collect()
    }

    /// The relation a requirement comes from.
    fn said(&self, requirement: Requirement) -> Option<(PackageId, &'a [Dep])> {
        let set = match requirement {
            Requirement::Single(set) => set,
            Requirement::Union(union) => *self.unions.borrow()[union.0 as usize].first()?,
        };
        self.sets.borrow()[set.0 as usize].said
    }
}

impl Interner for Provider<'_> {
    type NameId = resolvo::NameId;
    type SolvableId = SolvableId;

    fn display_solvable(&self, id: SolvableId) -> impl Display + '_ {
        self.question.universe.package(package(id))
    }

    fn display_name(&self, name: resolvo::NameId) -> impl Display + '_ {
        &self.question.universe.name(NameId(name.into_raw())).text
    }

    fn display_version_set(&self, _: VersionSetId) -> impl Display + '_ {
        ""
    }

    fn display_string(&self, _: StringId) -> impl Display + '_ {
        ""
    }

    fn version_set_name(&self, set: VersionSetId) -> resolvo::NameId {
        resolvo::NameId::from_raw(self.sets.borrow()[set.0 as usize].name.0)
    }

    fn solvable_name(&self, id: SolvableId) -> resolvo::NameId {
        resolvo::NameId::from_raw(self.question.universe.name_of(package(id)).0)
    }

    fn version_sets_in_union(&self, union: VersionSetUnionId) -> impl Iterator<Item = VersionSetId> {
        self.unions.borrow()[union.0 as usize].clone().into_iter()
    }

    fn resolve_condition(&self, _: ConditionId) -> Condition {
        // No requirement of ours has a condition, so that nobody can ask; this one would never hold.
        Condition::Requirement(self.set(Set { name: NameId(0), members: Vec::new(), said: None }))
    }
}

impl DependencyProvider for Provider<'_> {
    async fn filter_candidates(
        &self,
        candidates: &[SolvableId],
        set: VersionSetId,
        inverse: bool,
    ) -> Vec<SolvableId> {
        let sets = self.sets.borrow();
        let members = &sets[set.0 as usize].members;
        candidates
            .iter()
            .copied()
            .filter(|&id| members.binary_search(&package(id)).is_ok() != inverse)
            .collect()
    }

    async fn get_candidates(&self, name: resolvo::NameId) -> Option<Candidates> {
        let allowed = self.question.allowed(NameId(name.into_raw()), self.parent);
        Some(Candidates { candidates: allowed.into_iter().map(solvable).collect(), ..Candidates::default() })
    }

    async fn sort_candidates(&self, _: &SolverCache<Self>, solvables: &mut [SolvableId]) {
        let Some(&first) = solvables.first() else { return };
        let name = self.question.universe.name_of(package(first));
        let order = self.question.allowed(name, self.parent);
        solvables.sort_by_key(|&id| order.iter().position(|&other| other == package(id)));
    }

    async fn get_dependencies(&self, id: SolvableId) -> Dependencies {
        let id = package(id);
        let universe = self.question.universe;
        let mut known = KnownDependencies::default();
        for group in universe.groups(id) {
            match group[0].kind {
                Kind::PreDepends | Kind::Depends => {
                    known.requirements.push(self.requirement(id, group).into())
                }
                Kind::Conflicts | Kind::Breaks => {
                    known.constrains.extend(group.iter().flat_map(|dep| self.constraints(id, dep)));
                }
                _ => {}
            }
        }
        Dependencies::Known(known)
    }
}

/// The clauses that contradict each other, in words, beginning with what was asked for.
fn explain_graph(provider: &Provider, graph: &resolvo::conflict::ConflictGraph) -> Vec<String> {
    use resolvo::conflict::{ConflictCause, ConflictEdge, ConflictNode};
    let universe = provider.question.universe;
    let node = |at: usize| match graph.graph.raw_nodes()[at].weight {
        ConflictNode::Solvable(id) => Some(package(id)),
        _ => None,
    };
    let edges = graph.graph.raw_edges();
    let mut lines = Vec::new();
    let mut seen: BTreeSet<usize> = BTreeSet::new();
    let mut queue = std::collections::VecDeque::from([graph.root_node.index()]);
    while let Some(at) = queue.pop_front() {
        if !seen.insert(at) {
            continue;
        }
        for edge in edges.iter().filter(|edge| edge.source().index() == at) {
            let target = edge.target().index();
            queue.push_back(target);
            let line = match &edge.weight {
                ConflictEdge::Requires(requirement) => match provider.said(*requirement) {
                    None => node(target).map(|id| explain::asked_for(universe, provider.question.wants, id)),
                    Some((owner, group)) => {
                        let missing = node(target).is_none();
                        let allowed = |id| {
                            let name = universe.name_of(id);
                            provider.question.allowed(name, provider.parent).contains(&id)
                        };
                        Some(explain::needs(universe, owner, group, missing, allowed))
                    }
                },
                ConflictEdge::Conflict(ConflictCause::Constrains(set)) => {
                    let said = provider.sets.borrow()[set.0 as usize].said;
                    match (said, node(target)) {
                        (Some((_, group)), Some(hit)) => {
                            node(at).map(|owner| explain::conflicts(universe, owner, &group[0], hit))
                        }
                        (None, Some(hit)) => Some(explain::unwanted(universe, hit)),
                        _ => None,
                    }
                }
                ConflictEdge::Conflict(ConflictCause::ForbidMultipleInstances) => {
                    match (node(at), node(target)) {
                        (Some(one), Some(two)) => Some(explain::only_one(universe, one, two)),
                        _ => None,
                    }
                }
                ConflictEdge::Conflict(_) => None,
            };
            lines.extend(line.filter(|line| !lines.contains(line)));
        }
    }
    lines
}
