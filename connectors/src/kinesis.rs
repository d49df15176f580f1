//! The connector `kinesis`: reads and writes streams of the shard store.
//!
//! ```text
//!  shard ── prefetch task ── bounded queue ── reader: decode ──▶ batches
//!  batches ── writer: encode, partition key ── outbox task ── stage or put ──▶ stream
//!                                      committer ── publish ──┘
//! ```
//! A split is a shard. `options` says what `WITH` may hold, `position` how positions are written down, `enumerator`
//! finds shards, `reader` reads one, `writer`, `outbox` and `committer` are the sink, `partitioner` its keys.

mod committer;
mod enumerator;
mod options;
mod outbox;
mod partitioner;
mod position;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use crate::environment::ConnectorEnvironment;
use crate::error::ConnectorError;
use crate::formats::RowEncoder;
use crate::formats::assembler::{Layout, check_readable};
use crate::table::{PartitionColumns, TableDefinition};
use arrow::datatypes::DataType;
use committer::KinesisCommitter;
use enumerator::ShardEnumerator;
use options::KinesisOptions;
use partitioner::Partitioner;
use reader::ShardReader;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tidemill_engine::sink::{CommitterContext, DeliveryGuarantee, Sink, SinkCommitter, SinkContext, SinkWriter};
use tidemill_engine::source::{Source, Split, SplitContext, SplitEnumerator, SplitReader};
use tidemill_engine::{Error, Result};
use tidemill_shards::{ErrorKind, ShardAccess, ShardRef, StoreError, StreamMeta};
use writer::KinesisWriter;

/// Flink's metadata keys, and `partition-key`.
const METADATA: [&str; 4] = ["timestamp", "shard-id", "sequence-number", "partition-key"];

/// Checks that a table can be read.
///
/// # Errors
/// When it cannot.
pub(crate) fn check_source(table: &TableDefinition) -> Result<(), ConnectorError> {
    let options = KinesisOptions::parse(table)?;
    for metadata in &table.metadata_columns {
        let Some(field) = table.schema.field_with_name(&metadata.column).ok() else {
            continue;
        };
        let fits = match metadata.key.as_str() {
            "timestamp" => matches!(field.data_type(), DataType::Timestamp(..)),
            _ => matches!(
                field.data_type(),
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
            ),
        };
        if !METADATA.contains(&metadata.key.as_str()) {
            let message = format!("column {}: there is no metadata '{}'", metadata.column, metadata.key);
            return Err(match crate::options::closest(&metadata.key, METADATA.into_iter()) {
                Some(near) => ConnectorError::new(message).with_hint(format!("did you mean '{near}'?")),
                None => ConnectorError::new(message).with_hint(format!("there are {}", METADATA.join(", "))),
            });
        }
        if !fits {
            let wanted = if metadata.key == "timestamp" {
                "TIMESTAMP_LTZ(3)"
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
    check_readable(table, &options.format, PartitionColumns::InRecord)
}

/// Checks that a table can be written.
///
/// # Errors
/// When it cannot.
pub(crate) fn check_sink(table: &TableDefinition) -> Result<(), ConnectorError> {
    let options = KinesisOptions::parse(table)?;
    options.format.encoder(&table.schema)?;
    Partitioner::check(table, &options)
}

fn shards(table: &TableDefinition, env: &ConnectorEnvironment) -> Result<Arc<dyn ShardAccess>, ConnectorError> {
    env.shards().cloned().ok_or_else(|| {
        ConnectorError::option(
            "connector",
            format!("table {} needs a shard store, and there is none", table.name),
        )
        .with_hint("run the job under `tidemill server`, or with `tidemill run --data-dir DIR`")
    })
}

/// The source.
pub(crate) struct KinesisSource {
    table: Arc<str>,
    options: KinesisOptions,
    layout: Arc<Layout>,
    shards: Arc<dyn ShardAccess>,
}

impl KinesisSource {
    /// Makes the source of some of a table's columns.
    ///
    /// # Errors
    /// When the options are not valid or there is no shard store.
    pub(crate) fn new(
        table: &TableDefinition,
        projection: &[usize],
        env: &ConnectorEnvironment,
    ) -> Result<Self, ConnectorError> {
        check_source(table)?;
        Ok(Self {
            table: table.name.as_str().into(),
            options: KinesisOptions::parse(table)?,
            layout: Arc::new(Layout::new(table, projection, PartitionColumns::InRecord)?),
            shards: shards(table, env)?,
        })
    }
}

/// Looks for the stream that the options mean.
async fn find_stream(shards: &dyn ShardAccess, options: &KinesisOptions) -> Result<StreamMeta, StreamError> {
    let stream = shards.describe_stream(&options.stream).await?;
    options.check_stream(&stream).map_err(StreamError::Unfit)?;
    Ok(stream)
}

/// Why a stream cannot be read or written.
#[derive(Clone, Debug)]
enum StreamError {
    /// The store says so.
    Store(StoreError),
    /// It is not the stream that was meant, or not the one that it was; what to do about it.
    Unfit(String),
}

impl From<StoreError> for StreamError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl StreamError {
    fn of_source(&self, table: &str) -> Error {
        match self {
            // Positions come from this connector, so one does not fit only when the stream is another.
            Self::Store(StoreError::ForeignPosition { stream, .. }) => {
                source_error(table, enumerator::created_again(stream)).permanent()
            }
            Self::Store(error) => self.with_kind(source_error(table, told(error))),
            Self::Unfit(message) => self.with_kind(source_error(table, message)),
        }
    }

    fn of_sink(&self, sink: &str) -> Error {
        match self {
            Self::Store(StoreError::StaleGeneration { .. }) => Error::Fenced,
            Self::Store(error) => self.with_kind(sink_error(sink, told(error))),
            Self::Unfit(message) => self.with_kind(sink_error(sink, message)),
        }
    }

    /// A restart cannot help when a stream, or what was staged for it, is not there any more; a disk that is full or a
    /// store that is closed may be mended meanwhile.
    fn with_kind(&self, error: Error) -> Error {
        match self {
            Self::Unfit(_)
            | Self::Store(
                StoreError::StreamNotFound(_) | StoreError::ShardNotFound { .. } | StoreError::StagedMismatch { .. },
            ) => error.permanent(),
            // Another run has published since, or another content: a user must choose what to go on from.
            Self::Store(store) if store.kind() == ErrorKind::Fenced => error.permanent(),
            Self::Store(_) => error,
        }
    }
}

/// Tells an error of the store; of a missing stream also how one is made.
fn told(error: &StoreError) -> String {
    match error {
        StoreError::StreamNotFound(stream) => format!(
            "stream {stream} does not exist: correct the option 'stream', or create the stream through a server on the \
             same data directory (`tidemill server`): curl http://127.0.0.1:4566 -H 'Content-Type: \
             application/x-amz-json-1.1' -H 'X-Amz-Target: Kinesis_20131202.CreateStream' -d \
             '{{\"StreamName\": \"{stream}\", \"ShardCount\": 1}}'"
        ),
        error => error.to_string(),
    }
}

/// Makes the error of a source.
fn source_error(table: &str, message: impl std::fmt::Display) -> Error {
    Error::Source {
        table: table.to_owned(),
        message: message.to_string(),
    }
}

#[async_trait::async_trait]
impl Source for KinesisSource {
    async fn check(&self) -> Result<()> {
        let found = find_stream(self.shards.as_ref(), &self.options).await;
        found.map(drop).map_err(|error| error.of_source(&self.table))
    }

    fn enumerator(&self) -> Result<Box<dyn SplitEnumerator>> {
        let (table, shards) = (Arc::clone(&self.table), Arc::clone(&self.shards));
        Ok(Box::new(ShardEnumerator::new(table, self.options.clone(), shards)))
    }

    fn open_split(&self, split: &Split, context: SplitContext) -> Result<Box<dyn SplitReader>> {
        let error = |message: String| source_error(&self.table, message);
        let shard = split.id.0.parse().map_err(|e| error(format!("{e}")))?;
        let shard = ShardRef::new(self.options.stream.clone(), shard);
        let position = position::parse(&split.position).map_err(error)?;
        let decoder = self
            .options
            .format
            .decoder(self.layout.record())
            .map_err(|e| error(e.to_string()))?;
        let parse_errors = self.options.format.parse_errors();
        let (layout, shards) = (Arc::clone(&self.layout), Arc::clone(&self.shards));
        Ok(Box::new(ShardReader::open(
            shards,
            shard,
            position,
            layout,
            decoder,
            parse_errors,
            context,
        )))
    }
}

/// The sink.
pub(crate) struct KinesisSink {
    name: Arc<str>,
    options: KinesisOptions,
    table: TableDefinition,
    encoder: Arc<dyn RowEncoder>,
    shards: Arc<dyn ShardAccess>,
    /// One more than the newest checkpoint that was published from this process; 0 when none was.
    next_checkpoint: Arc<AtomicU64>,
}

impl KinesisSink {
    /// Makes the sink of a table.
    ///
    /// # Errors
    /// When the options are not valid or there is no shard store.
    pub(crate) fn new(table: &TableDefinition, env: &ConnectorEnvironment) -> Result<Self, ConnectorError> {
        check_sink(table)?;
        let options = KinesisOptions::parse(table)?;
        Ok(Self {
            name: table.name.as_str().into(),
            encoder: options.format.encoder(&table.schema)?,
            options,
            table: table.clone(),
            shards: shards(table, env)?,
            next_checkpoint: Arc::default(),
        })
    }
}

/// Makes the error of a sink.
fn sink_error(sink: &str, message: impl std::fmt::Display) -> Error {
    Error::Sink {
        sink: sink.to_owned(),
        message: message.to_string(),
    }
}

#[async_trait::async_trait]
impl Sink for KinesisSink {
    async fn check(&self) -> Result<()> {
        let found = find_stream(self.shards.as_ref(), &self.options).await;
        found.map(drop).map_err(|error| error.of_sink(&self.name))
    }

    fn guarantee(&self) -> DeliveryGuarantee {
        self.options.guarantee
    }

    fn writer(&self, context: SinkContext) -> Result<Box<dyn SinkWriter>> {
        let partitioner = Partitioner::new(&self.table, &self.options, &context);
        let (shards, encoder) = (Arc::clone(&self.shards), Arc::clone(&self.encoder));
        let next = Arc::clone(&self.next_checkpoint);
        Ok(Box::new(KinesisWriter::new(
            Arc::clone(&self.name),
            &self.options,
            partitioner,
            encoder,
            shards,
            next,
            context,
        )))
    }

    fn committer(&self, context: CommitterContext) -> Result<Option<Arc<dyn SinkCommitter>>> {
        if self.options.guarantee == DeliveryGuarantee::AtLeastOnce {
            return Ok(None);
        }
        let (shards, next) = (Arc::clone(&self.shards), Arc::clone(&self.next_checkpoint));
        Ok(Some(Arc::new(KinesisCommitter::new(
            Arc::clone(&self.name),
            shards,
            next,
            context,
        ))))
    }
}
