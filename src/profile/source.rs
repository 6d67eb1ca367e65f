//! Where a value was written: the text of a file, a place in it, and values that remember theirs.

use std::fmt;
use std::ops::{Deref, Range};
use std::path::PathBuf;
use std::sync::Arc;

/// The text of a profile or of an overlay's manifest, kept so that any later stage can point into it.
pub struct Source {
    label: String,
    text: String,
    home: Home,
}

/// Where the relative paths in a [`Source`] start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// Inside hardtack itself, where there are names but no paths.
    Shipped,
    /// A directory of the host.
    Directory(PathBuf),
}

impl Source {
    /// A text, the name it is shown under, and where its relative paths start.
    pub fn new(label: impl Into<String>, text: impl Into<String>, home: Home) -> Arc<Self> {
        Arc::new(Self { label: label.into(), text: text.into(), home })
    }

    /// The name people know it by: a path as it was given, or `shipped:minimal.toml`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where its relative paths start.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// A place in this source. A range that is out of the text or cuts a character is widened or cut until it fits.
    pub fn place(self: &Arc<Self>, span: Range<usize>) -> Place {
        let mut start = span.start.min(self.text.len());
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let mut end = span.end.clamp(start, self.text.len());
        while !self.text.is_char_boundary(end) {
            end += 1;
        }
        Place { source: self.clone(), start, end }
    }
}

/// The name alone: the text would bury whatever else is shown.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({})", self.label)
    }
}

/// A piece of a source.
#[derive(Clone)]
pub struct Place {
    source: Arc<Source>,
    start: usize,
    end: usize,
}

impl Place {
    /// The file.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// The bytes of the text, which begin and end between characters.
    pub fn span(&self) -> Range<usize> {
        self.start..self.end
    }

    /// The line it begins on, counted from 1.
    pub fn line(&self) -> usize {
        self.source.text[..self.start].bytes().filter(|byte| *byte == b'\n').count() + 1
    }

    /// From the beginning of this place to the end of `other`, if both are in one source.
    pub fn to(&self, other: &Place) -> Place {
        if Arc::ptr_eq(&self.source, &other.source) {
            Place { source: self.source.clone(), start: self.start, end: self.end.max(other.end) }
        } else {
            self.clone()
        }
    }
}

/// `minimal.toml:12`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source.label, self.line())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who said so.
#[derive(Clone, Debug)]
pub enum Origin {
    /// Nobody: it is hardtack's default.
    Default,
    /// A line of a profile or of an overlay's manifest.
    Written(Place),
}

impl Origin {
    /// The place, if somebody wrote it.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Default => None,
            Self::Written(place) => Some(place),
        }
    }
}

/// `minimal.toml:12`, or `default`.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Written(place) => place.fmt(f),
        }
    }
}

impl From<Place> for Origin {
    fn from(place: Place) -> Self {
        Self::Written(place)
    }
}

/// A value and who said so. It can be used as the value itself.
#[derive(Clone)]
pub struct Sourced<T> {
    value: T,
    origin: Origin,
}

impl<T> Sourced<T> {
    /// A value and its origin.
    pub fn new(value: T, origin: impl Into<Origin>) -> Self {
        Self { value, origin: origin.into() }
    }

    /// A value that nobody wrote.
    pub fn default_value(value: T) -> Self {
        Self { value, origin: Origin::Default }
    }

    /// Who said so.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The value alone.
    pub fn into_value(self) -> T {
        self.value
    }

    /// Another value with the same origin.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Sourced<U> {
        Sourced { value: f(self.value), origin: self.origin }
    }

    /// Another value with the same origin.
    pub fn with<U>(&self, value: U) -> Sourced<U> {
        Sourced { value, origin: self.origin.clone() }
    }
}

impl<T> Deref for Sourced<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Display> fmt::Display for Sourced<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// Two sourced values are equal when the values are, wherever they come from.
impl<T: PartialEq> PartialEq for Sourced<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Sourced<T> {}

impl<T: fmt::Debug> fmt::Debug for Sourced<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)?;
        write!(f, " @ {}", self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_know_their_line_and_never_cut_a_character() {
        let source = Source::new("a.toml", "one\ntwö\n", Home::Shipped);
        assert_eq!(source.place(4..7).to_string(), "a.toml:2");
        assert_eq!(source.place(7..7).span(), 6..8);
        assert_eq!(source.place(100..200).span(), 9..9);
        assert_eq!(source.place(100..200).line(), 3);
    }
}
