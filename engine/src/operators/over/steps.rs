//! Finds the frames of rows that are due.

use super::{Past, Plan};
use crate::graph::OverFrame;
use crate::rows::RowRef;
use std::collections::VecDeque;
use std::ops::Range;

/// The rows of one key, and what comes of them.
pub(super) struct KeyRows {
    pub(super) group: u32,
    /// Its rows in [`Steps::by_key`].
    pub(super) rows: Range<usize>,
    /// The first row of its last frame: see [`Step::front`].
    pub(super) front: usize,
}

/// A row, or the rows of one time where a frame is one of time. Rows of a key are counted from its oldest row in the history on; those
/// that are due follow.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// The key among [`Steps::keys`].
    pub(super) key: usize,
    pub(super) group: u32,
    /// The rows that came, of [`Steps::by_key`].
    pub(super) rows: Range<usize>,
    /// The rows that left the frame.
    pub(super) left: Range<usize>,
    /// The first row of the frame.
    pub(super) front: usize,
}

/// The steps of rows that are due.
pub(super) struct Steps {
    /// The rows by key, and in the order of time within.
    pub(super) by_key: Vec<u32>,
    pub(super) keys: Vec<KeyRows>,
    /// The steps, round by round.
    pub(super) steps: Vec<Step>,
    /// Where each round ends.
    pub(super) rounds: Vec<usize>,
    /// The step of each row.
    pub(super) of_row: Vec<u32>,
}

impl Steps {
    /// Finds the steps of rows, which are given in the order of time.
    pub(super) fn new(plan: &Plan, due: &[(i64, RowRef, u32)], past: &[VecDeque<Past>]) -> Self {
        let mut by_key: Vec<u32> = (0..due.len() as u32).collect();
        by_key.sort_by_key(|&row| due[row as usize].2);
        let mut steps: Vec<(usize, Step)> = Vec::with_capacity(due.len());
        let mut keys = Vec::new();
        let mut start = 0;
        while start < by_key.len() {
            let group = due[by_key[start] as usize].2;
            let same = by_key[start..].iter().take_while(|row| due[**row as usize].2 == group);
            let rows = start..start + same.count();
            let mut key = KeyRows { group, rows, front: 0 };
            key.find_steps(plan, due, &by_key, &past[group as usize], keys.len(), &mut steps);
            start = key.rows.end;
            keys.push(key);
        }
        // Steps of a round are in the order of their keys.
        steps.sort_by_key(|(round, _)| *round);
        let mut rounds = Vec::new();
        let mut of_row = vec![0; due.len()];
        for (index, (round, step)) in steps.iter().enumerate() {
            rounds.resize(round + 1, index);
            rounds[*round] = index + 1;
            for &row in &by_key[step.rows.clone()] {
                of_row[row as usize] = index as u32;
            }
        }
        Self {
            by_key,
            keys,
            steps: steps.into_iter().map(|(_, step)| step).collect(),
            rounds,
            of_row,
        }
    }
}

impl KeyRows {
    fn find_steps(
        &mut self,
        plan: &Plan,
        due: &[(i64, RowRef, u32)],
        by_key: &[u32],
        past: &VecDeque<Past>,
        key: usize,
        steps: &mut Vec<(usize, Step)>,
    ) {
        let old = past.len();
        let first = self.rows.start;
        let due_time = |index: usize| due[by_key[index] as usize].0;
        let time = |row: usize| {
            past.get(row)
                .map_or_else(|| due_time(first + row - old), |past| past.time)
        };
        let (mut index, mut round) = (first, 0);
        while index < self.rows.end {
            let now = due_time(index);
            let mut end = index + 1;
            if plan.is_by_time() {
                while end < self.rows.end && due_time(end) == now {
                    end += 1;
                }
            }
            // The rows of the key up to this step, those that are due included.
            let count = old + end - first;
            let left = self.front;
            match plan.spec.frame {
                OverFrame::Rows(Some(preceding)) => {
                    let rows = usize::try_from(preceding).unwrap_or(usize::MAX).saturating_add(1);
                    self.front = self.front.max(count.saturating_sub(rows));
                }
                OverFrame::Range(Some(preceding_ms)) => {
                    let since = now.saturating_sub(preceding_ms.saturating_mul(plan.per_ms));
                    while time(self.front) < since {
                        self.front += 1;
                    }
                }
                OverFrame::Rows(None) | OverFrame::Range(None) => {}
            }
            let step = Step {
                key,
                group: self.group,
                rows: index..end,
                left: left..self.front,
                front: self.front,
            };
            steps.push((round, step));
            (index, round) = (end, round + 1);
        }
    }
}
