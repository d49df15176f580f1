//! Every limit of the crate, by name.
//!
//! Sizes of the Kinesis API are the service's own; the others bound memory: no queue, batch or cache grows without one
//! of these.

/// Size of a log segment unless [`crate::StoreOptions::segment_bytes`] says otherwise.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// Largest segment: offsets in a segment are 32 bits wide in the index.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Smallest segment that the options accept.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;

/// Appends that may wait for the log's writer; beyond it, callers wait.
pub const QUEUE_COMMANDS_MAX: usize = 16 << 10;
/// Bytes that may wait for the log's writer; beyond it, callers wait.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Bytes after which a group commit is closed, although more is queued.
pub const BATCH_BYTES_MAX: usize = 8 << 20;
/// Commands after which a group commit is closed, although more is queued.
pub const BATCH_COMMANDS_MAX: usize = 16 << 10;
/// Bytes of one append command; a larger request is cut into several.
pub const COMMAND_BYTES_MAX: usize = 4 << 20;
/// Milliseconds before the log asks a full disk for another segment again.
pub const ROOM_RETRY_MS: u64 = 1_000;
/// Milliseconds between two lines about requests that the log refuses.
pub const REFUSALS_TOLD_MS: u64 = 10_000;
/// Payload of one frame.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 32 << 20;
/// A frame of records is closed at this size, so that reading a few records does not read many.
pub const FRAME_SPLIT_BYTES: usize = 64 << 10;
/// Payload of one frame of a snapshot, which is cut into as many as it needs.
pub const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;
/// Neighbouring frames of one shard become one extent up to this size.
pub const EXTENT_MERGE_BYTES_MAX: u32 = 256 << 10;
/// Extents of one segment that lie closer than this are read with one call.
pub const READ_GAP_BYTES_MAX: u64 = 4 << 10;
/// Bytes that are read with one call.
pub const READ_SPAN_BYTES_MAX: u64 = 8 << 20;
/// Extents in one answer of `locate`.
pub const LOCATE_EXTENTS_MAX: usize = 16 << 10;
/// Segment files that a reader keeps open.
pub const READER_FILES_MAX: usize = 32;
/// How long a closed shard is remembered when its records have expired and it is not listed any more: whoever still has a
/// place in it is told of its end and its children.
pub const FORGET_SHARDS_AFTER_MS: u64 = 24 * 3_600_000;
/// Shards of a stream that are forgotten at a time.
pub const FORGET_SHARDS_MAX: usize = 10_000;
/// How often expired records are looked for.
pub const RETENTION_CHECK_MS: u64 = 60_000;
/// How long staged output that nobody publishes is kept: a week.
pub const STAGED_RETENTION_MS: u64 = 7 * 24 * 3_600_000;
/// How long a wall clock that jumped ahead is watched before records expire by it.
pub const CLOCK_CONFIRM_MS: u64 = 3_600_000;
/// How often the time that expiry trusts is written down while nothing else is.
pub const CLOCK_RECORD_MS: u64 = 10 * 60_000;
/// Segments that a bound of the disk use must leave room for: the active one, the one before, the next, and one of data.
pub const DISK_SEGMENTS_MIN: u64 = 4;
/// With a tier: how long records stay on the local disk at least, unless its bound is near.
pub const LOCAL_RETENTION_MS: u64 = 3_600_000;
/// Free segments that tiering keeps within the bound of the disk use.
pub const TIER_SEGMENTS_FREE: u64 = 2;
/// Objects that one change of the metadata names.
pub const TIER_CHANGE_OBJECTS_MAX: usize = 10_000;
/// Bytes of a range that is read from an object at least, if it has them.
pub const TIER_READ_BYTES_MIN: u64 = 1 << 20;
/// Bytes of objects that a reader keeps.
pub const TIER_CACHE_BYTES_MAX: usize = 64 << 20;
/// Runs in the directories that a reader keeps: 80 bytes each.
pub const TIER_CACHE_RUNS_MAX: usize = 200_000;
/// Bytes of an object's directory: a segment has no more runs than this.
pub const TIER_DIRECTORY_BYTES_MAX: u64 = 2 << 30;
/// Times that a read looks again for records whose segment was removed in between.
pub const RELOCATE_MAX: usize = 8;
/// Numbers of every shard that are left out after a recovery that had to cut a torn tail.
pub const COUNTER_SKIP: u64 = 1 << 20;

/// Largest counter of a sequence number; the last one marks the end of a closed shard.
pub const COUNTER_MAX: u64 = 0x7fff_ffff_ffff_fffe;
/// Shards in a store unless [`crate::StoreOptions::shards_max`] says otherwise.
pub const SHARDS_MAX: u32 = 20_000;
/// Shards that the store knows, closed ones among them, for each one that may be open.
pub const KNOWN_SHARDS_PER_OPEN_MAX: usize = 8;
/// Streams whose deletion came to its end that one change of the metadata removes with it.
pub const SWEEP_STREAMS_MAX: usize = 4;
/// Bytes that removing one of them takes in the log, at most.
pub const SWEEP_BYTES: usize = 512;
/// Shards of an on-demand stream when it is created.
pub const ON_DEMAND_SHARDS: u32 = 4;
/// Sinks whose last publish is remembered.
pub const PUBLICATIONS_MAX: usize = 100_000;
/// Lineages of a job that are remembered as over: a process of an earlier run, still alive, is refused for that many runs.
pub const RETIRED_LINEAGES_MAX: usize = 256;
/// Characters of a producer's id.
pub const PRODUCER_ID_CHARS_MAX: usize = 128;
/// Requests of a producer whose outcome is remembered.
pub const PRODUCER_REQUESTS_MAX: usize = 5;
/// Producers that are remembered of a stream.
pub const PRODUCERS_PER_STREAM_MAX: usize = 1_000;
/// Bytes that all that is remembered of producers may take: every snapshot of the metadata holds it.
pub const PRODUCERS_BYTES_MAX: usize = 8 << 20;
/// Bytes that a producer is counted with beside its id and its requests.
pub const PRODUCER_BYTES: usize = 160;
/// Different reasons for refused records that are remembered of a request.
pub const PRODUCER_REFUSALS_MAX: usize = 16;
/// Bytes of such a reason in the log.
pub const PRODUCER_REFUSAL_BYTES: usize = 640;
/// Bytes of a put of a producer in the log, which must be one piece.
pub const PRODUCER_PUT_BYTES_MAX: usize = 16 << 20;
/// Characters of a job's or a sink's name.
pub const SINK_NAME_CHARS_MAX: usize = 512;

/// Characters of a stream's name.
pub const STREAM_NAME_CHARS_MAX: usize = 128;
/// Characters of a partition key.
pub const PARTITION_KEY_CHARS_MAX: usize = 256;
/// KiB of a record (data and key) unless the stream says otherwise.
pub const RECORD_KIB: u32 = 1_024;
/// KiB of a record that a stream can ask for.
pub const RECORD_KIB_MAX: u32 = 10_240;
/// Hours that a stream keeps records, unless it says otherwise, and the fewest.
pub const RETENTION_HOURS: u32 = 24;
/// The most hours that a stream keeps records.
pub const RETENTION_HOURS_MAX: u32 = 8_760;

/// Records of one PutRecords.
pub const PUT_RECORDS_MAX: usize = 500;
/// Bytes of one PutRecords, data and keys.
pub const PUT_BYTES_MAX: usize = 10 << 20;
/// Records of one GetRecords.
pub const GET_RECORDS_MAX: usize = 10_000;
/// Bytes of one GetRecords.
pub const GET_BYTES_MAX: usize = 10 << 20;
/// Shards of one ListShards.
pub const LIST_SHARDS_MAX: usize = 1_000;
/// Shards of one DescribeStream, and streams of one ListStreams, unless the request names a limit.
pub const DESCRIBE_LIMIT: usize = 100;
/// Milliseconds after which a shard iterator or a NextToken is refused.
pub const TOKEN_LIFE_MS: u64 = 300_000;
/// Characters of a shard iterator.
pub const ITERATOR_CHARS_MAX: usize = 512;
/// Validation errors that one answer lists.
pub const VALIDATION_ERRORS_MAX: usize = 10;
/// Bytes of a request's body: 10 MiB of data in base64 with room for keys and names.
pub const BODY_BYTES_MAX: usize = 16 << 20;
/// Consumers of a stream.
pub const CONSUMERS_MAX: usize = 20;
/// Consumers of a stream that are being created.
pub const CONSUMERS_CREATING_MAX: usize = 5;
/// Consumers of one ListStreamConsumers, unless the request names a limit.
pub const LIST_CONSUMERS: usize = 100;
/// Subscriptions to shards at a time.
pub const SUBSCRIPTIONS_MAX: usize = 16 << 10;
/// Bytes of data and keys in one event of a subscription; one record is sent even when it is larger.
pub const EVENT_BYTES_MAX: usize = 1 << 20;
/// Records of one event of a subscription.
pub const EVENT_RECORDS_MAX: usize = 10_000;
/// Seconds after which a subscription ends.
pub const SUBSCRIPTION_LIFE_S: u64 = 300;
/// Seconds after which a subscription says that there is nothing new.
pub const SUBSCRIPTION_HEARTBEAT_S: u64 = 5;
/// Seconds in which a consumer cannot subscribe to the same shard again.
pub const SUBSCRIPTION_AGAIN_S: u64 = 5;
/// Tags of a stream.
pub const TAGS_MAX: usize = 50;
/// Items of a list, and entries of a map, that a decoder keeps: more than any operation allows, so that the check of the
/// list's length still fails. The rest is read over.
pub const LIST_ITEMS_KEPT: usize = 1_024;
/// Lists and maps in each other, and tags before a value, in a CBOR body.
pub const CBOR_DEPTH_MAX: usize = 128;
/// Characters of a tag's key.
pub const TAG_KEY_CHARS_MAX: usize = 128;
/// Characters of a tag's value.
pub const TAG_VALUE_CHARS_MAX: usize = 256;
/// Bytes of a resource policy.
pub const POLICY_BYTES_MAX: usize = 20 << 10;
/// Characters of the id of an encryption key.
pub const KEY_ID_CHARS_MAX: usize = 2_048;
/// Longest state that [`crate::StoreOptions::lifecycle_delay_ms`] lets a stream have.
pub const LIFECYCLE_DELAY_MS_MAX: u64 = 3_600_000;
/// How long on-demand billing that was asked for lasts at least: here it only decides on what is told.
pub const BILLING_COMMITMENT_MS: u64 = 86_400_000;

/// Records that a shard with enforced capacity takes in per second.
pub const SHARD_WRITE_RECORDS: u64 = 1_000;
/// Bytes, data and keys, that a shard with enforced capacity takes in per second.
pub const SHARD_WRITE_BYTES: u64 = 1 << 20;
/// Calls of GetRecords that a shard with enforced capacity answers per second.
pub const SHARD_READ_CALLS: u64 = 5;
/// Bytes that GetRecords gives out per shard and second with enforced capacity; each consumer with enhanced fan-out has
/// as much for itself.
pub const SHARD_READ_BYTES: u64 = 2 << 20;
/// Minutes of load that are remembered of a shard with enforced capacity.
pub const LOAD_MINUTES_MAX: usize = 24 * 60;
/// How far back the peak is looked for that an on-demand stream is split by.
pub const SCALING_RECENT_MS: u64 = 15 * 60_000;
/// How far back the peak is looked for that an on-demand stream is merged by.
pub const SCALING_LONGEST_MS: u64 = 24 * 3_600_000;
