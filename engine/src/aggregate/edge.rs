//! `first_value(x)` and `last_value(x)`.

use super::values::Values;
use super::{Accumulator, AggregateFunction, passes};
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::DataType;
use std::collections::HashMap;

/// The value of a group that came first; null when it has none.
#[derive(Clone, Debug)]
pub struct FirstValue(DataType);

/// The value of a group that came last; null when it has none.
#[derive(Clone, Debug)]
pub struct LastValue(DataType);

fn check(name: &str, argument: &DataType) -> Result<DataType> {
    match Values::supports(argument) {
        true => Ok(argument.clone()),
        false => Err(Error::Graph(format!("{name} cannot hold values of {argument}"))),
    }
}

impl FirstValue {
    /// Makes the function for arguments of a type.
    ///
    /// # Errors
    /// When values of the type cannot be held.
    pub fn try_new(argument: &DataType) -> Result<Self> {
        check("first_value", argument).map(Self)
    }
}

impl LastValue {
    /// Makes the function for arguments of a type.
    ///
    /// # Errors
    /// When values of the type cannot be held.
    pub fn try_new(argument: &DataType) -> Result<Self> {
        check("last_value", argument).map(Self)
    }
}

impl AggregateFunction for FirstValue {
    fn name(&self) -> &str {
        "first_value"
    }

    fn return_type(&self) -> DataType {
        self.0.clone()
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![self.0.clone()]
    }

    fn accumulator(&self) -> Box<dyn Accumulator> {
        Box::new(Edges::new(&self.0, Edge::First))
    }

    fn needs_order(&self) -> bool {
        true
    }
}

impl AggregateFunction for LastValue {
    fn name(&self) -> &str {
        "last_value"
    }

    fn return_type(&self) -> DataType {
        self.0.clone()
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![self.0.clone()]
    }

    fn accumulator(&self) -> Box<dyn Accumulator> {
        Box::new(Edges::new(&self.0, Edge::Last))
    }

    fn needs_order(&self) -> bool {
        true
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    First,
    Last,
}

/// One value per group. Nulls are no values, as in Flink.
struct Edges {
    data_type: DataType,
    held: Vec<Option<Box<[u8]>>>,
    bytes: usize,
    edge: Edge,
}

impl Edges {
    fn new(data_type: &DataType, edge: Edge) -> Self {
        Self {
            data_type: data_type.clone(),
            held: Vec::new(),
            bytes: 0,
            edge,
        }
    }
}

impl Accumulator for Edges {
    fn resize(&mut self, groups: usize) {
        self.held.resize(groups, None);
    }

    fn update(&mut self, arguments: &[ArrayRef], groups: &[u32], filter: Option<&BooleanArray>) -> Result<()> {
        let [argument] = arguments else {
            return Err(Error::Internal("first_value and last_value have one argument".into()));
        };
        let nulls = argument.logical_nulls();
        // Of each group only the row that counts is turned into bytes.
        let mut picked: HashMap<u32, u32> = HashMap::new();
        for (row, &group) in groups.iter().enumerate() {
            if !passes(filter, row) || nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                continue;
            }
            match self.edge {
                Edge::First if self.held[group as usize].is_some() => {}
                Edge::First => {
                    picked.entry(group).or_insert(row as u32);
                }
                Edge::Last => {
                    picked.insert(group, row as u32);
                }
            }
        }
        if picked.is_empty() {
            return Ok(());
        }
        let (of, rows): (Vec<u32>, Vec<u32>) = picked.into_iter().unzip();
        let taken = take(argument, &UInt32Array::from(rows), None)?;
        let (held, bytes) = (&mut self.held, &mut self.bytes);
        Values::new(&self.data_type)?.encode(&taken, |place, value| {
            let slot = &mut held[of[place] as usize];
            *bytes -= slot.as_ref().map_or(0, |value| value.len());
            *slot = value.map(Into::into);
            *bytes += value.map_or(0, <[u8]>::len);
            Ok(())
        })
    }

    fn merge(&mut self, state: &[ArrayRef], groups: &[u32]) -> Result<()> {
        self.update(state, groups, None)
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(groups)?])
    }

    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef> {
        let held = groups.iter().map(|&group| self.held[group as usize].as_deref());
        Values::new(&self.data_type)?.decode(held)
    }

    fn size(&self) -> usize {
        self.held.capacity() * size_of::<Option<Box<[u8]>>>() + self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Float64Array, Int64Array, ListArray, StringArray};
    use arrow::datatypes::Int64Type;
    use std::sync::Arc;

    fn both(data_type: &DataType) -> [Box<dyn Accumulator>; 2] {
        [
            FirstValue::try_new(data_type).unwrap().accumulator(),
            LastValue::try_new(data_type).unwrap().accumulator(),
        ]
    }

    #[test]
    fn first_and_last_are_those_of_a_slow_reference() {
        // A pseudo-random stream of batches, restored from a checkpoint after every one.
        let (mut seed, groups) = (7u64, 5usize);
        let mut next = || {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            seed >> 33
        };
        let mut held = both(&DataType::Int64);
        let mut rows: Vec<(u32, Option<i64>, bool)> = Vec::new();
        for _ in 0..20 {
            let batch: Vec<(u32, Option<i64>, bool)> = (0..next() % 9)
                .map(|_| {
                    let value = (next() % 4 != 0).then_some((next() % 100) as i64);
                    ((next() % groups as u64) as u32, value, next() % 3 != 0)
                })
                .collect();
            let values: ArrayRef = Arc::new(batch.iter().map(|row| row.1).collect::<Int64Array>());
            let of: Vec<u32> = batch.iter().map(|row| row.0).collect();
            let filter: BooleanArray = batch.iter().map(|row| Some(row.2)).collect();
            rows.extend(batch);
            let all: Vec<u32> = (0..groups as u32).collect();
            let mut restored = both(&DataType::Int64);
            for (held, restored) in held.iter_mut().zip(&mut restored) {
                held.resize(groups);
                held.update(&[Arc::clone(&values)], &of, Some(&filter)).unwrap();
                restored.resize(groups);
                restored.decode(&held.encode(&all).unwrap(), &all).unwrap();
            }
            held = restored;
            for group in all {
                let mut counted = rows
                    .iter()
                    .filter(|row| row.0 == group && row.2)
                    .filter_map(|row| row.1);
                let expected = [counted.clone().next(), counted.next_back()];
                let found = [0, 1].map(|edge| {
                    let value = held[edge].evaluate(&[group]).unwrap();
                    let value = value.as_primitive::<Int64Type>();
                    value.is_valid(0).then(|| value.value(0))
                });
                assert_eq!(found, expected, "group {group}");
            }
        }
    }

    #[test]
    fn values_of_every_kind_come_back_as_they_were() {
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]);
        let columns: [ArrayRef; 3] = [
            Arc::new(StringArray::from(vec![Some(""), None])),
            Arc::new(Float64Array::from(vec![Some(-0.0), None])),
            Arc::new(lists),
        ];
        for column in columns {
            for mut accumulator in both(column.data_type()) {
                accumulator.resize(2);
                accumulator.update(&[Arc::clone(&column)], &[0, 1], None).unwrap();
                assert_eq!(&accumulator.evaluate(&[0, 1]).unwrap(), &column);
            }
        }
    }

    #[test]
    fn states_merge_in_the_order_they_come() {
        for (mut accumulator, expected) in both(&DataType::Int64).into_iter().zip([1, 3]) {
            accumulator.resize(1);
            for state in [vec![None], vec![Some(1)], vec![Some(3)], vec![None]] {
                accumulator.merge(&[Arc::new(Int64Array::from(state))], &[0]).unwrap();
            }
            let found = accumulator.evaluate(&[0]).unwrap();
            assert_eq!(found.as_primitive::<Int64Type>().value(0), expected);
        }
    }

    #[test]
    fn rows_that_are_taken_back_are_refused() {
        let refused = FirstValue::try_new(&DataType::Utf8).unwrap().changing_accumulator();
        let error = refused.err().unwrap().to_string();
        assert!(error.contains("first_value over a result that changes"), "{error}");
    }
}
