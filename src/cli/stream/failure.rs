//! How a command fails, and what it prints.

use crate::cli::kinesis::KinesisError;
use crate::process::{EXIT_FAILED, EXIT_REFUSED, fail};
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

/// Why a command ends without success.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// What was asked for cannot be.
    #[error("{0}")]
    Refused(String),
    /// It was tried and failed.
    #[error("{0}")]
    Failed(String),
    /// The service refused, or could not be asked.
    #[error(transparent)]
    Kinesis(#[from] KinesisError),
}

impl Failure {
    /// Says why, on standard error, and gives the code to end with.
    pub(super) fn exit(self) -> ExitCode {
        let is_users = match &self {
            Self::Refused(_) => true,
            Self::Failed(_) => false,
            Self::Kinesis(error) => error.is_users(),
        };
        fail(if is_users { EXIT_REFUSED } else { EXIT_FAILED }, self)
    }

    /// Puts words before the message, which say what has been done already.
    pub(super) fn after(self, done: impl std::fmt::Display) -> Self {
        let text = format!("{done}: {self}");
        match self {
            Self::Refused(_) => Self::Refused(text),
            Self::Kinesis(error) if error.is_users() => Self::Refused(text),
            _ => Self::Failed(text),
        }
    }
}

/// Prints the result of a command. That nobody reads it any more is the reader's choice, and no failure.
pub(super) fn print(text: impl std::fmt::Display) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    written(writeln!(out, "{text}").and_then(|()| out.flush())).map(|_| ())
}

/// Whether somebody reads standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// So far.
    Reads,
    /// The pipe is closed.
    Gone,
}

/// Tells a closed pipe from a failure.
pub(super) fn written(result: std::io::Result<()>) -> Result<Reader, Failure> {
    match result {
        Ok(()) => Ok(Reader::Reads),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Failure::Failed(format!("cannot write to standard output: {error}"))),
    }
}

/// Tells something beside the result, on standard error.
pub(super) fn note(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Error;

    #[test]
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is() {
        assert_eq!(written(Err(Error::from(ErrorKind::BrokenPipe))).unwrap(), Reader::Gone);
        let full = written(Err(Error::from(ErrorKind::StorageFull))).unwrap_err();
        assert!(full.to_string().contains("standard output"), "{full}");
    }

    #[test]
    fn what_was_done_stands_in_front_and_the_kind_stays() {
        let failure = Failure::Refused("no".into()).after("the stream exists");
        assert!(matches!(&failure, Failure::Refused(text) if text == "the stream exists: no"));
    }
}
