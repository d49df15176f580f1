//! `tidemill bench shards` runs, reports every part, and leaves nothing behind. What it measures is not looked at.

use serde_json::Value;
use std::process::Command;
use tidemill_tests::binary;

fn bench(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(binary())
        .args(["bench", "shards"])
        .args(arguments)
        .output();
    let output = output.expect("the command runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_short_run_reports_every_part_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().to_str().unwrap();
    let arguments = [
        "append",
        "tail",
        "http",
        "many",
        "--for",
        "200ms",
        "--rounds",
        "1",
        "--in-flight",
        "10,20",
        "--request-records",
        "5",
        "--rate",
        "1000",
        "--many",
        "150",
        "--protocol",
        "json",
        "--json",
        "--dir",
        dir,
    ];
    let (code, out, said) = bench(&arguments);
    assert_eq!(code, Some(0), "{said}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["append"].as_array().unwrap().len(), 2);
    for figure in [
        "records_per_second",
        "bytes_per_sync",
        "plain_mb_per_second",
        "ratio",
        "overwrite_ratio",
        "p99_ms",
    ] {
        assert!(report["append"][1][figure].as_f64() > Some(0.0), "{figure}: {report}");
    }
    assert_eq!(report["tail"]["records"], 200);
    let http = report["http"].as_array().unwrap();
    assert_eq!(http.len(), 2);
    assert!(
        http.iter().all(|load| load["records_per_second"].as_f64() > Some(0.0)),
        "{report}"
    );
    assert_eq!(
        (&report["many"]["shards"], &report["many"]["streams"]),
        (&150.into(), &2.into())
    );
    assert!(report["many"]["server_memory_mb"].as_f64() > Some(0.0));
    assert!(report["read"].is_null());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let (code, _, said) = bench(&["--dir", "/nowhere/at/all"]);
    assert!(code == Some(2) && said.contains("make it first"), "{said}");
    let (code, _, said) = bench(&["append", "--server", "http://127.0.0.1:1"]);
    assert!(code == Some(2) && said.contains("over HTTP only"), "{said}");
}
