//! Reads one shard: a task fetches ahead into a bounded queue, the reader decodes on the worker.

use super::{StreamError, position, source_error};
use crate::formats::assembler::{Layout, Origin};
use crate::formats::{ParseErrors, RecordDecoder};
use arrow::array::{Array, ArrayRef, RecordBatch, StringBuilder, TimestampMillisecondBuilder, make_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use arrow::error::ArrowError;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_engine::source::{ReadOutcome, SplitContext, SplitReader};
use tidemill_engine::{Error, Result};
use tidemill_shards::{Position, ReadBatch, ReadLimits, Record, ShardAccess, ShardRef, StoreError};
use tokio::sync::mpsc;

/// Records and bytes that are fetched at once.
const FETCH: ReadLimits = ReadLimits {
    records_max: 8_192,
    bytes_max: 512 << 10,
};
/// Fetches that wait for the worker: with one in its hands, 1.5 MiB a shard.
const QUEUE_FETCHES_MAX: usize = 2;
/// Rows of a batch.
const BATCH_ROWS_MAX: usize = 8_192;

/// Reads one shard.
pub(super) struct ShardReader {
    table: String,
    shard: ShardRef,
    shard_id: String,
    position: Position,
    layout: Arc<Layout>,
    decoder: Box<dyn RecordDecoder>,
    metadata: Metadata,
    parse_errors: ParseErrors,
    fetched: mpsc::Receiver<Result<ReadBatch, StoreError>>,
    current: Option<Fetched>,
    failed: Option<Error>,
    ended: bool,
    context: SplitContext,
}

/// A fetch that is being decoded.
struct Fetched {
    batch: ReadBatch,
    /// The next record.
    at: usize,
}

impl ShardReader {
    /// Begins to fetch from a position.
    pub(super) fn open(
        shards: Arc<dyn ShardAccess>,
        shard: ShardRef,
        position: Position,
        layout: Arc<Layout>,
        decoder: Box<dyn RecordDecoder>,
        parse_errors: ParseErrors,
        context: SplitContext,
    ) -> Self {
        let (sender, fetched) = mpsc::channel(QUEUE_FETCHES_MAX);
        context.runtime.spawn(fetch(
            shards,
            shard.clone(),
            position,
            sender,
            Arc::clone(&context.waker),
        ));
        Self {
            table: context.table.clone(),
            shard_id: shard.shard.to_string(),
            shard,
            position,
            metadata: Metadata::new(&layout),
            layout,
            decoder,
            parse_errors,
            fetched,
            current: None,
            failed: None,
            ended: false,
            context,
        }
    }

    /// Takes the next fetch, if there is one and none is being decoded.
    fn refill(&mut self) {
        if self.current.is_some() || self.failed.is_some() || self.ended {
            return;
        }
        match self.fetched.try_recv() {
            Ok(Ok(batch)) => self.current = Some(Fetched { batch, at: 0 }),
            Ok(Err(error)) => self.failed = Some(StreamError::from(error).of_source(&self.table)),
            Err(mpsc::error::TryRecvError::Empty) => {}
            Err(mpsc::error::TryRecvError::Disconnected) => {
                let message = format!("the fetching of {} ended by itself", self.shard);
                self.failed = Some(source_error(&self.table, message));
            }
        }
    }

    /// Decodes records of the current fetch within the budget.
    fn decode(&mut self, rows_max: usize, bytes_max: usize) -> Result<()> {
        let Some(fetched) = &mut self.current else {
            return Ok(());
        };
        let (mut bytes, mut dropped) = (0, 0);
        let mut failed = None;
        for record in &fetched.batch.records[fetched.at..] {
            if self.decoder.rows() >= rows_max || bytes >= bytes_max {
                break;
            }
            match self.decoder.decode(&record.data) {
                Ok(()) => self.metadata.append(record, &self.shard_id),
                Err(error) => match self.parse_errors {
                    ParseErrors::Drop => dropped += 1,
                    ParseErrors::Fail { remedy } => {
                        failed = Some(format!(
                            "the record with sequence number {} of {} cannot be decoded: {error}; {remedy}",
                            record.sequence, self.shard
                        ));
                        break;
                    }
                },
            }
            fetched.at += 1;
            bytes += record.data.len();
            self.position.counter = record.sequence.counter + 1;
        }
        if fetched.at == fetched.batch.records.len() && failed.is_none() {
            self.position = fetched.batch.next;
            self.ended = fetched.batch.at_end;
            self.current = None;
        }
        self.context.metrics.bytes_in.add(bytes as u64);
        self.context.metrics.rows_dropped.add(dropped);
        // The rows before a record that fails are not given: the job fails here in any case, and starts again before.
        match failed {
            Some(message) => Err(source_error(&self.table, message)),
            None => Ok(()),
        }
    }

    fn take_rows(&mut self) -> Result<RecordBatch> {
        let rows = self.decoder.rows();
        let columns = self.decoder.finish()?;
        let metadata = self.metadata.finish();
        Ok(self
            .layout
            .assemble(rows, &columns, |origin, field| take_metadata(&metadata, origin, field))?)
    }
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
        position::format(self.position)
    }

    fn is_ready(&mut self) -> bool {
        self.refill();
        self.current.is_some() || self.failed.is_some() || self.ended
    }
}

/// Fetches until the shard ends or nobody listens any more.
async fn fetch(
    shards: Arc<dyn ShardAccess>,
    shard: ShardRef,
    mut position: Position,
    sender: mpsc::Sender<Result<ReadBatch, StoreError>>,
    wake: Arc<dyn Fn() + Send + Sync>,
) {
    let mut durable = shards.subscribe();
    loop {
        // What becomes durable from here on is seen by the wait below.
        durable.borrow_and_update();
        let read = shards.read(&shard, position, FETCH).await;
        let is_last = match &read {
            Ok(batch) => {
                position = batch.next;
                batch.at_end
            }
            Err(_) => true,
        };
        if is_last || matches!(&read, Ok(batch) if !batch.records.is_empty()) {
            if sender.send(read).await.is_err() {
                return;
            }
            wake();
            if is_last {
                // Stays until the reader goes, so that an end is not mistaken for a task that died.
                sender.closed().await;
                return;
            }
            continue;
        }
        tokio::select! {
            () = sender.closed() => return,
            changed = durable.changed() => if changed.is_err() {
                let _ = sender.send(Err(StoreError::Closed)).await;
                wake();
                sender.closed().await;
                return;
            },
        }
    }
}

/// The metadata columns that are wanted.
struct Metadata {
    timestamps: Option<TimestampMillisecondBuilder>,
    shard_ids: Option<StringBuilder>,
    sequence_numbers: Option<StringBuilder>,
    partition_keys: Option<StringBuilder>,
}

impl Metadata {
    fn new(layout: &Layout) -> Self {
        let wanted: Vec<&str> = layout.metadata().map(|(key, _)| key).collect();
        let text = |key| wanted.contains(&key).then(StringBuilder::new);
        Self {
            timestamps: wanted.contains(&"timestamp").then(TimestampMillisecondBuilder::new),
            shard_ids: text("shard-id"),
            sequence_numbers: text("sequence-number"),
            partition_keys: text("partition-key"),
        }
    }

    #[inline]
    fn append(&mut self, record: &Record, shard_id: &str) {
        if let Some(builder) = &mut self.timestamps {
            builder.append_value(i64::try_from(record.arrival_ms).unwrap_or(i64::MAX));
        }
        if let Some(builder) = &mut self.shard_ids {
            builder.append_value(shard_id);
        }
        if let Some(builder) = &mut self.sequence_numbers {
            builder.append_value(record.sequence.to_string());
        }
        if let Some(builder) = &mut self.partition_keys {
            builder.append_value(record.partition_key());
        }
    }

    fn finish(&mut self) -> BTreeMap<&'static str, ArrayRef> {
        let mut arrays: BTreeMap<&'static str, ArrayRef> = BTreeMap::new();
        if let Some(builder) = &mut self.timestamps {
            arrays.insert("timestamp", Arc::new(builder.finish()));
        }
        for (key, builder) in [
            ("shard-id", &mut self.shard_ids),
            ("sequence-number", &mut self.sequence_numbers),
            ("partition-key", &mut self.partition_keys),
        ] {
            if let Some(builder) = builder {
                arrays.insert(key, Arc::new(builder.finish()));
            }
        }
        arrays
    }
}

fn take_metadata(
    arrays: &BTreeMap<&'static str, ArrayRef>,
    origin: &Origin,
    field: &FieldRef,
) -> Result<ArrayRef, ArrowError> {
    let array = match origin {
        Origin::Metadata(key) => arrays.get(key.as_str()),
        _ => None,
    };
    let array = array.ok_or_else(|| ArrowError::SchemaError(format!("column {} has no origin", field.name())))?;
    match field.data_type() {
        // A moment is the same number in every zone, so the zone is only put on: Arrow's cast would look its name up.
        DataType::Timestamp(unit, Some(_)) => {
            let plain = cast(array, &DataType::Timestamp(*unit, None))?;
            Ok(make_array(
                plain
                    .to_data()
                    .into_builder()
                    .data_type(field.data_type().clone())
                    .build()?,
            ))
        }
        data_type => cast(array, data_type),
    }
}
