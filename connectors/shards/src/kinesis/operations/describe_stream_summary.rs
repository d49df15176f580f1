//! DescribeStreamSummary: a stream without its shards.

use super::{encryption_type, mode_details, monitoring, warm_throughput};
use crate::kinesis::error::ApiError;
use crate::kinesis::item::{Fields, Item};
use crate::kinesis::shape::{Field, STREAM_ARN, STREAM_ID, STREAM_NAME};
use crate::kinesis::stream_ref;
use crate::store::ShardStore;

pub(super) const SHAPE: &[Field] = &[STREAM_NAME, STREAM_ARN, STREAM_ID];

pub(super) fn run(store: &ShardStore, fields: &Fields) -> Result<Fields, ApiError> {
    let meta = stream_ref::stream(store, fields)?;
    let open = meta.shards().filter(|shard| shard.is_open()).count();
    let summary = Fields::new()
        .with("StreamName", meta.name.as_str())
        .with("StreamARN", meta.arn.as_str())
        .with("StreamStatus", meta.status().as_str())
        .with("StreamModeDetails", mode_details(&meta))
        .with("RetentionPeriodHours", i64::from(meta.retention_hours))
        .with("StreamCreationTimestamp", Item::Time(meta.created_ms as i64))
        .with("EnhancedMonitoring", monitoring(&meta))
        .with("EncryptionType", encryption_type(&meta))
        .with_some("KeyId", meta.encryption_key.as_deref())
        .with("OpenShardCount", open as i64)
        .with("ConsumerCount", 0)
        .with_some("WarmThroughput", meta.warm_throughput_mibps.map(warm_throughput))
        .with("MaxRecordSizeInKiB", i64::from(meta.record_kib_max))
        .with("RecordDistributionStrategy", meta.distribution.as_str());
    Ok(Fields::new().with("StreamDescriptionSummary", summary))
}
