//! The clock: decides when ticks open and close. The only flow control of a job.
//!
//! Pure: [`Clock::turn`] takes what was observed (time, the probe's frontier, events) and returns what to do. It never
//! reads a clock, a channel or a frontier itself.
//!
//! ```text
//!            due?                    settled or interval over             all workers reported
//!   idle ──────────▶ open (tick t) ──────────────────────────▶ closing ──────────────────────▶ TickClosed{t}
//!    ▲                                                                                             │
//!    └──────────── in flight (opened, not yet through the probe) below K ◀─────────────────────────┘
//! ```
//! A checkpoint goes `Idle -> Beginning -> Begun -> Holding -> Deciding -> Idle`; the tick of the hold takes in no rows,
//! and its positions and watermarks are those of the tick before.

mod tables;

pub(super) use tables::{SplitRestore, TableOptions};

use super::message::{Assignment, Command, Report, TickClosed};
use crate::job::TickOptions;
use crate::source::{Split, SplitId};
use crate::time::Watermark;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tables::Tables;
use tidemill_checkpoints::{Attempt, SnapshotKind, SplitPosition};

/// What the clock observes.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// A worker's report.
    Report(Report),
    /// New splits of a table; `complete` when there will never be others. The look knew of the first `ended_seen` ends of
    /// splits. Those in `forget` are not needed any more.
    Discovered {
        table: usize,
        splits: Vec<Split>,
        complete: bool,
        ended_seen: u64,
        forget: Vec<SplitId>,
    },
    /// Somebody wants a checkpoint.
    CheckpointWanted(Wish),
    /// The coordinator has begun an attempt.
    AttemptBegun(Attempt),
    /// The checkpoint exists: the next capture may begin.
    Decided,
    /// The checkpoint is published.
    Published,
    /// The attempt failed. A refused one (a savepoint's name is taken) is not repeated, others are at once.
    AttemptFailed { refused: bool },
    /// Stop after a last checkpoint.
    StopWanted(Wish),
}

/// A checkpoint that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) kind: SnapshotKind,
    /// Who waits for it; none for the clock's own.
    pub(super) request: Option<u64>,
    /// The job ends with it, so it is repeated until it succeeds or is refused.
    pub(super) ends_job: bool,
}

/// What the clock decides.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// Broadcast to the sources at this tick.
    Send { tick: u64, command: Command },
    /// The sources' input moves on to this tick.
    AdvanceCommands(u64),
    /// Broadcast to the operators at this tick, whose input then moves on.
    Close(TickClosed),
    /// Ask the coordinator to begin an attempt.
    BeginAttempt(Wish),
    /// Tell the discovery of a table that a split has ended.
    SplitEnded {
        table: usize,
        id: SplitId,
        position: String,
    },
    /// The wish to stop after a savepoint replaces this one, which nobody answers otherwise.
    Replaced(Wish),
    /// All workers have captured: this is the rest of the snapshot.
    Captured {
        attempt: Attempt,
        cut: Cut,
        pause: Duration,
    },
    /// The job is over: close the inputs.
    Shutdown,
}

/// The clock's part of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Cut {
    pub(super) tick: u64,
    pub(super) wall_time_ms: i64,
    /// Table -> split -> position.
    pub(super) sources: BTreeMap<String, BTreeMap<String, SplitPosition>>,
    pub(super) watermarks: BTreeMap<String, Option<i64>>,
}

/// Where a clock starts.
#[derive(Clone, Debug, Default)]
pub(super) struct ClockStart {
    /// The first tick.
    pub(super) tick: u64,
    /// The last wall time that was given out.
    pub(super) wall_time_ms: i64,
    /// By table.
    pub(super) watermarks: Vec<Watermark>,
    /// Splits of a restored checkpoint, by table.
    pub(super) splits: Vec<BTreeMap<SplitId, SplitRestore>>,
}

#[derive(Debug)]
struct OpenTick {
    tick: u64,
    wall_time_ms: i64,
    opened_at: Duration,
    settled: usize,
    full: bool,
    hold: Option<Attempt>,
    captured: usize,
    is_last: bool,
}

#[derive(Debug)]
struct ClosingTick {
    wall_time_ms: i64,
    is_last: bool,
    reports: Vec<Report>,
}

#[derive(Clone, Debug, PartialEq)]
enum Checkpointing {
    Idle,
    Beginning,
    Begun(Attempt),
    Holding(Attempt),
    Deciding,
}

#[derive(Clone, Debug, PartialEq)]
enum Ending {
    /// The job runs.
    No,
    /// A last checkpoint is to be taken, then the end. `Final` at the end of bounded input.
    Wanted(Wish),
    /// The last checkpoint is on its way.
    Taking(Wish),
    /// The inputs are to be closed.
    Over,
    /// They are closed.
    Closed,
}

/// See the module's documentation.
pub(super) struct Clock {
    options: TickOptions,
    workers: usize,
    tables: Tables,
    first: u64,
    next: u64,
    wall_time_ms: i64,
    open: Option<OpenTick>,
    closing: BTreeMap<u64, ClosingTick>,
    ready: bool,
    last_full: bool,
    last_opened: Option<Duration>,
    assignments: Vec<Assignment>,
    timers: BTreeMap<usize, i64>,
    interval: Option<Duration>,
    next_checkpoint: Option<Duration>,
    wanted: VecDeque<Wish>,
    checkpointing: Checkpointing,
    ending: Ending,
    last_tick_sent: bool,
    /// All input has ended and the last tick has told the operators.
    finished: bool,
    /// No tick can open before something happens that wakes the clock anyway.
    blocked: bool,
    /// The open tick has lasted long enough, and waits for those before it to be through the probe.
    waits_for_probe: bool,
    replaced: Option<Wish>,
}

impl Clock {
    pub(super) fn new(
        options: TickOptions,
        workers: usize,
        tables: Vec<TableOptions>,
        interval: Option<Duration>,
        start: ClockStart,
        now: Duration,
    ) -> Self {
        let mut assignments = Vec::new();
        let (first, wall_time_ms) = (start.tick, start.wall_time_ms);
        let tables = Tables::new(tables, start, workers, now, &mut assignments);
        Self {
            options,
            workers,
            tables,
            first,
            next: first,
            wall_time_ms,
            open: None,
            closing: BTreeMap::new(),
            ready: false,
            last_full: false,
            last_opened: None,
            assignments,
            timers: BTreeMap::new(),
            interval,
            next_checkpoint: interval.and_then(|interval| now.checked_add(interval)),
            wanted: VecDeque::new(),
            checkpointing: Checkpointing::Idle,
            ending: Ending::No,
            last_tick_sent: false,
            finished: false,
            blocked: false,
            waits_for_probe: false,
            replaced: None,
        }
    }

    /// Says whether all input has ended and the last tick was told, rather than the job stopped before.
    pub(super) fn has_finished(&self) -> bool {
        self.finished
    }

    /// Returns the watermark of each table, at the newest closed tick.
    pub(super) fn watermarks(&self) -> &[Watermark] {
        self.tables.watermarks()
    }

    /// Takes one turn. `frontier` is the least tick that is not yet through worker 0's probe; none when all are.
    pub(super) fn turn(
        &mut self,
        now: Duration,
        wall_ms: i64,
        frontier: Option<u64>,
        events: Vec<Event>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        for event in events {
            self.observe(event, now);
        }
        self.finish_closing(now, &mut actions);
        for (table, id, position) in self.tables.take_ended() {
            actions.push(Action::SplitEnded { table, id, position });
        }
        actions.extend(self.replaced.take().map(Action::Replaced));
        self.decide_checkpoint(now, &mut actions);
        self.decide_close(now, frontier, &mut actions);
        // A tick without workers' input to wait for closes in the turn that opens it, so try the others again.
        if self.decide_open(now, wall_ms, frontier, &mut actions) {
            self.decide_close(now, frontier, &mut actions);
        }
        actions
    }

    /// Returns how long the clock may sleep if nothing happens; none: until something does.
    pub(super) fn sleep(&self, now: Duration, wall_ms: i64) -> Option<Duration> {
        if matches!(self.ending, Ending::Over | Ending::Closed) {
            return None;
        }
        let mut wakes: Vec<Duration> = Vec::new();
        if let Some(open) = &self.open
            && open.hold.is_none()
            && !self.waits_for_probe
        {
            wakes.push(open.opened_at + self.options.interval_min);
        }
        if self.open.is_none() && self.may_read() && !self.blocked {
            // Nothing opens a tick before the interval is over.
            let rested = self.last_opened.map_or(now, |last| last + self.options.interval_min);
            if self.ready {
                wakes.push(rested);
            }
            if let Some(idle) = self.tables.next_idle()
                && self.closing.is_empty()
            {
                wakes.push(idle.max(rested));
            }
            if let Some(&timer) = self.timers.values().min() {
                let wait = Duration::from_millis(u64::try_from(timer.saturating_sub(wall_ms)).unwrap_or(0));
                wakes.push((now + wait).max(rested));
            }
        }
        if self.checkpointing == Checkpointing::Idle
            && self.ending == Ending::No
            && let Some(next) = self.next_checkpoint
        {
            wakes.push(next);
        }
        wakes.into_iter().min().map(|wake| wake.saturating_sub(now))
    }

    fn observe(&mut self, event: Event, now: Duration) {
        match event {
            Event::Report(report) => self.observe_report(report),
            Event::Discovered {
                table,
                splits,
                complete,
                ended_seen,
                forget,
            } => {
                let (workers, assignments) = (self.workers, &mut self.assignments);
                let moved = self
                    .tables
                    .discovered(table, splits, complete, ended_seen, workers, now, assignments);
                self.tables.forget(table, &forget);
                // A table may have ended by this, or its watermark moved on: a tick tells the operators.
                self.ready |= moved;
            }
            Event::CheckpointWanted(wish) => self.wanted.push_back(wish),
            Event::AttemptBegun(attempt) => {
                if self.checkpointing == Checkpointing::Beginning {
                    self.checkpointing = Checkpointing::Begun(attempt);
                }
            }
            Event::Decided => {
                self.checkpointing = Checkpointing::Idle;
                self.next_checkpoint = self.interval.and_then(|interval| now.checked_add(interval));
            }
            Event::Published => {
                if matches!(self.ending, Ending::Taking(_)) && self.checkpointing == Checkpointing::Idle {
                    self.ending = Ending::Over;
                }
            }
            Event::AttemptFailed { refused } => {
                self.checkpointing = Checkpointing::Idle;
                if !refused && self.interval.is_some() {
                    self.next_checkpoint = Some(now);
                }
                self.ending = match std::mem::replace(&mut self.ending, Ending::No) {
                    // A stop whose savepoint is refused is called off; the end of the input is not.
                    Ending::Taking(_) if refused => Ending::No,
                    Ending::Taking(wish) => Ending::Wanted(wish),
                    other => other,
                };
            }
            Event::StopWanted(wish) => match &mut self.ending {
                Ending::No => self.ending = Ending::Wanted(wish),
                // Whoever asks last says what the last checkpoint is; one that is being taken stays.
                Ending::Wanted(before) => self.replaced = Some(std::mem::replace(before, wish)),
                Ending::Taking(_) | Ending::Over | Ending::Closed => self.replaced = Some(wish),
            },
        }
    }

    fn observe_report(&mut self, report: Report) {
        match report {
            Report::Ready => self.ready = true,
            Report::Settled { tick, full } => {
                if let Some(open) = &mut self.open
                    && open.tick == tick
                {
                    open.settled += 1;
                    open.full |= full;
                }
            }
            Report::Captured { tick } => {
                if let Some(open) = &mut self.open
                    && open.tick == tick
                {
                    open.captured += 1;
                }
            }
            Report::Closed { tick, .. } => {
                if let Some(closing) = self.closing.get_mut(&tick) {
                    closing.reports.push(report);
                }
            }
            Report::Timer { worker, at_ms } => {
                match at_ms {
                    Some(at_ms) => self.timers.insert(worker, at_ms),
                    None => self.timers.remove(&worker),
                };
            }
        }
    }

    /// Closes, for the operators, the ticks that all workers have reported; in order.
    fn finish_closing(&mut self, now: Duration, actions: &mut Vec<Action>) {
        while let Some(entry) = self.closing.first_entry()
            && entry.get().reports.len() == self.workers
        {
            let (tick, closing) = entry.remove_entry();
            for report in closing.reports {
                if let Report::Closed { splits, more, busy, .. } = report {
                    self.ready |= more;
                    self.tables.apply(splits, now);
                    self.tables.keep_active(busy, now);
                }
            }
            self.tables.advance(now);
            self.ready |= self.tables.take_unblocked();
            let watermarks = self.tables.watermarks().to_vec();
            let is_last = closing.is_last;
            actions.push(Action::Close(TickClosed {
                tick,
                wall_time_ms: closing.wall_time_ms,
                watermarks,
                is_last,
            }));
        }
    }

    /// True while ticks may take in rows.
    fn may_read(&self) -> bool {
        self.ending == Ending::No
    }

    fn decide_checkpoint(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let input_ended = self.tables.all_ended() && self.assignments.is_empty();
        if input_ended && self.last_tick_sent && self.open.is_none() && self.closing.is_empty() {
            self.finished = true;
            if self.ending == Ending::No {
                self.ending = Ending::Wanted(Wish {
                    kind: SnapshotKind::Final,
                    request: None,
                    ends_job: true,
                });
            }
        }
        if self.checkpointing == Checkpointing::Idle {
            let wish = match &self.ending {
                Ending::Wanted(wish) => Some(wish.clone()),
                Ending::No if !self.wanted.is_empty() => self.wanted.pop_front(),
                Ending::No if self.next_checkpoint.is_some_and(|due| now >= due) => Some(Wish {
                    kind: SnapshotKind::Periodic,
                    request: None,
                    ends_job: false,
                }),
                _ => None,
            };
            if let Some(wish) = wish {
                if let Ending::Wanted(ending) = &self.ending {
                    self.ending = Ending::Taking(ending.clone());
                }
                self.checkpointing = Checkpointing::Beginning;
                actions.push(Action::BeginAttempt(wish));
            }
        }
        if self.ending == Ending::Over && self.open.is_none() && self.closing.is_empty() {
            self.ending = Ending::Closed;
            actions.push(Action::Shutdown);
        }
    }

    fn decide_close(&mut self, now: Duration, frontier: Option<u64>, actions: &mut Vec<Action>) {
        self.waits_for_probe = false;
        let Some(open) = &self.open else { return };
        let done = match &open.hold {
            Some(_) => open.captured == self.workers,
            None if open.is_last || open.settled == self.workers => true,
            None if now < open.opened_at + self.options.interval_min => false,
            // While the ticks before it keep the workers busy, nothing is won by closing a tick that is not full: it goes on
            // taking rows in, and what is told once per tick is told less often.
            None => {
                let is_through = frontier.is_none_or(|frontier| frontier >= open.tick);
                self.waits_for_probe = !is_through;
                is_through
            }
        };
        if !done {
            return;
        }
        let Some(open) = self.open.take() else { return };
        self.last_full = open.full;
        // Of several workers, whoever is full has more, and whoever has not settled is still reading: for them the next tick
        // need not wait for the reports of all.
        let has_more = open.full || open.settled < self.workers;
        self.ready |= self.workers > 1 && open.hold.is_none() && !open.is_last && has_more;
        if let Some(attempt) = open.hold {
            let cut = self.tables.cut(open.tick, self.wall_time_ms);
            actions.push(Action::Captured {
                attempt,
                cut,
                pause: now.saturating_sub(open.opened_at),
            });
            self.checkpointing = Checkpointing::Deciding;
        }
        let closing = ClosingTick {
            wall_time_ms: open.wall_time_ms,
            is_last: open.is_last,
            reports: Vec::new(),
        };
        self.closing.insert(open.tick, closing);
        actions.push(Action::Send {
            tick: open.tick,
            command: Command::Close { tick: open.tick },
        });
        actions.push(Action::AdvanceCommands(open.tick + 1));
    }

    fn decide_open(&mut self, now: Duration, wall_ms: i64, frontier: Option<u64>, actions: &mut Vec<Action>) -> bool {
        if self.open.is_some() || matches!(self.ending, Ending::Over | Ending::Closed) {
            return false;
        }
        let in_flight = self.next - frontier.unwrap_or(self.next).clamp(self.first, self.next);
        let begun = matches!(self.checkpointing, Checkpointing::Begun(_));
        self.blocked = in_flight >= self.options.in_flight_max as u64 || begun && !self.closing.is_empty();
        if self.blocked {
            return false;
        }
        let rested = self
            .last_opened
            .is_none_or(|last| now >= last + self.options.interval_min);
        let mut hold = None;
        let mut is_last = false;
        if let Checkpointing::Begun(attempt) = &self.checkpointing {
            // The cut is exact because every report before it has been counted: see `blocked`.
            hold = Some(*attempt);
        } else if !self.may_read() {
            return false;
        } else if self.tables.all_ended() && self.assignments.is_empty() {
            if self.last_tick_sent || !self.closing.is_empty() {
                return false;
            }
            is_last = true;
        } else {
            let timer = self.timers.values().any(|&at_ms| at_ms <= wall_ms);
            let idle = self.tables.next_idle().is_some_and(|due| now >= due) && rested && self.closing.is_empty();
            let rows = self.ready && (rested || self.last_full);
            if !(rows || timer && rested || idle || !self.assignments.is_empty()) {
                return false;
            }
        }
        self.wall_time_ms = self.wall_time_ms.max(wall_ms);
        if let Some(attempt) = &hold {
            self.checkpointing = Checkpointing::Holding(*attempt);
        } else {
            self.ready = false;
            let wall_time_ms = self.wall_time_ms;
            self.timers.retain(|_, at_ms| *at_ms > wall_time_ms);
            self.last_opened = Some(now);
        }
        self.last_tick_sent |= is_last;
        let open = OpenTick {
            tick: self.next,
            wall_time_ms: self.wall_time_ms,
            opened_at: now,
            settled: 0,
            full: false,
            hold,
            captured: 0,
            is_last,
        };
        let assignments = if hold.is_some() {
            Vec::new()
        } else {
            std::mem::take(&mut self.assignments)
        };
        let command = Command::Open {
            tick: self.next,
            wall_time_ms: self.wall_time_ms,
            hold,
            ceilings: self.tables.ceilings(),
            assignments,
        };
        actions.push(Action::Send {
            tick: self.next,
            command,
        });
        self.open = Some(open);
        self.next += 1;
        true
    }
}

#[cfg(test)]
mod tests;
