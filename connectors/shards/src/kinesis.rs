//! The `Kinesis_20131202` API over a [`ShardStore`], without a transport: the server hands over target, content type and
//! body, and sends back what [`KinesisApi::handle`] answers.
//!
//! ```text
//!   body ─ JSON ─▶ decode by the operation's shape ─▶ constraints ─▶ operation ─▶ Item ─ JSON ─▶ body
//!                  SerializationException              ValidationException
//! ```
//! Types are checked first, then the constraints of all fields in one message, then the meaning: the order in which the
//! service does it. Operations know neither JSON nor HTTP, so that CBOR is another codec and nothing else.
//!
//! | file | |
//! |---|---|
//! | `item.rs` | typed values in and out |
//! | `shape.rs` | fields, their types and constraints |
//! | `decode.rs` | JSON to items |
//! | `validate.rs` | constraints, in the service's words |
//! | `error.rs` | names and statuses of errors |
//! | `token.rs` | shard iterators and NextTokens: authenticated, and they expire |
//! | `producer.rs` | the headers of producers that number their requests |
//! | `stream_ref.rs` | StreamName or StreamARN |
//! | `operations/` | one operation per file |

mod decode;
mod error;
mod item;
mod operations;
mod producer;
mod shape;
mod stream_ref;
mod token;
mod validate;

use std::fmt::Write;

use crate::limits;
use crate::store::ShardStore;
use error::ApiError;
use producer::Numbering;
pub use producer::{
    PRODUCER_EPOCH_HEADER, PRODUCER_ID_HEADER, PRODUCER_OUTCOME_HEADER, PRODUCER_SEQUENCE_HEADER, ProducerHeaders,
};

/// Prefix of every target of this API.
pub const TARGET_PREFIX: &str = "Kinesis_20131202.";

const JSON: &str = "application/x-amz-json-1.1";
const CBOR: &str = "application/x-amz-cbor-1.1";

/// What the server knows about a request beside target and body.
#[derive(Debug, Clone, Default)]
pub struct RequestContext {
    /// The id to answer with; a new one when there is none.
    pub request_id: Option<String>,
    /// How the producer numbers the request.
    pub producer: ProducerHeaders,
}

/// An answer for the server to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiResponse {
    /// The HTTP status.
    pub status: u16,
    /// Headers: `content-type` (when there is a body), `x-amzn-RequestId`, `x-amz-id-2`; of a numbered put
    /// [`PRODUCER_OUTCOME_HEADER`].
    pub headers: Vec<(&'static str, String)>,
    /// The body; may be empty.
    pub body: Vec<u8>,
}

/// The API of one store.
#[derive(Debug, Clone)]
pub struct KinesisApi {
    store: ShardStore,
}

impl KinesisApi {
    /// Serves `store`.
    pub fn new(store: ShardStore) -> Self {
        Self { store }
    }

    /// The store it serves.
    pub fn store(&self) -> &ShardStore {
        &self.store
    }

    /// Answers one request. `target` is the value of `X-Amz-Target`, `content_type` that of `Content-Type`; both may be
    /// empty. Dropping the future leaves it open whether a put takes effect, as a broken connection does.
    pub async fn handle(&self, target: &str, content_type: &str, body: &[u8], context: &RequestContext) -> ApiResponse {
        let mut response = self.answer(target, content_type, body, context).await;
        let request_id = context.request_id.clone().unwrap_or_else(|| self.random::<16>());
        response.headers.push(("x-amzn-RequestId", request_id));
        response.headers.push(("x-amz-id-2", self.random::<36>()));
        response
    }

    async fn answer(&self, target: &str, content_type: &str, body: &[u8], context: &RequestContext) -> ApiResponse {
        let content_type = content_type.split(';').next().unwrap_or_default().trim();
        let Some(operation) = target
            .split_once('.')
            .map(|(_, operation)| operation)
            .filter(|name| !name.is_empty())
        else {
            let text = "<AccessDeniedException>\n  <Message>Unable to determine service/operation name to be authorized</Message>\n</AccessDeniedException>\n";
            return xml(403, text);
        };
        if body.len() > limits::BODY_BYTES_MAX {
            return ApiResponse {
                status: 413,
                headers: Vec::new(),
                body: Vec::new(),
            };
        }
        if content_type == CBOR {
            let message = "CBOR is not supported yet: let the client speak JSON (AWS_CBOR_DISABLE=true, or aws.cborEnabled=false in the Java SDK)";
            return failed(&ApiError::unsupported(message));
        }
        if content_type != JSON {
            return xml(404, "<UnknownOperationException/>\n");
        }
        if !target.starts_with(TARGET_PREFIX) {
            return failed(&ApiError::bare("UnknownOperationException"));
        }
        let mut numbering = match context.producer.read(operation) {
            Ok(producer) => Numbering::new(producer),
            Err(error) => return failed(&error),
        };
        let mut response = match operations::run(&self.store, operation, body, &mut numbering).await {
            Ok(Some(item)) => match serde_json::to_vec(&item) {
                Ok(body) => json(200, body),
                Err(error) => {
                    tracing::error!(%operation, %error, "an answer could not be encoded");
                    failed(&ApiError::internal())
                }
            },
            Ok(None) => json(200, Vec::new()),
            Err(error) => failed(&error),
        };
        if let Some(outcome) = numbering.outcome() {
            response
                .headers
                .push((PRODUCER_OUTCOME_HEADER, outcome.as_str().to_owned()));
        }
        response
    }

    fn random<const BYTES: usize>(&self) -> String {
        let mut bytes = [0; BYTES];
        if self.store.entropy().fill(&mut bytes).is_err() {
            tracing::warn!("no entropy for a request id");
        }
        bytes
            .iter()
            .enumerate()
            .fold(String::with_capacity(BYTES * 2 + 4), |mut text, (at, byte)| {
                if BYTES == 16 && matches!(at, 4 | 6 | 8 | 10) {
                    text.push('-');
                }
                let _ = write!(text, "{byte:02x}");
                text
            })
    }
}

fn json(status: u16, body: Vec<u8>) -> ApiResponse {
    ApiResponse {
        status,
        headers: vec![("content-type", JSON.to_owned())],
        body,
    }
}

fn xml(status: u16, body: &str) -> ApiResponse {
    ApiResponse {
        status,
        headers: vec![("content-type", "application/xml".to_owned())],
        body: body.as_bytes().to_vec(),
    }
}

fn failed(error: &ApiError) -> ApiResponse {
    let mut response = json(error.status(), error.body());
    response.headers.push(("x-amzn-ErrorType", error.name().to_owned()));
    response
}
