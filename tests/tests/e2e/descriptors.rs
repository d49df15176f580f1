//! A server that has run out of file descriptors: it takes connections again when there are some, its log rolls again, and
//! nothing that was acknowledged is lost.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tidemill_shards::{Position, ReadFrom, ReadLimits, ShardId, ShardRef, ShardStore, StoreOptions, StreamName};
use tidemill_tests::{Kinesis, PATIENCE, Server, eventually};

/// What the server may have open: enough for itself, and for some clients.
const DESCRIPTORS: u32 = 64;
const RECORD_BYTES: usize = 1_000_000;
const RECORDS_PER_REQUEST: usize = 10;
/// More than three segments.
const REQUESTS_MAX: usize = 22;

/// Puts ten records whose contents begin with their numbers; answers the status.
async fn put(kinesis: &Kinesis, numbers: std::ops::Range<u64>) -> u16 {
    let records: Vec<Value> = numbers
        .map(|number| {
            let mut data = number.to_be_bytes().to_vec();
            data.resize(RECORD_BYTES, 0);
            json!({ "PartitionKey": "k", "Data": BASE64.encode(data) })
        })
        .collect();
    let body = json!({ "StreamName": "s", "Records": records });
    let (status, answer) = kinesis.call("PutRecords", &body).await;
    assert!(status != 200 || answer["FailedRecordCount"] == 0, "{answer}");
    status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_descriptors_refuses_and_goes_on_when_there_are_some() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut server = Server::start_with_descriptors(&data, DESCRIPTORS);
    let address = server.url().strip_prefix("http://").unwrap().to_owned();
    // It keeps its connection.
    let kinesis = server.kinesis();
    kinesis.create_stream("s", 1).await;
    let idle: Vec<TcpStream> = (0..2 * DESCRIPTORS)
        .map(|_| TcpStream::connect(&address).unwrap())
        .collect();
    let log = directory.path().join("data.log");
    eventually("the server to run out of descriptors", || async {
        std::fs::read_to_string(&log)
            .is_ok_and(|log| log.contains("cannot take a connection"))
            .then_some(())
    })
    .await;

    let mut acknowledged = BTreeSet::new();
    let mut next = 0;
    let mut refused = 0;
    for _ in 0..REQUESTS_MAX {
        let numbers = next..next + RECORDS_PER_REQUEST as u64;
        next = numbers.end;
        match put(&kinesis, numbers.clone()).await {
            200 => acknowledged.extend(numbers),
            500 => refused += 1,
            status => panic!("{status}"),
        }
        if refused > 1 {
            break;
        }
    }
    assert!(!acknowledged.is_empty());
    assert!(refused > 0, "three segments were begun without a descriptor for one");

    drop(idle);
    let start = Instant::now();
    loop {
        let numbers = next..next + RECORDS_PER_REQUEST as u64;
        next = numbers.end;
        let status = put(&kinesis, numbers.clone()).await;
        if status == 200 {
            acknowledged.extend(numbers);
            break;
        }
        assert!(start.elapsed() < PATIENCE, "the log takes no records again: {status}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    // A client that has no connection yet is answered, too.
    assert_eq!(server.get("/healthz").await.status, 200);
    server.kinesis().must("ListStreams", &json!({})).await;
    server.kill();

    let store = ShardStore::open(&data.join("store"), StoreOptions::default()).unwrap();
    assert!(store.damage().is_empty());
    let shard = ShardRef::new(StreamName::new("s").unwrap(), ShardId(0));
    let mut from: Position = store.resolve(&shard, ReadFrom::TrimHorizon).unwrap();
    let mut found = BTreeSet::new();
    loop {
        let limits = ReadLimits {
            records_max: 1_000,
            bytes_max: 10 << 20,
        };
        let batch = store.read(&shard, from, limits).unwrap();
        if batch.records.is_empty() {
            break;
        }
        from = batch.next;
        for record in batch.records {
            let number = u64::from_be_bytes(record.data[..8].try_into().unwrap());
            assert!(found.insert(number), "record {number} is there twice");
        }
    }
    let lost: Vec<&u64> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "{lost:?}");
}
