//! `extends`: from the files of a chain to one document in which every value still knows its line.
//!
//! The rules are the same everywhere, so that nobody has to look them up key by key: tables merge, lists add,
//! everything else is replaced; `"-word"` in a list takes a word of the parent's away, and `name = false` a table.

use super::diagnostics::{Diagnostic, Diagnostics, Report, did_you_mean};
use super::node::{self, Field, Node, Value};
use super::section::Section;
use super::shipped;
use super::source::{Home, Place, Source, Sourced};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How many profiles a chain may have. The shipped ones have two.
const MAX_CHAIN: usize = 8;

/// The longest profile or manifest that is read. Real ones have a few kilobytes.
pub(super) const MAX_TEXT: u64 = 1 << 20;

/// One profile of a chain.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its name: `[a-z0-9][a-z0-9-]*`.
    pub name: Sourced<String>,
    /// One line about it; may be empty.
    pub description: String,
    /// The file.
    pub source: Arc<Source>,
}

/// A word of a parent's list that a child took away, or replaced.
#[derive(Clone, Debug)]
pub(super) struct Removal {
    /// The list: `packages`.
    pub path: String,
    /// The word as the parent had it.
    pub word: String,
    /// Where the child said so.
    pub place: Place,
}

/// A chain, composed.
pub(super) struct Composed {
    /// From the outermost parent to the profile that was asked for.
    pub layers: Vec<Layer>,
    /// The document.
    pub fields: Vec<Field>,
    /// What children took from parents.
    pub removals: Vec<Removal>,
    /// Stands for the whole document: the head of the profile that was asked for.
    pub place: Place,
}

/// Reads a profile and its parents. Findings about what the files say go to the report; without the files there is
/// nothing to say more about, so that is an error at once.
pub(super) fn compose(reference: &str, report: &Report) -> Result<Composed, Diagnostics> {
    let mut chain: Vec<(Located, Layer, Vec<Field>)> = Vec::new();
    let mut next = Some(locate(reference, None)?);
    while let Some(located) = next.take() {
        let source = located.read()?;
        let mut fields = node::parse(&source, report);
        let (layer, extends) = head(&mut fields, &source, report);
        chain.push((located, layer, fields));
        if let Some(parent) = extends {
            let located = locate(&parent, Some((&parent, source.home())))?;
            check_chain(&chain, &located, &parent)?;
            next = Some(located);
        }
    }
    let place = chain.first().map(|(_, layer, _)| layer.source.place(0..0));
    let mut merger = Merger { report, removals: Vec::new() };
    let mut layers = Vec::new();
    let mut document = Vec::new();
    for (_, layer, fields) in chain.into_iter().rev() {
        document = merger.tables(document, fields, "");
        layers.push(layer);
    }
    let place = place.ok_or_else(|| Diagnostic::new("a chain of profiles has at least one"))?;
    Ok(Composed { layers, fields: document, removals: merger.removals, place })
}

/// Takes out what belongs to one file alone and is never inherited.
fn head(fields: &mut Vec<Field>, source: &Arc<Source>, report: &Report) -> (Layer, Option<Sourced<String>>) {
    let own = |field: &Field| matches!(field.key.as_str(), "name" | "description" | "extends");
    let (mine, rest) = std::mem::take(fields).into_iter().partition(own);
    *fields = rest;
    let mut section = Section::document(mine, source.place(0..0), report);
    let label = Path::new(source.label().trim_start_matches("shipped:"));
    let stem = label.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let given = section.parsed("name", |text| check_name(text).map(|()| text.to_owned()));
    let name = given.unwrap_or_else(|| {
        if let Err(problem) = check_name(&stem)
            && report.is_clean()
        {
            let title = format!("the file's name `{}` cannot be the profile's name", stem.escape_debug());
            let one = Diagnostic::new(title).mark(&source.place(0..0), problem);
            report.add(one.hint("add `name = \"…\"` at the top"));
        }
        Sourced::default_value(stem)
    });
    let description = section.line("description").map(Sourced::into_value).unwrap_or_default();
    let extends = section.line("extends");
    (Layer { name, description, source: source.clone() }, extends)
}

/// A profile's name becomes file names and part of labels.
fn check_name(text: &str) -> Result<(), String> {
    let mut letters = text.bytes();
    let first = letters.next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let fine = letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
    if first && fine && text.len() <= 63 {
        Ok(())
    } else {
        Err("must be lower-case letters, digits and `-`, at most 63".into())
    }
}

/// Where a profile was found.
#[derive(Debug)]
enum Located {
    Shipped(&'static shipped::ShippedProfile),
    File { path: PathBuf, asked: Option<Place> },
}

impl Located {
    /// Whether both are the same file, whatever it was called.
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Shipped(a), Self::Shipped(b)) => a.name == b.name,
            (Self::File { path: a, .. }, Self::File { path: b, .. }) => {
                let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
                real(a) == real(b)
            }
            _ => false,
        }
    }

    fn read(&self) -> Result<Arc<Source>, Diagnostics> {
        match self {
            Self::Shipped(profile) => {
                let label = format!("shipped:{}.toml", profile.name);
                Ok(Source::new(label, profile.text, Home::Shipped))
            }
            Self::File { path, asked } => {
                let text = read_text(path).map_err(|problem| {
                    let one = Diagnostic::new(format!("cannot read {}: {problem}", path.display()));
                    match asked {
                        Some(place) => one.mark(place, "wanted here"),
                        None => one,
                    }
                })?;
                let home = path.parent().map(Path::to_owned).unwrap_or_default();
                Ok(Source::new(path.display().to_string(), text, Home::Directory(home)))
            }
        }
    }
}

/// A relative path below a directory, without the `./` that would only be in the way when it is shown.
pub(super) fn below(home: &Path, path: &str) -> PathBuf {
    home.join(path).components().collect()
}

/// Why a file could not be read, without the number that `io::Error` adds for programmers.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map(|(words, _)| words.to_owned()).unwrap_or(text)
}

/// Reads a text of bounded length.
pub(super) fn read_text(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| reason(&error))?;
    file.take(MAX_TEXT + 1).read_to_end(&mut bytes).map_err(|error| reason(&error))?;
    if bytes.len() as u64 > MAX_TEXT {
        return Err(format!("it is longer than {} KiB, which no profile is", MAX_TEXT >> 10));
    }
    String::from_utf8(bytes)
        .map_err(|error| format!("it is not UTF-8 text (at byte {})", error.utf8_error().valid_up_to()))
}

/// A name is a shipped profile; what has a `/` or ends in `.toml` is a path, relative to the file that names it.
fn locate(text: &str, named_in: Option<(&Sourced<String>, &Home)>) -> Result<Located, Diagnostics> {
    let mark = |one: Diagnostic, label: &str| match named_in {
        Some((word, _)) => one.mark_origin(word.origin(), label),
        None => one,
    };
    if !text.contains('/') && !text.ends_with(".toml") {
        if let Some(profile) = shipped::profile(text) {
            return Ok(Located::Shipped(profile));
        }
        let names: Vec<&str> = shipped::PROFILES.iter().map(|profile| profile.name).collect();
        let hint = did_you_mean(text, names.iter().copied()).unwrap_or_else(|| {
            format!(
                "shipped are {}; a profile of your own is named by its path: `./{text}.toml`",
                names.join(", ")
            )
        });
        let one = Diagnostic::new(format!("no profile is called `{}`", text.escape_debug()));
        return Err(mark(one, "").hint(hint).into());
    }
    match named_in {
        None => Ok(Located::File { path: PathBuf::from(text), asked: None }),
        Some((word, Home::Directory(home))) => {
            Ok(Located::File { path: below(home, text), asked: word.origin().place().cloned() })
        }
        Some((_, Home::Shipped)) => {
            Err(mark(Diagnostic::new("a shipped profile can only extend a shipped profile"), "").into())
        }
    }
}

fn check_chain(
    chain: &[(Located, Layer, Vec<Field>)],
    next: &Located,
    extends: &Sourced<String>,
) -> Result<(), Diagnostics> {
    if chain.iter().any(|(located, _, _)| located.same(next)) {
        let names: Vec<&str> = chain.iter().map(|(_, layer, _)| layer.name.as_str()).collect();
        let one = Diagnostic::new("a profile cannot extend itself");
        let one = one.mark_origin(extends.origin(), "this closes the circle");
        return Err(one.hint(format!("the chain so far: {}", names.join(" extends "))).into());
    }
    if chain.len() >= MAX_CHAIN {
        let one = Diagnostic::new(format!("a chain of more than {MAX_CHAIN} profiles"));
        return Err(one.mark_origin(extends.origin(), "one more here").into());
    }
    Ok(())
}

/// What makes two words of a list the same thing: of a package its name, of everything else the whole.
pub(super) fn identity<'t>(path: &str, word: &'t str) -> &'t str {
    match path {
        "packages" => word.split(['/', '=']).next().unwrap_or(word),
        _ => word,
    }
}

struct Merger<'r> {
    report: &'r Report,
    removals: Vec<Removal>,
}

impl Merger<'_> {
    fn tables(&mut self, parent: Vec<Field>, child: Vec<Field>, path: &str) -> Vec<Field> {
        let mut merged = parent;
        for field in child {
            let path = if path.is_empty() { field.key.clone() } else { format!("{path}.{}", field.key) };
            let at = merged.iter().position(|other| other.key == field.key);
            let Field { key, key_place, node } = field;
            let Node { place, value } = node;
            match (at, value) {
                (Some(at), Value::Flag(false)) if matches!(merged[at].node.value, Value::Table(_)) => {
                    merged.remove(at);
                }
                (Some(at), Value::Table(fields)) if matches!(merged[at].node.value, Value::Table(_)) => {
                    if let Value::Table(under) = &mut merged[at].node.value {
                        let under = std::mem::take(under);
                        merged[at].node.value = Value::Table(self.tables(under, fields, &path));
                    }
                }
                (Some(at), Value::List(items)) if matches!(merged[at].node.value, Value::List(_)) => {
                    if let Value::List(under) = &mut merged[at].node.value {
                        let under = std::mem::take(under);
                        merged[at].node.value = Value::List(self.lists(under, items, &path));
                    }
                }
                (at, value) => {
                    // Even where there is no parent, the child's own lists and tables go through the rules, so that
                    // a `-word` with nothing to take away is found.
                    let value = match value {
                        Value::Table(fields) => Value::Table(self.tables(Vec::new(), fields, &path)),
                        Value::List(items) => Value::List(self.lists(Vec::new(), items, &path)),
                        other => other,
                    };
                    let field = Field { key, key_place, node: Node { place, value } };
                    match at {
                        Some(at) => merged[at] = field,
                        None => merged.push(field),
                    }
                }
            }
        }
        merged
    }

    fn lists(&mut self, parent: Vec<Node>, child: Vec<Node>, path: &str) -> Vec<Node> {
        let inherited = parent.len();
        let mut merged: Vec<(bool, Node)> = parent.into_iter().map(|node| (true, node)).collect();
        merged.reserve(inherited);
        for item in child {
            let Value::Text(word) = &item.value else {
                merged.push((false, item));
                continue;
            };
            let (taken, wanted) = match word.strip_prefix('-') {
                // A private key begins with dashes too; that it has no business here is said elsewhere.
                Some(rest) if !rest.is_empty() && !rest.starts_with("----") => (true, identity(path, rest)),
                _ => (false, identity(path, word)),
            };
            let same = |(_, node): &(bool, Node)| matches!(&node.value, Value::Text(other) if identity(path, other) == wanted);
            match (merged.iter().position(same), taken) {
                (Some(at), true) => {
                    let (_, node) = merged.remove(at);
                    self.removed(path, &node, &item.place);
                }
                (None, true) => self.nothing_to_remove(path, wanted, &merged, &item.place),
                (Some(at), false) if !merged[at].0 => {
                    let one = Diagnostic::new(format!("`{wanted}` is in `{path}` twice"));
                    let one = one.mark(&item.place, "again here");
                    self.report.add(one.mark(&merged[at].1.place, "first here"));
                }
                (Some(at), false) => {
                    // The parent's line stays the origin unless the child says something else.
                    let differs = !matches!(&merged[at].1.value, Value::Text(other) if other == word);
                    if differs {
                        let old = std::mem::replace(&mut merged[at], (false, item));
                        let place = merged[at].1.place.clone();
                        self.removed(path, &old.1, &place);
                    }
                }
                (None, false) => merged.push((false, item)),
            }
        }
        merged.into_iter().map(|(_, node)| node).collect()
    }

    fn removed(&mut self, path: &str, node: &Node, place: &Place) {
        if let Value::Text(word) = &node.value {
            self.removals.push(Removal { path: path.to_owned(), word: word.clone(), place: place.clone() });
        }
    }

    fn nothing_to_remove(&self, path: &str, word: &str, merged: &[(bool, Node)], place: &Place) {
        let there = merged.iter().filter_map(|(_, node)| match &node.value {
            Value::Text(word) => Some(identity(path, word)),
            _ => None,
        });
        let hint = did_you_mean(word, there);
        let hint = hint.unwrap_or_else(|| format!("`-` takes away what a parent put into `{path}`"));
        let one = Diagnostic::new(format!(
            "nothing to take away: no parent has `{}` in `{path}`",
            word.escape_debug()
        ));
        self.report.add(one.mark(place, "").hint(hint));
    }
}
