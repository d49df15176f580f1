//! Joins a stream with a table that is looked up.
//!
//! ```text
//!  full cache      batch ── hash keys ── probe TableIndex ── take ──▶ batch                    on the worker, at once
//!  partial cache   batch ── distinct keys ── KeyCache ── all known ── gather ── as above       on the worker, at once
//!                                               └─ some not: one request ── learn ── gather    a request of its own
//! ```
//! Whatever the cache, rows are joined in one way: the rows that a batch needs are put into a [`TableIndex`], and the batch
//! is probed against it, column by column.
//!
//! One operator serves all workers of the process, so that they share its cache.
//!
//! File map: `index` finds rows by key, `matching` joins a batch, `cache` remembers keys, `full` loads a whole table and
//! loads it again, `ask` makes requests, again if they fail.

mod ask;
mod cache;
mod full;
mod index;
mod matching;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::lookup::{LookupCache, LookupJoin};
use crate::operator::{AsyncContext, AsyncOperator, OpenTick};
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use ask::Ask;
use cache::KeyCache;
use full::FullTable;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use index::TableIndex;
use matching::Matching;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The operator.
pub(crate) struct LookupJoinOperator(Arc<Inner>);

struct Inner {
    matching: Matching,
    ask: Ask,
    /// The columns that are asked for, by their places in the table's rows.
    table_keys: Vec<usize>,
    /// Their names and types.
    asked_schema: SchemaRef,
    memory: Memory,
}

enum Memory {
    /// Also of no cache at all: then nothing is learned.
    Keys(Option<Mutex<KeyCache>>),
    Full(FullTable),
}

impl LookupJoinOperator {
    /// Makes the operator for rows of `input`, checked by the job graph.
    pub(crate) fn new(join: LookupJoin, input: &Schema, schema: SchemaRef) -> Self {
        let table_keys: Vec<usize> = join.keys.iter().map(|(_, of_table)| *of_table).collect();
        let asked_schema = table_keys
            .iter()
            .map(|key| join.schema.field(*key).clone().with_nullable(false));
        let asked_schema = Arc::new(Schema::new(asked_schema.collect::<Vec<_>>()));
        let ask = Ask::new(&join);
        let memory = match &join.options.cache {
            LookupCache::None => Memory::Keys(None),
            LookupCache::Partial(options) => Memory::Keys(Some(Mutex::new(KeyCache::new(options.clone())))),
            LookupCache::Full(options) => {
                Memory::Full(FullTable::new(options.clone(), ask.clone(), table_keys.clone()))
            }
        };
        let matching = Matching::new(join, input, schema);
        Self(Arc::new(Inner {
            matching,
            ask,
            table_keys,
            asked_schema,
            memory,
        }))
    }
}

impl AsyncOperator for LookupJoinOperator {
    fn start(&self, context: &AsyncContext) {
        self.0.ask.count_into(Arc::clone(&context.metrics));
        if let Memory::Full(table) = &self.0.memory {
            table.start(context);
        }
    }

    fn answer_now(&self, batch: &RecordBatch, tick: &OpenTick) -> Result<Option<RecordBatch>> {
        let inner = &*self.0;
        match &inner.memory {
            Memory::Full(table) => match table.now()? {
                Some(index) => inner.matching.join(batch, &index, tick.wall_time_ms).map(Some),
                None => Ok(None),
            },
            Memory::Keys(cache) => {
                let keys = inner.matching.distinct(batch)?;
                let mut rows = None;
                if !keys.is_empty() {
                    let Some(cache) = cache else { return Ok(None) };
                    let mut cache = lock(cache);
                    let known = cache.known(&keys, tick.wall_time_ms);
                    if !known.missing.is_empty() {
                        return Ok(None);
                    }
                    rows = cache.gather(&known)?;
                }
                let rows: Vec<RecordBatch> = rows.into_iter().collect();
                let index = TableIndex::new(inner.matching.table_schema(), &rows, &inner.table_keys)?;
                inner.matching.join(batch, &index, tick.wall_time_ms).map(Some)
            }
        }
    }

    fn request(&self, batch: RecordBatch, tick: OpenTick) -> BoxFuture<'static, Result<RecordBatch>> {
        let inner = Arc::clone(&self.0);
        async move {
            let index = match &inner.memory {
                Memory::Full(table) => table.loaded().await?,
                Memory::Keys(_) => Arc::new(inner.ask_for(&batch, &tick).await?),
            };
            inner.matching.join(&batch, &index, tick.wall_time_ms)
        }
        .boxed()
    }
}

impl Inner {
    /// Finds the rows of a batch's keys: those the cache knows there, and the others with one request.
    async fn ask_for(&self, batch: &RecordBatch, tick: &OpenTick) -> Result<TableIndex> {
        let Memory::Keys(cache) = &self.memory else {
            return Err(Error::Internal("a full cache asks for no keys".into()));
        };
        let keys = self.matching.distinct(batch)?;
        // What is known is taken before the request: while it runs, other batches may push it out.
        let (missing, known) = match cache {
            Some(cache) => {
                let mut cache = lock(cache);
                let known = cache.known(&keys, tick.wall_time_ms);
                let rows = cache.gather(&known)?;
                (known.missing, rows)
            }
            None => ((0..keys.len()).collect(), None),
        };
        let mut rows: Vec<RecordBatch> = known.into_iter().collect();
        if !missing.is_empty() {
            let asked = keys.batch(&missing, &self.asked_schema)?;
            let answer = self.ask.lookup(asked.clone()).await?;
            let answer = TableIndex::new(self.matching.table_schema(), &[answer], &self.table_keys)?;
            let fetched = answer.rows_by_key(asked.columns())?;
            if let Some(cache) = cache {
                lock(cache).learn(&keys, &missing, &fetched, tick.wall_time_ms)?;
            }
            rows.push(fetched.rows);
        }
        TableIndex::new(self.matching.table_schema(), &rows, &self.table_keys)
    }
}

fn lock(cache: &Mutex<KeyCache>) -> MutexGuard<'_, KeyCache> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}
