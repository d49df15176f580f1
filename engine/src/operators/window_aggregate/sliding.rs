//! The merged state of the panes of one window, carried on to the next window.
//!
//! When a window fires, the panes that are new in it are merged in and those that it has left behind are taken out: a pane
//! is merged a fixed number of times, not once per window. How a pane is taken out depends on the function:
//!
//! - Counts, exact sums and sets are subtracted, and lists lose what came first.
//! - The rest (`min`, `max`, first and last values, sums of floats) is kept in two stacks. Panes come in at the back, whose merged state is
//!   `back`. When a pane is to go and there is none in front, all panes move to the front: going from the newest to the
//!   oldest, each gets the merged state of itself and everything newer, in this order. What the window holds of a key is then the state
//!   at the key's oldest pane in front, merged with the back; taking out the oldest pane moves its keys on to the pane
//!   where they come next.
//!
//! All of this is made from the panes, so it is not part of a checkpoint, and a row that arrives for a pane that is in
//! already (between windows that have fired and windows that have not) only marks it to be made again.

use super::Window;
use super::state::WindowState;
use crate::aggregate::{Accumulator, AggregateCall, EncodedState};
use crate::error::{Error, Result};
use crate::key::key_hash;
use crate::operators::group_table::GroupTable;
use arrow::array::ArrayRef;
use std::collections::{BTreeMap, VecDeque};

/// Fewer keys than this that left the window are not worth making the groups again.
const GONE_MIN: usize = 4096;

/// No pane in front.
const NOWHERE: Place = Place {
    pane: u64::MAX,
    group: 0,
};

/// The merged panes of the window that fired last.
pub(super) struct Sliding {
    groups: GroupTable,
    /// In how many of the window's panes each key is.
    panes_of: Vec<u32>,
    /// Keys that are in none.
    gone: usize,
    functions: Vec<Merged>,
    /// The panes that are in, oldest first, each with the groups of its keys.
    panes: VecDeque<(Window, Vec<u32>)>,
    front: VecDeque<Front>,
    /// Where each key's oldest state in front is.
    front_of: Vec<Place>,
    /// How many panes went out of the front: the number of its first one.
    front_first: u64,
    merged_until_ms: i64,
    is_stale: bool,
}

enum Merged {
    /// Takes panes out by subtraction.
    Retracted(Box<dyn Accumulator>),
    /// Merges the panes behind the front.
    Back(Box<dyn Accumulator>),
}

/// A pane in front: for the functions that are not subtracted, the state of its keys in it and all newer panes in front.
struct Front {
    suffixes: Vec<Option<Box<dyn Accumulator>>>,
    /// Where each of its keys comes next.
    next: Vec<Place>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    pane: u64,
    group: u32,
}

impl Sliding {
    pub(super) fn new(aggregates: &[AggregateCall]) -> Self {
        let functions = aggregates.iter().map(|call| {
            let accumulator = call.function.accumulator();
            if accumulator.can_retract() {
                Merged::Retracted(accumulator)
            } else {
                Merged::Back(accumulator)
            }
        });
        Self {
            groups: GroupTable::default(),
            panes_of: Vec::new(),
            gone: 0,
            functions: functions.collect(),
            panes: VecDeque::new(),
            front: VecDeque::new(),
            front_of: Vec::new(),
            front_first: 0,
            merged_until_ms: i64::MIN,
            is_stale: false,
        }
    }

    /// Learns that a row was added to a pane.
    pub(super) fn touched(&mut self, pane: Window) {
        self.is_stale |= pane.end_ms <= self.merged_until_ms;
    }

    /// Merges all panes that end at or before `end_ms` and are not in yet.
    pub(super) fn advance(
        &mut self,
        aggregates: &[AggregateCall],
        open: &BTreeMap<Window, WindowState>,
        end_ms: i64,
    ) -> Result<()> {
        if self.is_stale || self.gone > GONE_MIN.max(self.groups.len() / 2) {
            *self = Self::new(aggregates);
        }
        let after = |end_ms: i64| Window {
            end_ms: end_ms.saturating_add(1),
            start_ms: i64::MIN,
        };
        if self.merged_until_ms < end_ms {
            for (&pane, state) in open.range(after(self.merged_until_ms)..after(end_ms)) {
                self.push(pane, state)?;
            }
        }
        self.merged_until_ms = self.merged_until_ms.max(end_ms);
        Ok(())
    }

    fn push(&mut self, pane: Window, state: &WindowState) -> Result<()> {
        let mut groups = Vec::with_capacity(state.len());
        for group in 0..state.len() as u32 {
            let key = state.key(group);
            let merged = self.groups.group(key_hash(key), key);
            if merged as usize == self.panes_of.len() {
                self.panes_of.push(0);
                self.front_of.push(NOWHERE);
                // Not in yet, like a key that has left.
                self.gone += 1;
            }
            self.gone -= usize::from(self.panes_of[merged as usize] == 0);
            self.panes_of[merged as usize] += 1;
            groups.push(merged);
        }
        for (function, merged) in self.functions.iter_mut().enumerate() {
            let (Merged::Retracted(accumulator) | Merged::Back(accumulator)) = merged;
            accumulator.resize(self.groups.len());
            accumulator.decode(&state.encode_all(function)?, &groups)?;
        }
        self.panes.push_back((pane, groups));
        Ok(())
    }

    /// Takes a pane out, the oldest one; nothing if it never came in.
    pub(super) fn remove(
        &mut self,
        aggregates: &[AggregateCall],
        open: &BTreeMap<Window, WindowState>,
        pane: Window,
    ) -> Result<()> {
        if self.is_stale || self.panes.front().is_none_or(|(oldest, _)| *oldest != pane) {
            return Ok(());
        }
        let has_stacks = self.functions.iter().any(|merged| matches!(merged, Merged::Back(_)));
        if has_stacks && self.front.is_empty() {
            self.flip(aggregates, open)?;
        }
        let Some((_, groups)) = self.panes.pop_front() else {
            return Ok(());
        };
        for (function, merged) in self.functions.iter_mut().enumerate() {
            if let Merged::Retracted(accumulator) = merged {
                accumulator.retract(&pane_state(open, pane)?.encode_all(function)?, &groups)?;
            }
        }
        if let Some(front) = self.front.pop_front() {
            self.front_first += 1;
            for (&group, next) in groups.iter().zip(front.next) {
                self.front_of[group as usize] = next;
            }
        }
        for &group in &groups {
            let panes = &mut self.panes_of[group as usize];
            *panes -= 1;
            self.gone += usize::from(*panes == 0);
        }
        Ok(())
    }

    /// Moves all panes to the front.
    fn flip(&mut self, aggregates: &[AggregateCall], open: &BTreeMap<Window, WindowState>) -> Result<()> {
        let count = self.panes.len() as u64;
        for (index, (pane, groups)) in self.panes.iter().enumerate().rev() {
            let state = pane_state(open, *pane)?;
            let place = |own: usize| Place {
                pane: self.front_first + index as u64,
                group: own as u32,
            };
            let next: Vec<Place> = groups
                .iter()
                .enumerate()
                .map(|(own, &group)| std::mem::replace(&mut self.front_of[group as usize], place(own)))
                .collect();
            // The groups of each newer pane that go on from here, with their own numbers.
            let mut newer: Vec<(Vec<u32>, Vec<u32>)> = vec![Default::default(); self.front.len()];
            for (own, next) in next.iter().enumerate().filter(|(_, next)| **next != NOWHERE) {
                let (theirs, ours) = &mut newer[(next.pane - self.front_first) as usize - index - 1];
                theirs.push(next.group);
                ours.push(own as u32);
            }
            let own: Vec<u32> = (0..groups.len() as u32).collect();
            let mut suffixes = Vec::with_capacity(aggregates.len());
            for (function, call) in aggregates.iter().enumerate() {
                if let Merged::Retracted(_) = self.functions[function] {
                    suffixes.push(None);
                    continue;
                }
                // The older state first: functions may need the order.
                let mut suffix = call.function.accumulator();
                suffix.resize(groups.len());
                suffix.decode(&state.encode_all(function)?, &own)?;
                for (front, (theirs, ours)) in self.front.iter().zip(&newer) {
                    if let Some(of_front) = front.suffixes[function].as_ref().filter(|_| !ours.is_empty()) {
                        suffix.decode(&of_front.encode(theirs)?, ours)?;
                    }
                }
                suffixes.push(Some(suffix));
            }
            self.front.push_front(Front { suffixes, next });
        }
        debug_assert_eq!(self.front.len() as u64, count);
        for (merged, call) in self.functions.iter_mut().zip(aggregates) {
            if let Merged::Back(back) = merged {
                *back = call.function.accumulator();
                back.resize(self.groups.len());
            }
        }
        Ok(())
    }

    /// Returns up to `rows` groups of the window from `next` on, and the group to go on with.
    pub(super) fn groups_from(&self, next: usize, rows: usize) -> (Vec<u32>, usize) {
        let mut groups = Vec::with_capacity(rows.min(self.groups.len() - next));
        let mut next = next;
        while next < self.groups.len() && groups.len() < rows {
            if self.panes_of[next] > 0 {
                groups.push(next as u32);
            }
            next += 1;
        }
        (groups, next)
    }

    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    pub(super) fn key(&self, group: u32) -> &[u8] {
        self.groups.key(group)
    }

    /// Returns one result column per function.
    pub(super) fn results(&self, aggregates: &[AggregateCall], groups: &[u32]) -> Result<Vec<ArrayRef>> {
        // The groups of each pane in front, with the row they are for.
        let mut in_front: Vec<(Vec<u32>, Vec<u32>)> = vec![Default::default(); self.front.len()];
        for (row, &group) in groups.iter().enumerate() {
            let place = self.front_of[group as usize];
            if place != NOWHERE {
                let (own, rows) = &mut in_front[(place.pane - self.front_first) as usize];
                own.push(place.group);
                rows.push(row as u32);
            }
        }
        let all: Vec<u32> = (0..groups.len() as u32).collect();
        let mut columns = Vec::with_capacity(aggregates.len());
        for (function, call) in aggregates.iter().enumerate() {
            columns.push(match &self.functions[function] {
                Merged::Retracted(accumulator) => accumulator.evaluate(groups)?,
                Merged::Back(back) if self.front.is_empty() => back.evaluate(groups)?,
                Merged::Back(back) => {
                    let mut merged = call.function.accumulator();
                    merged.resize(groups.len());
                    for (front, (own, rows)) in self.front.iter().zip(&in_front) {
                        if let Some(suffix) = front.suffixes[function].as_ref().filter(|_| !own.is_empty()) {
                            merged.decode(&suffix.encode(own)?, rows)?;
                        }
                    }
                    merged.decode(&back.encode(groups)?, &all)?;
                    merged.evaluate(&all)?
                }
            });
        }
        Ok(columns)
    }

    /// Returns about how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        let merged = self.functions.iter().map(|merged| match merged {
            Merged::Retracted(accumulator) | Merged::Back(accumulator) => accumulator.size(),
        });
        let front = self.front.iter().map(|front| {
            let suffixes = front
                .suffixes
                .iter()
                .flatten()
                .map(|suffix| suffix.size())
                .sum::<usize>();
            suffixes + front.next.capacity() * size_of::<Place>()
        });
        let panes = self.panes.iter().map(|(_, groups)| groups.capacity() * 4);
        self.groups.size() + merged.chain(front).chain(panes).sum::<usize>() + self.front_of.capacity() * 20
    }
}

fn pane_state(open: &BTreeMap<Window, WindowState>, pane: Window) -> Result<&WindowState> {
    open.get(&pane)
        .ok_or_else(|| Error::Internal("a pane was dropped before it left the window".into()))
}

/// The state of all groups of a pane.
impl WindowState {
    fn encode_all(&self, function: usize) -> Result<EncodedState> {
        let groups: Vec<u32> = (0..self.len() as u32).collect();
        self.encode(function, &groups)
    }
}
