//! The SDK's client for a table, and which of its errors pass by themselves.

use super::super::options::KinesisOptions;
use super::super::options::endpoint::{CredentialsOptions, EndpointOptions, ProfileOptions};
use super::credentials::Credentials;
use super::profile;
use crate::error::ConnectorError;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{BehaviorVersion, Region};
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::RequestId;
use aws_sdk_kinesis::{Client, Config};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use std::error::Error as _;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tidemill_engine::time::TimeSource;
use tokio::time::Instant;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an endpoint may be away or say "later" before the job fails, and starts again from its checkpoint.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Makes the client.
///
/// # Errors
/// When no region is known, or the profile cannot be read.
pub(super) fn connect(
    options: &KinesisOptions,
    endpoint: &EndpointOptions,
    time: &Arc<dyn TimeSource>,
) -> Result<Client, ConnectorError> {
    let region = region(options, endpoint)?;
    let builder = aws_smithy_http_client::Builder::new();
    let is_plain = endpoint.url.as_ref().is_some_and(|url| url.starts_with("http://"));
    let http = if is_plain {
        builder.build_http()
    } else {
        builder.tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
    };
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .build();
    let mut config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(Credentials::new(
            endpoint.credentials.clone(),
            &region,
            Arc::clone(time),
        ))
        .region(Region::new(region))
        .http_client(http)
        // We repeat by ourselves, with more patience, and keep the order.
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts);
    if let Some(url) = &endpoint.url {
        config = config.endpoint_url(url);
    }
    Ok(Client::from_conf(config.build()))
}

/// Finds the region: of the table, of its stream's ARN, of the environment, of the profile.
fn region(options: &KinesisOptions, endpoint: &EndpointOptions) -> Result<String, ConnectorError> {
    let of_arn = options.arn.as_deref().and_then(|arn| arn.split(':').nth(3));
    if let Some(region) = options.region.as_deref().or(of_arn).filter(|region| !region.is_empty()) {
        return Ok(region.to_owned());
    }
    for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
        if let Ok(region) = std::env::var(name)
            && !region.is_empty()
        {
            return Ok(region);
        }
    }
    let profile = match &endpoint.credentials {
        CredentialsOptions::Auto { profile } | CredentialsOptions::Profile(profile) => profile.clone(),
        _ => ProfileOptions::default(),
    };
    let of_profile = profile::region(&profile);
    of_profile.ok_or_else(|| {
        ConnectorError::option("aws.region", "must be set for an endpoint").with_hint(
            "set it, or name the stream by 'stream.arn', or set AWS_REGION; an endpoint of your own takes any region",
        )
    })
}

/// Says whether the same request may succeed later.
pub(super) fn is_temporary<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    match error {
        // Others, among them missing credentials, do not pass by themselves.
        SdkError::DispatchFailure(failure) => {
            let is_transient = failure
                .as_connector_error()
                .and_then(|error| error.as_other())
                .is_some();
            failure.is_io() || failure.is_timeout() || is_transient
        }
        SdkError::TimeoutError(_) | SdkError::ResponseError(_) => true,
        SdkError::ServiceError(service) => {
            service.raw().status().as_u16() >= 500 || service.err().code().is_some_and(is_throttling)
        }
        _ => false,
    }
}

/// Says whether an error's name asks to come back later.
pub(super) fn is_throttling(code: &str) -> bool {
    matches!(
        code,
        "ProvisionedThroughputExceededException"
            | "LimitExceededException"
            | "KMSThrottlingException"
            | "ThrottlingException"
            | "ThrottledException"
            | "Throttling"
            | "RequestLimitExceeded"
            | "TooManyRequestsException"
            | "InternalFailure"
            | "InternalFailureException"
            | "ServiceUnavailable"
            | "ServiceUnavailableException"
            | "ResourceInUseException"
    )
}

/// Tells an error in a sentence: what the service said, or what stood in the way.
pub(super) fn describe<E>(error: &SdkError<E>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    if let SdkError::ServiceError(service) = error {
        let code = service.err().code().unwrap_or("an error without a name");
        let message = service.err().message().unwrap_or("no message");
        let request = service.raw().request_id().map(|id| format!(" (request {id})"));
        return format!("{code}: {message}{}", request.unwrap_or_default());
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Waits that grow, until patience is at its end.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    next: Option<Duration>,
    since: Option<Instant>,
}

impl Backoff {
    /// Forgets what was: something went well.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Returns how long to wait, or `None` when nothing has gone well for too long.
    pub(super) fn wait(&mut self) -> Option<Duration> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let wait = self.next.unwrap_or(BACKOFF_MIN);
        self.next = Some((wait * 2).min(BACKOFF_MAX));
        (since.elapsed() < PATIENCE).then_some(wait)
    }
}

/// Makes a call, again while its errors pass by themselves.
///
/// # Errors
/// With an error that does not, or the last one when patience is at its end.
pub(super) async fn patiently<T, E, F>(what: &str, mut call: impl FnMut() -> F) -> Result<T, SdkError<E>>
where
    F: Future<Output = Result<T, SdkError<E>>>,
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let mut backoff = Backoff::default();
    loop {
        let error = match call().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if !is_temporary(&error) {
            return Err(error);
        }
        let Some(wait) = backoff.wait() else {
            return Err(error);
        };
        tracing::debug!(what, error = describe(&error), ?wait, "the endpoint is asked again");
        tokio::time::sleep(wait).await;
    }
}
