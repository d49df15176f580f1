//! A store of very many shards: how long it takes to start, and what it holds in memory.

use super::append::fill;
use super::child::{ChildServer, held_by};
use super::scratch::Scratch;
use super::{BenchOptions, progress};
use crate::cli::kinesis::KinesisClient;
use anyhow::ensure;
use serde::Serialize;
use serde_json::json;
use std::time::Instant;
use tidemill_shards::{CreateStream, ShardStore, StoreOptions, StreamName};

/// Shards of one stream.
const STREAM_SHARDS: u32 = 100;
/// Records of one stream, spread over its shards.
const STREAM_RECORDS: usize = 1_000;

/// What it takes.
#[derive(Debug, Serialize)]
pub(super) struct Many {
    /// Shards in the store.
    pub(super) shards: u32,
    /// Streams that they belong to.
    pub(super) streams: u32,
    /// Opening the store, in this process, in milliseconds.
    pub(super) open_ms: f64,
    /// From the start of a server's process until it listens, in milliseconds.
    pub(super) server_start_ms: f64,
    /// The server's resident memory once it has listed all shards, in 1,000,000 bytes.
    pub(super) server_memory_mb: f64,
    /// The same of a server with an empty store.
    pub(super) empty_server_memory_mb: f64,
    /// The server's threads.
    pub(super) server_threads: u64,
}

/// Measures.
pub(super) async fn measure(options: &BenchOptions, scratch: &Scratch) -> anyhow::Result<Many> {
    let streams = options.many.div_ceil(STREAM_SHARDS);
    progress(format_args!("many, {} shards in {streams} streams", options.many));
    let empty = scratch.directory("empty")?;
    let server = ChildServer::start(empty.path()).await?;
    let held_empty = held_by(server.process)?;
    drop(server);

    let directory = scratch.directory("many")?;
    // Where a server keeps its store.
    let path = directory.path().join("store");
    let store = ShardStore::open(&path, StoreOptions::default())?;
    let mut left = options.many;
    for number in 0..streams {
        let stream = StreamName::new(format!("stream-{number:05}"))?;
        let shards = left.min(STREAM_SHARDS);
        left -= shards;
        store
            .create_stream(CreateStream::provisioned(stream.clone(), shards))
            .await?;
        fill(&store, &stream, STREAM_RECORDS).await?;
    }
    // The last handle waits for the writer.
    tokio::task::spawn_blocking(move || drop(store)).await?;
    let open_ms = tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        let store = ShardStore::open(&path, StoreOptions::default())?;
        let elapsed = started.elapsed();
        drop(store);
        anyhow::Ok(elapsed.as_secs_f64() * 1e3)
    })
    .await??;

    let server = ChildServer::start(directory.path()).await?;
    let client = KinesisClient::new(&server.url)?;
    let mut found = 0;
    for number in 0..streams {
        found += client.shards(&format!("stream-{number:05}")).await?.len();
    }
    ensure!(
        found == options.many as usize,
        "{found} shards were found of {}",
        options.many
    );
    // One write, so that the log is open as well.
    let body = json!({ "StreamName": "stream-00000", "PartitionKey": "k", "Data": "eA==" });
    client.call("PutRecord", &body).await?;
    let held = held_by(server.process)?;
    Ok(Many {
        shards: options.many,
        streams,
        open_ms,
        server_start_ms: server.started_in.as_secs_f64() * 1e3,
        server_memory_mb: held.memory_bytes as f64 / 1e6,
        empty_server_memory_mb: held_empty.memory_bytes as f64 / 1e6,
        server_threads: held.threads,
    })
}
