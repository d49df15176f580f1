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
    /// Of an ended split: a look for splits that knew of its end has returned, so its children, if any, are known.
    /// Until then it holds the watermark where it ended.
    released: bool,
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
    /// Splits whose end is to be told to the discovery, and how many were told before.
    newly_ended: Vec<SplitId>,
    ended: u64,
    /// The ends that the newest look for splits knew of.
    ended_seen: u64,
    /// The number of each ended split, in the order in which the ends were told.
    ends: BTreeMap<SplitId, u64>,
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
                newly_ended: Vec::new(),
                ended: 0,
                ended_seen: 0,
                ends: BTreeMap::new(),
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
                        released: false,
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
        ended_seen: u64,
        workers: usize,
        now: Duration,
        assignments: &mut Vec<Assignment>,
    ) -> bool {
        let clock = &mut self.tables[table];
        clock.complete |= complete;
        clock.ended_seen = clock.ended_seen.max(ended_seen);
        let mut released = false;
        for (id, split) in &mut clock.splits {
            // Splits that a checkpoint restored as ended were known to the first look.
            let seen = clock.complete || clock.ends.get(id).is_none_or(|&end| end <= clock.ended_seen);
            if split.ended && !split.released && seen {
                split.released = true;
                released = true;
            }
        }
        for split in splits {
            if clock.splits.contains_key(&split.id) {
                continue;
            }
            let state = SplitClock {
                position: split.position.clone(),
                watermark: Watermark::NONE,
                ended: false,
                released: false,
                idle: false,
                last_active: now,
            };
            clock.splits.insert(split.id.clone(), state);
            assignments.push(clock.deal(table, split, Watermark::NONE, workers));
        }
        released || complete
    }

    /// Forgets splits that have ended and hold nothing back any more.
    pub(super) fn forget(&mut self, table: usize, splits: &[SplitId]) {
        let clock = &mut self.tables[table];
        for id in splits {
            if clock.splits.get(id).is_some_and(|split| split.ended && split.released) {
                clock.splits.remove(id);
                clock.ends.remove(id);
            }
        }
    }

    /// Returns the splits that have ended since last asked: (table, split, position).
    pub(super) fn take_ended(&mut self) -> Vec<(usize, SplitId, String)> {
        let mut ended = Vec::new();
        for (index, table) in self.tables.iter_mut().enumerate() {
            for id in std::mem::take(&mut table.newly_ended) {
                let position = table
                    .splits
                    .get(&id)
                    .map(|split| split.position.clone())
                    .unwrap_or_default();
                ended.push((index, id, position));
            }
        }
        ended
    }

    /// Notes that splits have something to read although a tick did not get to it: they are not idle.
    pub(super) fn keep_active(&mut self, busy: Vec<(usize, SplitId)>, now: Duration) {
        for (table, id) in busy {
            if let Some(split) = self.tables[table].splits.get_mut(&id) {
                split.last_active = now;
                split.idle = false;
            }
        }
    }

    /// Takes in what a tick changed.
    pub(super) fn apply(&mut self, reports: Vec<SplitReport>, now: Duration) {
        for report in reports {
            let table = &mut self.tables[report.table];
            let Some(split) = table.splits.get_mut(&report.id) else {
                continue;
            };
            split.position = report.position;
            split.watermark = split.watermark.max(report.watermark);
            if report.ended && !split.ended {
                split.ended = true;
                split.released = table.complete;
                table.ended += 1;
                table.ends.insert(report.id.clone(), table.ended);
                table.newly_ended.push(report.id);
            }
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
                .filter_map(|s| s.last_active.checked_add(timeout))
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
                split.idle |= split.last_active.checked_add(timeout).is_some_and(|due| now >= due);
            }
        }
        // An ended split holds the watermark until its children, if it has any, are known and hold it themselves.
        let holds = |split: &&SplitClock| if split.ended { !split.released } else { !split.idle };
        if let Some(least) = self.splits.values().filter(holds).map(|split| split.watermark).min() {
            return least;
        }
        // With no split left to wait for, what ended ones saw has passed; idle ones may still come back.
        if self.splits.values().any(|split| !split.ended) {
            return Watermark::NONE;
        }
        self.splits
            .values()
            .map(|split| split.watermark)
            .max()
            .unwrap_or(Watermark::NONE)
    }
}
