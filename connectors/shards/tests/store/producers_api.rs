//! Numbered requests over the API: headers, outcomes, names of refusals, and the limits of a stream.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use tidemill_shards::ShardStore;
use tidemill_shards::env::{ManualClock, SimDisk};
use tidemill_shards::kinesis::{ApiBody, KinesisApi, PRODUCER_OUTCOME_HEADER, ProducerHeaders, RequestContext};

use crate::producers::*;
use crate::support::*;

struct Client(KinesisApi);

struct Answer {
    status: u16,
    outcome: Option<String>,
    body: Vec<u8>,
}

impl Answer {
    fn outcome(&self) -> Option<&str> {
        self.outcome.as_deref()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The names of the errors of its records.
    fn errors(&self) -> Vec<Option<String>> {
        let records = self.json()["Records"].as_array().unwrap().clone();
        let name = |record: &Value| record["ErrorCode"].as_str().map(str::to_owned);
        records.iter().map(name).collect()
    }
}

impl Client {
    async fn send(&self, operation: &str, numbers: Option<(&str, &str, &str)>, body: Value) -> Answer {
        let header = |pick: fn((&str, &str, &str)) -> String| numbers.map(pick);
        let context = RequestContext {
            producer: ProducerHeaders {
                id: header(|(id, _, _)| id.to_owned()),
                epoch: header(|(_, epoch, _)| epoch.to_owned()),
                sequence: header(|(_, _, sequence)| sequence.to_owned()),
            },
            ..RequestContext::default()
        };
        let target = format!("Kinesis_20131202.{operation}");
        let body = Bytes::from(body.to_string());
        let response = self
            .0
            .handle(&target, "application/x-amz-json-1.1", body, &context)
            .await;
        let outcome = response
            .headers
            .iter()
            .find(|(name, _)| *name == PRODUCER_OUTCOME_HEADER);
        let outcome = outcome.map(|(_, value)| value.clone());
        let ApiBody::Full(body) = response.body else {
            panic!("{operation} answers with a whole body")
        };
        Answer {
            status: response.status,
            outcome,
            body,
        }
    }
}

/// What a stream's limits refuse at first is told again as it was, and a request that is stored already is not refused.
#[test]
fn limits_of_a_stream_refuse_records_and_not_repetitions() {
    block_on(async {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(NOW_MS));
        let store = ShardStore::open_in(environment(&disk, &clock), options()).unwrap();
        let client = Client(KinesisApi::new(store.clone()));
        let create = json!({"StreamName": "s", "ShardCount": 2, "Tags": {"tidemill:capacity": "enforced"}});
        assert_eq!(client.send("CreateStream", None, create).await.status, 200);
        let records = |indices: std::ops::Range<usize>| {
            let hash_keys = ["0", "340282366920938463463374607431768211455"];
            let record = |index: usize| {
                let data = STANDARD.encode(format!("{index:0>60000}"));
                json!({"PartitionKey": "k", "ExplicitHashKey": hash_keys[index % 2], "Data": data})
            };
            json!({"StreamName": "s", "Records": indices.map(record).collect::<Vec<_>>()})
        };
        let first = client.send("PutRecords", Some(("p", "0", "0")), records(0..40)).await;
        assert_eq!(first.outcome(), Some("stored"));
        let errors = first.errors();
        let stored_at_first = errors.iter().filter(|error| error.is_none()).count();
        assert_eq!(stored_at_first, 34);
        assert_eq!(errors[39].as_deref(), Some("ProvisionedThroughputExceededException"));
        // While both shards have had their share, and when they have room: the same answer.
        for _ in 0..2 {
            let again = client.send("PutRecords", Some(("p", "0", "0")), records(0..40)).await;
            assert_eq!((again.outcome(), &again.body), (Some("repeated"), &first.body));
            let none = client.send("PutRecords", Some(("p", "0", "1")), records(34..40)).await;
            assert_eq!((none.status, none.outcome()), (200, Some("nothing")));
            assert!(none.errors().iter().all(Option::is_some));
            let one = json!({"StreamName": "s", "PartitionKey": "k", "ExplicitHashKey": "0", "Data": STANDARD.encode("x".repeat(60_000))});
            let one = client.send("PutRecord", Some(("p", "0", "1")), one).await;
            assert_eq!((one.status, one.outcome()), (400, Some("nothing")));
            assert_eq!(one.json()["__type"], "ProvisionedThroughputExceededException");
        }
        clock.advance(1_000);
        let again = client.send("PutRecords", Some(("p", "0", "0")), records(0..40)).await;
        assert_eq!((again.outcome(), &again.body), (Some("repeated"), &first.body));
        clock.advance(1_000);
        let rest = client.send("PutRecords", Some(("p", "0", "1")), records(34..40)).await;
        assert_eq!(rest.outcome(), Some("stored"));
        let all = stored(&store, "s");
        assert_eq!(all.len(), 40);
    });
}

#[test]
fn the_api_numbers_puts_by_headers_and_names_every_refusal() {
    block_on(async {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, "s", 2).await;
        let client = Client(KinesisApi::new(store.clone()));
        let many = |texts: &[&str]| {
            let record = |text: &&str| json!({"PartitionKey": text, "Data": STANDARD.encode(text)});
            json!({"StreamName": "s", "Records": texts.iter().map(record).collect::<Vec<_>>()})
        };
        let one = |text: &str| json!({"StreamName": "s", "PartitionKey": text, "Data": STANDARD.encode(text)});

        let first = client
            .send("PutRecords", Some(("p", "1", "0")), many(&["a", "b", "c"]))
            .await;
        assert_eq!((first.status, first.outcome()), (200, Some("stored")));
        let again = client
            .send("PutRecords", Some(("p", "1", "0")), many(&["a", "b", "c"]))
            .await;
        assert_eq!((again.status, again.outcome()), (200, Some("repeated")));
        assert_eq!(again.body, first.body);
        let single = client.send("PutRecord", Some(("p", "1", "1")), one("d")).await;
        assert_eq!((single.status, single.outcome()), (200, Some("stored")));
        let again = client.send("PutRecord", Some(("p", "1", "1")), one("d")).await;
        assert_eq!((again.outcome(), &again.body), (Some("repeated"), &single.body));
        let plain = client.send("PutRecord", None, one("e")).await;
        assert_eq!((plain.status, plain.outcome()), (200, None));

        for (numbers, body, expected) in [
            (("p", "1", "3"), one("x"), "OutOfSequenceException"),
            (("p", "0", "0"), one("x"), "ProducerFencedException"),
            (("p", "1", "1"), one("x"), "SequenceReusedException"),
            (("q", "0", "1"), one("x"), "UnknownProducerException"),
            (("q q", "0", "0"), one("x"), "ValidationException"),
            (("q", "-1", "0"), one("x"), "ValidationException"),
            (("q", "0", "zero"), one("x"), "ValidationException"),
        ] {
            let refused = client.send("PutRecord", Some(numbers), body).await;
            assert_eq!((refused.status, refused.outcome()), (400, None), "{numbers:?}");
            assert_eq!(refused.json()["__type"], expected, "{numbers:?}");
            assert!(refused.json()["message"].as_str().unwrap().len() > 40);
        }
        for sequence in 2..7 {
            let sent = client
                .send("PutRecord", Some(("p", "1", &sequence.to_string())), one("more"))
                .await;
            assert_eq!(sent.status, 200);
        }
        let old = client.send("PutRecord", Some(("p", "1", "1")), one("d")).await;
        assert_eq!(old.json()["__type"], "SequenceForgottenException");
        let elsewhere = client.send("ListStreams", Some(("p", "1", "0")), json!({})).await;
        assert_eq!(elsewhere.json()["__type"], "ValidationException");
        // What is only tried, or refused for another reason, uses no sequence.
        let mut tried = one("tried");
        tried["DryRun"] = true.into();
        let tried = client.send("PutRecord", Some(("p", "1", "7")), tried).await;
        assert_eq!(tried.json()["__type"], "DryRunOperationException");
        let mut other = one("other");
        other["StreamName"] = "nowhere".into();
        let nowhere = client.send("PutRecord", Some(("p", "1", "7")), other).await;
        assert_eq!(nowhere.json()["__type"], "ResourceNotFoundException");
        let next = client.send("PutRecord", Some(("p", "1", "7")), one("next")).await;
        assert_eq!(next.outcome(), Some("stored"));

        let mut found: Vec<String> = (0..2)
            .flat_map(|id| texts(&read_all(&store, &shard("s", id)).unwrap()))
            .collect();
        found.sort();
        assert_eq!(
            found,
            ["a", "b", "c", "d", "e", "more", "more", "more", "more", "more", "next"]
        );
    });
}
