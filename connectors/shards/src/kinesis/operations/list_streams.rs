//! ListStreams: names and summaries of all streams, by name.

use super::{mode_details, page};
use crate::kinesis::error::ApiError;
use crate::kinesis::item::{Fields, Item};
use crate::kinesis::shape::{Field, Kind, NEXT_TOKEN, Pattern};
use crate::kinesis::token::{self, NextToken};
use crate::limits;
use crate::store::ShardStore;

pub(super) const SHAPE: &[Field] = &[
    Field::new("Limit", Kind::Integer).range(1, 10_000),
    Field::new("ExclusiveStartStreamName", Kind::Text)
        .pattern(Pattern::Name)
        .range(1, 128),
    NEXT_TOKEN,
];

pub(super) fn run(store: &ShardStore, fields: &Fields) -> Result<Fields, ApiError> {
    let after = match (fields.text("ExclusiveStartStreamName"), fields.text("NextToken")) {
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid_argument(
                "NextToken and ExclusiveStartStreamName cannot be provided together.",
            ));
        }
        (Some(after), None) => Some(after.to_owned()),
        (None, Some(text)) => match token::open_next_token(store, text)? {
            NextToken::Streams { after } => Some(after.to_string()),
            NextToken::Shards { .. } => return Err(ApiError::invalid_argument("NextToken is not valid.")),
        },
        (None, None) => None,
    };
    let limit = page(fields, "Limit", limits::DESCRIBE_LIMIT, limits::GET_RECORDS_MAX);
    let streams = store.list_streams();
    let mut rest = streams
        .iter()
        .filter(|meta| after.as_ref().is_none_or(|after| meta.name.as_str() > after.as_str()));
    let listed: Vec<_> = rest.by_ref().take(limit).collect();
    let more = rest.next().is_some();
    let token = listed.last().filter(|_| more).map(|last| {
        token::next_token(
            store,
            &NextToken::Streams {
                after: last.name.clone(),
            },
        )
    });
    let now_ms = store.now_ms();
    let summaries = listed.iter().map(|meta| {
        Fields::new()
            .with("StreamName", meta.name.as_str())
            .with("StreamARN", meta.arn.as_str())
            .with("StreamStatus", meta.status(now_ms).as_str())
            .with("StreamModeDetails", mode_details(meta))
            .with("StreamCreationTimestamp", Item::Time(meta.created_ms as i64))
            .into()
    });
    Ok(Fields::new()
        .with(
            "StreamNames",
            listed
                .iter()
                .map(|meta| meta.name.as_str().into())
                .collect::<Vec<Item>>(),
        )
        .with("HasMoreStreams", more)
        .with_some("NextToken", token)
        .with("StreamSummaries", summaries.collect::<Vec<Item>>()))
}
