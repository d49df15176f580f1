//! Faults that the operating system makes, without root: writes cut short, a device without room, a disk that cannot read,
//! a directory that is none. What changes a limit of the process runs in a child process of its own.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use tidemill_shards::env::SimDisk;
use tidemill_shards::limits::ROOM_RETRY_MS;
use tidemill_shards::{Housekeeping, ReadFrom, ShardStore, StoreError, StoreOptions};

use crate::kinesis::Client;
use crate::support::*;

const CHILD: &str = "TIDEMILL_SHARDS_CHILD";
const PATIENCE: Duration = Duration::from_secs(120);

fn options() -> StoreOptions {
    StoreOptions {
        segment_bytes: 64 << 10,
        housekeeping: Housekeeping::Inline,
        ..StoreOptions::default()
    }
}

/// Runs a test of this file in a process of its own; true in that process.
fn is_child(test: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("kernel::{test}"), "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

/// Lets no write of this process reach beyond an offset; it is cut short there, and then fails.
fn set_file_limit(bytes: Option<u64>) {
    // Blocked, in this thread and those that it starts from now on, the signal that would end the process waits, and the
    // write fails with EFBIG.
    SigSet::from(Signal::SIGXFSZ).thread_block().unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, bytes.unwrap_or(hard), hard).unwrap();
}

#[test]
fn a_write_that_is_cut_short_poisons_and_what_was_acknowledged_is_read_back() {
    if !is_child("a_write_that_is_cut_short_poisons_and_what_was_acknowledged_is_read_back") {
        return;
    }
    // Every phase of a sector and of a frame.
    for limit in (20_000..21_000).step_by(71) {
        let directory = tempfile::tempdir().unwrap();
        set_file_limit(None);
        block_on(async {
            let store = ShardStore::open(directory.path(), options()).unwrap();
            create(&store, "s", 1).await;
            set_file_limit(Some(limit));
            let mut acknowledged = Vec::new();
            let failure = loop {
                let records: Vec<String> = (0..3)
                    .map(|index| format!("{:0400}", acknowledged.len() + index))
                    .collect();
                let entries = records.iter().map(|data| entry("k", data.clone())).collect();
                match store.put_records(&name("s"), entries).await {
                    Ok(_) => acknowledged.extend(records),
                    Err(error) => break error,
                }
            };
            assert!(matches!(failure, StoreError::Poisoned { .. }), "{failure}");
            assert!(failure.to_string().contains("0000000001.log"), "{failure}");
            assert!(acknowledged.len() > 10, "{}", acknowledged.len());
            // There is room again; the log does not go on behind the gap all the same.
            set_file_limit(None);
            let again = store.put_records(&name("s"), vec![entry("k", "x")]).await.unwrap_err();
            assert_eq!(again, failure);
            assert_eq!(texts(&read_all(&store, &shard("s", 0)).unwrap()), acknowledged);
            drop(store);
            for round in 0..2 {
                let store = ShardStore::open(directory.path(), options()).unwrap();
                assert!(store.damage().is_empty());
                let found = texts(&read_all(&store, &shard("s", 0)).unwrap());
                assert_eq!(found[..acknowledged.len()], acknowledged, "limit {limit}");
                // Of what was not acknowledged all records of the request are there, or none; here the batch was cut.
                assert_eq!(found.len(), acknowledged.len() + round, "limit {limit}");
                put(&store, "s", "k", "sound").await;
            }
        });
    }
}

#[test]
fn a_segment_that_cannot_be_prepared_refuses_and_the_log_goes_on_later() {
    if !is_child("a_segment_that_cannot_be_prepared_refuses_and_the_log_goes_on_later") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    set_file_limit(None);
    block_on(async {
        let store = ShardStore::open(directory.path(), options()).unwrap();
        create(&store, "s", 1).await;
        put(&store, "s", "k", vec![b'a'; 30_000]).await;
        set_file_limit(Some(40_000));
        let large = || store_large(&store);
        let error = large().await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, StoreError::Io { .. }), "{text}");
        assert!(
            text.contains("0000000002.log") && text.contains("File too large"),
            "{text}"
        );
        assert_eq!(store.failure(), None);
        put(&store, "s", "k", "what fits is taken").await;
        set_file_limit(None);
        let start = Instant::now();
        while let Err(error) = large().await {
            assert!(start.elapsed() < PATIENCE, "{error}");
            tokio::time::sleep(Duration::from_millis(ROOM_RETRY_MS / 4)).await;
        }
        let sizes = |store: &ShardStore| -> Vec<usize> {
            let records = read_all(store, &shard("s", 0)).unwrap();
            records.iter().map(|record| record.data.len()).collect()
        };
        assert_eq!(sizes(&store), [30_000, 18, 40_000]);
        drop(store);
        assert_eq!(
            sizes(&ShardStore::open(directory.path(), options()).unwrap()),
            [30_000, 18, 40_000]
        );
    });
}

async fn store_large(store: &ShardStore) -> Result<(), StoreError> {
    let entries = vec![entry("k", vec![b'b'; 40_000])];
    store.put_records(&name("s"), entries).await.map(drop)
}

#[test]
fn a_device_without_room_refuses_and_the_log_goes_on_when_there_is_some() {
    let directory = tempfile::tempdir().unwrap();
    let unfinished = directory.path().join("0000000002.log.tmp");
    block_on(async {
        let store = ShardStore::open(directory.path(), options()).unwrap();
        create(&store, "s", 1).await;
        put(&store, "s", "k", vec![b'a'; 30_000]).await;
        symlink("/dev/full", &unfinished).unwrap();
        let error = store_large(&store).await.unwrap_err();
        assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
        assert!(
            error.to_string().contains(&directory.path().display().to_string()),
            "{error}"
        );
        put(&store, "s", "k", "what fits is taken").await;
        std::fs::remove_file(&unfinished).unwrap();
        let start = Instant::now();
        while let Err(error) = store_large(&store).await {
            assert!(start.elapsed() < PATIENCE, "{error}");
            tokio::time::sleep(Duration::from_millis(ROOM_RETRY_MS / 4)).await;
        }
        assert_eq!(read_all(&store, &shard("s", 0)).unwrap().len(), 3);
    });
}

/// Reading address 0 of a process is an input/output error: the same that a disk with a bad sector gives.
#[test]
fn what_the_disk_cannot_read_is_told_with_shard_and_range() {
    let directory = tempfile::tempdir().unwrap();
    block_on(async {
        let store = ShardStore::open(directory.path(), options()).unwrap();
        create(&store, "s", 1).await;
        for index in 0..30 {
            put(&store, "s", "k", format!("{index:05000}")).await;
        }
        drop(store);
        let first = directory.path().join("0000000001.log");
        let aside = directory.path().join("aside");
        std::fs::rename(&first, &aside).unwrap();
        symlink("/proc/self/mem", &first).unwrap();
        let store = ShardStore::open(directory.path(), options()).unwrap();
        let at = shard("s", 0);
        let mut from = store.resolve(&at, ReadFrom::TrimHorizon).unwrap();
        from.counter = 1;
        let end = store.resolve(&at, ReadFrom::Latest).unwrap();
        let (mut found, mut damaged) = (0, 0);
        while from < end {
            match store.read(&at, from, ALL) {
                Ok(batch) => {
                    found += batch.records.len();
                    from = batch.next;
                }
                Err(StoreError::Corrupt(corruption)) => {
                    assert_eq!(corruption.file, "0000000001.log");
                    assert_eq!(corruption.shards, ["s/shardId-000000000000"]);
                    assert!(corruption.len > 0, "{corruption}");
                    assert!(corruption.reason.contains("Input/output error"), "{corruption}");
                    damaged += 1;
                    from.counter += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(found > 0 && damaged > 0 && found + damaged == 30, "{found} {damaged}");
        put(&store, "s", "k", "more").await;
        drop(store);
        std::fs::rename(&aside, &first).unwrap();
        let store = ShardStore::open(directory.path(), options()).unwrap();
        assert_eq!(read_all(&store, &at).unwrap().len(), 31);
    });
}

#[test]
fn a_directory_that_cannot_be_used_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, b"not a directory").unwrap();
    let refused = |path: &Path| {
        let error = ShardStore::open(path, options()).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, StoreError::Io { .. }), "{text}");
        assert!(text.contains(&path.display().to_string()), "{text}");
        text
    };
    refused(&file);
    refused(&file.join("below"));
    // Nobody makes directories there, not even root.
    refused(Path::new("/proc/tidemill-store"));
    assert_eq!(std::fs::read(&file).unwrap(), b"not a directory");

    // A directory in a segment's place.
    let data = directory.path().join("data");
    std::fs::create_dir_all(data.join("0000000001.log")).unwrap();
    let text = ShardStore::open(&data, options()).unwrap_err().to_string();
    assert!(text.contains("0000000001.log"), "{text}");
    assert!(data.join("0000000001.log").is_dir());
}

/// Lengths that bodies and files declare, with so little memory that believing one of them ends the process.
#[test]
fn declared_lengths_allocate_nothing() {
    if !is_child("declared_lengths_allocate_nothing") {
        return;
    }
    const SPARE: u64 = 192 << 20;
    let disk = SimDisk::new();
    block_on(async {
        let client = Client::new(&disk);
        client.stream("s", 1).await;
        client.put("s", "k", "v").await;
        let pages: u64 = std::fs::read_to_string("/proc/self/statm")
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let used = pages * 4096;
        let (_, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
        setrlimit(Resource::RLIMIT_AS, used + SPARE, hard).unwrap();
        // That the limit holds, or the rest would show nothing.
        let mut probe = Vec::<u8>::new();
        assert!(probe.try_reserve_exact((2 * SPARE) as usize).is_err());

        let mut refused = 0;
        // Bytes, text, array, map, with the lengths in four and eight bytes.
        let headers: Vec<Vec<u8>> = [0x40u8, 0x60, 0x80, 0xa0]
            .into_iter()
            .flat_map(|major| {
                let long = [u64::MAX, u64::MAX / 2, 1 << 62, 1 << 40, 1 << 34];
                let long = long.map(|length| [&[major | 27][..], &length.to_be_bytes()].concat());
                let short = [u32::MAX, 1 << 31, 1 << 29];
                let short = short.map(|length| [&[major | 26][..], &length.to_be_bytes()].concat());
                long.into_iter().chain(short)
            })
            .collect();
        // In front of the place: nothing, or the start of a map whose first key is there.
        let field = |name: &str| [&[0xa1, 0x60 | name.len() as u8][..], name.as_bytes()].concat();
        for (operation, prefix) in [
            ("ListStreams", Vec::new()),
            ("PutRecords", field("Records")),
            ("PutRecords", [&field("Records")[..], &[0x81], &field("Data")].concat()),
            ("PutRecord", field("Data")),
            ("PutRecord", field("PartitionKey")),
            ("PutRecord", field("Unknown")),
            ("AddTagsToStream", field("Tags")),
            ("CreateStream", field("StreamModeDetails")),
        ] {
            for header in &headers {
                for tail in [&b""[..], &[0x00; 40], &[0x61; 40]] {
                    let body = [&prefix[..], header, tail].concat();
                    let target = format!("Kinesis_20131202.{operation}");
                    let response = client.raw(&target, "application/x-amz-cbor-1.1", &body).await;
                    assert_eq!(response.status, 400, "{operation} {header:02x?}");
                    refused += 1;
                }
            }
        }
        assert_eq!(refused, 8 * 32 * 3);

        // An index that declares more entries than there is memory, with a sound checksum.
        let store = client.api.store().clone();
        for index in 0..60 {
            put(&store, "s", "k", format!("{index:0300}")).await;
        }
        drop((client, store));
        let sound = disk.contents("0000000001.index").unwrap();
        for count in [u64::MAX, u64::MAX / 56, 1 << 40] {
            let mut index = sound.clone();
            index[40..48].copy_from_slice(&count.to_le_bytes());
            let end = index.len() - 4;
            let crc = crc32c::crc32c(&index[..end]);
            index[end..].copy_from_slice(&crc.to_le_bytes());
            let copy = disk.copy();
            copy.overwrite("0000000001.index", index);
            let store = open(&copy).unwrap();
            assert_eq!(read_all(&store, &shard("s", 0)).unwrap().len(), 61);
            assert_eq!(copy.contents("0000000001.index").unwrap(), sound);
        }
        // A reader beside the store is told extents by a message: it believes no length either.
        let store = open(&disk).unwrap();
        let from = store.resolve(&shard("s", 0), ReadFrom::TrimHorizon).unwrap();
        let mut located = store.locate(&shard("s", 0), from, ALL).unwrap();
        let reader = tidemill_shards::SegmentReader::on(std::sync::Arc::new(disk.clone()));
        assert!(!reader.read(&located, ALL).unwrap().records.is_empty());
        located.extents[0].len = u32::MAX - 7;
        let error = reader.read(&located, ALL).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
    });
}
