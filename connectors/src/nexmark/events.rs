//! The numbers and times of events.
//!
//! Events count from 1. Event *n* belongs to epoch *n / 50* and has the offset *n mod 50* there; epoch 0 has no
//! offset 0.

use std::ops::Range;

/// Events of an epoch.
pub(super) const EPOCH: u64 = 50;

/// When event 0 would be: 2015-07-15 00:00:00 UTC, as in the original.
pub(crate) const BASE_MS: i64 = 1_436_918_400_000;

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Person,
    Auction,
    Bid,
}

impl Kind {
    /// Returns the offsets in each epoch that are of this kind.
    pub(super) const fn offsets(self) -> Range<u64> {
        match self {
            Self::Person => 0..1,
            Self::Auction => 1..4,
            Self::Bid => 4..EPOCH,
        }
    }
}

/// An event, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) number: u64,
    pub(super) epoch: u64,
    pub(super) offset: u64,
}

/// Events that follow one another in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) epoch: u64,
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Span {
    /// Returns how many events there are.
    pub(super) fn len(self) -> usize {
        (self.to - self.from) as usize
    }

    /// Returns how many events there are before those of a kind, of it, and behind them.
    #[inline]
    pub(super) fn parts(self, kind: Kind) -> (usize, Range<u64>, usize) {
        let Range { start, end } = kind.offsets();
        let first = start.clamp(self.from, self.to);
        let last = end.clamp(first, self.to);
        ((first - self.from) as usize, first..last, (self.to - last) as usize)
    }

    /// Returns the event at an offset.
    #[inline]
    pub(super) fn event(self, offset: u64) -> Event {
        Event {
            number: self.epoch * EPOCH + offset,
            epoch: self.epoch,
            offset,
        }
    }
}

/// Returns the first event of a split.
pub(super) fn first_of(split: u64) -> u64 {
    (split * EPOCH).max(1)
}

/// Says whether an event is one of a split's.
pub(super) fn belongs_to(number: u64, split: u64, splits: u64) -> bool {
    number > 0 && (number / EPOCH) % splits == split
}

/// Returns the spans of the next events of a split, from event `next` on and up to event `last`, at most so many; and
/// the event behind them.
pub(super) fn spans(mut next: u64, last: u64, splits: u64, count: usize) -> (Vec<Span>, u64) {
    let mut left = count as u64;
    let mut spans = Vec::with_capacity(count / EPOCH as usize + 2);
    while left > 0 && next <= last {
        let (epoch, from) = (next / EPOCH, next % EPOCH);
        let to = (from + left.min(last - next + 1)).min(EPOCH);
        spans.push(Span { epoch, from, to });
        left -= to - from;
        next = if to == EPOCH {
            (epoch + splits) * EPOCH
        } else {
            epoch * EPOCH + to
        };
    }
    (spans, next)
}

/// When events happen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeline {
    events_per_second: u64,
}

impl Timeline {
    /// Makes a timeline of so many events per second of event time, at least 1.
    pub(super) fn new(events_per_second: u64) -> Self {
        Self { events_per_second }
    }

    /// Returns an event's time, in milliseconds since 1970.
    #[inline]
    pub(super) fn time_ms(self, number: u64) -> i64 {
        BASE_MS + self.offset_ms(number) as i64
    }

    /// Calls `give` with the time of each of so many events from `number` on; there is no division per event.
    #[inline]
    pub(super) fn times_ms(self, number: u64, count: u64, mut give: impl FnMut(i64)) {
        let (step, step_rest) = (1_000 / self.events_per_second, 1_000 % self.events_per_second);
        let scaled = number * 1_000;
        let mut time = BASE_MS + (scaled / self.events_per_second) as i64;
        let mut rest = scaled % self.events_per_second;
        for _ in 0..count {
            give(time);
            rest += step_rest;
            let carry = rest >= self.events_per_second;
            rest -= if carry { self.events_per_second } else { 0 };
            time += step as i64 + i64::from(carry);
        }
    }

    /// Returns the milliseconds that the events after `number` take, `count` of them.
    #[inline]
    pub(super) fn span_ms(self, number: u64, count: u64) -> u64 {
        self.offset_ms(number + count) - self.offset_ms(number)
    }

    #[inline]
    fn offset_ms(self, number: u64) -> u64 {
        number * 1_000 / self.events_per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kinds_share_an_epoch() {
        let lengths = [Kind::Person, Kind::Auction, Kind::Bid].map(|kind| kind.offsets().count());
        assert_eq!(lengths, [1, 3, 46]);
        let span = Span {
            epoch: 7,
            from: 2,
            to: 6,
        };
        assert_eq!(span.parts(Kind::Person), (0, 2..2, 4));
        assert_eq!(span.parts(Kind::Auction), (0, 2..4, 2));
        assert_eq!(span.parts(Kind::Bid), (2, 4..6, 0));
        assert_eq!(span.event(4).number, 354);
    }

    #[test]
    fn times_are_whole_milliseconds() {
        let v1 = Timeline::new(10_000_000);
        assert_eq!(v1.time_ms(100_000_000) - v1.time_ms(0), 10_000);
        assert_eq!(v1.time_ms(9_999), BASE_MS);
        let sparse = Timeline::new(100);
        assert_eq!(sparse.time_ms(3) - BASE_MS, 30);
        assert_eq!(sparse.span_ms(0, 1_666), 16_660);
        assert_eq!(Timeline::new(3).time_ms(2) - BASE_MS, 666);
    }

    proptest! {
        #[test]
        fn times_in_a_row_are_the_times_of_each(rate in 1_u64..20_000_000, number in 1_u64..1_000_000_000_000) {
            let timeline = Timeline::new(rate);
            let mut times = Vec::new();
            timeline.times_ms(number, 60, |time| times.push(time));
            prop_assert_eq!(times, (number..number + 60).map(|number| timeline.time_ms(number)).collect::<Vec<_>>());
        }

        #[test]
        fn splits_share_all_events_out(splits in 1_u64..9, last in 0_u64..700, sizes in proptest::collection::vec(1_usize..120, 1..5)) {
            let mut all = Vec::new();
            for split in 0..splits {
                let mut next = first_of(split);
                for size in sizes.iter().cycle() {
                    prop_assert!(belongs_to(next, split, splits));
                    let (found, behind) = spans(next, last, splits, *size);
                    let count: usize = found.iter().map(|span| span.len()).sum();
                    prop_assert!(count <= *size && (count == *size || behind > last));
                    all.extend(found.iter().flat_map(|span| (span.from..span.to).map(|offset| span.event(offset).number)));
                    next = behind;
                    if count == 0 {
                        break;
                    }
                }
            }
            all.sort_unstable();
            prop_assert_eq!(all, (1..=last).collect::<Vec<_>>());
        }
    }
}
