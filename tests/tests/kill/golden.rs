//! SQL jobs with their input and the output that their meaning demands, written by hand: `tests/golden`.
//!
//! | file | |
//! |---|---|
//! | `<job>.sql` | the text; `{in}` and `{out}` are directories of the test |
//! | `<job>.<table>.in.jsonl` | the rows of the table at `{in}/<table>`, in the order in which they arrive |
//! | `<job>.<table>.out.jsonl` | the rows of the table at `{out}/<table>`, in any order |
//!
//! Each job runs three ways and must give the same rows: whole, over all input at once; with two workers, while its input
//! comes and it is killed again and again; and stopped with half of its input, then restored with three workers. In the
//! last two every process but the last watches its folders; the last one reads what there is to its end. Empty lines and
//! lines that begin with `#` are comments.
//!
//! A job whose result changes writes `debezium-json`, and its output is what is left when all changes are made: neither
//! how rows arrive in ticks nor how often results are told may decide what is expected. For the same reason no golden
//! row is late: its event time is within the watermark's delay.

use super::random::Random;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidemill_tests::process::signal;
use tidemill_tests::{PATIENCE, binary};

/// Kills of a job.
const KILLS: usize = 3;
/// Parts that an input is cut into where it comes while the job runs.
const PARTS: usize = 5;
/// A kill comes at most that long after the start.
const LIFE_MS: u64 = 900;

/// Rows, and how often each is there.
type Rows = BTreeMap<String, i64>;

/// A job of the folder.
struct Golden {
    name: String,
    sql: String,
    /// Lines by table.
    inputs: BTreeMap<String, Vec<String>>,
    outputs: BTreeMap<String, Rows>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn content(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

/// Writes a JSON row in one way only.
fn row(line: &str) -> String {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    value.to_string()
}

impl Golden {
    fn load(name: &str) -> Self {
        let sql = std::fs::read_to_string(folder().join(format!("{name}.sql"))).expect("the text");
        let (mut inputs, mut outputs) = (BTreeMap::new(), BTreeMap::new());
        for entry in std::fs::read_dir(folder()).expect("the folder").flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            let parts: Vec<&str> = file.split('.').collect();
            match parts.as_slice() {
                [job, table, "in", "jsonl"] if *job == name => {
                    inputs.insert((*table).to_owned(), content(&entry.path()));
                }
                [job, table, "out", "jsonl"] if *job == name => {
                    let mut rows = Rows::new();
                    for line in content(&entry.path()) {
                        *rows.entry(row(&line)).or_default() += 1;
                    }
                    outputs.insert((*table).to_owned(), rows);
                }
                _ => {}
            }
        }
        assert!(!inputs.is_empty() && !outputs.is_empty(), "{name} lacks its rows");
        Self {
            name: name.to_owned(),
            sql,
            inputs,
            outputs,
        }
    }
}

/// One run of a job: its directories and its process.
struct Run<'a> {
    golden: &'a Golden,
    directory: TempDir,
    child: Option<Child>,
    way: &'static str,
}

impl<'a> Run<'a> {
    fn new(golden: &'a Golden, way: &'static str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        for table in golden.inputs.keys() {
            std::fs::create_dir_all(directory.path().join("in").join(table)).expect("a folder");
        }
        Self {
            golden,
            directory,
            child: None,
            way,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Lets part `part` of `parts` of every input appear.
    fn feed(&self, part: usize, parts: usize) {
        for (table, lines) in &self.golden.inputs {
            let (start, end) = (lines.len() * part / parts, lines.len() * (part + 1) / parts);
            let folder = self.path("in").join(table);
            let (hidden, visible) = (
                folder.join(format!(".{part:03}")),
                folder.join(format!("{part:03}.json")),
            );
            let text: String = lines[start..end].iter().map(|line| format!("{line}\n")).collect();
            std::fs::write(&hidden, text).expect("a file is written");
            std::fs::rename(&hidden, &visible).expect("a file appears");
        }
    }

    fn start(&mut self, parallelism: usize, watches: bool) {
        let mut sql = self.golden.sql.clone();
        for table in self.golden.inputs.keys() {
            let path = self.path("in").join(table);
            let watching = if watches {
                ", 'source.monitor-interval' = '10 ms'"
            } else {
                ""
            };
            let (written, put) = (format!("'{{in}}/{table}'"), format!("'{}'{watching}", path.display()));
            assert!(sql.contains(&written), "{}: nothing reads {written}", self.golden.name);
            sql = sql.replace(&written, &put);
        }
        let sql = sql.replace("{out}", &self.path("out").display().to_string());
        let file = self.path("job.sql");
        std::fs::write(&file, sql).expect("a file is written");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .expect("a log file");
        let mut command = Command::new(binary());
        command.arg("run").arg(&file).arg("--data-dir").arg(self.path("data"));
        command.args([
            "--checkpoint-interval",
            "50ms",
            "--parallelism",
            &parallelism.to_string(),
        ]);
        command
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        assert!(self.child.is_none(), "one process at a time");
        self.child = Some(command.spawn().expect("the binary starts"));
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn kill(&mut self) {
        let mut child = self.child.take().expect("a process");
        let ended = child.try_wait().expect("a status");
        assert_eq!(ended, None, "{} ended by itself:\n{}", self.golden.name, self.log());
        child.kill().expect("it can be killed");
        child.wait().expect("it can be waited for");
    }

    fn stop(&mut self) {
        let child = self.child.as_ref().expect("a process");
        signal(child.id(), Signal::SIGTERM);
        self.finish();
    }

    /// Waits for the process, which must end well.
    fn finish(&mut self) {
        let mut child = self.child.take().expect("a process");
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("a status") {
                break status;
            }
            if start.elapsed() > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{} {}: it does not end\n{}", self.golden.name, self.way, self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(
            status.success(),
            "{} {}: {status}\n{}",
            self.golden.name,
            self.way,
            self.log()
        );
    }

    /// Waits until a checkpoint knows all files that are there: a table that is not watched is what was there when the job
    /// first looked.
    fn await_checkpoint(&mut self) {
        let start = Instant::now();
        let folders = self.golden.inputs.keys().map(|table| self.path("in").join(table));
        let files = folders.flat_map(|folder| std::fs::read_dir(folder).expect("the folder").flatten());
        let names: Vec<String> = files.map(|file| file.path().display().to_string()).collect();
        let manifests = self.path("data").join("checkpoints").join("job").join("checkpoint");
        let knows_all = || {
            let found = std::fs::read_dir(&manifests).into_iter().flatten().flatten();
            // A file that is still being written has another name.
            let found = found.filter(|file| file.path().extension().is_some_and(|extension| extension == "json"));
            let mut texts = found.map(|file| std::fs::read_to_string(file.path()).unwrap_or_default());
            texts.any(|text| names.iter().all(|name| text.contains(name)))
        };
        while !knows_all() {
            let ended = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().expect("a status"));
            assert_eq!(ended, None, "{} ended by itself:\n{}", self.golden.name, self.log());
            assert!(start.elapsed() < PATIENCE, "no checkpoint:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn assert_output(&self) {
        for (table, expected) in &self.golden.outputs {
            let found = read(&self.path("out").join(table));
            if &found != expected {
                let missing = difference(expected, &found);
                let surplus = difference(&found, expected);
                panic!(
                    "{} {}, table {table}\n  missing: {missing:#?}\n  too many: {surplus:#?}\n{}",
                    self.golden.name,
                    self.way,
                    self.log()
                );
            }
        }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn difference(left: &Rows, right: &Rows) -> Vec<(String, i64)> {
    let more = |(row, count): (&String, &i64)| {
        let count = count - right.get(row).copied().unwrap_or(0);
        (count > 0).then(|| (row.clone(), count))
    };
    left.iter().filter_map(more).collect()
}

/// Reads the visible files of a table: rows, or what changes leave.
fn read(folder: &Path) -> Rows {
    let mut rows = Rows::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        for line in content(&entry.path()) {
            let value: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
            match value["op"].as_str() {
                Some("c") => *rows.entry(value["after"].to_string()).or_default() += 1,
                Some("d") => *rows.entry(value["before"].to_string()).or_default() -= 1,
                Some("u") => {
                    *rows.entry(value["before"].to_string()).or_default() -= 1;
                    *rows.entry(value["after"].to_string()).or_default() += 1;
                }
                _ => *rows.entry(value.to_string()).or_default() += 1,
            }
        }
    }
    rows.retain(|_, count| *count != 0);
    rows
}

fn check(name: &str) {
    let golden = Golden::load(name);
    let mut random = Random::from_environment(name);

    let mut whole = Run::new(&golden, "whole");
    whole.feed(0, 1);
    whole.start(1, false);
    whole.finish();
    whole.assert_output();

    let mut killed = Run::new(&golden, "killed");
    for part in 0..PARTS {
        if killed.child.is_none() {
            killed.start(2, true);
        }
        killed.feed(part, PARTS);
        if part + KILLS >= PARTS {
            std::thread::sleep(Duration::from_millis(random.below(LIFE_MS)));
            killed.kill();
        }
    }
    killed.start(2, true);
    killed.await_checkpoint();
    killed.kill();
    killed.start(2, false);
    killed.finish();
    killed.assert_output();

    let mut restored = Run::new(&golden, "restored");
    restored.feed(0, 2);
    restored.start(2, true);
    restored.await_checkpoint();
    restored.stop();
    restored.start(3, true);
    restored.feed(1, 2);
    restored.await_checkpoint();
    restored.stop();
    restored.start(3, false);
    restored.finish();
    restored.assert_output();
}

macro_rules! golden {
    ($($name:ident),+ $(,)?) => {
        const NAMES: &[&str] = &[$(stringify!($name)),+];
        $(
            #[test]
            fn $name() {
                check(stringify!($name));
            }
        )+
    };
}

golden!(
    tumble_aggregates,
    hop_counts,
    cumulate_by_day,
    session_totals,
    open_sessions,
    sessions_by_level,
    windows_of_windows,
    union_and_views,
    changing_counts,
    mean_of_maxima,
    orders_and_payments,
    windows_side_by_side,
    joined_tables,
    best_and_last,
    best_of_windows,
    running_totals,
    totals_and_subtotals,
    baskets_unnested,
    rates_of_the_time,
    trips_in_order,
);

#[test]
fn every_text_of_the_folder_is_run() {
    let files = std::fs::read_dir(folder()).expect("the folder").flatten();
    let names = files.filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.strip_suffix(".sql").map(str::to_owned)
    });
    let known: BTreeSet<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(names.collect::<BTreeSet<_>>(), known);
}
