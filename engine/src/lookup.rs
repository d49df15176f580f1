//! What a lookup join asks: a table outside of the job that is looked up by key, as it is at the moment of asking.
//!
//! ```text
//!  batch ── distinct keys ── cache ── those it does not know ── LookupSource::lookup ──▶ rows ── joined by key ──▶ batch
//!                              └────── a full cache knows all: LookupSource::load, now and then
//! ```
//! Connectors implement [`LookupSource`], [`JobGraph::lookup_join`](crate::graph::JobGraph::lookup_join) asks it.
//!
//! A lookup sees the table as it is when it is asked, or as it was when the cache learned it. So a restart, which asks
//! again, may find other rows, and what is emitted is not a function of the job's input alone. Checkpoints hold nothing of
//! it.

use crate::error::Result;
use crate::expr::Expr;
use arrow::array::RecordBatch;
use arrow::datatypes::{Field, SchemaRef};
use futures::future::BoxFuture;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What a [`LookupSource`] answers later.
pub type LookupFuture<T> = BoxFuture<'static, Result<T>>;

/// A table that is looked up by key.
pub trait LookupSource: Send + Sync {
    /// Returns the rows of some keys. `keys` has a column for each key column of the table, in the join's order and with the
    /// table's names, and a row for each key; no key is there twice, and none holds a null.
    ///
    /// The answer has the columns that [`LookupJoin::schema`] says, any number of rows per key, in any order. A row whose
    /// key was not asked for is not joined.
    ///
    /// # Errors
    /// When the table cannot be asked now. A [permanent](crate::Error::permanent) error is not tried again.
    fn lookup(&self, keys: RecordBatch) -> LookupFuture<RecordBatch>;

    /// Returns all rows, for a [`LookupCache::Full`].
    ///
    /// # Errors
    /// As [`LookupSource::lookup`].
    fn load(&self) -> LookupFuture<Vec<RecordBatch>>;
}

/// What is remembered of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupCache {
    /// Nothing: every batch asks for its keys.
    None,
    /// Keys that were asked for.
    Partial(PartialCacheOptions),
    /// All rows, read when the job starts.
    Full(FullCacheOptions),
}

/// The limits of a cache of keys. Its time is that of ticks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialCacheOptions {
    /// Rows at most, at least 1; a key without rows counts as one. The keys not asked for lately go first.
    pub rows_max: usize,
    /// A key is asked for again when it was learned that long ago.
    pub expire_after_write: Option<Duration>,
    /// A key is forgotten when nobody wanted it for that long.
    pub expire_after_access: Option<Duration>,
    /// Whether a key without rows is remembered, too.
    pub remembers_missing: bool,
}

impl Default for PartialCacheOptions {
    fn default() -> Self {
        Self {
            rows_max: 100_000,
            expire_after_write: None,
            expire_after_access: None,
            remembers_missing: true,
        }
    }
}

/// The limits of a cache of all rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullCacheOptions {
    /// How long after the last load the table is read again; `None`: never.
    pub reload_interval: Option<Duration>,
    /// A table of more rows fails the job.
    pub rows_max: usize,
}

impl Default for FullCacheOptions {
    fn default() -> Self {
        Self {
            reload_interval: None,
            rows_max: 10_000_000,
        }
    }
}

/// How a table is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupOptions {
    /// What is remembered.
    pub cache: LookupCache,
    /// How often a request that failed is made again.
    pub retries_max: u32,
    /// The pause before the first of these; each further one is twice as long, up to 10 s.
    pub retry_pause: Duration,
    /// Requests in flight per worker, at least 1.
    pub requests_max: usize,
    /// A batch that is not answered within this time, retries included, fails the job.
    pub timeout: Duration,
}

impl Default for LookupOptions {
    fn default() -> Self {
        Self {
            cache: LookupCache::None,
            retries_max: 3,
            retry_pause: Duration::from_millis(100),
            requests_max: 16,
            timeout: Duration::from_secs(180),
        }
    }
}

/// What becomes of a row of the stream for which the table has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LookupJoinKind {
    /// It is dropped.
    Inner,
    /// It goes on, with nulls for the table's columns.
    Left,
}

/// A join of a stream with a table that is looked up. Rows stay on their worker, in order; the rows that the table has for
/// one of them follow one another.
#[derive(Clone)]
pub struct LookupJoin {
    /// The table's name, for plans and messages.
    pub table: String,
    /// The table.
    pub source: Arc<dyn LookupSource>,
    /// The columns that the source answers, in order.
    pub schema: SchemaRef,
    /// What must be equal: a column of the stream and one of the table, of the same type. A null equals nothing.
    pub keys: Vec<(usize, usize)>,
    /// What becomes of rows without a match.
    pub kind: LookupJoinKind,
    /// What must be true besides, over the stream's columns and then the table's; null counts as false.
    pub residual: Option<Expr>,
    /// The columns to emit, by their places among the stream's columns and then the table's, with their fields.
    pub outputs: Vec<(Field, usize)>,
    /// How the table is asked.
    pub options: LookupOptions,
}

impl fmt::Debug for LookupJoin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LookupJoin")
            .field("table", &self.table)
            .field("keys", &self.keys)
            .field("kind", &self.kind)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
