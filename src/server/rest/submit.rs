//! The body of `POST /v1/jobs`, and what it makes.

use crate::jobs::definition::{
    CHECKPOINT_INTERVAL_MAX_MS, CHECKPOINT_INTERVAL_MIN_MS, Program, RESTART_ATTEMPTS_DEFAULT,
};
use crate::jobs::error::JobError;
use crate::jobs::protocol::message::IntervalWish;
use crate::jobs::supervisor::Submission;
use crate::settings::PARALLELISM_MAX;
use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::path::{Path, PathBuf};

/// The body of `POST /v1/jobs`. Unknown fields are refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct SubmitBody {
    name: String,
    sql: Option<String>,
    executable: Option<PathBuf>,
    args: Option<Vec<String>>,
    #[serde(default, deserialize_with = "parallelism")]
    parallelism: Option<usize>,
    /// Left out: as the text says, or the default; null: no checkpoints but the final one.
    #[serde(default, deserialize_with = "interval", rename = "checkpoint_interval_ms")]
    checkpoint_interval: IntervalWish,
    restore: Option<String>,
    #[serde(default)]
    allow_non_restored_state: bool,
    #[serde(default, deserialize_with = "restart_attempts")]
    restart_attempts: Option<u32>,
    client_token: Option<String>,
}

/// Reads a whole number or null, and says in words what is wanted where something else stands.
struct WholeNumber {
    wanted: String,
}

impl<'de> Visitor<'de> for WholeNumber {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, without quotes", self.wanted)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(number))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

impl WholeNumber {
    fn read<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<u64>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

fn parallelism<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    let wanted = format!("\"parallelism\" as a whole number from 1 to {PARALLELISM_MAX}");
    let number = WholeNumber { wanted }.read(deserializer)?;
    // What is too large for the type is too large in any case, and is refused with the limit.
    Ok(number.map(|number| usize::try_from(number).unwrap_or(usize::MAX)))
}

fn restart_attempts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let wanted = format!("\"restart_attempts\" as a whole number from 0 to {}", u32::MAX);
    let number = WholeNumber { wanted: wanted.clone() }.read(deserializer)?;
    let checked = number.map(|number| {
        u32::try_from(number).map_err(|_| D::Error::invalid_value(Unexpected::Unsigned(number), &wanted.as_str()))
    });
    checked.transpose()
}

fn interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IntervalWish, D::Error> {
    let wanted = format!(
        "\"checkpoint_interval_ms\" as a whole number from {CHECKPOINT_INTERVAL_MIN_MS} to {CHECKPOINT_INTERVAL_MAX_MS}, or null"
    );
    let interval = WholeNumber { wanted }.read(deserializer)?;
    Ok(interval.map_or(IntervalWish::Never, IntervalWish::EveryMs))
}

impl SubmitBody {
    /// Makes the submission; `job_binaries` is the directory in which Rust jobs may lie.
    ///
    /// # Errors
    /// When the fields do not go together, or the binary may not be run.
    pub(in crate::server) fn into_submission(self, job_binaries: Option<&Path>) -> Result<Submission, JobError> {
        let invalid = |text: &str| Err(JobError::Invalid(text.to_owned()));
        let program = match (self.sql, self.executable, self.args) {
            (Some(sql), None, None) => Program::Sql(sql),
            (None, Some(path), args) => {
                let path = allowed_binary(job_binaries, &path).map_err(JobError::Invalid)?;
                Program::Executable {
                    path,
                    args: args.unwrap_or_default(),
                }
            }
            (Some(_), None, Some(_)) => return invalid("\"args\" are for a Rust job; leave them out with \"sql\""),
            (Some(_), Some(_), _) => return invalid("a job has \"sql\" or an \"executable\", not both; leave one out"),
            (None, None, _) => {
                return invalid("there is nothing to run; give the job its \"sql\", or an \"executable\"");
            }
        };
        Ok(Submission {
            name: self.name,
            program,
            parallelism: self.parallelism,
            checkpoint_interval: self.checkpoint_interval,
            restore: self.restore,
            allow_non_restored_state: self.allow_non_restored_state,
            restart_attempts: self.restart_attempts.unwrap_or(RESTART_ATTEMPTS_DEFAULT),
            client_token: self.client_token,
        })
    }
}

/// Finds a Rust job's binary: a file in the directory that the server was told of, and nowhere else, also not by way of
/// `..` or a symbolic link.
///
/// # Errors
/// When it may not be run, or is not there.
pub(in crate::server) fn allowed_binary(job_binaries: Option<&Path>, path: &Path) -> Result<PathBuf, String> {
    let Some(directory) = job_binaries else {
        return Err(
            "this server runs no Rust jobs; start it with --job-binaries DIR, the directory of their binaries".into(),
        );
    };
    let wanted = directory.join(path); // an absolute path stays as it is
    let found = wanted
        .canonicalize()
        .map_err(|error| format!("cannot run {}: {error}", wanted.display()))?;
    if !found.starts_with(directory) {
        return Err(format!(
            "{} is not in {}, the directory of --job-binaries",
            path.display(),
            directory.display()
        ));
    }
    use std::os::unix::fs::PermissionsExt as _;
    let is_program = found
        .metadata()
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0);
    if is_program {
        Ok(found)
    } else {
        Err(format!("{} is not an executable file", found.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn submission(body: &str) -> Result<Submission, String> {
        let body: SubmitBody = serde_json::from_str(body).map_err(|error| error.to_string())?;
        body.into_submission(None).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_as_documented() {
        let submission = submission(r#"{"name": "a", "sql": "x"}"#).unwrap();
        assert_eq!(submission.parallelism, None);
        assert_eq!(submission.checkpoint_interval, IntervalWish::Unsaid);
        assert_eq!(submission.restart_attempts, 10);
    }

    #[test]
    fn a_null_interval_means_none() {
        let submission = submission(r#"{"name": "a", "sql": "x", "checkpoint_interval_ms": null}"#).unwrap();
        assert_eq!(submission.checkpoint_interval, IntervalWish::Never);
        let submission = self::submission(r#"{"name": "a", "sql": "x", "checkpoint_interval_ms": 50}"#).unwrap();
        assert_eq!(submission.checkpoint_interval, IntervalWish::EveryMs(50));
    }

    #[test]
    fn bodies_that_make_no_job_are_refused_with_what_to_do() {
        let cases = [
            (r#"{"name": "a"}"#, "give the job its \"sql\""),
            (r#"{"sql": "x"}"#, "missing field `name`"),
            (
                r#"{"name": "a", "sql": "x", "paralelism": 2}"#,
                "unknown field `paralelism`",
            ),
            (
                r#"{"name": "a", "sql": "x", "parallelism": -1}"#,
                "expected \"parallelism\" as a whole number from 1 to 256, without quotes",
            ),
            (
                r#"{"name": "a", "sql": "x", "parallelism": "2"}"#,
                "expected \"parallelism\" as a whole number from 1 to 256, without quotes",
            ),
            (
                r#"{"name": "a", "sql": "x", "parallelism": 1.5}"#,
                "expected \"parallelism\" as a whole number",
            ),
            (
                r#"{"name": "a", "sql": "x", "checkpoint_interval_ms": "1s"}"#,
                "as a whole number from 10 to 604800000, or null, without quotes",
            ),
            (
                r#"{"name": "a", "sql": "x", "restart_attempts": 4294967296}"#,
                "\"restart_attempts\" as a whole number from 0 to 4294967295",
            ),
            (r#"{"name": "a", "sql": "x", "executable": "y"}"#, "not both"),
            (r#"{"name": "a", "sql": "x", "args": []}"#, "leave them out"),
            (r#"{"name": "a", "executable": "/bin/sh"}"#, "--job-binaries"),
        ];
        for (body, expected) in cases {
            let error = submission(body).unwrap_err();
            assert!(error.contains(expected), "{body}: {error}");
        }
    }

    #[test]
    fn only_programs_of_the_named_directory_are_run() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("jobs");
        std::fs::create_dir(&directory).unwrap();
        let directory = directory.canonicalize().unwrap();
        let make = |path: &Path, mode| {
            std::fs::write(path, b"#!/bin/sh\n").unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        make(&directory.join("good"), 0o755);
        make(&directory.join("data"), 0o644);
        make(&parent.path().join("outside"), 0o755);
        symlink("/bin/sh", directory.join("link")).unwrap();
        let allowed = |path: &str| allowed_binary(Some(&directory), Path::new(path));
        assert_eq!(allowed("good").unwrap(), directory.join("good"));
        assert_eq!(
            allowed(directory.join("good").to_str().unwrap()).unwrap(),
            directory.join("good")
        );
        for bad in ["../outside", "link", "/bin/sh", ".", "data", "missing"] {
            assert!(allowed(bad).is_err(), "{bad}");
        }
    }
}
