//! Stage and publish: output of a job that becomes visible with its checkpoint, once.

use super::ShardStore;
use super::put::{check_entry, encoded_len};
use crate::access::{PublishOutcome, PublishRequest, StageRequest, StagedExtent, StagedRef};
use crate::error::StoreError;
use crate::ids::ShardKey;
use crate::limits;
use crate::log::entry;
use crate::log::frame::frame_len;
use crate::log::writer::{Command, PublishCommand, Publishing, Staged, StagedPayload};
use crate::publications::Publication;
use crate::reader::sink_hash;

impl ShardStore {
    /// Makes records durable, but not visible. Records that are never published only take space.
    ///
    /// # Errors
    /// As [`Self::put_records`]; a record that cannot be stored refuses the whole request.
    pub async fn stage(&self, request: StageRequest) -> Result<StagedRef, StoreError> {
        check_names(&request.job, &request.sink)?;
        let view = self.writable_stream(&request.stream)?;
        let StageRequest {
            job,
            sink,
            stream,
            lineage,
            checkpoint,
            attempt,
            worker,
            entries,
        } = request;
        let sink_hash = sink_hash(&job, &sink);

        // One open frame per shard; a full one is closed, so that the frames of a shard stay in order.
        let mut frames: Vec<StagedPayload> = Vec::new();
        let mut open: hashbrown::HashMap<ShardKey, usize> = hashbrown::HashMap::new();
        for entry in entries {
            check_entry(&entry, &view.meta)?;
            let shard = self.route(&view, &entry);
            let at = match open.get(&shard) {
                Some(&at) if frames[at].payload.len() + encoded_len(&entry) <= limits::FRAME_SPLIT_BYTES => at,
                _ => {
                    frames.push(StagedPayload {
                        shard,
                        records: 0,
                        payload: Vec::new(),
                    });
                    open.insert(shard, frames.len() - 1);
                    frames.len() - 1
                }
            };
            frames[at].records += 1;
            entry::encode(
                &mut frames[at].payload,
                &entry.partition_key,
                entry.explicit_hash_key,
                &entry.data,
            );
        }

        let extents = self.stage_frames(checkpoint, sink_hash, frames).await?;
        Ok(StagedRef {
            job,
            sink,
            stream,
            stream_id: view.meta.id,
            lineage,
            checkpoint,
            attempt,
            worker,
            extents,
        })
    }

    /// Makes frames durable, in as many commands as they need.
    pub(super) async fn stage_frames(
        &self,
        checkpoint: u64,
        sink_hash: u64,
        frames: Vec<StagedPayload>,
    ) -> Result<Vec<StagedExtent>, StoreError> {
        let mut extents: Vec<StagedExtent> = Vec::with_capacity(frames.len());
        let mut frames = frames.into_iter().peekable();
        while frames.peek().is_some() {
            let mut chunk = Vec::new();
            let mut bytes = 0;
            while let Some(frame) =
                frames.next_if(|frame| bytes == 0 || bytes + frame.payload.len() <= limits::COMMAND_BYTES_MAX)
            {
                bytes += frame_len(frame.payload.len());
                chunk.push(frame);
            }
            let staged = |reply| Command::Stage {
                checkpoint,
                sink_hash,
                frames: chunk,
                reply,
            };
            extents.extend(self.ask(bytes, staged).await?);
        }
        Ok(extents)
    }

    /// Makes staged records visible, all at once and once only.
    ///
    /// # Errors
    /// [`StoreError::StaleCheckpoint`], [`StoreError::StaleGeneration`], [`StoreError::RetiredLineage`] and
    /// [`StoreError::RepeatedCheckpoint`]: the caller is fenced and must stop.
    /// [`StoreError::StagedMismatch`] when a reference is not of this job, sink and checkpoint, or the log does not
    /// hold what it says. Records that were staged for a shard that is closed by now go to its children.
    pub async fn publish(&self, request: PublishRequest) -> Result<PublishOutcome, StoreError> {
        check_names(&request.job, &request.sink)?;
        let store = self.clone();
        let (request, staged) = super::blocking(move || {
            let staged = store.check_staged(&request);
            Ok((request, staged))
        })
        .await?;
        let PublishRequest {
            job,
            sink,
            lineage,
            checkpoint,
            generation,
            decided_by,
            ..
        } = request;
        let publication = Publication {
            lineage,
            checkpoint,
            generation,
            decided_by,
        };
        let mut staged = staged;
        loop {
            match self.publish_staged(&job, &sink, publication, staged).await? {
                Publishing::Done(outcome) => return Ok(outcome),
                // Some frames are of shards that were closed since; another may close while they are staged again.
                Publishing::Moved(old) => {
                    staged = Ok(self.restage(checkpoint, sink_hash(&job, &sink), old).await?);
                }
            }
        }
    }

    async fn publish_staged(
        &self,
        job: &str,
        sink: &str,
        publication: Publication,
        staged: Result<Staged, StoreError>,
    ) -> Result<Publishing, StoreError> {
        let frames = staged.as_ref().map_or(0, Vec::len);
        // A frame takes some 170 bytes of JSON.
        let bytes = frame_len(1_024 + 12 * (job.len() + sink.len()) + 240 * frames);
        if bytes > limits::FRAME_PAYLOAD_BYTES_MAX {
            return Err(StoreError::Limit(format!(
                "{frames} staged frames in one publish: take checkpoints more often, or use fewer shards"
            )));
        }
        self.ask(bytes, |reply| {
            Command::Publish(Box::new(PublishCommand {
                job: job.to_owned(),
                sink: sink.to_owned(),
                publication,
                staged,
                reply,
            }))
        })
        .await
    }

    /// Forgets what a job has published, when it is deleted for good.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`], [`StoreError::Closed`].
    pub async fn forget_job(&self, job: &str) -> Result<(), StoreError> {
        let job = job.to_owned();
        self.ask(1_024 + 12 * job.len(), |reply| Command::Forget { job, reply })
            .await
    }

    fn check_staged(&self, request: &PublishRequest) -> Result<Staged, StoreError> {
        let PublishRequest {
            job,
            sink,
            lineage,
            checkpoint,
            ..
        } = request;
        let mismatch = |reason: String| StoreError::StagedMismatch {
            job: job.clone(),
            sink: sink.clone(),
            reason,
        };
        let sink_hash = sink_hash(job, sink);
        let mut seen = std::collections::HashSet::new();
        let mut checked = Vec::new();
        for staged in &request.staged {
            if (&staged.job, &staged.sink, &staged.lineage, &staged.checkpoint) != (job, sink, lineage, checkpoint) {
                return Err(mismatch(format!(
                    "a reference belongs to {}/{} checkpoint {} (lineage {}), not to checkpoint {checkpoint} (lineage {lineage})",
                    staged.job, staged.sink, staged.checkpoint, staged.lineage
                )));
            }
            let view = self.stream(&staged.stream)?;
            for extent in &staged.extents {
                // A shard that nobody knows was closed so long ago that it is forgotten.
                let foreign = || {
                    self.view()
                        .stream_of(extent.shard)
                        .is_some_and(|owner| owner != staged.stream)
                };
                if view.meta.id != staged.stream_id || foreign() {
                    return Err(mismatch(format!("stream {} was deleted since", staged.stream)));
                }
                if !seen.insert((extent.segment_uuid, extent.offset)) {
                    return Err(mismatch("a frame is named twice".to_owned()));
                }
                self.0
                    .reader
                    .check_staged(extent, *checkpoint, sink_hash)
                    .map_err(mismatch)?;
                checked.push((staged.stream_id, staged.stream.clone(), extent.clone()));
            }
        }
        Ok(checked)
    }
}

fn check_names(job: &str, sink: &str) -> Result<(), StoreError> {
    for name in [job, sink] {
        let chars = name.chars().count();
        if !(1..=limits::SINK_NAME_CHARS_MAX).contains(&chars) {
            return Err(StoreError::Invalid(format!(
                "the name of a job or sink has {chars} characters: it must have 1 to {}",
                limits::SINK_NAME_CHARS_MAX
            )));
        }
    }
    Ok(())
}
