//! A store in memory and short ways to use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidemill_shards::env::{Environment, ManualClock, SeededEntropy, SimDisk};
use tidemill_shards::{
    CreateStream, Housekeeping, Position, PutEntry, PutReceipt, ReadFrom, ReadLimits, Record, ShardId, ShardRef,
    ShardStore, StoreError, StoreOptions, StreamName, Uuid,
};

/// The lineage and the decider of a job that never loses its checkpoints.
pub(crate) const LINEAGE: Uuid = Uuid([1; 16]);
pub(crate) const DECIDER: Uuid = Uuid([2; 16]);
pub(crate) const NOW_MS: u64 = 1_800_000_000_000;
/// Gives every store another seed: the uuids of segments must differ.
static OPENED: AtomicU64 = AtomicU64::new(1);
pub(crate) const ALL: ReadLimits = ReadLimits {
    records_max: usize::MAX,
    bytes_max: usize::MAX,
};

/// Small segments, and the same disk operations every time.
pub(crate) fn options() -> StoreOptions {
    StoreOptions {
        segment_bytes: 8 << 10,
        housekeeping: Housekeeping::Inline,
        ..StoreOptions::default()
    }
}

pub(crate) fn environment(disk: &SimDisk, clock: &ManualClock) -> Environment {
    Environment {
        disk: Arc::new(disk.clone()),
        clock: Arc::new(clock.clone()),
        entropy: Arc::new(SeededEntropy::new(OPENED.fetch_add(1, Ordering::SeqCst) << 32)),
    }
}

pub(crate) fn open(disk: &SimDisk) -> Result<ShardStore, StoreError> {
    ShardStore::open_in(environment(disk, &ManualClock::new(NOW_MS)), options())
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

pub(crate) fn name(text: &str) -> StreamName {
    StreamName::new(text).unwrap()
}

pub(crate) fn shard(stream: &str, id: u32) -> ShardRef {
    ShardRef::new(name(stream), ShardId(id))
}

pub(crate) fn entry(key: &str, data: impl Into<Vec<u8>>) -> PutEntry {
    PutEntry {
        partition_key: key.to_owned(),
        explicit_hash_key: None,
        data: data.into().into(),
    }
}

pub(crate) async fn create(store: &ShardStore, stream: &str, shards: u32) {
    store
        .create_stream(CreateStream::provisioned(name(stream), shards))
        .await
        .unwrap();
}

pub(crate) async fn put(store: &ShardStore, stream: &str, key: &str, data: impl Into<Vec<u8>>) -> PutReceipt {
    store
        .put_records(&name(stream), vec![entry(key, data)])
        .await
        .unwrap()
        .remove(0)
        .unwrap()
}

/// All records of a shard, read a few at a time.
pub(crate) fn read_all(store: &ShardStore, shard: &ShardRef) -> Result<Vec<Record>, StoreError> {
    let from = store.resolve(shard, ReadFrom::TrimHorizon)?;
    read_from(store, shard, from)
}

pub(crate) fn read_from(store: &ShardStore, shard: &ShardRef, mut from: Position) -> Result<Vec<Record>, StoreError> {
    let mut records = Vec::new();
    loop {
        let batch = store.read(
            shard,
            from,
            ReadLimits {
                records_max: 3,
                bytes_max: 1 << 20,
            },
        )?;
        if batch.records.is_empty() {
            assert_eq!(batch.millis_behind_latest, 0);
            return Ok(records);
        }
        from = batch.next;
        records.extend(batch.records);
    }
}

pub(crate) fn texts(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .map(|record| String::from_utf8(record.data.to_vec()).unwrap())
        .collect()
}
