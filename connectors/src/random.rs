//! Random numbers by counter: the number at a place depends on the seed and the place, not on those before it.

/// A sequence of random numbers in which every place can be asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Randomness {
    seed: u64,
}

/// The golden ratio's fraction in 64 bits: steps of it fall evenly.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Randomness {
    /// Makes the sequence of a column: columns of one seed are independent of each other.
    pub(crate) fn new(seed: u64, column: &str, purpose: u64) -> Self {
        // FNV-1a over the name; the mixing does the rest.
        let name = column.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self {
            seed: mix(mix(seed ^ name).wrapping_add(purpose.wrapping_mul(STEP))),
        }
    }

    /// Returns the number at a place.
    #[inline]
    pub(crate) fn at(self, place: u64) -> u64 {
        mix(self.seed.wrapping_add(place.wrapping_mul(STEP)))
    }

    /// Returns a number below `bound`, or any number when the bound is 0.
    #[inline]
    pub(crate) fn below(self, place: u64, bound: u64) -> u64 {
        scale(self.at(place), bound)
    }

    /// Returns a number from 0 (included) to 1 (excluded).
    #[inline]
    pub(crate) fn unit(self, place: u64) -> f64 {
        (self.at(place) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Maps a random number evenly onto `0..bound`; a bound of 0 stands for 2^64.
#[inline]
pub(crate) fn scale(random: u64, bound: u64) -> u64 {
    if bound == 0 {
        random
    } else {
        u64::try_from((u128::from(random) * u128::from(bound)) >> 64).unwrap_or(0)
    }
}

/// Mixes the bits of a number so that neighbours have nothing in common (the finaliser of SplitMix64: Steele, Lea and
/// Flood, "Fast splittable pseudorandom number generators", 2014).
#[inline]
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_even_and_columns_differ() {
        let a = Randomness::new(1, "a", 0);
        let b = Randomness::new(1, "b", 0);
        let mut counts = [0_u32; 10];
        for i in 0..10_000 {
            counts[usize::try_from(a.below(i, 10)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|&count| (850..1_150).contains(&count)), "{counts:?}");
        assert!((0..1_000).all(|i| a.at(i) != b.at(i)));
        assert!((0..1_000).all(|i| (0.0..1.0).contains(&a.unit(i))));
    }

    #[test]
    fn numbers_stay_the_same_between_versions() {
        // Positions in checkpoints count on it.
        assert_eq!(Randomness::new(42, "id", 0).at(1), 0x699a_7dc6_c1ca_9d6a);
        assert_eq!(mix(1), 0x5692_161d_100b_05e5);
    }
}
