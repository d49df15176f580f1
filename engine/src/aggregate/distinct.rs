//! `count(distinct x)`.

use super::{Accumulator, AggregateFunction, EncodedState, passes};
use crate::error::{Error, Result};
use crate::key::{EncodedKeys, KeyDecoder, encode_keys, key_hash, supports_key_type};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, UInt32Array};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef};
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

    fn partial_types(&self) -> Vec<DataType> {
        vec![DataType::List(member(&self.0))]
    }

    fn distinct_values(&self) -> Option<&DataType> {
        Some(&self.0)
    }

    fn accumulator(&self) -> Box<dyn Accumulator> {
        Box::new(Sets {
            data_type: self.0.clone(),
            counts: Vec::new(),
            members: HashTable::new(),
            owners: Vec::new(),
            times: Vec::new(),
            gone: 0,
            spans: vec![0],
            bytes: Vec::new(),
            scratch: EncodedKeys::default(),
        })
    }
}

/// The values of a set as a list.
fn member(values: &DataType) -> FieldRef {
    Arc::new(Field::new("value", values.clone(), true))
}

/// All sets in one hash table of (group, value), so that a million small sets cost no million allocations.
struct Sets {
    data_type: DataType,
    counts: Vec<i64>,
    /// Numbers of members, by the hash of group and value.
    members: HashTable<u32>,
    owners: Vec<u32>,
    /// How often each member was added by [`Accumulator::decode`] and not taken back; at 0 it is no member any more.
    times: Vec<u32>,
    /// Members that were taken back and are still in the table.
    gone: usize,
    spans: Vec<usize>,
    bytes: Vec<u8>,
    scratch: EncodedKeys,
}

/// Fewer members than this that are gone are not worth a new table.
const GONE_MIN: usize = 1024;

impl Sets {
    fn member(&self, index: u32) -> &[u8] {
        &self.bytes[self.spans[index as usize]..self.spans[index as usize + 1]]
    }

    fn find(&self, hash: u64, group: u32, value: &[u8]) -> Option<usize> {
        let same = |&index: &u32| self.owners[index as usize] == group && self.member(index) == value;
        self.members.find(hash, same).map(|&index| index as usize)
    }

    /// Adds a value to a set; a value that is in it already counts `again` times more.
    fn insert(&mut self, group: u32, value: &[u8], again: u32) {
        let hash = hash_of(group, value);
        if let Some(known) = self.find(hash, group, value) {
            if again == 0 && self.gone == 0 {
                return;
            }
            if self.times[known] == 0 {
                self.times[known] = 1;
                self.gone -= 1;
                self.counts[group as usize] += 1;
            } else {
                self.times[known] += again;
            }
            return;
        }
        let (owners, spans, bytes) = (&self.owners, &self.spans, &self.bytes);
        let value_of = |index: u32| &bytes[spans[index as usize]..spans[index as usize + 1]];
        let index = self.owners.len() as u32;
        self.members
            .insert_unique(hash, index, |&index| hash_of(owners[index as usize], value_of(index)));
        self.owners.push(group);
        self.times.push(1);
        self.bytes.extend_from_slice(value);
        self.spans.push(self.bytes.len());
        self.counts[group as usize] += 1;
    }

    /// Calls `visit` with the group and the encoded value of each row of a state.
    fn visit(
        &mut self,
        state: &EncodedState,
        groups: &[u32],
        mut visit: impl FnMut(&mut Self, u32, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let Some(owners) = &state.owners else {
            return Err(Error::Internal("a set's state names its owners".into()));
        };
        let mut keys = std::mem::take(&mut self.scratch);
        encode_keys(&state.columns, owners.len(), &mut keys)?;
        for (row, &owner) in owners.iter().enumerate() {
            let group = groups.get(owner as usize).copied();
            let group = group.ok_or_else(|| Error::Checkpoint("a set's member belongs to no group".into()))?;
            visit(self, group, keys.key(row))?;
        }
        self.scratch = keys;
        Ok(())
    }

    /// Makes the table anew without the members that are gone.
    fn compact(&mut self) {
        let mut kept = Sets {
            data_type: self.data_type.clone(),
            counts: std::mem::take(&mut self.counts),
            members: HashTable::with_capacity(self.owners.len() - self.gone),
            owners: Vec::new(),
            times: Vec::new(),
            gone: 0,
            spans: vec![0],
            bytes: Vec::new(),
            scratch: std::mem::take(&mut self.scratch),
        };
        for (index, (&group, &times)) in self.owners.iter().zip(&self.times).enumerate() {
            if times > 0 {
                kept.insert(group, self.member(index as u32), 0);
                kept.counts[group as usize] -= 1;
                if let Some(last) = kept.times.last_mut() {
                    *last = times;
                }
            }
        }
        *self = kept;
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
                self.insert(group, keys.key(row), 0);
            }
        }
        self.scratch = keys;
        Ok(())
    }

    fn merge(&mut self, state: &[ArrayRef], groups: &[u32]) -> Result<()> {
        let [lists] = state else {
            return Err(Error::Internal("sets go over the exchange as one column".into()));
        };
        let wrong = || Error::Internal(format!("{} is no list of a set's values", lists.data_type()));
        let lists = lists.as_list_opt::<i32>().ok_or_else(wrong)?;
        let mut keys = std::mem::take(&mut self.scratch);
        encode_keys(std::slice::from_ref(lists.values()), lists.values().len(), &mut keys)?;
        for (&group, bounds) in groups.iter().zip(lists.value_offsets().windows(2)) {
            for row in bounds[0]..bounds[1] {
                self.insert(group, keys.key(row as usize), 0);
            }
        }
        self.scratch = keys;
        Ok(())
    }

    fn state(&self, _groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Err(Error::Internal("a set is not a column".into()))
    }

    fn partial(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let EncodedState { owners, columns } = self.encode(groups)?;
        let owners = owners.unwrap_or_default();
        let mut bounds = vec![0i32; groups.len() + 1];
        for &owner in &owners {
            bounds[owner as usize + 1] += 1;
        }
        for group in 0..groups.len() {
            bounds[group + 1] += bounds[group];
        }
        let mut next = bounds.clone();
        let mut order = vec![0u32; owners.len()];
        for (&owner, place) in owners.iter().zip(0..) {
            let next = &mut next[owner as usize];
            order[*next as usize] = place;
            *next += 1;
        }
        let values = take(&columns[0], &UInt32Array::from(order), None)?;
        let offsets = OffsetBuffer::new(ScalarBuffer::from(bounds));
        Ok(vec![Arc::new(ListArray::try_new(
            member(&self.data_type),
            offsets,
            values,
            None,
        )?)])
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
            .filter(|&i| self.times[i as usize] > 0 && position[self.owners[i as usize] as usize] != u32::MAX)
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
        self.visit(state, groups, |sets, group, value| {
            sets.insert(group, value, 1);
            Ok(())
        })
    }

    fn can_retract(&self) -> bool {
        true
    }

    fn retract(&mut self, state: &EncodedState, groups: &[u32]) -> Result<()> {
        self.visit(state, groups, |sets, group, value| {
            let known = sets.find(hash_of(group, value), group, value);
            let known = known.filter(|&known| sets.times[known] > 0);
            let known = known.ok_or_else(|| Error::Internal("a set's member was taken back twice".into()))?;
            sets.times[known] -= 1;
            if sets.times[known] == 0 {
                sets.gone += 1;
                sets.counts[group as usize] -= 1;
            }
            Ok(())
        })?;
        if self.gone > GONE_MIN.max(self.owners.len() / 2) {
            self.compact();
        }
        Ok(())
    }

    fn size(&self) -> usize {
        self.bytes.capacity() + self.spans.capacity() * 8 + self.owners.capacity() * 13 + self.counts.capacity() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::StringArray;
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

    #[test]
    fn value_is_a_member_until_all_its_states_are_taken_back() {
        let values = |from: i64, to: i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(from..to)) };
        let function = CountDistinct::try_new(&DataType::Int64).unwrap();
        let state = |from, to| {
            let mut sets = function.accumulator();
            sets.resize(1);
            sets.update(&[values(from, to)], &vec![0; (to - from) as usize], None)
                .unwrap();
            sets.encode(&[0]).unwrap()
        };
        let (low, high) = (state(0, 3000), state(2000, 5000));
        let mut sets = function.accumulator();
        sets.resize(2);
        let count = |sets: &dyn Accumulator| sets.evaluate(&[1]).unwrap().as_primitive::<Int64Type>().value(0);
        for _ in 0..3 {
            sets.decode(&low, &[1]).unwrap();
            sets.decode(&high, &[1]).unwrap();
            assert_eq!(count(sets.as_ref()), 5000);
            sets.retract(&low, &[1]).unwrap();
            assert_eq!(count(sets.as_ref()), 3000);
            assert_eq!(sets.encode(&[1]).unwrap().columns[0].len(), 3000);
            sets.retract(&high, &[1]).unwrap();
            assert_eq!(count(sets.as_ref()), 0);
            assert!(sets.retract(&high, &[1]).is_err(), "it was taken back already");
        }
    }
}
