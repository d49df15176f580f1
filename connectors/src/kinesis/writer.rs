//! Writes a worker's rows: each row is a record.
//!
//! Exactly once, records are staged. A staged record belongs to a checkpoint, whose number is known for certain only
//! when the checkpoint that was pre-committed last exists; that is so once it was published. Then full buffers are
//! staged in the background; before, they wait for the pre-commit.

use super::options::KinesisOptions;
use super::outbox::Outbox;
use super::partitioner::Partitioner;
use super::sink_error;
use crate::formats::RowEncoder;
use arrow::array::RecordBatch;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidemill_engine::operator::{Progress, TickClose};
use tidemill_engine::sink::{DeliveryGuarantee, PreCommit, PreCommitId, SinkContext, SinkWriter};
use tidemill_engine::{Error, Result};
use tidemill_shards::limits::{PUT_BYTES_MAX, PUT_RECORDS_MAX};
use tidemill_shards::{PutEntry, ShardAccess, StageRequest, StreamName, Uuid};

/// Bytes that are staged together.
const STAGE_BYTES: usize = 2 << 20;

/// Writes a worker's rows.
pub(super) struct KinesisWriter {
    name: Arc<str>,
    stream: StreamName,
    guarantee: DeliveryGuarantee,
    partitioner: Partitioner,
    encoder: Arc<dyn RowEncoder>,
    outbox: Outbox,
    buffer: Vec<PutEntry>,
    buffer_bytes: usize,
    /// The last checkpoint that a pre-commit was asked for, and the one that records were staged for ahead of it.
    last: Option<u64>,
    ahead: Option<u64>,
    next_checkpoint: Arc<AtomicU64>,
    context: SinkContext,
}

impl KinesisWriter {
    pub(super) fn new(
        name: Arc<str>,
        options: &KinesisOptions,
        partitioner: Partitioner,
        encoder: Arc<dyn RowEncoder>,
        shards: Arc<dyn ShardAccess>,
        next_checkpoint: Arc<AtomicU64>,
        context: SinkContext,
    ) -> Self {
        Self {
            name,
            stream: options.stream.clone(),
            guarantee: options.guarantee,
            partitioner,
            encoder,
            outbox: Outbox::start(shards, options.clone(), &context.runtime, Arc::clone(&context.waker)),
            buffer: Vec::new(),
            buffer_bytes: 0,
            last: None,
            ahead: None,
            next_checkpoint,
            context,
        }
    }

    fn check(&self) -> Result<()> {
        self.outbox
            .failure()
            .map_or(Ok(()), |error| Err(error.of_sink(&self.name)))
    }

    /// Returns the checkpoint that what is written now certainly belongs to.
    fn certain_checkpoint(&self) -> Option<u64> {
        let next = self.next_checkpoint.load(Ordering::Acquire);
        (self.last.is_some() && self.last == next.checked_sub(1)).then_some(next)
    }

    /// Sends the buffer to be staged.
    fn stage(&mut self, checkpoint: u64, attempt: u64) {
        self.buffer_bytes = 0;
        if self.buffer.is_empty() {
            return;
        }
        self.outbox.stage(StageRequest {
            job: self.context.job.clone(),
            sink: self.context.uid.clone(),
            stream: self.stream.clone(),
            lineage: Uuid(self.context.lineage.to_bytes()),
            checkpoint,
            attempt,
            worker: u32::try_from(self.context.worker).unwrap_or(u32::MAX),
            entries: std::mem::take(&mut self.buffer),
        });
    }

    /// Sends the buffer to be put, in requests within the limits.
    fn put(&mut self) {
        self.buffer_bytes = 0;
        let mut request = Vec::new();
        let mut bytes = 0;
        for entry in std::mem::take(&mut self.buffer) {
            let size = entry.data.len() + entry.partition_key.len();
            if !request.is_empty() && (request.len() >= PUT_RECORDS_MAX || bytes + size > PUT_BYTES_MAX) {
                self.outbox.put(&self.stream, std::mem::take(&mut request));
                bytes = 0;
            }
            bytes += size;
            request.push(entry);
        }
        if !request.is_empty() {
            self.outbox.put(&self.stream, request);
        }
    }
}

impl SinkWriter for KinesisWriter {
    fn write(&mut self, batch: &RecordBatch, _wall_time_ms: i64) -> Result<()> {
        self.check()?;
        let keys = self.partitioner.keys(batch).map_err(|error| match error {
            Error::Operator { message, .. } => sink_error(&self.name, message),
            error => error,
        })?;
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(batch.num_rows()));
        self.encoder
            .encode(batch, &mut bytes, &mut |out| ends.push(out.len()))?;
        let bytes = Bytes::from(bytes);
        let mut start = 0;
        for (partition_key, end) in keys.into_iter().zip(ends) {
            let data = bytes.slice(start..end);
            start = end;
            self.buffer_bytes += data.len() + partition_key.len();
            self.buffer.push(PutEntry {
                partition_key,
                explicit_hash_key: None,
                data,
            });
        }
        if self.guarantee == DeliveryGuarantee::ExactlyOnce
            && self.buffer_bytes >= STAGE_BYTES
            && let Some(checkpoint) = self.certain_checkpoint()
        {
            self.ahead = Some(checkpoint);
            self.stage(checkpoint, 0);
        }
        Ok(())
    }

    fn tick_closed(&mut self, _close: &TickClose) -> Result<Progress> {
        self.check()?;
        if self.guarantee == DeliveryGuarantee::AtLeastOnce {
            self.put();
        }
        Ok(if self.outbox.is_full() {
            Progress::More
        } else {
            Progress::Done
        })
    }

    fn pre_commit(&mut self, id: PreCommitId) -> Result<PreCommit> {
        self.check()?;
        let name = Arc::clone(&self.name);
        let answer = match self.guarantee {
            DeliveryGuarantee::AtLeastOnce => {
                self.put();
                self.outbox.flush()
            }
            DeliveryGuarantee::ExactlyOnce => {
                if let Some(ahead) = self.ahead.take()
                    && ahead != id.checkpoint
                {
                    let message = format!("output was staged for checkpoint {ahead}, and {} came", id.checkpoint);
                    return Err(Error::Internal(message));
                }
                self.last = Some(id.checkpoint);
                self.stage(id.checkpoint, id.attempt);
                self.outbox.flush()
            }
        };
        Ok(Box::pin(async move {
            let staged = match answer.await {
                Ok(answer) => answer.map_err(|error| error.of_sink(&name))?,
                Err(_) => return Err(sink_error(&name, "the task that sends records is gone")),
            };
            if staged.is_empty() {
                return Ok(None);
            }
            let committable = serde_json::to_vec(&staged);
            committable
                .map(Some)
                .map_err(|error| Error::Internal(format!("a committable cannot be written: {error}")))
        }))
    }
}
