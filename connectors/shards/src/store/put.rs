//! Putting records: checking, routing, queueing.

use tokio::sync::oneshot;

use super::ShardStore;
use crate::access::{PutEntry, PutReceipt, PutResult};
use crate::error::StoreError;
use crate::hashkey::HashKey;
use crate::ids::{ShardKey, StreamName};
use crate::limits;
use crate::log::entry;
use crate::log::frame::frame_len;
use crate::log::writer::{AssignedEach, Command, Routed};
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
        let view = self.view().stream(stream)?;
        let mut results: Vec<Option<PutResult>> = Vec::with_capacity(entries.len());
        let mut shards = Vec::with_capacity(entries.len());
        let mut chunks: Vec<Chunk> = Vec::new();
        for entry in entries {
            if let Err(error) = check_entry(&entry, view.meta.record_kib_max) {
                results.push(Some(Err(error)));
                continue;
            }
            results.push(None);
            let shard = route(&view, &entry);
            shards.push(shard);
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
        let mut answers: Vec<oneshot::Receiver<Result<AssignedEach, StoreError>>> = Vec::with_capacity(chunks.len());
        for Chunk { records, bytes } in chunks {
            let (reply, answer) = oneshot::channel();
            self.send(bytes, Command::Append { records, reply }).await?;
            answers.push(answer);
        }
        let mut assigned = Vec::with_capacity(shards.len());
        for answer in answers {
            assigned.extend(self.answer(answer).await?);
        }
        let mut stored = shards.into_iter().zip(assigned);
        Ok(results
            .into_iter()
            .map(|refused| {
                refused.unwrap_or_else(|| {
                    stored
                        .next()
                        .map_or(Err(StoreError::Closed), |stored| receipt(&view, stored))
                })
            })
            .collect())
    }
}

fn receipt(
    view: &StreamView,
    (shard, assigned): (ShardKey, Result<crate::log::writer::Assigned, Box<StoreError>>),
) -> PutResult {
    let assigned = assigned.map_err(|error| *error)?;
    let shard = &view.shard_by_key(shard).ok_or(StoreError::Closed)?.meta;
    Ok(PutReceipt {
        shard: shard.id,
        sequence: shard.sequence(assigned.counter, assigned.arrival_ms),
    })
}

/// The shard that takes a record.
pub(super) fn route(view: &StreamView, entry: &PutEntry) -> ShardKey {
    view.route(
        entry
            .explicit_hash_key
            .unwrap_or_else(|| HashKey::of(&entry.partition_key)),
    )
}

pub(super) fn encoded_len(entry: &PutEntry) -> usize {
    entry::encoded_len(&entry.partition_key, entry.explicit_hash_key, &entry.data)
}

pub(super) fn check_entry(entry: &PutEntry, record_kib_max: u32) -> Result<(), StoreError> {
    let chars = entry.partition_key.chars().count();
    if !(1..=limits::PARTITION_KEY_CHARS_MAX).contains(&chars) {
        return Err(StoreError::Invalid(format!(
            "the partition key has {chars} characters: it must have 1 to {}",
            limits::PARTITION_KEY_CHARS_MAX
        )));
    }
    let bytes = entry.partition_key.len() + entry.data.len();
    let max = record_kib_max as usize * 1024;
    if bytes > max {
        return Err(StoreError::Invalid(format!(
            "the record has {bytes} bytes with its key, and the stream takes up to {max} bytes: make the record smaller, \
             or write to a stream that was created for larger ones (MaxRecordSizeInKiB is {record_kib_max} here, up to \
             {} elsewhere)",
            limits::RECORD_KIB_MAX
        )));
    }
    Ok(())
}
