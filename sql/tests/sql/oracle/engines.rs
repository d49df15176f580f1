//! Runs a query on our engine and on the oracle.

use super::data::{Data, TABLES};
use super::queries::Query;
use crate::sql::support::lines;
use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tidemill_connectors::{ConnectorError, TableDefinition};
use tidemill_engine::job::{JobConfig, start};
use tidemill_engine::sink::{DeliveryGuarantee, Sink};
use tidemill_engine::source::Source;
use tidemill_engine::testing::{MemorySink, MemorySource};
use tidemill_sql::{Connectors, Plan, PlanOptions, plan_with};

/// Rows, and how often each is there.
pub(super) type Rows = BTreeMap<String, i64>;

/// The tables in memory, in two splits each; one sink.
struct Memory<'a> {
    data: &'a Data,
    cut: usize,
    sink: Mutex<Option<MemorySink>>,
}

impl Connectors for Memory<'_> {
    fn check_source(&self, _: &TableDefinition) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn check_sink(&self, _: &TableDefinition) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn create_source(&self, table: &TableDefinition, projection: &[usize]) -> Result<Arc<dyn Source>, ConnectorError> {
        let rows = if table.name == "e" { &self.data.e } else { &self.data.o };
        let projected = Arc::new(table.schema.project(projection).unwrap());
        let columns = projected.fields().iter().map(|field| {
            let column = rows.column_by_name(field.name()).unwrap();
            arrow::compute::cast(column, field.data_type()).unwrap()
        });
        let rows = RecordBatch::try_new(Arc::clone(&projected), columns.collect()).unwrap();
        // Interleaved, so that both splits cover the same time.
        let part = |parity: i64| {
            let indexes = Int64Array::from_iter_values((0..rows.num_rows() as i64).filter(|row| row % 2 == parity));
            vec![arrow::compute::take_record_batch(&rows, &indexes).unwrap()]
        };
        let splits = vec![part(0), part(1)];
        Ok(Arc::new(MemorySource::bounded(splits).with_rows_max(self.cut)))
    }

    fn create_sink(&self, _: &TableDefinition) -> Result<Arc<dyn Sink>, ConnectorError> {
        let sink = MemorySink::new(DeliveryGuarantee::AtLeastOnce);
        *self.sink.lock().unwrap() = Some(sink.clone());
        Ok(Arc::new(sink))
    }
}

/// Counts rows; a column behind those of the schema is their weight.
fn count(batches: &[RecordBatch], schema: &SchemaRef) -> Rows {
    let mut rows = Rows::new();
    for batch in batches {
        let width = schema.fields().len();
        let weights = batch
            .columns()
            .get(width)
            .map(|column| column.as_primitive::<Int64Type>().clone());
        let columns = batch.columns()[..width].iter().zip(schema.fields());
        let cast = columns.map(|(column, field)| arrow::compute::cast(column, field.data_type()).unwrap());
        let shown = RecordBatch::try_new(Arc::clone(schema), cast.collect()).unwrap();
        for (row, line) in lines(&shown).into_iter().enumerate() {
            *rows.entry(line).or_default() += weights.as_ref().map_or(1, |weights| weights.value(row));
        }
    }
    rows.retain(|_, count| *count != 0);
    rows
}

/// Runs the query on our engine.
pub(super) fn stream(
    runtime: &tokio::runtime::Runtime,
    data: &Data,
    query: &Query,
    parallelism: usize,
    cut: usize,
) -> Result<Rows, String> {
    let connectors = Memory {
        data,
        cut,
        sink: Mutex::default(),
    };
    let sql = format!(
        "{TABLES}CREATE TABLE out ({}) WITH ('connector' = 'memory');\n{}",
        query.columns, query.ours
    );
    let job = match plan_with(&sql, &connectors, &PlanOptions::default()) {
        Ok(Plan::Job(job)) => job,
        Ok(_) => return Err("planned something else".into()),
        Err(error) => return Err(format!("refused: {error}")),
    };
    let config = JobConfig {
        parallelism,
        ..JobConfig::new("oracle")
    };
    let handle = start(job.graph, config, runtime.handle()).map_err(|error| error.to_string())?;
    runtime.block_on(handle.wait()).map_err(|error| error.to_string())?;
    let sink = connectors.sink.lock().unwrap().take();
    let rows = count(&sink.ok_or("no sink was made")?.batches(), &query.schema());
    match rows.iter().find(|(_, count)| **count < 0) {
        Some((row, count)) => Err(format!("{row} is there {count} times")),
        None => Ok(rows),
    }
}

/// Asks the oracle.
pub(super) async fn batch(data: &Data, query: &Query) -> Result<Rows, String> {
    let mut config = SessionConfig::new().with_target_partitions(1);
    config.options_mut().sql_parser.parse_float_as_decimal = true;
    let context = SessionContext::new_with_config(config);
    let mut tables = vec![("e".to_owned(), data.e.clone()), ("o".to_owned(), data.o.clone())];
    for (name, windows) in &query.windows {
        tables.push((name.clone(), data.with_windows(*windows)));
    }
    for (name, rows) in tables {
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).map_err(|error| error.to_string())?;
        context
            .register_table(name, Arc::new(table))
            .map_err(|error| error.to_string())?;
    }
    let found = context.sql(&query.oracle).await.map_err(|error| error.to_string())?;
    let found = found.collect().await.map_err(|error| error.to_string())?;
    let schema = query.schema();
    Ok(count(&found, &schema))
}
