//! Days and times of the Gregorian calendar, and texts of them by Java's patterns (`yyyy-MM-dd HH:mm:ss.SSS`).

const US_PER_SECOND: i64 = 1_000_000;
const US_PER_DAY: i64 = 86_400 * US_PER_SECOND;

/// A moment taken apart, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) year: i64,
    /// 1 to 12.
    pub(crate) month: i64,
    /// 1 to 31.
    pub(crate) day: i64,
    /// Within the day.
    pub(crate) us: i64,
}

impl Moment {
    /// Takes microseconds since the epoch apart.
    pub(crate) fn of_us(us: i64) -> Self {
        let (year, month, day) = civil(us.div_euclid(US_PER_DAY));
        Self {
            year,
            month,
            day,
            us: us.rem_euclid(US_PER_DAY),
        }
    }

    /// Returns days since the epoch.
    pub(crate) fn days(self) -> i64 {
        days(self.year, self.month, self.day)
    }

    /// Returns microseconds since the epoch; `None` beyond what 64 bits hold.
    pub(crate) fn us(self) -> Option<i64> {
        self.days().checked_mul(US_PER_DAY)?.checked_add(self.us)
    }

    /// Adds months; a day that the new month does not have becomes its last one.
    pub(crate) fn plus_months(self, months: i64) -> Option<Self> {
        let month = self
            .year
            .checked_mul(12)?
            .checked_add(self.month - 1)?
            .checked_add(months)?;
        let (year, month) = (month.div_euclid(12), month.rem_euclid(12) + 1);
        let year_fits = (-200_000..=200_000).contains(&year);
        year_fits.then(|| Self {
            year,
            month,
            day: self.day.min(days_in(year, month)),
            us: self.us,
        })
    }
}

/// Returns the days since the epoch of a day (Howard Hinnant, "chrono-compatible low-level date algorithms").
pub(crate) fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// A letter of Java's, so many times.
    Letter(char, usize),
    Text(String),
}

/// A pattern of `java.time.format.DateTimeFormatter`: the letters `y u M d H h k K m s S a E e D Q`, quoted text, and signs.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(Vec<Part>);

impl Pattern {
    /// Understands a pattern.
    ///
    /// # Errors
    /// Says which letter is not understood.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '\'' => {
                    let mut quoted = String::new();
                    if rest.next_if_eq(&'\'').is_some() {
                        parts.push(Part::Text("'".into()));
                        continue;
                    }
                    loop {
                        match rest.next() {
                            Some('\'') if rest.next_if_eq(&'\'').is_some() => quoted.push('\''),
                            Some('\'') => break,
                            Some(c) => quoted.push(c),
                            None => return Err(format!("the time pattern '{text}' has an open quote")),
                        }
                    }
                    parts.push(Part::Text(quoted));
                }
                c if c.is_ascii_alphabetic() => {
                    let mut count = 1;
                    while rest.next_if_eq(&c).is_some() {
                        count += 1;
                    }
                    if !"yuMdHhkKmsSaEeDQ".contains(c) || (c == 'S' && count > 9) {
                        let letters = c.to_string().repeat(count);
                        return Err(format!("{letters} of the time pattern '{text}' is not supported"));
                    }
                    parts.push(Part::Letter(c, count));
                }
                c => parts.push(Part::Text(c.into())),
            }
        }
        Ok(Self(parts))
    }

    /// Writes a moment.
    pub(crate) fn format(&self, us: i64) -> String {
        let moment = Moment::of_us(us);
        let second = moment.us / US_PER_SECOND;
        let hour = second / 3_600;
        let weekday = (moment.days() + 4).rem_euclid(7) as usize;
        let mut text = String::new();
        let number = |number: i64, width: usize| format!("{number:0width$}");
        for part in &self.0 {
            let written = match *part {
                Part::Text(ref quoted) => quoted.clone(),
                Part::Letter('y' | 'u', 2) => number(moment.year.rem_euclid(100), 2),
                Part::Letter('y' | 'u', width) => number(moment.year, width),
                Part::Letter('M', width @ (1 | 2)) => number(moment.month, width),
                Part::Letter('M', width) => name(MONTHS[(moment.month - 1) as usize], width),
                Part::Letter('d', width) => number(moment.day, width),
                Part::Letter('D', width) => number(moment.days() - days(moment.year, 1, 1) + 1, width),
                Part::Letter('Q', width) => number((moment.month + 2) / 3, width),
                Part::Letter('E', width) => name(DAYS[weekday], width),
                Part::Letter('e', width) => number(weekday as i64 + 1, width),
                Part::Letter('H', width) => number(hour, width),
                Part::Letter('k', width) => number(if hour == 0 { 24 } else { hour }, width),
                Part::Letter('h', width) => number(if hour % 12 == 0 { 12 } else { hour % 12 }, width),
                Part::Letter('K', width) => number(hour % 12, width),
                Part::Letter('m', width) => number(second / 60 % 60, width),
                Part::Letter('s', width) => number(second % 60, width),
                Part::Letter('S', width) => number(moment.us % US_PER_SECOND * 1_000, 9)[..width].to_owned(),
                Part::Letter('a', _) => (if hour < 12 { "AM" } else { "PM" }).to_owned(),
                Part::Letter(..) => String::new(),
            };
            text.push_str(&written);
        }
        text
    }

    /// Reads a moment; `None` for text that does not fit, and for days that are not.
    pub(crate) fn read(&self, text: &str) -> Option<i64> {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        let (mut hour, mut minute, mut second, mut us) = (0, 0, 0, 0);
        let mut half = None;
        let mut rest = text;
        for (index, part) in self.0.iter().enumerate() {
            match *part {
                Part::Text(ref quoted) => rest = rest.strip_prefix(quoted.as_str())?,
                Part::Letter('a', _) => {
                    let word = rest.get(..2)?;
                    half = Some(match word.to_ascii_uppercase().as_str() {
                        "AM" => 0,
                        "PM" => 12,
                        _ => return None,
                    });
                    rest = &rest[2..];
                }
                Part::Letter('M', width @ 3..) => {
                    let place = MONTHS.iter().position(|month| {
                        let written = name(month, width);
                        rest.get(..written.len())
                            .is_some_and(|found| found.eq_ignore_ascii_case(&written))
                    })?;
                    rest = &rest[name(MONTHS[place], width).len()..];
                    month = place as i64 + 1;
                }
                Part::Letter('E', width) => {
                    let place = DAYS.iter().position(|day| {
                        let written = name(day, width);
                        rest.get(..written.len())
                            .is_some_and(|found| found.eq_ignore_ascii_case(&written))
                    })?;
                    rest = &rest[name(DAYS[place], width).len()..];
                }
                Part::Letter(letter, width) => {
                    // Letters side by side take as many digits as they are wide.
                    let tight = matches!(self.0.get(index + 1), Some(Part::Letter(..))) || letter == 'S';
                    let most = match letter {
                        _ if tight => width,
                        'y' | 'u' => 9,
                        _ => width.max(2),
                    };
                    let digits = rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
                    if digits < width.min(most) {
                        return None;
                    }
                    let value: i64 = rest[..digits].parse().ok()?;
                    rest = &rest[digits..];
                    let within = |range: std::ops::RangeInclusive<i64>| range.contains(&value).then_some(value);
                    match letter {
                        'y' | 'u' if width == 2 => year = 2000 + value,
                        'y' | 'u' => year = value,
                        'M' => month = within(1..=12)?,
                        'd' => day = within(1..=31)?,
                        'H' => hour = within(0..=23)?,
                        'k' => hour = within(1..=24)? % 24,
                        'h' => hour = within(1..=12)? % 12,
                        'K' => hour = within(0..=11)?,
                        'm' => minute = within(0..=59)?,
                        's' => second = within(0..=59)?,
                        'S' => us = value * 10i64.pow(9 - width as u32) / 1_000,
                        _ => return None,
                    }
                }
            }
        }
        if !rest.is_empty() || day > days_in(year, month) {
            return None;
        }
        let seconds = (hour + half.unwrap_or(0)) * 3_600 + minute * 60 + second;
        let us = seconds * US_PER_SECOND + us;
        Moment { year, month, day, us }.us()
    }
}

/// Writes a name in full from four letters on, else its first three letters.
fn name(full: &str, width: usize) -> String {
    match width {
        4.. => full.to_owned(),
        _ => full.chars().take(3).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_are_each_others_inverse() {
        for day in (-1_000_000..1_000_000).step_by(997) {
            let (year, month, of_month) = civil(day);
            assert_eq!(days(year, month, of_month), day);
        }
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(days(2026, 11, 23), 20_780);
    }

    #[test]
    fn patterns_write_and_read() {
        let us = days(2026, 2, 3) * US_PER_DAY + (13 * 3_600 + 4 * 60 + 5) * US_PER_SECOND + 678_900;
        for (pattern, text) in [
            ("yyyy-MM-dd HH:mm:ss.SSS", "2026-02-03 13:04:05.678"),
            ("yyyyMMddHHmmss", "20260203130405"),
            ("d/M/yy h:mm a", "3/2/26 1:04 PM"),
            ("EEE, dd MMM yyyy 'at' HH''mm", "Tue, 03 Feb 2026 at 13'04"),
            ("EEEE MMMM", "Tuesday February"),
            ("yyyy-MM-dd'T'HH:mm:ss.SSSSSS'Z'", "2026-02-03T13:04:05.678900Z"),
        ] {
            let pattern = Pattern::parse(pattern).unwrap();
            assert_eq!(pattern.format(us), text);
            if text != "Tuesday February" {
                let read = pattern.read(text).unwrap();
                assert_eq!(pattern.format(read), text);
            }
        }
        let pattern = Pattern::parse("yyyy-MM-dd HH:mm:ss.SSSSSS").unwrap();
        assert_eq!(pattern.read("2026-02-03 13:04:05.678900"), Some(us));
        for wrong in [
            "2026-02-30 00:00:00.000000",
            "2026-02-03",
            "2026-02-03 24:00:00.000000",
            "",
        ] {
            assert_eq!(pattern.read(wrong), None, "{wrong}");
        }
        assert!(Pattern::parse("yyyy-xx").is_err() && Pattern::parse("'a").is_err());
    }

    #[test]
    fn months_are_added_within_them() {
        let end = Moment {
            year: 2024,
            month: 1,
            day: 31,
            us: 0,
        };
        let february = end.plus_months(1).unwrap();
        assert_eq!((february.month, february.day), (2, 29));
        let before = end.plus_months(-14).unwrap();
        assert_eq!((before.year, before.month, before.day), (2022, 11, 30));
    }
}
