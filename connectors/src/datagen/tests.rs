use super::*;
use crate::conformance::source::{Reading, check_bounded};
use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use std::time::Duration;
use tidemill_engine::source::ReadOutcome;
use tidemill_engine::time::ManualTime;

fn table(options: &[(&str, &str)]) -> TableDefinition {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("small", DataType::Int16, true),
        Field::new("price", DataType::Float64, true),
        Field::new("text", DataType::Utf8, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), false),
        Field::new("flag", DataType::Boolean, true),
        Field::new("money", DataType::Decimal128(10, 2), true),
        Field::new("raw", DataType::Binary, true),
        Field::new("day", DataType::Date32, true),
        Field::new("time", DataType::Time64(TimeUnit::Microsecond), true),
    ]);
    let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    TableDefinition {
        name: "t".to_owned(),
        schema: Arc::new(schema),
        metadata_columns: Vec::new(),
        options: options
            .chain([("connector".to_owned(), "datagen".to_owned())])
            .collect(),
        partition_keys: Vec::new(),
        primary_key: Vec::new(),
    }
}

const SEQUENCES: [(&str, &str); 9] = [
    ("rows-per-second", "unlimited"),
    ("fields.id.kind", "sequence"),
    ("fields.id.start", "100"),
    ("fields.ts.start", "2024-05-01 00:00:00"),
    ("fields.ts.step", "10 ms"),
    ("fields.small.null-rate", "0.25"),
    ("fields.text.length", "5"),
    ("fields.raw.length", "3"),
    ("fields.raw.var-len", "true"),
];

fn bounded(splits: &'static str, rows: &'static str) -> TableDefinition {
    table(&[&SEQUENCES[..], &[("splits", splits), ("number-of-rows", rows)]].concat())
}

fn environment() -> ConnectorEnvironment {
    ConnectorEnvironment::new().with_time(Arc::new(ManualTime::at(1_714_521_600_000)))
}

fn all_columns(table: &TableDefinition) -> DatagenSource {
    let all: Vec<usize> = (0..table.schema.fields().len()).collect();
    DatagenSource::new(table, &all, &environment()).unwrap()
}

#[test]
fn rows_do_not_depend_on_splits_or_read_sizes() {
    let one = check_bounded(&all_columns(&bounded("1", "300")));
    assert_eq!(one.len(), 300);
    assert_eq!(check_bounded(&all_columns(&bounded("7", "300"))), one);
    assert!(one[0].starts_with("100|"), "{}", one[0]);
    assert!(one.iter().any(|row| row.starts_with("399|")));
    assert!(one.iter().any(|row| row.split('|').nth(1) == Some("")), "some nulls");
}

#[test]
fn a_projection_gives_the_same_values() {
    let table = bounded("3", "50");
    let all = check_bounded(&all_columns(&table));
    let some = DatagenSource::new(&table, &[3, 0], &environment()).unwrap();
    let mut expected: Vec<String> = all
        .iter()
        .map(|row| row.split('|').collect::<Vec<_>>())
        .map(|columns| format!("{}|{}", columns[3], columns[0]))
        .collect();
    expected.sort();
    assert_eq!(check_bounded(&some), expected);
    let none = DatagenSource::new(&table, &[], &environment()).unwrap();
    assert_eq!(check_bounded(&none).len(), 50);
}

#[test]
fn the_shortest_sequence_ends_the_table() {
    let table = table(&[
        ("fields.id.kind", "sequence"),
        ("fields.id.start", "1"),
        ("fields.id.end", "12"),
        ("rows-per-second", "unlimited"),
    ]);
    assert_eq!(check_bounded(&all_columns(&table)).len(), 12);
}

#[test]
fn the_rate_is_kept_over_all_splits() {
    let table = table(&[("rows-per-second", "100"), ("splits", "4")]);
    let time = ManualTime::at(0);
    let env = ConnectorEnvironment::new().with_time(Arc::new(time.clone()));
    let source = DatagenSource::new(&table, &[0], &env).unwrap();
    let reading = Reading::new(&source);
    let splits = reading.discover(&BTreeMap::new());
    let mut readers: Vec<_> = splits.iter().map(|split| reading.open(split)).collect();
    let mut count = || {
        let mut rows = 0;
        for reader in &mut readers {
            while let ReadOutcome::Rows(batch) = reader.read(1000, 1 << 20).unwrap() {
                rows += batch.num_rows();
            }
            assert!(!reader.is_ready());
            assert!(reader.retry_after().unwrap() <= Duration::from_millis(40));
        }
        rows
    };
    assert_eq!(count(), 1, "row 0 is due at once");
    time.advance(Duration::from_millis(500));
    assert_eq!(count(), 50);
    time.advance(Duration::from_secs(3600));
    assert!(count() <= 108, "an hour's backlog is not caught up");
}

#[test]
fn values_keep_their_limits() {
    let table = table(&[
        ("fields.id.min", "-3"),
        ("fields.id.max", "3"),
        ("rows-per-second", "unlimited"),
        ("number-of-rows", "1000"),
        ("splits", "1"),
    ]);
    let source = DatagenSource::new(&table, &[0], &environment()).unwrap();
    let reading = Reading::new(&source);
    let split = reading.discover(&BTreeMap::new()).remove(0);
    let batch = reading.next(reading.open(&split).as_mut(), 1000).unwrap().unwrap();
    let values = batch.column(0).as_primitive::<Int64Type>();
    assert_eq!(arrow::compute::min(values), Some(-3));
    assert_eq!(arrow::compute::max(values), Some(3));
}

#[test]
fn another_number_of_splits_is_refused_on_restore() {
    let source = all_columns(&bounded("4", "10"));
    let reading = Reading::new(&source);
    let split = Split {
        id: SplitId("0/8".to_owned()),
        position: "5".to_owned(),
    };
    let error = source.open_split(&split, reading.context()).err().unwrap().to_string();
    assert!(error.contains("'splits' = '8'"), "{error}");
}

#[test]
fn wrong_options_are_refused() {
    for (options, about) in [
        (
            &[("rows-per-second", "0")][..],
            "'0' is out of range; it must be at least 1",
        ),
        (
            &[("rows-per-second", "ten")],
            "option 'rows-per-second': 'ten' is not a whole number such as 1000, nor 'unlimited'",
        ),
        (&[("number-of-rows", "-1")], "'-1' is not a whole number such as 1000"),
        (&[("fields.price.min", "low")], "'low' is not a number such as 0.5"),
        (
            &[("fields.text.length", "1.5")],
            "'1.5' is not a whole number such as 100",
        ),
        (
            &[("fields.id.kind", "sequence"), ("fields.id.start", "a")],
            "'a' is not a whole number",
        ),
        (
            &[
                ("fields.small.kind", "sequence"),
                ("fields.small.start", "1"),
                ("fields.small.end", "40000"),
            ],
            "option 'fields.small.end': '40000' is out of range",
        ),
        (&[("fields.id.null-rate", "2")], "from 0 to 1, such as 0.1"),
        (&[("splits", "0")], "from 1 to"),
        (&[("fields.id.min", "5"), ("fields.id.max", "4")], "at least 5"),
        (&[("fields.small.max", "40000")], "must be from -32768 to 32767"),
        (&[("fields.id.kind", "sequence")], "fields.id.start"),
        (&[("fields.id.null-rate", "0.5")], "NOT NULL"),
        (&[("fields.ib.min", "5")], "did you mean 'fields.id.min'?"),
        (&[("fields.ts.start", "yesterday")], "not a timestamp"),
        (&[("fields.text.kind", "sequnce")], "did you mean 'sequence'?"),
        (&[("scan.parallelism", "2")], "every worker"),
    ] {
        let error = check(&table(options)).unwrap_err().to_string();
        assert!(error.contains(about), "{error}");
        assert!(!error.contains("invalid"), "no text of the parser: {error}");
    }
}
