//! The options of a `kinesis` table: the names of Flink's Kinesis connector, and some of ours.

pub(super) mod endpoint;
pub(super) mod sink;
pub(super) mod start;

use super::position::{self, Position};
use crate::error::ConnectorError;
use crate::formats::{RECORD_FORMATS, RecordFormat};
use crate::options::Options;
use crate::table::TableDefinition;
use endpoint::EndpointOptions;
use sink::{AggregationOptions, BatchingOptions};
pub(super) use start::InitialPosition;
use std::time::Duration;
use tidemill_engine::sink::DeliveryGuarantee;
use tidemill_shards::StreamName;

/// Flink's default.
const DISCOVERY_INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
const NO_CLIENT: &str = "has no effect without 'aws.endpoint': the embedded store is read and written without a client; \
                         leave it out";

/// What a `kinesis` table's options say.
#[derive(Clone, Debug)]
pub(super) struct KinesisOptions {
    pub(super) stream: StreamName,
    /// The stream must have this ARN.
    pub(super) arn: Option<String>,
    /// Of an endpoint the region; of the embedded store, the stream must be in it.
    pub(super) region: Option<String>,
    /// `None` is the embedded store.
    pub(super) endpoint: Option<EndpointOptions>,
    pub(super) format: RecordFormat,
    pub(super) start: InitialPosition,
    pub(super) discovery_interval: Duration,
    pub(super) deaggregation: Deaggregation,
    pub(super) on_data_loss: OnDataLoss,
    pub(super) partitioner: Option<PartitionerKind>,
    /// `PARTITIONED BY` or the primary key makes the partition key.
    pub(super) has_partition_columns: bool,
    pub(super) partition_delimiter: String,
    pub(super) guarantee: DeliveryGuarantee,
    pub(super) aggregation: Option<AggregationOptions>,
    pub(super) batching: BatchingOptions,
}

/// The values of `sink.partitioner`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartitionerKind {
    /// Every record to any shard.
    Random,
    /// The records of a worker to one shard.
    Fixed,
}

/// The values of `source.deaggregation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deaggregation {
    /// The user records that belong to the shard.
    Shard,
    /// All user records.
    All,
    /// A record is a row, whatever is in it.
    Off,
}

/// The values of `source.on-data-loss`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnDataLoss {
    /// The job fails.
    Fail,
    /// It is logged.
    Continue,
}

impl KinesisOptions {
    /// Reads all options of a table, also those of the side that is not used.
    ///
    /// # Errors
    /// When one is not valid or has no effect here.
    pub(super) fn parse(table: &TableDefinition) -> Result<Self, ConnectorError> {
        let options = Options::new(&table.name, &table.options);
        refuse_foreign(&options)?;
        let (stream, arn) = stream(&options)?;
        let endpoint = endpoint::parse(&options)?;
        let region = options.text("aws.region").map(str::to_owned);
        let Some(format) = RecordFormat::parse(&options, &RECORD_FORMATS)? else {
            return Err(ConnectorError::option("format", "is not a format of records; use json"));
        };
        if matches!(&format, RecordFormat::Csv(csv) if csv.allow_comments.is_on()) {
            return Err(ConnectorError::option(
                "csv.allow-comments",
                "a record of a stream is a row; leave it out",
            ));
        }
        let start = start::parse(&options)?;
        let discovery_interval = options
            .duration("source.shard.discovery.interval")?
            .unwrap_or(DISCOVERY_INTERVAL_DEFAULT);
        if discovery_interval < Duration::from_millis(100) {
            return Err(options.out_of_range("source.shard.discovery.interval", "at least 100 ms, such as '10 s'"));
        }
        let deaggregations = [
            ("shard", Deaggregation::Shard),
            ("all", Deaggregation::All),
            ("off", Deaggregation::Off),
        ];
        let deaggregation = options.choice("source.deaggregation", &deaggregations)?;
        let on_data_loss = options.choice(
            "source.on-data-loss",
            &[("fail", OnDataLoss::Fail), ("continue", OnDataLoss::Continue)],
        )?;
        let partitioners = [("random", PartitionerKind::Random), ("fixed", PartitionerKind::Fixed)];
        let partitioner = options.choice("sink.partitioner", &partitioners)?;
        let partition_delimiter = options
            .text("sink.partitioner-field-delimiter")
            .unwrap_or("|")
            .to_owned();
        let guarantee = guarantee(&options, endpoint.is_some())?;
        if partitioner.is_some() && !table.partition_keys.is_empty() {
            let message = "cannot be set together with PARTITIONED BY, whose columns make the partition key";
            return Err(ConnectorError::option("sink.partitioner", message));
        }
        let aggregation = sink::aggregation(&options)?;
        let batching = sink::batching(&options)?;
        options.finish()?;
        Ok(Self {
            stream,
            arn,
            region,
            endpoint,
            format,
            start,
            discovery_interval,
            deaggregation: deaggregation.unwrap_or(Deaggregation::Shard),
            on_data_loss: on_data_loss.unwrap_or(OnDataLoss::Fail),
            partitioner,
            has_partition_columns: !table.partition_keys.is_empty()
                || (!table.primary_key.is_empty() && partitioner.is_none()),
            partition_delimiter,
            guarantee,
            aggregation,
            batching,
        })
    }

    /// Checks that a stream is the one that the options mean.
    ///
    /// # Errors
    /// Names the option that says otherwise.
    pub(super) fn check_arn(&self, arn: &str) -> Result<(), String> {
        if let Some(wanted) = &self.arn
            && wanted != arn
        {
            return Err(format!(
                "the stream's ARN is {arn}, and not {wanted}: correct the option 'stream.arn'"
            ));
        }
        // An endpoint of one's own is asked in any region.
        if self.endpoint.is_none()
            && let Some(region) = &self.region
            && arn.split(':').nth(3) != Some(region)
        {
            return Err(format!(
                "the stream is {arn}, and not in {region}: correct the option 'aws.region'"
            ));
        }
        Ok(())
    }

    /// Reads a position of a checkpoint.
    pub(super) fn parse_position(&self, text: &str) -> Result<Position, String> {
        match self.endpoint {
            None => position::parse_store(text),
            Some(_) => position::parse_endpoint(text),
        }
    }
}

fn guarantee(options: &Options<'_>, has_endpoint: bool) -> Result<DeliveryGuarantee, ConnectorError> {
    let chosen = crate::sinks::delivery_guarantee(options)?;
    if !has_endpoint {
        return Ok(chosen.unwrap_or(DeliveryGuarantee::ExactlyOnce));
    }
    match chosen {
        Some(DeliveryGuarantee::ExactlyOnce) => Err(ConnectorError::option(
            "sink.delivery-guarantee",
            "the Kinesis API shows a record as soon as it is put and cannot take it back, so through 'aws.endpoint' rows \
             are written at least once; exactly-once is for the embedded store",
        )
        .with_hint("set 'at-least-once', or leave it out")),
        _ => Ok(DeliveryGuarantee::AtLeastOnce),
    }
}

/// Refuses options of Flink's connector that mean nothing here, with what to do instead.
fn refuse_foreign(options: &Options<'_>) -> Result<(), ConnectorError> {
    options.refuse_prefix(
        "scan.",
        "the options of the older connector begin with 'scan.': use those with 'source.'",
    )?;
    options.refuse_prefix(
        "sink.producer.aggregation-",
        "the options of the older connector are not supported: use 'sink.aggregation.enabled', '.max-count', '.max-size'",
    )?;
    options.refuse_prefix(
        "sink.producer.",
        "the options of the older connector are not supported; leave it out",
    )?;
    options.refuse(
        "sink.parallelism",
        "a sink runs on every worker of its job; leave the option out",
    )?;
    Ok(())
}

fn stream(options: &Options<'_>) -> Result<(StreamName, Option<String>), ConnectorError> {
    let arn = options.text("stream.arn");
    let (option, name) = match (options.text("stream"), arn) {
        (Some(_), Some(_)) => {
            return Err(ConnectorError::option(
                "stream.arn",
                "cannot be set together with stream",
            ));
        }
        (Some(name), None) => ("stream", name),
        (None, Some(arn)) => {
            let parts: Vec<&str> = arn.splitn(6, ':').collect();
            match parts.as_slice() {
                ["arn", _, "kinesis", _, _, resource] if resource.starts_with("stream/") => {
                    ("stream.arn", &resource[7..])
                }
                _ => {
                    let message = format!("'{arn}' is not of the form arn:aws:kinesis:REGION:ACCOUNT:stream/NAME");
                    return Err(ConnectorError::option("stream.arn", message));
                }
            }
        }
        (None, None) => {
            options.required("stream")?;
            ("stream", "")
        }
    };
    let name = StreamName::new(name).map_err(|error| ConnectorError::option(option, error.to_string()))?;
    Ok((name, arn.map(str::to_owned)))
}
