//! Which consumer a request means: ConsumerARN, or StreamARN and ConsumerName.

use super::error::ApiError;
use super::item::{Fields, Item};
use super::shape::consumer_arn;
use super::stream_ref::{self, Stream};
use crate::consumers::{ConsumerMeta, ConsumerStatus};
use crate::store::ShardStore;

/// A consumer and its stream.
#[derive(Debug, Clone)]
pub(crate) struct ConsumerRef {
    pub(crate) stream: Stream,
    pub(crate) consumer: ConsumerMeta,
    pub(crate) status: ConsumerStatus,
}

/// The consumer that a request means.
pub(crate) fn consumer(store: &ShardStore, fields: &Fields) -> Result<ConsumerRef, ApiError> {
    let by_name = fields.get("StreamARN").is_some() || fields.get("ConsumerName").is_some();
    match (fields.text("ConsumerARN"), fields.text("ConsumerName")) {
        (Some(_), _) if by_name => Err(ApiError::invalid_argument(
            "ConsumerARN cannot be provided together with StreamARN or ConsumerName.",
        )),
        (Some(arn), _) => by_arn(store, arn),
        (None, Some(name)) if fields.get("StreamARN").is_some() => {
            let stream = stream_ref::stream(store, fields)?;
            find(store, &stream, |consumer| consumer.name == name).ok_or_else(|| {
                ApiError::not_found(format!(
                    "Consumer {name} under stream {} not found for account {}.",
                    stream.arn,
                    store.options().account
                ))
            })
        }
        _ => Err(ApiError::invalid_argument(
            "Either ConsumerARN, or StreamARN and ConsumerName must be provided.",
        )),
    }
}

/// The consumer with this ARN, which the shape has checked.
pub(crate) fn by_arn(store: &ShardStore, arn: &str) -> Result<ConsumerRef, ApiError> {
    let missing = || {
        ApiError::not_found(format!(
            "Consumer {arn} not found for account {}.",
            store.options().account
        ))
    };
    let (stream_arn, ..) = consumer_arn(arn).ok_or_else(missing)?;
    let fields = Fields::new().with("StreamARN", stream_arn);
    let stream = stream_ref::stream(store, &fields).map_err(|_| missing())?;
    find(store, &stream, |consumer| consumer.arn == arn).ok_or_else(missing)
}

fn find(store: &ShardStore, stream: &Stream, wanted: impl Fn(&ConsumerMeta) -> bool) -> Option<ConsumerRef> {
    let consumers = store.consumers(&stream.name).ok()?;
    let (consumer, status) = consumers.into_iter().find(|(consumer, _)| wanted(consumer))?;
    Some(ConsumerRef {
        stream: stream.clone(),
        consumer,
        status,
    })
}

/// A consumer as the API shows it.
pub(crate) fn shown(consumer: &ConsumerMeta, status: ConsumerStatus) -> Fields {
    Fields::new()
        .with("ConsumerName", consumer.name.as_str())
        .with("ConsumerARN", consumer.arn.as_str())
        .with("ConsumerStatus", status.name())
        .with("ConsumerCreationTimestamp", Item::Time(consumer.created_ms as i64))
}
