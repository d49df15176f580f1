//! HOP, CUMULATE and SESSION, by their results and their refusals.

use super::support::{BIDS, explain, query, refused};

const HOP: &str = "TABLE(HOP(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '10' SECOND))";

#[test]
fn row_counts_in_every_hopping_window_that_holds_it() {
    let rows = query(
        "s TIMESTAMP(3), e TIMESTAMP(3), n BIGINT, p INT, lo INT, users BIGINT, web BIGINT",
        &format!(
            "SELECT window_start, window_end, COUNT(*), SUM(price), MIN(price), COUNT(DISTINCT bidder),
               COUNT(*) FILTER (WHERE channel = 'web')
             FROM {HOP} GROUP BY window_start, window_end"
        ),
    );
    assert_eq!(
        rows,
        [
            "2025-12-31T23:59:55|2026-01-01T00:00:05|3|350|50|2|2",
            "2026-01-01T00:00:00|2026-01-01T00:00:10|5|650|50|3|3",
            "2026-01-01T00:00:05|2026-01-01T00:00:15|3|293|-7|3|1",
            "2026-01-01T00:00:10|2026-01-01T00:00:20|1|-7|-7|1|0",
        ]
    );
}

#[test]
fn size_of_a_hop_need_not_be_a_multiple_of_its_slide() {
    let rows = query(
        "s TIMESTAMP(3), e TIMESTAMP(3), n BIGINT",
        "SELECT window_start, window_end, COUNT(*)
         FROM HOP(DATA => TABLE bids, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '5' SECOND,
                  SLIDE => INTERVAL '3' SECOND, OFFSET => INTERVAL '1' SECOND)
         WHERE auction < 3 GROUP BY window_start, window_end HAVING COUNT(*) > 1",
    );
    // Windows begin at -5, -2, 1, 4, 7 ... and last 5 seconds; rows at 0, 1, 4.999, 5 and 7.
    assert_eq!(
        rows,
        [
            "2025-12-31T23:59:58|2026-01-01T00:00:03|2",
            "2026-01-01T00:00:01|2026-01-01T00:00:06|3",
            "2026-01-01T00:00:04|2026-01-01T00:00:09|3",
        ]
    );
}

#[test]
fn cumulating_windows_grow_to_their_size() {
    let rows = query(
        "a BIGINT, s TIMESTAMP(3), e TIMESTAMP(3), t TIMESTAMP(3), n BIGINT",
        "SELECT auction, window_start, window_end, window_time, COUNT(*)
         FROM TABLE(CUMULATE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '10' SECOND))
         GROUP BY auction, window_start, window_end, window_time",
    );
    assert_eq!(
        rows,
        [
            "1|2026-01-01T00:00:00|2026-01-01T00:00:05|2026-01-01T00:00:04.999|2",
            "2|2026-01-01T00:00:00|2026-01-01T00:00:05|2026-01-01T00:00:04.999|1",
            "1|2026-01-01T00:00:00|2026-01-01T00:00:10|2026-01-01T00:00:09.999|3",
            "2|2026-01-01T00:00:00|2026-01-01T00:00:10|2026-01-01T00:00:09.999|2",
            "3|2026-01-01T00:00:10|2026-01-01T00:00:15|2026-01-01T00:00:14.999|1",
            "3|2026-01-01T00:00:10|2026-01-01T00:00:20|2026-01-01T00:00:19.999|1",
        ]
    );
}

#[test]
fn session_ends_with_the_pause_of_its_key() {
    let columns = "a BIGINT, s TIMESTAMP(3), e TIMESTAMP(3), n BIGINT";
    let rows = query(
        columns,
        "SELECT auction, window_start, window_end, COUNT(*)
         FROM TABLE(SESSION(TABLE bids PARTITION BY auction, DESCRIPTOR(ts), INTERVAL '3' SECOND))
         GROUP BY auction, window_start, window_end",
    );
    let expected = [
        "1|2026-01-01T00:00:00|2026-01-01T00:00:04|2",
        "2|2026-01-01T00:00:04.999|2026-01-01T00:00:08|2",
        "1|2026-01-01T00:00:07|2026-01-01T00:00:10|1",
        "3|2026-01-01T00:00:12|2026-01-01T00:00:15|1",
    ];
    assert_eq!(rows, expected);
    let listed = query(
        columns,
        "SELECT auction, window_start, window_end, n FROM (
           SELECT bidder, auction, window_start, window_end, COUNT(*) AS n
           FROM SESSION(TABLE bids PARTITION BY (bidder, auction), DESCRIPTOR(ts), INTERVAL '3' SECOND)
           WHERE price IS NOT NULL GROUP BY window_start, window_end, auction, bidder)",
    );
    assert_eq!(listed.len(), 5, "{listed:?}");
}

#[test]
fn sessions_of_all_rows_and_a_pause_as_long_as_the_gap() {
    let rows = query(
        "s TIMESTAMP(3), e TIMESTAMP(3), n BIGINT",
        "SELECT window_start, window_end, COUNT(*)
         FROM TABLE(SESSION(TABLE bids, DESCRIPTOR(ts), INTERVAL '2' SECOND)) GROUP BY window_start, window_end",
    );
    // The rows at 5 and 7 are exactly the gap apart: one session.
    assert_eq!(
        rows,
        [
            "2026-01-01T00:00:00|2026-01-01T00:00:03|2",
            "2026-01-01T00:00:04.999|2026-01-01T00:00:09|3",
            "2026-01-01T00:00:12|2026-01-01T00:00:14|1",
        ]
    );
}

#[test]
fn windows_over_windows() {
    let most = query(
        "e TIMESTAMP(3), most BIGINT",
        &format!(
            "SELECT window_end, MAX(n) FROM (
               SELECT auction, window_start, window_end, COUNT(*) AS n FROM {HOP} GROUP BY auction, window_start, window_end)
             GROUP BY window_start, window_end"
        ),
    );
    assert_eq!(
        most,
        [
            "2026-01-01T00:00:05|2",
            "2026-01-01T00:00:10|3",
            "2026-01-01T00:00:15|1",
            "2026-01-01T00:00:20|1",
        ]
    );
    // A hop over the sessions' last milliseconds: 3.999, 7.999, 9.999 and 14.999.
    let sessions = query(
        "e TIMESTAMP(3), sessions BIGINT, bids BIGINT",
        "WITH s AS (SELECT window_time AS t, COUNT(*) AS n
           FROM TABLE(SESSION(TABLE bids PARTITION BY auction, DESCRIPTOR(ts), INTERVAL '3' SECOND))
           GROUP BY auction, window_start, window_end, window_time)
         SELECT window_end, COUNT(*), SUM(n)
         FROM TABLE(HOP(TABLE s, DESCRIPTOR(t), INTERVAL '10' SECOND, INTERVAL '20' SECOND))
         GROUP BY window_start, window_end",
    );
    assert_eq!(
        sessions,
        [
            "2026-01-01T00:00:10|3|5",
            "2026-01-01T00:00:20|4|6",
            "2026-01-01T00:00:30|1|1",
        ]
    );
}

#[test]
fn older_form_of_windows_is_the_newer_one() {
    let columns = "a BIGINT, s TIMESTAMP(3), e TIMESTAMP(3), t TIMESTAMP(3), n BIGINT";
    let both = |older: &str, newer: &str| {
        let (older, newer) = (query(columns, older), query(columns, newer));
        assert!(!older.is_empty());
        assert_eq!(older, newer);
    };
    let newer = |function: &str| {
        format!(
            "SELECT auction, window_start, window_end, window_time, COUNT(*) FROM TABLE({function})
             WHERE price > 0 GROUP BY auction, window_start, window_end, window_time"
        )
    };
    both(
        "SELECT b.auction, TUMBLE_START(ts, INTERVAL '5' SECOND), tumble_end(ts, INTERVAL '5' SECOND) AS e,
           TUMBLE_ROWTIME(ts, INTERVAL '5' SECOND), COUNT(*)
         FROM bids AS b WHERE b.price > 0 GROUP BY TUMBLE(ts, INTERVAL '5' SECOND), b.auction",
        &newer("TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND)"),
    );
    both(
        "SELECT * FROM (
           SELECT auction, HOP_START(ts, INTERVAL '2' SECOND, INTERVAL '10' SECOND) AS s,
             HOP_END(ts, INTERVAL '2' SECOND, INTERVAL '10' SECOND) AS e,
             HOP_ROWTIME(ts, INTERVAL '2' SECOND, INTERVAL '10' SECOND) AS t, COUNT(*) AS n
           FROM bids WHERE price > 0 GROUP BY auction, HOP(ts, INTERVAL '2' SECOND, INTERVAL '10' SECOND)
           HAVING HOP_END(ts, INTERVAL '2' SECOND, INTERVAL '10' SECOND) > TIMESTAMP '2025-01-01 00:00:00')",
        &newer("HOP(TABLE bids, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '10' SECOND)"),
    );
    both(
        "SELECT auction, SESSION_START(bids.ts, INTERVAL '3' SECOND), SESSION_END(bids.ts, INTERVAL '3' SECOND),
           SESSION_ROWTIME(bids.ts, INTERVAL '3' SECOND), COUNT(*)
         FROM bids WHERE price > 0 GROUP BY bids.auction, SESSION(bids.ts, INTERVAL '3' SECOND)",
        &newer("SESSION(TABLE bids PARTITION BY auction, DESCRIPTOR(ts), INTERVAL '3' SECOND)"),
    );
    let text = explain(&format!(
        "{BIDS}EXPLAIN SELECT TUMBLE_START(ts, INTERVAL '5' SECOND), COUNT(*) FROM bids GROUP BY TUMBLE(ts, INTERVAL '5' SECOND)"
    ));
    assert!(text.contains("EXPR$0") && text.contains("EXPR$1"), "{text}");
}

#[test]
fn older_forms_that_have_no_newer_one_are_refused() {
    let tumble = "TUMBLE(ts, INTERVAL '5' SECOND)";
    assert_refused(
        &format!("SELECT ^TUMBLE_START(ts, INTERVAL '6' SECOND) FROM bids GROUP BY {tumble}"),
        "another window",
    );
    assert_refused(
        &format!("SELECT COUNT(*) FROM (SELECT ts FROM bids) GROUP BY ^{tumble}"),
        "no table or view",
    );
    assert_refused(
        &format!("SELECT COUNT(*) FROM bids GROUP BY {tumble}, ^HOP(ts)"),
        "second window",
    );
    assert_refused(
        "SELECT COUNT(*) FROM bids GROUP BY ^HOP(ts, INTERVAL '5' SECOND)",
        "HOP needs a size",
    );
    assert_refused(
        "SELECT COUNT(*) FROM bids GROUP BY ^TUMBLE(ts + 1, INTERVAL '5' SECOND)",
        "time column",
    );
    assert_refused(
        "SELECT COUNT(*) FROM bids GROUP BY SESSION(ts, INTERVAL '5' SECOND), ^auction + 1",
        "kept apart by columns only",
    );
    assert_refused(
        "SELECT TUMBLE_PROCTIME(ts, INTERVAL '5' SECOND) FROM bids GROUP BY TUMBLE(^ts, INTERVAL '5' SECOND)",
        "ts is an event time",
    );
}

#[test]
fn plan_shows_windows_and_reads_only_what_they_need() {
    let text = explain(&format!(
        "{BIDS}EXPLAIN SELECT window_end, COUNT(*) FROM {HOP} GROUP BY window_start, window_end"
    ));
    assert!(
        text.contains("Hop { time: 0, size_ms: 10000, slide_ms: 5000, offset_ms: 0 }"),
        "{text}"
    );
    let graph = text.split("== job graph ==").nth(1).unwrap();
    assert!(!graph.contains("hop_start") && !graph.contains("bidder"), "{text}");
}

/// Refused at the caret, with words of the message.
fn assert_refused(select: &str, words: &str) {
    let head = format!("{BIDS}CREATE TABLE out (n BIGINT) WITH ('connector' = 'test');\nINSERT INTO out ");
    let (before, after) = select.split_once('^').expect("a caret");
    let error = refused(&format!("{head}{before}{after};"));
    assert!(error.message.contains(words), "{error}\n{select}");
    assert!(error.hint.is_some(), "{error}");
    let before = format!("{head}{before}");
    let (above, line) = before.rsplit_once('\n').expect("lines");
    let at = error.position.unwrap_or_else(|| panic!("no place: {error}"));
    let expected = (above.lines().count() as u64 + 1, line.chars().count() as u64 + 1);
    assert_eq!((at.line, at.column), expected, "{error}");
}

#[test]
fn windows_that_cannot_be_are_refused_where_they_stand() {
    let count = |function: &str, caret: &str| {
        format!("SELECT COUNT(*) FROM TABLE({function}) {caret}GROUP BY window_start, window_end")
    };
    assert_refused(
        &count(
            "HOP(TABLE bids, DESCRIPTOR(ts), ^INTERVAL '10' SECOND, INTERVAL '5' SECOND)",
            "",
        ),
        "slide is longer than the window",
    );
    assert_refused(
        &count(
            "HOP(TABLE bids, DESCRIPTOR(ts), ^INTERVAL '1' SECOND, INTERVAL '3600.001' SECOND)",
            "",
        ),
        "panes",
    );
    assert_refused(
        &count(
            "HOP(TABLE bids, DESCRIPTOR(ts), ^INTERVAL '0' SECOND, INTERVAL '5' SECOND)",
            "",
        ),
        "slide must be at least 1 ms",
    );
    assert_refused(
        &count("^HOP(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND)", ""),
        "HOP needs a size",
    );
    assert_refused(
        &count(
            "CUMULATE(TABLE bids, DESCRIPTOR(ts), ^INTERVAL '4' SECOND, INTERVAL '10' SECOND)",
            "",
        ),
        "not a multiple of the step",
    );
    assert_refused(
        &count("^SESSION(TABLE bids, DESCRIPTOR(ts))", ""),
        "SESSION needs a gap",
    );
    assert_refused(
        &count(
            "HOP(TABLE bids PARTITION BY ^auction, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '5' SECOND)",
            "",
        ),
        "no PARTITION BY",
    );
    assert_refused(
        &count(
            "SESSION(TABLE bids PARTITION BY ^auktion, DESCRIPTOR(ts), INTERVAL '1' SECOND)",
            "",
        ),
        "no column auktion",
    );
    assert_refused(
        &count(
            "SESSION(TABLE bids PARTITION BY (auction, ^bidder + 1), DESCRIPTOR(ts), INTERVAL '1' SECOND)",
            "",
        ),
        "PARTITION BY names columns",
    );
}

#[test]
fn sessions_are_grouped_by_other_keys_than_those_that_keep_them_apart() {
    let mut rows = query(
        "a BIGINT, e TIMESTAMP(3), n BIGINT",
        "SELECT auction, window_end, COUNT(*) FROM TABLE(SESSION(TABLE bids, DESCRIPTOR(ts), INTERVAL '2' SECOND))
         GROUP BY window_start, window_end, auction",
    );
    rows.sort();
    assert_eq!(
        rows,
        [
            "1|2026-01-01T00:00:03|2",
            "1|2026-01-01T00:00:09|1",
            "2|2026-01-01T00:00:09|2",
            "3|2026-01-01T00:00:14|1",
        ]
    );
    // A filter comes before the sessions, as where they are grouped by what keeps them apart.
    let filtered = query(
        "a BIGINT, e TIMESTAMP(3), n BIGINT",
        "SELECT CAST(NULL AS BIGINT), window_end, COUNT(*)
         FROM TABLE(SESSION(TABLE bids PARTITION BY auction, DESCRIPTOR(ts), INTERVAL '3' SECOND))
         WHERE ts <> TIMESTAMP '2026-01-01 00:00:01' GROUP BY window_start, window_end",
    );
    assert!(
        filtered.contains(&"NULL|2026-01-01T00:00:03|1".to_owned()),
        "{filtered:?}"
    );
}

#[test]
fn filters_come_before_sessions_also_where_an_aggregate_reads_the_window() {
    let sessions = "TABLE(SESSION(TABLE bids PARTITION BY auction, DESCRIPTOR(ts), INTERVAL '3' SECOND))";
    let of = |extra: &str| {
        let mut rows = query(
            "a BIGINT, s TIMESTAMP(3), e TIMESTAMP(3), n BIGINT",
            &format!(
                "SELECT auction, window_start, window_end, COUNT(*){extra} FROM {sessions}
                 WHERE ts <> TIMESTAMP '2026-01-01 00:00:01' GROUP BY window_start, window_end, auction"
            ),
        );
        rows.sort();
        rows
    };
    let reading = " + 0 * SUM(TIMESTAMPDIFF(SECOND, window_start, ts))";
    assert_eq!(of(reading), of(""));
}

#[test]
fn side_of_a_session_may_have_the_name_of_the_time() {
    let mut rows = query(
        "s TIMESTAMP(3), e TIMESTAMP(3), a BIGINT, n BIGINT",
        "SELECT ts, te, auction, COUNT(*) FROM (SELECT window_start AS ts, window_end AS te, auction
           FROM TABLE(SESSION(TABLE bids PARTITION BY bidder, DESCRIPTOR(ts), INTERVAL '2' SECOND)))
         GROUP BY ts, te, auction",
    );
    rows.sort();
    let mut expected = query(
        "s TIMESTAMP(3), e TIMESTAMP(3), a BIGINT, n BIGINT",
        "SELECT window_start, window_end, auction, COUNT(*)
         FROM TABLE(SESSION(TABLE bids PARTITION BY bidder, DESCRIPTOR(ts), INTERVAL '2' SECOND))
         GROUP BY window_start, window_end, auction",
    );
    expected.sort();
    assert_eq!(rows, expected);
}

#[test]
fn row_without_aggregation_is_there_once_per_window() {
    let rows = query(
        "b BIGINT, s TIMESTAMP(3), e TIMESTAMP(3), t TIMESTAMP(3)",
        &format!("SELECT bidder, window_start, window_end, window_time FROM {HOP} WHERE bidder > 11"),
    );
    assert_eq!(
        rows,
        [
            "12|2026-01-01T00:00:00|2026-01-01T00:00:10|2026-01-01T00:00:09.999",
            "12|2026-01-01T00:00:05|2026-01-01T00:00:15|2026-01-01T00:00:14.999",
            "13|2026-01-01T00:00:05|2026-01-01T00:00:15|2026-01-01T00:00:14.999",
            "13|2026-01-01T00:00:10|2026-01-01T00:00:20|2026-01-01T00:00:19.999",
        ]
    );
    // Also where nobody asks for the window.
    let rows = query(
        "b BIGINT",
        &format!("SELECT bidder + 1 FROM (SELECT * FROM {HOP}) WHERE bidder > 11"),
    );
    assert_eq!(rows, ["13", "13", "14", "14"]);
    let filtered = query(
        "b BIGINT",
        &format!("SELECT bidder FROM {HOP} WHERE window_start > TIMESTAMP '2026-01-01 00:00:00'"),
    );
    assert_eq!(filtered, ["12", "10", "13", "13"]);
    // Rows of two streams with the same windows, aggregated by them.
    let both = query(
        "e TIMESTAMP(3), n BIGINT",
        &format!(
            "SELECT window_end, COUNT(*) FROM (SELECT * FROM {HOP} UNION ALL SELECT * FROM {HOP} WHERE bidder = 13)
             GROUP BY window_start, window_end"
        ),
    );
    assert_eq!(
        both,
        [
            "2026-01-01T00:00:05|3",
            "2026-01-01T00:00:10|5",
            "2026-01-01T00:00:15|4",
            "2026-01-01T00:00:20|2",
        ]
    );
    let grown = query(
        "b BIGINT, e TIMESTAMP(3)",
        "SELECT bidder, window_end FROM CUMULATE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '15' SECOND)
         WHERE bidder > 11",
    );
    assert_eq!(
        grown,
        [
            "12|2026-01-01T00:00:10",
            "12|2026-01-01T00:00:15",
            "13|2026-01-01T00:00:15",
        ]
    );
}

#[test]
fn row_without_aggregation_waits_for_its_session() {
    let mut rows = query(
        "a BIGINT, s TIMESTAMP(3), e TIMESTAMP(3), t TIMESTAMP(3)",
        "SELECT auction, window_start, window_end, ts
         FROM TABLE(SESSION(TABLE bids PARTITION BY auction, DESCRIPTOR(ts), INTERVAL '3' SECOND))",
    );
    rows.sort();
    assert_eq!(
        rows,
        [
            "1|2026-01-01T00:00:00|2026-01-01T00:00:04|2026-01-01T00:00:00",
            "1|2026-01-01T00:00:00|2026-01-01T00:00:04|2026-01-01T00:00:01",
            "1|2026-01-01T00:00:07|2026-01-01T00:00:10|2026-01-01T00:00:07",
            "2|2026-01-01T00:00:04.999|2026-01-01T00:00:08|2026-01-01T00:00:04.999",
            "2|2026-01-01T00:00:04.999|2026-01-01T00:00:08|2026-01-01T00:00:05",
            "3|2026-01-01T00:00:12|2026-01-01T00:00:15|2026-01-01T00:00:12",
        ]
    );
    // When it goes on, its own time is behind the watermark.
    let again = refused(&format!(
        "{BIDS}CREATE TABLE out (n BIGINT) WITH ('connector' = 'test');
         CREATE VIEW s AS SELECT ts, window_end AS e
         FROM SESSION(TABLE bids PARTITION BY auction, DESCRIPTOR(ts), INTERVAL '3' SECOND);
         INSERT INTO out SELECT COUNT(*) FROM TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '3' SECOND)
         GROUP BY window_start, window_end;"
    ));
    assert!(
        again.message.contains("ts is not the event time of its rows"),
        "{again}"
    );
}

#[test]
fn window_columns_below_the_aggregation() {
    let rows = query(
        "e TIMESTAMP(3), n BIGINT, ends BIGINT",
        &format!(
            "SELECT window_end, COUNT(*), MAX(EXTRACT(SECOND FROM window_end)) FROM {HOP}
             WHERE window_start > TIMESTAMP '2025-12-31 23:59:55' GROUP BY window_start, window_end"
        ),
    );
    assert_eq!(
        rows,
        [
            "2026-01-01T00:00:10|5|10",
            "2026-01-01T00:00:15|3|15",
            "2026-01-01T00:00:20|1|20",
        ]
    );
    let session = "FROM TABLE(SESSION(TABLE bids, DESCRIPTOR(ts), INTERVAL '1' SECOND))";
    let ends = query(
        "n BIGINT",
        &format!("SELECT MAX(EXTRACT(SECOND FROM window_end)) {session} GROUP BY window_start, window_end"),
    );
    assert_eq!(ends, ["2", "6", "8", "13"]);
    let counts = query(
        "n BIGINT",
        &format!(
            "SELECT COUNT(*) {session} WHERE window_start > TIMESTAMP '2026-01-01 00:00:04' GROUP BY window_start, window_end"
        ),
    );
    assert_eq!(counts, ["2", "1", "1"]);
}

#[test]
fn windows_of_an_aggregation_are_columns_like_others() {
    let rows = query(
        "n BIGINT",
        &format!(
            "SELECT MAX(EXTRACT(SECOND FROM window_end)) FROM (
               SELECT window_start, window_end, window_time AS t, auction FROM {HOP}
               GROUP BY window_start, window_end, window_time, auction)
             WHERE window_start >= TIMESTAMP '2026-01-01 00:00:00' GROUP BY window_start, window_end"
        ),
    );
    assert_eq!(rows, ["10", "15", "20"]);
}
