//! Reading what was written, from the page cache, as a job's process does: extents from the store, bytes from the files.

use super::append::fill;
use super::latency::median;
use super::scratch::Scratch;
use super::{BenchOptions, RECORD_BYTES, progress};
use anyhow::ensure;
use serde::Serialize;
use std::path::Path;
use std::time::Instant;
use tidemill_shards::{
    CreateStream, ReadFrom, ReadLimits, SegmentReader, ShardId, ShardRef, ShardStore, StoreOptions, StreamName,
};

/// Records that are read in each pass.
const RECORDS: usize = 400_000;
/// What one call reads.
const LIMITS: ReadLimits = ReadLimits {
    records_max: 10_000,
    bytes_max: 8 << 20,
};

/// How fast it was.
#[derive(Debug, Serialize)]
pub(super) struct WasRead {
    /// Records of one pass.
    pub(super) records: usize,
    /// Passes.
    pub(super) passes: usize,
    /// Records a second, the median of all passes.
    pub(super) records_per_second: f64,
    /// Their data, in 1,000,000,000 bytes a second.
    pub(super) gb_per_second: f64,
}

/// Measures: one thread, pass after pass.
pub(super) async fn measure(options: &BenchOptions, scratch: &Scratch) -> anyhow::Result<WasRead> {
    progress("read");
    let directory = scratch.directory("read")?;
    let store = ShardStore::open(directory.path(), StoreOptions::default())?;
    let stream = StreamName::new("load")?;
    store
        .create_stream(CreateStream::provisioned(stream.clone(), options.shards))
        .await?;
    fill(&store, &stream, RECORDS).await?;
    let (path, shards, duration) = (directory.path().to_owned(), options.shards, options.duration);
    let passes = tokio::task::spawn_blocking(move || {
        let mut passes = Vec::new();
        let started = Instant::now();
        // The first one may find pages that are being written back.
        while passes.len() < 3 || started.elapsed() < duration {
            passes.push(pass(&path, &store, &stream, shards)?);
        }
        anyhow::Ok(passes)
    })
    .await??;
    let count = passes.len();
    let records_per_second = median(passes);
    Ok(WasRead {
        records: RECORDS,
        passes: count,
        records_per_second,
        gb_per_second: records_per_second * RECORD_BYTES as f64 / 1e9,
    })
}

/// Reads everything; returns records a second.
fn pass(path: &Path, store: &ShardStore, stream: &StreamName, shards: u32) -> anyhow::Result<f64> {
    let reader = SegmentReader::open(path)?;
    let (started, mut records) = (Instant::now(), 0);
    for shard in 0..shards {
        let shard = ShardRef::new(stream.clone(), ShardId(shard));
        let mut from = store.resolve(&shard, ReadFrom::TrimHorizon)?;
        loop {
            let batch = reader.read(&store.locate(&shard, from, LIMITS)?, LIMITS)?;
            if batch.records.is_empty() {
                break;
            }
            records += batch.records.len();
            from = batch.next;
        }
    }
    ensure!(records == RECORDS, "{records} records were read of {RECORDS}");
    Ok(records as f64 / started.elapsed().as_secs_f64())
}
