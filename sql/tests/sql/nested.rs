//! Arrays and maps: columns, literals, access, and joins with their elements.

use super::support::{job, refused, run};
use arrow::array::{ArrayRef, Int64Array, ListArray, ListBuilder, MapBuilder, RecordBatch, StringArray, StringBuilder};
use arrow::array::{Int32Builder, MapFieldNames, StructArray, TimestampMillisecondArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field};
use std::collections::BTreeMap;
use std::sync::Arc;

const ORDERS: &str = "CREATE TABLE orders (
  id BIGINT, tags ARRAY<STRING>, prices MAP<STRING, INT>, items ARRAY<ROW<name STRING, n BIGINT>>, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts
) WITH ('connector' = 'test');\n";

/// Two orders: one with two of everything, one with none.
fn orders() -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let mut tags = ListBuilder::new(StringBuilder::new());
    tags.values().append_value("a");
    tags.values().append_value("b");
    tags.append(true);
    tags.append(false);
    let names = MapFieldNames {
        entry: "entries".into(),
        key: "key".into(),
        value: "value".into(),
    };
    let mut prices = MapBuilder::new(Some(names), StringBuilder::new(), Int32Builder::new());
    for (key, value) in [("x", 10), ("y", 20)] {
        prices.keys().append_value(key);
        prices.values().append_value(value);
    }
    prices.append(true).unwrap();
    prices.append(true).unwrap();
    let name: ArrayRef = Arc::new(StringArray::from(vec!["pen", "cup"]));
    let count: ArrayRef = Arc::new(Int64Array::from(vec![3, 4]));
    let item = StructArray::from(vec![
        (Arc::new(Field::new("name", DataType::Utf8, true)), name),
        (Arc::new(Field::new("n", DataType::Int64, true)), count),
    ]);
    let field = Arc::new(Field::new_list_field(
        arrow::array::Array::data_type(&item).clone(),
        true,
    ));
    let items = ListArray::new(field, OffsetBuffer::from_lengths([2, 0]), Arc::new(item), None);
    let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![1_000, 2_000]));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", ids),
        ("tags", Arc::new(tags.finish())),
        ("prices", Arc::new(prices.finish())),
        ("items", Arc::new(items)),
        ("ts", times),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

fn rows(columns: &str, select: &str) -> Vec<String> {
    let sql = format!("{ORDERS}CREATE TABLE out ({columns}) WITH ('connector' = 'test');\nINSERT INTO out {select};");
    let sinks =
        run(&job(&sql).graph, &BTreeMap::from([("orders", orders())])).unwrap_or_else(|error| panic!("{error}"));
    sinks["out"].clone()
}

#[test]
fn elements_are_joined_to_their_rows() {
    for from in [
        "orders CROSS JOIN UNNEST(tags) AS t (tag)",
        "orders, UNNEST(tags) AS t (tag)",
        "orders AS o INNER JOIN UNNEST(o.tags) AS t (tag) ON TRUE",
        "orders CROSS JOIN LATERAL TABLE(ARRAY_APPEND(tags, 'c')) AS t (tag)",
    ] {
        let found = rows(
            "id BIGINT, tag STRING",
            &format!("SELECT id, t.tag FROM {from} WHERE tag <> 'c'"),
        );
        assert_eq!(found, ["1|a", "1|b"], "{from}");
    }
    let from = "orders LEFT JOIN UNNEST(tags) WITH ORDINALITY AS t (tag, place) ON TRUE";
    let found = rows(
        "id BIGINT, tag STRING, place INT",
        &format!("SELECT id, UPPER(tag), place FROM {from}"),
    );
    assert_eq!(found, ["1|A|1", "1|B|2", "2|NULL|NULL"]);
}

#[test]
fn rows_and_maps_give_several_columns_and_joins_follow_one_another() {
    let found = rows(
        "id BIGINT, name STRING, n BIGINT, k STRING, v INT",
        "SELECT id, i.name, i.n + 1, k, v FROM orders CROSS JOIN UNNEST(items) AS i CROSS JOIN UNNEST(prices) AS p (k, v)",
    );
    assert_eq!(found, ["1|pen|4|x|10", "1|pen|4|y|20", "1|cup|5|x|10", "1|cup|5|y|20"]);
    // Rows are there once per element also where nobody reads the element.
    assert_eq!(
        rows("id BIGINT", "SELECT id FROM orders CROSS JOIN UNNEST(items) AS i"),
        ["1", "1"]
    );
}

#[test]
fn windows_are_made_over_and_below_elements() {
    let expected = ["1970-01-01T00:00:00|a|1", "1970-01-01T00:00:00|b|1"];
    let found = rows(
        "s TIMESTAMP(3), tag STRING, c BIGINT",
        "SELECT window_start, tag, COUNT(*) FROM (SELECT * FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' HOUR))
         CROSS JOIN UNNEST(tags) AS t (tag)) GROUP BY window_start, window_end, tag",
    );
    assert_eq!(found, expected);
    let sql = format!(
        "{ORDERS}CREATE VIEW tagged AS SELECT tag, ts FROM orders CROSS JOIN UNNEST(tags) AS t (tag);
         CREATE TABLE out (s TIMESTAMP(3), tag STRING, c BIGINT) WITH ('connector' = 'test');
         INSERT INTO out SELECT window_start, tag, COUNT(*) FROM TABLE(HOP(TABLE tagged, DESCRIPTOR(ts), INTERVAL '1' HOUR, INTERVAL '1' HOUR))
         GROUP BY window_start, window_end, tag"
    );
    let found = run(&job(&sql).graph, &BTreeMap::from([("orders", orders())])).unwrap();
    assert_eq!(found["out"], expected);
}

#[test]
fn values_inside_are_read_and_whole_ones_written() {
    let found = rows(
        "a STRING, b INT, c STRING, d INT, e ARRAY<STRING>, f MAP<STRING, INT>",
        "SELECT tags[1], prices['y'], items[2].name, CARDINALITY(items), tags, prices FROM orders WHERE id = 1",
    );
    assert_eq!(found, ["a|20|cup|2|[a, b]|{x: 10, y: 20}"]);
}

#[test]
fn what_arrays_cannot_do_is_refused() {
    let refusal = |columns: &str, select: &str| {
        refused(&format!(
            "{ORDERS}CREATE TABLE out ({columns}) WITH ('connector' = 'test');\nINSERT INTO out {select}"
        ))
    };
    for (select, words) in [
        (
            "SELECT id FROM orders CROSS JOIN UNNEST(id) AS t (x)",
            "take an ARRAY or a MAP, not BIGINT",
        ),
        (
            "SELECT id FROM orders RIGHT JOIN UNNEST(tags) AS t (x) ON TRUE",
            "this join with UNNEST",
        ),
        (
            "SELECT id FROM orders LEFT JOIN UNNEST(tags) AS t (x) ON x = 'a'",
            "condition of a join with UNNEST",
        ),
        (
            "SELECT id FROM orders CROSS JOIN UNNEST(tags) AS t (x, y)",
            "names 2 columns and there are 1",
        ),
        (
            "SELECT id FROM orders CROSS JOIN UNNEST(tags, tags) AS t (x)",
            "take one array",
        ),
        (
            "SELECT id FROM orders CROSS JOIN UNNEST((SELECT tags FROM orders)) AS t (x)",
            "query inside",
        ),
        (
            "SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, tags",
            "ARRAY<STRING> cannot be grouped by",
        ),
        (
            "SELECT id FROM orders WHERE tags = tags",
            "ARRAY<STRING> cannot be compared",
        ),
    ] {
        let error = refusal("id BIGINT", select);
        assert!(error.message.contains(words), "{select}: {error}");
        assert!(error.hint.is_some() && error.position.is_some(), "{select}: {error}");
    }
}
