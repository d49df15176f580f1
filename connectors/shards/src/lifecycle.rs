//! The states of a stream: CREATING, ACTIVE, UPDATING, DELETING.
//!
//! A change takes effect at once and as a whole; nothing here needs minutes, as the service does. The states exist
//! because clients wait for them. A [`Transition`] says until when clients are told that a change is under way; the
//! state is computed from it and the clock, so nobody has to end it, and a restart in the middle goes on with it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What clients are told about a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StreamStatus {
    /// It is not there yet: no shards are told, and no records are taken.
    Creating,
    /// Everything can be done with it.
    Active,
    /// It is read and written as always; another change is refused.
    Updating,
    /// It will be gone.
    Deleting,
}

impl StreamStatus {
    /// As the service writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "CREATING",
            Self::Active => "ACTIVE",
            Self::Updating => "UPDATING",
            Self::Deleting => "DELETING",
        }
    }
}

impl fmt::Display for StreamStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A state that passes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// The state meanwhile.
    pub status: StreamStatus,
    /// When it began, milliseconds since 1970.
    pub since_ms: u64,
    /// When it is over.
    pub until_ms: u64,
}

impl Transition {
    /// A transition from now on; `None` when it takes no time.
    pub(crate) fn start(status: StreamStatus, now_ms: u64, delay_ms: u64) -> Option<Self> {
        (delay_ms > 0).then(|| Self {
            status,
            since_ms: now_ms,
            until_ms: now_ms.saturating_add(delay_ms),
        })
    }

    /// Whether it is under way. A clock that was set back ends it too: nobody waits for the hour to come again.
    pub(crate) fn lasts(&self, now_ms: u64) -> bool {
        (self.since_ms..self.until_ms).contains(&now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transitions_pass_by_the_clock() {
        assert_eq!(Transition::start(StreamStatus::Creating, 5, 0), None);
        let transition = Transition::start(StreamStatus::Creating, 100, 50).unwrap();
        for (now, lasts) in [(99, false), (100, true), (149, true), (150, false)] {
            assert_eq!(transition.lasts(now), lasts, "{now}");
        }
    }
}
