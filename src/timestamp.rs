//! Timestamps in UTC, for people and as Flink's JSON format writes them.

const DAY_MS: i64 = 86_400_000;

/// Writes milliseconds since the epoch as RFC 3339 does: `2026-11-23T06:10:33.123Z`.
pub(crate) fn rfc3339(ms: i64) -> String {
    let mut text = format(ms).replacen(' ', "T", 1);
    text.push('Z');
    text
}

/// Writes milliseconds since the epoch as Flink's JSON format does: `2026-11-23 06:10:33.123`.
pub(crate) fn format(ms: i64) -> String {
    let (year, month, day) = civil(ms.div_euclid(DAY_MS));
    let of_day = ms.rem_euclid(DAY_MS);
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1_000 % 60);
    format!(
        "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{:03}",
        of_day % 1_000
    )
}

/// Reads what [`format()`] writes; the fraction may have any number of digits, or be left out.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let (date, time) = text.trim_end_matches('Z').split_once([' ', 'T'])?;
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut clock = clock.splitn(3, ':').map(str::parse::<i64>);
    let (hour, minute) = (clock.next()?.ok()?, clock.next()?.ok()?);
    let second = clock.next().unwrap_or(Ok(0)).ok()?;
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let valid = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60;
    valid.then(|| days(year, month, day) * DAY_MS + hour * 3_600_000 + minute * 60_000 + second * 1_000 + millis)
}

/// The day number of a date: days since 1970-01-01 of the proleptic Gregorian calendar, counted in years from March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, month) = (year.div_euclid(400), (month + 9) % 12);
    let (of_era, of_year) = (year.rem_euclid(400), (153 * month + 2) / 5 + day - 1);
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date of a day number.
fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_are_written_and_read() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00.000"),
            (951_782_400_123, "2000-02-29 00:00:00.123"),
            (1_795_414_233_007, "2026-11-23 06:10:33.007"),
            (-1, "1969-12-31 23:59:59.999"),
        ] {
            assert_eq!(format(ms), text);
            assert_eq!(parse(text), Some(ms));
            assert_eq!(parse(&rfc3339(ms)), Some(ms));
        }
        assert_eq!(rfc3339(1_795_414_233_007), "2026-11-23T06:10:33.007Z");
        assert_eq!(parse("2026-11-23T06:10:33Z"), Some(1_795_414_233_000));
        assert_eq!(parse("2026-11-23 06:10:33.5"), Some(1_795_414_233_500));
    }

    #[test]
    fn every_day_comes_back() {
        for day in -200_000..200_000 {
            let (year, month, date) = civil(day);
            assert_eq!(days(year, month, date), day);
        }
    }

    #[test]
    fn what_is_no_timestamp_is_refused() {
        for text in [
            "",
            "yesterday",
            "2026-13-01 00:00:00",
            "2026-01-01",
            "2026-01-01 25:00:00",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
