//! The API in CBOR, spoken by a reader and writer that are not the store's own.

use ciborium::Value;
use tidemill_shards::env::SimDisk;

use crate::kinesis::Client;
use crate::support::*;

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn map<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Map(fields.map(|(name, value)| (text(name), value)).to_vec())
}

fn time(ms: u64) -> Value {
    Value::Tag(1, Box::new(Value::from(ms)))
}

fn get<'v>(value: &'v Value, name: &str) -> &'v Value {
    let fields = value.as_map().unwrap();
    let field = fields.iter().find(|(key, _)| key.as_text() == Some(name));
    field.map_or(&Value::Null, |(_, value)| value)
}

async fn call(client: &Client, operation: &str, body: Value) -> (u16, Value) {
    let mut bytes = Vec::new();
    ciborium::into_writer(&body, &mut bytes).unwrap();
    let target = format!("Kinesis_20131202.{operation}");
    let response = client.raw(&target, "application/x-amz-cbor-1.1", &bytes).await;
    let content_type = response.headers.iter().find(|(name, _)| *name == "content-type");
    assert_eq!(content_type.unwrap().1, "application/x-amz-cbor-1.1");
    if response.body.is_empty() {
        return (response.status, Value::Null);
    }
    // A map of indefinite length, as the service's own.
    assert_eq!(response.body[0], 0xbf);
    (response.status, ciborium::from_reader(&response.body[..]).unwrap())
}

async fn ok(client: &Client, operation: &str, body: Value) -> Value {
    let (status, answer) = call(client, operation, body).await;
    assert_eq!(status, 200, "{operation}: {answer:?}");
    answer
}

#[test]
fn records_and_times_pass_through_unchanged() {
    block_on(async {
        let client = Client::new(&SimDisk::new());
        ok(
            &client,
            "CreateStream",
            map([("StreamName", text("s")), ("ShardCount", 1.into())]),
        )
        .await;
        let data: Vec<u8> = (0..=255).collect();
        let record = |data: &[u8]| map([("Data", Value::Bytes(data.to_vec())), ("PartitionKey", text("k"))]);
        let records = Value::Array(vec![record(&data), record(b"")]);
        let answer = ok(
            &client,
            "PutRecords",
            map([("StreamName", text("s")), ("Records", records)]),
        )
        .await;
        assert_eq!(get(&answer, "FailedRecordCount"), &Value::from(0));
        client.clock.advance(1_000);
        ok(
            &client,
            "PutRecord",
            map([
                ("StreamName", text("s")),
                ("Data", Value::Bytes(b"later".to_vec())),
                ("PartitionKey", text("k")),
            ]),
        )
        .await;

        let from = |kind: &str, more: Option<(&str, Value)>| {
            let mut body = map([
                ("StreamName", text("s")),
                ("ShardId", text("shardId-000000000000")),
                ("ShardIteratorType", text(kind)),
            ]);
            if let (Some((name, value)), Value::Map(fields)) = (more, &mut body) {
                fields.push((text(name), value));
            }
            body
        };
        let read = async |start: Value| {
            let iterator = get(&ok(&client, "GetShardIterator", start).await, "ShardIterator").clone();
            let answer = ok(&client, "GetRecords", map([("ShardIterator", iterator)])).await;
            get(&answer, "Records").as_array().unwrap().clone()
        };
        let records = read(from("TRIM_HORIZON", None)).await;
        let blobs: Vec<&[u8]> = records
            .iter()
            .map(|record| &get(record, "Data").as_bytes().unwrap()[..])
            .collect();
        assert_eq!(blobs, [&data[..], b"", b"later"]);
        assert_eq!(get(&records[0], "ApproximateArrivalTimestamp"), &time(NOW_MS));
        // A moment in milliseconds, between the records.
        let records = read(from("AT_TIMESTAMP", Some(("Timestamp", time(NOW_MS + 1))))).await;
        assert_eq!(records.len(), 1);
        let described = ok(&client, "DescribeStreamSummary", map([("StreamName", text("s"))])).await;
        let summary = get(&described, "StreamDescriptionSummary");
        assert_eq!(get(summary, "StreamCreationTimestamp"), &time(NOW_MS));
    });
}

#[test]
fn errors_are_cbor_too() {
    block_on(async {
        let client = Client::new(&SimDisk::new());
        let (status, answer) = call(&client, "DescribeStream", map([("StreamName", text("none"))])).await;
        assert_eq!(status, 400);
        assert_eq!(get(&answer, "__type"), &text("ResourceNotFoundException"));
        assert_eq!(
            get(&answer, "message"),
            &text("Stream none under account 000000000000 not found.")
        );
        let (_, answer) = call(&client, "DescribeStream", map([("StreamName", 5.into())])).await;
        assert_eq!(get(&answer, "__type"), &text("SerializationException"));
        assert!(get(&answer, "Message").as_text().unwrap().contains("String"));
        let (_, answer) = call(
            &client,
            "DescribeStream",
            map([("Limit", 0.into()), ("StreamName", text(""))]),
        )
        .await;
        assert_eq!(get(&answer, "__type"), &text("ValidationException"));
        let (_, answer) = call(&client, "Nonsense", map([])).await;
        assert_eq!(get(&answer, "__type"), &text("UnknownOperationException"));
    });
}
