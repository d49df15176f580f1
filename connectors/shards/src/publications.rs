//! What a publish request is answered: a pure decision.
//!
//! A sink's output of checkpoint C becomes visible once. The store remembers, for each job and sink, the last C and the
//! newest generation G that published, in the same log as the records.

use serde::{Deserialize, Serialize};

/// The last publish of one job and sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Publication {
    /// The checkpoint.
    pub(crate) checkpoint: u64,
    /// The newest generation that published, or replayed, it.
    pub(crate) generation: u64,
}

/// What to do with a publish request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Make the records visible.
    Publish,
    /// They already are.
    Replay,
    /// They already are; remember the newer generation, so that the older one is fenced.
    ReplayAndFence,
    /// Refuse: a newer checkpoint is published.
    StaleCheckpoint(Publication),
    /// Refuse: a newer generation has published.
    StaleGeneration(Publication),
}

/// Decides on a request for `checkpoint` by `generation`.
pub(crate) fn decide(last: Option<Publication>, checkpoint: u64, generation: u64) -> Decision {
    let Some(last) = last else { return Decision::Publish };
    if generation < last.generation {
        Decision::StaleGeneration(last)
    } else if checkpoint < last.checkpoint {
        Decision::StaleCheckpoint(last)
    } else if checkpoint > last.checkpoint {
        Decision::Publish
    } else if generation > last.generation {
        Decision::ReplayAndFence
    } else {
        Decision::Replay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case() {
        let last = Publication {
            checkpoint: 5,
            generation: 3,
        };
        assert_eq!(decide(None, 9, 0), Decision::Publish);
        assert_eq!(decide(Some(last), 6, 3), Decision::Publish);
        assert_eq!(decide(Some(last), 7, 4), Decision::Publish);
        assert_eq!(decide(Some(last), 5, 3), Decision::Replay);
        assert_eq!(decide(Some(last), 5, 4), Decision::ReplayAndFence);
        assert_eq!(decide(Some(last), 4, 9), Decision::StaleCheckpoint(last));
        assert_eq!(decide(Some(last), 6, 2), Decision::StaleGeneration(last));
        assert_eq!(decide(Some(last), 5, 2), Decision::StaleGeneration(last));
    }
}
