//! DescribeStream: a stream with a page of its shards.

use super::{encryption_type, mode_details, monitoring, page, shard};
use crate::ids::ShardId;
use crate::kinesis::error::ApiError;
use crate::kinesis::item::{Fields, Item};
use crate::kinesis::shape::{EXCLUSIVE_START_SHARD_ID, Field, Kind, STREAM_ARN, STREAM_ID, STREAM_NAME};
use crate::kinesis::stream_ref;
use crate::limits;
use crate::store::ShardStore;

pub(super) const SHAPE: &[Field] = &[
    Field::new("Limit", Kind::Integer).range(1, 10_000),
    EXCLUSIVE_START_SHARD_ID,
    STREAM_NAME,
    STREAM_ARN,
    STREAM_ID,
];

pub(super) fn run(store: &ShardStore, fields: &Fields) -> Result<Fields, ApiError> {
    let meta = stream_ref::stream(store, fields)?;
    let limit = page(fields, "Limit", limits::DESCRIBE_LIMIT, limits::GET_RECORDS_MAX);
    let after = exclusive_start(fields)?;
    let mut shards = meta.shards().filter(|shard| after.is_none_or(|after| shard.id > after));
    let listed: Vec<Item> = shards.by_ref().take(limit).map(shard).collect();
    let description = Fields::new()
        .with("StreamName", meta.name.as_str())
        .with("StreamARN", meta.arn.as_str())
        .with("StreamStatus", meta.status().as_str())
        .with("StreamModeDetails", mode_details(&meta))
        .with("Shards", listed)
        .with("HasMoreShards", shards.next().is_some())
        .with("RetentionPeriodHours", i64::from(meta.retention_hours))
        .with("StreamCreationTimestamp", Item::Time(meta.created_ms as i64))
        .with("EnhancedMonitoring", monitoring(&meta))
        .with("EncryptionType", encryption_type(&meta))
        .with_some("KeyId", meta.encryption_key.as_deref());
    Ok(Fields::new().with("StreamDescription", description))
}

/// The shard behind which a page starts.
pub(super) fn exclusive_start(fields: &Fields) -> Result<Option<ShardId>, ApiError> {
    fields
        .text("ExclusiveStartShardId")
        .map(str::parse)
        .transpose()
        .map_err(|_| {
            ApiError::invalid_argument("ExclusiveStartShardId is not the id of a shard, like shardId-000000000000.")
        })
}
