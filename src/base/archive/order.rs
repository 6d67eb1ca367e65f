//! The order in which packages are merged. It decides whose metadata a shared directory gets and in which order `preinst`
//! scripts run, so it depends on nothing but the packages.

use crate::debian::deb::Control;
use crate::debian::relation;
use std::collections::BTreeMap;

/// The places of all packages: base-files first, which makes the links `/bin -> usr/bin` and the like that others are
/// unpacked through; then the essential ones; each after what it pre-depends on and, where that is no circle, after
/// what it depends on; else by name.
pub(super) fn order(packages: &[&Control]) -> Vec<usize> {
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut sorted: Vec<usize> = (0..packages.len()).collect();
    sorted.sort_by_key(|index| {
        let package = packages[*index];
        (!package.essential, &package.name, &package.architecture, *index)
    });
    for index in &sorted {
        let package = packages[*index];
        by_name.entry(&package.name).or_default().push(*index);
        let provides = relation::list(package.field("Provides")).flatten();
        provides.for_each(|provided| by_name.entry(provided.name).or_default().push(*index));
    }
    let mut walk = Walk { packages, by_name, visited: vec![false; packages.len()], done: Vec::new() };
    let first = sorted.iter().position(|index| packages[*index].name == "base-files");
    if let Some(first) = first {
        let index = sorted.remove(first);
        walk.visited[index] = true;
        walk.done.push(index);
    }
    for index in sorted {
        walk.visit(index);
    }
    walk.done
}

struct Walk<'a> {
    packages: &'a [&'a Control],
    by_name: BTreeMap<&'a str, Vec<usize>>,
    visited: Vec<bool>,
    done: Vec<usize>,
}

impl Walk<'_> {
    /// Depth first, with a stack of its own: chains of dependencies are as long as their author likes.
    fn visit(&mut self, index: usize) {
        let mut stack = vec![(index, None)];
        while let Some((index, needs)) = stack.pop() {
            let mut needs: std::vec::IntoIter<usize> = match needs {
                Some(needs) => needs,
                None if self.visited[index] => continue,
                None => {
                    self.visited[index] = true;
                    self.needs(index).into_iter()
                }
            };
            match needs.find(|need| !self.visited[*need]) {
                Some(need) => {
                    stack.push((index, Some(needs)));
                    stack.push((need, None));
                }
                None => self.done.push(index),
            }
        }
    }

    fn needs(&self, index: usize) -> Vec<usize> {
        let package = self.packages[index];
        let fields = [package.field("Pre-Depends"), package.field("Depends")];
        let groups = fields.into_iter().flat_map(relation::groups).flatten();
        let names = groups.flat_map(|group| group.iter().map(|relation| relation.name).collect::<Vec<_>>());
        names.filter_map(|name| self.by_name.get(name)).flatten().copied().collect()
    }
}
