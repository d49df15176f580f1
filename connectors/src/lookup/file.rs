//! Files as a lookup table: read whole, by the source of the connector `filesystem`.

use super::options::{CacheKind, split};
use super::{Lookup, Wanted};
use crate::environment::ConnectorEnvironment;
use crate::error::ConnectorError;
use crate::filesystem::{FileSource, check_source};
use crate::table::TableDefinition;
use arrow::array::RecordBatch;
use futures::FutureExt as _;
use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use tidemill_engine::lookup::{LookupCache, LookupFuture, LookupOptions, LookupSource};
use tidemill_engine::source::{ReadOutcome, Source, Split, SplitContext};
use tidemill_engine::{Error, Result};

const ROWS_AT_ONCE: usize = 65_536;
const BYTES_AT_ONCE: usize = 8 << 20;

/// Checks that a table can be looked up.
///
/// # Errors
/// When it cannot.
pub(crate) fn check(table: &TableDefinition) -> Result<(), ConnectorError> {
    parse(table).map(|_| ())
}

fn parse(table: &TableDefinition) -> Result<(LookupOptions, TableDefinition), ConnectorError> {
    let (options, table) = split(table, &[CacheKind::Full])?;
    if table.options.contains_key("source.monitor-interval") {
        let error = ConnectorError::option("source.monitor-interval", "has no effect on a table that is looked up");
        return Err(error.with_hint("'lookup.full-cache.periodic-reload.interval' = '1 min' reads it again and again"));
    }
    check_source(&table)?;
    Ok((options, table))
}

/// Makes the lookup of a table.
///
/// # Errors
/// When the options are not valid.
pub(crate) fn create(
    table: &TableDefinition,
    wanted: Wanted<'_>,
    env: &ConnectorEnvironment,
) -> Result<Lookup, ConnectorError> {
    let (options, table) = parse(table)?;
    let rows_max = match &options.cache {
        LookupCache::Full(cache) => cache.rows_max,
        LookupCache::None | LookupCache::Partial(_) => 0,
    };
    let source = Files {
        table: table.name.as_str().into(),
        source: Arc::new(FileSource::new(&table, wanted.projection, env)?),
        rows_max,
    };
    Ok(Lookup {
        source: Arc::new(source),
        options,
    })
}

struct Files {
    table: Arc<str>,
    source: Arc<FileSource>,
    /// Reading ends when there are more.
    rows_max: usize,
}

impl LookupSource for Files {
    fn lookup(&self, _keys: RecordBatch) -> LookupFuture<RecordBatch> {
        std::future::ready(Err(Error::Internal("files are not asked by key".into()))).boxed()
    }

    fn load(&self) -> LookupFuture<Vec<RecordBatch>> {
        let (table, source, rows_max) = (Arc::clone(&self.table), Arc::clone(&self.source), self.rows_max);
        async move {
            source.check().await?;
            let found = source.enumerator()?.discover(&BTreeMap::new()).await?;
            let runtime = tokio::runtime::Handle::current();
            let reading = tokio::task::spawn_blocking(move || read(&table, &source, &found.new, rows_max, &runtime));
            reading
                .await
                .map_err(|error| Error::Internal(format!("reading a lookup table ended: {error}")))?
        }
        .boxed()
    }
}

/// Reads all files, one after the other. Blocks.
fn read(
    table: &str,
    source: &FileSource,
    splits: &[Split],
    rows_max: usize,
    runtime: &tokio::runtime::Handle,
) -> Result<Vec<RecordBatch>> {
    let (wake, woken) = mpsc::channel();
    let context = SplitContext {
        table: table.to_owned(),
        worker: 0,
        waker: Arc::new(move || {
            let _ = wake.send(());
        }),
        runtime: runtime.clone(),
        metrics: Arc::default(),
    };
    let (mut rows, mut count) = (Vec::new(), 0usize);
    for split in splits {
        let mut reader = source.open_split(split, context.clone())?;
        loop {
            match reader.read(ROWS_AT_ONCE, BYTES_AT_ONCE)? {
                ReadOutcome::Rows(batch) => {
                    count += batch.num_rows();
                    rows.push(batch);
                    if count > rows_max {
                        // The rows so far are enough for the cache to say that they are too many.
                        return Ok(rows);
                    }
                }
                ReadOutcome::Pending => {
                    let _ = woken.recv();
                }
                ReadOutcome::Ended => break,
            }
        }
    }
    let dropped = context.metrics.rows_dropped.get();
    if dropped > 0 {
        tracing::warn!(
            table,
            dropped,
            "records of a lookup table could not be decoded and are left out"
        );
    }
    Ok(rows)
}
