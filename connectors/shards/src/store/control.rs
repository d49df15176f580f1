//! Streams: creating, changing, deleting and describing them.

use std::sync::Arc;

use super::{ShardStore, options};
use crate::account::AccountSettings;
use crate::error::StoreError;
use crate::hashkey::HashKey;
use crate::ids::{ShardId, StreamName};
use crate::lifecycle::StreamStatus;
use crate::limits;
use crate::log::frame::frame_len;
use crate::log::writer::Command;
use crate::stream::{CreateStream, StreamMeta};
use crate::update::{StreamUpdate, StreamUpdated};
use crate::view::StreamView;

/// A shard takes some 300 bytes of JSON.
const SHARD_BYTES: usize = 420;
/// The key of a shard takes up to 20 digits of JSON, and a comma.
const SHARD_KEY_BYTES: usize = 24;

impl ShardStore {
    /// Creates a stream; answers when it is durable.
    ///
    /// # Errors
    /// [`StoreError::StreamExists`], [`StoreError::ShardLimit`], [`StoreError::Invalid`].
    pub async fn create_stream(&self, request: CreateStream) -> Result<StreamMeta, StoreError> {
        options::check_stream(&request)?;
        let tags = tag_bytes(&request.tags);
        let shards = request
            .shards
            .unwrap_or(limits::ON_DEMAND_SHARDS)
            .min(limits::SHARDS_MAX * 8);
        let bytes = sweep_bytes() + frame_len(2_048 + SHARD_BYTES * shards as usize + tags);
        let request = Box::new(request);
        self.ask(bytes, |reply| Command::Create { request, reply }).await
    }

    /// Changes a stream; answers when the change is durable and visible, as a whole.
    ///
    /// # Errors
    /// [`StoreError::StreamNotFound`]; [`StoreError::StreamBusy`] while another change is told;
    /// [`StoreError::ShardNotFound`], [`StoreError::ShardClosed`], [`StoreError::SplitPoint`],
    /// [`StoreError::NotAdjacent`], [`StoreError::ShardLimit`] of resharding; [`StoreError::Invalid`].
    pub async fn update_stream(&self, stream: &StreamName, update: StreamUpdate) -> Result<StreamUpdated, StoreError> {
        let view = self.stream(stream)?;
        let room = update_bytes(&view.meta, &update);
        if room > limits::FRAME_PAYLOAD_BYTES_MAX {
            return Err(StoreError::Limit(format!(
                "the change of stream {stream} would take {room} bytes in the log: make it in smaller steps"
            )));
        }
        let stream = stream.clone();
        self.ask(room, |reply| Command::Update {
            stream,
            update: Box::new(update),
            room,
            reply,
        })
        .await
    }

    /// Splits an open shard in two, the second of which starts at `at`.
    ///
    /// # Errors
    /// As [`Self::update_stream`].
    pub async fn split_shard(&self, stream: &StreamName, shard: ShardId, at: HashKey) -> Result<(), StoreError> {
        let update = StreamUpdate::Split { shard, at };
        self.update_stream(stream, update).await.map(drop)
    }

    /// Merges two open neighbours into one.
    ///
    /// # Errors
    /// As [`Self::update_stream`].
    pub async fn merge_shards(&self, stream: &StreamName, shard: ShardId, adjacent: ShardId) -> Result<(), StoreError> {
        let update = StreamUpdate::Merge { shard, adjacent };
        self.update_stream(stream, update).await.map(drop)
    }

    /// Deletes a stream and all its records; answers when that is durable.
    ///
    /// # Errors
    /// [`StoreError::StreamNotFound`], [`StoreError::StreamBusy`].
    pub async fn delete_stream(&self, stream: &StreamName) -> Result<(), StoreError> {
        let view = self.stream(stream)?;
        let bytes = sweep_bytes() + frame_len(attribute_bytes(&view.meta));
        let stream = stream.clone();
        self.ask(bytes, |reply| Command::Delete { stream, reply }).await
    }

    /// Describes a stream, with the shards that are listed: closed ones until their records have expired.
    ///
    /// # Errors
    /// [`StoreError::StreamNotFound`].
    pub fn describe_stream(&self, stream: &StreamName) -> Result<StreamMeta, StoreError> {
        Ok(self.listed(&self.stream(stream)?.meta))
    }

    /// Describes all streams, by name.
    pub fn list_streams(&self) -> Vec<StreamMeta> {
        let now_ms = self.now_ms();
        let streams = self.view().streams();
        let there = streams.iter().filter(|stream| !stream.meta.is_gone(now_ms));
        there.map(|stream| self.listed(&stream.meta)).collect()
    }

    /// Open shards of all streams.
    pub fn open_shards(&self) -> u32 {
        let now_ms = self.now_ms();
        let streams = self.view().streams();
        let there = streams.iter().filter(|stream| !stream.meta.is_gone(now_ms));
        there.map(|stream| stream.meta.open_shards().count() as u32).sum()
    }

    /// A stream that exists, with all its shards.
    pub(crate) fn stream(&self, name: &StreamName) -> Result<Arc<StreamView>, StoreError> {
        let stream = self.view().stream(name)?;
        if stream.meta.transition.is_some() && stream.meta.is_gone(self.now_ms()) {
            return Err(StoreError::StreamNotFound(name.clone()));
        }
        Ok(stream)
    }

    /// A stream that takes records.
    pub(crate) fn writable_stream(&self, name: &StreamName) -> Result<Arc<StreamView>, StoreError> {
        let stream = self.stream(name)?;
        if stream.meta.transition.is_some() {
            let status = stream.meta.status(self.now_ms());
            if matches!(status, StreamStatus::Creating | StreamStatus::Deleting) {
                return Err(StoreError::StreamBusy {
                    stream: name.clone(),
                    status,
                });
            }
        }
        Ok(stream)
    }

    pub(crate) fn account_settings(&self) -> AccountSettings {
        self.view().account()
    }

    pub(crate) async fn set_commitment(&self, enabled: bool) -> Result<AccountSettings, StoreError> {
        self.ask(1_024, |reply| Command::Commit { enabled, reply }).await
    }

    fn listed(&self, meta: &StreamMeta) -> StreamMeta {
        let trusted_ms = self.trusted_ms();
        let mut listed = meta.clone();
        listed.shards.retain(|shard| !meta.is_expired(shard, trusted_ms));
        listed
    }
}

fn sweep_bytes() -> usize {
    (limits::SWEEP_STREAMS_MAX + 1) * limits::SWEEP_BYTES
}

/// Bytes that texts take in JSON, where every one may become six.
fn tag_bytes(tags: &[(String, String)]) -> usize {
    tags.iter().map(|(key, value)| 6 * (key.len() + value.len()) + 8).sum()
}

/// Bytes that a stream without its shards takes in the log, at most.
fn attribute_bytes(meta: &StreamMeta) -> usize {
    let texts = meta.policy.as_ref().map_or(0, String::len) + meta.encryption_key.as_ref().map_or(0, String::len);
    2_048 + tag_bytes(&meta.tags) + 6 * texts
}

/// Bytes that an update takes in the log, at most.
fn update_bytes(meta: &StreamMeta, update: &StreamUpdate) -> usize {
    let open = || meta.open_shards().count();
    let payload = match update {
        StreamUpdate::Split { .. } | StreamUpdate::Merge { .. } => 2 * (SHARD_BYTES + SHARD_KEY_BYTES),
        // At most one shard for each boundary of the old and the new tiling, and one for each merge.
        StreamUpdate::ShardCount(target) => {
            let (open, target) = (open(), (*target as usize).min(2 * open()));
            2 * (open + 2 * target) * SHARD_BYTES + open * SHARD_KEY_BYTES
        }
        StreamUpdate::ForgetClosedBefore(_) => meta.shards.len() * SHARD_KEY_BYTES,
        StreamUpdate::AddTags(tags) => tag_bytes(tags),
        StreamUpdate::Policy(policy) => {
            6 * policy
                .as_ref()
                .map_or(0, |policy| policy.len().min(limits::POLICY_BYTES_MAX))
        }
        StreamUpdate::Encryption(key) => {
            6 * key
                .as_ref()
                .map_or(0, |key| key.len().min(4 * limits::KEY_ID_CHARS_MAX))
        }
        _ => 0,
    };
    frame_len(attribute_bytes(meta) + payload)
}
