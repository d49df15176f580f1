//! The connector `jdbc`: tables of a SQL database, to be looked up. SQLite is the database there is.
//!
//! The names of the options are those of Flink's connector, the URL is that of the JDBC driver, and there is no Java.

mod sqlite;

use super::options::{CacheKind, split};
use super::{Lookup, Wanted};
use crate::environment::ConnectorEnvironment;
use crate::error::ConnectorError;
use crate::formats::columns::{ColumnBuilder, TextOptions};
use crate::options::Options;
use crate::table::TableDefinition;
use arrow::datatypes::DataType;
use std::path::PathBuf;
use std::sync::Arc;
use tidemill_engine::lookup::LookupOptions;

const SQLITE: &str = "jdbc:sqlite:";

/// What a table's options say.
#[derive(Clone, Debug)]
struct JdbcOptions {
    path: PathBuf,
    /// The table's name in the database, with that of its schema before it if there is one.
    table_name: Vec<String>,
}

/// Checks that a table can be looked up.
///
/// # Errors
/// When it cannot.
pub(crate) fn check(table: &TableDefinition, keys: &[usize]) -> Result<(), ConnectorError> {
    parse(table, keys).map(|_| ())
}

/// Makes the lookup of a table.
///
/// # Errors
/// When the options are not valid.
pub(crate) fn create(
    table: &TableDefinition,
    wanted: Wanted<'_>,
    env: &ConnectorEnvironment,
) -> Result<Lookup, ConnectorError> {
    let (options, mut jdbc) = parse(table, wanted.keys)?;
    if let Some(directory) = env.data_directory() {
        jdbc.path = directory.join(&jdbc.path);
    }
    let source = sqlite::SqliteTable::new(table, wanted, jdbc.path, &jdbc.table_name)?;
    Ok(Lookup {
        source: Arc::new(source),
        options,
    })
}

fn parse(table: &TableDefinition, keys: &[usize]) -> Result<(LookupOptions, JdbcOptions), ConnectorError> {
    let (lookup, rest) = split(table, &[CacheKind::None, CacheKind::Partial, CacheKind::Full])?;
    let options = Options::new(&rest.name, &rest.options);
    let path = path(options.required("url")?)?;
    let table_name: Vec<String> = options
        .required("table-name")?
        .splitn(2, '.')
        .map(str::to_owned)
        .collect();
    if table_name.iter().any(String::is_empty) {
        return Err(ConnectorError::option(
            "table-name",
            "must be the name of a table, such as 'rates'",
        ));
    }
    for name in ["username", "password"] {
        options.refuse(name, "SQLite has no users; leave the option out")?;
    }
    options.refuse("driver", "the driver is chosen by the url; leave the option out")?;
    options.refuse_prefix(
        "scan.",
        "a jdbc table is looked up and not scanned; leave the option out",
    )?;
    options.refuse_prefix(
        "sink.",
        "a jdbc table is looked up and not written; leave the option out",
    )?;
    options.finish()?;
    if let Some(metadata) = rest.metadata_columns.first() {
        return Err(ConnectorError::new(format!(
            "column {}: jdbc has no metadata",
            metadata.column
        )));
    }
    if !rest.partition_keys.is_empty() {
        return Err(ConnectorError::new("a jdbc table has no PARTITIONED BY"));
    }
    for field in rest.schema.fields() {
        ColumnBuilder::new(field, TextOptions::default())?;
    }
    for key in keys {
        let field = rest.schema.field(*key);
        if !is_key_type(field.data_type()) {
            let message = format!(
                "column {} of {} cannot be looked up in SQLite, which has no such type",
                field.name(),
                field.data_type()
            );
            return Err(ConnectorError::new(message).with_hint("look up by a number, a text or bytes"));
        }
    }
    Ok((lookup, JdbcOptions { path, table_name }))
}

fn path(url: &str) -> Result<PathBuf, ConnectorError> {
    match url.strip_prefix(SQLITE) {
        Some(path) if path.is_empty() || path.starts_with(':') || path.contains('?') => {
            let error = ConnectorError::option("url", format!("'{url}' names no file"));
            Err(error.with_hint("write 'jdbc:sqlite:/data/rates.db'"))
        }
        Some(path) => Ok(PathBuf::from(path)),
        None => {
            let driver = url.splitn(3, ':').take(2).collect::<Vec<_>>().join(":");
            let error = ConnectorError::option("url", format!("there is no driver for '{driver}'"));
            Err(error.with_hint("there is SQLite: 'jdbc:sqlite:/data/rates.db'"))
        }
    }
}

fn is_key_type(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(
            data_type,
            DataType::Boolean
                | DataType::Float32
                | DataType::Float64
                | DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Utf8View
                | DataType::Binary
                | DataType::LargeBinary
        )
}
