//! `tidemill bench nexmark`: every query that can be planned runs, its rows do not depend on the number of workers, and
//! a query that is killed and restored gives the rows of one that was not. What is measured is not looked at.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tidemill_tests::{PATIENCE, binary};

fn bench(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(binary())
        .args(["bench", "nexmark"])
        .args(arguments)
        .output();
    let output = output.expect("the command runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn report(arguments: &[&str]) -> Value {
    let (code, out, said) = bench(&[arguments, &["--json"]].concat());
    assert_eq!(code, Some(0), "{arguments:?}: {said}");
    serde_json::from_str(&out).expect("JSON")
}

#[test]
fn every_query_that_is_listed_as_supported_runs() {
    let listed = report(&["--list"]);
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().to_str().unwrap();
    let mut ran = 0;
    for query in listed.as_array().unwrap() {
        let name = query["query"].as_str().unwrap();
        let arguments = [
            "--query",
            name,
            "--events",
            "20000",
            "--event-rate",
            "1000",
            "--dir",
            dir,
        ];
        if query["supported"] == false {
            let (code, _, said) = bench(&arguments);
            assert_eq!(code, Some(1), "{name}");
            assert!(said.contains(query["reason"].as_str().unwrap()), "{name}: {said}");
            continue;
        }
        let one = report(&arguments);
        let two = report(&[&arguments[..], &["--parallelism", "2", "--checkpoint-interval", "20ms"]].concat());
        assert_eq!(
            (&one["events"], &two["events"]),
            (&20_000.into(), &20_000.into()),
            "{name}"
        );
        // Windows of the wall clock end within the run, or not.
        if name != "q12" {
            assert!(one["rows_out"].as_u64() > Some(0), "{name}: {one}");
            assert!(
                query["changes"] == true || one["rows_out"] == two["rows_out"],
                "{name}: {one} {two}"
            );
        }
        assert_eq!((&one["rows_late"], &two["rows_late"]), (&0.into(), &0.into()), "{name}");
        for figure in [
            "seconds",
            "events_per_second",
            "cpu_seconds",
            "events_per_cpu_second",
            "peak_memory_bytes",
        ] {
            assert!(one[figure].as_f64() > Some(0.0), "{name}: {figure} of {one}");
        }
        assert!(
            !one["checkpoints"].as_array().unwrap().is_empty(),
            "the last one at least: {one}"
        );
        ran += 1;
        if name == "q0" {
            assert_eq!(one["rows_out"], 20_000 - 400 - 1_200);
        }
    }
    assert_eq!(ran, listed.as_array().unwrap().len(), "{listed}");
    assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().count(),
        0,
        "something is left behind"
    );
}

#[test]
fn the_generator_alone_makes_all_events() {
    let report = report(&["--generator-only", "--events", "30001", "--parallelism", "3"]);
    assert_eq!(
        (&report["query"], &report["events"]),
        (&"generator".into(), &30_001.into())
    );
    assert!(report["checkpoints"].as_array().unwrap().is_empty());
}

#[test]
fn events_that_come_at_a_rate_tell_how_long_results_take() {
    let arguments = ["--query", "q5-part", "--events", "40000", "--events-per-second", "5000"];
    let report = report(&arguments);
    assert_eq!(
        (&report["events"], &report["event_rate"]),
        (&40_000.into(), &5_000.into())
    );
    // Eight seconds: the watermark passes the windows that end two and four seconds after the first event.
    let latency = &report["latency"];
    assert!(latency["results"].as_u64() >= Some(1), "{report}");
    assert!(latency["p99_ms"].as_f64() <= latency["max_ms"].as_f64(), "{report}");
    assert!(
        report["seconds"].as_f64() >= Some(7.9),
        "faster than the rate: {report}"
    );
    let (code, _, said) = bench(&["--query", "q0", "--events-per-second", "5000"]);
    assert!(code == Some(1) && said.contains("take q5-part"), "{said}");
}

#[test]
fn what_cannot_be_run_is_refused() {
    let (code, _, said) = bench(&["--query", "q99"]);
    assert!(code == Some(2) && said.contains("there are q0"), "{said}");
    let (code, _, said) = bench(&["--query", "q0", "--dir", "/nowhere/at/all"]);
    assert!(code == Some(2) && said.contains("make it first"), "{said}");
    assert_eq!(bench(&[]).0, Some(2));
}

/// Counts the rows that changes in the files come to.
fn result(directory: &Path) -> BTreeMap<String, i64> {
    let mut rows: BTreeMap<String, i64> = BTreeMap::new();
    for (line, count) in lines(directory) {
        let change: Value = serde_json::from_str(&line).expect("JSON");
        let (row, weight) = match change["op"].as_str() {
            Some("c") => (&change["after"], 1),
            _ => (&change["before"], -1),
        };
        *rows.entry(row.to_string()).or_default() += weight * count as i64;
    }
    rows.retain(|_, count| *count != 0);
    rows
}

/// Counts the lines of the files that are visible.
fn lines(directory: &Path) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        for line in text.lines() {
            *lines.entry(line.to_owned()).or_default() += 1;
        }
    }
    lines
}

#[test]
fn a_killed_query_gives_the_rows_of_a_whole_one() {
    kill_and_restore("q12-part", 1_000);
}

#[test]
fn a_killed_query_of_hopping_windows_gives_the_rows_of_a_whole_one() {
    kill_and_restore("q5-part", 25);
}

#[test]
fn a_killed_query_whose_result_changes_comes_to_the_rows_of_a_whole_one() {
    for query in ["q16", "q17"] {
        kill_and_restore_with(query, "debezium-json", |directory, rows| {
            let result = result(directory);
            assert!(
                result.len() > 500 && result.values().all(|count| *count == 1),
                "{}",
                result.len()
            );
            assert!(rows.len() > result.len(), "nothing changed");
            result
        });
    }
}

#[test]
fn a_killed_query_of_sessions_gives_the_rows_of_a_whole_one() {
    kill_and_restore("q11", 500);
}

#[test]
fn a_killed_query_of_an_unbounded_join_gives_the_rows_of_a_whole_one() {
    kill_and_restore("q20", 1_000);
}

#[test]
fn a_killed_query_of_a_join_bounded_by_columns_gives_the_rows_of_a_whole_one() {
    kill_and_restore("q9-part", 1_000);
}

#[test]
fn a_killed_query_of_a_window_join_gives_the_rows_of_a_whole_one() {
    kill_and_restore("q8", 50);
}

/// Runs a query whole, and again killed in the middle at two workers and restored at three: more rows than `rows_min`, the same.
fn kill_and_restore(query: &str, rows_min: usize) {
    kill_and_restore_with(query, "json", |_, rows| {
        assert!(rows.len() > rows_min && rows.values().all(|count| *count == 1));
        rows.clone()
    });
}

/// The same with files of a format; `result` says what lines come to.
fn kill_and_restore_with<R: PartialEq>(
    query: &str,
    format: &str,
    result: impl Fn(&Path, &BTreeMap<String, usize>) -> R,
) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (code, text, said) = bench(&[
        "--query",
        query,
        "--events",
        "60000",
        "--event-rate",
        "1000",
        "--show-sql",
    ]);
    assert_eq!(code, Some(0), "{said}");
    let job = |name: &str, options: &str| {
        let sink = format!(
            "'filesystem', 'format' = '{format}', 'path' = '{}'",
            path(name).display()
        );
        let text = text
            .replace("'blackhole'", &sink)
            .replace("'connector' = 'nexmark'", &format!("'connector' = 'nexmark'{options}"));
        std::fs::write(path(&format!("{name}.sql")), text).unwrap();
    };
    let command = |name: &str, parallelism: &str| {
        let mut command = Command::new(binary());
        command
            .arg("run")
            .arg(path(&format!("{name}.sql")))
            .arg("--data-dir")
            .arg(path(&format!("{name}-data")))
            .args(["--checkpoint-interval", "50ms", "--parallelism", parallelism])
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    };
    job("whole", "");
    assert!(command("whole", "1").status().unwrap().success());
    let expected = lines(&path("whole"));
    let whole = result(&path("whole"), &expected);

    // So slow that it is killed in the middle: some results are there, and never all.
    job("killed", ", 'events-per-second' = '20000'");
    let mut killed = command("killed", "2").spawn().unwrap();
    let start = Instant::now();
    while lines(&path("killed")).is_empty() && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let before = lines(&path("killed"));
    assert!(!before.is_empty(), "nothing of {}", expected.len());
    assert!(command("killed", "3").status().unwrap().success());
    let after = lines(&path("killed"));
    assert!(before.len() < after.len(), "{} of {}", before.len(), after.len());
    assert!(result(&path("killed"), &after) == whole, "the rows differ");
}
