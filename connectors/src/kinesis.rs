//! The connector `kinesis`: reads and writes streams of the shard store.
//!
//! ```text
//!  shard ── prefetch task ── bounded queue ── reader: decode ──▶ batches
//!  batches ── writer: encode, partition key ── outbox task ── stage or put ──▶ stream
//!                                      committer ── publish ──┘
//! ```
//! A split is a shard. `options` says what `WITH` may hold, `position` how positions are written down. The source sees a
//! stream through `access`, which `embedded` implements for the store of this process and `endpoint` for the Kinesis API:
//! `enumerator` finds shards, `reader`
//! reads one, `aggregation` opens what a producer has put together, `metadata` makes columns of what is known of a record.
//! The sink: `partitioner` makes partition keys, `grouping` aggregates, `writer` buffers, `outlet` sends
//! through `outbox` to the store or through `endpoint`, `committer` publishes.

#[cfg_attr(not(feature = "aws"), allow(dead_code, reason = "some of it is of endpoints only"))]
mod access;
mod aggregation;
mod committer;
mod embedded;
#[cfg(feature = "aws")]
mod endpoint;
mod enumerator;
mod error;
mod grouping;
mod metadata;
#[cfg_attr(
    not(feature = "aws"),
    allow(dead_code, reason = "the options of endpoints are read to be refused")
)]
mod options;
mod outbox;
mod outlet;
mod partitioner;
mod position;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use crate::environment::ConnectorEnvironment;
use crate::error::ConnectorError;
use crate::formats::assembler::{Layout, check_readable};
use crate::formats::upsert::UpsertEncoder;
use crate::formats::{RecordFormat, RowEncoder};
use crate::table::{PartitionColumns, TableDefinition};
use access::StreamAccess;
use committer::KinesisCommitter;
use embedded::EmbeddedStream;
use enumerator::ShardEnumerator;
use error::{StreamError, source_error};
use options::KinesisOptions;
use outlet::Target;
use partitioner::Partitioner;
use reader::{ReaderOptions, ShardReader};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tidemill_engine::Result;
use tidemill_engine::sink::{CommitterContext, DeliveryGuarantee, Sink, SinkCommitter, SinkContext, SinkWriter};
use tidemill_engine::source::{Source, Split, SplitContext, SplitEnumerator, SplitReader};
use tidemill_shards::ShardAccess;
use writer::KinesisWriter;

/// Checks that a table can be read.
///
/// # Errors
/// When it cannot.
pub(crate) fn check_source(table: &TableDefinition) -> Result<(), ConnectorError> {
    let options = KinesisOptions::parse(table)?;
    check_endpoint(&options)?;
    metadata::check(table)?;
    check_readable(table, &options.format, PartitionColumns::InRecord)
}

/// Checks that a table can be written.
///
/// # Errors
/// When it cannot.
pub(crate) fn check_sink(table: &TableDefinition) -> Result<(), ConnectorError> {
    let options = KinesisOptions::parse(table)?;
    check_endpoint(&options)?;
    encoder(table, &options)?;
    Partitioner::check(table, &options)
}

/// Makes what writes a table's rows.
///
/// # Errors
/// When a column's type cannot be written, or the result changes and the table does not say how that is written.
fn encoder(table: &TableDefinition, options: &KinesisOptions) -> Result<Arc<dyn RowEncoder>, ConnectorError> {
    if table.weight().is_none() {
        return options.format.encoder(&table.schema);
    }
    let key = &table.primary_key;
    if let Some(column) = table
        .partition_keys
        .iter()
        .find(|name| !key.is_empty() && !key.contains(name))
    {
        let message = format!(
            "the result changes, and the PARTITIONED BY column {column} is not in the primary key: the changes of a row \
             could go to different shards"
        );
        return Err(ConnectorError::new(message).with_hint("partition by columns of the primary key, or leave it out"));
    }
    match &options.format {
        RecordFormat::DebeziumJson(_) if partitioner::columns(table, options).is_empty() => match options.partitioner {
            Some(options::PartitionerKind::Fixed) => options.format.encoder(&table.schema),
            _ => {
                let message = "the result changes, and the changes of a row could go to different shards";
                let hint = "declare PRIMARY KEY (...) NOT ENFORCED or PARTITIONED BY (...)";
                Err(ConnectorError::new(message).with_hint(hint))
            }
        },
        RecordFormat::DebeziumJson(_) => options.format.encoder(&table.schema),
        RecordFormat::Json(json) if !key.is_empty() => {
            if options.partitioner.is_some() {
                let message = "the result changes, and its rows are written by their primary key; leave the option out";
                return Err(ConnectorError::option("sink.partitioner", message));
            }
            Ok(Arc::new(UpsertEncoder::new(table, *json)?))
        }
        RecordFormat::Json(_) => Err(crate::sinks::only_added_to(
            "declare PRIMARY KEY (...) NOT ENFORCED, or write changes with 'format' = 'debezium-json'",
        )),
        _ => Err(crate::sinks::only_added_to(
            "write changes with 'format' = 'debezium-json', or rows by their primary key with 'json'",
        )),
    }
}

/// Refuses endpoints when the client was left out of the build.
fn check_endpoint(options: &KinesisOptions) -> Result<(), ConnectorError> {
    if options.endpoint.is_some() && !cfg!(feature = "aws") {
        let message = "streams behind an endpoint are not in this build";
        return Err(ConnectorError::option("aws.endpoint", message).with_hint("build with the feature 'aws'"));
    }
    Ok(())
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

/// Returns the stream that a table reads.
fn stream(
    table: &TableDefinition,
    options: &KinesisOptions,
    env: &ConnectorEnvironment,
) -> Result<Arc<dyn StreamAccess>, ConnectorError> {
    #[cfg(feature = "aws")]
    if let Some(endpoint) = &options.endpoint {
        return Ok(Arc::new(endpoint::EndpointStream::new(options, endpoint, env)?));
    }
    Ok(Arc::new(EmbeddedStream::new(
        options.stream.clone(),
        shards(table, env)?,
    )))
}

/// Returns what a table writes to.
fn target(
    table: &TableDefinition,
    options: &KinesisOptions,
    env: &ConnectorEnvironment,
) -> Result<Target, ConnectorError> {
    #[cfg(feature = "aws")]
    if let Some(endpoint) = &options.endpoint {
        let put = endpoint::EndpointPut::new(options, endpoint, env)?;
        return Ok(Target::Endpoint(Arc::new(put)));
    }
    let _ = options;
    Ok(Target::Store(shards(table, env)?))
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
            stream: stream(table, &options, env)?,
            options,
        })
    }
}

#[async_trait::async_trait]
impl Source for KinesisSource {
    async fn check(&self) -> Result<()> {
        let found = self.stream.find().await;
        let checked = found.and_then(|arn| self.options.check_arn(&arn).map_err(StreamError::Unfit));
        checked.map_err(|error| error.of_source(&self.table))
    }

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
            parse_errors: format.parse_errors(),
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
    target: Target,
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
            encoder: encoder(table, &options)?,
            target: target(table, &options, env)?,
            options,
            table: table.clone(),
            next_checkpoint: Arc::default(),
        })
    }
}

#[async_trait::async_trait]
impl Sink for KinesisSink {
    async fn check(&self) -> Result<()> {
        let found = self.target.find(&self.options).await;
        found.map_err(|error| error.of_sink(&self.name))
    }

    fn guarantee(&self) -> DeliveryGuarantee {
        self.options.guarantee
    }

    fn writer(&self, context: SinkContext) -> Result<Box<dyn SinkWriter>> {
        let partitioner = Partitioner::new(&self.table, &self.options, &context);
        let encoder = Arc::clone(&self.encoder);
        let next = Arc::clone(&self.next_checkpoint);
        Ok(Box::new(KinesisWriter::new(
            Arc::clone(&self.name),
            &self.options,
            partitioner,
            encoder,
            &self.target,
            next,
            context,
        )))
    }

    fn committer(&self, context: CommitterContext) -> Result<Option<Arc<dyn SinkCommitter>>> {
        let (DeliveryGuarantee::ExactlyOnce, Target::Store(shards)) = (self.options.guarantee, &self.target) else {
            return Ok(None);
        };
        let (shards, next) = (Arc::clone(shards), Arc::clone(&self.next_checkpoint));
        Ok(Some(Arc::new(KinesisCommitter::new(
            Arc::clone(&self.name),
            shards,
            next,
            context,
        ))))
    }
}
