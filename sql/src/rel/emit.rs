//! Makes the engine's job graph of relations.
//!
//! File map: `changes`, `elements` (joins with the elements of arrays), `join`, `ranked` and `sessions` (rows with their
//! sessions) emit one kind of relation each.

mod elements;

mod changes;
mod join;
mod lookup;
mod ranked;
mod sessions;

use super::flatten::{TablePath, flatten};
use super::fuse::{fuse, inputs};
use super::identity::{self, Identity};
use super::needs::{self, Need, Needs, needs_of};
use super::prune::{Pruned, calc_identity, prune};
use super::rank::operator_identity;
use super::{AggregateCall, Rel, RelId, RelKind, Rels, Windowing, changes as of_changes};
use crate::catalog::{Catalog, Table};
use crate::connectors::Connectors;
use crate::error::{Result, SqlError};
use crate::expr::SqlExpr;
use crate::functions::checks::{Promise, guarded};
use crate::functions::elements::row_elements;
use crate::functions::late::as_is_late;
use crate::functions::row_field::row_field;
use crate::functions::window::{WindowSide, last_ms, row_windows, window_side_of};
use crate::settings::Settings;
use crate::window_function::WindowSpec;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_common::Column;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_expr::Expr;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tidemill_engine::aggregate::AggregateCall as EngineCall;
use tidemill_engine::expr::{Expr as EngineExpr, column};
use tidemill_engine::graph::{
    Calc, EventTime, JobGraph, SinkNode, SourceNode, StreamId, WindowAggregate, WindowAssigner, weight_field,
};

/// What a statement writes.
pub(crate) struct Output {
    /// The rows.
    pub(crate) rel: RelId,
    /// The table; `None` for an explained query.
    pub(crate) table: Option<usize>,
}

/// A job graph and what was made on the way.
pub(crate) struct Emitted {
    pub(crate) graph: JobGraph,
    /// The tables that are read, each with the columns read of it.
    pub(crate) reads: BTreeMap<String, Vec<String>>,
    pub(crate) plan_hash: String,
}

/// Makes the job graph of all outputs.
///
/// # Errors
/// When a connector or the engine refuses.
pub(crate) fn emit(
    rels: &Rels,
    outputs: &[Output],
    catalog: &Catalog,
    connectors: &dyn Connectors,
    settings: &Settings,
) -> Result<Emitted> {
    let read: Vec<RelId> = outputs.iter().map(|output| output.rel).collect();
    check_windows(rels, &read)?;
    let mut pruned = prune(rels, &read)?;
    let table_paths = flatten(&mut pruned)?;
    let Pruned { mut rels, places, .. } = pruned;
    let read = read
        .iter()
        .map(|id| {
            places
                .get(id)
                .copied()
                .ok_or_else(|| SqlError::internal("an output was pruned"))
        })
        .collect::<Result<Vec<_>>>()?;
    fuse(&mut rels, &read)?;
    let mut emitter = Emitter {
        catalog,
        connectors,
        idle_timeout: settings.source_idle_timeout,
        state_ttl_ms: settings.state_ttl_ms(),
        graph: JobGraph::new(),
        reads: BTreeMap::new(),
        uids: BTreeSet::new(),
        words: Vec::new(),
        table_paths,
    };
    // A sink's last projection is made with the table's own fields.
    let written: BTreeMap<RelId, usize> = read
        .iter()
        .zip(outputs)
        .filter_map(|(id, output)| Some((*id, output.table?)))
        .collect();
    let mut live = vec![false; rels.len()];
    for id in &read {
        live[id.0] = true;
    }
    for index in (0..rels.len()).rev() {
        if live[index] {
            for input in inputs(&rels[index]) {
                live[input.0] = true;
            }
        }
    }
    let mut streams: Vec<Option<StreamId>> = vec![None; rels.len()];
    for index in 0..rels.len() {
        if live[index] {
            let fields = written
                .get(&RelId(index))
                .map(|table| catalog.table_at(*table).sink_definition().0.schema);
            streams[index] = Some(emitter.rel(index, &rels, &streams, fields)?);
        }
    }
    for (id, output) in read.iter().zip(outputs) {
        if let Some(table) = output.table {
            let table = catalog.table_at(table);
            emitter.sink(stream(&streams, *id)?, rels[id.0].changes, table)?;
        }
    }
    let words: Vec<&str> = emitter.words.iter().map(String::as_str).collect();
    let plan_hash = Identity::of(&words).text().to_owned();
    Ok(Emitted {
        graph: emitter.graph,
        reads: emitter.reads,
        plan_hash,
    })
}

fn stream(streams: &[Option<StreamId>], id: RelId) -> Result<StreamId> {
    streams[id.0].ok_or_else(|| SqlError::internal("a stream is read before it is made"))
}

struct Emitter<'a> {
    catalog: &'a Catalog,
    connectors: &'a dyn Connectors,
    idle_timeout: Option<Duration>,
    /// After this time without a row, state of a key is forgotten.
    state_ttl_ms: Option<i64>,
    graph: JobGraph,
    reads: BTreeMap<String, Vec<String>>,
    uids: BTreeSet<String>,
    /// What the plan's hash is made of.
    words: Vec<String>,
    /// What the columns of tables are, by relation.
    table_paths: HashMap<usize, Vec<TablePath>>,
}

impl Emitter<'_> {
    fn rel(
        &mut self,
        index: usize,
        rels: &[Rel],
        streams: &[Option<StreamId>],
        fields: Option<SchemaRef>,
    ) -> Result<StreamId> {
        let rel = &rels[index];
        match &rel.kind {
            RelKind::Table(table) => {
                let catalog = self.catalog;
                let paths = self.table_paths.remove(&index);
                let paths = paths.ok_or_else(|| SqlError::internal("a table is read twice"))?;
                self.source(rel, paths, catalog.table_at(*table))
            }
            RelKind::Calc {
                input,
                predicate,
                outputs,
            } => {
                let predicate = predicate.as_ref().map(|predicate| &predicate.expr);
                self.calc(
                    rel,
                    stream(streams, *input)?,
                    &rels[input.0],
                    predicate,
                    outputs,
                    fields,
                )
            }
            RelKind::Union { inputs } => {
                let inputs = inputs
                    .iter()
                    .map(|input| match rel.changes {
                        true => self.changes_of(&rels[input.0], stream(streams, *input)?),
                        false => stream(streams, *input),
                    })
                    .collect::<Result<Vec<_>>>()?;
                let uid = self.uid(format!("union-{}", calc_identity(rel).short()));
                self.graph.union(uid, inputs).map_err(engine_refusal)
            }
            RelKind::LookupJoin { input, lookup } => self.lookup_join(rel, stream(streams, *input)?, lookup),
            RelKind::GroupAggregate { input, keys, calls } => {
                self.group_aggregate(rel, stream(streams, *input)?, &rels[input.0], keys, calls)
            }
            RelKind::Join { left, right, spec } => {
                let inputs = [&rels[left.0], &rels[right.0]];
                let identity = operator_identity(rel, rels);
                let streams = [stream(streams, *left)?, stream(streams, *right)?];
                self.join(rel, spec, inputs, streams, &identity)
            }
            RelKind::WindowAggregate {
                input,
                keys,
                windowing,
                calls,
                updates,
            } => {
                let input_rel = &rels[input.0];
                let first = keys.len() + 2;
                let aggregates = calls
                    .iter()
                    .zip(&rel.columns[first..])
                    .map(|(call, column)| engine_call(call, input_rel, &column.name))
                    .collect::<Result<Vec<_>>>()?;
                let window = match *windowing {
                    Windowing::Time { time, spec } => assigner(time, spec),
                    Windowing::Attached { start, end } => WindowAssigner::Attached { start, end },
                };
                let name = |index: usize| rel.columns[index].name.clone();
                let window_names = (name(keys.len()), name(keys.len() + 1));
                let time = rel.columns[keys.len()].role.as_window();
                let (time, ..) = time.ok_or_else(|| SqlError::internal("a window without its role"))?;
                let spec = WindowAggregate {
                    keys: keys.clone(),
                    window,
                    aggregates,
                    window_names,
                    time,
                    updates: *updates,
                };
                let uid = self.uid_among(format!("window-aggregate-{}", rel.rows.short()), rel);
                self.graph
                    .window_aggregate(uid, stream(streams, *input)?, spec)
                    .map_err(engine_refusal)
            }
            RelKind::Rank(rank) => self.rank(rel, rank, rels, streams),
            RelKind::Over(over) => self.over(rel, over, rels, streams),
        }
    }

    fn calc(
        &mut self,
        rel: &Rel,
        input: StreamId,
        input_rel: &Rel,
        predicate: Option<&Expr>,
        outputs: &[Expr],
        fields: Option<SchemaRef>,
    ) -> Result<StreamId> {
        let mut input = input;
        let (mut predicate, mut outputs) = (predicate.cloned(), outputs.to_vec());
        let mut input_rel = Cow::Borrowed(input_rel);
        if let Some(window) = predicate.iter().chain(&outputs).find_map(row_windows) {
            input = match window.spec {
                WindowSpec::Session { gap_ms } => {
                    let read = predicate.iter().chain(&outputs);
                    let (rows, narrowed) =
                        self.session_rows(rel, (input, input_rel.as_ref()), gap_ms, &window, read)?;
                    input_rel = Cow::Owned(narrowed);
                    rows
                }
                spec => self.window_rows(rel, input, &input_rel, spec, window.time())?,
            };
            for expr in predicate.iter_mut().chain(&mut outputs) {
                *expr = with_columns(expr)?;
            }
        }
        if let Some(time) = predicate.as_ref().and_then(as_is_late) {
            input = self.late_rows(rel, input, &input_rel, time)?;
            predicate = None;
        }
        if let Some((of, childless)) = predicate.iter().chain(&outputs).find_map(row_elements) {
            input = self.elements(rel, input, &input_rel, &of, childless)?;
            for expr in predicate.iter_mut().chain(&mut outputs) {
                *expr = elements::with_columns(expr)?;
            }
        }
        let schema = Arc::clone(self.graph.schema(input));
        let place = |expr: &Expr| match expr {
            Expr::Column(column) => input_rel.columns.iter().position(|known| known.name == column.name),
            _ => None,
        };
        let mut columns = Vec::with_capacity(outputs.len());
        for (index, (expr, known)) in outputs.iter().zip(&rel.columns).enumerate() {
            let field = match (&fields, place(expr)) {
                (Some(fields), _) => fields.field(index).clone(),
                (None, Some(place)) => schema.field(place).clone().with_name(&known.name),
                (None, None) => Field::new(&known.name, known.data_type.clone(), true),
            };
            columns.push((field, place(expr), expr));
        }
        let weight = self.graph.weight(input);
        let same = |(index, (field, place, _)): (usize, &(Field, Option<usize>, &Expr))| {
            *place == Some(index) && field == schema.field(index)
        };
        let width = columns.len() + usize::from(weight.is_some());
        if predicate.is_none() && width == schema.fields().len() && columns.iter().enumerate().all(same) {
            return Ok(input);
        }
        // The stream may have more columns than the relation, and other names.
        let names = input_rel
            .columns
            .iter()
            .map(|column| Some(column.name.as_str()))
            .chain(std::iter::repeat(None));
        let renamed = schema.fields().iter().zip(names).map(|(field, name)| match name {
            Some(name) => field.as_ref().clone().with_name(name),
            None => field.as_ref().clone(),
        });
        let input_schema = Schema::new(renamed.collect::<Vec<_>>());
        let identity = calc_identity(rel);
        let mut seed = 0u64;
        let mut made = |expr: &Expr, place: Option<usize>| -> Result<EngineExpr> {
            if let Some(place) = place {
                return Ok(column(place));
            }
            // Every expression of the job draws numbers of its own.
            seed += 1;
            let seed = u64::from_str_radix(identity.short(), 16)
                .unwrap_or(0)
                .wrapping_add(seed);
            sql_expr(expr, &input_schema, seed)
        };
        let predicate = predicate.as_ref().map(|expr| made(expr, None)).transpose()?;
        let mut engine_outputs = Vec::with_capacity(columns.len());
        for (field, place, expr) in columns {
            engine_outputs.push((field, made(expr, place)?));
        }
        engine_outputs.extend(weight.map(|weight| (weight_field(), column(weight))));
        let uid = self.uid(format!("calc-{}", identity.short()));
        self.graph
            .calc(
                uid,
                input,
                Calc {
                    predicate,
                    outputs: engine_outputs,
                },
            )
            .map_err(engine_refusal)
    }

    /// Selects the late rows of a table.
    fn late_rows(&mut self, rel: &Rel, input: StreamId, input_rel: &Rel, time: &str) -> Result<StreamId> {
        let time = input_rel.columns.iter().position(|column| column.name == time);
        let time = time.ok_or_else(|| SqlError::internal("late rows without their event time"))?;
        let uid = self.uid(format!("late-{}", rel.rows.short()));
        self.graph.late_rows(uid, input, time).map_err(engine_refusal)
    }

    /// Gives rows all their windows, by a column of the input.
    fn window_rows(
        &mut self,
        rel: &Rel,
        input: StreamId,
        input_rel: &Rel,
        spec: WindowSpec,
        time: Option<&str>,
    ) -> Result<StreamId> {
        let time = input_rel
            .columns
            .iter()
            .position(|column| Some(column.name.as_str()) == time);
        let time = time.ok_or_else(|| SqlError::internal("windows of rows without a time column"))?;
        let identity = Identity::of(&[
            "windows",
            rel.rows.text(),
            input_rel.columns[time].identity.text(),
            &spec.text(),
        ]);
        let uid = self.uid(format!("windows-{}", identity.short()));
        self.graph
            .window_rows(uid, input, assigner(time, spec), (ROW_WINDOW_START, ROW_WINDOW_END))
            .map_err(engine_refusal)
    }

    /// Adds a table to read: the columns of `rel`, which are these `paths` of the table, and the event time.
    fn source(&mut self, rel: &Rel, paths: Vec<TablePath>, table: &Table) -> Result<StreamId> {
        let name = &table.name.value;
        let (mut definition, places) = table.source_definition();
        let mut kept = Vec::with_capacity(paths.len() + 1);
        for (column, path) in rel.columns.iter().zip(paths) {
            let place = table.columns.iter().position(|column| column.name == path.column);
            kept.push(Kept {
                field: Field::new(&column.name, column.data_type.clone(), true),
                column: place.ok_or_else(|| SqlError::internal(format!("no column {}", path.column)))?,
                path: path.fields,
            });
        }
        if let Some(watermark) = table.watermark
            && !kept.iter().any(|kept| kept.column == watermark.column)
        {
            // Behind the others, so that what reads the relation finds its columns in their places.
            let column = &table.columns[watermark.column];
            kept.push(Kept {
                field: Field::new(&column.name, column.sql_type.data_type.clone(), true),
                column: watermark.column,
                path: Vec::new(),
            });
        }
        // What the connector must give: the columns themselves and what computed ones are made of.
        let mut needed = Needs::new();
        let physical_rel = table.physical_rel();
        for kept in &kept {
            match table.computed.get(&kept.column) {
                Some(computed) => {
                    for (column, need) in needs_of(std::iter::once(&computed.expr), &physical_rel)? {
                        needs::add(&mut needed, places[column], need);
                    }
                }
                None => {
                    let path: Vec<&str> = kept.path.iter().map(String::as_str).collect();
                    needs::add(&mut needed, kept.column, Need::path(&path));
                }
            }
        }
        if needed.is_empty() {
            needed.extend(places.first().map(|place| (*place, Need::All)));
        }
        let projection: Vec<usize> = places
            .iter()
            .enumerate()
            .filter(|(_, place)| needed.contains_key(place))
            .map(|(index, _)| index)
            .collect();
        // The connector is told of no more fields than are read.
        let narrow = |(field, place): (&Arc<Field>, &usize)| match needed.get(place) {
            Some(need) => field.as_ref().clone().with_data_type(need.narrow(field.data_type())),
            None => field.as_ref().clone(),
        };
        let fields = definition.schema.fields().iter().zip(&places).map(narrow);
        definition.schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let physical_schema = definition.schema.project(&projection).map_err(SqlError::internal)?;
        let source = self
            .connectors
            .create_source(&definition, &projection)
            .map_err(|error| table.connector_error(&error))?;
        let computed = computed_calc(table, &kept, &physical_schema)?;
        let event_time = table.watermark.map(|watermark| EventTime {
            column: kept
                .iter()
                .position(|kept| kept.column == watermark.column)
                .unwrap_or_default(),
            delay_ms: watermark.delay_ms,
            idle_timeout: table.idle_timeout.or(self.idle_timeout),
            max_drift_ms: table.max_drift_ms,
        });
        let names = physical_schema
            .fields()
            .iter()
            .flat_map(|field| leaf_names(field))
            .collect();
        self.reads.insert(name.clone(), names);
        self.words.push(format!("source {name} {:?}", event_time));
        let physical_schema = Arc::new(physical_schema);
        self.graph
            .source(SourceNode {
                table: name.clone(),
                physical_schema,
                source,
                computed,
                event_time,
            })
            .map_err(engine_refusal)
    }

    fn sink(&mut self, input: StreamId, changes: bool, table: &Table) -> Result<()> {
        let definition = if changes {
            table.changes_definition()
        } else {
            table.sink_definition().0
        };
        let sink = self
            .connectors
            .create_sink(&definition)
            .map_err(|error| table.connector_error(&error))?;
        let name = table.name.value.clone();
        let input = match changes {
            true => self.by_primary_key(input, &definition)?,
            false => input,
        };
        let uid = self.uid(format!("sink:{name}"));
        self.graph
            .sink(uid, input, SinkNode { name, sink })
            .map_err(engine_refusal)
    }

    /// Makes an aggregation's name unique: a second one of the same rows is told from the first by its columns' names.
    fn uid_among(&mut self, base: String, rel: &Rel) -> String {
        match self.uids.contains(&base) {
            true => self.uid(format!("{base}-{}", calc_identity(rel).short())),
            false => self.uid(base),
        }
    }

    /// Makes an operator's name unique.
    fn uid(&mut self, base: String) -> String {
        let mut uid = base.clone();
        let mut number = 2;
        while !self.uids.insert(uid.clone()) {
            uid = format!("{base}:{number}");
            number += 1;
        }
        self.words.push(uid.clone());
        uid
    }
}

/// The columns in which rows have a window of theirs.
const ROW_WINDOW_START: &str = "$window_start";
const ROW_WINDOW_END: &str = "$window_end";

/// Replaces the window of a row by the columns that hold it.
fn with_columns(expr: &Expr) -> Result<Expr> {
    let replaced = expr.clone().transform_up(|expr| {
        let Expr::ScalarFunction(call) = &expr else {
            return Ok(Transformed::no(expr));
        };
        let column = |name| Expr::Column(Column::new_unqualified(name));
        Ok(
            match window_side_of(&call.func).filter(|window| !window.spec.is_one_per_row()) {
                Some(window) => Transformed::yes(match window.side {
                    WindowSide::Start => column(ROW_WINDOW_START),
                    WindowSide::End => column(ROW_WINDOW_END),
                    WindowSide::Time => last_ms(column(ROW_WINDOW_END)),
                }),
                None => Transformed::no(expr),
            },
        )
    });
    replaced.map(|replaced| replaced.data).map_err(SqlError::internal)
}

/// Returns how the engine finds windows by a time column.
fn assigner(time: usize, spec: WindowSpec) -> WindowAssigner {
    match spec {
        WindowSpec::Tumble { size_ms, offset_ms } => WindowAssigner::Tumble {
            time,
            size_ms,
            offset_ms,
        },
        WindowSpec::Hop {
            size_ms,
            slide_ms,
            offset_ms,
        } => WindowAssigner::Hop {
            time,
            size_ms,
            slide_ms,
            offset_ms,
        },
        WindowSpec::Cumulate {
            size_ms,
            step_ms,
            offset_ms,
        } => WindowAssigner::Cumulate {
            time,
            size_ms,
            step_ms,
            offset_ms,
        },
        WindowSpec::Session { gap_ms } => WindowAssigner::Session { time, gap_ms },
    }
}

/// Refuses windows over what changes, and rows that are numbered without end.
fn check_windows(rels: &Rels, read: &[RelId]) -> Result<()> {
    let mut live = vec![false; rels.len()];
    read.iter().for_each(|id| live[id.0] = true);
    for index in (0..rels.len()).rev() {
        if !live[index] {
            continue;
        }
        let rel = rels.get(RelId(index));
        inputs(rel).iter().for_each(|input| live[input.0] = true);
        ranked::check(rel)?;
        let RelKind::Calc { predicate, outputs, .. } = &rel.kind else {
            continue;
        };
        let exprs = predicate.iter().map(|predicate| &predicate.expr).chain(outputs);
        if rel.changes && exprs.clone().any(Expr::is_volatile) {
            // What it gave for a row it would not give again when the row is taken back.
            return Err(of_changes::refusal("a function of the clock or of chance", None));
        }
        let windows = exprs.into_iter().find_map(row_windows);
        if let Some(window) = &windows
            && rel.changes
        {
            return Err(of_changes::refusal(
                &format!("a window ({})", window.spec.name()),
                window.at,
            ));
        }
    }
    Ok(())
}

/// A column of a source's rows: a column of the table, or a field of its rows.
struct Kept {
    field: Field,
    column: usize,
    path: Vec<String>,
}

/// Returns the names of a column's fields, with the names around them; or its own.
fn leaf_names(field: &Field) -> Vec<String> {
    match field.data_type() {
        DataType::Struct(fields) => {
            let inner = fields.iter().flat_map(|field| leaf_names(field));
            inner.map(|name| format!("{}.{name}", field.name())).collect()
        }
        _ => vec![field.name().clone()],
    }
}

/// Makes the projection behind a source; `None` when the connector's rows are what is wanted.
fn computed_calc(table: &Table, kept: &[Kept], physical: &Schema) -> Result<Option<Calc>> {
    let mut outputs = Vec::new();
    let mut plain = kept.len() == physical.fields().len();
    for (position, kept) in kept.iter().enumerate() {
        let known = &table.columns[kept.column];
        let place = physical.index_of(&known.name).ok().filter(|_| known.is_physical());
        let value = || {
            let column = Expr::Column(Column::new_unqualified(&known.name));
            kept.path.iter().fold(column, |row, name| row_field(row, name))
        };
        let data_type = match place.filter(|_| kept.path.is_empty()) {
            Some(place) => physical.field(place).data_type(),
            None => kept.field.data_type(),
        };
        let is_nullable = known.nullable || !kept.path.is_empty();
        let field = Field::new(kept.field.name(), data_type.clone(), is_nullable);
        let expr = match (table.computed.get(&kept.column), place, known.sql_type.length) {
            (Some(computed), ..) => {
                plain = false;
                let computed = kept
                    .path
                    .iter()
                    .fold(computed.expr.clone(), |row, name| row_field(row, name));
                sql_expr(&computed, physical, kept.column as u64)?
            }
            (None, Some(_), Some(length)) => {
                plain = false;
                let value = guarded(value(), Promise::Length(length), &table.name.value, &known.name);
                sql_expr(&value, physical, 0)?
            }
            (None, Some(_), None) if !kept.path.is_empty() => {
                plain = false;
                sql_expr(&value(), physical, 0)?
            }
            (None, Some(place), None) => {
                plain &= place == position;
                column(place)
            }
            (None, None, _) => return Err(SqlError::internal(format!("the column {} was lost", known.name))),
        };
        outputs.push((field, expr));
    }
    Ok((!plain).then_some(Calc {
        predicate: None,
        outputs,
    }))
}

fn sql_expr(expr: &Expr, input: &Schema, seed: u64) -> Result<EngineExpr> {
    let text = identity::write(expr, &|column| column.name.clone());
    Ok(Arc::new(SqlExpr::new(expr, input, text, seed)?))
}

/// Returns the seed of an operator's random numbers: no other operator has its name.
fn seed_of(uid: &str) -> u64 {
    u64::from_str_radix(Identity::of(&[uid]).short(), 16).unwrap_or(0)
}

fn engine_call(call: &AggregateCall, input: &Rel, name: &str) -> Result<EngineCall> {
    Ok(EngineCall {
        function: call.function(&|index| &input.columns[index].data_type)?,
        arguments: call.arguments.clone(),
        filter: call.filter,
        name: name.to_owned(),
    })
}

fn engine_refusal(error: tidemill_engine::Error) -> SqlError {
    SqlError::internal(error)
}
