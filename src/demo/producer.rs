//! Makes clicks and puts them into the stream, out of order by up to two seconds and never more.
//!
//! That no click is late is true by construction: batches are sent one after the other, each only when all of the one before
//! is stored; a batch's clicks lie at most [`JITTER_MS`] behind its base time; and base times never go back. So no click is
//! more than that behind any other stored before it, which is less than the watermark's two seconds.

use super::kinesis::{Kinesis, PUT_RECORDS_MAX, PutRecord, Shard};
use crate::timestamp;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tidemill_engine::time::TimeSource;
use tokio::sync::watch;

/// How far a click may lie behind the newest, in milliseconds.
pub(super) const JITTER_MS: i64 = 1_900;
/// The page of the events that let the last windows fire. Their own window never does.
pub(super) const CLOSING_PAGE: &str = "(end of the demonstration)";
/// How far behind the last click the closing events lie: a window, the watermark's delay, and some.
const CLOSING_AFTER_MS: i64 = 10_000;
/// The time between two batches.
const BATCH_INTERVAL: Duration = Duration::from_millis(100);
/// Different pages.
const PAGES: &[&str] = &[
    "/",
    "/basket",
    "/blog",
    "/books",
    "/checkout",
    "/contact",
    "/events",
    "/games",
    "/garden",
    "/help",
    "/jobs",
    "/kitchen",
    "/music",
    "/news",
    "/offers",
    "/search",
    "/shoes",
    "/tools",
    "/toys",
    "/travel",
];
/// Different users.
const USERS: u64 = 5_000;

/// How the flow goes on.
#[derive(Debug, Default)]
pub(super) struct Produced {
    /// Clicks stored.
    pub(super) clicks: AtomicU64,
}

/// Where the flow ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    /// The base time of the last batch: no click lies behind it.
    pub(super) newest_ms: i64,
}

/// Puts `rate` clicks a second until `stop` becomes true.
pub(super) async fn produce(
    kinesis: Kinesis,
    stream: String,
    rate: u64,
    time: Arc<dyn TimeSource>,
    produced: Arc<Produced>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<Ended> {
    let mut random = Random(getrandom::u64().map_err(|error| anyhow::anyhow!("no entropy: {error}"))?);
    let mut newest_ms = time.wall_ms();
    let start = time.monotonic();
    let mut made = 0u64;
    let mut ticks = tokio::time::interval(BATCH_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stop.wait_for(|&stop| stop) => return Ok(Ended { newest_ms }),
            _ = ticks.tick() => {}
        }
        let elapsed_ms = u64::try_from((time.monotonic() - start).as_millis()).unwrap_or(u64::MAX);
        // A store that is slower than the rate gets less, not ever larger batches.
        let due = (rate.saturating_mul(elapsed_ms) / 1_000).saturating_sub(made).min(rate);
        made += due;
        let mut left = usize::try_from(due).unwrap_or(usize::MAX);
        while left > 0 {
            let batch = left.min(PUT_RECORDS_MAX);
            newest_ms = newest_ms.max(time.wall_ms());
            let records = (0..batch).map(|_| click(&mut random, newest_ms)).collect();
            kinesis.put_records(&stream, records).await?;
            produced.clicks.fetch_add(batch as u64, Ordering::Relaxed);
            left -= batch;
        }
    }
}

/// Puts one event into each shard, so far ahead that every window with a click fires.
pub(super) async fn close(kinesis: &Kinesis, stream: &str, shards: &[Shard], ended: Ended) -> anyhow::Result<i64> {
    let closing_ms = ended.newest_ms + CLOSING_AFTER_MS;
    let records = shards.iter().map(|shard| PutRecord {
        partition_key: "closing".into(),
        explicit_hash_key: Some(shard.starting_hash_key.clone()),
        data: event(CLOSING_PAGE, "nobody", 0, closing_ms),
    });
    kinesis.put_records(stream, records.collect()).await?;
    Ok(closing_ms)
}

fn click(random: &mut Random, newest_ms: i64) -> PutRecord {
    let user = format!("user-{}", random.below(USERS));
    // The product of two draws makes some pages far more popular than others.
    let page =
        PAGES[(random.below(PAGES.len() as u64) * random.below(PAGES.len() as u64) / PAGES.len() as u64) as usize];
    let cents = if random.below(20) == 0 {
        100 + random.below(9_900)
    } else {
        0
    };
    let ts = newest_ms - random.below(JITTER_MS as u64 + 1) as i64;
    PutRecord {
        data: event(page, &user, cents, ts),
        partition_key: user,
        explicit_hash_key: None,
    }
}

fn event(page: &str, user: &str, cents: u64, ts: i64) -> Vec<u8> {
    json!({ "page": page, "user_id": user, "cents": cents, "ts": timestamp::format(ts) })
        .to_string()
        .into_bytes()
}

/// A generator of numbers that need not be good, only different (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clicks_lie_within_the_promised_bounds() {
        let mut random = Random(7);
        let (mut least, mut most) = (i64::MAX, i64::MIN);
        for _ in 0..20_000 {
            let record = click(&mut random, 1_000_000);
            let event: serde_json::Value = serde_json::from_slice(&record.data).unwrap();
            let ts = timestamp::parse(event["ts"].as_str().unwrap()).unwrap();
            (least, most) = (least.min(ts), most.max(ts));
            assert_eq!(event["user_id"], record.partition_key.as_str());
        }
        assert_eq!((least, most), (1_000_000 - JITTER_MS, 1_000_000));
    }
}
