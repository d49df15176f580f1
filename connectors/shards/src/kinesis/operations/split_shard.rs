//! SplitShard: an open shard becomes two, the second of which starts at NewStartingHashKey.

use super::{change, provisioned, shard_id};
use crate::hashkey::HashKey;
use crate::kinesis::error::ApiError;
use crate::kinesis::item::Fields;
use crate::kinesis::shape::{Field, Kind, Pattern, STREAM_ARN, STREAM_ID, STREAM_NAME};
use crate::kinesis::stream_ref;
use crate::store::ShardStore;
use crate::update::StreamUpdate;

pub(super) const SHAPE: &[Field] = &[
    STREAM_NAME,
    Field::new("ShardToSplit", Kind::Text)
        .required()
        .pattern(Pattern::Name)
        .range(1, 128),
    Field::new("NewStartingHashKey", Kind::Text)
        .required()
        .pattern(Pattern::HashKey),
    STREAM_ARN,
    STREAM_ID,
];

pub(super) async fn run(store: &ShardStore, fields: Fields) -> Result<(), ApiError> {
    let stream = stream_ref::stream(store, &fields)?;
    let shard = shard_id(store, &stream, fields.text("ShardToSplit").unwrap_or_default())?;
    provisioned(&stream)?;
    let text = fields.text("NewStartingHashKey").unwrap_or_default();
    let at: HashKey = text.parse().map_err(|_| {
        ApiError::invalid_argument(format!(
            "NewStartingHashKey {text} is not in the range [0, 2^128-1] of hash keys."
        ))
    })?;
    change(store, &stream, StreamUpdate::Split { shard, at })
        .await
        .map(drop)
}
