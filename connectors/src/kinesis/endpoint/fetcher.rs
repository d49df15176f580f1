//! Polls one shard.
//!
//! A shard answers five `GetRecords` a second, to all its readers together: between two there is a pause. An iterator
//! that has expired is replaced by one for the place behind the last record.

use super::super::access::{Fetch, Sequence, ShardFetcher, ShardView, StreamRecord};
use super::super::aggregation::looks_aggregated;
use super::super::error::{StreamError, created_again};
use super::super::position::{Place, Point};
use super::client::{Backoff, describe, is_temporary, patiently};
use super::{EndpointStream, range};
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::operation::get_shard_iterator::GetShardIteratorError;
use aws_sdk_kinesis::operation::get_shard_iterator::builders::GetShardIteratorFluentBuilder;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{Record, ShardIteratorType};
use bytes::Bytes;
use std::sync::Arc;
use tidemill_shards::HashRange;
use tokio::time::Instant;

/// Reads one shard by polling.
pub(super) struct EndpointFetcher {
    stream: Arc<EndpointStream>,
    shard: String,
    place: Place,
    iterator: Option<String>,
    /// No call before this.
    not_before: Instant,
    backoff: Backoff,
    range: Option<HashRange>,
    /// The iterator in use was refused, not expired: a second time is an error.
    refused: bool,
}

impl EndpointFetcher {
    pub(super) fn new(stream: Arc<EndpointStream>, shard: &str, place: Place) -> Self {
        Self {
            stream,
            shard: shard.to_owned(),
            place,
            iterator: None,
            not_before: Instant::now(),
            backoff: Backoff::default(),
            range: None,
            refused: false,
        }
    }

    fn point(&self) -> Result<(u64, &Point), StreamError> {
        match &self.place {
            Place::Endpoint { created_s, point } => Ok((*created_s, point)),
            Place::Store(_) => Err(StreamError::Failed(
                "a position of the embedded store reached an endpoint".to_owned(),
            )),
        }
    }

    /// Asks for an iterator at the place.
    async fn iterator(&self) -> Result<String, StreamError> {
        if self.refused {
            self.check_identity().await?;
        }
        let (_, point) = self.point()?;
        let mut answer = self.iterator_at(point).await;
        if let (Point::Time(_), Err(error)) = (point, &answer)
            && error
                .as_service_error()
                .is_some_and(GetShardIteratorError::is_invalid_argument_exception)
        {
            // The service refuses moments in its future: nothing that is stored now lies behind one.
            answer = patiently("GetShardIterator", || {
                let request = self.request_iterator();
                request.shard_iterator_type(ShardIteratorType::Latest).send()
            })
            .await;
        }
        match answer {
            Ok(answer) => answer
                .shard_iterator
                .ok_or_else(|| StreamError::Failed(format!("the endpoint gave no iterator for {}", self.shard))),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(GetShardIteratorError::is_resource_not_found_exception) =>
            {
                // The shard, or the whole stream?
                self.check_identity().await?;
                Err(StreamError::ShardGone)
            }
            Err(error) => Err(self.failed("GetShardIterator", &error)),
        }
    }

    /// Checks that the stream is there, and the one that the place is of.
    async fn check_identity(&self) -> Result<(), StreamError> {
        let (created_s, _) = self.point()?;
        if self.stream.remote.summary().await?.created_s == created_s {
            Ok(())
        } else {
            Err(StreamError::Unfit(created_again(&self.stream.remote.stream)))
        }
    }

    fn request_iterator(&self) -> GetShardIteratorFluentBuilder {
        let request = self.stream.remote.client.get_shard_iterator().shard_id(&self.shard);
        let request = request.set_stream_name(self.stream.remote.name.clone());
        request.set_stream_arn(self.stream.remote.arn.clone())
    }

    async fn iterator_at(
        &self,
        point: &Point,
    ) -> Result<
        aws_sdk_kinesis::operation::get_shard_iterator::GetShardIteratorOutput,
        aws_sdk_kinesis::error::SdkError<GetShardIteratorError>,
    > {
        patiently("GetShardIterator", || {
            let request = self.request_iterator();
            let request = match point {
                Point::TrimHorizon => request.shard_iterator_type(ShardIteratorType::TrimHorizon),
                Point::Time(ms) => request
                    .shard_iterator_type(ShardIteratorType::AtTimestamp)
                    .timestamp(DateTime::from_millis(i64::try_from(*ms).unwrap_or(i64::MAX))),
                Point::At(number) => request
                    .shard_iterator_type(ShardIteratorType::AtSequenceNumber)
                    .starting_sequence_number(&**number),
                Point::After(number) => request
                    .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                    .starting_sequence_number(&**number),
            };
            request.send()
        })
        .await
    }

    fn failed<E>(&self, what: &str, error: &aws_sdk_kinesis::error::SdkError<E>) -> StreamError
    where
        E: aws_sdk_kinesis::error::ProvideErrorMetadata + std::error::Error + 'static,
    {
        self.stream.remote.failed(&format!("{what} of {}", self.shard), error)
    }

    /// Remembers the children that the end of the shard told of: a listing may lag behind.
    fn note_children(&self, answer: &GetRecordsOutput) -> Result<(), StreamError> {
        let (identity, _) = self.point()?;
        for child in answer.child_shards() {
            let view = ShardView {
                id: child.shard_id().to_owned(),
                parents: child.parent_shards().to_vec(),
                range: range(child.hash_key_range())?,
                identity,
            };
            self.stream.seen().children.insert(view.id.clone(), view);
        }
        Ok(())
    }

    /// Takes an answer; `None` when there is nothing in it.
    async fn take(&mut self, answer: GetRecordsOutput) -> Result<Option<Fetch>, StreamError> {
        let at_end = answer.next_shard_iterator.is_none();
        if at_end {
            self.note_children(&answer)?;
        }
        self.iterator = answer.next_shard_iterator;
        let records = answer.records;
        let pause = if records.is_empty() {
            self.stream.polling.empty_interval
        } else {
            self.stream.polling.nonempty_interval
        };
        self.not_before = Instant::now() + pause;
        if records.is_empty() && !at_end {
            return Ok(None);
        }
        if self.range.is_none() && records.iter().any(|record| looks_aggregated(record.data().as_ref())) {
            self.range = self.stream.range(&self.shard).await?;
        }
        let records: Vec<StreamRecord> = records.into_iter().map(record).collect();
        if let Some(last) = records.last() {
            self.place = self.place.behind(&last.sequence);
        }
        Ok(Some(Fetch {
            records,
            next: self.place.clone(),
            at_end,
            expired: false,
            range: self.range,
        }))
    }
}

#[async_trait::async_trait]
impl ShardFetcher for EndpointFetcher {
    async fn next(&mut self) -> Result<Fetch, StreamError> {
        loop {
            let iterator = match &self.iterator {
                Some(iterator) => iterator.clone(),
                None => self.iterator().await?,
            };
            tokio::time::sleep_until(self.not_before).await;
            let request = self.stream.remote.client.get_records().shard_iterator(&iterator);
            match request.limit(self.stream.polling.records_max).send().await {
                Ok(answer) => {
                    self.backoff.reset();
                    self.refused = false;
                    if let Some(fetch) = self.take(answer).await? {
                        return Ok(fetch);
                    }
                }
                Err(error)
                    if error
                        .as_service_error()
                        .is_some_and(|e| e.is_expired_iterator_exception()) =>
                {
                    self.iterator = None;
                }
                // Somebody else's keys may have made it, before an endpoint was started again.
                Err(error)
                    if !self.refused
                        && error.as_service_error().is_some_and(|e| {
                            e.is_invalid_argument_exception() || e.is_resource_not_found_exception()
                        }) =>
                {
                    self.refused = true;
                    self.iterator = None;
                }
                Err(error) if is_temporary(&error) => {
                    let Some(wait) = self.backoff.wait() else {
                        return Err(self.failed("GetRecords", &error));
                    };
                    tracing::debug!(
                        shard = self.shard,
                        error = describe(&error),
                        ?wait,
                        "the shard is asked again"
                    );
                    self.iterator = Some(iterator);
                    self.not_before = Instant::now() + wait;
                }
                Err(error) => return Err(self.failed("GetRecords", &error)),
            }
        }
    }
}

fn record(record: Record) -> StreamRecord {
    let arrival = record.approximate_arrival_timestamp.and_then(|at| at.to_millis().ok());
    StreamRecord {
        sequence: Sequence::Endpoint(Arc::from(record.sequence_number)),
        arrival_ms: arrival.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0),
        partition_key: Bytes::from(record.partition_key.unwrap_or_default()),
        data: Bytes::from(record.data.into_inner()),
    }
}
