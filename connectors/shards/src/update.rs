//! Changes of a stream: what can be asked for ([`StreamUpdate`]), what it comes to ([`StreamChange`], the contents of one
//! control frame), and the pure decision between them. What values are allowed stands in `checks.rs`.

mod checks;

use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::hashkey::HashKey;
use crate::ids::{ShardId, ShardKey};
use crate::lifecycle::{StreamStatus, Transition};
use crate::limits;
use crate::reshard::{Reshard, ShardChange};
use crate::stream::{RecordDistribution, ShardMeta, ShardMetric, StreamMeta, StreamMode};

use checks::{check_count, check_key_id, check_policy};
pub(crate) use checks::{check_record_kib, check_retention, check_tags, check_warm_throughput};

/// A change of a stream. Each takes effect as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamUpdate {
    /// Splits an open shard in two; `at` is where the second child starts.
    Split {
        /// The shard.
        shard: ShardId,
        /// First hash key of the second child.
        at: HashKey,
    },
    /// Merges two open neighbours into one.
    Merge {
        /// Becomes ParentShardId of the child.
        shard: ShardId,
        /// Becomes AdjacentParentShardId of the child.
        adjacent: ShardId,
    },
    /// Brings the stream to this many open shards of equal size: at most double, at least half of what it has.
    ShardCount(u32),
    /// Keeps records longer: hours, 24 to 8,760.
    IncreaseRetention(u32),
    /// Keeps records shorter: hours, 24 to 8,760.
    DecreaseRetention(u32),
    /// Changes the capacity mode; the shards stay.
    Mode {
        /// The new mode.
        mode: StreamMode,
        /// MiB/s asked for in advance; on-demand only.
        warm_throughput_mibps: Option<u32>,
    },
    /// KiB of the largest record: 1,024 to 10,240.
    MaxRecordKib(u32),
    /// MiB/s asked for in advance; on-demand only.
    WarmThroughput(u32),
    /// How records find their shard.
    Distribution(RecordDistribution),
    /// Adds tags, or gives those of the same key a new value.
    AddTags(Vec<(String, String)>),
    /// Removes tags; keys that are not there do not matter.
    RemoveTags(Vec<String>),
    /// Sets or removes the resource policy, JSON.
    Policy(Option<String>),
    /// Adds measurements of each shard.
    EnableMetrics(Vec<ShardMetric>),
    /// Removes measurements of each shard.
    DisableMetrics(Vec<ShardMetric>),
    /// Sets or removes the key that the stream is said to be encrypted with.
    Encryption(Option<String>),
    /// Forgets closed shards that were closed before this moment, milliseconds since 1970. Their records must have been
    /// removed, or never be wanted again.
    ForgetClosedBefore(u64),
}

/// What an update did: the stream without its shards, before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamUpdated {
    /// The stream before.
    pub before: StreamMeta,
    /// The stream after.
    pub after: StreamMeta,
    /// Open shards before.
    pub open_shards_before: u32,
    /// Open shards after.
    pub open_shards_after: u32,
}

/// What changes in a stream. Whoever applies it needs no decision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamChange {
    /// The stream without its shards, when anything in there changes.
    #[serde(default)]
    pub(crate) stream: Option<Box<StreamMeta>>,
    /// Shards that close, at `at_ms`.
    #[serde(default)]
    pub(crate) closed: Vec<ShardKey>,
    #[serde(default)]
    pub(crate) at_ms: u64,
    /// New shards in the order of their ids; some are closed already.
    #[serde(default)]
    pub(crate) created: Vec<ShardMeta>,
    /// Closed shards that are forgotten.
    #[serde(default)]
    pub(crate) forgotten: Vec<ShardKey>,
}

impl StreamChange {
    /// Applies the change. Doing it again changes nothing.
    pub(crate) fn apply(&self, meta: &mut StreamMeta) {
        if let Some(stream) = &self.stream {
            let shards = std::mem::take(&mut meta.shards);
            *meta = StreamMeta {
                shards,
                ..(**stream).clone()
            };
        }
        for key in &self.closed {
            // Keys rise with ids.
            if let Ok(at) = meta.shards.binary_search_by_key(key, |shard| shard.key) {
                meta.shards[at].closed_ms = Some(self.at_ms);
            }
        }
        for shard in &self.created {
            if meta.shards.last().is_none_or(|last| last.id < shard.id) {
                meta.shards.push(shard.clone());
            }
        }
        meta.shards
            .retain(|shard| self.forgotten.binary_search(&shard.key).is_err());
    }
}

/// What a decision needs to know beside the stream.
pub(crate) struct Circumstances<'a> {
    pub(crate) now_ms: u64,
    /// How long clients are told of a change.
    pub(crate) delay_ms: u64,
    /// The store's next shard key.
    pub(crate) next_key: ShardKey,
    /// Open shards of all streams.
    pub(crate) open_shards: u32,
    /// Shards of all streams, closed ones among them.
    pub(crate) known_shards: usize,
    /// Open shards that all streams may have.
    pub(crate) shards_max: u32,
    /// Arrival of a shard's last record.
    pub(crate) last_arrival_ms: &'a dyn Fn(ShardKey) -> u64,
}

/// Decides on an update of a stream that exists.
pub(crate) fn decide(
    meta: &StreamMeta,
    update: &StreamUpdate,
    circumstances: &Circumstances<'_>,
) -> Result<StreamChange, StoreError> {
    let status = meta.status(circumstances.now_ms);
    let ready = status == StreamStatus::Active || (!takes_time(update) && status == StreamStatus::Updating);
    if !ready && !matches!(update, StreamUpdate::ForgetClosedBefore(_)) {
        return Err(StoreError::StreamBusy {
            stream: meta.name.clone(),
            status,
        });
    }
    let mut change = match update {
        StreamUpdate::Split { shard, .. } => reshard(meta, circumstances, &[*shard], update)?,
        StreamUpdate::Merge { shard, adjacent } => reshard(meta, circumstances, &[*shard, *adjacent], update)?,
        StreamUpdate::ShardCount(target) => {
            check_count(meta.open_shards().count() as u32, *target)?;
            let all: Vec<ShardId> = meta.open_shards().map(|shard| shard.id).collect();
            reshard(meta, circumstances, &all, update)?
        }
        StreamUpdate::ForgetClosedBefore(time_ms) => StreamChange {
            forgotten: meta
                .shards
                .iter()
                .filter(|shard| shard.closed_ms.is_some_and(|closed| closed < *time_ms))
                .map(|shard| shard.key)
                .collect(),
            ..StreamChange::default()
        },
        _ => {
            let mut after = meta.without_shards();
            attributes(&mut after, update)?;
            StreamChange {
                stream: Some(Box::new(after)),
                ..StreamChange::default()
            }
        }
    };
    if takes_time(update)
        && let Some(transition) =
            Transition::start(StreamStatus::Updating, circumstances.now_ms, circumstances.delay_ms)
    {
        change
            .stream
            .get_or_insert_with(|| Box::new(meta.without_shards()))
            .transition = Some(transition);
    }
    Ok(change)
}

/// The change that deletes a stream after a while.
pub(crate) fn deletion(meta: &StreamMeta, transition: Transition) -> StreamChange {
    let mut after = meta.without_shards();
    after.transition = Some(transition);
    StreamChange {
        stream: Some(Box::new(after)),
        ..StreamChange::default()
    }
}

/// Whether the service lets a stream be UPDATING for this.
fn takes_time(update: &StreamUpdate) -> bool {
    !matches!(
        update,
        StreamUpdate::AddTags(_)
            | StreamUpdate::RemoveTags(_)
            | StreamUpdate::Policy(_)
            | StreamUpdate::ForgetClosedBefore(_)
    )
}

fn reshard(
    meta: &StreamMeta,
    circumstances: &Circumstances<'_>,
    involved: &[ShardId],
    update: &StreamUpdate,
) -> Result<StreamChange, StoreError> {
    // A shard is not closed before its last record arrived, whatever the clock says.
    let at_ms = involved
        .iter()
        .filter_map(|id| meta.shard(*id))
        .map(|shard| (circumstances.last_arrival_ms)(shard.key))
        .fold(circumstances.now_ms, u64::max);
    let mut reshard = Reshard::new(meta, at_ms, circumstances.next_key);
    let before = reshard.open_shards();
    match update {
        StreamUpdate::Split { shard, at } => reshard.split(*shard, *at)?,
        StreamUpdate::Merge { shard, adjacent } => reshard.merge(*shard, *adjacent)?,
        StreamUpdate::ShardCount(target) => reshard.scale(*target),
        _ => {}
    }
    let more = reshard.open_shards().saturating_sub(before);
    if more > circumstances.shards_max.saturating_sub(circumstances.open_shards) {
        return Err(StoreError::ShardLimit {
            current: circumstances.open_shards,
            limit: circumstances.shards_max,
            requested: more,
        });
    }
    let ShardChange { closed, created } = reshard.finish();
    let known = circumstances.known_shards + created.len();
    let known_max = circumstances.shards_max as usize * limits::KNOWN_SHARDS_PER_OPEN_MAX;
    if known > known_max {
        return Err(StoreError::Limit(format!(
            "the store would know {known} shards, closed ones among them, and the limit is {known_max}: closed shards \
             are forgotten when the retention of their records is over"
        )));
    }
    Ok(StreamChange {
        closed,
        at_ms,
        created,
        ..StreamChange::default()
    })
}

fn attributes(meta: &mut StreamMeta, update: &StreamUpdate) -> Result<(), StoreError> {
    match update {
        StreamUpdate::IncreaseRetention(hours) => {
            check_retention(*hours)?;
            if *hours < meta.retention_hours {
                return Err(StoreError::Invalid(format!(
                    "Requested retention period ({hours} hours) for stream {} can not be shorter than existing \
                     retention period ({} hours). Use DecreaseRetentionPeriod API.",
                    meta.name, meta.retention_hours
                )));
            }
            meta.retention_hours = *hours;
        }
        StreamUpdate::DecreaseRetention(hours) => {
            check_retention(*hours)?;
            if *hours > meta.retention_hours {
                return Err(StoreError::Invalid(format!(
                    "Requested retention period ({hours} hours) for stream {} can not be longer than existing \
                     retention period ({} hours). Use IncreaseRetentionPeriod API.",
                    meta.name, meta.retention_hours
                )));
            }
            meta.retention_hours = *hours;
        }
        StreamUpdate::Mode {
            mode,
            warm_throughput_mibps,
        } => {
            check_warm_throughput(*mode, *warm_throughput_mibps)?;
            meta.mode = *mode;
            meta.warm_throughput_mibps = *warm_throughput_mibps;
        }
        StreamUpdate::MaxRecordKib(kib) => {
            check_record_kib(*kib)?;
            meta.record_kib_max = *kib;
        }
        StreamUpdate::WarmThroughput(mibps) => {
            check_warm_throughput(meta.mode, Some(*mibps))?;
            meta.warm_throughput_mibps = Some(*mibps);
        }
        StreamUpdate::Distribution(distribution) => meta.distribution = *distribution,
        StreamUpdate::AddTags(tags) => {
            for (key, value) in tags {
                match meta.tags.iter_mut().find(|(known, _)| known == key) {
                    Some((_, known)) => known.clone_from(value),
                    None => meta.tags.push((key.clone(), value.clone())),
                }
            }
            meta.tags.sort();
            check_tags(&meta.tags)?;
        }
        StreamUpdate::RemoveTags(keys) => meta.tags.retain(|(key, _)| !keys.contains(key)),
        StreamUpdate::Policy(policy) => {
            if let Some(policy) = policy {
                check_policy(policy)?;
            }
            meta.policy.clone_from(policy);
        }
        StreamUpdate::EnableMetrics(metrics) => {
            meta.metrics.extend(metrics);
            meta.metrics.sort_unstable();
            meta.metrics.dedup();
        }
        StreamUpdate::DisableMetrics(metrics) => meta.metrics.retain(|metric| !metrics.contains(metric)),
        StreamUpdate::Encryption(key) => {
            if let Some(key) = key {
                check_key_id(key)?;
            }
            meta.encryption_key.clone_from(key);
        }
        StreamUpdate::Split { .. }
        | StreamUpdate::Merge { .. }
        | StreamUpdate::ShardCount(_)
        | StreamUpdate::ForgetClosedBefore(_) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::tests::stream;

    fn with(
        update: StreamUpdate,
        change: impl FnOnce(&mut StreamMeta, &mut Circumstances<'_>),
    ) -> Result<StreamMeta, StoreError> {
        let mut meta = stream(4);
        let mut circumstances = Circumstances {
            now_ms: 10_000,
            delay_ms: 0,
            next_key: ShardKey(5),
            open_shards: 4,
            known_shards: 4,
            shards_max: 6,
            last_arrival_ms: &|key| key.0 * 1_000,
        };
        change(&mut meta, &mut circumstances);
        let change = decide(&meta, &update, &circumstances)?;
        let mut after = meta.clone();
        change.apply(&mut after);
        let once = after.clone();
        change.apply(&mut after);
        assert_eq!(once, after, "applied twice");
        let json = serde_json::to_string(&change).unwrap();
        assert_eq!(serde_json::from_str::<StreamChange>(&json).unwrap(), change);
        Ok(after)
    }

    fn after(update: StreamUpdate) -> Result<StreamMeta, StoreError> {
        with(update, |_, _| {})
    }

    fn split(shard: u32) -> StreamUpdate {
        let middle = stream(8).shards[2 * shard as usize + 1].hash_range.start;
        StreamUpdate::Split {
            shard: ShardId(shard),
            at: middle,
        }
    }

    #[test]
    fn resharding_happens_after_the_last_arrival() {
        let meta = after(split(1)).unwrap();
        assert_eq!(meta.shards[1].closed_ms, Some(10_000));
        assert_eq!(meta.open_shards().count(), 5);
        let late = with(split(1), |_, circumstances| {
            circumstances.last_arrival_ms = &|key| key.0 * 9_000
        })
        .unwrap();
        assert_eq!(late.shards[1].closed_ms, Some(18_000));
        assert!(late.shards[4..].iter().all(|child| child.created_ms == 18_000));
        assert_eq!(late.shards[0].closed_ms, None);
    }

    #[test]
    fn limits_of_resharding() {
        let limit = |update, open| with(update, |_, circumstances| circumstances.open_shards = open);
        assert!(limit(split(0), 5).is_ok());
        assert_eq!(
            limit(split(0), 6).unwrap_err(),
            StoreError::ShardLimit {
                current: 6,
                limit: 6,
                requested: 1
            }
        );
        let merge = StreamUpdate::Merge {
            shard: ShardId(0),
            adjacent: ShardId(1),
        };
        assert!(limit(merge, 6).is_ok());
        let full = with(split(0), |_, circumstances| {
            circumstances.known_shards = 6 * limits::KNOWN_SHARDS_PER_OPEN_MAX
        });
        assert!(matches!(full, Err(StoreError::Limit(_))));
        for (target, fits) in [(1, false), (2, true), (4, true), (6, true), (8, true), (9, false)] {
            let scaled = with(StreamUpdate::ShardCount(target), |_, circumstances| {
                circumstances.shards_max = 100
            });
            assert_eq!(scaled.is_ok(), fits, "{target}");
            if let Ok(scaled) = scaled {
                assert_eq!(scaled.open_shards().count(), target as usize);
            }
        }
    }

    #[test]
    fn retention_is_checked_against_what_there_is() {
        let increase = |hours| after(StreamUpdate::IncreaseRetention(hours)).map(|meta| meta.retention_hours);
        assert_eq!(increase(24), Ok(24));
        assert_eq!(increase(8_760), Ok(8_760));
        for bad in [0, 23, 8_761] {
            assert!(increase(bad).is_err(), "{bad}");
        }
        let decrease = |hours| {
            with(StreamUpdate::DecreaseRetention(hours), |meta, _| {
                meta.retention_hours = 48
            })
            .map(|meta| meta.retention_hours)
        };
        assert_eq!(decrease(30), Ok(30));
        assert!(
            decrease(49)
                .unwrap_err()
                .to_string()
                .contains("Use IncreaseRetentionPeriod")
        );
        let shorter = with(StreamUpdate::IncreaseRetention(30), |meta, _| meta.retention_hours = 48);
        assert!(shorter.unwrap_err().to_string().contains("Use DecreaseRetentionPeriod"));
    }

    #[test]
    fn tags_are_added_replaced_removed_and_limited() {
        let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let meta = with(StreamUpdate::AddTags(vec![tag("b", "2"), tag("a", "1")]), |meta, _| {
            meta.tags = vec![tag("b", "0")]
        })
        .unwrap();
        assert_eq!(meta.tags, [tag("a", "1"), tag("b", "2")]);
        let meta = with(
            StreamUpdate::RemoveTags(vec!["b".to_owned(), "z".to_owned()]),
            |meta, _| {
                meta.tags = vec![tag("a", "1"), tag("b", "2")];
            },
        );
        assert_eq!(meta.unwrap().tags, [tag("a", "1")]);
        let many = |count: usize| StreamUpdate::AddTags((0..count).map(|index| tag(&index.to_string(), "")).collect());
        assert!(after(many(50)).is_ok());
        assert!(after(many(51)).is_err());
        for (key, value) in [
            ("", "x"),
            ("k\u{7}", ""),
            ("k", "<"),
            (&"k".repeat(129), ""),
            ("k", &"v".repeat(257)),
        ] {
            assert!(
                after(StreamUpdate::AddTags(vec![tag(key, value)])).is_err(),
                "{key:?} {value:?}"
            );
        }
    }

    #[test]
    fn attributes_change_and_contradictions_are_refused() {
        let on_demand = StreamUpdate::Mode {
            mode: StreamMode::OnDemand,
            warm_throughput_mibps: Some(7),
        };
        let meta = after(on_demand).unwrap();
        assert_eq!((meta.mode, meta.warm_throughput_mibps), (StreamMode::OnDemand, Some(7)));
        let back = StreamUpdate::Mode {
            mode: StreamMode::Provisioned,
            warm_throughput_mibps: Some(7),
        };
        assert!(after(back).is_err());
        assert!(after(StreamUpdate::WarmThroughput(1)).is_err());
        assert_eq!(after(StreamUpdate::MaxRecordKib(2_048)).unwrap().record_kib_max, 2_048);
        assert!(after(StreamUpdate::MaxRecordKib(10_241)).is_err());
        let metrics = with(
            StreamUpdate::EnableMetrics(vec![ShardMetric::OutgoingBytes, ShardMetric::IncomingBytes]),
            |meta, _| meta.metrics = vec![ShardMetric::OutgoingBytes],
        );
        assert_eq!(
            metrics.unwrap().metrics,
            [ShardMetric::IncomingBytes, ShardMetric::OutgoingBytes]
        );
        let none = with(StreamUpdate::DisableMetrics(ShardMetric::ALL.to_vec()), |meta, _| {
            meta.metrics = ShardMetric::ALL.to_vec();
        });
        assert!(none.unwrap().metrics.is_empty());
        let key = |key: &str| after(StreamUpdate::Encryption(Some(key.to_owned())));
        assert_eq!(
            key("alias/aws/kinesis").unwrap().encryption_key.as_deref(),
            Some("alias/aws/kinesis")
        );
        assert!(key("").is_err());
    }

    #[test]
    fn policies_are_json_with_statements() {
        let policy = |text: &str| after(StreamUpdate::Policy(Some(text.to_owned())));
        let good = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"kinesis:GetRecords","Resource":"*"}]}"#;
        assert_eq!(policy(good).unwrap().policy.as_deref(), Some(good));
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"Statement":[]}"#,
            r#"{"Statement":[{"Effect":"Maybe","Principal":"*","Action":"*"}]}"#,
            r#"{"Statement":[{"Effect":"Allow","Action":"*"}]}"#,
            r#"{"Statement":["x"]}"#,
        ] {
            assert!(policy(bad).is_err(), "{bad}");
        }
        assert!(policy(&" ".repeat(limits::POLICY_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn a_change_under_way_holds_up_others_but_not_tags() {
        let during = |update, status| {
            with(update, |meta, _| {
                meta.transition = Transition::start(status, 9_000, 5_000);
            })
        };
        for status in [StreamStatus::Creating, StreamStatus::Updating, StreamStatus::Deleting] {
            let busy = during(split(0), status).unwrap_err();
            assert_eq!(
                busy,
                StoreError::StreamBusy {
                    stream: stream(1).name,
                    status
                }
            );
        }
        assert!(during(StreamUpdate::AddTags(Vec::new()), StreamStatus::Updating).is_ok());
        assert!(during(StreamUpdate::AddTags(Vec::new()), StreamStatus::Creating).is_err());
        let slow = with(split(0), |_, circumstances| circumstances.delay_ms = 100).unwrap();
        assert_eq!(slow.status(10_099), StreamStatus::Updating);
        assert_eq!(slow.status(10_100), StreamStatus::Active);
        assert_eq!(slow.open_shards().count(), 5);
    }

    #[test]
    fn closed_shards_are_forgotten_and_ids_go_on() {
        let forget = |time| {
            with(StreamUpdate::ForgetClosedBefore(time), |meta, _| {
                meta.shards[0].closed_ms = Some(500)
            })
            .unwrap()
        };
        assert_eq!(forget(500).shards.len(), 4);
        assert_eq!(forget(501).shards.len(), 3);
    }
}
