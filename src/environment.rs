//! What a job is given to build its graph from.

use std::fmt;
use tidemill_connectors::ConnectorEnvironment;
use tidemill_shards::SharedAccess;

/// What a job is given to build its graph from: the same, whether it runs alone or under a server.
#[derive(Clone)]
pub struct JobEnvironment {
    connectors: ConnectorEnvironment,
    shards: SharedAccess,
    arguments: Vec<String>,
}

impl JobEnvironment {
    /// Makes an environment.
    pub(crate) fn new(connectors: ConnectorEnvironment, shards: SharedAccess, arguments: Vec<String>) -> Self {
        Self {
            connectors,
            shards,
            arguments,
        }
    }

    /// Returns what tables are made with: [`tidemill_connectors::create_source`] and [`tidemill_connectors::create_sink`]
    /// take it.
    #[must_use]
    pub fn connectors(&self) -> &ConnectorEnvironment {
        &self.connectors
    }

    /// Returns the shard store, for connectors of the job's own.
    #[must_use]
    pub fn shards(&self) -> &SharedAccess {
        &self.shards
    }

    /// Returns the job's own arguments: those behind `--` when it runs alone, `"args"` of the request under a server.
    #[must_use]
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }
}

impl fmt::Debug for JobEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobEnvironment")
            .field("arguments", &self.arguments)
            .finish_non_exhaustive()
    }
}
