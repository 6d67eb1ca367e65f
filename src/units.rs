//! Quantities that must not be mixed up: bytes and 512-byte sectors.

use std::fmt;

/// Size of the sector that partition tables and FAT count in. Cards and USB disks that a Pi boots from
/// report 512-byte logical sectors, and so does every published Raspberry Pi image.
pub const SECTOR: u64 = 512;

/// A number of bytes, or an offset in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl Bytes {
    /// `n` × 1024 bytes.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` × 1024² bytes.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// `n` × 1024³ bytes.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// Rounds up to a multiple of `align` (bytes, not zero); `None` when the result does not fit 64 bits.
    pub fn align_up(self, align: Bytes) -> Option<Self> {
        self.0.checked_next_multiple_of(align.0).map(Self)
    }

    /// Whole sectors, rounded up.
    pub fn sectors(self) -> u64 {
        self.0.div_ceil(SECTOR)
    }

    /// Reads `512`, `64K`, `512M`, `1.5G`, `8MiB`: suffixes are powers of 1024, as in `truncate -s` and systemd.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim().trim_end_matches("iB").trim_end_matches('B') {
            "" => 0,
            "K" | "k" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        if fraction.is_empty() || fraction.len() > 9 {
            return None;
        }
        let whole = whole.parse::<u64>().ok()?.checked_mul(1 << shift)?;
        let scale = 10u128.pow(fraction.len() as u32);
        let part = u128::from(fraction.parse::<u64>().ok()?) * (1u128 << shift) / scale;
        whole.checked_add(u64::try_from(part).ok()?).map(Self)
    }
}

/// Written as people read sizes: `512 B`, `4.0 KiB`, `1.2 GiB`.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        let mut unit = "B";
        for next in ["KiB", "MiB", "GiB", "TiB"] {
            if value < 1024.0 {
                break;
            }
            value /= 1024.0;
            unit = next;
        }
        if unit == "B" { write!(f, "{} B", self.0) } else { write!(f, "{value:.1} {unit}") }
    }
}

#[cfg(test)]
mod tests {
    use super::Bytes;

    #[test]
    fn sizes_are_read_as_powers_of_1024() {
        for (text, bytes) in [
            ("512", 512),
            ("64K", 64 << 10),
            ("512M", 512 << 20),
            ("1.5G", 3 << 29),
            ("8MiB", 8 << 20),
            ("2 G", 2 << 30),
        ] {
            assert_eq!(Bytes::parse(text), Some(Bytes(bytes)), "{text}");
        }
        for text in ["", "M", "1..5G", "5X", "-1", "99999999999T", "1.G"] {
            assert_eq!(Bytes::parse(text), None, "{text}");
        }
    }

    #[test]
    fn aligning_past_the_end_is_not_wrapped() {
        assert_eq!(Bytes(1).align_up(Bytes::mib(4)), Some(Bytes::mib(4)));
        assert_eq!(Bytes(u64::MAX).align_up(Bytes::mib(4)), None);
    }

    #[test]
    fn sizes_are_written_for_people() {
        assert_eq!(Bytes(512).to_string(), "512 B");
        assert_eq!(Bytes::mib(1536).to_string(), "1.5 GiB");
    }
}
