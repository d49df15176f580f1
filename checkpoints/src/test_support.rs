//! What several unit tests begin with.

use crate::{AttemptId, CheckpointId, Generation, JobUid, Lineage, Manifest, Nonce, Snapshot, SnapshotKind};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn job() -> JobUid {
    JobUid::new("j").unwrap()
}

/// A snapshot without state.
pub(crate) fn snapshot(tick: u64) -> Snapshot {
    Snapshot {
        kind: SnapshotKind::Periodic,
        tick,
        created_ms: 0,
        wall_time_ms: 0,
        state: Vec::new(),
        sources: BTreeMap::new(),
        watermarks: BTreeMap::new(),
        committables: BTreeMap::new(),
        plan_hash: "plan".into(),
        operators: BTreeSet::new(),
        key_group_count: 256,
        parallelism: 1,
    }
}

/// A manifest without state.
pub(crate) fn manifest(checkpoint: u64) -> Manifest {
    Manifest {
        job: job(),
        checkpoint: CheckpointId(checkpoint),
        generation: Generation(1),
        nonce: Nonce::from_bytes([1; 16]),
        lineage: Lineage::begun_by(Nonce::from_bytes([2; 16])),
        attempt: AttemptId(1),
        parent: None,
        savepoints: BTreeMap::new(),
        snapshot: snapshot(checkpoint * 10),
    }
}
