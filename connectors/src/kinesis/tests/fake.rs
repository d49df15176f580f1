//! A shard store in memory that can split, merge and expire shards.

use super::resharding::Stream;
use super::*;
use async_trait::async_trait;
use std::sync::Mutex;
use tidemill_shards::{
    DurablePosition, HashKey, HashRange, Located, PublishOutcome, PublishRequest, PutResult, ReadBatch, Record,
    SequenceNumber, ShardId, ShardKey, ShardMeta, StageRequest, StagedRef, StoreError, StreamMeta, Uuid,
};
use tokio::sync::watch;

/// The store. Its only stream is `clicks`.
pub(super) struct FakeStore {
    state: Mutex<State>,
    durable: watch::Sender<DurablePosition>,
}

struct State {
    stream: StreamMeta,
    /// By shard id, also of shards that expired.
    records: Vec<Vec<Record>>,
    next_id: usize,
    trim_before_ms: u64,
}

impl FakeStore {
    /// Makes a stream whose shards have keys from `first_key`.
    pub(super) fn new(shards: u32, first_key: u64) -> Arc<Self> {
        let shards: Vec<ShardMeta> = HashRange::tiles(shards)
            .zip(0..)
            .map(|(range, id)| shard(id, first_key, range, None, None))
            .collect();
        Arc::new(Self {
            durable: watch::channel(DurablePosition(0)).0,
            state: Mutex::new(State {
                records: shards.iter().map(|_| Vec::new()).collect(),
                stream: StreamMeta {
                    name: name(),
                    id: Uuid([0; 16]),
                    arn: "arn:aws:kinesis:us-east-1:000000000000:stream/clicks".to_owned(),
                    created_ms: 1,
                    mode: tidemill_shards::StreamMode::Provisioned,
                    retention_hours: 24,
                    record_kib_max: 1_024,
                    shards,
                    tags: Vec::new(),
                    transition: None,
                    distribution: tidemill_shards::RecordDistribution::UserPartitionKey,
                    metrics: Vec::new(),
                    encryption_key: None,
                    policy: None,
                    warm_throughput_mibps: None,
                },
                next_id: 0,
                trim_before_ms: 0,
            }),
        })
    }

    fn changed(&self) {
        self.durable.send_modify(|position| position.0 += 1);
    }

    /// Stores a record.
    pub(super) fn put_data(&self, key: &str, data: Vec<u8>) {
        let mut state = self.state.lock().unwrap();
        let shard = state.stream.route(HashKey::of(key)).unwrap().clone();
        let records = &mut state.records[shard.id.0 as usize];
        let counter = records.len() as u64 + 1;
        records.push(Record {
            sequence: shard.sequence(counter, counter * 1_000),
            arrival_ms: counter * 1_000,
            partition_key: key.to_owned().into(),
            explicit_hash_key: None,
            data: data.into(),
        });
        drop(state);
        self.changed();
    }

    /// Returns the sequence number of a shard's record.
    pub(super) fn sequence(&self, shard: u32, record: usize) -> SequenceNumber {
        self.state.lock().unwrap().records[shard as usize][record].sequence
    }

    /// Returns how many records a shard has had.
    pub(super) fn records_of(&self, shard: u32) -> usize {
        self.state.lock().unwrap().records[shard as usize].len()
    }

    fn child(&self, range: HashRange, parent: u32, adjacent: Option<u32>) {
        let mut state = self.state.lock().unwrap();
        let id = u32::try_from(state.records.len()).unwrap();
        for parent in [Some(parent), adjacent].into_iter().flatten() {
            let parent = state.stream.shards.iter_mut().find(|shard| shard.id.0 == parent);
            parent.unwrap().closed_ms = Some(1);
        }
        let first_key = state.stream.shards[0].key.0 - u64::from(state.stream.shards[0].id.0);
        let child = shard(id, first_key, range, Some(parent), adjacent);
        state.stream.shards.push(child);
        state.records.push(Vec::new());
    }

    fn range(&self, shard: u32) -> HashRange {
        self.state
            .lock()
            .unwrap()
            .stream
            .shard(ShardId(shard))
            .unwrap()
            .hash_range
    }

    /// Lets the first records of every shard expire. The record n of a shard, from 1, arrives at n seconds.
    pub(super) fn expire_records(&self, seconds: u64) {
        self.state.lock().unwrap().trim_before_ms = seconds * 1_000 + 1;
        self.changed();
    }

    /// Lets a shard expire.
    pub(super) fn expire(&self, shard: u32) -> Option<ShardMeta> {
        let mut state = self.state.lock().unwrap();
        let at = state.stream.shards.iter().position(|s| s.id.0 == shard)?;
        let expired = state.stream.shards.remove(at);
        drop(state);
        self.changed();
        Some(expired)
    }

    /// Takes back that a shard has expired.
    pub(super) fn bring_back(&self, shard: Option<ShardMeta>) {
        let mut state = self.state.lock().unwrap();
        state.stream.shards.extend(shard);
        state.stream.shards.sort_by_key(|shard| shard.id);
        drop(state);
        self.changed();
    }
}

impl Stream for Arc<FakeStore> {
    fn put_row(&self, key: &str) {
        let id = {
            let mut state = self.state.lock().unwrap();
            state.next_id += 1;
            state.next_id - 1
        };
        self.put_data(key, format!(r#"{{"id":{id},"name":"{key}"}}"#).into_bytes());
    }

    fn rows(&self) -> usize {
        self.state.lock().unwrap().next_id
    }

    fn open_shards(&self) -> Vec<u32> {
        let state = self.state.lock().unwrap();
        let open = state.stream.shards.iter().filter(|shard| shard.closed_ms.is_none());
        open.map(|shard| shard.id.0).collect()
    }

    fn split(&self, parent: u32) {
        let HashRange { start, end } = self.range(parent);
        let middle = HashKey(start.0 + (end.0 - start.0) / 2);
        self.child(HashRange { start, end: middle }, parent, None);
        self.child(
            HashRange {
                start: HashKey(middle.0 + 1),
                end,
            },
            parent,
            None,
        );
        self.changed();
    }

    fn merge(&self, left: u32, right: u32) -> bool {
        let (low, high) = (self.range(left), self.range(right));
        if low.end.0.checked_add(1) != Some(high.start.0) {
            return false;
        }
        self.child(
            HashRange {
                start: low.start,
                end: high.end,
            },
            left,
            Some(right),
        );
        self.changed();
        true
    }

    fn source(&self, options: &[(&str, &str)]) -> Arc<dyn Source> {
        let shards: Arc<dyn ShardAccess> = Arc::clone(self) as _;
        let environment = ConnectorEnvironment::new().with_shards(shards);
        crate::create_source(&table(schema(), options), &[0, 1], &environment).unwrap()
    }
}

fn shard(id: u32, first_key: u64, hash_range: HashRange, parent: Option<u32>, adjacent: Option<u32>) -> ShardMeta {
    ShardMeta {
        key: ShardKey(first_key + u64::from(id)),
        id: ShardId(id),
        hash_range,
        created_ms: 1_000_000,
        parent: parent.map(ShardId),
        adjacent_parent: adjacent.map(ShardId),
        closed_ms: None,
        sequence_created_s: None,
    }
}

fn not_asked_for<T>() -> Result<T, StoreError> {
    Err(StoreError::Invalid("a source does not ask for this".to_owned()))
}

#[async_trait]
impl ShardAccess for FakeStore {
    async fn create_stream(&self, _request: CreateStream) -> Result<StreamMeta, StoreError> {
        not_asked_for()
    }

    async fn describe_stream(&self, _stream: &StreamName) -> Result<StreamMeta, StoreError> {
        Ok(self.state.lock().unwrap().stream.clone())
    }

    async fn resolve(&self, shard: &ShardRef, from: ReadFrom) -> Result<Position, StoreError> {
        let state = self.state.lock().unwrap();
        let meta = found(&state, shard)?;
        let records = &state.records[shard.shard.0 as usize];
        let counter = match from {
            ReadFrom::TrimHorizon => 0,
            ReadFrom::Latest => records.len() as u64 + 1,
            ReadFrom::AtTimestamp(ms) => records.iter().filter(|record| record.arrival_ms < ms).count() as u64 + 1,
            ReadFrom::At(sequence) => sequence.counter,
            ReadFrom::After(sequence) => sequence.counter + 1,
        };
        Ok(Position {
            shard: meta.key,
            counter,
        })
    }

    async fn locate(&self, shard: &ShardRef, from: Position, _: ReadLimits) -> Result<Located, StoreError> {
        let latest = self.resolve(shard, ReadFrom::Latest).await?;
        let state = self.state.lock().unwrap();
        let meta = found(&state, shard)?;
        Ok(Located {
            stream: shard.stream.clone(),
            from,
            extents: Vec::new(),
            latest,
            trim_before_ms: state.trim_before_ms,
            expired: false,
            closed: meta.closed_ms.is_some(),
            now_ms: 0,
            shard: meta.clone(),
        })
    }

    async fn read(&self, shard: &ShardRef, from: Position, _limits: ReadLimits) -> Result<ReadBatch, StoreError> {
        let state = self.state.lock().unwrap();
        let meta = found(&state, shard)?;
        assert_eq!(meta.key, from.shard);
        let all = &state.records[shard.shard.0 as usize];
        // A few at a time, so that ends of fetches are everywhere.
        let records: Vec<Record> = all
            .iter()
            .filter(|record| record.sequence.counter >= from.counter && record.arrival_ms >= state.trim_before_ms)
            .take(3)
            .cloned()
            .collect();
        let latest = all.len() as u64 + 1;
        let next = records.last().map_or(latest, |record| record.sequence.counter + 1);
        let begins = records.first().map_or(latest, |record| record.sequence.counter);
        Ok(ReadBatch {
            at_end: meta.closed_ms.is_some() && next == latest,
            next: Position {
                shard: from.shard,
                counter: next,
            },
            millis_behind_latest: (latest - next) * 1_000,
            expired: from.counter > 0 && begins > from.counter,
            records,
        })
    }

    async fn put_records(&self, _: &StreamName, _: Vec<PutEntry>) -> Result<Vec<PutResult>, StoreError> {
        not_asked_for()
    }

    async fn stage(&self, _request: StageRequest) -> Result<StagedRef, StoreError> {
        not_asked_for()
    }

    async fn publish(&self, _request: PublishRequest) -> Result<PublishOutcome, StoreError> {
        not_asked_for()
    }

    async fn forget_job(&self, _job: &str) -> Result<(), StoreError> {
        not_asked_for()
    }

    fn subscribe(&self) -> watch::Receiver<DurablePosition> {
        self.durable.subscribe()
    }
}

fn found<'a>(state: &'a State, shard: &ShardRef) -> Result<&'a ShardMeta, StoreError> {
    let meta = state.stream.shards.iter().find(|meta| meta.id == shard.shard);
    meta.ok_or_else(|| StoreError::ShardNotFound {
        stream: shard.stream.clone(),
        shard: shard.shard,
    })
}
