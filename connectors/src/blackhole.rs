//! The connector `blackhole`: a sink that takes everything and keeps nothing, for measuring what comes before it.

use crate::error::ConnectorError;
use crate::options::Options;
use crate::table::TableDefinition;
use arrow::array::RecordBatch;
use std::sync::Arc;
use tidemill_engine::Result;
use tidemill_engine::operator::{Progress, TickClose};
use tidemill_engine::sink::{
    CommitterContext, DeliveryGuarantee, PreCommit, PreCommitId, Sink, SinkCommitter, SinkContext, SinkWriter,
};

/// Checks the options; there are none besides the delivery guarantee.
///
/// # Errors
/// When there are others.
pub(crate) fn check(table: &TableDefinition) -> Result<(), ConnectorError> {
    let options = Options::new(&table.name, &table.options);
    crate::sinks::at_least_once_only(&options)?;
    options.finish()
}

/// The sink.
pub(crate) struct BlackholeSink;

impl Sink for BlackholeSink {
    fn takes_changes(&self) -> bool {
        true
    }

    fn guarantee(&self) -> DeliveryGuarantee {
        DeliveryGuarantee::AtLeastOnce
    }

    fn writer(&self, _context: SinkContext) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(BlackholeWriter))
    }

    fn committer(&self, _context: CommitterContext) -> Result<Option<Arc<dyn SinkCommitter>>> {
        Ok(None)
    }
}

struct BlackholeWriter;

impl SinkWriter for BlackholeWriter {
    fn write(&mut self, _batch: &RecordBatch, _wall_time_ms: i64) -> Result<()> {
        Ok(())
    }

    fn tick_closed(&mut self, _close: &TickClose) -> Result<Progress> {
        Ok(Progress::Done)
    }

    fn pre_commit(&mut self, _id: PreCommitId) -> Result<PreCommit> {
        Ok(Box::pin(std::future::ready(Ok(None))))
    }
}
