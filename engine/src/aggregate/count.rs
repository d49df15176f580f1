//! `count(*)` and `count(x)`.

use super::{Accumulator, AggregateFunction, EncodedState};
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Int64Type};
use std::sync::Arc;

/// Counts rows; with an argument, those where it is not null.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count;

impl Count {
    /// Makes the function.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl AggregateFunction for Count {
    fn name(&self) -> &str {
        "count"
    }

    fn return_type(&self) -> DataType {
        DataType::Int64
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![DataType::Int64]
    }

    fn accumulator(&self) -> Box<dyn Accumulator> {
        Box::new(Counts::default())
    }

    fn changing_accumulator(&self) -> Result<Box<dyn Accumulator>> {
        Ok(self.accumulator())
    }

    fn has_signed_state(&self) -> bool {
        true
    }
}

#[derive(Default)]
struct Counts {
    counts: Vec<i64>,
}

impl Accumulator for Counts {
    fn resize(&mut self, groups: usize) {
        self.counts.resize(groups, 0);
    }

    fn update(&mut self, arguments: &[ArrayRef], groups: &[u32], filter: Option<&BooleanArray>) -> Result<()> {
        let nulls = arguments.first().and_then(|argument| argument.logical_nulls());
        if nulls.is_none() && filter.is_none() {
            for &group in groups {
                self.counts[group as usize] += 1;
            }
            return Ok(());
        }
        let passing = match (nulls, filter) {
            (None, Some(filter)) => passing(filter),
            (Some(nulls), None) => nulls.into_inner(),
            (Some(nulls), Some(filter)) => &passing(filter) & nulls.inner(),
            (None, None) => return Ok(()),
        };
        if let Some(&only) = groups.first()
            && groups.iter().all(|&group| group == only)
        {
            self.counts[only as usize] += passing.count_set_bits() as i64;
            return Ok(());
        }
        for (row, &group) in groups.iter().enumerate() {
            self.counts[group as usize] += i64::from(passing.value(row));
        }
        Ok(())
    }

    fn update_changes(
        &mut self,
        arguments: &[ArrayRef],
        groups: &[u32],
        filter: Option<&BooleanArray>,
        weights: &[i64],
    ) -> Result<()> {
        let nulls = arguments.first().and_then(|argument| argument.logical_nulls());
        for (row, (&group, &weight)) in groups.iter().zip(weights).enumerate() {
            if nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) && super::passes(filter, row) {
                self.counts[group as usize] += weight;
            }
        }
        Ok(())
    }

    fn merge(&mut self, state: &[ArrayRef], groups: &[u32]) -> Result<()> {
        for (&group, &count) in groups.iter().zip(counts_of(state)?) {
            self.counts[group as usize] += count;
        }
        Ok(())
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(groups)?])
    }

    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from_iter_values(
            groups.iter().map(|&group| self.counts[group as usize]),
        )))
    }

    fn can_retract(&self) -> bool {
        true
    }

    fn retract(&mut self, state: &EncodedState, groups: &[u32]) -> Result<()> {
        for (&group, &count) in groups.iter().zip(counts_of(&state.columns)?) {
            self.counts[group as usize] -= count;
        }
        Ok(())
    }

    fn size(&self) -> usize {
        self.counts.capacity() * 8
    }
}

/// Returns the rows that pass a filter.
fn passing(filter: &BooleanArray) -> BooleanBuffer {
    match filter.nulls() {
        Some(nulls) => filter.values() & nulls.inner(),
        None => filter.values().clone(),
    }
}

fn counts_of(state: &[ArrayRef]) -> Result<&[i64]> {
    let [counts] = state else {
        return Err(Error::Internal("a count's state has one column".into()));
    };
    match counts.as_primitive_opt::<Int64Type>() {
        Some(counts) => Ok(counts.values()),
        None => Err(Error::Internal(format!(
            "a count's state is Int64, not {}",
            counts.data_type()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_rows_or_values_within_the_filter() {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4)]));
        let filter = BooleanArray::from(vec![Some(true), Some(true), None, Some(true)]);
        let groups = [0, 0, 1, 1];
        let (mut rows, mut of_values) = (Count.accumulator(), Count.accumulator());
        rows.resize(2);
        of_values.resize(2);
        rows.update(&[], &groups, None).unwrap();
        of_values.update(&[values], &groups, Some(&filter)).unwrap();
        assert_eq!(
            rows.evaluate(&[0, 1]).unwrap().as_primitive::<Int64Type>().values(),
            &[2, 2]
        );
        assert_eq!(
            of_values
                .evaluate(&[1, 0])
                .unwrap()
                .as_primitive::<Int64Type>()
                .values(),
            &[1, 1]
        );
    }
}
