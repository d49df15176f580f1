//! Streams of the embedded store: read in process, woken by the log.

use super::access::{Fetch, Sequence, ShardFetcher, ShardView, Start, StreamAccess, StreamRecord, StreamView};
use super::aggregation::looks_aggregated;
use super::error::{StreamError, created_again};
use super::position::Place;
use std::sync::Arc;
use std::time::Duration;
use tidemill_shards::{
    DurablePosition, HashRange, Position, ReadBatch, ReadFrom, ReadLimits, Record, ShardAccess, ShardId, ShardKey,
    ShardRef, StoreError, StreamName,
};
use tokio::sync::watch;
use tokio::time::Instant;

/// Records and bytes that are fetched at once.
const FETCH: ReadLimits = ReadLimits {
    records_max: 8_192,
    bytes_max: 512 << 10,
};

/// A stream of the embedded store.
pub(super) struct EmbeddedStream {
    name: StreamName,
    shards: Arc<dyn ShardAccess>,
}

impl EmbeddedStream {
    pub(super) fn new(name: StreamName, shards: Arc<dyn ShardAccess>) -> Self {
        Self { name, shards }
    }

    /// Returns the moment before which records have expired, milliseconds since 1970.
    async fn trim_before_ms(&self, shard: &ShardRef, key: u64) -> Result<u64, StreamError> {
        let beginning = Position {
            shard: ShardKey(key),
            counter: 0,
        };
        let limits = ReadLimits {
            records_max: 1,
            bytes_max: 1,
        };
        let located = self.shards.locate(shard, beginning, limits).await.map_err(failed)?;
        Ok(located.trim_before_ms)
    }

    /// Says why a shard cannot be read: one that is gone has expired, or is of a stream that was deleted.
    async fn why(&self, error: StoreError, shard: &ShardRef, position: Position) -> StreamError {
        if matches!(error, StoreError::ShardNotFound { .. })
            && let Ok(stream) = self.describe().await
            && stream.is_another(&shard.shard.to_string(), position.shard.0)
        {
            return StreamError::Unfit(created_again(&stream.name));
        }
        failed(error)
    }
}

/// A shard that was listed a moment ago and is not there has expired.
fn failed(error: StoreError) -> StreamError {
    match error {
        StoreError::ShardNotFound { .. } => StreamError::ShardGone,
        error => error.into(),
    }
}

fn shard_id(text: &str) -> Result<ShardId, StreamError> {
    text.parse().map_err(failed)
}

#[async_trait::async_trait]
impl StreamAccess for EmbeddedStream {
    async fn find(&self) -> Result<String, StreamError> {
        Ok(self.shards.describe_stream(&self.name).await.map_err(failed)?.arn)
    }

    async fn describe(&self) -> Result<StreamView, StreamError> {
        let stream = self.shards.describe_stream(&self.name).await.map_err(failed)?;
        let view = |shard: tidemill_shards::ShardMeta| ShardView {
            id: shard.id.to_string(),
            parents: [shard.parent, shard.adjacent_parent]
                .into_iter()
                .flatten()
                .map(|parent| parent.to_string())
                .collect(),
            range: shard.hash_range,
            identity: shard.key.0,
        };
        Ok(StreamView {
            name: stream.name.to_string(),
            arn: stream.arn,
            shards: stream.shards.into_iter().map(view).collect(),
        })
    }

    async fn resolve(&self, _stream: &StreamView, shard: &ShardView, start: &Start) -> Result<Place, StreamError> {
        let number = |text: &str| text.parse().map_err(failed);
        let id = ShardRef::new(self.name.clone(), shard_id(&shard.id)?);
        let from = match start {
            Start::TrimHorizon => ReadFrom::TrimHorizon,
            // What is older is not promised to anybody, and the beginning of a shard moves on.
            Start::AtTimestamp(ms) if *ms <= self.trim_before_ms(&id, shard.identity).await? => ReadFrom::TrimHorizon,
            Start::Latest => ReadFrom::Latest,
            Start::AtTimestamp(ms) => ReadFrom::AtTimestamp(*ms),
            Start::AtSequenceNumber(text) => ReadFrom::At(number(text)?),
            Start::AfterSequenceNumber(text) => ReadFrom::After(number(text)?),
        };
        let position = self.shards.resolve(&id, from).await.map_err(failed)?;
        Ok(Place::Store(position))
    }

    fn open(self: Arc<Self>, shard: &str, place: Place) -> Box<dyn ShardFetcher> {
        Box::new(EmbeddedFetcher {
            durable: self.shards.subscribe(),
            shard: shard_id(shard).map(|id| ShardRef::new(self.name.clone(), id)),
            stream: self,
            chase: Chase::begin(&place),
            place,
            range: None,
        })
    }
}

/// Reads one shard of the embedded store.
struct EmbeddedFetcher {
    stream: Arc<EmbeddedStream>,
    shard: Result<ShardRef, StreamError>,
    place: Place,
    durable: watch::Receiver<DurablePosition>,
    range: Option<HashRange>,
    chase: Option<Chase>,
}

/// How far a reader that began at the beginning of its shard, which moves on, has come from there.
///
/// Until it is well away from it, records may expire between two reads: the reader took what it got, and nothing is lost that
/// it was promised. One that was slower than its stream from the first day on is not told from that.
#[derive(Clone, Copy)]
struct Chase {
    began: Instant,
    /// The first record's arrival, milliseconds since 1970.
    first_ms: Option<u64>,
}

impl Chase {
    /// How far is far enough, in time of arrival.
    const LEAD: Duration = Duration::from_secs(60);

    fn begin(place: &Place) -> Option<Self> {
        let is_beginning = matches!(place, Place::Store(position) if position.counter == 0);
        is_beginning.then(|| Self {
            began: Instant::now(),
            first_ms: None,
        })
    }

    /// Goes on behind a read; `None` when it is over.
    fn goes_on(mut self, batch: &ReadBatch) -> Option<Self> {
        let last_ms = batch.records.last().map(|record| record.arrival_ms);
        let first_ms = batch.records.first().map(|record| record.arrival_ms);
        self.first_ms = self.first_ms.or(first_ms);
        let come = Duration::from_millis(last_ms?.saturating_sub(self.first_ms?));
        (batch.millis_behind_latest > 0 && come < self.began.elapsed() + Self::LEAD).then_some(self)
    }
}

#[async_trait::async_trait]
impl ShardFetcher for EmbeddedFetcher {
    async fn next(&mut self) -> Result<Fetch, StreamError> {
        let shard = self.shard.clone()?;
        let shards = Arc::clone(&self.stream.shards);
        loop {
            let Place::Store(position) = self.place else {
                let message = "a position of an endpoint reached the embedded store";
                return Err(StreamError::Failed(message.to_owned()));
            };
            // What becomes durable from here on is seen by the wait below.
            self.durable.borrow_and_update();
            let batch = match shards.read(&shard, position, FETCH).await {
                Ok(batch) => batch,
                Err(error) => return Err(self.stream.why(error, &shard, position).await),
            };
            let expired = batch.expired && self.chase.is_none();
            self.chase = self.chase.and_then(|chase| chase.goes_on(&batch));
            if batch.at_end || expired || !batch.records.is_empty() {
                if self.range.is_none() && batch.records.iter().any(|record| looks_aggregated(&record.data)) {
                    let stream = shards.describe_stream(&shard.stream).await.map_err(failed)?;
                    self.range = stream.shard(shard.shard).map(|shard| shard.hash_range);
                }
                self.place = Place::Store(batch.next);
                return Ok(Fetch {
                    records: batch.records.into_iter().map(record).collect(),
                    next: self.place.clone(),
                    at_end: batch.at_end,
                    expired,
                    range: self.range,
                });
            }
            self.place = Place::Store(batch.next);
            if self.durable.changed().await.is_err() {
                return Err(failed(StoreError::Closed));
            }
        }
    }
}

fn record(record: Record) -> StreamRecord {
    StreamRecord {
        sequence: Sequence::Store(record.sequence),
        arrival_ms: record.arrival_ms,
        partition_key: record.partition_key,
        data: record.data,
    }
}
