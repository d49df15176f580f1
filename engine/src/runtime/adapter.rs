//! The adapter between operators and timely: it keeps the promises that no operator has to.
//!
//! - Strictly by tick: batches of later ticks are parked until every earlier tick is closed, and when the frontier jumps
//!   over several ticks they are closed one by one, each with its own watermarks and capability.
//! - Input is taken in arrival order (`for_each`, not `for_each_stamp`, which sorts).
//! - A stateful operator holds a capability for its lowest open tick, also when no row comes.
//! - After `More` the operator is called again once what follows has had its turn.

use super::batch::Batch;
use super::board::Board;
use super::exchange::{KeyDistributor, Routing};
use super::shared::JobShared;
use crate::error::{Error, Result};
use crate::graph::WatermarkExpr;
use crate::metrics::OperatorMetrics;
use crate::operator::{OpenTick, Operator, Output, Progress, TickClose};
use crate::operators::calc::CalcOperator;
use crate::time::{Tick, Watermark};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{DistributorPact, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::{Operator as _, OutputBuilder};
use timely::dataflow::{Scope, Stream};
use timely::scheduling::Activator;

/// An operator that the worker's loop captures and the adapter runs.
pub(super) type SharedOperator = Rc<RefCell<Box<dyn Operator>>>;

/// One input of an operator.
pub(super) struct AdapterInput<'scope> {
    pub(super) stream: Stream<'scope, u64, Batch>,
    /// How rows reach the operator; `None`: they stay on their worker.
    pub(super) routing: Option<Routing>,
    pub(super) watermark: WatermarkExpr,
}

/// Which rows an adapter adds to its operator's counters: of two stages of one operator, each counts one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counts {
    Both,
    Input,
    Output,
}

/// What an adapter needs besides its operator and inputs.
pub(super) struct AdapterContext {
    pub(super) name: String,
    pub(super) metrics: Arc<OperatorMetrics>,
    pub(super) key_groups: u16,
    pub(super) first_tick: u64,
    /// The watermarks of all tables at the close of the tick before the first.
    pub(super) watermarks: Vec<Watermark>,
    pub(super) output_rows_max: usize,
    /// After `More`: run again at once (operators), or when the operator's waker says so (sinks).
    pub(super) runs_again: bool,
    pub(super) counts: Counts,
    pub(super) shared: Arc<JobShared>,
    pub(super) board: Rc<Board>,
}

/// Adds a stateless operator: a function of each batch.
pub(super) fn attach_calc<'scope>(
    stream: Stream<'scope, u64, Batch>,
    calc: CalcOperator,
    context: AdapterContext,
) -> Stream<'scope, u64, Batch> {
    let name = context.name.clone();
    stream.unary::<CapacityContainerBuilder<Batch>, _, _, _>(Pipeline, &name, move |_, _| {
        move |input, output| {
            input.for_each(|capability, batch| {
                let batch = std::mem::take(batch);
                let Some(rows) = batch.rows else { return };
                if context.shared.has_failed() {
                    return;
                }
                context.metrics.rows_in.add(rows.num_rows() as u64);
                match calc.apply(&rows, batch.wall_time_ms) {
                    Ok(result) if result.num_rows() > 0 => {
                        context.metrics.rows_out.add(result.num_rows() as u64);
                        let mut result = Batch::new(result, batch.wall_time_ms);
                        output.session(&capability).give_container(&mut result);
                    }
                    Ok(_) => {}
                    Err(error) => context.shared.fail(named(error, &context.name)),
                }
            });
        }
    })
}

/// Gives the batches of a stream another schema of the same types.
pub(super) fn attach_schema<'scope>(
    stream: Stream<'scope, u64, Batch>,
    schema: SchemaRef,
    shared: Arc<JobShared>,
) -> Stream<'scope, u64, Batch> {
    stream.unary::<CapacityContainerBuilder<Batch>, _, _, _>(Pipeline, "Schema", move |_, _| {
        move |input, output| {
            input.for_each(|capability, batch| {
                let batch = std::mem::take(batch);
                let Some(rows) = batch.rows else { return };
                match RecordBatch::try_new(Arc::clone(&schema), rows.columns().to_vec()) {
                    Ok(rows) => {
                        let mut batch = Batch::new(rows, batch.wall_time_ms);
                        output.session(&capability).give_container(&mut batch);
                    }
                    Err(error) => shared.fail(named(error.into(), "union")),
                }
            });
        }
    })
}

/// Puts the operator's name into an error that has none.
fn named(error: Error, name: &str) -> Error {
    match error {
        Error::Operator { operator, message } if operator.is_empty() => Error::Operator {
            operator: name.to_owned(),
            message,
        },
        other => other,
    }
}

/// What makes an operator run from elsewhere: its waker, for its writer's I/O.
pub(super) type Waker = Arc<dyn Fn() + Send + Sync>;

/// Adds a stateful operator. `make` builds it, given its waker.
pub(super) fn attach<'scope>(
    scope: Scope<'scope, u64>,
    inputs: Vec<AdapterInput<'scope>>,
    context: AdapterContext,
    make: impl FnOnce(Waker) -> Result<SharedOperator>,
) -> Stream<'scope, u64, Batch> {
    let mut builder = OperatorBuilder::new(context.name.clone(), scope);
    let mut drains: Vec<Box<dyn FnMut(&mut dyn FnMut(u64, Batch))>> = Vec::new();
    let mut expressions = Vec::new();
    for input in inputs {
        expressions.push(input.watermark);
        match input.routing {
            Some(routing) if scope.peers() > 1 => {
                let key_groups = context.key_groups;
                let shared = Arc::clone(&context.shared);
                let on_error = Box::new(move |error| shared.fail(error));
                let pact = DistributorPact(move |workers| KeyDistributor::new(routing, key_groups, workers, on_error));
                let mut handle = builder.new_input(input.stream, pact);
                drains.push(Box::new(move |take| {
                    handle.for_each(|capability, batch| {
                        if let Some(&tick) = capability.least() {
                            take(tick, std::mem::take(batch));
                        }
                    });
                }));
            }
            _ => {
                let mut handle = builder.new_input(input.stream, Pipeline);
                drains.push(Box::new(move |take| {
                    handle.for_each(|capability, batch| {
                        if let Some(&tick) = capability.least() {
                            take(tick, std::mem::take(batch));
                        }
                    });
                }));
            }
        }
    }
    let (output, stream) = builder.new_output();
    let mut output: OutputBuilder<u64, CapacityContainerBuilder<Batch>> = OutputBuilder::from(output);
    let address = builder.operator_info().address;
    let activator = scope.activator_for(Rc::clone(&address));
    let sync = std::sync::Mutex::new(scope.worker().sync_activator_for(address.to_vec()));
    let waker: Waker = Arc::new(move || {
        let sync = sync.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = sync.activate();
    });
    let operator = match make(waker) {
        Ok(operator) => operator,
        Err(error) => {
            // Timely wants what was begun to be built, and the job's end to say why it ended.
            context.shared.fail(named(error, &context.name));
            builder.build(|_| |_: &[_]| {});
            return stream;
        }
    };
    let subscriber = context.board.subscribe(activator.clone());
    let watermarks = expressions
        .iter()
        .map(|expression| expression.evaluate(&context.watermarks))
        .collect();
    builder.build(move |capabilities| {
        let mut capability = capabilities.into_iter().next();
        if let Some(capability) = &mut capability {
            capability.downgrade(&context.first_tick);
        }
        context.board.set_timer(subscriber, operator.borrow().next_timer_ms());
        let mut adapter = Adapter {
            operator,
            expressions,
            open: OpenTick {
                tick: Tick(context.first_tick),
                wall_time_ms: 0,
                watermarks,
            },
            capability,
            queue: VecDeque::new(),
            parked: BTreeMap::new(),
            closing: None,
            out: Output::with_budget(context.output_rows_max),
            activator,
            subscriber,
            context,
        };
        move |frontiers| {
            if adapter.context.shared.has_failed() {
                return;
            }
            for (input, drain) in drains.iter_mut().enumerate() {
                drain(&mut |tick, batch| adapter.park(input, tick, batch));
            }
            let lowest = frontiers
                .iter()
                .filter_map(|frontier| frontier.frontier().first().copied())
                .min();
            if let Err(error) = adapter.run(lowest, &mut output) {
                let error = named(error, &adapter.context.name);
                adapter.context.shared.fail(error);
            }
        }
    });
    stream
}

/// A batch and its tick's wall time.
type Arrived = (RecordBatch, i64);

struct Adapter {
    operator: SharedOperator,
    expressions: Vec<WatermarkExpr>,
    /// The lowest open tick.
    open: OpenTick,
    capability: Option<Capability<u64>>,
    /// Batches of the lowest open tick, in the order of their arrival.
    queue: VecDeque<(usize, Arrived)>,
    /// Batches of later ticks.
    parked: BTreeMap<u64, Vec<(usize, Arrived)>>,
    /// The close that the operator has not finished.
    closing: Option<TickClose>,
    out: Output,
    activator: Activator,
    subscriber: usize,
    context: AdapterContext,
}

impl Adapter {
    fn park(&mut self, input: usize, tick: u64, batch: Batch) {
        let Some(rows) = batch.rows else { return };
        if self.context.counts != Counts::Output {
            self.context.metrics.rows_in.add(rows.num_rows() as u64);
        }
        let arrived = (input, (rows, batch.wall_time_ms));
        if tick == self.open.tick.0 {
            self.queue.push_back(arrived);
        } else {
            self.parked.entry(tick).or_default().push(arrived);
        }
    }

    /// Does all that can be done. `lowest` is the least tick that may still come from an input; none when all have ended.
    fn run(
        &mut self,
        lowest: Option<u64>,
        output: &mut OutputBuilder<u64, CapacityContainerBuilder<Batch>>,
    ) -> Result<()> {
        while self.capability.is_some() {
            let tick = self.open.tick.0;
            let progress = if let Some((input, batch)) = self.queue.front() {
                let (input, rows, wall_time_ms) = (*input, batch.0.clone(), batch.1);
                self.open.wall_time_ms = wall_time_ms;
                let progress = self
                    .operator
                    .borrow_mut()
                    .on_batch(input, &rows, &self.open, &mut self.out)?;
                if progress == Progress::Done {
                    self.queue.pop_front();
                }
                self.emit(wall_time_ms, output);
                progress
            } else if lowest.is_some_and(|lowest| lowest <= tick) {
                return Ok(());
            } else if let Some(closed) = self.context.board.closed(tick) {
                let close = self.closing.take().unwrap_or_else(|| TickClose {
                    tick: Tick(tick),
                    wall_time_ms: closed.wall_time_ms,
                    watermarks: self
                        .expressions
                        .iter()
                        .map(|e| e.evaluate(&closed.watermarks))
                        .collect(),
                    is_last: closed.is_last,
                });
                let progress = self.operator.borrow_mut().on_close(&close, &mut self.out)?;
                self.emit(close.wall_time_ms, output);
                match progress {
                    Progress::Done => self.next_tick(close),
                    Progress::More => self.closing = Some(close),
                }
                progress
            } else {
                // The frontier is past the tick, and the clock has not closed it yet; or there are no more ticks.
                if lowest.is_none() && self.context.board.has_ended() {
                    self.capability = None;
                }
                return Ok(());
            };
            if progress == Progress::More {
                if self.context.runs_again {
                    self.activator.activate();
                }
                return Ok(());
            }
        }
        Ok(())
    }

    fn emit(&mut self, wall_time_ms: i64, output: &mut OutputBuilder<u64, CapacityContainerBuilder<Batch>>) {
        let Some(capability) = &self.capability else { return };
        let batches = self.out.take();
        if batches.is_empty() {
            return;
        }
        let mut output = output.activate();
        let mut session = output.session(capability);
        for rows in batches {
            if self.context.counts != Counts::Input {
                self.context.metrics.rows_out.add(rows.num_rows() as u64);
            }
            session.give_container(&mut Batch::new(rows, wall_time_ms));
        }
    }

    fn next_tick(&mut self, close: TickClose) {
        let next = close.tick.next();
        let timer = self.operator.borrow().next_timer_ms();
        self.context.board.set_timer(self.subscriber, timer);
        self.open = OpenTick {
            tick: next,
            wall_time_ms: close.wall_time_ms,
            watermarks: close.watermarks,
        };
        if let Some(capability) = &mut self.capability {
            capability.downgrade(&next.0);
        }
        if let Some(batches) = self.parked.remove(&next.0) {
            self.queue.extend(batches);
        }
    }
}
