//! `Release`: what an archive says about one of its suites.

use super::is_relative_path;
use crate::debian::control::{ControlError, Stanza};
use crate::digest::Sha256;
use std::collections::BTreeMap;

/// A day in seconds: how far the clock of the archive may be ahead of ours.
const DAY: i64 = 86_400;

/// A parsed `Release` file, or what an `InRelease` file holds inside its signature.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Release {
    /// `Debian`, `Debian Backports`, `Raspberry Pi Foundation` …; empty when not given, as all texts here.
    pub origin: String,
    /// `Debian`, `Debian-Security` …
    pub label: String,
    /// `stable`, `stable-updates` …
    pub suite: String,
    /// `trixie`, `trixie-updates` …
    pub codename: String,
    /// Number of the release: `13.1`.
    pub version: String,
    /// When the file was made, in seconds since 1970 UTC.
    pub date: i64,
    /// Until when it may be used, in seconds since 1970 UTC. The main archive of a stable suite has no such limit.
    pub valid_until: Option<i64>,
    /// Indexes can be fetched by their digest too, at a path that never changes its content.
    pub acquire_by_hash: bool,
    /// Not to be installed from unless asked for (experimental, backports).
    pub not_automatic: bool,
    /// With `not_automatic`: what was installed from here is upgraded from here (backports).
    pub but_automatic_upgrades: bool,
    /// Packages of architecture `all` stand in the index of each architecture: `binary-all` need not be read.
    pub all_in_each_architecture: bool,
    /// `main`, `contrib` …
    pub components: Vec<String>,
    /// `arm64`, `all` …
    pub architectures: Vec<String>,
    /// Every file of the suite by its path below the suite's directory: `main/binary-arm64/Packages.xz`.
    pub files: BTreeMap<String, Entry>,
}

/// What `Release` says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Digest of the file.
    pub sha256: Sha256,
    /// Its length in bytes.
    pub size: u64,
}

/// What is wrong with a `Release` file.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the message shows")]
pub enum ReleaseError {
    /// It is not a stanza.
    #[error("cannot read the Release file")]
    Control(#[from] ControlError),
    /// The signature was not taken off, so nobody has looked at it.
    #[error("the Release file still has its signature around it: verify it first, then read what was signed")]
    StillSigned,
    /// A field does not hold what it should.
    #[error("the Release file has `{field}: {found}`; expected {expected}")]
    Value { field: &'static str, found: String, expected: &'static str },
    /// The `SHA256` table has a path twice with different contents.
    #[error("the Release file lists `{path}` twice with different digests or sizes")]
    Ambiguous { path: String },
    /// The mirror gave another suite than the one asked for.
    #[error("asked for the suite `{asked}`, found suite `{suite}`, codename `{codename}`")]
    WrongSuite { asked: String, suite: String, codename: String },
    /// It is too old to be trusted: an attacker could withhold updates with it.
    #[error(
        "the Release file of `{codename}` expired: it was valid until {valid_until} and it is now {now}; \
         the mirror no longer follows the archive, or the clock of this machine is wrong"
    )]
    Expired { codename: String, valid_until: String, now: String },
    /// It was made in the future.
    #[error(
        "the Release file of `{codename}` is from the future: it was made at {date} and it is now {now}; \
         check the clock of this machine"
    )]
    FromTheFuture { codename: String, date: String, now: String },
}

impl Release {
    /// Reads a `Release` file, whose signature was verified and taken off.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReleaseError> {
        if bytes.trim_ascii_start().starts_with(b"-----BEGIN PGP") {
            return Err(ReleaseError::StillSigned);
        }
        let stanza = Stanza::only(bytes)?;
        let text = |name: &str| -> Result<String, ControlError> {
            Ok(stanza.text(name)?.unwrap_or_default().to_owned())
        };
        let words = |name: &str| -> Result<Vec<String>, ControlError> {
            Ok(stanza.text(name)?.unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect())
        };
        Ok(Self {
            origin: text("Origin")?,
            label: text("Label")?,
            suite: text("Suite")?,
            codename: text("Codename")?,
            version: text("Version")?,
            date: moment("Date", stanza.require("Date")?)?,
            valid_until: stanza.text("Valid-Until")?.map(|text| moment("Valid-Until", text)).transpose()?,
            acquire_by_hash: flag(&stanza, "Acquire-By-Hash")?,
            not_automatic: flag(&stanza, "NotAutomatic")?,
            but_automatic_upgrades: flag(&stanza, "ButAutomaticUpgrades")?,
            all_in_each_architecture: text("No-Support-for-Architecture-all")? == "Packages",
            components: words("Components")?,
            architectures: words("Architectures")?,
            files: files(&stanza)?,
        })
    }

    /// Checks that this is the suite that was asked for (by suite or codename) and that it may be used at `now`
    /// (seconds since 1970 UTC).
    ///
    /// A mirror of a security suite calls itself `stable-security`, codename `trixie-security`; both names are good.
    pub fn check(&self, asked: &str, now: i64) -> Result<(), ReleaseError> {
        if asked != self.suite && asked != self.codename {
            return Err(ReleaseError::WrongSuite {
                asked: asked.to_owned(),
                suite: self.suite.clone(),
                codename: self.codename.clone(),
            });
        }
        let codename = self.codename.clone();
        match self.valid_until {
            Some(limit) if limit < now => {
                Err(ReleaseError::Expired { codename, valid_until: written(limit), now: written(now) })
            }
            _ if self.date > now.saturating_add(DAY) => {
                Err(ReleaseError::FromTheFuture { codename, date: written(self.date), now: written(now) })
            }
            _ => Ok(()),
        }
    }

    /// The priority apt gives to versions from here when no pin says otherwise (apt_preferences(5)).
    pub fn default_priority(&self) -> i32 {
        match (self.not_automatic, self.but_automatic_upgrades) {
            (true, true) => 100,
            (true, false) => 1,
            (false, _) => 500,
        }
    }

    /// The `Packages` indexes of a component and an architecture that the suite has, the smallest first: path below
    /// the suite's directory, and entry. Compressions that hardtack does not read are left out.
    pub fn packages_indexes(&self, component: &str, architecture: &str) -> Vec<(&str, Entry)> {
        let stem = format!("{component}/binary-{architecture}/Packages");
        let mut found: Vec<_> = ["", ".gz", ".xz", ".zst"]
            .iter()
            .filter_map(|suffix| self.files.get_key_value(&format!("{stem}{suffix}")))
            .map(|(path, &entry)| (path.as_str(), entry))
            .collect();
        found.sort_by_key(|&(_, entry)| entry.size);
        found
    }
}

impl Entry {
    /// The path under which an archive with `Acquire-By-Hash` keeps this content whatever comes later.
    pub fn by_hash(&self, path: &str) -> String {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let slash = if folder.is_empty() { "" } else { "/" };
        format!("{folder}{slash}by-hash/SHA256/{}", self.sha256)
    }
}

fn flag(stanza: &Stanza, field: &'static str) -> Result<bool, ReleaseError> {
    match stanza.text(field)? {
        None | Some("no") => Ok(false),
        Some("yes") => Ok(true),
        Some(found) => {
            Err(ReleaseError::Value { field, found: found.chars().take(80).collect(), expected: "yes or no" })
        }
    }
}

/// Reads the `SHA256` table.
fn files(stanza: &Stanza) -> Result<BTreeMap<String, Entry>, ReleaseError> {
    stanza.require("SHA256")?;
    let mut files = BTreeMap::new();
    for line in stanza.lines("SHA256")? {
        let mut words = line.split_ascii_whitespace();
        let entry = (|| {
            let sha256 = words.next()?.parse().ok()?;
            let size = words.next()?.parse().ok()?;
            let path = words.next().filter(|path| is_relative_path(path))?;
            words.next().is_none().then_some((path, Entry { sha256, size }))
        })();
        let Some((path, entry)) = entry else {
            return Err(ReleaseError::Value {
                field: "SHA256",
                found: line.chars().take(160).collect(),
                expected: "a digest, a size in bytes and a relative path",
            });
        };
        if files.insert(path.to_owned(), entry).is_some_and(|other| other != entry) {
            return Err(ReleaseError::Ambiguous { path: path.to_owned() });
        }
    }
    Ok(files)
}

fn moment(field: &'static str, text: &str) -> Result<i64, ReleaseError> {
    parse_moment(text).ok_or_else(|| ReleaseError::Value {
        field,
        found: text.chars().take(80).collect(),
        expected: "a date such as `Sat, 15 Nov 2025 10:00:00 UTC`",
    })
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Seconds since 1970 of `Sat, 15 Nov 2025 10:00:00 UTC`, as archives write dates (RFC 5322 with a zone of zero).
fn parse_moment(text: &str) -> Option<i64> {
    let (_weekday, rest) = text.split_once(',')?;
    let words: Vec<&str> = rest.split_ascii_whitespace().collect();
    let [day, month, year, time, "UTC" | "GMT" | "UT" | "Z" | "+0000" | "-0000"] = words[..] else {
        return None;
    };
    let number = |text: &str, most: i64| {
        let digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|&value: &i64| digits && value <= most)
    };
    let month = MONTHS.iter().position(|&name| name == month)? as i64 + 1;
    let (day, year) =
        (number(day, 31).filter(|&day| day > 0)?, number(year, 9999).filter(|&year| year >= 1970)?);
    let mut clock = time.split(':');
    let (hour, minute, second) =
        (number(clock.next()?, 23)?, number(clock.next()?, 59)?, number(clock.next()?, 60)?);
    let moment = days_since_1970(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
    clock.next().is_none().then_some(moment)
}

/// Days of the Gregorian calendar since 1970-01-01, counting years from March so that the leap day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

/// A moment for people: `2025-11-15 10:00:00 UTC`.
fn written(moment: i64) -> String {
    let (days, second) = (moment.div_euclid(DAY), moment.rem_euclid(DAY));
    // The year by estimate, then the month and day by search: only error texts need this.
    let mut year = 1970 + days.div_euclid(366);
    while days_since_1970(year.saturating_add(1), 1, 1) <= days {
        year += 1;
    }
    let month = (1..=12).rev().find(|&month| days_since_1970(year, month, 1) <= days).unwrap_or(1);
    let day = days - days_since_1970(year, month, 1) + 1;
    format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> String {
        let digest = Sha256::of(b"");
        format!(
            "Origin: Debian\nLabel: Debian\nSuite: stable-backports\nCodename: trixie-backports\nVersion: 13.7\n\
             Date: Sat, 15 Nov 2025 10:00:00 UTC\nValid-Until: Sat, 22 Nov 2025 10:00:00 UTC\nAcquire-By-Hash: yes\n\
             NotAutomatic: yes\nButAutomaticUpgrades: yes\nNo-Support-for-Architecture-all: Packages\n\
             Architectures: all arm64\nComponents: main non-free-firmware\nMD5Sum:\n 00 0 x\nSHA256:\n \
             {digest}        0 main/binary-arm64/Packages\n {digest}       32 main/binary-arm64/Packages.xz\n"
        )
    }

    const DATE: i64 = 1_763_200_800;

    #[test]
    fn a_release_file_is_read() {
        let release = Release::parse(sample().as_bytes()).unwrap();
        assert_eq!((release.origin.as_str(), release.version.as_str()), ("Debian", "13.7"));
        assert_eq!((release.date, release.valid_until), (DATE, Some(DATE + 7 * DAY)));
        assert!(release.acquire_by_hash && release.all_in_each_architecture);
        assert_eq!(release.default_priority(), 100);
        assert_eq!(release.components, ["main", "non-free-firmware"]);
        let indexes = release.packages_indexes("main", "arm64");
        assert_eq!(indexes.iter().map(|one| one.1.size).collect::<Vec<_>>(), [0, 32]);
        let digest = Sha256::of(b"");
        assert_eq!(indexes[1].1.by_hash(indexes[1].0), format!("main/binary-arm64/by-hash/SHA256/{digest}"));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (text, moment) in [
            ("Thu, 01 Jan 1970 00:00:00 UTC", 0),
            ("Thu,  1 Jan 1970 00:00:01 GMT", 1),
            ("Tue, 29 Feb 2000 12:00:00 +0000", 951_825_600),
            ("Tue, 19 Jan 2038 03:14:08 UTC", 1 << 31),
            ("Sat, 15 Nov 2025 10:00:00 UTC", DATE),
        ] {
            assert_eq!(parse_moment(text), Some(moment), "{text}");
        }
        for text in [
            "",
            "Thu",
            "Thu, 01 Jan 1970 00:00:00 CET",
            "Thu, 32 Jan 1970 00:00:00 UTC",
            "Thu, 01 Jan 1970 00:00 UTC",
            "Thu, 01 Jan 99999 00:00:00 UTC",
            "Thu, 01 Foo 1970 00:00:00 UTC",
            "Thu, 01 Jan 1970 00:00:00:00 UTC",
            "Thu, +1 Jan 1970 00:00:00 UTC",
        ] {
            assert_eq!(parse_moment(text), None, "{text}");
        }
        assert_eq!(written(951_825_600), "2000-02-29 12:00:00 UTC");
        assert_eq!(written(DATE), "2025-11-15 10:00:00 UTC");
    }

    #[test]
    fn the_wrong_suite_an_old_one_and_one_from_the_future_are_refused_in_words() {
        let release = Release::parse(sample().as_bytes()).unwrap();
        for name in ["stable-backports", "trixie-backports"] {
            release.check(name, DATE).unwrap();
        }
        release.check("trixie-backports", DATE + 7 * DAY).unwrap();
        release.check("trixie-backports", DATE - DAY).unwrap();
        let said = |asked, now| release.check(asked, now).unwrap_err().to_string();
        assert_eq!(
            said("trixie", DATE),
            "asked for the suite `trixie`, found suite `stable-backports`, codename `trixie-backports`"
        );
        let expired = said("trixie-backports", DATE + 7 * DAY + 1);
        assert!(expired.contains("valid until 2025-11-22 10:00:00 UTC"), "{expired}");
        assert!(expired.contains("now 2025-11-22 10:00:01 UTC"), "{expired}");
        let future = said("trixie-backports", DATE - DAY - 1);
        assert!(
            future.contains("made at 2025-11-15 10:00:00 UTC and it is now 2025-11-14 09:59:59 UTC"),
            "{future}"
        );
    }

    #[test]
    fn what_would_lead_out_of_the_archive_is_refused() {
        for path in ["../x", "/x", "a//b", "a/./b", "a/..", "a\\b", "a?b", "http://x"] {
            let text = sample().replace("main/binary-arm64/Packages.xz", path);
            assert!(Release::parse(text.as_bytes()).is_err(), "{path}");
        }
    }

    #[test]
    fn a_table_that_says_two_things_is_refused() {
        let text = sample().replace("Packages.xz", "Packages");
        assert!(matches!(Release::parse(text.as_bytes()), Err(ReleaseError::Ambiguous { .. })));
        let text = sample().replace("Acquire-By-Hash: yes", "Acquire-By-Hash: maybe");
        assert!(matches!(
            Release::parse(text.as_bytes()),
            Err(ReleaseError::Value { field: "Acquire-By-Hash", .. })
        ));
        assert!(Release::parse(b"Date: Sat, 15 Nov 2025 10:00:00 UTC\n").is_err());
        let signed = format!("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{}", sample());
        assert!(matches!(Release::parse(signed.as_bytes()), Err(ReleaseError::StillSigned)));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(date in "(Sat, )?[0-9 ]{0,3} ?(Jan|Dec)? [0-9]{0,5} [0-9:]{0,9} UTC", table in "[0-9a-f ./\n]{0,80}") {
            let _ = Release::parse(format!("Date: {date}\nSHA256:\n {table}\n").as_bytes());
            let _ = parse_moment(&date).map(written);
        }

        #[test]
        fn every_moment_is_written_as_it_was_read(moment in 0..200_000_000_000i64) {
            let text = written(moment);
            let (day, clock) = (&text[..10], &text[11..19]);
            let mut parts = day.split('-');
            let (year, month, day) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
            let month = MONTHS[month.parse::<usize>().unwrap() - 1];
            prop_assert_eq!(parse_moment(&format!("Sat, {day} {month} {year} {clock} UTC")), Some(moment));
        }
    }
}
