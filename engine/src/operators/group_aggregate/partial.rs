//! The stage before the exchange: what a tick's rows come to, per key and worker.
//!
//! Holds nothing beyond its tick. Where keys hardly repeat within a tick, every row becomes a state at once.

use super::slots::Rows;
use super::{has_partial_stage, partial_schema};
use crate::aggregate::{Accumulator, AggregateCall};
use crate::error::{Error, Result};
use crate::graph::{GroupAggregate, weight_of};
use crate::key::{EncodedKeys, KeyDecoder, encode_keys, hash_columns, key_hash};
use crate::operator::{OpenTick, Operator, Output, Progress, StateSection, TickClose};
use crate::operators::group_table::GroupTable;
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt64Array};
use arrow::datatypes::{Int64Type, Schema, SchemaRef};
use std::sync::Arc;

/// Rows per emitted batch.
const BATCH_ROWS: usize = 8192;

/// A tick with fewer than this many rows per group is not worth its hash table.
const ROWS_PER_GROUP_MIN: usize = 2;

/// Rows then go through for this many ticks before the next look.
const TICKS_UNTIL_NEXT_LOOK: u32 = 32;

/// The operator.
pub(super) struct PartialGroupsOperator {
    keys: Vec<usize>,
    weight: Option<usize>,
    calls: Vec<AggregateCall>,
    decoder: KeyDecoder,
    schema: SchemaRef,
    table: GroupTable,
    accumulators: Vec<Box<dyn Accumulator>>,
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
            return Err(Error::Internal("an aggregation of sets has one stage".into()));
        }
        let types = spec.keys.iter().map(|&key| input.field(key).data_type().clone());
        Ok(Self {
            keys: spec.keys.clone(),
            weight: weight_of(input),
            calls: spec.aggregates.clone(),
            decoder: KeyDecoder::new(types.collect()),
            schema: partial_schema(spec, input),
            table: GroupTable::default(),
            accumulators: accumulators(&spec.aggregates),
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
        accumulators: &mut [Box<dyn Accumulator>],
        rows: &Rows<'_>,
        groups: &[u32],
        counts: &mut Vec<i64>,
        count: usize,
    ) -> Result<()> {
        for (call, accumulator) in calls.iter().zip(accumulators) {
            accumulator.resize(count);
            rows.add_to(accumulator.as_mut(), call, groups)?;
        }
        counts.resize(count, 0);
        for (row, &group) in groups.iter().enumerate() {
            counts[group as usize] += rows.weights.map_or(1, |weights| weights[row]);
        }
        Ok(())
    }

    fn batch(
        &self,
        keys: Vec<ArrayRef>,
        rows: Vec<i64>,
        accumulators: &[Box<dyn Accumulator>],
        groups: &[u32],
        hashes: Vec<u64>,
    ) -> Result<RecordBatch> {
        let mut columns = keys;
        columns.push(Arc::new(Int64Array::from(rows)));
        for accumulator in accumulators {
            columns.extend(accumulator.state(groups)?);
        }
        columns.push(Arc::new(UInt64Array::from(hashes)));
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

fn accumulators(calls: &[AggregateCall]) -> Vec<Box<dyn Accumulator>> {
    // A function with a signed state takes rows back into the same state.
    calls.iter().map(|call| call.function.accumulator()).collect()
}

impl Operator for PartialGroupsOperator {
    fn on_batch(&mut self, _input: usize, batch: &RecordBatch, _tick: &OpenTick, out: &mut Output) -> Result<Progress> {
        let count = batch.num_rows();
        let columns: Vec<ArrayRef> = self.keys.iter().map(|&key| Arc::clone(batch.column(key))).collect();
        let weights = |column: usize| batch.column(column).as_primitive::<Int64Type>().values().as_ref();
        let rows = Rows {
            batch,
            weights: self.weight.map(weights),
        };
        let (keys, hashes, groups) = &mut self.scratch;
        groups.clear();
        if self.ticks_without > 0 {
            hash_columns(&columns, count, keys, hashes)?;
            groups.extend(0..count as u32);
            let (mut accumulators, mut counts) = (accumulators(&self.calls), Vec::new());
            Self::add(&self.calls, &mut accumulators, &rows, groups, &mut counts, count)?;
            let (hashes, groups) = (hashes.clone(), groups.clone());
            out.emit(self.batch(columns, counts, &accumulators, &groups, hashes)?);
            return Ok(Progress::Done);
        }
        encode_keys(&columns, count, keys)?;
        let mut last: (&[u8], u32) = (&[], 0);
        for row in 0..count {
            let key = keys.key(row);
            if row == 0 || key != last.0 {
                last = (key, self.table.group(key_hash(key), key));
            }
            groups.push(last.1);
        }
        self.rows_of_tick += count;
        let count = self.table.len();
        Self::add(
            &self.calls,
            &mut self.accumulators,
            &rows,
            groups,
            &mut self.rows,
            count,
        )?;
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
            out.emit(self.batch(keys, rows, &self.accumulators, &groups, hashes)?);
            self.next += count;
        }
        if self.ticks_without > 0 {
            self.ticks_without -= 1;
        } else if self.rows_of_tick >= BATCH_ROWS && self.rows_of_tick < self.table.len() * ROWS_PER_GROUP_MIN {
            self.ticks_without = TICKS_UNTIL_NEXT_LOOK;
        }
        if self.table.len() > 0 {
            self.table = GroupTable::default();
            self.accumulators = accumulators(&self.calls);
            self.rows.clear();
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
