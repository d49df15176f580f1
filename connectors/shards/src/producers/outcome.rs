//! What became of one request, in few bytes: records that went to one shard have counters in a row.

use std::mem::size_of;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hashbrown::HashMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::StoreError;
use crate::ids::{ShardKey, Uuid};
use crate::limits;
use crate::log::writer::{Assigned, AssignedEach};

/// Where records of a request went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Place {
    /// To this shard, with counters from this one on, at this time.
    #[serde(rename = "s")]
    Stored(ShardKey, u64, u64),
    /// Nowhere.
    #[serde(rename = "r")]
    Refused(Box<StoreError>),
}

/// A request that was stored, at least in part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) sequence: u64,
    /// Hash of the records.
    pub(crate) content: Uuid,
    records: u16,
    places: Vec<Place>,
    /// The place of each record; empty when there is one place.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "numbers")]
    which: Vec<u16>,
}

impl Outcome {
    /// Notes what became of up to [`limits::PUT_RECORDS_MAX`] records.
    pub(crate) fn new(sequence: u64, content: Uuid, each: &AssignedEach) -> Self {
        let mut places: Vec<Place> = Vec::new();
        let mut next: Vec<u64> = Vec::new();
        let mut newest: HashMap<ShardKey, usize> = HashMap::new();
        let mut refusals = 0;
        let mut which = Vec::with_capacity(each.len());
        for result in each {
            let found = match result {
                Ok(assigned) => newest.get(&assigned.shard).copied().filter(|&at| {
                    matches!(places[at], Place::Stored(_, _, arrival_ms) if arrival_ms == assigned.arrival_ms)
                        && next[at] == assigned.counter
                }),
                Err(error) => {
                    let same = |place: &Place| matches!(place, Place::Refused(known) if known == error);
                    let any = |place: &Place| matches!(place, Place::Refused(_));
                    let full = refusals == limits::PRODUCER_REFUSALS_MAX;
                    places
                        .iter()
                        .position(same)
                        .or_else(|| places.iter().position(any).filter(|_| full))
                }
            };
            let at = found.unwrap_or_else(|| {
                match result {
                    Ok(assigned) => {
                        places.push(Place::Stored(assigned.shard, assigned.counter, assigned.arrival_ms));
                        next.push(assigned.counter);
                        newest.insert(assigned.shard, places.len() - 1);
                    }
                    Err(error) => {
                        refusals += 1;
                        places.push(Place::Refused(error.clone()));
                        next.push(0);
                    }
                }
                places.len() - 1
            });
            next[at] += 1;
            which.push(at as u16);
        }
        if places.len() == 1 {
            which.clear();
        }
        Self {
            sequence,
            content,
            records: each.len() as u16,
            places,
            which,
        }
    }

    /// What became of each record.
    pub(crate) fn each(&self) -> AssignedEach {
        let mut next = vec![0; self.places.len()];
        (0..usize::from(self.records))
            .map(|record| {
                let at = usize::from(self.which.get(record).copied().unwrap_or(0));
                match self.places.get(at) {
                    Some(&Place::Stored(shard, first, arrival_ms)) => {
                        let counter = first + next[at];
                        next[at] += 1;
                        Ok(Assigned {
                            shard,
                            counter,
                            arrival_ms,
                        })
                    }
                    Some(Place::Refused(error)) => Err(error.clone()),
                    None => Err(Box::new(StoreError::Closed)),
                }
            })
            .collect()
    }

    /// Bytes it takes in memory, and about as many in the log.
    pub(crate) fn bytes(&self) -> usize {
        let refusals = self.places.iter().filter(|place| matches!(place, Place::Refused(_)));
        size_of::<Self>()
            + self.places.len() * size_of::<Place>()
            + self.which.len() * size_of::<u16>()
            + refusals.count() * size_of::<StoreError>()
    }
}

/// Bytes that the outcome of so many records takes in the log, at most.
pub(crate) fn log_bytes(records: usize) -> usize {
    // A place is a shard, a counter and a time of up to 20 digits each; its number is two bytes in base64.
    // What is remembered has at least one that was stored.
    let refusals = limits::PRODUCER_REFUSALS_MAX.min(records.saturating_sub(1)) * limits::PRODUCER_REFUSAL_BYTES;
    512 + records * (3 * 20 + 12 + 3) + refusals
}

mod numbers {
    use super::*;

    pub(super) fn serialize<S: Serializer>(numbers: &[u16], serializer: S) -> Result<S::Ok, S::Error> {
        // One byte for each, unless there are more places than that.
        let bytes: Vec<u8> = if numbers.iter().all(|&number| number < 256) {
            numbers.iter().map(|&number| number as u8).collect()
        } else {
            let wide = numbers.iter().flat_map(|number| number.to_le_bytes());
            return format!("w{}", STANDARD_NO_PAD.encode(wide.collect::<Vec<u8>>())).serialize(serializer);
        };
        format!("b{}", STANDARD_NO_PAD.encode(bytes)).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u16>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || serde::de::Error::custom("the places of a request's records are not understood");
        let (width, digits) = text.split_at_checked(1).ok_or_else(wrong)?;
        let bytes = STANDARD_NO_PAD.decode(digits).map_err(|_| wrong())?;
        match width {
            "b" => Ok(bytes.into_iter().map(u16::from).collect()),
            "w" if bytes.len() % 2 == 0 => Ok(bytes
                .chunks(2)
                .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
                .collect()),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stored(shard: u64, counter: u64) -> Result<Assigned, Box<StoreError>> {
        Ok(Assigned {
            shard: ShardKey(shard),
            counter,
            arrival_ms: 1_800_000_000_000 + shard,
        })
    }

    #[test]
    fn the_form_in_the_log_is_small_and_stays() {
        let outcome = Outcome::new(7, Uuid([0xab; 16]), &vec![stored(3, 41), stored(3, 42), stored(3, 43)]);
        let json = serde_json::to_string(&outcome).unwrap();
        assert_eq!(
            json,
            r#"{"sequence":7,"content":"abababab-abab-abab-abab-abababababab","records":3,"places":[{"s":[3,41,1800000000003]}]}"#
        );
        let each = vec![stored(3, 41), stored(4, 9), stored(3, 42)];
        let json = serde_json::to_string(&Outcome::new(7, Uuid([0xab; 16]), &each)).unwrap();
        assert!(json.ends_with(r#""which":"bAAEA"}"#), "{json}");
    }

    #[test]
    fn further_refusals_than_are_kept_are_answered_like_the_first() {
        let each: AssignedEach = (0..limits::PRODUCER_REFUSALS_MAX + 3)
            .map(|at| Err(Box::new(StoreError::Limit(format!("refusal {at}")))))
            .chain([stored(1, 1)])
            .collect();
        let again = Outcome::new(0, Uuid([0; 16]), &each).each();
        assert_eq!(
            again[..limits::PRODUCER_REFUSALS_MAX],
            each[..limits::PRODUCER_REFUSALS_MAX]
        );
        assert_eq!(again[limits::PRODUCER_REFUSALS_MAX + 2], each[0]);
        assert_eq!(again.last(), each.last());
    }

    proptest! {
        #[test]
        fn outcomes_come_back_as_they_were(
            shards in prop::collection::vec(0u64..400, 1..limits::PUT_RECORDS_MAX),
            refused in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            jumps in any::<bool>(),
        ) {
            let mut counters = std::collections::HashMap::new();
            let mut each: AssignedEach = shards
                .iter()
                .map(|&shard| {
                    let counter = counters.entry(shard).or_insert(shard * 7 + 1);
                    *counter += if jumps { 1 + shard % 2 } else { 1 };
                    stored(shard, *counter)
                })
                .collect();
            for (at, index) in refused.iter().enumerate() {
                let record = index.index(each.len());
                each[record] = Err(Box::new(StoreError::Limit(format!("because {}", at % limits::PRODUCER_REFUSALS_MAX))));
            }
            let outcome = Outcome::new(9, Uuid([1; 16]), &each);
            prop_assert_eq!(&outcome.each(), &each);
            let json = serde_json::to_vec(&outcome).unwrap();
            prop_assert!(json.len() <= log_bytes(each.len()), "{} of {}", json.len(), log_bytes(each.len()));
            prop_assert_eq!(serde_json::from_slice::<Outcome>(&json).unwrap(), outcome);
        }
    }
}
