//! `sum(distinct x)` and `avg(distinct x)`: the different numbers of each group, with how often each is there.

use super::integers::{from_ordered, to_ordered};
use super::{Accumulator, AggregateFunction, Avg, EncodedState, Number, Sum, passes};
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Sums the different numbers of a group; null when it has none.
#[derive(Clone, Debug)]
pub struct SumDistinct(Distinct);

/// Averages the different numbers of a group; null when it has none.
#[derive(Clone, Debug)]
pub struct AvgDistinct(Distinct);

impl SumDistinct {
    /// Makes the function for arguments of a type.
    ///
    /// # Errors
    /// When the type is not a number.
    pub fn try_new(argument: &DataType) -> Result<Self> {
        let of = Sum::try_new(argument)?;
        Distinct::try_new(argument, Arc::new(of)).map(Self)
    }
}

impl AvgDistinct {
    /// Makes the function for arguments of a type.
    ///
    /// # Errors
    /// When the type is not a number.
    pub fn try_new(argument: &DataType) -> Result<Self> {
        let of = Avg::try_new(argument)?;
        Distinct::try_new(argument, Arc::new(of)).map(Self)
    }
}

macro_rules! aggregate_function {
    ($function:ty, $name:literal) => {
        impl AggregateFunction for $function {
            fn name(&self) -> &str {
                $name
            }

            fn return_type(&self) -> DataType {
                self.0.of.return_type()
            }

            fn state_types(&self) -> Vec<DataType> {
                Vec::new()
            }

            fn accumulator(&self) -> Box<dyn Accumulator> {
                Box::new(self.0.sets(false))
            }

            fn changing_accumulator(&self) -> Result<Box<dyn Accumulator>> {
                Ok(Box::new(self.0.sets(true)))
            }
        }
    };
}

aggregate_function!(SumDistinct, "sum distinct");
aggregate_function!(AvgDistinct, "avg distinct");

#[derive(Clone, Debug)]
struct Distinct {
    argument: DataType,
    number: Number,
    /// What is made of the numbers: a function whose state is a sum and a count.
    of: Arc<dyn AggregateFunction>,
}

impl Distinct {
    fn try_new(argument: &DataType, of: Arc<dyn AggregateFunction>) -> Result<Self> {
        let number = Number::of(argument).ok_or_else(|| Error::Internal(format!("{argument} is no number")))?;
        Ok(Self {
            argument: argument.clone(),
            number,
            of,
        })
    }

    fn sets(&self, changes: bool) -> NumberSets {
        NumberSets {
            distinct: self.clone(),
            changes,
            times: BTreeMap::new(),
            sums: Vec::new(),
            counts: Vec::new(),
            entries: Vec::new(),
        }
    }
}

/// The numbers of all groups in one tree, in the order of their values.
struct NumberSets {
    distinct: Distinct,
    /// Whether rows are taken back; then the state says how often each number is there.
    changes: bool,
    /// How often each number is there. A number that was taken back before it came is there less than zero times; between two
    /// ticks there is none.
    times: BTreeMap<(u32, i128), i64>,
    /// The sums of exact numbers, which are subtracted from; those of floats are made anew.
    sums: Vec<i128>,
    /// How many different numbers each group has.
    counts: Vec<i64>,
    /// How many entries of the tree each group has.
    entries: Vec<u32>,
}

impl NumberSets {
    fn numbers_of(&self, column: &ArrayRef) -> Result<Vec<i128>> {
        let no_zero_below = match column.data_type() {
            // -0 and 0 are equal.
            DataType::Float32 | DataType::Float64 => {
                let wide = arrow::compute::cast(column, &DataType::Float64)?;
                let plain = wide
                    .as_primitive::<Float64Type>()
                    .unary::<_, Float64Type>(|value| value + 0.0);
                Arc::new(plain) as ArrayRef
            }
            _ => Arc::clone(column),
        };
        to_ordered(&no_zero_below)?.ok_or_else(|| Error::Internal(format!("{} is no number", column.data_type())))
    }

    fn is_exact(&self) -> bool {
        matches!(self.distinct.number, Number::Exact { .. })
    }

    fn times_of(&self, group: u32, number: i128) -> i64 {
        self.times.get(&(group, number)).copied().unwrap_or(0)
    }

    /// Sets how often a number is there.
    fn set(&mut self, group: u32, number: i128, times: i64) -> Result<()> {
        let place = group as usize;
        let before = match times {
            0 => self.times.remove(&(group, number)),
            _ => self.times.insert((group, number), times),
        };
        match (before.is_some(), times != 0) {
            (false, true) => self.entries[place] += 1,
            (true, false) => self.entries[place] -= 1,
            _ => {}
        }
        let step = i64::from(times > 0) - i64::from(before.is_some_and(|before| before > 0));
        self.counts[place] += step;
        if self.is_exact() && step != 0 {
            let sum = self.sums[place].checked_add(number * i128::from(step));
            self.sums[place] = sum.ok_or_else(|| Error::operator("a sum does not fit in 128 bits"))?;
        }
        Ok(())
    }

    fn of_group(&self, group: u32) -> impl Iterator<Item = (i128, i64)> {
        let members = self.times.range((group, i128::MIN)..=(group, i128::MAX));
        members.map(|(&(_, number), &times)| (number, times))
    }

    /// Sums floats in the order of their values, so that the order they came in does not matter.
    fn float_sum(&self, group: u32) -> Result<f64> {
        let there = self.of_group(group).filter(|(_, times)| *times > 0);
        let values = from_ordered(there.map(|(number, _)| Some(number)).collect(), &DataType::Float64)?;
        Ok(values.as_primitive::<Float64Type>().values().iter().sum())
    }

    /// Calls `visit` with the group, the number and the count of each row of a state.
    fn visit(
        &mut self,
        state: &EncodedState,
        groups: &[u32],
        mut visit: impl FnMut(&mut Self, u32, i128, i64) -> Result<()>,
    ) -> Result<()> {
        let wrong = || Error::Checkpoint("the state of a distinct aggregate is not of numbers".into());
        let (Some(owners), Some(values)) = (&state.owners, state.columns.first()) else {
            return Err(wrong());
        };
        let times = match (&state.columns[1..], self.changes) {
            ([], false) => None,
            ([times], true) => Some(times.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?),
            _ => return Err(wrong()),
        };
        let numbers = self.numbers_of(values)?;
        for (row, (&owner, number)) in owners.iter().zip(numbers).enumerate() {
            let group = groups.get(owner as usize).copied().ok_or_else(wrong)?;
            visit(self, group, number, times.map_or(1, |times| times.value(row)))?;
        }
        Ok(())
    }
}

impl Accumulator for NumberSets {
    fn resize(&mut self, groups: usize) {
        self.sums.resize(groups, 0);
        self.counts.resize(groups, 0);
        self.entries.resize(groups, 0);
    }

    fn update(&mut self, arguments: &[ArrayRef], groups: &[u32], filter: Option<&BooleanArray>) -> Result<()> {
        let [argument] = arguments else {
            return Err(Error::Internal("a distinct aggregate has one argument".into()));
        };
        for (row, number) in self.numbers_of(argument)?.into_iter().enumerate() {
            if argument.is_valid(row) && passes(filter, row) && self.times_of(groups[row], number) == 0 {
                self.set(groups[row], number, 1)?;
            }
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
        let ([argument], true) = (arguments, self.changes) else {
            return Err(Error::Internal(
                "this distinct aggregate does not take rows back".into(),
            ));
        };
        for (row, number) in self.numbers_of(argument)?.into_iter().enumerate() {
            if argument.is_valid(row) && passes(filter, row) {
                let times = self.times_of(groups[row], number) + weights[row];
                self.set(groups[row], number, times)?;
            }
        }
        Ok(())
    }

    fn merge(&mut self, _state: &[ArrayRef], _groups: &[u32]) -> Result<()> {
        Err(Error::Internal("sets are not merged as columns".into()))
    }

    fn state(&self, _groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Err(Error::Internal("a set is not a column".into()))
    }

    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef> {
        let sums: ArrayRef = match self.is_exact() {
            true => {
                let sums = groups.iter().map(|&group| self.sums[group as usize]);
                Arc::new(Decimal128Array::from_iter_values(sums).with_data_type(self.distinct.number.state_type()))
            }
            false => {
                let sums = groups.iter().map(|&group| self.float_sum(group));
                Arc::new(Float64Array::from(sums.collect::<Result<Vec<_>>>()?))
            }
        };
        let counts = Int64Array::from_iter_values(groups.iter().map(|&group| self.counts[group as usize]));
        let mut result = self.distinct.of.accumulator();
        result.resize(groups.len());
        let all: Vec<u32> = (0..groups.len() as u32).collect();
        result.merge(&[sums, Arc::new(counts)], &all)?;
        result.evaluate(&all)
    }

    fn encode(&self, groups: &[u32]) -> Result<EncodedState> {
        let (mut owners, mut numbers, mut times) = (Vec::new(), Vec::new(), Vec::new());
        for (position, &group) in groups.iter().enumerate() {
            for (number, there) in self.of_group(group) {
                owners.push(position as u32);
                numbers.push(Some(number));
                times.push(there);
            }
        }
        let mut columns = vec![from_ordered(numbers, &self.distinct.argument)?];
        if self.changes {
            columns.push(Arc::new(Int64Array::from(times)));
        }
        Ok(EncodedState {
            owners: Some(owners),
            columns,
        })
    }

    fn decode(&mut self, state: &EncodedState, groups: &[u32]) -> Result<()> {
        self.visit(state, groups, |sets, group, number, times| {
            let times = sets.times_of(group, number) + times;
            sets.set(group, number, times)
        })
    }

    fn can_retract(&self) -> bool {
        true
    }

    fn retract(&mut self, state: &EncodedState, groups: &[u32]) -> Result<()> {
        self.visit(state, groups, |sets, group, number, times| {
            let left = sets.times_of(group, number) - times;
            if left < 0 {
                return Err(Error::Internal("a set's member was taken back twice".into()));
            }
            sets.set(group, number, left)
        })
    }

    fn members(&self, group: u32) -> usize {
        self.entries[group as usize] as usize
    }

    fn members_count(&self) -> usize {
        self.times.len()
    }

    fn size(&self) -> usize {
        self.times.len() * (size_of::<(u32, i128)>() + 8) + self.counts.capacity() * 28
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int32Array;
    use std::collections::BTreeSet;

    fn both(argument: &DataType) -> [Arc<dyn AggregateFunction>; 2] {
        [
            Arc::new(SumDistinct::try_new(argument).unwrap()),
            Arc::new(AvgDistinct::try_new(argument).unwrap()),
        ]
    }

    #[test]
    fn sums_and_averages_are_those_of_a_slow_reference() {
        let mut seed = 11u64;
        let mut next = || {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            seed >> 33
        };
        let functions = both(&DataType::Int64);
        let mut held = functions
            .each_ref()
            .map(|function| function.changing_accumulator().unwrap());
        let mut rows: Vec<(u32, i64)> = Vec::new();
        for _ in 0..60 {
            let takes_back = !rows.is_empty() && next() % 3 == 0;
            let row = match takes_back {
                true => rows.swap_remove(next() as usize % rows.len()),
                false => ((next() % 3) as u32, (next() % 6) as i64 - 2),
            };
            if !takes_back {
                rows.push(row);
            }
            let weight = if takes_back { -1 } else { 1 };
            let value: ArrayRef = Arc::new(Int64Array::from(vec![row.1]));
            let mut found = Vec::new();
            for (held, function) in held.iter_mut().zip(&functions) {
                held.resize(3);
                held.update_changes(&[Arc::clone(&value)], &[row.0], None, &[weight])
                    .unwrap();
                // Restored every time, into groups in another order.
                let mut restored = function.changing_accumulator().unwrap();
                restored.resize(3);
                restored.decode(&held.encode(&[2, 1, 0]).unwrap(), &[2, 1, 0]).unwrap();
                assert_eq!(restored.members_count(), held.members_count());
                *held = restored;
                found.push(held.evaluate(&[0, 1, 2]).unwrap());
            }
            let reference = |group: u32| {
                let values: BTreeSet<i64> = rows.iter().filter(|row| row.0 == group).map(|row| row.1).collect();
                let sum: i64 = values.iter().sum();
                (!values.is_empty()).then(|| (sum, sum / values.len() as i64))
            };
            let expected = [0, 1, 2].map(reference);
            let column = |of: fn((i64, i64)) -> i64| -> ArrayRef {
                Arc::new(expected.iter().map(|found| found.map(of)).collect::<Int64Array>())
            };
            assert_eq!(found, [column(|found| found.0), column(|found| found.1)]);
        }
    }

    #[test]
    fn number_counts_until_all_its_states_are_taken_back() {
        let function = SumDistinct::try_new(&DataType::Int32).unwrap();
        let state = |values: Vec<i32>| {
            let mut sets = function.accumulator();
            sets.resize(1);
            let groups = vec![0; values.len()];
            sets.update(&[Arc::new(Int32Array::from(values))], &groups, None)
                .unwrap();
            sets.encode(&[0]).unwrap()
        };
        let (low, high) = (state(vec![1, 2, 2]), state(vec![2, 5]));
        let mut sets = function.accumulator();
        sets.resize(2);
        let sum = |sets: &dyn Accumulator| sets.evaluate(&[1]).unwrap();
        let column = |value: Option<i32>| -> ArrayRef { Arc::new(Int32Array::from(vec![value])) };
        sets.decode(&low, &[1]).unwrap();
        sets.decode(&high, &[1]).unwrap();
        assert_eq!(&sum(sets.as_ref()), &column(Some(8)));
        sets.retract(&low, &[1]).unwrap();
        assert_eq!(&sum(sets.as_ref()), &column(Some(7)));
        sets.retract(&high, &[1]).unwrap();
        assert_eq!(&sum(sets.as_ref()), &column(None));
        assert!(sets.retract(&high, &[1]).is_err(), "it was taken back already");
    }

    #[test]
    fn decimals_and_floats_keep_their_kind() {
        let decimals = Decimal128Array::from(vec![150, 150, 50])
            .with_precision_and_scale(5, 2)
            .unwrap();
        let [sum, _] = both(decimals.data_type());
        let mut sets = sum.accumulator();
        sets.resize(1);
        sets.update(&[Arc::new(decimals)], &[0, 0, 0], None).unwrap();
        let found = sets.evaluate(&[0]).unwrap();
        assert_eq!(found.data_type(), &DataType::Decimal128(38, 2));
        assert_eq!(found.as_primitive::<arrow::datatypes::Decimal128Type>().value(0), 200);

        let [sum, average] = both(&DataType::Float64);
        for (function, expected) in [(sum, 1.5), (average, 0.5)] {
            let mut sets = function.accumulator();
            sets.resize(1);
            let values = Float64Array::from(vec![1.5, 0.0, -0.0, 1.5, f64::from_bits(1 << 63), 0.0]);
            sets.update(&[Arc::new(values)], &[0; 6], None).unwrap();
            sets.update(&[Arc::new(Float64Array::from(vec![0.25, -0.25]))], &[0; 2], None)
                .unwrap();
            let mut restored = function.accumulator();
            restored.resize(1);
            restored.decode(&sets.encode(&[0]).unwrap(), &[0]).unwrap();
            let found = restored.evaluate(&[0]).unwrap();
            let found = found.as_primitive::<Float64Type>().value(0);
            let expected = if expected == 0.5 { 1.5 / 4.0 } else { expected };
            assert_eq!(found, expected);
        }
    }
}
