//! Gives files their final names when their checkpoint exists.
//!
//! A file is linked under its final name, which fails if the name is taken, and then its first name is removed. A crash
//! in between leaves both names on one file, which the replay sees. When all files of a checkpoint are published and
//! durable, its number is written down, so that a later replay does not ask for files that a consumer took away.
//!
//! What is a replay, what a new run under an old name and what is refused is decided as in the shard store
//! ([`tidemill_shards::publications`]).

use super::names::{SinkName, writer_of};
use super::sink_error;
use super::storage::{publish_file, remove, replace, sync_folder, told};
use super::writer::{COMMITTABLE_VERSION, Committable, StagedFile};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tidemill_engine::sink::{CommitterContext, PublishPermit, SinkCommitter};
use tidemill_engine::{Error, Result};
use tidemill_shards::publications::{Decision, Publication, decide, retire};
use tidemill_shards::{StoreError, Uuid};

/// Publishes for the whole job.
pub(super) struct FileCommitter(Arc<Inner>);

struct Inner {
    table: String,
    root: PathBuf,
    sink: SinkName,
    job: String,
    uid: String,
    /// The lineage and generation whose predecessors' leftovers were swept.
    swept: Mutex<Option<(String, u64)>>,
}

/// What was published, as JSON in a file of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Published {
    version: u32,
    /// Lineages of the job's checkpoints that are over.
    retired: Vec<Uuid>,
    /// The last publish.
    last: Option<Publication>,
}

/// The version of that file.
const MARKER_VERSION: u32 = 2;

impl FileCommitter {
    pub(super) fn new(table: String, root: PathBuf, context: &CommitterContext) -> Self {
        let sink = SinkName::new(&context.job, &context.uid);
        Self(Arc::new(Inner {
            table,
            root,
            sink,
            job: context.job.clone(),
            uid: context.uid.clone(),
            swept: Mutex::default(),
        }))
    }
}

#[async_trait::async_trait]
impl SinkCommitter for FileCommitter {
    async fn publish(&self, permit: PublishPermit, committables: &[Vec<u8>]) -> Result<()> {
        let inner = Arc::clone(&self.0);
        let mut files = Vec::new();
        for committable in committables {
            files.extend(inner.read(committable)?);
        }
        let published = tokio::task::spawn_blocking(move || inner.publish(permit, &files));
        published.await.map_err(|error| sink_error(&self.0.table, error))?
    }
}

impl Inner {
    fn read(&self, committable: &[u8]) -> Result<Vec<StagedFile>, Error> {
        let error = |message: String| sink_error(&self.table, format!("a committable cannot be read: {message}"));
        let read: Committable = serde_json::from_slice(committable).map_err(|e| error(e.to_string()))?;
        if read.version != COMMITTABLE_VERSION {
            return Err(error(format!(
                "it has the version {}; use the newer release",
                read.version
            )));
        }
        for file in &read.files {
            let inside = |name: &str| {
                Path::new(name)
                    .components()
                    .all(|part| matches!(part, Component::Normal(_)))
            };
            if !inside(&file.staged) || !inside(&file.target) {
                return Err(error(format!(
                    "{} or {} is not within the table's path",
                    file.staged, file.target
                )));
            }
        }
        Ok(read.files)
    }

    fn publish(&self, permit: PublishPermit, files: &[StagedFile]) -> Result<()> {
        let failed = |message: String| sink_error(&self.table, message);
        if files.is_empty() {
            return Ok(());
        }
        let marker = self.sink.published(&self.root);
        let Published { retired, last, .. } = read_marker(&marker).map_err(failed)?.unwrap_or_default();
        let asked = Publication {
            lineage: Uuid(permit.lineage.to_bytes()),
            checkpoint: permit.checkpoint,
            generation: permit.generation,
            decided_by: Uuid(permit.decided_by.to_bytes()),
        };
        let decision = decide(&retired, last.as_ref(), &asked);
        match decision.refusal(&self.job, &self.uid, &asked) {
            Some(StoreError::StaleGeneration { .. }) => return Err(Error::Fenced),
            Some(refusal) => {
                let error = Error::Sink {
                    sink: self.table.clone(),
                    message: refusal.to_string(),
                };
                return Err(error.permanent());
            }
            None => {}
        }
        if decision == Decision::Publish {
            self.publish_files(files).map_err(failed)?;
        }
        if decision != Decision::Replay {
            let mut published = Published {
                version: MARKER_VERSION,
                retired,
                last: Some(asked),
            };
            if let Some(last) = last {
                retire(&mut published.retired, last.lineage, asked.lineage);
            }
            published.write(&marker).map_err(failed)?;
            self.sweep(files, &published.retired);
        }
        Ok(())
    }

    fn publish_files(&self, files: &[StagedFile]) -> Result<(), String> {
        let staging = self.sink.staging(&self.root);
        let mut folders = Vec::new();
        for file in files {
            let (staged, target) = (staging.join(&file.staged), self.root.join(&file.target));
            publish_file(&staged, &target)?;
            folders.push(target);
        }
        // One sync for each folder that has new names.
        folders.sort();
        folders.dedup_by(|a, b| a.parent() == b.parent());
        folders
            .iter()
            .try_for_each(|target| sync_folder(target).map_err(|error| told("synced", target, &error)))
    }

    /// Removes what writers of older generations, and of lineages that are over, left behind. Failing to costs space only.
    ///
    /// The process that wrote the files just published began when everything older was published: what older ones left is in no
    /// checkpoint that could still be. The permit's generation would not do, for it rises while a process writes.
    fn sweep(&self, files: &[StagedFile], retired: &[Uuid]) {
        let Some((lineage, generation)) = files
            .iter()
            .filter_map(|file| writer_of(&file.staged))
            .max_by_key(|of| of.1)
        else {
            return;
        };
        let written = (lineage.to_owned(), generation);
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.as_ref() == Some(&written) {
            return;
        }
        *swept = Some(written);
        let Ok(entries) = fs::read_dir(self.sink.staging(&self.root)) else {
            return;
        };
        let over: Vec<String> = retired
            .iter()
            .map(|lineage| lineage.to_string()[..8].to_owned())
            .collect();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let is_left = name.to_str().and_then(writer_of).is_some_and(|(of, number)| {
                if of == lineage {
                    number < generation
                } else {
                    over.iter().any(|over| over == of)
                }
            });
            if is_left && let Err(error) = remove(&entry.path()) {
                tracing::warn!(file = %entry.path().display(), %error, "a file of a failed attempt cannot be removed");
            }
        }
    }
}

impl Published {
    fn write(&self, path: &Path) -> Result<(), String> {
        let bytes = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        replace(path, &bytes).map_err(|error| told("written", path, &error))
    }
}

fn read_marker(path: &Path) -> Result<Option<Published>, String> {
    match fs::read(path) {
        Ok(bytes) => match serde_json::from_slice::<Published>(&bytes) {
            Ok(published) if published.version == MARKER_VERSION => Ok(Some(published)),
            Ok(Published { version, .. }) => Err(format!(
                "{} has version {version}, this release knows {MARKER_VERSION}; use the release that wrote it",
                path.display()
            )),
            Err(error) => Err(format!("{} cannot be understood: {error}", path.display())),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(told("read", path, &error)),
    }
}
