//! Small texts that are meant to keep a planner busy or to overflow its stack: each is refused by a named limit.

use super::support::{BIDS, plan, refused};
use std::fmt::Write as _;

const OUT: &str = "CREATE TABLE out (a BIGINT) WITH ('connector' = 'test');\n";

fn assert_limit(sql: &str, words: &str) {
    let error = refused(sql);
    assert!(error.message.contains(words), "{}", error.message);
}

fn insert(expr: &str) -> String {
    format!("{BIDS}{OUT}INSERT INTO out SELECT {expr} FROM bids")
}

#[test]
fn long_chains_of_operators() {
    for terms in [600, 4_000, 10_000] {
        assert_limit(&insert(&vec!["1"; terms].join("+")), "limit is");
        assert_limit(&insert(&vec!["'a'"; terms].join(" || ")), "limit is");
        let condition = (0..terms)
            .map(|i| format!("price = {i}"))
            .collect::<Vec<_>>()
            .join(" OR ");
        assert_limit(&format!("{} WHERE {condition}", insert("auction")), "limit is");
    }
}

#[test]
fn chain_within_the_limit_plans() {
    assert!(plan(&insert(&vec!["auction"; 490].join("+"))).is_ok());
    let condition = (0..240)
        .map(|i| format!("price = {i}"))
        .collect::<Vec<_>>()
        .join(" OR ");
    assert!(plan(&format!("{} WHERE {condition}", insert("auction"))).is_ok());
}

#[test]
fn chains_hidden_behind_other_syntax() {
    assert_limit(&insert(&vec!["CASE WHEN true THEN 1 END"; 600].join("+")), "limit is");
    assert_limit(&insert(&vec!["abs(1)"; 600].join("+")), "limit is");
    assert_limit(&insert(&vec!["(1)"; 600].join("+")), "limit is");
    assert_limit(&insert(&vec!["INTERVAL '1' DAY"; 600].join("+")), "limit is");
    assert_limit(
        &insert(&format!("CASE {} END", "WHEN true THEN 1 ".repeat(600))),
        "limit is",
    );
    assert_limit(&insert(&format!("1{}", " BETWEEN 1 AND 2".repeat(300))), "limit is");
    assert_limit(&insert(&format!("1{}", " IS NULL".repeat(600))), "limit is");
    assert_limit(&insert(&format!("1{}", "::BIGINT".repeat(600))), "limit is");
}

#[test]
fn deep_nesting() {
    for depth in [33, 100, 1_000, 50_000] {
        assert_limit(
            &insert(&format!("{}1{}", "(".repeat(depth), ")".repeat(depth))),
            "limit is",
        );
        assert_limit(&insert(&"(".repeat(depth)), "limit is");
    }
    for depth in [33, 1_000] {
        assert_limit(
            &insert(&format!("{}1{}", "abs(".repeat(depth), ")".repeat(depth))),
            "limit is",
        );
        assert_limit(&insert(&format!("{}true", "NOT ".repeat(depth))), "limit is");
        assert_limit(&insert(&format!("{}1", "- ".repeat(depth))), "limit is");
        let cases = format!("{}1{}", "CASE WHEN true THEN ".repeat(depth), " END".repeat(depth));
        assert_limit(&insert(&cases), "limit is");
        let from = format!("{}bids{}", "(SELECT auction FROM ".repeat(depth), ")".repeat(depth));
        assert_limit(
            &format!("{BIDS}{OUT}INSERT INTO out SELECT auction FROM {from}"),
            "limit is",
        );
    }
    assert_limit(&format!("CREATE TABLE t (a {}INT", "ARRAY<".repeat(2_000)), "limit is");
}

#[test]
fn nesting_within_the_limit_is_fast_or_refused() {
    // Parsers that try one reading after the other take 2^depth steps here.
    let _ = plan(&insert(&format!("{}1{}", "(".repeat(31), ")".repeat(31))));
    let _ = plan(&insert(&format!("{}1{}", "abs(".repeat(31), ")".repeat(31))));
    let _ = plan(&format!(
        "{BIDS}{OUT}INSERT INTO out SELECT auction FROM {}bids{}",
        "(".repeat(31),
        ")".repeat(31)
    ));
    let _ = plan(&format!(
        "{BIDS}{OUT}INSERT INTO out SELECT auction FROM {}bids",
        "(".repeat(31)
    ));
    let from = format!("{}bids{}", "(SELECT auction FROM ".repeat(31), ")".repeat(31));
    let _ = plan(&format!("{BIDS}{OUT}INSERT INTO out SELECT auction FROM {from}"));
    let cases = format!("{}1{}", "CASE WHEN true THEN ".repeat(31), " END".repeat(31));
    let _ = plan(&insert(&cases));
    let _ = plan(&format!(
        "{BIDS}{OUT}INSERT INTO out {}SELECT auction FROM bids{}",
        "(".repeat(31),
        ")".repeat(31)
    ));
}

#[test]
fn doubling_with_queries_and_views() {
    let mut with = String::from("WITH c0 AS (SELECT auction FROM bids)");
    let mut views = String::from("CREATE VIEW c0 AS SELECT auction FROM bids;\n");
    for i in 1..=16 {
        let p = i - 1;
        let _ = write!(
            with,
            ", c{i} AS (SELECT auction FROM c{p} UNION ALL SELECT auction FROM c{p})"
        );
        let _ = writeln!(
            views,
            "CREATE VIEW c{i} AS SELECT auction FROM c{p} UNION ALL SELECT auction FROM c{p};"
        );
    }
    assert_limit(
        &format!("{BIDS}{OUT}INSERT INTO out {with} SELECT auction FROM c16"),
        "table references",
    );
    assert_limit(
        &format!("{BIDS}{OUT}{views}INSERT INTO out SELECT auction FROM c16"),
        "table references",
    );
    let tvf = with
        .replace("FROM c", "FROM TUMBLE(TABLE c")
        .replace(" UNION", ", DESCRIPTOR(ts), INTERVAL '1' SECOND) UNION");
    assert_limit(&format!("{BIDS}{OUT}INSERT INTO out {tvf} SELECT auction FROM c16"), "");
    // Nine doublings are 512 references.
    let nine = with.split(", c10").next().unwrap();
    assert!(plan(&format!("{BIDS}{OUT}INSERT INTO out {nine} SELECT auction FROM c9")).is_ok());
}

#[test]
fn doubling_projections_stay_linear() {
    let mut views = String::from("CREATE VIEW v0 AS SELECT auction AS a FROM bids;\n");
    for i in 1..=60 {
        let _ = writeln!(views, "CREATE VIEW v{i} AS SELECT a + a AS a FROM v{};", i - 1);
    }
    assert!(plan(&format!("{BIDS}{OUT}{views}INSERT INTO out SELECT a FROM v60")).is_ok());
}

#[test]
fn many_set_operations() {
    let union = vec!["SELECT auction FROM bids"; 3_000].join(" UNION ALL ");
    assert_limit(&format!("{BIDS}{OUT}INSERT INTO out {union}"), "limit is");
    let union = vec!["SELECT auction FROM bids"; 200].join(" UNION ALL ");
    assert!(plan(&format!("{BIDS}{OUT}INSERT INTO out {union}")).is_ok());
}

#[test]
fn long_texts() {
    assert_limit(&" ".repeat(300 * 1024), "bytes");
    assert_limit(&format!("SELECT {}", "a,".repeat(20_000)), "tokens");
    assert_limit(&"SET 'pipeline.name' = 'x';".repeat(300), "200 statements");
    let ctes: Vec<String> = (0..100)
        .map(|i| format!("c{i} AS (SELECT auction FROM bids)"))
        .collect();
    assert_limit(
        &format!(
            "{BIDS}{OUT}INSERT INTO out WITH {} SELECT auction FROM c0",
            ctes.join(", ")
        ),
        "100 WITH queries",
    );
}

#[test]
fn text_bombs_are_not_folded_at_planning() {
    let out = "CREATE TABLE out (a STRING) WITH ('connector' = 'test');\n";
    let insert = |expr: &str| format!("{BIDS}{out}INSERT INTO out SELECT {expr} FROM bids");
    assert!(plan(&insert("repeat('x', 2000000000)")).is_ok());
    assert!(plan(&insert("lpad('x', 2000000000, 'y')")).is_ok());
    let mut nested = String::from("'x'");
    for _ in 0..20 {
        nested = format!("replace({nested}, 'x', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx')");
    }
    assert!(plan(&insert(&nested)).is_ok());
}

#[test]
fn chains_of_joins_as_of_a_time_stay_linear() {
    let rates = "CREATE TABLE rates (id BIGINT, rate DOUBLE, ts TIMESTAMP(3), PRIMARY KEY (id) NOT ENFORCED,
      WATERMARK FOR ts AS ts) WITH ('connector' = 'test');\n";
    let mut from = String::from("bids AS b");
    for i in 0..40 {
        let _ = write!(
            from,
            " JOIN rates FOR SYSTEM_TIME AS OF b.ts AS r{i} ON b.auction = r{i}.id"
        );
    }
    let sql = format!("{BIDS}{OUT}{rates}INSERT INTO out SELECT b.auction FROM {from} WHERE b.price > 1");
    assert!(plan(&sql).is_ok());
}

#[test]
fn chains_of_aggregations_that_read_their_windows_stay_linear() {
    let mut views = String::from("CREATE VIEW v0 AS SELECT auction, ts FROM bids;\n");
    for i in 1..=40 {
        let _ = writeln!(
            views,
            "CREATE VIEW v{i} AS SELECT COUNT(window_start) AS auction, window_time AS ts
             FROM TABLE(HOP(TABLE v{}, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '4' SECOND))
             GROUP BY window_start, window_end, window_time;",
            i - 1
        );
    }
    assert!(plan(&format!("{BIDS}{OUT}{views}INSERT INTO out SELECT auction FROM v40")).is_ok());
}

#[test]
fn joins_inside_of_joins() {
    let list = "CREATE TABLE lists (auction BIGINT, l ARRAY<BIGINT>) WITH ('connector' = 'test');\n";
    let unnests = |count: usize| {
        let elements: Vec<String> = (0..count).map(|i| format!("UNNEST(l) AS e{i} (x{i})")).collect();
        format!(
            "{list}{OUT}INSERT INTO out SELECT auction FROM lists, {}",
            elements.join(", ")
        )
    };
    assert_limit(&unnests(64), "joins 65 tables and the limit is 64");
    assert_limit(&unnests(900), "joins 901 tables and the limit is 64");
    assert!(plan(&unnests(10)).is_ok());
    let side = |name: &str| {
        let joins: Vec<String> = (1..40)
            .map(|i| format!("JOIN bids AS {name}{i} ON {name}0.auction = {name}{i}.auction"))
            .collect();
        format!("(bids AS {name}0 {})", joins.join(" "))
    };
    let from = format!("{} JOIN {} ON a0.auction = b0.auction", side("a"), side("b"));
    assert_limit(
        &format!("{BIDS}{OUT}INSERT INTO out SELECT a0.auction FROM {from}"),
        "joins 80 tables and the limit is 64",
    );
}

#[test]
fn columns_that_are_repeated_over_and_over() {
    let physical: Vec<String> = (0..200).map(|i| format!("p{i} INT")).collect();
    let computed: Vec<String> = (0..200).map(|i| format!("c{i} AS p{i} + 1")).collect();
    let mut sql = format!(
        "CREATE TABLE t0 ({}, {}) WITH ('connector' = 'test');\n",
        physical.join(", "),
        computed.join(", ")
    );
    for i in 1..190 {
        let _ = writeln!(sql, "CREATE TABLE t{i} LIKE t0;");
    }
    assert_limit(&sql, "tables of the text have 10400 columns and the limit is 10000");
    // So does a table that is read with options of its own.
    let mut sql: String = sql.split_inclusive('\n').take(24).collect();
    sql.push_str(OUT);
    sql.push_str("INSERT INTO out SELECT p0 FROM t0 /*+ OPTIONS('path' = 'other') */;");
    assert_limit(&sql, "tables of the text have 10001 columns and the limit is 10000");
}
