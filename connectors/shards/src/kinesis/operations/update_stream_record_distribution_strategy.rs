//! UpdateStreamRecordDistributionStrategy: with AUTO records are spread evenly, and keys decide on nothing.

use super::{change, distribution};
use crate::kinesis::error::ApiError;
use crate::kinesis::item::Fields;
use crate::kinesis::shape::{DISTRIBUTION, Field, STREAM_ARN, STREAM_ID};
use crate::kinesis::stream_ref;
use crate::store::ShardStore;
use crate::update::StreamUpdate;

pub(super) const SHAPE: &[Field] = &[STREAM_ARN.required(), STREAM_ID, DISTRIBUTION.required()];

pub(super) async fn run(store: &ShardStore, fields: Fields) -> Result<(), ApiError> {
    let stream = stream_ref::stream(store, &fields)?;
    let strategy = distribution(&fields).unwrap_or_default();
    change(store, &stream, StreamUpdate::Distribution(strategy))
        .await
        .map(drop)
}
