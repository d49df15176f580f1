//! Columns that hold rows: their fields in every place of a query, and what of them is read.

use super::support::{job, plan, run};
use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, StructArray};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, TimeUnit};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_engine::graph::{JobGraph, NodeKind};

const EVENTS: &str = "CREATE TABLE events (
  kind INT,
  person ROW<id BIGINT, name STRING, at TIMESTAMP(3), home ROW<city VARCHAR, zip INT>>,
  bid ROW<auction BIGINT, price BIGINT, at TIMESTAMP(3)>,
  ts AS CASE kind WHEN 0 THEN person.at ELSE bid.at END,
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'test');
CREATE VIEW people AS SELECT person.id, person.name, person.home, ts FROM events WHERE kind = 0;
CREATE VIEW bids AS SELECT bid.auction, events.bid.price AS price, ts FROM events WHERE kind = 1;
CREATE VIEW whole AS SELECT * FROM events;\n";

fn row(fields: &[(&str, ArrayRef)], nulls: &NullBuffer) -> ArrayRef {
    let (names, columns): (Vec<Field>, Vec<ArrayRef>) = fields
        .iter()
        .map(|(name, column)| (Field::new(*name, column.data_type().clone(), true), Arc::clone(column)))
        .unzip();
    Arc::new(StructArray::new(names.into(), columns, Some(nulls.clone())))
}

/// Persons at every fifth second, bids at the others; what is under a null row is not null by itself.
fn events() -> RecordBatch {
    let count = 20_i64;
    let times: ArrayRef = Arc::new(Int64Array::from_iter_values(
        (0..count).map(|i| 1_767_225_600_000 + i * 1_000),
    ));
    let times = cast(&times, &DataType::Timestamp(TimeUnit::Millisecond, None)).unwrap();
    let is_person: Vec<bool> = (0..count).map(|i| i % 5 == 0).collect();
    let persons = NullBuffer::from(is_person.clone());
    let bids = NullBuffer::from(is_person.iter().map(|is| !is).collect::<Vec<_>>());
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
    let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..count).map(|i| format!("n{i}"))));
    let zips: ArrayRef = Arc::new(Int32Array::from_iter(
        (0..count as i32).map(|i| (i != 5).then_some(i * 10)),
    ));
    let homes = NullBuffer::from((0..count).map(|i| i != 10).collect::<Vec<_>>());
    let home = row(&[("city", Arc::clone(&names)), ("zip", zips)], &homes);
    let person = row(
        &[
            ("id", Arc::clone(&numbers)),
            ("name", names),
            ("at", Arc::clone(&times)),
            ("home", home),
        ],
        &persons,
    );
    let auctions: ArrayRef = Arc::new(Int64Array::from_iter_values((0..count).map(|i| i % 3)));
    let bid = row(&[("auction", auctions), ("price", numbers), ("at", times)], &bids);
    let kinds: ArrayRef = Arc::new(Int32Array::from_iter_values(is_person.iter().map(|is| i32::from(!is))));
    RecordBatch::try_from_iter([("kind", kinds), ("person", person), ("bid", bid)]).unwrap()
}

fn planned(columns: &str, select: &str) -> (JobGraph, Vec<String>) {
    let sql = format!("{EVENTS}CREATE TABLE out ({columns}) WITH ('connector' = 'test');\nINSERT INTO out {select};");
    let plan = job(&sql);
    let read = plan.tables.iter().find(|table| table.name == "events").unwrap();
    (plan.graph, read.columns_read.clone())
}

fn query(columns: &str, select: &str) -> Vec<String> {
    let (graph, _) = planned(columns, select);
    run(&graph, &BTreeMap::from([("events", events())])).unwrap()["out"].clone()
}

fn read(columns: &str, select: &str) -> Vec<String> {
    planned(columns, select).1
}

#[test]
fn fields_are_read_through_views_and_aliases() {
    let rows = query(
        "a BIGINT, b BIGINT, c STRING",
        "SELECT auction, price, 'x' FROM bids WHERE price < 4",
    );
    assert_eq!(rows, ["1|1|x", "2|2|x", "0|3|x"]);
    let rows = query(
        "a BIGINT, b STRING, c INT",
        "SELECT e.person.id, e.person.home.city, e.person.home.zip + 1 FROM whole AS e WHERE person.id >= 0",
    );
    assert_eq!(rows, ["0|n0|1", "5|n5|NULL", "10|NULL|NULL", "15|n15|151"]);
    let rows = query(
        "a STRING",
        "SELECT p.home.city FROM people AS p WHERE p.home.zip IS NULL",
    );
    assert_eq!(rows, ["n5", "NULL"]);
}

#[test]
fn fields_of_a_null_row_are_null() {
    let rows = query(
        "a BIGINT, b BIGINT",
        "SELECT person.id, bid.price FROM events WHERE bid.price IS NULL",
    );
    assert_eq!(rows, ["0|NULL", "5|NULL", "10|NULL", "15|NULL"]);
    let rows = query(
        "a BIGINT",
        "SELECT bid.price FROM whole WHERE person IS NULL AND bid.price > 17",
    );
    assert_eq!(rows, ["18", "19"]);
}

#[test]
fn fields_are_keys_and_arguments_of_windows() {
    let rows = query(
        "s TIMESTAMP(3), a BIGINT, n BIGINT, p BIGINT",
        "SELECT window_start, bid.auction, COUNT(*), MAX(bid.price)
         FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '10' SECOND)) WHERE kind = 1
         GROUP BY window_start, window_end, bid.auction",
    );
    assert_eq!(
        rows,
        [
            "2026-01-01T00:00:00|0|3|9",
            "2026-01-01T00:00:00|1|3|7",
            "2026-01-01T00:00:00|2|2|8",
            "2026-01-01T00:00:10|0|2|18",
            "2026-01-01T00:00:10|1|3|19",
            "2026-01-01T00:00:10|2|3|17",
        ]
    );
}

#[test]
fn rows_go_through_whole() {
    let rows = query(
        "p ROW<id BIGINT, name STRING, at TIMESTAMP(3), home ROW<city VARCHAR, zip INT>>, h ROW<city VARCHAR, zip INT>",
        "SELECT person, person.home FROM whole WHERE kind = 0 AND person.id < 9",
    );
    assert_eq!(
        rows,
        [
            "{id: 0, name: n0, at: 2026-01-01T00:00:00, home: {city: n0, zip: 0}}|{city: n0, zip: 0}",
            "{id: 5, name: n5, at: 2026-01-01T00:00:05, home: {city: n5, zip: NULL}}|{city: n5, zip: NULL}",
        ]
    );
    let union = query(
        "b BIGINT",
        "SELECT bid.price FROM (SELECT * FROM events WHERE kind = 1 UNION ALL SELECT * FROM whole WHERE kind = 1)
         WHERE bid.price = 4",
    );
    assert_eq!(union, ["4", "4"]);
}

#[test]
fn only_fields_that_are_read_reach_the_connector() {
    // The watermark needs the time of both kinds.
    assert_eq!(
        read("p BIGINT", "SELECT price FROM bids"),
        ["kind", "person.at", "bid.price", "bid.at"]
    );
    assert_eq!(
        read("p BIGINT", "SELECT w.bid.price FROM (SELECT * FROM whole) AS w"),
        ["kind", "person.at", "bid.price", "bid.at"]
    );
    assert_eq!(
        read("c STRING", "SELECT people.home.city FROM people"),
        ["kind", "person.at", "person.home.city", "bid.at"]
    );
    assert_eq!(
        read("c STRING", "SELECT home.city FROM people WHERE home IS NOT NULL"),
        ["kind", "person.at", "person.home.city", "person.home.zip", "bid.at"]
    );
    assert_eq!(
        read(
            "n BIGINT",
            "SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '1' DAY)) GROUP BY window_start, window_end"
        ),
        ["kind", "person.at", "bid.at"]
    );
}

#[test]
fn what_is_read_becomes_columns_behind_the_source() {
    let (graph, _) = planned("p BIGINT", "SELECT price FROM bids");
    let source = graph
        .nodes()
        .iter()
        .find(|node| matches!(node.kind, NodeKind::Source(_)))
        .unwrap();
    let names: Vec<&str> = source
        .schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    assert_eq!(names, ["kind", "bid.price", "ts"]);
}

#[test]
fn every_read_of_a_shared_table_is_answered() {
    let sql = format!(
        "{EVENTS}CREATE TABLE a (x BIGINT) WITH ('connector' = 'test');
         CREATE TABLE b (x ROW<auction BIGINT, price BIGINT, at TIMESTAMP(3)>) WITH ('connector' = 'test');
         INSERT INTO a SELECT bid.price FROM whole WHERE bid.auction = 0 AND bid.price > 11;
         INSERT INTO b SELECT bid FROM events WHERE bid.price = 19"
    );
    let sinks = run(&job(&sql).graph, &BTreeMap::from([("events", events())])).unwrap();
    assert_eq!(sinks["a"], ["12", "18"]);
    assert_eq!(sinks["b"], ["{auction: 1, price: 19, at: 2026-01-01T00:00:19}"]);
    assert!(events().column(1).as_struct().column_by_name("home").is_some());
}

#[test]
fn rows_that_get_no_value_are_null() {
    let sql = format!(
        "{EVENTS}CREATE TABLE out (a BIGINT, b ROW<x INT, y ROW<z STRING>>) WITH ('connector' = 'test');
         INSERT INTO out (a) SELECT bid.price FROM events WHERE bid.price = 1;
         INSERT INTO out SELECT bid.price, NULL FROM events WHERE bid.price = 2"
    );
    let sinks = run(&job(&sql).graph, &BTreeMap::from([("events", events())])).unwrap();
    assert_eq!(sinks["out"], ["1|NULL", "2|NULL"]);
}

#[test]
fn what_rows_cannot_do_is_refused() {
    for (select, words) in [
        ("SELECT bid.cost FROM events", "there is no field cost"),
        ("SELECT kind.x FROM events", "no ROW"),
        ("SELECT bid.price.x FROM events", "no ROW"),
        (&format!("SELECT bid{} FROM events", ".a".repeat(30)), "many parts"),
        ("SELECT 1 FROM events WHERE bid = bid", "cannot be compared"),
        (
            "SELECT 1 FROM events WHERE person.home IN (person.home)",
            "cannot be compared",
        ),
        (
            "SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '1' DAY)) \
             GROUP BY window_start, window_end, bid",
            "cannot be grouped by",
        ),
        (
            "SELECT bid FROM events",
            "ROW<auction BIGINT, price BIGINT, at TIMESTAMP(3)>",
        ),
    ] {
        let sql = format!("{EVENTS}CREATE TABLE out (a BIGINT) WITH ('connector' = 'test');\nINSERT INTO out {select}");
        match plan(&sql) {
            Ok(_) => panic!("not refused: {select}"),
            Err(error) => {
                assert!(error.message.contains(words), "{select}: {error}");
                assert!(error.position.is_some() && error.hint.is_some(), "{select}: {error}");
            }
        }
    }
}
