//! From acknowledgement to a consumer that waits at the tail: an open loop, one consumer for each shard.

use super::latency::{Latencies, Percentiles};
use super::scratch::Scratch;
use super::{BenchOptions, RECORD_BYTES, progress};
use anyhow::{Context as _, bail, ensure};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tidemill_shards::{
    CreateStream, PutEntry, ReadFrom, ReadLimits, ShardAccess, ShardId, ShardRef, ShardStore, StoreOptions, StreamName,
};
use tokio::task::JoinSet;

/// Records a second.
const RATE: u64 = 1_000;
/// What one call reads.
const LIMITS: ReadLimits = ReadLimits {
    records_max: 1_000,
    bytes_max: 1 << 20,
};
/// How long the last records may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long it took.
#[derive(Debug, Serialize)]
pub(super) struct Tailed {
    /// Records that were put, open loop.
    pub(super) records: u64,
    /// How many a second.
    pub(super) rate: u64,
    /// From acknowledgement until the consumer has the record; 0 when it has it earlier than the producer is told.
    pub(super) from_acknowledgement: Percentiles,
    /// From put until the consumer has it.
    pub(super) from_put: Percentiles,
}

/// Microseconds since the start, plus one, for each record; 0 is never.
#[derive(Default)]
struct Moments(Vec<AtomicU64>);

impl Moments {
    fn new(records: u64) -> Self {
        Self((0..records).map(|_| AtomicU64::new(0)).collect())
    }

    fn set(&self, record: u64, started: Instant) {
        if let Some(moment) = self.0.get(record as usize) {
            moment.store(started.elapsed().as_micros() as u64 + 1, Ordering::Release);
        }
    }

    /// Times from `earlier` to these; what comes first by chance counts as no time.
    fn since(&self, earlier: &Self) -> Latencies {
        let mut latencies = Latencies::default();
        for (later, earlier) in self.0.iter().zip(&earlier.0) {
            let (later, earlier) = (later.load(Ordering::Acquire), earlier.load(Ordering::Acquire));
            latencies.add(Duration::from_micros(later.saturating_sub(earlier)));
        }
        latencies
    }

    fn are_all_set(&self) -> bool {
        self.0.iter().all(|moment| moment.load(Ordering::Acquire) > 0)
    }
}

/// Measures.
pub(super) async fn measure(options: &BenchOptions, scratch: &Scratch) -> anyhow::Result<Tailed> {
    progress(format_args!("tail, {RATE} records/s"));
    let directory = scratch.directory("tail")?;
    let store = ShardStore::open(directory.path(), StoreOptions::default())?;
    let stream = StreamName::new("load")?;
    store
        .create_stream(CreateStream::provisioned(stream.clone(), options.shards))
        .await?;
    let records = (RATE * options.duration.as_millis() as u64 / 1_000).max(1);
    let [put, acknowledged, seen] = [(); 3].map(|()| Arc::new(Moments::new(records)));
    let started = Instant::now();
    let mut consumers = JoinSet::new();
    for shard in 0..options.shards {
        let shard = ShardRef::new(stream.clone(), ShardId(shard));
        consumers.spawn(consume(store.clone(), shard, Arc::clone(&seen), started));
    }
    let mut producers = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE as u32);
    for record in 0..records {
        ticks.tick().await;
        let (store, stream) = (store.clone(), stream.clone());
        let (put, acknowledged) = (Arc::clone(&put), Arc::clone(&acknowledged));
        producers.spawn(async move {
            let mut data = vec![b'x'; RECORD_BYTES];
            data[..8].copy_from_slice(&record.to_le_bytes());
            let entry = PutEntry {
                partition_key: format!("key-{record}"),
                explicit_hash_key: None,
                data: data.into(),
            };
            put.set(record, started);
            let receipts = store.put_records(&stream, vec![entry]).await?;
            acknowledged.set(record, started);
            receipts.into_iter().try_for_each(|receipt| receipt.map(|_| ()))
        });
    }
    while let Some(stored) = producers.join_next().await {
        stored??;
    }
    let waited = Instant::now();
    while !seen.are_all_set() {
        if let Some(ended) = consumers.try_join_next() {
            ended??;
            bail!("a consumer ended by itself");
        }
        ensure!(waited.elapsed() < PATIENCE, "the consumers did not see all records");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    consumers.shutdown().await;
    Ok(Tailed {
        records,
        rate: RATE,
        from_acknowledgement: seen.since(&acknowledged).percentiles(),
        from_put: seen.since(&put).percentiles(),
    })
}

async fn consume(store: ShardStore, shard: ShardRef, seen: Arc<Moments>, started: Instant) -> anyhow::Result<()> {
    let mut durable = store.subscribe();
    let mut from = store.resolve(&shard, ReadFrom::TrimHorizon)?;
    loop {
        durable.borrow_and_update();
        loop {
            let batch = ShardAccess::read(&store, &shard, from, LIMITS).await?;
            from = batch.next;
            for record in &batch.records {
                let number = record.data.first_chunk::<8>().context("a record without a number")?;
                seen.set(u64::from_le_bytes(*number), started);
            }
            if batch.records.is_empty() {
                break;
            }
        }
        durable.changed().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_before_its_acknowledgement_took_no_time() {
        let (earlier, later) = (Moments::new(2), Moments::new(2));
        assert!(!later.are_all_set());
        earlier.0[0].store(1_001, Ordering::Relaxed);
        later.0[0].store(4_001, Ordering::Relaxed);
        earlier.0[1].store(9_001, Ordering::Relaxed);
        later.0[1].store(8_001, Ordering::Relaxed);
        assert!(later.are_all_set());
        let percentiles = later.since(&earlier).percentiles();
        assert_eq!((percentiles.p50_ms, percentiles.max_ms), (0.0, 3.0));
    }
}
