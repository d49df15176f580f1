//! The options of a `kinesis` table: the names of Flink's Kinesis connector.

use crate::error::ConnectorError;
use crate::formats::time_text::{TimestampStandard, Zone, parse_timestamp};
use crate::formats::{RECORD_FORMATS, RecordFormat};
use crate::options::Options;
use crate::table::TableDefinition;
use arrow::datatypes::TimeUnit;
use std::time::Duration;
use tidemill_engine::sink::DeliveryGuarantee;
use tidemill_shards::{ReadFrom, StreamMeta, StreamName};

/// Flink's default.
const DISCOVERY_INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
const TIMESTAMP_FORMAT: &str = "yyyy-MM-dd'T'HH:mm:ss.SSSXXX";
const NO_CLIENT: &str =
    "the embedded store is read and written without an AWS client, so this has no effect; leave it out";

/// What a `kinesis` table's options say.
#[derive(Clone, Debug)]
pub(super) struct KinesisOptions {
    pub(super) stream: StreamName,
    /// The stream must have this ARN.
    pub(super) arn: Option<String>,
    /// The stream must be in this region.
    pub(super) region: Option<String>,
    pub(super) format: RecordFormat,
    pub(super) start: ReadFrom,
    pub(super) discovery_interval: Duration,
    pub(super) partitioner: Option<PartitionerKind>,
    pub(super) partition_delimiter: String,
    pub(super) guarantee: DeliveryGuarantee,
}

/// The values of `sink.partitioner`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartitionerKind {
    /// Every record to any shard.
    Random,
    /// The records of a worker to one shard.
    Fixed,
}

#[derive(Clone, Copy)]
enum Start {
    TrimHorizon,
    Latest,
    AtTimestamp,
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
        let start = start(&options)?;
        let discovery_interval = options
            .duration("source.shard.discovery.interval")?
            .unwrap_or(DISCOVERY_INTERVAL_DEFAULT);
        if discovery_interval < Duration::from_millis(100) {
            return Err(options.out_of_range("source.shard.discovery.interval", "at least 100 ms, such as '10 s'"));
        }
        let partitioners = [("random", PartitionerKind::Random), ("fixed", PartitionerKind::Fixed)];
        let partitioner = options.choice("sink.partitioner", &partitioners)?;
        let partition_delimiter = options
            .text("sink.partitioner-field-delimiter")
            .unwrap_or("|")
            .to_owned();
        let guarantee = crate::sinks::delivery_guarantee(&options)?.unwrap_or(DeliveryGuarantee::ExactlyOnce);
        if partitioner.is_some() && !table.partition_keys.is_empty() {
            let message = "cannot be set together with PARTITIONED BY, whose columns make the partition key";
            return Err(ConnectorError::option("sink.partitioner", message));
        }
        options.finish()?;
        Ok(Self {
            stream,
            arn,
            region,
            format,
            start,
            discovery_interval,
            partitioner,
            partition_delimiter,
            guarantee,
        })
    }

    /// Checks that a stream is the one that the options mean.
    ///
    /// # Errors
    /// Names the option that says otherwise.
    pub(super) fn check_stream(&self, stream: &StreamMeta) -> Result<(), String> {
        let arn = &stream.arn;
        if let Some(wanted) = &self.arn
            && wanted != arn
        {
            return Err(format!(
                "the stream's ARN is {arn}, and not {wanted}: correct the option 'stream.arn'"
            ));
        }
        if let Some(region) = &self.region
            && arn.split(':').nth(3) != Some(region)
        {
            return Err(format!(
                "the stream is {arn}, and not in {region}: correct the option 'aws.region'"
            ));
        }
        Ok(())
    }
}

/// Refuses options of Flink's connector that mean nothing here, with what to do instead.
fn refuse_foreign(options: &Options<'_>) -> Result<(), ConnectorError> {
    options.refuse(
        "aws.endpoint",
        "streams behind an endpoint are not supported yet; without the option the embedded shard store is used",
    )?;
    for prefix in [
        "aws.credentials.",
        "aws.http",
        "aws.trust.",
        "aws.retry",
        "source.efo.",
        "source.shard.get-records",
    ] {
        options.refuse_prefix(prefix, NO_CLIENT)?;
    }
    options.refuse_prefix(
        "scan.",
        "the options of the older connector begin with 'scan.': use those with 'source.'",
    )?;
    options.refuse_prefix(
        "sink.producer.",
        "the options of the older connector are not supported; leave it out",
    )?;
    if options.choice("source.reader.type", &[("POLLING", true), ("EFO", false)])? == Some(false) {
        return Err(ConnectorError::option(
            "source.reader.type",
            "EFO is not needed: the embedded store pushes",
        ));
    }
    for name in [
        "sink.batch.max-size",
        "sink.requests.max-inflight",
        "sink.requests.max-buffered",
    ] {
        options.refuse(name, NO_CLIENT)?;
    }
    options.refuse_prefix("sink.flush-buffer", NO_CLIENT)?;
    options.refuse(
        "sink.fail-on-error",
        "a record that cannot be written always fails the job; leave it out",
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

fn start(options: &Options<'_>) -> Result<ReadFrom, ConnectorError> {
    let choices = [
        ("LATEST", Start::Latest),
        ("TRIM_HORIZON", Start::TrimHorizon),
        ("AT_TIMESTAMP", Start::AtTimestamp),
    ];
    let start = options
        .choice("source.init.position", &choices)?
        .unwrap_or(Start::Latest);
    let timestamp = options.text("source.init.timestamp");
    match options.text("source.init.timestamp.format") {
        Some(format) if format != TIMESTAMP_FORMAT => {
            let message = format!("only {TIMESTAMP_FORMAT} and seconds since 1970 are understood; leave it out");
            return Err(ConnectorError::option("source.init.timestamp.format", message));
        }
        _ => {}
    }
    match (start, timestamp) {
        (Start::TrimHorizon, None) => Ok(ReadFrom::TrimHorizon),
        (Start::Latest, None) => Ok(ReadFrom::Latest),
        (Start::AtTimestamp, Some(text)) => Ok(ReadFrom::AtTimestamp(parse_moment(text)?)),
        (Start::AtTimestamp, None) => Err(ConnectorError::option(
            "source.init.timestamp",
            "must be set for the position AT_TIMESTAMP",
        )),
        (_, Some(_)) => Err(ConnectorError::option(
            "source.init.timestamp",
            "has no effect without the position AT_TIMESTAMP",
        )),
    }
}

/// Reads a moment as milliseconds since 1970: ISO 8601 with a zone, or seconds with a fraction, as Flink does.
fn parse_moment(text: &str) -> Result<u64, ConnectorError> {
    let error = |why: &str| {
        let message = format!("'{text}' {why}; write 2024-05-01T12:13:14.123Z, or seconds since 1970");
        ConnectorError::option("source.init.timestamp", message)
    };
    if let Ok(seconds) = text.parse::<f64>() {
        let valid = (0.0..=1e11).contains(&seconds);
        return if valid {
            Ok((seconds * 1_000.0).round() as u64)
        } else {
            Err(error("is out of range"))
        };
    }
    let ms = parse_timestamp(text, TimestampStandard::Iso8601, Zone::Utc, TimeUnit::Millisecond);
    let ms = ms.map_err(|_| error("is not a moment"))?;
    u64::try_from(ms).map_err(|_| error("is before 1970"))
}
