//! One `PutRecords`.

use super::super::error::{StreamError, created_again_meanwhile};
use super::super::options::KinesisOptions;
use super::super::options::endpoint::EndpointOptions;
use super::client::{describe, is_temporary, is_throttling};
use super::remote::Remote;
use super::sender::{PutError, PutRecords};
use crate::environment::ConnectorEnvironment;
use crate::error::ConnectorError;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tidemill_shards::PutEntry;
use tokio::time::Instant;

/// The service answers 20 of these requests a second to an account.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Puts records to a stream behind an endpoint.
pub(in crate::kinesis) struct EndpointPut {
    remote: Remote,
    opened: Mutex<Opened>,
    /// How often to look whether the stream is still the same.
    pub(super) look_interval: Duration,
}

/// What was seen of the stream.
#[derive(Default)]
struct Opened {
    /// When it was created, seconds since 1970.
    created_s: Option<u64>,
    looked: Option<Instant>,
}

impl EndpointPut {
    /// Makes it; nothing is asked of the endpoint yet.
    ///
    /// # Errors
    /// When the region is missing.
    pub(in crate::kinesis) fn new(
        options: &KinesisOptions,
        endpoint: &EndpointOptions,
        env: &ConnectorEnvironment,
    ) -> Result<Self, ConnectorError> {
        Ok(Self {
            remote: Remote::new(options, endpoint, env)?,
            opened: Mutex::default(),
            look_interval: LOOK_INTERVAL,
        })
    }
}

#[async_trait::async_trait]
impl PutRecords for EndpointPut {
    async fn find(&self) -> Result<String, StreamError> {
        self.remote.find().await
    }

    async fn look_again(&self) -> Result<(), StreamError> {
        {
            let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
            if opened.looked.is_some_and(|at| at.elapsed() < self.look_interval) {
                return Ok(());
            }
            opened.looked = Some(Instant::now());
        }
        let found = match self.remote.summary_now().await {
            Ok(summary) => summary.created_s,
            Err(StreamError::Failed(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if *opened.created_s.get_or_insert(found) == found {
            Ok(())
        } else {
            Err(created_again_meanwhile(&self.remote.stream))
        }
    }

    async fn put(&self, entries: &[PutEntry]) -> Result<Vec<Option<PutError>>, PutError> {
        let request = self.remote.client.put_records();
        let request = request.set_stream_name(self.remote.name.clone());
        let mut request = request.set_stream_arn(self.remote.arn.clone());
        for entry in entries {
            let entry = PutRecordsRequestEntry::builder()
                .partition_key(&entry.partition_key)
                .set_explicit_hash_key(entry.explicit_hash_key.map(|key| key.to_string()))
                .data(Blob::new(entry.data.as_ref()))
                .build()
                .map_err(|error| PutError::Final(StreamError::Failed(error.to_string())))?;
            request = request.records(entry);
        }
        let answer = request.send().await.map_err(|error| {
            if is_temporary(&error) {
                PutError::Later(format!(
                    "PutRecords to stream {}: {}",
                    self.remote.stream,
                    describe(&error)
                ))
            } else {
                PutError::Final(self.remote.failed("PutRecords", &error))
            }
        })?;
        if answer.records().len() != entries.len() {
            let message = format!(
                "PutRecords to stream {}: {} records were answered for {}",
                self.remote.stream,
                answer.records().len(),
                entries.len()
            );
            return Err(PutError::Final(StreamError::Failed(message)));
        }
        let outcome = |record: &aws_sdk_kinesis::types::PutRecordsResultEntry| {
            let code = record.error_code()?;
            let message = format!(
                "a record was refused by stream {}: {code}: {}",
                self.remote.stream,
                record.error_message().unwrap_or("no message")
            );
            Some(if is_throttling(code) {
                PutError::Later(message)
            } else {
                PutError::Final(StreamError::Failed(message))
            })
        };
        Ok(answer.records().iter().map(outcome).collect())
    }
}
