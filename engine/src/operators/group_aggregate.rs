//! Aggregation per key over everything that has come: `GROUP BY` without a window, and `SELECT DISTINCT`.
//!
//! ```text
//!  one worker:     rows ─▶ Whole ─▶ changes
//!  several:        rows ─▶ partial ─▶ states of the tick ─ exchange by key hash ─▶ Final ─▶ changes
//!                  rows ─ exchange by key ─▶ Whole ─▶ changes                (extremes of what changes, functions of the order)
//! ```
//! The input is append-only or a changelog. When the tick closes, every group that it touched gives its old row and its
//! new one. The old one is not kept: it is read from the accumulators when the tick first touches the group, for whole
//! batches at once, so that state holds nothing twice and a group that many rows touch costs two readings per tick.
//!
//! A group that ends (no rows are left, or its time to live is over) leaves its number behind; when there are more such than
//! groups that live, all are numbered anew.
//!
//! File map: `groups` numbers the groups and knows which live, `ttl` which are forgotten, `slots` holds what is aggregated,
//! `distinct` the sets of `COUNT(DISTINCT ...)`, `partial` is the stage before the exchange, `members` what it sends to the sets,
//! `values` numbers what is counted, `snapshot` is the durable form.

mod distinct;
mod groups;
mod members;
mod partial;
mod slots;
mod snapshot;
mod ttl;
mod values;

use crate::aggregate::AggregateCall;
use crate::error::{Error, Result};
use crate::graph::{GroupAggregate, weight_of};
use crate::key::{EncodedKeys, KeyDecoder, encode_keys, is_constant};
use crate::operator::{
    CapturedSection, OpenTick, Operator, OperatorContext, Output, Progress, StateSection, TickClose,
};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array, make_comparator};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{SortOptions, concat, interleave, take};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt64Type};
use groups::Groups;
use members::members_type;
use partial::PartialGroupsOperator;
use slots::{Layout, Rows, Slots, layout};
use std::sync::Arc;
use ttl::Ttl;

/// Groups per emitted batch; each gives up to two rows.
const BATCH_GROUPS: usize = 4096;

/// Fewer things than this that are left behind are not worth numbering the groups anew.
const GARBAGE_MIN: usize = 1024;

/// A stage before the exchange counts what a tick of at least so many rows gains.
const ROWS_WORTH_A_LOOK: usize = 8192;

/// Where it gains little, rows go as they come for this many ticks before the next look.
const TICKS_UNTIL_NEXT_LOOK: u32 = 32;

/// The place of a group that had no row before the tick.
const NO_ROW: u32 = u32::MAX;

/// Which part of the aggregation an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Rows in, changes out.
    Whole,
    /// Rows in, states of this tick out.
    Partial,
    /// States in, changes out.
    Final,
}

/// Says whether an aggregation can be done in two stages: every function's state is made of columns that merge, or it counts
/// different values, which go once per tick.
pub(crate) fn has_partial_stage(spec: &GroupAggregate, input: &Schema) -> bool {
    let changes = weight_of(input).is_some();
    let merges = |call: &AggregateCall| {
        call.function.distinct_values().is_some()
            || (!call.function.state_types().is_empty()
                && !call.function.needs_order()
                && (!changes || call.function.has_signed_state()))
    };
    spec.aggregates.iter().all(merges)
}

/// Makes the operator of an aggregation. `input` is the schema of the rows, also for `Final`; `output` that of the changes.
///
/// # Errors
/// When an aggregate cannot take rows back and must.
pub(crate) fn group_aggregate(
    stage: Stage,
    spec: &GroupAggregate,
    input: &Schema,
    output: SchemaRef,
    context: OperatorContext,
) -> Result<Box<dyn Operator>> {
    match stage {
        Stage::Partial => Ok(Box::new(PartialGroupsOperator::new(spec, input)?)),
        _ => Ok(Box::new(GroupAggregateOperator::new(
            stage, spec, input, output, context,
        )?)),
    }
}

/// Returns the schema of what goes from `Partial` to `Final`: keys, how many rows more there are, the states by slot (of sets: the
/// members that come), and the key's hash as the last column.
pub(crate) fn partial_schema(spec: &GroupAggregate, input: &Schema) -> SchemaRef {
    let mut fields: Vec<Field> = spec.keys.iter().map(|&key| input.field(key).clone()).collect();
    fields.push(Field::new("__rows", DataType::Int64, false));
    for slot in layout(&spec.aggregates) {
        match slot {
            Layout::Single(call) => {
                let call = &spec.aggregates[call];
                let states = call.function.state_types().into_iter().enumerate();
                fields.extend(states.map(|(index, state)| Field::new(format!("{}.{index}", call.name), state, true)));
            }
            Layout::Distinct { calls, values } => {
                let name = format!("members.{}", spec.aggregates[calls[0]].name);
                fields.push(Field::new(
                    name,
                    members_type(&values, weight_of(input).is_some()),
                    true,
                ));
            }
        }
    }
    fields.push(Field::new("__key_hash", DataType::UInt64, false));
    Arc::new(Schema::new(fields))
}

/// The operator, in one of its stages with state.
struct GroupAggregateOperator {
    stage: Stage,
    keys: Vec<usize>,
    /// Where the weight of rows is; `None` for rows that are only added.
    weight: Option<usize>,
    decoder: KeyDecoder,
    key_fields: Vec<Field>,
    schema: SchemaRef,
    context: OperatorContext,
    groups: Groups,
    slots: Slots,
    ttl: Option<Ttl>,
    /// What is left behind of groups that have ended: their numbers and the members of their sets.
    garbage: usize,
    open: Touched,
    closing: Option<Closing>,
    scratch: Scratch,
}

/// The groups that the open tick has touched, in that order.
#[derive(Default)]
struct Touched {
    groups: Vec<u32>,
    /// For each its row in `old`, or [`NO_ROW`].
    old_of: Vec<u32>,
    /// The results before the tick, column by column, in pieces.
    old: Vec<Vec<ArrayRef>>,
    old_rows: u32,
}

/// What is being emitted.
struct Closing {
    /// The results before the tick.
    old: Vec<ArrayRef>,
    /// The next of the touched groups.
    next: usize,
}

#[derive(Default)]
struct Scratch {
    keys: EncodedKeys,
    groups: Vec<u32>,
}

impl GroupAggregateOperator {
    fn new(
        stage: Stage,
        spec: &GroupAggregate,
        input: &Schema,
        output: SchemaRef,
        context: OperatorContext,
    ) -> Result<Self> {
        let key_fields: Vec<Field> = spec.keys.iter().map(|&key| input.field(key).clone()).collect();
        let decoder = KeyDecoder::new(key_fields.iter().map(|field| field.data_type().clone()).collect());
        let weight = weight_of(input);
        let keys = match stage {
            Stage::Final => (0..spec.keys.len()).collect(),
            _ => spec.keys.clone(),
        };
        Ok(Self {
            stage,
            keys,
            weight,
            decoder,
            key_fields,
            schema: output,
            context,
            groups: Groups::new(weight.is_some()),
            slots: Slots::new(&spec.aggregates, weight.is_some())?,
            ttl: spec.ttl_ms.map(Ttl::new),
            garbage: 0,
            open: Touched::default(),
            closing: None,
            scratch: Scratch::default(),
        })
    }

    /// Notes groups that the tick touches for the first time, and reads their results.
    fn touch(&mut self, groups: &[u32]) -> Result<()> {
        let first = self.open.groups.len();
        self.groups.touch(groups, &mut self.open.groups);
        let mut had = Vec::new();
        for &group in &self.open.groups[first..] {
            if self.groups.is_live(group) {
                self.open.old_of.push(self.open.old_rows + had.len() as u32);
                had.push(group);
            } else {
                self.open.old_of.push(NO_ROW);
            }
        }
        if !had.is_empty() {
            self.open.old_rows += had.len() as u32;
            self.open.old.push(self.slots.results(&had)?);
        }
        Ok(())
    }

    /// Forgets the groups whose time is over.
    fn expire(&mut self, now_ms: i64) {
        let Some(ttl) = &mut self.ttl else { return };
        let expired = ttl.expired(now_ms);
        self.end(&expired);
    }

    /// Lets groups end.
    fn end(&mut self, groups: &[u32]) {
        for &group in groups {
            self.garbage += 1 + self.slots.members(group);
            self.groups.remove(group);
        }
    }

    /// Returns what the tick did to some of the groups it touched.
    fn changes_of(&self, old: &[ArrayRef], from: usize, count: usize) -> Result<RecordBatch> {
        let touched = &self.open.groups[from..from + count];
        let old_of = &self.open.old_of[from..from + count];
        let new = self.slots.results(touched)?;
        let had_row = |index: usize| old_of[index] != NO_ROW;
        let mut before: Vec<ArrayRef> = Vec::new();
        let mut same: Option<BooleanBuffer> = None;
        if (0..count).any(had_row) {
            let places = old_of.iter().map(|&place| (place != NO_ROW).then_some(place));
            let places = UInt32Array::from_iter(places);
            for (old, new) in old.iter().zip(&new) {
                let old = take(old, &places, None)?;
                let equal = equal_rows(&old, new)?;
                same = Some(same.map_or_else(|| equal.clone(), |known| &known & &equal));
                before.push(old);
            }
        }
        let (mut picks, mut weights) = (Vec::with_capacity(count * 2), Vec::with_capacity(count * 2));
        for (index, &group) in touched.iter().enumerate() {
            let (had, has) = (had_row(index), self.groups.has_rows(group));
            if had && has && same.as_ref().is_none_or(|same| same.value(index)) {
                continue;
            }
            if had {
                picks.push((0, index));
                weights.push(-1);
            }
            if has {
                picks.push((1, index));
                weights.push(1);
            }
        }
        if picks.is_empty() {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.schema)));
        }
        let rows = UInt32Array::from_iter_values(picks.iter().map(|&(_, index)| index as u32));
        let keys = self
            .decoder
            .decode(touched.iter().map(|&group| self.groups.key(group)))?;
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for key in &keys {
            columns.push(take(key, &rows, None)?);
        }
        for (index, new) in new.iter().enumerate() {
            columns.push(match before.get(index) {
                Some(before) => interleave(&[before.as_ref(), new.as_ref()], &picks)?,
                None => take(new, &rows, None)?,
            });
        }
        if weight_of(&self.schema).is_some() {
            columns.push(Arc::new(Int64Array::from(weights)));
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// Ends the tick: everything is emitted.
    fn settle(&mut self, now_ms: i64) -> Result<()> {
        let touched = std::mem::take(&mut self.open).groups;
        let mut ended = Vec::new();
        for &group in &touched {
            if self.groups.settle(group) {
                ended.push(group);
            }
        }
        if let Some(ttl) = &mut self.ttl {
            ttl.written(&touched, now_ms);
            ended.iter().for_each(|&group| ttl.forget(group));
        }
        self.end(&ended);
        self.groups.next_tick();
        self.expire(now_ms);
        if self.garbage > GARBAGE_MIN && self.garbage > self.groups.live_count() + self.slots.members_count() / 2 {
            self.renumber()?;
        }
        Ok(())
    }

    /// Numbers the groups that live anew, leaving everything else behind.
    fn renumber(&mut self) -> Result<()> {
        let kept = self.groups.live();
        let mut places = vec![NO_ROW; self.groups.len()];
        for (place, &group) in kept.iter().enumerate() {
            places[group as usize] = place as u32;
        }
        self.slots = self.slots.kept(&kept, &places)?;
        self.groups = self.groups.kept(&kept);
        if let Some(ttl) = &mut self.ttl {
            ttl.renumber(&places, kept.len());
        }
        self.garbage = 0;
        Ok(())
    }
}

impl Operator for GroupAggregateOperator {
    fn on_batch(&mut self, _input: usize, batch: &RecordBatch, tick: &OpenTick, _out: &mut Output) -> Result<Progress> {
        if self.open.groups.is_empty() {
            self.expire(tick.wall_time_ms);
        }
        let columns: Vec<ArrayRef> = self.keys.iter().map(|&key| Arc::clone(batch.column(key))).collect();
        encode_row_keys(&columns, batch.num_rows(), &mut self.scratch.keys)?;
        let mut groups = std::mem::take(&mut self.scratch.groups);
        let hashes = (self.stage == Stage::Final).then(|| {
            batch
                .column(batch.num_columns() - 1)
                .as_primitive::<UInt64Type>()
                .values()
        });
        self.groups
            .number(&self.scratch.keys, hashes.map(AsRef::as_ref), &mut groups);
        self.slots.resize(self.groups.len());
        if let Some(ttl) = &mut self.ttl {
            ttl.resize(self.groups.len());
        }
        self.touch(&groups)?;
        if let Some(&first) = groups.first() {
            // One key was encoded for all rows.
            groups.resize(batch.num_rows(), first);
        }
        let weights = |column: usize| batch.column(column).as_primitive::<Int64Type>().values().as_ref();
        match self.stage {
            Stage::Final => {
                let first = self.keys.len();
                self.groups.add_rows(&groups, weights(first));
                self.slots.merge(&batch.columns()[first + 1..], &groups)?;
            }
            _ => {
                let weights = self.weight.map(weights);
                if let Some(weights) = weights {
                    self.groups.add_rows(&groups, weights);
                }
                self.slots.update(&Rows::new(batch, weights), &groups)?;
            }
        }
        self.scratch.groups = groups;
        Ok(Progress::Done)
    }

    fn on_close(&mut self, close: &TickClose, out: &mut Output) -> Result<Progress> {
        let closing = match self.closing.take() {
            Some(closing) => closing,
            None => {
                let pieces = std::mem::take(&mut self.open.old);
                let columns = pieces.first().map_or(0, Vec::len);
                let whole = |column: usize| {
                    let pieces: Vec<_> = pieces.iter().map(|piece| piece[column].as_ref()).collect();
                    concat(&pieces)
                };
                Closing {
                    old: (0..columns).map(whole).collect::<Result<Vec<_>, _>>()?,
                    next: 0,
                }
            }
        };
        let Closing { old, mut next } = closing;
        while next < self.open.groups.len() {
            if out.is_full() {
                self.closing = Some(Closing { old, next });
                return Ok(Progress::More);
            }
            let budget = (out.budget_left() / 2).max(1);
            let count = (self.open.groups.len() - next).min(BATCH_GROUPS).min(budget);
            out.emit(self.changes_of(&old, next, count)?);
            next += count;
        }
        self.settle(close.wall_time_ms)?;
        Ok(Progress::Done)
    }

    fn capture(&mut self) -> Result<Vec<StateSection>> {
        let sections = self.capture_sections()?;
        sections.into_iter().map(CapturedSection::encode).collect()
    }

    fn capture_sections(&mut self) -> Result<Vec<CapturedSection>> {
        let size = self.groups.size() + self.slots.size() + self.ttl.as_ref().map_or(0, Ttl::size);
        self.context.metrics.state_bytes.set(size as u64);
        snapshot::capture(self)
    }

    fn restore(&mut self, sections: &[StateSection]) -> Result<()> {
        snapshot::restore(self, sections)
    }
}

/// Encodes the keys of rows; only the first when it is that of all.
fn encode_row_keys(columns: &[ArrayRef], rows: usize, keys: &mut EncodedKeys) -> Result<()> {
    if rows > 1 && is_constant(columns) {
        let first: Vec<ArrayRef> = columns.iter().map(|column| column.slice(0, 1)).collect();
        return encode_keys(&first, 1, keys);
    }
    encode_keys(columns, rows, keys)
}

/// Says which rows of two columns are equal; nulls are.
fn equal_rows(old: &ArrayRef, new: &ArrayRef) -> Result<BooleanBuffer> {
    if !old.data_type().is_nested() {
        return Ok(not_distinct(old, new)?.values().clone());
    }
    let compare = make_comparator(old, new, SortOptions::default())?;
    Ok((0..old.len()).map(|row| compare(row, row).is_eq()).collect())
}

/// Returns an error about state that is not what the query needs.
fn not_restorable(what: &str) -> Error {
    Error::Checkpoint(format!(
        "the aggregation's state has no {what}: the query has changed; start without this state \
         (allow_non_restored_state) or restore the query"
    ))
    .permanent()
}

#[cfg(test)]
mod tests;
