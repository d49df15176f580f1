//! Every function, by its value: a table of expressions and what they give.

use super::support::{BIDS, explain, failed, query, refused};

/// Asserts the values of expressions, all in one query over the second bid (1, 11, 200, 'app', 2.25, 0.25, 00:00:01).
fn assert_values(cases: &[(&str, &str, &str)]) {
    let mut wrong = Vec::new();
    for (sql_type, expr, expected) in cases {
        let found = query(
            &format!("v {sql_type}"),
            &format!("SELECT {expr} FROM bids WHERE bidder = 11"),
        );
        if found != [*expected] {
            wrong.push(format!("{expr}: expected {expected}, found {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn text_functions() {
    assert_values(
        &[
            ("STRING", "LEFT(channel, 2)", "ap"),
            ("STRING", "LEFT(channel, -1)", ""),
            ("STRING", "RIGHT('größe', 3)", "öße"),
            ("STRING", "RIGHT(channel, -1)", ""),
            ("STRING", "SUBSTRING('hellö wörld', 5, 3)", "ö w"),
            ("STRING", "SUBSTR('hello', -3)", "llo"),
            ("STRING", "SUBSTR('hello', -3, 2)", "ll"),
            ("STRING", "SUBSTR('hello', 0, 2)", "he"),
            ("STRING", "SUBSTR('hello', -9)", ""),
            ("STRING", "SUBSTR('hello', 9)", ""),
            ("STRING", "SUBSTR('hello', 2, -1)", "NULL"),
            ("STRING", "SUBSTRING(channel FROM 2 FOR 1)", "p"),
            ("INT", "LOCATE('p', channel)", "2"),
            ("INT", "LOCATE('p', channel, 3)", "3"),
            ("INT", "LOCATE('x', channel)", "0"),
            ("INT", "INSTR(channel, 'p')", "2"),
            ("INT", "POSITION('p' IN channel)", "2"),
            ("STRING", "SPLIT_INDEX('a,b,c', ',', 1)", "b"),
            ("STRING", "SPLIT_INDEX('a,b,c', ',', 3)", "NULL"),
            ("STRING", "SPLIT_INDEX('a,b,c', ',', -1)", "NULL"),
            ("STRING", "SPLIT_PART('a,b,c', ',', 1)", "a"),
            ("BOOLEAN", "STARTSWITH(channel, 'ap')", "true"),
            ("BOOLEAN", "ENDSWITH(channel, 'ap')", "false"),
            ("BOOLEAN", "STARTS_WITH(channel, 'ap')", "true"),
            ("BOOLEAN", "ENDS_WITH(channel, 'pp')", "true"),
            ("BOOLEAN", "CONTAINS(channel, 'x')", "false"),
            ("BOOLEAN", "IS_ALPHA(channel)", "true"),
            ("BOOLEAN", "IS_ALPHA('a1')", "false"),
            ("BOOLEAN", "IS_ALPHA(CAST(NULL AS STRING))", "false"),
            ("BOOLEAN", "IS_DIGIT('12')", "true"),
            ("BOOLEAN", "IS_DIGIT('1.2')", "false"),
            ("BOOLEAN", "IS_DECIMAL('-1.2e3')", "true"),
            ("BOOLEAN", "IS_DECIMAL('1x')", "false"),
            ("STRING", "ELT(2, 'a', channel, 'c')", "app"),
            ("STRING", "ELT(4, 'a', channel, 'c')", "NULL"),
            ("BOOLEAN", "REGEXP(channel, '^a.p$')", "true"),
            ("BOOLEAN", "REGEXP_LIKE(channel, 'x')", "false"),
            ("STRING", "REGEXP_SUBSTR('foobar', 'o+b')", "oob"),
            ("STRING", "REGEXP_SUBSTR('foobar', 'x')", "NULL"),
            (
                "STRING",
                "ARRAY_JOIN(REGEXP_EXTRACT_ALL('a1b22', '([a-z])([0-9]+)', 2), '-')",
                "1-22",
            ),
            ("BIGINT", "REGEXP_COUNT('a1b22', '[0-9]')", "3"),
            ("BIGINT", "REGEXP_INSTR('a1b22', '[0-9]')", "2"),
            ("STRING", "REGEXP_REPLACE('a1b22', '[0-9]+', '')", "ab"),
            ("STRING", "REGEXP_EXTRACT('a1b22', '[0-9]+$')", "22"),
            (
                "STRING",
                "PARSE_URL('http://u:p@facebook.com:80/path/p1.php?query=1&b=2#frag', 'HOST')",
                "facebook.com",
            ),
            (
                "STRING",
                "PARSE_URL('http://facebook.com/path/p1.php?query=1&b=2', 'QUERY', 'b')",
                "2",
            ),
            (
                "STRING",
                "PARSE_URL('http://facebook.com/path/p1.php?query=1', 'FILE')",
                "/path/p1.php?query=1",
            ),
            (
                "STRING",
                "PARSE_URL('http://u:p@facebook.com:80/x#frag', 'REF')",
                "frag",
            ),
            (
                "STRING",
                "PARSE_URL('http://u:p@facebook.com:80/x#frag', 'USERINFO')",
                "u:p",
            ),
            (
                "STRING",
                "PARSE_URL('http://u:p@facebook.com:80/x#frag', 'AUTHORITY')",
                "u:p@facebook.com:80",
            ),
            ("STRING", "PARSE_URL('http://facebook.com/x', 'PROTOCOL')", "http"),
            ("STRING", "PARSE_URL('http://facebook.com/x?a=1', 'PATH')", "/x"),
            ("STRING", "PARSE_URL('no url', 'HOST')", "NULL"),
            ("STRING", "INITCAP('hello wORLD')", "Hello World"),
            ("STRING", "REVERSE(channel)", "ppa"),
            ("STRING", "REPEAT(channel, 2)", "appapp"),
            ("STRING", "OVERLAY('xxxxxtest' PLACING 'xxxx' FROM 6)", "xxxxxxxxx"),
            ("STRING", "TRANSLATE('hello', 'lo', 'x')", "hexx"),
            ("STRING", "CONCAT_WS('~', 'AA', CAST(NULL AS STRING), 'BB')", "AA~BB"),
            ("STRING", "RPAD('hi', 4, '??')", "hi??"),
            ("STRING", "LTRIM('  x ')", "x "),
            ("STRING", "RTRIM(' x  ')", " x"),
            ("STRING", "BTRIM('xax', 'x')", "a"),
            ("INT", "ASCII('abc')", "97"),
            ("STRING", "CHR(97)", "a"),
            ("STRING", "LOWER('ABC')", "abc"),
            ("INT", "FIND_IN_SET('b', 'a,b')", "2"),
            ("STRING", "SUBSTRING_INDEX('a.b.c', '.', 2)", "a.b"),
            ("BIGINT", "LEVENSHTEIN('kitten', 'sitting')", "3"),
        ][..66],
    );
}

#[test]
fn encodings_and_hashes() {
    assert_values(&[
        ("STRING", "TO_BASE64('hello world')", "aGVsbG8gd29ybGQ="),
        ("STRING", "FROM_BASE64('aGVsbG8gd29ybGQ=')", "hello world"),
        ("STRING", "FROM_BASE64('###')", "NULL"),
        ("STRING", "HEX(20)", "14"),
        ("STRING", "HEX('hello,world')", "68656C6C6F2C776F726C64"),
        ("STRING", "DECODE(UNHEX('466C696E6B'), 'UTF-8')", "Flink"),
        ("STRING", "BIN(12)", "1100"),
        ("STRING", "TO_HEX(255)", "ff"),
        ("STRING", "URL_ENCODE('a b&c')", "a+b%26c"),
        ("STRING", "URL_DECODE('a+b%26c')", "a b&c"),
        ("STRING", "URL_DECODE('%zz')", "NULL"),
        ("STRING", "MD5('abc')", "900150983cd24fb0d6963f7d28e17f72"),
        ("STRING", "SHA1('abc')", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (
            "STRING",
            "SHA224('abc')",
            "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7",
        ),
        (
            "STRING",
            "SHA256('abc')",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        ("STRING", "LEFT(SHA384('abc'), 16)", "cb00753f45a35e8b"),
        ("STRING", "LEFT(SHA512('abc'), 16)", "ddaf35a193617aba"),
        (
            "STRING",
            "SHA2('abc', 256)",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        ("STRING", "DECODE(ENCODE('größe', 'UTF-16LE'), 'UTF-16LE')", "größe"),
        ("STRING", "HEX(ENCODE('é', 'ISO-8859-1'))", "E9"),
        ("STRING", "ENCODE('abc', 'hex')", "616263"),
    ]);
}

#[test]
fn number_functions() {
    assert_values(&[
        ("INT", "SIGN(-price)", "-1"),
        ("DECIMAL(10, 2)", "SIGN(fee)", "1.00"),
        ("STRING", "TYPEOF(fee)", "DECIMAL(10, 2)"),
        ("STRING", "TYPEOF(ARRAY[1])", "ARRAY<INT>"),
        ("DOUBLE", "POWER(2, 10)", "1024.0"),
        ("INT", "MOD(price, 7)", "4"),
        ("DOUBLE", "LOG(E())", "1.0"),
        ("DOUBLE", "LOG(2, 8)", "3.0"),
        ("DOUBLE", "LN(1)", "0.0"),
        ("DOUBLE", "LOG10(100)", "2.0"),
        ("DOUBLE", "LOG2(8)", "3.0"),
        ("DOUBLE", "TRUNCATE(4.567e0, 2)", "4.56"),
        ("DOUBLE", "CEILING(rate)", "1.0"),
        ("DOUBLE", "CEIL(rate)", "1.0"),
        ("DOUBLE", "FLOOR(rate)", "0.0"),
        ("DOUBLE", "ROUND(4.567e0, 1)", "4.6"),
        ("INT", "ABS(-price)", "200"),
        ("DOUBLE", "SQRT(16)", "4.0"),
        ("DOUBLE", "EXP(0)", "1.0"),
        ("DOUBLE", "ROUND(DEGREES(PI()), 0)", "180.0"),
        ("BOOLEAN", "RAND_INTEGER(3) BETWEEN 0 AND 2", "true"),
        ("INT", "IFNULL(CAST(NULL AS INT), 5)", "5"),
        ("INT", "LEAST(price, 3)", "3"),
    ]);
}

#[test]
fn time_functions() {
    assert_values(
        &[
            ("STRING", "DATE_FORMAT(ts, 'yyyy/MM/dd HH:mm')", "2026/01/01 00:00"),
            ("STRING", "DATE_FORMAT('2026-02-03 04:05:06', 'EEE d MMM')", "Tue 3 Feb"),
            ("STRING", "FROM_UNIXTIME(44)", "1970-01-01 00:00:44"),
            ("STRING", "FROM_UNIXTIME(86400, 'yyyyMMdd')", "19700102"),
            ("BIGINT", "UNIX_TIMESTAMP('1970-01-02 00:00:01')", "86401"),
            ("BIGINT", "UNIX_TIMESTAMP('02.01.1970', 'dd.MM.yyyy')", "86400"),
            ("BIGINT", "UNIX_TIMESTAMP()", "1767225600"),
            ("DATE", "TO_DATE('2026-02-03')", "2026-02-03"),
            ("DATE", "TO_DATE('03.02.2026', 'dd.MM.yyyy')", "2026-02-03"),
            ("DATE", "TO_DATE('2026-02-30')", "NULL"),
            (
                "TIMESTAMP(3)",
                "TO_TIMESTAMP('03.02.2026 04:05', 'dd.MM.yyyy HH:mm')",
                "2026-02-03T04:05:00",
            ),
            ("TIMESTAMP(3)", "TO_TIMESTAMP('x', 'dd.MM.yyyy HH:mm')", "NULL"),
            ("TIMESTAMP(3)", "TIMESTAMPADD(DAY, 2, ts)", "2026-01-03T00:00:01"),
            ("DATE", "TIMESTAMPADD(MONTH, 1, DATE '2026-01-31')", "2026-02-28"),
            (
                "INT",
                "TIMESTAMPDIFF(DAY, TIMESTAMP '2003-01-02 10:00:00', TIMESTAMP '2003-01-03 10:00:00')",
                "1",
            ),
            (
                "INT",
                "TIMESTAMPDIFF(MONTH, DATE '2026-03-31', DATE '2026-02-28')",
                "-1",
            ),
            ("INT", "TIMESTAMPDIFF(SECOND, ts, ts - INTERVAL '1' MINUTE)", "-60"),
            (
                "TIMESTAMP(3)",
                "FLOOR(TIMESTAMP '2026-02-03 04:45:06' TO HOUR)",
                "2026-02-03T04:00:00",
            ),
            (
                "TIMESTAMP(3)",
                "CEIL(TIMESTAMP '2026-02-03 04:45:06' TO MONTH)",
                "2026-03-01T00:00:00",
            ),
            ("DATE", "FLOOR(DATE '2026-02-03' TO WEEK)", "2026-02-01"),
            ("TIMESTAMP(3)", "CEIL(ts TO DAY)", "2026-01-02T00:00:00"),
            ("BIGINT", "DAYOFWEEK(DATE '1994-09-27')", "3"),
            ("INT", "QUARTER(DATE '1994-09-27')", "3"),
            (
                "INT",
                "MONTH(ts) + DAYOFMONTH(ts) + DAYOFYEAR(ts) + HOUR(ts) + MINUTE(ts) + YEAR(ts)",
                "2029",
            ),
            ("INT", "WEEK(DATE '1994-09-27')", "39"),
            (
                "STRING",
                "CONVERT_TZ('1970-01-01 00:00:00', 'UTC', 'America/Los_Angeles')",
                "1969-12-31 16:00:00",
            ),
            (
                "STRING",
                "CONVERT_TZ('2026-07-01 12:00:00', 'Europe/Berlin', 'GMT')",
                "2026-07-01 10:00:00",
            ),
            ("STRING", "CONVERT_TZ('x', 'UTC', 'UTC')", "NULL"),
            ("STRING", "TO_CHAR(ts, '%Y')", "2026"),
        ]
        .map(|(sql_type, expr, value)| match sql_type {
            "TIMESTAMP(3)" => ("TIMESTAMP(9)", expr, value),
            other => (other, expr, value),
        }),
    );
}

#[test]
fn json_functions() {
    let json = r#"'{"a": {"b": [1, 2.5, "x"]}, "t": true, "n": null}'"#;
    let call = |expr: &str| expr.replace("JSON", json).replace("J_", "JSON_");
    let cases = [
        ("STRING", "J_VALUE(JSON, '$.a.b[2]')", "x"),
        ("STRING", "J_VALUE(JSON, '$.t')", "true"),
        ("STRING", "J_VALUE(JSON, '$.n')", "NULL"),
        ("STRING", "J_VALUE(JSON, '$.a')", "NULL"),
        ("DOUBLE", "J_VALUE(JSON, '$.a.b[1]' RETURNING DOUBLE)", "2.5"),
        ("STRING", "J_QUERY(JSON, 'lax $.a')", r#"{"b":[1,2.5,"x"]}"#),
        ("STRING", "J_QUERY(JSON, '$.a.b[*]')", r#"[1,2.5,"x"]"#),
        ("STRING", "J_QUERY(JSON, '$.t')", "NULL"),
        ("BOOLEAN", "J_EXISTS(JSON, '$.a[''b''][0]')", "true"),
        ("BOOLEAN", "J_EXISTS(JSON, '$.x')", "false"),
        ("BOOLEAN", "J_EXISTS('no', '$')", "false"),
        ("STRING", "J_STRING(price)", "200"),
        ("STRING", "J_STRING('a\"b')", r#""a\"b""#),
        ("STRING", "J_QUOTE(channel)", r#""app""#),
        ("STRING", "J_UNQUOTE('\"a\"')", "a"),
        (
            "STRING",
            "J_ARRAY(price, channel, CAST(NULL AS INT), TRUE)",
            r#"[200,"app",true]"#,
        ),
    ];
    for (sql_type, expr, value) in cases {
        assert_values(&[(sql_type, &call(expr), value)]);
    }
    assert_values(&[
        ("BOOLEAN", "'{}' IS JSON", "true"),
        ("BOOLEAN", "'[1]' IS JSON OBJECT", "false"),
        ("BOOLEAN", "'[1]' IS JSON ARRAY AND '1' IS JSON SCALAR", "true"),
        ("BOOLEAN", "channel IS NOT JSON", "true"),
        ("BOOLEAN", "channel IS NOT NULL", "true"),
    ]);
}

#[test]
fn clauses_of_json_functions() {
    assert_values(&[
        ("STRING", "JSON_OBJECT()", "{}"),
        ("STRING", "json_object('a' value `Json_Array`(1))", r#"{"a":[1]}"#),
        (
            "STRING",
            "JSON_OBJECT(KEY 'k' VALUE channel, 'a' VALUE price, KEY 'n' VALUE CAST(NULL AS INT))",
            r#"{"a":200,"k":"app","n":null}"#,
        ),
        (
            "STRING",
            "JSON_OBJECT('k' VALUE CAST(NULL AS INT) ABSENT ON NULL)",
            "{}",
        ),
        (
            "STRING",
            "JSON_OBJECT('o' VALUE JSON_OBJECT('x' VALUE rate), 'l' VALUE (JSON_ARRAY(1, 'b')), 't' VALUE '[1]')",
            r#"{"l":[1,"b"],"o":{"x":0.25},"t":"[1]"}"#,
        ),
        (
            "STRING",
            "JSON_OBJECT('r' VALUE JSON(' {\"b\": 1} '), 'e' VALUE JSON(''))",
            r#"{"e":null,"r":{"b": 1}}"#,
        ),
        (
            "STRING",
            "JSON_OBJECT('l' VALUE ARRAY[1, 2], 'm' VALUE MAP['z', 1.5, 'a', 2.5], 'd' VALUE fee)",
            r#"{"d":2.25,"l":[1,2],"m":{"a":2.5,"z":1.5}}"#,
        ),
        ("STRING", "JSON_ARRAY()", "[]"),
        ("STRING", "JSON_ARRAY(1, CAST(NULL AS INT), channel)", r#"[1,"app"]"#),
        ("STRING", "JSON_ARRAY(1, CAST(NULL AS INT) NULL ON NULL)", "[1,null]"),
        (
            "STRING",
            "JSON_ARRAY(JSON_ARRAY(1), JSON_STRING('a'))",
            r#"[[1],"\"a\""]"#,
        ),
        ("STRING", "JSON_STRING(ARRAY['a'])", r#"["a"]"#),
        ("STRING", "JSON_STRING(ENCODE('a', 'UTF-8'))", r#""YQ==""#),
        // What Flink's documentation gives as examples.
        ("STRING", "JSON_VALUE('{\"a\": true}', '$.a')", "true"),
        (
            "BOOLEAN",
            "JSON_VALUE('{\"a\": true}', '$.a' RETURNING BOOLEAN)",
            "true",
        ),
        (
            "BOOLEAN",
            "JSON_VALUE('{\"a\": true}', 'lax $.b' RETURNING BOOLEAN DEFAULT FALSE ON EMPTY)",
            "false",
        ),
        (
            "BOOLEAN",
            "JSON_VALUE('{\"a\": true}', 'strict $.b' RETURNING BOOLEAN DEFAULT FALSE ON ERROR)",
            "false",
        ),
        (
            "DOUBLE",
            "JSON_VALUE('{\"a.b\": [0.998,0.996]}', '$.[\"a.b\"][0]' RETURNING DOUBLE)",
            "0.998",
        ),
        ("STRING", "JSON_VALUE('{}', 'strict $.b' DEFAULT 'e' ON EMPTY)", "NULL"),
        (
            "STRING",
            "JSON_VALUE('{\"a\": [1]}', '$.a' DEFAULT channel ON EMPTY)",
            "app",
        ),
        (
            "STRING",
            "JSON_VALUE('no', '$' DEFAULT 'e' ON EMPTY DEFAULT 'x' ON ERROR)",
            "x",
        ),
        (
            "INT",
            "JSON_VALUE('{\"a\": \"x\"}', '$.a' RETURNING INT DEFAULT -1 ON ERROR)",
            "-1",
        ),
        ("INT", "JSON_VALUE('{\"a\": \"x\"}', '$.a' RETURNING INT)", "NULL"),
        (
            "INT",
            "JSON_VALUE(CAST(NULL AS STRING), '$.a' RETURNING INT DEFAULT 1 ON ERROR)",
            "NULL",
        ),
        (
            "BOOLEAN",
            "JSON_EXISTS('{\"a\": true}', 'strict $.b' TRUE ON ERROR)",
            "true",
        ),
        (
            "BOOLEAN",
            "JSON_EXISTS('{\"a\": true}', 'strict $.b' FALSE ON ERROR)",
            "false",
        ),
        ("BOOLEAN", "JSON_EXISTS('no', '$.b' UNKNOWN ON ERROR)", "NULL"),
        ("STRING", "JSON_QUERY('[1, 2]', '$')", "[1,2]"),
        ("STRING", "JSON_QUERY(CAST(NULL AS STRING), '$')", "NULL"),
        (
            "STRING",
            "JSON_QUERY('{\"a\":[{\"c\":\"c1\"},{\"c\":\"c2\"}]}', 'lax $.a[*].c')",
            r#"["c1","c2"]"#,
        ),
        ("STRING", "JSON_QUERY('{}', '$' WITH CONDITIONAL ARRAY WRAPPER)", "[{}]"),
        ("STRING", "JSON_QUERY('[1, 2]', '$' WITH CONDITIONAL WRAPPER)", "[1,2]"),
        (
            "STRING",
            "JSON_QUERY('[1, 2]', '$' WITH UNCONDITIONAL ARRAY WRAPPER)",
            "[[1,2]]",
        ),
        ("STRING", "JSON_QUERY('1', '$')", "NULL"),
        ("STRING", "JSON_QUERY('1', '$' WITH CONDITIONAL ARRAY WRAPPER)", "[1]"),
        (
            "STRING",
            "JSON_QUERY('{}', 'lax $.invalid' EMPTY OBJECT ON EMPTY)",
            "{}",
        ),
        (
            "STRING",
            "JSON_QUERY('{}', 'strict $.invalid' EMPTY ARRAY ON ERROR)",
            "[]",
        ),
        (
            "STRING",
            "JSON_QUERY('{}', '$' RETURNING ARRAY<STRING> NULL ON ERROR)[1]",
            "NULL",
        ),
        (
            "STRING",
            "ARRAY_JOIN(JSON_QUERY('{\"l\": [\"a\", 2, {}]}', '$.l' RETURNING ARRAY<STRING>), '-')",
            "a-2-{}",
        ),
    ]);
}

#[test]
fn errors_of_values_fail_the_job() {
    for (expr, words) in [
        ("JSON_VALUE('{}', '$.a' ERROR ON EMPTY)", "there is nothing at the path"),
        ("JSON_VALUE('no', '$.a' ERROR ON ERROR)", "JSON_VALUE of the path '$.a'"),
        (
            "JSON_VALUE('[\"x\"]', '$[0]' RETURNING INT ERROR ON ERROR)",
            "not of the type behind RETURNING",
        ),
        (
            "JSON_QUERY('1', 'strict $' ERROR ON ERROR)",
            "neither an object nor an array",
        ),
        ("JSON_EXISTS('no', '$' ERROR ON ERROR)", "the text is no JSON"),
        (
            "ARRAY_REPEAT(price, 2000000000)",
            "could make an array of 16000000000 bytes",
        ),
        (
            "ARRAY_RESIZE(ARRAY[price], 2000000000)[1]",
            "could make an array of 16000000000 bytes",
        ),
        (
            "ARRAY_REPEAT(ARRAY_REPEAT(price, 2000), 1000000)",
            "array_repeat could make an array of",
        ),
        (
            "ARRAY_RESIZE(ARRAY[channel], 2000000, REPEAT('x', 2000))",
            "array_resize could make an array of",
        ),
        (
            "ARRAY_REPLACE_ALL(ARRAY_REPEAT('a', 100000), 'a', REPEAT(channel, 2000))",
            "array_replace_all could make an array of",
        ),
        ("JSON_OBJECT('a' VALUE JSON('no'))", "a text that is no JSON"),
        (
            "JSON_OBJECT(NULLIF(channel, 'app') VALUE 1)",
            "a key of JSON_OBJECT is null",
        ),
        ("JSON_OBJECTAGG(KEY channel VALUE 1)", "a key of JSON_OBJECTAGG is null"),
        ("JSON_OBJECTAGG('a' VALUE price)", "the key \"a\" more than once"),
    ] {
        let expr = match expr.starts_with("ARRAY") {
            true => format!("JSON_STRING({expr})"),
            false => format!("CAST({expr} AS STRING)"),
        };
        let error = failed("v STRING", &format!("SELECT {expr} AS v FROM bids"));
        assert!(error.contains(words), "{expr}: {error}");
    }
}

#[test]
fn clauses_of_json_functions_are_written_out_as_they_were_read() {
    let select = "SELECT JSON_OBJECT(KEY 'a' VALUE JSON_ARRAY(1 NULL ON NULL) ABSENT ON NULL) AS o, \
         JSON_VALUE(channel, '$.a' RETURNING INT DEFAULT price + 1 ON EMPTY ERROR ON ERROR) AS v, \
         JSON_QUERY(channel, '$.a' WITH CONDITIONAL ARRAY WRAPPER EMPTY OBJECT ON ERROR) AS q, \
         JSON_EXISTS(channel, '$.a' UNKNOWN ON ERROR) AS e FROM bids";
    let shown = |select: &str| {
        let text = explain(&format!("{BIDS}CREATE VIEW v AS {select};\nSHOW CREATE VIEW v"));
        let (_, query) = text.split_once(" AS SELECT").unwrap();
        format!("SELECT{}", query.trim_end())
    };
    let once = shown(select);
    assert!(once.contains("DEFAULT price + 1 ON EMPTY"), "{once}");
    assert_eq!(shown(&once), once);
}

#[test]
fn functions_of_arrays_and_maps() {
    assert_values(&[
        ("INT", "ARRAY[1, 2][2]", "2"),
        ("INT", "ARRAY[1, 2][3]", "NULL"),
        ("INT", "MAP['a', 1, 'b', 2]['b']", "2"),
        ("INT", "MAP['a', 1]['x']", "NULL"),
        ("INT", "CARDINALITY(ARRAY[1, 2])", "2"),
        ("INT", "CARDINALITY(MAP['a', 1])", "1"),
        ("INT", "ELEMENT(ARRAY[7])", "7"),
        ("BOOLEAN", "ARRAY_CONTAINS(ARRAY[1, 2], 2)", "true"),
        ("INT", "ARRAY_POSITION(ARRAY[5, 6], 6)", "2"),
        ("INT", "ARRAY_POSITION(ARRAY[5, 6], 7)", "0"),
        ("STRING", "ARRAY_JOIN(ARRAY['a', 'b'], '-')", "a-b"),
        ("STRING", "ARRAY_JOIN(ARRAY_APPEND(ARRAY[1, 2], 3), ',')", "1,2,3"),
        ("STRING", "ARRAY_JOIN(ARRAY_PREPEND(0, ARRAY[1, 2]), ',')", "0,1,2"),
        ("STRING", "ARRAY_JOIN(ARRAY_CONCAT(ARRAY[1], ARRAY[2]), ',')", "1,2"),
        ("STRING", "ARRAY_JOIN(ARRAY_DISTINCT(ARRAY[1, 1]), ',')", "1"),
        ("STRING", "ARRAY_JOIN(ARRAY_EXCEPT(ARRAY[1, 2], ARRAY[1]), ',')", "2"),
        ("STRING", "ARRAY_JOIN(ARRAY_INTERSECT(ARRAY[1, 2], ARRAY[1]), ',')", "1"),
        (
            "STRING",
            "ARRAY_JOIN(ARRAY_SORT(ARRAY_UNION(ARRAY[2], ARRAY[1])), ',')",
            "1,2",
        ),
        ("INT", "ARRAY_MAX(ARRAY[1, 3, 2])", "3"),
        ("INT", "ARRAY_MIN(ARRAY[1, 3, 2])", "1"),
        ("STRING", "ARRAY_JOIN(ARRAY_REMOVE(ARRAY[1, 2, 1], 1), ',')", "2"),
        ("STRING", "ARRAY_JOIN(ARRAY_REVERSE(ARRAY[1, 2]), ',')", "2,1"),
        ("STRING", "ARRAY_JOIN(ARRAY_SLICE(ARRAY[1, 2, 3], 2, 3), ',')", "2,3"),
        ("STRING", "ARRAY_JOIN(MAP_KEYS(MAP['a', 1]), ',')", "a"),
        ("STRING", "ARRAY_JOIN(MAP_VALUES(MAP['a', 1]), ',')", "1"),
        ("INT", "MAP_FROM_ARRAYS(ARRAY['x', 'y'], ARRAY[1, 2])['y']", "2"),
        ("STRING", "SPLIT('a-b', '-')[2]", "b"),
        ("STRING", "STR_TO_MAP('a=1,b=2')['b']", "2"),
        ("STRING", "STR_TO_MAP('a:1;a:3', ';', ':')['a']", "3"),
        ("INT", "CARDINALITY(MAP_ENTRIES(MAP['a', 1]))", "1"),
    ]);
    let array = |expr: &str| format!("JSON_STRING({expr})");
    for (expr, value) in [
        ("ARRAY_ADD(ARRAY[1.5, 2.0], ARRAY[1.0, 1.0])", "[2.5,3.0]"),
        ("ARRAY_COMPACT(ARRAY[1, CAST(NULL AS INT), 2])", "[1,2]"),
        ("ARRAY_POP_BACK(ARRAY[1, 2])", "[1]"),
        ("ARRAY_POP_FRONT(ARRAY[1, 2])", "[2]"),
        ("ARRAY_POSITIONS(ARRAY[5, 6, 5], 5)", "[1,3]"),
        ("ARRAY_DIMS(ARRAY[1, 2])", "[2]"),
        ("ARRAY_REMOVE_N(ARRAY[1, 2, 1, 1], 1, 2)", "[2,1]"),
        ("ARRAY_REPLACE(ARRAY[1, 2, 1], 1, 7)", "[7,2,1]"),
        ("ARRAY_REPLACE_ALL(ARRAY[1, 2, 1], 1, 7)", "[7,2,7]"),
        ("ARRAY_REPLACE_N(ARRAY[1, 1, 1], 1, 7, 2)", "[7,7,1]"),
        ("ARRAY_REPEAT(7, 2)", "[7,7]"),
        ("ARRAY_RESIZE(ARRAY[1], 3, 0)", "[1,0,0]"),
        ("ARRAY_SCALE(ARRAY[1.0, 2.0], 2.0)", "[2.0,4.0]"),
        ("ARRAY_SUBTRACT(ARRAY[1.0], ARRAY[0.5])", "[0.5]"),
        ("ARRAY_NORMALIZE(ARRAY[3.0, 4.0])", "[0.6,0.8]"),
        ("MAP_EXTRACT(MAP['a', 1], 'a')", "[1]"),
        ("STRING_TO_ARRAY('a,b', ',')", r#"["a","b"]"#),
        ("REGEXP_MATCH('a12', '([a-z])([0-9]+)')", r#"["a","12"]"#),
    ] {
        assert_values(&[("STRING", &array(expr), value)]);
    }
    assert_values(&[
        ("INT", "ARRAY_ANY_VALUE(ARRAY[CAST(NULL AS INT), 4])", "4"),
        ("BIGINT", "ARRAY_LENGTH(ARRAY[1, 2])", "2"),
        ("BIGINT", "ARRAY_NDIMS(ARRAY[1, 2])", "1"),
        ("BOOLEAN", "EMPTY(ARRAY[1, 2])", "false"),
        ("INT", "CARDINALITY(ARRAYS_ZIP(ARRAY[1, 2], ARRAY[3, 4]))", "2"),
        ("DOUBLE", "CAST(ARRAY_SUM(ARRAY[1.0, 2.0]) AS DOUBLE)", "3.0"),
        ("DOUBLE", "CAST(ARRAY_AVG(ARRAY[1.0, 2.0]) AS DOUBLE)", "1.5"),
        ("DOUBLE", "CAST(ARRAY_PRODUCT(ARRAY[3.0, 2.0]) AS DOUBLE)", "6.0"),
        ("DOUBLE", "ARRAY_DISTANCE(ARRAY[0.0, 0.0], ARRAY[3.0, 4.0])", "5.0"),
        ("DOUBLE", "COSINE_DISTANCE(ARRAY[1.0, 0.0], ARRAY[0.0, 1.0])", "1.0"),
        ("DOUBLE", "INNER_PRODUCT(ARRAY[1.0, 2.0], ARRAY[3.0, 4.0])", "11.0"),
        ("BIGINT", "TO_UNIXTIME(ts)", "1767225601"),
        (
            "TIMESTAMP(9)",
            "TO_LOCAL_TIME(TO_TIMESTAMP_LTZ(0, 0))",
            "1970-01-01T00:00:00",
        ),
    ]);
}

#[test]
fn functions_work_on_columns_as_on_literals() {
    let rows = query(
        "a STRING, b INT, c STRING, d STRING, e STRING",
        "SELECT SUBSTRING(channel, 2), LOCATE('p', channel), DATE_FORMAT(ts, 'ss'), ARRAY[channel, 'x'][price / 100], \
         MAP['web', 'w', 'app', 'a'][channel] FROM bids WHERE price >= 100",
    );
    assert_eq!(rows, ["eb|0|00|web|w", "pp|2|01|x|a", "eb|0|07|NULL|w"]);
}

#[test]
fn wrong_arguments_are_the_writers_mistake() {
    let refusal = |expr: &str| {
        refused(&format!(
            "{BIDS}CREATE TABLE out (v STRING) WITH ('connector' = 'test');\nINSERT INTO out SELECT {expr} FROM bids"
        ))
    };
    for (expr, words) in [
        ("DATE_FORMAT(price, 'yyyy')", "must be TIMESTAMP or DATE, not INT"),
        ("LOCATE('a')", "takes 2 to 3 arguments, not 1"),
        ("ELT(1)", "takes 2 or more arguments"),
        ("SHA256(price)", "must be STRING or BYTES"),
        ("price[1]", "an index stands behind an ARRAY or a MAP"),
        ("ARRAY[]", "no type"),
        ("MAP['a']", "keys and values"),
        ("COLLECT(ARRAY[1])", "collect cannot hold values"),
        ("BIT_AND(channel)", "BIT_AND does not take (STRING)"),
        (
            "PERCENTILE(price, 2)",
            "argument 2 of PERCENTILE is a literal number from 0 to 1",
        ),
        ("PERCENTILE(price)", "PERCENTILE takes a number and a share"),
        ("MEDIAN(channel)", "median is of numbers"),
        (
            "PERCENTILE(price, rate)",
            "argument 2 of PERCENTILE is a literal number",
        ),
        ("CORR(price)", "CORR does not take (INT)"),
        ("MEDIAN(DISTINCT price)", "median(DISTINCT ...) is not supported yet"),
        ("JSON('{}')", "stands only inside JSON_OBJECT"),
        ("JSON_OBJECT(KEY 'a')", "expected VALUE"),
        ("JSON_OBJECT('a', 1)", "expected VALUE"),
        (
            "JSON_VALUE('{}', '$' EMPTY ARRAY ON EMPTY)",
            "JSON_VALUE takes RETURNING",
        ),
        (
            "JSON_VALUE('{}', '$' NULL ON EMPTY ERROR ON EMPTY)",
            "ON EMPTY stands here twice",
        ),
        ("JSON_QUERY('{}', '$' DEFAULT 1 ON EMPTY)", "JSON_QUERY takes RETURNING"),
        (
            "JSON_QUERY('{}', '$' RETURNING INT)",
            "JSON_QUERY gives STRING or ARRAY<STRING>, not INT",
        ),
        (
            "JSON_VALUE('{}', '$' RETURNING ARRAY<STRING>)",
            "JSON_VALUE gives a single value",
        ),
        ("JSON_EXISTS('{}', '$' NULL ON ERROR)", "JSON_EXISTS takes"),
        (
            "JSON_ARRAYAGG(price) OVER (ORDER BY ts)",
            "JSON_ARRAYAGG with OVER is not supported",
        ),
        (
            "GROUPING(price) OVER (ORDER BY ts)",
            "GROUPING ... OVER is not supported",
        ),
        (
            "COLLECT(price) OVER (ORDER BY ts)",
            "COLLECT with OVER is not supported yet",
        ),
        (
            "LISTAGG(channel, CAST(price AS STRING))",
            "separator of LISTAGG is a text literal",
        ),
        ("LISTAGG(price)", "listagg joins texts"),
        (
            "LISTAGG(DISTINCT channel)",
            "listagg(DISTINCT ...) is not supported yet",
        ),
        (
            "FIRST_VALUE(DISTINCT channel)",
            "first_value(DISTINCT ...) is not supported yet",
        ),
        ("SUM(DISTINCT channel)", "sum needs a number"),
        ("ARRAY_AGG(price) IGNORE NULLS", "IGNORE NULLS"),
        ("RAND_INTEGER(1, 2)", "seed is not supported"),
    ] {
        let error = refusal(expr);
        assert!(error.message.contains(words), "{expr}: {error}");
        assert!(error.position.is_some(), "{expr}: {error}");
    }
}
