//! Durable appends through the store's own API, in turns with plain writers on the same disk.
//!
//! Closed loop: each client puts its records, one or many at once, waits for their acknowledgement, and puts the next.

use super::counting::{Commits, CountingDisk};
use super::latency::{Latencies, Percentiles, median};
use super::plain::{PreparedFile, append_for};
use super::scratch::Scratch;
use super::{BenchOptions, RECORD_BYTES, progress};
use anyhow::{Context as _, bail};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tidemill_shards::env::{Environment, RealDisk, SystemClock, SystemEntropy};
use tidemill_shards::{CreateStream, PutEntry, ShardStore, StoreOptions, StreamName};

/// A closed loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Load {
    /// Records that wait for their acknowledgement.
    pub(super) in_flight: usize,
    /// Records of one put.
    pub(super) request_records: usize,
}

impl Load {
    /// Clients that put and wait; at least one.
    fn clients(self) -> usize {
        (self.in_flight / self.request_records).max(1)
    }
}

/// Appends under a load.
#[derive(Debug, Serialize)]
pub(super) struct Appended {
    /// What is asked of the store.
    #[serde(flatten)]
    pub(super) load: Load,
    /// Shards that they go to.
    pub(super) shards: u32,
    /// Acknowledged records a second, the median of all rounds.
    pub(super) records_per_second: f64,
    /// The slowest and the fastest round.
    pub(super) records_per_second_range: (f64, f64),
    /// Their data, in 1,000,000 bytes a second.
    pub(super) mb_per_second: f64,
    /// From put to acknowledgement, all rounds together.
    #[serde(flatten)]
    pub(super) latency: Percentiles,
    /// Records of one write, on average.
    pub(super) records_per_sync: f64,
    /// Bytes of one write, on average: records with their frames.
    pub(super) bytes_per_sync: f64,
    /// What the log writes, in 1,000,000 bytes a second.
    pub(super) log_mb_per_second: f64,
    /// The same of a plain writer that appends to a new file, with writes of the same size.
    pub(super) plain_mb_per_second: f64,
    /// The log's share of it, the median of all rounds.
    pub(super) ratio: f64,
    /// The lowest and the highest.
    pub(super) ratio_range: (f64, f64),
    /// The same of a plain writer that overwrites a file prepared beforehand.
    pub(super) overwrite_mb_per_second: f64,
    /// The log's share of that.
    pub(super) overwrite_ratio: f64,
}

struct Round {
    records_per_second: f64,
    log_bytes_per_second: f64,
    plain_bytes_per_second: f64,
    overwrite_bytes_per_second: f64,
    bytes_per_sync: f64,
    records_per_sync: f64,
    latencies: Latencies,
}

/// Measures.
pub(super) async fn measure(options: &BenchOptions, scratch: &Scratch, load: Load) -> anyhow::Result<Appended> {
    let plain_directory = scratch.directory("plain")?;
    let path = plain_directory.path().join("prepared");
    let new_path = plain_directory.path().join("new");
    let mut prepared = PreparedFile::prepare(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        progress(format_args!(
            "append, {} in flight, {} a put, round {number} of {}",
            load.in_flight, load.request_records, options.rounds
        ));
        let directory = scratch.directory("append")?;
        let mut round = append(directory.path(), options, load).await?;
        drop(directory);
        let (bytes, duration) = (round.bytes_per_sync as usize, options.duration);
        let appended_to = new_path.clone();
        let plain = tokio::task::spawn_blocking(move || {
            let appended = append_for(&appended_to, bytes, duration);
            (appended, prepared.overwrite_for(bytes, duration), prepared)
        });
        let (appended, overwritten);
        (appended, overwritten, prepared) = plain.await?;
        round.plain_bytes_per_second = appended.with_context(|| format!("cannot write {}", new_path.display()))?;
        round.overwrite_bytes_per_second = overwritten.with_context(|| format!("cannot write {}", path.display()))?;
        rounds.push(round);
    }
    Ok(summary(options, load, rounds))
}

fn summary(options: &BenchOptions, load: Load, rounds: Vec<Round>) -> Appended {
    let of = |figure: fn(&Round) -> f64| rounds.iter().map(figure).collect::<Vec<f64>>();
    let range = |values: &[f64]| {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        (least, values.iter().copied().fold(0.0, f64::max))
    };
    let records = of(|round| round.records_per_second);
    let ratios = of(|round| round.log_bytes_per_second / round.plain_bytes_per_second);
    let mut appended = Appended {
        load,
        shards: options.shards,
        records_per_second_range: range(&records),
        mb_per_second: median(records.clone()) * RECORD_BYTES as f64 / 1e6,
        records_per_second: median(records),
        latency: Percentiles::default(),
        records_per_sync: median(of(|round| round.records_per_sync)),
        bytes_per_sync: median(of(|round| round.bytes_per_sync)),
        log_mb_per_second: median(of(|round| round.log_bytes_per_second)) / 1e6,
        plain_mb_per_second: median(of(|round| round.plain_bytes_per_second)) / 1e6,
        ratio_range: range(&ratios),
        ratio: median(ratios),
        overwrite_mb_per_second: median(of(|round| round.overwrite_bytes_per_second)) / 1e6,
        overwrite_ratio: median(of(|round| {
            round.log_bytes_per_second / round.overwrite_bytes_per_second
        })),
    };
    let mut latencies = Latencies::default();
    for round in rounds {
        latencies.extend(round.latencies);
    }
    appended.latency = latencies.percentiles();
    appended
}

/// Opens a store that counts its commits, with a stream.
async fn counted_store(directory: &Path, shards: u32) -> anyhow::Result<(ShardStore, StreamName, Arc<Commits>)> {
    let disk = CountingDisk::new(RealDisk::open_exclusive(directory)?);
    let commits = disk.commits();
    let environment = Environment {
        disk: Arc::new(disk),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
    };
    let store = ShardStore::open_in(environment, StoreOptions::default())?;
    let stream = StreamName::new("load")?;
    store
        .create_stream(CreateStream::provisioned(stream.clone(), shards))
        .await?;
    Ok((store, stream, commits))
}

async fn append(directory: &Path, options: &BenchOptions, load: Load) -> anyhow::Result<Round> {
    let (store, stream, commits) = counted_store(directory, options.shards).await?;
    let (commits_before, bytes_before) = (commits.count(), commits.bytes());
    let started = Instant::now();
    let deadline = started + options.duration;
    let clients: Vec<_> = (0..load.clients())
        .map(|client| {
            let (store, stream) = (store.clone(), stream.clone());
            tokio::spawn(put_until(deadline, store, stream, client, load.request_records))
        })
        .collect();
    let mut latencies = Latencies::default();
    for client in clients {
        latencies.extend(client.await??);
    }
    let elapsed = started.elapsed().as_secs_f64();
    let records = latencies.len() * load.request_records;
    let (count, bytes) = (commits.count() - commits_before, commits.bytes() - bytes_before);
    if count == 0 {
        bail!("nothing was written in {:?}; choose a longer --for", options.duration);
    }
    // Waits for the writer, so that it does not disturb what is measured next.
    tokio::task::spawn_blocking(move || drop(store)).await?;
    Ok(Round {
        records_per_second: records as f64 / elapsed,
        log_bytes_per_second: bytes as f64 / elapsed,
        plain_bytes_per_second: 0.0,
        overwrite_bytes_per_second: 0.0,
        bytes_per_sync: bytes as f64 / count as f64,
        records_per_sync: records as f64 / count as f64,
        latencies,
    })
}

async fn put_until(
    deadline: Instant,
    store: ShardStore,
    stream: StreamName,
    client: usize,
    request_records: usize,
) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::default();
    let data = bytes::Bytes::from(vec![b'x'; RECORD_BYTES]);
    let entry = |record: usize| PutEntry {
        partition_key: format!("client-{client}-{record}"),
        explicit_hash_key: None,
        data: data.clone(),
    };
    while Instant::now() < deadline {
        let put = Instant::now();
        for receipt in store
            .put_records(&stream, (0..request_records).map(entry).collect())
            .await?
        {
            receipt?;
        }
        latencies.add(put.elapsed());
    }
    Ok(latencies)
}

/// Fills a stream with records, quickly.
pub(super) async fn fill(store: &ShardStore, stream: &StreamName, records: usize) -> anyhow::Result<()> {
    const REQUEST_RECORDS: usize = 500;
    let data = bytes::Bytes::from(vec![b'x'; RECORD_BYTES]);
    let mut left = records;
    while left > 0 {
        let entry = |key: usize| PutEntry {
            partition_key: format!("key-{key}"),
            explicit_hash_key: None,
            data: data.clone(),
        };
        let count = left.min(REQUEST_RECORDS);
        for receipt in store.put_records(stream, (0..count).map(entry).collect()).await? {
            receipt?;
        }
        left -= count;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(records_per_second: f64, plain: f64) -> Round {
        Round {
            records_per_second,
            log_bytes_per_second: records_per_second * 1_100.0,
            overwrite_bytes_per_second: 400.0,
            plain_bytes_per_second: plain,
            bytes_per_sync: 11_000.0,
            records_per_sync: 10.0,
            latencies: Latencies::default(),
        }
    }

    #[test]
    fn the_ratio_is_that_of_the_same_round() {
        let options = BenchOptions {
            parts: Vec::new(),
            directory: None,
            duration: std::time::Duration::from_secs(1),
            rounds: 3,
            in_flight: Vec::new(),
            request_records: Vec::new(),
            shards: 4,
            rates: Vec::new(),
            connections: 1,
            protocols: Vec::new(),
            server: None,
            many: 1,
        };
        let rounds = vec![
            round(100.0, 220_000.0),
            round(200.0, 220_000.0),
            round(300.0, 660_000.0),
        ];
        let load = Load {
            in_flight: 7,
            request_records: 1,
        };
        let summary = summary(&options, load, rounds);
        assert_eq!(summary.records_per_second, 200.0);
        assert_eq!(summary.records_per_second_range, (100.0, 300.0));
        assert_eq!((summary.ratio, summary.ratio_range), (0.5, (0.5, 1.0)));
    }
}
