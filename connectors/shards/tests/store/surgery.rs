//! Files of a log as somebody, or something, left them: garbage behind the last frame, files that are gone, swapped or of
//! another store, files of a later release.

use std::collections::BTreeMap;

use tidemill_shards::env::{Disk, Entropy, SeededEntropy, SimDisk};
use tidemill_shards::{ErrorKind, ReadFrom, ShardStore, StoreError, StoreOptions};

use crate::support::*;

const FIRST: &str = "0000000001.log";
const FIRST_INDEX: &str = "0000000001.index";
const SECOND: &str = "0000000002.log";

/// A log of one stream over several segments, and what it holds.
async fn sealed_log() -> (SimDisk, Vec<String>) {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    create(&store, "s", 1).await;
    let data: Vec<String> = (0..60).map(|index| format!("{index:0300}")).collect();
    for data in &data {
        put(&store, "s", "k", data.clone()).await;
    }
    drop(store);
    assert!(disk.contents("0000000003.log").is_some());
    (disk, data)
}

fn last_log(disk: &SimDisk) -> String {
    let mut names = disk.list().unwrap();
    names.retain(|name| name.ends_with(".log"));
    names.pop().unwrap()
}

fn written(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)
}

/// The records of `s` around damage, and how many positions answered with an error that names `file`.
fn around(store: &ShardStore, file: &str) -> (Vec<String>, usize) {
    let at = shard("s", 0);
    let mut from = store.resolve(&at, ReadFrom::TrimHorizon).unwrap();
    from.counter = 1;
    let end = store.resolve(&at, ReadFrom::Latest).unwrap();
    let (mut found, mut damaged) = (Vec::new(), 0);
    while from < end {
        match store.read(&at, from, ALL) {
            Ok(batch) if batch.records.is_empty() => break,
            Ok(batch) => {
                found.extend(texts(&batch.records));
                from = batch.next;
            }
            Err(StoreError::Corrupt(corruption)) => {
                assert_eq!(corruption.file, file, "{corruption}");
                assert_eq!(corruption.shards, [at.to_string()], "{corruption}");
                damaged += 1;
                from.counter += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    (found, damaged)
}

#[test]
fn garbage_behind_the_last_frame_is_cut_and_no_record_is_lost() {
    block_on(async {
        let (disk, data) = sealed_log().await;
        let last = last_log(&disk);
        let sound = disk.contents(&last).unwrap();
        let end = written(&sound).next_multiple_of(8);
        let room = sound.len() - end;
        assert!(room > 500, "{room} bytes behind the last frame");
        let random = |seed| {
            let mut bytes = vec![0; room];
            SeededEntropy::new(seed).fill(&mut bytes).unwrap();
            bytes
        };
        let older = disk.contents(FIRST).unwrap();
        let mut shifted = older[64..].to_vec();
        shifted.rotate_left(8);
        let other = {
            let other = SimDisk::new();
            let store = open(&other).unwrap();
            create(&store, "s", 1).await;
            for index in 0..200 {
                put(&store, "s", "k", format!("foreign {index}")).await;
            }
            drop(store);
            other.contents(FIRST).unwrap()
        };
        let tails: Vec<(&str, Vec<u8>)> = vec![
            ("zeros", Vec::new()),
            ("ones", vec![0xff; room]),
            ("random", random(1)),
            ("other random", random(2)),
            ("a segment's header", sound[..64].to_vec()),
            // At the same offsets as in the file that they were written to.
            ("frames of an earlier segment", older[end..].to_vec()),
            ("frames of another store", other[end..].to_vec()),
            // From the same file, at another place.
            ("its own frames once more", sound[64..end].to_vec()),
            ("older frames at another place", shifted),
            ("magics of frames", b"TMF1\x01\x01\0\0".repeat(room / 8)),
        ];
        for (what, mut tail) in tails {
            tail.resize(room, 0);
            let copy = disk.copy();
            copy.overwrite(&last, [&sound[..end], &tail[..]].concat());
            for round in 0..2 {
                let store = open(&copy).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert!(store.damage().is_empty(), "{what}: {:?}", store.damage());
                let found = texts(&read_all(&store, &shard("s", 0)).unwrap());
                assert_eq!(found[..60], data, "{what}");
                assert_eq!(found.len(), 60 + round, "{what}");
                put(&store, "s", "k", format!("more {round}")).await;
            }
        }
    });
}

#[test]
fn an_index_that_is_gone_or_wrong_is_rebuilt_from_the_log() {
    block_on(async {
        let (disk, data) = sealed_log().await;
        let sound = disk.contents(FIRST_INDEX).unwrap();
        let other = {
            let (other, _) = sealed_log().await;
            other.contents(FIRST_INDEX).unwrap()
        };
        assert_ne!(sound, other);
        let mut newer = sound.clone();
        newer[8] = 9;
        let end = newer.len() - 4;
        let crc = crc32c::crc32c(&newer[..end]);
        newer[end..].copy_from_slice(&crc.to_le_bytes());
        let cases: [(&str, Option<Vec<u8>>); 6] = [
            ("gone", None),
            ("empty", Some(Vec::new())),
            ("cut", Some(sound[..sound.len() / 2].to_vec())),
            ("another segment's", disk.contents("0000000002.index")),
            ("another store's", Some(other)),
            ("a later version", Some(newer)),
        ];
        for (what, contents) in cases {
            let copy = disk.copy();
            match contents {
                None => copy.remove(FIRST_INDEX),
                Some(contents) => copy.overwrite(FIRST_INDEX, contents),
            }
            let store = open(&copy).unwrap();
            assert_eq!(texts(&read_all(&store, &shard("s", 0)).unwrap()), data, "{what}");
            assert_eq!(copy.contents(FIRST_INDEX).unwrap(), sound, "{what}");
        }
        // All of them at once.
        let copy = disk.copy();
        for name in copy.list().unwrap().iter().filter(|name| name.ends_with(".index")) {
            copy.remove(name);
        }
        let store = open(&copy).unwrap();
        assert_eq!(texts(&read_all(&store, &shard("s", 0)).unwrap()), data);
    });
}

/// The snapshot at the start of the newest segment is damaged, and that of the segment before as well.
#[test]
fn damaged_snapshots_are_made_up_for_by_an_older_one() {
    block_on(async {
        let (disk, data) = sealed_log().await;
        let logs: Vec<String> = disk
            .list()
            .unwrap()
            .into_iter()
            .filter(|name| name.ends_with(".log"))
            .collect();
        let newest_first: Vec<&String> = logs.iter().rev().collect();
        for damaged in 1..logs.len() {
            let copy = disk.copy();
            for name in &newest_first[..damaged] {
                let mut bytes = copy.contents(name).unwrap();
                // In the payload of the first frame, which is the snapshot.
                bytes[64 + 72 + 20] ^= 4;
                copy.overwrite(name, bytes);
            }
            let before: BTreeMap<_, _> = logs.iter().map(|name| (name, copy.contents(name))).collect();
            let store = open(&copy).unwrap_or_else(|error| panic!("{damaged} damaged: {error}"));
            assert!(store.damage().is_empty(), "{:?}", store.damage());
            assert_eq!(
                texts(&read_all(&store, &shard("s", 0)).unwrap()),
                data,
                "{damaged} damaged"
            );
            put(&store, "s", "k", "more").await;
            drop(store);
            for (name, bytes) in before.iter().rev().skip(1) {
                assert_eq!(&copy.contents(name), bytes, "{name} was rewritten");
            }
        }
        // Without any, nobody knows what there is: nothing is touched.
        let copy = disk.copy();
        for name in &logs {
            let mut bytes = copy.contents(name).unwrap();
            bytes[64 + 72 + 20] ^= 4;
            copy.overwrite(name, bytes);
        }
        let before = contents(&copy);
        let error = open(&copy).unwrap_err();
        assert!(
            matches!(&error, StoreError::Corrupt(corruption) if corruption.file == FIRST),
            "{error}"
        );
        assert!(contents(&copy) == before);
    });
}

fn contents(disk: &SimDisk) -> BTreeMap<String, Option<Vec<u8>>> {
    let names = disk.list().unwrap();
    names
        .into_iter()
        .map(|name| (name.clone(), disk.contents(&name)))
        .collect()
}

/// What is wrong with a sealed segment is told by the reads that need it, with and without its index; what the others
/// hold is read.
#[test]
fn sealed_segments_that_are_gone_foreign_or_swapped_are_told() {
    block_on(async {
        let (disk, data) = sealed_log().await;
        let first = disk.contents(FIRST).unwrap();
        let second = disk.contents(SECOND).unwrap();
        let (other, _) = sealed_log().await;
        let foreign = other.contents(FIRST).unwrap();
        assert_ne!(first, foreign);
        let mut renumbered = second.clone();
        renumbered[12..16].copy_from_slice(&1u32.to_le_bytes());
        let crc = crc32c::crc32c(&renumbered[..60]);
        renumbered[60..64].copy_from_slice(&crc.to_le_bytes());
        let mut damaged_header = first.clone();
        damaged_header[20] ^= 1;
        let cases: Vec<(&str, Option<Vec<u8>>)> = vec![
            ("gone", None),
            ("empty", Some(Vec::new())),
            ("shorter", Some(first[..first.len() / 2].to_vec())),
            ("the next one's content", Some(second)),
            ("the next one's content under its number", Some(renumbered)),
            ("another store's", Some(foreign)),
            ("damaged in the header", Some(damaged_header)),
        ];
        for (what, contents) in cases {
            for has_index in [true, false] {
                let context = format!("{what}, index: {has_index}");
                let copy = disk.copy();
                match &contents {
                    None => copy.remove(FIRST),
                    Some(contents) => copy.overwrite(FIRST, contents.clone()),
                }
                if !has_index {
                    copy.remove(FIRST_INDEX);
                }
                for round in 0..2 {
                    let store = open(&copy).unwrap_or_else(|error| panic!("{context}: {error}"));
                    let (found, damaged) = around(&store, FIRST);
                    assert_eq!(found.len() + damaged, 60 + round, "{context}");
                    assert!(damaged > 0 && found.len() > 20, "{context}: {damaged}");
                    let whole: Vec<&String> = found.iter().filter(|data| data.len() == 300).collect();
                    assert!(whole.iter().all(|found| data.contains(found)), "{context}");
                    assert!(whole.is_sorted(), "{context}");
                    assert_eq!(copy.contents(FIRST), contents, "{context}: the file was touched");
                    put(&store, "s", "k", "more").await;
                }
                // Put back, it is read again: with the index that was made without it, too.
                copy.overwrite(FIRST, first.clone());
                let store = open(&copy).unwrap();
                let (found, damaged) = around(&store, FIRST);
                assert_eq!((found.len(), damaged), (62, 0), "{context}: put back");
            }
        }
    });
}

/// Two sealed segments under each other's name.
#[test]
fn swapped_segments_are_told_apart_by_their_headers() {
    block_on(async {
        let (disk, data) = sealed_log().await;
        let (first, second) = (disk.contents(FIRST).unwrap(), disk.contents(SECOND).unwrap());
        disk.overwrite(FIRST, second);
        disk.overwrite(SECOND, first);
        let store = open(&disk).unwrap();
        let mut from = store.resolve(&shard("s", 0), ReadFrom::TrimHorizon).unwrap();
        let error = store.read(&shard("s", 0), from, ALL).unwrap_err();
        assert!(error.to_string().contains("renamed or swapped"), "{error}");
        let end = store.resolve(&shard("s", 0), ReadFrom::Latest).unwrap();
        let mut found = Vec::new();
        while from < end {
            match store.read(&shard("s", 0), from, ALL) {
                Ok(batch) => {
                    found.extend(texts(&batch.records));
                    from = batch.next;
                }
                Err(_) => from.counter += 1,
            }
        }
        assert!(!found.is_empty() && data.ends_with(&found), "{} records", found.len());
    });
}

/// A directory that a later release has written.
#[test]
fn a_later_format_is_refused_and_no_byte_is_touched() {
    block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let options = || StoreOptions {
            segment_bytes: 64 << 10,
            ..options()
        };
        let store = ShardStore::open(directory.path(), options()).unwrap();
        create(&store, "s", 1).await;
        for index in 0..40 {
            put(&store, "s", "k", format!("{index:05000}")).await;
        }
        drop(store);
        let files = || -> BTreeMap<String, Vec<u8>> {
            std::fs::read_dir(directory.path())
                .unwrap()
                .map(|entry| entry.unwrap())
                .map(|entry| {
                    let name = entry.file_name().into_string().unwrap();
                    (name, std::fs::read(entry.path()).unwrap())
                })
                .collect()
        };
        let sound = files();
        let logs: Vec<&String> = sound.keys().filter(|name| name.ends_with(".log")).collect();
        assert!(logs.len() >= 3, "{logs:?}");
        // All of them; or only those that the later release has begun.
        for from in [0, logs.len() - 1] {
            for name in &logs[from..] {
                let mut bytes = sound[*name].clone();
                bytes[8] = 2;
                let crc = crc32c::crc32c(&bytes[..60]);
                bytes[60..64].copy_from_slice(&crc.to_le_bytes());
                std::fs::write(directory.path().join(name), bytes).unwrap();
            }
            let before = files();
            let error = ShardStore::open(directory.path(), options()).unwrap_err();
            assert!(
                matches!(
                    &error,
                    StoreError::NewerFormat {
                        found: 2,
                        supported: 1,
                        ..
                    }
                ),
                "{error}"
            );
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(files() == before, "a file was touched");
            for (name, bytes) in &sound {
                std::fs::write(directory.path().join(name), bytes).unwrap();
            }
        }
        let store = ShardStore::open(directory.path(), options()).unwrap();
        assert_eq!(read_all(&store, &shard("s", 0)).unwrap().len(), 40);
    });
}
