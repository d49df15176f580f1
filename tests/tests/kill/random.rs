//! Random numbers from a seed that is printed.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

/// A generator of numbers that need not be good, only different (splitmix64).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// Takes the seed from `TIDEMILL_TEST_SEED` or makes one, and prints it.
    pub(super) fn from_environment(test: &str) -> Self {
        let given = std::env::var("TIDEMILL_TEST_SEED").ok();
        let given = given.map(|text| text.parse().expect("TIDEMILL_TEST_SEED is a number"));
        let seed = given.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        eprintln!("{test}: TIDEMILL_TEST_SEED={seed}");
        Self(seed)
    }

    /// Makes a generator that has nothing in common with this one.
    pub(super) fn split(&mut self) -> Self {
        Self(self.next())
    }

    /// Returns any number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Waits for a time below `most_ms`.
    pub(super) async fn moment(&mut self, most_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.below(most_ms))).await;
    }
}
