//! Finds the shards of a stream, and says where each is to be read from, and when.
//!
//! ```text
//!            ┌─ child ──┐
//!  parent ───┤          ├─── child of a merge        a shard is given out when all its parents
//!            └─ child ──┘                            that can still be read were read to their ends
//! ```
//! That keeps the order of each partition key. It needs no state of its own: a checkpoint knows every shard that was given
//! out, and which of them were read to their ends, until they have expired. One that coincides with a split has either the parent not yet ended, or
//! ended and no children, or ended with its children; each look derives the rest from the stream's own description.
//!
//! A start position is resolved to a place once, when the job starts afresh: a restart does not move `LATEST`. Shards that
//! appear later are children: their records are newer than the start, so they are read from their beginning.

use super::access::{ShardView, Start, StreamAccess, StreamView};
use super::error::{StreamError, created_again};
use super::options::{InitialPosition, KinesisOptions, OnDataLoss};
use super::position::Position;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tidemill_engine::Result;
use tidemill_engine::source::{Discovery, Split, SplitEnumerator, SplitId, SplitState};

type Known = BTreeMap<SplitId, SplitState>;

/// Looks for shards.
pub(super) struct ShardEnumerator {
    table: Arc<str>,
    options: KinesisOptions,
    stream: Arc<dyn StreamAccess>,
}

/// What is to be done about a shard that was not given out yet.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// Read it from here.
    Now(Start),
    /// Its parents come first.
    Later,
    /// What it holds lies before the start.
    Never,
}

impl ShardEnumerator {
    pub(super) fn new(table: Arc<str>, options: KinesisOptions, stream: Arc<dyn StreamAccess>) -> Self {
        Self { table, options, stream }
    }

    /// Checks that the stream is the one that the options mean, and the one that was read before.
    fn check(&self, stream: &StreamView, known: &Known) -> Result<(), String> {
        self.options.check_arn(&stream.arn)?;
        let shards: BTreeMap<&str, &ShardView> = stream.shards.iter().map(|s| (s.id.as_str(), s)).collect();
        for (id, state) in known {
            let read = self.options.parse_position(&state.position)?;
            if stream.is_another(&id.0, read.place.identity()) {
                return Err(created_again(&stream.name));
            }
        }
        match (self.check_loss(stream, known, &shards), self.options.on_data_loss) {
            (Err(loss), OnDataLoss::Fail) => {
                return Err(format!(
                    "{loss}; start the job with the restore point \"nothing\", or set 'source.on-data-loss' = 'continue' to go on with what is left of \
                     stream {}",
                    stream.name
                ));
            }
            (Err(loss), OnDataLoss::Continue) => tracing::warn!(table = &*self.table, loss, "the job goes on"),
            (Ok(()), _) => {}
        }
        if let InitialPosition::SequenceNumbers { shards: listed, .. } = &self.options.start
            && known.is_empty()
            && let Some((missing, _)) = listed.iter().find(|(id, _)| !shards.contains_key(id.as_str()))
        {
            return Err(format!(
                "stream {} has no shard {missing}: correct the option 'source.init.sequence-numbers'",
                stream.name
            ));
        }
        Ok(())
    }

    /// Tells when records have expired that were not read.
    fn check_loss(
        &self,
        stream: &StreamView,
        known: &Known,
        shards: &BTreeMap<&str, &ShardView>,
    ) -> Result<(), String> {
        for (id, state) in known {
            if !state.ended && !shards.contains_key(id.0.as_str()) {
                return Err(format!(
                    "data loss: shard {id} has expired, and was not read to its end (read until {})",
                    state.position
                ));
            }
        }
        if known.is_empty() {
            return Ok(());
        }
        let passed = self.passed(stream, known);
        for shard in &stream.shards {
            let is_new = !known.contains_key(&SplitId(shard.id.clone())) && !passed.contains(shard.id.as_str());
            let lost = |parent: &&String| {
                !known.contains_key(&SplitId((*parent).clone())) && !shards.contains_key(parent.as_str())
            };
            if let Some(parent) = shard.parents.iter().find(lost)
                && is_new
            {
                let shard = &shard.id;
                return Err(format!(
                    "data loss: shard {parent}, which {shard} continues, appeared and expired without having been read"
                ));
            }
        }
        Ok(())
    }

    /// Returns the shards that are not read although they are not known: ancestors of those that are listed in the sequence
    /// numbers at which the table begins, and of those that are known. The latter were read, and forgotten when they had
    /// expired; they may be described again when the retention is made longer.
    fn passed<'a>(&self, stream: &'a StreamView, known: &Known) -> BTreeSet<&'a str> {
        let shards: BTreeMap<&str, &'a ShardView> = stream.shards.iter().map(|s| (s.id.as_str(), s)).collect();
        let none = BTreeMap::new();
        let listed = match &self.options.start {
            InitialPosition::SequenceNumbers { shards: listed, .. } => listed,
            _ => &none,
        };
        let begun: BTreeSet<&str> = known
            .keys()
            .map(|id| id.0.as_str())
            .chain(listed.keys().map(String::as_str))
            .collect();
        let mut passed = BTreeSet::new();
        let mut open: Vec<&'a ShardView> = begun.iter().filter_map(|id| shards.get(id).copied()).collect();
        while let Some(shard) = open.pop() {
            for parent in shard.parents.iter().filter_map(|id| shards.get(id.as_str()).copied()) {
                let id = parent.id.as_str();
                if !begun.contains(id) && passed.insert(id) {
                    open.push(parent);
                }
            }
        }
        passed
    }

    /// Returns the shards that checkpoints need not hold any more: they were read to their ends and have expired, and all
    /// that is left of the stream is known, so they are ancestors of what is known ([`Self::passed`]).
    fn forgettable(
        &self,
        stream: &StreamView,
        known: &Known,
        exists: &BTreeSet<&str>,
        passed: &BTreeSet<&str>,
    ) -> Vec<SplitId> {
        let is_known = |id: &str| known.contains_key(&SplitId(id.to_owned())) || passed.contains(id);
        if stream.shards.is_empty() || !exists.iter().all(|id| is_known(id)) {
            return Vec::new();
        }
        let gone = known
            .iter()
            .filter(|(id, state)| state.ended && !exists.contains(id.0.as_str()));
        gone.map(|(id, _)| id.clone()).collect()
    }

    /// Decides about a shard that is not known.
    fn turn(&self, shard: &ShardView, known: &Known, exists: &BTreeSet<&str>, passed: &BTreeSet<&str>) -> Turn {
        if passed.contains(shard.id.as_str()) {
            return Turn::Never;
        }
        let is_first = known.is_empty();
        if self.options.start == InitialPosition::Latest && is_first {
            return Turn::Now(Start::Latest);
        }
        let waits_for = |parent: &String| {
            let read = known.get(&SplitId(parent.clone())).is_some_and(|state| state.ended);
            exists.contains(parent.as_str()) && !passed.contains(parent.as_str()) && !read
        };
        if shard.parents.iter().any(waits_for) {
            return Turn::Later;
        }
        Turn::Now(match &self.options.start {
            InitialPosition::TrimHorizon | InitialPosition::Latest => Start::TrimHorizon,
            InitialPosition::AtTimestamp(ms) => Start::AtTimestamp(*ms),
            InitialPosition::SequenceNumbers { shards, bound } => match shards.get(&shard.id) {
                Some(number) => bound.start(number),
                None => Start::TrimHorizon,
            },
        })
    }
}

#[async_trait::async_trait]
impl SplitEnumerator for ShardEnumerator {
    async fn discover(&mut self, known: &Known) -> Result<Discovery> {
        let error = |error: StreamError| error.of_source(&self.table);
        let stream = self.stream.describe().await.map_err(error)?;
        self.check(&stream, known)
            .map_err(|message| error(StreamError::Unfit(message)))?;
        let exists: BTreeSet<&str> = stream.shards.iter().map(|shard| shard.id.as_str()).collect();
        let passed = self.passed(&stream, known);
        let mut new = Vec::new();
        for shard in &stream.shards {
            let id = SplitId(shard.id.clone());
            if known.contains_key(&id) {
                continue;
            }
            let Turn::Now(start) = self.turn(shard, known, &exists, &passed) else {
                continue;
            };
            let place = match self.stream.resolve(&stream, shard, &start).await {
                Ok(place) => place,
                // It expired since the stream was described: the next look tells what that means.
                Err(StreamError::ShardGone) => continue,
                Err(other) => return Err(error(other)),
            };
            let position = Position::from(place).to_string();
            new.push(Split { id, position });
        }
        Ok(Discovery {
            new,
            complete: false,
            forget: self.forgettable(&stream, known, &exists, &passed),
        })
    }

    fn interval(&self) -> Option<Duration> {
        Some(self.options.discovery_interval)
    }
}
