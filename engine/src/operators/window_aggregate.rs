//! Aggregation per key and window.
//!
//! ```text
//!  one worker:     rows ─▶ Whole ─▶ results
//!  several:        rows ─▶ Partial ─▶ states ─ exchange by key hash ─▶ Final ─▶ results
//!                  rows ─ exchange by key ─▶ Whole ─▶ results          (a state that is no column, such as a set)
//! ```
//! A partial aggregation holds nothing beyond its tick: it emits its states when the tick closes, and where keys hardly
//! repeat within a tick it turns every row into a state at once instead of looking for groups. The other two hold
//! one [`WindowState`] per open window and drop it as a whole when the watermark passes the window's end.
//!
//! File map: `rows` finds the window of each row, `state` is one window's groups, `snapshot` its durable form.

mod rows;
mod snapshot;
mod state;

use crate::aggregate::AggregateCall;
use crate::error::{Error, Result};
use crate::graph::{WindowAggregate, WindowAssigner};
use crate::key::{EncodedKeys, KeyDecoder, encode_keys, hash_columns, key_hash};
use crate::operator::{OpenTick, Operator, OperatorContext, Output, Progress, StateSection, TickClose};
use crate::time::Watermark;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
pub(crate) use rows::millis;
use rows::{WindowRows, Windows};
use state::{Input, WindowState, states_of_rows};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows per emitted batch.
const BATCH_ROWS: usize = 8192;

/// A partial aggregation that finds fewer than this many rows per group is not worth its hash table.
const ROWS_PER_GROUP_MIN: usize = 2;

/// It then lets rows through for this many ticks before it looks again.
const TICKS_UNTIL_NEXT_LOOK: u32 = 32;

/// A window, ordered by its end: the order in which windows fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Window {
    end_ms: i64,
    start_ms: i64,
}

/// Which part of the aggregation an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Rows in, results out.
    Whole,
    /// Rows in, states of this tick out.
    Partial,
    /// States in, results out.
    Final,
}

/// Says whether an aggregation can be done in two stages: every function's state is made of columns.
pub(crate) fn has_partial_stage(spec: &WindowAggregate) -> bool {
    spec.aggregates
        .iter()
        .all(|call| !call.function.state_types().is_empty())
}

/// Returns the schema of the states that go from `Partial` to `Final`: keys, start and end of the window in
/// milliseconds, the states, and the key's hash as the last column.
pub(crate) fn partial_schema(spec: &WindowAggregate, input: &Schema) -> SchemaRef {
    let mut fields: Vec<Field> = spec.keys.iter().map(|&key| input.field(key).clone()).collect();
    fields.push(Field::new("__window_start", DataType::Int64, false));
    fields.push(Field::new("__window_end", DataType::Int64, false));
    for call in &spec.aggregates {
        for (index, state) in call.function.state_types().into_iter().enumerate() {
            fields.push(Field::new(format!("{}.{index}", call.name), state, true));
        }
    }
    fields.push(Field::new("__key_hash", DataType::UInt64, false));
    Arc::new(Schema::new(fields))
}

/// The operator, in one of its three stages.
pub(crate) struct WindowAggregateOperator {
    stage: Stage,
    keys: Vec<usize>,
    windows: Windows,
    aggregates: Vec<AggregateCall>,
    decoder: KeyDecoder,
    key_fields: Vec<Field>,
    schema: SchemaRef,
    context: OperatorContext,
    open: BTreeMap<Window, WindowState>,
    /// The window being emitted and the next of its groups.
    emitting: Option<(Window, usize)>,
    scratch: Scratch,
    gain: Gain,
}

/// What a partial aggregation gains: rows and groups of the tick, and how long rows go through without it.
#[derive(Default)]
struct Gain {
    rows: usize,
    groups: usize,
    ticks_without: u32,
}

impl Gain {
    fn next_tick(&mut self) {
        if self.ticks_without > 0 {
            self.ticks_without -= 1;
        } else if self.rows >= BATCH_ROWS && self.rows < self.groups * ROWS_PER_GROUP_MIN {
            self.ticks_without = TICKS_UNTIL_NEXT_LOOK;
        }
        (self.rows, self.groups) = (0, 0);
    }
}

#[derive(Default)]
struct Scratch {
    keys: EncodedKeys,
    hashes: Vec<u64>,
    groups: Vec<u32>,
}

impl WindowAggregateOperator {
    /// Makes the operator. `input` is the schema of the rows, also for `Final`; `output` that of the results.
    pub(crate) fn new(
        stage: Stage,
        spec: &WindowAggregate,
        input: &Schema,
        output: SchemaRef,
        context: OperatorContext,
    ) -> Result<Self> {
        let key_fields: Vec<Field> = spec.keys.iter().map(|&key| input.field(key).clone()).collect();
        let decoder = KeyDecoder::new(key_fields.iter().map(|field| field.data_type().clone()).collect());
        let (keys, windows) = match stage {
            Stage::Final => {
                let keys = spec.keys.len();
                (
                    (0..keys).collect(),
                    Windows::new(&WindowAssigner::Attached {
                        start: keys,
                        end: keys + 1,
                    }),
                )
            }
            _ => (spec.keys.clone(), Windows::new(&spec.window)),
        };
        let schema = if stage == Stage::Partial {
            partial_schema(spec, input)
        } else {
            output
        };
        Ok(Self {
            stage,
            keys,
            windows,
            aggregates: spec.aggregates.clone(),
            decoder,
            key_fields,
            schema,
            context,
            open: BTreeMap::new(),
            emitting: None,
            scratch: Scratch::default(),
            gain: Gain::default(),
        })
    }

    /// Adds the rows of one window.
    fn add(&mut self, window: Window, batch: &RecordBatch, out: &mut Output) -> Result<()> {
        let rows = batch.num_rows();
        let mut columns: Vec<ArrayRef> = self.keys.iter().map(|&key| Arc::clone(batch.column(key))).collect();
        let Scratch { keys, hashes, groups } = &mut self.scratch;
        if self.stage == Stage::Partial && self.gain.ticks_without > 0 {
            hash_columns(&columns, rows, keys, hashes)?;
            columns.push(Arc::new(Int64Array::from_value(window.start_ms, rows)));
            columns.push(Arc::new(Int64Array::from_value(window.end_ms, rows)));
            columns.extend(states_of_rows(&self.aggregates, batch)?);
            columns.push(Arc::new(UInt64Array::from_iter_values(hashes.iter().copied())));
            out.emit(RecordBatch::try_new(Arc::clone(&self.schema), columns)?);
            return Ok(());
        }
        encode_keys(&columns, rows, keys)?;
        if self.stage == Stage::Final {
            let column = batch.column(batch.num_columns() - 1).as_primitive::<UInt64Type>();
            hashes.clear();
            hashes.extend_from_slice(column.values());
        } else {
            hashes.clear();
            hashes.extend((0..rows).map(|row| key_hash(keys.key(row))));
        }
        let state = self
            .open
            .entry(window)
            .or_insert_with(|| WindowState::new(&self.aggregates));
        let before = state.len();
        state.groups_of(hashes, keys, groups);
        self.gain.rows += rows;
        self.gain.groups += state.len() - before;
        let input = match self.stage {
            Stage::Final => Input::States {
                first: self.keys.len() + 2,
            },
            _ => Input::Rows,
        };
        state.add(&self.aggregates, input, batch, groups)
    }

    /// Emits groups of a window from `next` on; returns the next group, or `None` when the window is through.
    fn emit(&self, window: Window, next: usize, out: &mut Output) -> Result<Option<usize>> {
        let state = &self.open[&window];
        let mut next = next;
        while next < state.len() {
            let rows = (state.len() - next).min(BATCH_ROWS).min(out.budget_left());
            if rows == 0 {
                return Ok(Some(next));
            }
            let groups: Vec<u32> = (next as u32..(next + rows) as u32).collect();
            out.emit(self.batch_of(window, state, &groups)?);
            next += rows;
        }
        Ok(None)
    }

    fn batch_of(&self, window: Window, state: &WindowState, groups: &[u32]) -> Result<RecordBatch> {
        let mut columns = self.decoder.decode(groups.iter().map(|&group| state.key(group)))?;
        if self.stage == Stage::Partial {
            columns.push(Arc::new(Int64Array::from_value(window.start_ms, groups.len())));
            columns.push(Arc::new(Int64Array::from_value(window.end_ms, groups.len())));
            columns.extend(state.states(groups)?);
            columns.push(Arc::new(UInt64Array::from_iter_values(
                groups.iter().map(|&group| key_hash(state.key(group))),
            )));
        } else {
            for (ms, index) in [(window.start_ms, self.keys.len()), (window.end_ms, self.keys.len() + 1)] {
                columns.push(rows::timestamps(
                    ms,
                    groups.len(),
                    self.schema.field(index).data_type(),
                )?);
            }
            columns.extend(state.results(groups)?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// Emits all windows up to a watermark, as far as the budget allows.
    fn fire(&mut self, watermark: Watermark, out: &mut Output) -> Result<Progress> {
        loop {
            let (window, next) = match self.emitting.take() {
                Some(emitting) => emitting,
                None => match self.open.first_key_value() {
                    Some((&window, _)) if watermark.has_passed_window(window.end_ms) => (window, 0),
                    _ => return Ok(Progress::Done),
                },
            };
            match self.emit(window, next, out)? {
                Some(next) => {
                    self.emitting = Some((window, next));
                    return Ok(Progress::More);
                }
                None => {
                    self.open.remove(&window);
                }
            }
        }
    }
}

impl Operator for WindowAggregateOperator {
    fn on_batch(&mut self, _input: usize, batch: &RecordBatch, tick: &OpenTick, out: &mut Output) -> Result<Progress> {
        let watermark = tick.watermarks.first().copied().unwrap_or(Watermark::NONE);
        match self.windows.of(batch)? {
            WindowRows::One(window) => {
                if watermark.has_passed_window(window.end_ms) {
                    self.context.metrics.rows_late.add(batch.num_rows() as u64);
                } else {
                    self.add(window, batch, out)?;
                }
            }
            WindowRows::Many(windows) => {
                for (window, rows) in windows {
                    if watermark.has_passed_window(window.end_ms) {
                        self.context.metrics.rows_late.add(rows.len() as u64);
                    } else {
                        let rows = UInt32Array::from(rows);
                        self.add(window, &arrow::compute::take_record_batch(batch, &rows)?, out)?;
                    }
                }
            }
        }
        Ok(Progress::Done)
    }

    fn on_close(&mut self, close: &TickClose, out: &mut Output) -> Result<Progress> {
        match self.stage {
            Stage::Partial => {
                let progress = self.fire(Watermark::END, out)?;
                if progress == Progress::Done {
                    self.gain.next_tick();
                }
                Ok(progress)
            }
            _ => self.fire(close.watermark(), out),
        }
    }

    fn capture(&mut self) -> Result<Vec<StateSection>> {
        if self.stage == Stage::Partial {
            return Ok(Vec::new());
        }
        let size: usize = self.open.values().map(WindowState::size).sum();
        self.context.metrics.state_bytes.set(size as u64);
        snapshot::capture(
            &self.open,
            &self.key_fields,
            &self.decoder,
            &self.aggregates,
            self.context.key_groups,
        )
    }

    fn restore(&mut self, sections: &[StateSection]) -> Result<()> {
        if self.stage == Stage::Partial && !sections.is_empty() {
            return Err(Error::Internal("a partial aggregation has no state".into()));
        }
        snapshot::restore(
            sections,
            &mut self.open,
            &self.key_fields,
            &self.aggregates,
            self.context.key_groups,
        )
    }
}

/// Returns the boolean column of a filter.
fn filter_column<'a>(batch: &'a RecordBatch, call: &AggregateCall) -> Result<Option<&'a BooleanArray>> {
    let Some(index) = call.filter else { return Ok(None) };
    let column = batch.column(index);
    match column.as_boolean_opt() {
        Some(filter) => Ok(Some(filter)),
        None => Err(Error::operator(format!(
            "the filter of {} is {}, not a boolean",
            call.name,
            column.data_type()
        ))),
    }
}

#[cfg(test)]
mod tests;
