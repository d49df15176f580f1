//! Computes functions of frames.

use super::steps::Steps;
use super::{Past, Plan};
use crate::aggregate::{Accumulator, AggregateCall, Count, EncodedState};
use crate::error::{Error, Result};
use crate::graph::OverFunction;
use crate::rows::{RowRef, RowStore};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{concat, interleave, take};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Rows of frames that are looked at again together, at most, but for those of one frame.
const AGAIN_ROWS: usize = 65_536;

/// How a function is computed. Columns are those that are kept.
enum How {
    /// By the accumulators of this number, step by step.
    Accumulated(usize),
    /// By looking at the whole frame again: the function cannot take back a row.
    Again(AggregateCall),
    Lag {
        value: usize,
        offset: usize,
        default: Option<usize>,
    },
    First(usize),
    Last(usize),
}

/// The functions and their state.
pub(super) struct Calls {
    how: Vec<How>,
    /// The functions with accumulators.
    pub(super) aggregates: Vec<AggregateCall>,
    pub(super) accumulators: Vec<Box<dyn Accumulator>>,
}

/// Rows of keys, by their place in the past and among those that are due.
#[derive(Default)]
struct Picked {
    history: Vec<RowRef>,
    /// 0 and the place in `history`, or 1 and the row that is due.
    places: Vec<(usize, usize)>,
}

impl Picked {
    /// Adds a row of a key, counted from its oldest one in the past.
    fn push(&mut self, steps: &Steps, past: &[VecDeque<Past>], key: usize, row: usize) {
        let key = &steps.keys[key];
        let past = &past[key.group as usize];
        match past.get(row) {
            Some(past) => self.push_past(past.row),
            None => self.push_due(steps.by_key[key.rows.start + row - past.len()]),
        }
    }

    fn push_past(&mut self, row: RowRef) {
        self.places.push((0, self.history.len()));
        self.history.push(row);
    }

    fn push_due(&mut self, row: u32) {
        self.places.push((1, row as usize));
    }

    fn column(&self, plan: &Plan, batch: &RecordBatch, history: &RowStore, kept: usize) -> Result<ArrayRef> {
        let past = history.gather(&self.history, &[plan.in_history(kept)])?;
        let [past] = past.as_slice() else {
            return Err(Error::Internal("a gathered column is missing".into()));
        };
        Ok(interleave(&[past.as_ref(), batch.column(kept).as_ref()], &self.places)?)
    }
}

/// What a function takes: its arguments, and which rows count.
struct Arguments {
    columns: Vec<ArrayRef>,
    filter: Option<ArrayRef>,
}

impl Arguments {
    fn of(call: &AggregateCall, column: &dyn Fn(usize) -> Result<ArrayRef>) -> Result<Self> {
        Ok(Self {
            columns: call
                .arguments
                .iter()
                .map(|&index| column(index))
                .collect::<Result<_>>()?,
            filter: call.filter.map(column).transpose()?,
        })
    }

    fn slice(&self, rows: &Range<usize>) -> Self {
        let slice = |column: &ArrayRef| column.slice(rows.start, rows.len());
        Self {
            columns: self.columns.iter().map(slice).collect(),
            filter: self.filter.as_ref().map(slice),
        }
    }

    fn filter(&self) -> Result<Option<&BooleanArray>> {
        let boolean = |filter: &'_ ArrayRef| -> Result<()> {
            match filter.as_boolean_opt() {
                Some(_) => Ok(()),
                None => Err(Error::operator("the filter of an aggregate is not a boolean")),
            }
        };
        self.filter.as_ref().map(boolean).transpose()?;
        Ok(self.filter.as_ref().and_then(|filter| filter.as_boolean_opt()))
    }

    /// Returns the states that rows are, each by itself.
    fn states(&self, call: &AggregateCall, rows: usize) -> Result<EncodedState> {
        let groups: Vec<u32> = (0..rows as u32).collect();
        let mut accumulator = call.function.accumulator();
        accumulator.resize(rows);
        accumulator.update(&self.columns, &groups, self.filter()?)?;
        accumulator.encode(&groups)
    }
}

impl Calls {
    pub(super) fn new(plan: &Plan) -> Self {
        let place = |column: usize| plan.kept.partition_point(|known| *known < column);
        let (mut how, mut aggregates) = (Vec::new(), Vec::new());
        for (name, function) in &plan.spec.functions {
            let call = match function {
                OverFunction::Aggregate(call) => AggregateCall {
                    function: Arc::clone(&call.function),
                    arguments: call.arguments.iter().map(|&column| place(column)).collect(),
                    filter: call.filter.map(place),
                    name: name.clone(),
                },
                OverFunction::RowNumber => AggregateCall {
                    function: Arc::new(Count::new()),
                    arguments: Vec::new(),
                    filter: None,
                    name: name.clone(),
                },
                OverFunction::Lag { value, offset, default } => {
                    how.push(How::Lag {
                        value: place(*value),
                        offset: usize::try_from(*offset).unwrap_or(usize::MAX),
                        default: default.map(place),
                    });
                    continue;
                }
                OverFunction::FirstValue(value) => {
                    how.push(How::First(place(*value)));
                    continue;
                }
                OverFunction::LastValue(value) => {
                    how.push(How::Last(place(*value)));
                    continue;
                }
            };
            if plan.is_bounded() && !call.function.accumulator().can_retract() {
                how.push(How::Again(call));
            } else {
                how.push(How::Accumulated(aggregates.len()));
                aggregates.push(call);
            }
        }
        let accumulators = aggregates.iter().map(|call| call.function.accumulator()).collect();
        Self {
            how,
            aggregates,
            accumulators,
        }
    }

    pub(super) fn resize(&mut self, groups: usize) {
        for accumulator in &mut self.accumulators {
            accumulator.resize(groups);
        }
    }

    pub(super) fn size(&self) -> usize {
        self.accumulators.iter().map(|accumulator| accumulator.size()).sum()
    }

    /// Computes all functions: a column each, a value per row that is due.
    pub(super) fn compute(
        &mut self,
        plan: &Plan,
        steps: &Steps,
        batch: &RecordBatch,
        past: &[VecDeque<Past>],
        firsts: &[Option<RowRef>],
        history: &RowStore,
    ) -> Result<Vec<ArrayRef>> {
        let of_row = UInt32Array::from(steps.of_row.clone());
        let mut results = Vec::with_capacity(self.how.len());
        for how in &self.how {
            let of_steps = match how {
                How::Accumulated(index) => {
                    let (call, accumulator) = (&self.aggregates[*index], &mut self.accumulators[*index]);
                    accumulated(call, accumulator.as_mut(), plan, steps, batch, past, history)?
                }
                How::Again(call) => again(call, plan, steps, batch, past, history)?,
                How::Lag { value, offset, default } => {
                    let lag = (*value, *offset, *default);
                    results.push(lagged(lag, plan, steps, batch, past, history)?);
                    continue;
                }
                How::First(value) => {
                    let mut picked = Picked::default();
                    for step in &steps.steps {
                        match firsts[step.group as usize] {
                            Some(first) if !plan.is_bounded() => picked.push_past(first),
                            _ => picked.push(steps, past, step.key, step.front_of(plan, past)),
                        }
                    }
                    picked.column(plan, batch, history, *value)?
                }
                How::Last(value) => {
                    let last = steps.steps.iter().map(|step| steps.by_key[step.rows.end - 1]);
                    take(batch.column(*value), &UInt32Array::from_iter_values(last), None)?
                }
            };
            results.push(take(&of_steps, &of_row, None)?);
        }
        Ok(results)
    }

    /// Takes back rows of the history, given as its columns.
    pub(super) fn retract(&mut self, plan: &Plan, columns: &[ArrayRef], groups: &[u32]) -> Result<()> {
        for (call, accumulator) in self.aggregates.iter().zip(&mut self.accumulators) {
            let column = |kept: usize| Ok(Arc::clone(&columns[plan.in_history(kept)]));
            let states = Arguments::of(call, &column)?.states(call, groups.len())?;
            accumulator.retract(&states, groups)?;
        }
        Ok(())
    }

    /// Makes the accumulators anew, of the rows of the history.
    pub(super) fn remake(&mut self, plan: &Plan, past: &[VecDeque<Past>], history: &RowStore) -> Result<()> {
        self.accumulators = self.aggregates.iter().map(|call| call.function.accumulator()).collect();
        self.resize(past.len());
        let all = past.iter().enumerate();
        let all: Vec<(u32, RowRef)> = all
            .flat_map(|(group, past)| past.iter().map(move |past| (group as u32, past.row)))
            .collect();
        let places: Vec<usize> = (0..plan.remembered.len()).collect();
        for part in all.chunks(AGAIN_ROWS) {
            let (groups, refs): (Vec<u32>, Vec<RowRef>) = part.iter().copied().unzip();
            let columns = history.gather(&refs, &places)?;
            for (call, accumulator) in self.aggregates.iter().zip(&mut self.accumulators) {
                let column = |kept: usize| Ok(Arc::clone(&columns[plan.in_history(kept)]));
                let states = Arguments::of(call, &column)?.states(call, groups.len())?;
                accumulator.decode(&states, &groups)?;
            }
        }
        Ok(())
    }

    /// Keeps the state of some keys: `kept[i]` becomes i; `past` is that of the new numbers.
    pub(super) fn keep(
        &mut self,
        plan: &Plan,
        kept: &[u32],
        past: &[VecDeque<Past>],
        history: &RowStore,
    ) -> Result<()> {
        if plan.is_bounded() {
            return self.remake(plan, past, history);
        }
        let groups: Vec<u32> = (0..kept.len() as u32).collect();
        for (call, accumulator) in self.aggregates.iter().zip(&mut self.accumulators) {
            let mut only = call.function.accumulator();
            only.resize(kept.len());
            only.decode(&accumulator.encode(kept)?, &groups)?;
            *accumulator = only;
        }
        Ok(())
    }
}

impl super::steps::Step {
    /// Returns the first row of the frame, or of all that are due where the frame has no beginning.
    fn front_of(&self, plan: &Plan, past: &[VecDeque<Past>]) -> usize {
        if plan.is_bounded() {
            self.front
        } else {
            past[self.group as usize].len()
        }
    }
}

/// Aggregates step by step; returns a value per step.
fn accumulated(
    call: &AggregateCall,
    accumulator: &mut dyn Accumulator,
    plan: &Plan,
    steps: &Steps,
    batch: &RecordBatch,
    past: &[VecDeque<Past>],
    history: &RowStore,
) -> Result<ArrayRef> {
    // The rows that come and those that leave, in the order of the steps.
    let (mut came, mut came_of, mut left, mut left_of) = (Vec::new(), Vec::new(), Picked::default(), Vec::new());
    let mut ends = Vec::with_capacity(steps.rounds.len());
    let mut next = 0;
    for &end in &steps.rounds {
        for step in &steps.steps[next..end] {
            came.extend_from_slice(&steps.by_key[step.rows.clone()]);
            came_of.resize(came.len(), step.group);
            for row in step.left.clone() {
                left.push(steps, past, step.key, row);
                left_of.push(step.group);
            }
        }
        ends.push((came.len(), left_of.len()));
        next = end;
    }
    let came = UInt32Array::from(came);
    let taken = |kept: usize| -> Result<ArrayRef> { Ok(take(batch.column(kept), &came, None)?) };
    let came = Arguments::of(call, &taken)?;
    let left = Arguments::of(call, &|kept| left.column(plan, batch, history, kept))?;
    // A state of columns is made of all rows at once.
    let is_set = call.function.state_types().is_empty();
    let all_states = |rows: &Arguments, count: usize| -> Result<Option<EncodedState>> {
        (plan.is_bounded() && !is_set)
            .then(|| rows.states(call, count))
            .transpose()
    };
    let (came_states, left_states) = (all_states(&came, came_of.len())?, all_states(&left, left_of.len())?);
    let part = |all: &Option<EncodedState>, of: &Arguments, rows: &Range<usize>| match all {
        Some(states) => {
            let columns = states.columns.iter().map(|column| column.slice(rows.start, rows.len()));
            Ok(EncodedState {
                owners: None,
                columns: columns.collect(),
            })
        }
        None => of.slice(rows).states(call, rows.len()),
    };
    let mut values = Vec::with_capacity(ends.len());
    let (mut came_from, mut left_from, mut step_from) = (0, 0, 0);
    for ((came_end, left_end), step_end) in ends.into_iter().zip(&steps.rounds) {
        let (came_rows, left_rows) = (came_from..came_end, left_from..left_end);
        let groups = &came_of[came_rows.clone()];
        if plan.is_bounded() {
            accumulator.decode(&part(&came_states, &came, &came_rows)?, groups)?;
            if !left_rows.is_empty() {
                let states = part(&left_states, &left, &left_rows)?;
                accumulator.retract(&states, &left_of[left_rows])?;
            }
        } else {
            let came = came.slice(&came_rows);
            accumulator.update(&came.columns, groups, came.filter()?)?;
        }
        let of_steps: Vec<u32> = steps.steps[step_from..*step_end]
            .iter()
            .map(|step| step.group)
            .collect();
        values.push(accumulator.evaluate(&of_steps)?);
        (came_from, left_from, step_from) = (came_end, left_end, *step_end);
    }
    together(&values)
}

/// Aggregates each frame by itself; returns a value per step.
fn again(
    call: &AggregateCall,
    plan: &Plan,
    steps: &Steps,
    batch: &RecordBatch,
    past: &[VecDeque<Past>],
    history: &RowStore,
) -> Result<ArrayRef> {
    let mut values = Vec::new();
    let mut next = 0;
    while next < steps.steps.len() {
        let (mut picked, mut groups, first) = (Picked::default(), Vec::new(), next);
        while next < steps.steps.len() && groups.len() < AGAIN_ROWS {
            let step = &steps.steps[next];
            let key = &steps.keys[step.key];
            let end = past[step.group as usize].len() + step.rows.end - key.rows.start;
            for row in step.front..end {
                picked.push(steps, past, step.key, row);
            }
            groups.resize(picked.places.len(), (next - first) as u32);
            next += 1;
        }
        let rows = Arguments::of(call, &|kept| picked.column(plan, batch, history, kept))?;
        let mut accumulator = call.function.accumulator();
        accumulator.resize(next - first);
        accumulator.update(&rows.columns, &groups, rows.filter()?)?;
        let all: Vec<u32> = (0..(next - first) as u32).collect();
        values.push(accumulator.evaluate(&all)?);
    }
    together(&values)
}

/// Returns earlier values: the column, how many rows before, and the column that stands in. A value per row.
fn lagged(
    (value, offset, default): (usize, usize, Option<usize>),
    plan: &Plan,
    steps: &Steps,
    batch: &RecordBatch,
    past: &[VecDeque<Past>],
    history: &RowStore,
) -> Result<ArrayRef> {
    let mut refs = Vec::new();
    // 0: of the past, 1: of rows that are due, 2: none.
    let mut places = vec![(2, 0); batch.num_rows()];
    for key in &steps.keys {
        let past = &past[key.group as usize];
        for (index, &row) in steps.by_key[key.rows.clone()].iter().enumerate() {
            let Some(before) = (past.len() + index).checked_sub(offset) else {
                places[row as usize] = (2, default.map_or(0, |_| row as usize));
                continue;
            };
            places[row as usize] = match past.get(before) {
                Some(past) => {
                    refs.push(past.row);
                    (0, refs.len() - 1)
                }
                None => (1, steps.by_key[key.rows.start + before - past.len()] as usize),
            };
        }
    }
    let gathered = history.gather(&refs, &[plan.in_history(value)])?;
    let [past] = gathered.as_slice() else {
        return Err(Error::Internal("a gathered column is missing".into()));
    };
    let due = batch.column(value);
    let none = default.map_or_else(
        || new_null_array(due.data_type(), 1),
        |column| Arc::clone(batch.column(column)),
    );
    Ok(interleave(&[past.as_ref(), due.as_ref(), none.as_ref()], &places)?)
}

fn together(values: &[ArrayRef]) -> Result<ArrayRef> {
    let arrays: Vec<&dyn Array> = values.iter().map(AsRef::as_ref).collect();
    Ok(concat(&arrays)?)
}
