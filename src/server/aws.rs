//! The AWS APIs, all at `POST /`: `X-Amz-Target` says which service and operation is meant, or the form of STS.
//!
//! Requests and answers are the services' own, with their error names and status codes; nothing here looks into a body.

mod sts;

use super::metrics::Metrics;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{self, CONTENT_ENCODING, CONTENT_TYPE, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::BytesMut;
use futures::{StreamExt as _, stream};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tidemill_shards::kinesis::{
    ApiBody, KinesisApi, PRODUCER_EPOCH_HEADER, PRODUCER_ID_HEADER, PRODUCER_SEQUENCE_HEADER, ProducerHeaders,
    RequestContext,
};
use tidemill_shards::limits::BODY_BYTES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of the bodies of all requests that are being read or answered; beyond it, requests are to be repeated later. What
/// has arrived counts, not what was announced: a client that announces much and sends little takes no room from others.
const BODIES_BYTES_MAX: usize = 256 << 20;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// What scripts of a web page may read of an answer.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-amzn-RequestId,x-amzn-ErrorType,x-amz-request-id,x-amz-id-2,x-amzn-ErrorMessage,x-tidemill-producer-outcome,Date",
);

#[derive(Clone)]
struct AwsState {
    kinesis: KinesisApi,
    /// Room for bodies.
    room: Arc<Semaphore>,
}

/// Makes the route.
pub(super) fn routes(kinesis: KinesisApi, _metrics: Arc<Metrics>) -> Router {
    let state = AwsState {
        kinesis,
        room: Arc::new(Semaphore::new(BODIES_BYTES_MAX)),
    };
    let route = post(handle)
        .options(preflight)
        .fallback(|| async { unknown_operation() });
    Router::new().route("/", route).with_state(state)
}

async fn handle(State(state): State<AwsState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let from_page = parts.headers.contains_key(ORIGIN);
    let mut response = match read_body(body, &state.room).await {
        // The room is taken until there is an answer.
        Ok((body, _room)) => dispatch(&state, &parts.headers, body).await,
        Err(refusal) => refusal,
    };
    if from_page {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    response
}

/// Kinesis Data Streams is the one service so far, beside the question who the caller is; it also gives the answer to targets
/// that nobody knows.
async fn dispatch(state: &AwsState, headers: &HeaderMap, body: Bytes) -> Response {
    if let Some(response) = sts::answer(headers, &body, &state.kinesis.store().options().account) {
        return response;
    }
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let (target, content_type) = (text("x-amz-target"), text(CONTENT_TYPE.as_str()));
    let context = RequestContext {
        content_encoding: Some(text(CONTENT_ENCODING.as_str()).to_owned()),
        producer: producer(headers),
        ..RequestContext::default()
    };
    let answer = state.kinesis.handle(target, content_type, body, &context).await;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = match answer.body {
        ApiBody::Full(bytes) => Body::from(bytes),
        // Frames are made when the connection has room for one; when it is gone, so is the subscription.
        ApiBody::Events(subscription) => Body::from_stream(stream::unfold(subscription, async |mut subscription| {
            let frame = subscription.next().await?;
            Some((Ok::<_, Infallible>(frame), subscription))
        })),
    };
    let mut response = (status, body).into_response();
    for (name, value) in answer.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(&value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// The headers of a producer that numbers its requests. One that comes twice, or is no text, comes out as a value that is
/// refused.
fn producer(headers: &HeaderMap) -> ProducerHeaders {
    let text = |name: &str| {
        let values: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        (!values.is_empty()).then(|| values.join(","))
    };
    ProducerHeaders {
        id: text(PRODUCER_ID_HEADER),
        epoch: text(PRODUCER_EPOCH_HEADER),
        sequence: text(PRODUCER_SEQUENCE_HEADER),
    }
}

async fn read_body(body: Body, room: &Arc<Semaphore>) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Response> {
    match tokio::time::timeout(BODY_TIMEOUT, collect(body, room)).await {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(status)) => Err(status.into_response()),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT.into_response()),
    }
}

/// Collects a body up to the limit of one and within the room for all.
async fn collect(body: Body, room: &Arc<Semaphore>) -> Result<(Bytes, Option<OwnedSemaphorePermit>), StatusCode> {
    let mut pieces = body.into_data_stream();
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    let mut taken: Option<OwnedSemaphorePermit> = None;
    let mut length = 0;
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| StatusCode::BAD_REQUEST)?;
        length += piece.len();
        if length > BODY_BYTES_MAX {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        let more = Arc::clone(room)
            .try_acquire_many_owned(piece.len() as u32)
            .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        match &mut taken {
            Some(taken) => taken.merge(more),
            None => taken = Some(more),
        }
        // Most bodies come in one piece, which need not be copied.
        if first.is_empty() {
            first = piece;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&piece);
        }
    }
    Ok((if rest.is_empty() { first } else { rest.freeze() }, taken))
}

/// What the services answer to a request that names no operation of theirs.
fn unknown_operation() -> Response {
    (StatusCode::NOT_FOUND, "<UnknownOperationException/>\n").into_response()
}

/// Answers a browser that asks whether a page may call: it may, as with the real services, for there requests are signed.
async fn preflight(headers: HeaderMap) -> Response {
    let mut response = StatusCode::OK.into_response();
    let echo = |name: HeaderName| headers.get(name).cloned();
    let allowed = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, Some(HeaderValue::from_static("*"))),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, Some(EXPOSED)),
        (header::ACCESS_CONTROL_MAX_AGE, Some(HeaderValue::from_static("172800"))),
        (
            header::ACCESS_CONTROL_ALLOW_METHODS,
            echo(header::ACCESS_CONTROL_REQUEST_METHOD),
        ),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            echo(header::ACCESS_CONTROL_REQUEST_HEADERS),
        ),
    ];
    for (name, value) in allowed {
        if let Some(value) = value {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(bytes: usize) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(bytes))
    }

    fn pieces(count: usize, bytes: usize) -> Body {
        let piece = Bytes::from(vec![b'x'; bytes]);
        Body::from_stream(stream::iter(vec![Ok::<_, Infallible>(piece); count]))
    }

    #[test]
    fn headers_of_a_producer_that_are_no_single_text_are_not_lost() {
        assert_eq!(producer(&HeaderMap::new()), ProducerHeaders::default());
        let mut headers = HeaderMap::new();
        headers.append(PRODUCER_ID_HEADER, HeaderValue::from_bytes(b"p\xff").unwrap());
        headers.append(PRODUCER_EPOCH_HEADER, HeaderValue::from_static("1"));
        headers.append(PRODUCER_EPOCH_HEADER, HeaderValue::from_static("2"));
        headers.append(PRODUCER_SEQUENCE_HEADER, HeaderValue::from_static(""));
        let read = producer(&headers);
        assert_eq!(read.id.as_deref(), Some("p\u{fffd}"));
        assert_eq!(read.epoch.as_deref(), Some("1,2"));
        assert_eq!(read.sequence.as_deref(), Some(""));
    }

    #[tokio::test]
    async fn bodies_are_read_up_to_the_stores_own_limit() {
        let room = room(BODIES_BYTES_MAX);
        let (at_limit, _) = read_body(Body::from(vec![b' '; BODY_BYTES_MAX]), &room).await.unwrap();
        assert_eq!(at_limit.len(), BODY_BYTES_MAX);
        let (in_pieces, _) = read_body(pieces(16, BODY_BYTES_MAX / 16), &room).await.unwrap();
        assert!(in_pieces.len() == BODY_BYTES_MAX && in_pieces.iter().all(|&byte| byte == b'x'));
        for body in [
            Body::from(vec![b' '; BODY_BYTES_MAX + 1]),
            pieces(17, BODY_BYTES_MAX / 16),
        ] {
            let refusal = read_body(body, &room).await.unwrap_err();
            assert_eq!(refusal.status(), StatusCode::PAYLOAD_TOO_LARGE);
        }
        assert_eq!(room.available_permits(), BODIES_BYTES_MAX);
    }

    #[tokio::test]
    async fn bodies_of_all_requests_together_have_a_limit() {
        let room = room(1_000);
        let (_, first) = read_body(pieces(3, 200), &room).await.unwrap();
        let refusal = read_body(pieces(3, 200), &room).await.unwrap_err();
        assert_eq!(refusal.status(), StatusCode::SERVICE_UNAVAILABLE);
        // The one that was refused gave back what it had.
        let (_, second) = read_body(pieces(2, 200), &room).await.unwrap();
        assert_eq!(room.available_permits(), 0);
        assert!(read_body(Body::empty(), &room).await.is_ok());
        drop((first, second));
        assert!(read_body(pieces(5, 200), &room).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_refused() {
        let broken = stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("gone"))]);
        let refusal = read_body(Body::from_stream(broken), &room(1_000)).await.unwrap_err();
        assert_eq!(refusal.status(), StatusCode::BAD_REQUEST);
    }
}
