//! Aggregation per key and session that tells a session more than once: before its end, and again for rows that come after
//! it ([`super::updating`] says when). The result is a changelog.
//!
//! ```text
//!  rows        a──────b        d──────e          c, between the two
//!  told        [a, b + gap)    [d, e + gap)
//!  taken back  [a, b + gap)    [d, e + gap)      when this is told:  [a, e + gap)
//! ```
//! The bounds of a session are part of what is told, and grow. What was told of a session, and of those that went into it,
//! stays until the session is told anew: then all of it is taken back, in the same tick. A session that had ended and goes on
//! with a late row is told when it ends again, or early. So nothing is taken back without something in its place, and a key has
//! at most one row per window.
//!
//! A session is kept until the watermark is the allowed lateness behind its end; a row that would be in none that is kept, and
//! would be in one that has gone, is late.

use super::rows::timestamps_of;
use super::sessions::{Session, Sessions};
use super::told::ToldRows;
use super::{BATCH_ROWS, Window, snapshot};
use crate::aggregate::AggregateCall;
use crate::error::{Error, Result};
use crate::graph::{TimeDomain, Updates, WindowAggregate, WindowAssigner};
use crate::key::{EncodedKeys, KeyDecoder, encode_keys};
use crate::operator::{OpenTick, Operator, OperatorContext, Output, Progress, StateSection, TickClose};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Field, Schema, SchemaRef};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// The operator; it needs rows by key.
pub(super) struct UpdatingSessionsOperator {
    domain: TimeDomain,
    updates: Updates,
    time: usize,
    gap_ms: i64,
    keys: Vec<usize>,
    aggregates: Vec<AggregateCall>,
    decoder: KeyDecoder,
    key_fields: Vec<Field>,
    schema: SchemaRef,
    context: OperatorContext,
    sessions: Sessions,
    /// By session.
    known: Vec<Known>,
    /// Sessions that changed since they were told, each once.
    changed: Vec<u32>,
    /// Sessions that have ended, in the order of their ends, as they were then.
    ended: BinaryHeap<Reverse<(i64, u32)>>,
    rows: ToldRows,
    /// Sessions that end here or before were told on time.
    fired_end_ms: i64,
    /// The wall time of the tick closed last.
    wall_ms: Option<i64>,
    /// Whether sessions wait to be told early, and late.
    waiting: (bool, bool),
    /// The sessions being told at the close that is being answered, and the next of them.
    telling: Option<(Vec<u32>, usize)>,
}

/// What is known of a session besides its rows.
#[derive(Default)]
struct Known {
    /// What was told of it, and of those that went into it since.
    told: Vec<Told>,
    is_changed: bool,
    /// Whether it has ended and was given by [`Sessions::take_due`].
    has_ended: bool,
}

struct Told {
    window: Window,
    row: Box<[u8]>,
}

impl UpdatingSessionsOperator {
    /// Makes the operator.
    pub(super) fn new(
        spec: &WindowAggregate,
        updates: Updates,
        input: &Schema,
        output: SchemaRef,
        context: OperatorContext,
    ) -> Result<Self> {
        let WindowAssigner::Session { time, gap_ms } = spec.window else {
            return Err(Error::Internal("these windows are no sessions".into()));
        };
        let key_fields: Vec<Field> = spec.keys.iter().map(|&key| input.field(key).clone()).collect();
        let results = &output.fields()[key_fields.len() + 2..output.fields().len() - 1];
        Ok(Self {
            domain: spec.time,
            updates,
            time,
            gap_ms,
            keys: spec.keys.clone(),
            aggregates: spec.aggregates.clone(),
            decoder: KeyDecoder::new(key_fields.iter().map(|field| field.data_type().clone()).collect()),
            key_fields,
            rows: ToldRows::new(results)?,
            schema: output,
            context,
            sessions: Sessions::new(&spec.aggregates),
            known: Vec::new(),
            changed: Vec::new(),
            ended: BinaryHeap::new(),
            fired_end_ms: i64::MIN,
            wall_ms: None,
            waiting: (false, false),
            telling: None,
        })
    }

    /// Returns the end up to which sessions are gone when those up to `fired_end_ms` were told on time.
    fn gone_end_ms(&self, fired_end_ms: i64) -> i64 {
        match fired_end_ms {
            i64::MIN | i64::MAX => fired_end_ms,
            ms => ms.saturating_sub(self.domain.lateness_ms(Some(self.updates))),
        }
    }

    fn change(&mut self, session: u32) {
        let known = &mut self.known[session as usize];
        if !std::mem::replace(&mut known.is_changed, true) {
            self.changed.push(session);
        }
    }

    /// Decides what is told at a close: which sessions, in the order of their ends. Drops those that are late.
    fn plan(&mut self, until_ms: i64, wall_ms: i64) -> Vec<u32> {
        let is_due = |delay_ms: i64| Updates::is_due(delay_ms, wall_ms, self.wall_ms);
        let (early, late) = (self.updates.early_ms.is_some_and(is_due), is_due(self.updates.late_ms));
        let fired_ms = self.fired_end_ms.max(until_ms);
        let (was_gone_ms, gone_ms) = (self.gone_end_ms(self.fired_end_ms), self.gone_end_ms(fired_ms));
        let mut tell = Vec::new();
        for session in self.sessions.take_due(fired_ms) {
            let Session { end_ms, rows, .. } = self.sessions.get(session);
            if end_ms <= was_gone_ms {
                // It came of rows of this tick alone.
                self.context.metrics.rows_late.add(rows);
                self.sessions.close(session);
                continue;
            }
            self.ended.push(Reverse((end_ms, session)));
            let known = &mut self.known[session as usize];
            known.has_ended = true;
            if end_ms > self.fired_end_ms {
                known.is_changed = false;
                tell.push(session);
            }
        }
        let mut waiting = Vec::new();
        for session in std::mem::take(&mut self.changed) {
            let known = &mut self.known[session as usize];
            if !known.is_changed || !self.sessions.is_open(session) {
                continue;
            }
            let end_ms = self.sessions.get(session).end_ms;
            if end_ms > fired_ms && std::mem::replace(&mut known.has_ended, false) {
                self.sessions.await_end(session);
            }
            let (tells, waits) = if end_ms > fired_ms {
                (early, self.updates.early_ms.is_some())
            } else {
                // What goes now is told a last time.
                (late || end_ms > self.fired_end_ms || end_ms <= gone_ms, true)
            };
            match (tells, waits) {
                (true, _) => tell.push(session),
                (false, true) => {
                    waiting.push(session);
                    continue;
                }
                (false, false) => {}
            }
            known.is_changed = false;
        }
        self.changed = waiting;
        tell.sort_unstable_by(|&a, &b| {
            let order = self.sessions.window(a).cmp(&self.sessions.window(b));
            order.then_with(|| self.sessions.key(a).cmp(self.sessions.key(b)))
        });
        tell
    }

    /// Tells those of some sessions of which something else was told, or nothing.
    fn tell(&mut self, sessions: &[u32], out: &mut Output) -> Result<()> {
        let results = self.sessions.accumulators.iter();
        let results = results.map(|accumulator| accumulator.evaluate(sessions));
        let results = results.collect::<Result<Vec<_>>>()?;
        let rows = self.rows.encode(&results, sessions.len())?;
        let (mut gone, mut before, mut new, mut places) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (place, (&session, row)) in sessions.iter().zip(rows).enumerate() {
            let window = self.sessions.window(session);
            let told = &mut self.known[session as usize].told;
            if let [only] = told.as_slice()
                && only.window == window
                && only.row == row
            {
                continue;
            }
            told.sort_unstable_by_key(|told| told.window);
            for known in told.drain(..) {
                gone.push((session, known.window));
                before.push(known.row);
            }
            told.push(Told { window, row });
            new.push((session, window));
            places.push(place as u32);
        }
        if !gone.is_empty() {
            let before = self.rows.decode(before.iter().map(AsRef::as_ref))?;
            out.emit(self.batch(&gone, before, -1)?);
        }
        if !new.is_empty() {
            let places = UInt32Array::from(places);
            let results = results.iter().map(|column| take(column, &places, None));
            out.emit(self.batch(&new, results.collect::<Result<Vec<_>, _>>()?, 1)?);
        }
        Ok(())
    }

    fn batch(&self, told: &[(u32, Window)], results: Vec<ArrayRef>, weight: i64) -> Result<RecordBatch> {
        let keys = told.iter().map(|(session, _)| self.sessions.key(*session));
        let mut columns = self.decoder.decode(keys)?;
        let starts = told.iter().map(|(_, window)| window.start_ms).collect();
        let ends = told.iter().map(|(_, window)| window.end_ms).collect();
        for bounds in [starts, ends] {
            let data_type = self.schema.field(columns.len()).data_type();
            columns.push(timestamps_of(bounds, data_type)?);
        }
        columns.extend(results);
        columns.push(Arc::new(Int64Array::from_value(weight, told.len())));
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// Drops the sessions up to an end, with what was told of them.
    fn forget(&mut self, gone_end_ms: i64) {
        while let Some(&Reverse((end_ms, session))) = self.ended.peek()
            && end_ms <= gone_end_ms
        {
            self.ended.pop();
            let now_ms = self.sessions.get(session).end_ms;
            if !self.sessions.is_open(session) || !self.known[session as usize].has_ended {
                continue;
            }
            if now_ms > end_ms {
                self.ended.push(Reverse((now_ms, session)));
            } else {
                self.sessions.close(session);
                self.known[session as usize] = Known::default();
            }
        }
    }

    /// Puts the sessions that have ended where they belong, when all stand with those that have not.
    fn set_ended(&mut self) {
        self.ended.clear();
        for session in self.sessions.take_due(self.fired_end_ms) {
            self.known[session as usize].has_ended = true;
            self.ended.push(Reverse((self.sessions.get(session).end_ms, session)));
        }
    }

    fn compact(&mut self) -> Result<()> {
        let Some(old) = self.sessions.compact(&self.aggregates)? else {
            return Ok(());
        };
        let known = old.iter().map(|old| Known {
            has_ended: false,
            ..std::mem::take(&mut self.known[*old as usize])
        });
        self.known = known.collect();
        let numbered = (0u32..).zip(&self.known);
        self.changed = numbered
            .filter(|(_, known)| known.is_changed)
            .map(|(new, _)| new)
            .collect();
        self.set_ended();
        Ok(())
    }

    fn set_waiting(&mut self) {
        let ends = self.changed.iter().map(|session| self.sessions.get(*session).end_ms);
        let has_ended = ends.map(|end_ms| end_ms <= self.fired_end_ms);
        self.waiting = has_ended.fold((false, false), |(early, late), has_ended| {
            (early || !has_ended, late || has_ended)
        });
    }

    fn size(&self) -> usize {
        let told = self.known.iter().map(|known| {
            let rows: usize = known.told.iter().map(|told| told.row.len()).sum();
            rows + known.told.capacity() * size_of::<Told>()
        });
        self.sessions.size()
            + self.known.capacity() * size_of::<Known>()
            + told.sum::<usize>()
            + self.changed.capacity() * 4
            + self.ended.capacity() * 16
    }
}

impl Operator for UpdatingSessionsOperator {
    fn on_batch(&mut self, _input: usize, batch: &RecordBatch, tick: &OpenTick, _out: &mut Output) -> Result<Progress> {
        self.fired_end_ms = self.fired_end_ms.max(self.domain.before(tick).last_window_end_ms());
        let columns: Vec<ArrayRef> = self.keys.iter().map(|&key| Arc::clone(batch.column(key))).collect();
        let mut keys = EncodedKeys::default();
        encode_keys(&columns, batch.num_rows(), &mut keys)?;
        let added = self
            .sessions
            .add_batch(batch, &keys, (self.time, self.gap_ms), &self.aggregates)?;
        self.known.resize_with(self.sessions.len(), Known::default);
        for (merged, into) in added.merged {
            let mut told = std::mem::take(&mut self.known[merged as usize].told);
            self.known[into as usize].told.append(&mut told);
        }
        for session in added.sessions {
            self.change(session);
        }
        self.waiting = (true, true);
        Ok(Progress::Done)
    }

    fn on_close(&mut self, close: &TickClose, out: &mut Output) -> Result<Progress> {
        let until_ms = self.domain.reached(close).last_window_end_ms();
        let (sessions, next) = match self.telling.take() {
            Some(telling) => telling,
            None => (self.plan(until_ms, close.wall_time_ms), 0),
        };
        let mut next = next;
        while next < sessions.len() {
            if out.is_full() {
                self.telling = Some((sessions, next));
                return Ok(Progress::More);
            }
            // Of each session two rows or more: what was told and what it is.
            let end = (next + BATCH_ROWS.min(out.budget_left().div_ceil(2))).min(sessions.len());
            self.tell(&sessions[next..end], out)?;
            next = end;
        }
        self.fired_end_ms = self.fired_end_ms.max(until_ms);
        self.forget(self.gone_end_ms(self.fired_end_ms));
        self.compact()?;
        self.set_waiting();
        self.wall_ms = Some(close.wall_time_ms);
        Ok(Progress::Done)
    }

    fn capture(&mut self) -> Result<Vec<StateSection>> {
        self.context.metrics.state_bytes.set(self.size() as u64);
        let open = self.sessions.all_open();
        let key_groups = self.context.key_groups;
        let mut sections = snapshot::capture(
            self.fired_end_ms,
            self.sessions.chunks(&open),
            &self.key_fields,
            &self.decoder,
            &self.aggregates,
            key_groups,
        )?;
        let (known, sessions) = (&self.known, &self.sessions);
        let told = open.iter().flat_map(|&session| {
            let told = known[session as usize].told.iter();
            told.map(move |told| (told.window, sessions.key(session), told.row.as_ref()))
        });
        sections.push(self.rows.capture(told, &self.key_fields, &self.decoder, key_groups)?);
        Ok(sections)
    }

    fn restore(&mut self, sections: &[StateSection]) -> Result<()> {
        let (key_fields, key_groups) = (&self.key_fields, self.context.key_groups);
        let fired_end_ms = snapshot::restore(sections, &mut self.sessions, key_fields, &self.aggregates, key_groups)?;
        self.fired_end_ms = self.fired_end_ms.max(fired_end_ms);
        self.known.resize_with(self.sessions.len(), Known::default);
        let (sessions, known) = (&self.sessions, &mut self.known);
        self.rows
            .restore(sections, key_fields, key_groups, &mut |window, (hash, key), row| {
                let session = sessions.find(hash, key, window).ok_or_else(|| {
                    Error::Checkpoint("something was told of a session, and the session is not in the state".into())
                })?;
                let row = row.into();
                known[session as usize].told.push(Told { window, row });
                Ok(())
            })?;
        self.set_ended();
        // Which sessions changed since they were told is not kept: all are looked at once more.
        for session in self.sessions.all_open() {
            if self.known[session as usize].has_ended || self.updates.early_ms.is_some() {
                self.change(session);
            }
        }
        self.set_waiting();
        Ok(())
    }

    fn next_timer_ms(&self) -> Option<i64> {
        let (early, late) = self.waiting;
        let early_ms = self.updates.early_ms.filter(|_| early);
        let late_ms = Some(self.updates.late_ms).filter(|_| late);
        let next = |delay_ms: Option<i64>| {
            let delay_ms = delay_ms.filter(|delay_ms| *delay_ms > 0)?;
            Some(Updates::next_due_ms(delay_ms, self.wall_ms))
        };
        // A session may end later by now: then the tick only finds that out.
        let end_ms = self.sessions.next_end_ms();
        let end_ms = end_ms.filter(|_| self.domain == TimeDomain::ProcessingTime);
        [next(early_ms), next(late_ms), end_ms].into_iter().flatten().min()
    }
}
