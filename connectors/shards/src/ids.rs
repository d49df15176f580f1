//! Names and numbers that must not be mixed up.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::limits::STREAM_NAME_CHARS_MAX;

/// Name of a stream: 1 to 128 of `a-zA-Z0-9_.-`. It never becomes a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StreamName(String);

impl StreamName {
    /// Checks `name`.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for other characters or another length.
    pub fn new(name: impl Into<String>) -> Result<Self, StoreError> {
        let name = name.into();
        if is_name(&name) && name.len() <= STREAM_NAME_CHARS_MAX {
            Ok(Self(name))
        } else {
            Err(StoreError::Invalid(format!(
                "{name:?} is not a stream name: use 1 to {STREAM_NAME_CHARS_MAX} of the characters a-z A-Z 0-9 _ . -"
            )))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether `text` is one or more of `a-zA-Z0-9_.-`.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'))
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for StreamName {
    type Error = StoreError;

    fn try_from(name: String) -> Result<Self, StoreError> {
        Self::new(name)
    }
}

impl FromStr for StreamName {
    type Err = StoreError;

    fn from_str(name: &str) -> Result<Self, StoreError> {
        Self::new(name)
    }
}

impl From<StreamName> for String {
    fn from(name: StreamName) -> Self {
        name.0
    }
}

/// Number of a shard in its stream, written `shardId-000000000007`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ShardId(pub u32);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shardId-{:012}", self.0)
    }
}

impl FromStr for ShardId {
    type Err = StoreError;

    /// Accepts what the service accepts: any prefix up to the last dash, then the number.
    fn from_str(text: &str) -> Result<Self, StoreError> {
        let digits = text.rsplit_once('-').map_or(text, |(_, digits)| digits);
        digits
            .parse()
            .ok()
            .filter(|_| digits.bytes().all(|c| c.is_ascii_digit()))
            .map(Self)
            .ok_or_else(|| StoreError::Invalid(format!("{text:?} is not a shard id like {}", Self(0))))
    }
}

impl TryFrom<String> for ShardId {
    type Error = StoreError;

    fn try_from(text: String) -> Result<Self, StoreError> {
        text.parse()
    }
}

impl From<ShardId> for String {
    fn from(id: ShardId) -> Self {
        id.to_string()
    }
}

/// Number of a shard in the whole store. Never used twice, so it also tells apart streams that had the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardKey(pub u64);

impl fmt::Display for ShardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard key {}", self.0)
    }
}

/// Number of a segment in its log, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SegmentNumber(pub u32);

impl SegmentNumber {
    /// The one behind.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Sixteen random bytes that name a store, a segment, a stream, or a job's lineage of checkpoints.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Uuid {
    type Error = StoreError;

    fn try_from(text: String) -> Result<Self, StoreError> {
        let digits: Vec<u8> = text
            .bytes()
            .filter(|&c| c != b'-')
            .map(|c| (c as char).to_digit(16).map_or(16, |d| d as u8))
            .collect();
        if digits.len() != 32 || digits.contains(&16) {
            return Err(StoreError::Invalid(format!("{text:?} is not a uuid")));
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(Self(bytes))
    }
}

impl From<Uuid> for String {
    fn from(uuid: Uuid) -> Self {
        uuid.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_be_paths() {
        for bad in ["", "a/b", "a b", "é", "a\0", &"x".repeat(129)] {
            assert!(StreamName::new(bad).is_err(), "{bad:?}");
        }
        // Dots are allowed by the service; names never become file names, so they are harmless.
        StreamName::new("..").unwrap();
    }

    #[test]
    fn shard_ids_round_trip() {
        assert_eq!(ShardId(7).to_string(), "shardId-000000000007");
        assert_eq!("shardId-000000000007".parse::<ShardId>().unwrap(), ShardId(7));
        assert_eq!("7".parse::<ShardId>().unwrap(), ShardId(7));
        for bad in ["", "shardId-", "shardId-99999999999", "shardId-+1", "shardId-x"] {
            assert!(bad.parse::<ShardId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn uuids_round_trip() {
        let uuid = Uuid(*b"0123456789abcdef");
        assert_eq!(Uuid::try_from(uuid.to_string()).unwrap(), uuid);
        assert!(Uuid::try_from("zz".to_owned()).is_err());
    }
}
