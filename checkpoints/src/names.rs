//! The names of all objects, formatted and taken apart here and nowhere else.
//!
//! ```text
//! <job uid>/gen/<G>.json                       a claim
//! <job uid>/state/<G>/<C>/<attempt>/<worker>   one worker's state
//! <job uid>/state/<G>/<C>/<attempt>/adopted-<n>  a copy of another job's state
//! <job uid>/checkpoint/<C>.json                a decision
//! <job uid>/committed/<C>.json                 its output is published
//! <job uid>/savepoint/<name>.json              a checkpoint kept under a name
//! ```
//! No name is used twice, no object is changed. Numbers are decimal without leading zeros.

use crate::{AttemptId, CheckpointId, Generation, JobUid, RestoreSource, SavepointName};
use std::str::FromStr;

/// Returns the prefix of everything of a job.
pub fn job(job: &JobUid) -> String {
    format!("{job}/")
}

/// Returns the name of a claim.
pub fn generation(job: &JobUid, generation: Generation) -> String {
    format!("{job}/gen/{generation}.json")
}

/// Returns the name of a decision.
pub fn checkpoint(job: &JobUid, checkpoint: CheckpointId) -> String {
    format!("{job}/checkpoint/{checkpoint}.json")
}

/// Returns the prefix of all decisions of a job.
pub fn checkpoints(job: &JobUid) -> String {
    format!("{job}/checkpoint/")
}

/// Returns the name of the marker that a checkpoint's output is published.
pub fn committed(job: &JobUid, checkpoint: CheckpointId) -> String {
    format!("{job}/committed/{checkpoint}.json")
}

/// Returns the prefix of all markers of a job.
pub fn committed_all(job: &JobUid) -> String {
    format!("{job}/committed/")
}

/// Returns the name of a savepoint.
pub fn savepoint(job: &JobUid, name: &SavepointName) -> String {
    format!("{job}/savepoint/{name}.json")
}

/// Returns the prefix of all savepoints of a job.
pub fn savepoints(job: &JobUid) -> String {
    format!("{job}/savepoint/")
}

/// Returns the prefix of all state of an attempt.
pub fn attempt(job: &JobUid, generation: Generation, checkpoint: CheckpointId, attempt: AttemptId) -> String {
    format!("{job}/state/{generation}/{checkpoint}/{attempt}/")
}

/// Returns the name of one worker's state.
pub fn state(
    job: &JobUid,
    generation: Generation,
    checkpoint: CheckpointId,
    attempt: AttemptId,
    worker: u32,
) -> String {
    format!("{job}/state/{generation}/{checkpoint}/{attempt}/{worker}")
}

/// Returns the name of the copy of another job's state object.
pub fn adopted(job: &JobUid, generation: Generation, checkpoint: CheckpointId, attempt: AttemptId, n: usize) -> String {
    format!("{job}/state/{generation}/{checkpoint}/{attempt}/adopted-{n}")
}

/// Returns the prefix of all state of a job.
pub fn states(job: &JobUid) -> String {
    format!("{job}/state/")
}

/// Returns the name of the manifest to restore from, if there is one.
pub fn restore_source(source: &RestoreSource) -> Option<String> {
    match source {
        RestoreSource::Savepoint(job, name) => Some(savepoint(job, name)),
        RestoreSource::Checkpoint(job, id) => Some(checkpoint(job, *id)),
        RestoreSource::Nothing => None,
    }
}

/// An object name of a job, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A claim.
    Generation(Generation),
    /// A decision.
    Checkpoint(CheckpointId),
    /// A marker.
    Committed(CheckpointId),
    /// A savepoint.
    Savepoint(SavepointName),
    /// State.
    State {
        /// The generation that wrote it.
        generation: Generation,
        /// The checkpoint it was written for.
        checkpoint: CheckpointId,
        /// The attempt it was written for.
        attempt: AttemptId,
    },
}

/// Takes a name apart; none when it is not one of the job's.
pub fn parse(job: &JobUid, name: &str) -> Option<Parsed> {
    let parts: Vec<&str> = name.strip_prefix(job.as_str())?.strip_prefix('/')?.split('/').collect();
    let stem = |file: &str| file.strip_suffix(".json").map(str::to_owned);
    match parts[..] {
        ["gen", file] => Some(Parsed::Generation(Generation(number(&stem(file)?)?))),
        ["checkpoint", file] => Some(Parsed::Checkpoint(CheckpointId(number(&stem(file)?)?))),
        ["committed", file] => Some(Parsed::Committed(CheckpointId(number(&stem(file)?)?))),
        ["savepoint", file] => Some(Parsed::Savepoint(SavepointName::from_str(&stem(file)?).ok()?)),
        ["state", generation, checkpoint, attempt, object] => {
            number(object.strip_prefix("adopted-").unwrap_or(object))?;
            Some(Parsed::State {
                generation: Generation(number(generation)?),
                checkpoint: CheckpointId(number(checkpoint)?),
                attempt: AttemptId(number(attempt)?),
            })
        }
        _ => None,
    }
}

/// Reads a number only as it is written here, so that no two names mean the same.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_the_design_says_and_are_taken_apart_again() {
        let uid = JobUid::new("j-1").unwrap();
        let (g, c, a) = (Generation(2), CheckpointId(30), AttemptId(4));
        let point = SavepointName::new("before.json").unwrap();
        let in_state = Parsed::State {
            generation: g,
            checkpoint: c,
            attempt: a,
        };
        for (name, text, parsed) in [
            (generation(&uid, g), "j-1/gen/2.json", Parsed::Generation(g)),
            (checkpoint(&uid, c), "j-1/checkpoint/30.json", Parsed::Checkpoint(c)),
            (committed(&uid, c), "j-1/committed/30.json", Parsed::Committed(c)),
            (
                savepoint(&uid, &point),
                "j-1/savepoint/before.json.json",
                Parsed::Savepoint(point.clone()),
            ),
            (state(&uid, g, c, a, 0), "j-1/state/2/30/4/0", in_state.clone()),
            (adopted(&uid, g, c, a, 1), "j-1/state/2/30/4/adopted-1", in_state),
        ] {
            assert_eq!(name, text);
            assert_eq!(parse(&uid, &name), Some(parsed));
            assert!(name.starts_with(&job(&uid)));
        }
    }

    #[test]
    fn foreign_and_odd_names_are_left_alone() {
        let uid = JobUid::new("j").unwrap();
        for name in [
            "j",
            "j/",
            "jj/gen/1.json",
            "j/gen/1",
            "j/gen/01.json",
            "j/gen/+1.json",
            "j/gen/-1.json",
            "j/gen/x.json",
            "j/state/1/1/1",
            "j/state/1/1/1/x",
            "j/state/1/1/1/1/1",
            "j/other/1.json",
            "other/checkpoint/1.json",
            "j/savepoint/.json",
        ] {
            assert_eq!(parse(&uid, name), None, "{name}");
        }
    }
}
