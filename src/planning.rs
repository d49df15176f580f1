//! From a job's program to its graph, on a thread of its own.
//!
//! The planner recurses as deep as a query nests, so it is given a large stack; what still overflows it ends this process
//! and nothing else, for planning happens in the job's own.

use crate::environment::JobEnvironment;
use crate::jobs::protocol::message::Rejection;
use crate::rust_job::BuildJob;
use tidemill_engine::graph::JobGraph;

/// The stack of the planner's thread, in bytes. Only what is used of it costs memory.
const PLANNER_STACK_BYTES: usize = 64 * 1024 * 1024;

/// What makes a job's graph.
pub(crate) enum Planner {
    /// The SQL planner.
    #[cfg(feature = "sql")]
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
    let thread = std::thread::Builder::new().name("planner".into()).stack_size(PLANNER_STACK_BYTES).spawn(move || {
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
    Err(reject(format!("the planner failed on this program: {message}; please report it")))
}

fn plan_here(planner: Planner, sql: Option<String>, environment: &JobEnvironment) -> Result<Planned, Rejection> {
    let graph = match (planner, sql) {
        #[cfg(feature = "sql")]
        (Planner::Sql, Some(sql)) => plan_sql(&sql, environment)?,
        #[cfg(feature = "sql")]
        (Planner::Sql, None) => return Err(reject("this program runs SQL, and was given none".into())),
        (Planner::Rust(build), None) => build(environment).map_err(|error| reject(error.to_string()))?,
        (Planner::Rust(_), Some(_)) => return Err(reject("this program is a job of its own and runs no SQL".into())),
    };
    graph.validate().map_err(|error| reject(error.to_string()))?;
    let explain = graph.explain();
    Ok(Planned { graph, explain })
}

#[cfg(feature = "sql")]
fn plan_sql(sql: &str, environment: &JobEnvironment) -> Result<JobGraph, Rejection> {
    let plan = tidemill_sql::plan(sql, environment.connectors(), &tidemill_sql::PlanOptions::default());
    let plan = plan.map_err(|error| Rejection {
        line: error.position.map(|position| position.line),
        column: error.position.map(|position| position.column),
        hint: error.hint.clone(),
        excerpt: error.excerpt.clone(),
        message: error.message,
    })?;
    Ok(plan.graph)
}

fn reject(message: String) -> Rejection {
    Rejection { message, ..Rejection::default() }
}

/// Returns what a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".into())
}
