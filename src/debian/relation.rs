//! Relations between packages: `Depends`, `Conflicts`, `Provides` and their like (Debian policy chapter 7).
//!
//! What is read borrows from the field's text, so that the fields of 70,000 packages can stay text until the solver
//! comes across them.

use super::version;
use std::cmp::Ordering;
use std::fmt;

/// How a version is compared with the one in a relation (policy 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=`, and `<` as dpkg still reads it
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`, and `>` as dpkg still reads it
    LaterOrEqual,
    /// `>>`
    Later,
}

impl Operator {
    /// Whether `found` stands in this relation to `wanted`.
    pub fn holds(self, found: &str, wanted: &str) -> bool {
        let order = version::compare(found, wanted);
        match self {
            Self::Earlier => order == Ordering::Less,
            Self::EarlierOrEqual => order != Ordering::Greater,
            Self::Equal => order == Ordering::Equal,
            Self::LaterOrEqual => order != Ordering::Less,
            Self::Later => order == Ordering::Greater,
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Earlier => "<<",
            Self::EarlierOrEqual => "<=",
            Self::Equal => "=",
            Self::LaterOrEqual => ">=",
            Self::Later => ">>",
        })
    }
}

/// One package in a relation: `name:qualifier (op version) [architectures] <profiles>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relation<'a> {
    /// The package, real or virtual.
    pub name: &'a str,
    /// `any`, `native` or an architecture behind the colon.
    pub qualifier: Option<&'a str>,
    /// The version in brackets; valid.
    pub version: Option<(Operator, &'a str)>,
    /// The text between `[` and `]`; only source packages and build dependencies have it.
    pub architectures: Option<&'a str>,
    /// The text of all `<…>` groups, as written; only build dependencies have it.
    pub profiles: Option<&'a str>,
}

impl Relation<'_> {
    /// Whether the version condition, if there is one, holds for `found`.
    pub fn admits(&self, found: &str) -> bool {
        self.version.is_none_or(|(operator, wanted)| operator.holds(found, wanted))
    }

    /// Whether the `[…]` list, if there is one, includes the architecture: a list of names, or of names that all begin
    /// with `!` (policy 7.1). The wildcards `any`, `linux-any` and `any-<cpu>` are known.
    pub fn applies_to(&self, architecture: &str) -> bool {
        let Some(list) = self.architectures else { return true };
        let matches = |name: &str| {
            name == architecture
                || name == "any"
                || name == "linux-any"
                || name.strip_prefix("any-") == Some(architecture)
        };
        let mut names = list.split_ascii_whitespace().peekable();
        match names.peek() {
            Some(first) if first.starts_with('!') => !names.any(|name| matches(name.trim_start_matches('!'))),
            _ => names.any(matches),
        }
    }
}

/// Written as policy does: `name:any (>= 1.0)`.
impl fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(qualifier) = self.qualifier {
            write!(f, ":{qualifier}")?;
        }
        if let Some((operator, version)) = self.version {
            write!(f, " ({operator} {version})")?;
        }
        if let Some(architectures) = self.architectures {
            write!(f, " [{architectures}]")?;
        }
        if let Some(profiles) = self.profiles {
            write!(f, " {profiles}")?;
        }
        Ok(())
    }
}

/// A relation that is not written as policy says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a relation to a package: {why}")]
pub struct NotARelation {
    text: String,
    why: &'static str,
}

impl NotARelation {
    pub(super) fn too_long(text: &str) -> Self {
        Self { text: text.chars().take(120).collect(), why: "it is longer than any real one" }
    }
}

/// The groups of a relation field, separated by commas; the alternatives in each are separated by `|`.
///
/// Empty groups (a comma at the end) are passed over, as dpkg does; an empty alternative is an error.
pub fn groups(field: &str) -> impl Iterator<Item = Result<Alternatives<'_>, NotARelation>> {
    field.split(',').map(str::trim_ascii).filter(|group| !group.is_empty()).map(|group| {
        for alternative in group.split('|') {
            parse(alternative)?;
        }
        Ok(Alternatives { text: group })
    })
}

/// `a | b | c`, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alternatives<'a> {
    text: &'a str,
}

impl<'a> Alternatives<'a> {
    /// The alternatives in the order of preference; at least one.
    pub fn iter(&self) -> impl Iterator<Item = Relation<'a>> + use<'a> {
        // They were parsed once already, so that none is lost here.
        self.text.split('|').filter_map(|alternative| parse(alternative).ok())
    }
}

impl fmt::Display for Alternatives<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

/// Reads a field that has no alternatives (`Conflicts`, `Breaks`, `Replaces`, `Provides`).
pub fn list(field: &str) -> impl Iterator<Item = Result<Relation<'_>, NotARelation>> {
    field.split(',').map(str::trim_ascii).filter(|one| !one.is_empty()).map(parse)
}

/// Reads one alternative.
pub fn parse(text: &str) -> Result<Relation<'_>, NotARelation> {
    let text = text.trim_ascii();
    let wrong = |why| NotARelation { text: text.chars().take(120).collect(), why };
    let end = text.find(|c: char| c.is_ascii_whitespace() || "([<:".contains(c)).unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    if !is_package_name(name) {
        return Err(wrong("expected the name of a package: lower-case letters, digits and `+-.`"));
    }
    let mut relation = Relation { name, qualifier: None, version: None, architectures: None, profiles: None };
    if let Some(behind) = rest.strip_prefix(':') {
        let end = behind.find(|c: char| c.is_ascii_whitespace() || "([<".contains(c)).unwrap_or(behind.len());
        let (qualifier, behind) = behind.split_at(end);
        if !is_architecture(qualifier) {
            return Err(wrong("expected `any`, `native` or an architecture behind the colon"));
        }
        (relation.qualifier, rest) = (Some(qualifier), behind);
    }
    rest = rest.trim_ascii_start();
    if let Some(behind) = rest.strip_prefix('(') {
        let (inside, behind) = behind.split_once(')').ok_or_else(|| wrong("the `(` is not closed"))?;
        relation.version = Some(condition(inside).map_err(wrong)?);
        rest = behind.trim_ascii_start();
    }
    if let Some(behind) = rest.strip_prefix('[') {
        let (inside, behind) = behind.split_once(']').ok_or_else(|| wrong("the `[` is not closed"))?;
        relation.architectures = Some(inside.trim_ascii()).filter(|list| !list.is_empty());
        if relation.architectures.is_none() {
            return Err(wrong("the list of architectures is empty"));
        }
        rest = behind.trim_ascii_start();
    }
    if rest.starts_with('<') {
        let whole = rest;
        while let Some(behind) = rest.strip_prefix('<') {
            rest = behind.split_once('>').ok_or_else(|| wrong("the `<` is not closed"))?.1.trim_ascii_start();
        }
        relation.profiles = Some(whole[..whole.len() - rest.len()].trim_ascii());
    }
    if rest.is_empty() { Ok(relation) } else { Err(wrong("there is more behind its end")) }
}

/// Reads what stands in the brackets: an operator and a version.
fn condition(text: &str) -> Result<(Operator, &str), &'static str> {
    let text = text.trim_ascii();
    let end = text.find(|c: char| !"<=>".contains(c)).unwrap_or(text.len());
    let (operator, version) = text.split_at(end);
    let operator = match operator {
        "<<" => Operator::Earlier,
        "<=" | "<" => Operator::EarlierOrEqual,
        "=" => Operator::Equal,
        ">=" | ">" => Operator::LaterOrEqual,
        ">>" => Operator::Later,
        _ => return Err("expected one of `<<`, `<=`, `=`, `>=`, `>>` in the brackets"),
    };
    let version = version.trim_ascii();
    version::fault(version).map_or(Ok((operator, version)), Err)
}

/// Policy 5.6.1: at least two of lower-case letters, digits and `+-.`, beginning with a letter or digit. A single
/// character and upper case are let through as dpkg lets them: real third-party archives have them.
pub fn is_package_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte))
}

/// Whether the text may be the name of an architecture: letters, digits and `-`.
pub fn is_architecture(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_whole_grammar_is_read() {
        let field = "libc6 (>= 2.36), python3:any (>=3.11~) | python3:native, a(<<1)[arm64 !x] <!nocheck> <stage1 !cross> , b,";
        let groups: Vec<Vec<_>> = groups(field).map(|group| group.unwrap().iter().collect()).collect();
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2, 1, 1]);
        assert_eq!(groups[0][0].version, Some((Operator::LaterOrEqual, "2.36")));
        assert_eq!((groups[1][0].qualifier, groups[1][1].qualifier), (Some("any"), Some("native")));
        assert_eq!(groups[1][0].version, Some((Operator::LaterOrEqual, "3.11~")));
        assert_eq!(groups[2][0].architectures, Some("arm64 !x"));
        assert_eq!(groups[2][0].profiles, Some("<!nocheck> <stage1 !cross>"));
        assert_eq!(groups[2][0].to_string(), "a (<< 1) [arm64 !x] <!nocheck> <stage1 !cross>");
        assert_eq!(groups[3][0].to_string(), "b");
    }

    #[test]
    fn every_operator_holds_where_it_should() {
        for (text, admitted) in [
            ("a (<< 2)", [true, false, false]),
            ("a (<= 2)", [true, true, false]),
            ("a (< 2)", [true, true, false]),
            ("a (= 2)", [false, true, false]),
            ("a (>= 2)", [false, true, true]),
            ("a (> 2)", [false, true, true]),
            ("a (>> 2)", [false, false, true]),
            ("a", [true, true, true]),
        ] {
            let relation = parse(text).unwrap();
            assert_eq!(["1", "2-0", "2.1"].map(|version| relation.admits(version)), admitted, "{text}");
        }
    }

    #[test]
    fn architecture_lists_say_where_a_relation_applies() {
        for (text, applies) in [
            ("a", true),
            ("a [arm64]", true),
            ("a [amd64 arm64]", true),
            ("a [amd64]", false),
            ("a [!amd64]", true),
            ("a [!amd64 !arm64]", false),
            ("a [linux-any]", true),
            ("a [any-arm64]", true),
        ] {
            assert_eq!(parse(text).unwrap().applies_to("arm64"), applies, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_relation_is_refused() {
        for text in [
            "",
            "(>= 1)",
            "a b",
            "a (1)",
            "a (>= )",
            "a (>= 1",
            "a (=> 1)",
            "a:",
            "a:x_y",
            "a []",
            "a [b",
            "a <b",
            "a (= 1) x",
            "é",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(groups("a |, b").any(|group| group.is_err()));
        assert!(groups("a | | b").any(|group| group.is_err()));
        assert!(list("a | b").any(|one| one.is_err()));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[a-c0-1+:(\\[<>=!|,)\\] ~é-]{0,24}") {
            for group in groups(&text).flatten() {
                for relation in group.iter() {
                    let written = relation.to_string();
                    prop_assert_eq!(parse(&written).unwrap().name, relation.name);
                    relation.applies_to("arm64");
                }
            }
        }
    }
}
