//! The shard store killed under load: what was acknowledged is there, in order, under its sequence number and in its shard, byte
//! for byte; what was not is there whole, or not at all.

use super::client::{Clients, Read};
use super::random::Random;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tidemill_tests::{Server, eventually};
use tokio::task::JoinSet;

pub(super) const STREAM: &str = "load";
pub(super) const SHARDS: u32 = 3;
pub(super) const PRODUCERS: usize = 8;
const ROUNDS: usize = 6;
/// A kill comes at most that long after the first acknowledgement of a round.
const LIFE_MS: u64 = 1_500;

/// A record that was acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Acknowledged {
    shard: String,
    sequence: String,
    /// Which record it is.
    number: u64,
}

/// What every record was, by its number, which its content begins with.
#[derive(Debug)]
pub(super) struct Told {
    /// In the order in which each producer was told.
    acknowledged: Mutex<Vec<Vec<Acknowledged>>>,
    next: AtomicU64,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            acknowledged: Mutex::new(vec![Vec::new(); PRODUCERS]),
            next: AtomicU64::new(0),
        }
    }
}

impl Told {
    /// What was acknowledged so far, by producer.
    pub(super) fn acknowledged(&self) -> MutexGuard<'_, Vec<Vec<Acknowledged>>> {
        self.acknowledged.lock().unwrap()
    }
}

/// Makes the content of a record: its number, and bytes that follow from it.
fn content(number: u64) -> Vec<u8> {
    let mut data = number.to_be_bytes().to_vec();
    let length = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53) as usize;
    data.extend((0..length).map(|at| (number as usize).wrapping_mul(31).wrapping_add(at.wrapping_mul(7)) as u8));
    data
}

fn partition_key(number: u64) -> String {
    format!("key-{}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40)
}

/// Puts records, each of them once, until the server is gone. Even producers put one at a time, odd ones many.
pub(super) async fn produce(client: Client, producer: usize, told: Arc<Told>) {
    let acknowledge = |acknowledged: Vec<Acknowledged>| told.acknowledged()[producer].extend(acknowledged);
    loop {
        if producer.is_multiple_of(2) {
            let number = told.next.fetch_add(1, Ordering::Relaxed);
            let request = client
                .put_record()
                .stream_name(STREAM)
                .partition_key(partition_key(number));
            let Ok(answer) = request.data(Blob::new(content(number))).send().await else {
                return;
            };
            let (shard, sequence) = (answer.shard_id().to_owned(), answer.sequence_number().to_owned());
            acknowledge(vec![Acknowledged {
                shard,
                sequence,
                number,
            }]);
        } else {
            let numbers: Vec<u64> = (0..50).map(|_| told.next.fetch_add(1, Ordering::Relaxed)).collect();
            let entries = numbers.iter().map(|&number| {
                let entry = PutRecordsRequestEntry::builder().partition_key(partition_key(number));
                entry.data(Blob::new(content(number))).build().expect("a whole entry")
            });
            let request = client
                .put_records()
                .stream_name(STREAM)
                .set_records(Some(entries.collect()));
            let Ok(answer) = request.send().await else { return };
            let results = answer
                .records()
                .iter()
                .zip(&numbers)
                .filter(|(result, _)| result.error_code().is_none());
            let acknowledged = results.map(|(result, &number)| Acknowledged {
                shard: result.shard_id().expect("a shard").to_owned(),
                sequence: result.sequence_number().expect("a sequence number").to_owned(),
                number,
            });
            acknowledge(acknowledged.collect());
        }
    }
}

/// Orders sequence numbers, which are longer than any of our integers.
fn magnitude(sequence: &str) -> (usize, &str) {
    assert!(
        sequence.bytes().all(|byte| byte.is_ascii_digit()) && !sequence.starts_with('0'),
        "{sequence:?}"
    );
    (sequence.len(), sequence)
}

pub(super) fn check(stored: &[(String, Vec<Read>)], told: &Told) {
    let mut places: HashMap<u64, (&str, &str)> = HashMap::new();
    for (shard, records) in stored {
        let mut pairs = records.windows(2);
        let is_ordered = pairs.all(|pair| magnitude(&pair[0].sequence) < magnitude(&pair[1].sequence));
        assert!(is_ordered, "{shard} is out of order");
        for record in records {
            let number = record
                .data
                .get(..8)
                .map(|bytes| u64::from_be_bytes(bytes.try_into().expect("8 bytes")));
            let number = number.expect("a record's number");
            assert!(
                number < told.next.load(Ordering::Relaxed),
                "a record that nobody put: {number}"
            );
            assert_eq!(
                (&record.data, &record.partition_key),
                (&content(number), &partition_key(number)),
                "{number}"
            );
            let twice = places.insert(number, (shard, &record.sequence));
            assert_eq!(twice, None, "record {number} is there twice");
        }
    }
    for acknowledged in told.acknowledged().iter() {
        let mut newest: HashMap<&str, (usize, &str)> = HashMap::new();
        for Acknowledged {
            shard,
            sequence,
            number,
        } in acknowledged
        {
            assert_eq!(
                places.get(number),
                Some(&(shard.as_str(), sequence.as_str())),
                "record {number}"
            );
            let before = newest.insert(shard, magnitude(sequence));
            assert!(
                before < Some(magnitude(sequence)),
                "record {number} is in {shard} before one that was put before it"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_store_has_every_acknowledged_record_in_order_under_its_number() {
    let mut random = Random::from_environment("the shard store");
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut server = Server::start(&data);
    server.kinesis().create_stream(STREAM, SHARDS).await;
    let clients = Clients::new(server.url());
    let told = Arc::new(Told::default());
    let acknowledged = || told.acknowledged().iter().map(Vec::len).sum::<usize>();
    for round in 0..ROUNDS {
        let before = acknowledged();
        let mut producers = JoinSet::new();
        for producer in 0..PRODUCERS {
            producers.spawn(produce(clients.now(), producer, Arc::clone(&told)));
        }
        eventually("an acknowledgement", || async {
            (acknowledged() > before).then_some(())
        })
        .await;
        random.moment(LIFE_MS).await;
        server.kill();
        while let Some(producer) = producers.join_next().await {
            producer.expect("a producer");
        }
        server = Server::start(&data);
        clients.moved_to(server.url());
        let stored = clients.read_all(STREAM).await;
        check(&stored, &told);
        let stored: usize = stored.iter().map(|(_, records)| records.len()).sum();
        eprintln!("round {round}: {} acknowledged, {stored} stored", acknowledged());
    }
}
