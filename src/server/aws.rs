//! The AWS APIs, all at `POST /`: `X-Amz-Target` says which service and operation is meant.
//!
//! Requests and answers are the services' own, with their error names and status codes; nothing here looks into a body.

use super::metrics::Metrics;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{self, CONTENT_TYPE, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use std::sync::Arc;
use std::time::Duration;
use tidemill_shards::ShardStore;
use tidemill_shards::kinesis::{KinesisApi, RequestContext};
use tidemill_shards::limits::BODY_BYTES_MAX;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// What scripts of a web page may read of an answer.
const EXPOSED: HeaderValue =
    HeaderValue::from_static("x-amzn-RequestId,x-amzn-ErrorType,x-amz-request-id,x-amz-id-2,x-amzn-ErrorMessage,Date");

#[derive(Clone)]
struct AwsState {
    kinesis: Arc<KinesisApi>,
}

/// Makes the route.
pub(super) fn routes(store: &ShardStore, _metrics: Arc<Metrics>) -> Router {
    let state = AwsState {
        kinesis: Arc::new(KinesisApi::new(store.clone())),
    };
    let route = post(handle)
        .options(preflight)
        .fallback(|| async { unknown_operation() });
    Router::new().route("/", route).with_state(state)
}

async fn handle(State(state): State<AwsState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let from_page = parts.headers.contains_key(ORIGIN);
    let mut response = match read_body(body).await {
        Ok(body) => dispatch(&state, &parts.headers, body).await,
        Err(refusal) => refusal,
    };
    if from_page {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    response
}

/// Kinesis Data Streams is the one service so far; it also gives the answer to targets that nobody knows.
async fn dispatch(state: &AwsState, headers: &HeaderMap, body: Bytes) -> Response {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let (target, content_type) = (text("x-amz-target"), text(CONTENT_TYPE.as_str()));
    let answer = state
        .kinesis
        .handle(target, content_type, &body, &RequestContext::default())
        .await;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Body::from(answer.body)).into_response();
    for (name, value) in answer.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(&value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

async fn read_body(body: Body) -> Result<Bytes, Response> {
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(StatusCode::PAYLOAD_TOO_LARGE.into_response()),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT.into_response()),
    }
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

    #[tokio::test]
    async fn bodies_are_read_up_to_the_stores_own_limit() {
        let at_limit = read_body(Body::from(vec![b' '; BODY_BYTES_MAX])).await.unwrap();
        assert_eq!(at_limit.len(), BODY_BYTES_MAX);
        let refusal = read_body(Body::from(vec![b' '; BODY_BYTES_MAX + 1])).await.unwrap_err();
        assert_eq!(refusal.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
