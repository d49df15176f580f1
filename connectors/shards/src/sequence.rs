//! Sequence numbers, as Kinesis writes them.
//!
//! A sequence number is the decimal text of a number with these hexadecimal digits, from the highest:
//!
//! | digits | field |
//! |---|---|
//! | 1 | `2` |
//! | 9 | creation of the shard, seconds since 1970 |
//! | 1 | low digit of the shard's index |
//! | 16 | counter: rises by at least one per record; the top digit is at most 7 |
//! | 2 | `00` |
//! | 9 | arrival of the record, seconds since 1970 |
//! | 8 | index of the shard |
//! | 1 | `2`, the version |
//!
//! The store keeps counter and arrival time of each record and computes the rest, so numbers are ordered as counters
//! are.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::StoreError;

const SECONDS_MAX: u64 = (1 << 36) - 1;
/// Ten to the nineteenth: the largest power of ten in 64 bits.
const CHUNK: u64 = 10_000_000_000_000_000_000;
const CHUNK_DIGITS: usize = 19;

/// The place of a record in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SequenceNumber {
    // In this order, so that the derived order is that of the big integer.
    /// Creation of the shard, seconds since 1970.
    pub shard_created_s: u64,
    nibble: u8,
    /// Rises in the shard.
    pub counter: u64,
    /// Arrival of the record, seconds since 1970.
    pub time_s: u64,
    /// Index of the shard in its stream.
    pub shard_index: u32,
}

impl SequenceNumber {
    /// Puts a number together; seconds beyond the year 4147 are cut to it.
    pub fn new(shard_created_s: u64, shard_index: u32, counter: u64, time_s: u64) -> Self {
        Self {
            shard_created_s: shard_created_s.min(SECONDS_MAX),
            nibble: (shard_index & 0xf) as u8,
            counter,
            time_s: time_s.min(SECONDS_MAX),
            shard_index,
        }
    }

    fn limbs(&self) -> [u64; 3] {
        // 188 bits: 4 | 36 | 4 | 64 | 8 | 36 | 32 | 4
        let low = (self.time_s as u128) << 36 | (self.shard_index as u128) << 4 | 2;
        let low = low | (self.counter as u128) << 80;
        let high = 2 << 40 | self.shard_created_s << 4 | u64::from(self.nibble);
        // `counter` ends at bit 144, of which bits 80..128 are in `low`.
        let top = (self.counter >> 48) | high << 16;
        [low as u64, (low >> 64) as u64, top]
    }

    fn from_limbs([low, middle, top]: [u64; 3]) -> Option<Self> {
        let low = u128::from(low) | u128::from(middle) << 64;
        let number = Self {
            shard_created_s: (top >> 20) & SECONDS_MAX,
            nibble: (top >> 16) as u8 & 0xf,
            counter: (low >> 80) as u64 | (top & 0xffff) << 48,
            time_s: (low >> 36) as u64 & SECONDS_MAX,
            shard_index: (low >> 4) as u32,
        };
        let sound = top >> 56 == 2
            && low & 0xf == 2
            && (low >> 72) & 0xff == 0
            && number.counter >> 63 == 0
            && number.nibble == (number.shard_index & 0xf) as u8;
        sound.then_some(number)
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut limbs = self.limbs();
        let mut chunks = [0u64; 3];
        for chunk in &mut chunks {
            let mut rest = 0u128;
            for limb in limbs.iter_mut().rev() {
                let value = rest << 64 | u128::from(*limb);
                *limb = (value / u128::from(CHUNK)) as u64;
                rest = value % u128::from(CHUNK);
            }
            *chunk = rest as u64;
        }
        write!(f, "{}{:019}{:019}", chunks[2], chunks[1], chunks[0])
    }
}

impl FromStr for SequenceNumber {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let invalid = || StoreError::Invalid(format!("{text:?} is not a sequence number of this store"));
        if text.is_empty() || text.len() > 3 * CHUNK_DIGITS || !text.bytes().all(|c| c.is_ascii_digit()) {
            return Err(invalid());
        }
        let mut limbs = [0u64; 3];
        for digit in text.bytes() {
            let mut carry = u128::from(digit - b'0');
            for limb in &mut limbs {
                let value = u128::from(*limb) * 10 + carry;
                *limb = value as u64;
                carry = value >> 64;
            }
            if carry != 0 {
                return Err(invalid());
            }
        }
        Self::from_limbs(limbs).ok_or_else(invalid)
    }
}

impl TryFrom<String> for SequenceNumber {
    type Error = StoreError;

    fn try_from(text: String) -> Result<Self, StoreError> {
        text.parse()
    }
}

impl From<SequenceNumber> for String {
    fn from(number: SequenceNumber) -> Self {
        number.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn number_of_the_service_is_understood() {
        let text = "49680479943324145413981097456403089468453399569687904258";
        let number: SequenceNumber = text.parse().unwrap();
        assert_eq!(number.to_string(), text);
        assert!(
            (1_700_000_000..2_000_000_000).contains(&number.shard_created_s),
            "{number:?}"
        );
        assert_eq!(number.shard_index, 0);
    }

    #[test]
    fn other_numbers_are_refused() {
        for bad in ["", "0", "1", "-1", "x", &"9".repeat(57), &"9".repeat(129)] {
            assert!(bad.parse::<SequenceNumber>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips_and_keeps_the_order(
            created in 0u64..1 << 36,
            index in any::<u32>(),
            a in (0u64..1 << 63, 0u64..1 << 36),
            b in (0u64..1 << 63, 0u64..1 << 36),
        ) {
            let first = SequenceNumber::new(created, index, a.0, a.1);
            let second = SequenceNumber::new(created, index, b.0, b.1);
            prop_assert_eq!(first.to_string().parse::<SequenceNumber>().unwrap(), first);
            let (x, y) = (first.to_string(), second.to_string());
            prop_assert_eq!((x.len(), &x).cmp(&(y.len(), &y)), first.cmp(&second));
        }

        #[test]
        fn random_text_never_panics(text in ".{0,80}") {
            let _ = text.parse::<SequenceNumber>();
        }
    }
}
