//! Numbered requests over power cuts, kills and damage: all of a request or nothing, and nothing twice.

use tidemill_shards::env::{Crash, Disk, ManualClock, SimDisk};
use tidemill_shards::{PutOnceOutcome, StoreError};

use crate::model::settle;
use crate::producers::*;
use crate::support::*;

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
    let second = recovered.after_crash(operations, Crash::Torn(seed ^ 0x55));
    let base = before.after_crash(written, Crash::Torn(seed));
    for file in base.list().unwrap() {
        let (old, new) = (
            base.contents(&file).unwrap(),
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
