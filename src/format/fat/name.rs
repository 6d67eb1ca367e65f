//! FAT names: long names in UTF-16, their 8.3 aliases, and what may be a name at all.
//!
//! Sources: Microsoft's *FAT: General Overview of On-Disk Format* 1.03, and for the case bits (byte 12 of an entry,
//! which that text calls reserved) Windows NT, Linux `fs/vfat` and mtools, which all read and write them.

use std::collections::{BTreeMap, BTreeSet};

/// Longest long name, in UTF-16 units.
const MAX_UNITS: usize = 255;
/// UTF-16 units in one long-name slot.
pub(super) const UNITS_PER_SLOT: usize = 13;
/// Case bit: the base name is lower case.
const LOWER_BASE: u8 = 0x08;
/// Case bit: the extension is lower case.
const LOWER_EXTENSION: u8 = 0x10;

/// Why bytes cannot be a FAT name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameProblem {
    /// No bytes, `.` or `..`.
    #[error("the name is empty, `.` or `..`")]
    Reserved,
    /// FAT names are UTF-16, so a name must be text.
    #[error("the name is not UTF-8")]
    NotText,
    /// A character that FAT forbids.
    #[error("FAT forbids {0:?} in names")]
    Forbidden(char),
    /// Windows and Linux drop dots and spaces at the end, so the file could not be found again.
    #[error("FAT drops dots and spaces at the end of a name")]
    Trailing,
    /// More than 255 UTF-16 units.
    #[error("the name has {0} UTF-16 units; FAT allows 255")]
    Long(usize),
}

/// A name as its directory entry holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// Base (8) and extension (3), upper case, padded with spaces.
    pub short: [u8; 11],
    /// The case bits.
    pub case: u8,
    /// The long name; empty when the short one with its case bits says it all.
    pub long: Vec<u16>,
}

impl Name {
    /// How many 32-byte directory slots the name takes.
    pub fn slots(&self) -> usize {
        1 + self.long.len().div_ceil(UNITS_PER_SLOT)
    }
}

/// The text of a name, if FAT can hold it.
pub(super) fn check(name: &[u8]) -> Result<&str, NameProblem> {
    if matches!(name, b"" | b"." | b"..") {
        return Err(NameProblem::Reserved);
    }
    let text = str::from_utf8(name).map_err(|_| NameProblem::NotText)?;
    let forbidden = |c: &char| c.is_ascii_control() || "\"*/:<>?\\|\u{ffff}".contains(*c);
    if let Some(c) = text.chars().find(forbidden) {
        return Err(NameProblem::Forbidden(c));
    }
    if text.ends_with(['.', ' ']) {
        return Err(NameProblem::Trailing);
    }
    match text.encode_utf16().count() {
        units if units > MAX_UNITS => Err(NameProblem::Long(units)),
        _ => Ok(text),
    }
}

/// The form under which two names are the same file. Systems fold case by tables of different age and size; folding
/// by Unicode's is the strictest, so what passes here is apart everywhere.
pub(super) fn fold(name: &str) -> String {
    name.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// Gives every name of one directory its directory entry, in the order given. The names must have passed [`check`]
/// and be different after [`fold`].
///
/// Aliases depend on the set and order of names alone: first the names that are their own alias are taken, then
/// the others are numbered `~1`, `~2` … in order.
pub(super) fn assign(names: &[&str]) -> Vec<Name> {
    let exact: Vec<Option<Name>> = names.iter().map(|name| own_alias(name)).collect();
    let mut taken: BTreeSet<[u8; 11]> = exact.iter().flatten().map(|name| name.short).collect();
    let mut counters = BTreeMap::new();
    let number = |(name, exact): (&&str, Option<Name>)| {
        exact.unwrap_or_else(|| {
            let short = numbered_alias(name, &mut taken, &mut counters);
            Name { short, case: 0, long: name.encode_utf16().collect() }
        })
    };
    names.iter().zip(exact).map(number).collect()
}

/// The entry of a name that fits 8.3 but for its case.
fn own_alias(name: &str) -> Option<Name> {
    let (base, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let fits = !base.is_empty() && base.len() <= 8 && extension.len() <= 3;
    if !fits || !base.bytes().chain(extension.bytes()).all(is_short_byte) {
        return None;
    }
    let mut short = [b' '; 11];
    put(&mut short[..8], base.as_bytes());
    put(&mut short[8..], extension.as_bytes());
    short.make_ascii_uppercase();
    let mixed = |part: &str| {
        part.bytes().any(|byte| byte.is_ascii_lowercase())
            && part.bytes().any(|byte| byte.is_ascii_uppercase())
    };
    if mixed(base) || mixed(extension) {
        return Some(Name { short, case: 0, long: name.encode_utf16().collect() });
    }
    let lower = |part: &str, bit| if part.bytes().any(|byte| byte.is_ascii_lowercase()) { bit } else { 0 };
    Some(Name { short, case: lower(base, LOWER_BASE) | lower(extension, LOWER_EXTENSION), long: Vec::new() })
}

/// A free alias with a numeric tail: the basis name of Microsoft's text, shortened as the number grows.
fn numbered_alias(
    name: &str,
    taken: &mut BTreeSet<[u8; 11]>,
    counters: &mut BTreeMap<[u8; 9], u32>,
) -> [u8; 11] {
    let trimmed = name.trim_start_matches(['.', ' ']);
    let (base, extension) = match trimmed.rsplit_once('.') {
        Some((base, extension)) if !base.is_empty() => (base, extension),
        _ => (trimmed, ""),
    };
    let base = basis(base, 6);
    let extension = basis(extension, 3);
    let mut key = [b' '; 9];
    put(&mut key[..6], &base);
    put(&mut key[6..], &extension);
    // Starting where the last name of the same basis stopped keeps a directory of thousands linear. A directory
    // holds at most 65,536 slots, so a free number below 1,000,000 always exists.
    let counter = counters.entry(key).or_insert(0);
    loop {
        *counter += 1;
        let tail = format!("~{counter}");
        let keep = base.len().min(8usize.saturating_sub(tail.len()));
        let mut short = [b' '; 11];
        put(&mut short[..8], &base[..keep]);
        put(&mut short[keep..8], tail.as_bytes());
        put(&mut short[8..], &extension);
        if taken.insert(short) {
            return short;
        }
    }
}

/// At most `len` bytes of a long name that may stand in a short one.
fn basis(part: &str, len: usize) -> Vec<u8> {
    let kept = part.chars().filter(|c| !matches!(c, ' ' | '.'));
    let byte = |c: char| u8::try_from(c).ok().filter(|byte| is_short_byte(*byte)).unwrap_or(b'_');
    kept.map(byte).map(|byte| byte.to_ascii_uppercase()).take(len).collect()
}

/// Whether a byte may stand in a short name, upper or lower case. Bytes from 128 mean different characters in
/// different code pages and are left to long names.
fn is_short_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'()-@^_`{}~".contains(&byte)
}

fn put(slot: &mut [u8], bytes: &[u8]) {
    slot[..bytes.len()].copy_from_slice(bytes);
}

/// The checksum that ties long-name slots to their short entry.
pub(super) fn checksum(short: &[u8; 11]) -> u8 {
    short.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// The text of a short name with its case bits, in code page 437 (what Linux assumes). `None` when it is empty.
pub(super) fn decode_short(raw: &[u8; 11], case: u8) -> Option<String> {
    let part = |bytes: &[u8], lower: bool| -> String {
        let end = bytes.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
        let text = bytes[..end].iter().map(|byte| decode_437(*byte));
        text.map(|c| if lower { c.to_ascii_lowercase() } else { c }).collect()
    };
    let mut base = *raw;
    // 0xE5 marks a free slot, so a name that really starts with it is stored with 0x05.
    if base[0] == 0x05 {
        base[0] = 0xe5;
    }
    let mut text = part(&base[..8], case & LOWER_BASE != 0);
    let extension = part(&base[8..], case & LOWER_EXTENSION != 0);
    if !extension.is_empty() {
        text.push('.');
        text.push_str(&extension);
    }
    (!text.is_empty()).then_some(text)
}

/// The upper half of IBM code page 437.
const UPPER_437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

fn decode_437(byte: u8) -> char {
    match byte.checked_sub(128) {
        None => char::from(byte),
        Some(index) => UPPER_437.chars().nth(index.into()).unwrap_or(char::REPLACEMENT_CHARACTER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shorts(names: &[&str]) -> Vec<String> {
        let text = |name: Name| {
            let long = if name.long.is_empty() { "" } else { " long" };
            format!("{} {:02x}{long}", String::from_utf8_lossy(&name.short), name.case)
        };
        assign(names).into_iter().map(text).collect()
    }

    #[test]
    fn a_name_of_one_case_in_each_part_needs_no_long_name() {
        assert_eq!(
            shorts(&["config.txt", "README.md", "OVERLAYS", "kernel8.img", "a", "x.Y", "#~1.!"]),
            [
                "CONFIG  TXT 18",
                "README  MD  10",
                "OVERLAYS    00",
                "KERNEL8 IMG 18",
                "A           08",
                "X       Y   08",
                "#~1     !   00"
            ]
        );
    }

    #[test]
    fn aliases_are_numbered_in_order_and_step_over_names_that_are_taken() {
        assert_eq!(
            shorts(&[
                "long name.text",
                "longname.tex",
                "longna~1.tex",
                "LongName.TEX2",
                ".bashrc",
                "Config.txt"
            ]),
            [
                "LONGNA~2TEX 00 long",
                "LONGNAMETEX 18",
                "LONGNA~1TEX 18",
                "LONGNA~3TEX 00 long",
                "BASHRC~1    00 long",
                "CONFIG  TXT 00 long"
            ]
        );
        assert_eq!(
            shorts(&["日本", "été.dtb", "a+b", "a.b.c"]),
            ["__~1        00 long", "_T_~1   DTB 00 long", "A_B~1       00 long", "AB~1    C   00 long"]
        );
    }

    #[test]
    fn ten_thousand_names_of_one_basis_get_ten_thousand_aliases() {
        let names: Vec<String> = (0..10_000).map(|n| format!("bcm2712-rpi-{n}.dtbo")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let assigned = assign(&names);
        let shorts: BTreeSet<_> = assigned.iter().map(|name| name.short).collect();
        assert_eq!(shorts.len(), 10_000);
        assert_eq!(&assigned[9].short, b"BCM27~10DTB");
        assert_eq!(&assigned[9_999].short, b"BC~10000DTB");
    }

    #[test]
    fn what_fat_cannot_hold_is_refused() {
        for (name, problem) in [
            (&b"a:b"[..], NameProblem::Forbidden(':')),
            (b"a\x1b", NameProblem::Forbidden('\x1b')),
            (b"\xff", NameProblem::NotText),
            (b"..", NameProblem::Reserved),
            (b"a.", NameProblem::Trailing),
            (b"a ", NameProblem::Trailing),
        ] {
            assert_eq!(check(name), Err(problem));
        }
        assert!(check("x".repeat(255).as_bytes()).is_ok());
        assert_eq!(check("😀".repeat(128).as_bytes()), Err(NameProblem::Long(256)));
        assert!(check("😀".repeat(127).as_bytes()).is_ok());
    }

    #[test]
    fn short_names_are_read_with_their_case_and_code_page() {
        assert_eq!(decode_short(b"CONFIG  TXT", 0x18).unwrap(), "config.txt");
        assert_eq!(decode_short(b"\x05\x81      TXT", 0).unwrap(), "σü.TXT");
        assert_eq!(decode_short(b"           ", 0), None);
        assert_eq!(UPPER_437.chars().count(), 128);
    }

    #[test]
    fn names_that_differ_in_case_are_one_name() {
        assert_eq!(fold("Straße"), fold("STRASSE"));
        assert_eq!(fold("ÉTÉ"), fold("été"));
        assert_ne!(fold("a"), fold("b"));
    }
}
