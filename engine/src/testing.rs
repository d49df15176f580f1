//! A source and a sink in memory, for tests of operators, planners and jobs.
//!
//! [`MemorySource`] serves rows that were given or are [pushed](MemorySource::push) while the job runs; [`MemorySink`]
//! collects what became visible, with either delivery guarantee. Both outlive the job, so a test can kill a job, start
//! it again on the same source and sink, and compare.

use crate::error::{Error, Result};
use crate::operator::{Progress, TickClose};
use crate::sink::{
    CommitterContext, DeliveryGuarantee, PreCommit, PreCommitId, PublishPermit, Sink, SinkCommitter, SinkContext,
    SinkWriter,
};
use crate::source::{
    Discovery, ReadOutcome, Source, Split, SplitContext, SplitEnumerator, SplitId, SplitReader, SplitState,
};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct MemorySplit {
    batches: Vec<RecordBatch>,
    ended: bool,
    wakers: Vec<Arc<dyn Fn() + Send + Sync>>,
}

/// A table in memory, one split per list of batches. Cloning shares the rows.
#[derive(Clone)]
pub struct MemorySource {
    splits: Arc<Vec<Mutex<MemorySplit>>>,
    /// Rows per read at most; small numbers make many ticks and odd cuts.
    rows_max: usize,
}

impl MemorySource {
    /// Makes a table that has ended: the splits hold these batches and no more will come.
    #[must_use]
    pub fn bounded(splits: Vec<Vec<RecordBatch>>) -> Self {
        let split = |batches| {
            Mutex::new(MemorySplit {
                batches,
                ended: true,
                wakers: Vec::new(),
            })
        };
        Self {
            splits: Arc::new(splits.into_iter().map(split).collect()),
            rows_max: usize::MAX,
        }
    }

    /// Makes an empty table of `splits` splits, to be [pushed](Self::push) to.
    #[must_use]
    pub fn unbounded(splits: usize) -> Self {
        let splits = (0..splits).map(|_| Mutex::new(MemorySplit::default())).collect();
        Self {
            splits: Arc::new(splits),
            rows_max: usize::MAX,
        }
    }

    /// Gives out at most this many rows at once.
    #[must_use]
    pub fn with_rows_max(mut self, rows_max: usize) -> Self {
        self.rows_max = rows_max.max(1);
        self
    }

    /// Adds rows to a split and wakes its reader.
    pub fn push(&self, split: usize, batch: RecordBatch) {
        let mut split = lock(&self.splits[split]);
        split.batches.push(batch);
        split.wakers.iter().for_each(|wake| wake());
    }

    /// Ends all splits.
    pub fn end(&self) {
        for split in self.splits.iter() {
            let mut split = lock(split);
            split.ended = true;
            split.wakers.iter().for_each(|wake| wake());
        }
    }
}

struct MemoryEnumerator(usize);

#[async_trait::async_trait]
impl SplitEnumerator for MemoryEnumerator {
    async fn discover(&mut self, known: &BTreeMap<SplitId, SplitState>) -> Result<Discovery> {
        let ids = (0..self.0).map(|split| SplitId(split.to_string()));
        let new = ids
            .filter(|id| !known.contains_key(id))
            .map(|id| Split {
                id,
                position: "0".into(),
            })
            .collect();
        Ok(Discovery {
            new,
            complete: true,
            forget: Vec::new(),
        })
    }
}

impl Source for MemorySource {
    fn enumerator(&self) -> Result<Box<dyn SplitEnumerator>> {
        Ok(Box::new(MemoryEnumerator(self.splits.len())))
    }

    fn open_split(&self, split: &Split, context: SplitContext) -> Result<Box<dyn SplitReader>> {
        let number = |text: &str| {
            text.parse::<usize>().map_err(|_| Error::Source {
                table: context.table.clone(),
                message: format!("{text}?"),
            })
        };
        let (index, row) = (number(&split.id.0)?, number(&split.position)?);
        let mut held = lock(&self.splits[index]);
        held.wakers.push(Arc::clone(&context.waker));
        if !held.batches.is_empty() || held.ended {
            (context.waker)();
        }
        Ok(Box::new(MemoryReader {
            splits: Arc::clone(&self.splits),
            index,
            row,
            rows_max: self.rows_max,
        }))
    }
}

struct MemoryReader {
    splits: Arc<Vec<Mutex<MemorySplit>>>,
    index: usize,
    row: usize,
    rows_max: usize,
}

impl SplitReader for MemoryReader {
    fn read(&mut self, rows_max: usize, _bytes_max: usize) -> Result<ReadOutcome> {
        let split = lock(&self.splits[self.index]);
        let mut first = 0;
        for batch in &split.batches {
            if self.row < first + batch.num_rows() {
                let offset = self.row - first;
                let rows = (batch.num_rows() - offset).min(rows_max).min(self.rows_max);
                self.row += rows;
                return Ok(ReadOutcome::Rows(batch.slice(offset, rows)));
            }
            first += batch.num_rows();
        }
        Ok(if split.ended {
            ReadOutcome::Ended
        } else {
            ReadOutcome::Pending
        })
    }

    fn position(&self) -> String {
        self.row.to_string()
    }

    fn is_ready(&mut self) -> bool {
        let split = lock(&self.splits[self.index]);
        split.ended || self.row < split.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

#[derive(Default)]
struct Collected {
    visible: Vec<RecordBatch>,
    /// Pre-committed and not published, by a number that is the committable.
    staged: BTreeMap<u64, Vec<RecordBatch>>,
    next: u64,
    last_published: Option<PublishPermit>,
}

/// A table in memory that collects rows. Cloning shares them.
#[derive(Clone)]
pub struct MemorySink {
    guarantee: DeliveryGuarantee,
    collected: Arc<Mutex<Collected>>,
    delay: Duration,
}

impl MemorySink {
    /// Makes an empty table.
    #[must_use]
    pub fn new(guarantee: DeliveryGuarantee) -> Self {
        Self {
            guarantee,
            collected: Arc::default(),
            delay: Duration::ZERO,
        }
    }

    /// Makes every close of a tick take this long.
    #[must_use]
    pub fn with_delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Returns what is visible, in the order in which it became so.
    #[must_use]
    pub fn batches(&self) -> Vec<RecordBatch> {
        lock(&self.collected).visible.clone()
    }

    /// Returns what is visible as one batch.
    ///
    /// # Errors
    /// When the batches do not have this schema.
    pub fn concat(&self, schema: &SchemaRef) -> Result<RecordBatch> {
        Ok(arrow::compute::concat_batches(schema, &self.batches())?)
    }

    /// Returns the number of visible rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        lock(&self.collected).visible.iter().map(RecordBatch::num_rows).sum()
    }
}

struct MemoryWriter {
    sink: MemorySink,
    written: Vec<RecordBatch>,
}

impl SinkWriter for MemoryWriter {
    fn write(&mut self, batch: &RecordBatch, _wall_time_ms: i64) -> Result<()> {
        self.written.push(batch.clone());
        Ok(())
    }

    fn tick_closed(&mut self, _close: &TickClose) -> Result<Progress> {
        if !self.sink.delay.is_zero() {
            std::thread::sleep(self.sink.delay);
        }
        if self.sink.guarantee == DeliveryGuarantee::AtLeastOnce {
            lock(&self.sink.collected).visible.append(&mut self.written);
        }
        Ok(Progress::Done)
    }

    fn pre_commit(&mut self, _id: PreCommitId) -> Result<PreCommit> {
        let written = std::mem::take(&mut self.written);
        let sink = self.sink.clone();
        Ok(Box::pin(async move {
            if written.is_empty() {
                return Ok(None);
            }
            let mut collected = lock(&sink.collected);
            let number = collected.next;
            collected.next += 1;
            collected.staged.insert(number, written);
            Ok(Some(number.to_le_bytes().to_vec()))
        }))
    }
}

struct MemoryCommitter(MemorySink);

#[async_trait::async_trait]
impl SinkCommitter for MemoryCommitter {
    async fn publish(&self, permit: PublishPermit, committables: &[Vec<u8>]) -> Result<()> {
        let mut collected = lock(&self.0.collected);
        // Another lineage counts for itself.
        if let Some(last) = collected.last_published.filter(|last| last.lineage == permit.lineage) {
            if permit.checkpoint < last.checkpoint || permit.generation < last.generation {
                return Err(Error::Fenced);
            }
            if permit.checkpoint == last.checkpoint {
                return Ok(());
            }
        }
        collected.last_published = Some(permit);
        for committable in committables {
            let number = <[u8; 8]>::try_from(committable.as_slice()).map(u64::from_le_bytes);
            let number = number.map_err(|_| Error::Internal("a committable is a number".into()))?;
            let Some(mut staged) = collected.staged.remove(&number) else {
                return Err(Error::Internal(format!(
                    "{number} is published twice or was never staged"
                )));
            };
            collected.visible.append(&mut staged);
        }
        Ok(())
    }
}

impl Sink for MemorySink {
    fn takes_changes(&self) -> bool {
        true
    }

    fn guarantee(&self) -> DeliveryGuarantee {
        self.guarantee
    }

    fn writer(&self, _context: SinkContext) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(MemoryWriter {
            sink: self.clone(),
            written: Vec::new(),
        }))
    }

    fn committer(&self, _context: CommitterContext) -> Result<Option<Arc<dyn SinkCommitter>>> {
        let exactly_once = self.guarantee == DeliveryGuarantee::ExactlyOnce;
        Ok(exactly_once.then(|| Arc::new(MemoryCommitter(self.clone())) as Arc<dyn SinkCommitter>))
    }
}
