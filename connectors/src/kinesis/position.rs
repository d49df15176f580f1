//! Positions of shards as checkpoints hold them. Their forms are durable.
//!
//! | form | goes on |
//! |---|---|
//! | `<key>@<counter>` | embedded store: at the record with this counter in its sequence number, or the first behind it |
//! | `<key>@<counter>+<n>` | within that record, an aggregated one: behind its first n user records |
//! | `<created>@trim-horizon` | endpoint: at the oldest record |
//! | `<created>@time=<ms>` | at the first record that arrived then, milliseconds since 1970, or later |
//! | `<created>@at=<number>` | at the record with this sequence number |
//! | `<created>@at=<number>+<n>` | within that record, behind its first n user records |
//! | `<created>@after=<number>` | behind the record with this sequence number |
//!
//! The key is the shard's number in its whole store, never used twice; `created` is when the stream was created, in
//! seconds since 1970. Both tell a stream that was deleted and created again under its name from the one that was read.

use super::access::Sequence;
use std::fmt;
use std::sync::Arc;
use tidemill_shards::{Position as StorePosition, ShardKey};

/// Where reading goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// A place between records.
    pub(super) place: Place,
    /// User records of the record at that place that were read; 0 when it is yet to be read, or is not aggregated.
    pub(super) user_records: u64,
}

impl From<Place> for Position {
    fn from(place: Place) -> Self {
        Self { place, user_records: 0 }
    }
}

/// A place between two records of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a shard of the embedded store.
    Store(StorePosition),
    /// In a shard behind an endpoint.
    Endpoint {
        /// When the stream was created, seconds since 1970.
        created_s: u64,
        /// The place.
        point: Point,
    },
}

/// A place in a shard behind an endpoint, as it can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Point {
    TrimHorizon,
    /// Milliseconds since 1970.
    Time(u64),
    At(Arc<str>),
    After(Arc<str>),
}

impl Place {
    /// Tells the shard from those of the same id in other streams of its name: [`super::access::ShardView::identity`].
    pub(super) fn identity(&self) -> u64 {
        match self {
            Self::Store(position) => position.shard.0,
            Self::Endpoint { created_s, .. } => *created_s,
        }
    }

    /// Returns the place of a record of the same shard.
    pub(super) fn at(&self, record: &Sequence) -> Self {
        self.beside(record, 0, Point::At)
    }

    /// Returns the place behind a record of the same shard.
    pub(super) fn behind(&self, record: &Sequence) -> Self {
        self.beside(record, 1, Point::After)
    }

    fn beside(&self, record: &Sequence, step: u64, point: fn(Arc<str>) -> Point) -> Self {
        match (self, record) {
            (Self::Store(position), Sequence::Store(number)) => Self::Store(StorePosition {
                counter: number.counter + step,
                ..*position
            }),
            (Self::Endpoint { created_s, .. }, Sequence::Endpoint(number)) => Self::Endpoint {
                created_s: *created_s,
                point: point(Arc::clone(number)),
            },
            // A fetcher gives records of its own kind.
            _ => self.clone(),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Store(position) => write!(f, "{}@{}", position.shard.0, position.counter)?,
            Place::Endpoint { created_s, point } => match point {
                Point::TrimHorizon => write!(f, "{created_s}@trim-horizon")?,
                Point::Time(ms) => write!(f, "{created_s}@time={ms}")?,
                Point::At(number) => write!(f, "{created_s}@at={number}")?,
                Point::After(number) => write!(f, "{created_s}@after={number}")?,
            },
        }
        match self.user_records {
            0 => Ok(()),
            n => write!(f, "+{n}"),
        }
    }
}

/// Reads a position in the embedded store.
pub(super) fn parse_store(text: &str) -> Result<Position, String> {
    let read = || {
        let (key, rest) = text.split_once('@')?;
        let (counter, user_records) = split_user_records(rest)?;
        let position = StorePosition {
            shard: ShardKey(key.parse().ok()?),
            counter: counter.parse().ok()?,
        };
        Some(Position {
            place: Place::Store(position),
            user_records,
        })
    };
    read().ok_or_else(|| foreign(text, "a shard of the embedded store"))
}

/// Reads a position in a stream behind an endpoint.
pub(super) fn parse_endpoint(text: &str) -> Result<Position, String> {
    let read = || {
        let (created, rest) = text.split_once('@')?;
        let (point, user_records) = split_user_records(rest)?;
        let number = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
            is_number.then(|| Arc::<str>::from(text))
        };
        let point = match point.split_once('=') {
            None if point == "trim-horizon" => Point::TrimHorizon,
            Some(("time", ms)) => Point::Time(ms.parse().ok()?),
            Some(("at", text)) => Point::At(number(text)?),
            Some(("after", text)) => Point::After(number(text)?),
            _ => return None,
        };
        if user_records > 0 && !matches!(point, Point::At(_)) {
            return None;
        }
        Some(Position {
            place: Place::Endpoint {
                created_s: created.parse().ok()?,
                point,
            },
            user_records,
        })
    };
    read().ok_or_else(|| foreign(text, "a stream behind an endpoint"))
}

fn split_user_records(text: &str) -> Option<(&str, u64)> {
    match text.split_once('+') {
        None => Some((text, 0)),
        Some((place, n)) => Some((place, n.parse().ok().filter(|&n| n > 0)?)),
    }
}

fn foreign(text: &str, what: &str) -> String {
    format!(
        "'{text}' is not a position in {what}: the checkpoint is of another connector, or 'aws.endpoint' was set or \
         removed since; start the job afresh, or put the table's options back"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_keep_their_form() {
        for text in ["17@42", "17@42+3"] {
            assert_eq!(parse_store(text).unwrap().to_string(), text);
            assert!(parse_endpoint(text).is_err(), "{text}");
        }
        let position = StorePosition {
            shard: ShardKey(17),
            counter: 42,
        };
        assert_eq!(parse_store("17@42"), Ok(Place::Store(position).into()));
        for text in [
            "1732350000@trim-horizon",
            "1732350000@time=1732350000123",
            "1732350000@at=49680479943324145413981097456403089468453399569687904258",
            "1732350000@at=4968+12",
            "1732350000@after=4968",
        ] {
            assert_eq!(parse_endpoint(text).unwrap().to_string(), text);
            assert!(parse_store(text).is_err(), "{text}");
        }
        for wrong in ["", "17", "17@", "@4", "x@4", "17@-1", "17@4+", "17@4+0", "17@4+x"] {
            assert!(parse_store(wrong).is_err(), "{wrong}");
        }
        for wrong in [
            "1@after=4+1",
            "1@at=",
            "1@at=x",
            "1@latest",
            "1@time=",
            "x@trim-horizon",
        ] {
            assert!(parse_endpoint(wrong).is_err(), "{wrong}");
        }
    }
}
