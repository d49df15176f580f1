//! One byte of one file flipped: of every file of a store, in turn.
//!
//! Either everything is read as it was written, or an error names the stream, the shard and the place, and the rest is
//! read all the same. Nothing is removed or rewritten because of it. A store that cannot know its metadata for sure does
//! not open, and names the file.

use std::collections::BTreeMap;

use tidemill_shards::env::{Disk, SimDisk};
use tidemill_shards::{Housekeeping, ReadFrom, SequenceNumber, ShardStore, StoreError, StoreOptions};

use crate::support::*;

const SHARDS: [(&str, u32); 3] = [("s", 0), ("other", 0), ("other", 1)];
/// Bytes of a segment's header.
const HEADER: usize = 64;
/// Bytes of an index without entries.
const EMPTY_INDEX: usize = 60;

/// What each shard holds: by the counter of the sequence number.
type Written = BTreeMap<(&'static str, u32), BTreeMap<u64, (SequenceNumber, String)>>;

/// Two streams over several segments: sealed ones with their index, the open one, and one that is prepared.
async fn store_with_all_kinds_of_files() -> (SimDisk, Written) {
    let disk = SimDisk::new();
    let options = StoreOptions {
        segment_bytes: 4 << 10,
        housekeeping: Housekeeping::Background,
        ..options()
    };
    let store = ShardStore::open_in(
        environment(&disk, &tidemill_shards::env::ManualClock::new(NOW_MS)),
        options,
    )
    .unwrap();
    create(&store, "s", 1).await;
    create(&store, "other", 2).await;
    let mut written = Written::new();
    for index in 0..50 {
        let stream = if index % 2 == 0 { "s" } else { "other" };
        let data = format!("{stream} {index}");
        let receipt = put(&store, stream, &format!("key {index}"), data.clone()).await;
        let before = written
            .entry((stream, receipt.shard.0))
            .or_default()
            .insert(receipt.sequence.counter, (receipt.sequence, data));
        assert_eq!(before, None);
    }
    drop(store);
    assert_eq!(written.len(), SHARDS.len());
    (disk, written)
}

fn files(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    let names = disk.list().unwrap();
    names
        .into_iter()
        .map(|name| (name.clone(), disk.contents(&name).unwrap()))
        .collect()
}

/// Every byte of headers, and of the rest enough that each field of each kind of frame is met.
fn places(file: &str, length: usize, written: usize) -> Vec<usize> {
    let all = 0..length;
    if file.ends_with(".index") {
        all.collect()
    } else {
        all.filter(|at| *at < HEADER || (*at < written && at % 3 == 0) || at % 97 == 0)
            .collect()
    }
}

#[derive(Debug, Default)]
struct Tally {
    unnoticed: usize,
    refused: usize,
    damaged: usize,
    last_batch: usize,
}

#[test]
fn any_flipped_byte_of_any_file_is_no_loss_or_an_error_that_names_the_place() {
    block_on(async {
        let (disk, written) = store_with_all_kinds_of_files().await;
        let sound = files(&disk);
        let logs: Vec<&String> = sound.keys().filter(|name| name.ends_with(".log")).collect();
        assert!(logs.len() >= 4, "{logs:?}");
        assert_eq!(
            logs.len(),
            sound.len() - (logs.len() - 2),
            "all but two segments have an index"
        );
        let (prepared, open_segment) = (logs[logs.len() - 1], logs[logs.len() - 2]);
        let zeros_from = |bytes: &[u8]| bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        assert_eq!(zeros_from(&sound[prepared]), HEADER);
        let newest: Vec<_> = written
            .iter()
            .map(|(shard, records)| (*shard, *records.last_key_value().unwrap().0))
            .collect();

        let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
        for (file, bytes) in &sound {
            for at in places(file, bytes.len(), zeros_from(bytes)) {
                let context = format!("byte {at} of {file}");
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << (at % 8);
                let copy = disk.copy();
                copy.overwrite(file, flipped.clone());
                let tally = tallies.entry(file).or_default();
                let opened = open(&copy);
                let store = match opened {
                    Ok(store) => store,
                    Err(StoreError::Corrupt(corruption)) => {
                        // Only what hides metadata, or the place where the log goes on, keeps the store from opening.
                        assert_eq!(
                            (&corruption.file, file),
                            (file, open_segment),
                            "{context}: {corruption}"
                        );
                        let mut expected = sound.clone();
                        expected.insert(file.clone(), flipped);
                        assert_eq!(
                            files(&copy),
                            expected,
                            "{context}: a store that does not open changes nothing"
                        );
                        tally.refused += 1;
                        continue;
                    }
                    Err(error) => panic!("{context}: {error}"),
                };
                let mut lost = Vec::new();
                for (stream, id) in SHARDS {
                    lost.extend(read_around_damage(
                        &store,
                        stream,
                        id,
                        &written[&(stream, id)],
                        file,
                        &context,
                    ));
                }
                match lost[..] {
                    [] => tally.unnoticed += 1,
                    // The last record of all was in the last batch: that cannot be told from a write that was torn.
                    [(shard, counter, false)] if newest.contains(&(shard, counter)) && file == open_segment => {
                        tally.last_batch += 1;
                    }
                    _ => {
                        assert!(lost.iter().all(|(.., is_told)| *is_told), "{context}: {lost:?}");
                        // Behind its header a byte is in one frame, and a frame is of one shard.
                        let shards: std::collections::BTreeSet<_> = lost.iter().map(|(shard, ..)| shard).collect();
                        assert!(at < HEADER || shards.len() == 1, "{context}: {lost:?}");
                        tally.damaged += 1;
                    }
                }
                drop(store);
                let after = files(&copy);
                for (name, before) in &sound {
                    let now = after
                        .get(name)
                        .unwrap_or_else(|| panic!("{context}: {name} was removed"));
                    if name == file && name.ends_with(".index") {
                        assert_eq!(now, before, "{context}: the index was not rebuilt");
                    } else if name == file && name != open_segment && name != prepared {
                        assert_eq!(now, &flipped, "{context}: {name} was rewritten");
                    } else if name != open_segment && name != prepared {
                        assert_eq!(now, before, "{context}: {name} was rewritten");
                    } else {
                        assert!(now.len() >= before.len(), "{context}: {name} was cut");
                    }
                }
            }
        }
        for (file, tally) in &tallies {
            eprintln!("{file}: {tally:?}");
            let Tally {
                refused,
                damaged,
                last_batch,
                ..
            } = *tally;
            if file.ends_with(".index") || *file == prepared {
                assert_eq!((refused, damaged, last_batch), (0, 0, 0), "{file}");
            } else if *file == open_segment {
                assert!(refused > 0 && damaged > 0 && last_batch > 0, "{file}: {tally:?}");
            } else {
                // One that was only needed for metadata has no record that could be damaged.
                let has_records = sound[&file.replace(".log", ".index")].len() > EMPTY_INDEX;
                assert_eq!((refused, damaged > 0, last_batch), (0, has_records, 0), "{file}");
            }
        }
    });
}

/// Reads a shard to its end; returns the records that are missing, each with whether an error told of it.
fn read_around_damage<'a>(
    store: &ShardStore,
    stream: &'a str,
    id: u32,
    written: &BTreeMap<u64, (SequenceNumber, String)>,
    file: &str,
    context: &str,
) -> Vec<((&'a str, u32), u64, bool)> {
    let at = shard(stream, id);
    let mut from = store.resolve(&at, ReadFrom::TrimHorizon).unwrap();
    from.counter = 1;
    let end = store.resolve(&at, ReadFrom::Latest).unwrap();
    let (mut found, mut told) = (BTreeMap::new(), Vec::new());
    while from < end {
        match store.read(&at, from, ALL) {
            Ok(batch) if batch.records.is_empty() => break,
            Ok(batch) => {
                let data = texts(&batch.records);
                found.extend(
                    batch
                        .records
                        .iter()
                        .zip(data)
                        .map(|(record, data)| (record.sequence.counter, (record.sequence, data))),
                );
                from = batch.next;
            }
            Err(StoreError::Corrupt(corruption)) => {
                assert_eq!(corruption.file, file, "{context}: {corruption}");
                assert_eq!(corruption.shards, [at.to_string()], "{context}: {corruption}");
                told.push(from.counter);
                from.counter += 1;
            }
            Err(error) => panic!("{context}: {error}"),
        }
    }
    for (counter, record) in &found {
        assert_eq!(
            Some(record),
            written.get(counter),
            "{context}: a record that nobody put"
        );
    }
    written
        .keys()
        .filter(|counter| !found.contains_key(counter))
        .map(|counter| ((stream, id), *counter, told.contains(counter)))
        .collect()
}
