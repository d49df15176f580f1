//! A job as the user defined it, and as it lies on disk.
//!
//! Durable format: one JSON object per job, `jobs/<uid>.json`, with `"format": 1`. Unknown fields are refused, so that an
//! older server does not run a job whose definition it only half understands.

use super::protocol::message::{IntervalWish, RestorePoint};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// The version of the durable format.
pub(crate) const DEFINITION_FORMAT: u32 = 1;
/// Failures in a row after which a job is given up, unless the job says otherwise.
pub(crate) const RESTART_ATTEMPTS_DEFAULT: u32 = 10;
/// The shortest time between checkpoints.
pub(crate) const CHECKPOINT_INTERVAL_MIN_MS: u64 = 10;
/// The longest time between checkpoints: a week.
pub(crate) const CHECKPOINT_INTERVAL_MAX_MS: u64 = 7 * 24 * 3600 * 1000;
/// The longest name of a job, in characters.
pub(crate) const NAME_CHARS_MAX: usize = 100;

/// A job's name: 1 to 100 of `A-Z a-z 0-9 _ . -`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct JobName(String);

impl JobName {
    /// Checks and takes over a name.
    ///
    /// # Errors
    /// Says what a name may be.
    pub(crate) fn new(name: impl Into<String>) -> Result<Self, String> {
        let name = name.into();
        let valid = name.len() <= NAME_CHARS_MAX
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        if valid {
            return Ok(Self(name));
        }
        Err(format!(
            "{name:?} is no name for a job; use 1 to {NAME_CHARS_MAX} of the characters A-Z a-z 0-9 _ . -, beginning with \
             a letter or digit"
        ))
    }

    /// Returns the name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for JobName {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        Self::new(name)
    }
}

impl From<JobName> for String {
    fn from(name: JobName) -> Self {
        name.0
    }
}

/// What a job runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Program {
    /// A SQL text.
    Sql(String),
    /// A Rust job's binary.
    Executable {
        /// Its path, within the server's directory of job binaries.
        path: PathBuf,
        /// Arguments for the job's own code.
        args: Vec<String>,
    },
}

/// Whether a job should run: what the user last asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Desired {
    /// It should run, also after the server was restarted.
    Running,
    /// It should not.
    Stopped,
}

/// How a job came to its end without the user asking for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// All its tables have ended.
    Finished,
    /// It was given up, for this reason.
    Failed(String),
}

/// The wish to start from a certain point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RestoreWish {
    /// The point.
    pub(crate) from: RestorePoint,
    /// Tells this wish from a later, equal one: once it is fulfilled, restarts continue at the newest checkpoint.
    pub(crate) request: String,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobDefinition {
    /// [`DEFINITION_FORMAT`].
    pub(crate) format: u32,
    /// The job's stable identity: checkpoints and staged output belong to it. Never used again for another job.
    pub(crate) uid: String,
    /// Its name, unique among the jobs of a server.
    pub(crate) name: JobName,
    /// What it runs.
    pub(crate) program: Program,
    /// The number of worker threads; `None`: as the SQL text says, or else one.
    pub(crate) parallelism: Option<usize>,
    /// How often checkpoints are taken.
    pub(crate) checkpoint_interval: IntervalWish,
    /// Failures in a row after which it is given up.
    pub(crate) restart_attempts: u32,
    /// Start although the checkpoint holds state of operators that the job no longer has.
    pub(crate) allow_non_restored_state: bool,
    /// Where to start from.
    pub(crate) restore: Option<RestoreWish>,
    /// What the submitter chose to recognise its own repeated request by.
    pub(crate) client_token: Option<String>,
    /// When it was submitted, in milliseconds since the epoch.
    pub(crate) created_ms: i64,
    /// Whether it should run.
    pub(crate) desired: Desired,
    /// How it ended by itself; `None` while it has not.
    pub(crate) outcome: Option<Outcome>,
    /// Why it last failed, if it has.
    pub(crate) last_error: Option<LastError>,
}

/// A failure, for the job's status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastError {
    /// What failed.
    pub(crate) message: String,
    /// When, in milliseconds since the epoch.
    pub(crate) at_ms: i64,
    /// The last lines that the job's process wrote to its standard error.
    pub(crate) stderr: Vec<String>,
}

/// Makes the uid of a new job: its name, for people, and 8 hexadecimal digits, so that it is never used twice.
///
/// # Errors
/// When the system has no entropy to give.
pub(crate) fn new_uid(name: &JobName) -> Result<String, getrandom::Error> {
    Ok(format!("{name}-{:08x}", getrandom::u32()?))
}

impl RestoreWish {
    /// Makes a wish that differs from every earlier one.
    ///
    /// # Errors
    /// When the system has no entropy to give.
    pub(crate) fn new(from: RestorePoint) -> Result<Self, getrandom::Error> {
        Ok(Self {
            from,
            request: format!("{:016x}", getrandom::u64()?),
        })
    }
}

/// A restore point as the user writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RestoreText {
    /// `latest`.
    Latest,
    /// `nothing`.
    Nothing,
    /// `JOB/savepoint/NAME`, or `savepoint/NAME` or just `NAME` for the job itself.
    Savepoint {
        /// The name or uid of the other job.
        job: Option<String>,
        /// The savepoint.
        name: String,
    },
    /// `JOB/checkpoint/NUMBER`, or `checkpoint/NUMBER` for the job itself.
    Checkpoint {
        /// The name or uid of the other job.
        job: Option<String>,
        /// The checkpoint.
        id: u64,
    },
}

impl RestoreText {
    /// Parses what the user wrote.
    ///
    /// # Errors
    /// Says what may be written.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "cannot restore from {text:?}; write JOB/savepoint/NAME or JOB/checkpoint/NUMBER, where JOB is the name or \
                 id of the job that took it (left out: this job), or \"latest\", or \"nothing\""
            )
        };
        let parts: Vec<&str> = text.split('/').collect();
        let (job, kind, what) = match parts.as_slice() {
            ["latest"] => return Ok(Self::Latest),
            ["nothing"] => return Ok(Self::Nothing),
            [name] => (None, "savepoint", *name),
            [kind, what] => (None, *kind, *what),
            [job, kind, what] if !job.is_empty() => (Some((*job).to_owned()), *kind, *what),
            _ => return Err(wrong()),
        };
        match kind {
            "savepoint" if !what.is_empty() => Ok(Self::Savepoint {
                job,
                name: what.to_owned(),
            }),
            "checkpoint" => Ok(Self::Checkpoint {
                job,
                id: what.parse().map_err(|_| wrong())?,
            }),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_paths_and_object_names() {
        for good in ["a", "clicks_per_page", "A.b-c_9", &"x".repeat(100)] {
            assert!(JobName::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".a", "-a", "a/b", "a b", "ä", "a\0", &"x".repeat(101)] {
            let error = JobName::new(bad).unwrap_err();
            assert!(error.contains("A-Z a-z 0-9"), "{error}");
        }
    }

    #[test]
    fn restore_points_are_read_as_documented() {
        use RestoreText::{Checkpoint, Latest, Nothing, Savepoint};
        let cases = [
            ("latest", Latest),
            ("nothing", Nothing),
            (
                "s1",
                Savepoint {
                    job: None,
                    name: "s1".into(),
                },
            ),
            (
                "savepoint/s1",
                Savepoint {
                    job: None,
                    name: "s1".into(),
                },
            ),
            (
                "j-1/savepoint/s1",
                Savepoint {
                    job: Some("j-1".into()),
                    name: "s1".into(),
                },
            ),
            ("checkpoint/7", Checkpoint { job: None, id: 7 }),
            (
                "j/checkpoint/7",
                Checkpoint {
                    job: Some("j".into()),
                    id: 7,
                },
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(RestoreText::parse(text).unwrap(), expected, "{text}");
        }
        for bad in [
            "",
            "/savepoint/x",
            "savepoint/",
            "checkpoint/x",
            "checkpoint/-1",
            "a/b/c/d",
            "j/other/1",
        ] {
            assert!(RestoreText::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn uids_differ_for_jobs_of_one_name() {
        let name = JobName::new("a").unwrap();
        assert_ne!(new_uid(&name).unwrap(), new_uid(&name).unwrap());
    }
}
