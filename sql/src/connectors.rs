//! Where tables come from: the connectors of this program, or those of a test.

use arrow::array::RecordBatch;
use std::sync::Arc;
use tidemill_connectors::{ConnectorEnvironment, ConnectorError, Lookup, TableDefinition};
use tidemill_engine::lookup::{LookupFuture, LookupOptions, LookupSource};
use tidemill_engine::sink::{CommitterContext, DeliveryGuarantee, Sink, SinkCommitter, SinkContext, SinkWriter};
use tidemill_engine::source::{Source, Split, SplitContext, SplitEnumerator, SplitReader};
use tidemill_engine::{Error, Result};

/// Makes the sources and sinks of tables.
pub trait Connectors: Send + Sync {
    /// Checks that a table can be read, without I/O.
    ///
    /// # Errors
    /// When it cannot.
    fn check_source(&self, table: &TableDefinition) -> Result<(), ConnectorError>;

    /// Checks that a table can be written, without I/O.
    ///
    /// # Errors
    /// When it cannot.
    fn check_sink(&self, table: &TableDefinition) -> Result<(), ConnectorError>;

    /// Makes a source that gives exactly the projected columns, in that order.
    ///
    /// # Errors
    /// When the table cannot be read.
    fn create_source(&self, table: &TableDefinition, projection: &[usize]) -> Result<Arc<dyn Source>, ConnectorError>;

    /// Makes a sink that takes batches of the table's schema.
    ///
    /// # Errors
    /// When the table cannot be written.
    fn create_sink(&self, table: &TableDefinition) -> Result<Arc<dyn Sink>, ConnectorError>;

    /// Checks that a table can be looked up by the columns `keys`, without I/O.
    ///
    /// # Errors
    /// When it cannot.
    fn check_lookup(&self, _table: &TableDefinition, _keys: &[usize]) -> Result<(), ConnectorError> {
        Err(ConnectorError::new("these connectors look nothing up"))
    }

    /// Makes what looks rows of a table up by the columns `keys`; it answers exactly the projected columns, in that order.
    ///
    /// # Errors
    /// When the table cannot be looked up.
    fn create_lookup(
        &self,
        _table: &TableDefinition,
        _projection: &[usize],
        _keys: &[usize],
    ) -> Result<Lookup, ConnectorError> {
        Err(ConnectorError::new("these connectors look nothing up"))
    }
}

impl Connectors for ConnectorEnvironment {
    fn check_source(&self, table: &TableDefinition) -> Result<(), ConnectorError> {
        tidemill_connectors::check_source(table)
    }

    fn check_sink(&self, table: &TableDefinition) -> Result<(), ConnectorError> {
        tidemill_connectors::check_sink(table)
    }

    fn create_source(&self, table: &TableDefinition, projection: &[usize]) -> Result<Arc<dyn Source>, ConnectorError> {
        tidemill_connectors::create_source(table, projection, self)
    }

    fn create_sink(&self, table: &TableDefinition) -> Result<Arc<dyn Sink>, ConnectorError> {
        tidemill_connectors::create_sink(table, self)
    }

    fn check_lookup(&self, table: &TableDefinition, keys: &[usize]) -> Result<(), ConnectorError> {
        tidemill_connectors::check_lookup(table, keys)
    }

    fn create_lookup(
        &self,
        table: &TableDefinition,
        projection: &[usize],
        keys: &[usize],
    ) -> Result<Lookup, ConnectorError> {
        tidemill_connectors::create_lookup(table, projection, keys, self)
    }
}

/// Checks tables with other connectors and makes none: for `EXPLAIN`, which touches nothing outside.
pub(crate) struct ForExplain<'a>(pub(crate) &'a dyn Connectors);

impl Connectors for ForExplain<'_> {
    fn check_source(&self, table: &TableDefinition) -> Result<(), ConnectorError> {
        self.0.check_source(table)
    }

    fn check_sink(&self, table: &TableDefinition) -> Result<(), ConnectorError> {
        self.0.check_sink(table)
    }

    fn create_source(&self, table: &TableDefinition, _: &[usize]) -> Result<Arc<dyn Source>, ConnectorError> {
        self.0.check_source(table)?;
        Ok(Arc::new(Explained))
    }

    fn create_sink(&self, table: &TableDefinition) -> Result<Arc<dyn Sink>, ConnectorError> {
        self.0.check_sink(table)?;
        Ok(Arc::new(Explained))
    }

    fn check_lookup(&self, table: &TableDefinition, keys: &[usize]) -> Result<(), ConnectorError> {
        self.0.check_lookup(table, keys)
    }

    fn create_lookup(&self, table: &TableDefinition, _: &[usize], keys: &[usize]) -> Result<Lookup, ConnectorError> {
        self.0.check_lookup(table, keys)?;
        Ok(Lookup {
            source: Arc::new(Explained),
            options: LookupOptions::default(),
        })
    }
}

/// A source and sink of a graph that is only shown.
struct Explained;

fn not_run<T>() -> Result<T> {
    Err(Error::Internal("a graph made for EXPLAIN was run".into()))
}

impl Source for Explained {
    fn enumerator(&self) -> Result<Box<dyn SplitEnumerator>> {
        not_run()
    }

    fn open_split(&self, _: &Split, _: SplitContext) -> Result<Box<dyn SplitReader>> {
        not_run()
    }
}

impl LookupSource for Explained {
    fn lookup(&self, _: RecordBatch) -> LookupFuture<RecordBatch> {
        Box::pin(std::future::ready(not_run()))
    }

    fn load(&self) -> LookupFuture<Vec<RecordBatch>> {
        Box::pin(std::future::ready(not_run()))
    }
}

impl Sink for Explained {
    fn takes_changes(&self) -> bool {
        true
    }

    fn guarantee(&self) -> DeliveryGuarantee {
        DeliveryGuarantee::AtLeastOnce
    }

    fn writer(&self, _: SinkContext) -> Result<Box<dyn SinkWriter>> {
        not_run()
    }

    fn committer(&self, _: CommitterContext) -> Result<Option<Arc<dyn SinkCommitter>>> {
        not_run()
    }
}
