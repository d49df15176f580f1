//! SubscribeToShard: checks a request and begins the subscription. What it sends is `subscription.rs`.

use std::sync::Arc;

use bytes::Bytes;

use super::request;
use crate::access::ShardRef;
use crate::consumers::ConsumerStatus;
use crate::kinesis::codec::Codec;
use crate::kinesis::consumer_ref;
use crate::kinesis::error::ApiError;
use crate::kinesis::shape::{CONSUMER_ARN, DRY_RUN, Field, Kind, Pattern, SHARD_ID, STREAM_ID};
use crate::kinesis::starting_point::{self, StartingPoint};
use crate::kinesis::subscription::Subscription;
use crate::kinesis::subscriptions::{Subscriber, Subscriptions};
use crate::store::ShardStore;

const SEQUENCE_NUMBER: &str = "SequenceNumber";

const SHAPE: &[Field] = &[
    CONSUMER_ARN.required(),
    STREAM_ID,
    SHARD_ID.required(),
    Field::new(
        "StartingPosition",
        Kind::Structure(&[
            Field::new("Type", Kind::Text).required().values(starting_point::TYPES),
            Field::new(SEQUENCE_NUMBER, Kind::Text).pattern(Pattern::SequenceNumber),
            Field::new("Timestamp", Kind::Timestamp),
        ]),
    )
    .required(),
    DRY_RUN,
];

pub(in crate::kinesis) async fn run(
    store: &ShardStore,
    subscriptions: &Arc<Subscriptions>,
    codec: Codec,
    body: &Bytes,
) -> Result<Subscription, ApiError> {
    let fields = request(codec, body, SHAPE)?;
    if fields.get("StreamId").is_some() {
        return Err(ApiError::invalid_argument(
            "StreamId is not supported here: ConsumerARN names the stream.",
        ));
    }
    let found = consumer_ref::by_arn(store, fields.text("ConsumerARN").unwrap_or_default())?;
    if found.status != ConsumerStatus::Active {
        return Err(ApiError::in_use(format!(
            "Consumer {} is {}: subscribe once it is ACTIVE.",
            found.consumer.arn,
            found.status.name()
        )));
    }
    let id = starting_point::shard(store, &found.stream, fields.text("ShardId").unwrap_or_default())?;
    let start = fields.structure("StartingPosition").cloned().unwrap_or_default();
    let from = StartingPoint {
        operation: "SubscribeToShard",
        sequence_field: SEQUENCE_NUMBER,
        kind: start.text("Type").unwrap_or_default(),
        sequence: start.text(SEQUENCE_NUMBER),
        time_ms: start.time("Timestamp"),
    };
    let position = from.resolve(store, &found.stream, id).await?;
    if fields.flag("DryRun") {
        return Err(ApiError::dry_run());
    }
    let subscriber = Subscriber {
        consumer: found.consumer.name.clone(),
        created_ms: found.consumer.created_ms,
        shard: position.shard,
    };
    let place = subscriptions
        .begin(subscriber)
        .map_err(|refusal| refusal.into_error(&found.consumer.arn, id, &store.options().account))?;
    let shard = ShardRef::new(found.stream.name.clone(), id);
    Ok(Subscription::new(store.clone(), place, found, shard, position, codec))
}
