//! `tidemill job`: submits jobs to a server and looks after them, over REST.

use super::client::{Client, ClientError};
use super::run::read_text;
use crate::jobs::protocol::message::IntervalWish;
use crate::process::{EXIT_FAILED, EXIT_OK, EXIT_REFUSED, fail, say, with_options_as_typed};
use crate::rust_job::{parse_interval, parse_parallelism};
use crate::timestamp::rfc3339;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(super) enum JobCommand {
    /// Submit a SQL text, or a Rust job's binary.
    Submit(SubmitArguments),
    /// List all jobs.
    List {
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Show a job.
    Show {
        #[command(flatten)]
        job: OneJob,
    },
    /// Stop a job, after a final checkpoint unless told otherwise.
    Stop {
        #[command(flatten)]
        job: OneJob,
        /// Stop after a savepoint of this name.
        #[arg(long, value_name = "NAME")]
        savepoint: Option<String>,
        /// Stop at once, without a final checkpoint.
        #[arg(long, conflicts_with = "savepoint")]
        now: bool,
    },
    /// Start a stopped, finished or failed job again.
    Start {
        #[command(flatten)]
        job: OneJob,
        /// Start from savepoint/NAME or checkpoint/NUMBER, not from the newest checkpoint; or from nothing, that is
        /// afresh.
        #[arg(long, value_name = "POINT")]
        restore: Option<String>,
        /// Start although the checkpoint holds state of operators that the job no longer has.
        #[arg(long, requires = "restore")]
        allow_non_restored_state: bool,
    },
    /// Delete a stopped job.
    Delete {
        #[command(flatten)]
        job: OneJob,
        /// Kill it first if it is not stopped.
        #[arg(long)]
        force: bool,
    },
    /// Take a savepoint of a running job.
    Savepoint {
        #[command(flatten)]
        job: OneJob,
        /// The savepoint's name.
        name: String,
    },
    /// List the savepoints of a job.
    Savepoints {
        #[command(flatten)]
        job: OneJob,
    },
    /// Take a checkpoint of a running job now.
    Checkpoint {
        #[command(flatten)]
        job: OneJob,
    },
}

/// Which server, and how its answers are printed.
#[derive(Clone, Debug, Args)]
pub(super) struct ServerArguments {
    /// The server.
    #[arg(
        long,
        value_name = "URL",
        env = "TIDEMILL_SERVER",
        default_value = "http://127.0.0.1:4566"
    )]
    server: String,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// A job of a server.
#[derive(Clone, Debug, Args)]
pub(super) struct OneJob {
    /// The job's name or id.
    #[arg(value_name = "JOB")]
    id: String,
    #[command(flatten)]
    server: ServerArguments,
}

/// The arguments of `submit`.
#[derive(Debug, Args)]
pub(super) struct SubmitArguments {
    /// The SQL text; - reads standard input.
    #[arg(
        value_name = "FILE",
        required_unless_present = "executable",
        conflicts_with = "executable"
    )]
    file: Option<PathBuf>,
    /// A Rust job's binary in the server's --job-binaries directory.
    #[arg(long, value_name = "PATH")]
    executable: Option<PathBuf>,
    /// Arguments for the Rust job's own code.
    #[arg(last = true, requires = "executable", value_name = "ARGUMENTS")]
    arguments: Vec<String>,
    /// The job's name [default: the file's name].
    #[arg(long)]
    name: Option<String>,
    /// Worker threads [default: as the text says, or 1].
    #[arg(long, value_name = "N", value_parser = parse_parallelism)]
    parallelism: Option<usize>,
    /// Time between checkpoints, like 10s; none for only the final one [default: as the text says, or 10s].
    #[arg(long, value_name = "TIME", value_parser = parse_interval)]
    checkpoint_interval: Option<IntervalWish>,
    /// Start from JOB/savepoint/NAME or JOB/checkpoint/NUMBER.
    #[arg(long, value_name = "POINT")]
    restore: Option<String>,
    /// Start although the checkpoint holds state of operators that the job no longer has.
    #[arg(long, requires = "restore")]
    allow_non_restored_state: bool,
    /// Failures in a row after which the job is given up [default: 10].
    #[arg(long, value_name = "N")]
    restart_attempts: Option<u32>,
    /// Recognises this request when it is repeated.
    #[arg(long, value_name = "TEXT")]
    client_token: Option<String>,
    #[command(flatten)]
    server: ServerArguments,
}

impl SubmitArguments {
    fn into_body(self) -> Result<Value, String> {
        let stem = self
            .file
            .as_ref()
            .or(self.executable.as_ref())
            .and_then(|path| path.file_stem());
        let stem = stem
            .filter(|stem| *stem != "-")
            .map(|stem| stem.to_string_lossy().into_owned());
        let name = self.name.or(stem).ok_or("give the job a name with --name")?;
        let mut body = Map::new();
        body.insert("name".into(), name.into());
        if let Some(file) = &self.file {
            body.insert("sql".into(), read_text(file)?.into());
        }
        if let Some(executable) = &self.executable {
            body.insert("executable".into(), executable.display().to_string().into());
            body.insert("args".into(), self.arguments.into());
        }
        match self.checkpoint_interval.unwrap_or_default() {
            IntervalWish::Unsaid => None,
            IntervalWish::Never => body.insert("checkpoint_interval_ms".into(), Value::Null),
            IntervalWish::EveryMs(interval) => body.insert("checkpoint_interval_ms".into(), interval.into()),
        };
        body.insert("allow_non_restored_state".into(), self.allow_non_restored_state.into());
        let optional = [
            ("parallelism", self.parallelism.map(Value::from)),
            ("restore", self.restore.map(Value::from)),
            ("restart_attempts", self.restart_attempts.map(Value::from)),
            ("client_token", self.client_token.map(Value::from)),
        ];
        body.extend(
            optional
                .into_iter()
                .filter_map(|(field, value)| Some((field.to_owned(), value?))),
        );
        Ok(Value::Object(body))
    }
}

/// Runs the command.
pub(super) fn run(command: JobCommand) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(EXIT_FAILED, format!("cannot start: {error}")),
    };
    runtime.block_on(run_here(command))
}

type Printer = fn(&Value) -> String;

async fn run_here(command: JobCommand) -> ExitCode {
    let (server, method, path, query, body, printer) = match request(command) {
        Ok(request) => request,
        Err(message) => return fail(EXIT_REFUSED, message),
    };
    let client = match Client::new(&server.server) {
        Ok(client) => client,
        Err(error) => return fail(EXIT_REFUSED, error),
    };
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match client.ask(method, &path, query, body.as_ref()).await {
        Ok(answer) => {
            let text = if server.json {
                answer.to_string()
            } else {
                printer(&answer)
            };
            match say(text) {
                Ok(()) => ExitCode::from(EXIT_OK),
                Err(message) => fail(EXIT_FAILED, message),
            }
        }
        Err(ClientError::Refused(refusal)) => {
            if server.json
                && let Err(message) = say(&refusal.problem)
            {
                return fail(EXIT_FAILED, message);
            }
            fail(if refusal.is_users() { EXIT_REFUSED } else { EXIT_FAILED }, refusal)
        }
        Err(error) => fail(EXIT_FAILED, error),
    }
}

type Asked = (
    ServerArguments,
    Method,
    Vec<String>,
    Option<&'static str>,
    Option<Value>,
    Printer,
);

fn request(command: JobCommand) -> Result<Asked, String> {
    let jobs = || vec!["jobs".to_owned()];
    let one = |job: &OneJob, more: Option<&str>| {
        ["jobs", job.id.as_str()]
            .into_iter()
            .chain(more)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    Ok(match command {
        JobCommand::Submit(arguments) => {
            let server = arguments.server.clone();
            (
                server,
                Method::POST,
                jobs(),
                None,
                Some(arguments.into_body()?),
                print_job,
            )
        }
        JobCommand::List { server } => (server, Method::GET, jobs(), None, None, print_jobs),
        JobCommand::Show { job } => (job.server.clone(), Method::GET, one(&job, None), None, None, print_job),
        JobCommand::Stop { job, savepoint, now } => {
            let body = match savepoint {
                Some(name) => json!({ "mode": "savepoint", "savepoint": name }),
                None => json!({ "mode": if now { "now" } else { "checkpoint" } }),
            };
            (
                job.server.clone(),
                Method::POST,
                one(&job, Some("stop")),
                None,
                Some(body),
                print_stopped,
            )
        }
        JobCommand::Start {
            job,
            restore,
            allow_non_restored_state,
        } => {
            let mut body = json!({});
            if let Some(restore) = restore {
                body = json!({ "restore": restore, "allow_non_restored_state": allow_non_restored_state });
            }
            (
                job.server.clone(),
                Method::POST,
                one(&job, Some("start")),
                None,
                Some(body),
                print_job,
            )
        }
        JobCommand::Delete { job, force } => {
            let query = force.then_some("force=true");
            (job.server.clone(), Method::DELETE, one(&job, None), query, None, |_| {
                "deleted".to_owned()
            })
        }
        JobCommand::Savepoint { job, name } => {
            let body = json!({ "name": name });
            (
                job.server.clone(),
                Method::POST,
                one(&job, Some("savepoints")),
                None,
                Some(body),
                print_restore_point,
            )
        }
        JobCommand::Savepoints { job } => (
            job.server.clone(),
            Method::GET,
            one(&job, Some("savepoints")),
            None,
            None,
            print_savepoints,
        ),
        JobCommand::Checkpoint { job } => (
            job.server.clone(),
            Method::POST,
            one(&job, Some("checkpoints")),
            None,
            None,
            print_restore_point,
        ),
    })
}

/// A field as text: strings bare, null as a dash.
fn cell(value: &Value, field: &str) -> String {
    match value.get(field) {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) => with_options_as_typed(text),
        // For people; JSON has the number.
        Some(Value::Number(number)) if field.ends_with("_ms") && is_moment(field) => {
            number.as_i64().map_or_else(|| number.to_string(), rfc3339)
        }
        Some(other) => other.to_string(),
    }
}

/// Says whether a field that ends in `_ms` is a moment, and not a length of time.
fn is_moment(field: &str) -> bool {
    matches!(field, "created_ms" | "at_ms" | "completed_ms" | "watermark_ms")
}

fn print_jobs(answer: &Value) -> String {
    let fields = ["name", "state", "parallelism", "restarts", "watermark_lag_ms", "id"];
    let jobs = answer
        .get("jobs")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    table(
        &["NAME", "STATE", "PARALLELISM", "RESTARTS", "LAG MS", "ID"],
        &fields,
        &jobs,
    )
}

fn print_savepoints(answer: &Value) -> String {
    let savepoints = answer
        .get("savepoints")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    table(
        &["NAME", "CHECKPOINT", "TAKEN", "RESTORE"],
        &["name", "checkpoint", "created_ms", "restore"],
        &savepoints,
    )
}

fn print_restore_point(answer: &Value) -> String {
    format!(
        "checkpoint {}; restore with {}",
        cell(answer, "checkpoint"),
        cell(answer, "restore")
    )
}

/// A job that was stopped, or still stops, and what that left.
fn print_stopped(answer: &Value) -> String {
    let message = answer.get("stop").map_or_else(
        || "it still stops; job show tells when it has stopped".to_owned(),
        |stop| cell(stop, "message"),
    );
    format!("{}\n\n{message}", print_job(answer))
}

fn print_job(job: &Value) -> String {
    let mut lines: Vec<String> = [
        ("id", "id"),
        ("name", "name"),
        ("state", "state"),
        ("submitted", "created_ms"),
        ("parallelism", "parallelism"),
        ("processes", "process_ids"),
        ("restarts", "restarts"),
        ("generation", "generation"),
        ("restored from", "restored_from"),
        ("watermark", "watermark_ms"),
        ("watermark lag ms", "watermark_lag_ms"),
        ("checkpoint error", "checkpoint_error"),
        ("failure", "failure"),
    ]
    .into_iter()
    .map(|(title, field)| format!("{title:<17}{}", cell(job, field)))
    .collect();
    if let Some(checkpoint) = job
        .get("checkpoints")
        .and_then(Value::as_array)
        .and_then(|all| all.last())
    {
        let (id, duration) = (cell(checkpoint, "id"), cell(checkpoint, "duration_ms"));
        lines.push(format!(
            "{:<17}{id} at {} ({duration} ms, {} bytes of state)",
            "last checkpoint",
            cell(checkpoint, "completed_ms"),
            cell(checkpoint, "state_bytes")
        ));
    }
    if let Some(error) = job.get("last_error").filter(|error| error.is_object()) {
        let (at, message) = (cell(error, "at_ms"), cell(error, "message"));
        lines.push(format!("{:<17}{message} (at {at})", "last error"));
    }
    let operators = job
        .get("operators")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    if !operators.is_empty() {
        lines.push(String::new());
        lines.push(table(
            &["OPERATOR", "ROWS IN", "ROWS OUT", "LATE", "DROPPED", "STATE BYTES"],
            &[
                "name",
                "rows_in",
                "rows_out",
                "rows_late",
                "rows_dropped",
                "state_bytes",
            ],
            &operators,
        ));
    }
    lines.join("\n")
}

/// Writes rows in columns as wide as they need to be.
fn table(titles: &[&str], fields: &[&str], rows: &[Value]) -> String {
    let rows = rows
        .iter()
        .map(|row| fields.iter().map(|field| cell(row, field)).collect());
    super::table::table(titles, rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_moments_and_not_milliseconds() {
        let job = json!({
            "name": "a", "created_ms": 1_795_414_233_007_i64, "watermark_ms": 0, "watermark_lag_ms": 5, "generation": null,
            "checkpoints": [{ "id": 7, "completed_ms": 1_000, "duration_ms": 12, "state_bytes": 3 }],
            "last_error": { "message": "start with allow_non_restored_state", "at_ms": 2_000 },
        });
        let text = print_job(&job);
        for line in [
            "submitted        2026-11-23T06:10:33.007Z",
            "watermark        1970-01-01T00:00:00.000Z",
            "watermark lag ms 5",
            "generation       -",
            "last checkpoint  7 at 1970-01-01T00:00:01.000Z (12 ms, 3 bytes of state)",
            "last error       start with --allow-non-restored-state (at 1970-01-01T00:00:02.000Z)",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_stop_without_a_checkpoint_is_told() {
        let answer = json!({ "name": "a", "state": "stopped", "stop": { "took": "nothing", "message": "WITHOUT; 7" } });
        assert!(print_stopped(&answer).ends_with("\n\nWITHOUT; 7"));
        assert!(print_stopped(&json!({ "state": "stopping" })).ends_with("tells when it has stopped"));
    }

    #[test]
    fn tables_line_up() {
        let rows = [json!({"name": "long-name", "n": 1}), json!({"name": "b", "n": null})];
        assert_eq!(
            table(&["NAME", "N"], &["name", "n"], &rows),
            "NAME       N\nlong-name  1\nb          -"
        );
    }
}
