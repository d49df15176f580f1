//! Finds the connector that a table names.

use crate::blackhole::BlackholeSink;
use crate::datagen::DatagenSource;
use crate::environment::ConnectorEnvironment;
use crate::error::ConnectorError;
use crate::filesystem::{FileSink, FileSource};
use crate::kinesis::{KinesisSink, KinesisSource};
use crate::lookup::{self, Lookup, Wanted};
use crate::nexmark::NexmarkSource;
use crate::options::closest;
use crate::print::PrintSink;
use crate::table::TableDefinition;
use std::sync::Arc;
use tidemill_engine::sink::Sink;
use tidemill_engine::source::Source;

/// The connectors there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connector {
    Blackhole,
    Datagen,
    Filesystem,
    Http,
    Jdbc,
    Kinesis,
    Nexmark,
    Print,
}

const CONNECTORS: [(&str, Connector); 8] = [
    ("blackhole", Connector::Blackhole),
    ("datagen", Connector::Datagen),
    ("filesystem", Connector::Filesystem),
    ("http", Connector::Http),
    ("jdbc", Connector::Jdbc),
    ("kinesis", Connector::Kinesis),
    ("nexmark", Connector::Nexmark),
    ("print", Connector::Print),
];

/// Makes the source of a table. Its batches have exactly the columns of `projection`, indexes into the table's schema,
/// in that order.
///
/// A column that holds rows may have fewer fields in the schema than the record has: what is left out is neither
/// decoded nor made.
///
/// # Errors
/// When the options are not valid, or the environment lacks what the connector needs.
pub fn create_source(
    table: &TableDefinition,
    projection: &[usize],
    env: &ConnectorEnvironment,
) -> Result<Arc<dyn Source>, ConnectorError> {
    match find(table)? {
        Connector::Datagen => Ok(Arc::new(DatagenSource::new(table, projection, env)?)),
        Connector::Filesystem => Ok(Arc::new(FileSource::new(table, projection, env)?)),
        Connector::Kinesis => Ok(Arc::new(KinesisSource::new(table, projection, env)?)),
        Connector::Nexmark => Ok(Arc::new(NexmarkSource::new(table, projection, env)?)),
        Connector::Blackhole | Connector::Print => Err(only_a_sink(table)),
        Connector::Http | Connector::Jdbc => Err(only_looked_up(table)),
    }
}

/// Makes the sink of a table. It takes batches of the table's schema.
///
/// # Errors
/// When the options are not valid, or the environment lacks what the connector needs.
pub fn create_sink(table: &TableDefinition, env: &ConnectorEnvironment) -> Result<Arc<dyn Sink>, ConnectorError> {
    check_sink(table)?;
    match find(table)? {
        Connector::Blackhole => Ok(Arc::new(BlackholeSink)),
        Connector::Filesystem => Ok(Arc::new(FileSink::new(table, env)?)),
        Connector::Kinesis => Ok(Arc::new(KinesisSink::new(table, env)?)),
        Connector::Print => Ok(Arc::new(PrintSink::new(table)?)),
        Connector::Datagen | Connector::Nexmark => Err(only_a_source(table)),
        Connector::Http | Connector::Jdbc => Err(only_looked_up(table)),
    }
}

/// Checks that a table can be read: every option is known and valid. Does no I/O.
///
/// # Errors
/// When it cannot.
pub fn check_source(table: &TableDefinition) -> Result<(), ConnectorError> {
    match find(table)? {
        Connector::Datagen => crate::datagen::check(table),
        Connector::Filesystem => crate::filesystem::check_source(table),
        Connector::Kinesis => crate::kinesis::check_source(table),
        Connector::Nexmark => crate::nexmark::check(table),
        Connector::Blackhole | Connector::Print => Err(only_a_sink(table)),
        Connector::Http | Connector::Jdbc => Err(only_looked_up(table)),
    }
}

/// Checks that a table can be written: every option is known and valid. Does no I/O.
///
/// # Errors
/// When it cannot.
pub fn check_sink(table: &TableDefinition) -> Result<(), ConnectorError> {
    let connector = find(table)?;
    if !matches!(connector, Connector::Datagen | Connector::Nexmark)
        && let Some(metadata) = table.metadata_columns.first()
    {
        let message = format!(
            "column {} is filled by the connector and cannot be written",
            metadata.column
        );
        return Err(ConnectorError::new(message).with_hint("leave it out of the sink's table"));
    }
    match connector {
        Connector::Blackhole => crate::blackhole::check(table),
        Connector::Filesystem => crate::filesystem::check_sink(table),
        Connector::Kinesis => crate::kinesis::check_sink(table),
        Connector::Print => PrintSink::new(table).map(|_| ()),
        Connector::Datagen | Connector::Nexmark => Err(only_a_source(table)),
        Connector::Http | Connector::Jdbc => Err(only_looked_up(table)),
    }
}

/// Makes what looks rows of a table up by the columns `keys`; it answers exactly the columns of `projection`. Both are
/// indexes into the table's schema, and the keys are in the projection.
///
/// # Errors
/// When the options are not valid, or the table cannot be looked up by these columns.
pub fn create_lookup(
    table: &TableDefinition,
    projection: &[usize],
    keys: &[usize],
    env: &ConnectorEnvironment,
) -> Result<Lookup, ConnectorError> {
    let connector = find(table)?;
    let wanted = Wanted { projection, keys };
    wanted.check(table)?;
    match connector {
        Connector::Filesystem => lookup::file::create(table, wanted, env),
        #[cfg(feature = "http")]
        Connector::Http => lookup::http::create(table, wanted),
        #[cfg(not(feature = "http"))]
        Connector::Http => Err(without_http()),
        #[cfg(feature = "sqlite")]
        Connector::Jdbc => lookup::jdbc::create(table, wanted, env),
        #[cfg(not(feature = "sqlite"))]
        Connector::Jdbc => Err(without_sqlite()),
        _ => Err(not_looked_up(table)),
    }
}

/// Checks that a table can be looked up by the columns `keys`, indexes into its schema. Does no I/O.
///
/// # Errors
/// When it cannot.
pub fn check_lookup(table: &TableDefinition, keys: &[usize]) -> Result<(), ConnectorError> {
    let connector = find(table)?;
    let all: Vec<usize> = (0..table.schema.fields().len()).collect();
    Wanted { projection: &all, keys }.check(table)?;
    match connector {
        Connector::Filesystem => lookup::file::check(table),
        #[cfg(feature = "http")]
        Connector::Http => lookup::http::check(table, keys),
        #[cfg(not(feature = "http"))]
        Connector::Http => Err(without_http()),
        #[cfg(feature = "sqlite")]
        Connector::Jdbc => lookup::jdbc::check(table, keys),
        #[cfg(not(feature = "sqlite"))]
        Connector::Jdbc => Err(without_sqlite()),
        _ => Err(not_looked_up(table)),
    }
}

fn find(table: &TableDefinition) -> Result<Connector, ConnectorError> {
    table.check_columns()?;
    let Some(name) = table.options.get("connector") else {
        let error = ConnectorError::option("connector", format!("table {} names no connector", table.name));
        return Err(error.with_hint(format!("there are {}", names())));
    };
    if let Some((_, connector)) = CONNECTORS.iter().find(|(known, _)| known == name) {
        return Ok(*connector);
    }
    let error = ConnectorError::option("connector", format!("there is no connector '{name}'"));
    Err(match closest(name, CONNECTORS.iter().map(|(known, _)| *known)) {
        _ if name == "firehose" => error.with_hint("delivery streams cannot be read; read the stream behind them"),
        _ if name == "kinesis-legacy" => error.with_hint("use 'kinesis'"),
        Some(near) => error.with_hint(format!("did you mean '{near}'?")),
        None => error.with_hint(format!("there are {}", names())),
    })
}

fn names() -> String {
    CONNECTORS.map(|(name, _)| name).join(", ")
}

fn only_a_sink(table: &TableDefinition) -> ConnectorError {
    let name = table.options.get("connector").map_or("", String::as_str);
    ConnectorError::option("connector", format!("'{name}' can only be written to, not read"))
}

fn only_a_source(table: &TableDefinition) -> ConnectorError {
    let name = table.options.get("connector").map_or("", String::as_str);
    ConnectorError::option("connector", format!("'{name}' can only be read, not written to"))
}

fn not_looked_up(table: &TableDefinition) -> ConnectorError {
    let name = table.options.get("connector").map_or("", String::as_str);
    let error = ConnectorError::option(
        "connector",
        format!("'{name}' cannot be looked up, as FOR SYSTEM_TIME AS OF asks"),
    );
    error.with_hint("'filesystem', 'http' and 'jdbc' can")
}

fn only_looked_up(table: &TableDefinition) -> ConnectorError {
    let name = table.options.get("connector").map_or("", String::as_str);
    let error = ConnectorError::option("connector", format!("'{name}' can only be looked up"));
    error.with_hint("write stream JOIN table FOR SYSTEM_TIME AS OF stream.p ON stream.key = table.key")
}

#[cfg(not(feature = "http"))]
fn without_http() -> ConnectorError {
    ConnectorError::option("connector", "this program was built without HTTP")
        .with_hint("build it with the feature 'http'")
}

#[cfg(not(feature = "sqlite"))]
fn without_sqlite() -> ConnectorError {
    ConnectorError::option("connector", "this program was built without SQLite")
        .with_hint("build it with the feature 'sqlite'")
}
