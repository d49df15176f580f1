//! Every window with every operation on windows, by both clocks, told once, early and late: what runs gives the rows that it
//! should, and what does not is refused with its reason. `docs/SQL.md` has the table for readers.

use super::engine::assert_engine_agrees;
use super::live::{CLICKS, World};
use super::support::{BIDS, plan};
use std::collections::BTreeMap;
use tidemill_engine::sink::DeliveryGuarantee;

/// Windows, by what stands behind `TABLE v, DESCRIPTOR(t)`.
const WINDOWS: [(&str, &str); 4] = [
    ("TUMBLE", "INTERVAL '10' SECOND"),
    ("HOP", "INTERVAL '5' SECOND, INTERVAL '10' SECOND"),
    ("CUMULATE", "INTERVAL '5' SECOND, INTERVAL '10' SECOND"),
    ("SESSION", "INTERVAL '3' SECOND"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    Event,
    Processing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Once,
    Early,
    Late,
}

impl Told {
    fn settings(self) -> &'static str {
        match self {
            Self::Once => "",
            Self::Early => {
                "SET 'table.exec.emit.early-fire.enabled' = 'true'; SET 'table.exec.emit.early-fire.delay' = '1 s';\n"
            }
            Self::Late => {
                "SET 'table.exec.emit.late-fire.enabled' = 'true'; SET 'table.exec.emit.late-fire.delay' = '1 s';
                 SET 'table.exec.emit.allow-lateness' = '3 s';\n"
            }
        }
    }
}

/// An operation: its query of a key and a number (`{w}` is the window function, `{r}` the same over other rows), what it
/// gives for the rows `a 1, b 2, a 3, a 3` of the clock's test, and what with sessions, if something else.
struct Operation {
    name: &'static str,
    query: &'static str,
    rows: &'static [&'static str],
    of_sessions: Option<&'static [&'static str]>,
}

const fn operation(name: &'static str, query: &'static str, rows: &'static [&'static str]) -> Operation {
    Operation {
        name,
        query,
        rows,
        of_sessions: None,
    }
}

const fn with_sessions(operation: Operation, rows: &'static [&'static str]) -> Operation {
    Operation {
        of_sessions: Some(rows),
        ..operation
    }
}

const OPERATIONS: &[Operation] = &[
    operation(
        "aggregation",
        "SELECT k, SUM(n) FROM {w} GROUP BY window_start, window_end, k",
        &["a|7", "b|2"],
    ),
    operation(
        "DISTINCT",
        "SELECT k, COUNT(DISTINCT n) FROM {w} GROUP BY window_start, window_end, k",
        &["a|2", "b|1"],
    ),
    operation(
        "FILTER",
        "SELECT k, SUM(n) FILTER (WHERE n > 1) FROM {w} GROUP BY k, window_start, window_end",
        &["a|6", "b|2"],
    ),
    with_sessions(
        operation(
            "GROUPING SETS",
            "SELECT k, SUM(n) FROM {w} GROUP BY window_start, window_end, GROUPING SETS ((k), ())",
            &["NULL|9", "a|7", "b|2"],
        ),
        &["NULL|2", "NULL|7", "a|7", "b|2"],
    ),
    with_sessions(
        operation(
            "ROLLUP",
            "SELECT k, SUM(n) FROM {w} GROUP BY window_start, window_end, ROLLUP (k)",
            &["NULL|9", "a|7", "b|2"],
        ),
        &["NULL|2", "NULL|7", "a|7", "b|2"],
    ),
    with_sessions(
        operation(
            "CUBE",
            "SELECT k, SUM(n) + GROUPING(k) * 100 FROM {w} GROUP BY window_start, window_end, CUBE (k)",
            &["NULL|109", "a|7", "b|2"],
        ),
        &["NULL|102", "NULL|107", "a|7", "b|2"],
    ),
    with_sessions(
        operation(
            "other keys",
            "SELECT CAST(NULL AS STRING), SUM(n) FROM {w} GROUP BY window_start, window_end",
            &["NULL|9"],
        ),
        &["NULL|2", "NULL|7"],
    ),
    operation(
        "window columns in aggregates",
        "SELECT k, COUNT(window_end) FROM {w} WHERE window_end > window_start GROUP BY window_start, window_end, k",
        &["a|3", "b|1"],
    ),
    operation(
        "rows",
        "SELECT k, n FROM {w} WHERE window_end > window_start",
        &["a|1", "a|3", "b|2"],
    ),
    operation(
        "top-N of rows",
        "SELECT k, n FROM (SELECT k, n, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, k ORDER BY n DESC) AS x
           FROM {w}) WHERE x <= 2",
        &["a|3", "b|2"],
    ),
    with_sessions(
        operation(
            "top-N of aggregates",
            "SELECT k, n FROM (SELECT k, n, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY n DESC, k) AS x
               FROM (SELECT window_start, window_end, k, SUM(n) AS n FROM {w} GROUP BY window_start, window_end, k))
             WHERE x = 1",
            &["a|7"],
        ),
        &["a|7", "b|2"],
    ),
    operation(
        "deduplication",
        "SELECT k, CAST(x AS BIGINT) FROM (
           SELECT k, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, k ORDER BY {t} DESC) AS x FROM {w})
         WHERE x = 1",
        &["a|1", "b|1"],
    ),
    operation(
        "INNER JOIN",
        "SELECT l.k, l.n * 10 + r.n FROM (SELECT * FROM {w}) AS l JOIN (SELECT * FROM {r}) AS r
         ON l.window_start = r.window_start AND l.window_end = r.window_end AND l.k = r.k AND l.n < r.n",
        &["a|13"],
    ),
    operation(
        "LEFT JOIN",
        "SELECT l.k, r.n FROM (SELECT * FROM {w}) AS l LEFT JOIN (SELECT * FROM {r}) AS r
         ON l.window_start = r.window_start AND l.window_end = r.window_end AND l.k = r.k AND l.n < r.n",
        &[],
    ),
    operation(
        "RIGHT JOIN",
        "SELECT r.k, l.n FROM (SELECT * FROM {w}) AS l RIGHT JOIN (SELECT * FROM {r}) AS r
         ON l.window_start = r.window_start AND l.window_end = r.window_end AND l.k = r.k AND l.n < r.n",
        &[],
    ),
    operation(
        "FULL JOIN",
        "SELECT l.k, r.n FROM (SELECT * FROM {w}) AS l FULL JOIN (SELECT * FROM {r}) AS r
         ON l.window_start = r.window_start AND l.window_end = r.window_end AND l.k = r.k AND l.n < r.n",
        &[],
    ),
    operation(
        "semi join",
        "SELECT k, n FROM (SELECT * FROM {w}) AS l WHERE EXISTS (SELECT 1 FROM {r} AS r
         WHERE l.window_start = r.window_start AND l.window_end = r.window_end AND l.k = r.k AND l.n < r.n)",
        &["a|1"],
    ),
    operation(
        "anti join",
        "SELECT k, n FROM (SELECT * FROM {w}) AS l WHERE NOT EXISTS (SELECT 1 FROM {r} AS r
         WHERE l.window_start = r.window_start AND l.window_end = r.window_end AND l.k = r.k AND l.n < r.n)",
        &[],
    ),
    operation(
        "join of aggregates",
        "SELECT l.k, l.n + r.n FROM (SELECT window_start, window_end, k, SUM(n) AS n FROM {w} GROUP BY window_start, window_end, k) AS l
         JOIN (SELECT window_start, window_end, k, COUNT(*) AS n FROM {w} GROUP BY window_start, window_end, k) AS r
         ON l.window_start = r.window_start AND l.window_end = r.window_end AND l.k = r.k",
        &["a|10", "b|3"],
    ),
];

/// Says why a cell is refused; `None`: it runs.
fn refusal(window: &str, clock: Clock, told: Told, operation: &str) -> Option<&'static str> {
    // By the clock no row is late: only early firing tells a window more than once.
    let changes = told == Told::Early || (told == Told::Late && clock == Clock::Event);
    let is_session = window == "SESSION";
    match operation {
        "GROUPING SETS" | "ROLLUP" | "CUBE" | "other keys" | "window columns in aggregates"
            if is_session && changes =>
        {
            Some("SESSION that is told before or after its end")
        }
        "top-N of aggregates" | "join of aggregates" if changes => {
            Some("over a result that changes is not supported yet")
        }
        // Nothing bounds a join by the clock.
        "LEFT JOIN" | "RIGHT JOIN" | "FULL JOIN" | "anti join" if clock == Clock::Processing => {
            Some("without a bound on time is not supported yet")
        }
        _ => None,
    }
}

/// The text of a cell, over the view `v` of k, n and the time t.
fn text(window: (&str, &str), time: &str, told: Told, operation: &Operation) -> String {
    let by = if window.0 == "SESSION" { " PARTITION BY k" } else { "" };
    let function = |table: &str| {
        format!(
            "TABLE({}(TABLE {table}{by}, DESCRIPTOR({time}), {}))",
            window.0, window.1
        )
    };
    let query = operation
        .query
        .replace("{w}", &function("v"))
        .replace("{r}", &function("other"));
    let query = query.replace("{t}", time);
    format!(
        "{}CREATE VIEW other AS SELECT * FROM v WHERE n IS NOT NULL;
         CREATE TABLE out (k STRING, n BIGINT) WITH ('connector' = 'test');
         INSERT INTO out {query};",
        told.settings()
    )
}

fn table(clock: Clock) -> String {
    match clock {
        Clock::Event => format!(
            "{}CREATE VIEW v AS SELECT CAST(bidder AS STRING) AS k, CAST(price AS BIGINT) AS n, ts FROM bids;\n",
            BIDS.replace(" fee DECIMAL(10, 2),", "")
        ),
        Clock::Processing => format!("{CLICKS}{VIEW_OF_CLICKS}").replace("'memory'", "'test'"),
    }
}

const VIEW_OF_CLICKS: &str = "CREATE VIEW v AS SELECT k, n, p FROM clicks
  WHERE k IS NOT NULL AND n IS NOT NULL AND ts IS NOT NULL;\n";

/// What is left of a key and a number by the clock's test, each line once.
fn by_the_clock(text: &str) -> Vec<String> {
    let world = World::new(DeliveryGuarantee::ExactlyOnce, &format!("{VIEW_OF_CLICKS}{text}"));
    let job = world.start(2);
    job.pass(1_000);
    job.push(0, "a,1,00:00:01 b,2,00:00:01");
    job.push(1, "a,3,00:00:01");
    job.pass(1_000);
    job.push(0, "a,3,00:00:01");
    // All windows end; the row behind them is in one that never does.
    job.pass(60_000);
    job.push(1, "z,-1000000,00:00:01");
    job.finish();
    let changes = text.contains("early-fire");
    let mut left: BTreeMap<String, i64> = BTreeMap::new();
    for line in world.written("out") {
        let (line, weight) = match line.rsplit_once('|') {
            Some((values, weight)) if line.matches('|').count() == 2 => (values.to_owned(), weight.parse().unwrap()),
            _ => (line, 1),
        };
        *left.entry(line).or_default() += weight;
    }
    assert!(changes || left.values().all(|count| *count > 0));
    left.retain(|line, count| *count > 0 && !line.contains('z') && !line.contains("|-"));
    left.into_keys().collect()
}

fn check(window: (&str, &str)) {
    let mut wrong = Vec::new();
    for operation in OPERATIONS {
        for told in [Told::Once, Told::Early, Told::Late] {
            for clock in [Clock::Event, Clock::Processing] {
                let cell = format!("{} {clock:?} {told:?} {}", window.0, operation.name);
                let time = if clock == Clock::Event { "ts" } else { "p" };
                let text = text(window, time, told, operation);
                let planned = plan(&format!("{}{text}", table(clock)));
                let expected = refusal(window.0, clock, told, operation.name);
                match (planned, expected) {
                    (Err(error), None) => wrong.push(format!("{cell} is refused: {error}")),
                    (Err(error), Some(reason)) if !error.message.contains(reason) => {
                        wrong.push(format!("{cell} is refused for another reason: {error}"));
                    }
                    (Err(_), Some(_)) => {}
                    (Ok(_), Some(reason)) => wrong.push(format!("{cell} is not refused: {reason}")),
                    (Ok(_), None) if clock == Clock::Event => {
                        assert_engine_agrees(&format!("{}{text}", table(clock)));
                    }
                    (Ok(_), None) => {
                        let found = by_the_clock(&text);
                        let rows = operation.of_sessions.filter(|_| window.0 == "SESSION");
                        if found != rows.unwrap_or(operation.rows) {
                            wrong.push(format!("{cell} gives {found:?}"));
                        }
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn operations_on_tumbling_windows() {
    check(WINDOWS[0]);
}

#[test]
fn operations_on_hopping_windows() {
    check(WINDOWS[1]);
}

#[test]
fn operations_on_cumulating_windows() {
    check(WINDOWS[2]);
}

#[test]
fn operations_on_sessions() {
    check(WINDOWS[3]);
}

/// Offsets shift all windows but sessions, which have none.
#[test]
fn offsets_of_windows() {
    for (name, of) in WINDOWS {
        let of = format!("{of}, INTERVAL '1' SECOND");
        let text = text((name, &of), "ts", Told::Once, &OPERATIONS[0]);
        let text = format!("{}{text}", table(Clock::Event));
        match name {
            "SESSION" => assert!(plan(&text).is_err(), "a session has no offset"),
            _ => assert_engine_agrees(&text),
        }
    }
}
