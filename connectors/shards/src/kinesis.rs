//! The `Kinesis_20131202` API over a [`ShardStore`], without a transport: the server hands over target, content type and
//! body, and sends back what [`KinesisApi::handle`] answers.
//!
//! ```text
//!   body ─ codec ─▶ decode by the operation's shape ─▶ constraints ─▶ operation ─▶ Item ─ codec ─▶ body
//!          (JSON, CBOR) SerializationException         ValidationException    └─▶ Subscription ─▶ frame, frame, …
//! ```
//! Types are checked first, then the constraints of all fields in one message, then the meaning: the order in which the
//! service does it. Operations know neither JSON nor CBOR nor HTTP.
//!
//! | file | |
//! |---|---|
//! | `item.rs` | typed values in and out |
//! | `shape.rs` | fields, their types and constraints |
//! | `codec.rs`, `codec/` | JSON and CBOR to items and back |
//! | `validate.rs` | constraints, in the service's words |
//! | `error.rs` | names and statuses of errors |
//! | `token.rs` | shard iterators and NextTokens: authenticated, and they expire |
//! | `producer.rs` | the headers of producers that number their requests |
//! | `stream_ref.rs` | StreamName or StreamARN |
//! | `consumer_ref.rs` | ConsumerARN, or StreamARN and ConsumerName |
//! | `starting_point.rs` | the five types of starting points |
//! | `subscriptions.rs`, `subscription.rs` | who is subscribed to what, and what one subscription sends |
//! | `event_frame.rs` | frames of the event stream |
//! | `operations/` | one operation per file |

mod codec;
mod consumer_ref;
mod error;
mod event_frame;
mod item;
mod operations;
mod producer;
mod shape;
mod starting_point;
mod stream_ref;
mod subscription;
mod subscriptions;
mod token;
mod validate;

use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;

use crate::limits;
use crate::store::ShardStore;
use codec::Codec;
use error::ApiError;
use producer::Numbering;
pub use producer::{
    PRODUCER_EPOCH_HEADER, PRODUCER_ID_HEADER, PRODUCER_OUTCOME_HEADER, PRODUCER_SEQUENCE_HEADER, ProducerHeaders,
};
pub use subscription::Subscription;
pub use subscriptions::SubscriptionOptions;
use subscriptions::Subscriptions;

/// Prefix of every target of this API.
pub const TARGET_PREFIX: &str = "Kinesis_20131202.";

const EVENT_STREAM: &str = "application/vnd.amazon.eventstream";

/// What the server knows about a request beside target and body.
#[derive(Debug, Clone, Default)]
pub struct RequestContext {
    /// The id to answer with; a new one when there is none.
    pub request_id: Option<String>,
    /// How the producer numbers the request.
    pub producer: ProducerHeaders,
    /// The value of `Content-Encoding`. The service knows no encodings, so only those that change nothing are accepted.
    pub content_encoding: Option<String>,
}

/// An answer for the server to send.
#[derive(Debug)]
pub struct ApiResponse {
    /// The HTTP status.
    pub status: u16,
    /// Headers: `content-type` (when there is a body), `x-amzn-RequestId`, `x-amz-id-2`; of a numbered put
    /// [`PRODUCER_OUTCOME_HEADER`].
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: ApiBody,
}

/// The body of an answer.
#[derive(Debug)]
pub enum ApiBody {
    /// All of it; may be empty.
    Full(Vec<u8>),
    /// Frames, one after the other, for minutes.
    Events(Box<Subscription>),
}

/// The API of one store. Clones are the same API.
#[derive(Debug, Clone)]
pub struct KinesisApi {
    store: ShardStore,
    subscriptions: Arc<Subscriptions>,
}

impl KinesisApi {
    /// Serves `store`.
    pub fn new(store: ShardStore) -> Self {
        Self::with_options(store, SubscriptionOptions::default())
    }

    /// Serves `store`, with other times of subscriptions than the service's.
    pub fn with_options(store: ShardStore, options: SubscriptionOptions) -> Self {
        Self {
            store,
            subscriptions: Arc::new(Subscriptions::new(options)),
        }
    }

    /// The store it serves.
    pub fn store(&self) -> &ShardStore {
        &self.store
    }

    /// Subscriptions that are open.
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.live()
    }

    /// Ends all subscriptions, and every one that begins from now on at once: the server stops.
    pub fn end_subscriptions(&self) {
        self.subscriptions.stop();
    }

    /// Answers one request. `target` is the value of `X-Amz-Target`, `content_type` that of `Content-Type`; both may be
    /// empty. Dropping the future leaves it open whether a put takes effect, as a broken connection does.
    pub async fn handle(&self, target: &str, content_type: &str, body: Bytes, context: &RequestContext) -> ApiResponse {
        let mut response = self.answer(target, content_type, body, context).await;
        let request_id = context.request_id.clone().unwrap_or_else(|| self.random::<16>());
        response.headers.push(("x-amzn-RequestId", request_id));
        response.headers.push(("x-amz-id-2", self.random::<36>()));
        response
    }

    async fn answer(&self, target: &str, content_type: &str, body: Bytes, context: &RequestContext) -> ApiResponse {
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
                body: ApiBody::Full(Vec::new()),
            };
        }
        let Some(codec) = Codec::of(content_type) else {
            return xml(404, "<UnknownOperationException/>\n");
        };
        if let Some(encoding) = context.content_encoding.as_deref()
            && !is_plain(encoding)
        {
            return failed(
                codec,
                &ApiError::serialization(format!(
                    "Content-Encoding {encoding} is not supported: send the body as it is. To save bytes, compress the \
                     data of the records."
                )),
            );
        }
        if !target.starts_with(TARGET_PREFIX) {
            return failed(codec, &ApiError::bare("UnknownOperationException"));
        }
        let mut numbering = match context.producer.read(operation) {
            Ok(producer) => Numbering::new(producer),
            Err(error) => return failed(codec, &error),
        };
        if operation == "SubscribeToShard" {
            let begun = operations::subscribe_to_shard::run(&self.store, &self.subscriptions, codec, &body);
            return match begun.await {
                Ok(subscription) => ApiResponse {
                    status: 200,
                    headers: vec![("content-type", EVENT_STREAM.to_owned())],
                    body: ApiBody::Events(Box::new(subscription)),
                },
                Err(error) => failed(codec, &error),
            };
        }
        let mut response = match operations::run(&self.store, operation, codec, &body, &mut numbering).await {
            Ok(Some(item)) => full(200, codec, codec.body(&item)),
            Ok(None) => full(200, codec, Vec::new()),
            Err(error) => failed(codec, &error),
        };
        if let Some(outcome) = numbering.outcome() {
            let outcome = outcome.as_str().to_owned();
            response.headers.push((PRODUCER_OUTCOME_HEADER, outcome));
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

fn full(status: u16, codec: Codec, body: Vec<u8>) -> ApiResponse {
    ApiResponse {
        status,
        headers: vec![("content-type", codec.content_type().to_owned())],
        body: ApiBody::Full(body),
    }
}

fn xml(status: u16, body: &str) -> ApiResponse {
    ApiResponse {
        status,
        headers: vec![("content-type", "application/xml".to_owned())],
        body: ApiBody::Full(body.as_bytes().to_vec()),
    }
}

fn failed(codec: Codec, error: &ApiError) -> ApiResponse {
    let body = codec.body(&error.fields().into());
    let mut response = full(error.status(), codec, body);
    response.headers.push(("x-amzn-ErrorType", error.name().to_owned()));
    response
}

/// Whether an encoding leaves a body as it is. Old SDKs call that `amz-1.0`.
fn is_plain(encoding: &str) -> bool {
    let mut all = encoding.split(',').map(str::trim);
    all.all(|one| one.is_empty() || one.eq_ignore_ascii_case("identity") || one.eq_ignore_ascii_case("amz-1.0"))
}
