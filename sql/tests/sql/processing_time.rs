//! Windows in processing time, with a clock that the test moves.

use super::live::World;
use super::support::{explain, query, refused};
use tidemill_engine::sink::DeliveryGuarantee;

fn world(query: &str) -> World {
    World::new(
        DeliveryGuarantee::ExactlyOnce,
        &format!(
            "CREATE TABLE out (k STRING, s TIMESTAMP_LTZ(3), e TIMESTAMP_LTZ(3), n BIGINT, last TIMESTAMP(3))
             WITH ('connector' = 'memory');
             INSERT INTO out {query};"
        ),
    )
}

const COUNTED: &str = "SELECT k, window_start, window_end, SUM(n), MAX(ts)";

/// Two ticks at 00:00:02, one at 00:00:12 after a kill, and nothing but the clock from then on.
fn run_over_a_kill(world: &World, workers: (usize, usize)) {
    let job = world.start(workers.0);
    job.pass(2_000);
    job.push(0, "a,1,00:00:30 b,2,00:00:31");
    job.push(1, "a,3,00:00:01");
    assert!(world.written("out").is_empty(), "the windows are open");
    job.kill();
    let job = world.start(workers.1);
    job.pass(9_000);
    // Far behind the event time that was seen: no row is late in processing time.
    job.push(0, "a,5,00:00:00");
    job.pass(10_000);
    job.until("the windows of the clock fire without rows", || {
        job.checkpoint();
        world.written("out").len() >= 3
    });
    job.pass(60_000);
    job.push(1, "c,9,00:00:59");
    // The table ends, and the window of the last row is open.
    job.finish();
}

#[test]
fn tumbling_windows_fire_by_the_clock_and_not_at_the_end_of_the_input() {
    let world = world(&format!(
        "{COUNTED} FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(p), INTERVAL '10' SECOND)) GROUP BY k, window_start, window_end"
    ));
    run_over_a_kill(&world, (1, 2));
    assert_eq!(
        world.written("out"),
        [
            "a|2026-01-01T00:00:00Z|2026-01-01T00:00:10Z|4|2026-01-01T00:00:30",
            "a|2026-01-01T00:00:10Z|2026-01-01T00:00:20Z|5|2026-01-01T00:00:00",
            "b|2026-01-01T00:00:00Z|2026-01-01T00:00:10Z|2|2026-01-01T00:00:31",
        ]
    );
}

#[test]
fn older_form_names_the_processing_time() {
    let world = world(
        "SELECT k, TUMBLE_START(p, INTERVAL '10' SECOND), TUMBLE_PROCTIME(p, INTERVAL '10' SECOND), SUM(n), MAX(ts)
         FROM clicks GROUP BY k, TUMBLE(p, INTERVAL '10' SECOND)",
    );
    run_over_a_kill(&world, (3, 1));
    assert_eq!(
        world.written("out"),
        [
            "a|2026-01-01T00:00:00Z|2026-01-01T00:00:09.999Z|4|2026-01-01T00:00:30",
            "a|2026-01-01T00:00:10Z|2026-01-01T00:00:19.999Z|5|2026-01-01T00:00:00",
            "b|2026-01-01T00:00:00Z|2026-01-01T00:00:09.999Z|2|2026-01-01T00:00:31",
        ]
    );
}

#[test]
fn hopping_windows_fire_by_the_clock() {
    let world = world(&format!(
        "{COUNTED} FROM TABLE(HOP(TABLE clicks, DESCRIPTOR(p), INTERVAL '5' SECOND, INTERVAL '10' SECOND))
         GROUP BY k, window_start, window_end"
    ));
    let job = world.start(2);
    job.pass(1_000);
    job.push(0, "a,1,00:00:30");
    job.pass(4_000);
    job.until("the first window fires", || {
        job.checkpoint();
        world.written("out").len() == 1
    });
    job.push(1, "a,2,00:00:30");
    job.pass(60_000);
    job.until("the others fire", || {
        job.checkpoint();
        world.written("out").len() == 3
    });
    assert_eq!(
        world.written("out"),
        [
            "a|2025-12-31T23:59:55Z|2026-01-01T00:00:05Z|1|2026-01-01T00:00:30",
            "a|2026-01-01T00:00:00Z|2026-01-01T00:00:10Z|3|2026-01-01T00:00:30",
            "a|2026-01-01T00:00:05Z|2026-01-01T00:00:15Z|2|2026-01-01T00:00:30",
        ]
    );
}

#[test]
fn sessions_end_by_the_clock() {
    let world = world(
        "SELECT k, date_trunc('second', window_start), date_trunc('second', window_end), SUM(n), MAX(ts) FROM TABLE(SESSION(TABLE clicks PARTITION BY k, DESCRIPTOR(p), INTERVAL '5' SECOND))
         GROUP BY k, window_start, window_end",
    );
    let job = world.start(2);
    job.push(0, "a,1,00:00:30 b,9,00:00:40");
    job.pass(4_100);
    job.push(1, "a,2,00:00:20");
    job.pass(2_000);
    job.until("the session of b ends", || {
        job.checkpoint();
        world.written("out").len() == 1
    });
    job.pass(3_000);
    job.until("the session of a ends", || {
        job.checkpoint();
        world.written("out").len() == 2
    });
    assert_eq!(
        world.written("out"),
        [
            "a|2026-01-01T00:00:00Z|2026-01-01T00:00:09Z|3|2026-01-01T00:00:30",
            "b|2026-01-01T00:00:00Z|2026-01-01T00:00:05Z|9|2026-01-01T00:00:40",
        ]
    );
}

#[test]
fn windows_over_windows_of_the_clock() {
    let world = world(
        "SELECT 'all', window_start, window_end, SUM(n), MAX(last) FROM (
           SELECT k, window_start, window_end, SUM(n) AS n, MAX(ts) AS last
           FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(p), INTERVAL '5' SECOND)) GROUP BY k, window_start, window_end)
         GROUP BY window_start, window_end
         UNION ALL
         SELECT 'wide', window_start, window_end, SUM(n), MAX(last) FROM TABLE(TUMBLE(TABLE inner5, DESCRIPTOR(t), INTERVAL '10' SECOND))
         GROUP BY window_start, window_end",
    );
    // The view stands before the statement.
    let world = World::new(
        DeliveryGuarantee::AtLeastOnce,
        &world.text().replace(
            "INSERT INTO out",
            "CREATE VIEW inner5 AS SELECT k, window_time AS t, SUM(n) AS n, MAX(ts) AS last
             FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(p), INTERVAL '5' SECOND)) GROUP BY k, window_start, window_end, window_time;
             INSERT INTO out",
        ),
    );
    let job = world.start(2);
    job.push(0, "a,1,00:00:30 b,2,00:00:40");
    job.pass(5_000);
    job.until_written("out", 1);
    job.push(1, "a,4,00:00:20");
    job.pass(5_000);
    job.until_written("out", 3);
    assert_eq!(
        world.written("out"),
        [
            "all|2026-01-01T00:00:00Z|2026-01-01T00:00:05Z|3|2026-01-01T00:00:40",
            "all|2026-01-01T00:00:05Z|2026-01-01T00:00:10Z|4|2026-01-01T00:00:20",
            "wide|2026-01-01T00:00:00Z|2026-01-01T00:00:10Z|7|2026-01-01T00:00:40",
        ]
    );
}

#[test]
fn clock_of_a_view_is_a_processing_time() {
    let rows = query(
        "s TIMESTAMP_LTZ(3), e TIMESTAMP_LTZ(3), n BIGINT",
        "WITH now AS (SELECT bidder, PROCTIME() AS at FROM bids WHERE auction < 3)
         SELECT window_start, window_end, COUNT(DISTINCT bidder)
         FROM TABLE(TUMBLE(TABLE now, DESCRIPTOR(at), INTERVAL '10' SECOND)) GROUP BY window_start, window_end",
    );
    // The wall time of these tests is 00:00:00.123.
    assert_eq!(rows, ["2026-01-01T00:00:00Z|2026-01-01T00:00:10Z|3"]);
}

#[test]
fn two_statements_share_an_aggregation_in_processing_time() {
    let text = explain(
        "CREATE TABLE t (k STRING, p AS PROCTIME()) WITH ('connector' = 'test');
         CREATE VIEW w AS SELECT k, PROCTIME() AS now FROM t;
         CREATE VIEW v AS SELECT k, COUNT(*) AS n FROM w GROUP BY k, TUMBLE(now, INTERVAL '1' SECOND);
         CREATE TABLE a (k STRING, n BIGINT) WITH ('connector' = 'test');
         CREATE TABLE b (k STRING) WITH ('connector' = 'test');
         EXPLAIN INSERT INTO a SELECT * FROM v;
         EXPLAIN INSERT INTO b SELECT k FROM v WHERE n > 1;",
    );
    let graph = text.split("== job graph ==").nth(1).unwrap();
    assert_eq!(graph.matches("window aggregate").count(), 1, "{graph}");
}

#[test]
fn processing_time_has_no_watermark_and_no_other_clock() {
    let error = refused(
        "CREATE TABLE t (k STRING, p AS PROCTIME(), WATERMARK FOR p AS p) WITH ('connector' = 'test');
         CREATE TABLE out (n BIGINT) WITH ('connector' = 'test'); INSERT INTO out SELECT 1 FROM t;",
    );
    assert!(error.message.contains("p is a processing time"), "{error}");
    // A value of the clock that was computed with is no time attribute any more.
    let error = refused(
        "CREATE TABLE t (k STRING, p AS PROCTIME() + INTERVAL '1' SECOND) WITH ('connector' = 'test');
         CREATE TABLE out (n BIGINT) WITH ('connector' = 'test');
         INSERT INTO out SELECT COUNT(*) FROM t GROUP BY TUMBLE(p, INTERVAL '1' SECOND);",
    );
    assert!(error.message.contains("not the event time"), "{error}");
    let error = refused(
        "CREATE TABLE t (k STRING, p AS PROCTIME()) WITH ('connector' = 'test');
         CREATE TABLE out (e TIMESTAMP_LTZ(3)) WITH ('connector' = 'test');
         INSERT INTO out SELECT TUMBLE_ROWTIME(p, INTERVAL '1' SECOND) FROM t GROUP BY TUMBLE(p, INTERVAL '1' SECOND);",
    );
    assert!(error.message.contains("p is a processing time"), "{error}");
}
