//! IncreaseStreamRetentionPeriod and DecreaseStreamRetentionPeriod: 24 to 8,760 hours, for all records at once.

use super::change;
use crate::kinesis::error::ApiError;
use crate::kinesis::item::Fields;
use crate::kinesis::shape::{Field, Kind, STREAM_ARN, STREAM_ID, STREAM_NAME};
use crate::kinesis::stream_ref;
use crate::store::ShardStore;
use crate::update::StreamUpdate;

pub(super) const SHAPE: &[Field] = &[
    STREAM_NAME,
    Field::new("RetentionPeriodHours", Kind::Integer).required(),
    STREAM_ARN,
    STREAM_ID,
];

pub(super) async fn increase(store: &ShardStore, fields: Fields) -> Result<(), ApiError> {
    let stream = stream_ref::stream(store, &fields)?;
    change(store, &stream, StreamUpdate::IncreaseRetention(hours(&fields)))
        .await
        .map(drop)
}

pub(super) async fn decrease(store: &ShardStore, fields: Fields) -> Result<(), ApiError> {
    let stream = stream_ref::stream(store, &fields)?;
    change(store, &stream, StreamUpdate::DecreaseRetention(hours(&fields)))
        .await
        .map(drop)
}

/// A number below zero is as much too short as zero.
fn hours(fields: &Fields) -> u32 {
    fields
        .integer("RetentionPeriodHours")
        .and_then(|hours| u32::try_from(hours).ok())
        .unwrap_or(0)
}
