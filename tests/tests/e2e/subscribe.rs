//! SubscribeToShard through the AWS SDK, over HTTP/1.1 and HTTP/2, and through an HTTP/2 client that misbehaves.
//!
//! Nothing of a subscription may stay behind when its client reads slowly, goes away, or the server stops; what the server
//! holds is seen in its metrics.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region, SharedHttpClient};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{ShardIteratorType, StartingPosition, SubscribeToShardEventStream};
use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tidemill_tests::{Server, eventually};
use tokio::net::TcpStream;

const SHARD: &str = "shardId-000000000000";
const STREAM_ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/s";

fn sdk(url: &str, http: SharedHttpClient) -> Client {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "tests"))
        .endpoint_url(url)
        .retry_config(RetryConfig::disabled())
        .http_client(http);
    Client::from_conf(config.build())
}

fn plain(server: &Server) -> Client {
    sdk(server.url(), aws_smithy_http_client::Builder::new().build_http())
}

async fn put(client: &Client, data: Vec<u8>) {
    let put = client.put_record().stream_name("s").partition_key("k");
    put.data(Blob::new(data)).send().await.unwrap();
}

async fn register(client: &Client, name: &str) -> String {
    let request = client.register_stream_consumer().stream_arn(STREAM_ARN);
    let answer = request.consumer_name(name).send().await.unwrap();
    answer.consumer.unwrap().consumer_arn
}

type Events = aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardOutput;

async fn subscribe(client: &Client, consumer: &str, from: ShardIteratorType) -> Events {
    let position = StartingPosition::builder().r#type(from).build().unwrap();
    let request = client.subscribe_to_shard().consumer_arn(consumer).shard_id(SHARD);
    request.starting_position(position).send().await.unwrap()
}

/// Reads until so many records have come; answers their data.
async fn read(events: &mut Events, count: usize) -> Vec<String> {
    let mut data = Vec::new();
    while data.len() < count {
        let event = events.event_stream.recv().await.unwrap().expect("an event");
        let SubscribeToShardEventStream::SubscribeToShardEvent(event) = event else {
            panic!("{event:?}");
        };
        assert!(!event.continuation_sequence_number.is_empty());
        let records = event.records.iter();
        data.extend(records.map(|record| String::from_utf8_lossy(record.data.as_ref()).into_owned()));
    }
    data
}

/// Waits until the server has so many subscriptions.
async fn subscriptions(server: &Server, count: usize) {
    eventually(&format!("{count} subscriptions"), || async {
        let text = reqwest::Client::builder().no_proxy().build().unwrap();
        let text = text.get(format!("{}/metrics", server.url())).send().await.unwrap();
        let text = text.text().await.unwrap();
        let line = format!("tidemill_kinesis_subscriptions {count}");
        text.lines().any(|known| known == line).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_sdk_is_pushed_records_and_told_that_the_server_stops() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(&directory.path().join("data"));
    let client = plain(&server);
    client
        .create_stream()
        .stream_name("s")
        .shard_count(1)
        .send()
        .await
        .unwrap();
    put(&client, b"0".to_vec()).await;
    let consumer = register(&client, "c").await;
    let mut events = subscribe(&client, &consumer, ShardIteratorType::TrimHorizon).await;
    assert_eq!(read(&mut events, 1).await, ["0"]);
    for index in 1..20 {
        put(&client, index.to_string().into_bytes()).await;
        assert_eq!(read(&mut events, 1).await, [index.to_string()]);
    }

    // The same consumer again, at once: refused, and the first goes on.
    let position = StartingPosition::builder().r#type(ShardIteratorType::Latest).build();
    let again = client.subscribe_to_shard().consumer_arn(&consumer).shard_id(SHARD);
    let refused = again.starting_position(position.unwrap()).send().await.unwrap_err();
    assert!(refused.into_service_error().is_resource_in_use_exception());
    put(&client, b"still there".to_vec()).await;
    assert_eq!(read(&mut events, 1).await, ["still there"]);

    subscriptions(&server, 1).await;
    let status = tokio::task::spawn_blocking(move || server.terminate()).await.unwrap();
    assert!(status.success(), "{status}");
    // The end is an end and no broken connection.
    while let Some(event) = events.event_stream.recv().await.unwrap() {
        assert!(event.is_subscribe_to_shard_event());
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/tls").join(name)
}

#[tokio::test]
async fn the_sdk_speaks_http_2_under_tls() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (fixture("server.pem"), fixture("server.key"));
    // One connection for all: what is pushed and what is put meanwhile can only share it over HTTP/2.
    let server = Server::start_with(
        &directory.path().join("data"),
        &[
            "--tls-certificate",
            certificate.to_str().unwrap(),
            "--tls-key",
            key.to_str().unwrap(),
            "--connections-max",
            "1",
        ],
    );
    assert!(server.url().starts_with("https://"), "{}", server.url());
    let trusted = std::fs::read(fixture("ca.pem")).unwrap();
    let context = TlsContext::builder()
        .with_trust_store(TrustStore::empty().with_pem_certificate(trusted))
        .build()
        .unwrap();
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(context)
        .build_https();
    let client = sdk(server.url(), http);
    client
        .create_stream()
        .stream_name("s")
        .shard_count(1)
        .send()
        .await
        .unwrap();
    let consumer = register(&client, "c").await;
    let mut events = subscribe(&client, &consumer, ShardIteratorType::TrimHorizon).await;
    for index in 0..5 {
        put(&client, index.to_string().into_bytes()).await;
        assert_eq!(read(&mut events, 1).await, [index.to_string()]);
    }
}

#[test]
fn certificates_that_cannot_be_used_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let (certificate, key) = (fixture("server.pem"), fixture("server.key"));
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    for (certificate, key, expected) in [
        ("none.pem", key, "--tls-certificate none.pem"),
        (certificate, "none.key", "--tls-key none.key"),
        (key, key, "--tls-certificate"),
        (certificate, certificate, "--tls-key"),
        (fixture("ca.pem").to_str().unwrap(), key, "does not go with the key"),
    ] {
        let (code, said) = Server::refused(
            &data,
            &[
                "--listen",
                "127.0.0.1:0",
                "--tls-certificate",
                certificate,
                "--tls-key",
                key,
            ],
        );
        assert!(code.is_some_and(|code| code != 0) && said.contains(expected), "{said}");
    }
    let (code, said) = Server::refused(&data, &["--tls-key", key]);
    assert!(
        code.is_some_and(|code| code != 0) && said.contains("--tls-certificate"),
        "{said}"
    );
}

/// HTTP/2 on a plain connection, without asking before.
async fn http2(server: &Server) -> h2::client::SendRequest<Bytes> {
    let address = server.url().strip_prefix("http://").unwrap();
    let tcp = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(64 * 1024)
        .handshake(tcp)
        .await
        .unwrap();
    // Ends when the client is dropped.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client
}

async fn post(
    client: &h2::client::SendRequest<Bytes>,
    operation: &str,
    body: &Value,
) -> http::Response<h2::RecvStream> {
    let mut client = client.clone().ready().await.unwrap();
    let request = http::Request::post("http://localhost/")
        .header("x-amz-target", format!("Kinesis_20131202.{operation}"))
        .header("content-type", "application/x-amz-json-1.1")
        .body(())
        .unwrap();
    let (response, mut send) = client.send_request(request, false).unwrap();
    send.send_data(body.to_string().into(), true).unwrap();
    response.await.unwrap()
}

fn request(consumer: &str) -> Value {
    json!({"ConsumerARN": consumer, "ShardId": SHARD, "StartingPosition": {"Type": "TRIM_HORIZON"}})
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_everything_and_one_that_goes_away_leaves_nothing() {
    const RECORDS: usize = 12;
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let kinesis = server.kinesis();
    kinesis.create_stream("s", 1).await;
    let data = BASE64.encode(vec![b'x'; 900_000]);
    for _ in 0..RECORDS {
        let body = json!({"StreamName": "s", "PartitionKey": "k", "Data": data});
        kinesis.must("PutRecord", &body).await;
    }
    let body = json!({"StreamARN": STREAM_ARN, "ConsumerName": "c"});
    let registered = kinesis.must("RegisterStreamConsumer", &body).await;
    let consumer = registered["Consumer"]["ConsumerARN"].as_str().unwrap();
    let client = http2(&server).await;
    let response = post(&client, "SubscribeToShard", &request(consumer)).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/vnd.amazon.eventstream");
    let mut body = response.into_body();
    subscriptions(&server, 1).await;

    // Nothing is read, and others on the same connection are answered all the same.
    for _ in 0..3 {
        assert_eq!(post(&client, "ListStreams", &json!({})).await.status(), 200);
    }
    let mut decoder = MessageFrameDecoder::new();
    let (mut buffer, mut records, mut frames) = (BytesMut::new(), 0, 0);
    while records < RECORDS {
        let piece = body.data().await.expect("the stream goes on").unwrap();
        assert!(piece.len() <= 64 * 1024);
        body.flow_control().release_capacity(piece.len()).unwrap();
        buffer.extend_from_slice(&piece);
        while let DecodedFrame::Complete(message) = decoder.decode_frame(&mut buffer).unwrap() {
            frames += 1;
            if frames > 1 {
                let event: Value = serde_json::from_slice(message.payload()).unwrap();
                let new = event["Records"].as_array().unwrap();
                assert!(new.iter().all(|record| record["Data"] == data.as_str()));
                records += new.len();
            }
        }
    }
    assert_eq!(records, RECORDS);

    drop((body, client));
    subscriptions(&server, 0).await;
}

#[tokio::test]
async fn a_client_that_resets_over_and_over_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let address = server.url().strip_prefix("http://").unwrap();
    let tcp = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(tcp).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut cut_off = false;
    for _ in 0..20_000 {
        let Ok(mut ready) = client.clone().ready().await else {
            cut_off = true;
            break;
        };
        let request = http::Request::post("http://localhost/").body(()).unwrap();
        match ready.send_request(request, false) {
            Ok((response, mut send)) => {
                send.send_reset(h2::Reason::CANCEL);
                drop(response);
            }
            Err(_) => {
                cut_off = true;
                break;
            }
        }
        tokio::task::yield_now().await;
    }
    // A connection that was not cut off ends well now, and that is what must not be.
    drop(client);
    assert!(
        cut_off || connection.await.unwrap().is_err(),
        "the client may go on for ever"
    );
    // Others are not concerned.
    server.kinesis().must("ListStreams", &json!({})).await;
}
