//! StartStreamEncryption and StopStreamEncryption. The key's name is kept and told, which is what deployment tools ask
//! for; records are **not** encrypted at rest by this release, and the log says so.

use super::change;
use crate::kinesis::error::ApiError;
use crate::kinesis::item::Fields;
use crate::kinesis::shape::{Field, Kind, STREAM_ARN, STREAM_ID, STREAM_NAME};
use crate::kinesis::stream_ref;
use crate::limits;
use crate::store::ShardStore;
use crate::update::StreamUpdate;

pub(super) const SHAPE: &[Field] = &[
    STREAM_NAME,
    Field::new("EncryptionType", Kind::Text)
        .required()
        .values(&["NONE", "KMS"]),
    Field::new("KeyId", Kind::Text)
        .required()
        .range(1, limits::KEY_ID_CHARS_MAX as i64),
    STREAM_ARN,
    STREAM_ID,
];

pub(super) async fn start(store: &ShardStore, fields: Fields) -> Result<(), ApiError> {
    let stream = stream_ref::stream(store, &fields)?;
    let key = kms_key(&fields)?;
    change(store, &stream, StreamUpdate::Encryption(Some(key))).await?;
    tracing::warn!(stream = %stream.name, "StartStreamEncryption: the key is noted, but records are not encrypted at rest");
    Ok(())
}

pub(super) async fn stop(store: &ShardStore, fields: Fields) -> Result<(), ApiError> {
    let stream = stream_ref::stream(store, &fields)?;
    kms_key(&fields)?;
    change(store, &stream, StreamUpdate::Encryption(None)).await.map(drop)
}

fn kms_key(fields: &Fields) -> Result<String, ApiError> {
    if fields.text("EncryptionType") != Some("KMS") {
        return Err(ApiError::invalid_argument("EncryptionType must be KMS."));
    }
    Ok(fields.text("KeyId").unwrap_or_default().to_owned())
}
