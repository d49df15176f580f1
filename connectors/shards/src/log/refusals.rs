//! Counts requests that the log refuses while it takes none, so that there is no line for each in the program's log.

use crate::limits;

/// What was refused since the log last took an append.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    total: u64,
    /// Those that no line has told yet.
    untold: u64,
    told_ms: Option<u64>,
}

impl Refusals {
    /// Counts refused requests. Gives the number of those not told yet when it is time for a line: at once for the
    /// first, then every [`limits::REFUSALS_TOLD_MS`].
    pub(crate) fn add(&mut self, requests: usize, now_ms: u64) -> Option<u64> {
        self.total += requests as u64;
        self.untold += requests as u64;
        if self
            .told_ms
            .is_some_and(|told_ms| lies_within(told_ms, now_ms, limits::REFUSALS_TOLD_MS))
        {
            return None;
        }
        self.told_ms = Some(now_ms);
        Some(std::mem::take(&mut self.untold))
    }

    /// Ends the count: the log takes appends again. Gives the number of requests that were refused, if any was.
    pub(crate) fn end(&mut self) -> Option<u64> {
        let total = std::mem::take(self).total;
        (total > 0).then_some(total)
    }
}

/// Whether less than `ms` have passed from `then` to `now`; a clock that was set back counts as passed.
pub(crate) fn lies_within(then_ms: u64, now_ms: u64, ms: u64) -> bool {
    now_ms.checked_sub(then_ms).is_some_and(|passed| passed < ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_refusal_is_told_and_then_a_count_now_and_then() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.end(), None);
        assert_eq!(refusals.add(2, 1_000), Some(2));
        for ms in 1..10_000 {
            assert_eq!(refusals.add(1, 1_000 + ms), None);
        }
        assert_eq!(refusals.add(1, 11_000), Some(10_000));
        // A clock that was set back must not silence it for long.
        assert_eq!(refusals.add(1, 500), Some(1));
        assert_eq!(refusals.end(), Some(10_003));
        assert_eq!(refusals.add(1, 600), Some(1), "the next time is told at once");
    }
}
