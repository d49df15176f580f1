//! Why a stream cannot be read or written, and what a job makes of it.

use tidemill_engine::Error;
use tidemill_shards::{ErrorKind, StoreError};

/// Why a stream cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StreamError {
    /// The shard is not there any more: it has expired, and with it what was not read.
    ShardGone,
    /// The embedded store says so.
    Store(StoreError),
    /// It is not there, not the stream that was meant, or not the one that it was; what to do about it.
    Unfit(String),
    /// Anything else, told in a sentence. A later start may do better.
    Failed(String),
}

impl From<StoreError> for StreamError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl StreamError {
    /// Makes the job's error of a table that is read.
    pub(super) fn of_source(&self, table: &str) -> Error {
        match self {
            // Positions come from this connector, so one does not fit only when the stream is another.
            Self::Store(StoreError::ForeignPosition { stream, .. }) => {
                source_error(table, created_again(stream.as_str())).permanent()
            }
            error => error.with_kind(source_error(table, error.told())),
        }
    }

    /// Makes the job's error of a table that is written.
    pub(super) fn of_sink(&self, sink: &str) -> Error {
        match self {
            Self::Store(StoreError::StaleGeneration { .. }) => Error::Fenced,
            error => error.with_kind(sink_error(sink, error.told())),
        }
    }

    /// Tells it; of a missing stream also how one is made.
    pub(super) fn told(&self) -> String {
        match self {
            Self::ShardGone => "the shard has expired".to_owned(),
            Self::Store(StoreError::StreamNotFound(stream)) => format!(
                "stream {stream} does not exist: correct the option 'stream', or create the stream with \
                 `tidemill stream create {stream} --shards 1` while a server (`tidemill server`) has the data directory"
            ),
            Self::Store(error) => error.to_string(),
            Self::Unfit(message) | Self::Failed(message) => message.clone(),
        }
    }

    /// A restart cannot help when a stream, or what was staged for it, is not there any more; a disk that is full or a
    /// store that is closed may be mended meanwhile.
    fn with_kind(&self, error: Error) -> Error {
        match self {
            Self::ShardGone
            | Self::Unfit(_)
            | Self::Store(
                StoreError::StreamNotFound(_) | StoreError::ShardNotFound { .. } | StoreError::StagedMismatch { .. },
            ) => error.permanent(),
            // Another run has published since, or another content: a user must choose what to go on from.
            Self::Store(store) if store.kind() == ErrorKind::Fenced => error.permanent(),
            Self::Store(_) | Self::Failed(_) => error,
        }
    }
}

/// Says that a stream is another than the one that the job has read under its name, and what to do.
pub(super) fn created_again(stream: &str) -> String {
    format!(
        "stream {stream} was deleted and created again since the job began to read it, so the job's place in it and its \
         state belong to records that are gone: submit the job under another name to read the new stream, or start this one \
         with the restore point \"nothing\", which gives up its state"
    )
}

/// Says that a stream is another than the one that the job has written under its name, and what to do.
pub(super) fn created_again_meanwhile(stream: &str) -> StreamError {
    StreamError::Unfit(format!(
        "stream {stream} was deleted and created again while the job wrote to it, so what it wrote before is gone: start the \
         job again to go on with the new stream, or with the restore point \"nothing\" to write everything anew"
    ))
}

/// Makes the error of a source.
pub(super) fn source_error(table: &str, message: impl std::fmt::Display) -> Error {
    Error::Source {
        table: table.to_owned(),
        message: message.to_string(),
    }
}

/// Makes the error of a sink.
pub(super) fn sink_error(sink: &str, message: impl std::fmt::Display) -> Error {
    Error::Sink {
        sink: sink.to_owned(),
        message: message.to_string(),
    }
}
