//! Reading one shard: iterators, and what to do when they expire.

use super::Record;
use crate::cli::kinesis::{KinesisClient, KinesisError, moment_ms};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

/// Records of all shards together that one round of requests asks for.
const ROUND_RECORDS: usize = 10_000;
/// Records of one request, at least.
const REQUEST_RECORDS_MIN: usize = 10;

/// Where reading a shard starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// At its oldest record.
    TrimHorizon,
    /// Behind its newest record.
    Latest,
    /// At a moment, milliseconds since 1970.
    At(i64),
    /// At a record.
    Sequence(String),
    /// Behind a record.
    After(String),
}

/// What a look at a shard gave.
#[derive(Debug)]
pub(super) struct Page {
    /// The records, in their order.
    pub(super) records: Vec<Record>,
    /// There are more.
    pub(super) is_behind: bool,
    /// The shard is closed, and these are its last.
    pub(super) is_end: bool,
}

/// A place in a shard.
#[derive(Debug)]
pub(super) struct Cursor {
    stream: String,
    shard: String,
    start: Start,
    iterator: Option<String>,
    /// When the command began: nothing older than this is behind `LATEST`.
    started_ms: i64,
}

impl Cursor {
    pub(super) fn new(stream: &str, shard: &str, start: Start, started_ms: i64) -> Self {
        Self {
            stream: stream.to_owned(),
            shard: shard.to_owned(),
            start,
            iterator: None,
            started_ms,
        }
    }

    pub(super) fn shard(&self) -> &str {
        &self.shard
    }

    /// Gives an expired iterator up; the next look asks for a new one at the same place.
    pub(super) fn renew(&mut self) {
        self.iterator = None;
        if self.start == Start::Latest {
            // What came since the last look is not skipped.
            self.start = Start::At(self.started_ms);
        }
    }

    fn request(&self) -> Value {
        let mut body = json!({ "StreamName": self.stream, "ShardId": self.shard });
        let (kind, field, value) = match &self.start {
            Start::TrimHorizon => ("TRIM_HORIZON", None, Value::Null),
            Start::Latest => ("LATEST", None, Value::Null),
            Start::At(ms) => ("AT_TIMESTAMP", Some("Timestamp"), Value::from(*ms as f64 / 1_000.0)),
            Start::Sequence(number) => (
                "AT_SEQUENCE_NUMBER",
                Some("StartingSequenceNumber"),
                number.as_str().into(),
            ),
            Start::After(number) => (
                "AFTER_SEQUENCE_NUMBER",
                Some("StartingSequenceNumber"),
                number.as_str().into(),
            ),
        };
        body["ShardIteratorType"] = kind.into();
        if let Some(field) = field {
            body[field] = value;
        }
        body
    }

    /// Reads what comes next; `lanes` shards are read at the same time. Answers at once, also when there is nothing.
    pub(super) async fn read(&mut self, client: &KinesisClient, lanes: usize) -> Result<Page, KinesisError> {
        let iterator = match &self.iterator {
            Some(iterator) => iterator.clone(),
            None => {
                let answer = client.call("GetShardIterator", &self.request()).await?;
                let iterator = answer.get("ShardIterator").and_then(Value::as_str);
                let iterator = iterator.ok_or_else(|| client.incomplete("GetShardIterator", "ShardIterator"))?;
                self.iterator = Some(iterator.to_owned());
                iterator.to_owned()
            }
        };
        let limit = (ROUND_RECORDS / lanes.max(1)).clamp(REQUEST_RECORDS_MIN, ROUND_RECORDS);
        let request = json!({ "ShardIterator": iterator, "Limit": limit });
        let answer = client.call("GetRecords", &request).await?;
        let records = answer.get("Records").and_then(Value::as_array);
        let records = records.and_then(|records| records.iter().map(|record| self.record(record)).collect());
        let records: Vec<Record> = records.ok_or_else(|| client.incomplete("GetRecords", "Records"))?;
        if let Some(last) = records.last() {
            self.start = Start::After(last.sequence.clone());
        }
        self.iterator = answer
            .get("NextShardIterator")
            .and_then(Value::as_str)
            .map(str::to_owned);
        let behind_ms = answer.get("MillisBehindLatest").and_then(Value::as_u64).unwrap_or(0);
        Ok(Page {
            // A server that does not say how far behind it is, says so with records.
            is_behind: behind_ms > 0 || records.len() >= limit,
            records,
            is_end: self.iterator.is_none(),
        })
    }

    fn record(&self, record: &Value) -> Option<Record> {
        let text = |field: &str| record.get(field).and_then(Value::as_str);
        Some(Record {
            shard: self.shard.clone(),
            sequence: text("SequenceNumber")?.to_owned(),
            arrival_ms: moment_ms(record.get("ApproximateArrivalTimestamp")),
            key: text("PartitionKey")?.to_owned(),
            data: BASE64.decode(text("Data")?).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_iterator_is_asked_for_as_the_service_wants_it() {
        let of = |start| Cursor::new("s", "a", start, 0).request();
        assert_eq!(of(Start::Latest)["ShardIteratorType"], "LATEST");
        assert_eq!(of(Start::At(1_500))["Timestamp"], 1.5);
        assert_eq!(
            of(Start::Sequence("7".into()))["ShardIteratorType"],
            "AT_SEQUENCE_NUMBER"
        );
        assert_eq!(of(Start::After("7".into()))["StartingSequenceNumber"], "7");
        assert_eq!(of(Start::TrimHorizon).get("StartingSequenceNumber"), None);
    }

    #[test]
    fn an_expired_iterator_at_the_tail_does_not_skip_what_came_meanwhile() {
        let mut cursor = Cursor::new("s", "a", Start::Latest, 5_000);
        cursor.iterator = Some("i".into());
        cursor.renew();
        assert_eq!((cursor.start, cursor.iterator), (Start::At(5_000), None));
        let mut cursor = Cursor::new("s", "a", Start::After("9".into()), 5_000);
        cursor.renew();
        assert_eq!(cursor.start, Start::After("9".into()));
    }

    #[test]
    fn a_record_is_read_with_its_bytes() {
        let cursor = Cursor::new("s", "a", Start::Latest, 0);
        let record = json!({
            "SequenceNumber": "1", "PartitionKey": "k", "Data": "AAE=", "ApproximateArrivalTimestamp": 1.25,
        });
        let record = cursor.record(&record).unwrap();
        assert_eq!((record.data, record.arrival_ms), (vec![0, 1], Some(1_250)));
        assert_eq!(
            cursor.record(&json!({ "SequenceNumber": "1", "PartitionKey": "k", "Data": "?" })),
            None
        );
    }
}
