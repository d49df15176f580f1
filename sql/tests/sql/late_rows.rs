//! `t$late`: the rows of a table that came behind its watermark.

use super::live::World;
use super::support::{BIDS, refused};
use tidemill_engine::sink::DeliveryGuarantee;

const SQL: &str = "CREATE TABLE late (k STRING, n BIGINT, ts TIMESTAMP(3)) WITH ('connector' = 'memory');
CREATE TABLE counted (k STRING, e TIMESTAMP(3), n BIGINT) WITH ('connector' = 'memory');
CREATE TABLE per_minute (k STRING, n BIGINT) WITH ('connector' = 'memory');
INSERT INTO late SELECT k, n, ts FROM `clicks$late` WHERE n < 100;
INSERT INTO counted SELECT k, window_end, SUM(n) FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(ts), INTERVAL '10' SECOND))
GROUP BY k, window_start, window_end;
INSERT INTO per_minute SELECT k, COUNT(*) FROM `clicks$late` GROUP BY k, TUMBLE(p, INTERVAL '1' MINUTE);";

fn counts(job: &super::live::Job<'_>, name: &str) -> u64 {
    let status = job.status();
    let operators = status.operators.iter().filter(|operator| operator.name == name);
    operators.map(|operator| operator.counts.rows_late).sum()
}

#[test]
fn late_rows_are_a_table_of_their_own_over_kills_and_another_parallelism() {
    for (first, second) in [(1, 3), (2, 1)] {
        let world = World::new(DeliveryGuarantee::ExactlyOnce, SQL);
        let job = world.start(first);
        // The watermark is the least of both splits, at the close of the tick before.
        job.push(0, "a,1,00:00:05 a,2,00:00:01");
        job.push(1, "b,3,00:00:07 b,4,00:00:04");
        assert!(
            world.written("late").is_empty(),
            "no watermark was told before these rows"
        );
        job.push(0, "a,5,00:00:05 a,6,00:00:05.001 a,7,00:00:12 a,107,00:00:02");
        let first_late = "a|5|2026-01-01T00:00:05";
        assert_eq!(world.written("late"), [first_late]);
        assert_eq!(counts(&job, "window aggregate"), 0, "their window is open");
        // Lost with the kill, and read again behind a watermark that is not told again.
        job.push_only(1, "b,8,00:00:06 b,9,00:00:25");
        job.kill();
        let job = world.start(second);
        job.until("the rows are read again", || {
            job.pass(2);
            job.status().operators[0].counts.rows_out == 2
        });
        job.checkpoint();
        let late = [first_late, "b|8|2026-01-01T00:00:06"];
        assert_eq!(world.written("late"), late);
        // The watermark is 12: the window up to 10 has fired.
        job.push(1, "c,10,00:00:12 c,11,00:00:09.999 c,12,00:00:13");
        assert_eq!(
            world.written("late"),
            [
                late[0],
                late[1],
                "c|10|2026-01-01T00:00:12",
                "c|11|2026-01-01T00:00:09.999"
            ]
        );
        assert_eq!(counts(&job, "window aggregate"), 1, "only that one was dropped");
        job.pass(120_000);
        job.until("the late rows are counted by the clock", || {
            job.checkpoint();
            world.written("per_minute").len() == 3
        });
        assert_eq!(world.written("per_minute"), ["a|2", "b|1", "c|2"]);
        job.finish();
        assert_eq!(
            world.written("counted"),
            [
                "a|2026-01-01T00:00:10|121",
                "a|2026-01-01T00:00:20|7",
                "b|2026-01-01T00:00:10|15",
                "b|2026-01-01T00:00:30|9",
                "c|2026-01-01T00:00:20|22",
            ]
        );
    }
}

#[test]
fn names_of_late_rows_are_kept_for_them() {
    let refusal = |text: &str| {
        refused(&format!(
            "{BIDS}CREATE TABLE plain (n BIGINT) WITH ('connector' = 'test');\n{text}"
        ))
    };
    let error = refusal("INSERT INTO plain SELECT n FROM `plain$late`;");
    assert!(error.message.contains("plain has no watermark"), "{error}");
    assert!(error.position.is_some(), "{error}");
    let error = refusal("CREATE VIEW `x$late` AS SELECT * FROM bids;");
    assert!(error.message.contains("names that end in $late"), "{error}");
    let error = refusal("INSERT INTO plain SELECT n FROM `bid$late`;");
    assert!(error.message.contains("no table or view bid$late"), "{error}");
    let error = refusal("INSERT INTO `bids$late` SELECT * FROM bids;");
    assert!(error.message.contains("no table or view bids$late"), "{error}");
    // A window over the event time of rows that are all behind the watermark would never take one in.
    let error = refusal("INSERT INTO plain SELECT COUNT(*) FROM `bids$late` GROUP BY TUMBLE(ts, INTERVAL '1' SECOND);");
    assert!(error.message.contains("ts is not the event time"), "{error}");
}
