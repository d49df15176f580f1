//! What a checkpoint says: [`Manifest`], and the [`Snapshot`] in it that the engine fills in.
//!
//! A manifest is JSON in an envelope with a format version and a checksum (see [`crate::names`] for where it lies). Creating
//! it is the decision that its checkpoint exists; it is never changed afterwards.

use crate::envelope::{self, Kind};
use crate::limits::MANIFEST_BYTES_MAX;
use crate::names::{self, Parsed};
use crate::{
    AttemptId, CheckpointId, Error, Generation, JobUid, KeyGroupRange, Lineage, Nonce, OperatorUid, Result,
    SavepointName,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
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
    /// The lineage that its number belongs to.
    #[serde(default)]
    pub lineage: Lineage,
    /// The attempt that succeeded.
    pub attempt: AttemptId,
    /// What it continues from; none for the start of the job.
    pub parent: Option<Parent>,
    /// The job's savepoints up to here, this one included: what garbage collection must not touch.
    pub savepoints: BTreeMap<SavepointName, CheckpointId>,
    /// The engine's part.
    pub snapshot: Snapshot,
}

impl Manifest {
    /// Reads and verifies the manifest in the object of this name.
    pub(crate) fn read(object: &str, bytes: &[u8]) -> Result<Self> {
        let manifest: Self = envelope::unwrap(Kind::Manifest, object, bytes)?;
        match manifest.find_fault(object) {
            None => Ok(manifest),
            Some(detail) => Err(Error::Corrupt {
                object: object.to_owned(),
                detail,
            }),
        }
    }

    /// Writes the manifest for the object of this name.
    pub(crate) fn write(&self, object: &str) -> Result<Bytes> {
        if let Some(detail) = self.find_fault(object) {
            return Err(Error::Encode {
                what: object.to_owned(),
                detail,
            });
        }
        let bytes = envelope::wrap(Kind::Manifest, object, self)?;
        let (actual, limit) = (bytes.len() as u64, MANIFEST_BYTES_MAX);
        if actual > limit {
            return Err(Error::TooLarge {
                what: object.to_owned(),
                actual,
                limit,
            });
        }
        Ok(bytes.into())
    }

    /// Says what is wrong with a manifest that is well-formed JSON: it lies under another's name, or refers to what cannot be.
    fn find_fault(&self, object: &str) -> Option<String> {
        let fits = match names::parse(&self.job, object) {
            Some(Parsed::Checkpoint(checkpoint)) => checkpoint == self.checkpoint,
            Some(Parsed::Savepoint(_)) => true,
            _ => false,
        };
        if !fits {
            return Some(format!(
                "it is checkpoint {} of job {}, under another's name",
                self.checkpoint, self.job
            ));
        }
        self.snapshot.state.iter().find_map(|state| {
            let owner = state.object.split('/').next().and_then(|owner| JobUid::new(owner).ok());
            let parsed = owner.and_then(|owner| names::parse(&owner, &state.object));
            if !matches!(parsed, Some(Parsed::State { .. })) {
                return Some(format!("it refers to {:?}, which is no state object", state.object));
            }
            let is_outside = |section: &SectionRef| {
                section
                    .offset
                    .checked_add(section.length)
                    .is_none_or(|end| end > state.length)
                    || section.key_groups.is_some_and(|groups| groups.first > groups.last)
            };
            let outside = state.sections.iter().find(|section| is_outside(section))?;
            Some(format!(
                "section {} of operator {} is not in {}",
                outside.name, outside.operator, state.object
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{job, manifest};
    use crate::{CheckpointId, KeyGroup};
    use proptest::prelude::*;

    fn full() -> Manifest {
        let mut full = manifest(7);
        full.parent = Some(Parent::Object("other/savepoint/s.json".into()));
        full.savepoints
            .insert(SavepointName::new("s").unwrap(), CheckpointId(7));
        let snapshot = &mut full.snapshot;
        snapshot.kind = SnapshotKind::Savepoint(SavepointName::new("s").unwrap());
        snapshot.state.push(StateRef {
            object: "j/state/1/7/1/0".into(),
            length: 100,
            crc32c: 7,
            sections: vec![SectionRef {
                operator: "op".into(),
                name: "rows".into(),
                key_groups: Some(KeyGroupRange::new(KeyGroup(0), KeyGroup(127))),
                offset: 16,
                length: 84,
                crc32c: 8,
            }],
        });
        let position = SplitPosition {
            position: "49\u{1F30A}".into(),
            watermark_ms: Some(-5),
            ended: true,
        };
        snapshot
            .sources
            .entry("clicks".into())
            .or_default()
            .insert("shard-0".into(), position);
        snapshot.watermarks.insert("clicks".into(), Some(i64::MAX));
        snapshot.watermarks.insert("idle".into(), None);
        snapshot
            .committables
            .insert("sink".into(), vec![Committable(vec![0, 255]), Committable(vec![])]);
        snapshot.operators.insert("op".into());
        full
    }

    const OBJECT: &str = "j/checkpoint/7.json";

    #[test]
    fn a_manifest_is_written_as_documented_and_read_back() {
        let fixture = concat!(
            r#""body":{"job":"j","checkpoint":7,"generation":1,"nonce":"01010101010101010101010101010101","#,
            r#""lineage":"02020202020202020202020202020202","attempt":1,"#,
            r#""parent":{"object":"other/savepoint/s.json"},"savepoints":{"s":7},"snapshot":{"kind":{"savepoint":"s"},"tick":70,"#,
            r#""created_ms":0,"wall_time_ms":0,"state":[{"object":"j/state/1/7/1/0","length":100,"crc32c":7,"sections":["#,
            r#"{"operator":"op","name":"rows","key_groups":{"first":0,"last":127},"offset":16,"length":84,"crc32c":8}]}],"#,
            r#""sources":{"clicks":{"shard-0":{"position":"49"#,
            "\u{1F30A}",
            r#"","watermark_ms":-5,"ended":true}}},"#,
            r#""watermarks":{"clicks":9223372036854775807,"idle":null},"committables":{"sink":["AP8=",""]},"plan_hash":"plan","#,
            r#""operators":["op"],"key_group_count":256,"parallelism":1}}}"#,
        );
        let bytes = full().write(OBJECT).unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        assert!(
            text.starts_with(r#"{"tidemill":"manifest","format":1,"crc32c":""#),
            "{text}"
        );
        assert!(text.trim_end().ends_with(fixture), "{text}");
        assert_eq!(Manifest::read(OBJECT, &bytes).unwrap(), full());
    }

    #[test]
    fn a_manifest_that_does_not_fit_is_refused_when_written_and_when_read() {
        let breaks: [(&str, fn(&mut Manifest)); 5] = [
            ("under another's name", |manifest| manifest.checkpoint = CheckpointId(8)),
            ("under another's name", |manifest| {
                manifest.job = JobUid::new("k").unwrap()
            }),
            ("no state object", |manifest| {
                manifest.snapshot.state[0].object = "j/state/../../x".into()
            }),
            ("no state object", |manifest| {
                manifest.snapshot.state[0].object = "j/gen/1.json".into()
            }),
            ("is not in", |manifest| {
                manifest.snapshot.state[0].sections[0].length = u64::MAX
            }),
        ];
        for (told, change) in breaks {
            let mut broken = full();
            change(&mut broken);
            let error = broken.write(OBJECT).unwrap_err();
            assert!(error.to_string().contains(told), "{error}");
            let bytes = envelope::wrap(Kind::Manifest, OBJECT, &broken).unwrap();
            let error = Manifest::read(OBJECT, &bytes).unwrap_err();
            assert!(
                error.to_string().contains(told) && error.to_string().contains(OBJECT),
                "{error}"
            );
        }
        let savepoint = names::savepoint(&job(), &SavepointName::new("x").unwrap());
        assert_eq!(
            Manifest::read(&savepoint, &full().write(&savepoint).unwrap()).unwrap(),
            full()
        );
    }

    proptest! {
        #[test]
        fn every_flipped_bit_is_found(at in 0usize..10_000, bit in 0u8..8) {
            let mut bytes = full().write(OBJECT).unwrap().to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(Manifest::read(OBJECT, &bytes).is_err());
        }
    }
}
