//! ListShards: a page of a stream's shards, filtered by when they were open.

use super::describe_stream::exclusive_start;
use super::{page, shard};
use crate::ids::ShardId;
use crate::kinesis::error::ApiError;
use crate::kinesis::item::{Fields, Item};
use crate::kinesis::shape::{
    EXCLUSIVE_START_SHARD_ID, Field, Kind, NEXT_TOKEN, SHARD_ID, STREAM_ARN, STREAM_ID, STREAM_NAME,
};
use crate::kinesis::stream_ref::{self, Stream};
use crate::kinesis::token::{self, NextToken, ShardFilter};
use crate::limits;
use crate::store::ShardStore;
use crate::stream::ShardMeta;

const FILTERS: &[&str] = &[
    "AFTER_SHARD_ID",
    "AT_TRIM_HORIZON",
    "FROM_TRIM_HORIZON",
    "AT_LATEST",
    "AT_TIMESTAMP",
    "FROM_TIMESTAMP",
];

pub(super) const SHAPE: &[Field] = &[
    EXCLUSIVE_START_SHARD_ID,
    Field::new("MaxResults", Kind::Integer).range(1, 10_000),
    NEXT_TOKEN,
    Field::new(
        "ShardFilter",
        Kind::Structure(&[
            Field::new("Type", Kind::Text).required().values(FILTERS),
            SHARD_ID,
            Field::new("Timestamp", Kind::Timestamp),
        ]),
    ),
    Field::new("StreamCreationTimestamp", Kind::Timestamp),
    STREAM_NAME,
    STREAM_ARN,
    STREAM_ID,
];

pub(super) fn run(store: &ShardStore, fields: &Fields) -> Result<Fields, ApiError> {
    let (stream, after, filter) = match fields.text("NextToken") {
        Some(text) => from_token(store, fields, text)?,
        None => from_request(store, fields)?,
    };
    let limit = page(fields, "MaxResults", limits::LIST_SHARDS_MAX, limits::LIST_SHARDS_MAX);
    let mut rest = stream
        .shards()
        .filter(|shard| after.is_none_or(|after| shard.id > after))
        .filter(|shard| matches(shard, filter));
    let listed: Vec<&ShardMeta> = rest.by_ref().take(limit).collect();
    let token = listed.last().filter(|_| rest.next().is_some()).map(|last| {
        let token = NextToken::Shards {
            stream: stream.name.clone(),
            id: stream.id,
            after: last.id,
            filter,
        };
        token::next_token(store, &token)
    });
    Ok(Fields::new()
        .with("Shards", listed.into_iter().map(shard).collect::<Vec<Item>>())
        .with_some("NextToken", token))
}

fn from_token(
    store: &ShardStore,
    fields: &Fields,
    text: &str,
) -> Result<(Stream, Option<ShardId>, ShardFilter), ApiError> {
    for other in [
        "StreamName",
        "StreamARN",
        "StreamId",
        "ExclusiveStartShardId",
        "StreamCreationTimestamp",
        "ShardFilter",
    ] {
        if fields.get(other).is_some() {
            return Err(ApiError::invalid_argument(format!(
                "NextToken and {other} cannot be provided together."
            )));
        }
    }
    let NextToken::Shards {
        stream,
        id,
        after,
        filter,
    } = token::open_next_token(store, text)?
    else {
        return Err(ApiError::invalid_argument("NextToken is not valid."));
    };
    let meta = stream_ref::named(store, &stream)?.settled(store)?;
    if meta.id != id {
        return Err(ApiError::invalid_argument(
            "NextToken is not valid: its stream was deleted.",
        ));
    }
    Ok((meta, Some(after), filter))
}

fn from_request(store: &ShardStore, fields: &Fields) -> Result<(Stream, Option<ShardId>, ShardFilter), ApiError> {
    let meta = stream_ref::stream(store, fields)?.settled(store)?;
    if let Some(created) = fields.time("StreamCreationTimestamp")
        && created / 1000 != meta.created_ms as i64 / 1000
    {
        return Err(ApiError::not_found(format!(
            "Stream {} under account {} with that StreamCreationTimestamp not found.",
            meta.name,
            store.options().account
        )));
    }
    let after = exclusive_start(fields)?;
    let Some(filter) = fields.structure("ShardFilter") else {
        return Ok((meta, after, ShardFilter::All));
    };
    let kind = filter.text("Type").unwrap_or_default();
    let (wants_shard, wants_time) = (kind == "AFTER_SHARD_ID", kind.ends_with("_TIMESTAMP"));
    for (name, wanted) in [("ShardId", wants_shard), ("Timestamp", wants_time)] {
        if filter.get(name).is_some() != wanted {
            let must = if wanted { "must" } else { "must not" };
            return Err(ApiError::invalid_argument(format!(
                "{name} {must} be provided in a ShardFilter of type {kind}."
            )));
        }
    }
    let now = store.now_ms();
    let horizon = meta.trim_horizon_ms(store.trusted_ms()).max(meta.created_ms);
    let timestamp = filter.time("Timestamp").map_or(0, |ms| ms.max(0) as u64);
    if timestamp > now {
        return Err(ApiError::invalid_argument(format!(
            "The Timestamp of the ShardFilter cannot be in the future: {timestamp} is later than {now}."
        )));
    }
    let filter = match kind {
        "AFTER_SHARD_ID" => {
            if after.is_some() {
                return Err(ApiError::invalid_argument(
                    "ExclusiveStartShardId and a ShardFilter of type AFTER_SHARD_ID cannot be provided together.",
                ));
            }
            let shard = filter.text("ShardId").unwrap_or_default();
            let after = shard.parse().map_err(|_| {
                ApiError::invalid_argument(format!("ShardId {shard} of the ShardFilter is not the id of a shard."))
            })?;
            return Ok((meta, Some(after), ShardFilter::All));
        }
        "AT_TRIM_HORIZON" => ShardFilter::At(horizon),
        "FROM_TRIM_HORIZON" => ShardFilter::From(horizon),
        "AT_LATEST" => ShardFilter::Open,
        "AT_TIMESTAMP" => ShardFilter::At(timestamp.max(horizon)),
        _ => ShardFilter::From(timestamp.max(horizon)),
    };
    Ok((meta, after, filter))
}

fn matches(shard: &ShardMeta, filter: ShardFilter) -> bool {
    let open_until = |time: u64| shard.closed_ms.is_none_or(|closed| closed >= time);
    match filter {
        ShardFilter::All => true,
        ShardFilter::At(time) => shard.created_ms <= time && open_until(time),
        ShardFilter::From(time) => open_until(time),
        ShardFilter::Open => shard.is_open(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hashkey::HashRange;
    use crate::ids::ShardKey;

    #[test]
    fn filters_look_at_when_a_shard_was_open() {
        let hash_range = HashRange::tiles(1).next().unwrap();
        let shard = |created_ms, closed_ms| ShardMeta {
            key: ShardKey(1),
            id: ShardId(0),
            hash_range,
            created_ms,
            parent: None,
            adjacent_parent: None,
            closed_ms,
            sequence_created_s: None,
        };
        let (parent, child) = (shard(10, Some(20)), shard(20, None));
        let both = |filter| (matches(&parent, filter), matches(&child, filter));
        assert_eq!(both(ShardFilter::All), (true, true));
        assert_eq!(both(ShardFilter::At(15)), (true, false));
        assert_eq!(both(ShardFilter::At(21)), (false, true));
        assert_eq!(both(ShardFilter::From(15)), (true, true));
        assert_eq!(both(ShardFilter::From(21)), (false, true));
        assert_eq!(both(ShardFilter::Open), (false, true));
    }
}
