//! Versions of Debian packages: `[epoch:]upstream[-revision]` (Debian policy 5.6.12, deb-version(7)).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// A valid version. Equality and order are Debian's: `1.0`, `0:1.0` and `1.0-0` are equal though written differently.
#[derive(Clone)]
pub struct Version {
    text: Box<str>,
}

/// The text is not a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a version of a Debian package: {why}")]
pub struct NotAVersion {
    text: String,
    why: &'static str,
}

impl Version {
    /// The version as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The epoch, 0 when none is written.
    pub fn epoch(&self) -> u64 {
        split(&self.text).0
    }

    /// The upstream part.
    pub fn upstream(&self) -> &str {
        split(&self.text).1
    }

    /// The Debian revision; empty for a native package.
    pub fn revision(&self) -> &str {
        split(&self.text).2
    }

    /// The version without its epoch, as file names of packages write it.
    pub fn without_epoch(&self) -> &str {
        self.text.split_once(':').map_or(&self.text, |(_, rest)| rest)
    }
}

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        match fault(text) {
            None => Ok(Self { text: text.into() }),
            Some(why) => Err(NotAVersion { text: text.chars().take(80).collect(), why }),
        }
    }
}

/// What is wrong with the text as a version, with the same rules as `dpkg --validate-version`.
pub fn fault(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("it is empty");
    }
    let rest = match text.split_once(':') {
        None => text,
        Some(("", _)) => return Some("the epoch before `:` is empty"),
        Some((epoch, _)) if !epoch.bytes().all(|byte| byte.is_ascii_digit()) => {
            return Some("the epoch before `:` is not a number");
        }
        // dpkg keeps the epoch in a signed int.
        Some((epoch, _)) if epoch.parse::<i32>().is_err() => return Some("the epoch before `:` is too big"),
        Some((_, rest)) => rest,
    };
    let (upstream, revision) = match rest.rsplit_once('-') {
        None => (rest, None),
        Some((upstream, revision)) => (upstream, Some(revision)),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".+~".contains(&byte);
    if revision == Some("") {
        Some("the revision behind `-` is empty")
    } else if !revision.is_none_or(|revision| revision.bytes().all(plain)) {
        Some("the revision holds a character other than letters, digits and `.+~`")
    } else if !upstream.starts_with(|first: char| first.is_ascii_digit()) {
        Some("the upstream part does not start with a digit")
    } else if !upstream.bytes().all(|byte| plain(byte) || byte == b'-' || byte == b':') {
        Some("the upstream part holds a character other than letters, digits and `.+~-:`")
    } else {
        None
    }
}

/// Compares two versions, as `dpkg --compare-versions` does, without making values of them.
///
/// Both should be valid; what is not gets some total order.
pub fn compare(left: &str, right: &str) -> Ordering {
    let (left, right) = (split(left), split(right));
    left.0
        .cmp(&right.0)
        .then_with(|| compare_part(left.1, right.1))
        .then_with(|| compare_part(left.2, right.2))
}

/// Epoch, upstream, revision.
fn split(text: &str) -> (u64, &str, &str) {
    let (epoch, rest) = match text.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, text),
    };
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// Compares runs of non-digits and of digits in turn. `~` sorts before the end, the end before letters, letters before
/// everything else; digits are compared as numbers of any length.
fn compare_part(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    while !left.is_empty() || !right.is_empty() {
        let mut at = 0;
        loop {
            let (a, b) = (weight(left.get(at)), weight(right.get(at)));
            if a != b {
                return a.cmp(&b);
            }
            // Equal weights: the same character, or both at a digit or the end.
            if a == END {
                break;
            }
            at += 1;
        }
        (left, right) = (&left[at..], &right[at..]);
        let (a, b) = (take_number(&mut left), take_number(&mut right));
        let order = a.len().cmp(&b.len()).then_with(|| a.cmp(b));
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// The weight of the end of a run of non-digits.
const END: u16 = 1;

fn weight(byte: Option<&u8>) -> u16 {
    match byte {
        Some(b'~') => 0,
        None | Some(b'0'..=b'9') => END,
        Some(letter) if letter.is_ascii_alphabetic() => u16::from(*letter),
        Some(other) => 256 + u16::from(*other),
    }
}

/// Takes the digits at the beginning, without leading zeros.
fn take_number<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    let zeros = digits.iter().position(|&digit| digit != b'0').unwrap_or(digits.len());
    &digits[zeros..]
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.text, &other.text)
    }
}

impl serde::Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> serde::Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions_come_in_debians_order() {
        // Each is smaller than the next.
        let ordered = [
            "0~~",
            "0~~a",
            "0~",
            "0",
            "0a",
            "0+1",
            "0.1",
            "1~rc1-1",
            "1",
            "1-0+deb13u1",
            "1-1~bpo13+1",
            "1-1",
            "1-1+b1",
            "1.0~",
            "1.2",
            "1.10",
            "1.10-9",
            "1.10a",
            "1.10+",
            "2:0.1",
            "10:0",
        ];
        for pair in ordered.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
    }

    #[test]
    fn versions_that_differ_only_in_writing_are_equal() {
        for (left, right) in
            [("1.0", "0:1.0"), ("1.0", "1.0-0"), ("1.01", "1.1"), ("1.0-00", "1.0"), ("1", "1")]
        {
            assert_eq!(left.parse::<Version>().unwrap(), right.parse().unwrap(), "{left} {right}");
        }
    }

    #[test]
    fn a_version_is_taken_apart() {
        let version: Version = "2:1.0-rc-3+b1".parse().unwrap();
        assert_eq!((version.epoch(), version.upstream(), version.revision()), (2, "1.0-rc", "3+b1"));
        assert_eq!(version.without_epoch(), "1.0-rc-3+b1");
        assert_eq!(version.to_string(), "2:1.0-rc-3+b1");
    }

    #[test]
    fn what_is_not_a_version_is_refused() {
        for text in [
            "",
            ":1",
            "a:1",
            "1:",
            "-1",
            "1-",
            "a1",
            "1_0",
            "1 0",
            "1é",
            "1-1:2",
            "99999999999:1",
            "1-é",
            "1:-1",
        ] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
        for text in ["1", "1:2:3", "1-2-3", "1.0~rc1+dfsg-1~bpo13+1", "0"] {
            assert!(text.parse::<Version>().is_ok(), "{text}");
        }
    }

    fn version() -> impl Strategy<Value = String> {
        "([0-2]:)?[0-2][0-1a-bA~+.]{0,4}(-[0-1a~+.]{1,3})?"
    }

    proptest! {
        #[test]
        fn the_order_is_total(a in version(), b in version(), c in version()) {
            let (a, b, c): (Version, Version, Version) = (a.parse().unwrap(), b.parse().unwrap(), c.parse().unwrap());
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            prop_assert_eq!(a.cmp(&a), Ordering::Equal);
            if a <= b && b <= c {
                prop_assert!(a <= c, "{} {} {}", a, b, c);
            }
        }

        #[test]
        fn any_text_is_compared_without_a_panic(a in ".{0,12}", b in ".{0,12}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            let _ = a.parse::<Version>();
        }
    }
}
