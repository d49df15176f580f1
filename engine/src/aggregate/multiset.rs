//! `min(x)` and `max(x)` over rows that are taken back: all values of a group, in order, with how often each is there.

use super::integers::{from_ordered, is_ordered, to_ordered};
use super::{Accumulator, EncodedState, passes};
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Members per encoded piece at most.
const PIECE_MEMBERS: usize = 1 << 16;

/// Bytes of text per encoded piece at most, but for a single value: one array cannot hold more than 2 GiB.
const PIECE_BYTES: usize = 1 << 24;

/// Makes the accumulator of the least or the greatest value.
///
/// # Errors
/// When values of the type have no order here.
pub(super) fn accumulator(data_type: &DataType, wanted: Ordering) -> Result<Box<dyn Accumulator>> {
    let is_text = matches!(
        data_type,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Boolean
    );
    if is_text {
        return Ok(Box::new(Multisets::<Box<str>>::new(data_type, wanted)));
    }
    if is_ordered(data_type) {
        return Ok(Box::new(Multisets::<i128>::new(data_type, wanted)));
    }
    Err(Error::Graph(format!(
        "min and max of {data_type} over a result that changes are not supported yet"
    )))
}

/// What stands for a value: it has the value's order.
trait Member: Ord + Clone + 'static {
    fn of(values: &ArrayRef) -> Result<Vec<Option<Self>>>;

    fn back(members: Vec<Option<Self>>, data_type: &DataType) -> Result<ArrayRef>;

    fn size(&self) -> usize;
}

impl Member for i128 {
    fn of(values: &ArrayRef) -> Result<Vec<Option<Self>>> {
        let numbers = to_ordered(values)?;
        let numbers = numbers.ok_or_else(|| Error::Internal(format!("{} has no order", values.data_type())))?;
        let valid = numbers.into_iter().enumerate();
        Ok(valid
            .map(|(row, number)| values.is_valid(row).then_some(number))
            .collect())
    }

    fn back(members: Vec<Option<Self>>, data_type: &DataType) -> Result<ArrayRef> {
        from_ordered(members, data_type)
    }

    fn size(&self) -> usize {
        0
    }
}

impl Member for Box<str> {
    fn of(values: &ArrayRef) -> Result<Vec<Option<Self>>> {
        // "false" sorts before "true", so booleans may be held as text.
        let text = arrow::compute::cast(values, &DataType::Utf8)?;
        Ok(text
            .as_string::<i32>()
            .iter()
            .map(|text| text.map(Into::into))
            .collect())
    }

    fn back(members: Vec<Option<Self>>, data_type: &DataType) -> Result<ArrayRef> {
        let text: StringArray = members.iter().map(|member| member.as_deref()).collect();
        Ok(arrow::compute::cast(&text, data_type)?)
    }

    fn size(&self) -> usize {
        self.len()
    }
}

/// The values of all groups in one tree. A count below zero is of a value that was taken back before it came; between
/// two ticks there is none.
struct Multisets<M> {
    counts: BTreeMap<(u32, M), i64>,
    /// How many different values each group has.
    members: Vec<u32>,
    bytes: usize,
    data_type: DataType,
    wanted: Ordering,
}

impl<M: Member> Multisets<M> {
    fn new(data_type: &DataType, wanted: Ordering) -> Self {
        Self {
            counts: BTreeMap::new(),
            members: Vec::new(),
            bytes: 0,
            data_type: data_type.clone(),
            wanted,
        }
    }

    fn add(&mut self, group: u32, member: M, weight: i64) {
        let size = member.size();
        match self.counts.entry((group, member)) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                if weight != 0 {
                    entry.insert(weight);
                    self.members[group as usize] += 1;
                    self.bytes += size;
                }
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                *entry.get_mut() += weight;
                if *entry.get() == 0 {
                    entry.remove();
                    self.members[group as usize] -= 1;
                    self.bytes -= size;
                }
            }
        }
    }
}

impl<M: Member + Bounds> Multisets<M> {
    fn of_group(&self, group: u32) -> impl DoubleEndedIterator<Item = (&(u32, M), &i64)> {
        let end = match group.checked_add(1) {
            Some(next) => Bound::Excluded((next, M::least())),
            None => Bound::Unbounded,
        };
        self.counts.range((Bound::Included((group, M::least())), end))
    }

    fn extreme(&self, group: u32) -> Option<M> {
        let is_there = |(_, count): &(&(u32, M), &i64)| **count > 0;
        let found = match self.wanted {
            Ordering::Less => self.of_group(group).find(is_there),
            _ => self.of_group(group).rev().find(is_there),
        };
        found.map(|((_, member), _)| member.clone())
    }
}

/// Members on their way into a checkpoint.
struct Piece<M> {
    /// For each the position of its group.
    owners: Vec<u32>,
    members: Vec<Option<M>>,
    counts: Vec<i64>,
    /// How many bytes of text there are.
    bytes: usize,
}

impl<M: Member> Piece<M> {
    fn new() -> Self {
        Self {
            owners: Vec::new(),
            members: Vec::new(),
            counts: Vec::new(),
            bytes: 0,
        }
    }

    fn push(&mut self, position: usize, member: &M, count: i64) {
        self.owners.push(position as u32);
        self.bytes += member.size();
        self.members.push(Some(member.clone()));
        self.counts.push(count);
    }

    fn finish(self, data_type: &DataType) -> Result<EncodedState> {
        let counts = Arc::new(Int64Array::from(self.counts));
        Ok(EncodedState {
            owners: Some(self.owners),
            columns: vec![M::back(self.members, data_type)?, counts],
        })
    }
}

/// The least of all members: where a group begins.
trait Bounds {
    fn least() -> Self;
}

impl Bounds for i128 {
    fn least() -> Self {
        Self::MIN
    }
}

impl Bounds for Box<str> {
    fn least() -> Self {
        "".into()
    }
}

impl<M: Member + Bounds> Accumulator for Multisets<M> {
    fn resize(&mut self, groups: usize) {
        self.members.resize(groups, 0);
    }

    fn update(&mut self, arguments: &[ArrayRef], groups: &[u32], filter: Option<&BooleanArray>) -> Result<()> {
        self.update_changes(arguments, groups, filter, &vec![1; groups.len()])
    }

    fn update_changes(
        &mut self,
        arguments: &[ArrayRef],
        groups: &[u32],
        filter: Option<&BooleanArray>,
        weights: &[i64],
    ) -> Result<()> {
        let [argument] = arguments else {
            return Err(Error::Internal("min and max have one argument".into()));
        };
        for (row, member) in M::of(argument)?.into_iter().enumerate() {
            if let Some(member) = member.filter(|_| passes(filter, row)) {
                self.add(groups[row], member, weights[row]);
            }
        }
        Ok(())
    }

    fn merge(&mut self, _state: &[ArrayRef], _groups: &[u32]) -> Result<()> {
        Err(Error::Internal("multisets are not merged as columns".into()))
    }

    fn state(&self, _groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Err(Error::Internal("a multiset is not a column".into()))
    }

    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef> {
        let extremes = groups.iter().map(|&group| self.extreme(group)).collect();
        M::back(extremes, &self.data_type)
    }

    fn encode(&self, groups: &[u32]) -> Result<EncodedState> {
        let mut piece = Piece::new();
        for (position, &group) in groups.iter().enumerate() {
            self.of_group(group)
                .for_each(|((_, member), count)| piece.push(position, member, *count));
        }
        piece.finish(&self.data_type)
    }

    fn encode_pieces(&self, groups: &[u32]) -> Result<Vec<EncodedState>> {
        let (mut pieces, mut piece) = (Vec::new(), Piece::new());
        for (position, &group) in groups.iter().enumerate() {
            for ((_, member), count) in self.of_group(group) {
                let is_full = piece.owners.len() == PIECE_MEMBERS || piece.bytes + member.size() > PIECE_BYTES;
                if is_full && !piece.owners.is_empty() {
                    pieces.push(std::mem::replace(&mut piece, Piece::new()).finish(&self.data_type)?);
                }
                piece.push(position, member, *count);
            }
        }
        if !piece.owners.is_empty() || pieces.is_empty() {
            pieces.push(piece.finish(&self.data_type)?);
        }
        Ok(pieces)
    }

    fn decode(&mut self, state: &EncodedState, groups: &[u32]) -> Result<()> {
        let wrong = || Error::Checkpoint("the state of min or max is not of values and counts".into());
        let (Some(owners), [values, counts]) = (&state.owners, state.columns.as_slice()) else {
            return Err(wrong());
        };
        let counts = counts.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
        for ((&owner, member), &count) in owners.iter().zip(M::of(values)?).zip(counts.values()) {
            let group = groups.get(owner as usize).copied().ok_or_else(wrong)?;
            self.add(group, member.ok_or_else(wrong)?, count);
        }
        Ok(())
    }

    fn members(&self, group: u32) -> usize {
        self.members[group as usize] as usize
    }

    fn members_count(&self) -> usize {
        self.counts.len()
    }

    fn size(&self) -> usize {
        self.counts.len() * (size_of::<(u32, M)>() + 8) + self.bytes + self.members.capacity() * 4
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AggregateFunction, Max, Min};
    use super::*;

    #[test]
    fn next_value_is_known_when_the_extreme_is_taken_back() {
        let values: ArrayRef = Arc::new(StringArray::from(vec!["b", "a", "c", "a", "c"]));
        let (least, greatest) = (
            Min::try_new(&DataType::Utf8).unwrap(),
            Max::try_new(&DataType::Utf8).unwrap(),
        );
        let mut accumulators = [
            least.changing_accumulator().unwrap(),
            greatest.changing_accumulator().unwrap(),
        ];
        for (accumulator, after) in accumulators.iter_mut().zip(["b", "b"]) {
            accumulator.resize(2);
            let groups = [1; 5];
            accumulator
                .update_changes(&[Arc::clone(&values)], &groups, None, &[1, -1, 1, 2, -1])
                .unwrap();
            accumulator
                .update_changes(&[Arc::clone(&values)], &groups, None, &[0, -1, 0, 0, 0])
                .unwrap();
            let found = accumulator.evaluate(&[0, 1]).unwrap();
            assert_eq!(found.as_string::<i32>(), &StringArray::from(vec![None, Some(after)]));
            assert_eq!(accumulator.members(1), 1);
        }
    }

    #[test]
    fn values_survive_a_checkpoint_with_their_counts() {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(5), None, Some(9), Some(9)]));
        let function = Max::try_new(&DataType::Int64).unwrap();
        let mut held = function.changing_accumulator().unwrap();
        held.resize(1);
        held.update(&[values], &[0; 4], None).unwrap();
        let mut restored = function.changing_accumulator().unwrap();
        restored.resize(4);
        restored.decode(&held.encode(&[0]).unwrap(), &[3]).unwrap();
        let nine: ArrayRef = Arc::new(Int64Array::from(vec![9]));
        for expected in [9, 5] {
            restored
                .update_changes(&[Arc::clone(&nine)], &[3], None, &[-1])
                .unwrap();
            assert_eq!(
                restored.evaluate(&[3]).unwrap().as_primitive::<Int64Type>().value(0),
                expected
            );
        }
    }

    #[test]
    fn large_texts_are_encoded_in_pieces() {
        let texts = (0..40).map(|number| format!("{number:02}{}", "x".repeat((1 << 20) - 2)));
        let values: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
        let function = Max::try_new(&DataType::Utf8).unwrap();
        let mut held = function.changing_accumulator().unwrap();
        held.resize(2);
        let groups: Vec<u32> = (0..40).map(|row| row % 2).collect();
        held.update(&[values], &groups, None).unwrap();
        let pieces = held.encode_pieces(&[1, 0]).unwrap();
        let sizes: Vec<usize> = pieces.iter().map(|piece| piece.columns[0].len()).collect();
        assert_eq!(sizes, [16, 16, 8]);
        let mut restored = function.changing_accumulator().unwrap();
        restored.resize(2);
        for piece in &pieces {
            restored.decode(piece, &[1, 0]).unwrap();
        }
        assert_eq!((restored.members_count(), restored.members(0)), (40, 20));
        assert_eq!(&restored.evaluate(&[0, 1]).unwrap(), &held.evaluate(&[0, 1]).unwrap());
        assert_eq!(held.encode_pieces(&[]).unwrap().len(), 1);
    }
}
