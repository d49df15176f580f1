//! Rows with their session: when time passes a session's end, its rows go on, with the session's start and end behind their
//! columns. Until then they are kept, for the bounds are not known before.
//!
//! What is late is what would be late where sessions are aggregated ([`super::session`]). The sessions come out in the order of
//! their ends, the rows of one as they came.
//!
//! The durable form is the section `rows` ([`crate::rows`]); which sessions there are is found again from the rows.

use super::rows::{millis, timestamps_of};
use super::sessions::{Session, Sessions};
use super::{BATCH_ROWS, Window};
use crate::error::{Error, Result};
use crate::graph::{SessionRows, TimeDomain};
use crate::key::{EncodedKeys, encode_keys, key_hash};
use crate::operator::{
    CapturedSection, OpenTick, Operator, OperatorContext, Output, Progress, StateSection, TickClose,
};
use crate::rows::{RowKeys, RowRef, RowStore};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use std::sync::Arc;

/// The section of the rows.
const ROWS: &str = "rows";

/// The operator; it needs rows by key.
pub(crate) struct SessionRowsOperator {
    spec: SessionRows,
    schema: SchemaRef,
    context: OperatorContext,
    sessions: Sessions,
    rows: RowStore,
    /// The rows of each session, oldest first.
    of: Vec<Vec<RowRef>>,
    /// Sessions that end here or before have gone on.
    fired_end_ms: i64,
    emitting: Option<Emitting>,
}

/// Sessions that go on at the close that is being answered.
struct Emitting {
    sessions: Vec<u32>,
    /// The session and the row of it that is next.
    next: (usize, usize),
}

impl SessionRowsOperator {
    /// Makes the operator; `input` and `output` are the schemas of the rows without and with their sessions.
    pub(crate) fn new(spec: SessionRows, input: SchemaRef, output: SchemaRef, context: OperatorContext) -> Self {
        Self {
            spec,
            schema: output,
            context,
            sessions: Sessions::new(&[]),
            rows: RowStore::new(input),
            of: Vec::new(),
            fired_end_ms: i64::MIN,
            emitting: None,
        }
    }

    /// Finds the sessions of rows that are in the store one behind the other.
    fn add(&mut self, first: RowRef, columns: &[ArrayRef], keys: &EncodedKeys) -> Result<()> {
        let Some((time, _)) = columns.split_last() else {
            return Err(Error::Internal("rows of sessions have a time".into()));
        };
        let added = self.sessions.add_rows(&millis(time)?, keys, self.spec.gap_ms);
        self.of.resize_with(self.sessions.len(), Vec::new);
        for (merged, into) in added.merged {
            let mut rows = std::mem::take(&mut self.of[merged as usize]);
            let of = &mut self.of[into as usize];
            of.append(&mut rows);
            of.sort();
        }
        for (row, session) in added.sessions.into_iter().enumerate() {
            self.of[session as usize].push(first.plus(row));
        }
        Ok(())
    }

    /// Returns the columns that sessions are found by: the keys, and the time.
    fn found_by(&self) -> Vec<usize> {
        self.spec.keys.iter().copied().chain([self.spec.time]).collect()
    }

    fn encoded(&self, columns: &[ArrayRef], rows: usize) -> Result<EncodedKeys> {
        let mut keys = EncodedKeys::default();
        encode_keys(&columns[..self.spec.keys.len()], rows, &mut keys)?;
        Ok(keys)
    }

    /// Returns the sessions that have ended, in order. Drops those that are late.
    fn take_ended(&mut self, until_ms: i64) -> Vec<u32> {
        let mut ended = self.sessions.take_due(until_ms);
        ended.retain(|&session| {
            let Session { end_ms, rows, .. } = self.sessions.get(session);
            // What had ended before this tick came of rows of this tick alone.
            let is_late = end_ms <= self.fired_end_ms;
            if is_late {
                self.context.metrics.rows_late.add(rows);
                self.drop_session(session);
            }
            !is_late
        });
        ended.sort_unstable_by(|&a, &b| {
            let order = self.sessions.window(a).cmp(&self.sessions.window(b));
            order.then_with(|| self.sessions.key(a).cmp(self.sessions.key(b)))
        });
        ended
    }

    /// Says whether nothing is kept.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == 0 && self.sessions.all_open().is_empty()
    }

    fn drop_session(&mut self, session: u32) {
        for row in std::mem::take(&mut self.of[session as usize]) {
            self.rows.remove(row);
        }
        self.sessions.close(session);
    }

    /// Emits rows, as far as the budget allows.
    fn emit(&self, emitting: &mut Emitting, out: &mut Output) -> Result<Progress> {
        let columns: Vec<usize> = (0..self.rows.schema().fields().len()).collect();
        while emitting.next.0 < emitting.sessions.len() {
            let wanted = BATCH_ROWS.min(out.budget_left());
            if wanted == 0 {
                return Ok(Progress::More);
            }
            let (mut refs, mut starts, mut ends) = (Vec::new(), Vec::new(), Vec::new());
            let (session, row) = &mut emitting.next;
            while *session < emitting.sessions.len() && refs.len() < wanted {
                let number = emitting.sessions[*session];
                let rows = &self.of[number as usize];
                let Window { end_ms, start_ms } = self.sessions.window(number);
                let end = (*row + wanted - refs.len()).min(rows.len());
                refs.extend_from_slice(&rows[*row..end]);
                starts.resize(refs.len(), start_ms);
                ends.resize(refs.len(), end_ms);
                (*session, *row) = if end == rows.len() {
                    (*session + 1, 0)
                } else {
                    (*session, end)
                };
            }
            let mut gathered = self.rows.gather(&refs, &columns)?;
            for bounds in [starts, ends] {
                let data_type = self.schema.field(gathered.len()).data_type();
                gathered.push(timestamps_of(bounds, data_type)?);
            }
            out.emit(RecordBatch::try_new(Arc::clone(&self.schema), gathered)?);
        }
        Ok(Progress::Done)
    }

    /// Writes what is kept anew where much of it has gone.
    fn compact(&mut self) -> Result<()> {
        let moved = self.rows.compact(self.rows.end())?;
        if !moved.is_empty() {
            let places: Vec<RowRef> = moved.iter().map(|(_, _, new)| *new).collect();
            let columns = self.rows.gather(&places, &self.found_by())?;
            let keys = self.encoded(&columns, places.len())?;
            let times = millis(&columns[columns.len() - 1])?;
            for (row, (_, old, new)) in moved.into_iter().enumerate() {
                let at = Window {
                    end_ms: times[row],
                    start_ms: times[row],
                };
                let session = self.sessions.find(key_hash(keys.key(row)), keys.key(row), at);
                let of = session.map(|session| &mut self.of[session as usize]);
                // Rows keep their order, so the list is in order all the while.
                let place = of.and_then(|of| of.binary_search(&old).ok().map(|place| &mut of[place]));
                *place.ok_or_else(|| Error::Internal("a row that moved is in no session".into()))? = new;
            }
        }
        if let Some(old) = self.sessions.compact(&[])? {
            let of = old.iter().map(|old| std::mem::take(&mut self.of[*old as usize]));
            self.of = of.collect();
        }
        Ok(())
    }
}

impl Operator for SessionRowsOperator {
    fn on_batch(&mut self, _input: usize, batch: &RecordBatch, tick: &OpenTick, _out: &mut Output) -> Result<Progress> {
        self.fired_end_ms = self
            .fired_end_ms
            .max(self.spec.domain.before(tick).last_window_end_ms());
        let found_by = self.found_by().into_iter();
        let columns: Vec<ArrayRef> = found_by.map(|column| Arc::clone(batch.column(column))).collect();
        let keys = self.encoded(&columns, batch.num_rows())?;
        let hashes: Vec<u64> = (0..batch.num_rows()).map(|row| key_hash(keys.key(row))).collect();
        let row_keys = RowKeys {
            hashes: &hashes,
            due: None,
        };
        // Before the rows are kept: a time that is null fails.
        millis(&columns[columns.len() - 1])?;
        let first = self.rows.append(batch, row_keys)?;
        self.add(first, &columns, &keys)?;
        Ok(Progress::Done)
    }

    fn on_close(&mut self, close: &TickClose, out: &mut Output) -> Result<Progress> {
        let until_ms = self.spec.domain.reached(close).last_window_end_ms();
        let mut emitting = match self.emitting.take() {
            Some(emitting) => emitting,
            None => Emitting {
                sessions: self.take_ended(until_ms),
                next: (0, 0),
            },
        };
        if self.emit(&mut emitting, out)? == Progress::More {
            self.emitting = Some(emitting);
            return Ok(Progress::More);
        }
        for session in emitting.sessions {
            self.drop_session(session);
        }
        self.fired_end_ms = self.fired_end_ms.max(until_ms);
        self.compact()?;
        Ok(Progress::Done)
    }

    fn next_timer_ms(&self) -> Option<i64> {
        let next_ms = self.sessions.next_end_ms();
        next_ms.filter(|_| self.spec.domain == TimeDomain::ProcessingTime)
    }

    fn capture(&mut self) -> Result<Vec<StateSection>> {
        self.capture_sections()?
            .into_iter()
            .map(CapturedSection::encode)
            .collect()
    }

    fn capture_sections(&mut self) -> Result<Vec<CapturedSection>> {
        let lists = self.of.iter().map(|of| of.capacity() * size_of::<RowRef>());
        let lists = lists.sum::<usize>() + self.of.capacity() * size_of::<Vec<RowRef>>();
        let size = self.rows.size() + self.sessions.size() + lists;
        self.context.metrics.state_bytes.set(size as u64);
        Ok(self.rows.capture(ROWS, self.context.key_groups))
    }

    fn restore(&mut self, sections: &[StateSection]) -> Result<()> {
        self.rows.restore(sections, ROWS, self.context.key_groups)?;
        let runs = self.rows.hashes_from(RowRef::FIRST);
        let runs: Vec<(RowRef, usize)> = runs.map(|(first, hashes)| (first, hashes.len())).collect();
        for (first, rows) in runs {
            let places: Vec<RowRef> = (0..rows).map(|row| first.plus(row)).collect();
            let columns = self.rows.gather(&places, &self.found_by())?;
            let keys = self.encoded(&columns, rows)?;
            self.add(first, &columns, &keys)?;
        }
        Ok(())
    }
}
