//! DescribeStreamConsumer.

use crate::kinesis::consumer_ref;
use crate::kinesis::error::ApiError;
use crate::kinesis::item::Fields;
use crate::kinesis::shape::{CONSUMER_ARN, CONSUMER_NAME, Field, STREAM_ARN, STREAM_ID};
use crate::store::ShardStore;

pub(super) const SHAPE: &[Field] = &[STREAM_ARN, CONSUMER_NAME, CONSUMER_ARN, STREAM_ID];

pub(super) fn run(store: &ShardStore, fields: &Fields) -> Result<Fields, ApiError> {
    let found = consumer_ref::consumer(store, fields)?;
    let description = consumer_ref::shown(&found.consumer, found.status).with("StreamARN", found.stream.arn.as_str());
    Ok(Fields::new().with("ConsumerDescription", description))
}
