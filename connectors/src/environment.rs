//! What connectors are given from outside: the shard store, the data directory, the time.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidemill_engine::time::{SystemTime, TimeSource};
use tidemill_shards::ShardAccess;

/// What connectors may use of the process they run in. Everything may be missing: a connector that needs it says so.
#[derive(Clone)]
pub struct ConnectorEnvironment {
    shards: Option<Arc<dyn ShardAccess>>,
    data_directory: Option<PathBuf>,
    time: Arc<dyn TimeSource>,
}

impl ConnectorEnvironment {
    /// Makes an environment without a shard store and without a data directory.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shards: None,
            data_directory: None,
            time: Arc::new(SystemTime::default()),
        }
    }

    /// Sets the shard store that the connector `kinesis` reads and writes.
    #[must_use]
    pub fn with_shards(mut self, shards: Arc<dyn ShardAccess>) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Sets the directory against which relative paths of tables are resolved.
    #[must_use]
    pub fn with_data_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.data_directory = Some(directory.into());
        self
    }

    /// Sets where time comes from, for connectors that generate it or limit a rate.
    #[must_use]
    pub fn with_time(mut self, time: Arc<dyn TimeSource>) -> Self {
        self.time = time;
        self
    }

    /// Returns the shard store.
    #[must_use]
    pub fn shards(&self) -> Option<&Arc<dyn ShardAccess>> {
        self.shards.as_ref()
    }

    /// Returns the data directory.
    #[must_use]
    pub fn data_directory(&self) -> Option<&Path> {
        self.data_directory.as_deref()
    }

    /// Returns where time comes from.
    #[must_use]
    pub fn time(&self) -> &Arc<dyn TimeSource> {
        &self.time
    }
}

impl Default for ConnectorEnvironment {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ConnectorEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectorEnvironment")
            .field("data_directory", &self.data_directory)
            .finish_non_exhaustive()
    }
}
