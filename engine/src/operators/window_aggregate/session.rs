//! Aggregation per key and session: rows of a key without a pause of more than the gap.
//!
//! All rows of a tick come together before a session is looked at, so what is emitted does not depend on the order within a
//! tick: a session that is made of rows of this tick alone and had ended before the watermark is late, and its rows are
//! dropped and counted.
//!
//! Of several workers each makes the sessions of its own rows of a tick first (see `session_partial`); those are added like
//! rows, and what comes out is the same: sessions go into one another in any order.

use super::rows::timestamps_of;
use super::sessions::{Session, Sessions};
use super::snapshot;
use super::{BATCH_ROWS, Stage};
use crate::aggregate::AggregateCall;
use crate::error::{Error, Result};
use crate::graph::{TimeDomain, WindowAggregate, WindowAssigner};
use crate::key::{EncodedKeys, KeyDecoder, encode_keys};
use crate::operator::{OpenTick, Operator, OperatorContext, Output, Progress, StateSection, TickClose};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use std::sync::Arc;

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
        let known = |session: &u32| self.sessions.get(*session);
        let keys = sessions.iter().map(|session| self.sessions.key(*session));
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
            self.sessions
                .add_sessions(batch, &keys, columns.len(), &self.aggregates)?;
        } else {
            self.sessions
                .add_batch(batch, &keys, (self.time, self.gap_ms), &self.aggregates)?;
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
                    let Session { end_ms, rows, .. } = self.sessions.get(session);
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
        snapshot::capture(
            self.fired_end_ms,
            self.sessions.chunks(&open),
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
        let next_ms = self.sessions.next_end_ms();
        next_ms.filter(|_| self.domain == TimeDomain::ProcessingTime)
    }
}
