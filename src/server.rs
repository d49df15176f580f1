//! The server: shard store, AWS APIs, REST and metrics on one port, jobs in processes of their own.
//!
//! ```text
//!                    ┌─ POST /         AWS APIs by X-Amz-Target ──▶ shard store
//!   one TCP port ────┼─ /v1/...        REST ─────────────────────▶ supervisor ──▶ one process per job
//!                    ├─ GET /metrics   Prometheus
//!                    └─ GET /healthz
//! ```
//! File map: [`options`] is what it is told, `listen` the port with its limits, `guard` who may ask, `aws`, `rest` and
//! `metrics` what is asked, `problem` how a refusal looks, `openapi` the description of the REST API.

mod aws;
mod guard;
mod listen;
mod metrics;
mod openapi;
pub(crate) mod options;
mod problem;
mod rest;
mod store_metrics;

use crate::data_directory::{DataDirectory, DataDirectoryError};
use crate::jobs::actor::Context;
use crate::jobs::child::Launch;
use crate::jobs::definition::{JobDefinition, Program};
use crate::jobs::error::JobError;
use crate::jobs::registry::{Registry, RegistryError};
use crate::jobs::spawner::Spawner;
use crate::jobs::store_service::StoreService;
use crate::jobs::supervisor::Supervisor;
use crate::object_tier;
use crate::process::StopSignals;
use crate::standalone;
use crate::worker::WorkerArguments;
pub(crate) use listen::tls::TlsFiles;
use options::ServerOptions;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tidemill_checkpoints::SnapshotStore;
use tidemill_engine::time::{SystemTime, TimeSource};
use tidemill_shards::kinesis::KinesisApi;
use tidemill_shards::{ShardStore, SharedAccess};
use tokio::task::JoinHandle;

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDirectory(#[from] DataDirectoryError),
    /// The job definitions cannot be read.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The jobs cannot be started.
    #[error(transparent)]
    Jobs(#[from] JobError),
    /// An option cannot be.
    #[error("{0}")]
    Option(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; {hint}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The shard store cannot be opened.
    #[error("{0}")]
    Store(String),
    /// The system refused something.
    #[error("cannot {action}: {source}")]
    System {
        /// What.
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// The time between two looks at the load of on-demand streams, which is counted by the minute.
const SCALING_INTERVAL: Duration = Duration::from_secs(60);

/// A running server.
pub(crate) struct Server {
    address: SocketAddr,
    supervisor: Supervisor,
    listener: listen::Listener,
    kinesis: KinesisApi,
    store: ShardStore,
    scaling: JoinHandle<()>,
    time: Arc<dyn TimeSource>,
    grace: Duration,
    _directory: DataDirectory,
}

impl Server {
    /// Starts a server: takes the data directory and the port, recovers the store, and starts the jobs that should run.
    ///
    /// # Errors
    /// When one of these fails; nothing is left running then.
    pub(crate) async fn start(options: ServerOptions) -> Result<Self, ServerError> {
        options.check()?;
        let tls = options.tls.as_ref().map(|files| files.acceptor()).transpose()?;
        // The port first: it is the cheapest to find taken, and nothing is touched then.
        let socket = listen::bind(options.listen).await?;
        let address = socket.local_addr().map_err(|source| ServerError::System {
            action: "read the port",
            source,
        })?;
        let directory = DataDirectory::open(&options.data_directory)?;
        let checkpoint_url = options
            .checkpoint_url
            .clone()
            .unwrap_or_else(|| directory.checkpoint_url());
        let snapshots = SnapshotStore::open(&checkpoint_url)
            .map_err(|error| ServerError::Option(format!("--checkpoint-url: {error}")))?;
        let registry = Registry::open(directory.jobs())?;
        let store = open_store(&directory, &options).await?;
        for damage in store.damage() {
            tracing::error!(%damage, "the shard store is damaged; nothing was deleted");
        }

        let time: Arc<dyn TimeSource> = Arc::new(SystemTime::default());
        let spawner = Spawner::start(tokio::runtime::Handle::current()).map_err(|source| ServerError::System {
            action: "start a thread",
            source,
        })?;
        let segments = store.directory().unwrap_or_else(|| directory.store());
        let shared: SharedAccess = Arc::new(store.clone());
        let context = Context {
            registry,
            spawner,
            store: StoreService::new(shared, segments.display().to_string()),
            policy: options.restart,
            data_directory: directory.path().display().to_string(),
            checkpoint_url,
            snapshots: snapshots.clone(),
            checkpoints_retained: options.checkpoints_retained,
            launcher: launcher(&options, directory.logs())?,
            time: Arc::clone(&time),
        };
        let supervisor = Supervisor::start(context)?;
        let kinesis = KinesisApi::new(store.clone());
        let metrics = Arc::new(metrics::Metrics::new(
            supervisor.clone(),
            store.clone(),
            kinesis.clone(),
        ));
        let state = rest::RestState {
            supervisor: supervisor.clone(),
            snapshots,
            job_binaries: options.job_binaries.as_deref().map(canonical).transpose()?,
            metrics: Arc::clone(&metrics),
        };
        let routes = rest::routes(state)
            .merge(aws::routes(kinesis.clone(), Arc::clone(&metrics)))
            .merge(metrics::routes(Arc::clone(&metrics)));
        let guard = guard::Guard {
            any_host: options.insecure_listen_anywhere,
        };
        let routes = guard::protect(routes, guard, metrics);
        let listener = listen::Listener::serve(socket, routes, options.connections_max, tls);
        tracing::info!(%address, data_directory = %directory.path().display(), "listening");
        Ok(Self {
            address,
            supervisor,
            listener,
            kinesis,
            scaling: scale_on_demand(store.clone()),
            store,
            time,
            grace: options.shutdown_grace,
            _directory: directory,
        })
    }

    /// Returns the address that it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for Ctrl-C or SIGTERM and stops the server, its jobs after a final checkpoint. Returns false when a second
    /// signal cut that short.
    ///
    /// # Errors
    /// When the system does not allow to listen for signals.
    pub(crate) async fn run_until_stopped(self) -> Result<bool, ServerError> {
        let mut signals = StopSignals::listen().map_err(|source| ServerError::System {
            action: "listen for signals",
            source,
        })?;
        signals.next().await;
        tracing::info!(
            grace_s = self.grace.as_secs(),
            "stopping all jobs after a final checkpoint; once more ends at once"
        );
        tokio::select! {
            () = self.stop() => Ok(true),
            () = signals.next() => Ok(false),
        }
    }

    /// Stops all jobs after a final checkpoint, within the grace time, then everything else. Jobs run again when the
    /// server is back.
    pub(crate) async fn stop(self) {
        self.supervisor.shut_down(self.time.monotonic() + self.grace).await;
        // They would go on for minutes; their clients look for another server, or for this one when it is back.
        self.kinesis.end_subscriptions();
        self.listener.stop().await;
        drop(self.kinesis);
        self.scaling.abort();
        let _ = self.scaling.await;
        // The last owner waits for the log's writer, which blocks.
        let store = self.store;
        let _ = tokio::task::spawn_blocking(move || drop(store)).await;
        tracing::info!("stopped");
    }
}

/// Splits and merges the shards of on-demand streams with the service's limits.
fn scale_on_demand(store: ShardStore) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(SCALING_INTERVAL).await;
            store.scale_on_demand().await;
        }
    })
}

async fn open_store(directory: &DataDirectory, options: &ServerOptions) -> Result<ShardStore, ServerError> {
    let (path, store) = (directory.store(), options.store.clone());
    let tier = options.store_tier_url.as_deref().map(object_tier::open).transpose();
    let tier = tier.map_err(ServerError::Option)?;
    let opening: JoinHandle<_> = tokio::task::spawn_blocking(move || standalone::open_store(&path, store, tier));
    match opening.await {
        Ok(result) => result.map_err(ServerError::Store),
        Err(error) => Err(ServerError::Store(error.to_string())),
    }
}

fn canonical(path: &Path) -> Result<PathBuf, ServerError> {
    path.canonicalize().map_err(|error| {
        ServerError::Option(format!(
            "--job-binaries {}: {error}; name a directory that exists",
            path.display()
        ))
    })
}

type Launcher = Arc<dyn Fn(&JobDefinition) -> Result<Launch, String> + Send + Sync>;

/// Says how a job's process is started: this executable for SQL, the job's own for a Rust job.
fn launcher(options: &ServerOptions, logs: PathBuf) -> Result<Launcher, ServerError> {
    let this = std::env::current_exe().map_err(|source| ServerError::System {
        action: "find out which program this is",
        source,
    })?;
    let server_pid = i32::try_from(std::process::id()).unwrap_or(0);
    let (log_format, log_level) = (options.log_format, options.log_level.clone());
    let job_binaries = options.job_binaries.as_deref().map(canonical).transpose()?;
    Ok(Arc::new(move |definition| {
        let (program, job_arguments) = match &definition.program {
            Program::Sql(_) => (this.clone(), Vec::new()),
            // Checked again at every start: the server may have been started with another directory since.
            Program::Executable { path, args } => (
                rest::submit::allowed_binary(job_binaries.as_deref(), path)?,
                args.clone(),
            ),
        };
        let worker = WorkerArguments {
            server_pid,
            log_format,
            log_level: log_level.clone(),
            job_arguments,
        };
        let arguments = worker.to_arguments().into_iter().map(OsString::from).collect();
        Ok(Launch {
            program,
            arguments,
            output: logs.join(format!("{}.out", definition.uid)),
        })
    }))
}
