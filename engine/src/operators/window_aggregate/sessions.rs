//! The sessions of all keys: which there are, what is aggregated for each, and when they end.
//!
//! A row at t opens the session `[t, t + gap)`; sessions of a key that overlap or touch become one. A session's state is a group
//! of the accumulators; the open sessions of a key are a list. When more sessions have gone than are open, everything is made
//! anew without them, the keys too.

use super::rows::millis;
use super::snapshot::{self, Chunk, Restored};
use super::{Window, filter_column};
use crate::aggregate::{Accumulator, AggregateCall};
use crate::error::Result;
use crate::key::{EncodedKeys, key_hash};
use crate::operators::group_table::GroupTable;
use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, UInt64Type};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// Fewer sessions than this that have gone are not worth making everything anew; tests do it more often.
const GONE_MIN: usize = if cfg!(test) { 3 } else { 4096 };

/// The end of a list.
const NONE: u32 = u32::MAX;

/// All sessions, and the groups of the accumulators: the same numbers.
pub(super) struct Sessions {
    pub(super) keys: GroupTable,
    /// The newest open session of each key; the others follow in the order of time.
    first_of: Vec<u32>,
    sessions: Vec<Session>,
    pub(super) accumulators: Vec<Box<dyn Accumulator>>,
    /// Sessions in the order of their ends, as they were when they came; a session may end later by now, or have gone.
    due: BinaryHeap<Reverse<(i64, u32)>>,
    gone: usize,
}

#[derive(Clone, Copy)]
pub(super) struct Session {
    key: u32,
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
    /// How many rows came since a restore.
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

/// What became of the rows of a batch.
pub(super) struct Added {
    /// The session of each row.
    pub(super) sessions: Vec<u32>,
    /// Sessions that went into others, and the ones that they went into.
    pub(super) merged: Vec<(u32, u32)>,
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

    /// Adds rows, or sessions with a number of rows, to the sessions of their keys, new ones where there are none.
    fn add_parts(
        &mut self,
        keys: &EncodedKeys,
        hash_of: impl Fn(usize) -> u64,
        parts: impl Iterator<Item = (Window, u64)>,
    ) -> Added {
        let mut merged = Vec::new();
        let mut sessions = Vec::with_capacity(keys.len());
        for (row, (window, rows)) in parts.enumerate() {
            let key = self.key_of(hash_of(row), keys.key(row));
            sessions.push(self.add(key, window, rows, &mut merged));
        }
        if !merged.is_empty() {
            sessions.iter_mut().for_each(|session| *session = self.now(*session));
        }
        let into: Vec<u32> = merged.iter().map(|session| self.now(*session)).collect();
        Added {
            sessions,
            merged: merged.into_iter().zip(into).collect(),
        }
    }

    /// Adds rows of these times and keys to their sessions.
    pub(super) fn add_rows(&mut self, times: &[i64], keys: &EncodedKeys, gap_ms: i64) -> Added {
        let parts = times.iter().map(|&time_ms| (Window::of_row(time_ms, gap_ms), 1));
        self.add_parts(keys, |row| key_hash(keys.key(row)), parts)
    }

    /// Makes room for the states of new sessions, and puts those of sessions that went into others together.
    fn make_room(&mut self, added: &Added) -> Result<()> {
        let count = self.sessions.len();
        let (merged, into): (Vec<u32>, Vec<u32>) = added.merged.iter().copied().unzip();
        for accumulator in &mut self.accumulators {
            accumulator.resize(count);
            if !merged.is_empty() {
                let states = accumulator.encode(&merged)?;
                accumulator.decode(&states, &into)?;
            }
        }
        Ok(())
    }

    /// Adds the rows of a batch and aggregates them.
    pub(super) fn add_batch(
        &mut self,
        batch: &RecordBatch,
        keys: &EncodedKeys,
        (time, gap_ms): (usize, i64),
        aggregates: &[AggregateCall],
    ) -> Result<Added> {
        let added = self.add_rows(&millis(batch.column(time))?, keys, gap_ms);
        self.make_room(&added)?;
        for (call, accumulator) in aggregates.iter().zip(&mut self.accumulators) {
            let arguments: Vec<ArrayRef> = call.arguments.iter().map(|&i| Arc::clone(batch.column(i))).collect();
            accumulator.update(&arguments, &added.sessions, filter_column(batch, call)?)?;
        }
        Ok(added)
    }

    /// Adds sessions of a tick, as [`partial_schema`](super::partial_schema) has them: keys, start, end, rows, states, hash.
    pub(super) fn add_sessions(
        &mut self,
        batch: &RecordBatch,
        keys: &EncodedKeys,
        keys_count: usize,
        aggregates: &[AggregateCall],
    ) -> Result<()> {
        let numbers = |column: usize| batch.column(column).as_primitive::<Int64Type>().values();
        let windows = numbers(keys_count).iter().zip(numbers(keys_count + 1));
        let parts = windows
            .zip(numbers(keys_count + 2))
            .map(|((&start_ms, &end_ms), &rows)| {
                let window = Window { end_ms, start_ms };
                (window, u64::try_from(rows).unwrap_or(0))
            });
        let hashes = batch.column(batch.num_columns() - 1).as_primitive::<UInt64Type>();
        let added = self.add_parts(keys, |row| hashes.value(row), parts);
        self.make_room(&added)?;
        let mut states = &batch.columns()[keys_count + 3..];
        for (call, accumulator) in aggregates.iter().zip(&mut self.accumulators) {
            let (own, others) = states.split_at(call.function.partial_types().len());
            accumulator.merge(own, &added.sessions)?;
            states = others;
        }
        Ok(())
    }

    /// Returns what is known of a session.
    pub(super) fn get(&self, session: u32) -> Session {
        self.sessions[session as usize]
    }

    /// Returns the window that a session is.
    pub(super) fn window(&self, session: u32) -> Window {
        let Session { start_ms, end_ms, .. } = self.get(session);
        Window { end_ms, start_ms }
    }

    /// Says whether a session has neither ended nor gone into another.
    pub(super) fn is_open(&self, session: u32) -> bool {
        self.get(session).state == SessionState::Open
    }

    /// Returns the key of a session, encoded.
    pub(super) fn key(&self, session: u32) -> &[u8] {
        self.keys.key(self.get(session).key)
    }

    /// Returns how many sessions there are, with those that have gone and are still numbered.
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Returns the open session of a key that a window lies in.
    pub(super) fn find(&self, hash: u64, key: &[u8], window: Window) -> Option<u32> {
        let mut at = self.first_of[self.keys.find(hash, key)? as usize];
        while at != NONE {
            let session = self.get(at);
            if session.start_ms <= window.start_ms && window.end_ms <= session.end_ms {
                return Some(at);
            }
            at = session.next;
        }
        None
    }

    /// Asks for a session to be given by [`take_due`](Self::take_due), when it was before.
    pub(super) fn await_end(&mut self, session: u32) {
        self.due.push(Reverse((self.get(session).end_ms, session)));
    }

    /// Returns the end of the session that ends next, as it was when it came.
    pub(super) fn next_end_ms(&self) -> Option<i64> {
        self.due.peek().map(|&Reverse((end_ms, _))| end_ms)
    }

    /// Returns sessions for a checkpoint.
    pub(super) fn chunks<'a>(&'a self, sessions: &'a [u32]) -> impl Iterator<Item = Chunk<'a>> {
        sessions.chunks(snapshot::CHUNK_GROUPS).map(|groups| Chunk {
            windows: groups.iter().map(|&session| self.window(session)).collect(),
            keys: groups.iter().map(|&session| self.key(session)).collect(),
            accumulators: &self.accumulators,
            groups: groups.to_vec(),
        })
    }

    /// Returns the session that a session has become.
    fn now(&self, session: u32) -> u32 {
        let mut session = session;
        while self.sessions[session as usize].state == SessionState::Merged {
            session = self.sessions[session as usize].next;
        }
        session
    }

    pub(super) fn close(&mut self, session: u32) {
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
    pub(super) fn take_due(&mut self, until_ms: i64) -> Vec<u32> {
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

    /// Makes everything anew if more sessions have gone than are open. Then gives the old numbers of the open ones, in the
    /// order of the new ones: 0, 1, 2, ...
    pub(super) fn compact(&mut self, aggregates: &[AggregateCall]) -> Result<Option<Vec<u32>>> {
        if self.gone <= GONE_MIN.max(self.sessions.len() / 2) {
            return Ok(None);
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
        Ok(Some(open))
    }

    pub(super) fn size(&self) -> usize {
        let states: usize = self.accumulators.iter().map(|accumulator| accumulator.size()).sum();
        self.keys.size()
            + states
            + self.first_of.capacity() * 4
            + self.sessions.capacity() * size_of::<Session>()
            + self.due.capacity() * 16
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
