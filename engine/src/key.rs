//! Keys and key groups: how rows find their worker and their state.
//!
//! A key's bytes have one canonical form, whatever array type the values came in; their xxh3-64 decides the key group
//! (its high bits) and the place in hash tables (its low bits). Both are durable: checkpoints are cut by key group.
//!
//! Canonical encoding, version 1, the columns of the key one after the other:
//!
//! | value | bytes |
//! |---|---|
//! | null | `00` |
//! | boolean | `01`, then `00` or `01` |
//! | integer, date, time, timestamp, interval, decimal | `01`, then the value in little-endian bytes of its type's width |
//! | float | `01`, then its bits in little-endian bytes; every NaN as the one quiet NaN, -0.0 as 0.0 |
//! | string, binary (all array types) | `01`, then its length as u32 little-endian, then its bytes |

mod constant;
mod encode;
mod equal;
mod hash;

pub(crate) use constant::is_constant;
pub use encode::{EncodedKeys, KeyDecoder, encode_keys, supports_key_type};
pub(crate) use equal::equal_keys;
pub use hash::{hash_columns, key_hash};

use serde::{Deserialize, Serialize};

/// The number of key groups of a job, fixed when the job is created: 256 unless told otherwise.
pub const KEY_GROUPS_DEFAULT: u16 = 256;

/// The greatest number of key groups a job can have, and so the greatest useful parallelism.
pub const KEY_GROUPS_MAX: u16 = 32_768;

/// A range of key groups, `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyGroupRange {
    /// The first key group.
    pub start: u16,
    /// The key group after the last.
    pub end: u16,
    /// The number of key groups of the job.
    pub count: u16,
}

impl KeyGroupRange {
    /// Returns the key groups that worker `worker` of `workers` owns, of `count` in all.
    #[must_use]
    pub fn of_worker(worker: usize, workers: usize, count: u16) -> Self {
        let bound = |w: usize| -> u16 { u16::try_from(w * usize::from(count) / workers.max(1)).unwrap_or(count) };
        Self {
            start: bound(worker),
            end: bound(worker + 1),
            count,
        }
    }

    /// Says whether the key of a hash belongs here.
    #[must_use]
    pub fn contains_hash(&self, hash: u64) -> bool {
        let group = key_group(hash, self.count);
        self.start <= group && group < self.end
    }

    /// Says whether two ranges share a key group.
    #[must_use]
    pub fn intersects(&self, other: &KeyGroupRange) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// Returns the key group of a hash among `count`: its high bits.
#[must_use]
#[inline]
pub fn key_group(hash: u64, count: u16) -> u16 {
    // The product's high 64 bits are below `count`.
    ((u128::from(hash) * u128::from(count)) >> 64) as u16
}

/// Returns the worker that owns the key group of a hash.
#[must_use]
#[inline]
pub fn worker_of(hash: u64, count: u16, workers: usize) -> usize {
    // The inverse of `KeyGroupRange::of_worker`: the last worker whose first key group is not behind this one.
    let group = usize::from(key_group(hash, count));
    ((group + 1) * workers - 1) / usize::from(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_group_has_exactly_one_worker() {
        for count in [1u16, 7, 128, 256, 1000] {
            for workers in 1..=9usize {
                for group in 0..count {
                    let hash = (u128::from(group) << 64).div_ceil(u128::from(count)) as u64;
                    assert_eq!(key_group(hash, count), group);
                    let owner = worker_of(hash, count, workers);
                    for worker in 0..workers {
                        let owns = KeyGroupRange::of_worker(worker, workers, count).contains_hash(hash);
                        assert_eq!(
                            owns,
                            worker == owner,
                            "group {group} of {count}, worker {worker} of {workers}"
                        );
                    }
                }
            }
        }
    }
}
