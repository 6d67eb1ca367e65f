//! Reading one table: every key is asked for by name and type, and what nobody asked for is an unknown key.
//!
//! This is the wire format's gate. It is written over spanned values rather than with serde's derive because serde
//! stops at the first error, and a person who mends a profile wants to see all of them.

use super::diagnostics::{Diagnostic, Report, did_you_mean};
use super::node::{Field, Node, Value};
use super::source::{Place, Sourced};
use std::collections::BTreeSet;

/// A table being read. Dropping it reports the keys that nobody asked for.
pub(super) struct Section<'r> {
    /// As people write it: `ports.smb`; empty for the document.
    path: String,
    /// The same with `*` for names that people choose: `ports.*`.
    pattern: String,
    place: Place,
    fields: Vec<Field>,
    asked: BTreeSet<&'static str>,
    /// Keys that were asked for and there, well or badly.
    written: BTreeSet<&'static str>,
    /// Set when asking made no sense, so that silence is not taken for consent.
    quiet: bool,
    report: &'r Report,
}

impl<'r> Section<'r> {
    /// The whole document. `place` stands for it where something is missing.
    pub fn document(fields: Vec<Field>, place: Place, report: &'r Report) -> Self {
        Self::new(String::new(), String::new(), place, fields, report)
    }

    fn new(path: String, pattern: String, place: Place, fields: Vec<Field>, report: &'r Report) -> Self {
        Self {
            path,
            pattern,
            place,
            fields,
            asked: BTreeSet::new(),
            written: BTreeSet::new(),
            quiet: false,
            report,
        }
    }

    /// Where the table begins.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Where findings go.
    pub fn report(&self) -> &'r Report {
        self.report
    }

    /// A key as messages name it: `ports.smb.port`.
    pub fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Takes a value out, whatever it is.
    pub fn take(&mut self, key: &'static str) -> Option<Field> {
        self.asked.insert(key);
        self.report.know(if self.pattern.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.pattern)
        });
        let at = self.fields.iter().position(|field| field.key == key)?;
        self.written.insert(key);
        Some(self.fields.remove(at))
    }

    /// Whether a key that was asked for was there, even with a value that was no good.
    pub fn was_written(&self, key: &str) -> bool {
        self.written.contains(key)
    }

    fn wrong_type(&self, key: &str, node: &Node, wanted: &str) {
        let title = format!("`{}` must be {wanted}", self.name(key));
        self.report.add(Diagnostic::new(title).mark(&node.place, format!("this is {}", node.value.word())));
    }

    /// A text.
    pub fn text(&mut self, key: &'static str) -> Option<Sourced<String>> {
        let field = self.take(key)?;
        match field.node.value {
            Value::Text(text) => Some(Sourced::new(text, field.node.place)),
            _ => {
                self.wrong_type(key, &field.node, "a text");
                None
            }
        }
    }

    /// A text without control characters on one line, as goes into configuration files and reports.
    pub fn line(&mut self, key: &'static str) -> Option<Sourced<String>> {
        self.parsed(key, |text| match text.chars().any(char::is_control) {
            true => Err("must be one line without control characters".into()),
            false if text.trim().is_empty() => Err("must not be empty".into()),
            false => Ok(text.to_owned()),
        })
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &'static str) -> Option<Sourced<bool>> {
        let field = self.take(key)?;
        match field.node.value {
            Value::Flag(flag) => Some(Sourced::new(flag, field.node.place)),
            _ => {
                self.wrong_type(key, &field.node, "true or false");
                None
            }
        }
    }

    /// A text that `read` understands, or says in a few words why not (`must be …`).
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Sourced<T>> {
        let text = self.text(key)?;
        self.judge(key, &text, read)
    }

    fn judge<T>(
        &self,
        key: &str,
        text: &Sourced<String>,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Sourced<T>> {
        match read(text) {
            Ok(value) => Some(text.with(value)),
            Err(problem) => {
                let title = format!("bad value for `{}`", self.name(key));
                self.report.add(Diagnostic::of_value(title, text.origin(), &problem));
                None
            }
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<Sourced<T>> {
        self.parsed(key, |text| choose(text, words))
    }

    /// A list of texts that `read` understands.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<Sourced<T>> {
        let Some(field) = self.take(key) else { return Vec::new() };
        let Value::List(items) = field.node.value else {
            self.wrong_type(key, &field.node, "a list of texts");
            return Vec::new();
        };
        let mut values = Vec::new();
        for item in items {
            match item.value {
                Value::Text(text) => values.extend(self.judge(key, &Sourced::new(text, item.place), &read)),
                _ => self.wrong_type(key, &item, "a list of texts"),
            }
        }
        values
    }

    /// A table; an absent one reads as an empty one, and `None` means only that it was not written.
    pub fn table(&mut self, key: &'static str) -> (bool, Section<'r>) {
        let pattern =
            if self.pattern.is_empty() { key.to_owned() } else { format!("{}.{key}", self.pattern) };
        let (given, place, fields) = match self.take(key) {
            None => (false, self.place.clone(), Vec::new()),
            Some(field) => match field.node.value {
                Value::Table(fields) => (true, field.key_place, fields),
                _ => {
                    self.not_a_table(&self.name(key), &field);
                    let mut section =
                        Section::new(self.name(key), pattern, field.key_place, Vec::new(), self.report);
                    section.quiet = true;
                    return (false, section);
                }
            },
        };
        (given, Section::new(self.name(key), pattern, place, fields, self.report))
    }

    /// The named tables of a table, such as `[ports.smb]`: name and table, in the order of the files.
    pub fn named(&mut self, key: &'static str) -> Vec<(Sourced<String>, Section<'r>)> {
        let (_, mut outer) = self.table(key);
        outer.quiet = true;
        let (path, pattern) = (outer.path.clone(), format!("{}.*", outer.pattern));
        let mut sections = Vec::new();
        for field in std::mem::take(&mut outer.fields) {
            let path = format!("{path}.{}", bare_or_quoted(&field.key));
            match field.node.value {
                Value::Table(fields) => sections.push((
                    Sourced::new(field.key, field.key_place.clone()),
                    Section::new(path, pattern.clone(), field.key_place, fields, self.report),
                )),
                _ => self.not_a_table(&path, &field),
            }
        }
        sections
    }

    /// A table that was taken out with [`Section::take_all`], to be read like one of [`Section::named`].
    pub fn named_below(&self, key: &str, place: Place, fields: Vec<Field>) -> Section<'r> {
        let path = format!("{}.{}", self.path, bare_or_quoted(key));
        Section::new(path, format!("{}.*", self.pattern), place, fields, self.report)
    }

    /// The fields of a table whose keys are names and whose values are texts or lists: handed over as they are.
    pub fn take_all(&mut self) -> Vec<Field> {
        std::mem::take(&mut self.fields)
    }

    /// Takes keys that people try and that must not be there, with the reason.
    pub fn refuse(&mut self, keys: &[&str], title: &str, hint: &str) {
        for key in keys {
            if let Some(at) = self.fields.iter().position(|field| field.key == *key) {
                let field = self.fields.remove(at);
                self.report.add(Diagnostic::new(title).mark(&field.key_place, "").hint(hint));
            }
        }
    }

    /// Reports that a key should have been there.
    pub fn missing(&self, key: &str, hint: &str) {
        // A key that was misspelt is an unknown key; that it is missing as well is not worth a paragraph.
        if self.fields.iter().any(|field| did_you_mean(&field.key, [key]).is_some()) {
            return;
        }
        let title = match self.path.as_str() {
            "" => format!("`{key}` is missing"),
            path => format!("`[{path}]` has no `{key}`"),
        };
        self.report.add(Diagnostic::new(title).mark(&self.place, "").hint(hint));
    }

    fn not_a_table(&self, path: &str, field: &Field) {
        if let Value::Flag(false) = field.node.value {
            let title = format!("nothing to take away: no parent has `{path}`");
            self.report.add(Diagnostic::new(title).mark(&field.key_place.to(&field.node.place), ""));
            return;
        }
        let title = format!("`{path}` must be a table");
        let found = format!("this is {}", field.node.value.word());
        self.report.add(Diagnostic::new(title).mark(&field.node.place, found));
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        if self.quiet {
            return;
        }
        for field in &self.fields {
            let place = match self.path.as_str() {
                "" => "at the top of a file".to_owned(),
                path => format!("in `[{path}]`"),
            };
            let title = format!("unknown key `{}` {place}", field.key.escape_debug());
            let hint = did_you_mean(&field.key, self.asked.iter().copied()).unwrap_or_else(|| {
                let known: Vec<String> = self.asked.iter().map(|key| format!("`{key}`")).collect();
                format!("known here: {}", known.join(", "))
            });
            self.report.add(Diagnostic::new(title).mark(&field.key_place, "").hint(hint));
        }
    }
}

/// Finds a word in a table of words; the error is written for [`Section::parsed`].
pub(super) fn choose<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let known: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
    let problem = format!("must be {}", or(&known));
    match did_you_mean(text, words.iter().map(|(word, _)| *word)) {
        Some(hint) => Err(format!("{problem}\n{hint}")),
        None => Err(problem),
    }
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn or(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

fn bare_or_quoted(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !key.is_empty() && key.chars().all(bare) { key.to_owned() } else { format!("{key:?}") }
}
