//! `table.exec.emit.*`: when windows are told besides when they end, in Flink's words.

use crate::error::{Result, SqlError};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tidemill_engine::graph::{TimeDomain, Updates};

pub(super) const EARLY_FIRE: &str = "table.exec.emit.early-fire.enabled";
pub(super) const EARLY_DELAY: &str = "table.exec.emit.early-fire.delay";
pub(super) const LATE_FIRE: &str = "table.exec.emit.late-fire.enabled";
pub(super) const LATE_DELAY: &str = "table.exec.emit.late-fire.delay";
pub(super) const ALLOW_LATENESS: &str = "table.exec.emit.allow-lateness";

/// When windows are told; `None` where a text says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmitSettings {
    /// `table.exec.emit.early-fire.enabled`: windows are told before they end.
    pub early_fire: Option<bool>,
    /// `table.exec.emit.early-fire.delay`: how long after a change at most.
    pub early_fire_delay: Option<Duration>,
    /// `table.exec.emit.late-fire.enabled`: late rows are gathered before their windows are told again.
    pub late_fire: Option<bool>,
    /// `table.exec.emit.late-fire.delay`: for how long at most.
    pub late_fire_delay: Option<Duration>,
    /// `table.exec.emit.allow-lateness`: for how long behind its end a window takes in rows.
    pub allow_lateness: Option<Duration>,
}

impl EmitSettings {
    /// Returns when windows of a clock are told besides when they end; `None` when they are not.
    ///
    /// # Errors
    /// When the settings do not fit together.
    pub(crate) fn updates(&self, time: TimeDomain) -> Result<Option<Updates>> {
        let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let fires = |fires: Option<bool>, delay: Option<Duration>, names: (&str, &str)| match (fires, delay) {
            (Some(true), None) => Err(
                SqlError::new(format!("'{}' is set without '{}'", names.0, names.1)).hint(format!(
                    "write SET '{}' = '1 s', or '0 s' to tell what changes at once",
                    names.1
                )),
            ),
            (None, Some(_)) => Err(SqlError::new(format!("'{}' is set without '{}'", names.1, names.0))
                .hint(format!("write SET '{}' = 'true'", names.0))),
            (Some(true), Some(delay)) => Ok(Some(ms(delay))),
            _ => Ok(None),
        };
        let early_ms = fires(self.early_fire, self.early_fire_delay, (EARLY_FIRE, EARLY_DELAY))?;
        let late_ms = fires(self.late_fire, self.late_fire_delay, (LATE_FIRE, LATE_DELAY))?;
        let allowed_lateness_ms = self.allow_lateness.map_or(0, ms);
        if late_ms.is_some() && allowed_lateness_ms == 0 {
            return Err(SqlError::new(format!("'{LATE_FIRE}' is set and no row may be late"))
                .hint(format!("write SET '{ALLOW_LATENESS}' = '1 min'")));
        }
        Ok(match time {
            TimeDomain::EventTime if early_ms.is_some() || allowed_lateness_ms > 0 => Some(Updates {
                early_ms,
                // A row that is not gathered is told at once.
                late_ms: late_ms.unwrap_or(0),
                allowed_lateness_ms,
            }),
            // By the wall clock no row is late.
            TimeDomain::ProcessingTime if early_ms.is_some() => Some(Updates {
                early_ms,
                ..Updates::default()
            }),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_do_not_fit_together_are_refused() {
        let second = Some(Duration::from_secs(1));
        let none = EmitSettings::default();
        let refused = |settings: EmitSettings| settings.updates(TimeDomain::EventTime).unwrap_err().message;
        assert_eq!(none.updates(TimeDomain::EventTime).unwrap(), None);
        let early = EmitSettings {
            early_fire: Some(true),
            ..none
        };
        assert!(refused(early).contains("without 'table.exec.emit.early-fire.delay'"));
        let delay = EmitSettings {
            early_fire_delay: second,
            ..none
        };
        assert!(refused(delay).contains("without 'table.exec.emit.early-fire.enabled'"));
        let late = EmitSettings {
            late_fire: Some(true),
            late_fire_delay: second,
            ..none
        };
        assert!(refused(late).contains("no row may be late"));
        // Switched off in so many words.
        let off = EmitSettings {
            early_fire: Some(false),
            early_fire_delay: second,
            ..none
        };
        assert_eq!(off.updates(TimeDomain::EventTime).unwrap(), None);
        let lateness = EmitSettings {
            allow_lateness: second,
            ..none
        };
        let updates = lateness.updates(TimeDomain::EventTime).unwrap().unwrap();
        assert_eq!(
            (updates.early_ms, updates.late_ms, updates.allowed_lateness_ms),
            (None, 0, 1_000)
        );
        assert_eq!(lateness.updates(TimeDomain::ProcessingTime).unwrap(), None);
    }
}
