//! Options of retention, and what a store tells about its use of the disk.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::StoreError;
use crate::limits;

/// What to do when the log has reached `disk_bytes_max` and nothing in it has expired.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Refuse new records: nothing is lost that was promised to be kept.
    #[default]
    Refuse,
    /// Drop the oldest records although their retention is not over.
    DropOldest,
}

/// How long things are kept, and how much disk they may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionOptions {
    /// How often expired records are looked for, with [`crate::Housekeeping::Background`]; at least 1.
    pub check_interval_ms: u64,
    /// How long staged output that nobody publishes is kept.
    pub staged_retention_ms: u64,
    /// How long a wall clock that is more than an hour ahead of what was expected must stay there to be believed.
    pub clock_confirm_ms: u64,
    /// Bytes that the segment files may take; `None` for as much as there is.
    pub disk_bytes_max: Option<u64>,
    /// What happens then.
    pub when_full: WhenFull,
    /// With a tier: how long records stay on the local disk at least, unless `disk_bytes_max` is near.
    pub local_retention_ms: u64,
}

impl Default for RetentionOptions {
    fn default() -> Self {
        Self {
            check_interval_ms: limits::RETENTION_CHECK_MS,
            staged_retention_ms: limits::STAGED_RETENTION_MS,
            clock_confirm_ms: limits::CLOCK_CONFIRM_MS,
            disk_bytes_max: None,
            when_full: WhenFull::Refuse,
            local_retention_ms: limits::LOCAL_RETENTION_MS,
        }
    }
}

impl RetentionOptions {
    pub(crate) fn check(&self, segment_bytes: u64) -> Result<(), StoreError> {
        if self.check_interval_ms == 0 {
            return Err(StoreError::Invalid("check_interval_ms is 0: use at least 1".to_owned()));
        }
        let least = limits::DISK_SEGMENTS_MIN * segment_bytes;
        match self.disk_bytes_max {
            Some(bytes) if bytes < least => Err(StoreError::Invalid(format!(
                "the store may take {bytes} bytes: allow at least {least}, or use smaller segments"
            ))),
            _ => Ok(()),
        }
    }
}

/// What the store takes, and what became of old data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreUsage {
    /// Bytes of segment files on the local disk.
    pub log_bytes: u64,
    /// The bound of `log_bytes`; 0 when there is none.
    pub log_bytes_max: u64,
    /// Segment files on the local disk.
    pub segments: u64,
    /// Age of the oldest record that can be read, in milliseconds; 0 when there is none.
    pub oldest_record_age_ms: u64,
    /// Segments removed since the store was opened.
    pub segments_removed: u64,
    /// Segments that are kept only because of staged output that nobody has published yet.
    pub segments_staged: u64,
    /// Records that were dropped before their time to stay within the bound, since the store was opened.
    pub records_dropped: u64,
    /// Files that could not be removed, and checks that failed, since the store was opened.
    pub failures: u64,
    /// The wall clock is ahead of what is believed, so nothing expires by it.
    pub clock_in_doubt: bool,
    /// Entries of the index in memory, 48 bytes each: one per extent, or per shard and tiered segment.
    pub index_entries: u64,
    /// Bytes of objects that hold tiered records.
    pub tiered_bytes: u64,
    /// Objects that hold tiered records.
    pub tiered_objects: u64,
    /// Objects that nothing needs and that are not deleted yet.
    pub tier_garbage: u64,
    /// Rounds of tiering that ended with an error, since the store was opened.
    pub tier_failures: u64,
}

/// [`StoreUsage`] as it is kept: written by the writer, read by anybody.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    pub(crate) log_bytes: AtomicU64,
    pub(crate) segments: AtomicU64,
    pub(crate) segments_removed: AtomicU64,
    pub(crate) segments_staged: AtomicU64,
    pub(crate) records_dropped: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) clock_in_doubt: AtomicBool,
    pub(crate) tiered_bytes: AtomicU64,
    pub(crate) tiered_objects: AtomicU64,
    pub(crate) tier_garbage: AtomicU64,
    pub(crate) tier_failures: AtomicU64,
}

impl Usage {
    /// The numbers; those that are not counted here are 0.
    pub(crate) fn read(&self) -> StoreUsage {
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        StoreUsage {
            log_bytes: get(&self.log_bytes),
            segments: get(&self.segments),
            segments_removed: get(&self.segments_removed),
            segments_staged: get(&self.segments_staged),
            records_dropped: get(&self.records_dropped),
            failures: get(&self.failures),
            tiered_bytes: get(&self.tiered_bytes),
            tiered_objects: get(&self.tiered_objects),
            tier_garbage: get(&self.tier_garbage),
            tier_failures: get(&self.tier_failures),
            clock_in_doubt: self.clock_in_doubt.load(Ordering::Relaxed),
            ..StoreUsage::default()
        }
    }
}
