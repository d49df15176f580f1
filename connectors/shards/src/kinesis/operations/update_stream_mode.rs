//! UpdateStreamMode: provisioned or on-demand. The shards stay as they are.

use super::{change, mode, warm};
use crate::kinesis::error::ApiError;
use crate::kinesis::item::Fields;
use crate::kinesis::shape::{Field, STREAM_ARN, STREAM_ID, STREAM_MODE_DETAILS, WARM_THROUGHPUT};
use crate::kinesis::stream_ref;
use crate::store::ShardStore;
use crate::stream::StreamMode;
use crate::update::StreamUpdate;

pub(super) const SHAPE: &[Field] = &[
    STREAM_ARN.required(),
    STREAM_ID,
    STREAM_MODE_DETAILS.required(),
    WARM_THROUGHPUT,
];

pub(super) async fn run(store: &ShardStore, fields: Fields) -> Result<(), ApiError> {
    let stream = stream_ref::stream(store, &fields)?;
    let update = StreamUpdate::Mode {
        mode: mode(&fields).unwrap_or(StreamMode::Provisioned),
        warm_throughput_mibps: warm(&fields),
    };
    change(store, &stream, update).await.map(drop)
}
