//! The sources of one worker: one dataflow operator with one output per table.
//!
//! It takes its capabilities for tick t from `Open`, emits rows up to the worker's budget, says when it has settled, and
//! on `Close` reports positions and watermarks and drops them. The output for reports always holds the capability of the
//! next report, so that "I have rows" can be said while no tick is open.
//!
//! With several workers the answer to "I have enough" is on its way for a while, and waits for the slowest of them: until it
//! comes, a worker takes in more, up to [`ROWS_WHILE_WAITING`] times its budget.

use super::batch::Batch;
use super::board::{Board, Hold};
use super::message::{Assignment, Command, Report, SplitReport};
use super::shared::JobShared;
use crate::error::{Error, Result};
use crate::graph::SourceNode;
use crate::metrics::OperatorMetrics;
use crate::operators::calc::CalcOperator;
use crate::operators::window_aggregate::millis;
use crate::source::{ReadOutcome, SplitContext, SplitId, SplitReader};
use crate::time::Watermark;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};
use timely::scheduling::Activator;

/// Rows asked of a reader at once.
const READ_ROWS: usize = 8192;

/// A reader that limits its rate is asked again after this at the earliest.
const RATE_WAIT_MIN: Duration = Duration::from_micros(100);

/// Reads before other operators get their turn.
const READS_PER_TURN: usize = 2;

/// How many times its budget a worker takes in at most, while others have not yet used up theirs.
const ROWS_WHILE_WAITING: usize = 2;

/// A table on one worker.
pub(super) struct TableReader {
    node: SourceNode,
    computed: Option<CalcOperator>,
    metrics: Arc<OperatorMetrics>,
    splits: Vec<OpenSplit>,
    next: usize,
}

struct OpenSplit {
    id: SplitId,
    reader: Box<dyn SplitReader>,
    watermark: Watermark,
    ended: bool,
    rows: u64,
    changed: bool,
}

impl TableReader {
    pub(super) fn new(node: SourceNode, metrics: Arc<OperatorMetrics>) -> Self {
        let computed = node.computed.clone().map(CalcOperator::new);
        Self {
            node,
            computed,
            metrics,
            splits: Vec::new(),
            next: 0,
        }
    }

    /// Returns the split to read: among those with rows the one furthest behind in event time, none beyond the ceiling.
    fn choose(&mut self, ceiling: Option<i64>) -> Option<usize> {
        let count = self.splits.len();
        let mut best: Option<usize> = None;
        for offset in 0..count {
            let index = (self.next + offset) % count;
            let least = best.map(|best| self.splits[best].watermark);
            let split = &mut self.splits[index];
            if split.ended || ceiling.is_some_and(|ceiling| split.watermark.0 > ceiling) {
                continue;
            }
            if least.is_none_or(|least| split.watermark < least) && split.reader.is_ready() {
                best = Some(index);
                // Without event time all are alike: take them in turn.
                if self.node.event_time.is_none() {
                    break;
                }
            }
        }
        if let Some(best) = best {
            self.next = (best + 1) % count;
        }
        best
    }

    /// Reads once; returns the rows, if there were any.
    fn read(&mut self, index: usize, rows_max: usize, bytes_max: usize, wall_time_ms: i64) -> Result<Option<Batch>> {
        let split = &mut self.splits[index];
        let rows = match split.reader.read(rows_max, bytes_max)? {
            ReadOutcome::Rows(rows) => rows,
            ReadOutcome::Pending => return Ok(None),
            ReadOutcome::Ended => {
                split.ended = true;
                split.changed = true;
                return Ok(None);
            }
        };
        split.rows += rows.num_rows() as u64;
        split.changed = true;
        self.metrics.rows_in.add(rows.num_rows() as u64);
        let rows = match &self.computed {
            Some(computed) => computed.apply(&rows, wall_time_ms)?,
            None => rows,
        };
        if rows.num_rows() == 0 {
            return Ok(None);
        }
        if let Some(time) = &self.node.event_time
            && let Some(latest) = millis(rows.column(time.column))?.iter().max()
        {
            split.watermark = split.watermark.max(Watermark(latest.saturating_sub(time.delay_ms)));
        }
        self.metrics.rows_out.add(rows.num_rows() as u64);
        Ok(Some(Batch::new(rows, wall_time_ms)))
    }

    fn has_idle_timeout(&self) -> bool {
        self.node
            .event_time
            .as_ref()
            .is_some_and(|time| time.idle_timeout.is_some())
    }

    fn name_error(&self, error: Error) -> Error {
        match error {
            Error::Operator { operator, message } if operator.is_empty() => Error::Source {
                table: self.node.table.clone(),
                message,
            },
            other => other,
        }
    }
}

/// What the sources of a worker need from it.
pub(super) struct SourcesContext {
    pub(super) worker: usize,
    pub(super) workers: usize,
    pub(super) rows_max: usize,
    pub(super) bytes_max: usize,
    pub(super) first_tick: u64,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) shared: Arc<JobShared>,
    pub(super) board: Rc<Board>,
}

struct OpenTick {
    tick: u64,
    wall_time_ms: i64,
    outputs: Vec<Capability<u64>>,
    rows: usize,
    bytes: usize,
    /// The clock knows that the budget is used up.
    told_full: bool,
    /// Takes in nothing more.
    settled: bool,
}

type Outputs = Vec<OutputBuilder<u64, CapacityContainerBuilder<Batch>>>;
type Reports = OutputBuilder<u64, CapacityContainerBuilder<Vec<Report>>>;

struct Sources {
    context: SourcesContext,
    tables: Vec<TableReader>,
    reports: Option<Capability<u64>>,
    open: Option<OpenTick>,
    /// Those of the last tick: until a watermark rises, splits beyond them have nothing to offer.
    ceilings: Vec<Option<i64>>,
    ready_sent: bool,
    timer_sent: Option<i64>,
    next_table: usize,
    /// When a timer runs the sources again.
    runs_at: Option<Instant>,
    activator: Activator,
    waker: Arc<dyn Fn() + Send + Sync>,
}

/// The streams of the tables, and that of the reports.
pub(super) type SourceStreams<'scope> = (Vec<Stream<'scope, u64, Batch>>, Stream<'scope, u64, Vec<Report>>);

/// Adds the sources to the dataflow. Returns also what makes them run, for the worker's loop.
pub(super) fn attach<'scope>(
    scope: Scope<'scope, u64>,
    commands: Stream<'scope, u64, Vec<Command>>,
    tables: Vec<TableReader>,
    context: SourcesContext,
) -> (SourceStreams<'scope>, Activator) {
    let mut builder = OperatorBuilder::new("Sources".to_owned(), scope);
    let mut input = builder.new_input(commands, Pipeline);
    let mut outputs: Outputs = Vec::new();
    let mut streams = Vec::new();
    for _ in &tables {
        let (output, stream) = builder.new_output();
        outputs.push(OutputBuilder::from(output));
        streams.push(stream);
    }
    let (reports, report_stream) = builder.new_output();
    let mut reports: Reports = OutputBuilder::from(reports);
    let address = builder.operator_info().address;
    let activator = scope.activator_for(Rc::clone(&address));
    let sync = scope.worker().sync_activator_for(address.to_vec());
    // A reader may outlive the worker for a moment: waking nobody is no error.
    let sync = std::sync::Mutex::new(sync);
    let waker: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        let sync = sync.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = sync.activate();
    });
    let for_loop = activator.clone();
    let first_tick = context.first_tick;
    builder.build(move |mut capabilities| {
        let mut report_capability = capabilities.pop();
        // The tables' outputs take their capabilities from the commands.
        drop(capabilities);
        if let Some(capability) = &mut report_capability {
            capability.downgrade(&first_tick);
        }
        let mut sources = Sources {
            context,
            tables,
            reports: report_capability,
            open: None,
            ceilings: Vec::new(),
            ready_sent: false,
            timer_sent: None,
            next_table: 0,
            runs_at: None,
            activator,
            waker,
        };
        let commands: RefCell<Vec<(Command, Vec<Capability<u64>>)>> = RefCell::default();
        move |frontiers| {
            if sources.context.shared.has_failed() {
                return;
            }
            let tables = sources.tables.len();
            input.for_each(|capability, data| {
                for command in data.drain(..) {
                    let retained = match (&command, capability.least()) {
                        (Command::Open { .. }, Some(&tick)) => {
                            (0..tables).map(|t| capability.delayed(&tick, t)).collect()
                        }
                        _ => Vec::new(),
                    };
                    commands.borrow_mut().push((command, retained));
                }
            });
            for (command, capabilities) in commands.borrow_mut().drain(..) {
                sources.obey(command, capabilities, &mut outputs, &mut reports);
            }
            sources.run(&mut outputs, &mut reports);
            if frontiers[0].is_empty() {
                // The clock has closed its input: the job is over.
                sources.reports = None;
                sources.open = None;
            }
        }
    });
    ((streams, report_stream), for_loop)
}

impl Sources {
    fn report(&self, report: Report, reports: &mut Reports) {
        if let Some(capability) = &self.reports {
            reports.activate().session(capability).give(report);
        }
    }

    fn obey(
        &mut self,
        command: Command,
        capabilities: Vec<Capability<u64>>,
        outputs: &mut Outputs,
        reports: &mut Reports,
    ) {
        match command {
            Command::Open {
                tick,
                wall_time_ms,
                hold,
                ceilings,
                assignments,
            } => {
                for assignment in assignments {
                    if assignment.worker == self.context.worker {
                        self.open_split(assignment);
                    }
                }
                self.ready_sent = false;
                let settled = hold.is_some();
                if let Some(attempt) = hold {
                    self.context.board.set_hold(Hold { tick, attempt });
                }
                self.ceilings = ceilings;
                self.open = Some(OpenTick {
                    tick,
                    wall_time_ms,
                    outputs: capabilities,
                    rows: 0,
                    bytes: 0,
                    told_full: false,
                    settled,
                });
            }
            Command::Close { tick } => {
                // A worker that was busy finds both commands at once: it takes in a little all the same.
                if let Some(mut open) = self.open.take()
                    && open.rows == 0
                    && !open.settled
                    && let Err(error) = self.read(&mut open, outputs, reports)
                {
                    self.context.shared.fail(error);
                }
                let mut splits = Vec::new();
                let mut busy = Vec::new();
                let mut more = false;
                for (index, table) in self.tables.iter_mut().enumerate() {
                    for split in table.splits.iter_mut().filter(|split| split.changed) {
                        split.changed = false;
                        splits.push(SplitReport {
                            table: index,
                            id: split.id.clone(),
                            rows: std::mem::take(&mut split.rows),
                            position: split.reader.position(),
                            watermark: split.watermark,
                            ended: split.ended,
                        });
                    }
                    table.splits.retain(|split| !split.ended);
                    if table.has_idle_timeout() {
                        let waiting = table
                            .splits
                            .iter_mut()
                            .filter_map(|split| split.reader.is_ready().then(|| split.id.clone()));
                        busy.extend(waiting.map(|id| (index, id)));
                    }
                    more |= table.choose(self.ceilings.get(index).copied().flatten()).is_some();
                }
                self.report(
                    Report::Closed {
                        tick,
                        worker: self.context.worker,
                        splits,
                        more,
                        busy,
                    },
                    reports,
                );
                if let Some(capability) = &mut self.reports {
                    capability.downgrade(&(tick + 1));
                }
                if !more {
                    self.wait_for_rate();
                }
                self.ready_sent = more;
            }
        }
    }

    fn open_split(&mut self, assignment: Assignment) {
        let table = &mut self.tables[assignment.table];
        let context = SplitContext {
            table: table.node.table.clone(),
            worker: self.context.worker,
            waker: Arc::clone(&self.waker),
            runtime: self.context.runtime.clone(),
            metrics: Arc::clone(&table.metrics),
        };
        match table.node.source.open_split(&assignment.split, context) {
            Ok(reader) => table.splits.push(OpenSplit {
                id: assignment.split.id,
                reader,
                watermark: assignment.watermark,
                ended: false,
                rows: 0,
                changed: false,
            }),
            Err(error) => {
                let error = table.name_error(error);
                self.context.shared.fail(error);
            }
        }
    }

    fn settled(&self, tick: u64, full: bool, reports: &mut Reports) {
        self.report(Report::Settled { tick, full }, reports);
    }

    /// Reads what the budget allows, a few batches at a time.
    fn run(&mut self, outputs: &mut Outputs, reports: &mut Reports) {
        if let Some(tick) = self.context.board.take_captured() {
            self.report(Report::Captured { tick }, reports);
        }
        let timer = self.context.board.timer();
        if timer != self.timer_sent && self.reports.is_some() {
            self.timer_sent = timer;
            self.report(
                Report::Timer {
                    worker: self.context.worker,
                    at_ms: timer,
                },
                reports,
            );
        }
        let Some(mut open) = self.open.take() else {
            self.look_for_rows(reports);
            return;
        };
        if !open.settled
            && let Err(error) = self.read(&mut open, outputs, reports)
        {
            self.context.shared.fail(error);
        }
        self.open = Some(open);
    }

    fn read(&mut self, open: &mut OpenTick, outputs: &mut Outputs, reports: &mut Reports) -> Result<()> {
        for _ in 0..READS_PER_TURN {
            let SourcesContext {
                rows_max, bytes_max, ..
            } = self.context;
            if !open.told_full && (open.rows >= rows_max || open.bytes >= bytes_max) {
                open.told_full = true;
                self.settled(open.tick, true, reports);
            }
            let times = if self.context.workers > 1 {
                ROWS_WHILE_WAITING
            } else {
                1
            };
            let rows_left = rows_max.saturating_mul(times).saturating_sub(open.rows);
            let bytes_left = bytes_max.saturating_mul(times).saturating_sub(open.bytes);
            if rows_left == 0 || bytes_left == 0 {
                open.settled = true;
                return Ok(());
            }
            let Some((table, split)) = self.choose() else {
                open.settled = true;
                if !open.told_full {
                    self.settled(open.tick, false, reports);
                }
                return Ok(());
            };
            let reader = &mut self.tables[table];
            let batch = reader
                .read(split, rows_left.min(READ_ROWS), bytes_left, open.wall_time_ms)
                .map_err(|error| reader.name_error(error))?;
            if let Some(mut batch) = batch
                && let Some(rows) = &batch.rows
            {
                open.rows += rows.num_rows();
                open.bytes += rows.get_array_memory_size();
                outputs[table]
                    .activate()
                    .session(&open.outputs[table])
                    .give_container(&mut batch);
            }
        }
        self.activator.activate();
        Ok(())
    }

    /// Returns a table and a split with rows, the tables in turn.
    fn choose(&mut self) -> Option<(usize, usize)> {
        let count = self.tables.len();
        for offset in 0..count {
            let table = (self.next_table + offset) % count;
            if let Some(split) = self.tables[table].choose(self.ceilings.get(table).copied().flatten()) {
                self.next_table = (table + 1) % count;
                return Some((table, split));
            }
        }
        None
    }

    /// While no tick is open: says once that there are rows.
    fn look_for_rows(&mut self, reports: &mut Reports) {
        if self.ready_sent || self.reports.is_none() {
            return;
        }
        if self.choose().is_some() {
            self.ready_sent = true;
            self.report(Report::Ready, reports);
        } else {
            self.wait_for_rate();
        }
    }

    /// Runs again when a reader that limits its own rate will have rows; one timer is enough.
    fn wait_for_rate(&mut self) {
        let splits = self.tables.iter().flat_map(|table| &table.splits);
        let wait = splits
            .filter(|split| !split.ended)
            .filter_map(|split| split.reader.retry_after())
            .min();
        let Some(wait) = wait else { return };
        let now = Instant::now();
        let due = now + wait.max(RATE_WAIT_MIN);
        if self.runs_at.is_none_or(|runs_at| runs_at <= now || due < runs_at) {
            self.runs_at = Some(due);
            self.activator.activate_after(due - now);
        }
    }
}
