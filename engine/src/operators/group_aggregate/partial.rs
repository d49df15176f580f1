//! The stage before the exchange: what a tick's rows come to, per key and worker.
//!
//! Holds nothing beyond its tick. Where keys hardly repeat within a tick, every row becomes a state at once.

use super::members::TickMembers;
use super::slots::{Layout, Rows, layout};
use super::{ROWS_WORTH_A_LOOK, TICKS_UNTIL_NEXT_LOOK, encode_row_keys, has_partial_stage, partial_schema};
use crate::aggregate::{Accumulator, AggregateCall};
use crate::error::{Error, Result};
use crate::graph::{GroupAggregate, weight_of};
use crate::key::{EncodedKeys, KeyDecoder, hash_columns, key_hash};
use crate::operator::{OpenTick, Operator, Output, Progress, StateSection, TickClose};
use crate::operators::group_table::GroupTable;
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef};
use std::sync::Arc;

/// Rows per emitted batch.
const BATCH_ROWS: usize = 8192;

/// A tick with fewer than this many rows per group is not worth its hash table.
const ROWS_PER_GROUP_MIN: usize = 2;

/// What a tick's rows come to: for one function, or for the sets over one argument.
enum TickSlot {
    Single {
        call: usize,
        accumulator: Box<dyn Accumulator>,
    },
    Members {
        /// The calls, in the order of the filters.
        calls: Vec<usize>,
        members: Box<TickMembers>,
    },
}

/// The operator.
pub(super) struct PartialGroupsOperator {
    keys: Vec<usize>,
    weight: Option<usize>,
    calls: Vec<AggregateCall>,
    decoder: KeyDecoder,
    schema: SchemaRef,
    table: GroupTable,
    slots: Vec<TickSlot>,
    /// How many rows more each group has.
    rows: Vec<i64>,
    rows_of_tick: usize,
    ticks_without: u32,
    /// While the tick is emitted, the next group.
    next: usize,
    scratch: (EncodedKeys, Vec<u64>, Vec<u32>),
}

impl PartialGroupsOperator {
    pub(super) fn new(spec: &GroupAggregate, input: &Schema) -> Result<Self> {
        if !has_partial_stage(spec, input) {
            return Err(Error::Internal("this aggregation has one stage".into()));
        }
        let types = spec.keys.iter().map(|&key| input.field(key).data_type().clone());
        Ok(Self {
            keys: spec.keys.clone(),
            weight: weight_of(input),
            calls: spec.aggregates.clone(),
            decoder: KeyDecoder::new(types.collect()),
            schema: partial_schema(spec, input),
            table: GroupTable::default(),
            slots: slots(&spec.aggregates, weight_of(input).is_some(), TickMembers::new)?,
            rows: Vec::new(),
            rows_of_tick: 0,
            ticks_without: 0,
            next: 0,
            scratch: Default::default(),
        })
    }

    /// Adds rows to states; returns how many rows more each group has.
    fn add(
        calls: &[AggregateCall],
        slots: &mut [TickSlot],
        rows: &Rows<'_>,
        groups: &[u32],
        counts: &mut Vec<i64>,
        count: usize,
    ) -> Result<()> {
        for slot in slots {
            match slot {
                TickSlot::Single { call, accumulator } => {
                    accumulator.resize(count);
                    rows.add_to(accumulator.as_mut(), &calls[*call], groups)?;
                }
                TickSlot::Members { calls: of_set, members } => {
                    let (argument, passed) = rows.passed(calls, of_set)?;
                    members.update(argument, &passed, groups, rows.weights)?;
                }
            }
        }
        counts.resize(count, 0);
        for (row, &group) in groups.iter().enumerate() {
            counts[group as usize] += rows.weights.map_or(1, |weights| weights[row]);
        }
        Ok(())
    }

    /// Makes the batch of the states of some of `count` groups, `groups[0]` and those that follow it.
    fn batch(
        schema: &SchemaRef,
        keys: Vec<ArrayRef>,
        rows: Vec<i64>,
        slots: &mut [TickSlot],
        (groups, count): (&[u32], usize),
        hashes: Vec<u64>,
    ) -> Result<RecordBatch> {
        let mut columns = keys;
        columns.push(Arc::new(Int64Array::from(rows)));
        let first = groups.first().map_or(0, |&group| group as usize);
        for slot in slots {
            match slot {
                TickSlot::Single { accumulator, .. } => columns.extend(accumulator.state(groups)?),
                TickSlot::Members { members, .. } => columns.push(members.lists(first..first + groups.len(), count)?),
            }
        }
        columns.push(Arc::new(UInt64Array::from(hashes)));
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}

fn slots(calls: &[AggregateCall], changes: bool, members: fn(&DataType, bool) -> TickMembers) -> Result<Vec<TickSlot>> {
    let slot = |layout| match layout {
        // A function with a signed state takes rows back into the same state.
        Layout::Single(call) => Ok(TickSlot::Single {
            call,
            accumulator: calls[call].function.accumulator(),
        }),
        Layout::Distinct { calls, values } => Ok(TickSlot::Members {
            calls,
            members: Box::new(members(&values, changes)),
        }),
    };
    layout(calls).into_iter().map(slot).collect()
}

impl Operator for PartialGroupsOperator {
    fn on_batch(&mut self, _input: usize, batch: &RecordBatch, _tick: &OpenTick, out: &mut Output) -> Result<Progress> {
        let count = batch.num_rows();
        let columns: Vec<ArrayRef> = self.keys.iter().map(|&key| Arc::clone(batch.column(key))).collect();
        let weights = |column: usize| batch.column(column).as_primitive::<Int64Type>().values().as_ref();
        let rows = Rows::new(batch, self.weight.map(weights));
        let (keys, hashes, groups) = &mut self.scratch;
        groups.clear();
        if self.ticks_without > 0 {
            hash_columns(&columns, count, keys, hashes)?;
            groups.extend(0..count as u32);
            let mut slots = slots(&self.calls, self.weight.is_some(), TickMembers::of_single_rows)?;
            let mut counts = Vec::new();
            Self::add(&self.calls, &mut slots, &rows, groups, &mut counts, count)?;
            let states = Self::batch(
                &self.schema,
                columns,
                counts,
                &mut slots,
                (groups, count),
                hashes.clone(),
            )?;
            out.emit(states);
            return Ok(Progress::Done);
        }
        encode_row_keys(&columns, count, keys)?;
        let mut last: (&[u8], u32) = (&[], 0);
        for row in 0..keys.len() {
            let key = keys.key(row);
            if row == 0 || key != last.0 {
                last = (key, self.table.group(key_hash(key), key));
            }
            groups.push(last.1);
        }
        groups.resize(count, last.1);
        self.rows_of_tick += count;
        let count = self.table.len();
        Self::add(&self.calls, &mut self.slots, &rows, groups, &mut self.rows, count)?;
        Ok(Progress::Done)
    }

    fn on_close(&mut self, _close: &TickClose, out: &mut Output) -> Result<Progress> {
        while self.next < self.table.len() {
            let count = (self.table.len() - self.next).min(BATCH_ROWS).min(out.budget_left());
            if count == 0 {
                return Ok(Progress::More);
            }
            let groups: Vec<u32> = (self.next as u32..(self.next + count) as u32).collect();
            let keys = self.decoder.decode(groups.iter().map(|&group| self.table.key(group)))?;
            let rows = self.rows[self.next..self.next + count].to_vec();
            let hashes = groups.iter().map(|&group| key_hash(self.table.key(group))).collect();
            let groups = (groups.as_slice(), self.table.len());
            out.emit(Self::batch(&self.schema, keys, rows, &mut self.slots, groups, hashes)?);
            self.next += count;
        }
        if self.ticks_without > 0 {
            self.ticks_without -= 1;
        } else if self.rows_of_tick >= ROWS_WORTH_A_LOOK && self.rows_of_tick < self.table.len() * ROWS_PER_GROUP_MIN {
            self.ticks_without = TICKS_UNTIL_NEXT_LOOK;
        }
        if self.table.len() > 0 {
            self.table.clear();
            self.rows.clear();
            for slot in &mut self.slots {
                match slot {
                    TickSlot::Single { call, accumulator } => *accumulator = self.calls[*call].function.accumulator(),
                    TickSlot::Members { members, .. } => members.next_tick(),
                }
            }
        }
        (self.rows_of_tick, self.next) = (0, 0);
        Ok(Progress::Done)
    }

    fn restore(&mut self, sections: &[StateSection]) -> Result<()> {
        match sections {
            [] => Ok(()),
            _ => Err(Error::Internal("a partial aggregation has no state".into())),
        }
    }
}
