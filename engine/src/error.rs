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
    /// A checkpoint could not be taken or restored.
    #[error("checkpoint: {0}")]
    Checkpoint(String),
    /// A failure that would repeat at every start, because something that the user named is not there or cannot be.
    #[error("{0}")]
    Permanent(Box<Error>),
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

    /// Says that a restart cannot help: the user must act first. Not for what may be over soon, such as a store that does
    /// not answer.
    ///
    /// # Examples
    /// ```
    /// use tidemill_engine::Error;
    /// let error = Error::Source { table: "clicks".into(), message: "stream clicks does not exist".into() };
    /// assert!(error.is_retryable());
    /// let permanent = error.permanent();
    /// assert!(!permanent.is_retryable());
    /// assert_eq!(permanent.to_string(), "source clicks: stream clicks does not exist");
    /// ```
    #[must_use]
    pub fn permanent(self) -> Self {
        if self.is_retryable() {
            Error::Permanent(Box::new(self))
        } else {
            self
        }
    }

    /// Says whether a restart from the newest checkpoint can help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Error::Graph(_) | Error::Fenced | Error::Permanent(_))
    }

    /// Makes the job's error of one of the checkpoint store's.
    pub(crate) fn of_checkpoints(error: &tidemill_checkpoints::Error) -> Self {
        use tidemill_checkpoints::{Error as Of, ErrorKind};
        let ours = Error::Checkpoint(error.to_string());
        match (error.kind(), error) {
            (_, Of::Fenced { .. }) => Error::Fenced,
            // A restart would begin from nothing: a user must choose that.
            (_, Of::ClaimGone { .. }) => ours.permanent(),
            // Permissions are often mended without the job, and some stores answer so while they are in trouble.
            (_, Of::Refused { .. } | Of::InvalidUrl { .. }) => ours,
            // Nothing that starting again could change: an object that is missing, damaged, or of a newer format.
            (ErrorKind::User | ErrorKind::Corrupt, _) => ours.permanent(),
            _ => ours,
        }
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Error::operator(error.to_string())
    }
}

/// The result of an engine call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_checkpoints::{Error as Of, Generation, JobUid};

    #[test]
    fn what_the_user_must_mend_is_permanent_and_what_may_be_over_soon_is_not() {
        let object = || "job-1/checkpoint/7".to_owned();
        let permanent = [
            Of::NothingToRestore { object: object() },
            Of::Collected {
                object: object(),
                missing: object(),
            },
            Of::Corrupt {
                object: object(),
                detail: "short".into(),
            },
            Of::MissingObject {
                object: object(),
                referred_by: object(),
            },
        ];
        for error in permanent {
            let ours = Error::of_checkpoints(&error);
            assert!(!ours.is_retryable(), "{ours:?}");
            assert_eq!(ours.to_string(), format!("checkpoint: {error}"));
        }
        let transient = [
            Of::CreateConflict { object: object() },
            Of::InvalidUrl {
                url: "file:///mnt/x".into(),
                reason: "the directory cannot be used".into(),
            },
            Of::PublishBacklog { unpublished: 3 },
            Of::Failpoint {
                name: "x".into(),
                hit: 1,
            },
        ];
        for error in transient {
            assert!(Error::of_checkpoints(&error).is_retryable(), "{error}");
        }
        let gone = Of::ClaimGone {
            job: JobUid::new("job-1").unwrap(),
            object: object(),
        };
        assert!(!Error::of_checkpoints(&gone).is_retryable());
        let fenced = Of::Fenced {
            job: JobUid::new("job-1").unwrap(),
            generation: Generation(1),
            by: object(),
        };
        assert!(matches!(Error::of_checkpoints(&fenced), Error::Fenced));
    }
}
