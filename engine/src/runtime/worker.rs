//! One worker: builds the dataflow of the graph, then steps it until the job is over.

use super::adapter::{self, AdapterContext, AdapterInput, Counts, SharedOperator};
use super::batch::Batch;
use super::board::Board;
use super::clock::{Action, Clock, ClockStart, Event, TableOptions};
use super::coordinator::{Message, WorkerCapture, to_stored};
use super::discovery::KnownSplits;
use super::exchange::Routing;
use super::message::{Command, Report, TickClosed};
use super::shared::JobShared;
use super::sources::{self, SourcesContext, TableReader};
use crate::error::{Error, Result};
use crate::graph::{Distribution, JobGraph, Node, NodeKind};
use crate::job::JobConfig;
use crate::key::KeyGroupRange;
use crate::operator::{AsyncContext, OpenTick, Operator, OperatorContext, Output, Progress, StateSection, TickClose};
use crate::operators::asynchronous::AsyncRunner;
use crate::operators::calc::CalcOperator;
use crate::operators::group_aggregate::{self, Stage as GroupStage};
use crate::operators::window_aggregate::{Stage, has_partial_stage, partial_schema, window_aggregate};
use crate::sink::{Lineage, PreCommitId, SinkContext, SinkWriter};
use crate::time::Watermark;
use arrow::array::RecordBatch;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tidemill_checkpoints::{OperatorUid, StateReader};
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::Operator as _;
use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely::dataflow::operators::vec::Broadcast;
use timely::dataflow::operators::{Concatenate, Input, Probe};
use timely::dataflow::{InputHandleVec, Scope, Stream};
use timely::scheduling::Activator;
use timely::worker::Worker;
use tokio::sync::mpsc::UnboundedSender;

/// Everything that all workers of a job are started with.
pub(super) struct Blueprint {
    pub(super) graph: JobGraph,
    pub(super) config: JobConfig,
    pub(super) key_groups: u16,
    pub(super) generation: u64,
    pub(super) lineage: Lineage,
    pub(super) state: Option<StateReader>,
    pub(super) start: ClockStart,
    pub(super) tables: Vec<TableOptions>,
    /// By table.
    pub(super) known: Vec<Arc<KnownSplits>>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) shared: Arc<JobShared>,
    pub(super) coordinator: UnboundedSender<Message>,
}

/// What is captured at a hold.
enum Captured {
    Operator { uid: OperatorUid, operator: SharedOperator },
    Sink { uid: OperatorUid, writer: SharedWriter },
}

type SharedWriter = Rc<RefCell<Box<dyn SinkWriter>>>;

/// The dataflow of one worker, and what its loop needs of it.
struct Dataflow {
    probe: ProbeHandle<u64>,
    commands: Option<InputHandleVec<u64, Command>>,
    closings: Option<InputHandleVec<u64, TickClosed>>,
    reports: Rc<RefCell<Vec<Report>>>,
    sources: Activator,
    captured: Vec<Captured>,
    board: Rc<Board>,
}

/// Runs a worker to the job's end. Returns true when the clock says that all tables have ended.
pub(super) fn run(worker: &mut Worker, blueprint: &Blueprint) -> bool {
    let shared = Arc::clone(&blueprint.shared);
    shared.register_thread(worker.index(), std::thread::current());
    let built = worker.dataflow::<u64, _, _>(|scope| build(scope, blueprint));
    let finished = match built {
        Ok(mut dataflow) => turn_until_over(worker, blueprint, &mut dataflow),
        Err(error) => {
            shared.fail(error);
            false
        }
    };
    // Whatever is left is dropped, not run to its end: nothing is published because of a frontier alone.
    for dataflow in worker.installed_dataflows() {
        worker.drop_dataflow(dataflow);
    }
    finished
}

fn turn_until_over(worker: &mut Worker, blueprint: &Blueprint, dataflow: &mut Dataflow) -> bool {
    let shared = &blueprint.shared;
    let time = &blueprint.config.time;
    let index = worker.index();
    let first = blueprint.start.tick;
    let mut clock = (index == 0).then(|| {
        let interval = blueprint
            .config
            .checkpoints
            .as_ref()
            .and_then(|checkpoints| checkpoints.interval);
        let (ticks, start) = (blueprint.config.ticks.clone(), blueprint.start.clone());
        Clock::new(
            ticks,
            worker.peers(),
            blueprint.tables.clone(),
            interval,
            start,
            time.monotonic(),
        )
    });
    if let (Some(commands), Some(closings)) = (&mut dataflow.commands, &mut dataflow.closings) {
        commands.advance_to(first);
        closings.advance_to(first);
    }
    if index != 0 {
        dataflow.commands = None;
        dataflow.closings = None;
    }
    let mut timer = None;
    loop {
        if shared.must_end() {
            return false;
        }
        let frontier = dataflow.probe.with_frontier(|frontier| frontier.first().copied());
        dataflow.board.forget_before(frontier.unwrap_or(u64::MAX));
        if let Some(hold) = dataflow.board.take_hold(frontier) {
            match capture(index, hold.attempt, &dataflow.captured) {
                Ok(capture) => {
                    tell(blueprint, Message::Worker(capture));
                    dataflow.board.set_captured(hold.tick);
                    dataflow.sources.activate();
                }
                Err(error) => shared.fail(error),
            }
        }
        if dataflow.board.timer() != timer {
            timer = dataflow.board.timer();
            dataflow.sources.activate();
        }
        let mut park = None;
        if let Some(clock) = &mut clock {
            let mut events = shared.take_events();
            events.extend(dataflow.reports.borrow_mut().drain(..).map(Event::Report));
            let (now, wall_ms) = (time.monotonic(), time.wall_ms());
            let actions = clock.turn(now, wall_ms, frontier, events);
            let acted = !actions.is_empty();
            for action in actions {
                perform(action, clock, blueprint, dataflow);
            }
            park = if acted {
                Some(Duration::ZERO)
            } else {
                clock.sleep(now, wall_ms).and_then(|d| time.park_for(d))
            };
        }
        if !worker.step_or_park(park) {
            return clock.is_some_and(|clock| clock.has_finished());
        }
    }
}

fn perform(action: Action, clock: &Clock, blueprint: &Blueprint, dataflow: &mut Dataflow) {
    match action {
        Action::Send { tick, command } => {
            if let Some(commands) = &mut dataflow.commands {
                commands.advance_to(tick);
                commands.send(command);
                commands.flush();
            }
        }
        Action::AdvanceCommands(tick) => {
            if let Some(commands) = &mut dataflow.commands {
                commands.advance_to(tick);
            }
        }
        Action::Close(closed) => {
            blueprint.shared.tick_closed(closed.tick, clock.watermarks());
            if let Some(closings) = &mut dataflow.closings {
                let next = closed.tick + 1;
                closings.advance_to(closed.tick);
                closings.send(closed);
                closings.advance_to(next);
            }
        }
        Action::BeginAttempt(wish) => tell(blueprint, Message::Begin(wish)),
        Action::SplitEnded { table, id, position } => blueprint.known[table].split_ended(id, position),
        Action::Replaced(wish) => {
            let error = Error::Checkpoint("the job is being stopped in another way".into());
            blueprint.shared.answer(wish.request, &Err(error));
        }
        Action::Captured { attempt, cut, pause } => tell(blueprint, Message::Cut { attempt, cut, pause }),
        Action::Shutdown => {
            dataflow.commands = None;
            dataflow.closings = None;
        }
    }
}

/// Tells the coordinator, which lives as long as the job.
fn tell(blueprint: &Blueprint, message: Message) {
    if blueprint.coordinator.send(message).is_err() && !blueprint.shared.must_end() {
        let error = Error::Internal("the checkpoint coordinator has ended before its job".into());
        blueprint.shared.fail(error);
    }
}

/// Captures the state of all operators of a worker, and begins its sinks' pre-commits.
fn capture(worker: usize, attempt: tidemill_checkpoints::Attempt, captured: &[Captured]) -> Result<WorkerCapture> {
    let (mut state, mut pre_commits) = (Vec::new(), Vec::new());
    let id = PreCommitId {
        checkpoint: attempt.checkpoint.0,
        attempt: attempt.attempt.0,
    };
    for part in captured {
        match part {
            Captured::Operator { uid, operator } => {
                let sections = operator.borrow_mut().capture_sections()?;
                state.extend(sections.into_iter().map(|section| (uid.clone(), section)));
            }
            Captured::Sink { uid, writer } => pre_commits.push((uid.clone(), writer.borrow_mut().pre_commit(id)?)),
        }
    }
    Ok(WorkerCapture {
        worker,
        attempt,
        state,
        pre_commits,
    })
}

fn build(scope: Scope<'_, u64>, blueprint: &Blueprint) -> Result<Dataflow> {
    let board = Rc::new(Board::default());
    let (commands, command_stream) = scope.new_input::<Vec<Command>>();
    let (closings, closing_stream) = scope.new_input::<Vec<TickClosed>>();
    let probe = ProbeHandle::new();

    let for_closings = Rc::clone(&board);
    let closed = closing_stream
        .broadcast()
        .unary_frontier::<timely::container::CapacityContainerBuilder<Vec<()>>, _, _, _>(
            Pipeline,
            "Closings",
            move |_, _| {
                move |(input, frontier), _output| {
                    input.for_each(|_, data| data.drain(..).for_each(|closed| for_closings.close(closed)));
                    if frontier.frontier().is_empty() {
                        for_closings.end();
                    }
                }
            },
        );
    closed.probe_with(&probe);

    let graph = &blueprint.graph;
    let worker = scope.index();
    let mut tables = Vec::new();
    for (index, node) in graph.nodes().iter().enumerate() {
        if let NodeKind::Source(source) = &node.kind {
            tables.push((
                index,
                TableReader::new(source.clone(), blueprint.shared.metrics(index, worker)),
            ));
        }
    }
    let (table_nodes, readers): (Vec<usize>, Vec<TableReader>) = tables.into_iter().unzip();
    let context = SourcesContext {
        worker,
        workers: scope.peers(),
        rows_max: blueprint.config.ticks.rows_max,
        bytes_max: blueprint.config.ticks.bytes_max,
        first_tick: blueprint.start.tick,
        runtime: blueprint.runtime.clone(),
        shared: Arc::clone(&blueprint.shared),
        board: Rc::clone(&board),
    };
    let ((streams, report_stream), sources) = sources::attach(scope, command_stream.broadcast(), readers, context);

    let reports: Rc<RefCell<Vec<Report>>> = Rc::default();
    let for_reports = Rc::clone(&reports);
    let collected = report_stream.unary::<timely::container::CapacityContainerBuilder<Vec<()>>, _, _, _>(
        Exchange::new(|_: &Report| 0),
        "Reports",
        move |_, _| {
            move |input, _output| {
                input.for_each(|_, data| for_reports.borrow_mut().append(data));
            }
        },
    );
    collected.probe_with(&probe);

    let mut builder = Builder {
        scope,
        blueprint,
        board: Rc::clone(&board),
        captured: Vec::new(),
    };
    let mut outputs: BTreeMap<usize, Stream<'_, u64, Batch>> = table_nodes.into_iter().zip(streams).collect();
    for (index, node) in graph.nodes().iter().enumerate() {
        if matches!(node.kind, NodeKind::Source(_)) {
            continue;
        }
        let inputs: Vec<Stream<'_, u64, Batch>> = node.inputs.iter().map(|input| outputs[&input.0].clone()).collect();
        let output = builder.node(index, node, inputs)?;
        if matches!(node.kind, NodeKind::Sink(_)) {
            // Every leaf is joined into the probe.
            output.probe_with(&probe);
        } else {
            outputs.insert(index, output);
        }
    }
    let captured = builder.captured;
    Ok(Dataflow {
        probe,
        commands: Some(commands),
        closings: Some(closings),
        reports,
        sources,
        captured,
        board,
    })
}

struct Builder<'a, 'scope> {
    scope: Scope<'scope, u64>,
    blueprint: &'a Blueprint,
    board: Rc<Board>,
    captured: Vec<Captured>,
}

impl<'scope> Builder<'_, 'scope> {
    fn context(&self, index: usize, node: &Node) -> AdapterContext {
        AdapterContext {
            name: format!("{} ({})", node.name(), node.uid),
            metrics: self.blueprint.shared.metrics(index, self.scope.index()),
            key_groups: self.blueprint.key_groups,
            first_tick: self.blueprint.start.tick,
            watermarks: {
                let mut watermarks = self.blueprint.start.watermarks.clone();
                watermarks.resize(self.blueprint.tables.len(), Watermark::NONE);
                watermarks
            },
            output_rows_max: self.blueprint.config.ticks.output_rows_max,
            runs_again: true,
            counts: Counts::Both,
            shared: Arc::clone(&self.blueprint.shared),
            board: Rc::clone(&self.board),
        }
    }

    fn operator_context(&self, index: usize, node: &Node) -> OperatorContext {
        let (worker, workers) = (self.scope.index(), self.scope.peers());
        OperatorContext {
            uid: node.uid.clone(),
            worker,
            workers,
            key_groups: KeyGroupRange::of_worker(worker, workers, self.blueprint.key_groups),
            metrics: self.blueprint.shared.metrics(index, worker),
        }
    }

    fn watermark(&self, node: &Node, input: usize) -> crate::graph::WatermarkExpr {
        self.blueprint.graph.watermark(node.inputs[input]).clone()
    }

    fn node(
        &mut self,
        index: usize,
        node: &Node,
        inputs: Vec<Stream<'scope, u64, Batch>>,
    ) -> Result<Stream<'scope, u64, Batch>> {
        let mut context = self.context(index, node);
        match &node.kind {
            NodeKind::Source(_) => Err(Error::Internal("sources are built first".into())),
            NodeKind::Calc(calc) => {
                let input = only(inputs)?;
                Ok(adapter::attach_calc(input, CalcOperator::new(calc.clone()), context))
            }
            NodeKind::Union => {
                let renamed = inputs.into_iter().zip(&node.inputs).map(|(stream, input)| {
                    // One schema for all inputs: the first one's names, and nullable where any of them is.
                    if self.blueprint.graph.schema(*input) == &node.schema {
                        stream
                    } else {
                        adapter::attach_schema(stream, Arc::clone(&node.schema), Arc::clone(&self.blueprint.shared))
                    }
                });
                let renamed: Vec<_> = renamed.collect();
                Ok(self.scope.concatenate(renamed))
            }
            NodeKind::WindowAggregate(spec) => {
                let mut input = only(inputs)?;
                let schema = Arc::clone(self.blueprint.graph.schema(node.inputs[0]));
                let operator_context = self.operator_context(index, node);
                let watermark = self.watermark(node, 0);
                let mut routing = Routing::Keys(spec.keys.clone());
                let mut stage = Stage::Whole;
                if self.scope.peers() > 1 && has_partial_stage(spec) {
                    // The partial stage counts the input, the final one the output.
                    context.counts = Counts::Output;
                    let mut partial = self.context(index, node);
                    partial.name = format!("partial {}", partial.name);
                    partial.counts = Counts::Input;
                    let operator = window_aggregate(
                        Stage::Partial,
                        spec,
                        &schema,
                        Arc::clone(&node.schema),
                        operator_context.clone(),
                    )?;
                    let from = AdapterInput {
                        stream: input,
                        routing: None,
                        watermark: watermark.clone(),
                    };
                    input = adapter::attach(self.scope, vec![from], partial, |_| Ok(shared(operator)));
                    routing = Routing::HashColumn(partial_schema(spec, &schema).fields().len() - 1);
                    stage = Stage::Final;
                }
                let output = Arc::clone(&node.schema);
                let operator = window_aggregate(stage, spec, &schema, output, operator_context.clone())?;
                let operator = self.restored(&operator_context, operator)?;
                let from = AdapterInput {
                    stream: input,
                    routing: Some(routing),
                    watermark,
                };
                Ok(adapter::attach(self.scope, vec![from], context, |_| Ok(operator)))
            }
            NodeKind::GroupAggregate(spec) => {
                let mut input = only(inputs)?;
                let schema = Arc::clone(self.blueprint.graph.schema(node.inputs[0]));
                let operator_context = self.operator_context(index, node);
                let watermark = self.watermark(node, 0);
                let mut routing = Routing::Keys(spec.keys.clone());
                let mut stage = GroupStage::Whole;
                if self.scope.peers() > 1 && group_aggregate::has_partial_stage(spec, &schema) {
                    // The partial stage counts the input, the final one the output.
                    context.counts = Counts::Output;
                    let mut partial = self.context(index, node);
                    partial.name = format!("partial {}", partial.name);
                    partial.counts = Counts::Input;
                    let operator = group_aggregate::group_aggregate(
                        GroupStage::Partial,
                        spec,
                        &schema,
                        Arc::clone(&node.schema),
                        operator_context.clone(),
                    )?;
                    let from = AdapterInput {
                        stream: input,
                        routing: None,
                        watermark: watermark.clone(),
                    };
                    input = adapter::attach(self.scope, vec![from], partial, |_| Ok(shared(operator)));
                    routing = Routing::HashColumn(group_aggregate::partial_schema(spec, &schema).fields().len() - 1);
                    stage = GroupStage::Final;
                }
                let output = Arc::clone(&node.schema);
                let operator =
                    group_aggregate::group_aggregate(stage, spec, &schema, output, operator_context.clone())?;
                let operator = self.restored(&operator_context, operator)?;
                let from = AdapterInput {
                    stream: input,
                    routing: Some(routing),
                    watermark,
                };
                Ok(adapter::attach(self.scope, vec![from], context, |_| Ok(operator)))
            }
            NodeKind::Custom(custom) => {
                let operator_context = self.operator_context(index, node);
                let operator = (custom.factory)(&operator_context)?;
                let operator = self.restored(&operator_context, operator)?;
                let mut from = Vec::new();
                for (number, (stream, distribution)) in inputs.into_iter().zip(&custom.distributions).enumerate() {
                    let routing = match distribution {
                        Distribution::Local => None,
                        Distribution::Hash(columns) => Some(Routing::Keys(columns.clone())),
                    };
                    from.push(AdapterInput {
                        stream,
                        routing,
                        watermark: self.watermark(node, number),
                    });
                }
                Ok(adapter::attach(self.scope, from, context, |_| Ok(operator)))
            }
            NodeKind::Async(asks) => {
                context.runs_again = false;
                let from = AdapterInput {
                    stream: only(inputs)?,
                    routing: None,
                    watermark: self.watermark(node, 0),
                };
                let runtime = self.blueprint.runtime.clone();
                asks.operator.start(&AsyncContext {
                    runtime: runtime.clone(),
                    time: Arc::clone(&self.blueprint.config.time),
                    generation: self.blueprint.generation,
                    metrics: Arc::clone(&context.metrics),
                });
                Ok(adapter::attach(self.scope, vec![from], context, |waker| {
                    let (operator, schema) = (Arc::clone(&asks.operator), Arc::clone(&asks.schema));
                    Ok(shared(Box::new(AsyncRunner::new(
                        operator,
                        asks.options,
                        schema,
                        runtime,
                        waker,
                    ))))
                }))
            }
            NodeKind::Sink(sink) => {
                context.runs_again = false;
                let from = AdapterInput {
                    stream: only(inputs)?,
                    routing: None,
                    watermark: self.watermark(node, 0),
                };
                let mut made: Option<SharedWriter> = None;
                let (blueprint, worker, workers) = (self.blueprint, self.scope.index(), self.scope.peers());
                let metrics = Arc::clone(&context.metrics);
                let name = sink.name.clone();
                let stream = adapter::attach(self.scope, vec![from], context, |waker| {
                    let writer = sink.sink.writer(SinkContext {
                        uid: node.uid.clone(),
                        job: blueprint.config.uid.clone(),
                        generation: blueprint.generation,
                        lineage: blueprint.lineage,
                        worker,
                        workers,
                        waker,
                        runtime: blueprint.runtime.clone(),
                        metrics,
                    })?;
                    let writer: SharedWriter = Rc::new(RefCell::new(writer));
                    made = Some(Rc::clone(&writer));
                    Ok(shared(Box::new(SinkOperator { name, writer })))
                });
                if let Some(writer) = made {
                    self.captured.push(Captured::Sink {
                        uid: OperatorUid(node.uid.clone()),
                        writer,
                    });
                }
                Ok(stream)
            }
        }
    }

    /// Restores an operator's state and registers it for capture.
    fn restored(&mut self, context: &OperatorContext, mut operator: Box<dyn Operator>) -> Result<SharedOperator> {
        let uid = OperatorUid(context.uid.clone());
        let mine = context.key_groups;
        if let Some(reader) = &self.blueprint.state {
            let range = (mine.start < mine.end).then(|| to_stored(mine)).transpose()?;
            let read = self.blueprint.runtime.block_on(reader.read(&uid, range));
            let sections = read.map_err(|error| Error::Checkpoint(error.to_string()))?;
            let sections: Vec<StateSection> = sections
                .into_iter()
                .map(|section| StateSection {
                    name: section.name,
                    key_groups: section.key_groups.map(|stored| KeyGroupRange {
                        start: stored.first.0,
                        end: stored.last.0 + 1,
                        count: mine.count,
                    }),
                    bytes: section.content,
                })
                .collect();
            if !sections.is_empty() {
                operator.restore(&sections)?;
            }
        }
        let operator = shared(operator);
        self.captured.push(Captured::Operator {
            uid,
            operator: Rc::clone(&operator),
        });
        Ok(operator)
    }
}

fn shared(operator: Box<dyn Operator>) -> SharedOperator {
    Rc::new(RefCell::new(operator))
}

fn only<T>(inputs: Vec<T>) -> Result<T> {
    let mut inputs = inputs.into_iter();
    match (inputs.next(), inputs.next()) {
        (Some(input), None) => Ok(input),
        _ => Err(Error::Internal("an operator has one input".into())),
    }
}

/// Lets the adapter drive a sink's writer like any operator.
struct SinkOperator {
    name: String,
    writer: SharedWriter,
}

impl SinkOperator {
    fn named(&self, error: Error) -> Error {
        match error {
            Error::Operator { operator, message } if operator.is_empty() => Error::Sink {
                sink: self.name.clone(),
                message,
            },
            other => other,
        }
    }
}

impl Operator for SinkOperator {
    fn on_batch(&mut self, _input: usize, batch: &RecordBatch, tick: &OpenTick, _out: &mut Output) -> Result<Progress> {
        self.writer
            .borrow_mut()
            .write(batch, tick.wall_time_ms)
            .map_err(|error| self.named(error))?;
        Ok(Progress::Done)
    }

    fn on_close(&mut self, close: &TickClose, _out: &mut Output) -> Result<Progress> {
        self.writer
            .borrow_mut()
            .tick_closed(close)
            .map_err(|error| self.named(error))
    }
}
