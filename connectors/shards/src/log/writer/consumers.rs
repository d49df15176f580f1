//! Decisions on consumers.

use super::Writer;
use crate::consumers::{ConsumerChange, ConsumerKey, ConsumerMeta, ConsumerStatus};
use crate::error::StoreError;
use crate::ids::{StreamName, Uuid};
use crate::limits;
use crate::state::Control;
use crate::view::Effect;

impl Writer {
    /// Changes the consumers of a stream; answers with the consumer as it is then.
    pub(super) fn change_consumer(
        &mut self,
        stream: &StreamName,
        id: Uuid,
        change: ConsumerChange,
    ) -> Result<ConsumerMeta, StoreError> {
        let Some(meta) = self.state.streams.get(stream).filter(|meta| meta.id == id) else {
            return Err(StoreError::StreamNotFound(stream.clone()));
        };
        let stream_arn = meta.arn.clone();
        let now = self.environment.clock.now_ms();
        self.forget_consumers(id, now);
        let delay = self.options.lifecycle_delay_ms;
        let consumer = match change {
            ConsumerChange::Register { name, tags } => {
                let consumers = self.state.consumers.get(&id);
                if consumers.is_some_and(|consumers| consumers.contains_key(&name)) {
                    return Err(StoreError::ConsumerExists {
                        stream: stream.clone(),
                        consumer: name,
                    });
                }
                let count = consumers.map_or(0, |consumers| consumers.len());
                let creating = consumers.into_iter().flat_map(|consumers| consumers.values());
                let creating = creating.filter(|one| one.status(now, delay) == Some(ConsumerStatus::Creating));
                for (count, limit) in [
                    (count, limits::CONSUMERS_MAX),
                    (creating.count(), limits::CONSUMERS_CREATING_MAX),
                ] {
                    if count >= limit {
                        return Err(StoreError::ConsumerLimit {
                            stream: stream.clone(),
                            limit,
                        });
                    }
                }
                ConsumerMeta {
                    arn: format!("{stream_arn}/consumer/{name}:{}", now / 1000),
                    name,
                    created_ms: now,
                    deleted_ms: None,
                    tags,
                    policy: None,
                }
            }
            ConsumerChange::Deregister(key) => {
                let mut consumer = self.consumer(stream, id, &key)?;
                consumer.deleted_ms.get_or_insert(now);
                if delay == 0 {
                    self.control(&Control::ConsumerGone {
                        stream: id,
                        name: key.name,
                    });
                    self.show_consumers(id);
                    return Ok(consumer);
                }
                consumer
            }
            ConsumerChange::Update(key, update) => update.apply(self.consumer(stream, id, &key)?)?,
        };
        self.control(&Control::Consumer {
            stream: id,
            consumer: consumer.clone(),
        });
        self.show_consumers(id);
        Ok(consumer)
    }

    fn consumer(&self, stream: &StreamName, id: Uuid, key: &ConsumerKey) -> Result<ConsumerMeta, StoreError> {
        let consumers = self.state.consumers.get(&id);
        consumers
            .and_then(|consumers| consumers.get(&key.name))
            .filter(|consumer| consumer.created_ms == key.created_ms)
            .cloned()
            .ok_or_else(|| StoreError::ConsumerNotFound {
                stream: stream.clone(),
                consumer: key.name.clone(),
            })
    }

    /// Drops the consumers whose time is up.
    fn forget_consumers(&mut self, id: Uuid, now: u64) {
        let delay = self.options.lifecycle_delay_ms;
        let consumers = self.state.consumers.get(&id);
        let gone: Vec<String> = consumers
            .into_iter()
            .flat_map(|consumers| consumers.values())
            .filter(|consumer| consumer.status(now, delay).is_none())
            .map(|consumer| consumer.name.clone())
            .collect();
        for name in gone {
            self.control(&Control::ConsumerGone { stream: id, name });
        }
    }

    fn show_consumers(&mut self, id: Uuid) {
        let consumers = self.state.consumers.get(&id);
        let consumers = consumers.map_or_else(Vec::new, |consumers| consumers.values().cloned().collect());
        self.effects.push(Effect::Consumers(id, consumers));
    }
}
