//! The object store at the edge: a small set of operations with limits, retries and typed errors.
//!
//! What the protocol needs of a store is little (and tested for each one in `store/conformance.rs`): a created object is there for
//! every later read, creating it again fails and changes nothing, and a deleted one is gone. Listing may lag behind.
//!
//! | file | |
//! |---|---|
//! | `store.rs` | the operations |
//! | `store/open.rs`, `store/open/` | URLs |
//! | `store/retry.rs` | which failures are worth another try |
//! | `store/listing.rs` | checkpoints and savepoints for display, and removal of a whole job |
//! | `store/local.rs` | what is particular to the local disk |

#[cfg(test)]
mod conformance;
mod listing;
mod local;
mod open;
mod retry;

pub use listing::Listed;
pub use open::OpenOptions;

use crate::limits::{CONCURRENCY, CREATE_TRIES_MAX};
use crate::{Error, Result};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use retry::Retry;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// The object store that checkpoints lie in. Cloning is cheap.
#[derive(Clone)]
pub struct SnapshotStore {
    objects: Arc<dyn ObjectStore>,
    retry: Retry,
    /// The directory, when it is a local one.
    directory: Option<PathBuf>,
    /// Whether it is a server of which we only hope that it creates an object once.
    is_cloud: bool,
}

/// What became of a create-if-absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Creation {
    /// The object was not there and is now.
    Created,
    /// The object was there, with this content. It may be our own, when an earlier answer was lost.
    Exists(Bytes),
}

impl fmt::Debug for SnapshotStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotStore({})", self.objects)
    }
}

impl SnapshotStore {
    /// Returns the object store behind it, for whoever keeps other objects beside snapshots and opens it by URL.
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.objects)
    }

    /// Returns the directory that the objects lie in, when it is a local one.
    pub fn directory(&self) -> Option<&std::path::Path> {
        self.directory.as_deref()
    }

    /// Uses a store made by the caller, for example one with faults. A failed request is tried again without waiting.
    pub fn from_object_store(objects: Arc<dyn ObjectStore>) -> Self {
        Self {
            objects,
            retry: Retry::immediate(),
            directory: None,
            is_cloud: false,
        }
    }

    /// Makes a store in memory that nobody else sees.
    pub fn in_memory() -> Self {
        Self::from_object_store(Arc::new(object_store::memory::InMemory::new()))
    }

    /// Reads an object; none when there is none.
    pub(crate) async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        let read = || async { self.objects.get(&path(name)?).await?.bytes().await };
        found(self.retry.run("read", name, read).await)
    }

    /// Reads ranges of an object; none when there is none. A range beyond the end gives fewer bytes or an error.
    pub(crate) async fn get_ranges(&self, name: &str, ranges: &[Range<u64>]) -> Result<Option<Vec<Bytes>>> {
        // Stores refuse an empty range.
        let asked: Vec<Range<u64>> = ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
        let read = || async { self.objects.get_ranges(&path(name)?, &asked).await };
        let Some(contents) = found(self.retry.run("read", name, read).await)? else {
            return Ok(None);
        };
        let mut contents = contents.into_iter();
        let content = |range: &Range<u64>| if range.is_empty() { None } else { contents.next() };
        Ok(Some(
            ranges.iter().map(content).map(Option::unwrap_or_default).collect(),
        ))
    }

    /// Returns an object's length in bytes; none when there is none.
    pub(crate) async fn head(&self, name: &str) -> Result<Option<u64>> {
        let read = || async { self.objects.head(&path(name)?).await };
        Ok(found(self.retry.run("look up", name, read).await)?.map(|meta| meta.size))
    }

    /// Creates an object that must not exist.
    ///
    /// An answer of "exists" is not believed until the object has been read: S3 also answers so to one of two concurrent requests, of
    /// which the other may fail.
    pub(crate) async fn create(&self, name: &str, bytes: Bytes) -> Result<Creation> {
        self.create_of(name, &[bytes]).await
    }

    /// The same with an object whose bytes are in parts.
    pub(crate) async fn create_of(&self, name: &str, parts: &[Bytes]) -> Result<Creation> {
        for round in 1..=CREATE_TRIES_MAX {
            let options = PutOptions::from(PutMode::Create);
            let write = || async {
                self.objects
                    .put_opts(&path(name)?, parts.iter().cloned().collect(), options.clone())
                    .await
            };
            match self.retry.run("create", name, write).await {
                Ok(_) => return Ok(Creation::Created),
                Err(Error::Refused { source, .. }) if is_exists(&source) => {}
                Err(error) => return Err(error),
            }
            if let Some(bytes) = self.get(name).await? {
                return Ok(Creation::Exists(bytes));
            }
            tracing::debug!(
                object = name,
                round,
                "reported as existing, but absent; creating it again"
            );
            self.retry.pause(round).await;
        }
        Err(Error::CreateConflict {
            object: name.to_owned(),
        })
    }

    /// Creates an object again that was just created, with the same bytes: a server that does not know the condition says that it
    /// was created, and would let two coordinators own a job. Asked of clouds alone.
    ///
    /// # Errors
    /// [`Error::CreatesTwice`] when it is such a server.
    pub(crate) async fn check_creates_once(&self, name: &str, bytes: Bytes) -> Result<()> {
        if self.is_cloud && self.create(name, bytes).await? == Creation::Created {
            return Err(Error::CreatesTwice {
                object: name.to_owned(),
            });
        }
        Ok(())
    }

    /// Begins an object that comes in parts. It is there when the upload is completed, and replaces one of its name: only for
    /// names that nobody else uses.
    pub(crate) async fn begin_parts(&self, name: &str) -> Result<Box<dyn MultipartUpload>> {
        let begin = || async { self.objects.put_multipart(&path(name)?).await };
        self.retry.run("begin the upload of", name, begin).await
    }

    /// Lists the objects under a prefix with their lengths in bytes, in no order. It may miss some and show some that are gone.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>> {
        let list = || async {
            let prefix = path(prefix)?;
            self.objects
                .list(Some(&prefix))
                .map_ok(|meta| (meta.location.to_string(), meta.size))
                .try_collect()
                .await
        };
        Ok(found(self.retry.run("list", prefix, list).await)?.unwrap_or_default())
    }

    /// Removes objects; one that is not there is no error.
    pub(crate) async fn delete(&self, names: Vec<String>) -> Result<()> {
        futures::stream::iter(names)
            .map(|name| async move {
                let remove = || async { self.objects.delete(&path(&name)?).await };
                found(self.retry.run("remove", &name, remove).await).map(drop)
            })
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await
    }
}

fn path(name: &str) -> object_store::Result<Path> {
    Ok(Path::parse(name)?)
}

fn is_exists(error: &object_store::Error) -> bool {
    matches!(
        error,
        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }
    )
}

fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Refused { source, .. }) if matches!(*source, object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
