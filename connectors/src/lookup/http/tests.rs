//! The connector against a server on loopback that answers what a test wants.

use super::super::Lookup;
use crate::registry::{check_lookup, create_lookup, create_source};
use crate::{ConnectorEnvironment, TableDefinition};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tidemill_engine::lookup::LookupCache;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A request: its first line, all of its head in lower case, and its body.
#[derive(Clone, Debug)]
struct Request {
    line: String,
    head: String,
    body: String,
}

/// A server that answers with what `answer` says: a status and a body.
struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    at_once: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(answer: impl Fn(usize, &Request) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let at_once = Arc::new(AtomicUsize::new(0));
        let (noted, most, answer) = (Arc::clone(&requests), Arc::clone(&at_once), Arc::new(answer));
        let task = tokio::spawn(async move {
            let open = Arc::new(AtomicUsize::new(0));
            while let Ok((mut stream, _)) = listener.accept().await {
                let (noted, most, answer, open) = (
                    Arc::clone(&noted),
                    Arc::clone(&most),
                    Arc::clone(&answer),
                    Arc::clone(&open),
                );
                tokio::spawn(async move {
                    let Some(request) = read(&mut stream).await else { return };
                    most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let number = {
                        let mut noted = noted.lock().unwrap();
                        noted.push(request.clone());
                        noted.len() - 1
                    };
                    tokio::task::yield_now().await;
                    let (status, body) = answer(number, &request);
                    open.fetch_sub(1, Ordering::SeqCst);
                    let length = body.len();
                    let head = format!(
                        "HTTP/1.1 {status} X\r\nlocation: /elsewhere\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
                    );
                    let _ = stream.write_all(head.as_bytes()).await;
                    let _ = stream.write_all(body.as_bytes()).await;
                });
            }
        });
        Self {
            port,
            requests,
            at_once,
            task,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn lines(&self) -> Vec<String> {
        self.requests
            .lock()
            .unwrap()
            .iter()
            .map(|request| request.line.clone())
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(stream: &mut tokio::net::TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4_096];
        let count = stream.read(&mut chunk).await.ok()?;
        if count == 0 {
            return None;
        }
        bytes.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let lower = head.to_lowercase();
        let length = lower
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some(Request {
                line: head.lines().next().unwrap_or_default().to_owned(),
                head: lower,
                body: body.to_owned(),
            });
        }
    }
}

fn table(options: &[(&str, &str)]) -> TableDefinition {
    let fields = vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("score", DataType::Int64, true),
    ];
    let mut all = vec![("connector", "http"), ("format", "json")];
    all.extend(options);
    TableDefinition {
        name: "users".into(),
        schema: Arc::new(Schema::new(fields)),
        metadata_columns: Vec::new(),
        options: all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        partition_keys: Vec::new(),
        primary_key: Vec::new(),
    }
}

fn lookup(options: &[(&str, &str)]) -> Lookup {
    create_lookup(&table(options), &[0, 2], &[0], &ConnectorEnvironment::new()).unwrap()
}

fn keys(ids: &[i64]) -> RecordBatch {
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
    RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(ids.to_vec())) as ArrayRef]).unwrap()
}

fn rows(batch: &RecordBatch) -> Vec<(i64, Option<i64>)> {
    let (id, score) = (
        batch.column(0).as_primitive::<Int64Type>(),
        batch.column(1).as_primitive::<Int64Type>(),
    );
    (0..batch.num_rows())
        .map(|row| (id.value(row), score.is_valid(row).then(|| score.value(row))))
        .collect()
}

#[tokio::test]
async fn get_asks_for_each_key_and_404_is_no_row() {
    let server = Server::start(|_, request| match request.line.split(' ').nth(1).unwrap() {
        "/u/1" => (200, r#"{"score": 10, "more": [1, {"a": "]"}]}"#.to_owned()),
        "/u/2" => (200, r#" [{"score": 20}, {"score": null, "id": 99}] "#.to_owned()),
        "/u/3" => (204, String::new()),
        "/u/4" => (200, "null".to_owned()),
        _ => (404, "nobody".to_owned()),
    })
    .await;
    let lookup = lookup(&[
        ("url", &server.url("/u/{id}")),
        ("header.X-Token", "secret"),
        ("request.concurrency", "2"),
    ]);
    let found = lookup.source.lookup(keys(&[1, 2, 3, 4, 5, -6])).await.unwrap();
    // The key is that of the request, whatever the answer says.
    assert_eq!(rows(&found), [(1, Some(10)), (2, Some(20)), (2, None)]);
    let mut lines = server.lines();
    lines.sort();
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[0], "GET /u/-6 HTTP/1.1");
    assert!(
        server
            .requests
            .lock()
            .unwrap()
            .iter()
            .all(|request| request.head.contains("x-token: secret"))
    );
    assert!(server.at_once.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn post_asks_for_many_keys_in_one_request() {
    let server = Server::start(|_, request| {
        assert!(request.head.contains("content-type: application/json"));
        let ids = request.body.replace("{\"id\":", "").replace(['}', '[', ']'], "");
        let row = |id: &str| format!(r#"{{"id":{id},"score":{id}}}"#);
        let rows: Vec<String> = ids.split(',').filter(|id| *id != "3").map(row).collect();
        (200, format!("[{}]", rows.join(",")))
    })
    .await;
    let lookup = lookup(&[
        ("url", &server.url("/many")),
        ("method", "POST"),
        ("request.batch-size", "2"),
    ]);
    let found = lookup.source.lookup(keys(&[1, 2, 3, 4, 5])).await.unwrap();
    assert_eq!(rows(&found), [(1, Some(1)), (2, Some(2)), (4, Some(4)), (5, Some(5))]);
    let mut bodies: Vec<String> = server
        .requests
        .lock()
        .unwrap()
        .iter()
        .map(|request| request.body.clone())
        .collect();
    bodies.sort();
    assert_eq!(
        bodies,
        [r#"[{"id":1},{"id":2}]"#, r#"[{"id":3},{"id":4}]"#, r#"[{"id":5}]"#]
    );
}

#[tokio::test]
async fn what_may_pass_is_asked_again_and_what_will_not_is_told() {
    let server = Server::start(|number, _| match number {
        0 => (503, String::new()),
        1 => (429, String::new()),
        _ => (200, r#"{"score": 5}"#.to_owned()),
    })
    .await;
    let url = server.url("/{id}");
    let found = lookup(&[("url", &url)]).source.lookup(keys(&[1])).await.unwrap();
    assert_eq!((rows(&found), server.lines().len()), (vec![(1, Some(5))], 3));

    for (status, tries) in [(500, 2), (401, 1), (302, 1)] {
        let server = Server::start(move |_, _| (status, "not\nnow".to_owned())).await;
        let url = server.url("/{id}");
        let error = lookup(&[("url", &url), ("lookup.max-retries", "1")])
            .source
            .lookup(keys(&[1]))
            .await
            .unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains(&status.to_string()) && said.contains("not now") && said.contains("users"),
            "{said}"
        );
        assert_eq!(server.lines().len(), tries, "{said}");
    }
    // Nobody is there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://127.0.0.1:{}/{{id}}", listener.local_addr().unwrap().port());
    drop(listener);
    assert!(
        lookup(&[("url", &url), ("lookup.max-retries", "0")])
            .source
            .lookup(keys(&[1]))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn answers_that_are_too_long_or_no_rows_are_told() {
    for (body, said) in [
        (
            format!(r#"{{"score": 1, "pad": "{}"}}"#, "x".repeat(2_000)),
            "longer than 1024 bytes",
        ),
        (r#"{"score": "much"}"#.to_owned(), "score"),
        (r#"[{"score": 1}, {"score": 1.5}]"#.to_owned(), "row 1 of the answer"),
        ("[1]".to_owned(), "an object"),
        ("<html>".to_owned(), "no JSON"),
        (r#"{"score": 1"#.to_owned(), "no JSON"),
    ] {
        let server = Server::start(move |_, _| (200, body.clone())).await;
        let url = server.url("/{id}");
        let lookup = lookup(&[("url", &url), ("response.max-size", "1 kb")]);
        let error = lookup.source.lookup(keys(&[7])).await.unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("/7"), "{error}");
        assert_eq!(
            server.lines().len(),
            1,
            "asked again, though the answer would be the same"
        );
    }
}

#[tokio::test]
async fn a_key_that_a_post_is_not_answered_with_is_no_row() {
    let server = Server::start(|_, _| (200, r#"[{"score": 1}]"#.to_owned())).await;
    let url = server.url("/");
    let lookup = lookup(&[("url", &url), ("method", "post")]);
    let error = lookup.source.lookup(keys(&[7])).await.unwrap_err().to_string();
    assert!(
        error.contains("field id: is null or missing, but the column is NOT NULL"),
        "{error}"
    );
}

#[test]
fn options_are_checked_and_none_is_ignored() {
    let refusal = |options: &[(&str, &str)]| check_lookup(&table(options), &[0]).unwrap_err().to_string();
    let url = ("url", "http://h/{id}");
    for (options, said) in [
        (vec![], "'url'"),
        (vec![("url", "http://h/x")], "holds no key"),
        (vec![("url", "http://h/{nobody}")], "no column"),
        (vec![("url", "http://h/{id}/{name}")], "not given by the join"),
        (
            vec![("url", "http://h/{id}"), ("method", "POST")],
            "in the request's body",
        ),
        (vec![url, ("method", "PUT")], "not one of GET, POST"),
        (vec![url, ("request.batch-size", "5")], "one key"),
        (vec![url, ("request.timeout", "0 s")], "above 0"),
        (vec![url, ("request.concurrency", "0")], "from 1 to 1000"),
        (vec![url, ("response.max-size", "0")], "from 1 byte"),
        (vec![url, ("header.Host", "x")], "leave it out"),
        (vec![url, ("header.X", "a\nb")], "cannot have"),
        (vec![url, ("header.", "a")], "no name"),
        (vec![url, ("header", "a")], "no such option"),
        (vec![url, ("lookup.cache", "FULL")], "it offers NONE, PARTIAL"),
        (vec![url, ("json.ignore-parse-errors", "true")], "not supported"),
        (vec![url, ("time-out", "5 s")], "no such option"),
    ] {
        let refused = refusal(&options);
        assert!(refused.contains(said), "{options:?}: {refused}");
    }
    let fine = [
        url,
        ("lookup.cache", "PARTIAL"),
        ("method", "get"),
        ("lookup.max-retries", "2"),
    ];
    check_lookup(&table(&fine), &[0]).unwrap();
    let made = lookup(&fine);
    assert!(matches!(made.options.cache, LookupCache::Partial(_)));
    assert_eq!(made.options.retries_max, 0, "each request is made again for itself");
    let refused = create_source(&table(&fine), &[0], &ConnectorEnvironment::new())
        .err()
        .unwrap()
        .to_string();
    assert!(
        refused.contains("can only be looked up") && refused.contains("FOR SYSTEM_TIME AS OF"),
        "{refused}"
    );
}
