//! FAT times: a date of 16 bits and a time of 16 bits in steps of two seconds, with no time zone.
//!
//! Times are written and read as UTC, which is what a Pi without a clock chip lives in until it has synchronised,
//! and what Linux assumes with the mount option `tz=UTC`.

use crate::meta::Timestamp;

const DAY: i64 = 86_400;
/// 1980-01-01T00:00:00Z, the first FAT time.
const FIRST: i64 = 315_532_800;
/// 2107-12-31T23:59:59Z, the last second of the last FAT day.
const LAST: i64 = 4_354_819_199;

/// A time as a directory entry holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FatTime {
    /// Year from 1980 (7 bits), month (4), day (5).
    pub date: u16,
    /// Hours (5 bits), minutes (6), seconds halved (5).
    pub time: u16,
    /// Hundredths of a second after that, 0 to 199: only the creation time has a place for it.
    pub hundredths: u8,
}

/// The FAT time at or before `time`; before 1980 and after 2107 it is the first and the last there is.
pub(super) fn encode(time: Timestamp) -> FatTime {
    let seconds = time.seconds.clamp(FIRST, LAST);
    let inside = seconds == time.seconds;
    let nanoseconds = if inside { time.nanoseconds.min(999_999_999) } else { 0 };
    let (year, month, day) = civil(seconds / DAY);
    let of_day = seconds % DAY;
    let time = (of_day / 3600) << 11 | (of_day / 60 % 60) << 5 | (of_day % 60 / 2);
    let date = (year - 1980) << 9 | month << 5 | day;
    // The clamp above keeps every field inside its bits.
    FatTime {
        date: date as u16,
        time: time as u16,
        hundredths: (seconds % 2) as u8 * 100 + (nanoseconds / 10_000_000) as u8,
    }
}

/// The time a directory entry means. Fields out of range (month 0, second 62) are taken at their nearest valid
/// value: a bad time is no reason to refuse a file.
pub(super) fn decode(date: u16, time: u16) -> Timestamp {
    let (date, time) = (i64::from(date), i64::from(time));
    let (year, month, day) = (1980 + (date >> 9), (date >> 5 & 15).clamp(1, 12), (date & 31).max(1));
    let of_day = (time >> 11).min(23) * 3600 + (time >> 5 & 63).min(59) * 60 + (time & 31).min(29) * 2;
    Timestamp::seconds(days(year, month, day) * DAY + of_day)
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar. Years are counted from March,
/// so that the leap day is the last of its year; only days from 1970 on are asked for.
fn civil(days: i64) -> (i64, i64, i64) {
    let since = days + 719_468; // from 0000-03-01
    let (era, of_era) = (since / 146_097, since % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// The reverse of [`civil`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_are_right() {
        // 2026-11-23T10:51:57Z
        let time = encode(Timestamp { seconds: 1_795_431_117, nanoseconds: 340_000_000 });
        assert_eq!(time.date, 46 << 9 | 11 << 5 | 23);
        assert_eq!(time.time, 10 << 11 | 51 << 5 | 28);
        assert_eq!(time.hundredths, 134);
        assert_eq!(decode(time.date, time.time), Timestamp::seconds(1_795_431_116));
    }

    #[test]
    fn times_outside_fat_are_the_nearest_there_is() {
        for (seconds, date, time) in [
            (i64::MIN, 1 << 5 | 1, 0),
            (FIRST - 1, 1 << 5 | 1, 0),
            (FIRST, 1 << 5 | 1, 0),
            (LAST, 127 << 9 | 12 << 5 | 31, 23 << 11 | 59 << 5 | 29),
            (i64::MAX, 127 << 9 | 12 << 5 | 31, 23 << 11 | 59 << 5 | 29),
        ] {
            let encoded = encode(Timestamp { seconds, nanoseconds: 5 });
            assert_eq!((encoded.date, encoded.time), (date, time), "{seconds}");
        }
    }

    #[test]
    fn every_day_there_is_comes_back() {
        for day in FIRST / DAY..=LAST / DAY {
            let time = Timestamp::seconds(day * DAY + 86_398);
            let encoded = encode(time);
            assert_eq!(decode(encoded.date, encoded.time), time);
        }
    }

    #[test]
    fn fields_out_of_range_do_not_panic() {
        for date in [0, u16::MAX, 15 << 5] {
            for time in [0, u16::MAX] {
                decode(date, time);
            }
        }
    }
}
