//! One window's groups and what is aggregated for them.

use super::filter_column;
use crate::aggregate::{Accumulator, AggregateCall, EncodedState};
use crate::error::Result;
use crate::key::EncodedKeys;
use crate::operators::group_table::GroupTable;
use arrow::array::{ArrayRef, RecordBatch};
use std::sync::Arc;

/// What a batch holds.
#[derive(Clone, Copy)]
pub(super) enum Input {
    /// Rows to aggregate.
    Rows,
    /// States to merge, from this column on.
    States { first: usize },
}

/// Returns the state columns of rows that are each a group of their own.
pub(super) fn states_of_rows(aggregates: &[AggregateCall], batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    let rows: Vec<u32> = (0..batch.num_rows() as u32).collect();
    let mut columns = Vec::new();
    for call in aggregates {
        let mut accumulator = call.function.accumulator();
        accumulator.resize(rows.len());
        let arguments: Vec<ArrayRef> = call
            .arguments
            .iter()
            .map(|&index| Arc::clone(batch.column(index)))
            .collect();
        accumulator.update(&arguments, &rows, filter_column(batch, call)?)?;
        columns.extend(accumulator.partial(&rows)?);
    }
    Ok(columns)
}

/// The groups of one window.
pub(super) struct WindowState {
    groups: GroupTable,
    accumulators: Vec<Box<dyn Accumulator>>,
}

impl WindowState {
    pub(super) fn new(aggregates: &[AggregateCall]) -> Self {
        let accumulators = aggregates.iter().map(|call| call.function.accumulator()).collect();
        Self {
            groups: GroupTable::default(),
            accumulators,
        }
    }

    /// Finds the group of each key, making new ones, into `groups`.
    pub(super) fn groups_of(&mut self, hashes: &[u64], keys: &EncodedKeys, groups: &mut Vec<u32>) {
        groups.clear();
        groups.extend(
            hashes
                .iter()
                .enumerate()
                .map(|(row, &hash)| self.groups.group(hash, keys.key(row))),
        );
        for accumulator in &mut self.accumulators {
            accumulator.resize(self.groups.len());
        }
    }

    /// Makes one group.
    pub(super) fn group(&mut self, hash: u64, key: &[u8]) -> u32 {
        let group = self.groups.group(hash, key);
        for accumulator in &mut self.accumulators {
            accumulator.resize(self.groups.len());
        }
        group
    }

    /// Aggregates rows or merges states.
    pub(super) fn add(
        &mut self,
        aggregates: &[AggregateCall],
        input: Input,
        batch: &RecordBatch,
        groups: &[u32],
    ) -> Result<()> {
        let mut next = match input {
            Input::Rows => 0,
            Input::States { first } => first,
        };
        for (call, accumulator) in aggregates.iter().zip(&mut self.accumulators) {
            match input {
                Input::Rows => {
                    let arguments: Vec<ArrayRef> = call
                        .arguments
                        .iter()
                        .map(|&index| Arc::clone(batch.column(index)))
                        .collect();
                    accumulator.update(&arguments, groups, filter_column(batch, call)?)?;
                }
                Input::States { .. } => {
                    let states = call.function.partial_types().len();
                    accumulator.merge(&batch.columns()[next..next + states], groups)?;
                    next += states;
                }
            }
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    /// Returns the group of a key, if there is one.
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        self.groups.find(hash, key)
    }

    pub(super) fn key(&self, group: u32) -> &[u8] {
        self.groups.key(group)
    }

    /// Returns the state columns of all functions.
    pub(super) fn states(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let mut columns = Vec::new();
        for accumulator in &self.accumulators {
            columns.extend(accumulator.partial(groups)?);
        }
        Ok(columns)
    }

    /// Returns one result column per function.
    pub(super) fn results(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        self.accumulators
            .iter()
            .map(|accumulator| accumulator.evaluate(groups))
            .collect()
    }

    pub(super) fn encode(&self, function: usize, groups: &[u32]) -> Result<EncodedState> {
        self.accumulators[function].encode(groups)
    }

    pub(super) fn accumulators(&self) -> &[Box<dyn Accumulator>] {
        &self.accumulators
    }

    pub(super) fn accumulators_mut(&mut self) -> &mut [Box<dyn Accumulator>] {
        &mut self.accumulators
    }

    pub(super) fn size(&self) -> usize {
        self.groups.size()
            + self
                .accumulators
                .iter()
                .map(|accumulator| accumulator.size())
                .sum::<usize>()
    }
}
