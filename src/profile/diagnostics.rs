//! What is wrong with a profile, shown the way a compiler does: the file, the line, the words in question, a hint.

use super::source::{Origin, Place};
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    title: String,
    marks: Vec<(Place, String)>,
    hint: Option<String>,
}

impl Diagnostic {
    /// A finding in one sentence, lower case, without a full stop.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), marks: Vec::new(), hint: None }
    }

    /// A value that is no good. The problem is a few words to write beside it, and may go on with a hint on its next
    /// line.
    pub(super) fn of_value(title: impl Into<String>, origin: &Origin, problem: &str) -> Self {
        let (label, hint) = match problem.split_once('\n') {
            Some((label, hint)) => (label, Some(hint.to_owned())),
            None => (problem, None),
        };
        Self::new(title).mark_origin(origin, label).maybe_hint(hint)
    }

    /// Underlines a place and writes a few words beside it. The first mark is what is wrong, later ones explain.
    pub fn mark(mut self, place: &Place, label: impl Into<String>) -> Self {
        self.marks.push((place.clone(), label.into()));
        self
    }

    /// Like [`Diagnostic::mark`], for a value that may be hardtack's own default and then has no place.
    pub fn mark_origin(self, origin: &Origin, label: impl Into<String>) -> Self {
        match origin.place() {
            Some(place) => self.mark(place, label),
            None => self,
        }
    }

    /// What to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Like [`Diagnostic::hint`], when there may be none.
    pub fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    /// The finding, in one sentence.
    pub fn title(&self) -> &str {
        &self.title
    }

    fn group(&self) -> Group<'_> {
        let mut group = Group::with_title(Level::ERROR.primary_title(self.title.as_str()));
        let mut done: Vec<&Place> = Vec::new();
        for (place, _) in &self.marks {
            if done.iter().any(|other| Arc::ptr_eq(other.source(), place.source())) {
                continue;
            }
            done.push(place);
            let here = self
                .marks
                .iter()
                .enumerate()
                .filter(|(_, (other, _))| Arc::ptr_eq(other.source(), place.source()));
            let source = place.source();
            let snippet = Snippet::source(source.text()).path(source.label()).annotations(here.map(
                |(number, (place, label))| {
                    let kind = if number == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
                    kind.span(place.span()).label((!label.is_empty()).then_some(label.as_str()))
                },
            ));
            group = group.element(snippet);
        }
        if let Some(hint) = &self.hint {
            group = group.element(Level::HELP.with_name("hint").message(hint.as_str()));
        }
        group
    }
}

/// Everything that is wrong, file by file and in the order of their lines. Never empty.
#[derive(Clone, Debug)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// The findings.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }

    /// The text to show, one paragraph a finding; with colours when `styled`.
    pub fn render(&self, styled: bool) -> String {
        let renderer = if styled { Renderer::styled() } else { Renderer::plain() }.term_width(120);
        let parts: Vec<String> = self.0.iter().map(|one| renderer.render(&[one.group()])).collect();
        parts.join("\n\n")
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(one: Diagnostic) -> Self {
        Self(vec![one])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// Where findings gather while a profile is read: reading goes on after the first one, so that all of them can be
/// shown together.
#[derive(Default)]
pub(super) struct Report {
    found: RefCell<Vec<Diagnostic>>,
    keys: RefCell<BTreeSet<String>>,
}

impl Report {
    /// Takes down a finding.
    pub fn add(&self, diagnostic: Diagnostic) {
        // A file with a wrong letter in every line is not helped by a thousand paragraphs.
        if self.found.borrow().len() < 100 {
            self.found.borrow_mut().push(diagnostic);
        }
    }

    /// Takes down what was found in a file that `origin` named.
    pub fn add_all(&self, found: Diagnostics, origin: &Origin) {
        for one in found.0 {
            // What has no place of its own, such as a file that is not there, is shown where it was asked for.
            let one = if one.marks.is_empty() { one.mark_origin(origin, "wanted here") } else { one };
            self.add(one);
        }
    }

    /// Remembers that a key is one we know; tests hold this list against the documentation.
    pub fn know(&self, key: String) {
        self.keys.borrow_mut().insert(key);
    }

    /// Every key that was asked for.
    #[cfg(test)]
    pub fn keys(&self) -> BTreeSet<String> {
        self.keys.borrow().clone()
    }

    /// How many findings there are so far.
    pub fn count(&self) -> usize {
        self.found.borrow().len()
    }

    /// Whether nothing was found so far.
    pub fn is_clean(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// The value, if nothing was found.
    pub fn judge<T>(&self, value: Option<T>) -> Result<T, Diagnostics> {
        let mut found = self.found.take();
        match value {
            Some(value) if found.is_empty() => Ok(value),
            _ => {
                found.sort_by_key(|one| {
                    let place = one.marks.first().map(|(place, _)| place);
                    place.map(|place| (place.source().label().to_owned(), place.span().start))
                });
                if found.is_empty() {
                    // Whoever gives no value says why; should one forget, it must not look like success.
                    found.push(Diagnostic::new("the profile could not be read"));
                }
                Err(Diagnostics(found))
            }
        }
    }
}

/// `did you mean …?` when one of `known` is close to `word`: a slip for every three letters, counting swapped neighbours as one.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    // Words are compared letter by letter: bound the work for hostile input.
    if word.len() > 100 {
        return None;
    }
    let allowed = word.chars().count().max(3) / 3;
    let lower = word.to_lowercase();
    let near = known.into_iter().filter(|other| other.len() <= 100 && *other != word);
    let near = near.map(|other| (distance(&lower, &other.to_lowercase()), other));
    let mut near: Vec<(usize, &str)> =
        near.filter(|(far, other)| *far <= allowed && *far < other.chars().count().max(2)).collect();
    near.sort_unstable();
    match near.as_slice() {
        [] => None,
        // Two that are equally near are a guess, and a wrong guess is worse than none.
        [(first, _), (second, _), ..] if first == second => None,
        [(_, best), ..] => Some(format!("did you mean `{best}`?")),
    }
}

/// Optimal string alignment distance.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let swap = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + swap);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_close_or_absent() {
        let known = ["packages", "ports", "overlays", "units"];
        assert_eq!(did_you_mean("pakcages", known).as_deref(), Some("did you mean `packages`?"));
        assert_eq!(did_you_mean("Port", known).as_deref(), Some("did you mean `ports`?"));
        assert_eq!(did_you_mean("colour", known), None);
        assert_eq!(did_you_mean("ab", ["xy"]), None);
        assert_eq!(did_you_mean("pi6", ["pi3", "pi4"]), None, "which one would be a guess");
    }

    #[test]
    fn distances_count_slips() {
        for (a, b, far) in [("", "abc", 3), ("lan", "lna", 1), ("lan", "wan", 1), ("kitten", "sitting", 3)] {
            assert_eq!(distance(a, b), far, "{a} {b}");
        }
    }
}
