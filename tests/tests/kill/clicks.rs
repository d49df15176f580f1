//! The input: clicks in a stream of 4 shards, and what they come to, counted in plain Rust.
//!
//! No click is late, by construction: batches are sent one after the other, a batch's clicks lie at most [`JITTER_MS`] and a
//! batch behind the newest, and event time never goes back; [`count`] makes sure of it.

use super::client::{Clients, Put};
use super::random::Random;
use super::results::{Multiset, Row};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

/// The size of a window in milliseconds, as the job says.
pub(super) const WINDOW_MS: i64 = 1_000;
/// The delay of the watermark in milliseconds, as the job says.
pub(super) const DELAY_MS: i64 = 2_000;
/// How far a click lies behind the newest at most, besides its batch.
const JITTER_MS: u64 = 1_000;
/// Clicks of a batch; each is one millisecond of event time.
pub(super) const BATCH: usize = 200;
/// The time between two batches: 4,000 clicks a second.
const BATCH_INTERVAL: Duration = Duration::from_millis(50);
const PAGES: u64 = 40;
/// How far the closing clicks lie ahead: every other window has fired, and their own never does.
const CLOSING_AFTER_MS: i64 = 3_600_000;
/// 2026-01-01 00:00:00.
const FIRST_MS: i64 = 1_767_225_600_000;

/// Makes clicks in the order of their event time, nearly.
#[derive(Debug)]
pub(super) struct Clicks {
    random: Random,
    newest_ms: i64,
}

impl Clicks {
    pub(super) fn new(random: Random) -> Self {
        Self {
            random,
            newest_ms: FIRST_MS,
        }
    }

    /// Makes the next batch: partition keys and contents.
    pub(super) fn batch(&mut self) -> Vec<(String, Value)> {
        let clicks = (0..BATCH).map(|_| {
            self.newest_ms += 1;
            let user = format!("user-{}", self.random.below(10_000));
            let page = format!("/{}", self.random.below(PAGES));
            let cents = self.random.below(1_000) as i64 - 100;
            (
                user,
                click(&page, cents, self.newest_ms - self.random.below(JITTER_MS) as i64),
            )
        });
        clicks.collect()
    }

    /// Makes a click so far ahead that all others' windows fire.
    pub(super) fn closing(&self) -> Value {
        click("/closing", 1, self.newest_ms + CLOSING_AFTER_MS)
    }

    /// Puts the next batch.
    pub(super) async fn put(&mut self, clients: &Clients, stream: &str) {
        let records = self.batch().into_iter().map(|(partition_key, click)| Put {
            partition_key,
            explicit_hash_key: None,
            data: click.to_string().into_bytes(),
        });
        clients.put(stream, records.collect()).await;
    }

    /// Puts one closing click into each shard.
    pub(super) async fn close(&self, clients: &Clients, stream: &str) {
        let shards = clients.shards(stream).await;
        let records = shards.into_iter().map(|(_, hash_key)| Put {
            partition_key: "closing".into(),
            explicit_hash_key: Some(hash_key),
            data: self.closing().to_string().into_bytes(),
        });
        clients.put(stream, records.collect()).await;
    }
}

fn click(page: &str, cents: i64, ts: i64) -> Value {
    json!({ "page": page, "cents": cents, "ts": format_time(ts) })
}

/// Puts clicks steadily until it is told to stop.
#[derive(Debug)]
pub(super) struct Producer {
    stop: watch::Sender<bool>,
    task: JoinHandle<Clicks>,
}

impl Producer {
    pub(super) fn start(clients: &Clients, stream: &'static str, random: Random) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let clients = clients.clone();
        let task = tokio::spawn(async move {
            let mut clicks = Clicks::new(random);
            let mut due = tokio::time::interval(BATCH_INTERVAL);
            due.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = stopped.wait_for(|&stopped| stopped) => return clicks,
                    _ = due.tick() => {}
                }
                clicks.put(&clients, stream).await;
            }
        });
        Self { stop, task }
    }

    /// Waits until the last batch is acknowledged.
    pub(super) async fn stop(self) -> Clicks {
        self.stop.send_replace(true);
        self.task.await.expect("the producer")
    }
}

/// Counts the windows that have fired when all of the shards were read, each with a watermark of its own.
///
/// # Panics
/// When a click would be late: then the result would depend on the order of reading.
pub(super) fn count<'a>(shards: impl IntoIterator<Item = impl IntoIterator<Item = &'a [u8]>>) -> Multiset {
    let mut counts: BTreeMap<(i64, String), (i64, i64)> = BTreeMap::new();
    let mut watermark = i64::MAX;
    for shard in shards {
        let mut newest = i64::MIN;
        for data in shard {
            let click: Value = serde_json::from_slice(data).expect("a click");
            let ts = parse_time(click["ts"].as_str().expect("a timestamp"));
            newest = newest.max(ts);
            assert!(newest - ts < DELAY_MS, "a late click: {click}");
            let page = click["page"].as_str().expect("a page").to_owned();
            let (clicks, cents) = counts.entry((ts.div_euclid(WINDOW_MS) * WINDOW_MS, page)).or_default();
            *clicks += 1;
            *cents += click["cents"].as_i64().expect("cents");
        }
        watermark = watermark.min(newest.saturating_sub(DELAY_MS));
    }
    let rows = counts.into_iter().map(|((start_ms, page), (clicks, cents))| Row {
        start_ms,
        end_ms: start_ms + WINDOW_MS,
        page,
        clicks,
        cents,
    });
    rows.filter(|row| row.end_ms - 1 <= watermark)
        .map(|row| (row, 1))
        .collect()
}

/// Writes a timestamp as SQL does.
fn format_time(ms: i64) -> String {
    let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    // Days since 0000-03-01, as Howard Hinnant's `civil_from_days` counts them.
    let day = days + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (date, month) = (
        of_year - (153 * shifted + 2) / 5 + 1,
        if shifted < 10 { shifted + 3 } else { shifted - 9 },
    );
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, millis) = (of_day / 1_000 % 60, of_day % 1_000);
    format!("{year:04}-{month:02}-{date:02} {hour:02}:{minute:02}:{second:02}.{millis:03}")
}

/// Reads a timestamp as SQL writes it.
pub(super) fn parse_time(text: &str) -> i64 {
    let number = |range: std::ops::Range<usize>| -> i64 {
        text.get(range)
            .and_then(|part| part.parse().ok())
            .unwrap_or_else(|| panic!("{text:?} is no timestamp"))
    };
    let (year, month, date) = (number(0..4), number(5..7), number(8..10));
    let shifted_year = year - i64::from(month <= 2);
    let (era, year_of_era) = (shifted_year.div_euclid(400), shifted_year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + date - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468;
    let seconds = (days * 24 + number(11..13)) * 3_600 + number(14..16) * 60 + number(17..19);
    let fraction: String = text
        .get(20..)
        .unwrap_or_default()
        .chars()
        .chain("000".chars())
        .take(3)
        .collect();
    seconds * 1_000
        + fraction
            .parse::<i64>()
            .unwrap_or_else(|_| panic!("{text:?} is no timestamp"))
}

#[test]
fn timestamps_come_back_as_they_were_written() {
    assert_eq!(format_time(FIRST_MS + 86_399_007), "2026-01-01 23:59:59.007");
    for ms in [
        0,
        FIRST_MS,
        FIRST_MS + 58 * 86_400_000,
        FIRST_MS + 59 * 86_400_000 + 1,
        951_782_400_000,
    ] {
        assert_eq!(parse_time(&format_time(ms)), ms);
    }
    assert_eq!(parse_time("2026-01-01 00:00:00"), FIRST_MS);
    assert_eq!(parse_time("2026-01-01 00:00:00.5"), FIRST_MS + 500);
}
