//! DeregisterStreamConsumer. Subscriptions of the consumer end.

use super::store_error;
use crate::kinesis::consumer_ref;
use crate::kinesis::error::ApiError;
use crate::kinesis::item::Fields;
use crate::kinesis::shape::{CONSUMER_ARN, CONSUMER_NAME, Field, STREAM_ARN, STREAM_ID};
use crate::store::ShardStore;

pub(super) const SHAPE: &[Field] = &[STREAM_ARN, CONSUMER_NAME, CONSUMER_ARN, STREAM_ID];

pub(super) async fn run(store: &ShardStore, fields: Fields) -> Result<(), ApiError> {
    let found = consumer_ref::consumer(store, &fields)?;
    store
        .deregister_consumer(&found.stream.name, &found.consumer)
        .await
        .map(|_| ())
        .map_err(store_error(store))
}
