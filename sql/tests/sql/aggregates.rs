//! Windows and aggregates, by their results.

use super::engine::{assert_engine_agrees, sink, tables};
use super::live::World;
use super::support::{BIDS, query, refused};
use tidemill_engine::sink::DeliveryGuarantee;

const TUMBLE: &str = "TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND))";

#[test]
fn all_aggregates_over_a_tumbling_window() {
    let rows = query(
        "s TIMESTAMP(3), e TIMESTAMP(3), n BIGINT, p BIGINT, sum_p INT, lo INT, hi INT, users BIGINT, fee DECIMAL(38, 2), rate DOUBLE",
        &format!(
            "SELECT window_start, window_end, COUNT(*), COUNT(price), SUM(price), MIN(price), MAX(price),
               COUNT(DISTINCT bidder), SUM(fee), AVG(rate)
             FROM {TUMBLE} GROUP BY window_start, window_end"
        ),
    );
    assert_eq!(
        rows,
        [
            "2026-01-01T00:00:00|2026-01-01T00:00:05|3|3|350|50|200|2|3.85|0.375",
            "2026-01-01T00:00:05|2026-01-01T00:00:10|2|1|300|300|300|2|9.99|1.75",
            "2026-01-01T00:00:10|2026-01-01T00:00:15|1|1|-7|-7|-7|1|0.00|0.0",
        ]
    );
}

#[test]
fn keys_filters_having_and_expressions_over_aggregates() {
    let rows = query(
        "auction BIGINT, hour_of INT, n BIGINT, cheap BIGINT, twice BIGINT",
        &format!(
            "SELECT auction, EXTRACT(HOUR FROM window_start), COUNT(*), COUNT(*) FILTER (WHERE price < 150), 2 * COUNT(*)
             FROM {TUMBLE} WHERE bidder <> 13
             GROUP BY auction, window_end, window_start HAVING COUNT(*) > 1 OR MAX(price) > 250"
        ),
    );
    assert_eq!(rows, ["1|0|2|1|4", "1|0|1|0|2"]);
}

#[test]
fn keys_may_be_expressions() {
    let rows = query(
        "c STRING, n BIGINT",
        &format!(
            "SELECT LOWER(channel) AS c, COUNT(*) FROM {TUMBLE} GROUP BY window_start, window_end, LOWER(channel)"
        ),
    );
    assert_eq!(rows, ["app|1", "web|2", "NULL|1", "web|1", "app|1"]);
}

#[test]
fn offset_shifts_windows() {
    let rows = query(
        "s TIMESTAMP(3), n BIGINT",
        "SELECT window_start, COUNT(*)
         FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '2' SECOND))
         GROUP BY window_start, window_end",
    );
    assert_eq!(
        rows,
        [
            "2025-12-31T23:59:52|2",
            "2026-01-01T00:00:02|3",
            "2026-01-01T00:00:12|1"
        ]
    );
}

#[test]
fn window_columns_without_aggregation() {
    let rows = query(
        "b BIGINT, s TIMESTAMP(3), e TIMESTAMP(3), t TIMESTAMP(3)",
        &format!("SELECT bidder, window_start, window_end, window_time FROM {TUMBLE} WHERE bidder > 11"),
    );
    assert_eq!(
        rows,
        [
            "12|2026-01-01T00:00:05|2026-01-01T00:00:10|2026-01-01T00:00:09.999",
            "13|2026-01-01T00:00:10|2026-01-01T00:00:15|2026-01-01T00:00:14.999",
        ]
    );
}

#[test]
fn window_over_the_time_of_a_window() {
    let rows = query(
        "s TIMESTAMP(3), n BIGINT, m BIGINT",
        &format!(
            "WITH small AS (
               SELECT window_time AS t, auction, COUNT(*) AS n FROM {TUMBLE}
               GROUP BY window_start, window_end, window_time, auction)
             SELECT window_start, COUNT(*), MAX(n)
             FROM TABLE(TUMBLE(DATA => TABLE small, TIMECOL => DESCRIPTOR(t), SIZE => INTERVAL '10' SECOND))
             GROUP BY window_start, window_end"
        ),
    );
    assert_eq!(rows, ["2026-01-01T00:00:00|4|2", "2026-01-01T00:00:10|1|1"]);
}

#[test]
fn aggregation_over_the_windows_of_an_aggregation() {
    let rows = query(
        "s TIMESTAMP(3), auctions BIGINT, most BIGINT",
        &format!(
            "SELECT window_start, COUNT(*), MAX(n) FROM (
               SELECT window_start, window_end, auction, COUNT(*) AS n FROM {TUMBLE}
               GROUP BY window_start, window_end, auction)
             GROUP BY window_start, window_end"
        ),
    );
    assert_eq!(
        rows,
        [
            "2026-01-01T00:00:00|2|2",
            "2026-01-01T00:00:05|2|1",
            "2026-01-01T00:00:10|1|1"
        ]
    );
}

#[test]
fn window_over_a_union_of_windowed_queries() {
    let one = format!("SELECT auction, window_start, window_end FROM {TUMBLE}");
    let rows = query(
        "s TIMESTAMP(3), n BIGINT",
        &format!(
            "SELECT window_start, COUNT(*) FROM ({one} UNION ALL {one} WHERE auction = 1) GROUP BY window_start, window_end"
        ),
    );
    assert_eq!(
        rows,
        [
            "2026-01-01T00:00:00|5",
            "2026-01-01T00:00:05|3",
            "2026-01-01T00:00:10|1"
        ]
    );
}

#[test]
fn count_star_next_to_an_unused_aggregate() {
    let rows = query(
        "n BIGINT",
        &format!(
            "SELECT n FROM (SELECT COUNT(*) AS n, SUM(price) AS unused, window_start FROM {TUMBLE}
             GROUP BY window_start, window_end)"
        ),
    );
    assert_eq!(rows, ["3", "2", "1"]);
}

#[test]
fn key_named_like_a_window_column() {
    let rows = query(
        "k BIGINT, n BIGINT",
        "SELECT k, COUNT(*) FROM (
           SELECT auction AS k, window_start AS s, window_end AS e FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '1' DAY)))
         GROUP BY s, e, k",
    );
    assert_eq!(rows, ["1|3", "2|2", "3|1"]);
}

#[test]
fn spreads_of_numbers_in_a_window() {
    let rows = query(
        "a DOUBLE, b DOUBLE, c DOUBLE, d DOUBLE, e DOUBLE, f DOUBLE",
        "SELECT VAR_POP(price), VAR_SAMP(price), STDDEV_POP(price), ROUND(STDDEV_SAMP(price), 3), ROUND(STDDEV(price), 3),
         VARIANCE(price) FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '2' SECOND)) WHERE price > 0
         GROUP BY window_start, window_end",
    );
    // 100 and 200; then 50 alone; then 300 alone.
    assert_eq!(
        rows,
        [
            "2500.0|5000.0|50.0|70.711|70.711|5000.0",
            "0.0|NULL|0.0|NULL|NULL|NULL",
            "0.0|NULL|0.0|NULL|NULL|NULL"
        ]
    );
}

#[test]
fn functions_of_the_order_of_rows() {
    let rows = query(
        "first_channel STRING, last_price INT, channels STRING, cheap STRING, prices ARRAY<INT>",
        &format!(
            "SELECT FIRST_VALUE(channel), LAST_VALUE(price), LISTAGG(channel), LISTAGG(channel, '; ') FILTER (WHERE price < 150),
               ARRAY_AGG(price)
             FROM {TUMBLE} GROUP BY window_start, window_end"
        ),
    );
    assert_eq!(
        rows,
        [
            "web|50|web,app,web|web; web|[100, 200, 50]",
            "web|300|web|NULL|[NULL, 300]",
            "App|-7|App|App|[-7]",
        ]
    );
    let rows = query(
        "auction BIGINT, first_channel STRING, last_price INT, channels STRING, prices ARRAY<INT>",
        "SELECT auction, FIRST_VALUE(channel), LAST_VALUE(price), LISTAGG(channel), ARRAY_AGG(price) FROM bids GROUP BY auction",
    );
    assert_eq!(
        rows,
        [
            "1|web|300|web,app,web|[100, 200, 300]",
            "2|web|50|web|[50, NULL]",
            "3|App|-7|App|[-7]",
        ]
    );
}

#[test]
fn functions_of_the_order_keep_it_on_the_engine() {
    // One row per group and window: the order of the splits does not matter, their states and sections do.
    let columns = "a BIGINT, f STRING, l STRING, t STRING, p ARRAY<INT>";
    let calls = "FIRST_VALUE(channel), LAST_VALUE(channel), LISTAGG(channel, '+'), ARRAY_AGG(price)";
    for by in [
        format!("FROM {TUMBLE} GROUP BY window_start, window_end, auction, ts, bidder, price, channel"),
        "FROM bids GROUP BY auction, ts, bidder, price, channel".to_owned(),
    ] {
        let sinks = sink("out", columns);
        assert_engine_agrees(&format!(
            "{}INSERT INTO out SELECT auction, {calls} {by}",
            tables(&sinks)
        ));
    }
}

#[test]
fn sums_and_averages_of_different_numbers() {
    let rows = query(
        "bidders BIGINT, rate DOUBLE, prices INT",
        &format!(
            "SELECT SUM(DISTINCT bidder), AVG(DISTINCT rate), SUM(DISTINCT price) FILTER (WHERE channel = 'web')
             FROM {TUMBLE} GROUP BY window_start, window_end"
        ),
    );
    assert_eq!(rows, ["21|0.375|150", "22|1.75|300", "13|0.0|NULL"]);

    let mut rows = query(
        "auction BIGINT, s INT, a DOUBLE",
        "SELECT auction, SUM(DISTINCT price) OVER w, AVG(DISTINCT rate) OVER w FROM bids
         WINDOW w AS (PARTITION BY auction ORDER BY ts ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)",
    );
    rows.sort();
    assert_eq!(
        rows,
        [
            "1|100|0.5",
            "1|300|0.375",
            "1|500|1.125",
            "2|50|1.5",
            "2|50|NULL",
            "3|-7|0.0"
        ]
    );

    let columns = "k BIGINT, s BIGINT, a DOUBLE, p INT, n BIGINT";
    let calls = "SUM(DISTINCT bidder), AVG(DISTINCT rate), SUM(DISTINCT price) FILTER (WHERE auction > 1), COUNT(*)";
    let hop = "TABLE(HOP(TABLE bids, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '10' SECOND))";
    let session = "TABLE(SESSION(TABLE bids PARTITION BY auction, DESCRIPTOR(ts), INTERVAL '1' SECOND))";
    for query in [
        format!("SELECT auction, {calls} FROM {TUMBLE} GROUP BY window_start, window_end, auction"),
        format!("SELECT auction, {calls} FROM {hop} GROUP BY window_start, window_end, auction"),
        format!("SELECT auction, {calls} FROM {session} GROUP BY window_start, window_end, auction"),
        format!("SELECT auction, {calls} FROM bids GROUP BY auction"),
        // Over counts that change.
        "SELECT MOD(auction, 3), SUM(DISTINCT n), AVG(DISTINCT CAST(n AS DOUBLE)), MAX(p), COUNT(*)
         FROM (SELECT auction, COUNT(*) AS n, MAX(price) AS p FROM bids GROUP BY auction, bidder) GROUP BY MOD(auction, 3)"
            .to_owned(),
    ] {
        assert_engine_agrees(&format!("{}INSERT INTO out {query}", tables(&sink("out", columns))));
    }
}

#[test]
fn functions_of_the_order_over_results_that_change_are_refused() {
    for call in [
        "FIRST_VALUE(n)",
        "LAST_VALUE(n)",
        "LISTAGG(CAST(n AS STRING))",
        "CARDINALITY(ARRAY_AGG(n))",
    ] {
        let error = refused(&format!(
            "{BIDS}CREATE TABLE out (v STRING) WITH ('connector' = 'test');
             INSERT INTO out SELECT CAST({call} AS STRING) FROM (SELECT auction, COUNT(*) AS n FROM bids GROUP BY auction)"
        ));
        assert!(error.message.contains("over a result that changes"), "{call}: {error}");
        assert!(error.to_string().contains("rows that stay"), "{call}: {error}");
    }
    let error = refused(&format!(
        "{BIDS}CREATE TABLE out (v STRING) WITH ('connector' = 'test');
         INSERT INTO out SELECT LISTAGG(channel) OVER (PARTITION BY auction ORDER BY ts) FROM bids"
    ));
    assert!(
        error.message.contains("LISTAGG with OVER is not supported yet"),
        "{error}"
    );
}

#[test]
fn json_and_multisets_of_groups() {
    let rows = query(
        "c STRING, elements STRING, all_elements STRING, rows_of STRING, entries STRING",
        "SELECT channel, JSON_ARRAYAGG(price), JSON_ARRAYAGG(price NULL ON NULL),
           JSON_ARRAYAGG(JSON_OBJECT(KEY 'a' VALUE auction)) FILTER (WHERE auction > 1),
           JSON_OBJECTAGG(KEY CONCAT(CAST(bidder AS STRING), '-', CAST(price AS STRING)) VALUE fee)
         FROM bids WHERE channel IS NOT NULL AND price IS NOT NULL GROUP BY channel",
    );
    let expected = [
        r#"App|[-7]|[-7]|[{"a":3}]|{"13--7":0.00}"#,
        r#"app|[200]|[200]|[]|{"11-200":2.25}"#,
        r#"web|[100,50,300]|[100,50,300]|[{"a":2}]|{"10-100":1.50,"10-300":9.99,"10-50":0.10}"#,
    ];
    assert_eq!(rows, expected);
    let rows = query(
        "n STRING, absent STRING, nothing STRING",
        "SELECT JSON_ARRAYAGG(price NULL ON NULL), JSON_OBJECTAGG('p' VALUE CAST(NULL AS INT) ABSENT ON NULL),
           JSON_ARRAYAGG(price) FILTER (WHERE price > 1000) FROM bids",
    );
    assert_eq!(rows, ["[100,200,50,null,300,-7]|{}|[]"]);
    // What a filter leaves out is not looked at.
    let rows = query(
        "n STRING",
        "SELECT JSON_OBJECTAGG(KEY NULLIF(channel, 'web') VALUE 1) FILTER (WHERE channel = 'app') FROM bids",
    );
    assert_eq!(rows, [r#"{"app":1}"#]);
    let rows = query(
        "c MULTISET<STRING>, d MAP<STRING, INT>, p MULTISET<INT>, n INT, web INT, keys STRING, nothing INT",
        "SELECT COLLECT(channel), COLLECT(DISTINCT channel), COLLECT(price) FILTER (WHERE price < 100),
           CARDINALITY(COLLECT(channel)), COLLECT(channel)['web'], ARRAY_JOIN(MAP_KEYS(COLLECT(channel)), ','),
           CARDINALITY(COLLECT(channel) FILTER (WHERE price > 1000)) FROM bids",
    );
    let counts = counts_of_channels();
    assert_eq!(
        rows,
        [format!("{}|{}|{{-7: 1, 50: 1}}|{}", counts.0, counts.1, counts.2)]
    );
}

/// The channels of all bids, as the map of counts, as a set, and what else is asked of them.
fn counts_of_channels() -> (String, String, String) {
    let mut counts: std::collections::BTreeMap<String, i32> = std::collections::BTreeMap::new();
    for channel in query("c STRING", "SELECT channel FROM bids WHERE channel IS NOT NULL") {
        *counts.entry(channel).or_default() += 1;
    }
    let entries = |count: &dyn Fn(i32) -> i32| {
        let entries: Vec<String> = counts.iter().map(|(c, n)| format!("{c}: {}", count(*n))).collect();
        format!("{{{}}}", entries.join(", "))
    };
    let names: Vec<&str> = counts.keys().map(String::as_str).collect();
    let rest = format!("{}|{}|{}|0", counts.len(), counts["web"], names.join(","));
    (entries(&|n| n), entries(&|_| 1), rest)
}

#[test]
fn multisets_and_json_on_the_engine() {
    let columns = "a BIGINT, c MAP<STRING, INT>, d MAP<INT, INT>, n INT";
    let select = "SELECT auction, COLLECT(channel), COLLECT(DISTINCT price) FILTER (WHERE price < 100),
           CARDINALITY(COLLECT(bidder))";
    for windows in [
        "TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND))",
        "TABLE(HOP(TABLE bids, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '6' SECOND))",
        "TABLE(CUMULATE(TABLE bids, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '6' SECOND))",
        "TABLE(SESSION(TABLE bids PARTITION BY auction, DESCRIPTOR(ts), INTERVAL '1' SECOND))",
    ] {
        assert_engine_agrees(&format!(
            "{}INSERT INTO out {select} FROM {windows} GROUP BY window_start, window_end, auction",
            tables(&sink("out", columns))
        ));
    }
    assert_engine_agrees(&format!(
        "{}INSERT INTO out {select} FROM bids GROUP BY auction",
        tables(&sink("out", columns))
    ));
    // Over what changes: every count takes the one before it back.
    assert_engine_agrees(&format!(
        "{}INSERT INTO out SELECT auction,
           JSON_OBJECTAGG(KEY CAST(bidder AS STRING) VALUE n), COLLECT(n), CARDINALITY(COLLECT(n) FILTER (WHERE n > 3)),
           MEDIAN(n), PERCENTILE(n, 0.9)
         FROM (SELECT auction, bidder, COUNT(*) AS n FROM bids GROUP BY auction, bidder) GROUP BY auction",
        tables(&sink(
            "out",
            "a BIGINT, o STRING, c MAP<BIGINT, INT>, n INT, m DOUBLE, p DOUBLE"
        ))
    ));
}

#[test]
fn aggregates_of_datafusion() {
    let rows = query(
        "ba INT, bo INT, bx INT, al BOOLEAN, an BOOLEAN, med DOUBLE, p DOUBLE, q DOUBLE, n BIGINT, m BIGINT",
        "SELECT BIT_AND(price), BIT_OR(price), BIT_XOR(price), BOOL_AND(price > 0), BOOL_OR(price > 250), MEDIAN(price),
           PERCENTILE(price, 0.25), PERCENTILE_CONT(price, 1), APPROX_COUNT_DISTINCT(bidder), REGR_COUNT(price, rate)
         FROM bids WHERE price > 0",
    );
    let prices = [100, 200, 50, 300];
    let bits = (
        prices.iter().fold(-1, |bits, price| bits & price),
        prices.iter().fold(0, |bits, price| bits | price),
        prices.iter().fold(0, |bits, price| bits ^ price),
    );
    let expected = format!("{}|{}|{}|true|true|150.0|87.5|300.0|2|3", bits.0, bits.1, bits.2);
    assert_eq!(rows, [expected]);
    let rows = query(
        "c DOUBLE, cp DOUBLE, cs DOUBLE, slope DOUBLE, b DOUBLE, r2 DOUBLE, ax DOUBLE, none DOUBLE, half DOUBLE",
        "SELECT ROUND(CORR(price, 2 * price), 9), COVAR_POP(price, auction), COVAR_SAMP(price, auction), REGR_SLOPE(3 * price + 1, price),
           REGR_INTERCEPT(3 * price + 1, price), REGR_R2(3 * price + 1, price), REGR_AVGX(auction, price),
           MEDIAN(price) FILTER (WHERE price > 1000), APPROX_MEDIAN(auction)
         FROM bids WHERE auction = 1 AND price > 0",
    );
    assert_eq!(rows, ["1.0|0.0|0.0|3.0|1.0|1.0|200.0|NULL|1.0"]);
}

#[test]
fn aggregates_of_datafusion_on_the_engine() {
    let columns = "a BIGINT, ba INT, bo INT, bx INT, al BOOLEAN, an BOOLEAN, med DOUBLE, p DOUBLE, n BIGINT, c DOUBLE,
         cp DOUBLE, s DOUBLE, m BIGINT";
    let select = "SELECT auction, BIT_AND(price), BIT_OR(price), BIT_XOR(price) FILTER (WHERE price > 100), BOOL_AND(price > 100),
           BOOL_OR(channel = 'web'), MEDIAN(price), PERCENTILE(price, 0.9), APPROX_COUNT_DISTINCT(bidder),
           ROUND(CORR(price, bidder), 6), ROUND(COVAR_POP(price, rate), 6), ROUND(REGR_SYY(price, rate), 6),
           REGR_COUNT(price, rate)";
    for windows in [
        "TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '5' SECOND))",
        "TABLE(HOP(TABLE bids, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '6' SECOND))",
        "TABLE(SESSION(TABLE bids PARTITION BY auction, DESCRIPTOR(ts), INTERVAL '1' SECOND))",
    ] {
        assert_engine_agrees(&format!(
            "{}INSERT INTO out {select} FROM {windows} GROUP BY window_start, window_end, auction",
            tables(&sink("out", columns))
        ));
    }
    assert_engine_agrees(&format!(
        "{}INSERT INTO out {select} FROM bids GROUP BY auction",
        tables(&sink("out", columns))
    ));
    assert_engine_agrees(&format!(
        "{}INSERT INTO out SELECT bidder, MEDIAN(price) OVER w, BIT_OR(price) OVER w, BOOL_AND(price > 10) OVER w
         FROM bids WINDOW w AS (PARTITION BY bidder ORDER BY ts ROWS BETWEEN 3 PRECEDING AND CURRENT ROW)",
        tables(&sink("out", "b BIGINT, m DOUBLE, o INT, a BOOLEAN"))
    ));
}

/// What accumulators hold comes back from checkpoints, also at another parallelism.
#[test]
fn values_of_groups_survive_crashes() {
    let sinks = [
        (
            "w",
            "k STRING, c MAP<BIGINT, INT>, m DOUBLE, o STRING, b BIGINT, d BIGINT, p DOUBLE, l STRING",
        ),
        (
            "s",
            "k STRING, c MAP<BIGINT, INT>, m DOUBLE, o STRING, b BIGINT, d BIGINT, p DOUBLE, l STRING",
        ),
        ("v", "k STRING, n BIGINT, m DOUBLE, o BIGINT"),
    ];
    let sinks: String = sinks.iter().map(|(name, columns)| sink(name, columns)).collect();
    let select = "SELECT k, COLLECT(n), MEDIAN(n), JSON_OBJECTAGG(KEY DATE_FORMAT(ts, 'ss') VALUE n), BIT_XOR(n),
           APPROX_COUNT_DISTINCT(n), APPROX_PERCENTILE_CONT(n, 1.0), JSON_ARRAYAGG(n)";
    let hop = "TABLE(HOP(TABLE clicks, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '10' SECOND))";
    let session = "TABLE(SESSION(TABLE clicks PARTITION BY k, DESCRIPTOR(ts), INTERVAL '20' SECOND))";
    let world = World::new(
        DeliveryGuarantee::ExactlyOnce,
        &format!(
            "{sinks}INSERT INTO w {select} FROM {hop} GROUP BY window_start, window_end, k;
             INSERT INTO s {select} FROM {session} GROUP BY window_start, window_end, k;
             INSERT INTO v SELECT k, n, MEDIAN(n) OVER w, BIT_OR(n) OVER w FROM clicks
               WINDOW w AS (PARTITION BY k ORDER BY ts ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);"
        ),
    );
    let job = world.start(1);
    job.push(0, "a,1,00:00:01 a,2,00:00:02 b,5,00:00:03");
    job.kill();
    let job = world.start(3);
    job.push(1, "a,1,00:00:04");
    job.push(0, "a,7,00:00:06");
    job.kill();
    let job = world.start(2);
    job.push(1, "a,2,00:00:12");
    job.finish();
    assert_eq!(
        world.written("w"),
        [
            r#"a|{1: 2, 2: 1, 7: 1}|1.5|{"01":1,"02":2,"04":1,"06":7}|5|3|7.0|[1,2,1,7]"#,
            r#"a|{1: 2, 2: 1}|1.0|{"01":1,"02":2,"04":1}|2|2|2.0|[1,2,1]"#,
            r#"a|{2: 1, 7: 1}|4.5|{"06":7,"12":2}|5|2|7.0|[7,2]"#,
            r#"a|{2: 1}|2.0|{"12":2}|2|1|2.0|[2]"#,
            r#"b|{5: 1}|5.0|{"03":5}|5|1|5.0|[5]"#,
            r#"b|{5: 1}|5.0|{"03":5}|5|1|5.0|[5]"#,
        ]
    );
    assert_eq!(
        world.written("s"),
        [
            r#"a|{1: 2, 2: 2, 7: 1}|2.0|{"01":1,"02":2,"04":1,"06":7,"12":2}|7|3|7.0|[1,2,1,7,2]"#,
            r#"b|{5: 1}|5.0|{"03":5}|5|1|5.0|[5]"#,
        ]
    );
    let over = [
        "a|1|1.0|1",
        "a|1|1.0|3",
        "a|2|1.5|3",
        "a|2|2.0|7",
        "a|7|1.5|7",
        "b|5|5.0|5",
    ];
    assert_eq!(world.written("v"), over);
}
