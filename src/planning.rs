//! From a job's program to its graph, on a thread of its own.
//!
//! The planner recurses as deep as a query nests, so it is given a large stack; what still overflows it ends this process
//! and nothing else, for planning happens in the job's own.

use crate::environment::JobEnvironment;
use crate::jobs::protocol::message::Rejection;
use crate::rust_job::BuildJob;
use std::time::Duration;
use tidemill_engine::graph::JobGraph;

/// The stack of the planner's thread, in bytes. Only what is used of it costs memory.
const PLANNER_STACK_BYTES: usize = 64 * 1024 * 1024;

/// What makes a job's graph.
pub(crate) enum Planner {
    /// The SQL planner.
    #[cfg(feature = "server")]
    Sql,
    /// The job's own code.
    Rust(BuildJob),
}

/// A job that can run.
pub(crate) struct Planned {
    /// The graph.
    pub(crate) graph: JobGraph,
    /// The graph as text.
    pub(crate) explain: String,
    /// A hash that is the same for programs that plan to the same operators.
    pub(crate) plan_hash: String,
    /// What the program itself says of how it wants to run.
    pub(crate) said: Said,
}

/// What a SQL text sets for its job; nothing for a Rust job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// The job's name.
    pub(crate) name: Option<String>,
    /// The number of worker threads.
    pub(crate) parallelism: Option<usize>,
    /// The time between checkpoints.
    pub(crate) checkpoint_interval: Option<Duration>,
}

/// Plans a job; `sql` is its text if it has one.
///
/// # Errors
/// When the program is refused.
pub(crate) async fn plan(
    planner: Planner,
    sql: Option<String>,
    environment: JobEnvironment,
) -> Result<Planned, Rejection> {
    let runtime = tokio::runtime::Handle::current();
    let (reply, answer) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("planner".into())
        .stack_size(PLANNER_STACK_BYTES)
        .spawn(move || {
            let _guard = runtime.enter();
            let _ = reply.send(plan_here(planner, sql, &environment));
        });
    let thread = thread.map_err(|error| reject(format!("cannot start the planner: {error}")))?;
    if let Ok(result) = answer.await {
        return result;
    }
    let message = match thread.join() {
        Err(panic) => panic_text(panic.as_ref()),
        Ok(()) => "it gave no answer".into(),
    };
    Err(reject(format!(
        "the planner failed on this program: {message}; please report it"
    )))
}

fn plan_here(planner: Planner, sql: Option<String>, environment: &JobEnvironment) -> Result<Planned, Rejection> {
    let planned = match (planner, sql) {
        #[cfg(feature = "server")]
        (Planner::Sql, Some(sql)) => plan_sql(&sql, environment)?,
        #[cfg(feature = "server")]
        (Planner::Sql, None) => return Err(reject("this program runs SQL, and was given none".into())),
        (Planner::Rust(build), None) => {
            let graph = build(environment).map_err(|error| reject(error.to_string()))?;
            let explain = graph.explain();
            let plan_hash = format!("{:016x}", tidemill_engine::key::key_hash(explain.as_bytes()));
            Planned {
                graph,
                explain,
                plan_hash,
                said: Said::default(),
            }
        }
        (Planner::Rust(_), Some(_)) => return Err(reject("this program is a job of its own and runs no SQL".into())),
    };
    planned.graph.validate().map_err(|error| reject(error.to_string()))?;
    Ok(planned)
}

#[cfg(feature = "server")]
fn plan_sql(sql: &str, environment: &JobEnvironment) -> Result<Planned, Rejection> {
    let plan = tidemill_sql::plan(sql, environment.connectors(), &tidemill_sql::PlanOptions::default());
    let plan = plan.map_err(|error| Rejection {
        line: error.position.map(|position| in_u32(position.line)),
        column: error.position.map(|position| in_u32(position.column)),
        hint: error.hint.clone(),
        excerpt: error.excerpt.clone(),
        message: error.message,
        explained: None,
    })?;
    match plan {
        tidemill_sql::Plan::Job(job) => {
            for note in &job.notes {
                tracing::warn!("{note}");
            }
            let tidemill_sql::Settings {
                name,
                parallelism,
                checkpoint_interval,
                ..
            } = job.settings;
            let said = Said {
                name,
                parallelism,
                checkpoint_interval,
            };
            Ok(Planned {
                explain: job.graph.explain(),
                graph: job.graph,
                plan_hash: job.plan_hash,
                said,
            })
        }
        tidemill_sql::Plan::Explain(text) => Err(Rejection {
            message: "EXPLAIN, SHOW and DESCRIBE make no job".into(),
            hint: Some("run it with: tidemill run FILE; or leave them out to submit the job".into()),
            explained: Some(text),
            ..Rejection::default()
        }),
    }
}

/// A line or column as it travels: a text with more of them is refused for its length.
#[cfg(feature = "server")]
fn in_u32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(crate) fn reject(message: String) -> Rejection {
    Rejection {
        message,
        ..Rejection::default()
    }
}

/// Returns what a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".into())
}
