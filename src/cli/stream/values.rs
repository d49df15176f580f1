//! Values on the command line: retention, tags, starting points, shard ids, hash keys.

use crate::timestamp;
use serde_json::{Map, Value};

/// The hours that a stream can keep records.
const RETENTION_HOURS: std::ops::RangeInclusive<u32> = 24..=8_760;
const MINUTE_MS: i64 = 60_000;

/// Reads how long a stream keeps records, like `48h`, `7d` or `1y`; returns hours.
pub(super) fn parse_retention(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is no retention; write 24h to 8760h, or days like 7d");
    let unit = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u32 = text[..unit].parse().map_err(|_| wrong())?;
    let hours = match &text[unit..] {
        "h" => Some(number),
        "d" => number.checked_mul(24),
        "w" => number.checked_mul(7 * 24),
        "y" => number.checked_mul(365 * 24),
        _ => None,
    };
    hours.filter(|hours| RETENTION_HOURS.contains(hours)).ok_or_else(wrong)
}

/// Reads a tag, `key=value`.
pub(super) fn parse_tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is no tag; write KEY=VALUE")),
    }
}

/// Puts tags into the form of a request.
pub(super) fn tag_map(tags: &[(String, String)]) -> Map<String, Value> {
    tags.iter()
        .map(|(key, value)| (key.clone(), Value::from(value.as_str())))
        .collect()
}

/// Reads a hash key: a decimal number below 2^128.
pub(super) fn parse_hash_key(text: &str) -> Result<u128, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no hash key; write a number from 0 to {}", u128::MAX))
}

/// Reads the id of a shard; its number is enough.
pub(super) fn parse_shard(text: &str) -> Result<String, String> {
    if let Ok(number) = text.parse::<u64>() {
        return Ok(format!("shardId-{number:012}"));
    }
    if !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"_.-".contains(&c)) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is no shard; write its id, like shardId-000000000003, or its number, like 3"
    ))
}

/// Where reading starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// At the oldest record.
    TrimHorizon,
    /// Behind the newest record.
    Latest,
    /// So many milliseconds ago.
    Ago(i64),
    /// At a moment, milliseconds since 1970.
    At(i64),
    /// At a record.
    Sequence(String),
}

/// Reads where to start.
pub(super) fn parse_from(text: &str) -> Result<From, String> {
    match text.to_ascii_lowercase().replace('_', "-").as_str() {
        "trim-horizon" | "oldest" | "start" => return Ok(From::TrimHorizon),
        "latest" | "now" => return Ok(From::Latest),
        _ => {}
    }
    if !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) {
        return Ok(From::Sequence(text.to_owned()));
    }
    if let Some(ms) = ago(text) {
        return Ok(From::Ago(ms));
    }
    moment(text).map(From::At).ok_or_else(|| {
        format!(
            "{text:?} is no place to start; write trim-horizon, latest, how long ago (30s, 5m, 2h, 1d), a time \
             (2026-11-23T08:00:00Z), or a sequence number"
        )
    })
}

fn ago(text: &str) -> Option<i64> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let number: i64 = text[..unit].parse().ok()?;
    let unit_ms = match &text[unit..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => MINUTE_MS,
        "h" => 60 * MINUTE_MS,
        "d" => 24 * 60 * MINUTE_MS,
        _ => return None,
    };
    number.checked_mul(unit_ms)
}

/// Reads a time as RFC 3339 has it; without an offset it is UTC. Returns milliseconds since 1970.
fn moment(text: &str) -> Option<i64> {
    let text = text.replace('t', "T").replace('z', "Z");
    // The date has hyphens too, so an offset is looked for behind the clock only.
    let clock = text.find(['T', ' '])? + 1;
    let Some(sign) = text[clock..].find(['+', '-']).map(|at| clock + at) else {
        return timestamp::parse(&text);
    };
    let (hours, minutes) = text[sign + 1..].split_once(':')?;
    let part = |digits: &str, max: i64| {
        let is_two = digits.len() == 2 && digits.bytes().all(|c| c.is_ascii_digit());
        digits.parse::<i64>().ok().filter(|&number| is_two && number <= max)
    };
    let offset_ms = (part(hours, 23)? * 60 + part(minutes, 59)?) * MINUTE_MS;
    let local = timestamp::parse(&text[..sign])?;
    Some(if text.as_bytes()[sign] == b'+' {
        local - offset_ms
    } else {
        local + offset_ms
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_is_hours_days_weeks_or_a_year() {
        assert_eq!(parse_retention("24h"), Ok(24));
        assert_eq!(parse_retention("7d"), Ok(168));
        assert_eq!(parse_retention("2w"), Ok(336));
        assert_eq!(parse_retention("1y"), Ok(8_760));
        for wrong in [
            "",
            "24",
            "h",
            "23h",
            "366d",
            "-24h",
            "24 h",
            "9999999999d",
            "99999999y",
            "1m",
        ] {
            assert!(parse_retention(wrong).unwrap_err().contains("8760h"), "{wrong}");
        }
    }

    #[test]
    fn tags_may_have_anything_behind_the_first_equals_sign() {
        assert_eq!(parse_tag("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(parse_tag("a="), Ok(("a".into(), String::new())));
        assert!(parse_tag("=b").is_err() && parse_tag("ab").is_err());
    }

    #[test]
    fn a_shard_is_named_by_its_id_or_its_number() {
        assert_eq!(parse_shard("3").unwrap(), "shardId-000000000003");
        assert_eq!(parse_shard("shardId-000000000003").unwrap(), "shardId-000000000003");
        assert!(parse_shard("").is_err() && parse_shard("a/b").is_err());
    }

    #[test]
    fn every_place_to_start_is_understood() {
        for (text, from) in [
            ("trim-horizon", From::TrimHorizon),
            ("TRIM_HORIZON", From::TrimHorizon),
            ("LATEST", From::Latest),
            ("5m", From::Ago(300_000)),
            ("1d", From::Ago(86_400_000)),
            ("250ms", From::Ago(250)),
            ("2026-11-23T06:10:33.007Z", From::At(1_795_414_233_007)),
            ("2026-11-23 06:10:33", From::At(1_795_414_233_000)),
            ("2026-11-23t06:10:33z", From::At(1_795_414_233_000)),
            ("2026-11-23T08:40:33+02:30", From::At(1_795_414_233_000)),
            ("2026-11-23T01:10:33-05:00", From::At(1_795_414_233_000)),
            (
                "49680479943324145413981097456403089468453399569687904258",
                From::Sequence("49680479943324145413981097456403089468453399569687904258".into()),
            ),
        ] {
            assert_eq!(parse_from(text), Ok(from), "{text}");
        }
        for wrong in [
            "",
            "yesterday",
            "5x",
            "m",
            "2026-11-23",
            "2026-11-23T06:10:33+2",
            "99999999999999999999d",
            "-5m",
        ] {
            assert!(parse_from(wrong).unwrap_err().contains("trim-horizon"), "{wrong}");
        }
    }

    #[test]
    fn hash_keys_are_128_bits() {
        assert_eq!(parse_hash_key("0"), Ok(0));
        assert_eq!(parse_hash_key("340282366920938463463374607431768211455"), Ok(u128::MAX));
        assert!(parse_hash_key("340282366920938463463374607431768211456").is_err());
    }
}
