//! A client of the REST API, for the commands that need a server.

use crate::process::with_options_as_typed;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::time::Duration;

/// How long a connection may take; answers take as long as what was asked for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The server did not answer.
    #[error("cannot reach {url}: {reason}; start the server with tidemill server, or name another with --server")]
    Unreachable {
        /// The server.
        url: String,
        /// Why.
        reason: String,
    },
    /// The server refused.
    #[error("{0}")]
    Refused(Refusal),
    /// The answer is none of our server's.
    #[error("{url} answered something that is not from a tidemill server ({status}); check --server")]
    Strange {
        /// The address.
        url: String,
        /// The status.
        status: StatusCode,
    },
    /// The URL is none.
    #[error("{0}")]
    Url(String),
}

/// A problem that the server told.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The whole problem, as JSON.
    pub(crate) problem: Value,
}

impl Refusal {
    fn text(&self, field: &str) -> Option<&str> {
        self.problem.get(field).and_then(Value::as_str)
    }

    /// Says whether the request was at fault, and not the server.
    pub(crate) fn is_users(&self) -> bool {
        self.problem
            .get("status")
            .and_then(Value::as_u64)
            .is_some_and(|status| (400..500).contains(&status))
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = |field: &str| self.problem.get(field).and_then(Value::as_u64);
        if let (Some(line), Some(column)) = (place("line"), place("column")) {
            write!(f, "line {line}, column {column}: ")?;
        }
        let detail = self.text("detail").unwrap_or("the server gave no reason");
        f.write_str(&with_options_as_typed(detail))?;
        for line in self.text("excerpt").into_iter().flat_map(str::lines) {
            write!(f, "\n  | {line}")?;
        }
        if let Some(hint) = self.text("hint") {
            write!(f, "\nhint: {}", with_options_as_typed(hint))?;
        }
        for line in self
            .problem
            .get("stderr")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            write!(f, "\n  stderr: {line}")?;
        }
        Ok(())
    }
}

/// A client of one server.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    base: url::Url,
    http: reqwest::Client,
}

/// Makes an HTTP client that uses no proxy: servers are on this machine, or reached as they are named.
///
/// # Errors
/// When the system's part of it cannot be had.
pub(crate) fn http_client() -> Result<reqwest::Client, reqwest::Error> {
    // Servers speak plain HTTP, but the client wants to know its crypto provider when it is built.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .build()
}

impl Client {
    /// Makes a client of the server at a URL like `http://127.0.0.1:4566`.
    ///
    /// # Errors
    /// When that is no such URL.
    pub(crate) fn new(server: &str) -> Result<Self, ClientError> {
        let wrong = |reason: String| {
            ClientError::Url(format!(
                "--server {server}: {reason}; write it like http://127.0.0.1:4566"
            ))
        };
        let base = url::Url::parse(server).map_err(|error| wrong(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(wrong("this is no URL of a server".into()));
        }
        let http = http_client().map_err(|error| ClientError::Url(format!("cannot make an HTTP client: {error}")))?;
        Ok(Self { base, http })
    }

    /// Asks for `/v1/` followed by the parts of a path.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &[&str],
        query: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let mut url = self.base.clone();
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.clear().push("v1").extend(path);
        }
        url.set_query(query);
        let mut request = self.http.request(method, url.clone());
        if let Some(body) = body {
            request = request.json(body);
        }
        let unreachable = |error: reqwest::Error| ClientError::Unreachable {
            url: self.base.to_string(),
            reason: causes(&error),
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(unreachable)?;
        if status == StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        let Ok(value) = serde_json::from_slice::<Value>(&bytes) else {
            return Err(ClientError::Strange {
                url: url.to_string(),
                status,
            });
        };
        if status.is_success() {
            return Ok(value);
        }
        if value.get("detail").is_some() {
            return Err(ClientError::Refused(Refusal { problem: value }));
        }
        Err(ClientError::Strange {
            url: url.to_string(),
            status,
        })
    }
}

/// Writes an error with what caused it.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_refusal_reads_as_a_compiler_would_write_it() {
        let problem =
            json!({"detail": "no column pge", "line": 3, "column": 8, "hint": "did you mean page?", "status": 400});
        let refusal = Refusal { problem };
        assert_eq!(
            refusal.to_string(),
            "line 3, column 8: no column pge\nhint: did you mean page?"
        );
        assert!(refusal.is_users());
    }

    #[test]
    fn a_server_that_is_no_url_is_refused() {
        for wrong in ["", "localhost:4566", "file:///x", "http://"] {
            assert!(Client::new(wrong).is_err(), "{wrong}");
        }
    }
}
