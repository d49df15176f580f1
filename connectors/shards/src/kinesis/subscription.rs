//! One subscription: the frames that it sends, made when they are asked for.
//!
//! ```text
//!   initial-response ─▶ event ─▶ event ─▶ … ─▶ end of the shard, of the subscription's life, or of the server
//!                         ▲  records, when the shard has new ones; none, when a heartbeat is due
//!                         └─ exception: taken over, consumer or stream gone, store broken
//! ```
//! Nothing runs in the background: whoever sends the frames asks for the next one when it has room, so a client that
//! reads slowly holds one event and no more, and one that goes away leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::codec::Codec;
use super::consumer_ref::ConsumerRef;
use super::error::ApiError;
use super::event_frame::{Message, frame};
use super::item::{Fields, Item};
use super::operations::encryption_type;
use super::operations::get_records::{children, record_bytes, records};
use super::stream_ref;
use super::subscriptions::Place;
use crate::access::{Position, ReadBatch, ReadLimits, ShardAccess, ShardRef};
use crate::capacity::Capacity;
use crate::ids::Uuid;
use crate::limits;
use crate::store::ShardStore;
use crate::stream::ShardMeta;

/// What a consumer did not use of its share is kept for so long.
const BURST: Duration = Duration::from_secs(1);

/// What a subscription sends. Dropping it ends it.
#[derive(Debug)]
pub struct Subscription {
    store: ShardStore,
    place: Place,
    consumer_arn: String,
    stream_id: Uuid,
    shard: ShardRef,
    codec: Codec,
    position: Position,
    /// Wakes when there may be something to send: this shard has changed, not just any.
    changed: Arc<Notify>,
    state: State,
    /// When an event is due, records or not.
    heartbeat_at: Instant,
    /// The moment by which what was sent is within the consumer's share of the shard, where the stream has limits.
    paid_at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was sent.
    New,
    Running,
    Over,
}

impl Subscription {
    pub(super) fn new(
        store: ShardStore,
        place: Place,
        consumer: ConsumerRef,
        shard: ShardRef,
        position: Position,
        codec: Codec,
    ) -> Self {
        let changed = store
            .view()
            .shard(position.shard)
            .map_or_else(Arc::default, |shard| shard.changed.clone());
        // The first event is due at once: it tells where the client is.
        let heartbeat_at = place.began();
        Self {
            store,
            place,
            consumer_arn: consumer.consumer.arn,
            stream_id: consumer.stream.id,
            shard,
            codec,
            position,
            changed,
            state: State::New,
            heartbeat_at,
            // A second's worth can come at once, also at the beginning.
            paid_at: heartbeat_at.checked_sub(BURST).unwrap_or(heartbeat_at),
        }
    }

    /// The next frame, as soon as there is one; `None` when the subscription is over. Dropping the future loses no
    /// records, but ask no further then.
    pub async fn next(&mut self) -> Option<Bytes> {
        match self.state {
            State::Over => None,
            State::New => {
                self.state = State::Running;
                let content_type = self.codec.event_content_type();
                let message = Message::Event("initial-response");
                Some(frame(message, content_type, 2, |out| {
                    self.codec.encode(&Fields::new().into(), out);
                }))
            }
            State::Running => match self.event().await {
                Ok(event) => event,
                Err(error) => {
                    self.state = State::Over;
                    Some(self.exception(&error))
                }
            },
        }
    }

    async fn event(&mut self) -> Result<Option<Bytes>, ApiError> {
        let options = self.place.options();
        let ends_at = self.place.began() + options.life;
        let limits = ReadLimits {
            records_max: limits::EVENT_RECORDS_MAX,
            bytes_max: limits::EVENT_BYTES_MAX,
        };
        loop {
            if self.place.is_taken() {
                return Err(ApiError::in_use(format!(
                    "Another subscription of consumer {} to {} has taken over.",
                    self.consumer_arn, self.shard.shard
                )));
            }
            if self.place.is_stopping() || Instant::now() >= ends_at {
                self.state = State::Over;
                return Ok(None);
            }
            // Before looking: what becomes durable from here on wakes the wait below.
            let shard_changed = self.changed.clone();
            let mut shard_changed = std::pin::pin!(shard_changed.notified());
            shard_changed.as_mut().enable();
            self.check_consumer()?;
            if Instant::now() < self.paid_at {
                tokio::select! {
                    () = self.place.ended() => {}
                    () = tokio::time::sleep_until(self.paid_at.min(ends_at)) => {}
                }
                continue;
            }
            let batch = ShardAccess::read(&self.store, &self.shard, self.position, limits)
                .await
                .map_err(|error| ApiError::of(error, &self.store.options().account))?;
            let now = Instant::now();
            if !batch.records.is_empty() || batch.at_end || now >= self.heartbeat_at {
                let event = self.frame_of(&batch)?;
                self.position = batch.next;
                self.pay(&batch, now);
                self.heartbeat_at = now + options.heartbeat;
                if batch.at_end {
                    self.state = State::Over;
                }
                return Ok(Some(event));
            }
            tokio::select! {
                () = shard_changed => {}
                () = self.place.ended() => {}
                () = tokio::time::sleep_until(self.heartbeat_at.min(ends_at)) => {}
            }
        }
    }

    /// Each consumer has 2 MiB per second of a shard for itself, where the stream has limits; a second's worth can come
    /// at once.
    fn pay(&mut self, batch: &ReadBatch, now: Instant) {
        let stream = self.store.view().stream(&self.shard.stream);
        if stream.is_ok_and(|stream| self.store.capacity(&stream) == Capacity::Enforced) {
            let bytes: u64 = batch.records.iter().map(record_bytes).sum();
            let cost = Duration::from_secs_f64(bytes as f64 / limits::SHARD_READ_BYTES as f64);
            let unused_from = now.checked_sub(BURST).unwrap_or(now);
            self.paid_at = self.paid_at.max(unused_from) + cost;
        }
    }

    /// The consumer, and the stream, may be gone meanwhile, or others of their names there.
    fn check_consumer(&self) -> Result<(), ApiError> {
        let subscriber = self.place.subscriber();
        let known = self.store.view().consumers().of(self.stream_id);
        let is_there = known.iter().any(|consumer| {
            consumer.name == subscriber.consumer
                && consumer.created_ms == subscriber.created_ms
                && consumer.deleted_ms.is_none()
        });
        if is_there {
            return Ok(());
        }
        Err(ApiError::not_found(format!(
            "Consumer {} not found for account {}.",
            self.consumer_arn,
            self.store.options().account
        )))
    }

    fn frame_of(&self, batch: &ReadBatch) -> Result<Bytes, ApiError> {
        let stream = stream_ref::named(&self.store, &self.shard.stream)?;
        let mut event = Fields::new().with("Records", records(&batch.records, encryption_type(&stream)));
        if batch.at_end {
            event = event.with("ChildShards", children(&stream, self.shard.shard));
        } else {
            let meta = stream.shard(self.shard.shard);
            let continuation = meta.map(|meta| self.continuation(meta, batch));
            event = event.with_some("ContinuationSequenceNumber", continuation);
        }
        let event = Item::from(event.with("MillisBehindLatest", batch.millis_behind_latest as i64));
        let content_type = self.codec.event_content_type();
        let message = Message::Event("SubscribeToShardEvent");
        Ok(frame(message, content_type, event.encoded_bytes_guess(), |out| {
            self.codec.encode(&event, out);
        }))
    }

    /// The number behind which reading goes on: that of the last record, or one that no record has yet reached.
    fn continuation(&self, meta: &ShardMeta, batch: &ReadBatch) -> String {
        let number = match batch.records.last() {
            Some(record) => record.sequence,
            None => {
                let counter = batch.next.counter.saturating_sub(1);
                meta.sequence(counter, self.store.now_ms().max(meta.created_ms))
            }
        };
        number.to_string()
    }

    fn exception(&self, error: &ApiError) -> Bytes {
        // In the stream this one has its full name, and errors have no type in their payload.
        let name = match error.name() {
            "InternalFailure" => "InternalFailureException",
            name => name,
        };
        let payload = Fields::new().with("message", error.message().unwrap_or("Internal service failure."));
        let content_type = self.codec.event_content_type();
        frame(Message::Exception(name), content_type, 256, |out| {
            self.codec.encode(&payload.into(), out);
        })
    }
}

#[cfg(test)]
mod tests {
    use aws_smithy_eventstream::frame::read_message_from;
    use serde_json::{Value, json};

    use super::*;
    use crate::env::{Environment, ManualClock, SeededEntropy, SimDisk};
    use crate::hashkey::HashKey;
    use crate::ids::{SegmentNumber, ShardId, StreamName};
    use crate::kinesis::subscriptions::{Subscriber, Subscriptions};
    use crate::kinesis::{SubscriptionOptions, consumer_ref};
    use crate::log::names;
    use crate::stream::CreateStream;
    use crate::{PutEntry, StoreOptions};

    /// A shard that is closed, and has a child, while somebody is subscribed to it.
    #[tokio::test]
    async fn the_end_of_a_shard_names_its_children_and_no_continuation() {
        let environment = Environment {
            disk: Arc::new(SimDisk::new()),
            clock: Arc::new(ManualClock::new(5_000)),
            entropy: Arc::new(SeededEntropy::new(7)),
        };
        let store = ShardStore::open_in(environment, StoreOptions::default()).unwrap();
        let name = StreamName::new("s").unwrap();
        store
            .create_stream(CreateStream::provisioned(name.clone(), 1))
            .await
            .unwrap();
        let consumer = store.register_consumer(&name, "c", Vec::new()).await.unwrap();
        let shard = ShardRef::new(name.clone(), ShardId(0));
        let position = store.resolve(&shard, crate::ReadFrom::Latest).unwrap();
        let subscriptions = Arc::new(Subscriptions::new(SubscriptionOptions::default()));
        let place = subscriptions
            .begin(Subscriber {
                consumer: consumer.name.clone(),
                created_ms: consumer.created_ms,
                shard: position.shard,
            })
            .unwrap();
        let found = consumer_ref::by_arn(&store, &consumer.arn).unwrap();
        let mut subscription = Subscription::new(store.clone(), place, found, shard, position, Codec::Json);
        for _ in 0..2 {
            subscription.next().await.unwrap();
        }

        let close = async {
            store.split_shard(&name, ShardId(0), HashKey(1 << 127)).await.unwrap();
        };
        let (last, ()) = tokio::join!(subscription.next(), close);
        let message = read_message_from(last.unwrap()).unwrap();
        let event: Value = serde_json::from_slice(message.payload()).unwrap();
        let child = |id: u32, start: u128, end: u128| {
            json!({
                "ShardId": format!("shardId-{id:012}"),
                "ParentShards": ["shardId-000000000000"],
                "HashKeyRange": {"StartingHashKey": start.to_string(), "EndingHashKey": end.to_string()},
            })
        };
        let half = 1_u128 << 127;
        let children = [child(1, 0, half - 1), child(2, half, u128::MAX)];
        assert_eq!(
            event,
            json!({"Records": [], "ChildShards": children, "MillisBehindLatest": 0})
        );
        assert!(subscription.next().await.is_none());
    }

    /// A record that cannot be read is told, not passed over.
    #[tokio::test]
    async fn damage_is_an_internal_failure() {
        let disk = SimDisk::new();
        let environment = Environment {
            disk: Arc::new(disk.clone()),
            clock: Arc::new(ManualClock::new(5_000)),
            entropy: Arc::new(SeededEntropy::new(7)),
        };
        let store = ShardStore::open_in(environment, StoreOptions::default()).unwrap();
        let name = StreamName::new("s").unwrap();
        store
            .create_stream(CreateStream::provisioned(name.clone(), 1))
            .await
            .unwrap();
        let entry = PutEntry {
            partition_key: "k".to_owned(),
            explicit_hash_key: None,
            data: Bytes::from_static(b"data-to-damage"),
        };
        store.put_records(&name, vec![entry]).await.unwrap();
        let file = names::segment(SegmentNumber(1));
        let mut bytes = disk.contents(&file).unwrap();
        let needle = b"data-to-damage";
        let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
        bytes[at] ^= 1;
        disk.overwrite(&file, bytes);
        let consumer = store.register_consumer(&name, "c", Vec::new()).await.unwrap();
        let shard = ShardRef::new(name, ShardId(0));
        let position = store.resolve(&shard, crate::ReadFrom::TrimHorizon).unwrap();
        let subscriptions = Arc::new(Subscriptions::new(SubscriptionOptions::default()));
        let subscriber = Subscriber {
            consumer: consumer.name.clone(),
            created_ms: consumer.created_ms,
            shard: position.shard,
        };
        let place = subscriptions.begin(subscriber).unwrap();
        let found = consumer_ref::by_arn(&store, &consumer.arn).unwrap();
        let mut subscription = Subscription::new(store.clone(), place, found, shard, position, Codec::Json);
        subscription.next().await.unwrap();
        let message = read_message_from(subscription.next().await.unwrap()).unwrap();
        let names: Vec<&str> = message
            .headers()
            .iter()
            .map(|header| header.value().as_string().unwrap().as_str())
            .collect();
        assert_eq!(names, ["exception", "InternalFailureException", "application/json"]);
        assert!(subscription.next().await.is_none());
    }
}
