//! GetShardIterator: all five types.

use super::store_error;
use crate::access::{ReadFrom, ShardAccess, ShardRef};
use crate::error::StoreError;
use crate::ids::ShardId;
use crate::kinesis::error::ApiError;
use crate::kinesis::item::Fields;
use crate::kinesis::shape::{DRY_RUN, Field, Kind, Pattern, SHARD_ID, STREAM_ARN, STREAM_ID, STREAM_NAME};
use crate::kinesis::{stream_ref, token};
use crate::sequence::SequenceNumber;
use crate::store::ShardStore;

pub(super) const SHAPE: &[Field] = &[
    SHARD_ID.required(),
    Field::new("ShardIteratorType", Kind::Text).required().values(&[
        "AFTER_SEQUENCE_NUMBER",
        "LATEST",
        "AT_TIMESTAMP",
        "AT_SEQUENCE_NUMBER",
        "TRIM_HORIZON",
    ]),
    Field::new("StartingSequenceNumber", Kind::Text).pattern(Pattern::SequenceNumber),
    STREAM_NAME,
    Field::new("Timestamp", Kind::Timestamp),
    STREAM_ARN,
    STREAM_ID,
    DRY_RUN,
];

pub(super) async fn run(store: &ShardStore, fields: Fields) -> Result<Fields, ApiError> {
    let meta = stream_ref::stream(store, &fields)?.with_records(store)?;
    let account = &store.options().account;
    let text = fields.text("ShardId").unwrap_or_default();
    let id: ShardId = text.parse().map_err(|_| {
        ApiError::not_found(format!(
            "Could not find shard {text} in stream {} under account {account}.",
            meta.name
        ))
    })?;
    if meta.shards().all(|shard| shard.id != id) {
        return Err(ApiError::not_found(format!(
            "Shard {id} in stream {} under account {account} does not exist",
            meta.name
        )));
    }
    let place = format!(
        "used in GetShardIterator on shard {id} in stream {} under account {account}",
        meta.name
    );
    let kind = fields.text("ShardIteratorType").unwrap_or_default();
    let sequence = fields.text("StartingSequenceNumber");
    let parse = |text: &str| {
        let invalid = || ApiError::invalid_argument(format!("StartingSequenceNumber {text} {place} is invalid."));
        text.parse::<SequenceNumber>().map_err(|_| invalid())
    };
    let from = match (kind, sequence) {
        ("AT_SEQUENCE_NUMBER", Some(text)) => ReadFrom::At(parse(text)?),
        ("AFTER_SEQUENCE_NUMBER", Some(text)) => ReadFrom::After(parse(text)?),
        ("TRIM_HORIZON", None) => ReadFrom::TrimHorizon,
        ("LATEST", None) => ReadFrom::Latest,
        ("AT_TIMESTAMP", None) => {
            let time = fields.time("Timestamp").ok_or_else(|| {
                ApiError::invalid_argument(
                    "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has \
                     no timestamp parameter.",
                )
            })?;
            let now = store.now_ms();
            if time > now as i64 {
                return Err(ApiError::invalid_argument(format!(
                    "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. \
                     timestampInMillis: {time}, currentTimestampInMillis: {now}"
                )));
            }
            ReadFrom::AtTimestamp(time.max(0) as u64)
        }
        (kind, sequence) => {
            let and = if sequence.is_some() {
                "also a StartingSequenceNumber"
            } else {
                "no StartingSequenceNumber"
            };
            return Err(ApiError::invalid_argument(format!(
                "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or \
                 (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified {kind} and {and}."
            )));
        }
    };
    let shard = ShardRef::new(meta.name.clone(), id);
    let position = ShardAccess::resolve(store, &shard, from).await.map_err(|error| match (error, from) {
        (StoreError::ForeignPosition { .. }, ReadFrom::At(number) | ReadFrom::After(number)) => {
            ApiError::invalid_argument(if number.shard_index != id.0 {
                format!(
                    "Invalid StartingSequenceNumber. It encodes {}, while it was used in a call to a shard with {id}",
                    ShardId(number.shard_index)
                )
            } else {
                format!(
                    "StartingSequenceNumber {number} {place} is invalid because it did not come from this stream."
                )
            })
        }
        (other, _) => store_error(store)(other),
    })?;
    if fields.flag("DryRun") {
        return Err(ApiError::dry_run());
    }
    Ok(Fields::new().with("ShardIterator", token::iterator(store, position)))
}
