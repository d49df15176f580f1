//! GetRecords: the next records of a shard, and the iterator behind them.

use super::{encryption_type, hash_key_range, page, store_error};
use crate::access::{ReadLimits, ShardAccess};
use crate::kinesis::error::ApiError;
use crate::kinesis::item::{Fields, Item};
use crate::kinesis::shape::{DRY_RUN, Field, Kind, STREAM_ARN, STREAM_ID};
use crate::kinesis::{stream_ref, token};
use crate::limits;
use crate::store::ShardStore;
use crate::stream::StreamMeta;

pub(super) const SHAPE: &[Field] = &[
    Field::new("Limit", Kind::Integer).range(1, limits::GET_RECORDS_MAX as i64),
    Field::new("ShardIterator", Kind::Text)
        .required()
        .range(1, limits::ITERATOR_CHARS_MAX as i64),
    STREAM_ARN,
    STREAM_ID,
    DRY_RUN,
];

pub(super) async fn run(store: &ShardStore, fields: Fields) -> Result<Fields, ApiError> {
    let position = token::open_iterator(store, fields.text("ShardIterator").unwrap_or_default())?;
    let Some(shard) = store.shard_of(position.shard) else {
        return Err(ApiError::not_found(format!(
            "The stream of this shard iterator does not exist under account {}.",
            store.options().account
        )));
    };
    if (fields.get("StreamARN").is_some() || fields.get("StreamId").is_some())
        && stream_ref::name(store, &fields)? != shard.stream
    {
        return Err(ApiError::invalid_argument(
            "StreamARN is not that of the shard iterator's stream.",
        ));
    }
    if fields.flag("DryRun") {
        return Err(ApiError::dry_run());
    }
    let limits = ReadLimits {
        records_max: page(&fields, "Limit", limits::GET_RECORDS_MAX, limits::GET_RECORDS_MAX),
        bytes_max: limits::GET_BYTES_MAX,
    };
    let batch = ShardAccess::read(store, &shard, position, limits)
        .await
        .map_err(store_error(store))?;
    // After the read, so that the children of a shard that has ended are there.
    let stream = stream_ref::named(store, &shard.stream)?;
    let encryption = encryption_type(&stream);
    let records = batch.records.iter().map(|record| {
        Fields::new()
            .with("SequenceNumber", record.sequence.to_string())
            .with("ApproximateArrivalTimestamp", Item::Time(record.arrival_ms as i64))
            .with("Data", Item::Blob(record.data.clone()))
            // A stream that spreads records by itself takes them without a key.
            .with_some(
                "PartitionKey",
                Some(record.partition_key()).filter(|key| !key.is_empty()),
            )
            .with("EncryptionType", encryption)
            .into()
    });
    let mut answer = Fields::new().with("Records", records.collect::<Vec<Item>>());
    if batch.at_end {
        // The end of a closed shard: no iterator, and its children, which exist by then.
        answer = answer.with("ChildShards", children(&stream, shard.shard));
    } else {
        answer = answer.with("NextShardIterator", token::iterator(store, batch.next));
    }
    Ok(answer.with("MillisBehindLatest", batch.millis_behind_latest as i64))
}

/// The shards that a closed shard was split or merged into.
pub(crate) fn children(meta: &StreamMeta, parent: crate::ids::ShardId) -> Vec<Item> {
    let of_parent =
        |shard: &&crate::stream::ShardMeta| shard.parent == Some(parent) || shard.adjacent_parent == Some(parent);
    let children = meta.shards.iter().filter(of_parent).map(|child| {
        let parents = child
            .parent
            .iter()
            .chain(&child.adjacent_parent)
            .map(|id| id.to_string().into());
        Fields::new()
            .with("ShardId", child.id.to_string())
            .with("ParentShards", parents.collect::<Vec<Item>>())
            .with("HashKeyRange", hash_key_range(child))
            .into()
    });
    children.collect()
}
