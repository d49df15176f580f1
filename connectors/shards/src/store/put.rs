//! Putting records: checking, routing, queueing.

use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::ShardStore;
use crate::access::{PutEntry, PutReceipt, PutResult};
use crate::error::StoreError;
use crate::ids::{ShardKey, StreamName};
use crate::limits;
use crate::log::entry;
use crate::log::frame::frame_len;
use crate::log::writer::{Append, Appended, Assigned, Command, Routed, hash_key};
use crate::producers::{self, Numbered, Producer, PutOnce, PutOnceOutcome, outcome};
use crate::stream::{RecordDistribution, StreamMeta};
use crate::view::StreamView;

/// Requests are cut into commands of this many bytes; each is answered on its own.
struct Chunk {
    records: Vec<Routed>,
    bytes: usize,
}

impl ShardStore {
    /// Stores records; answers when they are durable, for each in the order of `entries`. Records of one request for
    /// one shard keep their order.
    ///
    /// # Errors
    /// For the whole request: [`StoreError::StreamNotFound`]; [`StoreError::NoSpace`], when nothing was stored;
    /// [`StoreError::Poisoned`], when it is not known whether something was. For a record: [`StoreError::Invalid`]
    /// (key or size), [`StoreError::Limit`] (its shard is read-only).
    pub async fn put_records(&self, stream: &StreamName, entries: Vec<PutEntry>) -> Result<Vec<PutResult>, StoreError> {
        self.put(stream, entries, false).await
    }

    /// Stores records; `is_limited` says whether the stream's capacity counts.
    pub(super) async fn put(
        &self,
        stream: &StreamName,
        entries: Vec<PutEntry>,
        is_limited: bool,
    ) -> Result<Vec<PutResult>, StoreError> {
        let view = self.writable_stream(stream)?;
        // Apart, because a record by itself is what there are most of: its future is small.
        match <[PutEntry; 1]>::try_from(entries) {
            Ok([entry]) => Ok(vec![self.put_one(&view, entry, is_limited).await?]),
            Err(entries) => Box::pin(self.put_many(&view, entries, is_limited)).await,
        }
    }

    /// Stores one record. The outer error is for the whole request.
    async fn put_one(&self, view: &StreamView, entry: PutEntry, is_limited: bool) -> Result<PutResult, StoreError> {
        if let Err(error) = check_entry(&entry, &view.meta) {
            return Ok(Err(error));
        }
        let shard = self.route(view, &entry);
        if is_limited && let Err(error) = self.admit_record(view, shard, entry.partition_key.len() + entry.data.len()) {
            return Ok(Err(error));
        }
        let bytes = frame_len(encoded_len(&entry));
        let appended = self.ask(bytes, |reply| {
            Command::Append(Append {
                records: vec![Routed { shard, entry }],
                numbered: None,
                reply,
            })
        });
        let stored = appended.await?.each.pop();
        Ok(stored.map_or(Err(StoreError::Closed), |assigned| self.receipt(view, assigned)))
    }

    async fn put_many(
        &self,
        view: &StreamView,
        entries: Vec<PutEntry>,
        is_limited: bool,
    ) -> Result<Vec<PutResult>, StoreError> {
        let mut results: Vec<Option<PutResult>> = Vec::with_capacity(entries.len());
        let mut chunks: Vec<Chunk> = Vec::new();
        for entry in entries {
            if let Err(error) = check_entry(&entry, &view.meta) {
                results.push(Some(Err(error)));
                continue;
            }
            let shard = self.route(view, &entry);
            if is_limited
                && let Err(error) = self.admit_record(view, shard, entry.partition_key.len() + entry.data.len())
            {
                results.push(Some(Err(error)));
                continue;
            }
            results.push(None);
            // At worst every record is a frame of its own.
            let bytes = frame_len(encoded_len(&entry));
            match chunks.last_mut() {
                Some(chunk) if chunk.bytes + bytes <= limits::COMMAND_BYTES_MAX => {
                    chunk.records.push(Routed { shard, entry });
                    chunk.bytes += bytes;
                }
                _ => chunks.push(Chunk {
                    records: vec![Routed { shard, entry }],
                    bytes,
                }),
            }
        }
        let mut answers: Vec<oneshot::Receiver<Result<Appended, StoreError>>> = Vec::with_capacity(chunks.len());
        for Chunk { records, bytes } in chunks {
            let (reply, answer) = oneshot::channel();
            let append = Append {
                records,
                numbered: None,
                reply,
            };
            self.send(bytes, Command::Append(append)).await?;
            answers.push(answer);
        }
        let mut assigned = Vec::with_capacity(results.len());
        for answer in answers {
            assigned.extend(self.answer(answer).await?.each);
        }
        let mut stored = assigned.into_iter();
        Ok(results
            .into_iter()
            .map(|refused| {
                refused.unwrap_or_else(|| {
                    stored
                        .next()
                        .map_or(Err(StoreError::Closed), |assigned| self.receipt(view, assigned))
                })
            })
            .collect())
    }

    /// Stores a numbered request of a producer, once: when it comes again, also while the first is on its way, after a crash
    /// or a split, it is answered as the first time and nothing is stored. Dropping the future does not take the records back:
    /// repeat the request to learn what became of it.
    ///
    /// The store remembers the last [`limits::PRODUCER_REQUESTS_MAX`] requests of each of the last
    /// [`limits::PRODUCERS_PER_STREAM_MAX`] producers that wrote to the stream.
    ///
    /// # Errors
    /// For the whole request, and nothing is stored then: [`StoreError::ProducerUnknown`], [`StoreError::ProducerFenced`],
    /// [`StoreError::SequenceGap`], [`StoreError::SequenceForgotten`], [`StoreError::SequenceReused`];
    /// [`StoreError::Invalid`] and [`StoreError::Limit`], when a record or their number is not acceptable;
    /// [`StoreError::StreamNotFound`], [`StoreError::NoSpace`]. After [`StoreError::Poisoned`] repeat the request when the
    /// store is open again.
    pub async fn put_records_once(
        &self,
        stream: &StreamName,
        producer: Producer,
        entries: Vec<PutEntry>,
    ) -> Result<PutOnce, StoreError> {
        self.put_once(stream, producer, entries, false).await
    }

    /// Stores a numbered request; `is_limited` says whether the stream's capacity counts.
    pub(super) async fn put_once(
        &self,
        stream: &StreamName,
        producer: Producer,
        entries: Vec<PutEntry>,
        is_limited: bool,
    ) -> Result<PutOnce, StoreError> {
        let view = self.writable_stream(stream)?;
        if !(1..=limits::PUT_RECORDS_MAX).contains(&entries.len()) {
            return Err(StoreError::Limit(format!(
                "a request of a producer has {} records: it must have 1 to {}",
                entries.len(),
                limits::PUT_RECORDS_MAX
            )));
        }
        for entry in &entries {
            check_entry(entry, &view.meta)?;
        }
        // One command: it is stored as one piece.
        let room = frame_len(outcome::log_bytes(entries.len()));
        let bytes = room + entries.iter().map(|entry| frame_len(encoded_len(entry))).sum::<usize>();
        if bytes > limits::PRODUCER_PUT_BYTES_MAX {
            return Err(StoreError::Limit(format!(
                "a request of a producer takes {bytes} bytes in the log: make it smaller, up to {}",
                limits::PRODUCER_PUT_BYTES_MAX
            )));
        }
        let forgotten = StoreError::SequenceForgotten {
            stream: stream.clone(),
            producer: producer.id.clone(),
            sequence: producer.sequence,
        };
        let mut numbered = Numbered {
            stream_id: view.meta.id,
            stream: stream.clone(),
            producer,
            content: producers::content(&entries),
            refused: Vec::new(),
        };
        let mut records = Vec::with_capacity(entries.len());
        for (index, entry) in entries.into_iter().enumerate() {
            let shard = self.route(&view, &entry);
            let size = entry.partition_key.len() + entry.data.len();
            // What is refused here is still asked for: it may be stored already.
            match is_limited.then(|| self.admit_record(&view, shard, size)) {
                Some(Err(error)) => numbered.refused.push((index, Box::new(error))),
                _ => records.push(Routed { shard, entry }),
            }
        }
        let appended = self.ask(bytes, |reply| {
            Command::Append(Append {
                records,
                numbered: Some(Box::new(numbered)),
                reply,
            })
        });
        let Appended { each, outcome } = appended.await?;
        if outcome == PutOnceOutcome::Repeated {
            // Closed shards are forgotten with their last record. It must not look as if it had not been stored.
            let is_known = |shard| view.shard_by_key(shard).is_some() || self.view().shard(shard).is_some();
            if each.iter().flatten().any(|assigned| !is_known(assigned.shard)) {
                return Err(forgotten);
            }
        }
        Ok(PutOnce {
            outcome,
            results: each.into_iter().map(|assigned| self.receipt(&view, assigned)).collect(),
        })
    }

    fn receipt(&self, view: &StreamView, assigned: Result<Assigned, Box<StoreError>>) -> PutResult {
        let assigned = assigned.map_err(|error| *error)?;
        // A shard that took records of one that was closed meanwhile is newer than what the request saw.
        let newer;
        let shard = match view.shard_by_key(assigned.shard) {
            Some(shard) => &shard.meta,
            None => {
                newer = self
                    .view()
                    .shard(assigned.shard)
                    .ok_or_else(|| StoreError::StreamNotFound(view.meta.name.clone()))?;
                &newer.meta
            }
        };
        Ok(PutReceipt {
            shard: shard.id,
            sequence: shard.sequence(assigned.counter, assigned.arrival_ms),
        })
    }

    /// The shard that takes a record.
    pub(super) fn route(&self, view: &StreamView, entry: &PutEntry) -> ShardKey {
        match view.meta.distribution {
            RecordDistribution::Auto => view.routes.turn(self.0.turns.fetch_add(1, Ordering::Relaxed)),
            distribution => view.routes.shard(hash_key(entry, distribution)),
        }
    }
}

pub(super) fn encoded_len(entry: &PutEntry) -> usize {
    entry::encoded_len(&entry.partition_key, entry.explicit_hash_key, &entry.data)
}

pub(super) fn check_entry(entry: &PutEntry, meta: &StreamMeta) -> Result<(), StoreError> {
    let chars = entry.partition_key.chars().count();
    // Where keys decide on nothing they may be left out.
    let fewest = usize::from(meta.distribution != RecordDistribution::Auto);
    if !(fewest..=limits::PARTITION_KEY_CHARS_MAX).contains(&chars) {
        return Err(StoreError::Invalid(format!(
            "the partition key has {chars} characters: it must have 1 to {}",
            limits::PARTITION_KEY_CHARS_MAX
        )));
    }
    let bytes = entry.partition_key.len() + entry.data.len();
    let max = meta.record_kib_max as usize * 1024;
    if bytes > max {
        return Err(StoreError::Invalid(format!(
            "the record has {bytes} bytes with its key, and the stream takes up to {max} bytes: make the record smaller, \
             or write to a stream that was created for larger ones (MaxRecordSizeInKiB is {} here, up to \
             {} elsewhere)",
            meta.record_kib_max,
            limits::RECORD_KIB_MAX
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::StoreOptions;
    use crate::access::{ReadFrom, ReadLimits, ShardRef};
    use crate::env::{Environment, ManualClock, SeededEntropy, SimDisk};
    use crate::hashkey::HashKey;
    use crate::ids::ShardId;
    use crate::stream::CreateStream;
    use crate::update::StreamUpdate;

    /// The writer gets records for a shard that was split and whose child was merged since they were routed.
    #[test]
    fn records_routed_before_a_reshard_go_to_the_open_shards_in_their_order() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let environment = Environment {
                disk: Arc::new(SimDisk::new()),
                clock: Arc::new(ManualClock::new(1_800_000_000_000)),
                entropy: Arc::new(SeededEntropy::new(7)),
            };
            let options = StoreOptions {
                segment_bytes: 64 << 10,
                ..StoreOptions::default()
            };
            let store = ShardStore::open_in(environment, options).unwrap();
            let name = StreamName::new("s").unwrap();
            store
                .create_stream(CreateStream::provisioned(name.clone(), 2))
                .await
                .unwrap();
            let old = store.stream(&name).unwrap();
            store.split_shard(&name, ShardId(0), HashKey(1 << 126)).await.unwrap();
            store.update_stream(&name, StreamUpdate::ShardCount(4)).await.unwrap();
            let records: Vec<Routed> = (0..200u32)
                .map(|index| {
                    let entry = PutEntry {
                        partition_key: format!("{}", index % 9),
                        explicit_hash_key: None,
                        data: index.to_le_bytes().to_vec().into(),
                    };
                    let shard = store.route(&old, &entry);
                    assert!(
                        !store
                            .stream(&name)
                            .unwrap()
                            .meta
                            .open_shards()
                            .any(|open| open.key == shard)
                    );
                    Routed { shard, entry }
                })
                .collect();
            let (reply, answer) = oneshot::channel();
            let append = Append {
                records,
                numbered: None,
                reply,
            };
            store.send(20_000, Command::Append(append)).await.unwrap();
            let receipts: Vec<PutReceipt> = store
                .answer(answer)
                .await
                .unwrap()
                .each
                .into_iter()
                .map(|assigned| store.receipt(&old, assigned).unwrap())
                .collect();
            let limits = ReadLimits {
                records_max: 1_000,
                bytes_max: 1 << 20,
            };
            let mut found = 0;
            for shard in store.describe_stream(&name).unwrap().shards {
                let at = ShardRef::new(name.clone(), shard.id);
                let from = store.resolve(&at, ReadFrom::TrimHorizon).unwrap();
                let records = store.read(&at, from, limits).unwrap().records;
                assert!(shard.is_open() || records.is_empty());
                let numbers: Vec<u32> = records
                    .iter()
                    .map(|record| u32::from_le_bytes(record.data[..].try_into().unwrap()))
                    .collect();
                assert!(numbers.is_sorted());
                for (record, number) in records.iter().zip(numbers) {
                    assert!(shard.hash_range.contains(HashKey::of(record.partition_key())));
                    let receipt = receipts[number as usize];
                    assert_eq!((receipt.shard, receipt.sequence), (shard.id, record.sequence));
                }
                found += records.len();
            }
            assert_eq!(found, 200);
        });
    }
}
