//! Numbers of segments, as ranges: the segments of a log go in order, more or less.

use serde::{Deserialize, Serialize};

use crate::ids::SegmentNumber;

/// A set of segment numbers. Stored as sorted ranges, both ends included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct SegmentSet(Vec<(u32, u32)>);

impl SegmentSet {
    /// Adds a number.
    pub(crate) fn insert(&mut self, segment: SegmentNumber) {
        let number = segment.0;
        let at = self.0.partition_point(|(_, last)| *last < number);
        if self.0.get(at).is_some_and(|(first, _)| *first <= number) {
            return;
        }
        let follows = at > 0 && self.0[at - 1].1 + 1 == number;
        let precedes = self.0.get(at).is_some_and(|(first, _)| number + 1 == *first);
        match (follows, precedes) {
            (true, true) => {
                self.0[at - 1].1 = self.0[at].1;
                self.0.remove(at);
            }
            (true, false) => self.0[at - 1].1 = number,
            (false, true) => self.0[at].0 = number,
            (false, false) => self.0.insert(at, (number, number)),
        }
    }

    /// Whether it holds a number.
    pub(crate) fn contains(&self, segment: SegmentNumber) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < segment.0);
        self.0.get(at).is_some_and(|(first, _)| *first <= segment.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn holds_what_was_put_in(numbers in prop::collection::vec(0u32..40, 0..60)) {
            let mut set = SegmentSet::default();
            let mut model = std::collections::BTreeSet::new();
            for number in numbers {
                set.insert(SegmentNumber(number));
                model.insert(number);
            }
            for number in 0..41 {
                prop_assert_eq!(set.contains(SegmentNumber(number)), model.contains(&number));
            }
            // No two ranges touch.
            prop_assert!(set.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            let json = serde_json::to_string(&set).unwrap();
            prop_assert_eq!(serde_json::from_str::<SegmentSet>(&json).unwrap(), set);
        }
    }
}
