//! Counts again what the job counted: over the stored input, in memory, in one pass, with none of the engine's code.

use super::kinesis::Kinesis;
use crate::timestamp;
use anyhow::{Context as _, bail};
use arrow::array::{Array, AsArray as _, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMillisecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};

/// The job's windows, in milliseconds.
const WINDOW_MS: i64 = 5_000;
/// The job's watermark delay, in milliseconds.
const DELAY_MS: i64 = 2_000;

/// One row of the output.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    /// When the window starts, in milliseconds since the epoch.
    pub(super) window_start_ms: i64,
    /// When it ends.
    pub(super) window_end_ms: i64,
    /// The page.
    pub(super) page: String,
    /// Clicks.
    pub(super) clicks: i64,
    /// Different users.
    pub(super) users: i64,
    /// Revenue.
    pub(super) cents: i64,
}

/// Rows with how often each is there.
pub(super) type Multiset = BTreeMap<Row, u64>;

#[derive(Debug, Deserialize)]
struct Click {
    page: String,
    user_id: String,
    cents: i64,
    ts: String,
}

#[derive(Debug, Deserialize)]
struct ResultRow {
    page: String,
    window_start: String,
    window_end: String,
    clicks: i64,
    users: i64,
    cents: i64,
}

/// What the stored input holds.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// The rows of all windows that have fired.
    pub(super) rows: Multiset,
    /// Events read, the closing ones included.
    pub(super) events: u64,
}

/// Reads the whole input through the Kinesis API and counts.
pub(super) async fn expected(kinesis: &Kinesis, stream: &str) -> anyhow::Result<Expected> {
    let mut shards = Vec::new();
    for shard in kinesis.shards(stream).await? {
        let mut clicks = Vec::new();
        for data in kinesis.read_all(stream, &shard.id).await? {
            clicks.push(serde_json::from_slice::<Click>(&data).context("an input record that is no click")?);
        }
        shards.push(clicks);
    }
    count(&shards)
}

/// Counts clicks of each shard into windows; a window has fired when the slowest shard's watermark has passed its end.
fn count(shards: &[Vec<Click>]) -> anyhow::Result<Expected> {
    #[derive(Default)]
    struct Group<'a> {
        clicks: i64,
        users: HashSet<&'a str>,
        cents: i64,
    }
    let mut groups: BTreeMap<(i64, &str), Group<'_>> = BTreeMap::new();
    let (mut watermark, mut events) = (i64::MAX, 0);
    for clicks in shards {
        let mut newest = i64::MIN;
        for click in clicks {
            let ts = timestamp::parse(&click.ts).with_context(|| format!("{:?} is no timestamp", click.ts))?;
            newest = newest.max(ts);
            events += 1;
            let group = groups.entry((ts - ts.rem_euclid(WINDOW_MS), &click.page)).or_default();
            group.clicks += 1;
            group.cents += click.cents;
            group.users.insert(&click.user_id);
        }
        watermark = watermark.min(newest.saturating_sub(DELAY_MS));
    }
    let fired = groups
        .into_iter()
        .filter(|((start, _), _)| start + WINDOW_MS - 1 <= watermark);
    let rows = fired.map(|((window_start_ms, page), group)| Row {
        window_start_ms,
        window_end_ms: window_start_ms + WINDOW_MS,
        page: page.to_owned(),
        clicks: group.clicks,
        users: i64::try_from(group.users.len()).unwrap_or(i64::MAX),
        cents: group.cents,
    });
    Ok(Expected {
        rows: rows.map(|row| (row, 1)).collect(),
        events,
    })
}

/// Reads one record of the output stream.
pub(super) fn result_row(data: &[u8]) -> anyhow::Result<Row> {
    let row: ResultRow = serde_json::from_slice(data).context("an output record that is no result")?;
    let time = |text: &str| timestamp::parse(text).with_context(|| format!("{text:?} is no timestamp"));
    Ok(Row {
        window_start_ms: time(&row.window_start)?,
        window_end_ms: time(&row.window_end)?,
        page: row.page,
        clicks: row.clicks,
        users: row.users,
        cents: row.cents,
    })
}

/// Reads the whole output stream.
pub(super) async fn stream_rows(kinesis: &Kinesis, stream: &str) -> anyhow::Result<Multiset> {
    let mut rows = Multiset::new();
    for shard in kinesis.shards(stream).await? {
        for data in kinesis.read_all(stream, &shard.id).await? {
            *rows.entry(result_row(&data)?).or_default() += 1;
        }
    }
    Ok(rows)
}

/// Reads all Parquet files below a directory that are visible to readers.
pub(super) fn file_rows(directory: &Path) -> anyhow::Result<Multiset> {
    let mut rows = Multiset::new();
    for path in files(directory)? {
        let file = File::open(&path)?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build());
        for batch in reader.with_context(|| format!("{} is not Parquet", path.display()))? {
            add_batch(&batch?, &mut rows).with_context(|| format!("{} is no result", path.display()))?;
        }
    }
    Ok(rows)
}

/// Lists the files that readers of a directory look at: none whose name, or a directory on the way, begins with a dot or an
/// underscore, as is the custom for what is not complete.
fn files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        let entries = match std::fs::read_dir(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(['.', '_']) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                left.push(entry.path())
            } else {
                found.push(entry.path())
            }
        }
    }
    Ok(found)
}

fn add_batch(batch: &RecordBatch, rows: &mut Multiset) -> anyhow::Result<()> {
    let column = |name: &str, to: &DataType| {
        let column = batch
            .column_by_name(name)
            .with_context(|| format!("there is no column {name}"))?;
        cast(column, to).with_context(|| format!("column {name}"))
    };
    let ms = DataType::Timestamp(TimeUnit::Millisecond, None);
    let (start, end) = (column("window_start", &ms)?, column("window_end", &ms)?);
    let (start, end) = (
        start.as_primitive::<TimestampMillisecondType>(),
        end.as_primitive::<TimestampMillisecondType>(),
    );
    let page = column("page", &DataType::Utf8)?;
    let numbers = ["clicks", "users", "cents"].map(|name| column(name, &DataType::Int64));
    let [clicks, users, cents] = numbers;
    let (clicks, users, cents) = (clicks?, users?, cents?);
    if [
        page.null_count(),
        start.null_count(),
        clicks.null_count(),
        users.null_count(),
        cents.null_count(),
    ] != [0; 5]
    {
        bail!("a null where there can be none");
    }
    for row in 0..batch.num_rows() {
        let row = Row {
            window_start_ms: start.value(row),
            window_end_ms: end.value(row),
            page: page.as_string::<i32>().value(row).to_owned(),
            clicks: clicks.as_primitive::<Int64Type>().value(row),
            users: users.as_primitive::<Int64Type>().value(row),
            cents: cents.as_primitive::<Int64Type>().value(row),
        };
        *rows.entry(row).or_default() += 1;
    }
    Ok(())
}

/// Says how two multisets differ; nothing when they do not.
pub(super) fn differences(name: &str, expected: &Multiset, found: &Multiset) -> Vec<String> {
    let rows: std::collections::BTreeSet<&Row> = expected.keys().chain(found.keys()).collect();
    rows.into_iter()
        .filter_map(|row| {
            let (expected, found) = (expected.get(row).unwrap_or(&0), found.get(row).unwrap_or(&0));
            (expected != found).then(|| format!("{name}: expected {expected} times and found {found} times: {row:?}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn click(page: &str, user: &str, cents: i64, ts: i64) -> Click {
        Click {
            page: page.into(),
            user_id: user.into(),
            cents,
            ts: timestamp::format(ts),
        }
    }

    #[test]
    fn windows_are_counted_when_the_slowest_shard_has_passed_them() {
        let shards = [
            vec![
                click("/a", "u", 5, 4_999),
                click("/a", "u", 7, 0),
                click("/a", "v", 0, 5_000),
                click("e", "n", 0, 20_000),
            ],
            vec![click("/a", "w", 1, 1), click("e", "n", 0, 11_999)],
        ];
        let counted = count(&shards).unwrap();
        let row = |start, clicks, users, cents| Row {
            window_start_ms: start,
            window_end_ms: start + 5_000,
            page: "/a".into(),
            clicks,
            users,
            cents,
        };
        assert_eq!(counted.events, 6);
        assert_eq!(
            counted.rows,
            Multiset::from([(row(0, 3, 2, 13), 1), (row(5_000, 1, 1, 0), 1)])
        );
        // One millisecond less in the slower shard, and the second window has not fired.
        let slower = [
            vec![click("/a", "u", 0, 5_000), click("e", "n", 0, 20_000)],
            vec![click("e", "n", 0, 11_998)],
        ];
        assert!(count(&slower).unwrap().rows.is_empty());
    }

    #[test]
    fn a_missing_and_a_doubled_row_are_both_told() {
        let row = |page: &str| Row {
            window_start_ms: 0,
            window_end_ms: 5_000,
            page: page.into(),
            clicks: 1,
            users: 1,
            cents: 0,
        };
        let expected = Multiset::from([(row("/a"), 1), (row("/b"), 1)]);
        let found = Multiset::from([(row("/a"), 2)]);
        let told = differences("stream", &expected, &found);
        assert_eq!(told.len(), 2);
        assert!(told[0].contains("expected 1 times and found 2 times"), "{told:?}");
        assert!(differences("stream", &expected, &expected).is_empty());
    }
}
