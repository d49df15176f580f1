//! Top-N over all rows so far: emits, when a tick closes, what has changed in it.

use super::lists::Entry;
use super::order::OrderKey;
use super::ranked::{Ranked, Scratch, Watcher};
use super::{BATCH_ROWS, Emitted, Plan};
use crate::error::{Error, Result};
use crate::operator::{OpenTick, Operator, Output, Progress, StateSection, TickClose};
use crate::rows::RowRef;
use arrow::array::RecordBatch;

const ROWS: &str = "rows";

/// The operator.
pub(super) struct ChangingTopN<K> {
    plan: Plan,
    ranked: Ranked<K>,
    scratch: Scratch<K>,
    tick: Touched,
    /// The next of the keys that the tick has touched, while its changes are emitted.
    emitting: usize,
    ttl: Option<Ttl>,
}

/// The keys that the tick has touched, and the lists they had before.
#[derive(Default)]
struct Touched {
    /// The keys in the order in which they were touched, and where their old list ends in `before`.
    groups: Vec<(u32, usize)>,
    before: Vec<RowRef>,
    /// By group: true for those in `groups`.
    is_touched: Vec<bool>,
    /// The place of the first row of this tick, once there is one.
    first_row: Option<RowRef>,
}

impl Touched {
    fn touch<K>(&mut self, group: u32, list: &[Entry<K>]) {
        let index = group as usize;
        if index >= self.is_touched.len() {
            self.is_touched.resize(index + 1, false);
        }
        if !std::mem::replace(&mut self.is_touched[index], true) {
            self.before.extend(list.iter().map(|entry| entry.row));
            self.groups.push((group, self.before.len()));
        }
    }

    fn before(&self, index: usize) -> (u32, &[RowRef]) {
        let (group, end) = self.groups[index];
        let start = index.checked_sub(1).map_or(0, |index| self.groups[index].1);
        (group, &self.before[start..end])
    }

    fn clear(&mut self) {
        for (group, _) in self.groups.drain(..) {
            self.is_touched[group as usize] = false;
        }
        self.before.clear();
        self.first_row = None;
    }
}

/// Forgets keys that were not written for a time.
struct Ttl {
    ttl_ms: i64,
    /// When each group was written last.
    written_ms: Vec<i64>,
    now_ms: i64,
    next_sweep_ms: Option<i64>,
}

impl Ttl {
    fn is_over(&self, group: u32) -> bool {
        let written_ms = self.written_ms.get(group as usize);
        written_ms.is_some_and(|written_ms| written_ms.saturating_add(self.ttl_ms) <= self.now_ms)
    }

    fn written(&mut self, group: u32) {
        let index = group as usize;
        if index >= self.written_ms.len() {
            self.written_ms.resize(index + 1, self.now_ms);
        }
        self.written_ms[index] = self.now_ms;
    }
}

/// Watches a batch.
struct Watch<'a> {
    tick: &'a mut Touched,
    ttl: Option<&'a mut Ttl>,
}

impl<K: OrderKey> Watcher<K> for Watch<'_> {
    fn before(&mut self, group: u32, list: &[Entry<K>]) -> bool {
        let is_over = self.ttl.as_ref().is_some_and(|ttl| ttl.is_over(group)) && !list.is_empty();
        let is_touched = self.tick.is_touched.get(group as usize) == Some(&true);
        if is_over && !is_touched {
            // Its rows are forgotten without a change: as if there had been none.
            self.tick.touch::<K>(group, &[]);
        }
        is_over && !is_touched
    }

    fn changes(&mut self, group: u32, list: &[Entry<K>]) {
        self.tick.touch(group, list);
        if let Some(ttl) = &mut self.ttl {
            ttl.written(group);
        }
    }
}

impl<K: OrderKey> ChangingTopN<K> {
    pub(super) fn new(plan: Plan) -> Result<Self> {
        let ttl = plan.spec.ttl_ms.map(|ttl_ms| Ttl {
            ttl_ms,
            written_ms: Vec::new(),
            now_ms: i64::MIN,
            next_sweep_ms: None,
        });
        Ok(Self {
            scratch: Scratch::new(&plan)?,
            ranked: Ranked::new(&plan),
            tick: Touched::default(),
            emitting: 0,
            ttl,
            plan,
        })
    }

    /// Emits the changes of the touched keys, from the next one on.
    fn emit(&mut self, out: &mut Output) -> Result<Progress> {
        let has_number = self.plan.has_number();
        while self.emitting < self.tick.groups.len() {
            if out.is_full() {
                return Ok(Progress::More);
            }
            let rows_max = BATCH_ROWS.min(out.budget_left());
            let mut emitted = Emitted::default();
            while self.emitting < self.tick.groups.len() && emitted.rows.len() < rows_max {
                let (group, before) = self.tick.before(self.emitting);
                let after = self.ranked.lists.get(group);
                if has_number {
                    self.changes_of_numbers(before, after, &mut emitted);
                } else {
                    self.changes_of_rows(before, after, &mut emitted);
                }
                self.emitting += 1;
            }
            out.emit(self.plan.batch(&self.ranked.rows, &emitted)?);
        }
        Ok(Progress::Done)
    }

    fn is_shown(&self, position: usize) -> bool {
        let number = position as u64 + 1;
        (self.plan.spec.first..=self.plan.spec.last).contains(&number)
    }

    /// Emits each number whose row is another one now.
    fn changes_of_numbers(&self, before: &[RowRef], after: &[Entry<K>], emitted: &mut Emitted) {
        let from = self.plan.spec.first as usize - 1;
        for position in from..before.len().max(after.len()) {
            let (old, new) = (
                before.get(position).copied(),
                after.get(position).map(|entry| entry.row),
            );
            if old != new {
                if let Some(old) = old {
                    emitted.push(old, position, -1);
                }
                if let Some(new) = new {
                    emitted.push(new, position, 1);
                }
            }
        }
    }

    /// Emits the rows that left, then those that came.
    fn changes_of_rows(&self, before: &[RowRef], after: &[Entry<K>], emitted: &mut Emitted) {
        let first_row = self.tick.first_row;
        let is_new = |row: RowRef| first_row.is_some_and(|first| row >= first);
        // Rows that stayed are in the same order in both.
        let mut next = 0;
        let mut came: Vec<usize> = Vec::new();
        for (position, &row) in before.iter().enumerate() {
            while next < after.len() && is_new(after[next].row) {
                next += 1;
            }
            let stayed = after.get(next).is_some_and(|entry| entry.row == row);
            let is_shown_now = stayed && self.is_shown(next);
            match (self.is_shown(position), is_shown_now) {
                (true, false) => emitted.push(row, position, -1),
                (false, true) => came.push(next),
                _ => {}
            }
            next += usize::from(stayed);
        }
        let new = after.iter().enumerate().filter(|(_, entry)| is_new(entry.row));
        came.extend(
            new.map(|(position, _)| position)
                .filter(|position| self.is_shown(*position)),
        );
        came.sort_unstable();
        for position in came {
            emitted.push(after[position].row, position, 1);
        }
    }

    /// Forgets the keys whose time is over, now and then.
    fn sweep(&mut self, now_ms: i64) {
        let Some(ttl) = &mut self.ttl else { return };
        ttl.now_ms = now_ms;
        // Keys that were restored count as written when they are seen first.
        let known = self.ranked.groups.len().max(ttl.written_ms.len());
        ttl.written_ms.resize(known, now_ms);
        let next_sweep_ms = *ttl.next_sweep_ms.get_or_insert(now_ms.saturating_add(ttl.ttl_ms));
        if now_ms < next_sweep_ms {
            return;
        }
        ttl.next_sweep_ms = Some(now_ms.saturating_add((ttl.ttl_ms / 4).max(1)));
        for group in 0..self.ranked.groups.len() as u32 {
            if ttl.is_over(group) && !self.ranked.lists.get(group).is_empty() {
                self.ranked.clear(group);
            }
        }
        if let Some(kept) = self.ranked.forget_empty() {
            ttl.written_ms = kept
                .iter()
                .map(|&group| ttl.written_ms.get(group as usize).copied().unwrap_or(now_ms))
                .collect();
            self.tick.is_touched = Vec::new();
        }
    }
}

impl<K: OrderKey> Operator for ChangingTopN<K> {
    fn on_batch(&mut self, _: usize, batch: &RecordBatch, tick: &OpenTick, _: &mut Output) -> Result<Progress> {
        if let Some(ttl) = &mut self.ttl {
            ttl.now_ms = tick.wall_time_ms;
        }
        if batch.num_rows() > 0 {
            self.tick.first_row.get_or_insert(self.ranked.rows.end());
            let kept = batch.project(&self.plan.kept)?;
            let mut watch = Watch {
                tick: &mut self.tick,
                ttl: self.ttl.as_mut(),
            };
            self.ranked.insert(&self.plan, &kept, &mut self.scratch, &mut watch)?;
        }
        Ok(Progress::Done)
    }

    fn on_close(&mut self, close: &TickClose, out: &mut Output) -> Result<Progress> {
        if self.emit(out)? == Progress::More {
            return Ok(Progress::More);
        }
        self.emitting = 0;
        self.tick.clear();
        self.sweep(close.wall_time_ms);
        self.ranked.remove_left()?;
        Ok(Progress::Done)
    }

    fn capture(&mut self) -> Result<Vec<StateSection>> {
        if !self.tick.groups.is_empty() {
            return Err(Error::Internal("a top-N is captured within a tick".into()));
        }
        self.plan.context.metrics.state_bytes.set(self.ranked.size() as u64);
        Ok(vec![self.ranked.rows.capture(ROWS, self.plan.context.key_groups)?])
    }

    fn restore(&mut self, sections: &[StateSection]) -> Result<()> {
        let key_groups = self.plan.context.key_groups;
        self.ranked
            .restore(&self.plan, sections, ROWS, key_groups, &mut self.scratch)
    }
}
