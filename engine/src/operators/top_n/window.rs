//! Top-N of each window: emits its rows once, when the watermark passes its end.

use super::order::OrderKey;
use super::ranked::{Ranked, Scratch, Unwatched};
use super::{BATCH_ROWS, Emitted, Plan};
use crate::error::{Error, Result};
use crate::operator::{OpenTick, Operator, Output, Progress, StateSection, TickClose};
use crate::operators::window_aggregate::millis;
use crate::time::Watermark;
use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use std::collections::{BTreeMap, BTreeSet};

/// The sections of windows are named by this and the window's end in milliseconds.
const WINDOW: &str = "window ";

/// The operator.
pub(super) struct WindowTopN<K> {
    plan: Plan,
    /// Where the window's end is among the columns that are kept.
    end: usize,
    scratch: Scratch<K>,
    /// The state of each open window, by its end in milliseconds.
    open: BTreeMap<i64, Ranked<K>>,
    /// The key and the row of the window that is being emitted.
    emitting: (u32, usize),
}

impl<K: OrderKey> WindowTopN<K> {
    pub(super) fn new(plan: Plan, end: usize) -> Result<Self> {
        Ok(Self {
            scratch: Scratch::new(&plan)?,
            end: plan.kept.partition_point(|known| *known < end),
            open: BTreeMap::new(),
            emitting: (0, 0),
            plan,
        })
    }

    fn add(&mut self, end_ms: i64, batch: &RecordBatch) -> Result<()> {
        let ranked = self.open.entry(end_ms).or_insert_with(|| Ranked::new(&self.plan));
        ranked.insert(&self.plan, batch, &mut self.scratch, &mut Unwatched)?;
        ranked.remove_left()
    }

    /// Emits the windows that the watermark has passed.
    fn fire(&mut self, watermark: Watermark, out: &mut Output) -> Result<Progress> {
        let (first, last) = (self.plan.spec.first as usize, self.plan.spec.last as usize);
        while let Some((&end_ms, ranked)) = self.open.first_key_value()
            && watermark.has_passed_window(end_ms)
        {
            let (mut group, mut position) = self.emitting;
            let groups = ranked.groups.len() as u32;
            while group < groups {
                let rows_max = BATCH_ROWS.min(out.budget_left());
                if rows_max == 0 {
                    self.emitting = (group, position);
                    return Ok(Progress::More);
                }
                let mut emitted = Emitted::default();
                while group < groups && emitted.rows.len() < rows_max {
                    let list = ranked.lists.get(group);
                    position = position.max(first - 1);
                    while position < list.len().min(last) && emitted.rows.len() < rows_max {
                        emitted.push(list[position].row, position, 1);
                        position += 1;
                    }
                    if position >= list.len().min(last) {
                        (group, position) = (group + 1, 0);
                    }
                }
                out.emit(self.plan.batch(&ranked.rows, &emitted)?);
            }
            self.emitting = (0, 0);
            self.open.remove(&end_ms);
        }
        Ok(Progress::Done)
    }
}

impl<K: OrderKey> Operator for WindowTopN<K> {
    fn on_batch(&mut self, _: usize, batch: &RecordBatch, tick: &OpenTick, _: &mut Output) -> Result<Progress> {
        if batch.num_rows() == 0 {
            return Ok(Progress::Done);
        }
        let watermark = tick.watermarks.iter().copied().min().unwrap_or_default();
        let kept = batch.project(&self.plan.kept)?;
        let ends = millis(kept.column(self.end))?.into_owned();
        let first = ends[0];
        if ends.iter().all(|end| *end == first) && !watermark.has_passed_window(first) {
            self.add(first, &kept)?;
            return Ok(Progress::Done);
        }
        let mut windows: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        let mut late = 0;
        for (row, &end_ms) in ends.iter().enumerate() {
            if watermark.has_passed_window(end_ms) {
                late += 1;
            } else {
                windows.entry(end_ms).or_default().push(row as u32);
            }
        }
        self.plan.context.metrics.rows_late.add(late);
        for (end_ms, rows) in windows {
            self.add(end_ms, &take_record_batch(&kept, &UInt32Array::from(rows))?)?;
        }
        Ok(Progress::Done)
    }

    fn on_close(&mut self, close: &TickClose, out: &mut Output) -> Result<Progress> {
        self.fire(close.watermark(), out)
    }

    fn capture(&mut self) -> Result<Vec<StateSection>> {
        let size: usize = self.open.values().map(Ranked::size).sum();
        self.plan.context.metrics.state_bytes.set(size as u64);
        let key_groups = self.plan.context.key_groups;
        let section =
            |(end_ms, ranked): (&i64, &Ranked<K>)| ranked.rows.capture(&format!("{WINDOW}{end_ms}"), key_groups);
        self.open.iter().map(section).collect()
    }

    fn restore(&mut self, sections: &[StateSection]) -> Result<()> {
        let names: BTreeSet<&str> = sections.iter().map(|section| section.name.as_str()).collect();
        for name in names {
            let end_ms = name.strip_prefix(WINDOW).and_then(|end| end.parse::<i64>().ok());
            let Some(end_ms) = end_ms else {
                let message = format!("the state of a window top-N has no part {name}");
                return Err(Error::Checkpoint(message).permanent());
            };
            let mut ranked = Ranked::new(&self.plan);
            let key_groups = self.plan.context.key_groups;
            ranked.restore(&self.plan, sections, name, key_groups, &mut self.scratch)?;
            if ranked.groups.len() > 0 {
                self.open.insert(end_ms, ranked);
            }
        }
        Ok(())
    }
}
