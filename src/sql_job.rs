//! Runs a SQL text with functions of a program's own.

use crate::planning::Planner;
use crate::rust_job::run_planner;
use std::process::ExitCode;
use tidemill_sql::{PlanOptions, UserFunctions};

/// A text and its functions.
pub(crate) struct SqlProgram {
    pub(crate) text: String,
    functions: UserFunctions,
}

impl SqlProgram {
    /// Returns what to plan the text with.
    pub(crate) fn options(&self) -> PlanOptions {
        PlanOptions {
            functions: self.functions.clone(),
            ..PlanOptions::default()
        }
    }
}

/// Runs a SQL text as the whole of a binary's `main`; its `CREATE FUNCTION ... LANGUAGE RUST` name `functions`.
///
/// The command line is that of [`run_job`](crate::run_job), and so is the exit code; settings of the text (`SET`) count where
/// the command line says nothing. Under a server the binary is a job like any other in Rust.
///
/// ```no_run
/// use std::process::ExitCode;
/// use tidemill::sql::UserFunctions;
///
/// fn main() -> ExitCode {
///     tidemill::run_sql_job("INSERT INTO ...", UserFunctions::new())
/// }
/// ```
pub fn run_sql_job(text: impl Into<String>, functions: UserFunctions) -> ExitCode {
    let text = text.into();
    run_planner(Planner::Program(Box::new(SqlProgram { text, functions })))
}
