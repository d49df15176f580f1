//! The operations. Each file has the shapes of its requests and functions that answer them; what belongs together, as
//! adding and removing tags, shares a file.

mod account_settings;
mod create_stream;
mod delete_stream;
mod deregister_stream_consumer;
mod describe_limits;
mod describe_stream;
mod describe_stream_consumer;
mod describe_stream_summary;
mod enhanced_monitoring;
pub(super) mod get_records;
mod get_shard_iterator;
mod list_shards;
mod list_stream_consumers;
mod list_streams;
mod merge_shards;
mod put_record;
mod put_records;
mod register_stream_consumer;
mod resource;
mod retention_period;
mod split_shard;
mod stream_encryption;
mod stream_tags;
pub(super) mod subscribe_to_shard;
mod update_max_record_size;
mod update_shard_count;
mod update_stream_mode;
mod update_stream_record_distribution_strategy;
mod update_stream_warm_throughput;

use bytes::Bytes;

use super::codec::Codec;
use super::error::ApiError;
use super::item::{Fields, Item};
use super::producer::Numbering;
use super::shape::Field;
use super::stream_ref::Stream;
use super::validate;
use crate::error::StoreError;
use crate::ids::ShardId;
use crate::store::ShardStore;
use crate::stream::{RecordDistribution, ShardMeta, ShardMetric, StreamMeta, StreamMode};
use crate::update::{StreamUpdate, StreamUpdated};

/// Operations that the service has and this release has not.
const NOT_YET: [&str; 17] = [
    "AcknowledgeDeadLetterQueueRecords",
    "AcknowledgeQueueRecords",
    "CreateChannel",
    "CreateQueue",
    "DeleteChannel",
    "DeleteQueue",
    "DescribeChannel",
    "DescribeQueue",
    "ListChannels",
    "ListQueues",
    "ReceiveDeadLetterQueueRecords",
    "ReceiveQueueRecords",
    "RestoreDeadLetterQueueRecords",
    "UpdateChannel",
    "UpdateDeadLetterQueueRecordsVisibility",
    "UpdateQueue",
    "UpdateQueueRecordsVisibility",
];

/// Decodes, checks and answers a request. `None` is an answer without a body.
pub(super) async fn run(
    store: &ShardStore,
    operation: &str,
    codec: Codec,
    body: &Bytes,
    numbering: &mut Numbering,
) -> Result<Option<Item>, ApiError> {
    let request = |shape| request(codec, body, shape);
    if let Some(done) = without_answer(store, operation, &request).await {
        return done.map(|()| None);
    }
    let answer = match operation {
        "DescribeStream" => describe_stream::run(store, &request(describe_stream::SHAPE)?)?,
        "DescribeStreamConsumer" => describe_stream_consumer::run(store, &request(describe_stream_consumer::SHAPE)?)?,
        "DescribeStreamSummary" => describe_stream_summary::run(store, &request(describe_stream_summary::SHAPE)?)?,
        "GetRecords" => get_records::run(store, request(get_records::SHAPE)?).await?,
        "GetShardIterator" => get_shard_iterator::run(store, request(get_shard_iterator::SHAPE)?).await?,
        "ListShards" => list_shards::run(store, &request(list_shards::SHAPE)?)?,
        "ListStreamConsumers" => list_stream_consumers::run(store, &request(list_stream_consumers::SHAPE)?)?,
        "ListStreams" => list_streams::run(store, &request(list_streams::SHAPE)?)?,
        "PutRecord" => put_record::run(store, request(put_record::SHAPE)?, numbering).await?,
        "PutRecords" => put_records::run(store, request(put_records::SHAPE)?, numbering).await?,
        "RegisterStreamConsumer" => {
            register_stream_consumer::run(store, request(register_stream_consumer::SHAPE)?).await?
        }
        "DescribeAccountSettings" => {
            request(account_settings::DESCRIBE)?;
            account_settings::describe(store)
        }
        "DescribeLimits" => {
            request(describe_limits::SHAPE)?;
            describe_limits::run(store)
        }
        "DisableEnhancedMonitoring" => {
            enhanced_monitoring::disable(store, request(enhanced_monitoring::SHAPE)?).await?
        }
        "EnableEnhancedMonitoring" => enhanced_monitoring::enable(store, request(enhanced_monitoring::SHAPE)?).await?,
        "GetResourcePolicy" => resource::get_policy(store, &request(resource::NAMED)?)?,
        "ListTagsForResource" => resource::list_tags(store, &request(resource::NAMED)?)?,
        "ListTagsForStream" => stream_tags::list(store, &request(stream_tags::LIST)?)?,
        "UpdateAccountSettings" => account_settings::update(store, request(account_settings::UPDATE)?).await?,
        "UpdateShardCount" => update_shard_count::run(store, request(update_shard_count::SHAPE)?).await?,
        "UpdateStreamWarmThroughput" => {
            update_stream_warm_throughput::run(store, request(update_stream_warm_throughput::SHAPE)?).await?
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

/// Operations whose answer has no body.
async fn without_answer(
    store: &ShardStore,
    operation: &str,
    request: &impl Fn(&'static [Field]) -> Result<Fields, ApiError>,
) -> Option<Result<(), ApiError>> {
    let answer = async {
        match operation {
            "AddTagsToStream" => stream_tags::add(store, request(stream_tags::ADD)?).await?,
            "CreateStream" => create_stream::run(store, request(create_stream::SHAPE)?).await?,
            "DecreaseStreamRetentionPeriod" => {
                retention_period::decrease(store, request(retention_period::SHAPE)?).await?
            }
            "DeleteResourcePolicy" => resource::delete_policy(store, request(resource::NAMED)?).await?,
            "DeleteStream" => delete_stream::run(store, request(delete_stream::SHAPE)?).await?,
            "DeregisterStreamConsumer" => {
                deregister_stream_consumer::run(store, request(deregister_stream_consumer::SHAPE)?).await?
            }
            "IncreaseStreamRetentionPeriod" => {
                retention_period::increase(store, request(retention_period::SHAPE)?).await?
            }
            "MergeShards" => merge_shards::run(store, request(merge_shards::SHAPE)?).await?,
            "PutResourcePolicy" => resource::put_policy(store, request(resource::PUT_POLICY)?).await?,
            "RemoveTagsFromStream" => stream_tags::remove(store, request(stream_tags::REMOVE)?).await?,
            "SplitShard" => split_shard::run(store, request(split_shard::SHAPE)?).await?,
            "StartStreamEncryption" => stream_encryption::start(store, request(stream_encryption::SHAPE)?).await?,
            "StopStreamEncryption" => stream_encryption::stop(store, request(stream_encryption::SHAPE)?).await?,
            "TagResource" => resource::tag(store, request(resource::TAG)?).await?,
            "UntagResource" => resource::untag(store, request(resource::UNTAG)?).await?,
            "UpdateMaxRecordSize" => {
                update_max_record_size::run(store, request(update_max_record_size::SHAPE)?).await?
            }
            "UpdateStreamMode" => update_stream_mode::run(store, request(update_stream_mode::SHAPE)?).await?,
            "UpdateStreamRecordDistributionStrategy" => {
                update_stream_record_distribution_strategy::run(
                    store,
                    request(update_stream_record_distribution_strategy::SHAPE)?,
                )
                .await?
            }
            _ => return Ok(false),
        }
        Ok(true)
    };
    match answer.await {
        Ok(false) => None,
        Ok(true) => Some(Ok(())),
        Err(error) => Some(Err(error)),
    }
}

/// Changes a stream.
async fn change(store: &ShardStore, stream: &StreamMeta, update: StreamUpdate) -> Result<StreamUpdated, ApiError> {
    store
        .update_stream(&stream.name, update)
        .await
        .map_err(store_error(store))
}

/// Refuses what users cannot do to streams whose shards the store looks after.
fn provisioned(stream: &StreamMeta) -> Result<(), ApiError> {
    if stream.mode == StreamMode::OnDemand {
        return Err(ApiError::validation(format!(
            "Request is invalid. Stream {} is in ON_DEMAND mode; this operation is supported for streams in PROVISIONED \
             mode.",
            stream.name
        )));
    }
    Ok(())
}

/// The id of a shard that is told.
fn shard_id(store: &ShardStore, stream: &Stream, text: &str) -> Result<ShardId, ApiError> {
    text.parse()
        .ok()
        .filter(|id| stream.shards().any(|shard| shard.id == *id))
        .ok_or_else(|| {
            ApiError::not_found(format!(
                "Could not find shard {text} in stream {} under account {}.",
                stream.name,
                store.options().account
            ))
        })
}

fn store_error(store: &ShardStore) -> impl Fn(StoreError) -> ApiError {
    let (account, region) = (store.options().account.clone(), store.options().region.clone());
    move |error| match error {
        StoreError::ShardLimit {
            current,
            limit,
            requested,
        } => ApiError::limit(format!(
            "This request would exceed the shard limit for the account {account} in {region}. Current shard count for \
             the account: {current}. Limit: {limit}. Number of additional shards that would have resulted from this \
             request: {requested}. Refer to the AWS Service Limits page \
             (http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for current limits and how to \
             request higher limits."
        )),
        other => ApiError::of(other, &account),
    }
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

/// The mode that a request asks for.
fn mode(fields: &Fields) -> Option<StreamMode> {
    match fields.structure("StreamModeDetails")?.text("StreamMode")? {
        "ON_DEMAND" => Some(StreamMode::OnDemand),
        _ => Some(StreamMode::Provisioned),
    }
}

/// The strategy that a request asks for.
fn distribution(fields: &Fields) -> Option<RecordDistribution> {
    match fields.text("RecordDistributionStrategy")? {
        "AUTO" => Some(RecordDistribution::Auto),
        _ => Some(RecordDistribution::UserPartitionKey),
    }
}

/// The throughput that a request asks for in advance.
fn warm(fields: &Fields) -> Option<u32> {
    fields.integer("WarmThroughputMiBps").map(|mibps| mibps as u32)
}

/// It is there at once.
fn warm_throughput(mibps: u32) -> Fields {
    Fields::new()
        .with("TargetMiBps", i64::from(mibps))
        .with("CurrentMiBps", i64::from(mibps))
}

pub(super) fn encryption_type(meta: &StreamMeta) -> &'static str {
    if meta.encryption_key.is_some() { "KMS" } else { "NONE" }
}

fn monitoring(meta: &StreamMeta) -> Item {
    let metrics = Fields::new().with("ShardLevelMetrics", metric_names(&meta.metrics));
    Item::List(vec![metrics.into()])
}

fn metric_names(metrics: &[ShardMetric]) -> Vec<Item> {
    metrics.iter().map(|metric| metric.as_str().into()).collect()
}

fn tag_list<'a>(tags: impl IntoIterator<Item = &'a (String, String)>) -> Vec<Item> {
    let tag = |(key, value): &(String, String)| {
        Fields::new()
            .with("Key", key.as_str())
            .with("Value", value.as_str())
            .into()
    };
    tags.into_iter().map(tag).collect()
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
