//! What a shard takes in and gives out per second, where its stream wants the service's limits.
//!
//! On one's own machine nobody needs to be held back, so a stream is unlimited unless it asks for the limits
//! ([`Capacity`]). Pure: time comes in, decisions go out.
//!
//! ```text
//!   PutRecord(s) ─▶ Throughput::write ─ refused: ProvisionedThroughputExceededException, for each record
//!   GetRecords   ─▶ Throughput::read  ─ refused: the same, for the call
//!                       │
//!                       └─▶ Load: what was asked for, minute by minute ─▶ scaling: splits and merges (on-demand)
//! ```

pub(crate) mod scaling;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

use crate::ids::ShardKey;
use crate::limits;

/// Whether a stream's shards have the service's limits per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capacity {
    /// As much as the machine can.
    #[default]
    Unlimited,
    /// The service's: 1,000 records and 1 MiB in, 2 MiB and 5 calls of GetRecords out, per shard and second. On-demand
    /// streams are split and merged as their load asks for.
    Enforced,
}

impl Capacity {
    /// The tag of a stream that chooses: every client can set tags.
    pub const TAG: &'static str = "tidemill:capacity";

    /// The capacity that a stream's tags ask for; `None` when they do not say.
    ///
    /// # Errors
    /// What to write instead, when the tag has another value.
    pub fn of_tags(tags: &[(String, String)]) -> Result<Option<Self>, String> {
        match tags.iter().find(|(key, _)| key == Self::TAG) {
            None => Ok(None),
            Some((_, value)) => value.parse().map(Some),
        }
    }
}

impl std::str::FromStr for Capacity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "unlimited" => Ok(Self::Unlimited),
            "enforced" => Ok(Self::Enforced),
            other => Err(format!(
                "{other:?} is no capacity of a stream: use \"unlimited\" or \"enforced\""
            )),
        }
    }
}

impl std::fmt::Display for Capacity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unlimited => "unlimited",
            Self::Enforced => "enforced",
        })
    }
}

/// A token bucket that holds one second's worth. It may be overdrawn: what is larger than the bucket passes when the
/// bucket is full and is paid off afterwards.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Per second; also how much it holds.
    rate: u64,
    /// Thousandths of what it is filled with.
    level: i64,
    at_ms: u64,
}

impl Bucket {
    fn full(rate: u64, now_ms: u64) -> Self {
        Self {
            rate,
            level: (rate * 1000) as i64,
            at_ms: now_ms,
        }
    }

    fn refill(&mut self, now_ms: u64) {
        // A clock that goes back gives nothing.
        let elapsed = now_ms.saturating_sub(self.at_ms);
        self.at_ms = now_ms;
        let gained = (elapsed.saturating_mul(self.rate)).min(i64::MAX as u64) as i64;
        self.level = self.level.saturating_add(gained).min((self.rate * 1000) as i64);
    }

    /// Whether `amount` may be taken, or a full bucket where it is more than that.
    fn has(&self, amount: u64) -> bool {
        self.level >= (amount.min(self.rate) * 1000) as i64
    }

    fn take(&mut self, amount: u64) {
        self.level = self
            .level
            .saturating_sub((amount.saturating_mul(1000)).min(i64::MAX as u64) as i64);
    }
}

/// What a shard was asked to take in over the last minutes, accepted or not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Load {
    /// Bytes and records of the minutes that have passed, the newest last; a minute is its number since 1970.
    minutes: VecDeque<Minute>,
}

/// One minute of a shard's load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Minute {
    number: u64,
    bytes: u64,
    records: u64,
}

impl Load {
    fn add(&mut self, bytes: u64, now_ms: u64) {
        let number = now_ms / 60_000;
        match self.minutes.back_mut() {
            // A clock that goes back counts for the newest minute.
            Some(last) if last.number >= number => {
                last.bytes += bytes;
                last.records += 1;
            }
            _ => {
                self.minutes.push_back(Minute {
                    number,
                    bytes,
                    records: 1,
                });
                while self.minutes.len() > limits::LOAD_MINUTES_MAX {
                    self.minutes.pop_front();
                }
            }
        }
    }

    /// Adds what another shard was asked for, divided by `by`.
    fn add_all(&mut self, other: &Self, by: u64) {
        for minute in &other.minutes {
            let at = self.minutes.partition_point(|known| known.number < minute.number);
            if self.minutes.get(at).is_none_or(|known| known.number != minute.number) {
                let empty = Minute {
                    number: minute.number,
                    bytes: 0,
                    records: 0,
                };
                self.minutes.insert(at, empty);
            }
            self.minutes[at].bytes += minute.bytes / by;
            self.minutes[at].records += minute.records / by;
        }
        while self.minutes.len() > limits::LOAD_MINUTES_MAX {
            self.minutes.pop_front();
        }
    }

    /// The share of a shard's limits that the busiest whole minute since `from_ms` asked for; 1.0 is all of it.
    pub(crate) fn peak(&self, from_ms: u64, now_ms: u64) -> f64 {
        let (from, now) = (from_ms / 60_000, now_ms / 60_000);
        self.minutes
            .iter()
            .filter(|minute| minute.number >= from && minute.number < now)
            .map(share)
            .fold(0.0, f64::max)
    }
}

fn share(minute: &Minute) -> f64 {
    let bytes = minute.bytes as f64 / (60 * limits::SHARD_WRITE_BYTES) as f64;
    let records = minute.records as f64 / (60 * limits::SHARD_WRITE_RECORDS) as f64;
    bytes.max(records)
}

#[derive(Debug)]
struct ShardThroughput {
    write_records: Bucket,
    write_bytes: Bucket,
    read_calls: Bucket,
    read_bytes: Bucket,
    load: Load,
}

impl ShardThroughput {
    fn new(now_ms: u64) -> Self {
        Self {
            write_records: Bucket::full(limits::SHARD_WRITE_RECORDS, now_ms),
            write_bytes: Bucket::full(limits::SHARD_WRITE_BYTES, now_ms),
            read_calls: Bucket::full(limits::SHARD_READ_CALLS, now_ms),
            read_bytes: Bucket::full(limits::SHARD_READ_BYTES, now_ms),
            load: Load::default(),
        }
    }
}

/// The shards of streams with [`Capacity::Enforced`]. Not durable: a restart begins with full buckets.
#[derive(Debug)]
pub(crate) struct Throughput {
    shards: HashMap<ShardKey, ShardThroughput>,
    since_ms: u64,
}

impl Throughput {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            shards: HashMap::new(),
            since_ms: now_ms,
        }
    }

    /// Since when it has seen what was asked for, milliseconds since 1970.
    pub(crate) fn since_ms(&self) -> u64 {
        self.since_ms
    }

    /// Gives the load of shards that were closed to those that took their place, in equal parts.
    pub(crate) fn hand_down(&mut self, parents: &[ShardKey], children: &[ShardKey], now_ms: u64) {
        let gone: Vec<ShardThroughput> = parents.iter().filter_map(|parent| self.shards.remove(parent)).collect();
        for child in children {
            let known = self.shard(*child, now_ms);
            for parent in &gone {
                known.load.add_all(&parent.load, children.len() as u64);
            }
        }
    }

    fn shard(&mut self, shard: ShardKey, now_ms: u64) -> &mut ShardThroughput {
        self.shards.entry(shard).or_insert_with(|| ShardThroughput::new(now_ms))
    }

    /// Takes a record of `bytes` (data and partition key) into account; false: refuse it.
    pub(crate) fn write(&mut self, shard: ShardKey, bytes: u64, now_ms: u64) -> bool {
        let known = self.shard(shard, now_ms);
        known.load.add(bytes, now_ms);
        known.write_records.refill(now_ms);
        known.write_bytes.refill(now_ms);
        let passes = known.write_records.has(1) && known.write_bytes.has(bytes);
        if passes {
            known.write_records.take(1);
            known.write_bytes.take(bytes);
        }
        passes
    }

    /// Takes a call of GetRecords into account; false: refuse it.
    pub(crate) fn read(&mut self, shard: ShardKey, now_ms: u64) -> bool {
        let known = self.shard(shard, now_ms);
        known.read_calls.refill(now_ms);
        known.read_bytes.refill(now_ms);
        // What the last answers took beyond the limit is waited for: 10 MiB are five seconds.
        let passes = known.read_calls.has(1) && known.read_bytes.has(1);
        if passes {
            known.read_calls.take(1);
        }
        passes
    }

    /// Takes the answer's bytes into account.
    pub(crate) fn was_read(&mut self, shard: ShardKey, bytes: u64, now_ms: u64) {
        let known = self.shard(shard, now_ms);
        known.read_bytes.refill(now_ms);
        known.read_bytes.take(bytes);
    }

    /// The load of a shard; `None` when nothing was asked of it.
    pub(crate) fn load(&self, shard: ShardKey) -> Option<&Load> {
        self.shards.get(&shard).map(|known| &known.load)
    }

    /// Forgets shards that are gone.
    pub(crate) fn retain(&mut self, mut exists: impl FnMut(ShardKey) -> bool) {
        self.shards.retain(|shard, _| exists(*shard));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardKey = ShardKey(1);

    fn written(throughput: &mut Throughput, count: usize, bytes: u64, now_ms: u64) -> usize {
        (0..count).filter(|_| throughput.write(SHARD, bytes, now_ms)).count()
    }

    #[test]
    fn records_and_bytes_of_a_second_are_limited() {
        let mut throughput = Throughput::new(0);
        assert_eq!(written(&mut throughput, 1_500, 10, 0), 1_000, "by records");
        assert_eq!(written(&mut throughput, 10, 10, 0), 0);
        assert_eq!(
            written(&mut throughput, 1_000, 10, 500),
            500,
            "half a second fills half"
        );
        assert_eq!(
            written(&mut throughput, 2_000, 1_024, 60_000),
            1_000,
            "never more than a second's worth"
        );
        let mut throughput = Throughput::new(0);
        assert_eq!(written(&mut throughput, 100, 100 << 10, 0), 10, "by bytes");
    }

    #[test]
    fn large_record_passes_and_is_paid_off() {
        let mut throughput = Throughput::new(0);
        let ten = 10 << 20;
        assert!(throughput.write(SHARD, ten, 0));
        assert!(!throughput.write(SHARD, 1, 9_000), "nine seconds pay nine of ten MiB");
        assert!(throughput.write(SHARD, 1, 9_100));
        assert!(!throughput.write(SHARD, ten, 9_500), "needs a full second's worth");
        assert!(throughput.write(SHARD, ten, 10_101));
    }

    #[test]
    fn reads_are_limited_by_calls_and_by_what_they_gave() {
        let mut throughput = Throughput::new(0);
        assert_eq!((0..9).filter(|_| throughput.read(SHARD, 0)).count(), 5);
        assert!(throughput.read(SHARD, 200));
        throughput.was_read(SHARD, 10 << 20, 200);
        assert!(!throughput.read(SHARD, 4_000), "10 MiB are five seconds of 2 MiB");
        assert!(throughput.read(SHARD, 5_000));
    }

    #[test]
    fn shards_and_a_clock_that_goes_back_do_not_disturb() {
        let mut throughput = Throughput::new(0);
        assert_eq!(written(&mut throughput, 1_000, 1, 10_000), 1_000);
        assert!(throughput.write(ShardKey(2), 1, 10_000), "another shard");
        assert!(!throughput.write(SHARD, 1, 5_000));
        assert!(throughput.write(SHARD, 1, 5_100));
        throughput.hand_down(&[ShardKey(2)], &[ShardKey(3), ShardKey(4)], 10_000);
        assert!(throughput.load(ShardKey(2)).is_none() && throughput.load(ShardKey(3)).is_some());
        throughput.retain(|shard| shard == SHARD);
        assert!(throughput.load(ShardKey(3)).is_none() && throughput.load(SHARD).is_some());
    }

    #[test]
    fn load_is_the_busiest_whole_minute() {
        let mut load = Load::default();
        for _ in 0..30_000 {
            load.add(1, 60_000);
        }
        load.add(30 << 20, 120_000);
        load.add(600 << 20, 180_000);
        let close = |a: f64, b: f64| (a - b).abs() < 1e-3;
        assert!(close(load.peak(0, 180_000), 0.5), "{}", load.peak(0, 180_000));
        assert!(close(load.peak(120_000, 180_000), 0.5));
        assert!(close(load.peak(0, 240_000), 10.0), "refused load counts too");
        assert!(close(load.peak(240_000, 300_000), 0.0));
    }

    #[test]
    fn load_is_handed_down() {
        let mut throughput = Throughput::new(0);
        for (shard, minute, count) in [(1, 1, 30_000), (2, 1, 6_000), (2, 2, 60_000)] {
            for _ in 0..count {
                throughput.write(ShardKey(shard), 1, minute * 60_000);
            }
        }
        let peak = |throughput: &Throughput, shard, minute: u64| {
            let load = throughput.load(ShardKey(shard)).unwrap();
            (load.peak(minute * 60_000, (minute + 1) * 60_000) * 1000.0).round()
        };
        throughput.hand_down(&[ShardKey(1), ShardKey(2)], &[ShardKey(3)], 180_000);
        assert_eq!((peak(&throughput, 3, 1), peak(&throughput, 3, 2)), (600.0, 1_000.0));
        throughput.hand_down(&[ShardKey(3)], &[ShardKey(4), ShardKey(5)], 180_000);
        for child in [4, 5] {
            assert_eq!(
                (peak(&throughput, child, 1), peak(&throughput, child, 2)),
                (300.0, 500.0)
            );
        }
    }

    #[test]
    fn tag_chooses() {
        let tags = |value: &str| vec![(Capacity::TAG.to_owned(), value.to_owned())];
        assert_eq!(Capacity::of_tags(&[]), Ok(None));
        assert_eq!(Capacity::of_tags(&tags("enforced")), Ok(Some(Capacity::Enforced)));
        assert_eq!(Capacity::of_tags(&tags("unlimited")), Ok(Some(Capacity::Unlimited)));
        assert!(Capacity::of_tags(&tags("much")).unwrap_err().contains("\"enforced\""));
    }
}
