//! Asks a table of an SQLite database. The file is opened for reading only.

use super::super::Wanted;
use crate::error::ConnectorError;
use crate::formats::columns::{ColumnBuilder, TextOptions, builders};
use crate::formats::record_error::RecordError;
use crate::formats::time_text::TimestampStandard;
use crate::formats::values::TextColumn;
use crate::table::TableDefinition;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use futures::FutureExt as _;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OpenFlags, params_from_iter};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidemill_engine::lookup::{LookupFuture, LookupSource};
use tidemill_engine::{Error, Result};

/// Values in one statement at most; SQLite takes 32,766.
const PARAMETERS_MAX: usize = 900;
/// Rows of a batch when the table is read whole.
const BATCH_ROWS: usize = 65_536;
/// How long to wait while somebody writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A table of a database.
pub(super) struct SqliteTable(Arc<Inner>);

struct Inner {
    table: String,
    path: PathBuf,
    schema: SchemaRef,
    /// `SELECT ... FROM ...`.
    select: String,
    /// The key columns as SQL knows them.
    keys: Vec<String>,
    /// `None` until somebody asks, and after an error.
    connection: Mutex<Option<Connection>>,
}

impl SqliteTable {
    /// Prepares to ask; nothing is opened.
    ///
    /// # Errors
    /// When the projection is beyond the table.
    pub(super) fn new(
        table: &TableDefinition,
        wanted: Wanted<'_>,
        path: PathBuf,
        table_name: &[String],
    ) -> Result<Self, ConnectorError> {
        let schema = table.project(wanted.projection)?;
        // With the table's name before it a column that does not exist is an error; alone, SQLite would take it for a text.
        let column = |name: &str| format!("t.{}", quoted(name));
        let columns: Vec<String> = schema.fields().iter().map(|field| column(field.name())).collect();
        let from: Vec<String> = table_name.iter().map(|name| quoted(name)).collect();
        Ok(Self(Arc::new(Inner {
            table: table.name.clone(),
            path,
            select: format!("SELECT {} FROM {} AS t", columns.join(", "), from.join(".")),
            keys: wanted
                .keys
                .iter()
                .map(|key| column(table.schema.field(*key).name()))
                .collect(),
            schema,
            connection: Mutex::default(),
        })))
    }

    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner, &Connection) -> Result<T, String> + Send + 'static,
    ) -> LookupFuture<T> {
        let inner = Arc::clone(&self.0);
        async move {
            let (table, path) = (inner.table.clone(), inner.path.clone());
            let worked = tokio::task::spawn_blocking(move || inner.with_connection(|open| work(&inner, open))).await;
            let worked = worked.map_err(|error| Error::Internal(format!("asking SQLite ended: {error}")))?;
            worked.map_err(|message| Error::Source {
                table,
                message: format!("{}: {message}", path.display()),
            })
        }
        .boxed()
    }
}

impl LookupSource for SqliteTable {
    fn lookup(&self, keys: RecordBatch) -> LookupFuture<RecordBatch> {
        self.run(move |inner, connection| inner.lookup(connection, &keys))
    }

    fn load(&self) -> LookupFuture<Vec<RecordBatch>> {
        self.run(|inner, connection| {
            let mut rows = Vec::new();
            inner.select(connection, &inner.select, Vec::new(), &mut rows)?;
            Ok(rows)
        })
    }
}

impl Inner {
    fn with_connection<T>(&self, work: impl FnOnce(&Connection) -> Result<T, String>) -> Result<T, String> {
        let mut slot = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = match slot.take() {
            Some(connection) => connection,
            None => open(&self.path)?,
        };
        let worked = work(&connection);
        // After an error the file is opened anew: it may be another one by now.
        *slot = worked.is_ok().then_some(connection);
        worked
    }

    fn lookup(&self, connection: &Connection, keys: &RecordBatch) -> Result<RecordBatch, String> {
        let columns = keys.columns().iter().map(key_values).collect::<Result<Vec<_>, _>>()?;
        let at_once = (PARAMETERS_MAX / columns.len().max(1)).max(1);
        let mut found = Vec::new();
        for first in (0..keys.num_rows()).step_by(at_once) {
            let rows = first..(first + at_once).min(keys.num_rows());
            let key = match columns.len() {
                1 => "?".to_owned(),
                count => format!("({})", vec!["?"; count].join(", ")),
            };
            let list = vec![key; rows.len()].join(", ");
            let condition = match self.keys.as_slice() {
                [column] => format!("{column} IN ({list})"),
                columns => format!("({}) IN (VALUES {list})", columns.join(", ")),
            };
            let values = rows.flat_map(|row| columns.iter().map(move |column| column[row].clone()));
            let statement = format!("{} WHERE {condition}", self.select);
            self.select(connection, &statement, values.collect(), &mut found)?;
        }
        arrow::compute::concat_batches(&self.schema, &found).map_err(|error| error.to_string())
    }

    fn select(
        &self,
        connection: &Connection,
        statement: &str,
        values: Vec<Value>,
        found: &mut Vec<RecordBatch>,
    ) -> Result<(), String> {
        let error = |error: rusqlite::Error| error.to_string();
        let mut columns = builders(self.schema.fields(), TextOptions::default()).map_err(|error| error.to_string())?;
        let mut statement = connection.prepare(statement).map_err(error)?;
        let mut rows = statement.query(params_from_iter(values)).map_err(error)?;
        let mut count = 0;
        while let Some(row) = rows.next().map_err(error)? {
            for (index, column) in columns.iter_mut().enumerate() {
                let value = row.get_ref(index).map_err(error)?;
                let field = self.schema.field(index);
                append(column, field.data_type(), value).map_err(|error| error.within(field.name()).to_string())?;
            }
            count += 1;
            if count == BATCH_ROWS {
                found.push(self.finish(&mut columns)?);
                count = 0;
            }
        }
        if count > 0 {
            found.push(self.finish(&mut columns)?);
        }
        Ok(())
    }

    fn finish(&self, columns: &mut [ColumnBuilder]) -> Result<RecordBatch, String> {
        let arrays = columns
            .iter_mut()
            .map(ColumnBuilder::finish)
            .collect::<Result<Vec<_>, _>>();
        arrays
            .and_then(|arrays| RecordBatch::try_new(Arc::clone(&self.schema), arrays))
            .map_err(|error| error.to_string())
    }
}

fn open(path: &Path) -> Result<Connection, String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| error.to_string())?;
    connection
        .busy_timeout(BUSY_TIMEOUT)
        .map_err(|error| error.to_string())?;
    Ok(connection)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Returns the values of a key column, none of which is null.
fn key_values(column: &ArrayRef) -> Result<Vec<Value>, String> {
    let rows = 0..column.len();
    Ok(match column.data_type() {
        DataType::Boolean => {
            let values = column.as_boolean();
            rows.map(|row| Value::Integer(i64::from(values.value(row)))).collect()
        }
        DataType::Float32 | DataType::Float64 => {
            let values = cast(column, &DataType::Float64).map_err(|error| error.to_string())?;
            let values = values.as_primitive::<Float64Type>();
            rows.map(|row| Value::Real(values.value(row))).collect()
        }
        DataType::Binary | DataType::LargeBinary => {
            let values = cast(column, &DataType::LargeBinary).map_err(|error| error.to_string())?;
            let values = values.as_binary::<i64>();
            rows.map(|row| Value::Blob(values.value(row).to_vec())).collect()
        }
        data_type => {
            let is_integer = data_type.is_integer();
            let values = TextColumn::new(column).map_err(|error| error.to_string())?;
            let mut text = Vec::new();
            let mut made = Vec::with_capacity(column.len());
            for row in rows {
                text.clear();
                values.write(row, TimestampStandard::Sql, &mut text);
                let text = String::from_utf8_lossy(&text).into_owned();
                made.push(match text.parse() {
                    Ok(number) if is_integer => Value::Integer(number),
                    _ => Value::Text(text),
                });
            }
            made
        }
    })
}

/// Appends a value of whatever type SQLite has for it; values have types there, not columns.
fn append(column: &mut ColumnBuilder, wanted: &DataType, value: ValueRef<'_>) -> Result<(), RecordError> {
    match (value, wanted) {
        (ValueRef::Null, _) => column.append_null(),
        (ValueRef::Integer(value @ (0 | 1)), DataType::Boolean) => column.append_bool(value == 1),
        (ValueRef::Integer(value), _) => column.append_number(&value.to_string()),
        (ValueRef::Real(value), _) => column.append_number(&format!("{value:?}")),
        (ValueRef::Text(text), DataType::Binary | DataType::LargeBinary) => column.append_bytes(text),
        (ValueRef::Text(text), _) => match std::str::from_utf8(text) {
            Ok(text) => column.append_text(text),
            Err(error) => Err(RecordError::new(format!("is not UTF-8: {error}"))),
        },
        (ValueRef::Blob(bytes), _) => column.append_bytes(bytes),
    }
}

#[cfg(test)]
mod tests;
