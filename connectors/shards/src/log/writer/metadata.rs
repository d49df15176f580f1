//! Streams are created, changed and deleted: each by one control frame, so that a crash leaves all of a change or nothing.

use super::Writer;
use crate::account::AccountSettings;
use crate::error::StoreError;
use crate::hashkey::HashRange;
use crate::ids::{ShardId, ShardKey, StreamName, Uuid};
use crate::lifecycle::{StreamStatus, Transition};
use crate::limits;
use crate::log::frame::frame_len;
use crate::state::Control;
use crate::stream::{CreateStream, ShardMeta, StreamMeta, StreamMode};
use crate::update::{Circumstances, StreamUpdate, StreamUpdated, decide, deletion};
use crate::view::Effect;

impl Writer {
    /// Creates a stream.
    pub(super) fn create(&mut self, request: CreateStream) -> Result<StreamMeta, StoreError> {
        let now = self.environment.clock.now_ms();
        match self.state.streams.get(&request.name) {
            Some(meta) if meta.is_gone(now) => self.sweep(vec![request.name.clone()]),
            Some(_) => return Err(StoreError::StreamExists(request.name)),
            None => {}
        }
        self.sweep_some();
        let count = request.shards.unwrap_or(limits::ON_DEMAND_SHARDS);
        let current = self.state.open_shards();
        if count > self.options.shards_max.saturating_sub(current) {
            return Err(StoreError::ShardLimit {
                current,
                limit: self.options.shards_max,
                requested: count,
            });
        }
        // Numbers of the stream that had this name a moment ago must not fit.
        let created_s = self.taken_s.get(&request.name).map_or(0, |taken| taken + 1);
        let sequence_created_s = (created_s > now / 1000).then_some(created_s);
        let mut id = [0; 16];
        let entropy = self.environment.entropy.fill(&mut id);
        entropy.map_err(|error| StoreError::io("get random bytes for", "a new stream", &error))?;
        let shards = HashRange::tiles(count)
            .zip(0..)
            .map(|(hash_range, index)| ShardMeta {
                key: ShardKey(self.state.next_shard + u64::from(index)),
                id: ShardId(index),
                hash_range,
                created_ms: now,
                parent: None,
                adjacent_parent: None,
                closed_ms: None,
                sequence_created_s,
            })
            .collect();
        let meta = StreamMeta {
            arn: format!(
                "arn:aws:kinesis:{}:{}:stream/{}",
                self.options.region, self.options.account, request.name
            ),
            name: request.name,
            id: Uuid(id),
            created_ms: now,
            mode: if request.shards.is_some() {
                StreamMode::Provisioned
            } else {
                StreamMode::OnDemand
            },
            retention_hours: request.retention_hours,
            record_kib_max: request.record_kib_max,
            shards,
            tags: request.tags,
            transition: Transition::start(StreamStatus::Creating, now, self.options.lifecycle_delay_ms),
            distribution: request.distribution,
            metrics: Vec::new(),
            encryption_key: None,
            policy: None,
            warm_throughput_mibps: request.warm_throughput_mibps,
        };
        self.control(&Control::StreamCreated(meta.clone()));
        self.effects.push(Effect::StreamCreated(meta.clone()));
        Ok(meta)
    }

    /// Changes a stream. The change takes at most `room` bytes in the log, or nothing happens.
    pub(super) fn update(
        &mut self,
        name: &StreamName,
        update: &StreamUpdate,
        room: usize,
    ) -> Result<StreamUpdated, StoreError> {
        let now_ms = self.environment.clock.now_ms();
        let meta = self.existing(name, now_ms)?;
        let last_arrival_ms = |key| self.state.shards.get(&key).map_or(0, |shard| shard.arrival_ms);
        let circumstances = Circumstances {
            now_ms,
            delay_ms: self.options.lifecycle_delay_ms,
            next_key: ShardKey(self.state.next_shard),
            open_shards: self.state.open_shards(),
            known_shards: self.state.shards.len(),
            shards_max: self.options.shards_max,
            last_arrival_ms: &last_arrival_ms,
        };
        let change = decide(meta, update, &circumstances)?;
        let before = meta.without_shards();
        let open_shards_before = meta.open_shards().count() as u32;
        let control = Control::StreamChanged {
            name: name.clone(),
            id: meta.id,
            change,
        };
        let json = serde_json::to_vec(&control).expect("strings, numbers and lists serialise");
        if frame_len(json.len()) > room {
            // The room was computed from the stream as the caller saw it.
            return Err(StoreError::StreamBusy {
                stream: name.clone(),
                status: StreamStatus::Updating,
            });
        }
        self.draft.control(&json, now_ms);
        self.state.apply(&control);
        let after = &self.state.streams[name];
        self.effects.push(Effect::StreamChanged(Box::new(after.clone())));
        Ok(StreamUpdated {
            before,
            after: after.without_shards(),
            open_shards_before,
            open_shards_after: after.open_shards().count() as u32,
        })
    }

    /// Deletes a stream, or begins to.
    pub(super) fn delete(&mut self, name: &StreamName) -> Result<(), StoreError> {
        let now_ms = self.environment.clock.now_ms();
        let meta = self.existing(name, now_ms)?;
        let status = meta.status(now_ms);
        if matches!(status, StreamStatus::Creating | StreamStatus::Deleting) {
            return Err(StoreError::StreamBusy {
                stream: name.clone(),
                status,
            });
        }
        match Transition::start(StreamStatus::Deleting, now_ms, self.options.lifecycle_delay_ms) {
            None => self.sweep(vec![name.clone()]),
            Some(transition) => {
                let control = Control::StreamChanged {
                    name: name.clone(),
                    id: meta.id,
                    change: deletion(meta, transition),
                };
                self.control(&control);
                let after = self.state.streams[name].clone();
                self.effects.push(Effect::StreamChanged(Box::new(after)));
            }
        }
        self.sweep_some();
        Ok(())
    }

    /// Makes or withdraws the account's commitment.
    pub(super) fn commitment(&mut self, enabled: bool) -> AccountSettings {
        let now_ms = self.environment.clock.now_ms();
        let settings = if enabled {
            self.state.account.enable(now_ms)
        } else {
            self.state.account.disable(now_ms)
        };
        if settings != self.state.account {
            self.control(&Control::AccountChanged(settings));
            self.effects.push(Effect::AccountChanged(settings));
        }
        settings
    }

    /// Streams whose deletion has come to its end.
    pub(super) fn gone_streams(&self) -> Vec<StreamName> {
        let now_ms = self.environment.clock.now_ms();
        let gone = self.state.streams.values().filter(|meta| meta.is_gone(now_ms));
        gone.map(|meta| meta.name.clone()).collect()
    }

    /// Removes streams for good. Each takes up to [`limits::SWEEP_BYTES`] in the log.
    pub(super) fn sweep(&mut self, names: Vec<StreamName>) {
        for name in names {
            let Some(meta) = self.state.streams.get(&name) else {
                continue;
            };
            let id = meta.id;
            let now_s = self.environment.clock.now_ms() / 1000;
            let taken_s = meta.shards.iter().map(ShardMeta::sequence_created_s).max();
            self.taken_s.retain(|_, taken| *taken >= now_s);
            self.taken_s.extend(
                taken_s
                    .filter(|taken| *taken >= now_s)
                    .map(|taken| (name.clone(), taken)),
            );
            self.control(&Control::StreamDeleted { name: name.clone(), id });
            self.effects.push(Effect::StreamDeleted(name));
        }
    }

    fn sweep_some(&mut self) {
        let mut gone = self.gone_streams();
        gone.truncate(limits::SWEEP_STREAMS_MAX);
        self.sweep(gone);
    }

    fn existing(&self, name: &StreamName, now_ms: u64) -> Result<&StreamMeta, StoreError> {
        self.state
            .streams
            .get(name)
            .filter(|meta| !meta.is_gone(now_ms))
            .ok_or_else(|| StoreError::StreamNotFound(name.clone()))
    }
}
