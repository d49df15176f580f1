//! Publishes what writers staged.

use super::error::{StreamError, sink_error};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidemill_engine::Result;
use tidemill_engine::sink::{CommitterContext, PublishPermit, SinkCommitter};
use tidemill_shards::{PublishRequest, ShardAccess, StagedRef, Uuid};

/// Publishes for the whole job.
pub(super) struct KinesisCommitter {
    name: Arc<str>,
    shards: Arc<dyn ShardAccess>,
    next_checkpoint: Arc<AtomicU64>,
    context: CommitterContext,
}

impl KinesisCommitter {
    pub(super) fn new(
        name: Arc<str>,
        shards: Arc<dyn ShardAccess>,
        next_checkpoint: Arc<AtomicU64>,
        context: CommitterContext,
    ) -> Self {
        Self {
            name,
            shards,
            next_checkpoint,
            context,
        }
    }
}

#[async_trait::async_trait]
impl SinkCommitter for KinesisCommitter {
    async fn publish(&self, permit: PublishPermit, committables: &[Vec<u8>]) -> Result<()> {
        let mut staged: Vec<StagedRef> = Vec::new();
        for committable in committables {
            let refs: Vec<StagedRef> = serde_json::from_slice(committable)
                .map_err(|error| sink_error(&self.name, format!("a committable cannot be read: {error}")))?;
            staged.extend(refs);
        }
        // Nothing to publish needs no place in the log.
        if !staged.is_empty() {
            let request = PublishRequest {
                job: self.context.job.clone(),
                sink: self.context.uid.clone(),
                lineage: Uuid(permit.lineage.to_bytes()),
                checkpoint: permit.checkpoint,
                generation: permit.generation,
                decided_by: Uuid(permit.decided_by.to_bytes()),
                staged,
            };
            self.shards
                .publish(request)
                .await
                .map_err(|error| StreamError::from(error).of_sink(&self.name))?;
        }
        // The checkpoint exists: what comes next belongs to the one after it.
        self.next_checkpoint.fetch_max(permit.checkpoint + 1, Ordering::AcqRel);
        Ok(())
    }
}
