//! One job in the foreground, with everything embedded: shard store, checkpoints, workers.

use crate::data_directory::DataDirectory;
use crate::environment::JobEnvironment;
use crate::jobs::protocol::message::{IntervalWish, Rejection, RestorePoint, StartJob};
use crate::planning::{self, Planner};
use crate::process::{
    EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_REFUSED, StopSignals, fail, say, with_options_as_typed,
};
use crate::{running, settings};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tidemill_checkpoints::{JobUid, RestoreSource};
use tidemill_engine::job::{self, JobEnd, StopMode};
use tidemill_engine::status::{JobPhase, JobStatus};
use tidemill_shards::{ObjectTier, ShardStore, SharedAccess, StoreOptions};

/// The time between two log lines about the job's progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// How a job runs alone.
#[derive(Clone)]
pub(crate) struct Standalone {
    /// The job's name, under which its checkpoints are kept; `None`: as the SQL text says, or else the default.
    pub(crate) name: Option<String>,
    /// The default name.
    pub(crate) name_default: String,
    /// Where streams and checkpoints are kept.
    pub(crate) data_directory: PathBuf,
    /// The number of worker threads; `None`: as the SQL text says, or else one.
    pub(crate) parallelism: Option<usize>,
    /// How often checkpoints are taken.
    pub(crate) checkpoint_interval: IntervalWish,
    /// Where checkpoints are kept; `None` for the data directory.
    pub(crate) checkpoint_url: Option<String>,
    /// Where to start from; `None` for the newest checkpoint.
    pub(crate) restore: Option<String>,
    /// Start although the checkpoint holds state of operators that the job no longer has.
    pub(crate) allow_non_restored_state: bool,
    /// The SQL text of a SQL job.
    pub(crate) sql: Option<String>,
    /// Where SQL errors are said to be: the name of the file.
    pub(crate) source_name: String,
    /// Print the job's last status as JSON on standard output.
    pub(crate) print_json: bool,
    /// The options of the streams' store.
    pub(crate) store: StoreOptions,
    /// Where sealed segments of the log move.
    pub(crate) tier: Option<Arc<dyn ObjectTier>>,
}

impl Standalone {
    /// Makes the default settings of a job.
    pub(crate) fn new(name_default: String, source_name: String) -> Self {
        Self {
            source_name,
            name: None,
            name_default,
            data_directory: PathBuf::from("tidemill-data"),
            parallelism: None,
            checkpoint_interval: IntervalWish::Unsaid,
            checkpoint_url: None,
            restore: None,
            allow_non_restored_state: false,
            sql: None,
            print_json: false,
            store: StoreOptions::default(),
            tier: None,
        }
    }
}

/// Runs a job to its end, or until Ctrl-C or SIGTERM, which stops it after a final checkpoint.
pub(crate) fn run(options: Standalone, planner: Planner, arguments: Vec<String>) -> ExitCode {
    let runtime = match running::io_runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(EXIT_FAILED, format!("cannot start: {error}")),
    };
    let result = runtime.block_on(run_here(options, planner, arguments));
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code),
        Err((code, message)) => fail(code, with_options_as_typed(&message)),
    }
}

async fn run_here(options: Standalone, planner: Planner, arguments: Vec<String>) -> Result<u8, (u8, String)> {
    let failed = |message: String| (EXIT_FAILED, message);
    let refused = |message: String| (EXIT_REFUSED, message);
    let directory = DataDirectory::open(&options.data_directory).map_err(|error| failed(error.to_string()))?;
    let store = open_store(&directory.store(), options.store.clone(), options.tier.clone()).map_err(failed)?;
    let shards: SharedAccess = Arc::new(store.clone());

    let here = std::env::current_dir().map_err(|error| failed(format!("the current directory is gone: {error}")))?;
    let connectors = running::connector_environment(Arc::clone(&shards), &here);
    let environment = JobEnvironment::new(connectors, shards, arguments);
    let planned = planning::plan(planner, options.sql.clone(), environment).await;
    let planned = match planned {
        // The answer to EXPLAIN is what was asked for.
        Err(Rejection {
            explained: Some(text), ..
        }) => {
            print_explain(&text, options.print_json).map_err(failed)?;
            return Ok(EXIT_OK);
        }
        planned => planned.map_err(|rejection| refused(rejection_text(&rejection, &options.source_name)))?,
    };
    let name = options
        .name
        .as_ref()
        .or(planned.said.name.as_ref())
        .unwrap_or(&options.name_default)
        .clone();
    let uid = JobUid::new(name.clone()).map_err(|error| refused(format!("{error}; give it another with --name")))?;
    let start = start_job(&options, &uid, &directory).map_err(refused)?;
    let effective = settings::effective(&start, &planned.said);
    let effective = effective.map_err(|rejection| refused(rejection_text(&rejection, &options.source_name)))?;
    if start.checkpoint_url.starts_with("memory:") {
        tracing::warn!(
            url = start.checkpoint_url,
            "checkpoints are kept in memory and end with this process: the next start begins anew"
        );
    }
    let config = settings::job_config(&start, &effective, &planned).map_err(|error| failed(error.to_string()))?;

    let mut signals = StopSignals::listen().map_err(|error| failed(format!("cannot listen for signals: {error}")))?;
    let runtime = tokio::runtime::Handle::current();
    let handle = job::start(planned.graph, config, &runtime).map_err(|error| failed(error.to_string()))?;
    let mut progress = tokio::time::interval_at(tokio::time::Instant::now() + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
    let mut is_stopping = false;
    let mut told_restore = false;
    let end = {
        let mut wait = std::pin::pin!(handle.wait());
        let mut stopping: Option<Pin<Box<dyn Future<Output = tidemill_engine::Result<()>> + '_>>> = None;
        loop {
            tokio::select! {
                end = &mut wait => break end,
                () = signals.next() => {
                    if std::mem::replace(&mut is_stopping, true) {
                        let text = "ended without a final checkpoint; the next start continues at the one before";
                        return Err((EXIT_INTERRUPTED, text.into()));
                    }
                    tracing::info!("stopping after a final checkpoint; once more ends it at once");
                    stopping = Some(Box::pin(handle.stop(StopMode::Checkpoint)));
                }
                // A stop that fails because the job has ended is told by the job's end.
                _ = async { match &mut stopping { Some(stop) => stop.await, None => std::future::pending().await } } => {
                    stopping = None;
                }
                _ = progress.tick() => {
                    let status = handle.status();
                    if !std::mem::replace(&mut told_restore, true) && let Some(checkpoint) = status.restored_from {
                        tracing::info!(checkpoint, "continued from a checkpoint");
                    }
                    tell_progress(&status);
                }
            }
        }
    };
    let status = handle.status();
    if options.print_json {
        print_status(&name, &status, end.as_ref().err().map(ToString::to_string)).map_err(failed)?;
    }
    let end = end.map_err(|error| failed(error.to_string()))?;
    tell_progress(&status);
    drop(handle);
    // The last owner waits for the log's writer: nothing may be written any more when the directory is given free.
    let _ = tokio::task::spawn_blocking(move || drop(store)).await;
    match end {
        JobEnd::Finished => tracing::info!(job = %name, "finished"),
        JobEnd::Stopped => {
            tracing::info!(job = %name, "stopped after a final checkpoint; the next start continues there")
        }
    }
    Ok(EXIT_OK)
}

/// Opens the shard store in a directory. Blocks for the disk.
///
/// # Errors
/// When it cannot be opened.
pub(crate) fn open_store(
    directory: &Path,
    options: StoreOptions,
    tier: Option<Arc<dyn ObjectTier>>,
) -> Result<ShardStore, String> {
    let opened = match tier {
        Some(tier) => ShardStore::open_with_tier(directory, options, tier),
        None => ShardStore::open(directory, options),
    };
    opened.map_err(|error| error.to_string())
}

fn start_job(options: &Standalone, uid: &JobUid, directory: &DataDirectory) -> Result<StartJob, String> {
    let restore = match options.restore.as_deref() {
        None | Some("latest") => RestorePoint::Latest,
        Some(text) => match RestoreSource::parse(text, uid).map_err(|error| error.to_string())? {
            RestoreSource::Savepoint(job, name) => RestorePoint::Savepoint {
                job: job.to_string(),
                name: name.to_string(),
            },
            RestoreSource::Checkpoint(job, id) => RestorePoint::Checkpoint {
                job: job.to_string(),
                id: id.0,
            },
            RestoreSource::Nothing => RestorePoint::Nothing,
        },
    };
    // Each call of the command is a wish of its own.
    let request = getrandom::u64().map_err(|error| format!("cannot make an id: {error}"))?;
    Ok(StartJob {
        name: uid.to_string(),
        uid: uid.to_string(),
        sql: options.sql.clone(),
        is_submission: false,
        parallelism: options.parallelism,
        checkpoint_url: options
            .checkpoint_url
            .clone()
            .unwrap_or_else(|| directory.checkpoint_url()),
        checkpoint_interval: options.checkpoint_interval,
        checkpoints_retained: 3,
        restore,
        restore_request: format!("{request:016x}"),
        allow_non_restored_state: options.allow_non_restored_state,
        store_directory: String::new(),
        data_directory: String::new(),
    })
}

/// Writes a refusal as compilers do: the place first, then the line with a caret.
pub(crate) fn rejection_text(rejection: &Rejection, source: &str) -> String {
    let mut text = match (rejection.line, rejection.column) {
        (Some(line), Some(column)) => format!("{source}:{line}:{column}: {}", rejection.message),
        _ => format!("{source}: {}", rejection.message),
    };
    for line in rejection.excerpt.iter().flat_map(|excerpt| excerpt.lines()) {
        text.push_str("\n  | ");
        text.push_str(line);
    }
    if let Some(hint) = &rejection.hint {
        text.push_str("\nhint: ");
        text.push_str(hint);
    }
    text
}

fn tell_progress(status: &JobStatus) {
    let of = |kind: &str, pick: fn(&tidemill_engine::metrics::OperatorCounts) -> u64| -> u64 {
        status
            .operators
            .iter()
            .filter(|operator| operator.name.starts_with(kind))
            .map(|operator| pick(&operator.counts))
            .sum()
    };
    let (rows_in, rows_out) = (
        of("source ", |counts| counts.rows_out),
        of("sink ", |counts| counts.rows_in),
    );
    let late: u64 = status.operators.iter().map(|operator| operator.counts.rows_late).sum();
    let checkpoint = status.checkpoints.last().map(|checkpoint| checkpoint.id);
    tracing::info!(phase = ?status.phase, rows_in, rows_out, late, checkpoint, "progress");
}

fn print_explain(text: &str, as_json: bool) -> Result<(), String> {
    if as_json {
        say(json!({ "explain": text }))
    } else {
        say(text.trim_end())
    }
}

fn print_status(name: &str, status: &JobStatus, error: Option<String>) -> Result<(), String> {
    let state = match (status.phase, &error) {
        (_, Some(_)) | (JobPhase::Failed, _) => "failed",
        _ => "ended",
    };
    say(json!({ "name": name, "state": state, "error": error, "status": status }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_place_as_compilers_do() {
        let rejection = Rejection {
            message: "unknown column".into(),
            line: Some(3),
            column: Some(8),
            hint: Some("did you mean page?".into()),
            excerpt: Some("SELECT pge\n       ^".into()),
            explained: None,
        };
        let text = rejection_text(&rejection, "job.sql");
        assert_eq!(
            text,
            "job.sql:3:8: unknown column\n  | SELECT pge\n  |        ^\nhint: did you mean page?"
        );
        assert_eq!(
            rejection_text(
                &Rejection {
                    message: "m".into(),
                    ..Rejection::default()
                },
                "j"
            ),
            "j: m"
        );
    }
}
