//! The time that expiry trusts.
//!
//! What is expired cannot be taken back, so a wall clock that is wrong for a moment must not expire a year of data. The
//! wall clock is believed as long as it agrees with the machine's monotonic clock, within [`STEP_MS`] in all. When it is
//! further ahead, time goes on by the monotonic clock until the new offset has held for a while: then it is believed.
//! While the process is down no clock is watched, so a long pause is confirmed in the same way. A clock that goes back
//! is followed at once: it only keeps records longer.

/// How far the wall clock may run ahead of the monotonic one without a question.
pub(crate) const STEP_MS: u64 = 3_600_000;

/// Turns readings of both clocks into a time to trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TrustedClock {
    /// Time that the wall clock has to be confirmed.
    confirm_ms: u64,
    /// A wall-clock time that was believed, and the monotonic one then.
    anchor: (u64, u64),
    doubt: Option<Doubt>,
}

/// The wall clock is ahead of what is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Doubt {
    /// Monotonic time since which it is.
    since: u64,
    /// Wall clock minus monotonic clock, when it began.
    offset: u64,
}

impl TrustedClock {
    /// Starts where the last process stopped: at `recorded_ms`, or at the wall clock when nothing is recorded.
    pub(crate) fn new(recorded_ms: Option<u64>, wall_ms: u64, monotonic_ms: u64, confirm_ms: u64) -> Self {
        Self {
            confirm_ms,
            anchor: (recorded_ms.unwrap_or(wall_ms), monotonic_ms),
            doubt: None,
        }
    }

    /// The time to trust, given both clocks.
    pub(crate) fn now(&mut self, wall_ms: u64, monotonic_ms: u64) -> u64 {
        let (anchor, since) = self.anchor;
        let expected = anchor + monotonic_ms.saturating_sub(since);
        if wall_ms < expected {
            self.anchor = (wall_ms, monotonic_ms);
            self.doubt = None;
            return wall_ms;
        }
        if wall_ms <= expected + STEP_MS {
            // The anchor stays: many small steps do not add up to a large one.
            self.doubt = None;
            return wall_ms;
        }
        let offset = wall_ms.saturating_sub(monotonic_ms);
        match self.doubt {
            Some(doubt) if doubt.offset.abs_diff(offset) <= STEP_MS => {
                if monotonic_ms.saturating_sub(doubt.since) >= self.confirm_ms {
                    self.anchor = (wall_ms, monotonic_ms);
                    self.doubt = None;
                    return wall_ms;
                }
            }
            _ => {
                self.doubt = Some(Doubt {
                    since: monotonic_ms,
                    offset,
                });
            }
        }
        expected
    }

    /// Whether the wall clock is not believed at present.
    pub(crate) fn in_doubt(&self) -> bool {
        self.doubt.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_800_000_000_000;
    const HOUR: u64 = 3_600_000;
    const DAY: u64 = 24 * HOUR;

    /// Readings (wall since START, monotonic) and what is trusted (since START).
    fn run(recorded: Option<u64>, readings: &[(i64, u64, i64)]) {
        let at = |offset: i64| START.checked_add_signed(offset).unwrap();
        let mut clock = TrustedClock::new(recorded, at(readings[0].0), readings[0].1, HOUR);
        for (step, &(wall, monotonic, trusted)) in readings.iter().enumerate() {
            assert_eq!(clock.now(at(wall), monotonic), at(trusted), "step {step}");
        }
    }

    fn h(hours: i64) -> i64 {
        hours * HOUR as i64
    }

    #[test]
    fn time_that_passes_is_trusted() {
        run(None, &[(0, 0, 0), (h(1), HOUR, h(1)), (h(500), 500 * HOUR, h(500))]);
    }

    #[test]
    fn a_jump_is_trusted_after_it_was_confirmed() {
        run(
            None,
            &[
                (0, 0, 0),
                (h(10_000), 10, 10),
                (h(10_000) + 1_000, 1_010, 1_010),
                (h(10_000) + h(1), HOUR + 9, HOUR as i64 + 9),
                (h(10_001) + 10, HOUR + 10, h(10_001) + 10),
            ],
        );
    }

    #[test]
    fn a_jump_that_is_taken_back_expires_nothing() {
        run(
            None,
            &[
                (0, 0, 0),
                (h(10_000), 10, 10),
                (20, 20, 20),
                // Another jump begins its confirmation anew.
                (h(10_000), HOUR + 20, HOUR as i64 + 20),
            ],
        );
        // A jump on top of a jump as well.
        run(
            None,
            &[
                (0, 0, 0),
                (h(10), 0, 0),
                (h(100), HOUR, h(1)),
                (h(100) + 5, HOUR + 5, h(1) + 5),
            ],
        );
    }

    #[test]
    fn many_small_steps_are_one_large_step() {
        let mut clock = TrustedClock::new(None, START, 0, HOUR);
        for minute in 1..=1_000u64 {
            // The wall clock gains a minute with every second.
            let trusted = clock.now(START + minute * 60_000, minute * 1_000);
            assert!(trusted <= START + minute * 1_000 + STEP_MS, "{minute}");
        }
    }

    #[test]
    fn a_clock_that_goes_back_is_followed() {
        run(None, &[(0, 0, 0), (h(-5), 10, h(-5)), (h(-5) + 10, 20, h(-5) + 10)]);
    }

    #[test]
    fn a_long_pause_is_confirmed_and_a_short_one_is_believed() {
        run(Some(START - HOUR), &[(0, 0, 0)]);
        let week = 7 * DAY as i64;
        let hour = HOUR as i64;
        run(
            Some(START),
            &[(week, 0, 0), (week + 5, 5, 5), (week + hour, HOUR, week + hour)],
        );
    }
}
