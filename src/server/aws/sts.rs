//! The one operation of the Security Token Service that clients ask before others: `GetCallerIdentity`.
//!
//! Whoever asks is the root of the account that stream ARNs name, for there are no users here. STS speaks the query protocol of
//! its API version 2011-06-15: a form in, XML out.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use std::fmt::Write as _;
use url::form_urlencoded;

const VERSION: &str = "2011-06-15";
const FORM: &str = "application/x-www-form-urlencoded";
/// No name of an operation is longer; what is quoted in an error is.
const ACTION_CHARS_MAX: usize = 128;

/// Answers a request to STS; none when it is not one.
pub(super) fn answer(headers: &HeaderMap, body: &[u8], account: &str) -> Option<Response> {
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case(FORM) || headers.contains_key("x-amz-target") {
        return None;
    }
    let parameter = |name: &str| {
        let mut parameters = form_urlencoded::parse(body);
        parameters.find(|(known, _)| known == name).map(|(_, value)| value)
    };
    if parameter("Version")? != VERSION {
        return None;
    }
    let action = parameter("Action").unwrap_or_default();
    let request_id = request_id();
    let (status, xml) = if action == "GetCallerIdentity" {
        (StatusCode::OK, identity(account, &request_id))
    } else {
        (StatusCode::BAD_REQUEST, invalid_action(&action, &request_id))
    };
    let mut response = (status, xml).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        headers.insert("x-amzn-requestid", id);
    }
    Some(response)
}

fn identity(account: &str, request_id: &str) -> String {
    let account = escaped(account);
    format!(
        "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/{VERSION}/\"><GetCallerIdentityResult>\
         <Arn>arn:aws:iam::{account}:root</Arn><UserId>{account}</UserId><Account>{account}</Account>\
         </GetCallerIdentityResult><ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>\
         </GetCallerIdentityResponse>\n"
    )
}

fn invalid_action(action: &str, request_id: &str) -> String {
    let action: String = action.chars().take(ACTION_CHARS_MAX).collect();
    format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/{VERSION}/\"><Error><Type>Sender</Type>\
         <Code>InvalidAction</Code><Message>Could not find operation {} for version {VERSION}</Message></Error>\
         <RequestId>{request_id}</RequestId></ErrorResponse>\n",
        escaped(&action)
    )
}

/// Returns a text as XML shows it; characters that XML cannot have are left out.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' | ' '..='\u{fffd}' | '\u{10000}'.. => escaped.push(char),
            _ => {}
        }
    }
    escaped
}

/// Makes an id in the form of a UUID; all zeros on a machine without entropy.
fn request_id() -> String {
    let mut random = [0; 16];
    if getrandom::fill(&mut random).is_err() {
        tracing::warn!("no entropy for a request id");
    }
    let mut id = String::with_capacity(36);
    for (at, byte) in random.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            id.push('-');
        }
        let _ = write!(id, "{byte:02x}");
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form() -> HeaderMap {
        let value = HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8");
        HeaderMap::from_iter([(CONTENT_TYPE, value)])
    }

    #[test]
    fn callers_are_the_root_of_the_account() {
        let xml = identity("123456789012", "id");
        assert!(xml.contains("<Arn>arn:aws:iam::123456789012:root</Arn><UserId>123456789012</UserId>"));
        let body = b"Action=GetCallerIdentity&Version=2011-06-15";
        let response = answer(&form(), body, "123456789012").unwrap();
        assert_eq!(
            (response.status(), &response.headers()[CONTENT_TYPE]),
            (StatusCode::OK, &HeaderValue::from_static("text/xml"))
        );
    }

    #[test]
    fn other_operations_of_the_service_are_unknown_and_nothing_else_is_answered() {
        let asked = |body: &[u8]| answer(&form(), body, "1").map(|response| response.status());
        assert_eq!(
            asked(b"Action=AssumeRole&Version=2011-06-15"),
            Some(StatusCode::BAD_REQUEST)
        );
        assert_eq!(asked(b"Version=2011-06-15"), Some(StatusCode::BAD_REQUEST));
        assert_eq!(asked(b"Action=PutMetricData&Version=2010-08-01"), None);
        assert_eq!(asked(b"{}"), None);
        assert!(answer(&HeaderMap::new(), b"Action=GetCallerIdentity&Version=2011-06-15", "1").is_none());
        let mut kinesis = form();
        kinesis.insert("x-amz-target", HeaderValue::from_static("Kinesis_20131202.ListStreams"));
        assert!(answer(&kinesis, b"Action=GetCallerIdentity&Version=2011-06-15", "1").is_none());
    }

    #[test]
    fn what_is_quoted_cannot_become_markup() {
        let xml = invalid_action("<b>&\"\u{0}\u{1f}", "id");
        assert!(xml.contains("operation &lt;b&gt;&amp;&quot; for version"), "{xml}");
        let long = invalid_action(&"x".repeat(1 << 20), "id");
        assert!(long.len() < 1_000);
    }

    #[test]
    fn request_ids_differ() {
        assert_eq!(request_id().len(), 36);
        assert_ne!(request_id(), request_id());
    }
}
