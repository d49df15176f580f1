//! `tidemill stream put` against a service that refuses: a server of the test's own that speaks just enough of the API.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use tidemill_tests::binary;

/// What the service does with the nth record that it is sent.
type Verdict = fn(usize) -> bool;

/// A stream that stores some records and refuses others.
struct Service {
    url: String,
    /// Keys and data, in the order in which they were stored.
    stored: Arc<Mutex<Vec<(String, String)>>>,
}

impl Service {
    /// Starts it; the thread ends with the test's process.
    fn start(stores: Verdict, fails_every: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let stored = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&stored);
        std::thread::spawn(move || {
            let (mut records, mut requests) = (0, 0);
            for connection in listener.incoming().flatten() {
                let (operation, body) = read(&connection);
                if operation == "DescribeStreamSummary" {
                    answer(
                        &connection,
                        200,
                        &json!({ "StreamDescriptionSummary": { "StreamStatus": "ACTIVE" } }),
                    );
                    continue;
                }
                assert_eq!(operation, "PutRecords");
                requests += 1;
                if requests % fails_every == 0 {
                    answer(&connection, 500, &json!({ "__type": "InternalFailure" }));
                    continue;
                }
                let mut results = Vec::new();
                for record in body["Records"].as_array().expect("records") {
                    records += 1;
                    if stores(records) {
                        let text = |field: &str| record[field].as_str().expect("text").to_owned();
                        let data = BASE64.decode(text("Data")).expect("base64");
                        let data = String::from_utf8(data).expect("text");
                        taken.lock().expect("no panic").push((text("PartitionKey"), data));
                        results.push(json!({ "SequenceNumber": "1", "ShardId": "shardId-000000000000" }));
                    } else {
                        results.push(json!({
                            "ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded",
                        }));
                    }
                }
                answer(&connection, 200, &json!({ "FailedRecordCount": 0, "Records": results }));
            }
        });
        Self { url, stored }
    }

    fn put(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(binary())
            .args(["stream", "put", "clicks", "--json", "--server", &self.url])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().expect("the command ends")
    }
}

/// Reads one request: its operation and body.
fn read(connection: &TcpStream) -> (String, Value) {
    let mut reader = BufReader::new(connection);
    let (mut operation, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        let Some((name, value)) = line.trim_end().split_once(':') else {
            if line.trim_end().is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "x-amz-target" => operation = value.rsplit('.').next().unwrap_or_default().to_owned(),
            "content-length" => length = value.trim().parse().expect("a length"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    (operation, serde_json::from_slice(&body).expect("JSON"))
}

fn answer(mut connection: &TcpStream, status: u16, body: &Value) {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = connection.write_all(format!("{head}{body}").as_bytes());
}

#[test]
fn records_that_are_refused_are_stored_in_the_end_and_each_key_keeps_its_order() {
    // Two of five records are refused at first, and every fourth request fails as a whole.
    let service = Service::start(|record| !matches!(record % 5, 0 | 3), 4);
    let input: String = (0..60)
        .map(|n| format!("{{\"n\":{n},\"k\":\"k{}\"}}\n", n % 6))
        .collect();
    let output = service.put(&["--key-field", "k"], &input);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let summary: Value = serde_json::from_slice(&output.stdout).expect("a summary");
    assert_eq!(summary["records"], 60);
    assert!(summary["records_retried"].as_u64() > Some(0), "{summary}");
    assert!(summary["requests_unanswered"].as_u64() > Some(0), "{summary}");
    assert!(
        said.contains("trying again") && said.contains("may be stored twice"),
        "{said}"
    );
    let stored = service.stored.lock().expect("no panic");
    assert_eq!(stored.len(), 60);
    for key in 0..6 {
        let key = format!("k{key}");
        let numbers: Vec<u64> = stored
            .iter()
            .filter(|(stored, _)| *stored == key)
            .map(|(_, data)| {
                serde_json::from_str::<Value>(data).expect("JSON")["n"]
                    .as_u64()
                    .expect("a number")
            })
            .collect();
        assert!(numbers.len() == 10 && numbers.is_sorted(), "{key}: {numbers:?}");
    }
}

#[test]
fn without_order_requests_are_full_and_nothing_is_lost() {
    let service = Service::start(|record| record % 50 != 0, usize::MAX);
    let input: String = (0..500).map(|n| format!("{n}\n")).collect();
    let output = service.put(&["--key", "k", "--unordered"], &input);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let summary: Value = serde_json::from_slice(&output.stdout).expect("a summary");
    assert!(summary["requests"].as_u64() < Some(50), "{summary}");
    let stored = service.stored.lock().expect("no panic");
    let mut numbers: Vec<u32> = stored.iter().map(|(_, data)| data.parse().expect("a number")).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..500).collect::<Vec<_>>());
}
