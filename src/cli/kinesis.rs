//! A client of the Kinesis API over HTTP, JSON 1.1, without credentials: what `tidemill stream` and the benchmarks speak.
//!
//! It sends what an AWS SDK would send, so it works against every endpoint that does not check signatures. Some of those
//! find out by the `Authorization` header which service and region is meant: it has the header's form, with the access key
//! `anonymous` and a signature of zeros. The region is that of `AWS_REGION` or `AWS_DEFAULT_REGION`, or `us-east-1`.

use super::client::http_client;
use crate::timestamp;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;
use tidemill_engine::time::{SystemTime, TimeSource as _};
use tidemill_shards::kinesis::PRODUCER_OUTCOME_HEADER;

/// The region that is meant when nobody says one.
const REGION_DEFAULT: &str = "us-east-1";
/// How long an answer may take: a server that is silent for longer is gone.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a stream may take to become active.
const ACTIVE_MAX: Duration = Duration::from_secs(600);
/// The first delay between two looks at a stream's status; it doubles up to a second.
const LOOK_DELAY: Duration = Duration::from_millis(20);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KinesisError {
    /// The URL is none.
    #[error("--server {url}: {reason}; write it like http://127.0.0.1:4566")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server did not answer.
    #[error("cannot reach {url}: {reason}; start the server with tidemill server, or name another with --server")]
    Unreachable {
        /// The server.
        url: String,
        /// Why.
        reason: String,
    },
    /// The service refused.
    #[error("{0}")]
    Refused(Refused),
    /// The answer is not that of a Kinesis API.
    #[error("{url} answered {operation} with something that is not from a Kinesis API ({reason}); check --server")]
    Strange {
        /// The address.
        url: String,
        /// What was asked.
        operation: String,
        /// What the answer was.
        reason: String,
    },
    /// It took too long.
    #[error(
        "stream {stream} is still {status} after {} minutes; look again with: tidemill stream describe {stream}",
        ACTIVE_MAX.as_secs() / 60
    )]
    StillChanging {
        /// The stream.
        stream: String,
        /// Its status.
        status: String,
    },
}

impl KinesisError {
    /// Says whether the same request may succeed a little later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused(refused) => refused.is_throttled() || refused.status >= 500,
            _ => false,
        }
    }

    /// Says whether the request was at fault, and not the server.
    pub(crate) fn is_users(&self) -> bool {
        match self {
            Self::Url { .. } => true,
            Self::Refused(refused) => refused.status < 500 && !refused.is_throttled(),
            _ => false,
        }
    }

    /// Says whether the service gave an error of this name.
    pub(crate) fn is(&self, name: &str) -> bool {
        matches!(self, Self::Refused(refused) if refused.name == name)
    }
}

/// An error that the service told.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    /// What was asked.
    pub(crate) operation: String,
    /// The HTTP status.
    pub(crate) status: u16,
    /// Its name, such as `ResourceNotFoundException`.
    pub(crate) name: String,
    /// What the service says; may be empty.
    pub(crate) message: String,
}

impl Refused {
    /// Reads the error in an answer that is no success.
    fn read(operation: &str, status: StatusCode, header: Option<&str>, body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |field: &str| body.get(field).and_then(Value::as_str);
        let name = text("__type").or(header)?;
        // Some servers put a namespace in front, or a URL behind.
        let name = name.rsplit_once('#').map_or(name, |(_, name)| name);
        let name = name.split(':').next().unwrap_or(name);
        Some(Self {
            operation: operation.to_owned(),
            status: status.as_u16(),
            name: name.to_owned(),
            message: text("message").or(text("Message")).unwrap_or_default().to_owned(),
        })
    }

    /// Says whether the service asks for patience.
    fn is_throttled(&self) -> bool {
        matches!(
            self.name.as_str(),
            "ProvisionedThroughputExceededException" | "ThrottlingException" | "KMSThrottlingException"
        )
    }

    /// Says what to do about it.
    fn advice(&self) -> Option<&'static str> {
        Some(match (self.name.as_str(), self.operation.as_str()) {
            ("ResourceNotFoundException", _) => {
                "tidemill stream list shows the streams, tidemill stream describe NAME the shards of one; tidemill stream \
                 create NAME makes one"
            }
            ("ResourceInUseException", "CreateStream") => {
                "choose another name; tidemill stream describe NAME shows the stream, tidemill stream set NAME changes it"
            }
            ("ResourceInUseException", _) => "the stream is being changed; try again when it is ACTIVE",
            ("ProvisionedThroughputExceededException" | "ThrottlingException", _) => "slow down, or add shards",
            ("UnsupportedOperationException" | "UnknownOperationException", _) => {
                "this server does not have the operation; a newer one may"
            }
            (
                "MissingAuthenticationTokenException"
                | "UnrecognizedClientException"
                | "IncompleteSignatureException"
                | "InvalidSignatureException"
                | "AccessDeniedException",
                _,
            ) => {
                "the endpoint wants signed requests, and tidemill stream sends them without credentials; use the aws \
                 command there"
            }
            _ => return None,
        })
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let message = match self.message.as_str() {
            "" => "the service gave no reason",
            said => said,
        };
        write!(
            f,
            "{} ({} by {})",
            message.trim_end_matches('.'),
            self.name,
            self.operation
        )?;
        if let Some(advice) = self.advice() {
            write!(f, "\nhint: {advice}")?;
        }
        Ok(())
    }
}

/// A shard, as ListShards tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    /// Its id.
    pub(crate) id: String,
    /// The shards that it came from: none, one (a split) or two (a merge).
    pub(crate) parents: Vec<String>,
    /// The first hash key that leads to it.
    pub(crate) first_key: u128,
    /// The last hash key that leads to it.
    pub(crate) last_key: u128,
    /// Where its records start.
    pub(crate) first_sequence: String,
    /// Where they end, once it is closed.
    pub(crate) last_sequence: Option<String>,
}

impl Shard {
    /// Says whether records still go to it.
    pub(crate) fn is_open(&self) -> bool {
        self.last_sequence.is_none()
    }

    fn read(shard: &Value) -> Option<Self> {
        let text = |pointer: &str| shard.pointer(pointer).and_then(Value::as_str);
        let parents = [text("/ParentShardId"), text("/AdjacentParentShardId")];
        Some(Self {
            id: text("/ShardId")?.to_owned(),
            parents: parents.into_iter().flatten().map(str::to_owned).collect(),
            first_key: text("/HashKeyRange/StartingHashKey")?.parse().ok()?,
            last_key: text("/HashKeyRange/EndingHashKey")?.parse().ok()?,
            first_sequence: text("/SequenceNumberRange/StartingSequenceNumber")?.to_owned(),
            last_sequence: text("/SequenceNumberRange/EndingSequenceNumber").map(str::to_owned),
        })
    }
}

/// An answer that is no error.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Null when there was none.
    pub(crate) body: Value,
    /// The server has understood how the request was numbered.
    pub(crate) is_numbered: bool,
}

/// A client of one server.
#[derive(Clone, Debug)]
pub(crate) struct KinesisClient {
    url: url::Url,
    http: reqwest::Client,
    region: String,
}

impl KinesisClient {
    /// Makes a client of the server at a URL like `http://127.0.0.1:4566`.
    ///
    /// # Errors
    /// When that is no such URL.
    pub(crate) fn new(server: &str) -> Result<Self, KinesisError> {
        let wrong = |reason: String| KinesisError::Url {
            url: server.to_owned(),
            reason,
        };
        let url = url::Url::parse(server).map_err(|error| wrong(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(wrong("this is no URL of a server".into()));
        }
        let http = http_client().map_err(|error| wrong(format!("cannot make an HTTP client: {error}")))?;
        let region = ["AWS_REGION", "AWS_DEFAULT_REGION"]
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|region| is_region(region)));
        Ok(Self {
            url,
            http,
            region: region.unwrap_or_else(|| REGION_DEFAULT.to_owned()),
        })
    }

    /// Makes a request of an operation; its body is in the encoding of `content_type`.
    pub(crate) fn request(&self, operation: &str, content_type: &str) -> reqwest::RequestBuilder {
        let (date, authorization) = unsigned(SystemTime::default().wall_ms(), &self.region);
        self.http
            .post(self.url.clone())
            .header("Content-Type", content_type)
            .header("X-Amz-Target", format!("Kinesis_20131202.{operation}"))
            .header("X-Amz-Date", date)
            .header("Authorization", authorization)
    }

    /// Calls an operation. Dropping the future leaves it open whether it takes effect.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub(crate) async fn call(&self, operation: &str, body: &Value) -> Result<Value, KinesisError> {
        self.call_with(operation, body, &[]).await.map(|answer| answer.body)
    }

    /// Calls an operation with further headers.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(crate) async fn call_with(
        &self,
        operation: &str,
        body: &Value,
        headers: &[(&'static str, String)],
    ) -> Result<Answer, KinesisError> {
        let unreachable = |error: reqwest::Error| KinesisError::Unreachable {
            url: self.url.to_string(),
            reason: super::client::causes(&error),
        };
        let mut request = self
            .request(operation, "application/x-amz-json-1.1")
            .timeout(ANSWER_TIMEOUT)
            .body(body.to_string());
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let kind = response.headers().get("x-amzn-errortype").cloned();
        let is_numbered = response.headers().contains_key(PRODUCER_OUTCOME_HEADER);
        let bytes = response.bytes().await.map_err(unreachable)?;
        let strange = |reason: String| KinesisError::Strange {
            url: self.url.to_string(),
            operation: operation.to_owned(),
            reason,
        };
        if !status.is_success() {
            let kind = kind.as_ref().and_then(|kind| kind.to_str().ok());
            let refused = Refused::read(operation, status, kind, &bytes);
            return Err(refused.map_or_else(|| strange(format!("status {status}")), KinesisError::Refused));
        }
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).map_err(|error| strange(format!("not JSON: {error}")))?
        };
        Ok(Answer { body, is_numbered })
    }

    /// Describes a stream without its shards.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(crate) async fn summary(&self, stream: &str) -> Result<Value, KinesisError> {
        let mut answer = self
            .call("DescribeStreamSummary", &json!({ "StreamName": stream }))
            .await?;
        match answer.get_mut("StreamDescriptionSummary") {
            Some(summary) => Ok(summary.take()),
            None => Err(self.incomplete("DescribeStreamSummary", "StreamDescriptionSummary")),
        }
    }

    /// Waits until a stream is ACTIVE, and describes it.
    ///
    /// # Errors
    /// As [`Self::call`], and when it takes longer than ten minutes.
    pub(crate) async fn wait_until_active(&self, stream: &str) -> Result<Value, KinesisError> {
        let start = tokio::time::Instant::now();
        let mut delay = LOOK_DELAY;
        loop {
            let summary = self.summary(stream).await?;
            let status = summary.get("StreamStatus").and_then(Value::as_str).unwrap_or_default();
            if status == "ACTIVE" {
                return Ok(summary);
            }
            if start.elapsed() > ACTIVE_MAX {
                return Err(KinesisError::StillChanging {
                    stream: stream.to_owned(),
                    status: status.to_owned(),
                });
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(Duration::from_secs(1));
        }
    }

    /// Lists the shards of a stream, open and closed, by their ids.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(crate) async fn shards(&self, stream: &str) -> Result<Vec<Shard>, KinesisError> {
        let incomplete = || self.incomplete("ListShards", "Shards");
        let mut shards = Vec::new();
        let mut request = json!({ "StreamName": stream });
        loop {
            let answer = self.call("ListShards", &request).await?;
            let page = answer.get("Shards").and_then(Value::as_array).ok_or_else(incomplete)?;
            for shard in page {
                shards.push(Shard::read(shard).ok_or_else(incomplete)?);
            }
            match answer.get("NextToken").and_then(Value::as_str) {
                Some(token) => request = json!({ "NextToken": token }),
                None => break,
            }
        }
        shards.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(shards)
    }

    /// The error for an answer that lacks what was asked for.
    pub(crate) fn incomplete(&self, operation: &str, missing: &str) -> KinesisError {
        KinesisError::Strange {
            url: self.url.to_string(),
            operation: operation.to_owned(),
            reason: format!("{missing} is missing or incomplete"),
        }
    }
}

fn is_region(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
}

/// The date and the authorization of a request that nobody signed.
fn unsigned(now_ms: i64, region: &str) -> (String, String) {
    let digits: String = timestamp::format(now_ms)[..19]
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    let (day, time) = digits.split_at(8);
    let scope = format!("{day}/{region}/kinesis/aws4_request");
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential=anonymous/{scope}, SignedHeaders=host;x-amz-date;x-amz-target, Signature={}",
        "0".repeat(64)
    );
    (format!("{day}T{time}Z"), authorization)
}

/// Reads a moment of an answer: seconds with a fraction. Returns milliseconds since 1970.
pub(crate) fn moment_ms(value: Option<&Value>) -> Option<i64> {
    let seconds = value?.as_f64()?;
    Some((seconds * 1_000.0).round() as i64)
}

/// Writes a moment of an answer for people; a dash when there is none.
pub(crate) fn moment_text(value: Option<&Value>) -> String {
    moment_ms(value).map_or_else(|| "-".into(), timestamp::rfc3339)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(operation: &str, body: &str) -> Refused {
        Refused::read(operation, StatusCode::BAD_REQUEST, None, body.as_bytes()).unwrap()
    }

    #[test]
    fn errors_are_read_in_every_spelling_and_say_what_to_do() {
        let error = refused(
            "PutRecords",
            r#"{"__type":"ResourceNotFoundException","message":"Stream a under account 0 not found."}"#,
        );
        let text = error.to_string();
        assert!(
            text.starts_with("Stream a under account 0 not found (ResourceNotFoundException by PutRecords)\nhint: "),
            "{text}"
        );
        let spelt = refused(
            "X",
            r#"{"__type":"com.amazonaws.kinesis#SerializationException","Message":"no"}"#,
        );
        assert_eq!(
            (spelt.name.as_str(), spelt.message.as_str()),
            ("SerializationException", "no")
        );
        let header = Refused::read(
            "X",
            StatusCode::BAD_REQUEST,
            Some("LimitExceededException:http://x/"),
            b"<x/>",
        );
        assert_eq!(header.unwrap().name, "LimitExceededException");
        assert!(Refused::read("X", StatusCode::BAD_REQUEST, None, b"<html>").is_none());
    }

    #[test]
    fn throttling_and_failures_of_the_server_are_transient_and_refusals_are_not() {
        let of = |name: &str, status: u16| {
            KinesisError::Refused(Refused {
                operation: "PutRecords".into(),
                status,
                name: name.into(),
                message: String::new(),
            })
        };
        assert!(of("ProvisionedThroughputExceededException", 400).is_transient());
        assert!(of("InternalFailure", 500).is_transient());
        assert!(!of("InternalFailure", 500).is_users());
        assert!(!of("ValidationException", 400).is_transient());
        assert!(of("ValidationException", 400).is_users());
    }

    #[test]
    fn a_server_that_is_no_url_is_refused() {
        for wrong in ["", "localhost:4566", "file:///x", "http://"] {
            let error = KinesisClient::new(wrong).unwrap_err();
            assert!(
                error.is_users() && error.to_string().contains("--server"),
                "{wrong}: {error}"
            );
        }
    }

    #[test]
    fn shards_are_read_with_their_parents() {
        let shard = Shard::read(&json!({
            "ShardId": "shardId-000000000002", "ParentShardId": "shardId-000000000000",
            "AdjacentParentShardId": "shardId-000000000001",
            "HashKeyRange": { "StartingHashKey": "0", "EndingHashKey": "340282366920938463463374607431768211455" },
            "SequenceNumberRange": { "StartingSequenceNumber": "7" },
        }))
        .unwrap();
        assert_eq!(shard.last_key, u128::MAX);
        assert_eq!(shard.parents, ["shardId-000000000000", "shardId-000000000001"]);
        assert!(shard.is_open());
        assert_eq!(Shard::read(&json!({ "ShardId": "x" })), None);
    }

    #[test]
    fn an_unsigned_request_says_which_service_and_region_is_meant() {
        let (date, authorization) = unsigned(1_795_414_233_007, "eu-west-1");
        assert_eq!(date, "20261123T061033Z");
        let scope = "AWS4-HMAC-SHA256 Credential=anonymous/20261123/eu-west-1/kinesis/aws4_request, ";
        assert!(authorization.starts_with(scope), "{authorization}");
        assert!(is_region("us-east-1") && !is_region("") && !is_region("a b") && !is_region("a/b"));
    }

    #[test]
    fn moments_keep_their_milliseconds() {
        assert_eq!(moment_ms(Some(&json!(1_795_414_233.007))), Some(1_795_414_233_007));
        assert_eq!(moment_text(None), "-");
    }
}
