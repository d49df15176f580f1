//! Azure Blob Storage: Put Blob with `If-None-Match`, Put Block, Put Block List, Get Blob, Get Blob Properties, List Blobs, and
//! deletion by Blob Batch.
//!
//! <https://learn.microsoft.com/en-us/rest/api/storageservices/blob-service-rest-api>

use super::{Answer, Asked, BUCKET, Contents, Object, decoded, elements, escaped, status, xml};
use axum::body::Body;
use axum::http::{Method, Response, StatusCode};
use bytes::Bytes;

pub(super) const ACCOUNT: &str = "account";

pub(super) fn answer(contents: &mut Contents, asked: &mut Asked) -> Option<Answer> {
    let signature = asked.header("authorization").unwrap_or_default();
    if !signature.starts_with(&format!("SharedKey {ACCOUNT}:")) {
        return Some(status(StatusCode::FORBIDDEN));
    }
    // What every signed request has.
    asked.header("date")?;
    asked.header("x-ms-version")?;
    let operation = asked.parameter("comp");
    let Some(name) = asked.name.clone() else {
        (asked.parameter("restype")? == "container").then_some(())?;
        return match (&asked.method, operation.as_deref()) {
            (&Method::GET, Some("list")) => list(contents, asked),
            (&Method::POST, Some("batch")) => batch(contents, asked),
            _ => None,
        };
    };
    match (&asked.method, operation.as_deref()) {
        (&Method::GET | &Method::HEAD, None) => contents.read(asked),
        (&Method::PUT, None) => {
            if asked.header("x-ms-blob-type")? != "BlockBlob" || asked.header("if-none-match")? != "*" {
                return None;
            }
            if contents.has(&name) {
                return Some(status(StatusCode::CONFLICT));
            }
            contents.uploads.remove(&name);
            contents.put(&name, asked.body.clone());
            created(contents)
        }
        (&Method::PUT, Some("block")) => {
            let id = asked.parameter("blockid")?;
            let upload = contents.uploads.entry(name).or_default();
            // All ids of a blob must be of one length.
            if upload.parts.keys().any(|other| other.len() != id.len()) {
                return Some(status(StatusCode::BAD_REQUEST));
            }
            upload.parts.insert(id, (String::new(), asked.body.clone()));
            created(contents)
        }
        (&Method::PUT, Some("blocklist")) => {
            let text = String::from_utf8(asked.body.to_vec()).ok()?;
            let upload = contents.uploads.get(&name);
            let block = |id: &String| Some(upload?.parts.get(id)?.1.clone());
            let blocks: Option<Vec<Bytes>> = elements(&text, "Uncommitted").iter().map(block).collect();
            let Some(blocks) = blocks else {
                return Some(status(StatusCode::BAD_REQUEST));
            };
            contents.uploads.remove(&name);
            contents.put(&name, blocks.concat().into());
            created(contents)
        }
        _ => None,
    }
}

fn created(contents: &Contents) -> Option<Answer> {
    let answer = Response::builder().status(StatusCode::CREATED);
    let answer = answer.header("etag", format!("\"{}\"", contents.next));
    answer.body(Body::empty()).ok()
}

fn list(contents: &Contents, asked: &mut Asked) -> Option<Answer> {
    let prefix = asked.parameter("prefix").unwrap_or_default();
    let (page, last) = contents.page(&prefix, &asked.parameter("marker").unwrap_or_default());
    let blobs: String = page
        .iter()
        .map(|(name, size, number)| {
            format!(
                "<Blob><Name>{}</Name><Properties><Last-Modified>Thu, 01 Jan 2026 00:00:00 GMT</Last-Modified>\
                 <Etag>{number}</Etag><Content-Length>{size}</Content-Length>\
                 <Content-Type>application/octet-stream</Content-Type></Properties></Blob>",
                escaped(name)
            )
        })
        .collect();
    let last = escaped(&last.unwrap_or_default());
    xml(&format!(
        "<EnumerationResults><Blobs>{blobs}</Blobs><NextMarker>{last}</NextMarker></EnumerationResults>"
    ))
}

/// Deletes many, by a request for each within this one.
fn batch(contents: &mut Contents, asked: &mut Asked) -> Option<Answer> {
    let kind = asked.header("content-type")?;
    let boundary = format!("--{}", kind.strip_prefix("multipart/mixed; boundary=")?);
    let text = String::from_utf8(asked.body.to_vec()).ok()?;
    let mut answers = String::new();
    for part in text.split(boundary.as_str()).skip(1) {
        if part.trim_end() == "--" {
            break;
        }
        let line = |start: &str| part.lines().find_map(|line| line.strip_prefix(start));
        line("Authorization: SharedKey ")?;
        let id = line("Content-ID: ")?;
        let path = decoded(line("DELETE /")?.strip_suffix(" HTTP/1.1")?)?;
        let name = path.strip_prefix(BUCKET)?.strip_prefix('/')?;
        let status = match contents.objects.remove(name) {
            Some(Object { .. }) => "202 Accepted",
            None => "404 The specified blob does not exist.",
        };
        answers += &format!(
            "--answers\r\nContent-Type: application/http\r\nContent-ID: {id}\r\n\r\n\
             HTTP/1.1 {status}\r\nx-ms-version: 2019-12-12\r\n\r\n"
        );
    }
    let answer = Response::builder().status(StatusCode::ACCEPTED);
    let answer = answer.header("content-type", "multipart/mixed; boundary=answers");
    answer.body(Body::from(answers + "--answers--\r\n")).ok()
}
