//! Makes the requests of a lookup join, again if they fail.

use crate::error::{Error, Result};
use crate::lookup::{LookupJoin, LookupSource};
use crate::metrics::OperatorMetrics;
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// No pause between two tries is longer.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Asks a table.
#[derive(Clone)]
pub(super) struct Ask {
    table: Arc<str>,
    source: Arc<dyn LookupSource>,
    schema: SchemaRef,
    retries_max: u32,
    retry_pause: Duration,
    /// Where requests are counted: one worker counts for all.
    metrics: Arc<Mutex<Option<Arc<OperatorMetrics>>>>,
}

impl Ask {
    pub(super) fn new(join: &LookupJoin) -> Self {
        Self {
            table: join.table.as_str().into(),
            source: Arc::clone(&join.source),
            schema: Arc::clone(&join.schema),
            retries_max: join.options.retries_max,
            retry_pause: join.options.retry_pause,
            metrics: Arc::default(),
        }
    }

    /// Returns the table's name.
    pub(super) fn table(&self) -> &str {
        &self.table
    }

    /// Returns the columns that the table answers.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Counts requests from now on here; the last worker of a process that says so counts for all.
    pub(super) fn count_into(&self, metrics: Arc<OperatorMetrics>) {
        *self.metrics.lock().unwrap_or_else(PoisonError::into_inner) = Some(metrics);
    }

    /// Asks for the rows of keys.
    ///
    /// # Errors
    /// When the last try fails, too.
    pub(super) async fn lookup(&self, keys: RecordBatch) -> Result<RecordBatch> {
        let mut tries = 0;
        loop {
            match self.source.lookup(keys.clone()).await.and_then(|rows| self.fit(&rows)) {
                Ok(rows) => {
                    self.count(|metrics| metrics.requests.add(1));
                    return Ok(rows);
                }
                Err(error) => self.after(error, &mut tries).await?,
            }
        }
    }

    /// Reads the whole table.
    ///
    /// # Errors
    /// When the last try fails, too.
    pub(super) async fn load(&self) -> Result<Vec<RecordBatch>> {
        let mut tries = 0;
        loop {
            let loaded = self.source.load().await;
            match loaded.and_then(|rows| rows.iter().map(|rows| self.fit(rows)).collect()) {
                Ok(rows) => {
                    self.count(|metrics| metrics.requests.add(1));
                    return Ok(rows);
                }
                Err(error) => self.after(error, &mut tries).await?,
            }
        }
    }

    /// Counts a failure, and waits before the next try; gives the error back when there is none.
    async fn after(&self, error: Error, tries: &mut u32) -> Result<()> {
        self.count(|metrics| {
            metrics.requests.add(1);
            metrics.requests_failed.add(1);
        });
        if *tries >= self.retries_max || !error.is_retryable() {
            return Err(self.named(error));
        }
        tracing::debug!(table = &*self.table, %error, "a lookup failed and is tried again");
        let pause = self.retry_pause.saturating_mul(1 << (*tries).min(16)).min(PAUSE_MAX);
        *tries += 1;
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Brings an answer under the table's schema.
    fn fit(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let types = |schema: &Schema| -> Vec<_> { schema.fields().iter().map(|f| f.data_type().clone()).collect() };
        let (found, wanted) = (types(rows.schema_ref()), types(&self.schema));
        if found != wanted {
            return Err(Error::Internal(format!(
                "the lookup table {} answered columns of {found:?} instead of {wanted:?}",
                self.table
            )));
        }
        RecordBatch::try_new(Arc::clone(&self.schema), rows.columns().to_vec())
            .map_err(|error| self.named(Error::operator(error.to_string())))
    }

    /// Puts the table's name into an error that has none.
    fn named(&self, error: Error) -> Error {
        match error {
            Error::Operator { operator, message } if operator.is_empty() => Error::Source {
                table: self.table.to_string(),
                message,
            },
            other => other,
        }
    }

    fn count(&self, count: impl FnOnce(&OperatorMetrics)) {
        if let Some(metrics) = &*self.metrics.lock().unwrap_or_else(PoisonError::into_inner) {
            count(metrics);
        }
    }
}
