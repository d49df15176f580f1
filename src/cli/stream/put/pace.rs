//! Not more than so many records a second.

use std::time::Duration;

/// What may be sent at once: a tenth of a second's worth, so that a rate is not one burst a second.
const BURSTS_PER_SECOND: u32 = 10;

/// Keeps to a rate. Time that passed without records is not made up for.
#[derive(Debug)]
pub(super) struct Pace {
    rate: f64,
    burst: f64,
    room: f64,
    at: Duration,
}

impl Pace {
    /// Allows `rate` records a second.
    pub(super) fn new(rate: u32) -> Self {
        let burst = f64::from((rate / BURSTS_PER_SECOND).max(1));
        Self {
            rate: f64::from(rate),
            burst,
            room: burst,
            at: Duration::ZERO,
        }
    }

    /// Says how many records may be sent `now` (since the start), or how long to wait.
    ///
    /// # Errors
    /// The time until records may be sent.
    pub(super) fn room(&mut self, now: Duration) -> Result<usize, Duration> {
        self.room = (self.room + (now - self.at).as_secs_f64() * self.rate).min(self.burst);
        self.at = now;
        // Sending one by one at a high rate would be all overhead.
        let least = (self.burst / 2.0).max(1.0);
        if self.room >= least {
            Ok(self.room as usize)
        } else {
            // Rounded up: a wait that is too short by a fraction of a nanosecond would come again and again as none.
            Err(Duration::from_secs_f64((least - self.room) / self.rate) + Duration::from_nanos(1))
        }
    }

    /// Takes records into account that were stored.
    pub(super) fn took(&mut self, records: usize) {
        self.room -= records as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_no_more_than_the_rate_and_a_burst() {
        for rate in [1, 7, 100, 12_345] {
            let mut pace = Pace::new(rate);
            let (mut now, mut sent) = (Duration::ZERO, 0);
            while now < Duration::from_secs(10) {
                match pace.room(now) {
                    Ok(room) => {
                        pace.took(room);
                        sent += room;
                    }
                    Err(wait) => {
                        assert!(!wait.is_zero(), "{rate}");
                        now += wait;
                    }
                }
            }
            let (expected, burst) = (10 * rate as usize, (rate as usize / 10).max(1));
            assert!((expected - burst..=expected + burst).contains(&sent), "{rate}: {sent}");
        }
    }

    #[test]
    fn a_pause_is_not_made_up_for() {
        let mut pace = Pace::new(100);
        assert_eq!(pace.room(Duration::from_secs(60)), Ok(10));
    }
}
