//! What every process that runs a job needs: a runtime for its I/O, and the environment of its connectors.

use std::path::Path;
use tidemill_connectors::ConnectorEnvironment;
use tidemill_shards::SharedAccess;
use tokio::runtime::{Builder, Runtime};

/// Threads of a job's I/O runtime; its workers have threads of their own.
const IO_THREADS: usize = 2;

/// Starts the runtime for a job's I/O.
///
/// # Errors
/// When the system gives no threads.
pub(crate) fn io_runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .thread_name("io")
        .enable_all()
        .build()
}

/// Makes the environment of a job's connectors. Relative paths of tables are resolved against `directory`.
pub(crate) fn connector_environment(shards: SharedAccess, directory: &Path) -> ConnectorEnvironment {
    ConnectorEnvironment::new()
        .with_shards(shards)
        .with_data_directory(directory)
}
