//! The connector `kinesis`: reads and writes streams of the shard store.
//!
//! ```text
//!  shard ── prefetch task ── bounded queue ── reader: decode ──▶ batches
//!  batches ── writer: encode, partition key ── outbox task ── stage or put ──▶ stream
//!                                      committer ── publish ──┘
//! ```
//! A split is a shard. `options` says what `WITH` may hold, `position` how positions are written down. The source sees a
//! stream through `access`, which `embedded` implements for the store of this process: `enumerator` finds shards, `reader`
//! reads one, `aggregation` opens what a producer has put together, `metadata` makes columns of what is known of a record.
//! The sink: `partitioner` makes partition keys, `grouping` aggregates, `writer` buffers, `outbox` sends, `committer`
//! publishes.

mod access;
mod aggregation;
mod committer;
mod embedded;
mod enumerator;
mod grouping;
mod metadata;
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
use crate::formats::assembler::{Layout, check_readable};
use crate::formats::{ParseErrors, RowEncoder};
use crate::table::{PartitionColumns, TableDefinition};
use access::StreamAccess;
use committer::KinesisCommitter;
use embedded::EmbeddedStream;
use enumerator::ShardEnumerator;
use options::KinesisOptions;
use partitioner::Partitioner;
use reader::{ReaderOptions, ShardReader};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tidemill_engine::sink::{CommitterContext, DeliveryGuarantee, Sink, SinkCommitter, SinkContext, SinkWriter};
use tidemill_engine::source::{Source, Split, SplitContext, SplitEnumerator, SplitReader};
use tidemill_engine::{Error, Result};
use tidemill_shards::ShardAccess;
use writer::KinesisWriter;

/// Checks that a table can be read.
///
/// # Errors
/// When it cannot.
pub(crate) fn check_source(table: &TableDefinition) -> Result<(), ConnectorError> {
    let options = KinesisOptions::parse(table)?;
    metadata::check(table)?;
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
    stream: Arc<dyn StreamAccess>,
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
        let options = KinesisOptions::parse(table)?;
        Ok(Self {
            table: table.name.as_str().into(),
            layout: Arc::new(Layout::new(table, projection, PartitionColumns::InRecord)?),
            stream: Arc::new(EmbeddedStream::new(options.stream.clone(), shards(table, env)?)),
            options,
        })
    }
}

/// Makes the error of a source.
fn source_error(table: &str, message: impl std::fmt::Display) -> Error {
    Error::Source {
        table: table.to_owned(),
        message: message.to_string(),
    }
}

impl Source for KinesisSource {
    fn enumerator(&self) -> Result<Box<dyn SplitEnumerator>> {
        let (table, stream) = (Arc::clone(&self.table), Arc::clone(&self.stream));
        Ok(Box::new(ShardEnumerator::new(table, self.options.clone(), stream)))
    }

    fn open_split(&self, split: &Split, context: SplitContext) -> Result<Box<dyn SplitReader>> {
        let error = |message: String| source_error(&self.table, message);
        let position = self.options.parse_position(&split.position).map_err(error)?;
        let format = &self.options.format;
        let decoder = format.decoder(self.layout.record()).map_err(|e| error(e.to_string()))?;
        let options = ReaderOptions {
            layout: Arc::clone(&self.layout),
            drop_bad: format.parse_errors() == ParseErrors::Drop,
            deaggregation: self.options.deaggregation,
            on_data_loss: self.options.on_data_loss,
        };
        let (stream, shard) = (self.options.stream.as_str(), split.id.0.as_str());
        let fetcher = Arc::clone(&self.stream).open(shard, position.place.clone());
        Ok(Box::new(ShardReader::open(
            stream, shard, fetcher, position, decoder, options, context,
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

impl Sink for KinesisSink {
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
