//! CreateStream: provisioned with a number of shards, or on-demand with 4.

use super::{distribution, store_error};
use crate::ids::StreamName;
use crate::kinesis::error::ApiError;
use crate::kinesis::item::Fields;
use crate::kinesis::shape::{
    DISTRIBUTION, Field, Kind, MAX_RECORD_SIZE, STREAM_MODE_DETAILS, STREAM_NAME, TAGS, WARM_THROUGHPUT,
};
use crate::limits;
use crate::store::ShardStore;
use crate::stream::CreateStream;

pub(super) const SHAPE: &[Field] = &[
    Field::new("ShardCount", Kind::Integer).min(1),
    STREAM_NAME.required(),
    STREAM_MODE_DETAILS,
    TAGS,
    WARM_THROUGHPUT,
    MAX_RECORD_SIZE,
    DISTRIBUTION,
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
    let request = CreateStream {
        shards,
        record_kib_max: fields
            .integer("MaxRecordSizeInKiB")
            .map_or(limits::RECORD_KIB, |kib| kib as u32),
        tags: fields.text_map("Tags"),
        distribution: distribution(&fields).unwrap_or_default(),
        warm_throughput_mibps: fields.integer("WarmThroughputMiBps").map(|mibps| mibps as u32),
        ..CreateStream::on_demand(name)
    };
    store.create_stream(request).await.map(drop).map_err(store_error(store))
}
