//! Where reading is to start: the five types of GetShardIterator and of SubscribeToShard's StartingPosition.

use super::error::ApiError;
use super::stream_ref::Stream;
use crate::access::{Position, ReadFrom, ShardAccess, ShardRef};
use crate::error::StoreError;
use crate::ids::ShardId;
use crate::sequence::SequenceNumber;
use crate::store::ShardStore;

/// The types.
pub(crate) const TYPES: &[&str] = &[
    "AFTER_SEQUENCE_NUMBER",
    "LATEST",
    "AT_TIMESTAMP",
    "AT_SEQUENCE_NUMBER",
    "TRIM_HORIZON",
];

/// What a request says about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StartingPoint<'a> {
    /// For messages.
    pub(crate) operation: &'static str,
    /// The name of the field with the sequence number, for messages.
    pub(crate) sequence_field: &'static str,
    pub(crate) kind: &'a str,
    pub(crate) sequence: Option<&'a str>,
    pub(crate) time_ms: Option<i64>,
}

/// The shard of a stream that a request names.
pub(crate) fn shard(store: &ShardStore, stream: &Stream, text: &str) -> Result<ShardId, ApiError> {
    let account = &store.options().account;
    let id: ShardId = text.parse().map_err(|_| {
        ApiError::not_found(format!(
            "Could not find shard {text} in stream {} under account {account}.",
            stream.name
        ))
    })?;
    if stream.shards().all(|shard| shard.id != id) {
        return Err(ApiError::not_found(format!(
            "Shard {id} in stream {} under account {account} does not exist",
            stream.name
        )));
    }
    Ok(id)
}

impl StartingPoint<'_> {
    /// The position in a shard.
    pub(crate) async fn resolve(self, store: &ShardStore, stream: &Stream, id: ShardId) -> Result<Position, ApiError> {
        let Self {
            operation,
            sequence_field: name,
            kind,
            sequence,
            time_ms,
        } = self;
        let place = format!(
            "used in {operation} on shard {id} in stream {} under account {}",
            stream.name,
            store.options().account
        );
        let parse = |text: &str| {
            let invalid = || ApiError::invalid_argument(format!("{name} {text} {place} is invalid."));
            text.parse::<SequenceNumber>().map_err(|_| invalid())
        };
        let from = match (kind, sequence) {
            ("AT_SEQUENCE_NUMBER", Some(text)) => ReadFrom::At(parse(text)?),
            ("AFTER_SEQUENCE_NUMBER", Some(text)) => ReadFrom::After(parse(text)?),
            ("TRIM_HORIZON", None) => ReadFrom::TrimHorizon,
            ("LATEST", None) => ReadFrom::Latest,
            ("AT_TIMESTAMP", None) => {
                let time = time_ms.ok_or_else(|| {
                    ApiError::invalid_argument(
                        "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request \
                         has no timestamp parameter.",
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
                let and = if sequence.is_some() { "also a" } else { "no" };
                return Err(ApiError::invalid_argument(format!(
                    "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and {name} or (2) TRIM_HORIZON \
                     or LATEST and no {name}. Request specified {kind} and {and} {name}."
                )));
            }
        };
        let shard = ShardRef::new(stream.name.clone(), id);
        ShardAccess::resolve(store, &shard, from)
            .await
            .map_err(|error| match (error, from) {
                (StoreError::ForeignPosition { .. }, ReadFrom::At(number) | ReadFrom::After(number)) => {
                    ApiError::invalid_argument(if number.shard_index != id.0 {
                        format!(
                            "Invalid {name}. It encodes {}, while it was used in a call to a shard with {id}",
                            ShardId(number.shard_index)
                        )
                    } else {
                        format!("{name} {number} {place} is invalid because it did not come from this stream.")
                    })
                }
                (other, _) => ApiError::of(other, &store.options().account),
            })
    }
}
