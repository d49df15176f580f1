use super::*;
use crate::conformance::lines;
use crate::conformance::sink::{
    Process, SinkUnderTest, check_exactly_once, check_run_again_without_checkpoints, schema,
};
use crate::conformance::source::{Reading, check_bounded};
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use std::collections::BTreeMap;
use std::path::Path;
use tidemill_engine::source::{ReadOutcome, SplitState};

fn table(path: &Path, options: &[(&str, &str)]) -> TableDefinition {
    let mut all = BTreeMap::from([
        ("connector".to_owned(), "filesystem".to_owned()),
        ("path".to_owned(), path.to_str().unwrap().to_owned()),
        ("format".to_owned(), "json".to_owned()),
    ]);
    all.extend(options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    TableDefinition {
        name: "t".to_owned(),
        schema: schema(),
        metadata_columns: Vec::new(),
        options: all,
        partition_keys: Vec::new(),
        primary_key: Vec::new(),
    }
}

fn source(table: &TableDefinition) -> Arc<dyn Source> {
    crate::create_source(table, &[0, 1], &ConnectorEnvironment::new()).unwrap()
}

fn json(ids: std::ops::Range<usize>) -> String {
    ids.map(|id| format!("{{\"id\":{id},\"x\":[{{}}],\"name\":\"n{id}\"}}\n"))
        .collect()
}

fn rows(ids: std::ops::Range<usize>) -> Vec<String> {
    let mut rows: Vec<String> = ids.map(|id| format!("{id}|n{id}")).collect();
    rows.sort();
    rows
}

#[test]
fn json_lines_conform() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.json"), json(0..40)).unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    // Blank lines, a byte order mark, carriage returns, and no line end at the end.
    let odd = format!(
        "\u{feff}{}\n \r\n{}",
        json(40..60).replace('\n', "\r\n"),
        json(60..61).trim_end()
    );
    std::fs::write(folder.path().join("sub/b.json"), odd).unwrap();
    std::fs::write(folder.path().join("empty.json"), "").unwrap();
    std::fs::write(folder.path().join("_hidden.json"), "not json").unwrap();
    std::fs::write(folder.path().join(".hidden.json"), "not json").unwrap();
    assert_eq!(check_bounded(source(&table(folder.path(), &[])).as_ref()), rows(0..61));
}

#[test]
fn records_over_many_chunks_conform() {
    let folder = tempfile::tempdir().unwrap();
    let long = "y".repeat(700_000);
    let lines: String = (0..6)
        .map(|id| format!("{{\"pad\":\"{long}\",\"id\":{id},\"name\":\"n{id}\"}}\n"))
        .collect();
    std::fs::write(folder.path().join("a.json"), lines).unwrap();
    assert_eq!(check_bounded(source(&table(folder.path(), &[])).as_ref()), rows(0..6));
}

#[test]
fn csv_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let text = "# a comment\n1,one\n2,\"two\nlines, \"\"quoted\"\"\"\n\n3,\n4,\"n,4\"";
    std::fs::write(folder.path().join("a.csv"), text).unwrap();
    let table = table(folder.path(), &[("format", "csv"), ("csv.allow-comments", "true")]);
    let expected = ["1|one", "2|two\nlines, \"quoted\"", "3|", "4|n,4"];
    assert_eq!(check_bounded(source(&table).as_ref()), expected);
}

#[test]
fn parquet_conforms_also_with_other_types_and_missing_columns() {
    let folder = tempfile::tempdir().unwrap();
    let ids = arrow::array::Int32Array::from_iter_values(0..20_000);
    let batch = arrow::array::RecordBatch::try_from_iter([("id", Arc::new(ids) as arrow::array::ArrayRef)]).unwrap();
    let file = std::fs::File::create(folder.path().join("a.parquet")).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let table = table(folder.path(), &[("format", "parquet")]);
    let source = source(&table);
    let reading = Reading::new(source.as_ref());
    let split = reading.discover(&BTreeMap::new()).remove(0);
    let (rows, positions) = reading.read_split(&split, &[5_000, 10_000], usize::MAX);
    assert_eq!(rows.len(), 20_000);
    assert_eq!(rows[7], "7|");
    for (position, before) in positions {
        let rest = Split {
            id: split.id.clone(),
            position,
        };
        assert_eq!(reading.read_split(&rest, &[100_000], usize::MAX).0, rows[before..]);
    }
    let counted = crate::create_source(&table, &[], &ConnectorEnvironment::new()).unwrap();
    let reading = Reading::new(counted.as_ref());
    let mut reader = reading.open(&split);
    let mut count = 0;
    while let Some(batch) = reading.next(reader.as_mut(), 10_000).unwrap() {
        count += batch.num_rows();
    }
    assert_eq!(count, 20_000);
}

#[test]
fn patterns_and_single_files_are_paths() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.json"), json(0..3)).unwrap();
    std::fs::write(folder.path().join("b.json"), json(3..5)).unwrap();
    std::fs::write(folder.path().join("c.txt"), "no").unwrap();
    assert_eq!(
        check_bounded(source(&table(&folder.path().join("*.json"), &[])).as_ref()),
        rows(0..5)
    );
    assert_eq!(
        check_bounded(source(&table(&folder.path().join("b.json"), &[])).as_ref()),
        rows(3..5)
    );
    let missing = source(&table(&folder.path().join("nosuch"), &[]));
    let reading = Reading::new(missing.as_ref());
    let mut enumerator = missing.enumerator().unwrap();
    let error = reading
        .runtime
        .block_on(enumerator.discover(&BTreeMap::new()))
        .unwrap_err()
        .to_string();
    assert!(error.contains("nosuch does not exist"), "{error}");
}

#[test]
fn a_path_that_does_not_exist_refuses_the_job_and_one_that_went_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let options = [("format", "json"), ("source.monitor-interval", "1 s")];
    let source = source(&table(&missing, &options));
    let runtime = crate::conformance::runtime();
    let found_out = |error: tidemill_engine::Error| {
        let told = error.to_string();
        assert!(
            told.contains("missing does not exist") && told.contains("option 'path'"),
            "{told}"
        );
        assert!(!error.is_retryable(), "{error:?}");
    };
    found_out(runtime.block_on(source.check()).unwrap_err());
    let mut enumerator = source.enumerator().unwrap();
    found_out(runtime.block_on(enumerator.discover(&Default::default())).unwrap_err());
    let known = [(
        tidemill_engine::source::SplitId("a".into()),
        tidemill_engine::source::SplitState {
            position: String::new(),
            ended: true,
        },
    )];
    let gone = runtime.block_on(enumerator.discover(&known.into())).unwrap_err();
    assert!(gone.is_retryable(), "{gone:?}");
    std::fs::create_dir(&missing).unwrap();
    runtime.block_on(source.check()).unwrap();
}

#[test]
fn a_bad_line_names_its_place_or_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("a.json"),
        format!("{}{{\"id\":\"x\"}}\n{}", json(0..2), json(2..3)),
    )
    .unwrap();
    let strict = source(&table(folder.path(), &[]));
    let reading = Reading::new(strict.as_ref());
    let split = reading.discover(&BTreeMap::new()).remove(0);
    let mut reader = reading.open(&split);
    let error = reading.next(reader.as_mut(), 100).unwrap_err().to_string();
    assert!(
        error.contains("a.json line 3: field id: 'x' is not a number"),
        "{error}"
    );
    assert!(error.contains("set 'json.ignore-parse-errors' = 'true'"), "{error}");
    assert!(reader.read(1, 1).is_err(), "an error is not passed over");

    let lenient = source(&table(folder.path(), &[("json.ignore-parse-errors", "true")]));
    let reading = Reading::new(lenient.as_ref());
    let mut reader = reading.open(&split);
    assert_eq!(
        lines(&[reading.next(reader.as_mut(), 100).unwrap().unwrap()]),
        ["0|n0", "1|n1", "2|n2"]
    );
    assert_eq!(reading.metrics.rows_dropped.get(), 1);
}

#[test]
fn a_watched_folder_gives_new_files_and_no_more_of_old_ones() {
    let folder = tempfile::tempdir().unwrap();
    let a = folder.path().join("a.json");
    std::fs::write(&a, json(0..3)).unwrap();
    let source = source(&table(folder.path(), &[("source.monitor-interval", "1 s")]));
    let reading = Reading::new(source.as_ref());
    let mut enumerator = source.enumerator().unwrap();
    let first = reading.runtime.block_on(enumerator.discover(&BTreeMap::new())).unwrap();
    assert!(!first.complete);
    assert_eq!(enumerator.interval(), Some(std::time::Duration::from_secs(1)));
    let split = first.new[0].clone();
    // The file grows before it is read: what was found is what is read.
    std::fs::write(&a, json(0..5)).unwrap();
    assert_eq!(reading.read_split(&split, &[100], usize::MAX).0.len(), 3);
    std::fs::write(folder.path().join("b.json"), json(5..6)).unwrap();
    let known = [(
        split.id.clone(),
        SplitState {
            position: split.position.clone(),
            ended: true,
        },
    )]
    .into();
    let second = reading.runtime.block_on(enumerator.discover(&known)).unwrap();
    assert_eq!(second.new.len(), 1);
    assert!(second.new[0].id.0.ends_with("b.json"));
    // A file that became shorter cannot be gone on with.
    std::fs::write(&a, "").unwrap();
    let mut reader = reading.open(&split);
    assert!(
        reading
            .next(reader.as_mut(), 10)
            .unwrap_err()
            .to_string()
            .contains("must not be rewritten")
    );
}

#[test]
fn a_reader_that_nobody_asks_reads_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.json"), json(0..3)).unwrap();
    let source = source(&table(folder.path(), &[]));
    let reading = Reading::new(source.as_ref());
    let split = reading.discover(&BTreeMap::new()).remove(0);
    let mut reader = reading.open(&split);
    assert!(reader.is_ready());
    assert_eq!(reading.wakes.count(), 0);
    assert!(matches!(reader.read(10, 10_000).unwrap(), ReadOutcome::Pending));
    reading.wakes.wait_beyond(0);
    assert!(reader.is_ready());
}

struct Written {
    folder: tempfile::TempDir,
    table: TableDefinition,
}

impl Written {
    fn new(options: &[(&str, &str)], partition_keys: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut table = table(&folder.path().join("out"), options);
        table.partition_keys = partition_keys.iter().map(|key| (*key).to_owned()).collect();
        Self { folder, table }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn staged(&self) -> usize {
        let staging = SinkName::new("job-1", "sink/1").staging(&self.root());
        std::fs::read_dir(staging).map_or(0, |files| {
            files.filter(|f| f.as_ref().unwrap().file_name() != "published").count()
        })
    }
}

use super::names::SinkName;

impl SinkUnderTest for Written {
    fn sink(&self) -> Arc<dyn Sink> {
        crate::create_sink(&self.table, &ConnectorEnvironment::new()).unwrap()
    }

    /// Reads the folder with the source, as a consumer would.
    fn visible(&self) -> Vec<i64> {
        std::fs::create_dir_all(self.root()).unwrap();
        let source = crate::create_source(&self.table, &[0, 1], &ConnectorEnvironment::new()).unwrap();
        let reading = Reading::new(source.as_ref());
        let mut ids = Vec::new();
        for split in reading.discover(&BTreeMap::new()) {
            let mut reader = reading.open(&split);
            while let Some(batch) = reading.next(reader.as_mut(), 1_000).unwrap() {
                for row in 0..batch.num_rows() {
                    let id = batch.column(0).as_primitive::<Int64Type>().value(row);
                    assert_eq!(
                        batch.column(1).as_string::<i32>().value(row),
                        crate::conformance::sink::name(id)
                    );
                    ids.push(id);
                }
            }
        }
        ids.sort_unstable();
        ids
    }
}

#[test]
fn json_output_conforms() {
    let test = Written::new(&[], &[]);
    check_exactly_once(&test);
    assert_eq!(test.staged(), 0, "nothing is left over");
}

#[test]
fn a_run_without_the_checkpoints_of_the_one_before_adds_its_files() {
    let test = Written::new(&[], &[]);
    check_run_again_without_checkpoints(&test);
    assert_eq!(test.staged(), 0, "what the refused runs left is swept");
}

#[test]
fn csv_output_conforms() {
    check_exactly_once(&Written::new(
        &[("format", "csv"), ("sink.rolling-policy.rollover-interval", "1 s")],
        &[],
    ));
}

#[test]
fn parquet_output_conforms() {
    let test = Written::new(&[("format", "parquet"), ("sink.rolling-policy.file-size", "2kb")], &[]);
    check_exactly_once(&test);
    assert_eq!(test.staged(), 0, "nothing is left over");
}

#[test]
fn partitioned_output_conforms() {
    let test = Written::new(&[("format", "parquet")], &["name"]);
    check_exactly_once(&test);
    let mut folders: Vec<String> = std::fs::read_dir(test.root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    folders.sort();
    assert_eq!(folders, ["name=n0", "name=n1", "name=n2"]);
}

#[test]
fn a_crash_between_link_and_removal_is_repaired() {
    let test = Written::new(&[], &[]);
    let mut process = Process::start(&test, 1);
    process.tick(0..4);
    let one = process.pre_commit(1, 0);
    // What a crash leaves: the first file linked, and nothing else done.
    let committable: super::writer::Committable = serde_json::from_slice(&one[0]).unwrap();
    let staging = SinkName::new("job-1", "sink/1").staging(&test.root());
    let file = &committable.files[0];
    std::fs::hard_link(staging.join(&file.staged), test.root().join(&file.target)).unwrap();
    drop(process);
    let process = Process::start(&test, 2);
    process.publish(1, &one).unwrap();
    assert_eq!(test.visible(), [0, 1, 2, 3]);
    assert_eq!(test.staged(), 0);
    // A consumer takes the files away: a replay does not ask for them.
    std::fs::remove_file(test.root().join(&file.target)).unwrap();
    process.publish(1, &one).unwrap();
}

#[test]
fn an_older_checkpoint_and_a_foreign_file_are_refused() {
    let test = Written::new(&[], &[]);
    let mut process = Process::start(&test, 1);
    process.tick(0..2);
    let five = process.pre_commit(5, 0);
    process.publish(5, &five).unwrap();
    process.tick(2..4);
    let again = process.pre_commit(1, 0);
    let error = process.publish(1, &again).unwrap_err().to_string();
    assert!(error.contains("checkpoint 1 is older than 5"), "{error}");

    process.tick(4..6);
    let six = process.pre_commit(6, 0);
    let committable: super::writer::Committable = serde_json::from_slice(&six[0]).unwrap();
    std::fs::write(test.root().join(&committable.files[0].target), "{}").unwrap();
    assert!(
        process
            .publish(6, &six)
            .unwrap_err()
            .to_string()
            .contains("another file")
    );
}

#[test]
fn only_the_own_leftovers_are_swept() {
    let test = Written::new(&[], &[]);
    let mut lost = Process::start(&test, 1);
    lost.tick(0..4);
    lost.pre_commit(1, 0);
    drop(lost);
    let other = SinkName::new("job-2", "sink/1").staging(&test.root());
    std::fs::create_dir_all(&other).unwrap();
    std::fs::write(other.join("01010101-g0-w0-0.json"), "").unwrap();
    // One that has not published yet may still do so.
    let unknown = SinkName::new("job-1", "sink/1")
        .staging(&test.root())
        .join("0909abcd-g0-w0-0.json");
    std::fs::write(&unknown, "").unwrap();
    assert_eq!(test.staged(), 3);
    let mut process = Process::start(&test, 2);
    process.tick(0..2);
    let one = process.pre_commit(1, 0);
    process.publish(1, &one).unwrap();
    assert_eq!(test.staged(), 1);
    assert!(unknown.exists() && other.join("01010101-g0-w0-0.json").exists());
    assert_eq!(test.visible(), [0, 1]);
}

#[test]
fn a_folder_that_cannot_be_written_fails_the_pre_commit() {
    let test = Written::new(&[], &[]);
    std::fs::write(test.root(), "a file where the folder should be").unwrap();
    let mut process = Process::start(&test, 1);
    process.writers[0]
        .write(&crate::conformance::sink::rows(0..1), 0)
        .unwrap();
    let id = tidemill_engine::sink::PreCommitId {
        checkpoint: 1,
        attempt: 0,
    };
    let error = match process.writers[0].pre_commit(id) {
        Ok(pending) => crate::conformance::runtime().block_on(pending).unwrap_err(),
        Err(error) => error,
    };
    assert!(error.to_string().contains("cannot be written"), "{error}");
}

#[test]
fn partition_columns_and_metadata_come_from_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("name=a%3Ab/x");
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("f.json"), "{\"id\":1,\"name\":\"not this\"}\n{\"id\":2}\n").unwrap();
    let mut table = table(folder.path(), &[]);
    table.partition_keys = vec!["name".to_owned()];
    let mut fields: Vec<_> = table.schema.fields().iter().cloned().collect();
    fields.push(Arc::new(arrow::datatypes::Field::new("file", DataType::Utf8, false)));
    table.schema = Arc::new(arrow::datatypes::Schema::new(fields));
    table.metadata_columns.push(crate::MetadataColumn {
        column: "file".to_owned(),
        key: "file.name".to_owned(),
    });
    let source = crate::create_source(&table, &[2, 1, 0], &ConnectorEnvironment::new()).unwrap();
    assert_eq!(check_bounded(source.as_ref()), ["f.json|a:b|1", "f.json|a:b|2"]);
}

#[test]
fn wrong_options_are_refused() {
    let path = Path::new("/tmp/x");
    for (options, about) in [
        (&[("path", "s3://bucket/x")][..], "not supported yet"),
        (&[("path", "file://x")], "three slashes"),
        (&[("sink.delivery-guarantee", "at-least-once")], "exactly-once"),
        (&[("auto-compaction", "true")], "not supported"),
        (
            &[("sink.partition-commit.policy.kind", "success-file")],
            "not supported",
        ),
        (
            &[("source.monitor-intervall", "1s")],
            "did you mean 'source.monitor-interval'?",
        ),
        (
            &[("source.monitor-interval", "soon")],
            "'soon' is not a duration: write a whole number and a unit, such as '5 s'",
        ),
        (
            &[("format", "parquet"), ("parquet.compression", "lzo")],
            "is not one of snappy",
        ),
        (
            &[("format", "avro")],
            "there is no format 'avro' for the connector 'filesystem'; there are json, csv, raw, parquet, debezium-json",
        ),
        (&[("format", "")], "there are json, csv, raw, parquet"),
        (&[("source.monitor-interval", "1 ms")], "'1 ms' is out of range"),
        (&[("sink.rolling-policy.file-size", "big")], "such as '64 kb'"),
        (&[("json.ignore-parse-errors", "yes")], "write 'true' or 'false'"),
        (&[("format", "csv"), ("csv.field-delimiter", "ab")], "such as ';'"),
        (&[("parquet.compression", "snappy")], "no such option"),
    ] {
        let error = crate::check_source(&table(path, options)).unwrap_err().to_string();
        assert!(error.contains(about), "{error}");
    }
    assert!(
        crate::check_sink(&table(Path::new("/tmp/*.json"), &[]))
            .unwrap_err()
            .to_string()
            .contains("pattern")
    );
}
