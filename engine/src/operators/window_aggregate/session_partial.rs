//! The stage of sessions before the exchange: those that a worker's rows of one tick make.
//!
//! Holds nothing beyond its tick, and drops nothing: which rows are late is known only with those of the other workers. Where
//! sessions hardly have a second row within a tick, every row becomes a session at once.

use super::rows::millis;
use super::sessions::{Session, Sessions};
use super::state::states_of_rows;
use super::{BATCH_ROWS, Gain, Window, partial_schema};
use crate::aggregate::AggregateCall;
use crate::error::{Error, Result};
use crate::graph::{WindowAggregate, WindowAssigner};
use crate::key::{EncodedKeys, KeyDecoder, encode_keys, hash_columns, key_hash};
use crate::operator::{OpenTick, Operator, Output, Progress, StateSection, TickClose};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt64Array};
use arrow::datatypes::{Schema, SchemaRef};
use std::sync::Arc;

/// The operator.
pub(super) struct PartialSessionsOperator {
    time: usize,
    gap_ms: i64,
    keys: Vec<usize>,
    aggregates: Vec<AggregateCall>,
    decoder: KeyDecoder,
    schema: SchemaRef,
    sessions: Sessions,
    /// The sessions being emitted, and the next of them.
    emitting: Option<(Vec<u32>, usize)>,
    gain: Gain,
    scratch: (EncodedKeys, Vec<u64>),
}

/// When sessions begin and end, and how many rows they are.
struct Parts {
    starts: Int64Array,
    ends: Int64Array,
    rows: Int64Array,
}

impl PartialSessionsOperator {
    pub(super) fn new(spec: &WindowAggregate, input: &Schema) -> Result<Self> {
        let WindowAssigner::Session { time, gap_ms } = spec.window else {
            return Err(Error::Internal("these windows are no sessions".into()));
        };
        let types = spec.keys.iter().map(|&key| input.field(key).data_type().clone());
        Ok(Self {
            time,
            gap_ms,
            keys: spec.keys.clone(),
            aggregates: spec.aggregates.clone(),
            decoder: KeyDecoder::new(types.collect()),
            schema: partial_schema(spec, input),
            sessions: Sessions::new(&spec.aggregates),
            emitting: None,
            gain: Gain::default(),
            scratch: Default::default(),
        })
    }

    fn batch(
        &self,
        keys: Vec<ArrayRef>,
        parts: Parts,
        states: Vec<ArrayRef>,
        hashes: UInt64Array,
    ) -> Result<RecordBatch> {
        let mut columns = keys;
        columns.push(Arc::new(parts.starts));
        columns.push(Arc::new(parts.ends));
        columns.push(Arc::new(parts.rows));
        columns.extend(states);
        columns.push(Arc::new(hashes));
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// Makes a session of each row.
    fn pass(&mut self, columns: Vec<ArrayRef>, times: &[i64], batch: &RecordBatch) -> Result<RecordBatch> {
        let (keys, hashes) = &mut self.scratch;
        hash_columns(&columns, times.len(), keys, hashes)?;
        let hashes = UInt64Array::from_iter_values(hashes.iter().copied());
        let ends = times.iter().map(|&time| Window::of_row(time, self.gap_ms).end_ms);
        let parts = Parts {
            starts: Int64Array::from_iter_values(times.iter().copied()),
            ends: Int64Array::from_iter_values(ends),
            rows: Int64Array::from_value(1, times.len()),
        };
        self.batch(columns, parts, states_of_rows(&self.aggregates, batch)?, hashes)
    }

    fn batch_of(&self, sessions: &[u32]) -> Result<RecordBatch> {
        let key = |&session: &u32| self.sessions.key(session);
        let numbers = |of: fn(&Session) -> i64| {
            let known = sessions.iter().map(|&session| self.sessions.get(session));
            Int64Array::from_iter_values(known.map(|session| of(&session)))
        };
        let parts = Parts {
            starts: numbers(|session| session.start_ms),
            ends: numbers(|session| session.end_ms),
            rows: numbers(|session| session.rows as i64),
        };
        let mut states = Vec::new();
        for accumulator in &self.sessions.accumulators {
            states.extend(accumulator.partial(sessions)?);
        }
        let hashes = UInt64Array::from_iter_values(sessions.iter().map(|session| key_hash(key(session))));
        self.batch(self.decoder.decode(sessions.iter().map(key))?, parts, states, hashes)
    }
}

impl Operator for PartialSessionsOperator {
    fn on_batch(&mut self, _input: usize, batch: &RecordBatch, _tick: &OpenTick, out: &mut Output) -> Result<Progress> {
        let columns: Vec<ArrayRef> = self.keys.iter().map(|&key| Arc::clone(batch.column(key))).collect();
        if self.gain.ticks_without > 0 {
            let times = millis(batch.column(self.time))?;
            out.emit(self.pass(columns, &times, batch)?);
            return Ok(Progress::Done);
        }
        let (keys, _) = &mut self.scratch;
        encode_keys(&columns, batch.num_rows(), keys)?;
        self.sessions
            .add_batch(batch, keys, (self.time, self.gap_ms), &self.aggregates)?;
        self.gain.rows += batch.num_rows();
        Ok(Progress::Done)
    }

    fn on_close(&mut self, _close: &TickClose, out: &mut Output) -> Result<Progress> {
        let (open, mut next) = match self.emitting.take() {
            Some(emitting) => emitting,
            None => (self.sessions.all_open(), 0),
        };
        while next < open.len() {
            let rows = (open.len() - next).min(BATCH_ROWS).min(out.budget_left());
            if rows == 0 {
                self.emitting = Some((open, next));
                return Ok(Progress::More);
            }
            out.emit(self.batch_of(&open[next..next + rows])?);
            next += rows;
        }
        if !open.is_empty() {
            self.sessions = Sessions::new(&self.aggregates);
        }
        self.gain.groups = open.len();
        self.gain.next_tick();
        Ok(Progress::Done)
    }

    fn restore(&mut self, sections: &[StateSection]) -> Result<()> {
        match sections {
            [] => Ok(()),
            _ => Err(Error::Internal("a partial aggregation has no state".into())),
        }
    }
}
