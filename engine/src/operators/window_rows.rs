//! Rows with each of their windows: a row of overlapping windows goes on once per window, with the window's start and end behind
//! its columns. Stateless; no row is late here, for what follows decides that.

use super::window_aggregate::{Panes, millis, timestamps_of};
use crate::error::{Error, Result};
use crate::graph::WindowAssigner;
use crate::operator::{OpenTick, Operator, Output, Progress, TickClose};
use arrow::array::{RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;
use std::sync::Arc;

/// Rows per emitted batch, about: a row's windows stay together.
const BATCH_ROWS: usize = 8192;

/// The operator.
pub(crate) struct WindowRowsOperator {
    time: usize,
    panes: Panes,
    schema: SchemaRef,
    /// The next row of the batch that the budget did not suffice for.
    next: usize,
}

impl WindowRowsOperator {
    /// Makes the operator; `schema` is that of the output.
    ///
    /// # Errors
    /// When the windows do not overlap, or are not known from a row's time.
    pub(crate) fn new(time: usize, window: &WindowAssigner, schema: SchemaRef) -> Result<Self> {
        let panes = Panes::of(window).ok_or_else(|| Error::Graph("a row is in one of these windows".into()))?;
        Ok(Self {
            time,
            panes,
            schema,
            next: 0,
        })
    }
}

impl Operator for WindowRowsOperator {
    fn on_batch(&mut self, _input: usize, batch: &RecordBatch, _tick: &OpenTick, out: &mut Output) -> Result<Progress> {
        let times = millis(batch.column(self.time))?;
        while self.next < times.len() {
            if out.is_full() {
                return Ok(Progress::More);
            }
            let wanted = BATCH_ROWS.min(out.budget_left());
            let (mut rows, mut starts, mut ends) = (Vec::new(), Vec::new(), Vec::new());
            while self.next < times.len() && rows.len() < wanted {
                for (start_ms, end_ms) in self.panes.windows_of(times[self.next]) {
                    rows.push(self.next as u32);
                    starts.push(start_ms);
                    ends.push(end_ms);
                }
                self.next += 1;
            }
            let mut columns = arrow::compute::take_record_batch(batch, &UInt32Array::from(rows))?
                .columns()
                .to_vec();
            for bounds in [starts, ends] {
                let data_type = self.schema.field(columns.len()).data_type();
                columns.push(timestamps_of(bounds, data_type)?);
            }
            out.emit(RecordBatch::try_new(Arc::clone(&self.schema), columns)?);
        }
        self.next = 0;
        Ok(Progress::Done)
    }

    fn on_close(&mut self, _close: &TickClose, _out: &mut Output) -> Result<Progress> {
        Ok(Progress::Done)
    }
}
