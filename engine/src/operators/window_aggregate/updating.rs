//! Aggregation per key and window that tells a window more than once: before its end, and again for rows that come after
//! it. The result is a changelog: what was told of a key and window is taken back when something else is told.
//!
//! ```text
//!           early, every so often       on time        late, every so often
//!  window:  ───▲──────▲──────▲─────────────▲──────────────▲──────▲──────────┤ gone: rows are late
//!                                     window end                      end + allowed lateness
//! ```
//! - *Early*: groups of open windows that changed, at the first tick whose wall time has reached the next multiple of the
//!   delay; without a delay at the close of each tick. All windows are told at once, on all workers.
//! - *On time*: when time passes a window's end, the groups whose result is not what was told.
//! - *Late*: as early, for windows that have ended and are still kept.
//!
//! Rows are aggregated once, into panes, as everywhere ([`super::panes`]); a window's groups are merged from its panes when they
//! are told. Which groups may have changed is known by pane; whether they have is found by comparing with what was told,
//! kept as bytes by [`Told`]. So nothing is told that is not new, and after a restore, when all groups count as changed, nothing
//! is told twice.

use super::panes::Panes;
use super::rows::{WindowRows, Windows, timestamps};
use super::snapshot::{self, Restored};
use super::state::{Input, WindowState};
use super::told::{News, Told, ToldRows};
use super::{BATCH_ROWS, Stage, Window};
use crate::aggregate::{Accumulator, AggregateCall};
use crate::error::{Error, Result};
use crate::graph::{TimeDomain, Updates, WindowAggregate, WindowAssigner};
use crate::key::{EncodedKeys, KeyDecoder, encode_keys, key_hash};
use crate::operator::{OpenTick, Operator, OperatorContext, Output, Progress, StateSection, TickClose};
use crate::time::Watermark;
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Field, Schema, SchemaRef, UInt64Type};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The operator; it needs rows, or states, by key.
pub(super) struct UpdatingAggregateOperator {
    stage: Stage,
    time: TimeDomain,
    updates: Updates,
    keys: Vec<usize>,
    windows: Windows,
    panes: Option<Panes>,
    aggregates: Vec<AggregateCall>,
    decoder: KeyDecoder,
    key_fields: Vec<Field>,
    schema: SchemaRef,
    context: OperatorContext,
    /// The state of each pane that is kept.
    open: BTreeMap<Window, Pane>,
    /// What was told of each window that is kept.
    told: BTreeMap<Window, Told>,
    rows: ToldRows,
    /// Windows that end here or before were told on time.
    fired_end_ms: i64,
    /// The wall time of the tick closed last.
    wall_ms: Option<i64>,
    /// What is to be told at the close that is being answered.
    work: Option<VecDeque<(Window, Candidates)>>,
    /// The window being told, the groups of its [`Told`], and the next of them.
    telling: Option<(Window, Vec<u32>, usize)>,
}

/// A pane, or a window that is one, and which of its groups changed since they were told.
struct Pane {
    state: WindowState,
    early: Changed,
    late: Changed,
}

/// Groups, each once.
#[derive(Default)]
struct Changed {
    groups: Vec<u32>,
    is_in: Vec<bool>,
}

impl Changed {
    fn add(&mut self, groups: impl Iterator<Item = u32>) {
        for group in groups {
            let index = group as usize;
            if index >= self.is_in.len() {
                self.is_in.resize(index + 1, false);
            }
            if !std::mem::replace(&mut self.is_in[index], true) {
                self.groups.push(group);
            }
        }
    }

    fn size(&self) -> usize {
        self.groups.capacity() * 4 + self.is_in.capacity()
    }
}

/// The groups of a window that may have changed.
enum Candidates {
    All,
    /// By pane.
    Groups(Vec<(Window, Arc<[u32]>)>),
}

impl UpdatingAggregateOperator {
    /// Makes the operator.
    pub(super) fn new(
        stage: Stage,
        spec: &WindowAggregate,
        updates: Updates,
        input: &Schema,
        output: SchemaRef,
        context: OperatorContext,
    ) -> Result<Self> {
        let key_fields: Vec<Field> = spec.keys.iter().map(|&key| input.field(key).clone()).collect();
        let keys = spec.keys.len();
        let (keys, windows) = match stage {
            Stage::Whole => (spec.keys.clone(), Windows::new(&spec.window)),
            Stage::Final => {
                let (start, end) = (keys, keys + 1);
                (
                    (0..keys).collect(),
                    Windows::new(&WindowAssigner::Attached { start, end }),
                )
            }
            Stage::Partial => return Err(Error::Internal("a partial aggregation tells no windows".into())),
        };
        let results = output.fields()[keys_and_window(&key_fields)..output.fields().len() - 1].to_vec();
        Ok(Self {
            stage,
            time: spec.time,
            updates,
            keys,
            windows,
            panes: Panes::of(&spec.window),
            aggregates: spec.aggregates.clone(),
            decoder: KeyDecoder::new(key_fields.iter().map(|field| field.data_type().clone()).collect()),
            key_fields,
            schema: output,
            context,
            open: BTreeMap::new(),
            told: BTreeMap::new(),
            rows: ToldRows::new(&results)?,
            fired_end_ms: i64::MIN,
            wall_ms: None,
            work: None,
            telling: None,
        })
    }

    fn lateness_ms(&self) -> i64 {
        self.time.lateness_ms(Some(self.updates))
    }

    /// Returns the end up to which windows are gone when those up to `fired_end_ms` were told on time.
    fn gone_end_ms(&self, fired_end_ms: i64) -> i64 {
        match fired_end_ms {
            i64::MIN | i64::MAX => fired_end_ms,
            ms => ms.saturating_sub(self.lateness_ms()),
        }
    }

    fn last_end(&self, pane: Window) -> i64 {
        self.panes.map_or(pane.end_ms, |panes| panes.last_end(pane))
    }

    fn first_end(&self, pane: Window) -> i64 {
        self.panes
            .map_or(pane.end_ms, |panes| panes.window_from(pane.end_ms).end_ms)
    }

    /// Returns the windows that a pane is part of, in the order of their ends.
    fn windows_of(&self, pane: Window) -> Vec<Window> {
        match self.panes {
            Some(panes) => panes
                .windows_of(pane.start_ms)
                .map(|(start_ms, end_ms)| Window { end_ms, start_ms })
                .collect(),
            None => vec![pane],
        }
    }

    /// Returns the panes of a window that have rows.
    fn panes_of(&self, window: Window) -> impl Iterator<Item = (Window, &Pane)> {
        let Window { end_ms, start_ms } = window;
        let (first, last) = match self.panes {
            Some(_) => (
                Window {
                    end_ms: start_ms.saturating_add(1),
                    start_ms: i64::MIN,
                },
                Window {
                    end_ms,
                    start_ms: i64::MAX,
                },
            ),
            None => (window, window),
        };
        self.open.range(first..=last).map(|(&pane, state)| (pane, state))
    }

    /// Adds the rows of one pane.
    fn add(&mut self, pane: Window, batch: &RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        let columns: Vec<ArrayRef> = self.keys.iter().map(|&key| Arc::clone(batch.column(key))).collect();
        let mut keys = EncodedKeys::default();
        encode_keys(&columns, rows, &mut keys)?;
        let (hashes, input): (Vec<u64>, _) = match self.stage {
            Stage::Final => {
                let column = batch.column(batch.num_columns() - 1).as_primitive::<UInt64Type>();
                let first = self.keys.len() + 2;
                (column.values().to_vec(), Input::States { first })
            }
            _ => ((0..rows).map(|row| key_hash(keys.key(row))).collect(), Input::Rows),
        };
        let is_early = self.updates.early_ms.is_some() && self.last_end(pane) > self.fired_end_ms;
        let is_late = self.first_end(pane) <= self.fired_end_ms;
        let aggregates = &self.aggregates;
        let pane = self.open.entry(pane).or_insert_with(|| Pane::new(aggregates));
        let mut groups = Vec::with_capacity(rows);
        pane.state.groups_of(&hashes, &keys, &mut groups);
        pane.state.add(aggregates, input, batch, &groups)?;
        if is_early {
            pane.early.add(groups.iter().copied());
        }
        if is_late {
            pane.late.add(groups.iter().copied());
        }
        Ok(())
    }

    /// Returns the windows with rows that end behind `after_ms` and at or before `until_ms`, in order.
    fn windows_between(&self, after_ms: i64, until_ms: i64) -> Vec<Window> {
        let behind = |end_ms: i64| Window {
            end_ms: end_ms.saturating_add(1),
            start_ms: i64::MIN,
        };
        let mut found = Vec::new();
        if until_ms <= after_ms {
            return found;
        }
        let Some(panes) = self.panes else {
            let ends = self.open.range(behind(after_ms)..).map(|(&window, _)| window);
            return ends.take_while(|window| window.end_ms <= until_ms).collect();
        };
        let Some((oldest, _)) = self.open.first_key_value() else {
            return found;
        };
        let mut at_ms = oldest.end_ms.max(after_ms.saturating_add(1));
        loop {
            let window = panes.window_from(at_ms);
            let next = self.open.range(behind(window.start_ms)..).next();
            let Some(pane) = next.map(|(&pane, _)| pane).filter(|pane| pane.end_ms <= until_ms) else {
                return found;
            };
            if pane.end_ms > window.end_ms {
                at_ms = pane.end_ms;
                continue;
            }
            if window.end_ms > until_ms || window.end_ms < at_ms {
                return found;
            }
            found.push(window);
            match window.end_ms.checked_add(1) {
                Some(next_ms) => at_ms = next_ms,
                None => return found,
            }
        }
    }

    /// Decides what is told at a close: which windows, in order, and which of their groups.
    fn plan(&mut self, until_ms: i64, wall_ms: i64) -> VecDeque<(Window, Candidates)> {
        let mut work: BTreeMap<Window, Candidates> = BTreeMap::new();
        let mut may_have_changed = |window: Window, pane: Window, groups: &Arc<[u32]>| match work
            .entry(window)
            .or_insert_with(|| Candidates::Groups(Vec::new()))
        {
            Candidates::All => {}
            Candidates::Groups(known) => known.push((pane, Arc::clone(groups))),
        };
        let fired_ms = self.fired_end_ms.max(until_ms);
        let (was_gone_ms, gone_ms) = (self.gone_end_ms(self.fired_end_ms), self.gone_end_ms(fired_ms));
        let early = self
            .updates
            .early_ms
            .is_some_and(|delay_ms| Updates::is_due(delay_ms, wall_ms, self.wall_ms));
        let late = Updates::is_due(self.updates.late_ms, wall_ms, self.wall_ms);
        let panes: Vec<Window> = self.open.keys().copied().collect();
        for pane in panes {
            let Some(Pane {
                early: of_early,
                late: of_late,
                ..
            }) = self.open.get(&pane)
            else {
                continue;
            };
            let early = early && !of_early.groups.is_empty();
            let early: Arc<[u32]> = if early {
                of_early.groups.as_slice().into()
            } else {
                Arc::default()
            };
            let all_late: Arc<[u32]> = of_late.groups.as_slice().into();
            if early.is_empty() && all_late.is_empty() {
                continue;
            }
            for window in self.windows_of(pane) {
                if window.end_ms > fired_ms && !early.is_empty() {
                    may_have_changed(window, pane, &early);
                } else if window.end_ms <= self.fired_end_ms
                    && window.end_ms > was_gone_ms
                    && !all_late.is_empty()
                    // What goes now is told a last time.
                    && (late || window.end_ms <= gone_ms)
                {
                    may_have_changed(window, pane, &all_late);
                }
            }
            if let Some(known) = self.open.get_mut(&pane) {
                if !early.is_empty() {
                    known.early = Changed::default();
                }
                if late {
                    known.late = Changed::default();
                }
            }
        }
        for window in self.windows_between(self.fired_end_ms, until_ms) {
            work.insert(window, Candidates::All);
        }
        work.into_iter().collect()
    }

    /// Numbers the groups of a window that may have changed, as its [`Told`] does.
    fn groups_to_tell(&mut self, window: Window, candidates: Candidates) -> Vec<u32> {
        let mut told = self.told.remove(&window).unwrap_or_default();
        let mut changed = Changed::default();
        let mut number = |state: &WindowState, groups: &mut dyn Iterator<Item = u32>| {
            let numbers = groups.map(|group| {
                let key = state.key(group);
                told.group(key_hash(key), key)
            });
            changed.add(numbers);
        };
        match candidates {
            Candidates::All => {
                for (_, pane) in self.panes_of(window) {
                    number(&pane.state, &mut (0..pane.state.len() as u32));
                }
            }
            Candidates::Groups(by_pane) => {
                for (pane, groups) in by_pane {
                    if let Some(pane) = self.open.get(&pane) {
                        number(&pane.state, &mut groups.iter().copied());
                    }
                }
            }
        }
        self.told.insert(window, told);
        changed.groups
    }

    /// Returns the results of groups of a window, numbered as its [`Told`] does.
    fn results(&self, window: Window, told: &Told, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        // The groups of each pane, and which of `groups` they are.
        let mut found: Vec<(&WindowState, Vec<u32>, Vec<u32>)> = Vec::new();
        for (_, pane) in self.panes_of(window) {
            let (mut of_pane, mut places) = (Vec::new(), Vec::new());
            for (place, &group) in groups.iter().enumerate() {
                let key = told.key(group);
                if let Some(group) = pane.state.find(key_hash(key), key) {
                    of_pane.push(group);
                    places.push(place as u32);
                }
            }
            if !places.is_empty() {
                found.push((&pane.state, of_pane, places));
            }
        }
        if let [(state, of_pane, _)] = found.as_slice() {
            return state.results(of_pane);
        }
        let all: Vec<u32> = (0..groups.len() as u32).collect();
        let mut results = Vec::with_capacity(self.aggregates.len());
        for (function, call) in self.aggregates.iter().enumerate() {
            let mut merged = call.function.accumulator();
            merged.resize(groups.len());
            for (state, of_pane, places) in &found {
                merged.decode(&state.encode(function, of_pane)?, places)?;
            }
            results.push(merged.evaluate(&all)?);
        }
        Ok(results)
    }

    /// Tells those of some groups of a window whose results are not what was told.
    fn tell(&mut self, window: Window, groups: &[u32], out: &mut Output) -> Result<()> {
        let mut told = self.told.remove(&window).unwrap_or_default();
        let results = self.results(window, &told, groups)?;
        let rows = self.rows.encode(&results, groups.len())?;
        let (mut gone, mut before, mut new, mut places) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (place, (&group, row)) in groups.iter().zip(&rows).enumerate() {
            match told.tell(group, row) {
                News::None => continue,
                News::First => {}
                News::InsteadOf(other) => {
                    gone.push(group);
                    before.push(other);
                }
            }
            new.push(group);
            places.push(place as u32);
        }
        if !gone.is_empty() {
            let before = self.rows.decode(before.iter().map(AsRef::as_ref))?;
            out.emit(self.batch(window, &told, &gone, before, -1)?);
        }
        if !new.is_empty() {
            let places = UInt32Array::from(places);
            let results = results.iter().map(|column| take(column, &places, None));
            let results = results.collect::<Result<Vec<_>, _>>()?;
            out.emit(self.batch(window, &told, &new, results, 1)?);
        }
        self.told.insert(window, told);
        Ok(())
    }

    fn batch(
        &self,
        window: Window,
        told: &Told,
        groups: &[u32],
        results: Vec<ArrayRef>,
        weight: i64,
    ) -> Result<RecordBatch> {
        let mut columns = self.decoder.decode(groups.iter().map(|&group| told.key(group)))?;
        for ms in [window.start_ms, window.end_ms] {
            let data_type = self.schema.field(columns.len()).data_type();
            columns.push(timestamps(ms, groups.len(), data_type)?);
        }
        columns.extend(results);
        columns.push(Arc::new(Int64Array::from_value(weight, groups.len())));
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// Drops what is not told any more.
    fn forget(&mut self, gone_end_ms: i64) {
        while let Some(entry) = self.told.first_entry()
            && entry.key().end_ms <= gone_end_ms
        {
            entry.remove();
        }
        while let Some((&pane, _)) = self.open.first_key_value()
            && self.last_end(pane) <= gone_end_ms
        {
            self.open.remove(&pane);
        }
    }
}

/// Returns how many columns come before the results.
fn keys_and_window(key_fields: &[Field]) -> usize {
    key_fields.len() + 2
}

impl Pane {
    fn new(aggregates: &[AggregateCall]) -> Self {
        Self {
            state: WindowState::new(aggregates),
            early: Changed::default(),
            late: Changed::default(),
        }
    }
}

impl Operator for UpdatingAggregateOperator {
    fn on_batch(&mut self, _input: usize, batch: &RecordBatch, tick: &OpenTick, _out: &mut Output) -> Result<Progress> {
        let before = self.time.before(tick);
        self.fired_end_ms = self.fired_end_ms.max(before.last_window_end_ms());
        let gone = before.delayed_by(self.lateness_ms());
        match self.windows.of(batch)? {
            WindowRows::One(pane) => {
                if gone.has_passed_window(self.last_end(pane)) {
                    self.context.metrics.rows_late.add(batch.num_rows() as u64);
                } else {
                    self.add(pane, batch)?;
                }
            }
            WindowRows::Many(panes) => {
                for (pane, rows) in panes {
                    if gone.has_passed_window(self.last_end(pane)) {
                        self.context.metrics.rows_late.add(rows.len() as u64);
                    } else {
                        let rows = UInt32Array::from(rows);
                        self.add(pane, &arrow::compute::take_record_batch(batch, &rows)?)?;
                    }
                }
            }
        }
        Ok(Progress::Done)
    }

    fn on_close(&mut self, close: &TickClose, out: &mut Output) -> Result<Progress> {
        let reached: Watermark = self.time.reached(close);
        let until_ms = reached.last_window_end_ms();
        let mut work = match self.work.take() {
            Some(work) => work,
            None => self.plan(until_ms, close.wall_time_ms),
        };
        loop {
            let (window, groups, next) = match self.telling.take() {
                Some(telling) => telling,
                None => match work.pop_front() {
                    Some((window, candidates)) => (window, self.groups_to_tell(window, candidates), 0),
                    None => break,
                },
            };
            let mut next = next;
            while next < groups.len() {
                if out.is_full() {
                    self.telling = Some((window, groups, next));
                    self.work = Some(work);
                    return Ok(Progress::More);
                }
                // Of each group two rows: what it was and what it is.
                let end = (next + BATCH_ROWS.min(out.budget_left().div_ceil(2))).min(groups.len());
                self.tell(window, &groups[next..end], out)?;
                next = end;
            }
        }
        self.fired_end_ms = self.fired_end_ms.max(until_ms);
        self.forget(self.gone_end_ms(self.fired_end_ms));
        self.wall_ms = Some(close.wall_time_ms);
        Ok(Progress::Done)
    }

    fn capture(&mut self) -> Result<Vec<StateSection>> {
        let panes = self.open.values();
        let panes = panes.map(|pane| pane.state.size() + pane.early.size() + pane.late.size());
        let told = self.told.values().map(Told::size);
        self.context
            .metrics
            .state_bytes
            .set(panes.chain(told).sum::<usize>() as u64);
        let mut sections = snapshot::capture(
            self.fired_end_ms,
            snapshot::chunks_of(self.open.iter().map(|(&pane, known)| (pane, &known.state))),
            &self.key_fields,
            &self.decoder,
            &self.aggregates,
            self.context.key_groups,
        )?;
        let told = self.told.iter();
        let told = told.flat_map(|(&window, told)| told.rows().map(move |(key, row)| (window, key, row)));
        let key_groups = self.context.key_groups;
        let told = self.rows.capture(told, &self.key_fields, &self.decoder, key_groups)?;
        sections.push(told);
        Ok(sections)
    }

    fn restore(&mut self, sections: &[StateSection]) -> Result<()> {
        let mut open = OpenPanes {
            open: &mut self.open,
            aggregates: &self.aggregates,
        };
        let (key_fields, key_groups) = (&self.key_fields, self.context.key_groups);
        let fired_end_ms = snapshot::restore(sections, &mut open, key_fields, &self.aggregates, key_groups)?;
        self.fired_end_ms = self.fired_end_ms.max(fired_end_ms);
        let told = &mut self.told;
        self.rows
            .restore(sections, key_fields, key_groups, &mut |window, (hash, key), row| {
                let told = told.entry(window).or_default();
                let group = told.group(hash, key);
                told.tell(group, row);
                Ok(())
            })?;
        // Which groups changed since they were told is not kept: all are looked at once more.
        let panes: Vec<Window> = self.open.keys().copied().collect();
        for pane in panes {
            let is_early = self.updates.early_ms.is_some() && self.last_end(pane) > self.fired_end_ms;
            let is_late = self.first_end(pane) <= self.fired_end_ms;
            if let Some(known) = self.open.get_mut(&pane) {
                let all = 0..known.state.len() as u32;
                if is_early {
                    known.early.add(all.clone());
                }
                if is_late {
                    known.late.add(all);
                }
            }
        }
        Ok(())
    }

    fn next_timer_ms(&self) -> Option<i64> {
        let next = |delay_ms: i64| Updates::next_due_ms(delay_ms, self.wall_ms);
        let early_ms = self.updates.early_ms.filter(|delay_ms| *delay_ms > 0);
        let early_ms = early_ms.filter(|_| self.open.values().any(|pane| !pane.early.groups.is_empty()));
        let late_ms = Some(self.updates.late_ms).filter(|delay_ms| *delay_ms > 0);
        let late_ms = late_ms.filter(|_| self.open.values().any(|pane| !pane.late.groups.is_empty()));
        let end_ms = match self.time {
            TimeDomain::EventTime => None,
            TimeDomain::ProcessingTime => {
                let panes = self.open.keys().map(|&pane| match self.panes {
                    Some(panes) => {
                        panes
                            .window_from(pane.end_ms.max(self.fired_end_ms.saturating_add(1)))
                            .end_ms
                    }
                    None => pane.end_ms,
                });
                panes.min()
            }
        };
        [early_ms.map(next), late_ms.map(next), end_ms]
            .into_iter()
            .flatten()
            .min()
    }
}

impl Updates {
    /// Says whether the next multiple of a delay has come since the last tick, which was at `last_ms`.
    pub(super) fn is_due(delay_ms: i64, wall_ms: i64, last_ms: Option<i64>) -> bool {
        match (delay_ms, last_ms) {
            (0, _) => true,
            (_, None) => false,
            (delay_ms, Some(last_ms)) => wall_ms.div_euclid(delay_ms) > last_ms.div_euclid(delay_ms),
        }
    }

    /// Returns the next multiple of a delay. Behind a restore the wall time is not known before a tick closes: it is to be soon.
    pub(super) fn next_due_ms(delay_ms: i64, last_ms: Option<i64>) -> i64 {
        match last_ms {
            Some(last_ms) => last_ms.div_euclid(delay_ms).saturating_add(1).saturating_mul(delay_ms),
            None => 0,
        }
    }
}

/// Panes that are being restored.
struct OpenPanes<'a> {
    open: &'a mut BTreeMap<Window, Pane>,
    aggregates: &'a [AggregateCall],
}

impl Restored for OpenPanes<'_> {
    fn place(&mut self, window: Window, hash: u64, key: &[u8]) -> (Window, u32) {
        let pane = self.open.entry(window);
        let pane = pane.or_insert_with(|| Pane::new(self.aggregates));
        (window, pane.state.group(hash, key))
    }

    fn accumulators(&mut self, window: Window) -> Option<&mut [Box<dyn Accumulator>]> {
        self.open.get_mut(&window).map(|pane| pane.state.accumulators_mut())
    }
}
