//! Producers that number their requests: each is stored once, whatever is repeated, cut, split or damaged.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use tidemill_shards::env::{Crash, ManualClock, SimDisk};
use tidemill_shards::kinesis::{ApiBody, KinesisApi, PRODUCER_OUTCOME_HEADER, ProducerHeaders, RequestContext};
use tidemill_shards::limits::{PRODUCER_REQUESTS_MAX, PRODUCERS_PER_STREAM_MAX, PUT_RECORDS_MAX};
use tidemill_shards::{
    ErrorKind, HashKey, Producer, ProducerId, PutEntry, PutOnce, PutOnceOutcome, PutReceipt, ShardId, ShardRef,
    ShardStore, StoreError, StoreOptions, StreamUpdate,
};

use crate::model::settle;
use crate::support::*;

/// Segments that hold several requests: each may take some kilobytes, and room for that is made before.
fn open_roomy(disk: &SimDisk, segment_bytes: u64) -> Result<ShardStore, StoreError> {
    let options = StoreOptions {
        segment_bytes,
        ..options()
    };
    ShardStore::open_in(environment(disk, &ManualClock::new(NOW_MS)), options)
}

fn producer(id: &str, epoch: u64, sequence: u64) -> Producer {
    Producer {
        id: ProducerId::new(id).unwrap(),
        epoch,
        sequence,
    }
}

/// Records that tell which request they are of; keys of several shards, and some longer than a frame.
fn request(id: &str, epoch: u64, sequence: u64, records: usize, length: usize) -> Vec<PutEntry> {
    (0..records)
        .map(|at| {
            let text = format!("{id}/{epoch}/{sequence}/{at}/{}", "x".repeat(length));
            entry(&format!("key {}", (at * 7 + sequence as usize) % 11), text)
        })
        .collect()
}

fn receipts(put: PutOnce) -> Vec<PutReceipt> {
    put.results.into_iter().map(Result::unwrap).collect()
}

async fn once(
    store: &ShardStore,
    stream: &str,
    producer: Producer,
    entries: Vec<PutEntry>,
) -> Result<(PutOnceOutcome, Vec<PutReceipt>), StoreError> {
    let put = store.put_records_once(&name(stream), producer, entries).await?;
    Ok((put.outcome, receipts(put)))
}

/// All records of a stream by their data, each with where it is; none may be there twice.
fn stored(store: &ShardStore, stream: &str) -> BTreeMap<String, PutReceipt> {
    let mut all = BTreeMap::new();
    for shard in store.describe_stream(&name(stream)).unwrap().shards {
        for record in read_all(store, &ShardRef::new(name(stream), shard.id)).unwrap() {
            let receipt = PutReceipt {
                shard: shard.id,
                sequence: record.sequence,
            };
            let text = String::from_utf8(record.data.to_vec()).unwrap();
            assert_eq!(all.insert(text.clone(), receipt), None, "{text} is there twice");
        }
    }
    all
}

fn assert_stored(all: &BTreeMap<String, PutReceipt>, entries: &[PutEntry], receipts: &[PutReceipt]) {
    for (entry, receipt) in entries.iter().zip(receipts) {
        let text = std::str::from_utf8(&entry.data).unwrap();
        assert_eq!(all.get(text), Some(receipt), "{text}");
    }
}

#[test]
fn a_repeated_request_is_answered_the_same_and_stored_once() {
    block_on(async {
        let disk = SimDisk::new();
        let mut store = open_roomy(&disk, 24 << 10).unwrap();
        create(&store, "s", 3).await;
        let mut answers = Vec::new();
        for sequence in 0..8 {
            let entries = request("p", 4, sequence, 1 + 60 * sequence as usize, 20);
            let (outcome, first) = once(&store, "s", producer("p", 4, sequence), entries.clone())
                .await
                .unwrap();
            assert_eq!(outcome, PutOnceOutcome::Stored);
            answers.push((entries, first));
        }
        for round in 0..4 {
            match round {
                // Shards that took records are closed, and open ones take their keys.
                1 => store
                    .split_shard(&name("s"), ShardId(0), HashKey(1 << 100))
                    .await
                    .unwrap(),
                2 => store.merge_shards(&name("s"), ShardId(1), ShardId(2)).await.unwrap(),
                3 => {
                    drop(store);
                    store = open_roomy(&disk, 24 << 10).unwrap();
                }
                _ => {}
            }
            let remembered = answers.len() - PRODUCER_REQUESTS_MAX;
            for (sequence, (entries, first)) in answers.iter().enumerate() {
                let again = once(&store, "s", producer("p", 4, sequence as u64), entries.clone()).await;
                if sequence < remembered {
                    let error = again.unwrap_err();
                    assert!(matches!(error, StoreError::SequenceForgotten { .. }), "{error}");
                    assert_eq!(error.kind(), ErrorKind::User);
                } else {
                    assert_eq!(
                        again.unwrap(),
                        (PutOnceOutcome::Repeated, first.clone()),
                        "round {round}"
                    );
                }
            }
            let all = stored(&store, "s");
            assert_eq!(
                all.len(),
                answers.iter().map(|(entries, _)| entries.len()).sum::<usize>()
            );
            for (entries, first) in &answers {
                assert_stored(&all, entries, first);
            }
        }
        // It goes on, in the shards that are open now.
        let entries = request("p", 4, 8, 40, 5);
        let (outcome, _) = once(&store, "s", producer("p", 4, 8), entries).await.unwrap();
        assert_eq!(outcome, PutOnceOutcome::Stored);
    });
}

#[test]
fn a_retry_that_arrives_before_the_answer_shares_it() {
    block_on(async {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, "s", 2).await;
        let mut tasks = tokio::task::JoinSet::new();
        // Forty requests in their order, each of them five times, all at once.
        for sequence in 0..40u64 {
            for _ in 0..5 {
                let store = store.clone();
                tasks.spawn(async move {
                    loop {
                        let entries = request("p", 0, sequence, 3, 5);
                        match once(&store, "s", producer("p", 0, sequence), entries).await {
                            Ok((outcome, receipts)) => return (sequence, Some((outcome, receipts))),
                            // One that was behind this one, or far ahead of it, was faster.
                            Err(StoreError::SequenceGap { .. } | StoreError::ProducerUnknown { .. }) => {
                                tokio::task::yield_now().await;
                            }
                            Err(StoreError::SequenceForgotten { .. }) => return (sequence, None),
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
            }
        }
        let (mut first, mut told): (BTreeMap<u64, usize>, BTreeMap<u64, Vec<PutReceipt>>) = Default::default();
        while let Some(done) = tasks.join_next().await {
            let (sequence, answer) = done.unwrap();
            let Some((outcome, receipts)) = answer else { continue };
            *first.entry(sequence).or_default() += usize::from(outcome == PutOnceOutcome::Stored);
            assert_eq!(told.entry(sequence).or_insert_with(|| receipts.clone()), &receipts);
        }
        assert!(first.values().all(|&stored| stored == 1), "{first:?}");
        let all = stored(&store, "s");
        assert_eq!(all.len(), 120);
        for (sequence, receipts) in told {
            assert_stored(&all, &request("p", 0, sequence, 3, 5), &receipts);
        }
    });
}

#[test]
fn what_is_not_the_next_request_is_refused_with_a_reason() {
    block_on(async {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, "s", 1).await;
        create(&store, "t", 1).await;
        let put = async |id: &str, epoch, sequence, data: &str| {
            once(&store, "s", producer(id, epoch, sequence), vec![entry("k", data)]).await
        };
        assert!(matches!(
            put("p", 5, 7, "a").await.unwrap_err(),
            StoreError::ProducerUnknown { sequence: 7, .. }
        ));
        put("p", 5, 0, "0").await.unwrap();
        assert!(matches!(
            put("p", 5, 2, "2").await.unwrap_err(),
            StoreError::SequenceGap {
                sequence: 2,
                expected: 1,
                ..
            }
        ));
        assert!(matches!(
            put("p", 5, 0, "other").await.unwrap_err(),
            StoreError::SequenceReused { .. }
        ));
        put("p", 6, 0, "fences").await.unwrap();
        let fenced = put("p", 5, 1, "1").await.unwrap_err();
        assert!(matches!(
            fenced,
            StoreError::ProducerFenced {
                epoch: 5,
                newest: 6,
                ..
            }
        ));
        assert_eq!(fenced.kind(), ErrorKind::Fenced);
        // Another stream has its own sequences.
        once(&store, "t", producer("p", 5, 0), vec![entry("k", "t")])
            .await
            .unwrap();
        // A stream that takes the name is another one.
        store.delete_stream(&name("s")).await.unwrap();
        create(&store, "s", 1).await;
        let put =
            async |sequence, data: &str| once(&store, "s", producer("p", 6, sequence), vec![entry("k", data)]).await;
        assert!(matches!(
            put(1, "a").await.unwrap_err(),
            StoreError::ProducerUnknown { .. }
        ));
        assert_eq!(put(0, "fences").await.unwrap().0, PutOnceOutcome::Stored);
        for entries in [
            vec![],
            vec![entry("k", "x"); PUT_RECORDS_MAX + 1],
            vec![entry("k", "x"), entry("", "x")],
        ] {
            let error = once(&store, "s", producer("p", 6, 1), entries).await.unwrap_err();
            assert!(
                matches!(error, StoreError::Limit(_) | StoreError::Invalid(_)),
                "{error}"
            );
        }
        let huge = vec![entry("k", vec![0; 1_000_000]); 20];
        let error = once(&store, "s", producer("p", 6, 1), huge).await.unwrap_err();
        assert!(matches!(error, StoreError::Limit(_)), "{error}");
        assert_eq!(stored(&store, "s").len(), 1);
        put(1, "the sequence is still free").await.unwrap();
    });
}

#[test]
fn records_that_are_refused_leave_the_others_stored_and_a_request_of_none_unused() {
    block_on(async {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, "s", 2).await;
        let low = |data: &str| PutEntry {
            explicit_hash_key: Some(HashKey(0)),
            ..entry("k", data)
        };
        let high = |data: &str| PutEntry {
            explicit_hash_key: Some(HashKey(u128::MAX)),
            ..entry("k", data)
        };
        for number in 0..3 {
            store
                .put_records(&name("s"), vec![low(&format!("damaged {number}"))])
                .await
                .unwrap();
        }
        put(&store, "s", "k", "behind").await;
        drop(store);
        // A shard that is read-only, because a record is damaged.
        let log = disk.contents("0000000001.log").unwrap();
        let at = log.windows(9).position(|bytes| bytes == b"damaged 0").unwrap();
        let mut flipped = log;
        flipped[at] ^= 1;
        disk.overwrite("0000000001.log", flipped);
        let mut store = open(&disk).unwrap();
        assert_eq!(store.damage().len(), 1);

        let entries = vec![high("a"), low("b"), high("c"), low("d")];
        let before = store
            .put_records_once(&name("s"), producer("p", 0, 0), entries.clone())
            .await
            .unwrap();
        assert_eq!(before.outcome, PutOnceOutcome::Stored);
        let sound: Vec<bool> = before.results.iter().map(Result::is_ok).collect();
        assert_eq!(sound, [true, false, true, false]);
        let none = store
            .put_records_once(&name("s"), producer("p", 0, 1), vec![low("b")])
            .await
            .unwrap();
        assert_eq!(none.outcome, PutOnceOutcome::Nothing);
        assert!(none.results[0].is_err());
        for _ in 0..2 {
            drop(store);
            store = open(&disk).unwrap();
            let again = store
                .put_records_once(&name("s"), producer("p", 0, 0), entries.clone())
                .await
                .unwrap();
            assert_eq!(again.outcome, PutOnceOutcome::Repeated);
            assert_eq!(again.results, before.results);
        }
        // When the shard can take records again, the same sequence stores what it could not.
        store
            .split_shard(&name("s"), ShardId(0), HashKey(1 << 100))
            .await
            .unwrap();
        let (outcome, _) = once(&store, "s", producer("p", 0, 1), vec![low("b"), low("d")])
            .await
            .unwrap();
        assert_eq!(outcome, PutOnceOutcome::Stored);
        let texts: Vec<String> = (1..4)
            .flat_map(|id| texts(&read_all(&store, &shard("s", id)).unwrap_or_default()))
            .filter(|text| text.len() == 1)
            .collect();
        assert_eq!(texts, ["a", "c", "b", "d"]);
    });
}

/// It must not look as if the records had not been stored.
#[test]
fn a_request_whose_shard_is_forgotten_is_not_to_be_sent_again() {
    block_on(async {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let store = ShardStore::open_in(environment(&disk, &clock), options()).unwrap();
        create(&store, "s", 1).await;
        let put = async |sequence| once(&store, "s", producer("p", 0, sequence), request("p", 0, sequence, 3, 1)).await;
        put(0).await.unwrap();
        clock.advance(1_000);
        store
            .split_shard(&name("s"), ShardId(0), HashKey(1 << 127))
            .await
            .unwrap();
        put(1).await.unwrap();
        assert_eq!(put(0).await.unwrap().0, PutOnceOutcome::Repeated);
        clock.advance(25 * 3_600_000);
        let forget = StreamUpdate::ForgetClosedBefore(NOW_MS + 3_600_000);
        store.update_stream(&name("s"), forget).await.unwrap();
        let error = put(0).await.unwrap_err();
        assert!(
            matches!(error, StoreError::SequenceForgotten { sequence: 0, .. }),
            "{error}"
        );
        assert_eq!(put(1).await.unwrap().0, PutOnceOutcome::Repeated);
        assert_eq!(put(2).await.unwrap().0, PutOnceOutcome::Stored);
    });
}

#[test]
fn a_producer_that_was_forgotten_is_refused_and_not_stored_twice() {
    block_on(async {
        let disk = SimDisk::new();
        let mut store = open_roomy(&disk, 1 << 20).unwrap();
        create(&store, "s", 1).await;
        let put = async |store: &ShardStore, id: &str, sequence| {
            let entries = vec![entry("k", format!("{id}-{sequence}"))];
            once(store, "s", producer(id, 0, sequence), entries).await
        };
        for sequence in 0..2 {
            put(&store, "old", sequence).await.unwrap();
        }
        put(&store, "kept", 0).await.unwrap();
        for other in 0..PRODUCERS_PER_STREAM_MAX - 1 {
            put(&store, &format!("p{other}"), 0).await.unwrap();
        }
        for _ in 0..2 {
            for sequence in [1, 2] {
                let error = put(&store, "old", sequence).await.unwrap_err();
                assert!(matches!(error, StoreError::ProducerUnknown { .. }), "{error}");
                assert!(error.to_string().contains("epoch"), "{error}");
            }
            assert_eq!(put(&store, "kept", 0).await.unwrap().0, PutOnceOutcome::Repeated);
            drop(store);
            store = open_roomy(&disk, 1 << 20).unwrap();
        }
        assert_eq!(stored(&store, "s").len(), PRODUCERS_PER_STREAM_MAX + 2);
    });
}

#[test]
fn every_prefix_of_the_disk_operations_has_all_of_a_request_or_nothing_and_a_retry_completes_it() {
    block_on(async {
        let disk = SimDisk::new();
        let mut requests = Vec::new();
        let mut created = 0;
        for round in 0..2u64 {
            let store = open_roomy(&disk, 24 << 10).unwrap();
            if round == 0 {
                create(&store, "s", 3).await;
                created = disk.operations();
            }
            for index in 0..9u64 {
                let sequence = round * 9 + index;
                // Some are of several frames, as a batch is of several sectors.
                let entries = request("p", 0, sequence, 1 + index as usize * 4, 10 + 30 * index as usize);
                let (_, receipts) = once(&store, "s", producer("p", 0, sequence), entries.clone())
                    .await
                    .unwrap();
                requests.push((disk.operations(), entries, receipts));
                put(&store, "s", "k", format!("plain {sequence}")).await;
            }
        }
        assert!(
            disk.contents("0000000003.log").is_some(),
            "the history must roll segments"
        );
        let all = disk.operations();
        let mut incomplete = 0;
        for operations in created..=all {
            for crash in [
                Crash::Dropped,
                Crash::Kept,
                Crash::Torn(operations as u64),
                Crash::Torn(!operations as u64),
            ] {
                let context = format!("{operations} of {all} operations, {crash:?}");
                let after = disk.after_crash(operations, crash);
                let store = open_roomy(&after, 24 << 10).unwrap_or_else(|error| panic!("{context}: {error}"));
                assert!(store.damage().is_empty(), "{context}: {:?}", store.damage());
                let acknowledged = requests.iter().filter(|(done, _, _)| *done <= operations).count();
                let found = stored(&store, "s");
                for (at, (_, entries, receipts)) in requests.iter().enumerate() {
                    let there = entries
                        .iter()
                        .filter(|entry| found.contains_key(std::str::from_utf8(&entry.data).unwrap()))
                        .count();
                    assert!(
                        there == entries.len() || there == 0,
                        "{context}: {there} of request {at}"
                    );
                    if at < acknowledged {
                        assert_stored(&found, entries, receipts);
                    }
                    incomplete += usize::from(at == acknowledged && there == 0);
                }
                // The producer repeats its last request, and the one whose answer it does not know, and goes on.
                let from = acknowledged.saturating_sub(1);
                let mut expected = found.keys().filter(|text| text.starts_with("plain")).count();
                expected += requests[..from]
                    .iter()
                    .map(|(_, entries, _)| entries.len())
                    .sum::<usize>();
                for (sequence, (_, entries, receipts)) in requests.iter().enumerate().skip(from).take(3) {
                    let at = producer("p", 0, sequence as u64);
                    let (outcome, again) = once(&store, "s", at, entries.clone()).await.unwrap();
                    if sequence < acknowledged {
                        assert_eq!((outcome, &again), (PutOnceOutcome::Repeated, receipts), "{context}");
                    }
                    assert_stored(&stored(&store, "s"), entries, &again);
                    expected += entries.len();
                }
                let now = stored(&store, "s");
                assert_eq!(now.len(), expected, "{context}");
                drop(store);
                assert_eq!(stored(&open_roomy(&after, 24 << 10).unwrap(), "s"), now, "{context}");
            }
        }
        assert!(incomplete > 0);
    });
}

/// As a process that is killed while it writes leaves it: a part of the bytes, and zeros behind.
#[test]
fn a_request_that_is_cut_anywhere_is_there_as_a_whole_or_not_at_all() {
    block_on(async {
        let disk = SimDisk::new();
        let store = open_roomy(&disk, 64 << 10).unwrap();
        create(&store, "s", 3).await;
        put(&store, "s", "k", "before").await;
        let file = "0000000001.log";
        let end = |disk: &SimDisk| {
            let bytes = disk.contents(file).unwrap();
            bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1
        };
        let from = end(&disk);
        let entries = request("p", 0, 0, 12, 10);
        once(&store, "s", producer("p", 0, 0), entries.clone()).await.unwrap();
        drop(store);
        let (sound, to) = (disk.contents(file).unwrap(), end(&disk));
        for at in from..=to {
            let mut cut = sound.clone();
            cut[at..].fill(0);
            let copy = disk.copy();
            copy.overwrite(file, cut);
            let store = open_roomy(&copy, 64 << 10).unwrap();
            let expected = if at == to { 13 } else { 1 };
            assert_eq!(stored(&store, "s").len(), expected, "cut at {at}");
            put(&store, "s", "k", "after").await;
            drop(store);
            // What was cut does not come back with what was written over it.
            let store = open_roomy(&copy, 64 << 10).unwrap();
            assert_eq!(stored(&store, "s").len(), expected + 1, "cut at {at}");
            let (outcome, receipts) = once(&store, "s", producer("p", 0, 0), entries.clone()).await.unwrap();
            assert_eq!(outcome == PutOnceOutcome::Repeated, at == to);
            let all = stored(&store, "s");
            assert_stored(&all, &entries, &receipts);
            drop(store);
            assert_eq!(stored(&open_roomy(&copy, 64 << 10).unwrap(), "s"), all, "cut at {at}");
            assert_eq!(all.len(), 14, "cut at {at}");
        }
    });
}

/// A piece that was cut must not come back when another power cut hits recovery itself.
#[test]
fn a_power_cut_while_a_torn_request_is_removed_leaves_all_of_it_or_nothing() {
    block_on(async {
        let disk = SimDisk::new();
        let mut store = open_roomy(&disk, 64 << 10).unwrap();
        create(&store, "s", 3).await;
        put(&store, "s", "k", "before").await;
        let before = settle(disk, &mut store, &ManualClock::new(NOW_MS));
        let entries = request("p", 0, 0, 40, 30);
        once(&store, "s", producer("p", 0, 0), entries.clone()).await.unwrap();
        let written = before.operations() - 1;
        let mut cuts = 0;
        for seed in 0..60 {
            // The write is there, its sync is not.
            let torn = before.after_crash(written, Crash::Torn(seed)).copy();
            let mut reopened = open(&torn).unwrap();
            drop(reopened);
            cuts += usize::from(torn.operations() > 2);
            for operations in 0..=torn.operations() {
                // What recovery wrote before the second cut is torn over what the first one left.
                let twice = replay(&before, written, seed, &torn, operations);
                reopened = open(&twice).unwrap();
                let found = stored(&reopened, "s").len();
                assert!(
                    found == 1 || found == 41,
                    "{found} records, seed {seed}, {operations} operations"
                );
                let (_, receipts) = once(&reopened, "s", producer("p", 0, 0), entries.clone())
                    .await
                    .unwrap();
                let found = stored(&reopened, "s");
                assert_eq!(found.len(), 41);
                assert_stored(&found, &entries, &receipts);
            }
        }
        assert!(cuts > 10, "{cuts}");
    });
}

/// The disk after a torn write, and of recovery's own operations the first ones, half of them torn.
fn replay(before: &SimDisk, written: usize, seed: u64, recovered: &SimDisk, operations: usize) -> SimDisk {
    let first = before.after_crash(written, Crash::Torn(seed));
    let second = recovered.after_crash(operations, Crash::Torn(seed ^ 0x55));
    let base = before.after_crash(written, Crash::Torn(seed));
    use tidemill_shards::env::Disk;
    for file in base.list().unwrap() {
        let (old, new) = (
            first.contents(&file).unwrap(),
            recovered.contents(&file).unwrap_or_default(),
        );
        // Where the second disk has what recovery wrote, it is taken; elsewhere the old bytes stay.
        let mut bytes = old.clone();
        if let Some(partial) = second.contents(&file) {
            for (at, byte) in partial.iter().enumerate() {
                let is_written = new.get(at) == Some(byte) && old.get(at) != Some(byte);
                if is_written && at < bytes.len() {
                    bytes[at] = *byte;
                }
            }
        }
        base.overwrite(&file, bytes);
    }
    base.copy()
}

#[test]
fn any_flipped_byte_stores_nothing_twice() {
    block_on(async {
        let disk = SimDisk::new();
        let store = open_roomy(&disk, 64 << 10).unwrap();
        create(&store, "s", 2).await;
        let requests: Vec<_> = (0..4).map(|sequence| request("p", 0, sequence, 3, 4)).collect();
        let mut answers = Vec::new();
        for (sequence, entries) in requests.iter().enumerate() {
            let at = producer("p", 0, sequence as u64);
            answers.push(once(&store, "s", at, entries.clone()).await.unwrap().1);
        }
        put(&store, "s", "k", "last").await;
        drop(store);
        let file = "0000000001.log";
        let sound = disk.contents(file).unwrap();
        let written = sound.iter().rposition(|&byte| byte != 0).unwrap() + 1;
        let (mut refused, mut repeated, mut forgotten, mut quarantined) = (0, 0, 0, 0);
        for at in 0..written {
            let context = format!("byte {at} of {written}");
            let mut flipped = sound.clone();
            flipped[at] ^= 0x10;
            let copy = disk.copy();
            copy.overwrite(file, flipped);
            let store = match open_roomy(&copy, 64 << 10) {
                Ok(store) => store,
                Err(StoreError::Corrupt(_)) => {
                    refused += 1;
                    continue;
                }
                Err(error) => panic!("{context}: {error}"),
            };
            quarantined += usize::from(!store.damage().is_empty());
            for sequence in 1..requests.len() {
                let at = producer("p", 0, sequence as u64);
                match once(&store, "s", at, requests[sequence].clone()).await {
                    Ok((outcome, receipts)) => {
                        assert_eq!(
                            (outcome, &receipts),
                            (PutOnceOutcome::Repeated, &answers[sequence]),
                            "{context}"
                        );
                        repeated += 1;
                    }
                    Err(StoreError::ProducerUnknown { .. } | StoreError::SequenceForgotten { .. }) => forgotten += 1,
                    Err(error) => panic!("{context}: {error}"),
                }
            }
            if store.damage().is_empty() {
                let all = stored(&store, "s");
                assert!(all.len() == 12 || all.len() == 13, "{context}: {}", all.len());
            }
        }
        assert!(
            refused > 0 && repeated > 0 && forgotten > 0 && quarantined > 0,
            "{refused} {repeated} {forgotten} {quarantined}"
        );
    });
}

#[derive(Debug, Clone)]
enum Step {
    /// The next request of a producer; its answer may be lost.
    Put {
        producer: u8,
        records: usize,
        length: usize,
        lost: bool,
    },
    /// The last request of a producer comes so many times more, some at once.
    Repeat {
        producer: u8,
        times: u8,
    },
    /// Power cut after this share of the disk operations of a producer's request.
    CutWithin {
        producer: u8,
        records: usize,
        length: usize,
        share: u8,
        seed: u64,
    },
    Restarted {
        producer: u8,
    },
    Plain {
        records: u8,
    },
    Split {
        pick: u8,
        at: u128,
    },
    Merge {
        pick: u8,
    },
    Count {
        target: u8,
    },
    Recreate,
    Stop,
    PowerCut {
        seed: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = || (prop_oneof![Just(1usize), 1usize..40], 0usize..400);
    let step = prop_oneof![
        8 => (0u8..3, size(), any::<bool>())
            .prop_map(|(producer, (records, length), lost)| Step::Put { producer, records, length, lost }),
        4 => (0u8..3, 1u8..4).prop_map(|(producer, times)| Step::Repeat { producer, times }),
        5 => (0u8..3, size(), any::<u8>(), any::<u64>())
            .prop_map(|(producer, (records, length), share, seed)| Step::CutWithin { producer, records, length, share, seed }),
        1 => (0u8..3).prop_map(|producer| Step::Restarted { producer }),
        3 => (1u8..9).prop_map(|records| Step::Plain { records }),
        2 => (any::<u8>(), any::<u128>()).prop_map(|(pick, at)| Step::Split { pick, at }),
        2 => any::<u8>().prop_map(|pick| Step::Merge { pick }),
        1 => (1u8..6).prop_map(|target| Step::Count { target }),
        1 => Just(Step::Recreate),
        2 => Just(Step::Stop),
        2 => any::<u64>().prop_map(|seed| Step::PowerCut { seed }),
    ];
    prop::collection::vec(step, 1..40)
}

/// What a producer knows.
#[derive(Default)]
struct Sender {
    epoch: u64,
    /// The next sequence.
    next: u64,
    /// The last request, and its answer when that was not lost.
    last: Option<(Vec<PutEntry>, Option<Vec<PutReceipt>>)>,
}

struct World {
    store: ShardStore,
    senders: [Sender; 3],
    /// Where every record must be, by its data.
    expected: BTreeMap<String, PutReceipt>,
    plain: usize,
}

fn id(producer: u8) -> String {
    format!("producer-{producer}")
}

impl World {
    fn next_request(&mut self, of: u8, records: usize, length: usize) -> Vec<PutEntry> {
        let sender = &mut self.senders[usize::from(of)];
        request(&id(of), sender.epoch, sender.next, records, length)
    }

    /// Sends the last request of a producer until it is answered, and compares.
    async fn repeat(&mut self, of: u8, times: u8) {
        let sender = &mut self.senders[usize::from(of)];
        let Some((entries, answer)) = &mut sender.last else {
            return;
        };
        let at = producer(&id(of), sender.epoch, sender.next - 1);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..times {
            let (store, at, entries) = (self.store.clone(), at.clone(), entries.clone());
            tasks.spawn(async move { once(&store, "s", at, entries).await.unwrap() });
        }
        let was_known = answer.is_some();
        let mut first = 0;
        while let Some(done) = tasks.join_next().await {
            let (outcome, receipts) = done.unwrap();
            first += usize::from(outcome == PutOnceOutcome::Stored);
            assert_eq!(answer.get_or_insert_with(|| receipts.clone()), &receipts);
        }
        assert!(first <= usize::from(!was_known));
        let answer = answer.clone().unwrap();
        for (entry, receipt) in entries.iter().zip(answer) {
            let text = String::from_utf8(entry.data.to_vec()).unwrap();
            assert_eq!(*self.expected.entry(text).or_insert(receipt), receipt);
        }
    }

    /// Whoever does not know what became of its last request repeats that before the next one.
    async fn settle_last(&mut self, of: u8) {
        if matches!(self.senders[usize::from(of)].last, Some((_, None))) {
            self.repeat(of, 1).await;
        }
    }

    fn check(&self) {
        let all = stored(&self.store, "s");
        for (text, receipt) in &self.expected {
            assert_eq!(all.get(text), Some(receipt), "{text}");
        }
        // Beside them there may be the requests whose answer is not known: each as a whole.
        let mut unknown = 0;
        for sender in &self.senders {
            if let Some((entries, None)) = &sender.last {
                let there = entries
                    .iter()
                    .filter(|entry| all.contains_key(std::str::from_utf8(&entry.data).unwrap()))
                    .count();
                assert!(there == 0 || there == entries.len(), "{there} of {}", entries.len());
                unknown += there;
            }
        }
        assert_eq!(all.len(), self.expected.len() + unknown);
    }
}

async fn run(steps: Vec<Step>) {
    let mut disk = SimDisk::new();
    let clock = ManualClock::new(NOW_MS);
    let reopen = |disk: &SimDisk| {
        ShardStore::open_in(
            environment(disk, &clock),
            StoreOptions {
                segment_bytes: 32 << 10,
                ..options()
            },
        )
        .unwrap()
    };
    let store = reopen(&disk);
    create(&store, "s", 2).await;
    let mut world = World {
        store,
        senders: Default::default(),
        expected: BTreeMap::new(),
        plain: 0,
    };
    for step in steps {
        let open = world.store.describe_stream(&name("s")).unwrap();
        let open: Vec<_> = open.open_shards().cloned().collect();
        match step {
            Step::Put {
                producer: of,
                records,
                length,
                lost,
            } => {
                world.settle_last(of).await;
                let entries = world.next_request(of, records, length);
                let sender = &mut world.senders[usize::from(of)];
                let at = producer(&id(of), sender.epoch, sender.next);
                let (outcome, receipts) = once(&world.store, "s", at, entries.clone()).await.unwrap();
                assert_eq!(outcome, PutOnceOutcome::Stored);
                sender.next += 1;
                if lost {
                    sender.last = Some((entries, None));
                } else {
                    for (entry, receipt) in entries.iter().zip(&receipts) {
                        let text = String::from_utf8(entry.data.to_vec()).unwrap();
                        world.expected.insert(text, *receipt);
                    }
                    sender.last = Some((entries, Some(receipts)));
                }
            }
            Step::Repeat { producer, times } => world.repeat(producer, times).await,
            Step::CutWithin {
                producer: of,
                records,
                length,
                share,
                seed,
            } => {
                world.settle_last(of).await;
                let entries = world.next_request(of, records, length);
                let sender = &mut world.senders[usize::from(of)];
                let at = producer(&id(of), sender.epoch, sender.next);
                let before = disk.operations();
                once(&world.store, "s", at, entries.clone()).await.unwrap();
                let after = disk.operations();
                sender.next += 1;
                sender.last = Some((entries, None));
                let cut = before + (after - before) * usize::from(share) / 255;
                disk = disk.after_crash(cut, Crash::Torn(seed)).copy();
                world.store = reopen(&disk);
                disk = settle(disk, &mut world.store, &clock);
            }
            Step::Restarted { producer: of } => {
                world.settle_last(of).await;
                let sender = &mut world.senders[usize::from(of)];
                *sender = Sender {
                    epoch: sender.epoch + 1,
                    ..Sender::default()
                };
            }
            Step::Plain { records } => {
                for _ in 0..records {
                    world.plain += 1;
                    let text = format!("plain {}", world.plain);
                    let receipt = put(&world.store, "s", &text, text.clone()).await;
                    world.expected.insert(text, receipt);
                }
            }
            Step::Split { pick, at } => {
                let shard = &open[usize::from(pick) % open.len()];
                let range = shard.hash_range;
                let at = HashKey(range.start.0 + at % (range.end.0 - range.start.0).max(1));
                // Some places are refused.
                let _ = world.store.split_shard(&name("s"), shard.id, at).await;
            }
            Step::Merge { pick } => {
                let at = usize::from(pick) % open.len();
                if let Some(next) = open.get(at + 1) {
                    let _ = world.store.merge_shards(&name("s"), open[at].id, next.id).await;
                }
            }
            Step::Count { target } => {
                let update = StreamUpdate::ShardCount(target.into());
                let _ = world.store.update_stream(&name("s"), update).await;
            }
            Step::Recreate => {
                world.store.delete_stream(&name("s")).await.unwrap();
                create(&world.store, "s", 2).await;
                world.expected.clear();
                for (of, sender) in world.senders.iter_mut().enumerate() {
                    if sender.next > 1 {
                        let entries = request(&id(of as u8), sender.epoch, sender.next, 1, 0);
                        let at = producer(&id(of as u8), sender.epoch, sender.next);
                        let error = once(&world.store, "s", at, entries).await.unwrap_err();
                        assert!(matches!(error, StoreError::ProducerUnknown { .. }), "{error}");
                    }
                    *sender = Sender {
                        epoch: sender.epoch + 1,
                        ..Sender::default()
                    };
                }
            }
            Step::Stop => {
                drop(world.store);
                world.store = reopen(&disk);
            }
            Step::PowerCut { seed } => {
                let after = disk.after_crash(disk.operations(), Crash::Torn(seed));
                disk = after.copy();
                world.store = reopen(&disk);
                disk = settle(disk, &mut world.store, &clock);
            }
        }
        world.check();
    }
    for of in 0..3 {
        world.repeat(of, 2).await;
    }
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_history_stores_every_request_once(steps in steps()) {
        block_on(run(steps));
    }
}

// Over the API

struct Client(KinesisApi);

struct Answer {
    status: u16,
    outcome: Option<String>,
    body: Vec<u8>,
}

impl Answer {
    fn outcome(&self) -> Option<&str> {
        self.outcome.as_deref()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The names of the errors of its records.
    fn errors(&self) -> Vec<Option<String>> {
        let records = self.json()["Records"].as_array().unwrap().clone();
        let name = |record: &Value| record["ErrorCode"].as_str().map(str::to_owned);
        records.iter().map(name).collect()
    }
}

impl Client {
    async fn send(&self, operation: &str, numbers: Option<(&str, &str, &str)>, body: Value) -> Answer {
        let header = |pick: fn((&str, &str, &str)) -> String| numbers.map(pick);
        let context = RequestContext {
            producer: ProducerHeaders {
                id: header(|(id, _, _)| id.to_owned()),
                epoch: header(|(_, epoch, _)| epoch.to_owned()),
                sequence: header(|(_, _, sequence)| sequence.to_owned()),
            },
            ..RequestContext::default()
        };
        let target = format!("Kinesis_20131202.{operation}");
        let body = Bytes::from(body.to_string());
        let response = self
            .0
            .handle(&target, "application/x-amz-json-1.1", body, &context)
            .await;
        let outcome = response
            .headers
            .iter()
            .find(|(name, _)| *name == PRODUCER_OUTCOME_HEADER);
        let outcome = outcome.map(|(_, value)| value.clone());
        let ApiBody::Full(body) = response.body else {
            panic!("{operation} answers with a whole body")
        };
        Answer {
            status: response.status,
            outcome,
            body,
        }
    }
}

/// What a stream's limits refuse at first is told again as it was, and a request that is stored already is not refused.
#[test]
fn limits_of_a_stream_refuse_records_and_not_repetitions() {
    block_on(async {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let store = ShardStore::open_in(environment(&disk, &clock), options()).unwrap();
        let client = Client(KinesisApi::new(store.clone()));
        let create = json!({"StreamName": "s", "ShardCount": 2, "Tags": {"tidemill:capacity": "enforced"}});
        assert_eq!(client.send("CreateStream", None, create).await.status, 200);
        let records = |indices: std::ops::Range<usize>| {
            let hash_keys = ["0", "340282366920938463463374607431768211455"];
            let record = |index: usize| {
                let data = STANDARD.encode(format!("{index:0>60000}"));
                json!({"PartitionKey": "k", "ExplicitHashKey": hash_keys[index % 2], "Data": data})
            };
            json!({"StreamName": "s", "Records": indices.map(record).collect::<Vec<_>>()})
        };
        let first = client.send("PutRecords", Some(("p", "0", "0")), records(0..40)).await;
        assert_eq!(first.outcome(), Some("stored"));
        let errors = first.errors();
        let stored_at_first = errors.iter().filter(|error| error.is_none()).count();
        assert_eq!(stored_at_first, 34);
        assert_eq!(errors[39].as_deref(), Some("ProvisionedThroughputExceededException"));
        // While both shards have had their share, and when they have room: the same answer.
        for _ in 0..2 {
            let again = client.send("PutRecords", Some(("p", "0", "0")), records(0..40)).await;
            assert_eq!((again.outcome(), &again.body), (Some("repeated"), &first.body));
            let none = client.send("PutRecords", Some(("p", "0", "1")), records(34..40)).await;
            assert_eq!((none.status, none.outcome()), (200, Some("nothing")));
            assert!(none.errors().iter().all(Option::is_some));
            let one = json!({"StreamName": "s", "PartitionKey": "k", "ExplicitHashKey": "0", "Data": STANDARD.encode("x".repeat(60_000))});
            let one = client.send("PutRecord", Some(("p", "0", "1")), one).await;
            assert_eq!((one.status, one.outcome()), (400, Some("nothing")));
            assert_eq!(one.json()["__type"], "ProvisionedThroughputExceededException");
        }
        clock.advance(1_000);
        let again = client.send("PutRecords", Some(("p", "0", "0")), records(0..40)).await;
        assert_eq!((again.outcome(), &again.body), (Some("repeated"), &first.body));
        clock.advance(1_000);
        let rest = client.send("PutRecords", Some(("p", "0", "1")), records(34..40)).await;
        assert_eq!(rest.outcome(), Some("stored"));
        let all = stored(&store, "s");
        assert_eq!(all.len(), 40);
    });
}

#[test]
fn the_api_numbers_puts_by_headers_and_names_every_refusal() {
    block_on(async {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, "s", 2).await;
        let client = Client(KinesisApi::new(store.clone()));
        let many = |texts: &[&str]| {
            let record = |text: &&str| json!({"PartitionKey": text, "Data": STANDARD.encode(text)});
            json!({"StreamName": "s", "Records": texts.iter().map(record).collect::<Vec<_>>()})
        };
        let one = |text: &str| json!({"StreamName": "s", "PartitionKey": text, "Data": STANDARD.encode(text)});

        let first = client
            .send("PutRecords", Some(("p", "1", "0")), many(&["a", "b", "c"]))
            .await;
        assert_eq!((first.status, first.outcome()), (200, Some("stored")));
        let again = client
            .send("PutRecords", Some(("p", "1", "0")), many(&["a", "b", "c"]))
            .await;
        assert_eq!((again.status, again.outcome()), (200, Some("repeated")));
        assert_eq!(again.body, first.body);
        let single = client.send("PutRecord", Some(("p", "1", "1")), one("d")).await;
        assert_eq!((single.status, single.outcome()), (200, Some("stored")));
        let again = client.send("PutRecord", Some(("p", "1", "1")), one("d")).await;
        assert_eq!((again.outcome(), &again.body), (Some("repeated"), &single.body));
        let plain = client.send("PutRecord", None, one("e")).await;
        assert_eq!((plain.status, plain.outcome()), (200, None));

        for (numbers, body, expected) in [
            (("p", "1", "3"), one("x"), "OutOfSequenceException"),
            (("p", "0", "0"), one("x"), "ProducerFencedException"),
            (("p", "1", "1"), one("x"), "SequenceReusedException"),
            (("q", "0", "1"), one("x"), "UnknownProducerException"),
            (("q q", "0", "0"), one("x"), "ValidationException"),
            (("q", "-1", "0"), one("x"), "ValidationException"),
            (("q", "0", "zero"), one("x"), "ValidationException"),
        ] {
            let refused = client.send("PutRecord", Some(numbers), body).await;
            assert_eq!((refused.status, refused.outcome()), (400, None), "{numbers:?}");
            assert_eq!(refused.json()["__type"], expected, "{numbers:?}");
            assert!(refused.json()["message"].as_str().unwrap().len() > 40);
        }
        for sequence in 2..7 {
            let sent = client
                .send("PutRecord", Some(("p", "1", &sequence.to_string())), one("more"))
                .await;
            assert_eq!(sent.status, 200);
        }
        let old = client.send("PutRecord", Some(("p", "1", "1")), one("d")).await;
        assert_eq!(old.json()["__type"], "SequenceForgottenException");
        let elsewhere = client.send("ListStreams", Some(("p", "1", "0")), json!({})).await;
        assert_eq!(elsewhere.json()["__type"], "ValidationException");
        // What is only tried, or refused for another reason, uses no sequence.
        let mut tried = one("tried");
        tried["DryRun"] = true.into();
        let tried = client.send("PutRecord", Some(("p", "1", "7")), tried).await;
        assert_eq!(tried.json()["__type"], "DryRunOperationException");
        let mut other = one("other");
        other["StreamName"] = "nowhere".into();
        let nowhere = client.send("PutRecord", Some(("p", "1", "7")), other).await;
        assert_eq!(nowhere.json()["__type"], "ResourceNotFoundException");
        let next = client.send("PutRecord", Some(("p", "1", "7")), one("next")).await;
        assert_eq!(next.outcome(), Some("stored"));

        let mut found: Vec<String> = (0..2)
            .flat_map(|id| texts(&read_all(&store, &shard("s", id)).unwrap()))
            .collect();
        found.sort();
        assert_eq!(
            found,
            ["a", "b", "c", "d", "e", "more", "more", "more", "more", "more", "next"]
        );
    });
}
