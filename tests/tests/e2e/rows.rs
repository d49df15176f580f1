//! Columns of the type `ROW` in files: JSON objects in and out, Parquet written and read again by some of its fields.

use std::path::Path;
use std::process::{Command, Stdio};
use tidemill_tests::binary;

fn run(directory: &Path, name: &str, sql: &str) -> (Option<i32>, String) {
    let file = directory.join(format!("{name}.sql"));
    std::fs::write(&file, sql.replace("$DIR", &directory.display().to_string())).unwrap();
    let output = Command::new(binary())
        .arg("run")
        .arg(&file)
        .arg("--data-dir")
        .arg(directory.join("data"))
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .expect("the command runs");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn lines(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        if !entry.file_name().to_string_lossy().starts_with('.') {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            lines.extend(text.lines().map(str::to_owned));
        }
    }
    lines.sort();
    lines
}

#[test]
fn rows_are_read_and_written_as_json_and_parquet() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::fs::create_dir(path.join("in")).unwrap();
    let orders = r#"{"id":1,"buyer":{"name":"Ada","home":{"city":"Boise","zip":83702},"likes":["tea"]},"sum":2.5}
{"id":2,"buyer":{"name":"Bo","home":null},"sum":1}
{"id":3,"sum":7}
{"id":4,"buyer":{"home":{"zip":1}}}
"#;
    std::fs::write(path.join("in/orders.json"), orders).unwrap();
    let tables = |columns: &str| {
        format!(
            "CREATE TABLE orders (id BIGINT, buyer ROW<name STRING, home ROW<city STRING, zip INT>>, sum DOUBLE)
             WITH ('connector' = 'filesystem', 'path' = '$DIR/in', 'format' = 'json');
             CREATE TABLE kept (id BIGINT, buyer ROW<name STRING, home ROW<city STRING, zip INT>>)
             WITH ('connector' = 'filesystem', 'path' = '$DIR/kept', 'format' = 'parquet');
             CREATE TABLE out ({columns}) WITH ('connector' = 'filesystem', 'path' = '$DIR/out', 'format' = 'json');\n"
        )
    };
    let first = "INSERT INTO kept SELECT id, buyer FROM orders;
        INSERT INTO out SELECT id, buyer.home, UPPER(orders.buyer.name) FROM orders WHERE buyer.home.zip IS NOT NULL;";
    let columns = "id BIGINT, home ROW<city STRING, zip INT>, name STRING";
    let (code, said) = run(path, "first", &format!("{}{first}", tables(columns)));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        lines(&path.join("out")),
        [
            r#"{"id":1,"home":{"city":"Boise","zip":83702},"name":"ADA"}"#,
            r#"{"id":4,"home":{"city":null,"zip":1},"name":null}"#,
        ]
    );
    std::fs::remove_dir_all(path.join("out")).unwrap();
    let second = "INSERT INTO out SELECT id, buyer.home.zip FROM kept WHERE buyer.home.city IS NULL;";
    let (code, said) = run(path, "second", &format!("{}{second}", tables("id BIGINT, zip INT")));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        lines(&path.join("out")),
        [
            r#"{"id":2,"zip":null}"#,
            r#"{"id":3,"zip":null}"#,
            r#"{"id":4,"zip":1}"#
        ]
    );
}

#[test]
fn rows_are_refused_where_they_cannot_be() {
    let directory = tempfile::tempdir().unwrap();
    for (name, options, words) in [
        (
            "csv",
            "'connector' = 'filesystem', 'path' = '/tmp', 'format' = 'csv'",
            "column a",
        ),
        ("datagen", "'connector' = 'datagen'", "column a has the type"),
    ] {
        let sql = format!(
            "CREATE TABLE t (a ROW<b INT>) WITH ({options});
             CREATE TABLE out (b INT) WITH ('connector' = 'blackhole');
             INSERT INTO out SELECT a.b FROM t;"
        );
        let (code, said) = run(directory.path(), name, &sql);
        assert!(code == Some(2) && said.contains(words), "{name}: {code:?} {said}");
    }
}
