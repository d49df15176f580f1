//! The state of a top-N: the best rows of each key.

use super::Plan;
use super::lists::{Entry, Lists};
use super::order::{OrderEncoder, OrderKey};
use crate::error::{Error, Result};
use crate::graph::TopNTies;
use crate::key::{EncodedKeys, KeyGroupRange, encode_keys, key_hash};
use crate::operator::StateSection;
use crate::operators::group_table::GroupTable;
use crate::rows::{RowKeys, RowRef, RowStore};
use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use std::cmp::Ordering;
use std::sync::Arc;

/// The chunk of rows that are not in the store yet: their row is the place in the batch.
const IN_BATCH: u32 = u32::MAX;

/// Compacting is worth its while after so many rows have gone.
const GONE_MIN: usize = 8192;

/// What is needed for a batch, kept for the next one.
pub(super) struct Scratch<K> {
    encoder: OrderEncoder,
    keys: EncodedKeys,
    hashes: Vec<u64>,
    groups: Vec<u32>,
    order: Vec<K>,
    /// The rows of the batch that came into a list, and have not left it since.
    entered: Vec<u32>,
    in_list: Vec<bool>,
}

impl<K: OrderKey> Scratch<K> {
    pub(super) fn new(plan: &Plan) -> Result<Self> {
        let columns = plan.spec.order.iter().zip(&plan.order);
        let mut spec = plan.spec.clone();
        spec.order = columns
            .map(|(order, &column)| crate::graph::TopNOrder { column, ..*order })
            .collect();
        Ok(Self {
            encoder: OrderEncoder::new(&spec, &plan.kept_schema)?,
            keys: EncodedKeys::default(),
            hashes: Vec::new(),
            groups: Vec::new(),
            order: Vec::new(),
            entered: Vec::new(),
            in_list: Vec::new(),
        })
    }
}

/// Learns of lists that change.
pub(super) trait Watcher<K> {
    /// A list is about to change or to be looked at; it may be emptied here, which is told by `true`.
    fn before(&mut self, group: u32, list: &[Entry<K>]) -> bool;
    /// A list changes now for the first time, or again.
    fn changes(&mut self, group: u32, list: &[Entry<K>]);
}

/// Looks away.
pub(super) struct Unwatched;

impl<K> Watcher<K> for Unwatched {
    fn before(&mut self, _: u32, _: &[Entry<K>]) -> bool {
        false
    }

    fn changes(&mut self, _: u32, _: &[Entry<K>]) {}
}

/// The best rows of each key.
pub(super) struct Ranked<K> {
    pub(super) groups: GroupTable,
    pub(super) lists: Lists<K>,
    pub(super) rows: RowStore,
    /// Rows that left their list and are still in the store.
    left: Vec<RowRef>,
    /// Rows removed since the store was compacted.
    gone: usize,
}

impl<K: OrderKey> Ranked<K> {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            groups: GroupTable::default(),
            lists: Lists::new(),
            rows: RowStore::new(Arc::clone(&plan.kept_schema)),
            left: Vec::new(),
            gone: 0,
        }
    }

    /// Takes rows, given as the columns that are kept.
    pub(super) fn insert(
        &mut self,
        plan: &Plan,
        batch: &RecordBatch,
        scratch: &mut Scratch<K>,
        watcher: &mut impl Watcher<K>,
    ) -> Result<()> {
        let rows = batch.num_rows();
        self.find_groups(plan, batch.columns(), rows, scratch)?;
        let len_max = plan.spec.last as usize;
        let Scratch {
            groups,
            order,
            entered,
            in_list,
            hashes,
            ..
        } = scratch;
        entered.clear();
        in_list.clear();
        in_list.resize(rows, false);
        let mut watched = u32::MAX;
        for (row, &group) in groups.iter().enumerate() {
            if watched != group {
                if watcher.before(group, self.lists.get(group)) {
                    self.clear(group);
                }
                watched = group;
            }
            let list = self.lists.get(group);
            let key = &order[row];
            if list.len() >= len_max {
                let worst = list.last().map(|entry| &entry.key);
                let is_better = match plan.spec.ties {
                    TopNTies::First => worst.is_some_and(|worst| key < worst),
                    TopNTies::Last => worst.is_some_and(|worst| key <= worst),
                };
                if !is_better {
                    continue;
                }
            }
            watcher.changes(group, list);
            let at = place(plan.spec.ties, list, key);
            let entry = Entry {
                key: key.clone(),
                row: RowRef {
                    chunk: IN_BATCH,
                    row: row as u32,
                },
            };
            in_list[row] = true;
            entered.push(row as u32);
            if let Some(last) = self.lists.insert(group, at, entry, len_max) {
                if last.row.chunk == IN_BATCH {
                    in_list[last.row.row as usize] = false;
                } else {
                    self.left.push(last.row);
                }
            }
        }
        entered.retain(|&row| in_list[row as usize]);
        if entered.is_empty() {
            return Ok(());
        }
        // Only what stayed is copied.
        let first = if entered.len() == rows {
            self.rows.append(batch, RowKeys { hashes, due: None })?
        } else {
            let wanted = UInt32Array::from(entered.clone());
            let columns = batch.columns().iter().map(|column| Ok(take(column, &wanted, None)?));
            let taken = RecordBatch::try_new(batch.schema(), columns.collect::<Result<Vec<_>>>()?)?;
            let taken_hashes: Vec<u64> = entered.iter().map(|&row| hashes[row as usize]).collect();
            let keys = RowKeys {
                hashes: &taken_hashes,
                due: None,
            };
            self.rows.append(&taken, keys)?
        };
        for (index, &row) in entered.iter().enumerate() {
            let list = self.lists.get_mut(groups[row as usize]);
            let key = &order[row as usize];
            let wanted = RowRef { chunk: IN_BATCH, row };
            // Equal rows lie in the order of their refs, which are the greatest as long as they are in the batch.
            let at = list.partition_point(|entry| match (entry.key.cmp(key), plan.spec.ties) {
                (Ordering::Equal, TopNTies::First) => entry.row < wanted,
                (Ordering::Equal, TopNTies::Last) => entry.row > wanted,
                (order, _) => order == Ordering::Less,
            });
            match list.get_mut(at).filter(|entry| entry.row == wanted) {
                Some(entry) => entry.row = first.plus(index),
                None => return Err(Error::Internal("a row was lost from its list".into())),
            }
        }
        Ok(())
    }

    /// Finds the group of each row, and its key in the order.
    fn find_groups(&mut self, plan: &Plan, columns: &[ArrayRef], rows: usize, scratch: &mut Scratch<K>) -> Result<()> {
        let of = |wanted: &[usize]| -> Vec<ArrayRef> { wanted.iter().map(|&c| Arc::clone(&columns[c])).collect() };
        let Scratch {
            encoder,
            keys,
            hashes,
            groups,
            order,
            ..
        } = scratch;
        encode_keys(&of(&plan.keys), rows, keys)?;
        hashes.clear();
        hashes.extend((0..rows).map(|row| key_hash(keys.key(row))));
        groups.clear();
        groups.extend(
            hashes
                .iter()
                .enumerate()
                .map(|(row, &hash)| self.groups.group(hash, keys.key(row))),
        );
        self.lists.resize(self.groups.len());
        encoder.encode(&of(&plan.order), rows, order)
    }

    /// Forgets the rows of a key.
    pub(super) fn clear(&mut self, group: u32) {
        self.left.extend(self.lists.get(group).iter().map(|entry| entry.row));
        self.lists.clear(group);
    }

    /// Removes the rows that left their lists; called when nobody asks for them any more.
    pub(super) fn remove_left(&mut self) -> Result<()> {
        for row in self.left.drain(..) {
            self.rows.remove(row);
            self.gone += 1;
        }
        if self.gone < GONE_MIN.max(self.rows.len() / 4) {
            return Ok(());
        }
        self.gone = 0;
        for (hash, old, new) in self.rows.compact(self.rows.end())? {
            let mut found = false;
            for group in self.groups.groups_of(hash) {
                if let Some(entry) = self.lists.get_mut(group).iter_mut().find(|entry| entry.row == old) {
                    entry.row = new;
                    found = true;
                }
            }
            if !found {
                return Err(Error::Internal("a row that moved is in no list".into()));
            }
        }
        Ok(())
    }

    /// Forgets keys without rows, when there are many; says whether group numbers are others now: `kept[i]` has become i.
    pub(super) fn forget_empty(&mut self) -> Option<Vec<u32>> {
        let groups = self.groups.len() as u32;
        let kept: Vec<u32> = (0..groups).filter(|&group| !self.lists.get(group).is_empty()).collect();
        if kept.len() * 2 > groups as usize {
            return None;
        }
        self.groups = self.groups.only(&kept);
        self.lists.renumbered(&kept);
        Some(kept)
    }

    /// Adds the rows of sections.
    pub(super) fn restore(
        &mut self,
        plan: &Plan,
        sections: &[StateSection],
        name: &str,
        key_groups: KeyGroupRange,
        scratch: &mut Scratch<K>,
    ) -> Result<()> {
        self.rows.restore(sections, name, key_groups)?;
        let columns: Vec<usize> = (0..plan.kept.len()).collect();
        let mut needed = plan.keys.clone();
        needed.extend(&plan.order);
        let mut restored: Vec<(RowRef, usize)> = Vec::new();
        for (first, hashes) in self.rows.hashes_from(RowRef::FIRST) {
            restored.push((first, hashes.len()));
        }
        for (first, count) in restored {
            let refs: Vec<RowRef> = (0..count).map(|row| first.plus(row)).collect();
            let gathered = self.rows.gather(&refs, &columns)?;
            self.find_groups(plan, &gathered, count, scratch)?;
            for (row, &group) in scratch.groups.iter().enumerate() {
                let key = &scratch.order[row];
                let at = place(plan.spec.ties, self.lists.get(group), key);
                let entry = Entry {
                    key: key.clone(),
                    row: refs[row],
                };
                if self.lists.insert(group, at, entry, usize::MAX).is_some() {
                    return Err(Error::Internal("a list without end lost a row".into()));
                }
            }
        }
        Ok(())
    }

    pub(super) fn size(&self) -> usize {
        self.groups.size() + self.lists.size() + self.rows.size()
    }
}

/// Returns where a row goes in a list.
#[inline]
fn place<K: OrderKey>(ties: TopNTies, list: &[Entry<K>], key: &K) -> usize {
    match ties {
        TopNTies::First => list.partition_point(|entry| entry.key <= *key),
        TopNTies::Last => list.partition_point(|entry| entry.key < *key),
    }
}
