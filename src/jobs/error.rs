//! Why a request about a job is refused.

use super::protocol::message::Rejection;
use super::registry::RegistryError;

/// A refusal. Each variant is one problem type of the REST API.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    /// The request is not valid.
    #[error("{0}")]
    Invalid(String),
    /// The job's program is refused.
    #[error("{}", .0.message)]
    Rejected(Rejection),
    /// The job's program could not be planned: its process died or took too long.
    #[error("{message}")]
    PlanningFailed {
        /// What happened.
        message: String,
        /// The last lines of the process's standard error.
        stderr: Vec<String>,
    },
    /// There is no such job.
    #[error("there is no job {0:?}; GET /v1/jobs lists them")]
    NotFound(String),
    /// The name is taken.
    #[error("the name {0:?} belongs to another job; choose another name, or stop and delete that job first")]
    NameTaken(String),
    /// The job is in a state in which this cannot be done.
    #[error("{0}")]
    Conflict(String),
    /// It was tried and failed.
    #[error("{0}")]
    Failed(String),
    /// The server is going down.
    #[error("the server is shutting down; ask again when it is back")]
    ShuttingDown,
    /// There are too many jobs.
    #[error("this server runs {0} jobs, its limit; delete one, or start another server")]
    TooMany(usize),
    /// The disk failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}
