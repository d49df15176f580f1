//! Reads directories and ranges of objects, and keeps those used last.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::object::{Run, directory};
use super::objects::{ObjectTier, TierError};
use super::{MARK, UNMARKED, mark};
use crate::access::ObjectPlace;
use crate::limits;

/// Reads of objects.
pub(crate) struct TierCache {
    tier: Arc<dyn ObjectTier>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Name, first byte and bytes, the one used last at the end.
    ranges: VecDeque<(String, u64, Bytes)>,
    bytes: usize,
    directories: VecDeque<(String, Arc<Vec<Run>>)>,
    runs: usize,
}

/// Why a tiered range cannot be read.
#[derive(Debug)]
pub(crate) enum TierFault {
    /// What is there is not what was put there.
    Damaged(String),
    /// It may be there later.
    Unavailable(String),
}

impl TierCache {
    pub(crate) fn new(tier: Arc<dyn ObjectTier>) -> Self {
        Self {
            tier,
            kept: Mutex::default(),
        }
    }

    fn fault(&self, object: &ObjectPlace, error: TierError) -> TierFault {
        if let TierError::Unavailable(reason) = error {
            return TierFault::Unavailable(reason);
        }
        let store = object.name.split('/').next().unwrap_or_default();
        match self.tier.read(&mark(store), 0..MARK.len() as u64) {
            Ok(_) => TierFault::Damaged("the object is missing: it was deleted from outside".to_owned()),
            Err(TierError::NotFound) => TierFault::Unavailable(UNMARKED.to_owned()),
            Err(TierError::Unavailable(reason)) => TierFault::Unavailable(reason),
        }
    }

    /// The runs of an object.
    pub(crate) fn directory(&self, object: &ObjectPlace) -> Result<Arc<Vec<Run>>, TierFault> {
        if let Some(runs) = self.kept_directory(&object.name) {
            return Ok(runs);
        }
        let bytes = self
            .tier
            .read(&object.name, 0..object.directory_bytes)
            .map_err(|error| self.fault(object, error))?;
        let sound = bytes.len() as u64 == object.directory_bytes && crc32c::crc32c(&bytes) == object.directory_crc;
        let runs = sound.then(|| directory(&bytes, object.bytes)).flatten();
        let runs = Arc::new(runs.ok_or_else(|| {
            TierFault::Damaged("the object's directory does not match what the log says of it".to_owned())
        })?);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.runs += runs.len();
        kept.directories.push_back((object.name.clone(), Arc::clone(&runs)));
        while kept.runs > limits::TIER_CACHE_RUNS_MAX && kept.directories.len() > 1 {
            let gone = kept.directories.pop_front().map_or(0, |(_, runs)| runs.len());
            kept.runs -= gone;
        }
        Ok(runs)
    }

    fn kept_directory(&self, name: &str) -> Option<Arc<Vec<Run>>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.directories.iter().position(|(known, _)| known == name)?;
        let found = kept.directories.remove(at)?;
        let runs = Arc::clone(&found.1);
        kept.directories.push_back(found);
        Some(runs)
    }

    /// Reads a range of an object, of which at least `need` bytes are there afterwards.
    pub(crate) fn read(&self, object: &ObjectPlace, range: Range<u64>, need: u64) -> Result<Bytes, TierFault> {
        if let Some(bytes) = self.kept_range(&object.name, range.start, need) {
            return Ok(bytes);
        }
        let bytes = self
            .tier
            .read(&object.name, range.clone())
            .map_err(|error| self.fault(object, error))?;
        if (bytes.len() as u64) < need {
            return Err(TierFault::Damaged("the object is shorter than it was".to_owned()));
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += bytes.len();
        kept.ranges.push_back((object.name.clone(), range.start, bytes.clone()));
        while kept.bytes > limits::TIER_CACHE_BYTES_MAX && kept.ranges.len() > 1 {
            let gone = kept.ranges.pop_front().map_or(0, |(_, _, bytes)| bytes.len());
            kept.bytes -= gone;
        }
        Ok(bytes)
    }

    /// What is kept from `start` on, when that is at least `need` bytes.
    fn kept_range(&self, name: &str, start: u64, need: u64) -> Option<Bytes> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.ranges.iter().position(|(known, first, bytes)| {
            known == name && *first <= start && start + need <= *first + bytes.len() as u64
        })?;
        let found = kept.ranges.remove(at)?;
        let bytes = found.2.slice((start - found.1) as usize..);
        kept.ranges.push_back(found);
        Some(bytes)
    }
}
