//! Signatures first; bodies follow in the next commits.

use crate::{KeyGroupRange, Manifest, OperatorUid, Result, SectionRef, SnapshotStore};
use bytes::Bytes;

/// Builds the state object of one worker.
#[derive(Debug, Default)]
pub struct StateWriter {}

/// A finished state object, ready for upload.
#[derive(Clone, Debug)]
pub struct StateObject {
    /// The whole object.
    pub bytes: Bytes,
    /// Its sections, in order.
    pub sections: Vec<SectionRef>,
    /// The CRC-32C of the whole object.
    pub crc32c: u32,
}

impl StateWriter {
    /// Starts an empty object.
    pub fn new() -> Self {
        todo!()
    }
    /// Appends a section. `key_groups` is none for state that belongs to no key.
    pub fn append(
        &mut self,
        operator: &OperatorUid,
        name: &str,
        key_groups: Option<KeyGroupRange>,
        content: &[u8],
    ) -> Result<()> {
        let _ = (operator, name, key_groups, content);
        todo!()
    }
    /// Ends the object.
    pub fn finish(self) -> StateObject {
        todo!()
    }
}

/// One section of an operator's state, read and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The operator's name for it.
    pub name: String,
    /// The key groups in it; may reach beyond what was asked for. None for state that belongs to no key.
    pub key_groups: Option<KeyGroupRange>,
    /// The content.
    pub content: Bytes,
}

/// Reads the state that a manifest refers to. Cloning is cheap; clones share the cache.
#[derive(Clone, Debug)]
pub struct StateReader {}

impl StateReader {
    /// Makes a reader of the manifest's state.
    pub fn new(store: SnapshotStore, manifest: &Manifest) -> Self {
        let _ = (store, manifest);
        todo!()
    }
    /// Reads the sections of an operator with a key group in the range, and all its sections that belong to no key, in the order of
    /// the workers that wrote them.
    pub async fn read(&self, operator: &OperatorUid, range: Option<KeyGroupRange>) -> Result<Vec<Section>> {
        let _ = (operator, range);
        todo!()
    }
}
