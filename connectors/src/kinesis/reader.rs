//! Reads one shard: a task fetches ahead into a bounded queue, the reader decodes on the worker.
//!
//! A record may be several rows: the user records that a producer has put together in it
//! ([`super::aggregation`]). A read may end between them, and so may a position.

use super::access::{Fetch, ShardFetcher, StreamRecord};
use super::aggregation::UserRecords;
use super::error::{StreamError, source_error};
use super::metadata::MetadataBuilders;
use super::options::{Deaggregation, OnDataLoss};
use super::position::Position;
use crate::formats::assembler::Layout;
use crate::formats::{ParseErrors, RecordDecoder};
use arrow::array::RecordBatch;
use std::sync::Arc;
use tidemill_engine::source::{ReadOutcome, SplitContext, SplitReader};
use tidemill_engine::{Error, Result};
use tokio::sync::mpsc;

/// Fetches that wait for the worker: with one in its hands, and the embedded store's 512 KiB, 1.5 MiB a shard.
const QUEUE_FETCHES_MAX: usize = 2;
/// Rows of a batch.
const BATCH_ROWS_MAX: usize = 8_192;

/// What to do when records are lost.
const REMEDY: &str = "start the job with the restore point \"nothing\", or set 'source.on-data-loss' = 'continue' to go on \
                      with what is left";

/// What a reader needs to know of its table.
pub(super) struct ReaderOptions {
    pub(super) layout: Arc<Layout>,
    pub(super) parse_errors: ParseErrors,
    pub(super) deaggregation: Deaggregation,
    pub(super) on_data_loss: OnDataLoss,
}

/// Reads one shard.
pub(super) struct ShardReader {
    table: String,
    /// `stream/shard`, for messages.
    name: String,
    position: Position,
    options: ReaderOptions,
    decoder: Box<dyn RecordDecoder>,
    metadata: MetadataBuilders,
    fetched: mpsc::Receiver<Result<Fetch, StreamError>>,
    current: Option<Current>,
    failed: Option<Error>,
    ended: bool,
    told_foreign: bool,
    context: SplitContext,
}

/// A fetch that is being decoded.
struct Current {
    fetch: Fetch,
    /// The next record, or the one that `inside` is of.
    at: usize,
    inside: Option<Inside>,
}

/// An aggregated record of which some user records are read.
struct Inside {
    records: UserRecords,
    /// The sub-sequence number of the next one.
    next: u64,
}

impl ShardReader {
    /// Begins to fetch from a position.
    pub(super) fn open(
        stream: &str,
        shard: &str,
        fetcher: Box<dyn ShardFetcher>,
        position: Position,
        decoder: Box<dyn RecordDecoder>,
        options: ReaderOptions,
        context: SplitContext,
    ) -> Self {
        let (sender, fetched) = mpsc::channel(QUEUE_FETCHES_MAX);
        context
            .runtime
            .spawn(fetch(fetcher, sender, Arc::clone(&context.waker)));
        Self {
            table: context.table.clone(),
            name: format!("{stream}/{shard}"),
            position,
            metadata: MetadataBuilders::new(&options.layout, shard),
            options,
            decoder,
            fetched,
            current: None,
            failed: None,
            ended: false,
            told_foreign: false,
            context,
        }
    }

    /// Takes the next fetch, if there is one and none is being decoded.
    fn refill(&mut self) {
        if self.current.is_some() || self.failed.is_some() || self.ended {
            return;
        }
        match self.fetched.try_recv() {
            Ok(Ok(fetch)) if fetch.expired && self.options.on_data_loss == OnDataLoss::Fail => {
                let message = format!(
                    "data loss: records of {} behind {} have expired without having been read; {REMEDY}",
                    self.name, self.position
                );
                self.failed = Some(source_error(&self.table, message).permanent());
            }
            Ok(Ok(fetch)) => {
                if fetch.expired {
                    tracing::warn!(table = self.table, shard = self.name, position = %self.position, "data loss: records have expired without having been read");
                }
                let (at, inside) = (0, None);
                self.current = Some(Current { fetch, at, inside });
            }
            Ok(Err(StreamError::ShardGone)) if self.options.on_data_loss == OnDataLoss::Continue => {
                tracing::warn!(table = self.table, shard = self.name, position = %self.position, "data loss: the shard has expired, its unread records are lost");
                self.ended = true;
            }
            Ok(Err(StreamError::ShardGone)) => {
                let message = format!(
                    "data loss: {} has expired, and was read until {} only; {REMEDY}",
                    self.name, self.position
                );
                self.failed = Some(source_error(&self.table, message).permanent());
            }
            Ok(Err(error)) => self.failed = Some(error.of_source(&self.table)),
            Err(mpsc::error::TryRecvError::Empty) => {}
            Err(mpsc::error::TryRecvError::Disconnected) => {
                let message = format!("the fetching of {} ended by itself", self.name);
                self.failed = Some(source_error(&self.table, message));
            }
        }
    }

    /// Decodes records of the current fetch within the budget.
    fn decode(&mut self, rows_max: usize, bytes_max: usize) -> Result<()> {
        let Some(mut current) = self.current.take() else {
            return Ok(());
        };
        let mut budget = Budget { bytes: 0, dropped: 0 };
        let mut failed = None;
        while current.at < current.fetch.records.len() {
            if self.decoder.rows() >= rows_max || budget.bytes >= bytes_max {
                break;
            }
            let record = &current.fetch.records[current.at];
            if current.inside.is_none() {
                current.inside = self.enter(record, &current.fetch);
            }
            let decoded = match &mut current.inside {
                None => self.row(record, &record.partition_key, None, &record.data, &mut budget),
                Some(inside) => self.user_record(record, inside, &mut budget),
            };
            match decoded {
                // There are more user records in this one.
                Ok(Step::Within) => {}
                Ok(Step::Over) => {
                    self.position.place = self.position.place.behind(&record.sequence);
                    self.position.user_records = 0;
                    current.inside = None;
                    current.at += 1;
                }
                Err(message) => {
                    failed = Some(message);
                    break;
                }
            }
        }
        if current.at == current.fetch.records.len() && failed.is_none() {
            self.position = current.fetch.next.clone().into();
            self.ended = current.fetch.at_end;
        } else {
            self.current = Some(current);
        }
        self.context.metrics.bytes_in.add(budget.bytes as u64);
        self.context.metrics.rows_dropped.add(budget.dropped);
        // The rows before a record that fails are not given: the job fails here in any case, and starts again before.
        match failed {
            Some(message) => Err(source_error(&self.table, message)),
            None => Ok(()),
        }
    }

    /// Opens a record that holds others, behind those that were read already.
    fn enter(&self, record: &StreamRecord, fetch: &Fetch) -> Option<Inside> {
        let range = match self.options.deaggregation {
            Deaggregation::Off => return None,
            Deaggregation::All => None,
            Deaggregation::Shard => fetch.range,
        };
        let mut records = UserRecords::open(&record.data, range)?;
        let is_half_read =
            self.position.user_records > 0 && self.position.place == self.position.place.at(&record.sequence);
        let next = if is_half_read { self.position.user_records } else { 0 };
        for _ in 0..next {
            records.next();
        }
        Some(Inside { records, next })
    }

    /// Decodes the next user record of an aggregated one.
    fn user_record(&mut self, record: &StreamRecord, inside: &mut Inside, budget: &mut Budget) -> Result<Step, String> {
        let Some(user_record) = inside.records.next() else {
            return Ok(Step::Over);
        };
        if user_record.belongs {
            let (key, data) = (&user_record.partition_key, &user_record.data);
            self.row(record, key, Some(inside.next), data, budget)?;
        } else {
            budget.dropped += 1;
            if !std::mem::replace(&mut self.told_foreign, true) {
                tracing::warn!(
                    table = self.table,
                    shard = self.name,
                    sequence_number = %record.sequence,
                    "user records of an aggregated record belong to another shard and are dropped, as the producer library \
                     sends them again; set 'source.deaggregation' = 'all' if yours does not"
                );
            }
        }
        inside.next += 1;
        self.position.place = self.position.place.at(&record.sequence);
        self.position.user_records = inside.next;
        Ok(Step::Within)
    }

    /// Decodes one row.
    fn row(
        &mut self,
        record: &StreamRecord,
        partition_key: &[u8],
        sub_sequence: Option<u64>,
        data: &[u8],
        budget: &mut Budget,
    ) -> Result<Step, String> {
        budget.bytes += data.len();
        match self.decoder.decode(data) {
            Ok(()) => self.metadata.append(record, partition_key, sub_sequence.unwrap_or(0)),
            Err(error) => match self.options.parse_errors {
                ParseErrors::Drop => budget.dropped += 1,
                ParseErrors::Fail { remedy } => {
                    let record = format!("the record with sequence number {} of {}", record.sequence, self.name);
                    let place = sub_sequence.map(|number| format!("user record {number} of "));
                    let place = place.unwrap_or_default();
                    return Err(format!("{place}{record} cannot be decoded: {error}; {remedy}"));
                }
            },
        }
        Ok(Step::Over)
    }

    fn take_rows(&mut self) -> Result<RecordBatch> {
        let rows = self.decoder.rows();
        let columns = self.decoder.finish()?;
        let metadata = self.metadata.finish();
        Ok(self
            .options
            .layout
            .assemble(rows, &columns, |origin, field| metadata.column(origin, field))?)
    }
}

/// What a read has taken in.
struct Budget {
    bytes: usize,
    dropped: u64,
}

/// Where a reader is after a row.
enum Step {
    /// Still within the record.
    Within,
    /// Behind it.
    Over,
}

impl SplitReader for ShardReader {
    fn read(&mut self, rows_max: usize, bytes_max: usize) -> Result<ReadOutcome> {
        let rows_max = rows_max.clamp(1, BATCH_ROWS_MAX);
        loop {
            self.refill();
            if let Some(error) = &self.failed {
                return Err(error.clone());
            }
            if self.current.is_none() {
                return Ok(if self.ended {
                    ReadOutcome::Ended
                } else {
                    ReadOutcome::Pending
                });
            }
            self.decode(rows_max, bytes_max.max(1))?;
            // Small fetches of a busy stream could be put together; the queue then is what waits.
            if self.decoder.rows() > 0 {
                return Ok(ReadOutcome::Rows(self.take_rows()?));
            }
        }
    }

    fn position(&self) -> String {
        self.position.to_string()
    }

    fn is_ready(&mut self) -> bool {
        self.refill();
        self.current.is_some() || self.failed.is_some() || self.ended
    }
}

/// Fetches until the shard ends or nobody listens any more.
async fn fetch(
    mut fetcher: Box<dyn ShardFetcher>,
    sender: mpsc::Sender<Result<Fetch, StreamError>>,
    wake: Arc<dyn Fn() + Send + Sync>,
) {
    loop {
        let fetched = tokio::select! {
            () = sender.closed() => return,
            fetched = fetcher.next() => fetched,
        };
        let is_last = fetched.as_ref().map_or(true, |fetch| fetch.at_end);
        if sender.send(fetched).await.is_err() {
            return;
        }
        wake();
        if is_last {
            // Stays until the reader goes, so that an end is not mistaken for a task that died.
            sender.closed().await;
            return;
        }
    }
}
