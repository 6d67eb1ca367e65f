//! Every package that could be chosen, with its relations resolved to numbers.
//!
//! Names are numbered in the order in which they are first seen (as a package, or in a relation of one), field by field
//! as apt reads them. The order matters: where apt has no better reason it prefers the name that was seen last.

use super::super::index::{MultiArch, Package};
use super::super::relation::{self, NotARelation, Operator, Relation};
use super::super::version;
use std::cmp::Ordering;

/// One package of a universe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageId(pub(super) u32);

/// A name that packages have, provide or refer to. Ordered by when it was first seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NameId(pub(super) u32);

/// One index to choose from.
#[derive(Debug, Clone)]
pub struct Index {
    /// `Suite` of its `Release`: `stable-backports`.
    pub suite: String,
    /// `Codename` of its `Release`: `trixie-backports`.
    pub codename: String,
    /// Pin priority of everything in it, as apt gives it
    /// ([`Release::default_priority`](crate::debian::index::Release::default_priority), or a pin on the whole source).
    pub priority: i32,
    /// The packages, in the order of the index.
    pub packages: Vec<Package>,
}

/// Where a package can be had from: an [`Index`] without its packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// See [`Index::suite`].
    pub suite: String,
    /// See [`Index::codename`].
    pub codename: String,
    /// See [`Index::priority`].
    pub priority: i32,
}

impl Origin {
    /// Whether a suite somebody asked for is this one, by suite or by codename.
    pub fn is(&self, suite: &str) -> bool {
        self.suite == suite || self.codename == suite
    }
}

/// What kind of relation a [`Dep`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `Pre-Depends`
    PreDepends,
    /// `Depends`
    Depends,
    /// `Conflicts`
    Conflicts,
    /// `Breaks`
    Breaks,
    /// `Recommends`
    Recommends,
    /// `Suggests`
    Suggests,
    /// `Replaces`
    Replaces,
    /// `Enhances`
    Enhances,
}

impl Kind {
    /// In the order in which apt takes the fields in.
    const ALL: [Self; 8] = [
        Self::PreDepends,
        Self::Depends,
        Self::Conflicts,
        Self::Breaks,
        Self::Recommends,
        Self::Suggests,
        Self::Replaces,
        Self::Enhances,
    ];

    /// The field's name.
    pub fn field(self) -> &'static str {
        match self {
            Self::PreDepends => "Pre-Depends",
            Self::Depends => "Depends",
            Self::Conflicts => "Conflicts",
            Self::Breaks => "Breaks",
            Self::Recommends => "Recommends",
            Self::Suggests => "Suggests",
            Self::Replaces => "Replaces",
            Self::Enhances => "Enhances",
        }
    }

    pub(super) fn is_negative(self) -> bool {
        matches!(self, Self::Conflicts | Self::Breaks)
    }

    /// A package cannot be used when this is not fulfilled.
    pub(super) fn is_critical(self) -> bool {
        self.is_negative() || matches!(self, Self::PreDepends | Self::Depends)
    }

    /// Whether packages are chosen because of it.
    pub(super) fn is_followed(self, recommends: bool) -> bool {
        matches!(self, Self::PreDepends | Self::Depends) || (recommends && self == Self::Recommends)
    }

    fn text(self, package: &Package) -> &str {
        match self {
            Self::PreDepends => &package.pre_depends,
            Self::Depends => &package.depends,
            Self::Conflicts => &package.conflicts,
            Self::Breaks => &package.breaks,
            Self::Recommends => &package.recommends,
            Self::Suggests => &package.suggests,
            Self::Replaces => &package.replaces,
            Self::Enhances => &package.enhances,
        }
    }
}

/// One alternative of a relation. Its version stays where it is: in the text of the field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dep {
    pub target: NameId,
    pub kind: Kind,
    /// The next one is an alternative to this one.
    pub or_next: bool,
    operator: Option<Operator>,
    length: u16,
    at: u32,
}

/// A package that provides a name.
#[derive(Debug, Clone)]
pub(super) struct Provider {
    pub owner: PackageId,
    pub version: Option<Box<str>>,
}

/// What is known under one name.
#[derive(Debug, Clone, Default)]
pub(super) struct Name {
    pub text: Box<str>,
    /// The packages of this name, the highest version first.
    pub versions: Vec<PackageId>,
    pub providers: Vec<Provider>,
    pub essential: bool,
    pub protected: bool,
}

/// A relation of a package cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("cannot read `{field}` of the package {package}")]
pub struct BadRelation {
    package: String,
    field: &'static str,
    source: NotARelation,
}

/// Everything that could be chosen for systems of one architecture.
#[derive(Debug)]
pub struct Universe {
    architecture: String,
    origins: Vec<Origin>,
    packages: Vec<Package>,
    /// Name, and the origins that have this very package (positions in `origins`).
    homes: Vec<(NameId, Vec<u16>)>,
    /// The relations of package `n` are `deps[ranges[n]..ranges[n + 1]]`.
    ranges: Vec<u32>,
    deps: Vec<Dep>,
    names: Vec<Name>,
    numbers: Numbers,
}

/// Numbers of names.
#[expect(clippy::disallowed_types, reason = "half a million look-ups; never iterated")]
type Numbers = std::collections::HashMap<Box<str>, NameId>;

impl Universe {
    /// Takes in the indexes, in the order of the sources. Packages of other architectures than `architecture` and `all`
    /// are left out.
    pub fn new(architecture: &str, indexes: Vec<Index>) -> Result<Self, BadRelation> {
        let mut universe = Self {
            architecture: architecture.to_owned(),
            origins: Vec::new(),
            packages: Vec::new(),
            homes: Vec::new(),
            ranges: vec![0],
            deps: Vec::new(),
            names: Vec::new(),
            numbers: Numbers::default(),
        };
        for Index { suite, codename, priority, packages } in indexes {
            let origin = universe.origins.len() as u16;
            universe.origins.push(Origin { suite, codename, priority });
            universe.packages.reserve(packages.len());
            for package in packages {
                if &*package.architecture == architecture || &*package.architecture == "all" {
                    universe.add(package, origin)?;
                }
            }
        }
        Ok(universe)
    }

    /// The architecture of the system.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// A package.
    pub fn package(&self, id: PackageId) -> &Package {
        &self.packages[id.0 as usize]
    }

    /// Where a package can be had from: positions in the list of indexes the universe was made of.
    pub fn index_positions(&self, id: PackageId) -> impl Iterator<Item = usize> + '_ {
        self.homes[id.0 as usize].1.iter().map(|&at| usize::from(at))
    }

    /// Where a package can be had from.
    pub fn origins(&self, id: PackageId) -> impl Iterator<Item = &Origin> {
        self.index_positions(id).map(|at| &self.origins[at])
    }

    /// All packages of a name, the highest version first.
    pub fn versions(&self, name: &str) -> &[PackageId] {
        self.number(name).map_or(&[], |name| &self.name(name).versions)
    }

    /// All packages.
    pub fn ids(&self) -> impl Iterator<Item = PackageId> + use<> {
        (0..self.packages.len() as u32).map(PackageId)
    }

    /// The package of this name and exactly this version.
    pub fn exact(&self, name: &str, version: &str) -> Option<PackageId> {
        self.versions(name).iter().copied().find(|&id| self.package(id).version.as_str() == version)
    }

    pub(super) fn name(&self, name: NameId) -> &Name {
        &self.names[name.0 as usize]
    }

    pub(super) fn names(&self) -> &[Name] {
        &self.names
    }

    pub(super) fn number(&self, name: &str) -> Option<NameId> {
        self.numbers.get(name).copied()
    }

    pub(super) fn name_of(&self, id: PackageId) -> NameId {
        self.homes[id.0 as usize].0
    }

    /// The relations of a package, in apt's order of fields.
    pub(super) fn deps(&self, id: PackageId) -> &[Dep] {
        let at = id.0 as usize;
        &self.deps[self.ranges[at] as usize..self.ranges[at + 1] as usize]
    }

    /// The relations of a package in groups of alternatives.
    pub(super) fn groups(&self, id: PackageId) -> impl Iterator<Item = &[Dep]> {
        self.deps(id).split_inclusive(|dep| !dep.or_next)
    }

    /// The version condition of a relation of `owner`.
    pub(super) fn condition(&self, owner: PackageId, dep: &Dep) -> Option<(Operator, &str)> {
        let operator = dep.operator?;
        let text = dep.kind.text(self.package(owner));
        let at = dep.at as usize;
        Some((operator, &text[at..at + usize::from(dep.length)]))
    }

    /// Whether a package fulfils a relation of `owner` by its own name and version.
    pub(super) fn admits(&self, owner: PackageId, dep: &Dep, id: PackageId) -> bool {
        self.condition(owner, dep)
            .is_none_or(|(operator, wanted)| operator.holds(self.package(id).version.as_str(), wanted))
    }

    /// Whether a provider fulfils a relation of `owner`: a relation with a version needs a provided version.
    pub(super) fn admits_provider(&self, owner: PackageId, dep: &Dep, provider: &Provider) -> bool {
        match (self.condition(owner, dep), &provider.version) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some((operator, wanted)), Some(provided)) => operator.holds(provided, wanted),
        }
    }

    /// Every package that fulfils (or, for conflicts, hits) one alternative of a relation of `owner`: those of the name
    /// first, then the providers. A package never conflicts with itself.
    pub(super) fn targets<'a>(
        &'a self,
        owner: PackageId,
        dep: &'a Dep,
    ) -> impl Iterator<Item = PackageId> + 'a {
        let target = self.name(dep.target);
        let own = self.name_of(owner);
        let real = target.versions.iter().copied().filter(move |&id| self.admits(owner, dep, id));
        let virt = target
            .providers
            .iter()
            .filter(move |provider| self.admits_provider(owner, dep, provider))
            .map(|provider| provider.owner);
        real.chain(virt).filter(move |&id| !dep.kind.is_negative() || self.name_of(id) != own)
    }

    fn add(&mut self, package: Package, origin: u16) -> Result<(), BadRelation> {
        let name = self.intern(&package.name);
        let version = package.version.as_str();
        // The versions are sorted, the highest first; those that compare as equal stand behind `at`.
        let compared = |id: PackageId| version::compare(self.package(id).version.as_str(), version);
        let versions = &self.names[name.0 as usize].versions;
        let mut at = versions.partition_point(|&id| compared(id) == Ordering::Greater);
        while let Some(&id) = versions.get(at).filter(|&&id| compared(id) == Ordering::Equal) {
            if self.package(id).sha256 == package.sha256 && self.package(id).version.as_str() == version {
                self.homes[id.0 as usize].1.push(origin);
                return Ok(());
            }
            at += 1;
        }
        let id = PackageId(self.packages.len() as u32);
        self.relate(&package)?;
        self.ranges.push(self.deps.len() as u32);
        self.provide(&package, id, name)?;
        let entry = &mut self.names[name.0 as usize];
        entry.versions.insert(at, id);
        // apt holds itself for essential.
        entry.essential |= package.essential || &*package.name == "apt";
        entry.protected |= package.protected || &*package.name == "apt";
        self.homes.push((name, vec![origin]));
        self.packages.push(package);
        Ok(())
    }

    /// Takes in the relations of a package.
    fn relate(&mut self, package: &Package) -> Result<(), BadRelation> {
        for kind in Kind::ALL {
            let text = kind.text(package);
            let bad = |source| BadRelation { package: package.to_string(), field: kind.field(), source };
            for group in text.split(',').map(str::trim_ascii).filter(|group| !group.is_empty()) {
                let mut alternatives = group.split('|').peekable();
                while let Some(alternative) = alternatives.next() {
                    let relation = relation::parse(alternative).map_err(bad)?;
                    let (operator, at, length) = match relation.version {
                        None => (None, 0, 0),
                        // The condition is a piece of `text`: remember where it stands.
                        Some((operator, wanted)) => {
                            (Some(operator), wanted.as_ptr() as usize - text.as_ptr() as usize, wanted.len())
                        }
                    };
                    let (Ok(at), Ok(length)) = (u32::try_from(at), u16::try_from(length)) else {
                        return Err(bad(NotARelation::too_long(alternative)));
                    };
                    let target = self.target(&relation);
                    let or_next = alternatives.peek().is_some();
                    self.deps.push(Dep { target, kind, or_next, operator, length, at });
                }
            }
        }
        Ok(())
    }

    /// Takes in what a package provides, with what apt adds to that for `Multi-Arch: allowed`.
    fn provide(&mut self, package: &Package, id: PackageId, own: NameId) -> Result<(), BadRelation> {
        let allowed = package.multi_arch == MultiArch::Allowed;
        for relation in package.provided() {
            let bad = |source| BadRelation { package: package.to_string(), field: "Provides", source };
            let relation = relation.map_err(bad)?;
            let provided: Option<Box<str>> = match relation.version {
                None => None,
                Some((Operator::Equal, provided)) => Some(provided.into()),
                // Policy 7.5 knows nothing but `=` here; dpkg and apt pass over the rest.
                Some(_) => continue,
            };
            if allowed && relation.qualifier.is_none() {
                let any = self.intern(&format!("{}:any", relation.name));
                self.names[any.0 as usize].providers.push(Provider { owner: id, version: provided.clone() });
            }
            let target = self.target(&relation);
            let itself =
                target == own && provided.as_deref().is_none_or(|one| one == package.version.as_str());
            if !itself {
                self.names[target.0 as usize].providers.push(Provider { owner: id, version: provided });
            }
        }
        if allowed {
            let any = self.intern(&format!("{}:any", package.name));
            let version = Some(package.version.as_str().into());
            self.names[any.0 as usize].providers.push(Provider { owner: id, version });
        }
        Ok(())
    }

    /// The name a relation means. `:native` and our own architecture mean the package itself; `:any` is a name of its
    /// own, which only packages that allow it provide; another architecture is a name nobody has.
    fn target(&mut self, relation: &Relation) -> NameId {
        match relation.qualifier {
            None => self.intern(relation.name),
            Some(qualifier)
                if qualifier == "native" || qualifier == "all" || qualifier == self.architecture =>
            {
                self.intern(relation.name)
            }
            Some(qualifier) => self.intern(&format!("{}:{qualifier}", relation.name)),
        }
    }

    fn intern(&mut self, text: &str) -> NameId {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = NameId(self.names.len() as u32);
        self.names.push(Name { text: text.into(), ..Name::default() });
        self.numbers.insert(text.into(), number);
        number
    }
}
