//! Windows that are told before and after their end: `table.exec.emit.*`.

use super::engine::{assert_engine_agrees, sink, tables};
use super::live::World;
use super::support::{BIDS, explain, refused};
use tidemill_engine::sink::DeliveryGuarantee;

const EARLY: &str = "SET 'table.exec.emit.early-fire.enabled' = 'true';
SET 'table.exec.emit.early-fire.delay' = '1 s';\n";

fn world(settings: &str, window: &str) -> World {
    World::new(
        DeliveryGuarantee::ExactlyOnce,
        &format!(
            "{settings}CREATE TABLE out (k STRING, e TIMESTAMP(3), n BIGINT, most BIGINT) WITH ('connector' = 'memory');
             INSERT INTO out SELECT k, window_end, SUM(n), MAX(n) FROM {window} GROUP BY k, window_start, window_end;"
        ),
    )
}

/// What was told of a key and window, in order: the values and the weight.
fn told(world: &World, start: &str) -> Vec<String> {
    let rows = world.written_in_order("out").into_iter();
    rows.filter_map(|row| Some(row.strip_prefix(start)?.trim_start_matches('|').to_owned()))
        .collect()
}

fn rows_late(job: &super::live::Job<'_>) -> u64 {
    job.status()
        .operators
        .iter()
        .map(|operator| operator.counts.rows_late)
        .sum()
}

#[test]
fn window_is_told_early_on_time_and_late_over_a_kill() {
    let settings = format!("{EARLY}SET 'table.exec.emit.allow-lateness' = '20 s';\n");
    let world = world(
        &settings,
        "TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(ts), INTERVAL '10' SECOND))",
    );
    let job = world.start(1);
    job.push(0, "a,1,00:00:01");
    job.push(1, "b,5,00:00:02");
    assert!(world.written("out").is_empty(), "the second is not over");
    job.pass(1_000);
    let until = |job: &super::live::Job<'_>, count: usize| {
        job.until("windows are told by the clock", || {
            job.checkpoint();
            world.written("out").len() == count
        });
    };
    until(&job, 2);
    let (a, b) = ("a|2026-01-01T00:00:10", "b|2026-01-01T00:00:10");
    assert_eq!(
        (told(&world, a), told(&world, b)),
        (vec!["1|1|1".to_owned()], vec!["5|5|1".to_owned()])
    );
    // Lost with the kill, and read again.
    job.push_only(0, "a,2,00:00:03");
    job.kill();
    let job = world.start(3);
    job.until("the row is read again", || {
        job.pass(2);
        job.status().operators[0].counts.rows_out == 1
    });
    job.pass(1_000);
    until(&job, 4);
    assert_eq!(told(&world, a), ["1|1|1", "1|1|-1", "3|2|1"]);
    // The window ends, and there is no news of it.
    job.push(0, "c,1,00:00:11");
    job.push(1, "c,7,00:00:12");
    assert_eq!((told(&world, a).len(), told(&world, b).len()), (3, 1));
    // A late row is told at once, a key that was not there, too.
    job.push(0, "a,4,00:00:04 d,1,00:00:09");
    assert_eq!(told(&world, a)[3..], ["3|2|-1", "7|4|1"]);
    assert_eq!(told(&world, "d|2026-01-01T00:00:10"), ["1|1|1"]);
    assert_eq!(rows_late(&job), 0);
    // 20 seconds behind its end the window is gone.
    job.push(0, "x,1,00:00:31");
    job.push(1, "x,1,00:00:30");
    job.push(1, "a,9,00:00:05 a,9,00:00:15");
    assert_eq!(rows_late(&job), 1);
    assert_eq!(told(&world, a).len(), 5);
    assert_eq!(told(&world, "a|2026-01-01T00:00:20"), ["9|9|1"]);
    job.finish();
    assert_eq!(told(&world, "c|2026-01-01T00:00:20").last().unwrap(), "8|7|1");
    assert_eq!(told(&world, "x|2026-01-01T00:00:40").last().unwrap(), "2|1|1");
}

#[test]
fn session_that_grows_takes_back_what_was_told_of_it() {
    let settings = format!("{EARLY}SET 'table.exec.emit.allow-lateness' = '20 s';\n");
    let world = World::new(
        DeliveryGuarantee::ExactlyOnce,
        &format!(
            "{settings}CREATE TABLE out (k STRING, s TIMESTAMP(3), e TIMESTAMP(3), n BIGINT)
             WITH ('connector' = 'memory');
             INSERT INTO out SELECT k, window_start, window_end, SUM(n)
             FROM TABLE(SESSION(TABLE clicks PARTITION BY k, DESCRIPTOR(ts), INTERVAL '10' SECOND))
             GROUP BY k, window_start, window_end;"
        ),
    );
    let told = |world: &World, key: &str| -> Vec<String> {
        let rows = told(world, key);
        rows.iter().map(|row| row.replace("2026-01-01T00:00:", "")).collect()
    };
    let job = world.start(1);
    let until = |job: &super::live::Job<'_>, count: usize| {
        job.until("sessions are told by the clock", || {
            job.checkpoint();
            world.written("out").len() == count
        });
    };
    job.push(0, "a,1,00:00:01 a,2,00:00:14");
    job.push(1, "b,5,00:00:02");
    assert!(world.written("out").is_empty(), "the second is not over");
    job.pass(1_000);
    until(&job, 3);
    assert_eq!(told(&world, "a"), ["01|11|1|1", "14|24|2|1"]);
    assert_eq!(told(&world, "b"), ["02|12|5|1"]);
    job.kill();
    let job = world.start(3);
    // Between the two sessions: they become one.
    job.push(0, "a,4,00:00:08");
    job.pass(1_000);
    until(&job, 6);
    let joined = ["01|11|1|-1", "14|24|2|-1", "01|24|7|1"];
    assert_eq!(told(&world, "a")[2..], joined);
    // The sessions end, and there is no news of them.
    job.push(0, "c,1,00:00:26");
    job.push(1, "c,7,00:00:26");
    assert_eq!((told(&world, "a").len(), told(&world, "b").len()), (5, 1));
    // A late row before the session that has ended: told at once.
    job.push(0, "b,1,00:00:01");
    assert_eq!(told(&world, "b")[1..], ["02|12|5|-1", "01|12|6|1"]);
    // And one with which it goes on: it is told early again.
    job.push(1, "a,8,00:00:22 a,8,00:00:30");
    assert_eq!(told(&world, "a").len(), 5);
    job.pass(1_000);
    until(&job, 11);
    assert_eq!(told(&world, "a")[5..], ["01|24|7|-1", "01|40|23|1"]);
    assert_eq!(told(&world, "c"), ["26|36|8|1"]);
    assert_eq!(rows_late(&job), 0);
    // 20 seconds behind its end a session is gone; a row that it would have been in is late.
    job.push(0, "x,1,00:00:41");
    job.push(1, "x,1,00:00:41");
    job.push(1, "b,9,00:00:05 b,3,00:00:16");
    assert_eq!(rows_late(&job), 1);
    job.finish();
    assert_eq!(told(&world, "b")[3..], ["16|26|3|1"]);
    assert_eq!(told(&world, "x").last().unwrap(), "41|51|2|1");
}

#[test]
fn late_rows_are_gathered_for_the_delay() {
    let world = world(
        "SET 'table.exec.emit.late-fire.enabled' = 'true'; SET 'table.exec.emit.late-fire.delay' = '5 s';
         SET 'table.exec.emit.allow-lateness' = '1 min';\n",
        "TABLE(HOP(TABLE clicks, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '10' SECOND))",
    );
    let job = world.start(2);
    job.push(0, "a,1,00:00:07");
    job.push(1, "a,1,00:00:11");
    job.push(0, "a,1,00:00:12");
    let first = "a|2026-01-01T00:00:10";
    assert_eq!(told(&world, first), ["1|1|1"], "on time, and not before");
    assert_eq!(world.written("out").len(), 1);
    // The window up to 10 has ended, the one up to 15 has not.
    job.push(0, "a,3,00:00:08");
    job.push(1, "a,5,00:00:09");
    assert_eq!(told(&world, first).len(), 1);
    job.pass(5_000);
    job.until("late rows are told together", || {
        job.checkpoint();
        told(&world, first).len() == 3
    });
    assert_eq!(told(&world, first)[1..], ["1|1|-1", "9|5|1"]);
    assert_eq!(world.written("out").len(), 3);
    job.finish();
    assert_eq!(told(&world, "a|2026-01-01T00:00:15"), ["11|5|1"]);
    assert_eq!(told(&world, "a|2026-01-01T00:00:20"), ["2|1|1"]);
}

#[test]
fn windows_of_the_clock_are_told_early() {
    let world = world(
        EARLY,
        "TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(p), INTERVAL '10' SECOND)) WHERE ts IS NOT NULL",
    );
    let job = world.start(2);
    job.push(0, "a,1,00:00:01");
    job.pass(1_000);
    job.until_written_after_checkpoints("out", 1);
    job.push(1, "a,2,00:00:01");
    job.pass(1_000);
    job.until_written_after_checkpoints("out", 3);
    // Nothing new at the window's end.
    job.pass(10_000);
    job.push(1, "b,2,00:00:01");
    job.pass(1_000);
    job.until_written_after_checkpoints("out", 4);
    assert_eq!(told(&world, "a|2026-01-01T00:00:10"), ["1|1|1", "1|1|-1", "3|2|1"]);
}

#[test]
fn what_is_left_in_the_end_is_what_windows_told_once_say() {
    let sinks = sink(
        "out",
        "k STRING, e TIMESTAMP(3), n BIGINT, p INT, users BIGINT, mean DOUBLE",
    );
    let windows = [
        "TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND)",
        "HOP(TABLE bids, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '7' SECOND)",
        "CUMULATE(TABLE bids, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '10' SECOND)",
        "SESSION(TABLE bids PARTITION BY channel, DESCRIPTOR(ts), INTERVAL '2' SECOND)",
        "SESSION(TABLE bids PARTITION BY channel, DESCRIPTOR(ts), INTERVAL '1' SECOND)",
    ];
    let early = "SET 'table.exec.emit.early-fire.enabled' = 'true'; SET 'table.exec.emit.early-fire.delay' = '0 s';";
    let late = "SET 'table.exec.emit.allow-lateness' = '3 s';";
    for (window, settings) in windows.into_iter().zip([early, early, late, early, late]) {
        for users in ["COUNT(DISTINCT bidder)", "MIN(bidder)"] {
            assert_engine_agrees(&format!(
                "{}{settings} INSERT INTO out SELECT channel, window_end, COUNT(*), SUM(price), {users}, AVG(rate)
                 FROM {window} GROUP BY channel, window_start, window_end HAVING COUNT(*) > 2",
                tables(&sinks)
            ));
        }
    }
}

#[test]
fn results_that_are_told_again_are_read_by_what_can() {
    let sinks = sink("out", "k STRING, n BIGINT, total BIGINT");
    assert_engine_agrees(&format!(
        "{}{EARLY}CREATE VIEW told AS SELECT channel, window_end, COUNT(*) AS n
         FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND)) GROUP BY channel, window_start, window_end;
         INSERT INTO out SELECT channel, COUNT(*), SUM(n) FROM told GROUP BY channel",
        tables(&sinks)
    ));
    let over_window = refused(&format!(
        "{BIDS}{EARLY}CREATE TABLE out (n BIGINT) WITH ('connector' = 'test');
         INSERT INTO out SELECT MAX(n) FROM (SELECT window_start, window_end, COUNT(*) AS n
           FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND)) GROUP BY window_start, window_end)
         GROUP BY window_start, window_end;"
    ));
    assert!(
        over_window
            .message
            .contains("over a result that changes is not supported yet"),
        "{over_window}"
    );
    let half = refused(&format!(
        "{BIDS}SET 'table.exec.emit.late-fire.enabled' = 'true'; CREATE TABLE out (n BIGINT) WITH ('connector' = 'test');
         INSERT INTO out SELECT COUNT(*) FROM bids GROUP BY TUMBLE(ts, INTERVAL '5' SECOND);"
    ));
    assert!(
        half.message.contains("without 'table.exec.emit.late-fire.delay'"),
        "{half}"
    );
    assert!(half.position.is_some());
    let plan = explain(&format!(
        "{BIDS}{EARLY}EXPLAIN SELECT COUNT(*) FROM bids GROUP BY TUMBLE(ts, INTERVAL '5' SECOND);"
    ));
    assert!(plan.contains("early_ms: Some(1000)"), "{plan}");
}
