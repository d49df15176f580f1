//! Uploads of worker state, from any process of a job.

use crate::failpoints::{CKPT_STATE_PUT_AFTER, CKPT_STATE_PUT_BEFORE};
use crate::limits::{STATE_IN_ONE_BYTES_MAX, STATE_PART_BYTES};
use crate::store::Creation;
use crate::{
    AttemptId, CheckpointId, Error, Failpoints, Generation, JobUid, KeyGroupRange, OperatorUid, Result, SnapshotStore,
    StateObject, StateRef, StateWriter, names,
};
use bytes::Bytes;
use object_store::{MultipartUpload, PutPayload};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;

/// One try at one checkpoint. Travels to all workers; names their state objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// The attempt, unique within the run of a coordinator.
    pub attempt: AttemptId,
    /// The generation it was begun in.
    pub generation: Generation,
}

/// Uploads state objects of a job's attempts. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Uploader {
    store: SnapshotStore,
    job: JobUid,
    failpoints: Failpoints,
}

impl Uploader {
    /// Makes an uploader for a process of the job that has no coordinator.
    pub fn new(store: SnapshotStore, job: JobUid, failpoints: Failpoints) -> Self {
        Self { store, job, failpoints }
    }

    /// Uploads one worker's state of an attempt, and returns what the manifest has to say about it. An attempt that has failed may
    /// still be uploading: its objects are never referred to and are collected later.
    ///
    /// # Errors
    /// [`Error::Store`] when the store fails: the attempt has failed, begin another. [`Error::OutOfOrder`] when the worker has
    /// uploaded other state for the attempt before.
    pub async fn put_state(&self, attempt: &Attempt, worker: u32, state: StateObject) -> Result<StateRef> {
        self.failpoints.reach(CKPT_STATE_PUT_BEFORE).await?;
        let object = names::state(
            &self.job,
            attempt.generation,
            attempt.checkpoint,
            attempt.attempt,
            worker,
        );
        let length = state.length();
        if let Creation::Exists(found) = self.store.create_of(&object, &state.parts).await?
            && !state.is(&found)
        {
            let reason = format!("{object} exists with other content; a worker uploads its state once per attempt");
            return Err(Error::OutOfOrder {
                checkpoint: attempt.checkpoint,
                step: "uploaded",
                reason,
            });
        }
        self.failpoints.reach(CKPT_STATE_PUT_AFTER).await?;
        Ok(StateRef {
            object,
            length,
            crc32c: state.crc32c,
            sections: state.sections,
        })
    }

    /// Begins to upload one worker's state of an attempt, section by section. Memory holds what is not uploaded yet, some tens of
    /// megabytes, however large the state is.
    ///
    /// # Errors
    /// As [`Uploader::put_state`].
    pub async fn begin_state(&self, attempt: &Attempt, worker: u32) -> Result<StateUpload> {
        self.failpoints.reach(CKPT_STATE_PUT_BEFORE).await?;
        Ok(StateUpload {
            uploader: self.clone(),
            checkpoint: attempt.checkpoint,
            object: names::state(
                &self.job,
                attempt.generation,
                attempt.checkpoint,
                attempt.attempt,
                worker,
            ),
            writer: StateWriter::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            parts: None,
        })
    }
}

/// A worker's state on its way to the store. One that is dropped before its end is never referred to, and the store is told to
/// forget what it has of it.
pub struct StateUpload {
    uploader: Uploader,
    checkpoint: CheckpointId,
    object: String,
    writer: StateWriter,
    /// Made and not uploaded.
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    /// The upload of an object that is too large for one request.
    parts: Option<Box<dyn MultipartUpload>>,
}

impl fmt::Debug for StateUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateUpload")
            .field("object", &self.object)
            .finish_non_exhaustive()
    }
}

impl StateUpload {
    /// Appends a section, as [`StateWriter::append`] does, and uploads what is enough for a part.
    ///
    /// # Errors
    /// As [`StateWriter::append`] and [`Uploader::put_state`]; the upload is then over.
    pub async fn append(
        &mut self,
        operator: &OperatorUid,
        name: &str,
        key_groups: Option<KeyGroupRange>,
        content: Bytes,
    ) -> Result<()> {
        self.writer.append(operator, name, key_groups, content)?;
        self.take_made();
        if self.parts.is_none() && self.waiting_bytes > STATE_IN_ONE_BYTES_MAX {
            // The name is this attempt's alone, so what is there was uploaded by this worker before.
            if self.uploader.store.head(&self.object).await?.is_some() {
                return Err(self.exists());
            }
            self.parts = Some(self.uploader.store.begin_parts(&self.object).await?);
        }
        while self.parts.is_some() && self.waiting_bytes >= STATE_PART_BYTES {
            self.put_part(STATE_PART_BYTES).await?;
        }
        Ok(())
    }

    /// Ends the object; returns what the manifest has to say about it.
    ///
    /// # Errors
    /// As [`Uploader::put_state`].
    pub async fn finish(mut self) -> Result<StateRef> {
        self.take_made();
        let length = self.writer.bytes_len() as u64;
        if self.parts.is_some() && self.waiting_bytes > 0 {
            self.put_part(self.waiting_bytes).await?;
        }
        match &mut self.parts {
            Some(parts) => {
                let completed = parts.complete().await;
                completed.map_err(|source| failed("upload", &self.object, source))?;
                self.parts = None;
            }
            None => {
                let waiting: Vec<Bytes> = self.waiting.drain(..).collect();
                if let Creation::Exists(found) = self.uploader.store.create_of(&self.object, &waiting).await?
                    && found != waiting.concat()
                {
                    return Err(self.exists());
                }
            }
        }
        self.uploader.failpoints.reach(CKPT_STATE_PUT_AFTER).await?;
        let StateObject { sections, crc32c, .. } = std::mem::take(&mut self.writer).finish();
        Ok(StateRef {
            object: std::mem::take(&mut self.object),
            length,
            crc32c,
            sections,
        })
    }

    /// Gives the upload up, and lets the store forget what it has of it.
    pub async fn abort(mut self) {
        if let Some(parts) = self.parts.take() {
            give_up(parts, std::mem::take(&mut self.object)).await;
        }
    }

    fn take_made(&mut self) {
        for made in self.writer.take_parts() {
            self.waiting_bytes += made.len();
            self.waiting.push_back(made);
        }
    }

    /// Uploads the next `bytes` of what waits, without copying them.
    async fn put_part(&mut self, bytes: usize) -> Result<()> {
        let mut part = Vec::new();
        let mut missing = bytes;
        while missing > 0
            && let Some(mut next) = self.waiting.pop_front()
        {
            if next.len() > missing {
                self.waiting.push_front(next.split_off(missing));
            }
            missing -= next.len();
            part.push(next);
        }
        self.waiting_bytes -= bytes;
        if let Some(parts) = &mut self.parts {
            let put = parts.put_part(PutPayload::from_iter(part)).await;
            put.map_err(|source| failed("upload a part of", &self.object, source))?;
        }
        Ok(())
    }

    fn exists(&self) -> Error {
        let object = &self.object;
        Error::OutOfOrder {
            checkpoint: self.checkpoint,
            step: "uploaded",
            reason: format!("{object} exists with other content; a worker uploads its state once per attempt"),
        }
    }
}

impl Drop for StateUpload {
    /// The attempt has failed, or takes too long. What a killed process leaves is the business of the bucket's lifecycle rules.
    fn drop(&mut self) {
        if let Some(parts) = self.parts.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(give_up(parts, std::mem::take(&mut self.object)));
        }
    }
}

async fn give_up(mut parts: Box<dyn MultipartUpload>, object: String) {
    if let Err(error) = parts.abort().await {
        tracing::debug!(object, %error, "an upload could not be given up");
    }
}

/// A part cannot be sent twice by us: the store's client has tried as often as it may.
fn failed(operation: &'static str, object: &str, source: object_store::Error) -> Error {
    Error::Store {
        operation,
        object: object.to_owned(),
        tries: 1,
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyGroup;
    use crate::doubles::{Cloud, Double, Fault};
    use std::time::Duration;

    fn uploader(store: SnapshotStore) -> Uploader {
        Uploader::new(store, JobUid::new("job").unwrap(), Failpoints::default())
    }

    fn attempt() -> Attempt {
        Attempt {
            checkpoint: CheckpointId(3),
            attempt: AttemptId(1),
            generation: Generation(2),
        }
    }

    /// Sections of different sizes, none of them a multiple of a part's.
    fn sections(count: usize, bytes: usize) -> Vec<Bytes> {
        let section = |n: usize| {
            (0..bytes + n * 7)
                .map(|i| (i * 31 + n) as u8)
                .collect::<Vec<u8>>()
                .into()
        };
        (0..count).map(section).collect()
    }

    async fn upload(uploader: &Uploader, sections: &[Bytes]) -> Result<StateRef> {
        let mut upload = uploader.begin_state(&attempt(), 0).await?;
        for (n, section) in sections.iter().enumerate() {
            let groups = KeyGroupRange::new(KeyGroup(n as u16), KeyGroup(n as u16));
            upload
                .append(&"op".into(), "rows", Some(groups), section.clone())
                .await?;
        }
        upload.finish().await
    }

    #[tokio::test]
    async fn small_and_large_objects_are_what_one_piece_would_be() {
        let directory = tempfile::tempdir().unwrap();
        let local = SnapshotStore::open(&format!("file://{}", directory.path().display())).unwrap();
        for (store, count, bytes) in [(SnapshotStore::in_memory(), 3, 1_000), (local, 9, 5_000_003)] {
            let sections = sections(count, bytes);
            let mut writer = StateWriter::new();
            for (n, section) in sections.iter().enumerate() {
                let groups = KeyGroupRange::new(KeyGroup(n as u16), KeyGroup(n as u16));
                writer
                    .append(&"op".into(), "rows", Some(groups), section.clone())
                    .unwrap();
            }
            let whole = writer.finish();
            let uploader = uploader(store.clone());
            let found = upload(&uploader, &sections).await.unwrap();
            assert_eq!((found.length, found.crc32c), (whole.length(), whole.crc32c));
            assert_eq!(found.sections, whole.sections);
            let stored = store.get(&found.object).await.unwrap().unwrap();
            assert!(whole.is(&stored));
            // Again with another content: refused, and what is there stays.
            let error = upload(&uploader, &sections[..count - 1]).await.unwrap_err();
            assert!(error.to_string().contains("exists with other content"), "{error}");
            assert!(whole.is(&store.get(&found.object).await.unwrap().unwrap()));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_cloud_takes_large_state_in_parts_and_forgets_what_is_given_up() {
        let sections = sections(3, 12_000_000);
        for cloud in Cloud::ALL {
            let double = Double::start(cloud);
            let store = double.store("a");
            let uploader = uploader(store.clone());
            let found = upload(&uploader, &sections).await.unwrap();
            let stored = store.get(&found.object).await.unwrap().unwrap();
            assert_eq!(stored.len() as u64, found.length);
            assert_eq!(crc32c::crc32c(&stored), found.crc32c);
            assert_eq!(double.uploads(), 0);
            store.delete(vec![found.object]).await.unwrap();

            // Given up by a call, by being dropped, and because its end fails.
            let half = async || {
                let mut upload = uploader.begin_state(&attempt(), 0).await.unwrap();
                for section in &sections {
                    upload
                        .append(&"op".into(), "rows", None, section.clone())
                        .await
                        .unwrap();
                }
                upload
            };
            half().await.abort().await;
            drop(half().await);
            let last = if cloud == Cloud::Azure { "PUT" } else { "POST" };
            let upload = half().await;
            double.fail_next(
                last,
                if cloud == Cloud::Azure { "blocklist" } else { "uploadId" },
                Fault::Forbidden,
            );
            upload.finish().await.unwrap_err();
            // Azure has no such request: it drops blocks by itself.
            while cloud != Cloud::Azure && double.uploads() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(double.objects().is_empty());
            assert!(double.odd().is_empty(), "{:?}", double.odd());
        }
    }

    #[tokio::test]
    async fn an_upload_that_fails_leaves_no_object() {
        let store = SnapshotStore::in_memory();
        let mut upload = uploader(store.clone()).begin_state(&attempt(), 0).await.unwrap();
        for section in sections(8, 5_000_000) {
            upload.append(&"op".into(), "rows", None, section).await.unwrap();
        }
        let object = upload.object.clone();
        upload.abort().await;
        assert_eq!(store.get(&object).await.unwrap(), None);
    }
}
