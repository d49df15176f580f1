//! Durations and sizes as text, with the units that Flink's configuration knows.

use std::time::Duration;

const A_DURATION: &str = "a duration: write a whole number and a unit, such as '5 s', '100 ms' or '1 min'";
const A_SIZE: &str = "a size: write a whole number and a unit, such as '64 kb', '128 mb' or '1 gb'";

/// Reads a duration such as `5s`, `100 ms`, `1 min`; a bare number is milliseconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text, A_DURATION)?;
    let nanos: u128 = match unit.as_str() {
        "d" | "day" | "days" => 86_400_000_000_000,
        "h" | "hour" | "hours" => 3_600_000_000_000,
        "m" | "min" | "minute" | "minutes" => 60_000_000_000,
        "s" | "sec" | "secs" | "second" | "seconds" => 1_000_000_000,
        "" | "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1_000_000,
        "µs" | "us" | "micro" | "micros" | "microsecond" | "microseconds" => 1_000,
        "ns" | "nano" | "nanos" | "nanosecond" | "nanoseconds" => 1,
        _ => return Err(format!("'{text}' is not {A_DURATION}")),
    };
    let nanos = u128::from(number) * nanos;
    u64::try_from(nanos)
        .map(Duration::from_nanos)
        .map_err(|_| format!("'{text}' is longer than 584 years; write a shorter time, such as '1 d'"))
}

/// Reads a size such as `128mb` in bytes; a bare number is bytes.
pub(crate) fn memory_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text, A_SIZE)?;
    let shift = match unit.as_str() {
        "" | "b" | "byte" | "bytes" => 0,
        "k" | "kb" | "kibibyte" | "kibibytes" => 10,
        "m" | "mb" | "mebibyte" | "mebibytes" => 20,
        "g" | "gb" | "gibibyte" | "gibibytes" => 30,
        "t" | "tb" | "tebibyte" | "tebibytes" => 40,
        _ => return Err(format!("'{text}' is not {A_SIZE}")),
    };
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("'{text}' is too large; write a smaller size, such as '1 gb'"))
}

/// Splits a text into its number and its unit in lower case. `expected` says what it should be.
fn split(text: &str, expected: &str) -> Result<(u64, String), String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..end].parse().map_err(|_| format!("'{text}' is not {expected}"))?;
    Ok((number, text[end..].trim().to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration(" 100 ms "), Ok(Duration::from_millis(100)));
        assert_eq!(duration("250"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2 Hours"), Ok(Duration::from_secs(7200)));
        assert!(duration("5 fortnights").is_err());
        assert!(duration("-5s").is_err());
        assert!(duration("18446744073709551615 d").is_err());
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(memory_size("128mb"), Ok(128 << 20));
        assert_eq!(memory_size("1 KB"), Ok(1024));
        assert_eq!(memory_size("7"), Ok(7));
        assert!(memory_size("99999999999 tb").is_err());
        assert!(memory_size("1 parsec").is_err());
    }
}
