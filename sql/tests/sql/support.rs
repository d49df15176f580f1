//! Connectors without I/O, and an interpreter that runs a job graph over given rows, all at once.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StructArray, TimestampMillisecondArray,
};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_connectors::{ConnectorError, TableDefinition};
use tidemill_engine::aggregate::AggregateCall;
use tidemill_engine::expr::EvalContext;
use tidemill_engine::graph::{
    Calc, CustomOperator, GroupAggregate, JobGraph, NodeKind, WindowAggregate, WindowAssigner, weight_of,
};
use tidemill_engine::key::KeyGroupRange;
use tidemill_engine::operator::{OpenTick, OperatorContext, Output, Progress, TickClose};
use tidemill_engine::sink::{CommitterContext, DeliveryGuarantee, Sink, SinkCommitter, SinkContext, SinkWriter};
use tidemill_engine::source::{Source, Split, SplitContext, SplitEnumerator, SplitReader};
use tidemill_engine::time::{Tick, Watermark};
use tidemill_engine::{Error, Result};
use tidemill_sql::{Connectors, JobPlan, Plan, PlanOptions, SqlError, plan_with};

/// The wall time of all rows.
pub(crate) const WALL_TIME_MS: i64 = 1_767_225_600_123; // 2026-01-01 00:00:00.123

/// Tables that most tests use: `bids` with an event time, `out` with what the test needs.
pub(crate) const BIDS: &str = "CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price INT, channel STRING, fee DECIMAL(10, 2), rate DOUBLE, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '2' SECOND
) WITH ('connector' = 'test');\n";

/// Connectors that know one connector, `test`, with one option, and do nothing.
pub(crate) struct TestConnectors;

struct Nothing;

fn check(table: &TableDefinition) -> Result<(), ConnectorError> {
    match table.options.get("connector").map(String::as_str) {
        Some("test") => {}
        Some(other) => {
            return Err(
                ConnectorError::option("connector", format!("there is no connector '{other}'")).with_hint("use 'test'"),
            );
        }
        None => return Err(ConnectorError::new("the table names no connector")),
    }
    match table
        .options
        .keys()
        .find(|key| !["connector", "path"].contains(&key.as_str()))
    {
        Some(key) => Err(ConnectorError::option(key, "unknown option").with_hint("did you mean 'path'?")),
        None => Ok(()),
    }
}

impl Connectors for TestConnectors {
    fn check_source(&self, table: &TableDefinition) -> Result<(), ConnectorError> {
        check(table)
    }

    fn check_sink(&self, table: &TableDefinition) -> Result<(), ConnectorError> {
        check(table)
    }

    fn create_source(&self, table: &TableDefinition, _: &[usize]) -> Result<Arc<dyn Source>, ConnectorError> {
        check(table)?;
        Ok(Arc::new(Nothing))
    }

    fn create_sink(&self, table: &TableDefinition) -> Result<Arc<dyn Sink>, ConnectorError> {
        check(table)?;
        Ok(Arc::new(Nothing))
    }
}

fn not_run<T>() -> Result<T> {
    Err(Error::Internal("the interpreter reads no connector".into()))
}

impl Source for Nothing {
    fn enumerator(&self) -> Result<Box<dyn SplitEnumerator>> {
        not_run()
    }

    fn open_split(&self, _: &Split, _: SplitContext) -> Result<Box<dyn SplitReader>> {
        not_run()
    }
}

impl Sink for Nothing {
    fn takes_changes(&self) -> bool {
        true
    }

    fn guarantee(&self) -> DeliveryGuarantee {
        DeliveryGuarantee::AtLeastOnce
    }

    fn writer(&self, _: SinkContext) -> Result<Box<dyn SinkWriter>> {
        not_run()
    }

    fn committer(&self, _: CommitterContext) -> Result<Option<Arc<dyn SinkCommitter>>> {
        not_run()
    }
}

/// Plans a text with the test's connectors.
pub(crate) fn plan(sql: &str) -> Result<Plan, SqlError> {
    plan_with(sql, &TestConnectors, &PlanOptions::default())
}

/// Plans a job; a refusal fails the test.
pub(crate) fn job(sql: &str) -> JobPlan {
    match plan(sql) {
        Ok(Plan::Job(job)) => *job,
        Ok(Plan::Explain(text)) => panic!("planned an explanation:\n{text}"),
        Err(error) => panic!("refused:\n{error}\n{sql}"),
    }
}

/// Explains; a refusal fails the test.
pub(crate) fn explain(sql: &str) -> String {
    match plan(sql) {
        Ok(Plan::Explain(text)) => text,
        Ok(Plan::Job(_)) => panic!("planned a job"),
        Err(error) => panic!("refused:\n{error}\n{sql}"),
    }
}

/// Runs a query that must fail; gives the error.
pub(crate) fn failed(columns: &str, select: &str) -> String {
    match run_query(columns, select) {
        Ok(rows) => panic!("did not fail: {select} gave {rows:?}"),
        Err(error) => error.to_string(),
    }
}

/// Plans what must be refused.
pub(crate) fn refused(sql: &str) -> SqlError {
    match plan(sql) {
        Ok(_) => panic!("not refused: {sql}"),
        Err(error) => error,
    }
}

/// Runs a graph over the rows of each table; gives the rows of each sink as lines of text, in order of their names.
pub(crate) fn run(graph: &JobGraph, tables: &BTreeMap<&str, RecordBatch>) -> Result<BTreeMap<String, Vec<String>>> {
    let context = EvalContext {
        wall_time_ms: WALL_TIME_MS,
    };
    let mut streams: Vec<RecordBatch> = Vec::new();
    let mut sinks = BTreeMap::new();
    // Ids are places, and a graph's nodes come after their inputs.
    let place = |id: &tidemill_engine::graph::StreamId| -> usize {
        let text = format!("{id:?}");
        text.trim_start_matches("StreamId(")
            .trim_end_matches(')')
            .parse()
            .unwrap()
    };
    for node in graph.nodes() {
        let inputs: Vec<RecordBatch> = node.inputs.iter().map(|id| streams[place(id)].clone()).collect();
        let batch = match &node.kind {
            NodeKind::Source(source) => {
                let rows = tables.get(source.table.as_str()).expect("rows of the table");
                let fields = source.physical_schema.fields().iter();
                let columns = fields
                    .map(|field| {
                        let column = rows.column_by_name(field.name());
                        narrowed(column.expect("a column of the table"), field.data_type())
                    })
                    .collect();
                let physical = RecordBatch::try_new(Arc::clone(&source.physical_schema), columns)?;
                match &source.computed {
                    Some(calc) => run_calc(calc, &physical, &context)?,
                    None => physical,
                }
            }
            NodeKind::Calc(calc) => run_calc(calc, &inputs[0], &context)?,
            NodeKind::Union => {
                let schema = Arc::clone(&node.schema);
                let renamed = inputs
                    .iter()
                    .map(|batch| RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec()));
                concat_batches(&schema, &renamed.collect::<Result<Vec<_>, _>>()?)?
            }
            NodeKind::WindowAggregate(spec) => run_aggregate(spec, &inputs[0], &node.schema)?,
            NodeKind::GroupAggregate(spec) => run_group_aggregate(spec, &inputs[0], &node.schema)?,
            NodeKind::Sink(sink) => {
                let rows = result_lines(&inputs[0]);
                sinks.entry(sink.name.clone()).or_insert_with(Vec::new).extend(rows);
                inputs[0].clone()
            }
            NodeKind::Custom(custom) => run_operator(custom, &inputs)?,
            NodeKind::Async(_) => unreachable!("SQL plans no operator of a caller's own"),
        };
        assert_eq!(batch.schema_ref().fields().len(), node.schema.fields().len());
        streams.push(batch);
    }
    Ok(sinks)
}

/// Runs an operator over all rows in one tick, behind which nothing comes: no row is late, none is dropped before.
fn run_operator(custom: &CustomOperator, inputs: &[RecordBatch]) -> Result<RecordBatch> {
    let context = OperatorContext {
        uid: custom.name.clone(),
        worker: 0,
        workers: 1,
        key_groups: KeyGroupRange::of_worker(0, 1, 256),
        metrics: Arc::default(),
    };
    let tick = OpenTick {
        tick: Tick(1),
        wall_time_ms: WALL_TIME_MS,
        watermarks: vec![Watermark::NONE; inputs.len()],
    };
    let close = TickClose {
        tick: Tick(1),
        wall_time_ms: WALL_TIME_MS,
        watermarks: vec![Watermark::END; inputs.len()],
        is_last: true,
    };
    let mut operator = (custom.factory)(&context)?;
    let mut found = Vec::new();
    let mut out = Output::with_budget(3);
    for (input, batch) in inputs.iter().enumerate() {
        while operator.on_batch(input, batch, &tick, &mut out)? == Progress::More {
            found.extend(out.take());
        }
    }
    while operator.on_close(&close, &mut out)? == Progress::More {
        found.extend(out.take());
    }
    found.extend(out.take());
    Ok(concat_batches(&custom.schema, &found)?)
}

/// Writes rows as text without their weight, each as often as it is there; of rows without a weight all are.
pub(crate) fn result_lines(batch: &RecordBatch) -> Vec<String> {
    let Some(weight) = weight_of(batch.schema_ref()) else {
        return lines(batch);
    };
    let weights = batch.column(weight).as_primitive::<Int64Type>();
    let values: Vec<usize> = (0..weight).collect();
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for (line, weight) in lines(&batch.project(&values).unwrap())
        .into_iter()
        .zip(weights.values())
    {
        *counts.entry(line).or_default() += weight;
    }
    let times = |(line, count): (String, i64)| {
        assert!(count >= 0, "{line} is taken out {} times too often", -count);
        std::iter::repeat_n(line, count as usize)
    };
    counts.into_iter().flat_map(times).collect()
}

/// Groups row by row, the keys as text in order. Of a changelog only the rows that are left count.
fn run_group_aggregate(spec: &GroupAggregate, batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let texts = lines(batch);
    let mut left: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    let weight = weight_of(batch.schema_ref());
    for (row, text) in texts.iter().enumerate() {
        let (text, weight) = match weight {
            Some(weight) => {
                let text = text.rsplit_once('|').map_or("", |(values, _)| values);
                (
                    text.to_owned(),
                    batch.column(weight).as_primitive::<Int64Type>().value(row),
                )
            }
            None => (format!("{row}"), 1),
        };
        left.entry(text).or_insert((row as i64, 0)).1 += weight;
    }
    let rows = left.into_values();
    let rows: Vec<i64> = rows
        .flat_map(|(row, count)| std::iter::repeat_n(row, count as usize))
        .collect();
    let batch = &arrow::compute::take_record_batch(batch, &Int64Array::from(rows))?;
    let keys = lines(&batch.project(&spec.keys)?);
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (row, key) in keys.into_iter().enumerate() {
        groups.entry(key).or_default().push(row);
    }
    let firsts = Int64Array::from_iter_values(groups.values().map(|rows| rows[0] as i64));
    let mut group_of = vec![0u32; batch.num_rows()];
    for (group, rows) in groups.values().enumerate() {
        rows.iter().for_each(|row| group_of[*row] = group as u32);
    }
    let mut columns = Vec::new();
    for key in &spec.keys {
        columns.push(arrow::compute::take(batch.column(*key), &firsts, None)?);
    }
    columns.extend(run_calls(&spec.aggregates, batch, &group_of, groups.len())?);
    if weight_of(schema).is_some() {
        columns.push(Arc::new(Int64Array::from_value(1, groups.len())));
    }
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// Aggregates rows by the number of their group.
fn run_calls(calls: &[AggregateCall], batch: &RecordBatch, group_of: &[u32], groups: usize) -> Result<Vec<ArrayRef>> {
    let all: Vec<u32> = (0..groups as u32).collect();
    let run = |call: &AggregateCall| {
        let mut accumulator = call.function.accumulator();
        accumulator.resize(groups);
        let arguments: Vec<ArrayRef> = call
            .arguments
            .iter()
            .map(|column| Arc::clone(batch.column(*column)))
            .collect();
        let filter = call.filter.map(|column| batch.column(column).as_boolean());
        accumulator.update(&arguments, group_of, filter)?;
        accumulator.evaluate(&all)
    };
    calls.iter().map(run).collect()
}

/// Leaves out the fields of rows that are not in the type, as connectors do.
fn narrowed(column: &ArrayRef, data_type: &DataType) -> ArrayRef {
    let DataType::Struct(fields) = data_type else {
        return Arc::clone(column);
    };
    let rows = column.as_struct();
    let part = |field: &arrow::datatypes::FieldRef| {
        narrowed(
            rows.column_by_name(field.name()).expect("a field of the row"),
            field.data_type(),
        )
    };
    let columns = fields.iter().map(part).collect();
    Arc::new(StructArray::new(fields.clone(), columns, rows.nulls().cloned()))
}

/// Writes rows as text, the columns separated by `|`.
pub(crate) fn lines(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::new().with_null("NULL");
    let columns: Vec<ArrayFormatter<'_>> = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap())
        .collect();
    let row = |row| {
        columns
            .iter()
            .map(|column| column.value(row).to_string())
            .collect::<Vec<_>>()
            .join("|")
    };
    (0..batch.num_rows()).map(row).collect()
}

fn run_calc(calc: &Calc, batch: &RecordBatch, context: &EvalContext) -> Result<RecordBatch> {
    let kept = match &calc.predicate {
        Some(predicate) => {
            let mask = predicate.evaluate(batch, context)?;
            let mask: BooleanArray = mask
                .as_boolean()
                .iter()
                .map(|value| Some(value == Some(true)))
                .collect();
            filter_record_batch(batch, &mask)?
        }
        None => batch.clone(),
    };
    let columns = calc
        .outputs
        .iter()
        .map(|(_, expr)| expr.evaluate(&kept, context))
        .collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(calc.schema(), columns)?)
}

/// Groups row by row: the windows in order, and in them the keys as text. A row that is in several windows is there as
/// often.
fn run_aggregate(spec: &WindowAggregate, batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let (rows, windows) = windows_of(spec, batch)?;
    let (starts, ends): (Vec<i64>, Vec<i64>) = windows.into_iter().unzip();
    let batch = &arrow::compute::take_record_batch(batch, &Int64Array::from(rows))?;
    let options = FormatOptions::new().with_null("NULL");
    let keys: Vec<ArrayRef> = spec.keys.iter().map(|key| Arc::clone(batch.column(*key))).collect();
    let mut groups: BTreeMap<(i64, i64, Vec<String>), Vec<usize>> = BTreeMap::new();
    for (row, start) in starts.iter().enumerate() {
        let text = |key: &ArrayRef| {
            ArrayFormatter::try_new(key.as_ref(), &options)
                .unwrap()
                .value(row)
                .to_string()
        };
        groups
            .entry((*start, ends[row], keys.iter().map(text).collect()))
            .or_default()
            .push(row);
    }
    let firsts: Vec<usize> = groups.values().map(|rows| rows[0]).collect();
    let mut group_of = vec![0u32; batch.num_rows()];
    for (group, rows) in groups.values().enumerate() {
        rows.iter().for_each(|row| group_of[*row] = group as u32);
    }
    let take = |column: &ArrayRef| {
        let indexes = Int64Array::from_iter_values(firsts.iter().map(|row| *row as i64));
        arrow::compute::take(column, &indexes, None)
    };
    let mut columns: Vec<ArrayRef> = keys.iter().map(take).collect::<Result<Vec<_>, _>>()?;
    for times in [&starts, &ends] {
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter_values(
            firsts.iter().map(|row| times[*row]),
        ));
        columns.push(cast(&times, schema.field(columns.len()).data_type())?);
    }
    columns.extend(run_calls(&spec.aggregates, batch, &group_of, groups.len())?);
    if weight_of(schema).is_some() {
        columns.push(Arc::new(Int64Array::from_value(1, groups.len())));
    }
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// Returns each row with each of its windows.
fn windows_of(spec: &WindowAggregate, batch: &RecordBatch) -> Result<(Vec<i64>, Vec<(i64, i64)>)> {
    let ms = |column: usize| cast(batch.column(column), &DataType::Timestamp(TimeUnit::Millisecond, None));
    let values = |column: usize| {
        let ms = cast(&ms(column)?, &DataType::Int64)?;
        Ok::<_, Error>(ms.as_primitive::<Int64Type>().values().to_vec())
    };
    let down = |time: i64, unit: i64, offset: i64| time - (time - offset).rem_euclid(unit);
    let each = |time: usize, windows: &dyn Fn(i64) -> Vec<(i64, i64)>| -> Result<_> {
        let times = values(time)?;
        let rows = times.iter().enumerate();
        Ok(rows
            .flat_map(|(row, time)| windows(*time).into_iter().map(move |window| (row as i64, window)))
            .unzip())
    };
    match spec.window {
        WindowAssigner::Tumble {
            time,
            size_ms,
            offset_ms,
        } => each(time, &|t| {
            let start = down(t, size_ms, offset_ms);
            vec![(start, start + size_ms)]
        }),
        WindowAssigner::Hop {
            time,
            size_ms,
            slide_ms,
            offset_ms,
        } => each(time, &|t| {
            let last = down(t, slide_ms, offset_ms);
            let starts = (0..)
                .map(|n| last - n * slide_ms)
                .take_while(|start| start + size_ms > t);
            starts.map(|start| (start, start + size_ms)).collect()
        }),
        WindowAssigner::Cumulate {
            time,
            size_ms,
            step_ms,
            offset_ms,
        } => each(time, &|t| {
            let start = down(t, size_ms, offset_ms);
            let ends = (1..=size_ms / step_ms).map(|n| start + n * step_ms);
            ends.filter(|end| *end > t).map(|end| (start, end)).collect()
        }),
        WindowAssigner::Session { time, gap_ms } => {
            let options = FormatOptions::new().with_null("NULL");
            let mut by_key: BTreeMap<Vec<String>, Vec<(i64, i64)>> = BTreeMap::new();
            for (row, time) in values(time)?.into_iter().enumerate() {
                let text = |key: &usize| {
                    let key = ArrayFormatter::try_new(batch.column(*key).as_ref(), &options).unwrap();
                    key.value(row).to_string()
                };
                let key = spec.keys.iter().map(text).collect();
                by_key.entry(key).or_default().push((time, row as i64));
            }
            let (mut rows, mut windows) = (Vec::new(), Vec::new());
            for mut times in by_key.into_values() {
                times.sort_unstable();
                for session in times.chunk_by(|(a, _), (b, _)| b - a <= gap_ms) {
                    let window = (session[0].0, session[session.len() - 1].0 + gap_ms);
                    rows.extend(session.iter().map(|(_, row)| *row));
                    windows.extend(session.iter().map(|_| window));
                }
            }
            Ok((rows, windows))
        }
        WindowAssigner::Attached { start, end } => {
            let windows = values(start)?.into_iter().zip(values(end)?).collect();
            Ok(((0..batch.num_rows() as i64).collect(), windows))
        }
    }
}

/// Makes the rows of a table from CSV text without header.
pub(crate) fn rows(schema: &[(&str, DataType)], csv: &str) -> RecordBatch {
    let fields: Vec<_> = schema
        .iter()
        .map(|(n, t)| arrow::datatypes::Field::new(*n, t.clone(), true))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let mut reader = arrow::csv::ReaderBuilder::new(Arc::clone(&schema))
        .with_null_regex("^NULL$".parse().unwrap())
        .with_batch_size(10_000)
        .build(std::io::Cursor::new(csv.trim()))
        .unwrap();
    reader
        .next()
        .map_or_else(|| RecordBatch::new_empty(schema), |batch| batch.unwrap())
}

/// Some bids.
pub(crate) fn bids() -> RecordBatch {
    let schema = [
        ("auction", DataType::Int64),
        ("bidder", DataType::Int64),
        ("price", DataType::Int32),
        ("channel", DataType::Utf8),
        ("fee", DataType::Decimal128(10, 2)),
        ("rate", DataType::Float64),
        ("ts", DataType::Timestamp(TimeUnit::Millisecond, None)),
    ];
    rows(
        &schema,
        "1,10,100,web,1.50,0.5,2026-01-01T00:00:00
1,11,200,app,2.25,0.25,2026-01-01T00:00:01
2,10,50,web,0.10,NULL,2026-01-01T00:00:04.999
2,12,NULL,NULL,NULL,1.5,2026-01-01T00:00:05
1,10,300,web,9.99,2.0,2026-01-01T00:00:07
3,13,-7,App,0.00,0.0,2026-01-01T00:00:12",
    )
}

/// Runs a query over the bids with the columns of `out` as declared, and gives the rows of `out`.
pub(crate) fn query(columns: &str, select: &str) -> Vec<String> {
    run_query(columns, select).unwrap_or_else(|error| panic!("{error}"))
}

fn run_query(columns: &str, select: &str) -> Result<Vec<String>> {
    let sql = format!("{BIDS}CREATE TABLE out ({columns}) WITH ('connector' = 'test');\nINSERT INTO out {select};");
    let sinks = run(&job(&sql).graph, &BTreeMap::from([("bids", bids())]))?;
    Ok(sinks["out"].clone())
}
