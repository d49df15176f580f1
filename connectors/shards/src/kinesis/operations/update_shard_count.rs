//! UpdateShardCount: as many shards of equal size as asked for, by splits and merges that take effect together.

use super::{change, provisioned};
use crate::kinesis::error::ApiError;
use crate::kinesis::item::Fields;
use crate::kinesis::shape::{Field, Kind, STREAM_ARN, STREAM_ID, STREAM_NAME};
use crate::kinesis::stream_ref;
use crate::store::ShardStore;
use crate::update::StreamUpdate;

pub(super) const SHAPE: &[Field] = &[
    STREAM_NAME,
    Field::new("TargetShardCount", Kind::Integer).required().min(1),
    Field::new("ScalingType", Kind::Text)
        .required()
        .values(&["UNIFORM_SCALING"]),
    STREAM_ARN,
    STREAM_ID,
];

pub(super) async fn run(store: &ShardStore, fields: Fields) -> Result<Fields, ApiError> {
    let stream = stream_ref::stream(store, &fields)?;
    provisioned(&stream)?;
    let target = fields.integer("TargetShardCount").unwrap_or_default();
    let updated = change(store, &stream, StreamUpdate::ShardCount(target as u32)).await?;
    Ok(Fields::new()
        .with("StreamName", stream.name.as_str())
        .with("CurrentShardCount", i64::from(updated.open_shards_before))
        .with("TargetShardCount", target)
        .with("StreamARN", stream.arn.as_str()))
}
