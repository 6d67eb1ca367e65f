//! Control data: stanzas of `Name: value` fields (Debian policy chapter 5, deb822(5)).
//!
//! The reader walks over a borrowed buffer and copies nothing. It is as strict as dpkg: what dpkg would refuse in its
//! own database (a field given twice, a blank line inside a value, a field name with a space) is an error here.

use std::str;

/// Fields in one stanza. The longest in Debian's archive has about 40; the bound keeps the search for fields that
/// are given twice cheap on hostile input.
const MAX_FIELDS: usize = 512;

/// What is wrong with control data, and in which line (counted from 1).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the message shows")]
pub enum ControlError {
    /// A line is neither a field, nor a continuation, nor empty.
    #[error("line {line} of control data: expected `Name: value` or a continuation line, found `{found}`")]
    NotAField { line: usize, found: String },
    /// A continuation line where no field has begun.
    #[error(
        "line {line} of control data: a continuation line (starting with a space) without a field before it"
    )]
    Orphan { line: usize },
    /// A line of nothing but spaces, which readers disagree about: a separator for some, an error for dpkg.
    #[error(
        "line {line} of control data: a line of nothing but white space; an empty line in a value is written ` .`"
    )]
    Blank { line: usize },
    /// The same field twice in one stanza (policy 5.1 forbids it).
    #[error("line {line} of control data: the field `{name}` is given twice in one stanza")]
    Twice { line: usize, name: String },
    /// More fields than any real stanza has.
    #[error("the stanza at line {line} of control data has more than {MAX_FIELDS} fields")]
    TooMany { line: usize },
    /// A value that is not UTF-8 (policy 5.1 demands it).
    #[error("the field `{name}` of the stanza at line {line} is not UTF-8")]
    NotText { line: usize, name: String },
    /// A field that must be there is not.
    #[error("the stanza at line {line} has no field `{name}`")]
    Missing { line: usize, name: String },
    /// Exactly one stanza was expected.
    #[error("expected one stanza of control data, found {found}")]
    NotOne { found: &'static str },
    /// A value that cannot be written down as it is.
    #[error("cannot write the field `{name}`: {why}")]
    Unwritable { name: String, why: &'static str },
}

/// One field as it stands in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name as written. Compare names without regard to case.
    pub name: &'a str,
    /// The value from its first character to its last, continuation lines included as they stand. It starts with a
    /// newline where nothing follows the colon (`Conffiles:`).
    pub value: &'a [u8],
}

/// One stanza: fields in the order they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stanza<'a> {
    fields: Vec<Field<'a>>,
    line: usize,
}

impl<'a> Stanza<'a> {
    /// Reads a buffer that must hold exactly one stanza, such as the `control` file of a package.
    pub fn only(bytes: &'a [u8]) -> Result<Self, ControlError> {
        let mut stanzas = Stanzas::new(bytes);
        let stanza = stanzas.next().ok_or(ControlError::NotOne { found: "none" })??;
        match stanzas.next() {
            None => Ok(stanza),
            Some(Ok(_)) => Err(ControlError::NotOne { found: "more" }),
            Some(Err(error)) => Err(error),
        }
    }

    /// The line the stanza starts in, counted from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The fields in the order they were written.
    pub fn fields(&self) -> &[Field<'a>] {
        &self.fields
    }

    /// The value of a field, as it stands (see [`Field::value`]); names are compared without regard to case.
    pub fn raw(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// The value of a field as text, without white space around it; `None` when the field is absent.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>, ControlError> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        match str::from_utf8(value) {
            Ok(text) => Ok(Some(text.trim_ascii())),
            Err(_) => Err(ControlError::NotText { line: self.line, name: name.to_owned() }),
        }
    }

    /// As [`text`](Self::text), for a field that must be there.
    pub fn require(&self, name: &str) -> Result<&'a str, ControlError> {
        self.text(name)?.ok_or_else(|| ControlError::Missing { line: self.line, name: name.to_owned() })
    }

    /// The lines of a multi-line field, trimmed, without empty ones (`SHA256`, `Conffiles`); none when it is absent.
    pub fn lines(&self, name: &str) -> Result<impl Iterator<Item = &'a str> + use<'a>, ControlError> {
        let text = self.text(name)?.unwrap_or_default();
        Ok(text.split('\n').map(str::trim_ascii).filter(|line| !line.is_empty()))
    }
}

/// Reads stanzas one after the other out of a buffer. After an error it is at its end.
#[derive(Debug, Clone)]
pub struct Stanzas<'a> {
    bytes: &'a [u8],
    at: usize,
    line: usize,
}

impl<'a> Stanzas<'a> {
    /// Stands at the beginning of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, line: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Whether the line to come continues a value.
    fn at_continuation(&self) -> bool {
        matches!(self.peek(), Some(b' ' | b'\t'))
    }

    /// The next line without its newline.
    fn take_line(&mut self) -> Option<&'a [u8]> {
        let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
        let end = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        self.at += end + 1;
        self.line += 1;
        Some(&rest[..end])
    }

    fn stanza(&mut self) -> Result<Option<Stanza<'a>>, ControlError> {
        while self.peek() == Some(b'\n') {
            self.take_line();
        }
        let start = self.line + 1;
        // One allocation that is enough for nearly every stanza of the archive.
        let mut fields: Vec<Field<'a>> = Vec::with_capacity(28);
        while !matches!(self.peek(), None | Some(b'\n')) {
            let field = self.field()?;
            if fields.iter().any(|other| other.name.eq_ignore_ascii_case(field.name)) {
                return Err(ControlError::Twice { line: self.line, name: field.name.to_owned() });
            }
            if fields.len() == MAX_FIELDS {
                return Err(ControlError::TooMany { line: start });
            }
            fields.push(field);
        }
        Ok((!fields.is_empty()).then_some(Stanza { fields, line: start }))
    }

    /// Reads a field, with the lines that continue it.
    fn field(&mut self) -> Result<Field<'a>, ControlError> {
        if self.at_continuation() {
            return Err(ControlError::Orphan { line: self.line + 1 });
        }
        let start = self.at;
        let line = self.take_line().unwrap_or_default();
        let length = line.iter().position(|&byte| !is_name_byte(byte)).unwrap_or(line.len());
        let name = str::from_utf8(&line[..length]).unwrap_or_default();
        if !is_field_name(name) || line.get(length) != Some(&b':') {
            return Err(ControlError::NotAField {
                line: self.line,
                found: String::from_utf8_lossy(line).chars().take(60).collect(),
            });
        }
        let mut end = start + line.len();
        while self.at_continuation() {
            let begin = self.at;
            let line = self.take_line().unwrap_or_default();
            if line.trim_ascii().is_empty() {
                return Err(ControlError::Blank { line: self.line });
            }
            end = begin + line.len();
        }
        let value = self.bytes[start + length + 1..end].trim_ascii_end();
        let skip = value.iter().position(|&byte| byte != b' ' && byte != b'\t').unwrap_or(value.len());
        Ok(Field { name, value: &value[skip..] })
    }
}

impl<'a> Iterator for Stanzas<'a> {
    type Item = Result<Stanza<'a>, ControlError>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.stanza().transpose();
        if matches!(result, Some(Err(_))) {
            self.at = self.bytes.len();
        }
        result
    }
}

/// Writes `Name: value` and a newline, so that reading gives the same value back.
///
/// `value` is what [`Field::value`] would be: its lines after the first start with a space or tab. A value that begins
/// with a newline leaves nothing behind the colon, as dpkg writes `Conffiles:`.
pub fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) -> Result<(), ControlError> {
    let unwritable = |why| Err(ControlError::Unwritable { name: name.to_owned(), why });
    if !is_field_name(name) {
        return unwritable("it is not a field name");
    }
    for line in value.split(|&byte| byte == b'\n').skip(1) {
        if !matches!(line.first(), Some(b' ' | b'\t')) {
            return unwritable("a line after the first does not start with a space");
        }
        if line.trim_ascii().is_empty() {
            return unwritable("a line after the first is blank");
        }
    }
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    if !value.is_empty() && value[0] != b'\n' {
        out.push(b' ');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
    Ok(())
}

/// Writes a stanza and the empty line that ends it.
pub fn write_stanza<'f>(
    out: &mut Vec<u8>,
    fields: impl IntoIterator<Item = (&'f str, &'f [u8])>,
) -> Result<(), ControlError> {
    for (name, value) in fields {
        write_field(out, name, value)?;
    }
    out.push(b'\n');
    Ok(())
}

/// Policy 5.1: visible US-ASCII but the colon.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b':'
}

/// Policy 5.1: a name does not begin with `#` (a comment in source packages only) or `-`, which would be OpenPGP armour.
fn is_field_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(['#', '-']) && name.bytes().all(is_name_byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TWO: &[u8] = b"\n\nPackage: a\nConffiles:\n /etc/x 12\n /etc/y 34\nDescription: short\n long\n .\n more\t \n\n\npackage: b\nEmpty:\n";

    #[test]
    fn stanzas_are_read_one_after_the_other() {
        let stanzas = Stanzas::new(TWO).collect::<Result<Vec<_>, _>>().unwrap();
        assert_eq!(stanzas.len(), 2);
        assert_eq!((stanzas[0].line(), stanzas[1].line()), (3, 13));
        assert_eq!(stanzas[0].text("PACKAGE").unwrap(), Some("a"));
        assert_eq!(stanzas[0].raw("Conffiles"), Some(&b"\n /etc/x 12\n /etc/y 34"[..]));
        assert_eq!(stanzas[0].lines("Conffiles").unwrap().collect::<Vec<_>>(), ["/etc/x 12", "/etc/y 34"]);
        assert_eq!(stanzas[0].text("Description").unwrap(), Some("short\n long\n .\n more"));
        assert_eq!(stanzas[1].require("Package").unwrap(), "b");
        assert_eq!(stanzas[1].raw("Empty"), Some(&b""[..]));
        assert_eq!(
            stanzas[1].require("Version"),
            Err(ControlError::Missing { line: 13, name: "Version".into() })
        );
    }

    #[test]
    fn what_dpkg_would_refuse_is_refused_with_its_line() {
        for (text, error) in [
            (&b"A: 1\nb c: 2\n"[..], ControlError::NotAField { line: 2, found: "b c: 2".into() }),
            (b"A: 1\n: 2\n", ControlError::NotAField { line: 2, found: ": 2".into() }),
            (b"A: 1\n-----BEGIN: 2\n", ControlError::NotAField { line: 2, found: "-----BEGIN: 2".into() }),
            (b"# c: 2\n", ControlError::NotAField { line: 1, found: "# c: 2".into() }),
            (b"A: 1\n\n b\n", ControlError::Orphan { line: 3 }),
            (b"A: 1\n \t\n b\n", ControlError::Blank { line: 2 }),
            (b"A: 1\na: 1\n", ControlError::Twice { line: 2, name: "a".into() }),
        ] {
            let found = Stanzas::new(text).collect::<Result<Vec<_>, _>>();
            assert_eq!(found, Err(error), "{}", String::from_utf8_lossy(text));
        }
        let many: String = (0..=MAX_FIELDS).map(|n| format!("F{n}: x\n")).collect();
        assert_eq!(Stanza::only(many.as_bytes()), Err(ControlError::TooMany { line: 1 }));
        assert!(matches!(
            Stanza::only(b"A: \xff").unwrap().text("a"),
            Err(ControlError::NotText { line: 1, .. })
        ));
    }

    #[test]
    fn one_stanza_is_one_stanza() {
        assert_eq!(Stanza::only(b"\nA: b\n\n").unwrap().fields().len(), 1);
        assert_eq!(Stanza::only(b"\n"), Err(ControlError::NotOne { found: "none" }));
        assert_eq!(Stanza::only(b"A: b\n\nA: b"), Err(ControlError::NotOne { found: "more" }));
    }

    #[test]
    fn what_would_read_back_differently_is_not_written() {
        for (name, value) in
            [("A b", "x"), ("", "x"), ("A", "x\ny"), ("A", "x\n"), ("A", "x\n\n y"), ("A", "x\n \n y")]
        {
            assert!(write_field(&mut Vec::new(), name, value.as_bytes()).is_err(), "{name} {value:?}");
        }
    }

    #[test]
    fn what_was_read_is_written_back_as_it_was() {
        let mut out = Vec::new();
        for stanza in Stanzas::new(TWO) {
            let stanza = stanza.unwrap();
            write_stanza(&mut out, stanza.fields().iter().map(|field| (field.name, field.value))).unwrap();
        }
        let again: Vec<_> = Stanzas::new(&out).map(|stanza| stanza.unwrap().fields).collect();
        assert_eq!(again, Stanzas::new(TWO).map(|stanza| stanza.unwrap().fields).collect::<Vec<_>>());
        assert!(out.starts_with(b"Package: a\nConffiles:\n /etc/x 12\n"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            for stanza in Stanzas::new(&bytes).flatten() {
                for field in stanza.fields() {
                    let _ = stanza.text(field.name);
                }
            }
        }

        #[test]
        fn nearly_valid_control_data_is_read_without_a_panic(text in "([A-C#:-]{0,2}: ?[a-b \t]{0,3}\n|[ \t]?[a.]?\r?\n){0,12}") {
            let mut out = Vec::new();
            for stanza in Stanzas::new(text.as_bytes()).flatten() {
                let fields: Vec<_> = stanza.fields().to_vec();
                out.clear();
                write_stanza(&mut out, fields.iter().map(|field| (field.name, field.value))).unwrap();
                let again = Stanza::only(&out).unwrap();
                prop_assert_eq!(again.fields(), &fields[..]);
            }
        }
    }
}
