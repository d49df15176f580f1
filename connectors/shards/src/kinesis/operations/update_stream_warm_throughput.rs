//! UpdateStreamWarmThroughput: kept and told. Nothing has to warm up on one's own machine.

use super::{change, warm, warm_throughput};
use crate::kinesis::error::ApiError;
use crate::kinesis::item::Fields;
use crate::kinesis::shape::{Field, STREAM_ARN, STREAM_ID, STREAM_NAME, WARM_THROUGHPUT};
use crate::kinesis::stream_ref;
use crate::store::ShardStore;
use crate::stream::StreamMode;
use crate::update::StreamUpdate;

pub(super) const SHAPE: &[Field] = &[STREAM_ARN, STREAM_NAME, STREAM_ID, WARM_THROUGHPUT.required()];

pub(super) async fn run(store: &ShardStore, fields: Fields) -> Result<Fields, ApiError> {
    let stream = stream_ref::stream(store, &fields)?;
    if stream.mode == StreamMode::Provisioned {
        return Err(ApiError::validation(format!(
            "Stream {} is in PROVISIONED mode. WarmThroughputMiBps is supported for streams in ON_DEMAND mode.",
            stream.name
        )));
    }
    let mibps = warm(&fields).unwrap_or_default();
    change(store, &stream, StreamUpdate::WarmThroughput(mibps)).await?;
    Ok(Fields::new()
        .with("StreamARN", stream.arn.as_str())
        .with("StreamName", stream.name.as_str())
        .with("WarmThroughput", warm_throughput(mibps)))
}
