//! PutRecords: up to 500 records, each with its own outcome.

use super::{encryption_type, store_error};
use crate::access::PutEntry;
use crate::error::StoreError;
use crate::hashkey::HashKey;
use crate::kinesis::error::ApiError;
use crate::kinesis::item::{Fields, Item};
use crate::kinesis::producer::Numbering;
use crate::kinesis::shape::{
    DATA, DRY_RUN, EXPLICIT_HASH_KEY, Field, Kind, PARTITION_KEY, STREAM_ARN, STREAM_ID, STREAM_NAME,
};
use crate::kinesis::{stream_ref, validate};
use crate::limits;
use crate::store::ShardStore;
use crate::stream::{RecordDistribution, StreamMeta};

pub(super) const SHAPE: &[Field] = &[
    Field::new("Records", Kind::List(&[PARTITION_KEY, EXPLICIT_HASH_KEY, DATA]))
        .required()
        .range(1, limits::PUT_RECORDS_MAX as i64),
    STREAM_NAME,
    STREAM_ARN,
    STREAM_ID,
    DRY_RUN,
];

pub(super) async fn run(store: &ShardStore, fields: Fields, numbering: &mut Numbering) -> Result<Fields, ApiError> {
    let meta = stream_ref::stream(store, &fields)?.writable(store)?;
    partition_keys(&meta, "records.", fields.structures("Records"))?;
    let entries = fields.structures("Records").map(entry).collect::<Result<Vec<_>, _>>()?;
    let mut bytes = 0;
    for entry in &entries {
        bytes += record_bytes(entry, &meta)?;
    }
    if bytes > limits::PUT_BYTES_MAX {
        return Err(ApiError::invalid_argument(format!(
            "Records size exceeds {} MB limit: the request has {bytes} bytes of data and partition keys.",
            limits::PUT_BYTES_MAX >> 20
        )));
    }
    if fields.flag("DryRun") {
        return Err(ApiError::dry_run());
    }
    let receipts = numbering
        .put(store, &meta.name, entries)
        .await
        .map_err(store_error(store))?;
    let failed = receipts.iter().filter(|receipt| receipt.is_err()).count();
    let records = receipts.into_iter().map(|receipt| {
        match receipt {
            Ok(receipt) => Fields::new()
                .with("SequenceNumber", receipt.sequence.to_string())
                .with("ShardId", receipt.shard.to_string()),
            Err(error @ StoreError::RateExceeded { .. }) => {
                let error = ApiError::of(error, &store.options().account);
                Fields::new()
                    .with("ErrorCode", error.name())
                    .with("ErrorMessage", error.message().unwrap_or_default())
            }
            Err(error) => {
                tracing::error!(%error, "a record of PutRecords was not stored");
                Fields::new()
                    .with("ErrorCode", "InternalFailure")
                    .with("ErrorMessage", "Internal Service Failure")
            }
        }
        .into()
    });
    Ok(Fields::new()
        .with("FailedRecordCount", failed as i64)
        .with("Records", records.collect::<Vec<Item>>())
        .with("EncryptionType", encryption_type(&meta)))
}

/// Records need a partition key, but where the stream spreads them by itself. The service finds that with the other
/// constraints of the request; here the stream has to be known first.
pub(super) fn partition_keys<'a>(
    meta: &StreamMeta,
    list: &str,
    records: impl Iterator<Item = &'a Fields>,
) -> Result<(), ApiError> {
    if meta.distribution == RecordDistribution::Auto {
        return Ok(());
    }
    let missing = records
        .enumerate()
        .filter(|(_, record)| record.text("PartitionKey").is_none());
    let errors: Vec<String> = missing
        .take(limits::VALIDATION_ERRORS_MAX)
        .map(|(index, _)| {
            let path = if list.is_empty() {
                "partitionKey".to_owned()
            } else {
                format!("{list}{}.member.partitionKey", index + 1)
            };
            validate::missing(&path)
        })
        .collect();
    validate::outcome(errors)
}

/// The record in a request.
pub(super) fn entry(fields: &Fields) -> Result<PutEntry, ApiError> {
    let explicit_hash_key = match fields.text("ExplicitHashKey") {
        None => None,
        Some(text) => Some(text.parse::<HashKey>().map_err(|_| {
            ApiError::invalid_argument(format!(
                "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was {text}"
            ))
        })?),
    };
    Ok(PutEntry {
        partition_key: fields.text("PartitionKey").unwrap_or_default().to_owned(),
        explicit_hash_key,
        data: fields.blob("Data"),
    })
}

/// Bytes of a record, which the stream must allow.
pub(super) fn record_bytes(entry: &PutEntry, meta: &StreamMeta) -> Result<usize, ApiError> {
    let bytes = entry.partition_key.len() + entry.data.len();
    let max = meta.record_kib_max as usize * 1024;
    if bytes > max {
        return Err(ApiError::invalid_argument(format!(
            "Record size exceeds the stream's limit: data and partition key have {bytes} bytes, and \
             MaxRecordSizeInKiB, which is {}, allows {max} bytes. Make the record smaller, or create the stream with a \
             greater MaxRecordSizeInKiB, up to {}.",
            meta.record_kib_max,
            limits::RECORD_KIB_MAX
        )));
    }
    Ok(bytes)
}
