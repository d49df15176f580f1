//! Joins with a table as of a processing time: whole jobs over real files and a real SQLite, and what is refused.

#![allow(clippy::disallowed_methods, reason = "tests set their stage with files")]

use super::support::{lines, plan};
use arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tidemill_connectors::{ConnectorEnvironment, ConnectorError, Lookup, TableDefinition};
use tidemill_engine::job::{JobConfig, JobEnd, start};
use tidemill_engine::sink::{DeliveryGuarantee, Sink};
use tidemill_engine::source::Source;
use tidemill_engine::testing::{MemorySink, MemorySource};
use tidemill_sql::{Connectors, Plan, PlanOptions, Position, SqlError, plan_with};

const BIDS: &str = "CREATE TABLE bids (auction BIGINT, channel STRING, price INT, ts TIMESTAMP(3), p AS PROCTIME(),
  WATERMARK FOR ts AS ts - INTERVAL '2' SECOND) WITH ('connector' = 'memory');\n";

/// Streams in memory; tables that are looked up are those of the real connectors.
struct World {
    rows: RecordBatch,
    sinks: Mutex<BTreeMap<String, (MemorySink, SchemaRef)>>,
    environment: ConnectorEnvironment,
}

impl Connectors for World {
    fn check_source(&self, _: &TableDefinition) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn check_sink(&self, _: &TableDefinition) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn create_source(&self, table: &TableDefinition, projection: &[usize]) -> Result<Arc<dyn Source>, ConnectorError> {
        if table.options["connector"] != "memory" {
            return self.environment.create_source(table, projection);
        }
        let projected = table.schema.project(projection).unwrap();
        let columns = projected.fields().iter().map(|field| self.rows.index_of(field.name()));
        let rows = self.rows.project(&columns.collect::<Vec<_>>()).unwrap();
        let half = rows.num_rows() / 2;
        let splits = vec![
            vec![rows.slice(0, half)],
            vec![rows.slice(half, rows.num_rows() - half)],
        ];
        Ok(Arc::new(MemorySource::bounded(splits).with_rows_max(50)))
    }

    fn create_sink(&self, table: &TableDefinition) -> Result<Arc<dyn Sink>, ConnectorError> {
        let sink = MemorySink::new(DeliveryGuarantee::AtLeastOnce);
        let known = (sink.clone(), Arc::clone(&table.schema));
        self.sinks.lock().unwrap().insert(table.name.clone(), known);
        Ok(Arc::new(sink))
    }

    fn check_lookup(&self, table: &TableDefinition, keys: &[usize]) -> Result<(), ConnectorError> {
        self.environment.check_lookup(table, keys)
    }

    fn create_lookup(
        &self,
        table: &TableDefinition,
        columns: &[usize],
        keys: &[usize],
    ) -> Result<Lookup, ConnectorError> {
        self.environment.create_lookup(table, columns, keys)
    }
}

trait IndexOf {
    fn index_of(&self, name: &str) -> usize;
}

impl IndexOf for RecordBatch {
    fn index_of(&self, name: &str) -> usize {
        self.schema_ref().index_of(name).unwrap()
    }
}

/// A bid: auction, channel, price.
type Bid = (Option<i64>, Option<&'static str>, i32);

fn bids() -> Vec<Bid> {
    let bid = |i: i64| {
        let channel = (i % 11 != 0).then(|| ["web", "app"][(i % 2) as usize]);
        ((i % 13 != 0).then_some(i * 7 % 10), channel, (i * 31 % 100) as i32)
    };
    (0..400).map(bid).collect()
}

fn batch(bids: &[Bid]) -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("auction", DataType::Int64, true),
        Field::new("channel", DataType::Utf8, true),
        Field::new("price", DataType::Int32, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter(bids.iter().map(|bid| bid.0))),
        Arc::new(StringArray::from_iter(bids.iter().map(|bid| bid.1))),
        Arc::new(Int32Array::from_iter_values(bids.iter().map(|bid| bid.2))),
        Arc::new(TimestampMillisecondArray::from_iter_values(
            (0..bids.len() as i64).map(|i| i * 100),
        )),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

fn planned(sql: &str, world: &World) -> Result<tidemill_sql::JobPlan, SqlError> {
    match plan_with(sql, world, &PlanOptions::default())? {
        Plan::Job(job) => Ok(*job),
        Plan::Explain(_) => panic!("planned an explanation"),
    }
}

/// Runs a job at several parallelisms; gives the sorted lines of `out`, which must always be the same.
fn run(sql: &str, directory: &Path) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut found = Vec::new();
    for parallelism in [1, 3] {
        let world = World {
            rows: batch(&bids()),
            sinks: Mutex::default(),
            environment: ConnectorEnvironment::new().with_data_directory(directory),
        };
        let job = planned(sql, &world).unwrap_or_else(|error| panic!("{error}\n{sql}"));
        let config = JobConfig {
            parallelism,
            ..JobConfig::new("sql")
        };
        let handle = start(job.graph, config, runtime.handle()).unwrap();
        assert_eq!(runtime.block_on(handle.wait()).unwrap(), JobEnd::Finished, "{sql}");
        let sinks = world.sinks.lock().unwrap();
        let (sink, schema) = &sinks["out"];
        let mut rows = lines(&sink.concat(schema).unwrap());
        rows.sort();
        found.push(rows);
    }
    assert_eq!(found[0], found[1], "{sql}");
    found.pop().unwrap()
}

const DIM: &str =
    "CREATE TABLE dim (k INT, name STRING, least INT) WITH ('connector' = 'filesystem', 'path' = 'dim.csv',
  'format' = 'csv', 'csv.null-literal' = '');\n";

fn dim() -> Vec<(i64, &'static str, i32)> {
    vec![
        (1, "one", 10),
        (1, "uno", 50),
        (2, "two", 0),
        (3, "three", 200),
        (7, "seven", 30),
        (70, "far", 0),
    ]
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let text: String = dim()
        .iter()
        .map(|(k, name, least)| format!("{k},{name},{least}\n"))
        .collect();
    std::fs::write(directory.path().join("dim.csv"), text + ",null,0\n").unwrap();
    directory
}

fn out(columns: &str) -> String {
    format!("CREATE TABLE out ({columns}) WITH ('connector' = 'memory');\n")
}

fn sorted(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    assert!(!lines.is_empty());
    lines
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "NULL".to_owned(), |value| value.to_string())
}

#[test]
fn inner_joins_with_a_file_as_of_a_computed_column() {
    let directory = directory();
    let found = run(
        &format!(
            "{BIDS}{DIM}{}INSERT INTO out SELECT b.price, d.name FROM bids AS b
             JOIN dim FOR SYSTEM_TIME AS OF b.p AS d ON b.auction = d.k",
            out("price INT, name STRING")
        ),
        directory.path(),
    );
    let expected = bids().into_iter().flat_map(|(auction, _, price)| {
        let rows = dim().into_iter().filter(move |row| Some(row.0) == auction);
        rows.map(move |row| format!("{price}|{}", row.1))
    });
    assert_eq!(found, sorted(expected));
}

#[test]
fn left_joins_keep_rows_whose_conditions_find_nothing() {
    let directory = directory();
    let found = run(
        &format!(
            "{BIDS}{DIM}{}INSERT INTO out SELECT b.auction, b.price, d.name, d.least
             FROM (SELECT *, PROCTIME() AS now FROM bids) AS b
             LEFT JOIN dim FOR SYSTEM_TIME AS OF b.now AS d
             ON d.k = b.auction % 8 AND b.price > d.least AND d.name <> 'two' AND b.channel = 'web'",
            out("a BIGINT, price INT, name STRING, least INT")
        ),
        directory.path(),
    );
    let expected = bids().into_iter().flat_map(|(auction, channel, price)| {
        let holds = |row: &(i64, &str, i32)| {
            Some(row.0) == auction.map(|a| a % 8) && price > row.2 && row.1 != "two" && channel == Some("web")
        };
        let mut rows: Vec<String> = dim()
            .iter()
            .filter(|row| holds(row))
            .map(|row| format!("{}|{price}|{}|{}", text(auction), row.1, row.2))
            .collect();
        if rows.is_empty() {
            rows.push(format!("{}|{price}|NULL|NULL", text(auction)));
        }
        rows
    });
    assert_eq!(found, sorted(expected));
}

#[test]
fn constants_are_keys_too_and_joins_follow_one_another() {
    let directory = directory();
    let found = run(
        &format!(
            "{BIDS}{DIM}CREATE TABLE names (name STRING, long STRING) WITH ('connector' = 'filesystem', 'format' = 'json',
               'path' = 'names.json');
             {}INSERT INTO out SELECT e.long, b.price FROM bids AS b
             INNER JOIN dim FOR SYSTEM_TIME AS OF b.p AS d ON d.k = 1 AND b.auction = 4
             LEFT OUTER JOIN names FOR SYSTEM_TIME AS OF b.p AS e ON e.name = d.name",
            out("long STRING, price INT")
        ),
        {
            let names = "{\"long\": \"the one\", \"name\": \"one\"}\n";
            std::fs::write(directory.path().join("names.json"), names).unwrap();
            directory.path()
        },
    );
    let fours = bids().into_iter().filter(|bid| bid.0 == Some(4));
    let expected = fours.flat_map(|bid| [format!("the one|{}", bid.2), format!("NULL|{}", bid.2)]);
    assert_eq!(found, sorted(expected));
}

#[test]
fn windows_over_what_was_joined_see_its_event_time() {
    let directory = directory();
    let found = run(
        &format!(
            "{BIDS}{DIM}CREATE VIEW named AS SELECT b.*, d.name FROM bids AS b
               JOIN dim FOR SYSTEM_TIME AS OF b.p AS d ON b.auction = d.k;
             {}INSERT INTO out SELECT name, window_end, COUNT(*)
             FROM TABLE(TUMBLE(TABLE named, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY name, window_start, window_end",
            out("name STRING, e TIMESTAMP(3), n BIGINT")
        ),
        directory.path(),
    );
    let mut counts: BTreeMap<(&str, usize), usize> = BTreeMap::new();
    for (index, bid) in bids().iter().enumerate() {
        for row in dim().iter().filter(|row| Some(row.0) == bid.0) {
            *counts.entry((row.1, index / 100)).or_default() += 1;
        }
    }
    let expected = counts
        .iter()
        .map(|((name, window), n)| format!("{name}|1970-01-01T00:00:{}0|{n}", window + 1));
    assert_eq!(found, sorted(expected));
}

#[test]
fn a_table_of_sqlite_is_asked_through_every_cache() {
    let directory = directory();
    let database = rusqlite::Connection::open(directory.path().join("d.db")).unwrap();
    database
        .execute_batch("CREATE TABLE named (k INTEGER, channel TEXT, name TEXT)")
        .unwrap();
    for (k, name, _) in dim() {
        database
            .execute("INSERT INTO named VALUES (?, 'web', ?)", (k, name))
            .unwrap();
    }
    let expected = bids().into_iter().flat_map(|(auction, channel, price)| {
        let found = dim()
            .into_iter()
            .filter(move |row| Some(row.0) == auction && channel == Some("web"));
        let found: Vec<_> = found.map(|row| format!("{price}|{}", row.1)).collect();
        if found.is_empty() {
            vec![format!("{price}|NULL")]
        } else {
            found
        }
    });
    let expected = sorted(expected);
    for cache in [
        "'NONE'",
        "'PARTIAL', 'lookup.partial-cache.max-rows' = '3'",
        "'PARTIAL'",
        "'FULL'",
        "'NONE', 'lookup.async' = 'false'",
    ] {
        let found = run(
            &format!(
                "{BIDS}CREATE TABLE named (name STRING, channel STRING, k BIGINT) WITH ('connector' = 'jdbc',
                   'url' = 'jdbc:sqlite:d.db', 'table-name' = 'named', 'lookup.cache' = {cache});
                 {}INSERT INTO out SELECT b.price, d.name FROM bids AS b
                 LEFT JOIN named FOR SYSTEM_TIME AS OF b.p AS d ON b.auction = d.k AND b.channel = d.channel",
                out("price INT, name STRING")
            ),
            directory.path(),
        );
        assert_eq!(found, expected, "{cache}");
    }
}

#[test]
fn what_a_table_promises_is_checked_of_its_rows() {
    let directory = directory();
    let world = || World {
        rows: batch(&bids()),
        sinks: Mutex::default(),
        environment: ConnectorEnvironment::new().with_data_directory(directory.path()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let fails = |dim: &str| {
        let sql = format!(
            "{BIDS}{dim}{}INSERT INTO out SELECT d.name FROM bids AS b
             JOIN dim FOR SYSTEM_TIME AS OF b.p AS d ON b.auction = d.k",
            out("name STRING")
        );
        let job = planned(&sql, &world()).unwrap();
        let handle = start(job.graph, JobConfig::new("sql"), runtime.handle()).unwrap();
        runtime.block_on(handle.wait()).unwrap_err().to_string()
    };
    let error = fails(&DIM.replace("name STRING", "name VARCHAR(3)"));
    assert!(error.contains("name") && error.contains('3'), "{error}");
    let error = fails(&DIM.replace("k INT", "k INT NOT NULL"));
    assert!(error.contains("dim.csv") && error.contains('k'), "{error}");
    let error = fails(&DIM.replace("dim.csv", "gone.csv"));
    assert!(error.contains("gone.csv does not exist"), "{error}");
}

#[test]
fn only_what_is_read_of_the_table_is_asked_for() {
    let directory = directory();
    let world = World {
        rows: batch(&bids()),
        sinks: Mutex::default(),
        environment: ConnectorEnvironment::new().with_data_directory(directory.path()),
    };
    let sql = format!(
        "{BIDS}{DIM}{}INSERT INTO out SELECT b.price FROM bids AS b
         JOIN dim FOR SYSTEM_TIME AS OF b.p AS d ON b.auction = d.k WHERE d.least > 3",
        out("price INT")
    );
    let job = planned(&sql, &world).unwrap();
    let read = |name: &str| {
        job.tables
            .iter()
            .find(|table| table.name == name)
            .unwrap()
            .columns_read
            .clone()
    };
    assert_eq!(read("dim"), ["k", "least"]);
    assert_eq!(read("bids"), ["auction", "price", "ts"]);
}

/// Takes the mark out of a text and returns its place.
fn marked(text: &str) -> (String, Position) {
    let at = text.find('^').unwrap_or_else(|| panic!("no ^ in {text}"));
    let before = &text[..at];
    let line = before.matches('\n').count() as u64 + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() as u64 + 1;
    (text.replacen('^', "", 1), Position { line, column })
}

#[test]
fn other_joins_as_of_a_time_are_refused_at_their_place() {
    let directory = directory();
    let world = World {
        rows: batch(&bids()),
        sinks: Mutex::default(),
        environment: ConnectorEnvironment::new().with_data_directory(directory.path()),
    };
    let tables = format!(
        "{BIDS}{DIM}CREATE TABLE later (k BIGINT, k2 AS k + 1) WITH ('connector' = 'filesystem', 'path' = 'x', 'format' = 'csv');
         CREATE TABLE given (k BIGINT) WITH ('connector' = 'datagen');
         CREATE VIEW dims AS SELECT * FROM dim WHERE least > 0;
         CREATE TABLE asked (k BIGINT, v INT) WITH ('connector' = 'http', 'url' = 'http://localhost/{{v}}', 'format' = 'json');
         {}",
        out("a BIGINT")
    );
    let mut wrong = Vec::new();
    for (query, words) in [
        (
            "FROM bids AS b JOIN dim FOR SYSTEM_TIME AS OF ^b.ts AS d ON b.auction = d.k",
            "no PRIMARY KEY",
        ),
        (
            "FROM bids AS b JOIN dim FOR SYSTEM_TIME AS OF ^b.price AS d ON b.auction = d.k",
            "no PRIMARY KEY",
        ),
        (
            "FROM bids AS b JOIN dim FOR SYSTEM_TIME AS OF ^d.k AS d ON b.auction = d.k",
            "no PRIMARY KEY",
        ),
        (
            "FROM bids AS b JOIN dim FOR SYSTEM_TIME AS OF ^b.p AS d ON b.auction > d.k",
            "no equality",
        ),
        (
            "FROM bids AS b JOIN dim FOR SYSTEM_TIME AS OF ^b.p AS d ON b.auction = d.k + 1",
            "no equality",
        ),
        (
            "FROM bids AS b JOIN dim FOR SYSTEM_TIME AS OF b.p AS d ON ^b.channel = d.k",
            "looked up with a STRING",
        ),
        (
            "FROM bids AS b JOIN dims FOR SYSTEM_TIME AS OF ^b.p AS d ON b.auction = d.k",
            "only a table",
        ),
        (
            "FROM bids AS b JOIN later FOR SYSTEM_TIME AS OF ^b.p AS d ON b.auction = d.k",
            "computed column k2",
        ),
        (
            "FROM bids AS b RIGHT JOIN ^dim FOR SYSTEM_TIME AS OF b.p AS d ON b.auction = d.k",
            "neither INNER nor LEFT",
        ),
        (
            "FROM bids AS b JOIN ^dim FOR SYSTEM_TIME AS OF b.p AS d USING (k)",
            "without ON",
        ),
        ("FROM bids ^FOR SYSTEM_TIME AS OF p", "outside of a join"),
    ] {
        let (sql, place) = marked(&format!("{tables}INSERT INTO out SELECT 1 {query}"));
        match planned(&sql, &world) {
            Ok(_) => wrong.push(format!("not refused: {query}")),
            Err(error) if error.position == Some(place) && error.message.contains(words) && error.hint.is_some() => {}
            Err(error) => wrong.push(format!("{query}\nexpected {words:?} at {place}, found {error}\n")),
        }
    }
    for (query, words) in [
        (
            "FROM bids AS b JOIN given FOR SYSTEM_TIME AS OF b.p AS d ON b.auction = d.k",
            "'datagen' cannot be looked up",
        ),
        (
            "FROM bids AS b JOIN asked FOR SYSTEM_TIME AS OF b.p AS d ON b.auction = d.k",
            "{v} is not given by the join",
        ),
        ("FROM asked", "can only be looked up"),
    ] {
        match planned(&format!("{tables}INSERT INTO out SELECT 1 {query}"), &world) {
            Ok(_) => wrong.push(format!("not refused: {query}")),
            Err(error) if error.message.contains(words) => {}
            Err(error) => wrong.push(format!("{query}\nexpected {words:?}, found {error}\n")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_mark_of_a_time_cannot_be_written() {
    let error = match plan(
        "CREATE TABLE t (a BIGINT, p AS PROCTIME()) WITH ('connector' = 'test');
         CREATE TABLE out (a BIGINT) WITH ('connector' = 'test');
         INSERT INTO out SELECT a FROM t WHERE `$system_time_as_of`(p)",
    ) {
        Ok(_) => panic!("planned"),
        Err(error) => error,
    };
    assert!(error.message.contains("$system_time_as_of"), "{error}");
}

#[test]
fn rows_that_are_joined_keep_the_order_of_their_split() {
    // One split, one worker: the order is that of the source, whatever the cache.
    let directory = directory();
    let rows = batch(&bids());
    let world = World {
        rows,
        sinks: Mutex::default(),
        environment: ConnectorEnvironment::new().with_data_directory(directory.path()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let sql = format!(
        "{BIDS}{DIM}{}INSERT INTO out SELECT b.auction, b.price FROM bids AS b
         LEFT JOIN dim FOR SYSTEM_TIME AS OF b.p AS d ON b.auction = d.k AND d.name <> 'uno'",
        out("a BIGINT, price INT")
    );
    let handle = start(
        planned(&sql, &world).unwrap().graph,
        JobConfig::new("sql"),
        runtime.handle(),
    )
    .unwrap();
    assert_eq!(runtime.block_on(handle.wait()).unwrap(), JobEnd::Finished);
    let sinks = world.sinks.lock().unwrap();
    let (sink, schema) = &sinks["out"];
    let found = sink.concat(schema).unwrap();
    let (a, price) = (
        found.column(0).as_primitive::<Int64Type>(),
        found.column(1).as_primitive::<Int32Type>(),
    );
    let found: Vec<_> = (0..found.num_rows())
        .map(|row| (a.is_valid(row).then(|| a.value(row)), price.value(row)))
        .collect();
    for half in bids().chunks(200) {
        let wanted: Vec<_> = half.iter().map(|bid| (bid.0, bid.2)).collect();
        // The rows of a split are there in order, with those of the other one between them.
        let mut rest = found.iter();
        assert!(wanted.iter().all(|bid| rest.any(|row| row == bid)), "not in order");
    }
    assert_eq!(found.len(), bids().len());
}

#[test]
fn conditions_on_the_stream_are_asked_before_the_table_is() {
    let directory = directory();
    let world = World {
        rows: batch(&bids()),
        sinks: Mutex::default(),
        environment: ConnectorEnvironment::new().with_data_directory(directory.path()),
    };
    let sql = format!(
        "{BIDS}{DIM}EXPLAIN SELECT b.auction, d.name FROM bids AS b
         LEFT JOIN dim FOR SYSTEM_TIME AS OF b.p AS d ON b.auction = d.k
         WHERE b.price > 50 AND d.name IS NOT NULL AND b.auction IN (SELECT auction FROM bids AS c WHERE c.price = 1
           AND c.ts BETWEEN b.ts - INTERVAL '1' HOUR AND b.ts)"
    );
    let text = match plan_with(&sql, &world, &PlanOptions::default()) {
        Ok(Plan::Explain(text)) => text,
        Ok(Plan::Job(_)) => panic!("planned a job"),
        Err(error) => panic!("{error}"),
    };
    let graph: Vec<&str> = text.lines().skip_while(|line| !line.contains("job graph")).collect();
    let line = |words: &str| {
        let found = graph.iter().position(|line| line.contains(words));
        found.unwrap_or_else(|| panic!("no {words} in\n{text}"))
    };
    assert!(line("price > ") < line("lookup join dim"), "{text}");
    assert!(line("lookup join dim") < line("IS NOT NULL"), "{text}");
}

#[test]
fn a_table_is_looked_up_within_a_query_of_a_condition_too() {
    let directory = directory();
    let found = run(
        &format!(
            "{BIDS}{DIM}{}INSERT INTO out SELECT b.price FROM bids AS b
             WHERE b.auction IN (SELECT c.auction FROM bids AS c
               JOIN dim FOR SYSTEM_TIME AS OF c.p AS d ON c.auction = d.k AND d.name = 'two'
               WHERE c.ts BETWEEN b.ts AND b.ts)",
            out("price INT")
        ),
        directory.path(),
    );
    let twos = bids().into_iter().filter(|bid| bid.0 == Some(2));
    assert_eq!(found, sorted(twos.map(|bid| bid.2.to_string())));
}
