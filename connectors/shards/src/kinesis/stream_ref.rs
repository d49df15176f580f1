//! Which stream a request means: StreamName or StreamARN.

use std::ops::Deref;
use std::sync::Arc;

use super::error::ApiError;
use super::item::Fields;
use super::shape::arn;
use crate::ids::StreamName;
use crate::lifecycle::StreamStatus;
use crate::store::ShardStore;
use crate::stream::{ShardMeta, StreamMeta};
use crate::view::StreamView;

/// A stream as it is at the time of a request. Nothing of it is copied: there may be thousands of shards.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    view: Arc<StreamView>,
    now_ms: u64,
    /// The time by which records expire.
    trusted_ms: u64,
}

impl Deref for Stream {
    type Target = StreamMeta;

    fn deref(&self) -> &StreamMeta {
        &self.view.meta
    }
}

impl Stream {
    /// What clients are told of its state.
    pub(crate) fn status(&self) -> StreamStatus {
        self.view.meta.status(self.now_ms)
    }

    /// The shards that are told, in the order of their ids: none before the stream is there, and no expired ones.
    pub(crate) fn shards(&self) -> impl Iterator<Item = &ShardMeta> {
        let there = self.status() != StreamStatus::Creating;
        self.view
            .meta
            .shards
            .iter()
            .filter(move |shard| there && !self.view.meta.is_expired(shard, self.trusted_ms))
    }

    /// Refuses a stream that has no records to read or write (yet).
    pub(crate) fn with_records(self, store: &ShardStore) -> Result<Self, ApiError> {
        if self.status() == StreamStatus::Creating {
            return Err(self.not_there(store));
        }
        Ok(self)
    }

    /// Refuses a stream that takes no records.
    pub(crate) fn writable(self, store: &ShardStore) -> Result<Self, ApiError> {
        if matches!(self.status(), StreamStatus::Creating | StreamStatus::Deleting) {
            return Err(self.not_there(store));
        }
        Ok(self)
    }

    /// Refuses a stream that is not there yet or will be gone.
    pub(crate) fn settled(self, store: &ShardStore) -> Result<Self, ApiError> {
        if matches!(self.status(), StreamStatus::Creating | StreamStatus::Deleting) {
            return Err(ApiError::in_use(format!(
                "Stream {} under account {} not ACTIVE, instead in state {}",
                self.name,
                store.options().account,
                self.status()
            )));
        }
        Ok(self)
    }

    /// The service tells producers and readers of such a stream that it does not exist.
    fn not_there(&self, store: &ShardStore) -> ApiError {
        ApiError::not_found(format!(
            "Stream {} under account {} not found.",
            self.name,
            store.options().account
        ))
    }
}

/// The name of the stream that a request means.
pub(crate) fn name(store: &ShardStore, fields: &Fields) -> Result<StreamName, ApiError> {
    no_stream_id(fields)?;
    let from_arn = match fields.text("StreamARN") {
        None => None,
        Some(text) => Some(by_arn(store, text)?.name.clone()),
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
pub(crate) fn stream(store: &ShardStore, fields: &Fields) -> Result<Stream, ApiError> {
    named(store, &name(store, fields)?)
}

/// The stream with a name.
pub(crate) fn named(store: &ShardStore, name: &StreamName) -> Result<Stream, ApiError> {
    let view = store
        .stream(name)
        .map_err(|error| ApiError::of(error, &store.options().account))?;
    Ok(Stream {
        view,
        now_ms: store.now_ms(),
        trusted_ms: store.trusted_ms(),
    })
}

/// The stream with an ARN.
pub(crate) fn by_arn(store: &ShardStore, text: &str) -> Result<Stream, ApiError> {
    let missing = || ApiError::not_found(format!("Stream {text} not found."));
    let name = arn(text)
        .and_then(|name| StreamName::new(name).ok())
        .ok_or_else(missing)?;
    named(store, &name)
        .ok()
        .filter(|stream| stream.arn == text)
        .ok_or_else(missing)
}

/// StreamId is a way to name streams that this release does not have.
pub(crate) fn no_stream_id(fields: &Fields) -> Result<(), ApiError> {
    if fields.text("StreamId").is_some() {
        return Err(ApiError::invalid_argument(
            "StreamId is not supported here: name the stream by StreamName or StreamARN.",
        ));
    }
    Ok(())
}
