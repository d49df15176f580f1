//! The shard store's tier over any `object_store`, with threads of its own for the requests.
//!
//! A directory's objects are written beside their names, as `NAME#1`, and then linked. A process that is killed leaves
//! such files behind, which no listing shows; they go with the deletion of the object that the log says was never
//! finished, or when it is written again, as the store's mark is. A cloud shows an object when all of it has arrived.

use bytes::Bytes;
use object_store::path::Path as Name;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use tidemill_checkpoints::{OpenOptions, SnapshotStore};
use tidemill_shards::{ObjectTier, TierError};
use tokio::runtime::{Builder, Runtime};

/// How long the upload of a segment may take: one of 1 GiB, the largest, over a line of 30 Mbit/s.
const UPLOAD_TIME_MAX: Duration = Duration::from_secs(300);

/// How long another request may take, with all its tries; somebody waits for it.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);

/// Reads of more bytes than this are those of a whole segment, after its upload; what readers ask for is less.
const READ_BYTES_USUAL: u64 = 16 << 20;

/// Opens the tier at a URL, in the words of the option that names it.
///
/// # Errors
/// Says what is wrong with the URL.
pub(crate) fn open(url: &str) -> Result<Arc<dyn ObjectTier>, String> {
    // The error names the URL, without what may be secret in it.
    let refused = |error: String| format!("--store-tier-url: {error}");
    if url.trim_start().to_ascii_lowercase().starts_with("memory:") {
        return Err(refused(format!("{url}: records in memory end with the process")));
    }
    let options = OpenOptions {
        request_time_max: UPLOAD_TIME_MAX,
        ..OpenOptions::from_process()
    };
    let store = SnapshotStore::open_with(url, options).map_err(|error| refused(error.to_string()))?;
    let mut tier = StoredObjects::new(store.objects()).map_err(|error| refused(error.to_string()))?;
    tier.directory = store.directory().map(Path::to_owned);
    Ok(Arc::new(tier))
}

/// Objects of a store. Requests run on its own threads, so that any thread may wait for them.
pub(crate) struct StoredObjects {
    objects: Arc<dyn ObjectStore>,
    /// `None` while it is being dropped.
    runtime: Option<Runtime>,
    /// Where they lie, when that is a directory of this machine.
    directory: Option<PathBuf>,
}

impl StoredObjects {
    /// Keeps objects in `objects`, which should retry by itself what a second try may mend.
    ///
    /// # Errors
    /// When its threads cannot be started.
    pub(crate) fn new(objects: Arc<dyn ObjectStore>) -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("shards-tier")
            .enable_all()
            .build()?;
        Ok(Self {
            objects,
            runtime: Some(runtime),
            directory: None,
        })
    }

    /// Runs a request on the own threads and waits for it.
    fn run<T: Send + 'static>(
        &self,
        time_max: Duration,
        request: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<T, TierError> {
        let gone = || TierError::Unavailable("the store is being closed".to_owned());
        let runtime = self.runtime.as_ref().ok_or_else(gone)?;
        let (done, outcome) = mpsc::sync_channel(1);
        runtime.spawn(async move {
            // Whoever waits for it may have gone.
            let _ = done.send(tokio::time::timeout(time_max, request).await);
        });
        match outcome.recv().map_err(|_| gone())? {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(object_store::Error::NotFound { .. })) => Err(TierError::NotFound),
            Ok(Err(error)) => Err(TierError::Unavailable(error.to_string())),
            Err(_) => Err(TierError::Unavailable("no answer in time".to_owned())),
        }
    }
}

impl StoredObjects {
    /// Removes what a killed process left of an object that it was writing.
    #[allow(
        clippy::disallowed_methods,
        reason = "the object store hides these files, so nobody else can remove them"
    )]
    fn remove_half_written(&self, name: &str) -> Result<(), TierError> {
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        for attempt in 1.. {
            match std::fs::remove_file(directory.join(format!("{name}#{attempt}"))) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
                Err(error) => return Err(TierError::Unavailable(error.to_string())),
            }
        }
        Ok(())
    }
}

impl ObjectTier for StoredObjects {
    fn create(&self, name: &str, bytes: Bytes) -> Result<(), TierError> {
        self.remove_half_written(name)?;
        let (objects, path) = (Arc::clone(&self.objects), Name::from(name));
        self.run(UPLOAD_TIME_MAX, async move {
            let options = PutOptions {
                mode: PutMode::Create,
                ..PutOptions::default()
            };
            match objects.put_opts(&path, bytes.into(), options).await {
                // An answer that was lost, and the mark of the store. What is there is read back before it counts.
                Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }

    fn read(&self, name: &str, range: Range<u64>) -> Result<Bytes, TierError> {
        let (objects, path) = (Arc::clone(&self.objects), Name::from(name));
        let time_max = match range.end.saturating_sub(range.start) > READ_BYTES_USUAL {
            true => UPLOAD_TIME_MAX,
            false => REQUEST_TIME_MAX,
        };
        self.run(time_max, async move {
            match objects.get_range(&path, range.clone()).await {
                Err(object_store::Error::NotFound { path, source }) => {
                    Err(object_store::Error::NotFound { path, source })
                }
                // An object that was cut short is no reason to try again.
                Err(error) => match objects.head(&path).await {
                    Ok(found) if found.size <= range.start => Ok(Bytes::new()),
                    _ => Err(error),
                },
                found => found,
            }
        })
    }

    fn delete(&self, name: &str) -> Result<(), TierError> {
        let (objects, path) = (Arc::clone(&self.objects), Name::from(name));
        self.run(REQUEST_TIME_MAX, async move {
            match objects.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        })?;
        self.remove_half_written(name)
    }

    fn describe(&self) -> String {
        self.objects.to_string()
    }
}

impl Drop for StoredObjects {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting is not allowed in an async task, where the last owner may go.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use url::Url;

    #[test]
    fn objects_are_created_once_read_in_ranges_and_deleted() {
        let tier = StoredObjects::new(Arc::new(object_store::memory::InMemory::new())).unwrap();
        tier.create("a/b", Bytes::from_static(b"hello")).unwrap();
        tier.create("a/b", Bytes::from_static(b"other")).unwrap();
        assert_eq!(&tier.read("a/b", 1..4).unwrap()[..], b"ell");
        tier.delete("a/b").unwrap();
        tier.delete("a/b").unwrap();
        assert_eq!(tier.read("a/b", 0..1), Err(TierError::NotFound));
    }

    #[test]
    fn what_a_killed_process_left_goes_with_its_object() {
        let directory = tempfile::tempdir().unwrap();
        let tier = open(Url::from_file_path(directory.path()).unwrap().as_str()).unwrap();
        tier.create("s/a", Bytes::from_static(b"x")).unwrap();
        for left in ["s/a#1", "s/a#2", "s/b#1"] {
            std::fs::write(directory.path().join(left), "half").unwrap();
        }
        tier.delete("s/a").unwrap();
        let left: Vec<_> = std::fs::read_dir(directory.path().join("s"))
            .unwrap()
            .map(|file| file.unwrap().file_name())
            .collect();
        assert_eq!(left, ["b#1"]);
        tier.delete("s/b").unwrap();
        assert!(!directory.path().join("s/b#1").exists());
        // The mark is written again, also where it is there already.
        tier.create("s/store", Bytes::from_static(b"mark")).unwrap();
        std::fs::write(directory.path().join("s/store#1"), "mark").unwrap();
        tier.create("s/store", Bytes::from_static(b"mark")).unwrap();
        assert!(!directory.path().join("s/store#1").exists());
    }

    #[test]
    fn an_object_that_was_cut_is_short_and_not_away() {
        let directory = tempfile::tempdir().unwrap();
        let tier = open(Url::from_file_path(directory.path()).unwrap().as_str()).unwrap();
        tier.create("s/a", Bytes::from_static(b"hello")).unwrap();
        std::fs::write(directory.path().join("s/a"), "he").unwrap();
        assert_eq!(&tier.read("s/a", 0..5).unwrap()[..], b"he");
        assert!(tier.read("s/a", 3..5).unwrap().is_empty());
        std::fs::remove_dir_all(directory.path().join("s")).unwrap();
        assert_eq!(tier.read("s/a", 0..5), Err(TierError::NotFound));
        let refused = open("memory://x").err().unwrap();
        assert!(refused.contains("--store-tier-url: memory://x"), "{refused}");
        let refused = open("s3://me:hush@bucket").err().unwrap();
        assert!(
            refused.contains("--store-tier-url: ") && !refused.contains("hush"),
            "{refused}"
        );
    }

    #[test]
    fn calls_work_inside_and_outside_of_async_tasks() {
        let tier = StoredObjects::new(Arc::new(object_store::memory::InMemory::new())).unwrap();
        tokio::runtime::Runtime::new().unwrap().block_on(async move {
            tier.create("a", Bytes::from_static(b"x")).unwrap();
            assert_eq!(&tier.read("a", 0..1).unwrap()[..], b"x");
            drop(tier);
        });
    }
}
