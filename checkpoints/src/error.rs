//! What can go wrong, and who must act.
//!
//! Every message names the object, checkpoint or setting that it is about. [`Error::kind`] is what code branches on; the variants
//! are for people and tests.

use crate::{AttemptId, CheckpointId, Generation, JobUid, SavepointName};

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Names who must act on an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The user: a name, URL, option or permission is wrong. Trying again gives the same answer.
    User,
    /// Nobody yet: the store did not answer well; the same call, or a new attempt of the checkpoint, may succeed.
    Retry,
    /// The caller: this attempt is lost to a concurrent step; begin a new attempt.
    Conflict,
    /// This process must end: a newer coordinator owns the job, or the outcome must be taken from the store by a successor.
    Fenced,
    /// An operator: stored data is missing or damaged. Nothing was changed; restore an older checkpoint or a savepoint.
    Corrupt,
    /// The developers: a rule of the protocol was broken by the calling code.
    Internal,
}

/// What went wrong in the snapshot protocol or its store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name is not usable as a part of an object name.
    #[error("{what} {value:?} is not valid: {reason}")]
    InvalidName {
        /// What the name is for, for example `savepoint name`.
        what: &'static str,
        /// The name as given.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A setting cannot be understood.
    #[error("{what} {value:?} is not valid: {reason}")]
    InvalidSetting {
        /// Which setting.
        what: &'static str,
        /// The text as given.
        value: String,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// The URL of the snapshot store cannot be opened.
    #[error("the store {url:?} cannot be used: {reason}")]
    InvalidUrl {
        /// The URL as given, without what may be secret in it.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A server does not know create-if-absent.
    #[error(
        "the store created {object} a second time: it does not know create-if-absent (If-None-Match of S3), so two processes could \
         own a job and overwrite each other's checkpoints; use a store, or a newer version of it, that does"
    )]
    CreatesTwice {
        /// The object, which is a claim of this process.
        object: String,
    },
    /// The object store failed and may work later.
    #[error("object store could not {operation} {object}: {source}; it was tried {tries} times")]
    Store {
        /// The operation, for example `read`.
        operation: &'static str,
        /// The object's name.
        object: String,
        /// How often it was tried.
        tries: u32,
        /// What the store said.
        #[source]
        source: Box<object_store::Error>,
    },
    /// The object store refuses, and will refuse again.
    #[error(
        "object store refuses to {operation} {object}: {source}; check the credentials, the bucket and its permissions"
    )]
    Refused {
        /// The operation, for example `read`.
        operation: &'static str,
        /// The object's name.
        object: String,
        /// What the store said.
        #[source]
        source: Box<object_store::Error>,
    },
    /// Create-if-absent says that the object exists, but it is not there, also after trying again.
    #[error(
        "creating {object} conflicts with a concurrent request: it is reported as existing but cannot be read; try again"
    )]
    CreateConflict {
        /// The object's name.
        object: String,
    },
    /// An object that something refers to is not there.
    #[error("{object} is missing, though {referred_by} refers to it; restore an older checkpoint or a savepoint")]
    MissingObject {
        /// The object's name.
        object: String,
        /// The object that refers to it.
        referred_by: String,
    },
    /// An object does not hold what its writer put there.
    #[error("{object} is damaged: {detail}; restore an older checkpoint or a savepoint")]
    Corrupt {
        /// The object's name.
        object: String,
        /// What does not fit.
        detail: String,
    },
    /// An object has a newer format than this program knows.
    #[error(
        "{object} has format version {found}, this program reads up to {supported}; use the newer program that wrote it"
    )]
    UnsupportedVersion {
        /// The object's name.
        object: String,
        /// The version found.
        found: u32,
        /// The newest version this program reads.
        supported: u32,
    },
    /// The job once had a checkpoint and now there is none.
    #[error(
        "job {job} once had a checkpoint ({evidence}), but {missing} is not in the store; it is not started from nothing: \
         check the checkpoint URL, or name a savepoint to restore, or ask for a start without state"
    )]
    CheckpointMissing {
        /// The job.
        job: JobUid,
        /// The object that proves it.
        evidence: String,
        /// The object that should be there.
        missing: String,
    },
    /// The savepoint or checkpoint to restore does not exist.
    #[error(
        "there is no {object} in the checkpoint store to restore from; list the job's checkpoints and savepoints for what exists"
    )]
    NothingToRestore {
        /// The object's name.
        object: String,
    },
    /// The checkpoint to restore exists, but its state has been collected.
    #[error(
        "the state of {object} has been removed by garbage collection ({missing} is gone); choose a newer checkpoint or a savepoint"
    )]
    Collected {
        /// The manifest's name.
        object: String,
        /// A state object that is not there any more.
        missing: String,
    },
    /// A checkpoint of another job was chosen whose output is not yet published.
    #[error(
        "{object} belongs to another job that has not published its output yet; start that job once more, or restore one of its savepoints"
    )]
    NotPublished {
        /// The manifest's name.
        object: String,
    },
    /// A checkpoint was chosen whose output was never published, and a later one's was.
    #[error(
        "{object} was left behind by a restore before its output was published, and a later checkpoint has published since: \
         its output would be missing; restore a checkpoint that was published, or a savepoint"
    )]
    LeftBehind {
        /// The manifest's name.
        object: String,
    },
    /// A savepoint of this name exists.
    #[error("savepoint {name} of job {job} exists already; choose another name")]
    SavepointExists {
        /// The job.
        job: JobUid,
        /// The name.
        name: SavepointName,
    },
    /// A savepoint is needed by the job's next start.
    #[error(
        "job {job} was restored from savepoint {name} and has no checkpoint since; remove the savepoint after its next checkpoint"
    )]
    SavepointInUse {
        /// The job.
        job: JobUid,
        /// The savepoint.
        name: SavepointName,
    },
    /// A newer coordinator owns the job.
    #[error("job {job} generation {generation} is fenced by {by}; this process must end")]
    Fenced {
        /// The job.
        job: JobUid,
        /// Our generation.
        generation: Generation,
        /// The object that proves it.
        by: String,
    },
    /// Our claim is not in the store any more.
    #[error(
        "{object}, by which this process owns job {job}, is gone: the job's checkpoints were deleted while it runs; \
         stop a job before its checkpoints are deleted, then start it again"
    )]
    ClaimGone {
        /// The job.
        job: JobUid,
        /// The claim's name.
        object: String,
    },
    /// An attempt given up as failed had succeeded after all.
    #[error(
        "checkpoint {checkpoint} was decided by attempt {attempt}, whose answer was lost; this process must end and its successor restores it"
    )]
    DecidedEarlier {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// The attempt whose manifest is in the store.
        attempt: AttemptId,
    },
    /// A message about an attempt that is no longer the current one.
    #[error("attempt {attempt} of checkpoint {checkpoint} (generation {generation}) is over; its state is ignored")]
    StaleAttempt {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// The attempt.
        attempt: AttemptId,
        /// The generation it was begun in.
        generation: Generation,
    },
    /// Too many checkpoints wait to be published.
    #[error("{unpublished} checkpoints wait for their sinks to publish; the next begins when one is through")]
    PublishBacklog {
        /// How many wait.
        unpublished: usize,
    },
    /// The protocol's order was not kept.
    #[error("checkpoint {checkpoint} cannot be {step} now: {reason}")]
    OutOfOrder {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// The step, for example `published`.
        step: &'static str,
        /// What was expected.
        reason: String,
    },
    /// Something is larger than its limit.
    #[error("{what} has {actual} bytes, more than the limit of {limit}")]
    TooLarge {
        /// What it is.
        what: String,
        /// Its size in bytes.
        actual: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A value cannot be encoded.
    #[error("{what} cannot be encoded: {detail}")]
    Encode {
        /// What it is.
        what: String,
        /// Why not.
        detail: String,
    },
    /// A failpoint set by a test fired.
    #[error("failpoint {name} fired (hit {hit})")]
    Failpoint {
        /// Its name.
        name: String,
        /// Which hit it was, from 1.
        hit: u64,
    },
    /// A typed value between our own processes cannot be read.
    #[error(transparent)]
    Codec(#[from] crate::codec::CodecError),
}

impl Error {
    /// Tells who must act.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::InvalidName { .. }
            | Error::InvalidSetting { .. }
            | Error::InvalidUrl { .. }
            | Error::CreatesTwice { .. }
            | Error::Refused { .. }
            | Error::UnsupportedVersion { .. }
            | Error::NothingToRestore { .. }
            | Error::Collected { .. }
            | Error::NotPublished { .. }
            | Error::LeftBehind { .. }
            | Error::SavepointExists { .. }
            | Error::SavepointInUse { .. }
            | Error::TooLarge { .. } => ErrorKind::User,
            Error::Store { .. } | Error::PublishBacklog { .. } | Error::Failpoint { .. } => ErrorKind::Retry,
            Error::CreateConflict { .. } | Error::StaleAttempt { .. } => ErrorKind::Conflict,
            Error::Fenced { .. } | Error::ClaimGone { .. } | Error::DecidedEarlier { .. } => ErrorKind::Fenced,
            Error::MissingObject { .. } | Error::Corrupt { .. } | Error::CheckpointMissing { .. } => ErrorKind::Corrupt,
            Error::Codec(error) => error.kind(),
            Error::OutOfOrder { .. } | Error::Encode { .. } => ErrorKind::Internal,
        }
    }
}
