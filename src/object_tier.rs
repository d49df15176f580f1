//! The shard store's tier over any `object_store`, with threads of its own for the requests.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use tidemill_shards::{ObjectTier, TierError};
use tokio::runtime::{Builder, Runtime};

/// How long one request may take.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(300);

/// Objects of a store. Requests run on its own threads, so that any thread may wait for them.
pub(crate) struct StoredObjects {
    objects: Arc<dyn ObjectStore>,
    /// `None` while it is being dropped.
    runtime: Option<Runtime>,
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
        })
    }

    /// Runs a request on the own threads and waits for it.
    fn run<T: Send + 'static>(
        &self,
        request: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<T, TierError> {
        let gone = || TierError::Unavailable("the store is being closed".to_owned());
        let runtime = self.runtime.as_ref().ok_or_else(gone)?;
        let (done, outcome) = mpsc::sync_channel(1);
        runtime.spawn(async move {
            // Whoever waits for it may have gone.
            let _ = done.send(tokio::time::timeout(REQUEST_TIME_MAX, request).await);
        });
        match outcome.recv().map_err(|_| gone())? {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(object_store::Error::NotFound { .. })) => Err(TierError::NotFound),
            Ok(Err(error)) => Err(TierError::Unavailable(error.to_string())),
            Err(_) => Err(TierError::Unavailable("no answer in time".to_owned())),
        }
    }
}

impl ObjectTier for StoredObjects {
    fn create(&self, name: &str, bytes: Bytes) -> Result<(), TierError> {
        let (objects, path) = (Arc::clone(&self.objects), Path::from(name));
        self.run(async move {
            let options = PutOptions {
                mode: PutMode::Create,
                ..PutOptions::default()
            };
            match objects.put_opts(&path, bytes.into(), options).await {
                Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }

    fn read(&self, name: &str, range: Range<u64>) -> Result<Bytes, TierError> {
        let (objects, path) = (Arc::clone(&self.objects), Path::from(name));
        self.run(async move { objects.get_range(&path, range).await })
    }

    fn delete(&self, name: &str) -> Result<(), TierError> {
        let (objects, path) = (Arc::clone(&self.objects), Path::from(name));
        self.run(async move {
            match objects.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        })
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
    fn calls_work_inside_and_outside_of_async_tasks() {
        let tier = StoredObjects::new(Arc::new(object_store::memory::InMemory::new())).unwrap();
        tokio::runtime::Runtime::new().unwrap().block_on(async move {
            tier.create("a", Bytes::from_static(b"x")).unwrap();
            assert_eq!(&tier.read("a", 0..1).unwrap()[..], b"x");
            drop(tier);
        });
    }
}
