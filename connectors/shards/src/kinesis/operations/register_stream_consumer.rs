//! RegisterStreamConsumer.

use super::store_error;
use crate::consumers::ConsumerStatus;
use crate::kinesis::error::ApiError;
use crate::kinesis::item::Fields;
use crate::kinesis::shape::{CONSUMER_NAME, Field, Kind, STREAM_ARN, STREAM_ID};
use crate::kinesis::{consumer_ref, stream_ref};
use crate::store::ShardStore;

pub(super) const SHAPE: &[Field] = &[
    STREAM_ARN.required(),
    CONSUMER_NAME.required(),
    STREAM_ID,
    Field::new("Tags", Kind::Map).range(1, 200),
];

pub(super) async fn run(store: &ShardStore, fields: Fields) -> Result<Fields, ApiError> {
    let stream = stream_ref::stream(store, &fields)?;
    let tags = fields.text_map("Tags");
    let consumer = store
        .register_consumer(&stream.name, fields.text("ConsumerName").unwrap_or_default(), tags)
        .await
        .map_err(store_error(store))?;
    // The answer of the service is the state at the moment of registration.
    let status = consumer
        .status(consumer.created_ms, store.options().lifecycle_delay_ms)
        .unwrap_or(ConsumerStatus::Active);
    Ok(Fields::new().with("Consumer", consumer_ref::shown(&consumer, status)))
}
