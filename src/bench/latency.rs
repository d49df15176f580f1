//! Percentiles of times.

use serde::Serialize;
use std::time::Duration;

/// Times of one measurement, in microseconds.
#[derive(Debug, Default)]
pub(super) struct Latencies(Vec<u32>);

/// What they come to, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    /// Half are at most this.
    pub(crate) p50_ms: f64,
    /// 99 % are at most this.
    pub(crate) p99_ms: f64,
    /// 99.9 % are at most this.
    pub(crate) p999_ms: f64,
    /// The longest.
    pub(crate) max_ms: f64,
}

impl Latencies {
    pub(super) fn add(&mut self, time: Duration) {
        self.0.push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Sorts them; all zeros when there are none.
    pub(super) fn percentiles(mut self) -> Percentiles {
        self.0.sort_unstable();
        // The smallest time that is not exceeded by this share of all.
        let at = |per_mille: usize| {
            let rank = (self.0.len() * per_mille).div_ceil(1_000).max(1);
            self.0.get(rank - 1).map_or(0.0, |&micros| f64::from(micros) / 1e3)
        };
        Percentiles {
            p50_ms: at(500),
            p99_ms: at(990),
            p999_ms: at(999),
            max_ms: at(1_000),
        }
    }
}

/// The middle one; of an even number the lower of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let mut latencies = Latencies::default();
        for ms in (1..=1_000).rev() {
            latencies.add(Duration::from_millis(ms));
        }
        assert_eq!(latencies.len(), 1_000);
        let expected = Percentiles {
            p50_ms: 500.0,
            p99_ms: 990.0,
            p999_ms: 999.0,
            max_ms: 1_000.0,
        };
        assert_eq!(latencies.percentiles(), expected);
        assert_eq!(Latencies::default().percentiles(), Percentiles::default());
        let mut one = Latencies::default();
        one.add(Duration::from_millis(7));
        assert_eq!(one.percentiles().p50_ms, 7.0);
    }

    #[test]
    fn the_median_is_one_of_the_values() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.0);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
