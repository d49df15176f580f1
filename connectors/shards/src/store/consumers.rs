//! Consumers of streams.

use super::ShardStore;
use crate::consumers::{ConsumerChange, ConsumerKey, ConsumerMeta, ConsumerStatus, ConsumerUpdate};
use crate::error::StoreError;
use crate::ids::{StreamName, is_name};
use crate::limits;
use crate::log::writer::Command;
use crate::update::add_tags;

impl ShardStore {
    /// Registers a consumer of a stream; answers when that is durable.
    ///
    /// # Errors
    /// [`StoreError::StreamNotFound`], [`StoreError::ConsumerExists`], [`StoreError::ConsumerLimit`],
    /// [`StoreError::Invalid`] for its name or tags.
    pub async fn register_consumer(
        &self,
        stream: &StreamName,
        name: &str,
        tags: Vec<(String, String)>,
    ) -> Result<ConsumerMeta, StoreError> {
        if !is_name(name) || name.len() > limits::STREAM_NAME_CHARS_MAX {
            return Err(StoreError::Invalid(format!(
                "{name:?} is not the name of a consumer: use 1 to {} of the characters a-z A-Z 0-9 _ . -",
                limits::STREAM_NAME_CHARS_MAX
            )));
        }
        let mut sorted = Vec::new();
        add_tags(&mut sorted, &tags)?;
        let tags = sorted;
        let name = name.to_owned();
        self.change_consumer(stream, ConsumerChange::Register { name, tags })
            .await
    }

    /// Deregisters a consumer; its subscriptions end.
    ///
    /// # Errors
    /// [`StoreError::StreamNotFound`], [`StoreError::ConsumerNotFound`].
    pub async fn deregister_consumer(
        &self,
        stream: &StreamName,
        consumer: &ConsumerMeta,
    ) -> Result<ConsumerMeta, StoreError> {
        self.change_consumer(stream, ConsumerChange::Deregister(key(consumer)))
            .await
    }

    /// Changes tags or the policy of a consumer.
    ///
    /// # Errors
    /// [`StoreError::StreamNotFound`], [`StoreError::ConsumerNotFound`], [`StoreError::Invalid`].
    pub async fn update_consumer(
        &self,
        stream: &StreamName,
        consumer: &ConsumerMeta,
        update: ConsumerUpdate,
    ) -> Result<ConsumerMeta, StoreError> {
        self.change_consumer(stream, ConsumerChange::Update(key(consumer), update))
            .await
    }

    /// Lists the consumers of a stream with their states, by name.
    ///
    /// # Errors
    /// [`StoreError::StreamNotFound`].
    pub fn consumers(&self, stream: &StreamName) -> Result<Vec<(ConsumerMeta, ConsumerStatus)>, StoreError> {
        let id = self.view().stream(stream)?.meta.id;
        let (now, delay) = (self.now_ms(), self.options().lifecycle_delay_ms);
        let all = self.view().consumers().of(id);
        Ok(all
            .iter()
            .filter_map(|consumer| Some((consumer.clone(), consumer.status(now, delay)?)))
            .collect())
    }

    /// Whether a stream has consumers: then it is deleted only when they may be deleted with it.
    ///
    /// # Errors
    /// [`StoreError::StreamNotFound`].
    pub fn has_consumers(&self, stream: &StreamName) -> Result<bool, StoreError> {
        Ok(!self.consumers(stream)?.is_empty())
    }

    async fn change_consumer(&self, stream: &StreamName, change: ConsumerChange) -> Result<ConsumerMeta, StoreError> {
        let id = self.view().stream(stream)?.meta.id;
        // Names, ARN, tags and policy of one consumer, and the names of all that may be forgotten on the way; text grows at
        // most sixfold in JSON.
        let bytes = (limits::CONSUMERS_MAX + 1) * 1_024 + 6 * (limits::TAGS_MAX * 4 * 400 + limits::POLICY_BYTES_MAX);
        let stream = stream.clone();
        self.ask(bytes, |reply| Command::Consumer {
            stream,
            id,
            change: Box::new(change),
            reply,
        })
        .await
    }
}

fn key(consumer: &ConsumerMeta) -> ConsumerKey {
    ConsumerKey {
        name: consumer.name.clone(),
        created_ms: consumer.created_ms,
    }
}
