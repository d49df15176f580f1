//! Makes requests, with limits, and again if they fail.

use super::options::HttpOptions;
use crate::error::ConnectorError;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use std::time::Duration;
use tokio::sync::Semaphore;

/// No pause between two tries is longer, whatever the service asks for.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// What of a refusal is told.
const TOLD_BYTES: usize = 200;

/// How often and how soon a request is made again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retries {
    pub(super) max: u32,
    /// Before the first; each further pause is twice as long.
    pub(super) pause: Duration,
}

/// Talks to a service.
pub(super) struct Exchange {
    client: Client,
    retries: Retries,
    body_bytes_max: u64,
    /// Requests at once.
    places: Semaphore,
}

/// Why there is no answer.
enum Failure {
    /// It may be over soon; perhaps the service said when.
    Again(String, Option<Duration>),
    Never(String),
}

impl Exchange {
    /// Makes a client; nothing is asked.
    ///
    /// # Errors
    /// When the machine has nothing to speak TLS with.
    pub(super) fn new(options: &HttpOptions, retries: Retries) -> Result<Self, ConnectorError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .timeout(options.timeout)
            .default_headers(options.headers.clone())
            .user_agent(concat!("tidemill/", env!("CARGO_PKG_VERSION")))
            // Where a redirect leads nobody checked.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build();
        Ok(Self {
            client: client
                .map_err(|error| ConnectorError::new(format!("cannot make an HTTP client: {}", told(error))))?,
            retries,
            body_bytes_max: options.body_bytes_max,
            places: Semaphore::new(options.concurrency),
        })
    }

    /// Asks with GET; an empty answer says that there is nothing.
    ///
    /// # Errors
    /// When the last try fails, too.
    pub(super) async fn get(&self, url: &str) -> Result<Vec<u8>, String> {
        self.ask(|| self.client.get(url)).await
    }

    /// Asks with POST and a JSON body; an empty answer says that there is nothing.
    ///
    /// # Errors
    /// When the last try fails, too.
    pub(super) async fn post(&self, url: &str, body: Vec<u8>) -> Result<Vec<u8>, String> {
        let body = bytes::Bytes::from(body);
        let request = || {
            let request = self
                .client
                .post(url)
                .header(reqwest::header::CONTENT_TYPE, "application/json");
            request.body(body.clone())
        };
        self.ask(request).await
    }

    async fn ask(&self, request: impl Fn() -> RequestBuilder) -> Result<Vec<u8>, String> {
        let mut pause = self.retries.pause;
        let mut tries = 0;
        loop {
            let answered = {
                let _place = self.places.acquire().await.map_err(|error| error.to_string())?;
                self.once(request()).await
            };
            match answered {
                Ok(body) => return Ok(body),
                Err(Failure::Again(message, wanted)) if tries < self.retries.max => {
                    tracing::debug!(message, tries, "a lookup request failed and is made again");
                    tries += 1;
                    tokio::time::sleep(pause.max(wanted.unwrap_or_default()).min(PAUSE_MAX)).await;
                    pause = pause.saturating_mul(2);
                }
                Err(Failure::Again(message, _)) if tries > 0 => {
                    return Err(format!("{message}, also at the last of {} tries", tries + 1));
                }
                Err(Failure::Again(message, _) | Failure::Never(message)) => return Err(message),
            }
        }
    }

    async fn once(&self, request: RequestBuilder) -> Result<Vec<u8>, Failure> {
        let response = request
            .send()
            .await
            .map_err(|error| Failure::Again(told(error), None))?;
        let status = response.status();
        match status {
            StatusCode::NOT_FOUND | StatusCode::NO_CONTENT => Ok(Vec::new()),
            _ if status.is_success() => self.body(response).await,
            _ => {
                let after = response.headers().get(reqwest::header::RETRY_AFTER);
                let after = after
                    .and_then(|value| value.to_str().ok()?.parse().ok())
                    .map(Duration::from_secs);
                let is_passing = status.is_server_error()
                    || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
                let said = beginning(response).await;
                let message = match said.is_empty() {
                    true => format!("the service answered {status}"),
                    false => format!("the service answered {status}: {said}"),
                };
                Err(match is_passing {
                    true => Failure::Again(message, after),
                    false => Failure::Never(message),
                })
            }
        }
    }

    /// Reads an answer, up to the limit.
    async fn body(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| Failure::Again(told(error), None))?
        {
            if (body.len() + chunk.len()) as u64 > self.body_bytes_max {
                return Err(Failure::Never(format!(
                    "the answer is longer than {} bytes; raise 'response.max-size', or ask for less",
                    self.body_bytes_max
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// Returns how a refusal begins, as far as it is text.
async fn beginning(mut response: Response) -> String {
    let mut said = Vec::new();
    while said.len() < TOLD_BYTES {
        match response.chunk().await {
            Ok(Some(chunk)) => said.extend_from_slice(&chunk[..chunk.len().min(TOLD_BYTES)]),
            _ => break,
        }
    }
    said.truncate(TOLD_BYTES);
    let text = String::from_utf8_lossy(&said);
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim()
        .to_owned()
}

/// Says what an error is and what it comes from; the URL is told elsewhere.
fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
