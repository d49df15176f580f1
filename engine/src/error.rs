//! What can go wrong in a job, and who must act.

use thiserror::Error;

/// A failure of a job.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum Error {
    /// The job graph is not valid: a mistake in the program that built it.
    #[error("the job graph is not valid: {0}")]
    Graph(String),
    /// An operator failed on its input.
    #[error("operator {operator}: {message}")]
    Operator {
        /// The operator's name and uid.
        operator: String,
        /// What failed and what to do.
        message: String,
    },
    /// A source could not be read.
    #[error("source {table}: {message}")]
    Source {
        /// The table's name.
        table: String,
        /// What failed and what to do.
        message: String,
    },
    /// A sink could not be written.
    #[error("sink {sink}: {message}")]
    Sink {
        /// The sink's name.
        sink: String,
        /// What failed and what to do.
        message: String,
    },
    /// A sink does not publish a checkpoint, whoever asks again: another run has published since, or another content. A user must
    /// choose what to go on from.
    #[error("sink {sink}: {message}")]
    Refused {
        /// The sink's name.
        sink: String,
        /// Why, and what to do.
        message: String,
    },
    /// A checkpoint could not be taken or restored.
    #[error("checkpoint: {0}")]
    Checkpoint(String),
    /// The job's checkpoints were deleted while it runs. A restart would begin from nothing: a user must choose that.
    #[error("checkpoint: {0}")]
    CheckpointsDeleted(String),
    /// A newer generation of the same job has taken over; this one must end without publishing.
    #[error("a newer generation of this job has taken over; this one ends")]
    Fenced,
    /// Code of an operator, a source or a sink panicked.
    #[error("worker {worker} panicked: {message}")]
    Panic {
        /// The worker's index.
        worker: usize,
        /// The panic's message.
        message: String,
    },
    /// A limit of the job was exceeded.
    #[error("limit exceeded: {0}")]
    Limit(String),
    /// A bug in the engine.
    #[error("internal error: {0}; please report it")]
    Internal(String),
}

impl Error {
    /// Makes the error of an operator whose name the adapter fills in.
    pub fn operator(message: impl Into<String>) -> Self {
        Error::Operator {
            operator: String::new(),
            message: message.into(),
        }
    }

    /// Says whether a restart from the newest checkpoint can help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(
            self,
            Error::Graph(_) | Error::Fenced | Error::Refused { .. } | Error::CheckpointsDeleted(_)
        )
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Error::operator(error.to_string())
    }
}

/// The result of an engine call.
pub type Result<T, E = Error> = std::result::Result<T, E>;
