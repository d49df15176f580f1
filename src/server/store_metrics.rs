//! Metrics of the shard store: how much disk it takes, and what became of old data.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use tidemill_shards::{ShardStore, StoreUsage};

/// What the store tells, at the moment somebody asks.
pub(super) struct StoreMetrics(pub(super) ShardStore);

impl fmt::Debug for StoreMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreMetrics")
    }
}

type Number = (&'static str, &'static str, fn(&StoreUsage) -> u64);

const GAUGES: &[Number] = &[
    ("store_log_bytes", "Bytes of log segments on the local disk", |usage| {
        usage.log_bytes
    }),
    (
        "store_log_bytes_max",
        "The bound of the log's bytes; 0 when there is none",
        |usage| usage.log_bytes_max,
    ),
    ("store_segments", "Log segments on the local disk", |usage| {
        usage.segments
    }),
    (
        "store_segments_staged",
        "Log segments kept only because of output that is staged and not published",
        |usage| usage.segments_staged,
    ),
    (
        "store_index_entries",
        "Entries of the index in memory, 48 bytes each",
        |usage| usage.index_entries,
    ),
    ("store_tiered_bytes", "Bytes of objects that hold records", |usage| {
        usage.tiered_bytes
    }),
    ("store_tiered_objects", "Objects that hold records", |usage| {
        usage.tiered_objects
    }),
    (
        "store_tier_garbage",
        "Objects that nothing needs and that are not deleted yet",
        |usage| usage.tier_garbage,
    ),
    (
        "store_oldest_record_age_ms",
        "Age of the oldest record that can be read",
        |usage| usage.oldest_record_age_ms,
    ),
    (
        "store_clock_in_doubt",
        "1 while the wall clock is too far ahead to expire records by it",
        |usage| u64::from(usage.clock_in_doubt),
    ),
];

const COUNTERS: &[Number] = &[
    (
        "store_segments_removed",
        "Log segments removed because nothing needed them any more",
        |usage| usage.segments_removed,
    ),
    (
        "store_records_dropped",
        "Records dropped before their retention was over, because the log was full",
        |usage| usage.records_dropped,
    ),
    (
        "store_tier_failures",
        "Rounds of tiering that ended with an error",
        |usage| usage.tier_failures,
    ),
    (
        "store_retention_failures",
        "Files that could not be removed and checks that failed",
        |usage| usage.failures,
    ),
];

impl Collector for StoreMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let usage = self.0.usage();
        for (name, help, pick) in GAUGES {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(pick(&usage)).unwrap_or(i64::MAX)).encode(metric)?;
        }
        for (name, help, pick) in COUNTERS {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(pick(&usage)).encode(metric)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    #[test]
    fn every_number_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let store = ShardStore::open(directory.path(), Default::default()).unwrap();
        let bytes = store.usage().log_bytes;
        let mut registry = Registry::with_prefix("tidemill");
        registry.register_collector(Box::new(StoreMetrics(store)));
        let mut out = String::new();
        text::encode(&mut out, &registry).unwrap();
        assert!(
            bytes > 0 && out.contains(&format!("tidemill_store_log_bytes {bytes}\n")),
            "{out}"
        );
        for (name, ..) in GAUGES {
            assert!(out.contains(&format!("tidemill_{name} ")), "{name} in {out}");
        }
        for (name, ..) in COUNTERS {
            assert!(out.contains(&format!("tidemill_{name}_total 0")), "{name} in {out}");
        }
    }
}
