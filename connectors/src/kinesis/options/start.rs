//! Where a table's reading begins: `source.init.*`.

use crate::error::ConnectorError;
use crate::formats::time_text::{TimestampStandard, Zone, parse_timestamp};
use crate::kinesis::access::Start;
use crate::options::Options;
use arrow::datatypes::TimeUnit;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_shards::ShardId;

const POSITION: &str = "source.init.position";
const TIMESTAMP: &str = "source.init.timestamp";
const NUMBERS: &str = "source.init.sequence-numbers";
const TIMESTAMP_FORMAT: &str = "yyyy-MM-dd'T'HH:mm:ss.SSSXXX";
/// Digits of a sequence number; those of the service have 56.
const DIGITS_MAX: usize = 128;

/// Where a job begins to read that has no checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kinesis) enum InitialPosition {
    TrimHorizon,
    Latest,
    /// Milliseconds since 1970.
    AtTimestamp(u64),
    /// In the shards that are listed at these numbers; not at all in those they continue; in others at the beginning.
    SequenceNumbers {
        shards: BTreeMap<String, Arc<str>>,
        bound: Bound,
    },
}

/// Whether the record with the number itself is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kinesis) enum Bound {
    At,
    After,
}

impl Bound {
    /// Returns the start at a number.
    pub(in crate::kinesis) fn start(self, number: &Arc<str>) -> Start {
        match self {
            Self::At => Start::AtSequenceNumber(Arc::clone(number)),
            Self::After => Start::AfterSequenceNumber(Arc::clone(number)),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    TrimHorizon,
    Latest,
    AtTimestamp,
    Numbers(Bound),
}

/// Reads the options.
///
/// # Errors
/// When one is not valid, missing, or has no effect.
pub(super) fn parse(options: &Options<'_>) -> Result<InitialPosition, ConnectorError> {
    let choices = [
        ("LATEST", Choice::Latest),
        ("TRIM_HORIZON", Choice::TrimHorizon),
        ("AT_TIMESTAMP", Choice::AtTimestamp),
        ("AT_SEQUENCE_NUMBER", Choice::Numbers(Bound::At)),
        ("AFTER_SEQUENCE_NUMBER", Choice::Numbers(Bound::After)),
    ];
    let choice = options.choice(POSITION, &choices)?.unwrap_or(Choice::Latest);
    let (timestamp, numbers) = (options.text(TIMESTAMP), options.text(NUMBERS));
    match options.text("source.init.timestamp.format") {
        Some(format) if format != TIMESTAMP_FORMAT => {
            let message = format!("only {TIMESTAMP_FORMAT} and seconds since 1970 are understood; leave it out");
            return Err(ConnectorError::option("source.init.timestamp.format", message));
        }
        _ => {}
    }
    if timestamp.is_some() && choice != Choice::AtTimestamp {
        let message = "has no effect without the position AT_TIMESTAMP";
        return Err(ConnectorError::option(TIMESTAMP, message));
    }
    if numbers.is_some() && !matches!(choice, Choice::Numbers(_)) {
        let message = "has no effect without the position AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER";
        return Err(ConnectorError::option(NUMBERS, message));
    }
    match choice {
        Choice::TrimHorizon => Ok(InitialPosition::TrimHorizon),
        Choice::Latest => Ok(InitialPosition::Latest),
        Choice::AtTimestamp => match timestamp {
            Some(text) => Ok(InitialPosition::AtTimestamp(parse_moment(text)?)),
            None => Err(ConnectorError::option(
                TIMESTAMP,
                "must be set for the position AT_TIMESTAMP",
            )),
        },
        Choice::Numbers(bound) => match numbers {
            Some(text) => Ok(InitialPosition::SequenceNumbers {
                shards: parse_numbers(text)?,
                bound,
            }),
            None => Err(ConnectorError::option(
                NUMBERS,
                "must be set for the positions AT_SEQUENCE_NUMBER and AFTER_SEQUENCE_NUMBER",
            )),
        },
    }
}

/// Reads `shardId-000000000000:4959…;shardId-000000000001:4959…`.
fn parse_numbers(text: &str) -> Result<BTreeMap<String, Arc<str>>, ConnectorError> {
    let error = |message: String| {
        ConnectorError::option(NUMBERS, message)
            .with_hint("write shardId-000000000000:4959…;shardId-000000000001:4959… with a number for each shard")
    };
    let mut shards = BTreeMap::new();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((shard, number)) = part.split_once(':') else {
            return Err(error(format!("'{part}' has no ':' between shard and sequence number")));
        };
        let (shard, number) = (shard.trim(), number.trim());
        let Ok(id) = shard.parse::<ShardId>() else {
            return Err(error(format!("'{shard}' is not a shard id")));
        };
        let is_number = (1..=DIGITS_MAX).contains(&number.len()) && number.bytes().all(|c| c.is_ascii_digit());
        if !is_number {
            return Err(error(format!("'{number}' is not a sequence number")));
        }
        if shards.insert(id.to_string(), Arc::from(number)).is_some() {
            return Err(error(format!("{id} is listed twice")));
        }
    }
    if shards.is_empty() {
        return Err(error("no shard is listed".to_owned()));
    }
    Ok(shards)
}

/// Reads a moment as milliseconds since 1970: ISO 8601 with a zone, or seconds with a fraction, as Flink does.
fn parse_moment(text: &str) -> Result<u64, ConnectorError> {
    let error = |why: &str| {
        let message = format!("'{text}' {why}; write 2024-05-01T12:13:14.123Z, or seconds since 1970");
        ConnectorError::option(TIMESTAMP, message)
    };
    if let Ok(seconds) = text.parse::<f64>() {
        let valid = (0.0..=1e11).contains(&seconds);
        return if valid {
            Ok((seconds * 1_000.0).round() as u64)
        } else {
            Err(error("is out of range"))
        };
    }
    let ms = parse_timestamp(text, TimestampStandard::Iso8601, Zone::Utc, TimeUnit::Millisecond);
    let ms = ms.map_err(|_| error("is not a moment"))?;
    u64::try_from(ms).map_err(|_| error("is before 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_are_listed_by_shard() {
        let shards = parse_numbers("shardId-000000000000:17; shardId-000000000003 : 42;").unwrap();
        let listed: Vec<(&str, &str)> = shards.iter().map(|(k, v)| (k.as_str(), v.as_ref())).collect();
        assert_eq!(listed, [("shardId-000000000000", "17"), ("shardId-000000000003", "42")]);
        for (wrong, about) in [
            ("", "no shard is listed"),
            ("shardId-000000000000", "has no ':'"),
            ("shardId-000000000000:x", "not a sequence number"),
            ("shardId-000000000000:", "not a sequence number"),
            ("first:1", "not a shard id"),
            ("shardId-0:1;shardId-000000000000:2", "listed twice"),
        ] {
            let error = parse_numbers(wrong).unwrap_err().to_string();
            assert!(error.contains(about), "{wrong}: {error}");
        }
    }
}
