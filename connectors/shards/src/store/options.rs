//! Options of a store, and checks of a new stream.

use crate::error::StoreError;
use crate::limits;
use crate::log::housekeeping::Housekeeping;
use crate::retention::RetentionOptions;
use crate::stream::CreateStream;

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
    /// Shards of all streams together.
    pub shards_max: u32,
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
    let invalid = |text: String| Err(StoreError::Invalid(text));
    if request.shards == Some(0) {
        return invalid("a stream has at least one shard".to_owned());
    }
    if !(24..=8_760).contains(&request.retention_hours) {
        return invalid(format!(
            "retention of {} hours: choose 24 to 8,760",
            request.retention_hours
        ));
    }
    if !(limits::RECORD_KIB..=limits::RECORD_KIB_MAX).contains(&request.record_kib_max) {
        return invalid(format!(
            "records of {} KiB: choose 1,024 to 10,240",
            request.record_kib_max
        ));
    }
    if request.tags.len() > limits::TAGS_MAX {
        return invalid(format!(
            "{} tags: a stream has at most {}",
            request.tags.len(),
            limits::TAGS_MAX
        ));
    }
    if request.tags.iter().any(|(key, value)| {
        let (key, value) = (key.chars().count(), value.chars().count());
        !(1..=128).contains(&key) || value > 256
    }) {
        return invalid("a tag's key has 1 to 128 characters and its value at most 256".to_owned());
    }
    Ok(())
}
