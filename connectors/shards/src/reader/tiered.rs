//! Reading records from objects.

use std::sync::Arc;

use super::{Records, SegmentReader, corrupt};
use crate::access::{Extent, Located, ObjectPlace};
use crate::error::StoreError;
use crate::ids::ShardKey;
use crate::limits;
use crate::tier::{Run, TierCache, TierFault};

impl SegmentReader {
    /// Takes the records of a tiered extent, as far as the limits allow.
    pub(super) fn tiered(
        &self,
        extent: &Extent,
        object: &ObjectPlace,
        located: &Located,
        records: &mut Records<'_>,
    ) -> Result<(), StoreError> {
        let fault = |fault| told(fault, extent, object, located);
        let tier = self.cache(object)?;
        let directory = tier.directory(object).map_err(fault)?;
        let (next, cutoff) = (records.next, located.trim_before_ms);
        let runs: Vec<&Run> = of_shard(&directory, located.shard.key)
            .iter()
            .filter(|run| run.last >= next && run.last_arrival_ms >= cutoff)
            .collect();
        let mut rest = &runs[..];
        while let Some(first) = rest.first().filter(|_| !records.full()) {
            let left = records.limits.bytes_max.saturating_sub(records.bytes) as u64;
            let want = left.clamp(limits::TIER_READ_BYTES_MIN, limits::READ_SPAN_BYTES_MAX);
            let end = rest
                .iter()
                .map(|run| run.offset + run.len)
                .take_while(|end| end - first.offset <= want)
                .last()
                .unwrap_or(first.offset + first.len);
            let bytes = tier.read(object, first.offset..end, first.len).map_err(fault)?;
            let mut taken = 0;
            for run in rest {
                let at = (run.offset - first.offset) as usize;
                if at + run.len as usize > bytes.len() || records.full() {
                    break;
                }
                let place = Extent {
                    file: object.name.clone(),
                    segment_uuid: run.origin,
                    offset: run.origin_offset,
                    len: run.len as u32,
                    first: run.first,
                    last: run.last,
                    first_arrival_ms: run.first_arrival_ms,
                    last_arrival_ms: run.last_arrival_ms,
                    staged: run.published,
                    object: None,
                    ..extent.clone()
                };
                records.extent(&place, &bytes.slice(at..at + run.len as usize))?;
                taken += 1;
            }
            rest = &rest[taken..];
        }
        if !records.full() {
            records.next = records.next.max(extent.last + 1);
        }
        Ok(())
    }

    /// The first record of the run of a tiered extent in which a record arrived at `time_ms` or later.
    pub(crate) fn run_at(&self, extent: &Extent, located: &Located, time_ms: u64) -> Result<Option<u64>, StoreError> {
        let Some(object) = &extent.object else { return Ok(None) };
        let directory = self
            .cache(object)?
            .directory(object)
            .map_err(|fault| told(fault, extent, object, located))?;
        let runs = of_shard(&directory, located.shard.key);
        Ok(runs
            .iter()
            .find(|run| run.last_arrival_ms >= time_ms)
            .map(|run| run.first))
    }

    fn cache(&self, object: &ObjectPlace) -> Result<&TierCache, StoreError> {
        self.tier.as_ref().ok_or_else(|| StoreError::TierUnavailable {
            object: object.name.clone(),
            reason: "this process was not told where the store's objects are".to_owned(),
        })
    }
}

/// The runs of a shard. They are sorted by shard.
fn of_shard(runs: &Arc<Vec<Run>>, shard: ShardKey) -> &[Run] {
    let start = runs.partition_point(|run| run.shard < shard);
    let end = runs.partition_point(|run| run.shard <= shard);
    &runs[start..end]
}

fn told(fault: TierFault, extent: &Extent, object: &ObjectPlace, located: &Located) -> StoreError {
    match fault {
        TierFault::Unavailable(reason) => StoreError::TierUnavailable {
            object: object.name.clone(),
            reason,
        },
        TierFault::Damaged(reason) => {
            let place = Extent {
                file: object.name.clone(),
                offset: 0,
                ..extent.clone()
            };
            let shards = vec![format!("{}/{}", located.stream, located.shard.id)];
            let reason = format!("records {} to {} cannot be read: {reason}", extent.first, extent.last);
            corrupt(&place, object.bytes as usize, shards, reason)
        }
    }
}
