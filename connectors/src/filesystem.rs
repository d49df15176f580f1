//! The connector `filesystem`: reads files, bounded or watching a folder, and writes files that appear with their
//! checkpoint.
//!
//! ```text
//!  path ── enumerator ── one split a file ── lines / parquet_file: read ahead, decode ──▶ batches
//!  batches ── writer: partition, encode ── disk task ── .tidemill/<sink>/…-w0-0.json ── committer ──▶ part-...json
//! ```
//! `options` says what `WITH` may hold, `listing` finds files, `enumerator` makes splits of them, `position` writes
//! down how far one was read, `framing` finds where records end, `partition` is about `key=value` folders, `names`
//! formats every file name, `storage` is all that touches the disk to write.

mod committer;
mod disk;
mod encoder;
mod enumerator;
mod framing;
mod lines;
mod listing;
mod names;
mod options;
mod parquet_file;
mod partition;
mod position;
mod storage;
#[cfg(test)]
mod tests;
mod writer;

use crate::environment::ConnectorEnvironment;
use crate::error::ConnectorError;
use crate::formats::RecordFormat;
use crate::formats::assembler::{Layout, check_readable};
use crate::table::{PartitionColumns, TableDefinition};
use arrow::datatypes::DataType;
use committer::FileCommitter;
use encoder::FileFormat;
use enumerator::FileEnumerator;
use lines::LineReader;
use options::FileOptions;
use parquet_file::ParquetReader;
use partition::Constants;
use position::FilePosition;
use std::path::PathBuf;
use std::sync::Arc;
use tidemill_engine::sink::{CommitterContext, DeliveryGuarantee, Sink, SinkCommitter, SinkContext, SinkWriter};
use tidemill_engine::source::{Source, Split, SplitContext, SplitEnumerator, SplitReader};
use tidemill_engine::{Error, Result};
use writer::FileWriter;

/// Flink's metadata keys that are told of files.
const METADATA: [&str; 3] = ["file.path", "file.name", "file.size"];

/// Checks that a table can be read.
///
/// # Errors
/// When it cannot.
pub(crate) fn check_source(table: &TableDefinition) -> Result<(), ConnectorError> {
    let options = FileOptions::parse(table)?;
    for metadata in &table.metadata_columns {
        let Some(field) = table.schema.field_with_name(&metadata.column).ok() else {
            continue;
        };
        let fits = match metadata.key.as_str() {
            "file.size" => *field.data_type() == DataType::Int64,
            _ => matches!(
                field.data_type(),
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
            ),
        };
        if !METADATA.contains(&metadata.key.as_str()) {
            let message = format!("column {}: there is no metadata '{}'", metadata.column, metadata.key);
            return Err(ConnectorError::new(message).with_hint(format!("there are {}", METADATA.join(", "))));
        }
        if !fits {
            let wanted = if metadata.key == "file.size" {
                "BIGINT"
            } else {
                "STRING"
            };
            let message = format!(
                "column {}: the metadata '{}' is {wanted}",
                metadata.column, metadata.key
            );
            return Err(ConnectorError::new(message));
        }
    }
    Constants::check(table)?;
    match &options.format {
        FileFormat::Records(format) => check_readable(table, format, PartitionColumns::InPath),
        FileFormat::Parquet(_) => Ok(()),
    }
}

/// Checks that a table can be written.
///
/// # Errors
/// When it cannot.
pub(crate) fn check_sink(table: &TableDefinition) -> Result<(), ConnectorError> {
    let options = FileOptions::parse(table)?;
    if listing::is_glob(&options.path) {
        return Err(ConnectorError::option(
            "path",
            "a sink writes into one folder: the path must not be a pattern",
        ));
    }
    if table.weight().is_some() && !matches!(options.format, FileFormat::Records(RecordFormat::DebeziumJson(_))) {
        return Err(crate::sinks::only_added_to(
            "write changes with 'format' = 'debezium-json'",
        ));
    }
    Constants::check(table)?;
    options
        .format
        .check_writable(&table.record_schema(PartitionColumns::InPath))
}

/// Makes the error of a source.
fn source_error(table: &str, message: impl std::fmt::Display) -> Error {
    Error::Source {
        table: table.to_owned(),
        message: message.to_string(),
    }
}

/// Makes the error of a sink.
fn sink_error(sink: &str, message: impl std::fmt::Display) -> Error {
    Error::Sink {
        sink: sink.to_owned(),
        message: message.to_string(),
    }
}

/// The source.
pub(crate) struct FileSource {
    table: Arc<TableDefinition>,
    options: FileOptions,
    path: PathBuf,
    layout: Arc<Layout>,
}

impl FileSource {
    /// Makes the source of some of a table's columns.
    ///
    /// # Errors
    /// When the options are not valid.
    pub(crate) fn new(
        table: &TableDefinition,
        projection: &[usize],
        env: &ConnectorEnvironment,
    ) -> Result<Self, ConnectorError> {
        check_source(table)?;
        let options = FileOptions::parse(table)?;
        Ok(Self {
            path: options.resolve(env),
            options,
            layout: Arc::new(Layout::new(table, projection, PartitionColumns::InPath)?),
            table: Arc::new(table.clone()),
        })
    }
}

#[async_trait::async_trait]
impl Source for FileSource {
    async fn check(&self) -> Result<()> {
        let path = self.path.clone();
        match tokio::task::spawn_blocking(move || listing::check(&path)).await {
            Ok(checked) => checked.map_err(|message| source_error(&self.table.name, message).permanent()),
            Err(error) => Err(source_error(&self.table.name, error)),
        }
    }

    fn enumerator(&self) -> Result<Box<dyn SplitEnumerator>> {
        let (name, path) = (self.table.name.clone(), self.path.clone());
        Ok(Box::new(FileEnumerator::new(
            name,
            path,
            self.options.monitor_interval,
            self.options.format.kind(),
        )))
    }

    fn open_split(&self, split: &Split, context: SplitContext) -> Result<Box<dyn SplitReader>> {
        let error = |message: String| source_error(&self.table.name, message);
        let position = FilePosition::parse(&split.position).map_err(error)?;
        let path = PathBuf::from(&split.id.0);
        let constants = Constants::of_file(&self.table, &self.options, &path, position.size).map_err(error)?;
        let layout = Arc::clone(&self.layout);
        match &self.options.format {
            FileFormat::Records(format) => {
                let decoder = format.decoder(layout.record()).map_err(|e| error(e.to_string()))?;
                let reader = LineReader::open(path, position, format, decoder, layout, constants, context);
                Ok(Box::new(reader))
            }
            FileFormat::Parquet(_) => Ok(Box::new(ParquetReader::open(
                path, position, layout, constants, context,
            ))),
        }
    }
}

/// The sink.
pub(crate) struct FileSink {
    table: Arc<TableDefinition>,
    options: Arc<FileOptions>,
    path: PathBuf,
}

impl FileSink {
    /// Makes the sink of a table.
    ///
    /// # Errors
    /// When the options are not valid.
    pub(crate) fn new(table: &TableDefinition, env: &ConnectorEnvironment) -> Result<Self, ConnectorError> {
        check_sink(table)?;
        let options = FileOptions::parse(table)?;
        Ok(Self {
            path: options.resolve(env),
            options: Arc::new(options),
            table: Arc::new(table.clone()),
        })
    }
}

impl Sink for FileSink {
    fn guarantee(&self) -> DeliveryGuarantee {
        DeliveryGuarantee::ExactlyOnce
    }

    fn writer(&self, context: SinkContext) -> Result<Box<dyn SinkWriter>> {
        let writer = FileWriter::new(
            Arc::clone(&self.table),
            Arc::clone(&self.options),
            self.path.clone(),
            context,
        );
        Ok(Box::new(writer?))
    }

    fn committer(&self, context: CommitterContext) -> Result<Option<Arc<dyn SinkCommitter>>> {
        Ok(Some(Arc::new(FileCommitter::new(
            self.table.name.clone(),
            self.path.clone(),
            &context,
        ))))
    }
}
