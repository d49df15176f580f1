//! The server killed while producers put numbered requests and repeat each until it is answered: every record is there once,
//! under the sequence number that was answered.

use super::random::Random;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidemill_tests::{Kinesis, Server, eventually};
use tokio::task::JoinSet;

const STREAM: &str = "numbered";
const PRODUCERS: usize = 6;
const ROUNDS: usize = 6;
/// A kill comes at most that long after the first answer of a round.
const LIFE_MS: u64 = 800;

fn headers(id: &str, sequence: u64) -> [(&'static str, String); 3] {
    [
        ("x-tidemill-producer-id", id.to_owned()),
        ("x-tidemill-producer-epoch", "0".to_owned()),
        ("x-tidemill-producer-sequence", sequence.to_string()),
    ]
}

fn request(texts: &[String]) -> Value {
    let record = |text: &String| json!({ "PartitionKey": text, "Data": BASE64.encode(text) });
    json!({ "StreamName": STREAM, "Records": texts.iter().map(record).collect::<Vec<_>>() })
}

/// What all producers share.
#[derive(Default)]
struct Load {
    /// The server that there is now.
    server: Mutex<Option<Kinesis>>,
    stop: AtomicBool,
    answers: AtomicUsize,
    /// Answers that told of an earlier request.
    repeated: AtomicUsize,
    /// Shard and sequence number of every record, as answered.
    told: Mutex<HashMap<String, (String, String)>>,
}

impl Load {
    /// Puts one request after the other, each until it is answered.
    async fn produce(self: Arc<Self>, producer: usize) {
        let id = format!("producer-{producer}");
        for sequence in 0.. {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let texts: Vec<String> = (0..1 + sequence % 30)
                .map(|at| format!("{id}/{sequence}/{at}"))
                .collect();
            loop {
                let server = self.server.lock().unwrap().clone().expect("a server");
                let answer = server
                    .try_call("PutRecords", &request(&texts), &headers(&id, sequence))
                    .await;
                let Some((200, headers, answer)) = answer else {
                    // Refusals of a server that ends are no answers; others are mistakes.
                    assert!(!matches!(answer, Some((400..500, _, _))), "{answer:?}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                let outcome = headers["x-tidemill-producer-outcome"].to_str().expect("text");
                self.repeated
                    .fetch_add(usize::from(outcome == "repeated"), Ordering::SeqCst);
                let mut told = self.told.lock().unwrap();
                for (text, result) in texts.into_iter().zip(answer["Records"].as_array().expect("results")) {
                    let field = |name: &str| result[name].as_str().expect("text").to_owned();
                    told.insert(text, (field("ShardId"), field("SequenceNumber")));
                }
                self.answers.fetch_add(1, Ordering::SeqCst);
                break;
            }
        }
    }
}

/// Where every record of the stream is; none may be there twice.
async fn stored(kinesis: &Kinesis) -> HashMap<String, (String, String)> {
    let mut all = HashMap::new();
    let shards = kinesis.must("ListShards", &json!({ "StreamName": STREAM })).await;
    for shard in shards["Shards"].as_array().expect("shards") {
        let shard = shard["ShardId"].as_str().expect("an id");
        let from = json!({ "StreamName": STREAM, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON" });
        let mut iterator = kinesis.must("GetShardIterator", &from).await["ShardIterator"].clone();
        loop {
            let answer = kinesis.must("GetRecords", &json!({ "ShardIterator": iterator })).await;
            let records = answer["Records"].as_array().expect("records");
            for record in records {
                let data = BASE64.decode(record["Data"].as_str().expect("text")).expect("base64");
                let text = String::from_utf8(data).expect("text");
                let place = (
                    shard.to_owned(),
                    record["SequenceNumber"].as_str().expect("text").to_owned(),
                );
                let twice = all.insert(text.clone(), place);
                assert_eq!(twice, None, "{text} is there twice");
            }
            if records.is_empty() && answer["MillisBehindLatest"] == 0 {
                break;
            }
            iterator = answer["NextShardIterator"].clone();
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbered_requests_that_are_repeated_until_answered_are_stored_once() {
    let mut random = Random::from_environment("producers");
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut server = Server::start(&data);
    server.kinesis().create_stream(STREAM, 3).await;
    let load = Arc::new(Load::default());
    *load.server.lock().unwrap() = Some(server.kinesis());
    let mut producers = JoinSet::new();
    for producer in 0..PRODUCERS {
        producers.spawn(Arc::clone(&load).produce(producer));
    }
    for round in 0..ROUNDS {
        let before = load.answers.load(Ordering::SeqCst);
        eventually("an answer", || async {
            (load.answers.load(Ordering::SeqCst) > before).then_some(())
        })
        .await;
        random.moment(LIFE_MS).await;
        server.kill();
        server = Server::start(&data);
        *load.server.lock().unwrap() = Some(server.kinesis());
        eprintln!(
            "round {round}: {} answers, {} of them again",
            load.answers.load(Ordering::SeqCst),
            load.repeated.load(Ordering::SeqCst)
        );
    }
    load.stop.store(true, Ordering::SeqCst);
    while let Some(producer) = producers.join_next().await {
        producer.expect("a producer");
    }
    assert_eq!(stored(&server.kinesis()).await, *load.told.lock().unwrap());
}

/// The answer is certainly lost: nobody reads it, and the server is killed when the records are visible.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_was_stored_before_the_kill_is_answered_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut server = Server::start(&data);
    server.kinesis().create_stream(STREAM, 2).await;
    for sequence in 0..3u64 {
        let texts: Vec<String> = (0..20).map(|at| format!("{sequence}/{at}")).collect();
        let body = request(&texts).to_string();
        let mut head = format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: Kinesis_20131202.PutRecords\r\nContent-Type: \
             application/x-amz-json-1.1\r\nContent-Length: {}\r\n",
            body.len()
        );
        for (name, value) in headers("one", sequence) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let address = server.url().strip_prefix("http://").expect("an address").to_owned();
        let mut connection = TcpStream::connect(address).expect("a connection");
        connection
            .write_all(format!("{head}\r\n{body}").as_bytes())
            .expect("the request is sent");
        let first = eventually("the records", || async {
            let all = stored(&server.kinesis()).await;
            texts.iter().all(|text| all.contains_key(text)).then_some(all)
        })
        .await;
        server.kill();
        drop(connection);
        server = Server::start(&data);
        let kinesis = server.kinesis();
        for _ in 0..2 {
            let answer = kinesis
                .try_call("PutRecords", &request(&texts), &headers("one", sequence))
                .await;
            let (status, headers, answer) = answer.expect("an answer");
            assert_eq!((status, &answer["FailedRecordCount"]), (200, &json!(0)), "{answer}");
            assert_eq!(headers["x-tidemill-producer-outcome"], "repeated");
            for (text, result) in texts.iter().zip(answer["Records"].as_array().expect("results")) {
                let (shard, number) = &first[text];
                assert_eq!(
                    (&result["ShardId"], &result["SequenceNumber"]),
                    (&json!(shard), &json!(number))
                );
            }
        }
        assert_eq!(stored(&kinesis).await, first);
    }
}
