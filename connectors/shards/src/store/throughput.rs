//! The service's limits per shard and second, where a stream has them, and the scaling of on-demand streams by them.
//!
//! They hold for clients of the API. Jobs of this server read and write the log itself and are not held back.

use super::ShardStore;
use crate::access::{PutEntry, PutResult};
use crate::capacity::scaling::{Scaling, ShardLoad, decide};
use crate::capacity::{Capacity, Throughput};
use crate::error::StoreError;
use crate::hashkey::HashKey;
use crate::ids::{ShardId, ShardKey, StreamName};
use crate::lifecycle::StreamStatus;
use crate::limits;
use crate::producers::{Producer, PutOnce};
use crate::stream::StreamMode;
use crate::update::StreamUpdate;
use crate::view::StreamView;

impl ShardStore {
    /// Stores records as [`Self::put_records`] does, but no more than the stream's capacity allows.
    ///
    /// # Errors
    /// Also [`StoreError::RateExceeded`], for a record: it was not stored and can be sent again later.
    pub async fn put_records_within_capacity(
        &self,
        stream: &StreamName,
        entries: Vec<PutEntry>,
    ) -> Result<Vec<PutResult>, StoreError> {
        self.put(stream, entries, true).await
    }

    /// Stores a numbered request as [`Self::put_records_once`] does, but no more of it than the stream's capacity allows.
    ///
    /// # Errors
    /// Also [`StoreError::RateExceeded`], for a record. A request that is answered from memory is not refused, but counts.
    pub async fn put_records_once_within_capacity(
        &self,
        stream: &StreamName,
        producer: Producer,
        entries: Vec<PutEntry>,
    ) -> Result<PutOnce, StoreError> {
        self.put_once(stream, producer, entries, true).await
    }

    /// The capacity of a stream: what its tag says, or else what the store's option says.
    pub(crate) fn capacity(&self, stream: &StreamView) -> Capacity {
        stream.capacity.unwrap_or(self.options().capacity)
    }

    /// Takes a record for a shard into account; refuses it when the shard has had its share of this second.
    pub(super) fn admit_record(&self, stream: &StreamView, shard: ShardKey, bytes: usize) -> Result<(), StoreError> {
        if self.capacity(stream) == Capacity::Unlimited {
            return Ok(());
        }
        let admitted = self.throughput().write(shard, bytes as u64, self.now_ms());
        if admitted {
            Ok(())
        } else {
            Err(rate_exceeded(stream, shard))
        }
    }

    /// Takes a call of GetRecords into account; refuses it when the shard has given its share.
    ///
    /// # Errors
    /// [`StoreError::RateExceeded`].
    pub(crate) fn admit_read(&self, stream: &StreamView, shard: ShardKey) -> Result<(), StoreError> {
        if self.capacity(stream) == Capacity::Unlimited {
            return Ok(());
        }
        let admitted = self.throughput().read(shard, self.now_ms());
        if admitted {
            Ok(())
        } else {
            Err(rate_exceeded(stream, shard))
        }
    }

    /// Takes what GetRecords answered into account.
    pub(crate) fn was_read(&self, stream: &StreamView, shard: ShardKey, bytes: u64) {
        if self.capacity(stream) == Capacity::Enforced {
            self.throughput().was_read(shard, bytes, self.now_ms());
        }
    }

    /// Looks once at all on-demand streams with [`Capacity::Enforced`]: splits shards until each stream has twice the
    /// capacity of its recent peak (but no more than doubles it in one look), or merges some when it has had four times
    /// its peak for a day. To be called about once a minute. Returns the number of splits and merges.
    pub async fn scale_on_demand(&self) -> usize {
        let streams = self.view().streams();
        self.throughput()
            .retain(|shard| streams.iter().any(|stream| stream.shard_by_key(shard).is_some()));
        let mut steps = 0;
        for stream in streams {
            let scaled = stream.meta.mode == StreamMode::OnDemand && self.capacity(&stream) == Capacity::Enforced;
            if !scaled {
                continue;
            }
            for _ in 0..stream.meta.open_shards().count() {
                match self.scale_step(&stream.meta.name).await {
                    Ok(true) => steps += 1,
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(stream = %stream.meta.name, %error, "the stream cannot be scaled");
                        break;
                    }
                }
            }
        }
        steps
    }

    /// One split or merge; false when there is nothing to do.
    async fn scale_step(&self, name: &StreamName) -> Result<bool, StoreError> {
        let now_ms = self.now_ms();
        let stream = self.view().stream(name)?;
        if stream.meta.status(now_ms) != StreamStatus::Active {
            return Ok(false);
        }
        let Some(step) = self.scaling(&stream, now_ms) else {
            return Ok(false);
        };
        let (update, parents) = match step {
            Scaling::Split(shard) => {
                let range = stream.shard(shard)?.meta.hash_range;
                let at = HashKey(range.start.0 + (range.end.0 - range.start.0) / 2 + 1);
                (StreamUpdate::Split { shard, at }, vec![shard])
            }
            Scaling::Merge(shard, adjacent) => (StreamUpdate::Merge { shard, adjacent }, vec![shard, adjacent]),
        };
        self.update_stream(name, update).await?;
        self.hand_down(name, &parents)?;
        tracing::info!(stream = %name, ?step, "scaled the on-demand stream");
        Ok(true)
    }

    fn scaling(&self, stream: &StreamView, now_ms: u64) -> Option<Scaling> {
        let throughput = self.throughput();
        let (recent_ms, longest_ms) = (limits::SCALING_RECENT_MS, limits::SCALING_LONGEST_MS);
        let watched_from_ms = throughput.since_ms().max(stream.meta.created_ms);
        let loads: Vec<ShardLoad> = stream
            .meta
            .open_shards()
            .map(|shard| {
                let peak = |ms: u64| {
                    throughput
                        .load(shard.key)
                        .map_or(0.0, |load| load.peak(now_ms.saturating_sub(ms), now_ms))
                };
                ShardLoad {
                    id: shard.id,
                    range: shard.hash_range,
                    recent: peak(recent_ms),
                    longest: peak(longest_ms),
                }
            })
            .collect();
        let watched = now_ms.saturating_sub(watched_from_ms) >= longest_ms;
        decide(&loads, self.options().shards_max as usize, watched)
    }

    /// Children have the load of their parents: the next look must not take them for idle.
    fn hand_down(&self, name: &StreamName, parents: &[ShardId]) -> Result<(), StoreError> {
        let stream = self.view().stream(name)?;
        let is_parent = |id: Option<ShardId>| id.is_some_and(|id| parents.contains(&id));
        let children: Vec<ShardKey> = stream
            .meta
            .open_shards()
            .filter(|shard| is_parent(shard.parent) || is_parent(shard.adjacent_parent))
            .map(|shard| shard.key)
            .collect();
        let parents: Vec<ShardKey> = parents
            .iter()
            .filter_map(|id| stream.meta.shard(*id))
            .map(|shard| shard.key)
            .collect();
        self.throughput().hand_down(&parents, &children, self.now_ms());
        Ok(())
    }

    fn throughput(&self) -> std::sync::MutexGuard<'_, Throughput> {
        // Nothing in there panics half-way.
        self.0
            .throughput
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn rate_exceeded(stream: &StreamView, shard: ShardKey) -> StoreError {
    StoreError::RateExceeded {
        stream: stream.meta.name.clone(),
        shard: stream.shard_by_key(shard).map_or(ShardId(0), |shard| shard.meta.id),
    }
}
