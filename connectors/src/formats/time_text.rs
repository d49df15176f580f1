//! Dates, times and timestamps as text, as Flink's formats write them.
//!
//! | standard | `TIMESTAMP` | `TIMESTAMP_LTZ` |
//! |---|---|---|
//! | SQL | `2024-05-01 12:13:14.123` | `2024-05-01 12:13:14.123Z` |
//! | ISO-8601 | `2024-05-01T12:13:14.123` | `2024-05-01T12:13:14.123Z` |
//!
//! The fraction has up to nine digits; what a column's unit cannot hold is cut off. Seconds may be left out when
//! reading. A `TIMESTAMP_LTZ` may also carry an offset such as `+02:00`, which Flink does not read.

use arrow::datatypes::TimeUnit;

/// Which of the two spellings a format uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TimestampStandard {
    /// A blank between date and time.
    #[default]
    Sql,
    /// A `T` between date and time.
    Iso8601,
}

impl TimestampStandard {
    fn separator(self) -> u8 {
        match self {
            TimestampStandard::Sql => b' ',
            TimestampStandard::Iso8601 => b'T',
        }
    }

    fn name(self) -> &'static str {
        match self {
            TimestampStandard::Sql => "SQL",
            TimestampStandard::Iso8601 => "ISO-8601",
        }
    }
}

/// Whether a timestamp is a moment (`TIMESTAMP_LTZ`) or a reading of some clock (`TIMESTAMP`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zone {
    /// No zone is written.
    None,
    /// `Z`, or an offset, is written.
    Utc,
}

const SECONDS_PER_DAY: i64 = 86_400;

/// Reads `yyyy-MM-dd` as days since the epoch.
pub(crate) fn parse_date(text: &str) -> Result<i32, String> {
    let mut cursor = Cursor {
        bytes: text.trim().as_bytes(),
        at: 0,
    };
    match cursor.date() {
        Some(days) if cursor.is_at_end() => Ok(days),
        _ => Err(format!(
            "'{}' is not a date; it must be written as 2024-05-01",
            shorten(text)
        )),
    }
}

/// Reads `HH:mm[:ss[.fraction]]` as nanoseconds since midnight.
pub(crate) fn parse_time(text: &str) -> Result<i64, String> {
    let mut cursor = Cursor {
        bytes: text.trim().as_bytes(),
        at: 0,
    };
    match cursor.time() {
        Some((seconds, nanos)) if cursor.is_at_end() => Ok(seconds * 1_000_000_000 + i64::from(nanos)),
        _ => Err(format!(
            "'{}' is not a time; it must be written as 12:13:14.123",
            shorten(text)
        )),
    }
}

/// Reads a timestamp in a unit of time since the epoch.
pub(crate) fn parse_timestamp(
    text: &str,
    standard: TimestampStandard,
    zone: Zone,
    unit: TimeUnit,
) -> Result<i64, String> {
    let text = text.trim();
    let mut cursor = Cursor {
        bytes: text.as_bytes(),
        at: 0,
    };
    let Some((seconds, nanos)) = cursor.timestamp(standard, zone) else {
        return Err(timestamp_problem(text, standard, zone));
    };
    let scaled = match unit {
        TimeUnit::Second => Some(seconds),
        TimeUnit::Millisecond => seconds
            .checked_mul(1_000)
            .and_then(|s| s.checked_add(i64::from(nanos / 1_000_000))),
        TimeUnit::Microsecond => seconds
            .checked_mul(1_000_000)
            .and_then(|s| s.checked_add(i64::from(nanos / 1_000))),
        TimeUnit::Nanosecond => seconds
            .checked_mul(1_000_000_000)
            .and_then(|s| s.checked_add(i64::from(nanos))),
    };
    scaled.ok_or_else(|| format!("the timestamp '{}' is out of the column's range", shorten(text)))
}

/// Explains why a text is not a timestamp, with the option to set where another spelling was used.
fn timestamp_problem(text: &str, standard: TimestampStandard, zone: Zone) -> String {
    let reads = |standard, zone| {
        let mut cursor = Cursor {
            bytes: text.as_bytes(),
            at: 0,
        };
        cursor.timestamp(standard, zone).is_some()
    };
    let other = match standard {
        TimestampStandard::Sql => TimestampStandard::Iso8601,
        TimestampStandard::Iso8601 => TimestampStandard::Sql,
    };
    let shown = shorten(text);
    let example = format!(
        "2024-05-01{}12:13:14.123{}",
        char::from(standard.separator()),
        if zone == Zone::Utc { "Z" } else { "" }
    );
    let hint = if zone == Zone::None && (reads(standard, Zone::Utc) || reads(other, Zone::Utc)) {
        "; it has a zone: declare the column as TIMESTAMP_LTZ".to_owned()
    } else if reads(other, zone) {
        format!(
            "; it is spelt as {}: set the format's timestamp-format.standard",
            other.name()
        )
    } else if zone == Zone::Utc && (reads(standard, Zone::None) || reads(other, Zone::None)) {
        "; it has no zone: declare the column as TIMESTAMP".to_owned()
    } else if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        "; for numbers declare the column as BIGINT and compute the timestamp with TO_TIMESTAMP_LTZ".to_owned()
    } else {
        String::new()
    };
    format!(
        "'{shown}' is not a timestamp in the standard {}, such as {example}{hint}",
        standard.name()
    )
}

/// Cuts a text that is to stand in a message.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn digits(&mut self, count: usize) -> Option<u32> {
        let digits = self.bytes.get(self.at..self.at + count)?;
        let mut value = 0;
        for digit in digits {
            if !digit.is_ascii_digit() {
                return None;
            }
            value = value * 10 + u32::from(digit - b'0');
        }
        self.at += count;
        Some(value)
    }

    fn literal(&mut self, byte: u8) -> Option<()> {
        (self.bytes.get(self.at) == Some(&byte)).then(|| self.at += 1)
    }

    fn date(&mut self) -> Option<i32> {
        let year = self.digits(4)?;
        self.literal(b'-')?;
        let month = self.digits(2)?;
        self.literal(b'-')?;
        let day = self.digits(2)?;
        if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
            return None;
        }
        Some(days_from_civil(i64::from(year), month, day))
    }

    /// Returns seconds since midnight and nanoseconds.
    fn time(&mut self) -> Option<(i64, u32)> {
        let hour = self.digits(2)?;
        self.literal(b':')?;
        let minute = self.digits(2)?;
        if hour > 23 || minute > 59 {
            return None;
        }
        let (mut second, mut nanos) = (0, 0);
        if self.literal(b':').is_some() {
            second = self.digits(2)?;
            if second > 59 {
                return None;
            }
            if self.literal(b'.').is_some() {
                let start = self.at;
                while self.at - start < 9 && self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
                    nanos = nanos * 10 + u32::from(self.bytes[self.at] - b'0');
                    self.at += 1;
                }
                if self.at == start {
                    return None;
                }
                nanos *= 10_u32.pow(9 - u32::try_from(self.at - start).unwrap_or(9));
            }
        }
        Some((i64::from(hour * 3600 + minute * 60 + second), nanos))
    }

    /// Returns seconds since the epoch and nanoseconds.
    fn timestamp(&mut self, standard: TimestampStandard, zone: Zone) -> Option<(i64, u32)> {
        let days = self.date()?;
        self.literal(standard.separator())?;
        let (seconds, nanos) = self.time()?;
        let offset = match zone {
            Zone::None => 0,
            Zone::Utc => self.offset()?,
        };
        self.is_at_end()
            .then_some((i64::from(days) * SECONDS_PER_DAY + seconds - offset, nanos))
    }

    fn offset(&mut self) -> Option<i64> {
        if self.literal(b'Z').is_some() {
            return Some(0);
        }
        let sign = match self.bytes.get(self.at)? {
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        self.at += 1;
        let hours = self.digits(2)?;
        let _ = self.literal(b':');
        let minutes = self.digits(2)?;
        (hours <= 18 && minutes <= 59).then(|| sign * i64::from(hours * 3600 + minutes * 60))
    }
}

fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Returns the days since 1970-01-01 of a date of the proleptic Gregorian calendar.
///
/// Years begin in March here, so that the leap day is the last of its year: within 400-year eras of 146,097 days.
fn days_from_civil(year: i64, month: u32, day: u32) -> i32 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    i32::try_from(era * 146_097 + day_of_era - 719_468).unwrap_or(i32::MAX)
}

/// Returns year, month and day of a number of days since the epoch.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Writes days since the epoch as `yyyy-MM-dd`.
pub(crate) fn write_date(out: &mut Vec<u8>, days: i64) {
    let (year, month, day) = civil_from_days(days);
    if (0..=9_999).contains(&year) {
        write_digits(out, year, 4);
    } else {
        // Years beyond four digits carry a sign, as ISO 8601 asks.
        out.push(if year < 0 { b'-' } else { b'+' });
        write_digits(out, year.abs(), 4);
    }
    out.push(b'-');
    write_digits(out, month, 2);
    out.push(b'-');
    write_digits(out, day, 2);
}

/// Writes nanoseconds since midnight as `HH:mm:ss` and as many digits of the fraction as are needed.
pub(crate) fn write_time(out: &mut Vec<u8>, nanos_of_day: i64) {
    let seconds = nanos_of_day.div_euclid(1_000_000_000);
    write_digits(out, seconds / 3600, 2);
    out.push(b':');
    write_digits(out, seconds / 60 % 60, 2);
    out.push(b':');
    write_digits(out, seconds % 60, 2);
    let nanos = nanos_of_day.rem_euclid(1_000_000_000);
    if nanos != 0 {
        out.push(b'.');
        write_digits(out, nanos, 9);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

/// Writes a timestamp.
pub(crate) fn write_timestamp(out: &mut Vec<u8>, value: i64, unit: TimeUnit, standard: TimestampStandard, zone: Zone) {
    let per_second = match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    };
    let seconds = value.div_euclid(per_second);
    let nanos = value.rem_euclid(per_second) * (1_000_000_000 / per_second);
    write_date(out, seconds.div_euclid(SECONDS_PER_DAY));
    out.push(standard.separator());
    write_time(out, seconds.rem_euclid(SECONDS_PER_DAY) * 1_000_000_000 + nanos);
    if zone == Zone::Utc {
        out.push(b'Z');
    }
}

fn write_digits(out: &mut Vec<u8>, value: i64, width: usize) {
    let mut digits = [b'0'; 20];
    let (mut at, mut rest) = (digits.len(), value.unsigned_abs());
    while rest > 0 {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    out.extend_from_slice(&digits[at.min(digits.len() - width)..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use TimestampStandard::{Iso8601, Sql};
    use proptest::prelude::*;

    fn ms(text: &str, standard: TimestampStandard, zone: Zone) -> Result<i64, String> {
        parse_timestamp(text, standard, zone, TimeUnit::Millisecond)
    }

    #[test]
    fn both_standards_are_read() {
        assert_eq!(ms("1970-01-02 00:00:01.5", Sql, Zone::None), Ok(86_401_500));
        assert_eq!(ms("1970-01-02T00:00:01.5", Iso8601, Zone::None), Ok(86_401_500));
        assert_eq!(ms("1970-01-01 00:00:00Z", Sql, Zone::Utc), Ok(0));
        assert_eq!(ms("1970-01-01T02:00:00+02:00", Iso8601, Zone::Utc), Ok(0));
        assert_eq!(ms("1969-12-31 23:59", Sql, Zone::None), Ok(-60_000));
        assert_eq!(
            ms("2024-02-29 12:00:00.123456789", Sql, Zone::None),
            Ok(1_709_208_000_123)
        );
    }

    #[test]
    fn wrong_spelling_is_told_with_what_to_do() {
        let problem = |text, standard, zone| ms(text, standard, zone).unwrap_err();
        assert!(problem("1970-01-02T00:00:01", Sql, Zone::None).contains("timestamp-format.standard"));
        assert!(problem("1970-01-02 00:00:01Z", Sql, Zone::None).contains("TIMESTAMP_LTZ"));
        assert!(problem("1970-01-02 00:00:01", Sql, Zone::Utc).contains("declare the column as TIMESTAMP"));
        assert!(problem("1700000000000", Sql, Zone::None).contains("BIGINT"));
        assert!(problem("2023-02-29 00:00:00", Sql, Zone::None).contains("not a timestamp"));
    }

    #[test]
    fn ranges_are_kept() {
        assert!(parse_timestamp("9999-12-31 00:00:00", Sql, Zone::None, TimeUnit::Nanosecond).is_err());
        assert!(ms("9999-12-31 23:59:59.999", Sql, Zone::None).is_ok());
        assert!(parse_date("2024-13-01").is_err());
        assert!(parse_time("24:00:00").is_err());
        assert_eq!(parse_time("23:59:59.000000001"), Ok(86_399_000_000_001));
    }

    #[test]
    fn fractions_are_written_as_short_as_they_are() {
        let mut out = Vec::new();
        write_timestamp(&mut out, 1_500, TimeUnit::Millisecond, Iso8601, Zone::Utc);
        assert_eq!(out, b"1970-01-01T00:00:01.5Z");
        out.clear();
        write_timestamp(&mut out, -1, TimeUnit::Nanosecond, Sql, Zone::None);
        assert_eq!(out, b"1969-12-31 23:59:59.999999999");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in -62_167_219_200_000_i64..253_402_300_800_000) {
            let mut out = Vec::new();
            write_timestamp(&mut out, value, TimeUnit::Millisecond, Sql, Zone::None);
            let text = String::from_utf8(out).unwrap();
            prop_assert_eq!(ms(&text, Sql, Zone::None), Ok(value));
        }

        #[test]
        fn any_value_is_written_without_panic(value: i64, which in 0..4) {
            let units = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];
            let unit = units[usize::try_from(which).unwrap()];
            let mut out = Vec::new();
            write_timestamp(&mut out, value, unit, Sql, Zone::Utc);
            prop_assert!(out.len() > 10);
        }

        #[test]
        fn any_text_is_read_without_panic(text: String) {
            let _ = ms(&text, Sql, Zone::Utc);
            let _ = parse_date(&text);
            let _ = parse_time(&text);
        }
    }
}
