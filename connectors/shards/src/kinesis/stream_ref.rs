//! Which stream a request means: StreamName or StreamARN.

use super::error::ApiError;
use super::item::Fields;
use super::shape::arn;
use crate::ids::StreamName;
use crate::store::ShardStore;
use crate::stream::StreamMeta;

/// The name of the stream that a request means.
pub(crate) fn name(store: &ShardStore, fields: &Fields) -> Result<StreamName, ApiError> {
    if fields.text("StreamId").is_some() {
        return Err(ApiError::invalid_argument(
            "StreamId is not supported here: name the stream by StreamName or StreamARN.",
        ));
    }
    let from_arn = match fields.text("StreamARN") {
        None => None,
        Some(text) => {
            let missing = || ApiError::not_found(format!("Stream {text} not found."));
            let name = arn(text)
                .and_then(|name| StreamName::new(name).ok())
                .ok_or_else(missing)?;
            let meta = store.describe_stream(&name).map_err(|_| missing())?;
            if meta.arn != text {
                return Err(missing());
            }
            Some(name)
        }
    };
    match (fields.text("StreamName"), from_arn) {
        (None, None) => Err(ApiError::invalid_argument(
            "Either StreamName or StreamARN must be provided.",
        )),
        (Some(name), Some(from_arn)) if name != from_arn.as_str() => Err(ApiError::invalid_argument(format!(
            "StreamName {name} and StreamARN name different streams: provide one of them."
        ))),
        (_, Some(name)) => Ok(name),
        (Some(name), None) => StreamName::new(name).map_err(|error| ApiError::invalid_argument(error.to_string())),
    }
}

/// The stream that a request means.
pub(crate) fn stream(store: &ShardStore, fields: &Fields) -> Result<StreamMeta, ApiError> {
    let name = name(store, fields)?;
    store
        .describe_stream(&name)
        .map_err(|error| ApiError::of(error, &store.options().account))
}
