//! Finds the shards of a stream.
//!
//! When a job starts afresh every shard gets its start position at once, resolved to a place in the shard: `LATEST`
//! is decided here, and a restart from a checkpoint does not move it. Shards that appear later are children of a split
//! or a merge: they are read from their beginning, and only when their parents have been read to the end, which keeps
//! the order of each partition key.

use super::options::KinesisOptions;
use super::{StreamError, find_stream, position};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidemill_engine::Result;
use tidemill_engine::source::{Discovery, Split, SplitEnumerator, SplitId, SplitState};
use tidemill_shards::{ReadFrom, ShardAccess, ShardMeta, ShardRef, StreamMeta, StreamName};

/// Says that a stream is another than the one that the job has read under its name, and what to do.
pub(super) fn created_again(stream: &StreamName) -> String {
    format!(
        "stream {stream} was deleted and created again since the job began to read it, so the job's place in it and its \
         state belong to records that are gone: submit the job under another name to read the new stream, or start this one \
         with the restore point \"nothing\", which gives up its state"
    )
}

/// Looks for shards.
pub(super) struct ShardEnumerator {
    table: Arc<str>,
    options: KinesisOptions,
    shards: Arc<dyn ShardAccess>,
}

impl ShardEnumerator {
    pub(super) fn new(table: Arc<str>, options: KinesisOptions, shards: Arc<dyn ShardAccess>) -> Self {
        Self { table, options, shards }
    }

    /// Checks that the stream is the one that was read before.
    fn check(&self, stream: &StreamMeta, known: &BTreeMap<SplitId, SplitState>) -> Result<(), String> {
        for (id, state) in known {
            let read = position::parse(&state.position)?;
            let shard = stream.shards.iter().find(|shard| shard.id.to_string() == id.0);
            if shard.is_some_and(|shard| shard.key != read.shard) {
                return Err(created_again(&stream.name));
            }
        }
        Ok(())
    }

    /// Says where a shard that was not known is to be read from; `None` when it is not its turn yet.
    fn start(&self, shard: &ShardMeta, known: &BTreeMap<SplitId, SplitState>, stream: &StreamMeta) -> Option<ReadFrom> {
        let start = self.options.start;
        if start == ReadFrom::Latest && known.is_empty() {
            return Some(start);
        }
        let waits_for = |parent| {
            let exists = stream.shard(parent).is_some();
            let read = known.get(&SplitId(parent.to_string())).is_some_and(|state| state.ended);
            exists && !read
        };
        if [shard.parent, shard.adjacent_parent]
            .into_iter()
            .flatten()
            .any(waits_for)
        {
            return None;
        }
        // A shard that appeared since: none of its records is older than the start.
        Some(if start == ReadFrom::Latest {
            ReadFrom::TrimHorizon
        } else {
            start
        })
    }
}

#[async_trait::async_trait]
impl SplitEnumerator for ShardEnumerator {
    async fn discover(&mut self, known: &BTreeMap<SplitId, SplitState>) -> Result<Discovery> {
        let error = |error: StreamError| error.of_source(&self.table);
        let stream = find_stream(self.shards.as_ref(), &self.options).await.map_err(error)?;
        self.check(&stream, known)
            .map_err(|message| error(StreamError::Unfit(message)))?;
        let mut new = Vec::new();
        for shard in &stream.shards {
            let id = SplitId(shard.id.to_string());
            if known.contains_key(&id) {
                continue;
            }
            let Some(start) = self.start(shard, known, &stream) else {
                continue;
            };
            let shard = ShardRef::new(stream.name.clone(), shard.id);
            let position = self.shards.resolve(&shard, start).await.map_err(|e| error(e.into()))?;
            new.push(Split {
                id,
                position: position::format(position),
            });
        }
        Ok(Discovery { new, complete: false })
    }

    fn interval(&self) -> Option<Duration> {
        Some(self.options.discovery_interval)
    }
}
