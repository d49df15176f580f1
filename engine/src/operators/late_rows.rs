//! The late rows of a stream: those at or before its watermark at the close of the tick before. Stateless, for that
//! watermark comes with every tick, also with the first one after a restore.

use super::window_aggregate::millis;
use crate::error::Result;
use crate::operator::{OpenTick, Operator, Output, Progress, TickClose};
use crate::time::Watermark;
use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;

/// The operator.
pub(crate) struct LateRowsOperator {
    /// The column of the event time.
    pub(crate) time: usize,
}

impl Operator for LateRowsOperator {
    fn on_batch(&mut self, _input: usize, batch: &RecordBatch, tick: &OpenTick, out: &mut Output) -> Result<Progress> {
        let watermark = tick.watermarks.first().copied().unwrap_or(Watermark::NONE);
        if watermark == Watermark::NONE {
            return Ok(Progress::Done);
        }
        let times = millis(batch.column(self.time))?;
        let late: BooleanArray = times.iter().map(|time| Some(*time <= watermark.0)).collect();
        if late.has_true() {
            out.emit(filter_record_batch(batch, &late)?);
        }
        Ok(Progress::Done)
    }

    fn on_close(&mut self, _close: &TickClose, _out: &mut Output) -> Result<Progress> {
        Ok(Progress::Done)
    }
}
