//! Options of a store, and checks of a new stream.

use crate::capacity::Capacity;
use crate::error::StoreError;
use crate::limits;
use crate::log::housekeeping::Housekeeping;
use crate::retention::RetentionOptions;
use crate::stream::{CreateStream, StreamMode};
use crate::update::{check_record_kib, check_retention, check_tags, check_warm_throughput};

/// Options of a [`crate::ShardStore`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Bytes of a log segment: 4 KiB to 1 GiB.
    pub segment_bytes: u64,
    /// Where the next segment is prepared.
    pub housekeeping: Housekeeping,
    /// Region in the ARNs of new streams.
    pub region: String,
    /// Account in the ARNs of new streams: twelve digits.
    pub account: String,
    /// Open shards of all streams together.
    pub shards_max: u32,
    /// How long clients are told that a stream or a consumer is CREATING, UPDATING or DELETING, milliseconds. 0, the
    /// default, shows none of these states.
    pub lifecycle_delay_ms: u64,
    /// Whether streams that do not say it themselves, by the tag [`Capacity::TAG`], have the service's limits per shard.
    pub capacity: Capacity,
    /// How long things are kept, and how much disk they may take.
    pub retention: RetentionOptions,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            segment_bytes: limits::SEGMENT_BYTES,
            housekeeping: Housekeeping::Background,
            region: "us-east-1".to_owned(),
            account: "000000000000".to_owned(),
            shards_max: limits::SHARDS_MAX,
            lifecycle_delay_ms: 0,
            capacity: Capacity::default(),
            retention: RetentionOptions::default(),
        }
    }
}

impl StoreOptions {
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let (min, max) = (limits::SEGMENT_BYTES_MIN, limits::SEGMENT_BYTES_MAX);
        if !(min..=max).contains(&self.segment_bytes) || !self.segment_bytes.is_multiple_of(8) {
            return Err(StoreError::Invalid(format!(
                "segment_bytes is {}: choose a multiple of 8 from {min} to {max}",
                self.segment_bytes
            )));
        }
        if self.lifecycle_delay_ms > limits::LIFECYCLE_DELAY_MS_MAX {
            return Err(StoreError::Invalid(format!(
                "lifecycle_delay_ms is {}: choose at most {}",
                self.lifecycle_delay_ms,
                limits::LIFECYCLE_DELAY_MS_MAX
            )));
        }
        if self.account.len() != 12 || !self.account.bytes().all(|c| c.is_ascii_digit()) {
            return Err(StoreError::Invalid(format!(
                "account {:?} is not twelve digits",
                self.account
            )));
        }
        if self.region.is_empty() || !self.region.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
            return Err(StoreError::Invalid(format!(
                "region {:?} is not a name like us-east-1",
                self.region
            )));
        }
        self.retention.check(self.segment_bytes)
    }
}

pub(super) fn check_stream(request: &CreateStream) -> Result<(), StoreError> {
    if request.shards == Some(0) {
        return Err(StoreError::Invalid("a stream has at least one shard".to_owned()));
    }
    let mode = if request.shards.is_some() {
        StreamMode::Provisioned
    } else {
        StreamMode::OnDemand
    };
    check_retention(request.retention_hours)?;
    check_record_kib(request.record_kib_max)?;
    check_warm_throughput(mode, request.warm_throughput_mibps)?;
    check_tags(&request.tags)
}
