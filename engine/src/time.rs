//! Ticks, event time and watermarks.
//!
//! Three clocks exist in a job, and each has its own type so that they cannot be mixed up:
//! [`Tick`] orders everything, event time (`i64` milliseconds since the Unix epoch, in the rows) says when a thing
//! happened, and the wall time of a tick (`i64` milliseconds, fixed when the tick opens) is what processing-time
//! functions read.

use arrow::datatypes::{DataType, TimeUnit};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A consistent cut of all sources of a job: the timestamp of the dataflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tick(pub u64);

impl Tick {
    /// Returns the tick after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Tick(self.0 + 1)
    }
}

impl fmt::Display for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tick {}", self.0)
    }
}

/// A promise about event time: no row with a time at or before it is expected any more.
///
/// The meaning is Flink's: a window `[start, end)` fires when the watermark reaches `end - 1` ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Watermark(pub i64);

impl Watermark {
    /// No promise yet.
    pub const NONE: Watermark = Watermark(i64::MIN);
    /// The table has ended: every time has passed.
    pub const END: Watermark = Watermark(i64::MAX);

    /// Returns the watermark `delay_ms` earlier; [`Watermark::NONE`] and [`Watermark::END`] stay as they are.
    #[must_use]
    pub fn delayed_by(self, delay_ms: i64) -> Self {
        if self == Self::NONE || self == Self::END {
            self
        } else {
            Watermark(self.0.saturating_sub(delay_ms))
        }
    }

    /// Returns the end (exclusive) of the last window that has fired, in milliseconds.
    #[must_use]
    pub fn last_window_end_ms(self) -> i64 {
        if self == Self::NONE {
            i64::MIN
        } else {
            self.0.saturating_add(1)
        }
    }

    /// Says whether a window that ends at `end_ms` (exclusive) has fired.
    #[must_use]
    pub fn has_passed_window(self, end_ms: i64) -> bool {
        self != Self::NONE && self.0 >= end_ms.saturating_sub(1)
    }
}

/// Returns the unit of a timestamp type.
pub(crate) fn unit_of(data_type: &DataType) -> Option<TimeUnit> {
    match data_type {
        DataType::Timestamp(unit, _) => Some(*unit),
        _ => None,
    }
}

impl Default for Watermark {
    fn default() -> Self {
        Self::NONE
    }
}

impl fmt::Display for Watermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NONE => f.write_str("none"),
            Self::END => f.write_str("end"),
            Watermark(ms) => write!(f, "{ms} ms"),
        }
    }
}

/// Where a job's time comes from: the machine, or a test.
pub trait TimeSource: Send + Sync + 'static {
    /// Wall time in milliseconds since the Unix epoch; may jump.
    fn wall_ms(&self) -> i64;
    /// Time since some fixed start; never goes back.
    fn monotonic(&self) -> std::time::Duration;
    /// Says how long a worker may sleep for `wait`; a test's clock answers `None` and wakes the worker itself.
    fn park_for(&self, wait: std::time::Duration) -> Option<std::time::Duration> {
        Some(wait)
    }
    /// Registers what a hand-driven clock calls after each advance; the machine's clock ignores it.
    fn on_advance(&self, _wake: std::sync::Arc<dyn Fn() + Send + Sync>) {}
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemTime {
    start: std::time::Instant,
}

impl Default for SystemTime {
    fn default() -> Self {
        Self {
            start: std::time::Instant::now(),
        }
    }
}

impl TimeSource for SystemTime {
    #[allow(clippy::disallowed_methods)] // the one place where the engine reads the machine's clock
    fn wall_ms(&self) -> i64 {
        match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        }
    }

    fn monotonic(&self) -> std::time::Duration {
        self.start.elapsed()
    }
}

/// A clock that a test moves by hand.
#[derive(Clone, Default)]
pub struct ManualTime {
    inner: std::sync::Arc<std::sync::Mutex<ManualTimeInner>>,
}

#[derive(Default)]
struct ManualTimeInner {
    now_ms: i64,
    wakers: Vec<std::sync::Arc<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for ManualTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualTime").field("now_ms", &self.wall_ms()).finish()
    }
}

impl ManualTime {
    /// Starts a clock at `now_ms` milliseconds since the epoch.
    #[must_use]
    pub fn at(now_ms: i64) -> Self {
        let time = Self::default();
        time.lock().now_ms = now_ms;
        time
    }

    /// Moves the clock forward and wakes the job.
    pub fn advance(&self, by: std::time::Duration) {
        let wakers = {
            let mut inner = self.lock();
            inner.now_ms += i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
            inner.wakers.clone()
        };
        for wake in wakers {
            wake();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ManualTimeInner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl TimeSource for ManualTime {
    fn wall_ms(&self) -> i64 {
        self.lock().now_ms
    }

    fn monotonic(&self) -> std::time::Duration {
        std::time::Duration::from_millis(u64::try_from(self.wall_ms()).unwrap_or(0))
    }

    fn park_for(&self, _wait: std::time::Duration) -> Option<std::time::Duration> {
        None
    }

    fn on_advance(&self, wake: std::sync::Arc<dyn Fn() + Send + Sync>) {
        self.lock().wakers.push(wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_fires_when_the_watermark_reaches_its_last_millisecond() {
        assert!(!Watermark(998).has_passed_window(1000));
        assert!(Watermark(999).has_passed_window(1000));
        assert!(!Watermark::NONE.has_passed_window(i64::MIN));
        assert!(Watermark::END.has_passed_window(i64::MAX));
    }

    #[test]
    fn delay_leaves_the_extremes_alone() {
        assert_eq!(Watermark::END.delayed_by(5), Watermark::END);
        assert_eq!(Watermark::NONE.delayed_by(5), Watermark::NONE);
        assert_eq!(Watermark(7).delayed_by(5), Watermark(2));
    }
}
