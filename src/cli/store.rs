//! Options of the shard store, for commands that open one.

use crate::rust_job::parse_duration;
use clap::{Args, ValueEnum};
use std::time::Duration;
use tidemill_shards::{RetentionOptions, StoreOptions, WhenFull};

/// The arguments.
#[derive(Debug, Args)]
pub(super) struct StoreArguments {
    /// The size of a segment of the streams' log; two of them, and one prepared, stay on the disk whatever expires.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_bytes)]
    store_segment_bytes: u64,
    /// How often is looked for what has expired, and for what is to move.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse_duration)]
    store_check_interval: Duration,
    /// The most disk that the log of the streams may take, like 500GiB [default: no limit].
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    store_max_bytes: Option<u64>,
    /// What happens when the log has reached --store-max-bytes and nothing has expired.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = StoreWhenFull::Refuse)]
    store_when_full: StoreWhenFull,
    /// Where sealed log segments move: file:///DIR, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX
    /// [default: they stay on the local disk].
    #[arg(long, value_name = "URL")]
    store_tier_url: Option<String>,
    /// With --store-tier-url: how long records stay on the local disk at least, unless --store-max-bytes is near.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    store_local_retention: Duration,
    /// How long output of jobs is kept that was staged and never published.
    #[arg(long, value_name = "TIME", default_value = "168h", value_parser = parse_duration)]
    store_staged_retention: Duration,
    /// How long a wall clock that jumped ahead by more than an hour must stay there before records expire by it.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    store_clock_confirm: Duration,
}

/// [`WhenFull`] as a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StoreWhenFull {
    /// New records are refused.
    Refuse,
    /// The oldest records go, although their retention is not over.
    DropOldest,
}

impl StoreArguments {
    /// Where sealed segments move.
    pub(super) fn tier_url(&self) -> Option<String> {
        self.store_tier_url.clone()
    }

    /// The options of a store.
    pub(super) fn options(&self) -> StoreOptions {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        StoreOptions {
            segment_bytes: self.store_segment_bytes,
            retention: RetentionOptions {
                disk_bytes_max: self.store_max_bytes,
                when_full: match self.store_when_full {
                    StoreWhenFull::Refuse => WhenFull::Refuse,
                    StoreWhenFull::DropOldest => WhenFull::DropOldest,
                },
                staged_retention_ms: millis(self.store_staged_retention),
                clock_confirm_ms: millis(self.store_clock_confirm),
                local_retention_ms: millis(self.store_local_retention),
                check_interval_ms: millis(self.store_check_interval),
            },
            ..StoreOptions::default()
        }
    }
}

/// Reads a number of bytes, like `500GiB`.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size; write a number above 0 and its unit, like 512MiB, 500GiB or 2TiB");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit: u64 = match &text[digits..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).filter(|&bytes| bytes > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(parse_bytes("512MiB"), Ok(512 << 20));
        assert_eq!(parse_bytes("2TiB"), Ok(2 << 40));
        assert_eq!(parse_bytes("4096"), Ok(4096));
        for wrong in ["", "0GiB", "GiB", "5GB", "-1", "99999999999TiB"] {
            assert!(parse_bytes(wrong).unwrap_err().contains("500GiB"), "{wrong}");
        }
    }
}
