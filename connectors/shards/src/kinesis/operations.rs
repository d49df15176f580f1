//! The operations. Each file has the shape of its request and a function that answers it.

mod create_stream;
mod delete_stream;
mod deregister_stream_consumer;
mod describe_stream;
mod describe_stream_consumer;
mod describe_stream_summary;
pub(super) mod get_records;
mod get_shard_iterator;
mod list_shards;
mod list_stream_consumers;
mod list_streams;
mod put_record;
mod put_records;
mod register_stream_consumer;
pub(super) mod subscribe_to_shard;

use bytes::Bytes;

use super::codec::Codec;
use super::error::ApiError;
use super::item::{Fields, Item};
use super::shape::Field;
use super::validate;
use crate::error::StoreError;
use crate::store::ShardStore;
use crate::stream::{ShardMeta, StreamMeta, StreamMode};

/// Operations that the service has and this release has not.
const NOT_YET: [&str; 42] = [
    "AcknowledgeDeadLetterQueueRecords",
    "AcknowledgeQueueRecords",
    "AddTagsToStream",
    "CreateChannel",
    "CreateQueue",
    "DecreaseStreamRetentionPeriod",
    "DeleteChannel",
    "DeleteQueue",
    "DeleteResourcePolicy",
    "DescribeAccountSettings",
    "DescribeChannel",
    "DescribeLimits",
    "DescribeQueue",
    "DisableEnhancedMonitoring",
    "EnableEnhancedMonitoring",
    "GetResourcePolicy",
    "IncreaseStreamRetentionPeriod",
    "ListChannels",
    "ListQueues",
    "ListTagsForResource",
    "ListTagsForStream",
    "MergeShards",
    "PutResourcePolicy",
    "ReceiveDeadLetterQueueRecords",
    "ReceiveQueueRecords",
    "RemoveTagsFromStream",
    "RestoreDeadLetterQueueRecords",
    "SplitShard",
    "StartStreamEncryption",
    "StopStreamEncryption",
    "TagResource",
    "UntagResource",
    "UpdateAccountSettings",
    "UpdateChannel",
    "UpdateDeadLetterQueueRecordsVisibility",
    "UpdateMaxRecordSize",
    "UpdateQueue",
    "UpdateQueueRecordsVisibility",
    "UpdateShardCount",
    "UpdateStreamMode",
    "UpdateStreamRecordDistributionStrategy",
    "UpdateStreamWarmThroughput",
];

/// Decodes, checks and answers a request. `None` is an answer without a body.
pub(crate) async fn run(
    store: &ShardStore,
    operation: &str,
    codec: Codec,
    body: &Bytes,
) -> Result<Option<Item>, ApiError> {
    let request = |shape| request(codec, body, shape);
    let answer = match operation {
        "CreateStream" => {
            create_stream::run(store, request(create_stream::SHAPE)?).await?;
            return Ok(None);
        }
        "DeleteStream" => {
            delete_stream::run(store, request(delete_stream::SHAPE)?).await?;
            return Ok(None);
        }
        "DeregisterStreamConsumer" => {
            deregister_stream_consumer::run(store, request(deregister_stream_consumer::SHAPE)?).await?;
            return Ok(None);
        }
        "DescribeStream" => describe_stream::run(store, &request(describe_stream::SHAPE)?)?,
        "DescribeStreamConsumer" => describe_stream_consumer::run(store, &request(describe_stream_consumer::SHAPE)?)?,
        "DescribeStreamSummary" => describe_stream_summary::run(store, &request(describe_stream_summary::SHAPE)?)?,
        "GetRecords" => get_records::run(store, request(get_records::SHAPE)?).await?,
        "GetShardIterator" => get_shard_iterator::run(store, request(get_shard_iterator::SHAPE)?).await?,
        "ListShards" => list_shards::run(store, &request(list_shards::SHAPE)?)?,
        "ListStreamConsumers" => list_stream_consumers::run(store, &request(list_stream_consumers::SHAPE)?)?,
        "ListStreams" => list_streams::run(store, &request(list_streams::SHAPE)?)?,
        "PutRecord" => put_record::run(store, request(put_record::SHAPE)?).await?,
        "PutRecords" => put_records::run(store, request(put_records::SHAPE)?).await?,
        "RegisterStreamConsumer" => {
            register_stream_consumer::run(store, request(register_stream_consumer::SHAPE)?).await?
        }
        other if NOT_YET.contains(&other) => {
            return Err(ApiError::unsupported(format!(
                "{other} is an operation of Kinesis that this release of Tidemill does not have yet."
            )));
        }
        _ => return Err(ApiError::bare("UnknownOperationException")),
    };
    Ok(Some(answer.into()))
}

/// Decodes and checks a request.
fn request(codec: Codec, body: &Bytes, shape: &'static [Field]) -> Result<Fields, ApiError> {
    let fields = codec.decode(body, shape)?;
    validate::request(&fields, shape)?;
    Ok(fields)
}

fn store_error(store: &ShardStore) -> impl Fn(StoreError) -> ApiError {
    let account = store.options().account.clone();
    move |error| ApiError::of(error, &account)
}

/// The number of entries of a page; the shape has checked that it is positive.
fn page(fields: &Fields, name: &str, default: usize, max: usize) -> usize {
    fields.integer(name).map_or(default, |limit| limit as usize).min(max)
}

fn mode_details(meta: &StreamMeta) -> Fields {
    Fields::new().with(
        "StreamMode",
        match meta.mode {
            StreamMode::Provisioned => "PROVISIONED",
            StreamMode::OnDemand => "ON_DEMAND",
        },
    )
}

fn monitoring() -> Item {
    Item::List(vec![Fields::new().with("ShardLevelMetrics", Vec::new()).into()])
}

fn hash_key_range(shard: &ShardMeta) -> Fields {
    Fields::new()
        .with("StartingHashKey", shard.hash_range.start.to_string())
        .with("EndingHashKey", shard.hash_range.end.to_string())
}

fn shard(shard: &ShardMeta) -> Item {
    let sequences = Fields::new()
        .with("StartingSequenceNumber", shard.starting_sequence().to_string())
        .with_some(
            "EndingSequenceNumber",
            shard.ending_sequence().map(|number| number.to_string()),
        );
    Fields::new()
        .with("ShardId", shard.id.to_string())
        .with_some("ParentShardId", shard.parent.map(|id| id.to_string()))
        .with_some("AdjacentParentShardId", shard.adjacent_parent.map(|id| id.to_string()))
        .with("HashKeyRange", hash_key_range(shard))
        .with("SequenceNumberRange", sequences)
        .into()
}
