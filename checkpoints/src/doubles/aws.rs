//! S3: PutObject with `If-None-Match`, GetObject, HeadObject, ListObjectsV2, DeleteObjects, and uploads in parts.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html>

use super::{Answer, Asked, Contents, elements, escaped, status, xml};
use axum::http::{Method, StatusCode};

pub(super) const KEY_ID: &str = "id";

pub(super) fn answer(contents: &mut Contents, asked: &mut Asked) -> Option<Answer> {
    let signature = asked.header("authorization").unwrap_or_default();
    if !signature.starts_with(&format!("AWS4-HMAC-SHA256 Credential={KEY_ID}/")) {
        return Some(status(StatusCode::FORBIDDEN));
    }
    // What every signed request has.
    asked.header("x-amz-date")?;
    asked.header("x-amz-content-sha256")?;
    let Some(name) = asked.name.clone() else {
        return match asked.method {
            Method::GET => contents.list(asked),
            Method::POST => delete(contents, asked),
            _ => None,
        };
    };
    if asked.query.contains_key("uploads") || asked.query.contains_key("uploadId") {
        return contents.upload_step(asked);
    }
    match asked.method {
        Method::GET | Method::HEAD => contents.read(asked),
        Method::PUT => {
            if asked.header("if-none-match")? != "*" {
                return None;
            }
            if contents.has(&name) {
                return Some(status(StatusCode::PRECONDITION_FAILED));
            }
            contents.put(&name, asked.body.clone());
            let answer = axum::http::Response::builder().header("etag", format!("\"{}\"", contents.next));
            answer.body(axum::body::Body::empty()).ok()
        }
        _ => None,
    }
}

/// Deletes many; one that is not there is no error.
fn delete(contents: &mut Contents, asked: &mut Asked) -> Option<Answer> {
    asked.parameter("delete")?;
    asked.header("x-amz-checksum-sha256")?;
    let text = String::from_utf8(asked.body.to_vec()).ok()?;
    let mut deleted = String::new();
    for name in elements(&text, "Key") {
        contents.objects.remove(&name);
        deleted += &format!("<Deleted><Key>{}</Key></Deleted>", escaped(&name));
    }
    xml(&format!("<DeleteResult>{deleted}</DeleteResult>"))
}
