//! How a table is written: `sink.*`.

use crate::error::ConnectorError;
use crate::options::{Flag, Options};
use std::time::Duration;
use tidemill_shards::limits::{PUT_BYTES_MAX, PUT_RECORDS_MAX};

/// How user records are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kinesis) struct AggregationOptions {
    /// User records in a record.
    pub(in crate::kinesis) records_max: usize,
    /// Bytes of a record, partition key included.
    pub(in crate::kinesis) bytes_max: usize,
}

/// How records are sent to an endpoint. The defaults are Flink's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kinesis) struct BatchingOptions {
    /// Records in a request.
    pub(in crate::kinesis) records_max: usize,
    /// Bytes of records that wait, and of a request.
    pub(in crate::kinesis) bytes_max: usize,
    /// How long a record waits for others.
    pub(in crate::kinesis) wait_max: Duration,
    /// Requests at once.
    pub(in crate::kinesis) requests_max: usize,
    /// Records that are not yet acknowledged, above which ticks are held back.
    pub(in crate::kinesis) buffered_max: usize,
    /// What becomes of a record that is refused for now.
    pub(in crate::kinesis) refused: Refused,
}

/// What becomes of a record that an endpoint refuses for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kinesis) enum Refused {
    /// It is sent again.
    Repeat,
    /// The job fails.
    Fail,
}

impl Default for BatchingOptions {
    fn default() -> Self {
        Self {
            records_max: PUT_RECORDS_MAX,
            bytes_max: 5 << 20,
            wait_max: Duration::from_secs(5),
            requests_max: 16,
            buffered_max: 10_000,
            refused: Refused::Repeat,
        }
    }
}

/// Reads `sink.aggregation.*`.
///
/// # Errors
/// When one is not valid or has no effect.
pub(super) fn aggregation(options: &Options<'_>) -> Result<Option<AggregationOptions>, ConnectorError> {
    const COUNT: &str = "sink.aggregation.max-count";
    const SIZE: &str = "sink.aggregation.max-size";
    const ON: &str = "sink.aggregation.enabled";
    let is_on = options.boolean(ON, Flag::Off)?.is_on();
    let count = options.parsed::<usize>(COUNT, "a whole number such as 100")?;
    let size = options.memory_size(SIZE)?;
    if !is_on {
        for (name, is_set) in [(COUNT, count.is_some()), (SIZE, size.is_some())] {
            if is_set {
                return Err(ConnectorError::option(
                    name,
                    format!("has no effect without '{ON}' = 'true'"),
                ));
            }
        }
        return Ok(None);
    }
    if count == Some(0) {
        return Err(options.out_of_range(COUNT, "at least 1"));
    }
    // The default is that of the producer library; a record of the service may have 10 MiB where its stream allows it.
    let size = size.unwrap_or(51_200);
    if !(1_024..=10 << 20).contains(&size) {
        return Err(options.out_of_range(SIZE, "1 kb to 10 mb, and within what the stream takes"));
    }
    Ok(Some(AggregationOptions {
        records_max: count.unwrap_or(usize::MAX),
        bytes_max: size as usize,
    }))
}

/// Reads the options of batching.
///
/// # Errors
/// When one is not valid.
pub(super) fn batching(options: &Options<'_>) -> Result<BatchingOptions, ConnectorError> {
    let default = BatchingOptions::default();
    let number =
        |name: &str, default: usize, max: usize| match options.parsed::<usize>(name, "a whole number such as 100")? {
            Some(value) if !(1..=max).contains(&value) => Err(options.out_of_range(name, &format!("1 to {max}"))),
            value => Ok(value.unwrap_or(default)),
        };
    let records_max = number("sink.batch.max-size", default.records_max, PUT_RECORDS_MAX)?;
    let requests_max = number("sink.requests.max-inflight", default.requests_max, 1_000)?;
    let buffered_max = number("sink.requests.max-buffered", default.buffered_max, 10_000_000)?;
    if buffered_max < records_max {
        let expected = format!("at least 'sink.batch.max-size', which is {records_max}");
        return Err(options.out_of_range("sink.requests.max-buffered", &expected));
    }
    let bytes_max = options
        .memory_size("sink.flush-buffer.size")?
        .unwrap_or(default.bytes_max as u64);
    if !(1..=PUT_BYTES_MAX as u64).contains(&bytes_max) {
        let expected = format!("1 to {PUT_BYTES_MAX} bytes, which is what a request may have");
        return Err(options.out_of_range("sink.flush-buffer.size", &expected));
    }
    let wait_max = options
        .duration("sink.flush-buffer.timeout")?
        .unwrap_or(default.wait_max);
    let refused = if options.boolean("sink.fail-on-error", Flag::Off)?.is_on() {
        Refused::Fail
    } else {
        Refused::Repeat
    };
    Ok(BatchingOptions {
        records_max,
        bytes_max: bytes_max as usize,
        wait_max,
        requests_max,
        buffered_max,
        refused,
    })
}
