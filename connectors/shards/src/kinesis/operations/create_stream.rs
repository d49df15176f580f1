//! CreateStream: provisioned with a number of shards, or on-demand with 4.

use super::store_error;
use crate::error::StoreError;
use crate::ids::StreamName;
use crate::kinesis::error::ApiError;
use crate::kinesis::item::{Fields, Item};
use crate::kinesis::shape::{Field, Kind, STREAM_NAME};
use crate::limits;
use crate::store::ShardStore;
use crate::stream::CreateStream;

pub(super) const SHAPE: &[Field] = &[
    Field::new("ShardCount", Kind::Integer).min(1),
    STREAM_NAME.required(),
    Field::new(
        "StreamModeDetails",
        Kind::Structure(&[Field::new("StreamMode", Kind::Text)
            .required()
            .values(&["PROVISIONED", "ON_DEMAND"])]),
    ),
    Field::new("Tags", Kind::Map).range(1, 200),
    Field::new("WarmThroughputMiBps", Kind::Integer).min(0),
    Field::new("MaxRecordSizeInKiB", Kind::Integer).range(1024, 10_240),
    Field::new("RecordDistributionStrategy", Kind::Text).values(&["AUTO", "USER_PARTITION_KEY"]),
];

pub(super) async fn run(store: &ShardStore, fields: Fields) -> Result<(), ApiError> {
    let name = StreamName::new(fields.text("StreamName").unwrap_or_default()).map_err(store_error(store))?;
    let mode = fields
        .structure("StreamModeDetails")
        .and_then(|details| details.text("StreamMode"));
    let count = fields.integer("ShardCount").map(|count| count as u32);
    let shards = match (mode, count) {
        (Some("ON_DEMAND"), Some(_)) => {
            return Err(ApiError::invalid_argument(
                "ShardCount must not be provided in ON_DEMAND mode.",
            ));
        }
        (Some("PROVISIONED"), None) => {
            return Err(ApiError::invalid_argument(
                "ShardCount must be provided in PROVISIONED mode.",
            ));
        }
        (_, count) => count,
    };
    if fields.integer("WarmThroughputMiBps").is_some() {
        return Err(ApiError::invalid_argument(
            "WarmThroughputMiBps is not supported yet: leave it out, there is no throughput limit here.",
        ));
    }
    if fields.text("RecordDistributionStrategy") == Some("AUTO") {
        return Err(ApiError::invalid_argument(
            "RecordDistributionStrategy AUTO is not supported yet: use USER_PARTITION_KEY.",
        ));
    }
    let tags: Vec<(String, String)> = match fields.get("Tags") {
        Some(Item::Map(entries)) => entries
            .iter()
            .filter_map(|(key, value)| {
                if let Item::Text(value) = value {
                    Some((key.clone(), value.clone()))
                } else {
                    None
                }
            })
            .collect(),
        _ => Vec::new(),
    };
    let request = CreateStream {
        shards,
        record_kib_max: fields
            .integer("MaxRecordSizeInKiB")
            .map_or(limits::RECORD_KIB, |kib| kib as u32),
        tags,
        ..CreateStream::on_demand(name)
    };
    store.create_stream(request).await.map(|_| ()).map_err(|error| match error {
        StoreError::ShardLimit { current, limit, requested } => ApiError::limit(format!(
            "This request would exceed the shard limit for the account {} in {}. Current shard count for the account: \
             {current}. Limit: {limit}. Number of additional shards that would have resulted from this request: \
             {requested}. Refer to the AWS Service Limits page \
             (http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for current limits and how to \
             request higher limits.",
            store.options().account,
            store.options().region
        )),
        other => store_error(store)(other),
    })
}
