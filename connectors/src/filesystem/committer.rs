//! Gives files their final names when their checkpoint exists.
//!
//! A file is linked under its final name, which fails if the name is taken, and then its first name is removed. A crash
//! in between leaves both names on one file, which the replay sees. When all files of a checkpoint are published and
//! durable, its number is written down, so that a later replay does not ask for files that a consumer took away.

use super::names::{SinkName, generation_of};
use super::sink_error;
use super::storage::{publish_file, remove, replace, sync_folder, told};
use super::writer::{COMMITTABLE_VERSION, Committable, StagedFile};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidemill_engine::sink::{CommitterContext, PublishPermit, SinkCommitter};
use tidemill_engine::{Error, Result};

/// Publishes for the whole job.
pub(super) struct FileCommitter(Arc<Inner>);

struct Inner {
    table: String,
    root: PathBuf,
    sink: SinkName,
    /// The generation whose predecessors' leftovers were swept.
    swept: AtomicU64,
}

/// The newest checkpoint that was published, as JSON in a file of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Published {
    version: u32,
    checkpoint: u64,
    generation: u64,
}

impl FileCommitter {
    pub(super) fn new(table: String, root: PathBuf, context: &CommitterContext) -> Self {
        let sink = SinkName::new(&context.job, &context.uid);
        Self(Arc::new(Inner {
            table,
            root,
            sink,
            swept: AtomicU64::new(0),
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
        let published = tokio::task::spawn_blocking(move || {
            inner
                .publish(permit, &files)
                .map_err(|message| sink_error(&inner.table, message))
        });
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

    fn publish(&self, permit: PublishPermit, files: &[StagedFile]) -> Result<(), String> {
        if !files.is_empty() {
            let marker = self.sink.published(&self.root);
            let before = read_marker(&marker)?;
            match before {
                Some(before) if before.checkpoint > permit.checkpoint => {
                    return Err(format!(
                        "checkpoint {} is to be published, but checkpoint {} was already: the job's checkpoints were \
                         removed or an older one restored; give the job another name, or remove {} and the files it \
                         wrote since",
                        permit.checkpoint,
                        before.checkpoint,
                        marker.display()
                    ));
                }
                Some(before) if before.checkpoint == permit.checkpoint => {
                    // A replay finds its files published. Files that still wait belong to another run of this name,
                    // whose checkpoints count from the beginning again: to take them for published would lose them.
                    let staging = self.sink.staging(&self.root);
                    let waits = |file: &&StagedFile| {
                        let identity = |path: PathBuf| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
                        let staged = identity(staging.join(&file.staged));
                        staged.is_some() && staged != identity(self.root.join(&file.target))
                    };
                    if let Some(file) = files.iter().find(waits) {
                        return Err(format!(
                            "checkpoint {} was published here already, and not with {}: the job's checkpoints were removed, \
                             or another job has the same name; give the job another name, or remove {} and the files it \
                             wrote since",
                            permit.checkpoint,
                            file.staged,
                            marker.display()
                        ));
                    }
                }
                _ => {
                    self.publish_files(files)?;
                    let published = Published {
                        version: 1,
                        checkpoint: permit.checkpoint,
                        generation: permit.generation,
                    };
                    let bytes = serde_json::to_vec(&published).map_err(|error| error.to_string())?;
                    replace(&marker, &bytes).map_err(|error| told("written", &marker, &error))?;
                }
            }
        }
        // The process that wrote these files began when everything older was published: what older ones left is in no
        // checkpoint that could still be. The permit's generation would not do, for it rises while a process writes.
        let written = files.iter().filter_map(|file| generation_of(&file.staged)).max();
        if let Some(generation) = written
            && self.swept.fetch_max(generation, Ordering::AcqRel) < generation
        {
            self.sweep(generation);
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

    /// Removes what writers of older generations of this sink left behind. Failing to costs space only.
    fn sweep(&self, generation: u64) {
        let Ok(entries) = fs::read_dir(self.sink.staging(&self.root)) else {
            return;
        };
        for entry in entries.flatten() {
            let old = entry
                .file_name()
                .to_str()
                .and_then(generation_of)
                .is_some_and(|written| written < generation);
            if old && let Err(error) = remove(&entry.path()) {
                tracing::warn!(file = %entry.path().display(), %error, "a file of a failed attempt cannot be removed");
            }
        }
    }
}

fn read_marker(path: &Path) -> Result<Option<Published>, String> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| format!("{} cannot be understood: {error}", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(told("read", path, &error)),
    }
}
