//! Whatever names a client gives: the only files are the log's own, in its own directory.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;
use serde_json::json;
use tidemill_shards::env::ManualClock;
use tidemill_shards::kinesis::KinesisApi;
use tidemill_shards::{ShardStore, StageRequest, StoreOptions};

use crate::kinesis::Client;
use crate::support::*;

/// Names that have led other programs astray, and any others.
fn names() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "..",
        ".",
        "../escaped",
        "../../escaped",
        "/escaped",
        "%2e%2e%2fescaped",
        "..%2fescaped",
        "a/../../escaped",
        "..\\escaped",
        "C:\\escaped",
        "a\0/escaped",
        "....//escaped",
        "\u{ff0e}\u{ff0e}\u{ff0f}escaped",
        "store.lock",
        "0000000001.log",
        "0000000002.log.tmp",
        "~",
        "$(touch escaped)",
        "a\nescaped",
        "CON",
    ]);
    prop_oneof![
        known.prop_map(str::to_owned),
        "[a-zA-Z0-9_.-]{1,130}",
        "[./\\\\%a-z0-9]{1,40}",
        any::<String>(),
        Just("x".repeat(100_000)),
    ]
}

/// All files below a directory.
fn walk(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        found.insert(entry.path().display().to_string());
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), found);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]

    #[test]
    fn no_name_makes_a_file(given in prop::collection::vec(names(), 1..8)) {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("one/two/data");
        std::fs::create_dir_all(data.parent().unwrap()).unwrap();
        let options = StoreOptions { segment_bytes: 64 << 10, ..options() };
        let store = ShardStore::open(&data, options.clone()).unwrap();
        block_on(async {
            let client = Client { api: KinesisApi::new(store.clone()), clock: ManualClock::new(NOW_MS) };
            client.stream("s", 1).await;
            let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
            for given in &given {
                for (operation, body) in [
                    ("CreateStream", json!({"StreamName": given, "ShardCount": 1})),
                    ("PutRecord", json!({"StreamName": given, "PartitionKey": given, "Data": "AAAA"})),
                    ("PutRecord", json!({"StreamName": "s", "PartitionKey": given, "Data": "AAAA"})),
                    ("RegisterStreamConsumer", json!({"StreamARN": arn, "ConsumerName": given})),
                    ("DescribeStreamSummary", json!({"StreamARN": format!("{arn}/{given}")})),
                    ("AddTagsToStream", json!({"StreamName": "s", "Tags": {given: given}})),
                    ("GetShardIterator", json!({"StreamName": given, "ShardId": given, "ShardIteratorType": "LATEST"})),
                    ("DeleteStream", json!({"StreamName": given})),
                ] {
                    let (status, answer) = client.call(operation, body).await;
                    assert!(matches!(status, 200 | 400), "{operation}: {status} {answer}");
                }
                // Names of jobs and their sinks come from a job's process.
                let request = StageRequest {
                    job: given.clone(),
                    sink: given.clone(),
                    stream: name("s"),
                    lineage: LINEAGE,
                    checkpoint: 1,
                    attempt: 1,
                    worker: 0,
                    entries: vec![entry("k", "v")],
                };
                let _ = store.stage(request).await;
            }
        });
        drop(store);
        drop(ShardStore::open(&data, options).unwrap());
        let mut found = BTreeSet::new();
        walk(root.path(), &mut found);
        let directories: BTreeSet<String> =
            ["one", "one/two", "one/two/data"].iter().map(|path| root.path().join(path).display().to_string()).collect();
        for path in found.difference(&directories) {
            let file = path.strip_prefix(&format!("{}/", data.display())).unwrap_or_else(|| panic!("{path}"));
            let (number, kind) = file.split_once('.').unwrap_or_else(|| panic!("{path}"));
            let is_log = number.len() == 10 && number.bytes().all(|c| c.is_ascii_digit()) && matches!(kind, "log" | "index");
            prop_assert!(is_log || file == "store.lock", "{path}");
        }
        prop_assert!(found.iter().any(|path| path.ends_with("0000000001.log")));
    }
}
