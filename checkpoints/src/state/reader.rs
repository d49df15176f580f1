//! Reads the state that a manifest refers to, verified.
//!
//! A small object is read whole, once, and kept for the other operators and workers of the process; of a large one only the
//! sections asked for are read. Either way the content has passed its checksum before anybody sees it.

use crate::limits::{STATE_CACHE_BYTES_MAX, STATE_READ_WHOLE_BYTES_MAX};
use crate::{Error, KeyGroupRange, Manifest, OperatorUid, Result, SectionRef, SnapshotStore, StateRef, names};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::OnceCell;

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
pub struct StateReader {
    store: SnapshotStore,
    /// The manifest's own name, for messages.
    manifest: Arc<str>,
    objects: Arc<[Source]>,
}

#[derive(Debug)]
struct Source {
    object: StateRef,
    access: Access,
}

#[derive(Debug)]
enum Access {
    /// The object's bytes, once read and verified.
    Whole(OnceCell<Bytes>),
    /// Set when the object has been seen to have the right length.
    BySection(OnceCell<()>),
}

impl StateReader {
    /// Makes a reader of the manifest's state. Nothing is read yet.
    pub fn new(store: SnapshotStore, manifest: &Manifest) -> Self {
        Self::with_limits(store, manifest, STATE_READ_WHOLE_BYTES_MAX, STATE_CACHE_BYTES_MAX)
    }

    fn with_limits(store: SnapshotStore, manifest: &Manifest, whole_bytes_max: u64, cache_bytes_max: u64) -> Self {
        let mut cached_bytes = 0;
        let objects = manifest.snapshot.state.iter().map(|object| {
            let fits = object.length <= whole_bytes_max && cached_bytes + object.length <= cache_bytes_max;
            let access = if fits {
                cached_bytes += object.length;
                Access::Whole(OnceCell::new())
            } else {
                Access::BySection(OnceCell::new())
            };
            Source {
                object: object.clone(),
                access,
            }
        });
        Self {
            store,
            manifest: names::checkpoint(&manifest.job, manifest.checkpoint).into(),
            objects: objects.collect(),
        }
    }

    /// Reads the sections of an operator with a key group in `range` (none asks for no keyed ones), and all its sections that belong
    /// to no key; in the order in which the manifest names the objects and their writers appended the sections.
    ///
    /// # Errors
    /// [`Error::MissingObject`] or [`Error::Corrupt`] name the object that is not as the manifest says.
    pub async fn read(&self, operator: &OperatorUid, range: Option<KeyGroupRange>) -> Result<Vec<Section>> {
        let mut found = Vec::new();
        for source in self.objects.iter() {
            let wanted: Vec<&SectionRef> = source
                .object
                .sections
                .iter()
                .filter(|section| section.operator == *operator && is_wanted(section.key_groups, range))
                .collect();
            if wanted.is_empty() {
                continue;
            }
            for (section, content) in wanted.iter().zip(self.contents(source, &wanted).await?) {
                self.verify_section(source, section, &content)?;
                found.push(Section {
                    name: section.name.clone(),
                    key_groups: section.key_groups,
                    content,
                });
            }
        }
        Ok(found)
    }

    async fn contents(&self, source: &Source, sections: &[&SectionRef]) -> Result<Vec<Bytes>> {
        let object = &source.object;
        let ranges: Vec<Range<u64>> = sections
            .iter()
            .map(|section| section.offset..section.offset.saturating_add(section.length))
            .collect();
        if let Some(beyond) = ranges.iter().find(|range| range.end > object.length) {
            let detail = format!(
                "the manifest has a section up to {} in {} bytes",
                beyond.end, object.length
            );
            return Err(self.corrupt(source, detail));
        }
        match &source.access {
            Access::Whole(cell) => {
                let bytes = cell.get_or_try_init(|| self.read_whole(source)).await?;
                Ok(ranges
                    .iter()
                    .map(|range| bytes.slice(range.start as usize..range.end as usize))
                    .collect())
            }
            Access::BySection(cell) => {
                cell.get_or_try_init(|| self.check_length(source)).await?;
                let contents = self.store.get_ranges(&object.object, &ranges).await?;
                let contents = contents.ok_or_else(|| self.missing(source))?;
                for (content, range) in contents.iter().zip(&ranges) {
                    if content.len() as u64 != range.end - range.start {
                        return Err(self.corrupt(source, format!("bytes {range:?} cannot be read in full")));
                    }
                }
                Ok(contents)
            }
        }
    }

    async fn read_whole(&self, source: &Source) -> Result<Bytes> {
        let object = &source.object;
        let bytes = self
            .store
            .get(&object.object)
            .await?
            .ok_or_else(|| self.missing(source))?;
        self.verify_length(source, bytes.len() as u64)?;
        let actual = crc32c::crc32c(&bytes);
        if actual != object.crc32c {
            let detail = format!("its checksum is {actual:08x}, expected {:08x}", object.crc32c);
            return Err(self.corrupt(source, detail));
        }
        Ok(bytes)
    }

    async fn check_length(&self, source: &Source) -> Result<()> {
        let length = self
            .store
            .head(&source.object.object)
            .await?
            .ok_or_else(|| self.missing(source))?;
        self.verify_length(source, length)
    }

    fn verify_length(&self, source: &Source, actual: u64) -> Result<()> {
        if actual != source.object.length {
            return Err(self.corrupt(
                source,
                format!("it has {actual} bytes, expected {}", source.object.length),
            ));
        }
        Ok(())
    }

    fn verify_section(&self, source: &Source, section: &SectionRef, content: &[u8]) -> Result<()> {
        let actual = crc32c::crc32c(content);
        if actual != section.crc32c {
            let SectionRef {
                operator,
                name,
                offset,
                crc32c: expected,
                ..
            } = section;
            let what = format!("section {name} of operator {operator} at offset {offset}");
            let detail = format!("the checksum of {what} is {actual:08x}, expected {expected:08x}");
            return Err(self.corrupt(source, detail));
        }
        Ok(())
    }

    fn missing(&self, source: &Source) -> Error {
        Error::MissingObject {
            object: source.object.object.clone(),
            referred_by: self.manifest.to_string(),
        }
    }

    fn corrupt(&self, source: &Source, detail: String) -> Error {
        Error::Corrupt {
            object: source.object.object.clone(),
            detail,
        }
    }
}

fn is_wanted(key_groups: Option<KeyGroupRange>, range: Option<KeyGroupRange>) -> bool {
    match (key_groups, range) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(groups), Some(range)) => groups.intersects(&range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{job, manifest};
    use crate::{AttemptId, CheckpointId, Generation, KeyGroup, StateWriter};

    fn groups(first: u16, last: u16) -> Option<KeyGroupRange> {
        Some(KeyGroupRange::new(KeyGroup(first), KeyGroup(last)))
    }

    /// Two workers with two key groups each, and one section without keys.
    async fn written() -> (SnapshotStore, Manifest) {
        let store = SnapshotStore::in_memory();
        let mut manifest = manifest(1);
        for worker in 0..2u16 {
            let mut writer = StateWriter::new();
            for group in [worker * 2, worker * 2 + 1] {
                writer
                    .append(&"op".into(), "rows", groups(group, group), format!("group {group}"))
                    .unwrap();
                writer
                    .append(&"other".into(), "rows", groups(group, group), "not mine")
                    .unwrap();
            }
            writer
                .append(&"op".into(), "whole", None, format!("worker {worker}"))
                .unwrap();
            let object = writer.finish();
            let name = names::state(&job(), Generation(1), CheckpointId(1), AttemptId(1), worker.into());
            store.create(&name, object.bytes()).await.unwrap();
            manifest.snapshot.state.push(StateRef {
                object: name,
                length: object.length(),
                crc32c: object.crc32c,
                sections: object.sections,
            });
        }
        (store, manifest)
    }

    #[tokio::test]
    async fn a_range_gets_its_key_groups_and_what_has_none() {
        let (store, manifest) = written().await;
        for whole_bytes_max in [0, 1 << 20] {
            let reader = StateReader::with_limits(store.clone(), &manifest, whole_bytes_max, 1 << 20);
            let read = async |range| -> Vec<String> {
                let sections = reader.read(&"op".into(), range).await.unwrap();
                sections
                    .iter()
                    .map(|section| String::from_utf8(section.content.to_vec()).unwrap())
                    .collect()
            };
            assert_eq!(read(groups(1, 2)).await, ["group 1", "worker 0", "group 2", "worker 1"]);
            assert_eq!(read(groups(7, 9)).await, ["worker 0", "worker 1"]);
            assert_eq!(read(None).await, ["worker 0", "worker 1"]);
            assert!(reader.read(&"unknown".into(), groups(0, 9)).await.unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn a_damaged_or_missing_object_is_named() {
        for whole_bytes_max in [0, 1 << 20] {
            for damage in ["flip", "cut", "delete"] {
                let (store, manifest) = written().await;
                let broken = &manifest.snapshot.state[1].object;
                let mut bytes = store.get(broken).await.unwrap().unwrap().to_vec();
                store.delete(vec![broken.clone()]).await.unwrap();
                match damage {
                    "flip" => {
                        let at = manifest.snapshot.state[1].sections[0].offset as usize;
                        bytes[at] ^= 1;
                        store.create(broken, bytes.into()).await.unwrap();
                    }
                    "cut" => {
                        bytes.pop();
                        store.create(broken, bytes.into()).await.unwrap();
                    }
                    _ => {}
                }
                let reader = StateReader::with_limits(store, &manifest, whole_bytes_max, 1 << 20);
                let error = reader.read(&"op".into(), groups(2, 2)).await.unwrap_err();
                assert_eq!(error.kind(), crate::ErrorKind::Corrupt, "{damage}: {error}");
                assert!(error.to_string().contains(broken), "{damage}: {error}");
            }
        }
    }

    #[tokio::test]
    async fn an_object_in_the_cache_is_read_once() {
        let (store, manifest) = written().await;
        let reader = StateReader::new(store.clone(), &manifest);
        let before = reader.read(&"op".into(), groups(0, 3)).await.unwrap();
        store
            .delete(
                manifest
                    .snapshot
                    .state
                    .iter()
                    .map(|state| state.object.clone())
                    .collect(),
            )
            .await
            .unwrap();
        assert_eq!(reader.clone().read(&"op".into(), groups(0, 3)).await.unwrap(), before);
        // No room in the cache: the object is asked for again, and is gone.
        let small = StateReader::with_limits(store, &manifest, 1 << 20, 10);
        assert!(matches!(
            small.read(&"op".into(), groups(0, 3)).await,
            Err(Error::MissingObject { .. })
        ));
    }
}
