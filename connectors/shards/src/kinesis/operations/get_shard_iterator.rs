//! GetShardIterator: all five types.

use crate::kinesis::error::ApiError;
use crate::kinesis::item::Fields;
use crate::kinesis::shape::{DRY_RUN, Field, Kind, Pattern, SHARD_ID, STREAM_ARN, STREAM_ID, STREAM_NAME};
use crate::kinesis::starting_point::{self, StartingPoint};
use crate::kinesis::{stream_ref, token};
use crate::store::ShardStore;

const SEQUENCE_NUMBER: &str = "StartingSequenceNumber";

pub(super) const SHAPE: &[Field] = &[
    SHARD_ID.required(),
    Field::new("ShardIteratorType", Kind::Text)
        .required()
        .values(starting_point::TYPES),
    Field::new(SEQUENCE_NUMBER, Kind::Text).pattern(Pattern::SequenceNumber),
    STREAM_NAME,
    Field::new("Timestamp", Kind::Timestamp),
    STREAM_ARN,
    STREAM_ID,
    DRY_RUN,
];

pub(super) async fn run(store: &ShardStore, fields: Fields) -> Result<Fields, ApiError> {
    let stream = stream_ref::stream(store, &fields)?.with_records(store)?;
    let id = starting_point::shard(store, &stream, fields.text("ShardId").unwrap_or_default())?;
    let from = StartingPoint {
        operation: "GetShardIterator",
        sequence_field: SEQUENCE_NUMBER,
        kind: fields.text("ShardIteratorType").unwrap_or_default(),
        sequence: fields.text(SEQUENCE_NUMBER),
        time_ms: fields.time("Timestamp"),
    };
    let position = from.resolve(store, &stream, id).await?;
    if fields.flag("DryRun") {
        return Err(ApiError::dry_run());
    }
    Ok(Fields::new().with("ShardIterator", token::iterator(store, position)))
}
