//! What a checkpoint says: [`Manifest`], and the [`Snapshot`] in it that the engine fills in.
//!
//! A manifest is JSON in an envelope with a format version and a checksum (see [`crate::names`] for where it lies). Creating
//! it is the decision that its checkpoint exists; it is never changed afterwards.

use crate::{AttemptId, CheckpointId, Generation, JobUid, KeyGroupRange, Nonce, OperatorUid, SavepointName};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};

/// Why a checkpoint was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotKind {
    /// The interval was over.
    Periodic,
    /// A user asked for a savepoint of this name. It appears under the name when the checkpoint has been published.
    Savepoint(SavepointName),
    /// The job ends here: all its input is read, or it was told to stop.
    Final,
}

/// A checkpoint as the engine hands it over for the decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Why it was taken.
    pub kind: SnapshotKind,
    /// The tick that the state is the result of: everything up to and including it, nothing after it.
    pub tick: u64,
    /// When it was taken, in milliseconds since 1970.
    pub created_ms: i64,
    /// The last wall-clock time that a tick was given, in milliseconds since 1970. A restored clock starts behind it.
    pub wall_time_ms: i64,
    /// Where the state lies. Also names objects of earlier checkpoints of the job, when their content still holds.
    pub state: Vec<StateRef>,
    /// Table -> split -> position.
    pub sources: BTreeMap<String, BTreeMap<String, SplitPosition>>,
    /// Table -> watermark in milliseconds; none while no row has told one. Never behind the one of the parent.
    pub watermarks: BTreeMap<String, Option<i64>>,
    /// Sink uid -> what the sink's workers pre-committed, in the sink's own encoding.
    pub committables: BTreeMap<OperatorUid, Vec<Committable>>,
    /// A hash of the plan that wrote the state.
    pub plan_hash: String,
    /// The uids of all stateful operators, also of those with nothing to remember yet.
    pub operators: BTreeSet<OperatorUid>,
    /// Into how many key groups keys are hashed; fixed when the job is created.
    pub key_group_count: u16,
    /// How many workers wrote the state.
    pub parallelism: u32,
}

/// What a sink needs to publish its output of one checkpoint: opaque bytes, base64 in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Committable(pub Vec<u8>);

impl Serialize for Committable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Committable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// How far a source has read one of its splits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitPosition {
    /// The position in the source's own words, for example a sequence number.
    pub position: String,
    /// The split's watermark in milliseconds, if a row has told one.
    pub watermark_ms: Option<i64>,
    /// Whether the split has been read to its end.
    pub ended: bool,
}

/// Refers to one state object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRef {
    /// The full name of the object, with its job's uid.
    pub object: String,
    /// Its length in bytes.
    pub length: u64,
    /// The CRC-32C of the whole object.
    pub crc32c: u32,
    /// The sections in use. The object may hold others that are not.
    pub sections: Vec<SectionRef>,
}

/// Refers to one section of a state object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectionRef {
    /// The operator that owns it.
    pub operator: OperatorUid,
    /// The operator's name for it.
    pub name: String,
    /// The key groups in it; none for state that belongs to no key.
    pub key_groups: Option<KeyGroupRange>,
    /// Where its content begins in the object.
    pub offset: u64,
    /// The length of its content in bytes.
    pub length: u64,
    /// The CRC-32C of its content.
    pub crc32c: u32,
}

/// Where a checkpoint continues from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parent {
    /// An earlier checkpoint of the same job.
    Checkpoint(CheckpointId),
    /// A savepoint, or a checkpoint of another job: the full object name. All its output is published.
    Object(String),
}

/// A checkpoint as it lies in the store: a [`Snapshot`] with what the coordinator adds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The job.
    pub job: JobUid,
    /// Which checkpoint of the job.
    pub checkpoint: CheckpointId,
    /// The generation of the coordinator that decided it.
    pub generation: Generation,
    /// The nonce of the coordinator that decided it.
    pub nonce: Nonce,
    /// The attempt that succeeded.
    pub attempt: AttemptId,
    /// What it continues from; none for the start of the job.
    pub parent: Option<Parent>,
    /// The job's savepoints up to here, this one included: what garbage collection must not touch.
    pub savepoints: BTreeMap<SavepointName, CheckpointId>,
    /// The engine's part.
    pub snapshot: Snapshot,
}
