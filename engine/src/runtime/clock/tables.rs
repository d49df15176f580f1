//! What the clock knows of each table: its splits, their positions and watermarks.

use super::{ClockStart, Cut};
use crate::runtime::message::{Assignment, SplitReport};
use crate::source::{Split, SplitId};
use crate::time::Watermark;
use std::collections::BTreeMap;
use std::time::Duration;
use tidemill_checkpoints::SplitPosition;

/// What the clock is told of a table.
#[derive(Clone, Debug)]
pub(in crate::runtime) struct TableOptions {
    pub(in crate::runtime) name: String,
    pub(in crate::runtime) has_event_time: bool,
    pub(in crate::runtime) idle_timeout: Option<Duration>,
    pub(in crate::runtime) max_drift_ms: Option<i64>,
}

/// A split of a restored checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::runtime) struct SplitRestore {
    pub(in crate::runtime) position: String,
    pub(in crate::runtime) watermark: Watermark,
    pub(in crate::runtime) ended: bool,
}

#[derive(Debug)]
struct SplitClock {
    position: String,
    watermark: Watermark,
    ended: bool,
    idle: bool,
    last_active: Duration,
}

#[derive(Debug)]
struct TableClock {
    options: TableOptions,
    splits: BTreeMap<SplitId, SplitClock>,
    /// No further splits will appear.
    complete: bool,
    dealt: usize,
}

/// All tables of the job.
#[derive(Debug)]
pub(super) struct Tables {
    tables: Vec<TableClock>,
    watermarks: Vec<Watermark>,
    /// A watermark rose that may let splits beyond their ceiling go on.
    unblocked: bool,
}

impl Tables {
    pub(super) fn new(
        options: Vec<TableOptions>,
        start: ClockStart,
        workers: usize,
        now: Duration,
        assignments: &mut Vec<Assignment>,
    ) -> Self {
        let mut watermarks = start.watermarks;
        watermarks.resize(options.len(), Watermark::NONE);
        let mut restored = start.splits;
        restored.resize_with(options.len(), BTreeMap::new);
        let mut tables = Vec::new();
        for (index, (options, restored)) in options.into_iter().zip(restored).enumerate() {
            let mut table = TableClock {
                options,
                splits: BTreeMap::new(),
                complete: false,
                dealt: 0,
            };
            for (id, split) in restored {
                if !split.ended {
                    let split_start = Split {
                        id: id.clone(),
                        position: split.position.clone(),
                    };
                    assignments.push(table.deal(index, split_start, split.watermark, workers));
                }
                table.splits.insert(
                    id,
                    SplitClock {
                        position: split.position,
                        watermark: split.watermark,
                        ended: split.ended,
                        idle: false,
                        last_active: now,
                    },
                );
            }
            tables.push(table);
        }
        Self {
            tables,
            watermarks,
            unblocked: false,
        }
    }

    pub(super) fn watermarks(&self) -> &[Watermark] {
        &self.watermarks
    }

    pub(super) fn all_ended(&self) -> bool {
        self.tables.iter().all(TableClock::has_ended)
    }

    pub(super) fn discovered(
        &mut self,
        table: usize,
        splits: Vec<Split>,
        complete: bool,
        workers: usize,
        now: Duration,
        assignments: &mut Vec<Assignment>,
    ) {
        let clock = &mut self.tables[table];
        clock.complete |= complete;
        for split in splits {
            if clock.splits.contains_key(&split.id) {
                continue;
            }
            let state = SplitClock {
                position: split.position.clone(),
                watermark: Watermark::NONE,
                ended: false,
                idle: false,
                last_active: now,
            };
            clock.splits.insert(split.id.clone(), state);
            assignments.push(clock.deal(table, split, Watermark::NONE, workers));
        }
    }

    /// Takes in what a tick changed.
    pub(super) fn apply(&mut self, reports: Vec<SplitReport>, now: Duration) {
        for report in reports {
            let Some(split) = self.tables[report.table].splits.get_mut(&report.id) else {
                continue;
            };
            split.position = report.position;
            split.watermark = split.watermark.max(report.watermark);
            split.ended |= report.ended;
            if report.rows > 0 {
                split.last_active = now;
                split.idle = false;
            }
        }
    }

    /// Moves the watermarks on after a tick's changes.
    pub(super) fn advance(&mut self, now: Duration) {
        for (table, watermark) in self.tables.iter_mut().zip(&mut self.watermarks) {
            let next = table.watermark(now).max(*watermark);
            if next > *watermark {
                self.unblocked |= table.options.max_drift_ms.is_some();
                *watermark = next;
            }
        }
    }

    /// Says whether splits beyond their ceiling may have something to read now; asks only once.
    pub(super) fn take_unblocked(&mut self) -> bool {
        std::mem::take(&mut self.unblocked)
    }

    /// Returns when the next split becomes idle.
    pub(super) fn next_idle(&self) -> Option<Duration> {
        let of_table = |table: &TableClock| {
            let timeout = table.options.idle_timeout?;
            table
                .splits
                .values()
                .filter(|s| !s.ended && !s.idle)
                .map(|s| s.last_active + timeout)
                .min()
        };
        self.tables.iter().filter_map(of_table).min()
    }

    /// Returns, by table, the event time beyond which splits are left for now.
    pub(super) fn ceilings(&self) -> Vec<Option<i64>> {
        let ceiling = |(table, watermark): (&TableClock, &Watermark)| {
            let drift = table.options.max_drift_ms?;
            (*watermark != Watermark::NONE).then(|| watermark.0.saturating_add(drift))
        };
        self.tables.iter().zip(&self.watermarks).map(ceiling).collect()
    }

    pub(super) fn cut(&self, tick: u64, wall_time_ms: i64) -> Cut {
        let mut cut = Cut {
            tick,
            wall_time_ms,
            ..Cut::default()
        };
        for (table, watermark) in self.tables.iter().zip(&self.watermarks) {
            let known = |watermark: Watermark| (watermark != Watermark::NONE).then_some(watermark.0);
            let position = |split: &SplitClock| SplitPosition {
                position: split.position.clone(),
                watermark_ms: known(split.watermark),
                ended: split.ended,
            };
            let splits = table
                .splits
                .iter()
                .map(|(id, split)| (id.0.clone(), position(split)))
                .collect();
            cut.sources.insert(table.options.name.clone(), splits);
            cut.watermarks.insert(table.options.name.clone(), known(*watermark));
        }
        cut
    }
}

impl TableClock {
    /// Gives a split to the workers in turn, each table beginning with another one.
    fn deal(&mut self, table: usize, split: Split, watermark: Watermark, workers: usize) -> Assignment {
        let worker = (table + self.dealt) % workers;
        self.dealt += 1;
        Assignment {
            worker,
            table,
            split,
            watermark,
        }
    }

    fn has_ended(&self) -> bool {
        self.complete && self.splits.values().all(|split| split.ended)
    }

    /// Returns the watermark that the splits give: the least of those that still hold it back.
    fn watermark(&mut self, now: Duration) -> Watermark {
        if self.has_ended() {
            return Watermark::END;
        }
        if !self.options.has_event_time {
            return Watermark::NONE;
        }
        if let Some(timeout) = self.options.idle_timeout {
            for split in self.splits.values_mut() {
                split.idle |= now >= split.last_active + timeout;
            }
        }
        let active = self
            .splits
            .values()
            .filter(|split| !split.ended && !split.idle)
            .map(|split| split.watermark)
            .min();
        // With no split left to wait for, what ended ones saw has passed; idle ones may still come back.
        let ended = || {
            self.splits
                .values()
                .filter(|split| split.ended)
                .map(|split| split.watermark)
                .max()
        };
        let no_split_open = self.splits.values().all(|split| split.ended);
        active
            .or_else(|| if no_split_open { ended() } else { None })
            .unwrap_or(Watermark::NONE)
    }
}
