//! ListStreamConsumers: the consumers of a stream, by name.

use super::{page, store_error};
use crate::kinesis::consumer_ref;
use crate::kinesis::error::ApiError;
use crate::kinesis::item::{Fields, Item};
use crate::kinesis::shape::{Field, Kind, NEXT_TOKEN, STREAM_ARN, STREAM_ID};
use crate::kinesis::stream_ref;
use crate::kinesis::token::{self, NextToken};
use crate::limits;
use crate::store::ShardStore;

pub(super) const SHAPE: &[Field] = &[
    STREAM_ARN.required(),
    NEXT_TOKEN,
    Field::new("MaxResults", Kind::Integer).range(1, 10_000),
    Field::new("StreamCreationTimestamp", Kind::Timestamp),
    STREAM_ID,
];

pub(super) fn run(store: &ShardStore, fields: &Fields) -> Result<Fields, ApiError> {
    let stream = stream_ref::stream(store, fields)?;
    let created = fields.time("StreamCreationTimestamp");
    let after = match fields.text("NextToken") {
        Some(_) if created.is_some() => {
            return Err(ApiError::invalid_argument(
                "NextToken and StreamCreationTimestamp cannot be provided together.",
            ));
        }
        Some(text) => match token::open_next_token(store, text)? {
            NextToken::Consumers { stream: id, after } if id == stream.id => Some(after),
            _ => return Err(ApiError::invalid_argument("NextToken is not valid.")),
        },
        None => None,
    };
    if created.is_some_and(|created| created / 1000 != stream.created_ms as i64 / 1000) {
        return Err(ApiError::not_found(format!(
            "Stream {} under account {} with that StreamCreationTimestamp not found.",
            stream.name,
            store.options().account
        )));
    }
    let limit = page(fields, "MaxResults", limits::LIST_CONSUMERS, limits::GET_RECORDS_MAX);
    let consumers = store.consumers(&stream.name).map_err(store_error(store))?;
    let mut rest = consumers
        .iter()
        .filter(|(consumer, _)| after.as_ref().is_none_or(|after| consumer.name > *after));
    let listed: Vec<_> = rest.by_ref().take(limit).collect();
    let token = listed.last().filter(|_| rest.next().is_some()).map(|(last, _)| {
        let token = NextToken::Consumers {
            stream: stream.id,
            after: last.name.clone(),
        };
        token::next_token(store, &token)
    });
    let consumers: Vec<Item> = listed
        .iter()
        .map(|(consumer, status)| consumer_ref::shown(consumer, *status).into())
        .collect();
    Ok(Fields::new().with("Consumers", consumers).with_some("NextToken", token))
}
