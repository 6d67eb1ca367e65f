//! PAX extended headers: records of `LENGTH KEY=VALUE\n` (POSIX.1-2008, pax, "Extended Header").

use super::TarError;
use crate::meta::Timestamp;
use std::collections::BTreeMap;

/// Records kept from global headers at most; `git archive` writes one.
const MAX_GLOBAL: usize = 1000;

/// The records of one header; of a key given twice the last counts.
#[derive(Default)]
pub(super) struct Records(pub(super) BTreeMap<Vec<u8>, Vec<u8>>);

impl Records {
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, &'static str> {
        const MALFORMED: &str = "a PAX record that is not `LENGTH KEY=VALUE`";
        let mut records = BTreeMap::new();
        while !bytes.is_empty() {
            let space = bytes.iter().take(8).position(|byte| *byte == b' ').ok_or(MALFORMED)?;
            let len = std::str::from_utf8(&bytes[..space]).ok().and_then(|text| text.parse::<usize>().ok());
            let len = len.filter(|len| *len > space + 1 && *len <= bytes.len()).ok_or(MALFORMED)?;
            let (record, rest) = bytes.split_at(len);
            let record = record[space + 1..].strip_suffix(b"\n").ok_or(MALFORMED)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(MALFORMED)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            if key.is_empty() {
                return Err(MALFORMED);
            }
            records.insert(key.to_vec(), value.to_vec());
            bytes = rest;
        }
        Ok(Self(records))
    }

    /// Adds the records of a later global header. Gives whether there are still few enough.
    pub(super) fn absorb(&mut self, later: Self) -> bool {
        self.0.extend(later.0);
        self.0.len() <= MAX_GLOBAL
    }
}

/// The records that hold for one member: its own before the global ones. An empty value takes a global one away.
pub(super) struct Pair<'a> {
    pub(super) local: &'a Records,
    pub(super) global: &'a Records,
    pub(super) at: u64,
}

impl Pair<'_> {
    fn find(&self, key: &[u8]) -> Option<&Vec<u8>> {
        self.local.0.get(key).or_else(|| self.global.0.get(key)).filter(|value| !value.is_empty())
    }

    pub(super) fn any(&self, prefix: &[u8]) -> bool {
        self.local.0.keys().chain(self.global.0.keys()).any(|key| key.starts_with(prefix))
    }

    pub(super) fn bytes(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.find(key).cloned()
    }

    pub(super) fn number(&self, key: &[u8]) -> Result<Option<u64>, TarError> {
        let Some(value) = self.find(key) else { return Ok(None) };
        let digits = value.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
        number.map(Some).ok_or_else(|| self.bad("a PAX number", value))
    }

    /// Seconds since the epoch, possibly negative, with a decimal fraction. More than nine digits of it are cut off,
    /// towards the past as POSIX says.
    pub(super) fn time(&self, key: &[u8]) -> Result<Option<Timestamp>, TarError> {
        let Some(value) = self.find(key) else { return Ok(None) };
        time(value).map(Some).ok_or_else(|| self.bad("a PAX time", value))
    }

    fn bad(&self, field: &'static str, value: &[u8]) -> TarError {
        let found = value[..value.len().min(40)].escape_ascii().to_string();
        TarError::Field { at: self.at, field, found }
    }
}

fn time(value: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(value).ok()?;
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = whole.parse::<i64>().ok()?;
    let nanoseconds = fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0, |n, digit| n * 10 + u32::from(digit - b'0'));
    if !negative {
        return Some(Timestamp { seconds, nanoseconds });
    }
    let cut = fraction.bytes().skip(9).any(|digit| digit != b'0');
    Some(match nanoseconds + u32::from(cut) {
        0 => Timestamp::seconds(-seconds),
        part => Timestamp { seconds: (-seconds).checked_sub(1)?, nanoseconds: 1_000_000_000 - part },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_may_lie_before_the_epoch() {
        let at = |seconds, nanoseconds| Some(Timestamp { seconds, nanoseconds });
        for (text, expected) in [
            ("1700000000", at(1_700_000_000, 0)),
            ("1.5", at(1, 500_000_000)),
            ("1.0000000019", at(1, 1)),
            ("-1.25", at(-2, 750_000_000)),
            ("-1", at(-1, 0)),
            ("-0.0000000001", at(-1, 999_999_999)),
            ("", None),
            ("1e5", None),
            ("--1", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(time(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn records_are_read_by_their_length() {
        let records = Records::parse(b"12 path=a=b\n14 k=new\nline\n14 SCHILY.x=\0\n").unwrap();
        assert_eq!(records.0[&b"path"[..]], b"a=b");
        assert_eq!(records.0[&b"k"[..]], b"new\nline");
        assert_eq!(records.0[&b"SCHILY.x"[..]], b"\0");
        for bad in [
            &b"12 path=a=b"[..],
            b"99 a=b\n",
            b"0 a=b\n",
            b"x",
            b"5 a=b\n",
            b"5 ab\n",
            b"5 =b\n",
            b"-6 a=b\n",
        ] {
            assert!(Records::parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
