//! Finds the last of a row of objects that are numbered without a gap, by asking for single ones: a listing may lag behind, a read
//! does not.
//!
//! The step doubles until an object is absent, then the gap is halved: some 2 log2(n) requests, two when nothing is new.

use crate::{CheckpointId, Generation, JobUid, Result, SnapshotStore, names};

/// Returns the job's highest generation.
pub(crate) async fn last_generation(store: &SnapshotStore, job: &JobUid) -> Result<Option<Generation>> {
    let exists = |n| async move { Ok(store.head(&names::generation(job, Generation(n))).await?.is_some()) };
    let last = last_existing(0, exists).await?;
    Ok((last > 0).then_some(Generation(last)))
}

/// Returns the highest checkpoint above `floor` in the row that begins behind `floor`.
pub(crate) async fn last_checkpoint(store: &SnapshotStore, job: &JobUid, floor: u64) -> Result<Option<CheckpointId>> {
    let exists = |n| async move { Ok(store.head(&names::checkpoint(job, CheckpointId(n))).await?.is_some()) };
    let last = last_existing(floor, exists).await?;
    Ok((last > floor).then_some(CheckpointId(last)))
}

/// Returns the largest `n` such that all of `floor + 1 ..= n` exist, which is `floor` when there is none.
async fn last_existing<F: Future<Output = Result<bool>>>(floor: u64, exists: impl Fn(u64) -> F) -> Result<u64> {
    let mut low = floor;
    let mut step = 1;
    let mut high = loop {
        let probe = low.saturating_add(step);
        if !exists(probe).await? {
            break probe;
        }
        low = probe;
        step *= 2;
    };
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if exists(middle).await? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn the_last_is_found_with_few_requests() {
        for floor in [0u64, 7] {
            for count in (0..70).chain([1000, 100_000]) {
                let requests = Cell::new(0);
                let exists = |n| {
                    requests.set(requests.get() + 1);
                    std::future::ready(Ok(n > floor && n <= floor + count))
                };
                assert_eq!(last_existing(floor, exists).await.unwrap(), floor + count);
                assert!(
                    requests.get() <= 2 * (count + 2).ilog2() + 2,
                    "{count}: {}",
                    requests.get()
                );
            }
        }
    }
}
