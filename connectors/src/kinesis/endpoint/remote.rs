//! A stream behind an endpoint, as requests name it, and what is told when they fail.

use super::super::error::StreamError;
use super::super::options::KinesisOptions;
use super::super::options::endpoint::EndpointOptions;
use super::client::{self, describe, patiently};
use crate::environment::ConnectorEnvironment;
use crate::error::ConnectorError;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::describe_stream_summary::builders::DescribeStreamSummaryFluentBuilder;
use aws_sdk_kinesis::operation::describe_stream_summary::{DescribeStreamSummaryError, DescribeStreamSummaryOutput};
use std::time::Duration;

/// How long an endpoint may take to say whether a stream is there, before a job is accepted without its word.
const FIND_TIMEOUT: Duration = Duration::from_secs(10);

/// A stream behind an endpoint.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub(super) client: Client,
    /// The stream's name, for messages.
    pub(super) stream: String,
    /// What requests call it: its ARN where the table has one, for it may be of another account; else its name.
    pub(super) name: Option<String>,
    pub(super) arn: Option<String>,
    /// `None` is Amazon's own.
    url: Option<String>,
}

/// What identifies a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) arn: String,
    /// Seconds since 1970: tells it from another stream of its name.
    pub(super) created_s: u64,
}

impl Remote {
    /// Makes it; nothing is asked of the endpoint yet.
    ///
    /// # Errors
    /// When no region is known, or the profile cannot be read.
    pub(super) fn new(
        options: &KinesisOptions,
        endpoint: &EndpointOptions,
        env: &ConnectorEnvironment,
    ) -> Result<Self, ConnectorError> {
        Ok(Self {
            client: client::connect(options, endpoint, env.time())?,
            stream: options.stream.to_string(),
            name: options.arn.is_none().then(|| options.stream.to_string()),
            arn: options.arn.clone(),
            url: endpoint.url.clone(),
        })
    }

    /// Asks once, and not for long, whether the stream is there; returns its ARN.
    pub(super) async fn find(&self) -> Result<String, StreamError> {
        self.summary_now().await.map(|summary| summary.arn)
    }

    /// Asks once, and not for long, what stream it is.
    pub(super) async fn summary_now(&self) -> Result<Summary, StreamError> {
        let answer = tokio::time::timeout(FIND_TIMEOUT, self.request_summary().send()).await;
        let answer = answer.map_err(|_| {
            let seconds = FIND_TIMEOUT.as_secs();
            StreamError::Failed(format!(
                "the endpoint of stream {} did not answer within {seconds} s",
                self.stream
            ))
        })?;
        self.read_summary(answer)
    }

    /// Asks what stream it is, again while the endpoint is away.
    pub(super) async fn summary(&self) -> Result<Summary, StreamError> {
        let answer = patiently("DescribeStreamSummary", || self.request_summary().send()).await;
        self.read_summary(answer)
    }

    fn request_summary(&self) -> DescribeStreamSummaryFluentBuilder {
        let request = self.client.describe_stream_summary();
        let request = request.set_stream_name(self.name.clone());
        request.set_stream_arn(self.arn.clone())
    }

    fn read_summary(
        &self,
        answer: Result<DescribeStreamSummaryOutput, SdkError<DescribeStreamSummaryError>>,
    ) -> Result<Summary, StreamError> {
        let answer = answer.map_err(|error| self.failed("DescribeStreamSummary", &error))?;
        let Some(summary) = answer.stream_description_summary() else {
            let message = format!("the endpoint did not describe stream {}", self.stream);
            return Err(StreamError::Failed(message));
        };
        Ok(Summary {
            arn: summary.stream_arn().to_owned(),
            created_s: u64::try_from(summary.stream_creation_timestamp().secs()).unwrap_or(0),
        })
    }

    /// Makes the error of a request that names the stream; of a missing one also how it is made.
    pub(super) fn failed<E>(&self, what: &str, error: &SdkError<E>) -> StreamError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let (stream, said) = (&self.stream, describe(error));
        let is_missing = error
            .as_service_error()
            .is_some_and(|error| error.code() == Some("ResourceNotFoundException"));
        if !is_missing {
            return StreamError::Failed(format!("stream {stream}: {what}: {said}"));
        }
        StreamError::Unfit(match &self.url {
            Some(url) => format!(
                "stream {stream} does not exist at {url}: correct the options 'stream' and 'aws.endpoint', or create the stream \
                 with `tidemill stream create {stream} --shards 1 --server {url}` ({said})"
            ),
            None => format!(
                "stream {stream} does not exist at Amazon's endpoint: correct the options 'stream' and 'aws.region', look whose \
                 credentials are used, or create the stream there ({said})"
            ),
        })
    }
}
