//! Hash keys: where a partition key falls among the shards.

use std::fmt;
use std::str::FromStr;

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

use crate::error::StoreError;

/// A point of the 128-bit hash-key space. Serialised as its decimal text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HashKey(pub u128);

impl HashKey {
    /// The MD5 of the key's UTF-8 bytes as a big-endian number.
    pub fn of(partition_key: &str) -> Self {
        Self(u128::from_be_bytes(Md5::digest(partition_key.as_bytes()).into()))
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for HashKey {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        text.parse()
            .ok()
            .filter(|_| text.bytes().all(|c| c.is_ascii_digit()))
            .map(Self)
            .ok_or_else(|| {
                StoreError::Invalid(format!(
                    "{text:?} is not a hash key: it must be in the range [0, 2^128-1]"
                ))
            })
    }
}

impl TryFrom<String> for HashKey {
    type Error = StoreError;

    fn try_from(text: String) -> Result<Self, StoreError> {
        text.parse()
    }
}

impl From<HashKey> for String {
    fn from(key: HashKey) -> Self {
        key.to_string()
    }
}

/// Hash keys from `start` to `end`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashRange {
    /// The first.
    pub start: HashKey,
    /// The last.
    pub end: HashKey,
}

impl HashRange {
    /// Cuts the whole space into `count` ranges of equal size; the last takes the remainder.
    pub fn tiles(count: u32) -> impl Iterator<Item = HashRange> {
        // 2^128 / count without 2^128.
        let (quotient, remainder) = (u128::MAX / u128::from(count), u128::MAX % u128::from(count));
        let size = if remainder + 1 == u128::from(count) {
            quotient.wrapping_add(1)
        } else {
            quotient
        };
        (0..u128::from(count)).map(move |index| HashRange {
            start: HashKey(size.wrapping_mul(index)),
            end: HashKey(if index + 1 == u128::from(count) {
                u128::MAX
            } else {
                size * (index + 1) - 1
            }),
        })
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: HashKey) -> bool {
        self.start <= key && key <= self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_md5_as_a_big_endian_number() {
        // MD5("") = d41d8cd98f00b204e9800998ecf8427e
        assert_eq!(HashKey::of("").0, 0xd41d_8cd9_8f00_b204_e980_0998_ecf8_427e);
    }

    #[test]
    fn ranges_tile_the_space() {
        for count in [1, 2, 3, 4, 7, 10_000] {
            let ranges: Vec<_> = HashRange::tiles(count).collect();
            assert_eq!(ranges.len(), count as usize);
            assert_eq!(ranges[0].start.0, 0);
            assert_eq!(ranges[count as usize - 1].end.0, u128::MAX);
            for pair in ranges.windows(2) {
                assert_eq!(pair[0].end.0 + 1, pair[1].start.0);
            }
        }
        assert_eq!(
            HashRange::tiles(2).nth(1).unwrap().start.to_string(),
            "170141183460469231731687303715884105728"
        );
    }
}
