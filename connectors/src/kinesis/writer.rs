//! Writes a worker's rows: each row is a record.
//!
//! Exactly once, records are staged. A staged record belongs to a checkpoint, whose number is known for certain only
//! when the checkpoint that was pre-committed last exists; that is so once it was published. Then full buffers are
//! staged in the background; before, they wait for the pre-commit.

use super::error::sink_error;
use super::grouping::Grouping;
use super::options::KinesisOptions;
use super::outlet::{Outlet, Target};
use super::partitioner::Partitioner;
use crate::formats::RowEncoder;
use arrow::array::RecordBatch;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidemill_engine::operator::{Progress, TickClose};
use tidemill_engine::sink::{DeliveryGuarantee, PreCommit, PreCommitId, SinkContext, SinkWriter};
use tidemill_engine::{Error, Result};
use tidemill_shards::{PutEntry, StageRequest, Uuid};

/// Bytes that are staged together.
const STAGE_BYTES: usize = 2 << 20;

/// Writes a worker's rows.
pub(super) struct KinesisWriter {
    name: Arc<str>,
    options: KinesisOptions,
    partitioner: Partitioner,
    encoder: Arc<dyn RowEncoder>,
    grouping: Option<Grouping>,
    outlet: Outlet,
    buffer: Vec<PutEntry>,
    /// Of the buffer and of what is being grouped.
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
        target: &Target,
        next_checkpoint: Arc<AtomicU64>,
        context: SinkContext,
    ) -> Self {
        Self {
            name,
            options: options.clone(),
            partitioner,
            encoder,
            grouping: Grouping::new(options),
            outlet: Outlet::start(target, options, &context),
            buffer: Vec::new(),
            buffer_bytes: 0,
            last: None,
            ahead: None,
            next_checkpoint,
            context,
        }
    }

    fn check(&self) -> Result<()> {
        self.outlet.check(&self.name)
    }

    /// Returns the checkpoint that what is written now certainly belongs to.
    fn certain_checkpoint(&self) -> Option<u64> {
        let next = self.next_checkpoint.load(Ordering::Acquire);
        (self.last.is_some() && self.last == next.checked_sub(1)).then_some(next)
    }

    /// Moves records that wait for others of their keys to the buffer.
    fn finish_groups(&mut self) {
        self.buffer_bytes = 0;
        if let Some(grouping) = &mut self.grouping {
            grouping.finish(&mut self.buffer);
        }
    }

    /// Sends the buffer to be staged.
    fn stage(&mut self, checkpoint: u64, attempt: u64) {
        self.finish_groups();
        if self.buffer.is_empty() {
            return;
        }
        self.outlet.stage(StageRequest {
            job: self.context.job.clone(),
            sink: self.context.uid.clone(),
            stream: self.options.stream.clone(),
            lineage: Uuid(self.context.lineage.to_bytes()),
            checkpoint,
            attempt,
            worker: u32::try_from(self.context.worker).unwrap_or(u32::MAX),
            entries: std::mem::take(&mut self.buffer),
        });
    }

    /// Sends the buffer to be put.
    fn put(&mut self) {
        self.finish_groups();
        if !self.buffer.is_empty() {
            self.outlet.put(&self.options, std::mem::take(&mut self.buffer));
        }
    }
}

impl SinkWriter for KinesisWriter {
    fn write(&mut self, batch: &RecordBatch, _wall_time_ms: i64) -> Result<()> {
        self.check()?;
        let batch = &self.encoder.records(batch)?;
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
            match &mut self.grouping {
                Some(grouping) => grouping.add(partition_key, data, &mut self.buffer),
                None => self.buffer.push(PutEntry {
                    partition_key,
                    explicit_hash_key: None,
                    data,
                }),
            }
        }
        if self.options.guarantee == DeliveryGuarantee::ExactlyOnce
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
        if self.options.guarantee == DeliveryGuarantee::AtLeastOnce {
            self.put();
        }
        Ok(if self.outlet.is_full() {
            Progress::More
        } else {
            Progress::Done
        })
    }

    fn pre_commit(&mut self, id: PreCommitId) -> Result<PreCommit> {
        self.check()?;
        let answer = match self.options.guarantee {
            DeliveryGuarantee::AtLeastOnce => {
                self.put();
                self.outlet.flush(&self.name)
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
                self.outlet.flush(&self.name)
            }
        };
        Ok(Box::pin(async move {
            let staged = answer.await?;
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
