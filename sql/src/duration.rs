//! Durations as Flink's configuration writes them: `10 s`, `5 min`, `500ms`.

use std::time::Duration;

/// Parses a duration; without a unit it is milliseconds. `None` when it is none, or does not fit.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let ms = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1,
        "s" | "sec" | "secs" | "second" | "seconds" => 1_000,
        "m" | "min" | "mins" | "minute" | "minutes" => 60_000,
        "h" | "hour" | "hours" => 3_600_000,
        "d" | "day" | "days" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(ms).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_flinks_configuration() {
        assert_eq!(parse_duration("10 s"), Some(Duration::from_secs(10)));
        assert_eq!(parse_duration("5min"), Some(Duration::from_secs(300)));
        assert_eq!(parse_duration("250"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("1 d"), Some(Duration::from_secs(86_400)));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "s", "-1 s", "1.5 s", "10 parsecs", "18446744073709551615 d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
