//! How apt chooses: a walk that marks packages one after the other, the way `apt-get install` does.
//!
//! The walk is not a search. It takes the first alternative that works, remembers which candidates have failed, and
//! never comes back to a choice it made; what it ends with depends on its order. To get apt's set, the order has to be
//! apt's: wanted packages in the order in which they were asked for, the fields of each package in apt's order, and
//! providers sorted by apt's preferences.

use super::universe::{Dep, NameId, PackageId, Universe};
use std::cmp::Ordering;

/// apt gives up below this depth, and so do we: chains of real packages are far shorter.
pub(super) const MAX_DEPTH: u32 = 3000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mode {
    #[default]
    Keep,
    Install,
    Delete,
}

/// What is thought of one name.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// What would be installed if the name were; taken away when it turned out not to be installable.
    candidate: Option<PackageId>,
    /// The candidate when relations to this name were last looked at. apt does not look again when it takes a
    /// candidate away, and a few choices depend on that.
    seen_candidate: Option<PackageId>,
    /// What is there already, from the parent layer.
    current: Option<PackageId>,
    /// What will be there.
    install: Option<PackageId>,
    mode: Mode,
    /// Asked for, or the only possibility for something that was: not to be changed.
    protected: bool,
    /// Asked for by the user.
    manual: bool,
    /// Not to be installed unless asked for.
    held: bool,
}

/// The marking of a whole universe.
#[derive(Clone)]
pub(super) struct Marking<'a> {
    universe: &'a Universe,
    recommends: bool,
    states: Vec<State>,
}

/// What the walk ended with.
pub(super) struct Outcome {
    /// The chosen packages in the order of their names.
    pub chosen: Vec<PackageId>,
    /// Packages of the parent layer that would be removed or replaced.
    pub lost: Vec<PackageId>,
    /// Chosen packages with a relation that is not fulfilled. When there is any, the walk has failed.
    pub broken: Vec<PackageId>,
}

impl<'a> Marking<'a> {
    /// Starts with nothing but `current`; `candidates` has a package for each name.
    pub fn new(universe: &'a Universe, candidates: &[Option<PackageId>], recommends: bool) -> Self {
        let state = |&candidate: &Option<PackageId>| State {
            candidate,
            seen_candidate: candidate,
            ..State::default()
        };
        Self { universe, recommends, states: candidates.iter().map(state).collect() }
    }

    /// Says that a package is there already and stays at this version.
    pub fn set_current(&mut self, id: PackageId) {
        let name = self.universe.name_of(id);
        let state = self.state_mut(name);
        (state.current, state.install) = (Some(id), Some(id));
        (state.candidate, state.seen_candidate) = (Some(id), Some(id));
    }

    /// Says that a name is not wanted.
    pub fn hold(&mut self, name: NameId) {
        let state = self.state_mut(name);
        if state.current.is_none() {
            state.held = true;
        } else {
            (state.mode, state.install) = (Mode::Delete, None);
            state.protected = true;
        }
    }

    /// Installs what is wanted, exactly these versions. `switched` are those that were asked for from a suite: where
    /// their relations need it, more is taken from there.
    pub fn install(mut self, wanted: &[PackageId], switched: &[(PackageId, &str)]) -> Outcome {
        let mut names = Vec::with_capacity(wanted.len());
        for &id in wanted {
            let name = self.universe.name_of(id);
            let state = self.state_mut(name);
            (state.candidate, state.seen_candidate) = (Some(id), Some(id));
            state.protected = true;
            self.mark_install(name, false, 0, true);
            names.push(name);
        }
        let mut visited = Vec::new();
        for &(id, suite) in switched {
            visited.push(id);
            self.switch(id, suite, &mut visited, 0);
        }
        for name in names {
            self.mark_install(name, true, 0, true);
        }
        self.drop_garbage();
        self.outcome()
    }

    /// Makes a version the candidate, and for relations that the candidates do not fulfil, versions of the same suite.
    /// `false` when some relation stays unfulfilled; what was changed until then stays changed.
    fn switch(&mut self, id: PackageId, suite: &str, visited: &mut Vec<PackageId>, depth: u32) -> bool {
        if depth > MAX_DEPTH || visited.len() > MAX_DEPTH as usize {
            return false;
        }
        self.set_candidate(id);
        let start = visited.len();
        for group in self.universe.groups(id) {
            let first = &group[0];
            if first.kind.is_negative()
                || !self.is_important(first)
                || group.iter().any(|dep| self.has_ready_candidate(id, dep))
            {
                continue;
            }
            let mut fine = false;
            for dep in group {
                // Another candidate helps only where a version is asked for.
                let version = self.universe.condition(id, dep).and_then(|_| {
                    let versions = self.universe.name(dep.target).versions.iter().copied();
                    let mut there =
                        versions.filter(|&id| self.universe.origins(id).any(|origin| origin.is(suite)));
                    there.next().filter(|&version| self.universe.admits(id, dep, version))
                });
                let Some(version) = version else { continue };
                let before = self.state(dep.target).candidate;
                let known = |&other: &PackageId| self.universe.name_of(other) == dep.target;
                fine = before == Some(version) && visited.iter().any(known);
                if !fine {
                    visited.push(version);
                    fine = self.switch(version, suite, visited, depth + 1);
                    if !fine && dep.or_next {
                        let state = self.state_mut(dep.target);
                        (state.candidate, state.seen_candidate) = (before, before);
                        visited.pop();
                        continue;
                    }
                }
                break;
            }
            if !fine && first.kind.is_critical() {
                visited.truncate(start);
                return false;
            }
        }
        true
    }

    fn set_candidate(&mut self, id: PackageId) {
        let state = self.state_mut(self.universe.name_of(id));
        if state.mode == Mode::Install && state.install == state.candidate {
            state.install = Some(id);
        }
        (state.candidate, state.seen_candidate) = (Some(id), Some(id));
    }

    /// Whether a relation is fulfilled already, or by a candidate all of whose own relations are.
    fn has_ready_candidate(&self, owner: PackageId, dep: &Dep) -> bool {
        let target = self.universe.name(dep.target);
        let state = self.state(dep.target);
        if state.current.is_some_and(|id| self.universe.admits(owner, dep, id)) {
            return true;
        }
        if self.universe.condition(owner, dep).is_none() && !target.providers.is_empty() {
            return target.providers.iter().any(|provider| {
                let id = provider.owner;
                self.state(self.universe.name_of(id)).candidate == Some(id) && self.is_ready(id)
            });
        }
        state.candidate.is_some_and(|id| self.universe.admits(owner, dep, id) && self.is_ready(id))
    }

    fn is_ready(&self, id: PackageId) -> bool {
        self.universe
            .groups(id)
            .all(|group| !group[0].kind.is_critical() || group.iter().any(|dep| self.is_fulfilled(id, dep)))
    }

    fn outcome(&self) -> Outcome {
        let numbered = || (0..self.states.len() as u32).map(NameId);
        let broken = numbered()
            .filter(|&name| self.is_broken(name, false))
            .filter_map(|name| self.state(name).install);
        let lost = self
            .states
            .iter()
            .filter(|state| state.install != state.current)
            .filter_map(|state| state.current);
        let mut chosen: Vec<_> = self.states.iter().filter_map(|state| state.install).collect();
        chosen.sort_by(|&a, &b| self.universe.package(a).name.cmp(&self.universe.package(b).name));
        Outcome { chosen, lost: lost.collect(), broken: broken.collect() }
    }

    fn state(&self, name: NameId) -> &State {
        &self.states[name.0 as usize]
    }

    fn state_mut(&mut self, name: NameId) -> &mut State {
        &mut self.states[name.0 as usize]
    }

    /// Whether a package of this name will be there.
    fn installs(&self, id: PackageId) -> bool {
        self.state(self.universe.name_of(id)).install == Some(id)
    }

    fn is_important(&self, dep: &Dep) -> bool {
        dep.kind.is_critical() || (self.recommends && dep.kind == super::Kind::Recommends)
    }

    /// Whether a relation is fulfilled by what will be there. For a conflict: whether nothing hits it.
    fn is_fulfilled(&self, owner: PackageId, dep: &Dep) -> bool {
        self.universe.targets(owner, dep).any(|id| self.installs(id)) != dep.kind.is_negative()
    }

    /// Whether some candidate fulfils (or hits) a relation, as far as apt remembers.
    fn has_candidate(&self, owner: PackageId, dep: &Dep) -> bool {
        self.universe
            .targets(owner, dep)
            .any(|id| self.state(self.universe.name_of(id)).seen_candidate == Some(id))
    }

    /// Whether what will be there of this name has a critical relation that is not fulfilled; with `policy`,
    /// a recommendation counts too.
    fn is_broken(&self, name: NameId, policy: bool) -> bool {
        let Some(id) = self.state(name).install else { return false };
        self.universe.groups(id).any(|group| {
            let counts = if policy { self.is_important(&group[0]) } else { group[0].kind.is_critical() };
            counts && !group.iter().any(|dep| self.is_fulfilled(id, dep))
        })
    }

    fn may_change(&self, name: NameId, mode: Mode, depth: u32, from_user: bool) -> bool {
        let known = self.universe.name(name);
        let state = self.state(name);
        if depth > MAX_DEPTH || known.versions.is_empty() {
            false
        } else if from_user || state.mode == mode {
            true
        } else if state.protected || (mode != Mode::Keep && state.held) {
            false
        } else {
            mode != Mode::Delete || !(known.essential || known.protected)
        }
    }

    fn mark_keep(&mut self, name: NameId, depth: u32) -> bool {
        if !self.may_change(name, Mode::Keep, depth, false) {
            return false;
        }
        let state = self.state_mut(name);
        if state.mode != Mode::Keep {
            (state.mode, state.install) = (Mode::Keep, state.current);
            state.seen_candidate = state.candidate;
        }
        true
    }

    fn mark_delete(&mut self, name: NameId, depth: u32) -> bool {
        if !self.may_change(name, Mode::Delete, depth, false) {
            return false;
        }
        let state = self.state_mut(name);
        if state.mode == Mode::Delete || state.install.is_none() {
            return true;
        }
        if state.current.is_none() && state.manual {
            return false;
        }
        state.mode = if state.current.is_none() { Mode::Keep } else { Mode::Delete };
        state.install = None;
        state.seen_candidate = state.candidate;
        true
    }

    /// Marks a name for installation, and with `follow` everything it needs. `false` when that is not possible.
    fn mark_install(&mut self, name: NameId, follow: bool, depth: u32, from_user: bool) -> bool {
        let state = *self.state(name);
        let stays = state.mode == Mode::Keep && state.candidate.is_some() && state.candidate == state.current;
        let looks_only = state.protected && stays;
        if !looks_only && !self.may_change(name, Mode::Install, depth, from_user) {
            return false;
        }
        let Some(candidate) = state.candidate else { return false };
        if !state.protected && !self.is_broken(name, true) {
            if state.current == Some(candidate) {
                return state.install.is_some() || self.mark_keep(name, depth + 1);
            }
            if state.mode == Mode::Install {
                return true;
            }
        }
        if follow && !self.is_possible(name, candidate) {
            return false;
        }
        if from_user {
            self.choose(name, true);
        }
        let fail_early = !state.protected && !from_user;
        let mut failed = false;
        let (mut needed, mut unwanted) = (Vec::new(), Vec::new());
        let mut doomed = Vec::new();
        if follow {
            for group in self.universe.groups(candidate) {
                let fulfilled = group.iter().any(|dep| self.is_fulfilled(candidate, dep));
                if (fulfilled && !state.protected) || !self.is_important(&group[0]) {
                    continue;
                }
                if group[0].kind.is_negative() { unwanted.push(&group[0]) } else { needed.push(group) }
            }
            if !self.push_aside(candidate, &unwanted, depth, state.protected, from_user, &mut doomed) {
                if fail_early {
                    return false;
                }
                failed = true;
            }
        }
        if !from_user {
            self.choose(name, false);
        }
        if !follow {
            return !failed;
        }
        // While its relations are looked at, nothing may unmark the package itself.
        self.state_mut(name).protected = true;
        let mut done = self.install_needed(name, candidate, &needed, depth, state.protected, from_user);
        failed |= !done;
        if done || !fail_early {
            for name in doomed {
                if !self.mark_delete(name, depth) {
                    failed = true;
                    done = false;
                    if fail_early {
                        break;
                    }
                }
            }
        }
        if !done && fail_early {
            self.give_up(name);
        }
        if !state.protected {
            self.state_mut(name).protected = false;
        }
        !failed
    }

    /// Whether each relation has any candidate. When not, the name loses its own, unless it was asked for.
    fn is_possible(&mut self, name: NameId, candidate: PackageId) -> bool {
        if self.state(name).current == Some(candidate) {
            return true;
        }
        let possible = self.universe.groups(candidate).all(|group| {
            !group[0].kind.is_critical()
                || group[0].kind.is_negative()
                || group
                    .iter()
                    .any(|dep| self.has_candidate(candidate, dep) || self.is_fulfilled(candidate, dep))
        });
        let state = self.state_mut(name);
        if !possible && !state.protected {
            state.candidate = state.current;
            if state.mode != Mode::Delete {
                state.mode = Mode::Keep;
            }
        }
        possible
    }

    /// Chooses the candidate of a name.
    fn choose(&mut self, name: NameId, from_user: bool) {
        let state = self.state_mut(name);
        if state.protected && state.install == state.candidate {
            return;
        }
        state.install = state.candidate;
        state.mode = if state.candidate == state.current { Mode::Keep } else { Mode::Install };
        state.manual = from_user;
        state.seen_candidate = state.candidate;
    }

    /// Takes back the choice of a name, and its candidate with it: it will not be tried again.
    fn give_up(&mut self, name: NameId) {
        let state = self.state_mut(name);
        if state.mode == Mode::Keep && state.install == state.candidate && state.candidate == state.current {
            return;
        }
        (state.install, state.mode) = (state.current, Mode::Keep);
        state.seen_candidate = state.candidate;
        state.candidate = state.install;
    }

    /// Makes sure that nothing that conflicts with `owner` is or will be chosen.
    fn push_aside(
        &mut self,
        owner: PackageId,
        unwanted: &[&'a Dep],
        depth: u32,
        propagate: bool,
        from_user: bool,
        doomed: &mut Vec<NameId>,
    ) -> bool {
        let mut failed = false;
        for &dep in unwanted {
            for id in self.solutions(owner, std::slice::from_ref(dep)) {
                let name = self.universe.name_of(id);
                let state = *self.state(name);
                if state.candidate != Some(id) {
                    continue;
                }
                let pushed = if state.current == Some(id) {
                    self.doom(name, depth, propagate, doomed)
                } else if state.mode == Mode::Install && !self.mark_keep(name, depth) {
                    false
                } else {
                    if propagate {
                        self.lose_candidate(name);
                        self.state_mut(name).protected |= state.current.is_none();
                    }
                    true
                };
                failed |= !pushed;
                if failed && !propagate && !from_user {
                    return false;
                }
            }
        }
        !failed
    }

    fn lose_candidate(&mut self, name: NameId) {
        let state = self.state_mut(name);
        state.candidate = state.install;
    }

    /// Removes what is there already, or remembers to do so when everything else has worked.
    fn doom(&mut self, name: NameId, depth: u32, propagate: bool, doomed: &mut Vec<NameId>) -> bool {
        let deleted = self.state(name).mode == Mode::Delete;
        if !propagate {
            if deleted {
                return true;
            }
            let possible = self.may_change(name, Mode::Delete, depth, false);
            if possible {
                doomed.push(name);
            }
            return possible;
        }
        if !deleted && !self.mark_delete(name, depth + 1) {
            return false;
        }
        self.lose_candidate(name);
        self.state_mut(name).protected = true;
        true
    }

    /// Finds a package for each relation that is not fulfilled. With `propagate` (the package was asked for), what is
    /// the only possibility for a relation counts as asked for too.
    fn install_needed(
        &mut self,
        name: NameId,
        owner: PackageId,
        needed: &[&'a [Dep]],
        depth: u32,
        propagate: bool,
        from_user: bool,
    ) -> bool {
        let mut failed = false;
        for &group in needed {
            let critical = group[0].kind.is_critical();
            let fulfilled = group.iter().any(|dep| self.is_fulfilled(owner, dep));
            if fulfilled {
                if !propagate || !critical {
                    continue;
                }
                if let [only] = self.possibilities(owner, group)[..] {
                    let only = self.universe.name_of(only);
                    if !self.state(only).protected {
                        self.state_mut(only).protected = true;
                        failed |= !self.mark_install(only, true, depth + 1, false);
                    }
                }
                continue;
            }
            if self.state(name).current.is_some() && !critical {
                // A recommendation of what is there already was decided when that was installed.
                continue;
            }
            let solutions = self.solutions(owner, group);
            let only = solutions.len() == 1;
            let found = solutions.into_iter().any(|id| {
                let name = self.universe.name_of(id);
                if self.state(name).candidate != Some(id) {
                    return false;
                }
                if propagate && critical && only {
                    if !self.mark_install(name, false, depth + 1, false) {
                        return false;
                    }
                    self.state_mut(name).protected = true;
                }
                self.mark_install(name, true, depth + 1, false)
            });
            if !found && critical {
                failed = true;
                if !propagate && !from_user {
                    break;
                }
            }
        }
        !failed
    }

    /// The candidates and present packages that fulfil a relation.
    fn possibilities(&self, owner: PackageId, group: &[Dep]) -> Vec<PackageId> {
        let mut found: Vec<_> = group
            .iter()
            .flat_map(|dep| self.universe.targets(owner, dep))
            .filter(|&id| {
                let state = self.state(self.universe.name_of(id));
                (state.candidate == Some(id) || state.current == Some(id)) && !Self::is_refused(state)
            })
            .collect();
        found.sort();
        found.dedup();
        found
    }

    /// The candidates that fulfil (or hit) a relation, in apt's order of preference.
    fn solutions(&self, owner: PackageId, group: &[Dep]) -> Vec<PackageId> {
        let mut found: Vec<PackageId> = Vec::new();
        for dep in group {
            if !self.has_candidate(owner, dep) {
                continue;
            }
            let mut these: Vec<_> = self
                .universe
                .targets(owner, dep)
                .filter(|&id| self.state(self.universe.name_of(id)).candidate == Some(id))
                .collect();
            these.sort_by(|&a, &b| self.prefer(dep.target, a, b));
            found.extend(these);
        }
        let negative = group.iter().any(|dep| dep.kind.is_negative());
        found.retain(|&id| negative || !Self::is_refused(self.state(self.universe.name_of(id))));
        // What is there already comes first; the sort is stable.
        found.sort_by_key(|&id| self.state(self.universe.name_of(id)).current.is_none());
        found.dedup();
        found
    }

    /// Whether it was decided that this name will not be there.
    fn is_refused(state: &State) -> bool {
        state.protected
            && (state.mode == Mode::Delete || (state.mode == Mode::Keep && state.current.is_none()))
    }

    /// apt's order among providers of `target`.
    fn prefer(&self, target: NameId, a: PackageId, b: PackageId) -> Ordering {
        let (one, two) = (self.universe.name_of(a), self.universe.name_of(b));
        let good = |yes: bool, other: bool| other.cmp(&yes);
        let (state, other) = (self.state(one), self.state(two));
        let (known, others) = (self.universe.name(one), self.universe.name(two));
        good(state.protected, other.protected)
            .then_with(|| good(state.current.is_some(), other.current.is_some()))
            .then_with(|| good(one == target, two == target))
            .then_with(|| good(known.essential, others.essential))
            .then_with(|| good(known.protected, others.protected))
            .then_with(|| self.universe.package(a).priority.cmp(&self.universe.package(b).priority))
            .then_with(|| two.cmp(&one))
    }

    /// Takes back what was chosen on the way to something that did not work out in the end, and that nothing needs,
    /// recommends or suggests now.
    fn drop_garbage(&mut self) {
        let mut needed = vec![false; self.states.len()];
        let mut queue: Vec<PackageId> = Vec::new();
        for (at, state) in self.states.iter().enumerate() {
            let known = self.universe.name(NameId(at as u32));
            if let Some(id) = state.install
                && (state.manual || state.current.is_some() || known.essential || known.protected)
            {
                needed[at] = true;
                queue.push(id);
            }
        }
        while let Some(id) = queue.pop() {
            let follows = |dep: &&Dep| dep.kind.is_followed(true) || dep.kind == super::Kind::Suggests;
            for dep in self.universe.deps(id).iter().filter(follows) {
                for target in self.universe.targets(id, dep) {
                    let at = self.universe.name_of(target).0 as usize;
                    if self.installs(target) && !needed[at] {
                        needed[at] = true;
                        queue.push(target);
                    }
                }
            }
        }
        for (state, needed) in self.states.iter_mut().zip(needed) {
            if !needed && state.current.is_none() {
                (state.install, state.mode) = (None, Mode::Keep);
            }
        }
    }
}
