//! A TOML document as a value in which everything knows its place, ready to be merged with others.

use super::diagnostics::{Diagnostic, Report};
use super::source::{Place, Source};
use std::sync::Arc;
use toml::de::{DeTable, DeValue};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The text that says so.
    pub place: Place,
    /// What it says.
    pub value: Value,
}

/// What a [`Node`] says. Numbers with a fraction, dates and numbers past 64 bits mean nothing in a profile and are
/// kept only as the word for an error message.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Flag(bool),
    List(Vec<Node>),
    /// Fields in the order of the file.
    Table(Vec<Field>),
    Other(&'static str),
}

/// A key of a table and its value.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub key: String,
    pub key_place: Place,
    pub node: Node,
}

impl Value {
    /// The word for messages, with its article.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "a number",
            Self::Flag(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(word) => word,
        }
    }
}

/// Reads a document as far as it can be read; what cannot is reported.
pub(super) fn parse(source: &Arc<Source>, report: &Report) -> Vec<Field> {
    let (document, errors) = DeTable::parse_recoverable(source.text());
    let mut lines = Vec::new();
    for error in &errors {
        let place = source.place(error.span().unwrap_or(0..0));
        // Past the first error of a line, and a few lines on, the parser mostly finds echoes of what it found before.
        if lines.len() == 3 || lines.contains(&place.line()) {
            continue;
        }
        lines.push(place.line());
        report.add(Diagnostic::new("this is not TOML").mark(&place, first_line(error.message())));
    }
    // What recovery makes of a broken document is a guess; judging the guess would only add noise.
    if errors.is_empty() { fields(document.get_ref(), source) } else { Vec::new() }
}

fn first_line(message: &str) -> String {
    message.replace('\n', ", ")
}

fn fields(table: &DeTable<'_>, source: &Arc<Source>) -> Vec<Field> {
    let mut fields: Vec<Field> = table
        .iter()
        .map(|(key, value)| Field {
            key: key.get_ref().to_string(),
            key_place: source.place(key.span()),
            node: node(value.get_ref(), source.place(value.span()), source),
        })
        .collect();
    fields.sort_by_key(|field| field.key_place.span().start);
    fields
}

/// The parser bounds how deep values nest (80 levels), so this recursion is bounded too.
fn node(value: &DeValue<'_>, place: Place, source: &Arc<Source>) -> Node {
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Other("a number past 64 bits"),
        },
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Datetime(_) => Value::Other("a date or time"),
        DeValue::Array(items) => Value::List(
            items.iter().map(|item| node(item.get_ref(), source.place(item.span()), source)).collect(),
        ),
        DeValue::Table(table) => Value::Table(fields(table, source)),
    };
    Node { place, value }
}
