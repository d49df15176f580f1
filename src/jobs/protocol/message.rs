//! The messages between server and job process, except those about shards.

use super::store::{StoreCall, StoreEvent, StoreReply};
use serde::{Deserialize, Serialize};
use tidemill_checkpoints::codec::Schema;
use tidemill_engine::status::JobStatus;

/// The version of everything in this module and in [`super::store`]; raise it with every change of a message.
pub(crate) const PROTOCOL_VERSION: u16 = 3;

/// The first frame of a job process. Its shape never changes.
pub(crate) const HELLO: Schema = Schema::new(*b"HELO", 1);
/// Frames from the server.
pub(crate) const TO_WORKER: Schema = Schema::new(*b"TOWK", PROTOCOL_VERSION);
/// Frames from the job process.
pub(crate) const TO_SERVER: Schema = Schema::new(*b"TOSV", PROTOCOL_VERSION);

/// Pairs a request with its reply; chosen by the side that asks, unique among its requests in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct RequestId(pub(crate) u64);

/// Who the job process is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The [`PROTOCOL_VERSION`] it was built with.
    pub(crate) protocol: u16,
    /// The version of the library it was built with, for messages.
    pub(crate) library: String,
}

impl Hello {
    /// Describes this program.
    pub(crate) fn of_this_program() -> Self {
        Self {
            protocol: PROTOCOL_VERSION,
            library: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Checks that the other program speaks this one's protocol.
    ///
    /// # Errors
    /// Says which version it has and what to do.
    #[cfg(feature = "server")]
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.protocol == PROTOCOL_VERSION {
            return Ok(());
        }
        Err(format!(
            "the job's program was built with tidemill {} (protocol {}), and this server is {} (protocol {}); build the \
             job against the server's version",
            self.library,
            self.protocol,
            env!("CARGO_PKG_VERSION"),
            PROTOCOL_VERSION
        ))
    }
}

/// What to start from; [`tidemill_checkpoints::RestoreFrom`] in a form that travels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RestorePoint {
    /// The newest checkpoint of the job, or nothing if it never had one.
    #[default]
    Latest,
    /// A savepoint of a job.
    Savepoint {
        /// The uid of the job that took it.
        job: String,
        /// Its name.
        name: String,
    },
    /// A checkpoint of a job.
    Checkpoint {
        /// The uid of the job that took it.
        job: String,
        /// Its number.
        id: u64,
    },
    /// No state at all, though the job may have checkpoints.
    Nothing,
}

/// How often checkpoints are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum IntervalWish {
    /// As the SQL text says, or else by default.
    #[default]
    Unsaid,
    /// Only savepoints and the final one.
    Never,
    /// This many milliseconds apart.
    EveryMs(u64),
}

/// What a job process is to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StartJob {
    /// The job's name.
    pub(crate) name: String,
    /// The job's stable identity.
    pub(crate) uid: String,
    /// The SQL text; `None` for a Rust job, which brings its own graph.
    pub(crate) sql: Option<String>,
    /// Whether somebody waits for the answer to its submission: then what its tables name must be there.
    pub(crate) is_submission: bool,
    /// The number of worker threads; `None`: as the SQL text says, or else one.
    pub(crate) parallelism: Option<usize>,
    /// Where checkpoints are kept.
    pub(crate) checkpoint_url: String,
    /// How often checkpoints are taken.
    pub(crate) checkpoint_interval: IntervalWish,
    /// Checkpoints kept.
    pub(crate) checkpoints_retained: usize,
    /// What to start from, unless the job has a checkpoint since the wish.
    pub(crate) restore: RestorePoint,
    /// Tells this wish from a later, equal one; empty for [`RestorePoint::Latest`].
    pub(crate) restore_request: String,
    /// Start although the checkpoint holds state of operators that the job no longer has.
    pub(crate) allow_non_restored_state: bool,
    /// Where the server's segments lie, to be read directly.
    pub(crate) store_directory: String,
    /// Against which relative paths of tables are resolved.
    pub(crate) data_directory: String,
}

/// How to stop; [`tidemill_engine::job::StopMode`] in a form that travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StopRequest {
    /// After a last checkpoint.
    Checkpoint,
    /// After a savepoint of this name.
    Savepoint(String),
    /// At once.
    Now,
}

/// What the server asks a running job for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WorkerCall {
    /// Take a checkpoint now.
    Checkpoint,
    /// Take a savepoint of this name.
    Savepoint(String),
}

/// Why a program is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rejection {
    /// What is wrong.
    pub(crate) message: String,
    /// The line in the SQL text, from 1.
    pub(crate) line: Option<u32>,
    /// The column in the line, from 1.
    pub(crate) column: Option<u32>,
    /// What to do.
    pub(crate) hint: Option<String>,
    /// The line of the SQL text and, below it, a caret under the place.
    pub(crate) excerpt: Option<String>,
    /// The plan, when the text is an `EXPLAIN`.
    pub(crate) explained: Option<String>,
}

/// What a job is going to run as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlannedJob {
    /// Its graph as text.
    pub(crate) explain: String,
    /// The number of worker threads.
    pub(crate) parallelism: usize,
    /// The time between checkpoints in milliseconds; `None`: only savepoints and the final one.
    pub(crate) checkpoint_interval_ms: Option<u64>,
}

/// How a job process's job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ended {
    /// All its tables have ended and everything is published.
    Finished,
    /// It was stopped, as asked.
    Stopped,
    /// It failed.
    Failed {
        /// Why.
        message: String,
        /// Whether a restart from the newest checkpoint can help.
        retryable: bool,
    },
}

/// A job's status on the wire: JSON within the frame, because its types are made for JSON (flattened structs have no
/// length in advance, which bincode asks for).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireStatus(Vec<u8>);

impl WireStatus {
    /// Encodes a status.
    ///
    /// # Errors
    /// Never, but for a bug in the status's types.
    pub(crate) fn encode(status: &JobStatus) -> Result<Self, serde_json::Error> {
        serde_json::to_vec(status).map(Self)
    }

    /// Decodes a status.
    ///
    /// # Errors
    /// When the bytes are not a status.
    #[cfg(feature = "server")]
    pub(crate) fn decode(&self) -> Result<JobStatus, serde_json::Error> {
        serde_json::from_slice(&self.0)
    }
}

/// What the server says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// Plan this job; answered by `Planned` or `Rejected`.
    Start(Box<StartJob>),
    /// Run what was planned.
    Run,
    /// Do something while running; answered by `CallReply`.
    Call(RequestId, WorkerCall),
    /// Stop; answered by `Ended`, or by `StopRefused`.
    Stop(StopRequest),
    /// The answer to a store call.
    StoreReply(RequestId, Box<StoreReply>),
    /// News of the store.
    StoreEvent(StoreEvent),
}

/// What the job process says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ToServer {
    /// The job can run.
    Planned(PlannedJob),
    /// The job cannot run.
    Rejected(Rejection),
    /// What the job does; also the heartbeat.
    Status(WireStatus),
    /// The answer to a call: the number of the checkpoint, or why there is none.
    CallReply(RequestId, Result<u64, String>),
    /// The job could not be stopped as asked, for this reason, and goes on.
    StopRefused(String),
    /// A call to the store; answered by `StoreReply`.
    Store(RequestId, StoreCall),
    /// The job has ended; the last frame.
    Ended(Ended),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::protocol::frame;
    #[cfg(feature = "server")]
    use tidemill_engine::metrics::OperatorCounts;
    #[cfg(feature = "server")]
    use tidemill_engine::status::{JobPhase, OperatorStatus};

    #[cfg(feature = "server")]
    #[tokio::test]
    async fn a_status_survives_the_wire() {
        let counts = OperatorCounts {
            rows_in: u64::MAX,
            ..OperatorCounts::default()
        };
        let operator = OperatorStatus {
            uid: "u".into(),
            name: "sink a".into(),
            counts,
            watermark_ms: Some(-1),
            watermark_lag_ms: None,
        };
        let status = JobStatus {
            phase: JobPhase::Running,
            operators: vec![operator],
            ..JobStatus::default()
        };
        let sent = ToServer::Status(WireStatus::encode(&status).unwrap());
        let bytes = frame::encode(TO_SERVER, &sent).unwrap();
        let ToServer::Status(received) = frame::read(&mut bytes.as_slice(), TO_SERVER).await.unwrap() else {
            panic!("not a status");
        };
        assert_eq!(received.decode().unwrap(), status);
    }

    #[cfg(feature = "server")]
    #[test]
    fn another_protocol_is_refused_with_what_to_do() {
        assert!(Hello::of_this_program().check().is_ok());
        let other = Hello {
            protocol: PROTOCOL_VERSION + 1,
            library: "9.9.9".into(),
        };
        let message = other.check().unwrap_err();
        assert!(
            message.contains("9.9.9") && message.contains("build the job against"),
            "{message}"
        );
    }

    #[tokio::test]
    async fn random_bytes_behind_a_header_are_an_error_and_never_a_panic() {
        let mut seed = 1u64;
        for _ in 0..2000 {
            let mut payload = Vec::new();
            for _ in 0..(seed % 64) {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                payload.push((seed >> 56) as u8);
            }
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut bytes = frame::encode(TO_WORKER, &payload).unwrap();
            let _ = frame::read::<ToWorker>(&mut bytes.as_slice(), TO_WORKER).await;
            bytes.truncate(bytes.len() / 2);
            assert!(frame::read::<ToWorker>(&mut bytes.as_slice(), TO_WORKER).await.is_err());
        }
    }
}
