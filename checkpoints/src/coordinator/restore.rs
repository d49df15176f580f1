//! What a user can ask to restore, and what a started coordinator hands over.

use crate::{CheckpointId, Error, JobUid, Manifest, RequestId, Result, SavepointName};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Names something that a job can be started from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreSource {
    /// A savepoint, of this job or another.
    Savepoint(JobUid, SavepointName),
    /// A checkpoint, of this job or another.
    Checkpoint(JobUid, CheckpointId),
    /// No state at all, though the job may have had checkpoints.
    Nothing,
}

impl RestoreSource {
    /// Reads what a user writes: `NAME` or `savepoint/NAME`, `checkpoint/7`, either with `JOB/` in front, or `nothing`. `job` is the
    /// job meant when none is written.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] says what can be written.
    ///
    /// # Examples
    /// ```
    /// use tidemill_checkpoints::{CheckpointId, JobUid, RestoreSource};
    /// let (mine, other) = (JobUid::new("mine")?, JobUid::new("other")?);
    /// assert_eq!(RestoreSource::parse("other/checkpoint/7", &mine)?, RestoreSource::Checkpoint(other, CheckpointId(7)));
    /// assert_eq!(RestoreSource::parse("before", &mine)?, RestoreSource::Savepoint(mine.clone(), "before".parse()?));
    /// # Ok::<(), tidemill_checkpoints::Error>(())
    /// ```
    pub fn parse(text: &str, job: &JobUid) -> Result<Self> {
        let invalid = |reason: String| Error::InvalidSetting {
            what: "restore",
            value: text.to_owned(),
            reason,
        };
        let trimmed = text.strip_suffix(".json").unwrap_or(text);
        let parts: Vec<&str> = trimmed.split('/').collect();
        let (job, kind, name) = match parts[..] {
            ["nothing"] => return Ok(RestoreSource::Nothing),
            [name] => (job.clone(), "savepoint", name),
            [kind, name] => (job.clone(), kind, name),
            [job, kind, name] => (
                JobUid::new(job).map_err(|error| invalid(error.to_string()))?,
                kind,
                name,
            ),
            _ => return Err(invalid(FORMS.to_owned())),
        };
        match kind {
            "savepoint" => {
                let name = SavepointName::new(name).map_err(|error| invalid(error.to_string()))?;
                Ok(RestoreSource::Savepoint(job, name))
            }
            "checkpoint" => match name.parse() {
                Ok(id) if id > 0 => Ok(RestoreSource::Checkpoint(job, CheckpointId(id))),
                _ => Err(invalid(format!("{name:?} is not the number of a checkpoint; {FORMS}"))),
            },
            _ => Err(invalid(FORMS.to_owned())),
        }
    }
}

const FORMS: &str =
    "write NAME or savepoint/NAME or checkpoint/NUMBER, with JOB/ in front for another job's, or nothing";

impl fmt::Display for RestoreSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreSource::Savepoint(job, name) => write!(f, "{job}/savepoint/{name}"),
            RestoreSource::Checkpoint(job, id) => write!(f, "{job}/checkpoint/{id}"),
            RestoreSource::Nothing => f.write_str("nothing"),
        }
    }
}

/// Says what a starting coordinator restores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreFrom {
    /// The newest checkpoint, or nothing when the job never had one.
    Latest,
    /// What the user chose, once: later starts with the same request restore the newest checkpoint taken since.
    Chosen {
        /// What to restore.
        source: RestoreSource,
        /// Tells this request from a later one for the same source. A supervisor draws one per submission and keeps it.
        request: RequestId,
    },
}

/// What a started coordinator found to continue from.
#[derive(Clone, Debug, PartialEq)]
pub struct Restore {
    /// The checkpoint to load state and positions from.
    pub manifest: Manifest,
    /// The full name of the object it was read from.
    pub object: String,
    /// Checkpoints whose output may not be published yet, oldest first; empty when all is published, otherwise the last one is
    /// `manifest` itself. For each of them, before one record is read: [`crate::Coordinator::permit`], publish its committables,
    /// [`crate::Coordinator::mark_committed`].
    pub replay: Vec<Manifest>,
}

impl Restore {
    /// Returns whether all output up to the restored checkpoint is known to be published.
    pub fn was_published(&self) -> bool {
        self.replay.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn what_users_write_is_understood_or_explained() {
        let mine = JobUid::new("mine").unwrap();
        for (text, shown) in [
            ("sp", "mine/savepoint/sp"),
            ("savepoint/sp", "mine/savepoint/sp"),
            ("other/savepoint/sp.json", "other/savepoint/sp"),
            ("checkpoint/12", "mine/checkpoint/12"),
            ("mine/checkpoint/12.json", "mine/checkpoint/12"),
            ("nothing", "nothing"),
        ] {
            let source = RestoreSource::parse(text, &mine).unwrap();
            assert_eq!(source.to_string(), shown);
            assert_eq!(RestoreSource::parse(shown, &mine).unwrap(), source);
        }
        for bad in [
            "",
            "/",
            "a b",
            "checkpoint/0",
            "checkpoint/x",
            "state/1",
            "../savepoint/x",
            "a/b/c/d",
            "gen/1",
        ] {
            let error = RestoreSource::parse(bad, &mine).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::User, "{bad}: {error}");
        }
    }
}
