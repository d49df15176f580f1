//! Routing rows to the worker that owns their key group.

use super::batch::Batch;
use crate::key::{EncodedKeys, KeyGroupRange, hash_columns, key_group};
use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::UInt64Type;
use std::sync::Arc;
use timely::communication::Push;
use timely::dataflow::channels::Message;
use timely::dataflow::channels::pushers::exchange::Distributor;
use timely::progress::Stamp;

/// Slices for one worker are put together until they have this many rows, or the sender pauses.
const COALESCED_ROWS: usize = 4096;

/// Where the hash of a row's key is.
#[derive(Clone, Debug)]
pub(super) enum Routing {
    /// In a column of its own, computed before.
    HashColumn(usize),
    /// To be computed from these columns.
    Keys(Vec<usize>),
}

/// Splits batches by the owner of each row's key group.
pub(super) struct KeyDistributor {
    routing: Routing,
    /// The worker of each key group.
    owners: Vec<u32>,
    keys: EncodedKeys,
    hashes: Vec<u64>,
    indices: Vec<Vec<u32>>,
    pending: Vec<Pending>,
    on_error: Box<dyn Fn(crate::Error)>,
}

#[derive(Default)]
struct Pending {
    slices: Vec<RecordBatch>,
    rows: usize,
    wall_time_ms: i64,
}

impl KeyDistributor {
    pub(super) fn new(routing: Routing, key_groups: u16, workers: usize, on_error: Box<dyn Fn(crate::Error)>) -> Self {
        Self {
            routing,
            owners: owners(key_groups, workers),
            keys: EncodedKeys::default(),
            hashes: Vec::new(),
            indices: vec![Vec::new(); workers],
            pending: (0..workers).map(|_| Pending::default()).collect(),
            on_error,
        }
    }

    fn split(&mut self, rows: &RecordBatch) -> crate::Result<()> {
        match &self.routing {
            Routing::HashColumn(column) => {
                self.hashes.clear();
                self.hashes
                    .extend_from_slice(rows.column(*column).as_primitive::<UInt64Type>().values());
            }
            Routing::Keys(columns) => {
                let columns: Vec<ArrayRef> = columns.iter().map(|&column| Arc::clone(rows.column(column))).collect();
                hash_columns(&columns, rows.num_rows(), &mut self.keys, &mut self.hashes)?;
            }
        }
        let expected = rows.num_rows() / self.indices.len() * 9 / 8;
        for indices in &mut self.indices {
            indices.clear();
            indices.reserve(expected);
        }
        let key_groups = self.owners.len() as u16;
        for (row, &hash) in self.hashes.iter().enumerate() {
            let owner = self.owners[usize::from(key_group(hash, key_groups))];
            self.indices[owner as usize].push(row as u32);
        }
        for (indices, pending) in self.indices.iter_mut().zip(&mut self.pending) {
            if indices.is_empty() {
                continue;
            }
            pending.rows += indices.len();
            if indices.len() == rows.num_rows() {
                pending.slices.push(rows.clone());
            } else {
                let indices = UInt32Array::from(std::mem::take(indices));
                pending.slices.push(take_record_batch(rows, &indices)?);
            }
        }
        Ok(())
    }

    fn send<T: Clone, P: Push<Message<T, Batch>>>(&mut self, worker: usize, stamp: &Stamp<T>, pusher: &mut P) {
        let pending = std::mem::take(&mut self.pending[worker]);
        let rows = match pending.slices.as_slice() {
            [] => return,
            [one] => Ok(one.clone()),
            [first, ..] => concat_batches(&first.schema(), &pending.slices),
        };
        match rows {
            Ok(rows) => Message::push_at(&mut Batch::new(rows, pending.wall_time_ms), stamp.clone(), pusher),
            Err(error) => (self.on_error)(error.into()),
        }
    }
}

/// Returns the worker of each key group.
fn owners(key_groups: u16, workers: usize) -> Vec<u32> {
    let of_worker = |worker| {
        let KeyGroupRange { start, end, .. } = KeyGroupRange::of_worker(worker, workers, key_groups);
        std::iter::repeat_n(worker as u32, usize::from(end - start))
    };
    (0..workers).flat_map(of_worker).collect()
}

impl Distributor<Batch> for KeyDistributor {
    fn partition<T: Clone, P: Push<Message<T, Batch>>>(
        &mut self,
        batch: &mut Batch,
        stamp: &Stamp<T>,
        pushers: &mut [P],
    ) {
        let Some(rows) = batch.rows.take() else { return };
        if let Err(error) = self.split(&rows) {
            // The job ends with this error; nothing of it is published.
            (self.on_error)(error);
            return;
        }
        for (worker, pusher) in pushers.iter_mut().enumerate() {
            self.pending[worker].wall_time_ms = batch.wall_time_ms;
            if self.pending[worker].rows >= COALESCED_ROWS {
                self.send(worker, stamp, pusher);
            }
        }
    }

    fn flush<T: Clone, P: Push<Message<T, Batch>>>(&mut self, stamp: &Stamp<T>, pushers: &mut [P]) {
        for (worker, pusher) in pushers.iter_mut().enumerate() {
            self.send(worker, stamp, pusher);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::worker_of;

    #[test]
    fn owner_of_a_key_group_is_the_worker_of_its_hashes() {
        for (key_groups, workers) in [(1, 1), (1, 3), (7, 2), (256, 2), (256, 3), (1000, 9)] {
            let owners = owners(key_groups, workers);
            assert_eq!(owners.len(), usize::from(key_groups));
            for hash in (0..1000).map(|n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15)) {
                let owner = owners[usize::from(key_group(hash, key_groups))];
                assert_eq!(owner as usize, worker_of(hash, key_groups, workers));
            }
        }
    }
}
