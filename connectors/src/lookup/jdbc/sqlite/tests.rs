//! The connector against a database of its own.

use crate::registry::{check_lookup, create_lookup};
use crate::{ConnectorEnvironment, TableDefinition};
use arrow::array::{ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;
use tidemill_engine::lookup::LookupCache;

fn table(options: &[(&str, &str)]) -> TableDefinition {
    let fields = vec![
        Field::new("id", DataType::Int64, false),
        Field::new("na\"me", DataType::Utf8, true),
        Field::new("price", DataType::Decimal128(10, 2), true),
        Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("ok", DataType::Boolean, true),
        Field::new("raw", DataType::Binary, true),
    ];
    let mut all = vec![("connector", "jdbc"), ("table-name", "items")];
    all.extend(options);
    TableDefinition {
        name: "dim".into(),
        schema: Arc::new(Schema::new(fields)),
        metadata_columns: Vec::new(),
        options: all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        partition_keys: Vec::new(),
        primary_key: Vec::new(),
    }
}

fn database(directory: &Path) -> Connection {
    let connection = Connection::open(directory.join("d.db")).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE items (id INTEGER, \"na\"\"me\" TEXT, price, at TEXT, ok, raw BLOB);
             INSERT INTO items VALUES (1, 'one', 1.5, '2026-01-02 03:04:05.678', 1, x'00ff');
             INSERT INTO items VALUES (1, 'again', '2.25', NULL, 'false', 'text');
             INSERT INTO items VALUES (2, 3, NULL, NULL, 0, NULL);
             INSERT INTO items VALUES (NULL, 'null', NULL, NULL, NULL, NULL);",
        )
        .unwrap();
    connection
}

fn keys(ids: Vec<i64>, names: Option<Vec<&str>>) -> RecordBatch {
    let mut columns = vec![("id", Arc::new(Int64Array::from(ids)) as ArrayRef)];
    columns.extend(names.map(|names| ("na\"me", Arc::new(StringArray::from(names)) as ArrayRef)));
    RecordBatch::try_from_iter(columns).unwrap()
}

const URL: (&str, &str) = ("url", "jdbc:sqlite:d.db");

#[tokio::test]
async fn rows_are_found_by_key_and_converted_to_the_columns_types() {
    let directory = tempfile::tempdir().unwrap();
    let connection = database(directory.path());
    let env = ConnectorEnvironment::new().with_data_directory(directory.path());
    let lookup = create_lookup(&table(&[URL]), &[0, 1, 2, 3, 4, 5], &[0], &env).unwrap();
    assert_eq!(lookup.options.cache, LookupCache::None);
    let found = lookup.source.lookup(keys(vec![2, 1], None)).await.unwrap();
    assert_eq!(found.column(0).as_primitive::<Int64Type>().values(), &[1, 1, 2]);
    assert_eq!(
        found.column(1).as_string::<i32>(),
        &StringArray::from(vec!["one", "again", "3"])
    );
    let price = found.column(2).as_primitive::<arrow::datatypes::Decimal128Type>();
    assert_eq!(price.iter().collect::<Vec<_>>(), [Some(150), Some(225), None]);
    let ok = found.column(4).as_boolean();
    assert_eq!(ok.iter().collect::<Vec<_>>(), [Some(true), Some(false), Some(false)]);
    assert_eq!(
        found.column(5).as_binary::<i32>(),
        &BinaryArray::from(vec![Some(&[0u8, 255][..]), Some(b"text"), None])
    );
    assert_eq!(found.column(3).null_count(), 2);

    // By two columns, of which one is quoted; and what was written meanwhile is seen.
    let lookup = create_lookup(&table(&[URL]), &[1, 0], &[0, 1], &env).unwrap();
    connection
        .execute("INSERT INTO items (id, \"na\"\"me\") VALUES (9, 'nine')", [])
        .unwrap();
    let found = lookup
        .source
        .lookup(keys(vec![1, 9, 2], Some(vec!["again", "nine", "one"])))
        .await
        .unwrap();
    assert_eq!(
        found.column(0).as_string::<i32>(),
        &StringArray::from(vec!["again", "nine"])
    );

    // More keys than one statement takes.
    let many = lookup
        .source
        .lookup(keys((0..5_000).collect(), Some(vec!["one"; 5_000])))
        .await
        .unwrap();
    assert_eq!(many.num_rows(), 1);
}

#[tokio::test]
async fn a_table_is_read_whole_and_nulls_in_not_null_columns_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let connection = database(directory.path());
    let env = ConnectorEnvironment::new().with_data_directory(directory.path());
    let options = [URL, ("lookup.cache", "FULL")];
    let lookup = create_lookup(&table(&options), &[0, 1], &[0], &env).unwrap();
    let error = lookup.source.load().await.unwrap_err().to_string();
    assert!(error.contains("dim") && error.contains("field id: is null"), "{error}");
    connection.execute("DELETE FROM items WHERE id IS NULL", []).unwrap();
    let rows = lookup.source.load().await.unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
}

#[tokio::test]
async fn what_does_not_fit_or_is_not_there_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let connection = database(directory.path());
    let env = ConnectorEnvironment::new().with_data_directory(directory.path());
    let ask = async |options: &[(&str, &str)], projection: &[usize]| {
        let lookup = create_lookup(&table(options), projection, &[0], &env).unwrap();
        lookup
            .source
            .lookup(keys(vec![1], None))
            .await
            .map(|found| found.num_rows())
    };
    connection.execute("UPDATE items SET price = 'much'", []).unwrap();
    let error = ask(&[URL], &[0, 2]).await.unwrap_err().to_string();
    assert!(error.contains("price") && error.contains("d.db"), "{error}");
    // SQLite would take a column that does not exist for a text.
    connection.execute("ALTER TABLE items DROP COLUMN price", []).unwrap();
    let error = ask(&[URL], &[0, 2]).await.unwrap_err().to_string();
    assert!(error.contains("no such column: t.price"), "{error}");
    assert_eq!(ask(&[URL], &[0, 1]).await.unwrap(), 2);
    let error = ask(&[("url", "jdbc:sqlite:gone.db")], &[0])
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("gone.db"), "{error}");
    assert!(!directory.path().join("gone.db").exists());
}

#[test]
fn options_are_checked_and_none_is_ignored() {
    for (options, keys, said) in [
        (vec![], vec![0], "'url'"),
        (
            vec![("url", "jdbc:postgresql://h/d")],
            vec![0],
            "no driver for 'jdbc:postgresql'",
        ),
        (vec![("url", "jdbc:sqlite:")], vec![0], "names no file"),
        (vec![("url", "jdbc:sqlite::memory:")], vec![0], "names no file"),
        (vec![URL, ("username", "me")], vec![0], "no users"),
        (vec![URL, ("driver", "org.sqlite.JDBC")], vec![0], "chosen by the url"),
        (vec![URL, ("scan.fetch-size", "5")], vec![0], "not scanned"),
        (vec![URL, ("lookup.cache.max-rows", "5")], vec![0], "no such option"),
        (vec![URL], vec![3], "cannot be looked up in SQLite"),
    ] {
        let refused = check_lookup(&table(&options), &keys).unwrap_err().to_string();
        assert!(refused.contains(said), "{options:?}: {refused}");
    }
    check_lookup(&table(&[URL, ("lookup.cache", "PARTIAL")]), &[0, 1]).unwrap();
}
