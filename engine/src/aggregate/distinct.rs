//! `count(distinct x)`.

use super::{Accumulator, AggregateFunction, EncodedState, passes};
use crate::error::{Error, Result};
use crate::key::{EncodedKeys, KeyDecoder, encode_keys, key_hash, supports_key_type};
use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array};
use arrow::datatypes::DataType;
use hashbrown::HashTable;
use std::sync::Arc;

/// Counts the different values of a group, nulls left out. Exact: it holds every value once per group.
#[derive(Clone, Debug)]
pub struct CountDistinct(DataType);

impl CountDistinct {
    /// Makes the function for arguments of a type.
    ///
    /// # Errors
    /// When values of the type cannot be compared for equality.
    pub fn try_new(argument: &DataType) -> Result<Self> {
        if supports_key_type(argument) {
            Ok(Self(argument.clone()))
        } else {
            Err(Error::Graph(format!(
                "count distinct needs scalar values, and its argument is {argument}"
            )))
        }
    }
}

impl AggregateFunction for CountDistinct {
    fn name(&self) -> &str {
        "count distinct"
    }

    fn return_type(&self) -> DataType {
        DataType::Int64
    }

    fn state_types(&self) -> Vec<DataType> {
        Vec::new()
    }

    fn accumulator(&self) -> Box<dyn Accumulator> {
        Box::new(Sets {
            data_type: self.0.clone(),
            counts: Vec::new(),
            members: HashTable::new(),
            owners: Vec::new(),
            spans: vec![0],
            bytes: Vec::new(),
            scratch: EncodedKeys::default(),
        })
    }
}

/// All sets in one hash table of (group, value), so that a million small sets cost no million allocations.
struct Sets {
    data_type: DataType,
    counts: Vec<i64>,
    /// Numbers of members, by the hash of group and value.
    members: HashTable<u32>,
    owners: Vec<u32>,
    spans: Vec<usize>,
    bytes: Vec<u8>,
    scratch: EncodedKeys,
}

impl Sets {
    fn member(&self, index: u32) -> &[u8] {
        &self.bytes[self.spans[index as usize]..self.spans[index as usize + 1]]
    }

    fn insert(&mut self, group: u32, value: &[u8]) {
        let hash = hash_of(group, value);
        let (owners, spans, bytes) = (&self.owners, &self.spans, &self.bytes);
        let value_of = |index: u32| &bytes[spans[index as usize]..spans[index as usize + 1]];
        let same = |&index: &u32| owners[index as usize] == group && value_of(index) == value;
        if self.members.find(hash, same).is_some() {
            return;
        }
        let index = self.owners.len() as u32;
        self.members
            .insert_unique(hash, index, |&index| hash_of(owners[index as usize], value_of(index)));
        self.owners.push(group);
        self.bytes.extend_from_slice(value);
        self.spans.push(self.bytes.len());
        self.counts[group as usize] += 1;
    }
}

fn hash_of(group: u32, value: &[u8]) -> u64 {
    key_hash(value) ^ u64::from(group).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Accumulator for Sets {
    fn resize(&mut self, groups: usize) {
        self.counts.resize(groups, 0);
    }

    fn update(&mut self, arguments: &[ArrayRef], groups: &[u32], filter: Option<&BooleanArray>) -> Result<()> {
        let [argument] = arguments else {
            return Err(Error::Internal("count distinct has one argument".into()));
        };
        let nulls = argument.logical_nulls();
        let mut keys = std::mem::take(&mut self.scratch);
        encode_keys(arguments, groups.len(), &mut keys)?;
        for (row, &group) in groups.iter().enumerate() {
            if nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) && passes(filter, row) {
                self.insert(group, keys.key(row));
            }
        }
        self.scratch = keys;
        Ok(())
    }

    fn merge(&mut self, _state: &[ArrayRef], _groups: &[u32]) -> Result<()> {
        Err(Error::Internal("sets are not merged as columns".into()))
    }

    fn state(&self, _groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Err(Error::Internal("a set is not a column".into()))
    }

    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from_iter_values(
            groups.iter().map(|&group| self.counts[group as usize]),
        )))
    }

    fn encode(&self, groups: &[u32]) -> Result<EncodedState> {
        let mut position = vec![u32::MAX; self.counts.len()];
        for (index, &group) in groups.iter().enumerate() {
            position[group as usize] = index as u32;
        }
        let wanted: Vec<u32> = (0..self.owners.len() as u32)
            .filter(|&i| position[self.owners[i as usize] as usize] != u32::MAX)
            .collect();
        let owners = wanted
            .iter()
            .map(|&index| position[self.owners[index as usize] as usize])
            .collect();
        let decoder = KeyDecoder::new(vec![self.data_type.clone()]);
        let columns = decoder.decode(wanted.iter().map(|&index| self.member(index)))?;
        Ok(EncodedState {
            owners: Some(owners),
            columns,
        })
    }

    fn decode(&mut self, state: &EncodedState, groups: &[u32]) -> Result<()> {
        let Some(owners) = &state.owners else {
            return Err(Error::Internal("a set's state names its owners".into()));
        };
        let groups: Option<Vec<u32>> = owners
            .iter()
            .map(|&owner| groups.get(owner as usize).copied())
            .collect();
        let groups = groups.ok_or_else(|| Error::Checkpoint("a set's member belongs to no group".into()))?;
        self.update(&state.columns, &groups, None)
    }

    fn size(&self) -> usize {
        self.bytes.capacity() + self.spans.capacity() * 8 + self.owners.capacity() * 9 + self.counts.capacity() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, StringArray};
    use arrow::datatypes::Int64Type;

    #[test]
    fn values_count_once_per_group_and_survive_a_checkpoint() {
        let values: ArrayRef = Arc::new(StringArray::from(vec![
            Some("a"),
            Some("a"),
            Some("b"),
            None,
            Some("a"),
        ]));
        let function = CountDistinct::try_new(values.data_type()).unwrap();
        let mut sets = function.accumulator();
        sets.resize(2);
        sets.update(&[values], &[0, 0, 0, 0, 1], None).unwrap();
        assert_eq!(
            sets.evaluate(&[0, 1]).unwrap().as_primitive::<Int64Type>().values(),
            &[2, 1]
        );

        // Only group 0, restored as group 5, then fed a value it has and one it has not.
        let state = sets.encode(&[0]).unwrap();
        let mut restored = function.accumulator();
        restored.resize(6);
        restored.decode(&state, &[5]).unwrap();
        restored
            .update(&[Arc::new(StringArray::from(vec!["b", "c"]))], &[5, 5], None)
            .unwrap();
        assert_eq!(
            restored.evaluate(&[5, 0]).unwrap().as_primitive::<Int64Type>().values(),
            &[3, 0]
        );
    }
}
