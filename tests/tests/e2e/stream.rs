//! `tidemill stream`: the real command against a real server, as people and scripts use it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use tidemill_tests::process::signal;
use tidemill_tests::{Server, binary};

/// The command, pointed at a server.
fn stream(server: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command
        .arg("stream")
        .args(arguments)
        .env("TIDEMILL_SERVER", server)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(server: &Server, arguments: &[&str]) -> Output {
    stream(server.url(), arguments).output().expect("the command runs")
}

/// Runs the command with something on its standard input.
fn run_with(server: &Server, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = stream(server.url(), arguments)
        .stdin(Stdio::piped())
        .spawn()
        .expect("the command runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    // A command that refuses does not read; then the pipe is closed.
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("the command ends");
    writer.join().expect("the writer ends");
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a command printed that must succeed.
fn must(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// What a command said that must be refused.
fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    text(&output.stderr)
}

fn lines(output: &str) -> Vec<&str> {
    output.lines().collect()
}

/// A process that prints lines, as a rule a `tail`; dropping it kills it.
struct Tail {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Tail {
    fn start(server: &Server, arguments: &[&str]) -> Self {
        let mut child = stream(server.url(), arguments).spawn().expect("the command runs");
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("a line");
        line.trim_end_matches('\n').to_owned()
    }

    fn code(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().expect("the command ends");
        let mut said = String::new();
        let stderr = self.child.stderr.as_mut().expect("a pipe");
        stderr.read_to_string(&mut said).expect("text");
        (status.code(), said)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_stream_is_created_shown_and_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let created = must(&run(&server, &["create", "clicks", "--shards", "3"]));
    assert!(created.contains("open shards      3"), "{created}");
    must(&run(&server, &["create", "orders", "--on-demand", "--json"]));
    let listed: Value = serde_json::from_str(&must(&run(&server, &["list", "--json"]))).unwrap();
    let names: Vec<&Value> = listed["streams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stream| &stream["name"])
        .collect();
    assert_eq!(names, ["clicks", "orders"]);
    let table = must(&run(&server, &["list", "--long"]));
    assert!(
        lines(&table)[0].starts_with("NAME") && lines(&table).len() == 3,
        "{table}"
    );

    let shown: Value = serde_json::from_str(&must(&run(&server, &["describe", "clicks", "--json"]))).unwrap();
    let shards = shown["shards"].as_array().unwrap();
    assert_eq!((shown["status"].as_str(), shards.len()), (Some("ACTIVE"), 3));
    assert_eq!(shards[0]["hash_keys"]["first"], "0");
    assert_eq!(shards[2]["hash_keys"]["last"], u128::MAX.to_string());
    assert!(shards.iter().all(|shard| shard["open"] == true));
    assert!(must(&run(&server, &["describe", "clicks"])).contains("shardId-000000000002"));

    let said = refused(&run(&server, &["create", "clicks"]));
    assert!(
        said.contains("already exists") && said.contains("another name"),
        "{said}"
    );
    let said = refused(&run(&server, &["delete", "clicks"]));
    assert!(said.contains("--yes"), "{said}");
    assert_eq!(must(&run(&server, &["delete", "clicks", "--yes"])), "deleted clicks\n");
    let said = refused(&run(&server, &["describe", "clicks"]));
    assert!(
        said.contains("clicks") && said.contains("tidemill stream list"),
        "{said}"
    );
}

#[test]
fn lines_go_in_and_come_out_with_their_keys_and_order() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    must(&run(&server, &["create", "clicks", "--shards", "4"]));
    let input: String = (0..2_000)
        .map(|n| format!("{{\"n\":{n},\"user\":{{\"id\":\"u{}\"}}}}\n", n % 40))
        .collect();
    let put = run_with(
        &server,
        &["put", "clicks", "--key-field", "user.id", "--json"],
        input.as_bytes(),
    );
    let summary: Value = serde_json::from_str(&must(&put)).unwrap();
    assert_eq!(
        (&summary["records"], &summary["records_retried"]),
        (&json!(2_000), &json!(0))
    );
    assert!(text(&put.stderr).contains("stored 2000 records"));

    let all = must(&run(&server, &["tail", "clicks", "--no-follow", "--json"]));
    let records: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 2_000);
    for user in 0..40 {
        let key = format!("u{user}");
        let numbers: Vec<i64> = records
            .iter()
            .filter(|record| record["partition_key"] == key.as_str())
            .map(|record| {
                let data: Value = serde_json::from_str(record["data"].as_str().unwrap()).unwrap();
                data["n"].as_i64().unwrap()
            })
            .collect();
        assert_eq!(numbers, (0..50).map(|n| n * 40 + user).collect::<Vec<_>>(), "{key}");
    }

    let one = must(&run(&server, &["tail", "clicks", "--no-follow", "--key", "u7"]));
    assert_eq!(one.lines().count(), 50);
    let few = must(&run(
        &server,
        &["tail", "clicks", "--from", "trim-horizon", "--limit", "3"],
    ));
    assert_eq!(few.lines().count(), 3);
    let one_shard = must(&run(
        &server,
        &["tail", "clicks", "--no-follow", "--shard", "0", "--verbose"],
    ));
    assert!(
        one_shard.lines().all(|line| line.starts_with("shardId-000000000000\t")),
        "{one_shard:.500}"
    );
    // From a record of a shard: that one and what comes behind it.
    let third = lines(&one_shard)[2].split('\t').nth(1).unwrap();
    let from = [
        "tail",
        "clicks",
        "--no-follow",
        "--shard",
        "0",
        "--verbose",
        "--from",
        third,
    ];
    let rest = must(&run(&server, &from));
    assert_eq!(lines(&rest), &lines(&one_shard)[2..]);
    let pretty = must(&run(
        &server,
        &["tail", "clicks", "--no-follow", "--pretty", "--limit", "1"],
    ));
    assert!(
        pretty.starts_with("{\n  \"n\": ") && !pretty.contains('\x1b'),
        "{pretty}"
    );
    let recent = must(&run(&server, &["tail", "clicks", "--no-follow", "--from", "1d"]));
    assert_eq!(recent.lines().count(), 2_000);
}

#[test]
fn bytes_go_through_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    must(&run(&server, &["create", "bytes", "--shards", "1"]));
    let all: Vec<u8> = (0..=255).cycle().take(3_000).collect();
    must(&run_with(&server, &["put", "bytes", "--raw", "--key", "k"], &all));
    let out = run(&server, &["tail", "bytes", "--no-follow", "--raw"]);
    must(&out);
    assert_eq!(out.stdout, all);

    must(&run(&server, &["create", "lines", "--shards", "1"]));
    let encoded = format!("{}\n{}\n", BASE64.encode([0xff, 0x0a]), BASE64.encode("text"));
    must(&run_with(
        &server,
        &["put", "lines", "--base64", "--key", "k"],
        encoded.as_bytes(),
    ));
    must(&run_with(
        &server,
        &["put", "lines", "--key", "k"],
        b"\nlast without its line feed",
    ));
    let printed = must(&run(&server, &["tail", "lines", "--no-follow", "--json"]));
    let records: Vec<Value> = printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(records[0]["data_base64"], BASE64.encode([0xff, 0x0a]));
    let data: Vec<&Value> = records[1..].iter().map(|record| &record["data"]).collect();
    assert_eq!(data, ["text", "", "last without its line feed"]);
}

#[test]
fn the_first_bad_line_is_named_and_those_before_it_are_stored() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    must(&run(&server, &["create", "clicks", "--shards", "1"]));
    let input = b"{\"user\":\"ann\"}\n{\"user\":null}\n{\"user\":\"bob\"}\n";
    let output = run_with(&server, &["put", "clicks", "--key-field", "user"], input);
    let said = refused(&output);
    assert!(
        said.contains("line 2: the field user is null") && said.contains("stored 1 records"),
        "{said}"
    );
    assert_eq!(
        must(&run(&server, &["tail", "clicks", "--no-follow"])),
        "{\"user\":\"ann\"}\n"
    );

    let large = vec![b'x'; 1_100_000];
    let said = refused(&run_with(&server, &["put", "clicks", "--key", "k"], &large));
    assert!(said.contains("line 1: ") && said.contains("1048576"), "{said}");
    let said = refused(&run_with(&server, &["put", "nowhere"], b"x\n"));
    assert!(
        said.contains("nowhere") && said.contains("tidemill stream create"),
        "{said}"
    );
    let said = refused(&run(&server, &["tail", "clicks", "--shard", "7"]));
    assert!(said.contains("no shard shardId-000000000007"), "{said}");
    let said = refused(&run(&server, &["tail", "clicks", "--no-follow", "--from", "latest"]));
    assert!(said.contains("--from 5m"), "{said}");
    let said = refused(&run(&server, &["merge", "clicks", "0"]));
    assert!(said.contains("only open shard"), "{said}");
    let said = refused(&run(&server, &["split", "clicks", "5"]));
    assert!(said.contains("no shard shardId-000000000005"), "{said}");
}

#[test]
fn a_server_that_is_not_there_or_is_something_else_is_told() {
    // Taken and freed: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let output = stream(&format!("http://127.0.0.1:{port}"), &["list"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains(&port.to_string()) && said.contains("--server"), "{said}");
    let said = refused(&stream("localhost:4566", &["list"]).output().unwrap());
    assert!(said.contains("http://127.0.0.1:4566"), "{said}");
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let output = stream(&format!("{}/v1/jobs", server.url()), &["list"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("not from a Kinesis API"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_tail_follows_until_it_is_told_to_end_and_a_closed_pipe_ends_it_quietly() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    must(&run(&server, &["create", "clicks", "--shards", "2"]));
    must(&run_with(&server, &["put", "clicks"], b"first\n"));
    let mut tail = Tail::start(&server, &["tail", "clicks", "--from", "trim-horizon"]);
    assert_eq!(tail.line(), "first");
    must(&run_with(&server, &["put", "clicks"], b"second\n"));
    assert_eq!(tail.line(), "second");
    signal(tail.child.id(), nix::sys::signal::Signal::SIGINT);
    assert_eq!(tail.code(), (Some(0), String::new()));

    // Nothing comes any more, so only a look at the pipe can tell that its reader is gone.
    let mut tail = Tail::start(&server, &["tail", "clicks", "--from", "trim-horizon"]);
    assert_eq!(tail.line(), "first");
    let closed = std::mem::replace(&mut tail.out, BufReader::new(no_output()));
    drop(closed);
    assert_eq!(tail.code(), (Some(0), String::new()));

    // And here a great deal comes.
    let many: String = (0..20_000).map(|n| format!("{n} {}\n", "x".repeat(100))).collect();
    must(&run_with(&server, &["put", "clicks"], many.as_bytes()));
    let mut tail = Tail::start(&server, &["tail", "clicks", "--no-follow"]);
    tail.line();
    let closed = std::mem::replace(&mut tail.out, BufReader::new(no_output()));
    drop(closed);
    assert_eq!(tail.code(), (Some(0), String::new()));
}

/// A pipe without anything in it, to put in the place of one that is closed.
fn no_output() -> ChildStdout {
    let mut child = Command::new("true").stdout(Stdio::piped()).spawn().expect("true runs");
    let out = child.stdout.take().expect("a pipe");
    child.wait().expect("true ends");
    out
}

#[test]
fn a_tail_outlives_a_restart_of_its_server() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut server = Server::start(&data);
    let address = server.url().strip_prefix("http://").unwrap().to_owned();
    must(&run(&server, &["create", "clicks", "--shards", "1"]));
    must(&run_with(&server, &["put", "clicks"], b"first\n"));
    let mut tail = Tail::start(&server, &["tail", "clicks", "--from", "trim-horizon"]);
    assert_eq!(tail.line(), "first");
    server.kill();
    let mut again = Command::new(binary())
        .args(["server", "--json", "--listen", &address, "--data-dir"])
        .arg(&data)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server starts");
    let out = BufReader::new(again.stdout.take().expect("a pipe"));
    let mut again = Tail { child: again, out };
    assert!(again.line().contains(&address));
    let mut put = stream(&format!("http://{address}"), &["put", "clicks"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the command runs");
    put.stdin
        .take()
        .expect("a pipe")
        .write_all(b"second\n")
        .expect("it reads");
    must(&put.wait_with_output().expect("the command ends"));
    assert_eq!(tail.line(), "second");
}

#[tokio::test]
async fn splits_and_merges_are_followed_and_nothing_is_lost_or_out_of_order() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    must(&run(&server, &["create", "clicks", "--shards", "2"]));
    let mut tail = Tail::start(&server, &["tail", "clicks", "--from", "trim-horizon"]);
    let put = |numbers: std::ops::Range<u32>| {
        let input: String = numbers
            .map(|n| format!("{{\"n\":{n},\"k\":\"k{}\"}}\n", n % 10))
            .collect();
        must(&run_with(
            &server,
            &["put", "clicks", "--key-field", "k"],
            input.as_bytes(),
        ));
    };
    put(0..100);
    let split: Value = serde_json::from_str(&must(&run(&server, &["split", "clicks", "0", "--json"]))).unwrap();
    assert_eq!(split["shards"], json!(["shardId-000000000002", "shardId-000000000003"]));
    put(100..200);
    let merged: Value = serde_json::from_str(&must(&run(&server, &["merge", "clicks", "3", "1", "--json"]))).unwrap();
    assert_eq!(merged["shards"], json!(["shardId-000000000004"]));
    put(200..300);
    let said = refused(&run(&server, &["split", "clicks", "0"]));
    assert!(
        said.contains("closed; its records go to shardId-000000000002 and shardId-000000000003"),
        "{said}"
    );
    let said = refused(&run(&server, &["merge", "clicks", "2", "3"]));
    assert!(said.contains("closed"), "{said}");
    let mut last = [None; 10];
    for _ in 0..300 {
        let record: Value = serde_json::from_str(&tail.line()).unwrap();
        let n = record["n"].as_u64().unwrap() as usize;
        assert!(last[n % 10].is_none_or(|last| last < n), "{n} after {last:?}");
        last[n % 10] = Some(n);
    }
    let shown: Value = serde_json::from_str(&must(&run(&server, &["describe", "clicks", "--json"]))).unwrap();
    assert_eq!(
        shown["shards"][4]["parents"],
        json!(["shardId-000000000003", "shardId-000000000001"])
    );
    assert_eq!(shown["shards"][0]["open"], false);
    let again = must(&run(&server, &["tail", "clicks", "--no-follow"]));
    assert_eq!(again.lines().count(), 300);
}

#[tokio::test]
async fn a_stream_is_changed() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    must(&run(&server, &["create", "clicks", "--shards", "2"]));
    let arguments = [
        "set",
        "clicks",
        "--retention",
        "48h",
        "--shards",
        "4",
        "--tag",
        "a=b",
        "--json",
    ];
    let changed: Value = serde_json::from_str(&must(&run(&server, &arguments))).unwrap();
    assert_eq!(
        (&changed["retention_hours"], &changed["open_shards"]),
        (&json!(48), &json!(4))
    );
    let shown: Value = serde_json::from_str(&must(&run(&server, &["describe", "clicks", "--json"]))).unwrap();
    assert_eq!(shown["tags"], json!({ "a": "b" }));
    let arguments = ["set", "clicks", "--retention", "1d", "--untag", "a"];
    assert!(must(&run(&server, &arguments)).contains("retention        24 h"));
}
