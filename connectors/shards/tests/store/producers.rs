//! Producers that number their requests: each is stored once, whatever is repeated. Also what the tests of crashes, of random
//! histories and of the API (`producers_crash`, `producers_model`, `producers_api`) have in common.

use std::collections::BTreeMap;

use tidemill_shards::env::{ManualClock, SimDisk};
use tidemill_shards::limits::{PRODUCER_REQUESTS_MAX, PRODUCERS_PER_STREAM_MAX, PUT_RECORDS_MAX};
use tidemill_shards::{
    ErrorKind, HashKey, Producer, ProducerId, PutEntry, PutOnce, PutOnceOutcome, PutReceipt, ShardId, ShardRef,
    ShardStore, StoreError, StoreOptions, StreamUpdate,
};

use crate::support::*;

/// Segments that hold several requests: each may take some kilobytes, and room for that is made before.
pub(crate) fn open_roomy(disk: &SimDisk, segment_bytes: u64) -> Result<ShardStore, StoreError> {
    let options = StoreOptions {
        segment_bytes,
        ..options()
    };
    ShardStore::open_in(environment(disk, &ManualClock::new(NOW_MS)), options)
}

pub(crate) fn producer(id: &str, epoch: u64, sequence: u64) -> Producer {
    Producer {
        id: ProducerId::new(id).unwrap(),
        epoch,
        sequence,
    }
}

/// Records that tell which request they are of; keys of several shards, and some longer than a frame.
pub(crate) fn request(id: &str, epoch: u64, sequence: u64, records: usize, length: usize) -> Vec<PutEntry> {
    (0..records)
        .map(|at| {
            let text = format!("{id}/{epoch}/{sequence}/{at}/{}", "x".repeat(length));
            entry(&format!("key {}", (at * 7 + sequence as usize) % 11), text)
        })
        .collect()
}

pub(crate) fn receipts(put: PutOnce) -> Vec<PutReceipt> {
    put.results.into_iter().map(Result::unwrap).collect()
}

pub(crate) async fn once(
    store: &ShardStore,
    stream: &str,
    producer: Producer,
    entries: Vec<PutEntry>,
) -> Result<(PutOnceOutcome, Vec<PutReceipt>), StoreError> {
    let put = store.put_records_once(&name(stream), producer, entries).await?;
    Ok((put.outcome, receipts(put)))
}

/// All records of a stream by their data, each with where it is; none may be there twice.
pub(crate) fn stored(store: &ShardStore, stream: &str) -> BTreeMap<String, PutReceipt> {
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

pub(crate) fn assert_stored(all: &BTreeMap<String, PutReceipt>, entries: &[PutEntry], receipts: &[PutReceipt]) {
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
