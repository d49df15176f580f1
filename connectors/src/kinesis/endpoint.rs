//! Streams behind an endpoint, Amazon's own included: read by polling, written in batches, over the Kinesis API.
//!
//! `client` makes the SDK's client and knows which errors pass by themselves, `credentials` (with `profile`) who asks,
//! `remote` is the stream as requests name it; `fetcher` polls a shard; `sender` batches and repeats, `put` is its request.

mod client;
mod credentials;
mod fetcher;
mod profile;
mod put;
mod remote;
pub(super) mod sender;
#[cfg(test)]
mod tests;

use super::access::{ShardFetcher, ShardView, Start, StreamAccess, StreamView};
use super::error::StreamError;
use super::options::KinesisOptions;
use super::options::endpoint::{EndpointOptions, PollingOptions};
use super::position::{Place, Point};
use crate::environment::ConnectorEnvironment;
use crate::error::ConnectorError;
use client::patiently;
use fetcher::EndpointFetcher;
pub(super) use put::EndpointPut;
use remote::Remote;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tidemill_engine::time::TimeSource;
use tidemill_shards::{HashKey, HashRange};

/// A stream behind an endpoint.
pub(super) struct EndpointStream {
    remote: Remote,
    polling: PollingOptions,
    time: Arc<dyn TimeSource>,
    seen: Mutex<Seen>,
}

/// What was learnt of the shards in passing.
#[derive(Default)]
struct Seen {
    /// Children that the end of their parent told of, until a listing has them.
    children: BTreeMap<String, ShardView>,
    ranges: BTreeMap<String, HashRange>,
}

impl EndpointStream {
    /// Makes it; nothing is asked of the endpoint yet.
    ///
    /// # Errors
    /// When the region or the credentials' files are missing.
    pub(super) fn new(
        options: &KinesisOptions,
        endpoint: &EndpointOptions,
        env: &ConnectorEnvironment,
    ) -> Result<Self, ConnectorError> {
        Ok(Self {
            remote: Remote::new(options, endpoint, env)?,
            polling: endpoint.polling,
            time: Arc::clone(env.time()),
            seen: Mutex::default(),
        })
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn list_shards(&self, created_s: u64) -> Result<Vec<ShardView>, StreamError> {
        let mut shards = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let page = patiently("ListShards", || {
                let request = self.remote.client.list_shards();
                match token.clone() {
                    Some(token) => request.next_token(token),
                    None => {
                        let request = request.set_stream_name(self.remote.name.clone());
                        request.set_stream_arn(self.remote.arn.clone())
                    }
                }
                .send()
            });
            let page = page.await.map_err(|error| self.remote.failed("ListShards", &error))?;
            for shard in page.shards() {
                let parents = [shard.parent_shard_id(), shard.adjacent_parent_shard_id()];
                shards.push(ShardView {
                    id: shard.shard_id().to_owned(),
                    parents: parents.into_iter().flatten().map(str::to_owned).collect(),
                    range: range(shard.hash_key_range())?,
                    identity: created_s,
                });
            }
            token = page.next_token().map(str::to_owned);
            if token.is_none() {
                return Ok(shards);
            }
        }
    }

    /// Returns the hash keys of a shard.
    async fn range(&self, shard: &str) -> Result<Option<HashRange>, StreamError> {
        let known = self.seen().ranges.get(shard).copied();
        if known.is_none() {
            self.describe().await?;
            return Ok(self.seen().ranges.get(shard).copied());
        }
        Ok(known)
    }
}

fn range(range: Option<&aws_sdk_kinesis::types::HashKeyRange>) -> Result<HashRange, StreamError> {
    let key = |text: &str| -> Option<HashKey> { text.parse().ok() };
    let read = range.and_then(|range| {
        Some(HashRange {
            start: key(range.starting_hash_key())?,
            end: key(range.ending_hash_key())?,
        })
    });
    read.ok_or_else(|| StreamError::Failed("the endpoint described a shard without its range of hash keys".to_owned()))
}

#[async_trait::async_trait]
impl StreamAccess for EndpointStream {
    async fn find(&self) -> Result<String, StreamError> {
        self.remote.find().await
    }

    async fn describe(&self) -> Result<StreamView, StreamError> {
        let summary = self.remote.summary().await?;
        let mut shards = self.list_shards(summary.created_s).await?;
        let mut seen = self.seen();
        for shard in &shards {
            seen.children.remove(&shard.id);
        }
        shards.extend(seen.children.values().cloned());
        shards.sort_by(|a, b| a.id.cmp(&b.id));
        seen.ranges = shards.iter().map(|shard| (shard.id.clone(), shard.range)).collect();
        Ok(StreamView {
            name: self.remote.stream.clone(),
            arn: summary.arn,
            shards,
        })
    }

    async fn resolve(&self, _stream: &StreamView, shard: &ShardView, start: &Start) -> Result<Place, StreamError> {
        let point = match start {
            Start::TrimHorizon => Point::TrimHorizon,
            // The API has no sequence number for "behind the newest record", and a place must outlive a restart.
            Start::Latest => Point::Time(u64::try_from(self.time.wall_ms()).unwrap_or(0)),
            Start::AtTimestamp(ms) => Point::Time(*ms),
            Start::AtSequenceNumber(number) => Point::At(Arc::clone(number)),
            Start::AfterSequenceNumber(number) => Point::After(Arc::clone(number)),
        };
        Ok(Place::Endpoint {
            created_s: shard.identity,
            point,
        })
    }

    fn open(self: Arc<Self>, shard: &str, place: Place) -> Box<dyn ShardFetcher> {
        Box::new(EndpointFetcher::new(self, shard, place))
    }
}
