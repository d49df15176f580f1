//! Settings of the account, which is the store. The service has one: a commitment to a minimum of on-demand throughput.
//! Nobody is billed here; it is kept and told, because clients ask for it.

use serde::{Deserialize, Serialize};

use crate::limits::BILLING_COMMITMENT_MS;

/// What is told about the commitment at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Commitment {
    Disabled,
    Enabled,
    /// It was disabled, and lasts until the end of its shortest time.
    EnabledUntilEarliestEnd,
}

/// The settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccountSettings {
    /// When the commitment was made, milliseconds since 1970.
    #[serde(default)]
    pub(crate) started_ms: Option<u64>,
    /// When it ends, or ended.
    #[serde(default)]
    pub(crate) ended_ms: Option<u64>,
}

impl AccountSettings {
    /// What is told at `now_ms`.
    pub(crate) fn commitment(&self, now_ms: u64) -> Commitment {
        match (self.started_ms, self.ended_ms) {
            (None, _) => Commitment::Disabled,
            (Some(_), None) => Commitment::Enabled,
            (Some(_), Some(ended)) if now_ms < ended => Commitment::EnabledUntilEarliestEnd,
            (Some(_), Some(_)) => Commitment::Disabled,
        }
    }

    /// When it can end at the earliest.
    pub(crate) fn earliest_end_ms(&self) -> Option<u64> {
        self.started_ms.map(|started| started + BILLING_COMMITMENT_MS)
    }

    /// The settings after the commitment is made.
    pub(crate) fn enable(self, now_ms: u64) -> Self {
        match self.commitment(now_ms) {
            Commitment::Disabled => Self {
                started_ms: Some(now_ms),
                ended_ms: None,
            },
            Commitment::Enabled | Commitment::EnabledUntilEarliestEnd => Self { ended_ms: None, ..self },
        }
    }

    /// The settings after the commitment is withdrawn.
    pub(crate) fn disable(self, now_ms: u64) -> Self {
        match self.commitment(now_ms) {
            Commitment::Enabled => Self {
                ended_ms: self.earliest_end_ms().map(|earliest| earliest.max(now_ms)),
                ..self
            },
            Commitment::Disabled | Commitment::EnabledUntilEarliestEnd => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commitment_lasts_a_day_at_least() {
        let day = BILLING_COMMITMENT_MS;
        let settings = AccountSettings::default();
        assert_eq!(settings.disable(5), settings);
        let enabled = settings.enable(10);
        assert_eq!(enabled.commitment(10 * day), Commitment::Enabled);
        assert_eq!(enabled.enable(50), enabled);
        let early = enabled.disable(20);
        assert_eq!(early.commitment(20), Commitment::EnabledUntilEarliestEnd);
        assert_eq!(early.commitment(10 + day), Commitment::Disabled);
        assert_eq!(early.enable(30), enabled);
        let late = enabled.disable(10 + 2 * day);
        assert_eq!(late.commitment(10 + 2 * day), Commitment::Disabled);
        assert_eq!(late.enable(3 * day).started_ms, Some(3 * day));
    }
}
