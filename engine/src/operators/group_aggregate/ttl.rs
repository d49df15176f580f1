//! Which groups nothing has come to for their time to live.
//!
//! Groups are put into steps of wall time by when they were last touched, so a group is forgotten up to one step later than
//! its time is over. A group stands in one step, also when it is touched again and again: when its step is over, it moves on
//! to the one in which it was touched last.

use super::NO_ROW;
use std::collections::VecDeque;

/// Steps per time to live.
const STEPS: i64 = 64;

/// A step that no group is in.
const NEVER: i64 = i64::MIN;

/// When groups were last touched.
pub(super) struct Ttl {
    ttl_ms: i64,
    step_ms: i64,
    /// The step in which each group was last touched.
    last: Vec<i64>,
    /// Groups by step, the oldest first: each one in a step in which it was touched, all of them in one.
    steps: VecDeque<(i64, Vec<u32>)>,
    /// Groups that were restored without a time: theirs begins with the next tick.
    undated: Vec<u32>,
}

impl Ttl {
    pub(super) fn new(ttl_ms: i64) -> Self {
        Self {
            ttl_ms,
            step_ms: (ttl_ms / STEPS).max(1),
            last: Vec::new(),
            steps: VecDeque::new(),
            undated: Vec::new(),
        }
    }

    pub(super) fn resize(&mut self, groups: usize) {
        self.last.resize(groups, NEVER);
    }

    /// Notes that groups were touched.
    pub(super) fn written(&mut self, groups: &[u32], now_ms: i64) {
        let step = now_ms.div_euclid(self.step_ms);
        let step = self.steps.back().map_or(step, |(last, _)| step.max(*last));
        if groups.is_empty() {
            return;
        }
        if self.steps.back().is_none_or(|(last, _)| *last != step) {
            self.steps.push_back((step, Vec::new()));
        }
        if let Some((_, noted)) = self.steps.back_mut() {
            for &group in groups {
                let last = &mut self.last[group as usize];
                if *last == NEVER {
                    noted.push(group);
                }
                *last = step;
            }
        }
    }

    /// Forgets a group that has ended otherwise.
    pub(super) fn forget(&mut self, group: u32) {
        self.last[group as usize] = NEVER;
    }

    /// Returns the groups whose time is over, each once.
    pub(super) fn expired(&mut self, now_ms: i64) -> Vec<u32> {
        let undated = std::mem::take(&mut self.undated);
        self.written(&undated, now_ms);
        let mut expired = Vec::new();
        while let Some((step, _)) = self.steps.front()
            && (step + 1).saturating_mul(self.step_ms).saturating_add(self.ttl_ms) <= now_ms
        {
            let Some((step, groups)) = self.steps.pop_front() else {
                break;
            };
            for group in groups {
                match self.last[group as usize] {
                    NEVER => {}
                    last if last > step => self.note(last, group),
                    _ => {
                        self.last[group as usize] = NEVER;
                        expired.push(group);
                    }
                }
            }
        }
        expired
    }

    /// Puts a group into a step that is there or not.
    fn note(&mut self, step: i64, group: u32) {
        match self.steps.binary_search_by_key(&step, |(known, _)| *known) {
            Ok(place) => self.steps[place].1.push(group),
            Err(place) => self.steps.insert(place, (step, vec![group])),
        }
    }

    /// Returns the time in which a group was last touched, for a checkpoint.
    pub(super) fn written_ms(&self, group: u32) -> i64 {
        match self.last[group as usize] {
            NEVER => 0,
            step => step.saturating_mul(self.step_ms),
        }
    }

    /// Takes over the time of a group that was restored; 0 when it is not known.
    pub(super) fn restore(&mut self, groups: impl Iterator<Item = (u32, i64)>) {
        let mut dated: Vec<(i64, u32)> = Vec::new();
        for (group, written_ms) in groups {
            match written_ms {
                0 => self.undated.push(group),
                _ => dated.push((written_ms.div_euclid(self.step_ms), group)),
            }
        }
        // Sections come one after the other; what is noted already is put in order with the rest.
        dated.extend(
            self.steps
                .drain(..)
                .flat_map(|(step, groups)| groups.into_iter().map(move |group| (step, group))),
        );
        dated.sort_unstable();
        for (step, group) in dated {
            let last = &mut self.last[group as usize];
            *last = step.max(*last);
            match self.steps.back_mut() {
                Some((last, noted)) if *last == step => noted.push(group),
                _ => self.steps.push_back((step, vec![group])),
            }
        }
    }

    /// Follows groups to their new numbers.
    pub(super) fn renumber(&mut self, places: &[u32], count: usize) {
        let mut last = vec![NEVER; count];
        for (&step, &place) in self.last.iter().zip(places) {
            if place != NO_ROW {
                last[place as usize] = step;
            }
        }
        for (_, groups) in &mut self.steps {
            let kept = groups.iter().map(|&group| places[group as usize]);
            *groups = kept
                .filter(|&place| place != NO_ROW && last[place as usize] != NEVER)
                .collect();
        }
        self.last = last;
        let undated = self.undated.iter().map(|&group| places[group as usize]);
        self.undated = undated.filter(|&place| place != NO_ROW).collect();
    }

    pub(super) fn size(&self) -> usize {
        self.last.capacity() * 8
            + self
                .steps
                .iter()
                .map(|(_, groups)| groups.capacity() * 4)
                .sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_is_forgotten_after_its_last_touch_and_only_then() {
        let mut ttl = Ttl::new(640);
        ttl.resize(3);
        ttl.written(&[0, 1], 1_000);
        ttl.written(&[1, 2], 1_200);
        assert_eq!(ttl.expired(1_639), [] as [u32; 0]);
        assert_eq!(ttl.expired(1_650), [0]);
        assert_eq!(ttl.expired(1_650), [] as [u32; 0]);
        ttl.forget(2);
        assert_eq!(ttl.expired(9_000), [1]);
    }

    #[test]
    fn restored_groups_go_on_where_they_were_and_those_without_a_time_begin() {
        let mut ttl = Ttl::new(640);
        ttl.resize(4);
        ttl.restore([(0, 5_000), (1, 0)].into_iter());
        ttl.restore([(2, 4_000), (3, 5_005)].into_iter());
        assert_eq!(ttl.expired(5_200), [2]);
        assert_eq!(ttl.expired(5_650), [0, 3]);
        assert_eq!(ttl.expired(5_850), [1]);
    }

    #[test]
    fn group_that_is_touched_in_every_step_stands_in_one() {
        let mut ttl = Ttl::new(640);
        ttl.resize(2);
        let noted = |ttl: &Ttl| ttl.steps.iter().map(|(_, groups)| groups.len()).sum::<usize>();
        for now_ms in (1_000..5_000).step_by(10) {
            ttl.written(&[0], now_ms);
            if now_ms == 1_000 {
                ttl.written(&[1], now_ms);
            }
            let expected: &[u32] = if now_ms == 1_650 { &[1] } else { &[] };
            assert_eq!(ttl.expired(now_ms), expected, "{now_ms}");
            assert!(noted(&ttl) <= 2, "{}", noted(&ttl));
        }
        ttl.renumber(&[0, NO_ROW], 1);
        assert_eq!(ttl.written_ms(0), 4_990);
        assert_eq!(ttl.expired(5_639), [] as [u32; 0]);
        assert_eq!(ttl.expired(5_640), [0]);
        assert_eq!((ttl.expired(9_000), noted(&ttl)), (Vec::new(), 0));
    }

    #[test]
    fn numbers_change_and_times_stay() {
        let mut ttl = Ttl::new(64);
        ttl.resize(3);
        ttl.written(&[0, 1, 2], 100);
        ttl.written(&[2], 110);
        ttl.renumber(&[NO_ROW, 0, 1], 2);
        assert_eq!(ttl.expired(170), [0]);
        assert_eq!(ttl.expired(175), [1]);
    }
}
