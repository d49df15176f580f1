//! Registered consumers of streams: who may subscribe to shards.
//!
//! They are metadata like streams: the writer decides on every change, the log keeps it, and they go with their stream.
//! What state a consumer is in follows from when it was made and from the store's option
//! [`crate::StoreOptions::lifecycle_delay_ms`]; nothing has to happen for it to become active.

use std::sync::Arc;
use std::sync::RwLock;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::ids::Uuid;
use crate::update::{add_tags, check_policy};
use crate::view::{read, write};

/// A registered consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerMeta {
    /// Its name: 1 to 128 of `a-zA-Z0-9_.-`, once per stream.
    pub name: String,
    /// `STREAM-ARN/consumer/NAME:SECONDS`; the seconds of its creation tell it from others of that name.
    pub arn: String,
    /// Creation, milliseconds since 1970.
    pub created_ms: u64,
    /// When it was deregistered; it is there for the life cycle's delay still.
    #[serde(default)]
    pub deleted_ms: Option<u64>,
    /// Tags, by key.
    #[serde(default)]
    pub tags: Vec<(String, String)>,
    /// Resource policy, JSON; kept, not enforced.
    #[serde(default)]
    pub policy: Option<String>,
}

/// The state of a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumerStatus {
    /// It cannot subscribe yet.
    Creating,
    /// It can subscribe.
    Active,
    /// It was deregistered.
    Deleting,
}

impl ConsumerStatus {
    /// The name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "CREATING",
            Self::Active => "ACTIVE",
            Self::Deleting => "DELETING",
        }
    }
}

impl ConsumerMeta {
    /// The state at a time; `None` when it is gone.
    pub fn status(&self, now_ms: u64, delay_ms: u64) -> Option<ConsumerStatus> {
        match self.deleted_ms {
            Some(deleted) if deleted.saturating_add(delay_ms) <= now_ms => None,
            Some(_) => Some(ConsumerStatus::Deleting),
            None if self.created_ms.saturating_add(delay_ms) <= now_ms || delay_ms == 0 => Some(ConsumerStatus::Active),
            None => Some(ConsumerStatus::Creating),
        }
    }
}

/// A change of a stream's consumers.
#[derive(Debug)]
pub(crate) enum ConsumerChange {
    Register { name: String, tags: Vec<(String, String)> },
    Deregister(ConsumerKey),
    Update(ConsumerKey, ConsumerUpdate),
}

/// A change of a consumer's attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumerUpdate {
    /// Adds tags, or gives those of the same key a new value.
    AddTags(Vec<(String, String)>),
    /// Removes tags; keys that are not there do not matter.
    RemoveTags(Vec<String>),
    /// Sets or removes the resource policy, JSON.
    Policy(Option<String>),
}

impl ConsumerUpdate {
    /// The consumer after it.
    pub(crate) fn apply(self, mut consumer: ConsumerMeta) -> Result<ConsumerMeta, StoreError> {
        match self {
            Self::AddTags(tags) => add_tags(&mut consumer.tags, &tags)?,
            Self::RemoveTags(keys) => consumer.tags.retain(|(key, _)| !keys.contains(key)),
            Self::Policy(policy) => {
                policy.as_deref().map_or(Ok(()), check_policy)?;
                consumer.policy = policy;
            }
        }
        Ok(consumer)
    }
}

/// Which consumer is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConsumerKey {
    pub(crate) name: String,
    /// Its creation, when one of the same name is not meant.
    pub(crate) created_ms: u64,
}

/// What readers see: the consumers of each stream, in the order of their names.
#[derive(Debug, Default)]
pub(crate) struct ConsumerView(RwLock<HashMap<Uuid, Arc<[ConsumerMeta]>>>);

impl ConsumerView {
    pub(crate) fn set(&self, stream: Uuid, consumers: Vec<ConsumerMeta>) {
        if consumers.is_empty() {
            write(&self.0).remove(&stream);
        } else {
            write(&self.0).insert(stream, consumers.into());
        }
    }

    pub(crate) fn of(&self, stream: Uuid) -> Arc<[ConsumerMeta]> {
        read(&self.0).get(&stream).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_follow_from_the_times() {
        let mut consumer = ConsumerMeta {
            name: "c".to_owned(),
            arn: String::new(),
            created_ms: 100,
            deleted_ms: None,
            tags: Vec::new(),
            policy: None,
        };
        assert_eq!(consumer.status(100, 50), Some(ConsumerStatus::Creating));
        assert_eq!(consumer.status(150, 50), Some(ConsumerStatus::Active));
        // Also when the clock went back.
        assert_eq!(consumer.status(99, 0), Some(ConsumerStatus::Active));
        consumer.deleted_ms = Some(200);
        assert_eq!(consumer.status(249, 50), Some(ConsumerStatus::Deleting));
        assert_eq!(consumer.status(250, 50), None);
    }
}
