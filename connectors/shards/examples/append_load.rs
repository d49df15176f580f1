//! Measures acknowledged appends: every one behind an `fdatasync`.
//!
//! ```text
//! cargo run --release -p tidemill-shards --example append_load -- [in flight] [seconds] [shards] [directory]
//! ```
//! Each of the clients in flight puts one record of 1 KiB, waits for its acknowledgement, and puts the next.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tidemill_shards::{
    CreateStream, PutEntry, ReadFrom, ReadLimits, SegmentReader, ShardId, ShardRef, ShardStore, StoreOptions,
    StreamName,
};

const RECORD_BYTES: usize = 1024;

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let in_flight: usize = arguments.next().map_or(Ok(1_000), |text| text.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let shards: u32 = arguments.next().map_or(Ok(4), |text| text.parse())?;
    let directory = arguments.next();

    let temporary = match &directory {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let store = ShardStore::open(temporary.path(), StoreOptions::default())?;
    let stream = StreamName::new("load")?;
    runtime.block_on(store.create_stream(CreateStream::provisioned(stream.clone(), shards)))?;

    let started = Instant::now();
    let deadline = started + Duration::from_secs(seconds);
    let mut latencies: Vec<Duration> = runtime.block_on(async {
        let clients: Vec<_> = (0..in_flight)
            .map(|client| {
                let (store, stream) = (store.clone(), stream.clone());
                let data = Bytes::from(vec![b'x'; RECORD_BYTES]);
                tokio::spawn(async move {
                    let mut latencies = Vec::new();
                    let partition_key = format!("client-{client}");
                    while Instant::now() < deadline {
                        let put = Instant::now();
                        let entry = PutEntry {
                            partition_key: partition_key.clone(),
                            explicit_hash_key: None,
                            data: data.clone(),
                        };
                        let receipts = store.put_records(&stream, vec![entry]).await.expect("the log is sound");
                        assert!(receipts[0].is_ok());
                        latencies.push(put.elapsed());
                    }
                    latencies
                })
            })
            .collect();
        let mut all = Vec::new();
        for client in clients {
            all.extend(client.await.expect("no client panics"));
        }
        all
    });
    let elapsed = started.elapsed();
    latencies.sort_unstable();
    let percentile = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    println!(
        "{} records of {RECORD_BYTES} B acknowledged in {elapsed:.2?} with {in_flight} in flight on {shards} shards: \
         {:.0} records/s, p50 {:.2?}, p99 {:.2?}",
        latencies.len(),
        latencies.len() as f64 / elapsed.as_secs_f64(),
        percentile(50),
        percentile(99),
    );

    // Read everything back as a job's process would: extents from the store, bytes from the files.
    let reader = SegmentReader::open(temporary.path())?;
    let limits = ReadLimits {
        records_max: 10_000,
        bytes_max: 8 << 20,
    };
    for pass in ["first", "second"] {
        let started = Instant::now();
        let (mut records, mut bytes) = (0, 0);
        for shard in 0..shards {
            let shard = ShardRef::new(stream.clone(), ShardId(shard));
            let mut from = store.resolve(&shard, ReadFrom::TrimHorizon)?;
            loop {
                let batch = reader.read(&store.locate(&shard, from, limits)?, limits)?;
                if batch.records.is_empty() {
                    break;
                }
                records += batch.records.len();
                bytes += batch.records.iter().map(|record| record.data.len()).sum::<usize>();
                from = batch.next;
            }
        }
        assert_eq!(records, latencies.len());
        let elapsed = started.elapsed();
        println!(
            "{pass} read: {records} records in {elapsed:.2?}, {:.2} GB/s",
            bytes as f64 / elapsed.as_secs_f64() / 1e9
        );
    }
    Ok(())
}
