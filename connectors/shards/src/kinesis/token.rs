//! Shard iterators and NextTokens: what they say is authenticated with the store's secret, and they expire.
//!
//! A token is base64 of: kind (1 byte), milliseconds since 1970 when it was given (8, big-endian), contents, and the
//! first 16 bytes of HMAC-SHA256 over all of that. The contents of an iterator are shard key and counter (8 bytes each);
//! those of a NextToken are the JSON of [`NextToken`].

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::error::ApiError;
use crate::access::Position;
use crate::ids::{ShardId, ShardKey, StreamName, Uuid};
use crate::limits::{ITERATOR_CHARS_MAX, TOKEN_LIFE_MS};
use crate::store::ShardStore;

const ITERATOR: u8 = 1;
const NEXT_TOKEN: u8 = 2;
const MAC_BYTES: usize = 16;
const HEAD_BYTES: usize = 9;

/// Where a listing goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NextToken {
    Streams {
        after: StreamName,
    },
    Shards {
        stream: StreamName,
        id: Uuid,
        after: ShardId,
        filter: ShardFilter,
    },
    Consumers {
        stream: Uuid,
        after: String,
    },
}

/// Which shards ListShards lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ShardFilter {
    All,
    /// Open at this moment, milliseconds since 1970.
    At(u64),
    /// Open at this moment or later.
    From(u64),
    Open,
}

/// Gives an iterator.
pub(crate) fn iterator(store: &ShardStore, position: Position) -> String {
    let mut contents = [0; 16];
    contents[..8].copy_from_slice(&position.shard.0.to_be_bytes());
    contents[8..].copy_from_slice(&position.counter.to_be_bytes());
    seal(store, ITERATOR, &contents)
}

/// Reads an iterator.
pub(crate) fn open_iterator(store: &ShardStore, text: &str) -> Result<Position, ApiError> {
    let invalid = || ApiError::invalid_argument("Invalid ShardIterator.");
    // Some clients send it back in quotation marks.
    let text = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(text);
    if text.len() > ITERATOR_CHARS_MAX {
        return Err(invalid());
    }
    let (given_ms, contents) = open(store, ITERATOR, text).ok_or_else(invalid)?;
    let contents: [u8; 16] = contents.try_into().map_err(|_| invalid())?;
    let now_ms = store.now_ms();
    if now_ms.saturating_sub(given_ms) > TOKEN_LIFE_MS {
        return Err(ApiError::expired_iterator(format!(
            "Iterator expired. The iterator was created at time {} while right now it is {} which is further in the \
             future than the tolerated delay of {TOKEN_LIFE_MS} milliseconds.",
            date(given_ms),
            date(now_ms)
        )));
    }
    let number = |at: usize| u64::from_be_bytes(contents[at..at + 8].try_into().expect("eight bytes"));
    Ok(Position {
        shard: ShardKey(number(0)),
        counter: number(8),
    })
}

/// Gives a NextToken.
pub(crate) fn next_token(store: &ShardStore, token: &NextToken) -> String {
    seal(
        store,
        NEXT_TOKEN,
        &serde_json::to_vec(token).expect("strings and numbers serialise"),
    )
}

/// Reads a NextToken.
pub(crate) fn open_next_token(store: &ShardStore, text: &str) -> Result<NextToken, ApiError> {
    let invalid = || ApiError::invalid_argument("NextToken is not valid.");
    let (given_ms, contents) = open(store, NEXT_TOKEN, text).ok_or_else(invalid)?;
    if store.now_ms().saturating_sub(given_ms) > TOKEN_LIFE_MS {
        return Err(ApiError::expired_token(format!(
            "NextToken expired. It was created at time {} and is good for {TOKEN_LIFE_MS} milliseconds.",
            date(given_ms)
        )));
    }
    serde_json::from_slice(&contents).map_err(|_| invalid())
}

fn seal(store: &ShardStore, kind: u8, contents: &[u8]) -> String {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&store.now_ms().to_be_bytes());
    bytes.extend_from_slice(contents);
    let tag = mac(store, &bytes).finalize().into_bytes();
    bytes.extend_from_slice(&tag[..MAC_BYTES]);
    STANDARD.encode(bytes)
}

fn open(store: &ShardStore, kind: u8, text: &str) -> Option<(u64, Vec<u8>)> {
    let mut bytes = STANDARD.decode(text).ok()?;
    if bytes.len() < HEAD_BYTES + MAC_BYTES || bytes[0] != kind {
        return None;
    }
    let tag = bytes.split_off(bytes.len() - MAC_BYTES);
    mac(store, &bytes).verify_truncated_left(&tag).ok()?;
    let given_ms = u64::from_be_bytes(bytes[1..HEAD_BYTES].try_into().ok()?);
    Some((given_ms, bytes.split_off(HEAD_BYTES)))
}

fn mac(store: &ShardStore, bytes: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(store.secret()).expect("a key of any length is good");
    mac.update(bytes);
    mac
}

/// `Thu Jan 22 01:22:02 UTC 2015`, as the service writes times in messages.
fn date(ms: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let seconds = ms / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days to a date of the proleptic Gregorian calendar, in eras of 400 years that start in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = year_of_era + era * 400 + u64::from(month < 2);
    format!(
        "{} {} {day:02} {:02}:{:02}:{:02} UTC {year}",
        DAYS[(days % 7) as usize],
        MONTHS[month as usize],
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates_are_written_as_the_service_does() {
        assert_eq!(date(0), "Thu Jan 01 00:00:00 UTC 1970");
        assert_eq!(date(1_421_889_722_000), "Thu Jan 22 01:22:02 UTC 2015");
        assert_eq!(date(1_709_164_800_000), "Thu Feb 29 00:00:00 UTC 2024");
        assert_eq!(date(951_868_799_000), "Tue Feb 29 23:59:59 UTC 2000");
    }
}
