//! Every byte of a small log cut and flipped: what is read is right, or a typed error.

use tidemill_shards::env::SimDisk;
use tidemill_shards::{ShardStore, StoreError};

use crate::support::*;

/// A log of two streams over several batches.
async fn small_log() -> (SimDisk, Vec<String>) {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    create(&store, "s", 1).await;
    create(&store, "other", 1).await;
    let mut data = Vec::new();
    for index in 0..6 {
        data.push(format!("record {index}"));
        put(&store, "s", "k", data[index].clone()).await;
        put(&store, "other", "k", format!("other {index}")).await;
    }
    (disk, data)
}

/// Reads until damage and from behind it; every record must be one that was written, at its place.
fn check(store: &ShardStore, stream: &str, prefix: &str, context: &str) -> (usize, usize) {
    let (mut sound, mut damaged) = (0, 0);
    let shard = shard(stream, 0);
    let mut from = store.resolve(&shard, tidemill_shards::ReadFrom::TrimHorizon).unwrap();
    from.counter = 1;
    let end = store.resolve(&shard, tidemill_shards::ReadFrom::Latest).unwrap();
    while from < end {
        match store.read(&shard, from, ALL) {
            Ok(batch) if batch.records.is_empty() => break,
            Ok(batch) => {
                for record in &batch.records {
                    let counter = record.sequence.counter;
                    let expected = format!("{prefix} {}", counter - 1);
                    assert_eq!(texts(std::slice::from_ref(record)), [expected], "{context}");
                }
                sound += batch.records.len();
                from = batch.next;
            }
            Err(StoreError::Corrupt(corruption)) => {
                assert!(corruption.file.ends_with(".log"), "{context}: {corruption}");
                assert_eq!(corruption.shards, [shard.to_string()], "{context}");
                damaged += 1;
                from.counter += 1;
            }
            Err(error) => panic!("{context}: {error}"),
        }
    }
    (sound, damaged)
}

#[test]
fn any_flipped_byte_of_the_open_segment_is_noticed() {
    block_on(async {
        let (disk, data) = small_log().await;
        let file = "0000000001.log";
        let sound = disk.contents(file).unwrap();
        let written = sound.iter().rposition(|&byte| byte != 0).unwrap() + 1;
        let (mut refused, mut quarantined, mut cut) = (0, 0, 0);
        for at in 0..written {
            let context = format!("byte {at} of {written}");
            let mut flipped = sound.clone();
            flipped[at] ^= 0x40;
            let copy = disk.copy();
            copy.overwrite(file, flipped);
            let store = match open(&copy) {
                Ok(store) => store,
                Err(StoreError::Corrupt(corruption)) => {
                    assert_eq!(corruption.file, file, "{context}");
                    refused += 1;
                    continue;
                }
                Err(error) => panic!("{context}: {error}"),
            };
            let (records, damaged) = check(&store, "s", "record", &context);
            let (others, others_damaged) = check(&store, "other", "other", &context);
            if damaged + others_damaged > 0 {
                quarantined += 1;
                // How many records a frame held whose header is damaged may be unknown; it is one here.
                assert_eq!(records + others, 11, "{context}");
                assert!(damaged == 0 || others_damaged == 0, "{context}");
                assert_eq!(store.damage().len(), 1, "{context}");
                // The damaged shard takes no more; the other one does.
                let (bad, good) = if damaged > 0 { ("s", "other") } else { ("other", "s") };
                let outcome = store
                    .put_records(&name(bad), vec![entry("k", "x")])
                    .await
                    .unwrap()
                    .remove(0);
                assert!(matches!(outcome, Err(StoreError::Limit(_))), "{context}: {outcome:?}");
                put(
                    &store,
                    good,
                    "k",
                    format!("{} 6", if good == "s" { "record" } else { "other" }),
                )
                .await;
                // It stays so after another start.
                drop(store);
                let store = open(&copy).unwrap();
                assert!(
                    check(&store, bad, if bad == "s" { "record" } else { "other" }, &context).1 > 0,
                    "{context}"
                );
            } else {
                // Damage in the last frame cannot be told from a torn write; that in padding or snapshot is no loss.
                assert_eq!(records, data.len(), "{context}");
                assert!(others >= 5, "{context}");
                cut += usize::from(others == 5);
            }
        }
        assert!(
            refused > 0 && quarantined > 0 && cut > 0,
            "{refused} {quarantined} {cut}"
        );
    });
}

#[test]
fn a_log_cut_anywhere_holds_a_prefix() {
    block_on(async {
        let (disk, data) = small_log().await;
        let file = "0000000001.log";
        let sound = disk.contents(file).unwrap();
        let written = sound.iter().rposition(|&byte| byte != 0).unwrap() + 1;
        for at in 64..=written {
            let copy = disk.copy();
            let mut cut = sound.clone();
            if at % 2 == 0 {
                cut.truncate(at);
            } else {
                cut[at..].fill(0);
            }
            copy.overwrite(file, cut);
            let store = open(&copy).unwrap_or_else(|error| panic!("cut at {at}: {error}"));
            if store.describe_stream(&name("s")).is_ok() {
                let found = texts(&read_all(&store, &shard("s", 0)).unwrap());
                assert_eq!(found, data[..found.len()], "cut at {at}");
                put(&store, "s", "k", "more").await;
            }
        }
    });
}

#[test]
fn damage_in_a_sealed_segment_is_an_error_for_that_range_only() {
    block_on(async {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, "s", 1).await;
        create(&store, "other", 1).await;
        for index in 0..60 {
            put(&store, "s", "k", format!("record {index}")).await;
            put(&store, "other", "k", format!("other {index}")).await;
        }
        drop(store);
        let file = "0000000001.log";
        let sound = disk.contents(file).unwrap();
        assert!(disk.contents("0000000002.log").is_some());
        for at in (64..sound.len()).step_by(37) {
            for index in [true, false] {
                let context = format!("byte {at}, index {index}");
                let mut flipped = sound.clone();
                flipped[at] ^= 1;
                let copy = disk.copy();
                copy.overwrite(file, flipped);
                if !index {
                    copy.remove("0000000001.index");
                }
                let store = open(&copy).unwrap_or_else(|error| panic!("{context}: {error}"));
                let (records, damaged) = check(&store, "s", "record", &context);
                let (others, others_damaged) = check(&store, "other", "other", &context);
                assert_eq!(records + damaged, 60, "{context}");
                assert_eq!(others + others_damaged, 60, "{context}");
                assert!(damaged + others_damaged <= 1, "{context}");
            }
        }
        // A missing, a foreign and a shortened file.
        for what in ["missing", "foreign", "short"] {
            let copy = disk.copy();
            match what {
                "missing" => copy.remove(file),
                "foreign" => copy.overwrite(file, disk.contents("0000000002.log").unwrap()),
                _ => copy.overwrite(file, sound[..sound.len() / 2].to_vec()),
            }
            let store = open(&copy).unwrap();
            let (records, damaged) = check(&store, "s", "record", what);
            assert_eq!(records + damaged, 60, "{what}");
            assert!(damaged > 0 && records > 0, "{what}");
        }
    });
}

#[test]
fn a_missing_last_segment_is_not_taken_for_an_empty_store() {
    block_on(async {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, "s", 1).await;
        for index in 0..60 {
            put(&store, "s", "k", format!("{index:0100}")).await;
        }
        drop(store);
        let logs: Vec<String> = (1..)
            .map(|number| format!("{number:010}.log"))
            .take_while(|name| disk.contents(name).is_some())
            .collect();
        for name in &logs {
            disk.remove(name);
        }
        let error = open(&disk).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
    });
}
