//! `SET 'key' = 'value'`.
//!
//! File map: `emit` says when windows are told.

mod emit;

pub use emit::EmitSettings;

use crate::duration::parse_duration;
use crate::error::{Result, SqlError};
use crate::functions::nearest;
use crate::statement::SetOption;
use emit::{ALLOW_LATENESS, EARLY_DELAY, EARLY_FIRE, LATE_DELAY, LATE_FIRE};
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
    /// `table.exec.emit.*`: when windows are told besides when they end.
    #[serde(default)]
    pub emit: EmitSettings,
}

impl Settings {
    /// Returns the time to live of state in milliseconds, at least 1; `None` when it lives for ever.
    pub(crate) fn state_ttl_ms(&self) -> Option<i64> {
        let ttl = self.state_ttl?;
        Some(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX).max(1))
    }

    /// Takes a setting over; the last one of a key counts.
    pub(crate) fn set(&mut self, option: &SetOption) -> Result<()> {
        let (key, value) = (&option.key, option.value.value.trim());
        let refusal =
            |message: &str, hint: &str| SqlError::at(option.value.at, format!("'{value}' {message}")).hint(hint);
        let duration = || parse_duration(value).ok_or_else(|| refusal("is not a duration", "write '10 s' or '5 min'"));
        let boolean = || match value {
            "true" | "TRUE" => Ok(true),
            "false" | "FALSE" => Ok(false),
            _ => Err(refusal("is neither 'true' nor 'false'", "write 'true'")),
        };
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
            EARLY_FIRE => self.emit.early_fire = Some(boolean()?),
            EARLY_DELAY => self.emit.early_fire_delay = Some(duration()?),
            LATE_FIRE => self.emit.late_fire = Some(boolean()?),
            LATE_DELAY => self.emit.late_fire_delay = Some(duration()?),
            ALLOW_LATENESS => self.emit.allow_lateness = Some(duration()?),
            other => {
                let known = [NAME, PARALLELISM, CHECKPOINT_INTERVAL, IDLE_TIMEOUT, STATE_TTL].into_iter();
                let known = known.chain([EARLY_FIRE, EARLY_DELAY, LATE_FIRE, LATE_DELAY, ALLOW_LATENESS]);
                let known: Vec<&str> = known.collect();
                let error = SqlError::at(key.at, format!("there is no setting '{other}'"));
                return Err(match nearest(other, known.iter().copied()) {
                    Some(nearest) => error.hint(format!("did you mean '{nearest}'?")),
                    None => error.hint(format!("settings are '{}'", known.join("', '"))),
                });
            }
        }
        Ok(())
    }
}
