//! Google Cloud Storage by its XML API: objects with `x-goog-if-generation-match`, lists, and uploads in parts.
//!
//! <https://cloud.google.com/storage/docs/xml-api/overview>

use super::{Answer, Asked, Contents, status};
use axum::body::Body;
use axum::http::{Method, Response, StatusCode};

pub(super) const TOKEN: &str = "token";

pub(super) fn answer(contents: &mut Contents, asked: &mut Asked) -> Option<Answer> {
    if asked.header("authorization").as_deref() != Some(&format!("Bearer {TOKEN}")) {
        return Some(status(StatusCode::UNAUTHORIZED));
    }
    let Some(name) = asked.name.clone() else {
        return (asked.method == Method::GET).then(|| contents.list(asked))?;
    };
    if asked.query.contains_key("uploads") || asked.query.contains_key("uploadId") {
        return contents.upload_step(asked);
    }
    match asked.method {
        Method::GET | Method::HEAD => contents.read(asked),
        Method::PUT => {
            // 0 is the generation of an object that is not there.
            if asked.header("x-goog-if-generation-match")? != "0" {
                return None;
            }
            if contents.has(&name) {
                return Some(status(StatusCode::PRECONDITION_FAILED));
            }
            contents.put(&name, asked.body.clone());
            Response::builder()
                .header("etag", format!("\"{}\"", contents.next))
                .header("x-goog-generation", contents.next)
                .body(Body::empty())
                .ok()
        }
        Method::DELETE => Some(status(match contents.objects.remove(&name) {
            Some(_) => StatusCode::NO_CONTENT,
            None => StatusCode::NOT_FOUND,
        })),
        _ => None,
    }
}
