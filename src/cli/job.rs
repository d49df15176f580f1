//! `tidemill job`: submits jobs to a server and looks after them, over REST.

use super::client::{Client, ClientError};
use super::run::read_text;
use crate::jobs::protocol::message::IntervalWish;
use crate::process::{EXIT_FAILED, EXIT_OK, EXIT_REFUSED, fail};
use crate::rust_job::{parse_interval, parse_parallelism};
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
        /// Start from savepoint/NAME or checkpoint/NUMBER, not from the newest checkpoint.
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
            print(&if server.json {
                answer.to_string()
            } else {
                printer(&answer)
            });
            ExitCode::from(EXIT_OK)
        }
        Err(ClientError::Refused(refusal)) => {
            if server.json {
                print(&refusal.problem.to_string());
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
                print_job,
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

#[allow(clippy::print_stdout)] // the result of a command
fn print(text: &str) {
    println!("{text}");
}

/// A field as text: strings bare, null as a dash.
fn cell(value: &Value, field: &str) -> String {
    match value.get(field) {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
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
        &["NAME", "CHECKPOINT", "RESTORE"],
        &["name", "checkpoint", "restore"],
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

fn print_job(job: &Value) -> String {
    let mut lines: Vec<String> = [
        ("id", "id"),
        ("name", "name"),
        ("state", "state"),
        ("parallelism", "parallelism"),
        ("processes", "process_ids"),
        ("restarts", "restarts"),
        ("generation", "generation"),
        ("restored from", "restored_from"),
        ("watermark ms", "watermark_ms"),
        ("watermark lag ms", "watermark_lag_ms"),
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
            "{:<17}{id} ({duration} ms, {} bytes of state)",
            "last checkpoint",
            cell(checkpoint, "state_bytes")
        ));
    }
    if let Some(error) = job.get("last_error").filter(|error| error.is_object()) {
        lines.push(format!("{:<17}{}", "last error", cell(error, "message")));
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
    fn tables_line_up() {
        let rows = [json!({"name": "long-name", "n": 1}), json!({"name": "b", "n": null})];
        assert_eq!(
            table(&["NAME", "N"], &["name", "n"], &rows),
            "NAME       N\nlong-name  1\nb          -"
        );
    }
}
