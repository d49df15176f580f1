//! DescribeStreamSummary: a stream without its shards.

use super::{mode_details, monitoring};
use crate::kinesis::error::ApiError;
use crate::kinesis::item::{Fields, Item};
use crate::kinesis::shape::{Field, STREAM_ARN, STREAM_ID, STREAM_NAME};
use crate::kinesis::stream_ref;
use crate::store::ShardStore;

pub(super) const SHAPE: &[Field] = &[STREAM_NAME, STREAM_ARN, STREAM_ID];

pub(super) fn run(store: &ShardStore, fields: &Fields) -> Result<Fields, ApiError> {
    let meta = stream_ref::stream(store, fields)?;
    let open = meta.shards.iter().filter(|shard| shard.closed_ms.is_none()).count();
    let consumers = store.consumers(&meta.name).map_or(0, |consumers| consumers.len());
    let summary = Fields::new()
        .with("StreamName", meta.name.as_str())
        .with("StreamARN", meta.arn.as_str())
        .with("StreamStatus", "ACTIVE")
        .with("StreamModeDetails", mode_details(&meta))
        .with("RetentionPeriodHours", i64::from(meta.retention_hours))
        .with("StreamCreationTimestamp", Item::Time(meta.created_ms as i64))
        .with("EnhancedMonitoring", monitoring())
        .with("EncryptionType", "NONE")
        .with("OpenShardCount", open as i64)
        .with("ConsumerCount", consumers as i64)
        .with("MaxRecordSizeInKiB", i64::from(meta.record_kib_max));
    Ok(Fields::new().with("StreamDescriptionSummary", summary))
}
