//! Which packages a profile wants.

use super::base::check_package_name;
use super::section::Section;
use super::source::Sourced;
use std::fmt;

/// A package that a profile asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Which one of that name.
    pub choice: Choice,
}

/// Which version of a package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Choice {
    /// Whatever apt's own preferences choose.
    Any,
    /// The one in this suite: `name/trixie-backports`.
    Suite(String),
    /// This version: `name=1.2-3`.
    Version(String),
}

/// As it is written in a profile, which is as apt takes it.
impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.choice {
            Choice::Any => f.write_str(&self.name),
            Choice::Suite(suite) => write!(f, "{}/{suite}", self.name),
            Choice::Version(version) => write!(f, "{}={version}", self.name),
        }
    }
}

/// Reads `packages`.
pub(super) fn read(document: &mut Section<'_>) -> Vec<Sourced<Package>> {
    document.list("packages", parse)
}

/// Reads one word of `packages`.
pub(super) fn parse(text: &str) -> Result<Package, String> {
    let (name, choice) = if let Some((name, version)) = text.split_once('=') {
        // Policy 5.6.12: digits, letters and these; whether it exists is for the solver to say.
        let fine = |c: u8| c.is_ascii_alphanumeric() || b".+-~:".contains(&c);
        if version.is_empty() || version.len() > 200 || !version.bytes().all(fine) {
            return Err("must have a version after `=`, such as `=1.2-3`".into());
        }
        (name, Choice::Version(version.to_owned()))
    } else if let Some((name, suite)) = text.split_once('/') {
        let fine = |c: u8| c.is_ascii_alphanumeric() || b"-._".contains(&c);
        if suite.is_empty() || suite.len() > 100 || !suite.bytes().all(fine) {
            return Err("must have a suite after `/`, such as `/trixie-backports`".into());
        }
        (name, Choice::Suite(suite.to_owned()))
    } else {
        (text, Choice::Any)
    };
    if let Some((bare, architecture)) = name.split_once(':') {
        return Err(format!(
            "must be a name without an architecture\nthe image has one architecture, arm64: write `{bare}` for `{bare}:{architecture}`"
        ));
    }
    check_package_name(name)?;
    Ok(Package { name: name.to_owned(), choice })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_written_as_apt_takes_them() {
        for text in ["samba", "libstdc++6", "linux-image-arm64/trixie-backports", "foo=1:2.3~rc1-4+b1"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        for text in
            ["", "a", "Samba", "samba ", "samba=", "samba/", "samba:arm64", "sam ba", "-samba", "a/b/c"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
