//! The job graph: what SQL plans into and what a Rust job builds.
//!
//! ```text
//!  source ─▶ calc ─▶ window aggregate ─▶ calc ─▶ sink
//!            (stateless)   (keyed: exchanged by key hash)
//! ```
//! A graph is built with [`JobGraph`]'s methods, each of which returns the [`StreamId`] of what it produces. Every
//! stream knows its schema and its watermark expression. A graph is only a description: [`crate::job::start`] runs it.
//!
//! A typed API for Rust is to be a thin layer over this one.
//!
//! File map: `changes` is what makes a stream a changelog; `elements` (of arrays and maps), `group_aggregate` (the aggregation per
//! key), `join` (of two streams), `lookup` (with a table that is looked up), `over`, `session_rows`, `temporal_join` (with versions),
//! `top_n` and `window` (aggregation by window, late rows) are nodes.

mod changes;
mod elements;
mod group_aggregate;
mod join;
mod lookup;
mod over;
mod session_rows;
mod temporal_join;
mod top_n;
mod window;

pub use crate::operators::elements::Childless;
pub use changes::{WEIGHT, weight_field, weight_of, weight_of_inserts};
pub use group_aggregate::GroupAggregate;
pub(crate) use join::condition_schema;
pub use join::{Join, JoinCondition, JoinInput, JoinKind, JoinSide, KeepRows, ShiftedTime};
pub use over::{OverAggregate, OverFrame, OverFunction};
pub use session_rows::SessionRows;
pub use temporal_join::TemporalJoin;
pub use top_n::{TOP_N_MAX, TopN, TopNColumn, TopNOrder, TopNTies};
pub use window::{TimeDomain, Updates, WindowAggregate, WindowAssigner};

use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::operator::{AsyncOperator, AsyncOptions, OperatorFactory};
use crate::sink::Sink;
use crate::source::Source;
use crate::time::Watermark;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// A stream of the graph: the output of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(crate) usize);

/// How rows reach the workers of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Rows stay on their worker, in order.
    Local,
    /// Rows go to the worker that owns the key group of the hash of these columns.
    Hash(Vec<usize>),
}

/// A projection with an optional filter: the stateless operator.
#[derive(Clone, Debug)]
pub struct Calc {
    /// Only rows for which this is true go on; null counts as false.
    pub predicate: Option<Expr>,
    /// The output columns.
    pub outputs: Vec<(Field, Expr)>,
}

impl Calc {
    /// Returns the schema of the output.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(
            self.outputs.iter().map(|(field, _)| field.clone()).collect::<Vec<_>>(),
        ))
    }
}

/// The event time of a table: `WATERMARK FOR column AS column - delay`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventTime {
    /// The index of the timestamp column in the table's rows (after the table's computed columns).
    pub column: usize,
    /// How far rows may be out of order, in milliseconds, at least 0.
    pub delay_ms: i64,
    /// After this time without a row a split no longer holds the watermark back; `None`: never, as in Flink.
    pub idle_timeout: Option<Duration>,
    /// How far a split may run ahead of the table's watermark, in milliseconds; `None`: any distance.
    pub max_drift_ms: Option<i64>,
}

/// A table that the job reads.
#[derive(Clone)]
pub struct SourceNode {
    /// The table's name, unique within the job: a job reads each table once.
    pub table: String,
    /// The rows that the connector gives.
    pub physical_schema: SchemaRef,
    /// The connector.
    pub source: Arc<dyn Source>,
    /// Computed columns; `None` when the table has just the physical ones.
    pub computed: Option<Calc>,
    /// The event time; `None` for a table without watermark.
    pub event_time: Option<EventTime>,
}

/// An operator of the caller's own.
#[derive(Clone)]
pub struct CustomOperator {
    /// The operator's name, for plans and the job's status.
    pub name: String,
    /// How the rows of each input reach the operator's workers.
    pub distributions: Vec<Distribution>,
    /// The rows it emits.
    pub schema: SchemaRef,
    /// Builds it on each worker.
    pub factory: OperatorFactory,
    /// How much later than its inputs the rows it emits may be, in milliseconds: added to the watermark's delay.
    pub watermark_delay_ms: i64,
}

/// An operator of the caller's own that asks services outside. Rows stay on their worker.
#[derive(Clone)]
pub struct AsyncNode {
    /// The operator's name, for plans and the job's status.
    pub name: String,
    /// The rows it emits.
    pub schema: SchemaRef,
    /// The operator, shared by all workers.
    pub operator: Arc<dyn AsyncOperator>,
    /// How it is run.
    pub options: AsyncOptions,
}

/// A table that the job writes.
#[derive(Clone)]
pub struct SinkNode {
    /// The table's name, for messages and the job's status.
    pub name: String,
    /// The connector.
    pub sink: Arc<dyn Sink>,
}

/// What a node does.
#[derive(Clone)]
pub enum NodeKind {
    /// Reads a table.
    Source(SourceNode),
    /// Projects and filters.
    Calc(Calc),
    /// Puts several streams of one schema together.
    Union,
    /// Aggregates per key and window.
    WindowAggregate(WindowAggregate),
    /// Aggregates per key.
    GroupAggregate(GroupAggregate),
    /// Runs an operator of the caller's own.
    Custom(CustomOperator),
    /// Runs an operator of the caller's own that asks services outside.
    Async(AsyncNode),
    /// Writes a table.
    Sink(SinkNode),
}

/// The watermark of a stream: the minimum over (table, delay in milliseconds).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatermarkExpr(pub(crate) BTreeMap<usize, i64>);

impl WatermarkExpr {
    /// Evaluates the expression over the watermarks of all tables, by source index. A stream of no table has ended.
    #[must_use]
    pub fn evaluate(&self, tables: &[Watermark]) -> Watermark {
        self.0
            .iter()
            .map(|(&table, &delay)| tables[table].delayed_by(delay))
            .min()
            .unwrap_or(Watermark::END)
    }

    fn merge(&mut self, other: &WatermarkExpr, extra_ms: i64) {
        for (&table, &delay) in &other.0 {
            let slot = self.0.entry(table).or_insert(0);
            *slot = (*slot).max(delay + extra_ms);
        }
    }
}

/// A node of the graph.
#[derive(Clone)]
pub struct Node {
    /// What state of this node is stored under: the same across restarts and, where the planner can, changed queries.
    pub uid: String,
    /// What it does.
    pub kind: NodeKind,
    /// The streams it reads.
    pub inputs: Vec<StreamId>,
    /// The rows it produces; a sink's are those it takes.
    pub schema: SchemaRef,
    /// The watermark of what it produces.
    pub watermark: WatermarkExpr,
}

impl Node {
    /// Returns a short name for people.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.kind {
            NodeKind::Source(source) => format!("source {}", source.table),
            NodeKind::Calc(calc) => if calc.predicate.is_some() { "filter" } else { "project" }.to_owned(),
            NodeKind::Union => "union".to_owned(),
            NodeKind::WindowAggregate(_) => "window aggregate".to_owned(),
            NodeKind::GroupAggregate(spec) => if spec.aggregates.is_empty() {
                "distinct"
            } else {
                "aggregate"
            }
            .to_owned(),
            NodeKind::Custom(custom) => custom.name.clone(),
            NodeKind::Async(node) => node.name.clone(),
            NodeKind::Sink(sink) => format!("sink {}", sink.name),
        }
    }
}

/// A job's dataflow, as a description.
#[derive(Clone, Default)]
pub struct JobGraph {
    nodes: Vec<Node>,
    sources: usize,
    uids: HashSet<String>,
    /// What `EXPLAIN` says of nodes besides their columns.
    notes: BTreeMap<usize, String>,
}

impl JobGraph {
    /// Makes an empty graph.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the nodes; every node comes after its inputs.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Says something about a stream's node to people who read the plan.
    pub fn note(&mut self, stream: StreamId, note: impl Into<String>) {
        self.notes.insert(stream.0, note.into());
    }

    /// Returns the schema of a stream.
    #[must_use]
    pub fn schema(&self, stream: StreamId) -> &SchemaRef {
        &self.nodes[stream.0].schema
    }

    /// Returns the watermark expression of a stream.
    #[must_use]
    pub fn watermark(&self, stream: StreamId) -> &WatermarkExpr {
        &self.nodes[stream.0].watermark
    }

    /// Adds a table to read. Its splits' positions are stored under the table's name.
    ///
    /// # Errors
    /// When the table is read already, or its event time is not a timestamp column.
    pub fn source(&mut self, source: SourceNode) -> Result<StreamId> {
        let schema = source
            .computed
            .as_ref()
            .map_or_else(|| Arc::clone(&source.physical_schema), Calc::schema);
        if let Some(time) = &source.event_time {
            check_timestamp(
                &schema,
                time.column,
                &format!("the event time of table {}", source.table),
            )?;
            if time.delay_ms < 0 {
                return Err(Error::Graph(format!(
                    "the watermark delay of table {} is negative",
                    source.table
                )));
            }
            if time.max_drift_ms.is_some_and(|drift| drift < 0) {
                return Err(Error::Graph(format!(
                    "the allowed drift of table {} is negative",
                    source.table
                )));
            }
        }
        let uid = format!("source:{}", source.table);
        let watermark = WatermarkExpr(BTreeMap::from([(self.sources, 0)]));
        let stream = self.push(uid, NodeKind::Source(source), Vec::new(), schema, watermark)?;
        self.sources += 1;
        Ok(stream)
    }

    /// Adds a projection with an optional filter.
    ///
    /// # Errors
    /// When the uid is taken or an expression does not fit the input.
    pub fn calc(&mut self, uid: impl Into<String>, input: StreamId, calc: Calc) -> Result<StreamId> {
        let schema = Arc::clone(self.schema(input));
        if let Some(predicate) = &calc.predicate {
            let found = predicate.data_type(&schema)?;
            if found != DataType::Boolean {
                return Err(Error::Graph(format!(
                    "a filter must be a boolean, and this one is {found}"
                )));
            }
        }
        for (field, expr) in &calc.outputs {
            let found = expr.data_type(&schema)?;
            if &found != field.data_type() {
                let expected = field.data_type();
                return Err(Error::Graph(format!(
                    "column {} is declared {expected} and is {found}",
                    field.name()
                )));
            }
        }
        let output = calc.schema();
        self.check_weight_kept(input, &output)?;
        let watermark = self.watermark(input).clone();
        self.push(uid.into(), NodeKind::Calc(calc), vec![input], output, watermark)
    }

    /// Puts streams of the same column types together; the first one's names count.
    ///
    /// # Errors
    /// When there is no input, or their types differ.
    pub fn union(&mut self, uid: impl Into<String>, inputs: Vec<StreamId>) -> Result<StreamId> {
        let Some(&first) = inputs.first() else {
            return Err(Error::Graph("a union needs an input".into()));
        };
        let types = |s: &Schema| s.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
        let expected = types(self.schema(first));
        let mut watermark = WatermarkExpr::default();
        let mut fields: Vec<Field> = self.schema(first).fields().iter().map(|f| f.as_ref().clone()).collect();
        for &input in &inputs {
            if self.weight(input).is_some() != self.weight(first).is_some() {
                return Err(Error::Graph(format!(
                    "one input of a union changes and another does not; give that one a {WEIGHT} of 1"
                )));
            }
            let found = types(self.schema(input));
            if found != expected {
                return Err(Error::Graph(format!(
                    "the inputs of a union differ: {expected:?} and {found:?}"
                )));
            }
            for (field, other) in fields.iter_mut().zip(self.schema(input).fields()) {
                field.set_nullable(field.is_nullable() || other.is_nullable());
            }
            watermark.merge(self.watermark(input), 0);
        }
        self.push(
            uid.into(),
            NodeKind::Union,
            inputs,
            Arc::new(Schema::new(fields)),
            watermark,
        )
    }

    /// Adds an operator of the caller's own.
    ///
    /// # Errors
    /// When the number of distributions differs from that of the inputs, or a key column cannot be a key.
    pub fn operator(
        &mut self,
        uid: impl Into<String>,
        inputs: Vec<StreamId>,
        custom: CustomOperator,
    ) -> Result<StreamId> {
        if inputs.len() != custom.distributions.len() || inputs.is_empty() {
            return Err(Error::Graph(format!(
                "operator {} needs one distribution for each of its inputs",
                custom.name
            )));
        }
        if custom.watermark_delay_ms < 0 {
            return Err(Error::Graph(format!(
                "the watermark delay of operator {} is negative",
                custom.name
            )));
        }
        let mut watermark = WatermarkExpr::default();
        for (&input, distribution) in inputs.iter().zip(&custom.distributions) {
            if let Distribution::Hash(columns) = distribution {
                for &column in columns {
                    let field = field_at(self.schema(input), column)?;
                    if !crate::key::supports_key_type(field.data_type()) {
                        let found = field.data_type();
                        return Err(Error::Graph(format!(
                            "column {} of {found} cannot be a key",
                            field.name()
                        )));
                    }
                }
            }
            watermark.merge(self.watermark(input), custom.watermark_delay_ms);
        }
        let schema = Arc::clone(&custom.schema);
        self.push(uid.into(), NodeKind::Custom(custom), inputs, schema, watermark)
    }

    /// Adds an operator of the caller's own that asks services outside.
    ///
    /// # Errors
    /// When the uid is taken or its capacity is 0.
    pub fn async_operator(&mut self, uid: impl Into<String>, input: StreamId, node: AsyncNode) -> Result<StreamId> {
        if node.options.capacity == 0 {
            return Err(Error::Graph(format!(
                "operator {} may have no request in flight; allow at least 1",
                node.name
            )));
        }
        self.check_append_only(input, "an operator that asks services outside")?;
        let schema = Arc::clone(&node.schema);
        let watermark = self.watermark(input).clone();
        self.push(uid.into(), NodeKind::Async(node), vec![input], schema, watermark)
    }

    /// Adds a table to write.
    ///
    /// # Errors
    /// When the uid is taken, or the result changes and the sink only takes rows that stay.
    pub fn sink(&mut self, uid: impl Into<String>, input: StreamId, sink: SinkNode) -> Result<()> {
        if self.weight(input).is_some() && !sink.sink.takes_changes() {
            return Err(Error::Graph(format!(
                "the result that sink {} is to write changes, and rows can only be added to it",
                sink.name
            )));
        }
        let schema = Arc::clone(self.schema(input));
        let watermark = self.watermark(input).clone();
        self.push(uid.into(), NodeKind::Sink(sink), vec![input], schema, watermark)?;
        Ok(())
    }

    /// Checks that the graph can run.
    ///
    /// # Errors
    /// When it has no source or no sink, or a stream leads nowhere.
    pub fn validate(&self) -> Result<()> {
        if self.sources == 0 {
            return Err(Error::Graph("the job reads no table".into()));
        }
        if !self.nodes.iter().any(|node| matches!(node.kind, NodeKind::Sink(_))) {
            return Err(Error::Graph(
                "the job writes no table; add an INSERT INTO or a sink".into(),
            ));
        }
        let read: HashSet<usize> = self
            .nodes
            .iter()
            .flat_map(|node| node.inputs.iter().map(|input| input.0))
            .collect();
        for (index, node) in self.nodes.iter().enumerate() {
            if !matches!(node.kind, NodeKind::Sink(_)) && !read.contains(&index) {
                return Err(Error::Graph(format!(
                    "nothing reads what {} ({}) produces",
                    node.name(),
                    node.uid
                )));
            }
        }
        Ok(())
    }

    /// Writes the graph as text, one line per node, for `EXPLAIN`.
    #[must_use]
    pub fn explain(&self) -> String {
        let mut text = String::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let inputs: Vec<String> = node.inputs.iter().map(|input| format!("#{}", input.0)).collect();
            let _ = write!(text, "#{index} {}", node.name());
            if !inputs.is_empty() {
                let _ = write!(text, " <- {}", inputs.join(", "));
            }
            let weight = weight_of(&node.schema);
            let fields = node.schema.fields().iter().take(weight.unwrap_or(usize::MAX));
            let columns: Vec<String> = fields.map(|f| format!("{} {}", f.name(), f.data_type())).collect();
            let _ = write!(text, " ({})", columns.join(", "));
            if weight.is_some() {
                let _ = write!(text, " changes");
            }
            match &node.kind {
                NodeKind::Calc(calc) => {
                    if let Some(predicate) = &calc.predicate {
                        let _ = write!(text, " where {predicate:?}");
                    }
                }
                NodeKind::WindowAggregate(spec) => {
                    let _ = write!(text, " keys {:?} window {:?}", spec.keys, spec.window);
                    if spec.time == TimeDomain::ProcessingTime {
                        let _ = write!(text, " in processing time");
                    }
                    if let Some(updates) = &spec.updates {
                        let _ = write!(text, " {updates:?}");
                    }
                }
                NodeKind::GroupAggregate(spec) => {
                    let _ = write!(text, " keys {:?}", spec.keys);
                    if let Some(ttl_ms) = spec.ttl_ms {
                        let _ = write!(text, " forgotten after {ttl_ms} ms");
                    }
                }
                _ => {}
            }
            if let Some(note) = self.notes.get(&index) {
                let _ = write!(text, " {note}");
            }
            let _ = writeln!(text, " [uid {}]", node.uid);
        }
        text
    }

    fn push(
        &mut self,
        uid: String,
        kind: NodeKind,
        inputs: Vec<StreamId>,
        schema: SchemaRef,
        watermark: WatermarkExpr,
    ) -> Result<StreamId> {
        if uid.is_empty() || !self.uids.insert(uid.clone()) {
            return Err(Error::Graph(format!(
                "the uid {uid:?} is empty or used twice; give every operator its own"
            )));
        }
        self.nodes.push(Node {
            uid,
            kind,
            inputs,
            schema,
            watermark,
        });
        Ok(StreamId(self.nodes.len() - 1))
    }
}

fn field_at(schema: &Schema, index: usize) -> Result<&Field> {
    match schema.fields().get(index) {
        Some(field) => Ok(field),
        None => Err(Error::Graph(format!(
            "column {index} does not exist in a row of {}",
            schema.fields().len()
        ))),
    }
}

fn check_timestamp(schema: &Schema, index: usize, what: &str) -> Result<DataType> {
    match field_at(schema, index)?.data_type() {
        found @ DataType::Timestamp(
            TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond | TimeUnit::Second,
            _,
        ) => Ok(found.clone()),
        found => Err(Error::Graph(format!(
            "{what} must be a timestamp, and column {index} is {found}"
        ))),
    }
}
