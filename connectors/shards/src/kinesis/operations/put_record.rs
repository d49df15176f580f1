//! PutRecord: one record, acknowledged when it is durable.

use super::put_records::{entry, partition_keys, record_bytes};
use super::{encryption_type, store_error};
use crate::kinesis::error::ApiError;
use crate::kinesis::item::Fields;
use crate::kinesis::producer::Numbering;
use crate::kinesis::shape::{
    DATA, DRY_RUN, EXPLICIT_HASH_KEY, Field, Kind, PARTITION_KEY, Pattern, STREAM_ARN, STREAM_ID, STREAM_NAME,
};
use crate::kinesis::stream_ref;
use crate::sequence::SequenceNumber;
use crate::store::ShardStore;

pub(super) const SHAPE: &[Field] = &[
    Field::new("SequenceNumberForOrdering", Kind::Text).pattern(Pattern::SequenceNumber),
    PARTITION_KEY,
    EXPLICIT_HASH_KEY,
    DATA,
    STREAM_NAME,
    STREAM_ARN,
    STREAM_ID,
    DRY_RUN,
];

pub(super) async fn run(store: &ShardStore, fields: Fields, numbering: &mut Numbering) -> Result<Fields, ApiError> {
    let meta = stream_ref::stream(store, &fields)?.writable(store)?;
    partition_keys(&meta, "", std::iter::once(&fields))?;
    let entry = entry(&fields)?;
    record_bytes(&entry, &meta)?;
    if let Some(text) = fields.text("SequenceNumberForOrdering") {
        // Numbers rise by themselves: whoever has this one got it before, and the next is greater.
        let sound = text
            .parse::<SequenceNumber>()
            .is_ok_and(|number| number.time_s <= store.now_ms() / 1000 + 1);
        if !sound {
            return Err(ApiError::invalid_argument(format!(
                "ExclusiveMinimumSequenceNumber {text} used in PutRecord on stream {} under account {} is invalid.",
                meta.name,
                store.options().account
            )));
        }
    }
    if fields.flag("DryRun") {
        return Err(ApiError::dry_run());
    }
    let receipt = numbering
        .put(store, &meta.name, vec![entry])
        .await
        .and_then(|mut receipts| receipts.pop().unwrap_or(Err(crate::error::StoreError::Closed)))
        .map_err(store_error(store))?;
    Ok(Fields::new()
        .with("ShardId", receipt.shard.to_string())
        .with("SequenceNumber", receipt.sequence.to_string())
        .with("EncryptionType", encryption_type(&meta)))
}
