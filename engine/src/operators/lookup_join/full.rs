//! A cache of a whole table, loaded when the job starts and again at its interval.
//!
//! A load that fails leaves what was loaded before in place. Only the first one must succeed: until it has, batches wait.

use super::ask::Ask;
use super::index::TableIndex;
use crate::error::{Error, Result};
use crate::lookup::FullCacheOptions;
use crate::operator::AsyncContext;
use crate::time::TimeSource;
use arrow::array::RecordBatch;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};

pub(super) struct FullTable(Arc<Shared>);

struct Shared {
    options: FullCacheOptions,
    ask: Ask,
    keys: Vec<usize>,
    state: watch::Sender<State>,
    loader: Mutex<Option<Loader>>,
}

/// The task that loads, and the run of the job that it belongs to.
struct Loader {
    generation: u64,
    task: tokio::task::AbortHandle,
}

#[derive(Clone)]
enum State {
    Loading,
    Loaded(Arc<TableIndex>),
    Failed(Error),
}

impl FullTable {
    pub(super) fn new(options: FullCacheOptions, ask: Ask, keys: Vec<usize>) -> Self {
        let (state, _) = watch::channel(State::Loading);
        Self(Arc::new(Shared {
            options,
            ask,
            keys,
            state,
            loader: Mutex::default(),
        }))
    }

    /// Begins to load; the first worker of a run of the job does so for all.
    pub(super) fn start(&self, context: &AsyncContext) {
        let mut loader = self.0.loader.lock().unwrap_or_else(PoisonError::into_inner);
        if loader
            .as_ref()
            .is_some_and(|loader| loader.generation == context.generation)
        {
            return;
        }
        if let Some(before) = loader.take() {
            before.task.abort();
        }
        self.0.state.send_replace(State::Loading);
        let (shared, time) = (Arc::downgrade(&self.0), Arc::clone(&context.time));
        *loader = Some(Loader {
            generation: context.generation,
            task: context.runtime.spawn(load_and_reload(shared, time)).abort_handle(),
        });
    }

    /// Returns the rows, if they are loaded.
    ///
    /// # Errors
    /// When they could not be.
    pub(super) fn now(&self) -> Result<Option<Arc<TableIndex>>> {
        match &*self.0.state.borrow() {
            State::Loading => Ok(None),
            State::Loaded(index) => Ok(Some(Arc::clone(index))),
            State::Failed(error) => Err(error.clone()),
        }
    }

    /// Returns the rows, once they are loaded.
    ///
    /// # Errors
    /// When they could not be.
    pub(super) async fn loaded(&self) -> Result<Arc<TableIndex>> {
        let mut state = self.0.state.subscribe();
        let loaded = state.wait_for(|state| !matches!(state, State::Loading)).await;
        match loaded.as_deref() {
            Ok(State::Loaded(index)) => Ok(Arc::clone(index)),
            Ok(State::Failed(error)) => Err(error.clone()),
            Ok(State::Loading) | Err(_) => Err(Error::Internal("a lookup table's loader has gone".into())),
        }
    }
}

impl Shared {
    async fn load(&self) -> Result<TableIndex> {
        let rows = self.ask.load().await?;
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        if count > self.options.rows_max {
            return Err(Error::Limit(format!(
                "the lookup table {} has {count} rows, and its cache may hold {}; raise \
                 'lookup.full-cache.max-rows', or use 'lookup.cache' = 'PARTIAL' where the connector offers it",
                self.ask.table(),
                self.options.rows_max
            )));
        }
        // Many rows: not on a thread that others wait for.
        let (schema, keys) = (Arc::clone(self.ask.schema()), self.keys.clone());
        let indexed = tokio::task::spawn_blocking(move || TableIndex::new(&schema, &rows, &keys)).await;
        indexed.map_err(|error| Error::Internal(format!("a lookup table's rows were not indexed: {error}")))?
    }
}

async fn load_and_reload(shared: Weak<Shared>, time: Arc<dyn TimeSource>) {
    let advanced = Arc::new(Notify::new());
    {
        let advanced = Arc::clone(&advanced);
        time.on_advance(Arc::new(move || advanced.notify_one()));
    }
    let mut is_first = true;
    loop {
        let Some(table) = shared.upgrade() else { return };
        match table.load().await {
            Ok(index) => {
                table.state.send_replace(State::Loaded(Arc::new(index)));
            }
            Err(error) if is_first => {
                table.state.send_replace(State::Failed(error));
                return;
            }
            Err(error) => {
                let table = table.ask.table();
                tracing::warn!(table, %error, "a lookup table could not be read again; the rows read before stay");
            }
        }
        is_first = false;
        let Some(interval) = table.options.reload_interval else {
            return;
        };
        drop(table);
        pause(interval, &*time, &advanced).await;
    }
}

/// Waits until `interval` has passed on the job's clock.
async fn pause(interval: Duration, time: &dyn TimeSource, advanced: &Notify) {
    let due = time.monotonic() + interval;
    loop {
        let left = due.saturating_sub(time.monotonic());
        if left.is_zero() {
            return;
        }
        match time.park_for(left) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => advanced.notified().await,
        }
    }
}
