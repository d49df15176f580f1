//! What is computed of the rows before each row: `agg(x) OVER (PARTITION BY k ORDER BY ts ...)`.
//!
//! ```text
//!  rows ─▶ pending, ordered by time ─ watermark passes ─▶ steps ─▶ results
//!                                                          ▲ │
//!                                    history: the newest frame of each key, or its accumulators
//! ```
//! Rows that have become due are worked on together: the rows (or rows of one time) of a key are its steps, and the n-th steps of
//! all keys are a round, which each accumulator takes with one call.
//!
//! Invariant between ticks: where a frame has a beginning, the accumulators of a key hold exactly the rows of its history.
//!
//! File map: `steps` finds the frames of rows, `calls` computes the functions.

mod calls;
mod steps;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::graph::{OverAggregate, OverFrame, OverFunction, TimeDomain};
use crate::key::{EncodedKeys, KeyDecoder, encode_keys, key_hash};
use crate::operator::{
    CapturedSection, OpenTick, Operator, OperatorContext, Output, Progress, StateSection, TickClose,
};
use crate::operators::group_table::GroupTable;
use crate::operators::window_aggregate::{Keyed, capture_keyed, restore_keyed};
use crate::rows::{RowKeys, RowRef, RowStore};
use crate::time::Watermark;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use calls::Calls;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use steps::Steps;

const PENDING: &str = "pending";
const HISTORY: &str = "history";

/// Rows that are worked on together at most, but for rows of one time.
const DUE_ROWS: usize = 8192;

/// Fewer rows than this that have gone are not worth compacting for.
const GONE_MIN: usize = 8192;

/// Fewer keys than this that have gone are not worth making everything anew.
const KEYS_GONE_MIN: usize = 1024;

/// The operator.
pub(crate) struct OverOperator {
    plan: Plan,
    keys: GroupTable,
    pending: RowStore,
    /// The rows that wait, the earliest first, and the key of each.
    due: BinaryHeap<Reverse<(i64, RowRef, u32)>>,
    /// How many rows of each key wait.
    waiting: Vec<u32>,
    history: RowStore,
    /// The rows of each key that are in the history, oldest first.
    past: Vec<VecDeque<Past>>,
    /// The first row of each key, where a function asks for it.
    firsts: Vec<Option<RowRef>>,
    calls: Calls,
    /// When each key was written last, where keys are forgotten by that.
    written_ms: Vec<i64>,
    next_sweep_ms: Option<i64>,
    gone: usize,
    /// How often a key lost its last row since all keys were looked at.
    emptied: usize,
    /// How often all keys were looked at.
    #[cfg(test)]
    walks: usize,
    scratch: Scratch,
}

#[derive(Default)]
struct Scratch {
    keys: EncodedKeys,
    hashes: Vec<u64>,
}

/// A row of the history.
#[derive(Clone, Copy, Debug)]
struct Past {
    time: i64,
    row: RowRef,
}

/// What does not change while the operator runs.
struct Plan {
    spec: OverAggregate,
    context: OperatorContext,
    output: SchemaRef,
    /// The input columns that rows keep while they wait.
    kept: Vec<usize>,
    /// Where the key, the time and the columns that are passed on are among them.
    keys: Vec<usize>,
    time: usize,
    passed: Vec<usize>,
    /// Which of the kept columns the history keeps: the key, the time, and the functions' arguments.
    remembered: Vec<usize>,
    key_fields: Vec<Field>,
    decoder: KeyDecoder,
    /// How many units of the time column are a millisecond.
    per_ms: i64,
    keeps: Keeps,
}

/// Which rows the history keeps of each key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeps {
    /// None.
    Nothing,
    /// The last ones: of a frame of rows, or what a lag asks for.
    Last(usize),
    /// Those at most so much older than the newest, in units of the time column.
    Since(i64),
}

impl Plan {
    fn new(spec: &OverAggregate, input: &Schema, output: SchemaRef, context: OperatorContext) -> Result<Self> {
        let arguments = spec.functions.iter().flat_map(|(_, function)| match function {
            OverFunction::Aggregate(call) => call.arguments.iter().chain(&call.filter).copied().collect(),
            OverFunction::RowNumber => Vec::new(),
            OverFunction::Lag { value, default, .. } => std::iter::once(*value).chain(*default).collect(),
            OverFunction::FirstValue(value) | OverFunction::LastValue(value) => vec![*value],
        });
        let mut remembered: Vec<usize> = arguments.chain(spec.keys.iter().copied()).chain([spec.time]).collect();
        remembered.sort_unstable();
        remembered.dedup();
        let mut kept: Vec<usize> = spec.passed.iter().copied().chain(remembered.iter().copied()).collect();
        kept.sort_unstable();
        kept.dedup();
        let place = |column: usize| kept.partition_point(|known| *known < column);
        let per_ms = match input.field(spec.time).data_type() {
            DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
            DataType::Timestamp(TimeUnit::Nanosecond, _) => 1_000_000,
            _ => 1,
        };
        let lag = spec.functions.iter().filter_map(|(_, function)| match function {
            OverFunction::Lag { offset, .. } => Some(*offset),
            _ => None,
        });
        let lag = lag.max().unwrap_or(0) as usize;
        let keeps = match spec.frame {
            // The row itself and those before it.
            OverFrame::Rows(Some(_)) | OverFrame::Range(Some(_)) if lag > 0 => {
                return Err(Error::Graph(
                    "a lag beside a frame with a beginning is not supported; give it an operator of its own".into(),
                ));
            }
            OverFrame::Rows(Some(preceding)) => Keeps::Last((preceding as usize).saturating_add(1)),
            OverFrame::Range(Some(preceding_ms)) => Keeps::Since(preceding_ms.saturating_mul(per_ms)),
            _ if lag > 0 => Keeps::Last(lag),
            _ => Keeps::Nothing,
        };
        let key_fields: Vec<Field> = spec.keys.iter().map(|&key| input.field(key).clone()).collect();
        Ok(Self {
            keys: spec.keys.iter().map(|&key| place(key)).collect(),
            time: place(spec.time),
            passed: spec.passed.iter().map(|&column| place(column)).collect(),
            remembered: remembered.into_iter().map(place).collect(),
            decoder: KeyDecoder::new(key_fields.iter().map(|field| field.data_type().clone()).collect()),
            spec: spec.clone(),
            context,
            output,
            kept,
            key_fields,
            per_ms,
            keeps,
        })
    }

    /// Where a kept column is among those that are remembered.
    fn in_history(&self, kept: usize) -> usize {
        self.remembered.partition_point(|known| *known < kept)
    }

    /// Says whether rows leave the frame while time goes on.
    fn is_bounded(&self) -> bool {
        !matches!(self.spec.frame, OverFrame::Rows(None) | OverFrame::Range(None))
    }

    /// Returns how long a key is kept that is not written; where its rows leave by their time, it goes with the last of them.
    fn ttl_ms(&self) -> Option<i64> {
        self.spec.ttl_ms.filter(|_| !matches!(self.keeps, Keeps::Since(_)))
    }

    fn is_by_time(&self) -> bool {
        matches!(self.spec.frame, OverFrame::Range(_))
    }

    /// Says whether a function asks for the first row of all.
    fn needs_first(&self) -> bool {
        let asks = |(_, function): &(String, OverFunction)| matches!(function, OverFunction::FirstValue(_));
        !self.is_bounded() && self.spec.functions.iter().any(asks)
    }

    /// Returns the times of rows, in units of the column.
    fn times(&self, column: &ArrayRef) -> Result<Vec<i64>> {
        if column.null_count() > 0 {
            return Err(Error::operator(
                "the event time of a row is NULL; declare the column NOT NULL or filter such rows out before OVER",
            ));
        }
        let unit = if matches!(column.data_type(), DataType::Timestamp(TimeUnit::Second, _)) {
            1_000
        } else {
            1
        };
        let values = cast(column, &DataType::Int64)?;
        let values = values.as_primitive::<Int64Type>().values().iter();
        Ok(values.map(|value| value.saturating_mul(unit)).collect())
    }

    fn ms(&self, time: i64) -> i64 {
        time.div_euclid(self.per_ms)
    }
}

impl OverOperator {
    /// Makes the operator.
    ///
    /// # Errors
    /// When functions do not fit their frame.
    pub(crate) fn new(
        spec: &OverAggregate,
        input: &Schema,
        output: SchemaRef,
        context: OperatorContext,
    ) -> Result<Self> {
        let plan = Plan::new(spec, input, output, context)?;
        let kept = Arc::new(input.project(&plan.kept)?);
        let history = RowStore::new(Arc::new(kept.project(&plan.remembered)?));
        Ok(Self {
            keys: GroupTable::default(),
            pending: RowStore::new(kept),
            due: BinaryHeap::new(),
            waiting: Vec::new(),
            history: if matches!(plan.keeps, Keeps::Since(_)) {
                history.with_due()
            } else {
                history
            },
            past: Vec::new(),
            firsts: Vec::new(),
            calls: Calls::new(&plan),
            written_ms: Vec::new(),
            next_sweep_ms: None,
            gone: 0,
            emptied: 0,
            #[cfg(test)]
            walks: 0,
            scratch: Scratch::default(),
            plan,
        })
    }

    /// Finds the key of each row, from its columns.
    fn groups_of(&mut self, columns: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        let Scratch { keys, hashes } = &mut self.scratch;
        encode_keys(columns, rows, keys)?;
        hashes.clear();
        hashes.extend((0..rows).map(|row| key_hash(keys.key(row))));
        let found = hashes.iter().enumerate();
        let groups = found.map(|(row, &hash)| self.keys.group(hash, keys.key(row))).collect();
        self.grow();
        Ok(groups)
    }

    fn grow(&mut self) {
        let groups = self.keys.len();
        self.waiting.resize(groups, 0);
        self.past.resize_with(groups, VecDeque::new);
        self.firsts.resize(groups, None);
        self.calls.resize(groups);
    }

    /// Adds rows that wait, given as the columns that are kept.
    fn wait(&mut self, batch: &RecordBatch, times: &[i64]) -> Result<()> {
        let columns: Vec<ArrayRef> = self
            .plan
            .keys
            .iter()
            .map(|&key| Arc::clone(batch.column(key)))
            .collect();
        let groups = self.groups_of(&columns, batch.num_rows())?;
        let keys = RowKeys {
            hashes: &self.scratch.hashes,
            due: None,
        };
        let first = self.pending.append(batch, keys)?;
        for (row, (&time, &group)) in times.iter().zip(&groups).enumerate() {
            self.due.push(Reverse((time, first.plus(row), group)));
            self.waiting[group as usize] += 1;
        }
        Ok(())
    }

    /// Takes rows that the watermark has passed: about as many as asked for, and all of the last time.
    fn take_due(&mut self, watermark: Watermark, rows_max: usize) -> Vec<(i64, RowRef, u32)> {
        let mut taken: Vec<(i64, RowRef, u32)> = Vec::new();
        while let Some(Reverse(next)) = self.due.peek() {
            let is_due = watermark != Watermark::NONE && self.plan.ms(next.0) <= watermark.0;
            let is_enough = taken.len() >= rows_max
                && !(self.plan.is_by_time() && taken.last().is_some_and(|last| last.0 == next.0));
            if !is_due || is_enough {
                break;
            }
            taken.push(*next);
            self.due.pop();
        }
        taken
    }

    /// Computes and emits rows that are due, in the order of time.
    fn work(&mut self, due: &[(i64, RowRef, u32)], wall_time_ms: i64, out: &mut Output) -> Result<()> {
        let refs: Vec<RowRef> = due.iter().map(|(_, row, _)| *row).collect();
        let all: Vec<usize> = (0..self.plan.kept.len()).collect();
        let batch = RecordBatch::try_new(Arc::clone(self.pending.schema()), self.pending.gather(&refs, &all)?)?;
        let steps = Steps::new(&self.plan, due, &self.past);
        let mut columns: Vec<ArrayRef> = self.plan.passed.iter().map(|&c| Arc::clone(batch.column(c))).collect();
        let results = self
            .calls
            .compute(&self.plan, &steps, &batch, &self.past, &self.firsts, &self.history)?;
        columns.extend(results);
        out.emit(RecordBatch::try_new(Arc::clone(&self.plan.output), columns)?);
        self.remember(&steps, due, &batch)?;
        for (_, row, group) in due {
            self.pending.remove(*row);
            self.waiting[*group as usize] -= 1;
            if self.plan.ttl_ms().is_some() {
                self.written_ms.resize(self.keys.len(), wall_time_ms);
                self.written_ms[*group as usize] = wall_time_ms;
            }
        }
        self.gone += due.len();
        Ok(())
    }

    /// Brings the history up to what the next rows need.
    fn remember(&mut self, steps: &Steps, due: &[(i64, RowRef, u32)], batch: &RecordBatch) -> Result<()> {
        // Which of the rows stay, in their order.
        let mut stays = vec![false; due.len()];
        for key in &steps.keys {
            let past = &mut self.past[key.group as usize];
            let (old, new) = (past.len(), key.rows.len());
            let leave = match self.plan.keeps {
                Keeps::Nothing => old + new,
                Keeps::Last(rows) => (old + new).saturating_sub(rows),
                Keeps::Since(_) => key.front,
            };
            for gone in past.drain(..leave.min(old)) {
                // The first row of all stays for those who ask for it.
                if self.firsts[key.group as usize] != Some(gone.row) {
                    self.history.remove(gone.row);
                    self.gone += 1;
                }
            }
            for &row in &steps.by_key[key.rows.clone()][leave.saturating_sub(old)..] {
                stays[row as usize] = true;
            }
            if self.plan.needs_first() && self.firsts[key.group as usize].is_none() {
                stays[steps.by_key[key.rows.start] as usize] = true;
            }
        }
        let staying: Vec<u32> = (0..due.len() as u32).filter(|&row| stays[row as usize]).collect();
        if staying.is_empty() {
            return Ok(());
        }
        let remembered = batch.project(&self.plan.remembered)?;
        let remembered = take_record_batch(&remembered, &UInt32Array::from(staying.clone()))?;
        let hash = |row: &u32| key_hash(self.keys.key(due[*row as usize].2));
        let hashes: Vec<u64> = staying.iter().map(hash).collect();
        let due_ms: Option<Vec<i64>> = match self.plan.keeps {
            Keeps::Since(since) => {
                // Behind the watermark a row is in no frame any more that may come.
                let due_ms = |row: &u32| {
                    self.plan
                        .ms(due[*row as usize].0.saturating_add(since))
                        .saturating_add(1)
                };
                Some(staying.iter().map(due_ms).collect())
            }
            _ => None,
        };
        let keys = RowKeys {
            hashes: &hashes,
            due: due_ms.as_deref(),
        };
        let first = self.history.append(&remembered, keys)?;
        let is_first_wanted = self.plan.needs_first();
        for (index, &row) in staying.iter().enumerate() {
            let (time, _, group) = due[row as usize];
            let place = first.plus(index);
            if is_first_wanted && self.firsts[group as usize].is_none() {
                self.firsts[group as usize] = Some(place);
                self.history.mark(place);
                if self.plan.keeps == Keeps::Nothing {
                    continue;
                }
            }
            self.past[group as usize].push_back(Past { time, row: place });
        }
        if let (Keeps::Last(rows), true) = (self.plan.keeps, is_first_wanted) {
            // A first row that a lag does not ask for is no part of the past.
            for key in &steps.keys {
                let past = &mut self.past[key.group as usize];
                while past.len() > rows {
                    past.pop_front();
                }
            }
        }
        Ok(())
    }

    /// Drops rows that are in no frame any more, because the watermark has passed them.
    fn drop_past(&mut self, watermark: Watermark) -> Result<()> {
        if !matches!(self.plan.keeps, Keeps::Since(_)) || watermark == Watermark::NONE {
            return Ok(());
        }
        let mut gone = Vec::new();
        self.history.take_due(watermark.0, &mut gone);
        if gone.is_empty() {
            return Ok(());
        }
        let columns: Vec<usize> = (0..self.plan.remembered.len()).collect();
        let mut groups = Vec::with_capacity(gone.len());
        for row in &gone {
            let hash = self.history.hash_of(*row);
            let candidates = hash.map(|hash| self.keys.groups_of(hash)).unwrap_or_default();
            let is_front = |group: &u32| {
                self.past[*group as usize]
                    .front()
                    .is_some_and(|front| front.row == *row)
            };
            let group = candidates.into_iter().find(is_front);
            let group = group.ok_or_else(|| Error::Internal("a row of a frame is in no key's past".into()))?;
            let past = &mut self.past[group as usize];
            past.pop_front();
            self.emptied += usize::from(past.is_empty());
            groups.push(group);
        }
        let gathered = self.history.gather(&gone, &columns)?;
        self.calls.retract(&self.plan, &gathered, &groups)?;
        for row in &gone {
            self.history.remove(*row);
        }
        self.gone += gone.len();
        Ok(())
    }

    /// Forgets keys of which nothing is left, or whose time to live is over.
    fn forget_keys(&mut self, wall_time_ms: i64) -> Result<()> {
        let groups = self.keys.len();
        let mut over = Vec::new();
        if let Some(ttl_ms) = self.plan.ttl_ms() {
            // Keys that were restored count as written when they are seen first.
            self.written_ms.resize(groups, wall_time_ms);
            let next_sweep_ms = *self.next_sweep_ms.get_or_insert(wall_time_ms.saturating_add(ttl_ms));
            if wall_time_ms < next_sweep_ms {
                return Ok(());
            }
            self.next_sweep_ms = Some(wall_time_ms.saturating_add((ttl_ms / 4).max(1)));
            let is_over = |written: &i64| written.saturating_add(ttl_ms) <= wall_time_ms;
            over = self.written_ms.iter().map(is_over).collect();
        } else if !matches!(self.plan.keeps, Keeps::Since(_)) || groups < KEYS_GONE_MIN || self.emptied * 2 < groups {
            return Ok(());
        }
        #[cfg(test)]
        {
            self.walks += 1;
        }
        let is_kept = |group: &u32| {
            let index = *group as usize;
            let is_empty = matches!(self.plan.keeps, Keeps::Since(_)) && self.past[index].is_empty();
            self.waiting[index] > 0 || !(is_empty || over.get(index) == Some(&true))
        };
        let kept: Vec<u32> = (0..groups as u32).filter(is_kept).collect();
        if kept.len() == groups || (over.is_empty() && kept.len() * 2 > groups) {
            // Many have rows again. A part of the others counts, so that the next look comes earlier, yet not at once.
            self.emptied = (groups - kept.len()) / 2;
            return Ok(());
        }
        self.emptied = 0;
        let mut renumbered = vec![u32::MAX; groups];
        for (new, &old) in kept.iter().enumerate() {
            renumbered[old as usize] = new as u32;
        }
        for (group, new) in renumbered.iter().enumerate() {
            if *new == u32::MAX {
                let rows = self.past[group].iter().map(|past| past.row);
                for row in rows.chain(self.firsts[group]) {
                    self.history.remove(row);
                }
            }
        }
        self.keys = self.keys.only(&kept);
        let moved = |old: &u32| *old as usize;
        self.waiting = kept.iter().map(|old| self.waiting[moved(old)]).collect();
        self.firsts = kept.iter().map(|old| self.firsts[moved(old)]).collect();
        if !self.written_ms.is_empty() {
            self.written_ms = kept.iter().map(|old| self.written_ms[moved(old)]).collect();
        }
        self.past = kept
            .iter()
            .map(|old| std::mem::take(&mut self.past[*old as usize]))
            .collect();
        let due = std::mem::take(&mut self.due).into_iter();
        self.due = due
            .map(|Reverse((time, row, group))| Reverse((time, row, renumbered[group as usize])))
            .collect();
        self.calls.keep(&self.plan, &kept, &self.past, &self.history)
    }

    /// Makes room of rows that have gone.
    fn compact(&mut self) -> Result<()> {
        if self.gone < GONE_MIN.max((self.pending.len() + self.history.len()) / 4) {
            return Ok(());
        }
        self.gone = 0;
        let before = self.pending.end();
        let moved = self.pending.compact(before)?;
        if !moved.is_empty() {
            let moved: HashMap<RowRef, RowRef> = moved.into_iter().map(|(_, old, new)| (old, new)).collect();
            let place = |row: RowRef| moved.get(&row).copied().unwrap_or(row);
            let due = std::mem::take(&mut self.due).into_iter();
            self.due = due
                .map(|Reverse((time, row, group))| Reverse((time, place(row), group)))
                .collect();
        }
        let before = self.history.end();
        let moved = self.history.compact(before)?;
        if !moved.is_empty() {
            let moved: HashMap<RowRef, RowRef> = moved.into_iter().map(|(_, old, new)| (old, new)).collect();
            let rows = self.past.iter_mut().flatten().map(|past| &mut past.row);
            for row in rows.chain(self.firsts.iter_mut().flatten()) {
                *row = moved.get(row).copied().unwrap_or(*row);
            }
        }
        Ok(())
    }

    /// Finds the rows of a store again, run by run: their places, their keys, and their columns.
    fn runs_of(store: &RowStore) -> Vec<Vec<RowRef>> {
        let runs = store.hashes_from(RowRef::FIRST);
        runs.map(|(first, hashes)| (0..hashes.len()).map(|row| first.plus(row)).collect())
            .collect()
    }
}

impl Operator for OverOperator {
    fn on_batch(&mut self, _: usize, batch: &RecordBatch, tick: &OpenTick, _: &mut Output) -> Result<Progress> {
        if batch.num_rows() == 0 {
            return Ok(Progress::Done);
        }
        let watermark = self.plan.spec.domain.before(tick);
        let kept = batch.project(&self.plan.kept)?;
        let mut times = self.plan.times(kept.column(self.plan.time))?;
        let is_late = |time: i64| watermark != Watermark::NONE && self.plan.ms(time) <= watermark.0;
        let late = times.iter().filter(|time| is_late(**time)).count();
        if late == 0 {
            self.wait(&kept, &times)?;
            return Ok(Progress::Done);
        }
        self.plan.context.metrics.rows_late.add(late as u64);
        let on_time = times.iter().map(|time| Some(!is_late(*time))).collect();
        let kept = filter_record_batch(&kept, &on_time)?;
        times.retain(|time| !is_late(*time));
        if !times.is_empty() {
            self.wait(&kept, &times)?;
        }
        Ok(Progress::Done)
    }

    fn on_close(&mut self, close: &TickClose, out: &mut Output) -> Result<Progress> {
        // In processing time every row has come, and those of the next tick are no earlier than this one.
        let (watermark, passed) = match self.plan.spec.domain {
            TimeDomain::EventTime => (close.watermark(), close.watermark()),
            TimeDomain::ProcessingTime => (Watermark::END, Watermark(close.wall_time_ms)),
        };
        loop {
            let rows_max = DUE_ROWS.min(out.budget_left());
            if rows_max == 0 {
                return Ok(Progress::More);
            }
            let due = self.take_due(watermark, rows_max);
            if due.is_empty() {
                break;
            }
            self.work(&due, close.wall_time_ms, out)?;
        }
        self.drop_past(passed)?;
        self.forget_keys(close.wall_time_ms)?;
        self.compact()?;
        Ok(Progress::Done)
    }

    fn capture(&mut self) -> Result<Vec<StateSection>> {
        self.capture_sections()?
            .into_iter()
            .map(CapturedSection::encode)
            .collect()
    }

    fn capture_sections(&mut self) -> Result<Vec<CapturedSection>> {
        let size = self.keys.size()
            + self.pending.size()
            + self.history.size()
            + self.calls.size()
            + self.due.len() * size_of::<(i64, RowRef, u32)>();
        self.plan.context.metrics.state_bytes.set(size as u64);
        let key_groups = self.plan.context.key_groups;
        let mut sections = self.pending.capture(PENDING, key_groups);
        sections.extend(self.history.capture(HISTORY, key_groups));
        if !self.plan.is_bounded() && !self.calls.aggregates.is_empty() {
            let keyed = Keyed {
                keys: &self.keys,
                accumulators: &self.calls.accumulators,
            };
            let (fields, decoder) = (&self.plan.key_fields, &self.plan.decoder);
            let keyed = capture_keyed(&keyed, fields, decoder, &self.calls.aggregates, key_groups)?;
            sections.extend(keyed.into_iter().map(CapturedSection::from));
        }
        Ok(sections)
    }

    fn restore(&mut self, sections: &[StateSection]) -> Result<()> {
        let key_groups = self.plan.context.key_groups;
        if !self.plan.is_bounded() && !self.calls.aggregates.is_empty() {
            restore_keyed(
                sections,
                &mut self.keys,
                &mut self.calls.accumulators,
                &self.plan.key_fields,
                &self.calls.aggregates,
                key_groups,
            )?;
            self.grow();
        }
        self.history.restore(sections, HISTORY, key_groups)?;
        let key_places: Vec<usize> = self.plan.keys.iter().map(|&key| self.plan.in_history(key)).collect();
        let time_place = self.plan.in_history(self.plan.time);
        let columns: Vec<usize> = (0..self.plan.remembered.len()).collect();
        for refs in Self::runs_of(&self.history) {
            let gathered = self.history.gather(&refs, &columns)?;
            let keys: Vec<ArrayRef> = key_places.iter().map(|&key| Arc::clone(&gathered[key])).collect();
            let groups = self.groups_of(&keys, refs.len())?;
            let times = self.plan.times(&gathered[time_place])?;
            for ((&row, &group), time) in refs.iter().zip(&groups).zip(times) {
                if self.history.is_marked(row) {
                    self.firsts[group as usize] = Some(row);
                    if self.plan.keeps == Keeps::Nothing {
                        continue;
                    }
                }
                let past = &mut self.past[group as usize];
                past.push_back(Past { time, row });
                if let Keeps::Last(rows) = self.plan.keeps
                    && past.len() > rows
                {
                    past.pop_front();
                }
            }
        }
        if self.plan.is_bounded() {
            self.calls.remake(&self.plan, &self.past, &self.history)?;
        }
        self.pending.restore(sections, PENDING, key_groups)?;
        for refs in Self::runs_of(&self.pending) {
            let mut columns = self.plan.keys.clone();
            columns.push(self.plan.time);
            let mut gathered = self.pending.gather(&refs, &columns)?;
            let times = gathered
                .pop()
                .ok_or_else(|| Error::Internal("a gathered column is missing".into()))?;
            let times = self.plan.times(&times)?;
            let groups = self.groups_of(&gathered, refs.len())?;
            for ((&row, &group), time) in refs.iter().zip(&groups).zip(times) {
                self.due.push(Reverse((time, row, group)));
                self.waiting[group as usize] += 1;
            }
        }
        Ok(())
    }
}
