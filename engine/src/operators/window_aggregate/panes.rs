//! Panes: what overlapping windows share.
//!
//! ```text
//!  HOP, size 10, slide 4: panes of 2        CUMULATE, size 6, step 2: panes of 2
//!   0  2  4  6  8 10 12 14                   0  2  4  6  8
//!   [--------------)                         [--)
//!               [--------------)             [-----)
//!                                            [--------)
//!                                                     [--)
//! ```
//! A row is aggregated once, into its pane, whatever the number of windows it is in. Windows are made of whole panes.

use super::Window;
use super::rows::tumble_start;
use crate::graph::WindowAssigner;

/// Windows that are made of panes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Panes {
    /// Every `slide_ms` one of `size_ms`; the size is at least the slide.
    Hop {
        size_ms: i64,
        slide_ms: i64,
        offset_ms: i64,
        pane_ms: i64,
    },
    /// Within every `size_ms` one per `step_ms`, all with the same start; the size is a multiple of the step.
    Cumulate { size_ms: i64, step_ms: i64, offset_ms: i64 },
}

impl Panes {
    /// Returns the panes of an assigner; `None` when each row is in one window.
    pub(crate) fn of(assigner: &WindowAssigner) -> Option<Self> {
        match *assigner {
            WindowAssigner::Hop {
                size_ms,
                slide_ms,
                offset_ms,
                ..
            } => Some(Self::Hop {
                size_ms,
                slide_ms,
                offset_ms,
                pane_ms: greatest_common_divisor(size_ms, slide_ms),
            }),
            WindowAssigner::Cumulate {
                size_ms,
                step_ms,
                offset_ms,
                ..
            } => Some(Self::Cumulate {
                size_ms,
                step_ms,
                offset_ms,
            }),
            WindowAssigner::Tumble { .. } | WindowAssigner::Session { .. } | WindowAssigner::Attached { .. } => None,
        }
    }

    /// Returns the pane of a time.
    pub(super) fn pane_of(self, time_ms: i64) -> Window {
        let (pane_ms, offset_ms) = match self {
            Self::Hop { pane_ms, offset_ms, .. } => (pane_ms, offset_ms),
            Self::Cumulate { step_ms, offset_ms, .. } => (step_ms, offset_ms),
        };
        let start_ms = tumble_start(time_ms, pane_ms, offset_ms);
        Window {
            end_ms: start_ms.saturating_add(pane_ms),
            start_ms,
        }
    }

    /// Returns start and end of all windows of a time, in the order of their ends.
    pub(crate) fn windows_of(self, time_ms: i64) -> impl Iterator<Item = (i64, i64)> {
        let pane = self.pane_of(time_ms);
        let last_end_ms = self.last_end(pane);
        let next = move |window: &Window| {
            let after_ms = window.end_ms.checked_add(1)?;
            Some(self.window_from(after_ms)).filter(|next| next.end_ms <= last_end_ms && next.end_ms > window.end_ms)
        };
        std::iter::successors(Some(self.window_from(pane.end_ms)), next).map(|window| (window.start_ms, window.end_ms))
    }

    /// Returns the end of the last window that a pane is part of.
    pub(super) fn last_end(self, pane: Window) -> i64 {
        match self {
            Self::Hop {
                size_ms,
                slide_ms,
                offset_ms,
                ..
            } => tumble_start(pane.start_ms, slide_ms, offset_ms).saturating_add(size_ms),
            Self::Cumulate { size_ms, offset_ms, .. } => {
                tumble_start(pane.start_ms, size_ms, offset_ms).saturating_add(size_ms)
            }
        }
    }

    /// Returns the first window that ends at or behind `ms`.
    pub(super) fn window_from(self, ms: i64) -> Window {
        let (every_ms, shift_ms) = match self {
            Self::Hop {
                size_ms,
                slide_ms,
                offset_ms,
                ..
            } => (slide_ms, offset_ms.saturating_add(size_ms)),
            Self::Cumulate { step_ms, offset_ms, .. } => (step_ms, offset_ms),
        };
        let end_ms = ms.saturating_add((i128::from(shift_ms) - i128::from(ms)).rem_euclid(i128::from(every_ms)) as i64);
        let start_ms = match self {
            Self::Hop { size_ms, .. } => end_ms.saturating_sub(size_ms),
            Self::Cumulate { size_ms, offset_ms, .. } => tumble_start(end_ms.saturating_sub(1), size_ms, offset_ms),
        };
        Window { end_ms, start_ms }
    }
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hop(size_ms: i64, slide_ms: i64, offset_ms: i64) -> Panes {
        Panes::of(&WindowAssigner::Hop {
            time: 0,
            size_ms,
            slide_ms,
            offset_ms,
        })
        .unwrap()
    }

    proptest! {
        /// Every window that holds a time holds its whole pane, the last one is the last, and none is skipped.
        #[test]
        fn windows_are_made_of_whole_panes(
            slide in 1i64..12, more in 0i64..30, steps in 1i64..6, offset in -20i64..20, time in -100i64..100, is_hop: bool,
        ) {
            let panes = if is_hop {
                hop(slide + more, slide, offset)
            } else {
                Panes::Cumulate { size_ms: slide * steps, step_ms: slide, offset_ms: offset }
            };
            let pane = panes.pane_of(time);
            prop_assert!(pane.start_ms <= time && time < pane.end_ms);
            let mut ends = Vec::new();
            let mut window = panes.window_from(time - 100);
            while window.end_ms < time + 100 {
                if window.start_ms <= time && time < window.end_ms {
                    prop_assert!(window.start_ms <= pane.start_ms && pane.end_ms <= window.end_ms);
                    ends.push(window.end_ms);
                }
                let next = panes.window_from(window.end_ms + 1);
                prop_assert!(next.end_ms > window.end_ms && next.end_ms - window.end_ms <= slide);
                window = next;
            }
            let listed: Vec<i64> = panes.windows_of(time).map(|(_, end)| end).collect();
            prop_assert_eq!(&ends, &listed);
            prop_assert_eq!(ends.first().copied(), Some(panes.window_from(pane.end_ms).end_ms));
            prop_assert_eq!(ends.last().copied(), Some(panes.last_end(pane)));
        }
    }
}
