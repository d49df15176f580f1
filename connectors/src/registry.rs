//! Finds the connector that a table names.

use crate::environment::ConnectorEnvironment;
use crate::error::ConnectorError;
use crate::table::TableDefinition;
use std::sync::Arc;
use tidemill_engine::sink::Sink;
use tidemill_engine::source::Source;

/// Makes the source of a table. Its batches have exactly the columns of `projection`, indexes into the table's schema,
/// in that order.
///
/// # Errors
/// When the options are not valid, or the environment lacks what the connector needs.
pub fn create_source(
    table: &TableDefinition,
    projection: &[usize],
    env: &ConnectorEnvironment,
) -> Result<Arc<dyn Source>, ConnectorError> {
    let _ = (projection, env);
    Err(unknown_connector(table))
}

/// Makes the sink of a table. It takes batches of the table's schema.
///
/// # Errors
/// When the options are not valid, or the environment lacks what the connector needs.
pub fn create_sink(table: &TableDefinition, env: &ConnectorEnvironment) -> Result<Arc<dyn Sink>, ConnectorError> {
    let _ = env;
    Err(unknown_connector(table))
}

/// Checks that a table can be read: every option is known and valid. Does no I/O.
///
/// # Errors
/// When it cannot.
pub fn check_source(table: &TableDefinition) -> Result<(), ConnectorError> {
    Err(unknown_connector(table))
}

/// Checks that a table can be written: every option is known and valid. Does no I/O.
///
/// # Errors
/// When it cannot.
pub fn check_sink(table: &TableDefinition) -> Result<(), ConnectorError> {
    Err(unknown_connector(table))
}

fn unknown_connector(table: &TableDefinition) -> ConnectorError {
    match table.options.get("connector") {
        None => ConnectorError::option("connector", format!("table {} names no connector", table.name)),
        Some(name) => ConnectorError::option("connector", format!("there is no connector '{name}'")),
    }
}
