//! `tidemill stream put` over a connection that loses answers: what was stored is not stored again.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tidemill_tests::{Server, binary};

/// One HTTP message: its head, and its body by the length in there.
fn message(connection: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(connection);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if line == "\r\n" {
            break;
        }
        let name = line.to_ascii_lowercase();
        // One request a connection, so that each can be cut by itself.
        if !name.starts_with("connection:") {
            head.push_str(&line);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// Passes requests on, and cuts the connection instead of answering every third PutRecords. Returns its URL; the thread ends
/// with the test's process.
fn lossy(server: &Server, lost: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let address = server.url().strip_prefix("http://").expect("an address").to_owned();
    std::thread::spawn(move || {
        let mut puts = 0;
        for mut connection in listener.incoming().flatten() {
            let Some((head, body)) = message(&connection) else {
                continue;
            };
            let mut upstream = TcpStream::connect(&address).expect("the server");
            let pass = |to: &mut TcpStream, head: &str, body: &[u8]| {
                let head = format!("{head}Connection: close\r\n\r\n");
                to.write_all(head.as_bytes()).and_then(|()| to.write_all(body))
            };
            pass(&mut upstream, &head, &body).expect("the server takes it");
            let (answer, content) = message(&upstream).expect("the server answers");
            if head.contains("PutRecords") {
                puts += 1;
                if puts % 3 == 0 {
                    lost.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
            }
            let _ = pass(&mut connection, &answer, &content);
        }
    });
    url
}

fn stream(url: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(binary())
        .arg("stream")
        .args(arguments)
        .env("TIDEMILL_SERVER", url)
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("the command ends")
}

#[test]
fn requests_whose_answer_is_lost_are_repeated_and_stored_once() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let created = stream(server.url(), &["create", "clicks", "--shards", "2"], "");
    assert_eq!(created.status.code(), Some(0));
    let lost = Arc::new(AtomicUsize::new(0));
    let url = lossy(&server, Arc::clone(&lost));
    // One key, so that each line is a request.
    let input: String = (0..20).map(|number| format!("line {number}\n")).collect();
    let put = stream(&url, &["put", "clicks", "--key", "k", "--json"], &input);
    let said = String::from_utf8_lossy(&put.stderr).into_owned();
    assert_eq!(put.status.code(), Some(0), "{said}");
    let summary: serde_json::Value = serde_json::from_slice(&put.stdout).expect("a summary");
    let lost = lost.load(Ordering::SeqCst);
    assert!(lost > 5, "{lost}");
    assert_eq!(summary["records"], 20);
    assert_eq!(summary["requests_unanswered"], lost);
    assert!(
        said.contains("trying again") && !said.contains("stored twice"),
        "{said}"
    );
    let tail = stream(server.url(), &["tail", "clicks", "--no-follow"], "");
    assert_eq!(String::from_utf8_lossy(&tail.stdout), input);
}
