//! Aggregation per key and window.
//!
//! ```text
//!  one worker:     rows ─▶ Whole ─▶ results
//!  several:        rows ─▶ Partial ─▶ states ─ exchange by key hash ─▶ Final ─▶ results
//!                  rows ─ exchange by key ─▶ Whole ─▶ results          (a state that is no column, such as a set)
//! ```
//! A partial aggregation holds nothing beyond its tick: it emits its states when the tick closes, and where keys hardly
//! repeat within a tick it turns every row into a state at once instead of looking for groups. The other two hold
//! one [`WindowState`] per open window and drop it as a whole when the watermark passes the window's end. Sessions are
//! aggregated in the same stages: what goes through the exchange is the sessions that the rows of one worker and tick make.
//!
//! Windows that overlap are made of panes. Then a [`WindowState`] holds a pane, and firing a window merges its panes.
//!
//! File map: `rows` finds the window of each row, `panes` the panes of windows, `state` is the groups of one window or pane,
//! `sliding` merges panes from window to window, `sessions` holds sessions, `session` aggregates them, `session_partial` those of a
//! tick, and `session_rows` gives rows theirs, `updating` tells windows before and after their end too, as `updating_sessions` does
//! sessions, and `told` keeps what they told, `snapshot` is the durable form, `keyed` that of accumulators without windows.

mod keyed;
mod panes;
mod rows;
mod session;
mod session_partial;
mod session_rows;
mod sessions;
mod sliding;
mod snapshot;
mod state;
mod told;
mod updating;
mod updating_sessions;

use crate::aggregate::{Accumulator, AggregateCall};
use crate::error::{Error, Result};
use crate::graph::{TimeDomain, Updates, WindowAggregate, WindowAssigner};
use crate::key::{EncodedKeys, KeyDecoder, encode_keys, hash_columns, key_hash};
use crate::operator::{OpenTick, Operator, OperatorContext, Output, Progress, StateSection, TickClose};
use crate::time::Watermark;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
pub(super) use keyed::{Keyed, capture_keyed, restore_keyed};
pub(crate) use panes::Panes;
use rows::{WindowRows, Windows};
pub(crate) use rows::{millis, timestamps_of};
use session::SessionAggregateOperator;
use session_partial::PartialSessionsOperator;
pub(crate) use session_rows::SessionRowsOperator;
use sliding::Sliding;
use snapshot::Restored;
use state::{Input, WindowState, states_of_rows};
use std::collections::BTreeMap;
use std::sync::Arc;
use updating::UpdatingAggregateOperator;
use updating_sessions::UpdatingSessionsOperator;

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

/// Says whether an aggregation can be done in two stages: every function's state goes over the exchange as columns, whatever
/// order the rows come in. Sessions that are told more than once are made of rows.
pub(crate) fn has_partial_stage(spec: &WindowAggregate) -> bool {
    let is_session = matches!(spec.window, WindowAssigner::Session { .. });
    !(is_session && spec.updates.is_some())
        && spec
            .aggregates
            .iter()
            .all(|call| !call.function.partial_types().is_empty() && !call.function.needs_order())
}

/// Makes the operator of an aggregation. `input` is the schema of the rows, also for `Final`; `output` that of the results.
///
/// # Errors
/// When what is asked for does not fit together.
pub(crate) fn window_aggregate(
    stage: Stage,
    spec: &WindowAggregate,
    input: &Schema,
    output: SchemaRef,
    context: OperatorContext,
) -> Result<Box<dyn Operator>> {
    match (&spec.window, stage) {
        (WindowAssigner::Session { .. }, Stage::Partial) => Ok(Box::new(PartialSessionsOperator::new(spec, input)?)),
        (WindowAssigner::Session { .. }, Stage::Whole) if let Some(updates) = spec.updates => Ok(Box::new(
            UpdatingSessionsOperator::new(spec, updates, input, output, context)?,
        )),
        (WindowAssigner::Session { .. }, _) => Ok(Box::new(SessionAggregateOperator::new(
            stage, spec, input, output, context,
        )?)),
        (_, Stage::Whole | Stage::Final) if let Some(updates) = spec.updates => Ok(Box::new(
            UpdatingAggregateOperator::new(stage, spec, updates, input, output, context)?,
        )),
        _ => Ok(Box::new(WindowAggregateOperator::new(
            stage, spec, input, output, context,
        )?)),
    }
}

/// Returns the schema of the states that go from `Partial` to `Final`: keys, start and end of the window in
/// milliseconds, of sessions how many rows they are, the states, and the key's hash as the last column.
pub(crate) fn partial_schema(spec: &WindowAggregate, input: &Schema) -> SchemaRef {
    let mut fields: Vec<Field> = spec.keys.iter().map(|&key| input.field(key).clone()).collect();
    fields.push(Field::new("__window_start", DataType::Int64, false));
    fields.push(Field::new("__window_end", DataType::Int64, false));
    if matches!(spec.window, WindowAssigner::Session { .. }) {
        fields.push(Field::new("__rows", DataType::Int64, false));
    }
    for call in &spec.aggregates {
        for (index, state) in call.function.partial_types().into_iter().enumerate() {
            fields.push(Field::new(format!("{}.{index}", call.name), state, true));
        }
    }
    fields.push(Field::new("__key_hash", DataType::UInt64, false));
    Arc::new(Schema::new(fields))
}

/// The operator, in one of its three stages.
struct WindowAggregateOperator {
    stage: Stage,
    time: TimeDomain,
    /// How much longer rows are taken in than windows are open; above 0 only in a partial aggregation.
    lateness_ms: i64,
    keys: Vec<usize>,
    windows: Windows,
    aggregates: Vec<AggregateCall>,
    decoder: KeyDecoder,
    key_fields: Vec<Field>,
    schema: SchemaRef,
    context: OperatorContext,
    /// The state of each open window, or of each pane.
    open: BTreeMap<Window, WindowState>,
    /// For windows that overlap: of which panes they are made.
    panes: Option<Panes>,
    /// The panes of the window that fired last.
    sliding: Sliding,
    /// Windows that end here or before have fired.
    fired_end_ms: i64,
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
    fn new(
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
            time: spec.time,
            lateness_ms: spec.time.lateness_ms(spec.updates),
            keys,
            windows,
            aggregates: spec.aggregates.clone(),
            decoder,
            key_fields,
            schema,
            context,
            open: BTreeMap::new(),
            panes: Panes::of(&spec.window),
            sliding: Sliding::new(&spec.aggregates),
            fired_end_ms: i64::MIN,
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
        self.sliding.touched(window);
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
            return self.results_of(window, columns, state.results(groups)?, groups.len());
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// Says whether all windows that a window's or pane's rows are in have fired.
    fn is_late(&self, window: Window, watermark: Watermark) -> bool {
        let last_end_ms = self.panes.map_or(window.end_ms, |panes| panes.last_end(window));
        watermark.has_passed_window(last_end_ms)
    }

    /// Emits all windows that are made of panes and end at or before `until_ms`, as far as the budget allows.
    fn fire_panes(&mut self, panes: Panes, until_ms: i64, out: &mut Output) -> Result<Progress> {
        loop {
            let (window, next) = match self.emitting.take() {
                Some(emitting) => emitting,
                None => {
                    let oldest = self.open.first_key_value().map(|(&pane, _)| pane);
                    let from_ms = oldest.map(|pane| pane.end_ms.max(self.fired_end_ms.saturating_add(1)));
                    let window = from_ms.map(|from_ms| panes.window_from(from_ms));
                    let Some(window) = window.filter(|window| window.end_ms <= until_ms) else {
                        self.fired_end_ms = self.fired_end_ms.max(until_ms);
                        return Ok(Progress::Done);
                    };
                    self.sliding.advance(&self.aggregates, &self.open, window.end_ms)?;
                    (window, 0)
                }
            };
            let mut next = next;
            while next < self.sliding.len() {
                let rows = BATCH_ROWS.min(out.budget_left());
                if rows == 0 {
                    self.emitting = Some((window, next));
                    return Ok(Progress::More);
                }
                let (groups, after) = self.sliding.groups_from(next, rows);
                let keys = self
                    .decoder
                    .decode(groups.iter().map(|&group| self.sliding.key(group)))?;
                let results = self.sliding.results(&self.aggregates, &groups)?;
                out.emit(self.results_of(window, keys, results, groups.len())?);
                next = after;
            }
            self.fired_end_ms = self.fired_end_ms.max(window.end_ms);
            while let Some((&pane, _)) = self.open.first_key_value()
                && panes.last_end(pane) <= self.fired_end_ms
            {
                self.sliding.remove(&self.aggregates, &self.open, pane)?;
                self.open.remove(&pane);
            }
        }
    }

    /// Puts a batch of results together.
    fn results_of(
        &self,
        window: Window,
        keys: Vec<ArrayRef>,
        results: Vec<ArrayRef>,
        rows: usize,
    ) -> Result<RecordBatch> {
        let mut columns = keys;
        for (ms, index) in [(window.start_ms, self.keys.len()), (window.end_ms, self.keys.len() + 1)] {
            columns.push(rows::timestamps(ms, rows, self.schema.field(index).data_type())?);
        }
        columns.extend(results);
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
        let watermark = self.time.before(tick).delayed_by(self.lateness_ms);
        self.fired_end_ms = self.fired_end_ms.max(watermark.last_window_end_ms());
        match self.windows.of(batch)? {
            WindowRows::One(window) => {
                if self.is_late(window, watermark) {
                    self.context.metrics.rows_late.add(batch.num_rows() as u64);
                } else {
                    self.add(window, batch, out)?;
                }
            }
            WindowRows::Many(windows) => {
                for (window, rows) in windows {
                    if self.is_late(window, watermark) {
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
            _ => match self.panes {
                Some(panes) => self.fire_panes(panes, self.time.reached(close).last_window_end_ms(), out),
                None => self.fire(self.time.reached(close), out),
            },
        }
    }

    fn capture(&mut self) -> Result<Vec<StateSection>> {
        if self.stage == Stage::Partial {
            return Ok(Vec::new());
        }
        let size: usize = self.open.values().map(WindowState::size).sum::<usize>() + self.sliding.size();
        self.context.metrics.state_bytes.set(size as u64);
        snapshot::capture(
            self.fired_end_ms,
            snapshot::chunks_of(self.open.iter().map(|(&window, state)| (window, state))),
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
        let mut open = OpenWindows {
            open: &mut self.open,
            aggregates: &self.aggregates,
        };
        let fired_end_ms = snapshot::restore(
            sections,
            &mut open,
            &self.key_fields,
            &self.aggregates,
            self.context.key_groups,
        )?;
        self.fired_end_ms = self.fired_end_ms.max(fired_end_ms);
        Ok(())
    }

    fn next_timer_ms(&self) -> Option<i64> {
        if self.time == TimeDomain::EventTime || self.stage == Stage::Partial {
            return None;
        }
        let (&first, _) = self.open.first_key_value()?;
        Some(match self.panes {
            Some(panes) => {
                let from_ms = first.end_ms.max(self.fired_end_ms.saturating_add(1));
                panes.window_from(from_ms).end_ms
            }
            None => first.end_ms,
        })
    }
}

impl TimeDomain {
    /// Returns how far time was before a tick, as a watermark: rows at or before it are late.
    pub(super) fn before(self, tick: &OpenTick) -> Watermark {
        match self {
            Self::EventTime => tick.watermarks.first().copied().unwrap_or(Watermark::NONE),
            Self::ProcessingTime => Watermark::NONE,
        }
    }

    /// Returns for how long behind its end a window takes rows in.
    fn lateness_ms(self, updates: Option<Updates>) -> i64 {
        match (self, updates) {
            (Self::EventTime, Some(updates)) => updates.allowed_lateness_ms,
            _ => 0,
        }
    }

    /// Returns how far time is at the close of a tick, as a watermark.
    pub(super) fn reached(self, close: &TickClose) -> Watermark {
        match self {
            Self::EventTime => close.watermark(),
            Self::ProcessingTime => Watermark(close.wall_time_ms.saturating_sub(1)),
        }
    }
}

/// Windows that are being restored.
struct OpenWindows<'a> {
    open: &'a mut BTreeMap<Window, WindowState>,
    aggregates: &'a [AggregateCall],
}

impl Restored for OpenWindows<'_> {
    fn place(&mut self, window: Window, hash: u64, key: &[u8]) -> (Window, u32) {
        let state = self.open.entry(window);
        let state = state.or_insert_with(|| WindowState::new(self.aggregates));
        (window, state.group(hash, key))
    }

    fn accumulators(&mut self, window: Window) -> Option<&mut [Box<dyn Accumulator>]> {
        self.open.get_mut(&window).map(WindowState::accumulators_mut)
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
