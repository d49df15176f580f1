//! MergeShards: two open neighbours become one.

use super::{change, provisioned, shard_id};
use crate::kinesis::error::ApiError;
use crate::kinesis::item::Fields;
use crate::kinesis::shape::{Field, Kind, Pattern, STREAM_ARN, STREAM_ID, STREAM_NAME};
use crate::kinesis::stream_ref;
use crate::store::ShardStore;
use crate::update::StreamUpdate;

pub(super) const SHAPE: &[Field] = &[
    STREAM_NAME,
    Field::new("ShardToMerge", Kind::Text)
        .required()
        .pattern(Pattern::Name)
        .range(1, 128),
    Field::new("AdjacentShardToMerge", Kind::Text)
        .required()
        .pattern(Pattern::Name)
        .range(1, 128),
    STREAM_ARN,
    STREAM_ID,
];

pub(super) async fn run(store: &ShardStore, fields: Fields) -> Result<(), ApiError> {
    let stream = stream_ref::stream(store, &fields)?;
    let shard = shard_id(store, &stream, fields.text("ShardToMerge").unwrap_or_default())?;
    let adjacent = shard_id(store, &stream, fields.text("AdjacentShardToMerge").unwrap_or_default())?;
    provisioned(&stream)?;
    change(store, &stream, StreamUpdate::Merge { shard, adjacent })
        .await
        .map(drop)
}
