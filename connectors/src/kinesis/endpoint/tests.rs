//! The client against a server that answers what a script says.

use super::super::access::Sequence;
use super::super::error::StreamError;
use super::super::position::Place;
use super::super::tests::http::serve;
use super::*;
use crate::table::TableDefinition;
use serde_json::{Value, json};
use std::collections::VecDeque;
use tokio::net::TcpListener;

/// A server: answers each request with the next of its script, and keeps what it was asked.
struct Script {
    url: String,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Script {
    async fn start(answers: Vec<(u16, Value)>) -> Self {
        let asked: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let (kept, answers) = (Arc::clone(&asked), Mutex::new(VecDeque::from(answers)));
        let url = serve(move |request| {
            let target = request.target.rsplit('.').next().unwrap_or_default().to_lowercase();
            let body = serde_json::from_slice(&request.body).unwrap_or_default();
            kept.lock().unwrap().push((target, body));
            let (status, answer) = answers.lock().unwrap().pop_front().expect("the script is over");
            async move { (status, answer.to_string().into_bytes()) }
        });
        Self { url: url.await, asked }
    }

    fn options(&self) -> KinesisOptions {
        let options = [
            ("connector", "kinesis"),
            ("stream", "clicks"),
            ("format", "raw"),
            ("aws.endpoint", self.url.as_str()),
            ("aws.region", "eu-west-1"),
            ("aws.credentials.provider", "BASIC"),
            ("aws.credentials.basic.accesskeyid", "any"),
            ("aws.credentials.basic.secretkey", "any"),
            ("source.reader.empty-records-fetch-interval", "1 ms"),
            ("source.reader.nonempty-records-fetch-interval", "1 ms"),
        ];
        let field = arrow::datatypes::Field::new("data", arrow::datatypes::DataType::Utf8, true);
        let table = TableDefinition {
            name: "t".to_owned(),
            schema: Arc::new(arrow::datatypes::Schema::new(vec![field])),
            metadata_columns: Vec::new(),
            options: options.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            partition_keys: Vec::new(),
            primary_key: Vec::new(),
        };
        KinesisOptions::parse(&table).unwrap()
    }

    fn stream(&self) -> Arc<EndpointStream> {
        let options = self.options();
        let endpoint = options.endpoint.clone().unwrap();
        Arc::new(EndpointStream::new(&options, &endpoint, &ConnectorEnvironment::new()).unwrap())
    }

    fn asked(&self) -> Vec<String> {
        self.asked
            .lock()
            .unwrap()
            .iter()
            .map(|(target, _)| target.clone())
            .collect()
    }
}

fn error(code: &str) -> (u16, Value) {
    (400, json!({"__type": code, "message": "as the script says"}))
}

fn iterator(name: &str) -> (u16, Value) {
    (200, json!({ "ShardIterator": name }))
}

fn records(numbers: &[u64], next: Option<&str>) -> (u16, Value) {
    let record = |number: &u64| {
        json!({
            "SequenceNumber": number.to_string(), "PartitionKey": "k", "Data": "eA==",
            "ApproximateArrivalTimestamp": 1.5
        })
    };
    let records: Vec<Value> = numbers.iter().map(record).collect();
    let mut answer = json!({"Records": records, "MillisBehindLatest": 0});
    match next {
        Some(next) => answer["NextShardIterator"] = next.into(),
        None => {
            answer["ChildShards"] = json!([{
                "ShardId": "shardId-000000000001", "ParentShards": ["shardId-000000000000"],
                "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "7"}
            }]);
        }
    }
    (200, answer)
}

fn place(point: Point) -> Place {
    Place::Endpoint { created_s: 7, point }
}

#[tokio::test]
async fn a_shard_is_polled_through_refusals_to_its_end() {
    let script = Script::start(vec![
        iterator("one"),
        records(&[], Some("two")),
        error("ProvisionedThroughputExceededException"),
        (500, json!({"__type": "InternalFailure"})),
        records(&[11, 12], Some("three")),
        error("ExpiredIteratorException"),
        iterator("four"),
        records(&[13], None),
    ])
    .await;
    let stream = script.stream();
    let mut fetcher = Arc::clone(&stream).open("shardId-000000000000", place(Point::TrimHorizon));
    let fetch = fetcher.next().await.unwrap();
    let numbers: Vec<String> = fetch.records.iter().map(|record| record.sequence.to_string()).collect();
    assert_eq!(numbers, ["11", "12"]);
    assert_eq!(
        (fetch.records[0].arrival_ms, &fetch.records[0].data[..]),
        (1_500, &b"x"[..])
    );
    assert_eq!(fetch.next, place(Point::After("12".into())));
    assert!(!fetch.at_end);
    let fetch = fetcher.next().await.unwrap();
    assert_eq!(fetch.records[0].sequence, Sequence::Endpoint("13".into()));
    assert!(fetch.at_end);
    // The refused call was made again with the same iterator, the expired one replaced from the last record on.
    let asked = script.asked.lock().unwrap().clone();
    let iterators: Vec<&str> = asked
        .iter()
        .filter_map(|(_, body)| body["ShardIterator"].as_str())
        .collect();
    assert_eq!(iterators, ["one", "two", "two", "two", "three", "four"]);
    let renewed = &asked
        .iter()
        .filter(|(target, _)| target == "getsharditerator")
        .nth(1)
        .unwrap()
        .1;
    assert_eq!(renewed["ShardIteratorType"], "AFTER_SEQUENCE_NUMBER");
    assert_eq!(renewed["StartingSequenceNumber"], "12");
    // What the end told of is known before a listing has it.
    assert!(stream.seen().children.contains_key("shardId-000000000001"));
}

fn summary() -> (u16, Value) {
    summary_of(7)
}

/// Of a stream that was created in that second.
fn summary_of(created_s: u64) -> (u16, Value) {
    let summary = json!({"StreamDescriptionSummary": {
        "StreamName": "clicks", "StreamARN": "arn:aws:kinesis:eu-west-1:000000000000:stream/clicks",
        "StreamStatus": "ACTIVE", "RetentionPeriodHours": 24, "StreamCreationTimestamp": created_s as f64 + 0.25,
        "EnhancedMonitoring": [], "OpenShardCount": 1
    }});
    (200, summary)
}

#[tokio::test]
async fn children_are_described_before_a_listing_has_them() {
    let shard = |id: u32| {
        json!({
            "ShardId": format!("shardId-{id:012}"),
            "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "340282366920938463463374607431768211455"},
            "SequenceNumberRange": {"StartingSequenceNumber": "1"}
        })
    };
    let script = Script::start(vec![
        iterator("one"),
        records(&[], None),
        summary(),
        (200, json!({"Shards": [shard(0)], "NextToken": "more"})),
        (200, json!({"Shards": [shard(5)]})),
        summary(),
        error("LimitExceededException"),
        (200, json!({"Shards": [shard(0), shard(1)]})),
    ])
    .await;
    let stream = script.stream();
    let mut fetcher = Arc::clone(&stream).open("shardId-000000000000", place(Point::TrimHorizon));
    assert!(fetcher.next().await.unwrap().at_end);
    let ids = |view: StreamView| view.shards.into_iter().map(|shard| shard.id).collect::<Vec<_>>();
    let first = stream.describe().await.unwrap();
    assert_eq!(first.shards[0].identity, 7);
    assert_eq!(first.shards[1].parents, ["shardId-000000000000"]);
    assert_eq!(
        ids(first),
        ["shardId-000000000000", "shardId-000000000001", "shardId-000000000005"]
    );
    // One that was listed and is not any more has expired.
    assert_eq!(
        ids(stream.describe().await.unwrap()),
        ["shardId-000000000000", "shardId-000000000001"]
    );
    assert!(stream.seen().children.is_empty());
}

#[tokio::test]
async fn a_shard_that_is_gone_is_told_from_a_stream_that_is() {
    let script = Script::start(vec![
        error("ResourceNotFoundException"),
        summary(),
        error("ResourceNotFoundException"),
        error("ResourceNotFoundException"),
        error("AccessDeniedException"),
    ])
    .await;
    let open = || {
        script
            .stream()
            .open("shardId-000000000000", place(Point::After("5".into())))
    };
    assert_eq!(open().next().await.unwrap_err(), StreamError::ShardGone);
    let told = open().next().await.unwrap_err().told();
    assert!(told.contains("stream clicks does not exist at http://"), "{told}");
    assert!(
        told.contains("tidemill stream create clicks --shards 1 --server http://"),
        "{told}"
    );
    assert!(told.contains("ResourceNotFoundException: as the script says"), "{told}");
    // What does not pass by itself is not repeated.
    let told = open().next().await.unwrap_err().told();
    assert!(told.contains("AccessDeniedException"), "{told}");
    assert_eq!(script.asked().len(), 5);
}

#[tokio::test]
async fn a_stream_that_was_created_again_is_told_and_not_read_on() {
    let script = Script::start(vec![
        // The shard is not in the new stream.
        error("ResourceNotFoundException"),
        summary_of(9),
        // It is, and the old iterator is refused.
        iterator("one"),
        error("InvalidArgumentException"),
        summary_of(9),
        // An iterator that the same stream refuses is made anew, once.
        iterator("one"),
        error("InvalidArgumentException"),
        summary(),
        iterator("two"),
        records(&[3], Some("three")),
    ])
    .await;
    let open = || script.stream().open("shardId-000000000000", place(Point::TrimHorizon));
    for _ in 0..2 {
        let error = open().next().await.unwrap_err().of_source("t");
        assert!(
            error
                .to_string()
                .contains("stream clicks was deleted and created again"),
            "{error}"
        );
        assert!(!error.is_retryable(), "{error:?}");
    }
    assert_eq!(open().next().await.unwrap().records.len(), 1);
    assert_eq!(script.asked().len(), 10);
}

#[tokio::test]
async fn a_stream_is_looked_for_once_and_what_is_missing_is_permanent() {
    let script = Script::start(vec![
        summary(),
        error("ResourceNotFoundException"),
        (500, json!({"__type": "InternalFailure"})),
        error("ResourceNotFoundException"),
    ])
    .await;
    use super::sender::PutRecords as _;
    let stream = script.stream();
    let arn = "arn:aws:kinesis:eu-west-1:000000000000:stream/clicks";
    assert_eq!(stream.find().await.as_deref(), Ok(arn));
    assert!(!stream.find().await.unwrap_err().of_source("t").is_retryable());
    assert!(stream.find().await.unwrap_err().of_source("t").is_retryable());
    let options = script.options();
    let endpoint = options.endpoint.as_ref().unwrap();
    let put = EndpointPut::new(&options, endpoint, &ConnectorEnvironment::new()).unwrap();
    assert!(!put.find().await.unwrap_err().of_sink("s").is_retryable());
    assert_eq!(script.asked(), ["describestreamsummary"; 4]);
}

#[tokio::test]
async fn a_stream_that_is_written_is_looked_at_now_and_then() {
    use super::sender::PutRecords as _;
    let script = Script::start(vec![
        summary(),
        (500, json!({"__type": "InternalFailure"})),
        summary(),
        summary_of(9),
        error("ResourceNotFoundException"),
        summary(),
    ])
    .await;
    let options = script.options();
    let endpoint = options.endpoint.as_ref().unwrap();
    let mut put = EndpointPut::new(&options, endpoint, &ConnectorEnvironment::new()).unwrap();
    put.look_interval = std::time::Duration::ZERO;
    // The first look remembers; what passes by itself is not told.
    for _ in 0..3 {
        assert_eq!(put.look_again().await, Ok(()));
    }
    for about in ["created again while the job wrote", "does not exist"] {
        let error = put.look_again().await.unwrap_err().of_sink("s");
        assert!(error.to_string().contains(about) && !error.is_retryable(), "{error:?}");
    }
    put.look_interval = std::time::Duration::from_secs(3_600);
    assert_eq!(put.look_again().await, Ok(()));
    assert_eq!(script.asked().len(), 5, "not so soon");
}

#[tokio::test]
async fn a_moment_that_lies_ahead_for_the_endpoint_is_its_latest() {
    let script = Script::start(vec![
        error("InvalidArgumentException"),
        iterator("one"),
        records(&[3], Some("two")),
    ])
    .await;
    let mut fetcher = script.stream().open("shardId-000000000000", place(Point::Time(9_999)));
    assert_eq!(fetcher.next().await.unwrap().records.len(), 1);
    let asked = script.asked.lock().unwrap().clone();
    assert_eq!(asked[0].1["ShardIteratorType"], "AT_TIMESTAMP");
    assert_eq!(asked[0].1["Timestamp"], 9.999);
    assert_eq!(asked[1].1["ShardIteratorType"], "LATEST");
}

#[tokio::test]
async fn records_that_are_refused_are_told_one_by_one() {
    use super::sender::{PutError, PutRecords as _};
    let script = Script::start(vec![
        (
            200,
            json!({"FailedRecordCount": 2, "Records": [
                {"SequenceNumber": "1", "ShardId": "shardId-000000000000"},
                {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow"},
                {"ErrorCode": "KMSAccessDeniedException", "ErrorMessage": "no"}
            ]}),
        ),
        error("ProvisionedThroughputExceededException"),
        error("ResourceNotFoundException"),
        (200, json!({"FailedRecordCount": 0, "Records": []})),
    ])
    .await;
    let options = script.options();
    let put = EndpointPut::new(
        &options,
        options.endpoint.as_ref().unwrap(),
        &ConnectorEnvironment::new(),
    )
    .unwrap();
    let entries: Vec<_> = (0..3)
        .map(|n| tidemill_shards::PutEntry {
            partition_key: format!("k{n}"),
            explicit_hash_key: None,
            data: bytes::Bytes::from_static(b"x"),
        })
        .collect();
    let answer = put.put(&entries).await.unwrap();
    assert!(
        matches!(&answer[..], [None, Some(PutError::Later(_)), Some(PutError::Final(_))]),
        "{answer:?}"
    );
    assert!(matches!(put.put(&entries).await, Err(PutError::Later(_))));
    assert!(matches!(put.put(&entries).await, Err(PutError::Final(_))));
    // An answer that leaves records out is not believed.
    assert!(matches!(put.put(&entries).await, Err(PutError::Final(_))));
    let asked = script.asked.lock().unwrap();
    assert_eq!(asked[0].1["Records"][1], json!({"PartitionKey": "k1", "Data": "eA=="}));
}

#[tokio::test]
async fn an_endpoint_behind_tls_that_is_away_may_come_back() {
    use super::sender::{PutError, PutRecords as _};
    let script = Script::start(Vec::new()).await;
    let mut options = script.options();
    let mut endpoint = options.endpoint.take().unwrap();
    // Nobody listens there any more.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    endpoint.url = Some(format!("https://{}", listener.local_addr().unwrap()));
    drop(listener);
    let put = EndpointPut::new(&options, &endpoint, &ConnectorEnvironment::new()).unwrap();
    let entry = tidemill_shards::PutEntry {
        partition_key: "k".to_owned(),
        explicit_hash_key: None,
        data: bytes::Bytes::from_static(b"x"),
    };
    let answer = put.put(&[entry]).await;
    assert!(matches!(&answer, Err(PutError::Later(_))), "{answer:?}");
    // Amazon's own needs no more than a region.
    endpoint.url = None;
    assert!(EndpointPut::new(&options, &endpoint, &ConnectorEnvironment::new()).is_ok());
}
