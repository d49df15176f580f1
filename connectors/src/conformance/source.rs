//! What every source must keep.

use super::{Wakes, lines, metrics, runtime};
use arrow::array::RecordBatch;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_engine::metrics::OperatorMetrics;
use tidemill_engine::source::{ReadOutcome, Source, Split, SplitContext, SplitReader, SplitState};

/// A source under test, with the runtime that its readers use.
pub(crate) struct Reading<'a> {
    pub(crate) source: &'a dyn Source,
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) wakes: Wakes,
    pub(crate) metrics: Arc<OperatorMetrics>,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(source: &'a dyn Source) -> Self {
        Self {
            source,
            runtime: runtime(),
            wakes: Wakes::default(),
            metrics: metrics(),
        }
    }

    /// Looks for splits that are not among the known ones.
    pub(crate) fn discover(&self, known: &BTreeMap<tidemill_engine::source::SplitId, SplitState>) -> Vec<Split> {
        let mut enumerator = self.source.enumerator().unwrap();
        self.runtime.block_on(enumerator.discover(known)).unwrap().new
    }

    pub(crate) fn open(&self, split: &Split) -> Box<dyn SplitReader> {
        self.source.open_split(split, self.context()).unwrap()
    }

    pub(crate) fn context(&self) -> SplitContext {
        SplitContext {
            table: "t".to_owned(),
            worker: 0,
            waker: self.wakes.waker(),
            runtime: self.runtime.handle().clone(),
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// Asks for the next batch and waits for it as long as it takes; `None` at the end.
    pub(crate) fn next(
        &self,
        reader: &mut dyn SplitReader,
        rows_max: usize,
    ) -> Result<Option<RecordBatch>, tidemill_engine::Error> {
        loop {
            let seen = self.wakes.count();
            let ready = reader.is_ready();
            match reader.read(rows_max, 1 << 20)? {
                ReadOutcome::Rows(batch) => {
                    assert!(batch.num_rows() > 0, "a batch without rows");
                    return Ok(Some(batch));
                }
                ReadOutcome::Ended => return Ok(None),
                ReadOutcome::Pending => match reader.retry_after() {
                    Some(wait) => std::thread::sleep(wait),
                    // A reader that said it was ready may have woken nobody: it is asked again.
                    None if ready && self.wakes.count() == seen && reader.is_ready() => {}
                    None => self.wakes.wait_beyond(seen),
                },
            }
        }
    }

    /// Reads a split to its end, or until there were `limit` rows, with reads of these sizes in turn. Gives the rows
    /// and the positions behind each batch, with the rows read until there.
    pub(crate) fn read_split(
        &self,
        split: &Split,
        sizes: &[usize],
        limit: usize,
    ) -> (Vec<String>, Vec<(String, usize)>) {
        let mut reader = self.open(split);
        assert_eq!(
            reader.position(),
            split.position,
            "a new reader's position is where it was opened"
        );
        let (mut rows, mut positions) = (Vec::new(), Vec::new());
        for size in sizes.iter().cycle() {
            match self.next(reader.as_mut(), *size).unwrap() {
                None => {
                    assert!(
                        matches!(reader.read(1, 1).unwrap(), ReadOutcome::Ended),
                        "the end is the end"
                    );
                    break;
                }
                Some(batch) => rows.extend(lines(&[batch])),
            }
            positions.push((reader.position(), rows.len()));
            if rows.len() >= limit {
                break;
            }
        }
        (rows, positions)
    }
}

/// Checks every split of a bounded source: reads of any sizes give the same rows, and opening at the position behind
/// any batch gives exactly the rows that follow. Returns all rows, sorted.
pub(crate) fn check_bounded(source: &dyn Source) -> Vec<String> {
    let reading = Reading::new(source);
    let splits = reading.discover(&BTreeMap::new());
    let mut all = Vec::new();
    for split in &splits {
        let (rows, _) = reading.read_split(split, &[usize::MAX >> 1], usize::MAX);
        for sizes in [&[1][..], &[2, 7, 1], &[1000]] {
            let (again, positions) = reading.read_split(split, sizes, usize::MAX);
            assert_eq!(again, rows, "reads of sizes {sizes:?} of split {}", split.id);
            // Positions are many: all of a small split, some of a large one.
            let step = positions.len().div_ceil(25).max(1);
            for (position, before) in positions.into_iter().step_by(step) {
                let rest = Split {
                    id: split.id.clone(),
                    position,
                };
                let (suffix, _) = reading.read_split(&rest, &[3, 50], usize::MAX);
                assert_eq!(suffix, rows[before..], "split {} from {}", split.id, rest.position);
            }
        }
        all.extend(rows);
    }
    let ended = |split: &Split| {
        (
            split.id.clone(),
            SplitState {
                position: split.position.clone(),
                ended: true,
            },
        )
    };
    let known = splits.iter().map(ended).collect();
    assert!(reading.discover(&known).is_empty(), "known splits are not found again");
    all.sort();
    all
}
