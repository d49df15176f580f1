//! Producers that number their requests, so that a repeated request is stored once.
//!
//! A producer has an id, an epoch and a sequence. The store remembers for each stream and producer the epoch and what
//! became of its last requests. That is written in one piece with the records: a crash leaves both or neither.
//!
//! ```text
//!   (id, epoch, sequence) ─▶ decide ─▶ next one:  store it, and remember its outcome
//!                                   ─▶ remembered: answer the same again, store nothing
//!                                   ─▶ else:       refuse, and say why
//! ```
//! Invariants
//! - A sequence is stored at most once, and only behind the one before it.
//! - Whoever is not known begins an epoch with sequence 0, so a producer that was forgotten is refused and not stored twice.
//! - A request of which nothing was stored has not happened: its sequence is still the next.
//!
//! | file | |
//! |---|---|
//! | `memory.rs` | what is remembered of all producers: decide, remember, forget |
//! | `outcome.rs` | what became of one request, in few bytes |

pub(crate) mod memory;
pub(crate) mod outcome;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::access::{PutEntry, PutResult};
use crate::error::StoreError;
use crate::ids::{Uuid, is_name};
use crate::limits::PRODUCER_ID_CHARS_MAX;

/// Name of a producer, its own choice: 1 to 128 of `a-zA-Z0-9_.-`. Two that write at the same time have two.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProducerId(String);

impl ProducerId {
    /// Checks `id`.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for other characters or another length.
    pub fn new(id: impl Into<String>) -> Result<Self, StoreError> {
        let id = id.into();
        if is_name(&id) && id.len() <= PRODUCER_ID_CHARS_MAX {
            Ok(Self(id))
        } else {
            Err(StoreError::Invalid(format!(
                "{id:?} is not a producer's id: use 1 to {PRODUCER_ID_CHARS_MAX} of the characters a-z A-Z 0-9 _ . -"
            )))
        }
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ProducerId {
    type Err = StoreError;

    fn from_str(id: &str) -> Result<Self, StoreError> {
        Self::new(id)
    }
}

impl TryFrom<String> for ProducerId {
    type Error = StoreError;

    fn try_from(id: String) -> Result<Self, StoreError> {
        Self::new(id)
    }
}

impl From<ProducerId> for String {
    fn from(id: ProducerId) -> Self {
        id.0
    }
}

/// Which request of which producer a put is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Producer {
    /// Who puts.
    pub id: ProducerId,
    /// Rises each time when the producer starts without knowing its last sequence. A higher one fences those below.
    pub epoch: u64,
    /// Number of the request in the epoch, from 0, without a gap. Each stream has its own.
    pub sequence: u64,
}

/// What became of a put of a producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutOnce {
    /// Whether the sequence is used up, and by this call.
    pub outcome: PutOnceOutcome,
    /// For each record, in the order of the request.
    pub results: Vec<PutResult>,
}

/// What a put of a producer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOnceOutcome {
    /// At least one record was stored. Those that were not belong into a new request with the next sequence.
    Stored,
    /// The request was stored before; the results are those of then. Nothing was stored now.
    Repeated,
    /// No record was stored: the sequence is still the next one.
    Nothing,
}

impl PutOnceOutcome {
    /// As the API tells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Repeated => "repeated",
            Self::Nothing => "nothing",
        }
    }
}

/// A put of a producer on its way to the writer.
#[derive(Debug)]
pub(crate) struct Numbered {
    /// The stream's id: one that took its name is another stream.
    pub(crate) stream_id: Uuid,
    pub(crate) stream: crate::ids::StreamName,
    pub(crate) producer: Producer,
    /// [`content`] of its records.
    pub(crate) content: Uuid,
    /// Records that do not go to the writer, by their index in the request, in order.
    pub(crate) refused: Vec<(usize, Box<StoreError>)>,
}

/// Hash of a request's records: a repeated sequence must bring the same ones.
pub(crate) fn content(entries: &[PutEntry]) -> Uuid {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for entry in entries {
        hash.update(&(entry.partition_key.len() as u64).to_le_bytes());
        hash.update(entry.partition_key.as_bytes());
        match entry.explicit_hash_key {
            None => hash.update(&[0]),
            Some(key) => {
                hash.update(&[1]);
                hash.update(&key.0.to_le_bytes());
            }
        }
        hash.update(&(entry.data.len() as u64).to_le_bytes());
        hash.update(&entry.data);
    }
    Uuid(hash.digest128().to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hashkey::HashKey;

    #[test]
    fn ids_are_names() {
        for bad in ["", "a b", "a/b", "é", "a\n", &"x".repeat(129)] {
            assert!(ProducerId::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(ProducerId::new("x".repeat(128)).unwrap().as_str().len(), 128);
        assert!(serde_json::from_str::<ProducerId>("\"a b\"").is_err());
    }

    #[test]
    fn any_difference_between_records_is_another_content() {
        let entry = |key: &str, hash_key: Option<u128>, data: &str| PutEntry {
            partition_key: key.to_owned(),
            explicit_hash_key: hash_key.map(HashKey),
            data: data.as_bytes().to_vec().into(),
        };
        let requests = [
            vec![entry("k", None, "ab")],
            vec![entry("ka", None, "b")],
            vec![entry("k", Some(0), "ab")],
            vec![entry("k", Some(1), "ab")],
            vec![entry("k", None, "a"), entry("k", None, "b")],
            vec![entry("k", None, "b"), entry("k", None, "a")],
            vec![entry("k", None, "ab"), entry("", None, "")],
        ];
        let hashes: std::collections::BTreeSet<Uuid> = requests.iter().map(|request| content(request)).collect();
        assert_eq!(hashes.len(), requests.len());
        assert_eq!(content(&requests[0]), content(&requests[0].clone()));
    }
}
