//! The output: rows of windows, from the stream and from the files, as multisets.

use super::clicks::parse_time;
use super::client::Read;
use arrow::array::{AsArray as _, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMillisecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What the job says of a page and a window.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
    pub(super) page: String,
    pub(super) clicks: i64,
    pub(super) cents: i64,
}

/// Rows, and how often each is there.
pub(super) type Multiset = BTreeMap<Row, u64>;

/// Reads rows of the output stream.
pub(super) fn of_stream<'a>(records: impl IntoIterator<Item = &'a Read>) -> Multiset {
    let mut rows = Multiset::new();
    for record in records {
        let value: Value = serde_json::from_slice(&record.data).expect("a result");
        let time = |field: &str| parse_time(value[field].as_str().expect("a timestamp"));
        let number = |field: &str| value[field].as_i64().expect("a number");
        let row = Row {
            start_ms: time("window_start"),
            end_ms: time("window_end"),
            page: value["page"].as_str().expect("a page").to_owned(),
            clicks: number("clicks"),
            cents: number("cents"),
        };
        *rows.entry(row).or_default() += 1;
    }
    rows
}

/// Reads the Parquet files of a directory that its readers see.
pub(super) fn of_files(directory: &Path) -> Multiset {
    let mut rows = Multiset::new();
    for path in files(directory) {
        let file = File::open(&path).expect("a file that is visible stays");
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build());
        for batch in reader.unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
            add(&batch.expect("a batch"), &mut rows);
        }
    }
    rows
}

/// Lists what readers of a directory look at: nothing whose name begins with a dot or an underscore.
fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.map(|entry| entry.expect("an entry")) {
        if !entry.file_name().to_string_lossy().starts_with(['.', '_']) {
            let path = entry.path();
            if path.is_dir() {
                found.extend(files(&path))
            } else {
                found.push(path)
            }
        }
    }
    found
}

fn add(batch: &RecordBatch, rows: &mut Multiset) {
    let column = |name: &str, to: &DataType| cast(batch.column_by_name(name).expect(name), to).expect(name);
    let ms = DataType::Timestamp(TimeUnit::Millisecond, None);
    let (start, end) = (column("window_start", &ms), column("window_end", &ms));
    let (page, clicks, cents) = (
        column("page", &DataType::Utf8),
        column("clicks", &DataType::Int64),
        column("cents", &DataType::Int64),
    );
    assert_eq!(
        [&start, &end, &page, &clicks, &cents].map(|column| column.null_count()),
        [0; 5]
    );
    for at in 0..batch.num_rows() {
        let row = Row {
            start_ms: start.as_primitive::<TimestampMillisecondType>().value(at),
            end_ms: end.as_primitive::<TimestampMillisecondType>().value(at),
            page: page.as_string::<i32>().value(at).to_owned(),
            clicks: clicks.as_primitive::<Int64Type>().value(at),
            cents: cents.as_primitive::<Int64Type>().value(at),
        };
        *rows.entry(row).or_default() += 1;
    }
}

/// Counts rows, each as often as it is there.
pub(super) fn total(rows: &Multiset) -> u64 {
    rows.values().sum()
}

/// Makes sure that two multisets are the same.
///
/// # Panics
/// When they are not, with the first differences.
pub(super) fn assert_same(name: &str, expected: &Multiset, found: &Multiset) {
    let keys: std::collections::BTreeSet<&Row> = expected.keys().chain(found.keys()).collect();
    let mut differences = keys.into_iter().filter_map(|row| {
        let (expected, found) = (expected.get(row).unwrap_or(&0), found.get(row).unwrap_or(&0));
        (expected != found).then(|| format!("expected {expected} times, found {found} times: {row:?}"))
    });
    let first: Vec<String> = differences.by_ref().take(20).collect();
    let more = differences.count();
    let (all, here) = (total(expected), total(found));
    assert!(
        first.is_empty(),
        "{name} ({here} rows, expected {all}): {more} more, and:\n{}",
        first.join("\n")
    );
}
