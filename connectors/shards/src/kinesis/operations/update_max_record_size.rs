//! UpdateMaxRecordSize: 1 to 10 MiB, for records that are put from now on.

use super::change;
use crate::kinesis::error::ApiError;
use crate::kinesis::item::Fields;
use crate::kinesis::shape::{Field, MAX_RECORD_SIZE, STREAM_ARN, STREAM_ID};
use crate::kinesis::stream_ref;
use crate::limits;
use crate::store::ShardStore;
use crate::update::StreamUpdate;

pub(super) const SHAPE: &[Field] = &[STREAM_ARN, STREAM_ID, MAX_RECORD_SIZE.required()];

pub(super) async fn run(store: &ShardStore, fields: Fields) -> Result<(), ApiError> {
    let stream = stream_ref::stream(store, &fields)?;
    let kib = fields
        .integer("MaxRecordSizeInKiB")
        .map_or(limits::RECORD_KIB, |kib| kib as u32);
    change(store, &stream, StreamUpdate::MaxRecordKib(kib)).await.map(drop)
}
