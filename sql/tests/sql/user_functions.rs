//! Functions of a program's own, over columns and over rows.

use super::support::{BIDS, TestConnectors, bids, run};
use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Int32Type};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_engine::aggregate::CountDistinct;
use tidemill_sql::{FunctionError, Plan, PlanOptions, RowAggregate, SqlError, UserFunctions, Value, plan_with};

fn functions() -> UserFunctions {
    UserFunctions::new()
        .function("double_it", &[DataType::Int32], &DataType::Int32, |columns, _| {
            let doubled = columns[0]
                .as_primitive::<Int32Type>()
                .unary::<_, Int32Type>(|value| value * 2);
            Ok(Arc::new(doubled) as ArrayRef)
        })
        .row_function(
            "greet",
            &[DataType::Utf8, DataType::Int64],
            &DataType::Utf8,
            |values| match values {
                [Value::Text(name), Value::Integer(times)] => Ok(Value::Text(format!("hi {name} {times}"))),
                [_, Value::Null] => Err("no number".into()),
                _ => Ok(Value::Null),
            },
        )
        .table_function(
            "letters",
            &[DataType::Utf8],
            &[("letter", DataType::Utf8), ("place", DataType::Int32)],
            |values| match values {
                [Value::Text(text)] => Ok(text
                    .chars()
                    .zip(1..)
                    .map(|(letter, place)| vec![Value::Text(letter.into()), Value::Integer(place)])
                    .collect()),
                _ => Ok(Vec::new()),
            },
        )
        .row_aggregate(
            "weigh",
            &[DataType::Float64, DataType::Int64],
            &DataType::Float64,
            Weigh,
        )
        .aggregate_function("kinds", &[DataType::Utf8], &DataType::Int64, || {
            Arc::new(CountDistinct::try_new(&DataType::Utf8).unwrap())
        })
}

/// The mean of values by weight.
struct Weigh;

impl RowAggregate for Weigh {
    type State = (f64, i64);

    fn accumulate(&self, (sum, weight): &mut (f64, i64), values: &[Value]) -> Result<(), FunctionError> {
        match values {
            [Value::Double(_), Value::Integer(times)] if *times < 0 => Err("a weight is below zero".into()),
            [Value::Double(value), Value::Integer(times)] => {
                *sum += value * *times as f64;
                *weight += times;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn merge(&self, (sum, weight): &mut (f64, i64), other: (f64, i64)) -> Result<(), FunctionError> {
        *sum += other.0;
        *weight += other.1;
        Ok(())
    }

    fn result(&self, (sum, weight): &(f64, i64)) -> Result<Value, FunctionError> {
        Ok(match weight {
            0 => Value::Null,
            weight => Value::Double(sum / *weight as f64),
        })
    }
}

fn planned(text: &str) -> Result<Plan, SqlError> {
    let options = PlanOptions {
        functions: functions(),
        ..PlanOptions::default()
    };
    let out = "CREATE TABLE out (a STRING, b INT) WITH ('connector' = 'test');\n";
    plan_with(&format!("{BIDS}{out}{text}"), &TestConnectors, &options)
}

const CREATE: &str = "CREATE FUNCTION IF NOT EXISTS twice AS 'double_it' LANGUAGE RUST;
    CREATE TEMPORARY FUNCTION Greet AS 'greet' LANGUAGE RUST; CREATE TEMPORARY SYSTEM FUNCTION letters AS 'letters' LANGUAGE RUST;\n";

fn rows(select: &str) -> Result<Vec<String>, String> {
    let planned = planned(&format!("{CREATE}INSERT INTO out {select}"));
    let Plan::Job(job) = planned.unwrap_or_else(|error| panic!("{error}")) else {
        panic!("no job")
    };
    let sinks = run(&job.graph, &BTreeMap::from([("bids", bids())])).map_err(|error| error.to_string())?;
    Ok(sinks["out"].clone())
}

#[test]
fn functions_are_called_by_the_names_that_the_text_gives_them() {
    let found = rows("SELECT greet(channel, 3), TWICE(price) FROM bids WHERE price >= 200").unwrap();
    assert_eq!(found, ["hi app 3|400", "hi web 3|600"]);
    let found = rows("SELECT greet('x', 1), twice(4) FROM bids WHERE bidder = 11").unwrap();
    assert_eq!(found, ["hi x 1|8"]);
}

#[test]
fn rows_of_a_table_function_are_joined_to_theirs() {
    let found = rows(
        "SELECT l.letter, place FROM bids LEFT JOIN LATERAL TABLE(letters(channel)) AS l ON TRUE WHERE bidder >= 11 AND bidder < 13",
    )
    .unwrap();
    assert_eq!(found, ["a|1", "p|2", "p|3", "NULL|NULL"]);
}

#[test]
fn an_error_of_a_function_fails_the_job_with_its_name() {
    let error = rows("SELECT greet(channel, CAST(price AS BIGINT)), price FROM bids").unwrap_err();
    assert!(error.contains("the function greet failed: no number"), "{error}");
}

#[test]
fn functions_that_are_not_registered_or_fit_badly_are_refused() {
    for (text, words, hint) in [
        (
            "CREATE FUNCTION f AS 'nope' LANGUAGE RUST",
            "no function 'nope' is registered",
            "double_it",
        ),
        ("CREATE FUNCTION f AS 'com.example.F'", "JAVA", "LANGUAGE RUST"),
        ("CREATE FUNCTION f AS 'x.f' LANGUAGE PYTHON", "PYTHON", "LANGUAGE RUST"),
        (
            "CREATE FUNCTION f AS 'greet' LANGUAGE RUST USING JAR 'x.jar'",
            "USING",
            "compiled",
        ),
        (
            "CREATE FUNCTION upper AS 'greet' LANGUAGE RUST",
            "already a function upper",
            "another name",
        ),
        (
            "CREATE FUNCTION f AS 'greet' LANGUAGE RUST; CREATE FUNCTION F AS 'greet' LANGUAGE RUST",
            "already a function f",
            "another name",
        ),
    ] {
        let error = planned(text).err().unwrap_or_else(|| panic!("not refused: {text}"));
        assert!(error.message.contains(words), "{text}: {error}");
        assert!(
            error.hint.as_deref().unwrap_or_default().contains(hint),
            "{text}: {error}"
        );
        assert!(error.position.is_some(), "{error}");
    }
    for (select, words) in [
        (
            "SELECT greet(channel), price FROM bids",
            "greet takes 2 arguments, not 1",
        ),
        (
            "SELECT greet(price, 1), price FROM bids",
            "argument 1 of greet must be STRING, not INT",
        ),
        ("SELECT double_it(price), price FROM bids", "unknown function double_it"),
    ] {
        let error = planned(&format!("{CREATE}INSERT INTO out {select}")).err().unwrap();
        assert!(error.message.contains(words), "{select}: {error}");
    }
    let Ok(Plan::Explain(text)) = planned(&format!("{CREATE}SHOW USER FUNCTIONS")) else {
        panic!("no answer")
    };
    assert!(text.contains("greet\nletters\ntwice"), "{text}");
}

const AGGREGATES: &str =
    "CREATE FUNCTION mean AS 'weigh' LANGUAGE RUST; CREATE FUNCTION Kinds AS 'kinds' LANGUAGE RUST;
    CREATE TABLE means (k BIGINT, m DOUBLE, n BIGINT) WITH ('connector' = 'test');\n";

fn means(select: &str) -> Result<Vec<String>, String> {
    let planned = planned(&format!("{AGGREGATES}INSERT INTO means {select}")).map_err(|error| error.to_string())?;
    let Plan::Job(job) = planned else { panic!("no job") };
    let sinks = run(&job.graph, &BTreeMap::from([("bids", bids())])).map_err(|error| error.to_string())?;
    Ok(sinks["means"].clone())
}

#[test]
fn aggregate_functions_are_called_in_windows_and_groups() {
    // The price is cast to the declared type.
    let tumble = "TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND))";
    let found = means(&format!(
        "SELECT COUNT(*), mean(rate, ABS(price)), KINDS(channel) FROM {tumble} GROUP BY window_start, window_end"
    ));
    assert_eq!(found.unwrap(), ["3|0.3333333333333333|2", "2|2.0|1", "1|0.0|1"]);
}

#[test]
fn aggregate_functions_take_a_filter_and_stand_in_having() {
    let found = means(
        "SELECT auction, mean(price, 2) FILTER (WHERE channel = 'web'), kinds(channel) FROM bids GROUP BY auction
         HAVING mean(price, 1) > 0",
    );
    assert_eq!(found.unwrap(), ["1|200.0|2", "2|50.0|1"]);
    let error = means("SELECT auction, mean(price, auction - 3), 1 FROM bids GROUP BY auction").unwrap_err();
    assert!(
        error.contains("the function weigh failed: a weight is below zero"),
        "{error}"
    );
}

#[test]
fn aggregate_functions_that_fit_badly_are_refused() {
    let changing = "(SELECT auction, COUNT(*) AS n FROM bids GROUP BY auction)";
    for (select, words) in [
        (
            "SELECT 1, mean(price), 1 FROM bids".to_owned(),
            "takes 2 arguments, not 1",
        ),
        (
            "SELECT 1, mean(channel, 1), 1 FROM bids".to_owned(),
            "must be DOUBLE, not STRING",
        ),
        (
            "SELECT 1, mean(DISTINCT rate, 1), 1 FROM bids".to_owned(),
            "mean(DISTINCT ...) is not supported",
        ),
        (
            format!("SELECT 1, mean(n, 1), 1 FROM {changing}"),
            "over a result that changes",
        ),
        (
            "SELECT auction, rate, 1 FROM bids WHERE mean(rate, 1) > 0".to_owned(),
            "cannot stand here",
        ),
    ] {
        let error = means(&select).unwrap_err();
        assert!(error.contains(words), "{select}: {error}");
    }
    let error = planned("CREATE FUNCTION listagg AS 'weigh' LANGUAGE RUST;")
        .err()
        .unwrap();
    assert!(error.message.contains("there is already a function listagg"), "{error}");
}
