//! `SET 'key' = 'value'`.

use crate::duration::parse_duration;
use crate::error::{Result, SqlError};
use crate::functions::nearest;
use crate::statement::SetOption;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tidemill_engine::job::PARALLELISM_MAX;

const NAME: &str = "pipeline.name";
const PARALLELISM: &str = "parallelism.default";
const CHECKPOINT_INTERVAL: &str = "execution.checkpointing.interval";
const IDLE_TIMEOUT: &str = "table.exec.source.idle-timeout";
const STATE_TTL: &str = "table.exec.state.ttl";

/// What a text sets for its job; `None` where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// `pipeline.name`: the job's name.
    pub name: Option<String>,
    /// `parallelism.default`: the number of workers, at least 1.
    pub parallelism: Option<usize>,
    /// `execution.checkpointing.interval`: the time between two checkpoints, above 0.
    pub checkpoint_interval: Option<Duration>,
    /// `table.exec.source.idle-timeout`: after this time without a row a split no longer holds the watermark back.
    pub source_idle_timeout: Option<Duration>,
    /// `table.exec.state.ttl`: for this time after its last change, in the wall time of ticks, state is kept that no watermark
    /// drops; none: for ever.
    #[serde(default)]
    pub state_ttl: Option<Duration>,
}

impl Settings {
    /// Takes a setting over; the last one of a key counts.
    pub(crate) fn set(&mut self, option: &SetOption) -> Result<()> {
        let (key, value) = (&option.key, option.value.value.trim());
        let refusal =
            |message: &str, hint: &str| SqlError::at(option.value.at, format!("'{value}' {message}")).hint(hint);
        let duration = || parse_duration(value).ok_or_else(|| refusal("is not a duration", "write '10 s' or '5 min'"));
        match key.value.as_str() {
            NAME if value.is_empty() => return Err(refusal("is no name", "write a name")),
            NAME => self.name = Some(value.to_owned()),
            PARALLELISM => match value.parse::<usize>() {
                Ok(parallelism) if (1..=PARALLELISM_MAX).contains(&parallelism) => {
                    self.parallelism = Some(parallelism);
                }
                _ => {
                    return Err(refusal(
                        "is not a parallelism",
                        &format!("write a number from 1 to {PARALLELISM_MAX}"),
                    ));
                }
            },
            CHECKPOINT_INTERVAL => {
                let interval = duration()?;
                if interval.is_zero() {
                    return Err(refusal("is too short", "write '10 s'"));
                }
                self.checkpoint_interval = Some(interval);
            }
            IDLE_TIMEOUT => self.source_idle_timeout = Some(duration()?).filter(|timeout| !timeout.is_zero()),
            STATE_TTL => self.state_ttl = Some(duration()?).filter(|ttl| !ttl.is_zero()),
            other => {
                let known = [NAME, PARALLELISM, CHECKPOINT_INTERVAL, IDLE_TIMEOUT, STATE_TTL];
                let error = SqlError::at(key.at, format!("there is no setting '{other}'"));
                return Err(match nearest(other, known.into_iter()) {
                    Some(nearest) => error.hint(format!("did you mean '{nearest}'?")),
                    None => error.hint(format!("settings are '{}'", known.join("', '"))),
                });
            }
        }
        Ok(())
    }
}
