//! Aggregation per key and session: rows of a key without a pause of more than the gap.
//!
//! A row at t opens the session `[t, t + gap)`; sessions of a key that overlap or touch become one. All rows of a tick come
//! together before a session is looked at, so what is emitted does not depend on the order within a tick: a session that
//! is made of rows of this tick alone and had ended before the watermark is late, and its rows are dropped and counted.
//!
//! Of several workers each makes the sessions of its own rows of a tick first (see `session_partial`); those are added like
//! rows, and what comes out is the same: sessions go into one another in any order.
//!
//! A session's state is a group of the accumulators; the open sessions of a key are a list. When more sessions have gone
//! than are open, everything is made anew without them, the keys too.

use super::rows::{millis, timestamps_of};
use super::snapshot::{self, Chunk, Restored};
use super::{BATCH_ROWS, Stage, Window, filter_column};
use crate::aggregate::{Accumulator, AggregateCall};
use crate::error::{Error, Result};
use crate::graph::{TimeDomain, WindowAggregate, WindowAssigner};
use crate::key::{EncodedKeys, KeyDecoder, encode_keys, key_hash};
use crate::operator::{OpenTick, Operator, OperatorContext, Output, Progress, StateSection, TickClose};
use crate::operators::group_table::GroupTable;
use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Field, Int64Type, Schema, SchemaRef, UInt64Type};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// Fewer sessions than this that have gone are not worth making everything anew.
const GONE_MIN: usize = 4096;

/// The end of a list.
const NONE: u32 = u32::MAX;

/// The operator, of rows or of the sessions of a tick.
pub(super) struct SessionAggregateOperator {
    stage: Stage,
    domain: TimeDomain,
    time: usize,
    gap_ms: i64,
    keys: Vec<usize>,
    aggregates: Vec<AggregateCall>,
    decoder: KeyDecoder,
    key_fields: Vec<Field>,
    schema: SchemaRef,
    context: OperatorContext,
    sessions: Sessions,
    /// Sessions that end here or before have fired.
    fired_end_ms: i64,
    /// The sessions being emitted, and the next of them.
    emitting: Option<(Vec<u32>, usize)>,
}

/// All sessions, and the groups of the accumulators: the same numbers.
pub(super) struct Sessions {
    keys: GroupTable,
    /// The newest open session of each key; the others follow in the order of time.
    first_of: Vec<u32>,
    sessions: Vec<Session>,
    accumulators: Vec<Box<dyn Accumulator>>,
    /// Sessions in the order of their ends, as they were when they came; a session may end later by now, or have gone.
    due: BinaryHeap<Reverse<(i64, u32)>>,
    gone: usize,
}

#[derive(Clone, Copy)]
pub(super) struct Session {
    key: u32,
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
    pub(super) rows: u64,
    /// The open session of the key before this one in time; for one that was merged, the one it went into.
    next: u32,
    state: SessionState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SessionState {
    Open,
    Merged,
    Closed,
}

impl Sessions {
    pub(super) fn new(aggregates: &[AggregateCall]) -> Self {
        Self {
            keys: GroupTable::default(),
            first_of: Vec::new(),
            sessions: Vec::new(),
            accumulators: aggregates.iter().map(|call| call.function.accumulator()).collect(),
            due: BinaryHeap::new(),
            gone: 0,
        }
    }

    fn key_of(&mut self, hash: u64, key: &[u8]) -> u32 {
        let key = self.keys.group(hash, key);
        if key as usize == self.first_of.len() {
            self.first_of.push(NONE);
        }
        key
    }

    fn open(&mut self, key: u32, window: Window, rows: u64) -> u32 {
        let session = self.sessions.len() as u32;
        let (mut before, mut at) = (NONE, self.first_of[key as usize]);
        while at != NONE && self.sessions[at as usize].start_ms > window.start_ms {
            (before, at) = (at, self.sessions[at as usize].next);
        }
        match self.sessions.get_mut(before as usize) {
            Some(before) => before.next = session,
            None => self.first_of[key as usize] = session,
        }
        self.sessions.push(Session {
            key,
            start_ms: window.start_ms,
            end_ms: window.end_ms,
            rows,
            next: at,
            state: SessionState::Open,
        });
        self.due.push(Reverse((window.end_ms, session)));
        session
    }

    /// Adds rows that make a session to the one of their key that it belongs to, a new one if there is none. Sessions that it
    /// connects go into one; the others are put into `merged`.
    fn add(&mut self, key: u32, window: Window, rows: u64, merged: &mut Vec<u32>) -> u32 {
        let mut found = NONE;
        let mut at = self.first_of[key as usize];
        while at != NONE {
            let session = self.sessions[at as usize];
            if session.end_ms < window.start_ms {
                // So did all others of the list.
                break;
            }
            if session.start_ms <= window.end_ms {
                let into = if found == NONE { at } else { found };
                let known = &mut self.sessions[into as usize];
                known.start_ms = known.start_ms.min(session.start_ms).min(window.start_ms);
                known.end_ms = known.end_ms.max(session.end_ms).max(window.end_ms);
                if into == at {
                    known.rows += rows;
                    found = at;
                } else {
                    // It stands right behind the one that it goes into.
                    known.rows += session.rows;
                    known.next = session.next;
                    self.sessions[at as usize].state = SessionState::Merged;
                    self.sessions[at as usize].next = found;
                    merged.push(at);
                    self.gone += 1;
                }
            }
            at = session.next;
        }
        if found == NONE {
            self.open(key, window, rows)
        } else {
            found
        }
    }

    /// Finds the session of each row, or of each session of a tick; there is room for the states of new ones.
    pub(super) fn sessions_of(
        &mut self,
        keys: &EncodedKeys,
        hash_of: impl Fn(usize) -> u64,
        parts: impl Iterator<Item = (Window, u64)>,
    ) -> Result<Vec<u32>> {
        let (mut merged, mut groups) = (Vec::new(), Vec::with_capacity(keys.len()));
        for (row, (window, rows)) in parts.enumerate() {
            let key = self.key_of(hash_of(row), keys.key(row));
            groups.push(self.add(key, window, rows, &mut merged));
        }
        let count = self.sessions.len();
        for accumulator in &mut self.accumulators {
            accumulator.resize(count);
        }
        if !merged.is_empty() {
            groups = groups.iter().map(|&session| self.now(session)).collect();
            let into: Vec<u32> = merged.iter().map(|&session| self.now(session)).collect();
            for accumulator in &mut self.accumulators {
                let states = accumulator.encode(&merged)?;
                accumulator.decode(&states, &into)?;
            }
        }
        Ok(groups)
    }

    /// Aggregates rows of these sessions.
    pub(super) fn update(&mut self, aggregates: &[AggregateCall], batch: &RecordBatch, sessions: &[u32]) -> Result<()> {
        for (call, accumulator) in aggregates.iter().zip(&mut self.accumulators) {
            let arguments: Vec<ArrayRef> = call.arguments.iter().map(|&i| Arc::clone(batch.column(i))).collect();
            accumulator.update(&arguments, sessions, filter_column(batch, call)?)?;
        }
        Ok(())
    }

    /// Merges states into these sessions; `columns` begin with them.
    fn merge(&mut self, aggregates: &[AggregateCall], columns: &[ArrayRef], sessions: &[u32]) -> Result<()> {
        let mut rest = columns;
        for (call, accumulator) in aggregates.iter().zip(&mut self.accumulators) {
            let (states, others) = rest.split_at(call.function.state_types().len());
            accumulator.merge(states, sessions)?;
            rest = others;
        }
        Ok(())
    }

    pub(super) fn session(&self, session: u32) -> Session {
        self.sessions[session as usize]
    }

    /// Returns the bytes of a session's key.
    pub(super) fn key(&self, session: u32) -> &[u8] {
        self.keys.key(self.session(session).key)
    }

    pub(super) fn accumulators(&self) -> &[Box<dyn Accumulator>] {
        &self.accumulators
    }

    /// Returns the session that a session has become.
    fn now(&self, session: u32) -> u32 {
        let mut session = session;
        while self.sessions[session as usize].state == SessionState::Merged {
            session = self.sessions[session as usize].next;
        }
        session
    }

    fn close(&mut self, session: u32) {
        let Session { key, next, .. } = self.sessions[session as usize];
        let first = &mut self.first_of[key as usize];
        if *first == session {
            *first = next;
        } else {
            let mut before = *first;
            while before != NONE && self.sessions[before as usize].next != session {
                before = self.sessions[before as usize].next;
            }
            if let Some(before) = self.sessions.get_mut(before as usize) {
                before.next = next;
            }
        }
        self.sessions[session as usize].state = SessionState::Closed;
        self.gone += 1;
    }

    /// Takes the open sessions that end at or before `until_ms`, in the order of their ends.
    fn take_due(&mut self, until_ms: i64) -> Vec<u32> {
        let mut due = Vec::new();
        while let Some(&Reverse((end_ms, session))) = self.due.peek()
            && end_ms <= until_ms
        {
            self.due.pop();
            let known = self.sessions[session as usize];
            if known.state != SessionState::Open {
                continue;
            }
            if known.end_ms > end_ms {
                self.due.push(Reverse((known.end_ms, session)));
            } else {
                due.push(session);
            }
        }
        due
    }

    /// Returns the numbers of the open sessions.
    pub(super) fn all_open(&self) -> Vec<u32> {
        let open = |session: &u32| self.sessions[*session as usize].state == SessionState::Open;
        (0..self.sessions.len() as u32).filter(open).collect()
    }

    /// Makes everything anew if more sessions have gone than are open.
    fn compact(&mut self, aggregates: &[AggregateCall]) -> Result<()> {
        if self.gone <= GONE_MIN.max(self.sessions.len() / 2) {
            return Ok(());
        }
        let old = std::mem::replace(self, Self::new(aggregates));
        let open = old.all_open();
        let mut groups = Vec::with_capacity(open.len());
        for &session in &open {
            let Session {
                key,
                start_ms,
                end_ms,
                rows,
                ..
            } = old.sessions[session as usize];
            let key = old.keys.key(key);
            let key = self.key_of(key_hash(key), key);
            groups.push(self.open(key, Window { end_ms, start_ms }, rows));
        }
        for (new, old) in self.accumulators.iter_mut().zip(&old.accumulators) {
            new.resize(groups.len());
            new.decode(&old.encode(&open)?, &groups)?;
        }
        Ok(())
    }

    fn size(&self) -> usize {
        let states: usize = self.accumulators.iter().map(|accumulator| accumulator.size()).sum();
        self.keys.size()
            + states
            + self.first_of.capacity() * 4
            + self.sessions.capacity() * size_of::<Session>()
            + self.due.capacity() * 16
    }
}

impl SessionAggregateOperator {
    /// Makes the operator; it needs rows, or sessions of a tick, by key.
    pub(super) fn new(
        stage: Stage,
        spec: &WindowAggregate,
        input: &Schema,
        output: SchemaRef,
        context: OperatorContext,
    ) -> Result<Self> {
        let WindowAssigner::Session { time, gap_ms } = spec.window else {
            return Err(Error::Internal("these windows are no sessions".into()));
        };
        let key_fields: Vec<Field> = spec.keys.iter().map(|&key| input.field(key).clone()).collect();
        let keys = match stage {
            Stage::Final => (0..spec.keys.len()).collect(),
            _ => spec.keys.clone(),
        };
        Ok(Self {
            stage,
            domain: spec.time,
            time,
            gap_ms,
            keys,
            aggregates: spec.aggregates.clone(),
            decoder: KeyDecoder::new(key_fields.iter().map(|field| field.data_type().clone()).collect()),
            key_fields,
            schema: output,
            context,
            sessions: Sessions::new(&spec.aggregates),
            fired_end_ms: i64::MIN,
            emitting: None,
        })
    }

    fn batch_of(&self, sessions: &[u32]) -> Result<RecordBatch> {
        let known = |session: &u32| self.sessions.session(*session);
        let keys = sessions.iter().map(|&session| self.sessions.key(session));
        let mut columns = self.decoder.decode(keys)?;
        let starts = sessions.iter().map(|session| known(session).start_ms).collect();
        let ends = sessions.iter().map(|session| known(session).end_ms).collect();
        let first = self.keys.len();
        columns.push(timestamps_of(starts, self.schema.field(first).data_type())?);
        columns.push(timestamps_of(ends, self.schema.field(first + 1).data_type())?);
        for accumulator in &self.sessions.accumulators {
            columns.push(accumulator.evaluate(sessions)?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

impl Operator for SessionAggregateOperator {
    fn on_batch(&mut self, _input: usize, batch: &RecordBatch, tick: &OpenTick, _out: &mut Output) -> Result<Progress> {
        self.fired_end_ms = self.fired_end_ms.max(self.domain.before(tick).last_window_end_ms());
        let columns: Vec<ArrayRef> = self.keys.iter().map(|&key| Arc::clone(batch.column(key))).collect();
        let mut keys = EncodedKeys::default();
        encode_keys(&columns, batch.num_rows(), &mut keys)?;
        if self.stage == Stage::Final {
            let first = columns.len();
            let numbers = |column: usize| batch.column(column).as_primitive::<Int64Type>().values();
            let windows = numbers(first).iter().zip(numbers(first + 1));
            let parts = windows.zip(numbers(first + 2)).map(|((&start_ms, &end_ms), &rows)| {
                let window = Window { end_ms, start_ms };
                (window, u64::try_from(rows).unwrap_or(0))
            });
            let hashes = batch.column(batch.num_columns() - 1).as_primitive::<UInt64Type>();
            let sessions = self.sessions.sessions_of(&keys, |row| hashes.value(row), parts)?;
            self.sessions
                .merge(&self.aggregates, &batch.columns()[first + 3..], &sessions)?;
        } else {
            let times = millis(batch.column(self.time))?;
            let parts = times.iter().map(|&time| (Window::of_row(time, self.gap_ms), 1));
            let hash_of = |row| key_hash(keys.key(row));
            let sessions = self.sessions.sessions_of(&keys, hash_of, parts)?;
            self.sessions.update(&self.aggregates, batch, &sessions)?;
        }
        Ok(Progress::Done)
    }

    fn on_close(&mut self, close: &TickClose, out: &mut Output) -> Result<Progress> {
        let until_ms = self.domain.reached(close).last_window_end_ms();
        let (due, next) = match self.emitting.take() {
            Some(emitting) => emitting,
            None => {
                let mut due = self.sessions.take_due(until_ms);
                // What had ended before this tick came of rows of this tick alone.
                due.retain(|&session| {
                    let Session { end_ms, rows, .. } = self.sessions.session(session);
                    let is_late = end_ms <= self.fired_end_ms;
                    if is_late {
                        self.context.metrics.rows_late.add(rows);
                        self.sessions.close(session);
                    }
                    !is_late
                });
                (due, 0)
            }
        };
        let mut next = next;
        while next < due.len() {
            let rows = (due.len() - next).min(BATCH_ROWS).min(out.budget_left());
            if rows == 0 {
                self.emitting = Some((due, next));
                return Ok(Progress::More);
            }
            out.emit(self.batch_of(&due[next..next + rows])?);
            next += rows;
        }
        for session in due {
            self.sessions.close(session);
        }
        self.fired_end_ms = self.fired_end_ms.max(until_ms);
        self.sessions.compact(&self.aggregates)?;
        Ok(Progress::Done)
    }

    fn capture(&mut self) -> Result<Vec<StateSection>> {
        self.context.metrics.state_bytes.set(self.sessions.size() as u64);
        let open = self.sessions.all_open();
        let sessions = &self.sessions;
        let chunks = open.chunks(snapshot::CHUNK_GROUPS).map(|groups| {
            let window = |session: &u32| {
                let Session { start_ms, end_ms, .. } = sessions.session(*session);
                Window { end_ms, start_ms }
            };
            Chunk {
                windows: groups.iter().map(window).collect(),
                keys: groups.iter().map(|&session| sessions.key(session)).collect(),
                accumulators: &sessions.accumulators,
                groups: groups.to_vec(),
            }
        });
        snapshot::capture(
            self.fired_end_ms,
            chunks,
            &self.key_fields,
            &self.decoder,
            &self.aggregates,
            self.context.key_groups,
        )
    }

    fn restore(&mut self, sections: &[StateSection]) -> Result<()> {
        let fired_end_ms = snapshot::restore(
            sections,
            &mut self.sessions,
            &self.key_fields,
            &self.aggregates,
            self.context.key_groups,
        )?;
        self.fired_end_ms = self.fired_end_ms.max(fired_end_ms);
        Ok(())
    }

    fn next_timer_ms(&self) -> Option<i64> {
        // A session may end later by now: then the tick only finds that out.
        let next = self.sessions.due.peek();
        next.map(|&Reverse((end_ms, _))| end_ms)
            .filter(|_| self.domain == TimeDomain::ProcessingTime)
    }
}

impl Window {
    /// Returns the session that a row makes.
    pub(super) fn of_row(time_ms: i64, gap_ms: i64) -> Self {
        Self {
            end_ms: time_ms.saturating_add(gap_ms),
            start_ms: time_ms,
        }
    }
}

/// All sessions share the accumulators.
const ALL: Window = Window { end_ms: 0, start_ms: 0 };

impl Restored for Sessions {
    fn place(&mut self, window: Window, hash: u64, key: &[u8]) -> (Window, u32) {
        let key = self.key_of(hash, key);
        // Late rows were dropped before the capture, so nobody asks for the number of its rows.
        let session = self.open(key, window, 0);
        for accumulator in &mut self.accumulators {
            accumulator.resize(self.sessions.len());
        }
        (ALL, session)
    }

    fn accumulators(&mut self, _: Window) -> Option<&mut [Box<dyn Accumulator>]> {
        Some(&mut self.accumulators)
    }
}
