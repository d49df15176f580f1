//! What is aggregated for the groups: a slot per function, and one for all sets over the same values.

use super::distinct::{DistinctSets, FILTERS_MAX};
use super::members::Listed;
use super::values::passed_filters;
use crate::aggregate::{Accumulator, AggregateCall};
use crate::error::{Error, Result};
use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::DataType;
use std::cell::RefCell;
use std::rc::Rc;

/// Rows to aggregate.
pub(super) struct Rows<'a> {
    pub(super) batch: &'a RecordBatch,
    /// How often each row counts; `None` for rows that are only added.
    pub(super) weights: Option<&'a [i64]>,
    /// Some filters, and for each row those that it passes: sets over several arguments often have the same.
    filtered: RefCell<(Vec<Option<usize>>, Rc<Vec<u16>>)>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(batch: &'a RecordBatch, weights: Option<&'a [i64]>) -> Self {
        Self {
            batch,
            weights,
            filtered: RefCell::default(),
        }
    }

    fn arguments(&self, call: &AggregateCall) -> Vec<ArrayRef> {
        let arguments = call.arguments.iter();
        arguments
            .map(|&index| ArrayRef::clone(self.batch.column(index)))
            .collect()
    }

    fn filter(&self, call: &AggregateCall) -> Result<Option<&'a BooleanArray>> {
        let Some(index) = call.filter else { return Ok(None) };
        let column = self.batch.column(index);
        let filter = column.as_boolean_opt();
        let wrong = || {
            Error::operator(format!(
                "the filter of {} is {}, not a boolean",
                call.name,
                column.data_type()
            ))
        };
        filter.map(Some).ok_or_else(wrong)
    }

    /// Returns the argument that some calls have in common, and for each row which of their filters it passes, a bit each:
    /// none for a null.
    pub(super) fn passed(&self, calls: &[AggregateCall], of: &[usize]) -> Result<(&'a ArrayRef, Rc<Vec<u16>>)> {
        let argument = match calls[of[0]].arguments[..] {
            [argument] => self.batch.column(argument),
            _ => return Err(Error::Internal("count distinct has one argument".into())),
        };
        let wanted = of.iter().map(|&call| calls[call].filter);
        let mut filtered = self.filtered.borrow_mut();
        if !filtered.0.iter().copied().eq(wanted.clone()) {
            let filters = of.iter().map(|&call| self.filter(&calls[call]));
            let passed = passed_filters(&filters.collect::<Result<Vec<_>>>()?, self.batch.num_rows());
            *filtered = (wanted.collect(), Rc::new(passed));
        }
        let mut passed = Rc::clone(&filtered.1);
        if let Some(nulls) = argument.logical_nulls() {
            let rows = Rc::make_mut(&mut passed).iter_mut().zip(nulls.iter());
            rows.filter(|(_, valid)| !valid).for_each(|(passed, _)| *passed = 0);
        }
        Ok((argument, passed))
    }

    /// Adds the rows to a function's state.
    pub(super) fn add_to(&self, accumulator: &mut dyn Accumulator, call: &AggregateCall, groups: &[u32]) -> Result<()> {
        let (arguments, filter) = (self.arguments(call), self.filter(call)?);
        match self.weights {
            None => accumulator.update(&arguments, groups, filter),
            Some(weights) => accumulator.update_changes(&arguments, groups, filter, weights),
        }
    }
}

/// Which calls are aggregated together.
pub(super) enum Layout {
    Single(usize),
    Distinct {
        /// The calls, in the order of the filters.
        calls: Vec<usize>,
        /// The type of their argument.
        values: DataType,
    },
}

/// Finds out which calls are aggregated together: those that count different values of one argument.
pub(super) fn layout(calls: &[AggregateCall]) -> Vec<Layout> {
    let mut slots: Vec<Layout> = Vec::new();
    for (index, call) in calls.iter().enumerate() {
        let Some(values) = call.function.distinct_values() else {
            slots.push(Layout::Single(index));
            continue;
        };
        let shared = slots.iter_mut().find_map(|slot| match slot {
            Layout::Distinct { calls: known, .. }
                if calls[known[0]].arguments == call.arguments && known.len() < FILTERS_MAX =>
            {
                Some(known)
            }
            _ => None,
        });
        match shared {
            Some(known) => known.push(index),
            None => slots.push(Layout::Distinct {
                calls: vec![index],
                values: values.clone(),
            }),
        }
    }
    slots
}

/// The state of one function, or of the sets over one argument.
pub(super) enum Slot {
    Single {
        call: usize,
        accumulator: Box<dyn Accumulator>,
    },
    Distinct {
        /// The calls, in the order of the filters.
        calls: Vec<usize>,
        sets: Box<DistinctSets>,
    },
}

/// All that is aggregated.
pub(super) struct Slots {
    pub(super) calls: Vec<AggregateCall>,
    pub(super) slots: Vec<Slot>,
    changes: bool,
}

impl Slots {
    /// Makes the state of calls, without groups; with `changes` for rows that are taken back, too.
    pub(super) fn new(calls: &[AggregateCall], changes: bool) -> Result<Self> {
        let slot = |layout| match layout {
            Layout::Single(call) => Ok(Slot::Single {
                call,
                accumulator: new_accumulator(&calls[call], changes)?,
            }),
            Layout::Distinct { calls, values } => Ok(Slot::Distinct {
                sets: Box::new(DistinctSets::new(&values, calls.len(), changes)),
                calls,
            }),
        };
        let slots = layout(calls).into_iter().map(slot).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            calls: calls.to_vec(),
            slots,
            changes,
        })
    }

    pub(super) fn resize(&mut self, groups: usize) {
        for slot in &mut self.slots {
            match slot {
                Slot::Single { accumulator, .. } => accumulator.resize(groups),
                Slot::Distinct { sets, .. } => sets.resize(groups),
            }
        }
    }

    /// Aggregates rows.
    pub(super) fn update(&mut self, rows: &Rows<'_>, groups: &[u32]) -> Result<()> {
        for slot in &mut self.slots {
            match slot {
                Slot::Single { call, accumulator } => rows.add_to(accumulator.as_mut(), &self.calls[*call], groups)?,
                Slot::Distinct { calls, sets } => {
                    let (argument, passed) = rows.passed(&self.calls, calls)?;
                    sets.update(argument, &passed, groups, rows.weights)?;
                }
            }
        }
        Ok(())
    }

    /// Merges the states that a partial aggregation gave.
    pub(super) fn merge(&mut self, states: &[ArrayRef], groups: &[u32]) -> Result<()> {
        let mut next = 0;
        for slot in &mut self.slots {
            match slot {
                Slot::Single { call, accumulator } => {
                    let count = self.calls[*call].function.state_types().len();
                    accumulator.merge(&states[next..next + count], groups)?;
                    next += count;
                }
                Slot::Distinct { sets, .. } => {
                    sets.merge(&Listed::try_new(&states[next])?, groups)?;
                    next += 1;
                }
            }
        }
        Ok(())
    }

    /// Returns one result column per call.
    pub(super) fn results(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let mut results: Vec<Option<ArrayRef>> = vec![None; self.calls.len()];
        for slot in &self.slots {
            match slot {
                Slot::Single { call, accumulator } => results[*call] = Some(accumulator.evaluate(groups)?),
                Slot::Distinct { calls, sets } => {
                    for (filter, &call) in calls.iter().enumerate() {
                        results[call] = Some(sets.counts(groups, filter));
                    }
                }
            }
        }
        let lost = || Error::Internal("a call has no slot".into());
        results.into_iter().map(|result| result.ok_or_else(lost)).collect()
    }

    /// Returns how many values are held for a group besides a fixed state.
    pub(super) fn members(&self, group: u32) -> usize {
        let of_slot = |slot: &Slot| match slot {
            Slot::Single { accumulator, .. } => accumulator.members(group),
            Slot::Distinct { sets, .. } => sets.entries(group),
        };
        self.slots.iter().map(of_slot).sum()
    }

    /// Returns how many values are held for all groups besides a fixed state, also for those that have ended.
    pub(super) fn members_count(&self) -> usize {
        let of_slot = |slot: &Slot| match slot {
            Slot::Single { accumulator, .. } => accumulator.members_count(),
            Slot::Distinct { sets, .. } => sets.len(),
        };
        self.slots.iter().map(of_slot).sum()
    }

    /// Returns the state of some groups, numbered from 0 on; `places` has the new number of each.
    pub(super) fn kept(&self, groups: &[u32], places: &[u32]) -> Result<Self> {
        let mut slots = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            slots.push(match slot {
                Slot::Single { call, accumulator } => {
                    let mut kept = new_accumulator(&self.calls[*call], self.changes)?;
                    kept.resize(groups.len());
                    let numbers: Vec<u32> = (0..groups.len() as u32).collect();
                    for piece in accumulator.encode_pieces(groups)? {
                        kept.decode(&piece, &numbers)?;
                    }
                    Slot::Single {
                        call: *call,
                        accumulator: kept,
                    }
                }
                Slot::Distinct { calls, sets } => Slot::Distinct {
                    calls: calls.clone(),
                    sets: Box::new(sets.kept(places, groups.len())),
                },
            });
        }
        Ok(Self {
            calls: self.calls.clone(),
            slots,
            changes: self.changes,
        })
    }

    pub(super) fn size(&self) -> usize {
        let of_slot = |slot: &Slot| match slot {
            Slot::Single { accumulator, .. } => accumulator.size(),
            Slot::Distinct { sets, .. } => sets.size(),
        };
        self.slots.iter().map(of_slot).sum()
    }
}

fn new_accumulator(call: &AggregateCall, changes: bool) -> Result<Box<dyn Accumulator>> {
    match changes {
        true => call.function.changing_accumulator(),
        false => Ok(call.function.accumulator()),
    }
}
